"""Every case of the benchmark. A group is a generator of records; it is given the function that measures, which --quick replaces."""
import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import textbook
import torch
from hwnn.datasets import Dataset
from hwnn.engine.table import is_fast, use_fast
from hwnn.engine.table import run as run_fastest
from hwnn.layers.batchnorm import batchnorm_train, batchnorm_train_backward
from hwnn.layers.convolution import conv2d, conv2d_backward
from hwnn.layers.fully_connected import affine, affine_backward
from hwnn.layers.pooling import average_pool2d, average_pool2d_backward, max_pool2d, max_pool2d_backward
from hwnn.optimizers import initialize_optimizer, take_step
from hwnn.engine.threads import get_threads, set_threads
from networks import NAMES, batch, copy_parameters, our_step, ours, their_step, theirs
from timing import record
from torch import nn

here = Path(__file__).resolve().parent
rng = np.random.default_rng(0)
FORMATS = {"PyTorch contiguous": torch.contiguous_format, "PyTorch channels_last": torch.channels_last}

# (rows and cols, in_channels, out_channels, kernel, pad, stride), batch 64
CONVOLUTIONS = [(28, 1, 32, 3, 1, 1), (28, 1, 6, 5, 2, 1), (14, 32, 64, 3, 1, 1), (32, 3, 32, 3, 1, 1), (16, 64, 128, 3, 1, 1),
                (32, 16, 16, 3, 1, 1), (8, 128, 128, 3, 1, 1), (32, 64, 64, 3, 1, 2), (28, 64, 64, 1, 0, 1)]
# (rows and cols, channels, kernel, stride), batch 64
POOLINGS = [(28, 32, 2, 2), (32, 32, 2, 2), (16, 64, 3, 2)]
BATCH_NORMS = [(64, 28, 28, 32), (64, 16, 16, 64), (1024, 256)]
DENSE = [(64, 784, 128), (256, 1024, 1024), (1024, 256, 256)]   # (batch, n_in, n_out)
# hwnn's name -> its settings, PyTorch's class and settings, and whether PyTorch has a fused kernel for it
OPTIMIZERS = {
    "SGD": (dict(lr=0.01, momentum=0.9), torch.optim.SGD, dict(lr=0.01, momentum=0.9), True),
    "nesterov": (dict(lr=0.01, momentum=0.9), torch.optim.SGD, dict(lr=0.01, momentum=0.9, nesterov=True), True),
    "rmsprop": (dict(lr=0.01, rho=0.99, eps=1e-8), torch.optim.RMSprop, dict(lr=0.01, alpha=0.99, eps=1e-8), False),
    "adam": (dict(lr=0.001), torch.optim.Adam, dict(lr=0.001), True),
    "adamw": (dict(lr=0.001, weight_decay=0.01), torch.optim.AdamW, dict(lr=0.001, weight_decay=0.01), True),
}


def normal(*shape): return rng.standard_normal(shape, dtype=np.float32)
def row(t): return t.detach().numpy()[None]
def matrix(t): return t.detach().numpy().T
def images(t): return t.detach().permute(0, 2, 3, 1).numpy() if t.ndim == 4 else t.detach().numpy()
def kernel(t): return t.detach().permute(2, 3, 1, 0).numpy()


def with_and_without(fns):
    "The same functions, hwnn's once with NumPy alone and once with the extra `fast`."
    def switched(on, fn):
        def run():
            use_fast(on)
            try: return fn()
            finally: use_fast(before)
        return run
    before, fn = is_fast(), fns["hwnn"]
    return {"hwnn": switched(False, fn), "hwnn fast": switched(True, fn), **{who: other for who, other in fns.items() if who != "hwnn"}}


def agree(fns, *layout, calls=1, tolerance=1e-3):
    "Raise AssertionError unless all functions return the same after some calls; `layout` brings each of PyTorch's results into hwnn's."
    results = {}
    for who, fn in fns.items():
        for _ in range(calls): result = fn()
        results[who] = [f(t) for f, t in zip(layout, result, strict=True)] if who.startswith("PyTorch") else result
    for who, theirs in results.items():
        for A, B in zip(results["hwnn"], theirs, strict=True):
            np.testing.assert_allclose(A, B, rtol=tolerance, atol=tolerance*np.abs(B).max(), err_msg=who)


