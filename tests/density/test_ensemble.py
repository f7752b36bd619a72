import joblib
import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from flowdetect import EnsembleDensity, GlowDensity, RealNVPDensity, WAICDetector, load, load_images
from flowdetect.testing import check_detector

X, Y = load_images("digits")
X = X[:120]
ROWS = np.random.default_rng(0).normal(size=(150, 3))
FLOW = GlowDensity(n_bins=17, n_steps=1, hidden_channels=8, max_epochs=2)


def mixture():
    return GaussianMixture(3, init_params="random_from_data", max_iter=3, tol=0.5)


@pytest.fixture(scope="module")
def flows():
    return EnsembleDensity(FLOW, n_members=3, random_state=0).fit(X)


def test_the_score_is_that_of_the_mixture(flows):
    scores = np.stack([member.score_samples(X) for member in flows.members_], axis=1)
    np.testing.assert_array_equal(flows.member_scores(X), scores)
    np.testing.assert_allclose(flows.score_samples(X), logsumexp(scores, axis=1, b=1 / 3))
    assert flows.score(X) == pytest.approx(flows.score_samples(X).mean())
    np.testing.assert_allclose(flows.bits_per_dim(X), -flows.score_samples(X) / 64 / np.log(2))


def test_members_differ_and_are_seeded(flows):
    seeds = [member.random_state for member in flows.members_]
    assert len(set(seeds)) == 3
    assert (flows.member_scores(X).std(axis=1) > 0).all()
    again = EnsembleDensity(FLOW, n_members=3, random_state=0).fit(X)
    np.testing.assert_array_equal(again.member_scores(X), flows.member_scores(X))


def test_five_in_parallel_are_the_five_of_a_serial_fit():
    serial, parallel = (EnsembleDensity(FLOW, 5, n_jobs=n_jobs, random_state=1).fit(X) for n_jobs in (1, 2))
    for one, other in zip(serial.members_, parallel.members_, strict=True):
        for a, b in zip(one.model_.parameters(), other.model_.parameters(), strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


class CountsThreads(GaussianMixture):
    def fit(self, X, y=None):
        self.threads_ = torch.get_num_threads()
        return super().fit(X)


@pytest.mark.parametrize("backend", ["sequential", "threading"])
def test_every_fit_has_one_thread(backend):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with joblib.parallel_config(backend, n_jobs=2):
            ensemble = EnsembleDensity(CountsThreads(), 3, random_state=0).fit(ROWS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert [member.threads_ for member in ensemble.members_] == [1, 1, 1]


def test_joblibs_configuration_is_heard():
    with joblib.parallel_config("threading", n_jobs=2):
        ensemble = EnsembleDensity(mixture(), 4, random_state=0).fit(ROWS)
    serial = EnsembleDensity(mixture(), 4, random_state=0).fit(ROWS)
    np.testing.assert_allclose(ensemble.member_scores(ROWS), serial.member_scores(ROWS), rtol=1e-9)  # GaussianMixtures


@pytest.mark.slow
def test_members_from_a_dask_cluster_are_those_of_a_serial_fit():
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, Client(cluster), joblib.parallel_config("dask"):
        spread = EnsembleDensity(FLOW, 3, random_state=0).fit(X)
    serial = EnsembleDensity(FLOW, 3, random_state=0).fit(X)
    np.testing.assert_array_equal(spread.member_scores(X), serial.member_scores(X))


def test_it_integrates_to_one():
    ensemble = EnsembleDensity(mixture(), 3, random_state=0).fit(ROWS[:, :2])
    ticks = np.linspace(-8, 8, 300)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    assert np.exp(ensemble.score_samples(grid)).sum() * (ticks[1] - ticks[0]) ** 2 == pytest.approx(1, abs=1e-3)


def test_samples_come_from_all_members(flows):
    samples = flows.sample(50, random_state=0)
    assert samples.shape == (50, 8, 8)
    assert samples.dtype == X.dtype
    np.testing.assert_array_equal(samples, flows.sample(50, random_state=0))
    assert (samples != flows.sample(50, random_state=1)).any()


def test_torch_samples_and_constant_columns():
    tensor = torch.from_numpy(X[:64])[:, None]
    ensemble = EnsembleDensity(FLOW, 2, random_state=0).fit(tensor)
    assert isinstance(ensemble.sample(3, random_state=0), torch.Tensor)
    rows = np.column_stack([ROWS[:, :1], np.ones(150)])
    with pytest.warns(UserWarning, match="constant"):
        one = EnsembleDensity(RealNVPDensity(max_epochs=1), 1, random_state=0).fit(rows)
    np.testing.assert_allclose(one.bits_per_dim(rows), one.members_[0].bits_per_dim(rows))
    with pytest.raises(TypeError, match="draw from its members_ one by one"):
        EnsembleDensity(mixture(), 2, random_state=0).fit(ROWS).sample(2)


def test_files(flows, tmp_path):
    flows.save(tmp_path / "ensemble")
    np.testing.assert_array_equal(load(tmp_path / "ensemble").member_scores(X), flows.member_scores(X))


def test_checkpoints_have_the_members_number(tmp_path):
    flow = FLOW.set_params(checkpoint=tmp_path / "flow", max_epochs=1)
    EnsembleDensity(flow, 2, random_state=0).fit(X)
    FLOW.set_params(checkpoint=None, max_epochs=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow.member0", "flow.member1"]


def test_batch_invariance(flows):
    alone = np.concatenate([flows.score_samples(X[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(flows.score_samples(X)[:5], alone)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_members": 0}, ValueError, "EnsembleDensity needs n_members, a whole number >= 1, got 0"),
        (
            {"density": FrozenEstimator(mixture())},
            TypeError,
            "must not be in FrozenEstimator; pass it unfrozen",
        ),
    ],
)
def test_refusals(parameters, error, message):
    with pytest.raises(error, match=message):
        EnsembleDensity(**{"density": mixture(), **parameters}).fit(ROWS)


# WAIC


def test_waic_is_mean_less_variance(flows):
    detector = WAICDetector(FrozenEstimator(flows)).fit(X)
    scores = flows.member_scores(X)
    np.testing.assert_allclose(detector.score_samples(X), scores.mean(axis=1) - scores.var(axis=1))


def test_waic_fits_its_members():
    detector = WAICDetector(mixture(), n_members=3, random_state=0).fit(ROWS)
    assert len(detector.density_.members_) == 3
    again = WAICDetector(EnsembleDensity(mixture(), 2), random_state=0).fit(ROWS)
    assert len(again.density_.members_) == 2


def test_laws_of_waic(flows):
    check_detector(WAICDetector(mixture(), n_members=2, contamination=0.2), ROWS, ROWS[:20] + 6)
    check_detector(WAICDetector(FrozenEstimator(flows)), X[:60])


def test_waic_of_a_single_frozen_density():
    frozen = FrozenEstimator(GaussianMixture().fit(ROWS))
    with pytest.raises(TypeError, match="must not be in FrozenEstimator; pass it unfrozen"):
        WAICDetector(frozen).fit(ROWS)
