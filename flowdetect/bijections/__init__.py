"""Bijections: invertible torch modules from data to noise, with log-determinants."""

from flowdetect.bijections.base import Bijection, Chain
from flowdetect.bijections.coupling import AdditiveCoupling, AffineCoupling, Coupling, SplineCoupling
from flowdetect.bijections.elementwise import (
    ActNorm,
    BatchNorm,
    Gaussianize,
    Logit,
    PiecewiseLinear,
    Rescale,
    Standardize,
)
from flowdetect.bijections.linear import Conv1x1, NormalizedConv1x1, Permute, Whiten
from flowdetect.bijections.reshape import MultiScale, Reorder, Squeeze, Top
from flowdetect.bijections.spline import Spline

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "BatchNorm",
    "Bijection",
    "Chain",
    "Conv1x1",
    "Coupling",
    "Gaussianize",
    "Logit",
    "MultiScale",
    "NormalizedConv1x1",
    "Permute",
    "PiecewiseLinear",
    "Reorder",
    "Rescale",
    "Spline",
    "SplineCoupling",
    "Squeeze",
    "Standardize",
    "Top",
    "Whiten",
]
