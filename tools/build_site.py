"""Build the website into _docs/ from nbs/ and _quarto.yml: with Quarto where it is installed, else in pure Python with smalldocs."""
import os, re, shutil, subprocess
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parent.parent
stage, out = root/"_site_src", root/"_docs"
settings = ConfigParser(delimiters=["="])
settings.read(root/"settings.ini", encoding="utf-8")
address = settings["DEFAULT"]["repository"]
NUMBER = re.compile(r"\b\d+[a-zA-Z0-9]*_(?=\w+\.ipynb)")  # in front of a notebook's name; nbdev's addresses drop it
CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/katex@[^/\"']+/dist/")


def build_in_python():
    "What `nbdev-docs` does, with smalldocs in place of Quarto."
    from nbdev.serve import proc_nbs
    from smalldocs.config import load
    from smalldocs.site import Site
    proc = proc_nbs(n_workers=os.cpu_count())
    shutil.rmtree(stage, ignore_errors=True)
    for path in proc.rglob("*"):
        rel = path.relative_to(proc)
        if path.is_dir() or rel.parts[0].startswith("."): continue
        target = stage/NUMBER.sub("", rel.as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix not in (".ipynb", ".yml"): shutil.copy(path, target)
        else: target.write_text(restaged(path.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copytree(root/"nbs/site_assets", stage/"site_assets", dirs_exist_ok=True)
    site = Site(load(stage))
    site.build()
    for warning in site.warnings:
        if not warning.endswith("is ignored"): print("site:", warning)  # settings that only Quarto reads are no mistake
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(site.out, out)
    shutil.rmtree(stage)
    for page in out.rglob("*.html"):
        up = "../"*(len(page.relative_to(out).parts) - 1)
        page.write_text(CDN.sub(f"{up}site_assets/katex/", page.read_text(encoding="utf-8")), encoding="utf-8")


def restaged(text):
    "A processed file under its new address: links follow, and the name of the output is the file's own."
    text = NUMBER.sub("", text)
    if address: text = text.replace("](/blob/", f"]({address}/blob/").replace("website:\n", f"website:\n  repo-url: {address}\n  repo-actions: [issue]\n")
    else: text = re.sub(r"\[source\]\(/blob[^)]*\)\{[^}]*\}", "", text)
    return re.sub(r"\"output-file: [^\"]*\",\s*|output-file: .*\\n", "", text).replace("output-dir: ../_docs", "output-dir: _site")


if __name__ == "__main__":
    os.chdir(root)
    if shutil.which("quarto"): subprocess.run(["nbdev-docs"], check=True)
    else: build_in_python()
    print(f"{len(list(out.rglob('*.html')))} pages in {out.relative_to(root)}/")
