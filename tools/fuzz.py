"""Fuzzing: what hwnn reads from files and from the command line, broken in a million ways. Only documented errors may come out, on one line that says what was
expected; memory stays in proportion to the file; a refused file changes no network; nothing takes a second of processor time. `python tools/fuzz.py --seconds 900`
takes all kinds, --only csv one of them. With --guided the mutations follow what they reach in hwnn's code, which needs `pip install atheris`. Nothing is trained,
and nothing is written outside a temporary folder, in which the file of each finding stays; any finding makes the exit status 1."""
import argparse, gzip, hashlib, io, json, os, random, re, resource, shutil, struct, sys, tempfile, time, traceback, tracemalloc, warnings, zlib
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))
if "--guided" in sys.argv[1:]:
    import atheris
    with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["hwnn"]): import hwnn.predict, hwnn.train
else: import hwnn.predict, hwnn.train
import numpy as np
from hwnn.checkpoints import Checkpoints, digest, pack, read_checkpoint
from hwnn.datasets import Dataset, downloads, iris
from hwnn.layers import BatchNorm1D, Conv2D, Dropout, Flatten, FullyConnected, GroupNorm, LayerNorm, Pool2D
from hwnn.models import NeuralNetwork

DOCUMENTED = (ValueError, TypeError, FileNotFoundError, FileExistsError, OSError)   # exactly these classes: a UnicodeDecodeError says nothing to a reader
SECOND = 1.0
LIMITS = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**30]
ENDS = [struct.pack("<d", v) for v in (float("nan"), float("inf"), 1e308)]   # numbers in the arrays of a file
NUMBERS = [b"0", b"-0", b"-1", b"00", b"1e308", b"-1e308", b"1e309", b"1e-320", b"nan", b"NaN", b"inf", b"-Infinity", b"0x10", b"1_000", "\u0663".encode(), "\uff11".encode(), b"1.5", b".",
           b"+1", b"1e", b"9"*30, b"9"*400, b"9"*5000, *(str(n).encode() for n in LIMITS)]
TEXTS = [b"", b" ", b"\0", b"\n", b"\r", b"\r\n", b"\t", b"\x1b[2J", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", "\u2028".encode(), "\u202e".encode(), "\U0001f600".encode(), b'"', b"'",
         b",", b";", b"[", b"]", b"{", b"}", b":", b"=", b"\\", b"%s", b"{0}", b"null", b"true", b"#", b"-", b"--", b"a"*3000, b"["*3000, b'{"a":'*3000, b'"'*1000, b","*1000]


class Finding(Exception): "Something that must not happen."
class Ready(Exception): "The training would begin here."


def refusal(error):
    "Raise Finding unless this is a documented error that says on one line what was expected."
    text = str(error)
    if type(error) not in DOCUMENTED: raise Finding(f"{type(error).__name__}: {text[:200]!r}") from error
    if "expected" not in text or not text.isprintable() or len(text) > 2000: raise Finding(f"a message that is not one line with what was expected: {text[:300]!r}") from error


def attempt(call):
    "The result of the call in a tuple, or None for a documented error. Raise Finding for another one."
    try: return (call(),)
    except Finding: raise
    except Exception as e: refusal(e)


def command(main, args):
    "Whether the command took the arguments; raise Finding unless it refuses with status 2 and one line."
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err): main(args)
    except Ready: pass
    except SystemExit as e:
        text, said = err.getvalue(), "expected|choose from|required|unrecognized|ambiguous|ignored explicit|Errno|No such file|name too long|does not fit"
        if e.code in (0, None) and out.getvalue().startswith("usage:") and not text: return True
        if e.code != 2 or not text.endswith("\n") or not text[:-1].isprintable() or not re.search(said, text) or len(text) > 4000:
            raise Finding(f"status {e.code}, {text[:300]!r}") from e
        return False
    except Exception as e: raise Finding(f"{type(e).__name__}: {str(e)[:200]!r}") from e
    if err.getvalue() or not all(line.isprintable() for line in out.getvalue().splitlines()): raise Finding(f"output {out.getvalue()[:200]!r}, {err.getvalue()[:200]!r}")
    return True


