"""No source makes HTML, Markdown or JavaScript from values but `sam_nb.markup`: every notebook, module, script and style is searched."""
from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOOR = {"Markup", "markup", "table", "text", "joined", "inline_image", "figure_html"}  # calls that give Markup
OWN_FILES = {("sam_nb/view/assets.py", "Markdown")}  # shows a function of this package's own scripts
TAGS = re.compile(r"</?(a|b|body|br|button|caption|code|details|div|em|h[1-6]|head|html|i|iframe|img|input|li|link|meta|ol|p|pre|progress|script|small|"
                  r"source|span|strong|style|sub|summary|sup|svg|table|tbody|td|textarea|th|thead|title|tr|u|ul|video)(\s[^<>]*)?/?>")
RICH = {"HTML", "Markdown", "SVG", "Javascript", "Latex", "Math", "display_html", "display_markdown", "display_svg", "display_javascript", "HTMLMath"}
REPRESENTATIONS = {"_repr_html_", "_repr_markdown_", "_repr_svg_", "_repr_javascript_", "_repr_latex_", "static_html"}
RICH_TYPES = {"text/html", "text/markdown", "text/latex", "image/svg+xml", "application/javascript"}
WORDS = {"to_html": "pandas' HTML", "style": "pandas' Styler, which escapes nothing", "Styler": "pandas' Styler, which escapes nothing",
         "set_caption": "pandas' Styler, which escapes nothing", "description_allow_html": "HTML in the name of a widget", "tooltip_allow_html": "HTML in a widget"}
SCRIPTS = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTML|srcdoc|javascript:|"
                     r"\beval\s*\(|new Function|set(?:Timeout|Interval)\s*\(\s*[\"'`]")


def name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def name_of(call: ast.AST) -> str: return name(call.func) if isinstance(call, ast.Call) else ""  # the called function


class Source:
    "The parsed text of a module or of a cell."
    def __init__(self, text: str):
        self.tree = ast.parse(text)
        self.nodes = list(ast.walk(self.tree))
        self.parent = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.doors = DOOR | {node.name for node in self.nodes if isinstance(node, ast.FunctionDef) and name(node.returns) == "Markup"} | {
            alias.asname for node in self.nodes if isinstance(node, ast.ImportFrom) for alias in node.names if alias.name in DOOR and alias.asname}
        self.constants = {t.id for node in self.tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
                          for t in node.targets if isinstance(t, ast.Name)}  # written out, at the top level
        self.templates = {node.args[0].id for node in self.nodes if name_of(node) == "markup" and node.args and isinstance(node.args[0], ast.Name)}
        self.given = {t.id for node in self.nodes if isinstance(node, ast.Assign) and name_of(node.value) in self.doors
                      for t in node.targets if isinstance(t, ast.Name)}  # variables that hold Markup
        self.widgets = {t.attr if isinstance(t, ast.Attribute) else t.id for node in self.nodes if isinstance(node, ast.Assign)
                        for t, v in pairs(node) if name_of(v) == "HTML" and isinstance(t, (ast.Attribute, ast.Name))}

    def is_markup(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Call) and name_of(node) == "str" and len(node.args) == 1: return self.is_markup(node.args[0])
        if isinstance(node, ast.Call) and name_of(node) == "_repr_html_": return self.is_markup(node.func.value)
        if isinstance(node, ast.IfExp): return self.is_markup(node.body) and self.is_markup(node.orelse)
        if isinstance(node, ast.BoolOp): return all(map(self.is_markup, node.values))
        return name_of(node) in self.doors or isinstance(node, ast.Name) and node.id in self.given or isinstance(node, ast.Constant) and not TAGS.search(str(node.value))

    def found(self, everything: bool) -> Iterator[tuple[int, str]]:  # line, what is wrong; not everything: a cell alone, perhaps a test
        for node in self.nodes:
            if everything: yield from self.of_string(node)
            yield from self.of_call(node, everything)
            if everything: yield from self.of_function(node)
            yield from self.of_output(node)
            word = node.attr if isinstance(node, ast.Attribute) else node.arg if isinstance(node, ast.keyword) else node.id if isinstance(node, ast.Name) else ""
            if word in WORDS and not (word == "style" and not isinstance(node, ast.Attribute)): yield node.lineno, WORDS[word]

    def of_string(self, node: ast.AST) -> Iterator[tuple[int, str]]:
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and TAGS.search(node.value)): return
        above = self.parent[node]
        if isinstance(above, ast.Expr) or name_of(above) in ("markup", "Markup") and above.args[:1] == [node]: return  # a docstring, a template
        if isinstance(above, ast.Assign) and {t.id for t in above.targets if isinstance(t, ast.Name)} <= self.constants & self.templates: return
        yield node.lineno, "a string with HTML outside of markup(...)"

    def of_call(self, node: ast.AST, everything: bool) -> Iterator[tuple[int, str]]:
        if not isinstance(node, ast.Call): return
        called, first = name_of(node), next(iter(node.args), None)
        if called == "Markup" and first is not None and not isinstance(first, ast.Constant): yield node.lineno, "Markup(...) of a value"
        if called == "markup" and everything and not (isinstance(first, ast.Constant) or isinstance(first, ast.Name) and first.id in self.constants):
            yield node.lineno, "a template that is not written out"
        if called in RICH and (node.args or node.keywords) and not all(map(self.is_markup, [*node.args, *(k.value for k in node.keywords)])):
            yield node.lineno, f"{called}(...) of a value"

    def of_function(self, node: ast.AST) -> Iterator[tuple[int, str]]:
        if not isinstance(node, ast.FunctionDef) or node.name not in REPRESENTATIONS and name(node.returns) != "Markup": return
        for given in ast.walk(node):
            if isinstance(given, ast.Return) and not self.is_markup(given.value): yield given.lineno, f"{node.name} gives what markup did not make"

    def of_output(self, node: ast.AST) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.Dict):
            rich = [v for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant) and k.value in RICH_TYPES]
            if not all(map(self.is_markup, rich)): yield node.lineno, "an output that markup did not make"
        if isinstance(node, ast.Assign): yield from self.of_widget(node)

    def of_widget(self, node: ast.Assign) -> Iterator[tuple[int, str]]:
        for t, v in pairs(node):
            if not (isinstance(t, ast.Attribute) and t.attr == "value"): continue
            shown = t.value.attr if isinstance(t.value, ast.Attribute) else getattr(t.value, "id", "")
            if shown in self.widgets and not self.is_markup(v): yield node.lineno, "the value of an HTML widget"


