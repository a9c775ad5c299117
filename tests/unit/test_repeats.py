"""Training luck, against numbers worked out by hand and against what was drawn."""

import numpy as np
import pandas as pd
import pytest
from branch_scores import branch_scores, drawn_trainings
from scipy import stats

from brainmets.statistics import branch_figures, descriptive
from brainmets.statistics.branches import REPEAT
from brainmets.statistics.repeats import (
    COMPONENT_COLUMNS,
    DIFFERENCE,
    INTERVAL_COLUMNS,
    SHARES,
    UNKNOWN,
    VARIANCES,
    Estimate,
    components,
    interval,
    retrained,
    retrained_intervals,
    sentence,
    split,
)

BY_HAND = {1: {"finetune": [1.0, 4.0], "scratch": [0.0, 2.0]}, 2: {"finetune": [2.0, 7.0], "scratch": [1.0, 3.0]}}
"""Two patients, two trainings. Mean squares: case 18, case x strategy 2, training 2.5, residual 0.5."""


def by_hand(values=BY_HAND) -> pd.DataFrame:
    return branch_scores(REPEAT, values, metric="hd95", unit="mm")


def test_components_by_hand_to_the_last_digit() -> None:
    row = components(by_hand(), {}).iloc[0]
    assert list(row.index) == COMPONENT_COLUMNS
    assert row[VARIANCES].tolist() == [4.0, 0.75, 1.0, 0.5]
    assert row[SHARES].tolist() == [4 / 6.25, 0.75 / 6.25, 1 / 6.25, 0.5 / 6.25]
    assert (row["n_patients"], row["n_repeats"], row["note"]) == (2, 2, "")


def test_negative_components_are_cut_and_named() -> None:
    """One training is better for one patient and worse for the other: less between trainings than within."""
    values = {1: {"finetune": [1.0, 0.0], "scratch": [0.0, 1.0]}, 2: {"finetune": [0.0, 1.0], "scratch": [1.0, 0.0]}}
    row = components(by_hand(values), {}).iloc[0]
    assert row[VARIANCES].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert row["note"] == "negative and cut at 0: case_strategy, training"


def test_components_are_what_was_drawn() -> None:
    random = np.random.default_rng(0)
    drawn = (1.0, 0.5, 0.7, 0.3)
    found = [list(split(drawn_trainings(random, 40, 6, *drawn))[0].values()) for _ in range(400)]
    assert np.mean(found, axis=0) == pytest.approx(np.square(drawn), rel=0.05)


def test_equal_values_have_nothing_to_split() -> None:
    row = components(by_hand({1: BY_HAND[1] | {"finetune": [0.0, 2.0]}, 2: BY_HAND[1] | {"finetune": [0.0, 2.0]}}), {})
    assert row[VARIANCES].iloc[0].tolist() == [2.0, 0.0, 0.0, 0.0]
    same = {repeat: {"finetune": [0.7, 0.7], "scratch": [0.7, 0.7]} for repeat in (1, 2)}
    row = components(by_hand(same), {}).iloc[0]
    assert row[VARIANCES].tolist() == [0, 0, 0, 0]
    assert row["note"] == "all values equal: nothing to split"


def test_one_repeat_says_that_luck_is_unknown() -> None:
    once = by_hand({1: BY_HAND[1]})
    row = components(once, {}).iloc[0]
    assert row[[*VARIANCES, *SHARES]].isna().all()
    assert row["note"] == UNKNOWN
    intervals = retrained_intervals(once, {}, 0.05)
    assert intervals["note"].eq(UNKNOWN).all()
    assert (
        intervals[["retrained_mean", "retrained_low", "retrained_high", "next_low", "next_high"]].isna().all(axis=None)
    )
    assert intervals[["this_mean", "this_low", "this_high"]].notna().all(axis=None)
    assert sentence(components(once, {}), intervals, "hd95", "TC") == f"{UNKNOWN.capitalize()}."


def test_retrained_interval_by_hand() -> None:
    """Fine-tuned minus scratch: patients 1 and 3 a training on average; of this model 1 and 2."""
    table = retrained_intervals(by_hand(), {}, 0.05)
    assert list(table.columns) == INTERVAL_COLUMNS
    row = table[table["strategy"] == DIFFERENCE].iloc[0]
    t = stats.t.isf(0.025, 1)
    assert (row["this_mean"], row["retrained_mean"]) == (1.5, 2.0)
    assert row["this_high"] - row["this_mean"] == pytest.approx(t * 0.5)  # sd of 1 and 2, over the root of 2
    # differences 1 and 3: variance 2, over 2; fine-tuned trainings (4 - 1) / 4; scratch ones (1 - 0) / 4
    assert row["retrained_high"] - row["retrained_mean"] == pytest.approx(t * np.sqrt(1 + 0.75 + 0.25))
    assert row["next_high"] - row["retrained_mean"] == pytest.approx(t * np.sqrt(1 + 3 * (0.75 + 0.25)))
    assert "one degree of freedom" in row["note"]


