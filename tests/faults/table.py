"""Damages of a run folder, and everything that reads one: a new file of a run, a new damage or a new reader is one line here.

    python -m tests.faults.table        every damage before every reader: trials, raw exceptions, and who raised them

A raw exception is any that is no `SamNbError`: the person who meets it learns neither the file nor what to do.
"""
from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

NAME, OTHER = "mine", "other"  # the run that is damaged, and a sound one beside it
OLD = Path(__file__).parents[1] / "old_run"


# the run that is damaged

def make_workspace(root: Path) -> Path:  # runs/
    "A workspace with a small dataset and two runs of a toy model that were stopped half-way, with everything that a run may hold."
    import torch

    from sam_nb.demo.files import make_demo
    from sam_nb.training.callbacks import Callback
    from sam_nb.training.stop import TrainingInterrupted
    class Stop(Callback):
        def after_step(self, t: Any) -> None: t.signal = "SIGINT" if t.step == 9 else None
    torch.set_num_threads(1)
    make_demo("street", root / "data/demo", size=32, train=2, val=1, test=1)
    shutil.copytree(Path(__file__).parents[2] / "nbs", root / "nbs", ignore=shutil.ignore_patterns("lib", "explore*", "_*"))
    trainer = _trainer(root / "runs")
    trainer.callbacks.append(Stop())
    with contextlib.suppress(TrainingInterrupted): trainer.fit()
    _fill(root / "runs" / NAME, trainer.method)
    shutil.copytree(root / "runs" / NAME, root / "runs" / OTHER)
    return root / "runs"


def _fill(run: Path, model: Any) -> None:
    "Best weights, figures, an evaluation, a saved model's configuration, and the log of a scheduler."
    import numpy as np
    from PIL import Image

    from sam_nb.weights import save_state
    save_state(run / "weights.safetensors", model)
    (run / "figures").mkdir()
    (run / "slurm").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(run / "figures/answers.png")
    (run / "slurm/1_0_log.err").write_text("slurmstepd: error: the time is up\n")
    put(run / "run.json", "score", {"name": "miou", "value": 27.5, "step": 8})
    put(run / "run.json", "git", {"commit": "0" * 40, "changed": False})
    rows = [{"name": "a", "iou": 50.0}]
    by_class = {"car": {"iou": 50.0}, "person": {"iou": None}}
    evaluation = {"format": "sam_nb.evaluation/1", "split": "val", "scores": {"miou": 50.0}, "by_class": by_class, "tables": {}, "rows": rows}
    (run / "eval-demo-val.json").write_text(json.dumps(evaluation))
    shutil.copytree(OLD / "old-sartm/model", run / "model")


def _recipe(**values: Any) -> Any:
    from sam_nb.methods.sartm_recipe import sartm_recipe
    return sartm_recipe({"dataset": "demo", "checkpoint": "scratch", "steps": 11, "batch_size": 4, "ema_decay": 0.9, "workers": 0, "device": "cpu",
                         "run_name": NAME, **values})


def _trainer(runs: Path, resume: bool = False) -> Any:
    "The toy model in a run that says it is of SARTM, so that every reader finds a card."
    from sam_nb.training.loop import Trainer
    from sam_nb.training.runs import Run
    from tests import toy
    recipe = _recipe()
    run = Run.resume(NAME, "sartm", recipe, runs) if resume else Run.create("sartm", recipe, runs)
    return Trainer(toy.Toy(), recipe, run, toy.Shapes(16), toy.augment, toy.Shapes(4, "val"), metric=toy.Score())


# damages

@dataclass(frozen=True)
class Damage:
    "What happens to one file of a run."
    file: str  # relative to the run
    do: Callable[[Path], None]  # with the file
    found: str = "by reading"  # `run_problems` tells it; "in use": only what works with the file refuses it; "": it is no damage

    def __call__(self, run: Path) -> None: self.do(run / self.file)


def _write(content: str | bytes, file: Path) -> None: file.write_bytes(content.encode() if isinstance(content, str) else content)
def _cut(file: Path) -> None: file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
def _empty(file: Path) -> None:
    file.write_bytes(b"")
    os.utime(file, (1e9, 1e9))  # a younger one is a run that is being created


