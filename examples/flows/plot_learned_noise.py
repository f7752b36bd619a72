"""
Learned noise: Flow++
=====================

A grey level is a whole number, and a flow needs real numbers, so noise u between 0 and 1 is added to each. With uniform
noise the flow has to fit a staircase. Flow++ learns the noise: q(u | x) is a small flow that is trained together with
the large one. In the score, log q(u | x) is subtracted, so the score stays a lower bound.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from flowdetect import FlowPPDensity, GlowDensity, TarFlowDensity, load_images
from flowdetect.evaluation import plot_image_grid

X, _ = load_images("digits")  # values 0 .. 16
X_test, _ = load_images("digits", "test")
small = {"n_bins": 17, "random_state": 0}
uniform = GlowDensity(n_steps=4, hidden_channels=64, max_epochs=12, **small).fit(X)
learned = GlowDensity(n_steps=4, hidden_channels=64, max_epochs=12, dequantization="variational", **small).fit(X)
for name, density in {"uniform": uniform, "learned": learned}.items():
    print(f"{name} noise: {density.bits_per_dim(X_test).mean():.3f} bits/dim")

# %%
# The noise within a bin
# ----------------------
# The density of the learned noise u within each grey level; the line is uniform noise. The bound is tight if q
# follows the large flow's density within the bin.


@torch.no_grad()
def noise_of(images, seed):
    """Draw u of images (n, 8, 8) from q(u | x)."""
    x = torch.from_numpy(images[:, None]).float()
    layer = learned.model_.dequantize
    seen, _ = learned.model_.preprocess(x + 0.5)  # values as the flow sees them
    draws = torch.rand(len(x), layer.n_noise, generator=torch.Generator().manual_seed(seed))
    return (layer(x, seen, draws)[0] - x)[:, 0].numpy()


many = np.concatenate([noise_of(X_test, seed) for seed in range(10)])
values = np.concatenate([X_test] * 10)
edges = np.linspace(0, 1, 21)
fig, ax = plt.subplots(figsize=(9, 2.8), layout="constrained")
for level in range(17):
    density_of_u, _ = np.histogram(many[values == level], edges, density=True)
    ax.stairs(density_of_u, level + edges, fill=True, alpha=0.6, color="C0" if level % 2 else "C1")
ax.axhline(1, color="black", linewidth=0.8)
ax.set(xticks=np.arange(17) + 0.5, xticklabels=range(17), xlabel="grey level", ylabel="density of u", xlim=(0, 17))

# %%
# The noise of single digits
# --------------------------
# q depends on the whole image. Below each digit: the mean of the noise of each pixel, from black at 0 to white at 1;
# and its standard deviation, black if all draws are equal and white if they are uniform.

shown = X_test[:9]
draws = np.stack([noise_of(shown, seed) for seed in range(200)])
rows = np.concatenate([shown / 16, draws.mean(0), draws.std(0) * np.sqrt(12)])
_, ax = plt.subplots(figsize=(8.5, 3), layout="constrained")
plot_image_grid(rows, n_columns=9, row_labels=["digit", "mean of u", "spread of u"], value_range=(0, 1), ax=ax)

# %%
# Flow++ and TarFlow
# ------------------
# Flow++ maps each value by the distribution function of a mixture of logistic distributions, in addition to a scale and
# a shift. TarFlow cuts the image into patches and maps each patch given the patches before it, with a transformer.

flowpp = FlowPPDensity(n_couplings=(2, 1, 2), hidden_channels=24, max_epochs=8, **small).fit(X)
tarflow = TarFlowDensity(hidden_channels=64, n_layers=2, max_epochs=12, dequantization="variational", **small).fit(X)

# %%
# Test bits/dim (fewer are better) and the seconds of each training:

flows = {"Glow, uniform": uniform, "Glow, learned": learned, "Flow++, learned": flowpp, "TarFlow, learned": tarflow}
fig, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
labels = []
for place, (name, density) in enumerate(flows.items()):
    bits = density.bits_per_dim(X_test)
    ax.errorbar(bits.mean(), -place, xerr=1.96 * bits.std() / np.sqrt(len(bits)), fmt="o", color="C0")
    ax.annotate(f"{bits.mean():.2f}", (bits.mean(), -place), (0, 6), textcoords="offset points", ha="center")
    labels.append(f"{name} ({sum(density.history_['seconds']):.0f} s)")
ax.set(yticks=-np.arange(len(flows)), yticklabels=labels, xlabel="bits/dim", ylim=(-3.5, 0.7))

# %%
# Ten samples of each:

samples = np.concatenate([density.sample(10, random_state=0) for density in flows.values()])
_, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
plot_image_grid(samples, n_columns=10, row_labels=list(flows), value_range=(0, 16), ax=ax)
