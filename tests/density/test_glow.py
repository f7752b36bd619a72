"""Glow: which dimensions leave at which level, and what each contributes."""

import numpy as np
import pytest
import torch

from flowdetect import GlowDensity, load
from flowdetect.bijections import ActNorm, AdditiveCoupling, Permute
from flowdetect.density import factorization
from flowdetect.density.factored_flow import FactoringDensity
from flowdetect.density.glow import InPlace
from flowdetect.nets import ConvNet
from flowdetect.testing import check_bijection

RNG = np.random.default_rng(0)
X = RNG.integers(0, 17, size=(64, 8, 8, 2))
SMALL = {"n_bins": 17, "n_steps": 2, "hidden_channels": 8, "batch_size": 32, "random_state": 0}


def fit(**settings):
    return GlowDensity(**{**SMALL, "max_epochs": 4, "learning_rate": 5e-3, **settings}).fit(X)


@pytest.mark.parametrize("permutation", ["reverse", "shuffle"])
def test_contributions_sum_to_the_log_determinant(permutation, monkeypatch):
    captured = []
    monkeypatch.setattr(
        FactoringDensity,
        "_contributions",
        lambda self, spec, model, data: captured.append((spec, model)) or np.zeros((3, 8, 8, 2)),
    )
    fit(factorization="likelihood", permutation=permutation)
    spec, model = captured[0]
    model = model.double()
    with torch.no_grad():
        y = model.preprocessed(spec.to_tensor(X[:5].reshape(5, -1), "cpu", torch.float64))[0]
        found = factorization.flow_contributions(model.flow, y)
        total = torch.zeros(5, dtype=torch.float64)
        for level, chain in enumerate(model.flow.levels[0].bijections):
            y, log_det = chain(y)
            total = total + log_det
            torch.testing.assert_close(found[:, level].sum((1, 2, 3)), total, atol=1e-9, rtol=1e-9)
    assert found.std((2, 3)).min() > 0.01


def test_layers_that_mix_values_have_no_contributions():
    model = fit(max_epochs=1).model_
    y = torch.zeros(1, 2, 8, 8)
    with pytest.raises(TypeError, match="NormalizedConv1x1 mixes values"):
        factorization.layer_contributions([list(level.bijections) for level in model.flow.levels], y)


def in_place(kind):
    steps = [layer for _ in range(3) for layer in (ActNorm(5), Permute(5, kind), AdditiveCoupling(ConvNet(3, 4, 2)))]
    chain, generator = InPlace(steps), torch.Generator().manual_seed(0)
    for layer in chain.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters(generator)
    return chain


@pytest.mark.parametrize("kind", ["reverse", "shuffle"])
def test_a_chain_in_place_puts_channels_back(kind):
    chain = in_place(kind)
    x = torch.randn(4, 5, 2, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(chain(x)[0], x)  # its networks start at zero
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    check_bijection(chain, x)


def test_the_chosen_dimensions_leave():
    """With the couplings' networks at zero, latents of level 1 are those pixels of the standardised image."""
    density = fit(
        factorization="random", permutation="shuffle", split_prior="standard", coupling="additive", max_epochs=1
    )
    with torch.no_grad():
        for parameter in density.model_.parameters():
            parameter.zero_()
    z, levels = density.transform(X[:1]).ravel(), density.factored_dims_.ravel()
    v = density.model_.double().preprocessed(torch.from_numpy(X[:1]).permute(0, 3, 1, 2).double())[0]
    v = v.permute(0, 2, 3, 1).ravel().numpy()
    for level, columns in enumerate(density.latent_slices_, 1):
        np.testing.assert_allclose(np.sort(z[columns]), np.sort(v[levels == level]), atol=1e-12)


def test_the_choice_is_saved_and_kept_by_warm_starts(tmp_path):
    density = fit(factorization="likelihood", permutation="shuffle", warm_start=True)
    factored = density.factored_dims_
    assert [(factored == level).sum() for level in (1, 2, 3)] == [64, 32, 32]
    density.save(tmp_path / "density")
    np.testing.assert_array_equal(load(tmp_path / "density").factored_dims_, factored)
    np.testing.assert_array_equal(density.fit(X).factored_dims_, factored)


def test_an_interrupted_training_keeps_the_choice(tmp_path):
    settings = {"factorization": "likelihood_reversed", "permutation": "reverse", "checkpoint": tmp_path / "training"}
    whole = fit(**settings)
    again = fit(**settings)  # restored, both stages
    np.testing.assert_array_equal(whole.factored_dims_, again.factored_dims_)
    np.testing.assert_array_equal(whole.score_samples(X), again.score_samples(X))


@pytest.mark.parametrize("kind", ["likelihood", "likelihood_reversed", "random"])
def test_convolutions_that_mix_dimensions_are_refused(kind):
    with pytest.raises(
        ValueError, match=f'"{kind}" .* 1x1 convolutions mix the dimensions; pass permutation="reverse"'
    ):
        fit(factorization=kind)
    with pytest.raises(ValueError, match="there is only one level"):
        fit(factorization=kind, permutation="reverse", n_levels=1)


def test_the_standard_factorisation_has_no_names_for_what_leaves():
    with pytest.raises(AttributeError, match="learned no factored_dims"):
        _ = fit(max_epochs=1).factored_dims_
