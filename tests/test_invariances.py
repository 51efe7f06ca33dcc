"""What must not change a result, or change it in a known way, for random cases: order and grouping of a batch, translation, scale and shift, constants on logits; and what follows for gradients."""
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwnn.activations import ACTIVATIONS
from hwnn.all import *
from hwnn.losses import LOSSES

LAYERS = {
    "fully connected": (lambda: FullyConnected(3, "tanh"), (4,)), "convolution": (lambda: Conv2D(3, (2, 3), "sigmoid", stride=(2, 1), pad="same"), (5, 4, 2)),
    "maximum": (lambda: Pool2D(2, stride=2, pad=1), (5, 4, 2)), "average": (lambda: Pool2D(3, "average", 2, 1, False), (5, 4, 2)), "global": (lambda: Pool2D("global"), (5, 4, 2)),
    "layer norm": (LayerNorm, (4, 3)), "group norm": (lambda: GroupNorm(2), (3, 2, 4)), "flatten": (Flatten, (2, 3, 2)),
    "batch norm": (BatchNorm1D, (4, 3)), "batch norm in use": (BatchNorm1D, (4, 3))} | {f"{name} of rows": (lambda name=name: FullyConnected(5, name), (4,)) for name in ACTIVATIONS}
EACH_FOR_ITSELF = [name for name in LAYERS if name != "batch norm"]
seeds, sizes = st.integers(0, 2**32 - 1), st.integers(2, 7)


def random(n): return settings(max_examples=n, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def close(a, b, scale=1.0): np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10*scale)


def started(name, batch, rng):
    "A layer with random parameters, and its input."
    make, shape = LAYERS[name]
    layer, X = make(), rng.normal(size=(batch, *shape))
    layer.forward(rng.normal(size=(9, *shape)))
    for p in layer.parameters.values(): p[...] = rng.normal(size=p.shape)
    return layer, X, "test" if name.endswith("in use") else "train"


def passes(layer, X, dY, mode="train"):
    "Output, gradient at the input, and those of the parameters."
    Y, dX = layer.forward(X, mode), layer.backward(dY)
    return Y, dX, dict(layer.gradients)


# The examples of a batch --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", LAYERS)
def test_the_order_of_a_batch(name):
    "Outputs and gradients at the input change places with their examples; those of the parameters stay."
    @random(15)
    @given(sizes, seeds)
    def check(batch, seed):
        rng = np.random.default_rng(seed)
        layer, X, mode = started(name, batch, rng)
        dY, order = rng.normal(size=layer.forward(X, mode).shape), rng.permutation(batch)
        Y, dX, grads = passes(layer, X, dY, mode)
        Y_moved, dX_moved, grads_moved = passes(layer, X[order], dY[order], mode)
        close(Y_moved, Y[order])
        close(dX_moved, dX[order])
        for key in grads: close(grads_moved[key], grads[key])
    check()


@pytest.mark.parametrize("name", EACH_FOR_ITSELF)
def test_two_batches_in_one(name):
    "Outputs and gradients at the input stand one after the other; those of the parameters add up."
    @random(15)
    @given(sizes, sizes, seeds)
    def check(m, n, seed):
        rng = np.random.default_rng(seed)
        layer, X, mode = started(name, m + n, rng)
        dY = rng.normal(size=layer.forward(X, mode).shape)
        one, two = (passes(layer, X[part], dY[part], mode) for part in (slice(m), slice(m, None)))
        Y, dX, grads = passes(layer, X, dY, mode)
        close(Y, np.concatenate([one[0], two[0]]))
        close(dX, np.concatenate([one[1], two[1]]))
        for key in grads: close(grads[key], one[2][key] + two[2][key])
    check()


