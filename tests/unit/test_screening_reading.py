"""What a reader decides of a screened scan: kept beside the result as a history, held to the result it refers to."""

import json
import multiprocessing
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from screened import Ball, make_screened

from brainmets import nifti, provenance, schemas
from brainmets.files import read_json, write_json
from brainmets.paths import ScreeningPaths
from brainmets.review import slicer
from brainmets.screening import extent, left, reading, screen
from brainmets.screening.reading import ReadingError
from brainmets.screening.result import ResultError

LESIONS = [Ball((-25.0, 10.0, 0.0), 20, 0.95), Ball((30.0, -20.0, 10.0), 15, 0.9)]
BELOW = [Ball((10.0, 40.0, -20.0), 12, 0.4)]
SHAPE, SPACING = (60, 72, 30), (2.5, 2.5, 5.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_screened(tmp_path_factory.mktemp("made") / "scan-00001-000", LESIONS, BELOW).folder


@pytest.fixture
def files(made: Path, tmp_path: Path) -> ScreeningPaths:
    return ScreeningPaths(shutil.copytree(made, tmp_path / made.name))


def numbers_of(files: ScreeningPaths) -> np.ndarray:
    return nifti.read_volume(files.numbers)[0]


def bytes_of(files: ScreeningPaths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files.folder.rglob("*") if path.is_file()}


def ball(files: ScreeningPaths, place: tuple[float, float, float], radius: float, label: int) -> np.ndarray:
    grid = nifti.read_grid(files.t1c)
    mm = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1) @ grid.affine[:3, :3].T
    return np.where(np.linalg.norm(mm + grid.affine[:3, 3] - place, axis=-1) <= radius, label, 0).astype(np.uint8)


# --- the history -----------------------------------------------------------------------------------------------------


def test_without_a_reading_every_candidate_is_undecided(files: ScreeningPaths) -> None:
    found = reading.read(files)
    assert (found.accepted, found.below, found.undecided) == ((1, 2), (3,), (1, 2, 3))
    assert not found.complete and found.decisions == {} and not files.reading.exists()
    assert found.sentence == (
        "3 candidates: 0 accepted, 0 rejected, 0 corrected, 3 not decided; 0 added by the reader."
    )


def test_the_latest_decision_counts_and_every_earlier_one_is_kept(files: ScreeningPaths) -> None:
    before = bytes_of(files)
    for verdict in ("accepted", "rejected"):
        reading.decide(files, 1, verdict)
    reading.decide(files, 2, "accepted")
    found = reading.decide(files, 3, "corrected", threshold=0.38)
    assert {n: one.verdict for n, one in found.decisions.items()} == {1: "rejected", 2: "accepted", 3: "corrected"}
    assert [one.verdict for one in found.history] == ["accepted", "rejected", "accepted", "corrected"]
    assert found.complete and found == reading.read(files)
    written = json.loads(files.reading.read_text())
    assert [line["lesion"] for line in written["history"]] == [1, 1, 2, 3]
    assert {line["result"] for line in written["history"]} == {provenance.sha256(files.record)}
    assert all(line["time"].endswith("+00:00") for line in written["history"])
    assert set(written) == {"schema", "case", "notice", "history"}  # no reader's name
    after = bytes_of(files)
    assert {name: after[name] for name in before} == before  # beside the result, never over it


def test_a_decision_taken_back_leaves_the_candidate_undecided(files: ScreeningPaths) -> None:
    reading.decide(files, 1, "rejected")
    found = reading.withdraw(files, 1)
    assert found.undecided == (1, 2, 3) and len(found.history) == 2
    with pytest.raises(ReadingError, match="lesion: 1 has no decision"):
        reading.withdraw(files, 1)


def test_a_scan_screened_anew_has_an_unread_result_and_says_so(files: ScreeningPaths) -> None:
    first = reading.decide(files, 1, "rejected")
    write_json(files.record, read_json(files.record) | {"created": "2024-06-02T10:00:00+00:00"})
    found = reading.read(files)
    assert found.decisions == {} and found.undecided == (1, 2, 3) and found.of_another_result == 1
    assert "1 earlier decision refers to another result" in found.sentence and "not applied" in found.sentence
    with pytest.raises(ReadingError, match="was screened anew since it was opened: nothing was saved"):
        reading.decide(files, 1, "accepted", result=first.result)
    found = reading.decide(files, 2, "accepted", result=found.result)
    assert list(found.decisions) == [2] and len(found.history) == 2
    assert left.of(files).table["lesion"].tolist() == [1, 2]  # the old rejection of 1 is not applied


