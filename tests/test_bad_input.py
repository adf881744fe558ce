"""A mistake is told at once, by one message with fact, file and remedy, and leaves nothing half-made.

The jobs of object masks are run cell by cell in this process, which spares a kernel each; by the command where what is left behind matters.
Faults of a training that has begun (NaN, full and read-only disks, a run of the same name, another recipe on resume) are in test_faults.py.
"""
from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sam_nb.cli import main
from sam_nb.core import CheckpointError, DatasetError, ParameterError, SamNbError
from sam_nb.datasets.catalog import load_dataset
from sam_nb.datasets.referring_files import convert_referring
from sam_nb.demo.files import make_demo
from sam_nb.masks import mask_to_rle
from sam_nb.methods.promptable import Promptable
from sam_nb.methods.promptable_job import promptable_transforms
from sam_nb.methods.saom import SAOM
from sam_nb.methods.sartm import SARTM
from sam_nb.methods.sartm_recipe import sartm_recipe
from sam_nb.methods.sartm_weights import load_any
from sam_nb.weights import save_state
from tests.command import CHECKOUT, Said, run, sam_nb, workspace_is_empty

SECONDS = 5  # of processor time, the kernel's included: the clock would also measure what else the machine is doing
WITH_TORCH = 14  # where the notebook has to speak; to import torch, torchvision and sam2 takes most of it, on slow cores nine


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    make_demo("street", folder / "data/demo", size=32, train=4, val=2, test=2)
    return folder


@pytest.fixture
def data(root, tmp_path):
    "A copy of the small dataset, to be damaged."
    return Path(shutil.copytree(root / "data/demo", tmp_path / "demo"))


def told(said: Said, *wanted: str, seconds: float = SECONDS) -> None:
    "One short message with these words, soon."
    assert said.code == 1 and min(said.cpu, said.wall) < seconds, (said.cpu, said.wall, said.out, said.error)
    assert all(w in said.error for w in wanted), said.error
    assert "Traceback" not in said.error and len(said.error.splitlines()) < 9, said.error


@pytest.mark.parametrize("words, wanted", [
    ("--datset fmb", ["unknown parameter 'datset'", "did you mean 'dataset'?"]),
    ("-p datset fmb", ["unknown parameter 'datset'", "did you mean 'dataset'?"]),
    ("--object_gate maybe", ["object_gate='maybe' is not true or false"]),
    ("--steps many", ["steps='many' is not a whole number"]),
    ("--dataset fnb", ["unknown dataset 'fnb'", "did you mean 'fmb'?", "dataset.json"]),
    ("--dataset fmb", ["dataset 'fmb' is not here", "file: ", "data/fmb", "https://github.com/JinyuanLiu-CV/SegMiF",
                       "{Visible,Infrared,Label}", "data_root", "dataset='demo'"]),
    ("--dataset fmb --data_root data/demo/train", ["not laid out as 'fmb'", "found: Infrared/, Label/, Visible/", "https://"]),
    ("--checkpoint missing.pt", ["no weights 'missing.pt'"]),
    ("--checkpoint sam2-b+", ["not here yet: SAM 2 Hiera-B+", "sam_nb fetch sam2-b+", "https://"]),
    ("--resume nothing", ["no run 'nothing'", "there are no runs here yet"]),
    ("--run_name a/b", ["run_name='a/b' is no folder name"]),
    ("--slurm partition=gpu", ["no Slurm here"]),
])
def test_told_before_a_kernel_starts(root, words, wanted):
    if "slurm" in words and shutil.which("srun"): pytest.skip("there is a Slurm here")
    said = sam_nb(f"train sartm {words}", root)
    told(said, *wanted)
    assert said.cpu < 1.5 and workspace_is_empty(root)


def test_an_unknown_method(root): told(sam_nb("train sarmt", root), "no train_sarmt.ipynb", "did you mean 'sartm'?")


def test_a_picture_without_partner_told_by_the_notebook(root, data):
    next(data.glob("train/Infrared/*.png")).unlink()
    told(sam_nb(f"train sartm --data_root {data}", root), "DatasetError: no thermal picture for '0000", "copy the file", seconds=WITH_TORCH)
    assert workspace_is_empty(root)


def test_papermill_without_the_command_is_readable(root, tmp_path):
    "`-p use_text_kl true` is a word for papermill; the last line says so."
    notebook = str(CHECKOUT / "nbs/train_sartm.ipynb")
    words = [notebook, str(tmp_path / "out.ipynb"), "-p", "object_gate", "true", "-p", "datset", "x", "--no-progress-bar"]
    said = run([sys.executable, "-m", "papermill", *words], root)
    last = said.error.strip().splitlines()
    assert said.code == 1 and min(said.cpu, said.wall) < WITH_TORCH + 1, said.cpu  # papermill's own imports take one
    assert any(line.startswith("ParameterError: ") and "did you mean 'dataset'?" in line for line in last[-4:]), last[-8:]
    assert any("papermill passed the word 'true'; write True" in line for line in last[-4:])
    assert not any("site-packages/sam_nb" in line or "sam_nb/core.py" in line for line in last) and workspace_is_empty(root)


