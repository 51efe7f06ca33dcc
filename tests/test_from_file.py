"""A file gives back the network that wrote it, and one that is malformed or hostile gives a sentence: no code, no memory, no change."""
import json
import random
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import hwnn.losses
from hwnn.activations import ACTIVATIONS, Activation
from hwnn.datasets import iris
from hwnn.layers import LAYERS, BatchNorm1D, Conv2D, Dropout, Flatten, FullyConnected, Layer, LayerNorm, Pool2D
from hwnn.layers.groupnorm import GroupNorm
from hwnn.models import NeuralNetwork
from hwnn.weights import WEIGHTS, Normal, Sparse

f32 = np.float32


def images(*last):
    return [Conv2D(4, (3, 2), "relu", (2, 1), ((1, 0), (2, 1)), "he_normal"), BatchNorm1D(1e-5, 0.8), Conv2D(3, 2, None, 2, "same_upper", bias=False),
            Pool2D(2, "average", 1, 1, False), LayerNorm(), Dropout(0.3), Conv2D(4, 1, "elu"), GroupNorm(2), Pool2D(2, stride=2, ceil_mode=True),
            Flatten(), FullyConnected(5, "gelu", Normal(0, 0.1), False), FullyConnected(*last)]


NETS = {
    "dense": (lambda: NeuralNetwork([FullyConnected(4, "tanh"), FullyConnected(3, "softmax")], dict(name="cross_entropy", smoothing=0.2)), (4,)),
    "images": (lambda: NeuralNetwork(images(3, "softmax")), (9, 8, 2)),
    "global": (lambda: NeuralNetwork([Conv2D(3, 3, "silu"), Pool2D("global", "average"), Flatten(), FullyConnected(2, None, Sparse(0.5))], "l2"), (6, 6, 1)),
    "pixels": (lambda: NeuralNetwork([Conv2D(2, 3, dict(name="leaky_relu", slope=0.2)), Flatten("last"), FullyConnected(2, "linear")], dict(name="huber", delta=0.5)), (4, 4, 1)),
    "weights": (lambda: NeuralNetwork([FullyConnected(3, "softmax")], hwnn.losses.CrossEntropy(class_weights=np.array([1.0, 2.0, 0.5]))), (4,)),
    "logits": (lambda: NeuralNetwork([FullyConnected(3, "linear")], dict(name="softmax_cross_entropy", smoothing=0.1)), (4,)),
}


def saved(name, path, dtype=f32):
    make, shape = NETS[name]
    net, X = make(), np.random.default_rng(0).normal(size=(4, *shape)).astype(dtype)
    net.forward(X)
    net.save(path)
    return net, X


@pytest.mark.parametrize("dtype", [f32, np.float64])
@pytest.mark.parametrize("name", NETS)
def test_round_trip(tmp_path, name, dtype):
    net, X = saved(name, tmp_path/"net", dtype)
    again = NeuralNetwork.from_file(tmp_path/"net")
    assert repr(again.layers) == repr(net.layers) and vars(again.loss).keys() == vars(net.loss).keys()
    assert again.input_shape == net.input_shape and again.preparation is None
    assert np.array_equal(again.predict(X), net.predict(X))
    for layer in again.layers: assert all(A.dtype == dtype for A in (*layer.parameters.values(), *layer.state.values()))
    again.save(tmp_path/"again")   # saying the same of itself
    assert (tmp_path/"again").read_bytes() == (tmp_path/"net").read_bytes()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("init", WEIGHTS)
def test_every_activation_and_initialiser(tmp_path, name, init):
    net = NeuralNetwork([FullyConnected(4, name, init), FullyConnected(2, "linear")], "l2")
    net.forward(np.ones((2, 3), f32))
    net.save(tmp_path/"net")
    assert repr(NeuralNetwork.from_file(tmp_path/"net").layers) == repr(net.layers)


def test_training_goes_on(tmp_path):
    flowers = iris(batch_size=15)
    net = NeuralNetwork([FullyConnected(4, "tanh"), FullyConnected(3, "softmax")])
    net.train(flowers, 2)
    net.save(tmp_path/"net")
    again = NeuralNetwork.from_file(tmp_path/"net")
    assert again.preparation == flowers.preparation and again.test(flowers) == net.test(flowers)
    again.train(flowers, 1)


