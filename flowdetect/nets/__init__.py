"""The networks inside couplings, standardisations and autoregressive models."""

from flowdetect.nets.conv import Constant, ConvNet, LabelTable

__all__ = ["Constant", "ConvNet", "LabelTable"]
