"""What tests share: PyTorch with one thread, and the website, built once."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from optional import has

root = Path(__file__).resolve().parent.parent


def build(folder, repository="", keep=lambda notebook: True):
    "Build the site from a copy of the project; returns the folder of pages and what the builder printed."
    for name in ("nbs", "hwnn", "tools"): shutil.copytree(root/name, folder/name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "nbdev.yml"))
    for name in ("pyproject.toml", "setup.py", "README.md", "_quarto.yml"): shutil.copy(root/name, folder)
    for path in (folder/"nbs").rglob("*.ipynb"):
        if not keep(path): path.unlink()
    lines = (root/"settings.ini").read_text(encoding="utf-8").splitlines()
    (folder/"settings.ini").write_text("\n".join(f"repository = {repository}" if l.startswith("repository =") else l for l in lines), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"} | {"PYTHONPATH": str(folder)}
    run = subprocess.run([sys.executable, "tools/build_site.py"], cwd=folder, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr[-3000:]
    return folder/"_docs", run.stdout


@pytest.fixture
def torch():
    "PyTorch with one thread: arrays as small as those of tests are slower with several."
    if not has("torch"): pytest.skip("needs PyTorch")
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture(params=["numpy", pytest.param("compiled", marks=pytest.mark.needs("numba"))])
def engine(request):
    "NumPy's functions, and those that Numba compiles."
    from hwnn.engine.table import is_fast, use_fast
    before = is_fast()
    use_fast(request.param == "compiled")
    yield
    use_fast(before)


@pytest.fixture(scope="session")
def build_site(): return build


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The website, and what the builder printed."
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def training(request):
    "What a test file's SCRIPT defines; it is also run as a process, to be killed."
    names = {}
    exec(request.module.SCRIPT.replace('if __name__ == "__main__"', "if False"), names)
    return names


@pytest.fixture(scope="module")
def whole(training): return training["run"]()   # without interruption
