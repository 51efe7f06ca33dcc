"""Exercises: every known mistake is caught and named, others are caught, right functions pass, hostile ones get a message and a time-out."""
import ast
import json
import os
import re
import time
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from hwnn.exercises import EXERCISES, check, compare, diagnose, hint
from hwnn.exercises import diagnosis
from hwnn.layers.convolution import Conv2D
from hwnn.layers.windows import windows
from optional import directives

root = Path(__file__).resolve().parent.parent
every = pytest.mark.parametrize("own", EXERCISES.values(), ids=lambda own: own.name)


def page(name): return json.loads((root/f"nbs/{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def headings(name):
    "The anchors of a page's headings."
    text = "\n".join("".join(c["source"]) for c in page(name) if c["cell_type"] == "markdown")
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in re.findall(r"(?m)^#+ (.+)", text)}


def test_how_many():
    mistakes = sum(len(own.wrong) for own in EXERCISES.values())
    assert len(EXERCISES) >= 25 and min(len(own.wrong) for own in EXERCISES.values()) >= 4
    print(len(EXERCISES), "exercises,", mistakes, "mistakes")


@every
def test_form(own):
    assert len(own.hints) == 3 and len(set(own.hints)) == 3
    for sentence in own.wrong: assert re.fullmatch(r".{10,160}\.", sentence), sentence
    for sentence in (None, *own.wrong):
        at, anchor = diagnosis._place(own, sentence)
        assert anchor in headings(at), (sentence, at, anchor)


@lru_cache(maxsize=None)
def definitions(name):
    "What a page defines and imports, without the numbers that it computes."
    space, cells = {}, [("".join(c["source"])) for c in page(name) if c["cell_type"] == "code"]
    for source in cells:
        if {"torch", "numba"} & set(directives(source)) or re.search(r"(?m)^#\| *(eval: *false|fig-alt|code-summary: *\"?Solution)", source): continue
        if re.search(r"(?m)^#\| *code-summary: *\"?Test", source) or re.search(r"(?m)^def .*: \.\.\.", source): continue
        for node in ast.parse(source).body:
            plain = isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda)
            if not plain and not isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)): continue
            try: exec(compile(ast.Module([node], []), name, "exec"), space)
            except Exception:
                if not isinstance(node, ast.Assign): raise
    return space


@every
def test_pages_own_function_passes(own):
    fn = definitions(own.page)[own.name]
    report = diagnose(own.name, fn, seconds=20)
    assert report.status == "passed", report


@every
def test_pages_mark_it(own):
    "Every exercise of its page is here."
    marks = re.findall(r"(?m)^#\| *exercise +(.+)", "\n".join("".join(c["source"]) for c in page(own.page)))
    names = " ".join(marks).split()
    assert names and set(names) <= EXERCISES.keys()


@every
def test_mistakes_are_different(own):
    "No wrong version does what the right one does, or what another wrong one does, on all inputs."
    for seed in (0, 1):
        right, *wrong = (diagnosis._known(own.name, s, seed) for s in (None, *own.wrong))
        assert all(kind == "leaves" for kind, _, _ in right), right
        alike = lambda a, b: all(map(diagnosis._alike, a, b))
        assert not [s for s, known in zip(own.wrong, wrong) if alike(known, right)]
        assert not [(s, t) for (s, a), (t, b) in combinations(zip(own.wrong, wrong), 2) if alike(a, b)]


@every
def test_every_mistake_is_caught_and_named(own, monkeypatch):
    "In this process: none of them is hostile, and a child for each would take most of a minute."
    def here(work, count, seconds):
        told = []
        work(told.append)
        return told, None
    monkeypatch.setattr(diagnosis, "_apart", here)
    monkeypatch.setattr(diagnosis, "library", dict)
    for sentence, fn in own.wrong.items():
        report = diagnose(own.name, fn, seconds=20)
        assert (report.status, report.mistake) == ("failed", sentence), report
        assert report.anchor and sentence.rstrip(".") in report.message


# In other styles: right, whatever they look like.

def affine_loops(A, V, c): return np.einsum("ni,ij->nj", A, V) + c


def affine_backward(g, kept):
    A, V = kept
    return [np.einsum("nj,ij->ni", g, V), np.einsum("ni,nj->ij", A, g), np.ones((1, len(g)), g.dtype) @ g]


def softmax_backward(P, dY):
    return np.array([[sum(P[n, i]*((i == j) - P[n, j])*dY[n, i] for i in range(P.shape[1])) for j in range(P.shape[1])] for n in range(len(P))], P.dtype)