def test_a_result_that_is_not_whole_takes_no_decision(files: ScreeningPaths) -> None:
    files.labels.write_bytes(b"")
    with pytest.raises(ResultError, match=r"labels\.nii\.gz is not what was written"):
        reading.decide(files, 1, "accepted")
    assert not files.reading.exists()


@pytest.mark.parametrize(
    ("lesion", "verdict", "more", "said"),
    [
        (4, "accepted", {}, "lesion: 4 is no candidate of scan-00001-000; candidates are 1, 2, 3"),
        (1, "perhaps", {}, "verdict: 'perhaps' is none of accepted, rejected, corrected"),
        (1, "corrected", {}, "give either threshold or mask"),
        (1, "corrected", {"threshold": 0.5, "mask": Path("x.nii.gz")}, "give either threshold or mask"),
        (1, "accepted", {"threshold": 0.5}, "accepted: takes no threshold"),
        (
            1,
            "corrected",
            {"threshold": 0.99},
            "no voxel of lesion 1 has 0.99 or more, its highest probability is 0.95",
        ),
        (1, "corrected", {"threshold": 0.0}, "threshold: 0 must be from"),
        (1, "corrected", {"threshold": float("nan")}, "threshold: nan must be from"),
    ],
)
def test_what_cannot_be_decided_is_refused_and_nothing_is_written(
    files: ScreeningPaths, lesion: int, verdict: str, more: dict, said: str
) -> None:
    with pytest.raises(ReadingError) as error:
        reading.decide(files, lesion, verdict, **more)
    assert said in str(error.value)
    assert not files.reading.exists() and not files.reading_masks.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2 is not 1"),
        ({"case": "scan-00002-000"}, "is of case 'scan-00002-000'"),
        ({"history": {}}, "history is no list"),
        ({"history": [{"lesion": 1}]}, "decision 1 is not as it was written"),
        ({"lesion": True}, "True is no lesion's number"),
        ({"verdict": "gone"}, "'gone' is none of accepted"),
        ({"threshold": "0.5"}, "'0.5' is no finite number"),
        ({"mask": {"file": "../../x.nii.gz", "sha256": ""}}, "is no file's name"),
        ({"place_mm": [1, 2]}, "decision 1 is not as it was written"),
    ],
)
def test_a_damaged_reading_is_named_and_not_read_in_part(files: ScreeningPaths, change: dict, said: str) -> None:
    reading.decide(files, 1, "accepted")
    content = json.loads(files.reading.read_text())
    place = content if set(change) <= set(content) else content["history"][0]
    place.update(change)
    files.reading.write_text(json.dumps(content))
    with pytest.raises(ReadingError) as error:
        reading.read(files)
    assert "reading.json" in str(error.value) and said in str(error.value)
    with pytest.raises(ReadingError):  # nor is it written over
        reading.decide(files, 1, "rejected")
    assert json.loads(files.reading.read_text()) == content


def test_a_reading_that_is_no_json_is_named(files: ScreeningPaths) -> None:
    files.reading.write_text("{")
    with pytest.raises(ReadingError, match=r"reading\.json cannot be read: move it away, or restore it"):
        reading.read(files)


def decide_all(folder: Path, verdict: str) -> None:
    for lesion in (1, 2, 3):
        reading.decide(ScreeningPaths(folder), lesion, verdict)


def test_two_processes_lose_no_decision(files: ScreeningPaths) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=decide_all, args=(files.folder, verdict)) for verdict in ("accepted", "rejected")]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert [one.exitcode for one in both] == [0, 0]
    assert len(reading.read(files).history) == 6


# --- another extent --------------------------------------------------------------------------------------------------


def test_another_threshold_grows_around_the_candidate_alone() -> None:
    """A row of voxels, worked out by hand: candidate 1 in the middle, 2 at the end, 3 apart."""
    probability = np.array([0.1, 0.3, 0.6, 0.9, 0.6, 0.3, 0.4, 0.8, 0.05, 0.3], np.float32).reshape(-1, 1, 1)
    numbers = np.array([0, 0, 1, 1, 1, 0, 2, 2, 0, 0], np.uint16).reshape(-1, 1, 1)
    for threshold, expected in ((0.7, [3]), (0.5, [2, 3, 4]), (0.3, [1, 2, 3, 4, 5]), (0.1, [0, 1, 2, 3, 4, 5])):
        found = extent.grown(probability, numbers, 1, threshold)
        assert np.flatnonzero(found).tolist() == expected, threshold
    assert np.flatnonzero(extent.grown(probability, numbers, 2, 0.3)).tolist() == [5, 6, 7]
    with pytest.raises(ReadingError, match=r"0\.01 must be from 0\.05, below which no probability is kept"):
        extent.grown(probability, numbers, 1, 0.01)


