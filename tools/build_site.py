"""Build the website into _docs/ from nbs/, hwnn/ and _quarto.yml: with Quarto where it is installed, else in pure Python with smalldocs.

`--preview` serves it at http://127.0.0.1:4200, builds it again when a notebook changes, and reloads the page. With STUDENT=1 in the environment
the functions that are exercises have no body, and what is folded as a solution is left out, of the pages and of the notebooks to download."""
import base64, functools, hashlib, html, http.server, io, json, os, posixpath, re, shutil, subprocess, sys, textwrap, threading, time
from configparser import ConfigParser
from pathlib import Path

import yaml
from PIL import Image

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))  # the pages describe the library beside them, wherever another copy is installed
from api_pages import api_pages, escaped
from hwnn.homework import without_solutions
from optional import OPTIONAL, directives, lacking

stage, out, nbs = root/"_site_src", root/"_docs", root/"nbs"
parser = ConfigParser(delimiters=["="])
parser.read(root/"settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]
address = settings["repository"].rstrip("/")
github = address.removeprefix("https://github.com/") if address.startswith("https://github.com/") else ""
NUMBER = re.compile(r"\b\d+[a-zA-Z0-9]*_(?=\w+\.ipynb)")  # in front of a notebook's name; nbdev's addresses drop it
# A page in the sidebar, which every page repeats: a link needs no boxes around it.
LEAF = re.compile(r'<div class="sidebar-item-container"><a ([^>]*)><span class="menu-text">([^<]*)</span></a></div></li>')
ICON = re.compile(r"\bbi-[\w-]+")
CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/katex@[^/\"']+/dist/")
TEX = re.compile(r"\\(?:(?:mathrm|mathbf|mathcal|text|texttt|operatorname|bar|hat|tilde)\{([^{}]*)\}|([a-zA-Z]{2,})|[,;!])")
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
        if code: text = SIGNATURE.sub(lambda m: narrowed(m[0]), text)
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


def smaller(svg):
    "A figure without what precedes its tag, metadata and comments, its lines to a hundredth of a point in SVG's short form: three quarters of its size."
    svg = re.sub(r"(?s)<metadata>.*?</metadata>|<!--.*?-->|\n\s*(?=<)", "", svg[svg.index("<svg"):])
    svg = re.sub(r'(?s)(?<= d=")[^"]*', lambda m: shorter_path(m[0]), svg)
    svg = svg.replace("xlink:href", "href").replace("DejaVuSans-", "D")   # href alone is for browsers since 2018
    return re.sub(r"<[^>]*>", lambda m: shorter_numbers(m[0]), svg)


def shorter_numbers(tag):
    "The numbers in a tag to a thousandth, without zeros at their end; what stands between tags is read, and stays."
    return re.sub(r"(\.\d*?)0+(?=[ \")])", lambda m: m[1].rstrip("."), re.sub(r"(\.\d{3})\d+", r"\1", tag))


def shorter_path(d):
    "The commands of an SVG path without what goes without saying: after a place to move or draw a line to, the next place means another line."
    d = re.sub(r"[ML][-\d. L]+", lambda m: m[0][0] + m[0][1:].replace("L ", ""), re.sub(r"\s+", " ", re.sub(r"(\.\d\d)\d+", r"\1", d)))
    return re.sub(r" ?([A-Za-z]) ?", r"\1", d)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


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
        for page in site.out.rglob("*.html"):
            up = "../"*(len(page.relative_to(site.out).parts) - 1)
            text = CDN.sub(f"{up}site_assets/katex/", page.read_text(encoding="utf-8"))
            text = text.replace('src="/site_assets/', f'src="{up}site_assets/')
            text = re.sub(r'(?s)<nav id="TOC".*?</nav>', lambda m: plain(m[0]), text)
            text = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=]+)", lambda m: up + as_webp(m[1], site.out), text)
            text = re.sub(r'(?s)(?<=<code class="sourceCode python">).*?(?=</code>)', lambda m: joined(m[0]), text)
            text = re.sub(r'(?<=<div class="sourceCode") id="cb\d+"', "", text)   # nothing leads there
            text = LEAF.sub(r"<a \1>\2</a></li>", text).replace('<li class="sidebar-item">', "<li>").replace('class="sidebar-item-text ', 'class="')
            text = MENU.sub(lambda m: m[1] + menu_once(m[2], page.relative_to(site.out).as_posix(), site.out), text)
            write(page, text.replace('<svg alt="', '<svg role="img" aria-label="'))  # an svg has no alt
        found = json.loads((site.out/"search.json").read_text(encoding="utf-8"))
        # Every reader of a page loads the index: the beginning of each section will do to find it.
        write(site.out/"search.json", json.dumps([{k: plain(v[:60] if k == "text" else v) for k, v in entry.items() if k != "objectID"} for entry in found], ensure_ascii=False))
        (site.out/"site_libs/bootstrap-icons/fonts/bootstrap-icons.woff").unlink()  # for browsers that do not know its woff2
        used = {icon for path in site.out.rglob("*.html") for icon in ICON.findall(path.read_text(encoding="utf-8"))}
        icons = site.out/"site_libs/bootstrap-icons/bootstrap-icons.min.css"
        write(icons, re.sub(r"\.(bi-[\w-]+)::before\{[^}]*\}", lambda m: m[0] if m[1] in used else "", icons.read_text(encoding="utf-8")))   # of two thousand
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(stage/"_site", out)
    shutil.rmtree(stage)
    for path in nbs.rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts: write(out/"notebooks"/path.relative_to(nbs), without_outputs(path))


