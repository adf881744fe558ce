"`make test` says what failed, how to run it alone and what to report; a file that dies is a failure of that file alone."
import os
import signal

import pytest

from tests import run


def test_a_failure_ends_with_what_to_do(capsys):
    failed = run.Outcome("tests/test_x.py", passed=["tests/test_x.py::test_a"], failed=["tests/test_x.py::test_b"], output="what it printed")
    assert run.summary([failed, run.Outcome("nbs/index.ipynb", passed=["nbs/index.ipynb"])], 1.0) == 1
    said = capsys.readouterr().out
    what, alone, report = said.splitlines()[-3:]
    assert "what it printed" in said and "1 notebooks (0 cells) and 1 tests passed, 0 skipped, 1 failed" in said
    assert what.endswith("tests/test_x.py::test_b") and alone.endswith("-m tests.run tests/test_x.py::test_b")
    assert {"torch", "numpy", "Python", "thread", "commit"} <= {word.rstrip(",s") for word in report.split()}


def test_a_file_that_dies_is_a_failure(tmp_path, monkeypatch, capsys):
    def work(name, tests, folder):
        (folder / "output").write_text("before")
        if name == "dies": os.kill(os.getpid(), signal.SIGKILL)
        (folder / "outcome").write_text('{"name": "lives", "passed": ["lives"]}')
    monkeypatch.setattr(run, "work", work)
    outcomes = {o.name: o for o in run.run_all({"dies": [], "lives": []}, 2, tmp_path)}
    assert outcomes["dies"].failed == ["dies"] and outcomes["dies"].output.endswith("s") and "before" in outcomes["dies"].output
    assert not outcomes["lives"].failed and "FAILED dies" in capsys.readouterr().out


def test_a_file_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "work", lambda name, tests, folder: (os.setsid(), signal.pause()))
    monkeypatch.setattr(run, "LIMIT", 0.5)
    outcome, = run.run_all({"waits": []}, 1, tmp_path)
    assert outcome.failed == ["waits"] and "code -9" in outcome.output


def test_a_name_that_does_not_exist_is_refused():
    assert run.chosen(["03_losses.ipynb", "tests/test_run.py::test_a", "test_run.py::test_b"]) == {
        "nbs/lib/03_losses.ipynb": [], "tests/test_run.py": ["tests/test_run.py::test_a", "tests/test_run.py::test_b"]}
    with pytest.raises(SystemExit, match="no notebook and no test file is called 99_nothing.ipynb"): run.chosen(["99_nothing.ipynb"])
