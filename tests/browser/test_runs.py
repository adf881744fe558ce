"The browser of runs and its report, in JupyterLab and in a page by itself."
from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from sam_nb import show
from sam_nb.recipe import Recipe
from sam_nb.training.runs import Run
from sam_nb.view.run_browser import SCRIPT, STYLE, run_picture, run_records, save_report

from .lab import expect, screenshots

THEMES = {"light": "", "dark": "--jp-ui-font-color1: #e0e0e0; --jp-ui-font-color2: #aaa; --jp-layout-color1: #111; --jp-layout-color2: #212121; "
          "--jp-border-color2: #424242; --jp-brand-color1: #64b5f6;"}


def small_run(root: Path, name: str, lr: float, steps: int = 300) -> Run:
    run = Run.create("sartm", Recipe(dataset="fmb", lr=lr, epochs=2, run_name=name), root)
    run.start()
    rows = [{"step": k, "epoch": 1, "lr": lr, "loss": 2 / k ** (0.2 + 20 * lr) + 0.1 * (k * 7 % 5) / 5, "loss_aux": 1 / k, "images_per_second": 40.0} for k in range(1, steps + 1)]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for k in range(50, steps + 1, 50): run.log(k, val_miou=40 + 1000 * lr + k / 30)
    scores = {"miou": 50 + 1000 * lr, "iou": [80.0, 40 + 2000 * lr, 30 - 1000 * lr, 55.0]}
    run.finish(scores, score={"name": "miou", "value": scores["miou"], "step": steps}, steps=steps)
    (run.folder / "model").mkdir()
    (run.folder / "model" / "config.json").write_text(json.dumps({"classes": ["road", "car", "person", "sky"]}))
    figure = show.picture(5, 2)
    figure.subplots().plot([1, 2, 0], label=name)
    show.save_figure(figure, run.folder / "figures" / "before_after.png")
    return run


def make_runs(root: Path) -> Path:
    small_run(root, "slow", 1e-3)
    small_run(root, "fast", 1e-2)
    broken = Run.create("rsam", Recipe(run_name="broken"), root)
    broken.start()
    broken.fail(ValueError("the loss of step 8 is not a number <b>"))
    (root / "torn").mkdir()
    (root / "torn" / "run.json").write_text('{"method": "sar')
    os.utime(root / "torn" / "run.json", (1e9, 1e9))
    return root


@contextlib.contextmanager
def a_page(browser, path: Path, width: int = 1100, **options):
    "An open page; what it complained about, and what it asked the network for, must be nothing."
    page, wrong, asked = browser.new_page(viewport={"width": width, "height": 900}, **options), [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(8000)
    page.goto(path.as_uri())
    yield page
    page.close()
    assert not wrong, wrong
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))], asked


def stub_page(root: Path, theme: str, chosen: list[str]) -> str:
    "The widget's own script with a model that answers as the kernel would."
    records = run_records(root)
    pictures = {f"{r['name']}/{f}": base64.b64encode(run_picture(root / r["name"], f)).decode() for r in records for f in r["figures"]}
    return f"""<!doctype html><meta charset="utf-8"><style>:root {{{THEMES[theme]}}} body {{background: {'#111' if theme == 'dark' else 'white'}}}
{STYLE}</style><div id="here"></div><div data-samnb="fallback-1">plain table</div><script type="module">{SCRIPT}
const data = {json.dumps({"records": records, "chosen": chosen, "fallback": "fallback-1"}).replace("<", chr(92) + "u003c")}, bytes_of = {json.dumps(pictures)}, heard = {{}};
const model = window.model = {{
  get: name => data[name], save_changes() {{}}, off() {{}}, sent: [],
  set(name, value) {{ data[name] = value; (heard["change:" + name] ?? []).forEach(f => f()); }},
  on(name, f) {{ (heard[name] ??= []).push(f); }},
  tell(message, buffers) {{ heard["msg:custom"].forEach(f => f(message, buffers)); }},
  send(message) {{
    model.sent.push(message);
    if (message.ask === "refresh") {{ model.set("records", data.records.slice(1)); model.tell({{about: "refreshed", said: "read again"}}); }}
    if (message.ask === "picture") {{
      const bytes = Uint8Array.from(atob(bytes_of[message.run + "/" + message.file]), c => c.charCodeAt(0));
      setTimeout(() => model.tell({{about: "picture", ...{{run: message.run, file: message.file}}}}, [new DataView(bytes.buffer)]), 20);
    }}
  }}
}};
window.close_it = render({{model, el: document.getElementById("here")}});
</script>"""


def keep(page, name: str) -> None: page.screenshot(path=screenshots() / f"{name}.png", full_page=True)


