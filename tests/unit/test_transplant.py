"""Lesion transplant: what is cut out, where it goes, how it is blended, and that nothing else of a patch changes."""

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from small_study import ARMS, training_parameters

from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training.lesion_sampling import LesionSampling, lesion_numbers
from brainmets.training.preprocessed import StudyDataset, open_array, write_places
from brainmets.training.seeds import RandomStream
from brainmets.training.session import TrainingSession, prepare
from brainmets.training.transplant import (
    COUNTED,
    Graft,
    Piece,
    Transplants,
    blend,
    donor_share,
    find_donors,
    turned,
    turns,
    with_margin,
)
from brainmets.training.transplant_figure import drawn, examples, transplant_figure
from brainmets.training.transplant_places import Tissue, find_places, grey_white_junction, three_classes

SEQUENCES = ("t1n", "t1c", "t2w", "t2f")
ISOTROPIC = (1.0, 1.0, 1.0)
PATCH = np.array([24, 24, 24])
"""All of a test's head but for its outermost voxels."""


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> npt.NDArray[np.bool_]:
    grid = np.ogrid[tuple(slice(side) for side in shape)]
    squares = sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True))
    return np.asarray(squares <= radius**2)


def head(seed: int, lesions: dict[tuple[int, int, int], float], side: int = 40) -> tuple[Any, Any]:
    """Images and labels of a ball-shaped head: noise about 1, and bright lesions of ET within NETC within SNFH."""
    noise = np.random.default_rng(seed)
    labels = np.where(ball((side,) * 3, (side // 2,) * 3, side / 2 - 2), 0, -1).astype(np.int16)
    images = noise.normal(1, 0.1, (4, side, side, side)).astype(np.float32)
    for centre, radius in lesions.items():
        for number, (label, share) in enumerate(((2, 1), (1, 0.7), (3, 0.4))):
            where = ball(labels.shape, centre, radius * share)
            labels[where] = label
            images[:, where] += np.array([-1, 2, 0.5, 1], np.float32)[:, None] * (number == 2)
    images[:, labels < 0] = 0
    return images, labels


class Cases:
    """Stands for the training dataset: preprocessed cases in a folder, of which some are the fold's."""

    def __init__(self, folder: Path, heads: dict[str, tuple[Any, Any]], identifiers: list[str]) -> None:
        self.source_folder, self.identifiers = str(folder), identifiers
        for case, (images, labels) in heads.items():
            blosc2.asarray(np.ascontiguousarray(images), urlpath=str(folder / f"{case}.b2nd"))
            blosc2.asarray(np.ascontiguousarray(labels[None]), urlpath=str(folder / f"{case}_seg.b2nd"))
            (folder / "properties").mkdir(exist_ok=True)
            write_places(folder / "properties" / f"{case}.npz", {"class_locations": {3: np.zeros((0, 4))}})

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        ends = ("", "_seg")
        images, labels = (blosc2.open(f"{self.source_folder}/{identifier}{end}.b2nd", mode="r") for end in ends)
        return images, labels, None, {"class_locations": {}}


def transplants(
    folder: Path,
    heads: dict[str, tuple[Any, Any]],
    share: float = 1.0,
    spacing: tuple[float, ...] = ISOTROPIC,
    identifiers: list[str] | None = None,
    sequences: tuple[str, ...] = ("t2w", "t2f", "t2w", "t2f"),
    patch: Any = PATCH,
) -> Transplants:
    """Of heads without T1 unless ``sequences`` says so, so that lesions may lie anywhere inside."""
    folder.mkdir(exist_ok=True)
    dataset = Cases(folder, heads, identifiers or sorted(heads))
    return Transplants(dataset, folder, share, sequences, spacing, patch)


def whole(dataset: Transplants, case: str, seed: int, lower: Any = (8, 8, 8)) -> tuple[Any, Any, Graft | None]:
    """The patch of a case from ``lower`` on, as the loader cuts it, and the graft in it."""
    lower = np.asarray(lower)
    with RandomStream(seed).drawn_from():
        images, labels, _, _ = dataset.load_case(case)
        dataset.begin_patch(lower, lower + dataset.final_patch)
    box = (slice(None), *(slice(start, start + side) for start, side in zip(lower, dataset.final_patch, strict=True)))
    return images[box], labels[box][0], dataset.graft


TWO = {"a": head(1, {(20, 20, 20): 3.0}), "b": head(2, {(20, 12, 20): 3.0})}


# --- donors ---


def test_a_lesion_is_a_donor_by_its_size_core_and_cavity() -> None:
    labels = np.zeros((60, 60, 60), np.int16)
    labels[ball(labels.shape, (10, 10, 10), 3)] = 3
    labels[ball(labels.shape, (10, 10, 40), 3)] = 2  # oedema alone
    labels[ball(labels.shape, (40, 40, 10), 3)] = 3
    labels[40, 40, 10] = 4  # with a resection cavity
    labels[ball(labels.shape, (40, 40, 40), 9)] = 2  # a small core in much oedema
    labels[ball(labels.shape, (40, 40, 40), 2)] = 3
    labels[10, 40, 10] = 3  # a single voxel
    labels[ball(labels.shape, (0, 30, 30), 3)] = 3  # cut by the image's edge
    (donor,) = find_donors("a", labels, (True,) * 4, ISOTROPIC)
    mask = ball(labels.shape, (10, 10, 10), 3)
    assert donor.diameter_mm == pytest.approx((6 / np.pi * mask.sum()) ** (1 / 3))
    assert donor.lower == (1, 1, 1), "7 voxels about (10, 10, 10), and 6 mm around them"
    assert donor.mask.shape == (19, 19, 19)
    np.testing.assert_array_equal(donor.mask, mask[1:20, 1:20, 1:20])


def test_a_lesion_takes_its_oedema_along() -> None:
    labels = np.zeros((40, 40, 40), np.int16)
    labels[ball(labels.shape, (20, 20, 20), 5)] = 2
    labels[ball(labels.shape, (20, 20, 20), 2)] = 3
    (donor,) = find_donors("a", labels, (True,) * 4, ISOTROPIC)
    assert donor.mask.sum() == (labels > 0).sum()


def test_the_margin_is_two_millimetres_and_one_voxel_at_the_least() -> None:
    mask = np.zeros((11, 11, 11), bool)
    mask[5, 5, 5] = True
    near = with_margin(mask, (5.0, 1.0, 1.0))
    assert [int(near.any(axes).sum()) for axes in ((1, 2), (0, 2), (0, 1))] == [3, 5, 5]
    assert not near[4, 5, 7], "two voxels in the plane, in the neighbouring slice none but the neighbours"


def test_axes_change_places_only_where_their_spacing_is_the_same() -> None:
    assert turns((5.0, 1.0, 1.001)) == [(0, 1, 2), (0, 2, 1)]
    assert len(turns(ISOTROPIC)) == 6
    assert turns((3.0, 2.0, 1.0)) == [(0, 1, 2)]
    volume = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(turned(volume, (0, 2, 1), (2,))[1, 2, 3, 0], volume[1, 2, 3, 3])
    assert turned(volume, (0, 2, 1), ()).shape == (2, 3, 5, 4)


# --- blending ---


def test_a_blended_lesion_keeps_its_contrast_to_its_own_surroundings() -> None:
    """By hand. Donor: surroundings 9, 10, 11, 12 in turn (median 10.5, quartiles 9.75 and 11.25), a voxel of 14.5.

    Recipient: 4.75, 5, 5.25, 5.5 in turn (median 5.125, a quarter of the spread): the factor 1/4 is held at 2/3.
    So the lesion is 5.125 + 2/3 (14.5 - 10.5), and 5.125 - 2/3 (14.5 - 10.5) where it was dark by as much.
    """
    shape, mask = (4, 9, 9, 9), np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    cycle = np.resize([0, 1, 2, 3], 9**3).reshape(9, 9, 9)
    donor, recipient = np.empty(shape, np.float32), np.empty(shape, np.float32)
    donor[:] = 9 + cycle
    recipient[:] = 4.75 + cycle / 4
    donor[:, 4, 4, 4] = [14.5, 6.5, 14.5, 6.5]
    labels = np.where(mask, 3, 0).astype(np.int16)
    blended = blend(Piece(donor, labels, mask, with_margin(mask, ISOTROPIC)), recipient, np.zeros((9, 9, 9), np.int16))
    assert blended is not None
    images, joined = blended
    medians = [float(np.median(one[0][donor_share(mask) == 0])) for one in (donor, recipient)]
    assert medians == pytest.approx([10.5, 5.125], abs=0.26), "the ring is not quite balanced"
    bright, dark = medians[1] + 2 / 3 * (14.5 - medians[0]), medians[1] + 2 / 3 * (6.5 - medians[0])
    np.testing.assert_allclose(images[:, 4, 4, 4], [bright, dark, bright, dark], rtol=1e-5)
    seam = recipient[0, 4, 4, 5] / 2 + (medians[1] + 2 / 3 * (donor[0, 4, 4, 5] - medians[0])) / 2
    assert images[0, 4, 4, 5] == pytest.approx(seam), "half of each in the next voxel"
    np.testing.assert_array_equal(images[:, donor_share(mask) == 0], recipient[:, donor_share(mask) == 0])
    np.testing.assert_array_equal(joined, labels)


def test_the_donors_share_falls_over_two_voxels() -> None:
    mask = np.zeros((7, 7, 7), bool)
    mask[3, 3, 3] = True
    share = donor_share(mask)
    assert share[3, 3, 3:].tolist() == [1, 0.5, 0, 0]
    assert share[3, 4, 4] == pytest.approx(1 - 2**0.5 / 2)
    assert share[4, 4, 4] == pytest.approx(1 - 3**0.5 / 2)


def test_a_seam_takes_nothing_from_beyond_the_donors_head() -> None:
    """A lesion at the head's edge, beyond which the image is far darker than any tissue."""
    noise, mask = np.random.default_rng(0), np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    donor, recipient = (noise.normal(10, 1, (4, 9, 9, 9)).astype(np.float32) for _ in range(2))
    labels = np.where(mask, 3, 0).astype(np.int16)
    donor[:, :, :, 5:], labels[:, :, 5:] = -1000, -1
    blended = blend(Piece(donor, labels, mask, with_margin(mask, ISOTROPIC)), recipient, np.zeros((9, 9, 9), np.int16))
    assert blended is not None
    np.testing.assert_array_equal(blended[0][..., 5:], recipient[..., 5:])
    assert (blended[0][:, 4, 4, 3] != recipient[:, 4, 4, 3]).all(), "on the other side there is a seam"


@pytest.mark.parametrize("whose", ["donor", "recipient"])
def test_other_lesions_around_do_not_count_as_surroundings(whose: str) -> None:
    """Of 4 above tissue of 10, into tissue of 5: between 5 + 2/3 of 4 and 5 + 3/2 of 4, though most is another's."""
    noise, mask = np.random.default_rng(0), np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    donor, recipient = (noise.normal(level, 1, (4, 9, 9, 9)).astype(np.float32) for level in (10, 5))
    donor[:, 4, 4, 4] = 14
    own, known = np.where(mask, 3, 0).astype(np.int16), np.zeros((9, 9, 9), np.int16)
    images, labels = {"donor": (donor, own), "recipient": (recipient, known)}[whose]
    others = [0, 5, 6, 7, 8]
    images[..., others], labels[..., others] = 1000, 2
    blended = blend(Piece(donor, own, mask, with_margin(mask, ISOTROPIC)), recipient, known)
    assert blended is not None
    assert (blended[0][:, 4, 4, 4] > 7).all() and (blended[0][:, 4, 4, 4] < 12).all()


def test_an_absent_sequence_stays_zero_and_a_ring_too_small_gives_nothing() -> None:
    mask = ball((15, 15, 15), (7, 7, 7), 2)
    images = np.random.default_rng(0).normal(size=(4, 15, 15, 15)).astype(np.float32)
    images[2] = 0
    labels = np.where(mask, 3, 0).astype(np.int16)
    piece = Piece(images, labels, mask, with_margin(mask, ISOTROPIC))
    blended = blend(piece, images * np.float32(2), np.zeros_like(labels))
    assert blended is not None
    assert not blended[0][2].any()
    assert blended[0][1].any()
    assert blend(piece, images, np.where(donor_share(mask) > 0, 0, -1)) is None


# --- places ---


def test_three_classes_part_where_their_means_do() -> None:
    values = np.repeat([0.0, 10.0, 14.0], [300, 500, 400])
    assert three_classes(values) == (5.0, 12.0)


def layers(dark_to_bright: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    """Fluid, grey and white matter in layers along the last axis, 20 voxels each."""
    image = np.repeat(np.array(dark_to_bright, np.float32), 20)
    return np.broadcast_to(image, (30, 30, 60)).copy()


def test_the_junction_is_where_grey_meets_white_and_not_where_fluid_does() -> None:
    inside = np.zeros((30, 30, 60), bool)
    inside[4:-4, 4:-4, 4:-4] = True
    junction, fluid_below = grey_white_junction(layers((0, 10, 14)), inside, ISOTROPIC)
    assert set(np.argwhere(junction)[:, 2]) == {39, 40}, "voxels 20 to 39 are grey, 40 to 59 white"
    assert not junction[~inside].any()
    assert fluid_below == pytest.approx(5, abs=0.5)


def test_white_matter_beside_a_ventricle_is_no_junction() -> None:
    """Smoothed, the voxels between fluid and white matter are as bright as grey matter."""
    inside = np.zeros((30, 30, 60), bool)
    inside[4:-4, 4:-4, 4:-4] = True
    junction, _ = grey_white_junction(layers((0, 14, 10)), inside, ISOTROPIC)
    assert set(np.argwhere(junction)[:, 2]) == {39, 40}, "voxels up to 19 are fluid, 40 to 59 grey"


def test_places_are_found_on_t1n_then_t1c_and_anywhere_inside_without_either() -> None:
    labels = np.zeros((30, 30, 60), np.int16)
    labels[:, :, :2] = -1
    labels[15, 15, 40] = 3
    t1n, t1c, absent = layers((0, 10, 14)), layers((0, 10, 10)), np.zeros((30, 30, 60), np.float32)
    found = find_places(np.stack([t1n, t1c]), labels, ("t1n", "t1c"), ISOTROPIC)
    assert found.rule == "grey-white junction on t1n"
    assert set(found.voxels[:, 2].tolist()) == {39, 40}
    away = np.linalg.norm(found.voxels - [15, 15, 40], axis=1)
    assert away.min() > 3, "nor near a lesion"
    assert found.clearance_mm[away.argmin()] == pytest.approx(away.min(), abs=0.01)
    assert find_places(np.stack([absent, t1n]), labels, ("t1n", "t1c"), ISOTROPIC).rule == "grey-white junction on t1c"
    assert [one.channel for one in found.tissue] == [0, 1]
    assert found.tissue[0].lowest == pytest.approx(5, abs=0.5)
    assert found.tissue[1].highest == 10
    nowhere = find_places(np.stack([t1n]), np.where(labels == 0, -1, labels), ("t1n",), ISOTROPIC)
    assert len(nowhere.voxels) == 0
    anywhere = find_places(t1n[None], labels, ("t2f",), ISOTROPIC)
    assert anywhere.rule == "anywhere inside"
    assert anywhere.voxels.min(0).tolist() == [3, 3, 5], "more than 3 mm from the first voxel that is not the head's"


# --- patches ---


@pytest.mark.parametrize("seed", range(8))
def test_only_the_graft_differs_and_its_labels_are_the_donors(tmp_path: Path, seed: int) -> None:
    dataset = transplants(tmp_path, TWO)
    images, labels, graft = whole(dataset, "b", seed)
    assert graft is not None
    cut = (slice(8, 32),) * 3
    before, known = TWO["b"][0][(slice(None), *cut)], TWO["b"][1][cut]
    changed = np.zeros(known.shape, bool)
    changed[tuple((graft.voxels - 8).T)] = True
    np.testing.assert_array_equal(images[:, ~changed], before[:, ~changed])
    np.testing.assert_array_equal(labels[~changed], known[~changed])
    lesion = np.zeros(known.shape, bool)
    lesion[tuple((graft.voxels[graft.lesion] - 8).T)] = True
    assert not known[lesion].any(), "no overlap, and inside the head"
    assert not known[with_margin(lesion, ISOTROPIC)].any(), "nor within the margin"
    donor = TWO["a"][1]
    assert np.bincount(labels[lesion]).tolist() == np.bincount(donor[donor > 0]).tolist()
    np.testing.assert_array_equal(labels == -1, known == -1)
    core = np.isin(labels, (1, 3)) & lesion
    for inner, outer in ((labels == 3) & lesion, core), (core, lesion):
        assert outer[ndimage.binary_dilation(inner)].all(), "ET within the core within the whole, as in the donor"


def test_a_lesions_bright_and_dark_sequences_stay_so_and_where_its_label_says(tmp_path: Path) -> None:
    """The ET of ``head`` is darker than its surroundings on the first sequence and brightest on the second."""
    dataset = transplants(tmp_path, TWO)
    images, labels, graft = whole(dataset, "b", 3)
    assert graft is not None
    enhancing = np.zeros(labels.shape, bool)
    enhancing[tuple((graft.voxels[graft.labels == 3] - 8).T)] = True
    around = (labels == 0) & (TWO["b"][1][8:32, 8:32, 8:32] == 0)
    contrast = images[:, enhancing].mean(1) - np.median(images[:, around], axis=1)
    np.testing.assert_allclose(contrast, [-1, 2, 0.5, 1], atol=0.5)
    netc = graft.images[:, graft.labels == 1].mean(1)
    assert np.abs(netc - 1).max() < 0.3, "the core around it is as bright as the head"


def test_images_labels_and_mask_are_turned_alike(tmp_path: Path) -> None:
    """A lesion with three arms of other lengths, one of them ET and bright, the others NETC and dark."""
    clean = np.where(ball((40, 40, 40), (20, 20, 20), 18), 0, -1).astype(np.int16)
    arms = clean.copy()
    arms[18:24, 20, 20] = arms[18, 20:24, 20] = 1
    arms[18, 20, 20:23] = 3
    images = np.random.default_rng(0).normal(size=(4, 40, 40, 40)).astype(np.float32)
    bent = images.copy()
    bent[:, arms == 1], bent[:, arms == 3] = -20, 20
    dataset = transplants(tmp_path, {"a": (bent, arms), "b": (images, clean)})
    for seed in range(8):
        _, _, graft = whole(dataset, "b", seed)
        assert graft is not None
        known, values = graft.labels[graft.lesion], graft.images[:, graft.lesion]
        assert np.bincount(known).tolist() == [0, 8, 0, 3]
        assert (values[:, known == 1] < -5).all() and (values[:, known == 3] > 5).all()


def test_axes_keep_their_order(tmp_path: Path) -> None:
    """A donor that is long along the last axis, of other spacing than the others, stays long along it."""
    labels = np.where(ball((40, 40, 40), (20, 20, 20), 18), 0, -1).astype(np.int16)
    long = labels.copy()
    long[20, 20, 16:25] = 3
    images = np.random.default_rng(0).normal(size=(4, 40, 40, 40)).astype(np.float32)
    dataset = transplants(tmp_path, {"a": (images, long), "b": (images, labels)}, spacing=(1.5, 1.5, 1.0))
    for seed in range(4):
        _, _, graft = whole(dataset, "b", seed)
        assert graft is not None
        assert np.ptp(graft.voxels[graft.lesion], axis=0).tolist() == [0, 0, 8]


def test_donors_are_the_training_cases_alone_and_never_the_head_itself(tmp_path: Path) -> None:
    heads = {name: head(number, {(20, 20, 20): 3.0}) for number, name in enumerate("abcd")}
    dataset = transplants(tmp_path, heads, identifiers=["a", "b", "c"])
    assert {donor.case for donor in dataset.donors} == {"a", "b", "c"}
    drawn = [whole(dataset, "b", seed)[2] for seed in range(12)]
    assert {graft.donor.case for graft in drawn if graft} == {"a", "c"}


def test_a_lesion_moves_only_between_cases_with_the_same_sequences(tmp_path: Path) -> None:
    lacking = [head(number, {(20, 20, 20): 3.0}) for number in (1, 2)]
    for images, _ in lacking:
        images[2] = 0
    heads = {"a": TWO["a"], "b": lacking[0], "c": lacking[1], "d": TWO["b"]}
    dataset = transplants(tmp_path, heads)
    for case, other in {"a": "d", "b": "c", "c": "b", "d": "a"}.items():
        images, _, graft = whole(dataset, case, 1)
        assert graft is not None
        assert graft.donor.case == other
        assert images[2].any() == (case in "ad")


def test_small_lesions_are_drawn_by_one_over_their_diameter(tmp_path: Path) -> None:
    donors = {"a": head(1, {(20, 20, 20): 1.2}), "c": head(2, {(20, 20, 20): 4.0}), "b": head(3, {})}
    dataset = transplants(tmp_path, donors)
    small, large = (donor.diameter_mm for donor in dataset.donors)
    drawn = [graft.donor.case for seed in range(150) if (graft := whole(dataset, "b", seed)[2])]
    expected = large / (small + large)
    assert drawn.count("a") / len(drawn) == pytest.approx(expected, abs=0.11), "three standard errors"


def test_a_patch_without_room_gets_none_and_is_counted(tmp_path: Path) -> None:
    full = head(3, {(20, 20, 20): 17.0})
    dataset = transplants(tmp_path, {"a": TWO["a"], "b": TWO["b"], "full": full})
    for case, seed in (("b", 1), ("full", 2), ("b", 3)):
        graft = whole(dataset, case, seed)[2]
        assert (graft is None) == (case == "full")
    assert [dataset.report()[name] for name in COUNTED] == [3, 3, 2]
    assert (dataset.report()["share_asked_for"], dataset.report()["share_achieved"]) == (
        1,
        pytest.approx(2 / 3, abs=1e-4),
    )
    dataset.count_from(dict.fromkeys(COUNTED, 5))
    whole(dataset, "full", 1)
    assert [dataset.report()[name] for name in COUNTED] == [6, 6, 5]
    outside = (0, 0, 0)
    assert whole(transplants(tmp_path / "far", TWO, patch=[6, 6, 6]), "b", 1, outside)[2] is None


def test_a_lesion_comes_on_no_fluid_and_no_vessel(tmp_path: Path) -> None:
    """A head whose left half is dark on the first sequence, and whose lower half is bright on the second."""
    images, labels = head(2, {})
    dataset = transplants(tmp_path, {"a": TWO["a"], "b": (images, labels)})
    fluid, vessel = np.arange(40) < 20, np.arange(40) > 21
    images[0, :, :, fluid] -= 1
    images[1, :, vessel] += 1
    (tmp_path / "b.b2nd").unlink()
    blosc2.asarray(images, urlpath=str(tmp_path / "b.b2nd"))
    where = [whole(dataset, "b", seed)[2] for seed in range(20)]
    assert any(fluid[graft.voxels[graft.lesion][:, 2]].mean() > 0.5 for graft in where if graft)
    assert any(vessel[graft.voxels[graft.lesion][:, 1]].mean() > 0.5 for graft in where if graft)
    tissue = (Tissue(0, 0.5, np.inf), Tissue(1, -np.inf, 1.5))
    dataset.places["b"] = dataset.places["b"]._replace(tissue=tissue)
    where = [whole(dataset, "b", seed)[2] for seed in range(20)]
    assert sum(graft is not None for graft in where) > 10
    for graft in where:
        if graft:
            assert fluid[graft.voxels[graft.lesion][:, 2]].mean() < 0.11
            assert vessel[graft.voxels[graft.lesion][:, 1]].mean() < 0.11


def test_a_graft_lies_in_the_final_patch_whole(tmp_path: Path) -> None:
    dataset = transplants(tmp_path, {"a": TWO["a"], "b": head(2, {}, side=60)}, patch=[22, 22, 22])
    for seed in range(10):
        lower = np.array([3, 21, 30])
        _, _, graft = whole(dataset, "b", seed, lower)
        assert graft is not None
        assert (graft.voxels >= lower).all()
        assert (graft.voxels < lower + 22).all()


@pytest.mark.parametrize("other", [3, 2, -1])
@pytest.mark.parametrize(("away", "fits"), [(4, False), (5, False), (6, True)])
def test_the_margin_holds_no_other_lesion_and_nothing_outside_the_head(
    tmp_path: Path, other: int, away: int, fits: bool
) -> None:
    """A lesion of 3 mm about its centre, and 4 to 6 mm from that a single voxel of another label."""
    dataset = transplants(tmp_path, TWO)
    (donor,) = (one for one in dataset.donors if one.case == "a")
    images, labels = head(3, {})
    labels[20, 20 + away, 20] = other
    centre = np.array([20, 20, 20])
    with RandomStream(1).drawn_from():
        piece = dataset._turned(donor)
    assert (dataset.placed((images, labels[None]), (), donor, piece, centre, centre.astype(float)) is not None) == fits


def test_a_patch_that_is_cut_before_its_place_is_told_is_refused(tmp_path: Path) -> None:
    images, *_ = transplants(tmp_path, TWO).load_case("b")
    with pytest.raises(RuntimeError, match="begin_patch"):
        images[:, 8:32, 8:32, 8:32]


def test_a_share_is_a_share(tmp_path: Path) -> None:
    dataset = transplants(tmp_path, TWO, share=0.25)
    with RandomStream(5).drawn_from():
        for _ in range(200):
            dataset.load_case("b")
            dataset.begin_patch([8] * 3, [32] * 3)
    assert dataset.report()["share_achieved"] == pytest.approx(0.25, abs=0.09)


# --- pictures ---


def test_the_pictures_show_transplants_and_take_no_number_from_the_training(tmp_path: Path) -> None:
    dataset = transplants(tmp_path, TWO)
    before = dataset.report()
    shown = [*islice(examples(dataset, 1, (0, 1, 2), seed=1), 6)]
    assert dataset.report() == before
    assert [(one.case, one.donor) for one in shown] == [("a", "b"), ("b", "a")] * 3
    for one in shown:
        assert ((one.before != one.after) & (one.labels == 3)).any()
        assert np.array_equal(one.before[one.labels == -1], one.after[one.labels == -1])
        assert one.after[one.labels == 3].mean() > one.before[one.labels == 0].mean() + 1, "bright on the second"
    again = [*islice(examples(dataset, 1, (0, 1, 2), seed=1), 6)]
    np.testing.assert_array_equal(shown[5].after, again[5].after)
    turned_about = next(examples(dataset, 1, (2, 1, 0), seed=1))
    assert not np.array_equal(turned_about.after, shown[0].after), "z is the axis that the plan says"
    figure = drawn(shown, "t1c", "two heads")
    panels = [panel for panel in figure.axes if panel.images]
    assert len(panels) == 6
    strip, example = panels[0].images[0].get_array(), shown[0]
    side = example.before.shape[1]
    np.testing.assert_array_equal(strip[:, :side], example.before)
    np.testing.assert_array_equal(strip[:, side + 1 : 2 * side + 1], example.after)


def test_heads_without_room_give_an_empty_picture(tmp_path: Path) -> None:
    full = {name: head(3, {(20, 20, 20): 17.0}) for name in "ab"}
    assert [*examples(transplants(tmp_path, full), 1, (0, 1, 2), seed=1)] == []
    assert "no donor has room" in drawn([], "t1c", "nothing").texts[-1].get_text()


# --- a training ---


@pytest.fixture
def own_study(small_study: StudyPaths, tmp_path: Path) -> StudyPaths:
    """The small study with no training in it."""
    files = StudyPaths(str(tmp_path), "own")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    return files


def prepared(files: StudyPaths, share: float, arm: str = "default", **changed: Any) -> TrainingSession:
    arms = {**ARMS, arm: {**ARMS["default"], "lesion_transplant": share}}
    parameters = training_parameters(FromScratch, files, arms=arms, arm=arm, **changed)
    return prepare(files, parameters, "scratch", lambda line: None)


def batches(session: TrainingSession, number: int = 3) -> list[Any]:
    training, validation = session.trainer.get_dataloaders()
    drawn = [next(source) for source in (training, validation) for _ in range(number)]
    return [
        (batch["data"], *(batch["target"] if isinstance(batch["target"], list) else [batch["target"]]))
        for batch in drawn
    ]


def same(first: list[Any], second: list[Any]) -> bool:
    return all(
        torch.equal(one, other)
        for mine, its in zip(first, second, strict=True)
        for one, other in zip(mine, its, strict=True)
    )


def test_without_the_setting_no_draw_changes_and_with_it_validation_stays(
    own_study: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = batches(prepared(own_study, 0.0))
    monkeypatch.delattr("brainmets.training.seeds.SeededLoader.get_bbox")  # as before the setting was there
    monkeypatch.delattr("brainmets.training.trainer.StudyTrainer.get_tr_and_val_datasets")
    assert same(off, batches(prepared(own_study, 0.0)))
    monkeypatch.undo()
    on = batches(prepared(own_study, 1.0))
    assert not same(off[:3], on[:3])
    assert same(off[3:], on[3:])
    assert same(on, batches(prepared(own_study, 1.0)))


def test_the_folds_training_cases_alone_give_lesions(own_study: StudyPaths) -> None:
    session = prepared(own_study, 1.0)
    batches(session, 1)
    dataset = session.trainer.transplants
    assert dataset is not None
    assert set(dataset.places) == set(session.cases)
    assert {donor.case for donor in dataset.donors} <= set(session.cases)


def test_with_balanced_sampling_and_sequence_dropout_on_the_same_arm(own_study: StudyPaths) -> None:
    """Patches lie on one of the case's own lesions, get another case's, and lose sequences: each as if alone."""
    both = {"learning_rate": 0.01, "lesion_transplant": 1.0, "lesion_sampling": "small_lesions"}
    steps: list[list[torch.Tensor]] = []
    for dropout in (0.0, 0.5):
        arms = {**ARMS, "default": {**both, "sequence_dropout": dropout}}
        parameters = training_parameters(FromScratch, own_study, arms=arms, epochs=1)
        session, given = prepare(own_study, parameters, "scratch", lambda line: None), []
        session.trainer.bare_network.register_forward_pre_hook(
            lambda module, images, given=given: given.append(images[0].clone()) if torch.is_grad_enabled() else None
        )
        session.run(lambda line: None)
        assert np.isfinite(session.curves().training_loss).all()
        assert session.trainer.trained_with["transplants"]["patches_with_lesion"] > 0
        steps.append(given)
        assert set(session.description().index) > {"lesion sampling", "lesion transplant"}
    gone = [~step.flatten(2).any(2) for step in steps[1]]
    assert any(one.any() for one in gone)
    for whole_step, step, without in zip(*steps, gone, strict=True):
        assert torch.equal(step, whole_step.masked_fill(without[..., None, None, None], 0))
    train, validation = session.trainer.get_tr_and_val_datasets()
    assert [type(one) for one in (train, train.dataset, validation)] == [Transplants, LesionSampling, StudyDataset]
    with RandomStream(1).drawn_from():
        for case in train.identifiers:
            _, labels, _, properties = train.load_case(case)
            own = np.asarray(open_array(train.folder / f"{case}_seg.b2nd")[:])[0]
            places = np.concatenate([*properties["class_locations"].values()])[:, 1:]
            assert len({*lesion_numbers(own)[tuple(places.T)].tolist()} - {0}) == 1, "one of its own"
            lower = places[0] - train.final_patch // 2
            train.begin_patch(lower, lower + train.final_patch)
            seen = labels[(slice(None), *(slice(0, side) for side in own.shape))][0]
            if graft := train.graft:
                changed = np.zeros(own.shape, bool)
                changed[tuple(graft.voxels[graft.lesion].T)] = True
                assert not own[changed].any()
                np.testing.assert_array_equal(seen != own, changed)


@pytest.mark.slow
def test_the_record_says_how_many_patches_got_a_lesion_also_after_a_stop(own_study: StudyPaths) -> None:
    session = prepared(own_study, 1.0)
    session.run(lambda line: None)
    record = json.loads(json.dumps(session.results()))["trained_with"]["transplants"]
    assert record["patches"] == record["patches_drawn_for"] == 3 * 2 * 2, "three epochs, two steps, two patches"
    assert record["share_asked_for"] == 1
    assert record["share_achieved"] == pytest.approx(record["patches_with_lesion"] / 12, abs=1e-4)
    undisturbed = {name: value.clone() for name, value in session.trainer.bare_network.state_dict().items()}
    shutil.rmtree(own_study.work / "training")

    def stop(line: str) -> None:
        if line.startswith("epoch 2 "):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        prepared(own_study, 1.0).run(stop)
    session = prepared(own_study, 1.0)
    session.run(lambda line: None)
    assert session.results()["trained_with"]["transplants"] == record
    for name, value in session.trainer.bare_network.state_dict().items():
        assert torch.equal(value, undisturbed[name]), name
    figure = transplant_figure(session.trainer, "twenty")
    assert sum(bool(panel.images) for panel in figure.axes) == 20
    without = prepared(own_study, 0.0).trainer
    assert "transplants" not in without.trained_with
    with pytest.raises(ValueError, match="default has no transplants"):
        transplant_figure(without, "none")
