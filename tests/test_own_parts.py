"""Objects of another make in hwnn's networks: as they are written by students, with what they lack and what they do otherwise."""
import re
from collections import OrderedDict
from copy import deepcopy

import numpy as np
import pytest

from hwnn.activations import initialize_activation
from hwnn.datasets import Dataset, iris
from hwnn.gradcheck import check_gradients
from hwnn.layers import BatchNorm1D, FullyConnected, initialize_layer
from hwnn.losses import initialize_loss
from hwnn.models import NeuralNetwork
from hwnn.optimizers import initialize_optimizer
from hwnn.weights import initialize_weights


class CourseLayer:
    "The base class of a student: its own dicts, and a clear_gradients that empties the cache."
    def __init__(self): self.activation, self.n_in, self.n_out, self.parameters, self.cache, self.gradients = None, None, None, {}, {}, {}

    def clear_gradients(self):
        self.cache = OrderedDict((k, []) for k in self.cache)
        self.gradients = OrderedDict((k, np.zeros_like(g)) for k, g in self.gradients.items())


class Dense(CourseLayer):
    def __init__(self, n_out, activation="linear"):
        super().__init__()
        self.n_out, self.activation = n_out, initialize_activation(activation)

    def _init_parameters(self, shape):
        self.n_in = shape[1]
        W = np.random.default_rng(1).normal(size=(self.n_in, self.n_out))/2
        self.parameters = OrderedDict(W=W, b=np.zeros((1, self.n_out)))

    def forward(self, X):
        if self.n_in is None: self._init_parameters(X.shape)
        Z = X @ self.parameters["W"] + self.parameters["b"]
        self.cache["X"], self.cache["Z"] = X, Z
        return self.activation(Z)

    def backward(self, dLdY):
        dLdZ = self.activation.backward(self.cache["Z"], dLdY.astype(self.cache["Z"].dtype))
        self.gradients["W"] = self.cache["X"].T @ dLdZ
        self.gradients["b"] = dLdZ.sum(axis=0)   # (n_out,), where b is (1, n_out)
        return dLdZ @ self.parameters["W"].T


class CacheNorm(CourseLayer):
    "Batch norm with the running statistics in the cache, as the assignment has it."
    def forward(self, X, mode="train"):
        if not self.parameters:
            self.parameters = dict(gamma=np.ones((1, X.shape[1])), beta=np.zeros((1, X.shape[1])))
            self.cache.update(mu=np.zeros(X.shape[1]), var=np.zeros(X.shape[1]))
        if mode == "train":
            mu, var = X.mean(axis=0), X.var(axis=0)
            self.cache.update(mu=0.9*self.cache["mu"] + 0.1*mu, var=0.9*self.cache["var"] + 0.1*var)
        else: mu, var = self.cache["mu"], self.cache["var"]
        X_hat = (X - mu)/np.sqrt(var + 1e-8)
        self.cache.update(X_hat=X_hat, s=np.sqrt(var + 1e-8))
        return self.parameters["gamma"]*X_hat + self.parameters["beta"]

    def backward(self, dY):
        X_hat = self.cache["X_hat"]
        self.gradients = dict(gamma=(dY*X_hat).sum(axis=0), beta=dY.sum(axis=0))
        d = dY*self.parameters["gamma"]
        return (d - d.mean(axis=0) - X_hat*(d*X_hat).mean(axis=0))/self.cache["s"]


class TanH:
    def forward(self, Z): return np.tanh(Z)
    def backward(self, Z, dY): return dY*(1 - np.tanh(Z)**2)


class Softmax:
    def forward(self, Z):
        E = np.exp(Z - Z.max(axis=1, keepdims=True))
        return E/E.sum(axis=1, keepdims=True)

    def backward(self, Z, dY):
        P = self.forward(Z)
        return P*(dY - (P*dY).sum(axis=1, keepdims=True))


class CrossEntropy:
    name = "cross_entropy"
    def forward(self, Y, Y_hat): return -np.mean(np.sum(Y*np.log(Y_hat + 1e-15), axis=1))
    def backward(self, Y, Y_hat): return -Y/(Y_hat + 1e-15)/Y_hat.shape[0]


class Momentum:
    "A student's optimizer, which clips each gradient by itself and has a scheduler that is called."
    def __init__(self, lr=0.1):
        self.lr, self.lr_scheduler, self.cache, self.clip_norm = lr, lambda epoch: lr*0.9**epoch, {}, 1.0

    def update(self, param_name, param, param_grad, epoch):
        norm = np.linalg.norm(param_grad)
        if norm > self.clip_norm: param_grad = param_grad*self.clip_norm/norm
        delta = 0.9*self.cache.get(param_name, np.zeros_like(param)) + self.lr_scheduler(epoch)*param_grad
        self.cache[param_name] = delta
        return delta


class Plain:
    def update(self, name, w, g, epoch): return 0.1*g


def check(layer, X, dY):
    layer.forward(X)
    errors = [check_gradients(layer.forward, layer.backward(dY), X, dY)]
    for name in layer.parameters:
        errors.append(check_gradients(layer.forward_with_param(name, X), layer.gradients[name], layer.parameters[name], dY))
    return max(errors)


