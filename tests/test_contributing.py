"""What CONTRIBUTING.md shows of new components, run as it stands there."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwnn.all import NeuralNetwork, check_gradients, initialize_layer, initialize_loss, initialize_optimizer
from hwnn.layers.base import LAYERS, Layer, check_gradient, check_input
from hwnn.losses import LOSSES, Loss, check_pair
from hwnn.optimizers import OPTIMIZERS, Optimizer

root = Path(__file__).resolve().parent.parent
text = (root/"CONTRIBUTING.md").read_text(encoding="utf-8")
section = text.split("## A new layer, activation, loss or optimizer")[1].split("\n## ")[0]
LINES = re.findall(r"\| `((?:LAYERS|LOSSES|OPTIMIZERS|ACTIVATIONS)\[.*?)` \|", section)


def run(code, folder, package=root):
    env = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{folder}"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_activation_in_full(tmp_path):
    "One file, saved under the name that the text gives it, and the check that follows."
    module, use = re.findall(r"(?s)```python\n(.*?)```", section)
    name, = re.findall(r"An activation in full, `(.*?)`", section)
    (tmp_path/name).write_text(module, encoding="utf-8")
    run(use + "\nassert net.history.train_loss[-1] < net.history.train_loss[0]", tmp_path)
    assert LINES[0] in module


class Scale(Layer):
    "One learned factor."
    def forward(self, X, mode="train"):
        check_input(self, X, mode, "batch", "features")
        if not self.parameters: self.parameters["a"] = np.full((1, 1), 2, X.real.dtype)
        self.n_in = self.n_out = X.shape[1]
        self.cache.update(X=X, Y=X*self.parameters["a"])
        return self.cache["Y"]

    def backward(self, dLdY, at_Z=False, skip_dX=False):
        check_gradient(self, dLdY, "Y")
        self.gradients["a"] = (dLdY*self.cache["X"]).sum(keepdims=True)
        return None if skip_dX else dLdY*self.parameters["a"]


class LogCosh(Loss):
    def __init__(self, name="log_cosh"): super().__init__(name)
    def _forward(self, Y, Y_hat): return np.log(np.cosh(Y_hat - check_pair("LogCosh", "targets", Y, "predictions", Y_hat)))
    def _backward(self, Y, Y_hat): return np.tanh(Y_hat - Y)/Y_hat.size


class Sign(Optimizer):
    def __init__(self, lr=0.01):
        super().__init__()
        self.lr = lr

    def update(self, param_name, param, param_grad, epoch): return self.lr*np.sign(param_grad)


@pytest.fixture
def registered():
    "The lines of the other three families, each run as it stands in the table; the tables are as before afterwards."
    before = [(table, dict(table)) for table in (LAYERS, LOSSES, OPTIMIZERS)]
    for line in LINES[1:]: exec(line, globals())
    yield
    for table, held in before:
        table.clear()
        table.update(held)


def test_the_lines_of_the_others(registered):
    assert len(LINES) == 4
    rng = np.random.default_rng(0)
    X, dY, Y = rng.normal(size=(3, 5, 2))
    layer, loss = initialize_layer("scale"), initialize_loss("log_cosh")
    layer.forward(X)
    assert check_gradients(layer.forward, layer.backward(dY), X, dY) < 1e-7
    assert check_gradients(layer.forward_with_param("a", X), layer.gradients["a"], layer.parameters["a"], dY) < 1e-7
    assert check_gradients(lambda A: np.float64(loss.forward(Y, A)), loss.backward(Y, X), X, 1.0) < 1e-7
    assert (initialize_optimizer("sign", lr=0.5).update("0.a", X, dY, 0) == 0.5*np.sign(dY)).all()


def test_a_network_takes_them_by_name(registered):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8, 3))
    net = NeuralNetwork(["scale", dict(name="fully_connected", n_out=2, activation="linear")], loss="log_cosh", optimizer=dict(name="sign", lr=0.01))
    losses = []
    for epoch in range(20):
        losses.append(net.backward(X[:, :2], net.forward(X)))
        net.update(epoch)
    assert losses[-1] < losses[0]


def test_a_layer_of_the_library(tmp_path):
    "A module that ends in its line of the table, and its import in hwnn/layers/__init__.py: nothing else."
    shutil.copytree(root/"hwnn", tmp_path/"hwnn", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path/"hwnn/layers/scale.py").write_text("from .base import LAYERS, Layer\n\nclass Scale(Layer): pass\n\nLAYERS['scale'] = Scale\n")
    start = tmp_path/"hwnn/layers/__init__.py"
    start.write_text(start.read_text().replace("from .pooling", "from .scale import Scale\nfrom .pooling"))
    run("from hwnn.all import *\nassert type(initialize_layer('scale')) is Scale", tmp_path, tmp_path)
