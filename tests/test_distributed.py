"""Two processes train one model, and the same one as a single process with the same total batch."""
from __future__ import annotations

import os
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from sam_nb.training.callbacks import Callback
from sam_nb.training.loop import Losses
from tests import toy


class Keep(Callback):
    "Keeps this process's weights at the last step."
    def __init__(self, folder): self.folder = folder

    def after_step(self, t) -> None:
        if t.step == t.steps: save_file(t.method.state_dict(), self.folder / f"rank{t.rank}of{t.processes}.safetensors")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fit_as(rank: int, world: int, port: int, trainer) -> None:
    "What a launcher (torchrun, accelerate launch, notebook_launcher) does in every process."
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    trainer.fit()
    torch.distributed.destroy_process_group()


def one_and_two(root, make) -> None:
    "Train `make(name, batch)` in one process with batch 4, and in two with batch 2."
    single, double, port = make("single", 4), make("double", 2), free_port()
    processes = [toy.in_process(fit_as, root / f"log{rank}", rank, 2, port, double) for rank in (0, 1)] + [toy.in_process(single.fit, root / "log")]
    for process in processes: process.join(120)
    assert all(p.exitcode == 0 for p in processes), "".join(f.read_text() for f in root.glob("log*"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "One run of one process with batch 4, and one of two processes with batch 2; both accumulate two batches."
    root = tmp_path_factory.mktemp("runs")
    one_and_two(root, lambda name, batch: toy.trainer(root, name, plain=True, epochs=2, batch_size=batch, workers=0, callbacks=[Keep(root)]))
    return root


def test_ranks_stay_equal(folder):
    one, other = (load_file(folder / f"rank{r}of2.safetensors") for r in (0, 1))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_two_processes_equal_one_with_the_same_batch(folder):
    one, two = load_file(folder / "rank0of1.safetensors"), load_file(folder / "rank0of2.safetensors")
    for k in one: torch.testing.assert_close(two[k], one[k], atol=2e-5, rtol=1e-4)
    torch.manual_seed(0)
    assert not torch.allclose(one["body.0.weight"], toy.Toy(plain=True).body[0].weight, atol=1e-3)  # it did learn


def test_the_log_is_written_once_with_the_mean_of_the_ranks(folder):
    single, double = toy.lines(folder, "single"), toy.lines(folder, "double")
    assert [r["step"] for r in single] == [r["step"] for r in double]
    for a, b in zip(single, double, strict=True):
        assert a.keys() == b.keys()
        for key in a: assert b[key] == pytest.approx(a[key], rel=2e-3, abs=1e-5)


def test_losses_are_the_forward():
    "Gradient hooks hang on forward; `Losses` must not be bypassed by a method that has its own forward."
    batch = dict(image=torch.rand(1, 3, 16, 16), semantic=torch.zeros(1, 16, 16, dtype=torch.long))
    assert Losses(toy.Toy(plain=True))(batch).keys() == {"ce", "flat"}


def test_two_streams_and_a_teacher_in_two_processes(tmp_path):
    "Each process takes its slice of both streams; the teachers stay equal."
    def make(name, batch): return toy.semi_trainer(tmp_path, name, plain=True, epochs=1, batch_size=batch, batch=batch + batch // 2, workers=0, callbacks=[Keep(tmp_path)])
    one_and_two(tmp_path, make)
    single, first, second = (load_file(tmp_path / f"rank{name}.safetensors") for name in ("0of1", "0of2", "1of2"))
    assert all(torch.equal(first[k], second[k]) for k in first) and any(k.startswith("teacher.") for k in first)
    for k in single: torch.testing.assert_close(first[k], single[k], atol=2e-5, rtol=1e-4)