def test_words_for_numbers_and_truths():
    with pytest.raises(ParameterError, match="object_gate='true': .*the word 'true'; write True"): sartm_recipe({"object_gate": "true"})
    with pytest.raises(ParameterError, match="epochs='ten'"): sartm_recipe({"epochs": "ten"})
    with pytest.raises(ParameterError, match="lr=-1.0"): sartm_recipe({"lr": -1.0})


def test_every_wrong_parameter_is_told_in_one_go():
    with pytest.raises(ParameterError) as error: sartm_recipe({"epoch": 3, "lr": "fast", "modalities": "radar"})
    assert all(w in str(error.value) for w in ("did you mean 'epochs'?", "lr='fast'", "modalities='radar'"))


def read_all(data: Path, split: str = "train") -> None:
    for sample in load_dataset("demo", split, data): assert sample["image"].shape == sample["thermal"].shape


def first(data: Path, kind: str) -> Path: return min(data.glob(f"train/{kind}/*.png"))


def test_thermal_of_another_size(data):
    picture = first(data, "Infrared")
    cv2.imwrite(str(picture), cv2.resize(cv2.imread(str(picture), cv2.IMREAD_UNCHANGED), (30, 32)))
    with pytest.raises(DatasetError, match=rf"(?s)32.*30.*file: .*{picture.name}.*to do: "): read_all(data)


def test_truncated_picture(data):
    picture = first(data, "Visible")
    picture.write_bytes(picture.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=rf"(?s)truncated or damaged.*file: .*{picture.name}.*copy this file again"): read_all(data)


def test_label_id_out_of_range(data):
    picture = first(data, "Label")
    label = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
    label[3, 4] = 77
    cv2.imwrite(str(picture), label)
    with pytest.raises(DatasetError, match=rf"(?s)77.*file: .*{picture.name}.*to do: "): read_all(data)


@pytest.fixture(scope="module")
def model(): return SARTM(["road", "sky"], backbone="tiny", image_size=64, lora_rank=2, use_text_kl=False)


def untouched(model: SARTM, act) -> str:
    "The message of a refusal, after which every weight is what it was."
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error: act()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return str(error.value)


def test_weights_of_another_family(model, tmp_path):
    state = {"image_encoder.pos_embed": torch.zeros(1, 4, 4, 768), "image_encoder.blocks.0.norm1.weight": torch.zeros(768),
             "mask_decoder.iou_token.weight": torch.zeros(1, 256)}
    torch.save(state, tmp_path / "sam_vit_b.pth")
    said = untouched(model, lambda: load_any(model, tmp_path / "sam_vit_b.pth"))
    assert "this looks like a SAM 1 ViT-B checkpoint" in said and "nothing was loaded" in said


def test_weights_with_missing_and_reshaped_keys(model, tmp_path):
    state = model.state_dict()
    gone, bent = "mask_decoder.mask_tokens.weight", "image_encoder.trunk.pos_embed"
    save_state(tmp_path / "w.safetensors", {k: v[..., :-1] if k == bent else v for k, v in state.items() if k != gone})
    said = untouched(model, lambda: load_any(model, tmp_path / "w.safetensors"))
    assert f"1 missing: {gone}" in said and f"1 mismatched: {bent}: file" in said and f"module {list(state[bent].shape)}" in said


