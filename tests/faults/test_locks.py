"""Two processes at one folder: real processes, killed, forked, refused; the long version is tests/faults/pairs.py."""
from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import psutil
import pytest

from sam_nb.core import RunError, SamNbError
from sam_nb.launch.jobs import check_run_name, evaluation_job, submit, training_job
from sam_nb.launch.kernel import execute
from sam_nb.launch.parameters import find_notebook, read_parameters
from sam_nb.locks import LockedError, holder, is_locked, lock_folder
from sam_nb.recipe import Recipe
from sam_nb.training.run_list import list_runs
from sam_nb.training.runs import Run
from tests import toy
from tests.command import environment, sam_nb, start, wait_for, write_notebook
from tests.faults import pairs


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    "Everything in a folder, with the times of the last writes."
    return {p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@contextlib.contextmanager
def process_that(folder: Path, code: str, *words: str):
    "A process that runs `code` and then waits; killed at the end."
    code = f"import os, sys, time; folder = sys.argv[1]\n{code}\nprint('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(folder), *words], stdout=subprocess.PIPE, text=True, env=environment(folder)) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally: process.kill()


HOLD = "from sam_nb.locks import lock_folder; lock_folder(folder, 'training of run mine')"
CREATE = "from sam_nb.training.runs import Run, Recipe; run = Run.create('toy', Recipe(run_name='mine'), folder); run.start()"


def refused(call, *names: str) -> LockedError:
    "The refusal by a lock, within a second."
    began = time.monotonic()
    with pytest.raises(LockedError) as said: call()
    assert time.monotonic() - began < 1
    for name in names: assert name in str(said.value)
    return said.value


# the lock

def test_a_kill_frees_it(tmp_path):
    with process_that(tmp_path, HOLD) as process:
        error = refused(lambda: lock_folder(tmp_path, "x"), f"process {process.pid} on this machine", "training of run mine", "certain: the operating system")
        assert error.holder.pid == holder(tmp_path).pid == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert is_locked(tmp_path) is False and holder(tmp_path) is None and (tmp_path / ".lock").read_text()
    with lock_folder(tmp_path, "x") as lock: assert lock.held
    assert (tmp_path / ".lock").read_text() == ""


def test_a_number_that_is_used_again_holds_nothing(tmp_path):
    with process_that(tmp_path, HOLD) as process: said = json.loads((tmp_path / ".lock").read_text())
    for pid in (os.getpid(), os.getppid(), 1): (tmp_path / ".lock").write_text(json.dumps(said | {"pid": pid})); assert holder(tmp_path) is None
    lock_folder(tmp_path, "x").release()
    assert process.returncode == -signal.SIGKILL


def test_the_clock_decides_nothing(tmp_path):
    with process_that(tmp_path, HOLD) as process:
        for shift in (-10 * 86400, 10 * 86400):
            with mock.patch("time.time", return_value=time.time() + shift):
                os.utime(tmp_path / ".lock", (time.time() - shift, time.time() - shift))
                assert holder(tmp_path).pid == process.pid
                refused(lambda: lock_folder(tmp_path, "x"))


def test_another_machines_line_is_nobodys_unless_the_lock_is_held(tmp_path):
    line = json.dumps({"pid": 4711, "host": "node17", "began": "2026-11-29T21:30:00+00:00", "what": "training of run mine", "birth": 1.0})
    (tmp_path / ".lock").write_text(line)
    assert holder(tmp_path) is None
    lock_folder(tmp_path, "x").release()
    with process_that(tmp_path, HOLD):
        (tmp_path / ".lock").write_text(line)
        refused(lambda: lock_folder(tmp_path, "x"), "process 4711 on node17", "as far as the shared file system passes locks", "kill 4711 (on node17)")


@pytest.mark.parametrize("text", ["", "{", "[3]", '{"pid": "x"}', '{"pid": -1, "host": 7}', '{"pid": 1e999, "host": "a"}', "\0" * 5000])
def test_a_line_that_says_nothing(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    assert holder(tmp_path) is None
    with process_that(tmp_path, HOLD):
        (tmp_path / ".lock").write_text(text)
        refused(lambda: lock_folder(tmp_path, "x"), "a process that has not said its name")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written(tmp_path, code):
    with mock.patch("os.open", side_effect=OSError(code, os.strerror(code))), pytest.raises(SamNbError) as said: lock_folder(tmp_path, "x")
    assert said.value.remedy and not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path, code):
    "Said once; then the process number decides, as before there were locks."
    with mock.patch("fcntl.flock", side_effect=OSError(code, os.strerror(code))):
        with pytest.warns(UserWarning, match="keeps no locks"): run = Run.create("toy", Recipe(run_name="mine"), tmp_path)
        run.start()
        assert run.status == "running" and list_runs(tmp_path).loc["mine", "status"] == "running"
        with pytest.raises(RunError, match="a second run with the same name"): Run.create("toy", Recipe(run_name="mine"), tmp_path)
        other = "from sam_nb.training.runs import Run, Recipe; from unittest import mock\n"
        other += f"with mock.patch('fcntl.flock', side_effect=OSError({code}, '')): Run.resume('mine', 'toy', Recipe(), sys.argv[1])"
        said = subprocess.run([sys.executable, "-c", f"import sys; {other}", str(tmp_path)], capture_output=True, text=True, env=environment(tmp_path))
        assert "is still going" in said.stderr
        run.finish()


def test_whoever_gets_it_has_the_file_that_is_there(tmp_path):
    "The holder removes the file while another process tries: the two never hold locks of one folder."
    code = """from sam_nb.locks import lock_folder, LockedError
while True:
    try: lock = lock_folder(folder + '/out', 'x', temporary=True)
    except LockedError: continue
    os.close(os.open(folder + '/taken', os.O_CREAT | os.O_EXCL)); os.unlink(folder + '/taken')  # raises if two are here
    with open(folder + '/log', 'a') as file: file.write('x')
    lock.release()
    if os.path.getsize(folder + '/log') > 300: break"""
    with contextlib.ExitStack() as stack:
        for _ in range(3): stack.enter_context(process_that(tmp_path, code))
    assert not (tmp_path / "taken").exists() and not (tmp_path / "out/.lock").exists()


# runs

def test_a_loader_process_neither_keeps_nor_frees_it(tmp_path):
    process = toy.train(tmp_path, "mine", slow=0.02, epochs=40, workers=2)
    toy.wait_for_step(process, tmp_path, "mine", 2)
    workers = psutil.Process(process.pid).children()
    assert len(workers) >= 2 and is_locked(tmp_path / "mine")
    process.kill()
    process.join()
    assert is_locked(tmp_path / "mine") is False and any(w.is_running() for w in workers), "they end later, by themselves"
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess): worker.kill()
    with lock_folder(tmp_path / "mine", "x"):
        child = toy.in_process(lambda: None, tmp_path / "log")  # one that ends while its parent goes on
        child.join()
        assert is_locked(tmp_path / "mine")


