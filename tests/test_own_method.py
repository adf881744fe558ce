"A method outside the package, one file of under sixty lines, is listed, trained, evaluated and shown without a line changed elsewhere."
from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam_nb.demo.files import make_demo
from tests.command import CHECKOUT, sam_nb

CARD = Path(__file__).parent / "own_method/brightness_job.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    make_demo("street", folder / "data/demo", size=64, train=8, val=4, test=4)
    return folder


def command(words: str, root: Path):
    return sam_nb(words, root, SAM_NB_METHODS="brightness_job", PYTHONPATH=f"{CHECKOUT}:{CARD.parent}")


def test_the_card_is_short(): assert len(CARD.read_text().splitlines()) < 60


def test_it_is_listed(root): assert "class maps from colour alone" in command("train --help", root).out


def test_it_is_trained_evaluated_shown_and_used(root):
    trained = command("train brightness --run_name own --epochs 1", root)
    assert trained.code == 0, trained.error
    run = json.loads((root / "runs/own/run.json").read_text())
    assert run["method"] == "brightness" and run["status"] == "finished" and run["recipe"]["epochs"] == 1 and run["test"]["model"]["miou"] >= 0
    evaluated = command("eval brightness --run own --split val", root)
    assert evaluated.code == 0 and "miou" in evaluated.out, evaluated.error
    saved = json.loads((root / "runs/own/eval-demo-val.json").read_text())
    assert saved["format"].startswith("sam_nb.evaluation") and saved["method"] == "brightness" and len(saved["by_class"]) == 9
    listed = command("runs", root)
    assert "own" in listed.out and "brightness" in listed.out
    used = command(f"segment own {root}/data/demo/test/Visible {root}/out --to labels", root)
    assert used.code == 0 and "4 pictures" in used.out, used.error
    assert "unknown parameter" in command("train brightness --sise 32", root).error
