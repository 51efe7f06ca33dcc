"""Bad input, one table: every call raises the right type, with a message that says who, what was expected and what came."""
import re

import numpy as np
import pytest

from hwnn.all import *
from hwnn.activations import ACTIVATIONS, normal_cdf
from hwnn.datasets import Scaling, write_predictions
from hwnn.layers import known as LAYERS
from hwnn.layers.batchnorm import batchnorm_test, batchnorm_train
from hwnn.layers.convolution import conv2d, conv2d_backward
from hwnn.layers.fully_connected import affine, affine_backward
from hwnn.layers.layernorm import layernorm
from hwnn.layers.pooling import average_pool2d, max_pool2d
from hwnn.layers.windows import crop, pad_images, windows
from hwnn.optimizers import clip_by_global_norm
from hwnn.schedulers import Constant, Exponential
from hwnn.weights import Normal, Sparse, Uniform, XavierUniform
from safetensors.numpy import save_file

f32 = np.float32
X = np.ones((4, 3))
Y = np.eye(3)[[0, 1, 2, 0]]
Z = np.ones((4, 2))
images = np.ones((2, 5, 5, 3))
nan = X.copy()
nan[1, 1] = np.nan


def net(): return NeuralNetwork([FullyConnected(3, "tanh"), FullyConnected(3, "softmax")])
def data(**kwargs): return Dataset(**{**dict(training_set=X, training_labels=Y, batch_size=2), **kwargs})
def layer(): return FullyConnected(2, "relu")
def logger(**kwargs): return Logger(**{**dict(model_name="m", model_args={}, data_args={}), **kwargs})


def with_param(name):
    seen = layer()
    seen.forward(X)
    return seen.forward_with_param(name, X)


def circular():
    around = {}
    around["self"] = around
    return around


def model(**kwargs):
    layers = [dict(name="fully_connected", n_out=3, activation="softmax")]
    return initialize_model(**{**dict(name="m", loss="cross_entropy", layer_args=layers, optimizer_args=dict(name="SGD")), **kwargs})


