"""Shares of patches by the lesions they lie on: by hand, and against nnU-Net's own loader."""

import math
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from labelled_cases import ET, SNFH, InMemory, three_lesions
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from scipy import stats
from small_study import ARMS, training_parameters

from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training import watching
from brainmets.training.lesion_sampling import LesionSampling
from brainmets.training.patch_shares import ANYWHERE, OEDEMA, PLACES, Cut, Holding, Shares, expected
from brainmets.training.seeds import RandomStream
from brainmets.training.session import prepare
from brainmets.vocabulary import PatchRule

ALL: tuple[PatchRule, ...] = ("voxels", "lesions", "small_lesions")
VOXEL = 1.001 * math.pi / 6
"""Of a ball of 1 mm and a little more: 1, 8 and 1,000 voxels are balls of 1, 2 and 10 mm."""
CUT = Cut((6, 7, 8), (3, 4, 5), 0.5)


def loader(cases: Any, cut: Cut = CUT) -> nnUNetDataLoader:
    labels = SimpleNamespace(all_labels=[1, 2, 3], has_ignore_label=False)
    return nnUNetDataLoader(cases, 2, cut.outer, cut.patch, labels)


def holds(mask: npt.NDArray[np.bool_], corner: Any, cut: Cut = CUT) -> bool:
    """Whether the middle of the outer patch at ``corner`` holds a voxel of ``mask``; by looking at each."""
    start = [
        int(low) + outer // 2 - patch // 2 for low, outer, patch in zip(corner, cut.outer, cut.patch, strict=True)
    ]
    inside = [
        all(low <= place < low + side for place, low, side in zip(voxel, start, cut.patch, strict=True))
        for voxel in np.argwhere(mask).tolist()
    ]
    return any(inside)


