"""The networks inside couplings, standardisations and autoregressive models."""

from flowdetect.nets.conv import Constant, ConvNet, LabelTable, set_training_dtype
from flowdetect.nets.residual import ResidualNet

__all__ = ["Constant", "ConvNet", "LabelTable", "ResidualNet", "set_training_dtype"]