CASES = {
    # wrong rank, mismatched features, empty batch, integers, no array at all
    "affine rank": (lambda: affine(X[0], X, X), ValueError),
    "affine features": (lambda: affine(X, np.ones((2, 2)), np.ones((1, 2))), ValueError),
    "affine bias": (lambda: affine(X, np.ones((3, 2)), np.ones(2)), ValueError),
    "affine integers": (lambda: affine(X.astype(int), np.ones((3, 2)), np.ones((1, 2))), TypeError),
    "affine list": (lambda: affine(X.tolist(), np.ones((3, 2)), np.ones((1, 2))), TypeError),
    "affine_backward": (lambda: affine_backward(Z, (X, np.ones((3, 5)))), ValueError),
    "affine precision": (lambda: affine(X.astype(f32), np.ones((3, 2)), np.ones((1, 2))), TypeError),
    "affine bias precision": (lambda: affine(X, np.ones((3, 2)), np.ones((1, 2), f32)), TypeError),
    "affine_backward precision": (lambda: affine_backward(Z.astype(f32), (X, np.ones((3, 2)))), TypeError),
    "conv2d precision": (lambda: conv2d(images, np.ones((2, 2, 3, 1), f32), np.ones((1, 1)), 1, 0), TypeError),
    "conv2d_backward precision": (lambda: conv2d_backward(np.ones((2, 4, 4, 1), f32), (images, np.ones((2, 2, 3, 1)), (1, 1), ((0, 0), (0, 0)))), TypeError),
    "layer rank": (lambda: layer().forward(images), ValueError),
    "layer empty": (lambda: layer().forward(X[:0]), ValueError),
    "layer integers": (lambda: layer().forward(X.astype(np.uint8)), TypeError),
    "layer half precision": (lambda: layer().forward(X.astype(np.float16)), TypeError),
    "layer mode": (lambda: layer().forward(X, mode="eval"), ValueError),
    "layer n_out": (lambda: FullyConnected(-1, "relu"), ValueError),
    "layer n_out type": (lambda: FullyConnected("8", "relu"), TypeError),
    "layer activation": (lambda: FullyConnected(2, "swoosh"), ValueError),
    "layer weights": (lambda: FullyConnected(2, "relu", "xavier"), ValueError),
    "layer name": (lambda: initialize_layer("dense", n_out=2), ValueError),
    "layer argument": (lambda: initialize_layer("fully_connected", units=2), TypeError),
    "dropout rate": (lambda: Dropout(1.0), ValueError),
    "dropout rate type": (lambda: Dropout("half"), TypeError),
    "flatten keep_dim": (lambda: Flatten("middle"), ValueError),
    "flatten keep_dim type": (lambda: Flatten(0), TypeError),
    "pool kernel": (lambda: Pool2D(0), ValueError),
    "pool kernel pair": (lambda: Pool2D((2, 2, 2)), ValueError),
    "pool mode": (lambda: Pool2D(2, mode="min"), ValueError),
    "pool stride": (lambda: Pool2D(2, stride="wide"), TypeError),
    "pool pad": (lambda: Pool2D(2, pad=-1), ValueError),
    "pool count_include_pad": (lambda: Pool2D(2, mode="average", count_include_pad="no"), TypeError),
    "conv2d kernel": (lambda: Conv2D(2, 2.5, "relu"), TypeError),
    "conv2d pad": (lambda: Conv2D(2, 2, "relu", pad="full"), ValueError),
    "batchnorm momentum": (lambda: BatchNorm1D(momentum=1.0), ValueError),
    "batchnorm eps": (lambda: BatchNorm1D(eps=10**400), ValueError),
    "batchnorm precision": (lambda: batchnorm_train(X.astype(f32), X[:1], X[:1], 1e-8), TypeError),
    "batchnorm_test variance": (lambda: batchnorm_test(X, X[:1], X[:1], X[:1], -X[:1], 1e-8), ValueError),
    "batchnorm_train rank": (lambda: batchnorm_train(X[0], X[:1], X[:1], 1e-8), ValueError),
    "layernorm rank": (lambda: layernorm(X[0], X[:1], X[:1], 1e-8), ValueError),
    "windows stride": (lambda: windows(images, (2, 2), (0, 1)), ValueError),
    "windows negative stride": (lambda: windows(images, (2, 2), (-1, 1)), ValueError),
    "windows kernel": (lambda: windows(images, (0, 2), (1, 1)), ValueError),
    "windows list": (lambda: windows(images.tolist(), (2, 2), (1, 1)), ValueError),
    "pad_images": (lambda: pad_images(images, ((-1, 0), (0, 0))), ValueError),
    "pad_images rank": (lambda: pad_images(images[0], ((1, 0), (0, 0))), ValueError),
    "crop": (lambda: crop(images, ((3, 2), (0, 0))), ValueError),
    "max_pool2d rank": (lambda: max_pool2d(X, 2), ValueError),
    "max_pool2d kernel": (lambda: max_pool2d(images, 0), ValueError),
    "average_pool2d stride": (lambda: average_pool2d(images, 2, 0), ValueError),
    "layernorm eps": (lambda: LayerNorm(eps=0), ValueError),
    "parameter name": (lambda: with_param("V"), ValueError),
    "parameter name type": (lambda: with_param(["W"]), TypeError),
    "parameter before the first batch": (lambda: layer().forward_with_param("W", X), ValueError),
    "parameter list": (lambda: with_param("W")(np.ones((3, 2)).tolist()), TypeError),
    "parameter shape": (lambda: with_param("W")(np.ones((2, 3))), ValueError),
    "parameter precision": (lambda: with_param("W")(np.ones((3, 2), f32)), TypeError),
    # activations and weights
    **{f"{name} integers": (lambda name=name: initialize_activation(name)(X.astype(int)), TypeError) for name in ACTIVATIONS},
    **{f"{name} empty": (lambda name=name: initialize_activation(name)(X[:0]), ValueError) for name in ACTIVATIONS},
    **{f"{name} gradient": (lambda name=name: initialize_activation(name).backward(X, Z), ValueError) for name in ACTIVATIONS},
    "softmax rank": (lambda: initialize_activation("softmax")(X[0]), ValueError),
    "activation name": (lambda: initialize_activation("gelo"), ValueError),
    "activation argument": (lambda: initialize_activation("leaky_relu", slop=0.1), TypeError),
    "normal_cdf integers": (lambda: normal_cdf(X.astype(int)), TypeError),
    "normal_cdf number": (lambda: normal_cdf(0.5), TypeError),
    "elu beyond float32": (lambda: ELU(1e300), ValueError),
    "elu integer too large": (lambda: ELU(10**400), ValueError),
    "weights size": (lambda: initialize_weights("normal")((0, 3)), ValueError),
    "weights negative": (lambda: initialize_weights("he_normal")((-2, 3)), ValueError),
    "weights fraction": (lambda: initialize_weights("he_normal")((2.5, 3)), TypeError),
    "weights seed": (lambda: initialize_weights("normal")((2, 3), 7), TypeError),
    "weights std": (lambda: Normal(std=-1.0), ValueError),
    "weights bounds": (lambda: Uniform(low=1.0, high=0.0), ValueError),
    "weights sparsity": (lambda: Sparse(sparsity=2.0), ValueError),
    "weights too large": (lambda: Normal(0, 1e300)((2, 3)), ValueError),
    "weights constant too large": (lambda: weights.Constant(-1e39)((2, 3)), ValueError),
    "weights integer too large": (lambda: weights.Constant(10**400)((2, 3), dtype=np.float64), ValueError),
    "weights range too large": (lambda: Uniform(-1e308, 1e308)((2, 3), dtype=np.float64), ValueError),
    "weights gain too large": (lambda: XavierUniform(1e300)((2, 3)), ValueError),
    "weights dtype": (lambda: Normal()((2, 3), dtype="f4,("), TypeError),
    "weights name": (lambda: initialize_weights("glorot"), ValueError),
    # losses
    "cross entropy labels": (lambda: CrossEntropy().forward(np.full((4, 3), 0.5), np.full((4, 3), 1/3)), ValueError),
    "cross entropy shape": (lambda: CrossEntropy().forward(Y, np.full((4, 2), 0.5)), ValueError),
    "cross entropy backward": (lambda: CrossEntropy().backward(Y[:2], np.full((4, 3), 1/3)), ValueError),
    "cross entropy negative": (lambda: CrossEntropy().forward(Y, -np.full((4, 3), 1/3)), ValueError),
    "cross entropy integers": (lambda: CrossEntropy().forward(Y, Y.astype(int)), TypeError),
    "cross entropy class numbers": (lambda: CrossEntropy().forward(np.array([0, 1, 2, 0]), np.full((4, 3), 1/3)), (TypeError, ValueError)),
    "logits labels": (lambda: cross_entropy_from_logits(2*Y, X), ValueError),
    "logits shape": (lambda: cross_entropy_from_logits_backward(Y, Z), ValueError),
    "log softmax rank": (lambda: log_softmax(X[0]), ValueError),
    "l2 shape": (lambda: L2().forward(Z, X), ValueError),
    "l2 empty": (lambda: L2().backward(X[:0], X[:0]), ValueError),
    "loss name": (lambda: initialize_loss("hing"), ValueError),
    "loss argument": (lambda: initialize_loss("huber", detla=2.0), TypeError),
    "binary cross entropy targets": (lambda: BinaryCrossEntropy().forward(2*Y, X), ValueError),
    "binary cross entropy shape": (lambda: BinaryCrossEntropy().backward(Y, Z), ValueError),
    "loss and gradient labels": (lambda: cross_entropy_and_gradient(2*Y, X), ValueError),
    "loss and gradient smoothing": (lambda: cross_entropy_and_gradient(Y, X, 1.0), ValueError),
    **{f"{metric.__name__} labels": (lambda metric=metric: metric(2*Y, X), ValueError) for metric in (accuracy, confusion_matrix)},
    **{f"{metric.__name__} nan": (lambda metric=metric: metric(Y, nan), ValueError) for metric in (accuracy, confusion_matrix)},
    **{f"{metric.__name__} shape": (lambda metric=metric: metric(Y, Z), ValueError) for metric in (accuracy, confusion_matrix)},
    "top k": (lambda: top_k_accuracy(Y, X, 4), ValueError),
    "huber delta too large": (lambda: Huber(delta=10**400), ValueError),
    # schedulers and optimizers
    "constant lr": (lambda: Constant(0), ValueError),
    "exponential decay": (lambda: Exponential(0.1, decay=-0.5), ValueError),
    "exponential stage": (lambda: Exponential(0.1, stage_length=0), ValueError),
    "scheduler epoch": (lambda: Exponential(0.1)(-1), ValueError),
    "scheduler name": (lambda: initialize_scheduler("cosin"), ValueError),
    "sgd lr": (lambda: SGD(lr=-1), ValueError),
    "sgd momentum": (lambda: SGD(momentum=1.0), ValueError),
    "sgd clip": (lambda: SGD(clip_norm=0), ValueError),
    "sgd shape": (lambda: SGD().update("W", X, Z, 0), ValueError),
    "sgd dtype": (lambda: SGD().update("W", X, X.astype(f32), 0), TypeError),
    "optimizer name": (lambda: initialize_optimizer("adma"), ValueError),
    "optimizer argument": (lambda: initialize_optimizer("SGD", momentun=0.9), TypeError),
    "clip": (lambda: clip_by_global_norm([X], -1.0), ValueError),
    "clip no list": (lambda: clip_by_global_norm(3, 1.0), TypeError),
    "clip integers": (lambda: clip_by_global_norm([X.astype(int)], 1.0), TypeError),
    **{f"{cls.__name__} lr": (lambda cls=cls: cls(lr=0), ValueError) for cls in (SGD, Nesterov, RMSProp, Adam, AdamW)},
    **{f"{cls.__name__} lr too large": (lambda cls=cls: cls(lr=10**400), ValueError) for cls in (SGD, Nesterov, RMSProp, Adam, AdamW)},
    **{f"{cls.__name__} weight_decay": (lambda cls=cls: cls(weight_decay=-1), ValueError) for cls in (SGD, Nesterov, RMSProp, Adam, AdamW)},
    **{f"{cls.__name__} clip_norm type": (lambda cls=cls: cls(clip_norm="1"), TypeError) for cls in (SGD, Nesterov, RMSProp, Adam, AdamW)},
    **{f"{cls.__name__} gradient": (lambda cls=cls: cls().update("W", X, Z, 0), ValueError) for cls in (SGD, Nesterov, RMSProp, Adam, AdamW)},
    "nesterov momentum": (lambda: Nesterov(momentum=0), ValueError),
    "rmsprop rho": (lambda: RMSProp(rho=1.0), ValueError),
    "adam beta1": (lambda: Adam(beta1=1.0), ValueError),
    "adamw eps": (lambda: AdamW(eps=0), ValueError),
    "scheduler argument": (lambda: initialize_scheduler("cosine", epoch=5), TypeError),
    # data
    "data lengths": (lambda: Data(X, Y[:2]), ValueError),
    "data empty": (lambda: Data(X[:0], Y[:0]), ValueError),
    "data integers": (lambda: Data(X.astype(int), Y), TypeError),
    "data nan": (lambda: Data(nan, Y), ValueError),
    "data class numbers": (lambda: Data(X, np.array([0, 1, 2, 0])), TypeError),
    "data batch size": (lambda: Data(X, Y, batch_size=0), ValueError),
    "data rng": (lambda: Data(X, Y, rng=3), TypeError),
    "dataset nan": (lambda: data(validation_set=nan, validation_labels=Y), ValueError),
    "dataset features": (lambda: data(test_set=Z, test_labels=Y), ValueError),
    "dataset labels": (lambda: data(test_set=X, test_labels=Z), ValueError),
    "dataset precision": (lambda: data(test_set=X.astype(f32), test_labels=Y), TypeError),
    "dataset name": (lambda: initialize_dataset("irises"), ValueError),
    "dataset argument": (lambda: initialize_dataset("iris", images=True), TypeError),
    "dataset name type": (lambda: initialize_dataset(None), TypeError),
    "iris dtype": (lambda: initialize_dataset("iris", dtype=None), TypeError),
    "digits dtype": (lambda: initialize_dataset("digits", dtype="foo"), TypeError),
    "digits images": (lambda: initialize_dataset("digits", images="no"), TypeError),
    "one_hot dtype": (lambda: one_hot([0, 1], dtype=np.int64), TypeError),
    "one_hot ragged": (lambda: one_hot([[0, 1], [2]]), ValueError),
    "split ragged": (lambda: stratified_split([[0, 1], [2]], 1), ValueError),
    "one_hot floats": (lambda: one_hot([0.5, 1.0]), TypeError),
    "one_hot negative": (lambda: one_hot([-1, 0]), ValueError),
    "one_hot large": (lambda: one_hot([0, 3], 3), ValueError),
    "scaling features": (lambda: min_max(X)(Z), ValueError),
    "scaling shapes": (lambda: Scaling([0.0], [1.0, 2.0]), ValueError),
    "scaling zero": (lambda: Scaling([0.0, 0.0], [1.0, 0.0]), ValueError),
    "scaling nan": (lambda: Scaling([np.nan], [1.0]), ValueError),
    "scaling text": (lambda: Scaling(["a"], [1.0]), TypeError),
    "scaling integers": (lambda: Scaling([0.0], [1.0])(np.ones((2, 1), int)), TypeError),
    "standardization nan": (lambda: standardization(nan), ValueError),
    "split": (lambda: stratified_split([0, 1, 0, 1], 9), ValueError),
    # networks
    "network without layers": (lambda: NeuralNetwork([]), ValueError),
    "network loss": (lambda: NeuralNetwork([layer()], loss="cross entropi"), ValueError),
    "network optimizer": (lambda: NeuralNetwork([layer()], "l2", optimizer=0.1), TypeError),
    "network seed": (lambda: NeuralNetwork([layer()], seed=1.5), TypeError),
    "network predict nan": (lambda: net().predict(nan), ValueError),
    "network predict list": (lambda: net().predict(X.tolist()), TypeError),
    "network predict empty": (lambda: net().predict(X[:0]), ValueError),
    "network predict targets": (lambda: net().predict(X, Y[:2]), ValueError),
    "network epochs": (lambda: net().train(data(), epochs=0), ValueError),
    "network epochs type": (lambda: net().train(data(), epochs=2.0), TypeError),
    "network dataset": (lambda: net().train((X, Y), epochs=1), TypeError),
    "network labels not one-hot": (lambda: net().train(data(training_labels=np.full((4, 3), 1/3)), epochs=1), ValueError),
    "network labels too many": (lambda: net().train(data(training_labels=np.eye(4)), epochs=1), ValueError),
    "network test part": (lambda: net().test(data()), ValueError),
    "network summary": (lambda: net().summary(), ValueError),
    "network summary shape": (lambda: net().summary(3), TypeError),
    "network summary size": (lambda: net().summary((0,)), ValueError),
    "network patience": (lambda: net().train(data(), 1, patience=0), ValueError),
    "network patience type": (lambda: net().train(data(), 1, patience=2.5), TypeError),
    "network patience flag": (lambda: net().train(data(), 1, patience=True), TypeError),
    "network patience without validation": (lambda: net().train(data(), 1, patience=1), ValueError),
    "network norms": (lambda: net().train(data(), 1, norms=1), TypeError),
    "network output": (lambda: net().backward(Y, Y), ValueError),
    "network error shape": (lambda: net().error(Y, Z), ValueError),
    "model name": (lambda: model(name=3), TypeError),
    "model loss": (lambda: model(loss="hinge"), ValueError),
    "model without layers": (lambda: model(layer_args=[]), ValueError),
    "model layer": (lambda: model(layer_args=[dict(n_out=3)]), ValueError),
    "model optimizer": (lambda: model(optimizer_args=dict(lr=0.1)), ValueError),
    "model seed": (lambda: model(seed=-1), ValueError),
    # logs
    "logger name": (lambda: Logger("a/b", {}, {}), ValueError),
    "logger arguments": (lambda: logger(model_args=[1]), TypeError),
    "logger circular": (lambda: logger(model_args=circular(), save=True), ValueError),
    "logger save": (lambda: logger(save="no"), TypeError),
    "logger plot": (lambda: logger(plot=1), TypeError),
    "logger save_dir": (lambda: logger(save_dir=3), TypeError),
    "logger row": (lambda: logger().log([1, 2]), TypeError),
    "logger row without columns": (lambda: logger().log(dict(epoch=1)), ValueError),
    "logger row of words": (lambda: logger().log(dict(epoch=1, train_loss="low", train_error=0.1)), TypeError),
    "logger history": (lambda: logger().finish({}), TypeError),
    "history empty row": (lambda: History().append(), ValueError),
    "history word": (lambda: History().append(epoch="one"), TypeError),
    "history name": (lambda: History().append(plot=1), ValueError),
    "history last": (lambda: History().last(), ValueError),
    "history plot": (lambda: History().plot(), ValueError),
    "history file": (lambda: History.load(__file__), ValueError),
    # gradient checks
    "relative error shape": (lambda: relative_error(X, Z), ValueError),
    "relative error words": (lambda: relative_error("a", "b"), TypeError),
    "set_threads": (lambda: set_threads(0), ValueError),
    "set_threads too many": (lambda: set_threads(10**400), ValueError),
    "use_fast": (lambda: use_fast("yes"), TypeError),
    "shift pixels": (lambda: shift(images, np.random.default_rng(), 5), ValueError),
    "shift rng": (lambda: shift(images, 3, 1), TypeError),
    "flip rank": (lambda: flip(X, np.random.default_rng()), ValueError),
    "write_predictions": (lambda: write_predictions("outputs.csv", X[0]), ValueError),
    "write_predictions classes": (lambda: write_predictions("outputs.csv", X, classes=["one"]), ValueError),
    "gradient float32": (lambda: check_gradients(np.tanh, X.astype(f32), X.astype(f32), X), TypeError),
    "gradient shape": (lambda: check_gradients(np.tanh, X, X, Z), ValueError),
    "numerical gradient list": (lambda: numerical_gradient(np.tanh, [1.0], 1.0), TypeError),
    "numerical gradient shape": (lambda: numerical_gradient(np.tanh, X, Z), ValueError),
    "numerical gradient step": (lambda: numerical_gradient(np.tanh, X, X, h=0), ValueError),
    "complex step size": (lambda: complex_step_gradient(np.tanh, X, X, h="small"), TypeError),
    "complex step float32": (lambda: complex_step_gradient(np.tanh, X.astype(f32), X), TypeError),
    "complex step shape": (lambda: complex_step_gradient(np.tanh, X, Z), ValueError),
    "complex step of abs": (lambda: complex_step_gradient(np.abs, X, X), TypeError),
    "adjoint shape": (lambda: adjoint_error(lambda x: x, lambda y: y, X, Z), ValueError),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    call, expected = CASES[case]
    with pytest.raises(expected) as caught: call()
    # who: expected ... got ...
    assert re.match(r"(?s)[\w ]+: .*expected.*(got|names it)", str(caught.value)), str(caught.value)
    assert caught.type in (ValueError, TypeError)


def test_nothing_changes_before_the_error():
    fresh = layer()
    for bad in (images, X[:0], X.astype(int)):
        with pytest.raises((ValueError, TypeError)): fresh.forward(bad)
    assert not fresh.parameters and not fresh.cache and fresh.n_in is None
    network = net()
    network.train(data(), epochs=1)
    before = [p.copy() for l in network.layers for p in l.parameters.values()]
    for call in (lambda: network.predict(nan), lambda: network.train(data(training_set=np.ones((4, 5))), epochs=1), lambda: network.train(data(), epochs=-1)):
        with pytest.raises(ValueError): call()
    for b, p in zip(before, [p for l in network.layers for p in l.parameters.values()]): np.testing.assert_array_equal(b, p)
    assert len(network.history) == 1


def test_all_layers_refuse_the_same_things():
    arguments = dict(fully_connected=dict(n_out=2, activation="relu"), conv2d=dict(n_out=2, kernel_shape=(2, 2), activation="relu"), pool2d=dict(kernel_shape=(2, 2)), groupnorm=dict(groups=1))
    for name in LAYERS:
        make = lambda: initialize_layer(name, **arguments.get(name, {}))
        for bad, kind in ((images[:0], ValueError), (images.astype(int), TypeError), (images.tolist(), TypeError)):
            with pytest.raises(kind): make().forward(bad)
        with pytest.raises(RuntimeError): make().backward(images)


flowers = iris(batch_size=15)
dense = lambda n=4: NeuralNetwork([FullyConnected(n, "tanh"), FullyConnected(3, "softmax")])
seen = dense()
seen.forward(flowers.test.X)
REFUSED = {
    "no layers": (lambda: NeuralNetwork([]), ValueError, "expected a list of at least one layer, got []"),
    "sigmoid and logits": (lambda: NeuralNetwork([FullyConnected(3, "sigmoid")], loss="binary_cross_entropy"), ValueError,
                           "expected a linear last layer with binary_cross_entropy, which takes logits, got Sigmoid()"),
    "a layer's name": (lambda: NeuralNetwork(["fully_conected"]), ValueError, "did you mean 'fully_connected'?"),
    "a layer twice": (lambda: NeuralNetwork([FullyConnected(3, "relu")]*2), ValueError, "one object in two places"),
    "seed": (lambda: NeuralNetwork([FullyConnected(3, "relu")], seed=-1), ValueError, "expected seed as an integer at least 0, got -1"),
    "logger": (lambda: NeuralNetwork(["flatten"], logger=5), TypeError, "expected a logger with the methods log and finish, got 5"),
    "predict nan": (lambda: seen.predict(np.full((2, 4), np.nan, dtype=f32)), ValueError, "expected finite input, got 8 NaN"),
    "predict shape": (lambda: seen.predict(np.zeros((2, 5), dtype=f32)), ValueError, "expected input (batch, 4), got (2, 5)"),
    "epochs": (lambda: seen.train(flowers, epochs=0), ValueError, "expected epochs as an integer at least 1, got 0"),
    "dataset": (lambda: seen.train([1, 2], epochs=1), TypeError, "expected a Dataset, got list"),
    "another output": (lambda: seen.backward(flowers.test.Y, seen.forward(flowers.test.X)/2), ValueError, "expected the output of the last forward pass"),
    "targets": (lambda: seen.backward(flowers.test.Y[:, :2], seen.forward(flowers.test.X)), ValueError, ""),
    "update": (lambda: NeuralNetwork(["flatten"], "l2").update(0), RuntimeError, "expected a backward pass before update, got no gradient for any parameter"),
    "error nan": (lambda: seen.error(flowers.test.Y, np.full((30, 3), np.nan)), ValueError, "expected finite out, got 90 NaN"),
    "save too early": (lambda: dense().save("none.safetensors"), RuntimeError, "expected a forward pass before save"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_networks_say_what_they_refuse(case):
    call, expected, text = REFUSED[case]
    with pytest.raises(expected) as caught: call()
    assert text in str(caught.value)


def test_a_layer_that_fails_takes_nothing_with_it():
    # the first layer would fit any number of features, and does not take over the wrong one
    half_made = NeuralNetwork([FullyConnected(5, "relu"), FullyConnected(None, "softmax")])
    with pytest.raises(ValueError, match="FullyConnected: expected n_out as an integer at least 1, got None"): half_made.predict(flowers.test.X)
    assert not half_made.layers[0].parameters and half_made.input_shape is None


def test_files_that_are_none(tmp_path):
    (tmp_path/"broken.safetensors").write_bytes(b"no such file format")
    save_file({"0.W": np.ones((4, 4))}, tmp_path/"strange.safetensors", metadata={"input_shape": "-4"})
    before = [p.copy() for l in seen.layers for p in l.parameters.values()]
    for name, expected, text in (("broken", ValueError, "expected a safetensors file"), ("missing", FileNotFoundError, "where there is none"),
                                 ("strange", ValueError, "expected an input_shape such as '8 8 1' in the metadata")):
        with pytest.raises(expected) as caught: seen.load(tmp_path/f"{name}.safetensors")
        assert text in str(caught.value)
    for b, p in zip(before, [p for l in seen.layers for p in l.parameters.values()]): np.testing.assert_array_equal(b, p)


def test_places_that_take_no_file(tmp_path):
    with pytest.raises(ValueError, match="expected the name of a file in a folder that exists"): seen.save(tmp_path)
    with pytest.raises(ValueError, match="in a folder that exists"): seen.save(tmp_path/"missing"/"weights.safetensors")
    assert not list(tmp_path.iterdir())
