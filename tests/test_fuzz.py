"""What `tools/fuzz.py` has found, and a short run of it: broken files and hostile command lines are refused in a sentence, quickly, with little memory."""
import gzip
import hashlib
import io
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from zlib import Z_FINISH, Z_FULL_FLUSH

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/"tools"))
import hwnn.predict
import hwnn.train
from hwnn.datasets import Dataset, downloads
from hwnn.layers import FullyConnected, LayerNorm
from hwnn.models import NeuralNetwork
from test_downloads import IMAGES, Handler, check, load, server, tiny   # the last two are fixtures

ROWS = [[k % 7, k*k % 5, "abc"[k % 3]] for k in range(30)]


def said(main, *args):
    "Status, output, and errors of a command."
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err): main([str(a) for a in args])
    except SystemExit as e: return e.code, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def table(path, rows, names=("a", "b", "kind")):
    path.write_text("\n".join(",".join(map(str, row)) for row in [names, *rows]), encoding="utf-8")
    return path


def network(path, *layers, X=np.ones((4, 2), np.float32)):
    "A file with a network of these layers and three classes, for the features a and b."
    net = NeuralNetwork([*layers, FullyConnected(3, "softmax")])
    net.forward(X)
    net.preparation = dict(shift=0.0, scale=1.0, features=["a", "b"], classes=["x", "y", "z"])
    net.save(path)
    return path


