"""train(): leaps of the loss, short trainings, and what a fitted estimator keeps whatever happens afterwards."""

import copy

import numpy as np
import pytest
import torch
from torch import Generator, nn

from flowdetect import GlowDensity, PixelCNNDensity, RealNVPDensity, load, load_images
from flowdetect.density import DensityModel, _training
from flowdetect.density._leaps import RECENT
from flowdetect.density._training import Training

DIGITS, LABELS = load_images("digits")
SMALL = {"n_bins": 17, "n_steps": 1, "hidden_channels": 8, "random_state": 0}
TABLE = np.random.default_rng(0).normal(size=(60, 3))


# ---- leaps of the loss


def with_batches(monkeypatch, change):
    """Change the batches that training sees."""
    batch = Training._batch

    def changed(self, *args):
        x, context, noise = batch(self, *args)
        return change(self, x), context, noise

    monkeypatch.setattr(Training, "_batch", changed)


def test_a_leap_is_skipped_counted_and_warned_of(monkeypatch):
    with_batches(monkeypatch, lambda training, x: x * 50 - 400 if training.step == RECENT + 3 else x)
    density = GlowDensity(max_epochs=8, **SMALL)
    with pytest.warns(UserWarning, match=r"in 1 of \d+ steps the loss leapt, up to .* bits/dim; .* skipped"):
        density.fit(DIGITS[:320])
    assert density.history_["skipped_steps"][-1] == 1
    assert max(density.history_["bits_per_dim"]) < 10


def test_weights_that_leap_away_are_brought_back(monkeypatch):
    step = Training._step

    def thrown(self, *args):
        if self.step == 30:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    if name.endswith("raw_bias"):  # of an activation norm, stored divided by 30
                        parameter.add_(5.0)
        return step(self, *args)

    monkeypatch.setattr(Training, "_step", thrown)
    density = GlowDensity(max_epochs=40, early_stopping=False, **SMALL)
    with pytest.warns(UserWarning, match=r"went back to earlier weights 1 time\(s\).*Lower learning_rate"):
        density.fit(DIGITS[:320])
    assert density.history_["bits_per_dim"][-1] < density.history_["bits_per_dim"][4]
    assert density.bits_per_dim(DIGITS[:320]).mean() < 4


def test_leaps_without_end_end_the_training_with_the_best_weights(monkeypatch):
    with_batches(monkeypatch, lambda training, x: x * 50 - 400 if training.step > RECENT + 3 else x)
    density = GlowDensity(max_epochs=60, early_stopping=False, **SMALL)
    with (
        pytest.warns(UserWarning, match="leapt"),
        pytest.raises(FloatingPointError, match="leapt again.*learning_rate"),
    ):
        density.fit(DIGITS[:320])
    assert np.isfinite(density.score_samples(DIGITS)).all()


# ---- short trainings


