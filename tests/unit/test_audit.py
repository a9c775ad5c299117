"""The audit: what it measures, and that every damaged file is found and named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohort_files import OWN_LAYOUT, write_case, write_image

from brainmets.cohorts.audit import CASE_COLUMNS, Audit, audit_cohorts
from brainmets.cohorts.cohort import CohortError, find_cases
from brainmets.cohorts.rules import PLAUSIBILITY
from brainmets.params import Cohort
from brainmets.phantoms import sites
from brainmets.vocabulary import SEQUENCES


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
    return Cohort(folder=str(tmp_path), layout=OWN_LAYOUT, label_map={1: "snfh", 3: "et"}, held_out=1)


def audited(cohort: Cohort) -> Audit:
    """Without what plausibility says of volumes that are no heads."""
    audit = audit_cohorts({"target": find_cases(cohort, SEQUENCES)}, {"target": cohort})["target"]
    doubted = audit.findings.rule.isin([rule.rule for rule in PLAUSIBILITY])
    audit.findings = audit.findings[~doubted].reset_index(drop=True)
    return audit


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
    assert audit.loads == {"a": pytest.approx(9 * 2 / 1000), "b": pytest.approx(9 * 2 / 1000)}


FLIPPED = np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
"""The grid of ``write_image``'s 6 x 5 x 4 voxels, stored from left to right."""


@pytest.mark.parametrize(
    ("file", "values", "affine", "finding"),
    [
        (
            "T2.nii.gz",
            np.ones((6, 5, 3), np.int16),
            None,
            "its shape .*; register the scans of",
        ),
        ("T2.nii.gz", np.arange(120).reshape(6, 5, 4).astype(np.int16), np.eye(4), "its affine .*mm apart; register"),
        ("GT.nii.gz", np.zeros((6, 5, 3), np.int16), None, "its shape .*; bring it onto the t1c's grid together with"),
        ("GT.nii.gz", np.zeros((6, 5, 4), np.int16), FLIPPED, "its axes are LAS, the t1c's RAS; reorient it"),
        ("T1.nii.gz", np.full((6, 5, 4), np.nan, np.float32), None, "120 voxels are NaN"),
        ("T1.nii.gz", np.ones((6, 5, 4, 2), np.int16), None, "one 3D volume"),
        ("GT.nii.gz", np.full((6, 5, 4), 9, np.int16), None, r"label value\(s\) 9"),
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
    with pytest.raises(CohortError, match="is truncated"):
        audited(cohort).require_no_errors()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced_by_text(path: Path) -> None:
    path.write_text("not found")


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (truncated, "is truncated: its compressed stream ends too early"),
        (emptied, "is empty (0 bytes); copy it again"),
        (replaced_by_text, "cannot be read ("),
    ],
)
@pytest.mark.parametrize("file", ["T1.nii.gz", "T1POST.nii.gz", "T2.nii.gz", "FLAIR.nii.gz", "GT.nii.gz"])
def test_a_file_that_cannot_be_read_is_blamed_and_no_other(
    cohort: Cohort, tmp_path: Path, damage: Callable[[Path], None], finding: str, file: str
) -> None:
    damage(tmp_path / "b" / file)
    audit = audited(cohort)
    assert audit.findings[["severity", "case", "file"]].to_numpy().tolist() == [["error", "b", f"b/{file}"]]
    assert audit.findings.finding[0].startswith(finding)
    assert str(tmp_path) not in audit.findings.finding[0]
    with pytest.raises(CohortError) as error:
        audit.require_no_errors()
    assert f"\n  b: b/{file}: {finding}" in str(error.value)


def test_every_damaged_file_has_a_line_of_its_own_and_the_table_is_cited(cohort: Cohort, tmp_path: Path) -> None:
    truncated(tmp_path / "a" / "T1POST.nii.gz")
    emptied(tmp_path / "a" / "T2.nii.gz")
    for case in ("a", "b"):
        write_image(tmp_path / case / "GT.nii.gz", np.full((6, 5, 4), 9, np.int16))
    with pytest.raises(CohortError) as error:
        audited(cohort).require_no_errors(tmp_path / "findings.csv")
    first, *lines, last = str(error.value).splitlines()
    assert first == "4 finding(s) stop the study; correct the files, then rerun:"
    assert [line.split(": ")[:2] for line in lines] == [
        ["  a", "a/T1POST.nii.gz"], ["  a", "a/T2.nii.gz"], ["  a", "a/GT.nii.gz"], ["  b", "b/GT.nii.gz"],
    ]  # fmt: skip
    assert all(line.count("GT.nii.gz") <= 1 for line in lines)
    assert lines[3].startswith("  b: b/GT.nii.gz: unknown label value(s) 9; known are 0, 1, 3: correct the file")
    assert last == f"all findings: {tmp_path / 'findings.csv'}"


