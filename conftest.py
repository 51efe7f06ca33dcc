"""Collects notebooks for pytest: one item per code cell, one shell per notebook, in the notebook's own folder."""
import gc
import json
import os
import sys
from collections import Counter
from importlib.machinery import PathFinder
from itertools import product
from pathlib import Path
from zlib import crc32

import pytest

root = Path(__file__).parent
sys.path.insert(0, str(root/"tools"))
from optional import OPTIONAL, WITH, WITHOUT, directives, has, lacking

os.environ.setdefault("IN_TEST", "1")
# Each process of `pytest -n` has one core to itself: with a BLAS thread for each core they would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"): os.environ.setdefault(name, "1")
skipped, kept, engine = [], {}, []


class Finder(PathFinder):
    "Finds modules as Python does, but those that HWNN_WITHOUT names."
    @classmethod
    def find_spec(cls, name, path=None, target=None): return None if WITH.get(name, name) in WITHOUT else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Finder


def pytest_addoption(parser):
    parser.addoption("--shift", type=int, default=0, help="other seeds: every default_rng(seed) becomes default_rng([SHIFT, seed]); cells marked `#| one-draw` are left out")
    parser.addoption("--outputs", type=Path, help="a folder for the text that each page's cells show, one file for a page")


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(name): skipped without this, one of tools/optional.py")
    if config.option.shift: shift_seeds(config.option.shift)


def shift_seeds(shift):
    import numpy as np
    draw = np.random.default_rng
    np.random.default_rng = lambda seed=None: draw([shift, seed] if isinstance(seed, (int, np.integer)) else seed)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    for mark in item.iter_markers("needs"): skip_without(mark.args)


def skip_without(names):
    "Skip a test unless all of these are here."
    missing = [name for name in names if not has(name)]
    if missing: pytest.skip(f"needs {OPTIONAL[missing[0]][0]}")


def pytest_terminal_summary(terminalreporter):
    "One line on what was left out for lack of what, and how to add it."
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    lacks = [f"{reasons[f'needs {title}']} for lack of {title} ({command})" for title, _, command in OPTIONAL.values() if f"needs {title}" in reasons]
    if lacks: terminalreporter.write_line(f"skipped: {', '.join(lacks)}")


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb" and not file_path.name.startswith("."):
        return Notebook.from_parent(parent, path=file_path)


def tables():
    "The library's tables of names, such as LOSSES: (module, name) -> dict."
    return {(module, name): value for module in list(sys.modules) if module.startswith("hwnn.")
            for name, value in vars(sys.modules[module]).items() if name.isupper() and isinstance(value, dict)}


def ends(*values):
    "The first and the last of all combinations."
    combinations = list(product(*values))
    return combinations[::max(1, len(combinations) - 1)]


def pytest_sessionstart():
    import hwnn.all
    import hwnn.engine.table
    import hwnn.engine.threads
    import hwnn.figures
    hwnn.engine.table.use_fast(bool(os.environ.get("HWNN_FAST")))   # without it NumPy alone, unless a test or a page asks for the compiled functions
    engine[:] = hwnn.engine.table.is_fast(), hwnn.engine.threads._blas_threads()
    kept.update({key: dict(table) for key, table in tables().items()})
    # Drawing every frame of every slider would take half a minute; all of them are drawn when a page is executed.
    hwnn.figures.product = ends


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        "A file stays in one process; of the pages in the browser, which take longest, two processes have half each, with a site for each."
        def _split_scope(self, nodeid):
            scope = super()._split_scope(nodeid)
            return f"{scope} {crc32(nodeid.encode()) % 2}" if "test_browser" in scope else scope

    config.option.loadscopereorder = False
    return Together(config, log)


def pytest_collection_modifyitems(items):
    # The longest first: at the end, one process would run it while the other has nothing left to do.
    items.sort(key=lambda item: ("test_browser", "test_site", item.path.stem).index(item.path.stem))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    yield
    if nextitem and nextitem.path == item.path: return
    if isinstance(item, Cell) and (folder := item.config.option.outputs):
        file = folder/item.path.relative_to(root).with_suffix(".json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(item.parent.shown), encoding="utf-8")
    # A page that defines a class registers its own copy of it; the next page and the tests are to meet the library's.
    for key, table in tables().items():
        if key in kept and table != kept[key]:
            table.clear()
            table.update(kept[key])
    # Another number of threads rounds otherwise, and after a training one sees it.
    from hwnn.engine import table, threads
    table.use_fast(engine[0])
    threads._chosen = None
    threads._tell_blas(engine[1])


def pytest_runtest_logreport(report):
    if report.skipped: skipped.append(report.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if report.skipped and os.environ.get("HWNN_NO_SKIPS"): report.outcome = "failed"   # a whole file: processes of `pytest -n` tell of failures alone
    return report


def pytest_sessionfinish(session):
    gc.freeze()   # when Python exits, IPython collects garbage once for each shell there was: 20 s for all notebooks, in vain
    # CI installs everything that a test may ask for, so there a skipped test is one that was forgotten.
    if os.environ.get("HWNN_NO_SKIPS") and skipped:
        print(f"\nHWNN_NO_SKIPS is set and {len(skipped)} tests were skipped, the first: {skipped[0]}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Notebook(pytest.File):
    shell, failed = None, None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shown = {}

    def collect(self):
        from nbdev.test import nb_test_cells
        code = [cell["source"] for cell in json.loads(self.path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        self.first = directives("".join(code[0]))
        for i, cell in enumerate(nb_test_cells(self.path)):
            first = next((l for l in cell.source.splitlines() if l.strip() and not l.startswith("#|")), "")
            yield Cell.from_parent(self, name=f"{i:03d} {first[:60]}", cell=cell)

    def run(self, cell):
        if self.shell is None:
            from execnb.shell import CaptureShell
            self.shell = CaptureShell(mpl_format="svg")
        here = Path.cwd()
        os.chdir(self.path.parent)
        try: return self.shell.run(cell.source)
        finally: os.chdir(here)


class Cell(pytest.Item):
    def __init__(self, *, cell, **kwargs):
        super().__init__(**kwargs)
        self.cell = cell

    def runtest(self):
        shift = self.config.option.shift   # then a failure is one of numbers, and the cells after it have more to say
        if self.parent.failed and not shift: pytest.skip(f"{self.parent.failed} failed before it")
        skip_without(lacking(self.parent.first, self.cell.directives_))
        if "one-draw" in self.cell.directives_ and shift: pytest.skip("states the numbers of one draw")
        self.parent.shown[self.cell.id] = [o.get("text") or o.get("data", {}).get("text/plain") for o in self.parent.run(self.cell)]
        if self.parent.shell.exc:
            self.parent.failed = self.name
            raise self.parent.shell.exc

    def repr_failure(self, excinfo):
        return f"{self.cell.source}\n\n{self.parent.shell.prettytb(fname=self.path)}"

    def reportinfo(self):
        return self.path, 0, f"{self.path.stem} cell {self.name}"
