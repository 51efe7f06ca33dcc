"""The engine: whatever takes the place of a function returns what that function returns, and what PyTorch does, for random cases and at the edges."""
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

import hwnn
from hwnn.all import *
from hwnn.engine.table import NUMPY, compiled, run
from hwnn.layers.batchnorm import batchnorm_train
from hwnn.layers.convolution import conv2d, conv2d_backward
from hwnn.layers.fully_connected import affine, affine_backward
from hwnn.layers.pooling import average_pool2d, average_pool2d_backward, max_pool2d, max_pool2d_backward
from hwnn.optimizers import OPTIMIZERS, take_step

from test_threads import NINE

pytestmark = pytest.mark.needs("numba")


@pytest.fixture(autouse=True)
def fast():
    before = is_fast()
    use_fast(True)
    yield
    use_fast(before)


def both(fn):
    "What `fn` returns with NumPy alone, and with the compiled functions."
    use_fast(False)
    numpys = fn()
    use_fast(True)
    return numpys, fn()


def close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and np.abs(a - b).max() <= tolerance*max(1, np.abs(b).max()), np.abs(a - b).max()


# The table: for each name arguments of the function, in float64, for a random case --------------------------------------------------------

def convolution_case(rng):
    "X, W, b, dZ, stride and pad."
    kernel_shape, stride = (tuple(rng.integers(1, top, 2).tolist()) for top in (6, 4))
    if rng.random() < 0.5: kernel_shape, stride = (3, 3), (1, 1)   # Winograd's case, if the channels fit
    pad = tuple(tuple(rng.integers(0, 5, 2).tolist()) for _ in range(2))
    shape = [max(k - sum(p), 1) + int(rng.integers(0, 14)) for k, p in zip(kernel_shape, pad)]
    channels = [int(rng.choice([1, 3, 6, 8, 16, 24, 32])) for _ in range(2)]
    out = [(n + sum(p) - k)//s + 1 for n, p, k, s in zip(shape, pad, kernel_shape, stride)]
    batch = int(rng.integers(1, 6))
    return *(rng.normal(size=s) for s in ((batch, *shape, channels[0]), (*kernel_shape, *channels), (1, channels[1]), (batch, *out, channels[1]))), stride, pad

def pooling_case(rng):
    "X, a gradient at the output, what sums are divided by, and the geometry."
    kernel_shape, stride = (tuple(rng.integers(1, 4, 2).tolist()) for _ in range(2))
    if rng.random() < 0.3: stride = kernel_shape
    pad = tuple(tuple(rng.integers(0, k, 2).tolist()) for k in kernel_shape)
    shape = int(rng.integers(1, 5)), *rng.integers(3, 12, 2).tolist(), int(rng.integers(1, 20))
    out = [(n + sum(p) - k)//s + 1 for n, p, k, s in zip(shape[1:3], pad, kernel_shape, stride)]
    size = rng.integers(1, 5, (1, *out, 1)).astype(float) if rng.random() < 0.5 else np.float64(3)
    return rng.integers(0, 5, shape).astype(float), rng.normal(size=(shape[0], *out, shape[3])), size, (kernel_shape, stride, pad)

def max_backward_case(rng):
    X, dY, _, geometry = pooling_case(rng)
    return X, import_module("hwnn.layers.pooling").max_windows(X, *geometry), dY, *geometry

def shapes(*axes):
    "Arrays of random sizes: each name among the axes one size."
    def make(rng):
        sizes = {name: int(rng.integers(1, 150)) for name in dict.fromkeys("".join(axes)) if name.isalpha()}
        return [rng.normal(size=tuple(sizes.get(name, 1) for name in axis)) for axis in axes]
    return make

def dense_case(*which):
    "Some of X, dZ, W and b, now and then with so many rows of whole vectors that a compiled product pays."
    def make(rng):
        batch, n_in, n_out = rng.integers(1, 150, 3)
        if rng.random() < 0.3: batch, n_in, n_out = 128 + batch, 128, 16*(8 + n_out//16)
        return [(rng.normal(size=(batch, n_in)), rng.normal(size=(batch, n_out)), rng.normal(size=(n_in, n_out)), rng.normal(size=(1, n_out)))[k] for k in which]
    return make

def with_numbers(make, *numbers): return lambda rng: [*make(rng), *numbers]

def positive(make, k): return lambda rng: [np.abs(A) if i == k else A for i, A in enumerate(make(rng))]

def from_convolution(names):
    def make(rng):
        X, W, b, dZ, stride, pad = convolution_case(rng)
        return [dict(X=X, W=W, b=b, dZ=dZ, stride=stride, pad=pad, kernel_shape=W.shape[:2], shape=X.shape[1:3])[name] for name in names.split()]
    return make

def from_pooling(names):
    def make(rng):
        X, dY, size, geometry = pooling_case(rng)
        return [A for name in names.split() for A in dict(X=[X], dY=[dY], size=[size], shape=[X.shape[1:3]], geometry=geometry)[name]]
    return make

CASES = dict(
    rowwise=lambda rng: [np.tanh, *shapes("ij")(rng)], rectify=shapes("ijk"), rectify_backward=shapes("ij", "ij"), softmax=shapes("ij"), log_probabilities=shapes("ij"),
    momentum_step=with_numbers(shapes("ij", "ij"), 0.1, 0.9), nesterov_step=with_numbers(shapes("ij", "ij"), 0.1, 0.9), take_step=shapes("ij", "ij"),
    rms_step=positive(with_numbers(shapes("ij", "ij"), 0.1, 0.9, 1e-8), 0), adam_step=positive(with_numbers(shapes("ij", "ij", "ij"), 0.1, 0.9, 0.99, 1e-8, 3), 1),
    affine_map=dense_case(0, 2, 3), transposed_map=dense_case(1, 2), weight_gradient=dense_case(0, 1),
    correlate=from_convolution("X W b stride pad"), weight_gradients=from_convolution("X dZ kernel_shape stride pad"), input_gradient=from_convolution("dZ W shape stride pad"),
    max_windows=from_pooling("X geometry"), max_windows_backward=max_backward_case, mean_windows=from_pooling("X size geometry"), mean_windows_backward=from_pooling("dY size shape geometry"),
    statistics=shapes("ij"), standardise=shapes("ij", *["1j"]*5), parameter_gradients=shapes("ij", "ij"), projected_gradient=shapes("ij", "ij", *["1j"]*3))


def page_function(name):
    "The function of the library that has this name."
    found = {getattr(import_module(f"hwnn.{module}"), name, None) for module in ("activations", "losses", "optimizers", *(f"layers.{m}" for m in ("fully_connected", "convolution", "pooling", "batchnorm")))}
    (fn,) = found - {None}
    return fn


def test_every_offer_is_known():
    assert set(NUMPY) | set(compiled()) == set(CASES)
    for name, fn in compiled().items(): assert list(signature(fn).parameters) == list(signature(page_function(name)).parameters), name
    for name, fn in NUMPY.items():
        first, *others = signature(fn).parameters.values()
        assert first.name == "fn" and (others[-1].kind is others[-1].VAR_POSITIONAL or [p.name for p in others] == list(signature(page_function(name)).parameters)), name


def arrays(result): return [np.asarray(A) for A in (result if isinstance(result, (tuple, list)) else [result]) if A is not None]


@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-10), (np.float32, 5e-5)])
@pytest.mark.parametrize("floor,name", [("numpy", name) for name in NUMPY] + [("compiled", name) for name in compiled()])
def test_twins_agree(floor, name, dtype, tolerance, monkeypatch):
    "For random shapes, in one thread and in two, in blocks however small: what is returned, and what is changed in place."
    for module in ("threads", "blocks", "team"): monkeypatch.setattr(f"hwnn.engine.{module}.WORTH", 1)
    for kernel in ("_by_rows", "_sums"): monkeypatch.setitem(getattr(import_module("hwnn.engine.blocks"), kernel).__kwdefaults__, "block", 100)
    for limit in ("BLOCK", "COLUMNS"): monkeypatch.setattr(f"hwnn.engine.blocks.{limit}", 100)
    rng, fn, before, answered = np.random.default_rng(0), page_function(name), get_threads(), 0
    twin = (lambda *args: NUMPY[name](fn, *args)) if floor == "numpy" else compiled()[name]
    try:
        for k in range(100):
            set_threads(1 + k % 2)
            plain, ours = ([A.astype(dtype) if isinstance(A, (np.ndarray, np.floating)) and not isinstance(A, float) else dtype(A) if isinstance(A, np.float64) else A for A in args]
                           for args in [CASES[name](rng)] for _ in range(2))
            expected, got = fn(*plain), twin(*ours)
            if got is NotImplemented: continue
            answered += 1
            for a, b in zip(arrays(got) + [A for A in ours if isinstance(A, np.ndarray)], arrays(expected) + [A for A in plain if isinstance(A, np.ndarray)], strict=True):
                assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape, a.dtype, b.dtype)
                assert np.abs(a - b).max() <= tolerance*max(1, np.abs(b).max()), np.abs(a - b).max()
    finally: set_threads(before)
    assert answered > 5


