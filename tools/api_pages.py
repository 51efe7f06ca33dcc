"""The API reference: a page for each module, from signatures, docments and docstrings; build_site.py puts them among the pages."""
import inspect, re, textwrap
from dataclasses import is_dataclass
from importlib import import_module

from fastcore.docments import docments
from optional import is_optional


def page_of(module): return "api/" + module.removeprefix("hwnn.").replace(".", "/")


def escaped(text):
    "Text of a comment or docstring as Markdown: backticks and formulas keep their meaning, everything else stands for itself."
    return "`".join(part if i % 2 else re.sub(r"""([\\*_<\[\]|~#^@"])""", r"\\\1", part) for i, part in enumerate(str(text).split("`")))


def type_name(anno): return "" if anno is inspect.Parameter.empty else getattr(anno, "__name__", str(anno))


def call(name, sig):
    "A signature without the types, which stand in the table below it."
    parts = [str(p.replace(annotation=p.empty)) for p in sig.parameters.values() if p.name != "self"]
    line = f"{name}({', '.join(parts)})"
    return line if len(line) <= 80 else f"{name}(\n" + textwrap.fill(", ".join(parts), 76, initial_indent="    ", subsequent_indent="    ", break_long_words=False) + "\n)"


def table(thing):
    "What is said of each parameter, with the types that the signature names. Columns that would be empty are left out."
    sig, said = inspect.signature(thing), docments(thing)
    rows = [(f"`{name}`", type_name(p.annotation), said.get(name) or "") for name, p in sig.parameters.items() if name != "self"]
    if sig.return_annotation not in (sig.empty, None) or said.get("return"): rows.append(("returns", type_name(sig.return_annotation), said.get("return") or ""))
    keep = [i for i in range(3) if any(row[i] for row in rows)]
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]   # a comment may take several lines
    line = lambda cells: "| " + " | ".join(cells[i] for i in keep) + " |"
    return "\n".join([line(("", "Type", "Meaning")), line(["---"]*3), *(line([r[0], escaped(r[1]), escaped(r[2])]) for r in rows)]) if rows else ""


def entry(thing, name, level, links):
    "A function, method or class: heading, signature, docstring, table, links."
    bare = inspect.isclass(thing) and thing.__init__ is object.__init__
    parts = [f"{'#'*level} {escaped(name)} {{#{name}}}", f"```python\n{call(name.split('.')[-1] if '.' in name else name, inspect.signature(thing))}\n```",
             escaped(inspect.getdoc(thing) or ""), "" if bare else table(thing if is_dataclass(thing) or not inspect.isclass(thing) else thing.__init__), links]
    return [p for p in parts if p]


def methods(cls):
    "The public methods that a class defines itself, and its `__call__`."
    return [(n, f) for n, f in vars(cls).items() if inspect.isfunction(f) and (not n.startswith("_") or n == "__call__")]


def api_pages(
    settings,  # the section of settings.ini
    anchored,  # function of (page, name) that gives the address where a name is derived
    titles,    # dict: page -> its title
):
    "The pages of the API reference: path -> Markdown."
    from nbdev.doclinks import NbdevLookup
    from hwnn._modidx import d
    linkify, address = NbdevLookup().linkify, settings["repository"].rstrip("/")
    order = list(titles)
    # A module can be derived on several pages.
    pages = {module: {name: href.partition(".html")[0] for name, (href, _) in names.items()} for module, names in d["syms"].items()}
    first = {module: min(names.values(), key=lambda p: order.index(p) if p in order else -1) for module, names in pages.items()}
    out, index = {}, []
    for module in sorted(pages, key=lambda m: order.index(first[m]) if first[m] in order else -1):
        try: mod, main = import_module(module), first[module]
        except ModuleNotFoundError as e:
            if not is_optional(e.name): raise
            continue   # it is said when the site has been built

        def derived(name):
            page = pages[module][f"{module}.{name}"]
            return f"[{titles.get(page, page)}]({anchored(page, name)})"

        def links(thing, name):
            source = f"[source]({address}/blob/main/{module.replace('.', '/')}.py#L{inspect.getsourcelines(thing)[1]})" if address else ""
            return " · ".join(filter(None, ("" if "." in name else f"Derived in {derived(thing.__name__)}", source)))

        body, rows, values = [], [], []
        for name in mod.__all__:
            thing = getattr(mod, name)
            if not (inspect.isclass(thing) or inspect.isfunction(inspect.unwrap(thing))):   # Numba's functions wrap Python's
                values.append(name)
                continue
            body += entry(thing, name, 2, links(thing, name))
            first_line = (inspect.getdoc(thing) or "").partition("\n")[0]
            rows.append(f"| [{name}](/{page_of(module)}.html#{name}) | {escaped(first_line)} |")
            if inspect.isclass(thing):
                for method, f in methods(thing): body += entry(f, f"{name}.{method}", 3, links(f, f"{name}.{method}"))
                base = thing.__mro__[1]
                if base.__module__.startswith("hwnn."): body.append(f"Everything else comes from [{base.__name__}](/{page_of(base.__module__)}.html#{base.__name__}).")
        if values: body.append(f"Values: {', '.join(f'`{v}`' for v in values)}, explained in [{titles.get(main, main)}](/{main}.html).")
        names = ", ".join(n for n in mod.__all__ if n not in values)
        imports = f"from {module} import {names}"
        if len(imports) > 80: imports = f"from {module} import (\n{textwrap.fill(names, 78, initial_indent='    ', subsequent_indent='    ')})"
        intro = f"{escaped(mod.__doc__ or '')}\n\n```python\n{imports}\n```"
        out[f"{page_of(module)}.qmd"] = f"---\ntitle: {module}\n---\n\n" + linkify("\n\n".join([intro, *body])) + "\n"
        index.append(f"## [{module}](/{page_of(module)}.html)\n\n" + linkify("\n".join(["| Name | What it is |", "|---|---|", *rows])))
    lead = "Every public name, made from the signatures and comments of the library. A name leads to its signature, and from there to the page that derives it."
    out["api.qmd"] = "---\ntitle: Look up\n---\n\n" + "\n\n".join([lead, *index]) + "\n"
    return out
