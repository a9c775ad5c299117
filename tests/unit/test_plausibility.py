"""Plausibility of cases: every rule on a case that breaks it alone, and silence on sound ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from brainmets import nifti
from brainmets.cohorts.label_place import TURNS, place, standardised
from brainmets.cohorts.plausibility import NUMBERS, RULES, compare, examine
from brainmets.phantoms.sites import make_patient
from brainmets.vocabulary import LABELS, SEQUENCES

SIDE, RADIUS = 56, 22
TARGET_LABELS = np.array([0, 2, 1, 3, 1], np.uint8)
"""The target site's values in BraTS labels."""


def grid_of(shape, spacing=(3.0, 3.0, 3.0), affine=None):
    affine = np.diag([*spacing, 1.0]) if affine is None else affine
    return nifti.Grid(Path("case.nii.gz"), tuple(shape), affine, spacing)


def from_centre(*middle):
    return np.sqrt(sum((axis - at) ** 2 for axis, at in zip(np.indices((SIDE,) * 3), middle, strict=True)))


@pytest.fixture(scope="module")
def made():
    """A head of 22 voxels of 3 mm (1204 mL): a rim of fluid, a grey shell, a white core, two chambers of fluid, and
    one lesion (ET in SNFH) to one side; noise.
    """
    rng = np.random.default_rng(3)
    away = from_centre(28, 28, 28)
    head = away <= RADIUS
    grey = (away > 17) & head
    fluid = ((away > 20) & head) | (from_centre(21, 30, 28) <= 6) | (from_centre(33, 24, 24) <= 6)
    labels = np.zeros((SIDE,) * 3, np.uint8)
    labels[from_centre(37, 35, 37) <= 4] = LABELS["snfh"]
    labels[from_centre(37, 35, 37) <= 2] = LABELS["et"]
    levels = {"t1n": (80, 60, 20, 60, 60), "t1c": (80, 60, 20, 60, 150), "t2w": (40, 58, 100, 75, 65),
              "t2f": (48, 62, 14, 95, 85)}  # fmt: skip
    images = {}
    for name, (white, shell, csf, snfh, et) in levels.items():
        image = np.where(head, np.where(grey, shell, white), 0).astype(np.float32)
        image[fluid], image[labels == LABELS["snfh"]], image[labels == LABELS["et"]] = csf, snfh, et
        image[head] += rng.normal(0, 1, int(head.sum())).astype(np.float32)
        images[name] = image
    return images, labels


def rules(images, labels, grid=None):
    """(rule, file) of every remark."""
    shape = next(iter(images.values())).shape if images else labels.shape
    return {(one.rule, one.file) for one in examine(images, labels, grid or grid_of(shape))[1]}


@pytest.fixture
def ball(made):
    """The head of ``made``, for a test to change."""
    images, labels = made
    return dict(images), labels.copy()


# --- sound cases ---------------------------------------------------------------------------------------------------


def test_numbers_of_a_ball(ball):
    """Volumes by counting: 44,473 voxels of the ball and 257 of the lesion, 27 mm3 each."""
    images, labels = ball
    row, remarks = examine(images, labels, grid_of(labels.shape))
    head, lesion = int((from_centre(28, 28, 28) <= RADIUS).sum()), int((labels > 0).sum())
    assert remarks == []
    assert tuple(row) == NUMBERS
    assert row["head_mL"] == pytest.approx(head * 0.027)
    assert row["load_pct"] == pytest.approx(100 * lesion / head)
    assert (row["pieces"], row["one_voxel_pieces"], row["outside_pct"], row["at_border_voxels"]) == (1, 0, 0, 0)
    assert (row["t1n_cover_pct"], row["cut_cm2"]) == (100, 0)
    assert row["t1n_t1c_rank"] > 0.5 > 0 > row["t1n_t2w_rank"]
    assert row["et_t1c_sd"] > 1 > row["et_t1n_sd"]
    assert row["label_here_sd"] == row["label_best_sd"]


@pytest.mark.parametrize("site", ["source", "target"])
def test_a_sound_phantom_gets_no_remark(site):
    phantom = make_patient(site, 2, 3.0, 41)
    labels = phantom.labels if site == "source" else TARGET_LABELS[phantom.labels]
    sides = tuple(float(side) for side in np.linalg.norm(phantom.affine[:3, :3], axis=0))
    assert rules(phantom.images, labels, grid_of(labels.shape, sides, phantom.affine)) == set()


