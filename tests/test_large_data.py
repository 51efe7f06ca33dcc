"Bytes and half precision in files, converted in the batch: the same training, in memory that does not grow with the file."
import mmap
import tracemalloc

import numpy as np
import pytest

from hwnn.all import *
from hwnn.distributed import Team, bounds, in_threads


def to_units(X): return np.divide(X, 16, dtype=np.float32)
def widen(X): return X.astype(np.float32)


@pytest.fixture
def stored(tmp_path):
    "The digits as bytes in files: training, validation and test."
    d = digits(images=True)
    parts = {name: (np.round(getattr(d, name).X*16).astype(np.uint8), getattr(d, name).Y) for name in ("train", "validate", "test")}
    for name, (X, _) in parts.items(): np.save(tmp_path/f"{name}.npy", X)
    return [A for name, (_, Y) in parts.items() for A in (np.load(tmp_path/f"{name}.npy", mmap_mode="r"), Y)]


def make(arrays, **more):
    X, Y, *rest = arrays
    return Dataset(X, Y, 64, *rest, **more)


def trained(dataset, **more):
    net = NeuralNetwork([Conv2D(4, 3, "relu"), BatchNorm1D(), Flatten(), FullyConnected(10, "softmax")], optimizer=dict(name="SGD", lr=0.1))
    net.train(dataset, 3, bar=False, **more)
    return net


@pytest.mark.parametrize("dtype,convert", [(np.uint8, to_units), (np.int16, to_units), (np.float16, to_units), (np.float64, to_units)])
def test_the_same_training_to_the_bit(dtype, convert, stored, tmp_path):
    kept = [A.astype(dtype) if k % 2 == 0 else A for k, A in enumerate(stored)]
    floats = [to_units(A) if k % 2 == 0 else A for k, A in enumerate(stored)]
    one, two = make(kept, convert=convert), make(floats)
    a, b = trained(one, patience=2, checkpoint=tmp_path/"run"), trained(two, patience=2)
    assert a.history.columns == b.history.columns
    for la, lb in zip(a.layers, b.layers):
        for name in la.parameters: assert np.array_equal(la.parameters[name], lb.parameters[name])
    ours, theirs = a.test(one, save_predictions=True), b.test(two, save_predictions=True)
    assert ours["loss"] == theirs["loss"] and np.array_equal(ours["prediction"], theirs["prediction"])
    np.testing.assert_allclose(b.predict(floats[4], floats[5])[1], theirs["loss"], rtol=1e-6)
    assert repr(one) == repr(two)
    again = trained(one, patience=2, checkpoint=tmp_path/"run", resume=True)
    assert np.array_equal(again.layers[0].parameters["W"], a.layers[0].parameters["W"])
    with pytest.raises(ValueError, match="expected the convert of the checkpoints in .*, to_units, got widen"):
        trained(make(kept, convert=widen), patience=2, checkpoint=tmp_path/"run", resume=True)


def test_augmentation_comes_after_the_conversion(stored):
    seen = []
    def look(X, rng):
        seen.append(X.dtype)
        return X
    trained(make(stored, convert=to_units, augment=look))
    assert set(seen) == {np.dtype(np.float32)}


