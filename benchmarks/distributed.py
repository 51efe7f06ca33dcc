"""Several ranks on this machine: what a message costs, and what a training step does, predicted and measured. `python benchmarks/distributed.py`.
Each is the least of several runs, since somebody else may use the machine too."""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import hwnn.distributed
from hwnn.all import *
from hwnn.distributed import ring_seconds, world

root = Path(__file__).resolve().parent.parent
SIZES = 1, 1000, 10_000, 100_000, 1_000_000   # float32 numbers in a message
NETWORKS = {
    "dense": ((784,), 1024, lambda: [FullyConnected(512, "relu"), FullyConnected(512, "relu"), FullyConnected(10, "softmax")]),
    "convolutions": ((16, 16, 8), 128, lambda: [Conv2D(32, 3, "relu"), BatchNorm1D(), Conv2D(32, 3, "relu"), BatchNorm1D(), Pool2D("global", "average"), Flatten(),
                                                FullyConnected(10, "softmax")]),
}


class Timed:
    "A communicator that counts the seconds that it takes."
    def __init__(self, comm): self.comm, self.seconds = comm, 0.0
    def __getattr__(self, name): return getattr(self.comm, name)

    def _time(self, fn, *args):
        start = time.perf_counter()
        try: return fn(*args)
        finally: self.seconds += time.perf_counter() - start

    def Allreduce(self, A, out): self._time(self.comm.Allreduce, A, out)

    def Iallreduce(self, A, out):
        request = self._time(self.comm.Iallreduce, A, out)
        return type("Request", (), dict(Test=lambda _: self._time(request.Test), Wait=lambda _: self._time(request.Wait)))()


def messages(comm):
    "Seconds of an all-reduce by its number of float32 numbers."
    found = {}
    for n in SIZES:
        A, out, times = np.ones(n, np.float32), np.empty(n, np.float32), []
        for _ in range(max(10, min(200, 2_000_000//n))):
            comm.Barrier()
            start = time.perf_counter()
            comm.Allreduce(A, out)
            times.append(time.perf_counter() - start)
        found[n] = min(comm.allgather(min(times)))
    return found


def steps(comm, name, batch, bucket):
    "Seconds of the fastest step, those of them spent on messages and waiting, and the number of parameters."
    shape, _, layers = NETWORKS[name]
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(8*batch, *shape)).astype(np.float32), one_hot(rng.integers(10, size=8*batch), 10)
    net, timed = NeuralNetwork(layers(), optimizer=dict(name="SGD", lr=0.01)), Timed(comm)
    hwnn.distributed.BUCKET = bucket
    update, stamps = net.update, []
    def watched(*args):
        update(*args)
        stamps.append((time.perf_counter(), timed.seconds))
    net.update = watched
    net.train(Dataset(X, Y, batch), 30, bar=False, comm=timed)
    pairs = [(b - a, d - c) for k, ((a, c), (b, d)) in enumerate(zip(stamps, stamps[1:])) if (k + 1) % 8]   # none across the end of an epoch
    return *min(pairs), sum(A.size for layer in net.layers for A in layer.parameters.values())


def measure():
    "What one job prints: JSON on rank 0."
    comm = world()
    set_threads(1)
    found = dict(ranks=comm.Get_size(), messages=messages(comm))
    for name, (_, batch, _) in NETWORKS.items():
        parts = [batch, batch//2, batch//4] if comm.Get_size() == 1 else [batch]
        found[name] = {f"{b}": steps(comm, name, b, 2**17) for b in parts} | {"at once": steps(comm, name, batch, 10**9)}
    if comm.Get_rank() == 0: print(json.dumps(found))


def job(ranks):
    mpiexec = Path(sys.executable).parent/"mpiexec"
    command = [str(mpiexec) if mpiexec.exists() else "mpiexec", "-n", str(ranks), sys.executable, __file__, "--measure"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def least(runs):
    "The smallest of each number over runs of the same form; of steps, the fastest."
    if isinstance(runs[0], dict): return {key: least([run[key] for run in runs]) for key in runs[0]}
    return min(runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="what each rank does; the jobs are started without it")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    if args.measure: return measure()
    rounds = [{n: job(n) for n in (1, 2, 4)} for _ in range(args.repeat)]   # in turns: another user's work meets all alike
    found = least(rounds)
    latency, bandwidth = fit(found[2]["messages"])
    print(f"2 ranks: latency {1e6*latency:.1f} us, bandwidth {bandwidth/1e9:.2f} GB/s from messages " +
          ", ".join(f"{4*int(n)} B {1e6*t:.1f} us" for n, t in found[2]["messages"].items()))
    for name, (_, batch, _) in NETWORKS.items():
        one = found[1][name]
        print(f"{name}: {one[f'{batch}'][2]} parameters, batch {batch}; one rank alone " + ", ".join(f"{b} in {1000*one[f'{b}'][0]:.1f} ms" for b in (batch, batch//2, batch//4)))
        for n in (1, 2, 4):
            step, talk, count = found[n][name][f"{batch}"]
            compute = one[f"{batch//n}"][0]*max(1, n/os.cpu_count())
            predicted = compute + ring_seconds(4*count, n, latency, bandwidth)
            print(f"  {n} ranks: {1000*step:6.1f} ms measured, {1000*predicted:6.1f} predicted; in messages and waiting {1000*talk:5.1f}; efficiency "
                  f"{one[f'{batch}'][0]/step/n:.2f} (per core {one[f'{batch}'][0]/step/min(n, os.cpu_count()):.2f}); sent at once {1000*found[n][name]['at once'][0]:.1f} ms")


def fit(messages):
    "Latency and bandwidth of two ranks, from the shortest and the longest message: a ring of two sends its bytes once, in two steps."
    (_, short), *_, (n, long) = messages.items()
    return short/2, 4*int(n)/(long - short)


if __name__ == "__main__": main()
