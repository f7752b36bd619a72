"""Checks of the laws of densities, detectors and bijections, for anyone who writes a new one.

Each function takes one object and some data, and raises an AssertionError that says in a sentence which law is broken.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state

from flowdetect._images import to_rows
from flowdetect._persistence import OURS, load

TOLERANCE = 1e-7  # relative and absolute: for float64 sums in another order
LOG_DET_TOLERANCE = 1e-8  # float64, against autograd's Jacobian
N_ALONE, N_DENSITY_ALONE, BATCH_SIZE = 5, 20, 7
FAR = 10.0  # standard deviations of latents that training never produces
EXTREME = 1e6
SEED = 0
N_MIRRORED = 16  # copies of rows, with random signs, for the check of gradients


def check_detector(detector: Any, X: NDArray[Any], X_out: NDArray[Any] | None = None) -> None:
    """Check that a detector obeys the laws of detectors.

    The laws: `fit` returns the detector itself and leaves X as it is (X may be read-only); scores are finite float64,
    one per row, and `decision_function` is `score_samples` minus `offset_`; `predict` is +1 where `decision_function`
    is at least 0, else -1, and -1 for a share `contamination` of the rows given to `fit` (except for ties); p-values
    lie in (0, 1] and increase with the score; a row has the same score alone, in any order and in any batch; clones,
    pickles and repeated fits with the same `random_state` give the same scores; the global random generators are
    unchanged; a density in scikit-learn's `FrozenEstimator` is used as it is.

    Run scikit-learn's own checks as well: `sklearn.utils.estimator_checks.parametrize_with_checks`.

    Parameters
    ----------
    detector : detector
        Fitted or not; it is cloned, never changed. In the clones a `random_state` of None becomes 0.
    X : (n, D) array, or numpy images (n, H, W) or (n, H, W, C)
        Rows for `fit`; about 50 or more, so that `contamination` can be checked.
    X_out : array like X, or None, default=None
        Rows unlike those of X, on which scores and p-values must obey the laws as well. How high they score is not
        checked, since that is a question of quality.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import LikelihoodDetector
    >>> from flowdetect.testing import check_detector
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> check_detector(LikelihoodDetector(GaussianMixture()), X, X_out=X + 9)
    """
    fitted = _unfitted(detector)
    X_read_only = X.copy()
    X_read_only.flags.writeable = False
    before = _global_random_state()
    _demand(fitted.fit(X_read_only) is fitted, "fit must return the detector itself.")
    for rows in (X_read_only,) if X_out is None else (X_read_only, X_out):
        _check_answers(fitted, rows)
    _demand(before == _global_random_state(), "fit and scoring must not change the global random states.")
    _check_contamination(fitted, X)
    _check_batch_invariance(fitted, X if X_out is None else np.concatenate([X, X_out]), _same)
    _check_copies(fitted, X, None, _same)
    if "density" in fitted.get_params(deep=False):
        _check_frozen_density(fitted, X)


def _check_answers(fitted: Any, X: NDArray[Any]) -> None:
    """Check shapes and finiteness, and that score, decision, label and p-value agree."""
    scores, decision = fitted.score_samples(X), fitted.decision_function(X)
    for name, answer in (("score_samples", scores), ("decision_function", decision)):
        _demand(
            isinstance(answer, np.ndarray) and answer.shape == (len(X),) and answer.dtype == np.float64,
            f"{name} must return a float64 array with one value per row.",
        )
        _demand(bool(np.isfinite(answer).all()), f"{name} must be finite.")
    _demand(_same(decision, scores - fitted.offset_), "decision_function must be score_samples minus offset_.")
    labels = np.where(decision >= 0, 1, -1)
    _demand(np.array_equal(fitted.predict(X), labels), "predict must be +1 where decision_function >= 0, else -1.")
    p_values = fitted.p_values(X)
    _demand(p_values.shape == (len(X),), "p_values must return one value per row.")
    _demand(bool(np.all((p_values > 0) & (p_values <= 1))), "p_values must lie in (0, 1].")
    _demand(bool(np.all(np.diff(p_values[np.argsort(scores)]) >= 0)), "p_values must increase with the score.")


def _check_contamination(fitted: Any, X: NDArray[Any]) -> None:
    share = 0.1 if fitted.contamination == "auto" else fitted.contamination
    decision = fitted.decision_function(X)
    n_flagged = int(np.sum(fitted.predict(X) == -1))
    n_tied = int(np.sum(np.abs(decision) <= TOLERANCE * (1 + abs(fitted.offset_))))
    _demand(
        abs(n_flagged - share * len(X)) <= 1 + n_tied,
        f"of the {len(X)} rows given to fit, a share contamination={share} must be labelled outliers, got {n_flagged}.",
    )


def _check_batch_invariance(fitted: Any, X: Any, same: Callable[[Any, Any], bool], n_alone: int = N_ALONE) -> None:
    """Check that the score of a row does not depend on the other rows."""
    scores = fitted.score_samples(X)
    alone = np.concatenate([fitted.score_samples(X[i : i + 1]) for i in range(min(n_alone, len(X)))])
    _demand(same(alone, scores[: len(alone)]), "a row must have the same score alone as among others.")
    order = np.random.default_rng(SEED).permutation(len(X))
    _demand(same(fitted.score_samples(X[order]), scores[order]), "a row must have the same score in any order of rows.")
    batches = [fitted.score_samples(X[start : start + BATCH_SIZE]) for start in range(0, len(X), BATCH_SIZE)]
    _demand(same(np.concatenate(batches), scores), "a row must have the same score in batches of any size.")


def _check_copies(fitted: Any, X: Any, y: Any, same: Callable[[Any, Any], bool]) -> None:
    """Check that clones, pickles, files and repeated fits give the same scores, and leave the original fitted."""
    scores = fitted.score_samples(X)

    def demand(copied: Any, law: str) -> None:
        _demand(same(copied.score_samples(X), scores), law)

    refitted = clone(fitted).fit(X, y)
    demand(refitted, "a clone fitted with the same random_state must give the same scores.")
    demand(refitted.fit(X, y), "fitting again with the same random_state must not change the scores.")
    demand(pickle.loads(pickle.dumps(fitted)), "scores must be the same after pickling.")
    if type(fitted).__name__ in OURS and hasattr(fitted, "save"):  # files hold flowdetect's classes only
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "estimator")
            fitted.save(path)
            demand(load(path), "scores must be the same after saving and loading.")
    demand(fitted, "cloning, pickling and saving must leave the original fitted.")


def _check_frozen_density(fitted: Any, X: NDArray[Any]) -> None:
    density, scores = fitted.density_, fitted.score_samples(X)
    frozen_density = density if isinstance(density, FrozenEstimator) else FrozenEstimator(density)
    frozen = clone(fitted).set_params(density=frozen_density).fit(X[: max(2, len(X) // 2)])
    inside = getattr(frozen.density_, "estimator", frozen.density_)
    _demand(inside is frozen_density.estimator, "a density in FrozenEstimator must be used as it is, not copied.")
    _demand(_same(fitted.score_samples(X), scores), "a density in FrozenEstimator must not be fitted again.")


def check_density(density: Any, X: Any, y: Any = None) -> None:
    """Check that a density obeys the laws of densities.

    The laws: `fit` returns the density itself and leaves X as it is (X may be read-only); scores are finite float64,
    one per row, in nats, `score` is their mean and `bits_per_dim` the same in bits; a row has bitwise the same score
    alone, in any order and in any batch; clones, pickles, saved files and repeated fits with the same `random_state`
    give bitwise the same scores and leave the original fitted; samples have the layout and dtype of X and depend only
    on their `random_state`; without y, a conditional density sums over its classes; likelihood terms sum to the score
    and latents map back to X, if there are such methods; numpy's and torch's global generators are unchanged.

    Parameters
    ----------
    density : density
        Fitted or not; it is cloned, never changed. In the clones a `random_state` of None becomes 0.
    X : (n, D) array, numpy images (n, H, W) or (n, H, W, C), or torch images (n, C, H, W)
        Rows for `fit`, 20 or more.
    y : (n,) array or None, default=None
        Class labels, for a conditional density.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect.density import GlowDensity
    >>> from flowdetect.testing import check_density
    >>> X = np.random.default_rng(0).normal(size=(30, 2))
    >>> check_density(GlowDensity(n_steps=1, hidden_channels=8, max_epochs=1), X)
    """
    if isinstance(X, np.ndarray):
        X = X.copy()
        X.flags.writeable = False
    fitted = _unfitted(density)
    before = _global_random_state()
    _demand(fitted.fit(X, y) is fitted, "fit must return the density itself.")
    _check_scores(fitted, X, y)
    _check_batch_invariance(fitted, X, np.array_equal, N_DENSITY_ALONE)
    _check_samples(fitted, X, y)
    _check_copies(fitted, X, y, np.array_equal)
    if y is not None:
        _check_classes(fitted, X)
    if hasattr(fitted, "likelihood_terms"):
        _check_terms(fitted, X, y)
    if hasattr(fitted, "inverse_transform"):
        _check_latents(fitted, X, y)
    _demand(before == _global_random_state(), "a density must not change numpy's and torch's global random states.")


def _label_choices(y: Any) -> list[Any]:
    """Labels to score with: None, and y if given."""
    return [None] if y is None else [None, y]


def _check_scores(fitted: Any, X: Any, y: Any) -> None:
    """Check shapes and finiteness, and that score_samples, score and bits_per_dim agree."""
    n_features = fitted.n_features_in_ - len(getattr(fitted, "constant_features_", ()))
    for labels in _label_choices(y):
        scores, score = fitted.score_samples(X, labels), fitted.score(X, labels)
        good = isinstance(scores, np.ndarray) and scores.shape == (len(X),) and scores.dtype == np.float64
        _demand(good, "score_samples must return a float64 array with one value per row.")
        _demand(bool(np.isfinite(scores).all()), "score_samples must be finite.")
        _demand(isinstance(score, float) and math.isclose(score, scores.mean()), "score must be score_samples' mean.")
        bits = -scores / (n_features * math.log(2))
        _demand(_same(fitted.bits_per_dim(X, labels), bits), "bits_per_dim must be -score / (n_features * log 2).")


def _check_samples(fitted: Any, X: Any, y: Any) -> None:
    dtype = np.asarray(X).dtype
    for labels in _label_choices(y):
        n_samples = BATCH_SIZE if labels is None else len(X)
        one, again, other = (fitted.sample(n_samples, y=labels, random_state=SEED + i) for i in (0, 0, 1))
        layout = isinstance(one, type(X)) and tuple(one.shape) == (n_samples, *X.shape[1:])
        _demand(layout, "sample must return n_samples rows in the layout of the training data, and nothing else.")
        if fitted.n_bins_ is not None or dtype.kind == "f":
            _demand(np.asarray(one).dtype == dtype, "sample must return the dtype of the training data.")
        _demand(np.array_equal(one, again), "sample must return the same rows for the same random_state.")
        _demand(not np.array_equal(one, other), "sample must return other rows for another random_state.")
        _demand(bool(np.isfinite(fitted.score_samples(one, labels)).all()), "samples must have finite scores.")


def _check_classes(fitted: Any, X: Any) -> None:
    joint = [fitted.score_samples(X, np.full(len(X), label)) for label in fitted.classes_]
    total = np.logaddexp.reduce(np.stack(joint, 1) + fitted.class_log_prior_, axis=1)
    _demand(_same(fitted.score_samples(X), total), "without y, scores must be log sum_k p(x | k) p(k).")


def _check_terms(fitted: Any, X: Any, y: Any) -> None:
    summands = fitted.model_.summands
    for labels in _label_choices(y):
        terms, scores = fitted.likelihood_terms(X, labels), fitted.score_samples(X, labels)
        total = sum(np.reshape(terms[name], (len(X), -1)).sum(1) for name in summands) + terms.get("log_class", 0.0)
        law = f"{' and '.join(summands)} and, without y, log_class must sum to the score."
        _demand(_same(total, scores, 1e-5), law)
        for name in {name.removesuffix("_levels") for name in summands if name.endswith("_levels")}:
            _demand(_same(terms[f"{name}_levels"].sum(1), terms[name]), f"{name}_levels must sum to {name}.")


def _check_latents(fitted: Any, X: Any, y: Any) -> None:
    latents = fitted.transform(X, y)
    _demand(latents.shape[0] == len(X) and latents.dtype == np.float64, "transform must return a float64 row per row.")
    back, rows = fitted.inverse_transform(latents, y), np.asarray(to_rows(X)[0], dtype=float)
    _demand(back.shape == rows.shape and back.dtype == np.float64, "inverse_transform must return float64 rows.")
    if hasattr(fitted, "latent_slices_"):  # a flow, and so invertible
        _demand(_same(back, rows), "inverse_transform(transform(X)) must be X, as rows.")


def check_bijection(bijection: Any, x: Any, context: Any = None) -> None:
    """Check that a bijection obeys the laws of bijections.

    The laws: `forward` returns as many values per row as it takes, and log_det of shape (n,), in the dtype of x;
    `inverse` inverts `forward`, and `forward` inverts `inverse`, also at latents of 10 standard deviations; log_det is
    that of autograd's Jacobian in float64; values are finite at inputs of 1e6; gradients reach every parameter; a row
    has the same result alone, in a batch, and in a tensor that is not contiguous; a context is accepted even if it is
    ignored; `initialize` returns the z that `forward` returns afterwards; the bijection can be pickled; torch's and
    numpy's global generators are unchanged.

    Parameters
    ----------
    bijection : Bijection
        With random weights: a new layer is often the identity, which hides a wrong log_det. It is copied, never
        changed.
    x : (n, ...) tensor
        Some rows of few values: the Jacobian has as many rows and columns as a row has values.
    context : tensor of n rows or None, default=None
        None: the bijection ignores contexts.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Squeeze
    >>> from flowdetect.testing import check_bijection
    >>> check_bijection(Squeeze(), torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)))
    """
    import torch

    before = _global_random_state()
    single = copy.deepcopy(bijection).float()
    double, x = copy.deepcopy(bijection).double(), x.detach().double()
    context = context.double() if context is not None and context.is_floating_point() else context
    z, log_det = double(x, context)
    _demand(len(z) == len(x) and z[0].numel() == x[0].numel(), "forward must return as many values a row as it takes.")
    _demand(log_det.shape == (len(x),), "log_det must have shape (n,).")
    _check_inverses(double, x, context)
    _check_log_det(double, x, context)
    _check_extremes(single, x.float(), context)
    _check_gradients(double, x, context)
    _check_forms(double, x, context)
    pickle.loads(pickle.dumps(bijection))
    with torch.no_grad():
        z = double.initialize(x, context)
        _demand(_near(z, double(x, context)[0]), "initialize must return the z that forward returns afterwards.")
    _demand(before == _global_random_state(), "a bijection must not change the global random states.")


def _check_inverses(double: Any, x: Any, context: Any) -> None:
    import torch

    with torch.no_grad():
        z = double(x, context)[0]
        _demand(_near(double.inverse(z, context), x), "inverse(forward(x)) must be x.")
        far = FAR * torch.randn(z.shape, generator=torch.Generator().manual_seed(SEED), dtype=z.dtype)
        back = double(double.inverse(far, context), context)[0]
        _demand(_near(back, far), "forward(inverse(z)) must be z, also far out.")


def _check_log_det(double: Any, x: Any, context: Any) -> None:
    """Check row by row, so that a row's Jacobian and log_det are those of the row alone."""
    import torch

    log_det = double(x, context)[1].tolist()
    for i in range(len(x)):
        row, label = x[i : i + 1], None if context is None else context[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda row, label=label: double(row, label)[0], row)
        wanted = torch.linalg.slogdet(jacobian.reshape(row.numel(), row.numel()))[1].item()
        close = math.isclose(log_det[i], wanted, rel_tol=LOG_DET_TOLERANCE, abs_tol=LOG_DET_TOLERANCE)
        _demand(close, f"log_det must be log|det| of autograd's Jacobian, {wanted}, got {log_det[i]}.")


