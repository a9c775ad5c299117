"""The data audit: what each case holds, and what is wrong with it or unusual."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cc3d
import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets import nifti
from brainmets.cohorts.background import background
from brainmets.cohorts.cohort import Case, CohortError
from brainmets.cohorts.fingerprint import Fingerprint, fingerprint, pairs_of_one_scan
from brainmets.cohorts.matching import CLEAR, Edges, edges, match
from brainmets.params import Cohort
from brainmets.paths import resolve
from brainmets.vocabulary import LABELS, REGION_ORDER, REGIONS, region_mask

Severity = Literal["error", "warning"]
CASE_COLUMNS = (
    "case", "patient", "shape", "spacing_mm", "orientation",
    *(f"{region}_mL" for region in REGION_ORDER), "lesions", "smallest_lesion_mm3",
)  # fmt: skip
FINDING_COLUMNS = ("severity", "case", "file", "finding")
LONGEST_LIST = 20
"""Findings that a message repeats; the table has them all."""
REGISTER = (
    "register the scans of this patient to each other, onto one grid (resampling by the header alone leaves them "
    "apart where the patient moved)"
)
FOLLOW = (
    "bring it onto the t1c's grid together with the image that it was drawn on, by the same transform and with the "
    "nearest neighbour"
)
SMALLEST_COHORT = 4
EVERY_CASE_A_PATIENT = "(.+)"
SCAN = re.compile(r"[-_. ]+(\d{4}([-_.])\d\d?\2\d\d?|\d\d?([-_.])\d\d?\3\d{4}|[A-Za-z]{0,5}\d+)$")
"""The end of a name that distinguishes the scans of a patient: a date, or a number, perhaps after a short word."""


class Scan(NamedTuple):
    """One image, by the name of its file below the cohort's folder, and the fingerprint of its content."""

    case: str
    patient: str
    file: str
    content: Fingerprint


@dataclass
class Audit:
    """What the audit of one cohort gives.

    ``cases`` has ``CASE_COLUMNS`` (shape and spacing in the file's axis order, spacing in mm; ``lesions`` counts
    26-connected components of WT); ``findings`` has ``FINDING_COLUMNS`` and may be empty: ``file`` is named from the
    cohort's folder, and is empty where the finding is about the whole cohort (case "all"). ``scans`` are the images
    that could be read; ``on_level`` are those with another value than 0 around the head, and that value.
    """

    cases: pd.DataFrame
    findings: pd.DataFrame
    scans: list[Scan]
    on_level: dict[Path, float]

    @property
    def loads(self) -> dict[str, float]:
        """Each case's whole-tumour volume in mL, for a draw by load."""
        return dict(zip(self.cases.case, self.cases.WT_mL, strict=True))

    def add(self, findings: pd.DataFrame) -> None:
        """Append findings (``FINDING_COLUMNS``)."""
        if not findings.empty:
            self.findings = pd.concat([self.findings, findings], ignore_index=True)

    def require_no_errors(self, written: Path | None = None) -> None:
        """Raise ``CohortError`` with a line for every finding of severity "error"; ``written`` is their table."""
        errors = self.findings[self.findings.severity == "error"]
        if errors.empty:
            return
        places = errors.case + ": " + errors.file.where(errors.file == "", errors.file + ": ")
        lines = ("  " + places + errors.finding).tolist()
        if len(lines) > LONGEST_LIST:
            lines = [*lines[:LONGEST_LIST], f"  ... and {len(lines) - LONGEST_LIST} more"]
        where = written or "findings.csv beside the cohort's cases.csv, in the study's audit/"
        raise CohortError(
            f"{len(errors)} finding(s) stop the study; correct the files, then rerun:\n"
            + "\n".join([*lines, f"all findings: {where}"])
        )