REFUSED = {
    "not a function": (lambda X, Y: Data(X, Y, convert="float32"), TypeError, "Data: expected convert as a function or None, got 'float32'"),
    "no floats": (lambda X, Y: Data(X, Y, convert=lambda X: X), TypeError, "Data: expected X after convert of dtype float32 or float64, got uint8"),
    "text": (lambda X, Y: Data(X.astype(str), Y, convert=widen), TypeError, "Data: expected X as a NumPy array of numbers, got <U"),
    "a list": (lambda X, Y: Data([[1, 2]], Y, convert=widen), TypeError, "Data: expected X as a NumPy array of numbers, got list"),
    "three axes": (lambda X, Y: Data(X[..., 0], Y, convert=widen), ValueError, "Data: expected X after convert .*; give grey images their channel"),
    "infinite": (lambda X, Y: Data(X.astype(np.float16)*60000, Y, convert=widen), ValueError, "Data: expected finite X, got .* NaN or infinite values"),
    "another shape": (lambda X, Y: Dataset(X, Y, 5, X[:, :4], Y, convert=widen), ValueError, "Dataset: expected validation set .*8, 8, 1.*, got .*4, 8, 1"),
    "another dtype": (lambda X, Y: Dataset(X, Y, 5, X.astype(float), Y, convert=lambda X: X if X.dtype == float else widen(X)), TypeError,
                      "Dataset: expected validation set of dtype float32, like the training set, got float64"),
    "bytes without": (lambda X, Y: Data(X, Y), TypeError, r"got uint8; convert it with .astype\(np.float32\)"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:overflow")
def test_refused(case, stored):
    fn, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message): fn(np.asarray(stored[0]), stored[1])


def test_blocks_are_the_examples_in_order(stored):
    data = Data(*stored[:2], convert=to_units)
    for start, stop in ((0, None), (100, 900), (5, 6)):
        X, Y = map(np.concatenate, zip(*data.blocks(start, stop)))
        np.testing.assert_array_equal(X, to_units(stored[0][start:stop]))
        np.testing.assert_array_equal(Y, stored[1][start:stop])
    assert list(data.blocks(5, 5)) == []
    sizes = [len(X) for X, _ in Data(np.zeros((3000, 2000), np.float32)).blocks()]
    assert sum(sizes) == 3000 and len(sizes) > 1 and all(n % 256 == 0 for n in sizes[:-1])


class Recorder(mmap.mmap):
    "A map that remembers what it was told."
    def madvise(self, option, start, length):
        super().madvise(option, start, length)
        self.told = [*getattr(self, "told", []), (start, length)]


@pytest.mark.skipif(not hasattr(mmap.mmap, "madvise"), reason="no madvise on this system")
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_system_is_told_of_the_next_rows_and_of_no_others(ranks, tmp_path):
    n, F, head = 50, 7000, 300
    (tmp_path/"X").write_bytes(np.random.default_rng(0).bytes(head + n*F))
    def run(comm):
        with open(tmp_path/"X", "rb") as file: recorder = Recorder(file.fileno(), 0, access=mmap.ACCESS_READ)
        X = np.frombuffer(recorder, np.uint8)[head:].reshape(n, F).view(np.memmap)
        X._mmap = recorder
        data = Data(X, None, 10, convert=to_units)
        for _ in range(3):
            recorder.told = []
            coming = data.order[data.position + 10:][:10]
            X_batch, _ = Team(comm).sample(data) if ranks > 1 else data.sample()
            np.testing.assert_array_equal(X_batch, to_units(np.asarray(X)[data.rows]))
            mine = coming[slice(*bounds(10, comm.Get_rank(), ranks))]
            assert [start for start, _ in recorder.told] == [(head + r*F)//mmap.PAGESIZE*mmap.PAGESIZE for r in mine]
            assert [start + length for start, length in recorder.told] == [head + r*F + F for r in mine]
    in_threads(ranks, run)


def test_memory_does_not_grow_with_the_file(tmp_path):
    "A sparse file of 2 GB: steps of training, and a test of 400 MB of floats; what is kept is labels and orders."
    n, F = 100_000, 20_000
    X = np.memmap(tmp_path/"X", np.uint8, "w+", shape=(n, F))
    Y = one_hot(np.arange(n) % 2, 2)
    tracemalloc.start()
    data = Dataset(X, Y, 100, test_set=X[:5000], test_labels=Y[:5000], convert=to_units)
    net = NeuralNetwork([FullyConnected(2, "softmax")])
    class Enough(Exception): pass
    def update(*args, steps=[], old=net.update):
        steps.append(1)
        if len(steps) == 20: raise Enough
        return old(*args)
    net.update = update
    with pytest.raises(Enough): net.train(data, 1, bar=False)
    net.test(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6 + 8*Y.nbytes, peak
