"""Candidates, the lesions they hit and the three rules, on a few voxels that can be counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainmets import tables
from brainmets.scoring.candidates import Detections, collect, find, hits, numbered, read_detections, write_detections
from brainmets.tables import TableError
from brainmets.vocabulary import HIT_RULES, REGIONS

SHAPE = (20, 6, 5)
ET, NETC, SNFH = 3, 1, 2


def volume(*blobs, shape=SHAPE, dtype=np.float32):
    """Zeros with (slices, value) painted."""
    array = np.zeros(shape, dtype)
    for where, value in blobs:
        array[where] = value
    return array


def row(low, high):
    """Voxels from ``low`` to below ``high`` along the first axis, one voxel wide."""
    return (slice(low, high), slice(2, 3), slice(2, 3))


def detect(probability, reference, spacing=(1.0, 1.0, 1.0), threshold=0.1, **other_cases) -> Detections:
    """Of one case "P1" with ET alone; ``other_cases``: (probability, reference) by name."""
    affine = np.diag([*spacing, 1.0])
    cases = {"P1": (probability, reference), **other_cases}
    found = {name: find({"ET": p}, labels, spacing, affine, threshold) for name, (p, labels) in cases.items()}
    return collect(found, "default", "finetune")


def labels(*blobs, shape=SHAPE):
    return volume(*blobs, shape=shape, dtype=np.uint8)


def scores(detections, rule, smallest=0.0):
    """Scores by lesion, and the numbers of the false candidates."""
    found = hits(detections, rule, smallest)
    return found.lesions["score"].tolist(), found.false["candidate"].tolist()


def test_a_candidate_by_hand():
    probability = volume((row(4, 6), 0.625), (row(6, 7), 0.75), (row(12, 14), 0.1), (row(17, 18), 0.0999))
    found = detect(probability, labels((row(5, 9), ET)), spacing=(2.0, 1.0, 3.0))
    first, second = found.candidates.to_dict("records")  # 0.0999 is below the threshold, 0.1 is not
    assert (first["arm"], first["strategy"], first["case"], first["region"]) == ("default", "finetune", "P1", "ET")
    assert (first["candidate"], first["score"], first["volume_mm3"]) == (1, 0.75, 18.0)
    assert first["mean"] == pytest.approx((0.625 + 0.625 + 0.75) / 3)
    assert (first["x_mm"], first["y_mm"], first["z_mm"]) == (10.0, 2.0, 6.0)  # voxel 5, of 2 mm
    of_0625, of_075 = (-(p * math.log2(p) + (1 - p) * math.log2(1 - p)) for p in (0.625, 0.75))
    assert first["uncertainty"] == pytest.approx((2 * of_0625 + of_075) / 3)
    assert second["score"] == pytest.approx(0.1) and second["x_mm"] == 25.0
    (lesion,) = found.targets.to_dict("records")
    assert (lesion["lesion"], lesion["volume_mm3"], lesion["x_mm"]) == (1, 24.0, 13.0)
    assert lesion["diameter_mm"] == pytest.approx((6 * 24 / math.pi) ** (1 / 3))
    (pair,) = found.overlaps.to_dict("records")
    assert (pair["candidate"], pair["lesion"], pair["shared_mm3"]) == (1, 1, 12.0)
    assert pair["iou"] == 2 / 5 and pair["centroid_inside"]
    assert [first[f"hit_{rule}"] for rule in HIT_RULES] == [True, True, True]
    assert [second[f"hit_{rule}"] for rule in HIT_RULES] == [False, False, False]


def test_what_is_painted_stands_out_of_what_the_network_is_a_little_unsure_of():
    """One component at 0.2 holds two lesions, each painted: each is found, and the rest of it is no candidate."""
    probability = volume((row(1, 18), 0.2), (row(3, 6), 0.9), (row(10, 12), 0.6))
    found = detect(probability, labels((row(3, 6), ET), (row(10, 12), ET)))
    assert found.candidates["volume_mm3"].tolist() == [3.0, 2.0]
    assert scores(found, "one_to_one") == ([pytest.approx(0.9), pytest.approx(0.6)], [])


def test_a_candidate_that_is_painted_nowhere_is_whole():
    """0.5 is not painted; a component of its own, though its neighbour in the file holds a painted voxel, is."""
    found = detect(volume((row(1, 4), 0.2), (row(4, 5), 0.5), (row(8, 10), 0.3), (row(10, 11), 0.8)), labels())
    assert found.candidates[["score", "volume_mm3"]].to_numpy() == pytest.approx(np.array([[0.8, 1.0], [0.5, 4.0]]))


def test_a_threshold_above_what_is_painted_rules_alone():
    found = detect(volume((row(1, 4), 0.6), (row(4, 6), 0.8)), labels(), threshold=0.7)
    assert found.candidates["volume_mm3"].tolist() == [2.0]


def test_certainty_has_no_entropy():
    found = detect(volume((row(4, 6), 1.0)), labels())
    assert found.candidates["uncertainty"].tolist() == [0.0]
    assert found.candidates["score"].tolist() == [1.0]


def test_two_candidates_on_one_lesion():
    """One to one, the better scored takes it though the other covers more; by the other rules neither is false."""
    probability = volume((row(2, 4), 0.9), (row(5, 9), 0.4))
    found = detect(probability, labels((row(2, 10), ET)))  # IoU 2 / 8 and 4 / 8
    assert scores(found, "one_to_one") == ([pytest.approx(0.9)], [2])
    assert scores(found, "overlap") == ([pytest.approx(0.9)], [])
    assert scores(found, "centroid") == ([pytest.approx(0.9)], [])
    # without the first, which is the smaller one, the second finds the lesion
    assert scores(found, "one_to_one", smallest=3.0) == ([pytest.approx(0.4)], [])
    assert found.candidates["hit_one_to_one"].tolist() == [True, False]


def test_one_candidate_over_two_lesions():
    probability = volume((row(2, 12), 0.6))
    found = detect(probability, labels((row(2, 6), ET), (row(9, 12), ET)))  # IoU 4 / 10 and 3 / 10; centroid 6.5
    score = pytest.approx(0.6)
    assert scores(found, "one_to_one") == ([score, -math.inf], [])
    assert scores(found, "overlap") == ([score, score], [])
    assert scores(found, "centroid") == ([-math.inf, -math.inf], [1])


def test_of_equal_scores_the_larger_iou_goes_first():
    """The first in number is the larger candidate, with IoU 2 / 12; the second has 4 / 8."""
    found = detect(volume((row(0, 7), 0.5), (row(8, 13), 0.5)), labels((row(5, 12), ET)))
    assert found.overlaps[["candidate", "iou"]].to_numpy().tolist() == [[1, 2 / 12], [2, 4 / 8]]
    assert scores(found, "one_to_one") == ([0.5], [1])


def test_of_equal_scores_and_iou_the_lower_number_is_taken():
    found = detect(volume((row(2, 4), 0.5), (row(6, 8), 0.5)), labels((row(2, 8), ET)))
    assert found.overlaps["iou"].tolist() == [2 / 6, 2 / 6]
    assert scores(found, "one_to_one") == ([0.5], [2])


def test_a_taken_lesion_leaves_the_next_best():
    """The first takes the lesion on the left; the second has more of it, and must take the one on the right."""
    reference = labels((row(2, 8), ET), (row(9, 12), ET))
    probability = volume((row(2, 4), 0.9), (row(5, 11), 0.8))  # IoU: 2 / 6; 3 / 9 and 2 / 7
    found = detect(probability, reference)
    assert scores(found, "one_to_one") == ([pytest.approx(0.9), pytest.approx(0.8)], [])


def test_an_iou_of_a_tenth_is_enough_and_less_is_not():
    reference = labels((row(0, 1), ET))
    assert scores(detect(volume((row(0, 10), 0.5)), reference), "one_to_one") == ([0.5], [])
    below = detect(volume((row(0, 11), 0.5)), reference)
    assert scores(below, "one_to_one") == ([-math.inf], [1])
    assert scores(below, "overlap") == ([0.5], [])


def test_a_ring_around_a_lesion_has_its_centroid_inside_and_shares_nothing():
    ring = volume(((slice(4, 7), slice(1, 4), slice(2, 3)), 0.7))
    ring[5, 2, 2] = 0
    found = detect(ring, labels((row(5, 6), ET)))
    assert found.overlaps[["shared_mm3", "iou", "centroid_inside"]].to_numpy().tolist() == [[0.0, 0.0, True]]
    assert scores(found, "centroid") == ([pytest.approx(0.7)], [])
    assert scores(found, "overlap") == ([-math.inf], [1])
    assert scores(found, "one_to_one") == ([-math.inf], [1])


@pytest.mark.parametrize("end", [(2, 4), (4, 6)])
def test_a_centroid_on_a_border_lies_in_both_voxels(end):
    """Voxels 3 and 4: the centroid is 3.5, whichever side the lesion lies on."""
    found = detect(volume((row(3, 5), 0.7)), labels((row(*end), ET)))
    assert found.overlaps["centroid_inside"].tolist() == [True]


def test_no_lesion_no_candidate_and_neither():
    found = detect(
        volume((row(2, 4), 0.9)), labels(),
        missed=(volume(), labels((row(2, 4), ET))), quiet=(volume(), labels()),
    )  # fmt: skip
    assert found.cases == ("P1", "missed", "quiet")
    for rule in HIT_RULES:
        outcome = hits(found, rule)
        assert outcome.cases == found.cases
        assert outcome.lesions[["case", "score"]].to_numpy().tolist() == [["missed", -math.inf]]
        assert outcome.false[["case", "candidate"]].to_numpy().tolist() == [["P1", 1]]


def test_cases_do_not_hit_each_other():
    """Each case's candidate 1 and lesion 1 are its own."""
    found = detect(
        volume((row(2, 4), 0.9)), labels((row(10, 12), ET)), other=(volume((row(2, 4), 0.8)), labels((row(2, 4), ET)))
    )
    for rule in HIT_RULES:
        outcome = hits(found, rule)
        assert outcome.lesions["score"].tolist() == [-math.inf, pytest.approx(0.8)]
        assert outcome.false["case"].tolist() == ["P1"]


