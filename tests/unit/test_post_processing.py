"""Post-processing by rule: each rule on maps that can be worked out by hand, their order, and how they are chosen."""

from collections import Counter
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from brainmets.scoring import post_choice
from brainmets.scoring.case import lesion_dice_of_case, score_case
from brainmets.scoring.post_choice import PostProcessingError, best_of, choose, combinations
from brainmets.scoring.post_processing import ORDER, Combination, process, process_folder

NETC, SNFH, ET, RC = 1, 2, 3, 4


def blank(*size):
    return np.zeros(size or (12, 12, 12), np.uint8)


def processed(labels, *rules, voxel_mm3=1.0, smallest_mm3=0.0):
    before = labels.copy()
    after = process(labels, voxel_mm3, Combination(tuple(rule for rule in ORDER if rule in rules), smallest_mm3))
    assert (labels == before).all(), "the input stays as it is"
    assert after.dtype == np.uint8
    return after


def shell(label, inside=0):
    """A 5 x 5 x 5 cube of ``label`` whose inner 3 x 3 x 3 is ``inside``."""
    labels = blank()
    labels[2:7, 2:7, 2:7] = label
    labels[3:6, 3:6, 3:6] = inside
    return labels


def test_the_smallest_volume_is_of_the_whole_tumour_and_itself_stays():
    labels = blank()
    labels[1:3, 1, 1] = ET  # a lesion of 2 voxels
    labels[6:9, 6, 6] = SNFH  # one of 3 voxels, a single one of them enhancing
    labels[7, 6, 6] = ET
    after = processed(labels, "smallest_volume", voxel_mm3=10.0, smallest_mm3=30.0)
    assert Counter(after[after > 0].tolist()) == {SNFH: 2, ET: 1}
    assert not processed(labels, "smallest_volume", voxel_mm3=10.0, smallest_mm3=30.1).any()
    assert (processed(labels, "smallest_volume", voxel_mm3=10.0, smallest_mm3=20.0) == labels).all()


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    labels = blank()
    labels[1, 1, 1] = labels[2, 2, 2] = ET
    assert (processed(labels, "smallest_volume", smallest_mm3=2.0) == labels).all()
    labels[2, 2, 2], labels[3, 3, 3] = 0, ET
    assert not processed(labels, "smallest_volume", smallest_mm3=2.0).any()


def test_a_core_without_enhancement_becomes_oedema_and_another_stays():
    labels = blank()
    labels[1:4, 1, 1] = NETC
    labels[4, 1, 1] = SNFH
    labels[8, 8, 8], labels[9, 9, 9] = NETC, ET  # touch at a corner
    after = processed(labels, "tc_without_et")
    assert (after[1:5, 1, 1] == SNFH).all()
    assert (after[8, 8, 8], after[9, 9, 9]) == (NETC, ET)
    assert ((after > 0) == (labels > 0)).all(), "nothing of the whole tumour is lost"


def test_a_whole_tumour_without_core_is_dropped_and_another_stays():
    labels = blank()
    labels[1:4, 1, 1] = SNFH
    labels[8, 8, 8], labels[9, 9, 9] = SNFH, NETC
    after = processed(labels, "wt_without_tc")
    assert not after[:5].any()
    assert (after[8, 8, 8], after[9, 9, 9]) == (SNFH, NETC)


@pytest.mark.parametrize(("wall", "filled"), [(ET, NETC), (NETC, NETC), (SNFH, SNFH)])
def test_a_hole_is_filled_with_what_its_wall_says(wall, filled):
    after = processed(shell(wall), "holes")
    assert (after[3:6, 3:6, 3:6] == filled).all()
    assert (after > 0).sum() == 125


def test_a_hole_whose_wall_is_only_partly_core_becomes_oedema():
    labels = shell(ET)
    labels[2, 4, 4] = SNFH  # one voxel of the wall
    assert (processed(labels, "holes")[3:6, 3:6, 3:6] == SNFH).all()


def test_a_wall_with_a_gap_in_a_face_encloses_nothing_and_one_with_a_gap_in_a_corner_does():
    labels = shell(ET)
    labels[2, 4, 4] = 0
    assert (processed(labels, "holes") == labels).all()
    labels = shell(ET)
    labels[2, 2, 2] = 0  # background is joined by faces alone
    assert (processed(labels, "holes")[3:6, 3:6, 3:6] == NETC).all()
    assert processed(labels, "holes")[2, 2, 2] == 0


def test_the_edge_of_the_image_encloses_nothing():
    labels = shell(ET)[3:]  # its first plane is open
    assert (processed(labels, "holes") == labels).all()


