"""Bijections: invertible torch modules from data to noise, with log-determinants."""

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    from flowdetect.bijections.autoregressive import Autoregressive, Inverse
    from flowdetect.bijections.base import Bijection, Layer
    from flowdetect.bijections.chain import Chain
    from flowdetect.bijections.coupling import AdditiveCoupling, AffineCoupling, Coupling, SplineCoupling
    from flowdetect.bijections.dequantize import UniformDequantize, VariationalDequantize
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
    from flowdetect.bijections.planar import Planar, Radial
    from flowdetect.bijections.reshape import MultiScale, Reorder, Squeeze, Top
    from flowdetect.bijections.spline import Spline

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Autoregressive",
    "BatchNorm",
    "Bijection",
    "Chain",
    "Conv1x1",
    "Coupling",
    "Gaussianize",
    "Inverse",
    "Layer",
    "Logit",
    "MultiScale",
    "NormalizedConv1x1",
    "Permute",
    "PiecewiseLinear",
    "Planar",
    "Radial",
    "Reorder",
    "Rescale",
    "Spline",
    "SplineCoupling",
    "Squeeze",
    "Standardize",
    "Top",
    "UniformDequantize",
    "VariationalDequantize",
    "Whiten",
]
