"""Mutation testing: break one operator of an exported backward pass, loss, optimizer or scheduler at a time, and run the rest of its page. A mutant
that no cell notices survives. `python tools/mutate.py` takes all pages that are in PAGES; --only conv pool takes those whose path contains a word.
Survivors that compute the same as what they replace stand in tools/mutants.txt with the reason; any other one makes the exit status 1, as does a
line there that names none. Each mutant is a child of the process that has run the page up to its cell. The engine is out of the way, so that what a page writes
is what runs; tests/test_fast.py holds the engine to the same results."""
import argparse, ast, copy, json, os, resource, signal, subprocess, sys, time, traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

root = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(root), str(root/"tools")]
from optional import directives

# The longest first.
PAGES = """training/optimizers_classes training/losses_classes layers/pooling_functions layers/batchnorm layers/activations_rectifiers_classes
    training/networks layers/windows_arguments layers/convolution_layer layers/layernorm layers/layernorm_groups layers/activations_classes
    layers/activations_normal training/schedulers_classes training/schedulers_plateau training/losses training/losses_hinge training/losses_weights
    ground/gradcheck training/weights_initialisers training/metrics layers/fully_connected layers/dropout layers/flatten bridges/weights""".split()
KNOWN = root/"tools/mutants.txt"
# Machinery around the mathematics: what is refused, what is said of it, how it is written, how names become objects.
SPARED = ("check_", "_check", "initialize_", "__init__", "__repr__", "_remedy")
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
IN_PLACE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
FUNCTIONS = dict(sum="mean", mean="sum", maximum="minimum", minimum="maximum", max="min", min="max", exp="expm1", expm1="exp", log="log1p", log1p="log",
                 sqrt="cbrt", cos="sin", tanh="arctan", arctan="tanh", add="subtract", subtract="add", multiply="divide", divide="multiply",
                 negative="positive", reciprocal="positive", abs="positive", square="positive", argmax="argmin", any="all", all="any", zeros="ones",
                 ones="zeros", zeros_like="ones_like")
METHODS = {"sum", "mean", "max", "min", "argmax", "any", "all"}   # those that arrays have as well
LIMITS = {"maximum", "minimum", "clip", "max", "min"}


def is_number(node): return isinstance(node, ast.Constant) and type(node.value) in (int, float)


