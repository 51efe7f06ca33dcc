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
        close(net.predict(X), run(tmp_path/"net.onnx", X), 1e-5)
        if name == "dropout": continue   # in use it is no layer
        # a last window over the end, beside padding that counts
        if case.get("ceil_mode") and case["pad"] and case["mode"] == "average" and case["count_include_pad"]: continue
        again = import_onnx(tmp_path/"net.onnx")
        close(net.predict(X), again.predict(X), 1e-5)
        assert [type(layer) for layer in again.layers] == [type(layer) for layer in net.layers]
        if name in ("batchnorm1d", "layernorm", "groupnorm"): assert repr(again.layers) == repr(net.layers)


# Whole networks -----------------------------------------------------------------------------------------------------------------------------

def mlp(): return [FullyConnected(32, "gelu"), LayerNorm(), Dropout(0.3), FullyConnected(16, "tanh", bias=False), FullyConnected(5, "softmax")], (40, 12)


def cnn():
    return [Conv2D(6, 3, "relu", stride=2), BatchNorm1D(1e-5), Pool2D(3, "average", 2, 1, count_include_pad=False), Conv2D(8, (2, 3), "silu", pad=((1, 0), (0, 1))),
            GroupNorm(4), Pool2D(3, "max", 2, "same"), Flatten(), BatchNorm1D(), LayerNorm(), FullyConnected(20, "elu"), FullyConnected(5, "softmax")], (40, 17, 14, 3)


@pytest.mark.parametrize("make", [mlp, cnn])
def test_a_network_there_and_back(make, torch):
    "Outputs and gradients to 1e-12 of their size, statistics bit for bit; Flatten's rows among them."
    layers, shape = make()
    net, X = random_net(layers, shape, "cross_entropy")
    for layer in net.layers:
        if isinstance(layer, Dropout): layer.rate = 0.0
    Y = np.eye(5)[np.random.default_rng(1).integers(5, size=len(X))]
    before = torch.get_rng_state()
    module = to_torch(net)
    assert torch.equal(before, torch.get_rng_state()) and not module.training
    np.testing.assert_allclose(module(torch.tensor(first(X))).detach().numpy(), net.predict(X), rtol=1e-12, atol=1e-14)
    module.train()
    torch.nn.functional.cross_entropy(module[:-1](torch.tensor(first(X))), torch.tensor(Y)).backward()
    net.backward(Y, net.forward(X))
    there = {name: p.grad.numpy() for name, p in module.named_parameters()}
    ours = torch_arrays(net)
    for k, layer in enumerate(net.layers):
        layer.parameters.update(layer.gradients)   # turned as the parameters are
    for name, g in torch_arrays(net).items():
        if "running" not in name: assert abs(g - there[name]).max() <= 1e-12*max(1, abs(g).max()), name
    again = from_torch(module, NeuralNetwork(make()[0]), input_shape=shape[1:])
    found, theirs = torch_arrays(again), module.state_dict()
    assert found.keys() == ours.keys() and all(np.array_equal(A, theirs[name].numpy()) for name, A in found.items())


@pytest.mark.parametrize("make", [mlp, cnn])
def test_200_steps_stay_together(make, torch):
    "The running variance divides by one less there: what was added to it is larger by B/(B - 1)."
    layers, shape = make()
    net, X = random_net(layers, shape, "cross_entropy")
    net.optimizer = initialize_optimizer("SGD", lr=0.02)
    for layer in net.layers:
        if isinstance(layer, Dropout): layer.rate = 0.0
    Y, start = np.eye(5)[np.random.default_rng(1).integers(5, size=len(X))], {name: A.copy() for name, A in torch_arrays(net).items()}
    module, rows = to_torch(net).train(), np.random.default_rng(2)
    step, losses = torch.optim.SGD(module.parameters(), lr=0.02), []
    for _ in range(200):
        at = rows.permutation(40)[:16]
        losses.append(net.backward(Y[at], net.forward(X[at])))
        net.update(0)
        step.zero_grad()
        torch.nn.functional.cross_entropy(module[:-1](torch.tensor(first(X[at]))), torch.tensor(Y[at])).backward()
        step.step()
    assert losses[-1] < 0.8*losses[0]
    theirs = {name: A.numpy() for name, A in module.state_dict().items()}
    for name, A in torch_arrays(net).items():
        if "running_var" in name:
            k, kept = int(name.split(".")[0]), 0.9**200*start[name]
            n = 16*(np.prod(net._needed({}, net.input_shape, range(len(layers)))[k][0][:-1]))
            np.testing.assert_allclose(theirs[name] - kept, n/(n - 1)*(A - kept), rtol=1e-8)
        else: assert abs(A - theirs[name]).max() < 1e-9, name


