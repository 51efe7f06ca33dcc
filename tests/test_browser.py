"""The website and JupyterLab in a real browser: headless Chromium, driven by Playwright. Skipped where one of them is missing."""
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from optional import BROWSERS, has
from playwright import sync_api as playwright

root = Path(__file__).resolve().parent.parent
chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.needs("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
notebooks = sorted(p.relative_to(root/"nbs").as_posix() for p in (root/"nbs").rglob("*.ipynb") if not any(part.startswith(".") for part in p.parts))
address_of = lambda path: re.sub(r"\d+[a-zA-Z0-9]*_(?=\w+\.)", "", path).removesuffix(".ipynb") + ".html"
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    # For this module alone: while Playwright runs, its event loop stands in the way of other tests' loops.
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def base(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site[0])))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def visit(browser, base):
    "Open an address of the site in the one tab that all tests share, which notes what goes wrong."
    tab = browser.new_page(viewport=DESKTOP, color_scheme="light")
    wrong = []
    tab.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    tab.on("request", lambda r: None if r.url.startswith((base, "data:", "blob:")) else wrong.append(f"request {r.url}"))

    def go(page, viewport=DESKTOP, scheme="light"):
        wrong.clear()
        tab.set_viewport_size(viewport)
        tab.emulate_media(color_scheme=scheme)
        tab.goto(base + page, wait_until="load")
        tab.wait_for_function("[...document.querySelectorAll('span.math')].every(e => e.querySelector('.katex'))", timeout=20_000)
        tab.evaluate("document.fonts.ready.then(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))))")   # what scrolls was looked for
        tab.wait_for_function("document.getAnimations().every(a => a.playState !== 'running')")   # colours that change with the scheme have changed
        return tab, wrong
    yield go
    tab.close()


def moved(folder): return {folder/f"{line.split()[0]}.html" for line in (root/"tools/moved.txt").read_text(encoding="utf-8").splitlines()}


def expected(path):
    "How many formulas and interactive figures a notebook holds, in its Markdown and in what its cells show."
    cells = json.loads((root/"nbs"/path).read_text(encoding="utf-8"))["cells"]
    outputs = [o.get("data", {}) for c in cells for o in c.get("outputs", [])]
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"] + ["".join(o.get("text/markdown", "")) for o in outputs]
    formulas = 0
    for text in texts:
        text = re.sub(r"(?s)```.*?```|(`+).+?\1", "", text)
        text, shown = re.subn(r"(?s)\$\$.+?\$\$", "", text)
        formulas += shown + len(re.findall(r"(?s)(?<!\\)\$(?=\S).+?(?<=\S)\$", text))
    pages = "".join("".join(o.get("text/html", "")) for o in outputs)
    return formulas, pages.count('class="hwnn-explore"'), pages.count('class="hwnn-cells"')


# The frame that can be seen, in short: all its bytes would take long to hand over.
PICTURE = """slider => { const frames = [...slider.closest('.hwnn-explore').querySelectorAll('img')], seen = frames.filter(f => f.offsetWidth);
  let hash = 0; for (const c of seen[0].src) hash = hash*31 + c.charCodeAt(0) | 0; return `${seen.length} ${hash}` }"""


def move(tab, slider):
    "A slider changes its picture: by keyboard, and when its other end is touched."
    slider.scroll_into_view_if_needed()
    first = slider.evaluate(PICTURE)
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert slider.evaluate(PICTURE) != first
    tab.keyboard.press("Home")
    assert slider.evaluate(PICTURE) == first
    box = slider.bounding_box()
    tab.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"]/2)
    assert slider.input_value() == slider.get_attribute("max") and slider.evaluate(PICTURE) != first
    tab.keyboard.press("Home")


def point(tab, figure):
    "Linked cells follow the pointer and the arrow keys, and the choice above them shows another figure."
    marked = lambda: figure.evaluate("f => JSON.stringify([...f.querySelectorAll('div:not([hidden]) > svg [data-l]')].map(c => c.getAttribute('class')))")
    cells = figure.locator("div:not([hidden]) > svg [data-l]")
    figure.scroll_into_view_if_needed()
    states = []
    for k in (0, cells.count() - 1):
        cells.nth(k).hover()
        states.append(marked())
    cells.first.focus()
    for key in ("ArrowRight", "ArrowDown"):
        tab.keyboard.press(key)
        states.append(marked())
    assert all(a != b for a, b in zip(states, states[1:])) and all('"at"' in s or "on" in s for s in states)
    select = figure.locator("select")
    for k in reversed(range(select.locator("option").count())):
        select.select_option(index=k)
        assert figure.evaluate("f => [...f.querySelectorAll('svg')].map(s => s.parentElement.hidden).indexOf(false)") == k