# Mutations of bytes, of texts, and of what JSON holds
def broken(rng, data, tokens=(), others=()):
    "The bytes after one to four changes."
    data = bytearray(data)
    for _ in range(min(4, 1 + int(rng.expovariate(1.2)))):
        n = len(data)
        i = rng.randrange(n + 1)
        j = min(n, i + (rng.randrange(9) if rng.random() < 0.7 else rng.randrange(n + 1)))
        what = rng.randrange(11)
        if what == 0 and i < n: data[i] ^= 1 << rng.randrange(8)
        elif what == 1 and i < n: data[i] = rng.choice(b"\0\1\x7f\x80\xff09,;\"\n[]{}-. ")
        elif what == 2: del data[i:]
        elif what == 3: del data[i:j]
        elif what == 4: data[i:i] = data[i:j]*rng.choice((1, 1, 2, 20))
        elif what == 5: data[i:i] = rng.choice(TEXTS)
        elif what == 6 and tokens: data[i:j] = rng.choice(tokens)
        elif what == 7:
            size, order = rng.choice((1, 2, 4, 8)), rng.choice(("big", "little"))
            data[i:i + size] = (rng.choice(LIMITS) % 256**size).to_bytes(size, order)
        elif what == 8:   # a number in a text
            found = re.compile(rb"[0-9][0-9.e_-]*").search(data, i)
            if found: data[found.start():found.end()] = rng.choice(NUMBERS)
        elif what == 9 and others:
            other = rng.choice(others)
            k = rng.randrange(len(other) + 1)
            data[i:] = other[k:]
        elif what == 10: data[i:i] = bytes(rng.randrange(256) for _ in range(rng.randrange(5)))
        if len(data) > 100_000: del data[100_000:]
    return bytes(data)


NAMES = [*hwnn.train.OPTIMIZERS, "relu", "softmax", "linear", "fully_connected", "conv2d", "pool2d", "batchnorm1d", "layernorm", "groupnorm", "flatten", "dropout", "cross_entropy", "l2", "hinge",
         "huber", "softmax_cross_entropy", "binary_cross_entropy", "same", "valid", "global", "all", "first", "one_cycle", "exponential", "cosine", "step", "plateau", "he_uniform", "identity", "sparse"]
VALUES = [None, True, False, -1, -0.0, 0.5, 1.0, 1.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), *LIMITS, "HUGE", "", "x", "\x1b[2J\n", "\0", "\ud800", "e\u0301", "9"*400, "a"*2000, [], [[]], {},
          {"name": "relu"}, {"name": "sgd", "class": "os.system"}, {"class": "a.b"}, [0], [1, 1], [2, 2], [3, 3, 3], [[1, 1], [1, 1]], ["x"]]


def places(tree, found):
    "All pairs (container, key) in what JSON holds."
    for key in (tree if isinstance(tree, dict) else range(len(tree))):
        found.append((tree, key))
        if isinstance(tree[key], (dict, list)): places(tree[key], found)
    return found


def bent(rng, tree):
    "What JSON holds, after one to three changes; it is changed itself."
    for _ in range(min(3, 1 + int(rng.expovariate(1.5)))):
        found = places(tree, [])
        if not found: return tree
        (at, key), what = rng.choice(found), rng.randrange(7)
        if what < 2: at[key] = rng.choice(VALUES)
        elif what == 2: at[key] = rng.choice(NAMES)
        elif what == 3: del at[key]
        elif what == 4:
            other = rng.choice(found)
            try: at[key] = json.loads(json.dumps(other[0][other[1]]))
            except (KeyError, IndexError): pass   # deleted before
        elif what == 5: at[key] = rng.choice(([at[key]], {"name": at[key]}, [at[key]]*3, str(at[key])[:9999] if not isinstance(at[key], int) else hex(at[key])))
        elif isinstance(at, dict): at[rng.choice((key + "s", "name", "n_out", "lr", "seed", "bias", "pad", "class", "x" + key))] = at[key]
        else: at.insert(key, json.loads(json.dumps(at[key])))
    return tree


def dumped(tree):
    "JSON, with a number of more digits than Python reads in place of HUGE."
    return json.dumps(tree).replace('"HUGE"', "9"*5000).encode()