@pytest.mark.needs("onnx")
@pytest.mark.parametrize("make", [mlp, cnn])
def test_a_network_as_a_file_and_back(make, tmp_path):
    import onnx.reference
    layers, shape = make()
    net, raw = random_net(layers, shape, "cross_entropy", dtype=np.float32)
    rng = np.random.default_rng(4)
    shift, scale = rng.normal(size=shape[1:]), rng.uniform(1, 2, shape[1:])
    export_onnx(net, tmp_path/"net.onnx", shift, scale, list("abcde"))
    model = onnx.load(tmp_path/"net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {s.domain: s.version for s in model.opset_import}[""] == 17
    assert [p.value for p in model.metadata_props if p.key == "classes"] == ['["a", "b", "c", "d", "e"]']
    X = ((raw - shift)/scale).astype(np.float32)
    close(net.predict(X), run(tmp_path/"net.onnx", raw))
    reference = onnx.reference.ReferenceEvaluator(str(tmp_path/"net.onnx"))
    close(net.predict(X), reference.run(None, {"input": raw})[0])
    close(net.predict(X[:1]), run(tmp_path/"net.onnx", raw[:1]))   # a batch of one
    again = import_onnx(tmp_path/"net.onnx")
    close(net.predict(X), again.predict(X))
    assert again.preparation["classes"] == list("abcde") and again.input_shape == net.input_shape
    np.testing.assert_allclose(np.reshape(again.preparation["scale"], shape[1:]), scale, rtol=1e-6)
    again.save(tmp_path/"net.safetensors")   # an ordinary network from now on
    assert np.array_equal(NeuralNetwork.from_file(tmp_path/"net.safetensors").predict(X), again.predict(X))


@pytest.mark.needs("onnx")
@pytest.mark.parametrize("folded", [True, False])
def test_a_file_that_pytorch_wrote(folded, torch, tmp_path):
    "Channels first, a Flatten of them, a batch norm before its activation, which is folded."

    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 2, 2, (1, 0)),
                           nn.LeakyReLU(0.2), nn.AvgPool2d(2, 1, 1), nn.Flatten(), nn.Linear(80, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Dropout(0.3), nn.Linear(10, 5), nn.Softmax(1))
    for _ in range(3): module(torch.randn(8, 3, 14, 12))
    module.eval()
    x = torch.randn(4, 3, 14, 12)
    kept = dict(training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False) if not folded else {}
    torch.onnx.export(module, (x,), tmp_path/"net.onnx", dynamo=False, opset_version=17, dynamic_axes={"x": {0: "batch"}}, input_names=["x"], **kept)
    net = import_onnx(tmp_path/"net.onnx")
    assert net.input_shape == (14, 12, 3)
    close(module(x).detach().numpy(), net.predict(last(x.numpy()).copy()))


# Keras and files ----------------------------------------------------------------------------------------------------------------------------

