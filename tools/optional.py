"""What the tests and the site can use and do without: whether it is here, and the command that adds it.

A cell whose first lines hold `#| torch`, `#| numba`, `#| onnx` or `#| mpi` is left out where that is missing; on the first code cell of a page the flag
holds for the whole page. HWNN_WITHOUT="torch numba onnx" treats them as missing."""
import os, shutil, sys
from importlib.util import find_spec
from pathlib import Path


def mpiexec():
    "The command that starts ranks: that of the environment's mpich, or another."
    return shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


WITHOUT = os.environ.get("HWNN_WITHOUT", "").split()
BROWSERS = "chromium", "chromium-browser", "google-chrome"
OPTIONAL = {  # name -> what it is called, whether it is here, and the command that adds it
    "torch": ("PyTorch", lambda: find_spec("torch"), ".venv/bin/pip install torch==2.13.0"),
    "numba": ("Numba", lambda: find_spec("numba"), ".venv/bin/pip install -e '.[fast]'"),
    "onnx": ("ONNX and ONNX Runtime", lambda: find_spec("onnx") and find_spec("onnxruntime"), ".venv/bin/pip install -e '.[onnx]'"),
    "mpi": ("mpi4py", lambda: find_spec("mpi4py") and mpiexec(), ".venv/bin/pip install -e '.[mpi]'"),
    "jupyterlab": ("JupyterLab", lambda: find_spec("jupyterlab"), ".venv/bin/pip install -e '.[lab]'"),
    "nbgrader": ("nbgrader", lambda: find_spec("nbgrader"), ".venv/bin/pip install -e '.[teach]'"),
    "chromium": ("Chromium", lambda: any(map(shutil.which, BROWSERS)), "apt-get install chromium"),
    "fashion_mnist": ("Fashion-MNIST", lambda: Path("/usr/share/datasets/fashion-mnist").is_dir(), "apt-get install dataset-fashion-mnist"),
}


WITH = {"llvmlite": "numba", "onnxruntime": "onnx", "mpi4py": "mpi"}   # what is installed together with what


def is_optional(module):
    "Whether this is a module of something optional."
    return WITH.get(module, module) in OPTIONAL


def has(name):
    "Whether it is here, and HWNN_WITHOUT does not say to do without it."
    return name not in WITHOUT and bool(OPTIONAL[name][1]())


def directives(source):
    "The names of a cell's lines `#| name: value`."
    return [line[2:].split(":")[0].strip() for line in source.splitlines() if line.startswith("#|")]


def lacking(first, cell):
    "What a cell needs that is not here, from the directives of the page's first code cell and its own."
    return [name for name in OPTIONAL if (name in first or name in cell) and not has(name)]
