"""Fashion-MNIST and MNIST: every way in which a file can be missing, late, cut short or wrong, against a server on this computer."""
import gzip
import hashlib
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hwnn import datasets

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
rng = np.random.default_rng(0)
arrays = {IMAGES: rng.integers(0, 256, (8, 4, 5), dtype=np.uint8), LABELS: np.array([0, 1, 0, 1, 0, 1, 0, 1], np.uint8),
          "t10k-images-idx3-ubyte": rng.integers(0, 256, (3, 4, 5), dtype=np.uint8), "t10k-labels-idx1-ubyte": np.array([1, 0, 1], np.uint8)}


def idx(A): return bytes([0, 0, 8, A.ndim]) + struct.pack(f">{A.ndim}I", *A.shape) + A.tobytes()


class Handler(BaseHTTPRequestHandler):
    """/good/FILE.gz is what it should be; /wrong/ has another content, /short/ ends early, /html/ is a page, anything else is not there."""
    def do_GET(self):
        how, name = self.path.strip("/").split("/")
        self.server.asked.append(self.path)
        if how not in ("good", "wrong", "short", "html"): return self.send_error(404)
        content = b"<html>welcome</html>" if how == "html" else gzip.compress(idx(arrays[name.removesuffix(".gz")] ^ (how == "wrong")))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:len(content)//2] if how == "short" else content)

    def log_message(self, *args): pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()   # looks so often whether to end
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def tiny(server, tmp_path, monkeypatch):
    "A function that makes fashion_mnist a tiny set with such mirrors; nothing of this computer's own data is seen."
    def use(*kinds):
        base = f"http://127.0.0.1:{server.server_port}/"
        mirrors = tuple("http://127.0.0.1:9/" if kind == "offline" else f"{base}{kind}/" for kind in kinds)
        files = {name: (A.shape, hashlib.sha256(idx(A)).hexdigest()) for name, A in arrays.items()}
        known = dict(folder="fashion-mnist", package=str(tmp_path/"package"), mirrors=mirrors, files=files, classes=("shoe", "shirt"))
        monkeypatch.setitem(datasets.IDX_SETS, "fashion_mnist", known)
    monkeypatch.delenv("HWNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path/"cache"))
    return use


def load(path=None, **kwargs): return datasets.fashion_mnist(path, **{"validation": 2, "batch_size": 3, **kwargs})


def put(folder, change=lambda name, content: content, suffix=".gz"):
    folder.mkdir(parents=True)
    for name, A in arrays.items(): (folder/(name + suffix)).write_bytes(change(name, gzip.compress(idx(A)) if suffix else idx(A)))
    return folder


def check(dataset):
    assert [len(part) for part in (dataset.train, dataset.validate, dataset.test)] == [6, 2, 3]
    np.testing.assert_array_equal(dataset.test.X[..., 0], arrays["t10k-images-idx3-ubyte"]/np.float32(255))
    np.testing.assert_array_equal(dataset.test.Y, [[0, 1], [1, 0], [0, 1]])
    everything = np.concatenate([dataset.train.X, dataset.validate.X])
    assert {x.tobytes() for x in everything} == {x.tobytes() for x in (arrays[IMAGES]/np.float32(255))}
    assert everything.dtype == dataset.train.Y.dtype == np.float32
    assert dataset.preparation == dict(shift=0.0, scale=255.0, features=None, classes=["shoe", "shirt"])


def test_good_download(tiny, server, tmp_path):
    tiny("good")
    check(load(tmp_path/"new"/"folder"))
    assert sorted(p.name for p in (tmp_path/"new"/"folder").iterdir()) == sorted(f"{name}.gz" for name in arrays)
    check(load(tmp_path/"new"/"folder"))   # the second time from the folder
    assert len(server.asked) == 4


def test_shapes_and_splits(tiny, tmp_path):
    tiny("good")
    rows = load(tmp_path/"a", images=False, validation=0, dtype=np.float64)
    assert rows.train.X.shape == (8, 20) and rows.train.X.dtype == np.float64 and rows.validate is None
    np.testing.assert_array_equal(rows.train.X, arrays[IMAGES].reshape(8, 20)/255)
    np.testing.assert_array_equal(load(tmp_path/"a").validate.Y.sum(axis=0), [1, 1])
    assert datasets.initialize_dataset("fashion_mnist", path=tmp_path/"a", validation=2, batch_size=2).train.samples_per_epoch == 3


@pytest.mark.parametrize("bad, said", [("missing", "404"), ("wrong", "expected the SHA-256"), ("html", "expected an idx file of bytes"), ("offline", "ConnectionError"),
                                       ("short", "IncompleteRead")])
def test_bad_download_leaves_nothing_and_the_mirror_helps(tiny, tmp_path, bad, said):
    tiny(bad)
    with pytest.raises(FileNotFoundError, match=said) as failure: load(tmp_path/"own")
    assert f"/{IMAGES}.gz: " in str(failure.value) and str(tmp_path/"own") in str(failure.value)
    assert not list((tmp_path/"own").rglob("*"))
    tiny(bad, "good")
    check(load(tmp_path/"own"))


def test_every_failing_mirror_is_named(tiny, tmp_path):
    tiny("missing", "wrong")
    with pytest.raises(FileNotFoundError, match=f"/missing/{IMAGES}.gz: (.|\n)*/wrong/{IMAGES}.gz: expected the SHA-256"): load(tmp_path/"own")


def test_interrupted_by_the_reader(tiny, tmp_path, monkeypatch):
    tiny("good")
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(datasets.downloads, "idx_array", stop)   # the check, between download and renaming
        with pytest.raises(KeyboardInterrupt): load(tmp_path/"own")
    assert not list((tmp_path/"own").rglob("*"))
    check(load(tmp_path/"own"))


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("where", ["path", "variable", "package", "cache"])
def test_offline_with_data(tiny, tmp_path, monkeypatch, where, suffix):
    tiny("offline")
    if where == "variable": monkeypatch.setenv("HWNN_DATA", str(tmp_path/"variable"))
    places = dict(path=tmp_path/"path", variable=tmp_path/"variable"/"fashion-mnist", package=tmp_path/"package", cache=tmp_path/"cache"/"hwnn"/"fashion-mnist")
    put(places[where], suffix=suffix)
    check(load(tmp_path/"path" if where == "path" else None))
    check(load(tmp_path/"path" if where == "path" else None, download=False))


def test_order_of_places(tiny, tmp_path, monkeypatch):
    tiny("offline")
    monkeypatch.setenv("HWNN_DATA", str(tmp_path/"variable"))
    put(tmp_path/"package")
    check(load())
    put(tmp_path/"variable"/"fashion-mnist", lambda name, content: b"")   # comes before the package, and is not skipped
    with pytest.raises(ValueError, match="variable.*got an empty file"): load()
    check(load(put(tmp_path/"path")))


def test_downloads_go_to_the_readers_own_folder(tiny, tmp_path, monkeypatch):
    tiny("good")
    load()
    assert (tmp_path/"cache"/"hwnn"/"fashion-mnist"/f"{IMAGES}.gz").is_file()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path/"other"))
    monkeypatch.setenv("HWNN_DATA", str(tmp_path/"variable"))
    load()
    assert (tmp_path/"variable"/"fashion-mnist"/f"{IMAGES}.gz").is_file() and not (tmp_path/"other").exists()


