"""The report: one folder that opens from a file, with no network, no script and nothing of the machine in it.

``reports/<study>/index.html`` holds the question, the answer written from the numbers, the result table, the figures,
the cases and the study's record; ``notebooks/`` every executed notebook as a page; ``figures/`` the pictures and
``tables/`` the numbers behind them; ``viewer/`` the cases in 3D, the only pages with a script.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from brainmets.params.study import Study
from brainmets.paths import StudyPaths, project_root, resolve
from brainmets.report import content
from brainmets.report.notebook_pages import render
from brainmets.report.redaction import Redactor, leaks
from brainmets.report.viewer_pages import SCRIPT, ViewerError, encoded, script
from brainmets.review.viewers import colormap
from brainmets.vocabulary import LABEL_COLOURS

QUESTION = "Does pretraining on a public brain-metastasis cohort help a small cohort of one's own, and where?"
TABLES = ("descriptive.csv", "finetune_vs_scratch.csv", "arms_pairwise.csv", "normality.csv", "power.csv")
PARTS = ("notebooks", "figures", "tables", "viewer")


class ReportError(RuntimeError):
    """A report that must not be handed on; the message names the page and what it tells."""


def build(files: StudyPaths, study: Study) -> Path:
    """Make the report of a finished study and return its ``index.html``.

    Everything is made in a folder beside the report's; the pages take their place when all are whole, the index
    last. Raises ``FileNotFoundError`` naming a step that is not done, and ``ReportError`` where a page still holds an
    absolute path, the user's or the machine's name, or, with pseudonyms, a case's name.
    """
    aside = files.report.with_name(f".{files.report.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # what an interrupted run left
    try:
        for part in PARTS:
            (aside / part).mkdir(parents=True)
        names = content.pseudonyms(files)
        redact = Redactor(_folders(files, study), names)
        _write_pages(aside, files, study, redact, bool(names))
        _refuse_leaks(aside, names)
        return _take_place(aside, files)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_pages(aside: Path, files: StudyPaths, study: Study, redact: Redactor, pseudonymous: bool) -> None:
    pages = _environment()
    steps = content.steps(files, study)
    listed = []
    for step in steps:
        title = ""
        if step.executed is not None:
            page = render(step.executed, redact, withhold_pictures=pseudonymous and not step.name.startswith("08"))
            html = pages.get_template("notebook.html.j2").render(page=page, step=step, study=study.content["study"])
            (aside / "notebooks" / f"{step.name}.html").write_text(html, encoding="utf-8")
            title = page.title
        listed.append({"step": step, "title": title, "time": content.duration(step.seconds)})
    answer, conclusion = content.answer(files)
    descriptive = pd.read_csv(files.statistics / "descriptive.csv")
    regions, rows, notes = content.result_table(descriptive)
    cases, overviews, rule = content.cases(files)
    figures = content.figures(files)
    for picture in [*figures, *overviews, *(picture for case in cases for picture in case.pictures)]:
        shutil.copyfile(picture.file, aside / "figures" / picture.file.name)
    tables = [files.statistics / name for name in TABLES] + [
        files.review / name for name in ("challenging.csv", "explanation.csv")
    ]
    for table in (table for table in tables if table.is_file()):
        (aside / "tables" / table.name).write_text(redact(table.read_text(encoding="utf-8")), encoding="utf-8")
    without_3d = _write_viewers(aside / "viewer", files, study, cases, pages)
    html = pages.get_template("index.html.j2").render(
        question=QUESTION,
        study=study.content["study"],
        phantoms=_phantoms(study),
        answer=answer,
        conclusion=conclusion,
        regions=regions,
        metrics=[title for title, *_ in content.METRICS.values()],
        rows=rows,
        notes=notes,
        figures=figures,
        cases=cases,
        without_3d=without_3d,
        overviews=overviews,
        rule=rule,
        tables=sorted(path.name for path in (aside / "tables").iterdir()),
        steps=listed,
        total=content.duration(sum(step.seconds for step in steps)),
        devices=sorted({step.device for step in steps}),
        commits=sorted({step.commit for step in steps}),
        versions=_versions(steps),
        parameters=yaml.safe_dump(study.content, sort_keys=False, allow_unicode=True, width=100),
        weight=in_mb(aside),
    )
    (aside / "index.html").write_text(redact(html), encoding="utf-8")


def _write_viewers(
    folder: Path, files: StudyPaths, study: Study, cases: list[content.ReviewedCase], pages: jinja2.Environment
) -> str:
    """A 3D page per case and the script they share; gives why there are none, or an empty text."""
    try:
        (folder / SCRIPT).write_text(script(), encoding="utf-8")
    except ViewerError as error:
        return str(error)
    for case in cases:
        html = pages.get_template("viewer.html.j2").render(
            case=case,
            study=study.content["study"],
            volumes=case.volumes,
            image=encoded(files.review / case.volumes["image"]),
            labels=[encoded(files.review / entry["file"]) for entry in case.volumes["labels"]],
            colours=LABEL_COLOURS,
            colormap=colormap(),
            script=SCRIPT,
        )
        (folder / f"{case.slug}.html").write_text(html, encoding="utf-8")
    return ""


def _take_place(aside: Path, files: StudyPaths) -> Path:
    """Move the finished parts into the report's folder, the index last; other files there stay."""
    files.report.mkdir(parents=True, exist_ok=True)
    files.index.unlink(missing_ok=True)
    for part in PARTS:
        shutil.rmtree(files.report / part, ignore_errors=True)
        (aside / part).replace(files.report / part)
    return (aside / "index.html").replace(files.index)


def _refuse_leaks(folder: Path, names: dict[str, str]) -> None:
    for page in sorted(path for path in folder.rglob("*") if path.suffix in (".html", ".csv")):
        if found := leaks(page.read_text(encoding="utf-8"), names):
            raise ReportError(
                f"{page.relative_to(folder)} tells {', '.join(found[:5])}: a report may hold no absolute path, no "
                "user or machine name and, with pseudonyms, no case name; take it out of the notebook that prints it"
            )


def _folders(files: StudyPaths, study: Study) -> dict[Path, str]:
    cohorts = {resolve(study.content[name]["folder"]): f"({name} cohort)" for name in ("source", "target")}
    return {**cohorts, files.work: f"(work)/{files.study}", project_root(): ""}


def _phantoms(study: Study) -> bool:
    return all(study.content[name].get("phantoms") for name in ("source", "target"))


def _versions(steps: list[content.Step]) -> dict[str, str]:
    """Package to version; where steps ran with different versions, all of them."""
    found: dict[str, list[str]] = {}
    for step in steps:
        for package, version in step.versions.items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return {package: " and ".join(versions) for package, versions in found.items()}


def in_mb(folder: Path) -> str:
    """The size of all files in a folder, such as "9.3 MB"."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB"


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("brainmets.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
