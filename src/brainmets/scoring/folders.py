"""Score a folder of predictions against a folder of references, for notebook 06 and ``brainmets score`` alike."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from brainmets.nifti import SUFFIXES, ImageError, read_grid, read_labels
from brainmets.parallel import results
from brainmets.scoring.case import CaseScores, score_case
from brainmets.vocabulary import LABELS, LESION_COLUMNS, REGIONS, RESECTION_CAVITY, SCORE_COLUMNS, LesionDefinition

EXCLUDED_COLUMNS = ("arm", "strategy", "case", "region", "metric", "reason")


class ScoringError(ValueError):
    """Predictions and references that cannot be compared; the message names files and values."""


@dataclass(frozen=True)
class Scores:
    """What a run of ``score_folders`` found.

    ``table``: scores.csv, one row per case, region and metric, no value missing. ``lesions``: lesions.csv, one row per
    reference or predicted lesion. ``excluded``: arm, strategy, case, region, metric, reason of every value that the
    definition leaves undefined and that ``table`` therefore does not hold. ``cases``: all cases scored. ``missing``:
    those of them that had no prediction and were scored as empty predictions. ``values``: by case the labels other
    than 0 in the reference and in the prediction.
    """

    table: pd.DataFrame
    lesions: pd.DataFrame
    excluded: pd.DataFrame
    cases: tuple[str, ...]
    missing: tuple[str, ...]
    values: Mapping[str, tuple[frozenset[int], frozenset[int]]]


class _Job(NamedTuple):
    case: str
    reference: Path
    prediction: Path | None
    label_map: Mapping[int, int] | None
    lesion_definition: LesionDefinition


def score_folders(
    predictions: Path,
    references: Path,
    *,
    arm: str,
    strategy: str,
    cases: Collection[str] | None = None,
    label_map: Mapping[int, int] | None = None,
    missing: Literal["fail", "worst"] = "fail",
    lesion_definition: LesionDefinition = "brats_2023",
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Scores:
    """Score every case, in ``workers`` processes that hold one case each.

    A case is a file name without ``.nii.gz`` or ``.nii``; both folders must name the same cases, or with ``cases``
    these, where ``references`` may hold others too. ``label_map`` takes the values of both folders' files to BraTS
    values. ``missing="worst"`` scores a reference without a prediction as an empty prediction; a prediction without a
    reference is always an error. ``progress`` is called with one line per finished case. RC is scored for every case
    when label 4 occurs in any file.

    Raises ``ScoringError`` for folders that do not match, different grids, and labels that are not known whole
    numbers (``ImageError`` where the voxels show it); ``ValueError`` for a wrong argument.
    An empty region is no error: see ``metrics.empty_policy()``.
    """
    _check_arguments(missing, lesion_definition, workers, label_map)
    jobs = [
        _Job(case, reference, prediction, label_map, lesion_definition)
        for case, reference, prediction in _match_cases(Path(predictions), Path(references), cases, missing)
    ]
    _check_grids(jobs)
    found: dict[str, CaseScores] = {}
    started = time.monotonic()
    for case, scores in _run(jobs, workers):
        found[case] = scores
        if progress is not None:
            progress(f"{len(found)} of {len(jobs)}: {case}, {time.monotonic() - started:.1f} s elapsed")
    scored = tuple(job.case for job in jobs)
    values = {case: found[case].values for case in scored}
    has_cavity = any(LABELS["rc"] in side for sides in values.values() for side in sides)
    regions = {*REGIONS, RESECTION_CAVITY} if has_cavity else set(REGIONS)

    def table(kind: str, columns: tuple[str, ...]) -> pd.DataFrame:
        rows = [
            {"arm": arm, "strategy": strategy, "case": case, **row}
            for case in scored
            for row in getattr(found[case], kind)
            if row["region"] in regions
        ]
        return pd.DataFrame(rows, columns=list(columns))

    scores_table = table("scores", SCORE_COLUMNS)
    assert scores_table["value"].notna().all()
    missing_cases = tuple(job.case for job in jobs if job.prediction is None)
    lesions, excluded = table("lesions", LESION_COLUMNS), table("excluded", EXCLUDED_COLUMNS)
    return Scores(scores_table, lesions, excluded, scored, missing_cases, values)


def require_one_convention(scores: Scores) -> list[str]:
    """Refuse label maps that may be of another convention than BraTS since 2023; for files without a label map.

    Until 2022 BraTS wrote enhancing tumour as 4 and used no 3; since 2024 the 4 is the resection cavity, beside a 3 in
    most cases. Raises ``ScoringError`` where a folder's files hold 4 and none of them 3: both readings are possible,
    and one of them is wrong. Returns a sentence for each sign that is no proof: predictions with enhancing tumour
    where no reference has any, or references of a single value where predictions have several.
    """
    et, rc = LABELS["et"], LABELS["rc"]
    sides = [{case: values[side] for case, values in scores.values.items()} for side in (0, 1)]
    union = [frozenset[int]().union(*side.values()) for side in sides]
    for name, side, values in zip(("references", "predictions"), sides, union, strict=True):
        if rc in values and et not in values:
            holding = [case for case, labels in side.items() if rc in labels]
            shown = ", ".join(map(str, sorted(side[holding[0]])))
            raise ScoringError(
                f"{name}: label {rc} in {len(holding)} of {len(side)} files, label {et} in none (such as "
                f"{holding[0]}: {shown}). Until 2022 BraTS wrote enhancing tumour as {rc}; since 2024 {rc} is the "
                "resection cavity. Say which it is with a label map, on the command line --label-map "
                f"1=netc,2=snfh,3=et,{rc}=et or --label-map 1=netc,2=snfh,3=et,{rc}=rc; it holds for both folders"
            )
    notes = []
    if len(union[0]) == 1 < len(union[1]):
        notes.append(
            f"the references hold label {next(iter(union[0]))} alone, the predictions {len(union[1])} labels: if the "
            "references are masks of one region, the other regions' scores mean nothing"
        )
    elif union[0] and et in union[1] and et not in union[0]:
        notes.append(
            f"label {et} (enhancing tumour) is in predictions and in no reference: if the references write it "
            "otherwise, name their values with --label-map"
        )
    return notes


def _check_arguments(missing: str, definition: str, workers: int, label_map: Mapping[int, int] | None) -> None:
    if missing not in ("fail", "worst"):
        raise ValueError(f"missing: {missing!r} must be 'fail' or 'worst'")
    if definition not in get_args(LesionDefinition):
        raise ValueError(f"lesion_definition: {definition!r} must be one of {', '.join(get_args(LesionDefinition))}")
    if workers < 1:
        raise ValueError(f"workers: {workers} must be 1 or more")
    for value, label in (label_map or {}).items():
        if label not in LABELS.values():
            raise ValueError(f"label_map: {value} -> {label} is no BraTS label (0 to {max(LABELS.values())})")
        if value == 0 and label != 0:
            raise ValueError(f"label_map: 0 is background, not {label}")


def case_files(folder: Path) -> dict[str, Path]:
    """The folder's NIfTI files by case, which is their name without its end; ``ScoringError`` where there is none."""
    if not folder.is_dir():
        raise ScoringError(f"{folder} is not a folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
        if suffix is None or path.name.startswith("._") or not path.is_file():  # ._: what macOS leaves beside a file
            continue
        if re.match(r"\.\d+\.", path.name):  # what a writer that was killed leaves (files.replacing)
            continue
        if path.name.startswith("."):
            raise ScoringError(f"{path} is hidden, since its name begins with a dot: rename it, or take it away")
        case = path.name.removesuffix(suffix)
        if case in files:
            raise ScoringError(f"{folder} holds case {case} twice: {files[case].name} and {path.name}")
        files[case] = path
    if not files:
        raise ScoringError(f"{folder} holds no .nii.gz or .nii file")
    return files


def _match_cases(
    predictions: Path, references: Path, cases: Collection[str] | None, missing: str
) -> list[tuple[str, Path, Path | None]]:
    """(case, reference, prediction) by name."""
    given, wanted = case_files(predictions), case_files(references)
    problems = []
    if cases is not None:
        if unknown := sorted(set(cases) - wanted.keys()):
            problems.append(f"{references} holds no reference of {', '.join(unknown)}")
        wanted = {case: path for case, path in wanted.items() if case in cases}
    if stray := sorted(given.keys() - wanted.keys()):
        problems.append(f"predictions without a reference in {references}: {', '.join(stray)}")
    if (absent := sorted(wanted.keys() - given.keys())) and missing == "fail":
        problems.append(
            f"references without a prediction in {predictions}: {', '.join(absent)} "
            "(missing='worst', on the command line --missing worst, scores them as empty predictions)"
        )
    if problems:
        raise ScoringError("; ".join(problems))
    return [(case, path, given.get(case)) for case, path in sorted(wanted.items())]


def _check_grids(jobs: list[_Job]) -> None:
    """Headers are cheap: every mismatch of the run is named before any case is scored."""
    problems = []
    for job in jobs:
        try:
            grid = read_grid(job.reference)
            if job.prediction is not None:
                read_grid(job.prediction).require_same(grid, "resample the prediction to the reference first")
        except ImageError as error:
            problems.append(f"{job.case}: {error}")
    if problems:
        raise ScoringError("\n".join(problems))


def _run(jobs: list[_Job], workers: int) -> Iterator[tuple[str, CaseScores]]:
    """(case, scores) as they finish. Workers get paths and give rows, so memory is one case for each of them."""
    workers = min(workers, len(jobs))
    try:
        for job, scores in results(_score, jobs, workers):
            yield job.case, scores
    except BrokenProcessPool as error:
        raise ScoringError(
            f"a scoring process died, most likely for want of memory: use fewer workers (now {workers})"
        ) from error


def _score(job: _Job) -> CaseScores:
    grid = read_grid(job.reference)
    reference = read_labels(job.reference, job.label_map)
    prediction = np.zeros_like(reference) if job.prediction is None else read_labels(job.prediction, job.label_map)
    return score_case(reference, prediction, grid.spacing, grid.affine, job.lesion_definition)
