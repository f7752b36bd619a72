"""NADE and MADE: masks in any order, sums and integrals, samples, completion, and several orders averaged."""

from itertools import product

import numpy as np
import pytest
import torch
from bijection_table import randomize
from scipy.special import logsumexp
from scipy.stats import chisquare

from flowdetect import MADEDensity, NADEDensity
from flowdetect.density.made import MADENet
from flowdetect.density.nade import NADENet

D, N_NUMBERS = 5, 3
NETS = {
    "NADE": lambda n_context=0: NADENet(D, 16, N_NUMBERS, 3, n_context),
    "MADE": lambda n_context=0: MADENet(D, (16, 16), N_NUMBERS, 3, 2, n_context),
    "MADE without hidden layers": lambda n_context=0: MADENet(D, (), N_NUMBERS, 3, 1, n_context),
}
BINARY = (np.random.default_rng(0).normal(size=(300, 4)).cumsum(1) > 0).astype(np.uint8)
EVERY_ROW = np.array(list(product([0, 1], repeat=4)), dtype=np.uint8)
SMALL = {"max_epochs": 6, "batch_size": 32, "random_state": 0}
MODELS = {
    "NADE": lambda **more: NADEDensity(n_hidden=8, **SMALL, **more),
    "MADE": lambda **more: MADEDensity(hidden_features=(16,), **SMALL, **more),
}
BY_ORDERS = [{"n_orders": 1}, {"n_orders": 3}]

