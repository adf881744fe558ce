"""What the launcher costs: `sam_nb train METHOD` against a plain Python script that makes the same calls.

    python -m benchmarks.launcher [--rounds 5]

The script is made of the notebook's own code cells, so both import, read, train, evaluate and draw the same.
They take turns, in processes of their own.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sam_nb.demo.files import make_demo
from sam_nb.launch.parameters import find_notebook

MAIN = [sys.executable, "-c", "import sys; from sam_nb.cli import main; sys.exit(main())"]


def plain_script(method: str, parameters: dict) -> str:
    "The code cells of the training notebook, parameters set as papermill sets them."
    cells = [c for c in json.loads(find_notebook("train", method).read_text())["cells"] if c["cell_type"] == "code"]
    code = []
    for cell in cells:
        code.append("".join(cell["source"]))
        if "parameters" in cell["metadata"].get("tags", []): code += [f"{k} = {v!r}" for k, v in parameters.items()]
    return "\n\n".join(code)


def measure(words: list[str], folder: Path) -> tuple[float, float]:
    "Seconds on the clock, and of the processors (the kernel's included)."
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "SAM_NB_ROOT": str(folder), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="sartm")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, taken = Path(name), {"script": [], "sam_nb": []}
        make_demo("street", folder / "data/demo", train=16, val=4, test=4)
        for number in range(-1, options.rounds):  # the first turn warms the disk cache and does not count
            script = folder / "script.py"
            script.write_text(plain_script(options.method, {"dataset": "demo", "steps": options.steps, "run_name": f"script{number}"}))
            command = ["train", options.method, "--dataset", "demo", "--steps", str(options.steps), "--run_name", f"sam_nb{number}"]
            for who, words in {"script": [sys.executable, str(script)], "sam_nb": [*MAIN, *command]}.items():
                took = measure(words, folder)
                if number >= 0: taken[who].append(took)
    report(taken, options)


def report(taken: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> None:
    print(f"{options.method}, {options.steps} steps, medians of {options.rounds} turns, seconds; "
          f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<22}{'clock':>8}{'processor':>12}")
    medians = {who: [statistics.median(column) for column in zip(*rows)] for who, rows in taken.items()}
    rows = {"plain script": medians["script"], "sam_nb train": medians["sam_nb"]}
    rows["the launcher adds"] = [statistics.median(b - a for a, b in zip(*pair)) for pair in
                                 zip(*[[list(column) for column in zip(*taken[who])] for who in ("script", "sam_nb")])]
    for who, (clock, processor) in rows.items(): print(f"{who:<22}{clock:>8.2f}{processor:>12.2f}")


if __name__ == "__main__": main()
