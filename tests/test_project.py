"""The project agrees with itself: notebooks, library, README, metadata."""
import ast
import json
import os
import re
import shutil
import subprocess
import symtable
import sys
import tomllib
from configparser import ConfigParser
from importlib import import_module
from inspect import getmembers, isclass, isfunction, signature
from pathlib import Path
from pkgutil import walk_packages

import nbformat
import pytest
from optional import OPTIONAL, is_optional, directives

root = Path(__file__).resolve().parent.parent
notebooks = sorted(p for p in (root/"nbs").rglob("*.ipynb") if not any(part.startswith(".") for part in p.parts))
parser = ConfigParser(delimiters=["="])
parser.read(root/"settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    "A copy of the project after exporting and cleaning its notebooks."
    copy = tmp_path_factory.mktemp("rebuilt")
    for name in ("nbs", "hwnn"): shutil.copytree(root/name, copy/name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("pyproject.toml", "settings.ini", "_quarto.yml"): shutil.copy(root/name, copy)
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    code = "from nbdev.doclinks import nbdev_export; from nbdev.clean import nbdev_clean; nbdev_export.__wrapped__(); nbdev_clean.__wrapped__()"
    subprocess.run([sys.executable, "-c", code], cwd=copy, env=env, check=True)
    return copy


def test_library_is_what_the_notebooks_export(rebuilt):
    files = {p.relative_to(copy) for copy in (root, rebuilt) for p in (copy/"hwnn").rglob("*.py")}
    stale = [str(f) for f in files if not ((root/f).exists() and (rebuilt/f).exists() and (root/f).read_text() == (rebuilt/f).read_text())]
    assert not stale, f"{stale} differ from their notebooks: run make export"


@pytest.mark.parametrize("path", notebooks, ids=lambda p: p.stem)
def test_notebook_is_clean(path, rebuilt):
    assert path.read_text() == (rebuilt/path.relative_to(root)).read_text(), "run nbdev-clean"


@pytest.mark.parametrize("path", notebooks, ids=lambda p: p.stem)
def test_notebook_form(path):
    "What the site's builders and readers rely on."
    cells = json.loads(path.read_text())["cells"]
    # nbdev makes the front matter from title and line, and drops what else stands in their cell.
    assert re.fullmatch(r"# .+\n\n> .+", "".join(cells[0]["source"]))
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            assert r"\begin{align}" not in source and "{#eq-" not in source
            continue
        # nbdev runs cells that contain an import by themselves when it builds the site.
        kinds = {type(node) for node in ast.parse(source).body} if "eval: false" not in source else set()
        imports = kinds & {ast.Import, ast.ImportFrom}
        assert not imports or kinds <= {ast.Import, ast.ImportFrom}, source
        outputs = cell.get("outputs", [])
        assert not any(o["output_type"] == "error" for o in outputs), source
        if any(m.startswith("image/") for o in outputs for m in o.get("data", {})): assert "fig-alt" in source, source
        assert not re.search(r"(/root|/home|/tmp|/work)/[a-z]", json.dumps(outputs)), "an output names a path of the machine that made it"


COLUMN = 80
EXERCISES = re.compile(r"(Exercise|On your own)")


def wide(path):
    "The lines of a page's code that do not fit the column, without `#|` lines, which no page shows, and outside the exercises."
    depth, found = 0, []   # the level of the heading of the exercises that a cell stands in, or 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not depth: found += [l for l in source.splitlines() if len(l) > COLUMN and not l.startswith("#|")]
        elif cell["cell_type"] == "markdown":
            for marks, title in re.findall(r"(?m)^(#+) (.*)", source):
                if not depth or len(marks) <= depth: depth = len(marks) if EXERCISES.match(title) else 0
    return found


@pytest.mark.parametrize("path", notebooks, ids=lambda p: p.stem)
def test_code_keeps_to_the_column(path):
    found = wide(path)
    assert not found, "\n".join(found)


# Minutes of the pages that take more than 25, and the longest run of their code between two headings where it is more than 40 lines. They are for
# looking things up: a page that derives something is in no line of this table. The numbers may only fall.
LONG = {
    "commands/predict": (34, 40), "commands/train": (35, 42), "data/datasets_downloads": (41, 40),
    "data/datasets_own": (32, 41), "data/datasets_tables": (26, 40), "data/datasets_scaling": (27, 40), "engine/01_threads": (47, 40), "engine/02_blocks": (33, 40),
    "engine/03_team": (51, 40), "engine/04_loops": (65, 40), "engine/05_products": (95, 40), "engine/06_winograd": (67, 40),
    "engine/07_ladder": (33, 42), "homework/homework": (44, 43), "homework/homework_check": (27, 40), "ground/checks": (50, 51), "ground/figures": (73, 40),
    "layers/activations_classes": (42, 40), "layers/activations_rectifiers_classes": (29, 40), "layers/base": (38, 40),
    "layers/batchnorm_precision": (43, 40), "layers/convolution_layer": (35, 40), "layers/pooling_functions": (58, 40),
    "layers/windows_arguments": (29, 40), "training/logs": (97, 40), "training/losses_classes": (68, 40),
    "training/networks_inspecting": (58, 40), "training/networks_loop": (58, 43), "training/checkpoints": (27, 40), "training/networks_resuming": (28, 42), 
    "training/optimizers_classes": (101, 54), "training/optimizers_pytorch": (26, 40), "training/schedulers_classes": (68, 40),
    "training/weights_initialisers": (44, 40), "tutorials/names": (57, 40),
}


def test_pages_are_short():
    "A derivation is read in 25 minutes, with at most 40 lines of code between two headings; counted as the reading path counts."
    path = json.loads((root/"nbs/reading_path.ipynb").read_text(encoding="utf-8"))["cells"]
    rule = {"re": re}
    exec(next(source for cell in path if "def measure(" in (source := "".join(cell["source"]))), rule)
    for notebook in notebooks:
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]]
        runs = [0]
        for kind, source in cells:
            if kind == "code": runs[-1] += 0 if rule["HIDDEN"].search(source) else len(rule["lines"](source))
            elif re.search(r"(?m)^## (?:Exercises|On your own)", source): break
            elif re.search(r"(?m)^#+ ", source): runs.append(0)
        minutes, longest = LONG.get(notebook.relative_to(root/"nbs").with_suffix("").as_posix(), (25, 40))
        assert rule["minutes"](*rule["measure"](cells)) <= minutes and max(runs) <= longest, (notebook.stem, rule["minutes"](*rule["measure"](cells)), max(runs))


