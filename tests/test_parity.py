"The golden checks pass: on the repository's own set, and on the whole one where `SAM_NB_GOLDEN` names it."
from pathlib import Path

import pytest

from sam_nb.testing import count_skip, golden
from tests.parity import rsam, saom, sartm

OWN = Path(__file__).parent / "golden" / "sartm"


def test_parity_on_the_committed_goldens():
    checks = sartm.run(OWN)
    assert not checks.failed, checks.failed
    assert len(checks.rows) > 100


def test_parity_on_all_goldens():
    folder = golden("sartm")
    if folder is None or folder == OWN: count_skip("the whole set of SARTM's goldens is not here"); pytest.skip("SAM_NB_GOLDEN is not set")
    checks = sartm.run(folder)
    assert not checks.failed, checks.failed


def test_parity_of_saom():
    folder = golden("saom")
    if folder is None: pytest.skip("SAM_NB_GOLDEN is not set")
    checks = saom.run(folder)
    assert not checks.failed, checks.failed
    assert len(checks.rows) > 300


def test_parity_of_saom_notices_a_difference(tmp_path):
    "A negative control: one weight moved by a thousandth is told."
    from safetensors.torch import load_file, save_file
    folder = golden("saom")
    if folder is None: pytest.skip("SAM_NB_GOLDEN is not set")
    for name in ("saom_forward.safetensors", "saom_model.json"): (tmp_path / name).write_bytes((folder / name).read_bytes())
    tensors = load_file(tmp_path / "saom_forward.safetensors")
    tensors["sd.model.mask_decoder.mask_tokens.weight"][2] *= 1.001
    save_file(tensors, tmp_path / "saom_forward.safetensors")
    failed = saom.run(tmp_path).failed
    assert any("quality tokens" in name for name in failed) and not any("features" in name for name in failed)


def test_parity_notices_a_difference(tmp_path):
    "A negative control: one weight moved by a thousandth is told."
    import shutil

    from safetensors.torch import load_file, save_file
    for file in OWN.glob("tiny*"): shutil.copy(file, tmp_path)
    weights = load_file(tmp_path / "tiny_weights.safetensors")
    weights["sam.sam_mask_decoder.mask_tokens.weight"][2] *= 1.001
    save_file(weights, tmp_path / "tiny_weights.safetensors")
    failed = sartm.run(tmp_path).failed
    assert any("m_output" in name for name in failed) and not any("encoder" in name for name in failed)


def test_parity_of_rsam_on_the_committed_goldens():
    checks = rsam.run(OWN.with_name("rsam"))
    assert not checks.failed, checks.failed
    assert len(checks.rows) > 80


def test_parity_of_rsam():
    folder = golden("rsam")
    if folder is None: pytest.skip("SAM_NB_GOLDEN is not set")
    checks = rsam.run(folder)
    assert not checks.failed, checks.failed
    assert len(checks.rows) > 150


def test_parity_of_rsam_notices_a_difference(tmp_path):
    "A negative control: one weight moved by a thousandth is told."
    from safetensors.torch import load_file, save_file
    own = OWN.with_name("rsam")
    for name in ("tiny_io.safetensors", "tiny.json"): (tmp_path / name).write_bytes((own / name).read_bytes())
    tensors = load_file(own / "tiny_state.safetensors")
    tensors["sd.sam_mask_decoder.mask_tokens.weight"][0] *= 1.001
    save_file(tensors, tmp_path / "tiny_state.safetensors")
    failed = rsam.run(tmp_path).failed
    assert any("decoder's masks" in name for name in failed) and not any("guidance" in name for name in failed)
