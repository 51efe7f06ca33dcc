"A training that is killed goes on to the same bits; what is torn, full, locked or of another training is told, and nothing is lost."
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import hwnn.checkpoints
from hwnn.all import *
from hwnn.checkpoints import Checkpoints, pack, unpack

root = Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("HWNN_KILLS", 4))   # HWNN_KILLS=100 for the long form
# A training with everything that has a state: dropout, running statistics, Adam, a plateau, weights, augmentation, norms, patience.
SCRIPT = """
import sys, numpy as np
from hwnn.all import *
use_fast(False)   # as in the other tests
def noise(X, rng): return X + rng.normal(scale=0.05, size=X.shape).astype(X.dtype)
def make():
    plateau = dict(name="plateau", lr=0.02, factor=0.5, patience=2)
    return NeuralNetwork([FullyConnected(12, "relu"), Dropout(0.2), BatchNorm1D(), FullyConnected(3, "softmax")],
                         optimizer=dict(name="adam", lr=0.02, lr_scheduler=plateau), seed=5)
def data():
    d = iris(batch_size=7)
    return Dataset(d.train.X, d.train.Y, 7, d.validate.X, d.validate.Y, augment=noise, training_weights=np.linspace(0.5, 1.5, 90, dtype=np.float32))
def run(**kwargs):
    net = make()
    net.train(data(), epochs=12, patience=11, norms=True, **kwargs)
    return net
if __name__ == "__main__":
    net = run(checkpoint=sys.argv[1], every=1, resume=True)
    net.save(sys.argv[1] + "/end")
    net.history.save(sys.argv[1] + "/history.json")
"""


def arrays(net): return [A for layer in net.layers for d in (layer.parameters, layer.state) for A in d.values()]


def same(one, two):
    assert all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(two), strict=True))
    assert one.history.columns == two.history.columns


def test_killed_and_resumed_to_the_same_bits(tmp_path, whole):
    script, folder = tmp_path/"training.py", tmp_path/"run"
    script.write_text(SCRIPT, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(root), "IN_TEST": "1"}
    rng, kills = random.Random(0), 0
    while kills < KILLS:
        child = subprocess.Popen([sys.executable, script, folder], env=env, stderr=subprocess.PIPE)
        begun = set(folder.glob("*.safetensors")) if folder.exists() else set()
        while child.poll() is None and (not folder.exists() or set(folder.glob("*.safetensors")) == begun): time.sleep(0.002)   # it has come to its loop
        time.sleep(rng.uniform(0, 0.05))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        error = child.communicate()[1].decode()
        assert child.returncode in (0, -signal.SIGKILL), error
        if child.returncode == 0:   # it came to its end: the next one begins anew
            compare(folder, whole)
            for path in folder.iterdir(): path.unlink()
    subprocess.run([sys.executable, script, folder], env=env, check=True)
    compare(folder, whole)


def compare(folder, whole):
    net = NeuralNetwork.from_file(folder/"end")
    assert all(np.array_equal(a, b) for a, b in zip(arrays(net), arrays(whole), strict=True))
    assert json.loads((folder/"history.json").read_text()) == json.loads(whole.history.to_json())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_after_the_step_and_keeps_it(number, training, whole, tmp_path, capsys):
    net, before = training["make"](), signal.getsignal(number)
    steps = []
    def loss_of(*args, old=net.update):   # in the middle of a step
        steps.append(1)
        if len(steps) == 30: os.kill(os.getpid(), number)
        return old(*args)
    net.update = loss_of
    with pytest.raises((KeyboardInterrupt, SystemExit)) as e: net.train(training["data"](), 12, 11, True, checkpoint=tmp_path/"run")
    del net.update
    said = str(e.value) if number == signal.SIGINT else capsys.readouterr().err
    assert "ended after epoch 2, step 4; train(..., checkpoint=" in said and "resume=True) goes on" in said
    if number == signal.SIGTERM: assert e.value.code == 143
    assert len(net.history) == 2 and net.predict(iris().test.X).shape == (30, 3)
    net.train(training["data"](), 12, 11, True, checkpoint=tmp_path/"run", resume=True)
    same(net, whole)
    assert signal.getsignal(number) == before