def test_shares_by_size_are_those_worked_out_by_hand() -> None:
    shares = expected(InMemory({"case": three_lesions()}), ALL, VOXEL, CUT)
    assert shares.centres.index.tolist() == list(PLACES)
    assert shares.centres.number.tolist() == [2, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(shares.centres.voxels, [9 / 1009, 0, 0, 1000 / 1009, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(shares.centres.lesions, [2 / 3, 0, 0, 1 / 3, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(shares.centres.small_lesions, [15 / 16, 0, 0, 1 / 16, 0, 0], rtol=1e-12)


def test_each_case_counts_alike_whatever_it_holds() -> None:
    """One with three lesions, one with one, one with none: a lesion among three is drawn a third as often."""
    one = np.zeros((1, 12, 15, 40), np.int16)
    one[0, 3, 3, 3] = ET
    cases = InMemory({"three": three_lesions(), "one": one, "none": np.zeros_like(one)})
    shares = expected(cases, ALL, VOXEL, CUT)
    assert shares.centres.number.tolist() == [3, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(shares.centres.lesions, [(2 / 3 + 1) / 3, 0, 0, (1 / 3) / 3, 0, 1 / 3], rtol=1e-12)
    np.testing.assert_allclose(shares.centres.voxels[ANYWHERE], 1 / 3, rtol=1e-12)


def test_by_voxels_oedema_takes_its_share_of_the_whole_tumours_third() -> None:
    """A ball's core of 2 voxels in 6 of oedema: all regions have places, WT's are 8."""
    labels = np.zeros((1, 6, 7, 8), np.int16)
    labels[0, 2:4, 2:4, 2:4] = SNFH
    labels[0, 2, 2, 2:4] = ET
    shares = expected(InMemory({"case": labels}), ("voxels", "lesions"), VOXEL, CUT)
    np.testing.assert_allclose(shares.centres.voxels[OEDEMA], 6 / 8 / 3, rtol=1e-12)
    np.testing.assert_allclose(shares.centres.voxels["<3 mm"], 2 / 3 + 2 / 8 / 3, rtol=1e-12)
    assert shares.centres.lesions[OEDEMA] == 0 and shares.centres.lesions["<3 mm"] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(12, 15, 40), (5, 9, 11), (2, 3, 20)])
@pytest.mark.parametrize("cut", [CUT, Cut((7, 6, 9), (4, 5, 9), 0.5)])
def test_patches_with_a_small_lesion_are_those_that_nnunets_loader_cuts(shape: Any, cut: Cut) -> None:
    """Around every voxel, also where an image is smaller than a patch, the sides are odd and even, and at borders."""
    mask = np.zeros(shape, bool)
    mask[1, 2, 3] = mask[-1, -1, -1] = True
    source, holding = loader(InMemory({}), cut), Holding(mask, cut)
    voxels = np.argwhere(np.ones(shape, bool))[::3]
    found = holding.around(voxels)
    for voxel, held in zip(voxels, found.tolist(), strict=True):
        corner, _ = source.get_bbox(np.array(shape), True, {1: np.array([[0, *voxel]])})
        assert held == holds(mask, corner, cut), voxel
    with RandomStream(3).drawn_from():
        drawn = [holds(mask, source.get_bbox(np.array(shape), False, None)[0], cut) for _ in range(3000)]
    low, high = stats.binom.ppf([1e-5, 1 - 1e-5], len(drawn), holding.anywhere)
    assert low <= sum(drawn) <= high
    assert 0 < holding.anywhere < 1


@pytest.mark.parametrize("rule", ALL)
def test_the_share_that_holds_a_small_lesion_is_what_the_loader_gives(rule: PatchRule) -> None:
    cases: Any = InMemory({"case": three_lesions()})
    shares = expected(cases, (rule,), VOXEL, CUT).small.loc[rule]
    assert shares["all"] == pytest.approx((shares["with foreground"] + shares["others"]) / 2)
    small = three_lesions()[0] == ET
    small[:, :, 25:35] = False  # the large one
    drawn = cases if rule == "voxels" else LesionSampling(cases, rule, VOXEL, {})
    source = loader(drawn)
    with RandomStream(2).drawn_from():
        found = []
        for _ in range(1500):
            places = drawn.load_case("case")[3]["class_locations"]
            found.append(holds(small, source.get_bbox(np.array(small.shape), True, places)[0]))
    low, high = stats.binom.ppf([1e-5, 1 - 1e-5], len(found), shares["with foreground"])
    assert low <= sum(found) <= high


def test_cases_are_needed() -> None:
    with pytest.raises(ValueError, match="cases: none"):
        expected(InMemory({}), ALL, 1.0, CUT)


def test_a_case_without_places_is_cut_anywhere_under_every_rule() -> None:
    shares = expected(InMemory({"case": np.zeros((1, 8, 9, 10), np.int16)}), ALL, VOXEL, CUT)
    for rule in ALL:
        assert shares.centres[rule].tolist() == [0, 0, 0, 0, 0, 1]
    assert (shares.small == 0).all(axis=None)


@pytest.mark.parametrize("rule", ["voxels", "lesions"])
def test_a_training_tells_its_shares_by_its_own_rule(small_study: StudyPaths, tmp_path: Any, rule: str) -> None:
    files = StudyPaths(str(tmp_path), "own")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    arms = {**ARMS, "default": {"learning_rate": 0.01, "lesion_sampling": rule}}
    session = prepare(files, training_parameters(FromScratch, files, arms=arms), "scratch", lambda line: None)
    shares = session.patch_shares()
    assert shares.small.index.tolist() == ["voxels", *(["lesions"] if rule == "lesions" else [])]
    assert shares.centres.columns.tolist() == ["number", *shares.small.index]
    np.testing.assert_allclose(shares.centres.drop(columns="number").sum(), 1, rtol=1e-12)
    assert shares.centres.number.sum() > 0
    batch = session.trainer.batch_size
    source, _ = session.trainer.get_dataloaders()
    forced = sum(source.data_loader.get_do_oversample(number) for number in range(batch)) / batch
    mixed = forced * shares.small["with foreground"] + (1 - forced) * shares.small["others"]
    np.testing.assert_allclose(shares.small["all"], mixed, rtol=1e-12)


def test_the_figure_has_a_bar_for_each_rule_told_apart_without_colours() -> None:
    shares = expected(InMemory({"case": three_lesions()}), ALL, VOXEL, CUT)
    centres, small = watching.patch_figure(shares, "a training").axes
    heights = [[bar.get_height() for bar in group] for group in centres.containers]
    np.testing.assert_allclose(heights, shares.centres[list(ALL)].T)
    np.testing.assert_allclose([[bar.get_height() for bar in group] for group in small.containers], shares.small)
    labels = [label.get_text() for label in centres.get_xticklabels()]
    assert labels[0] == "<3 mm\n2 lesions" and labels[3] == ">=10 mm\n1 lesion"
    assert labels[4:] == ["oedema\nbeside a core", "anywhere:\nno lesion"]
    assert len({group[0].get_hatch() for group in centres.containers}) == 3
    alone: Shares = expected(InMemory({"case": three_lesions()}), ("voxels",), VOXEL, CUT)
    assert len(watching.patch_figure(alone, "a training").axes[0].containers) == 1
    assert set(watching.RULE_STYLES) == set(ALL)
