"""Prints by how many bytes ten training steps of network (c) raise the peak of this process's memory: `memory.py WHO THREADS`. Linux only."""
import re
import sys
from pathlib import Path

from networks import batch, our_step, ours, their_step, theirs


def status(name): return 1024*int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def main(who, threads):
    X, y = batch("c")
    # A first pass of two images makes hwnn's parameters, and whatever either framework sets up once.
    if who.startswith("hwnn"):
        from hwnn.engine.table import use_fast
        from hwnn.engine.threads import set_threads
        set_threads(threads)
        use_fast(who.endswith("fast"))
        net = ours("c")
        net.forward(X[:2])
        step = our_step(net, X, y)
    else:
        import torch
        torch.set_num_threads(threads)
        module = theirs("c")
        module(torch.zeros(2, 3, 32, 32))
        step = their_step(module, X, y, channels_last=who.endswith("channels_last"))
    Path("/proc/self/clear_refs").write_text("5")   # the peak is counted anew from here
    before = status("VmRSS")
    for _ in range(10): step()
    print(status("VmHWM") - before)


if __name__ == "__main__": main(sys.argv[1], int(sys.argv[2]))
