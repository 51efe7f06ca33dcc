"""Batch and layer normalisation against PyTorch for a thousand random cases, and at the edges; HWNN_LONG=1 makes it 20,000."""
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from hwnn.datasets import Dataset, iris
from hwnn.layers import BatchNorm1D, FullyConnected, LayerNorm
from hwnn.engine.blocks import BLOCK
from hwnn.layers.batchnorm import batchnorm_test, batchnorm_test_backward, batchnorm_train, batchnorm_train_backward
from hwnn.layers.layernorm import layernorm, layernorm_backward
from hwnn.models import NeuralNetwork

LONG = os.environ.get("HWNN_LONG") == "1"
COMMON = dict(deadline=None, database=None, derandomize=not LONG, suppress_health_check=list(HealthCheck))
PARAMETERS = ("gamma", "beta")


def channels_second(A): return np.ascontiguousarray(np.moveaxis(A, -1, 1))
def channels_last(t): return np.moveaxis(t.detach().numpy(), 1, -1)
def distance(ours, theirs, scale=1.0): return float(np.abs(ours - theirs).max()/max(scale, np.abs(theirs).max()))


@st.composite
def cases(draw):
    "Rows or images with at least two values for each feature, away from zero or not, large or small, over a few batches."
    size = lambda low, high: draw(st.integers(low, high))
    shape = draw(st.sampled_from(["rows", "images"]))
    shape = (size(2, 40), size(1, 7)) if shape == "rows" else (size(1, 4), size(1, 4), size(2, 4), size(1, 5))
    return dict(shape=shape, batches=size(1, 4), eps=draw(st.sampled_from([1e-8, 1e-5, 1e-2])), momentum=draw(st.sampled_from([0.0, 0.3, 0.9, 0.99])),
                scale=10.0**size(-3, 3), offset=draw(st.sampled_from([0.0, 1.0, -30.0])), seed=size(0, 2**32 - 1))


def both_layers(torch, case, dtype):
    "Our layer and PyTorch's, in float64, with the same parameters."
    rng, shape = np.random.default_rng(case["seed"]), case["shape"]
    stream = (case["scale"]*(rng.normal(size=(case["batches"], *shape)) + case["offset"])).astype(dtype)
    ours = BatchNorm1D(eps=case["eps"], momentum=case["momentum"])
    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(shape[-1], eps=case["eps"], momentum=1 - case["momentum"], dtype=torch.float64)
    ours.forward(stream[0])
    ours.state.clear()
    gamma, beta = rng.normal(size=(2, 1, shape[-1])).astype(dtype)
    ours.parameters.update(gamma=gamma, beta=beta)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(gamma[0]))
        theirs.bias.copy_(torch.tensor(beta[0]))
    return ours, theirs, stream, rng.normal(size=stream.shape).astype(dtype)


def compare(torch, ours, theirs, X, dY, mode):
    "The largest distance of outputs and gradients. That of dX is measured on the scale of its terms, which may cancel."
    theirs.train(mode == "train")
    theirs.zero_grad()
    X_torch = torch.tensor(channels_second(X.astype(np.float64)), requires_grad=True)
    Y_torch = theirs(X_torch)
    Y_torch.backward(torch.tensor(channels_second(dY.astype(np.float64))))
    Y = ours.forward(X, mode)
    dX = ours.backward(dY)
    arrays = [Y, dX, ours.cache["X_hat"], *ours.parameters.values(), *ours.gradients.values(), *ours.state.values()]
    assert {a.dtype for a in arrays} == {X.dtype}
    ctx = ours.cache["ctx"]
    terms = np.abs(ctx.gamma/ctx.s).max()*np.abs(dY).max()
    return max(distance(Y, channels_last(Y_torch)), float(np.abs(dX - channels_last(X_torch.grad)).max()/terms),
               distance(ours.gradients["gamma"][0], theirs.weight.grad.numpy(), np.abs(dY).sum()), distance(ours.gradients["beta"][0], theirs.bias.grad.numpy(), np.abs(dY).sum()))


