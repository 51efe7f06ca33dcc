"""Build the website into _docs/ from nbs/, hwnn/ and _quarto.yml: with Quarto where it is installed, else in pure Python with smalldocs.

`--preview` serves it at http://127.0.0.1:4200, builds it again when a notebook changes, and reloads the page. With STUDENT=1 in the environment
the functions that are exercises have no body, and what is folded as a solution is left out, of the pages and of the notebooks to download."""
import functools, html, http.server, json, os, re, shutil, subprocess, sys, textwrap, threading, time
from configparser import ConfigParser
from pathlib import Path

import yaml

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))  # the pages describe the library beside them, wherever another copy is installed
from api_pages import api_pages, escaped
from hwnn.homework import without_solutions
from optional import OPTIONAL, directives, lacking
from small_site import shrink, smaller, write

stage, out, nbs = root/"_site_src", root/"_docs", root/"nbs"
parser = ConfigParser(delimiters=["="])
parser.read(root/"settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]
address = settings["repository"].rstrip("/")
github = address.removeprefix("https://github.com/") if address.startswith("https://github.com/") else ""
NUMBER = re.compile(r"\b\d+[a-zA-Z0-9]*_(?=\w+\.ipynb)")  # in front of a notebook's name; nbdev's addresses drop it
NAME = re.compile(r"\[`([^`]+)`\]\(/([^)#:]*)\.html#([^)]*)\)")  # a backticked name, as nbdev links it
SIGNATURE = re.compile(r"(?ms)^def [^\n]*\($.*?^\)[^\n]*$")  # as nbdev writes it: a parameter a line, with its comment
SHOWN = re.compile(r"^(#+) ([\w.]+)$", re.M)  # the heading that nbdev puts above a signature


def pages(preview=False):
    "The notebooks as nbdev processes them, under the addresses that its links use: address -> (source, notebook)."
    subprocess.run([sys.executable, root/"tools/process_pages.py", *(["--changed"] if preview else [])], check=True)
    proc = root/"_proc"
    found = sorted(p.relative_to(nbs) for p in nbs.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    return {NUMBER.sub("", p.as_posix()).removesuffix(".ipynb"): (p.as_posix(), for_readers(json.loads((proc/p).read_text(encoding="utf-8")))) for p in found}


def for_readers(nb):
    "The notebook itself, or without its solutions if the site is one for students."
    return without_solutions(nb) if os.environ.get("STUDENT") else nb


def texts(cell):
    "The Markdown of a cell: what it says, or what nbdev put below it."
    if cell["cell_type"] != "code": yield cell, "source"
    for output in cell.get("outputs", []):
        if "text/markdown" in output.get("data", {}): yield output["data"], "text/markdown"


def write_stage(preview=False):
    "Everything that either renderer needs, in _site_src/."
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(nbs/"site_assets", stage/"site_assets", ignore=shutil.ignore_patterns("readme"))
    found = pages(preview)
    # Two names that differ in case alone, conv2d and Conv2D, need anchors of their own: the name as it is written.
    shown = {at: {name for cell in nb["cells"] if cell["cell_type"] == "code" for part, key in texts(cell)
                  for _, name in SHOWN.findall("".join(part[key]))} for at, (_, nb) in found.items()}
    titles = {at: re.search(r"^title: (.*)$", "".join(nb["cells"][0]["source"]), re.M)[1].strip("'\"") for at, (_, nb) in found.items()}

    def anchored(at, name):
        "The address of a name on the page that derives it; a method without a heading is found at its class."
        anchor = next((n for n in (name, name.split(".")[0]) if n in shown.get(at, ())), "")
        return f"/{at}.html" + (f"#{anchor}" if anchor else "")

    def link(match):
        name, at, anchor = match.groups()
        return f"[`{name}`]({anchored(at, name.removesuffix('()')[-len(anchor):])})"

    def restaged(text, code):
        text = NAME.sub(link, NUMBER.sub("", text))
        if code: text = SIGNATURE.sub(lambda m: narrowed(m[0].replace("__main__.", "")), text)   # classes of the page itself
        if code: text = SHOWN.sub(lambda m: f"{m[1]} {escaped(m[2])} {{#{m[2]}}}", text)
        return text.replace("](/blob/", f"]({address}/blob/") if address else re.sub(r"\[source\]\(/blob[^)]*\)\{[^}]*\}", "", text)

    for at, (source, nb) in found.items():
        for cell in nb["cells"]:
            for part, key in texts(cell): part[key] = restaged("".join(part[key]), cell["cell_type"] == "code")
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if svg := "".join(data.get("image/svg+xml", "")): data["image/svg+xml"] = smaller(svg)
                # A link to a notebook that an output made itself: neither renderer looks into HTML.
                if shows := "".join(data.get("text/html", "")): data["text/html"] = re.sub(r'(href="[^":]*)\.ipynb(?=[#"])', r"\1.html", shows)
        front = nb["cells"][0]
        front["source"] = re.sub(r"(?m)^output-file: .*\n", "", front["source"])
        nb["cells"].append({"cell_type": "markdown", "metadata": {}, "source": f"```{{=html}}\n{open_page(at, source)}\n```"})
        write(stage/f"{at}.ipynb", json.dumps(nb))
    for path, text in api_pages(settings, anchored, titles).items(): write(stage/path, NAME.sub(link, text))
    write(stage/"_quarto.yml", yaml.safe_dump(config(), sort_keys=False))


def narrowed(signature, width=80):
    "A signature whose long comments stand above their parameters, so that it keeps to the column."
    lines = []
    for line, more in re.findall(r"(?m)^(?! +#)(.*)((?:\n +#.*)*)", signature):
        code, mark, comment = line.partition(" # ")
        if mark and (more or len(line) > width):
            comment = " ".join([comment, *re.findall(r"# *(.*)", more)])
            lines += textwrap.wrap(comment, width, initial_indent="    # ", subsequent_indent="    # ", break_long_words=False, break_on_hyphens=False)
            line = code
        lines += [line] if mark or len(line) <= width else textwrap.wrap(line, width, subsequent_indent="    ", drop_whitespace=True, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def config():
    "The settings of _quarto.yml, with the new names of the notebooks and what follows from the repository's address."
    cfg = yaml.safe_load(NUMBER.sub("", (root/"_quarto.yml").read_text(encoding="utf-8")))
    cfg["project"]["output-dir"] = "_site"
    web = cfg["website"]
    if address: web |= {"repo-url": address, "repo-actions": ["issue"]}
    if github:
        owner, name = github.split("/")
        web["site-url"] = f"https://{owner}.github.io/{name}"
        web["navbar"]["tools"] = [{"icon": "github", "href": address, "text": "Source"}]
    return cfg


def open_page(at, source):
    "How to run a page: the block at its foot."
    up = "../"*at.count("/")
    colab = f'<a href="https://colab.research.google.com/github/{github}/blob/main/nbs/{source}">Open in Colab</a> · ' if github else ""
    install = f"%pip install git+{address}" if address else "%pip install ./hwnn-*.whl"
    upload = "" if address else " and the wheel that <code>pip wheel --no-deps .</code> makes in the repository"
    return f"""<details class="hwnn-open"><summary>This page is a notebook: run it, change it</summary>
<p>{colab}<a href="{up}notebooks/{source}" download>Download the notebook</a></p>
<p>In <strong>JupyterLab</strong>, in a copy of the repository: <code>make lab</code>, or <code>pip install -e '.[lab]'</code> once and then
<code>jupyter lab nbs/{html.escape(source)}</code>.</p>
<p>In <strong>Colab</strong>: File, Upload notebook, choose the downloaded file{upload}; then run <code>{install}</code> in a cell of its own, and Runtime, Run all.</p>
</details>"""


def render(preview=False):
    "Render _site_src/ and move the result to _docs/."
    if shutil.which("quarto") and not preview: subprocess.run(["quarto", "render", str(stage), "--no-execute"], check=True)
    else:
        from smalldocs import highlight
        from smalldocs.config import load
        from smalldocs.site import Site
        highlight.css_class = functools.cache(highlight.css_class)   # asked a quarter of a million times about a few thousand tokens
        site = Site(load(stage), preview=preview)
        site.build()
        warnings = {re.sub(r"^[\w/]+\.(ipynb|qmd): (?=broken)", "", w) for w in site.warnings if not w.endswith("is ignored")}
        for warning in sorted(warnings): print("site:", warning)  # what is ignored are settings that only Quarto reads
        shrink(site.out)
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(stage/"_site", out)
    shutil.rmtree(stage)
    for path in nbs.rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts: write(out/"notebooks"/path.relative_to(nbs), without_outputs(path))


def without_outputs(path):
    "The notebook to download: its page shows the outputs, and running it makes them."
    nb = for_readers(json.loads(path.read_text(encoding="utf-8")))
    for cell in nb["cells"]:
        if "outputs" in cell: cell["outputs"] = []
        del cell["id"]   # the format before it had any is read everywhere
        cell["source"] = "".join(cell["source"])   # the format allows lines or the whole
    nb["nbformat_minor"] = 4
    return json.dumps(nb, ensure_ascii=False, separators=(",", ":"))


def serve(port=4200):
    "Serve _docs/ and build it again whenever a file in nbs/ or _quarto.yml has changed."
    from smalldocs.serve import Handler, snapshot
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{port}/ (Ctrl-C stops)")
    look = lambda: snapshot(nbs, out) | {"_quarto.yml": (root/"_quarto.yml").stat().st_mtime}
    seen = look()
    while True:
        time.sleep(0.5)
        if (now := look()) == seen: continue
        seen = now
        try: build(preview=True)
        except Exception as e: print("site:", e)  # a notebook that is being saved; the next save builds again
        Handler.version += 1


def build(preview=False):
    write_stage(preview)
    render(preview)
    forward()
    print(f"{len(list(out.rglob('*.html')))} pages in {out.relative_to(root)}/")
    for name, at in unsigned().items(): print(f"without {OPTIONAL[name][0]}, {len(at)} of them have no signatures; to add it: {OPTIONAL[name][2]}")


def forward():
    "A page at each address that the site once had, which leads to the one of today: the pairs in tools/moved.txt."
    for line in (root/"tools/moved.txt").read_text(encoding="utf-8").splitlines():
        old, new = line.split()
        if not (out/f"{new}.html").exists(): new = "api"   # without Numba there is no reference of what it compiles
        to = "../"*old.count("/") + f"{new}.html"
        write(out/f"{old}.html", f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Moved</title><meta http-equiv="refresh" content="0; url={to}">'
              f'<link rel="canonical" href="{to}"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"></head>'
              f'<body style="background: Canvas; color: CanvasText"><main><h1>Moved</h1><p>This page is now <a href="{to}">here</a>.</p></main></body></html>\n')


def unsigned():
    "The pages whose code could not be loaded to show its signatures, by what is missing: name -> paths."
    found = {}
    for path in nbs.rglob("*.ipynb"):
        code = [c["source"] for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        for name in lacking(directives("".join(code[0])), ()): found.setdefault(name, []).append(path)
    return found


if __name__ == "__main__":
    os.chdir(root)
    build("--preview" in sys.argv)
    if "--preview" in sys.argv: serve()
