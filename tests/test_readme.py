"The commands of README and docs exist, their Python runs, their links lead somewhere."
from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sam_nb.cli import main_parser
from sam_nb.evaluation.plan import find_or_make_run
from sam_nb.launch.parameters import find_notebook, read_command, read_parameters
from sam_nb.zoo import ZOO

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPECTED = {  # what a block prints, by a name in it
    "EarthTasks(": r"ship.* \[145, 115, 182, 151\]\n.*planes", "answer = image.segment(points": r"\(1, 3, 256, 256\)", "Everything(": r"\d+ \d+", "find_run(": r"\(128, 128\)", "RSAM.from_pretrained": r"\(2, 256, 256\) \(2,\) \(2, 4\)",
    "DataBrowser(": "samples read", "MaskView(": "", "SARTM.from_released": "", "segment_folder(": "objects +object",
}


def blocks(page: Path, language: str) -> list[str]: return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def commands() -> list[list[str]]:
    lines = []
    for page in PAGES:
        lines += [line for block in blocks(page, "bash") for line in block.splitlines()]
        lines += re.findall(r"`((?:sam_nb|papermill|make|python -m) [^`]*)`", page.read_text())
    found = [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] != "export"]
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_exist(words):
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[0] == "papermill":
        notebook = next(w for w in words[1:] if w.endswith(".ipynb"))
        known = read_parameters(ROOT / notebook)
        given = [words[i + 1] for i, w in enumerate(words) if w == "-p"]
        assert set(given) <= set(known)
        assert "--help-notebook" in words or words[2].endswith(".ipynb"), "an output path is always named"
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / Path(*words[2].split("."))).with_suffix(".py").exists() or (ROOT / Path(*words[2].split("."))).is_dir()
    elif words[1] in ("train", "eval"):
        shown = len(words) > 2 and not {"<name>", "--help"} & {*words} and words[2] not in ("METHOD", "brightness")
        if shown: read_command(words[1], words[2], words[3:], read_parameters(find_notebook(words[1], words[2])))
    elif words[1] == "fetch":
        assert set(words[2:]) <= set(ZOO)
    else:
        assert words[1] in ("runs", "check", "shares", "convert", "segment", "doctor", "demo-data", "saom-data", "referring-data")
        if len(words) > 2 and (words[1] in ("check", "shares", "convert", "segment", "doctor") or words[1].endswith("-data")): main_parser().parse_args(words[1:])


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda p: p.name)
def test_python_runs(page):
    "The blocks of a page one after the other, as a reader would paste them."
    code = blocks(page, "python")
    if any("find_run(" in c for c in code): find_or_make_run("last", "sartm")
    marked = "\n".join(f"print('block {k}')\n{c}" for k, c in enumerate(code))
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", marked], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for c, said in zip(code, re.split(r"block \d+\n", done.stdout)[1:], strict=True):
        wanted = next(v for k, v in EXPECTED.items() if k in c)
        assert re.search(wanted, said), (c, said)


def test_the_first_example_has_six_lines():
    assert len([line for line in blocks(PAGES[0], "python")[0].splitlines() if line.strip()]) == 6


def test_readme_is_short(): assert len(PAGES[0].read_text().split()) <= 900


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#][^)#]*)", page.read_text()): assert (page.parent / target).exists(), target


def test_the_notebooks_of_the_readme_are_clean():
    "Every job notebook has exactly one cell tagged `parameters`."
    for notebook in (ROOT / "nbs").glob("*_*.ipynb"):
        tags = [c for c in json.loads(notebook.read_text())["cells"] if "parameters" in c["metadata"].get("tags", [])]
        assert len(tags) == 1, notebook.name
