"""From a raw folder to a plan: names, roles, label maps, what stops, and what is not read twice."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from raw_scans import write_scan

from brainmets.params import Cohort, ParameterError
from brainmets.paths import PreparationPaths
from brainmets.preparation import raw, series, sorting
from brainmets.preparation.sorting import SortingError


def declared(folder: Path, layout: Any = "brats", **changes: Any) -> Cohort:
    own = {"folder": str(folder / "raw"), "prefix": "site", "labels": "labels/{patient}.nii.gz"}
    return Cohort(folder=str(folder / "cohort"), layout=layout, label_map={}, held_out=1, raw={**own, **changes})


@pytest.fixture
def two_patients(tmp_path: Path) -> Path:
    for number, patient in enumerate(("Miller", "Adams")):
        write_scan(tmp_path / "raw" / patient, seed=number)
        (tmp_path / "raw" / "labels").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "raw" / patient / "T1GD.nii.gz", tmp_path / "raw" / "labels" / f"{patient}.nii.gz")
    return tmp_path


def paths(folder: Path) -> PreparationPaths:
    return PreparationPaths(folder / "private")


def silent(line: str) -> None:
    pass


def test_each_patient_becomes_a_case_with_four_series_and_its_label_map(two_patients: Path) -> None:
    plan = sorting.sort(declared(two_patients), paths(two_patients), silent)
    assert sorted(plan) == ["site-00001-000", "site-00002-000"]
    for planned in plan.values():
        chosen = {sequence: one.files[0].name for sequence, one in planned.images.items()}
        assert chosen == {
            "t1n": "T1.nii.gz", "t1c": "T1GD.nii.gz", "t2w": "T2.nii.gz", "t2f": "FLAIR.nii.gz"
        }  # fmt: skip
        assert planned.label is not None
        assert planned.label.name == f"{planned.images['t1c'].files[0].parent.name}.nii.gz"
        assert planned.brain_mask is None


def test_the_plan_reads_back_what_it_takes_to_read_again_and_names_nobody_but_in_paths(two_patients: Path) -> None:
    plan = sorting.sort(declared(two_patients), paths(two_patients), silent)
    again = sorting.read_plan(paths(two_patients))
    for case, planned in plan.items():
        assert again[case].digest == planned.digest
        for sequence, one in planned.images.items():
            back = again[case].images[sequence]
            assert (back.files, back.key, back.number, back.kind) == (one.files, one.key, one.number, one.kind)
            assert (back.patient, back.date) == ("", "")


def test_the_folder_is_the_users_own(two_patients: Path) -> None:
    files = paths(two_patients)
    sorting.sort(declared(two_patients), files, silent)
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (files.key, files.series)} == {0o600}
    assert not (two_patients / "cohort").exists()


def test_started_again_it_reads_no_header(two_patients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sorting.sort(declared(two_patients), paths(two_patients), silent)
    monkeypatch.setattr(raw, "find", lambda *given: pytest.fail("the raw folder was read again"))
    assert sorting.sort(declared(two_patients), paths(two_patients), silent).keys() == first.keys()


@pytest.mark.parametrize("change", ["file", "role", "new patient", "parameter"])
def test_it_looks_anew_where_something_changed(
    two_patients: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    files, declaration = paths(two_patients), declared(two_patients)
    sorting.sort(declaration, files, silent)
    if change == "file":
        (two_patients / "raw" / "Adams" / "note.txt").write_text("x")
    elif change == "role":
        table = series.read(files.series)
        table.loc[0, "role"] = ""
        series.write(files.series, table)
    elif change == "new patient":
        write_scan(two_patients / "raw" / "Zoe", seed=3)
    else:
        declaration = declared(two_patients, prefix="other", key_file=str(two_patients / "other.csv"))
    looked: list[Path] = []
    find = raw.find
    monkeypatch.setattr(raw, "find", lambda folder, say: looked.append(folder) or find(folder, say))
    with suppress(SortingError):  # the new patient has no label map
        sorting.sort(declaration, files, silent)
    assert looked


def test_names_stay_when_patients_come(two_patients: Path) -> None:
    declaration, files = declared(two_patients), paths(two_patients)
    before = sorting.sort(declaration, files, silent)
    write_scan(two_patients / "raw" / "Aaron", seed=3)
    shutil.copy(two_patients / "raw" / "Aaron" / "T1.nii.gz", two_patients / "raw" / "labels" / "Aaron.nii.gz")
    after = sorting.sort(declaration, files, silent)
    assert {case: after[case].digest for case in before} == {case: one.digest for case, one in before.items()}
    assert sorted(set(after) - set(before)) == ["site-00003-000"]


def test_an_uncertain_series_stops_with_what_to_write_and_a_role_decides(tmp_path: Path) -> None:
    write_scan(tmp_path / "raw" / "P", ("T1_a", "T1_b", "T2", "FLAIR"))
    files, declaration = paths(tmp_path), declared(tmp_path, labels=None)
    with pytest.raises(SortingError, match="t1n and t1c are undecided") as refused:
        sorting.sort(declaration, files, silent)
    assert "column role" in str(refused.value)
    assert not files.plan.exists()
    table = series.read(files.series)
    for name, role in (("T1_a", "t1c"), ("T1_b", "t1n")):
        table.loc[table.description == name, "role"] = role
    series.write(files.series, table)
    (planned,) = sorting.sort(declaration, files, silent).values()
    assert planned.images["t1c"].files[0].name == "T1_a.nii.gz"


def test_a_correction_rules_over_a_certain_guess(two_patients: Path) -> None:
    files, declaration = paths(two_patients), declared(two_patients)
    case = min(sorting.sort(declaration, files, silent))
    table = series.read(files.series)
    rows = table[table.case == case].set_index("role").index
    swapped = {"t2w": "t2f", "t2f": "t2w"}
    table.loc[table.case == case, "role"] = [swapped.get(role, role) for role in rows]
    series.write(files.series, table)
    assert sorting.sort(declaration, files, silent)[case].images["t2f"].files[0].name == "T2.nii.gz"


def test_what_is_wrong_is_told_of_all_patients_at_once_and_names_none(two_patients: Path) -> None:
    (two_patients / "raw" / "labels" / "Miller.nii.gz").unlink()
    (two_patients / "raw" / "Adams" / "FLAIR.nii.gz").unlink()
    with pytest.raises(SortingError) as refused:
        sorting.sort(declared(two_patients), paths(two_patients), silent)
    text = str(refused.value)
    assert "no label map" in text
    assert "t2f is undecided" in text
    assert "Miller" not in text.replace("'labels/{patient}.nii.gz'", "")
    assert "Adams" not in text
    assert str(two_patients / "raw") not in text


def test_a_patient_who_is_listed_as_lesion_free_needs_no_label_map(two_patients: Path) -> None:
    """Listed by the case's new name, which the first look tells; a list that changes calls for another look."""
    files, declaration = paths(two_patients), declared(two_patients)
    (two_patients / "raw" / "labels" / "Miller.nii.gz").unlink()
    with pytest.raises(SortingError, match=r"no label map \(list a patient without lesions") as refused:
        sorting.sort(declaration, files, silent)
    case = next(word.strip(":") for word in str(refused.value).split() if word.startswith("site-"))
    listed = two_patients / "free.csv"
    listed.write_text(f"case\n{case}\n")
    declaration = declaration.model_copy(update={"lesion_free": str(listed)})
    plan = sorting.sort(declaration, files, silent)
    (other,) = set(plan) - {case}
    assert plan[case].label is None
    assert plan[other].label is not None
    assert sorting.read_plan(files)[case].label is None
    listed.write_text(f"case\n{other}\n")
    with pytest.raises(SortingError, match=f"case {case}: no label map"):
        sorting.sort(declaration, files, silent)