def test_a_long_list_of_findings_is_cut(cohort: Cohort) -> None:
    audit = audited(cohort)
    rows = [("error", "empty file", f"c{number}", f"c{number}/T1.nii.gz", "is empty") for number in range(25)]
    audit.findings = pd.DataFrame(rows, columns=audit.findings.columns)
    with pytest.raises(CohortError) as error:
        audit.require_no_errors()
    lines = str(error.value).splitlines()
    assert len(lines) == 23
    assert lines[-2:] == [
        "  ... and 5 more",
        "all findings: findings.csv beside the cohort's cases.csv, in the study's audit/",
    ]


@pytest.mark.parametrize(
    ("names", "patient", "warned"),
    [
        (("P1_1", "P1_2", "P2_1", "P3_1"), "(.+)", "P1_1, P1_2"),
        (("P1_20200131", "P1_20210131", "P2_20200131", "P3_20200131"), "(.+)", "P1_20200131, P1_20210131"),
        (("P1_2020-01-31", "P1_2021-01-31", "P2_2020-01-31", "P3"), "(.+)", "P1_2020-01-31, P1_2021-01-31"),
        (("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-03_ses-1"), "(.+)", "sub-01_ses-1, sub-01_ses-2"),
        (("M-001-000", "M-001-001", "M-002-000", "M-003-000"), "(.+)", "M-001-000, M-001-001"),
        (("P1_1", "P1_2", "P2_1", "P3_1"), "(P[0-9]+)", None),  # the patient is declared
        (("P1_1", "P1_2", "P2_1"), "(.+)", None),  # three cases
        (("P01", "P02", "P03", "P04"), "(.+)", None),
        (("case_1", "case_2", "case_3", "case_4"), "(.+)", None),  # numbered through
        (("M-001-000", "M-002-000", "M-003-000", "M-004-000"), "(.+)", None),
    ],
)
def test_names_that_look_like_scans_of_one_patient_are_a_warning(
    tmp_path: Path, names: tuple[str, ...], patient: str, warned: str | None
) -> None:
    for number, name in enumerate(names):
        write_case(tmp_path, OWN_LAYOUT, name, labels())
        write_image(tmp_path / name / "T1POST.nii.gz", np.arange(120).reshape(6, 5, 4).astype(np.int16) + number)
    layout = {**OWN_LAYOUT, "patient": patient}
    cohort = Cohort(folder=str(tmp_path), layout=layout, label_map={1: "snfh", 3: "et"}, held_out=1)
    audit = audited(cohort)
    audit.require_no_errors()
    found = audit.findings.to_dict("records")
    if warned is None:
        assert found == []
    else:
        (finding,) = found
        assert (finding["severity"], finding["case"], finding["file"]) == ("warning", "all", "")
        assert f"yet {warned} look like scans of one" in finding["finding"]
        assert "layout.patient" in finding["finding"]


@pytest.mark.parametrize(
    ("label_map", "expected"),
    [
        ({1: "snfh", 3: "et"}, []),
        ({1: "snfh", 3: "netc"}, ["ET (et) is empty in every case: label_map names no label et"]),
        (
            {1: "snfh", 3: "snfh", 2: "et"},
            [
                "ET (et) is empty in every case: no label map holds a value that label_map calls et",
                "TC (netc + et) is empty in every case: no label map holds a value that label_map calls netc or et",
            ],
        ),
    ],
)
def test_a_region_that_no_case_has_is_a_warning(
    cohort: Cohort, label_map: dict[int, str], expected: list[str]
) -> None:
    audit = audited(Cohort(**{**cohort.model_dump(), "label_map": label_map}))
    audit.require_no_errors()
    found = audit.findings.finding.tolist()
    assert [text.partition("; is label_map right?")[0] for text in found] == expected
    assert set(audit.findings.severity) <= {"warning"}


def test_a_cohort_without_any_tumour_stops_the_study(cohort: Cohort, tmp_path: Path) -> None:
    for case in ("a", "b"):
        write_image(tmp_path / case / "GT.nii.gz", np.zeros((6, 5, 4), np.int16))
    audit = audited(cohort)
    with pytest.raises(CohortError, match="all: no label map holds any tumour: nothing can be learnt"):
        audit.require_no_errors()
    assert audit.findings.case.tolist() == ["a", "b", "all"]


def test_cavities_without_any_enhancing_tumour_are_the_old_labels(cohort: Cohort, tmp_path: Path) -> None:
    """BraTS until 2022: 1 necrosis, 2 oedema, 4 enhancing."""
    label_map = {1: "netc", 2: "snfh", 3: "et", 4: "rc"}
    for case in ("a", "b"):
        write_image(tmp_path / case / "GT.nii.gz", np.where(labels() == 3, 4, labels()).astype(np.int16))
    audit = audited(Cohort(**{**cohort.model_dump(), "label_map": label_map}))
    with pytest.raises(CohortError, match=r"all: label 4, .* in 2 case\(s\).*label_map: \{1: netc, 2: snfh, 4: et\}"):
        audit.require_no_errors()
    assert audit.cases.RC_mL.tolist() == [0.002, 0.002]
    write_image(tmp_path / "b" / "GT.nii.gz", labels())  # one case that has 3: the cavities are cavities
    audited(Cohort(**{**cohort.model_dump(), "label_map": label_map})).require_no_errors()


