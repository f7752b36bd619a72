"""The laws of bijections, on random weights."""

import re

import pytest
import torch
from bijection_table import BIJECTIONS, random_case, randomize
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from flowdetect import bijections
from flowdetect.bijections import (
    ActNorm,
    AffineCoupling,
    Bijection,
    Conv1x1,
    Coupling,
    Gaussianize,
    Layer,
    MultiScale,
    NormalizedConv1x1,
    Standardize,
    UniformDequantize,
    VariationalDequantize,
)
from flowdetect.bijections.elementwise import LOG_SCALES
from flowdetect.nets import ConvNet
from flowdetect.testing import check_bijection

EXTREMES = torch.tensor([-1e38, -1e6, -100.0, -1.0, 0.0, 1.0, 100.0, 1e6, 1e38])
for_all_bijections = pytest.mark.parametrize("case", BIJECTIONS.values(), ids=BIJECTIONS)


def test_every_public_bijection_is_in_the_table():
    tabled = {type(random_case(case, (2, 1, 1), 1, 0)[0]) for case in BIJECTIONS.values()}
    public = {getattr(bijections, name) for name in bijections.__all__}
    assert public - {Bijection, Coupling, Layer} == tabled | {
        UniformDequantize,
        VariationalDequantize,
    }  # layers of bins


