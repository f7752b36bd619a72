"""Bijections: invertible torch modules from data to noise, with log-determinants."""

from flowdetect.bijections.base import Bijection, Chain
from flowdetect.bijections.coupling import AdditiveCoupling, AffineCoupling
from flowdetect.bijections.elementwise import ActNorm, Gaussianize, Rescale, Standardize
from flowdetect.bijections.linear import Conv1x1, NormalizedConv1x1, Permute
from flowdetect.bijections.reshape import MultiScale, Squeeze, Top

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "Chain",
    "Conv1x1",
    "Gaussianize",
    "MultiScale",
    "NormalizedConv1x1",
    "Permute",
    "Rescale",
    "Squeeze",
    "Standardize",
    "Top",
]
