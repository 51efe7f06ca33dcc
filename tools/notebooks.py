"""Export, execute and clean notebooks in place: `python tools/notebooks.py [--all] [NOTEBOOK ...]`.

Cells marked `#| eval: false` (timings, long training) keep the output that they have, unless --all is given;
cells marked `#| torch` or `#| numba` run where that is installed. Without a path, every notebook below nbs/ is taken.
"""
import argparse, os, re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.clean import nbdev_clean
from nbdev.doclinks import nbdev_export
from optional import directives, lacking

root = Path(__file__).resolve().parent.parent


def kept(source, first, run_all):
    "Whether a cell's stored output stands instead of a new one; `first`: the page's first code cell."
    skip = not run_all and re.search(r"(?m)^#\| *eval: *false", source)
    return bool(skip or lacking(directives(first), directives(source)))


SUMMARY = re.compile(r'^#\| *code-summary: *"?(?:Solution|Test)"? *\n', re.M)


def fold(nb):
    "Collapse in Jupyter the cells that the site folds as a solution or a test, and no others."
    for cell in nb.cells:
        summary = cell.cell_type == "code" and SUMMARY.search(cell.source)
        if summary:
            cell.metadata["jupyter"] = {"source_hidden": True}
            cell.source = summary[0] + SUMMARY.sub("", cell.source, count=1)   # Jupyter shows the first line of a collapsed cell
        else: cell.metadata.pop("jupyter", None)
    return nb


def execute(path, run_all=False):
    "Run one notebook in a new kernel and write its outputs back."
    nb = fold(nbformat.read(path, 4))
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    for cell in code:
        if kept(cell.source, code[0].source, run_all): cell.metadata["tags"] = ["skip-execution"]
    # The pages tell what NumPy does, and their outputs are to be the same with and without Numba.
    first = "--IPKernelApp.exec_lines=__import__('hwnn.engine.table').engine.table.use_fast(False)"
    client = NotebookClient(nb, timeout=900, kernel_name="python3", resources={"metadata": {"path": path.parent}}, extra_arguments=[first])
    # IN_TEST tells hwnn.figures to store the static form of a widget, which is the same in every run.
    client.execute(env={**os.environ, "IN_TEST": "1", "PYTHONPATH": str(root)})
    nbformat.write(nb, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all below nbs/")
    parser.add_argument("--all", action="store_true", help="also run the cells marked eval: false")
    args = parser.parse_args()
    paths = [p.resolve() for p in args.notebooks] or sorted(p for p in (root/"nbs").rglob("*.ipynb") if "checkpoint" not in str(p))
    os.chdir(root)
    nbdev_export.__wrapped__()   # all of them, in order: networks_loop.ipynb continues the module of networks.ipynb
    for path in paths:
        execute(path, args.all)
        nbdev_clean.__wrapped__(str(path))
        print(path.relative_to(root))


if __name__ == "__main__": main()
