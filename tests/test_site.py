"""The website as files: every link leads somewhere, nothing comes from another host, nothing is left unrendered."""
import json
import re
import subprocess
import sys
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from optional import is_optional

root = Path(__file__).resolve().parent.parent
notebooks = sorted(p.relative_to(root/"nbs").as_posix() for p in (root/"nbs").rglob("*.ipynb") if not any(part.startswith(".") for part in p.parts))
config = yaml.safe_load((root/"_quarto.yml").read_text(encoding="utf-8"))
MOVED = dict(line.split() for line in (root/"tools/moved.txt").read_text(encoding="utf-8").splitlines())
address_of = lambda path: re.sub(r"\d+[a-zA-Z0-9]*_(?=\w+\.)", "", path).rsplit(".", 1)[0] + ".html"
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    "What the tests ask of a page: ids, links, what it loads, pictures, visible text, code outside links."

    def __init__(self, path):
        super().__init__()
        self.open, self.ids, self.links, self.loads, self.mute, self.text, self.unlinked = [], set(), [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a.get("id"), a.get("data-anchor-id")}
        if tag == "a" and a.get("href"): self.links.append(a["href"])
        if tag != "a": self.loads += [a[k] for k in ("src", "srcset", "href", "xlink:href", "poster", "data") if a.get(k) and tag != "base"]
        self.loads += re.findall(r"url\(([^)]*)\)", a.get("style") or "")
        inside = [t for t, _ in self.open]
        hidden = a.get("aria-hidden") == "true"
        if tag == "img" and not (a.get("alt") or "").strip() and not hidden: self.mute.append(str(a)[:80])
        if tag == "svg" and "svg" not in inside and not hidden and not (a.get("role") in ("img", "group") and (a.get("aria-label") or "").strip()): self.mute.append(f"svg {str(a)[:80]}")
        if tag not in VOID: self.open.append((tag, a.get("class") or ""))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID: self.open.pop()

    def handle_endtag(self, tag):
        while self.open and tag in [t for t, _ in self.open]:
            if self.open.pop()[0] == tag: break

    def handle_data(self, data):
        inside = [t for t, _ in self.open]
        if "style" in inside: self.loads += re.findall(r"""url\(["']?([^)"']*)|@import\s+["']([^"']*)""", data)
        # nbdev links no names in what is folded, which is HTML to it.
        if "code" in inside and not {"pre", "a", "details"} & set(inside): self.unlinked.append(data)
        quiet = {"script", "style", "pre", "code", "svg", "title", "head"} & set(inside) or any("math" in c.split() for _, c in self.open)
        if not quiet: self.text.append(data)




@pytest.fixture(scope="module")
def pages(site):
    found = {p.relative_to(site[0]).as_posix(): Page(p) for p in site[0].rglob("*.html")}
    return {name: page for name, page in found.items() if name.removesuffix(".html") not in MOVED}


def test_old_addresses_lead_to_the_pages_of_today(site, pages):
    for old, new in MOVED.items():
        if new.startswith("api/engine/") and f"{new}.html" not in pages: new = "api"   # without Numba
        assert f"{new}.html" in pages, (old, new)
        [link] = Page(site[0]/f"{old}.html").links
        assert (site[0]/f"{old}.html").parent.joinpath(link).resolve() == (site[0]/f"{new}.html").resolve()


def listed(contents, folder):
    "The addresses of the pages in a sidebar, in order."
    for entry in [contents] if isinstance(contents, str) else contents:
        if not isinstance(entry, str): yield from listed(entry["contents"], folder)
        elif "*" in entry: yield from sorted(name for p in folder.glob(entry.replace(".qmd", ".html")) if (name := p.relative_to(folder).as_posix()).removesuffix(".html") not in MOVED)
        else: yield address_of(entry)


def test_the_builder_has_nothing_to_say(site):
    assert "site:" not in site[1], site[1]


def test_every_page_is_in_the_sidebar(site, pages):
    reading, reference = bars = [list(listed(bar["contents"], site[0])) for bar in config["website"]["sidebar"]]
    assert sorted(reading) == sorted(map(address_of, notebooks))
    assert sorted(reading + reference) == sorted(pages)
    # Previous and next at the foot follow the sidebar.
    for bar in bars:
        order = [(site[0]/page).resolve() for page in bar]
        for before, page, after in zip([None, *order], order, [*order[1:], None]):
            foot = page.read_text(encoding="utf-8").rpartition('<nav class="page-navigation">')[2]
            assert [(page.parent/h).resolve() for h in re.findall(r'href="([^"]*)" class="pagination-link"', foot)] == [p for p in (before, after) if p]


def test_nothing_comes_from_another_host(site, pages):
    outside = re.compile(r"\s*(https?:)?//")
    found = {(name, load) for name, page in pages.items() for load in page.loads for load in (load if isinstance(load, tuple) else (load,)) if outside.match(load)}
    for css in site[0].rglob("*.css"):
        found |= {(css.name, url) for pair in re.findall(r"""url\(["']?([^)"']*)|@import\s+["']([^"']*)""", css.read_text(encoding="utf-8")) for url in pair if outside.match(url)}
    assert not found


def test_every_link_inside_leads_somewhere(site, pages):
    broken = set()
    for name, page in pages.items():
        here = (site[0]/name).parent
        for href in page.links + [load for load in page.loads if isinstance(load, str)]:
            if re.match(r"[a-z]+:|//", href) or href == "#": continue
            path, _, anchor = href.partition("#")
            target = (here/unquote(path)).resolve() if path else site[0].resolve()/name
            if target.is_dir(): target /= "index.html"
            if not target.exists(): broken.add((name, href))
            elif anchor and target.suffix == ".html" and unquote(anchor) not in pages[target.relative_to(site[0].resolve()).as_posix()].ids: broken.add((name, href))
    assert not broken


