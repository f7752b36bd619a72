"""The networks inside couplings, standardisations and autoregressive models."""

from flowdetect.nets.conv import Constant, ConvNet, LabelTable, set_training_dtype

__all__ = ["Constant", "ConvNet", "LabelTable", "set_training_dtype"]
