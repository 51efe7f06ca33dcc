"""Large arrays, which go through threads and blocks: the same as in one thread, and the same as PyTorch."""
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from threading import Event, Thread, current_thread, main_thread

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from hwnn.all import *
from hwnn.layers.convolution import conv2d, conv2d_backward
from hwnn.engine.threads import _blas, busy, one_blas_thread, parallel

NINE = [(28, 1, 32, 3, 1, 1), (28, 1, 6, 5, 2, 1), (14, 32, 64, 3, 1, 1), (32, 3, 32, 3, 1, 1), (16, 64, 128, 3, 1, 1), (32, 16, 16, 3, 1, 1), (8, 128, 128, 3, 1, 1),
        (32, 64, 64, 3, 1, 2), (28, 64, 64, 1, 0, 1)]   # image side, channels in and out, kernel, padding, stride: those of the benchmark


@pytest.fixture
def threads():
    before = get_threads()
    yield set_threads
    set_threads(before)


@pytest.mark.parametrize("side,channels,n_out,k,pad,stride", NINE)
def test_convolution_as_in_pytorch(side, channels, n_out, k, pad, stride, threads, torch):
    threads(2)
    rng = np.random.default_rng(0)
    X, W, b = rng.normal(size=(9, side, side, channels)), rng.normal(size=(k, k, channels, n_out)), rng.normal(size=(1, n_out))
    Z, ctx = conv2d(X, W, b, stride, pad)
    dZ = rng.normal(size=Z.shape)
    leaves = [torch.tensor(A, requires_grad=True) for A in (X.transpose(0, 3, 1, 2), W.transpose(3, 2, 0, 1), b[0])]
    theirs = torch.nn.functional.conv2d(*leaves, stride=stride, padding=pad)
    theirs.backward(torch.tensor(dZ.transpose(0, 3, 1, 2)))
    X_t, W_t, b_t = (leaf.grad.numpy() for leaf in leaves)
    pairs = [(Z, theirs.detach().numpy().transpose(0, 2, 3, 1)), *zip(conv2d_backward(dZ, ctx), (X_t.transpose(0, 2, 3, 1), W_t.transpose(2, 3, 1, 0), b_t[None]))]
    for ours, expected in pairs: assert np.abs(ours - expected).max() < 1e-10*np.abs(expected).max()


@pytest.mark.parametrize("layer", [lambda: Conv2D(16, 3, "relu"), lambda: Conv2D(8, 4, "tanh", stride=3), lambda: BatchNorm1D(), lambda: LayerNorm(), lambda: Pool2D(2, stride=2),
                                   lambda: Pool2D(3, "average", 2, 1)], ids=["conv", "strided conv", "batch norm", "layer norm", "max pool", "average pool"])
def test_threads_change_nothing(layer, threads):
    rng, results = np.random.default_rng(0), []
    X = rng.normal(size=(37, 40, 40, 40))
    for n in (1, 2, 3):
        threads(n)
        one = layer()
        Y = one.forward(X)
        results.append([Y, one.backward(np.cos(Y)), *one.gradients.values()])
    for other in results[1:]:
        for a, b in zip(results[0], other): np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "softmax", "gelu", "linear"])
def test_activations_in_blocks(activation, threads):
    threads(2)
    Z, dY = np.random.default_rng(0).normal(size=(2, 300, 1000))
    f = initialize_activation(activation)
    for ours, plain in ((f(Z), f._forward(Z)), (f.backward(Z, dY), f._backward(Z, dY))): np.testing.assert_array_equal(ours, plain)


def child(queue):
    parallel(lambda i, j: None, 4, 2**20)
    queue.put(get_threads())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(threads):
    threads(2)
    child(queue := multiprocessing.get_context("fork").SimpleQueue())
    process = multiprocessing.get_context("fork").Process(target=child, args=(queue,))
    process.start()
    process.join(20)
    assert process.exitcode == 0 and [queue.get(), queue.get()] == [2, 2]


def test_blas_gets_its_threads_back_after_an_error(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError), one_blas_thread(): 1/0
    with pytest.raises(ZeroDivisionError): parallel(lambda i, j: 1/0, 4, 2**20)
    assert get_threads() == 2
    assert parallel(lambda i, j: j - i, 4, 2**20) == [2, 2]


def blas_threads():
    "What the BLAS libraries use that were there when ours were looked up: SciPy may have brought its own since."
    known = {library.filepath for library in _blas().lib_controllers}
    return {library["num_threads"] for library in threadpool_info() if library["filepath"] in known}


