"""CS231n's functions, group normalisation and the hinge loss: beside PyTorch and plain loops, in either precision, and what is refused."""
import copy

import numpy as np
import pytest

import hwnn.cs231n as cs
from hwnn.all import FullyConnected, NeuralNetwork, iris
from hwnn.gradcheck import check_gradients, relative_error
from hwnn.layers.groupnorm import GroupNorm, group_norm, group_norm_backward
from hwnn.losses import Hinge, initialize_loss

rng = np.random.default_rng(0)
x, w, b = rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(4, 3, 3, 2)), rng.normal(size=4)
rows, gamma, beta = rng.normal(2, 3, size=(7, 6)), rng.normal(size=6), rng.normal(size=6)
labels = rng.integers(6, size=7)
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}


def close(a, b, error=1e-11): assert relative_error(np.asarray(a), np.asarray(b)) < error


def leaf(torch, A): return torch.tensor(A, requires_grad=True)


def test_every_function_of_the_assignment_is_there():
    pairs = "affine relu affine_relu batchnorm spatial_batchnorm layernorm spatial_groupnorm dropout".split()
    naive = [f"{kind}_{way}_{speed}" for kind in ("conv", "max_pool") for way in ("forward", "backward") for speed in ("naive", "fast")]
    names = [f"{kind}_{way}" for kind in pairs for way in ("forward", "backward")] + naive
    names += "batchnorm_backward_alt softmax_loss svm_loss sgd sgd_momentum rmsprop adam".split()
    assert set(cs.__all__) == set(names)


