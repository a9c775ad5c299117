"""What an INPUT of ``brainmets screen`` is: raw or prepared by a rule, and refused in words where it is neither."""

from pathlib import Path

import dicom_files
import numpy as np
import pytest
import raw_scans

from brainmets import cli, nifti
from brainmets.preparation.sorting import SortingError
from brainmets.screening import source
from brainmets.screening.source import SourceError, find, link
from brainmets.vocabulary import SEQUENCES


def prepared(folder: Path, case: str, shift: float = 0.0, without: str = "") -> Path:
    """A prepared case; its FLAIR lies ``shift`` mm beside the others."""
    for name in SEQUENCES:
        affine = np.eye(4)
        affine[0, 3] = shift if name == "t2f" else 0
        if name != without:
            nifti.write(folder / f"{case}-{name}.nii.gz", np.ones((12, 12, 12), np.float32), affine)
    return folder


def test_prepared_cases_are_known_by_names_and_one_grid(tmp_path):
    for case in ("BraTS-MET-00001-000", "BraTS-MET-00002-000"):
        prepared(tmp_path / case, case)
        nifti.write(tmp_path / case / f"{case}-seg.nii.gz", np.zeros((12, 12, 12), np.uint8), np.eye(4))
    found = find([tmp_path])
    assert [*found.prepared] == ["BraTS-MET-00001-000", "BraTS-MET-00002-000"] and not found.raw
    assert found.prepared["BraTS-MET-00001-000"].images["t2f"].name == "BraTS-MET-00001-000-t2f.nii.gz"
    one = find([tmp_path / "BraTS-MET-00002-000"])
    assert [*one.prepared] == ["BraTS-MET-00002-000"]
    both = find([tmp_path, tmp_path / "." / ""])  # named twice
    assert [*both.prepared] == [*found.prepared]


def test_the_same_names_on_several_grids_are_raw(tmp_path):
    prepared(tmp_path / "p1", "p1", shift=3.0)
    found = find([tmp_path])
    assert found.raw == {"p1": (tmp_path / "p1").resolve()} and not found.prepared


def test_a_person_may_know_better(tmp_path):
    prepared(tmp_path / "p1", "p1")
    assert [*find([tmp_path], "raw").raw] == ["p1"]
    prepared(tmp_path / "p2", "p2", shift=3.0)
    with pytest.raises(SourceError, match="case p2 has t2f on another grid than t1c; --prepared takes"):
        find([tmp_path], "prepared")
    raw_scans.write_scan(tmp_path / "other" / "p3")
    with pytest.raises(SourceError, match="holds no file named as in BraTS"):
        find([tmp_path / "other"], "prepared")


def test_a_patients_folder_and_a_folder_of_patients(tmp_path):
    raw_scans.write_scan(tmp_path / "a" / "p1")
    raw_scans.write_scan(tmp_path / "a" / "p2")
    (tmp_path / "a" / "notes").mkdir()
    (tmp_path / "a" / "notes" / "read.txt").write_text("x" * 200)
    assert [*find([tmp_path / "a"]).raw] == ["p1", "p2"]
    assert find([tmp_path / "a" / "p1"]).raw == {"p1": (tmp_path / "a" / "p1").resolve()}


def test_dicom_with_and_without_an_ending(tmp_path):
    dicom_files.write_series(tmp_path / "cd" / "DICOM" / "ser1")
    assert [*find([tmp_path / "cd"]).raw] == ["DICOM"]
    loose = tmp_path / "cd" / "DICOM" / "ser1"
    assert find([loose]).raw == {"ser1": loose.resolve()}


