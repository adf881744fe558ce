"Nothing is left out unseen: what may be skipped is in skips.json, and the list fails when it grows or shrinks."
import ast
import json
import sys
from collections import Counter

import pytest

from tests import run, skips


def test_the_list_is_what_the_sources_say():
    lines = skips.differences(skips.found(), skips.listed())
    assert not lines, "\n".join([*lines, "look at each, then: python -m tests.skips --write"])


def test_a_longer_and_a_shorter_list_are_differences():
    assert skips.differences({"a.py": ["skip: x", "skip: x"]}, {"a.py": ["skip: x"]}) == ["+ a.py: skip: x"]
    assert skips.differences({}, {"a.py": ["skip: x"]}) == ["- a.py: skip: x"]


@pytest.mark.parametrize("code, wanted", [
    ("@pytest.mark.skip\ndef test_a(): f()", "skip: pytest.mark.skip"),
    ("@pytest.mark.skipif(True, reason='')\ndef test_a(): f()", "skip: pytest.mark.skipif(True, reason='')"),
    ("mark = pytest.mark\n@mark.xfail\ndef test_a(): f()", "skip: mark.xfail"),
    ("pytestmark = pytest.mark.skip", "skip: pytest.mark.skip"),
    ("cv2 = pytest.importorskip('cv2')", "skip: pytest.importorskip('cv2')"),
    ("def test_a():\n    pytest.skip('no')", "skip: pytest.skip('no')"),
    ("from pytest import skip as s", "skip: from pytest import skip"),
    ("raise unittest.SkipTest('no')", "skip: unittest.SkipTest('no')"),
    ("cases = [pytest.param(1, marks=pytest.mark.xfail)]", "skip: pytest.mark.xfail"),
    ("collect_ignore = ['test_a.py']", "skip: collect_ignore = ['test_a.py']"),
    ("def pytest_ignore_collect(path): return True", "skip: def pytest_ignore_collect"),
    ("if 0: f()", "never: if 0"),
    ("if torch.cuda.is_available(): f()", "condition: if torch.cuda.is_available()"),
    ("f() if shutil.which('node') else None", "condition: if shutil.which('node')"),
    ("if (folder := samples('coco')): f()", "material: samples('coco')"),
    ("try: import cv2\nexcept ImportError: cv2 = None", "swallowed: except ImportError: cv2 = None"),
    ("try: f()\nexcept AssertionError: pass", "swallowed: except AssertionError: pass"),
    ("with contextlib.suppress(AssertionError): f()", "swallowed: contextlib.suppress(AssertionError)"),
])
def test_code_that_may_not_run(code, wanted): assert wanted in [*skips.in_code(ast.parse(code))]


def test_a_golden_file_of_the_repository_is_always_here():
    own = next(f for f in sorted((skips.ROOT / "tests/golden").rglob("*.json"))).relative_to(skips.ROOT / "tests/golden")
    assert not [*skips.in_code(ast.parse(f"golden({str(own)!r})"))]
    assert [*skips.in_code(ast.parse("golden('no/such.json')"))]


@pytest.mark.parametrize("code, wanted", [
    ("def helper(): pass", "empty: no test in this file"),
    ("def test_a(): f()\ndef test_a(): g()", "shadowed: test_a is defined 2 times"),
    ("class TestA:\n    def test_a(self): f()\n    def test_a(self): g()", "shadowed: test_a is defined 2 times"),
    ("class TestA:\n    def __init__(self): pass\n    def test_a(self): f()", "unseen: class TestA has __init__"),
    ("async def test_a(): f()", "unseen: async test_a"),
    ("def test_a():\n    if x: return\n    f()", "return: test_a ends before its last line"),
    ("def test_a(): pass", "empty: test_a has no statement"),
    ("def test_a(): 'what it would test'", "empty: test_a has no statement"),
    ("def test_a(): f()\ndef tset_b(): assert 1", "unseen: nothing calls tset_b"),
])
def test_a_test_file_that_hides_something(code, wanted): assert wanted in [*skips.in_test_file(ast.parse(code), Counter())]


def test_a_sound_test_file_is_not_listed():
    code = "@pytest.fixture\ndef a(): return 1\ndef helper(): return 1\ndef test_a(a):\n    def inner(): return 1\n    assert helper() == inner()"
    assert not [*skips.in_test_file(ast.parse(code), Counter(["helper"]))]


def notebook(*cells: str, kind: str = "code", **metadata) -> dict:
    return {"cells": [{"cell_type": kind, "source": cell} for cell in cells], "metadata": metadata}


