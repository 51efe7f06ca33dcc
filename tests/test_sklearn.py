"The estimators keep scikit-learn's rules, and hand on what hwnn says."
import io
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, make_regression
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from hwnn.layers import FullyConnected
from hwnn.sklearn import NetworkClassifier, NetworkRegressor

X, numbers = load_iris(return_X_y=True)
X = (X - X.mean(axis=0))/X.std(axis=0)
SHORT = dict(epochs=5, random_state=0)


def failed(estimator):
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    assert len(results) > 40 and {r["status"] for r in results} <= {"passed", "skipped", "failed"}
    return {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}


@pytest.mark.parametrize("estimator", [NetworkClassifier(), NetworkRegressor(), NetworkClassifier(class_weight="balanced", epochs=20, lr=0.01),
                                       NetworkRegressor(loss="huber", epochs=20, lr=0.01)], ids=repr)
def test_scikit_learn_has_nothing_to_object_to(estimator):
    assert failed(estimator) == {}


@pytest.mark.parametrize("kind", [NetworkClassifier, NetworkRegressor])
def test_a_validation_part_knows_no_repetition(kind):
    "As the page says: a repeated example may be in both parts, a weighted one is in one."
    assert failed(kind(patience=5, epochs=20, lr=0.01)).keys() <= {"check_sample_weight_equivalence_on_dense_data"}


@pytest.mark.parametrize("names", [np.array(["a", "bb", "c"]), np.array(["a", "bb", "c"], dtype=object), np.array([-3, 7, 10**12]), np.array([0.0, 1.0, 2.5e3]),
                                   np.array([2, 1, 0], dtype=np.uint8)], ids=lambda a: str(a.dtype))
def test_classes_of_any_type(names):
    model = NetworkClassifier(lr=0.01, random_state=0).fit(X, names[numbers])
    np.testing.assert_array_equal(model.classes_, np.sort(names))
    said = model.predict(X)
    assert said.dtype == names.dtype and set(said) <= set(names) and model.score(X, names[numbers]) > 0.9
    np.testing.assert_array_equal(model.classes_[model.predict_proba(X).argmax(axis=1)], said)


def test_booleans_and_lists():
    model = NetworkClassifier(**SHORT).fit(X.tolist(), (numbers == 0).tolist())
    assert model.predict(X.tolist()).dtype == bool and model.predict_proba(X).shape == (150, 2)


def test_weight_zero_is_as_good_as_gone():
    w = np.where(numbers == 1, 0, 1)
    one = NetworkClassifier(**SHORT).fit(X, numbers, sample_weight=w)
    other = NetworkClassifier(**SHORT).fit(X[w > 0], numbers[w > 0])
    np.testing.assert_array_equal(one.classes_, [0, 2])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-9)


def test_class_weights_also_in_the_validation_loss():
    y = (numbers == 2).astype(int)
    X_mixed = np.random.default_rng(0).normal(size=X.shape)   # nothing to learn but the shares of the classes
    for more in ({}, dict(patience=3)):
        model = NetworkClassifier(lr=0.01, class_weight={0: 1e-4, 1: 1e4}, random_state=0, **more).fit(X_mixed, y)
        assert (model.predict(X_mixed) == 1).mean() > 0.9


def test_random_state():
    fit = lambda state: NetworkClassifier(epochs=1, random_state=state).fit(X, numbers).predict_proba(X)
    np.testing.assert_array_equal(fit(3), fit(3))
    np.testing.assert_array_equal(fit(3), fit(np.random.RandomState(3)))
    assert not np.array_equal(fit(3), fit(4))
    held = np.random.get_state()
    try:
        results = []
        for seed in (1, 1, 2):
            np.random.seed(seed)
            results.append(fit(None))
        assert np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[2])
    finally: np.random.set_state(held)


@pytest.mark.parametrize("given, kept", [(np.float32, np.float32), (np.float64, np.float64), (np.float16, np.float64), (int, np.float64)])
def test_precision(given, kept):
    model = NetworkClassifier(**SHORT).fit((10*X).astype(given), numbers)
    for asked in (np.float32, np.float64, int): assert model.predict_proba(X.astype(asked)).dtype == kept
    assert model.network_.layers[0].parameters["W"].dtype == kept


def test_layers_of_ones_own_are_not_trained_in_place():
    layers = [FullyConnected(8, "tanh"), FullyConnected(None, "softmax")]
    model = NetworkClassifier(layers=layers, **SHORT)
    first = model.fit(X, numbers).predict_proba(X)
    assert not layers[0].parameters and layers[1].n_out is None
    np.testing.assert_array_equal(model.fit(X, numbers).predict_proba(X), first)
    np.testing.assert_array_equal(clone(model).fit(X, numbers).predict_proba(X), first)


def test_images():
    images = np.random.default_rng(0).normal(size=(60, 6, 6, 1))
    labels = np.where(images.mean(axis=(1, 2, 3)) > 0, "bright", "dark")
    layers = [dict(name="conv2d", n_out=4, kernel_shape=(3, 3), activation="relu"), "flatten",
              dict(name="fully_connected", n_out=None, activation="softmax")]
    model = NetworkClassifier(layers=layers, lr=0.01, random_state=0).fit(images, labels)
    assert model.score(images, labels) > 0.9
    with pytest.raises(ValueError, match="give grey images their channel"): model.fit(images[..., 0], labels)