@pytest.mark.parametrize("side,channels,n_out,k,pad,stride", NINE)
def test_convolution_as_in_pytorch(side, channels, n_out, k, pad, stride, torch):
    rng = np.random.default_rng(0)
    X, W, b = rng.normal(size=(9, side, side, channels)), rng.normal(size=(k, k, channels, n_out)), rng.normal(size=(1, n_out))
    Z, ctx = conv2d(X, W, b, stride, pad)
    dZ = rng.normal(size=Z.shape)
    leaves = [torch.tensor(A, requires_grad=True) for A in (X.transpose(0, 3, 1, 2).copy(), W.transpose(3, 2, 0, 1).copy(), b[0])]
    theirs = torch.nn.functional.conv2d(*leaves, stride=stride, padding=pad)
    theirs.backward(torch.tensor(dZ.transpose(0, 3, 1, 2).copy()))
    X_t, W_t, b_t = (leaf.grad.numpy() for leaf in leaves)
    pairs = [(Z, theirs.detach().numpy().transpose(0, 2, 3, 1)), *zip(conv2d_backward(dZ, ctx), (X_t.transpose(0, 2, 3, 1), W_t.transpose(2, 3, 1, 0), b_t[None]))]
    for ours, expected in pairs: assert np.abs(ours - expected).max() < 1e-10*np.abs(expected).max()


