"""nbdev's processing of the pages into _proc/: `python tools/process_pages.py [--changed]`, with --changed only of those that are newer than it.

nbdev runs every cell that exports or imports, to show signatures. Cells whose optional package is missing are left out here."""
import gc, sys

from nbdev import processors
from nbdev.serve import proc_nbs
from optional import lacking


class ShowDocs(processors.exec_show_docs):
    def __call__(self, cell):
        first = next(c for c in self.nb.cells if c.cell_type == "code")
        if not lacking(first.directives_, cell.directives_): super().__call__(cell)


if __name__ == "__main__":
    ShowDocs.__name__ = "exec_show_docs"   # nbdev's settings know it by its name
    processors.exec_show_docs = ShowDocs
    # One process for all pages: nbdev's pool of processes cannot be told what is left out, and was no faster on two cores.
    proc_nbs(n_workers=0, force="--changed" not in sys.argv)
    gc.freeze()   # when it ends, IPython collects garbage once for each notebook, which took as long again; frozen, there is none
