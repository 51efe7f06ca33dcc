"""Labels, splits, scaling, batches and parts: what is refused, in which words, and that it is the same with the package's classes
as with the plain functions of nbs/data/datasets.ipynb."""
import math

import numpy as np
import pytest

import hwnn.datasets
from hwnn.datasets import (Data, Dataset, Scaling, digits, flip, initialize_dataset, iris, k_folds, min_max, one_hot, shift, standardization,
                           stratified_split, write_predictions)

f32 = np.float32
labels = np.array([0, 0, 0, 1, 1, 2])
X = np.array([[2.0, 3.0], [2.0, 3.0], [4.0, 3.0], [6.0, 3.0], [10.0, 5.0], [6.0, 3.0]])
Y = one_hot(labels, dtype=np.float64)
first = np.array([0, 1, 3, 5])
by_spread = standardization(X[first])
flawed = X.copy()
flawed[1, 0] = np.nan
pictures = np.random.default_rng(0).random((40, 5, 7, 2)).astype(f32)
outputs = np.array([[0.2, 0.8], [0.75, 0.25]])

REFUSED = {
    # class numbers where rows are expected, as a list, as integers, or as a single axis
    "labels in a list": (lambda: Data(X, [0, 0, 0, 1, 1, 2]), TypeError,
                         "Data: expected Y as a NumPy array of floats, got list; turn class numbers into rows with one_hot(labels), numbers "
                         "to predict into a column with np.asarray(labels)[:, None].astype(np.float32)"),
    "labels as integers": (lambda: Dataset(X, labels, 4), TypeError,
                           "Dataset: expected training labels as a NumPy array of floats, got int64; turn class numbers"),
    "labels as an axis": (lambda: Data(X, labels.astype(float)), ValueError, "expected Y (6, outputs), got (6,); turn class numbers into rows "
                          "with one_hot(labels.astype(int)), numbers to predict into a column with labels[:, None]"),
    "targets as an axis": (lambda: Data(X, labels + 0.5), ValueError, "got (6,); turn numbers to predict into a column with labels[:, None]"),
    "labels as a column": (lambda: Data(X, labels[:, None]), TypeError, "got int64; turn class numbers into rows with one_hot(labels[:, 0]), "
                           "numbers to predict into a column with labels.astype(np.float32)"),
    "one-hot integers": (lambda: Dataset(X, np.eye(3, dtype=int)[labels], 2), TypeError,
                         "expected training labels as a NumPy array of floats, got int64; make floats of the rows with labels.astype(np.float32)"),
    "rows in lists": (lambda: Data(X, np.eye(3)[labels].tolist()), TypeError, "got list; make floats of the rows with np.asarray(labels).astype(np.float32)"),
    "rows of different length": (lambda: Data(X, [[0], [0, 1]]), TypeError, "got list; give every row as many numbers"),
    "names": (lambda: Data(X, np.array(list("aaabbc"))), TypeError, "got text; number names with np.unique(labels, return_inverse=True)[1], then "),
    # weights, and a last batch that is left out
    "weights in words": (lambda: Data(X, Y, weights="equal"), TypeError, "Data: expected weights as numbers, got str"),
    "weights for some": (lambda: Data(X, Y, weights=[1, 2]), ValueError, "Data: expected weights (6,), one for each example, got (2,)"),
    "a weight for each class": (lambda: Dataset(X, Y, 4, training_weights=np.ones(3)), ValueError, "Dataset: expected training weights (6,), one"),
    "weight below 0": (lambda: Data(X, Y, weights=[1, 1, 1, 1, 1, -1]), ValueError, "none below 0 and one above, got -1 at index 5"),
    "weights nan": (lambda: Data(X, Y, weights=[1, np.nan, 1, 1, 1, 1]), ValueError, "none below 0 and one above, got nan at index 1"),
    "weights 0": (lambda: Data(X, Y, weights=np.zeros(6)), ValueError, "got zeros alone"),
    "no whole batch": (lambda: Dataset(X, Y, 7, drop_last=True), ValueError,
                       "Dataset: expected at least batch_size = 7 examples with drop_last, got 6"),
    "drop_last": (lambda: Data(X, Y, drop_last="no"), TypeError, "Data: expected drop_last as True or False, got 'no'"),
    # parts that do not fit each other
    "lengths": (lambda: Data(X, Y[:5]), ValueError, "Data: expected Y (6, outputs), got (5, 3)"),
    "features": (lambda: Dataset(X, Y, 4, X[:, :1], Y), ValueError, "Dataset: expected validation set (examples, 2), got (6, 1)"),
    "outputs": (lambda: Dataset(X, Y, 4, X, Y[:, :2]), ValueError, "Dataset: expected validation labels (6, 3), like the training labels, got "
                "(6, 2); one_hot(labels, n_classes=...) makes all of one width"),
    "precisions": (lambda: Dataset(X, Y, 4, test_set=X.astype(f32)), TypeError,
                   "test set of dtype float64, like the training set, got float32"),
    "no validation labels": (lambda: Dataset(X, Y, 4, validation_set=X), TypeError,
                             "expected validation labels as a NumPy array of floats, got NoneType"),
    "labels alone": (lambda: Dataset(X, Y, 4, test_labels=Y), ValueError, "expected a test set beside the test labels, got None"),
    # images without channels, integer images, data that are no numbers, nothing at all
    "one feature": (lambda: Data(X[:, 0], Y), ValueError, "got (6,); a single feature needs its own axis, X[:, None]"),
    "no channel": (lambda: Data(np.zeros((6, 8, 8)), Y), ValueError,
                   "(examples, rows, cols, channels), got (6, 8, 8); give grey images their channel with X[..., None]"),
    "bytes": (lambda: Data(np.zeros((6, 8, 8, 1), np.uint8), Y), TypeError, "got uint8; convert it with .astype(np.float32)"),
    "nan": (lambda: Dataset(flawed, Y, 4), ValueError,
            "expected finite training set, got 1 NaN or infinite values, the first at index (1, 0)"),
    "nothing": (lambda: Data(X[:0], Y[:0]), ValueError, "Data: expected X (examples, features) with at least one element, got (0, 2)"),
    "complex": (lambda: Data(X + 0j, Y), TypeError, "expected X of dtype float32 or float64, got complex128"),
    "batch size 0": (lambda: Data(X, Y, batch_size=0), ValueError, "Data: expected batch_size as an integer at least 1, got 0"),
    "batch size 2.5": (lambda: Dataset(X, Y, 2.5), TypeError, "Dataset: expected batch_size as an integer at least 1, got 2.5"),
    "rng": (lambda: Data(X, Y, rng=3), TypeError,
            "expected rng as a numpy.random.Generator, got 3; make one with np.random.default_rng(seed)"),
    # labels that are no class numbers
    "float labels": (lambda: one_hot([0.0, 1.0]), TypeError,
                     "one_hot: expected labels as integers, got float64; make whole numbers integers with np.asarray(labels, dtype=int)"),
    "numbers as labels": (lambda: one_hot([0.0, 0.5]), TypeError, "0.5 at index 1 is no class; numbers to predict are a column Y[:, None]"),
    "missing label": (lambda: one_hot([0.0, np.nan]), TypeError, "nan at index 1 is no class"),
    "names as labels": (lambda: one_hot(["a", "b"]), TypeError, "got text; number names with np.unique(labels, return_inverse=True)[1]"),
    "bools as labels": (lambda: one_hot([True, False]), TypeError, "got bool; make whole numbers integers"),
    "column of labels": (lambda: one_hot([[1], [0], [2]]), ValueError, "got (3, 1); np.ravel(labels) makes one axis of them"),
    "negative label": (lambda: one_hot([0, -1]), ValueError, "expected labels from 0, got -1 at index 1; number them "
                       "with np.unique(labels, return_inverse=True)[1]"),
    "large label": (lambda: one_hot([0, 3], n_classes=3), ValueError, "expected labels below n_classes = 3, got 3 at index 1"),
    "table of labels": (lambda: one_hot(np.eye(2, dtype=int)), ValueError, "expected labels (examples,), got (2, 2); these are one-hot "
                        "rows already: as targets they are np.asarray(labels, dtype=np.float32), as class numbers np.argmax(labels, axis=1)"),
    "no label": (lambda: one_hot([]), ValueError, "one_hot: expected at least one label, got (0,)"),
    "ragged labels": (lambda: one_hot([[0, 1], [2]]), ValueError,
                      "one_hot: expected labels (examples,), got a sequence whose elements differ in length"),
    "one_hot dtype": (lambda: one_hot([0, 1], dtype=np.int64), TypeError, "one_hot: expected dtype float32 or float64, got int64"),
    "n_classes": (lambda: one_hot([0], n_classes=0), ValueError, "one_hot: expected n_classes as an integer at least 1, got 0"),
    "all for the second part": (lambda: stratified_split(labels, 6), ValueError, "n_second as an integer at least 1 and below 6, got 6"),
    "folds": (lambda: k_folds(labels[:5], 6), ValueError, "k_folds: expected k as an integer at least 2 and at most 5, got 6"),
    "one fold": (lambda: k_folds(6, 1), ValueError, "k_folds: expected k as an integer at least 2 and at most 6, got 1"),
    "folds of rows": (lambda: k_folds(Y, 2), ValueError, "as class numbers np.argmax(labels, axis=1)"),
    "folds of one": (lambda: k_folds(labels, 2), ValueError, "expected at least two examples of each class, got one of class 2"),
    "folds of nothing": (lambda: k_folds(1, 2), ValueError, "k_folds: expected the number of examples as an integer at least 2, got 1"),
    "folds rng": (lambda: k_folds(6, 2, rng=3), TypeError, "k_folds: expected rng as a numpy.random.Generator, got 3"),
    # scalings fitted to other features, and names that are not known
    "other features": (lambda: by_spread(X[:, :1]), ValueError, "Scaling: expected input (examples, 2), got (6, 1)"),
    "min_max nan": (lambda: min_max(flawed), ValueError, "min_max: expected finite input"),
    "scale 0": (lambda: Scaling([0.0], [0.0]), ValueError, "a positive, finite scale for each feature, got 0.0 and 0.0"),
    "shift in words": (lambda: Scaling(["wide"], [1.0]), TypeError,
                       "Scaling: expected shift and scale as arrays of numbers, got ['wide'] and [1.0]"),
    "shift and scale": (lambda: Scaling([0.0], [1.0, 2.0]), ValueError, "shift and scale of one shape, got (1,) and (2,)"),
    "name": (lambda: initialize_dataset("digit"), ValueError, "'digit'; did you mean 'digits'?"),
    "argument": (lambda: initialize_dataset("iris", images=True), TypeError,
                 "iris: expected arguments among 'batch_size', 'dtype', 'rng', got 'images'"),
    "name in a dict": (lambda: initialize_dataset({"name": "iris"}), TypeError, "dataset: expected name as a string"),
    "iris dtype": (lambda: iris(dtype=None), TypeError, "iris: expected dtype float32 or float64, got None"),
    "digits dtype": (lambda: digits(dtype="foo"), TypeError, "digits: expected dtype float32 or float64, got 'foo'"),
    "digits images": (lambda: digits(images="no"), TypeError, "digits: expected images as True or False, got 'no'"),
    # augmentation
    "augment": (lambda: Data(pictures, None, augment=2), TypeError, "Data: expected augment as a function or None, got 2"),
    "shift too far": (lambda: shift(pictures, None, 5), ValueError, "shift: expected pixels as an integer at least 0 and below 5, got 5"),
    "flip one image": (lambda: flip(pictures[0], None), ValueError, "flip: expected input (batch, rows, cols, channels), got (5, 7, 2)"),
    "shift rng": (lambda: shift(pictures, 3, 1), TypeError, "shift: expected rng as a numpy.random.Generator, got 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, kind, message = REFUSED[case]
    with pytest.raises(kind) as caught: call()
    assert message in str(caught.value)


REMEDIES = {   # what the message says, done: the labels, the remedy, and what comes of it
    "integers": (labels, lambda labels: one_hot(labels), Y),
    "float class numbers": (labels.astype(float), lambda labels: one_hot(labels.astype(int)), Y),
    "one-hot integers": (np.eye(3, dtype=int)[labels], lambda labels: labels.astype(np.float32), Y),
    "column": (labels[:, None], lambda labels: one_hot(labels[:, 0]), Y),
    "names": (np.array(list("aaabbc")), lambda labels: one_hot(np.unique(labels, return_inverse=True)[1]), Y),
    "list": (labels.tolist(), lambda labels: one_hot(labels), Y),
    "list of numbers": ([0.5, 1, 2, 3, 4, 5], lambda labels: np.asarray(labels)[:, None], np.array([[0.5], [1], [2], [3], [4], [5]])),
    "numbers": (labels + 0.5, lambda labels: labels[:, None], labels[:, None] + 0.5),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_the_remedy_that_is_named_works(case):
    given, remedy, expected = REMEDIES[case]
    with pytest.raises((TypeError, ValueError)): Dataset(X, given, 2)
    np.testing.assert_array_equal(Dataset(X, remedy(given), 2).train.Y, expected)


def test_weights_follow_their_examples():
    w = np.arange(6) + 1
    dataset = Dataset(X.astype(f32), Y, 4, X.astype(f32), Y, training_weights=w.tolist(), drop_last=True)
    assert dataset.train.weights.dtype == f32 and dataset.validate.weights is None and not dataset.validate.drop_last
    assert dataset.train.rows is None
    for _ in range(5):
        x, y = dataset.train.sample()
        assert len(x) == 4
        np.testing.assert_array_equal(x, X.astype(f32)[dataset.train.rows])
        np.testing.assert_array_equal(y, Y[dataset.train.rows])
        np.testing.assert_array_equal(dataset.train.weights[dataset.train.rows], dataset.train.rows + 1)
    assert (dataset.train.samples_per_epoch, dataset.validate.samples_per_epoch) == (1, 2)


@pytest.mark.parametrize("n, B", [(1, 1), (6, 4), (6, 6), (97, 10)])
def test_whole_batches_alone(n, B):
    data = Data(np.zeros((n, 1)), None, batch_size=B, drop_last=True)
    for _ in range(3):
        rows = [(data.sample(), data.rows)[1] for _ in range(data.samples_per_epoch)]
        assert all(len(r) == B for r in rows) and len(np.unique(np.concatenate(rows))) == n//B*B
    data.reset()
    data.sample()
    np.testing.assert_array_equal(data.rows, rows[0])


def test_the_courses_names():
    data = Data(data=X, labels=Y, batch_size=2)
    assert data.data_ is X and data.X is X
    np.testing.assert_array_equal(data.labels, Y)
    assert Data(data=X).labels is None
    dataset = Dataset(X, Y, 4)
    assert (dataset.batch_size, dataset.n_training) == (4, 6)


def test_zero_test_labels_are_no_matter_of_the_dataset():
    "A competition's test part has labels that mean nothing."
    assert not Dataset(X, Y, 4, test_set=X, test_labels=np.zeros_like(Y)).test.Y.any()


@pytest.mark.parametrize("seed", range(30))
def test_folds(seed):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.full(rng.integers(2, 20), c) for c in range(rng.integers(1, 5))])
    rng.shuffle(y)
    k = int(rng.integers(2, len(y) + 1))
    folds = list(k_folds(y, k, rng))
    assert len(folds) == k
    np.testing.assert_array_equal(np.sort(np.concatenate([v for _, v in folds])), np.arange(len(y)))
    for training, validation in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(len(y)))
        assert (np.diff(training) > 0).all() and (np.diff(validation) > 0).all()
        assert set(y[training]) == set(y) and abs(len(validation) - len(y)/k) < 1
        counts = np.bincount(y[validation], minlength=y.max() + 1)
        assert (np.abs(counts - np.bincount(y)/k) < 1).all()
    sizes = [len(v) for _, v in k_folds(len(y), k)]
    assert sum(sizes) == len(y) and max(sizes) - min(sizes) <= 1