def relu_backward(Y, dY):
    out = np.array(dY)
    out[Y <= 0] = 0
    return out


def from_logits(Y, Z):
    m = Z.max(axis=1)
    return np.mean(m + np.log(np.exp(Z - m[:, None]).sum(axis=1)) - Z[np.arange(len(Z)), Y.argmax(axis=1)])


def conv_loops(X, W, b, stride, pad):
    X = np.pad(X, ((0, 0), *pad, (0, 0)))
    rows, cols = ((X.shape[a] - W.shape[a - 1])//stride[a - 1] + 1 for a in (1, 2))
    Z = np.empty((len(X), rows, cols, W.shape[3]), X.dtype)
    for i in range(rows):
        for j in range(cols):
            part = X[:, i*stride[0]:i*stride[0] + W.shape[0], j*stride[1]:j*stride[1] + W.shape[1]]
            Z[:, i, j] = np.tensordot(part, W, 3) + b
    return Z


def conv_backward(dZ, X, W, stride, pad):
    Xp = np.pad(X, ((0, 0), *pad, (0, 0)))
    dXp, dW = np.zeros_like(Xp), np.zeros_like(W)
    for n, i, j, m in np.ndindex(*dZ.shape):
        at = np.s_[n, i*stride[0]:i*stride[0] + W.shape[0], j*stride[1]:j*stride[1] + W.shape[1]]
        dXp[at] += W[..., m]*dZ[n, i, j, m]
        dW[..., m] += Xp[at]*dZ[n, i, j, m]
    (t, l), (r, q) = (pad[0][0], pad[1][0]), X.shape[1:3]
    return dXp[:, t:t + r, l:l + q], dW, dZ.reshape(-1, dZ.shape[3]).sum(0).reshape(1, -1)


def max_pool_backward(dY, X, Y, k, s):
    dX = np.zeros(X.shape, X.dtype)
    for n, i, j, c in np.ndindex(*Y.shape):
        part = X[n, i*s[0]:i*s[0] + k[0], j*s[1]:j*s[1] + k[1], c]
        places = np.argwhere(part == part.max())
        for u, v in places: dX[n, i*s[0] + u, j*s[1] + v, c] += dY[n, i, j, c]/len(places)
    return dX


def one_line(dY, X_hat, s, gamma):
    B = len(dY)
    J = np.eye(B)[:, :, None] - 1/B - X_hat[:, None]*X_hat[None]/B
    return (np.einsum("nmi,mi->ni", J, gamma*dY)/s).astype(dY.dtype), (dY*X_hat).sum(0, keepdims=True), dY.sum(0, keepdims=True)


def dropout(X, rate, rng):
    keep = 1 - rate
    mask = rng.binomial(1, keep, size=X.shape)/keep
    return mask*X, mask


def adam_steps(gradients, lr, b1, b2, eps, correct=True):
    g = np.array(gradients)
    age = np.arange(len(g))[:, None] - np.arange(len(g))
    m, v = (np.where(age >= 0, b**np.maximum(age, 0), 0)*(1 - b) @ a for b, a in ((b1, g), (b2, g*g)))
    t = np.arange(1, len(g) + 1) if correct else np.full(len(g), np.inf)
    return lr*(m/(1 - b1**t))/(np.sqrt(v/(1 - b2**t)) + eps)


def layernorm_loops(X, gamma, beta, eps):
    Y = np.zeros(X.shape)   # float64 whatever X is: not asked for here
    for n, row in enumerate(X):
        centred = row - row.mean()
        Y[n] = gamma[0]*centred/np.sqrt((centred @ centred)/len(row) + eps) + beta[0]
    return Y


def momentum_step(v, g, lr, momentum):
    v[:] = momentum*v + lr*g
    return np.array(v)


def running(q, alpha, R=None):
    out = []
    for t, x in enumerate(q):
        out += [x if R is None and t == 0 else alpha*(out[-1] if out else R) + (1 - alpha)*x]
    return out


RIGHT = [affine_loops, affine_backward, softmax_backward, relu_backward, from_logits, conv_loops, conv_backward, max_pool_backward, one_line, dropout,
         adam_steps, momentum_step, running, layernorm_loops]


@pytest.mark.parametrize("fn", RIGHT, ids=lambda fn: fn.__name__)
def test_other_styles_pass(fn):
    for seed in (0, 1, 2): assert diagnose(fn.__name__, fn, seed=seed).status == "passed", diagnose(fn.__name__, fn, seed=seed)


# Nobody wrote these down. Caught they have to be.

UNKNOWN = {
    "affine_backward": lambda dZ, ctx: (dZ @ ctx[1].T + 1e-3, ctx[0].T @ dZ, dZ.sum(0, keepdims=True)),
    "sigmoid_backward": lambda Y, dY: dY*np.sin(3*Y + 1),
    "softmax_backward": lambda P, dY: P*(dY - dY.max(axis=-1, keepdims=True)),
    "l2": lambda Y, Y_hat: np.square(Y_hat[0] - Y[0]).mean()/2,
    "log_probabilities": lambda Z: Z - np.abs(Z).sum(axis=1, keepdims=True),
    "conv_loops": lambda X, W, b, stride, pad: conv_loops(X, W, b, stride, pad).round(1),
    "max_pool": lambda X, k, s: windows(X, k, s)[:, :, :, 0, -1],
    "one_line": lambda dY, X_hat, s, gamma: (np.tanh(dY)*X_hat**3 - s, (dY*X_hat).sum(0, keepdims=True), dY.sum(0, keepdims=True)),
    "clip": lambda gradients, c: ([g*min(1, c/7) for g in gradients], np.sqrt(sum((g**2).sum() for g in gradients))),
    "adam_steps": lambda gradients, lr, b1, b2, eps, correct=True: [lr*np.sign(g) for g in gradients],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_mistakes_are_caught(name):
    report = diagnose(name, UNKNOWN[name])
    assert (report.status, report.mistake) == ("failed", None), report
    assert "<td" in report.html and "[" in report.text   # a picture with a frame


def test_two_mistakes_in_two_outputs():
    def wrong(dZ, ctx):
        X, W = ctx
        return dZ @ W.T/len(dZ), X.T @ dZ, dZ.mean(axis=0, keepdims=True)
    report = diagnose("affine_backward", wrong)
    assert "dX is divided by the batch" in report.message and "db is a mean" in report.message and "dW" not in report.message


def test_formulas_are_right_and_their_slips_are_told():
    "The text of a formula passes, and what is one slip away from it is told the place."
    for name in EXERCISES:
        found = diagnosis._formula_of(name)
        if found is None: continue
        space = {**found[1], "__name__": name}
        exec(compile(ast.Module([found[0]], []), name, "exec"), space)
        assert diagnose(name, space[found[0].name], seconds=20).status == "passed", name
        assert len(diagnosis._slips(name, 0)) > 1, name
    def adam_steps(gradients, lr, b1, b2, eps, correct=True):
        m = v = 0
        for t, g in enumerate(gradients, 1):
            m, v = b1*m + (1 - b1)*g, b2*v + (1 - b2)*g*g
            yield lr*(m/(1 - b1**t) if correct else m)/(np.sqrt(v/(1 - b2**t) if correct else v) - eps)
    report = diagnose("adam_steps", lambda *given: list(adam_steps(*given)))
    assert report.mistake == "`math.sqrt(v_hat) - eps` stands where `math.sqrt(v_hat) + eps` is meant.", report


def test_relations_to_what_was_given():
    right = EXERCISES["plain_backward"].reference
    def part(fn): return lambda dY, ctx: (fn(right(dY, ctx)[0], dY, *ctx), *right(dY, ctx)[1:])
    said = {"dX is the right one times the root of ctx[1].": lambda dX, dY, X_hat, s, gamma: dX*np.sqrt(s),
            "The axes of dX are in the wrong order": lambda dX, dY, X_hat, s, gamma: dX.T + 0,
            "dX is the right one times (dY > 0).": lambda dX, dY, X_hat, s, gamma: dX*(dY >= 0),
            "dX is the right one plus dY.": lambda dX, dY, X_hat, s, gamma: dX + dY,
            "dX is tanh(dY).": lambda dX, dY, X_hat, s, gamma: np.tanh(dY)}
    for sentence, fn in said.items():
        report = diagnose("plain_backward", part(fn))
        assert sentence in report.message or "transposed" in report.message, report
    loss = diagnose("from_logits", lambda Y, Z: -(Y*np.log(np.clip(np.exp(Z - Z.max(1, keepdims=True))/np.exp(Z - Z.max(1, keepdims=True)).sum(1, keepdims=True), 1e-9, 1))).sum()/len(Y))
    assert "logarithm of 1e-9" in loss.message
    assert "another order than (Z, " in diagnose("conv2d", lambda X, W, b, stride, pad: ((X, W), X)).message


def test_mistakes_of_any_exercise():
    right = EXERCISES["dX_slices"].reference
    sign = diagnose("dX_slices", lambda *given: -right(*given))
    twice = diagnose("dX_slices", lambda *given: 2*right(*given))
    turned = diagnose("dX_slices", lambda *given: right(*given)[:, ::-1])
    assert [r.mistake for r in (sign, twice, turned)] == ["dX has the wrong sign.", "dX is 2 times what it should be.", "dX is reversed along axis 1."]


# Hostile, or simply not done.

seen = [1]


def endless(X, W, b):
    while True: pass


def floods(X, W, b):
    while True: print("x"*1000)


def floods_below(X, W, b):
    while True: os.write(1, b"x"*1000)


def swallows(X, W, b):
    while True:
        try:
            while True: pass
        except BaseException: pass


def raises(X, W, b): return X @ W + missing   # noqa: F821


def leaves(X, W, b): raise SystemExit(0)


def hard_exit(X, W, b): os._exit(0)


def nothing(X, W, b): X @ W


def in_place(X, W, b):
    Z = X @ W + b
    X *= 0
    return Z


def changes_globals(X, W, b):
    seen.append(2)
    return X @ W + b


def changes_numpy(X, W, b):
    np.matmul = np.add
    return X @ W + b


def changes_library(X, W, b):
    import hwnn.layers.fully_connected as module
    module.affine_map = None
    return X @ W + b


def changes_judge(X, W, b):
    EXERCISES["affine_loops"].wrong.clear()
    diagnosis._same = lambda a, b: True
    return X


def an_object(X, W, b): return {1, 2}


def a_bomb(X, W, b):
    class Bomb:
        def __reduce__(self): return os.system, ("true",)
    return Bomb()


def recursive(X, W, b): return recursive(X, W, b)


def greedy(X, W, b): return np.ones(1 << 40)


def too_many(X, W, b): return X @ W + b, X


def floats(X, W, b): return [[float(z) for z in row] for row in (X @ W + b)[:, :1]]


def threads(X, W, b):
    import threading
    threading.Thread(target=endless, args=(X, W, b)).start()
    return X


HOSTILE = {endless: "does not end", floods: "prints more than", floods_below: "does not end", swallows: "does not end", raises: "NameError in line 1",
           leaves: "SystemExit", hard_exit: "ends the whole process", nothing: "returns None", in_place: "changes its input X", changes_globals: "variables: seen",
           changes_numpy: "changes the library: numpy.matmul", changes_library: "changes the library: hwnn.layers.fully_connected.affine_map",
           an_object: "type set", a_bomb: "type Bomb", recursive: "RecursionError", too_many: "2 values", floats: "shape is (2, 1)", threads: "stands where",
           changes_judge: "diagnosis._same"}


@pytest.mark.parametrize("fn", HOSTILE, ids=lambda fn: fn.__name__)
def test_hostile_functions_get_a_message(fn, capfd):
    start, before = time.monotonic(), (list(seen), np.matmul, len(EXERCISES["affine_loops"].wrong))
    report = diagnose("affine_loops", fn, seconds=1)
    assert report.status == "failed" and HOSTILE[fn] in report.message, report
    assert time.monotonic() - start < 10
    assert (seen, np.matmul, len(EXERCISES["affine_loops"].wrong)) == before and not capfd.readouterr().out


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited on Linux")
def test_memory_is_limited(): assert "MemoryError" in diagnose("affine_loops", greedy).message


THREADED = [endless, floods, raises, leaves, nothing, in_place, changes_globals, changes_library, too_many]


@pytest.mark.parametrize("fn", [fn for fn in THREADED], ids=lambda fn: fn.__name__)
def test_without_fork(fn, monkeypatch):
    "As on Windows. An endless loop goes on in the background, so this one ends when it is told to."
    global seen
    kept, stop = list(seen), []
    monkeypatch.delattr(os, "fork")
    def waits(X, W, b):
        while not stop: time.sleep(0.01)
    report = diagnose("affine_loops", waits if fn is endless else fn, seconds=1)
    stop.append(True)
    seen[:] = kept
    assert report.status == "failed" and HOSTILE[fn] in report.message, report
    assert diagnose("affine_loops", affine_loops).status == "passed"


def not_yet(X, W, b): ...
def with_docstring(X, W, b):
    "What it will do."
def says_so(X, W, b): raise NotImplementedError
def one_line_missing(X, W, b):
    Z = ...
    return Z + b
def two_missing(X, W, b):
    Z, c = ..., ...
    return Z + c
def dots_returned(X, W, b): return ...


@pytest.mark.parametrize("fn", [not_yet, with_docstring, says_so, one_line_missing, two_missing, dots_returned], ids=lambda fn: fn.__name__)
def test_untouched(fn): assert diagnose("affine_loops", fn).status == "untouched"


def test_dots_in_an_index_are_no_dots_to_fill():
    def affine_loops(X, W, b):
        Z = np.zeros((len(X), W.shape[1]), X.dtype)
        Z[...] = (X[..., None]*W).sum(axis=1) + b
        return Z
    assert check(affine_loops).status == "passed"


def test_the_librarys_own_is_refused():
    from hwnn.layers.fully_connected import affine_backward
    assert "library's own" in check(affine_backward).message


def test_wrong_dtype_and_shape_say_so():
    def affine_loops(X, W, b): return (X @ W + b + 0.5).astype(np.float64)
    def max_pool(X, k, s): return np.zeros((1, 1))
    assert "not right" in check(affine_loops).message and "shape (1, 1)" in check(max_pool).message
    def softmax(Z):
        P = np.zeros(Z.shape)
        for n in np.ndindex(Z.shape[:-1]): P[n] = np.exp(Z[n] - Z[n].max())/np.exp(Z[n] - Z[n].max()).sum()
        return P
    assert "float64 for inputs in float32" in check(softmax).message
    def tanh_backward(Y, dY): return (dY*(1 - Y**2)).astype(np.float32)
    assert "float32 for inputs in float64" in check(tanh_backward).message


def test_check_and_hint():
    assert check(affine_loops) and not check(raises_as := not_named("sigmoid_backward"))
    assert len(check(affine_loops, raises_as)) == 2
    first = hint("dropout_backward")
    assert str(first).startswith("Hint 1 of 3") and str(hint("dropout_backward")).startswith("Hint 2")
    with pytest.raises(ValueError, match="did you mean 'conv2d_backward'"): hint("conv2d_backwards")


def not_named(name):
    def fn(*given): return given[0]
    fn.__name__ = name
    return fn


class Turned(Conv2D):
    def backward(self, dLdY, **more):
        return super().backward(dLdY, **more)[:, ::-1].copy()


class Divides(Conv2D):
    "Right only where the stride divides."
    def forward(self, X, mode="train"):
        Y = super().forward(X, mode)
        rest = (X.shape[1] - self.kernel_shape[0]) % self.stride[0]
        return Y + 1 if rest else Y


def test_compare_finds_the_smallest_case():
    found = compare(Divides, Conv2D, p_h=0, p_w=0)
    assert not found and (found.case["s_h"], found.case["rows"], found.case["k_h"], found.case["batch"]) == (2, 2, 1, 1), found
    assert compare(Conv2D, Conv2D, cases=30) and "same on" in repr(compare(Conv2D, Conv2D, cases=30))
    assert "input's gradient" in repr(compare(Turned, Conv2D))
    assert compare(Conv2D(2, 3, "relu"), Conv2D(2, 3, "relu"), cases=10)


def test_compare_takes_makers_of_layers():
    assert compare(lambda stride: Conv2D(2, 2, "linear", stride, 0), lambda stride: Conv2D(2, 2, "linear", stride, 0), cases=20)
    with pytest.raises(ValueError, match="named as in CS231n"): compare(affine_loops)
    with pytest.raises(ValueError, match="to be one of"): compare(Conv2D, Conv2D, stride=2)


def test_compare_functions_of_cs231n():
    import hwnn.cs231n as course
    for name in ("affine_forward", "affine_backward", "relu_backward", "conv_forward_naive", "conv_backward_naive", "max_pool_forward_naive",
                 "max_pool_backward_naive", "batchnorm_forward", "batchnorm_backward", "layernorm_forward", "layernorm_backward", "softmax_loss", "svm_loss"):
        assert compare(getattr(course, name), cases=15), (name, compare(getattr(course, name), cases=15))
    def conv_backward_naive(dout, cache):
        dx, dw, db = course.conv_backward_naive(dout, cache)
        return dx, dw, db/len(dout)
    found = compare(conv_backward_naive)
    assert not found and found.case["batch"] == 2 and "db differs" in repr(found)
    def relu_backward(dout, x): return dout*(x > 0).astype(np.float64)
    assert compare(relu_backward).case["single"] == 1


def test_without_threads(monkeypatch):
    "As in WebAssembly: the calls are made, without a deadline."
    import threading
    def start(self): raise RuntimeError("can't start new thread")
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(threading.Thread, "start", start)
    assert diagnose("affine_loops", affine_loops) and not diagnose("affine_loops", lambda X, W, b: X @ W)
