"`sam_nb doctor` after real kills: what is left is found, `--clean` removes it, and nothing else."
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import Said, sam_nb

WRITE = """
import sys, time
from sam_nb.core import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
CONVERT = """
import sys, time
from sam_nb.datasets.written_folder import written_folder
with written_folder("coco", sys.argv[1], ["a"], True, False):
    print("writing", flush=True)
    time.sleep(60)
"""
TRAIN = """
import sys, time
from sam_nb.locks import lock_folder
lock = lock_folder(sys.argv[1], "training")
print("writing", flush=True)
time.sleep(60)
"""


def start(code: str, *words: object) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    return process


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def doctor(root: Path, *words: object) -> Said: return sam_nb(["doctor", *map(str, words)], root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("runs", "data", "checkpoints"): (tmp_path / name).mkdir()
    return tmp_path


def files(root: Path) -> set[str]: return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


def test_a_sound_workspace(root):
    done = doctor(root)
    assert not done.code and not done.error and done.out.splitlines()[-1].startswith("0 errors"), done.out + done.error
    assert not files(root)
    assert done.cpu < 3  # 0.9 s


def test_torch_is_not_imported(root):
    code = "import sys; from sam_nb.launch.doctor import examine; [*examine()]; sys.exit('torch' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code], env={**os.environ, "SAM_NB_ROOT": str(root)}).returncode


def test_what_killed_processes_leave_is_removed_and_nothing_else(root):
    kept = {"runs/a/notes.txt", "data/mine/1.png", "data/mine/.x.abcdefgh.tmp", "checkpoints/own.pt"}
    for name in kept:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("a person's")
    left = [(WRITE, "runs/a/run.json"), (WRITE, "data/features/ab-fp32/00/1.safetensors"), (WRITE, "checkpoints/x.pt"), (CONVERT, "data/converted")]  # the last: a folder and its lock
    for code, name in left: kill(start(code, root / name))
    writing = start(WRITE, root / "data/other.json")
    try:
        said = doctor(root)
        assert not said.code and said.out.count("sam_nb doctor --clean removes it") == 5, said.out
        assert len(files(root)) == len(kept) + 5  # nothing is removed unless it is asked for
        cleaned = doctor(root, "--clean")
        assert not cleaned.code and cleaned.out.count("removed: ") == 5, cleaned.out
        assert files(root) - kept == {f for f in files(root) if f.startswith("data/.other.json.")} and len(files(root)) == len(kept) + 1
        assert "a process may be writing it" in cleaned.out
    finally: kill(writing)
    assert doctor(root, "--clean").out.count("removed: ") == 1 and files(root) == kept
    assert not [*root.glob("data/.converted*")]


def test_a_run_that_is_locked_is_left(root):
    kill(start(WRITE, root / "runs/a/weights.safetensors"))
    training = start(TRAIN, root / "runs/a")
    try:
        before = files(root)
        assert "removed" not in doctor(root, "--clean").out or files(root) >= {f for f in before if not f.endswith(".tmp")}
        assert (root / "runs/a/.lock").exists()
    finally: kill(training)
    said = doctor(root, "--clean")
    assert not said.code and not files(root), said.out  # the run had nothing in it


def test_an_output_folder_elsewhere(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere") / "out"
    kill(start(WRITE, out / "labels/1.png"))
    kill(start(CONVERT, out.parent / "converted"))
    assert "removed" not in doctor(root, "--clean").out and len(files(out.parent)) >= 1
    assert doctor(root, "--clean", out).out.count("removed: ") == 3
    assert out.is_dir() and not files(out.parent)


def test_what_must_be_mended_is_an_exit_code(root):
    (root / "runs/a").mkdir()
    (root / "runs/a/run.json").write_text("{")
    (root / "checkpoints/sam_vit_b_01ec64.pth").write_bytes(b"PK\3\4 cut off")
    done = doctor(root)
    assert done.code == 1 and "2 errors" in done.out and "sam_nb fetch sam-vit-b" in done.out and "runs/a is damaged" in done.out