def test_a_torn_newest_file_is_told_and_the_one_before_is_used(training, whole, tmp_path):
    def stop(net, row): return row["epoch"] == 5
    first = training["make"]()
    def fail(net, row):
        if row["epoch"] == 6: raise RuntimeError
    with pytest.raises(RuntimeError): first.train(training["data"](), 12, 11, True, callbacks=[fail], checkpoint=tmp_path/"run", every=3)
    newest = max((tmp_path/"run").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-7])
    net = training["make"]()
    with pytest.warns(UserWarning, match="expected a whole checkpoint in .*; the one before is used"):
        net.train(training["data"](), 12, 11, True, checkpoint=tmp_path/"run", resume=True)
    same(net, whole)


def test_a_full_disk_is_told_and_the_training_goes_on(training, whole, tmp_path, monkeypatch):
    written = []
    def full(path, data, old=hwnn.checkpoints.write_whole):
        written.append(path)
        if len(written) > 4: raise OSError(errno.ENOSPC, "No space left on device")
        old(path, data)
    monkeypatch.setattr(hwnn.checkpoints, "write_whole", full)
    net = training["make"]()
    with pytest.warns(UserWarning, match="expected to write a checkpoint into .*No space left on device; the training goes on"):
        net.train(training["data"](), 12, 11, True, checkpoint=tmp_path/"run")
    same(net, whole)
    with Checkpoints(tmp_path/"run") as kept: assert kept.newest()[1]["books"]["epoch"] == 4   # the last good one survives


def test_a_file_that_fails_half_way_leaves_the_one_before(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as kept:
        kept.write(1, [np.arange(3)])
        def fail(fd): raise OSError(errno.EIO, "Input/output error")
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError): kept.write(2, [np.arange(4)])
        number, (found,) = kept.newest()
        assert number == 1 and found.tolist() == [0, 1, 2] and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("name,change,text", [
    ("network", dict(made=lambda: NeuralNetwork([FullyConnected(9, "relu"), FullyConnected(3, "softmax")], seed=5)), "the layers of the checkpoints"),
    ("loss", dict(loss=dict(name="cross_entropy", smoothing=0.1)), "the loss of the checkpoints"),
    ("optimizer", dict(optimizer=dict(name="adam", lr=0.03)), "the optimizer of the checkpoints"),
    ("batches", dict(data=lambda: iris(batch_size=30)), "the training data of the checkpoints"),
    ("a number", dict(data=lambda: changed(iris(batch_size=15))), "the training data of the checkpoints"),
    ("epochs", dict(epochs=4), "the epochs of the checkpoints"), ("patience", dict(patience=2), "the patience of the checkpoints"),
    ("frozen", dict(frozen=True), "the layers of the checkpoints")], ids=lambda v: v if isinstance(v, str) else "")
def test_another_training_is_refused_with_the_difference(name, change, text, tmp_path):
    def make(loss="cross_entropy", optimizer=dict(name="adam", lr=0.02), made=None, frozen=False, **kwargs):
        made = made() if made else NeuralNetwork([FullyConnected(8, "relu"), FullyConnected(3, "softmax")], loss=loss, optimizer=optimizer)
        made.layers[0].trainable = not frozen
        return made
    def train(net, data=lambda: iris(batch_size=15), epochs=3, patience=None, **kwargs): net.train(data(), epochs, patience, checkpoint=tmp_path, resume=True)
    train(make())
    net = make(**change)
    with pytest.raises(ValueError, match=text): train(net, **change)
    assert not net.layers[0].parameters and not len(net.history)


def changed(data):
    data.train.X[3, 2] += 1e-6
    return data


