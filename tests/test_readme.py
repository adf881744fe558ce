"The README's commands exist and its Python runs."
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
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]: return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()] + re.findall(r"`((?:sam_nb|papermill|make|python -m) [^`]*)`", README)
    return [words for line in lines if (words := shlex.split(line, comments=True))]


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
        if len(words) < 3 or "<name>" in words or "--help" in words: return
        read_command(words[1], words[2], words[3:], read_parameters(find_notebook(words[1], words[2])))
    elif words[1] == "fetch":
        assert set(words[2:]) <= set(ZOO)
    else:
        assert words[1] in ("runs", "check", "demo-data", "saom-data", "referring-data")
        if words[1].endswith("-data"): main_parser().parse_args(words[1:])


def run_block(code: str) -> str:
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_widgets_lines_run():
    run_block(next(b for b in blocks("python") if "MaskView" in b))


def test_the_promptable_lines_run():
    assert "(1, 3, 256, 256)" in run_block(blocks("python")[0])


def test_the_everything_lines_run():
    kept, candidates = map(int, run_block(blocks("python")[1]).splitlines()[-1].split())
    assert 0 < kept < candidates


def test_the_six_lines_run():
    find_or_make_run("last", "sartm")
    code = blocks("python")[2]
    assert len([line for line in code.splitlines() if line.strip()]) == 6
    assert "(128, 128)" in run_block(code)


def test_the_lines_of_sentences_run():
    assert "(2, 256, 256) (2,) (2, 4)" in run_block(blocks("python")[3])


def test_the_lines_of_the_browser_run():
    assert "samples read" in run_block(next(b for b in blocks("python") if "DataBrowser" in b))


def test_files_and_folders_that_are_linked_exist():
    for target in re.findall(r"\]\(([^)#h][^)#]*)", README): assert (ROOT / target).exists(), target


def test_the_notebooks_of_the_readme_are_clean():
    "Every job notebook has exactly one cell tagged `parameters`."
    for notebook in (ROOT / "nbs").glob("*_*.ipynb"):
        tags = [c for c in json.loads(notebook.read_text())["cells"] if "parameters" in c["metadata"].get("tags", [])]
        assert len(tags) == 1, notebook.name
