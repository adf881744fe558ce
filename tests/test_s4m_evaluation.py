"""Scores of instances joined over processes; what an evaluation of S4M refuses, and what it writes."""
from __future__ import annotations

import json
import os

import pytest
import torch

from sam_nb.contract import Instances
from sam_nb.core import CheckpointError, DatasetError, ParameterError, RunError
from sam_nb.datasets.objects import load_objects
from sam_nb.demo.files import make_demo
from sam_nb.instance_metrics import CityscapesAP, CocoAP
from sam_nb.methods.s4m import S4M
from tests import toy
from tests.test_bad_input import do_job
from tests.test_distributed import free_port


def some_image(k: int) -> tuple[Instances, Instances, torch.Tensor]:
    "Answers, truth and id map of one of some images; each has other masks."
    draw = torch.Generator().manual_seed(k)
    masks = torch.zeros(2 + k % 3, 40, 50, dtype=torch.bool)
    for mask in masks:
        y, x = torch.randint(0, 20, (2,), generator=draw).tolist()
        mask[y:y + 14, x:x + 14] = True
    ids = torch.full((40, 50), 7)
    for n, mask in enumerate(masks): ids[mask] = 26000 + n
    truth = Instances(torch.stack([ids == v for v in ids.unique().tolist() if v >= 1000]), torch.ones(0), torch.zeros(0), ("car",))
    truth.scores, truth.labels = torch.ones(len(truth)), torch.zeros(len(truth), dtype=torch.int64)
    found = Instances(masks.roll(1, 2), torch.rand(len(masks), generator=draw).double().sort(descending=True)[0], torch.zeros(len(masks), dtype=torch.int64), ("car",))
    return found, truth, ids


def scored(images: list[int]) -> tuple[dict, dict]:
    coco, cityscapes = CocoAP(("car",)), CityscapesAP(("car",))
    for k in images:
        found, truth, ids = some_image(k)
        coco.update([found], [truth], [str(k)]); cityscapes.update([found], [ids], [str(k)])
    return coco.compute(), cityscapes.compute()


def score_as(rank: int, world: int, port: int, images: list[list[int]], folder) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    (folder / f"scores{rank}.json").write_text(json.dumps(scored(images[rank])))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("images", [[[0, 2, 4], [1, 3]], [[0, 1, 2, 3, 4], []]])
def test_scores_of_two_processes_are_those_of_one(tmp_path, images):
    "With uneven numbers of images, and where one process has none."
    port = free_port()
    processes = [toy.in_process(score_as, tmp_path / f"log{rank}", rank, 2, port, images, tmp_path) for rank in (0, 1)]
    for process in processes: process.join(120)
    assert all(p.exitcode == 0 for p in processes), "".join(f.read_text() for f in tmp_path.glob("log*"))
    alone = json.dumps(scored([0, 1, 2, 3, 4]))
    assert 0 < json.loads(alone)[0]["AP"] < 100
    assert (tmp_path / "scores0.json").read_text() == (tmp_path / "scores1.json").read_text() == alone


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "A workspace with streets, a pair, a first stage, and a model of other classes."
    root = tmp_path_factory.mktemp("s4m")
    (root / "pyproject.toml").write_text("")
    make_demo("street", root / "street", size=96, train=2, val=3, test=2, hard=0, layout="coco")
    classes = list(load_objects(root / "street", "val", parts=False).classes)
    size = dict(backbone="tiny", test_min=64, test_max=128)
    for name, more in {"pair": dict(stage="student", classes=classes), "first": dict(classes=classes), "cats": dict(classes=["cat", "dog"]),
                       "start": dict(classes=["object"])}.items(): S4M(**size, **more).save_pretrained(root / name)
    return root


GIVEN = dict(dataset="demo", data_root="street", split="val", device="cpu", images=2, score=0.02, boundary=False)


@pytest.mark.parametrize("values, error, wanted", [
    (dict(checkpoint="first", which="student"), CheckpointError, "no student here"),
    (dict(checkpoint="first", which="both"), CheckpointError, "hold only a teacher"),
    (dict(checkpoint="pair", which="pupil"), ParameterError, "which='pupil'"),
    (dict(checkpoint="cats"), ParameterError, "only the model has 2 \\('cat', 'dog'\\)"),
    (dict(checkpoint="pair", before="cats"), ParameterError, "the classes of model and data differ"),
    (dict(checkpoint="pair", before="nothing"), CheckpointError, "nothing"),
    (dict(checkpoint="pair", split="tset"), DatasetError, "no split 'tset'"),
    (dict(checkpoint="pair", precision="fp16"), ParameterError, "needs a GPU"),
    (dict(checkpoint="pair", score=1.5), ParameterError, "score"),
    (dict(run="nothing"), RunError, "no run 'nothing'"),
    (dict(checkpoint="pair", run="nothing"), ParameterError, "give one"),
])
def test_an_evaluation_refuses(world, monkeypatch, values, error, wanted):
    with pytest.raises(error, match=wanted): do_job("eval_s4m", world, monkeypatch, **{**GIVEN, **values})


def test_a_pair_is_compared_with_the_teacher_before(world, monkeypatch):
    done = do_job("eval_s4m", world, monkeypatch, **GIVEN, checkpoint="pair", before="first", run_name="both", save_masks=True)
    assert list(done["evaluations"]) == ["before", "teacher", "student"]
    written = [f.stem for f in (world / "runs/both").glob("*.json")]
    assert len(written) == 3 and {w.rpartition("-")[2] for w in written} == {"before", "teacher", "val"}
    results = json.loads(next((world / "runs/both").glob("*-masks/student/results.json")).read_text())
    known = {c["id"] for c in json.loads((world / "street/annotations/instances_val.json").read_text())["categories"]}
    assert {r["category_id"] for r in results} <= known


def test_a_model_of_one_class_is_measured_on_all_objects(world, monkeypatch):
    done = do_job("eval_s4m", world, monkeypatch, **GIVEN, checkpoint="start", run_name="start")
    assert list(done["after"].by_class) == ["object"] and done["after"].scores["objects"] > 10