def test_lesions_are_those_of_the_region_and_touch_by_corners():
    reference = labels((row(2, 4), ET), ((slice(4, 6), slice(3, 4), slice(3, 4)), NETC), (row(9, 11), SNFH))
    found = find(dict.fromkeys(REGIONS, volume()), reference, (1.0, 1.0, 1.0), np.eye(4), 0.1)
    counted = found.targets.groupby("region")["volume_mm3"].apply(list).to_dict()
    assert counted == {"ET": [2.0], "TC": [4.0], "WT": [4.0, 2.0]}
    assert found.candidates.empty and found.overlaps.empty


def test_the_same_anatomy_in_other_axes_gives_the_same_rows():
    """Flipped and permuted voxels, with the affine that says so: nothing changes, sorted or measured."""
    generator = np.random.default_rng(1)
    probability = np.kron(generator.random((8, 6, 5)) ** 4, np.ones((2, 2, 2))).astype(np.float32)
    probability[3:5, 2:5, 1:3] = 0.625
    reference = (np.kron(generator.random((8, 6, 5)) > 0.9, np.ones((2, 2, 2))) * ET).astype(np.uint8)
    affine = np.array([[2.0, 0, 0, -5], [0, 1.5, 0, 7], [0, 0, 3.0, 1], [0, 0, 0, 1]])
    expected = collect(
        {"P1": find({"ET": probability}, reference, (2.0, 1.5, 3.0), affine, 0.4)}, "default", "scratch"
    )
    assert len(expected.candidates) > 2 and len(expected.targets) > 2 and len(expected.overlaps) > 2
    image = nib.Nifti1Image(probability, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt("PIL"))
    turned = image.as_reoriented(turn)
    spacing = tuple(float(side) for side in turned.header.get_zooms())
    assert spacing == (1.5, 3.0, 2.0)
    other = find(
        {"ET": np.asarray(turned.dataobj)}, nib.apply_orientation(reference, turn), spacing, turned.affine, 0.4
    )
    found = collect({"P1": other}, "default", "scratch")
    for name in ("candidates", "targets", "overlaps"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name), rtol=1e-12)
    wrong = find({"ET": np.asarray(turned.dataobj)}, nib.apply_orientation(reference, turn), spacing, affine, 0.4)
    assert not np.allclose(wrong.candidates["x_mm"], expected.candidates["x_mm"])


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, math.nan])
def test_a_threshold_that_takes_every_voxel_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold: .* must be above 0"):
        detect(volume(), labels(), threshold=threshold)


