"""Pseudonyms from where cases are found: whose they are says the key alone, and no later file or picture."""

import json
import shutil
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import papermill
import pytest
import study_on_disk
from cohort_files import OWN_LAYOUT, write_case
from small_study import TARGET_LAYOUT

from brainmets import nifti
from brainmets.cohorts import splits
from brainmets.cohorts.audit import audit_cohorts
from brainmets.cohorts.cohort import CohortError, read_manifest, require_files, write_manifest
from brainmets.cohorts.pseudonyms import cases_of, known_cases
from brainmets.params import Cohort, ParameterError
from brainmets.paths import StudyPaths
from brainmets.phantoms import sites
from brainmets.vocabulary import SEQUENCES

NOTEBOOK = study_on_disk.REPOSITORY / "notebooks" / "01_data_audit.ipynb"
NAMES = ["Kowalczyk_1975_a", "Kowalczyk_1975_b", "Kowalczyk", "Øre {x} y"]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, so that nothing depends on where the tests run."""
    root = tmp_path / "checkout"
    for folder in ("notebooks", "params"):
        (root / folder).mkdir(parents=True)
    monkeypatch.setenv("BRAINMETS_ROOT", str(root))
    return root


@pytest.fixture
def files() -> StudyPaths:
    return StudyPaths("work", "tiny")


def cohort(folder: Path, names: list[str], **changes: object) -> Cohort:
    """A cohort of one case per name, whose patient is the name up to an underscore and one letter."""
    for name in names:
        if not (folder / name).is_dir():
            write_case(folder, OWN_LAYOUT, name)
    layout = {**OWN_LAYOUT, "patient": "(.+?)(?:_[a-z])?$"}
    content = {"folder": str(folder), "layout": layout, "label_map": {1: "snfh", 4: "netc"}, "held_out": 1}
    return Cohort(**{**content, **changes})


def test_cases_patients_and_files_have_pseudonyms_and_the_key_says_whose(checkout: Path, files: StudyPaths) -> None:
    cases = cases_of("target", cohort(checkout / "cohort", NAMES), SEQUENCES, files)
    assert len({case.case for case in cases}) == 4
    assert {case.patient for case in cases} == {f"target-0000{number}" for number in (1, 2, 3)}
    scans = [case.case for case in cases if case.own_name.startswith("Kowalczyk_1975")]
    assert scans == [f"{scans[0].removesuffix('000')}{number}" for number in ("000", "001")], "one patient's"
    key = files.key("target")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.private("target").stat().st_mode) == 0o700
    rows = [line.strip('"').split('","') for line in key.read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["patient", "case", "pseudonym"]
    assert {row[1] for row in rows[1:]} == set(NAMES)
    whose = {row[2]: row[1] for row in rows[1:]}
    for case in cases:
        assert case.case.rsplit("-", 1)[0] == case.patient
        for path in case.paths:
            assert path.name.startswith(f"{case.case}_")
            assert path.resolve().parent.name == whose[case.case]
        assert not [word for word in ("Kowalczyk", "1975", "Øre") if word in repr(case)]


def test_names_that_look_like_numbers_are_names(checkout: Path, files: StudyPaths) -> None:
    """As case names, "1" and "001" were searched for in the whole report."""
    cases = cases_of("target", cohort(checkout / "cohort", ["1", "2", "001", "002"]), SEQUENCES, files)
    assert sorted(case.case for case in cases) == [f"target-0000{number}-000" for number in (1, 2, 3, 4)]


def test_the_order_is_not_that_of_the_names_and_without_the_key_it_is_found_again(
    checkout: Path, files: StudyPaths
) -> None:
    names = [f"2023-{month:02d}-{day:02d}" for month in (1, 2, 3) for day in (4, 5, 6)]
    declaration = cohort(checkout / "cohort", names)
    first = {case.own_name: case.case for case in cases_of("target", declaration, SEQUENCES, files)}
    assert [first[name] for name in names] != sorted(first.values())
    files.key("target").unlink()
    assert {case.own_name: case.case for case in cases_of("target", declaration, SEQUENCES, files)} == first
    # the order rests on the images: a list of names alone does not give it
    files.key("target").unlink()
    shutil.rmtree(checkout / "cohort")
    swapped = dict(zip(names, names[1:] + names[:1], strict=True))
    for name, other in swapped.items():
        write_case(checkout / "made", OWN_LAYOUT, other)
        shutil.copytree(checkout / "made" / other, checkout / "cohort" / name)
    again = {case.own_name: case.case for case in cases_of("target", declaration, SEQUENCES, files)}
    assert again == {name: first[other] for name, other in swapped.items()}


def test_pseudonyms_stay_and_new_cases_come_after_them(checkout: Path, files: StudyPaths) -> None:
    folder = checkout / "cohort"
    before = {case.own_name: case.case for case in cases_of("target", cohort(folder, ["m", "n"]), SEQUENCES, files)}
    after = {
        case.own_name: case.case
        for case in cases_of("target", cohort(folder, ["a", "m", "m_b", "z"]), SEQUENCES, files)
    }
    assert {name: after[name] for name in before} == before
    assert {after["a"], after["z"]} == {"target-00003-000", "target-00004-000"}
    assert after["m_b"] == before["m"].removesuffix("000") + "001"


def test_a_key_that_others_can_read_is_refused(checkout: Path, files: StudyPaths) -> None:
    declaration = cohort(checkout / "cohort", ["a", "b"])
    cases_of("target", declaration, SEQUENCES, files)
    files.key("target").chmod(0o640)
    with pytest.raises(CohortError, match=r"target: the key file key\.csv can be used by others.*chmod 600"):
        cases_of("target", declaration, SEQUENCES, files)


def test_a_name_that_is_a_formula_is_none_in_the_key(checkout: Path, files: StudyPaths) -> None:
    cases_of("target", cohort(checkout / "cohort", ["=cmd()", "b"]), SEQUENCES, files)
    assert '"\'=cmd()"' in files.key("target").read_text()
    assert {case.own_name for case in cases_of("target", cohort(checkout / "cohort", []), SEQUENCES, files)} == {
        "=cmd()",
        "b",
    }


def test_why_a_cohort_cannot_be_read_is_told_in_private(checkout: Path, files: StudyPaths) -> None:
    declaration = cohort(checkout / "cohort", NAMES)
    (checkout / "cohort" / NAMES[0] / "T1.nii.gz").unlink()
    with pytest.raises(CohortError) as refused:
        cases_of("target", declaration, SEQUENCES, files)
    assert "private/target/unusable.txt in the study's folder" in str(refused.value)
    assert refused.value.__suppress_context__, "a traceback would show it"
    assert "Kowalczyk" not in str(refused.value)
    assert f"1 file(s) missing: {NAMES[0]}/T1.nii.gz" in files.unusable("target").read_text()
    with pytest.raises(CohortError, match=r"1 file.s. missing: Kowalczyk_1975_a"):
        known_cases("target", declaration, SEQUENCES, files)  # what -n says to the user's own terminal
    write_case(checkout / "cohort", OWN_LAYOUT, NAMES[0])
    cases_of("target", declaration, SEQUENCES, files)
    assert not files.unusable("target").exists()


def test_held_out_lists_pseudonyms_alone(checkout: Path, files: StudyPaths) -> None:
    folder = checkout / "cohort"
    with pytest.raises(ParameterError, match=r"lists other names than pseudonyms.*Give a number") as refused:
        cohort(folder, NAMES, held_out=["Kowalczyk"])
    assert "Kowalczyk" not in str(refused.value)
    listed = cohort(folder, NAMES, held_out=["target-00001-000"])
    for find in (cases_of, known_cases):
        with pytest.raises(CohortError, match=r"target\.held_out lists pseudonyms, and the key .*restore it, or give"):
            find("target", listed, SEQUENCES, files)
    cases_of("target", cohort(folder, NAMES), SEQUENCES, files)
    found, known = cases_of("target", listed, SEQUENCES, files), known_cases("target", listed, SEQUENCES, files)
    assert {case.case: case.patient for case in found} == {case.case: case.patient for case in known}
    assert cohort(folder, NAMES, held_out=["Kowalczyk"], pseudonyms=False).held_out == ["Kowalczyk"]


def test_a_look_without_a_key_writes_nothing(checkout: Path, files: StudyPaths) -> None:
    cases = known_cases("target", cohort(checkout / "cohort", NAMES), SEQUENCES, files)
    assert {case.case for case in cases} == set(NAMES)
    assert not files.work.exists()


def test_cases_that_notebook_00_prepared_keep_their_new_names(checkout: Path, files: StudyPaths) -> None:
    declaration = cohort(checkout / "cohort", ["site-00001-000", "Kowalczyk"])
    made = files.preparation("target").prepared("site-00001-000")
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    assert [case.case for case in cases_of("target", declaration, SEQUENCES, files)] == [
        "site-00001-000",
        "target-00001-000",
    ]
    assert "site" not in files.key("target").read_text()


def test_a_prefix_of_raw_scans_is_none_of_pseudonyms(checkout: Path) -> None:
    with pytest.raises(ParameterError, match=r"raw\.prefix: 'target' is what pseudonyms begin with"):
        cohort(checkout / "cohort", [], raw={"folder": "raw", "prefix": "target"})


def test_without_pseudonyms_names_stay_and_older_links_go(checkout: Path, files: StudyPaths) -> None:
    names = ["a", "b"]
    cases_of("target", cohort(checkout / "cohort", names), SEQUENCES, files)
    cases = cases_of("target", cohort(checkout / "cohort", names, pseudonyms=False), SEQUENCES, files)
    assert [case.case for case in cases] == names
    assert cases[0].label == checkout / "cohort" / "a" / "GT.nii.gz"
    assert not files.links("target").exists()


def test_scans_of_a_patient_are_still_noticed_by_their_names(checkout: Path, files: StudyPaths) -> None:
    names = ["Anna_2020-01-01", "Anna_2021-01-01", "Berta_2020-01-01", "Carla_2020-01-01"]
    declaration = cohort(checkout / "cohort", names, layout={**OWN_LAYOUT, "patient": "(.+)"})
    cases = cases_of("target", declaration, SEQUENCES, files)
    findings = audit_cohorts({"target": cases}, {"target": declaration})["target"].findings
    (told,) = [text for text in findings.finding if "look like scans of one" in text]
    assert told.count("target-0000") == 2
    assert "Anna" not in findings.to_csv()


# --- a checkout that moved -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pseudonymous", [True, False])
def test_a_checkout_that_moved_finds_its_cohort(
    checkout: Path, files: StudyPaths, monkeypatch: pytest.MonkeyPatch, pseudonymous: bool
) -> None:
    declaration = cohort(checkout / "cohort", ["a", "b"], pseudonyms=pseudonymous)
    declaration = declaration.model_copy(update={"folder": "cohort"})
    write_manifest(files.manifest("target"), cases_of("target", declaration, SEQUENCES, files), SEQUENCES)
    assert str(checkout) not in files.manifest("target").read_text()
    moved = checkout.rename(checkout.with_name("elsewhere"))
    monkeypatch.setenv("BRAINMETS_ROOT", str(moved))
    cases = read_manifest(files.manifest("target")).values()
    require_files(cases)
    assert all(moved in path.parents for case in cases for path in case.paths)
    assert nifti.read_volume(next(iter(cases)).images["t1c"])[0].shape == (6, 5, 4)


@pytest.mark.parametrize("pseudonymous", [True, False])
def test_a_cohort_that_moved_is_told(checkout: Path, files: StudyPaths, tmp_path: Path, pseudonymous: bool) -> None:
    declaration = cohort(tmp_path / "hospital", ["a", "b"], pseudonyms=pseudonymous)
    write_manifest(files.manifest("target"), cases_of("target", declaration, SEQUENCES, files), SEQUENCES)
    require_files(read_manifest(files.manifest("target")).values())
    (tmp_path / "hospital").rename(tmp_path / "clinic")
    with pytest.raises(CohortError, match=r"10 file.s. .* are no longer where notebook 01 found them, such as \S+gz"):
        require_files(read_manifest(files.manifest("target")).values())


# --- another study's files -----------------------------------------------------------------------------------------


@pytest.fixture
def two_studies(checkout: Path) -> tuple[StudyPaths, StudyPaths]:
    """Two studies of two cohorts, with the same names of cases."""
    found = []
    for number, study in enumerate(("one", "other")):
        files = StudyPaths("work", study)
        folder = checkout / f"cohort_{study}"
        declaration = cohort(folder, ["a", "b", "c"], pseudonyms=False)
        for name in "abc":
            labels = np.zeros((6, 5, 4), np.int16)
            labels[number] = 1
            nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / name / "GT.nii.gz")
        cases = cases_of("target", declaration, SEQUENCES, files)
        write_manifest(files.manifest("target"), cases, SEQUENCES)
        patients = {case.case: case.patient for case in cases}
        splits.write(files, {"target": splits.split_cohort(patients, ["c"] if number else ["a"], 2, 1)})
        found.append(files)
    return found[0], found[1]


def test_a_split_is_read_as_it_was_written(two_studies: tuple[StudyPaths, StudyPaths]) -> None:
    split = splits.read(two_studies[0], "target")
    assert split["held_out"] == ["a"]
    assert sorted(case for fold in split["folds"] for case in fold["val"]) == ["b", "c"]


def test_the_split_of_another_study_is_refused(two_studies: tuple[StudyPaths, StudyPaths]) -> None:
    one, other = two_studies
    shutil.copy(other.splits, one.splits)
    with pytest.raises(splits.SplitError, match=r"splits\.json is of study 'other', not of 'one': run notebook 01"):
        splits.read(one, "target")
    # the name alone, taken from another checkout's study of the same name
    content = json.loads(other.splits.read_text())
    one.splits.write_text(json.dumps({**content, "study": "one"}))
    with pytest.raises(splits.SplitError, match="drawn from another target cohort than manifest"):
        splits.read(one, "target")


def test_the_manifest_of_another_study_or_cohort_is_refused(two_studies: tuple[StudyPaths, StudyPaths]) -> None:
    one, other = two_studies
    shutil.copy(other.manifest("target"), one.manifest("target"))
    with pytest.raises(CohortError, match=r"manifest\.json in one/target is of study 'other', target cohort, and was"):
        read_manifest(one.manifest("target"))
    other.manifest("source").parent.mkdir()
    shutil.copy(other.manifest("target"), other.manifest("source"))
    with pytest.raises(CohortError, match=r"manifest\.json in other/source is of study 'other', target cohort"):
        read_manifest(other.manifest("source"))
    one.manifest("target").write_text('{"a": {"patient": "a", "images": {}, "label": "x"}}')
    with pytest.raises(CohortError, match="is none of this version's: run notebook 01"):
        read_manifest(one.manifest("target"))


@pytest.mark.parametrize("cases", [[], {"a": 3}, {"a": {"patient": "a", "images": {}, "label": "x"}}, {"a": []}])
def test_a_manifest_that_was_changed_is_refused(
    two_studies: tuple[StudyPaths, StudyPaths], cases: list[object] | dict[str, object]
) -> None:
    path = two_studies[0].manifest("target")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cases": cases}))
    with pytest.raises(CohortError, match=r"manifest\.json of the target cohort does not hold patient, images and"):
        read_manifest(path)


@pytest.mark.parametrize(
    "change",
    [
        {"target": None}, {"target": {"held_out": "a", "folds": []}}, {"target": {"held_out": ["a"], "folds": []}},
        {"target": {"held_out": ["a"], "folds": [{"train": ["b"]}]}}, {"study": None}, {"cohorts": []},
        {"target": {"held_out": ["a"], "folds": [{"train": ["b"], "val": [3]}]}},
    ],
)  # fmt: skip
def test_a_file_that_is_no_split_is_refused(two_studies: tuple[StudyPaths, StudyPaths], change: dict) -> None:
    path = two_studies[0].splits
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(splits.SplitError, match="holds no split of the target cohort as notebook 01 writes it"):
        splits.read(two_studies[0], "target")


def test_a_split_that_lost_or_doubled_a_case_is_refused(two_studies: tuple[StudyPaths, StudyPaths]) -> None:
    path = two_studies[0].splits
    content = json.loads(path.read_text())
    for held_out in ([], ["a", "b"]):
        content["target"]["held_out"] = held_out
        path.write_text(json.dumps(content))
        with pytest.raises(splits.SplitError, match="does not hold every case of the target cohort once per fold"):
            splits.read(two_studies[0], "target")


def test_scores_of_other_cases_are_refused(two_studies: tuple[StudyPaths, StudyPaths]) -> None:
    splits.require_held_out(two_studies[0], ["a", "a"], "scores.csv")
    with pytest.raises(splits.SplitError, match=r"scores\.csv holds 1 case.s. that are not held out .* such as 'c'"):
        splits.require_held_out(two_studies[0], ["a", "c"], "scores.csv")
    with pytest.raises(splits.SplitError, match=r"scores\.csv lacks 1 of those that are held out .* such as 'a'"):
        splits.require_held_out(two_studies[0], [], "scores.csv")


# --- notebook 01, as it runs ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_notebook_01_leaves_names_nobody(checkout: Path, files: StudyPaths) -> None:
    source, target = checkout / "cohorts" / "source", checkout / "cohorts" / "target"
    sites.make_cohort(source, "source", 4, 5.0, seed=1)
    sites.make_cohort(target, "target", 6, 5.0, seed=2)
    study_on_disk.rename(target, ["Kowalczyk_1975", "Kowalczyk_1975 b", "Kowalczyk {1975}", "Kowalczyk_1975-3"])
    label_map = {1: "snfh", 2: "netc", 3: "et", 4: "netc"}
    values = {
        "study": files.study, "work_dir": files.work_dir, "seed": 1, "n_folds": 2,
        "source": {
            "folder": str(source), "layout": "brats", "label_map": {1: "netc", 2: "snfh", 3: "et"}, "held_out": 0,
            "pseudonyms": False,
        },
        "target": {
            "folder": str(target), "layout": {**TARGET_LAYOUT, "patient": "(.+)"}, "label_map": label_map,
            "held_out": 2, "draw": "by_load",
        },
    }  # fmt: skip
    executed = files.runs / "01_data_audit.ipynb"
    executed.parent.mkdir(parents=True)
    papermill.execute_notebook(str(NOTEBOOK), str(executed), values, progress_bar=False, kernel_name="python3")
    found = [path for path in files.work.rglob("*") if files.private("target") not in path.parents]
    assert len(found) > 20
    for path in found:
        for word in ("kowalczyk", "_1975"):
            assert word not in path.relative_to(files.work).as_posix().lower()
            assert not path.is_file() or word.encode() not in path.read_bytes().lower(), (path, word)
    record = json.loads(files.audit.read_text())["provenance"]
    assert "private/target/links/target-00001-000_t1c.nii.gz" in record["inputs"]
    assert not [name for name in record["outputs"] if name.startswith("private")]
    assert splits.read(files, "target")["held_out"][0].startswith("target-0000")