def names_of(source):
    "The names of a page that a cell reads or sets, also from inside its functions, and those that it sets: two sets."
    used, made = set(), set()
    def look(table):
        for symbol in table.get_symbols():
            if symbol.is_global() or table.get_type() == "module": used.add(symbol.get_name())
            if table.get_type() == "module" and symbol.is_assigned(): made.add(symbol.get_name())
        for inner in table.get_children(): look(inner)
    look(symtable.symtable(source, "cell", "exec"))
    return used, made


@pytest.mark.parametrize("path", notebooks, ids=lambda p: p.stem)
def test_marked_cells_draw_from_generators_of_their_own(path):
    "No number depends on whether a cell ran that is left out without an optional package, or while tests run."
    cells = ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    generators = {g for cell in cells for g in re.findall(r"(?m)^(\w+) = np\.random\.default_rng", cell)}
    touched = {}
    for cell in cells:
        used, made = names_of(cell)
        marked = bool(set(OPTIONAL) & set(directives(cell))) or re.search(r"(?m)^#\| *eval: *false", cell)
        if marked: touched |= {g: cell for g in used & generators}
        else:
            depends = used & touched.keys() - made
            assert not depends, f"{depends} used by\n{cell}\nafter\n{touched[next(iter(depends))]}"
            touched = {g: c for g, c in touched.items() if g not in made}


def exercises(cells):
    "The exercises of a page, each a list of (kind, source): question, cells to fill, solution, test."
    found, inside = [], False
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if headings := re.findall(r"(?m)^## (.*)", source): inside = headings[-1] in ("Exercises", "On your own")
            if inside and re.search(r"(?m)^\*\*\d+\.\*\* ", source): found.append([])
        if not inside or not found: continue
        summary = re.search(r'(?m)^#\| *code-summary: *"?([^"]*)"? *$', source)
        found[-1].append((cell["cell_type"] if cell["cell_type"] == "markdown" else summary[1] if summary else "code", source))
    return found


def is_dots(node): return isinstance(node, ast.Constant) and node.value is ...


def empty(source):
    "The names that a cell to fill leaves open: functions and classes without a body, and names that are set to dots."
    functions, lines = set(), set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if any(is_dots(getattr(part, "value", None)) for part in ast.walk(node) if isinstance(part, ast.Expr)): functions.add(node.name)
        elif isinstance(node, ast.Assign) and is_dots(node.value): lines |= {name.id for name in node.targets}
    return functions, lines