class Idx:
    "Two arrays, plain and compressed; the reader knows shape and hash, or that of the broken file, so that no hash hides what is behind it."
    factor, constant = 4, 300_000

    def __init__(self):
        arrays = [np.arange(120, dtype=np.uint8).reshape(6, 4, 5), np.arange(40, dtype=np.uint8)]
        self.plain = [bytes([0, 0, 8, A.ndim]) + struct.pack(f">{A.ndim}I", *A.shape) + A.tobytes() for A in arrays]
        self.wanted = [(A.shape, hashlib.sha256(p).hexdigest(), A) for A, p in zip(arrays, self.plain)]
        zeros = zlib.compressobj(wbits=31)
        self.bomb = zeros.compress(bytes(4_000_000)) + zeros.flush()
        self.seeds = [*self.plain, *map(gzip.compress, self.plain)]

    def mutated(self, rng):
        if rng.random() < 0.5: return broken(rng, rng.choice(self.seeds), [b"\0\0\x08", b"\x1f\x8b\x08", b"\0\0\x0d\3"], self.seeds)
        if rng.random() < 0.02: return broken(rng, self.bomb) if rng.random() < 0.5 else rng.choice(self.seeds[2:]) + self.bomb
        return gzip.compress(broken(rng, rng.choice(self.plain), (), self.plain), rng.choice((0, 1)))

    def read(self, data):
        taken = False
        for shape, digest, A in self.wanted:
            got = attempt(lambda: downloads.idx_array(data, "file.gz", shape, digest))
            if got and not np.array_equal(got[0], A): raise Finding("another array has passed for the one with this hash")
            own = hashlib.sha256(data).hexdigest()
            got = got or attempt(lambda: downloads.idx_array(data, "file", shape, own))
            if got and (got[0].shape != shape or got[0].dtype != np.uint8): raise Finding(f"got {got[0].shape} {got[0].dtype}")
            taken |= bool(got)
        return taken


def networks():
    "Networks of every layer that is kept in a file, after a pass."
    flowers = iris()
    made = [(NeuralNetwork([FullyConnected(5, "relu"), BatchNorm1D(), FullyConnected(3, "softmax")]), (4,)),
            (NeuralNetwork([Conv2D(2, (3, 3), "relu"), GroupNorm(2), Pool2D((2, 2), stride=2), Dropout(0.3), Flatten(), FullyConnected(3, "softmax")],
                           dict(name="cross_entropy", smoothing=0.1)), (4, 4, 1)),
            (NeuralNetwork([FullyConnected(4, "tanh", bias=False), LayerNorm(), FullyConnected(1, "linear")], "l2"), (4,)),
            (NeuralNetwork([Conv2D(3, (2, 3), "leaky_relu", stride=2, pad=((1, 0), (0, 1))), Pool2D("global", "average"), Flatten(), FullyConnected(2, "linear")], "hinge"), (6, 5, 2))]
    for k, (net, shape) in enumerate(made):
        net.forward(np.random.default_rng(k).normal(size=(8, *shape)).astype(np.float32 if k % 2 else np.float64))
        net.preparation = (dict(flowers.preparation), None, dict(flowers.preparation, classes=None, target="size"), dict(shift=0.5, scale=2.0, features=None, classes=["a", "b"]))[k]
    return [net for net, _ in made]


def fingerprint(net):
    "Everything of a network that a load can change."
    return (net.input_shape, net.preparation, len(net.optimizer.cache), *((layer.n_in, layer.n_out, *((key, A.dtype.str, A.shape, A.tobytes())
            for d in (layer.parameters, layer.state) for key, A in d.items())) for layer in net.layers))