def test_pooling():
    rng = np.random.default_rng(0)
    for _ in range(200):
        kernel_shape, stride = (tuple(rng.integers(1, 4, 2).tolist()) for _ in range(2))
        pad = tuple(tuple(rng.integers(0, k, 2).tolist()) for k in kernel_shape)
        X = rng.integers(0, 5, (3, *rng.integers(3, 12, 2), int(rng.integers(1, 20)))).astype(rng.choice([np.float32, np.float64]))
        for fn, backward in ((max_pool2d, max_pool2d_backward), (average_pool2d, average_pool2d_backward),
                             (lambda *a: average_pool2d(*a, count_include_pad=False), average_pool2d_backward)):
            def run():
                Y, ctx = fn(X, kernel_shape, stride, pad)
                return Y, backward(np.cos(Y), ctx)
            numpys, ours = both(run)
            close(ours, numpys, 1e-6 if X.dtype == np.float32 else 1e-14)


def test_not_a_number_in_pooling_and_rectifier():
    X = np.random.default_rng(0).normal(size=(2, 4, 4, 3))
    X[0, 1, 1, 0], X[1, 2, 3, 2] = np.nan, np.inf
    def run():
        Y, ctx = max_pool2d(X, 2, 2)
        return Y, max_pool2d_backward(np.ones_like(Y), ctx), initialize_activation("relu").backward(X, np.ones_like(X))
    for a, b in zip(*both(run)): np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_normalisation(dtype, tolerance):
    rng = np.random.default_rng(0)
    for shape in ((7, 3), (1000, 17), (4, 30, 30, 70), (9, 5, 5, 2)):
        X, dY = rng.normal(size=(2, *shape)).astype(dtype)
        for one in (BatchNorm1D, LayerNorm):
            def run():
                layer = one()
                Y = layer.forward(3*X + 5)
                return Y, layer.backward(dY), *layer.gradients.values(), *layer.state.values(), layer.forward(X, "test")
            numpys, ours = both(run)
            close(ours, numpys, tolerance)


