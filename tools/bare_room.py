"""Run README's commands as on a stranger's new machine: `python tools/bare_room.py [--more 'make site' ...]`.

Each block of shell commands in README gets a new clone of what is committed, a new HOME, an empty environment, and a PATH on which Python, make, git
and the basic tools are found: no browser, no Jupyter, no Quarto, no other Python package. --more adds commands to the first block; --outputs names a
folder for what its tests see the pages show."""
import argparse, os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path

root = Path(__file__).resolve().parent.parent
TOOLS = """awk bash basename cat cc chmod cp cut dirname env expand false find gcc git grep gzip head id ld ldconfig ln ls make mkdir mktemp mv nproc
           rm sed sh sleep sort tail tar test timeout touch tr true uname wc xargs""".split()
# How this machine reaches the package index; and its kernels, so that numbers can be compared with those outside.
KEPT = re.compile(r"PIP_|SSL_CERT|REQUESTS_CA|https?_proxy|no_proxy|SYSTEMROOT|OPENBLAS_CORETYPE", re.I)
DATA = "/usr/share/datasets"
FEW = {"PYTEST_ADDOPTS": "nbs/layers/dropout.ipynb tests/test_package.py"}   # the first block has run every test: here a few show that the commands hold


def blocks(text):
    "The commands in each block of shell code of a Markdown text, without their comments."
    return [[line.partition("  #")[0].strip() for line in code.splitlines() if line.strip()] for code in re.findall(r"(?ms)^```sh\n(.*?)^```", text)]


def furnish(room):
    "A clone, a home and a folder of tools in the folder `room`; returns the environment for commands in it."
    subprocess.run(["git", "clone", "-q", root, room/"clone"], check=True)
    for name in ("home", "bin"): (room/name).mkdir()
    (room/"bin/python3").symlink_to(os.path.realpath(sys._base_executable))
    for tool in TOOLS:
        if at := shutil.which(tool): (room/"bin"/tool).symlink_to(at)
    return {"HOME": str(room/"home"), "PATH": str(room/"bin"), "LANG": "C.UTF-8", **{k: v for k, v in os.environ.items() if KEPT.match(k)}}


def without_data(command):
    "The same command where the folder of data packages is empty, if there is one and we may hide it."
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    if not (Path(DATA).is_dir() and unshare and mount and os.getuid() == 0 and subprocess.run([unshare, "-m", "true"], stderr=subprocess.DEVNULL).returncode == 0):
        return command
    return [unshare, "-m", "sh", "-c", f'{mount} -t tmpfs none {DATA} && exec "$@"', "_", *command]


def run(commands, more={}):
    "Run the commands in a room of their own, with more in the environment; the first that fails ends the program with its status."
    with tempfile.TemporaryDirectory() as room:
        env = furnish(Path(room)) | more
        for command in commands:
            print(f"\n=== bare room: {command}", flush=True)
            start = time.time()
            status = subprocess.run(without_data(["bash", "-c", command]), cwd=Path(room)/"clone", env=env, stdin=subprocess.DEVNULL).returncode
            print(f"=== {'holds' if status == 0 else f'fails with {status}'}, {time.time() - start:.0f} s", flush=True)
            if status: sys.exit(status)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--more", nargs="*", default=[], help="commands that are run after those of the first block")
    parser.add_argument("--outputs", type=Path, help="a folder for the text that the cells show, as pytest's --outputs here")
    args = parser.parse_args()
    first, *others = blocks((root/"README.md").read_text(encoding="utf-8"))
    run([*first, *args.more], {"PYTEST_ADDOPTS": f"--outputs={args.outputs.resolve()}"} if args.outputs else {})
    for commands in others: run(commands, FEW)


if __name__ == "__main__": main()
