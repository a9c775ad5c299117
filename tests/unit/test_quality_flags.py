"""Numbers of a prepared patient, and what of them is unusual: on tables made by hand, phantoms and real scans."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import planted_failures
import pytest
from planted_failures import FAILURES, MORE_FAILURES, Prepared
from scipy import ndimage

from brainmets import nifti
from brainmets.preparation.copies import copies, pattern
from brainmets.preparation.flags import FAR, FEWEST, FLAG_COLUMNS, RULES, flag, rule_of, suspects
from brainmets.preparation.quality import QUALITY_COLUMNS, Template, label_fit, measure, shared_bits
from brainmets.vocabulary import SEQUENCES


def row(made: Prepared) -> dict[str, object]:
    measured = measure(made.images, made.mask, made.affine, made.registrations, made.label, made.template)
    return {"case": made.case, **measured}


def table(**columns: list[float]) -> pd.DataFrame:
    length = len(next(iter(columns.values())))
    return pd.DataFrame({"case": [f"P-{number:02d}" for number in range(1, length + 1)], **columns})


# --- what is unusual: worked out by hand ---------------------------------------------------------------------------


def test_a_value_far_below_the_others_is_unusual() -> None:
    """0.8 but once 0.4: ln 2 = 0.69 is 8.7 of the least scale of 0.08."""
    found = flag(table(t2w_agreement=[0.8] * 9 + [0.4]))
    assert found.to_dict("records") == [
        {
            "case": "P-10", "severity": "warning", "measure": "t2w_agreement", "value": 0.4,
            "usual": "0.8 (0.8 to 0.8)", "text": found.text[0],
        }
    ]  # fmt: skip
    assert found.text[0].startswith("The edges of T2 fit the contrast T1's less than in other patients")
    assert suspects(found, "P-10") == ["t2w"]


def test_the_better_side_is_no_flag() -> None:
    assert flag(table(t2w_agreement=[0.4] * 9 + [0.8])).empty
    assert (
        len(flag(table(brain_mL=[1200.0] * 9 + [1900.0]))) == len(flag(table(brain_mL=[1900.0] * 9 + [1200.0]))) == 1
    )


def test_a_tight_cohort_does_not_cry_wolf() -> None:
    """Of nine equal values and one other the median absolute deviation is 0; the least scale still holds."""
    least = RULES["rotation_deg"].least
    assert flag(table(t2w_rotation_deg=[1.0] * 9 + [1.0 + 0.99 * FAR * least])).empty
    assert len(flag(table(t2w_rotation_deg=[1.0] * 9 + [1.0 + 1.01 * FAR * least]))) == 1


def test_a_wide_cohort_is_given_its_width() -> None:
    """Rotations of 0 to 20 degrees: median 10, scale 1.4826 x 5 = 7.4; 35 is 3.4 of it."""
    assert flag(table(t2w_rotation_deg=[*np.linspace(0, 20, 21), 35.0])).empty


def test_a_small_cohort_has_absolute_limits_alone() -> None:
    few = table(t2w_agreement=[0.8] * (FEWEST - 2) + [0.4])
    assert flag(few).empty
    assert not flag(pd.concat([few, few.tail(1), few.head(1)], ignore_index=True)).empty


@pytest.mark.parametrize(
    ("measured", "wrong", "words"),
    [
        ("t2w_away_mm", 12.0, "T2 lies about 12 mm from the contrast T1"),
        ("t2f_flipped", 2.0, "left and right are swapped"),
        ("t1n_mirrored", 0.005, "left and right are swapped, or it is another patient's"),
        ("t2f_turned", 2.0, "fits the contrast T1 better when turned"),
        ("t1n_clear_sd", 8.0, "T1 matches the contrast T1 in no place"),
        ("t1c_absent_pct", 40.0, "T1 after contrast is missing in 40% of the brain"),
        ("t2w_spread_mm", 9.0, "ended 9.0 mm apart"),
        ("t2w_rotation_deg", 90.0, "turned by 90 degrees"),
        ("t1n_t2f_shared_bits", 0.01, "T1 and FLAIR share next to no information"),
        ("brain_mL", 300.0, "300 mL"),
        ("brain_mL", 4000.0, "4000 mL"),
        ("air_pct", 20.0, "20% of the brain mask is dark"),
        ("template_dice", 0.3, "hardly covers"),
        ("template_turned", 2.5, "not upright"),
        ("label_outside_pct", 60.0, "60% of the label"),
    ],
)
def test_what_is_wrong_in_any_cohort_is_an_error_even_of_one(measured: str, wrong: float, words: str) -> None:
    found = flag(table(**{measured: [wrong]}))
    assert list(found.severity) == ["error"]
    assert words in found.text[0]


def test_a_label_that_fits_nowhere_is_for_a_person_to_judge() -> None:
    assert list(flag(table(label_fit=[0.1])).severity) == ["warning"]


def test_nothing_to_measure_is_an_error_where_most_others_have_a_value() -> None:
    nan = float("nan")
    found = flag(table(t2f_agreement=[0.5, 0.5, nan], t2f_away_mm=[0.0, 0.0, nan]))
    assert list(zip(found.case, found.measure, found.severity, strict=True)) == [("P-03", "t2f_agreement", "error")]
    assert flag(table(template_dice=[nan, nan, nan])).empty


def test_errors_come_first_and_the_most_telling_of_them_on_top() -> None:
    shifted = table(t2w_absent_pct=[0.0] * 9 + [30.0], t2w_away_mm=[0.0] * 9 + [20.0], t2w_agreement=[0.8] * 9 + [0.3])
    assert list(flag(shifted).measure) == ["t2w_away_mm", "t2w_absent_pct", "t2w_agreement"]


def test_a_failure_that_all_sequences_share_has_no_suspect() -> None:
    half = table(**{f"{sequence}_absent_pct": [0.0, 50.0] for sequence in SEQUENCES})
    assert suspects(flag(half), "P-02") == []
    pair = flag(table(t1c_t2w_shared_bits=[0.01]))
    assert suspects(pair, "P-01") == ["t2w"]


def test_an_empty_table_has_no_flags() -> None:
    found = flag(pd.DataFrame(columns=["case", *QUALITY_COLUMNS]))
    assert list(found.columns) == list(FLAG_COLUMNS)
    assert found.empty


def test_every_column_is_judged_but_those_that_say_the_same_in_other_units() -> None:
    not_judged = {name for name in QUALITY_COLUMNS if rule_of(name) is None}
    assert not_judged == {"label_outside_voxels", "label_outside_mL"}
    assert {id(rule_of(name)[0]) for name in set(QUALITY_COLUMNS) - not_judged} == {
        id(rule) for rule in RULES.values()
    }


# --- numbers: worked out by hand -----------------------------------------------------------------------------------


def test_shared_information_of_known_pairs() -> None:
    """32 equal bins: a vector with itself or its negative 5 bits, with its sign 1 bit, with a constant none."""
    values = np.arange(3200.0)
    assert shared_bits(values, values) == pytest.approx(5)
    assert shared_bits(values, -(values**3)) == pytest.approx(5, abs=0.01)
    assert shared_bits(values, np.float32(values >= 1600)) == pytest.approx(1)
    assert shared_bits(values, np.zeros(3200)) == 0


def test_a_label_fits_where_it_stands_out() -> None:
    rng = np.random.default_rng(1)
    images = {name: rng.normal(1, 0.05, (30, 30, 30)) for name in ("t1c", "t2f")}
    lesion = np.zeros((30, 30, 30), bool)
    lesion[12:16, 12:16, 12:16] = True
    images["t2f"][lesion] += 1
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    assert label_fit(images, lesion, affine) == 1
    assert label_fit(images, np.roll(lesion, 4, 0), affine) < 0.1
    assert np.isnan(label_fit(images, np.zeros_like(lesion), affine))


def test_a_row_of_a_cube() -> None:
    """Of a cube of 40 voxels of 2 mm (512 mL) a tenth is absent on t2w; a label of 10 voxels lies half outside."""
    rng = np.random.default_rng(2)
    mask = np.zeros((60, 60, 60), bool)
    mask[10:50, 10:50, 10:50] = True
    images = {name: np.where(mask, rng.uniform(1, 2, mask.shape), 0) for name in SEQUENCES}
    images["t2w"][10:14] = 0
    label = np.zeros(mask.shape, np.uint8)
    label[45:55, 30, 30] = 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    found = measure(images, mask, affine, {}, label, Template(images["t1n"], np.roll(mask, 20, 1)))
    assert tuple(found) == QUALITY_COLUMNS
    assert found["brain_mL"] == pytest.approx(512)
    assert found["t2w_absent_pct"] == pytest.approx(10)
    assert found["t1n_absent_pct"] == found["air_pct"] == 0
    assert (found["label_outside_voxels"], found["label_outside_pct"]) == (5, 50)
    assert found["label_outside_mL"] == pytest.approx(0.04)
    assert found["template_dice"] == pytest.approx(0.5)
    assert np.isnan(found["t1n_metric"])
    near = measure(images, mask, affine, {}, label, margin_mm=4.0)
    assert near["label_outside_voxels"] == 3


def test_what_cannot_be_measured_says_so() -> None:
    empty = {name: np.zeros((40, 40, 40)) for name in SEQUENCES}
    found = measure(empty, np.zeros((40, 40, 40)), np.diag([4.0, 4.0, 4.0, 1.0]), {})
    assert found["brain_mL"] == 0
    assert all(np.isnan(found[f"t2w_{name}"]) for name in ("absent_pct", "agreement", "turned", "flipped"))
    with pytest.raises(ValueError, match="images: t1c missing; every other sequence is compared with it"):
        measure({name: empty[name] for name in SEQUENCES if name != "t1c"}, empty["t1n"], np.eye(4), {})
    with pytest.raises(ValueError, match=r"label: shape \(2, 2, 2\) differs from the mask's \(40, 40, 40\)"):
        measure(empty, empty["t1n"], np.eye(4), {}, np.zeros((2, 2, 2)))


def test_the_order_of_the_axes_does_not_matter() -> None:
    made = planted_failures.patient(1)
    expected = measure(made.images, made.mask, made.affine, {}, made.label)
    for order in list(permutations(range(3)))[3:]:

        def turned(voxels: np.ndarray, order: tuple[int, ...] = order) -> np.ndarray:
            return np.flip(voxels.transpose(order), 0)

        back = np.zeros((4, 4))
        back[:3, :3] = made.affine[:3, list(order)] * [-1, 1, 1]
        first = np.eye(3)[order[0]] * (made.mask.shape[order[0]] - 1)
        back[:, 3] = made.affine @ [*first, 1]
        images = {name: turned(image) for name, image in made.images.items()}
        assert measure(images, turned(made.mask), back, {}, turned(made.label)) == pytest.approx(expected, nan_ok=True)


# --- planted failures ----------------------------------------------------------------------------------------------


def caught(good: int, failures: dict, seed: int = 11) -> pd.DataFrame:
    """The flags of a cohort with planted failures: each is flagged with the right sequences, and nothing else is."""
    rows = [row(planted_failures.patient(number, seed)) for number in range(1, good + 1)]
    expected = {}
    for number, (failure, (_, sequences)) in enumerate(failures.items(), planted_failures.FIRST_FAILED):
        made = planted_failures.failed(failure, number, seed)
        rows.append(row(made))
        expected[made.case] = list(sequences)
    found = flag(pd.DataFrame(rows))
    assert set(found.case) == set(expected)
    assert {case: suspects(found, case) for case in expected} == expected
    return found


def test_four_failures_among_twelve_patients_are_found_and_nothing_else() -> None:
    names = ("displaced by 10 mm", "turned by 8 degrees", "left and right swapped", "mask too small")
    found = caught(8, {name: FAILURES[name] for name in names})
    foremost = found.drop_duplicates("case").measure
    assert list(foremost) == ["t2w_away_mm", "t2f_turned", "t2f_flipped", "dark_rim_pct"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_ten_failures_among_thirty_patients_are_found_and_nothing_else(seed: int) -> None:
    caught(20, FAILURES, seed)


@pytest.mark.slow
def test_more_failures_are_found() -> None:
    caught(9, MORE_FAILURES)


# --- copies --------------------------------------------------------------------------------------------------------


def test_a_copy_and_a_mirrored_copy_are_found_by_content() -> None:
    """Both are moved a little, as a registration of their own would leave them."""
    made = [planted_failures.patient(number) for number in (1, 2, 3)]
    patterns = {one.case: pattern(one.images, one.mask, one.affine) for one in made}
    assert copies(patterns).empty
    first, second = made[0], made[1]

    def again(voxels: np.ndarray) -> np.ndarray:
        return ndimage.shift(voxels.astype(np.float32), (0.3, -0.3, 0.3), order=1)

    patterns["copy"] = pattern({name: again(image) for name, image in first.images.items()}, first.mask, first.affine)
    flipped = second.affine @ np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = -second.affine[0, 3]  # the same voxels, mirrored at the midplane
    patterns["mirror"] = pattern(second.images, second.mask, flipped)
    found = copies(patterns)
    assert list(zip(found.case, found.measure, strict=True)) == [
        (first.case, "copy"), ("copy", "copy"), (second.case, "mirrored_copy"), ("mirror", "mirrored_copy")
    ]  # fmt: skip
    assert f"mirror image of case {second.case}" in found.text.iloc[-1]
    of_one = copies(patterns, {first.case: "P-1", "copy": "P-1", second.case: "P-2", "mirror": "P-2"})
    assert list(of_one.measure) == ["mirrored_copy"] * 2


# --- real scans ----------------------------------------------------------------------------------------------------

OPENMS = {"t1n": "T1.nii.gz", "t1c": "T1POST.nii.gz", "t2w": "T2.nii.gz", "t2f": "FLAIR.nii.gz"}


def real(data: Path, case: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Images, the mask of what shows anything, affine: along R, A, S, every second of the voxels of 1 mm."""
    folder = data / "data" / "openms" / case
    names = OPENMS
    if case == "metastasis":
        folder = data / "data" / "metastasis" / "BraTS-MET-00110-000"
        names = {name: f"BraTS-MET-00110-000-{name}.nii.gz" for name in SEQUENCES}
    volumes = {name: nifti.read_volume(folder / file) for name, file in names.items()}
    turned = {name: nifti.to_ras(voxels, grid.affine) for name, (voxels, grid) in volumes.items()}
    images = {name: voxels[::2, ::2, ::2].astype(np.float32) for name, (voxels, _) in turned.items()}
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(np.any([image != 0 for image in images.values()], axis=0)))
    return images, mask, turned["t1c"][1] @ np.diag([2.0, 2, 2, 1])


