"""The nine notebooks opened in JupyterLab, one after the other, and run from top to bottom as by hand."""

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import jupyterlab, needs_browser, run_notebook, tab
from real_checkout import profile

from brainmets.engine.steps import result
from brainmets.files import read_json
from brainmets.params import PER_JOB
from brainmets.params.study import Study
from brainmets.paths import NOTEBOOKS, StudyPaths
from brainmets.review import lab_extension

ROOT = Path(__file__).resolve().parents[2]
EVERY_CELL_RAN = """() => {
    const panel = jupyterapp.shell.currentWidget;
    const code = panel.content.widgets.filter(cell => cell.model.type === 'code');
    return panel.sessionContext.session.kernel.status === 'idle' && code.every(cell => cell.model.executionCount);
}"""


def parameters_of(cell: nbformat.NotebookNode) -> dict[str, Any]:
    """Names and values of a parameters cell."""
    return {ast.unparse(line.targets[0]): ast.literal_eval(line.value) for line in ast.parse(cell.source).body}


@pytest.mark.slow
@pytest.mark.browser
def test_each_notebook_runs_in_jupyterlab_after_those_before_it(tmp_path: Path) -> None:
    needs_browser()
    lab_extension.install()
    content = {**profile("smoke"), "folds": [0]}  # by hand a reader trains one fold of one arm
    content["case_review"] |= {"viewer": "itkwidgets"}
    study = Study(content, "smoke")
    (tmp_path / "params").mkdir()
    (tmp_path / "notebooks").mkdir()
    jobs = {}
    for name in NOTEBOOKS:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        jobs[name] = {key: value for key, value in parameters_of(cell).items() if key in PER_JOB}
        cell.source = "\n".join(f"{key} = {value!r}" for key, value in study.values(name, **jobs[name]).items())
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    files = StudyPaths(str(tmp_path / "work"), "smoke")
    with jupyterlab(tmp_path) as address, tab() as opened:
        for name in NOTEBOOKS:
            run_notebook(opened.page, address, f"notebooks/{name}.ipynb", EVERY_CELL_RAN, seconds=300)
            written = read_json(result(files, name, jobs[name]))
            assert written["provenance"]["notebook"] == name
            opened.page.evaluate("() => jupyterapp.serviceManager.sessions.shutdownAll()")
    assert opened.outside == []
    assert opened.errors == []
