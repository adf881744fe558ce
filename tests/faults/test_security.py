"What SECURITY.md says of the whole library: no reader runs code, one module uses the network, text from files reaches no interpreter."
from __future__ import annotations

import ast
import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sam_nb.core import SamNbError
from sam_nb.datasets.refer import read_refs
from sam_nb.heads.mask2former_weights import _open as open_mask2former
from sam_nb.weights import read_saved
from tests.command import sam_nb

ROOT = Path(__file__).parents[2]
MODULES = {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text()) for file in sorted((ROOT / "sam_nb").rglob("*.py")) if file.name != "_modidx.py"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    "Calls, by the name as it is written."
    for node in ast.walk(tree):
        if isinstance(node, ast.Call): yield ast.unparse(node.func), node


def said(call: ast.Call, argument: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == argument), None)


def imported(tree: ast.AST, name: str) -> str:
    "The module that a name comes from."
    found = (node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and name in [a.asname or a.name for a in node.names])
    return next(found, name)


def dangerous(tree: ast.AST) -> Iterator[str]:
    "Calls that could run what a file holds."
    for name, call in calls(tree):
        if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open",
                    "joblib.load", "torch.jit.load", "torch.hub.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "runpy.run_path", "cv2.FileStorage"): yield name
        if name == "torch.load" and said(call, "weights_only") != "True": yield "torch.load without weights_only=True"
        if name == "np.load" and said(call, "allow_pickle") != "False": yield "np.load without allow_pickle=False"
        if said(call, "shell") not in (None, "False"): yield f"{name} with a shell"
        if said(call, "trust_remote_code") not in (None, "False"): yield f"{name} with trust_remote_code"
        if re.fullmatch(r"Auto\w+\.from_pretrained", name) and said(call, "trust_remote_code") != "False": yield f"{name} without trust_remote_code=False"
        if name != "ast.parse" and name.rpartition(".")[2] in ("iterparse", "fromstring", "XML", "parse") and "defusedxml" not in imported(tree, name.partition(".")[0]): yield f"{name} without defusedxml"
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {a.name for a in node.names} | {getattr(node, "module", "") or ""}
            yield from (f"import {n}" for n in names if n in ("xml.sax", "xml.dom.minidom", "lxml", "dill", "cloudpickle", "joblib", "marshal", "shelve"))


def test_no_reader_can_run_what_a_file_holds():
    found = {name: lines for name, tree in MODULES.items() if (lines := [*dangerous(tree)])}
    assert not found


@pytest.mark.parametrize("code", ["torch.load(f)", "np.load(f)", "eval(text)", "pickle.load(f)", "yaml.load(f)", "subprocess.run(x, shell=True)", "from xml.etree import ElementTree\nElementTree.parse(f)",
                                  "AutoModel.from_pretrained(f)", "Model.from_pretrained(f, trust_remote_code=True)", "from xml.etree.ElementTree import parse\nparse(f)", "import lxml"])
def test_such_a_call_would_be_found(code): assert [*dangerous(ast.parse(code))]


def test_restricted_unpicklers_are_the_only_ones():
    "Each decides by a list what a pickle may name; `find_class` of pickle itself is reached only for what is in the list."
    kinds = {(name, node.name) for name, tree in MODULES.items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases)}
    assert kinds == {("sam_nb/datasets/refer.py", "_PlainUnpickler"), ("sam_nb/heads/mask2former_weights.py", "_ArraysOnly")}
    for name, kind in kinds:
        node = next(n for n in ast.walk(MODULES[name]) if isinstance(n, ast.ClassDef) and n.name == kind)
        assert "find_class" in [getattr(n, "name", "") for n in node.body]


class Evil:
    def __reduce__(self): return os.mkdir, ("was-here",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_that_run_code_are_refused(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for value in (Evil(), [{"ref_id": 1, "x": Evil()}], {"model": {"w": np.zeros(2), "x": Evil()}}):
        for name, read in (("refs(unc).p", read_refs), ("model.pkl", open_mask2former), ("weights.pth", read_saved), ("weights.pt", read_saved)):
            (tmp_path / name).write_bytes(pickle.dumps(value, protocol=protocol))
            with pytest.raises(SamNbError): read(tmp_path / name)
        torch.save(value, tmp_path / "saved.pth", pickle_protocol=max(2, protocol))
        with pytest.raises(SamNbError): read_saved(tmp_path / "saved.pth")
    assert not (tmp_path / "was-here").exists()


NETWORK = {"requests", "urllib.request", "urllib3", "httpx", "aiohttp", "socket", "http", "http.client", "ftplib", "smtplib", "pooch", "huggingface_hub", "websocket"}


def test_modules_that_use_the_network():
    "Downloads are in the zoo, and where a model is opened by its name on the hub; the locks ask for the host's name."
    using: dict[str, set[str]] = {}
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import): found = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level: found = [f"{node.module}.{a.name}" for a in node.names]
            else: continue
            for module in found:
                if any(module == n or module.startswith(n + ".") for n in NETWORK): using.setdefault(module, set()).add(name)
    local = {"huggingface_hub.PyTorchModelHubMixin", "huggingface_hub.EvalResult", "huggingface_hub.ModelCardData"}  # folders and model cards
    assert {name for module, names in using.items() if module not in {*local, "socket"} for name in names} == {"sam_nb/zoo.py", "sam_nb/weights.py"}, using
    for name in using.get("socket", ()): assert all(call.startswith("socket.gethostname") for call, _ in calls(MODULES[name]) if call.startswith("socket.")), name


@pytest.mark.parametrize("method", ["../../outside", "os", "__main__"])
def test_a_run_folder_names_no_code(tmp_path, method):
    "Names in a run.json are looked up among the methods; nothing is imported or run by them, and a notebook that lies in a run is only shown."
    run = tmp_path / "runs/a"
    run.mkdir(parents=True)
    (tmp_path / "outside.py").write_text("import os; os.mkdir('was-here')")
    (run / "notebook.ipynb").write_text(json.dumps({"cells": [{"cell_type": "code", "source": "import os; os.mkdir('was-here')", "metadata": {}, "outputs": []}], "metadata": {}}))
    (run / "run.json").write_text(json.dumps({"format": 1, "name": "a", "method": method, "status": "finished", "created": "2026-11-29T21:30:00+00:00", "recipe": {"model": "os:getcwd"},
                                              "metrics": {}, "score": None, "steps": 1, "wall_seconds": 1.0, "error": None, "process": {"pid": 1, "host": "x", "started": 0.0}}))
    for words in (["runs"], ["runs", "show", "a"], ["eval", "sartm", "--run", "a", "--dry_run"]):
        done = sam_nb(words, tmp_path)
        assert done.code in (0, 1) and "Traceback" not in done.error, done.error
    assert not [*tmp_path.rglob("was-here")]


def test_security_md_points_to_what_exists():
    text = (ROOT / "SECURITY.md").read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text): assert (ROOT / target).exists(), target
