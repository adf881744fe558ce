"settings.ini, environment.yml, pyproject.toml and requirements.lock say the same."
import ast
import re
import sys
import tomllib
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

root = Path(__file__).parents[1]
FACTS = {"repo", "lib_name", "version", "min_python", "license", "description", "keywords", "author", "author_email", "user", "copyright", "git_url",
         "doc_host", "doc_baseurl", "status", "audience", "language", "requirements", "onnx_requirements", "geo_requirements", "dev_requirements", "console_scripts"}  # of setup.py


def settings() -> dict[str, str]:
    parser = ConfigParser(delimiters=["="])
    parser.read(root / "settings.ini")
    return dict(parser["DEFAULT"])


def test_environment_yml_names_what_settings_ini_names():
    ini = settings()
    wanted = ini["requirements"].split() + ini["dev_requirements"].split()
    conda = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    pip = next(d["pip"] for d in conda if isinstance(d, dict))
    assert sorted(pip) == sorted(wanted)
    assert f"python>={ini['min_python']}" in conda


def test_pyproject_configures_nbdev_3_as_settings_ini_configures_nbdev_2():
    ini, pyproject = settings(), tomllib.loads((root / "pyproject.toml").read_text())
    written = {key: " ".join(value) if isinstance(value, list) else str(value) for key, value in pyproject["tool"]["nbdev"].items()}
    assert written == {key: value for key, value in ini.items() if key not in FACTS}
    assert (pyproject["project"]["name"], pyproject["project"]["requires-python"]) == (ini["lib_name"], ">=" + ini["min_python"])
    assert pyproject["tool"]["ruff"]["target-version"] == "py" + ini["min_python"].replace(".", "")


def test_requirements_lock_pins_what_settings_ini_names():
    "Plain pins, which any index has: no paths, no hosts, no local versions, no package that depends on the graphics card."
    lines = [line for line in (root / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert not any(line.startswith(("nvidia-", "cuda-", "triton", "sam_nb")) for line in lines)
    pins, ini = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}, settings()
    for text in (ini["requirements"] + " " + ini["onnx_requirements"] + " " + ini["geo_requirements"] + " " + ini["dev_requirements"]).split():
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


def test_every_imported_package_is_named():
    "What sam_nb imports is in `requirements` or an extra of settings.ini, not just there because another package needs it (pydantic pins pydantic-core)."
    ini, provides, missing = settings(), packages_distributions(), {}
    named = {"pydantic-core"} | {canonicalize_name(Requirement(r).name) for key, value in ini.items() if key.endswith("requirements") and key != "dev_requirements" for r in value.split()}
    for file in sorted((root / "sam_nb").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for module in {m.partition(".")[0] for m in modules} - set(sys.stdlib_module_names) - {"sam_nb"}:
                if not named & {canonicalize_name(name) for name in provides.get(module, [])}: missing.setdefault(module, file.name)
    assert not missing


def test_makefile_and_readme_name_the_python_of_settings_ini():
    major, minor = settings()["min_python"].split(".")
    assert f"sys.version_info < ({major}, {minor})" in (root / "Makefile").read_text()
    assert f"Python {major}.{minor}" in (root / "README.md").read_text()


def test_settings_keep_papermills_tag():
    "Without this key nbdev_clean deletes the tag `parameters`, and papermill's -p is silently ignored."
    assert "tags" in (root / "settings.ini").read_text().split("allowed_cell_metadata_keys", 1)[1].splitlines()[0]


def test_contributing_names_every_file_of_faults():
    text = (root / "CONTRIBUTING.md").read_text().partition("## Faults")[2].partition("\n## ")[0]
    named = {name.rpartition("/")[2] for name in re.findall(r"`((?:\.\./|\w+/)*\w+\.py)`", text)}
    there = {file.name for file in (root / "tests/faults").glob("*.py")} - {"__init__.py"}
    assert there <= named
