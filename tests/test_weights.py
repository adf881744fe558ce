"A file of weights is read once, whoever loads it; saved models load without a word."
from __future__ import annotations

import importlib
import json
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch

from sam_nb import weights
from sam_nb.weights import load_state, open_weights


@contextmanager
def counted():
    "Names of the files whose tensors are read inside, in their order."
    names: list[str] = []

    def read(path):
        names.append(Path(path).name)
        return original(path)

    original = weights.read_state_dict
    with mock.patch.object(weights, "read_state_dict", read): yield names


def test_checkpoint_is_read_once(tmp_path):
    layer = torch.nn.Linear(2, 3)
    torch.save({"model": layer.state_dict()}, tmp_path / "layer.pth")
    with counted() as names:
        found = open_weights(tmp_path / "layer.pth")
        assert not names
        assert (found.family, found.title, found.metadata) == ("unknown", "unknown model", {})
        assert load_state(torch.nn.Linear(2, 3), open_weights(found)).source == "layer.pth"
    assert names == ["layer.pth"]


def test_sartm_is_read_once_and_quietly(tmp_path, capsys):
    from sam_nb.methods.sartm import SARTM
    from sam_nb.methods.sartm_weights import load, load_any
    model = SARTM(["road", "car"], backbone="tiny", image_size=128)
    model.save_pretrained(tmp_path / "model")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    with counted() as names:
        load(tmp_path / "model")
        load_any(model, tmp_path / "model.pth")
    assert names == ["model", "model.pth"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("method,name", [("Promptable", "tiny_sam"), ("Promptable", "tiny_sam2"), ("RSAM", "tiny_rsam"), ("RemoteSAM", "tiny_remotesam")])
def test_saved_models_are_read_once_and_quietly(method, name, capsys):
    module = importlib.import_module(f"sam_nb.methods.{method.lower()}")
    with counted() as names: getattr(module, method).from_pretrained(name)
    assert len(names) == 1
    assert not capsys.readouterr().out


def test_files_of_promptable_rsam_and_saom_are_read_once(tmp_path):
    from sam_nb.methods import promptable_weights, rsam_weights, saom_weights
    from sam_nb.methods.promptable import Promptable
    from sam_nb.methods.rsam import RSAM
    sam, rsam = Promptable.from_pretrained("tiny_sam"), RSAM.from_pretrained("tiny_rsam")
    torch.save(sam.model.state_dict(), tmp_path / "sam.pth")
    torch.save(rsam_weights.released_state(rsam), tmp_path / "rsam.pth")
    (tmp_path / "vocab.txt").write_text("\n".join(rsam.vocabulary) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": rsam.text_encoder.config.num_attention_heads}))
    with counted() as names:
        promptable_weights.load(tmp_path / "sam.pth", like=sam.switches)
        rsam_weights.load(tmp_path / "rsam.pth")
        saom_weights.load(tmp_path / "sam.pth", like=dict(backbone="tiny_sam", image_size=sam.image_size))
    assert names == ["sam.pth", "rsam.pth", "sam.pth"]
