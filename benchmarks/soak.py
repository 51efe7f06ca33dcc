"""A long training, to see that nothing grows: resident memory, open files, time of an epoch. `python benchmarks/soak.py --minutes 30`.
`--memmap 20` trains on a sparse file of so many GB instead, for some steps, and prints how much memory it takes."""
import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from hwnn.all import *


def resident(): return int(Path("/proc/self/statm").read_text().split()[1])*os.sysconf("SC_PAGE_SIZE")/2**20


def soak(minutes):
    "Epochs of a network with convolutions, batch norm and dropout, with checkpoints; a row for each minute."
    data, rows, start = digits(images=True, batch_size=64), [], time.perf_counter()
    net = NeuralNetwork([Conv2D(16, 3, "relu"), BatchNorm1D(), Pool2D(2, stride=2), Dropout(0.2), Flatten(), FullyConnected(10, "softmax")], optimizer=dict(name="adam", lr=0.001))
    net.train(data, epochs=1)   # what is made once has been made
    first, last = resident(), start
    with tempfile.TemporaryDirectory() as folder:
        while time.perf_counter() - start < 60*minutes:
            begun, n = time.perf_counter(), 0
            while time.perf_counter() - begun < min(60, 60*minutes/5):
                kept = Path(folder)/"run"
                for path in kept.glob("*.safetensors"): path.unlink()
                net.history = History()
                net.train(data, epochs=5, checkpoint=kept, bar=False)
                n += 5
            rows.append((resident(), len(os.listdir("/proc/self/fd")), (time.perf_counter() - begun)/n))
            print(f"{(time.perf_counter() - start)/60:6.1f} min  resident {rows[-1][0]:7.1f} MB  open files {rows[-1][1]:3d}  epoch {1000*rows[-1][2]:6.1f} ms", flush=True)
    print(f"resident after the first epoch {first:.1f} MB; after the first row {rows[0][0]:.1f}, at the end {rows[-1][0]:.1f}: {100*(rows[-1][0]/rows[0][0] - 1):+.2f} %")
    print(f"open files {rows[0][1]} to {rows[-1][1]}; epoch, median of the first and the last third: {1000*np.median([r[2] for r in rows[:len(rows)//3 or 1]]):.1f}, {1000*np.median([r[2] for r in rows[-(len(rows)//3 or 1):]]):.1f} ms")


def to_units(X): return np.divide(X, 255, dtype=np.float32)


def memmap(gigabytes):
    "Steps on a sparse file of examples of 1,000 bytes, converted in the batch; prints resident memory without the file's own pages, as it goes."
    with tempfile.TemporaryDirectory() as folder:
        n = gigabytes*10**6
        X = np.memmap(Path(folder)/"X", dtype=np.uint8, mode="w+", shape=(n, 1000))
        Y = np.zeros((n, 2), np.float32)
        Y[np.arange(n), np.arange(n) % 2] = 1
        data = Dataset(X, Y, batch_size=100, convert=to_units)
        net = NeuralNetwork([FullyConnected(8, "relu"), FullyConnected(2, "softmax")])
        print(f"{gigabytes} GB, of which labels and order {(Y.nbytes + 8*n)/2**20:.0f} MB in memory")
        for step in range(1, 20_001):
            x, y = data.train.sample()
            net.backward(y, net.forward(x), forget=True)
            net.update(0)
            if step in (200, 2000, 20_000):
                status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(("RssAnon", "RssFile", "RssShmem")))
                anonymous, mapped = (int(status[key].split()[0])/1024 for key in ("RssAnon", "RssFile"))
                print(f"  after {step:6d} steps: {anonymous:6.0f} MB, and {mapped:6.0f} MB of the file's pages, which the system takes back when it needs them", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--memmap", type=int, metavar="GB")
    args = parser.parse_args()
    if args.memmap: return memmap(args.memmap)
    soak(args.minutes)


if __name__ == "__main__": main()