def _remove(file: Path) -> None: shutil.rmtree(file) if file.is_dir() else file.unlink()
def _before(content: bytes, file: Path) -> None: file.write_bytes(content + file.read_bytes())
def _after(content: bytes, file: Path) -> None: file.write_bytes(file.read_bytes() + content)


def _instead(make: Callable[[Path], Any], file: Path) -> None:
    _remove(file)
    make(file)


def _full_folder(file: Path) -> None:
    file.mkdir()
    (file / "inside").touch()


def _loop(file: Path) -> None: file.symlink_to(file.name)
def _nowhere(file: Path) -> None: file.symlink_to("nowhere")
def _link(file: Path) -> None: file.symlink_to("figures")


GONE = object()
HUGE = 10**400  # what no float holds


def put(file: Path, path: str, value: Any) -> None:
    "Write a value into a JSON file, by the names and numbers on the way to it; `GONE` removes what is there."
    content = json.loads(file.read_text())
    *way, last = (int(p) if p.isdigit() else p for p in path.split("."))
    inner = content
    for key in way: inner = inner[key]
    if value is GONE: inner.pop(last, None)
    else: inner[last] = value
    file.write_text(json.dumps(content))


def _header(change: Callable[[dict], None], file: Path) -> None:
    "Change the header of a safetensors file."
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size:])


def _state(path: str, value: Any, file: Path) -> None:
    "Change a plain value of a training state."
    def change(header: dict) -> None:
        content = json.loads(header["__metadata__"]["state"])
        *way, last = path.split(".")
        inner = content
        for key in way: inner = inner[key]
        if value is GONE: inner.pop(last)
        else: inner[last] = value
        header["__metadata__"]["state"] = json.dumps(content)
    _header(change, file)


def _tensor(which: str, change: Callable[[str, dict], None], file: Path) -> None:
    "Change the entry of one tensor in the header."
    _header(lambda header: change(next(k for k in header if k.startswith(which) and header[k]["shape"]), header), file)


def _renamed(name: str, header: dict) -> None: header[name + "_"] = header.pop(name)
def _reshaped(name: str, header: dict) -> None: header[name]["shape"] = [1, *header[name]["shape"]]
def _beyond(name: str, header: dict) -> None: header[name]["data_offsets"][1] += 10**9


ANY_FILE: dict[str, Callable[[Path], None]] = {  # what can happen to any file
    "missing": _remove, "empty": _empty, "half": _cut, "one byte": partial(_write, "{"), "random bytes": partial(_write, bytes(range(256)) * 9),
    "zeros": partial(_write, bytes(4096)), "a folder": partial(_instead, _full_folder), "a fifo": partial(_instead, os.mkfifo),
    "a link to itself": partial(_instead, _loop), "a link to nothing": partial(_instead, _nowhere), "a link to a folder": partial(_instead, _link)}

ANY_JSON: dict[str, Callable[[Path], None]] = {  # what can stand in a file of JSON
    "a list": partial(_write, "[]"), "a text": partial(_write, '"text"'), "a number": partial(_write, "7"), "null": partial(_write, "null"),
    "nothing in it": partial(_write, "{}"), "very deep": partial(_write, "[" * 100_000 + "]" * 100_000), "deep": partial(_write, '{"a":' * 900 + "1" + "}" * 900),
    "UTF-16": lambda f: f.write_bytes(f.read_text().encode("utf-16")), "Latin-1": partial(_write, b'{"method": "\xe4"}'),
    "half a surrogate": partial(_write, '{"method": "\\ud800", "status": "finished"}'), "a number of 5,000 digits": partial(_write, '{"steps": ' + "9" * 5000 + "}"),
    "text behind it": partial(_after, b"}")}

VALUES: dict[str, Any] = {"missing": GONE, "text": "many", "a list": ["a", 1], "null": None, "-1": -1, "infinite": float("inf"), "huge": HUGE}