def test_patience_goes_back_to_the_best_epoch():
    X_mixed = np.random.default_rng(0).normal(size=X.shape)
    model = NetworkClassifier(hidden=(200,), lr=0.01, epochs=500, patience=2, validation_fraction=0.3, random_state=0).fit(X_mixed, numbers)
    losses = model.history_.validation_loss
    assert model.n_iter_ == len(losses) < 500
    assert model.history_.best_epoch[-1] == np.argmin(losses) + 1 == model.n_iter_ - 2


def test_what_fails_leaves_the_fit_before():
    model = NetworkRegressor(**SHORT).fit(X, numbers)
    network, before = model.network_, model.predict(X)
    with pytest.raises(FloatingPointError, match="smaller lr"): model.set_params(optimizer="SGD", lr=1e30).fit(X, numbers)
    assert model.network_ is network
    np.testing.assert_array_equal(model.predict(X), before)
    classifier = NetworkClassifier(**SHORT).fit(X, numbers)
    with pytest.raises(ValueError, match="batch_size"): classifier.set_params(batch_size=0).fit(X, numbers > 0)
    np.testing.assert_array_equal(classifier.classes_, [0, 1, 2])


def test_pickle_and_clone():
    model = make_pipeline(StandardScaler(), NetworkClassifier(**SHORT)).fit(X, numbers)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again[-1].get_params() == model[-1].get_params() == clone(model)[-1].get_params()
    with pytest.raises(NotFittedError): clone(model[-1]).predict(X)


def test_shapes_of_targets():
    A, y = make_regression(80, 3, random_state=0)
    assert NetworkRegressor(**SHORT).fit(A, y).predict(A).shape == (80,)
    assert NetworkRegressor(**SHORT).fit(A, y[:, None]).predict(A).shape == (80, 1)
    assert NetworkRegressor(**SHORT).fit(A, np.stack([y, -y], axis=1)).predict(A).shape == (80, 2)


def test_a_search_goes_on_after_a_failure():
    search = GridSearchCV(NetworkRegressor(optimizer="SGD", **SHORT), {"lr": [1e30, 0.01]}, cv=2)
    with pytest.warns(FitFailedWarning, match="A smaller lr"), pytest.warns(UserWarning, match="non-finite"): search.fit(X, X[:, 0])
    assert search.best_params_ == {"lr": 0.01} and np.isnan(search.cv_results_["mean_test_score"][0])


def test_scikit_learn_is_imported_here_alone():
    files = (Path(__file__).parent.parent/"hwnn").rglob("*.py")
    assert [f.name for f in files if re.search(r"(?m)^\s*(?:from|import) sklearn\b", f.read_text(encoding="utf-8"))] == ["sklearn.py"]


class Terminal(io.StringIO):
    def isatty(self): return True


def test_nothing_is_drawn_unless_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    NetworkClassifier(**SHORT).fit(X, numbers)
    assert sys.stderr.getvalue() == "" == capsys.readouterr().out
    NetworkClassifier(verbose=True, **SHORT).fit(X, numbers)
    assert "training" in sys.stderr.getvalue() and capsys.readouterr().out.count("train loss") == 5


@pytest.mark.parametrize("arguments, weights, message", [
    (dict(hidden=64), None, r"NetworkClassifier: expected hidden as a tuple such as \(64,\), got 64"),
    (dict(hidden=(0,)), None, "n_out as an integer at least 1, got 0"),
    (dict(activation="swish"), None, "did you mean 'silu'"),
    (dict(optimizer="adamm"), None, "did you mean 'adam'"),
    (dict(epochs=0), None, "epochs as an integer at least 1"),
    (dict(patience=2, validation_fraction=1.0), None, "NetworkClassifier: expected validation_fraction as a number above 0 and below 1"),
    (dict(layers=[dict(name="fully_connected", n_out=3, activation="relu")]), None, "a last layer with softmax"),
    (dict(layers=[dict(name="fully_connected", n_out=4, activation="softmax")]), None, r"expected labels \(examples, 4\)"),
    (dict(class_weight={"rose": 2}), None, "not in class_weight"),
    ({}, np.zeros(150), "none below 0 and one above, got zeros alone"),
    ({}, -np.ones(150), "none below 0"),
    ({}, np.ones(149), r"sample_weight \(150,\)"),
], ids=str)
def test_what_is_refused_says_what_was_expected(arguments, weights, message):
    model = NetworkClassifier(**arguments)
    with pytest.raises((TypeError, ValueError), match=message): model.fit(X, numbers, sample_weight=weights)
    assert not hasattr(model, "network_")


def test_numbers_are_no_classes():
    with pytest.raises(ValueError, match="Unknown label type"): NetworkClassifier().fit(X, X[:, 0])
    with pytest.raises(ValueError, match="at least two classes, got one class: 'a'"): NetworkClassifier().fit(X, ["a"]*150)
