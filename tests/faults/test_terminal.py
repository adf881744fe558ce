"""What a dataset, a run or a name on the command line says does not reach the terminal as control characters."""
from __future__ import annotations

import re

import pytest

from sam_nb.cli import main
from tests.browser import hostile

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NAME = "no\x1b[2J\x07\u202e"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("hostile")
    for name in ("pairs", "objects", "sentences", "captions"): getattr(hostile, name)(made / name)
    for number in (1, 2): hostile.run(made / "runs", number)
    hostile.failed_run(made / "runs")
    return made


@pytest.mark.parametrize("words", [
    ["check", "objects", "--data_root", "objects"], ["check", "mine", "--data_root", "pairs"], ["check", "referring", "--data_root", "sentences"],
    ["check", "earth", "--data_root", "captions"], ["check", NAME], ["check", "objects", "--data_root", NAME], ["data"],
    ["runs"], ["runs", "show", "failed"], ["runs", "show", "last"], ["runs", "show", NAME], ["runs", "compare", "failed", "RUN"], ["runs", "show", "RUN"],
    ["runs", "report", "failed", "RUN", "--out", "report.html"], ["train", "sartm", "--dataset", NAME], ["train", "sartm", "--run_name", NAME], ["train", NAME],
    ["eval", "sartm", "--run", "RUN"], ["convert", "objects", "written", "--to", "coco"], ["convert", "pairs", NAME, "--to", NAME], ["segment", NAME, "out"],
    ["segment", "objects/images", "out", "--model", NAME],
], ids=" ".join)
def test_commands_print_no_control_characters(words, root, monkeypatch, capfd):
    monkeypatch.chdir(root)
    monkeypatch.setenv("SAM_NB_ROOT", str(root))
    named = next(f.name for f in (root / "runs").iterdir() if "run 1" in f.name)
    try: main([named if w == "RUN" else w for w in words])
    except SystemExit: pass  # of argparse
    said = "".join(capfd.readouterr())
    assert said.strip() and [ascii(said[max(0, m.start() - 40):m.end() + 20]) for m in CONTROL.finditer(said)] == []
