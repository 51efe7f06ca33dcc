"""Everything at once: `from hwnn.all import *`. `weights` and `schedulers` come as modules, since both have a `Constant`."""
from . import schedulers, weights
from .activations import *
from .datasets import *
from .gradcheck import *
from .layers import *
from .logs import *
from .losses import *
from .models import *
from .optimizers import *
from .schedulers import initialize_scheduler
from .weights import fans, initialize_weights
