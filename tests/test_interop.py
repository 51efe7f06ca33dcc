"""What goes to other tools and what comes from them computes the same: every layer in every setting, whole networks, files, and what is refused."""
import numpy as np
import pytest

from hwnn.all import *
from hwnn.interop import export_onnx, from_keras, from_torch, import_onnx, to_torch, torch_arrays
from hwnn.interop.weights import channels_first_order
from test_everything import TABLE, covering

# Settings for which PyTorch has no module, or which are no matter of a module.
APART = {"keep_dim": ("last", -1)}


def first(A): return np.ascontiguousarray(np.moveaxis(A, -1, 1))


def last(A): return np.moveaxis(A, 1, -1)


def random_net(layers, shape, loss="l2", seed=0, dtype=np.float64):
    "A network of these layers whose parameters and statistics are random, and an input."
    net, rng = NeuralNetwork(layers, loss, seed=seed), np.random.default_rng(seed)
    X = rng.normal(size=shape).astype(dtype)
    net.forward(X)
    for layer in net.layers:
        for d in (layer.parameters, layer.state):
            for name, A in d.items():
                A[...] = rng.uniform(0.5, 1.5, A.shape) if name in ("gamma", "running_var") else rng.normal(size=A.shape)/np.sqrt(A[..., 0].size)
    return net, X


def rows():
    "Each layer of the table in settings of which every two meet."
    for name in dict.fromkeys(layer for layer, _ in TABLE):
        for case in covering(name):
            if any(case.get(key) in values for key, values in APART.items()): continue
            yield name, case


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in TABLE))
def test_every_layer_is_the_same_module(name, torch):
    "Outputs, gradients at the input and at the parameters, in both modes; and there and back again."
    count = 0
    for case in (case for other, case in rows() if other == name):
        settings = {k: v for k, v in case.items() if k not in ("shape", "pass_mode")}
        if settings.get("rate") and case["pass_mode"] == "train": settings["rate"] = 0.0   # its masks are others
        net, X = random_net([initialize_layer(name, **settings)], case["shape"])
        module = to_torch(net).train(case.get("pass_mode") == "train")
        assert all(not np.shares_memory(p.detach().numpy(), A) for p in module.parameters() for A in net.layers[0].parameters.values())
        x = torch.tensor(first(X), requires_grad=True)
        Y, out = net.forward(X, case.get("pass_mode", "test")), module(x)
        flat = name == "flatten"
        if flat: out = out[:, np.array(channels_first_order(X.shape[1:]))]
        np.testing.assert_allclose(Y, last(out.detach().numpy()) if Y.ndim > 2 else out.detach().numpy(), rtol=1e-12, atol=1e-12, err_msg=str(case))
        dY = np.random.default_rng(1).normal(size=Y.shape)
        dX = net.layers[0].backward(dY)
        out.backward(torch.tensor(first(dY) if Y.ndim > 2 else dY))
        np.testing.assert_allclose(dX, last(x.grad.numpy()), rtol=1e-10, atol=1e-10, err_msg=str(case))
        layer = net.layers[0]
        for key, g in layer.gradients.items():
            names = dict(W="0.weight", b="0.bias", gamma="0.weight", beta="0.bias")
            theirs = module.get_parameter(names[key]).grad.numpy()
            if key == "W": theirs = theirs.transpose(2, 3, 1, 0) if theirs.ndim == 4 else theirs.T
            np.testing.assert_allclose(np.squeeze(g), np.squeeze(theirs), rtol=1e-10, atol=1e-10, err_msg=f"{key} {case}")
        again = NeuralNetwork([initialize_layer(name, **settings)], "l2")
        if layer.parameters:
            from_torch(module, again, input_shape=X.shape[1:])
            assert all(np.array_equal(A, torch_arrays(net)[k]) for k, A in torch_arrays(again).items() if "running" not in k or case["pass_mode"] == "test")
        count += 1
    assert count > 2


# ONNX ---------------------------------------------------------------------------------------------------------------------------------------

def run(file, X):
    "What ONNX Runtime makes of an input, with one thread."
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options)
    return session.run(None, {"input": X})[0]


def close(Y, theirs, tolerance=1e-6):
    "To a share of the largest output, in float32."
    assert theirs.dtype == np.float32 and Y.shape == theirs.shape
    assert abs(Y - theirs).max() <= tolerance*max(1, abs(Y).max()), abs(Y - theirs).max()


@pytest.mark.needs("onnx")
@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in TABLE))
def test_every_layer_is_the_same_node(name, tmp_path):
    for case in (case for other, case in rows() if other == name):
        settings = {k: v for k, v in case.items() if k not in ("shape", "pass_mode")}
        net, X = random_net([initialize_layer(name, **settings)], case["shape"], dtype=np.float32)
        export_onnx(net, tmp_path/"net.onnx")
        close(net.predict(X), run(tmp_path/"net.onnx", X), 3e-6)
        if name == "dropout": continue   # in use it is no layer
        # a last window over the end, beside padding that counts
        if case.get("ceil_mode") and case["pad"] and case["mode"] == "average" and case["count_include_pad"]: continue
        again = import_onnx(tmp_path/"net.onnx")
        close(net.predict(X), again.predict(X), 3e-6)
        assert [type(layer) for layer in again.layers] == [type(layer) for layer in net.layers]