def targets(name, batch, rng):
    "Targets and predictions that the loss takes."
    Y, A = np.eye(4)[rng.integers(0, 4, batch)], rng.normal(size=(batch, 4))
    return (rng.normal(size=A.shape) if name in ("l2", "huber") else Y), (SoftMax()(A) if name == "cross_entropy" else A)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_of_batches(name, weighted):
    "The order counts nothing. The loss of two batches in one is the mean by their sizes, or weights, and so are the gradients."
    @random(30)
    @given(sizes, sizes, seeds)
    def check(m, n, seed):
        rng, loss = np.random.default_rng(seed), initialize_loss(name)
        Y, A = targets(name, m + n, rng)
        w, order = rng.uniform(0.1, 2, m + n) if weighted else None, rng.permutation(m + n)
        def both(rows): return [f(Y[rows], A[rows], None if w is None else w[rows]) for f in (loss.forward, loss.backward)]
        L, dA = both(slice(None))
        moved, dA_moved = both(order)
        close(moved, L)
        close(dA_moved, dA[order])
        parts = [slice(m), slice(m, None)]
        shares = [np.sum(np.ones(m + n) if w is None else w, where=np.isin(np.arange(m + n), np.arange(m + n)[part])) for part in parts]
        halves = [both(part) for part in parts]
        close(L, np.dot(shares, [half[0] for half in halves])/sum(shares))
        close(dA, np.concatenate([share/sum(shares)*half[1] for share, half in zip(shares, halves)]))
    check()


# Translation --------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [lambda k, s: Conv2D(3, k, "tanh", s, "valid"), lambda k, s: Pool2D(k, "max", s), lambda k, s: Pool2D(k, "average", s)], ids=["convolution", "maximum", "average"])
def test_translation(make):
    "Two cuts of one picture, some strides apart: where both see the same, outputs agree, and with the same gradients there the gradients agree."
    pairs = lambda top: st.tuples(*[st.integers(1, top)]*2)
    @random(60)
    @given(pairs(3), pairs(3), pairs(2), seeds)
    def check(kernel, stride, steps, seed):
        rng, moved = np.random.default_rng(seed), np.multiply(stride, steps)
        size = np.add(kernel, np.multiply(stride, np.add(steps, 2)))
        picture = rng.normal(size=(2, *(size + moved), 2))
        X, X_moved = picture[:, :size[0], :size[1]], picture[:, moved[0]:, moved[1]:]
        layer = make(kernel, stride)
        layer.forward(X)
        (i, j), (u, v) = steps, moved
        Y, Y_moved = layer.forward(X), layer.forward(X_moved)
        close(Y_moved[:, :-i, :-j], Y[:, i:, j:])
        dY, dY_moved = np.zeros((2, *Y.shape))
        dY[:, i:, j:] = dY_moved[:, :-i, :-j] = rng.normal(size=Y[:, i:, j:].shape)
        _, dX, grads = passes(layer, X, dY)
        _, dX_moved, grads_moved = passes(layer, X_moved, dY_moved)
        close(dX_moved[:, :-u, :-v], dX[:, u:, v:])
        for key in grads: close(grads_moved[key], grads[key])
    check()


# Scale and shift ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make, axes, of", [   # over which axes there is one mean, and where a shift and the eps of a layer stay out of the result
    (lambda eps: BatchNorm1D(eps=eps), (0, 1), (1, 1, 4)), (lambda eps: LayerNorm(eps), (2,), (6, 5, 1)), (lambda eps: GroupNorm(1, eps), (1, 2), (6, 1, 1))], ids=["batch norm", "layer norm", "group norm"])