def bomb(begin, size):
    "A gzip file of some bytes and so many zeros: one compressed megabyte, repeated; its checksum is wrong, which is known at the end alone."
    deflate = zlib.compressobj(9, wbits=-15)
    start = deflate.compress(begin) + deflate.flush(Z_FULL_FLUSH)
    zeros = deflate.compress(bytes(2**20)) + deflate.flush(Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(7) + start + zeros*(size//2**20) + deflate.flush(Z_FINISH) + bytes(8)


@pytest.mark.parametrize("begin, message", [(b"", "begins with 00 00 08"), (b"\0\0\x08\3" + struct.pack(">3I", 60, 28, 28), "expected 47056 bytes, got 47057 or more")])
def test_a_gigabyte_of_zeros_is_not_decompressed(begin, message):
    content = bomb(begin, 2**30)
    assert len(content) < 2e6
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ValueError, match=message): downloads.idx_array(content, "bomb.gz", (60, 28, 28), "0"*64)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 0.5 and peak < 1e6


def test_a_header_of_many_axes_is_named_in_short():
    content = b"\0\0\x08\xff" + bytes(range(1, 256))*4
    with pytest.raises(ValueError, match=r"expected an array \(6,\), got \(16909060, ") as caught: downloads.idx_array(content, "file", (6,), "0"*64)
    assert len(str(caught.value)) < 300


def test_files_in_several_gzip_members_are_read():
    A = np.arange(100, dtype=np.uint8)
    plain = b"\0\0\x08\1" + struct.pack(">I", 100) + A.tobytes()
    content = b"".join(map(gzip.compress, (plain[:30], b"", plain[30:])))
    assert (downloads.idx_array(content, "two.gz", (100,), hashlib.sha256(plain).hexdigest()) == A).all()


@pytest.mark.parametrize("cell, message", [("9"*5000, "expected a finite number in line 2, column 'a'"), ("x"*5000, "expected a finite number"), ("1e308", "finite"), ("-1e308", "finite")])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_cell_of_a_table_that_is_too_much(tmp_path, cell, message):
    path = table(tmp_path/"data.csv", [[cell, *ROWS[0][1:]], *ROWS[1:]])
    for dtype in (np.float32, np.float64):
        with pytest.raises(ValueError, match=message) as caught: Dataset.from_csv(path, "kind", dtype=dtype, validation=0, test=0)
        assert len(str(caught.value)) < 400


def test_an_error_of_the_csv_reader_shows_tabs(tmp_path):
    (tmp_path/"data.csv").write_text('a\tb\n1\t"2"3\n')
    with pytest.raises(ValueError, match=r"expected .* as CSV, got an error in line 2: '\\t' expected after '\"'"): Dataset.from_csv(tmp_path/"data.csv", "b")


def test_a_safetensors_error_is_one_short_line(tmp_path):
    header = b'{"W": {"dtype": "\\u001b[2J\\n", "shape": [1], "data_offsets": [0, 4]}}'
    (tmp_path/"w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="expected a safetensors file") as caught: NeuralNetwork.from_file(tmp_path/"w.safetensors")
    assert str(caught.value).isprintable()


# The commands
@pytest.mark.parametrize("name", ["ki\x1b[2Jnd", "k" + "i"*5000])
def test_a_terminal_shows_what_a_table_holds_and_obeys_none_of_it(tmp_path, name):
    weights, data = network(tmp_path/"w.safetensors"), table(tmp_path/"data.csv", ROWS, ["a", "b", name])
    status, out, err = said(hwnn.predict.main, weights, data, "--out", tmp_path/"out.csv")
    assert (status, err) == (0, "") and "left out ki" in out and all(map(str.isprintable, out.splitlines()))
    status, out, err = said(hwnn.predict.main, weights, table(tmp_path/"other.csv", ROWS, ["a", "c", name]), "--out", tmp_path/"out2.csv")
    assert status == 2 and err[:-1].isprintable() and len(err) < 1200 and "expected one column 'b'" in err and err.endswith("--help\n")


def test_a_name_that_is_no_utf_8(tmp_path):
    weights, data = network(tmp_path/"w.safetensors"), table(tmp_path/"data.csv", ROWS)
    code = "import sys; from hwnn.predict import main; main(sys.argv[1:])"
    run = subprocess.run([sys.executable, "-c", code, weights, data, "--out", bytes(tmp_path/"out") + b"\xff.csv"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.endswith("out?.csv\n") and not run.stderr


def test_predictions_that_overflow(tmp_path):
    weights = network(tmp_path/"w.safetensors", FullyConnected(3, "linear"), LayerNorm())
    status, _, err = said(hwnn.predict.main, weights, table(tmp_path/"data.csv", [["1e38", "-3e38", "a"], *ROWS]), "--out", tmp_path/"out.csv")
    assert status == 2 and "expected" in err and err.count("\n") == 1 and not (tmp_path/"out.csv").exists()


def test_an_option_without_its_value(tmp_path, monkeypatch):
    "From Python 3.13 on `--` is its value, a folder of that name."
    monkeypatch.chdir(tmp_path)
    status, _, err = said(hwnn.train.main, "--dataset", "iris", "--epochs", 1, "--out=--")
    assert status == 2 and err.count("\n") == 1 and "expected" in err or status in (0, None) and (tmp_path/"--").is_dir()


@pytest.mark.parametrize("layers", ['[{"name": "fully_connected", "n_out": 1000000000000000}, {"name": "fully_connected"}]',
                                    '[{"name": "fully_connected", "n_out": 9223372036854775808}, {"name": "fully_connected"}]'])
def test_layers_that_fit_into_no_memory(tmp_path, layers):
    (tmp_path/"c.json").write_text(f'{{"dataset": "iris", "layers": {layers}}}')
    status, _, err = said(hwnn.train.main, "--config", tmp_path/"c.json", "--out", tmp_path/"runs")
    assert status == 2 and "the network does not fit" in err and err.count("\n") == 1 and not (tmp_path/"runs").exists()


# Downloads
class Stalling(Handler):
    "Sends half of a file, says so, and waits."
    def do_GET(self):
        content = b"\x1f\x8b" + bytes(5000)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:2500])
        self.wfile.flush()
        self.server.half.set()
        self.server.over.wait(30)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_download_that_is_killed_leaves_nothing_that_counts(tiny, server, tmp_path, how):
    server.RequestHandlerClass, server.half, server.over = Stalling, threading.Event(), threading.Event()
    own = tmp_path/"own"
    # Ctrl-C is ignored by what runs in the background
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " \
           f"from hwnn.datasets import downloads; downloads.fetch('{IMAGES}.gz', __import__('pathlib').Path({str(own)!r}), ('http://127.0.0.1:{server.server_port}/',), print)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    assert server.half.wait(30)
    time.sleep(0.1)
    process.send_signal(how)
    assert process.wait(30) != 0
    server.over.set()
    assert not list(own.glob("*.gz")) and not list(own.glob("*ubyte"))
    server.RequestHandlerClass = Handler
    tiny("good")
    check(load(own))


# A short run, with the same mutations every time
@pytest.mark.skipif(sys.platform != "linux", reason="looks at the memory as Linux tells it")
@pytest.mark.parametrize("kind, files", dict(idx=10_000, safetensors=2000, checkpoint=1500, csv=3000, config=1500, arguments=2000).items())
def test_broken_files_are_refused(kind, files):
    from fuzz import plain, surroundings
    with surroundings(): row = plain(kind, 60, seed=0, files=files)
    assert row["files"] == files and files > row["refused"] > files/4 and not row["found"]