@pytest.mark.parametrize("path", notebooks, ids=lambda p: p.stem)
def test_exercises_ask_before_they_answer(path):
    "A question with a mark and hints, a cell to fill, then folded the solution, which sets the same names, and the test, which uses them."
    found = exercises(json.loads(path.read_text(encoding="utf-8"))["cells"])
    from_nothing = set()
    for cells in found:
        kinds, text = [kind for kind, _ in cells], cells[0][1]
        assert re.search(r"(?m)^\*\*\d+\.\*\* \*(Warm-up|Derivation|Stretch)\.\* ", text), text
        first = min((kinds + ["Solution"]).index("Solution"), (kinds + ["Test"]).index("Test"))
        folded = [i for i, (kind, source) in enumerate(cells) if kind == "markdown" and re.match("<details><summary>(Solution|Derivation)</summary>", source)]
        before = cells[:min([first, *folded])]
        assert sum(source.count("<details><summary>Hint") for _, source in before) >= 2, f"hints in steps: {text}"
        functions, lines = set(), set()
        for kind, source in before:
            if kind == "code": functions, lines = functions | empty(source)[0], lines | empty(source)[1]
        asked = functions | lines
        assert asked, f"nothing to fill in: {text}"
        # What comes after the cells to fill is folded: code as a solution or a test, text in <details>.
        assert set(kinds[len(before):]) <= {"Solution", "Test", "markdown"} and {"Solution", "Test"} <= set(kinds), text
        assert all(source.startswith("<details>") and source.rstrip().endswith("</details>") for kind, source in cells[len(before):] if kind == "markdown"), text
        if "*Derivation.*" in text: assert any("$" in cells[i][1] for i in folded), f"a derivation is mathematics: {text}"
        assert asked <= set().union(*(names_of(source)[1] for kind, source in cells if kind == "Solution")), f"{asked}: {text}"
        assert asked <= set().union(*(names_of(source)[0] for kind, source in cells if kind == "Test")), f"{asked}: {text}"
        from_nothing |= functions
    assert from_nothing or not found, "no exercise starts from an empty function"


@pytest.mark.parametrize("path", notebooks, ids=lambda p: p.stem)
def test_solutions_and_tests_are_collapsed(path):
    "On the site by their directive, in Jupyter by the metadata that tools/notebooks.py derives from it."
    from notebooks import fold
    nb = nbformat.read(path, 4)
    before = nbformat.writes(nb)
    assert nbformat.writes(fold(nb)) == before, "run make notebooks for this page"
    for cell in nb.cells:
        hidden = re.match(r'#\| code-summary: "(Solution|Test)"\n', cell.source)
        assert ("jupyter" in cell.metadata) == bool(hidden), cell.source
        if hidden: assert re.search(r"(?m)^#\| code-fold: true$", cell.source), cell.source


def test_readme_matches_index():
    subprocess.run([sys.executable, "tools/readme.py", "--check"], cwd=root, check=True)


def test_what_stands_twice_is_the_same():
    pyproject = tomllib.loads((root/"pyproject.toml").read_text())["project"]
    assert pyproject["name"] == settings["name"]
    lines = (root/"_quarto.yml").read_text().splitlines()
    assert [l.split(": ", 1)[1] for l in lines if l.startswith("  description:")] == [settings["description"]]


def public():
    import hwnn
    from hwnn.engine.table import NUMPY, compiled
    twins = [*NUMPY.values(), *compiled().values()]   # documented where the functions are whose place they take
    for info in walk_packages(hwnn.__path__, "hwnn."):
        if info.name.rsplit(".", 1)[1].startswith("_") or info.name == "hwnn.all": continue
        try: module = import_module(info.name)
        except ModuleNotFoundError as e:
            if is_optional(e.name): continue   # where it is there, its names are looked at
            raise
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name)
            if isfunction(thing) and thing not in twins: yield thing
            if isclass(thing):
                yield thing
                yield from (f for n, f in getmembers(thing, isfunction) if not n.startswith("_") and f.__module__ == info.name)


@pytest.mark.parametrize("thing", list(dict.fromkeys(public())), ids=lambda t: f"{t.__module__}.{t.__qualname__}")
def test_public_names_are_documented(thing):
    from fastcore.docments import docments
    assert thing.__doc__ and len(thing.__doc__.strip().splitlines()) <= 3
    inherited = isclass(thing) and "__init__" not in vars(thing)
    parameters = [] if inherited else [n for n, p in signature(thing).parameters.items() if n != "self" and p.kind is not p.VAR_KEYWORD]
    said = docments(thing)
    missing = [p for p in parameters if not said.get(p)]
    assert not missing, f"no comment for {missing}"


def imports(file):
    "The modules of hwnn that a file imports, at the top or anywhere else."
    package = file.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): yield from (a.name for a in node.names if a.name.startswith("hwnn."))
        elif isinstance(node, ast.ImportFrom):
            base = [*package[:len(package) - node.level + 1], *(node.module or "").split(".")] if node.level else (node.module or "").split(".")
            if base[0] != "hwnn": continue
            base = ".".join(b for b in base if b)
            for name in node.names: yield f"{base}.{name.name}" if f"{base}.{name.name}" in modules else base

modules = {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in (root/"hwnn").rglob("*.py") if p.name != "_modidx.py"}


def test_imports_are_floors():
    "No file imports one that leads back to it; and the engine knows the checks and itself alone."
    arrows = {module: {m for m in imports(path) if m in modules and m != module} for module, path in modules.items()}
    for module, targets in arrows.items():
        if module.startswith("hwnn.engine"): assert {t for t in targets if not t.startswith("hwnn.engine")} <= {"hwnn.checks"}, module
    left = dict(arrows)
    while free := [module for module, targets in left.items() if not targets & set(left)]:
        for module in free: del left[module]
    assert not left, f"these import each other in a circle, or what does: {sorted(left)}"
