"""What layers take beside the usual: no bias, the pad of TensorFlow and Keras, whole images, images of other sizes, frozen batch norm; and what they say to arrays of another layout."""
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from scipy.signal import correlate

from hwnn.gradcheck import check_gradients
from hwnn.layers import BatchNorm1D, Conv2D, Dropout, Flatten, FullyConnected, LayerNorm, Pool2D, initialize_layer
from hwnn.layers.convolution import conv2d, conv2d_backward
from hwnn.layers.fully_connected import affine
from hwnn.layers.pooling import average_pool2d, average_pool2d_backward, global_pool2d, global_pool2d_backward, max_pool2d, max_pool2d_backward
from hwnn.layers.windows import pad_images, pad_pairs
from hwnn.models import NeuralNetwork

RANDOM = dict(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
DENSE, CONV = (lambda **more: FullyConnected(4, "tanh", **more), (7, 5)), (lambda **more: Conv2D(4, 3, "tanh", stride=2, **more), (3, 7, 6, 2))
rng = lambda: np.random.default_rng(0)


# No bias ----------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make,shape", [DENSE, CONV])
def test_without_a_bias_all_is_as_with_one_of_zero(make, shape, dtype):
    X = rng().normal(size=shape).astype(dtype)
    without, with_zero = make(bias=False), make()
    Y = without.forward(X)
    np.testing.assert_array_equal(Y, with_zero.forward(X))   # the same generator, and b starts at zero
    dY = np.cos(Y)
    np.testing.assert_array_equal(without.backward(dY), with_zero.backward(dY))
    np.testing.assert_array_equal(without.gradients["W"], with_zero.gradients["W"])
    assert list(without.parameters) == list(without.gradients) == ["W"] and "b" in with_zero.gradients
    assert {A.dtype for A in (Y, *without.parameters.values(), *without.gradients.values())} == {np.dtype(dtype)}


@pytest.mark.parametrize("make,shape", [DENSE, CONV])
def test_gradients_without_a_bias(make, shape):
    X, layer = rng().normal(size=shape), make(bias=False)
    dY = rng().normal(size=layer.forward(X).shape)
    dX = layer.backward(dY)
    assert check_gradients(layer.forward, dX, X, dY) < 1e-7
    assert check_gradients(layer.forward_with_param("W", X), layer.gradients["W"], layer.parameters["W"], dY) < 1e-7
    with pytest.raises(ValueError, match=re.escape("expected a parameter among ['W'], got 'b'")): layer.forward_with_param("b", X)


@pytest.mark.parametrize("make", [DENSE[0], CONV[0]])
def test_the_setting_is_shown_and_checked(make):
    assert "bias=False)" in repr(make(bias=False)) and "bias=True)" in repr(make())
    for wrong in (None, 0, "no"):
        with pytest.raises(TypeError, match="expected bias as True or False"): make(bias=wrong)


def test_a_network_without_biases_is_trained_and_kept(tmp_path):
    def network(): return NeuralNetwork([initialize_layer("conv2d", n_out=3, kernel_shape=3, activation="relu", bias=False), BatchNorm1D(), Pool2D("global", "average"),
                                         Flatten(), FullyConnected(2, "softmax", bias=False)], seed=1)
    X, Y = rng().normal(size=(8, 6, 6, 1)), np.eye(2)[np.arange(8) % 2]
    net = network()
    for _ in range(3):
        net.backward(Y, net.forward(X))
        net.update(0)
    assert [list(layer.parameters) for layer in net.layers] == [["W"], ["gamma", "beta"], [], [], ["W"]]
    conv, dense = (next(line.split() for line in net.summary().splitlines() if name in line) for name in ("Conv2D", "FullyConnected"))
    assert str(3*3*1*3) in conv and str(3*2) in dense
    net.save(tmp_path/"net.safetensors")
    other = network()
    other.load(tmp_path/"net.safetensors")
    np.testing.assert_array_equal(other.predict(X), net.predict(X))


# The pad of TensorFlow and Keras ----------------------------------------------------------------------------------------------------------

def sides(n, k, s):
    "As TensorFlow's documentation states it, by the remainder."
    total = max(k - (n % s or s), 0)
    return total//2, total - total//2


@settings(max_examples=500, **RANDOM)
@given(*[st.tuples(*[st.integers(1, top)]*2) for top in (30, 9, 6)])
def test_same_upper_is_the_rule_of_tensorflow(shape, kernel, stride):
    pad = pad_pairs("demo", "same_upper", kernel, stride, shape)
    assert pad == tuple(map(sides, shape, kernel, stride))
    X = np.random.default_rng(0).normal(size=(1, *shape, 1))
    assert max_pool2d(X, kernel, stride, "same_upper")[0].shape[1:3] == tuple(-(-n//s) for n, s in zip(shape, stride))
    assert pad_pairs("demo", "same_upper", kernel) == pad_pairs("demo", "same", kernel) == pad_pairs("demo", "same_upper", kernel, (1, 1), shape)


@settings(max_examples=60, **RANDOM)
@given(*[st.tuples(*[st.integers(1, top)]*2) for top in (9, 4, 4)])
def test_same_upper_by_scipy(shape, kernel, stride):
    X, W, b = (np.random.default_rng(1).normal(size=s) for s in ((2, *shape, 2), (*kernel, 2, 3), (1, 3)))
    padded = np.pad(X, ((0, 0), *map(sides, shape, kernel, stride), (0, 0)))
    expected = [[correlate(padded[n], W[..., m], "valid")[::stride[0], ::stride[1], 0] + b[0, m] for m in range(3)] for n in range(2)]
    np.testing.assert_allclose(conv2d(X, W, b, stride, "same_upper")[0], np.moveaxis(expected, 1, 3), atol=1e-12)


@pytest.mark.parametrize("make", [lambda pad: Conv2D(3, (3, 4), "tanh", stride=(2, 3), pad=pad), lambda pad: Pool2D((3, 4), "average", (2, 3), pad),
                                  lambda pad: Pool2D((3, 4), "max", (2, 3), pad), lambda pad: Pool2D((3, 4), "average", (2, 3), pad, count_include_pad=False)])
def test_the_pad_follows_the_image(make):
    "One layer on images of several sizes: as one with these zeros in numbers, and the gradients are right."
    layer = make("same_upper")
    assert "pad='same_upper'" in repr(layer)
    for rows, cols in ((8, 7), (7, 9), (5, 5), (8, 7)):
        X = np.random.default_rng(rows).normal(size=(2, rows, cols, 2))
        other = make((sides(rows, 3, 2), sides(cols, 4, 3)))
        Y = layer.forward(X)
        other.rng = np.random.default_rng(0)
        other.forward(X)
        other.parameters.update(layer.parameters)
        np.testing.assert_array_equal(Y, other.forward(X))
        assert Y.shape[1:3] == (-(-rows//2), -(-cols//3))
        dY = np.random.default_rng(cols).normal(size=Y.shape)
        assert check_gradients(layer.forward, layer.backward(dY), X, dY) < 1e-7


def test_a_pad_by_name_is_not_put_on_an_image():
    with pytest.raises(ValueError, match=re.escape("pad_images: expected pad as ((top, bottom), (left, right)), got 'same'")): pad_images(np.ones((1, 3, 3, 1)), "same")


# The whole image --------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-14), (np.float32, 1e-6)])
@pytest.mark.parametrize("mode,fn,back", [("max", max_pool2d, max_pool2d_backward), ("average", average_pool2d, average_pool2d_backward)])
def test_the_whole_image_as_one_window(mode, fn, back, dtype, tolerance):
    layer = Pool2D("global", mode)
    for rows, cols in ((4, 4), (7, 3), (1, 1), (1, 6), (12, 12)):
        X = np.random.default_rng(rows).normal(size=(3, rows, cols, 5)).astype(dtype)
        for A in (X, np.round(X)):   # with ties
            Y, (out, ctx) = layer.forward(A), fn(A, (rows, cols))
            assert Y.shape == (3, 1, 1, 5) and Y.dtype == dtype and layer.n_out == 5
            np.testing.assert_allclose(Y, out, rtol=tolerance, atol=tolerance)
            dY = np.random.default_rng(cols).normal(size=Y.shape).astype(dtype)
            dX = layer.backward(dY)
            assert dX.dtype == dtype and layer.backward(dY, skip_dX=True) is None
            np.testing.assert_allclose(dX, back(dY, ctx), rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(dX.sum(axis=(1, 2)), dY[:, 0, 0], rtol=100*tolerance, atol=10*tolerance)   # nothing is lost
        if dtype == np.float64:
            layer.forward(X)
            assert check_gradients(layer.forward, layer.backward(dY), X, dY) < 1e-7


def test_the_whole_image_with_a_nan():
    X = np.arange(8.0).reshape(1, 2, 2, 2)
    X[0, 1, 0, 0] = np.nan
    Y, ctx = global_pool2d(X, "max")
    np.testing.assert_array_equal(Y.ravel(), [np.nan, 7])
    dX = global_pool2d_backward(np.ones_like(Y), ctx)
    assert np.isnan(dX[..., 0]).all() and dX[..., 1].sum() == 1


# Images of other sizes --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name,make", {
    "convolution": lambda: Conv2D(3, 3, "relu", stride=2), "pooling": lambda: Pool2D(2, stride=2), "hanging over": lambda: Pool2D(3, "average", 2, ceil_mode=True),
    "global": lambda: Pool2D("global"), "batch norm": BatchNorm1D, "layer norm": LayerNorm, "dropout": lambda: Dropout(0.3)}.items())
def test_a_layer_takes_images_of_other_sizes(name, make):
    layer, kept = make(), None
    for mode in ("train", "test"):
        for rows, cols in ((8, 8), (5, 11), (12, 6)):
            X = np.random.default_rng(rows).normal(size=(2, rows, cols, 4))
            Y = layer.forward(X, mode)
            kept = kept or {key: (p, p.copy()) for key, p in layer.parameters.items()}
            assert layer.backward(np.ones_like(Y)).shape == X.shape
            assert all(layer.parameters[key] is p and (p == before).all() for key, (p, before) in kept.items())
            alone = [layer.forward(X[n:n + 1], "test") for n in range(2)]
            np.testing.assert_allclose(layer.forward(X, "test"), np.concatenate(alone), rtol=1e-12, atol=1e-12)


# Batch norm and dropout that are frozen ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 5, 3), (1, 3)])
def test_batch_norm_hands_gradients_back_in_test_mode(shape):
    "As a frozen layer has it: the statistics are constants, and neither they nor the parameters move. A batch of one will do."
    layer = BatchNorm1D()
    layer.forward(3*rng().normal(size=(20, *shape[1:])) + 5)
    layer.parameters.update(gamma=np.array([[1.0, -2, 0.5]]), beta=np.array([[0.0, 1, 2]]))
    state = {name: q.copy() for name, q in layer.state.items()}
    X, dY = np.random.default_rng(1).normal(size=(2, *shape))
    forward = lambda X: layer.forward(X, "test")
    layer.forward(X, "test")
    dX = layer.backward(dY)
    gradients = {name: g.copy() for name, g in layer.gradients.items()}
    np.testing.assert_allclose(dX, dY*layer.parameters["gamma"]/np.sqrt(state["running_var"] + layer.eps), rtol=1e-12)
    assert check_gradients(forward, dX, X, dY) < 1e-7
    for name, gradient in gradients.items(): assert check_gradients(layer.forward_with_param(name, X, "test"), gradient, layer.parameters[name], dY) < 1e-7
    assert layer.backward(dY, skip_dX=True) is None
    for name, q in state.items(): np.testing.assert_array_equal(layer.state[name], q)


def test_the_mode_of_the_last_forward_pass_counts():
    X, layer = rng().normal(size=(6, 3)), BatchNorm1D()
    dY = np.random.default_rng(1).normal(size=X.shape)
    layer.forward(X)
    first = layer.backward(dY)
    layer.forward(X, "test")
    assert np.abs(layer.backward(dY) - first).max() > 0.01
    layer.forward(X)
    np.testing.assert_array_equal(layer.backward(dY), first)


def test_dropout_in_test_mode_hands_on_all():
    X, layer = rng().normal(size=(6, 3)), Dropout(0.9)
    assert layer.forward(X, "test") is X
    dY = np.ones_like(X)
    np.testing.assert_array_equal(layer.backward(dY), dY)


# What layers say to other shapes ----------------------------------------------------------------------------------------------------------

def seen(layer, *shape):
    layer.forward(np.zeros(shape))
    return layer

zeros = np.zeros
MESSAGES = {
    "channels first, known": (lambda: seen(Conv2D(4, 3, "relu"), 2, 6, 6, 3).forward(zeros((2, 3, 32, 32))),
                              "Conv2D: expected input (batch, rows, cols, 3), got (2, 3, 32, 32); where the channels come first, X.transpose(0, 2, 3, 1) puts them last"),
    "channels first, colour": (lambda: Conv2D(4, 3, "relu").forward(zeros((2, 3, 32, 32))), "Conv2D: expected input (batch, rows, cols, channels), got (2, 3, 32, 32); where the channels come first"),
    "channels first, grey": (lambda: Conv2D(4, 5, "relu").forward(zeros((2, 1, 28, 28))), "X.transpose(0, 2, 3, 1)"),
    "channels first, no kernel fits": (lambda: Conv2D(4, 3, "relu", pad="valid").forward(zeros((2, 1, 30, 40))), "no larger than the padded input (1, 30), got (3, 3); where the channels come first"),
    "channels first, pooling": (lambda: Pool2D(2, stride=2).forward(zeros((2, 1, 28, 28))), "Pool2D: expected a kernel no larger than the padded input (1, 28), got (2, 2); where the channels come first"),
    "rows to a convolution": (lambda: Conv2D(4, 3, "relu").forward(zeros((5, 784))), "Conv2D: expected input (batch, rows, cols, channels), got (5, 784); where each row holds an image, X.reshape(-1, rows, cols, channels)"),
    "rows to pooling": (lambda: Pool2D(2).forward(zeros((5, 784))), "Pool2D: expected input (batch, rows, cols, channels), got (5, 784); where each row holds an image, X.reshape"),
    "one image": (lambda: seen(Conv2D(4, 3, "relu"), 2, 6, 6, 3).forward(zeros((6, 6, 3))), "got (6, 6, 3); X[None] is a batch of one image, X[..., None] are images of one channel"),
    "images to a dense layer": (lambda: FullyConnected(4, "relu").forward(zeros((2, 4, 4, 8))), "FullyConnected: expected input (batch, features), got (2, 4, 4, 8); a Flatten layer before this one makes rows of it"),
    "images to a known one": (lambda: seen(FullyConnected(4, "relu"), 2, 3).forward(zeros((2, 4, 4, 8))), "FullyConnected: expected input (batch, 3), got (2, 4, 4, 8); a Flatten"),
    "one example": (lambda: FullyConnected(4, "relu").forward(zeros(3)), "FullyConnected: expected input (batch, features), got (3,); X[None] is a batch of one example"),
    "dense weights of PyTorch": (lambda: affine(zeros((5, 4)), zeros((3, 4)), zeros((1, 3))), "affine: expected W (4, n_out), got (3, 4); W.T brings weights from PyTorch, (n_out, n_in), into this form"),
    "other dense weights": (lambda: affine(zeros((5, 4)), zeros((3, 2)), zeros((1, 2))), "affine: expected W (4, n_out), got (3, 2)"),
    "a kernel of PyTorch": (lambda: conv2d(zeros((2, 9, 9, 3)), zeros((8, 3, 5, 5)), zeros((1, 8)), 1, 0), "(2, 9, 9, 3), (8, 3, 5, 5), (1, 8); from PyTorch's layout to this one leads W.transpose(2, 3, 1, 0)"),
    "one that fits but for b": (lambda: conv2d(zeros((2, 9, 9, 3)), zeros((8, 3, 3, 3)), zeros(8), 1, 0), "(2, 9, 9, 3), (8, 3, 3, 3), (8,); from PyTorch's layout to this one leads W.transpose(2, 3, 1, 0)"),
    "another kernel": (lambda: conv2d(zeros((2, 9, 9, 3)), zeros((3, 3, 4, 8)), zeros((1, 8)), 1, 0), "conv2d: expected W (k_h, k_w, 3, out_channels), got (3, 3, 4, 8)"),
    "another bias": (lambda: conv2d(zeros((2, 9, 9, 3)), zeros((5, 5, 3, 8)), zeros((1, 7)), 1, 0), "conv2d: expected b (1, 8), got (1, 7)"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name):
    call, words = MESSAGES[name]
    with pytest.raises(ValueError, match=re.escape(words)): call()


@pytest.mark.parametrize("turn", ["W", "X", "X and W"])
def test_the_remedy_is_right(turn, torch):
    "Images and kernels of PyTorch, after the transposes that the message names, give what PyTorch gives."
    X, W, b = (rng().normal(size=s) for s in ((2, 3, 9, 9), (8, 3, 5, 5), 8))
    right = torch.nn.functional.conv2d(*map(torch.tensor, (X, W, b))).numpy().transpose(0, 2, 3, 1)
    given = dict(X=X if "X" in turn else X.transpose(0, 2, 3, 1), W=W if "W" in turn else W.transpose(2, 3, 1, 0))
    with pytest.raises(ValueError) as e: conv2d(**given, b=b[None], stride=1, pad=0)
    turned = {code[0]: eval(code, dict(given)) for code in str(e.value).split("leads ")[1].split(" and ")}
    assert set(turned) == set(turn.split(" and "))
    np.testing.assert_allclose(conv2d(**given | turned, b=b[None], stride=1, pad=0)[0], right, atol=1e-12)


@pytest.mark.parametrize("shape,kernel", [((2, 3, 3, 64), 3), ((2, 1, 64, 64), (1, 3)), ((2, 3, 20, 7), 3), ((2, 1, 5, 5), 3), ((2, 28, 28, 1), 3), ((2, 32, 32, 32), 3), ((2, 3, 64, 16), (3, 5))])
def test_small_maps_and_signals_are_no_mistake(shape, kernel):
    "Maps of three rows after pooling, and signals, as images of one row or three: what is in the right layout is taken."
    assert Conv2D(2, kernel, "relu").forward(np.zeros(shape)).shape == (*shape[:3], 2)


def test_a_refused_image_leaves_no_trace():
    for layer, shape in ((Conv2D(2, 3, "relu"), (2, 3, 32, 32)), (Conv2D(2, 3, "relu"), (2, 784)), (FullyConnected(2, "relu"), (2, 4, 4, 3)), (Pool2D("global"), (2, 784))):
        with pytest.raises(ValueError): layer.forward(np.zeros(shape))
        assert layer.n_in is None and not layer.parameters and not layer.cache


def test_the_kind_of_numbers_comes_first():
    "Before a remedy for the shape, what turns integers into floats."
    for layer, shape in ((Conv2D(2, 3, "relu"), (2, 3, 32, 32)), (Pool2D(2), (2, 784)), (FullyConnected(2, "relu"), (2, 4, 4, 3))):
        with pytest.raises(TypeError, match="expected input of dtype float32 or float64, got uint8"): layer.forward(np.zeros(shape, np.uint8))
        with pytest.raises(TypeError, match="expected input as a NumPy array, got list"): layer.forward(np.zeros(shape).tolist())
