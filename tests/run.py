"""Run every notebook and every test file, and say how far it is, what failed, and how to run that again.

    python -m tests.run                                             everything outside tests/browser, on up to four processors
    python -m tests.run -n 1                                        one after the other
    python -m tests.run 03_losses.ipynb tests/test_cli.py           some of it: paths or names of files
    python -m tests.run tests/test_cli.py::test_help_is_quick       one test

Each notebook and each test file has a process of its own, a fork of one that has torch and the other packages imported.
"""
from __future__ import annotations

import argparse
import importlib
import io
import json
import multiprocessing
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LONG = ("nbs/train_saom.ipynb", "nbs/train_promptable.ipynb", "nbs/train_rsam.ipynb", "nbs/train_sartm.ipynb", "tests/test_bad_input.py", "tests/test_own_method.py",
        "tests/test_parity.py", "tests/test_rsam.py", "tests/test_remotesam.py", "tests/test_s4m.py", "tests/test_resume.py", "tests/test_cli.py", "tests/test_readme.py", "tests/test_progress.py",
        "nbs/lib/70_export.onnx.ipynb", "nbs/eval_promptable.ipynb", "nbs/lib/30_heads.everything.ipynb")  # first, so that no processor waits for one at the end
BROWSER = ROOT / "tests/browser"  # make test-browser
PACKAGES = ("torch", "torchvision", "torchmetrics", "transformers", "transformers.models.clip.modeling_clip", "sam2", "segment_anything", "peft", "cv2", "scipy.ndimage",
            "pycocotools.mask", "pandas", "matplotlib.pyplot", "IPython", "anywidget", "papermill", "nbdev.test", "pytest")
SETTINGS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "OMP_NUM_THREADS")  # what a number may depend on, besides the processor
LIMIT = 900  # seconds that one file may take
REPORTED = ("sam_nb", "numpy", "torchvision", "transformers", "sam2", "jupyterlab")  # versions in the report, besides torch


@dataclass
class Outcome:
    "What came of a notebook or a test file."
    name: str  # relative to the checkout
    passed: list[str] = field(default_factory=list)  # tests as pytest writes them, or the notebook
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # tests, with the reason
    cells: int = 0  # of a notebook, that were run
    seconds: float = 0.0
    processor: float = 0.0  # seconds, of the process and its children
    output: str = ""

    def report(self, result: Any) -> None:  # what pytest says of a test's setup, call and teardown
        if result.when == "call" and result.passed: self.passed.append(result.nodeid)
        if result.skipped: self.skipped.append(f"{result.nodeid}: {result.longrepr[-1] if isinstance(result.longrepr, tuple) else result.longrepr}")
        if result.failed:
            self.failed = [*dict.fromkeys([*self.failed, result.nodeid])]
            self.passed = [name for name in self.passed if name != result.nodeid]  # what it leaves behind can fail too


def everything() -> list[str]:
    "Notebooks and test files, the long ones first."
    from nbdev.config import get_config
    from nbdev.doclinks import nbglob
    notebooks = sorted(Path(f).resolve().relative_to(ROOT).as_posix() for f in nbglob(get_config().nbs_path, as_path=True))
    tests = sorted(f.relative_to(ROOT).as_posix() for f in (ROOT / "tests").rglob("test_*.py") if BROWSER not in f.parents)
    names = [*tests, *notebooks]
    return sorted(names, key=lambda name: LONG.index(name) if name in LONG else len(LONG))


def chosen(words: list[str]) -> dict[str, list[str]]:
    "Files, and of each the tests that were named, as pytest writes them; none: the whole file."
    names, found = everything(), {}
    for word in words:
        file, _, test = word.partition("::")
        name = next((n for n in names if n == file or n.endswith("/" + file)), None)
        if name is None: raise SystemExit(f"no notebook and no test file is called {file}")
        found.setdefault(name, []).extend([f"{name}::{test}"] if test else [])
    return found or {name: [] for name in names}


def work(name: str, tests: list[str], folder: Path) -> None:
    "In a process of its own: run a file, or some of its tests; its output goes to folder/output, what came of it to folder/outcome."
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with open(folder / "output", "w") as file: os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    outcome = Outcome(name)
    if name.endswith(".ipynb"): run_notebook(outcome)
    else: run_tests(outcome, tests)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN): outcome.processor += sum(resource.getrusage(who)[:2])
    (folder / "outcome").write_text(json.dumps(asdict(outcome)))


def run_notebook(outcome: Outcome) -> None:
    "Run every code cell; one that is left out and not in tests/skips.json is a failure."
    import nbdev.test
    from nbdev.config import get_config

    from tests import skips
    class Counting(nbdev.test.CaptureShell):
        def cell(self, cell: Any, *args: Any, **options: Any) -> None:
            outcome.cells += cell.cell_type == "code"
            super().cell(cell, *args, **options)

    nbdev.test.CaptureShell = Counting
    os.chdir(ROOT / "nbs")
    passed, _ = nbdev.test.test_nb(ROOT / outcome.name, skip_flags=get_config().tst_flags.split(), force_flags=[], basepath=ROOT)
    there = sum(cell["cell_type"] == "code" for cell in json.loads((ROOT / outcome.name).read_text())["cells"])
    known = sum(line.startswith("skip: #|") for line in skips.listed().get(outcome.name, []))
    left_out = there - known - outcome.cells
    if passed and left_out: print(f"{left_out} of {there} code cells were not run: python -m tests.skips")
    (outcome.passed if passed and not left_out else outcome.failed).append(outcome.name)


