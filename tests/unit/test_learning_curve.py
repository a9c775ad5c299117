""" "Pretraining is worth k cases", on curves whose answer can be read off."""

import json

import numpy as np
import pandas as pd
import pytest
from branch_scores import branch_scores

from brainmets.files import write_json
from brainmets.statistics import branch_figures
from brainmets.statistics.branches import TRAINING_CASES
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.learning_curve import (
    CURVE_COLUMNS,
    NOT_RISING,
    ONE_PATIENT,
    ONE_SIZE,
    TOO_WIDE,
    curve,
    isotonic,
    more_cases,
    record,
)

SIZES = (5, 10, 15, 20)
SETTINGS = Settings(0.05, 1000, 1)
LEVELS = [0.0, 0.05, 0.1]
"""How much better each of three patients is than the curve."""


def curves(finetune, scratch, sizes=SIZES, patients=LEVELS, **table) -> pd.DataFrame:
    """Means by size; every patient is as much better or worse at all sizes."""
    values = {
        size: {side: [mean + level for level in patients] for side, mean in (("finetune", one), ("scratch", two))}
        for size, one, two in zip(sizes, finetune, scratch, strict=True)
    }
    return curve(branch_scores(TRAINING_CASES, values, **table), SETTINGS)


def said(table, metric="dice", alpha=0.05) -> str:
    return record(table, metric, "TC", alpha)["sentence"]


def test_a_high_level_is_not_rounded_to_certainty() -> None:
    table = curves([0.5, 0.6, 0.65, 0.7], [0.4, 0.5, 0.6, 0.65])
    assert "; 99.9% interval over patients" in said(table, alpha=0.001)


def test_curves_shifted_by_five_cases_are_worth_five() -> None:
    table = curves([0.5, 0.6, 0.65, 0.7], [0.4, 0.5, 0.6, 0.65])
    assert list(table.columns) == CURVE_COLUMNS
    assert table["worth"].tolist() == pytest.approx([5, 5, 5, np.inf])
    assert table["worth_low"].tolist() == pytest.approx([5, 5, 5, np.inf])  # every patient says the same
    assert said(table) == (
        "Pretraining is worth 5 cases: training from scratch reaches the mean Dice of TC that fine-tuning reaches "
        "with 10 training cases (Default) with about 15; 95% interval over patients 5 to 5; each size was "
        "trained once."
    )


def test_equal_curves_are_worth_nothing() -> None:
    table = curves([0.4, 0.5, 0.6, 0.65], [0.4, 0.5, 0.6, 0.65])
    assert table["worth"].tolist() == pytest.approx([0, 0, 0, 0])
    assert said(table).startswith("Pretraining is worth no case: training from scratch reaches")


def test_between_two_sizes_the_curve_is_straight_over_the_logarithm() -> None:
    """Halfway from 5 to 20 in height is 10 cases."""
    table = curves([0.5, 0.6], [0.4, 0.6], sizes=(5, 20))
    assert table["worth"].tolist() == pytest.approx([5, 0])


def test_a_height_that_scratch_never_reaches_is_more_than_the_rest() -> None:
    table = curves([0.7, 0.8, 0.85, 0.9], [0.4, 0.5, 0.6, 0.65])
    assert np.isposinf(table["worth"]).all()
    assert said(table) == (
        "Pretraining is worth more than 10 cases: training from scratch does not reach the mean Dice of TC that "
        "fine-tuning reaches with 10 training cases (Default) even with all 20; 95% interval over patients more than "
        "10 to more than 10; each size was trained once."
    )


def test_where_scratch_is_better_pretraining_is_worth_none() -> None:
    table = curves([0.3, 0.45, 0.5, 0.6], [0.4, 0.5, 0.6, 0.65])
    assert np.isneginf(table["worth"].iloc[0])
    assert table["worth"].iloc[1] == pytest.approx(5 * np.sqrt(2) - 10)  # halfway from 5 to 10
    assert table["worth"].iloc[2:].tolist() == pytest.approx([-5, -5])
    assert "Pretraining is worth no case: training from scratch reaches the mean" in said(table)
    worst = curves([0.3, 0.3, 0.3, 0.3], [0.4, 0.5, 0.6, 0.65])
    assert "training from scratch with 5 is better than the mean Dice of TC" in said(worst)
    assert "interval over patients less than -5 to less than -5" in said(worst)


def test_lower_is_better_mirrors_higher_is_better() -> None:
    table = curves([5, 4, 3.5, 3], [6, 5, 4, 3.5], metric="hd95", unit="mm")
    assert table["worth"].tolist() == pytest.approx([5, 5, 5, np.inf])
    assert table["finetune"].tolist() == pytest.approx([5.05, 4.05, 3.55, 3.05])
    assert table["difference"].tolist() == pytest.approx([-1, -1, -0.5, -0.5])


def test_a_scratch_curve_that_falls_cannot_say() -> None:
    table = curves([0.5, 0.6, 0.65, 0.7], [0.4, 0.5, 0.45, 0.65])
    assert table["note"].tolist() == [NOT_RISING] * 4
    assert said(table) == (
        f"How many cases pretraining is worth, the data cannot say (Dice of TC, Default): {NOT_RISING}."
    )