def torch_images(A, memory_format):
    "hwnn's images (batch, rows, cols, channels) as PyTorch's (batch, channels, rows, cols); anything else as it is."
    t = torch.from_numpy(A)
    return t.permute(0, 3, 1, 2).contiguous(memory_format=memory_format) if A.ndim == 4 else t


def torch_pass(module, X, dY, memory_format):
    "A function that does the forward and the backward pass: Y, dX and the gradients of all parameters."
    module = copy.deepcopy(module).to(memory_format=memory_format)
    x, dy = torch_images(X, memory_format).requires_grad_(), torch_images(dY, memory_format)
    wanted = [x, *module.parameters()]
    def run():
        y = module(x)
        return y, *torch.autograd.grad(y, wanted, dy)
    return run


def our_pass(forward, backward, dY, *args):
    "The same for a function of hwnn or of the textbook."
    def run():
        Y, ctx = forward(*args)
        grads = backward(dY, ctx)
        return Y, *(grads if isinstance(grads, tuple) else (grads,))
    return run


def convolution(measure):
    for H, n_in, n_out, k, pad, stride in CONVOLUTIONS:
        X, W, b = normal(64, H, H, n_in), normal(k, k, n_in, n_out)/k, normal(1, n_out)
        out = (H + 2*pad - k)//stride + 1
        dZ = normal(64, out, out, n_out)
        module = nn.Conv2d(n_in, n_out, k, stride, pad)
        module.weight.data, module.bias.data = torch.from_numpy(W).permute(3, 2, 0, 1).contiguous(), torch.from_numpy(b[0])
        fns = {"hwnn": our_pass(conv2d, conv2d_backward, dZ, X, W, b, stride, pad),
               **{who: torch_pass(module, X, dZ, f) for who, f in FORMATS.items()},
               "textbook": our_pass(textbook.conv2d, textbook.conv2d_backward, dZ, X, W, b, stride, pad)}
        fns = with_and_without(fns)
        agree(fns, images, images, kernel, row)
        yield record("convolution", f"{H}x{H}x{n_in} -> {n_out}, {k}x{k}" + (f", stride {stride}" if stride > 1 else ""), measure(fns), goal=2.5)


def pooling(measure):
    kinds = {"max": (max_pool2d, max_pool2d_backward, nn.MaxPool2d, textbook.max_pool2d, textbook.max_pool2d_backward),
             "average": (average_pool2d, average_pool2d_backward, nn.AvgPool2d, textbook.average_pool2d, textbook.average_pool2d_backward)}
    for kind, (forward, backward, module, *slow) in kinds.items():
        for H, channels, k, stride in POOLINGS:
            shape, out = (64, H, H, channels), (H - k)//stride + 1
            X = rng.permutation(np.prod(shape)).astype(np.float32).reshape(shape)/np.prod(shape, dtype=np.float32)   # no two alike: no ties
            dY = normal(64, out, out, channels)
            fns = {"hwnn": our_pass(forward, backward, dY, X, k, stride),
                   **{who: torch_pass(module(k, stride), X, dY, f) for who, f in FORMATS.items()},
                   "textbook": our_pass(*slow, dY, X, k, stride)}
            fns = with_and_without(fns)
            agree(fns, images, images)
            yield record("pooling", f"{kind}, {H}x{H}x{channels}, {k}x{k}, stride {stride}", measure(fns))