def run_tests(outcome: Outcome, tests: list[str]) -> None:
    "Run a test file, or some of its tests; a test that is written there and that pytest does not report is a failure."
    import ast

    import pytest

    from tests import skips
    seen = set()
    def report(self: Any, report: Any) -> None:
        seen.add(report.nodeid.partition("[")[0])
        outcome.report(report)
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", *(tests or [outcome.name])], plugins=[type("Reports", (), {"pytest_runtest_logreport": report})()])
    written = {f"{outcome.name}::{test}" for test in skips.tests_in(ast.parse((ROOT / outcome.name).read_text()))}
    unseen = [] if tests else sorted(written - seen)
    if unseen and not code: print("written here, and not run:", *unseen)
    outcome.failed += [] if code else unseen
    if code and not outcome.failed: outcome.failed = [outcome.name]


@dataclass
class Job:
    "A file that is being run."
    name: str
    tests: list[str]  # of it; none: all
    folder: Path
    began: float = field(default_factory=time.perf_counter)

    def start(self) -> Job:
        self.folder.mkdir()
        self.process = multiprocessing.get_context("fork").Process(target=work, args=(self.name, self.tests, self.folder))
        self.process.start()
        return self

    @property
    def seconds(self) -> float: return time.perf_counter() - self.began

    def stop(self) -> None:
        "End it, and what it started."
        try: os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError: pass

    def end(self) -> Outcome:
        self.process.join()
        written, output = self.folder / "outcome", self.folder / "output"
        outcome = Outcome(**json.loads(written.read_text())) if written.exists() else Outcome(self.name, failed=[self.name])
        outcome.seconds, outcome.output = self.seconds, output.read_text(errors="replace") if output.exists() else ""
        if not written.exists(): outcome.output += f"\nended with code {self.process.exitcode} after {self.seconds:.0f} s"
        return outcome


class Progress:
    "A line for each file that is done; in a terminal one line that moves, and a lasting one for each failure."
    def __init__(self, total: int):
        self.total, self.done, self.began, self.moves = total, 0, time.perf_counter(), sys.stdout.isatty()

    def line(self) -> str:
        seconds = time.perf_counter() - self.began
        return f"[{self.done:3d} of {self.total}, {int(seconds) // 60}:{int(seconds) % 60:02d}]"

    def running(self, jobs: list[Job]) -> None:
        if self.moves: print(f"\r\033[K{self.line()} " + ", ".join(f"{j.name} {j.seconds:.0f} s" for j in jobs), end="", flush=True)

    def ended(self, outcome: Outcome) -> None:
        self.done += 1
        if outcome.failed: print(f"{chr(13) + chr(27) + '[K' if self.moves else ''}{self.line()} FAILED {outcome.name} {outcome.seconds:.1f} s", flush=True)
        elif not self.moves: print(f"{self.line()} {outcome.name} {outcome.seconds:.1f} s", flush=True)


def run_all(files: dict[str, list[str]], processes: int, folder: Path) -> list[Outcome]:
    "Run files, so many at a time, in their order."
    waiting, running, outcomes, progress = list(files), {}, [], Progress(len(files))
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                name = waiting.pop(0)
                job = Job(name, files[name], folder / str(len(waiting))).start()
                running[job.process.sentinel] = job
            progress.running([*running.values()])
            for sentinel in wait([*running], timeout=1):
                outcomes.append(running.pop(sentinel).end())
                progress.ended(outcomes[-1])
            for job in running.values():
                if job.seconds > LIMIT: job.stop()
    finally:
        for job in running.values(): job.stop()
    if progress.moves: print("\r\033[K", end="")
    return outcomes


def report() -> str:
    "What a person should tell with a failure: the machine, and the versions."
    from tests.parity.checks import machine
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    versions = ", ".join(f"{name} {version(name)}" for name in REPORTED)
    return f"{machine()}; {platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}, {versions}, commit {commit or 'unknown'}"


def summary(outcomes: list[Outcome], seconds: float) -> int:
    "Print what came of everything, and for failures what failed, how to run that alone, and what to report."
    notebooks = [o for o in outcomes if o.name.endswith(".ipynb")]
    failed = [name for o in outcomes for name in o.failed]
    for o in outcomes:
        if o.failed: print(f"\n{'-' * 20} {o.name} {'-' * 20}\n" + "\n".join(o.output.splitlines()[-80:]))
    tests, skipped = sum(len(o.passed) for o in outcomes if o not in notebooks), [line for o in outcomes for line in o.skipped]
    longest = sorted(outcomes, key=lambda o: -o.seconds)[:12]
    if len(outcomes) > 1: print("longest:", ", ".join(f"{Path(o.name).name} {o.seconds:.0f} s" for o in longest))
    for line in skipped: print("skipped:", line)
    print(f"{sum(len(o.passed) for o in notebooks)} notebooks ({sum(o.cells for o in notebooks)} cells) and {tests} tests passed, {len(skipped)} skipped, {len(failed)} failed "
          f"in {seconds:.0f} s ({sum(o.processor for o in outcomes):.0f} s of processor time)")
    if not failed: return 0
    settings = "".join(f"{name}={os.environ[name]} " for name in SETTINGS if name in os.environ)
    print(f"what failed:  {', '.join(failed)}\nrun it alone: {settings}{os.path.relpath(sys.executable)} -m tests.run {' '.join(failed)}\nto report:    {settings}{report()}")
    return 1


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="notebooks, test files, or tests as pytest writes them; none: all of them")
    parser.add_argument("-n", "--processes", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, help="write what came of each file there, as JSON")
    options = parser.parse_args(words)
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MPLBACKEND", "agg")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # what is running ends too
    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        for name in PACKAGES: importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="sam_nb_tests_", ignore_cleanup_errors=True) as folder:
        outcomes = run_all(chosen(options.names), options.processes, Path(folder))
    if options.out: options.out.write_text(json.dumps([asdict(o) for o in outcomes]))
    return summary(outcomes, time.perf_counter() - began)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
