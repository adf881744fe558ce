"""The command sam_nb as a process, in a workspace of its own."""
from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
MAIN = [sys.executable, "-c", "import sys; from sam_nb.cli import main; sys.exit(main())"]


@dataclass
class Said:
    "What a command answered, and what it cost: its own processor time and that of its kernel."
    code: int
    out: str
    error: str
    cpu: float
    wall: float


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "SAM_NB_ROOT": str(root), "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


def run(words: list[str], root: Path, **changes: str) -> Said:
    "Run a program and wait for it."
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, cwd=root, env={**environment(root), **changes}, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Said(done.returncode, done.stdout, done.stderr, cpu, time.perf_counter() - started)


def sam_nb(words: str | list[str], root: Path, **changes: str) -> Said:
    return run([*MAIN, *(words.split() if isinstance(words, str) else words)], root, **changes)


def start(words: str, root: Path) -> subprocess.Popen:
    "Start sam_nb in a process group of its own, as a shell does."
    return subprocess.Popen([*MAIN, *words.split()], cwd=root, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def wait_for(there, process: subprocess.Popen, seconds: float = 60) -> None:
    "Wait until `there()` is true."
    until = time.monotonic() + seconds
    while not there():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)


def write_notebook(path: Path, *cells: str) -> Path:
    "A job notebook; the first cell holds its parameters."
    made = [dict(cell_type="code", id=f"cell{i}", metadata={"tags": ["parameters"]} if i == 0 else {}, execution_count=None, outputs=[], source=c)
            for i, c in enumerate(cells)]
    about = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": 5}))
    return path


def workspace_is_empty(root: Path) -> bool:
    "No run was left, not even half of one."
    return not (root / "runs").exists() or not [p for p in (root / "runs").rglob("*") if p.name != "README.md"]
