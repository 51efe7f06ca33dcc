"""Students' notebooks and what marks them: right solutions in another style pass, nothing else does, and nothing hangs."""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hwnn.exercises import EXERCISES
from hwnn.homework import LEVELS, MARK, SOLUTION, _functions, _source, all_names, main, marked, pages, student, without_solutions, write_homework
from hwnn.homework_check import _cells, _definition, check_notebook
from hwnn.homework_check import main as check_main

root = Path(__file__).resolve().parent.parent
PAGES = pages()
DROPOUT = "layers/dropout"


def filled(page, bodies, level="function", seed=None, extra=""):
    "A student's notebook with these functions in the place of the blank ones: name -> source of the whole function."
    nb = student(page, PAGES[page], level, seed)
    for k, cell in enumerate(nb["cells"]):
        source = _source(cell)
        if cell["cell_type"] != "code" or "def " not in source: continue
        lines = source.splitlines()
        for node in reversed(_functions(source, bodies)):
            start = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            lines[start:node.end_lineno] = bodies[node.name].splitlines()
        cell["source"] = "\n".join(lines)
        if extra and "def dropout_backward" in source: nb["cells"][k]["source"] += "\n" + extra
    return nb


def renamed(node):
    "The source of a function, with other names for all its variables."
    arguments = {a.arg for a in node.args.args}
    made = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - arguments
    for n in ast.walk(node):
        if isinstance(n, ast.Name) and n.id in made: n.id += "_mine"
    return ast.unparse(node)


def solutions(page, change=renamed):
    sources = [source for _, source in _cells(PAGES[page])]
    return {name: change(_definition(name, sources)) for name in marked(PAGES[page])}


def checked(tmp_path, nb, **kwargs):
    at = tmp_path/"notebook.ipynb"
    at.write_text(json.dumps(nb), encoding="utf-8")
    return {e["name"]: e for e in check_notebook(at, **kwargs)["exercises"]}


def dropout_backward(body): return f"def dropout_backward(dY, mask):\n    {body}"


def test_marks_and_exercises_are_the_same():
    ours = {name: page for page, nb in PAGES.items() for name in marked(nb)}
    assert ours == {e.name: e.page for e in EXERCISES.values()} and len(ours) >= 25


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("page", PAGES)
def test_a_students_notebook_has_no_solution(page, level):
    nb, asked = student(page, PAGES[page], level, seed=1), set(marked(PAGES[page]))
    sources = [_source(cell) for cell in nb["cells"] if cell["cell_type"] == "code"]
    text = "\n".join(map(_source, nb["cells"]))
    assert "#|" not in text and not SOLUTION.search(text) and "<summary>Derivation" not in text
    assert not re.search(r"default_rng\(\d+\)", text)
    if level == "derive": assert not any("mathrm{d}" in f for f in re.findall(r"(?s)\$\$.*?\$\$", text)) and "The derivation once more" not in text
    ours = [source for _, source in _cells(PAGES[page])]
    for name in asked:
        theirs, mine = _definition(name, sources), _definition(name, ours)
        assert ast.dump(theirs.args) == ast.dump(mine.args) and ast.get_docstring(theirs) == ast.get_docstring(mine)
        assert len(ast.dump(theirs)) < len(ast.dump(mine))
        assert any(f"check({name}, seed=1)" in source for source in sources)


@pytest.mark.parametrize("page", PAGES)
def test_right_solutions_in_other_names_pass(page, tmp_path):
    "Also with other seeds. All of the page's cells run, but for those of its own exercises, which are still to be written."
    nb = filled(page, solutions(page), seed=3)
    at = tmp_path/"notebook.ipynb"
    at.write_text(json.dumps(nb), encoding="utf-8")
    result = check_notebook(at)
    assert [(e["name"], e["message"]) for e in result["exercises"] if e["status"] != "passed"] == []
    end = next((k for k, cell in enumerate(nb["cells"]) if re.search(r"(?m)^## (Exercises|On your own)", _source(cell))), len(nb["cells"]))
    assert [c for c in result["cells"] if c["cell"] < end] == []