def _check_extremes(single: Any, x: Any, context: Any) -> None:
    import torch

    context = context.float() if context is not None and context.is_floating_point() else context
    with torch.no_grad():
        for extreme in (x, EXTREME * x, torch.full_like(x, -EXTREME), torch.zeros_like(x)):
            z, log_det = single(extreme, context)
            outputs = (z, log_det, single.inverse(z, context), single.inverse(torch.full_like(z, EXTREME), context))
            finite = all(bool(torch.isfinite(output).all()) for output in outputs)
            _demand(finite, "z, log_det and inverses must be finite at extreme inputs.")
            _demand(all(o.dtype == x.dtype for o in outputs), "z, log_det and inverses must have the dtype of x.")


def _check_gradients(double: Any, x: Any, context: Any) -> None:
    import torch

    generator = torch.Generator().manual_seed(SEED)

    def many(values: Any) -> Any:  # a small network may have zero gradients on a few rows
        copies = torch.cat([values] * N_MIRRORED)
        signs = 2 * torch.randint(2, copies.shape, generator=generator) - 1
        return copies * signs if copies.is_floating_point() else copies

    z, log_det = double(many(x), None if context is None else many(context))
    parameters, value = dict(double.named_parameters()), (z.square() + z).sum() + log_det.sum()
    gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True) if parameters else ()
    for name, gradient in zip(parameters, gradients, strict=True):
        reached = gradient is not None and bool(gradient.isfinite().all() and gradient.any())
        _demand(reached, f"gradients must be finite and reach every parameter, not true for {name!r}.")


