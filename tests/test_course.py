"""Scripts as they are written for the course, with their import lines changed."""
import warnings

import numpy as np
import pytest
from fastcore.basics import AttrDict

from hwnn.activations import Identity, Linear, initialize_activation
from hwnn.datasets import initialize_dataset, one_hot
from hwnn.layers import Conv2D, FullyConnected, initialize_layer
from hwnn.logs import Logger
from hwnn.losses import LOSSES, initialize_loss
from hwnn.metrics import accuracy, confusion_matrix, top_k_accuracy
from hwnn.models import NeuralNetwork, initialize_model
from hwnn.optimizers import initialize_optimizer
from hwnn.weights import initialize_weights

SGD = AttrDict(name="SGD", lr=0.05, lr_scheduler="exponential", lr_decay=0.9, stage_length=10, staircase=None, clip_norm=None, momentum=0.9)
dense = dict(name="fully_connected", activation="relu", weight_init="xavier_uniform", n_out=8)
last = dict(name="fully_connected", activation="softmax", weight_init="xavier_uniform", n_out=None)


def model(layers=(dense, last), logger=None, **kwargs):
    with warnings.catch_warnings(action="ignore"): return initialize_model("net", "cross_entropy", [dict(l) for l in layers], dict(SGD), logger, **kwargs)


def run(n):
    np.random.seed(n)
    net = model()
    return net.train(initialize_dataset("iris", batch_size=25), epochs=2).train_loss


def test_the_global_seed_is_the_seed_of_a_script():
    assert run(1) == run(1) != run(2)


def test_a_given_seed_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()
    model(seed=3)
    NeuralNetwork([FullyConnected(3, "softmax")])
    assert (np.random.get_state()[1] == before).all()


def test_own_network_has_seed_0():
    X = np.ones((2, 4))
    weights = []
    for n in (1, 2):
        np.random.seed(n)
        net = NeuralNetwork([FullyConnected(3, "softmax")])
        net.forward(X)
        weights.append(net.layers[0].parameters["W"])
    assert (weights[0] == weights[1]).all()


