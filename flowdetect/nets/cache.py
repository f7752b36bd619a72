"""Evaluation of causal layers: on whole images, or row by row and pixel by pixel with caches of earlier inputs.

A causal network is written once, with pointwise operations and calls of `evaluate(layer, x)`. With `whole`, x holds all
pixels. With a `Cache`, x holds only the current row or pixel; the cache stores the earlier inputs of each layer, so
that a sampled pixel costs one patch per layer.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from flowdetect.nets.masked import CausalConv

Kept = TypeVar("Kept")


class Whole:
    """Computes layers on whole images."""

    def __call__(self, layer: CausalConv, x: Tensor) -> Tensor:
        """Apply a layer of stride 1 to the features of all pixels."""
        features: Tensor = layer(x)
        return features

    def halve(self, layer: CausalConv, x: Tensor) -> Tensor | None:
        """Apply a layer of stride 2; with a cache, return None at pixels that the layer skips."""
        return self(layer, x)

    def first(self, layer: CausalConv, image: Tensor) -> Tensor:
        """Apply a layer to the image itself."""
        features: Tensor = layer(image)
        return features

    def part(self, positions: Tensor) -> Tensor:
        """Return the current part of a map of all positions."""
        return positions

    def below(self) -> Whole:
        """Return the evaluation at half the resolution."""
        return self

    def keep(self, owner: object, value: Kept | None) -> Kept:
        """Return the value or, if it is None, the last one that was not."""
        assert value is not None  # on whole images no layer skips pixels
        return value

    def at_pixel(self, row: Tensor | None) -> Tensor | None:
        """Return the current part of a row's features."""
        return row

    def at(self, features: Tensor) -> Tensor:
        """Return the current part of whole images' features."""
        return features

    def upsample(self, owner: object, low: Tensor | None, shape: tuple[int, int]) -> Tensor:
        """Upsample features (n, 4 C, H/2, W/2) to (n, C, H, W)."""
        return F.pixel_shuffle(self.keep(owner, low), 2)[:, :, : shape[0], : shape[1]]


whole = Whole()


