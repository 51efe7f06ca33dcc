"""Run the tests with the oldest and the newest versions that settings.ini allows, on each Python that is there, and write the table of CONTRIBUTING.md.

`python tools/versions.py [--python 3.11 ...] [--versions lowest newest]`; needs uv. A row that was not run again stays as it is."""
import argparse, os, re, subprocess, sys, tempfile
from configparser import ConfigParser
from datetime import date
from pathlib import Path

root = Path(__file__).resolve().parent.parent
parser = ConfigParser(delimiters=["="])
parser.read(root/"settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]
PYTHONS = "3.11", "3.12", "3.13", "3.14"
RESOLUTION = {"lowest": "lowest-direct", "newest": "highest"}
SHOWN = "numpy", "fastcore", "matplotlib", "numba", "nbdev", "pytest"
HEAD = ["Python", "versions", *SHOWN, "tests", "date"]
table = re.compile(r"(?<=<!-- versions -->\n).*?(?=<!-- /versions -->)", re.S)


PATH = os.pathsep.join([os.environ["PATH"], *map(str, Path.home().glob(".pyenv/versions/*/bin"))])   # where uv looks for Pythons


def uv(*args): return subprocess.run([sys.executable, "-m", "uv", *map(str, args)], capture_output=True, text=True, env=os.environ | {"PATH": PATH})


def run(python, versions, folder):
    "One row of the table, or None where this Python cannot be had."
    env, log = folder/"env", folder/"log"
    if uv("venv", "-q", "--seed", "--python", python, env).returncode: return print(f"Python {python}: not here")
    # Wheels alone: on a newer Python, the oldest version is the oldest that was made for it.
    wanted = " ".join(settings[key] for key in ("requirements", "dev_requirements", "fast_requirements", "onnx_requirements")).split()
    for what in (["--no-build", "--resolution", RESOLUTION[versions], *wanted], ["--no-deps", "-e", root]):
        done = uv("pip", "install", "-q", "--python", env, *what)
        if done.returncode: sys.exit(done.stderr)
    freeze = dict(line.split("==") for line in uv("pip", "freeze", "--python", env).stdout.splitlines() if "==" in line)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS_CORETYPE", "PYTHON"))}
    with open(log, "w+") as out:   # a browser shows the same site, whatever the versions
        subprocess.run([env/"bin/python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "--ignore=tests/test_browser.py"], cwd=root, env=clean, stdout=out, stderr=subprocess.STDOUT)
        out.seek(0)
        text = out.read()
    result = re.findall(r"(?m)^(?:=+ )?((?:\d+ \w+,? ?)+)in ", text)
    if not result or "failed" in result[-1] or "error" in result[-1]: print(text.partition("= FAILURES =")[2] or text[-6000:])
    full = subprocess.run([env/"bin/python", "-V"], capture_output=True, text=True).stdout.split()[-1]
    return [full, versions, *(freeze.get(name, "") for name in SHOWN), result[-1].strip() if result else "did not run", str(date.today())]


def rows(text): return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--python", nargs="+", default=PYTHONS)
    options.add_argument("--versions", nargs="+", default=list(RESOLUTION), choices=RESOLUTION)
    args = options.parse_args()
    path = root/"CONTRIBUTING.md"
    for python in args.python:
        for versions in args.versions:
            with tempfile.TemporaryDirectory() as folder: row = run(python, versions, Path(folder))
            if not row: continue
            print(*row, sep="  ", flush=True)
            text = path.read_text(encoding="utf-8")
            kept = [r for r in rows(table.search(text)[0]) if not (r[0].startswith(python) and r[1] == versions)]
            line = lambda cells: "| " + " | ".join(cells) + " |\n"
            body = "".join(map(line, sorted([*kept, row], key=lambda r: ([*map(int, r[0].split("."))], r[1]))))
            path.write_text(table.sub(line(HEAD) + line(["---"]*len(HEAD)) + body, text), encoding="utf-8")


if __name__ == "__main__": main()