@pytest.mark.parametrize("level", [-6.0, -0.1, 1000.3])
def test_a_constant_around_the_head_is_background_whatever_it_is(ball, level):
    """In 64 bits as well, where -0.1 is another number than in 32."""
    images, labels = ball
    assert rules({name: image.astype(np.float64) + level for name, image in images.items()}, labels) == set()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_an_image_that_a_network_cannot_hold_counts_as_absent(ball, value):
    images, labels = ball
    broken = np.where(images["t1n"] == 0, 0, value)
    row, remarks = examine({**images, "t1n": broken}, labels, grid_of(labels.shape))
    assert remarks == []
    assert np.isnan(row["t1n_levels"])
    assert np.isfinite(row["t1c_levels"])


def test_axes_of_the_file_do_not_matter(ball):
    """Stored as P, I, R: the same numbers, and the mirrored label is still found."""
    images, labels = ball
    affine = np.array([[0, 0, 3, 0], [-3, 0, 0, 0], [0, -3, 0, 0], [0, 0, 0, 1.0]])
    stored = {name: nifti.from_ras(image, affine) for name, image in images.items()}
    grid = grid_of(labels.shape, affine=affine)
    row = examine(stored, nifti.from_ras(labels, affine), grid)[0]
    straight = examine(images, labels, grid_of(labels.shape))[0]
    assert row["label_here_sd"] == pytest.approx(straight["label_here_sd"], rel=1e-4)
    assert row["head_mL"] == straight["head_mL"]
    assert ("label elsewhere", "label") in rules(stored, nifti.from_ras(labels[::-1], affine), grid)


@pytest.mark.parametrize("given", [{}, {"t1c"}, {"t1c", "t2f"}])
def test_what_is_not_there_is_not_judged(ball, given):
    images, labels = ball
    part = {name: images[name] for name in given}
    row, remarks = examine(part, labels, grid_of(labels.shape))
    assert remarks == []
    assert np.isnan(row["t1n_t2w_rank"])
    assert np.isfinite(row["pieces"])


def test_an_empty_label_map_and_none_at_all_are_no_fault(ball):
    images, labels = ball
    assert rules(images, None) == rules(images, np.zeros_like(labels)) == set()


def test_empty_images_do_not_stop_it(ball):
    images, labels = ball
    nothing = {name: np.zeros_like(image) for name, image in images.items()}
    assert rules(nothing, labels) == {("head volume", "t1c")}


# --- each rule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"), [("t2w", "t2f"), ("t1n", "t2w"), ("t1c", "t2w"), ("t1n", "t2f"), ("t1c", "t2f")]
)
def test_swapped_sequences_are_named(ball, one, other):
    images, _ = ball
    found = rules({**images, one: images[other], other: images[one]}, None)
    assert found == {("sequences swapped", one), ("sequences swapped", other)}


def test_the_two_t1_swapped_are_told_by_the_tumour(ball):
    images, labels = ball
    changed = {**images, "t1n": images["t1c"], "t1c": images["t1n"]}
    assert ("sequences swapped", "t1c") in rules(changed, labels)
    assert rules(changed, None) == set()


def test_a_t1c_without_contrast(ball):
    images, labels = ball
    noise = np.random.default_rng(1).normal(0, 1, labels.shape) * (images["t1n"] != 0)
    assert ("no contrast", "t1c") in rules({**images, "t1c": images["t1n"] + noise}, labels)


def test_a_tumour_bright_on_both_t1_is_not_called_without_contrast(ball):
    """Bleeding and melanoma."""
    images, labels = ball
    bright = {**images, "t1n": np.where(labels == LABELS["et"], 150, images["t1n"])}
    assert not {"no contrast", "sequences swapped"} & {rule for rule, _ in rules(bright, labels)}


def test_a_cut_range_of_grey_values(ball):
    images, labels = ball
    top = np.percentile(images["t2w"][images["t2w"] != 0], 99)
    assert rules({**images, "t2w": np.minimum(images["t2w"], top)}, labels) == {("clipped", "t2w")}


def test_few_grey_levels(ball):
    images, labels = ball
    assert rules({**images, "t2f": np.rint(images["t2f"] / 4) * 4}, labels) == {("few grey levels", "t2f")}