FIELDS = ("format", "name", "method", "status", "created", "began", "ended", "recipe", "parameters", "process", "metrics", "score", "steps", "error", "wall_seconds",
          "resumed", "git", "packages", "hardware", "dataset", "test", "guesses", "peak_memory_gb", "order",
          "process.pid", "process.host", "process.started", "score.name", "score.value", "score.step", "recipe.dataset", "recipe.lr", "recipe.epochs",
          "metrics.miou", "hardware.gpus", "hardware.cores", "dataset.train", "dataset.train.samples", "git.commit")

ONE_FIELD: dict[str, tuple[str, Any]] = {  # further values of run.json
    "a status that there is not": ("status", "sleeping"), "a status of another version": ("format", 99), "a day as time": ("created", "yesterday"),
    "a time without zone": ("created", "2026-11-29T08:06:48"), "the last moment": ("created", "9999-12-31T23:59:59-23:00"),
    "the first moment": ("created", "0001-01-01T00:00:00+23:00"), "a late beginning": ("began", "9999-12-31T23:59:59-23:00"),
    "a pid of 2**70": ("process.pid", 2**70), "a pid of 0": ("process.pid", 0), "a pid of 2**31": ("process.pid", 2**31), "a pid as text": ("process.pid", "5890"),
    "an object for a list": ("hardware.gpus", {"a": 1}), "true for a number": ("steps", True), "half a step": ("steps", 1.5), "an empty method": ("method", ""),
    "a recipe of lists": ("recipe", {"lr": [[{"a": [{}]}]], "dataset": ["a"]}), "a score of NaN": ("score.value", float("nan")),
    "a score as text": ("score", {"name": "miou", "value": "high", "step": 4}), "a score of None": ("score", {"name": "miou", "value": None, "step": 4}),
    "a score without a step": ("score", {"name": "miou", "value": 3.0}), "class scores as text": ("metrics", {"miou": 5.0, "iou": "many"}),
    "class scores of another length": ("metrics", {"iou": [1.0, 2.0]}), "a GPU as text": ("hardware", {"gpus": ["H200"]}),
    "guesses as text": ("guesses", {"a": "much", "b": None}), "a test of text": ("test", {"before": {"miou": "text"}, "after": [1]})}

LINES: dict[str, bytes] = {  # lines behind a sound log
    "half a line": b'{"step": 99, "lo', "a step as text": b'{"step": "99"}\n', "a step of 1e400": b'{"step": 1e400}\n', "a step that is not a number": b'{"step": NaN}\n',
    "a step of 400 digits": b'{"step": ' + b"9" * 400 + b"}\n", "a step of 5,000 digits": b'{"step": ' + b"9" * 5000 + b"}\n", "a step of true": b'{"step": true}\n',
    "a step of -1": b'{"step": -1, "loss": 1}\n', "a step of 1.5": b'{"step": 1.5, "loss": 1}\n', "a step as list": b'{"step": [9]}\n', "no step": b'{"loss": 1.0}\n',
    "a list": b"[1, 2]\n", "a line of text": b"Traceback (most recent call last):\n", "a loss as list": b'{"step": 99, "loss": [1, "a"]}\n',
    "a loss as object": b'{"step": 99, "loss": {"a": 1}}\n', "a loss as text": b'{"step": 99, "loss": "many"}\n', "a loss of 400 digits": b'{"step": 99, "loss": 1' + b"0" * 400 + b"}\n",
    "deep": b'{"step": 99, "loss": ' + b"[" * 900 + b"]" * 900 + b"}\n", "very deep": b"[" * 100_000 + b"\n", "bytes": b"\xff\xfe\x00\x80\n",
    "half a surrogate": b'{"step": 99, "\\ud800": 1}\n', "a line of 2 MB": b'{"step": 99, "loss": "' + b"a" * 2_000_000 + b'"}\n'}
SOUND_LINES: dict[str, bytes] = {"an empty line": b"\n", "a loss that is not a number": b'{"step": 99, "loss": "nan"}\n', "a loss of 1e400": b'{"step": 99, "loss": 1e400}\n',
                                 "a loss of null": b'{"step": 99, "loss": null}\n', "Windows line ends": b'{"step": 99, "loss": 1.0}\r\n',
                                 "an empty name": b'{"step": 99, "": 1.0}\n', "the same step again": b'{"step": 9, "loss": 1.0}\n'}

