"""The sums behind calibration, on voxels that can be counted by hand, and against scikit-learn on the same voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.reliability_examples import write_sums
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from brainmets import nifti
from brainmets.cohorts.background import head_of
from brainmets.nifti import ImageError
from brainmets.scoring import probabilities as kept
from brainmets.scoring.calibration import BINS, COLUMNS, SUMS, bins_of, near, reliability, reliability_of_cases
from brainmets.statistics.calibration import brier, ece, read_reliability
from brainmets.vocabulary import REGIONS, ZONES

EVERYWHERE = (1.0, 1.0, 1.0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def volume(shape: tuple[int, int, int] = (30, 5, 4), **voxels: float) -> np.ndarray:
    """Probability 0 but along the first axis: ``x3=0.5`` is voxel (3, 2, 2)."""
    found = np.zeros(shape, np.float32)
    for name, value in voxels.items():
        found[int(name[1:]), 2, 2] = value
    return found


def sums(p: np.ndarray, reference: np.ndarray, head: np.ndarray | None = None, spacing=EVERYWHERE, threshold=0.1):
    head = np.ones(p.shape, bool) if head is None else head
    table = reliability({"ET": p}, reference, head, spacing, threshold)
    assert len(table) == len(ZONES) * (BINS + 1), "every bin has its row"
    return table.set_index(["zone", "bin"])[list(SUMS)]


def labels(*places: int, shape: tuple[int, int, int] = (30, 5, 4), value: int = 3) -> np.ndarray:
    found = np.zeros(shape, np.uint8)
    for x in places:
        found[x, 2, 2] = value
    return found


def test_five_voxels_by_hand() -> None:
    """Two voxels in bin 3, one true; one sure and right; one missed outright; one at the upper edge of bin 2."""
    table = sums(volume(x1=0.25, x2=0.3, x5=1.0, x8=0.2), labels(2, 5, 20))
    assert table.loc[("head", 3)].tolist() == pytest.approx([2, 0.55, 0.0625 + 0.09, 0.3, 1])
    assert table.loc[("head", 10)].tolist() == [1, 1, 1, 1, 1]
    assert table.loc[("head", 2)].tolist() == pytest.approx([1, 0.2, 0.04, 0, 0])
    assert table.loc[("head", 0)].tolist() == [600 - 4, 0, 0, 0, 1], "voxel 20 is a lesion with a probability of 0"
    assert table.loc["head", "n"].sum() == 600


@pytest.mark.parametrize(
    ("spacing", "reach"),
    [((1.0, 1.0, 1.0), 10), ((2.5, 1.0, 1.0), 4), ((3.0, 1.0, 1.0), 3), ((1.0000001, 1.0, 1.0), 10)],
)
def test_near_is_ten_millimetres_whatever_the_voxels(spacing: tuple[float, float, float], reach: int) -> None:
    seeds = np.zeros((41, 1, 1), bool)
    seeds[20] = True
    found = np.flatnonzero(near(seeds, spacing))
    assert found.tolist() == list(range(20 - reach, 20 + reach + 1))


def test_near_is_a_ball_in_millimetres_and_not_in_voxels() -> None:
    """6 and 8 mm along two axes are 10 mm; 6 and 9 are not. The third axis has 4 mm voxels."""
    seeds = np.zeros((25, 25, 9), bool)
    seeds[12, 12, 4] = True
    found = near(seeds, (1.0, 1.0, 4.0))
    assert (found[18, 20, 4], found[18, 21, 4]) == (True, False)
    assert (found[18, 12, 6], found[19, 12, 6]) == (True, False)
    assert (found[12, 12, 6], found[12, 12, 7]) == (True, False)


def test_near_of_many_seeds_is_that_of_the_whole_image(rng: np.random.Generator) -> None:
    seeds = rng.random((70, 50, 40)) < 0.0004
    spacing = (0.9, 1.3, 3.0)
    places = np.argwhere(seeds)
    every = np.indices(seeds.shape).reshape(3, -1).T
    distance = np.min([(((every - place) * spacing) ** 2).sum(1) for place in places], axis=0)
    assert np.array_equal(near(seeds, spacing).ravel(), distance <= 100)


def test_zone_near_starts_from_lesions_and_from_candidates_alone() -> None:
    """A line of 30 voxels of 5 mm: a lesion at 4, a candidate at 15, and a probability below the threshold at 25."""
    shape = (30, 1, 1)
    p, reference = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    reference[4], p[15], p[25] = 3, 0.1, 0.09
    table = reliability({"ET": p}, reference, np.ones(shape, bool), (5.0, 1.0, 1.0), 0.1).set_index(["zone", "bin"])
    assert table.loc["near", "n"].sum() == 5 + 5
    assert table.loc[("near", 1), "n"] == 1
    assert table.loc[("head", 1), "n"] == 2


def test_without_lesions_and_probabilities_near_is_empty() -> None:
    table = sums(volume(), labels())
    assert table.loc["near"].to_numpy().sum() == 0
    assert table.loc[("head", 0)].tolist() == [600, 0, 0, 0, 0]
    assert table.loc["head"].to_numpy().sum() == 600


def test_an_empty_reference_counts_every_candidate_voxel_as_wrong() -> None:
    table = sums(volume(x4=0.5), labels())
    assert table["positive"].sum() == 0
    assert float(brier(table.loc["near"].to_numpy())) == pytest.approx(0.25 / table.loc["near", "n"].sum())


def test_all_zero_probabilities_have_the_lesion_as_their_error() -> None:
    table = sums(volume(), labels(3, 4, 5)).loc["near"]
    assert table["sum_p"].sum() == 0
    assert float(brier(table.to_numpy())) == pytest.approx(3 / table["n"].sum())
    assert float(ece(table.to_numpy())) == pytest.approx(3 / table["n"].sum())


def test_the_head_is_the_mask_and_what_is_named_outside_it() -> None:
    head = np.zeros((30, 5, 4), bool)
    head[:3] = True
    table = sums(volume(x20=0.4), labels(10), head)
    assert table.loc["head", "n"].sum() == 3 * 20 + 2
    assert table.loc["near", "n"].sum() == 1 + 20 + 20 + 2, "ten, nine and eight voxels from the lesion"


def test_regions_are_nested_and_a_cavity_is_in_none() -> None:
    reference = labels(1) + labels(2, value=1) + labels(3, value=2) + labels(4, value=4)
    p = dict.fromkeys(REGIONS, volume())
    table = reliability(p, reference, np.ones(reference.shape, bool), EVERYWHERE, 0.1)
    counted = table[table["zone"] == "head"].groupby("region")["positive"].sum()
    assert counted.to_dict() == {"ET": 1, "TC": 2, "WT": 3}


def test_edges_belong_to_the_bin_that_ends_there() -> None:
    edges = np.arange(BINS + 1) / BINS
    assert bins_of(edges).tolist() == list(range(BINS + 1))
    assert bins_of(edges.astype(np.float32)).tolist() == list(range(BINS + 1))
    assert bins_of(edges[:-1] + 2e-5).tolist() == list(range(1, BINS + 1))


def test_memory_order_and_axes_change_nothing(rng: np.random.Generator) -> None:
    shape = (20, 16, 12)
    p = np.where(rng.random(shape) < 0.1, rng.random(shape), 0).astype(np.float32)
    reference = np.where(rng.random(shape) < 0.01, 3, 0).astype(np.uint8)
    head = rng.random(shape) < 0.7
    one = sums(p, reference, head, (1.0, 2.0, 3.0))
    other = sums(np.asfortranarray(p), np.asfortranarray(reference), head, (1.0, 2.0, 3.0))
    turned = sums(p.transpose(2, 0, 1), reference.transpose(2, 0, 1), head.transpose(2, 0, 1), (3.0, 1.0, 2.0))
    pd.testing.assert_frame_equal(one, other)
    pd.testing.assert_frame_equal(one, turned)


def test_brier_and_curve_are_those_of_scikit_learn(rng: np.random.Generator) -> None:
    shape = (30, 30, 20)
    p = np.round(np.where(rng.random(shape) < 0.3, rng.random(shape), 0), 3)
    p[np.isin(np.round(p * 1000) % 100, [0])] = 0  # scikit-learn puts an edge's noise on either side of it
    reference = np.where(rng.random(shape) < np.sqrt(p) * 0.8 + 0.01, 3, 0).astype(np.uint8)
    head = rng.random(shape) < 0.8
    table = sums(p.astype(np.float32), reference, head)
    within = head | (reference == 3) | (p > 0)
    truth, given = (reference == 3)[within], p[within]
    assert float(brier(table.loc["head"].to_numpy())) == pytest.approx(brier_score_loss(truth, given), abs=1e-7)
    observed, predicted = calibration_curve(truth[given > 0], given[given > 0], n_bins=BINS)
    own = table.loc["head"].iloc[1:]
    assert (own["positive"] / own["n"]).to_numpy() == pytest.approx(observed)
    assert (own["sum_p"] / own["n"]).to_numpy() == pytest.approx(predicted, abs=1e-6)
    counts = np.array([np.sum(given == 0), *own["n"]])
    gaps = np.abs([np.mean(truth[given == 0]), *(observed - predicted)])
    assert float(ece(table.loc["head"].to_numpy())) == pytest.approx(float((counts * gaps).sum() / counts.sum()))


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.01])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"ET: probabilities from .* must lie between 0 and 1"):
        sums(volume(x3=wrong), labels())


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"head: of shape \(2, 2, 2\), the reference of \(30, 5, 4\)"):
        sums(volume(), labels(), np.ones((2, 2, 2), bool))


def test_files_of_cases(tmp_path: Path) -> None:
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    given = {"ET": volume(x4=0.5), "TC": volume(x4=0.6), "WT": volume(x4=0.7, x6=0.01)}
    model, images = ("default", "scratch"), {}
    for case in ("P2", "P1"):
        kept.write(tmp_path / "kept" / f"{case}.nii.gz", given, affine, floor=0.02)
        nifti.write(tmp_path / "references" / f"{case}.nii.gz", labels(4), affine)
        image = np.zeros((30, 5, 4), np.float32)
        image[:-1, 1:, 1:] = 7  # a head of 29 by 4 by 3 voxels
        images[case] = nifti.write(tmp_path / "images" / f"{case}_t1c.nii.gz", image, affine)
    folders = (tmp_path / "kept", tmp_path / "references")
    table = reliability_of_cases(model, images, *folders, head=head_of, threshold=0.1)
    assert list(table.columns) == list(COLUMNS)
    assert list(dict.fromkeys(table["case"])) == ["P1", "P2"]
    assert len(table) == 2 * len(REGIONS) * len(ZONES) * (BINS + 1)
    assert set(zip(table["arm"], table["strategy"], strict=True)) == {model}
    own = table[(table["case"] == "P1") & (table["region"] == "WT")].set_index(["zone", "bin"])
    assert own.loc[("near", 7), ["n", "positive"]].tolist() == [1, 1]
    assert own.loc["near", "n"].sum() == 9 * 12 + 1, "8 mm all of the short axes, at 10 mm (voxel 9) the line itself"
    assert own.loc["head", "n"].sum() == 29 * 12
    assert own.loc[("head", 1), "n"] == 0, "below the floor nothing is kept"
    two = reliability_of_cases(model, images, *folders, head=head_of, threshold=0.1, workers=2)
    pd.testing.assert_frame_equal(two, table)
    read = read_reliability(write_sums(tmp_path / "evaluation", table))
    assert len(read) == len(table), "what notebook 06 writes is what notebook 07 reads"
    nifti.write(tmp_path / "references" / "P2.nii.gz", labels(4), np.eye(4))
    with pytest.raises(ImageError, match="the probabilities are of another grid: predict the case anew"):
        reliability_of_cases(model, images, *folders, head=head_of, threshold=0.1)
    (tmp_path / "kept" / "P1.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"P1\.nii\.gz"):
        reliability_of_cases(model, images, *folders, head=head_of, threshold=0.1)
    assert reliability_of_cases(model, {}, *folders, head=head_of, threshold=0.1).empty


def test_the_head_of_a_stripped_and_of_a_whole_scan(tmp_path: Path, rng: np.random.Generator) -> None:
    stripped = np.zeros((12, 12, 12))
    stripped[3:9, 3:9, 3:9] = 5.0
    noisy = np.where(stripped > 0, 100.0, rng.random((12, 12, 12)))
    found = {}
    for name, voxels in {"zero": stripped, "minus": stripped - 3, "noisy": noisy}.items():
        found[name] = head_of(nifti.write(tmp_path / f"{name}.nii.gz", voxels, np.eye(4)))
    assert found["zero"].sum() == 6**3
    assert np.array_equal(found["zero"], found["minus"]), "a background of -3 is one, too"
    assert found["noisy"][4:8, 4:8, 4:8].all()
    assert not found["noisy"][stripped == 0].any(), "the air of a scan with its skull is noise, and no head"
