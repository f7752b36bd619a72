"""What a detector keeps of its trainings: checkpoints and seeds in a folder, and what Ctrl-C left."""

import copy
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from pyod.models.hbos import HBOS
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect import (
    AddNoise,
    EnsembleDensity,
    FisherDetector,
    FlowOD,
    GlowDensity,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    OODDetector,
    PyODDetector,
    RealNVPDensity,
    TransformDetector,
    WAICDetector,
    ZeroLatents,
)
from flowdetect.density import _training

X = np.random.default_rng(0).normal(size=(120, 3))
N_STEPS = 2 * 4  # epochs of batches, of one training on nine rows of ten


def flow(**parameters):
    small = {"n_blocks": 1, "hidden_channels": 4, "max_epochs": 2, "batch_size": 25}
    return RealNVPDensity(**small, early_stopping=False, **parameters)


DETECTORS = {
    "likelihood": lambda density, **kw: LikelihoodDetector(density, **kw),
    "ratio": lambda density, **kw: LikelihoodRatioDetector(density, **kw),
    "WAIC": lambda density, **kw: WAICDetector(density, 2, **kw),
    "WAIC of an ensemble": lambda density, **kw: WAICDetector(EnsembleDensity(density, 2), **kw),
    "OODDetector": lambda density, **kw: OODDetector(density, **kw),
    "Fisher": lambda density, **kw: FisherDetector(density, [LikelihoodRatioDetector(None)], **kw),
    "cv": lambda density, **kw: LikelihoodDetector(density, cv=2, **kw),
    "cv, learning": lambda density, **kw: LikelihoodRatioDetector(density, cv=2, **kw),
    "pipeline": lambda density, **kw: LikelihoodDetector(make_pipeline(StandardScaler(), density), **kw),
    "FlowOD": lambda density, **kw: FlowOD(density=density, **kw),
}
N_TRAININGS = {"ratio": 2, "WAIC": 2, "WAIC of an ensemble": 2, "Fisher": 2, "cv": 2, "cv, learning": 4}
ALL_STEPS = {"ratio": 16, "WAIC": 16, "WAIC of an ensemble": 16, "Fisher": 8 + 2, "cv": 2 * 4, "cv, learning": 4 * 4}


class Killed(BaseException):
    """Ends a process as a kill does: nothing of ours catches it."""


@pytest.fixture
def steps(monkeypatch):
    """Count the steps; a checkpoint is written after each; the step of number `at` is the last."""
    taken = _Steps()
    step = _training.Training._step

    def counted(self, *arguments):
        taken.done += 1
        if taken.done == taken.at:
            taken.act()
        return step(self, *arguments)

    monkeypatch.setattr(_training.Training, "_step", counted)
    monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(os, "fsync", lambda number: None)
    return taken


class _Steps:
    done, at = 0, None

    def act(self):
        raise Killed

    def restart(self, at=None, act=None):
        self.done, self.at = 0, at
        if act is not None:
            self.act = act


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def answers(detector):
    fitted = getattr(detector, "detector_", detector)
    found = [fitted.score_samples(X), fitted.p_values(X), fitted.offset_, fitted.calibration_scores_]
    return [np.asarray(each).tobytes() for each in found]


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def killed_and_resumed(make, steps, at):
    """Kill a fit, and give a second one that goes on from there."""
    steps.restart(at)
    with pytest.raises(Killed):
        make().fit(X)
    steps.restart()
    return make().fit(X)


# ---- kills


@pytest.mark.parametrize("name", DETECTORS)
def test_a_killed_fit_goes_on_bitwise(name, steps, tmp_path):
    n_steps = ALL_STEPS.get(name, N_STEPS)
    at = n_steps - 1  # in the last training

    def make(folder):
        return DETECTORS[name](flow(), checkpoint=tmp_path / folder, random_state=None)

    resumed = killed_and_resumed(lambda: make("a"), steps, at)
    assert steps.done <= 5
    os.makedirs(tmp_path / "b")
    for seed in (tmp_path / "a").glob("*.seed"):
        (tmp_path / "b" / seed.name).write_bytes(seed.read_bytes())
    steps.restart()
    whole = make("b").fit(X)
    assert steps.done == n_steps
    assert answers(whole) == answers(resumed)
    assert len(list(tmp_path.glob("a/*.checkpoint"))) == N_TRAININGS.get(name, 1)
    steps.restart()
    assert answers(make("a").fit(X)) == answers(whole)  # restored
    assert steps.done == 0