STATE_FIELDS = ("step", "epoch", "recipe", "per_step", "streams", "method", "frozen", "callbacks", "scaler", "callbacks.BestWeights", "callbacks.BestWeights.best", "callbacks.Log",
                "callbacks.Log.count")
STATE_VALUES = ("missing", "text", "a list", "null", "-1", "huge")

INFO, LOG, STATE, EVAL, WEIGHTS = "run.json", "metrics.jsonl", "last/training.safetensors", "eval-demo-val.json", "weights.safetensors"
CONFIG, FIGURE, ERRORS = "model/config.json", "figures/answers.png", "slurm/1_0_log.err"
PLANNED = (LOG, STATE, EVAL, WEIGHTS, CONFIG, FIGURE, ERRORS)  # files that a run need not have

RECIPE = {"recipe.lr", "recipe.epochs"}  # what is checked when the run is resumed
VALID: dict[str, set[str]] = {  # values that a field of run.json may have
    "missing": {"format", "name", "began", "ended", "parameters", "resumed", "git", "packages", "hardware", "dataset", "test", "guesses", "peak_memory_gb", "order",
                "recipe.dataset", "metrics.miou", "hardware.gpus", "hardware.cores", "dataset.train", *RECIPE},
    "text": {"name", "method", "error", "process.host", "score.name", "recipe.dataset", "git.commit", *RECIPE}, "a list": {"metrics.miou", *RECIPE},
    "null": {"began", "ended", "score", "error", "git", "score.step", "recipe.dataset", "metrics.miou", "hardware.cores", "dataset.train", *RECIPE},
    "-1": {"score.value", "metrics.miou", *RECIPE}, "infinite": {"score.value", "metrics.miou", *RECIPE}, "huge": set()}
VALID_HERE = {"a score of NaN", "class scores of another length", "a test of text"}  # of ONE_FIELD
VALID_STATE = {"streams missing", "frozen missing", "scaler null", "callbacks.BestWeights.best null", "callbacks.BestWeights.best -1", "callbacks.Log.count -1"}
IN_USE_STATE = {"recipe text", "method text", *(f"callbacks.{field} missing" for field in ("BestWeights", "BestWeights.best", "Log", "Log.count")),
                *(f"callbacks.{field} {name}" for field in ("BestWeights.best", "Log.count") for name in ("text", "a list")), "callbacks.Log.count null"}


def _of_file(file: str, name: str) -> str:  # `found` of what can happen to any file
    if name == "missing" and file in PLANNED or name == "empty" and file == LOG: return ""
    return "in use" if file in (CONFIG, FIGURE, ERRORS) else "by reading"


def _of_state(name: str) -> str: return "" if name in VALID_STATE else "in use" if name in IN_USE_STATE else "by reading"
def _of_evaluation(field: str, name: str) -> str:
    if field == "format" and name in ("missing", "text", "null"): return "in use"  # an earlier form
    valid = ("missing", "text", "a list", "null", "-1") if field in ("by_class.car.iou", "scores.miou") else ("missing",)
    return "" if name in valid else "by reading"


def _grid() -> dict[str, Damage]:
    "Every value in every field of the JSON files."
    cells = {f"{INFO}: {field} {name}": Damage(INFO, partial(put, path=field, value=value), "" if field in VALID[name] else "by reading")
             for field in FIELDS for name, value in VALUES.items()}
    return cells | {f"{STATE}: {field} {name}": Damage(STATE, partial(_state, field, VALUES[name]), _of_state(f"{field} {name}"))
                    for field in STATE_FIELDS for name in STATE_VALUES}


