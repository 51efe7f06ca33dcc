"""Samples, what follows from them, and how that is printed."""
import time
from statistics import geometric_mean, median

SAMPLE, WARM, PAUSE = 0.05, 0.1, 0.12   # seconds: a sample, at least; uncounted calls before it, at least; the rest before these


def mean_time(fn, seconds, calls):
    "The mean time of calls in a row, at least so many and for at least so long."
    n, start = 0, time.perf_counter()
    while n < calls or time.perf_counter() - start < seconds:
        fn()
        n += 1
    return (time.perf_counter() - start)/n


def sample(fn):
    "The mean time of calls in a row, after a rest and two calls or more that are not counted."
    # As in a training loop, where one framework has the cores to itself. Threads that have done their part of a call do not sleep at once:
    # they spin, waiting for more work, OpenMP's in PyTorch for some milliseconds and OpenBLAS's in NumPy for 30 or more, and take a core away
    # from whoever comes next. Without the rest, PyTorch took up to twice as long after a matrix product of NumPy's as it takes alone.
    # The uncounted calls are there because a thread woken after a rest often starts on the core of the one that woke it, and stays for some ms.
    time.sleep(PAUSE)
    mean_time(fn, WARM, 2)
    return mean_time(fn, SAMPLE, 1)


def measure(fns, budget=4.0, at_least=5, at_most=15):
    "For each name in `fns` (name -> function) a list of samples in seconds; sample k of all is taken before sample k + 1 of any."
    samples, rounds, start = {who: [] for who in fns}, 0, time.perf_counter()
    while rounds < at_least or rounds < at_most and time.perf_counter() - start < budget:
        for who, fn in fns.items(): samples[who].append(sample(fn))
        rounds += 1
    return samples


def record(group, case, samples, goal=None, fast_goal=None, work=1, unit="s"):
    """What is written for a case: its samples, and what follows from them.
    Whatever is neither hwnn nor the textbook is a yardstick, and the one with the best median counts; `work` is how many times its work hwnn did.
    "hwnn" is with NumPy alone, "hwnn fast" with the extra; a yardstick of its own, for scaling and threads, has the name of the other's and ", fast"."""
    medians = {who: median(values) for who, values in samples.items()}
    against = min((who for who in samples if who not in (*OURS.values(), "textbook") and not who.endswith(", fast")), key=medians.get)
    def paired(a, b): return median(x/y for x, y in zip(samples[a], samples[b])) if a in samples and b in samples else None
    fast = paired("hwnn fast", f"{against}, fast" if f"{against}, fast" in samples else against)
    return dict(group=group, case=case, unit=unit, work=work, goal=goal, fast_goal=fast_goal or goal, against=against, ratio=paired("hwnn", against)/work, fast_ratio=fast and fast/work,
                speedup=paired("textbook", "hwnn"), fast_speedup=paired("textbook", "hwnn fast"), median=medians, samples=samples)


OURS = {"": "hwnn", "fast_": "hwnn fast"}   # how fields of a record begin -> whose they are
# Geometric means that the project aims at, with NumPy alone and with the extra; goals for single cases are in their records.
GROUP_GOALS = {"convolution": {"": 1.5, "fast_": 0.6}, "pooling": {"": 1.5, "fast_": 0.8}, "batch norm": {"": 1.5, "fast_": 0.8}}
SLOWEST = {"": 2.5, "fast_": 1.0}   # the slowest convolution
MEANS = [*GROUP_GOALS, "dense", "optimizer", "training step"]   # groups whose cases have a mean worth looking at


def group_means(records):
    "group -> field -> the geometric mean of what its records have there: ratios and speed-ups, with NumPy alone and with the extra."
    means = {}
    for group in MEANS:
        inside = [r for r in records if r["group"] == group]
        values = {field: [r[field] for r in inside if r[field]] for field in ("ratio", "fast_ratio", "speedup", "fast_speedup")}
        if inside: means[group] = {field: geometric_mean(v) if v else None for field, v in values.items()}
    return means


def goals(records):
    "The goals and what was reached: (what, goal, reached, met) for each whose cases were measured, with NumPy alone and with the extra."
    def having(group): return [r for r in records if r["group"] == group]
    rows = []
    for mode, who in OURS.items():
        ratio, speedup = f"{mode}ratio", f"{mode}speedup"
        for group, means in group_means(records).items():
            if group in GROUP_GOALS and means[ratio]:
                goal = GROUP_GOALS[group][mode]
                rows.append((who, f"{group}, geometric mean", f"<= {goal}", f"{means[ratio]:.2f}", means[ratio] <= goal))
        if conv := [r for r in having("convolution") if r[ratio]]:
            worst, fast = max(r[ratio] for r in conv), sum(r[speedup] >= 30 for r in conv)
            rows += [(who, "convolution, the slowest", f"<= {SLOWEST[mode]}", f"{worst:.2f}", worst <= SLOWEST[mode]),
                     (who, "convolution, 30 times as fast as the textbook", "6 of 9", f"{fast} of {len(conv)}", fast >= 6)]
        if pool := [r for r in having("pooling") if r[ratio]]:
            fast = sum(r[speedup] >= 30 for r in pool)
            rows.append((who, "pooling, 30 times as fast as the textbook", f"{len(pool)} of {len(pool)}", f"{fast} of {len(pool)}", fast == len(pool)))
        rows += [(who, f"{r['group']}, {r['case']}", f"<= {r[f'{mode}goal']:.2f}", f"{r[ratio]:.2f}", r[ratio] <= r[f"{mode}goal"])
                 for r in having("training step") + having("peak memory") + having("threads") if r[ratio]]
        if scaling := [r for r in having("scaling") if r[ratio] and r["goal"]]:
            off = max(abs(r[ratio] - 1) for r in scaling)
            rows.append((who, "scaling, largest distance from linear", "<= 10 %", f"{100*off:.0f} %", off <= 0.1))
    over = [median(x/y for x, y in zip(r["samples"]["hwnn fast"], r["samples"]["hwnn"])) for group in MEANS for r in having(group) if {"hwnn", "hwnn fast"} <= set(r["samples"])]
    if over: rows.append(("hwnn fast", "over hwnn with NumPy alone, the slowest of all cases", "<= 1.05", f"{max(over):.2f}", max(over) <= 1.05))
    return [dict(who=who, what=what, goal=goal, reached=reached, met=bool(met)) for who, what, goal, reached, met in rows]


def amount(value, unit): return f"{value/1e6:.1f} MB" if unit == "bytes" else f"{1e3*value:.2f}"


def ratio_text(ratio): return "" if ratio is None else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.1g}"


LINE = "{:38} {:>9} {:>9} {:>9}  {:22} {:>6} {:>6} {:>12} {:>6}"
HEAD = LINE.format("case", "hwnn ms", "fast ms", "other ms", "other", "ratio", "fast", "textbook/us", "fast")


def speed_text(speedup): return f"{speedup:.1f}" if speedup else ""


def line(r):
    "A record as a line of the table."
    cells = (amount(r["median"][who], r["unit"]) if who in r["median"] else "" for who in ("hwnn", "hwnn fast", r["against"]))
    return LINE.format(r["case"], *cells, r["against"], ratio_text(r["ratio"]), ratio_text(r["fast_ratio"]), speed_text(r["speedup"]), speed_text(r["fast_speedup"])).rstrip()


def mean_line(group, means):
    return LINE.format(f"= {group}, geometric mean", "", "", "", "", ratio_text(means["ratio"]), ratio_text(means["fast_ratio"]), speed_text(means["speedup"]), speed_text(means["fast_speedup"])).rstrip()