def test_two_scans_may_not_share_a_label_map(tmp_path: Path) -> None:
    """The same grid on both dates would take it without a word."""
    for date in ("2020", "2021"):
        write_scan(tmp_path / "raw" / "P" / date)
    (tmp_path / "raw" / "labels").mkdir()
    for name in ("P", "P_2020", "P_2021"):
        shutil.copy(tmp_path / "raw" / "P" / "2020" / "T1GD.nii.gz", tmp_path / "raw" / "labels" / f"{name}.nii.gz")
    with pytest.raises(SortingError, match=r"would share one label map or brain mask: write \{date\}"):
        sorting.sort(declared(tmp_path), paths(tmp_path), silent)
    (tmp_path / "raw" / "labels" / "P.nii.gz").unlink()
    dated = declared(tmp_path, labels="labels/{patient}_{date}.nii.gz")
    assert len({one.label for one in sorting.sort(dated, paths(tmp_path), silent).values()}) == 2


@pytest.mark.parametrize(
    ("cohort", "private"),
    [("raw", "private"), ("raw/cohort", "private"), (".", "elsewhere"), ("cohort", "cohort/private"), ("c", "raw/p")],
)
def test_raw_scans_the_cohort_and_what_is_private_lie_apart(two_patients: Path, cohort: str, private: str) -> None:
    declaration = declared(two_patients).model_copy(update={"folder": str(two_patients / cohort)})
    with pytest.raises(SortingError, match="lie one within the other"):
        sorting.sort(declaration, PreparationPaths(two_patients / private), silent)


def test_a_folder_of_masks_that_no_pattern_names_is_told_for_what_it_may_be(two_patients: Path) -> None:
    with pytest.raises(SortingError, match=r"if it holds label maps or masks, name them with raw\.labels"):
        sorting.sort(declared(two_patients, labels=None), paths(two_patients), silent)


