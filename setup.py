"Package metadata, read from settings.ini so that it is written in one place."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
settings = ConfigParser(delimiters=["="])
settings.read(here / "settings.ini", encoding="utf-8")
ini = settings["DEFAULT"]
readme = here / "README.md"

setup(
    name=ini["lib_name"], version=ini["version"], description=ini["description"], keywords=ini["keywords"],
    author=ini["author"], author_email=ini["author_email"], url=ini["git_url"], license="Apache-2.0",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "", long_description_content_type="text/markdown",
    packages=find_packages(include=["sam_nb", "sam_nb.*"]), python_requires=">=" + ini["min_python"],
    package_data={"sam_nb.view": ["*.js", "*.css", "*.html"]},  # the pages of the widgets
    install_requires=ini["requirements"].split(),
    extras_require={"dev": ini["dev_requirements"].split(), "onnx": ini["onnx_requirements"].split(),
                    "geo": ini["geo_requirements"].split()},
    entry_points={"console_scripts": ini["console_scripts"].split()}, zip_safe=False,
)
