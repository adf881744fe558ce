"A file of weights is read once, whoever loads it; saved models load without a word."
from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from unittest import mock

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