def test_pytorch_agrees(torch):
    worst, count = {np.float64: 0.0, np.float32: 0.0}, 0

    @settings(max_examples=20_000 if LONG else 1_000, **COMMON)
    @given(cases())
    def check(case):
        nonlocal count
        count += 1
        for dtype, limit in ((np.float64, 1e-10), (np.float32, 1e-3)):
            ours, theirs, stream, dYs = both_layers(torch, case, dtype)
            error = 0.0
            for t, (X, dY) in enumerate(zip(stream, dYs)):
                error = max(error, compare(torch, ours, theirs, X, dY, "train"))
                if t == 0: first = {name: a.copy() for name, a in ours.state.items()}
                # PyTorch starts at 0 and 1, and averages sample variances
                n, start = X[..., 0].size, case["momentum"]**(t + 1)
                mean = ours.state["running_mu"] - start*first["running_mu"]
                var = n/(n - 1)*(ours.state["running_var"] - start*first["running_var"]) + start
                error = max(error, distance(mean[0], theirs.running_mean.numpy(), case["scale"]), distance(var[0], theirs.running_var.numpy(), case["scale"]**2))
            with torch.no_grad():
                theirs.running_mean.copy_(torch.tensor(ours.state["running_mu"][0]))
                theirs.running_var.copy_(torch.tensor(ours.state["running_var"][0]))
            error = max(error, compare(torch, ours, theirs, stream[0], dYs[0], "test"))
            worst[dtype] = max(worst[dtype], error)
            assert error <= limit

    check()
    print(f"{count} cases, largest error {worst[np.float64]:.1e} in float64 and {worst[np.float32]:.1e} in float32")
    assert count >= 1_000


def test_pytorch_agrees_on_layernorm(torch):
    worst = {np.float64: 0.0, np.float32: 0.0}

    @settings(max_examples=4_000 if LONG else 300, **COMMON)
    @given(cases())
    def check(case):
        shape = (*case["shape"][:-1], case["shape"][-1] + 1)
        rng = np.random.default_rng(case["seed"])
        exact = case["scale"]*(rng.normal(size=shape) + case["offset"]), *rng.normal(size=(2, 1, shape[-1])), rng.normal(size=shape)
        for dtype, limit in ((np.float64, 1e-10), (np.float32, 1e-3)):
            X, gamma, beta, dY = (a.astype(dtype) for a in exact)
            Y, ctx = layernorm(X, gamma, beta, case["eps"])
            dX, dgamma, dbeta = layernorm_backward(dY, ctx)
            assert {a.dtype for a in (Y, dX, dgamma, dbeta, ctx.s)} == {np.dtype(dtype)}
            leaves = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in (X, gamma[0], beta[0])]
            Y_torch = torch.nn.functional.layer_norm(leaves[0], shape[-1:], *leaves[1:], case["eps"])
            Y_torch.backward(torch.tensor(dY.astype(np.float64)))
            terms = (np.abs(gamma).max()/ctx.s).max()*np.abs(dY).max()
            error = max(distance(Y, Y_torch.detach().numpy()), float(np.abs(dX - leaves[0].grad.numpy()).max()/terms),
                        *(distance(a[0], leaf.grad.numpy(), np.abs(dY).sum()) for a, leaf in zip((dgamma, dbeta), leaves[1:])))
            worst[dtype] = max(worst[dtype], error)
            assert error <= limit

    check()
    print(f"largest error {worst[np.float64]:.1e} in float64 and {worst[np.float32]:.1e} in float32")


def reference(X, dY, eps):
    "Output and input gradient with gamma 1 and beta 0, in the next higher precision."
    X, dY = (a.astype(np.float64 if a.dtype == np.float32 else np.longdouble) for a in (X, dY))
    s = np.sqrt(X.var(axis=0) + eps)
    X_hat = (X - X.mean(axis=0))/s
    return X_hat, (dY - dY.mean(axis=0) - X_hat*(dY*X_hat).mean(axis=0))/s


def one_and_zero(X): return np.ones((1, X.shape[1]), X.dtype), np.zeros((1, X.shape[1]), X.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [16, 1000, 100_000])
def test_large_offsets_lose_no_more_digits_than_pytorch(torch, dtype, rows):
    rng = np.random.default_rng(rows)
    X, dY = (rng.normal(size=(rows, 6)) + 1e6).astype(dtype), rng.normal(size=(rows, 6)).astype(dtype)
    Y, ctx = batchnorm_train(X, *one_and_zero(X), 1e-8)
    dX, _, _ = batchnorm_train_backward(dY, ctx)
    leaf = torch.tensor(X, requires_grad=True)
    Y_torch = torch.nn.functional.batch_norm(leaf, None, None, *(torch.tensor(a[0]) for a in one_and_zero(X)), True, 0.1, 1e-8)
    Y_torch.backward(torch.tensor(dY))
    for ours, theirs, exact in zip((Y, dX), (Y_torch.detach().numpy(), leaf.grad.numpy()), reference(X, dY, 1e-8)):
        error, their_error = float(np.abs(ours - exact).max()), float(np.abs(theirs - exact).max())
        print(f"{np.dtype(dtype)} {rows} rows: ours {error:.1e}, PyTorch {their_error:.1e}")
        assert error <= max(their_error, 4*np.finfo(dtype).eps*np.abs(exact).max())