@pytest.fixture(scope="module")
def whole():
    folder = pairs.undisturbed()
    yield folder
    pairs.shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["create", "resume", "join", "kill"])
def test_a_pair(whole, kind):
    pair = pairs.run_pair(kind, whole)
    assert pair.winners == 1 and not pair.problems and not any(said.startswith("raw") for said in pair.said), pair


def test_the_refused_changes_nothing(tmp_path):
    with process_that(tmp_path, CREATE) as process:
        before = files(tmp_path)
        for call in (lambda: Run.resume("mine", "toy", Recipe(), tmp_path), lambda: Run.open("mine", tmp_path).start()): refused(call, f"process {process.pid}")
        with pytest.raises(LockedError), Run.open("mine", tmp_path) as run: run.start()  # and does not mark it as failed
        with pytest.raises(RunError, match="a second run with the same name"): Run.create("toy", Recipe(run_name="mine"), tmp_path)
        assert files(tmp_path) == before and Run.open("mine", tmp_path).status == "running"
    assert Run.open("mine", tmp_path).status == "killed"


def test_a_run_that_is_being_created_is_not_taken(tmp_path):
    "Before it has a run.json; an automatic name goes on to the next number."
    (tmp_path / "mine").mkdir()
    with process_that(tmp_path, "from sam_nb.locks import lock_folder; lock_folder(folder + '/mine', 'training of run mine')"):
        refused(lambda: Run.create("toy", Recipe(run_name="mine"), tmp_path), "training of run mine")
        from sam_nb.training.runs import _new_folder
        folder, lock = _new_folder(tmp_path, None, "mine")
        assert folder.name == "mine-2"
        lock.remove()
    Run.create("toy", Recipe(run_name="mine"), tmp_path).finish()