LEFT_OUT = {
    "activation of flatten": ("flatten", dict(activation="relu"), ["activation"]),
    "all of them": ("flatten", dict(activation=None, weight_init=None, n_out=None, kernel_shape=None, stride=None, pad=None, mode=None),
                    ["activation", "weight_init", "n_out", "kernel_shape", "stride", "pad", "mode"]),
    "weight_init of batch norm": ("batchnorm1d", dict(weight_init="xavier_uniform", n_out=4), ["weight_init", "n_out"]),
    "n_out of pool": ("pool2d", dict(kernel_shape=(2, 2), n_out=4, activation="linear"), ["n_out", "activation"]),
    "keep_dim of dense": ("fully_connected", dict(n_out=4, activation="relu", keep_dim=-1), ["keep_dim"]),
    "momentum of dense": ("fully_connected", dict(n_out=4, activation="relu", momentum=0.95, eps=1e-8), ["momentum", "eps"]),
    "stride None": ("conv2d", dict(n_out=4, kernel_shape=(3, 3), activation="relu", stride=None, pad=None), ["stride", "pad"]),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_keys_of_other_layers(case):
    name, kwargs, keys = LEFT_OUT[case]
    for make in (lambda: initialize_layer(name, **kwargs), lambda: initialize_layer({"name": name, **kwargs})):
        with pytest.warns(UserWarning) as caught: make()
        assert len(caught) == 1 and all(repr(key) in str(caught[0].message) for key in keys)


def test_a_layer_without_odd_keys_does_not_warn():
    with warnings.catch_warnings(action="error"):
        initialize_layer(dense)
        initialize_optimizer(dict(SGD, staircase=False))


@pytest.mark.parametrize("make", [
    lambda: initialize_layer({**dense, "weigth_init": "zeros"}), lambda: initialize_layer("flatten", keepdim="first"),
    lambda: initialize_optimizer(dict(SGD, momentun=0.9)), lambda: initialize_optimizer("adam", momentum=0.9),
    lambda: initialize_weights("xavier_uniform", activaton="relu"), lambda: initialize_loss("l2", delta=1.0)])
def test_misspelt_keys_raise(make):
    with pytest.raises(TypeError, match="expected arguments among"): make()


def test_none_is_the_default():
    with pytest.warns(UserWarning, match="'momentum', 'lr_decay', 'stage_length', 'staircase'"):
        optimizer = initialize_optimizer(dict(name="SGD", lr=0.1, lr_scheduler="constant", momentum=None, clip_norm=None, lr_decay=None, stage_length=None, staircase=None))
    assert optimizer.momentum == 0 and optimizer.clip_norm is None and optimizer.lr_scheduler(9) == 0.1


def test_weights_as_the_course_asks_for_them():
    with pytest.warns(UserWarning, match="'activation', 'mode'"): W = initialize_weights("he_normal", activation="relu", mode="fan_in")((4, 3))
    assert W.shape == (4, 3)


def test_identity():
    assert Identity is Linear and isinstance(initialize_activation("identity"), Linear)
    assert isinstance(FullyConnected(3, "Identity").activation, Linear)


@pytest.mark.parametrize("name", ["cross_entropy", "l2", "huber", "binary_cross_entropy"])
def test_losses_are_callable(name):
    Y, P = np.eye(3)[[0, 2]], np.full((2, 3), 1/3)
    loss = initialize_loss(name)
    assert loss(Y, P) == loss.forward(Y, P) and name in LOSSES


@pytest.mark.parametrize("layer, shape", [(FullyConnected(3, "linear"), (5, 4)), (Conv2D(3, (3, 3), "relu"), (5, 6, 6, 2))], ids=["dense", "convolution"])
def test_parameters_before_a_forward_pass(layer, shape):
    layer._init_parameters(shape)
    made = {name: p.copy() for name, p in layer.parameters.items()}
    assert layer.n_in == shape[-1] and made["b"].shape == (1, 3) and not layer.cache
    layer.parameters["b"] = made["b"] + 1
    layer.forward(np.ones(shape))
    assert (layer.parameters["W"] == made["W"]).all() and (layer.parameters["b"] == 1).all()


def test_the_loop_of_the_assignment():
    data, net, losses = initialize_dataset("iris", batch_size=25), model([dense, {**last, "n_out": 3}]), []
    for epoch in range(10):
        for _ in range(data.train.samples_per_epoch):
            X, Y = data.train.sample()
            Y_hat = net.forward(X)
            losses.append(net.backward(np.array(Y), np.array(Y_hat)))
            net.update(epoch)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_the_lines_of_the_course(capsys):
    net, data = model(logger=Logger("net", {}, {}, course_lines=True), seed=1), initialize_dataset("iris", batch_size=25)
    history, result = net.train(data, epochs=2), net.test(data)
    lines = capsys.readouterr().out.splitlines()
    row = history.last()
    assert lines[0].startswith("Epoch 0 Training Loss: ") and lines[1] == (
        f"Epoch 1 Training Loss: {round(row['train_loss'], 4)} Training Accuracy: {round(1 - row['train_error'], 4)} "
        f"Val Loss: {round(row['validation_loss'], 4)} Val Accuracy: {round(1 - row['validation_error'], 4)}")
    assert lines[2:] == [f"Test Loss: {round(result['loss'], 4)} Test Accuracy: {round(1 - result['error'], 4)}"]


def test_a_house_logger_says_nothing_of_a_test(capsys):
    net, data = model(logger=Logger("net", {}, {}), seed=1), initialize_dataset("iris", batch_size=25)
    net.train(data, epochs=1)
    capsys.readouterr()
    net.test(data)
    assert not capsys.readouterr().out


# What is done with class labels in the place of one-hot rows: the remedy is one_hot, and following it works.
y = np.array([0, 2, 1, 0])
P = np.array([[0.6, 0.2, 0.2], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1]])


def predictor():
    net = NeuralNetwork([FullyConnected(3, "softmax")])
    X = np.random.default_rng(0).normal(size=(4, 5))
    return net, X, net.forward(X)


@pytest.mark.parametrize("labels", [y, y.tolist(), y.astype(np.int8)[:, None], np.array(["a", "c", "b", "a"]), np.array(["a", "c", "b", "a"], object), y > 0],
                         ids=["integers", "list", "column", "texts", "objects", "bool"])
