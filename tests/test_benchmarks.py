"""The benchmark: its file is complete, the textbook code is right, and the table can be printed."""
import json
import sys
from pathlib import Path
from statistics import geometric_mean, median

import numpy as np
import pytest
from hwnn.layers.batchnorm import batchnorm_train, batchnorm_train_backward
from hwnn.layers.convolution import conv2d, conv2d_backward
from hwnn.layers.pooling import average_pool2d, average_pool2d_backward, max_pool2d, max_pool2d_backward

folder = Path(__file__).resolve().parent.parent/"benchmarks"
sys.path.insert(0, str(folder))
import textbook
import timing

results = json.loads((folder/"results.json").read_text(encoding="utf-8"))
ids = [f"{r['group']}, {r['case']}, {r['against']}" for r in results["cases"]]


def test_results_have_every_case():
    counts = {}
    for r in results["cases"]: counts[r["group"]] = counts.get(r["group"], 0) + 1
    assert counts == {"convolution": 9, "pooling": 6, "batch norm": 3, "dense": 3, "optimizer": 5, "training step": 3, "scikit-learn": 1,
                      "import": 3, "peak memory": 1, "scaling": 5, "threads": 1}
    assert len(set(ids)) == len(ids)
    assert set(results["machine"]) == {"cpu", "cores", "os"}
    assert set(results["versions"]) == {"python", "numpy", "blas", "torch", "scikit-learn", "numba", "hwnn"}
    assert results["date"] and results["threads"] >= 1


@pytest.mark.parametrize("r", results["cases"], ids=ids)
def test_medians_recompute(r):
    samples = r["samples"]
    assert r["median"] == {who: median(values) for who, values in samples.items()}
    assert r["median"][r["against"]] == min(m for who, m in r["median"].items() if who not in ("hwnn", "hwnn fast", "textbook") and not who.endswith(", fast"))
    fast_against = f"{r['against']}, fast" if f"{r['against']}, fast" in samples else r["against"]
    for mode, who, against in (("", "hwnn", r["against"]), ("fast_", "hwnn fast", fast_against)):
        for what, other, turned in ((f"{mode}ratio", against, False), (f"{mode}speedup", "textbook", True)):
            assert (r[what] is None) == (who not in samples or other not in samples)
            if r[what] is None: continue
            assert len(samples[who]) == len(samples[other]), "samples are paired"
            ratios = np.array(samples[who])/samples[other]
            assert np.isclose(r[what], np.median(1/ratios) if turned else np.median(ratios)/r["work"], rtol=1e-12)


@pytest.mark.parametrize("name", ["results", "results_epyc"])   # the page shows the goals of both
def test_goals_recompute(name):
    results = json.loads((folder/f"{name}.json").read_text(encoding="utf-8"))
    assert results["goals"] == timing.goals(results["cases"])
    assert len(results["goals"]) == 2*12 + 1
    for who, field, goal in (("hwnn", "ratio", 1.5), ("hwnn fast", "fast_ratio", 0.6)):
        convolutions = [r[field] for r in results["cases"] if r["group"] == "convolution"]
        said = next(g for g in results["goals"] if (g["who"], g["what"]) == (who, "convolution, geometric mean"))
        assert said["reached"] == f"{geometric_mean(convolutions):.2f}" and said["met"] == (geometric_mean(convolutions) <= goal)


def close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rows, cols, k, stride, pad", [(6, 5, 3, 1, 1), (7, 6, 3, 2, 1), (8, 8, 3, 3, 0), (6, 7, 1, 1, 0), (5, 6, 2, 2, 3), (9, 8, 5, 2, 2)])
def test_textbook_convolution(rows, cols, k, stride, pad):
    rng = np.random.default_rng(0)
    X, W, b = rng.normal(size=(2, rows, cols, 3)), rng.normal(size=(k, k, 3, 4)), rng.normal(size=(1, 4))
    Z, ctx = conv2d(X, W, b, stride, pad)
    dZ = rng.normal(size=Z.shape)
    slow, slow_ctx = textbook.conv2d(X, W, b, stride, pad)
    close((slow, *textbook.conv2d_backward(dZ, slow_ctx)), (Z, *conv2d_backward(dZ, ctx)))


@pytest.mark.parametrize("rows, cols, k, stride", [(6, 8, 2, 2), (7, 6, 3, 2), (7, 8, 2, 3), (5, 5, 3, 1)])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_textbook_pooling(kind, rows, cols, k, stride):
    rng = np.random.default_rng(0)
    forward, backward = (max_pool2d, max_pool2d_backward) if kind == "max" else (average_pool2d, average_pool2d_backward)
    X = rng.normal(size=(2, rows, cols, 3))
    Y, ctx = forward(X, k, stride)
    dY = rng.normal(size=Y.shape)
    slow, slow_ctx = getattr(textbook, f"{kind}_pool2d")(X, k, stride)
    close((slow, getattr(textbook, f"{kind}_pool2d_backward")(dY, slow_ctx)), (Y, backward(dY, ctx)))


@pytest.mark.parametrize("shape", [(8, 5), (3, 4, 5, 2)])
def test_textbook_batchnorm(shape):
    rng = np.random.default_rng(0)
    X, dY, gamma, beta = rng.normal(1, 2, shape), rng.normal(size=shape), rng.normal(size=(1, shape[-1])), rng.normal(size=(1, shape[-1]))
    Y, ctx = batchnorm_train(X, gamma, beta, 1e-5)
    slow, slow_ctx = textbook.batchnorm(X, gamma, beta, 1e-5)
    close((slow, *textbook.batchnorm_backward(dY, slow_ctx)), (Y, *batchnorm_train_backward(dY, ctx)))


def test_table_of_a_tiny_case(monkeypatch):
    for name in ("SAMPLE", "WARM", "PAUSE"): monkeypatch.setattr(timing, name, 1e-4)
    calls = []
    fns = {who: lambda who=who: calls.append(who) for who in ("hwnn", "PyTorch contiguous", "textbook")}
    samples = timing.measure(fns, at_least=2, at_most=2)
    assert set(calls) == set(fns) and {len(values) for values in samples.values()} == {2}
    r = timing.record("convolution", "tiny", samples, goal=2.5)
    assert len(timing.line(r)) <= len(timing.HEAD) and "tiny" in timing.line(r) and "PyTorch contiguous" in timing.line(r)
    assert timing.mean_line("convolution", timing.group_means([r])["convolution"]).split()[-1] == f"{r['speedup']:.1f}"


def test_a_record_takes_the_better_yardstick_and_pairs_samples():
    r = timing.record("convolution", "made up", {"hwnn": [2, 4, 9], "PyTorch contiguous": [9, 9, 9], "PyTorch channels_last": [1, 1, 3], "textbook": [20, 20, 90]})
    assert (r["against"], r["ratio"], r["speedup"]) == ("PyTorch channels_last", 3, 10)
    assert [g["met"] for g in timing.goals([r])] == [False, False, False]
    assert timing.record("scaling", "twice", {"hwnn": [4, 4], "half": [2, 2]}, work=2)["ratio"] == 1