@for_all_bijections
@given(
    shape=st.tuples(st.integers(2, 4), st.integers(1, 2), st.integers(1, 3)),
    depth=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
@example(shape=(2, 1, 1), depth=2, seed=1)  # a network on one number, of which weight normalisation sees the sign only
def test_laws(case, shape, depth, seed):
    check_bijection(*random_case(case, shape, depth, seed))


@for_all_bijections
def test_random_weights_are_no_identity(case):
    bijection, _, _ = random_case(case, (2, 2, 2), 2, 0)
    assert all(bool((parameter != 0).all()) for parameter in bijection.parameters())


@pytest.mark.parametrize("name", LOG_SCALES)
class TestScales:
    def documented_interval(self, name):
        found = re.search(r"s lies in \(([\d.]+), ([\d.]+)\)", LOG_SCALES[name].__doc__)
        return float(found[1]), float(found[2])

    def test_interval_is_the_documented_one(self, name):
        low, high = self.documented_interval(name)
        s = LOG_SCALES[name](EXTREMES.double()).exp()
        assert float(s.min()) == pytest.approx(low, rel=0.02)
        assert float(s.max()) == pytest.approx(high, rel=0.02)
        assert bool((s.diff() >= 0).all())

    @pytest.mark.parametrize("extreme", [-1e30, -1e6, 1e6, 1e30])
    def test_layers_keep_it_at_extreme_inputs(self, name, extreme):
        low, high = self.documented_interval(name)
        generator = torch.Generator().manual_seed(0)
        coupling = randomize(AffineCoupling(ConvNet(2, 8, 4), name), generator)
        standardize = randomize(Standardize(ConvNet(2, 8, 4), name), generator)
        x = torch.full((1, 4, 1, 1), extreme)
        for log_det in (coupling(x)[1], standardize(x[:, :2], x[:, 2:])[1]):
            scale = (log_det / 2).exp().item()  # of two values
            assert 0.98 * low <= scale <= 1.02 * high


@pytest.mark.parametrize(
    "layer", [ActNorm(3), Conv1x1(3), NormalizedConv1x1(3)], ids=lambda layer: type(layer).__name__
)
@pytest.mark.parametrize("raw", [-1e6, 1e6])
def test_channel_scales_stay_in_their_interval(layer, raw):
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 1:
                parameter.fill_(raw)
    x = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    log_det = layer.double()(x)[1]
    n_scales = 2 if isinstance(layer, NormalizedConv1x1) else 1
    assert log_det.abs().item() == pytest.approx(10 * 3 * n_scales)


@pytest.mark.parametrize("value", [0.0, 3.0, 255.0])
def test_initialisation_survives_a_constant_channel(value):
    norm = ActNorm(2)
    z = norm.initialize(torch.full((8, 2, 1, 1), value))
    assert bool(torch.isfinite(z).all())
    assert z.abs().max() < 1e-5


def test_initialisation_gives_median_zero_and_standard_deviation_one():
    z = ActNorm(3).initialize(5 + 7 * torch.randn(500, 3, 2, 2, generator=torch.Generator().manual_seed(0)))
    values = z.transpose(0, 1).flatten(1)
    assert values.median(1).values.tolist() == pytest.approx([0.0] * 3, abs=1e-4)
    assert values.std(1).tolist() == pytest.approx([1.0] * 3, abs=1e-2)


class TestGaussianize:
    def slopes(self, *counts):
        return Gaussianize(torch.tensor(counts)).knots.diff(dim=1)

    def test_slopes_lie_in_the_documented_interval(self):
        low, high = map(float, re.search(r"slopes lie in \(([\d.]+), ([\d.]+)\)", Gaussianize.__doc__).groups())
        one_value = [[10**9 * (i == k) for i in range(256)] for k in (0, 128, 255)]
        two_values = [10**9 * (i in (0, 255)) for i in range(256)]
        slopes = self.slopes(*one_value, two_values)
        assert low <= slopes.min() <= 1.1 * low
        assert 0.5 * high <= slopes.max() <= high

    def test_probability_of_a_bin_is_its_share_of_the_counts(self):
        counts = [500, 250, 0, 250]
        probability = torch.special.ndtr(Gaussianize(torch.tensor([counts])).knots).diff(dim=1)[0]
        expected = [0.98 * (count / 1000 + 0.3 / 4) / 1.3 for count in counts]
        assert probability.tolist() == pytest.approx(expected, abs=1e-6)

    def test_a_channel_without_counts_is_treated_as_uniform(self):
        assert bool((self.slopes([0, 0, 0]) > 0).all())


@torch.no_grad()
def test_levels_sum_to_the_whole():
    bijection, x, _ = random_case(BIJECTIONS["MultiScale"], (4, 1, 1), 2, 0)
    z, log_det = bijection(x)
    levels = bijection.forward_levels(x)
    torch.testing.assert_close(levels.z, z)
    torch.testing.assert_close(levels.log_det.sum(1), log_det)
    assert [part.stop - part.start for part in bijection.latent_slices] == [x[0].numel() // 2] * 2
    assert bool((levels.log_det_split[:, 0] != 0).all())
    assert bool((levels.log_det_split[:, 1] == 0).all())


class TestBrokenBijections:
    """check_bijection must see through bijections that break a law."""

    x = torch.randn(3, 2, 1, 1, generator=torch.Generator().manual_seed(0))

    def broken(self, **methods):
        layer = type("Broken", (ActNorm,), methods)(2)
        globals()["Broken"] = type(layer)
        type(layer).__module__ = __name__
        return randomize(layer, torch.Generator().manual_seed(0))

    def law(self, sentence, **methods):
        with pytest.raises(AssertionError, match=sentence):
            check_bijection(self.broken(**methods), self.x)

    def test_log_det_of_the_wrong_sign_in_both_directions(self):
        self.law("autograd's Jacobian", forward=lambda self, x, context=None: _negated(ActNorm.forward(self, x)))

    def test_log_det_summed_over_the_batch(self):
        self.law(
            r"shape \(n,\)",
            forward=lambda self, x, context=None: (ActNorm.forward(self, x)[0], ActNorm.forward(self, x)[1].sum()),
        )

    def test_inverse_that_is_none(self):
        self.law(r"inverse\(forward", inverse=lambda self, z, context=None: z)

    def test_inverse_that_clips(self):
        self.law("far out", inverse=lambda self, z, context=None: ActNorm.inverse(self, z.clamp(-8, 8)))

    def test_context_not_taken(self):
        with pytest.raises(TypeError):
            check_bijection(self.broken(forward=lambda self, x: ActNorm.forward(self, x)), self.x)

    def test_batch_invariance(self):
        self.law(
            "alone as in a batch|Jacobian|inverse",
            forward=lambda self, x, context=None: (ActNorm.forward(self, x)[0] + x.mean(), ActNorm.forward(self, x)[1]),
            inverse=lambda self, z, context=None: ActNorm.inverse(self, z),
        )

    def test_parameter_without_gradient(self):
        layer = self.broken()
        layer.unused = nn.Parameter(torch.ones(2))
        with pytest.raises(AssertionError, match="every parameter, not true for 'unused'"):
            check_bijection(layer, self.x)

    def test_overflow(self):
        def forward(self, x, context=None):
            z, log_det = ActNorm.forward(self, x)
            return z, log_det + 0 * x.flatten(1).exp().sum(1)

        self.law("finite at extreme", forward=forward)

    def test_global_generator(self):
        def forward(self, x, context=None):
            torch.rand(1)
            return ActNorm.forward(self, x)

        self.law("global random state", forward=forward)


def _negated(outputs):
    return outputs[0], -outputs[1]


@torch.no_grad()
def test_multi_scale_puts_level_one_first():
    bijection, x, _ = random_case(BIJECTIONS["MultiScale, standard"], (4, 1, 1), 1, 0)
    assert isinstance(bijection, MultiScale)
    first = bijection.latent_slices[0]
    changed = bijection(x)[0].clone()
    changed[:, first] = 0
    torch.testing.assert_close(
        bijection(bijection.inverse(changed))[0][:, first], torch.zeros(len(x), first.stop), atol=1e-4, rtol=0
    )