@pytest.mark.parametrize("stride, pad", [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_convolution_beside_pytorch(torch, stride, pad):
    out, cache = cs.conv_forward_naive(x, w, b, {"stride": stride, "pad": pad})
    dout = np.random.default_rng(1).normal(size=out.shape)
    t = [leaf(torch, A) for A in (x, w, b)]
    theirs = torch.nn.functional.conv2d(*t, stride=stride, padding=pad)
    theirs.backward(torch.tensor(dout))
    for mine, other in zip((out, *cs.conv_backward_naive(dout, cache)), (theirs.detach(), *(A.grad for A in t))): close(mine, other)


@pytest.mark.parametrize("height, width, stride", [(2, 2, 2), (3, 2, 1), (2, 3, 2)])
def test_pooling_beside_pytorch(torch, height, width, stride):
    out, cache = cs.max_pool_forward_naive(x, {"pool_height": height, "pool_width": width, "stride": stride})
    dout = np.random.default_rng(1).normal(size=out.shape)
    t = leaf(torch, x)
    theirs = torch.nn.functional.max_pool2d(t, (height, width), stride)
    theirs.backward(torch.tensor(dout))
    close(out, theirs.detach())
    close(cs.max_pool_backward_naive(dout, cache), t.grad)


@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("X", [rows, rng.normal(2, 3, size=(4, 6, 3, 2))], ids=["rows", "images"])
def test_batch_normalisation_beside_pytorch(torch, mode, X):
    forward, backward = ((cs.batchnorm_forward, cs.batchnorm_backward) if X.ndim == 2
                         else (cs.spatial_batchnorm_forward, cs.spatial_batchnorm_backward))
    mean, var = np.random.default_rng(1).uniform(1, 2, size=(2, 6))
    param = {"mode": mode, "running_mean": mean, "running_var": var, "momentum": 0.7}
    out, cache = forward(X, gamma, beta, param)
    dout = np.random.default_rng(2).normal(size=X.shape)
    t, running = [leaf(torch, A) for A in (X, gamma, beta)], [torch.tensor(A) for A in (mean, var)]
    theirs = torch.nn.functional.batch_norm(t[0], *running, *t[1:], training=mode == "train", momentum=0.3, eps=1e-5)
    theirs.backward(torch.tensor(dout))
    for mine, other in zip((out, *backward(dout, cache)), (theirs.detach(), *(A.grad for A in t))): close(mine, other)
    close(param["running_mean"], running[0])
    n = X.size/6   # PyTorch's running variance is that of a sample, the assignment's that of the population
    expected = 0.7*var + 0.3*(running[1].numpy() - 0.7*var)/0.3*(n - 1)/n if mode == "train" else var
    close(param["running_var"], expected)
    assert cs.batchnorm_backward_alt is cs.batchnorm_backward


def test_layer_and_group_normalisation_beside_pytorch(torch):
    functional = torch.nn.functional
    images, dout = np.random.default_rng(1).normal(1, 2, size=(2, 3, 6, 4, 5))
    out, cache = cs.layernorm_forward(rows, gamma, beta, {"eps": 1e-3})
    t = [leaf(torch, A) for A in (rows, gamma, beta)]
    theirs = functional.layer_norm(t[0], (6,), *t[1:], eps=1e-3)
    theirs.backward(torch.tensor(rows))
    for mine, other in zip((out, *cs.layernorm_backward(rows, cache)), (theirs.detach(), *(A.grad for A in t))): close(mine, other)
    for G in (1, 2, 3, 6):
        for shape in ((6,), (1, 6, 1, 1)):
            parameters = gamma.reshape(shape), beta.reshape(shape)
            out, cache = cs.spatial_groupnorm_forward(images, *parameters, G, {})
            t = [leaf(torch, A) for A in (images, gamma, beta)]
            theirs = functional.group_norm(t[0], G, *t[1:])
            theirs.backward(torch.tensor(dout))
            dx, *others = cs.spatial_groupnorm_backward(dout, cache)
            close(out, theirs.detach()), close(dx, t[0].grad)
            for mine, other in zip(others, t[1:]):
                assert mine.shape == shape
                close(mine.ravel(), other.grad)


def test_losses_beside_pytorch(torch):
    for fn, theirs in ((cs.softmax_loss, torch.nn.CrossEntropyLoss()),
                       (cs.svm_loss, lambda t, y: 6*torch.nn.MultiMarginLoss()(t, y))):
        t = leaf(torch, rows)
        expected = theirs(t, torch.tensor(labels))
        expected.backward()
        loss, dx = fn(rows, labels)
        assert type(loss) is float
        close(loss, expected.item()), close(dx, t.grad)


def test_losses_far_out():
    far = np.array([[1000.0, 0.0], [1000.0, 0.0]])
    for fn in (cs.softmax_loss, cs.svm_loss):
        loss, dx = fn(far, np.array([1, 0]))
        assert np.isfinite(loss) and (dx == [[0.5, -0.5], [0, 0]]).all()


def test_update_rules_beside_pytorch(torch):
    for rule, config, make in (
            (cs.sgd, {"learning_rate": 0.1}, lambda t: torch.optim.SGD([t], lr=0.1)),
            (cs.sgd_momentum, {"learning_rate": 0.1, "momentum": 0.8}, lambda t: torch.optim.SGD([t], lr=0.1, momentum=0.8)),
            (cs.rmsprop, {"decay_rate": 0.9}, lambda t: torch.optim.RMSprop([t], lr=1e-2, alpha=0.9)),
            (cs.adam, {"learning_rate": 0.01}, lambda t: torch.optim.Adam([t], lr=0.01))):
        t, next_w = leaf(torch, w), w
        optimizer = make(t)
        for step in range(4):
            dw = np.sin(next_w + step)
            t.grad = torch.tensor(dw)
            optimizer.step()
            before, kept = next_w.copy(), config
            now, config = rule(next_w, dw, config)
            assert config is kept and (next_w == before).all()   # the dict that came, and the weights left alone
            next_w = now
            close(next_w, t.detach())


def test_update_rules_start_without_a_config():
    for rule, state in ((cs.sgd, set()), (cs.sgd_momentum, {"velocity"}), (cs.rmsprop, {"cache"}), (cs.adam, {"m", "v", "t"})):
        next_w, config = rule(w, w)
        assert state < set(config) and next_w.shape == w.shape
    state = {"m": np.zeros_like(w), "v": np.zeros_like(w), "t": 0}
    close(cs.adam(w, w, state)[0], cs.adam(w, w)[0])
    _, velocity = cs.sgd_momentum(w, w)
    close(velocity["velocity"], -0.01*w)   # added to the weights, so against the gradient


def test_students_caches_go_both_ways():
    "The caches whose form the assignment fixes: arguments alone, so a student's forward pass suits the backward pass from here."
    for out, cache in ((cs.affine_forward(x, w.reshape(4, -1).T[:90].repeat(5, 0), b)), cs.conv_forward_naive(x, w, b, {"stride": 1, "pad": 1})):
        assert cache[0] is x and len(cache) in (3, 4)
    conv = {"stride": 1, "pad": 1}
    assert cs.conv_forward_naive(x, w, b, conv)[1] == (x, w, b, conv) and cs.max_pool_forward_naive(x, POOL)[1] == (x, POOL)
    assert cs.relu_forward(x)[1] is x
    param = {"p": 0.5, "mode": "train"}
    kept, mask = cs.dropout_forward(x, param)[1]
    assert kept is param and mask.shape == x.shape
    dout = np.ones((2, 4, 6, 6))
    again = cs.conv_backward_naive(dout, (x, w, b, conv))   # made by hand
    for mine, other in zip(cs.conv_backward_naive(dout, cs.conv_forward_naive(x, w, b, conv)[1]), again): assert (mine == other).all()


def test_three_layers_as_layer_utils_puts_them_together():
    conv = {"stride": 1, "pad": 1}
    def forward(x, w, b):
        a, first = cs.conv_forward_fast(x, w, b, conv)
        s, second = cs.relu_forward(a)
        out, third = cs.max_pool_forward_fast(s, POOL)
        return out, (first, second, third)
    out, (first, second, third) = forward(x, w, b)
    dout = np.random.default_rng(1).normal(size=out.shape)
    grads = cs.conv_backward_fast(cs.relu_backward(cs.max_pool_backward_fast(dout, third), second), first)
    for i, grad in enumerate(grads):
        arrays = [x, w, b]
        fn = lambda v: forward(*arrays[:i], v, *arrays[i + 1:])[0]
        assert check_gradients(fn, grad, arrays[i], dout) < 1e-7


def test_dropout_draws_as_the_assignment_does():
    state = np.random.get_state()
    try:
        for seed in (0, 123):
            np.random.seed(7)
            out, (_, mask) = cs.dropout_forward(x, {"p": 0.7, "mode": "train", "seed": seed})
            after = np.random.random_sample()
            np.random.seed(7)
            assert after == np.random.random_sample()   # a seed leaves the global generator alone
            np.random.seed(seed)
            by_hand = (np.random.rand(*x.shape) < 0.7)/0.7
            assert (mask == by_hand).all() and (out == x*by_hand).all()
        np.random.seed(5)
        by_hand = (np.random.rand(*x.shape) < 0.4)/0.4
        np.random.seed(5)   # without one the numbers come from it, as there
        assert (cs.dropout_forward(x, {"p": 0.4, "mode": "train"})[0] == x*by_hand).all()
    finally: np.random.set_state(state)


def test_float32_stays_and_arguments_are_left_alone():
    f = lambda A: A.astype(np.float32)
    pool, conv, drop, momentum = POOL, {"stride": 1, "pad": 1}, {"p": 0.5, "mode": "train"}, np.float64(0.9)
    images, gains = rng.normal(size=(2, 6, 3, 4)), (f(gamma), f(beta))
    calls = [(cs.affine_forward, cs.affine_backward, (f(rows), f(rows.T), f(np.ones(7)))),
             (cs.conv_forward_naive, cs.conv_backward_naive, (f(x), f(w), f(b), conv)),
             (cs.max_pool_forward_naive, cs.max_pool_backward_naive, (f(x), pool)),
             (cs.batchnorm_forward, cs.batchnorm_backward, (f(rows), *gains, {"mode": "train", "momentum": momentum})),
             (cs.spatial_batchnorm_forward, cs.spatial_batchnorm_backward, (f(images), *gains, {"mode": "train"})),
             (cs.layernorm_forward, cs.layernorm_backward, (f(rows), *gains, {})),
             (cs.spatial_groupnorm_forward, cs.spatial_groupnorm_backward, (f(images), *gains, 3, {})),
             (cs.dropout_forward, cs.dropout_backward, (f(rows), drop)), (cs.relu_forward, cs.relu_backward, (f(rows),))]
    for forward, backward, arguments in calls:
        before = copy.deepcopy([A for A in arguments if isinstance(A, np.ndarray)])
        out, cache = forward(*arguments)
        grads = backward(np.ones_like(out), cache)
        grads = grads if isinstance(grads, tuple) else (grads,)
        assert {A.dtype for A in (out, *grads)} == {np.dtype(np.float32)}, forward
        assert out.flags.c_contiguous
        for A, old in zip([A for A in arguments if isinstance(A, np.ndarray)], before): assert (A == old).all()
        if "mode" in arguments[-1] and "p" not in arguments[-1]: assert arguments[-1]["running_mean"].dtype == np.float32
    for rule in (cs.sgd, cs.sgd_momentum, cs.rmsprop, cs.adam):
        assert rule(f(w), f(w), {"learning_rate": np.float64(0.1)})[0].dtype == np.float32
    for fn in (cs.softmax_loss, cs.svm_loss): assert fn(f(rows), labels)[1].dtype == np.float32


BAD = {
    "affine x": (lambda: cs.affine_forward(rows, gamma, beta), ValueError, r"affine_forward: expected w \(6, M\), got \(6,\)"),
    "affine dout": (lambda: cs.affine_backward(rows, (rows, rows.T, labels)), ValueError, r"affine_backward: expected dout \(7, 7\), got \(7, 6\)"),
    "a list": (lambda: cs.affine_forward([[1.0]], rows, beta), TypeError, "expected x as a NumPy array"),
    "channels last": (lambda: cs.conv_forward_naive(x.transpose(0, 2, 3, 1), w, b, {"stride": 1, "pad": 0}), ValueError,
                      r"conv_forward_naive: expected x \(N, 3, H, W\), got \(2, 6, 5, 3\)"),
    "one image": (lambda: cs.conv_forward_naive(x[0], w, b, {"stride": 1, "pad": 0}), ValueError, r"expected x \(N, 3, H, W\), got \(3, 6, 5\)"),
    "large kernel": (lambda: cs.conv_forward_naive(x[:, :, :2], w, b, {"stride": 1, "pad": 0}), ValueError, "conv_forward_naive: expected a kernel"),
    "stride": (lambda: cs.conv_forward_naive(x, w, b, {"stride": 0, "pad": 0}), ValueError, "conv_forward_naive: expected stride"),
    "no dict": (lambda: cs.conv_forward_naive(x, w, b, 1), TypeError, "conv_forward_naive: expected conv_param as a dict, got 1"),
    "no key": (lambda: cs.max_pool_forward_naive(x, {"stride": 2}), ValueError, "got no 'pool_height', no 'pool_width'"),
    "conv dout": (lambda: cs.conv_backward_naive(x, (x, w, b, {"stride": 1, "pad": 0})), ValueError,
                  r"conv_backward_naive: expected dout \(2, 4, 4, 4\), got \(2, 3, 6, 5\)"),
    "pool dout": (lambda: cs.max_pool_backward_naive(x, (x, POOL)), ValueError, r"max_pool_backward_naive: expected dout \(2, 3, 3, 2\)"),
    "large pool": (lambda: cs.max_pool_forward_naive(x, {**POOL, "pool_width": 9}), ValueError, "max_pool_forward_naive: expected a kernel"),
    "pool size": (lambda: cs.max_pool_forward_naive(x, {**POOL, "pool_width": 1.5}), TypeError, "max_pool_forward_naive: expected pool_width"),
    "images to rows": (lambda: cs.batchnorm_forward(x, gamma, beta, {"mode": "train"}), ValueError, r"batchnorm_forward: expected x \(N, D\)"),
    "rows to images": (lambda: cs.spatial_batchnorm_forward(rows, gamma, beta, {"mode": "train"}), ValueError, r"expected x \(N, C, H, W\)"),
    "no mode": (lambda: cs.batchnorm_forward(rows, gamma, beta, {}), ValueError, "expected bn_param with 'mode'"),
    "mode": (lambda: cs.batchnorm_forward(rows, gamma, beta, {"mode": "eval"}), ValueError, "got 'eval'"),
    "momentum": (lambda: cs.batchnorm_forward(rows, gamma, beta, {"mode": "train", "momentum": 9}), ValueError, "expected momentum"),
    "gamma": (lambda: cs.layernorm_forward(rows, gamma[None], beta, {}), ValueError, r"layernorm_forward: expected gamma \(6,\), got \(1, 6\)"),
    "spatial gamma": (lambda: cs.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"}), ValueError, r"expected gamma \(3,\), got \(6,\)"),
    "groups": (lambda: cs.spatial_groupnorm_forward(x, b[:3], b[:3], 2, {}), ValueError, "spatial_groupnorm_forward: expected a number of groups"),
    "bn dout": (lambda: cs.spatial_batchnorm_backward(rows, cs.spatial_batchnorm_forward(x, b[:3], b[:3], {"mode": "train"})[1]), ValueError,
                r"spatial_batchnorm_backward: expected dout \(2, 3, 6, 5\), got \(7, 6\)"),
    "p": (lambda: cs.dropout_forward(rows, {"p": 0, "mode": "train"}), ValueError, "dropout_forward: expected p as a number above 0"),
    "labels": (lambda: cs.softmax_loss(rows, labels[:3]), ValueError, r"softmax_loss: expected y \(7,\)"),
    "label": (lambda: cs.softmax_loss(rows, labels + 6), ValueError, "softmax_loss: expected y .* of classes from 0 to 5, got"),
    "float labels": (lambda: cs.svm_loss(rows, labels*1.0), TypeError, "svm_loss: expected labels as integers"),
    "precision": (lambda: cs.conv_forward_naive(x.astype(np.float32), w, b, {"stride": 1, "pad": 0}), TypeError, "expected w of dtype float32"),
    "dw": (lambda: cs.sgd(w, b), ValueError, "sgd: expected dw"),
    "config": (lambda: cs.adam(w, w, 0.1), TypeError, "adam: expected config as a dict, got 0.1"),
    "rate": (lambda: cs.adam(w, w, {"learning_rate": "0.1"}), TypeError, "adam: expected learning_rate as a number"),
    "beta": (lambda: cs.adam(w, w, {"beta2": 1}), ValueError, "adam: expected beta2"),
    "velocity": (lambda: cs.sgd_momentum(w, w, {"velocity": b}), ValueError, "sgd_momentum: expected velocity"),
}


@pytest.mark.parametrize("call, error, text", BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_in_the_assignments_letters(call, error, text):
    with pytest.raises(error, match=text): call()


def test_nothing_changes_where_something_is_refused():
    for bad in ({"mode": "train", "eps": -1}, {"mode": "train", "running_var": gamma[:2]}):
        before = dict(bad)
        with pytest.raises(ValueError): cs.batchnorm_forward(rows, gamma, beta, bad)
        assert bad == before
    config = {"m": np.zeros_like(w), "v": np.zeros_like(w), "t": 3, "beta1": 2}
    before = dict(config)
    with pytest.raises(ValueError): cs.adam(w, w, config)
    assert config == before and not config["m"].any()


def test_group_norm_keeps_digits_far_from_zero():
    far = (rng.normal(size=(2, 32, 32, 8)) + 1e5).astype(np.float32)
    one, zero = np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32)
    Y, ctx = group_norm(far, one, zero, 4, 1e-5)
    exact, exact_ctx = group_norm(far.astype(np.float64), np.ones((1, 8)), np.zeros((1, 8)), 4, 1e-5)
    close(Y, exact, 1e-5)
    dY = rng.normal(size=far.shape)
    for mine, other in zip(group_norm_backward(dY.astype(np.float32), ctx), group_norm_backward(dY, exact_ctx)):
        assert mine.dtype == np.float32
        close(mine, other, 1e-4)


def test_group_norm_layer_in_a_network():
    net = NeuralNetwork([FullyConnected(8, "relu"), GroupNorm(2), FullyConnected(3, "softmax")], optimizer={"name": "SGD", "lr": 0.1}, seed=0)
    data = iris()
    net.train(data, epochs=30)
    assert net.test(data)["error"] < 0.4
    assert repr(net.layers[1]) == "GroupNorm(groups=2, eps=1e-05)"
    layer = GroupNorm(2)
    for shape in ((2, 3, 3, 4), (1, 5, 2, 4)): assert layer.forward(np.ones(shape)).shape == shape   # other sizes may follow
    for bad, text in ((np.ones((2, 3, 3, 6)), r"expected input \(batch, 3, 3, 4\)"), (np.ones((2, 4), np.float32), "expected input of dtype")):
        with pytest.raises((ValueError, TypeError), match=f"GroupNorm: {text}"): layer.forward(bad)
    with pytest.raises(ValueError, match="GroupNorm: expected a number of groups that divides the 4 channels"): GroupNorm(3).forward(np.ones((2, 4)))
    with pytest.raises(RuntimeError, match="GroupNorm: expected a forward pass"): GroupNorm(3).backward(np.ones((2, 4)))


def test_hinge_trains_a_linear_classifier():
    data = iris()
    net = NeuralNetwork([FullyConnected(3, "linear")], loss="hinge", optimizer={"name": "SGD", "lr": 0.05}, seed=0)
    net.train(data, epochs=60)
    result = net.test(data)
    assert result["error"] < 0.4 and result["loss"] < 1
    assert isinstance(initialize_loss({"name": "hinge"}), Hinge)


def test_hinge_weights_are_those_of_repeated_examples():
    Y, counts = np.eye(6)[labels], np.arange(1, 8)
    twice = np.repeat(Y, counts, axis=0), np.repeat(rows, counts, axis=0)
    close(Hinge().forward(Y, rows, counts*1.0), Hinge().forward(*twice))
    fn = lambda V: Hinge().forward(Y, V, counts*1.0)
    assert check_gradients(fn, Hinge().backward(Y, rows, counts*1.0), rows, 1.0) < 1e-7
    assert Hinge().backward(Y, rows.astype(np.float32), counts*1.0).dtype == np.float32
