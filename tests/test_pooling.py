"""Pooling against PyTorch over random shapes, kernels, strides and paddings: about 1,300 cases, or 20,000 with HWNN_LONG=1."""
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optional import has

from hwnn.layers import Pool2D
from hwnn.layers.pooling import average_pool2d, average_pool2d_backward, max_pool2d, max_pool2d_backward, pooled_shape

if has("torch"):
    import torch
    from torch.nn import functional as F
beside_torch = pytest.mark.needs("torch")

SHARE = 20_000/1_300 if os.environ.get("HWNN_LONG") else 1
sizes = lambda low, high: st.tuples(*[st.integers(low, high)]*2)


@st.composite
def geometry(draw):
    "Size, kernel, stride and pad; in one case of eight the pad may be too wide or the kernel too large."
    size, kernel, stride = draw(sizes(1, 9)), draw(sizes(1, 5)), draw(sizes(1, 4))
    pad = draw(st.tuples(sizes(0, 4), sizes(0, 4)))
    if draw(st.integers(0, 7)):
        pad = tuple(tuple(p % k for p in side) for side, k in zip(pad, kernel))
        size = tuple(max(n, k - sum(p)) for n, k, p in zip(size, kernel, pad))
    return size, kernel, stride, pad


def cases(n):
    "Run a test on n random cases in the normal run, and on its share of 20,000 in the long one."
    all_given = given(batch=st.integers(1, 3), channels=st.integers(1, 4), where=geometry(), seed=st.integers(0, 2**32 - 1))
    return lambda test: settings(max_examples=round(n*SHARE), deadline=None, database=None, derandomize=True,
                                 suppress_health_check=list(HealthCheck))(all_given(test))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    "Arrays as small as these are slower with several threads."
    before = has("torch") and torch.get_num_threads()
    if before: torch.set_num_threads(1)
    yield
    if before: torch.set_num_threads(before)


def nhwc(t): return t.detach().numpy().transpose(0, 2, 3, 1)


def torch_pool(X, dY, kernel, stride, pad, mode, counted=True):
    "Output and gradient by PyTorch. Padding is put on from outside, as its own is symmetric and at most half the kernel."
    x = torch.tensor(X.transpose(0, 3, 1, 2), requires_grad=True)
    sides = (*pad[1], *pad[0])
    if mode == "max": y = F.max_pool2d(F.pad(x, sides, value=-np.inf), kernel, stride)
    else:
        y = F.avg_pool2d(F.pad(x, sides), kernel, stride)
        if not counted: y = y/F.avg_pool2d(F.pad(torch.ones_like(x), sides), kernel, stride)
    if dY is not None: y.backward(torch.tensor(dY.transpose(0, 3, 1, 2)))
    return nhwc(y), None if dY is None else nhwc(x.grad)


def fits(size, kernel, pad): return all(k <= n + sum(p) for n, k, p in zip(size, kernel, pad))


def has_empty_window(size, kernel, stride, pad):
    "Whether a window is all padding, found out by PyTorch: the maximum there is minus infinity."
    return bool(np.isinf(torch_pool(np.zeros((1, *size, 1)), None, kernel, stride, pad, "max")[0]).any())


def refused(size, kernel, stride, pad, empty_ones_too):
    "Whether these arguments are to be refused; if so, that they are, before anything has changed."
    if fits(size, kernel, pad) and not (empty_ones_too and has_empty_window(size, kernel, stride, pad)): return False
    layer = Pool2D(kernel, "average", stride, pad, count_include_pad=not empty_ones_too)
    with pytest.raises(ValueError, match="^Pool2D: expected a (kernel no larger|pixel of the input)"): layer.forward(np.zeros((1, *size, 1)))
    assert not layer.cache and layer.n_in is None
    return True


def compare(kind, X, dY_of, kernel, stride, pad, rtol):
    "Assert that the layer agrees with PyTorch in output and gradient, and keeps the dtype of X."
    layer = Pool2D(kernel, stride=stride, pad=pad, **kind)
    Y = layer.forward(X)
    dY = dY_of(Y.shape).astype(X.dtype)
    dX = layer.backward(dY)
    assert Y.dtype == dX.dtype == X.dtype and dX.shape == X.shape
    for ours, theirs in zip((Y, dX), torch_pool(X, dY, kernel, stride, pad, kind["mode"], kind.get("count_include_pad", True))):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)
        LARGEST[X.dtype.name] = max(LARGEST[X.dtype.name], float(np.abs(ours - theirs).max()))
    COMPARED[X.dtype.name] += 1


