"What a training must not lose: the last good epoch, an array's own memory, the examples' weights; and which pairs and datasets are refused."
import copy, pickle

import numpy as np
import pytest

from hwnn.all import *
from hwnn.gradcheck import check_gradients
from hwnn.layers import Layer
from hwnn.losses import LOSSES

ADAM = dict(name="adam", lr=0.01)


def small(last=3, seed=0, **kwargs): return NeuralNetwork([FullyConnected(6, "tanh"), BatchNorm1D(), FullyConnected(last, "softmax")], seed=seed, **kwargs)


def arrays(net):
    return {f"{k}.{name}": A.copy() for k, layer in enumerate(net.layers) for d in (layer.parameters, layer.state) for name, A in d.items() if isinstance(A, np.ndarray)}


def same(a, b): return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def steps(net): return {key: state["steps"] for key, state in net.optimizer.cache.items()}


# An optimizer's memory

def test_a_new_head_begins_with_no_memory():
    net, data = small(optimizer=ADAM), iris(batch_size=15)
    net.train(data, epochs=3)
    net.layers[-1] = FullyConnected(3, "softmax")
    net.train(data, epochs=1)
    assert steps(net)["2.W"] == 6 and steps(net)["0.W"] == 24


def test_a_head_of_another_size_trains():
    net, data = small(optimizer=ADAM), iris(batch_size=15)
    net.train(data, epochs=1)
    net.layers[0] = FullyConnected(9, "relu")
    net.layers[1:] = [FullyConnected(3, "softmax")]
    net.train(data, epochs=1)
    assert set(steps(net).values()) == {6}


@pytest.mark.parametrize("name", ["nesterov", "rmsprop", "adam", "adamw", "SGD"])
def test_memory_moves_with_its_layer(name):
    args = dict(name=name, lr=0.01) | (dict(momentum=0.9) if name == "SGD" else {})
    one, two = small(optimizer=args), small(optimizer=args)
    for net in (one, two): net.train(iris(batch_size=15), epochs=2)
    two.layers.insert(1, Dropout(0.0))   # draws, but drops nothing
    for net in (one, two): net.train(iris(batch_size=15), epochs=1)
    ours, theirs = one.layers[2].parameters, two.layers[3].parameters
    assert all(np.array_equal(ours[k], theirs[k]) for k in ours)


def test_parameters_set_by_hand_begin_anew():
    net, data = small(optimizer=ADAM), iris(batch_size=15)
    net.train(data, epochs=1)
    W = net.layers[0].parameters["W"]
    net.layers[0].parameters["W"] = np.zeros_like(W)
    net.train(data, epochs=1)
    assert steps(net)["0.W"] == 6 and steps(net)["0.b"] == 12


def test_memory_of_an_optimizer_that_was_used_elsewhere_is_not_taken():
    adam = initialize_optimizer("adam")
    adam.update("0.W", np.ones((4, 6), np.float32), np.ones((4, 6), np.float32), 0)
    net = small(optimizer=adam)
    net.train(iris(batch_size=90), epochs=1)
    assert steps(net)["0.W"] == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"])
def test_a_copied_network_keeps_its_memory(copied):
    net, data = small(optimizer=ADAM), iris(batch_size=15)
    net.train(data, epochs=1)
    twin, others = copied(net), copy.deepcopy(data)
    net.train(data, epochs=1)
    twin.train(others, epochs=1)
    assert same(arrays(net), arrays(twin)) and steps(twin) == steps(net)


def test_a_gradient_of_another_shape_changes_nothing():
    net = small(optimizer=ADAM)
    X, Y = iris().test.X, iris().test.Y
    net.backward(Y, net.forward(X))
    net.layers[2].gradients["W"] = net.layers[2].gradients["W"][:2]
    before = arrays(net)
    with pytest.raises(ValueError, match=r"expected gradient 2\.W \(6, 3\), got \(2, 3\)"): net.update(0)
    assert same(arrays(net), before) and not net.optimizer.cache


# What ends a training

class Stumbles(Layer):
    "Hands on what it gets, and raises in one forward pass."
    def __init__(self, at, error): super().__init__(); self.at, self.error, self.n = at, error, [0]
    def __deepcopy__(self, memo): return Flatten()   # for the trials on copies
    def forward(self, X, mode="train"):
        self.n[0] += mode == "train"
        if self.n[0] == self.at: raise self.error
        self.cache.update(X=X)
        return X
    def backward(self, dLdY, at_Z=False, skip_dX=False): return dLdY


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("here"), MemoryError(), ValueError("there"), FloatingPointError("deep")], ids=lambda e: type(e).__name__)
def test_whatever_ends_a_training_leaves_the_last_good_epoch(error):
    net = NeuralNetwork([FullyConnected(5, "tanh"), BatchNorm1D(), Stumbles(15, error), FullyConnected(3, "softmax")], optimizer=ADAM)
    with pytest.raises(type(error)): net.train(iris(batch_size=15), epochs=5)
    assert len(net.history) == 2 and set(steps(net).values()) == {12}
    whole = NeuralNetwork([FullyConnected(5, "tanh"), BatchNorm1D(), Flatten(), FullyConnected(3, "softmax")], optimizer=ADAM)
    whole.train(iris(batch_size=15), epochs=2)
    assert same(arrays(net), arrays(whole))
    net.train(iris(batch_size=15), epochs=1)   # and it goes on
    assert len(net.history) == 3 and set(steps(net).values()) == {18}


