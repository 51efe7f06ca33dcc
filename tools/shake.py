"""Run the pages and the tests of numbers under other seeds, processors and thread counts, with and without what is optional.

`python tools/shake.py` runs each condition by itself; with --quick two that combine them. Exits with 1 if anything failed, or if a number on a page
depends on whether PyTorch and Numba are there: for --quick, --usual names the outputs of a usual run, `make test ARGS="--outputs=FOLDER"`, and --bare
those of a run without anything optional, which then is not run again."""
import argparse, json, os, platform, re, subprocess, sys, tempfile, time
from pathlib import Path

from optional import has

root = Path(__file__).resolve().parent.parent
# The others are about files, processes and the site, and meet no seed but in processes of their own.
FILES = ["nbs", *(f"tests/test_{name}.py" for name in ("bad_input", "batchnorm", "convolution", "pooling", "fast", "threads", "own_data"))]
SHIFTS = range(1, 6)
BARE = "without PyTorch and Numba"


def cores():
    "OpenBLAS's names for older processors that this one can imitate, and the vector instructions of NumPy that can be switched off."
    if platform.machine() not in ("x86_64", "AMD64"): return [], ""
    code = "import json, numpy; m = numpy._core._multiarray_umath; print(json.dumps([k for k in m.__cpu_dispatch__ if m.__cpu_features__.get(k)]))"
    features = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    wide = any("512" in f or f == "X86_V4" for f in features)
    return ["Nehalem", "Haswell", *(["SkylakeX"] if wide else [])], " ".join(features)


def conditions(quick):
    "What to run under: name -> (arguments of pytest, environment)."
    names, features = cores()
    oldest = {"OPENBLAS_CORETYPE": names[0], "NPY_DISABLE_CPU_FEATURES": features} if names else {}
    bare = {"HWNN_WITHOUT": "torch numba onnx"}
    fast = {"HWNN_FAST": "1"} if has("numba") else {}
    if quick:
        yield BARE, [], bare
        yield "other seeds, the oldest processor, two threads, compiled", ["--shift", "7"], {**oldest, **fast, "OPENBLAS_NUM_THREADS": "2"}
        return
    yield "as it is", [], {}
    for shift in SHIFTS: yield f"seeds shifted by {shift}", ["--shift", str(shift)], {}
    for core in names: yield f"BLAS for {core}", [], {"OPENBLAS_CORETYPE": core}
    for core in names: yield f"BLAS for {core}, NumPy without {features}", [], {"OPENBLAS_CORETYPE": core, "NPY_DISABLE_CPU_FEATURES": features}
    for threads in (1, 2, 4): yield f"{threads} threads", [], {"OPENBLAS_NUM_THREADS": str(threads)}
    yield BARE, [], bare
    if fast: yield "compiled functions", [], fast
    if fast: yield "compiled functions, other seeds, 2 threads", ["--shift", "6"], {**fast, "OPENBLAS_NUM_THREADS": "2"}


def run(args, env, outputs):
    "Run pytest; returns what it counted, and the names of what failed."
    # The kernels of BLAS stay those that the environment asks for, unless the condition names others: a usual run, with which outputs are compared, had them too.
    kept = {k: v for k, v in os.environ.items() if k not in ("HWNN_FAST", "HWNN_WITHOUT", "HWNN_NO_SKIPS")}
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--tb=short", f"--outputs={outputs}", *args, *FILES]
    done = subprocess.run(command, cwd=root, env=kept | env, capture_output=True, text=True)
    counted = re.findall(r"(?m)^(?:=+ )?((?:\d+ \w+(?:, )?)+) in ", done.stdout)
    failed = re.findall(r"(?m)^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout)
    if not counted or failed: print(done.stdout.partition("= FAILURES =")[2][-8000:] or done.stdout[-2000:], done.stderr[-2000:])
    return counted[-1] if counted else "did not run", failed if counted else [f"pytest ended with {done.returncode}"]


def texts(outputs): return re.sub(r"0x[0-9a-f]+", "", str(outputs))   # without the places of objects in memory


def differences(here, there):
    "The cells that ran in both folders of outputs and showed something else."
    for path in sorted(here.rglob("*.json")):
        one, two = (json.loads(p.read_text(encoding="utf-8")) if p.exists() else {} for p in (path, there/path.relative_to(here)))
        yield from (f"{path.stem} cell {cell}, {texts(one[cell])[:80]} or {texts(two[cell])[:80]}" for cell in one if cell in two and texts(one[cell]) != texts(two[cell]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two conditions that combine the others")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="conditions whose names contain one of the words")
    parser.add_argument("--usual", type=Path, help="outputs of a usual run")
    parser.add_argument("--bare", type=Path, help="outputs of a run without anything optional, in place of one here")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options, env in conditions(args.quick):
            if args.only and not any(word in name for word in args.only) or args.bare and name == BARE: continue
            start = time.time()
            counted, failed = run(options, env, Path(folder)/name)
            print(f"{name}: {counted}, {time.time() - start:.0f} s", flush=True)
            for test in failed: found.setdefault(test, []).append(name)
        for cell in differences(args.usual or Path(folder)/"as it is", args.bare or Path(folder)/BARE): found[cell] = [f"shows other numbers {BARE}"]
    for test, names in found.items(): print(f"{test}: {', '.join(names)}")
    print("nothing depends on luck or on the processor" if not found else f"{len(found)} do")
    sys.exit(bool(found))


if __name__ == "__main__": main()