def test_a_hole_that_holds_a_resection_cavity_is_none_and_no_rule_touches_the_cavity():
    labels = shell(SNFH)
    labels[4, 4, 4] = RC
    assert (processed(labels, "holes") == labels).all()
    labels[10, 10, 10] = RC
    after = processed(labels, *ORDER, smallest_mm3=1000.0)
    assert Counter(after[after > 0].tolist()) == {RC: 2}


def test_rules_run_in_their_order_whatever_order_they_are_given_in():
    labels = blank()
    labels[1:4, 1, 1] = NETC  # made oedema by the second rule, and only then dropped by the third
    assert not processed(labels, "wt_without_tc", "tc_without_et").any()
    ring = shell(ET)  # 98 voxels; 125 with its hole filled, which comes before the smallest volume
    assert processed(ring, "holes", "smallest_volume", smallest_mm3=100.0).any()
    assert not processed(ring, "smallest_volume", smallest_mm3=100.0).any()
    with pytest.raises(ValueError, match=r"wt_without_tc, tc_without_et must each be one of .*, in this order"):
        Combination(("wt_without_tc", "tc_without_et"))
    with pytest.raises(ValueError, match="smallest_mm3: 30 with the rules holes"):
        Combination(("holes",), 30.0)


@pytest.mark.parametrize("seed", range(6))
def test_a_second_pass_changes_nothing(seed):
    random = np.random.default_rng(seed)
    labels = random.choice(5, (14, 13, 12), p=[0.62, 0.1, 0.2, 0.07, 0.01]).astype(np.uint8)
    labels[random.random(labels.shape) < 0.1 * seed] = 0
    changed = set()
    for one in combinations(ORDER, [3, 30]):
        once = process(labels, 1.0, one)
        assert (process(once, 1.0, one) == once).all(), one
        changed |= {one} if (once != labels).any() else set()
    assert len(changed) > 12, "the maps give the rules something to do"


def test_an_empty_map_stays_empty():
    assert not processed(blank(), *ORDER, smallest_mm3=30.0).any()


def test_every_combination_is_tried_once_the_fewest_rules_first():
    found = combinations(ORDER, [30, 60, 120])
    assert len(found) == len(set(found)) == 8 + 24
    assert found[0] == Combination()
    assert [len(one.rules) for one in found] == sorted(len(one.rules) for one in found)
    volumes = [one.smallest_mm3 for one in found if one.rules == ("smallest_volume",)]
    assert volumes == [30, 60, 120]
    assert len(combinations(["holes", "tc_without_et"], [])) == 4


def test_equal_values_go_to_the_first_and_a_higher_one_wins():
    assert best_of([0.5, 0.5, 0.5 + 1e-12]) == 0
    assert best_of([0.5, 0.6, 0.6]) == 1
    assert best_of([0.5, 0.4]) == 0
    assert best_of([float("nan"), 0.1]) == 1
    assert best_of([float("nan")] * 2) == 0


@pytest.mark.parametrize("definition", ["brats_2023", "brats_2026"])
@pytest.mark.parametrize("seed", range(4))
def test_the_light_lesion_dice_is_that_of_the_scores(definition, seed):
    random = np.random.default_rng(seed)
    maps = [random.choice(4, (20, 21, 22), p=[0.97, 0.01, 0.01, 0.01]).astype(np.uint8) for _ in range(2)]
    for labels in maps:
        labels[4:8, 4:8, 4:8] = ET
    if seed == 3:
        maps = [np.zeros_like(maps[0]), np.zeros_like(maps[1])]
    scores = score_case(*maps, (1.0, 1.2, 2.0), np.eye(4)[:3], definition).scores
    full = {row["region"]: row["value"] for row in scores if row["metric"] == "lesion_dice"}
    light = lesion_dice_of_case(*maps, (1.0, 1.2, 2.0), definition)
    assert {region: value for region, (value, _) in light.items() if value is not None} == pytest.approx(
        {region: full[region] for region in light if region in full}, abs=0
    )


@pytest.fixture
def folders(tmp_path):
    """Cases a1 and a2 of one patient, b of another: a true lesion of 27 voxels, and specks that are false.

    In a1 two false specks of 2 voxels, in a2 and b none; b's own second lesion has 4 voxels and was found.
    """
    big, false, small = blank(), blank(), blank()
    big[5:8, 5:8, 5:8] = ET
    false[1:3, 1, 1] = false[10, 10, 9:11] = ET
    small[1:5, 1, 1] = ET
    maps = {"a1": (big, big + false), "a2": (big, big), "b": (big + small, big + small)}
    for case, pair in maps.items():
        for name, labels in zip(("references", "predictions"), pair, strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / name / f"{case}.nii.gz")
    return tmp_path / "predictions", tmp_path / "references"


