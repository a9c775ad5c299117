"""Cases that the audit leaves out: which, why, and what is said of those that stay."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort_files import OWN_LAYOUT, write_case, write_image
from damaged_images import checksum_off

from brainmets import tables
from brainmets.cohorts.audit import (
    QUARANTINE_COLUMNS,
    Audit,
    audit_cohorts,
    left_out,
    quarantine,
    quarantined,
    write_page,
)
from brainmets.cohorts.cohort import Case, CohortError, find_cases
from brainmets.cohorts.rules import QUARANTINED
from brainmets.cohorts.splits import SplitError, split_cohort
from brainmets.params import Cohort
from brainmets.paths import StudyPaths
from brainmets.vocabulary import SEQUENCES

NAMES = ("P1_a", "P1_b", "P2_a", "P3_a", "P4_a")


def labels() -> np.ndarray:
    drawn = np.zeros((6, 5, 4), np.int16)
    drawn[2:4, 2, 1] = 3
    return drawn


def declared(folder: Path, held_out: int | list[str] = 1) -> Cohort:
    layout = {**OWN_LAYOUT, "patient": "([A-Z][0-9])"}
    return Cohort(folder=str(folder), layout=layout, label_map={3: "et"}, held_out=held_out, pseudonyms=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_case(tmp_path / "target", OWN_LAYOUT, name, labels())
    for name in ("S1_a", "S1_b", "S2_a"):
        write_case(tmp_path / "source", OWN_LAYOUT, name, labels())
    return tmp_path


def audited(folder: Path, held_out: int | list[str] = 1) -> tuple[dict[str, Audit], dict[str, list[Case]]]:
    """Audits and the cases that stay."""
    cohorts = {"source": declared(folder / "source", 0), "target": declared(folder / "target", held_out)}
    cases = {name: find_cases(cohort, SEQUENCES) for name, cohort in cohorts.items()}
    audits = audit_cohorts(cases, cohorts)
    return audits, quarantine(audits, cases, cohorts)


def left(audits: dict[str, Audit], cohort: str = "target") -> list[tuple[str, str]]:
    table = audits[cohort].quarantined
    assert tuple(table.columns) == QUARANTINE_COLUMNS
    return list(zip(table.case, table.rule, strict=True))


def test_without_an_error_nothing_is_left_out(folder: Path) -> None:
    audits, kept = audited(folder)
    assert (left(audits), left(audits, "source")) == ([], [])
    assert [case.case for case in kept["target"]] == list(NAMES)
    audits["target"].require_no_errors()


def test_a_file_that_cannot_be_used_leaves_out_its_case_and_not_its_patient(folder: Path) -> None:
    checksum_off(folder / "target" / "P1_a" / "T2.nii.gz")
    write_image(folder / "target" / "P1_a" / "FLAIR.nii.gz", np.full((6, 5, 4), np.nan))
    audits, kept = audited(folder)
    assert left(audits) == [("P1_a", "checksum"), ("P1_a", "not finite")]
    assert [case.case for case in kept["target"]] == ["P1_b", "P2_a", "P3_a", "P4_a"]
    assert audits["target"].cases.case.tolist() == ["P1_b", "P2_a", "P3_a", "P4_a"]
    assert set(audits["target"].loads) == {"P1_b", "P2_a", "P3_a", "P4_a"}
    found = audits["target"].findings
    assert set(found[found.case == "P1_a"].severity) >= {QUARANTINED}
    assert "error" not in set(found.severity)
    audits["target"].require_no_errors()


def test_one_scan_under_two_patients_leaves_out_both_with_all_their_scans(folder: Path) -> None:
    twin = (folder / "target" / "P1_a" / "T1POST.nii.gz").read_bytes()
    (folder / "target" / "P2_a" / "T1POST.nii.gz").write_bytes(twin)
    audits, kept = audited(folder)
    assert sorted(left(audits)) == [(name, "scan of two patients") for name in ("P1_a", "P1_b", "P2_a")]
    assert [case.case for case in kept["target"]] == ["P3_a", "P4_a"]
    audits["target"].require_no_errors()


def test_a_scan_in_both_cohorts_leaves_its_patient_out_of_the_source(folder: Path) -> None:
    twin = (folder / "source" / "S1_b" / "T1.nii.gz").read_bytes()
    (folder / "target" / "P2_a" / "T1.nii.gz").write_bytes(twin)
    audits, kept = audited(folder)
    assert left(audits, "source") == [("S1_a", "scan in both cohorts"), ("S1_b", "scan in both cohorts")]
    assert left(audits) == []
    assert [len(kept[name]) for name in ("source", "target")] == [1, 5]
    for audit in audits.values():
        audit.require_no_errors()


def test_an_error_about_the_cohort_stops_all_the_same(folder: Path) -> None:
    for name in NAMES:
        write_image(folder / "target" / name / "GT.nii.gz", np.zeros((6, 5, 4), np.int16))
    audits, _ = audited(folder)
    with pytest.raises(CohortError, match="no label map holds any tumour"):
        audits["target"].require_no_errors()


def test_what_is_said_of_the_cohort_is_said_of_those_that_stay(folder: Path) -> None:
    """The one case with tumour is left out: none is left to learn from."""
    for name in NAMES[1:]:
        write_image(folder / "target" / name / "GT.nii.gz", np.zeros((6, 5, 4), np.int16))
    checksum_off(folder / "target" / "P1_a" / "T2.nii.gz")
    audits, _ = audited(folder)
    with pytest.raises(CohortError, match=r"1 finding(.|\n)*no label map holds any tumour"):
        audits["target"].require_no_errors()


def test_a_held_out_case_that_is_named_is_not_left_out_in_silence(folder: Path) -> None:
    checksum_off(folder / "target" / "P3_a" / "T2.nii.gz")
    with pytest.raises(CohortError, match=r"target\.held_out names case(.|\n)*P3_a: checksum: is damaged"):
        audited(folder, held_out=["P2_a", "P3_a"])


def test_too_few_cases_left_are_the_splits_error(folder: Path) -> None:
    for name in NAMES[2:]:
        checksum_off(folder / "target" / name / "T2.nii.gz")
    _, kept = audited(folder)
    patients = {case.case: case.patient for case in kept["target"]}
    with pytest.raises(
        SplitError, match=r"target: 1 patient; audit\.n_folds is 2: lower audit\.n_folds, or add patients"
    ):
        split_cohort(patients, 0, 2, seed=1, cohort="target")


def test_a_study_remembers_what_was_left_out(folder: Path) -> None:
    files = StudyPaths(str(folder / "work"), "own")
    assert quarantined(files).empty
    assert left_out(files) == []
    checksum_off(folder / "target" / "P4_a" / "T2.nii.gz")
    audits, _ = audited(folder)
    for name, audit in audits.items():
        tables.write(files.quarantined(name), audit.quarantined)
    (row,) = quarantined(files).itertuples(index=False)
    assert (row.cohort, row.case, row.rule) == ("target", "P4_a", "checksum")
    assert row.finding.startswith("is damaged: ")
    told = "The audit left 1 case(s) of the target cohort out of the study (rule: checksum): P4_a."
    assert left_out(files) == [told]


# --- how the files are read ----------------------------------------------------------------------------------------


def test_each_file_is_opened_once_and_a_line_tells_of_each_case(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    plain = Path.open

    def counted(self: Path, *args: object, **options: object) -> object:
        opened.append(self)
        return plain(self, *args, **options)

    monkeypatch.setattr(Path, "open", counted)
    monkeypatch.setattr(nib, "load", None)
    cohort = declared(folder / "target")
    cases = find_cases(cohort, SEQUENCES)
    lines: list[str] = []
    audit_cohorts({"target": cases}, {"target": cohort}, progress=lines.append)
    assert sorted(path for path in opened if path.suffix == ".gz") == sorted((folder / "target").rglob("*.nii.gz"))
    assert [line.partition(",")[0] for line in lines] == [f"case {n} of 5: {case}" for n, case in enumerate(NAMES, 1)]
    assert lines[-1].endswith(" s, 0 s left")


@pytest.mark.slow
def test_cases_in_parallel_give_what_one_after_the_other_gives(folder: Path) -> None:
    checksum_off(folder / "target" / "P3_a" / "T2.nii.gz")
    cohort = declared(folder / "target")
    cases = {"target": find_cases(cohort, SEQUENCES)}
    one, two = (audit_cohorts(cases, {"target": cohort}, workers)["target"] for workers in (1, 2))
    assert one.findings.equals(two.findings)
    assert one.cases.equals(two.cases)
    assert [scan[:3] for scan in one.scans] == [scan[:3] for scan in two.scans]


def test_the_page_shows_every_case_with_its_findings_to_its_owner_alone(folder: Path) -> None:
    checksum_off(folder / "target" / "P3_a" / "T1POST.nii.gz")
    audits, _ = audited(folder)
    page = write_page(folder / "cases.html", "target", audits["target"])
    text = page.read_text()
    assert page.stat().st_mode & 0o077 == 0
    assert all(name in text for name in NAMES)
    assert text.count("data:image/jpeg") == 4
    assert "gzip&#39;s checksum" in text or "gzip's checksum" in text
    assert str(folder) not in text