def test_other_shapes_regions_rules_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"ET have shape \(20, 6, 5\), the reference \(6, 20, 5\)"):
        detect(volume(), labels(shape=(6, 20, 5)))
    with pytest.raises(ValueError, match="RC is none of ET, TC, WT"):
        find({"RC": volume()}, labels(), (1.0, 1.0, 1.0), np.eye(4), 0.1)
    found = detect(volume(), labels())
    with pytest.raises(ValueError, match=r"rule: 'any' must be one of one_to_one"):
        hits(found, "any")  # type: ignore[arg-type]
    for size in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="smallest_mm3"):
            hits(found, "overlap", size)


def test_tables_are_read_as_they_were_written(tmp_path: Path):
    found = detect(volume((row(2, 4), 0.9), (row(5, 9), 0.4)), labels((row(2, 10), ET)), quiet=(volume(), labels()))
    assert [path.name for path in write_detections(tmp_path, found)] == [
        "candidates.csv", "targets.csv", "overlaps.csv",
    ]  # fmt: skip
    read = read_detections(tmp_path, ["P1", "quiet"])
    assert read.cases == found.cases
    for name in ("candidates", "targets", "overlaps"):
        pd.testing.assert_frame_equal(getattr(read, name), getattr(found, name), check_exact=True)