def test_with_a_seed_a_folder_changes_nothing(steps, tmp_path):
    plain = LikelihoodRatioDetector(flow(), random_state=3).fit(X)
    detector = LikelihoodRatioDetector(flow(), checkpoint=tmp_path / "new", random_state=3)
    resumed = killed_and_resumed(lambda: clone(detector), steps, 13)
    assert answers(resumed) == answers(plain)
    assert not list(tmp_path.glob("new/*.seed"))


def test_other_fits_have_other_seeds(tmp_path):
    def fitted(X=X, **parameters):
        return LikelihoodDetector(GaussianMixture(), checkpoint=tmp_path, **parameters).fit(X)

    one = fitted()
    assert answers(fitted()) == answers(one)
    assert len(list(tmp_path.iterdir())) == 1
    fitted(contamination=0.2)
    fitted(X[::-1])
    fitted(np.float32(X))
    assert len(list(tmp_path.glob("LikelihoodDetector-*.seed"))) == 4
    assert answers(fitted()) == answers(one)


def test_a_generator_goes_on_if_it_comes_in_the_same_state(steps, tmp_path):
    def make(seed=4, skipped=0):
        generator = np.random.RandomState(seed)
        generator.randint(9, size=skipped)
        return WAICDetector(flow(), 2, checkpoint=tmp_path, random_state=generator)

    resumed = killed_and_resumed(make, steps, 13)
    assert steps.done <= 5
    assert not list(tmp_path.glob("*.seed"))
    plain = WAICDetector(flow(), 2, random_state=np.random.RandomState(4)).fit(X)
    assert answers(resumed) == answers(plain)
    steps.restart()
    make(skipped=1).fit(X)
    assert steps.done == 2 * N_STEPS  # another state: other trainings


def test_a_density_with_a_checkpoint_of_its_own(steps, tmp_path):
    def make():
        return LikelihoodRatioDetector(flow(checkpoint=tmp_path / "own"))

    resumed = killed_and_resumed(make, steps, 13)
    assert steps.done <= 5
    assert files_in(tmp_path) == ["own", "own.background", "own.seed"]
    for path in (tmp_path / "own", tmp_path / "own.background"):
        path.unlink()
    assert answers(make().fit(X)) == answers(resumed)
    (tmp_path / "folder").mkdir()
    killed_and_resumed(lambda: LikelihoodDetector(flow(checkpoint=tmp_path / "folder")), steps, 5)
    assert steps.done <= 5
    assert [Path(name).suffix for name in files_in(tmp_path / "folder")] == [".seed", ".checkpoint"]


def test_an_ensemble_keeps_its_seed(steps, tmp_path):
    resumed = killed_and_resumed(lambda: EnsembleDensity(flow(checkpoint=tmp_path / "own"), 2), steps, 13)
    assert steps.done <= 5
    assert files_in(tmp_path) == ["own.member0", "own.member1", "own.seed"]
    for path in tmp_path.glob("own.member*"):
        path.unlink()
    again = EnsembleDensity(flow(checkpoint=tmp_path / "own"), 2).fit(X)
    np.testing.assert_array_equal(again.member_scores(X), resumed.member_scores(X))


def test_what_knows_no_checkpoints_keeps_the_seed(tmp_path):
    for make in (
        lambda: LikelihoodDetector(GaussianMixture(2), checkpoint=tmp_path / "new"),
        lambda: PyODDetector(HBOS(), checkpoint=tmp_path / "new"),
        lambda: OODDetector(checkpoint=tmp_path / "new"),
        lambda: OODDetector(contamination=0.1, checkpoint=tmp_path / "new"),
    ):
        assert answers(make().fit(X)) == answers(make().fit(X))
    assert len(list(tmp_path.glob("new/*.seed"))) == 4


def test_nothing_frozen_is_trained(steps, tmp_path):
    density = flow(random_state=0).fit(X)
    steps.restart()
    for detector in (
        LikelihoodDetector(density, prefit=True, checkpoint=tmp_path),
        LikelihoodDetector(FrozenEstimator(density), checkpoint=tmp_path),
    ):
        np.testing.assert_array_equal(detector.fit(X).score_samples(X), density.score_samples(X))
    assert steps.done == 0
    assert density.checkpoint is None
    assert not list(tmp_path.glob("*.checkpoint"))


# ---- searches


