"""Mutation testing: break one operator of an exported backward pass, loss, optimizer or scheduler at a time, and run its page. A mutant that no cell
notices survives. `python tools/mutate.py` takes all pages that are in PAGES; --only conv takes those whose path contains the word. Survivors that
compute the same as what they replace stand in tools/mutants.txt with the reason; any other one makes the exit status 1."""
import argparse, ast, copy, json, os, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import subprocess

root = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(root), str(root/"tools")]
from optional import directives

PAGES = """layers/fully_connected layers/activations_classes layers/activations_normal layers/activations_rectifiers_classes layers/convolution
    layers/pooling_functions layers/batchnorm layers/layernorm layers/layernorm_groups layers/dropout layers/flatten training/losses training/losses_classes
    training/losses_weights training/losses_hinge training/optimizers_classes training/schedulers_classes training/schedulers_plateau training/networks""".split()
# Machinery around the mathematics: what is refused, how it is written, how names become objects.
SPARED = ("check_", "_check", "initialize_", "__init__", "__repr__", "_remedy", "repeatable")
ALONE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.MatMult: ast.Mult}
SWAPPED = {"sum": "mean", "mean": "sum", "maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "exp": "expm1", "sqrt": "square"}
COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}


def called(node): return getattr(node.func, "id", getattr(node.func, "attr", ""))


class Sites(ast.NodeVisitor):
    "The places of a function that can be broken: (node, what is done, function that does it to a copy)."
    def __init__(self): self.found = []
    def add(self, node, what, change): self.found.append((node, what, change))
    def visit_Raise(self, node): pass
    def visit_JoinedStr(self, node): pass
    def visit_Assert(self, node): pass
    def visit_With(self, node):
        for inner in node.body: self.visit(inner)   # not the error state that it sets
    def visit_FunctionDef(self, node):
        for inner in node.body: self.visit(inner)   # no defaults, no annotations

    def visit_Call(self, node):
        name = called(node)
        if name.startswith(("check_", "_check")): return
        for keyword in node.keywords:
            if keyword.arg == "axis" and isinstance(keyword.value, ast.Constant) and keyword.value.value in (0, 1):
                self.add(node, "another axis", lambda n, k=node.keywords.index(keyword): setattr(n.keywords[k].value, "value", 1 - n.keywords[k].value.value))
            if keyword.arg == "keepdims": self.add(node, "keepdims dropped", lambda n, k=node.keywords.index(keyword): n.keywords.pop(k))
        if isinstance(node.func, ast.Attribute) and name in SWAPPED:
            self.add(node, f"{SWAPPED[name]} for {name}", lambda n: setattr(n.func, "attr", SWAPPED[n.func.attr]))
        if isinstance(node.func, ast.Attribute) and name == "sum" and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "np"):
            self.add(node, "sum left out", "receiver")
        self.generic_visit(node)

    def visit_BinOp(self, node):
        if type(node.op) in ALONE: self.add(node, f"{ALONE[type(node.op)].__name__} for {type(node.op).__name__}", lambda n: setattr(n, "op", ALONE[type(n.op)]()))
        if isinstance(node.op, (ast.Mult, ast.Div)): self.add(node, "factor left out", "left")
        if isinstance(node.op, ast.Mult): self.add(node, "first factor left out", "right")
        if isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant): self.add(node, "another power", lambda n: setattr(n.right, "value", n.right.value + 1))
        for side in ("left", "right"):
            value = getattr(node, side)
            if isinstance(value, ast.Constant) and isinstance(value.value, (int, float)) and not isinstance(node.op, ast.Pow):
                self.add(node, f"{value.value} becomes {value.value + 1}", lambda n, s=side: setattr(getattr(n, s), "value", getattr(n, s).value + 1))
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        if isinstance(node.op, (ast.Add, ast.Sub)): self.add(node, "other sign", lambda n: setattr(n, "op", ALONE[type(n.op)]()))
        self.add(node, "left out", "pass")
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant): self.add(node, "sign left out", "operand")
        if isinstance(node.op, ast.Invert): self.add(node, "inversion left out", "operand")
        self.generic_visit(node)

    def visit_Attribute(self, node):
        if node.attr == "T": self.add(node, "transpose forgotten", "value")
        self.generic_visit(node)

    def visit_Subscript(self, node):
        if "::-1" in ast.unparse(node.slice): self.add(node, "flip forgotten", "value")
        self.generic_visit(node)

    def visit_Compare(self, node):
        if len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
            self.add(node, f"{COMPARED[type(node.ops[0])].__name__} for {type(node.ops[0]).__name__}", lambda n: n.ops.__setitem__(0, COMPARED[type(n.ops[0])]()))
        self.generic_visit(node)

    def visit_IfExp(self, node):
        self.add(node, "branches swapped", lambda n: (body := n.body, setattr(n, "body", n.orelse), setattr(n, "orelse", body)))
        self.generic_visit(node)