# A layer of one's own: found by its name once it is in the table
class Twice(Layer):
    "A learned factor."
    def __init__(self, start: float = 2.0):
        super().__init__()
        self.start = start

    def forward(self, X, mode="train"):
        if self.n_in is None: self.n_in, self.parameters["factor"] = X.shape[-1], np.full((1, X.shape[-1]), self.start, X.dtype)
        self.cache["X"] = X
        return X*self.parameters["factor"]


class Odd(Activation):
    def __init__(self, hook): self.hook = hook   # a function, for which JSON has no word
    def _forward(self, Z): return Z**3
    def _backward(self, Z, dY): return 3*Z*Z*dY


def test_own_classes(tmp_path, monkeypatch):
    net = NeuralNetwork([Twice(3.0), FullyConnected(2, "linear")], "l2")
    net.forward(np.ones((2, 3), f32))
    net.save(tmp_path/"net")
    with pytest.raises(ValueError, match=r"got: 'Twice', which is in none of the tables .*; import '.*test_from_file.Twice' and put it there first"):
        NeuralNetwork.from_file(tmp_path/"net")
    monkeypatch.setitem(LAYERS, "Twice", Twice)
    again = NeuralNetwork.from_file(tmp_path/"net")
    assert again.layers[0].start == 3.0 and np.array_equal(again.predict(np.ones((1, 3), f32)), net.predict(np.ones((1, 3), f32)))
    odd = NeuralNetwork([FullyConnected(2, Odd(print))], "l2")
    odd.forward(np.ones((2, 3), f32))
    odd.save(tmp_path/"odd")   # works, whatever it holds
    with pytest.raises(ValueError, match="'Odd', which is in none"): NeuralNetwork.from_file(tmp_path/"odd")


def rewritten(path, change=lambda network: network, arrays=lambda arrays: arrays):
    raw = path.read_bytes()
    network = change(json.loads(json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["network"]))
    other = path.with_name("other")
    save_file(arrays(load_file(path)), other, {"network": network if isinstance(network, str) else json.dumps(network)})
    return other


def put(*way):
    *way, last, value = way
    def change(network):
        place = network
        for key in way: place = place[key]
        place[last] = value
        return network
    return change


