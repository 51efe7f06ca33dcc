"""Everything at once: `from hwnn.all import *`. `weights` and `schedulers` come as modules, since both have a `Constant`."""
from . import schedulers, weights
from .activations import (ELU, GELU, ArcTan, LeakyReLU, Linear, ReLU, Sigmoid, SiLU, SoftMax, Softplus, TanH, initialize_activation,
                          normal_cdf)
from .datasets import (Data, Dataset, digits, fashion_mnist, flip, initialize_dataset, iris, k_folds, min_max, mnist, one_hot, shift,
                       standardization, stratified_split, write_predictions)
from .engine.table import is_fast, use_fast
from .engine.threads import get_threads, set_threads
from .gradcheck import adjoint_error, check_gradients, complex_step_gradient, numerical_gradient, relative_error
from .layers import *
from .logs import History, Logger
from .losses import (L2, BinaryCrossEntropy, CrossEntropy, Hinge, Huber, SoftmaxCrossEntropy, cross_entropy_and_gradient,
                     cross_entropy_from_logits, cross_entropy_from_logits_backward, initialize_loss, log_softmax)
from .metrics import accuracy, confusion_matrix, top_k_accuracy
from .models import NeuralNetwork, initialize_model
from .optimizers import SGD, Adam, AdamW, Nesterov, RMSProp, clip_by_global_norm, initialize_optimizer
from .schedulers import initialize_scheduler
from .weights import initialize_weights
