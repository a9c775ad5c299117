"""An executed notebook as a page for people who do not read code, with nothing of the machine it ran on.

Code is folded away by a style sheet, long tables can be searched and sorted, wide ones scroll or print on a turned
page. The page holds no script of the notebook's own and asks the network for nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from brainmets.report.tables import as_html, lay_out

WIDGET_LEFT_OUT = "(interactive view: open this notebook in JupyterLab and run the cell)"
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


@dataclass(frozen=True)
class Page:
    """A notebook's title (its first heading), its body as HTML, and whether it has a table to search and sort."""

    title: str
    body: str
    sortable: bool


def render(path: Path, redact: Callable[[str], str]) -> Page:
    """The page of one executed notebook.

    Every text passes through ``redact``. A widget, which needs a kernel, gives way to a sentence; a script to its
    output's plain text.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook, _ = CoalesceStreamsPreprocessor(enabled=True)(notebook, {})  # a path may be split between two prints
    _show_parameters(notebook)
    for cell in notebook.cells:
        cell.source = redact(cell.source)
        for output in cell.get("outputs", []):
            _clean(output, redact)
    exporter = HTMLExporter(
        template_name="basic", embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True
    )
    page = BeautifulSoup(exporter.from_notebook_node(notebook)[0], "html.parser")
    for element in page.select("script, style, link, iframe, .anchor-link"):
        element.decompose()
    for image in page("img"):
        heading = image.find_previous(["h1", "h2", "h3"])
        image["alt"] = f"Figure from the section: {heading.get_text(strip=True)}" if heading else "Figure"
    lay_out(page)
    title = page.h1.get_text(strip=True) if page.h1 else path.stem
    return Page(title, str(page), page.select_one(".long") is not None)


def _clean(output: NotebookNode, redact: Callable[[str], str]) -> None:
    if output.output_type == "stream":
        output.text = redact(output.text)
        return
    if output.output_type == "error":
        output.traceback = [redact(line) for line in output.traceback]
        output.evalue = redact(output.evalue)
        return
    data = output.data
    if _WIDGET in data:
        output.data = data = NotebookNode({"text/plain": WIDGET_LEFT_OUT})
    data.pop("application/javascript", None)
    if "<script" in data.get("text/html", "").lower():
        del data["text/html"]
    for kind, content in data.items():
        if isinstance(content, str) and kind not in _PICTURES:
            data[kind] = redact(content)


def _show_parameters(notebook: NotebookNode) -> None:
    """Give the last parameters cell a table as its output: name, value and meaning, the comment behind the default."""
    tags = {"parameters", "injected-parameters"}
    cells = [cell for cell in notebook.cells if tags & {*cell.metadata.get("tags", [])}]
    values: dict[str, str] = {}
    meanings: dict[str, str] = {}
    for cell in cells:
        lines = cell.source.splitlines()
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Assign):
                name = ast.unparse(node.targets[0])
                values[name] = ast.unparse(node.value)
                meanings.setdefault(name, lines[(node.end_lineno or 1) - 1].partition("  # ")[2])
    if values:
        table = pd.DataFrame({"Parameter": values.keys(), "Value": values.values(), "Meaning": meanings.values()})
        data = {"text/html": as_html(table, classes="parameters")}
        cells[-1].outputs = [nbformat.v4.new_output("display_data", data=data)]
