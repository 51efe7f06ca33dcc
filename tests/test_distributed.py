"Ranks that train together: the parameters of one process, whatever the number of ranks; and what happens when one of them is late, lost or wrong."
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from optional import mpiexec

import hwnn.distributed
from hwnn.all import *
from hwnn.distributed import Shared, Team, in_threads
from hwnn.layers.batchnorm import batchnorm_train, batchnorm_train_backward

root = Path(__file__).resolve().parent.parent
# Everything that has to be told to the other ranks: batch norm of rows and of images, dropout, clipping, momentum, weights, a last batch of 17.
SCRIPT = """
import os, signal, sys, time
import numpy as np
from hwnn.all import *
from hwnn.distributed import world
use_fast(False)
def make(seed=3, **optimizer):
    layers = [Conv2D(3, 3, "relu"), BatchNorm1D(), Dropout(0.1), Pool2D(2, stride=2), Flatten(), FullyConnected(12, "tanh"), BatchNorm1D(), Dropout(0.3),
              FullyConnected(10, "softmax")]
    return NeuralNetwork(layers, dict(name="cross_entropy", class_weights=[1, 2]*5), dict(name="SGD", lr=0.1, momentum=0.9, clip_norm=0.5) | optimizer, seed=seed)
def data(n=417, batch_size=25, **more):
    d = digits(images=True)
    wide = [A.astype(np.float64) for A in (d.train.X[:n], d.train.Y[:n], d.validate.X, d.validate.Y)]
    return Dataset(wide[0], wide[1], batch_size, wide[2], wide[3], training_weights=np.linspace(0, 2, n)**2, **more)
def arrays(net): return [A for layer in net.layers for d in (layer.parameters, layer.state) for A in d.values()]
def run(comm=None, epochs=6, **kwargs):
    net = make()
    net.train(data(), epochs, comm=comm, bar=False, **kwargs)
    return net
def late(net, row):
    comm, what = world(), sys.argv[1]
    if what == "killed" and row["epoch"] == 3 and comm.Get_rank() == 1: os.kill(os.getpid(), signal.SIGKILL)
    if what == "alone" and row["epoch"] == 3 and comm.Get_rank() == 1: raise ValueError("one rank has lost its file")
    if what == "slow" and comm.Get_rank() == 1: time.sleep(0.3)
    if what == "signal": time.sleep(0.5)
if __name__ == "__main__":
    net = run(world(), callbacks=[late], checkpoint=sys.argv[2], resume=True)
    np.savez(f"{sys.argv[2]}/rank{world().Get_rank()}.npz", *arrays(net))
"""


def arrays(net): return [A for layer in net.layers for d in (layer.parameters, layer.state) for A in d.values()]


def close(net, whole, atol=1e-12):
    for a, b in zip(arrays(net), arrays(whole), strict=True): np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    for name, column in whole.history.columns.items(): np.testing.assert_allclose(net.history.columns[name], column, rtol=0, atol=atol)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_as_one_process(ranks, training, whole):
    assert len(whole.history)*data_steps(training) >= 100
    nets = in_threads(ranks, training["run"])
    for net in nets:
        close(net, whole)
        assert all(np.array_equal(a, b) for a, b in zip(arrays(net), arrays(nets[0])))


def data_steps(training): return training["data"]().train.samples_per_epoch


@pytest.mark.parametrize("optimizer", [dict(name="adam", lr=0.01), dict(name="SGD", lr=0.05, lr_scheduler=dict(name="plateau", lr=0.05, patience=1))], ids=["adam", "plateau"])
def test_optimizers_patience_and_norms(optimizer, training):
    def run(comm=None):
        net = training["make"](**{"momentum": 0.0} | optimizer) if optimizer["name"] == "SGD" else NeuralNetwork(training["make"]().layers, optimizer=optimizer, seed=3)
        net.train(training["data"](), 6, patience=2, norms=True, comm=comm, bar=False)
        return net
    # 1e-9: Adam divides by the root of a mean of squares, which may be as small as rounding errors
    close(in_threads(3, run)[2], run(), 1e-9)


