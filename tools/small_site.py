"""What makes the website that smalldocs renders half as large, and lets all of it, search too, work from a folder of files.

What every page repeats goes into a file: the menus, the script that chooses the theme. What scripts alone make use of is put there by a script
(AT_START). Code is marked in the fewest bytes, pictures are WebP, figures, style sheets and the font of icons keep what is used."""
import base64, hashlib, html, io, json, posixpath, re

from fontTools import subset   # which Matplotlib brings
from PIL import Image


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def shrink(folder):
    "Rewrite a rendered site in place."
    for path in folder.rglob("*.html"): write(path, page(path.read_text(encoding="utf-8"), path.relative_to(folder).as_posix(), folder))
    script = folder/"site_libs/smalldocs.js"
    text, found = re.subn(r'const r = await fetch\(offset \+ "search\.json"\);\s*index = await r\.json\(\);', lambda m: SEARCH, script.read_text(encoding="utf-8"))
    assert found == 1, "smalldocs loads its index in another way"
    write(script, AT_START + text)
    search(folder)
    styles(folder)


# Runs before the script of smalldocs, which looks for what is put here.
AT_START = """for (const code of document.querySelectorAll("div.sourceCode:not(.code-copy-outer-scaffold *)")) {
  code.classList.add("code-copy-outer-scaffold");
  code.insertAdjacentHTML("beforeend", '<button title="Copy to Clipboard" class="code-copy-button"><i class="bi"></i></button>');
}
for (const heading of document.querySelectorAll("main .anchored:not([data-anchor-id])")) heading.dataset.anchorId = heading.id || heading.parentElement.id;
"""
# A page from a folder may not fetch a file, but it may load a script.
SEARCH = """await new Promise((done, failed) => document.head.append(Object.assign(document.createElement("script"), { src: offset + "search.js", onload: done, onerror: failed })));
      index = SECTIONS.flatMap(([page, title, sections]) => sections.map(([anchor, section, text]) => ({ href: page + (anchor && "#" + anchor), title, section, text })));"""


def search(folder):
    "The index by pages, as a script. Every reader of a page loads it: the beginning of each section will do to find it."
    pages, file = {}, folder/"search.json"
    for entry in json.loads(file.read_text(encoding="utf-8")):
        at, _, anchor = entry["href"].partition("#")
        pages.setdefault((at, plain(entry["title"])), []).append((anchor, plain(entry["section"]), plain(entry["text"][:60])))
    write(folder/"search.js", f"var SECTIONS = {json.dumps([(*page, sections) for page, sections in pages.items()], ensure_ascii=False, separators=(',', ':'))}")
    file.unlink()


TEX = re.compile(r"\\(?:(?:mathrm|mathbf|mathcal|text|texttt|operatorname|bar|hat|tilde)\{([^{}]*)\}|([a-zA-Z]{2,})|[,;!])")


def plain(text):
    "A formula where KaTeX does not reach it, in a table of contents or a search result: HTML has many of TeX's names."
    return TEX.sub(lambda m: m[1] or m[2] and html.unescape(f"&{m[2]};").strip("&;") or " ", text)


CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/katex@[^/\"']+/dist/")
# A page in the sidebar, which every page repeats: a link needs no boxes around it.
LEAF = re.compile(r'<div class="sidebar-item-container"><a ([^>]*)><span class="menu-text">([^<]*)</span></a></div></li>')
# A block of code as smalldocs writes it: around it what holds the button, and in three elements what kind of code it is.
BLOCK = re.compile(r'(?s)<div class="code-copy-outer-scaffold"><div class="sourceCode"(?: id="cb\d+")?><pre class="sourceCode (\w+) code-with-copy((?: cell-code)?)">'
                   r'<code class="sourceCode \w+">(.*?)</code></pre></div><button title="Copy to Clipboard" class="code-copy-button"><i class="bi"></i></button></div>')
# A heading says where its anchor leads, which is itself or its section.
ANCHOR = re.compile(r'((?:<section id="([^"]*)"[^>]*>\s*<h\d|<h\d id="([^"]*)") class="anchored") data-anchor-id="(?:\2|\3)"')