@dataclass
class _Examination:
    row: dict[str, Any]
    folder: Path
    scans: list[Scan] = field(default_factory=list)
    on_level: dict[Path, float] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)

    def named(self, path: Path) -> str:
        """The file's path below the cohort's folder."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else path.name

    def note(self, severity: Severity, path: Path, finding: str) -> None:
        found = {"severity": severity, "case": self.row["case"], "file": self.named(path), "finding": finding}
        self.findings.append(found)

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """A file that cannot be used is a finding about ``path``."""
        try:
            yield
        except nifti.ImageError as error:
            self.note("error", path, error.problem)
        except OSError as error:
            self.note("error", path, f"cannot be read ({error.strerror or type(error).__name__}); copy it again")


def audit_cohorts(cases: Mapping[str, Sequence[Case]], cohorts: Mapping[str, Cohort]) -> dict[str, Audit]:
    """Examine every case of every cohort: geometry, intensities, label values, volumes, lesions, repeated scans.

    The two arguments and the result are by cohort. Errors (the study cannot run on them): a file that cannot be
    read, a sequence on another grid, a value that is not finite, an unknown or fractional label, the same scan under
    two patients, in both cohorts or as two sequences of a case. Warnings: a constant image, a background that is not
    0, an empty label map, the same scan twice within a patient, a region that no case has, names that look like
    several scans of a patient where each case counts as a patient.
    """
    audits = {name: _audit_cohort(cases[name], declaration) for name, declaration in cohorts.items()}
    repeated: dict[str, list[dict[str, str]]] = {name: [] for name in audits}
    for name, finding in _repeated_scans(audits):
        repeated[name].append(finding)
    for name, findings in repeated.items():
        audits[name].add(pd.DataFrame(findings))
    return audits


def _audit_cohort(cases: Sequence[Case], declaration: Cohort) -> Audit:
    folder = resolve(declaration.folder)
    examinations = [_examine(case, declaration, folder) for case in cases]
    table = pd.DataFrame([one.row for one in examinations], columns=list(CASE_COLUMNS))
    findings = [finding for one in examinations for finding in one.findings]
    warnings = [*_empty_regions(table, declaration), *_hidden_repeats(cases, declaration)]
    of_all = [
        *(("warning", text) for text in warnings),
        *(("error", text) for text in (*_old_labels(table, declaration), *_no_tumour(table))),
    ]
    findings += [{"severity": severity, "case": "all", "file": "", "finding": text} for severity, text in of_all]
    scans = [scan for one in examinations for scan in one.scans]
    on_level = {path: level for one in examinations for path, level in one.on_level.items()}
    return Audit(table, pd.DataFrame(findings, columns=list(FINDING_COLUMNS)), scans, on_level)


def _examine(case: Case, declaration: Cohort, folder: Path) -> _Examination:
    one = _Examination({"case": case.case, "patient": case.patient}, folder)
    first = None
    with one.reading(case.images["t1c"]):
        first = nifti.read_grid(case.images["t1c"])
        _describe_grid(one, first)
    structure: dict[str, Edges | None] = {}
    for sequence, path in case.images.items():
        if sequence != "t1c" or first is not None:  # else it has been said
            with one.reading(path):
                values, grid = nifti.read_volume(path)
                on_grid = _check_grid(one, grid, first, REGISTER)
                if _check_intensities(one, path, values):
                    one.scans.append(Scan(case.case, case.patient, one.named(path), fingerprint(values, grid.affine)))
                    if on_grid:
                        structure[sequence] = edges(values, grid.affine)
    _check_match(one, case, structure)
    with one.reading(case.label):
        _check_grid(one, nifti.read_grid(case.label), first, FOLLOW)
        _describe_lesions(one, case, declaration)
    return one


def _describe_grid(one: _Examination, grid: nifti.Grid) -> None:
    one.row["shape"] = "x".join(map(str, grid.shape))
    one.row["spacing_mm"] = "x".join(f"{size:g}" for size in grid.spacing)
    one.row["orientation"] = grid.orientation


def _check_grid(one: _Examination, grid: nifti.Grid, first: nifti.Grid | None, remedy: str) -> bool:
    """Note another grid than the t1c's, if that could be read; gives whether they are known to be one."""
    if first is None or grid.same(first):
        return first is not None
    if grid.shape != first.shape:
        one.note("error", grid.path, f"its shape {grid.shape} differs from the t1c's {first.shape}; {remedy}")
    elif grid.to_ras().same(first.to_ras()):
        one.note(
            "error", grid.path, f"its axes are {grid.orientation}, the t1c's {first.orientation}; reorient it"
        )  # fmt: skip
    else:
        one.note(
            "error", grid.path,
            f"its affine {np.round(grid.affine, 3).tolist()} differs from the t1c's "
            f"{np.round(first.affine, 3).tolist()}: corners lie {grid.distance_mm(first):.3g} mm apart; {remedy}",
        )  # fmt: skip
    return False


def _check_match(one: _Examination, case: Case, structure: Mapping[str, Edges | None]) -> None:
    """Note what shows the head in another place than the t1c does, on the same grid."""
    reference = structure.get("t1c")
    for sequence, other in structure.items():
        if reference is None or other is None or sequence == "t1c":
            continue
        found, path = match(reference, other), case.images[sequence]
        if found.clear < CLEAR:
            one.note(
                "warning", path,
                "its anatomy matches the t1c's in no place within 60 mm, though both share a grid: compare them in a "
                "viewer; if they differ, register the scans of this patient to each other",
            )  # fmt: skip
        elif found.distance_mm:
            one.note(
                "error", path,
                f"its anatomy lies about {found.distance_mm:.0f} mm from the t1c's, though both share a grid: the "
                "scans are not registered to each other; register them (resampling by the header does not)",
            )  # fmt: skip


def _check_intensities(one: _Examination, path: Path, values: npt.NDArray[Any]) -> bool:
    """Note what is wrong with the values; gives whether they show anything."""
    if not np.isfinite(values).all():
        one.note("error", path, f"{np.count_nonzero(~np.isfinite(values))} voxels are NaN or infinite")
    elif values.min() == values.max():
        one.note("warning", path, f"every voxel is {values.min()}: is it the right file?")
    else:
        if level := background(values):
            one.on_level[path] = level
            one.note("warning", path, f"{level:g} surrounds the head, not 0: a copy with 0 there is used instead")
        return True
    return False