class Safetensors:
    "Files of `save`, broken in their bytes, in their header, or in the description of the network that is in it; read by from_file and by load."
    factor, constant = 60, 1_000_000

    def __init__(self):
        self.path, self.seeds = Path("weights.safetensors"), []
        for net in networks():
            net.save(self.path)
            self.seeds.append(self.path.read_bytes())
        self.nets = [self.fresh(k) for k in range(len(self.seeds))]
        header, body = self.split(self.seeds[0])   # as older versions wrote it
        self.seeds.append(self.joined(dumped(header | {"__metadata__": {"input_shape": "4"}}), body))
        self.prints = [fingerprint(net) for net in self.nets]

    def split(self, data):
        n = int.from_bytes(data[:8], "little")
        return json.loads(data[8:8 + n]), data[8 + n:]

    def joined(self, header, body): return len(header).to_bytes(8, "little") + header + body

    def mutated(self, rng):
        data, how = rng.choice(self.seeds), rng.randrange(4)
        if how == 0: return broken(rng, data, [b"F32", b"F64", b"BF16", b"F8_E4M3", b"BOOL", b"U8", b"__metadata__", b"data_offsets", b"dtype", b"network"], self.seeds)
        header, body = self.split(data)
        if how == 1: return self.joined(dumped(header), broken(rng, body, ENDS))
        if how == 2 or "network" not in header["__metadata__"]: header = bent(rng, header)
        else:
            text = header["__metadata__"]["network"]
            text = dumped(bent(rng, json.loads(text))) if rng.random() < 0.7 else broken(rng, text.encode(), [b'"version"', b'"class": "os.system"', b'"name": "conv2d"'])
            header["__metadata__"]["network"] = text.decode("utf-8", "replace")
        return self.joined(dumped(header), body)

    def read(self, data):
        self.path.write_bytes(data)
        made = attempt(lambda: NeuralNetwork.from_file(self.path))
        if made: self.use(made[0])
        k = zlib.crc32(data) % len(self.nets) if b"network" in data else 0   # files of older versions are of the first one
        net = self.nets[k]
        loaded = attempt(lambda: net.load(self.path))
        if loaded: self.nets[k] = self.fresh(k)
        elif fingerprint(net) != self.prints[k]: raise Finding("a refused load has changed the network")
        return bool(made or loaded)

    def fresh(self, k):
        self.path.write_bytes(self.seeds[k])
        return NeuralNetwork.from_file(self.path)

    def use(self, net):
        arrays = [A for layer in net.layers for d in (layer.parameters, layer.state) for A in d.values()]
        if not all(np.isfinite(A).all() for A in arrays): raise Finding("parameters that are not finite")
        if np.prod(net.input_shape) > 1000 or middling(net.layers): return
        X = np.ones((2, *net.input_shape), next((A.dtype for A in arrays), np.float32))
        try:
            with np.errstate(all="ignore"): attempt(lambda: net.predict(X))
        except Finding as e:   # numbers that do not fit, as the layers say; layers that ask for more than there is
            if not isinstance(e.__cause__, (FloatingPointError, MemoryError, OverflowError)) and "Maximum allowed dimension" not in str(e): raise


class Checkpoint(Safetensors):
    "The newer one of two checkpoints of a training: what is read from it has the content that was written, or the older one is used."
    def __init__(self):
        self.folder, self.seeds = Path("kept"), []
        NeuralNetwork([FullyConnected(3, "softmax")], optimizer=dict(name="adam")).train(iris(), epochs=2, checkpoint=self.folder, bar=False)
        *_, self.older, self.path = sorted(self.folder.glob("*.safetensors"))
        self.seeds = [self.path.read_bytes()]
        self.digests = [self.digest(read_checkpoint(path)) for path in (self.older, self.path)]

    def digest(self, state):
        arrays = {}
        return digest(json.dumps(pack(state, arrays)), arrays)

    def mutated(self, rng):
        data, how = self.seeds[0], rng.randrange(4)
        if how < 2: return broken(rng, data, [b"F32", b"F64", b"sha256", b"state", b"__metadata__"], [self.older.read_bytes()])
        header, body = self.split(data)
        if how == 2: return self.joined(dumped(header), broken(rng, body, ENDS))
        about = header["__metadata__"]
        if rng.random() < 0.5: return self.joined(dumped(bent(rng, header)), body)
        about["state"] = dumped(bent(rng, json.loads(about["state"]))).decode()
        return self.joined(dumped(header), body)

    def read(self, data):
        self.path.write_bytes(data)
        got = attempt(lambda: read_checkpoint(self.path))
        with Checkpoints(self.folder) as kept: number, state = kept.newest()
        if (f"{number:010d}" in self.path.name) != bool(got): raise Finding(f"checkpoint {number} was taken")
        if self.digest(state) != self.digests[bool(got)]: raise Finding("a state that was not written")
        return bool(got)


def middling(layers):
    "Whether a network is so large that it rightly takes a second, and not so large that it cannot be made."
    return any(re.search(r"\b[0-9]{3,7}\b", repr(layer)) for layer in layers)