def test_a_callback_that_raises_leaves_the_epoch_that_it_saw():
    net = small(optimizer=ADAM)
    def refuse(net, row):
        if row["epoch"] == 2: raise RuntimeError("enough")
    with pytest.raises(RuntimeError, match="enough"): net.train(iris(15), epochs=5, callbacks=[refuse])
    assert len(net.history) == 2 and net.predict(iris().test.X).shape == (30, 3)


def test_callbacks_see_each_epoch_and_may_end_the_training():
    rows, net = [], small()
    net.train(iris(15), epochs=9, callbacks=[lambda net, row: rows.append(row), lambda net, row: row["epoch"] == 4])
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4] == list(net.history.epoch)
    assert rows[0]["validation_loss"] == net.history.validation_loss[0]


@pytest.mark.parametrize("callbacks", [print, [3], "f"])
def test_callbacks_are_functions(callbacks):
    with pytest.raises(TypeError, match="expected callbacks as a list of functions"): small().train(iris(15), 1, callbacks=callbacks)


# Weights

@pytest.mark.parametrize("loss,last", [("cross_entropy", "softmax"), ("softmax_cross_entropy", "linear"), ("binary_cross_entropy", "linear"), ("l2", "tanh"), ("huber", "linear"), ("hinge", "linear")])
def test_whole_weights_are_repetitions(loss, last):
    X, Y, w = iris(dtype=np.float64).test.X, iris(dtype=np.float64).test.Y, np.arange(30)%3
    nets = [NeuralNetwork([FullyConnected(5, "tanh"), FullyConnected(3, last)], loss=loss, seed=3) for _ in range(2)]
    one = nets[0].backward(Y, nets[0].forward(X), w.astype(float))
    R, S = np.repeat(X, w, axis=0), np.repeat(Y, w, axis=0)
    two = nets[1].backward(S, nets[1].forward(R))
    np.testing.assert_allclose(one, two, rtol=1e-12)
    for a, b in zip(*(net.layers for net in nets)):
        for key in a.gradients: np.testing.assert_allclose(a.gradients[key], b.gradients[key], rtol=1e-10, atol=1e-14)


def test_a_dataset_with_weights_trains_by_them():
    data = iris(batch_size=15)
    X, Y = data.train.X, data.train.Y
    weights = (Y.argmax(axis=1) != 2).astype(np.float32) + np.float32(1e-6)   # the third class counts nothing
    net = NeuralNetwork([FullyConnected(8, "relu"), FullyConnected(3, "softmax")], optimizer=dict(name="SGD", lr=0.2))
    net.train(Dataset(X, Y, 15, training_weights=weights), epochs=30)
    found = net.predict(X).argmax(axis=1)
    assert (found != 2).all() and (found == Y.argmax(axis=1))[weights > 0.5].mean() > 0.8


# Which last layer for which loss

@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "arctan", "relu", "linear", None, "leaky_relu", "gelu", "silu", "elu", "softplus"])
def test_cross_entropy_takes_softmax_alone(activation):
    with pytest.raises(ValueError, match="expected a last layer with softmax"): NeuralNetwork([FullyConnected(3, activation)])


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "softmax_cross_entropy", "hinge"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "relu"])
def test_losses_of_logits_take_linear_alone(loss, activation):
    with pytest.raises(ValueError, match="expected a linear last layer"): NeuralNetwork([FullyConnected(3, activation)], loss=loss)


def test_one_class_is_refused_when_the_dataset_brings_it():
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="at least two classes, got 1"): NeuralNetwork([FullyConnected(1, "softmax")])
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        NeuralNetwork([FullyConnected(None, "softmax")]).train(Dataset(X, np.ones((20, 1), np.float32), 5), epochs=1)


