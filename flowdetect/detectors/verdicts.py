"""The results of a fitted detector: scores, labels, p-values, selections, probabilities and drift."""

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
    """Average the members' scores: (n,)."""
    return scores[0] if len(scores) == 1 else np.mean(scores, axis=0)


class Verdicts(Exports):
    """Methods of a fitted detector that compare scores with those of the calibration rows."""

    offset_: float

    @property
    def classes_(self) -> NDArray[np.int_]:
        """Labels in the order of the columns of `predict_proba`: -1, 1."""
        return np.array([OUTLIER, NORMAL])

    def score_samples(self: Any, X: ArrayLike) -> NDArray[np.float64]:
        """Score rows; higher is more normal.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        scores : (n,) array of float64; higher is more normal; unit and meaning are the detector's
            The lowest score, -1e250, means that a row lies too far from the training data to be scored, or that a
            column that was constant in training has another value.

        Raises
        ------
        ValueError
            If X does not match the data given to `fit`, or has NaN, or if the density returns NaN or inf for a row.

        Warns
        -----
        UserWarning
            If more than half of at least 10 rows lie too far out. If the range of X differs from that of the training
            data, such as 0..1 after 0..255; for tables this needs at least 10 rows.
        """
        return _mean(self._all_scores(X))

    def _all_scores(self: Any, X: ArrayLike) -> list[NDArray[np.float64]]:
        """Score rows: one (n,) array, or with `cv` one for each member."""
        check_is_fitted(self, "offset_")
        checked = self._check_X(X, reset=False)
        return [single._scores(checked) for single in self._singles()]

    def save(self: Any, path: PathName) -> None:
        """Write the detector, with its density, to a file that `flowdetect.load` reads.

        Parameters
        ----------
        path : str or path
            An existing file is replaced only after the new one is complete.

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If a parameter cannot be stored in a file, such as a RandomState.
        """
        _persistence.save(self, path)

    def _example(self: Any) -> Any:
        """Return a row that a loaded detector scores as a test; None if it is not fitted."""
        if not hasattr(self, "offset_"):
            return None
        known = self.__dict__.get("calibration_scores_", np.zeros(0))
        if known.ndim != 1 or not np.isfinite(known).all() or (np.diff(known) < 0).any():
            raise ValueError("calibration_scores_ are not in order")
        rows = self.__dict__.get("_remembered_rows")
        return np.zeros((1, self.n_features_in_)) if rows is None else rows[:1]

    def decision_function(self: Any, X: ArrayLike) -> NDArray[np.float64]:
        """Return the distance of each score from the threshold: score_samples(X) - offset_.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        decision : (n,) array of float64; negative for outliers
        """
        return self.score_samples(X) - self.offset_

    def predict(self: Any, X: ArrayLike) -> NDArray[np.int_]:
        """Label rows as normal or as outliers.

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
        """Return the share of calibration rows that score as low as each row.

        p(x) = (1 + number of calibration scores at most s(x)) / (1 + n_calibration)

        With `cv`, the count runs over the folds; each fold's member scores x and is compared with the fold's scores.

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
        """Return scores, p-values and labels, for the cost of the scores.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        verdicts : Bunch of (n,) arrays
            score, p_value and label: the results of `score_samples`, `p_values` and `predict`.
        """
        scores = self._all_scores(X)
        score = _mean(scores)
        return Bunch(score=score, p_value=self._p_values(scores), label=self._labels(score))

    def select(self: Any, X: ArrayLike, fdr: float = 0.1) -> NDArray[np.int_]:
        """Label rows as outliers with a controlled false discovery rate.

        `predict` calls a fixed share of the normal rows outliers. In a large batch with few outliers, most of the rows
        it labels are therefore normal. Among the outliers that `select` returns, at most a share of `fdr` is normal, on
        average over calibration sets and batches. It adjusts the p-values by the Benjamini-Hochberg procedure and
        selects those of at most `fdr`.

        Parameters
        ----------
        X : (n, D) array or frame, or images
            One batch; the label of a row depends on the other rows.
        fdr : float in (0, 1), default=0.1

        Returns
        -------
        labels : (n,) array of int; +1 normal, -1 outlier

        Warns
        -----
        UserWarning
            If the calibration rows are too few to select a single outlier, however extreme it is. No p-value is below 1
            / (1 + n_calibration), so at least n / (fdr * (1 + n_calibration)) rows must have this value before any is
            selected.

        Notes
        -----
        The rate is controlled if the p-values are valid and all rows of the batch share the calibration rows (Bates et
        al., 2023). With `cv` there is no proof, but the p-values are close to valid.

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
        """Test whether a batch has drifted: whether its scores are distributed like those of the calibration rows.

        Parameters
        ----------
        X : (n, D) array or frame, or images
            One batch.
        alpha : float in (0, 1), default=0.05
            Level of the test: the share of batches without drift that it calls drifted.
        n_bootstrap : int, default=1000
            Number of random permutations of batch and calibration scores.
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        result : Bunch
            statistic : float, of the Anderson-Darling test; p_value : float, (1 + number of permutations whose
            statistic is at least as large) / (1 + n_bootstrap); drifted : bool, p_value <= alpha; n_rows : int

        Notes
        -----
        This is the two-sample Anderson-Darling test with random permutations. It detects scores that are higher, lower,
        more spread or less spread. Its level holds for batches of any size, also of one row, and for tied scores, if
        the calibration rows were held out. On tables `OODDetector` calibrates on its training rows: with 200 training
        rows it called 10 % of batches drifted at level 0.05, with 2,000 rows 5 % (docs/studies/drift_level.txt). The
        test cannot detect drift that leaves the distribution of the scores unchanged.

        Its power on Gaussian scores (100 calibration rows, batches of 20, level 0.05), next to the tests of Cramer-von
        Mises and Kolmogorov-Smirnov: 0.54 (0.52; 0.41) for a shift by half a standard deviation; 0.41 (0.21; 0.20) for
        a standard deviation 1.7 times as large; 0.21 (0.11; 0.09) for one row in ten at four standard deviations.

        With `cv` the members take turns to score the rows, one member for each row; the level is then approximate.

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
        r"""Return the probability that each row is an outlier, and that it is normal.

        Let u be the share of calibration rows that score lower than x, and q this share at the threshold `offset_`:

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
        A probability needs an assumption about outliers. The assumption is `contamination`: about a share q of rows
        like the calibration rows are outliers, namely those with the lowest scores. The function above decreases with
        the score, is 1/2 at the threshold, and has mean q over the calibration rows. Therefore ``predict(X) == -1``
        exactly where the probability of an outlier is above 1/2. It depends on ranks: an increasing map of the scores
        changes it little. `p_values` need no such assumption.

        u is linear between calibration scores, and falls exponentially below the lowest. The exponent is at least 1.

        pyod's "unify" follows Kriegel et al. (2011), who scale scores by the error function of a normal distribution;
        its values do not agree with the labels.

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
        """Rate the detector on X, as `GridSearchCV` and `cross_val_score` need it.

        Parameters
        ----------
        X : (n, D) array or frame, or images
        y : (n,) array or None
            True labels of X, +1 (normal) and -1 (outlier). Any other values, such as class labels, are ignored.

        Returns
        -------
        score : float; higher is better
            With such a y, the AUROC of the scores. Without it, the mean of the density's `score_samples` over X: for
            densities of flowdetect and scikit-learn the mean log-likelihood, nats. This mean measures the fit of the
            density, not the detection of outliers, and does not depend on the detector's own parameters.

        Raises
        ------
        ValueError
            If all values of y are +1, or all are -1.

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