@pytest.mark.parametrize("bucket", [1, 500, 10**9])
def test_buckets_change_nothing(bucket, training, whole, monkeypatch):
    monkeypatch.setattr(hwnn.distributed, "BUCKET", bucket)
    close(in_threads(2, training["run"])[0], whole)


def test_float32_stays(training):
    def run(comm=None):
        net = NeuralNetwork(training["make"]().layers, optimizer=dict(name="SGD", lr=0.01), seed=3)
        net.train(digits(images=True, batch_size=300), 2, comm=comm, bar=False)
        return net
    two, one = in_threads(2, run)[0], run()
    assert {A.dtype for A in arrays(two)} == {np.dtype(np.float32)}
    close(two, one, 1e-4)


@pytest.mark.parametrize("sizes", [(4, 4), (1, 7), (3, 2, 3), (1, 1, 5, 1)])
def test_shared_batch_norm_as_in_pytorch(sizes, torch):
    rng, ends = np.random.default_rng(0), np.cumsum(sizes)[:-1]
    X, dY, gamma, beta = rng.normal(3, 2, (8, 3, 3, 2)), rng.normal(size=(8, 3, 3, 2)), rng.normal(size=(1, 2)), rng.normal(size=(1, 2))
    def run(comm):
        rank = comm.Get_rank()
        shared = Shared(Team(comm).total)
        Y, ctx = batchnorm_train(np.split(X, ends)[rank], gamma, beta, 1e-5, shared)
        return Y, *batchnorm_train_backward(np.split(dY, ends)[rank], ctx)
    Y, dX, dgamma, dbeta = zip(*in_threads(len(sizes), run))
    leaves = [torch.tensor(A, requires_grad=True) for A in (X.transpose(0, 3, 1, 2), gamma[0], beta[0])]
    theirs = torch.nn.functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], True, eps=1e-5)
    theirs.backward(torch.tensor(dY.transpose(0, 3, 1, 2)))
    channels_last = lambda A: A.numpy().transpose(0, 2, 3, 1)
    for ours, expected in ((np.concatenate(Y), channels_last(theirs.detach())), (np.concatenate(dX), channels_last(leaves[0].grad)),
                           (sum(dgamma)[0], leaves[1].grad.numpy()), (sum(dbeta)[0], leaves[2].grad.numpy())):
        np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-11)


def test_shared_statistics_far_from_zero():
    A = np.random.default_rng(0).normal(1e7, 1, (90, 2))
    def run(comm): return Shared(Team(comm).total).statistics(A[30*comm.Get_rank():][:30])
    for mean, var in in_threads(3, run):
        np.testing.assert_allclose(mean[0], A.mean(axis=0), rtol=1e-15)
        np.testing.assert_allclose(var[0], A.var(axis=0), rtol=1e-9)


def test_other_numbers_of_ranks_go_on(training, whole, tmp_path):
    def stop(net, row):
        if row["epoch"] == 4: raise RuntimeError("stop")
    folder = tmp_path/"run"
    with pytest.raises(RuntimeError, match="stop"): in_threads(3, lambda comm: training["run"](comm, callbacks=[stop], checkpoint=folder, every=5))
    with pytest.raises(FileExistsError): in_threads(2, lambda comm: training["run"](comm, checkpoint=folder))
    for comm in (lambda fn: in_threads(2, fn)[1], lambda fn: fn(None)):   # the second time it has come to its end
        close(comm(lambda c: training["run"](c, checkpoint=folder, resume=True)), whole)


def test_a_started_network_is_that_of_rank_0(training):
    def run(comm):
        net = training["make"](seed=comm.Get_rank())
        net.train(training["data"](), 1, bar=False)
        net.train(training["data"](), 1, comm=comm, bar=False)
        return net
    one = training["make"](seed=0)
    for _ in range(2): one.train(training["data"](), 1, bar=False)
    for net in in_threads(2, run): close_arrays(net, one)


