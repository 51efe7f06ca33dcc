"""Tables of all kinds in, and a file larger than the memory that the process may use."""
import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hwnn.datasets import Dataset

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).map(str.strip).filter(bool)
numbers = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(classes=st.lists(words, min_size=2, max_size=4, unique=True), names=st.lists(words, min_size=2, max_size=4, unique=True), data=st.data())
def test_table_comes_back(tmp_path_factory, classes, names, data):
    path = tmp_path_factory.mktemp("tables")/"table.csv"
    kinds = classes*5
    rows = [data.draw(st.lists(numbers, min_size=len(names) - 1, max_size=len(names) - 1)) for _ in kinds]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *([*map(repr, row), kind] for row, kind in zip(rows, kinds))])
    dataset = Dataset.from_csv(path, names[-1], validation=0.2, test=0.2, dtype=np.float64)
    parts = (dataset.train, dataset.validate, dataset.test)
    assert [len(part) for part in parts] == [len(kinds)*3//5, len(kinds)//5, len(kinds)//5]
    assert all((part.Y.sum(axis=0) == len(part)/len(classes)).all() for part in parts)
    prepared, X = dataset.preparation, np.array(rows)
    assert prepared["features"] == names[:-1] and sorted(prepared["classes"]) == sorted(classes)
    shift, scale = (np.broadcast_to(prepared[key], X.shape[1]) for key in ("shift", "scale"))
    # every row of the file is in one part, with its own class
    found = [(*x, prepared["classes"][y.argmax()]) for part in parts for x, y in zip(part.X, part.Y)]
    assert sorted(found) == sorted((*row, kind) for row, kind in zip((X - shift)/scale, kinds))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("mode, fits", [("r", True), (None, False)])
def test_file_larger_than_memory_trains(tmp_path, mode, fits):
    big = np.lib.format.open_memmap(tmp_path/"big.npy", mode="w+", dtype=np.float32, shape=(150_000, 784))   # 470 MB, sparse
    big[:, 0] = np.arange(150_000) % 2
    big.flush()
    code = f"""
import resource
import numpy as np
from hwnn.all import *
use_fast(False)                                                      # a compiler may need more memory than the data
net = NeuralNetwork([FullyConnected(2, "softmax")])
net.predict(np.zeros((1, 784), np.float32))                          # what has to be loaded is loaded
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))*1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 100_000_000,)*2)
X = np.load({str(tmp_path/'big.npy')!r}, mmap_mode={mode!r})
dataset = Dataset(X, one_hot(X[:, 0].astype(int), 2), batch_size=1000, validation_set=X[:1000], validation_labels=one_hot(X[:1000, 0].astype(int), 2))
net.train(dataset, epochs=1)
print(net.history.validation_error[-1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if fits: assert done.returncode == 0 and float(done.stdout) == 0, done.stderr
    else: assert "MemoryError" in done.stderr, done.stderr   # the limit is one
