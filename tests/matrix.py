"""The tests whose numbers could depend on the processor, under several of its settings, as a table.

    python -m tests.matrix           two settings, a part of each suite: under two minutes on two cores
    python -m tests.matrix --all     every instruction set of this processor, in torch and in oneDNN, one and two threads, whole suites

ATEN_CPU_CAPABILITY chooses torch's own kernels, ONEDNN_MAX_CPU_ISA those of convolutions, MKL_CBWR those of matrix products, OMP_NUM_THREADS how
sums are split. Equal bits are demanded within a setting only. A negative control makes a mistake on purpose, and passes if it is noticed.
"""
from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.parity.checks import machine
from tests.run import ROOT, Outcome

CAPABILITIES = {"default": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}  # of torch, and oneDNN's instruction set that is like it


@dataclass(frozen=True)
class Setting:
    "How a process computes."
    capability: str
    instructions: str
    threads: int

    @property
    def variables(self) -> dict[str, str]:
        own = {"ATEN_CPU_CAPABILITY": self.capability, "ONEDNN_MAX_CPU_ISA": self.instructions, "OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        return own | ({"MKL_CBWR": "COMPATIBLE"} if self.capability == "default" else {})

    def __str__(self) -> str: return f"{self.capability}, {self.instructions}, {self.threads} thread{'s' * (self.threads > 1)}"


def settings(whole: bool) -> list[Setting]:
    "Those that this processor has. Its own, with one thread, is what `make test` ran everything with."
    able = [*CAPABILITIES][:1 + [*CAPABILITIES].index(own)] if (own := torch.backends.cpu.get_cpu_capability().lower()) in CAPABILITIES else []
    if whole: return [Setting(*values) for values in itertools.product(able, [CAPABILITIES[c] for c in able], (1, 2))]
    return [setting for setting in (Setting("default", "SSE41", 1), Setting("avx2", "AVX2", 2)) if setting.capability in able]


def named(file: str, *parts: str) -> list[str]:
    "The tests of a file whose names have one of these parts."
    return [f"{file}::{name}" for name in re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), re.M) if any(p in name for p in parts)]


def suites(whole: bool) -> dict[str, list[str]]:
    "What is run, by the name of the column."
    golden = sorted(f for f in (ROOT / "nbs/lib").glob("*.ipynb") if re.search(r"= golden\(", f.read_text()))
    everything = ["nbs/lib/30_heads.everything.ipynb"]
    if whole: return {"parity": ["tests/test_parity.py"], "everything": everything, "golden notebooks": [f.relative_to(ROOT).as_posix() for f in golden],
                      "resume": [f"tests/test_{name}.py" for name in ("resume", "old_run", "distributed", "rsam", "saom", "remotesam", "s4m")]}
    return {"parity": named("tests/test_parity.py", "committed", "noticed"), "everything": everything,
            "resume": [*named("tests/test_resume.py", "resumed_run", "noticed"), *named("tests/test_old_run.py", "resumes", "noticed")]}


def run(setting: Setting, names: list[str]) -> list[Outcome]:
    "Run tests in a process with these settings."
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outcomes.json"
        processes = max(1, min(4, os.cpu_count() or 1) // setting.threads)
        subprocess.run([sys.executable, "-m", "tests.run", "-n", str(processes), "--out", out, *names], cwd=ROOT, env={**os.environ, **setting.variables})
        if not out.exists(): raise SystemExit(f"{setting}: the tests ended without a result")
        return [Outcome(**values) for values in json.loads(out.read_text())]


def cell(outcomes: list[Outcome]) -> str:
    passed, failed, seconds = (sum(values) for values in zip(*((len(o.passed), len(o.failed), o.seconds) for o in outcomes)))
    return f"{passed} passed" + f", {failed} FAILED" * bool(failed) + f", {seconds:.0f} s"


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every setting and whole suites")
    whole, began = parser.parse_args(words).all, time.perf_counter()
    print(machine(), flush=True)
    columns, rows, controls, failed = suites(whole), [], {}, False
    for setting in settings(whole):
        print(f"\n{setting}: " + " ".join(f"{k}={v}" for k, v in setting.variables.items()), flush=True)
        outcomes = run(setting, [name for names in columns.values() for name in names])
        files = {name: {n.partition("::")[0] for n in names} for name, names in columns.items()}
        rows.append([str(setting), *(cell([o for o in outcomes if o.name in files[name]]) for name in columns)])
        failed |= any(o.failed for o in outcomes)
        for name in (n for o in outcomes for n in (*o.passed, *o.failed) if "noticed" in n): controls.setdefault(name, []).append(any(name in o.passed for o in outcomes))
    if not rows: print("torch has no other settings on this processor")
    table = [["torch, oneDNN, threads", *columns], *rows]
    widths = [max(map(len, column)) for column in zip(*table)]
    print()
    for row in table: print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    print("\nnegative controls, noticed in how many settings:")
    for name, noticed in controls.items(): print(f"  {sum(noticed)} of {len(rows)}  {name}")
    print(f"{time.perf_counter() - began:.0f} s")
    return int(failed)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
