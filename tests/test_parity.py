"""The golden checks pass, on the repository's own set and on the whole one where `SAM_NB_GOLDEN` names it, and notice what is wrong.

Models are compared in float64, so that the result does not depend on the processor.
"""
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sam_nb.testing import count_skip, golden
from tests.parity import remotesam, rsam, s4m, s4m_steps, saom, sartm
from tests.parity.checks import Checks, double

OWN = Path(__file__).parent / "golden"
RUNNERS = {"sartm": (sartm, 260), "saom": (saom, 540), "rsam": (rsam, 600), "remotesam": (remotesam, 500), "s4m": (s4m, 1600)}


@pytest.mark.parametrize("method, least", [("sartm", 150), ("rsam", 150), ("remotesam", 300), ("s4m", 350)])
def test_parity_on_the_committed_goldens(method, least):
    checks = RUNNERS[method][0].run(OWN / method)
    assert not checks.failed, checks.failed
    assert len(checks.rows) - len(checks.missing) > least


@pytest.mark.parametrize("method", RUNNERS)
def test_parity_on_all_goldens(method):
    runner, least = RUNNERS[method]
    checks = runner.run(whole(method))
    assert not checks.failed, checks.failed
    missing = [m for m in checks.missing if not m.startswith("lists: ")]  # published lists, of which a golden holds the hash only
    assert len(checks.rows) >= least and not missing, missing


def whole(method: str) -> Path:
    "The whole set of a method's goldens."
    folder = golden(method)
    if folder is None or folder == OWN / method: count_skip(f"the whole set of {method}'s goldens is not here"); pytest.skip("SAM_NB_GOLDEN is not set")
    return folder


# --- negative controls: what is wrong is noticed, where it is -----------------------------------------------------------------------

def copied(folder: Path, files: list[str], to: Path, changed: str = "", key: str = "", row: int = 0) -> Path:
    "Some files of a golden folder; in one, a row of a weight is multiplied by 1.001."
    for name in files: (to / name).write_bytes((folder / name).read_bytes())
    if changed:
        tensors = load_file(to / changed)
        tensors[key][row] *= 1.001
        save_file(tensors, to / changed)
    return to


def test_a_thousandth_of_sartms_tokens_is_noticed(tmp_path):
    folder = copied(OWN / "sartm", [f.name for f in (OWN / "sartm").glob("tiny*")], tmp_path, "tiny_weights.safetensors", "sam.sam_mask_decoder.mask_tokens.weight", 2)
    failed = sartm.run(folder).failed
    assert any("m_output" in name for name in failed) and not any("encoder" in name for name in failed)


def test_a_thousandth_of_saoms_tokens_is_noticed(tmp_path):
    folder = copied(whole("saom"), ["saom_forward.safetensors", "saom_model.json"], tmp_path, "saom_forward.safetensors", "sd.model.mask_decoder.mask_tokens.weight", 2)
    failed = saom.run(folder).failed
    assert any("quality tokens" in name for name in failed) and not any("features" in name for name in failed)


def test_a_thousandth_of_rsams_tokens_is_noticed(tmp_path):
    folder = copied(OWN / "rsam", ["tiny_io.safetensors", "tiny.json", "tiny_state.safetensors"], tmp_path, "tiny_state.safetensors", "sd.sam_mask_decoder.mask_tokens.weight")
    failed = rsam.run(folder).failed
    assert any("decoder's masks" in name for name in failed) and not any("guidance" in name for name in failed)


def test_a_thousandth_of_remotesams_fusion_is_noticed(tmp_path):
    folder = copied(OWN / "remotesam", ["model_heads.json", "model_heads.safetensors"], tmp_path, "model_heads.safetensors",
                    "sd.backbone.layers.1.fusion.vis_project.0.weight", 1)
    failed = remotesam.run(folder).failed
    assert any("stage1.pwam" in name for name in failed) and any("logits" in name for name in failed)
    assert not any("stage0" in name or "text" in name for name in failed)


def test_a_thousandth_of_a_mask2former_query_is_noticed(tmp_path):
    folder = copied(OWN / "s4m", ["m2f_r50.json", "m2f_r50.safetensors"], tmp_path, "m2f_r50.safetensors", "sd.sem_seg_head.predictor.query_feat.weight", 1)
    failed = s4m.run(folder).failed
    assert any("class" in name or "logits" in name for name in failed) and not any("backbone" in name or "features" in name for name in failed)


def test_distillation_at_other_places_is_noticed(monkeypatch):
    "Places in the map that fit the prompts, where the published run stretches the content of a padded image over the map."
    right = s4m_steps.golden_model
    monkeypatch.setattr(s4m_steps, "golden_model", lambda folder, **switches: right(folder, **{**switches, "sd_coords": "aligned"}))
    checks = Checks()
    s4m_steps.check(OWN / "s4m", checks)
    assert any("loss_sd" in name for name in checks.failed) and not any("loss_ce" in name or "loss_mask" in name for name in checks.failed)


def test_swapped_axes_are_noticed(tmp_path, monkeypatch):
    "Positions whose x and y are exchanged."
    from sam2.modeling.position_encoding import PositionEmbeddingRandom
    right = PositionEmbeddingRandom.forward
    monkeypatch.setattr(PositionEmbeddingRandom, "forward", lambda self, size: right(self, size).transpose(1, 2))
    failed = rsam.run(copied(OWN / "rsam", ["tiny_io.safetensors", "tiny.json", "tiny_state.safetensors"], tmp_path)).failed
    assert any("guidance alone" in name for name in failed) and not any(name in ("text encoder", "text projection") for name in failed)


def test_a_dropped_term_is_noticed(tmp_path, monkeypatch):
    "A prototype loss without the part of one class."
    right = sartm.prototype_loss

    def without(batch, running):
        loss = right(batch, running).clone()
        loss.view(-1)[loss.argmax()] = 0
        return loss
    monkeypatch.setattr(sartm, "prototype_loss", without)
    failed = sartm.run(copied(OWN / "sartm", ["components_small.json", "components_small.safetensors"], tmp_path)).failed
    assert any("loss map" in name for name in failed) and not any("KL" in name for name in failed)


def test_another_rate_is_noticed(monkeypatch):
    "The guidance module's rate is five percent too high."
    folder, right = whole("rsam"), rsam.recipe_of
    monkeypatch.setattr(rsam, "recipe_of", lambda *rates: right(*rates).model_copy(update={"guidance_lr": 1.05}))
    checks = Checks()
    with double(): rsam.training(checks, folder)
    assert any("lr of every group" in name for name in checks.failed) and any("core_loss" in name for name in checks.failed), checks.failed


def test_float32_is_held_to_the_published_rounding():
    "The pass in float32 fails where it is further off than the published values by more than the stated factor."
    checks = Checks()
    exact, published = torch.ones(4, dtype=torch.float64), torch.full((4,), 1 + 1e-7)
    for off, fails in ((1e-6, False), (1e-4, True)):
        checks.rows.clear()
        checks.single = False; checks.close("x", exact, published, 1e-6)
        checks.single = True; checks.close("x", exact + off, published, 1e-6)
        assert [name for name in checks.failed] == (["float32: x"] if fails else [])
