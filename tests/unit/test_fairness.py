"""Which comparison the report makes, and how it says so."""

import numpy as np
import pandas as pd
import pytest
from score_examples import example_scores, scores

from brainmets.statistics.comparisons import MEAN_OVER_ARMS, Settings
from brainmets.statistics.fairness import (
    COLUMNS,
    COMPARISONS,
    CONTROL,
    WITH_CONTROL,
    WITHOUT_CONTROL,
    fairness,
    sentence,
)

SETTINGS = Settings(0.05, 1000, 1)


def three() -> pd.DataFrame:
    """Six cases: scratch 0.5 and up, the control 0.02 better, fine-tuned 0.05 better than the control."""
    base = np.linspace(0.5, 0.6, 6)
    sides = (("finetune", 0.07), (CONTROL, 0.02), ("scratch", 0.0))
    return pd.concat([scores(base + gain, strategy=side) for side, gain in sides], ignore_index=True)


def test_both_comparisons_and_what_longer_training_brings() -> None:
    table = fairness(three(), SETTINGS)
    assert list(table.columns) == COLUMNS
    assert table["comparison"].tolist() == list(COMPARISONS.values())
    assert table["shift"].tolist() == pytest.approx([0.07, 0.05, 0.02])
    assert (table["low"] <= table["shift"] + 1e-12).all()
    assert table["n"].tolist() == [6, 6, 6]


def test_without_a_control_one_comparison_is_left_and_the_sentence_says_what_is_unknown() -> None:
    plain = three()[three()["strategy"] != CONTROL]
    assert fairness(plain, SETTINGS)["comparison"].tolist() == ["as many epochs on the target"]
    assert sentence(set(plain["strategy"])) == WITHOUT_CONTROL
    assert "cannot say" in WITHOUT_CONTROL
    assert sentence(set(three()["strategy"])) == WITH_CONTROL


def test_few_patients_are_said() -> None:
    table = fairness(three()[three()["case"].isin(["a", "b"])], SETTINGS)
    assert table["note"].tolist() == ["widest interval that 2 patients allow; it covers 50.0%"] * 3
    one = fairness(three()[three()["case"] == "a"], SETTINGS)
    assert one["note"].tolist() == ["no interval: it takes two patients"] * 3
    scans = fairness(three(), Settings(0.05, 1000, 1, dict(zip("abcdef", "pqrstt", strict=True))))
    assert scans["n"].tolist() == [5, 5, 5]
    assert scans["note"].str.contains("6 cases of 5 patients, each counted once").all()


def test_every_arm_and_the_mean_over_them() -> None:
    table = fairness(example_scores(6), SETTINGS)
    dice = table[(table["metric"] == "dice") & (table["region"] == "ET")]
    assert dice["arm"].tolist() == ["default", "tversky_bce", "segresnet", MEAN_OVER_ARMS]
    assert "predicted_volume" not in set(table["metric"])


def test_one_strategy_gives_no_row() -> None:
    table = fairness(scores([0.1, 0.2]), SETTINGS)
    assert table.empty
    assert list(table.columns) == COLUMNS