def mutants(source):
    "All mutants of a cell: (function, line, what was done, new source)."
    tree = ast.parse(source)
    for outer in ast.walk(tree):
        for node in getattr(outer, "body", []) if isinstance(outer, (ast.Module, ast.ClassDef)) else []:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith(SPARED): continue
            sites = Sites()
            sites.visit(node)
            for target, what, change in sites.found:
                memo = {}
                broken = copy.deepcopy(tree, memo)
                new = memo[id(target)]
                if callable(change): change(new)
                else:
                    other = ast.copy_location(ast.Pass(), new) if change == "pass" else new.func.value if change == "receiver" else getattr(new, change)
                    for parent in ast.walk(broken):
                        for field, value in ast.iter_fields(parent):
                            if value is new: setattr(parent, field, other)
                            elif isinstance(value, list) and any(v is new for v in value): value[[v is new for v in value].index(True)] = other
                name = node.name if isinstance(outer, ast.Module) else f"{outer.name}.{node.name}"
                yield name, ast.unparse(target), what, ast.unparse(ast.fix_missing_locations(broken))


def cells(page):
    "The code cells that the tests run: (source, whether it is exported)."
    nb = json.loads((root/f"nbs/{page}.ipynb").read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        if cell["cell_type"] != "code": continue
        source = "".join(cell["source"])
        flags = directives(source)
        if any(flag.startswith(("torch", "numba", "eval")) for flag in flags): continue
        yield source, any(flag.startswith("export") for flag in flags)


def verdicts(page, seconds=120):
    "Run a page; at each exported cell, a child for each mutant goes on with that in its place. Prints a line of JSON for each."
    import matplotlib
    matplotlib.use("agg")
    from IPython.core.interactiveshell import InteractiveShell
    os.chdir((root/f"nbs/{page}.ipynb").parent)
    shell = InteractiveShell()
    todo = list(cells(page))
    quiet = os.open(os.devnull, os.O_WRONLY)
    say = os.fdopen(os.dup(1), "w")
    os.dup2(quiet, 1)
    def fails(source):
        result = shell.run_cell(source)
        return result.error_before_exec or result.error_in_exec
    for at, (source, exported) in enumerate(todo):
        for function, old, what, new in mutants(source) if exported else ():
            flags = "".join(line + "\n" for line in source.splitlines() if line.startswith("#|"))
            pid = os.fork()
            if not pid:
                os.dup2(quiet, 2)
                signal.alarm(seconds)
                survived = not fails(flags + new) and not any(fails(later) for later, _ in todo[at + 1:])
                os._exit(0 if survived else 1)
            _, status = os.waitpid(pid, 0)
            say.write(json.dumps(dict(page=page, function=function, old=old, what=what, survived=status == 0)) + "\n")
            say.flush()
        if error := fails(source): raise SystemExit(f"{page}: the page itself fails: {error!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="WORD", help="pages whose path contains it")
    parser.add_argument("--page", help=argparse.SUPPRESS)   # one page, in a process of its own
    args = parser.parse_args()
    if args.page: return verdicts(args.page)
    known = {line.rsplit("  # ", 1)[0] for line in (root/"tools/mutants.txt").read_text(encoding="utf-8").splitlines() if "  # " in line}
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "IN_TEST": "1", "PYTHONPATH": str(root)}
    def run(page):
        start = time.time()
        done = subprocess.run([sys.executable, __file__, "--page", page], env=env, capture_output=True, text=True)
        if done.returncode: print(done.stderr[-2000:])
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        print(f"{page}: {sum(not m['survived'] for m in found)} of {len(found)} mutants noticed, {time.time() - start:.0f} s", flush=True)
        return done.returncode, found
    with ThreadPoolExecutor(2) as pool: results = list(pool.map(run, [page for page in PAGES if args.only in page]))
    found = [m for _, ms in results for m in ms]
    lines = [f"{m['page']} {m['function']}: {m['what']} in {' '.join(m['old'].split())}" for m in found if m["survived"]]
    new = [line for line in lines if line not in known]
    print(f"{len(found)} mutants, {len(found) - len(lines)} noticed, {len(lines) - len(new)} the same as what they replace")
    for line in new: print("survived:", line)
    sys.exit(bool(new) or any(code for code, _ in results))


if __name__ == "__main__": main()
