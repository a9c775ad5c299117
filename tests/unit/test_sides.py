"""The sides of a split: what each holds."""

import pandas as pd

from brainmets.cohorts.sides import describe
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
