"""RSAM in two processes is RSAM in one; a run that is killed goes on to the same weights; mistakes are told before anything is made."""
from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sam_nb.core import CheckpointError, DatasetError, ParameterError, RunError
from sam_nb.encoders.sentences import vocabulary_of
from sam_nb.methods.rsam import RSAM
from sam_nb.methods.rsam_weights import released_state
from tests import rsam, toy
from tests.command import sam_nb, workspace_is_empty
from tests.test_bad_input import SECONDS, WITH_TORCH, Command, do_job, told, write_pictures
from tests.test_distributed import Keep, one_and_two
from tests.test_resume import differences, kill_after

WITH_BERT = WITH_TORCH + 4  # transformers is imported too
PLAIN = dict(black_boxes=0.0, negatives=0.0, drop_path=0.0, corrections=0, which_weight=0.0, optimizer="adamw")  # Muon makes much of rounding


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "One run of one process with batch 4, and one of two processes with batch 2; only which sentences are taken is random."
    root = tmp_path_factory.mktemp("runs")
    rsam.world(root)
    still = dict(PLAIN, expressions=2, steps=6)
    one_and_two(root, lambda name, batch: rsam.trainer(root, name, batch_size=batch, callbacks=[Keep(root)], **still))
    return root


def test_ranks_stay_equal(folder):
    one, other = (load_file(folder / f"rank{r}of2.safetensors") for r in (0, 1))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_two_processes_equal_one_with_the_same_batch(folder):
    one, two = load_file(folder / "rank0of1.safetensors"), load_file(folder / "rank0of2.safetensors")
    for k in one: torch.testing.assert_close(two[k], one[k], atol=5e-5, rtol=1e-4)
    start = rsam.trainer(folder, "start", black_boxes=0.0).method.state_dict()
    learned = {k.split(".")[0] for k in start if not torch.equal(start[k], one[k])}
    assert learned == {"image_encoder", "text_encoder", "text_proj", "description_transformer", "sam_prompt_encoder", "sam_mask_decoder", "where"}


def test_two_processes_with_unequal_numbers_of_sentences_equal_one(folder, tmp_path):
    "Losses are divided by the mean number of sentences on a device, so that every sentence weighs the same."
    shutil.copytree(folder / "demo_aerial", tmp_path / "demo_aerial")
    for k, file in enumerate(sorted((tmp_path / "demo_aerial/Annotations").glob("*.json"))):
        about = json.loads(file.read_text())
        file.write_text(json.dumps({**about, "annotations": about["annotations"][:1 + k % 3]}))
    still = dict(PLAIN, steps=3, absent=False)
    one_and_two(tmp_path, lambda name, batch: rsam.trainer(tmp_path, name, batch_size=batch, callbacks=[Keep(tmp_path)], **still))
    one, two = load_file(tmp_path / "rank0of1.safetensors"), load_file(tmp_path / "rank0of2.safetensors")
    for k in one: torch.testing.assert_close(two[k], one[k], atol=5e-5, rtol=1e-4)


def test_a_killed_run_goes_on_to_the_same_weights(folder):
    "With everything that is random: sentences, borrowed ones, black boxes, blocks left out."
    whole, broken = rsam.train(folder, "whole"), rsam.train(folder, "broken", slow=0.1)
    at = kill_after(broken, folder, "broken", 5, 0.03)
    toy.finish(rsam.train(folder, "broken", resume=True), folder, "broken")
    toy.finish(whole, folder, "whole")
    assert at < 16 and differences(folder / "whole", folder / "broken") == []
    assert toy.lines(folder, "whole") == toy.lines(folder, "broken")
    assert len({row["loss"] for row in toy.lines(folder, "whole") if "loss" in row}) == 16


# What somebody may get wrong

QUICK = dict(dataset="referring", data_root="fine", checkpoint="scratch", preset="tiny", image_size=64, steps=1, epochs=None, batch_size=2, device="cpu")


def write_refer(folder: Path, refs: object, name: str = "refs(unc).p") -> Path:
    "Two pictures in REFER's layout, and whatever stands for the list of references."
    write_pictures(folder, count=2)
    (folder / "images").rename(folder / "JPEGImages")
    images = [dict(id=k, file_name=f"{k}.png", height=64, width=64) for k in range(2)]
    notes = [dict(id=k, image_id=k, category_id=1, segmentation=[[4, 4, 30, 4, 30, 30]], area=300.0, bbox=[4, 4, 26, 26]) for k in range(2)]
    (folder / "instances.json").write_text(json.dumps(dict(images=images, annotations=notes, categories=[dict(id=1, name="roof")])))
    (folder / name).write_bytes(pickle.dumps(refs) if name.endswith(".p") else json.dumps(refs).encode())
    return folder


