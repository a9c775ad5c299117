"""The screening of scans with a model: prepare, guard, predict, measure, write; one scan after the other.

What is done already is not done again: a scan whose record names this model and these files, and whose files are all
whole, is kept; any other is screened anew as a whole. A scan's record is written last of all its results, so that
what was broken off is never taken for done. The page is made from record and results, and from what a reader decided.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets import nifti
from brainmets.cohorts.cohort import Case
from brainmets.files import keep_out_of_git, plain, write_json, write_text
from brainmets.paths import ScreeningPaths
from brainmets.preparation import pipeline, registration, sorting
from brainmets.processes import locked
from brainmets.provenance import Provenance, sha256
from brainmets.scoring import candidates
from brainmets.scoring import probabilities as kept
from brainmets.screening import dicom_seg, exchange, guard, lesions, onto_source, page, result, worklist
from brainmets.screening.guard import Remark
from brainmets.screening.lesions import MidPlane
from brainmets.screening.onto_source import Results
from brainmets.screening.scans import Options, Outcome, Say, Scan, ScreeningError, find_scans
from brainmets.screening.source import Inputs
from brainmets.statistics.froc import ALL_SIZES
from brainmets.vocabulary import REGIONS, SEQUENCES

if TYPE_CHECKING:
    import torch

    from brainmets.screening.bundle import Bundle
    from brainmets.training.inference import Ensemble

MOST_CANDIDATES = 65_535
"""That a volume of uint16 can number."""
FAULT, ASIDE = "failed.log", ".aside-"
"""In a scan's folder: what an unforeseen fault was, and how the names of folders begin that are deleted at once."""


def device(name: str) -> torch.device:
    """The device of that name; "auto": a GPU where there is one. Raises ``ScreeningError`` for a GPU that is not."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ScreeningError("--device cuda: torch finds no GPU; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def screen(bundle: Bundle, inputs: Inputs, options: Options, device: torch.device, say: Say) -> Outcome:
    """Screen every scan of ``inputs`` into a folder of its own below ``options.out``; write the worklist.

    ``say`` is told of every step, with the time left. A scan that fails stops no other. Raises ``SortingError`` where
    nothing can be prepared before a person decides, or a folder can be entered by others; ``BusyError`` where another
    process screens into the folder.
    """
    sorting.own_folder(options.out)
    keep_out_of_git(options.out)
    outcome = Outcome()
    with locked(options.out / ".screen.lock", "the screening into this folder"):
        scans = find_scans(bundle.preparation, inputs, options, outcome, say, bundle.reads)
        waiting = []
        for scan in scans:
            if record := _done(scan, bundle, ScreeningPaths(options.out / scan.case)):
                outcome.add(record)
            else:
                waiting.append(scan)
        say(f"{len(scans)} scan(s), {len(waiting)} of them to screen with {bundle.card['name']}")
        ensemble = cache(lambda: bundle.ensemble(device))
        began = time.monotonic()
        for number, scan in enumerate(waiting, start=1):
            said = _screen_one(scan, bundle, ensemble, ScreeningPaths(options.out / scan.case), outcome, say)
            left = (time.monotonic() - began) / number * (len(waiting) - number)
            say(f"scan {number} of {len(waiting)}: {scan.case} {said}; about {left / 60:.0f} min left")
        here = {case: why.replace(f"{options.private}/", "private/") for case, why in outcome.failed.items()}
        here = {case: why.replace(f"{options.out}/", "") for case, why in here.items()}
        worklist.renew(options.out, here, {*outcome.screened, *outcome.refused, *options.left_out})
    return outcome


def _screen_one(
    scan: Scan, bundle: Bundle, ensemble: Callable[[], Ensemble], files: ScreeningPaths, outcome: Outcome, say: Say
) -> str:
    """Screen a scan, note in ``outcome`` how it ended, and give that in a few words."""
    try:
        record = screen_scan(scan, bundle, ensemble, files, say)
    except Exception as error:  # one scan's fault is no other's
        outcome.failed[scan.case] = _in_words(error, files)
        return "failed"
    outcome.add(record)
    if scan.case in outcome.refused:
        return "refused"
    return f"screened: {record['lesions']} lesion(s), {record['candidates']} candidate(s) below the operating point"


def _in_words(error: Exception, files: ScreeningPaths) -> str:
    """Why a scan failed; what nobody foresaw is told in full by a file in its folder."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "there is not enough memory: use a machine with more"
    if isinstance(error, (ValueError, FloatingPointError)):
        return str(error)
    log = write_text(files.folder / FAULT, "".join(traceback.format_exception(error)))
    return f"{type(error).__name__}; {log} has the details"