def test_freedom_lies_between_that_of_trainings_and_of_patients() -> None:
    random = np.random.default_rng(1)
    of_patients, of_trainings = (
        retrained([drawn_trainings(random, 10, 3, *deviations)[:, 0]])
        for deviations in ((1, 0, 0, 1e-6), (1e-6, 0, 1, 1e-6))
    )
    assert of_patients.freedom == pytest.approx(9)
    assert of_trainings.freedom == pytest.approx(2, abs=1e-3)


def test_without_luck_both_intervals_are_those_of_the_descriptive_table() -> None:
    values = {"finetune": [0.9, 0.7, 0.8], "scratch": [0.6, 0.5, 0.9]}
    table = retrained_intervals(branch_scores(REPEAT, {1: values, 2: values, 3: values}), {}, 0.05)
    row = table[table["strategy"] == "finetune"].iloc[0]
    expected = descriptive.share_interval(np.array(values["finetune"]), list("abc"), 0.05)
    assert (row["this_low"], row["this_high"]) == pytest.approx(expected)
    assert (row["retrained_low"], row["retrained_high"]) == pytest.approx(expected)
    assert (row["next_low"], row["next_high"]) == pytest.approx(expected)


def test_training_luck_widens_the_interval() -> None:
    values = {1: {"finetune": [0.9, 0.7, 0.8], "scratch": [0.6, 0.5, 0.9]}}
    values[2] = {side: [value - 0.2 for value in own] for side, own in values[1].items()}
    row = retrained_intervals(branch_scores(REPEAT, values), {}, 0.05).iloc[0]
    assert row["retrained_low"] < row["this_low"]
    assert row["next_low"] <= row["retrained_low"]
    assert 0 <= row["next_low"] <= row["next_high"] <= 1


def test_intervals_keep_to_the_range_and_need_a_variance() -> None:
    assert interval(Estimate(1.0, 0.01, 5), 0.05, "greater")[1] == 1
    assert interval(Estimate(0.1, 1.0, 5), 0.05, "less")[0] == 0
    assert interval(Estimate(0.1, 1.0, 5), 0.05, "")[0] < 0
    assert interval(Estimate(0.3, 0.0, 5), 0.05, "greater") == (0.3, 0.3)
    assert np.isnan(interval(Estimate(0.3, np.nan, 0), 0.05, "greater")).all()


def test_one_patient_has_no_interval_and_the_note_says_so() -> None:
    one = by_hand({repeat: {side: own[:1] for side, own in sides.items()} for repeat, sides in BY_HAND.items()})
    found, table = components(one, {}), retrained_intervals(one, {}, 0.05)
    assert found["note"].tolist() == ["one patient: no variance between patients"]
    assert table["note"].str.contains("one patient: no interval").all()
    assert table[["this_low", "retrained_low", "next_low"]].isna().all(axis=None)
    assert sentence(found, table, "hd95", "TC") == "HD95 of TC: one patient: no variance between patients."


def test_sentence_gives_the_parts_and_both_intervals() -> None:
    said = sentence(components(by_hand(), {}), retrained_intervals(by_hand(), {}, 0.05), "hd95", "TC")
    assert said == (
        "Over 2 trainings of every model, another training moves a model's mean HD95 of TC with a standard deviation "
        "of 1 mm; of the variance of single scores 64.0% is between patients, 12.0% what the strategy does for each, "
        "16.0% between trainings and 8.0% what a training does for each patient. Fine-tuned minus scratch is +1.5 "
        "(-4.85 to +7.85) of the first models, +2 (-16 to +20) of models trained anew."
    )
    nothing = components(by_hand().iloc[:0], {})
    assert "is not known" in sentence(nothing, nothing, "hd95", "TC")


def test_figure_has_a_point_for_every_training() -> None:
    scores = branch_scores(REPEAT, {k: {"finetune": [0.9, 0.8], "scratch": [0.5, 0.6]} for k in (1, 2, 3)})
    panel = branch_figures.repeats(scores, "dice", {}).axes[0]
    assert [len(points.get_offsets()) for points in panel.collections] == [3, 3]
    heights = [points.get_offsets()[:, 1].tolist() for points in panel.collections]
    assert heights == [pytest.approx([0.55] * 3), pytest.approx([0.85] * 3)]  # from scratch on the left
    assert (
        branch_figures.repeats(scores.iloc[:0], "dice", {}).axes[0].texts[0].get_text()
        == "no model of both strategies"
    )
