"""Notebook 09 on a small finished study: run by the engine, and read in JupyterLab as a person reads."""

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import bundled_study
import nbformat
import pandas as pd
import pytest
from browser import bring_into_view, jupyterlab, needs_browser, run_notebook, tab
from real_checkout import REPOSITORY, RealCheckout

from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, write_json
from brainmets.params.study import Study
from brainmets.paths import ScreeningPaths, StudyPaths
from brainmets.provenance import damaged, sha256
from brainmets.review import lab_extension
from brainmets.screening import reading
from brainmets.vocabulary import SEQUENCES

pytestmark = pytest.mark.slow
CASE = "next-00001-000"
EVERY_CELL_RAN = """() => {
    const panel = jupyterapp.shell.currentWidget;
    const code = panel.content.widgets.filter(cell => cell.model.type === 'code');
    return panel.sessionContext.session.kernel.status === 'idle' && code.every(cell => cell.model.executionCount);
}"""


@pytest.fixture(scope="module")
def finished(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> RealCheckout:
    """A checkout with a small finished study and a prepared case to screen."""
    checkout = RealCheckout.make(tmp_path_factory.mktemp("next") / "checkout")
    work = checkout.root / "work"
    study = bundled_study.make(small_study, work, ["segresnet"])
    files = StudyPaths(str(work), "small")
    models = [{"arm": "segresnet", "strategy": bundled_study.STRATEGY, "mean_dice": 0.8}]
    write_json(files.best_model, {"rule": "-", "sentence": "-", "models": models, "cases": []})
    checkout.write_params(study.content)
    patient = next(iter(read_manifest(files.manifest("target")).values()))
    for sequence in SEQUENCES:
        place = checkout.root / "scans" / CASE / f"{CASE}-{sequence}.nii.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(patient.images[sequence], place)
    return checkout


@pytest.fixture(scope="module")
def files(finished: RealCheckout) -> StudyPaths:
    return StudyPaths(str(finished.root / "work"), "small")


@pytest.fixture(scope="module")
def screened(finished: RealCheckout, files: StudyPaths) -> Iterator[ScreeningPaths]:
    ended = finished.run("notebook", "09", "params/small.yaml", 'scans=["scans"]')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    yield ScreeningPaths(files.screened / CASE)


def text_of(path: Path) -> str:
    cells = nbformat.read(path, 4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_the_notebook_screens_and_decides_nothing_without_a_reader(
    screened: ScreeningPaths, files: StudyPaths
) -> None:
    record, table = read_json(screened.record), pd.read_csv(screened.table)
    assert record["model"]["sha256"] == sha256(files.bundle)
    assert (record["model"]["arm"], record["model"]["strategy"]) == ("segresnet", bundled_study.STRATEGY)
    assert not screened.reading.exists()
    copy = files.runs / "09_screening.ipynb"
    n = len(table)
    assert f"{n} candidate{'s' * (n != 1)} not decided" in text_of(copy)
    written = read_json(files.screening / "screening.json")
    assert written["not_decided"] == table["lesion"].tolist() and written["read"] == CASE
    assert written["lesions"] == {CASE: int(table["accepted"].sum())}
    assert damaged(files.screening / "screening.json", files.work, {"results": files.screened}) == {}
    assert copy.stat().st_mode & 0o077 == 0, "the copy shows a head: it is the user's own"


def test_run_again_the_same_model_screens_nothing_anew(
    screened: ScreeningPaths, finished: RealCheckout, files: StudyPaths
) -> None:
    before = sha256(files.bundle), sha256(screened.record)
    ended = finished.run("notebook", "09", "params/small.yaml", 'scans=["scans"]')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (sha256(files.bundle), sha256(screened.record)) == before
    assert "1 scan(s), 0 of them to screen" in (files.runs / "09_screening.log").read_text()


def test_the_notebook_is_no_step_of_the_study(screened: ScreeningPaths, finished: RealCheckout) -> None:
    listed = finished.run("study", "params/small.yaml", "--", "--list-rules")
    assert "screening" not in listed.stdout


@pytest.mark.browser
def test_a_reader_accepts_a_candidate_in_jupyterlab(screened: ScreeningPaths, finished: RealCheckout) -> None:
    """All cells are run, the first candidate is accepted by a click; nothing leaves the machine."""
    needs_browser()
    if read_json(screened.record)["lesions"] + read_json(screened.record)["candidates"] == 0:
        pytest.fail("the small model finds nothing to read: choose another")
    lab_extension.install()
    root = finished.root
    notebook = nbformat.read(REPOSITORY / "notebooks" / "09_screening.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    values = Study(json.loads(json.dumps(bundled_study.parameters(root / "work", ["segresnet"]))), "params/small.yaml")
    given = values.values("09_screening") | {"scans": ["scans"], "viewer": "itkwidgets"}
    assert set(given) == {ast.unparse(line.targets[0]) for line in ast.parse(cell.source).body}
    cell.source = "\n".join(f"{key} = {value!r}" for key, value in given.items())
    (root / "lab" / "notebooks").mkdir(parents=True)
    (root / "lab" / "params").symlink_to(root / "params")
    (root / "lab" / "scans").symlink_to(root / "scans")
    nbformat.write(notebook, root / "lab" / "notebooks" / "09_screening.ipynb")
    with jupyterlab(root / "lab") as address, tab() as opened:
        run_notebook(opened.page, address, "notebooks/09_screening.ipynb", EVERY_CELL_RAN, seconds=300)
        bring_into_view(opened.page, "button:text-is('Accept')")
        assert not screened.reading.exists()
        opened.page.click("button:text-is('Accept')")
        opened.page.wait_for_selector("text=Accept: saved beside the result.")
        opened.page.evaluate("() => jupyterapp.serviceManager.sessions.shutdownAll()")
    assert opened.outside == []
    assert opened.errors == []
    found = reading.read(screened)
    assert [one.verdict for one in found.decisions.values()] == ["accepted"]
    assert list(found.decisions) == [found.candidates[0]]