def test_a_creation_that_was_killed_leaves_the_name_free(tmp_path):
    (tmp_path / "mine").mkdir()
    for name in (".lock", ".run.json.node17-4711-abcdefgh.tmp", "notebook.ipynb"): (tmp_path / "mine" / name).touch()
    run = Run.create("toy", Recipe(run_name="mine"), tmp_path)
    assert {p.name for p in run.folder.iterdir()} == {".lock", "notebook.ipynb", "run.json"}


def test_one_process_goes_on_with_its_own_run(tmp_path):
    "A notebook in a living kernel: after an error, with a run object that was lost, and with the next run."
    run = Run.create("toy", Recipe(run_name="mine"), tmp_path)
    run.start()
    run.fail(MemoryError())
    assert not is_locked(run.folder)
    run.start()  # the same cell again
    again = Run.resume("mine", "toy", Recipe(), tmp_path)
    again.start()
    again.finish()
    assert not is_locked(run.folder)
    Run.create("toy", Recipe(run_name="next"), tmp_path).finish()


def test_an_old_run_without_a_lock_file(tmp_path):
    run = Run.create("toy", Recipe(run_name="mine"), tmp_path)
    run.start()
    run._lock.remove()
    assert run.status == "running"
    run.record(process={**run.info["process"], "pid": 2**22 + 1})
    assert run.status == "killed"
    again = Run.resume("mine", "toy", Recipe(), tmp_path)
    again.start()
    assert again.status == "running" and is_locked(run.folder)
    again.finish()


def test_only_the_first_rank_holds_it(tmp_path):
    with process_that(tmp_path, CREATE), mock.patch.dict(os.environ, RANK="1"):
        run = Run.resume("mine", "toy", Recipe(), tmp_path)
        assert run._lock is None
    run = Run.create("toy", Recipe(run_name="forked"), tmp_path)  # the ranks that notebook_launcher forks train in the notebook's run
    process = toy.in_process(run.start, tmp_path / "log")
    process.join()
    assert process.exitcode == 0 and Run.open("forked", tmp_path).info["process"]["pid"] == process.pid and holder(run.folder).pid == os.getpid()


# the launcher

PARAMETERS = "dataset: str = 'demo'\nslow: float = 0.0\nresume: str | None = None\nrun_name: str | None = None"
TRAIN = '''import time
from sam_nb.recipe import Recipe
from sam_nb.training.runs import Run
recipe = Recipe(dataset=dataset, resume=resume, run_name=run_name)
run = Run.resume(resume, "quick", recipe) if resume else Run.create("quick", recipe)
run.start()
time.sleep(slow)
run.finish({"miou": 50.0})'''
EVAL = 'import pathlib, time\nfrom sam_nb.training.runs import Run\nfound = Run.open(run)\ntime.sleep(slow)\nfound.name'


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    write_notebook(folder / "nbs/train_quick.ipynb", PARAMETERS, TRAIN)
    write_notebook(folder / "nbs/eval_quick.ipynb", "run: str | None = None\nslow: float = 0.0", EVAL)
    with mock.patch.dict(os.environ, SAM_NB_ROOT=str(folder)): yield folder


def job(kind: str, **values):
    parameters = read_parameters(find_notebook(kind, "quick"))
    made = (training_job if kind == "train" else evaluation_job)("quick", values, parameters)
    made.echo = False
    return made


def going(root: Path, process: subprocess.Popen, name: str, status: str = "running") -> None:
    def there() -> bool:
        about = root / "runs" / name / "run.json"
        return about.exists() and about.stat().st_size > 0 and Run.open(name, root / "runs").info["status"] == status
    wait_for(there, process)


def test_the_launcher_beside_a_run_that_trains(root):
    "--run_name, --resume and an evaluation beside it; then the kernel's process is killed, and the launcher."
    process = start("train quick --run_name busy --slow 60", root)
    going(root, process, "busy")
    before = files(root / "runs/busy")
    for call in (lambda: job("train", run_name="busy"), lambda: job("train", resume="busy")):
        with pytest.raises(RunError, match=r"in use by process|a second run with the same name"): call()
    refused(lambda: job("train", resume="busy"), f"process {process.pid}", "training of run busy")
    with pytest.raises(RunError, match="a second run with the same name"): Run.create("quick", Recipe(run_name="busy"), root / "runs")
    assert files(root / "runs/busy") == before
    execute(job("eval", run="busy"))  # its best weights so far
    assert Run.open("busy", root / "runs").status == "running"
    kernel = Run.open("busy", root / "runs").info["process"]["pid"]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + 15
    while is_locked(root / "runs/busy") and time.monotonic() < until:
        assert psutil.pid_exists(kernel)  # the lock is held as long as the kernel may write
        time.sleep(0.05)
    assert not is_locked(root / "runs/busy") and Run.open("busy", root / "runs").status == "killed"
    execute(job("train", resume="busy"))
    assert Run.open("busy", root / "runs").status == "finished"


