"""Causal transformers: parameters for every token of a sequence from the tokens before it.

Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762, with normalisation before each part
(Xiong et al. 2020, https://arxiv.org/abs/2002.04745) and squared rectifiers (So et al. 2021, "Primer",
https://arxiv.org/abs/2109.08668), which are bitwise equal in torch's vector and scalar code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.nets.conv import MixedPrecision

EXPANSION = 4  # width of a block's hidden layer, in widths of the tokens


class TokenLinear(nn.Module):
    """A linear map of every token: (n, T, in_features) -> (n, T, out_features), in the dtype of its input.

    In evaluation it is a convolution of kernel size 1, which gives equal tokens equal results at any position (batch
    invariance); in training it is a matrix product.

    Parameters
    ----------
    in_features, out_features : int
    gain : float
        Gain of the initial weights; 0: the layer starts at zero.
    bias : bool
    mask : (out_features, in_features) tensor of 0 and 1, or None
    """

    mask: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, gain: float = 1.0, bias: bool = True, mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.gain = gain
        self.register_buffer("mask", mask, persistent=False)
        self.weight = nn.Parameter(torch.zeros(out_features, in_features, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=torch.float32)) if bias else None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights of variance gain^2 / fan in; biases start at zero."""
        noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float32)
        fan_in = self.weight.shape[1] if self.mask is None else self.mask.sum(1, keepdim=True).clamp_min(1)
        self.weight.copy_(noise * self.gain / fan_in**0.5)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.weight if self.mask is None else self.weight * self.mask
        weight, bias = whole.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        if self.training:
            return F.linear(x, weight, bias)
        out = F.conv2d(x.transpose(1, 2)[..., None], weight[:, :, None, None], bias)
        return out[..., 0].transpose(1, 2)


def normalized(x: Tensor) -> Tensor:
    """Shift and scale each token to mean 0 and variance 1; the next linear map learns the scales."""
    return F.layer_norm(x, x.shape[-1:])


