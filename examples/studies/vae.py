"""A VAE of Fashion-MNIST: bits/dim by how many draws a score is made of, reconstructions and samples.

    FLOWDETECT_DATA=folder python examples/studies/vae.py [--quick] [--in-set fashion_mnist] [--epochs N]
        [--results docs/studies] [--models DIR]

Trains `VAEDensity` with its default settings except for the number of epochs, which is the budget. Writes
vae_results.json and vae_samples.png, whose rows are test images; their reconstructions; means of p(x | z) at latents
drawn from the prior at temperature 0.5; samples at temperature 0.5; and samples, in which, as the model has it, every
pixel is drawn on its own. A model that stands in --models already is loaded instead of trained.
"""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import numpy as np
from shared import SEED, interval, loaded_or_fitted, study_parser

from flowdetect import load_images
from flowdetect.density.vae import VAEDensity
from flowdetect.evaluation import plot_image_grid

N_SHOWN, N_SCORED_OFTEN = 16, 500
DRAWS = (1, 10, 100)
COOL = 0.5  # temperature


def with_draws(density: VAEDensity, n_draws: int) -> VAEDensity:
    """Copy a fitted density whose scores are made of another number of draws."""
    copied = copy.copy(density)
    copied._fitted_params = {**density._fitted_params, "n_draws": n_draws}
    return copied


def bits(density: VAEDensity, X_test: np.ndarray) -> dict[str, object]:
    """Bits/dim of all test images by one draw, and of some by several numbers of draws."""
    found: dict[str, object] = {f"all {len(X_test)} test images, 1 draw": interval(density.bits_per_dim(X_test))}
    some = X_test[:N_SCORED_OFTEN]
    for n_draws in DRAWS:
        started = time.process_time()
        found[f"first {len(some)}, {n_draws} draws"] = interval(with_draws(density, n_draws).bits_per_dim(some))
        found[f"ms an image, {n_draws} draws"] = 1e3 * (time.process_time() - started) / len(some)
    return found


def pictures(density: VAEDensity, X_test: np.ndarray) -> np.ndarray:
    """Five rows: test images, reconstructions, means of p(x | z) at cool latents, cool samples, samples."""
    shown = X_test[:N_SHOWN]
    latents = density.transform(shown)
    drawn = COOL * np.random.default_rng(SEED).normal(size=latents.shape)
    means = [density.inverse_transform(Z).reshape(shown.shape) for Z in (latents, drawn)]
    samples = [density.sample(N_SHOWN, temperature=t, random_state=SEED) for t in (COOL, 1.0)]
    return np.concatenate([shown, *means, *samples])


def main() -> None:
    """Run the study."""
    parser = study_parser(__doc__, quick="one epoch of 2,000 images, a minute")
    parser.add_argument("--epochs", type=int, default=6)
    parser.set_defaults(results="docs/studies")
    args = parser.parse_args()
    X, _ = load_images(args.in_set)
    X_test, _ = load_images(args.in_set, split="test")
    name, epochs = f"vae-{args.in_set}-{args.epochs}", args.epochs
    if args.quick:
        X, X_test, name, epochs = X[:2000], X_test[:100], f"vae-{args.in_set}-quick", 2
    started = time.process_time()
    density = VAEDensity(max_epochs=epochs, random_state=SEED, verbose=1)
    density = loaded_or_fitted(Path(args.models) / f"{name}.safetensors", density, X)
    cpu_seconds = time.process_time() - started
    terms = density.likelihood_terms(X_test)
    results = {
        "settings": density.get_params(),
        "cpu seconds of this call's training": cpu_seconds,
        "history": density.history_,
        "bits/dim": bits(density, X_test),
        "mean log p(x | z), nats": float(terms.log_px_given_z.mean()),
        "mean KL(q(z | x) || p(z)), nats": float(-terms.minus_kl.mean()),
    }
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vae_results.json").write_text(json.dumps(results, indent=1, default=str))
    print(json.dumps({key: value for key, value in results.items() if key != "history"}, indent=1, default=str))
    figure = plot_image_grid(pictures(density, X_test), n_columns=N_SHOWN).figure
    figure.savefig(folder / "vae_samples.png", dpi=110)


if __name__ == "__main__":
    main()
