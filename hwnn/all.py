"""Everything at once: `from hwnn.all import *`. `weights` and `schedulers` come as modules, since both have a `Constant`."""
from . import schedulers, weights
from .activations import ArcTan, Linear, ReLU, Sigmoid, SoftMax, TanH, initialize_activation
from .datasets import Data, Dataset, digits, initialize_dataset, iris, min_max, one_hot, standardization, stratified_split
from .gradcheck import adjoint_error, check_gradients, complex_step_gradient, numerical_gradient, relative_error
from .layers import *
from .logs import History, Logger
from .losses import L2, CrossEntropy, cross_entropy_from_logits, cross_entropy_from_logits_backward, initialize_loss, log_softmax
from .models import NeuralNetwork, initialize_model
from .optimizers import SGD, clip_by_global_norm, initialize_optimizer
from .schedulers import initialize_scheduler
from .weights import initialize_weights
