"""Compiled functions, for the optional extra `fast`: each takes over the function of its name in the library."""
from .loops import (deviations, max_windows, max_windows_backward, parameter_gradients, projected_gradient, rectify_backward, standardise,
                    sum_windows, sum_windows_backward)
from .winograd import correlate, input_gradient, weight_gradients