def test_papermill_by_hand(root):
    "The kernel holds the lock, papermill does not: a second one is refused, and a killed kernel frees it while its papermill lives."
    def papermill(out: str, *parameters: str) -> subprocess.Popen:
        words = [sys.executable, "-m", "papermill", "nbs/train_quick.ipynb", str(root / out), "-k", "python3", "--no-progress-bar", *parameters]
        return subprocess.Popen(words, cwd=root, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = papermill("first.ipynb", "-p", "run_name", "hand", "-p", "slow", "60")
    going(root, first, "hand")
    before = files(root / "runs/hand")
    for parameter in ("run_name", "resume"):
        said = papermill("second.ipynb", "-p", parameter, "hand").communicate(timeout=60)[1]
        assert ("a second run with the same name" if parameter == "run_name" else "is in use by process") in said
    assert files(root / "runs/hand") == before
    os.kill(Run.open("hand", root / "runs").info["process"]["pid"], signal.SIGKILL)
    until = time.monotonic() + 5
    while is_locked(root / "runs/hand") and time.monotonic() < until: time.sleep(0.02)
    assert is_locked(root / "runs/hand") is False and first.poll() is None
    Run.resume("hand", "quick", Recipe(dataset="demo"), root / "runs").finish()
    first.kill()
    first.communicate()


def test_two_evaluations_of_one_run(root):
    execute(job("train", run_name="done"))
    process = start("eval quick --run done --slow 60", root)
    wait_for(lambda: (root / "runs/done/eval.ipynb").exists(), process)
    time.sleep(0.2)
    refused(lambda: job("eval", run="done"), f"process {process.pid}", "evaluation of run done")
    said = sam_nb("eval quick --run done", root)
    assert said.code == 1 and "is in use by process" in said.error and "Traceback" not in said.error
    assert "injected-parameters" in (root / "runs/done/eval.ipynb").read_text() and process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)


def test_a_submitted_job_keeps_its_name(root, monkeypatch):
    "The submitting process ends, the job begins later in another one; meanwhile the name is taken, and nobody else can use the claim."
    import submitit
    sent = []
    monkeypatch.setattr(submitit.AutoExecutor, "submit", lambda self, function, *arguments: sent.append(pickle.dumps((function, arguments))))
    submit(job("train", run_name="later"), {"cluster": "local", "timeout_min": 1})
    folder = root / "runs/later"
    assert (folder / ".claim").exists() and is_locked(folder) is False
    before = files(folder)
    with pytest.raises(RunError, match="was submitted .* and has not begun"): check_run_name({"run_name": "later"})
    with pytest.raises(RunError, match="was submitted"): job("train", run_name="later")
    with pytest.raises(RunError, match="a job was submitted"): Run.create("quick", Recipe(run_name="later"), root / "runs")
    assert files(folder).keys() == before.keys() and files(folder)[".claim"] == before[".claim"]
    (root / "job").write_bytes(sent[0])
    code = f"import pickle; function, arguments = pickle.load(open({str(root / 'job')!r}, 'rb')); function(*arguments)"
    said = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment(root), capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert Run.open("later", root / "runs").status == "finished" and not (folder / ".claim").exists()


def test_a_submission_that_fails_leaves_nothing(root, monkeypatch):
    import submitit
    def full(self, function, *arguments): raise RuntimeError("sbatch: error: queue is full")
    monkeypatch.setattr(submitit.AutoExecutor, "submit", full)
    said = sam_nb("train quick --run_name unsent --slurm cluster=lokal", root)
    assert said.code == 1 and not (root / "runs/unsent").exists()
    made = job("train", run_name="unsent")
    with pytest.raises(RuntimeError): submit(made, {"cluster": "local"})
    from sam_nb.launch.kernel import clear_up
    clear_up(made, RunError("queue is full"))
    assert not (root / "runs/unsent").exists()
