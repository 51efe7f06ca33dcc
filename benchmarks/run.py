"""hwnn against PyTorch and the code of a textbook: prints a table and writes benchmarks/results.json.

    make bench                                  everything: about eight minutes on two cores
    make bench ARGS="--quick --only conv pool"  two samples, groups whose names contain one of the words; writes nothing
    make bench ARGS="--avx2"                    all contestants as on a processor that has no AVX-512; writes benchmarks/results_avx2.json
"""
import argparse
import json
import os
import platform
import sys
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))   # the library beside this file, wherever another copy is installed


def without_avx512():
    "Settings with which NumPy, its BLAS, Numba and PyTorch, with its own kernels and oneDNN's, work on a processor with AVX-512 as on one with AVX2."
    from llvmlite.binding import get_host_cpu_features
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
    features = ",".join(f"{'+' if on and not name.startswith(('avx512', 'evex')) else '-'}{name}" for name, on in sorted(get_host_cpu_features().items()))
    disabled = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name) and (name.startswith("AVX512") or name == "X86_V4"))
    return dict(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=features, OPENBLAS_CORETYPE="Haswell", ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2", NPY_DISABLE_CPU_FEATURES=disabled)


def environment():
    "The settings under which all contestants run, as far as they choose machine code or threads."
    names = [*without_avx512(), "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_L2_SIZE"]
    return {name: os.environ[name] for name in names if name in os.environ}


def machine():
    cpuinfo = Path("/proc/cpuinfo")
    models = [l.split(":", 1)[1].strip() for l in cpuinfo.read_text().splitlines() if l.startswith("model name")] if cpuinfo.exists() else []
    return dict(cpu=models[0] if models else platform.processor() or platform.machine(), cores=os.cpu_count(), os=platform.platform())


def versions():
    import numpy as np
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return dict(python=platform.python_version(), numpy=np.__version__, blas=f"{blas['name']} {blas['version']}",
                **{name: version(name) for name in ("torch", "scikit-learn", "numba", "hwnn")})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="take two samples of each case")
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[], help="only groups whose names contain one of these words")
    parser.add_argument("--threads", type=int, help="threads for both, by default one for each core")
    parser.add_argument("--avx2", action="store_true", help="keep all contestants from AVX-512")
    parser.add_argument("--out", type=Path, help="where to write; by default benchmarks/results.json, with --avx2 results_avx2.json, and nothing with --quick or --only")
    args = parser.parse_args()
    if args.avx2 and os.environ.get("HWNN_BENCH") != "avx2":   # once more, before any of them is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **without_avx512(), "HWNN_BENCH": "avx2"})
    missing = [name for name in ("torch", "sklearn", "numba") if find_spec(name) is None]
    if missing: sys.exit(f"The benchmark needs {' and '.join(missing)}, which is not installed here: .venv/bin/pip install torch==2.13.0 scikit-learn numba")

    import torch   # only now: without it the message above would not be reached
    from cases import GROUPS
    from hwnn.engine.threads import get_threads, set_threads
    from timing import GROUP_GOALS, HEAD, goals, group_means, line, mean_line, measure
    chosen = {group: cases for group, cases in GROUPS.items() if not args.only or any(word in group for word in args.only)}
    if not chosen: parser.error(f"argument --only: no group of {', '.join(GROUPS)} contains {' or '.join(args.only)}")
    threads = args.threads or get_threads()
    set_threads(threads)
    torch.set_num_threads(threads)
    if args.quick: measure = partial(measure, at_least=2, at_most=2)
    records = []
    print(HEAD)
    for group, cases in chosen.items():
        print(f"\n{group}")
        for r in cases(measure):
            records.append(r)
            print(line(r), flush=True)
        means = group_means(records)
        if group in means: print(mean_line(group, means[group]))
    reached = goals(records)
    print("\n" + "\n".join(f"{g['who']:10} {g['what']:50} goal {g['goal']:8} reached {g['reached']:8} {'met' if g['met'] else 'not met'}" for g in reached))
    out = args.out or (None if args.quick or args.only else here/("results_avx2.json" if args.avx2 else "results.json"))
    if out:
        about = dict(date=date.today().isoformat(), machine=machine(), versions=versions(), environment=environment(), threads=threads, group_goals=GROUP_GOALS, goals=reached)
        out.write_text(json.dumps(about, indent=1)[:-2] + ',\n "cases": [\n' + ",\n".join(map(json.dumps, records)) + "\n]}\n", encoding="utf-8")   # a line for each case
        print(f"\nwritten: {out}")


if __name__ == "__main__": main()