def references(*said: str) -> list[dict]:
    return [dict(ref_id=k, ann_id=k, image_id=k, split="train", sentences=[dict(raw=s, sent=s) for s in said]) for k in range(2)]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    "A workspace of folders and files that somebody may point at."
    root = tmp_path_factory.mktemp("referring")
    rsam.world(root).rename(root / "fine")
    write_refer(root / "silent", references())
    write_refer(root / "empty", references("", "   "))
    write_refer(root / "long", references("the red roof " * 700))
    write_refer(root / "scripts", references("крыша слева", "左边的红色屋顶", "سقف", "🏠 roof"))
    write_refer(root / "twice", references("the roof", "The  roof", "the roof"))
    write_pictures(root / "pictures")
    torch.manual_seed(0)
    pieces = vocabulary_of(["the red roof", "the blue ship on the left"])
    text = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64, max_position_embeddings=64, vocab_size=len(pieces))
    model = RSAM(backbone="tiny_sam2", image_size=64, text=text, guidance_mlp=32, gate=False).set_vocabulary(pieces).eval()
    model.save_pretrained(root / "small")
    (root / "bert").mkdir()
    (root / "bert/vocab.txt").write_text("\n".join(pieces))
    torch.save({"model": released_state(model), "epoch": 1}, root / "released.pt")
    shutil.copy(root / "small/model.safetensors", root / "plain.safetensors")
    torch.save({"model": {"image_encoder.trunk.pos_embed": torch.zeros(1, 112, 14, 14), "no_obj_embed_spatial": torch.zeros(1, 64)}}, root / "sam2.pt")
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768), "image_encoder.blocks.0.norm1.weight": torch.zeros(768),
                "mask_decoder.iou_token.weight": torch.zeros(1, 256)}, root / "sam.pth")
    return root


@pytest.mark.parametrize("values, error, wanted", [
    (dict(expresions=3), ParameterError, ["unknown parameter 'expresions'", "did you mean 'expressions'?"]),
    (dict(data_root="pictures"), DatasetError, ["no referring dataset here", "expected JPEGImages, Annotations"]),
    (dict(data_root="silent"), DatasetError, ["no usable expression in split 'train'", "2 x expression empty"]),
    (dict(data_root="empty"), DatasetError, ["no usable expression in split 'train'", "4 x expression empty"]),
    (dict(data_root="nowhere"), DatasetError, ["is not here", "nowhere"]),
    (dict(dataset="risors", data_root=None), DatasetError, ["is not here"]),
    (dict(dataset="coco", data_root=None), ParameterError, ["is for objects, it has no expressions"]),
    (dict(dataset="demo_objects", data_root=None), ParameterError, ["is for objects, it has no expressions"]),
    (dict(preset="default"), CheckpointError, ["BERT is not here", "checkpoints/bert-base-uncased", "sam_nb fetch bert-base-uncased", "text='tiny'"]),
    (dict(text="bert-large"), ParameterError, ["unknown text encoder 'bert-large'", "bert-base-uncased, tiny"]),
    (dict(backbone="sam-vit-b"), ParameterError, ["backbone='sam-vit-b'", "RSAM is made of SAM 2"]),
    (dict(checkpoint="sam.pth"), CheckpointError, ["this looks like a SAM 1 ViT-B checkpoint"]),
    (dict(checkpoint="sam2.pt"), CheckpointError, ["Hiera-B+"]),
    (dict(checkpoint="released.pt"), CheckpointError, ["mismatched", "text_encoder"]),
    (dict(checkpoint="nothing.pt"), CheckpointError, ["no weights 'nothing.pt'"]),
    (dict(image_size=50), ParameterError, ["not a multiple of 32"]),
    (dict(max_batch_expressions=1), ParameterError, ["max_batch_expressions=1 for 2 images", "smaller batch_size"]),
])
def test_a_training_refuses_and_makes_no_step(world, monkeypatch, values, error, wanted):
    with pytest.raises(error) as said: do_job("train_rsam", world, monkeypatch, **{**QUICK, **values})
    assert all(w in str(said.value) for w in wanted), str(said.value)
    assert not any(file.stat().st_size for file in (world / "runs").glob("*/metrics.jsonl"))


def test_a_refer_pickle_that_would_run_code_is_not_opened(world, tmp_path, monkeypatch):
    proof = tmp_path / "was_here"
    folder = write_refer(tmp_path / "evil", Command(proof))
    with pytest.raises(DatasetError, match="could run code") as said: do_job("train_rsam", world, monkeypatch, **{**QUICK, "data_root": str(folder)})
    assert "refs(unc).p" in str(said.value) and not proof.exists()


def test_sentences_of_2000_words_are_cut_and_said(world, monkeypatch, capsys):
    job = do_job("train_rsam", world, monkeypatch, until="card.build(", **{**QUICK, "data_root": "long"})
    assert all(len(e.split()) == 100 for e in job["data"]["train"].expressions)
    assert "words beyond the first 100" in capsys.readouterr().out