WHOSE = {"a1": "a", "a2": "a", "b": "b"}


def chosen(folders, tried, cases=("a1", "a2", "b"), held_out=(), **settings):
    return choose(*folders, cases, held_out, tried, patients=WHOSE, lesion_definition="brats_2023", **settings)


def test_the_volume_that_drops_false_specks_and_no_lesion_is_chosen(folders):
    said = []
    found = chosen(folders, combinations(ORDER, [2, 3, 4, 5]), progress=said.append)
    assert found.combination == Combination(("smallest_volume",), 3)  # 4 does as well; 5 loses b's lesion
    values = {
        (row["rules"], row["smallest_mm3"]): row["value"]
        for row in found.table.to_dict("records")
        if row["rules"] in ("", "smallest_volume")
    }
    # a1 without a rule: one lesion of Dice 1 and two false ones, 1/3; patient a (1/3 + 1)/2, patient b 1
    assert values["", 0.0] == pytest.approx(((1 / 3 + 1) / 2 + 1) / 2)
    assert values["smallest_volume", 3.0] == values["smallest_volume", 4.0] == 1.0
    assert values["smallest_volume", 5.0] == pytest.approx((1 + 0.5) / 2)
    assert found.table["chosen"].sum() == 1
    assert (found.patients, found.lesions, found.cases) == (2, 4, ("a1", "a2", "b"))
    assert found.weak
    assert "weak" in found.sentence
    assert found.words == "whole tumour below 3 mm³ dropped (weak: chosen on 2 patients with 4 lesions)"
    assert found.record()["smallest_mm3"] == 3
    assert len(said) == 3
    assert said[-1] == "40 combinations on case 3 of 3: b, 0 s left"


def test_no_rule_is_chosen_where_none_helps(folders):
    found = chosen(folders, combinations(ORDER, [5]), cases=("a2", "b"))
    assert found.combination == Combination()
    assert found.sentence.startswith("No rule: chosen on 2 cross-validated cases of 2 patients with 3 lesions")


def test_held_out_cases_must_not_choose(folders):
    with pytest.raises(PostProcessingError, match="b: held out, and must not choose the post-processing"):
        chosen(folders, combinations(ORDER, [3]), held_out=("b", "c"))


def test_without_a_case_nothing_is_chosen_and_said(folders):
    found = chosen(folders, combinations(ORDER, [3]), cases=())
    assert found.combination == Combination()
    assert found.sentence == "No cross-validated case is there to choose by: no rule is applied."


def test_a_choice_on_many_is_not_called_weak(folders):
    found = replace(chosen(folders, combinations(ORDER, [3])), patients=10, lesions=30)
    assert not found.weak
    assert "weak" not in found.sentence
    assert found.words == found.combination.words


def test_equal_label_maps_are_scored_once(folders, monkeypatch):
    calls = []
    original = post_choice.lesion_dice_of_case

    def counted(*arguments):
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(post_choice, "lesion_dice_of_case", counted)
    chosen(folders, combinations(ORDER, [2, 3, 4, 5]), cases=("a2",))
    assert len(calls) == 1, "no rule finds anything to do there"


def test_each_combination_is_scored_on_its_own_map():
    """What runs on from another combination's map is what all rules give from the start."""
    random = np.random.default_rng(5)
    labels = random.choice(4, (10, 10, 10), p=[0.88, 0.04, 0.05, 0.03]).astype(np.uint8)
    labels[2:7, 2:7, 2:7] = shell(SNFH)[2:7, 2:7, 2:7]
    tried = combinations(ORDER, [3, 30])
    for one, made in post_choice._processed(labels, 1.0, tried):
        assert (made == process(labels, 1.0, one)).all()
    assert len({made.tobytes() for _, made in post_choice._processed(labels, 1.0, tried)}) > 5


def test_a_folder_is_processed_case_by_case_with_its_affines(folders, tmp_path):
    written = process_folder(folders[0], ["a1", "b"], Combination(("smallest_volume",), 3), tmp_path / "processed")
    assert [path.name for path in written] == ["a1.nii.gz", "b.nii.gz"]
    counts = [int((np.asarray(nib.load(path).dataobj) > 0).sum()) for path in written]
    assert counts == [27, 31]
    assert (nib.load(written[0]).affine == nib.load(folders[0] / "a1.nii.gz").affine).all()