# What Keras 3.15.1 with PyTorch below it said of `waves((3, 7, 6, 2), 0.5)`, from a Sequential of Conv2D(3, 3, strides=2, padding="same", activation="relu"),
# BatchNormalization(), MaxPooling2D(2, 1, padding="same"), LayerNormalization(), AveragePooling2D(2, 2, padding="same"), Flatten(), Dense(4, activation="tanh",
# use_bias=False), BatchNormalization(momentum=0.9) and Dense(3, activation="softmax"), with the weights that `KERAS_WEIGHTS` gives by the names of `m.weights`.
KERAS_OUTPUT = [[0.4434316, 0.26826614, 0.28830224], [0.42627892, 0.30974174, 0.26397932], [0.45839402, 0.31998387, 0.2216221]]
KERAS_WEIGHTS = {
    "conv2d/kernel": (3, 3, 2, 3), "conv2d/bias": (3,), "batch_normalization/gamma": (3,), "batch_normalization/beta": (3,), "batch_normalization/moving_mean": (3,),
    "batch_normalization/moving_variance": (3,), "layer_normalization/gamma": (3,), "layer_normalization/beta": (3,), "dense/kernel": (12, 4), "batch_normalization_1/gamma": (4,),
    "batch_normalization_1/beta": (4,), "batch_normalization_1/moving_mean": (4,), "batch_normalization_1/moving_variance": (4,), "dense_1/kernel": (4, 3), "dense_1/bias": (3,)}


def waves(shape, k): return np.sin(1.7*np.arange(np.prod(shape)) + k).reshape(shape).astype(np.float32)


def keras_net():
    return NeuralNetwork([Conv2D(3, 3, "relu", stride=2, pad="same_upper"), BatchNorm1D(1e-3, 0.99), Pool2D(2, "max", 1, "same"), LayerNorm(1e-3),
                          Pool2D(2, "average", 2, "same_upper", count_include_pad=False), Flatten(), FullyConnected(4, "tanh", bias=False), BatchNorm1D(1e-3, 0.9), FullyConnected(3, "softmax")])


def test_keras_says_the_same():
    arrays = {f"sequential/{name}": waves(shape, k)*np.float32(0.4 if len(shape) > 1 else 0.2) + (name.rsplit("/")[-1] in ("gamma", "moving_variance"))
              for k, (name, shape) in enumerate(KERAS_WEIGHTS.items())}
    for given in (arrays, list(arrays.values()), {f"{name}:0": A for name, A in arrays.items()}):
        net = from_keras(given, keras_net(), input_shape=(7, 6, 2))
        np.testing.assert_allclose(net.predict(waves((3, 7, 6, 2), 0.5)), KERAS_OUTPUT, atol=2e-7)


def small(): return NeuralNetwork([Conv2D(2, 3, "relu", pad="valid"), BatchNorm1D(1e-5, 0.9), Flatten(), FullyConnected(12, "softmax")])


def state():
    "What a PyTorch network of the same layers, on images (1, 4, 5), has under names of its own; as many outputs as features."
    shapes = {"body.conv.weight": (2, 1, 3, 3), "body.conv.bias": (2,), "norm.weight": (2,), "norm.bias": (2,), "norm.running_mean": (2,), "norm.running_var": (2,), "head.weight": (12, 12), "head.bias": (12,)}
    return {name: np.abs(waves(shape, k)) for k, (name, shape) in enumerate(shapes.items())} | {"norm.num_batches_tracked": np.array(3)}


def test_from_a_file_by_names(tmp_path):
    from safetensors.numpy import save_file
    save_file(state(), tmp_path/"there.safetensors")
    names = ["body.conv", "norm", "head"]
    one, other = from_torch(tmp_path/"there.safetensors", small(), names, (4, 5, 1)), from_torch(state(), small(), input_shape=(4, 5, 1))
    X = waves((3, 4, 5, 1), 0)
    assert np.array_equal(one.predict(X), other.predict(X))
    assert np.array_equal(one.layers[3].parameters["b"][0], state()["head.bias"])   # an output's place is its own, also where there are as many as features
    assert all(A.flags.c_contiguous for A in one.layers[3].parameters.values())