DAMAGES: dict[str, Damage] = {
    "no damage": Damage(INFO, lambda file: None, ""),
    **{f"{file}: {name}": Damage(file, do, _of_file(file, name)) for file in (INFO, *PLANNED) for name, do in ANY_FILE.items()},
    **{f"{file}: {name}": Damage(file, do, "in use" if file == CONFIG or (file, name) == (EVAL, "nothing in it") else "by reading")
       for file in (INFO, EVAL, CONFIG) for name, do in ANY_JSON.items()},
    f"{INFO}: a byte order mark": Damage(INFO, partial(_before, b"\xef\xbb\xbf"), ""), f"{LOG}: a byte order mark": Damage(LOG, partial(_before, b"\xef\xbb\xbf"), ""),
    **_grid(),
    **{f"{INFO}: {name}": Damage(INFO, partial(put, path=path, value=value), "" if name in VALID_HERE else "by reading") for name, (path, value) in ONE_FIELD.items()},
    **{f"{LOG}: {name}": Damage(LOG, partial(_after, line)) for name, line in LINES.items()},
    **{f"{LOG}: {name} in the middle": Damage(LOG, partial(_before, line)) for name, line in LINES.items() if line.endswith(b"\n")},
    **{f"{LOG}: {name}": Damage(LOG, partial(_after, line), "") for name, line in SOUND_LINES.items()},
    f"{STATE}: of another kind": Damage(STATE, partial(_header, lambda h: h["__metadata__"].update(training_state="0"))),
    f"{STATE}: its values are no JSON": Damage(STATE, partial(_header, lambda h: h["__metadata__"].update(state="{"))),
    f"{STATE}: its values are a list": Damage(STATE, partial(_header, lambda h: h["__metadata__"].update(state="[]"))),
    f"{STATE}: no values": Damage(STATE, partial(_header, lambda h: h.pop("__metadata__"))),
    f"{STATE}: a header of 2**62 bytes": Damage(STATE, partial(_write, (2**62).to_bytes(8, "little") + b"{}")),
    **{f"{STATE}: {what} of {which}": Damage(STATE, partial(_tensor, which, do), "by reading" if do is _beyond else "in use")
       for which in ("model.", "optimizer.exp_avg.", "callback.EMA.") for what, do in (("another name", _renamed), ("another shape", _reshaped), ("bytes beyond the end", _beyond))},
    **{f"{EVAL}: {field} {name}": Damage(EVAL, partial(put, path=field, value=VALUES[name]), _of_evaluation(field, name))
       for field in ("format", "scores", "by_class", "rows", "tables", "by_class.car", "by_class.car.iou", "scores.miou") for name in STATE_VALUES},
    **{f"{CONFIG}: classes {name}": Damage(CONFIG, partial(put, path="classes", value=VALUES[name]), "in use") for name in ("missing", "text", "a list", "null", "huge")},
    **{f"{folder}: a file": Damage(folder, partial(_instead, partial(_write, "x")), "by reading" if folder == "last" else "in use") for folder in ("figures", "model", "last", "slurm")}}


# readers

@dataclass(frozen=True)
class Reader:
    "Something that reads a run folder."
    read: Callable[[Path], Any]  # of the folder of the runs
    shows: bool = True  # it shows runs: nothing is raised, whatever is damaged; False: it works with the run, and refuses one that is damaged
    needs: tuple[str, ...] = (INFO,)  # the files without which it cannot work
    says: str = ""  # what it says of a run with a damaged run.json

    def __call__(self, runs: Path) -> Any: return self.read(runs)


def _list(runs: Path) -> Any:
    from sam_nb.training.run_list import list_runs
    return list_runs(runs).to_string()


def _last(runs: Path) -> Any:
    from sam_nb.training.run_list import find_run
    return find_run("last", root=runs)


def _find(runs: Path) -> Any:
    from sam_nb.training.run_list import find_run
    return find_run(NAME, root=runs)


def _open(runs: Path) -> Any:
    from sam_nb.training.runs import Run
    run = Run.open(NAME, runs)
    return run, run.status, run.seconds


def _problems(runs: Path) -> Any:
    from sam_nb.training.run_files import run_problems
    return run_problems(runs / NAME)


def _inspect(runs: Path) -> Any:
    from sam_nb.training.run_list import elapsed, inspect_run
    run, problems = inspect_run(runs / NAME)
    assert bool(problems) == (run.status == "damaged")
    return run.status, elapsed(run), run.seconds


def _compare(runs: Path) -> Any:
    from sam_nb.training.run_list import compare_runs
    return compare_runs([NAME, OTHER], runs).to_string()


def _table(runs: Path) -> Any:
    from sam_nb.training.run_list import inspect_run, metrics_table
    return metrics_table(inspect_run(runs / NAME)[0]).to_string()


