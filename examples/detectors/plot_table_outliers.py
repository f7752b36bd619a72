"""
Outliers in a table, and why
============================

`OODDetector` finds the outliers of a table without any choices. It measures the distance of a row from its nearest
neighbours, at two scales.
"""

import warnings

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import load_breast_cancer

from flowdetect import OODDetector
from flowdetect.evaluation import auroc, plot_score_histograms

data = load_breast_cancer(as_frame=True)
benign, malignant = data.data[data.target == 1], data.data[data.target == 0]  # 357 and 212 rows of 30 columns
train, fresh = benign[:250], benign[250:]

# %%
# Fit, score, call outliers
# -------------------------
# The detector is fitted to benign rows only. Higher scores are more normal. `predict` returns +1, or -1 below a
# threshold at the lowest 10 % of the training rows. `p_values` returns the share of training rows with a score as low.

detector = OODDetector(random_state=0).fit(train)
inside, outside = detector.score_samples(fresh), detector.score_samples(malignant)
print(f"AUROC {auroc(inside, outside):.3f}")
print(f"called outliers: {(detector.predict(fresh) == -1).mean():.2f} of benign rows, ", end="")
print(f"{(detector.predict(malignant) == -1).mean():.2f} of malignant ones")
_, ax = plt.subplots(figsize=(7, 3), layout="constrained")
plot_score_histograms({"benign": inside, "malignant": outside}, ax=ax)

# %%
# A batch with few outliers
# -------------------------
# The threshold at 10 % calls about ten of 107 benign rows outliers. `select` controls the false discovery rate: on
# average at most a share `fdr` of the outliers that it returns is benign. It warns that with 250 calibration rows it
# can find few; the warning is left out here.

batch = pd.concat([fresh, malignant[:20]])
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    named = detector.select(batch, fdr=0.1) == -1
print(
    f"named: {named[: len(fresh)].sum()} of {len(fresh)} benign rows, {named[len(fresh) :].sum()} of 20 malignant ones"
)
print("this batch is like the training rows:", not detector.test_batch(fresh, random_state=0).drifted)

# %%
# Why this row?
# -------------
# `explain` changes one column at a time. It shows how much each change helps, and the nearest value with which the
# row would be normal.

explanation = detector.explain(malignant[:3])
explanation.to_frame()[["row", "column", "value", "usual_value", "importance"]].head(3).round(2)

# %%
# The same row as a picture: each bar is a column, with its value and the value that would be usual.

_, ax = plt.subplots(figsize=(7, 5), layout="constrained")
explanation.plot(row=0, ax=ax)

# %%
# Training rows that are not all normal
# -------------------------------------
# If some training rows are outliers, set `contamination` to their share. A group of outliers then does not make its own
# members look normal.

mixed = pd.concat([train, malignant[100:125]])
blind = OODDetector(random_state=0).fit(mixed)
told = OODDetector(contamination=25 / 275, random_state=0).fit(mixed)
for name, each in {"not told": blind, "told": told}.items():
    print(f"{name:8} AUROC {auroc(each.score_samples(fresh), each.score_samples(malignant[:100])):.3f}")
