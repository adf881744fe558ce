"""Whenever the writer of training states is killed, a complete one can be read."""
from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import torch

from sam_nb.training.state import load_training_state, save_training_state

STATE = dict(step=0, epoch=0, recipe="", per_step=1, method="", callbacks={}, scaler=None)  # the plain values of a training state
KILLS, MEGABYTES = 100, 4


def write_for_ever(path: Path, step: int) -> None:
    "Each state is filled with its own step number."
    while True:
        step += 1
        save_training_state(path, {f"part{i}": torch.full((MEGABYTES * 2**16,), float(step)) for i in range(4)}, STATE | {"step": step})


def test_a_killed_writer_leaves_a_whole_state(tmp_path):
    torch.set_num_threads(1)
    path, chance = tmp_path / "last" / "training.safetensors", random.Random(time.time())
    for _ in range(3):
        start = time.perf_counter()
        save_training_state(path, {f"part{i}": torch.zeros(MEGABYTES * 2**16) for i in range(4)}, STATE)
    span, last, torn = max(0.04, 3 * (time.perf_counter() - start)), 0, 0  # a busy machine writes slowly
    for _ in range(KILLS):
        child = os.fork()
        if child == 0: write_for_ever(path, last)
        time.sleep(0.01 + chance.random() * span)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tensors, state = load_training_state(path)
        assert all(torch.all(t == state["step"]) for t in tensors.values()) and len(tensors) == 4
        assert state["step"] >= last
        last = state["step"]
        litter = list(path.parent.glob(".*"))
        torn += bool(litter)
        for file in litter: file.unlink()
    print(f"{last} states written, {torn} of {KILLS} kills came in the middle of a write")
    assert torn > KILLS // 10 and last > 10  # else the kills proved nothing