def _lines(runs: Path) -> Any:
    from sam_nb.training.run_list import inspect_run, logged_lines
    return logged_lines(inspect_run(runs / NAME)[0])


def _summary(runs: Path) -> Any:
    from sam_nb.launch.jobs import run_summary
    from sam_nb.training.run_list import inspect_run
    return run_summary(inspect_run(runs / NAME)[0])


def _curves(runs: Path) -> Any:
    import matplotlib.pyplot as plt

    from sam_nb.charts import training_curves
    figure = training_curves(runs / NAME, width=4)
    plt.close(figure)
    return figure


def _report(runs: Path) -> Any:
    from sam_nb.view.run_browser import save_report
    return save_report([NAME, OTHER], runs.parent / "report.html", runs).read_text()


def _browser(runs: Path) -> Any:
    from sam_nb.view.run_browser import RunBrowser
    browser = RunBrowser(runs, chosen=[NAME, OTHER])
    browser.refresh()
    browser._receive(None, {"ask": "picture", "run": NAME, "file": "answers.png"}, None)
    return browser.static_html() + json.dumps(browser.records, allow_nan=False)


def _choice(runs: Path) -> Any:
    from sam_nb.view.run_browser import run_records, runs_to_compare
    return runs_to_compare(run_records(runs))


def _completion(runs: Path) -> Any:
    from sam_nb.launch.completion import run_names
    return run_names(), run_names("sartm")


def command(words: str, runs: Path) -> str:
    "What a command prints; raises what it reports as a `SamNbError`, and `AssertionError` for another exit code."
    from sam_nb.cli import main
    from sam_nb.core import SamNbError
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err: code = main(words.split())
    assert code in (0, 1) and "Traceback" not in out.getvalue() + err.getvalue(), (code, err.getvalue())
    if code: raise SamNbError(err.getvalue(), file="see above" if "file: " in err.getvalue() else None, remedy="see above" if "to do: " in err.getvalue() else None)
    return out.getvalue()


def _cut_log(runs: Path) -> Any:
    from sam_nb.training.runs import Run, cut_metrics
    run = Run(runs / NAME, {})
    return cut_metrics(run, 5)


def _resume(runs: Path) -> Any:
    trainer = _trainer(runs, resume=True)
    trainer.fit()
    return trainer.run


def _evaluation_job(runs: Path) -> Any:
    from sam_nb.launch.jobs import evaluation_job
    from sam_nb.launch.parameters import find_notebook, read_parameters
    return evaluation_job("sartm", {"run": NAME}, read_parameters(find_notebook("eval", "sartm")))


def _checkpoint(runs: Path) -> Any:
    from sam_nb.evaluation.plan import find_model
    return find_model(NAME)


def _segment(runs: Path) -> Any:
    from sam_nb.segment.models import open_segmenter
    return open_segmenter(NAME)


def _sentences(runs: Path) -> Any:
    from sam_nb.view.sentence_view import open_referring_model
    return open_referring_model(NAME)


def _evaluation(runs: Path) -> Any:
    from sam_nb.evaluation.rows import load_evaluation
    return load_evaluation(runs / NAME / EVAL)


def _card(runs: Path) -> Any:
    from sam_nb.export.packages import write_model_card
    (runs.parent / "card").mkdir(exist_ok=True)
    return write_model_card(runs.parent / "card", runs / NAME, {})


