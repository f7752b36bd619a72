"""Occlusion: the gain of an image's score when a patch is replaced by expected content.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), https://arxiv.org/abs/1311.2901,
section 4.2, with a score instead of a class probability, and with other fills than a grey square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import is_whole

Patch = tuple[slice, slice]

PATCHES_A_SIDE = (3, 5, 8)  # for three sizes; adjacent patches overlap by half
N_NEIGHBORS = 8  # training images whose mean fills a patch


def occlusion_maps(
    score: Callable[[NDArray[Any]], NDArray[np.float64]],
    rows: NDArray[Any],
    own: NDArray[np.float64],
    usual: NDArray[Any],
    image_shape: tuple[int, int, int],
) -> NDArray[np.float64]:
    """Map the pixels that make images unusual: (n, H, W), score per pixel.

    Each patch is filled twice: smoothly from the pixels around it, and with the mean of the training images that are
    nearest outside the patch. The fill with the higher score counts. A pixel gets the mean gain of the patches that
    contain it, each divided by its number of pixels. If the image's own score is -inf, a patch that makes it finite has
    gain 1.
    """
    height, width, _ = image_shape
    images, usual_images = rows.reshape(-1, *image_shape), usual.reshape(-1, *image_shape).astype(np.float64)
    rounds = is_whole(usual)
    patches = list(_patches(height, width))
    maps, n_covering = np.zeros((len(rows), height, width)), np.zeros((height, width))
    for patch in patches:
        n_covering[patch] += 1
    for i, image in enumerate(images):
        scores = score(_filled(image, patches, usual_images, rounds)).reshape(len(patches), 2).max(axis=1)
        gains = scores - own[i] if np.isfinite(own[i]) else np.isfinite(scores).astype(np.float64)
        for patch, gain in zip(patches, np.where(np.isfinite(scores), gains, 0), strict=True):
            maps[i][patch] += gain / maps[i][patch].size
    return maps / n_covering


def _patches(height: int, width: int) -> Iterator[Patch]:
    """Cover the image with overlapping patches of each size."""
    for n in PATCHES_A_SIDE:
        sides = [_places(length, n) for length in (height, width)]
        yield from ((y, x) for y in sides[0] for x in sides[1])


def _places(length: int, n: int) -> list[slice]:
    """Place n slices over a length, each twice as long as the step; equal slices are merged."""
    size = max(round(2 * length / (n + 1)), 1)
    starts = np.unique(np.round(np.linspace(0, length - size, n)).astype(int))
    return [slice(int(start), int(start) + size) for start in starts]


def _filled(image: NDArray[Any], patches: list[Patch], usual: NDArray[np.float64], rounds: bool) -> NDArray[Any]:
    """Return the image (H, W, C) with each patch filled in both ways, (2 * n_patches, H * W * C).

    `usual` is (n_usual, H, W, C); with `rounds` the fills are whole numbers.
    """
    squares = ((usual - image) ** 2).sum(axis=3)
    totals = squares.sum(axis=(1, 2))
    filled = np.repeat(image[None], 2 * len(patches), axis=0)
    for i, (y, x) in enumerate(patches):
        outside = totals - squares[:, y, x].sum(axis=(1, 2))
        nearest = np.argsort(outside, kind="stable")[:N_NEIGHBORS]
        fills = np.stack([_smooth_fill(image, (y, x)), usual[nearest, y, x].mean(axis=0)])
        filled[2 * i : 2 * i + 2, y, x] = np.rint(fills) if rounds else fills
    return filled.reshape(len(filled), -1)


def _smooth_fill(image: NDArray[Any], patch: Patch) -> NDArray[np.float64]:
    """Average the pixels around the patch with weights 1 / distance^2: (h, w, C)."""
    (top, bottom), (left, right) = ((side.start, side.stop) for side in patch)
    height, width, _ = image.shape
    y, x = np.mgrid[max(top - 1, 0) : min(bottom + 1, height), max(left - 1, 0) : min(right + 1, width)]
    around = (y < top) | (y >= bottom) | (x < left) | (x >= right)
    y, x = y[around], x[around]
    if not len(y):  # the patch is the whole image
        return np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
    inside_y, inside_x = np.mgrid[top:bottom, left:right]
    weights = 1 / ((inside_y[..., None] - y) ** 2 + (inside_x[..., None] - x) ** 2)  # (h, w, n_around)
    return (weights / weights.sum(axis=2, keepdims=True)) @ image[y, x].astype(np.float64)
