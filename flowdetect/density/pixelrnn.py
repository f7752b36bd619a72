"""PixelRNN: convolutional LSTMs over the pixels of an image, down its rows or along its diagonals.

van den Oord et al., "Pixel Recurrent Neural Networks" (2016), https://arxiv.org/abs/1601.06759
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from flowdetect.density.autoregressive import AutoregressiveDensity, rescaling
from flowdetect.density.sequential import AutoregressiveModel
from flowdetect.density.spec import DataSpec
from flowdetect.nets.heads import CategoricalHead, LogisticMixtureHead, pixel_head
from flowdetect.nets.recurrent import RecurrentNet


@dataclass(kw_only=True, eq=False, repr=False)
class PixelRNNDensity(AutoregressiveDensity):
    r"""Density by a PixelRNN: each pixel's distribution is computed from the pixels before it, by LSTMs.

    .. math:: \log p(x) = \sum_i \log p(x_i \mid x_1, \dots, x_{i-1})

    in raster order, and within a pixel in the order of the channels. Use it for images in which a pixel depends on
    pixels far before it. A training step takes longer than a PixelCNN's; on 8x8 digits, with equal size and number of
    epochs, bits/dim were not lower. Scores are exact, also for data in bins. On tables, a plain LSTM runs over the
    columns, with a learned vector for each column.

    Parameters
    ----------
    variant : "row_lstm" or "diagonal_bilstm", default "diagonal_bilstm"
        "row_lstm": states run down the rows, each from the three states above it. A pixel then depends on a triangle of
        earlier pixels, with a blind spot to the right. "diagonal_bilstm": states run along the diagonals from both
        upper corners, and a pixel depends on all earlier pixels. No effect on tables.
    likelihood : "logistic_mixture" or "categorical", default "logistic_mixture"
        "categorical" has a probability for each value, and needs data in bins.
    n_filters : int, default 32
        Width of the network; the LSTMs' states have half this width.
    n_blocks : int, default 3
        Residual LSTM layers.
    n_mixtures : int, default 10
        Components of the logistic mixture.
    dropout : float in [0, 1), default 0.0
        Dropout rate of a layer's output states.
    batch_size : int, default 16
    learning_rate : float, default 3e-3

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool, False

    Notes
    -----
    The network is the paper's Table 1: a masked 7x7 convolution, `n_blocks` residual LSTM layers, a 1x1 convolution
    after a ReLU, and another to the distribution's parameters. The paper has 12 layers and n_filters=256 on CIFAR-10,
    and 7 layers and n_filters=32 on binary MNIST. Three things differ from the paper. The convolutions from a layer's
    input to its gates are masked 2x3 convolutions that reach one row up; the paper's are 3x1 (Row LSTM) and 1x1
    (Diagonal BiLSTM). Colour channels depend on each other only in the likelihood, as in PixelCNN++, not by masks
    within layers. In the first Diagonal BiLSTM, the direction from the right also receives the pixels themselves;
    otherwise only nearby pixels would depend on the last pixel of the row above. Labels enter the gates of every layer.

    Each layer computes an image in H sequential steps (Row LSTM) or H + W - 1 (Diagonal BiLSTM); a PixelCNN's layer
    takes one. Sampling stores the states, so each pixel costs the computation of one pixel.

    References
    ----------
    Pixel Recurrent Neural Networks (van den Oord et al.), 2016, https://arxiv.org/abs/1601.06759

    Examples
    --------
    >>> from flowdetect import PixelRNNDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = PixelRNNDensity(n_bins=17, n_filters=8, n_blocks=1, max_epochs=1, random_state=0).fit(X[:200])
    >>> density.likelihood_terms(X[:3]).log_px.shape
    (3, 8, 8)
    >>> density.complete(X[:2], known=4, random_state=0).shape
    (2, 8, 8)
    """

    variant: str = "diagonal_bilstm"
    likelihood: str = "logistic_mixture"
    n_filters: int = 32
    n_blocks: int = 3
    n_mixtures: int = 10
    dropout: float = 0.0
    batch_size: int = 16
    learning_rate: float = 3e-3
    chunk_values: ClassVar[int] = 2**14  # fewer than a flow's: gates hold more features per pixel

    _may_change: ClassVar[frozenset[str]] = frozenset({"dropout"})

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **AutoregressiveDensity._parameter_constraints,
        "variant": [StrOptions({"row_lstm", "diagonal_bilstm"})],
        "likelihood": [StrOptions({"logistic_mixture", "categorical"})],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "n_mixtures": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def _build(self, spec: DataSpec) -> AutoregressiveModel:
        channels, height, width = spec.event_shape
        shape = (1, channels, 1) if spec.is_table else (channels, height, width)
        sizes = self.n_filters, self.n_blocks, spec.n_context, self.dropout
        net = RecurrentNet(shape, *sizes, self.variant, is_strip=spec.is_table)
        head = pixel_head(
            self.likelihood,
            self.n_filters,
            shape[0],
            self.n_mixtures,
            spec.n_bins,
            owner=type(self).__name__,
            kinds=(LogisticMixtureHead, CategoricalHead),
        )
        return AutoregressiveModel(spec.event_shape, rescaling(spec), net, head, spec.n_bins, is_table=spec.is_table)