@pytest.mark.parametrize("download", [True, False])
def test_offline_without_data(tiny, tmp_path, monkeypatch, download):
    tiny("offline")
    for own in (tmp_path/"cache"/"hwnn"/"fashion-mnist", tmp_path/"variable"/"fashion-mnist"):
        with pytest.raises(FileNotFoundError) as failure: load(download=download)
        message = str(failure.value)
        assert message.startswith(f"fashion_mnist: expected {IMAGES}.gz in ") and f"into {own}, " in message and "HWNN_DATA" in message
        assert "apt install dataset-fashion-mnist" in message and str(tmp_path/"package") in message
        monkeypatch.setenv("HWNN_DATA", str(tmp_path/"variable"))


bad_files = {"truncated": (lambda c: c[:-9], "expected a complete gzip file"), "wrong": (lambda c: gzip.compress(gzip.decompress(c)[:-1] + b"\7"), "expected the SHA-256"),
             "other": (lambda c: gzip.compress(idx(np.zeros((8, 5, 4), np.uint8))), r"expected an array \(8, 4, 5\), got \(8, 5, 4\) in its header"),
             "long": (lambda c: gzip.compress(gzip.decompress(c) + b"\0"), "expected 176 bytes, got 177"), "page": (lambda c: b"<html>", "expected an idx file of bytes"),
             "header": (lambda c: b"\0\0\x08\x03\0", "expected a header of 16 bytes, got 5 bytes"), "damaged": (lambda c: c[:30] + bytes([c[30] ^ 255]) + c[31:], "expected a complete gzip file")}