@pytest.mark.parametrize("suffix", [".nii.gz", ".seg.nrrd"])
@pytest.mark.parametrize("oblique", [False, True])
def test_a_reader_s_label_map_corrects_the_lesion_that_it_touches(tmp_path: Path, suffix: str, oblique: bool) -> None:
    files = make_screened(tmp_path / "scan-00001-000", LESIONS, BELOW, oblique=oblique, orientation="LPS")
    drawn = np.maximum(ball(files, LESIONS[0].place, 14, 3), ball(files, LESIONS[1].place, 4, 1))
    drawn = np.maximum(drawn, ball(files, (0.0, -50.0, 0.0), 6, 2))  # oedema: not of the region
    path = tmp_path / f"mine{suffix}"
    affine = nifti.read_grid(files.t1c).affine
    if suffix == ".nii.gz":
        nifti.write(path, drawn, affine)
    else:
        slicer.write_segmentation(path, drawn, affine)
    reading.decide(files, 1, "corrected", mask=path)
    path.unlink()  # what was taken over lies beside the result
    result = left.of(files)
    grown = ball(files, LESIONS[0].place, 14, 3) > 0
    np.testing.assert_array_equal(result.numbers == 1, grown)
    np.testing.assert_array_equal(result.labels[grown], 3)
    np.testing.assert_array_equal(result.numbers == 2, numbers_of(files) == 2)
    row = result.table.set_index("lesion").loc[1]
    assert row["verdict"] == "corrected" and row["score"] == LESIONS[0].score
    assert row["volume_mm3"] == pytest.approx(grown.sum() * 2.5 * 2.5 * 5)


def test_a_segmentation_that_slicer_cut_to_what_is_drawn_is_put_back(files: ScreeningPaths, tmp_path: Path) -> None:
    drawn = ball(files, LESIONS[0].place, 12, 3)
    box = tuple(slice(int(a.min()), int(a.max()) + 1) for a in np.nonzero(drawn))
    affine = nifti.read_grid(files.t1c).affine
    shift = np.eye(4)
    shift[:3, 3] = [side.start for side in box]
    slicer.write_segmentation(tmp_path / "cut.seg.nrrd", np.ascontiguousarray(drawn[box]), affine @ shift)
    reading.decide(files, 1, "corrected", mask=tmp_path / "cut.seg.nrrd")
    np.testing.assert_array_equal(left.of(files).numbers == 1, drawn > 0)


def test_label_maps_on_another_grid_and_of_other_lesions_are_refused(files: ScreeningPaths, tmp_path: Path) -> None:
    affine = nifti.read_grid(files.t1c).affine
    shifted = affine.copy()
    shifted[0, 3] += 1.0
    drawn = ball(files, LESIONS[0].place, 12, 3)
    nifti.write(tmp_path / "shifted.nii.gz", drawn, shifted)
    slicer.write_segmentation(tmp_path / "shifted.seg.nrrd", drawn, shifted)
    for name in ("shifted.nii.gz", "shifted.seg.nrrd"):
        with pytest.raises(nifti.ImageError, match=r"lies on another grid than t1c\.nii\.gz"):
            reading.decide(files, 1, "corrected", mask=tmp_path / name)
    nifti.write(tmp_path / "other.nii.gz", drawn, affine)
    with pytest.raises(
        ReadingError, match=r"nothing that other\.nii\.gz draws in TC has a voxel in common with lesion 2"
    ):
        reading.decide(files, 2, "corrected", mask=tmp_path / "other.nii.gz")
    with pytest.raises(nifti.ImageError, match=r"is none of \.seg\.nrrd, \.nii\.gz, \.nii"):
        reading.decide(files, 1, "corrected", mask=files.table)
    nifti.write(tmp_path / "five.nii.gz", np.where(drawn, 5, 0).astype(np.uint8), affine)
    with pytest.raises(nifti.ImageError, match=r"unknown label value\(s\) 5"):
        reading.decide(files, 1, "corrected", mask=tmp_path / "five.nii.gz")
    assert not files.reading.exists()