@pytest.mark.parametrize("page", [DROPOUT, "layers/windows", "training/networks"])
def test_a_page_tests_the_students_functions(page, tmp_path):
    "With a function that is wrong in the place of one, some cell of the page fails: it is not the library's that is tested."
    for name in marked(PAGES[page]):
        ours = solutions(page)
        lines = ours[name].splitlines()
        at = next(k for k, line in enumerate(lines) if re.match(r"(def|class) ", line) and line.endswith(":"))
        ours[name] = "\n".join([*lines[:at + 1], "    raise KeyError('mine')"])
        file = tmp_path/"notebook.ipynb"
        file.write_text(json.dumps(filled(page, ours)), encoding="utf-8")
        result = check_notebook(file)
        assert any("mine" in c["error"] for c in result["cells"]), name
        assert {e["name"]: e["status"] for e in result["exercises"]}[name] == "failed"


def test_blank_notebooks_are_untouched(tmp_path, capsys):
    for level in LEVELS: write_homework(tmp_path/level, level=level)
    with pytest.raises(SystemExit) as exit: check_main([str(tmp_path)])
    assert exit.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{3*len(EXERCISES)} exercises: {3*len(EXERCISES)} untouched"


def test_nothing_is_overwritten(tmp_path, capsys):
    main([str(tmp_path), "--pages", "dropout", "windows"])
    mine = tmp_path/"layers"/"dropout.ipynb"
    mine.write_text("mine")
    main([str(tmp_path), "--pages", "dropout", "pooling", "--level", "fill"])
    assert mine.read_text() == "mine" and (tmp_path/"layers"/"pooling.ipynb").exists()
    out = capsys.readouterr().out
    assert "wrote 1 notebooks" in out and "left 1 as they were, since they were there: dropout" in out


def test_the_page_word_for_word_is_a_copy(tmp_path):
    found = checked(tmp_path, filled("layers/pooling", solutions("layers/pooling", ast.unparse)))
    assert found["max_pool_backward"]["status"] == found["pool_loops"]["status"] == "copied"
    assert found["average_pool"]["status"] == "passed"   # two lines that can hardly be others
    found = checked(tmp_path, filled("layers/pooling", solutions("layers/pooling", ast.unparse), level="fill"))
    assert {e["status"] for e in found.values()} == {"passed"}


BORROWED = {
    "imported": "import hwnn.layers.dropout as d\n    return d.dropout_backward(dY, mask)",
    "by name": "from importlib import import_module\n    return getattr(import_module('hwnn.layers.dropout'), 'dropout_' + 'backward')(dY, mask)",
    "the layer": "from hwnn.layers import Dropout\n    layer = Dropout()\n    layer.cache.update(Y=dY, mask=mask)\n    return layer.backward(dY)",
    "in a thread": "import threading, hwnn.layers.dropout as d\n    out = []\n    t = threading.Thread(target=lambda: out.append(d.dropout_backward(dY, mask)))\n    t.start()\n    t.join()\n    return out[0]",
    "unwatched": "import sys, hwnn.layers.dropout as d\n    sys.setprofile(None)\n    return d.dropout_backward(dY, mask)",
}


@pytest.mark.parametrize("body", BORROWED.values(), ids=BORROWED)
def test_the_librarys_function_is_a_copy(body, tmp_path):
    found = checked(tmp_path, filled(DROPOUT, {"dropout_backward": dropout_backward(body)}))
    assert found["dropout_backward"]["status"] == "copied", found


REPLACED = {
    "import": "from hwnn.layers.dropout import dropout_backward",
    "code": "import types, hwnn.layers.dropout as d\ndropout_backward = types.FunctionType(d.dropout_backward.__code__, d.dropout_backward.__globals__)",
    "partial": "import functools, hwnn.layers.dropout as d\ndropout_backward = functools.partial(d.dropout_backward)",
}


