"""Every damage of a run folder before everything that reads one: see table.py, where a line adds a damage or a reader."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest

from tests.command import CHECKOUT
from tests.faults import table
from tests.faults.table import DAMAGES, FIELDS, INFO, LOG, NAME, OTHER, READERS, STATE, UNFIT


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    "The runs of a workspace that is the current one; every reader has read it once, so that all modules are imported."
    root = tmp_path_factory.mktemp("workspace")
    with mock.patch.dict(os.environ, SAM_NB_ROOT=str(root)):
        runs = Path(shutil.copytree(table.make_workspace(root), root / "sound"))
        trials = table.try_all("no damage", runs, root, seconds=600)
        assert [str(t) for t in trials if t.error and t.reader not in UNFIT] == []
        yield runs


def groups() -> list[str]:
    "The damages of one field of run.json are one test."
    return list(dict.fromkeys(group(damage) for damage in DAMAGES))


def group(damage: str) -> str:
    return next((f"{INFO}: {field} *" for field in FIELDS if damage.startswith(f"{INFO}: {field} ")), damage)


@pytest.mark.parametrize("name", groups())
def test_a_damaged_run_stops_nothing(name, sound):
    "What shows runs shows the damaged one too, and says so; what works with a run refuses a damaged one by file, fact and remedy."
    for damage in (d for d in DAMAGES if group(d) == name):
        what, trials = DAMAGES[damage], {t.reader: t for t in table.try_all(damage, sound, sound.parent)}
        unsound = "damaged" in trials["inspect_run"].shown
        assert (trials["run_problems"].shown != "[]", unsound) == (what.found == "by reading", what.found == "by reading" and what.file == INFO), str(trials["run_problems"].shown)
        for name, trial in trials.items():
            reader = READERS[name]
            assert not trial.raw, str(trial)
            if reader.shows: assert not trial.error, str(trial)
            if reader.shows and unsound: assert reader.says in trial.shown, (str(trial), trial.shown[:300])
            if unsound and INFO in reader.needs and not reader.shows: assert trial.error and trial.told, str(trial)
            if what.found and what.file in reader.needs and not reader.shows and name != "resume": assert trial.error and trial.told, str(trial)
        if what.found and what.file == STATE: assert trials["resume"].error and trials["resume"].told, str(trials["resume"])


def test_all_damages_in_one_folder(sound, capsys):
    "A folder of runs in which every run is damaged in another way is listed, shown and completed."
    from sam_nb.launch.completion import run_names
    from sam_nb.training.run_list import find_run, list_runs
    from sam_nb.view.run_browser import RunBrowser, save_report
    runs = sound.parent / "runs"
    shutil.rmtree(runs)
    shutil.copytree(sound / OTHER, runs / OTHER)
    for k, what in enumerate(DAMAGES.values()): what(Path(shutil.copytree(sound / NAME, runs / f"{NAME}-{k}")))
    listed = list_runs(runs)
    assert len(listed) == len(DAMAGES) + 1 and {"damaged", "interrupted"} <= set(listed["status"])
    assert len(RunBrowser(runs).records) == len(run_names()) - 1 == len(listed)
    assert find_run("last", root=runs).status == "interrupted"
    assert table.command("runs", runs).count("damaged") == (listed["status"] == "damaged").sum() > 200
    assert save_report(list(listed.index[:50]), runs.parent / "all.html", runs).stat().st_size > 1e5


def test_the_notebook_shows_damaged_runs(sound):
    "explore_runs.ipynb runs to its end where one of two compared runs is damaged."
    cells = [c for c in json.loads((CHECKOUT / "nbs/explore_runs.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    for damage in (f"{INFO}: half", f"{LOG}: random bytes", "figures/answers.png: half"):
        table.try_all(damage, sound, sound.parent, {})
        names = {"names": f"{NAME} {OTHER}", "root": str(sound.parent / "runs"), "out": str(sound.parent / "report.html")}
        for number, cell in enumerate(cells):
            exec("".join(cell["source"]), names)  # noqa: S102 - a notebook of ours
            if number == 0: names |= {"names": f"{NAME} {OTHER}", "root": str(sound.parent / "runs"), "out": str(sound.parent / "report.html")}
        assert names["browser"].chosen == [NAME, OTHER] and (names["wrong"] or damage.startswith("figures")), damage


def test_a_name_of_any_bytes(sound):
    "A run that was copied under a name that is no Unicode, or looks like markup, is listed and shown."
    runs = sound.parent / "runs"
    shutil.rmtree(runs)
    for name in (OTHER, os.fsdecode(b"m\xffne"), "<img src=x onerror=alert(1)>", "a\x1b[31mred", "two\nlines"): shutil.copytree(sound / OTHER, runs / name)
    assert "<img" not in table.command("runs", runs).replace("<img src=x onerror=alert(1)>", "") and "\x1b" not in table.command("runs", runs)
    for reader in ("list_runs", "RunBrowser", "completion", "sam_nb runs"): assert not (trial := table.try_one("a name", reader, READERS[reader], runs)).error or reader == "RunBrowser", str(trial)
    from sam_nb.view.run_browser import RunBrowser, save_report
    names = [r["name"] for r in RunBrowser(runs).records]
    assert "<img" not in save_report(names, runs.parent / "names.html", runs).read_text() and len(names) == 5