def test_two_at_once_do_not_mix(tmp_path):
    code = "import sys, time\nfrom hwnn.checkpoints import Checkpoints\nwith Checkpoints(sys.argv[1]): print('in', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path], env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"in\n"
        with pytest.raises(RuntimeError, match="which another process uses now"): small().train(iris(15), 1, checkpoint=tmp_path)
    finally:
        child.kill()
        child.wait()
    small().train(iris(15), 1, checkpoint=tmp_path)   # the lock ended with its process


def small(): return NeuralNetwork([FullyConnected(3, "softmax")])


@pytest.mark.parametrize("arguments,error,text", [
    (dict(checkpoint=3), TypeError, "expected the path of a folder, got 3"), (dict(every=3), ValueError, "expected a folder for checkpoint with every or resume"),
    (dict(resume=True), ValueError, "expected a folder for checkpoint"), (dict(checkpoint="x", every=0), ValueError, "expected every as an integer at least 1"),
    (dict(checkpoint="x", every=1.5), TypeError, "every as an integer"), (dict(checkpoint="x", resume=1), TypeError, "expected resume as True or False")])
def test_what_is_refused(arguments, error, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = small()
    with pytest.raises(error, match=text): net.train(iris(15), 1, **arguments)
    assert not net.layers[0].parameters and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path/"file").write_text("")
    with pytest.raises(ValueError, match="expected a folder that can be written to"): small().train(iris(15), 1, checkpoint=tmp_path/"file")
    with pytest.raises(ValueError, match="expected a folder that can be written to"): small().train(iris(15), 1, checkpoint="/proc/none")


def test_all_files_torn(tmp_path):
    small().train(iris(15), 2, checkpoint=tmp_path)
    for path in tmp_path.glob("*.safetensors"): path.write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="got 2 that are none"): small().train(iris(15), 2, checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize("value", [np.float64(0.1), np.arange(6).reshape(2, 3)[:, ::-1], np.zeros((0, 3)), np.array(2.5), [1, [2.5, None]], {"a": {"b": [np.ones(2, np.float32)]}}, float("nan"), 2**127, "text"], ids=str)
def test_packed_and_unpacked(value):
    arrays = {}
    words = json.loads(json.dumps(pack(value, arrays)))
    np.testing.assert_equal(unpack(words, arrays), value)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()])], ids=["object", "set", "object array"])
def test_objects_are_refused(value, tmp_path):
    with Checkpoints(tmp_path) as kept, pytest.raises((TypeError, ValueError)): kept.write(0, {"a": value})
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("forge", [lambda s: s.pop("books"), lambda s: s.update(network=None), lambda s: s.update(drawn=[3]), lambda s: s["network"].update(layers=[]),
                                   lambda s: s["network"]["layers"][0][0].update(W=np.zeros((2, 2), np.float32)), lambda s: s.update(states=4)])
def test_a_forged_checkpoint_changes_nothing(forge, tmp_path):
    net, data = small(), iris(batch_size=15)
    net.train(data, 2, checkpoint=tmp_path)
    net.history = History()
    with Checkpoints(tmp_path) as kept:
        number, state = kept.newest()
        forge(state)
        kept.write(number + 1, state)
    before = [A.copy() for A in arrays(net)]
    with pytest.raises(ValueError, match="expected a checkpoint that `train` wrote"): net.train(data, 2, checkpoint=tmp_path, resume=True)
    assert all(np.array_equal(a, b) for a, b in zip(arrays(net), before))


def test_a_refused_resume_leaves_a_new_network_as_it_was(tmp_path):
    small().train(iris(batch_size=15), 2, checkpoint=tmp_path)
    net = NeuralNetwork([FullyConnected(None, "softmax")])
    with pytest.raises(ValueError): net.train(iris(batch_size=30), 2, checkpoint=tmp_path, resume=True)
    assert net.layers[0].n_out is None and net.preparation is None and not net.layers[0].parameters