class Csv:
    "Tables, read by Dataset.from_csv in one of four ways and by hwnn-predict."
    factor, constant = 400, 400_000

    def __init__(self):
        rng, self.path = np.random.default_rng(0), Path("data.csv")
        rows = [[*map(str, rng.normal(size=4).round(2)), "abc"[k % 3]] for k in range(30)]
        names, table = ["a", "b", "c", "d", "kind"], lambda rows, mark=",": mark.join("\n".join(mark.join(r) for r in rows).split(mark)).encode()
        self.net = networks()[0]
        self.net.preparation = dict(self.net.preparation, features=names[:4])
        self.order = networks()[0]
        self.order.preparation = dict(self.order.preparation, features=None)
        self.seeds = [table([names, *rows]), table(rows), table([names, *rows], ";"), table([names, *rows], "\t"), table([r[:4] for r in [names, *rows]]), table([r[:4] for r in rows]),
                      b"\xef\xbb\xbf" + table([names, *rows]).replace(b"\n", b"\r\n"), table([names, *rows]).replace(b",", b'","').replace(b"\n", b'"\n"').join((b'"', b'"')),
                      table([names, *([*r[:4], str(k)] for k, r in enumerate(rows))])]
        self.tokens = [b'"a\nb"', b'""', b'" x"', b"kind", b"a,b", b"1.5", b"abc", b"nan", b"1,5", b"1.234,5", b"\n\n", b"\r", b",\n", b"a\0b", b"?"]

    def mutated(self, rng):
        data = rng.choice(self.seeds)
        if rng.random() < 0.5: return broken(rng, data, self.tokens, self.seeds)
        lines = data.split(b"\n")   # cells and rows
        mark = next((m for m in (b"\t", b";") if m in data), b",")
        for _ in range(rng.randrange(1, 4)):
            k = rng.randrange(len(lines))
            cells, what = lines[k].split(mark), rng.randrange(6)
            if what < 3: cells[rng.randrange(len(cells))] = rng.choice((rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(self.tokens)))
            elif what == 3: cells.insert(rng.randrange(len(cells) + 1), rng.choice(cells))
            elif what == 4: lines[k:k] = [lines[rng.randrange(len(lines))]]*rng.choice((1, 3, 50))
            else:
                at = rng.randrange(len(cells))
                lines = [mark.join(c[:at] + c[at + 1:]) for c in (line.split(mark) for line in lines)]
                continue
            lines[k] = mark.join(cells)
        return b"\n".join(lines)

    def read(self, data):
        self.path.write_bytes(data)
        how = zlib.crc32(data) % 4
        args = (dict(target="kind"), dict(target="kind", regression=True), dict(target=5, header=False), dict(target="a", regression=True, ignore=["kind"], validation=0, dtype=np.float64))[how]
        made = attempt(lambda: Dataset.from_csv(self.path, **args))
        if made:
            for part in hwnn.train.parts_of(made[0]):
                if not (np.isfinite(part.X).all() and np.isfinite(part.Y).all()): raise Finding("numbers that are not finite")
                if not args.get("regression") and not ((part.Y.sum(axis=1) == 1) & (part.Y.max(axis=1) == 1)).all(): raise Finding("labels that are not one-hot")
        said = attempt(lambda: hwnn.predict.predict_table(self.order if how == 2 else self.net, self.path))
        if said and not said[0][0].shape[1:] == (3,): raise Finding(f"predictions {said[0][0].shape}")
        return bool(made or said)


class Commands:
    "The commands in this process, up to where the training would begin; what they write is deleted."
    factor, constant = 400, 60_000_000   # the data, and a network that is tried out

    def __init__(self):
        self.csv, self.weights = Csv(), Safetensors()
        Path("data.csv").write_bytes(self.csv.seeds[0])
        Path("pixels.csv").write_bytes(b"\n".join(b",".join(b"%d" % (7*k*j % 16) for j in range(16)) + b",%d" % (k % 2) for k in range(1, 40)))
        self.csv.net.save("weights.safetensors")
        Path("config.toml").write_text('dataset = "iris"\nlayers = [8]\n')
        self.kept = {p.name for p in Path(".").iterdir()} | {"config.json"}
        self.parser, tried, load = hwnn.train.parser(), NeuralNetwork._try_out, hwnn.train.load_dataset
        datasets = {}

        def ready(*args, **kwargs): raise Ready
        def try_out(net, data, *others):   # large ones rightly take their time
            if not middling(net.layers) and data.batch_size <= 100: tried(net, data, *others)
        def load_once(**args):
            key = repr(args)
            if key not in datasets: datasets[key] = load(**args)
            while len(datasets) > 20: datasets.pop(next(iter(datasets)))
            return datasets[key]
        no_downloads = {name: {**known, "mirrors": (), "package": None} for name, known in downloads.IDX_SETS.items()}
        self.patches = [(hwnn.train, "parser", lambda: self.parser), (hwnn.train, "load_dataset", load_once), (NeuralNetwork, "_try_out", try_out), (NeuralNetwork, "train", ready),
                        (downloads, "IDX_SETS", no_downloads)]

    @contextmanager
    def patched(self):
        before = [getattr(owner, name) for owner, name, _ in self.patches]
        for owner, name, new in self.patches: setattr(owner, name, new)
        try: yield
        finally:
            for (owner, name, _), old in zip(self.patches, before): setattr(owner, name, old)

    def run(self, main, args):
        try:
            with self.patched(): return command(main, args)
        finally:
            for path in Path(".").iterdir():
                if path.name in self.kept: continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def inside(self, data):
        "The bytes without anything that leads out of this folder."
        return data.replace(b"/", b"_").replace(b"..", b"._").replace(b"~", b"_")


