"""The command that makes a damaged or missing file of a study anew, as a message gives it."""

from __future__ import annotations

import re
from pathlib import Path

from brainmets.paths import StudyPaths, project_root
from brainmets.vocabulary import CONTROL, STAGE_NOTEBOOKS


def notebook_command(study: str, number: str, **job: str | int) -> str:
    """Such as ``brainmets notebook 03 params/demo.yaml arm=default fold=0``.

    The parameters' file is the one below ``params/`` that names the study; "PARAMS.yaml" stands for it where none
    does, since a study may be run from a file that lies elsewhere.
    """
    return " ".join(
        ["brainmets notebook", number, _parameters_of(study), *(f"{name}={value}" for name, value in job.items())]
    )


def alignment_command(files: StudyPaths) -> str:
    """The command that plans and preprocesses both cohorts anew."""
    return notebook_command(files.study, "02")


def training_command(checkpoint: Path) -> str | None:
    """The command that trains what ``StudyPaths.checkpoint`` names; ``None`` for a checkpoint that lies elsewhere."""
    place = r"([^/]+)/(?:(repeat|cases)_(\d+)/)?training/(\w+)/(\w+)/fold_(\d+)/[^/]+$"
    match = re.search(place, checkpoint.absolute().as_posix())
    if match is None or match[4] not in STAGE_NOTEBOOKS:
        return None
    study, branch, number, stage, arm, fold = match.groups()
    job = {"arm": arm, "fold": fold}
    if stage == CONTROL:
        job["strategy"] = stage
    if branch:
        job["repeat" if branch == "repeat" else "training_cases"] = number
    return notebook_command(study, STAGE_NOTEBOOKS[stage][:2], **job)


def _parameters_of(study: str) -> str:
    line = re.compile(rf"^study:\s*(['\"]?){re.escape(study)}\1\s*(#.*)?$", re.MULTILINE)
    try:
        named = [path for path in sorted((project_root() / "params").glob("*.yaml")) if line.search(_text(path))]
    except FileNotFoundError:
        named = []
    return f"params/{named[0].name}" if named else "PARAMS.yaml"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