@pytest.mark.parametrize("call", [lambda l: accuracy(l, P), lambda l: confusion_matrix(l, P), lambda l: top_k_accuracy(l, P, 2),
                                  lambda l: predictor()[0].error(l, P), lambda l: (lambda n, X, out: n.backward(l, out))(*predictor()),
                                  lambda l: (lambda n, X, out: n.predict(X, l))(*predictor())],
                         ids=["accuracy", "confusion_matrix", "top_k", "error", "backward", "predict"])
def test_labels_meet_one_hot(call, labels):
    with pytest.raises(TypeError, match=r"one_hot\("): call(labels)


def test_the_remedy_works():
    assert accuracy(one_hot(y), P.astype(np.float32)) == 0.75


def test_class_numbers_are_no_outputs():
    with pytest.raises(TypeError, match="column for each class, not class numbers"): accuracy(one_hot(y), y)


SYNONYMS = [
    (initialize_weights, "glorot_uniform", "xavier_uniform"), (initialize_weights, "glorot", "xavier_uniform"), (initialize_weights, "GlorotNormal", "xavier_normal"),
    (initialize_weights, "kaiming_normal", "he_normal"), (initialize_weights, "kaiming", "he_uniform"), (initialize_weights, "he", "he_uniform"),
    (initialize_activation, "swish", "silu"), (initialize_activation, "logistic", "sigmoid"), (initialize_activation, "relu6", "relu"),
    (initialize_loss, "mse", "l2"), (initialize_loss, "MeanSquaredError", "l2"), (initialize_loss, "bce", "binary_cross_entropy"),
    (initialize_loss, "BCEWithLogitsLoss", "binary_cross_entropy"), (initialize_loss, "sigmoid_cross_entropy", "binary_cross_entropy"),
    (initialize_loss, "nll", "cross_entropy"), (initialize_loss, "categorical_crossentropy", "cross_entropy"), (initialize_loss, "CrossEntropyLoss", "softmax_cross_entropy"),
    (initialize_loss, "smooth_l1", "huber"), (initialize_layer, "dense", "fully_connected"), (initialize_layer, "Linear", "fully_connected"),
    (initialize_layer, "MaxPooling2D", "pool2d"), (initialize_layer, "batch_norm", "batchnorm1d"), (initialize_layer, "BatchNormalization", "batchnorm1d"),
    (initialize_layer, "conv", "conv2d"), (initialize_layer, "fuly_connected", "fully_connected"),
    (initialize_optimizer, "momentum", "SGD"), (initialize_optimizer, "nag", "nesterov"), (initialize_activation, "sigmoyd", "sigmoid")]


@pytest.mark.parametrize("make, name, meant", SYNONYMS, ids=[name for _, name, _ in SYNONYMS])
def test_what_was_meant(make, name, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"): make(name)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "SoftMax", {"name": "gelu"}], ids=str)
def test_an_activation_is_no_layer(name):
    with pytest.raises(ValueError, match="which is the activation of one"): initialize_layer(name)


@pytest.mark.parametrize("key, meant", [("units", "n_out"), ("kernel_initializer", "weight_init"), ("out_features", "n_out")])
def test_keys_of_other_libraries(key, meant):
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"): initialize_layer("fully_connected", activation="relu", **{key: 3})


@pytest.mark.parametrize("call", [
    lambda: FullyConnected(np.zeros((300, 300)), "relu"), lambda: FullyConnected(list(range(1000)), "relu"), lambda: initialize_activation(np.zeros((9, 9))),
    lambda: FullyConnected(3, "relu", bias=np.zeros((40, 40))), lambda: initialize_layer(np.zeros((30, 30))), lambda: initialize_weights([0.0]*500),
    lambda: initialize_optimizer("SGD", lr=np.zeros((50, 50))), lambda: initialize_weights("x"*500)], ids=range(8))
def test_an_array_in_a_message_is_one_short_line(call):
    with pytest.raises((TypeError, ValueError)) as caught: call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 330


def test_flatten_to_one_row():
    layer, X = initialize_layer("flatten", keep_dim=-1), np.arange(24.0).reshape(2, 3, 4)
    assert layer.forward(X).shape == (1, 24)
    np.testing.assert_array_equal(layer.backward(X.reshape(1, 24)), X)