def test_known_names_are_listed():
    with pytest.raises(ValueError, match="dataset: expected name to be one of 'iris', 'digits', "): initialize_dataset("digit")


def test_taken():
    assert Dataset(X, Y, 4, test_set=X).test.sample()[1] is None
    assert digits(images=np.True_).train.X.shape[1:] == (8, 8, 1)


PREDICTIONS = {
    "class names": (lambda path: write_predictions(path, outputs, classes=["fern"]), ValueError,
                    "expected 2 class names, one for each output, got 1"),
    "nan": (lambda path: write_predictions(path, outputs*np.nan), ValueError, "expected finite outputs, got 4 NaN or infinite values"),
    "classes": (lambda path: write_predictions(path, outputs, classes="no"), TypeError,
                "expected classes as a list of names or None, got 'no'"),
    "path": (lambda path: write_predictions(1, outputs), TypeError, "write_predictions: expected the path of a CSV file, got 1"),
    "class numbers": (lambda path: write_predictions(path, np.array([0, 1])), ValueError,
                      "expected outputs (examples, classes), as predict returns them, got (2,)"),
    "one output": (lambda path: write_predictions(path, outputs[:, :1]), ValueError, "got 1; with regression=True it is written as a number"),
    "two numbers": (lambda path: write_predictions(path, outputs, regression=True), ValueError, "expected one output, without classes and"),
    "numbers and classes": (lambda path: write_predictions(path, outputs[:, :1], classes=["a"], regression=True), ValueError, "classes=True"),
    "columns": (lambda path: write_predictions(path, outputs, columns="Id"), TypeError, "expected columns as two names, of the index and the "),
    "start": (lambda path: write_predictions(path, outputs, start=1.5), TypeError, "expected start as an integer, got 1.5"),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_predictions_refused(case, tmp_path):
    call, kind, message = PREDICTIONS[case]
    with pytest.raises(kind) as caught: call(tmp_path/"new.csv")
    assert message in str(caught.value) and not list(tmp_path.iterdir())


def test_predictions_for_a_competition(tmp_path):
    write_predictions(tmp_path/"a.csv", outputs, columns=("Id", "Category"), start=1)
    assert (tmp_path/"a.csv").read_text() == "Id,Category\n1,1\n2,0\n"
    write_predictions(tmp_path/"b.csv", np.array([[0.1], [1e-9]], f32), regression=True)
    assert [f32(line.split(",")[1]) for line in (tmp_path/"b.csv").read_text().splitlines()[1:]] == [f32(0.1), f32(1e-9)]


def test_scaling_fitted_to_all():
    leaky, other = standardization(X), X.copy()
    other[4, 0] = 100
    assert by_spread(X)[4, 0] == 3
    np.testing.assert_allclose(leaky(X)[4, 0], 5/math.sqrt(46/6))
    np.testing.assert_allclose(leaky(X)[3, 0], 1/math.sqrt(46/6))
    np.testing.assert_array_equal(standardization(other[first])(other[first]), by_spread(X[first]))
    np.testing.assert_allclose(standardization(other)(other)[3, 0], -14/math.sqrt(7696/6))
    other[4, 0] = 1e6
    np.testing.assert_allclose(standardization(other)(other)[4, 0], math.sqrt(5), rtol=1e-9)
    assert by_spread(other)[4, 0] == (1e6 - 4)/2


def test_nobody_is_far_from_a_mean_that_includes_him():
    samples = np.random.default_rng(0).standard_cauchy((6, 10_000))
    assert np.abs(standardization(samples)(samples)).max() <= math.sqrt(5)*(1 + 1e-12)


def test_every_public_name_is_found_in_one_place():
    "`hwnn.datasets` has what its modules define."
    for module in ("labels", "scaling", "batches", "parts", "included", "tables", "own", "downloads", "augmentation"):
        inside = getattr(hwnn.datasets, module)
        for name in set(inside.__all__) & set(hwnn.datasets.__all__): assert getattr(hwnn.datasets, name) is getattr(inside, name)
    assert all(hasattr(hwnn.datasets, name) for name in hwnn.datasets.__all__)