def _describe_lesions(one: _Examination, case: Case, declaration: Cohort) -> None:
    labels = nifti.read_labels(case.label, declaration.values)
    voxel_mm3 = nifti.read_grid(case.label).voxel_mm3
    for region in REGION_ORDER:
        one.row[f"{region}_mL"] = np.count_nonzero(region_mask(labels, region)) * voxel_mm3 / 1000
    components = cc3d.connected_components(region_mask(labels, "WT"), connectivity=26)
    sizes = np.bincount(components.ravel())[1:] * voxel_mm3
    one.row["lesions"] = len(sizes)
    one.row["smallest_lesion_mm3"] = float(sizes.min()) if len(sizes) else float("nan")
    if not len(sizes):
        one.note("warning", case.label, "holds no lesion")


def _repeated_scans(audits: Mapping[str, Audit]) -> Iterator[tuple[str, dict[str, str]]]:
    """(cohort, finding) for every scan that occurs twice, in one cohort or in both."""
    scans = [(cohort, scan) for cohort, audit in audits.items() for scan in audit.scans]
    reported = set()
    for one, other in pairs_of_one_scan([scan.content for _, scan in scans]):
        (elsewhere, earlier), (cohort, later) = scans[one], scans[other]
        pair = (elsewhere, earlier.case, cohort, later.case)
        if pair in reported and earlier.case != later.case:
            continue  # one sequence of the two cases says it
        reported.add(pair)
        severity, what = "error", f"holds the same image as {earlier.file}"
        if elsewhere != cohort:
            what += f" of the {elsewhere} cohort: a network would be tested on what it was pretrained on; remove one"
        elif earlier.case == later.case:
            what += ", another sequence of this case: correct the file or `layout`"
        elif earlier.patient != later.patient:
            what += f" of patient {earlier.patient}: a split could not keep them together"
        else:
            severity = "warning"
        yield cohort, {"severity": severity, "case": later.case, "file": later.file, "finding": what}


def _empty_regions(table: pd.DataFrame, declaration: Cohort) -> Iterator[str]:
    """Regions that are empty in every case that could be read."""
    named = set(declaration.label_map.values())
    names = {value: name for name, value in LABELS.items()}
    for region, values in REGIONS.items():
        volumes = table[f"{region}_mL"].dropna()
        if len(volumes) and not volumes.any() and table.WT_mL.any():
            parts = [names[value] for value in values]
            absent = [part for part in parts if part not in named]
            why = f"no label map holds a value that label_map calls {' or '.join(parts)}"
            if absent == parts:
                why = f"label_map names no label {' or '.join(absent)}"
            yield (
                f"{region} ({' + '.join(parts)}) is empty in every case: {why}. Is label_map right? If it is, no "
                f"network learns {region} from this cohort, and scores of {region} on it say nothing"
            )


def _no_tumour(table: pd.DataFrame) -> Iterator[str]:
    """A cohort whose label maps could be read and hold no tumour at all."""
    volumes = table.WT_mL.dropna()
    if len(volumes) and not volumes.any():
        yield "no label map holds any tumour: nothing can be learnt from this cohort or tested on it; correct them"


def _old_labels(table: pd.DataFrame, declaration: Cohort) -> Iterator[str]:
    """Resection cavities without any enhancing tumour: before 2023, BraTS wrote enhancing tumour as 4."""
    if table.RC_mL.any() and not table.ET_mL.any():
        value = next(value for value, name in declaration.label_map.items() if name == "rc")
        yield (
            f"label {value}, which label_map calls rc (resection cavity), is in {(table.RC_mL > 0).sum()} case(s), "
            "and no case holds et (enhancing tumour): before 2023, BraTS wrote enhancing tumour as 4. If yours does, "
            f"write label_map: {{1: netc, 2: snfh, {value}: et}}; if these are cavities, call them background"
        )


def _hidden_repeats(cases: Sequence[Case], declaration: Cohort) -> Iterator[str]:
    """Case names that look like several scans of a patient, in a cohort that counts each case as a patient."""
    if len(cases) < SMALLEST_COHORT or declaration.files.patient != EVERY_CASE_A_PATIENT:
        return
    scans: dict[str, list[str]] = {}
    for case in cases:
        scans.setdefault(SCAN.sub("", case.own_name), []).append(case.case)
    repeated = [names for names in scans.values() if len(names) > 1]
    if repeated and len(scans) > 1:  # one stem for all is a cohort that is numbered through
        yield (
            f"each of the {len(cases)} cases counts as a patient, yet {', '.join(repeated[0][:3])} look like scans of "
            "one: if they are, a patient would be trained and tested on; give layout.patient an expression whose "
            "first group is the patient"
        )
