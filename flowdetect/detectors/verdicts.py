"""What a fitted detector answers: scores, labels, p-values, selections, probabilities, drift."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from flowdetect import _persistence
from flowdetect._ctrl_c import whole_imports
from flowdetect._images import draw_seed
from flowdetect._protocols import PathName, RandomState
from flowdetect.detectors.calibration import (
    NORMAL,
    OUTLIER,
    outlier_probability,
    select_by_p_values,
    two_sample_p_value,
)
from flowdetect.detectors.checks import check_batch_options, check_fdr
from flowdetect.detectors.exporting import Exports
from flowdetect.detectors.rows import take


def _mean(scores: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Give the mean over members, of one its own scores: (n,)."""
    return scores[0] if len(scores) == 1 else np.mean(scores, axis=0)


class Verdicts(Exports):
    """What every detector answers, by its scores and those of rows that it was not trained on."""

    offset_: float

    @property
    def classes_(self) -> NDArray[np.int_]:
        """The labels in the order of predict_proba's columns: -1, 1."""
        return np.array([OUTLIER, NORMAL])

    def score_samples(self: Any, X: ArrayLike) -> NDArray[np.float64]:
        """Say how normal each row is.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        scores : (n,) array of float64; higher is more normal; unit and meaning are the detector's
            Rows that lie too far from the training data to be scored have -1e250, the lowest score, and so have rows of
            a table with another value in a column that was constant in training.

        Raises
        ------
        ValueError
            If X does not fit the data given to `fit`, or has NaN, or the density's answer for a row is NaN or inf.

        Warns
        -----
        UserWarning
            If more than half of the rows, of 10 and more, lie too far out. If the range of X is another than the
            training data's, such as 0..1 after 0..255; of tables, 10 rows or more are needed to tell.
        """
        return _mean(self._all_scores(X))

    def _all_scores(self: Any, X: ArrayLike) -> list[NDArray[np.float64]]:
        """Score rows: (n,), with `cv` as often as there are members."""
        check_is_fitted(self, "offset_")
        checked = self._check_X(X, reset=False)
        return [single._scores(checked) for single in self._singles()]

    def save(self: Any, path: PathName) -> None:
        """Write the detector, with its density, to a file that `flowdetect.load` reads.

        Parameters
        ----------
        path : str or path
            An older file of that name is replaced only when the new one is whole.

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If a parameter is something that a file does not keep, such as a RandomState.
        """
        _persistence.save(self, path)

    def _example(self: Any) -> Any:
        """Give a row for a loaded detector to score; None if it is not fitted."""
        if not hasattr(self, "offset_"):
            return None
        known = self.__dict__.get("calibration_scores_", np.zeros(0))
        if known.ndim != 1 or not np.isfinite(known).all() or (np.diff(known) < 0).any():
            raise ValueError("calibration_scores_ are not in order")
        rows = self.__dict__.get("_remembered_rows")
        return np.zeros((1, self.n_features_in_)) if rows is None else rows[:1]

    def decision_function(self: Any, X: ArrayLike) -> NDArray[np.float64]:
        """Say how far above the threshold each row scores: score_samples(X) - offset_.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        decision : (n,) array of float64; negative for outliers
        """
        return self.score_samples(X) - self.offset_

    def predict(self: Any, X: ArrayLike) -> NDArray[np.int_]:
        """Say which rows are outliers.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        labels : (n,) array of int; +1 normal, -1 outlier
        """
        return self._labels(self.score_samples(X))

    def _labels(self, scores: NDArray[np.float64]) -> NDArray[np.int_]:
        return np.where(scores - self.offset_ >= 0, NORMAL, OUTLIER)

    def p_values(self: Any, X: ArrayLike) -> NDArray[np.float64]:
        """Say how rare a score as low as each row's is among the calibration rows.

        p(x) = (1 + number of calibration scores at most s(x)) / (1 + n_calibration)

        With `cv`, each fold's scores are compared with the score by the member that was trained on the other folds,
        and the numbers added up.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        p_values : (n,) array in (0, 1]; small for outliers, at least 1 / (1 + n_calibration)
        """
        return self._p_values(self._all_scores(X))

    def _p_values(self: Any, scores: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        at_most = np.zeros(len(scores[0]), dtype=np.int64)
        for single, found in zip(self._singles(), scores, strict=True):
            at_most += np.searchsorted(single.calibration_scores_, found, side="right")
        return (1 + at_most) / (1 + len(self.calibration_scores_))

    def verdicts(self: Any, X: ArrayLike) -> Bunch:
        """Give the scores, p-values and labels of rows at the cost of the scores alone.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        verdicts : Bunch of (n,) arrays
            score as `score_samples` gives it, p_value as `p_values`, label as `predict`.
        """
        scores = self._all_scores(X)
        score = _mean(scores)
        return Bunch(score=score, p_value=self._p_values(scores), label=self._labels(score))

    def select(self: Any, X: ArrayLike, fdr: float = 0.1) -> NDArray[np.int_]:
        """Say which rows are outliers, such that few of those named are not: the false discovery rate is held.

        `predict` calls a fixed share of normal rows outliers, so that in a large batch with few outliers most rows
        that it names are normal. Of the rows that this names, a share of at most `fdr` is normal, on average over
        batches: p-values are adjusted by Benjamini and Hochberg's procedure, and outliers have at most `fdr`.

        Parameters
        ----------
        X : (n, D) array or frame, or images
            One batch; the answer for a row depends on the others.
        fdr : float in (0, 1), default=0.1

        Returns
        -------
        labels : (n,) array of int; +1 normal, -1 outlier

        Warns
        -----
        UserWarning
            If there are too few calibration rows for a single outlier to be named, however far out it lies. No
            p-value is below 1 / (1 + n_calibration), so that at least n / (fdr * (1 + n_calibration)) rows have to be
            that low before any is named.

        Notes
        -----
        The rate is held where p-values are valid and calibration rows are shared by all rows of the batch (Bates et
        al., 2023). With `cv` there is no proof; p-values are then close to valid.

        References
        ----------
        "Testing for outliers with conformal p-values" (Bates et al., 2023), https://arxiv.org/abs/2104.08279
        "Controlling the false discovery rate" (Benjamini and Hochberg, 1995)

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.mixture import GaussianMixture
        >>> from flowdetect import LikelihoodDetector
        >>> rng = np.random.default_rng(0)
        >>> detector = LikelihoodDetector(GaussianMixture(), calibration_fraction=0.5, random_state=0)
        >>> X = np.concatenate([rng.normal(size=(95, 2)), np.full((5, 2), 9.0)])
        >>> labels = detector.fit(rng.normal(size=(2000, 2))).select(X)
        >>> bool((labels[95:] == -1).all())
        True
        """
        check_fdr(fdr)
        return select_by_p_values(self.p_values(X), fdr, len(self.calibration_scores_))

    def test_batch(
        self: Any, X: ArrayLike, *, alpha: float = 0.05, n_bootstrap: int = 1000, random_state: RandomState = None
    ) -> Bunch:
        """Test whether the rows of X together score as the calibration rows do: whether this batch has drifted.

        Parameters
        ----------
        X : (n, D) array or frame, or images
            One batch.
        alpha : float in (0, 1), default=0.05
            Share of batches without drift that may be called drifted.
        n_bootstrap : int, default=1000
            How often batch and calibration scores are regrouped at random.
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        result : Bunch
            statistic : float, Anderson and Darling's; p_value : float, (1 + number of regroupings in which it is at
            least as large) / (1 + n_bootstrap); drifted : bool, whether p_value <= alpha; n_rows : int

        Notes
        -----
        It is the two-sample test of Anderson and Darling by random permutations. It sees scores that have become
        higher, lower, more or less spread, and keeps its level for batches of any size, a single row included, and
        for tied scores. On normal scores (100 calibration rows, batches of 20, level 0.05) it found a shift of half a
        standard deviation as often as Cramer and von Mises' test (0.54 and 0.52; Kolmogorov and Smirnov's 0.41),
        a spread 1.7 times as large twice as often (0.41; 0.21; 0.20), and one row of ten lying four standard
        deviations out twice as often (0.21; 0.11; 0.09). Drifts that leave the distribution of scores as it was are
        not seen.

        With `cv` the rows are scored by one member each, in turn, as calibration rows are; the level is then
        approximate.

        References
        ----------
        "A two-sample Anderson-Darling rank statistic" (Pettitt, 1976)
        "K-sample Anderson-Darling tests" (Scholz and Stephens, 1987), for ties

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.mixture import GaussianMixture
        >>> from flowdetect import LikelihoodDetector
        >>> rng = np.random.default_rng(0)
        >>> detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(rng.normal(size=(1000, 2)))
        >>> detector.test_batch(rng.normal(size=(50, 2)), random_state=0).drifted
        False
        >>> detector.test_batch(rng.normal(size=(50, 2)) * 1.5, random_state=0).drifted
        True
        """
        check_is_fitted(self, "offset_")
        check_batch_options(alpha, n_bootstrap)
        checked = self._check_X(X, reset=False)
        singles, scores = list(self._singles()), np.empty(len(checked))
        for i, single in enumerate(singles[: len(checked)]):
            part = np.arange(i, len(checked), len(singles))
            scores[part] = single._scores(take(checked, part))
        random = np.random.default_rng(draw_seed(random_state))
        statistic, p_value = two_sample_p_value(scores, self.calibration_scores_, int(n_bootstrap), random)
        return Bunch(statistic=statistic, p_value=p_value, drifted=p_value <= alpha, n_rows=len(scores))

    def predict_proba(self: Any, X: ArrayLike) -> NDArray[np.float64]:
        r"""Say how probable it is that each row is an outlier, and that it is normal.

        With u the share of calibration rows that score lower than x, and q that share at the threshold `offset_`,

        .. math:: P(-1 \mid x) = 1 - \frac{u}{2q} \;\text{if } s(x) < \text{offset}, \text{ else }
                  \frac{1}{2} \left(\frac{1 - u}{1 - q}\right)^{2 (1 - q) / q - 1}

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        probabilities : (n, 2) array; columns as in `classes_`: outlier (-1), normal (+1)

        Notes
        -----
        What outliers look like is not known, so that a probability needs an assumption. Here it is `contamination`: a
        share q, about that much, of rows like those of the calibration are outliers, and they are those that score
        lowest. Of the functions that fall as the score rises, are 1/2 at the threshold and have the mean q over the
        calibration rows, this is a simple one: linear in u below the threshold, a power above. So
        ``predict(X) == -1`` exactly where the outlier's probability is above 1/2. It depends on ranks alone: an
        increasing map of the scores changes it little.

        u is linear between calibration scores, and falls exponentially below the lowest. The exponent is at least 1.
        `p_values` need no such assumption.

        Kriegel et al. (2011) scale scores by the error function of a normal distribution instead, which pyod calls
        "unify"; its values do not agree with the labels.

        References
        ----------
        "Interpreting and unifying outlier scores" (Kriegel et al., 2011)

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.mixture import GaussianMixture
        >>> from flowdetect import LikelihoodDetector
        >>> X = np.random.default_rng(0).normal(size=(1000, 2))
        >>> detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(X)
        >>> detector.predict_proba([[0.0, 0.0], [9.0, 9.0]]).round(2)
        array([[0., 1.],
               [1., 0.]])
        """
        scores = self.score_samples(X)
        outlier = outlier_probability(scores, self.calibration_scores_, self.offset_)
        return np.stack([outlier, 1 - outlier], axis=1)

    def score(self: Any, X: ArrayLike, y: ArrayLike | None = None) -> float:
        """Say how well the detector does on X: what `GridSearchCV` and `cross_val_score` compare by.

        Parameters
        ----------
        X : (n, D) array or frame, or images
        y : (n,) array or None
            Of +1 (normal) and -1 (outlier) alone: what X holds. Anything else, such as class labels, is ignored.

        Returns
        -------
        score : float; higher is better
            With such a y, the area under the ROC curve of the scores. Without, the mean of the density's
            score_samples over X, for ours and scikit-learn's the log-likelihood, nats: without outliers one can know
            how well the density fits, not how well the score tells outliers. It does not depend on the parameters of
            the detector itself.

        Raises
        ------
        ValueError
            If y holds +1 alone or -1 alone.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.mixture import GaussianMixture
        >>> from sklearn.model_selection import GridSearchCV
        >>> from flowdetect import LikelihoodDetector
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(300, 2)) + rng.choice([0.0, 9.0, 18.0], size=(300, 1))
        >>> detector = LikelihoodDetector(GaussianMixture(random_state=0), random_state=0)
        >>> search = GridSearchCV(detector, {"density__n_components": [1, 2, 3]}, cv=3).fit(X)
        >>> search.best_params_
        {'density__n_components': 3}
        >>> search.predict([[9.0, 9.0], [-9.0, 9.0]])
        array([ 1, -1])
        """
        check_is_fitted(self, "offset_")
        if y is not None:
            labels = np.asarray(y)
            check_consistent_length(X, labels)
            found = set(np.unique(labels).tolist()) if labels.dtype.kind in "iufb" else set()
            if found == {OUTLIER, NORMAL}:
                with whole_imports():
                    from sklearn.metrics import roc_auc_score

                return float(roc_auc_score(labels == NORMAL, self.score_samples(X)))
            if found and found < {OUTLIER, NORMAL}:
                raise ValueError(
                    f"score needs both labels in y, +1 (normal) and -1 (outlier), got {found.pop():+d} alone; give "
                    f"rows of both kinds (with a stratified split), or no y, for the mean log-likelihood."
                )
        checked = self._check_X(X, reset=False)
        return float(np.mean([single._log_likelihood(checked).mean() for single in self._singles()]))