def test_a_sequence_that_shows_less_of_the_head(ball):
    """Slices up to 50 hold the head, 5 cm2 or more of it up to 49; those from 45 on are missing: 15 mm."""
    images, labels = ball
    short, thin = images["t2w"].copy(), images["t2w"].copy()
    short[:, :, 45:] = 0
    remarks = examine({**images, "t2w": short}, labels, grid_of(labels.shape))[1]
    assert [(one.rule, one.file) for one in remarks] == [("coverage", "t2w")]
    assert "shows nothing of 15 mm" in remarks[0].text
    thin[:, :, 14:42:5] = 0
    remarks = examine({**images, "t2w": thin}, labels, grid_of(labels.shape))[1]
    assert [(one.rule, one.file) for one in remarks] == [("coverage", "t2w")]
    assert "% of the head" in remarks[0].text


@pytest.mark.parametrize(("axis", "face"), [(0, "left"), (1, "back"), (2, "bottom")])
def test_a_head_that_ends_at_a_face(ball, axis, face):
    """Cut 18 voxels from its middle: a disc of 12.6 voxels' radius, 45 cm2."""
    images, _ = ball
    kept = (slice(None),) * axis + (slice(10, None),)
    cut = {name: image[kept] for name, image in images.items()}
    remarks = examine(cut, None, grid_of(cut["t1c"].shape))[1]
    assert [one.rule for one in remarks] == ["head cut off"]
    assert f"at the {face} of the volume" in remarks[0].text


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_head_of_another_size(ball, factor):
    """Half the side: an eighth of 1204 mL."""
    images, _ = ball
    spacing = (3 * factor,) * 3
    assert ("head volume", "t1c") in rules(images, None, grid_of((SIDE,) * 3, spacing))


def test_a_label_of_the_whole_head(ball):
    images, _ = ball
    labels = (images["t1c"] != 0).astype(np.uint8)
    assert ("tumour load", "label") in rules(images, labels)


def test_dust_in_a_label(ball):
    images, labels = ball
    labels[12:44:5, 28:44:5, 28] = LABELS["et"]
    assert ("many pieces", "label") in rules(images, labels)


def test_a_label_outside_the_head_and_one_at_the_border(ball):
    images, labels = ball
    outside = np.zeros_like(labels)
    outside[1:5, 1:5, 1:5] = LABELS["snfh"]
    assert rules(images, outside) >= {("label outside the head", "label")}
    assert ("label at the border", "label") not in rules(images, outside)
    outside[0] = outside[1]
    assert ("label at the border", "label") in rules(images, outside)


def test_a_label_map_alone_is_judged_by_its_pieces(ball):
    labels = np.zeros_like(ball[1])
    labels[::4, ::4, ::4] = 1
    assert rules({}, labels) == {("many pieces", "label"), ("label at the border", "label")}


@pytest.mark.parametrize("turn", [name for name in TURNS if name != "moved"])
def test_a_label_that_was_turned_is_found_and_told_how(ball, turn):
    images, labels = ball
    remarks = examine(images, np.flip(labels, TURNS[turn]), grid_of(labels.shape))[1]
    assert [one.rule for one in remarks] == ["label elsewhere"]
    assert turn in remarks[0].text


def test_a_label_that_was_moved_is_found_and_told_how_far(ball):
    images, labels = ball
    remarks = examine(images, np.roll(labels, 5, 1), grid_of(labels.shape))[1]
    assert [one.rule for one in remarks] == ["label elsewhere"]
    assert "moved by 15 mm" in remarks[0].text


def test_a_small_faint_lesion_is_not_sought_elsewhere(ball):
    """A vessel outshines it: its place says nothing."""
    images, labels = ball
    small = np.zeros_like(labels)
    small[20:22, 20:22, 20:22] = LABELS["et"]
    assert not {"label elsewhere"} & {rule for rule, _ in rules(images, small)}


def test_places_by_hand():
    """One bright cube of 3 voxels; the label lies 4 voxels beside it along the second axis, or in its mirror image."""
    image = np.zeros((30, 30, 30), np.float32)
    image[20:23, 10:13, 15:18] = 3
    head = np.ones(image.shape, bool)
    label = (image > 0).astype(np.float32)
    here = place({"WT": image}, {"WT": label}, head, (2.0, 2.0, 2.0))
    assert (here.here, here.turn, here.away_mm) == (pytest.approx(3, abs=1e-3), "moved", 0)
    moved = place({"WT": image}, {"WT": np.roll(label, 4, 1)}, head, (2.0, 2.0, 2.0))
    assert (moved.best, moved.turn, moved.away_mm) == (pytest.approx(3, abs=1e-3), "moved", 8)
    assert moved.here <= 0
    mirrored = place({"WT": image}, {"WT": label[::-1]}, head, (2.0, 2.0, 2.0))
    assert (mirrored.turn, mirrored.away_mm) == ("left and right exchanged", 0)
    assert place({"WT": image}, {"WT": np.zeros_like(label)}, head, (2.0, 2.0, 2.0)) is None
    assert place({"WT": image}, {"WT": label}, ~head, (2.0, 2.0, 2.0)) is None