@pytest.mark.real
@pytest.mark.parametrize("case", ["patient07", "patient19", "metastasis"])
def test_absolute_limits_on_real_scans(real_data: Path, case: str) -> None:
    """As prepared by others no flag; displaced, turned and flipped each its own, in a cohort of one."""
    images, mask, affine = real(real_data, case)

    def flags(**changed: np.ndarray) -> set[str]:
        found = measure({**images, **changed}, mask, affine, {})
        return set(flag(pd.DataFrame([{"case": case, **found}])).measure)

    assert flags() == set()
    assert "t2w_away_mm" in flags(t2w=np.roll(images["t2w"], 5, 0))
    turned = ndimage.rotate(images["t2f"], 8, axes=(1, 2), reshape=False, order=1)
    assert flags(t2f=turned) == {"t2f_turned"}
    middle = round(2 * ndimage.center_of_mass(mask)[0]) - (mask.shape[0] - 1)
    assert "t1n_flipped" in flags(t1n=np.roll(images["t1n"][::-1], middle, 0))


@pytest.mark.real
def test_a_real_label_that_was_moved_is_found(real_data: Path) -> None:
    images, _, affine = real(real_data, "patient07")
    stored, grid = nifti.read_volume(real_data / "data" / "openms" / "patient07" / "GT.nii.gz")
    label = nifti.to_ras(stored, grid.affine)[0][::2, ::2, ::2] > 0
    assert label_fit(images, label, affine) == 1
    assert label_fit(images, np.roll(label, 5, 1), affine) < RULES["label_fit"].low
