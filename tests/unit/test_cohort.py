"""Reading cohorts: layouts, patients, label maps, and what is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort_files import OWN_LAYOUT, write_case, write_image

from brainmets.cohorts.cohort import (
    CohortError,
    find_cases,
    read_manifest,
    read_sequences,
    write_label_maps,
    write_manifest,
    write_mapped_labels,
)
from brainmets.params import Cohort
from brainmets.vocabulary import SEQUENCES


@pytest.fixture
def own(tmp_path: Path) -> Cohort:
    """A cohort of three cases in a layout of its own."""
    labels = np.zeros((6, 5, 4), np.int16)
    labels[1:3, 1:3, 1:3] = 1
    labels[2, 2, 2] = 4
    for case in ("b", "a", "c"):
        write_case(tmp_path, OWN_LAYOUT, case, labels)
    return Cohort(folder=str(tmp_path), layout=OWN_LAYOUT, label_map={1: "snfh", 4: "netc"}, held_out=1)


def test_cases_are_sorted_and_hold_every_file_in_channel_order(own: Cohort) -> None:
    cases = find_cases(own, SEQUENCES)
    assert [case.case for case in cases] == ["a", "b", "c"]
    assert [path.name for path in cases[0].channels(SEQUENCES)] == [
        "T1.nii.gz",
        "T1POST.nii.gz",
        "T2.nii.gz",
        "FLAIR.nii.gz",
    ]
    assert cases[0].label.name == "GT.nii.gz"
    assert cases[0].patient == "a"


def test_brats_names_give_patient_and_time_point(tmp_path: Path) -> None:
    declaration = Cohort(folder=str(tmp_path), layout="brats", label_map={}, held_out=0)
    layout = declaration.files.model_dump()
    for case in ("BraTS-MET-00001-000", "BraTS-MET-00001-001", "BraTS-MET-00002-000"):
        write_case(tmp_path, layout, case)
    assert [case.patient for case in find_cases(declaration, SEQUENCES)] == ["BraTS-MET-00001"] * 2 + [
        "BraTS-MET-00002"
    ]


def test_a_repeated_case_in_a_pattern_must_be_the_same_name(tmp_path: Path) -> None:
    declaration = Cohort(folder=str(tmp_path), layout="brats", label_map={}, held_out=0)
    write_case(tmp_path, declaration.files.model_dump(), "P-000")
    write_image(tmp_path / "P-000" / "other-t1c.nii.gz", np.ones((2, 2, 2), np.int16))
    assert [case.case for case in find_cases(declaration, SEQUENCES)] == ["P-000"]


def test_a_missing_folder_an_empty_one_and_a_missing_sequence_are_named(own: Cohort, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="nowhere is not there"):
        find_cases(own.model_copy(update={"folder": str(tmp_path / "nowhere")}), SEQUENCES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match=r"empty holds no case: no file matches '\{case\}/T1POST"):
        find_cases(own.model_copy(update={"folder": str(tmp_path / "empty")}), SEQUENCES)
    (tmp_path / "b" / "T2.nii.gz").unlink()
    with pytest.raises(CohortError, match=r"1 file\(s\) missing: b/T2\.nii\.gz"):
        find_cases(own, SEQUENCES)


@pytest.mark.parametrize("pattern", ["{case}/T9.nii.gz", "{case}/*.nii.gz", "{case}/T[12].nii.gz"])
def test_a_pattern_that_finds_nothing_is_named(own: Cohort, pattern: str) -> None:
    layout = own.files.model_copy(update={"t2w": pattern})
    with pytest.raises(CohortError) as error:
        find_cases(own.model_copy(update={"layout": layout}), SEQUENCES)
    expected = f"no file matches layout.t2w: {pattern!r}, where other patterns find 3 case(s), such as 'a'; correct"
    assert expected in str(error.value)


def test_one_file_under_two_names_is_refused(own: Cohort, tmp_path: Path) -> None:
    """By a link within a case, and by one from case to case."""
    (tmp_path / "b" / "T1.nii.gz").unlink()
    (tmp_path / "b" / "T1.nii.gz").symlink_to(tmp_path / "b" / "T2.nii.gz")
    with pytest.raises(CohortError, match=r"t1n of case b and t2w of case b are one file \(T2\.nii\.gz\)"):
        find_cases(own, SEQUENCES)
    (tmp_path / "b" / "T1.nii.gz").unlink()
    (tmp_path / "b" / "T1.nii.gz").symlink_to(tmp_path / "a" / "T1.nii.gz")
    with pytest.raises(CohortError, match=r"t1n of case a and t1n of case b are one file"):
        find_cases(own, SEQUENCES)


def meta_image(folder: Path) -> None:
    (folder / "T2.mha").write_text("ObjectType = Image")


def dicom_series(folder: Path) -> None:
    (folder / "IM000001").write_bytes(bytes(128) + b"DICM" + bytes(10))


@pytest.mark.parametrize(
    ("export", "named"),
    [(meta_image, "MetaImage files such as a/T2.mha"), (dicom_series, "DICOM files such as a/IM000001")],
)
@pytest.mark.parametrize("left", ["nothing", "other sequences", "another case"])
def test_files_of_another_format_are_named(
    own: Cohort, tmp_path: Path, export: Callable[[Path], None], named: str, left: str
) -> None:
    for case in ("a", "b", "c") if left != "another case" else ("a",):
        for path in (tmp_path / case).iterdir():
            if left == "nothing" or path.name == "T2.nii.gz":
                path.unlink()
        export(tmp_path / case)
    with pytest.raises(CohortError) as error:
        find_cases(own, SEQUENCES)
    assert (
        f". The folder holds {named}: prepared cases are NIfTI: have raw scans (DICOM, MetaImage, NRRD) prepared"
        in str(error.value)
    )


def test_brackets_in_a_pattern_are_a_files_own(own: Cohort, tmp_path: Path) -> None:
    for case in ("a", "b", "c"):
        (tmp_path / case / "T2.nii.gz").rename(tmp_path / case / "T2[1].nii.gz")
    layout = own.files.model_copy(update={"t2w": "{case}/T2[1].nii.gz"})
    cases = find_cases(own.model_copy(update={"layout": layout}), SEQUENCES)
    assert [case.images["t2w"].name for case in cases] == ["T2[1].nii.gz"] * 3


def test_a_name_without_a_patient_is_refused(own: Cohort) -> None:
    layout = own.files.model_copy(update={"patient": r"P(\d+)"})
    with pytest.raises(CohortError, match=r"case 'a'.*finds no patient"):
        find_cases(own.model_copy(update={"layout": layout}), SEQUENCES)


def test_labels_are_mapped_and_keep_the_grid(own: Cohort, tmp_path: Path) -> None:
    case = find_cases(own, SEQUENCES)[0]
    path = write_mapped_labels(case, own, tmp_path / "out")
    mapped = nib.load(path)
    values = np.asanyarray(mapped.dataobj)
    assert path.name == "a.nii.gz"
    assert np.array_equal(mapped.affine, nib.load(case.label).affine)
    assert values[2, 2, 2] == 1  # own label 4 is NETC
    assert np.count_nonzero(values == 2) == 7  # own label 1 is SNFH
    assert values.dtype == np.uint8


def test_label_maps_of_an_earlier_split_are_gone(own: Cohort, tmp_path: Path) -> None:
    first, second, third = find_cases(own, SEQUENCES)
    folder = tmp_path / "labels"
    write_label_maps([first, second], own, folder)
    write_label_maps([third], own, folder)
    assert [path.name for path in folder.iterdir()] == ["c.nii.gz"]


def test_the_manifest_reads_back_as_written(own: Cohort, tmp_path: Path) -> None:
    cases = find_cases(own, SEQUENCES)
    assert list(read_manifest(write_manifest(tmp_path / "manifest.json", cases, SEQUENCES)).values()) == cases


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a b", "1 case(s) with a name such as 'a b', which becomes part of files' names and may"),
        ("{brace}", "1 case(s) with a name such as '{brace}'"),
        ("-a", "1 case(s) with a name such as '-a'"),
        ("a\u0301", "1 case(s) with a name such as 'a\u0301'"),  # an accent of its own: another name that looks alike
        ("x_seg", "1 case(s) with a name such as 'x_seg', which becomes part of files' names"),
        ("n" * 101, f"1 case(s) with a name such as '{'n' * 101}'"),  # with what is appended too long for a disk
        ("all", "1 case(s) with a name such as 'all'"),  # the name of a whole cohort in findings
        ("A", "cases 'A' and 'a' differ in capital letters alone"),
    ],
)
def test_names_that_cannot_be_kept_apart_as_files_are_refused(
    own: Cohort, tmp_path: Path, name: str, told: str
) -> None:
    """Pictures of "a b" and of "a_b" had one file; nnU-Net takes x_seg for the label map of x."""
    named = own.model_copy(update={"pseudonyms": False})
    assert len(find_cases(named, SEQUENCES)) == 3
    write_case(tmp_path, OWN_LAYOUT, name)
    with pytest.raises(CohortError, match=re.escape(told) + ".*rename the files.*pseudonyms: true"):
        find_cases(named, SEQUENCES)
    assert name in {case.case for case in find_cases(own, SEQUENCES)}, "a pseudonym stands for any name"


@pytest.mark.parametrize("pseudonyms", [True, False])
def test_a_case_with_a_leading_dot_is_neither_taken_nor_dropped(own: Cohort, tmp_path: Path, pseudonyms: bool) -> None:
    write_case(tmp_path, OWN_LAYOUT, ".a")
    with pytest.raises(CohortError, match=r"1 case\(s\) with a name that starts with a dot, such as '\.a'.*Delete"):
        find_cases(own.model_copy(update={"pseudonyms": pseudonyms}), SEQUENCES)


def test_letters_of_every_script_are_letters(own: Cohort, tmp_path: Path) -> None:
    for name in ("Ødegård-2", "患者1", "7.5_a"):
        write_case(tmp_path, OWN_LAYOUT, name)
    assert len(find_cases(own.model_copy(update={"pseudonyms": False}), SEQUENCES)) == 6


# --- sequences -----------------------------------------------------------------------------------------------------


def test_only_the_sequences_that_are_wanted_are_looked_for(own: Cohort) -> None:
    folder = Path(own.folder)
    absent = list(folder.rglob("T2.nii.gz"))
    for path in absent:
        path.unlink()
    assert absent
    cases = find_cases(own, ["t2f", "t1c"])
    assert [case.sequences for case in cases] == [("t1c", "t2f")] * len(cases)
    assert [len(case.paths) for case in cases] == [3] * len(cases)
    assert cases[0].channels(SEQUENCES) == [None, cases[0].images["t1c"], None, cases[0].images["t2f"]]
    with pytest.raises(CohortError, match=r"no file matches layout\.t2w"):
        find_cases(own, SEQUENCES)
    layout = own.files.model_copy(update={"t2w": None})
    with pytest.raises(CohortError, match=r"layout\.t2w is missing: give the pattern of its files, or leave it out"):
        find_cases(own.model_copy(update={"layout": layout}), SEQUENCES)


def test_a_case_may_lack_what_the_cohort_says_and_nothing_else(own: Cohort, tmp_path: Path) -> None:
    whole = find_cases(own, SEQUENCES)
    whole[0].images["t2w"].unlink()
    with pytest.raises(CohortError, match=r"1 file\(s\) missing: .*every case needs t1n, t1c, t2w, t2f, a label map"):
        find_cases(own, SEQUENCES)
    lacking = own.model_copy(update={"may_lack": ["t2w"]})
    first, *others = find_cases(lacking, SEQUENCES)
    assert first.sequences == ("t1n", "t1c", "t2f")
    assert first.images == {name: path for name, path in whole[0].images.items() if name != "t2w"}
    assert others == whole[1:]
    whole[0].images["t2f"].unlink()
    with pytest.raises(CohortError, match=r"1 file\(s\) missing: .*every case needs t1n, t1c, t2f, a label map"):
        find_cases(lacking, SEQUENCES)
    both = own.model_copy(update={"may_lack": ["t2w", "t2f"]})
    assert find_cases(both, SEQUENCES)[0].sequences == ("t1n", "t1c")
    with pytest.raises(CohortError, match=r"case '.*' has none of t2w, t2f: add the files or move the case"):
        find_cases(both, ["t2w", "t2f"])
    whole[1].label.unlink()
    with pytest.raises(CohortError, match=r"1 file\(s\) missing"):
        find_cases(both, SEQUENCES)


def test_the_manifest_has_the_cohorts_channels_and_what_each_case_has(own: Cohort, tmp_path: Path) -> None:
    whole = find_cases(own, SEQUENCES)
    whole[0].images["t1n"].unlink()
    cases = find_cases(own.model_copy(update={"may_lack": ["t1n"]}), ["t2f", "t1n", "t1c"])
    path = write_manifest(tmp_path / "work" / "s" / "audit" / "target" / "manifest.json", cases, ["t2f", "t1n", "t1c"])
    assert read_sequences(path) == ("t1n", "t1c", "t2f")
    again = read_manifest(path)
    assert list(again.values()) == cases
    assert again[cases[0].case].sequences == ("t1c", "t2f")
    content = json.loads(path.read_text())
    for wrong in ([], "t1c", ["t2f", "t1c", "t1n"], ["t1n", "t1c", "flair"]):
        path.write_text(json.dumps({**content, "sequences": wrong}))
        with pytest.raises(
            CohortError, match="does not name its sequences in the order t1n, t1c, t2w, t2f: run notebook"
        ):
            read_manifest(path)
    path.write_text(json.dumps({**content, "sequences": ["t1n", "t1c"]}))
    with pytest.raises(CohortError, match="does not hold patient, images and label"):
        read_manifest(path)
    del content["sequences"]
    path.write_text(json.dumps(content))
    with pytest.raises(CohortError, match="is none of this version's: run notebook 01"):
        read_sequences(path)


def test_without_a_t1c_the_empty_label_map_lies_on_the_grid_of_another(own: Cohort, tmp_path: Path) -> None:
    case = replace(find_cases(own, ["t2f"])[0], label=None, lesion_free=True)
    written = nib.load(write_mapped_labels(case, own, tmp_path / "labels"))
    assert written.shape == nib.load(case.images["t2f"]).shape
    assert case.reference == case.images["t2f"]