class Sites(ast.NodeVisitor):
    "The places of a function that can be broken: (node, what is done, what does it to a copy: a function, or one that gives what takes its place)."
    def __init__(self): self.found = []
    def change(self, node, what, fn): self.found.append((node, what, lambda n: fn(n) and None))
    def replace(self, node, what, fn): self.found.append((node, what, fn))

    def visit_Raise(self, node): pass
    def visit_JoinedStr(self, node): pass
    def visit_Assert(self, node): pass
    def visit_With(self, node):
        for inner in node.body: self.visit(inner)   # not the error state that it sets
    def visit_FunctionDef(self, node):
        for inner in node.body: self.visit(inner)   # no defaults, no annotations

    def visit_If(self, node):
        if not all(isinstance(inner, ast.Raise) for inner in node.body):   # what is refused has tests of its own
            self.choice(node.test)
            for inner in node.body: self.visit(inner)
        for inner in node.orelse: self.visit(inner)

    def visit_IfExp(self, node):
        self.choice(node.test)
        for inner in (node.body, node.orelse): self.visit(inner)

    def choice(self, test):
        for value in (True, False): self.replace(test, "always" if value else "never", lambda n, v=value: ast.Constant(v))
        self.visit(test)

    def visit_Call(self, node):
        of = getattr(node.func, "value", None)   # what stands before the dot
        module = getattr(of, "id", None) in ("np", "math")
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name.startswith(("check_", "_check")): return
        for k, keyword in enumerate(node.keywords):
            if keyword.arg == "axis":
                other = {"0": 1, "1": 0, "-1": 0, "(1, 2)": 1}.get(ast.unparse(keyword.value))
                if other is not None: self.change(node, f"axis {other}", lambda n, k=k, v=other: setattr(n.keywords[k], "value", ast.Constant(v)))
            if keyword.arg in ("keepdims", "where", "dtype"): self.change(node, f"{keyword.arg} left out", lambda n, k=k: n.keywords.pop(k))
        if isinstance(node.func, ast.Name):
            if name in ("max", "min"): self.change(node, f"{FUNCTIONS[name]} for {name}", lambda n: setattr(n.func, "id", FUNCTIONS[n.func.id]))
            if name in ("abs", "reversed"): self.replace(node, f"{name} left out", lambda n: n.args[0])
        elif name in FUNCTIONS and (module or name in METHODS):
            self.change(node, f"{FUNCTIONS[name]} for {name}", lambda n: setattr(n.func, "attr", FUNCTIONS[n.func.attr]))
        if module and name == "where": self.change(node, "branches swapped", lambda n: n.args.append(n.args.pop(1)))
        if module and name == "clip": self.replace(node, "limits left out", lambda n: n.args[0])
        if not module and name in ("sum", "copy", "astype", "transpose") and isinstance(node.func, ast.Attribute):
            self.replace(node, f"{name} left out", lambda n: n.func.value)
        if name in LIMITS:
            for k, arg in enumerate(node.args):
                if is_number(arg): self.change(node, f"{arg.value} becomes {arg.value + 1}", lambda n, k=k: setattr(n.args[k], "value", n.args[k].value + 1))
        self.generic_visit(node)

    def visit_BinOp(self, node):
        new = OPERATORS.get(type(node.op))
        if new: self.change(node, f"{new.__name__} for {type(node.op).__name__}", lambda n: setattr(n, "op", new()))
        if isinstance(node.op, (ast.Mult, ast.Div)): self.replace(node, "second left out", lambda n: n.left)
        if isinstance(node.op, ast.Mult): self.replace(node, "first left out", lambda n: n.right)
        if isinstance(node.op, ast.Pow) and is_number(node.right): self.change(node, "another power", lambda n: setattr(n.right, "value", n.right.value + 1))
        for side in ("left", "right"):
            value = getattr(node, side)
            if is_number(value) and not isinstance(node.op, ast.Pow):
                self.change(node, f"{value.value} becomes {value.value + 1}", lambda n, s=side: setattr(getattr(n, s), "value", getattr(n, s).value + 1))
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        new = IN_PLACE.get(type(node.op))
        if new: self.change(node, f"{new.__name__} for {type(node.op).__name__}", lambda n: setattr(n, "op", new()))
        self.replace(node, "left out", lambda n: ast.Pass())
        self.generic_visit(node)

    def visit_Assign(self, node):
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets): self.replace(node, "left out", lambda n: ast.Pass())
        self.generic_visit(node)

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call) and not getattr(node.value.func, "id", getattr(node.value.func, "attr", "")).startswith(("check_", "_check")):
            self.replace(node, "left out", lambda n: ast.Pass())
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        new = ast.Or if isinstance(node.op, ast.And) else ast.And
        self.change(node, f"{new.__name__} for {type(node.op).__name__}", lambda n: setattr(n, "op", new()))
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.USub) and not is_number(node.operand): self.replace(node, "sign left out", lambda n: n.operand)
        if isinstance(node.op, (ast.Invert, ast.Not)): self.replace(node, "not left out", lambda n: n.operand)
        self.generic_visit(node)

    def visit_Attribute(self, node):
        if node.attr == "T": self.replace(node, "transpose forgotten", lambda n: n.value)
        self.generic_visit(node)

    def visit_Subscript(self, node):
        if "::-1" in ast.unparse(node.slice): self.replace(node, "flip forgotten", lambda n: n.value)
        self.generic_visit(node)

    def visit_Compare(self, node):
        new = COMPARED.get(type(node.ops[0]))
        if new: self.change(node, f"{new.__name__} for {type(node.ops[0]).__name__}", lambda n: n.ops.__setitem__(0, new()))
        self.generic_visit(node)


def mutants(source):
    "All mutants of a cell: (function and what was done where, new source)."
    tree = ast.parse(source)
    for outer in ast.walk(tree):
        for node in getattr(outer, "body", []) if isinstance(outer, (ast.Module, ast.ClassDef)) else []:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith(SPARED): continue
            owner = getattr(outer, "name", None) or (node.args.args and getattr(node.args.args[0].annotation, "id", None) if node.decorator_list else None)
            sites = Sites()
            sites.visit(node)
            for target, what, change in sites.found:
                memo = {}
                broken = copy.deepcopy(tree, memo)
                new = memo[id(target)]
                if other := change(new):
                    for parent in ast.walk(broken):
                        for field, value in ast.iter_fields(parent):
                            if value is new: setattr(parent, field, other)
                            elif isinstance(value, list): value[:] = [other if v is new else v for v in value]
                name = f"{owner}.{node.name}" if owner else node.name
                yield f"{name}: {what} in {' '.join(ast.unparse(target).split())}", ast.unparse(ast.fix_missing_locations(broken))


