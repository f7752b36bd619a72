"""
Outliers in a table, and why
============================

The detector to start with needs no choice: it measures how far a row is from its nearest neighbours, at two scales.
"""

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
# It is fitted to benign rows alone. Higher scores are more normal; `predict` says +1 or -1 at a threshold that 10 % of
# the training rows fall below, and `p_values` say how rare so low a score is among them.

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
# Of 107 benign rows some ten are called outliers by a threshold at 10 %. `select` names rows so that at most a share
# `fdr` of those named is benign, on average. With 250 rows to compare with, it warns, few can be named.

batch = pd.concat([fresh, malignant[:20]])
named = detector.select(batch, fdr=0.1) == -1
print(
    f"named: {named[: len(fresh)].sum()} of {len(fresh)} benign rows, {named[len(fresh) :].sum()} of 20 malignant ones"
)
print("this batch is like the training rows:", not detector.test_batch(fresh, random_state=0).drifted)

# %%
# Why this row?
# -------------
# `explain` changes each column alone until the row is usual, and says how much that helps and which value does it.

explanation = detector.explain(malignant[:3])
print(explanation.to_frame().head(3).round(2).to_string())
_, ax = plt.subplots(figsize=(7, 5), layout="constrained")
explanation.plot(row=0, ax=ax)

# %%
# Training rows that are not all normal
# -------------------------------------
# If some are outliers, say how many: their neighbours are then looked for beyond each other.

mixed = pd.concat([train, malignant[100:125]])
blind = OODDetector(random_state=0).fit(mixed)
told = OODDetector(contamination=25 / 275, random_state=0).fit(mixed)
for name, each in {"not told": blind, "told": told}.items():
    print(f"{name:8} AUROC {auroc(each.score_samples(fresh), each.score_samples(malignant[:100])):.3f}")
