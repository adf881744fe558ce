"""Run every notebook as `nbdev_test` does, the long ones first, so that no core waits for a training at the end.

    python -m tests.notebooks              two processes
    python -m tests.notebooks 4            four
"""
from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fastcore.parallel import parallel
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import _keep_file, test_nb

LONG = ("train_saom", "train_promptable", "train_rsam", "train_sartm", "explore_runs", "eval_promptable", "30_heads.everything", "60_methods.promptable_start")


def order(path: Path) -> tuple[int, str]: return (LONG.index(path.stem) if path.stem in LONG else len(LONG), str(path))


def main(processes: int = 2) -> int:
    begun, config = time.perf_counter(), get_config()
    files = sorted((f.absolute() for f in nbglob(None, as_path=True) if _keep_file(f, ".notest")), key=order)
    os.chdir(config.nbs_path)
    results = parallel(test_nb, files, skip_flags=config.tst_flags.split(), force_flags=[], n_workers=processes, basepath=config.config_path, pause=0.01)
    slowest = sorted(zip((seconds for _, seconds in results), (f.name for f in files), strict=True), reverse=True)[:12]
    print("slowest notebooks:", ", ".join(f"{name} {seconds:.0f} s" for seconds, name in slowest))
    failed = [f.name for f, (passed, _) in zip(files, results, strict=True) if not passed]
    print(f"{len(files) - len(failed)} notebooks passed, {len(failed)} failed in {time.perf_counter() - begun:.0f} s")
    if failed: print("failed:", ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__": sys.exit(main(*map(int, sys.argv[1:])))
