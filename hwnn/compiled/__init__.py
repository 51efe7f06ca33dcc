"""Compiled functions, for the optional extra `fast`: each takes over the function of its name in the library."""
from pathlib import Path

from numba import config

if config.DISABLE_JIT: raise ImportError("NUMBA_DISABLE_JIT is set")   # what is written for the compiler cannot run without it

# A compiled function is kept on disk until its file changes. Functions of other files that were compiled into it are not looked at, so here
# everything goes that is older than any of the files.
_newest = max(file.stat().st_mtime for file in Path(__file__).parent.glob("*.py"))
for _kept in Path(__file__).parent.glob("__pycache__/*.nbi"):
    if _kept.stat().st_mtime < _newest: _kept.unlink(missing_ok=True)

from .loops import (log_softmax, max_windows, max_windows_backward, mean_windows, mean_windows_backward, parameter_gradients,
                    projected_gradient, rectify, rectify_backward, softmax, standardise, statistics)
from .optimizers import adam_step, momentum_step, nesterov_step, rms_step, take_step
from .products import affine_map, transposed_map, weight_gradient
from .winograd import correlate, input_gradient, weight_gradients
