"""Scores of branches side by side: nothing missing, nothing averaged by row order."""

import re

import numpy as np
import pandas as pd
import pytest
from branch_scores import branch_scores
from score_examples import example_scores, write_study

from brainmets.statistics.branches import REPEAT, blocks, over_arms, read_branches, together
from brainmets.statistics.comparisons import MEAN_OVER_ARMS
from brainmets.statistics.tables import COLUMNS, ScoreTableError
from brainmets.vocabulary import COMPARED_STRATEGIES

BOTH = {1: {"finetune": [0.5, 0.7], "scratch": [0.4, 0.6]}, 2: {"finetune": [0.6, 0.9], "scratch": [0.4, 0.5]}}


def tables(values):
    table = branch_scores(REPEAT, values)
    return {branch: own[COLUMNS] for branch, own in table.groupby(REPEAT)}


def test_branches_are_read_whatever_the_order_of_rows(tmp_path) -> None:
    scores = example_scores(4)
    for repeat in (1, 2):
        write_study(tmp_path / str(repeat), scores.sample(frac=1, random_state=repeat))
    found = read_branches({2: tmp_path / "2", 1: tmp_path / "1"}, REPEAT, COMPARED_STRATEGIES)
    first, second = (found[found[REPEAT] == repeat][COLUMNS].reset_index(drop=True) for repeat in (1, 2))
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == len(scores)


@pytest.mark.parametrize(
    ("take", "named"),
    [
        (lambda own: own[own["strategy"] != "scratch"], "repeat 2 lacks the model default scratch"),
        (lambda own: own[own["case"] != "b"], "repeat 2 lacks the case b"),
        (lambda own: own.iloc[1:], "repeat 2 lacks the value default finetune a TC dice"),
    ],
)
def test_what_a_branch_lacks_is_named(take, named) -> None:
    of = tables(BOTH)
    with pytest.raises(ScoreTableError, match=f"{named}, which another repeat has"):
        together({1: of[1], 2: take(of[2])}, REPEAT)
    with pytest.raises(ScoreTableError, match=re.escape(named.replace("repeat 2", "repeat 1"))):
        together({1: take(of[1]), 2: of[2]}, REPEAT)


def test_a_branch_scored_against_another_reference_is_refused() -> None:
    one, two = (example_scores(2, arms=("default",)) for _ in "ab")
    two.loc[two["metric"] == "reference_volume", "value"] *= 1.1
    with pytest.raises(ScoreTableError, match=r"case case00, ET: the reference volume is 10 in repeat 1 and 11 in"):
        together({1: one, 2: two}, REPEAT)


def test_blocks_hold_patients_strategies_and_branches() -> None:
    (block,) = blocks(branch_scores(REPEAT, BOTH).sample(frac=1, random_state=0), REPEAT, {})
    assert (block.arm, block.region, block.metric, block.patients, block.branches) == (
        "default", "TC", "dice", ("a", "b"), (1, 2),
    )  # fmt: skip
    assert np.allclose(block.values, [[[0.5, 0.6], [0.4, 0.4]], [[0.7, 0.9], [0.6, 0.5]]])


def test_scans_of_a_patient_are_averaged_first_and_said() -> None:
    (block,) = blocks(branch_scores(REPEAT, BOTH), REPEAT, {"a": "p", "b": "p"})
    assert np.allclose(block.values, [[[0.6, 0.75], [0.5, 0.45]]])
    assert block.remarks == ("2 cases of 1 patients, each counted once",)


def test_a_value_undefined_in_one_branch_leaves_all_of_them_by_name() -> None:
    values = {1: {"finetune": [0.5, np.nan], "scratch": [0.4, 0.6]}, 2: BOTH[2]}
    (block,) = blocks(branch_scores(REPEAT, values), REPEAT, {})
    assert block.patients == ("a",)
    assert block.remarks == ("undefined or infinite in a branch: without b",)


def test_the_mean_over_arms_comes_last_and_names_the_arm_that_lacks_a_strategy() -> None:
    default, tversky = (branch_scores(REPEAT, BOTH, arm=arm) for arm in ("default", "tversky_bce"))
    tversky["value"] += 0.1
    alone = branch_scores(REPEAT, {1: {"finetune": [0.1, 0.1]}, 2: {"finetune": [0.1, 0.1]}}, arm="segresnet")
    found = list(blocks(pd.concat([default, tversky, alone]), REPEAT, {}))
    assert [block.arm for block in found] == ["default", "tversky_bce", MEAN_OVER_ARMS]
    assert np.allclose(found[2].values, found[0].values + 0.05)
    assert found[2].remarks == ("segresnet left out: it lacks a strategy",)


def test_cases_without_the_region_and_metrics_without_a_direction_are_in_no_block() -> None:
    scores = example_scores(3, arms=("default",))
    empty = (scores["metric"] == "reference_volume") & (scores["case"] == "case01") & (scores["region"] == "ET")
    scores.loc[empty, "value"] = 0.0
    found = {(block.metric, block.region): block for block in blocks(scores.assign(repeat=1), REPEAT, {})}
    assert found["dice", "ET"].patients == ("case00", "case02")
    assert found["dice", "TC"].patients == ("case00", "case01", "case02")
    assert {metric for metric, _ in found} == {"dice", "hd95", "sensitivity", "specificity"}


def test_rows_over_arms_are_the_mean_or_the_one_arm() -> None:
    table = pd.DataFrame({"arm": ["default", MEAN_OVER_ARMS, "zeta"], "value": [1, 2, 3]})
    assert over_arms(table)["value"].tolist() == [2]
    assert over_arms(table[table["arm"] == "zeta"])["value"].tolist() == [3]
