"""Mutants are noticed: a sample of those that tools/mutate.py makes of the pages' mathematics."""
import json
import subprocess
import sys
from pathlib import Path

import mutate

tool = Path(mutate.__file__)
PAGES = ["fully_connected", "layernorm_groups", "dropout", "losses_hinge", "schedulers_classes", "gradcheck"]


def test_what_is_broken():
    "One operator at a time, with a name that says which; neither what is refused nor its message."
    source = ("def f(A, n=1):\n    if n < 0: raise ValueError(n + 1)\n"
              "    A -= A.mean(axis=0)\n    return 2*A.T if n else -A")
    names, sources = zip(*mutate.mutants(source))
    assert all(name.startswith("f: ") for name in names)
    assert {name[3:] for name in names} == {
        "Add for Sub in A -= A.mean(axis=0)", "left out in A -= A.mean(axis=0)", "axis 1 in A.mean(axis=0)", "sum for mean in A.mean(axis=0)",
        "always in n", "never in n", "Add for Mult in 2 * A.T", "second left out in 2 * A.T", "first left out in 2 * A.T", "2 becomes 3 in 2 * A.T",
        "transpose forgotten in A.T", "sign left out in -A"}
    assert len({*sources}) == len(sources)


def test_sample_is_noticed():
    "Two mutants of each of six pages; all of them take a minute or two: python tools/mutate.py."
    done = subprocess.run([sys.executable, tool, "--sample", "2", "--only", *PAGES], capture_output=True, text=True)
    assert done.returncode == 0 and "12 mutants, 12 noticed" in done.stdout, done.stdout + done.stderr


def test_a_survivor_is_seen():
    "What computes the same survives; what does not is noticed."
    page = "training/losses_classes"
    same = [name for name in mutate.known() if name.startswith(f"{page} BinaryCrossEntropy")]
    other = [name for name in mutate.names(page) if "L2._backward: second left out" in name]
    done = subprocess.run([sys.executable, tool, "--page", page], input="\n".join(same + other), capture_output=True, text=True, check=True)
    found = {m["name"]: m["survived"] for m in map(json.loads, done.stdout.splitlines())}
    assert found == {same[0]: True, other[0]: False}


def test_explained_mutants_exist():
    "tools/mutants.txt names mutants of pages that are looked at, each once, and gives a reason."
    explained = mutate.known()
    lines = [line for line in mutate.KNOWN.read_text(encoding="utf-8").splitlines() if "/" in line.split(" ")[0]]
    assert len(lines) == len(explained) and all(reason.strip() for reason in explained.values())
    pages = {name.split(" ")[0] for name in explained}
    assert pages <= {*mutate.PAGES}
    assert {*explained} <= {name for page in pages for name in mutate.names(page)}