def test_tables_without_rows_are_read(tmp_path: Path):
    write_detections(tmp_path, detect(volume(), labels()))
    read = read_detections(tmp_path, ["P1"])
    assert [len(table) for table in (read.candidates, read.targets, read.overlaps)] == [0, 0, 0]
    for rule in HIT_RULES:
        assert hits(read, rule).lesions.empty and hits(read, rule).false.empty


def test_tables_that_do_not_fit_are_refused(tmp_path: Path):
    found = detect(volume((row(2, 4), 0.9)), labels((row(2, 4), ET)))
    write_detections(tmp_path, found)
    with pytest.raises(TableError, match=r"candidates: P1 is not among the cases"):
        read_detections(tmp_path, ["P2"])
    with pytest.raises(TableError, match="must each be named once"):
        read_detections(tmp_path, ["P1", "P1"])
    tables.write(tmp_path / "targets.csv", found.targets.iloc[:0])
    with pytest.raises(TableError, match="overlaps: default finetune P1 ET 1 is not in targets"):
        read_detections(tmp_path, ["P1"])
    tables.write(tmp_path / "targets.csv", found.targets)
    tables.write(tmp_path / "candidates.csv", found.candidates.assign(hit_centroid=False))
    with pytest.raises(TableError, match=r"candidates\.csv: hit_centroid of default finetune P1 ET 1 is not what"):
        read_detections(tmp_path, ["P1"])
    (tmp_path / "candidates.csv").unlink()
    with pytest.raises(FileNotFoundError):
        read_detections(tmp_path, ["P1"])


def test_the_volume_of_candidates_has_the_numbers_of_their_table():
    """Three candidates in an unsure brain: volume, place and score of each are those of its row."""
    probability = np.full((20, 20, 20), 0.2, np.float32)
    probability[2:4, 2, 2], probability[10, 10:13, 10], probability[16, 16, 16] = 0.7, 0.9, 0.8
    affine = np.diag([2.0, 1, 1, 1])
    rows = find({"TC": probability}, np.zeros((20, 20, 20), np.uint8), (2.0, 1.0, 1.0), affine, 0.1).candidates
    volume = numbered(probability, affine, 0.1)
    assert rows["candidate"].tolist() == [1, 2, 3] == sorted(set(np.unique(volume)) - {0})
    for row in rows.itertuples():
        places = np.argwhere(volume == row.candidate)
        assert 2 * len(places) == row.volume_mm3
        assert probability[volume == row.candidate].max() == np.float32(row.score)
        assert (places.mean(0) * [2, 1, 1]).tolist() == pytest.approx([row.x_mm, row.y_mm, row.z_mm])
    assert not numbered(probability, affine, 0.95).any()