def test_standard_deviations_of_a_head():
    """Quartiles of 1 to 5 are 2 and 4, so a standard deviation 2 / 1.349; below one of them and above four is cut."""
    image = np.array([[[1.0, 2, 3, 4, 5, 99, 0]]])
    head = np.array([[[True] * 5 + [False] * 2]])
    sd = 2 / 1.349
    assert standardised(image, head)[0, 0] == pytest.approx([-1, -1 / sd, 0, 1 / sd, 2 / sd, 0, 0], abs=1e-6)


# --- cohorts -------------------------------------------------------------------------------------------------------


def table(**columns):
    count = max(len(values) for values in columns.values())
    given = {name: columns.get(name, [np.nan] * count) for name in NUMBERS}
    return pd.DataFrame({"case": [f"c{number}" for number in range(count)], **given})


def test_a_skull_in_one_cohort_or_in_one_case():
    brains, heads = table(head_mL=[1200.0, 1300, 1400]), table(head_mL=[4800.0, 5000, 5100])
    assert compare({"source": brains, "target": brains}) == compare({"source": heads, "target": heads}) == []
    found = compare({"source": brains, "target": heads})
    assert [one[:3] for one in found] == [("target", "all", "skull in one cohort")]
    assert "source 1.3 L, target 5.0 L" in found[0].text
    found = compare({"source": table(head_mL=[1200.0, 1300, 5000])})
    assert [one[:3] for one in found] == [("source", "c2", "skull in one case")]
    found = compare({"source": table(head_mL=[5200.0, 1300, 5000])})
    assert "lack the skull" in found[0].text


def test_a_case_far_from_its_cohort_and_none_of_a_few():
    usual = [0.8, 0.82, 0.78, 0.81, 0.79, 0.8, 0.83, 0.77]
    assert compare({"a": table(t1n_t1c_rank=usual)}) == []
    found = compare({"a": table(t1n_t1c_rank=[*usual, 0.1])})
    assert [one[:3] for one in found] == [("a", "c8", "unlike its cohort")]
    assert compare({"a": table(t1n_t1c_rank=[0.8, 0.8, 0.1])}) == []


def test_nothing_is_said_of_an_empty_cohort():
    assert compare({}) == compare({"a": table(head_mL=[])}) == compare({"a": table(head_mL=[np.nan])}) == []


def test_every_rule_is_declared_once_and_names_a_remedy():
    assert len({one.rule for one in RULES}) == len(RULES)
    assert all(one.catches[-1] in ".?" and one.remedy[-1] in ".?" for one in RULES)


# --- real cases ----------------------------------------------------------------------------------------------------


def open_ms(folder, patient):
    names = {"t1n": "T1", "t1c": "T1POST", "t2w": "T2", "t2f": "FLAIR"}
    here = folder / "data" / "openms" / patient
    read = {name: nifti.read_volume(here / f"{file}.nii.gz") for name, file in names.items()}
    labels = nifti.read_labels(here / "GT.nii.gz", {1: LABELS["snfh"]})
    return {name: voxels for name, (voxels, _) in read.items()}, labels, read["t1c"][1]


@pytest.mark.real
@pytest.mark.parametrize("patient", ["patient07", "patient19"])
def test_a_real_case_is_plausible_until_it_is_changed(real_data, patient):
    images, labels, grid = open_ms(real_data, patient)
    assert rules(images, labels, grid) == set()
    swapped = {**images, "t2w": images["t2f"], "t2f": images["t2w"]}
    assert ("sequences swapped", "t2w") in rules(swapped, None, grid)
    assert rules(images, labels[::-1], grid) == {("label elsewhere", "label")}
    assert rules(images, ndimage.shift(labels, (0, 0, 12), order=0), grid) == {("label elsewhere", "label")}


@pytest.mark.real
def test_a_real_case_with_metastases_is_plausible(real_data):
    folder = real_data / "data" / "metastasis" / "BraTS-MET-00110-000"
    read = {name: nifti.read_volume(folder / f"{folder.name}-{name}.nii.gz") for name in SEQUENCES}
    assert rules({name: voxels for name, (voxels, _) in read.items()}, None, read["t1c"][1]) == set()