def test_a_stranger_s_nrrd_points_at_no_other_file_and_inflates_to_no_more_than_it_says(
    files: ScreeningPaths, tmp_path: Path
) -> None:
    slicer.write_segmentation(
        tmp_path / "good.seg.nrrd", ball(files, LESIONS[0].place, 12, 3), nifti.read_grid(files.t1c).affine
    )
    content = (tmp_path / "good.seg.nrrd").read_bytes()
    head, _, raw = content.partition(b"\n\n")
    faults = {
        "points at another file": head + b"\ndata file: ../../secret.raw\n\n",
        "points at another  file": head + b"\ndatafile: /etc/hostname\n\n",
        "is truncated": content[:-9],
        "cannot be inflated": head + b"\n\n" + raw[:20] + bytes(40) + raw[60:],
        "no NRRD header": b"nothing",
        "lies on another grid": head.replace(b"sizes: 60 72 30", b"sizes: 60000 72000 30000") + b"\n\n" + raw,
        "holds more than": head.replace(b"sizes: 60 72 30", b"sizes: 60 72 20") + b"\n\n" + raw,
        "are no labels": head.replace(b"type: unsigned char", b"type: float").replace(b"type: uint8", b"type: float")
        + b"\n\n" + raw,
        "its segment 'Tissue' is none of": head.replace(b"Name:=Enhancing tumour", b"Name:=Tissue").replace(
            b"ID:=et", b"ID:=Segment_1") + b"\n\n" + raw,
        "segments that overlap": head.replace(b"dimension: 3", b"dimension: 4").replace(
            b"sizes: 60 72 30", b"sizes: 2 60 72 30") + b"\n\n" + raw,
    }  # fmt: skip
    for said, bad in faults.items():
        (tmp_path / "bad.seg.nrrd").write_bytes(bad)
        with pytest.raises(nifti.ImageError) as error:
            reading.decide(files, 1, "corrected", mask=tmp_path / "bad.seg.nrrd")
        assert said.replace("  ", " ") in str(error.value).replace("another  file", "another file"), said
    assert not files.reading.exists() and not files.reading_masks.exists()


# --- what the reader left --------------------------------------------------------------------------------------------


def test_without_decisions_the_model_s_own_lesions_are_left(files: ScreeningPaths) -> None:
    result = left.of(files)
    np.testing.assert_array_equal(result.labels, nifti.read_labels(files.labels))
    np.testing.assert_array_equal(result.numbers, np.where(numbers_of(files) < 3, numbers_of(files), 0))
    assert result.table["verdict"].tolist() == ["not decided", "not decided"]


def test_accepted_rejected_and_undecided_lesions_in_map_and_table(files: ScreeningPaths) -> None:
    reading.decide(files, 1, "rejected")
    reading.decide(files, 3, "accepted")
    table = schemas.read(left.write(files), schemas.READ).reset_index(drop=True)
    assert table["lesion"].tolist() == [2, 3]
    assert table["verdict"].tolist() == ["not decided", "accepted"]
    before, numbers = nifti.read_labels(files.labels), numbers_of(files)
    labels, placed = nifti.read_labels(files.reading_labels), nifti.read_volume(files.reading_numbers)[0]
    assert not labels[numbers == 1].any() and (before[numbers == 1] == 3).all()
    assert not before[numbers == 3].any() and (labels[numbers == 3] == 3).all()  # all three regions are alike here
    np.testing.assert_array_equal(placed, np.where(numbers == 1, 0, numbers))
    np.testing.assert_array_equal(labels[numbers == 2], before[numbers == 2])
    volume = table.set_index("lesion")["volume_mm3"]
    assert volume[3] == pytest.approx((numbers == 3).sum() * 2.5 * 2.5 * 5)


def test_a_decision_takes_the_outdated_tables_away(files: ScreeningPaths) -> None:
    left.write(files)
    reading.decide(files, 1, "rejected")
    assert not any(path.exists() for path in (files.reading_table, files.reading_labels, files.reading_numbers))


def test_a_scan_screened_anew_keeps_its_reading_and_loses_what_was_left_of_the_old_result(
    files: ScreeningPaths, tmp_path: Path
) -> None:
    nifti.write(tmp_path / "mine.nii.gz", ball(files, LESIONS[0].place, 12, 3), nifti.read_grid(files.t1c).affine)
    reading.decide(files, 1, "corrected", mask=tmp_path / "mine.nii.gz")
    left.write(files)
    screen._clear(files)
    kept = {path.name for path in files.folder.iterdir() if not path.name.startswith(".")}
    assert kept == {"reading.json", "reading_masks", "prepared"}
    assert len(list(files.reading_masks.iterdir())) == 1


