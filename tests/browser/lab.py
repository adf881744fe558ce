"""JupyterLab over a workspace of its own, notebooks opened in a browser, and canvases whose pixels are read."""
from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tests.command import CHECKOUT, write_notebook

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
SETTINGS = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "notebook-extension/tracker": {"windowingMode": "none"}}  # every cell is on the page, seen or not


def find_chromium() -> str | None:
    "The browser: what SAM_NB_CHROMIUM names, or a Chromium of the system."
    named = os.environ.get("SAM_NB_CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


def missing() -> str | None:
    "Why no browser can be driven here; None: one can."
    if find_spec("playwright") is None: return "no playwright for tests in a browser (pip install playwright)"
    if find_chromium() is None: return "no Chromium for tests in a browser (apt-get install chromium, or SAM_NB_CHROMIUM=/path)"
    return None


def screenshots() -> Path:
    folder = Path(os.environ.get("SAM_NB_SCREENSHOTS") or CHECKOUT / "runs/screenshots").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def expect(part: Any) -> Any:
    "Playwright's assertions, which look again until they hold: a page answers a little later than a test asks."
    from playwright.sync_api import expect
    return expect(part)


def wait_until(true: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    "What `true` returns, as soon as that is true."
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Lab:
    "A JupyterLab whose files are copies: the checkout is never written to."
    def __init__(self, root: Path):  # an empty folder
        self.root, self.port, self.token = root / "workspace", free_port(), "browser"
        shutil.copytree(CHECKOUT / "nbs", self.root / "nbs", ignore=shutil.ignore_patterns("lib", ".ipynb_checkpoints"))
        (self.root / "checkpoints").symlink_to(CHECKOUT / "checkpoints")
        for name, said in SETTINGS.items():
            file = root / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(said))
        own = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "lab", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime",
               "IPYTHONDIR": "ipython"}
        environment = {**os.environ, **{k: str(root / v) for k, v in own.items()}, "SAM_NB_ROOT": str(self.root), "PYTHONPATH": str(CHECKOUT),
                       "OMP_NUM_THREADS": "1"}
        environment.pop("MPLBACKEND", None)  # the kernel draws into the notebook
        words = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0",
                 f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.root}", "--LabApp.expose_app_in_browser=True",
                 "--LabServerApp.extra_labextensions_path=[]", "--ServerApp.terminals_enabled=False"]
        self.log = root / "jupyterlab.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], cwd=self.root, env=environment, stdout=log, stderr=log)

    def ask(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer: return json.loads(answer.read() or "null")

    def wait(self, seconds: float = 60) -> Lab:
        "Until it answers."
        def answers() -> bool:
            assert self.process.poll() is None, f"JupyterLab ended:\n{self.log.read_text()[-3000:]}"
            try: self.ask("status"); return True
            except OSError: return False
        wait_until(answers, "JupyterLab does not start", seconds)
        return self

    def stop_kernels(self) -> None:
        for session in self.ask("sessions"): self.ask(f"sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        self.process.terminate()
        try: self.process.wait(20)
        except subprocess.TimeoutExpired: self.process.kill(); self.process.wait()

    def notebook(self, name: str,  # such as "explore_data.ipynb"
                 **parameters: Any) -> str:  # where it is, below the root
        "A copy without outputs, with other parameters."
        nb = json.loads((CHECKOUT / "nbs" / name).read_text())
        for cell in nb["cells"]:
            if cell["cell_type"] == "code": cell |= {"outputs": [], "execution_count": None}
            if "parameters" in cell["metadata"].get("tags", ()): cell["source"] = [*cell["source"], *(f"\n{k} = {v!r}" for k, v in parameters.items())]
        (self.root / "nbs" / name).write_text(json.dumps(nb))
        return f"nbs/{name}"

    def write(self, name: str, *cells: str) -> str:
        "A notebook of these cells."
        write_notebook(self.root / "nbs" / name, *cells)
        return f"nbs/{name}"


@dataclass
class Notebook:
    "A notebook on a page of the browser."
    lab: Lab
    page: Any  # playwright's Page

    def open(self, name: str, *cells: str, seconds: float = 60, **parameters: Any) -> Notebook:
        "A notebook of the checkout, with other parameters; or a new one of these cells."
        path = self.lab.write(name, *cells) if cells else self.lab.notebook(name, **parameters)
        self.page.goto(f"http://127.0.0.1:{self.lab.port}/doc/tree/{path}?token={self.lab.token}")
        ready = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        self.page.wait_for_function(ready, timeout=1000 * seconds)
        self.theme("JupyterLab Light")
        return self

    def run_all(self, seconds: float = 90) -> Notebook:
        "Run every cell and wait until the kernel is idle; fails with what the notebook says."
        self.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells').then(ok => { window.ranAll = ok; }); }")
        self.page.wait_for_function("() => window.ranAll !== undefined", timeout=1000 * seconds)
        self.wait_idle()
        wrong = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()
        assert self.page.evaluate("() => window.ranAll"), "a cell failed: " + "\n".join(wrong)[-2000:]
        return self

    def wait_idle(self, seconds: float = 60) -> None:
        self.page.wait_for_function("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=1000 * seconds)

    def ask(self, *code: str) -> str:
        "What the notebook's kernel prints."
        return self.page.evaluate("""async code => {
          const {kernel} = jupyterapp.shell.currentWidget.sessionContext.session, run = kernel.requestExecute({code, store_history: false});
          let text = "";
          run.onIOPub = message => { text += message.content.text ?? (message.content.traceback ?? []).join("\\n"); };
          await run.done;
          return text;
        }""", "\n".join(code))

    def output(self, number: int = -1) -> Any:  # playwright's Locator
        "The output of a code cell."
        found = self.page.locator(".jp-Notebook .jp-CodeCell .jp-Cell-outputWrapper .jp-Cell-outputArea")
        return found.last if number == -1 else found.nth(number % found.count())

    def output_after(self, heading: str) -> Any:  # playwright's Locator
        "The output of the first code cell below a heading."
        area = "following::div[contains(concat(' ', @class, ' '), ' jp-Cell-outputArea ')][1]"
        return self.page.locator(f"xpath=//div[contains(@class, 'jp-MarkdownCell')]//*[self::h1 or self::h2 or self::h3][starts-with(., '{heading}')]/{area}")

    def theme(self, name: str) -> None:  # "JupyterLab Light" or "JupyterLab Dark"
        self.page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def shot(self, name: str, part: Any = None) -> Path:
        "Keep a picture of the page, or of a part of it."
        file = screenshots() / f"{name}.png"
        (part or self.page).screenshot(path=file)
        return file


# What is on the page is drawn in the next frame; two frames later it is on the canvas.
FRAMES = "const frames = async () => { for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame); };"
READ = FRAMES + """
  const read = () => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const same = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);
  let before = null, data = null;
  for (let round = 0; round < 100 && !(before && same(before, data)); round++) {
    await frames();
    [before, data] = [data, read()];
  }
  let text = "";
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
  return [canvas.height, canvas.width, btoa(text)];
"""


@dataclass
class Canvas:
    "A canvas on the page, measured in pixels of the image that it shows."
    at: Any  # playwright's Locator
    size: tuple[int, int]  # height, width of the image

    @property
    def mouse(self) -> Any: return self.at.page.mouse

    def settle(self) -> None: "Until nothing is under way; then the next frame shows it."

    def pixels(self) -> np.ndarray:  # uint8 [H, W, 4]
        "What is drawn, when it stands still."
        self.settle()
        height, width, text = self.at.evaluate(f"async canvas => {{ {READ} }}")
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)

    def wait_until(self, true: Callable[[np.ndarray], Any], seconds: float = 30) -> np.ndarray:
        "Until what is drawn is as it should be: pictures come one by one."
        found: list[np.ndarray] = []

        def right() -> Any:
            found[:] = [self.pixels()]
            return true(found[0])
        wait_until(right, "the canvas does not show what it should", seconds)
        return found[0]

    def wait_change(self, before: np.ndarray, seconds: float = 30) -> np.ndarray:
        "Until something else is drawn."
        return self.wait_until(lambda now: now.shape != before.shape or (now != before).any(), seconds)

    def on_page(self, x: float, y: float) -> tuple[float, float]:
        "Where the middle of a pixel of the image is on the page."
        self.at.scroll_into_view_if_needed()
        box = self.at.bounding_box()
        return box["x"] + (x + 0.5) * box["width"] / self.size[1], box["y"] + (y + 0.5) * box["height"] / self.size[0]

    def click(self, x: float, y: float, *keys: str) -> None:  # "Shift", "Alt"
        at, keyboard = self.on_page(x, y), self.at.page.keyboard
        for key in keys: keyboard.down(key)
        self.mouse.click(*at)
        for key in keys: keyboard.up(key)

    def drag(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self.mouse.move(*self.on_page(x0, y0))
        self.mouse.down()
        self.mouse.move(*self.on_page((x0 + x1) / 2, (y0 + y1) / 2))
        self.mouse.move(*self.on_page(x1, y1))
        self.mouse.up()


class Stage(Canvas):
    "The canvas of `MaskView` and its kin, which shows the image enlarged and moved."
    @property
    def view(self) -> tuple[float, float, float]:  # scale, x, y
        "Where the image is, as the last frame has it."
        return tuple(map(float, self.at.evaluate(f"async canvas => {{ {FRAMES} await frames(); return canvas.dataset.view || '0 0 0'; }}").split()))

    def settle(self, seconds: float = 30) -> None:
        "Until the answer to the latest prompt is drawn, where prompts go to Python."
        self.at.page.wait_for_function("e => e.dataset.request === undefined || e.dataset.request === e.dataset.answer", arg=self.at.element_handle(),
                                       timeout=1000 * seconds)

    def on_page(self, x: float, y: float) -> tuple[float, float]:
        self.at.scroll_into_view_if_needed()
        box, (scale, x0, y0) = self.at.bounding_box(), self.view
        return box["x"] + x0 + (x + 0.5) * scale, box["y"] + y0 + (y + 0.5) * scale

    def ready(self) -> Stage:
        "Wait for the first picture."
        self.at.wait_for(state="visible")
        self.at.page.wait_for_function("e => Number(e.dataset.drawn) > 0 && e.dataset.loaded", arg=self.at.element_handle())
        return self

    def colour(self, x: float, y: float, drawn: np.ndarray | None = None) -> list[int]:
        "What is drawn at a pixel of the image."
        scale, x0, y0 = self.view
        return (self.pixels() if drawn is None else drawn)[int(y0 + (y + 0.5) * scale), int(x0 + (x + 0.5) * scale), :3].tolist()

    def wait_colour(self, x: float, y: float, wanted: Any, within: int = 8) -> None:
        self.wait_until(lambda now: np.abs(np.subtract(self.colour(x, y, now), wanted)).max() <= within)


def changed(before: np.ndarray, after: np.ndarray,  # [H, W, 4]
            least: int = 40,  # of the sum over the colours, to count as another colour
            ) -> np.ndarray:  # bool [H, W]
    "Where two drawings differ."
    return np.abs(before[..., :3].astype(int) - after[..., :3]).sum(-1) >= least