def plain(text):
    "A formula where KaTeX does not reach it, in a table of contents or a search result: HTML has many of TeX's names."
    return TEX.sub(lambda m: m[1] or m[2] and html.unescape(f"&{m[2]};").strip("&;") or " ", text)


def joined(code):
    "Highlighted code with operators in the colour of text, neighbours of one colour in one element, and quotes as they are: a tenth fewer bytes."
    code = re.sub(r'<span class="op">([^<]*)</span>', r"\1", code)
    code = code.replace("&quot;", '"').replace("&#x27;", "'")
    neighbours = re.compile(r'(<span class="(\w\w)">[^<]*)</span><span class="\2">')
    while neighbours.search(code): code = neighbours.sub(r"\1", code)
    return re.sub(r'<span class="(\w\w)">', r"<span class=\1>", code)   # HTML asks for no quotes here


def as_webp(png, folder):
    "The address of a picture in a file of its own: the same pixels in fewer bytes, which a page need not load before they are shown."
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA").save(file, "webp", lossless=True, method=6)
    at = f"site_assets/figures/{hashlib.sha256(png.encode()).hexdigest()[:16]}.webp"
    (folder/at).parent.mkdir(exist_ok=True)
    (folder/at).write_bytes(file.getvalue())
    return at


MENU = re.compile(r'(?s)(<nav id="quarto-sidebar"[^>]*>)(.*?)(?=</nav>)')
# Puts the menu where the script stands, with addresses as this page sees them.
MENU_SCRIPT = """{const s = document.currentScript, box = document.createElement("div"); box.innerHTML = MENU;
for (const a of box.querySelectorAll("a[href]")) { if (a.getAttribute("href") === s.dataset.page) { a.classList.add("active"); a.setAttribute("aria-current", "page"); }
a.setAttribute("href", s.dataset.up + a.getAttribute("href")); } s.replaceWith(...box.childNodes);}"""


def menu_once(menu, page, folder):
    "A script in the place of the menu, which is the same on every page but for addresses and the mark of the page itself, and was a tenth of the site."
    same = re.sub(r'href="([^"#:]+)"', lambda m: f'href="{posixpath.normpath(posixpath.join(posixpath.dirname(page), m[1]))}"', re.sub(' active(?=")| aria-current="page"', "", menu))
    name = f"site_libs/menu-{hashlib.sha256(same.encode()).hexdigest()[:8]}.js"
    write(folder/name, MENU_SCRIPT.replace("MENU", json.dumps(same, ensure_ascii=False)))
    up = "../"*page.count("/")
    return f'<script src="{up}{name}" data-up="{up}" data-page="{page}"></script><noscript><a href="{up}reading_path.html">All pages</a></noscript>'


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