# --- one scan ----------------------------------------------------------------------------------------------------


def screen_scan(
    scan: Scan, bundle: Bundle, ensemble: Callable[[], Ensemble], files: ScreeningPaths, say: Say
) -> dict[str, Any]:
    """Screen one prepared scan into its folder; gives the record. ``ensemble`` is asked for once it is needed.

    Raises ``ValueError`` and ``FloatingPointError`` in words where the scan cannot be screened; its folder then holds
    no record.
    """
    provenance = Provenance("screen", {"model": bundle.sha256}, root=files.folder)
    created = datetime.now(UTC).replace(microsecond=0)
    clock = _Clock({"preparation": scan.seconds} if scan.t1c else {}, scan.case, say)
    _clear(files)
    with clock("reading"):
        case = _as_case(scan, files)
    with clock("guard"):
        remarks = [*scan.remarks, *_looked_at(case, bundle, scan)]
    found = _Found.none(bundle.aim.region)
    grid = "t1c" if scan.t1c else "prepared"
    if guard.decision(remarks) != "refuse":
        with clock("loading the model"):
            ready = ensemble()
            provenance.device = str(ready.predictor.device)
        with clock("prediction"):
            predicted, affine = _predict(ready, case, bundle, files.folder, clock.left)
        with clock("candidates"):
            found = find(predicted, affine, bundle)
        with clock("source grid"):
            results, grid, middle = _on_source(scan, case, bundle, predicted, affine, found, files)
            remarks += _beyond(found, results, grid, scan)
        with clock("lesion table"):
            table = _measured(results, found, middle)
        with clock("files"):
            _write(files, results, bundle.probability_floor)
            accepted = [int(number) for number in table.loc[table["accepted"], "lesion"]]
            remarks += _for_slicer(files, results)
            remarks += _for_dicom(files, scan, results, grid, accepted, bundle, created)
    else:
        table = _measured(None, found, None)
    lesions.write(files, table)
    record = {
        "schema": result.SCHEMA,
        "case": scan.case,
        "date": scan.date,
        "created": created.isoformat(),
        "input": {
            "kind": scan.kind, "grid": grid, "state": scan.state, "raw_sha256": scan.raw_sha256,
            "sequences": {name: f"prepared/{name}.nii.gz" for name in case.images},
        },
        "model": _model(bundle),
        "guard": {
            "decision": guard.decision(remarks), "cases": bundle.profile.cases,
            "remarks": [guard.as_json(remark) for remark in remarks],
            **_passed_over(case),
        },
        "preparation": scan.row,
        "lesions": len(set(found.accepted) & set(table["lesion"])),
        "candidates": len(set(table["lesion"]) - set(found.accepted)),
        "suspicion": max(found.scores.values(), default=0.0),
        "performance": _performance(bundle),
        "scores": [_finite(row) for row in bundle.scores.to_dict("records")],
        "seconds": {step: round(seconds, 2) for step, seconds in clock.seconds.items()},
        "files": _hashes(files),
        "provenance": provenance.record(),
    }  # fmt: skip
    write_json(files.record, record)
    page.write(files)
    return record


def _done(scan: Scan, bundle: Bundle, files: ScreeningPaths) -> dict[str, Any] | None:
    """The record of an earlier screening of these files with this model, where all of it is whole."""
    try:
        record = result.read(files.folder).record
        if record["model"]["sha256"] != bundle.sha256 or record["input"]["state"] != scan.state:
            return None
        if not files.page.is_file():
            page.write(files)
        Outcome().add(record)
    except (ValueError, LookupError, TypeError, OSError):
        return None
    return record


