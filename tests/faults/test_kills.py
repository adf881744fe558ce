"""A dozen kills at random moments; `python -m tests.faults.kills 300` is the long pass."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.kills import TARGETS, Target, run

QUICK = ("labels of the prompt page", "segment over an earlier result", "convert to YOLO, linked, over an earlier result", "fill the feature cache",
         "demo data over another", "train toy")


@pytest.mark.parametrize("target", [t for t in TARGETS if t.name in QUICK], ids=lambda t: t.name)
def test_nothing_is_lost_and_nothing_left(target):
    trials = run([target], 2, int(os.environ.get("SAM_NB_TEST_SEED", 0)))
    assert all(t.sound for t in trials), trials


def _torn(inputs: Path, folder: Path) -> None:
    "Writes in place, flushing each part, and believes what is there."
    file = folder / "result"
    if file.exists(): return
    with open(file, "w") as out:
        for k in range(200): out.write(f"{k}\n"), out.flush(), os.fsync(out.fileno())


def _littered(inputs: Path, folder: Path) -> None:
    "Writes aside under names of its own, of which nobody knows."
    aside = folder / f"aside-{os.getpid()}"
    with open(aside, "w") as out:
        for k in range(200): out.write(f"{k}\n"), out.flush(), os.fsync(out.fileno())
    os.replace(aside, folder / "result")


@pytest.mark.parametrize("act", [_torn, _littered])
def test_a_careless_writer_is_noticed(act):
    "Negative controls: of a few kills some must find what is lost, or left."
    trials = run([Target("careless", act)], 6, 0)
    assert any(t.lost for t in trials) == (act is _torn) and any(t.litter for t in trials) == (act is _littered)