def test_normalisation_keeps_its_digits():
    X = 1e6 + np.random.default_rng(0).normal(size=(1000, 3))
    Y, _ = batchnorm_train(X.astype(np.float32), np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32), 1e-8)
    A = X.astype(np.float32).astype(float)
    np.testing.assert_allclose(Y, (A - A.mean(axis=0))/A.std(axis=0), atol=1e-5)
    constant = np.full((300, 2), 1e30, np.float32)
    assert not batchnorm_train(constant, np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32), 1e-8)[0].any()


def test_dense_layers():
    rng = np.random.default_rng(0)
    for _ in range(200):
        batch, n_in, n_out = (int(rng.integers(1, top)) for top in (70, 150, 150))
        X, W, b, dZ = (rng.normal(size=s) for s in ((batch, n_in), (n_in, n_out), (1, n_out), (batch, n_out)))
        def run():
            Z, ctx = affine(X, W, b)
            return Z, *affine_backward(dZ, ctx)
        numpys, ours = both(run)
        close(ours, numpys, 1e-13)


@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-14), (np.float32, 1e-6)])
def test_softmax(dtype, tolerance):
    rng = np.random.default_rng(0)
    for batch, classes in ((1, 1), (64, 10), (3, 32), (5, 33), (300, 2)):
        Z, Y = (100*rng.normal(size=(batch, classes))).astype(dtype), np.eye(classes, dtype=dtype)[rng.integers(0, classes, batch)]
        def run():
            loss, dZ = cross_entropy_and_gradient(Y, Z, 0.1)
            return [SoftMax()(Z), log_softmax(Z)/100, dZ, np.array(loss)]
        numpys, ours = both(run)
        close(ours, numpys, tolerance)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_optimizers(name, dtype, tolerance, threads):
    start, gradients = np.random.default_rng(0).normal(size=(2, 20, 30, 401)).astype(dtype)
    def steps():
        optimizer, param = initialize_optimizer(name, lr=0.01, weight_decay=0.1, **({"momentum": 0.9} if name == "SGD" else {})), start[0].copy()
        for epoch, g in enumerate(gradients): run(take_step, param, optimizer.update("W", param, g, epoch))
        state = optimizer.cache["W"]
        return [param, state] if isinstance(state, np.ndarray) else [param, state["mean"], state["mean_square"]]
    numpys, ours = both(steps)
    close(ours, numpys, tolerance)


def passes():
    "Convolution, pooling, batch norm and a dense layer, forward and backward, large enough for all threads."
    rng = np.random.default_rng(0)
    X, out = rng.normal(size=(9, 20, 20, 16)), []
    for layer in (Conv2D(16, 3, "relu"), Conv2D(8, 3, None, stride=2), Pool2D(2, stride=2), BatchNorm1D(), FullyConnected(100, "relu")):
        A = X.reshape(-1, 400) if isinstance(layer, FullyConnected) else X
        Y = layer.forward(A)
        out += [Y, layer.backward(np.cos(Y)), *layer.gradients.values()]
    return out


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = get_threads()
    set_threads(request.param)
    yield request.param
    set_threads(before)


def test_runs_are_alike(threads):
    "Whoever does a part, and if four callers come at once: the results are the same to the last digit."
    first = passes()
    with ThreadPoolExecutor(4) as pool: results = [passes() for _ in range(10)] + list(pool.map(lambda _: passes(), range(12)))
    for result in results:
        for a, b in zip(first, result, strict=True): np.testing.assert_array_equal(a, b)


def child(queue): queue.put([float(A.sum()) for A in passes()])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_shares_with_threads_of_its_own(threads):
    child(queue := multiprocessing.get_context("fork").SimpleQueue())
    process = multiprocessing.get_context("fork").Process(target=child, args=(queue,))
    process.start()
    process.join(20)
    assert process.exitcode == 0 and queue.get() == queue.get()