def test_every_picture_has_alternative_text(pages):
    assert not {name: page.mute for name, page in pages.items() if page.mute}


def test_nothing_is_left_unrendered(pages):
    raw = re.compile(r"\\[a-zA-Z]{2,}|\\[(\[]|\$\$|\$[^\s$][^$\n]*\$|`|\*\*|(?<![\w*])\*[\w ]+\*(?!\w)|\]\(|:::|\{[#.]\w|(?m:^#+ )|<!--|\[\[")
    found = {}
    for name, page in pages.items():
        text = "".join(page.text)
        found |= {(name, text[max(0, m.start() - 30):m.end() + 30]): 1 for m in raw.finditer(text)}
    assert not list(found)


def test_signatures_keep_to_the_column(site, pages):
    "What nbdev and the reference show of a function; the cells of the notebooks are counted in test_project.py."
    found = set()
    for name in pages:
        for tag, code in re.findall(r"(?s)(<pre[^>]*sourceCode python[^>]*>)(.*?)</pre>", (site[0]/name).read_text(encoding="utf-8")):
            if "cell-code" not in tag: found |= {(name, line) for line in unescape(re.sub(r"<[^>]*>", "", code)).splitlines() if len(line) > 80}
    assert not found


def test_sizes(site):
    assert sum(p.stat().st_size for p in site[0].rglob("*") if p.is_file()) < 16e6
    assert not {p.name: p.stat().st_size for p in site[0].rglob("*.html") if p.stat().st_size > 1.5e6}


@pytest.fixture(scope="module")
def public():
    "Each public function and class: name -> its modules."
    from hwnn._modidx import d
    names = {}
    for module in d["syms"]:
        try: mod = import_module(module)
        except ModuleNotFoundError as e:
            if is_optional(e.name): continue   # the builder says so, and leaves the module out
            raise
        for name in mod.__all__:
            if callable(getattr(mod, name)): names.setdefault(name, []).append(module)
    return names


def test_every_public_name_is_in_the_reference(site, pages, public):
    for name, modules in public.items():
        for module in modules:
            page = "api/" + module.removeprefix("hwnn.").replace(".", "/") + ".html"
            assert name in pages[page].ids, (page, name)
            assert f"{page}#{name}" in pages["api.html"].links, name


def test_names_stand_as_they_are_written(site, pages):
    "Names that differ in case alone have their own anchors, and underscores do not make a name bold."
    assert ">Activation.__call__<" in (site[0]/"api/activations.html").read_text(encoding="utf-8")
    assert {"conv2d", "Conv2D", "conv2d_backward"} <= pages["layers/convolution_layer.html"].ids
    assert {"../../layers/convolution_layer.html#conv2d", "../../layers/convolution_layer.html#Conv2D"} <= set(pages["api/layers/convolution.html"].links)


def test_backticked_names_link(pages, public):
    unlinked = Counter((page, text) for page in pages for text in pages[page].unlinked if text.removesuffix("()") in public)
    assert not unlinked


def test_every_notebook_can_be_taken_along(site, pages):
    for path in notebooks:
        page = address_of(path)
        assert (site[0]/"notebooks"/path).exists()
        assert "../"*page.count("/") + f"notebooks/{path}" in pages[page].links
        assert f"jupyter lab nbs/{path}" in (site[0]/page).read_text(encoding="utf-8")


def test_an_address_makes_links(tmp_path, build_site):
    "The repository's address stands in settings.ini alone; filled in, it appears in README and on the site."
    site, _ = build_site(tmp_path, "https://github.com/someone/hwnn", keep=lambda p: p.name in ("index.ipynb", "checks.ipynb"))
    subprocess.run([sys.executable, "tools/readme.py"], cwd=tmp_path, check=True)
    assert "[Source](https://github.com/someone/hwnn)" in (tmp_path/"README.md").read_text(encoding="utf-8")
    page = (site/"ground/checks.html").read_text(encoding="utf-8")
    for link in ("https://github.com/someone/hwnn/blob/main/hwnn/checks.py#L", "https://github.com/someone/hwnn/issues",
                 "https://colab.research.google.com/github/someone/hwnn/blob/main/nbs/ground/checks.ipynb", "%pip install git+https://github.com/someone/hwnn",
                 'property="og:image" content="https://someone.github.io/hwnn/site_assets/card.png"'): assert link in page, link
    assert "https://github.com/someone/hwnn/blob/main/hwnn/checks.py#L" in (site/"api/checks.html").read_text(encoding="utf-8")

def test_figures_say_on_the_site_what_they_say_in_the_notebook(site):
    "Text in a figure is read: no number in it may be shortened on the way."
    words = lambda svg: re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", svg)
    seen = 0
    for path in notebooks:
        cells = json.loads((root/"nbs"/path).read_text(encoding="utf-8"))["cells"]
        figures = ["".join(svg) for cell in cells for o in cell.get("outputs", []) if (svg := o.get("data", {}).get("image/svg+xml"))]
        page = (site[0]/address_of(path)).read_text(encoding="utf-8")
        shown = [words(svg) for svg in re.findall(r"(?s)<svg.*?</svg>", page)]
        for svg in figures:
            if "DejaVuSans-" in svg: continue   # an older figure, whose digits are drawn
            assert words(svg) in shown, (path, words(svg)[:12])
            seen += 1
    assert seen > 60
