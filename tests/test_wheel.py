"An installed wheel has the JavaScript and CSS of the widgets."
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from .command import CHECKOUT

# What the widgets send to the page, by name; and where they were imported from.
REPORT = """
import json, sam_nb
from sam_nb.view.data_browser import SampleView, ThumbnailGrid
from sam_nb.view.everything_view import EverythingView
from sam_nb.view.mask_view import MaskView
from sam_nb.view.prompt_view import PromptView
from sam_nb.view.run_browser import RunBrowser, save_report
from sam_nb.view.sentence_view import ClickCanvas
widgets = [MaskView, PromptView, EverythingView, SampleView, ThumbnailGrid, RunBrowser, ClickCanvas]
print(json.dumps({"file": sam_nb.__file__, **{w.__name__: [str(w._esm), str(getattr(w, "_css", ""))] for w in widgets}}))
"""


def do(*words: str, **options) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "A folder with the installed package, from a wheel that is built of a copy: the checkout stays as it is."
    root = tmp_path_factory.mktemp("wheel")
    shutil.copytree(CHECKOUT / "sam_nb", root / "source/sam_nb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "MANIFEST.in"):
        if (CHECKOUT / name).is_file(): shutil.copy(CHECKOUT / name, root / "source")
    quiet = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    do("-m", "pip", "wheel", *quiet, "--no-build-isolation", "--wheel-dir", str(root), str(root / "source"))
    do("-m", "pip", "install", *quiet, "--target", str(root / "site"), str(next(root.glob("*.whl"))))
    return root / "site"


def test_every_asset_is_installed(installed):
    names = {f.name for f in (CHECKOUT / "sam_nb/view").iterdir() if f.suffix in (".js", ".css", ".html")}
    assert names and names == {f.name for f in (installed / "sam_nb/view").iterdir() if f.suffix in (".js", ".css", ".html")}


def test_widgets_of_the_wheel_have_their_pages(installed, tmp_path):
    said = json.loads(do("-c", REPORT, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}))
    assert said.pop("file").startswith(str(installed))
    for name, (script, style) in said.items():
        assert "export default {render" in script and (style or name == "ClickCanvas"), name