def batch_norm(measure):
    for shape in BATCH_NORMS:
        X, dY, features = normal(*shape), normal(*shape), shape[-1]
        gamma, beta = normal(1, features), normal(1, features)
        module = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(features, eps=1e-5, track_running_stats=False)
        module.weight.data, module.bias.data = torch.from_numpy(gamma[0]), torch.from_numpy(beta[0])
        formats = FORMATS if len(shape) == 4 else {"PyTorch": torch.contiguous_format}
        fns = {"hwnn": our_pass(batchnorm_train, batchnorm_train_backward, dY, X, gamma, beta, 1e-5),
               **{who: torch_pass(module, X, dY, f) for who, f in formats.items()},
               "textbook": our_pass(textbook.batchnorm, textbook.batchnorm_backward, dY, X, gamma, beta, 1e-5)}
        fns = with_and_without(fns)
        agree(fns, images, images, row, row)
        yield record("batch norm", "x".join(map(str, shape)), measure(fns))


def dense(measure):
    for n, n_in, n_out in DENSE:
        X, W, b, dZ = normal(n, n_in), normal(n_in, n_out), normal(1, n_out), normal(n, n_out)
        module = nn.Linear(n_in, n_out)
        module.weight.data, module.bias.data = torch.from_numpy(W.T.copy()), torch.from_numpy(b[0])
        fns = {"hwnn": our_pass(affine, affine_backward, dZ, X, W, b), "PyTorch": torch_pass(module, X, dZ, torch.contiguous_format)}
        fns = with_and_without(fns)
        agree(fns, images, images, matrix, row)
        yield record("dense", f"{n}x{n_in} -> {n_out}", measure(fns))


def optimizer(measure):
    g, start = normal(1_000_000), normal(1_000_000)/100
    def our_update(name, settings):
        param, opt = start.copy(), initialize_optimizer(name, **settings)
        def run():
            run_fastest(take_step, param, opt.update("p", param, g, 0))   # as NeuralNetwork.update does
            return [param]
        return run
    def their_update(optimizer, **settings):
        param = torch.from_numpy(start.copy()).requires_grad_()
        param.grad = torch.from_numpy(g)
        opt = optimizer([param], **settings)
        def run():
            opt.step()
            return [param]
        return run
    for name, (settings, theirs, their_settings, has_fused) in OPTIMIZERS.items():
        fns = {who: with_and_without({"hwnn": our_update(name, settings)})[who] for who in ("hwnn", "hwnn fast")}   # a state each
        fns["PyTorch"] = their_update(theirs, **their_settings)
        if has_fused: fns["PyTorch fused"] = their_update(theirs, **their_settings, fused=True)
        agree(fns, images, calls=3)
        yield record("optimizer", f"{name}, 1e6 parameters", measure(fns))


def steps(name, dtype):
    "One training step of each framework, all from the same parameters."
    (X, y), net = batch(name), ours(name)
    X = X.astype(dtype)
    net.forward(X)
    formats = FORMATS if X.ndim == 4 else {"PyTorch": torch.contiguous_format}
    modules = {who: theirs(name).to(torch.from_numpy(X).dtype) for who in formats}
    for module in modules.values(): copy_parameters(net, module)
    ours_ = {who: with_and_without({"hwnn": our_step(copy.deepcopy(net), X, y)})[who] for who in ("hwnn", "hwnn fast")}   # a network each
    return {**ours_, **{who: their_step(m, X, y, formats[who] is torch.channels_last) for who, m in modules.items()}}


def training_step(measure):
    for name, (goal, fast_goal) in dict(a=(0.8, 0.8), b=(1.0, 0.7), c=(1.2, 0.6)).items():
        # The third loss is right only if gradients and updates are. In float32 rounding alone moves that of (c) by half a percent.
        agree(steps(name, np.float64), images, calls=3, tolerance=1e-9)
        fns = steps(name, np.float32)
        agree(fns, images)
        yield record("training step", NAMES[name], measure(fns, budget=15), goal=goal, fast_goal=fast_goal)


