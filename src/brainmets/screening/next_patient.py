"""With what notebook 09 screens, and whom: the study's best model, and a phantom where no patient is given.

What is there and still of the same study is taken as it is: a model that is bundled anew has another hash, and what a
reader decided on its results would be of another result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from brainmets.engine.devices import cpu_cores, memory_mb
from brainmets.files import read_json, write_json
from brainmets.params import ParameterError, Screening
from brainmets.params.study import Study
from brainmets.paths import ScreeningPaths, StudyPaths, resolve
from brainmets.phantoms import scanner
from brainmets.places import require_apart
from brainmets.preparation import batch
from brainmets.provenance import sha256
from brainmets.screening import bundle, result, screen, source
from brainmets.screening.bundle import Bundle, BundleError
from brainmets.screening.result import Result
from brainmets.screening.scans import Options, ScreeningError
from brainmets.statistics import operating_point
from brainmets.statistics.choice import read_best_models
from brainmets.vocabulary import Model, model_phrase

PHANTOM_SEED = 9
"""Of the phantom that is the next patient: none of a study's."""
PHANTOM_SPACING_MM = (0.8, 5.0)
"""Voxel sides that a scanner phantom can have."""


class NextPatient(NamedTuple):
    """Folders of scans, and a pattern of their brain masks (None: a network finds the brain)."""

    folders: list[Path]
    brain_masks: str | None


def model(p: Screening, files: StudyPaths) -> Bundle:
    """The model that the parameters name, or the study's best one, bundled where that is not done yet.

    Raises ``BundleError`` and ``ValueError`` as ``bundle`` does, and ``ParameterError`` where ``params`` is not the
    file of this study.
    """
    if p.model is not None:
        return bundle.read(resolve(p.model))
    study = Study.read(resolve(p.params))
    if (study.content["study"], resolve(study.content["work_dir"])) != (p.study, resolve(p.work_dir)):
        raise ParameterError(
            f"params: {p.params} is of study {study.content['study']!r} in {study.content['work_dir']!r}, not of "
            f"{p.study!r} in {p.work_dir!r}"
        )
    arm, strategy = _best(files)
    made_of = {
        path.relative_to(files.work).as_posix(): sha256(path)
        for path in (files.best_model, files.operating_point, files.evaluation(arm, strategy))
    }
    record = files.bundle.with_suffix(".json")
    if files.bundle.is_file() and record.is_file() and read_json(record).get("made_of") == made_of:
        try:
            return bundle.read(files.bundle)
        except BundleError as error:  # damaged, or of a release that this one cannot read: the study is still there
            print(f"bundled anew: {error}")
    record.unlink(missing_ok=True)
    bundle.write(study, arm, strategy, files.bundle)  # type: ignore[arg-type]
    write_json(record, {"made_of": made_of})
    return bundle.read(files.bundle)


def _best(files: StudyPaths) -> Model:
    """The best model by notebook 07's choice among those whose operating point accepts anything."""
    models = read_best_models(files.best_model)
    points = operating_point.thaw(files.operating_point, files.work).points
    for one in models:
        if one in points and math.isfinite(points[one].threshold):
            if one != models[0]:
                print(f"{model_phrase(*models[0])} accepts nothing, and is the best: {model_phrase(*one)} screens")
            return one
    raise ParameterError(
        f"model: study {files.study} has no model whose operating point accepts anything ({len(models)} to choose "
        "from by cross-validation): name a bundle's file, or train longer"
    )


def scans(p: Screening, files: StudyPaths, read: Bundle) -> NextPatient:
    """The scans that the parameters name, or those of one scanner phantom, as coarse as the model's cases are."""
    if p.scans is not None:
        return NextPatient([resolve(folder) for folder in p.scans], None)
    sides = read.preparation.spacing_mm
    low, high = PHANTOM_SPACING_MM
    scanner.make_scanner_cohort(
        files.next_patient, 1, min(max(max(sides or (1.0,)), low), high), PHANTOM_SEED, progress=print
    )
    return NextPatient([files.next_patient / "dicom"], str(files.next_patient / "brain_masks" / "{patient}.nii.gz"))


def out(p: Screening, files: StudyPaths) -> Path:
    """The folder of the results."""
    return resolve(p.out) if p.out is not None else files.screened


def screened(p: Screening, files: StudyPaths, read: Bundle, say: Callable[[str], None]) -> dict[str, Result]:
    """Screen the scans; gives their results by case, the most suspicious first, those that were refused last.

    Raises ``ScreeningError`` for the first scan that failed, and as ``screen.screen`` does.
    """
    folder = out(p, files)
    patient = scans(p, files, read)
    require_apart({"out": folder}, {f"scans {path}": path for path in patient.folders})
    options = Options(
        folder, folder / "private", patient.brain_masks, workers=batch.most_at_a_time(cpu_cores(), memory_mb())
    )
    outcome = screen.screen(read, source.find(patient.folders, reads=read.reads), options, screen.device("auto"), say)
    for case, why in outcome.failed.items():
        raise ScreeningError(f"{case}: {why}")
    found = [result.read(folder / case) for case in outcome.screened]
    return {one.files.case: one for one in sorted(found, key=_suspicion)}


def _suspicion(one: Result) -> tuple[bool, float, str]:
    return one.record["guard"]["decision"] == "refuse", -float(one.record["suspicion"]), one.files.case


def to_read(results: dict[str, Result], show_case: str | None) -> ScreeningPaths:
    """The scan to read: the one that was asked for, or the most suspicious. ``ParameterError`` for one not there."""
    if not results:
        raise ParameterError("scans: holds no scan that could be screened")
    if show_case is not None and show_case not in results:
        raise ParameterError(f"show_case: {show_case!r} was not screened; screened are {', '.join(sorted(results))}")
    return results[show_case or next(iter(results))].files


def outputs(results: Iterable[Result]) -> list[Path]:
    """The files of the results. What a reader decides is not among them: it grows when the notebook has run."""
    return [
        path for one in results for path in (one.files.record, *map(one.files.folder.joinpath, one.record["files"]))
    ]