@pytest.mark.parametrize("change, error, said", [
    (dict(names=["body.conv", "norm", "tail"]), ValueError, "expected names among 'body.conv', 'norm', 'head', got 'tail'"),
    (dict(names=["body.conv", "head"]), ValueError, "expected names for 3 layers (0 Conv2D, 1 BatchNorm1D, 3 FullyConnected), got 2"),
    (dict(names=["norm", "body.conv", "head"]), ValueError, "in what from_torch was given"),
    (dict(input_shape=None), ValueError, "expected input_shape"),
    (dict(input_shape=(5, 5, 1)), ValueError, "expected 3.W (18, 12) float32, got (12, 12) float32"),
    (dict(source=state() | {"head.weight_g": np.ones(12, np.float32)}), ValueError, "expected 3.weight_g no such array"),
    (dict(source=state() | {"head.bias": np.full(12, np.nan, np.float32)}), ValueError, "NaN"),
    (dict(source=state() | {"head.bias": np.ones(12)}), ValueError, "float64"),
    (dict(source={k: A for k, A in state().items() if k != "norm.running_var"}), ValueError, "expected 1.running_var (1, 2) float32, got no such array"),
    (dict(net=[FullyConnected(2, "relu")]), TypeError, "expected a NeuralNetwork, got ["),
    (dict(input_shape=4), TypeError, "expected input_shape as a tuple"), (dict(input_shape=(4, 5.5, 1)), TypeError, "each size in input_shape"), (dict(input_shape=(0, 5, 1)), ValueError, "each size"),
    (dict(names="body"), ValueError, "got 'b'"),
    (dict(source=[np.ones(3)]), TypeError, "expected a module, arrays by name, or the path"),
    (dict(source="nowhere.safetensors", names=["a"]), FileNotFoundError, "nowhere.safetensors"),
])
def test_weights_that_do_not_fit_change_nothing(change, error, said):
    net = small()
    with pytest.raises(error) as e: from_torch(**dict(source=state(), net=net, input_shape=(4, 5, 1)) | change)
    assert said in str(e.value), e.value
    assert net.input_shape is None and not any(layer.parameters or layer.state for layer in net.layers)


def test_settings_of_a_module_are_compared(torch):
    net, _ = random_net([Conv2D(4, 3, "relu", stride=2, pad=1), BatchNorm1D(1e-5, 0.9), GroupNorm(2)], (2, 5, 5, 1))
    module = to_torch(net)
    for name, attribute, value in (("0", "stride", (1, 1)), ("0", "padding", (0, 0)), ("0", "padding", "valid"), ("0", "dilation", (2, 2)), ("1", "eps", 1e-3), ("1", "momentum", 0.9),
                                   ("1", "momentum", None), ("2", "num_groups", 4)):
        kept = getattr(module.get_submodule(name), attribute)
        setattr(module.get_submodule(name), attribute, value)
        with pytest.raises(ValueError, match=f"with {attribute}="): from_torch(module, net)
        setattr(module.get_submodule(name), attribute, kept)
    from_torch(module, net)


def test_what_has_no_counterpart_is_named(torch, tmp_path):
    class Mine:
        def forward(self, X): return X
        def backward(self, dY): return dY
    odd = [([FullyConnected(2, "linear"), Mine()], "layer 1"), ([Flatten("last"), FullyConnected(2, "linear")], "layer 0, Flatten(keep_dim='last')"),
           ([FullyConnected(2, type("Cube", (), dict(forward=lambda self, Z: Z**3, backward=lambda self, Z, dY: 3*Z*Z*dY))()), FullyConnected(2, "linear")], "layer 0")]
    for layers, said in odd:
        net, _ = random_net(layers, (3, 4))
        with pytest.raises(ValueError, match="which has none") as e: to_torch(net)
        assert said in str(e.value)
    net, _ = random_net([Flatten(), GroupNorm(2)], (3, 4, 4, 2))
    with pytest.raises(ValueError, match="layer 1, GroupNorm"): to_torch(net)
    with pytest.raises(RuntimeError, match="expected a forward pass before"): to_torch(small())
    with pytest.raises(TypeError, match="expected a NeuralNetwork"): to_torch(None)
    with pytest.raises(TypeError, match="expected head.bias of float32 or float64, got torch.bfloat16"):
        from_torch(state() | {"head.bias": torch.ones(12, dtype=torch.bfloat16)}, small(), input_shape=(4, 5, 1))


