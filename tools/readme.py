"""Write README.md from nbs/index.ipynb: `python tools/readme.py [--check]`. With --check nothing is written, and a difference fails.

A picture is a cell's SVG. What moves on the page has no place here; in its stead a hidden cell marked `#| readme: "a line below it"` gives its picture."""
import re, sys
from configparser import ConfigParser
from pathlib import Path

import nbformat

root = Path(__file__).resolve().parent.parent
pictures = Path("nbs/site_assets/readme")
NOTE = "<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook. -->\n"


def options(source):
    "The cell options `#| key: value` of a cell, and its code without them."
    lines = source.splitlines()
    marks = [line[2:].strip() for line in lines if line.startswith("#|")]
    return dict((m.split(":", 1) + [""])[:2] for m in marks), "\n".join(line for line in lines if not line.startswith("#|"))


def link(match):
    "Links of the notebook lead to files beside it; seen from README they are below nbs/."
    text, target = match.groups()
    return match[0] if re.match(r"[a-z]+:|#", target) else f"[{text}](nbs/{target})"


def readme():
    "The text of README.md, and the pictures it shows: path -> SVG."
    parts, files = [], {}
    for cell in nbformat.read(root/"nbs/index.ipynb", 4).cells:
        opts, source = options(cell.source) if cell.cell_type == "code" else ({}, cell.source)
        if "hide" in opts and "readme" not in opts: continue
        if cell.cell_type == "markdown": parts.append(re.sub(r"\[([^\]]*)\]\(([^)]*)\)", link, source))
        elif "readme" not in opts and opts.get("echo", "").strip() != "false": parts.append(f"```python\n{source.strip()}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/svg+xml" in data:
                path = pictures/f"{len(files) + 1}.svg"
                files[path] = data["image/svg+xml"]
                parts.append(f"![{opts.get('fig-alt', '').strip().strip(chr(34))}]({path.as_posix()})")
                if "readme" in opts: parts.append(opts["readme"].strip().strip('"'))
            elif {"text/html", "text/markdown"} & data.keys(): continue
            elif output.output_type == "stream" or "text/plain" in data:
                parts.append("```\n" + (output.get("text") or data["text/plain"]).rstrip() + "\n```")
    cfg = ConfigParser(delimiters=["="])
    cfg.read(root/"settings.ini", encoding="utf-8")
    address = cfg["DEFAULT"]["repository"]
    if address: parts.insert(1, f"[Source]({address}) · [Issues]({address}/issues)")
    return NOTE + "\n" + "\n\n".join(parts) + "\n", files


def main():
    text, files = readme()
    files[Path("README.md")] = text
    if "--check" not in sys.argv:
        (root/pictures).mkdir(parents=True, exist_ok=True)
        for path, content in files.items(): (root/path).write_text(content, encoding="utf-8")
        return
    stale = [str(path) for path, content in files.items() if not (root/path).exists() or (root/path).read_text(encoding="utf-8") != content]
    if stale: sys.exit(f"{', '.join(stale)}: not what nbs/index.ipynb gives; run python tools/readme.py")


if __name__ == "__main__": main()
