"""The data audit: what each case holds, and what is wrong or remarkable about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cc3d
import nibabel as nib
import numpy as np
import pandas as pd

from brainmets.cohorts.cohort import Case, CohortError, map_labels, read_labels
from brainmets.params import Cohort
from brainmets.regions import REGIONS, region_mask

Severity = Literal["error", "warning"]
CASE_COLUMNS = (
    "case", "patient", "held_out", "shape", "spacing_mm", "orientation",
    *(f"{region}_mL" for region in REGIONS), "lesions", "smallest_lesion_mm3",
)  # fmt: skip
FINDING_COLUMNS = ("severity", "case", "file", "finding")


@dataclass
class Audit:
    """What the audit of one cohort gives.

    ``cases`` has ``CASE_COLUMNS`` (shape and spacing in the file's axis order, spacing in mm; ``lesions`` counts
    26-connected components of WT); ``findings`` has ``FINDING_COLUMNS`` and may be empty.
    """

    cases: pd.DataFrame
    findings: pd.DataFrame

    def require_no_errors(self) -> None:
        """Raise ``CohortError`` listing every finding of severity "error"."""
        errors = self.findings[self.findings.severity == "error"]
        if len(errors):
            lines = "\n".join(f"  {row.file}: {row.finding}" for row in errors.itertuples())
            raise CohortError(f"{len(errors)} finding(s) stop the study; mend the files, then rerun:\n{lines}")


@dataclass
class _Examination:
    row: dict[str, Any]
    fingerprint: str = ""
    findings: list[dict[str, str]] = field(default_factory=list)

    def note(self, severity: Severity, path: Path, finding: str) -> None:
        self.findings.append({"severity": severity, "case": self.row["case"], "file": path.name, "finding": finding})


def audit_cohort(cases: Sequence[Case], declaration: Cohort, held_out: Sequence[str]) -> Audit:
    """Examine every case: geometry, intensities, label values, volumes, lesions, duplicates.

    Errors (the study cannot run on them): a file that cannot be read, a sequence on another grid, a value that is
    not finite, an unknown or fractional label, the same scan under two patients. Warnings: a constant image, an
    empty label map, the same scan twice within a patient.
    """
    examinations = [_examine(case, declaration, case.case in held_out) for case in cases]
    findings = [finding for one in examinations for finding in one.findings]
    findings += _duplicates(cases, examinations)
    return Audit(
        cases=pd.DataFrame([one.row for one in examinations], columns=list(CASE_COLUMNS)),
        findings=pd.DataFrame(findings, columns=list(FINDING_COLUMNS)),
    )


def _examine(case: Case, declaration: Cohort, held_out: bool) -> _Examination:
    one = _Examination({"case": case.case, "patient": case.patient, "held_out": held_out})
    try:
        first = nib.Nifti1Image.from_filename(case.images["t1c"])
        _describe_grid(one, first)
        for path in (*case.channels, case.label):
            _check_grid(one, path, first)
        for path in case.channels:
            _check_intensities(one, path)
        one.fingerprint = hashlib.sha256(np.asanyarray(first.dataobj).tobytes()).hexdigest()
        _describe_lesions(one, case, declaration)
    except CohortError as error:
        one.note("error", case.label, str(error))
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        one.note("error", case.images["t1c"], f"cannot be read: {error}")
    return one


def _describe_grid(one: _Examination, image: nib.Nifti1Image) -> None:
    one.row["shape"] = "x".join(map(str, image.shape))
    one.row["spacing_mm"] = "x".join(f"{size:g}" for size in image.header.get_zooms()[:3])
    one.row["orientation"] = "".join(nib.aff2axcodes(image.affine))


def _check_grid(one: _Examination, path: Path, first: nib.Nifti1Image) -> None:
    image = nib.Nifti1Image.from_filename(path)
    if len(image.shape) != 3:
        one.note("error", path, f"must be one 3D volume, its shape is {image.shape}")
    elif image.shape != first.shape:
        one.note("error", path, f"its shape {image.shape} differs from the t1c's {first.shape}; resample it")
    elif not np.allclose(image.affine, first.affine, atol=1e-3):
        one.note(
            "error", path,
            f"its affine {np.round(image.affine, 3).tolist()} differs from the t1c's "
            f"{np.round(first.affine, 3).tolist()}; resample it",
        )  # fmt: skip


def _check_intensities(one: _Examination, path: Path) -> None:
    values = np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj)
    if not np.isfinite(values).all():
        one.note("error", path, f"{np.count_nonzero(~np.isfinite(values))} voxels are NaN or infinite")
    elif values.min() == values.max():
        one.note("warning", path, f"every voxel is {values.min()}: is it the right file?")


def _describe_lesions(one: _Examination, case: Case, declaration: Cohort) -> None:
    labels = map_labels(read_labels(case.label), declaration, case.label.name)
    voxel_mm3 = float(np.prod(nib.Nifti1Image.from_filename(case.label).header.get_zooms()[:3]))
    for region in REGIONS:
        one.row[f"{region}_mL"] = np.count_nonzero(region_mask(labels, region)) * voxel_mm3 / 1000
    components = cc3d.connected_components(region_mask(labels, "WT"), connectivity=26)
    sizes = np.bincount(components.ravel())[1:] * voxel_mm3
    one.row["lesions"] = len(sizes)
    one.row["smallest_lesion_mm3"] = float(sizes.min()) if len(sizes) else float("nan")
    if not len(sizes):
        one.note("warning", case.label, "holds no lesion")


def _duplicates(cases: Sequence[Case], examinations: Sequence[_Examination]) -> list[dict[str, str]]:
    seen: dict[str, Case] = {}
    found = []
    for case, one in zip(cases, examinations, strict=True):
        if not one.fingerprint:
            continue
        other = seen.setdefault(one.fingerprint, case)
        if other is not case:
            across = other.patient != case.patient
            found.append({
                "severity": "error" if across else "warning",
                "case": case.case,
                "file": case.images["t1c"].name,
                "finding": f"holds the same image as {other.images['t1c'].name}"
                + (f" of patient {other.patient}: a split could not keep them together" if across else ""),
            })  # fmt: skip
    return found
