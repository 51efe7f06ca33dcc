"""Hands the metadata in settings.ini to setuptools; nothing about the package is written here. A wheel takes along the pages with
exercises, from which `hwnn-exercises` makes notebooks for students; in a repository it reads them where they are."""
import json
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from zipfile import ZIP_DEFLATED, ZipFile

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here/"settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
minor = int(cfg["min_python"].split(".")[1])


class BuildWithPages(build_py):
    def run(self):
        super().run()
        if self.editable_mode: return
        with ZipFile(Path(self.build_lib)/"hwnn"/"data"/"pages.zip", "w", ZIP_DEFLATED) as z:
            for path in sorted((here/"nbs").glob("*/*.ipynb")):
                if '"#| exercise ' not in (text := path.read_text(encoding="utf-8")): continue
                nb = json.loads(text)
                for cell in nb["cells"]: cell.pop("outputs", None)
                z.writestr(path.relative_to(here/"nbs").as_posix(), json.dumps(nb, separators=(",", ":")))


setup(
    cmdclass={"build_py": BuildWithPages},
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license=cfg["license"],
    keywords=cfg["keywords"].split(),
    classifiers=[f"Development Status :: {cfg['development_status']}", "Intended Audience :: Education",
                 "Framework :: Jupyter", "Topic :: Scientific/Engineering :: Artificial Intelligence",
                 *(f"Programming Language :: Python :: 3.{v}" for v in range(minor, 15))],
    project_urls={"Repository": cfg["repository"]} if cfg["repository"] else {},
    packages=find_packages(include=["hwnn", "hwnn.*"]),
    package_data={"hwnn": ["data/*"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={key.removesuffix("_requirements"): cfg[key].split() for key in cfg if key.endswith("_requirements")},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{cfg['name']} = {cfg['name']}._modidx:d"]},
)