def test_scale_and_shift(make, axes, of):
    """The input a*X + c, with eps times a*a, has the output of X and the gradient at X over a. So a gradient at the input sums to 0 over what is normalised
    together, and what X has in its direction is what eps keeps of the scale: eps/s**2 of the product of dY*gamma and X_hat."""
    @random(60)
    @given(st.integers(-6, 6), st.sampled_from([1e-8, 1e-3]), seeds)
    def check(exponent, eps, seed):
        rng, a = np.random.default_rng(seed), 10.0**(exponent/3)
        X, dY, c = rng.normal(size=(6, 5, 4)), rng.normal(size=(6, 5, 4)), rng.normal(size=of)
        gamma, beta = rng.normal(size=(2, 1, 4))
        def run(X, eps):
            layer = make(eps)
            layer.forward(X)
            layer.parameters.update(gamma=gamma, beta=beta)
            return *passes(layer, X, dY), layer
        Y, dX, grads, layer = run(X, eps)
        Y_moved, dX_moved, grads_moved, _ = run(a*X + a*c, a*a*eps)
        np.testing.assert_allclose(Y_moved, Y, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(a*dX_moved, dX, rtol=1e-7, atol=1e-8)
        for key in grads: np.testing.assert_allclose(grads_moved[key], grads[key], rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(dX.sum(axis=axes), 0, atol=1e-10)
        s2, X_hat = X.var(axis=axes, keepdims=True) + eps, layer.cache["X_hat"]
        np.testing.assert_allclose((X*dX).sum(axis=axes), (dY*gamma*X_hat*eps/s2).sum(axis=axes), rtol=1e-6, atol=1e-9)
    check()


# Constants on logits ------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmax_cross_entropy", "smoothed", "hinge", "cross_entropy_from_logits"])
def test_constants_on_logits(name):
    "A number added to all logits of a row changes nothing, and the gradient of a row sums to 0. With the classes in another order the gradient is in that order."
    @random(60)
    @given(sizes, st.floats(-200, 200), seeds)
    def check(batch, c, seed):
        rng = np.random.default_rng(seed)
        Y, Z = np.eye(5)[rng.integers(0, 5, batch)], 3*rng.normal(size=(batch, 5))
        order, shifted = rng.permutation(5), Z + c*rng.normal(size=(batch, 1))
        dY = rng.normal(size=Z.shape)
        if name == "softmax": both = lambda Y, Z, dY: (SoftMax()(Z), SoftMax().backward(Z, dY))
        elif name == "log_softmax": both = lambda Y, Z, dY: (log_softmax(Z), Z)
        elif name == "cross_entropy_from_logits": both = lambda Y, Z, dY: (cross_entropy_from_logits(Y, Z), cross_entropy_from_logits_backward(Y, Z))
        else:
            loss = SoftmaxCrossEntropy(smoothing=0.2) if name == "smoothed" else initialize_loss(name)
            both = lambda Y, Z, dY: (loss.forward(Y, Z), loss.backward(Y, Z))
        def along(A): return A[:, order] if np.ndim(A) else A
        value, gradient = both(Y, Z, dY)
        other, other_gradient = both(Y, shifted, dY)
        moved, moved_gradient = both(Y[:, order], Z[:, order], dY[:, order])
        np.testing.assert_allclose(moved, along(value), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(other, value, rtol=1e-10, atol=1e-10)
        if name == "log_softmax": return
        np.testing.assert_allclose(other_gradient, gradient, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-13)
        np.testing.assert_allclose(moved_gradient, along(gradient), rtol=1e-12, atol=1e-14)
    check()


def test_a_network_has_them_too():
    "The order of the batch and constants on the last bias change neither loss nor gradients."
    @random(20)
    @given(st.floats(-50, 50), seeds)
    def check(c, seed):
        rng = np.random.default_rng(seed)
        X, Y, order = rng.normal(size=(8, 6, 5, 2)), np.eye(3)[rng.integers(0, 3, 8)], rng.permutation(8)
        net = NeuralNetwork([Conv2D(3, 3, "relu"), BatchNorm1D(), Pool2D(2, stride=2), Flatten(), FullyConnected(3, "softmax")], seed=int(seed % 1000))
        def gradients(X, Y): return net.backward(Y, net.forward(X)), [g.copy() for layer in net.layers for g in layer.gradients.values()]
        loss, grads = gradients(X, Y)
        moved, grads_moved = gradients(X[order], Y[order])
        net.layers[-1].parameters["b"] += c
        lifted, grads_lifted = gradients(X, Y)
        for L, gs in ((moved, grads_moved), (lifted, grads_lifted)):
            np.testing.assert_allclose(L, loss, rtol=1e-9)
            for a, b in zip(gs, grads, strict=True): np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    check()
