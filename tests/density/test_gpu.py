"""What a GPU must do as the CPU does, for every density of the laws; skipped where there is none."""

import numpy as np
import pytest
import torch
from density_table import DENSITIES, DIGITS, glow

from flowdetect import LikelihoodDetector, load

pytestmark = pytest.mark.gpu

N_SCORED = 20


@pytest.fixture(params=DENSITIES, ids=str, scope="module")
def fitted(request):
    case = DENSITIES[request.param]
    y = case.y if case.make.keywords.get("conditional") else None
    return case.make(device="cuda", random_state=0).fit(case.X, y), case.X


def on_cpu(density, folder):
    """The same model, loaded onto the CPU."""
    density.set_params(device="cpu").save(folder / "density.safetensors")
    density.set_params(device="cuda")
    return load(folder / "density.safetensors")


def scores_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-2)


class TestEveryDensity:
    def test_trains_on_the_gpu(self, fitted):
        density, X = fitted
        assert density.device_ == "cuda"
        assert next(density.model_.parameters()).is_cuda
        assert np.isfinite(density.score_samples(X)).all()

    def test_scores_as_the_cpu_does(self, fitted, tmp_path):
        density, X = fitted
        same = on_cpu(density, tmp_path)
        assert same.device_ == "cpu"
        scores_close(density.score_samples(X[:N_SCORED]), same.score_samples(X[:N_SCORED]))

    def test_a_row_scores_alike_alone_and_in_a_batch(self, fitted):
        density, X = fitted
        together = density.score_samples(X[:N_SCORED])
        alone = np.concatenate([density.score_samples(X[i : i + 1]) for i in range(3)])
        np.testing.assert_array_equal(alone, together[:3])

    def test_terms_sum_to_the_score(self, fitted):
        density, X = fitted
        terms = density.likelihood_terms(X[:N_SCORED])
        summands = [name for name in ("log_px", "log_pz", "log_det", "log_px_given_z", "minus_kl") if name in terms]
        total = sum(terms[name].reshape(N_SCORED, -1).sum(1) for name in [*summands, *({"log_class"} & set(terms))])
        scores_close(total, density.score_samples(X[:N_SCORED]))

    def test_samples_are_those_of_the_cpu_in_kind(self, fitted):
        density, X = fitted
        drawn = density.sample(3, random_state=0)
        assert len(drawn) == 3
        assert torch.isfinite(torch.as_tensor(drawn).double()).all()


def test_a_training_goes_on_from_a_checkpoint_on_the_other_device(tmp_path):
    settings = {"n_bins": 17, "checkpoint": tmp_path / "checkpoint", "random_state": 0}
    first = glow(device="cuda", **{**settings, "max_epochs": 1}).fit(DIGITS[:80])
    second = glow(device="cpu", **{**settings, "max_epochs": 3}).fit(DIGITS[:80])
    assert second.history_["bits_per_dim"][:1] == first.history_["bits_per_dim"]
    assert second.n_iter_ == 3


def test_two_trainings_are_equal(tmp_path):
    a, b = (glow(device="cuda", n_bins=17, random_state=0).fit(DIGITS[:200]) for _ in range(2))
    scores_close(a.score_samples(DIGITS[:50]), b.score_samples(DIGITS[:50]))


def test_a_detector_trains_and_predicts():
    detector = LikelihoodDetector(glow(device="cuda", n_bins=17), random_state=0).fit(DIGITS[:200])
    assert set(np.unique(detector.predict(DIGITS[:200]))) == {-1, 1}
