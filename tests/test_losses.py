"""Losses: the weights of examples and classes, extreme numbers, and what is said to wrong arguments."""
import json
import math
import re

import numpy as np
import pytest

from hwnn.datasets import one_hot
from hwnn.losses import (LOSSES, L2, BinaryCrossEntropy, CrossEntropy, Huber, Loss, SoftmaxCrossEntropy, check_pair, check_weights, cross_entropy_and_gradient,
                         cross_entropy_from_logits, cross_entropy_from_logits_backward, initialize_loss, log_softmax, weigh)

Y = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
P = np.array([[1/4, 1/2, 1/4], [1/8, 1/8, 3/4]])
Z = np.log(P)
T = np.array([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
Yr, Yr_hat = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 2.0]])
column, zeros = np.array([[1.0], [0.0]]), np.zeros((2, 1))
numbers, names = np.array([1, 0]), np.array(["cat", "ant"])
w = np.array([3.0, 1.0])


def binary(Y, Y_hat): return BinaryCrossEntropy().forward(Y, Y_hat)


CASES = {
    # class numbers in place of one-hot rows
    "class numbers": (lambda: CrossEntropy().backward(numbers, P), TypeError, "CrossEntropy: expected labels of dtype float32 or float64, got int64; make rows of class numbers with one_hot(labels)"),
    "class numbers, logits": (lambda: cross_entropy_and_gradient(numbers, Z), TypeError, "cross_entropy_and_gradient: expected labels of dtype float32 or float64, got int64; make rows of class numbers with one_hot(labels)"),
    "class numbers, linear": (lambda: SoftmaxCrossEntropy().forward(numbers, Z), TypeError, "SoftmaxCrossEntropy: expected labels of dtype float32 or float64, got int64; make rows of class numbers with one_hot(labels)"),
    "class numbers, column": (lambda: CrossEntropy().forward(numbers[:, None], P), TypeError, "got int64; make rows of class numbers with one_hot(labels.ravel())"),
    "class numbers as floats": (lambda: CrossEntropy().forward(numbers + 0.0, P), ValueError, "CrossEntropy: expected labels (2, 3), got (2,); make rows of class numbers with one_hot(labels.astype(int))"),
    "class numbers, list": (lambda: CrossEntropy().forward([1, 0], P), TypeError, "CrossEntropy: expected labels as a NumPy array, got list; make rows of class numbers with one_hot(labels)"),
    "class names": (lambda: CrossEntropy().forward(names, P), TypeError, "got <U3; make rows of class numbers with one_hot(np.unique(labels, return_inverse=True)[1])"),
    "class numbers, l2": (lambda: L2().forward(numbers, P), TypeError, "L2: expected targets of dtype float32 or float64, got int64; make rows of class numbers with one_hot(labels)"),
    "one-hot integers": (lambda: CrossEntropy().forward(Y.astype(int), P), TypeError, "CrossEntropy: expected labels of dtype float32 or float64, got int64; convert them with .astype(np.float32)"),
    "one-hot truths": (lambda: binary(column == 1, zeros), TypeError, "expected targets of dtype float32 or float64, got bool; convert them with .astype(np.float32)"),
    # numbers of a regression without their second axis
    "targets (n,)": (lambda: L2().forward(w, zeros), ValueError, "L2: expected targets (2, 1), got (2,); make a column of them with Y[:, None]"),
    "integers (n,)": (lambda: Huber().backward(numbers, zeros), TypeError, "Huber: expected targets of dtype float32 or float64, got int64; make a column of them with Y[:, None].astype(np.float32)"),
    "answers (n,)": (lambda: binary(w, zeros), ValueError, "BinaryCrossEntropy: expected targets (2, 1), got (2,); make a column of them with Y[:, None]"),
    "targets, list": (lambda: L2().forward([[1.0], [2.0]], zeros), TypeError, "L2: expected targets as a NumPy array, got list; convert it with np.array(Y, dtype=np.float32)"),
    "neither": (lambda: L2().forward(w + 0.5, Yr_hat), ValueError, "L2: expected targets (2, 2), got (2,)"),
    "another batch": (lambda: L2().forward(Yr.T[:1], Yr_hat), ValueError, "L2: expected targets (2, 2), got (1, 2)"),
    "predictions (n,)": (lambda: L2().forward(w, w), ValueError, "L2: expected predictions (batch, features), got (2,)"),
    # labels and predictions
    "not one-hot": (lambda: cross_entropy_from_logits(P, Z), ValueError, "expected one-hot labels, one 1 in each row, got [0.25, 0.5, 0.25] in row 0"),
    "not one-hot, both": (lambda: cross_entropy_and_gradient(P, Z), ValueError, "cross_entropy_and_gradient: expected one-hot labels"),
    "not one-hot, linear": (lambda: SoftmaxCrossEntropy().forward(P, Z), ValueError, "SoftmaxCrossEntropy: expected one-hot labels"),
    "smoothed by hand": (lambda: CrossEntropy(smoothing=0.1).forward(T, P), ValueError, "CrossEntropy: expected one-hot labels, one 1 in each row, got [0.1, 0.8, 0.1] in row 0"),
    "logits": (lambda: CrossEntropy().forward(Y, -Z - 2), ValueError,
               "as probabilities, between 0 and 1, got -0.613706; for logits of a linear last layer there is SoftmaxCrossEntropy, as a function cross_entropy_from_logits"),
    "one row": (lambda: log_softmax(Z[0]), ValueError, "log_softmax: expected logits (batch, classes), got (3,)"),
    "answers -1 and 1": (lambda: binary(2*column - 1, zeros), ValueError, "BinaryCrossEntropy: expected targets between 0 and 1, got -1"),
    "answer nan": (lambda: binary(np.array([[math.nan], [1.0]]), zeros), ValueError, "expected targets between 0 and 1, got nan"),
    # arguments
    "smoothing 1": (lambda: CrossEntropy(smoothing=1), ValueError, "CrossEntropy: expected smoothing as a number at least 0 and below 1, got 1"),
    "smoothing, linear": (lambda: SoftmaxCrossEntropy(smoothing=-0.1), ValueError, "SoftmaxCrossEntropy: expected smoothing as a number at least 0"),
    "smoothing, logits": (lambda: cross_entropy_from_logits(Y, Z, -0.1), ValueError, "cross_entropy_from_logits: expected smoothing as a number at least 0"),
    "delta 0": (lambda: Huber(delta=0), ValueError, "Huber: expected delta as a number above 0 and below 1e+38, got 0"),
    "delta text": (lambda: Huber(delta="1"), TypeError, "Huber: expected delta as a number above 0 and below 1e+38, got '1'"),
    "argument": (lambda: initialize_loss({"name": "huber", "beta": 1}), TypeError, "Huber: expected arguments among 'name', 'delta', got 'beta'"),
    # weights
    "weights of another batch": (lambda: L2().forward(Yr, Yr_hat, np.ones(3)), ValueError, "L2: expected weights (2,), one for each example, got (3,)"),
    "weights in a column": (lambda: L2().backward(Yr, Yr_hat, np.ones((2, 1))), ValueError, "L2: expected weights (2,), one for each example, got (2, 1)"),
    "weights, list": (lambda: Huber().forward(Yr, Yr_hat, [1, 2]), TypeError, "Huber: expected weights as a NumPy array of numbers, got list"),
    "weights, truths": (lambda: Huber().forward(Yr, Yr_hat, np.array([True, False])), TypeError, "Huber: expected weights as a NumPy array of numbers, got bool"),
    "weights below 0": (lambda: cross_entropy_from_logits(Y, Z, 0, -w), ValueError, "cross_entropy_from_logits: expected weights at least 0 with a positive, finite sum, got the smallest -3 and the sum -4"),
    "weights 0": (lambda: cross_entropy_from_logits_backward(Y, Z, 0, 0*w), ValueError, "cross_entropy_from_logits_backward: expected weights at least 0 with a positive, finite sum, got the smallest 0"),
    "weights nan": (lambda: cross_entropy_and_gradient(Y, Z, 0, w*math.nan), ValueError, "cross_entropy_and_gradient: expected weights at least 0 with a positive, finite sum, got the smallest nan"),
    "weights infinite": (lambda: check_weights("L2", w*math.inf, 2), ValueError, "got the smallest inf and the sum inf"),
    "weights too large": (lambda: check_weights("L2", np.full(2, 1.7e308), 2), ValueError, "and the sum inf"),
    "class weight 0": (lambda: CrossEntropy(class_weights=[1, 0]), ValueError, "CrossEntropy: expected class_weights[1] as a number above 0 and below 1e+38, got 0"),
    "class weight text": (lambda: SoftmaxCrossEntropy(class_weights=["1"]), TypeError, "SoftmaxCrossEntropy: expected class_weights[0] as a number above 0"),
    "class weights by name": (lambda: CrossEntropy(class_weights="balanced"), TypeError, "CrossEntropy: expected class_weights as a list of numbers, one for each class, got 'balanced'"),
    "class weights of fewer": (lambda: SoftmaxCrossEntropy(class_weights=[1, 2]).forward(Y, Z), ValueError, "SoftmaxCrossEntropy: expected labels (batch, 2), as class_weights has 2 numbers, got (2, 3)"),
    "class weights, labels": (lambda: CrossEntropy(class_weights=[1, 2, 3]).example_weights(-Y), ValueError, "CrossEntropy: expected one-hot labels"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_said(case):
    call, kind, text = CASES[case]
    with pytest.raises(kind, match=re.escape(text)) as caught: call()
    assert "\n" not in str(caught.value)
    if case in ("neither", "another batch"): assert str(caught.value) == text   # nothing that would not help


@pytest.mark.parametrize("labels", [numbers, numbers[:, None], numbers + 0.0, names, numbers == 1, Y.astype(int)], ids=str)
def test_the_remedy_is_one(labels):
    "What the message says can be done, and then the labels are taken."
    with pytest.raises((TypeError, ValueError)) as caught: CrossEntropy().forward(labels, P[:, :2]/P[:, :2].sum(axis=1, keepdims=True) if labels.ndim == 1 or labels.shape[1] == 1 else P)
    way = re.search(r"with (\S.*)$", str(caught.value))[1]
    made = labels.astype(np.float32) if way.startswith(".") else eval(way, dict(labels=labels, one_hot=one_hot, np=np))
    assert math.isfinite(CrossEntropy().forward(made, np.full(made.shape, 0.5)))


def every_loss():
    "Each loss of the library with targets and predictions that fit."
    rng = np.random.default_rng(1)
    V, labels = rng.normal(size=(6, 3)), np.eye(3)[[0, 1, 2, 0, 0, 1]]
    soft = np.exp(log_softmax(V))
    for name, cls in LOSSES.items():
        if not cls.__module__.startswith("hwnn"): continue
        yield cls(), labels, soft if name == "cross_entropy" else V
    for kind, out in ((CrossEntropy, soft), (SoftmaxCrossEntropy, V)):
        yield kind(smoothing=0.1, class_weights=[1, 2, 0.5]), labels, out


@pytest.mark.parametrize("loss,targets,V", every_loss(), ids=lambda v: repr(v) if isinstance(v, Loss) else "")
def test_weights(loss, targets, V):
    "Equal weights are none; integers repeat; 0 leaves out, whatever stands there; their unit does not count; float32 stays."
    close = dict(rtol=1e-12, atol=1e-15)
    count = np.array([1, 0, 3, 2, 1, 1])
    rows = np.repeat(np.arange(6), count)
    np.testing.assert_allclose(loss.forward(targets, V, np.full(6, 0.3)), loss.forward(targets, V), **close)
    np.testing.assert_allclose(loss.backward(targets, V, np.full(6, 0.3)), loss.backward(targets, V), **close)
    L, dV = loss.forward(targets, V, count), loss.backward(targets, V, count)
    np.testing.assert_allclose(L, loss.forward(targets[rows], V[rows]), **close)
    long = loss.backward(targets[rows], V[rows])
    np.testing.assert_allclose(dV, [long[rows == n].sum(axis=0) for n in range(6)], **close)
    np.testing.assert_allclose(loss.backward(targets, V, count*1e-310), dV, rtol=1e-9)
    gone = V.copy()
    gone[1] = math.nan
    assert loss.forward(targets, gone, count) == L and (loss.backward(targets, gone, count) == dV).all()
    V32 = V.astype(np.float32)
    for weights in (count, count.astype(np.float32), count + 0.0):
        assert loss.backward(targets, V32, weights).dtype == np.float32 and type(loss.forward(targets, V32, weights)) is float


def test_functions_take_what_the_class_combines():
    loss, weights = SoftmaxCrossEntropy(smoothing=0.1, class_weights=(2, 5, 1)), np.array([0.5, 3.0])
    both = loss.example_weights(Y, weights)
    np.testing.assert_allclose(both, [2.5, 6.0])
    L, dZ = cross_entropy_and_gradient(Y, Z, 0.1, both)
    assert L == cross_entropy_from_logits(Y, Z, 0.1, both) == loss.forward(Y, Z, weights)
    assert (dZ == cross_entropy_from_logits_backward(Y, Z, 0.1, weights=both)).all() and (dZ == loss.backward(Y, Z, weights=weights)).all()
    np.testing.assert_allclose(CrossEntropy("c", 0.1, [2, 5, 1]).forward(Y, P, weights), L, rtol=1e-14)
    assert all(cls().example_weights(Y) is None for cls in (L2, Huber, CrossEntropy, SoftmaxCrossEntropy, BinaryCrossEntropy))
    assert weigh(Z, None) is Z


def test_class_weights_survive_json():
    loss = CrossEntropy(class_weights=np.array([1, 2.5], np.float32))
    assert repr(loss) == "CrossEntropy(smoothing=0.0, class_weights=(1.0, 2.5))"
    assert repr(initialize_loss(json.loads(json.dumps(vars(loss))))) == repr(loss)
    assert repr(CrossEntropy()) == "CrossEntropy(smoothing=0.0)"


def test_a_loss_of_ones_own():
    "With forward and backward alone it works without weights; with _forward and _backward the base class weighs."
    class Alone(Loss):
        def __init__(self): super().__init__("alone")
        def forward(self, Y, Y_hat): return float(np.abs(Y_hat - Y).mean())
        def backward(self, Y, Y_hat): return np.sign(Y_hat - Y)/Y.size

    class Weighed(Loss):
        def __init__(self): super().__init__("weighed")
        def _forward(self, Y, Y_hat): return np.abs(Y_hat - Y)
        def _backward(self, Y, Y_hat): return np.sign(Y_hat - Y)/Y.size

    alone, weighed = Alone(), Weighed()
    assert alone.forward(Yr, Yr_hat) == weighed.forward(Yr, Yr_hat) == 3/4
    assert (alone.backward(Yr, Yr_hat) == weighed.backward(Yr, Yr_hat)).all()
    assert weighed.forward(Yr, Yr_hat, w) == (3*2/2 + 1/2)/4 and (weighed.backward(Yr, Yr_hat, w) == [[3/8, 0], [1/8, 0]]).all()
    assert alone.example_weights(Yr) is None
    for method in ("forward", "backward"):
        with pytest.raises(NotImplementedError, match=rf"Loss: expected a method {method}\(Y, Y_hat\)"): getattr(Loss("none"), method)(Y, P)


def test_an_infinite_loss_of_weight_0_is_left_out():
    sure, wrong = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert CrossEntropy().forward(sure, wrong) == math.inf
    assert CrossEntropy().forward(sure, wrong, np.array([1.0, 0.0])) == 0
    assert (CrossEntropy().backward(sure, wrong, np.array([2.0, 0.0])) == [[-1, 0], [0, 0]]).all()


def test_underflow_is_no_error():
    "A probability of exp(-1000) is 0 in float64, and that is the right answer, also where NumPy is told to raise."
    far, nothing = np.array([[1000.0, 0.0], [0.0, 750.0]]), np.zeros((2, 2))
    tiny, apart = np.full((2, 2), 1e-310), np.array([[-3e38, 3e38]], np.float32)
    one, quarter, shared = np.array([[1.0, 0.0]]), tiny/4, tiny*[[3/8], [1/8]]
    with np.errstate(all="raise"):
        assert (log_softmax(far) == [[0.0, -1000.0], [-750.0, 0.0]]).all()
        assert cross_entropy_from_logits(np.eye(2), far) == SoftmaxCrossEntropy().forward(np.eye(2), far) == 0
        assert (cross_entropy_from_logits_backward(np.eye(2), far) == nothing).all()
        assert cross_entropy_from_logits(one, apart) == math.inf
        assert L2().forward(nothing, tiny) == 0 and (L2().backward(nothing, tiny) == quarter).all()
        assert L2().forward(nothing, tiny, w) == 0 and L2().forward(Yr, Yr_hat, np.array([1e300, 1e-300])) == 1
        weighed = L2().backward(nothing, tiny, np.array([3e-300, 1e-300]))
    np.testing.assert_allclose(weighed, shared, rtol=1e-9)


def test_the_binary_loss_far_out():
    far, opposite = np.array([[1000.0, -1000.0], [-1000.0, 1000.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    assert binary(opposite, far) == 1000
    assert (BinaryCrossEntropy().backward(opposite, far) == np.array([[1, -1], [-1, 1]])/4).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_as_in_pytorch(smoothing, weighted):
    "Class weights without smoothing, smoothing and weights of the examples alone, float32 and float64."
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    Z, k, c, u = rng.normal(size=(9, 4)), rng.integers(4, size=9), rng.uniform(0.2, 5, 4), rng.uniform(0, 2, 9)
    for dtype in (np.float64, np.float32):
        V = torch.tensor(Z.astype(dtype), requires_grad=True)
        settings = dict(weight=torch.tensor(c.astype(dtype))) if weighted and not smoothing else dict(label_smoothing=smoothing)
        ones = torch.nn.functional.cross_entropy(V, torch.tensor(k), reduction="none", **settings)
        if weighted and not smoothing: L, loss, ours = ones.sum()/torch.tensor(c.astype(dtype))[k].sum(), SoftmaxCrossEntropy(class_weights=c), None
        else:
            ours, loss = u if weighted else None, SoftmaxCrossEntropy(smoothing=smoothing)
            scale = torch.tensor((u if weighted else np.ones(9)).astype(dtype))
            L = (scale*ones).sum()/scale.sum()
        L.backward()
        rtol, atol = (1e-12, 1e-15) if dtype == np.float64 else (1e-5, 1e-6)
        np.testing.assert_allclose(loss.forward(np.eye(4)[k], Z.astype(dtype), ours), L.item(), rtol=rtol)
        np.testing.assert_allclose(loss.backward(np.eye(4)[k], Z.astype(dtype), ours), V.grad.numpy(), rtol=rtol, atol=atol)
    if weighted and not smoothing:
        there = torch.nn.CrossEntropyLoss(weight=torch.tensor(c))(torch.tensor(Z), torch.tensor(k)).item()
        np.testing.assert_allclose(SoftmaxCrossEntropy(class_weights=c).forward(np.eye(4)[k], Z), there, rtol=1e-12)
