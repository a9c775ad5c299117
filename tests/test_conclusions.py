"""The words follow the numbers: every test changes the scores and reads what the paragraph then says."""

import numpy as np
import pandas as pd
import pytest
from score_examples import example_lesions
from score_examples import example_scores as scores_of_arms

from brainmets.scoring.lesions import detection_by_size
from brainmets.statistics import power
from brainmets.statistics.comparisons import Settings, arms_pairwise, finetune_vs_scratch
from brainmets.statistics.conclusions import answer, conclude
from brainmets.statistics.printed import PRINTED, printed_vs_recomputed, support
from brainmets.statistics.score_tables import LESION_COLUMNS

QUICK = Settings(0.05, 100, 1)
NO_LESIONS = pd.DataFrame(columns=LESION_COLUMNS)
TWO_ARMS = ("default", "tversky_bce")


@pytest.fixture(autouse=True)
def few_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SIMULATIONS", 40)
    monkeypatch.setattr(power, "MOST_CASES", 30)


def example_scores(n_cases: int, arms: tuple[str, ...] = TWO_ARMS, gain: float = 0.02, seed: int = 0) -> pd.DataFrame:
    return scores_of_arms(n_cases, arms, gain, seed, volumes=False)


def written(scores: pd.DataFrame, settings: Settings = QUICK, lesions: pd.DataFrame = NO_LESIONS) -> str:
    strategies = finetune_vs_scratch(scores, settings)
    arms = arms_pairwise(scores[scores["metric"] == "sensitivity"], settings)  # one metric is enough, and quick
    needed, printed = power.cases_needed(scores, settings), printed_vs_recomputed(scores)
    return conclude(scores, strategies, arms, needed, printed, detection_by_size(lesions), settings)


def swapped(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.assign(strategy=scores["strategy"].map({"finetune": "scratch", "scratch": "finetune"}))


def test_a_gain_in_every_case_is_an_improvement_after_holm() -> None:
    text = written(example_scores(9, gain=0.05))
    assert "Averaged over the arms, fine-tuning improved" in text
    assert "WT Dice (+0.04" in text
    assert "harmed" not in text


def test_swapping_the_strategies_turns_gain_into_harm() -> None:
    text = written(swapped(example_scores(9, gain=0.05)))
    assert "fine-tuning improved" not in text
    assert "fine-tuning harmed" in text
    assert "WT Dice (-0.04" in text
    assert "No number of cases that would show an improvement" in text


def test_no_gain_is_called_chance() -> None:
    text = written(example_scores(9, gain=0.0, seed=3))
    assert "none of 12 paired tests gives an improvement beyond chance" in text


def test_one_bad_case_turns_proof_into_suggestion() -> None:
    scores = example_scores(9, gain=0.05)
    assert "improved only before Holm's correction" not in written(scores)
    bad = (scores["case"] == "case04") & (scores["strategy"] == "finetune") & (scores["metric"] == "dice")
    text = written(scores.assign(value=scores["value"] - 0.06 * bad))
    assert "ET Dice" in text.split("improved only before Holm's correction")[0].split("Holm's correction")[-1]


def test_a_stricter_level_changes_the_words() -> None:
    scores = example_scores(9, gain=0.05)
    assert "after Holm's correction" in written(scores)
    assert "after Holm's correction" not in written(scores, Settings(0.001, 100, 1))


def test_too_few_cases_are_said_to_be_too_few() -> None:
    assert "With 4 pairs no outcome could have reached p < 0.05" in written(example_scores(4, gain=0.05))
    assert "no outcome could have reached" not in written(example_scores(5, gain=0.05))
    assert "1 held-out case scored" in written(example_scores(1))


def test_one_strategy_and_one_arm_are_named_as_such() -> None:
    scores = example_scores(6)
    text = written(scores[scores["strategy"] == "finetune"])
    assert "cannot be compared: no arm was scored with both (finetune only)" in text
    assert "There is one arm: arms cannot be compared." in written(scores[scores["arm"] == "default"])
    assert "For Default, fine-tuning improved" in written(example_scores(9, arms=("default",), gain=0.05))


def test_an_arm_that_is_ahead_is_named() -> None:
    scores = example_scores(9)
    ahead = (scores["arm"] == "tversky_bce") & (scores["metric"] == "sensitivity")
    text = written(scores.assign(value=scores["value"] + 0.1 * ahead))
    assert "TverskyBCE above Default in" in text


def test_undefined_values_are_counted() -> None:
    scores = example_scores(6)
    scores.loc[scores.index[scores["metric"] == "hd95"][:2], "value"] = np.nan
    assert "2 undefined values left out and named in the tables" in written(scores)
    assert "left out" not in written(example_scores(6))


def test_the_means_stand_in_the_text() -> None:
    scores = example_scores(6)
    dice = scores[(scores["metric"] == "dice") & (scores["region"] == "WT")].groupby("strategy")["value"].mean()
    assert f"WT {dice['finetune']:.3f} against {dice['scratch']:.3f}" in written(scores)


def test_answer_is_at_most_three_sentences_from_the_same_numbers() -> None:
    scores = example_scores(9, gain=0.05)
    found = answer(scores, finetune_vs_scratch(scores, QUICK), QUICK)
    assert len(found) == 3
    assert "fine-tuning improved" in found[1]
    one = scores[scores["strategy"] == "scratch"]
    assert len(answer(one, finetune_vs_scratch(one, QUICK), QUICK)) == 1


def test_found_lesions_are_counted_by_size() -> None:
    scores = example_scores(6)
    lesions = example_lesions(scores).assign(region="TC")
    text = written(scores, lesions=lesions)
    assert "tiny 12 of 12 fine-tuned and 0 of 12 from scratch" in text
    assert "large 12 of 12 fine-tuned and 12 of 12 from scratch" in text
    found = written(scores, lesions=lesions.assign(detected=True))
    assert "tiny 12 of 12 fine-tuned and 12 of 12 from scratch" in found
    assert "were found" not in written(scores)


def test_other_cases_than_the_papers_are_not_held_against_it() -> None:
    scores = example_scores(10)
    table = printed_vs_recomputed(scores)
    assert len(table) == len(PRINTED)
    assert (table["note"] == "not compared: these are not the paper's ten held-out cases").all()
    assert table["recomputed"].isna().all()
    assert support(table).empty
    assert "printed in the paper" not in written(scores)


def test_printed_numbers_are_supported_by_the_reading_that_fits_most() -> None:
    scores = scores_of_arms(10)
    renamed = scores.assign(case="SBT-MET-" + scores["case"])
    # give the default arm's fine-tuned Dice the printed mean in every case
    finetuned = {(i.metric, i.region): i.value for i in PRINTED if i.quantity == "mean" and i.model == "finetune"}
    for (metric, region), value in finetuned.items():
        model = (renamed["arm"] == "default") & (renamed["strategy"] == "finetune")
        renamed.loc[model & (renamed["metric"] == metric) & (renamed["region"] == region), "value"] = value
    checked = support(printed_vs_recomputed(renamed))
    means = checked[checked["quantity"] == "mean"].set_index(["metric", "region", "model"])["status"]
    assert (means.xs("finetune", level="model") == "supported").all()
    assert (means.xs("scratch", level="model") != "supported").all()
    assert "numbers printed in the paper" in written(renamed)