class Command:
    "What a pickle may carry: a call that is made while it is opened."
    def __init__(self, text: str): self.text = text
    def __reduce__(self): return os.system, (self.text,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_not_run(model, tmp_path, zipped):
    proof, file = tmp_path / "it-ran", tmp_path / "weights.pth"
    torch.save({**model.state_dict(), "extra": Command(f"touch {proof}")}, file, _use_new_zipfile_serialization=zipped)
    said = untouched(model, lambda: load_any(model, file))
    assert "wants to run code" in said and "system" in said and "nothing of it was executed" in said and str(file) in said and not proof.exists()
    torch.load(file, weights_only=False)  # the same file does run where it is opened freely
    assert proof.exists()


def test_a_full_disk_is_told(root, tmp_path):
    if not Path("/dev/full").exists(): pytest.skip("no /dev/full here")
    full = tmp_path / "full.ipynb"
    full.symlink_to("/dev/full")
    told(sam_nb(f"train sartm --notebook {full}", root), "no space left on the device", str(full), "free some space")
    assert Path("/dev/full").exists() and workspace_is_empty(root)


def test_a_place_where_nothing_may_be_written(root):
    "The kernel's file system, in which not even root may make a folder."
    if not Path("/sys/kernel").is_dir(): pytest.skip("no /sys here")
    said = sam_nb(f"train sartm --data_root {root}/data/demo", root, SAM_NB_ROOT="/sys/kernel")
    told(said, "/sys/kernel/runs/sartm-demo-", "write to another folder (SAM_NB_ROOT names the workspace)")


def test_messages_name_file_and_remedy():
    assert str(SamNbError("a fact", file="a/file", remedy="a remedy")) == "a fact\n  file: a/file\n  to do: a remedy"


# Object masks: train_promptable and eval_promptable

QUICK = dict(dataset="objects", checkpoint="scratch", backbone="tiny_sam2", image_size=64, preset="default", steps=2, batch_size=2, device="cpu")


def write_pictures(folder: Path, masks: np.ndarray | None = None, count: int = 6, size: int = 64) -> Path:
    "Noise, and the same map of ids beside each picture."
    noise = np.random.default_rng(0)
    for name in ("images", *(["instance"] if masks is not None else [])): (folder / name).mkdir(parents=True)
    for k in range(count):
        cv2.imwrite(str(folder / f"images/{k}.png"), noise.integers(0, 255, (size, size, 3), np.uint8))
        if masks is not None: cv2.imwrite(str(folder / f"instance/{k}.png"), masks)
    return folder


def squares(size: int = 64) -> np.ndarray:
    masks = np.zeros((size, size), np.uint16)
    for k in range(3): masks[4 + 18 * k:18 + 18 * k, 10:40] = k + 1
    return masks


def many_ids(size: int = 280) -> np.ndarray:
    "Every pixel up to the 70,000th is an object: 24 bits, blue first."
    ids = np.arange(1, size * size + 1).reshape(size, size) % 70_001
    return np.dstack([ids >> 16 & 255, ids >> 8 & 255, ids & 255]).astype(np.uint8)


def crowd_of(count: int = 500, size: int = 256) -> np.ndarray:
    masks = np.zeros((size, size), np.uint16)
    for k in range(count): masks[k // 25 * 12 + 1:k // 25 * 12 + 10, k % 25 * 10 + 1:k % 25 * 10 + 8] = k + 1
    return masks


def one_pixel_each() -> np.ndarray:
    masks = np.zeros((64, 64), np.uint16)
    for k, at in enumerate((5, 20, 40), 1): masks[at, at] = k
    return masks


def write_coco(folder: Path, sound: bool) -> Path:
    "A crowd, broken polygons and, if `sound`, one good mask an image."
    write_pictures(folder)
    good, broken = [[5, 5, 40, 5, 40, 40, 5, 40]], {2: [[5, 5, 40, 5]], 3: [[5, 5, 40, 5, "x", 1]], 4: {"size": [64, 64], "counts": [100, 200]}}
    notes = [dict(id=10 * k, image_id=k, category_id=1, iscrowd=1, segmentation={"size": [64, 64], "counts": [100, 200, 3796]}) for k in range(6)]
    notes += [dict(id=10 * k + n, image_id=k, category_id=1, iscrowd=0, segmentation=s) for k in range(6) for n, s in broken.items()]
    if sound: notes += [dict(id=10 * k + 9, image_id=k, category_id=1, iscrowd=0, segmentation=good) for k in range(6)]
    images = [dict(id=k, file_name=f"{k}.png", height=64, width=64) for k in range(6)]
    (folder / "all.json").write_text(json.dumps(dict(images=images, annotations=notes, categories=[dict(id=1, name="thing")])))
    return folder


def write_rooms(folder: Path) -> Path:
    "Two images in SAOM's layout, two objects each."
    for name in ("images", "masks"): (folder / name).mkdir(parents=True)
    noise, rows = np.random.default_rng(0), []
    for k in range(2):
        files = [f"/masks/{k}-0-all-{name}_{i}.png" for i, name in enumerate(("Mug", "SideTable"))]
        cv2.imwrite(str(folder / f"images/{k}-0-all.png"), noise.integers(0, 255, (64, 64, 3), np.uint8))
        for i, file in enumerate(files): cv2.imwrite(str(folder / file[1:]), np.dstack([np.zeros_like(squares(), np.uint8)] * 2 + [255 * np.uint8(squares() == i + 1)]))
        rows.append({"image_name": f"images/{k}-0-all.png", "entity_masks": files, "entity_indices": [0, 1]})
    (folder / "metadata.json").write_text(json.dumps({"entity classes": ["Mug", "SideTable"], "val_data": rows}))
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    "A workspace of folders that somebody may point at."
    root = tmp_path_factory.mktemp("objects")
    write_pictures(root / "fine", squares())
    write_pictures(root / "no_masks")
    shutil.copytree(root / "fine/instance", root / "no_images/instance")
    for name, masks, size in (("many_ids", many_ids(), 280), ("crowded", crowd_of(), 256), ("specks", one_pixel_each(), 64)):
        write_pictures(root / name, masks, size=size)
    write_coco(root / "sound", True)
    write_coco(root / "unsound", False)
    write_rooms(root / "rooms")
    (write_rooms(root / "lacking") / "masks/0-0-all-Mug_0.png").unlink()
    cv2.imwrite(str(write_rooms(root / "uneven") / "masks/0-0-all-Mug_0.png"), np.full((32, 48, 3), 255, np.uint8))
    Promptable(backbone="tiny_sam", image_size=48).save_pretrained(root / "tiny_sam")
    SAOM(backbone="tiny_sam", image_size=48, grid=4, classes=["sofa", "bed"]).save_pretrained(root / "saom")
    state = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1024), "image_encoder.blocks.0.norm1.weight": torch.zeros(1024)}
    torch.save({**state, "mask_decoder.iou_token.weight": torch.zeros(1, 256)}, root / "sam_vit_l.pth")
    return root