READERS: dict[str, Reader] = {
    "run_problems": Reader(_problems), "inspect_run": Reader(_inspect, says="damaged"), "list_runs": Reader(_list, says="damaged"), "find_run last": Reader(_last, says=OTHER),
    "compare_runs": Reader(_compare, says="damaged"), "metrics_table": Reader(_table), "logged_lines": Reader(_lines), "run_summary": Reader(_summary, says="damaged"),
    "save_report": Reader(_report, says="damaged"), "RunBrowser": Reader(_browser, says="damaged"), "explore_runs": Reader(_choice), "completion": Reader(_completion, says=NAME),
    "sam_nb runs": Reader(partial(command, "runs"), says="damaged"), "sam_nb runs show": Reader(partial(command, f"runs show {NAME}"), says="damaged"),
    "sam_nb runs compare": Reader(partial(command, f"runs compare {NAME} {OTHER}"), says="damaged"),
    "sam_nb runs report": Reader(lambda runs: command(f"runs report {NAME} {OTHER} --out {runs.parent / 'other.html'}", runs)),
    "training_curves": Reader(_curves, shows=False, needs=()),  # of a log without a valid line there is nothing to draw
    "find_run": Reader(_find, shows=False), "Run.open": Reader(_open, shows=False), "evaluation_job": Reader(_evaluation_job, shows=False),
    "checkpoint=": Reader(_checkpoint, shows=False), "segment": Reader(_segment, shows=False), "sentences": Reader(_sentences, shows=False),
    "load_evaluation": Reader(_evaluation, shows=False, needs=(EVAL,)), "model card": Reader(_card, shows=False),
    "eval --dry_run": Reader(partial(command, f"eval sartm --run {NAME} --dry_run"), shows=False),
    "train --resume --dry_run": Reader(partial(command, f"train sartm --resume {NAME} --dry_run"), shows=False),
    "cut_metrics": Reader(_cut_log, shows=False, needs=()), "resume": Reader(_resume, shows=False, needs=(INFO, STATE))}  # the last two write
UNFIT = ("segment", "sentences")  # what refuses the sound run as well: its model has no weights, and takes no sentences


# trials

LIMIT = 10  # seconds: a fifo that is read waits for ever


class TooLong(BaseException): "A reader did not come back."


@contextlib.contextmanager
def limited(seconds: float = LIMIT):
    "Raise `TooLong` after so many seconds."
    def late(number: int, frame: Any) -> None: raise TooLong(f"{seconds} s")
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Trial:
    "What a reader made of a damage."
    damage: str
    reader: str
    shown: str = ""  # what it returned, as text
    error: str = ""  # kind, message and place of what it raised; "": nothing
    raw: bool = False  # that is no `SamNbError`
    told: bool = True  # it has a file and a remedy

    def __str__(self) -> str: return f"{self.damage} | {self.reader}: {self.error or 'fine'}"


def try_one(damage: str, name: str, reader: Reader, runs: Path, seconds: float = LIMIT) -> Trial:
    from sam_nb.core import SamNbError
    try:
        with limited(seconds), contextlib.redirect_stdout(io.StringIO()): return Trial(damage, name, str(reader(runs)))
    except KeyboardInterrupt: raise
    except BaseException as error:
        place = next((f"{Path(f.filename).name}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)) if "sam_nb/" in f.filename), "?")
        said = f"{type(error).__name__}: {str(error)[:300]} ({place})"
        return Trial(damage, name, error=said, raw=not isinstance(error, SamNbError), told=bool(getattr(error, "file", None) and getattr(error, "remedy", None)))


def try_all(damage: str, sound: Path, folder: Path, readers: dict[str, Reader] | None = None, seconds: float = LIMIT) -> list[Trial]:
    "One damage before every reader, in a copy of a sound workspace's runs."
    runs = folder / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    shutil.copytree(sound, runs)
    DAMAGES[damage](runs / NAME)
    return [try_one(damage, name, reader, runs, seconds) for name, reader in (READERS if readers is None else readers).items()]


def main() -> int:
    "Print the table of trials; the exit code says whether there was a raw exception."
    began, trials = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAM_NB_ROOT"] = folder
        sound = Path(shutil.copytree(make_workspace(Path(folder)), Path(folder) / "sound"))
        try_all("no damage", sound, Path(folder), seconds=600)  # imports take as long as they take
        for damage in DAMAGES:
            trials += try_all(damage, sound, Path(folder))
            for trial in trials[-len(READERS):]:
                if trial.raw: print(trial, flush=True)
    raw = [t for t in trials if t.raw]
    print(f"\n{len(DAMAGES)} damages x {len(READERS)} readers: {len(trials)} trials, {len(raw)} raw exceptions, {time.monotonic() - began:.0f} s")
    for name, count in Counter(t.reader for t in raw).most_common(): print(f"  {name:<26}{count:>5}")
    return bool(raw)


if __name__ == "__main__": sys.exit(main())
