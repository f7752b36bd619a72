"""Networks inside couplings, standardisations, autoregressive models and autoencoders."""

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    from flowdetect.nets.conv import Constant, ContextMap, ConvNet, set_training_dtype
    from flowdetect.nets.residual import ResidualNet

__all__ = ["Constant", "ContextMap", "ConvNet", "ResidualNet", "set_training_dtype"]