def test_long_batches_in_float32():
    rng = np.random.default_rng(0)
    X, dY = rng.uniform(1, 2, size=(2, 1_000_000, 2)).astype(np.float32)
    Y, ctx = batchnorm_train(X, *one_and_zero(X), 1e-8)
    dX, dgamma, dbeta = batchnorm_train_backward(dY, ctx)
    for ours, exact in zip((Y, dX), reference(X, dY, 1e-8)): assert np.abs(ours - exact).max() < 2e-6
    np.testing.assert_allclose(dbeta[0], dY.sum(axis=0, dtype=np.float64), rtol=2e-7)


def test_an_outlier_in_the_first_place():
    X = np.random.default_rng(0).normal(size=(10_000, 3)).astype(np.float32)
    X[0] = 1e6
    Y, _ = batchnorm_train(X, *one_and_zero(X), 1e-8)
    np.testing.assert_allclose(Y, reference(X, X, 1e-8)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype, exponents", [(np.float32, (-30, -12, -5, 0, 5, 12, 18)), (np.float64, (-200, -30, 0, 30, 150))])
def test_scales(dtype, exponents):
    rng = np.random.default_rng(0)
    X, dY = rng.normal(size=(2, 50, 3))
    for exponent in exponents:
        X_scaled, dY_here = (X*10.0**exponent).astype(dtype), dY.astype(dtype)
        Y, ctx = batchnorm_train(X_scaled, *one_and_zero(X_scaled), 1e-8)
        dX, _, _ = batchnorm_train_backward(dY_here, ctx)
        for ours, exact in zip((Y, dX), reference(X_scaled, dY_here, 1e-8)):
            np.testing.assert_allclose(ours.astype(exact.dtype), exact, rtol=0, atol=20*np.finfo(dtype).eps*float(np.abs(exact).max()))


@pytest.mark.parametrize("make", [BatchNorm1D, LayerNorm])
def test_a_variance_out_of_range_is_an_error_and_changes_nothing(make):
    layer = make()
    layer.forward(np.float32([[1, 2], [3, 5]]))
    before = {name: a.tobytes() for d in (layer.parameters, layer.state) for name, a in d.items()}
    with pytest.raises(FloatingPointError, match="expected a variance within the range of float32"): layer.forward(np.float32([[1e30, 1], [-1e30, 2]]))
    assert {name: a.tobytes() for d in (layer.parameters, layer.state) for name, a in d.items()} == before
    with pytest.raises(FloatingPointError): make().forward(np.array([[1e200, 1.0], [-1e200, 2.0]]))
    assert np.isnan(layer.forward(np.float32([[np.nan, 1], [2, 2]]))).any()   # a NaN is handed on, for the loss to find


@pytest.mark.parametrize("value", [0.0, 0.1, -3e8, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_features_give_beta(value, dtype):
    rng = np.random.default_rng(0)
    X, dY = np.full((30, 2), value, dtype), rng.normal(size=(30, 2)).astype(dtype)
    X[:, 1] = rng.normal(size=30)
    Y, ctx = batchnorm_train(X, np.full((1, 2), 3, dtype), np.full((1, 2), 2, dtype), 1e-8)
    dX, dgamma, _ = batchnorm_train_backward(dY, ctx)
    assert (Y[:, 0] == 2).all() and dgamma[0, 0] == 0 and ctx.var[0, 0] == 0 and ctx.mu[0, 0] == dtype(value)
    np.testing.assert_allclose(dX[:, 0], 3e4*(dY[:, 0] - dY[:, 0].mean()), rtol=1e-4, atol=1e-2)


def test_bad_batches_change_nothing():
    layer, rng = BatchNorm1D(), np.random.default_rng(0)
    for bad, message in ((np.ones((1, 3)), "at least 2 values for each feature in training, got 1"), (np.ones((1, 1, 1, 3)), "got 1 from input"), (np.ones(3), r"\(batch, features\), got \(3,\)")):
        with pytest.raises(ValueError, match=message): layer.forward(bad)
    with pytest.raises(RuntimeError, match="expected a forward pass in training mode"): layer.forward(np.ones((4, 3)), "test")
    assert not layer.parameters and not layer.state and not layer.cache and layer.n_in is None
    layer.forward(rng.normal(size=(5, 3)))
    before = {name: a.tobytes() for d in (layer.parameters, layer.state) for name, a in d.items()}
    for bad in (np.ones((5, 4)), np.ones((2, 2, 2, 4)), np.ones((1, 3)), np.ones((5, 3), np.float32), np.ones((5, 3), int), [[1.0, 2.0, 3.0]]):
        with pytest.raises((ValueError, TypeError), match="BatchNorm1D: expected"): layer.forward(bad)
    assert {name: a.tobytes() for d in (layer.parameters, layer.state) for name, a in d.items()} == before
    assert layer.forward(np.ones((1, 3)), "test").shape == (1, 3)


@pytest.mark.parametrize("arguments", [dict(eps=0), dict(eps=-1.0), dict(eps="small"), dict(momentum=1.0), dict(momentum=-0.1), dict(momentum=np.nan), dict(momentum=None)])
def test_bad_arguments(arguments):
    with pytest.raises((ValueError, TypeError), match=f"BatchNorm1D: expected {next(iter(arguments))} as a number"): BatchNorm1D(**arguments)


def test_functions_refuse_what_does_not_fit():
    X, row, short = np.ones((4, 3)), np.ones((1, 3)), np.ones((1, 2))
    ctx = batchnorm_train(np.random.default_rng(0).normal(size=(4, 3)), row, row, 1e-8)[1]
    for call in (lambda: batchnorm_train(X, short, row, 1e-8), lambda: batchnorm_train(X, row, row[0], 1e-8), lambda: batchnorm_train(X[:1], row, row, 1e-8), lambda: batchnorm_train(X, row, row, 0),
                 lambda: batchnorm_test(X, row, row, short, row, 1e-8), lambda: batchnorm_test(X, row, row, row, row, -1), lambda: batchnorm_train_backward(X[:2], ctx),
                 lambda: batchnorm_test_backward(X[:2], ctx), lambda: layernorm(X, short, row, 1e-5), lambda: layernorm(X[:, :1], row[:, :1], row[:, :1], 1e-5), lambda: layernorm_backward(X[:2], ctx)):
        with pytest.raises(ValueError, match=r"^\w+: expected .* got"): call()
    with pytest.raises(TypeError): batchnorm_train(X.astype(int), row, row, 1e-8)
    row32 = np.ones((1, 3), np.float32)
    ctx32 = batchnorm_train(np.float32([[1, 2, 3], [4, 6, 5]]), row32, row32, 1e-8)[1]
    with pytest.raises(TypeError, match="batchnorm_train_backward: expected dY of dtype float32, like X_hat, got float64"): batchnorm_train_backward(X[:2], ctx32)
    layer = BatchNorm1D()
    layer.forward(np.random.default_rng(0).normal(size=(4, 2)))
    with pytest.raises(ValueError, match=r"BatchNorm1D: expected dLdY \(4, 2\), got \(2, 2\)"): layer.backward(np.ones((2, 2)))
    with pytest.raises(ValueError, match="batchnorm_test: expected var at least 0, got -1 in feature 0"): batchnorm_test(X, row, row, row, -row, 1e-8)


@pytest.mark.parametrize("shape", [(BLOCK + 3, 1), (2*BLOCK//7 + 1, 7), (3, BLOCK + 5), (5, 30, 40, 12)])
def test_blocks_join(shape):
    rng = np.random.default_rng(0)
    X, dY = rng.normal(size=(2, *shape))
    rows, rows_dY = X.reshape(-1, shape[-1]), dY.reshape(-1, shape[-1])
    Y, ctx = batchnorm_train(X, *one_and_zero(rows), 1e-8)
    dX, dgamma, dbeta = batchnorm_train_backward(dY, ctx)
    exact = reference(rows, rows_dY, 1e-8)
    for ours, expected in zip((Y, dX), exact): np.testing.assert_allclose(ours.reshape(rows.shape), expected.astype(np.float64), atol=1e-12)
    np.testing.assert_allclose(dbeta, rows_dY.sum(axis=0, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(dgamma[0], (rows_dY*exact[0]).sum(axis=0).astype(np.float64), atol=1e-9)


def test_memory_layout_does_not_matter_and_inputs_stay():
    rng = np.random.default_rng(0)
    X, dY = rng.normal(size=(2, 4, 5, 6, 3))
    gamma, beta = rng.normal(size=(2, 1, 3))
    def everything(X, dY):
        Y, ctx = batchnorm_train(X, gamma, beta, 1e-8)
        Y_test, ctx_test = batchnorm_test(X, gamma, beta, ctx.mu, ctx.var, 1e-8)
        Y_layer, ctx_layer = layernorm(X, gamma, beta, 1e-5)
        return [Y, *batchnorm_train_backward(dY, ctx), Y_test, *batchnorm_test_backward(dY, ctx_test), Y_layer, *layernorm_backward(dY, ctx_layer)]
    expected = everything(X, dY)
    for view in (lambda A: np.asfortranarray(A), lambda A: np.repeat(A, 2, axis=1)[:, ::2], lambda A: np.moveaxis(channels_second(A), 1, -1), lambda A: A[::-1].copy()[::-1]):
        X_view, dY_view = view(X), view(dY)
        for A in (X_view, dY_view): A.flags.writeable = False
        for a, b in zip(everything(X_view, dY_view), expected): np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def network(momentum=0.9):
    return NeuralNetwork([dict(name="fully_connected", n_out=12, activation="tanh"), {"name": "batchnorm1d", "momentum": momentum}, dict(name="layernorm"),
                          dict(name="fully_connected", n_out=None, activation="softmax")], optimizer=dict(name="SGD", lr=0.1))


def state_bits(net): return {name: a.tobytes() for name, a in net.layers[1].state.items()}


def test_in_a_network_trained_statistics_are_used_and_kept():
    net, dataset = network(), iris(batch_size=20)
    net.train(dataset, epochs=40)
    assert net.history.train_error[-1] < 0.2
    before = state_bits(net)
    X = dataset.test.X
    out = net.predict(X)
    assert net.test(dataset)["error"] < 0.25
    for batch_size in (1, 7): np.testing.assert_allclose(net.predict(X, batch_size=batch_size), out, rtol=1e-4, atol=1e-6)
    assert state_bits(net) == before and {a.dtype for a in net.layers[1].state.values()} == {np.dtype(np.float32)}
    hidden = net.layers[0].forward(X)
    bn, s = net.layers[1], net.layers[1].state
    expected = bn.parameters["gamma"]*(hidden - s["running_mu"])/np.sqrt(s["running_var"] + bn.eps) + bn.parameters["beta"]
    np.testing.assert_allclose(bn.forward(hidden, "test"), expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_saved_and_loaded(tmp_path):
    net, dataset = network(), iris(batch_size=20)
    net.train(dataset, epochs=2)
    net.save(tmp_path/"net.safetensors")
    loaded = network()
    loaded.layers[-1].n_out = 3
    loaded.load(tmp_path/"net.safetensors")
    assert state_bits(loaded) == state_bits(net) and set(loaded.layers[1].state) == {"running_mu", "running_var"}
    np.testing.assert_array_equal(loaded.predict(dataset.test.X), net.predict(dataset.test.X))
    before = state_bits(loaded)
    loaded.train(dataset, epochs=1)   # goes on from the loaded averages, and does not take a batch whole again
    assert state_bits(loaded) != before and state_bits(net) == before


def test_one_example_left_over_is_an_error_that_says_so():
    X, Y = np.random.default_rng(0).normal(size=(21, 4)), np.eye(3)[np.arange(21) % 3]
    with pytest.raises(ValueError, match="choose a batch_size that leaves no single example over"): network().train(Dataset(X, Y, batch_size=10), epochs=1)


def test_clearing_and_checking_leave_the_statistics_alone():
    layer, rng = BatchNorm1D(), np.random.default_rng(0)
    X = rng.normal(size=(6, 3))
    layer.forward(X)
    before = {name: a.tobytes() for name, a in layer.state.items()}
    layer.forward_with_param("gamma", X)(np.full((1, 3), 2.0))
    layer.clear_gradients()
    assert {name: a.tobytes() for name, a in layer.state.items()} == before and not layer.cache
    layer.forward(X.astype(np.complex128))
    assert layer.state["running_mu"].dtype == np.float64


@pytest.mark.parametrize("mode", ["train", "test"])
def test_skip_dX(mode):
    layer, rng = BatchNorm1D(), np.random.default_rng(0)
    X, dY = rng.normal(size=(2, 6, 3))
    layer.forward(X)
    layer.forward(X, mode)
    layer.backward(dY)
    expected = dict(layer.gradients)
    assert layer.backward(dY, skip_dX=True) is None
    for name in PARAMETERS: np.testing.assert_array_equal(layer.gradients[name], expected[name])


def test_a_bias_before_it_learns_nothing():
    rng = np.random.default_rng(0)
    dense, norm = FullyConnected(3, "linear"), BatchNorm1D()
    norm.forward(dense.forward(rng.normal(size=(20, 4))))
    dense.backward(norm.backward(rng.normal(size=(20, 3))))
    np.testing.assert_allclose(dense.gradients["b"], 0, atol=1e-14)