@pytest.mark.parametrize("source", REPLACED.values(), ids=REPLACED)
def test_a_name_for_the_librarys_function_does_not_pass(source, tmp_path):
    nb = filled(DROPOUT, {"dropout_backward": source})
    assert checked(tmp_path, nb)["dropout_backward"]["status"] in ("copied", "failed")


HOSTILE = {   # body -> what the message says
    "while True: pass": "",
    "while True:\n        try:\n            while True: pass\n        except BaseException: pass": "",
    "while True: print('x'*1000)": "",
    "raise ValueError('no')": "no",
    "dY*mask": "None",
    "import sys\n    sys.exit(0)": "",
    "import os\n    os._exit(0)": "",
    "dY *= mask\n    return dY": "",
    "import hwnn.layers.dropout as d\n    d.dropout_backward = lambda dY, mask: dY\n    return dY*mask": "",
    "input()\n    return dY*mask": "",
    "return np.ones(10**12)": "",
    "import subprocess\n    subprocess.run(['sleep', '1000'])\n    return dY*mask": "",
    "return dY": "",
    "return dY*mask)": "SyntaxError",
}


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: re.sub(r"\W+", " ", body)[:40])
def test_wrong_and_hostile_functions_get_a_message(body, tmp_path):
    nb = filled(DROPOUT, {"dropout_backward": dropout_backward(body)})
    report = checked(tmp_path, nb, seconds=3)["dropout_backward"]
    assert report["status"] == "failed" and report["message"] and HOSTILE[body] in report["message"], report
    every = subprocess.run(["ps", "-eo", "ppid,command"], capture_output=True, text=True).stdout if shutil.which("ps") else ""
    assert not [line for line in every.splitlines() if "_child()" in line and line.split()[0] == str(os.getpid())], "a process is left behind"


@pytest.mark.parametrize("cell", ["while True: pass", "import os\nos._exit(0)", "import sys\nsys.exit(1)", "1/0"], ids=["loop", "exit", "sys.exit", "error"])
def test_what_stands_below_a_hostile_cell_is_still_judged(cell, tmp_path):
    nb = filled(DROPOUT, solutions(DROPOUT))
    nb["cells"].insert(3, dict(cell_type="code", id="hostile", metadata={}, outputs=[], execution_count=None, source=cell))
    assert {e["status"] for e in checked(tmp_path, nb, seconds=4).values()} == {"passed"}


@pytest.mark.parametrize("cell, name", [
    ("import hwnn.exercises\nhwnn.exercises.diagnose = lambda name, fn: None", "hwnn.exercises.diagnose"),
    ("import hwnn.layers\nhwnn.layers.Dropout.backward = abs", "Dropout.backward"),
    ("import hwnn.layers.dropout as d\nd.dropout.__code__ = (lambda X, rate, rng: X).__code__", "dropout.dropout"),
    ("import numpy as np\nnp.einsum = abs", "numpy.einsum")])
def test_a_cell_that_changes_the_library_fails_all(cell, name, tmp_path):
    nb = filled(DROPOUT, {"dropout_backward": dropout_backward("return dY*mask")})
    nb["cells"].append(dict(cell_type="code", id="hostile", metadata={}, outputs=[], execution_count=None, source=cell))
    report = checked(tmp_path, nb)["dropout_backward"]
    assert report["status"] == "failed" and f"a cell changes" in report["message"] and name in report["message"]


def test_json_and_gradescope(tmp_path, capsys):
    at = tmp_path/"dropout.ipynb"
    at.write_text(json.dumps(filled(DROPOUT, solutions(DROPOUT))), encoding="utf-8")
    for form in ("--json", "--gradescope"):
        with pytest.raises(SystemExit) as exit: check_main([str(at), form])
        assert exit.value.code == 0
        found = json.loads(capsys.readouterr().out)
        if form == "--json": assert [e["status"] for e in found[0]["exercises"]] == ["passed"]*3 and found[0]["page"] == DROPOUT
        else: assert found["score"] == 3 and [t["max_score"] for t in found["tests"]] == [1]*3