class Cache(Whole):
    """Computes layers at the current row or pixel from their earlier inputs.

    Parameters
    ----------
    image : (n, C, H, W) tensor
        The image so far; the sampler writes it, and the cache reads it.
    by_row : bool
        Whether to compute a whole row at a time, instead of one pixel.
    """

    def __init__(self, image: Tensor, by_row: bool, shape: tuple[int, int] | None = None) -> None:
        self.image, self.by_row = image, by_row
        self.height, self.width = shape or (image.shape[2], image.shape[3])
        self.i = self.j = 0
        self.inputs: dict[CausalConv, Tensor] = {}  # (n, rows, columns, C), padded by the kernel's reach
        self.weights: dict[CausalConv, tuple[Tensor, Tensor]] = {}
        self.kept: dict[object, Any] = {}
        self.half: Cache | None = None

    def move(self, i: int, j: int = 0) -> None:
        """Move to a row or a pixel."""
        self.i, self.j = i, j
        if self.half is not None:
            self.half.move(i // 2, j // 2)

    def reorder(self, index: Tensor) -> None:
        """Continue row i of the batch from the stored inputs of row index[i]; the caller reorders the image."""
        self.inputs = {layer: inputs[index] for layer, inputs in self.inputs.items()}
        self.kept = {owner: value[index] for owner, value in self.kept.items()}
        if self.half is not None:
            self.half.reorder(index)

    def __call__(self, layer: CausalConv, x: Tensor) -> Tensor:
        x = layer.activate(x)
        if layer.kernel == (1, 1):
            return self._apply(layer, x.permute(0, 2, 3, 1), 0, 0)
        return self._apply(layer, self._inputs_with(layer, x), self.i, self.j)

    def halve(self, layer: CausalConv, x: Tensor) -> Tensor | None:
        inputs = self._inputs_with(layer, layer.activate(x))
        rests = self.i % 2 or (self.j % 2 and not self.by_row)
        return None if rests else self._apply(layer, inputs, self.i, self.j)

    def _inputs_with(self, layer: CausalConv, x: Tensor) -> Tensor:
        """Write the current row or pixel into a layer's stored inputs, and return these."""
        inputs = self.inputs.get(layer)
        if inputs is None:
            kh, kw = layer.kernel
            inputs = self.inputs[layer] = x.new_zeros(x.shape[0], self.height + kh, self.width + kw, x.shape[1])
        i, j = self.i, self.j
        if self.by_row:
            inputs[:, i + layer.top, layer.left : layer.left + self.width] = x[:, :, 0].transpose(1, 2)
        else:
            inputs[:, i + layer.top, j + layer.left] = x[:, :, 0, 0]
        return inputs

    def first(self, layer: CausalConv, image: Tensor) -> Tensor:
        i, j = self.i, self.j
        (kh, kw), x = layer.kernel, self.image
        columns = range(self.width) if self.by_row else (j,)
        top, left = i - layer.top, columns[0] - layer.left
        bottom, right = top + kh, columns[-1] - layer.left + kw
        inner = x[:, :, max(0, top) : max(0, min(bottom, self.height)), max(0, left) : max(0, min(right, self.width))]
        pads = [max(0, -left), max(0, right - self.width), max(0, -top), max(0, bottom - self.height)]
        window = F.pad(
            layer.activate(inner), [min(pad, limit) for pad, limit in zip(pads, (kw, kw, kh, kh), strict=True)]
        )
        return self._apply(layer, window.permute(0, 2, 3, 1), 0, 0)

    def _apply(self, layer: CausalConv, inputs: Tensor, i: int, j: int) -> Tensor:
        """Compute row i, or pixel (i, j), from padded inputs (n, rows, columns, C)."""
        if layer not in self.weights:
            weight = layer.kernel_weight()
            if self.by_row:
                weight = weight.contiguous(memory_format=torch.channels_last)
            else:
                weight = weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()  # (kh kw C, out)
            self.weights[layer] = (weight, layer.bias)
        weight, bias = self.weights[layer]
        kh, kw = layer.kernel
        if self.by_row:
            rows = inputs[:, i : i + kh, : self.width + kw - 1].permute(0, 3, 1, 2)
            return F.conv2d(rows, weight, bias, stride=(1, layer.stride))
        patch = inputs[:, i : i + kh, j : j + kw].flatten(1)
        return torch.addmm(bias, patch, weight)[:, :, None, None]

    def part(self, positions: Tensor) -> Tensor:
        rows = positions[:, :, self.i : self.i + 1]
        return rows if self.by_row else rows[..., self.j : self.j + 1]

    def below(self) -> Cache:
        if self.half is None:
            shape = (self.height + 1) // 2, (self.width + 1) // 2
            self.half = Cache(self.image, self.by_row, shape)
            self.half.move(self.i // 2, self.j // 2)
        return self.half

    def keep(self, owner: object, value: Kept | None) -> Kept:
        if value is not None:
            self.kept[owner] = value
        kept: Kept = self.kept[owner]
        return kept

    def at_pixel(self, row: Tensor | None) -> Tensor | None:
        return row if row is None or self.by_row else row[:, :, :, self.j : self.j + 1]

    def at(self, features: Tensor) -> Tensor:
        row = features[:, :, self.i : self.i + 1]
        return row if self.by_row else row[..., self.j : self.j + 1]

    def upsample(self, owner: object, low: Tensor | None, shape: tuple[int, int]) -> Tensor:
        if self.by_row:
            return F.pixel_shuffle(self.keep(owner, low), 2)[:, :, self.i % 2 : self.i % 2 + 1, : self.width]
        row: Tensor | None = self.kept.get(owner)
        if low is not None:
            if row is None:
                row = low.new_zeros(*low.shape[:2], (self.width + 1) // 2)
                self.kept[owner] = row
            row[:, :, self.j // 2] = low[:, :, 0, 0]
        assert row is not None
        now = torch.unflatten(row[:, :, self.j // 2], 1, (-1, 2, 2))  # (n, C, 2, 2)
        return now[:, :, self.i % 2, self.j % 2][:, :, None, None]
