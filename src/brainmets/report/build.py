"""The report: one folder that opens from a file, with no network and nothing of the machine in it.

``reports/<study>/index.html`` holds the question, the answer written from the numbers, the result table, the figures,
the cases and the study's record; ``notebooks/`` every executed notebook as a page, its code folded; ``figures/`` the
pictures, ``tables/`` the numbers behind them and every case's scores as a page; ``viewer/`` the cases in 3D. Pages
with a case in 3D or a long table run a script, which lies in ``scripts/``; all others have none.
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import jinja2
import yaml
from bs4 import BeautifulSoup

from brainmets import provenance, tables
from brainmets.cohorts import audit
from brainmets.engine.steps import jobs, result
from brainmets.params import Cohort
from brainmets.params.study import Study
from brainmets.paths import COHORTS, StudyPaths, project_root, resolve
from brainmets.report import beside, content, detection
from brainmets.report.notebook_pages import render
from brainmets.report.redaction import Redactor, leaks
from brainmets.report.scripts import ScriptError, script
from brainmets.report.tables import as_html, lay_out
from brainmets.review.viewers import colormap
from brainmets.schemas import DESCRIPTIVE
from brainmets.schemas import read as read_by
from brainmets.statistics.tables import read_scores
from brainmets.vocabulary import LABEL_COLOURS, STRATEGY_TITLES, arm_title

QUESTION = "Does pretraining on a public brain-metastasis cohort help a small cohort of one's own, and where?"
TABLES = (
    "decision.csv",
    "descriptive.csv", "empty_references.csv", "cross_validated_descriptive.csv", "against_pretrained.csv",
    "finetune_vs_scratch.csv", "arms_pairwise.csv", "normality.csv", "power.csv", "cross_validated.csv",
    "calibration.csv", "reliability_bins.csv", "uncertainty.csv", "repeats.csv", "retrained_interval.csv",
    "learning_curve.csv", "fairness.csv", "forgetting.csv",
    detection.FOUND, detection.JUDGED, *detection.FURTHER, beside.PROCESSED, beside.BY_SUBSET,
)  # fmt: skip
REVIEW_TABLES = ("challenging.csv", "explanation.csv")
SHOWN = ("01_data_audit", "06_evaluation", "07_statistics", "08_case_review")
"""Notebooks whose tables and pictures the report shows."""
PARTS = ("notebooks", "figures", "tables", "viewer", "scripts")
PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("brainmets.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)  # fmt: skip


class ReportError(RuntimeError):
    """A report that must not be handed on; the message names the page and what it reveals."""


def build(files: StudyPaths, study: Study) -> Path:
    """Make the report of a finished study and return its ``index.html``.

    Everything is made in a folder beside the report's; the pages take their place when all are whole, the index last.
    Other files in the report's folder stay. Raises ``FileNotFoundError`` naming a step that is not done,
    ``ValueError`` where a step's files are not what it wrote or of another study, and ``ReportError`` where a page
    still holds an absolute path, or the user's or the machine's name.
    """
    partial = files.report.with_name(f".{files.report.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run left
    try:
        for part in PARTS:
            (partial / part).mkdir(parents=True)
        _write_pages(partial, files, study, _redactor(files, study))
        _refuse_leaks(partial)
        files.report.mkdir(parents=True, exist_ok=True)
        files.index.unlink(missing_ok=True)
        for part in PARTS:
            shutil.rmtree(files.report / part, ignore_errors=True)
            (partial / part).replace(files.report / part)
        return (partial / "index.html").replace(files.index)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _redactor(files: StudyPaths, study: Study) -> Redactor:
    """What keeps paths out of the pages: of cohorts with pseudonyms and of raw scans, all below their folders."""
    cohorts = {name: Cohort(**study.content[name]) for name in COHORTS}
    folders = {resolve(declaration.folder): f"({name} cohort)" for name, declaration in cohorts.items()}
    closed = [declaration.folder for declaration in cohorts.values() if declaration.pseudonyms]
    closed += [declaration.raw.folder for declaration in cohorts.values() if declaration.raw]
    folders |= {files.work: f"(work)/{files.study}", project_root(): ""}
    return Redactor(folders, {*map(resolve, closed), *map(Path, closed)})


def _write_pages(partial: Path, files: StudyPaths, study: Study, redact: Redactor) -> None:
    steps = content.steps(files, study)
    for notebook, job in jobs(study):
        if notebook in SHOWN:
            provenance.require_whole(result(files, notebook, job), files.study, files.work)
    cases, overviews, rule = content.cases(files)
    answer, conclusion, figures = content.conclusions(files)
    for picture in [*figures, *overviews, *(picture for case in cases for picture in case["pictures"])]:
        shutil.copyfile(picture.file, partial / "figures" / picture.file.name)
    copied = {name: files.statistics / name for name in TABLES} | {name: files.review / name for name in REVIEW_TABLES}
    copied |= {f"preparation_{cohort}.csv": files.preparation(cohort).quality_table for cohort in COHORTS}
    for name, table in copied.items():
        if table.is_file():
            (partial / "tables" / name).write_text(redact(table.read_text(encoding="utf-8")), encoding="utf-8")
    without_3d = _write_script(partial, "Niivue")
    without_sorting = _write_script(partial, "DataTable", PAGES.get_template("tables.js").render())
    titles = _write_notebooks(partial / "notebooks", steps, study, redact, not without_sorting)
    _write_cases(partial / "tables", files, study, redact, not without_sorting)
    if not without_3d:
        _write_viewers(partial / "viewer", files, study, cases)
    found = detection.detection(files)
    regions, rows, remarks = content.result_table(read_by(files.statistics / "descriptive.csv", DESCRIPTIVE))
    html = _page(
        study, "index.html.j2",
        question=QUESTION,
        phantoms=all(study.content[name].get("phantoms") for name in ("source", "target")),
        verdict=content.verdict(files), answer=answer, conclusion=conclusion,
        regions=regions, metrics=[title for title, *_ in content.METRICS.values()], rows=rows,
        level=content.level(steps), notes=[*audit.left_out(files), *remarks],
        figures=[one for one in figures if one.file.name not in (detection.FIGURE, beside.FIGURE)],
        detection=found, measures=list(detection.MEASURES.values()),
        curves=[one for one in figures if one.file.name == detection.FIGURE],
        facts=beside.sequence_facts(files, study), arms=beside.arm_words(study.arms),
        processed=beside.post_processing(files), by_subset=beside.sequence_subsets(files),
        by_subset_figures=[one for one in figures if one.file.name == beside.FIGURE],
        cases=cases, overviews=overviews, rule=rule, best_model=content.best_model(files),
        without_3d=without_3d, without_sorting=without_sorting,
        tables=sorted(path.name for path in (partial / "tables").glob("*.csv")),
        steps=[(step, titles.get(step.name), content.duration(step.record["seconds"])) for step in steps],
        total=content.duration(sum(step.record["seconds"] for step in steps)),
        devices=sorted({step.record["device"] for step in steps}),
        commits=sorted({step.record["commit"] for step in steps}),
        versions=content.versions(steps),
        parameters=yaml.safe_dump(study.content, sort_keys=False, allow_unicode=True, width=100),
        weight=in_mb(partial),
    )  # fmt: skip
    (partial / "index.html").write_text(redact(html), encoding="utf-8")


def _page(study: Study, template: str, **values: Any) -> str:
    return PAGES.get_template(template).render(study=study.content["study"], **values)


def _write_script(partial: Path, name: str, more: str = "") -> str:
    """Write ``scripts/<name>.js``; gives why that cannot be done, or an empty text."""
    try:
        (partial / "scripts" / f"{name.lower()}.js").write_text(script(name) + more, encoding="utf-8")
    except ScriptError as error:
        return str(error)
    return ""


def _write_notebooks(
    folder: Path, steps: list[content.Step], study: Study, redact: Redactor, sorting: bool
) -> dict[str, str]:
    """A page per executed notebook, each with links to its neighbours; gives their titles."""
    titles = {}
    run = [step for step in steps if step.executed is not None]
    for before, step, after in zip([None, *run], run, [*run[1:], None], strict=False):
        assert step.executed is not None
        page = render(step.executed, redact)
        html = _page(study, "notebook.html.j2", page=page, step=step, before=before, after=after, sorting=sorting)
        (folder / f"{step.name}.html").write_text(html, encoding="utf-8")
        titles[step.name] = page.title
    return titles


def _write_cases(folder: Path, files: StudyPaths, study: Study, redact: Redactor, sorting: bool) -> None:
    """Every held-out case's scores, as a table to open elsewhere and as a page to search and sort."""
    given = study.values("07_statistics").get("scores_dir")
    table = content.case_table(read_scores(resolve(given) if given else files.evaluations))
    (folder / "cases.csv").write_text(redact(tables.text(table)), encoding="utf-8")
    titles = {"case": "Case", "arm": "Arm", "strategy": "Training", "region": "Region"}
    titles |= {name: title for name, (title, _) in content.CASE_METRICS.items()}
    formats = {title: f"{{:.{digits}f}}".format for title, digits in content.CASE_METRICS.values()}
    table = table.assign(arm=table["arm"].map(arm_title), strategy=table["strategy"].map(STRATEGY_TITLES))
    page = BeautifulSoup(as_html(table.rename(columns=titles), formatters=formats), "html.parser")
    lay_out(page)
    html = _page(study, "cases.html.j2", table=str(page), sorting=sorting)
    (folder / "cases.html").write_text(redact(html), encoding="utf-8")


def _write_viewers(folder: Path, files: StudyPaths, study: Study, cases: list[dict[str, Any]]) -> None:
    """A 3D page per case; each carries its own volumes."""
    for case in cases:
        volumes = case["volumes"]
        image, *labels = (
            base64.b64encode((files.review / name).read_bytes()).decode("ascii")
            for name in (volumes["image"], *(entry["file"] for entry in volumes["labels"]))
        )
        html = _page(
            study, "viewer.html.j2", case=case, volumes=volumes, image=image, labels=labels, colours=LABEL_COLOURS,
            colormap=colormap(),
        )  # fmt: skip
        (folder / f"{case['name']}.html").write_text(html, encoding="utf-8")


def _refuse_leaks(folder: Path) -> None:
    for page in sorted(path for path in folder.rglob("*") if path.suffix in (".html", ".csv")):
        if found := leaks(page.read_text(encoding="utf-8")):
            raise ReportError(
                f"{page.relative_to(folder)} reveals {', '.join(found[:5])}: a report may hold no absolute path and "
                "no user or machine name; take it out of the notebook that prints it"
            )


def in_mb(folder: Path) -> str:
    """The size of all files in a folder, such as "9.3 MB"."""
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB"