def test_an_interval_from_nothing_to_beyond_cannot_say() -> None:
    """Two patients who contradict each other."""
    scratch = {5: [0.4, 0.4], 10: [0.5, 0.5], 20: [0.6, 0.6]}
    gain = np.array([0.3, -0.25])
    values = {size: {"finetune": list(own + gain), "scratch": own} for size, own in scratch.items()}
    table = curve(branch_scores(TRAINING_CASES, values), SETTINGS)
    assert TOO_WIDE in table["note"].iloc[1]
    assert said(table).endswith(f"{TOO_WIDE}.")


def test_an_interval_with_zero_says_that_it_may_be_worth_none() -> None:
    scratch = {5: [0.4] * 4, 10: [0.5] * 4, 15: [0.8] * 4, 20: [0.9] * 4}
    gain = np.array([0.15, 0.15, 0.1, -0.02])
    values = {size: {"finetune": list(own + gain), "scratch": own} for size, own in scratch.items()}
    assert said(curve(branch_scores(TRAINING_CASES, values), SETTINGS)).endswith(
        ", so that it may be worth none; each size was trained once."
    )


def test_one_patient_and_one_size_say_so() -> None:
    one = curves([0.5, 0.6, 0.65, 0.7], [0.4, 0.5, 0.6, 0.65], patients=[0.0])
    assert one["note"].tolist() == [ONE_PATIENT] * 4
    assert one[["worth_low", "finetune_low", "difference_low"]].isna().all(axis=None)
    assert said(one).endswith(f"{ONE_PATIENT}.")
    alone = curves([0.5], [0.4], sizes=(20,))
    assert alone["note"].tolist() == [ONE_SIZE]
    assert alone["worth"].isna().all()
    assert record(alone, "dice", "TC", 0.05)["sizes"] == []
    assert said(alone) == "No learning curve was made: how many cases pretraining is worth is unknown (Dice of TC)."


def test_the_same_patients_are_resampled_at_all_sizes() -> None:
    """Patients of very different levels, who all gain the same: paired, the interval has no width."""
    table = curves([0.5, 0.6, 0.65, 0.7], [0.4, 0.5, 0.6, 0.65], patients=[-0.3, 0.0, 0.1, 0.3])
    assert table["worth_low"].iloc[:3].tolist() == pytest.approx([5, 5, 5])
    assert table["worth_high"].iloc[:3].tolist() == pytest.approx([5, 5, 5])
    assert table["scratch_high"].iloc[0] - table["scratch_low"].iloc[0] > 0.3


def test_the_sentence_is_of_the_largest_size_up_to_half_of_all() -> None:
    of = {sizes: record(curves(up, up, sizes=sizes), "dice", "TC", 0.05)["sentence"] for sizes, up in (
        ((5, 10, 20), [0.4, 0.5, 0.6]), ((5, 10, 15), [0.4, 0.5, 0.6]), ((8, 10), [0.4, 0.5]),
    )}  # fmt: skip
    assert [f"with {n} training cases" in words for n, words in zip((10, 5, 8), of.values(), strict=True)] == [
        True
    ] * 3


def test_the_record_is_plain_json_without_infinity(tmp_path) -> None:
    table = curves([0.3, 0.6, 0.65, 0.7], [0.4, 0.5, 0.6, 0.65])
    content = record(table, "dice", "TC", 0.05)
    assert json.loads(write_json(tmp_path / "worth.json", content).read_text()) == content
    first, *_, last = content["sizes"]
    assert (first["worth"], first["less_than"], first["more_than"]) == (None, 0, None)
    assert (last["worth"], last["less_than"], last["more_than"]) == (None, None, 0)
    assert content["sizes"][1]["worth"] == pytest.approx(5)


def test_isotonic_is_that_of_scikit_learn() -> None:
    from sklearn.isotonic import isotonic_regression

    drawn = np.random.default_rng(0).normal(size=(50, 6))
    assert np.allclose(isotonic(drawn), [isotonic_regression(row) for row in drawn])


def test_a_flat_stretch_is_reached_at_its_start() -> None:
    means = np.array([[[0.5, 0.5, 0.5], [0.4, 0.5, 0.5]]])
    assert more_cases(means, np.array([5.0, 10.0, 20.0]))[0] == pytest.approx([5, 0, -10])


def test_figure_has_a_line_for_each_strategy() -> None:
    table = curves([0.5, 0.6, 0.65, 0.7], [0.4, 0.5, 0.6, 0.65])
    panel = branch_figures.learning_curve(table, "dice").axes[0]
    lines = [line for line in panel.lines if line.get_linestyle() in ("-", "--")]
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    assert np.allclose(lines[1].get_ydata(), np.array([0.4, 0.5, 0.6, 0.65]) + 0.05)
    assert [label.get_text() for label in panel.get_xticklabels()] == ["5", "10", "15", "20"]
    assert branch_figures.learning_curve(table.iloc[:0], "dice").axes[0].texts