def _clear(files: ScreeningPaths) -> None:
    """Delete what an earlier screening wrote, its record first, and what a reader left of it; nothing else.

    What the reader decided stays (``reading.json`` and its outlines): it says of which result it is.
    """
    left = (files.reading_table, files.reading_labels, files.reading_numbers)
    for path in (files.record, *_results(files), files.page, *left, files.folder / FAULT):
        path.unlink(missing_ok=True)
    for path in files.folder.glob(".*"):  # written aside when it was broken off
        if path.is_dir() and path.name.startswith(ASIDE):
            shutil.rmtree(path)
        elif re.fullmatch(r"\.\d+\..+", path.name):
            path.unlink()


def _results(files: ScreeningPaths) -> list[Path]:
    """What the record vouches for, but for the prepared images: a reading and the page change later."""
    return [
        files.t1c, files.labels, files.numbers, files.probabilities, files.uncertainty, files.segmentation,
        files.dicom_labels, files.dicom_lesions, files.table, files.table_json,
    ]  # fmt: skip


def _as_case(scan: Scan, files: ScreeningPaths) -> Case:
    """The scan as the network reads it, from the images in its folder; those of a prepared case are copied there."""
    images = {name: files.prepared / f"{name}.nii.gz" for name in SEQUENCES if name in scan.images}
    for name in {*SEQUENCES} - {*images}:  # of an earlier model that read more
        (files.prepared / f"{name}.nii.gz").unlink(missing_ok=True)
    if scan.kind == "prepared":
        files.prepared.mkdir(parents=True, exist_ok=True)
        for name, path in scan.images.items():
            shutil.copyfile(path, images[name])
    return Case(scan.case, scan.case, images, None)


def _looked_at(case: Case, bundle: Bundle, scan: Scan) -> list[Remark]:
    volumes = {name: nifti.read_volume(path) for name, path in case.images.items()}
    for name, (voxels, _) in volumes.items():
        if not np.isfinite(voxels).all():
            raise ScreeningError(f"{name} holds voxels that are no numbers; write it again without them")
    row = None
    if scan.row is not None:
        row = {name: math.nan if value is None else float(value) for name, value in scan.row.items()}
    images = {name: voxels for name, (voxels, _) in volumes.items()}
    return guard.look(images, volumes["t1c"][1].affine, bundle.profile, row, bundle.reads)


def _passed_over(case: Case) -> dict[str, list[str]]:
    """The guard's rules that could say nothing, where the scan is not of all four sequences."""
    rules = guard.passed_over(case.images)
    return {"passed_over": rules} if rules else {}


def _predict(
    ensemble: Ensemble, case: Case, bundle: Bundle, folder: Path, left: Callable[[int, int], None]
) -> tuple[dict[str, npt.NDArray[np.float32]], nifti.Affine]:
    """Each region's probability on the prepared grid, in its files' axes, as an evaluation keeps and reads it."""
    from brainmets.training.inference import Keep, write_probabilities

    mean = ensemble.mean_probabilities(
        _counted(ensemble.fold_probabilities(ensemble.preprocess(case)), len(ensemble.weights), left)
    )
    with tempfile.TemporaryDirectory(dir=folder, prefix=ASIDE) as aside:
        written = write_probabilities(mean, case, Keep(Path(aside), bundle.probability_floor))
        read, grid = kept.read(written)
    return read, grid.affine