@pytest.mark.parametrize("kind", bad_files)
def test_bad_file_is_named_and_left_alone(tiny, server, tmp_path, kind):
    change, message = bad_files[kind]
    tiny("good")
    folder = put(tmp_path/"own", lambda name, content: change(content) if name == IMAGES else content)
    before = (folder/f"{IMAGES}.gz").read_bytes()
    with pytest.raises(ValueError, match=message) as failure: load(folder)
    assert str(folder/f"{IMAGES}.gz") in str(failure.value) and "delete it, and get it anew" in str(failure.value)
    assert (folder/f"{IMAGES}.gz").read_bytes() == before and not server.asked
    (folder/f"{IMAGES}.gz").unlink()   # what the message says
    check(load(folder))


@pytest.mark.parametrize("kwargs, kind, message", [
    (dict(validation=60_000), ValueError, "expected validation as an integer at least 0 and below 60000, got 60000"),
    (dict(images="no"), TypeError, "expected images as True or False, got 'no'"),
    (dict(dtype=np.uint8), TypeError, "expected dtype float32 or float64, got uint8"),
    (dict(rng=3), TypeError, "expected rng as a numpy.random.Generator, got 3"),
    (dict(augment=2), TypeError, "expected augment as a function or None, got 2"),
    (dict(path=7), TypeError, "expected path as the path of a folder or None, got 7")])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_settings_are_looked_at_before_any_file(name, kwargs, kind, message):
    with pytest.raises(kind) as caught: datasets.initialize_dataset(name, **kwargs)
    assert str(caught.value).startswith(f"{name}: {message}")


def test_sets_in_the_wrong_folder_are_refused(tmp_path):
    put(tmp_path/"mixed")
    with pytest.raises(ValueError, match=r"expected an array \(60000, 28, 28\)"): datasets.mnist(tmp_path/"mixed", download=False)


def test_without_pooch(tiny, tmp_path, monkeypatch):
    tiny("good")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match="pip install pooch"): load(tmp_path/"own")
    check(load(put(tmp_path/"there")))


def test_pooch_is_loaded_when_needed():
    code = "import sys, hwnn.all; print([name for name in ('pooch', 'requests') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.needs("fashion_mnist")
def test_the_real_fashion_mnist(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("HWNN_DATA", raising=False)
    clothes = datasets.fashion_mnist(download=False, validation=0, images=False)
    assert clothes.train.X.shape == (60_000, 784) and clothes.test.X.shape == (10_000, 784) and clothes.train.X.dtype == np.float32
    assert (clothes.train.Y.sum(axis=0) == 6000).all() and (clothes.test.Y.sum(axis=0) == 1000).all()
    # the numbers by which PyTorch users normalize it
    assert round(float(clothes.train.X.mean(dtype=np.float64)), 4) == 0.2860 and round(float(clothes.train.X.std(dtype=np.float64)), 4) == 0.3530
