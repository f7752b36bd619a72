"""Densities: scikit-learn estimators, each around one torch module."""

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    from flowdetect._persistence import load
    from flowdetect.density.base import BaseDensity
    from flowdetect.density.ensemble import EnsembleDensity
    from flowdetect.density.flow import FlowDensity, FlowModel
    from flowdetect.density.flowpp import FlowPPDensity
    from flowdetect.density.glow import GlowDensity
    from flowdetect.density.iaf import IAFDensity
    from flowdetect.density.made import MADEDensity
    from flowdetect.density.maf import MAFDensity
    from flowdetect.density.model import DensityModel
    from flowdetect.density.nade import NADEDensity
    from flowdetect.density.neighbors import NeighborsDensity
    from flowdetect.density.pixelcnn import PixelCNNDensity
    from flowdetect.density.pixelrnn import PixelRNNDensity
    from flowdetect.density.pixelvae import PixelVAEDensity
    from flowdetect.density.planar import PlanarDensity, RadialDensity
    from flowdetect.density.realnvp import RealNVPDensity
    from flowdetect.density.tarflow import TarFlowDensity
    from flowdetect.density.vae import VAEDensity

__all__ = [
    "BaseDensity",
    "DensityModel",
    "EnsembleDensity",
    "FlowDensity",
    "FlowModel",
    "FlowPPDensity",
    "GlowDensity",
    "IAFDensity",
    "MADEDensity",
    "MAFDensity",
    "NADEDensity",
    "NeighborsDensity",
    "PixelCNNDensity",
    "PixelRNNDensity",
    "PixelVAEDensity",
    "PlanarDensity",
    "RadialDensity",
    "RealNVPDensity",
    "TarFlowDensity",
    "VAEDensity",
    "load",
]