def test_a_search_that_was_killed_goes_on(steps, tmp_path):
    grid = {"max_epochs": [1, 2]}

    def search(folder):
        return GridSearchCV(flow(checkpoint=f"{tmp_path / folder}/", random_state=0), grid, cv=2)

    steps.restart(at=10)
    with pytest.raises(Killed):
        search("a").fit(X)
    n_before = steps.done
    steps.restart()
    resumed = search("a").fit(X)
    n_after = steps.done
    steps.restart()
    whole = search("b").fit(X)
    assert n_before + n_after <= steps.done + 2
    np.testing.assert_array_equal(resumed.cv_results_["mean_test_score"], whole.cv_results_["mean_test_score"])
    assert len(set(whole.cv_results_["mean_test_score"])) == 2  # one epoch is not two
    np.testing.assert_array_equal(resumed.score_samples(X), whole.score_samples(X))


def test_clones_of_a_detector_do_not_meet(steps, tmp_path):
    detector = LikelihoodDetector(flow(), checkpoint=tmp_path)
    scores = cross_val_score(detector, X, cv=3, scoring=lambda fitted, rows: fitted.score_samples(rows).mean())
    assert len(list(tmp_path.glob("RealNVPDensity-*.checkpoint"))) == 3
    steps.restart()
    again = cross_val_score(detector, X, cv=3, scoring=lambda fitted, rows: fitted.score_samples(rows).mean())
    np.testing.assert_array_equal(again, scores)
    assert steps.done == 0


def test_a_single_file_in_a_search_advises_a_folder(tmp_path):
    with pytest.raises(ValueError, match="differs in X.*with a folder as checkpoint, each training has"):
        cross_val_score(flow(checkpoint=tmp_path / "one", random_state=0), X, cv=2, error_score="raise")


# ---- Ctrl-C


KEPT = {  # after which step Ctrl-C comes: in the last training that is needed
    "likelihood": 5,
    "ratio": 13,
    "WAIC": 13,
    "WAIC of an ensemble": 5,
    "OODDetector": 5,
    "Fisher": 9,
    "cv": 3,
    "cv, learning": 6,
    "pipeline": 5,
    "FlowOD": 5,
}


@pytest.mark.parametrize("name", KEPT)
def test_ctrl_c_leaves_a_whole_detector(name, steps, tmp_path):
    detector = DETECTORS[name](flow(), random_state=0)
    steps.restart(KEPT[name], ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X)
    assert steps.done <= KEPT[name] + 1
    fitted = getattr(detector, "detector_", detector)
    assert np.isfinite(fitted.score_samples(X)).all()
    assert 0.04 < (fitted.predict(X) == -1).mean() < 0.2
    p_values = fitted.p_values(X)
    assert p_values.min() >= 1 / (1 + len(fitted.calibration_scores_))
    assert np.median(p_values) > 0.2
    if "cv" in name:
        assert len(fitted.members_) == 1
        assert len(fitted.calibration_scores_) == 60
    if "WAIC" in name:
        assert len(fitted.density_.members_) == 1 + (KEPT[name] > N_STEPS)
    assert not {"_interrupt", "_seed"} & set(vars(fitted))
    assert answers(copy.deepcopy(detector)) == answers(detector)


def test_ctrl_c_in_a_density_that_several_detectors_share(steps):
    detector = FisherDetector(flow(), random_state=0)  # likelihood and complexity, which train nothing
    steps.restart(5, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X)
    assert 0.05 < (detector.predict(X) == -1).mean() < 0.2
    steps.restart()
    assert answers(detector.fit(X)) == answers(clone(detector).fit(X))  # nothing is left of the interrupt