LARGEST, COMPARED = dict(float64=0.0, float32=0.0), dict(float64=0, float32=0)


@beside_torch
@cases(450)
def test_max_agrees_with_torch(batch, channels, where, seed):
    size, kernel, stride, pad = where
    if refused(size, kernel, stride, pad, True): return
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((batch, *size, channels))   # continuous: no ties, on which the two differ by design
    compare(dict(mode="max"), X, rng.standard_normal, kernel, stride, pad, 1e-10)


@beside_torch
@cases(450)
def test_average_agrees_with_torch(batch, channels, where, seed):
    size, kernel, stride, pad = where
    rng = np.random.default_rng(seed)
    X, counted = rng.standard_normal((batch, *size, channels)), bool(seed % 2)
    if refused(size, kernel, stride, pad, not counted): return
    compare(dict(mode="average", count_include_pad=counted), X, rng.standard_normal, kernel, stride, pad, 1e-10)


@beside_torch
@cases(200)
def test_float32_stays_and_agrees(batch, channels, where, seed):
    size, kernel, stride, pad = where
    if refused(size, kernel, stride, pad, True): return
    rng = np.random.default_rng(seed)
    X = rng.permutation(batch*size[0]*size[1]*channels).reshape(batch, *size, channels).astype(np.float32)/64   # no ties
    for kind in (dict(mode="max"), dict(mode="average"), dict(mode="average", count_include_pad=False)):
        compare(kind, X, rng.standard_normal, kernel, stride, pad, 1e-5)