@pytest.mark.parametrize("args, message", [(["nothing.ipynb"], "nothing.ipynb"), (["empty"], "found none"), (["no.ipynb"], "expected a notebook"), (["x.ipynb"], "expected page")])
def test_refused_notebooks(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"empty").mkdir()
    (tmp_path/"no.ipynb").write_text("no")
    (tmp_path/"x.ipynb").write_text('{"cells": []}')
    with pytest.raises(SystemExit) as exit: check_main(args)
    err = capsys.readouterr().err
    assert exit.value.code == 2 and message in err and err.count("\n") == 1


def test_the_nbgrader_form(tmp_path):
    "A cell with the solution and, below it, a locked one that tests it."
    written, _ = write_homework(tmp_path, ["dropout"], nbgrader=True)
    assert written == [tmp_path/"source"/"hwnn"/"dropout.ipynb"]
    cells = json.loads(written[0].read_text())["cells"]
    graded = [cell["metadata"]["nbgrader"] for cell in cells if "nbgrader" in cell["metadata"]]
    assert [(g["solution"], g["grade"], g["locked"], g.get("points")) for g in graded] == [(True, False, False, None), (False, True, True, 1)]*3
    assert all(g["schema_version"] == 3 and not g["task"] and re.fullmatch(r"[a-zA-Z0-9_\-]+", g["grade_id"]) for g in graded)
    assert len({g["grade_id"] for g in graded}) == 6


@pytest.mark.needs("nbgrader")
def test_nbgrader_makes_the_students_version(tmp_path):
    written, _ = write_homework(tmp_path, ["dropout"], nbgrader=True)
    for command in (["validate", written[0]], ["generate_assignment", "hwnn", "--CourseDirectory.course_id=x"]):
        run = subprocess.run([sys.executable, "-m", "nbgrader", *command], cwd=tmp_path, capture_output=True, text=True,
                             env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"})
        assert run.returncode == 0, run.stderr
    assert "raise NotImplementedError" in (tmp_path/"release"/"hwnn"/"dropout.ipynb").read_text()


def test_a_site_for_students_has_no_bodies():
    "On every page: also where a function is repeated."
    for path in (root/"nbs").glob("*/*.ipynb"):
        if path.parent.name == "homework": continue
        nb = without_solutions(json.loads(path.read_text(encoding="utf-8")))
        for cell in nb["cells"]:
            source = _source(cell)
            assert not SOLUTION.search(source)
            if cell["cell_type"] != "code" or not any(f"def {name}(" in source for name in all_names()): continue
            for node in _functions(source, all_names()): assert isinstance(node.body[-1], ast.Expr) and node.body[-1].value.value is ...


def test_the_wheel_has_the_pages(tmp_path):
    "Without outputs, in less than 250 KB; the notebooks made from it are those made in the repository."
    code = ("import sys; sys.argv = ['setup.py', '-q', 'build_py', '--build-lib', sys.argv[1]]\n"
            "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {'__file__': 'setup.py', '__name__': '__main__'})")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=True, env=env, capture_output=True)
    assert (tmp_path/"hwnn"/"data"/"pages.zip").stat().st_size < 250_000
    code = "from hwnn.homework import main; main(['out'])"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=env | {"PYTHONPATH": str(tmp_path)}, capture_output=True)
    write_homework(tmp_path/"here")
    there = {p.relative_to(tmp_path/"out"): p.read_text() for p in (tmp_path/"out").rglob("*.ipynb")}
    assert there == {p.relative_to(tmp_path/"here"): p.read_text() for p in (tmp_path/"here").rglob("*.ipynb")} and len(there) == len(PAGES)
