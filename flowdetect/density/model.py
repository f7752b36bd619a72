"""The contract of a density's torch module: log p(x) of tensors, its terms, and samples.

A model depends on no estimator, array or class label. Its context is any tensor; labels arrive as one-hot rows.
Networks with a context map it linearly, so a label, an encoded image and a noise level all enter in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor, nn


class DensityModel(nn.Module):
    """A density of tensors, batch first.

    A subclass implements `log_prob`, `terms` and `sample`. Scoring calls `log_prob` and `terms` on chunks of one fixed
    shape, in evaluation mode, in float32, without gradients. Derivatives are computed on a float64 copy.

    Parameters
    ----------
    event_shape : (C, H, W)
        A table of D columns is a 1x1 image of D channels.

    Attributes
    ----------
    n_noise : int
        Number of noise values, in [0, 1), that `log_prob` takes per row; 0: none.
    is_bound : bool
        Whether log_prob with noise is a lower bound of log p(x), in expectation.
    summands : tuple of str
        The terms that sum to log_prob. The estimator adds the constant of its change of units to the first.
    terms_by_value : bool
        Whether the first summand has one entry for each value of x, (n, C, H, W).
    """

    n_noise: int = 0
    is_bound: bool = False
    summands: ClassVar[tuple[str, ...]] = ()
    terms_by_value: ClassVar[bool] = False
    warm_up: float = 0.0  # share of the steps in which the training objective still changes; patience starts after it
    shows_progress: bool = False  # whether slow sampling shows a progress bar
    decayed: tuple[str, ...] | None = None  # name suffixes of the parameters under weight decay; None: all
    short_chunk: int | None = None  # rows per chunk when few rows are scored; None: not measured yet

    def __init__(self, event_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.event_shape = event_shape

    @property
    def n_values(self) -> int:
        """Number of values per row: C * H * W."""
        return math.prod(self.event_shape)

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """log p(x), (n, C, H, W) -> (n,) nats, of the discrete data if they are in bins.

        Parameters
        ----------
        x : (n, C, H, W)
        context : (n, n_context) or None
        noise : (n, n_noise) in [0, 1), or None
            None: no noise, that is the bins' centres or the encoder's mean.

            In training mode a model may return its training objective instead, such as a bound during the KL warm-up.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """`log_prob`, since distributed training and compilation hook only `forward`."""
        return self.log_prob(x, context, noise)

    def log_prob_draws(self, x: Tensor, context: Tensor | None, noises: Sequence[Tensor | None]) -> Tensor:
        """`log_prob` at each of K draws of the noise: (K, n) nats; a model may compute shared parts once."""
        return torch.stack([self.log_prob(x, context, noise) for noise in noises])

    def log_prob_by_context(self, x: Tensor, contexts: Tensor, noise: Tensor | None = None) -> Tensor:
        """log p(x | k) under each of K contexts (K, n_context): (n, C, H, W) -> (n, K) nats."""
        if torch.compiler.is_exporting() and noise is None:  # one pass for all contexts keeps the graph small
            every = x[:, None].expand(-1, len(contexts), -1, -1, -1).flatten(0, 1)
            return self.log_prob(every, contexts.repeat(x.shape[0], 1)).reshape(-1, len(contexts))
        columns = [self.log_prob(x, context.expand(x.shape[0], -1), noise) for context in contexts]
        return torch.stack(columns, 1)

    def terms(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Named terms of log_prob, (n, ...) each, nats; those in `summands` sum to it, over all their axes."""
        raise NotImplementedError

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draw n values (n, C, H, W); the temperature multiplies the noise; the generator is on the CPU."""
        raise NotImplementedError

    def begin_step(self, seed: int, progress: float) -> None:
        """Prepare a training step: seed noise drawn inside the model, such as dropout; progress rises from 0 to 1."""

    def reset_parameters(self, generator: Generator) -> None:
        """Draw all random initial parameters from the generator alone."""
        for module in self.modules():
            draw = getattr(module, "reset_parameters", None)
            if type(module).__module__.startswith("torch."):
                if not isinstance(module, CONTAINERS) and any(True for _ in module.parameters(recurse=False)):
                    reset_torch_layer(module, generator)
            elif module is not self and callable(draw):
                draw(generator)

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> None:
        """Set data-dependent parameters from a first batch; most models have none."""


class HasLatents(Protocol):
    """The further methods of a model with latents: an encoder and a decoder."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, C, H, W) -> latents (n, d)."""

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents (n, d) -> (n, C, H, W)."""


CONTAINERS = nn.ParameterList, nn.ParameterDict
WITHOUT_CHANCE = nn.LayerNorm, nn.GroupNorm, nn.PReLU, nn.modules.batchnorm._NormBase


@torch.no_grad()
def reset_torch_layer(layer: nn.Module, generator: Generator) -> None:
    """Draw the parameters of a torch layer from a generator, with torch's distributions.

    Raises
    ------
    TypeError
        If the layer's distributions are unknown here.
    """
    if isinstance(layer, WITHOUT_CHANCE):
        layer.reset_parameters()
        return
    if isinstance(layer, nn.Embedding):
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float32))
        return
    if isinstance(layer, nn.RNNBase):
        bound = layer.hidden_size**-0.5
    elif isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
        bound = math.prod(layer.weight.shape[1:]) ** -0.5
    else:
        raise TypeError(
            f"{type(layer).__name__} draws its parameters from torch's global generator; use Linear, a convolution, "
            f"Embedding or a recurrent layer, or a module whose reset_parameters takes a generator."
        )
    for parameter in layer.parameters(recurse=False):
        u = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.copy_(bound * (2 * u - 1))


def first_non_finite(model: DensityModel, x: Tensor, context: Tensor | None, noise: Tensor | None) -> str:
    """Name of the first layer whose weights or outputs are not finite."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return name
    found: list[str] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            if not all(torch.isfinite(value).all() for value in outputs if isinstance(value, Tensor)):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        model(x, context, noise)
    for handle in hooks:
        handle.remove()
    return found[0] if found else "the gradient"
