"""An executed notebook as a plain page: no script, no network, nothing of the machine it ran on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode

_WIDGET = "application/vnd.jupyter.widget-view+json"
_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
WIDGET_LEFT_OUT = "(interactive view: open this notebook in JupyterLab and run the cell)"
PICTURE_WITHHELD = "(picture left out: it may show the case's name, which this report replaces)"


@dataclass(frozen=True)
class Page:
    """A notebook's title (its first heading) and its body as HTML."""

    title: str
    body: str


def render(path: Path, redact: Callable[[str], str], *, withhold_pictures: bool = False) -> Page:
    """The page of one executed notebook.

    Every text passes through ``redact``. A widget, which needs a kernel, gives way to a sentence; a script to its
    output's plain text. ``withhold_pictures`` replaces pictures by a sentence: a name drawn into one cannot be
    redacted.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.source = redact(cell.source)
        cell.outputs = [_clean(output, redact, withhold_pictures) for output in _joined(cell.get("outputs", []))]
        if cell.cell_type != "code":
            del cell["outputs"]
    exporter = HTMLExporter(
        template_name="basic", embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True
    )
    for option in ("require_js_url", "mathjax_url", "widget_renderer_url", "jquery_url", "mermaid_js_url"):
        setattr(exporter, option, "")
    body, _ = exporter.from_notebook_node(notebook)
    title = _title(notebook) or path.stem
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL)
    body = body.replace(
        "No description has been provided for this image", f"Figure from the notebook: {_attribute(title)}"
    )
    return Page(title=title, body=body)


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with the pieces of one printed stream in one."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _clean(output: NotebookNode, redact: Callable[[str], str], withhold_pictures: bool) -> NotebookNode:
    if output.output_type == "stream":
        output.text = redact(_last_state(output.text))
    elif output.output_type == "error":
        output.traceback = [redact(line) for line in output.traceback]
        output.evalue = redact(output.evalue)
    else:
        data = output.data
        if _WIDGET in data:
            output.data = data = NotebookNode({"text/plain": WIDGET_LEFT_OUT})
        data.pop("application/javascript", None)
        if "<script" in data.get("text/html", "").lower():
            del data["text/html"]
        if withhold_pictures and any(kind in data for kind in _PICTURES):
            output.data = data = NotebookNode({"text/plain": PICTURE_WITHHELD})
        for kind, content in data.items():
            if isinstance(content, str) and kind not in _PICTURES:
                data[kind] = redact(content)
    return output


def _last_state(text: str) -> str:
    """A terminal's view of a progress line: what a carriage return has overwritten is gone."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))


def _title(notebook: NotebookNode) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.search(r"^# +(.+)$", cell.source, re.MULTILINE)
            if found:
                return found.group(1).strip()
    return ""


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
