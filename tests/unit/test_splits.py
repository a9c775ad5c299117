"""Splits: no patient on two sides, every case once, the same by seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainmets.cohorts.splits import SplitError, hold_out, make_folds, split_cohort

PATIENTS = {"a1": "a", "a2": "a", "b": "b", "c": "c", "d1": "d", "d2": "d", "e": "e"}


def test_a_list_is_taken_as_it_is() -> None:
    assert hold_out(PATIENTS, ["b", "a2", "a1"], seed=0) == ["a1", "a2", "b"]


def test_a_list_may_not_part_a_patient_nor_name_a_stranger() -> None:
    with pytest.raises(SplitError, match=r"patient\(s\) a:"):
        hold_out(PATIENTS, ["a1"], seed=0)
    with pytest.raises(SplitError, match="does not have: z"):
        hold_out(PATIENTS, ["z"], seed=0)


def test_a_count_that_whole_patients_cannot_give_is_refused() -> None:
    with pytest.raises(SplitError, match=r"1 cases cannot be held out without separating .* \(0 can\)"):
        hold_out({"a1": "a", "a2": "a", "b1": "b", "b2": "b"}, 1, seed=0)
    with pytest.raises(SplitError, match="nothing is left"):
        hold_out(PATIENTS, len(PATIENTS), seed=0)


def test_a_count_that_some_patients_can_give_is_given_whatever_the_seed() -> None:
    """Three cases of patients with two and three: a draw that starts with the two would end at two."""
    patients = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "b3": "b"}
    for seed in range(10):
        assert hold_out(patients, 3, seed) == ["b1", "b2", "b3"]
        assert hold_out(patients, 3, seed, loads=dict.fromkeys(patients, 1.0)) == ["b1", "b2", "b3"]


TWELVE = {f"P{number:02}": f"P{number:02}" for number in range(12)}
LOADS = {case: float(number) for number, case in enumerate(TWELVE)}


@pytest.mark.parametrize("seed", range(20))
def test_by_load_every_stratum_gives_one_patient(seed: int) -> None:
    """Twelve patients of rising load: of each three in a row one is held out, and of the rest each two part."""
    split = split_cohort(TWELVE, 4, 2, seed, loads=LOADS)
    assert [int(LOADS[case]) // 3 for case in split["held_out"]] == [0, 1, 2, 3]
    rest = [case for case in TWELVE if case not in split["held_out"]]
    for pair in zip(rest[::2], rest[1::2], strict=True):
        assert len(set(pair) & set(split["folds"][0]["val"])) == 1
    assert split == split_cohort(TWELVE, 4, 2, seed, loads=LOADS)


def test_by_load_the_seed_chooses_within_the_strata() -> None:
    drawn = {tuple(hold_out(TWELVE, 4, seed, loads=LOADS)) for seed in range(20)}
    assert len(drawn) > 10
    assert {case for one in drawn for case in one} == set(TWELVE)


def test_by_load_a_patient_counts_with_the_mean_of_its_scans() -> None:
    """Patient a: 1 and 9 mL, mean 5. In order b, a, c, d: b and a part, c and d part."""
    patients = {"a1": "a", "a2": "a", "b": "b", "c": "c", "d": "d"}
    loads = {"a1": 1.0, "a2": 9.0, "b": 4.0, "c": 6.0, "d": 7.0}
    for seed in range(10):
        validated = {patients[case] for case in make_folds(patients, 2, seed, loads)[0]["val"]}
        assert len(validated & {"b", "a"}) == len(validated & {"c", "d"}) == 1


def test_a_random_draw_does_not_look_at_loads() -> None:
    assert {tuple(int(LOADS[case]) // 3 for case in hold_out(TWELVE, 4, seed)) for seed in range(20)} > {(0, 1, 2, 3)}


FOUR = {name: name for name in ("MET-01", "MET-02", "MET-03", "MET-04")}


@pytest.mark.parametrize(
    ("patients", "held_out", "n_folds", "expected"),
    [
        (
            {"a": "a", "b": "b"}, 1, 2,
            "target: 2 patients, 1 held out, leaves 1; audit.n_folds is 2: "
            "lower target.held_out or audit.n_folds, or add patients",
        ),
        (
            {"a1": "a", "a2": "a", "b": "b", "c": "c"}, ["a1", "a2"], 3,
            "target: 3 patients, 1 held out, leaves 2; audit.n_folds is 3: "
            "lower target.held_out or audit.n_folds, or add patients",
        ),
        ({"a": "a"}, 0, 2, "target: 1 patient; audit.n_folds is 2: lower audit.n_folds, or add patients"),
        (FOUR, 10, 2, "target.held_out: 10 of 4 cases: nothing is left to train on; lower it, or add cases"),
        (FOUR, 4, 2, "target.held_out: 4 of 4 cases: nothing is left to train on; lower it, or add cases"),
        (FOUR, list(FOUR), 2, "target.held_out lists all 4 cases: nothing is left to train on; list fewer"),
        (
            FOUR, ["MET-1"], 2,
            "target.held_out names cases that the target cohort does not have: MET-1 (did you mean 'MET-01'?)",
        ),
        (
            FOUR, ["xyz"], 2,
            "target.held_out names cases that the target cohort does not have: "
            "xyz (its cases are named like 'MET-01')",
        ),
        (
            PATIENTS, ["a1"], 2,
            "target.held_out separates the scans of patient(s) a: list all of a patient's cases or none",
        ),
    ],
)  # fmt: skip
def test_a_split_that_cannot_be_made_is_told_with_cohort_numbers_and_remedy(
    patients: dict[str, str], held_out: int | list[str], n_folds: int, expected: str
) -> None:
    with pytest.raises(SplitError) as error:
        split_cohort(patients, held_out, n_folds, seed=0, cohort="target")
    assert str(error.value) == expected
    with pytest.raises(SplitError) as error:
        split_cohort(patients, held_out, n_folds, seed=0)  # as notebook 01 calls it
    assert "target" not in str(error.value)


def test_nothing_held_out_leaves_all() -> None:
    assert hold_out(PATIENTS, 0, seed=0) == []


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(SplitError, match="6 folds need as many patients, there are 5"):
        make_folds(PATIENTS, 6, seed=0)


@given(
    sizes=st.lists(st.integers(1, 3), min_size=4, max_size=12),
    count=st.integers(0, 3),
    n_folds=st.integers(2, 3),
    seed=st.integers(0, 1000),
    by_load=st.booleans(),
)
def test_every_case_is_tested_or_validated_once_and_no_patient_parts(
    sizes: list[int], count: int, n_folds: int, seed: int, by_load: bool
) -> None:
    patients = {f"{patient}-{scan}": f"{patient}" for patient, size in enumerate(sizes) for scan in range(size)}
    loads = {case: float(len(case) + seed % 7) for case in patients} if by_load else None
    try:
        split = split_cohort(patients, count, n_folds, seed, loads=loads)
    except SplitError:
        return  # the draw cannot be met with whole patients; the refusal has tests of its own
    assert len(split["held_out"]) == count
    validated = [case for fold in split["folds"] for case in fold["val"]]
    assert sorted([*validated, *split["held_out"]]) == sorted(patients)
    held_out = {patients[case] for case in split["held_out"]}
    for fold in split["folds"]:
        train, val = ({patients[case] for case in fold[side]} for side in ("train", "val"))
        assert not train & val
        assert not held_out & (train | val)
    assert split == split_cohort(patients, count, n_folds, seed, loads=loads)