def test_added_lesions_outlined_or_not(files: ScreeningPaths, tmp_path: Path) -> None:
    place = (0.0, -40.0, 10.0)
    drawn = ball(files, place, 7, 1)
    nifti.write(tmp_path / "missed.nii.gz", drawn, nifti.read_grid(files.t1c).affine)
    reading.add(files, place, mask=tmp_path / "missed.nii.gz")
    found = reading.add(files, (20.0, 0.0, 0.0))
    assert list(found.added) == [4, 5] and found.undecided == (1, 2, 3)
    result = left.of(files)
    np.testing.assert_array_equal(result.numbers == 4, drawn > 0)
    np.testing.assert_array_equal(result.labels[drawn > 0], 1)
    left.write(files)
    table = schemas.read(files.reading_table, schemas.READ).set_index("lesion")
    assert table["verdict"].to_dict() == {1: "not decided", 2: "not decided", 4: "added", 5: "added"}
    assert table["outlined"].to_dict() == {1: True, 2: True, 4: True, 5: False}
    assert np.isnan(table.loc[[4, 5], "score"]).all() and np.isnan(table.loc[5, "volume_mm3"])
    assert table.loc[5, ["x_mm", "y_mm", "z_mm"]].tolist() == [20.0, 0.0, 0.0]
    assert reading.withdraw(files, 5).left == (1, 2, 4)
    assert list(reading.add(files, (25.0, 0.0, 0.0)).added) == [4, 6]  # no number is given twice


def test_places_and_outlines_that_cannot_be_added(files: ScreeningPaths, tmp_path: Path) -> None:
    for place, said in (((500.0, 0.0, 0.0), "lies outside"), ((1.0, 2.0), "must be three numbers")):
        with pytest.raises(ReadingError, match=said):
            reading.add(files, place)
    nifti.write(tmp_path / "far.nii.gz", ball(files, (0.0, 0.0, 0.0), 6, 3), nifti.read_grid(files.t1c).affine)
    with pytest.raises(ReadingError, match=r"far\.nii\.gz draws nothing in TC at \(0, 50, 0\) mm: the nearest is 4"):
        reading.add(files, (0.0, 50.0, 0.0), mask=tmp_path / "far.nii.gz")


def test_an_outline_that_was_changed_since_is_refused(files: ScreeningPaths, tmp_path: Path) -> None:
    nifti.write(tmp_path / "mine.nii.gz", ball(files, LESIONS[0].place, 12, 3), nifti.read_grid(files.t1c).affine)
    reading.decide(files, 1, "corrected", mask=tmp_path / "mine.nii.gz")
    (kept,) = files.reading_masks.iterdir()
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.eye(4)), kept)
    with pytest.raises(ReadingError, match="is not the outline that was saved"):
        left.of(files)
    kept.unlink()
    with pytest.raises(ReadingError, match="is missing"):
        left.of(files)


def test_a_lesion_that_was_drawn_over_is_no_silent_loss(files: ScreeningPaths, tmp_path: Path) -> None:
    both = np.maximum(ball(files, LESIONS[0].place, 11, 3), ball(files, LESIONS[1].place, 11, 3))
    bridge = np.linspace(LESIONS[0].place, LESIONS[1].place, 25)
    for place in bridge:
        both = np.maximum(both, ball(files, tuple(place), 4, 3))
    nifti.write(tmp_path / "one.nii.gz", both, nifti.read_grid(files.t1c).affine)
    reading.decide(files, 1, "corrected", mask=tmp_path / "one.nii.gz")
    with pytest.raises(ReadingError, match="lesion 2 of scan-00001-000 has no voxel left"):
        left.of(files)
    reading.decide(files, 2, "rejected")
    assert left.of(files).table["lesion"].tolist() == [1]


def test_all_rejected_leaves_an_empty_table(files: ScreeningPaths) -> None:
    for lesion in (1, 2, 3):
        reading.decide(files, lesion, "rejected")
    table = schemas.read(left.write(files), schemas.READ)
    assert table.empty and not nifti.read_labels(files.reading_labels).any()


def test_a_refused_scan_has_nothing_to_read(tmp_path: Path) -> None:
    files = make_screened(tmp_path / "scan-00001-000", refused=True)
    assert reading.read(files).complete
    with pytest.raises(ReadingError, match="was refused before anything was predicted"):
        left.of(files)
