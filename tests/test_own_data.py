"""Tables of all kinds in, and a file larger than the memory that the process may use."""
import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hwnn.datasets import Dataset, csv_rows

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


table = "height,leaves,kind\n2,3,fern\n2.5,3,fern\n4,3,fern\n6,5,oak\n10,4,oak\n6,5,oak\n"
MISTAKES = {
    "target": (table, "Dataset.from_csv: expected a column 'species' in the first line of ", dict(target="species")),
    "semicolons": (table.replace(",", ";"), "got 'height;leaves;kind'", {}),
    "nameless column": (",height,kind\n0,2,fern\n", "got '' for column 1", {}),
    "name twice": ("height,height,kind\n0,2,fern\n", "got 'height' for column 2", {}),
    "text among numbers": (table.replace("2.5", "2m5"), "expected a finite number in line 3, column 'height' of ", {}),
    "no class": (table.replace("4,oak", "4,"), "expected a class in line 6, column 'kind' of ", {}),
    "row too short": (table.replace("6,5,oak", "6,5"), "expected 3 cells, as in the first line of ", {}),
    "no rows": ("height,kind\n", "expected at least two classes in column 'kind' of ", {}),
    "no feature": ("kind\nfern\noak\n", "expected a feature beside the target 'kind' in ", {}),
    "two rows": ("height,kind\n2,fern\n6,oak\n", "expected enough rows in ", {}),
    "class lost": ("height,kind\n2,fern\n6,oak\n3,fern\n", "got none of 'oak', which", dict(test=0.5, validation=0)),
    "shares": (table, "expected validation + test as a number below 1, got 1.0", dict(validation=0.5, test=0.5)),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_a_table(tmp_path, case):
    text, message, kwargs = MISTAKES[case]
    (tmp_path/"table.csv").write_text(text)
    with pytest.raises(ValueError) as caught: Dataset.from_csv(tmp_path/"table.csv", **{"target": "kind", **kwargs})
    assert message in str(caught.value)


def test_arguments_of_from_csv(tmp_path):
    (tmp_path/"table.csv").write_text(table)
    with pytest.raises(FileNotFoundError, match="plant.csv', where there is none"): Dataset.from_csv(tmp_path/"plant.csv", "kind")
    for ignore in ("leaves", None):
        with pytest.raises(TypeError) as caught: Dataset.from_csv(tmp_path/"table.csv", "kind", ignore=ignore)
        assert f"ignore as a list of column names, got {ignore!r}" in str(caught.value)
    assert Dataset.from_csv(tmp_path/"table.csv", "kind", validation=0, test=0, ignore=("leaves",)).train.X.shape == (6, 1)


@pytest.mark.parametrize("text, message", [
    ("a,b\n1,2\n3\n", "demo: expected 2 cells, as in the first line of"), ("a,b\n1,2\n3\n", "got 1 in line 3"),
    ('a,b\n"1,2\n', "got an error in line 2: unexpected end of data"), ("", "got an empty file"),
    ("größe\n1\n".encode("latin-1"), "as text in UTF-8, got the byte f6 at or after line 1")])
def test_files_that_are_no_tables(tmp_path, text, message):
    (tmp_path/"table.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught: csv_rows("demo", tmp_path/"table.csv")
    assert message in str(caught.value)