def test_a_sequence_that_lies_elsewhere_on_the_same_grid_stops_the_study(cohort: Cohort, tmp_path: Path) -> None:
    images = sites.make_patient("source", 1, 3.0, seed=11).images
    names = {"t1n": "T1", "t1c": "T1POST", "t2w": "T2", "t2f": "FLAIR"}
    for sequence, name in names.items():
        image = np.roll(images[sequence], 5, 2) if sequence == "t2w" else images[sequence]
        write_image(tmp_path / "a" / f"{name}.nii.gz", image, np.diag([3.0, 3.0, 3.0, 1.0]))
    write_image(tmp_path / "a" / "GT.nii.gz", np.zeros(images["t1c"].shape, np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
    errors = audited(cohort).findings.query("severity == 'error'")
    assert errors.file.tolist() == ["a/T2.nii.gz"]
    assert errors.finding.iloc[0].startswith("its anatomy lies about 16 mm from the t1c's, though both share a grid")
    assert "register them (resampling by the header does not)" in errors.finding.iloc[0]


def test_the_same_scan_under_two_patients_is_an_error(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "b" / "T1POST.nii.gz").write_bytes((tmp_path / "a" / "T1POST.nii.gz").read_bytes())
    with pytest.raises(CohortError, match="holds the same image"):
        audited(cohort).require_no_errors()


def test_the_same_image_as_two_sequences_of_a_case_is_an_error(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "a" / "T2.nii.gz").write_bytes((tmp_path / "a" / "T1POST.nii.gz").read_bytes())
    message = r"a/T2\.nii\.gz: holds the same image as a/T1POST\.nii\.gz, another sequence of this case"
    with pytest.raises(CohortError, match=message):
        audited(cohort).require_no_errors()


def test_a_scan_in_both_cohorts_is_an_error_even_in_disguise(tmp_path: Path) -> None:
    """The target's scan is the source's, saved as float32, brighter, cropped, and with its axes turned."""
    image = sites.make_patient("source", 1, 4.0, seed=11).images["t1c"]
    for case in ("a", "b"):
        for cohort in ("source", "target"):
            write_case(tmp_path / cohort, OWN_LAYOUT, f"{cohort}_{case}")
    write_image(tmp_path / "source" / "source_a" / "T1POST.nii.gz", image, np.diag([4.0, 4.0, 4.0, 1.0]))
    turned = np.flip(image[2:-2, :, 3:] * 1.5, 0).astype(np.float32)
    write_image(tmp_path / "target" / "target_b" / "T1POST.nii.gz", turned, np.diag([-4.0, 4.0, 4.0, 1.0]))
    cohorts = {
        name: Cohort(folder=str(tmp_path / name), layout=OWN_LAYOUT, label_map={1: "snfh"}, held_out=1)
        for name in ("source", "target")
    }
    cases = {name: find_cases(cohort, SEQUENCES) for name, cohort in cohorts.items()}
    found = audit_cohorts(cases, cohorts)["target"].findings
    same = found[found.finding.str.contains("holds the same image as")]
    assert same.file.tolist() == ["target_b/T1POST.nii.gz"]
    assert same.severity.tolist() == ["error"]
    assert "source_a/T1POST.nii.gz of the source cohort: a network would be tested on" in same.finding.iloc[0]


def test_a_background_that_is_not_zero_is_a_warning_and_has_its_value(cohort: Cohort, tmp_path: Path) -> None:
    voxels = np.full((6, 5, 4), -3.25, np.float32)
    voxels[2:4, 2:4, 1:3] = np.arange(8).reshape(2, 2, 2)
    path = tmp_path / "a" / "T2.nii.gz"
    write_image(path, voxels)
    audit = audited(cohort)
    audit.require_no_errors()
    assert audit.on_level == {path: -3.25}
    assert audit.findings.finding.tolist() == ["-3.25 surrounds the head, not 0; a copy with 0 there is used instead"]


def test_an_empty_label_map_is_a_warning_and_a_constant_image_an_error(cohort: Cohort, tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "GT.nii.gz", np.zeros((6, 5, 4), np.int16))
    audit = audited(cohort)
    audit.require_no_errors()
    assert audit.findings.finding.tolist() == [
        "holds no lesion; is that so? If it is, list the case in the table of `lesion_free`"
    ]
    write_image(tmp_path / "a" / "T2.nii.gz", np.full((6, 5, 4), 3, np.int16))
    with pytest.raises(CohortError, match=r"every voxel is 3; is it the right file\?"):
        audited(cohort).require_no_errors()