def close_arrays(net, one):
    for a, b in zip(arrays(net), arrays(one), strict=True): np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_a_new_network_draws_as_rank_0(training, whole):
    def run(comm):
        net = training["make"](seed=3 + comm.Get_rank())
        net.train(training["data"](), 6, comm=comm, bar=False)
        return net
    for net in in_threads(2, run): close(net, whole)


def refused(run, match, kind=ValueError, ranks=2):
    "All ranks raise it."
    def each(comm):
        with pytest.raises(kind, match=match): run(comm)
        return True
    assert in_threads(ranks, each) == [True]*ranks


def test_different_data_are_refused(training):
    train = lambda comm, d, **more: training["make"]().train(d, 2, comm=comm, bar=False, **more)
    refused(lambda comm: train(comm, training["data"](417 - comm.Get_rank())), r"expected the training data of rank 0, Data\(417 .* on all ranks, got Data\(416 .* on rank 1")
    refused(lambda comm: train(comm, training["data"](), patience=1 + comm.Get_rank()), "expected the patience of rank 0, 1, on all ranks, got 2 on rank 1")
    refused(lambda comm: train(comm, training["data"](402)), "expected at least 3 examples in each batch, one for each rank, got 2 in one; choose another batch_size, or drop_last=True", ranks=3)
    in_threads(3, lambda comm: train(comm, training["data"](402, drop_last=True)))


def test_not_a_number_on_one_rank_ends_all_at_one_step(training):
    "From an augmentation, which no check of the data sees."
    def run(comm):
        steps = []
        def spoil(X, rng):
            steps.append(1)
            return X*np.nan if comm.Get_rank() == 1 and len(steps) == 25 else X
        net = training["make"]()
        with pytest.raises(FloatingPointError, match="got nan at epoch 2, step 8; the parameters are those at the end of epoch 1"):
            net.train(training["data"](augment=spoil), 3, comm=comm, bar=False)
        return net
    nets = in_threads(3, run)
    assert all(np.isfinite(A).all() for A in arrays(nets[0]))
    for net in nets[1:]: close(net, nets[0], 0)


def test_one_that_fails_alone_ends_the_others(training, monkeypatch, capfd):
    monkeypatch.setattr(hwnn.distributed, "GRACE", 0.2)
    def run(comm):
        def fail(net, row):
            if comm.Get_rank() == 1: raise KeyError("lost")
        kind, match = (KeyError, "lost") if comm.Get_rank() == 1 else (RuntimeError, "another rank has failed")
        with pytest.raises(kind, match=match): training["run"](comm, callbacks=[fail])
        return True
    assert in_threads(3, run) == [True]*3


def test_callbacks_everywhere_but_rank_0_decides(training):
    def run(comm):
        rows = []
        def watch(net, row):
            rows.append(row["epoch"])
            return row["epoch"] == (2 if comm.Get_rank() == 0 else 1)
        training["run"](comm, callbacks=[watch])
        return rows
    assert in_threads(2, run) == [[1, 2], [1, 2]]


def test_rank_0_alone_logs(training, tmp_path):
    def run(comm):
        net = training["make"]()
        net.logger = Logger("ranks", {}, {}, save=True, save_dir=tmp_path/str(comm.Get_rank()))
        net.train(training["data"](), 2, comm=comm, bar=False)
        return (net.logger.run_dir/"history.json").exists()
    assert in_threads(2, run) == [True, False]


def test_augmentation_differs_between_ranks_and_steps(training):
    def run(comm):
        drawn = []
        def noise(X, rng):
            drawn.append(rng.random())
            return X
        training["make"]().train(training["data"](augment=noise), 1, comm=comm, bar=False)
        return drawn
    both = np.concatenate(in_threads(2, run))
    assert len(set(both)) == len(both) == 34