def do_job(name: str, root: Path, monkeypatch, until: str | None = None, **values) -> dict:
    "The cells of a job notebook in this process, with parameters, up to the one that holds a word; what they defined."
    monkeypatch.setenv("SAM_NB_ROOT", str(root))
    monkeypatch.chdir(root)
    cells = [c for c in json.loads((CHECKOUT / f"nbs/{name}.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    defined: dict = {}
    for cell in cells:
        source = "".join(cell["source"])
        if until is not None and until in source: break
        exec(compile(source, name, "exec"), defined)
        if "parameters" in cell["metadata"].get("tags", ()): defined.update(values)
    return defined


@pytest.mark.parametrize("values, error, wanted", [
    (dict(data_root="no_masks"), DatasetError, ["6 images but no masks where they usually are", "no_masks", "images/ beside masks/"]),
    (dict(data_root="no_images"), DatasetError, ["masks but no images", "no_images", "found: instance/"]),
    (dict(data_root="many_ids"), DatasetError, ["70000 different ids", "instance/0.png", "at most 10000 objects"]),
    (dict(data_root="unsound"), DatasetError, ["no image with a usable mask", "6 x crowd", "6 x polygon of fewer than 3 points", "run lengths that do not fill"]),
    (dict(data_root="nowhere"), DatasetError, ["is not here", "nowhere", "data_root"]),
    (dict(data_root="fine", backbone="sam3"), ParameterError, ["unknown backbone 'sam3'", "did you mean 'sam2-"]),
    (dict(data_root="fine", trainable="head"), ParameterError, ["trainable='head'", "'decoder', 'lora', 'encoder_last_n' or 'all'"]),
    (dict(data_root="fine", kind="polygons"), ParameterError, ["kind='polygons'", "coco"]),
    (dict(data_root="fine", image_size=65), ParameterError, ["image_size=65 is not a multiple of 32", "use 64"]),
    (dict(data_root="fine", checkpoint="tiny_sam"), CheckpointError, ["SAM 1", "missing", "backbone and weights that belong together"]),
    (dict(data_root="fine", checkpoint="sam_vit_l.pth", backbone="sam-vit-b"), CheckpointError, ["this looks like a SAM 1 ViT-L checkpoint"]),
    (dict(data_root="fine", cache=True, jitter=0.5), ParameterError, ["images that stay as they are", "jitter=0.5", "cache=False"]),
    (dict(data_root="fine", cache=True, scale_min=0.5), ParameterError, ["images that stay as they are", "scale_min=0.5"]),
    (dict(data_root="fine", cache=True, trainable="all"), ParameterError, ["needs a frozen encoder", "trainable='all'"]),
])
def test_a_training_on_objects_refuses_before_it_begins(world, monkeypatch, values, error, wanted):
    before = {p.name for p in (world / "runs").glob("*/metrics.jsonl")}
    with pytest.raises(error) as said: do_job("train_promptable", world, monkeypatch, **{**QUICK, **values})
    assert all(w in str(said.value) for w in wanted), str(said.value)
    assert {p.name for p in (world / "runs").glob("*/metrics.jsonl")} == before  # no step was made


def test_objects_of_one_pixel_are_told_before_training(world, monkeypatch):
    with pytest.raises(DatasetError, match="shows an object of 16 pixels or more at 64 x 64"):
        do_job("train_promptable", world, monkeypatch, **{**QUICK, "data_root": "specks"})


def test_a_kind_that_does_not_fit(world, monkeypatch):
    with pytest.raises(DatasetError, match="no coco file where it usually is, as kind='coco' asks"):
        do_job("train_promptable", world, monkeypatch, until="card.build(recipe", **{**QUICK, "data_root": "fine", "kind": "coco"})


def test_what_is_left_out_of_a_coco_file_is_said(world, monkeypatch, capsys):
    job = do_job("train_promptable", world, monkeypatch, until="card.build(recipe", **{**QUICK, "data_root": "sound"})
    said = capsys.readouterr().out
    assert all(w in said for w in ("left out: ", "6 x crowd", "6 x polygon of fewer than 3 points", "6 x polygon that is no list of numbers"))
    assert [len(sample["masks"]) for sample in job["data"]["train"]] == [1] * len(job["data"]["train"])


def test_an_image_of_500_objects_is_bounded_and_said(world, monkeypatch):
    job = do_job("train_promptable", world, monkeypatch, until="card.build(recipe", **{**QUICK, "data_root": "crowded", "image_size": 256})
    transforms = promptable_transforms(Promptable(backbone="tiny_sam2", image_size=256), job["recipe"], job["data"])
    assert len(job["data"]["train"][0]["masks"]) == 500
    assert len(transforms["train"](job["data"]["train"][0], torch.Generator().manual_seed(0))["masks"]) == job["recipe"].objects
    with pytest.warns(UserWarning, match=r"has 500 objects: 32 of them are taken \(max_objects\)"):
        assert len(transforms["val"](job["data"]["val"][0])["masks"]) == 32


@pytest.mark.parametrize("words, wanted, seconds", [
    ("train promptable --dataset objects --data_root fine --checkpoint scratch --backbone sam3", ["unknown backbone 'sam3'"], SECONDS),
    ("train promptable --dataset objects --data_root fine --backbone sam-vit-b --checkpoint sam_vit_l.pth", ["SAM 1 ViT-L"], WITH_TORCH),
    ("train promptable --dataset cocoo", ["unknown dataset 'cocoo'", "did you mean 'coco'?"], SECONDS),
    ("train promptable --prompts point", ["unknown parameter 'prompts'"], SECONDS),
    ("eval promptable --run nothing", ["no run 'nothing'"], SECONDS),
    ("eval promptable --checkpoint sam2.1-bb", ["no weights 'sam2.1-bb'", "did you mean 'sam2.1-b+'?"], SECONDS),
    ("eval promptable --checkpoint sam2.1-l", ["not here yet: SAM 2.1 Hiera-L", "sam_nb fetch sam2.1-l"], SECONDS),
    ("eval promptable --checkpoint tiny_sam --prompts points", ["prompts='points'", "did you mean 'point'?"], SECONDS),
    ("eval promptable --checkpoint tiny_sam --before none.pt", ["no weights 'none.pt'"], SECONDS),
    ("eval promptable --checkpoint tiny_sam --dataset objects --data_root no_masks", ["6 images but no masks"], WITH_TORCH),
    ("eval saom --run nothing", ["no run 'nothing'"], SECONDS),
    ("eval saom --checkpoint sam-vit-bb", ["no weights 'sam-vit-bb'", "did you mean 'sam-vit-b'?"], SECONDS),
    ("eval saom --checkpoint sam-vit-b", ["not here yet: SAM 1 ViT-B", "sam_nb fetch sam-vit-b"], SECONDS),
    ("eval saom --checkpoint saom --grid 0", ["grid=0", "at least 1"], SECONDS),
    ("eval saom --checkpoint saom --grids 8,0x2", ["grids='8,0x2'", "at least 1"], SECONDS),
    ("eval saom --checkpoint saom --data_root rooms.json", ["this metadata file is not there", "rooms.json"], SECONDS),
    ("eval saom --checkpoint saom --data_root lacking/metadata.json", ["metadata.json names it, and it is not there", "0-0-all-Mug_0.png"], WITH_TORCH),
])
def test_the_commands_of_objects_tell_and_leave_nothing(world, words, wanted, seconds):
    shutil.rmtree(world / "runs", ignore_errors=True)
    told(sam_nb(words, world), *wanted, seconds=seconds)
    assert workspace_is_empty(world)


@pytest.mark.parametrize("values, error, wanted", [
    (dict(checkpoint="sam_vit_l.pth", before="tiny_sam"), CheckpointError, "ViT-L"),
    (dict(checkpoint="tiny_sam", min_area=4000), ParameterError, "there is no object to ask for"),
    (dict(checkpoint="tiny_sam", precision="fp16"), ParameterError, "precision='fp16' needs a GPU"),
    (dict(checkpoint="tiny_sam", device="gpu"), ParameterError, "device='gpu' is no device"),
    (dict(checkpoint="tiny_sam", split="tset"), DatasetError, "no split 'tset' here"),
])
def test_an_evaluation_of_objects_refuses(world, monkeypatch, values, error, wanted):
    given = {"dataset": "objects", "data_root": "fine", "device": "cpu", **values}
    with pytest.raises(error, match=wanted): do_job("eval_promptable", world, monkeypatch, **given)


@pytest.mark.parametrize("values, error, wanted", [
    (dict(checkpoint="sam_vit_l.pth"), CheckpointError, "ViT-L"),
    (dict(checkpoint="tiny_sam", min_area=4000), ParameterError, "there is no object to ask for"),
    (dict(checkpoint="saom", device="gpu"), ParameterError, "device='gpu' is no device"),
    (dict(checkpoint="saom", data_root="rooms/metadata.json", split="tset"), DatasetError, "no 'tset_data'; there are .'val_data'."),
    (dict(checkpoint="saom", data_root="uneven/metadata.json"), DatasetError, "mask is 32 x 48, image is 64 x 64"),
    (dict(checkpoint="saom", classes="sofa"), CheckpointError, "1 names for 2 classes"),
])
def test_an_evaluation_of_whole_objects_refuses(world, monkeypatch, values, error, wanted):
    given = {"dataset": "objects", "data_root": "fine", "device": "cpu", "save_masks": False, **values}
    with pytest.raises(error, match=wanted): do_job("eval_saom", world, monkeypatch, **given)


def test_classes_that_the_checkpoint_does_not_know_are_told_and_not_scored(world, monkeypatch, capsys):
    given = dict(checkpoint="saom", data_root="rooms/metadata.json", device="cpu", min_mask_region_area=0)
    job = do_job("eval_saom", world, monkeypatch, **given)
    assert "no class accuracy: the model knows sofa, bed; the data has Mug, SideTable" in capsys.readouterr().out
    scores = json.loads((job["plan"].folder / "eval-metadata-val.json").read_text())
    assert "class accuracy" not in scores["scores"] and all("class accuracy" not in found for found in scores["tables"]["everything"].values())
    assert len(list((job["plan"].folder / "eval-metadata-val-masks/annotated").glob("*.png"))) == 4


# Images with expressions: sam_nb check, sam_nb referring-data, load_dataset("referring", ...)

def write_said(folder: Path, layout: str = "risors") -> Path:
    "Four images with two expressions each, three to train on, in any layout."
    source = folder if layout == "risors" else folder.with_name("source")
    for part in ("JPEGImages", "Annotations"): (source / part).mkdir(parents=True)
    noise, masks = np.random.default_rng(0), np.zeros((2, 48, 64), bool)
    masks[0, 4:20, 4:20], masks[1, 8:40, 30:60] = True, True
    for k in range(4):
        cv2.imwrite(str(source / f"JPEGImages/{k}.jpg"), noise.integers(0, 255, (48, 64, 3), np.uint8))
        said = [dict(id=10 * k + n, name=word, description=f"the {word}", segmentation=mask_to_rle(m), area=int(m.sum())) for n, (word, m) in enumerate(zip(("house", "barn"), masks))]
        (source / f"Annotations/{k}.json").write_text(json.dumps(dict(annotations=said)))
    (source / "RISORS_train.txt").write_text("0\n1\n2\n")
    (source / "RISORS_val.txt").write_text("3\n")
    if layout != "risors": convert_referring(source, folder, layout)
    return folder


def checked(capsys, *words: str) -> tuple[int, str]:
    "What `sam_nb check` answers, errors included."
    code = main(["check", *words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out + said.err


NOTHING = mask_to_rle(np.zeros((48, 64), bool))


@pytest.mark.parametrize("change, code, wanted, left", [
    (lambda said: said[0].update(description=" \n "), 1, ["1 x expression empty (error)", "write what is meant"], 5),
    (lambda said: said[0].pop("description"), 1, ["1 x expression empty (error)"], 5),
    (lambda said: said[0].update(description="roof " * 2000), 0, ["1 x words beyond the first 100 (warning)", "one object in one sentence"], 6),
    (lambda said: said[0].update(description="屋" * 5000), 0, ["1 x words beyond the first 100 (warning)"], 6),
    (lambda said: said[0].update(description="左边的红色屋顶"), 0, ["0 errors, 0 warnings"], 6),
    (lambda said: said[0].update(description="البيت الأحمر"), 0, ["0 errors, 0 warnings"], 6),
    (lambda said: said.append({**said[0], "description": "The  House"}), 0, ["1 x expression twice (warning)", "one of them is used"], 6),
    (lambda said: said[0].update(area=0), 1, ["1 x target of area 0 (error)", "outline the target"], 5),
    (lambda said: said[0].update(segmentation=NOTHING), 1, ["1 x target of area 0 (error)"], 5),
    (lambda said: said[0].update(segmentation={**NOTHING, "size": [64, 48]}), 1, ["1 x mask with height and width exchanged (error)", "0.json"], 5),
    (lambda said: said[0].update(segmentation="roof"), 1, ["1 x annotation without a mask (error)", "0.json"], 5),
    (lambda said: [s.update(area=0) for s in said], 1, ["2 x target of area 0 (error)", "1 x image without expressions (error)", "none of 2 annotations of '0'"], 4),
])
def test_what_is_wrong_with_expressions_is_counted(tmp_path, capsys, change, code, wanted, left):
    folder = write_said(tmp_path / "said")
    file = folder / "Annotations/0.json"
    said = json.loads(file.read_text())
    change(said["annotations"])
    file.write_text(json.dumps(said))
    got, out = checked(capsys, str(folder))
    assert got == code and all(w in out for w in wanted), out
    assert len(load_dataset("referring", "train", folder).expressions) == left


def test_expressions_of_other_scripts_and_of_2000_words_are_kept_and_cut(tmp_path):
    folder = write_said(tmp_path / "said")
    file = folder / "Annotations/0.json"
    said = json.loads(file.read_text())
    said["annotations"][0]["description"], said["annotations"][1]["description"] = "красная\tкрыша", "roof " * 2000
    file.write_text(json.dumps(said))
    first = load_dataset("referring", "train", folder)[0]
    assert first["expressions"] == ["красная крыша", " ".join(["roof"] * 100)] and len(first["masks"]) == 2


@pytest.mark.parametrize("layout, picture", [("risors", "JPEGImages/0.jpg"), ("refer", "images/rrsisd/JPEGImages/0.jpg"), ("refsegrs", "images/0.tif")])
def test_a_missing_and_a_truncated_picture_with_expressions(tmp_path, capsys, layout, picture):
    folder = write_said(tmp_path / "said", layout)
    assert checked(capsys, str(folder))[0] == 0
    whole = (folder / picture).read_bytes()
    (folder / picture).unlink()
    code, out = checked(capsys, str(folder))
    assert code == 1 and "1 x image missing (error)" in out and "copy it, or take it out of the list" in out, out
    (folder / picture).write_bytes(whole[:-len(whole) // 2])
    code, out = checked(capsys, str(folder))
    assert code == 1 and picture in out and "copy this file again" in out, out


@pytest.mark.parametrize("layout, file", [("risors", "RISORS_train.txt"), ("refsegrs", "output_phrase_train.txt")])
def test_lists_with_blank_lines_and_windows_line_ends(tmp_path, capsys, layout, file):
    folder = write_said(tmp_path / "said", layout)
    before = load_dataset("referring", "train", folder)
    lines = (folder / file).read_text().splitlines()
    (folder / file).write_bytes(("\ufeff\r\n" + "\r\n\r\n  \r\n".join(lines) + "\r\n").encode())
    after = load_dataset("referring", "train", folder)
    assert after.expressions == before.expressions and checked(capsys, str(folder))[0] == 0
    (folder / file).write_bytes(b"house_\xff\n")
    code, out = checked(capsys, str(folder))
    assert code == 1 and "neither UTF-8 nor UTF-16" in out and file in out and "save it as UTF-8" in out, out


def test_refs_that_want_to_run_code_are_not_run(tmp_path, capsys):
    folder, proof = write_said(tmp_path / "said", "refer"), tmp_path / "it-ran"
    (folder / "rrsisd/refs(unc).json").unlink()
    assert checked(capsys, str(folder))[0] == 0  # by the plain pickle
    file = folder / "rrsisd/refs(unc).p"
    file.write_bytes(pickle.dumps([{"ref_id": 1, "split": "train", "sentences": Command(f"touch {proof}")}]))
    for words in (["check", str(folder)], ["check", "rrsisd", "--data_root", str(folder)], ["referring-data", str(folder), str(tmp_path / "out"), "--layout", "risors"]):
        assert main(words) == 1
        said = capsys.readouterr()
        assert "could run code" in said.err and "system" in said.err and str(file) in said.err and "a source that you trust" in said.err, said.err
    assert not proof.exists() and not (tmp_path / "out").exists()
    pickle.loads(file.read_bytes())  # the same file does run where it is opened freely
    assert proof.exists()


def test_references_to_nothing_and_masks_of_another_size(tmp_path, capsys):
    folder = write_said(tmp_path / "said", "refer")
    refs, instances = (json.loads((folder / f"rrsisd/{f}").read_text()) for f in ("refs(unc).json", "instances.json"))
    refs[0]["ann_id"], refs[2]["sentences"] = 999, []
    instances["annotations"][3]["segmentation"] = [{**NOTHING, "size": [64, 48]}]
    for name, value in {"refs(unc).json": refs, "instances.json": instances}.items(): (folder / f"rrsisd/{name}").write_text(json.dumps(value))
    code, out = checked(capsys, str(folder))
    assert code == 1 and all(w in out for w in ("1 x target missing (error)", "1 x expression empty (error)", "1 x image without expressions (error)")), out
    assert "names annotation 999, which is not there" in out and "take refs and instances.json of the same release" in out


def test_a_mask_of_another_size_than_its_picture(tmp_path, capsys):
    folder = write_said(tmp_path / "said", "refsegrs")
    cv2.imwrite(str(folder / "masks/0.tif"), np.full((64, 48), 255, np.uint8))
    code, out = checked(capsys, str(folder))
    assert code == 1 and "the image is 48 x 64, its annotations are for 64 x 48" in out and "images/0.tif" in out, out


def test_splits_that_are_not_there_and_splits_of_nothing(tmp_path, capsys):
    folder = write_said(tmp_path / "said")
    with pytest.raises(DatasetError, match=r"(?s)no split 'tset' here; there are: train, val.*file: .*said"): load_dataset("referring", "tset", folder)
    code, out = checked(capsys, str(folder), "--split", "vla")
    assert code == 1 and "1 x split missing (error): no split 'vla' here" in out and "did you mean 'val'?" in out, out
    (folder / "RISORS_val.txt").write_text("nobody\n")
    code, out = checked(capsys, str(folder))
    assert code == 1 and "no usable expression in split 'val' (left out: 1 x annotation file)" in out, out
    with pytest.raises(DatasetError, match="dataset 'risors' is not here"): load_dataset("risors", "train", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"not laid out as 'refsegrs' \(split 'train'\); found: Annotations/"): load_dataset("refsegrs", "train", folder)


@pytest.mark.parametrize("words, wanted", [
    ("{said} {out} --layout risor", ["risor", "did you mean 'risors'?"]),
    ("{said} {out}", ["--layout"]),
    ("{said} {out} --layout refer --png", ["--png is for --layout risors", "leave it out"]),
    ("{said} {out} --layout risors --name town", ["--name is for --layout refer", "leave it out"]),
    ("{said} {out} --layout refer --name a/b", ["name='a/b' is no folder name"]),
    ("{said} {said} --layout refer", ["there is something in this folder", "choose a new folder"]),
    ("{out} {out}2 --layout refer", ["this folder is not there"]),
    ("{said}/JPEGImages {out} --layout refer", ["no referring dataset here", "expected JPEGImages, Annotations and RISORS_train.txt"]),
])
def test_a_conversion_that_cannot_be(tmp_path, capsys, words, wanted):
    folder = write_said(tmp_path / "said")
    assert main(["referring-data", *words.format(said=folder, out=tmp_path / "out").split()]) == 1
    said = capsys.readouterr().err
    assert all(w in said for w in wanted) and "Traceback" not in said, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["said"]


# --- Earth-observation layouts: what is wrong is named with its file, and the rest is read ---------------------------------------


@pytest.fixture(scope="module")
def earth(tmp_path_factory):
    from sam_nb.demo.aerial import make_demo_aerial
    return make_demo_aerial(tmp_path_factory.mktemp("earth") / "earth", 64, 3, 1, 1, hard=0, layout="earth")


def dota_line(folder: Path) -> str:
    file = folder / "train/annfiles/1.txt"
    file.write_text(file.read_text() + "ship\n")
    return "annfiles/1.txt"


def count_phrase(folder: Path) -> str:
    file = folder / "train/aerial/Annotation/train_IMG_CT.json"
    asked = json.loads(file.read_text())
    asked[0]["conversations"][0]["content"] = "<image>\nHow many are there?"
    file.write_text(json.dumps(asked))
    return "train_IMG_CT.json"


def count_prior(folder: Path) -> str:
    file = folder / "train/aerial/Annotation/prior_areas.json"
    file.write_text(json.dumps(dict(list(json.loads(file.read_text()).items())[1:])))
    return "train_IMG_CT.json"


def rsvg_number(folder: Path) -> str:
    (folder / "train.txt").write_text((folder / "train.txt").read_text() + "100000\n")
    return "train.txt"


def class_folder(folder: Path) -> str:
    shutil.rmtree(next((folder / "train/Images").iterdir()))
    shutil.copytree(next(f for s in ("val", "test", "train") for f in (folder / s / "Images").glob("*")), folder / "train/Images/moon")
    return "train/Images"


def refer_image(folder: Path) -> str:
    next((folder / "images/aerial/JPEGImages").glob("1.jpg")).unlink()
    return "JPEGImages/1.jpg"


def refer_size(folder: Path) -> str:
    file = folder / "aerial/instances.json"
    said = json.loads(file.read_text())
    for note in said["annotations"][:2]: note["segmentation"][0]["size"] = [63, 64]
    file.write_text(json.dumps(said))
    return "refs(unc).json"


@pytest.mark.parametrize("layout, damage, kind", [
    ("dota", dota_line, "line damaged"), ("counts", count_phrase, "question unreadable"), ("counts", count_prior, "class without a prior area"),
    ("rsvg", rsvg_number, "object number unknown"), ("scenes", class_folder, "class folder absent"), ("refer", refer_image, "image missing"),
    ("refer", refer_size, "mask of another size than its image")])
def test_earth_layout_with_a_mistake(earth, tmp_path, layout, damage, kind):
    folder = Path(shutil.copytree(earth / layout, tmp_path / layout))
    file, data = damage(folder), load_dataset("referring" if layout == "refer" else "earth", "train", folder)
    found = [p for p in data.problems if p.kind == kind]
    assert found and len(data) > 0 and found[0].file.endswith(file) and found[0].remedy, data.problems


def test_parts_of_a_target_that_overlap(earth, tmp_path):
    "They belong to the target; as RemoteSAM's released code reads them, what two parts share is background."
    folder = Path(shutil.copytree(earth / "refer", tmp_path / "refer"))
    file = folder / "aerial/instances.json"
    said, masks = json.loads(file.read_text()), [np.zeros((64, 64), np.uint8) for _ in range(2)]
    masks[0][10:30, 10:30] = masks[1][20:40, 20:40] = 1
    note = next(n for n in said["annotations"] if n["area"])
    note.update(segmentation=[mask_to_rle(m) for m in masks], area=700)
    file.write_text(json.dumps(said))
    areas = {}
    for faithful in (False, True):
        data = load_dataset("referring", "all", folder, faithful=faithful)
        areas[faithful] = {int(a) for k in range(len(data)) for a, i in zip(data.read(k)[1].areas, data.read(k)[1].ids.tolist()) if i == note["id"]}
    assert areas == {False: {700}, True: {600}}