of_each_net = pytest.mark.parametrize("make", NETS.values(), ids=NETS)
of_each = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def random_net(make, **settings):
    return randomize(make(**settings), torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("training", [False, True])
@of_each_net
def test_a_value_sees_those_before_it_in_each_members_order_and_no_other(make, training):
    net = random_net(make).train(training)
    assert len({tuple(order.tolist()) for order in net.orders}) == 3
    for member, order in enumerate(net.orders):
        seen = torch.zeros(D, D, dtype=torch.bool)
        for seed in range(20):  # a ReLU may be off at some inputs
            generator = torch.Generator().manual_seed(seed)
            y = 3 * torch.randn(1, 1, D, 1, generator=generator, dtype=torch.float64)
            jacobian = torch.autograd.functional.jacobian(lambda y, m=member: net(y, None, m)[0, :, :, 0], y)
            seen |= jacobian.reshape(N_NUMBERS, D, D).abs().sum(0) > 0
        before = torch.tril(torch.ones(D, D), -1).bool()
        assert torch.equal(seen[order][:, order], before)  # each of them, since widths suffice


@of_each_net
def test_one_value_after_the_other_gives_what_one_pass_gives(make):
    net = random_net(make, n_context=2).eval()
    generator = torch.Generator().manual_seed(1)
    y, context = (torch.randn(12, *shape, generator=generator, dtype=torch.float64) for shape in ((1, D, 1), (2,)))
    members = torch.arange(12) % len(net.orders)
    orders = net.orders[members]
    whole = torch.cat([net(y[i : i + 1], context[i : i + 1], int(m)) for i, m in enumerate(members)])[..., 0]
    steps = net.in_order(y.gather(2, orders[:, None, :, None]), context, members)
    for d, (i, j, numbers) in enumerate(steps):
        assert (i, j) == (d, 0)
        expected = whole.gather(2, orders[:, None, d : d + 1].expand(-1, N_NUMBERS, 1))
        torch.testing.assert_close(numbers[..., 0], expected)


@pytest.mark.parametrize("orders", BY_ORDERS)
@of_each
class TestBinary:
    def test_the_sum_over_all_rows_is_one(self, make, orders):
        density = make(n_bins=2, **orders).fit(BINARY)
        assert np.exp(density.score_samples(EVERY_ROW)).sum() == pytest.approx(1, abs=1e-5)

    def test_samples_are_distributed_as_the_density_says(self, make, orders):
        density, n = make(n_bins=2, **orders).fit(BINARY), 2000
        counts = np.bincount(density.sample(n, random_state=0) @ [8, 4, 2, 1], minlength=16)
        assert chisquare(counts, n * probabilities(density)).pvalue > 1e-3

    def test_completions_follow_the_conditional_distribution(self, make, orders):
        density, n = make(n_bins=2, **orders).fit(BINARY), 600
        p = probabilities(density).reshape(2, 2, 4)
        for known, given in (({"known": 2}, p[1, 0]), ({"mask": np.array([0, 1, 0, 1], dtype=bool)}, None)):
            X = np.tile(np.array([[1, 0, 1, 1]], dtype=np.uint8), (n, 1))
            drawn = density.complete(X, **known, n_candidates=16, random_state=0)
            if given is None:
                given = probabilities(density).reshape(2, 2, 2, 2)[:, 0, :, 1].flatten()
                found = np.bincount(drawn[:, [0, 2]] @ [2, 1], minlength=4)
            else:
                found = np.bincount(drawn[:, 2:] @ [2, 1], minlength=4)
            assert np.abs(found / n - given / given.sum()).max() < 0.09  # 4 standard deviations, 16 candidates


def probabilities(density):
    p = np.exp(density.score_samples(EVERY_ROW))
    return p / p.sum()


@of_each
def test_all_images_of_three_values_sum_to_one(make):
    X = np.random.default_rng(0).integers(0, 3, size=(100, 2, 2)).astype(np.uint8)
    density = make(n_bins=3, n_orders=2, n_mixtures=2).fit(X)
    every = np.array(list(product(range(3), repeat=4)), dtype=np.uint8).reshape(-1, 2, 2)
    assert np.exp(density.score_samples(every)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("n_columns", [1, 2])
@of_each
def test_real_values_integrate_to_one(make, n_columns):
    X = np.random.default_rng(0).normal(size=(200, 2))
    X[:, 1] += X[:, 0] ** 2
    density = make(n_orders=2, n_mixtures=3).fit(X[:, :n_columns])
    side = np.linspace(-25, 25, 401 if n_columns == 2 else 4001)
    points = np.stack(np.meshgrid(*[side] * n_columns), -1).reshape(-1, n_columns)
    assert np.exp(density.score_samples(points)).sum() * (side[1] - side[0]) ** n_columns == pytest.approx(1, abs=0.01)


@of_each
def test_a_score_is_the_mean_probability_over_orders(make):
    density = make(n_bins=2, n_orders=3).fit(BINARY)
    x = torch.from_numpy(EVERY_ROW).float()[..., None, None]
    with torch.no_grad():
        by_member = [density.model_._of_member(x, None, m).flatten(1).sum(1).numpy() for m in range(3)]
    assert np.std(by_member, axis=0).max() > 1e-3  # they differ
    np.testing.assert_allclose(density.score_samples(EVERY_ROW), logsumexp(by_member, axis=0) - np.log(3), rtol=1e-5)
    terms = density.likelihood_terms(EVERY_ROW)
    assert terms.log_orders.max() <= 1e-6
    assert terms.log_px.shape == (16, 4)


def test_a_training_step_takes_one_member_and_all_have_their_turn():
    model = NADEDensity(n_orders=4, max_epochs=1, random_state=0).fit(BINARY[:30].astype(float) + 0.1).model_.train()
    x, found = torch.randn(6, 4, 1, 1, generator=torch.Generator().manual_seed(0)), set()
    for seed in range(40):
        model.begin_step(seed, 0.0)
        found.add(model.member)
        assert torch.equal(model.log_prob(x), model._of_member(x, None, model.member).flatten(1).sum(1))
    assert found == {0, 1, 2, 3}


@of_each
def test_categorical_of_real_values_is_refused(make):
    with pytest.raises(
        ValueError, match=r'DEDensity: likelihood="categorical" is for data in bins.*"logistic_mixture"'
    ):
        make(likelihood="categorical").fit(np.random.default_rng(0).normal(size=(30, 2)))


def test_too_many_masks_are_refused():
    with pytest.raises(ValueError, match=r"n_orders \* n_masks must be at most 10000, got 1000 \* 1000"):
        MADEDensity(n_orders=1000, n_masks=1000, n_bins=2).fit(BINARY)