@pytest.mark.parametrize("theme", THEMES)
def test_the_browser(browser, tmp_path, theme):
    (tmp_path / "page.html").write_text(stub_page(make_runs(tmp_path / "runs"), theme, []))
    with a_page(browser, tmp_path / "page.html") as page:
        first = page.locator(".scroll").first
        assert first.locator("tbody tr").count() == 4 and page.locator("path.curve").count() == 0
        assert not page.get_by_text("plain table").is_visible()
        page.get_by_role("button", name="score").click()
        assert first.locator("tbody tr td:nth-child(2)").all_inner_texts()[:2] == ["fast", "slow"]
        page.get_by_role("button", name="score").click()
        assert first.locator("tbody tr td:nth-child(2)").all_inner_texts()[:2] == ["slow", "fast"]
        page.get_by_label("filter by text").fill("lr=0.01")
        assert first.locator("tbody tr td:nth-child(2)").all_inner_texts() == ["fast"]
        page.get_by_label("filter by text").fill("")
        page.get_by_label("only this state").select_option("damaged")
        assert first.locator("tbody tr td:nth-child(2)").all_inner_texts() == ["torn"]
        page.get_by_label("only this state").select_option("")
        for name in ("slow", "fast", "broken", "torn"): page.get_by_label(f"compare {name}").check()
        assert page.evaluate("model.get('chosen')") == ["slow", "fast", "broken", "torn"]
        charts = page.locator("svg.chart").filter(visible=True)
        assert charts.count() == 2 and charts.first.locator("path.curve").count() == 2
        assert len(charts.first.locator("path.curve").first.get_attribute("d")) > 500
        before = charts.first.locator("path.curve").first.get_attribute("d")
        page.get_by_label("log scale").check()
        assert charts.first.locator("path.curve").first.get_attribute("d") != before
        assert page.evaluate("document.activeElement.dataset.keep") == "log"
        charts.first.focus()
        page.keyboard.press("Home")
        assert page.locator(".readout").first.inner_text().startswith("step 2")  # the middle of the first stretch
        charts.first.hover(position={"x": 200, "y": 60})
        assert "step" in page.locator(".readout").first.inner_text()
        table = page.locator("table.differences").inner_text()
        assert "lr" in table and "0.001" in table and "0.01" in table and "seed" not in table
        assert page.locator("table.classes tbody th").all_inner_texts() == ["car", "road", "sky", "person"]
        page.get_by_label("one run").select_option("fast")
        page.get_by_label("the other run").select_option("slow")
        assert page.locator("table.classes tbody th").first.inner_text() == "person"
        page.wait_for_function("[...document.querySelectorAll('.side img')].filter(i => i.complete && i.naturalWidth > 100).length === 2")
        assert "the loss of step 8 is not a number <b>" in page.locator("pre").first.inner_text()
        page.mouse.move(0, 0)
        keep(page, f"browser-{theme}")
        assert page.evaluate("model.sent.filter(m => m.ask === 'picture').length") == 2  # each once
        page.get_by_role("button", name="refresh").click()
        page.get_by_text("read again").wait_for()
        assert first.locator("tbody tr").count() == 3 and page.evaluate("close_it(), true")
        assert page.get_by_text("plain table").is_visible()


def test_no_runs(browser, tmp_path):
    (tmp_path / "page.html").write_text(stub_page(tmp_path / "runs", "light", []))
    with a_page(browser, tmp_path / "page.html") as page:
        assert page.get_by_text("there are no runs yet").is_visible()


@pytest.mark.parametrize("theme", THEMES)
def test_the_report(browser, tmp_path, theme):
    report = save_report(["slow", "fast", "broken", "torn"], tmp_path / "report.html", make_runs(tmp_path / "runs"))
    shutil.rmtree(tmp_path / "runs")  # it needs nothing of them
    with a_page(browser, report, color_scheme=theme) as page:
        assert page.locator("svg.chart").filter(visible=True).first.locator("path.curve").count() == 2
        page.wait_for_function("[...document.querySelectorAll('.side img')].filter(i => i.complete && i.naturalWidth > 100).length === 2")
        assert "torch" in page.locator(".static").first.inner_text()
        assert page.get_by_label("filter by text").count() == 0
        keep(page, f"report-{theme}")
        page.get_by_label("compare broken").uncheck()
        assert "broken" not in page.locator(".below").inner_text()


def test_a_narrow_page_does_not_overflow(browser, tmp_path):
    (tmp_path / "page.html").write_text(stub_page(make_runs(tmp_path / "runs"), "light", ["slow", "fast"]))
    with a_page(browser, tmp_path / "page.html", width=480) as page:
        page.locator("svg.chart").first.wait_for()
        keep(page, "browser-narrow")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_in_jupyterlab(notebook):
    root = make_runs(notebook.lab.root / "made")
    notebook.open("explore_runs.ipynb", root=str(root), names="slow fast").run_all(120)
    shown, page = notebook.output_after("The browser"), notebook.page
    rows = shown.locator(".scroll").first.locator("tbody tr")
    expect(rows).to_have_count(4)
    curves = shown.locator("svg.chart").filter(visible=True).first.locator("path.curve")
    expect(curves).to_have_count(2)
    shown.get_by_label("compare fast").uncheck()
    expect(curves).to_have_count(1)
    shown.get_by_label("compare fast").check()
    notebook.shot("runs_lab", shown)
    small_run(root, "new", 5e-3)
    shown.get_by_role("button", name="refresh").click()
    expect(rows).to_have_count(5)
    assert (root / "report.html").stat().st_size > 20_000
    assert not page.wrong