def test_what_is_left_to_numpy():
    "Complex numbers, arrays in another order; and tiny or frozen images, which are not: the same as without the compiled functions."
    rng = np.random.default_rng(0)
    X, W, b = rng.normal(size=(2, 9, 9, 8)), rng.normal(size=(3, 3, 8, 8)), rng.normal(size=(1, 8))
    frozen = X.copy()
    frozen.flags.writeable = False   # no obstacle: it is only read
    for A in (X.astype(complex), X.transpose(0, 2, 1, 3), X[:, ::2], X[:, :2, :2], frozen):
        def run():
            Z, ctx = conv2d(A, W, b, 1, 1)
            return Z, *conv2d_backward(Z, ctx)
        numpys, ours = both(run)
        close(ours, numpys, 1e-12)


def test_a_network_learns_the_same():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(16, 12, 12, 3)), np.eye(4)[rng.integers(0, 4, 16)]
    def run():
        net = NeuralNetwork([Conv2D(8, 3, "relu"), BatchNorm1D(), Conv2D(16, 3, "relu"), Pool2D(2, stride=2), Flatten(), FullyConnected(4, "softmax")],
                            optimizer=SGD(0.05, momentum=0.9), seed=0)
        losses = []
        for _ in range(10):
            losses.append(net.backward(Y, net.forward(X)))
            net.update(0)
        return [np.array(losses), net.predict(X)]
    numpys, ours = both(run)
    close(ours, numpys, 1e-9)
    assert ours[0][-1] < ours[0][0]


def test_numba_is_loaded_when_it_is_needed():
    code = """
import sys, numpy as np
from hwnn.all import *
from hwnn.layers.pooling import max_pool2d
first = "numba" in sys.modules
max_pool2d(np.ones((1, 4, 4, 1)), 2)
print(first, "numba" in sys.modules, is_fast())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "True", "True"]


def test_numba_without_its_compiler_is_left_alone():
    run = subprocess.run([sys.executable, "-c", "import numpy as np; from hwnn.all import ReLU; print(ReLU()(np.array([-1.0, 2.0])))"], capture_output=True, text=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    assert run.stdout.split() == ["[0.", "2.]"] and "hwnn goes on without Numba, which is installed but cannot be used: NUMBA_DISABLE_JIT is set" in run.stderr


def test_what_was_compiled_from_older_files_goes(tmp_path):
    "Numba itself looks at one file, although functions of others are compiled into those of that file."
    kept = tmp_path/"hwnn"/"engine"/"__pycache__"
    shutil.copytree(Path(hwnn.__file__).parent, tmp_path/"hwnn", ignore=shutil.ignore_patterns("__pycache__"))
    kept.mkdir()
    for name, time in (("old.nbi", 0), ("new.nbi", 2**31)):
        (kept/name).touch()
        os.utime(kept/name, (time, time))
    subprocess.run([sys.executable, "-c", "from hwnn.engine.table import compiled; compiled()"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True)
    assert not (kept/"old.nbi").exists() and (kept/"new.nbi").exists()


def test_a_mean_over_padding_alone_is_zero():
    "Nothing outside the image is read where a window lies in padding alone."
    Y, _ = average_pool2d(np.ones((1, 1, 1, 3)), (1, 1), (1, 1), ((0, 1), (0, 2)))
    expected = np.zeros((1, 2, 3, 3))
    expected[0, 0, 0] = 1
    np.testing.assert_array_equal(Y, expected)


def test_machine_code_from_disk_gives_the_same_bits(tmp_path):
    "What is compiled in this process and what an earlier one left: the second run loads it."
    code = """import hashlib, numpy as np
from hwnn.engine.table import compiled
rng = np.random.default_rng(0)
m, v, g, A = (rng.normal(size=(300, 100)).astype("f4") for _ in range(4))
v *= v
outs = [compiled()["adam_step"](m, v, g, 0.001, 0.9, 0.999, 1e-8, 3), compiled()["rms_step"](v, g, 0.01, 0.9, 1e-8), *compiled()["statistics"](A), m, v]
print(hashlib.sha256(b"".join(np.ascontiguousarray(out).tobytes() for out in outs)).hexdigest())"""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(hwnn.__file__).parents[1])}
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout for _ in range(2)]
    assert runs[0] == runs[1] and any(tmp_path.rglob("*.nbi"))