@pytest.mark.parametrize("n_steps", [4, 8, 15])
def test_a_short_training_warms_up(n_steps):
    rates = []
    step = Training._step

    def noted(self, *args):
        rates.append(self._learning_rate())
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_step", noted)
        density = GlowDensity(max_epochs=n_steps, batch_size=64, early_stopping=False, **SMALL).fit(DIGITS[:64])
    assert len(rates) == n_steps
    assert rates[0] <= density.learning_rate / (n_steps // 2)
    assert np.argmax(rates) in (n_steps // 2 - 1, n_steps // 2)


@pytest.mark.parametrize("X", [DIGITS[:64] / 16.0, DIGITS[:64]], ids=["real values", "bins"])
def test_samples_of_a_short_training_are_of_the_datas_size(X):
    settings = {**SMALL, "n_bins": None} if X.dtype.kind == "f" else SMALL
    density = GlowDensity(max_epochs=12, batch_size=64, **{**settings, "n_steps": 8, "hidden_channels": 64}).fit(X)
    assert np.abs(density.sample(64, random_state=0)).max() < 20.0 * float(X.max())


# ---- what a fitted estimator keeps

CHANGES = [
    (GlowDensity(max_epochs=1, n_draws=2, **SMALL), {"hidden_channels": 32, "n_draws": 5, "coupling": "additive"}),
    (GlowDensity(max_epochs=1, **SMALL), {"n_bins": None, "image_shape": (4, 16), "conditional": True}),
    (RealNVPDensity(max_epochs=1, n_blocks=1, **SMALL), {"n_steps": 3, "factorization": "random"}),
    (PixelCNNDensity(n_bins=17, max_epochs=1, n_filters=4, n_blocks=1), {"variant": "pixelcnn++", "n_filters": 8}),
]


@pytest.mark.parametrize(("density", "changes"), CHANGES, ids=lambda value: type(value).__name__)
def test_parameters_set_after_fit_change_the_next_fit_and_nothing_else(density, changes, tmp_path):
    fitted = copy.deepcopy(density).fit(DIGITS[:60])
    scores, samples = fitted.score_samples(DIGITS[:20]), fitted.sample(3, random_state=0)
    fitted.set_params(**changes)
    fitted.save(tmp_path / "density")
    for same in (fitted, load(tmp_path / "density"), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(same.score_samples(DIGITS[:20]), scores)
        np.testing.assert_array_equal(same.sample(3, random_state=0), samples)
        assert {name: same.get_params()[name] for name in changes} == changes


REFUSED = {
    "classes": lambda d: d.fit(TABLE, np.repeat([1, 2, 3], 20)),
    "columns": lambda d: d.fit(TABLE[:, :2], np.repeat([0, 1, 2], 20)),
    "bins": lambda d: d.set_params(n_bins=9).fit(np.abs(np.rint(TABLE)), np.repeat([0, 1, 2], 20)),
    "constant": lambda d: d.fit(TABLE * [1, 0, 1], np.repeat([0, 1, 2], 20)),
    "hidden_channels was 8, is 9": lambda d: d.set_params(hidden_channels=9).fit(TABLE, np.repeat([0, 1, 2], 20)),
    "scale was 'sigmoid', is 'exp'": lambda d: d.set_params(scale="exp").fit(TABLE, np.repeat([0, 1, 2], 20)),
}


@pytest.mark.filterwarnings("ignore:.*are constant and not modelled")
@pytest.mark.parametrize("words", REFUSED)
def test_a_warm_start_refuses_what_differs(words):
    density = GlowDensity(n_steps=1, hidden_channels=8, max_epochs=1, conditional=True, warm_start=True, random_state=0)
    density.fit(TABLE, np.repeat([0, 1, 2], 20))
    scores = density.score_samples(TABLE)
    with pytest.raises(ValueError, match=rf"warm_start continues from .*{words}.*warm_start=False"):
        REFUSED[words](density)
    np.testing.assert_array_equal(density.score_samples(TABLE), scores)


def test_a_warm_start_keeps_location_and_scale():
    density = GlowDensity(n_steps=1, hidden_channels=8, max_epochs=1, warm_start=True, random_state=0).fit(TABLE)
    loc = density.spec_.loc
    np.testing.assert_array_equal(density.set_params(learning_rate=1e-4).fit(TABLE * 3 + 1).spec_.loc, loc)


def fails(kind):
    def step(self, *args):
        raise kind("somewhere in the training")

    return step


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, OSError, SystemExit])
def test_a_refit_that_dies_leaves_the_old_fit_whole(kind, monkeypatch):
    density = GlowDensity(max_epochs=2, **SMALL).fit(DIGITS[:60])
    scores, state = density.score_samples(DIGITS[:20]), density.__dict__.copy()
    monkeypatch.setattr(Training, "_step", fails(kind))
    with pytest.raises(kind):
        density.fit(DIGITS[60:200] // 2)
    assert density.__dict__ == state
    np.testing.assert_array_equal(density.score_samples(DIGITS[:20]), scores)
    fresh = GlowDensity(max_epochs=2, **SMALL)
    with pytest.raises(kind):
        fresh.fit(DIGITS[:60])
    assert vars(fresh) == vars(GlowDensity(max_epochs=2, **SMALL))


# ---- initial weights from a generator, also of torch's own layers


class OwnLayers(DensityModel):
    def __init__(self):
        super().__init__((2, 1, 1))
        self.parts = nn.ModuleList(
            [nn.Linear(3, 4), nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(2, 3, 2), nn.Embedding(5, 2)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(3), nn.PReLU()])
        self.memory = nn.GRU(2, 3)


def test_torchs_own_layers_are_drawn_from_the_generator():
    models = [OwnLayers() for _ in range(2)]
    before = torch.get_rng_state()
    for model in models:
        model.reset_parameters(Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(ours, theirs)
    again = OwnLayers()
    again.reset_parameters(Generator().manual_seed(2))
    assert not torch.equal(again.parts[0].weight, models[0].parts[0].weight)
    assert models[0].parts[0].weight.abs().max() <= 3**-0.5
    assert models[0].parts[1].bias.abs().max() <= 18**-0.5


@pytest.mark.parametrize("unknown", [nn.Bilinear(2, 2, 2), nn.MultiheadAttention(4, 2)], ids=lambda m: type(m).__name__)
def test_layers_of_unknown_distribution_are_refused(unknown):
    model = OwnLayers()
    model.unknown = unknown
    with pytest.raises(TypeError, match="draws its parameters from torch's global generator"):
        model.reset_parameters(Generator().manual_seed(1))


def test_a_training_says_why_it_stopped():
    X = TABLE
    reasons = []
    train = _training.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowdetect.density.base.train", lambda *args: reasons.append(train(*args)) or reasons[-1])
        GlowDensity(n_steps=1, max_epochs=2, random_state=0).fit(X)
        GlowDensity(n_steps=1, max_epochs=50, n_iter_no_change=1, learning_rate=1e-9, random_state=0).fit(X)
    assert [result.reason for result in reasons] == ["max_epochs", "early stopping"]
    assert [result.n_epochs for result in reasons][0] == 2
