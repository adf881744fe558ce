"""A RemoteSAM run that is killed goes on to the same weights (and best weights); two processes stay equal; mistakes are told before a step."""
from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sam_nb.core import CheckpointError, DatasetError, ParameterError, RunError
from sam_nb.demo.aerial import make_demo_aerial
from sam_nb.encoders.sentences import vocabulary_of
from sam_nb.methods.remotesam import RemoteSAM
from tests import remotesam, toy
from tests.command import sam_nb, workspace_is_empty
from tests.test_bad_input import SECONDS, do_job, told, write_pictures
from tests.test_distributed import Keep, one_and_two
from tests.test_resume import differences, kill_after
from tests.test_rsam import WITH_BERT, references, write_refer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    remotesam.world(root)
    return root


def test_a_killed_run_goes_on_to_the_same_weights(folder):
    "With everything that is random: sentences, borrowed ones, dropout of the routing, branches left out."
    whole, broken = remotesam.train(folder, "whole"), remotesam.train(folder, "broken", slow=0.1)
    at = kill_after(broken, folder, "broken", 9, 0.03)
    toy.finish(remotesam.train(folder, "broken", resume=True), folder, "broken")
    toy.finish(whole, folder, "whole")
    assert at < 16 and differences(folder / "whole", folder / "broken") == []
    assert toy.lines(folder, "whole") == toy.lines(folder, "broken")
    assert len({row["loss"] for row in toy.lines(folder, "whole") if "loss" in row}) == 16


def test_two_processes_stay_equal(folder):
    "Batch norms see the sentences of one process on the CPU, so two processes are not one with the whole batch."
    one_and_two(folder, lambda name, batch: remotesam.trainer(folder, name, batch_size=batch, steps=4, callbacks=[Keep(folder)]))
    one, other = (load_file(folder / f"rank{r}of2.safetensors") for r in (0, 1))
    trained = [k for k in one if "running_" not in k]
    assert len(trained) > 300 and all(torch.equal(one[k], other[k]) for k in trained)


# What somebody may get wrong

QUICK = dict(dataset="referring", data_root="fine", preset="tiny", backbone=remotesam.SIZE, image_size=64, steps=1, epochs=None, batch_size=2, device="cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "A workspace of folders and files that somebody may point at."
    root = tmp_path_factory.mktemp("referring")
    remotesam.world(root).rename(root / "fine")
    write_refer(root / "silent", references())
    write_pictures(root / "pictures")
    make_demo_aerial(root / "earth", size=64, train=2, val=0, test=2, hard=0, layout="earth")
    torch.manual_seed(0)
    pieces = vocabulary_of(["the red roof", "the blue ship on the left"])
    text = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64, max_position_embeddings=64, vocab_size=len(pieces))
    model = RemoteSAM(backbone=remotesam.SIZE, image_size=64, text=text).set_vocabulary(pieces).eval()
    model.save_pretrained(root / "small")
    torch.save({"model": model.state_dict(), "epoch": 1}, root / "released.pth")
    (root / "bert").mkdir()
    (root / "bert/vocab.txt").write_text("\n".join(pieces))
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768), "image_encoder.blocks.0.norm1.weight": torch.zeros(768),
                "mask_decoder.iou_token.weight": torch.zeros(1, 256)}, root / "sam.pth")
    return root


@pytest.mark.parametrize("values, error, wanted", [
    (dict(expresions=3), ParameterError, ["unknown parameter 'expresions'", "did you mean 'expressions'?"]),
    (dict(data_root="silent"), DatasetError, ["no usable expression in split 'train'"]),
    (dict(dataset="coco", data_root=None), ParameterError, ["is for objects, it has no expressions"]),
    (dict(preset="default", backbone=None), CheckpointError, ["BERT is not here", "text='tiny'"]),
    (dict(preset="default", backbone=None, text="tiny", train_text="all"), CheckpointError, ["swin_base_patch4_window12_384_22k.pth"]),
    (dict(backbone="swin_b"), ParameterError, ["unknown backbone 'swin_b'", "did you mean 'swin-b'?"]),
    (dict(backbone="swin-s", checkpoint=None, preset="default", text="tiny", train_text="all"), CheckpointError, ["no weights to start 'swin-s' from"]),
    (dict(image_size=100), ParameterError, ["image_size=100 is not a multiple of 32 (try 96)"]),
    (dict(word_heads=[1, 3, 1, 1]), ParameterError, ["word_heads=[1, 3, 1, 1]"]),
    (dict(checkpoint="sam.pth"), CheckpointError, ["this looks like a SAM 1 ViT-B checkpoint"]),
    (dict(checkpoint="small", image_size=96), ParameterError, ["image_size=96, but small has 64"]),
    (dict(checkpoint="released.pth", image_size=96), CheckpointError, ["these weights are of side 64, the model of 96", "image_size=64"]),
    (dict(max_batch_expressions=1), ParameterError, ["max_batch_expressions=1 for 2 images", "smaller batch_size"]),
])
def test_a_training_refuses_and_makes_no_step(world, monkeypatch, values, error, wanted):
    with pytest.raises(error) as said: do_job("train_remotesam", world, monkeypatch, **{**QUICK, **values})
    assert all(w in str(said.value) for w in wanted), str(said.value)
    assert not any(file.stat().st_size for file in (world / "runs").glob("*/metrics.jsonl"))


