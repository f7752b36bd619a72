"""Flow++: the map of its couplings, far out too, and networks whose attention reaches every pixel."""

import numpy as np
import pytest
import torch
from density_table import DIGITS, TABLE, flowpp

from flowdetect.density.flowpp import LEAST_SLOPE, MixtureCoupling, mixture_logit
from flowdetect.nets import ConvNet
from flowdetect.nets.gated import GatedAttentionNet
from flowdetect.testing import check_bijection

K = 4


def mixture(seed=0, n=30, log_s=0.0):
    """Random mixtures, (n, K, 1, 1, 1) each; components are far apart and narrow where log_s is low."""
    generator = torch.Generator().manual_seed(seed)
    log_pi, mu, raw = torch.randn(3, n, K, 1, 1, 1, generator=generator, dtype=torch.float64)
    return log_pi.log_softmax(1), 3 * mu, raw + log_s


def coupling(channels=3, n_mixtures=K, seed=0, size=0.5):
    net = ConvNet(channels - channels // 2, 8, (2 + 3 * n_mixtures) * (channels // 2))
    generator = torch.Generator().manual_seed(seed)
    net.reset_parameters(generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5)
    return MixtureCoupling(net, n_mixtures)


@pytest.mark.parametrize("n_mixtures", [1, K])
def test_coupling_obeys_the_laws(n_mixtures):
    x = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    check_bijection(coupling(n_mixtures=n_mixtures), x)


def test_networks_that_give_zeros_make_it_about_the_identity():
    layer = MixtureCoupling(ConvNet(1, 4, 2 + 3 * 8), 8)
    x = torch.linspace(-2, 2, 9)[:, None, None, None].expand(-1, 2, -1, -1)
    assert torch.allclose(layer(x)[0], (1 + LEAST_SLOPE) * x, atol=0.3)
    one = MixtureCoupling(ConvNet(1, 4, 2 + 3), 1)
    assert torch.allclose(one(x)[0][:, 1], (1 + LEAST_SLOPE) * x[:, 1], atol=1e-5)


class TestMixtureLogit:
    @pytest.mark.parametrize("log_s", [0.0, -3.0])
    def test_against_the_formula(self, log_s):
        """Where sigmoids do not run out of digits, the plain formula holds."""
        log_pi, mu, s = mixture(log_s=log_s)
        x = mu.mean(1).requires_grad_()
        value, slope = mixture_logit(x, (log_pi, mu, s))
        F = (log_pi.exp() * torch.sigmoid((x[:, None] - mu) / s.exp())).sum(1)
        assert torch.allclose(value, torch.logit(F) + LEAST_SLOPE * x, rtol=1e-8, atol=1e-8)
        (by_autograd,) = torch.autograd.grad(value.sum(), x)
        assert torch.allclose(slope, by_autograd, rtol=1e-8)

    @pytest.mark.parametrize("x", [-1e6, -50.0, 0.0, 50.0, 1e6])
    @pytest.mark.parametrize("log_s", [0.0, -3.0])
    def test_slopes_are_within_their_bounds_and_those_of_autograd_far_out(self, x, log_s):
        log_pi, mu, s = mixture(log_s=log_s)
        x = torch.full((30, 1, 1, 1), x, dtype=torch.float64, requires_grad=True)
        value, slope = mixture_logit(x, (log_pi, mu, s))
        (by_autograd,) = torch.autograd.grad(value.sum(), x)
        assert torch.allclose(slope, by_autograd, rtol=1e-6)
        assert (slope > LEAST_SLOPE * (1 - 1e-9)).all()
        assert (slope < (-s).exp().amax(1) + 2 * LEAST_SLOPE).all()

    def test_far_out_it_is_a_line_as_steep_as_the_widest_component(self):
        log_pi, mu, s = mixture()
        slope = mixture_logit(torch.full((30, 1, 1, 1), 1e4, dtype=torch.float64), (log_pi, mu, s))[1]
        assert torch.allclose(slope, (-s).exp().amin(1) + LEAST_SLOPE, rtol=1e-4)


@pytest.mark.parametrize("reach", [1.0, 100.0, 1e5])
def test_inverse_far_out_and_across_plateaus(reach):
    layer = coupling(size=3.0).double()
    z = reach * torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(layer.inverse(layer(z)[0]), z, rtol=1e-9, atol=1e-9)
        x = layer.inverse(z)
        image, log_slope = layer.forward_each(x)
        assert ((image - z).abs() / log_slope.exp() < 1e-11 * (1 + x.abs())).all()  # the error of x
        assert torch.isfinite(layer.float().inverse(z.float())).all()


def test_attention_reaches_every_pixel():
    net = GatedAttentionNet(1, 8, 2, 1, 2, 6, 6)
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters(generator)
    torch.nn.init.normal_(net.last.weight, generator=generator)
    x = torch.randn(1, 1, 6, 6, generator=generator).requires_grad_()
    for mode in (True, False):  # two ways of computing it
        (gradient,) = torch.autograd.grad(net.train(mode)(x)[0, 0, 0, 0], x)
        assert (gradient != 0).all()
    assert torch.allclose(net.train()(x), net.eval()(x), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_couplings": (2, 2)}, r"must hold three whole numbers >= 0, not all 0, got \(2, 2\)"),
        ({"n_couplings": (0, 0, 0)}, r"not all 0, got \(0, 0, 0\)"),
        ({"n_couplings": (1, 2.5, 1)}, r"three whole numbers"),
        ({"n_heads": 3}, r"multiple of n_heads, got hidden_channels=8 and n_heads=3; pass e.g. n_heads=1"),
    ],
)
def test_bad_parameters(settings, message):
    with pytest.raises(ValueError, match=message):
        flowpp(**settings).fit(TABLE)


def test_integrates_to_one():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-2, 0.3, (100, 2)), rng.normal(2, 0.5, (100, 2))])
    density = flowpp(n_couplings=(2, 0, 0), random_state=0, learning_rate=5e-3).fit(X)
    side = np.linspace(-9, 9, 121)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    area = (side[1] - side[0]) ** 2
    assert np.exp(density.score_samples(points)).sum() * area == pytest.approx(1, abs=0.02)


def test_scores_do_not_depend_on_threads_or_batches():
    density = flowpp(n_bins=17, hidden_channels=32, n_heads=4, n_mixtures=8, max_epochs=1, random_state=0)
    scores = density.fit(DIGITS[:40]).score_samples(DIGITS[:70])
    n_threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            np.testing.assert_array_equal(density.score_samples(DIGITS[:70]), scores)
    finally:
        torch.set_num_threads(n_threads)
    np.testing.assert_array_equal(density.score_samples(DIGITS[63:70]), scores[63:])