def page(text, at, folder):
    "A page that loads nothing from another host, without what is the same in many places."
    up = "../"*at.count("/")
    text = CDN.sub(f"{up}site_assets/katex/", text).replace('src="/site_assets/', f'src="{up}site_assets/')
    text = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", lambda m: as_webp(m[1], up, folder), text)
    text = re.sub(r'(?s)(<code class="sourceCode \w+">)(.*?)(?=</code>)', lambda m: m[1] + joined(m[2]), text)
    text = BLOCK.sub(r'<div class=sourceCode><pre class="sourceCode \1\2"><code>\3</code></pre></div>', text)
    text = ANCHOR.sub(r"\1", text)
    text = re.sub(r'(<div) id="cell-\d+"', r"\1", text)   # nothing leads there
    text = re.sub(r'(?s)<nav id="TOC".*?</nav>', lambda m: plain(re.sub(r' (id="toc-(?!title)|data-scroll-target=")[^"]*"', "", m[0])), text)
    text = LEAF.sub(r"<a \1>\2</a></li>", text).replace('<li class="sidebar-item">', "<li>").replace('class="sidebar-item-text ', 'class="')
    text = MENU.sub(lambda m: m[1] + menu_once(m[2], at, folder), text)
    text = re.sub(r"(?s)<script>((?:(?!</script>).)*)</script>(?=</head>)", lambda m: f'<script src="{up}{script_file(m[1], "theme", folder)}"></script>', text)   # before anything is drawn
    return text.replace('<svg alt="', '<svg role="img" aria-label="')  # an svg has no alt


# Kinds of code that both themes draw alike, and those that look like other text.
LOOKS = {"cf": "kw", "ss": "st", "ch": "st", "fl": "dv", "bn": "dv", "op": "", "bu": ""}


def joined(code):
    "Highlighted code with what is drawn alike in one element, and characters as they are. `c-` is the shortest name of an element that HTML leaves to a page."
    look = lambda kind: LOOKS.get(kind, kind)
    code = re.sub(r'<span class="(\w\w)">([^<]*)</span>', lambda m: f"<c- {look(m[1])}>{m[2]}</c->" if look(m[1]) else m[2], code)
    neighbours = re.compile(r"(<c- (\w\w)>[^<]*)</c->(\s*)<c- \2>")
    while neighbours.search(code): code = neighbours.sub(r"\1\3", code)
    return code.replace("&quot;", '"').replace("&#x27;", "'").replace("&gt;", ">")


MENU = re.compile(r'(?s)(<header id="quarto-header"[^>]*><nav class="navbar[^>]*>|<nav id="quarto-sidebar"[^>]*>)(.*?)(?=</nav>)')
# Puts a menu where the script stands, with addresses as this page sees them.
MENU_SCRIPT = """{const s = document.currentScript, {up, page} = s.dataset, box = document.createElement("div");
box.innerHTML = MENU.replaceAll('href="~/', 'href="' + up);
for (const a of box.querySelectorAll(`a:not(.navbar-brand)[href="${up + page}"]`)) { a.classList.add("active"); a.setAttribute("aria-current", "page"); }
s.replaceWith(...box.childNodes);}"""


def menu_once(menu, page, folder):
    "A script in the place of a menu, which is the same on every page but for addresses and the mark of the page itself: the two menus were a seventh of the site."
    same = re.sub(' active(?=")| aria-current="page"', "", menu)
    same = re.sub(r'href="(?!#|\w+:)([^"]+)"', lambda m: f'href="~/{posixpath.normpath(posixpath.join(posixpath.dirname(page), m[1]))}"', same)
    script = script_file(MENU_SCRIPT.replace("MENU", json.dumps(same, ensure_ascii=False)), "menu", folder)
    up = "../"*page.count("/")
    return f'<script src="{up}{script}" data-up="{up}" data-page="{page}"></script><noscript><a href="{up}reading_path.html">All pages</a></noscript>'


def script_file(script, name, folder):
    "The address of a script that many pages share, in a file."
    at = f"site_libs/{name}-{hashlib.sha256(script.encode()).hexdigest()[:8]}.js"
    write(folder/at, script)
    return at


def as_webp(png, up, folder):
    "The address of a picture in a file of its own: the same pixels in fewer bytes, which a page need not load before they are shown. A small one stays in its page."
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA").save(file, "webp", lossless=True, method=6)
    if len(file.getvalue()) < 1000: return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    at = f"site_assets/figures/{hashlib.sha256(png.encode()).hexdigest()[:16]}.webp"
    (folder/at).parent.mkdir(exist_ok=True)
    (folder/at).write_bytes(file.getvalue())
    return up + at


WORD = re.compile(r"[\w-]+")
HIGHLIGHT = re.compile(r"(?<=code )span((?:\.\w\w\b|:is\([.\w, ]*\)))")
RULE = re.compile(r"(?s)((?:@charset [^;]*;|/\*!.*?\*/)*)([^{}]+)(\{[^{}]*\})")  # licence, selectors, what they get


