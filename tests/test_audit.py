"""The audit: what it measures, and that every damaged file is found and named."""

from pathlib import Path

import numpy as np
import pytest
from test_cohort import OWN_LAYOUT, write_case, write_image

from brainmets.cohorts.audit import CASE_COLUMNS, Audit, audit_cohort
from brainmets.cohorts.cohort import CohortError, find_cases
from brainmets.params import Cohort


def labels() -> np.ndarray:
    """Two lesions: eight voxels of oedema around one of enhancement, and a single voxel far away."""
    values = np.zeros((6, 5, 4), np.int16)
    values[1:3, 1:3, 1:3] = 1
    values[2, 2, 2] = 3
    values[5, 4, 3] = 1
    return values


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    for case in ("a", "b"):
        write_case(tmp_path, OWN_LAYOUT, case, labels())
    return Cohort(folder=str(tmp_path), layout=OWN_LAYOUT, label_map={1: "snfh", 3: "et"}, held_out=["b"])


def audited(cohort: Cohort) -> Audit:
    return audit_cohort(find_cases(cohort), cohort, ["b"])


def test_a_sound_case_is_measured(cohort: Cohort) -> None:
    audit = audited(cohort)
    audit.require_no_errors()
    assert audit.findings.empty
    assert tuple(audit.cases.columns) == CASE_COLUMNS
    row = audit.cases.set_index("case").loc["a"]
    assert row["shape"] == "6x5x4"
    assert row["spacing_mm"] == "1x1x2"
    assert row["lesions"] == 2
    assert row["smallest_lesion_mm3"] == 2  # one voxel of 1 x 1 x 2 mm
    assert row["WT_mL"] == pytest.approx(9 * 2 / 1000)
    assert row["ET_mL"] == pytest.approx(2 / 1000)
    assert audit.cases.held_out.tolist() == [False, True]


@pytest.mark.parametrize(
    ("file", "values", "affine", "finding"),
    [
        ("T2.nii.gz", np.ones((6, 5, 3), np.int16), None, "its shape"),
        ("T2.nii.gz", np.arange(120).reshape(6, 5, 4).astype(np.int16), np.eye(4), "its affine"),
        ("T1.nii.gz", np.full((6, 5, 4), np.nan, np.float32), None, "120 voxels are NaN"),
        ("T1.nii.gz", np.ones((6, 5, 4, 2), np.int16), None, "one 3D volume"),
        ("GT.nii.gz", np.full((6, 5, 4), 9, np.int16), None, r"label value\(s\) \[9\]"),
        ("GT.nii.gz", np.full((6, 5, 4), 0.25, np.float32), None, "whole numbers"),
    ],
)
def test_a_damaged_file_stops_the_study_by_name(
    cohort: Cohort, tmp_path: Path, file: str, values: np.ndarray, affine: np.ndarray | None, finding: str
) -> None:
    write_image(tmp_path / "a" / file, values, affine)
    audit = audited(cohort)
    assert (audit.findings.severity == "error").any()
    with pytest.raises(CohortError, match=f"(?s){file}.*{finding}"):
        audit.require_no_errors()


def test_a_truncated_file_stops_the_study(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "a" / "T1POST.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CohortError, match="cannot be read"):
        audited(cohort).require_no_errors()


def test_the_same_scan_under_two_patients_is_an_error(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "b" / "T1POST.nii.gz").write_bytes((tmp_path / "a" / "T1POST.nii.gz").read_bytes())
    with pytest.raises(CohortError, match="holds the same image"):
        audited(cohort).require_no_errors()


def test_an_empty_label_map_and_a_constant_image_are_warnings(cohort: Cohort, tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "GT.nii.gz", np.zeros((6, 5, 4), np.int16))
    write_image(tmp_path / "a" / "T2.nii.gz", np.full((6, 5, 4), 3, np.int16))
    audit = audited(cohort)
    audit.require_no_errors()
    assert sorted(audit.findings.finding) == ["every voxel is 3: is it the right file?", "holds no lesion"]
