"""Labels, splits, scaling, batches and parts: what is refused, in which words, and that it is the same with the package's classes
as with the plain functions of nbs/data/datasets.ipynb."""
import math

import numpy as np
import pytest

import hwnn.datasets
from hwnn.datasets import (Data, Dataset, Scaling, digits, flip, initialize_dataset, iris, min_max, one_hot, shift, standardization,
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
                         "Data: expected Y as a NumPy array of floats, got list; turn class numbers into rows with one_hot(labels)"),
    "labels as integers": (lambda: Dataset(X, labels, 4), TypeError,
                           "Dataset: expected training labels as a NumPy array of floats, got int64; turn class numbers"),
    "labels as an axis": (lambda: Data(X, labels.astype(float)), ValueError, "expected Y (6, outputs), got (6,); turn class numbers"),
    # parts that do not fit each other
    "lengths": (lambda: Data(X, Y[:5]), ValueError, "Data: expected Y (6, outputs), got (5, 3)"),
    "features": (lambda: Dataset(X, Y, 4, X[:, :1], Y), ValueError, "Dataset: expected validation set (examples, 2), got (6, 1)"),
    "outputs": (lambda: Dataset(X, Y, 4, X, Y[:, :2]), ValueError, "Dataset: expected validation labels (6, 3), got (6, 2)"),
    "precisions": (lambda: Dataset(X, Y, 4, test_set=X.astype(f32)), TypeError,
                   "test set of dtype float64, like the training set, got float32"),
    "no validation labels": (lambda: Dataset(X, Y, 4, validation_set=X), TypeError,
                             "expected validation labels as a NumPy array of floats, got NoneType"),
    "labels alone": (lambda: Dataset(X, Y, 4, test_labels=Y), ValueError, "expected a test set beside the test labels, got None"),
    # images without channels, integer images, data that are no numbers, nothing at all
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
    "float labels": (lambda: one_hot([0.0, 1.0]), TypeError, "one_hot: expected labels as integers, got float64"),
    "negative label": (lambda: one_hot([0, -1]), ValueError, "expected labels from 0, got -1 at index 1"),
    "large label": (lambda: one_hot([0, 3], n_classes=3), ValueError, "expected labels below n_classes = 3, got 3 at index 1"),
    "table of labels": (lambda: one_hot(np.eye(2, dtype=int)), ValueError, "expected labels (examples,), got (2, 2)"),
    "no label": (lambda: one_hot([]), ValueError, "one_hot: expected at least one label, got (0,)"),
    "ragged labels": (lambda: one_hot([[0, 1], [2]]), ValueError,
                      "one_hot: expected labels (examples,), got a sequence whose elements differ in length"),
    "one_hot dtype": (lambda: one_hot([0, 1], dtype=np.int64), TypeError, "one_hot: expected dtype float32 or float64, got int64"),
    "n_classes": (lambda: one_hot([0], n_classes=0), ValueError, "one_hot: expected n_classes as an integer at least 1, got 0"),
    "all for the second part": (lambda: stratified_split(labels, 6), ValueError, "n_second as an integer at least 1 and below 6, got 6"),
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
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_predictions_refused(case, tmp_path):
    call, kind, message = PREDICTIONS[case]
    with pytest.raises(kind) as caught: call(tmp_path/"new.csv")
    assert message in str(caught.value) and not list(tmp_path.iterdir())


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
    for module in ("labels", "scaling", "batches", "included", "tables", "downloads", "augmentation"):
        inside = getattr(hwnn.datasets, module)
        for name in set(inside.__all__) & set(hwnn.datasets.__all__): assert getattr(hwnn.datasets, name) is getattr(inside, name)
    assert all(hasattr(hwnn.datasets, name) for name in hwnn.datasets.__all__)