dense = lambda **words: dict(name="fully_connected", n_out=3, activation="softmax", **words)
CHANGES = {
    "no JSON": (lambda network: "{", "expected a description in JSON of version 1"),
    "deep": (lambda network: "["*100_000, "in JSON of version 1"),
    "deep inside": (lambda network: '{"version": 1, "loss": "l2", "preparation": null, "input_shape": [4], "layers": [' + "["*500 + "]"*500 + "]}", "that can be made"),
    "long number": (lambda network: '{"version": ' + "1"*5000 + "}", "in JSON of version 1"),
    "list": (lambda network: [], "in JSON of version 1"),
    "version": (put("version", 2), "in JSON of version 1"),
    "version text": (put("version", "1"), "in JSON of version 1"),
    "more": (put("code", "import os"), "expected a description with a list layers"),
    "no list": (put("layers", {}), "expected a description with a list layers"),
    "no layers": (put("layers", []), "expected a list of at least one layer"),
    "layer null": (put("layers", 0, None), "that can be made, got: layer"),
    "layer number": (put("layers", 0, 7), "that can be made, got: layer"),
    "layer without name": (put("layers", 0, {}), "a dict with the key 'name'"),
    "layer unknown": (put("layers", 0, "name", "os.system"), "expected name to be one of"),
    "layer name list": (put("layers", 0, "name", ["dropout"]), "expected name as a string"),
    "layer from elsewhere": (put("layers", 0, {"name": "system", "class": "os.system"}), "'system', which is in none of the tables"),
    "argument unknown": (put("layers", 0, "units", 3), "expected arguments among"),
    "argument negative": (put("layers", 0, "n_out", -3), "expected n_out as an integer at least 1, got -3"),
    "argument text": (put("layers", 0, "n_out", "3"), "expected n_out as an integer at least 1"),
    "argument nested": (put("layers", 0, "n_out", {"name": "relu"}), "expected n_out as an integer at least 1"),
    "argument infinite": (put("layers", 0, dict(name="dropout", rate=float("inf"))), "expected rate as a number"),
    "argument huge": (put("layers", 0, dict(name="dropout", rate=10**400)), "expected rate as a number"),
    "activation": (put("layers", 0, "activation", "__import__"), "expected name to be one of"),
    "activation arguments": (put("layers", 0, "activation", dict(name="relu", slope=1)), "expected arguments among"),
    "loss": (put("loss", "nothing"), "expected name to be one of"),
    "loss null": (put("loss", None), "that can be made"),
    "order": (put("layers", [dense(), dict(name="flatten"), dense()]), "expected 0.W (4, 3) float32, got (4, 4) float32"),
    "one more": (lambda network: put("layers", [*network["layers"], dense()])(network), "expected 2.W (3, 3) float32, got no such array"),
    "one less": (lambda network: put("layers", [dense(weight_init="zeros") | dict(n_out=4)])(network), "expected 1.W no such array"),
    "images": (put("layers", 0, dict(name="conv2d", n_out=4, kernel_shape=3, activation=None)), "Conv2D: expected input (batch, rows, cols, channels), got (batch, 4)"),
    "wide": (put("layers", 0, "n_out", 10**12), "expected 0.W (4, 1000000000000) float32, got (4, 4) float32"),
    "bias": (put("layers", 0, "bias", False), "expected 0.b no such array, got (1, 4) float32"),
    "preparation": (put("preparation", 3), "expected a preparation with shift, scale, features and classes"),
    "preparation empty": (put("preparation", {}), "expected a preparation with shift, scale, features and classes"),
    "scale 0": (put("preparation", dict(shift=0, scale=[1, 0], features=None, classes=None)), "scale as finite numbers, positive"),
    "scale nested": (put("preparation", dict(shift=0, scale=[[1]], features=None, classes=None)), "scale as finite numbers, positive"),
    "shift nan": (put("preparation", dict(shift=float("nan"), scale=1, features=None, classes=None)), "shift as finite numbers"),
    "shift text": (put("preparation", dict(shift="0", scale=1, features=None, classes=None)), "shift as finite numbers"),
    "classes": (put("preparation", dict(shift=0, scale=1, features=None, classes=[1, 2])), "classes as a list of names"),
    "features": (put("preparation", dict(shift=0, scale=1, features="abcd", classes=None)), "features as a list of names"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_malformed_descriptions(tmp_path, name):
    saved("dense", tmp_path/"net")
    change, message = CHANGES[name]
    with pytest.raises(ValueError) as e: NeuralNetwork.from_file(rewritten(tmp_path/"net", change))
    text = str(e.value)
    assert text.startswith("NeuralNetwork: expected") or "Conv2D" in text, text
    assert message in text and len(text) < 1000 and "\n" not in text, text


SHAPES = {"zero": [0], "negative": [-4], "float": [4.0], "text": "4", "flag": [True], "nested": [[4]], "many": [1]*50, "empty": [], "null": None,
          "huge": [10**9], "other": [5], "image": [2, 2, 1]}
OLD = {"digits": "4"*5000, "zero": "0", "Arabic": "1\u0663", "Arabic alone": "\u0664", "negative": "-4", "many": "1 "*50 + "1", "empty": "", "list": "[4]", "other": "5",
       "image": "2 2 1"}


@pytest.mark.parametrize("name, older", [*((name, False) for name in SHAPES), *((name, True) for name in OLD)])
def test_input_shapes_that_do_not_fit(tmp_path, name, older):
    net, X = saved("dense", tmp_path/"net")
    fresh = NETS["dense"][0]()
    if older: save_file(load_file(tmp_path/"net"), other := tmp_path/"other", {"input_shape": OLD[name]})
    else: other = rewritten(tmp_path/"net", put("input_shape", SHAPES[name]))
    for call in (lambda: NeuralNetwork.from_file(other), lambda: fresh.load(other))[older:]:
        with pytest.raises(ValueError, match="expected (an input_shape|0.W|input)") as e: call()
        assert len(str(e.value)) < 400
    assert fresh.input_shape is None and not any(layer.parameters for layer in fresh.layers)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(tmp_path, value):
    net, X = saved("images", tmp_path/"net")
    before = net.predict(X)
    other = rewritten(tmp_path/"net", arrays=lambda arrays: arrays | {"1.running_var": np.full_like(arrays["1.running_var"], value)})
    for call in (lambda: NeuralNetwork.from_file(other), lambda: net.load(other)):
        with pytest.raises(ValueError, match="expected finite 1.running_var"): call()
    assert np.array_equal(net.predict(X), before)


def test_no_more_memory_than_the_file_justifies(tmp_path):
    saved("images", tmp_path/"net")
    huge = 10**9
    for change, shape in ((put("layers", 0, "n_out", huge), None), (put("layers", 0, "kernel_shape", [huge, huge]), None), (put("layers", 3, "pad", huge), None),
                          (put("layers", 0, "pad", huge), None), (lambda network: network, [999_999_999, 999_999_999, 2]), (put("layers", 10, "n_out", huge), None)):
        if shape: change = put("input_shape", shape)
        other = rewritten(tmp_path/"net", change)
        tracemalloc.start()
        with pytest.raises(ValueError): NeuralNetwork.from_file(other)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**21, (peak, shape)


def test_old_and_foreign_files(tmp_path):
    net, X = saved("dense", tmp_path/"net")
    save_file(load_file(tmp_path/"net"), tmp_path/"old", {"input_shape": "4"})
    with pytest.raises(ValueError, match=r"got a file without, from an older version or another program; make the network in code, and use load\(path\)"):
        NeuralNetwork.from_file(tmp_path/"old")
    fresh = NETS["dense"][0]()
    fresh.load(tmp_path/"old")
    assert np.array_equal(fresh.predict(X), net.predict(X))
    with pytest.raises(FileNotFoundError): NeuralNetwork.from_file(tmp_path/"nothing")
    for path in (None, 3, b"net"):
        with pytest.raises(TypeError, match="expected the path of a safetensors file"): NeuralNetwork.from_file(path)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F16", "I64", "C64"])
def test_other_dtypes(tmp_path, dtype):
    saved("dense", tmp_path/"net")
    raw = (tmp_path/"net").read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header, at = json.loads(raw[8:8 + n]), 0
    size = dict(BF16=2, F8_E4M3=1, F16=2, I64=8, C64=8)[dtype]
    for name in sorted(key for key in header if key != "__metadata__"):
        bytes_ = int(np.prod(header[name]["shape"]))*size
        header[name].update(dtype=dtype, data_offsets=[at, at + bytes_])
        at += bytes_
    text = json.dumps(header).encode()
    (tmp_path/"other").write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
    with pytest.raises(ValueError, match="NeuralNetwork: expected"): NeuralNetwork.from_file(tmp_path/"other")


def test_mutated_files_raise_what_is_documented(tmp_path):
    net, X = saved("images", tmp_path/"net")
    raw, rng = (tmp_path/"net").read_bytes(), random.Random(0)
    n = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(300):
        b = bytearray(raw)
        for _ in range(rng.choice((1, 1, 3))):
            at, kind = rng.randrange(n), rng.randrange(3)
            if kind == 0: b[at] = rng.randrange(256)
            elif kind == 1: del b[at:at + rng.randrange(1, 9)]
            else: b[at:at] = bytes(rng.choices(b'0123456789-[]{}",:enulltrue', k=rng.randrange(1, 5)))
        if rng.random() < 0.7: b[:8] = (n - 8 + len(b) - len(raw)).to_bytes(8, "little")   # so that what is inside is looked at
        (tmp_path/"other").write_bytes(b)
        try: again = NeuralNetwork.from_file(tmp_path/"other")
        except ValueError as e: assert "expected" in str(e), e
        else: assert len(again.layers) == len(net.layers)


# The body of one network, and another head
def test_some_layers(tmp_path):
    net, X = saved("images", tmp_path/"net")
    other = NeuralNetwork(images(7, "softmax"))
    other.load(tmp_path/"net", layers=range(11))
    for k in range(11):
        for ours, theirs in ((other.layers[k].parameters, net.layers[k].parameters), (other.layers[k].state, net.layers[k].state)):
            assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert not other.layers[11].parameters and other.input_shape is None
    assert other.forward(X).shape == (4, 7)
    before = {k: {key: A.copy() for key, A in other.layers[k].parameters.items()} for k in range(12)}
    with pytest.raises(ValueError, match=r"expected 11.W \(5, 7\) float32, got \(5, 3\) float32"): other.load(tmp_path/"net", layers=[0, 11])
    with pytest.raises(ValueError, match="expected 11.W"): other.load(tmp_path/"net")
    for k, arrays in before.items(): assert all(np.array_equal(arrays[key], other.layers[k].parameters[key]) for key in arrays)


@pytest.mark.parametrize("layers, error", [([], TypeError), ("01", TypeError), (0, TypeError), ([12], ValueError), ([-1], ValueError), ([True], TypeError), ([0.0], TypeError), (["0"], TypeError)])
def test_layers_that_there_are_not(tmp_path, layers, error):
    net, X = saved("images", tmp_path/"net")
    with pytest.raises(error, match="NeuralNetwork: expected"): net.load(tmp_path/"net", layers=layers)