def test_a_broken_file_is_told_with_the_case_that_lacks_it(two_patients: Path) -> None:
    (two_patients / "raw" / "Adams" / "T2.nii.gz").write_bytes(b"")
    with pytest.raises(SortingError, match=r"series \d cannot be used: is empty \(0 bytes\); copy it again"):
        sorting.sort(declared(two_patients), paths(two_patients), silent)


def test_one_patients_own_folder_is_told_from_an_empty_one(tmp_path: Path) -> None:
    write_scan(tmp_path / "raw")
    with pytest.raises(SortingError, match=r"^1 scan\(s\) .*\n.* in no patient's folder"):
        sorting.sort(declared(tmp_path, labels=None), paths(tmp_path), silent)


def test_a_case_that_is_left_out_needs_nothing(two_patients: Path) -> None:
    (two_patients / "raw" / "labels" / "Miller.nii.gz").unlink()
    with pytest.raises(SortingError) as refused:
        sorting.sort(declared(two_patients), paths(two_patients), silent)
    without = next(word for word in str(refused.value).split() if word.startswith("site-")).strip(":")
    plan = sorting.sort(declared(two_patients, left_out=[without]), paths(two_patients), silent)
    assert len(plan) == 1
    assert without not in plan


def test_a_name_to_leave_out_that_is_nobodys_is_refused(two_patients: Path) -> None:
    with pytest.raises(SortingError, match=r"left_out, accepted .*: site-9: there is no such case"):
        sorting.sort(declared(two_patients, left_out=["site-9"]), paths(two_patients), silent)


def test_scans_of_one_patient_must_be_one_patient_to_the_layout(tmp_path: Path) -> None:
    for date in ("2020", "2021"):
        write_scan(tmp_path / "raw" / "P" / date, seed=int(date))
    files = paths(tmp_path)
    assert sorted(sorting.sort(declared(tmp_path, labels=None), files, silent)) == ["site-00001-000", "site-00001-001"]
    patterns = {name: f"{{case}}/{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "label")}
    with pytest.raises(SortingError, match=r"scans of one patient, yet layout\.patient takes them for several"):
        sorting.sort(declared(tmp_path, layout=patterns, labels=None), files, silent)


def test_a_look_writes_nothing(two_patients: Path) -> None:
    found = sorting.look(declared(two_patients), paths(two_patients), silent)
    assert sorted(found.plan) == ["site-00001-000", "site-00002-000"]
    assert found.problems == []
    assert not paths(two_patients).folder.exists() or not any(paths(two_patients).folder.glob("*.csv"))


def test_an_empty_folder_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SortingError, match=r"raw\.folder: .* is no folder"):
        sorting.sort(declared(tmp_path), paths(tmp_path), silent)
    (tmp_path / "raw").mkdir()
    with pytest.raises(SortingError, match="the folder is empty: put the export of the scans there"):
        sorting.sort(declared(tmp_path), paths(tmp_path), silent)


def test_a_key_file_within_the_cohort_is_refused(two_patients: Path) -> None:
    with pytest.raises(ValueError, match="lies in the cohort's folder"):
        sorting.sort(
            declared(two_patients, key_file=str(two_patients / "cohort" / "key.csv")), paths(two_patients), silent
        )


def test_an_identifier_with_a_slash_finds_its_label_map_and_leaves_no_folder(tmp_path: Path) -> None:
    who = ("12/34", "")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "12_34.nii.gz").write_bytes(b"")
    found = sorting.file_of(tmp_path, "labels/{patient}.nii.gz", who, "no label map")
    assert found == tmp_path / "labels" / "12_34.nii.gz"


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("labels/case.nii.gz", "must contain {patient}"),
        ("labels/{patient}_{case}.nii.gz", "holds a stray"),
        ("labels/{patient}.mha", "must end with"),
    ],
)
def test_a_pattern_that_cannot_be_one_is_refused(tmp_path: Path, pattern: str, problem: str) -> None:
    with pytest.raises(ParameterError, match=rf"raw\.labels: .*{problem}"):
        declared(tmp_path, labels=pattern)


def test_a_label_map_elsewhere_and_a_linked_scan_are_watched_too(tmp_path: Path) -> None:
    """Both lie outside the raw folder, where a walk through it does not come."""
    write_scan(tmp_path / "real" / "P")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "P").symlink_to(tmp_path / "real" / "P")
    label = tmp_path / "drawn" / "P.nii.gz"
    label.parent.mkdir()
    shutil.copy(tmp_path / "real" / "P" / "T1GD.nii.gz", label)
    declaration = declared(tmp_path, labels=str(tmp_path / "drawn" / "{patient}.nii.gz"))
    digests = [_only(sorting.sort(declaration, paths(tmp_path), silent)).digest]
    label.write_bytes(label.read_bytes() + b"corrected")
    digests.append(_only(sorting.sort(declaration, paths(tmp_path), silent)).digest)
    os.utime(tmp_path / "real" / "P" / "T2.nii.gz", (1, 1))
    digests.append(_only(sorting.sort(declaration, paths(tmp_path), silent)).digest)
    assert len(set(digests)) == 3


