"Who reads the progress of a run is told apart: a page, a terminal, a stored notebook."
from __future__ import annotations

import json
import os
import pty
import queue
import subprocess
import sys
import time

import papermill
import pytest
from jupyter_client.manager import start_new_kernel

from sam_nb.training.callbacks import Callback
from sam_nb.training.loop import Trainer
from sam_nb.training.progress import Progress
from tests import toy
from tests.command import CHECKOUT, environment, write_notebook

TRAIN = '''from pathlib import Path
from sam_nb.training.progress import front_end
from tests import toy
toy.trainer(Path(folder), name, size=24, epochs=2, workers=0, accumulate=1).fit()
print("reader:", front_end())'''


def answers(client, code: str, allow_stdin: bool) -> list[dict]:
    "What a cell sends back to the one who asked."
    asked, found = client.execute(code, allow_stdin=allow_stdin), []
    until = time.monotonic() + 90
    while time.monotonic() < until:
        try: message = client.get_iopub_msg(timeout=5)
        except queue.Empty: continue
        if message["parent_header"].get("msg_id") != asked: continue
        found.append(message)
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle": break
    return found


def text(messages: list[dict]) -> str: return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")


@pytest.fixture(scope="module")
def client():
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(CHECKOUT), env=environment(CHECKOUT))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_page_has_one_live_bar(client, tmp_path):
    said = answers(client, f"folder, name = {str(tmp_path)!r}, 'page'\n{TRAIN}", allow_stdin=True)
    assert "reader: page" in text(said), [m["content"] for m in said if m["msg_type"] == "error"]
    shown = [m for m in said if m["msg_type"] == "display_data" and "application/vnd.jupyter.widget-view+json" in m["content"]["data"]]
    states = [m["content"]["data"]["state"] for m in said if m["msg_type"] == "comm_msg" and m["content"]["data"].get("method") == "update"]
    assert len(shown) == 1 and any(s.get("value") == 12 for s in states) and len(states) < 30
    last = [m for m in said if m["msg_type"] == "update_display_data"]
    assert len(last) == 1 and "finished in" in last[0]["content"]["data"]["text/plain"]  # what a saved page keeps
    assert last[0]["content"]["transient"]["display_id"] == shown[0]["content"]["transient"]["display_id"] and "step" not in text(said)


def test_a_page_is_told_of_a_failure(client, tmp_path):
    said = answers(client, f"folder = {str(tmp_path)!r}\nfrom tests import toy\ntoy.trainer(folder, 'bad', size=8, bad=3, epochs=1, workers=0, accumulate=1).fit()", allow_stdin=True)
    last = [m["content"]["data"] for m in said if m["msg_type"] == "update_display_data"]
    assert len(last) == 1 and last[0]["text/plain"].startswith("failed: TrainingError  step 1/2") and "<progress" in last[0]["text/html"]


def test_nobody_reads_a_kernel_that_cannot_ask(client):
    assert "reader: lines" in text(answers(client, "from sam_nb.training.progress import front_end\nprint('reader:', front_end())", allow_stdin=False))


def test_papermill_stores_a_line_an_epoch(tmp_path):
    notebook = write_notebook(tmp_path / "train.ipynb", f"folder = {str(tmp_path)!r}\nname = 'stored'", TRAIN)
    papermill.execute_notebook(str(notebook), str(tmp_path / "out.ipynb"), progress_bar=False, cwd=str(CHECKOUT))
    outputs = [o for c in json.loads((tmp_path / "out.ipynb").read_text())["cells"] for o in c.get("outputs", [])]
    said = "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream" and o["name"] == "stdout")
    assert "reader: lines" in said and said.count("epoch") == 2 and "\r" not in said
    assert not [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]


def test_a_terminal_has_one_line_that_moves(tmp_path):
    code = f"from tests import toy\ntoy.trainer({str(tmp_path)!r}, 'moving', size=24, epochs=2, workers=0, accumulate=1, callbacks=[toy.Slow(0.05)]).fit()"
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, env={**environment(CHECKOUT), "COLUMNS": "80"}, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while True:
        try: part = os.read(master, 65536)
        except OSError: break
        if not part: break
        said += part
    assert process.wait(60) == 0, said.decode()
    said = said.decode()
    last = said.rstrip("\r\n").split("\r")[-1]
    assert said.count("\r[") >= 3 and "100%  finished in" in last and "images/s" in last
    assert max(len(part) for part in said.replace("\x1b[K", "").split("\r")) <= 110 and said.count("\n") == 3  # two epochs with scores, and the end


class Alone(Callback):
    "Measures what a callback takes of a run."
    def __init__(self, of: Progress): self.of, self.seconds = of, 0.0

    def timed(self, moment: str, t: Trainer) -> None:
        before = time.perf_counter()
        getattr(self.of, moment)(t)
        self.seconds += time.perf_counter() - before

    def begin(self, t): self.timed("begin", t)
    def after_step(self, t): self.timed("after_step", t)
    def after_epoch(self, t): self.timed("after_epoch", t)


def test_it_costs_a_step_nothing(tmp_path, capsys):
    alone = Alone(Progress())
    trainer = toy.trainer(tmp_path, "timed", size=240, epochs=2, workers=0, accumulate=1, save_every=1000, callbacks=[alone])
    before = time.perf_counter()
    trainer.fit()
    assert alone.seconds < 0.02 * (time.perf_counter() - before), alone.seconds