def _check_forms(double: Any, x: Any, context: Any) -> None:
    """Check a batch of one, tensors that are not contiguous, and a context that the bijection ignores."""
    import torch

    def strided(values: Any) -> Any:
        return values.repeat_interleave(2, dim=-1)[..., ::2]

    def demand(answer: Any, law: str) -> None:
        n_rows = len(answer[0])
        _demand(_near(answer[0], z[:n_rows]) and _near(answer[1], log_det[:n_rows]), law)

    with torch.no_grad():
        z, log_det = double(x, context)
        demand(double(x[:1], None if context is None else context[:1]), "a row must be mapped alone as in a batch.")
        demand(double(strided(x), context), "x need not be contiguous.")
        _demand(_near(double.inverse(strided(z), context), x), "z need not be contiguous.")
        if context is None:
            ignored, law = x.new_zeros(len(x)), "a context must be accepted, and ignored, even if it has no use."
            demand(double(x, ignored), law)
            _demand(_near(double.inverse(z, ignored), x), law)


def _near(one: Any, other: Any) -> bool:
    return _same(one.detach().numpy(), other.detach().numpy())


def _unfitted(detector: Any) -> Any:
    unfitted = clone(detector)
    if unfitted.get_params(deep=False).get("random_state", SEED) is None:
        unfitted.set_params(random_state=SEED)
    return unfitted


def _global_random_state() -> bytes:
    import torch

    return pickle.dumps([check_random_state(None).get_state(), torch.get_rng_state().numpy()])


def _same(one: NDArray[Any], other: NDArray[Any], tolerance: float = TOLERANCE) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=tolerance, atol=tolerance))


def _demand(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)
