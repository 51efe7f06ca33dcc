"""Does reading ahead pay? `python benchmarks/reading.py --gigabytes 1`: steps on rows of bytes from a file, out of the system's memory and from the disk,
without help, with a thread that reads the next batch during a step, and with `Data.expect`, which tells the system about the rows that come next."""
import argparse
import mmap
import os
import tempfile
import time
from pathlib import Path
from threading import Thread

import numpy as np

from hwnn.all import *

F, BATCH, STEPS = 3072, 128, 150
NETWORKS = {"small": lambda: [FullyConnected(16, "relu"), FullyConnected(10, "softmax")],
            "large": lambda: [FullyConnected(1024, "relu"), FullyConnected(512, "relu"), FullyConnected(10, "softmax")]}


def to_units(X): return np.divide(X, 255, dtype=np.float32)


def steps(path, layers, how, cold):
    "Seconds of a step, and those of them that wait for the batch; the disk's pages are forgotten before where `cold`."
    if cold:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    X = np.memmap(path, np.uint8, "r").reshape(-1, F)
    X._mmap.madvise(mmap.MADV_RANDOM)   # in a file much larger than memory neighbours are of no use
    data = Data(X, one_hot(np.arange(len(X)) % 10, 10), BATCH, convert=to_units)
    net, box, waited = NeuralNetwork(layers(), optimizer=dict(name="SGD", lr=0.01)), [], 0.0
    batches = [data._next_rows() for _ in range(STEPS + 1)]
    def read(rows): box.append(data.examples(rows))
    read(batches[0])
    start = time.perf_counter()
    for rows in batches[1:]:
        x, y = box.pop()
        if how == "thread": (thread := Thread(target=read, args=(rows,))).start()
        if how == "told": data.expect(rows)
        net.backward(y, net.forward(x))
        net.update(0)
        before = time.perf_counter()
        if how == "thread": thread.join()
        else: read(rows)
        waited += time.perf_counter() - before
    return (time.perf_counter() - start)/STEPS, waited/STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder)/"X", np.random.default_rng(0)
        with open(path, "wb") as file:
            for _ in range(int(args.gigabytes*1e9/F/1000)): file.write(rng.bytes(1000*F))
            os.fsync(file.fileno())
        for name, layers in NETWORKS.items():
            for cold in (False, True):
                for how in ("plain", "thread", "told"):
                    step, wait = min(steps(path, layers, how, cold) for _ in range(args.repeat))
                    print(f"{name} network, {'disk  ' if cold else 'memory'}, {how:6}: step {1000*step:6.2f} ms, of which waiting {1000*wait:6.2f}", flush=True)


if __name__ == "__main__": main()