@beside_torch
@cases(200)
def test_ties_share_and_nothing_is_lost(batch, channels, where, seed):
    "With ties, infinities and padding: every window hands on all of its gradient, in equal shares."
    size, kernel, stride, pad = where
    if not fits(size, kernel, pad) or has_empty_window(size, kernel, stride, pad): return
    rng = np.random.default_rng(seed)
    X = rng.choice([-np.inf, -1.0, 0.0, 2.0], (batch, *size, channels))
    Y, ctx = max_pool2d(X, kernel, stride, pad)
    np.testing.assert_array_equal(Y, torch_pool(X, None, kernel, stride, pad, "max")[0])
    dY, expected = rng.standard_normal(Y.shape), np.zeros_like(X)
    (top, _), (left, _) = pad
    for n, i, j, c in np.ndindex(*Y.shape):
        rows, cols = (slice(max(0, o*s - before), o*s - before + k) for o, s, before, k in zip((i, j), stride, (top, left), kernel))
        window = X[n, rows, cols, c]
        won = window == window.max()
        expected[n, rows, cols, c] += dY[n, i, j, c]*won/won.sum()
    dX = max_pool2d_backward(dY, ctx)
    np.testing.assert_allclose(dX, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dX.sum(), dY.sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("order", [1, -1])
def test_memory_around_the_array_is_never_read(order, counted):
    "An array inside a buffer of NaN, read in either direction, gives what a copy of it gives; NaN would spread if it were touched."
    rng = np.random.default_rng(0)
    for size, kernel, stride, pad in [((6, 7), (2, 2), (2, 2), ((0, 0), (0, 0))), ((6, 7), (3, 3), (2, 2), ((1, 1), (1, 1))),
                                      ((5, 8), (4, 3), (3, 2), ((3, 0), (0, 2))), ((7, 5), (1, 5), (4, 1), ((0, 0), (4, 4)))]:
        buffer = np.full((5, size[0] + 6, size[1] + 6, 7), np.nan)
        X = buffer[1:-1, 3:-3, 3:-3, 2:-2][:, ::order, ::order]
        X[:] = rng.standard_normal(X.shape)
        before = buffer.copy()
        for forward, backward, more in [(max_pool2d, max_pool2d_backward, ()), (average_pool2d, average_pool2d_backward, (counted,))]:
            Y, ctx = forward(X, kernel, stride, pad, *more)
            Y_copy, ctx_copy = forward(X.copy(), kernel, stride, pad, *more)
            np.testing.assert_allclose(Y, Y_copy, rtol=1e-12, atol=1e-13)   # one may be compiled, the other not
            around = np.full(tuple(n + 2 for n in Y.shape), np.nan)
            dY = around[1:-1, 1:-1, 1:-1, 1:-1][:, ::order]
            dY[:] = rng.standard_normal(Y.shape)
            np.testing.assert_allclose(backward(dY, ctx), backward(dY.copy(), ctx_copy), rtol=1e-12, atol=1e-13)
            assert np.isfinite(Y).all() and np.isfinite(backward(dY, ctx)).all()
        np.testing.assert_array_equal(buffer, before)


@beside_torch
def test_own_padding_of_torch():
    "Where PyTorch allows a padding, its own way of applying it agrees too, count_include_pad included."
    X = np.random.default_rng(0).standard_normal((2, 7, 8, 3))
    x = torch.tensor(X.transpose(0, 3, 1, 2))
    for k, s, p in [(2, 2, 1), (3, 2, 1), (5, 3, 2), (4, 1, 2)]:
        np.testing.assert_array_equal(max_pool2d(X, k, s, p)[0], nhwc(F.max_pool2d(x, k, s, p)))
        for counted in (True, False):
            np.testing.assert_allclose(average_pool2d(X, k, s, p, counted)[0], nhwc(F.avg_pool2d(x, k, s, p, count_include_pad=counted)), rtol=1e-13)


@beside_torch
def test_every_form_of_the_arguments():
    X = np.random.default_rng(0).standard_normal((2, 6, 7, 3))
    forms = [(3, "same", ((1, 1), (1, 1))), ((2, 3), "valid", ((0, 0), (0, 0))), ((4, 3), "same", ((1, 2), (1, 1))), (3, 1, ((1, 1), (1, 1))), ((4, 3), "same_upper", ((1, 2), (1, 1))), (3, (2, 0), ((2, 2), (0, 0)))]
    for kernel, pad, pairs in forms:
        for mode in ("max", "average"):
            layer = Pool2D(kernel, mode, pad=pad)
            assert layer.pad == (pad if isinstance(pad, str) else pairs)
            pair = kernel if isinstance(kernel, tuple) else (kernel, kernel)
            np.testing.assert_allclose(layer.forward(X), torch_pool(X, None, pair, (1, 1), pairs, mode)[0], rtol=1e-13)


@st.composite
def hanging(draw):
    "Size, kernel, stride and a padding that PyTorch itself can put on; in one case of eight the kernel may not fit."
    size, kernel, stride = draw(sizes(1, 11)), draw(sizes(1, 5)), draw(sizes(1, 5))
    pad = tuple(draw(st.integers(0, k//2)) for k in kernel)
    if draw(st.integers(0, 7)): size = tuple(max(n, k - 2*p) for n, k, p in zip(size, kernel, pad))
    return size, kernel, stride, pad


HUNG_OVER = []


@beside_torch
@settings(max_examples=round(400*SHARE), deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(batch=st.integers(1, 3), channels=st.integers(1, 4), where=hanging(), seed=st.integers(0, 2**32 - 1))
def test_windows_that_hang_over_as_in_torch(batch, channels, where, seed):
    size, kernel, stride, pad = where
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((batch, *size, channels))
    for mode, counted in (("max", True), ("average", True), ("average", False)):
        layer = Pool2D(kernel, mode, stride, pad, counted, ceil_mode=True)
        x = torch.tensor(X.transpose(0, 3, 1, 2), requires_grad=True)
        try: y = F.max_pool2d(x, kernel, stride, pad, ceil_mode=True) if mode == "max" else F.avg_pool2d(x, kernel, stride, pad, True, counted)
        except RuntimeError:   # no window fits
            with pytest.raises(ValueError, match="^Pool2D: expected a kernel no larger"): layer.forward(X)
            continue
        Y = layer.forward(X)
        dY = rng.standard_normal(Y.shape)
        y.backward(torch.tensor(dY.transpose(0, 3, 1, 2)))
        np.testing.assert_allclose(Y, nhwc(y), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(layer.backward(dY), nhwc(x.grad), rtol=1e-12, atol=1e-12)
        HUNG_OVER.append(Y.shape[1:3] != tuple((n + 2*p - k)//s + 1 for n, k, s, p in zip(size, kernel, stride, pad)))


@beside_torch
def test_windows_did_hang_over():
    "The cases above have both: windows more than without `ceil_mode`, and none."
    assert 100 < sum(HUNG_OVER) < len(HUNG_OVER) - 100


@pytest.mark.parametrize("counted", [True, False])
def test_a_window_that_hangs_over_by_hand(counted):
    "Three windows of 2 on the numbers 1 to 5: the last one is 5 alone, and divides by one number, not by two."
    X = np.arange(1.0, 6).reshape(1, 1, 5, 1)
    Y, ctx = average_pool2d(X, (1, 2), 2, 0, counted, ceil_mode=True)
    np.testing.assert_array_equal(Y.ravel(), [1.5, 3.5, 5])
    np.testing.assert_array_equal(average_pool2d_backward(np.ones_like(Y), ctx).ravel(), [0.5, 0.5, 0.5, 0.5, 1])
    Y, ctx = max_pool2d(X, (1, 2), 2, ceil_mode=True)
    np.testing.assert_array_equal(Y.ravel(), [2, 4, 5])
    np.testing.assert_array_equal(max_pool2d_backward(np.ones_like(Y), ctx).ravel(), [0, 1, 0, 1, 1])
    assert max_pool2d(X.astype(np.float32), (1, 2), 2, ceil_mode=True)[0].dtype == average_pool2d(X.astype(np.float32), (1, 2), 2, 0, counted, True)[0].dtype == np.float32


def test_an_error_leaves_the_layer_as_it_was():
    layer = Pool2D(2, stride=2)
    X = np.random.default_rng(0).standard_normal((2, 4, 4, 3))
    Y = layer.forward(X)
    for bad, error in [(X[0], ValueError), (X[:, :1], ValueError), (X.astype(int), TypeError), (X[:0], ValueError), (X.tolist(), TypeError)]:
        with pytest.raises(error, match="^Pool2D: expected"): layer.forward(bad)
    with pytest.raises(ValueError, match="^Pool2D: expected mode"): layer.forward(X, mode="predict")
    for bad, error in [(Y[:1], ValueError), (Y.astype(np.float32), TypeError), (None, TypeError)]:
        with pytest.raises(error, match="^Pool2D: expected dLdY"): layer.backward(bad)
    assert layer.cache["Y"] is Y
    np.testing.assert_array_equal(layer.backward(np.ones_like(Y)).sum(), Y.size)


@pytest.mark.parametrize("arguments", [dict(kernel_shape=0), dict(kernel_shape=2.0), dict(kernel_shape=(2, 2, 2)), dict(kernel_shape="2"), dict(kernel_shape=2, stride=0),
                                       dict(kernel_shape=2, stride=(1, -1)), dict(kernel_shape=2, pad=-1), dict(kernel_shape=2, pad="full"), dict(kernel_shape=2, pad=((1, 1),)),
                                       dict(kernel_shape=2, mode="mean"), dict(kernel_shape=True), dict(kernel_shape=2, ceil_mode=1), dict(kernel_shape="whole"),
                                       dict(kernel_shape="global", stride=2), dict(kernel_shape="global", pad=1), dict(kernel_shape="global", pad="same"),
                                       dict(kernel_shape="global", ceil_mode=True)])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises((TypeError, ValueError), match="^Pool2D: expected"): Pool2D(**arguments)


def test_pads_that_torch_refuses_are_right_or_refused():
    "pad < kernel is always accepted; wider at the end only where the stride never goes there."
    assert pooled_shape("max_pool2d", (4, 4), (2, 2), (3, 3), ((1, 1), (1, 1))) == (2, 2)
    assert pooled_shape("max_pool2d", (4, 4), (1, 1), (3, 3), ((0, 2), (0, 2))) == (2, 2)
    with pytest.raises(ValueError, match="the last window is all padding"): pooled_shape("max_pool2d", (4, 4), (1, 1), (3, 3), ((0, 3), (0, 0)))
    with pytest.raises(ValueError, match="the first window is all padding"): pooled_shape("max_pool2d", (4, 4), (1, 1), (3, 3), ((0, 0), (1, 0)))


@beside_torch
def test_what_it_came_to(capsys):
    "Reports the random cases above."
    with capsys.disabled():
        for dtype in LARGEST: print(f"\npooling, {dtype}: {COMPARED[dtype]} comparisons with PyTorch, largest difference {LARGEST[dtype]:.1e}", end="")