@pytest.mark.parametrize(("name", "at"), [("ratio", 5), ("cv, learning", 2)])
def test_ctrl_c_before_the_last_training_leaves_the_old_fit(name, at, steps):
    detector = DETECTORS[name](flow(), random_state=0).fit(X)
    before = answers(detector)
    names = set(vars(detector))
    steps.restart(at, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X + 9)
    assert steps.done <= at + 1  # no second training is begun
    assert answers(detector) == before
    assert set(vars(detector)) == names
    new = clone(detector)
    steps.restart(at, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        new.fit(X)
    assert not [name for name in vars(new) if name.endswith("_")]


def test_a_frozen_background_needs_no_training(steps):
    background = FrozenEstimator(flow(random_state=0).fit(X))
    detector = LikelihoodRatioDetector(flow(), background, random_state=0)
    steps.restart(5, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X)
    assert np.isfinite(detector.score_samples(X)).all()


def test_an_interrupted_fit_with_a_folder_goes_on(steps, tmp_path):
    detector = WAICDetector(flow(), 2, checkpoint=tmp_path)
    steps.restart(13, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X)
    steps.restart()
    detector.fit(X)
    assert steps.done <= 4
    whole = WAICDetector(flow(), 2, random_state=seed_in(tmp_path)).fit(X)
    assert answers(detector) == answers(whole)


def seed_in(folder: Path) -> int:
    (file,) = folder.glob("*.seed")
    return int(file.read_text().split(":")[1].strip(" }"))


# ---- parameters


MISSPELT = {
    "background": (
        lambda: LikelihoodRatioDetector(flow(), GlowDensity(n_steps=-1)),
        r"LikelihoodRatioDetector, background: The 'n_steps' parameter of GlowDensity must be .* Got -1",
    ),
    "a step of a pipeline": (
        lambda: LikelihoodRatioDetector(flow(), make_pipeline(StandardScaler(with_mean="no"), flow())),
        r"LikelihoodRatioDetector, background__standardscaler: The 'with_mean' parameter",
    ),
    "the last step": (
        lambda: LikelihoodDetector(make_pipeline(StandardScaler(), flow(n_bins=1))),
        r"LikelihoodDetector, density__realnvpdensity: n_bins must be",
    ),
    "members": (
        lambda: LikelihoodRatioDetector(flow(), EnsembleDensity(flow(), 0)),
        r"LikelihoodRatioDetector, background: EnsembleDensity needs n_members",
    ),
    "of a member": (
        lambda: LikelihoodRatioDetector(flow(), EnsembleDensity(flow(time_limit=-1))),
        r"background: EnsembleDensity, density: .*time_limit",
    ),
    "another's density": (
        lambda: LikelihoodRatioDetector(flow(), GaussianMixture(-1)),
        r"background: The 'n_components' parameter of GaussianMixture",
    ),
    "device": (lambda: LikelihoodRatioDetector(flow(), flow(device="abacus")), "background: .*abacus"),
    "image_shape": (lambda: LikelihoodRatioDetector(flow(), flow(image_shape=7)), "background: .*image_shape"),
    "a detector of Fisher's": (
        lambda: FisherDetector(flow(), [LikelihoodRatioDetector(None, GlowDensity(n_steps=-1))]),
        "LikelihoodRatioDetector, background: The 'n_steps'",
    ),
    "a transformer": (
        lambda: TransformDetector(flow(), transforms=(AddNoise(scale=-1),)),
        r"TransformDetector, transforms\[0\]: scale must be",
    ),
    "a flow of a transformer": (
        lambda: TransformDetector(flow(), transforms=(ZeroLatents(flow(tol=-1)),)),
        r"TransformDetector, transforms\[0\]: ZeroLatents, flow: The 'tol' parameter",
    ),
    "cv": (lambda: LikelihoodRatioDetector(flow(), flow(tol=-1), cv=2), "background: The 'tol' parameter"),
}


@pytest.mark.parametrize("name", MISSPELT)
def test_parameters_within_are_refused_before_training(name, steps):
    make, message = MISSPELT[name]
    with pytest.raises((ValueError, TypeError), match=message):
        make().fit(X)
    assert steps.done == 0


def test_folders_that_cannot_be_written_are_refused_before_training(steps, tmp_path):
    (tmp_path / "file").write_text("")
    missing = tmp_path / "none" / "new"
    background = flow(checkpoint=missing)
    for detector, error, message in (
        (LikelihoodDetector(flow(), checkpoint=missing), OSError, "none/new' cannot be written: its folder does not"),
        (LikelihoodDetector(flow(), checkpoint=tmp_path / "file"), ValueError, "must be a folder here, but .*file' is"),
        (LikelihoodDetector(flow(), checkpoint=3.5), ValueError, "checkpoint must be a path or None, got 3.5"),
        (LikelihoodRatioDetector(flow(), background), OSError, "background: checkpoint=.*none/new' cannot be written"),
    ):
        with pytest.raises(error, match=message):
            detector.fit(X)
    assert steps.done == 0
    assert not list(tmp_path.glob("n*"))


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_folder_without_permission(steps, tmp_path, monkeypatch):
    def refused(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)  # root may write anywhere
    with pytest.raises(OSError, match=f"{tmp_path}.* not writable .Permission denied"):
        LikelihoodDetector(flow(), checkpoint=tmp_path).fit(X)
    assert steps.done == 0