CONFIGS = [{"dataset": "iris", "layers": [16, 8], "epochs": 3, "lr": 0.01, "optimizer": "adam", "seed": 3},
           {"csv": "data.csv", "target": "kind", "header": True, "batch_size": 8, "patience": 2, "layers": [{"name": "fully_connected", "n_out": 6, "activation": "tanh", "weight_init": "xavier_normal"},
            {"name": "batchnorm1d", "momentum": 0.5}, {"name": "dropout", "rate": 0.2}, {"name": "fully_connected", "activation": "softmax"}]},
           {"csv": "pixels.csv", "target": "17", "header": False, "image": "4x4x1", "model": "cnn", "loss": {"name": "cross_entropy", "smoothing": 0.1}, "layers": [
            {"name": "conv2d", "n_out": 2, "kernel_shape": [3, 3], "activation": "relu", "stride": 1, "pad": "same"}, {"name": "pool2d", "kernel_shape": [2, 2], "stride": 2, "mode": "max"}, "flatten",
            {"name": "fully_connected", "activation": "softmax"}]},
           {"csv": "pixels.csv", "header": False, "target": "3", "regression": True, "loss": "huber", "optimizer": {"name": "sgd", "momentum": 0.9, "lr": 0.1, "lr_scheduler": {"name": "one_cycle", "epochs": 5}, "clip_norm": 1.0}}]


class Config(Commands):
    "JSON and TOML files of hwnn-train --config."
    def __init__(self):
        super().__init__()
        table = lambda d: "{" + ", ".join(f"{k} = {toml(v)}" for k, v in d.items()) + "}"
        toml = lambda v: table(v) if isinstance(v, dict) else f"[{', '.join(map(toml, v))}]" if isinstance(v, list) else json.dumps(v)
        self.toml = ["\n".join(f"{k} = {toml(v)}" for k, v in c.items()).encode() for c in CONFIGS]
        self.seeds = [*map(dumped, CONFIGS), *self.toml]
        self.tokens = [b"[[layers]]\n", b"[optimizer]\n", b"1979-05-27T07:32:00Z", b"inf", b"\"\"\"", b"0b1", b"layers", b"dataset", b'"mnist"', b'"digits"', b"a.b.c = 1\n", b"true", b"1_000"]

    def mutated(self, rng):
        how = rng.randrange(4)
        if how < 2: return self.inside(dumped(bent(rng, json.loads(dumped(rng.choice(CONFIGS))))))
        return self.inside(broken(rng, rng.choice(self.toml if how == 2 else self.seeds), self.tokens, self.seeds))

    def read(self, data):
        path = Path("config.json" if data[:1] == b"{" else "config.toml")
        path.write_bytes(data)
        return self.run(hwnn.train.main, ["--config", str(path), "--out", "runs"])