def styles(folder):
    "The style sheets know code as `joined` writes it, and keep no rule or icon that no page or script can ask for: of Bootstrap a third is left."
    of = lambda kind: [(path, path.read_text(encoding="utf-8")) for path in folder.rglob(f"*.{kind}")]
    words = {word for _, page in of("html") for part in re.findall(r"(?s)<script.*?</script>|<[^>]*>", page) for word in WORD.findall(part)}
    words |= {word for _, script in of("js") for word in WORD.findall(script)}
    sheets = {path: HIGHLIGHT.sub(lambda m: "c-" + re.sub(r"\.(\w\w)\b", r"[\1]", m[1]), css) for path, css in of("css")}
    for path, css in sheets.items():
        if "site_assets" not in path.parts: sheets[path] = without_unused(css, words)   # KaTeX puts the names of its classes together
    icons = folder/"site_libs/bootstrap-icons"
    sheets[icons/"bootstrap-icons.min.css"] = re.sub(r'url\("fonts/bootstrap-icons\.woff2[^,]*,', "", sheets[icons/"bootstrap-icons.min.css"])
    for path, css in sheets.items(): write(path, css)
    used = [int(code, 16) for css in sheets.values() for code in re.findall(r'content: ?"\\(f[0-9a-f]{3})"', css)]
    options, path = subset.Options(flavor="woff"), icons/"fonts/bootstrap-icons.woff"
    font = subset.load_font(path, options, dontLoadGlyphNames=True)
    few = subset.Subsetter(options)
    few.populate(unicodes=used)
    few.subset(font)
    subset.save_font(font, path, options)
    path.with_suffix(".woff2").unlink()   # to write which takes another package


def without_unused(css, words):
    "A style sheet without the selectors that ask for a class which is none of these words; what is in brackets may be `:not`, and asks for nothing."
    def used(selector): return all(name.replace("\\", "") in words for name in re.findall(r"\.((?:[a-zA-Z_-]|\\.)(?:[\w-]|\\.)*)", re.sub(r"\[[^\]]*\]|\([^()]*\)", "", selector)))

    def kept(rule):
        licence, selectors, body = rule[1], rule[2].strip(), rule[3]
        if not selectors.startswith("@") and not re.search(r"\([^)]*\(", selectors):
            selectors = ",".join(filter(used, re.split(r",(?![^()]*\))", selectors)))
        return licence + (selectors + body if selectors else "")

    css = RULE.sub(kept, re.sub(r"(?s)/\*(?!!).*?\*/", "", css))
    return re.sub(r"@(?:media|supports)[^{}]*\{\s*\}", "", css)


BARE = re.compile(r"<g>((?:(?!</?g[ >]).)*)</g>", re.S)  # a group of an SVG that says nothing of what is in it


def smaller(svg):
    "A figure without what precedes its tag, metadata, comments and names that nothing refers to, its lines to a hundredth of a point in SVG's short form: two thirds of its size."
    svg = re.sub(r"(?s)<metadata>.*?</metadata>|<!--.*?-->|\n\s*(?=<)", "", svg[svg.index("<svg"):])
    svg = re.sub(r'(?s)(?<= d=")[^"]*', lambda m: shorter_path(m[0]), svg)
    svg = svg.replace("xlink:href", "href").replace("DejaVuSans-", "D")   # href alone is for browsers since 2018
    svg = re.sub(r"<[^>]*>", lambda m: shorter_numbers(m[0]), svg)
    named = set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in named else "", svg).replace("<g/>", "")
    while (bare := BARE.sub(r"\1", svg)) != svg: svg = bare   # from inside out
    return svg


def shorter_numbers(tag):
    "The numbers in a tag to a thousandth, without zeros at their end; what stands between tags is read, and stays."
    return re.sub(r"(\.\d*?)0+(?=[ \")])", lambda m: m[1].rstrip("."), re.sub(r"(\.\d{3})\d+", r"\1", tag))


def shorter_path(d):
    "The commands of an SVG path without what goes without saying: after a place to move or draw a line to, the next place means another line."
    d = re.sub(r"[ML][-\d. L]+", lambda m: m[0][0] + m[0][1:].replace("L ", ""), re.sub(r"\s+", " ", re.sub(r"(\.\d\d)\d+", r"\1", d)))
    return re.sub(r" ?([A-Za-z]) ?", r"\1", d)