def _counted(
    folds: Iterator[tuple[int, npt.NDArray[np.float32]]], number: int, left: Callable[[int, int], None]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The same, telling ``left`` of each model that is done."""
    for place, (region, probability) in enumerate(folds, start=1):
        yield region, probability
        if place % len(REGIONS) == 0:
            left(place // len(REGIONS), number)


@dataclass(frozen=True)
class _Found:
    """Candidates: ``numbers`` as ``find`` gives them, ``scores`` by number, and which are ``accepted``."""

    region: str
    numbers: npt.NDArray[np.uint16] | None
    scores: dict[int, float]
    accepted: tuple[int, ...]

    @classmethod
    def none(cls, region: str) -> _Found:
        return cls(region, None, {}, ())


def find(predicted: Mapping[str, npt.NDArray[np.float32]], affine: nifti.Affine, bundle: Bundle) -> _Found:
    """The candidates of the operating point's region: the accepted ones first, each group by falling score.

    ``predicted``: region to probability (x, y, z) on the prepared grid, cut at the floor as in the evaluation.
    """
    region = bundle.aim.region
    probability = predicted[region]
    spacing: Any = tuple(float(side) for side in np.linalg.norm(affine[:3, :3], axis=0))
    table = candidates.find(
        {region: probability}, np.zeros(probability.shape, np.uint8), spacing, affine, bundle.candidate_threshold
    ).candidates
    if len(table) > MOST_CANDIDATES:
        raise ScreeningError(
            f"the model points at {len(table):,} places, more than can be numbered ({MOST_CANDIDATES:,}): it does not "
            "know such images"
        )
    passes = (table["score"] >= bundle.point.threshold) & (table["volume_mm3"] >= bundle.point.smallest_mm3)
    order = np.concatenate([np.flatnonzero(passes), np.flatnonzero(~passes)])
    number_of = np.zeros(len(table) + 1, np.uint16)
    number_of[table["candidate"].to_numpy()[order]] = np.arange(1, len(table) + 1)
    numbers = number_of[candidates.numbered(probability, affine, bundle.candidate_threshold)]
    scores = {place: float(score) for place, score in enumerate(table["score"].to_numpy()[order], start=1)}
    return _Found(region, numbers, scores, tuple(range(1, int(passes.sum()) + 1)))


def _on_source(
    scan: Scan, case: Case, bundle: Bundle, predicted: Mapping[str, npt.NDArray[np.float32]], affine: nifti.Affine,
    found: _Found, files: ScreeningPaths,
) -> tuple[Results, str, MidPlane | None]:  # fmt: skip
    """The results on the grid of the source t1c ("t1c"), or of the prepared case ("prepared"); and the mid-plane.

    A prepared case has no source scan; and on a t1c whose slices lean most programs would misplace the result.
    """
    assert found.numbers is not None
    middle, template = None, None
    if scan.t1c is not None and bundle.preparation.space == "template":
        template = registration.read_transforms(files.prepared)[pipeline.TEMPLATE]
        middle = MidPlane.of_template(template)
    if scan.t1c is not None:
        onto = onto_source.source(scan.t1c, files.prepared, bundle.preparation.space)
        if onto.upright:
            return onto_source.carry(onto, affine, predicted, found.numbers, found.region), "t1c", middle
        middle = MidPlane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)) if template is not None else None
    t1c, _ = nifti.read_volume(case.images["t1c"])
    return onto_source.unmoved(t1c, affine, predicted, found.numbers, found.region), "prepared", middle


def _beyond(found: _Found, results: Results, grid: str, scan: Scan) -> list[Remark]:
    """What a reader must know of the way back to the source."""
    remarks = []
    if results.beyond:
        scores = [found.scores[number] for number in results.beyond]
        text = (
            f"{len(scores)} candidate(s) lie beyond the field of view of the T1 after contrast, where it shows "
            f"nothing (highest score {max(scores):.2f}): they are in no file"
        )
        remarks.append(Remark("field of view", "warn", "t1c", text, float(len(scores)), 0.0, 0.0))
    if scan.t1c is not None and grid == "prepared":
        text = (
            "The slices of the T1 after contrast lean (gantry tilt), which most viewers misread: the results lie on "
            "the prepared grid, not on the scan's own"
        )
        remarks.append(Remark("gantry tilt", "warn", "t1c", text, math.nan, -math.inf, math.inf))
    return remarks


def _measured(results: Results | None, found: _Found, middle: MidPlane | None) -> pd.DataFrame:
    """The lesion table; without rows where nothing was predicted."""
    if results is None:
        none = np.zeros((1, 1, 1), np.uint8)
        return lesions.measure(none.astype(np.uint16), none, none.astype(np.float32), np.eye(4), {}, (), None)
    scores = {number: score for number, score in found.scores.items() if number not in results.beyond}
    accepted = [number for number in found.accepted if number in scores]
    return lesions.measure(
        results.numbers, results.labels, results.uncertainty, results.affine, scores, accepted, middle
    )


# --- files -------------------------------------------------------------------------------------------------------


def _write(files: ScreeningPaths, results: Results, floor: float) -> None:
    nifti.write(files.t1c, results.t1c, results.affine)
    nifti.write(files.labels, results.labels, results.affine)
    nifti.write(files.numbers, results.numbers, results.affine)
    nifti.write(files.uncertainty, results.uncertainty, results.affine)
    kept.write(files.probabilities, results.probabilities, results.affine, floor)


def _for_slicer(files: ScreeningPaths, results: Results) -> list[Remark]:
    """Write the segmentation for 3D Slicer; one that Slicer would misplace is a remark, since all else is there."""
    try:
        exchange.write_nrrd(files.segmentation, results.labels, results.affine)
    except exchange.ExchangeError as error:
        text = f"No segmentation for 3D Slicer could be made of it: {error}"
        return [Remark("3D Slicer segmentation", "warn", "t1c", text, math.nan, -math.inf, math.inf)]
    return []


def _for_dicom(
    files: ScreeningPaths, scan: Scan, results: Results, grid: str, accepted: Sequence[int], bundle: Bundle,
    created: datetime,
) -> list[Remark]:  # fmt: skip
    """Write the DICOM segmentations of a DICOM scan; what cannot be is a remark, since all else is there.

    ``accepted``: the numbers of the accepted lesions that have a voxel. ``created``: the record's, from which the
    files' identifiers are made.
    """
    if scan.kind != "dicom" or scan.t1c is None or grid != "t1c":
        return []
    lesions_alone = np.where(np.isin(results.numbers, accepted), results.numbers, np.uint16(0))
    jobs = (
        (files.dicom_labels, results.labels, dicom_seg.label_segments(), "labels"),
        (files.dicom_lesions, lesions_alone, dicom_seg.lesion_segments(accepted), "lesions"),
    )
    try:
        for path, voxels, segments, content in jobs:
            about = dicom_seg.About(bundle.card["name"], bundle.sha256, created, content)
            dicom_seg.write(path, voxels, results.affine, scan.t1c.files, segments, about)
    except dicom_seg.SourceError as error:
        for path, *_ in jobs:
            path.unlink(missing_ok=True)
        text = f"No DICOM segmentation could be made of it: {error}"
        return [Remark("DICOM segmentation", "warn", "t1c", text, math.nan, -math.inf, math.inf)]
    return []


def _hashes(files: ScreeningPaths) -> dict[str, str]:
    """Every file of the result by its name below the folder."""
    prepared = [path for path in sorted(files.prepared.glob("*")) if path.name[0] != "."]
    written = [path for path in (*_results(files), *prepared) if path.is_file()]
    return {path.relative_to(files.folder).as_posix(): sha256(path) for path in written}


def _model(bundle: Bundle) -> dict[str, Any]:
    """What the record says of the model."""
    card = bundle.card
    return _finite(
        {
            "name": card["name"], "sha256": bundle.sha256, "study": card["study"], "arm": card["arm"],
            "strategy": card["strategy"], "folds": card["folds"], "created": card["created"],
            "licence": card["licence"], "region": bundle.aim.region, "hit": bundle.aim.hit,
            "threshold": bundle.point.threshold, "smallest_mm3": bundle.point.smallest_mm3,
            "false_positives": bundle.aim.false_positives, "met": bundle.point.met,
        }
    )  # fmt: skip


def _performance(bundle: Bundle) -> dict[str, Any]:
    """How often the model found lesions of each size, and false positives a case, on its held-out cases.

    ``coverage``: of every interval, such as 0.95.
    """
    columns = ("size", "lesions", "found", "sensitivity", "low", "high")
    rows = [_finite({name: row[name] for name in columns}) for row in bundle.performance.to_dict("records")]
    rates = ("false_positives", "false_positives_low", "false_positives_high")
    whole = bundle.performance[bundle.performance["size"] == ALL_SIZES.name].to_dict("records")
    of_all = _finite({name: whole[0][name] if whole else None for name in rates})
    return {"rows": rows, **of_all, "target": bundle.aim.false_positives, "coverage": bundle.card["interval"]}


def _finite(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row for JSON."""
    return {str(name): plain(value) for name, value in row.items()}


class _Clock:
    """Seconds by step, and lines about what is being done."""

    def __init__(self, seconds: dict[str, float], case: str, say: Say) -> None:
        self.seconds = seconds
        self._case, self._say = case, say
        self._began = time.monotonic()

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        self._began = time.monotonic()
        yield
        self.seconds[step] = time.monotonic() - self._began

    def left(self, done: int, number: int) -> None:
        """Say that ``done`` models of ``number`` have predicted."""
        left = (time.monotonic() - self._began) / done * (number - done)
        self._say(f"{self._case}: model {done} of {number} has predicted, about {left:.0f} s left")
