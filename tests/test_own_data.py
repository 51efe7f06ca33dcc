"""Tables of all kinds in, and a file larger than the memory that the process may use."""
import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hwnn.datasets import Dataset, class_order, csv_numbers, csv_rows, is_number

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).map(str.strip).filter(lambda word: word and not is_number(word) and word != "<NA>")
floats = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(classes=st.lists(words, min_size=2, max_size=4, unique=True), names=st.lists(words, min_size=2, max_size=4, unique=True), data=st.data())
def test_table_comes_back(tmp_path_factory, classes, names, data):
    path = tmp_path_factory.mktemp("tables")/"table.csv"
    kinds = classes*5
    rows = [data.draw(st.lists(floats, min_size=len(names) - 1, max_size=len(names) - 1)) for _ in kinds]
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
rows = table.split("\n", 1)[1]
numbers = table.replace("fern", "0").replace("oak", "1")
numbered = numbers.split("\n", 1)[1]
MISTAKES = {
    "target": (table, "Dataset.from_csv: expected a column 'species' in the first line of ", dict(target="species")),
    "no header, unknown name": (rows, "got '2', '3', 'fern'; give header=False if this is a row of data", {}),
    "no header, number": (rows, "expected names in the first line of ", dict(target=3)),
    "no header, a class as target": (rows, "expected names in the first line of ", dict(target="fern")),
    "another delimiter": (table.replace(",", "|"), "got 'height|leaves|kind'; cells are separated by commas, semicolons or tabs", {}),
    "unit": (table.replace("2.5", "2.5%"), "got '2.5%'; numbers are written as in 1234.5", {}),
    "space for thousands": (table.replace("2.5", "1 234"), "got '1 234'; numbers are written as in 1234.5", {}),
    "no header, number as text": (numbered, "got numbers '2', '3'; give header=False if this is a row of data", dict(target="0")),
    "no header, all but one column ignored": (rows, "expected names in the first line of ", dict(target=3, ignore=[1])),
    "header that is no name": (table, "expected a column from 1 to 3, since header=False says that ", dict(header=False)),
    "column 0": (table, "expected a column from 1 to 3 of ", dict(target=0)),
    "column 4": (table, "got 4", dict(target=4)),
    "header read as data": (table, "expected a finite number in line 1, column '1' of ", dict(header=False, target=3)),
    "nameless column": (",height,kind\n0,2,fern\n", "got '' for column 1; pandas writes its index so, unless to_csv is told index=False", {}),
    "many columns": (",".join(f"x{k}" for k in range(785)), "'x8', 'x9' and 775 more", {}),
    "decimal comma": (table.replace(",", ";").replace("2.5", "2,5"), "column 'height' of ", {}),
    "decimal comma, remedy": (table.replace(",", ";").replace("2.5", "2,5"), "got '2,5'; numbers are written as in 1234.5", {}),
    "thousands": (table.replace("2.5", '"1,234"'), "got '1,234'; numbers are written as in 1234.5", {}),
    "missing number": (table.replace("2.5", "NA"), "got 'NA'; fill a missing value, or leave its row or column out", {}),
    "empty number": (table.replace("2.5", ""), "got ''; fill a missing value, or leave its row or column out", {}),
    "words as a feature": (table.replace("2.5", "tall"), "got 'tall'; ignore columns that are no numbers", {}),
    "class nan": (table.replace("4,oak", "4,nan"), "expected a class in line 6, column 'kind' of ", {}),
    "class nan, remedy": (table.replace("4,oak", "4,nan"), "got 'nan', as a missing value is written; fill it, leave the row out, or ", {}),
    "class <NA>": (table.replace("4,oak", "4,<NA>"), "got '<NA>', as a missing value is written", {}),
    "number among classes nan": (numbers.replace("4,1", "4,NaN"), "got 'NaN', as a missing value is written", {}),
    "two spellings": (numbers.replace("4,1", "4,1.0"), "expected one spelling for each class in column 'kind' of ", {}),
    "numbers as classes": (table, "; regression=True takes it as a number", dict(target="height", ignore=["kind"])),
    "a word as a number": (table, "expected a finite number in line 2, column 'kind' of ", dict(regression=True)),
    "missing target": (table.replace("6,5,oak", ",5,oak"), "expected a finite number in line 5, column 'height' of ",
                       dict(regression=True, target="height", ignore=["kind"])),
    "long row": (table.replace("6,5,oak", "6,5,oak,8"), "got 4 in line 5, separated by commas; one inside a cell needs quotes around it", {}),
    "some semicolons": (table.replace("4,3,fern", "4;3;fern"), "expected 3 cells, as in the first line of ", {}),
    "long semicolons": (table.replace(",", ";").replace("4;3", "4;3;3"), "got 4 in line 4, separated by semicolons", {}),
    "name twice": ("height,height,kind\n0,2,fern\n", "got 'height' for column 2", {}),
    "text among numbers": (table.replace("2.5", "2m5"), "expected a finite number in line 3, column 'height' of ", {}),
    "no class": (table.replace("4,oak", "4,"), "expected a class in line 6, column 'kind' of ", {}),
    "row too short": (table.replace("6,5,oak", "6,5"), "expected 3 cells, as in the first line of ", {}),
    "no rows": ("height,kind\n", "expected rows of data in ", {}),
    "one class": ("height,kind\n2,fern\n3,fern\n", "expected at least two classes in column 'kind' of ", {}),
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
    for target in (None, 2.0, True, ["kind"]):
        with pytest.raises(TypeError, match="expected a column as its name or its number from 1"): Dataset.from_csv(tmp_path/"table.csv", target)
    with pytest.raises(TypeError) as caught: Dataset.from_csv(np.zeros((50, 3)), "kind")
    assert str(caught.value) == "Dataset.from_csv: expected the path of a CSV file, got ndarray (50, 3) of float64"
    for name in ("header", "regression"):
        with pytest.raises(TypeError, match=f"Dataset.from_csv: expected {name} as True or False, got 'no'"):
            Dataset.from_csv(tmp_path/"table.csv", "kind", **{name: "no"})


FORMS = {   # the same table, as others write it
    "as it is": table,
    "semicolons": table.replace(",", ";"),
    "tabs": table.replace(",", "\t"),
    "BOM": "\ufeff" + table,
    "Windows": table.replace("\n", "\r\n"),
    "old Mac": table.replace("\n", "\r"),
    "empty lines": "\n" + table.replace("\n", "\n\n"),
    "no line break at the end": table.rstrip(),
    "spaces": table.replace(",", " , "),
    "quotes": "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in table.splitlines()),
    "quotes after spaces": table.replace(",", ", ").replace("fern", '"fern"').replace("oak", '"oak"'),
    "quoted header, semicolons": table.replace("height,leaves,kind", '"height","leaves","kind"').replace(",", ";"),
    "delimiter at the end": table.replace("\n", ",\n"),
    "three delimiters at the end": table.replace("\n", ";;;\n").replace(",", ";"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_table(tmp_path, form):
    (tmp_path/"plain.csv").write_text(table)
    (tmp_path/"other.csv").write_bytes(FORMS[form].encode())
    ours, theirs = (Dataset.from_csv(tmp_path/name, "kind", validation=0, test=1/3) for name in ("other.csv", "plain.csv"))
    assert ours.preparation == theirs.preparation
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(ours, part).X, getattr(theirs, part).X)
        np.testing.assert_array_equal(getattr(ours, part).Y, getattr(theirs, part).Y)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("target", [3, "3", np.int64(3)])
def test_table_without_a_header(tmp_path, mark, target):
    "No row is lost, and a later prediction takes the columns in order."
    (tmp_path/"rows.csv").write_text(rows.replace(",", mark))
    dataset = Dataset.from_csv(tmp_path/"rows.csv", target, validation=0, test=0, header=False)
    assert len(dataset.train) == 6 and dataset.preparation["features"] is None and dataset.preparation["classes"] == ["fern", "oak"]
    assert Dataset.from_csv(tmp_path/"rows.csv", target, validation=0, test=0, header=False, ignore=[1]).train.X.shape == (6, 1)


def test_header_of_numbers_beside_a_name(tmp_path):
    "As pandas writes an array with a column of labels added: the name of the target shows that the line is a header."
    (tmp_path/"table.csv").write_text(table.replace("height,leaves", "0,1"))
    assert Dataset.from_csv(tmp_path/"table.csv", "kind", validation=0, test=0).preparation["features"] == ["0", "1"]


def test_the_wine_quality_format(tmp_path):
    lines = ['"fixed acidity";"volatile acidity";"quality"', *(f"{7 + k/10};{k/100};{3 + k % 3}" for k in range(30))]
    (tmp_path/"wine.csv").write_text("\n".join(lines) + "\n")
    dataset = Dataset.from_csv(tmp_path/"wine.csv", "quality")
    assert dataset.preparation["features"] == ["fixed acidity", "volatile acidity"] and dataset.preparation["classes"] == ["3", "4", "5"]
    dataset = Dataset.from_csv(tmp_path/"wine.csv", 3, regression=True, dtype=np.float64)
    parts = dataset.train, dataset.validate, dataset.test
    assert [len(part) for part in parts] == [18, 6, 6] and dataset.out_dim == 1 and dataset.preparation["classes"] is None
    X = np.concatenate([part.X for part in parts])*dataset.preparation["scale"] + dataset.preparation["shift"]
    order = X[:, 1].argsort()
    np.testing.assert_allclose(X[order], [[7 + k/10, k/100] for k in range(30)], atol=1e-12)
    np.testing.assert_array_equal(np.concatenate([part.Y for part in parts])[order, 0], [3 + k % 3 for k in range(30)])


@pytest.mark.parametrize("names, expected", [
    ([f"{k}.0" for k in range(11)], [f"{k}.0" for k in range(11)]), (["1e1", "9", "-1.5"], ["-1.5", "9", "1e1"]), (["+2", "10"], ["+2", "10"]),
    (["10", "9", "x"], ["10", "9", "x"]), (["inf", "1"], ["1", "inf"]), (["2_0", "3"], ["2_0", "3"])])
def test_order_of_classes(names, expected): assert class_order(sorted(names)*2) == expected


@pytest.mark.parametrize("text, cells", [
    ("2,5;3,1;0\n4,0;1,5;1\n", ["2,5", "3,1", "0"]), ("a;b,c\n1,2\n", ["a;b", "c"]), ("size, cm\tkind\n2\tfern\n", ["size, cm", "kind"]),
    ('"a;b","c,d"\n1,2\n', ["a;b", "c,d"]), ("x\n1\n", ["x"]), ('"one\nname";b\n1;2\n', ["one\nname", "b"])])
def test_delimiters(tmp_path, text, cells):
    (tmp_path/"table.csv").write_text(text)
    assert csv_rows("demo", tmp_path/"table.csv")[0][1] == cells


def test_numbers_are_finite():
    with pytest.raises(ValueError, match="column 'b' of t.csv, got 'inf'"): csv_numbers("demo", "t.csv", [(1, ["1", "inf"])], dict(a=0, b=1))


@pytest.mark.parametrize("text, message", [
    ("a,b\n1,2\n3\n", "demo: expected 2 cells, as in the first line of"), ("a,b\n1,2\n3\n", "got 1 in line 3"),
    ('a,b\n"1,2\n', "got an error in line 2: unexpected end of data"), ("", "got an empty file"),
    ("größe\n1\n".encode("latin-1"), "as text in UTF-8, got the byte f6 in line 1; save it as UTF-8"),
    ("\ufeffa\n1\n".encode() + b"\xe9\n", "got the byte e9 in line 3"), ("a,b\n".encode("utf-16"), "got the byte ff in line 1")])
def test_files_that_are_no_tables(tmp_path, text, message):
    (tmp_path/"table.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught: csv_rows("demo", tmp_path/"table.csv")
    assert message in str(caught.value)
