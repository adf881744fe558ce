"""A mistake is told at once, by one message with fact, file and remedy, and leaves nothing half-made.

Faults of a training that has begun (NaN, full and read-only disks, a run of the same name, another recipe on resume) are in test_faults.py.
"""
from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import cv2
import pytest
import torch

from sam_nb.core import CheckpointError, DatasetError, ParameterError, SamNbError
from sam_nb.datasets.catalog import load_dataset
from sam_nb.datasets.demo import make_demo
from sam_nb.methods.sartm import SARTM, load_any
from sam_nb.methods.sartm_recipe import sartm_recipe
from sam_nb.weights import save_state
from tests.command import CHECKOUT, Said, run, sam_nb, workspace_is_empty

SECONDS = 5  # of processor time, the kernel's included: the clock would also measure what else the machine is doing
WITH_TORCH = 8  # where the notebook has to speak; to import torch, torchvision and sam2 takes four of its five on two slow cores


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