class Arguments(Commands):
    "Command lines of hwnn-train and hwnn-predict, their words separated by NUL bytes, which no word can have."
    def __init__(self):
        super().__init__()
        train, options = self.parser, {}
        for p, name in ((train, b"train"), (hwnn.predict.parser(), b"predict")):
            options[name] = [(max(a.option_strings, key=len).encode(), a.nargs == 0, a.choices) for a in p._actions if a.option_strings]
        self.options, csv = options, [b"--csv", b"data.csv", b"--target"]
        lines = [[b"train", b"--dataset", b"iris", b"--epochs", b"2", b"--layers", b"8,4"], [b"train", *csv, b"kind", b"--lr", b"0.1", b"--optimizer", b"adam", b"--patience", b"3"],
                 [b"train", b"--csv", b"pixels.csv", b"--header", b"no", b"--target", b"3", b"--regression", b"--batch-size", b"4", b"--seed", b"5"], [b"train", b"--csv", b"pixels.csv", b"--target", b"17", b"--header", b"no", b"--image", b"4x4", b"--model", b"cnn"],
                 [b"train", b"--config", b"config.toml", b"--out", b"runs"], [b"train", b"--dataset", b"digits", b"--model", b"dense"],
                 *([b"predict", b"weights.safetensors", b"data.csv", b"--out", b"out.csv", *more] for more in ([], [b"--probabilities"], [b"--overwrite"]))]
        self.lines, self.seeds = lines, [b"\0".join(line) for line in lines]
        self.values = [*NUMBERS, *(t for t in TEXTS if b"\0" not in t), b"8,4", b"8,", b"4x4x1", b"99999x99999x99999", b"9999999,9999999", b"data.csv", b"pixels.csv", b"config.toml", b"weights.safetensors",
                       b"none.csv", b".", b"runs", b"a"*300, b"kind", b"yes", b"no", b"mnist", b"fashion_mnist", b"digits", b"iris", b"cnn", b"data.csv\xff", b"@data.csv", b"17", b"-5", b"*"]

    def mutated(self, rng):
        line = list(rng.choice(self.lines))
        for _ in range(rng.randrange(1, 4)):
            name, alone, choices = rng.choice(self.options[line[0]])
            value = rng.choice(self.values) if not choices or rng.random() < 0.3 else rng.choice(list(choices)).encode()
            at, what = rng.randrange(1, len(line) + 1), rng.randrange(6)
            if what < 3: line[at:at] = [name] if alone else [name + b"=" + value] if rng.random() < 0.5 else [name, value]
            elif what == 3: line[at - 1 + (at == 1):at] = [value]
            elif what == 4 and at < len(line): del line[at]
            elif at < len(line): line[at] = broken(rng, line[at], self.values)
        return self.inside(b"\0".join(line))

    def read(self, data):
        which, *line = data.split(b"\0")
        main = hwnn.predict.main if which == b"predict" else hwnn.train.main
        if main is hwnn.train.main and not any(word.startswith(b"--o") for word in line): line += [b"--out", b"runs"]
        return self.run(main, [word.decode("utf-8", "surrogateescape") for word in line])


KINDS = dict(idx=Idx, safetensors=Safetensors, checkpoint=Checkpoint, csv=Csv, config=Config, arguments=Arguments)