@pytest.mark.parametrize("path", notebooks)
def test_page(path, visit):
    "Formulas are rendered, nothing overflows sideways on a dark phone or a light desktop, interactive figures answer, the console is silent and no other host is asked."
    tab, wrong = visit(address_of(path), PHONE, "dark")
    for viewport, scheme in ((PHONE, "dark"), (DESKTOP, "light")):
        tab.set_viewport_size(viewport)
        tab.emulate_media(color_scheme=scheme)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), (viewport, scheme)
    formulas, sliders, linked = expected(path)
    assert tab.locator("main .katex").count() == formulas
    assert tab.locator(".katex-error").count() == 0
    assert tab.locator("main .hwnn-explore").count() == sliders and tab.locator("main .hwnn-cells").count() == linked
    for slider in tab.locator("main .hwnn-explore input[type=range]").all(): move(tab, slider)
    for figure in tab.locator("main .hwnn-cells").all(): point(tab, figure)
    assert not wrong


def test_reference_pages(site, visit):
    for page in ["api.html", *sorted(p.relative_to(site[0]).as_posix() for p in (site[0]/"api").rglob("*.html") if p not in moved(site[0]))]:
        tab, wrong = visit(page, PHONE, "dark")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), page
        assert tab.locator(".katex-error").count() == 0 and not wrong, page


# What is drawn of a formula is thousands of elements in the colour of their paragraph; `region`, a moderate finding, takes long to look for.
AXE = "axe.run({exclude: [['.katex-html']]}, {resultTypes: ['violations'], rules: {region: {enabled: false}}})"


def findings(tab):
    "What axe-core, the usual checker of accessibility, finds serious or critical in the page that is shown."
    tab.evaluate(AXE_SCRIPT)
    return {(v["id"], n["html"][:120], n["failureSummary"][-250:]) for v in tab.evaluate(AXE)["violations"] if v["impact"] in ("serious", "critical") for n in v["nodes"]}


WAYS = [(DESKTOP, "light"), (PHONE, "dark"), (DESKTOP, "dark"), (PHONE, "light")]
ALL_WAYS = ["index.html", "heart.html", "ground/figures.html", "training/networks_inspecting.html", "api/layers/convolution.html"]


@pytest.mark.parametrize("page, way", [*((address_of(path), WAYS[i % 2]) for i, path in enumerate(notebooks)), *((page, way) for page in ALL_WAYS for way in WAYS)],
                         ids=lambda x: x if isinstance(x, str) else f"{x[0]['width']}-{x[1]}")
def test_everyone_can_use_it(page, way, visit):
    "axe-core finds nothing serious or critical: each page on a light desktop or on a dark phone, some in all four ways."
    tab, _ = visit(page, *way)
    assert not findings(tab)


def test_everyone_can_use_the_reference_and_old_addresses(site, base, visit):
    files = ["api.html", *sorted(p.relative_to(site[0]).as_posix() for p in (site[0]/"api").rglob("*.html") if p not in moved(site[0]))]
    found = {}
    for i, page in enumerate(files):
        tab, _ = visit(page, *WAYS[i % 2])
        found[page] = findings(tab)
    # A page that leads to another is left at once: without its order to go.
    for text in {re.sub('<meta http-equiv="refresh"[^>]*>|"[^"]*html"', "", file.read_text(encoding="utf-8")) for file in moved(site[0])}:
        tab.set_content(text.replace("href=", 'href="#"'))
        found["moved"] = found.get("moved", set()) | findings(tab)
    assert not {page: what for page, what in found.items() if what}


def test_what_scrolls_is_reached_by_keyboard_and_what_does_not_is_passed(visit):
    tab, _ = visit("layers/convolution.html", PHONE)
    tab.wait_for_function("document.querySelector('main pre[tabindex]')")
    block = tab.locator("main pre[tabindex='0']:visible").first
    block.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("document.activeElement.scrollLeft > 0")
    still = "[...document.querySelectorAll('main pre[tabindex]')].filter(e => e.offsetWidth && e.scrollWidth <= e.clientWidth).length"
    assert tab.evaluate(still) == 0
    tab.set_viewport_size(DESKTOP)
    tab.wait_for_function(f"{still} === 0")


LUMINANCE = """e => { const n = getComputedStyle(e).color.match(/[\\d.]+/g).slice(0, 3).map(v => (v /= 255) <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4);
  return .2126*n[0] + .7152*n[1] + .0722*n[2] }"""
BACKGROUND = LUMINANCE.replace("getComputedStyle(e).color", "(() => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0[.\\d]*\\)$/.test(c)) return c } return 'rgb(255,255,255)' })()")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index.html", "layers/convolution.html", "api/layers/convolution.html"])
def test_text_can_be_read(page, scheme, viewport, visit):
    "Text, headings, links of the bar and code have a contrast of at least 4.5 to what is behind them."
    tab, wrong = visit(page, viewport, scheme)
    for selector in ("main p", "main h1", "main h2", ".navbar-brand", "main pre code") + ((".navbar .nav-link", "#TOC a") if viewport is DESKTOP else ()):
        element = tab.locator(selector).first
        a, b = sorted((element.evaluate(LUMINANCE), element.evaluate(BACKGROUND)))
        assert (b + 0.05)/(a + 0.05) >= 4.5, selector
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth") and not wrong