@pytest.mark.parametrize("activation,low,high", [("sigmoid", 0, 1), ("tanh", -1, 1), ("relu", 0, 9), ("softmax", 0, 1), ("arctan", -1.5, 1.5)])
def test_targets_out_of_reach_are_refused(activation, low, high):
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    Y = np.tile(np.array([[low, high]], np.float32), (20, 1))
    for loss in ("l2", "huber"):
        NeuralNetwork([FullyConnected(2, activation)], loss=loss).train(Dataset(X, Y, 5), epochs=1)
        net = NeuralNetwork([FullyConnected(2, activation)], loss=loss)
        with pytest.raises(ValueError, match="expected training labels between"): net.train(Dataset(X, Y - 5, 5), epochs=1)
        assert not net.layers[0].parameters


def test_a_loss_of_ones_own_takes_any_last_layer():
    class Mine(LOSSES["l2"]): pass
    NeuralNetwork([FullyConnected(2, "sigmoid")], loss=Mine())


# Datasets

def test_test_labels_of_zeros_do_not_stop_a_training():
    data = iris(batch_size=15)
    kaggle = Dataset(data.train.X, data.train.Y, 15, data.validate.X, data.validate.Y, data.test.X, np.zeros_like(data.test.Y))
    net = small()
    net.train(kaggle, epochs=1)
    with pytest.raises(ValueError, match="NeuralNetwork: test part: expected one-hot labels"): net.test(kaggle)


def test_arrays_in_place_of_a_dataset_are_told_what_to_become():
    X, Y = iris().train.X, iris().train.Y
    with pytest.raises(TypeError, match=r"expected a Dataset, got ndarray; arrays become one with Dataset\("): small().train(X, Y)


def test_images_of_other_sizes_through_convolutions():
    rng = np.random.default_rng(0)
    net = NeuralNetwork([Conv2D(4, 3, "relu"), Conv2D(3, 1, "linear"), Pool2D("global", mode="average"), Flatten()], loss="softmax_cross_entropy")
    Y = one_hot(np.arange(6)%3, 3)
    net.train(Dataset(rng.normal(size=(6, 8, 8, 1)).astype(np.float32), Y, 3), epochs=1)
    other = rng.normal(size=(2, 11, 6, 1)).astype(np.float32)
    assert net.predict(other).shape == (2, 3)
    with pytest.raises(ValueError, match=r"expected input \(batch, rows, cols, 1\)"): net.predict(np.repeat(other, 2, axis=3))


def test_the_loss_takes_a_copy_of_the_last_output():
    net = small()
    X, Y = iris().test.X, iris().test.Y
    out = net.forward(X)
    assert net.backward(Y, np.array(out)) == net.backward(Y, net.forward(X))
    with pytest.raises(ValueError, match="expected the output of the last forward pass"): net.backward(Y, out + 1)


# Checks through random layers

def test_a_gradient_check_through_dropout_and_batch_norm():
    rng = np.random.default_rng(0)
    X, dY = rng.normal(size=(2, 6, 5))
    for layer in (Dropout(0.5), BatchNorm1D()):
        layer.forward(X + 1)
        layer.forward(X)
        dX, state, drawn = layer.backward(dY), copy.deepcopy(layer.state), copy.deepcopy(layer.rng.bit_generator.state)
        assert check_gradients(layer.forward, dX, X, dY) < 1e-7
        assert all(np.array_equal(state[k], layer.state[k]) for k in state) and drawn == layer.rng.bit_generator.state


def test_a_gradient_check_of_a_network_that_draws():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(12, 5)), one_hot(rng.integers(0, 3, 12), 3, dtype=np.float64)
    net = NeuralNetwork([FullyConnected(8, "tanh"), Dropout(0.3), BatchNorm1D(), Dropout(0.2), FullyConnected(3, "softmax")])
    net.backward(Y, net.forward(X))
    before = arrays(net)
    for layer in net.layers:
        for name, grad in layer.gradients.items():
            def loss(value, layer=layer, name=name):
                with net.replay():
                    layer.parameters[name] = value
                    return net.loss_of(Y, net.forward(X))
            assert check_gradients(loss, grad, layer.parameters[name].copy(), 1.0) < 1e-7
    assert same(arrays(net), before)


# What a network asks of its history

def test_a_history_keeps_its_columns():
    net, flowers = small(), iris(batch_size=15)
    blind = Dataset(flowers.train.X, flowers.train.Y, 15)
    with pytest.raises(ValueError, match="expected a dataset with a validation part, whose loss patience looks at, got none"): net.train(blind, 5, patience=2)
    assert not net.layers[0].parameters
    net.train(flowers, 1)
    with pytest.raises(ValueError, match="expected norms in all trainings of a network or in none"): net.train(flowers, 1, norms=True)
    net.history = History()
    assert "update_ratio_0_W" in net.train(flowers, 1, norms=True).columns


def test_a_summary_needs_a_shape():
    with pytest.raises(ValueError, match="expected input_shape, the shape of one example"): small().summary()
