"""The package as its users get it: what an import loads, the command, the wheel in a new environment."""
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
ENV = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "PYTHONPATH")}


def python(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENV, **kwargs).stdout


@pytest.mark.parametrize("imports", ["import hwnn", "from hwnn.all import *", "from hwnn.layers import FullyConnected", "import hwnn.train"])
def test_import_stays_light(imports):
    heavy = "matplotlib ipywidgets IPython tqdm nbdev pytest scipy sklearn torch hypothesis PIL numba onnx onnxruntime".split()
    assert python(f"{imports}\nimport sys\nprint([m for m in {heavy} if m in sys.modules])").strip() == "[]"


def test_both_ways_of_importing():
    assert python("from hwnn.all import *; print(FullyConnected(3, 'relu'), weights.Constant, schedulers.Constant)").count("Constant") == 2
    assert python("import hwnn; print(hwnn.__version__)").strip()


def test_wheel_trains_in_a_new_environment(tmp_path):
    "Only what settings.ini requires is installed; the data travels with the wheel."
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, root], check=True, env=ENV)
    venv.create(tmp_path/"venv")
    bin = tmp_path/"venv"/("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", tmp_path/"venv", "install", "-q", "--no-compile"]
    subprocess.run([*pip, *tmp_path.glob("*.whl")], check=True, env=ENV)
    code = """
from hwnn.all import *
net = NeuralNetwork([FullyConnected(8, "relu"), FullyConnected(None, "softmax")], optimizer=dict(name="SGD", lr=0.1, momentum=0.9))
data = iris(batch_size=15)
net.train(data, epochs=30)
print(net.test(data)["error"])
"""
    run = subprocess.run([bin/"python", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=ENV)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 0.1
    assert subprocess.run([bin/"hwnn-train", "--help"], capture_output=True, env=ENV).returncode == 0


def test_command_prints_no_bar_into_a_pipe(tmp_path):
    run = subprocess.run([Path(sys.executable).with_name("hwnn-train"), "--dataset", "iris", "--epochs", "2", "--out", tmp_path], capture_output=True, text=True, env=ENV)
    assert run.returncode == 0 and run.stderr == "" and run.stdout.splitlines()[-1].startswith("test accuracy ")
