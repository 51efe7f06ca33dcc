"""Layers of a network, and the table by which they are named."""
from .base import LAYERS, Layer, initialize_layer
from .batchnorm import BatchNorm1D
from .convolution import Conv2D
from .dropout import Dropout
from .flatten import Flatten
from .fully_connected import FullyConnected
from .groupnorm import GroupNorm
from .layernorm import LayerNorm
from .pooling import Pool2D

# Names as layer dicts write them; hwnn.layers.base.initialize_layer looks there.
known = LAYERS
known.update(batchnorm1d=BatchNorm1D, conv2d=Conv2D, dropout=Dropout, flatten=Flatten, fully_connected=FullyConnected, groupnorm=GroupNorm,
             layernorm=LayerNorm, pool2d=Pool2D)
__all__ = ['Layer', 'initialize_layer', *(layer.__name__ for layer in known.values())]
