"""hwnn-train leaves a folder that hwnn-predict can use, in processes of their own."""
import csv
import subprocess
import sys

import numpy as np
import pytest

from hwnn.datasets import digits, iris, read_table, three_parts


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