def test_the_theme_can_be_switched(visit):
    tab, _ = visit("index.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(colour)
    tab.locator(".quarto-color-scheme-toggle").first.click()
    tab.wait_for_function(f"{colour} !== '{before}'")
    tab.locator(".quarto-color-scheme-toggle").first.click()
    tab.evaluate("localStorage.clear()")


def test_search_finds_upsample(visit):
    tab, _ = visit("index.html")
    tab.locator("input[type=search]").fill("upsample")
    result = tab.locator(".smalldocs-search-results a[href*='convolution.html#upsample']").first
    result.wait_for(timeout=10_000)
    result.click()
    tab.wait_for_url("**/layers/convolution.html#upsample")
    # Formulas grow while the page is drawn; the heading is in view all the same.
    tab.wait_for_function("(() => { const y = document.getElementById('upsample').getBoundingClientRect().y; return y >= 0 && y < innerHeight/2 })()", timeout=10_000)


def test_a_folder_of_files_is_enough(site, browser):
    "Opened from a disk, a page has its menus, finds, and copies its code."
    tab = browser.new_page(viewport=DESKTOP)
    wrong = []
    tab.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    tab.goto((site[0]/"layers/pooling.html").as_uri(), wait_until="load")
    assert tab.locator("#quarto-sidebar a.active").inner_text() == tab.locator("h1").inner_text()
    assert tab.locator(".navbar .nav-link", has_text="Look up").evaluate("a => a.href") == (site[0]/"api.html").as_uri()
    block = tab.locator("main div.sourceCode").first
    block.hover()
    block.locator("button").click()
    tab.locator(".code-copy-button-checked").wait_for(timeout=10_000)
    tab.keyboard.press("Control+k")
    tab.keyboard.type("upsample")
    tab.locator("a[href*='convolution.html#upsample']").first.wait_for(timeout=10_000)
    tab.keyboard.press("Enter")
    tab.wait_for_url("file://*/**/*.html#*")
    assert not wrong
    tab.close()


def test_menu_and_sidebar_open_on_a_phone(visit):
    tab, _ = visit("layers/convolution.html", PHONE)
    tab.locator(".navbar-toggler").click()
    tab.locator(".navbar .nav-link", has_text="Look up").wait_for(state="visible")
    tab.locator(".navbar-toggler").click()
    tab.locator(".quarto-btn-toggle").click()
    tab.locator("#quarto-sidebar a", has_text="Pooling").first.wait_for(state="visible")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "JupyterLab on a copy of the notebooks, without its browser and without looking for news."
    if not has("jupyterlab"): pytest.skip("needs JupyterLab")
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(root/"nbs", folder/"nbs", ignore=shutil.ignore_patterns("_quarto.yml", ".ipynb_checkpoints"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"): env[name] = str(folder/name.lower())
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={folder/'nbs'}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate"]
    with open(folder/"log", "w") as log: server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{url}/api", timeout=1)
            break
        except OSError:
            assert server.poll() is None, (folder/"log").read_text()
            time.sleep(0.5)
    yield url
    server.terminate()
    server.wait(20)


@pytest.mark.parametrize("path", ["ground/figures.ipynb", *(["training/schedulers.ipynb"] if os.environ.get("HWNN_SLOW") else [])])   # a second page takes 15 s
def test_jupyterlab(path, lab, browser):
    "Run all cells of a page in JupyterLab without an error; moving a live slider draws another figure."
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    tab.goto(f"{lab}/lab/workspaces/{Path(path).stem}/tree/{path}")
    tab.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=60_000)
    cells = tab.evaluate("""async () => {
      await jupyterapp.restored;
      const panel = jupyterapp.shell.currentWidget, notebook = panel.content;
      await panel.context.ready;
      await panel.sessionContext.ready;
      await panel.sessionContext.session.kernel.info;
      await jupyterapp.commands.execute('notebook:run-all-cells');
      const cells = [...notebook.model.cells].map(c => c.toJSON());
      const live = cells.findIndex(c => (c.outputs || []).some(o => 'application/vnd.jupyter.widget-view+json' in (o.data || {})));
      await notebook.scrollToItem(live, 'center');
      return cells;
    }""")
    code = [c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    assert all(c["execution_count"] for c in code)
    assert not [o for c in code for o in c["outputs"] if o["output_type"] == "error" or o.get("name") == "stderr"]
    widget = tab.locator(".widget-interact").first
    picture = widget.locator(".jp-OutputArea img, .jp-OutputArea svg").first
    picture.wait_for(timeout=20_000)
    before = picture.evaluate("e => e.outerHTML")
    widget.locator(".noUi-handle").first.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("""before => { const p = document.querySelector('.widget-interact').querySelector('.jp-OutputArea img, .jp-OutputArea svg');
                             return p && p.outerHTML !== before }""", arg=before, timeout=20_000)
    tab.close()
