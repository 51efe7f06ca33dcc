"""conv2d and its gradients against PyTorch and SciPy, for thousands of random shapes; HWNN_LONG=1 makes it 50,000."""
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from scipy.signal import correlate

from hwnn.layers.convolution import Conv2D, conv2d, conv2d_backward
from hwnn.layers.windows import windows

LONG = os.environ.get("HWNN_LONG") == "1"
COMMON = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def cases(draw, max_stride=4):
    "Sizes, stride and padding in which the kernel fits: often wider than the kernel, and different on every side."
    size = lambda top: draw(st.integers(1, top))
    rows, cols = size(7), size(7)
    pad = draw(st.one_of(st.just(((0, 0), (0, 0))), st.tuples(*[st.tuples(st.integers(0, 5), st.integers(0, 5))]*2)))
    kernel = tuple(size(min(5, n + sum(p))) for n, p in zip((rows, cols), pad))
    return dict(shape=(size(3), rows, cols, size(3)), kernel=kernel, n_out=size(3), stride=(size(max_stride), size(max_stride)), pad=pad,
                seed=draw(st.integers(0, 2**32 - 1)))


def arrays(case):
    "X, W and b in float64, and a gradient at the output."
    rng = np.random.default_rng(case["seed"])
    X, W = rng.normal(size=case["shape"]), rng.normal(size=(*case["kernel"], case["shape"][3], case["n_out"]))
    b = rng.normal(size=(1, case["n_out"]))
    out = [(n + sum(p) - k)//s + 1 for n, p, k, s in zip(case["shape"][1:3], case["pad"], case["kernel"], case["stride"])]
    return X, W, b, rng.normal(size=(len(X), *out, case["n_out"]))


def ours(X, W, b, dZ, case):
    Z, ctx = conv2d(X, W, b, case["stride"], case["pad"])
    return Z, *conv2d_backward(dZ, ctx)


def torch_results(torch, X, W, b, dZ, case):
    X, W, b = (torch.tensor(a, requires_grad=True) for a in (X, W, b))
    (top, bottom), (left, right) = case["pad"]
    padded = torch.nn.functional.pad(X.permute(0, 3, 1, 2), (left, right, top, bottom))
    Z = torch.nn.functional.conv2d(padded, W.permute(3, 2, 0, 1).contiguous(), b[0], stride=case["stride"]).permute(0, 2, 3, 1)
    Z.backward(torch.tensor(dZ))
    return [a.numpy() for a in (Z.detach(), X.grad, W.grad, b.grad)]


def distance(a, b): return np.abs(a - b).max()/max(1.0, np.abs(b).max())


def test_pytorch_agrees(torch):
    worst = {np.float64: 0.0, np.float32: 0.0}
    count = 0

    @settings(max_examples=50_000 if LONG else 2_000, derandomize=not LONG, **COMMON)
    @given(cases())
    def check(case):
        nonlocal count
        count += 1
        given_arrays = arrays(case)
        theirs = torch_results(torch, *given_arrays, case)
        for dtype, limit in ((np.float64, 1e-10), (np.float32, 1e-4)):
            for a, b in zip(ours(*(g.astype(dtype) for g in given_arrays), case), theirs):
                assert a.shape == b.shape and a.dtype == dtype
                worst[dtype] = max(worst[dtype], distance(a, b))
                assert distance(a, b) <= limit

    check()
    print(f"{count} cases, largest error {worst[np.float64]:.1e} in float64 and {worst[np.float32]:.1e} in float32")
    assert count >= 2_000


@settings(max_examples=300, derandomize=True, **COMMON)
@given(cases(max_stride=1))
def test_scipy_agrees(case):
    X, W, b, dZ = arrays(case)
    Z, dX, dW, _ = ours(X, W, b, dZ, case)
    X_padded = np.pad(X, ((0, 0), *case["pad"], (0, 0)))
    for n in range(len(X)):
        for m in range(case["n_out"]):
            # the channel axis of the kernel covers that of the image, so one place is left there
            assert distance(Z[n, ..., m], correlate(X_padded[n], W[..., m], "valid")[..., 0] + b[0, m]) <= 1e-10
    for c in range(X.shape[3]):
        for m in range(case["n_out"]):
            assert distance(dW[..., c, m], correlate(X_padded[..., c], dZ[..., m], "valid")[0]) <= 1e-10
        full = sum(correlate(dZ[..., m], W[None, ::-1, ::-1, c, m], "full") for m in range(case["n_out"]))
        (top, _), (left, _) = case["pad"]
        assert distance(dX[..., c], full[:, top:top + X.shape[1], left:left + X.shape[2]]) <= 1e-10


@pytest.mark.parametrize("dtype,limit", [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_pytorch_agrees_on_the_pad_of_keras(torch, dtype, limit):
    """Output and gradients with "same_upper", where the zeros are put on beforehand by the rule as TensorFlow states it:
    with a remainder r of n by s, max(k - r, 0) zeros, or max(k - s, 0) where there is none, and the odd one at the end."""
    def zeros(n, k, s):
        total = max(k - (n % s or s), 0)
        return total//2, total - total//2

    @settings(max_examples=300, derandomize=True, **COMMON)
    @given(cases())
    def check(case):
        case = case | dict(pad=tuple(map(zeros, case["shape"][1:3], case["kernel"], case["stride"])))
        given_arrays = arrays(case)
        assert given_arrays[3].shape[1:3] == tuple(-(-n//s) for n, s in zip(case["shape"][1:3], case["stride"]))
        theirs = torch_results(torch, *given_arrays, case)
        for a, b in zip(ours(*(g.astype(dtype) for g in given_arrays), case | dict(pad="same_upper")), theirs):
            assert a.shape == b.shape and a.dtype == dtype and distance(a, b) <= limit

    check()


def among_nan(A, kind):
    "A with the same values in the middle of a larger array of NaN: as a contiguous run, or as a slice of a larger image."
    if kind == "run":
        buffer = np.full(A.size + 2048, np.nan)
        inside = buffer[1024:1024 + A.size].reshape(A.shape)
    else:
        buffer = np.full([n + 6 for n in A.shape], np.nan)
        inside = buffer[tuple(slice(3, 3 + n) for n in A.shape)]
    inside[...] = A
    assert np.shares_memory(inside, buffer)
    return inside


@pytest.mark.parametrize("kind", ["run", "slice"])
def test_nothing_is_read_from_around_the_arrays(kind):
    @settings(max_examples=300, derandomize=True, **COMMON)
    @given(cases())
    def check(case):
        X, W, b, dZ = clean = arrays(case)
        poisoned = [among_nan(A, kind) for A in clean]
        for a, c in zip(ours(*poisoned, case), ours(*clean, case)): np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-12)
        if all(k <= n for k, n in zip(case["kernel"], X.shape[1:3])):
            view = windows(poisoned[0], case["kernel"], case["stride"])
            assert not np.isnan(view).any() and not view.flags.writeable
    check()


def test_a_view_does_not_outgrow_a_page_of_memory():
    # The last element ends where the buffer ends: one row too many would be read behind it.
    buffer = np.arange(2*7*6*3, dtype=np.float32)
    X = buffer.reshape(2, 7, 6, 3)
    for k_h, k_w, s_h, s_w in np.ndindex(7, 6, 7, 7):
        view = windows(X, (k_h + 1, k_w + 1), (s_h + 1, s_w + 1))
        low, high = np.lib.array_utils.byte_bounds(view)
        first, end = np.lib.array_utils.byte_bounds(buffer)
        assert first <= low and high <= end


@pytest.mark.parametrize("wrong, error", [
    (dict(X=np.zeros((2, 5, 5))), "X (batch, rows, cols, in_channels), got (2, 5, 5)"),
    (dict(X=np.zeros((0, 5, 5, 2))), "with at least one element, got (0, 5, 5, 2)"),
    (dict(X=np.zeros((2, 5, 5, 3))), "W (k_h, k_w, 3, out_channels), got (3, 3, 2, 4)"),
    (dict(W=np.zeros((6, 3, 2, 4))), "kernel no larger than the padded input (5, 5), got (6, 3)"),
    (dict(b=np.zeros(4)), "b (1, 4), got (4,)"),
    (dict(stride=0), "stride as an integer at least 1, got 0"),
    (dict(stride=(1, -2)), "stride as an integer at least 1, got -2"),
    (dict(pad=-1), "pad as an integer at least 0, got -1"),
    (dict(pad=((0, 0), (0, -3))), "pad as an integer at least 0, got -3"),
    (dict(pad="sane"), "did you mean 'same'?"),
    (dict(pad="same upper", stride=0), "stride as an integer at least 1, got 0"),
    (dict(W=np.zeros((4, 2, 3, 3))), "got (2, 5, 5, 2), (4, 2, 3, 3), (1, 4); from PyTorch's layout to this one leads W.transpose(2, 3, 1, 0)"),
    (dict(W=np.zeros((4, 2, 2, 2))), "got (2, 5, 5, 2), (4, 2, 2, 2), (1, 4); from PyTorch's layout to this one leads W.transpose(2, 3, 1, 0)"),
    (dict(X=np.zeros((2, 2, 5, 5))), "got (2, 2, 5, 5), (3, 3, 2, 4), (1, 4); from PyTorch's layout to this one leads X.transpose(0, 2, 3, 1)"),
    (dict(X=np.zeros((2, 2, 5, 5)), W=np.zeros((4, 2, 5, 5)), b=np.zeros(4)), "leads X.transpose(0, 2, 3, 1) and W.transpose(2, 3, 1, 0)"),
    (dict(pad=(1, 2, 3)), "got (1, 2, 3)")])
def test_wrong_values_are_named(wrong, error):
    arguments = dict(X=np.zeros((2, 5, 5, 2)), W=np.zeros((3, 3, 2, 4)), b=np.zeros((1, 4)), stride=1, pad=0) | wrong
    with pytest.raises(ValueError) as e: conv2d(**arguments)
    assert str(e.value).startswith("conv2d: expected") and error in str(e.value)


@pytest.mark.parametrize("wrong", [dict(stride=1.0), dict(stride="2"), dict(pad=1.5), dict(pad=None), dict(pad=((0, 0), (1, 0.5))), dict(stride=True),
                                   dict(X=np.zeros((2, 5, 5, 2), dtype=int)), dict(X=[[[[1.0]]]])])
def test_wrong_types_are_named(wrong):
    arguments = dict(X=np.zeros((2, 5, 5, 2)), W=np.zeros((3, 3, 2, 4)), b=np.zeros((1, 4)), stride=1, pad=0) | wrong
    with pytest.raises(TypeError, match="conv2d: expected"): conv2d(**arguments)


def seen_layer():
    "A layer that has seen images of 6 by 6 pixels with 3 channels."
    layer = Conv2D(3, 5, "relu", pad="valid")
    layer.forward(np.zeros((2, 6, 6, 3)))
    return layer


@pytest.mark.parametrize("call, error, message", [
    (lambda: seen_layer().forward(np.zeros((2, 6, 6, 1))), ValueError, "Conv2D: expected input (batch, rows, cols, 3), got (2, 6, 6, 1)"),
    (lambda: seen_layer().forward(np.zeros((6, 6, 3))), ValueError, "Conv2D: expected input (batch, rows, cols, 3), got (6, 6, 3)"),
    (lambda: seen_layer().forward(np.zeros((0, 6, 6, 3))), ValueError, "with at least one element"),
    (lambda: seen_layer().forward(np.zeros((2, 6, 6, 3), dtype=np.uint8)), TypeError, "divide 8-bit images by 255"),
    (lambda: Conv2D(3, 3, "relu", stride=0), ValueError, "Conv2D: expected stride as an integer at least 1, got 0"),
    (lambda: Conv2D(3, 3, "relu", pad=-1), ValueError, "Conv2D: expected pad as an integer at least 0, got -1"),
    (lambda: Conv2D(3, 3, "relu", pad="full"), ValueError, "Conv2D: expected pad to be one of 'same', 'valid', 'same_upper', got 'full'"),
    (lambda: Conv2D(3, (3, 2.5), "relu"), TypeError, "Conv2D: expected kernel_shape as an integer at least 1, got 2.5"),
    (lambda: Conv2D(None, 3, "relu"), TypeError, "Conv2D: expected n_out as an integer at least 1, got None"),
    (lambda: seen_layer().backward(np.zeros((2, 6, 6, 3))), ValueError, "Conv2D: expected dLdY (2, 2, 2, 3), got (2, 6, 6, 3)"),
    (lambda: Conv2D(3, 3, "relu").backward(np.zeros((1, 2, 2, 1))), RuntimeError, "Conv2D: expected a forward pass before backward"),
    (lambda: conv2d(np.zeros((1, 3, 3, 1)), np.zeros((2, 3, 2, 3)), np.zeros((1, 3)), 1, 0), ValueError,
     "conv2d: expected W (k_h, k_w, 1, out_channels), got (2, 3, 2, 3)")])
def test_the_layer_says_what_it_expected(call, error, message):
    with pytest.raises(error) as e: call()
    assert message in str(e.value)


def test_a_kernel_that_does_not_fit_makes_no_parameters():
    layer = Conv2D(3, 5, "relu", pad="valid")
    with pytest.raises(ValueError) as e: layer.forward(np.zeros((2, 4, 4, 1)))
    assert "Conv2D: expected a kernel no larger than the padded input (4, 4), got (5, 5)" in str(e.value)
    assert not layer.parameters and layer.n_in is None


def test_two_precisions_in_one_call_are_named():
    "NumPy would answer in float64 or in float32, depending on which array has which."
    X, W, b, dZ = np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), np.zeros((1, 1)), np.ones((1, 2, 2, 1))
    X32, W32, b32 = (a.astype(np.float32) for a in (X, W, b))
    _, ctx32 = conv2d(X32, W32, b32, 1, "valid")
    for call, message in [(lambda: conv2d(X32, W, b32, 1, 0), "conv2d: expected W of dtype float32, like X, got float64"),
                          (lambda: conv2d(X32, W32, b, 1, 0), "conv2d: expected b of dtype float32, like X, got float64"),
                          (lambda: conv2d_backward(dZ, ctx32), "conv2d_backward: expected dZ of dtype float32, like X, got float64")]:
        with pytest.raises(TypeError) as e: call()
        assert message in str(e.value)


def test_errors_come_before_anything_is_allocated():
    import tracemalloc
    X = np.zeros((8, 64, 64, 8))
    tracemalloc.start()
    with pytest.raises(ValueError): conv2d(X, np.zeros((90, 3, 8, 1)), np.zeros((1, 1)), 1, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