def test_the_network_is_left_as_an_ordinary_one(training):
    threads = get_threads()
    def run(comm):
        net = training["make"]()
        rngs = [layer.rng for layer in net.layers]
        net.train(training["data"](), 1, comm=comm, bar=False)
        assert all(layer.rng is rng for layer, rng in zip(net.layers, rngs)) and not any(getattr(layer, "shared", None) for layer in net.layers)
        net.train(training["data"](), 1, bar=False)   # alone again, while the other may be done
        return net
    in_threads(2, run)
    assert get_threads() == threads


def test_one_thread_each_unless_asked(training, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"): monkeypatch.delenv(name, raising=False)
    def run(comm):
        seen = []
        training["run"](comm, 1, callbacks=[lambda net, row: seen.append(get_threads())])
        return seen[0]
    before = get_threads()
    assert in_threads(2, run)[0] == 1
    set_threads(2)
    assert in_threads(2, run) == [2, 2]
    set_threads(before)


def test_missing_mpi4py_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"pip install 'hwnn\[mpi\]' brings it"): hwnn.distributed.world()
    from hwnn.train import main
    with pytest.raises(SystemExit) as e: main(["--distributed", "--dataset", "iris"])
    assert e.value.code == 2


# With real processes.
def ranks(n, script, *args, **kwargs):
    env = {**os.environ, "PYTHONPATH": str(root), "IN_TEST": "1"}
    return subprocess.Popen([mpiexec(), "-n", str(n), sys.executable, script, *map(str, args)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)


def ended(job, status, seconds=60):
    out = job.communicate(timeout=seconds)[0]
    assert job.returncode == status, out
    return out


@pytest.fixture
def script(tmp_path):
    path = tmp_path/"training.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def compare(folder, n, whole):
    for rank in range(n):
        with np.load(folder/f"rank{rank}.npz") as found:
            for a, b in zip(found.values(), arrays(whole), strict=True): np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.needs("mpi")
@pytest.mark.parametrize("n,what", [(1, ""), (2, ""), (2, "slow"), (3, ""), (4, "")])
def test_processes_as_one(n, what, script, whole, tmp_path):
    ended(ranks(n, script, what, tmp_path/"run"), 0, 120)
    compare(tmp_path/"run", n, whole)


@pytest.mark.needs("mpi")
@pytest.mark.parametrize("what,status,said", [("killed", 9, r"PID \d+ RUNNING AT|Killed"), ("alone", 1, "hwnn: rank 1 of 2 failed alone and ends the job: one rank has lost its file")])
def test_a_lost_rank_ends_the_job_and_others_go_on(what, status, said, script, whole, tmp_path):
    out = ended(ranks(2, script, what, tmp_path/"run"), status, 30)
    assert re.search(said, out), out
    assert list((tmp_path/"run").glob("checkpoint-*.safetensors")) and not list((tmp_path/"run").glob("rank*"))
    ended(ranks(3, script, "", tmp_path/"run"), 0)
    compare(tmp_path/"run", 3, whole)


@pytest.mark.needs("mpi")
def test_a_signal_ends_all_after_the_step(script, whole, tmp_path):
    job = ranks(2, script, "signal", tmp_path/"run")
    while job.poll() is None and not list((tmp_path/"run").glob("*.safetensors")): time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    out = ended(job, 143, 30)
    assert out.count("resume=True) goes on") == 1, out
    ended(ranks(2, script, "", tmp_path/"run"), 0)
    compare(tmp_path/"run", 2, whole)


@pytest.mark.needs("mpi")
def test_command(tmp_path):
    code = tmp_path/"command.py"
    code.write_text("from hwnn.train import main\nmain()\n")
    args = "--distributed", "--dataset", "iris", "--epochs", "2", "--checkpoint", tmp_path/"run", "--out", tmp_path/"runs"
    out = ended(ranks(2, code, *args), 0)
    assert out.count("test accuracy") == out.count("run folder") == 1 and len(list((tmp_path/"runs").iterdir())) == 1
    out = ended(ranks(2, code, *args), 2)
    assert out.count("expected a folder without checkpoints, or resume=True to go on") == 1