# One file after the other
class Watch:
    "Reads files of one kind and counts; what must not happen is kept, once for each place in the code."
    def __init__(self, name):
        self.name, self.kind = name, KINDS[name]()
        self.files = self.refused = self.slowest = self.peak = 0
        self.found = {}
        whole = [self.kind.read(data) for data in self.kind.seeds]
        if not (any if name == "csv" else all)(whole): raise Finding(f"{name}: expected that unbroken files are read, got {whole}")

    def read(self, data):
        kind = self.kind
        if self.files % 20 == 0: tracemalloc.start()   # which takes five times as long; the resident memory is looked at after every file
        error, resident, start = None, self.resident(), time.process_time()
        try: self.refused += not kind.read(data)
        except Finding as e: error = e
        seconds, peak = time.process_time() - start, self.resident() - resident - 20_000_000
        if tracemalloc.is_tracing():
            traced = tracemalloc.get_traced_memory()[1]
            if traced < 10**9: peak = max(peak, traced)   # NumPy counts also what it was refused
            tracemalloc.stop()
        allowed = kind.constant + kind.factor*len(data)
        # Something else may have had the processor, or a module was loaded on the way: what a second reading takes is the file's own.
        if error is None and (seconds > SECOND or peak > allowed):
            tracemalloc.start()
            start = time.process_time()
            kind.read(data)
            seconds, peak = min(seconds, time.process_time() - start), min(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        self.files += 1
        self.slowest, self.peak = max(self.slowest, seconds), max(self.peak, peak)
        if error is None and seconds > SECOND: error = Finding(f"{seconds:.1f} seconds")
        if error is None and peak > allowed: error = Finding(f"{peak/1e6:.1f} MB for a file of {len(data)} bytes")
        if error is not None: self.keep(data, error)

    def resident(self): return 1024*resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def keep(self, data, error):
        frames = [f for f in traceback.extract_tb((error.__cause__ or error).__traceback__) if f"hwnn{os.sep}" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        key = where, re.sub("[0-9.]+|'.*'", "0", str(error))[:60]
        if key in self.found or len(self.found) == 50: return
        path = Path(f"finding-{self.name}-{len(self.found)}")
        if isinstance(self.kind, Commands): self.kind.kept.add(path.name)
        path.write_bytes(data)
        self.found[key] = f"{self.name}: {error} {where} ({path.resolve()})"

    def row(self): return dict(kind=self.name, files=self.files, refused=self.refused, slowest=self.slowest, peak=self.peak, found=[*self.found.values()])


@contextmanager
def surroundings(more=1_000_000_000):
    "A folder of its own, in memory where there is one; a limit to memory; arithmetic warnings as errors."
    before, limits = os.getcwd(), resource.getrlimit(resource.RLIMIT_AS)
    folder = tempfile.mkdtemp(prefix="hwnn-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    used = int(Path("/proc/self/statm").read_text().split()[0])*resource.getpagesize()
    try:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (used + more, limits[1]))
        with warnings.catch_warnings(), patch.dict(os.environ, XDG_CACHE_HOME=folder, HWNN_DATA=""):
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            yield Path(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        os.chdir(before)
        if not [*Path(folder).glob("finding-*")]: shutil.rmtree(folder)


def plain(name, seconds, seed, files=None):
    "Mutations by a generator with this seed, for so long or so many files; the row of the table."
    rng, watch = random.Random(f"{name} {seed}"), Watch(name)
    end = time.monotonic() + seconds
    while time.monotonic() < end and watch.files != files: watch.read(watch.kind.mutated(rng))
    return watch.row()


def guided(name, seconds, seed, send):
    "Mutations that follow what they reach; sends the row of the table, and ends the process."
    watch, end = Watch(name), time.monotonic() + seconds
    kind, corpus = watch.kind, Path("corpus")
    if isinstance(kind, Commands): kind.kept.add(corpus.name)
    corpus.mkdir()
    for k, data in enumerate(kind.seeds): (corpus/str(k)).write_bytes(data)
    def mutator(data, max_size, seed):
        rng = random.Random(seed)
        how = rng.randrange(3)
        if how == 0: new = kind.mutated(rng)
        elif how == 1: new = broken(rng, data, getattr(kind, "tokens", getattr(kind, "values", ())), kind.seeds)
        else: new = atheris.Mutate(data, max_size)
        return (kind.inside(new) if isinstance(kind, Commands) else new)[:max_size]
    def target(data):
        if isinstance(kind, Commands): data = kind.inside(data)
        watch.read(data)
        if time.monotonic() < end: return
        send(watch.row())
        if not watch.found: shutil.rmtree(Path.cwd())
        os._exit(0)
    atheris.Setup([sys.argv[0], f"-seed={seed + 1}", "-max_len=20000", "-rss_limit_mb=0", "-timeout=60", str(corpus)], target, custom_mutator=mutator)
    atheris.Fuzz()


def apart(work, **given):
    "What a process of its own sends, with its largest resident memory and what it had at the beginning."
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        os.close(receiver)
        def send(row):
            row["resident"] = 1024*resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with open(sender, "w") as out: json.dump(row, out)
        if work is guided:
            with open(os.devnull, "w") as nothing:
                for stream in (1, 2): os.dup2(nothing.fileno(), stream)
        try:
            with surroundings():
                if work is guided: guided(**given, send=send)
                else: send(plain(**given))
        except BaseException: traceback.print_exc()
        finally: os._exit(0)
    os.close(sender)
    with open(receiver) as sent: text = sent.read()
    os.waitpid(child, 0)
    if not text: sys.exit(f"the process that read {given['name']} has died")
    return json.loads(text)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=float, default=60, help="for all kinds together")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", choices=KINDS)
    p.add_argument("--guided", action="store_true")
    a = p.parse_args()
    names = [a.only] if a.only else [*KINDS]
    rows = [apart(guided if a.guided else plain, name=name, seconds=a.seconds/len(names), seed=a.seed) for name in names]
    print(f"{'kind':12} {'files':>9} {'refused':>9} {'accepted':>9} {'slowest':>9} {'largest peak':>13} {'resident':>9}")
    for r in rows:
        print(f"{r['kind']:12} {r['files']:9,} {r['refused']:9,} {r['files'] - r['refused']:9,} {r['slowest']:7.3f} s {r['peak']/1e6:10.2f} MB {r['resident']/1e6:6.0f} MB")
    print(f"{'all':12} {sum(r['files'] for r in rows):9,}")
    found = [text for r in rows for text in r["found"]]
    print("\n".join(found) or "only documented errors, in time, with little memory; no refused file has changed a network")
    return bool(found)


if __name__ == "__main__": sys.exit(main())