def cells(page):
    "The code cells that need nothing optional: (source, its mutants by name), where an exported cell has some."
    nb = json.loads((root/f"nbs/{page}.ipynb").read_text(encoding="utf-8"))
    seen = Counter()
    for cell in nb["cells"]:
        if cell["cell_type"] != "code": continue
        source = "".join(cell["source"])
        flags = directives(source)
        if {"torch", "numba", "onnx", "eval"} & {*flags}: continue
        broken = {}
        for name, new in mutants(source) if any(flag.startswith("export") for flag in flags) else ():
            name = f"{page} {name}"
            seen[name] += 1
            broken[name if seen[name] == 1 else f"{name} ({seen[name]})"] = new
        yield source, broken


def names(page): return [name for _, broken in cells(page) for name in broken]


def known():
    "The survivors that are explained: name -> reason."
    lines = KNOWN.read_text(encoding="utf-8").splitlines()
    return dict(line.rsplit("  # ", 1) for line in lines if "  # " in line)


def without_pictures(todo):
    "The cells but those that draw and set no name that a later one uses."
    kept, used = [], set()
    for source, broken in reversed(todo):
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Name, ast.FunctionDef))]
        made = {getattr(node, "id", None) or node.name for node in found if not isinstance(getattr(node, "ctx", None), ast.Load)}
        if "fig-alt" in directives(source) and not made & used: continue
        kept.append((source, broken))
        used |= {node.id for node in found if isinstance(node, ast.Name)}
    return kept[::-1]


def verdicts(page, taken):
    "Run a page; at each exported cell, a child for each mutant goes on with that in its place. Prints a line of JSON for each."
    import matplotlib
    from hwnn.engine import table
    matplotlib.use("agg")
    table.use_fast(False)
    table.NUMPY.clear()
    os.chdir((root/f"nbs/{page}.ipynb").parent)
    say = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    todo = list(cells(page))
    def run(source, space): exec(compile(source, page, "exec"), space)
    def space(): return {"__name__": page, "display": lambda *args, **kwargs: None}
    # Once as it is, which also loads modules. Then without the pictures, where that is the same.
    before, here = space(), space()
    for source, _ in todo: run(source, before)
    todo = without_pictures(todo)

    def survives(source, rest, errors=quiet):
        "Whether the page goes on to its end with this cell; it runs in a child."
        pid = os.fork()
        if not pid:
            os.dup2(errors, 2)
            try:
                signal.alarm(60)
                resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
                for each in (source, *rest): run(each, here)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0

    rest = [source for source, _ in todo]
    if not survives("", rest, 2): raise SystemExit(f"{page}: fails without its pictures")
    for at, (source, broken) in enumerate(todo):
        for name in broken:
            if taken and name not in taken: continue
            print(json.dumps(dict(name=name, survived=survives(broken[name], rest[at + 1:]))), file=say)
        run(source, here)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[""], metavar="WORD", help="pages whose path contains one of them")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants of each page that are not in tools/mutants.txt, at even distances")
    parser.add_argument("--page", help=argparse.SUPPRESS)   # one page, in a process of its own, with the mutants that standard input names
    args = parser.parse_args()
    if args.page: return verdicts(args.page, {*sys.stdin.read().splitlines()})
    explained = known()
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "IN_TEST": "1", "PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}
    def run(page):
        start, taken = time.time(), []
        if args.sample:
            fresh = [name for name in names(page) if name not in explained]
            taken = [fresh[(2*k + 1)*len(fresh)//(2*args.sample)] for k in range(args.sample)]
        done = subprocess.run([sys.executable, __file__, "--page", page], env=env, input="\n".join(taken), capture_output=True, text=True)
        if done.returncode: print(done.stderr[-2000:])
        found = [json.loads(line) for line in done.stdout.splitlines()]
        print(f"{page}: {sum(not m['survived'] for m in found)} of {len(found)} mutants noticed, {time.time() - start:.0f} s", flush=True)
        return done.returncode, found
    pages = [page for page in PAGES if any(word in page for word in args.only)]
    with ThreadPoolExecutor(2) as pool: results = list(pool.map(run, pages))
    found = {m["name"]: m["survived"] for _, ms in results for m in ms}
    survivors = [name for name in found if found[name]]
    new = [name for name in survivors if name not in explained]
    stale = [name for name in explained if name.split()[0] in pages and not (args.sample or found.get(name))]
    print(f"{len(found)} mutants, {len(found) - len(survivors)} noticed, {len(survivors) - len(new)} the same as what they replace")
    for name in new: print("survived:", name)
    for name in stale: print("noticed, or no mutant, but in tools/mutants.txt:", name)
    sys.exit(bool(new or stale) or any(code for code, _ in results))


if __name__ == "__main__": main()