@pytest.mark.needs("onnx")
def test_onnx_refuses(tmp_path):
    import onnx
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
    file = tmp_path/"net.onnx"
    net, _ = random_net([FullyConnected(3, "softmax")], (4, 2), "cross_entropy")
    for arguments, said in ((dict(shift=[1, 2, 3]), "expected shift as one finite number or as (2,)"), (dict(scale=0), "above 0 for scale"), (dict(scale="x"), "expected scale"),
                            (dict(shift=np.nan), "expected shift"), (dict(classes=["a"]), "expected 3 class names")):
        with pytest.raises(ValueError) as e: export_onnx(net, file, **arguments)
        assert said in str(e.value)
    with pytest.raises(RuntimeError, match="expected a forward pass before"): export_onnx(small(), file)
    with pytest.raises(TypeError, match="expected a NeuralNetwork"): export_onnx(net.layers, file)
    for place in (tmp_path, tmp_path/"nowhere"/"net.onnx"):
        with pytest.raises(ValueError, match="expected the name of a file in a folder that exists"): export_onnx(net, place)
    odd, _ = random_net([Flatten("last"), FullyConnected(2, "linear")], (3, 4, 2))
    with pytest.raises(ValueError, match="got layer 0, Flatten"): export_onnx(odd, file)
    assert not file.exists()
    file.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="expected an ONNX file"): import_onnx(file)
    with pytest.raises(FileNotFoundError): import_onnx(tmp_path/"nowhere.onnx")

    def write(nodes, shape=("batch", 4), arrays=()):
        ends = [make_tensor_value_info(name, onnx.TensorProto.FLOAT, size) for name, size in (("x", shape), ("y", ("batch", 4)))]
        onnx.save(make_model(make_graph(nodes, "g", ends[:1], ends[1:], arrays), opset_imports=[make_opsetid("", 17)], ir_version=8), file)
    W = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "W")
    for nodes, said in (([make_node("Sin", ["x"], ["y"], "wave")], "got Sin 'wave': there is no such layer"), ([make_node("Relu", ["x"], ["y"], "act")], "got Relu 'act': an activation belongs to"),
                        ([make_node("Gemm", ["x", "W"], ["a"], "one"), make_node("Add", ["a", "x"], ["y"], "skip")], "got Add 'skip': it takes what is computed elsewhere"),
                        ([make_node("Gemm", ["x", "W"], ["y"], "one", alpha=0.5)], "got Gemm 'one': expected alpha=1.0, got 0.5")):
        write(nodes, arrays=[W]*("W" in str(nodes)))
        with pytest.raises(ValueError) as e: import_onnx(file)
        assert said in str(e.value), e.value
    write([make_node("Relu", ["x"], ["y"], "act")], ("batch", "n"))
    with pytest.raises(ValueError, match="a size for each axis but the first"): import_onnx(file)


def test_without_the_packages(monkeypatch):
    "The message says what brings them."
    import builtins
    found = builtins.__import__
    def lacking(name, *rest):
        if name in ("torch", "onnx") and not (rest and rest[-1]): raise ImportError(name)
        return found(name, *rest)
    monkeypatch.setattr(builtins, "__import__", lacking)
    from hwnn.interop import onnx, torch
    torch._torch.cache_clear()
    net, _ = random_net([FullyConnected(3, "softmax")], (4, 2), "cross_entropy")
    with pytest.raises(ImportError, match="pip install torch"): to_torch(net)
    with pytest.raises(ImportError, match="pip install onnx onnxruntime"): export_onnx(net, "net.onnx")
    with pytest.raises(ImportError, match="pip install onnx onnxruntime"): import_onnx("net.onnx")


# Files that are almost right ----------------------------------------------------------------------------------------------------------------