@pytest.mark.parametrize("values, error, wanted", [
    (dict(checkpoint="sam.pth"), CheckpointError, "they look like a SAM 1 ViT-B checkpoint"),
    (dict(checkpoint="released.pth"), CheckpointError, "BERT is not here"),
    (dict(checkpoint="released.pth", bert="bert", image_size=96), CheckpointError, "these weights are of side 64, the model of 96"),
    (dict(checkpoint="small", precision="fp16"), ParameterError, "needs a GPU"),
    (dict(checkpoint="small", split="tset"), DatasetError, "no split 'tset' here"),
    (dict(run="nothing"), RunError, "no run 'nothing'"),
    (dict(checkpoint="small", tasks="detection,countnig"), ParameterError, "did you mean 'counting'"),
    (dict(checkpoint="small", tasks_root="nowhere"), ParameterError, "there is no such folder"),
    (dict(checkpoint="small", tasks_root="small"), DatasetError, "no layout of Earth-observation data here"),
    (dict(checkpoint="small", contours="small", tasks_root="earth"), CheckpointError, "no contour model here"),
    (dict(checkpoint="small", prompt="ship"), ParameterError, "has no place for the name"),
])
def test_an_evaluation_refuses(world, monkeypatch, values, error, wanted):
    given = {"dataset": "referring", "data_root": "fine", "device": "cpu"}
    with pytest.raises(error, match=wanted): do_job("eval_remotesam", world, monkeypatch, **{**given, **values})


def test_a_file_of_the_release_and_a_folder_are_evaluated(world, monkeypatch):
    given = dict(dataset="referring", data_root="fine", device="cpu", images=2)
    file = do_job("eval_remotesam", world, monkeypatch, checkpoint="released.pth", bert="bert", run_name="file", **given)
    folder = do_job("eval_remotesam", world, monkeypatch, checkpoint="small", run_name="folder", **given)
    assert [r["present"] for r in file["scores"].rows] == pytest.approx([r["present"] for r in folder["scores"].rows], abs=1e-4)


def test_tasks_of_a_folder_are_evaluated_and_saved(world, monkeypatch):
    given = dict(dataset="referring", data_root="fine", device="cpu", images=2, checkpoint="small", run_name="tasks")
    done = do_job("eval_remotesam", world, monkeypatch, tasks="detection,counting", tasks_root="earth", task_images=1, **given)
    assert list(done["tasks"]) == ["detection", "counting"] and all(e.tables["beside"]["ceiling"] for e in done["tasks"].values())
    assert len(list((world / "runs/tasks").glob("*-counting.json"))) == 1
    assert do_job("eval_remotesam", world, monkeypatch, **given)["tasks"] == {}  # a folder of sentences alone


def test_what_is_typed_is_checked_and_answered(world):
    model, image = RemoteSAM.from_pretrained(world / "small"), np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(ParameterError, match="an empty expression"): model.segment(image, ["the roof", "  "])
    with pytest.raises(ParameterError, match="no expression"): model.segment(image, [])
    found = model.segment(image, ["the red roof", "крыша слева", "the red roof", "the red  roof " + "roof " * 2000])
    assert found.masks.shape == (4, 40, 50) and (found.masks[0] == found.masks[2]).all() and np.isfinite(found.scores).all()
    assert torch.allclose(found.logits[0], found.logits[2], atol=1e-3)


@pytest.mark.parametrize("size, mode", [((2, 3), "RGB"), ((1, 5000), "RGB"), ((10000, 20), "RGB"), ((30, 40), "L"), ((30, 40), "RGBA"), ((30, 40), "I;16")])
def test_pictures_of_any_kind(world, tmp_path, size, mode):
    model = RemoteSAM.from_pretrained(world / "small")
    Image.fromarray(np.zeros(size[::-1], np.uint16)).save(tmp_path / "a.png") if mode == "I;16" else Image.new(mode, size).save(tmp_path / "a.png")
    assert model.segment(tmp_path / "a.png", "the red roof").masks.shape == (1, *size[::-1])


@pytest.mark.parametrize("words, wanted, seconds", [
    ("train remotesam --expresions 3", ["unknown parameter 'expresions'", "did you mean 'expressions'?"], SECONDS),
    ("train remotesam --image_size 100 --preset tiny", ["not a multiple of 32"], SECONDS),
    ("eval remotesam --checkpoint remotesam.pth", ["no weights 'remotesam.pth'"], SECONDS),
    ("eval remotesam --checkpoint sam.pth --dataset referring --data_root fine", ["no RemoteSAM in these weights"], WITH_BERT),
])
def test_the_commands_tell_and_leave_nothing(world, words, wanted, seconds):
    shutil.rmtree(world / "runs", ignore_errors=True)
    told(sam_nb(words, world), *wanted, seconds=seconds)
    assert workspace_is_empty(world)