@pytest.mark.parametrize("made, wanted", [
    (notebook("#| eval: false\nf()"), "skip: #| eval: false"),
    (notebook("#|eval:false\nf()"), "skip: #|eval:false"),
    (notebook("#| export\n#| slow\nf()"), "skip: #| slow"),
    (notebook("---\nskip_exec: true\n---", kind="raw"), "skip: skip_exec"),
    (notebook("%%script false\nassert 0"), "skip: %%script false"),
    (notebook("assert 0", kind="raw"), "unseen: raw cell 'assert 0'"),
    (notebook("nbdev_export()"), "skip: a cell that says nbdev_export( is not run by nbdev"),
    (notebook("# Title", kind="markdown"), "empty: no code in this notebook"),
    (notebook("# nothing"), "empty: no code in this notebook"),
    (notebook("f()", kernelspec={"language": "julia"}), "unseen: a notebook of julia"),
    (notebook("# assert f() == 1\nf()"), "commented out: # assert f() == 1"),
    (notebook("if samples('coco'): f()"), "material: samples('coco')"),
    (notebook("x = = 1"), "unseen: not Python: 'x = = 1'"),
])
def test_a_notebook_that_hides_something(made, wanted): assert wanted in [*skips.in_notebook(made, {"slow"})]


def test_a_sound_notebook_is_not_listed():
    assert not [*skips.in_notebook(notebook("#| default_exp x", "#| export\ntry: import cv2\nexcept ImportError: cv2 = None", "#| hide\nassert f() == 1", "%time f()"), {"slow"})]


def test_files_that_the_runner_does_not_find(tmp_path):
    for name in ("nbs/_draft.ipynb", "nbs/a.ipynb", "elsewhere/b.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(notebook("f()")))
    for name in ("tests/test_a.py", "tests/more/test_b.py", "tests/helper.py", "benchmarks/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("def test_a(): f()")
    (tmp_path / "nbs/.notest").write_text("")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '-k quick'")
    (tmp_path / "settings.ini").write_text("tst_flags = slow\nskip_procs =\n")
    said = skips.found(tmp_path, run=["nbs/a.ipynb", "tests/test_a.py"])
    assert said == {"nbs/.notest": ["skip: nbdev leaves out this folder"], "pyproject.toml": ["setting: addopts = '-k quick'"], "settings.ini": ["setting: tst_flags = slow"],
                    **{name: ["unseen: the runner does not find this notebook"] for name in ("elsewhere/b.ipynb", "nbs/_draft.ipynb")},
                    **{name: ["unseen: the runner does not find this file"] for name in ("benchmarks/c.py", "tests/helper.py", "tests/more/test_b.py")}}


def test_the_long_ones_exist(): assert set(run.LONG) <= set(run.everything())


def test_every_cell_of_a_notebook_is_run(tmp_path, monkeypatch, capsys):
    "A cell that nbdev leaves out fails the notebook unless the list has it."
    (tmp_path / "nbs").mkdir()
    file = tmp_path / "nbs/a.ipynb"
    cells = [{"cell_type": "code", "id": str(k), "source": s, "metadata": {}, "outputs": [], "execution_count": None} for k, s in enumerate(["1", "#| eval: false\n2", "", "# 3"])]
    file.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    run.run_notebook(outcome := run.Outcome("nbs/a.ipynb"))
    assert outcome.failed == ["nbs/a.ipynb"] and "1 of 4 code cells were not run" in capsys.readouterr().out
    monkeypatch.setattr(skips, "listed", lambda: {"nbs/a.ipynb": ["skip: #| eval: false"]})
    run.run_notebook(outcome := run.Outcome("nbs/a.ipynb"))
    assert outcome.passed == ["nbs/a.ipynb"] and outcome.cells == 3


@pytest.mark.parametrize("code, failed", [
    ("def test_a(): pass\n@pytest.mark.parametrize('x', [1, 2])\ndef test_b(x): pass", []),
    ("def test_a(): pass\ndef test_b(): pass\ndel test_b", ["test_x.py::test_b"]),
    ("def test_a(): pass\nclass TestB:\n    def __init__(self): pass\n    def test_b(self): pass", ["test_x.py::TestB::test_b"]),
    ("@pytest.mark.parametrize('x', [])\ndef test_a(x): pass", ["test_x.py"]),
    ("x = 1", ["test_x.py"]),
])
def test_every_test_of_a_file_is_run(tmp_path, monkeypatch, code, failed):
    sys.modules.pop("test_x", None)
    (tmp_path / "test_x.py").write_text("import pytest\n" + code)
    (tmp_path / "pyproject.toml").write_text((run.ROOT / "pyproject.toml").read_text())
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    run.run_tests(outcome := run.Outcome("test_x.py"), [])
    assert outcome.failed == failed
