"""Scores of branches side by side: nothing missing, nothing averaged by row order."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from branch_scores import branch_scores
from score_examples import example_scores, write_study

from brainmets.paths import StudyPaths
from brainmets.provenance import Provenance
from brainmets.statistics.branches import (
    REPEAT,
    TRAINING_CASES,
    blocks,
    over_arms,
    read_curve,
    read_repeats,
    tables_of,
    together,
)
from brainmets.statistics.comparisons import MEAN_OVER_ARMS
from brainmets.statistics.tables import COLUMNS, ScoreTableError

BOTH = {1: {"finetune": [0.5, 0.7], "scratch": [0.4, 0.6]}, 2: {"finetune": [0.6, 0.9], "scratch": [0.4, 0.5]}}


def tables(values):
    table = branch_scores(REPEAT, values)
    return {branch: own[COLUMNS] for branch, own in table.groupby(REPEAT)}


def written(files: StudyPaths, scores: pd.DataFrame) -> None:
    """What notebook 06 leaves of a branch."""
    write_study(files.evaluations, scores)
    for arm, strategy in scores[["arm", "strategy"]].drop_duplicates().itertuples(index=False):
        record = Provenance("06_evaluation", {"study": files.study, "arm": arm, "strategy": strategy}, files.work)
        record.write(files.evaluation(arm, strategy), outputs=[files.evaluation_folder(arm, strategy)])


@pytest.fixture
def files(tmp_path: Path) -> StudyPaths:
    """Repeats 1 and 2 and 5 training cases, rows in another order each; a pretrained model in the repeats alone."""
    files, scores = StudyPaths(str(tmp_path), "tiny"), example_scores(4)
    pretrained = scores[scores["strategy"] == "scratch"].assign(strategy="pretrained")
    written(files, pd.concat([scores, pretrained]).sample(frac=1, random_state=1))
    written(files.branch(repeat=2), pd.concat([scores, pretrained]).sample(frac=1, random_state=2))
    written(files.branch(training_cases=5), scores.sample(frac=1, random_state=3))
    Provenance("01_data_audit", {"study": "tiny"}, files.work).write(files.audit)
    return files


def test_branches_are_read_whatever_the_order_of_rows(files: StudyPaths) -> None:
    repeats, curve = read_repeats(files, 2), read_curve(files, [5], 8)
    for found, by, names in ((repeats, REPEAT, [1, 2]), (curve, TRAINING_CASES, [5, 8])):
        first, second = (found[found[by] == name][COLUMNS].reset_index(drop=True) for name in names)
        pd.testing.assert_frame_equal(first, second)
        assert set(first["strategy"]) == {"finetune", "scratch"}
        assert len(first) == len(example_scores(4))
    assert len(tables_of(files, 2, [5])) == 3 * 3 + 3 * 2


def test_a_branch_that_is_not_there_or_not_whole_stops(files: StudyPaths) -> None:
    with pytest.raises(ScoreTableError, match="repeat_3/evaluation: there is no such folder"):
        read_repeats(files, 3)
    with pytest.raises(ValueError, match="learning_curve: 8 must be below 8, the target's training cases"):
        read_curve(files, [5, 8], 8)
    table = files.branch(training_cases=5).scores("default", "scratch")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=r"cases_5/evaluation/default/scratch/scores\.csv has"):
        read_curve(files, [5], 8)


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