def scikit_learn(measure):
    from sklearn.neural_network import MLPClassifier
    X, y = batch("a", 6_400)
    net, dataset = ours("a"), Dataset(X, np.eye(10, dtype=np.float32)[y], batch_size=64)
    other = MLPClassifier((128, 64), solver="sgd", momentum=0.9, nesterovs_momentum=False, alpha=0, batch_size=64, learning_rate_init=0.01, random_state=0)
    fns = {"hwnn": lambda: net.train(dataset, 1), "scikit-learn": lambda: other.partial_fit(X, y, classes=range(10))}
    for fn in fns.values(): fn()
    weights = [layer.parameters for layer in net.layers]
    other.coefs_, other.intercepts_ = [p["W"].copy() for p in weights], [p["b"][0].copy() for p in weights]
    np.testing.assert_allclose(other.predict_proba(X), net.predict(X), rtol=1e-3, atol=1e-4)
    yield record("scikit-learn", "an epoch of (a), 6400 examples", measure(with_and_without(fns)))


def python(*args):
    "What a new process prints, as a number."
    env = {**os.environ, "PYTHONPATH": str(here.parent)}
    return float(subprocess.run([sys.executable, *args], env=env, check=True, stdout=subprocess.PIPE, text=True).stdout)


def import_time(measure):
    statements = {"import hwnn": "import hwnn", "from hwnn.all import *": "from hwnn.all import *", "NumPy": "import numpy", "PyTorch": "import torch"}
    code = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
    samples = {who: [] for who in statements}
    for k in range(6):
        for who, statement in statements.items():
            took = python("-c", code.format(statement))
            if k: samples[who].append(took)   # the first one reads from the disk
    for case, other in (("import hwnn", "PyTorch"), ("from hwnn.all import *", "PyTorch"), ("import hwnn", "NumPy")):
        yield record("import", case, {"hwnn": samples[case], other: samples[other]})


def peak_memory(measure):
    if not sys.platform.startswith("linux"): return
    samples = {who: [] for who in ("hwnn", "hwnn fast", *FORMATS)}
    for _ in range(3):
        for who in samples: samples[who].append(python(str(here/"memory.py"), who, str(get_threads())))
    yield record("peak memory", f"10 steps of {NAMES['c']}", samples, goal=1.0, unit="bytes")


def scaling(measure):
    "One convolution (3x3, 32 -> 32) on other sizes than 256 images of 32x32; the work grows with the number of pixels. The goal is for sizes past the caches, as these are."
    W, b = normal(3, 3, 32, 32), normal(1, 32)
    def one(n, H): return our_pass(conv2d, conv2d_backward, normal(n, H, H, 32), normal(n, H, H, 32), W, b, 1, 1)
    base, sizes = (256, 32), [(512, 32), (256, 48), (128, 64), (64, 32), (64, 16)]
    fns = {size: with_and_without({"hwnn": one(*size)}) for size in (base, *sizes)}
    samples = {who: measure({size: fns[size][who] for size in fns}, budget=30) for who in ("hwnn", "hwnn fast")}
    for n, H in sizes:
        against = {"batch 256, 32x32": samples["hwnn"][base], "batch 256, 32x32, fast": samples["hwnn fast"][base]}
        past = 4*4*32*n*H*H > 2**26   # bytes of input, output and their gradients: twice the last cache of most processors
        yield record("scaling", f"batch {n}, {H}x{H}, by work" + ("" if past else ", in the cache"), {**{who: samples[who][n, H] for who in samples}, **against},
                     goal=1.1 if past else None, work=n*H*H/(256*32*32))


def threads(measure):
    before, (X, y) = get_threads(), batch("c")
    def with_threads(n):
        step = our_step(ours("c"), X, y)
        def run():
            set_threads(n)
            return step()
        return run
    fns, one = with_and_without({"hwnn": with_threads(2)}), with_and_without({"hwnn": with_threads(1)})
    try: yield record("threads", f"2 threads, {NAMES['c']}", measure({**fns, "one thread": one["hwnn"], "one thread, fast": one["hwnn fast"]}, budget=20), goal=1/1.7)
    finally: set_threads(before)


GROUPS = {"convolution": convolution, "pooling": pooling, "batch norm": batch_norm, "dense": dense, "optimizer": optimizer, "training step": training_step,
          "scikit-learn": scikit_learn, "import": import_time, "peak memory": peak_memory, "scaling": scaling, "threads": threads}