class CausalBlock(nn.Module):
    """Attention over the tokens up to each token's own position, then a perceptron per token; both are residual.

    Parameters
    ----------
    width, n_heads : int
        n_heads must divide width.
    gain : float
        Gain of the initial weights of the residual parts.
    """

    def __init__(self, width: int, n_heads: int, gain: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = TokenLinear(width, 3 * width, bias=False)  # a bias of the keys would have no effect
        self.attended = TokenLinear(width, width, gain)
        self.widen = TokenLinear(width, EXPANSION * width)
        self.close = TokenLinear(EXPANSION * width, width, gain)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (n, n_heads, T, width / n_heads) each, for tokens (n, T, width)."""
        qkv = torch.unflatten(self.qkv(normalized(x)), 2, (3, self.n_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """(n, T, width) -> (n, T, width)."""
        q, k, v = self.heads(x)
        later = x.new_full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        return self.after(x, (fast_attention if self.training else attention)(q, k, v, later))

    def step(self, x: Tensor, place: int, keys: Tensor, values: Tensor) -> Tensor:
        """As `forward`, for the token at one position, (n, 1, width); its key and value are added to the cache."""
        q, k, v = self.heads(x)
        seen = slice(place + 1)
        keys[:, :, place : place + 1], values[:, :, place : place + 1] = k, v
        return self.after(x, attention(q, keys[:, :, seen], values[:, :, seen]))

    def after(self, x: Tensor, seen: Tensor) -> Tensor:
        """Add the output of attention, (n, n_heads, T, width / n_heads), and of the perceptron to x (n, T, width)."""
        x = x + self.attended(seen.transpose(1, 2).flatten(2))
        found: Tensor = x + self.close(self.widen(normalized(x)).relu().square())
        return found


def attention(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(d) + added) v, for tensors (..., T, d)."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if added is not None:
        logits = logits + added
    e = (logits - logits.amax(-1, keepdim=True)).exp()
    out: Tensor = (e @ v) / e.sum(-1, keepdim=True)
    return out


def fast_attention(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
    """As `attention`, in fewer steps, for training; on CPUs it takes half the time of torch's fused attention."""
    n, n_heads, n_tokens, d = q.shape
    logits = torch.baddbmm(added, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=d**-0.5)
    return (logits.softmax(-1) @ v.flatten(0, 1)).reshape(n, n_heads, n_tokens, d)


class ValuesInOrder(nn.Module):
    """Parameters for every value of a token, from the token's features and the earlier values of the token.

    It is a perceptron of one hidden layer with the masks of `nets.masked.MADE`; its outputs start at zero. Its units
    are bounded, so that an extreme value does not enlarge the values after it.

    Parameters
    ----------
    n_values : int
        Values per token, at least 2.
    width : int
        Width of the features.
    n_numbers : int
        Parameters per value.
    n_units : int
        Hidden units per value.
    """

    def __init__(self, n_values: int, width: int, n_numbers: int, n_units: int) -> None:
        super().__init__()
        values, of_units = torch.arange(n_values), torch.arange(n_values - 1).repeat(n_units)
        sees = (values[None] <= of_units[:, None]).to(torch.float32)
        seen = (of_units[None] < values.repeat(n_numbers)[:, None]).to(torch.float32)
        self.of_features = TokenLinear(width, len(of_units))
        self.of_values = TokenLinear(n_values, len(of_units), bias=False, mask=sees)
        self.out = TokenLinear(len(of_units), n_numbers * n_values, 0.0, bias=False, mask=seen)

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        """(n, T, width), (n, T, n_values) -> (n, T, n_numbers * n_values), the first parameter of all values first."""
        found: Tensor = self.out((self.of_features(features) + self.of_values(x)).tanh())
        return found


Cache = Sequence[tuple[Tensor, Tensor]]  # keys and values of each block, (n, n_heads, T, width / n_heads)


class CausalTransformer(MixedPrecision):
    """Parameters for every value of every token, from the tokens before it; all start at zero.

    Parameters
    ----------
    n_tokens, n_values : int
        Length of the sequences, at least 2, and values per token.
    width : int
        Width of the tokens inside.
    n_numbers : int
        Parameters per value.
    n_blocks, n_heads : int
        n_heads must divide width.
    n_units : int
        Hidden units per value, through which a value's parameters also depend on earlier values of its token; 0: they
        do not depend on them.
    n_context : int
        Length of a context (n, n_context), mapped linearly and added to every token; 0: it is ignored.
    """

    def __init__(
        self,
        n_tokens: int,
        n_values: int,
        width: int,
        n_numbers: int,
        n_blocks: int,
        n_heads: int,
        n_units: int = 0,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.n_tokens, self.width, self.n_heads = n_tokens, width, n_heads
        self.first = TokenLinear(n_values, width, bias=False)
        self.places = nn.Parameter(torch.zeros(n_tokens, width, dtype=torch.float32))
        self.context_map = TokenLinear(n_context, width, bias=False) if n_context else None
        self.blocks = nn.ModuleList(CausalBlock(width, n_heads, (2 * n_blocks) ** -0.5) for _ in range(n_blocks))
        self.last = TokenLinear(width, n_numbers * n_values, 0.0)
        self.in_order = ValuesInOrder(n_values, width, n_numbers, n_units) if n_units and n_values > 1 else None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors of the positions; layers draw their own parameters."""
        self.places.copy_(0.5 * torch.randn(self.places.shape, generator=generator, dtype=torch.float32))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, T, n_values) -> (n, T, n_numbers * n_values), in x's dtype, the first parameter of all values first."""
        tokens = x.to(self.working_dtype(x))
        h = F.pad(self.first(tokens[:, :-1]), (0, 0, 1, 0)) + self._places(context, tokens.dtype)
        for block in self.blocks:
            h = block(h)
        return self.numbers(normalized(h), tokens).to(x.dtype)

    def _places(self, context: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the initial tokens: (T, width), or (n, T, width) with a context."""
        places = self.places.to(dtype)
        if self.context_map is None or context is None:
            return places
        of_context: Tensor = self.context_map(context[:, None].to(dtype))
        return places + of_context

    def numbers(self, features: Tensor, x: Tensor) -> Tensor:
        """Return the parameters (n, T, n_numbers * n_values) of tokens x (n, T, n_values), given their features."""
        found: Tensor = self.last(features)
        return found if self.in_order is None else found + self.in_order(features, x)

    # ---- one token after the other

    def start(self, n: int, context: Tensor | None = None) -> tuple[Tensor, Cache]:
        """Begin n sequences: return the initial tokens and the cache of keys and values, both for `step`."""
        shape = n, self.n_heads, self.n_tokens, self.width // self.n_heads
        cache = [(self.places.new_empty(shape), self.places.new_empty(shape)) for _ in self.blocks]
        return self._places(context, self.places.dtype).expand(n, -1, -1), cache

    def step(self, before: Tensor | None, place: int, started: tuple[Tensor, Cache]) -> Tensor:
        """Return the features (n, 1, width) of the token at a position, given the token before it, (n, 1, n_values)."""
        places, cache = started
        h = places[:, place : place + 1]
        if before is not None:
            h = self.first(before) + h
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            h = block.step(h, place, keys, values)
        return normalized(h)