def _only(plan: dict[str, sorting.Planned]) -> sorting.Planned:
    (one,) = plan.values()
    return one


def test_a_scan_that_comes_while_headers_are_read_is_not_lost(
    two_patients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = raw.find

    def slow(folder: Path, say: Any) -> Any:
        found = find(folder, say)
        write_scan(two_patients / "raw" / "Late", seed=5)
        shutil.copy(two_patients / "raw" / "Late" / "T1.nii.gz", two_patients / "raw" / "labels" / "Late.nii.gz")
        monkeypatch.setattr(raw, "find", find)
        return found

    monkeypatch.setattr(raw, "find", slow)
    assert len(sorting.sort(declared(two_patients), paths(two_patients), silent)) == 2
    assert len(sorting.sort(declared(two_patients), paths(two_patients), silent)) == 3


def test_cases_of_another_preparation_are_not_written_over(two_patients: Path) -> None:
    there = two_patients / "cohort" / "site-00001-000" / "site-00001-000-t1n.nii.gz"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"another patient's")
    with pytest.raises(SortingError, match="case site-00001-000: the cohort's folder holds files of this name"):
        sorting.sort(declared(two_patients), paths(two_patients), silent)
    assert there.read_bytes() == b"another patient's"


def test_a_private_folder_that_others_may_enter_is_refused_and_left_as_it_is(two_patients: Path) -> None:
    shared = two_patients / "shared"
    shared.mkdir(mode=0o755)
    with pytest.raises(SortingError, match="can be entered by others"):
        sorting.sort(declared(two_patients), PreparationPaths(shared), silent)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


def test_one_case_is_known_while_others_come_and_looked_up_anew_when_its_role_changes(
    two_patients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration, files = declared(two_patients), paths(two_patients)
    case, before = next(iter(sorting.sort(declaration, files, silent).items()))
    write_scan(two_patients / "raw" / "Late", seed=5)  # without a label map: sorting all would stop
    assert sorting.planned(declaration, files, case, silent).digest == before.digest
    shutil.rmtree(two_patients / "raw" / "Late")
    table = series.read(files.series)
    mine = table.case == case
    table.loc[mine, "role"] = table[mine].role.replace({"t2w": "t2f", "t2f": "t2w"})
    series.write(files.series, table)
    assert sorting.planned(declaration, files, case, silent).digest != before.digest
    with pytest.raises(SortingError, match="case: 'site-9' is none of the raw scans'"):
        sorting.planned(declaration, files, "site-9", silent)


def test_each_scan_by_itself_leaves_the_undecided_ones_out(two_patients: Path) -> None:
    """What ``sort`` refuses as a whole, since one of two scans lacks a sequence."""
    (two_patients / "raw" / "Adams" / "FLAIR.nii.gz").unlink()
    declaration, files = declared(two_patients), paths(two_patients)
    with pytest.raises(SortingError):
        sorting.sort(declaration, files, silent)
    plan, undecided = sorting.sort_each(declaration, files, silent)
    assert len(plan) == len(undecided) == 1 and set(plan) | set(undecided) == {"site-00001-000", "site-00002-000"}
    assert "t2f" in next(iter(undecided.values()))
    assert set(sorting.read_plan(files)) == set(plan)
    with pytest.raises(SortingError):  # the plan of some does not pass for one of all
        sorting.sort(declaration, files, silent)
    write_scan(two_patients / "new")
    shutil.copy(two_patients / "new" / "FLAIR.nii.gz", two_patients / "raw" / "Adams" / "FLAIR.nii.gz")
    plan, undecided = sorting.sort_each(declaration, files, silent)
    assert len(plan) == 2 and not undecided
    digests = {case: one.digest for case, one in plan.items()}  # a plan that is read again names nobody
    for again in (sorting.sort(declaration, files, silent), sorting.sort_each(declaration, files, silent)[0]):
        assert {case: one.digest for case, one in again.items()} == digests


def test_each_scan_by_itself_still_stops_for_what_is_no_single_scans_fault(two_patients: Path) -> None:
    shutil.copy(two_patients / "raw" / "Adams" / "T1.nii.gz", two_patients / "raw" / "T1.nii.gz")
    with pytest.raises(SortingError, match="in no patient's folder"):
        sorting.sort_each(declared(two_patients), paths(two_patients), silent)
