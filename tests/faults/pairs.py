"""Two processes at one run, at the same moment: exactly one trains, the other is refused and changes nothing.

    python -m tests.faults.pairs 200          that many pairs, the kinds in turn; the table is stored in benchmarks/results/run_pairs.json
    python -m tests.faults.pairs 8 create     some of one kind

A pair is two real processes that wait for each other before they begin. The run that comes out must be the one that a single
undisturbed process makes: run.json sound and finished, one line a step in metrics.jsonl, equal weights, no other file.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from sam_nb.core import RunError, SamNbError, write_json
from sam_nb.recipe import Recipe
from sam_nb.training.run_files import read_run_info
from sam_nb.training.runs import Run
from tests import toy
from tests.command import MAIN, environment, write_notebook
from tests.test_cli import PARAMETERS

SMALL = dict(epochs=4, workers=0, save_every=3)  # of 28 images: 3 steps an epoch
QUICK = '''from sam_nb.recipe import Recipe
from sam_nb.training.runs import Run, cut_metrics
recipe = Recipe(dataset=dataset, epochs=epochs, run_name=run_name, resume=resume)
run = Run.resume(resume, "quick", recipe) if resume else Run.create("quick", recipe)
done = 3 if resume else 0
cut_metrics(run, done)
run.start()
for step in range(done, 12): run.log(step + 1, loss=1 / (step + 1))
run.finish({"miou": 50.0}, steps=12)'''
RESULTS = Path(__file__).parents[2] / "benchmarks/results/run_pairs.json"
NAME = "same"


@dataclass
class Pair:
    "What came of a pair."
    kind: str
    said: list[str]  # "trained", or the error of each
    seconds: list[float]  # of each, from its last attempt until it was refused or ended
    problems: list[str] = field(default_factory=list)

    @property
    def winners(self) -> int: return self.said.count("trained")

    @property
    def refused_after(self) -> float: return max((s for said, s in zip(self.said, self.seconds, strict=True) if said != "trained"), default=0.0)


BEGAN = [0.0]  # of the last attempt of this process

def train(root: Path, resume: bool = False, slow: float = 0.0) -> None:
    BEGAN[0] = time.perf_counter()
    toy.trainer(root, NAME, resume=resume, size=28, callbacks=[toy.Slow(slow)], **SMALL).fit()


def racer(function: Callable[[], None], wait: Callable[[], None], file: Path) -> Callable[[], None]:
    "A function for a process of its own: wait for the other, then call `function` and write down what came of it."
    def main() -> None:
        wait()
        time.sleep(random.random() * 0.01)
        said = "trained"
        try: function()
        except SamNbError as error: said = f"{type(error).__name__}: {error.fact}"
        file.write_text(json.dumps([said, time.perf_counter() - BEGAN[0]]))
    return main


def race(root: Path, *functions: Callable[[], None]) -> tuple[list[str], list[float]]:
    "Call functions in processes of their own at one moment."
    barrier, files = multiprocessing.get_context("fork").Barrier(len(functions)), [root / f"said{i}" for i in range(len(functions))]
    processes = [toy.in_process(racer(f, barrier.wait, file), root / f"log{i}") for i, (f, file) in enumerate(zip(functions, files, strict=True))]
    for process in processes: process.join(120)
    found = [json.loads(file.read_text()) if file.exists() else [f"raw: {(root / f'log{i}').read_text()[-300:]}", 0.0] for i, file in enumerate(files)]
    return [f[0] for f in found], [f[1] for f in found]


def problems_of(runs: Path, whole: Path) -> list[str]:
    "How a run differs from the undisturbed one in `whole`."
    folder, found = runs / NAME, []
    info, damage = read_run_info(folder)
    if damage or info.get("status") != "finished": found += [f"run.json: {damage or info.get('status')}"]
    if toy.lines(runs, NAME) != toy.lines(whole, NAME): found += [f"metrics.jsonl: {len(toy.lines(runs, NAME))} lines, not {len(toy.lines(whole, NAME))}, or other values"]
    weights, expected = load_file(folder / "weights.safetensors"), load_file(whole / NAME / "weights.safetensors")
    if weights.keys() != expected.keys() or not all(torch.equal(weights[k], expected[k]) for k in expected): found += ["other weights"]
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*")} - {p.relative_to(whole / NAME).as_posix() for p in (whole / NAME).rglob("*")}
    if names: found += [f"left behind: {', '.join(sorted(names))}"]
    others = {p.name for p in runs.iterdir() if p.is_dir()} - {NAME}
    return found + ([f"other folders: {others}"] if others else [])


def killed_run(root: Path, step: int) -> None:
    "A run that was killed after a step; its lock file still names the process."
    process = toy.in_process(lambda: train(root, slow=0.01), root / f"{NAME}.log")
    toy.wait_for_step(process, root, NAME, step)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def create(root: Path, whole: Path) -> Pair:
    "Two create a run of one name."
    said = race(root, lambda: train(root), lambda: train(root))
    return Pair("create", *said, problems_of(root, whole))


def resume(root: Path, whole: Path) -> Pair:
    "Two resume a run that was killed."
    killed_run(root, random.randint(1, 8))
    said = race(root, lambda: train(root, resume=True), lambda: train(root, resume=True))
    return Pair("resume", *said, problems_of(root, whole))


def join(root: Path, whole: Path) -> Pair:
    "One resumes a run while its creator trains."
    def late() -> None:
        while not toy.lines(root, NAME): time.sleep(0.002)
        time.sleep(random.random() * 0.05)
        train(root, resume=True)
    said = race(root, lambda: train(root, slow=0.02), late)
    return Pair("join", *said, problems_of(root, whole))


def kill(root: Path, whole: Path) -> Pair:
    "The creator is killed while two try to resume, until one may."
    creator = toy.in_process(lambda: train(root, slow=0.2), root / f"{NAME}.log")
    toy.wait_for_step(creator, root, NAME, 1)
    at = time.time() + 0.1 + random.random() * 0.2
    def again() -> None:
        until = time.monotonic() + 30
        while True:
            try: return train(root, resume=True)
            except RunError as error:
                if "in use" not in error.fact or time.monotonic() > until: raise
    killer = toy.in_process(lambda: (time.sleep(max(0, at - time.time())), os.kill(creator.pid, signal.SIGKILL)), root / "killer.log")
    said = race(root, again, again)
    for process in (killer, creator): process.join()
    return Pair("kill", *said, problems_of(root, whole))


def commands(root: Path, words: str) -> tuple[list[str], list[float]]:
    "The command twice at one moment."
    began = time.perf_counter()
    both = [subprocess.Popen([*MAIN, *words.split()], cwd=root, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    out = [p.communicate(timeout=180)[0] for p in both]
    return ["trained" if p.returncode == 0 else o.strip()[-400:] for p, o in zip(both, out, strict=True)], [time.perf_counter() - began] * 2


def workspace(root: Path) -> Path:
    "A method whose notebook logs twelve steps, without torch: a kernel starts in a second."
    write_notebook(root / "nbs/train_quick.ipynb", PARAMETERS, QUICK)
    return root / "runs"


def quick_problems(runs: Path, notebook: str) -> list[str]:
    "How a run of the quick notebook differs from an undisturbed one."
    folder, (info, damage) = runs / NAME, read_run_info(runs / NAME)
    found = [] if not damage and info["status"] == "finished" else [f"run.json: {damage or info['status']}"]
    steps = [row["step"] for row in toy.lines(runs, NAME)]
    names = {p.name for p in folder.iterdir()} - {"run.json", "metrics.jsonl", ".lock", notebook}
    cells = [c["execution_count"] for c in json.loads((folder / notebook).read_text())["cells"] if c["cell_type"] == "code"]
    if steps != [*range(1, 13)]: found += [f"steps {steps}"]
    if names or {p.name for p in runs.iterdir()} != {NAME}: found += [f"left behind: {names} {[p.name for p in runs.iterdir()]}"]
    return found + ([] if cells == [*range(1, len(cells) + 1)] else [f"{notebook}: cells run {cells}"])


def command(root: Path, whole: Path) -> Pair:
    "`sam_nb train quick --run_name same`, twice."
    runs = workspace(root)
    said = commands(root, f"train quick --run_name {NAME}")
    return Pair("command", *said, quick_problems(runs, "notebook.ipynb"))


def command_resume(root: Path, whole: Path) -> Pair:
    "`sam_nb train quick --resume same`, twice, of a run that was killed."
    runs = workspace(root)
    def begin() -> None:
        run = Run.create("quick", Recipe(dataset="demo", epochs=2, run_name=NAME), runs)
        run.start()
        for step in range(random.randint(3, 6)): run.log(step + 1, loss=1 / (step + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    runs.mkdir()
    toy.in_process(begin, root / "log").join()
    said = commands(root, f"train quick --resume {NAME}")
    return Pair("command_resume", *said, quick_problems(runs, "notebook-1.ipynb"))


KINDS = {f.__name__: f for f in (create, resume, join, kill, command, command_resume)}
RARE = {"command": 2, "command_resume": 2}  # a pair of commands takes longer


def run_pair(kind: str, whole: Path) -> Pair:
    root = Path(tempfile.mkdtemp(prefix="pair-"))
    try: return KINDS[kind](root, whole)
    finally: shutil.rmtree(root, ignore_errors=True)


def undisturbed() -> Path:
    "The runs folder of one process that trains alone."
    whole = Path(tempfile.mkdtemp(prefix="whole-"))
    toy.finish(toy.in_process(lambda: train(whole), whole / f"{NAME}.log"), whole, NAME)
    return whole


def summary(pairs: list[Pair]) -> dict[str, dict[str, float]]:
    "A row for each kind."
    rows = {}
    for kind in KINDS:
        some = [p for p in pairs if p.kind == kind]
        if some:
            rows[kind] = {"pairs": len(some), "exactly one winner": sum(p.winners == 1 for p in some), "intact": sum(not p.problems for p in some),
                          **({} if "command" in kind else {"slowest refusal, s": round(max(p.refused_after for p in some), 2)})}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=int)
    parser.add_argument("kinds", nargs="*", metavar="kind", help=", ".join(KINDS))
    options = parser.parse_args()
    kinds = options.kinds or [*KINDS]
    if unknown := {*kinds} - {*KINDS}: parser.error(f"no kind {unknown.pop()!r}: {', '.join(KINDS)}")
    torch.set_num_threads(1)
    whole, pairs, began = undisturbed(), [], time.perf_counter()
    plan = [k for n in range(options.pairs) for k in kinds if len(kinds) == 1 or n % RARE.get(k, 1) == 0][:options.pairs]
    try:
        for number, kind in enumerate(plan, 1):
            pairs.append(pair := run_pair(kind, whole))
            fine = pair.winners == 1 and not pair.problems
            if not fine: print(f"{kind}: {pair.said} {pair.problems}", flush=True)
            if number % 20 == 0 or number == len(plan): print(f"{number} of {len(plan)} pairs, {time.perf_counter() - began:.0f} s", flush=True)
            if len(plan) >= 100: _store(pairs, time.perf_counter() - began)
    finally: shutil.rmtree(whole, ignore_errors=True)
    for kind, row in summary(pairs).items(): print(f"{kind:15}", "  ".join(f"{k} {v}" for k, v in row.items()))


def _store(pairs: list[Pair], seconds: float) -> None:
    write_json(RESULTS, {"command": "python -m tests.faults.pairs 200", "pairs": len(pairs), "exactly one winner": sum(p.winners == 1 for p in pairs),
                         "intact": sum(not p.problems for p in pairs), "minutes": round(seconds / 60, 1), "kinds": summary(pairs),
                         "said by the refused": sorted({s.split(" by ")[0].partition("'")[0] for p in pairs for s in p.said if s != "trained" and len(s) < 400})[:12],
                         "system": platform.platform(terse=True), "torch": torch.__version__})


if __name__ == "__main__": main()