@pytest.mark.parametrize("name, count", [("scripts", 4), ("twice", 1)])
def test_other_scripts_train_and_duplicates_count_once(world, monkeypatch, name, count):
    job = do_job("train_rsam", world, monkeypatch, until="curves = ", **{**QUICK, "batch_size": 1, "data_root": name, "run_name": name})
    assert {len(sample["expressions"]) for sample in job["data"]["train"]} == {count}
    assert np.isfinite(toy.lines(world / "runs", name)[0]["loss"])


def test_what_is_typed_is_checked_and_answered(world):
    model, image = RSAM.from_pretrained(world / "small"), np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(ParameterError, match="an empty expression"): model.segment(image, ["the roof", "  "])
    with pytest.raises(ParameterError, match="a sentence of 2001 tokens, more than 64"): model.segment(image, "roof " * 2000)
    asked = []
    read, model.reader.model.forward = model.reader.model.forward, lambda *a, **k: (asked.append(len(k["input_ids"])), read(*a, **k))[1]
    model.requires_grad_(False)
    found = model.segment(image, ["the red roof", "крыша слева", "the red roof", "the red  roof"])
    assert sum(asked) == 2 and (found.masks[0] == found.masks[2]).all() and (found.masks[0] == found.masks[3]).all()
    assert torch.allclose(found.logits[0], found.logits[2], atol=1e-5) and np.isfinite(found.scores).all()


@pytest.mark.parametrize("values, error, wanted", [
    (dict(checkpoint="sam.pth"), CheckpointError, "they look like a SAM 1 ViT-B checkpoint"),
    (dict(checkpoint="sam2.pt"), CheckpointError, "they look like a SAM 2.1 Hiera-B"),
    (dict(checkpoint="released.pt"), CheckpointError, "BERT is not here"),
    (dict(checkpoint="released.pt", bert="bert", backbone="sam2.1-b+"), CheckpointError, "mismatched"),
    (dict(checkpoint="released.pt", bert="bert", image_size=50), ParameterError, "not a multiple of 32"),
    (dict(checkpoint="released.pt", bert="small/config.json"), CheckpointError, "no vocabulary here"),
    (dict(checkpoint="small", backbone="sam-vit-l"), ParameterError, "RSAM is made of SAM 2"),
    (dict(checkpoint="small", precision="fp16"), ParameterError, "needs a GPU"),
    (dict(checkpoint="small", device="gpu"), ParameterError, "device='gpu' is no device"),
    (dict(checkpoint="small", split="tset"), DatasetError, "no split 'tset' here"),
    (dict(checkpoint="small", data_root="pictures"), DatasetError, "no referring dataset here"),
    (dict(checkpoint="small", data_root="silent"), DatasetError, "no usable expression"),
    (dict(run="nothing"), RunError, "no run 'nothing'"),
])
def test_an_evaluation_refuses(world, monkeypatch, values, error, wanted):
    with pytest.raises(error, match=wanted): do_job("eval_rsam", world, monkeypatch, **{"dataset": "referring", "data_root": "fine", "device": "cpu", **values})


def test_a_file_of_the_release_and_a_folder_are_evaluated(world, monkeypatch):
    given = dict(dataset="referring", data_root="fine", device="cpu", images=2)
    file = do_job("eval_rsam", world, monkeypatch, checkpoint="released.pt", bert="bert", image_size=64, mask_text_padding=True, run_name="file", **given)
    folder = do_job("eval_rsam", world, monkeypatch, checkpoint="small", run_name="folder", **given)
    assert [r["predicted"] for r in file["scores"].rows] == pytest.approx([r["predicted"] for r in folder["scores"].rows], abs=1e-5)
    said = json.loads((world / "runs/folder/eval-referring-test.json").read_text())
    assert said["split"] == "test" and len(said["rows"]) == len(folder["scores"].rows) and said["tables"]["by"]["size"]


@pytest.mark.parametrize("words, wanted, seconds", [
    ("train rsam --expresions 3", ["unknown parameter 'expresions'", "did you mean 'expressions'?"], SECONDS),
    ("train rsam --dataset risorss", ["unknown dataset 'risorss'", "did you mean 'risors'?"], SECONDS),
    ("train rsam --dataset referring --data_root silent --preset tiny --checkpoint scratch", ["no usable expression"], WITH_BERT),
    ("eval rsam --checkpoint rsam.pt", ["no weights 'rsam.pt'"], SECONDS),
    ("eval rsam --dataset risors --checkpoint small", ["dataset 'risors' is not here", "huggingface.co"], SECONDS),
    ("eval rsam --checkpoint small --dataset fmb --data_root fine", ["not laid out as 'fmb'"], SECONDS),
    ("eval rsam --checkpoint small --black_boxes 2", ["black_boxes=2.0"], SECONDS),
    ("eval rsam --checkpoint sam2.pt --dataset referring --data_root fine", ["no RSAM in these weights"], WITH_BERT),
])
def test_the_commands_tell_and_leave_nothing(world, words, wanted, seconds):
    shutil.rmtree(world / "runs", ignore_errors=True)
    told(sam_nb(words, world), *wanted, seconds=seconds)
    assert workspace_is_empty(world)