@pytest.mark.needs("onnx")
def test_spoiled_files_are_refused_or_read(tmp_path):
    "Bytes cut off, changed or doubled: a network, or a ValueError that says what was expected."
    net, _ = random_net(cnn()[0], (2, 17, 14, 3), "cross_entropy", dtype=np.float32)
    export_onnx(net, tmp_path/"net.onnx", 0.5, 2.0, list("abcde"))
    whole, rng = (tmp_path/"net.onnx").read_bytes(), np.random.default_rng(0)
    for trial in range(300):
        data = bytearray(whole)
        at = int(rng.integers(len(data))) if trial % 2 else int(rng.choice([rng.integers(200), len(data) - rng.integers(1, 4000)]))
        if trial % 3 == 0: data = data[:at]
        elif trial % 3 == 1: data[at] = int(rng.integers(256))
        else: data[at:at] = data[at:at + 7]
        (tmp_path/"spoiled.onnx").write_bytes(data)
        try: assert isinstance(import_onnx(tmp_path/"spoiled.onnx"), NeuralNetwork)
        except ValueError as e: assert "expected" in str(e), e


# Networks drawn at random -------------------------------------------------------------------------------------------------------------------

def drawn(seed):
    "A network of random layers, with a random input; one that does not fit is drawn again."
    rng = np.random.default_rng(seed)
    pick = lambda *things: things[rng.integers(len(things))]
    act = lambda: pick("linear", "relu", "tanh", "arctan", "silu", "softplus", "sigmoid", dict(name="leaky_relu", slope=0.2), dict(name="elu", alpha=0.5), dict(name="gelu", form=pick("exact", "tanh")))
    norm = lambda: pick(BatchNorm1D(pick(1e-5, 1e-3), pick(0.5, 0.9)), LayerNorm(0.01), Dropout(0.0))
    size = lambda: pick(1, 2, 3, (2, 3))
    pad = lambda: pick("same", "same_upper", "valid", 1, ((1, 0), (0, 1)))
    image = lambda: pick(Conv2D(4, size(), act(), pick(1, 2, (1, 2)), pad(), bias=bool(pick(0, 1))), Pool2D(pick(2, 3), pick("max", "average"), pick(1, 2), pad(), bool(pick(0, 1))),
                         GroupNorm(2, 0.01), norm(), norm())
    while True:
        layers = [*([Conv2D(4, 3, act())] if pick(0, 1) else []), *(image() for _ in range(rng.integers(5))), *([Pool2D("global", pick("max", "average"))] if pick(0, 0, 1) else []), Flatten(),
                  *(norm() for _ in range(rng.integers(3))), FullyConnected(int(rng.integers(2, 40)), act()), norm(), FullyConnected(3, "softmax")]
        try: return random_net(layers, (6, int(rng.integers(3, 9)), int(rng.integers(3, 9)), 4), "cross_entropy", seed)
        except ValueError: continue


@pytest.mark.parametrize("seed", range(40))
def test_networks_drawn_at_random(seed, torch):
    net, X = drawn(seed)
    module = to_torch(net).train()
    x, Y = torch.tensor(first(X)), np.eye(3)[np.arange(6) % 3]
    torch.nn.functional.cross_entropy(module[:-1](x), torch.tensor(Y)).backward()
    net.backward(Y, net.forward(X))
    kept = [{name: A.copy() for name, A in layer.parameters.items()} for layer in net.layers]
    for layer in net.layers: layer.parameters.update(layer.gradients)
    for name, g in torch_arrays(net).items():
        if "running" not in name: np.testing.assert_allclose(g, module.get_parameter(name).grad.numpy(), rtol=1e-8, atol=1e-10, err_msg=f"{name} {net}")
    for layer, parameters in zip(net.layers, kept): layer.parameters.update(parameters)
    np.testing.assert_allclose(to_torch(net)(x).detach().numpy(), net.predict(X), rtol=1e-10, atol=1e-13, err_msg=str(net))


@pytest.mark.needs("onnx")
@pytest.mark.parametrize("seed", range(40))
def test_files_of_networks_drawn_at_random(seed, tmp_path):
    net, X = drawn(seed)
    X = X.astype(np.float32)
    for layer in net.layers:
        for d in (layer.parameters, layer.state): d.update({name: A.astype(np.float32) for name, A in d.items()})
    export_onnx(net, tmp_path/"net.onnx")
    close(net.predict(X), run(tmp_path/"net.onnx", X), 1e-5)
    close(net.predict(X), import_onnx(tmp_path/"net.onnx").predict(X), 1e-5)
