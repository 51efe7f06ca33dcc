"""Compiled functions, for the optional extra `fast`: each takes over the function of its name in the library."""
from .loops import (log_softmax, max_windows, max_windows_backward, mean_windows, mean_windows_backward, parameter_gradients,
                    projected_gradient, rectify, rectify_backward, softmax, standardise, statistics)
from .optimizers import adam_step, momentum_step, nesterov_step, rms_step
from .products import affine_map, transposed_map, weight_gradient
from .winograd import correlate, input_gradient, weight_gradients