X, dY = np.random.default_rng(0).normal(size=(2, 6, 4))


@pytest.mark.parametrize("layer", [Dense(4), Dense(4, "tanh"), Dense(4, TanH()), CacheNorm()], ids=["dense", "tanh", "own activation", "batch norm"])
def test_gradient_checks_and_leaves_the_object(layer):
    layer.forward(X)
    before = deepcopy(vars(layer))
    taken = initialize_layer(layer)
    assert check(taken, X, dY) < 1e-7 and taken.own is layer
    for name, p in before["parameters"].items(): np.testing.assert_array_equal(layer.parameters[name], p)


LAST = FullyConnected(3, "softmax"), Dense(3, "softmax"), Dense(3, Softmax())


@pytest.mark.parametrize("last", LAST, ids=["ours", "theirs", "theirs with theirs"])
@pytest.mark.parametrize("loss", ["cross_entropy", CrossEntropy()], ids=["our loss", "their loss"])
@pytest.mark.parametrize("optimizer", ["SGD", "adam", Momentum(), Plain()], ids=["SGD", "adam", "momentum", "plain"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_mixture_learns(last, loss, optimizer, dtype):
    if optimizer == "adam": optimizer = dict(name="adam", lr=0.02)
    if optimizer == "SGD": optimizer = dict(name="SGD", lr=0.2)
    net = NeuralNetwork([FullyConnected(8, TanH()), Dense(8, "tanh"), deepcopy(last)], loss, optimizer)
    history = net.train(iris(batch_size=20, dtype=dtype), epochs=15)
    assert history.train_loss[-1] < 0.8*history.train_loss[0]
    result = net.test(iris(dtype=dtype))
    assert result["error"] < 0.5 and net.predict(iris(dtype=dtype).test.X).dtype == dtype


def test_statistics_in_a_cache_survive_and_mode_arrives():
    net = NeuralNetwork([FullyConnected(8, "linear"), CacheNorm(), FullyConnected(3, "softmax")], optimizer=dict(name="SGD", lr=0.1))
    net.train(iris(batch_size=30), epochs=40)
    X = iris().test.X
    np.testing.assert_allclose(net.predict(X[:1]), net.predict(X)[:1], rtol=1e-4)
    assert net.test(iris())["error"] < 0.3


def test_a_layer_of_ours_and_one_of_theirs_train_alike():
    def losses(middle):
        net = NeuralNetwork([FullyConnected(8, "tanh"), middle, FullyConnected(3, "softmax")], seed=3)
        return net.train(iris(batch_size=20, dtype=np.float64), epochs=3).train_loss
    ours = FullyConnected(8, "linear", weight_init=lambda shape: np.random.default_rng(1).normal(size=shape)/2)
    np.testing.assert_allclose(losses(Dense(8)), losses(ours), rtol=1e-9)


def test_gradients_that_add_up_start_from_zero():
    class Adding(Dense):
        def backward(self, dLdY):
            old = dict(self.gradients)
            dX = super().backward(dLdY)
            self.gradients = {k: g + old.get(k, 0) for k, g in self.gradients.items()}
            return dX
    def losses(layer): return NeuralNetwork([layer, FullyConnected(3, "softmax")]).train(iris(batch_size=20), epochs=3).train_loss
    assert losses(Adding(8)) == losses(Dense(8))


def test_their_clipping_is_theirs():
    seen = []
    class Watching(Plain):
        clip_norm = 1e-6
        def update(self, name, w, g, epoch):
            seen.append(np.linalg.norm(g))
            return 0.1*g
    NeuralNetwork([FullyConnected(3, "softmax")], optimizer=Watching()).train(iris(batch_size=30), epochs=1)
    assert max(seen) > 1e-3


def test_learning_rates_in_the_history():
    def rates(optimizer): return NeuralNetwork([FullyConnected(3, "softmax")], optimizer=optimizer).train(iris(batch_size=30), epochs=2).lr
    np.testing.assert_allclose(rates(Momentum(0.1)), [0.1, 0.09])
    assert np.isnan(rates(Plain())).all()


def test_frozen_and_without_parameters():
    class Negate:
        def forward(self, X): return -X
        def backward(self, dLdY): return -dLdY
    frozen = Dense(8)
    net = NeuralNetwork([Negate(), frozen, Negate(), FullyConnected(3, "softmax")])
    net.layers[1].trainable = False
    net.forward(iris().train.X)
    before = frozen.parameters["W"].copy()
    net.train(iris(batch_size=30), epochs=2)
    np.testing.assert_array_equal(frozen.parameters["W"], before)


def test_a_failed_training_puts_their_parameters_back():
    class Exploding(Plain):
        calls = 0
        def update(self, name, w, g, epoch):
            self.calls += 1
            return g*(0.1 if self.calls <= 12 else np.inf)
    layer = Dense(8)
    net = NeuralNetwork([layer, FullyConnected(3, "softmax")], optimizer=Exploding())
    with pytest.raises(FloatingPointError), np.errstate(all="ignore"): net.train(iris(batch_size=30), epochs=5)
    assert np.isfinite(layer.parameters["W"]).all()


class NoBackward:
    def forward(self, X): return X


class Returns:
    def __init__(self, Y=None, dX=None): self.Y, self.dX = Y, dX
    def forward(self, X): return self.Y if self.Y is not None else X
    def backward(self, dLdY): return self.dX


class Loss2(CrossEntropy):
    def forward(self, Y, Y_hat): return (Y - Y_hat)**2


class Step:
    def __init__(self, step): self.step = step
    def update(self, name, w, g, epoch): return self.step(w, g)


def backward_of(thing):
    layer = initialize_layer(thing)
    layer.forward(X)
    return layer.backward(X)


REFUSED = {
    "no backward": (lambda: NeuralNetwork([NoBackward()]), TypeError, "layer: expected name as a string, or an object with the methods forward, backward, got", "lacks backward"),
    "nothing": (lambda: NeuralNetwork([object()]), TypeError, "layer:", "which lacks forward, backward"),
    "none": (lambda: NeuralNetwork([None]), TypeError, "expected name as a string", "got None"),
    "a class": (lambda: NeuralNetwork([Dense]), TypeError, "layer: expected an object, got the class Dense", "Dense(...) makes one"),
    "a class of ours": (lambda: NeuralNetwork([BatchNorm1D]), TypeError, "got the class BatchNorm1D", ""),
    "a function as activation": (lambda: FullyConnected(3, np.tanh), TypeError, "activation:", "lacks forward, backward"),
    "half an activation": (lambda: FullyConnected(3, NoBackward()), TypeError, "activation:", "lacks backward"),
    "half a loss": (lambda: NeuralNetwork([FullyConnected(3, None)], NoBackward()), TypeError, "loss:", "lacks backward"),
    "no optimizer": (lambda: initialize_optimizer(NoBackward()), TypeError, "optimizer:", "lacks update"),
    "forward returns none": (lambda: initialize_layer(Returns(Y=[1.0])).forward(X), TypeError, "Returns: expected forward to return an array, got [1.0]", ""),
    "backward returns none": (lambda: backward_of(Returns()), TypeError, "Returns: expected backward to return an array (6, 4), got None", ""),
    "backward of another shape": (lambda: backward_of(Returns(dX=X[0])), ValueError, "Returns: expected backward to return an array (6, 4), got (4,)", ""),
    "backward first": (lambda: initialize_layer(Dense(4)).backward(X), RuntimeError, "Dense: expected a forward pass before backward", ""),
    "loss of an array": (lambda: initialize_loss(Loss2())(X, X), TypeError, "Loss2: expected forward to return one number, the mean over the batch, got ndarray (6, 4)", ""),
    "no step": (lambda: initialize_optimizer(Step(lambda w, g: None)).update("W", X, X, 0), TypeError, "Step: expected update to return an array (6, 4), got None", ""),
    "the parameter": (lambda: initialize_optimizer(Step(lambda w, g: w)).update("W", X, X, 0), ValueError, "Step: expected update to return the step", ""),
    "an initialiser's shape": (lambda: initialize_weights(lambda shape: np.ones(3))((2, 3)), ValueError, "to return an array (2, 3), got (3,)", ""),
    "weights of examples": (lambda: initialize_loss(CrossEntropy()).forward(np.eye(3), np.eye(3), np.ones(3)), TypeError, "CrossEntropy: expected no weights", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, kind, *texts = REFUSED[case]
    with pytest.raises(kind) as caught: call()
    for text in texts: assert text in str(caught.value)
    assert not re.search("\n", str(caught.value))


def test_networks_see_one_object_once():
    layer = Dense(4)
    with pytest.raises(ValueError, match="each layer once"): NeuralNetwork([layer, layer])


def test_a_summary_names_them():
    net = NeuralNetwork([Dense(8), FullyConnected(3, "softmax")])
    net.train(iris(batch_size=30), epochs=1)
    assert "Dense" in net.summary() and "Dense(n_out=8" in repr(net)


def test_save_and_load(tmp_path):
    def network(): return NeuralNetwork([Dense(8), FullyConnected(3, "softmax")])
    net, other, X = network(), network(), iris(dtype=np.float64).test.X
    net.train(iris(batch_size=30, dtype=np.float64), epochs=2)
    net.save(tmp_path/"net.safetensors")
    other.load(tmp_path/"net.safetensors")
    np.testing.assert_array_equal(other.predict(X), net.predict(X))


def test_integer_labels_meet_one_hot_in_their_loss():
    with pytest.raises(TypeError, match="one_hot"): initialize_loss(CrossEntropy())(np.array([0, 1, 2]), np.eye(3))


def test_their_data_are_left_alone():
    X, Y = np.random.default_rng(1).normal(size=(20, 4)), np.eye(3)[np.arange(20) % 3]
    before = X.copy()
    NeuralNetwork([Dense(8, "relu"), FullyConnected(3, "softmax")]).train(Dataset(X, Y, 5), epochs=2)
    np.testing.assert_array_equal(X, before)
