"""hwnn-train leaves a folder that hwnn-predict can use, in processes of their own."""
import csv
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import numpy as np
import pytest

import hwnn.predict
import hwnn.train
from hwnn.datasets import digits, iris, read_table, three_parts
from hwnn.models import NeuralNetwork


def command(module, *args, cwd):
    code = f"import sys; from hwnn.{module} import main; main(sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("dataset, model, shape, header", [("iris", "dense", (30, 30), True), ("digits", "cnn", (180, 360), False)])
def test_accuracy_of_the_predictions_is_that_of_the_training(tmp_path, dataset, model, shape, header):
    trained = command("train", "--dataset", dataset, "--model", model, "--epochs", 1, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    raw, labels = read_table(*(("iris.csv", 1) if dataset == "iris" else ("digits.csv.gz",)))
    test = three_parts(labels, *shape)[2]
    with open(tmp_path/"table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        if header: writer.writerow(iris().preparation["features"])
        writer.writerows(raw[test].tolist())
    done = command("predict", f"runs/{dataset}-{model}-001/weights.safetensors", "table.csv", "--out", "out.csv", "--probabilities", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(open(tmp_path/"out.csv")))
    names = iris().preparation["classes"] if dataset == "iris" else [str(k) for k in range(10)]
    assert [int(row["index"]) for row in rows] == list(range(len(test)))
    accuracy = np.mean([row["class"] == names[k] for row, k in zip(rows, labels[test])])
    assert f"test accuracy {100*accuracy:.2f} %" in trained.stdout
    for row in rows: assert abs(sum(float(row[f"p_{name}"]) for name in names) - 1) < 1e-4
    again = command("predict", f"runs/{dataset}-{model}-001/weights.safetensors", "table.csv", "--out", "out.csv", cwd=tmp_path)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "which exists" in again.stderr and "Traceback" not in again.stderr


def test_digits_say_how_they_were_prepared():
    assert digits().preparation == dict(shift=0.0, scale=16.0, features=None, classes=None)


# Tables of one's own, in this process
def call(main, *args):
    out = StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(out): main([str(a) for a in args])
    except SystemExit as e: return out.getvalue(), e.code
    return out.getvalue(), 0


def train(tmp_path, *args): return call(hwnn.train.main, *args, "--out", tmp_path/"runs")


def predict(tmp_path, run, table, *more):
    text, status = call(hwnn.predict.main, tmp_path/"runs"/run/"weights.safetensors", table, "--out", tmp_path/"out.csv", "--overwrite", *more)
    return text, status, list(csv.DictReader(open(tmp_path/"out.csv"))) if not status else []


def write(path, rows, delimiter=","):
    path.write_text("\n".join(delimiter.join(map(str, row)) for row in rows))
    return path


def iris_rows():
    X, labels = read_table("iris.csv", header=1)
    return [[*row, iris().preparation["classes"][k]] for row, k in zip(X, labels)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_own_table_of_classes(tmp_path, delimiter):
    rows, names = iris_rows(), [*iris().preparation["features"], "kind"]
    table = write(tmp_path/"flowers.csv", [names, *rows], delimiter)
    text, status = train(tmp_path, "--csv", table, "--target", "kind", "--epochs", 15)
    assert status == 0 and text.splitlines()[-1].startswith("test accuracy")
    text, status, found = predict(tmp_path, "flowers-dense-001", table, "--probabilities")
    assert (status, text.splitlines()[0]) == (0, "left out kind")
    assert np.mean([one["class"] == row[-1] for one, row in zip(found, rows)]) > 0.75
    assert all(abs(sum(float(one[f"p_{name}"]) for name in iris().preparation["classes"]) - 1) < 1e-4 for one in found)


def test_own_table_without_header(tmp_path):
    rows = iris_rows()
    table = write(tmp_path/"flowers.csv", rows)
    text, status = train(tmp_path, "--csv", table, "--target", 5, "--header", "no", "--epochs", 15)
    assert status == 0, text
    text, status, found = predict(tmp_path, "flowers-dense-001", write(tmp_path/"new.csv", [row[:-1] for row in rows]))
    assert status == 0 and np.mean([one["class"] == row[-1] for one, row in zip(found, rows)]) > 0.75
    text, status, _ = predict(tmp_path, "flowers-dense-001", table)   # the target is still there
    assert status == 2 and text.count("\n") == 1, text


@pytest.mark.parametrize("scale, shift", [(1, 0), (1e5, 3e6), (1e-4, 0)])
def test_own_table_of_numbers(tmp_path, scale, shift):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 2))
    y = shift + scale*(2*X[:, 0] - X[:, 1])
    table = write(tmp_path/"prices.csv", [["a", "b", "price"], *np.column_stack([X, y]).tolist()])
    text, status = train(tmp_path, "--csv", table, "--target", "price", "--regression", "--epochs", 30, "--layers", "8")
    assert status == 0, text
    words = text.splitlines()[-1].split()
    assert float(words[2]) < 0.2*float(words[6])
    text, status, found = predict(tmp_path, "prices-dense-001", table)
    assert status == 0 and list(found[0]) == ["index", "price"]
    assert np.sqrt(np.mean((np.array([float(one["price"]) for one in found]) - y)**2)) < 0.4*scale
    text, status, _ = predict(tmp_path, "prices-dense-001", table, "--probabilities")
    assert status == 2 and "expected a network with cross entropy for --probabilities" in text


@pytest.mark.parametrize("model", ["dense", "cnn"])
def test_own_images(tmp_path, model):
    pixels, labels = read_table("digits.csv.gz")
    rows = np.column_stack([labels, pixels]).astype(int)[:500].tolist()
    table = write(tmp_path/"digits.csv", rows)
    text, status = train(tmp_path, "--csv", table, "--target", 1, "--header", "no", "--image", "8x8x1", "--model", model, "--epochs", 4)
    assert status == 0, text
    net = NeuralNetwork.from_file(tmp_path/f"runs/digits-{model}-001/weights.safetensors")
    assert net.input_shape == ((8, 8, 1) if model == "cnn" else (64,))
    assert isinstance(net.preparation["shift"], float) and isinstance(net.preparation["scale"], float)
    assert abs(net.preparation["shift"] - pixels[:500].mean()) < 0.3
    text, status, found = predict(tmp_path, f"digits-{model}-001", write(tmp_path/"new.csv", [row[1:] for row in rows]))
    assert status == 0 and np.mean([int(one["class"]) == row[0] for one, row in zip(found, rows)]) > 0.6


CONFIG = """
model = "cnn"
image = "8x8"
header = false
target = 1
epochs = 2
layers = [{name = "conv2d", n_out = 4, kernel_shape = [3, 3], activation = {name = "leaky_relu", slope = 0.2}}, "flatten",
          {name = "fully_connected", activation = "linear"}]
loss = "softmax_cross_entropy"
optimizer = {name = "adam", lr = 0.01}
"""


def test_config_with_logits(tmp_path):
    pixels, labels = read_table("digits.csv.gz")
    rows = np.column_stack([labels, pixels]).astype(int)[:300].tolist()
    table = write(tmp_path/"digits.csv", rows)
    (tmp_path/"some.toml").write_text(CONFIG)
    text, status = train(tmp_path, "--csv", table, "--config", tmp_path/"some.toml")
    assert status == 0, text
    text, status, found = predict(tmp_path, "digits-cnn-001", write(tmp_path/"new.csv", [row[1:] for row in rows]), "--probabilities")
    assert status == 0, text
    for one in found: assert abs(sum(float(one[f"p_{k}"]) for k in range(10)) - 1) < 1e-4


def test_command_line_wins(tmp_path):
    table = write(tmp_path/"flowers.csv", [[*iris().preparation["features"], "kind"], *iris_rows()])
    (tmp_path/"a.json").write_text('{"csv": "nowhere", "target": "kind", "epochs": 30, "layers": [5], "optimizer": "adam", "seed": 4, "patience": 3}')
    text, status = train(tmp_path, "--config", tmp_path/"a.json", "--csv", table, "--epochs", 2, "--layers", "6,7")
    assert status == 0 and text.count("epoch ") == 2, text
    net = NeuralNetwork.from_file(tmp_path/"runs/flowers-dense-001/weights.safetensors")
    assert [layer.n_out for layer in net.layers] == [6, 7, 3]


def test_patience_stops(tmp_path):
    text, status = train(tmp_path, "--dataset", "iris", "--lr", 1e-9, "--optimizer", "SGD", "--patience", 1, "--epochs", 500)
    assert status == 0 and text.count("epoch ") < 500


def test_other_files_beside_are_not_read(tmp_path):
    text, status = train(tmp_path, "--dataset", "iris", "--epochs", 1)
    (tmp_path/"runs/iris-dense-001/arguments.json").write_bytes(b"\xff\xfe")
    table = write(tmp_path/"new.csv", [iris().preparation["features"], [5, 3, 1, 0.2]])
    assert predict(tmp_path, "iris-dense-001", table)[1] == 0


WRONG = {
    "csv without target": (["--csv", "t.csv"], "argument --target: expected the column"),
    "csv and dataset": (["--csv", "t.csv", "--target", "kind", "--dataset", "iris"], "argument --dataset: expected no --csv"),
    "target without csv": (["--target", "kind"], "argument --target: expected --csv as well"),
    "header without csv": (["--header", "no"], "argument --header: expected --csv as well"),
    "regression without csv": (["--regression"], "argument --regression: expected --csv as well"),
    "no such csv": (["--csv", "nowhere.csv", "--target", "kind"], "argument --csv: "),
    "csv is a folder": (["--csv", ".", "--target", "kind"], "argument --csv: "),
    "no such target": (["--csv", "t.csv", "--target", "sort"], "expected a column 'sort'"),
    "text to regress": (["--csv", "t.csv", "--target", "kind", "--regression"], "expected a finite number"),
    "cnn without image": (["--csv", "t.csv", "--target", "kind", "--model", "cnn"], "argument --model: expected dense, or --image"),
    "image of another size": (["--csv", "t.csv", "--target", "kind", "--image", "3x1"], "expected a shape of 2 numbers"),
    "image in words": (["--csv", "t.csv", "--target", "kind", "--image", "large"], "expected rows x columns x channels"),
    "image of 0": (["--csv", "t.csv", "--target", "kind", "--image", "0x8"], "expected rows x columns x channels"),
    "image in Arabic": (["--csv", "t.csv", "--target", "kind", "--image", "\u0662x1"], "expected rows x columns x channels"),
    "layers": (["--layers", "64,,3"], "expected sizes such as 64,32"),
    "layers 0": (["--layers", "0"], "expected sizes such as 64,32"),
    "layers of a cnn": (["--layers", "4", "--model", "cnn"], "argument --layers: expected --model dense"),
    "patience 0": (["--patience", "0"], "argument --patience: expected a whole number of at least 1"),
    "header in words": (["--csv", "t.csv", "--target", "kind", "--header", "perhaps"], "invalid choice: 'perhaps'"),
    "no such config": (["--config", "nowhere.toml"], "argument --config: nowhere.toml: No such file"),
    "config of another kind": (["--config", "t.csv"], "argument --config: expected a file .toml or .json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/"t.csv", [["a", "b", "kind"], *([k, k % 3, "xy"[k % 2]] for k in range(20))])
    args, message = WRONG[name]
    text, status = train(tmp_path, *args)
    assert status == 2 and text.count("\n") == 1 and message in text, text
    assert not (tmp_path/"runs").exists()


CONFIGS = {
    "misspelt": ("epoch = 3", "did you mean 'epochs'?"),
    "unknown": ("weights = 3", "expected each name to be one of"),
    "config inside": ('config = "x.toml"', "expected each name to be one of"),
    "not TOML": ("epochs = ", "expected TOML in"),
    "not UTF-8": (b"\xff\xfe", "expected TOML in"),
    "nested": ("a = " + "["*5000, "expected TOML in"),
    "value": ("epochs = 0", "argument --epochs: expected a whole number of at least 1, got '0'"),
    "value table": ("epochs = {a = 1}", "argument --epochs: expected a whole number"),
    "value list": ("seed = [1, 2]", "argument --seed: expected a whole number"),
    "flag": ("patience = true", "argument --patience"),
    "regression": ('regression = "yes"', "argument --regression"),
    "optimizer": ('optimizer = "adamm"', "argument --optimizer: invalid choice: 'adamm'"),
    "optimizer arguments": ('optimizer = {name = "adam", rate = 1}', "the network does not fit: Adam: expected arguments among"),
    "loss": ('loss = "l2"', "expected a loss for classes, got L2"),
    "loss unknown": ('loss = "crossentropie"', "the network does not fit: loss: expected name to be one of"),
    "loss number": ("loss = 3", "the network does not fit"),
    "layer": ('layers = ["flaten"]', "did you mean 'flatten'?"),
    "layer arguments": ('layers = [{name = "fully_connected", units = 3}]', "expected arguments among"),
    "layer without name": ("layers = [{n_out = 3}]", "a dict with the key 'name'"),
    "layers mixed": ('layers = [3, "flatten"]', "the network does not fit"),
    "layers none": ("layers = []", "expected sizes such as 64,32"),
    "last size": ('layers = [{name = "fully_connected", n_out = 7, activation = "softmax"}]', "expected labels (examples, 7)"),
    "images": ('layers = [{name = "conv2d", n_out = 3, kernel_shape = 3, activation = "relu"}, "flatten", {name = "fully_connected", activation = "softmax"}]',
               "the network does not fit: Conv2D: expected input"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_wrong_configs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, message = CONFIGS[name]
    (tmp_path/"some.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    text, status = train(tmp_path, "--dataset", "iris", "--config", "some.toml")
    assert status == 2 and text.count("\n") == 1 and message in text and len(text) < 1000, text
    assert not (tmp_path/"runs").exists()


def test_regression_needs_a_linear_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/"t.csv", [["a", "b"], *([k, 2*k] for k in range(20))])
    for content, message in (('layers = [{name = "fully_connected", activation = "sigmoid"}]', "expected a linear fully connected layer with a bias"),
                             ('layers = [{name = "fully_connected", activation = "linear", bias = false}]', "expected a linear fully connected layer with a bias"),
                             ('loss = "cross_entropy"', "the network does not fit")):
        (tmp_path/"some.toml").write_text(content)
        text, status = train(tmp_path, "--csv", "t.csv", "--target", "b", "--regression", "--config", "some.toml")
        assert status == 2 and message in text, text