def in_thread(fn):
    thread = Thread(target=fn)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_any_thread_may_set_the_number(threads):
    threads(2)
    in_thread(lambda: threads(1))
    assert get_threads() == 1 and blas_threads() <= {1}
    threads(2)
    assert blas_threads() <= {2}


def test_contexts_that_overlap_end_in_any_order(threads):
    threads(2)
    entered, leave, left = Event(), Event(), Event()

    def first():
        with one_blas_thread():
            entered.set()
            leave.wait(20)
        left.set()

    thread = Thread(target=first)
    thread.start()
    assert entered.wait(20)
    with one_blas_thread():
        leave.set()
        assert left.wait(20)
        inside = blas_threads()
    thread.join(20)
    assert inside <= {1} and blas_threads() <= {2}


def test_blas_gets_its_threads_back_after_an_interrupt(threads, monkeypatch):
    threads(2)

    def interrupted(counts): raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), one_blas_thread(): patch.setattr("hwnn.engine.threads._tell_blas", interrupted)
    assert blas_threads() <= {1}
    with one_blas_thread(): pass
    assert blas_threads() <= {2}


def test_sums_do_not_depend_on_who_else_trains(threads):
    threads(2)
    rng = np.random.default_rng(0)
    X, W, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((16, 28, 28, 16), (3, 3, 16, 16), (1, 16)))
    def gradients():
        Z, ctx = conv2d(X, W, b, 1, 1)
        return Z, *conv2d_backward(Z, ctx)
    alone, beside = gradients(), []
    with busy: in_thread(lambda: beside.extend(gradients()))
    for a, b in zip(alone, beside): np.testing.assert_array_equal(a, b)


def test_the_number_of_threads_is_known_inside_a_part(monkeypatch, threads):
    threads(2)
    monkeypatch.setattr("hwnn.engine.threads._chosen", None)   # as before set_threads: what BLAS uses, which is 1 inside
    assert parallel(lambda i, j: get_threads(), 4, 2**20) == [2, 2]
    with one_blas_thread(): set_threads(3)
    assert get_threads() == 3 and blas_threads() <= {3}


def test_an_interrupt_waits_for_parts_that_have_begun(threads):
    threads(2)
    begun, done = Event(), []
    def part(i, j):
        if current_thread() is main_thread():
            begun.wait(20)
            signal.raise_signal(signal.SIGINT)
            time.sleep(20)   # it is interrupted
        begun.set()
        time.sleep(0.4)
        done.append(j - i)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)   # a process in the background ignores interrupts
    try:
        with pytest.raises(KeyboardInterrupt): parallel(part, 4, 2**20)
    finally: signal.signal(signal.SIGINT, before)
    assert done == [2] and not busy.locked() and blas_threads() <= {2}


def test_a_context_that_is_never_left_counts_for_nothing(threads):
    threads(2)
    context = one_blas_thread()
    context.__enter__()   # an interrupt before the body begins: nobody calls __exit__
    del context
    with one_blas_thread(): pass
    assert blas_threads() <= {2}


TRAINED = """
import threading, warnings
warnings.simplefilter("error")
{first}
from hwnn.all import *
from hwnn.datasets import Data
import numpy as np
set_threads(4)
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(64, 20, 20, 8)).astype(np.float32), one_hot(rng.integers(0, 3, 64), 3)
net = NeuralNetwork([Conv2D(16, 3, "relu"), BatchNorm1D(), Pool2D(2, stride=2), Flatten(), FullyConnected(3, "softmax")], seed=0)
net.train(Dataset(X, Y, batch_size=32), epochs=2)
print(net.history.train_loss, threading.active_count(), sum(float(a.sum()) for layer in net.layers for a in layer.parameters.values()))
"""
NO_THREADS = """
def start(self): raise RuntimeError("can't start new thread")
threading.Thread.start = start
"""


def trained(first):
    run = subprocess.run([sys.executable, "-c", TRAINED.format(first=first)], capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr
    losses, threads, total = run.stdout.rsplit(maxsplit=2)
    return losses, int(threads), total


def test_where_no_thread_can_be_started_one_does_all():
    "Silently, and in the same parts, so with the same bits."
    losses, threads, total = trained("")
    alone, only, same = trained(NO_THREADS)
    assert threads > 1 and only == 1 and alone == losses and same == total


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind a process to a core")
def test_one_core():
    losses, *_ = trained("import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})")
    assert losses == trained("")[0]