def pairs(node: ast.Assign) -> list[tuple[ast.AST, ast.AST]]:  # target, value
    target, value = node.targets[0], node.value
    both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)
    return list(zip(target.elts, value.elts, strict=True)) if both else [(target, value)]


def cells(notebook: Path) -> Iterator[str]:  # Python, without magics
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code": yield re.sub(r"^\s*[%!].*$", "pass", "".join(cell["source"]), flags=re.MULTILINE)


def wrong(text: str, everything: bool = True) -> list[str]: return [what for _, what in Source(text).found(everything)]


@pytest.mark.parametrize("text", [
    'f"<td>{name}</td>"', '"<b>" + name + "</b>"', '"<p>{}</p>".format(name)', '"<p>%s</p>" % name', 'rows = "".join("<tr>" + r for r in rows)',
    'markup(f"<b>{name}</b>")', 'markup("<b>" + name)', 'markup(template)', 'T = "<b>{x}</b>"\nshow(T)', 'Markup(name)', 'Markup(f"{name}")',
    'HTML(name)', 'display(HTML(f"{name}"))', 'Markdown(f"**{name}**")', 'Markdown(name)', 'Latex(name)', 'frame.to_html()', 'frame.style.hide()',
    'table.set_caption(name)', 'Button(description=name, description_allow_html=True)', '{"text/html": name}', '{"text/markdown": f"{name}"}',
    'class A:\n    def _repr_html_(self): return self.name', 'class A:\n    def static_html(self): return f"{self.name}"', 'def f() -> Markup: return name',
    'self.status = widgets.HTML()\nself.status.value = name', 'a, self.b = 1, HTML()\nself.b.value = str(error)',
])
def test_html_made_elsewhere_is_found(text):
    assert wrong(text)


@pytest.mark.parametrize("text", [
    'markup("<b>{name}</b>", name=name)', 'T = "<b>{x}</b>"\nmarkup(T, x=1)', 'def f():\n    "Gives <b>."', 'raise ValueError("<name> or <picture>")', '{"text/html": str(table(rows))}',
    'stored = markup("<p>{x}</p>", x=1)\n{"text/html": str(stored), "text/plain": name}', 'self.status = widgets.HTML()\nself.status.value = text(name)',
    'class A:\n    def _repr_html_(self): return table(self.rows)', 'def f() -> Markup: return markup("<b>{x}</b>", x=1) if x else Markup()\ndef static_html(): return f() or Markup("")', 'HTML()', 'x.layout.display = "none"', 'Markup()', 'Button(style="x")',
])
def test_html_of_the_door_is_not(text):
    assert not wrong(text)


def test_modules_make_no_html_of_their_own():
    files = [f for f in sorted((ROOT / "sam_nb").rglob("*.py")) if f.name not in ("_modidx.py", "markup.py")]
    assert len(files) > 150
    found = [(str(f.relative_to(ROOT)), line, what) for f in files for line, what in Source(f.read_text()).found(True)]
    assert [(f, line, what) for f, line, what in found if (f, what.partition("(")[0]) not in OWN_FILES] == []


def test_cells_make_no_html_of_their_own():
    notebooks = [f for f in sorted((ROOT / "nbs").rglob("*.ipynb")) if f.stem != "05_markup" and ".ipynb_checkpoints" not in f.parts]
    assert len(notebooks) > 150
    found = [(f.name, text.splitlines()[line - 1], what) for f in notebooks for text in cells(f) for line, what in Source(text).found(False)]
    assert [(f, line, what) for f, line, what in found if not (f == "71_view.assets.ipynb" and what.startswith("Markdown"))] == []


def test_scripts_set_text_never_html():
    files = [f for f in sorted((ROOT / "sam_nb").rglob("*")) if f.suffix in (".js", ".mjs", ".ts", ".html", ".htm", ".css", ".svg")]
    assert len([f for f in files if f.suffix == ".js"]) > 10
    assert [(f.name, n, line.strip()) for f in files for n, line in enumerate(f.read_text().splitlines(), 1) if SCRIPTS.search(line)] == []
    assert [f.name for f in files if f.suffix not in (".js", ".css")] == []  # pages are made by markup.page


@pytest.mark.parametrize("line", ["e.innerHTML = name", "e.insertAdjacentHTML('beforeend', name)", "document.write(name)", "eval(name)", "new Function(name)",
                                  "setTimeout('go()', 1)", "a.href = `javascript:${name}`", "frame.srcdoc = name"])
def test_html_in_a_script_is_found(line):
    assert SCRIPTS.search(line)
