"""The sides of a split: what each holds."""

import pandas as pd
import pytest

from brainmets.cohorts.sides import absent_regions, describe
from brainmets.cohorts.splits import Split

CASES = pd.DataFrame({
    "case": ["a", "b", "c", "d"],
    "ET_mL": [0.0, 1.0, 0.0, 2.0],
    "TC_mL": [0.0, 1.5, 0.0, 2.0],
    "WT_mL": [4.0, 6.0, 0.0, 20.0],
})  # fmt: skip
SPLIT = Split(
    held_out=["d"], folds=[{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]
)  # fmt: skip


def test_every_side_is_counted() -> None:
    table = describe(CASES, SPLIT)
    assert table.reset_index().to_numpy().tolist() == [
        ["held out", 1, 1, 1, 1, 20.0, 20.0],
        ["training", 3, 1, 1, 2, 4.0, 6.0],
        ["fold 0 training", 2, 1, 1, 2, 5.0, 6.0],
        ["fold 0 validation", 1, 0, 0, 0, 0.0, 0.0],
        ["fold 1 training", 1, 0, 0, 0, 0.0, 0.0],
        ["fold 1 validation", 2, 1, 1, 2, 5.0, 6.0],
    ]


def test_without_held_out_cases_there_is_no_such_side() -> None:
    assert "held out" not in describe(CASES, {**SPLIT, "held_out": []}).index


def cohort_with(enhancing: str, tumour: str = "abcd") -> pd.DataFrame:
    """Four cases: those with a lesion, and those whose lesion enhances."""
    held = {region: [float(case in holders) for case in "abcd"] for region, holders in
            {"ET_mL": enhancing, "TC_mL": enhancing, "WT_mL": tumour}.items()}  # fmt: skip
    return pd.DataFrame({"case": list("abcd"), **held})


TWO_FOLDS = Split(
    held_out=["c", "d"], folds=[{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
)  # fmt: skip


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        (cohort_with("abcd"), []),
        (cohort_with("abc"), []),  # one held-out case with it is enough
        (cohort_with(""), []),  # a cohort without it is the audit's finding
        (cohort_with("cd"), [("error", "ET, TC are in no training case, yet in 2 held-out one(s) (c, d)")]),
        (cohort_with("ab"), [("warning", "ET, TC are in no held-out case: the test says nothing")]),
        (
            cohort_with("ac"),
            [
                ("warning", "ET, TC are in no training case of fold(s) 1: the networks of these folds cannot learn"),
                ("warning", "ET, TC are in no validation case of fold(s) 0: the validation of these folds says"),
            ],
        ),
        (
            cohort_with("ab", tumour="ab"),
            [
                ("warning", "ET, TC are in no held-out case"),
                ("error", "WT is in no held-out case: no lesion could be found in the test"),
            ],
        ),
    ],
)  # fmt: skip
def test_a_region_that_one_side_lacks_is_found(cases: pd.DataFrame, expected: list[tuple[str, str]]) -> None:
    found = absent_regions(cases, TWO_FOLDS)
    assert found.severity.tolist() == [severity for severity, _ in expected]
    for text, (_, start) in zip(found.finding, expected, strict=True):
        assert text.startswith(start)