def test_two_discs_may_both_call_their_folder_dicom(tmp_path):
    """DICOM says by itself whose it is; a folder of volumes is the patient's name, and two are refused."""
    for disc in ("cd1", "cd2"):
        dicom_files.write_series(tmp_path / disc / "DICOM" / "ser1")
    assert [*find([tmp_path / "cd1", tmp_path / "cd2"]).raw] == ["DICOM", "cd2-DICOM"]
    for site in ("a", "b"):
        raw_scans.write_scan(tmp_path / site / "p1")
    with pytest.raises(SourceError, match="two folders of patients are called 'p1'"):
        find([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds neither raw scans"),
        (lambda folder: (folder / "a.txt").write_text("x" * 300), "holds neither raw scans"),
        (lambda folder: prepared(prepared(folder / "a", "a").parent / "b", "b", without="t2w"), "case b lacks t2w"),
        (lambda folder: raw_scans.write_scan(prepared(folder / "a", "a").parent / "p1"), "other images .folder 'p1'."),
        (lambda folder: prepared(folder / "private", "private"), "becomes the name of a folder"),
        (lambda folder: prepared(folder / "x", "a b"), "becomes the name of a folder"),
        (lambda folder: prepared(prepared(folder / "a", "c").parent / "b", "c"), "two prepared cases are called 'c'"),
    ],
)
def test_what_is_neither_is_refused_in_words(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(SourceError, match=message):
        find([tmp_path])


def test_volumes_beside_folders_of_volumes(tmp_path):
    raw_scans.write_scan(tmp_path / "p")
    raw_scans.write_scan(tmp_path / "p" / "more")
    with pytest.raises(SourceError, match="holds volumes itself and in the folder 'more'"):
        find([tmp_path / "p"])


def test_a_file_and_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"x")
    with pytest.raises(SourceError, match="is a file: name the folder"):
        find([tmp_path / "scan.nii.gz"])
    with pytest.raises(SourceError, match="is not there"):
        find([tmp_path / "nowhere"])


def test_links_are_made_anew_and_private(tmp_path):
    raw_scans.write_scan(tmp_path / "a" / "p1")
    raw_scans.write_scan(tmp_path / "a" / "p2")
    folder = tmp_path / "links"
    link({"p1": tmp_path / "a" / "p1", "p2": tmp_path / "a" / "p2"}, folder)
    link({"p2": tmp_path / "a" / "p2"}, folder)
    assert [path.name for path in folder.iterdir() if path.name[0] != "."] == ["p2"]
    assert (tmp_path / "a" / "p1").is_dir()  # the link went, not what it led to
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(SortingError, match="can be entered by others"):
        link({}, folder)


def test_another_folder_of_the_same_name_does_not_replace_an_earlier_patient(tmp_path):
    """Every run: the one between, of another patient, must not make the first forgotten."""
    for place in ("a/nifti", "b/nifti", "c/p3"):
        raw_scans.write_scan(tmp_path / place)
    links = tmp_path / "links"
    link({"nifti": tmp_path / "a/nifti"}, links)
    link({"p3": tmp_path / "c/p3"}, links)
    link({"nifti": tmp_path / "a/nifti"}, links)
    link({"p3": tmp_path / "c/p3"}, links)
    with pytest.raises(SourceError, match="'nifti', and could be one patient or two: screen it into a folder of its"):
        link({"nifti": tmp_path / "b/nifti", "p3": tmp_path / "c/p3"}, links)
    assert [path.name for path in links.iterdir() if path.name[0] != "."] == ["p3"]
    (links / ".earlier" / "nifti").unlink()  # as the message says, where a person knows better
    link({"nifti": tmp_path / "b/nifti"}, links)


def test_dicom_says_whose_it_is_and_may_lie_anywhere(tmp_path):
    for disc in ("cd1", "cd2"):
        dicom_files.write_series(tmp_path / disc / "DICOM" / "ser1")
        link({"DICOM": tmp_path / disc / "DICOM"}, tmp_path / "links")
    assert (tmp_path / "links" / "DICOM").readlink() == tmp_path / "cd2" / "DICOM"


def test_the_state_tells_another_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("1")
    before = source.state([path])
    path.write_text("12")
    assert source.state([path]) != before


@pytest.mark.parametrize("said", ["--prepared", "--raw"])
@pytest.mark.parametrize("option", ["--out", "--private"])
@pytest.mark.parametrize("place", ["elsewhere/p1/out", "elsewhere"])
def test_nothing_is_written_into_or_around_the_scans_whatever_links_lead_there(tmp_path, capsys, said, option, place):
    """ "elsewhere" would be the folder whose ``p1`` is the scan's own: results would come to lie among its images."""
    prepared(tmp_path / "elsewhere" / "p1", "p1")
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "p1").symlink_to(tmp_path / "elsewhere" / "p1")
    outputs = {"--out": str(tmp_path / "out")} | {option: str(tmp_path / place)}
    given = [word for pair in outputs.items() for word in pair]
    assert cli.main(["screen", str(tmp_path / "model.zip"), str(tmp_path / "input"), said, *given]) == 2
    assert f"{option}: {tmp_path / place} and the scans 'p1' lie one within the other" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "input"}
