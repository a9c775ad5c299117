"""The words follow the numbers: every test changes the scores and reads what the paragraph then says."""

import re

import numpy as np
import pandas as pd
import pytest
from decided import BEFORE, decided
from jinja2 import UndefinedError
from score_examples import example_lesions, two_cases
from score_examples import example_scores as scores_of_arms

from brainmets.scoring.detection import detection_by_size
from brainmets.statistics import power
from brainmets.statistics.comparisons import BOTH_STRATEGIES, Settings, arms_pairwise, finetune_vs_scratch
from brainmets.statistics.conclusions import Facts, answer, between_arms, conclusion, counted, facts, listed
from brainmets.statistics.decision import NOT_COMPARED
from brainmets.statistics.declared import UNKNOWN, Declared
from brainmets.statistics.tables import COLUMNS, in_order, with_reference
from brainmets.vocabulary import LESION_COLUMNS

QUICK = Settings(0.05, 100, 1)
NO_LESIONS = pd.DataFrame(columns=LESION_COLUMNS)
TWO_ARMS = ("default", "tversky_bce")
SIDES = ("finetune", "scratch")


@pytest.fixture(autouse=True)
def few_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SIMULATIONS", 40)
    monkeypatch.setattr(power, "MOST_CASES", 30)


def example_scores(n_cases: int, arms: tuple[str, ...] = TWO_ARMS, gain: float = 0.02, seed: int = 0) -> pd.DataFrame:
    return scores_of_arms(n_cases, arms, gain, seed, volumes=False)


def known(scores: pd.DataFrame, settings: Settings = QUICK, lesions: pd.DataFrame = NO_LESIONS) -> Facts:
    judged = with_reference(scores)
    strategies = finetune_vs_scratch(judged, settings)
    arms = arms_pairwise(judged[judged["metric"] == "sensitivity"], settings)  # one metric is enough, and quick
    return facts(scores, strategies, arms, detection_by_size(lesions), decided(scores, settings), settings)


def written(scores: pd.DataFrame, settings: Settings = QUICK, lesions: pd.DataFrame = NO_LESIONS) -> str:
    return conclusion(known(scores, settings, lesions))


def answered(
    scores: pd.DataFrame, lesions: pd.DataFrame = NO_LESIONS, declared: Declared = BEFORE, **rule: object
) -> list[str]:
    """The answer, which needs neither arm against arm nor power; ``rule`` is that of ``decided``."""
    of_rule = decided(scores, QUICK, declared, plan=False, **rule)
    strategies = finetune_vs_scratch(with_reference(scores), QUICK)
    return answer(facts(scores, strategies, strategies.iloc[:0], detection_by_size(lesions), of_rule, QUICK))


def with_pretrained(scores: pd.DataFrame) -> pd.DataFrame:
    """The same with models of every arm that reach Dice 0.3 everywhere without training on the target."""
    rows = scores[scores["strategy"] == "scratch"].assign(strategy="pretrained")
    rows["value"] = rows["value"].mask(rows["metric"] == "dice", 0.3)
    return in_order(pd.concat([scores, rows], ignore_index=True))


def paragraph(text: str, words: str) -> str:
    """The one paragraph of the conclusion with these words."""
    (found,) = [paragraph for paragraph in text.split("\n\n") if words in paragraph]
    return found


def swapped(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.assign(strategy=scores["strategy"].map({"finetune": "scratch", "scratch": "finetune"}))


def test_a_gain_in_every_case_is_an_improvement_after_holm() -> None:
    text = written(example_scores(9, gain=0.05))
    assert (
        "Averaged over Default and Tversky + BCE, fine-tuning was better than training from scratch in 9 of 9 paired "
        "tests before Holm's correction for so many, and in 9 after it; these nine are the paper's authors'"
    ) in text
    dice = example_scores(9, gain=0.05).query("metric == 'dice'")
    assert "WT Dice (+0.04" in written(dice)
    assert "fine-tuning was worse in none before correction and in none after it" in text


def test_swapping_the_strategies_turns_gain_into_harm() -> None:
    text = written(swapped(example_scores(9, gain=0.05)))
    assert "none of 9 paired tests shows fine-tuning better than training from scratch" in text
    harm = paragraph(text, "turned round")
    assert "fine-tuning was worse in 9 (ET Dice, TC Dice, " in harm
    assert "and in 9 after it" in harm
    dice = swapped(example_scores(9, gain=0.05, arms=TWO_ARMS).query("metric == 'dice'"))
    assert "Worse after correction: Default ET Dice (-0.0" in written(dice)


def test_no_gain_is_called_chance() -> None:
    text = written(example_scores(9, gain=0.0, seed=3))
    assert "none of 9 paired tests shows fine-tuning better than training from scratch, even before Holm's" in text


def test_bad_cases_turn_proof_into_suggestion() -> None:
    scores = example_scores(9, gain=0.05)
    assert "and in 9 after it" in written(scores)
    bad = scores["case"].isin(["case02", "case04", "case06"]) & (scores["strategy"] == "finetune")
    bad &= scores["metric"] == "dice"
    text = written(scores.assign(value=scores["value"] - 0.06 * bad))  # the three smallest of nine: 14/512
    assert "better than training from scratch in 9 of 9" in text
    assert "for so many, and in 6 after it" in text


def test_a_stricter_level_changes_the_words() -> None:
    scores = example_scores(9, gain=0.05)
    assert "and in 9 after it" in written(scores)
    strict = written(scores, Settings(0.001, 100, 1))
    assert "no outcome of 9 paired tests could have been distinguished from chance with 9 cases" in strict


def test_that_no_outcome_could_survive_holm_is_said_in_place_of_none_did() -> None:
    """Seven gains in seven cases: 1/128 is below 0.05, and 9 times that is not."""
    scores = example_scores(7, gain=0.05)
    text = written(scores)
    assert "better than training from scratch in 9 of 9 paired tests before Holm's correction" in text
    assert "and in none after it, which no outcome of so few cases could have survived" in text
    assert "no outcome of so few cases" not in written(example_scores(8, gain=0.05)).split("Arm by arm")[0]


def of_arms(table: pd.DataFrame) -> str:
    """The paragraph on arms, from ``arms_pairwise``'s table and scores that say nothing."""
    return paragraph(conclusion({**known(example_scores(2)), "pairs": between_arms(table, 0.05)}), "between arms")


def test_tied_smallest_p_values_are_counted_and_none_is_picked() -> None:
    """Three arms, ten cases: 2/1024 in 36 tests is 0.07, so that nothing could survive."""
    scores = scores_of_arms(10, volumes=False)
    ahead = (scores["arm"] == "tversky_bce") & (scores["metric"] == "sensitivity")
    table = arms_pairwise(scores.assign(value=scores["value"] + 0.05 * ahead), Settings(0.05, 20, 1))
    sentence = of_arms(table)
    assert "the smallest (p = 0.002) shared by 6" in sentence
    assert "no outcome of 10 cases could have survived Holm's correction for so many" in sentence
    assert " better than " not in sentence


def test_the_winner_is_the_lower_hd95() -> None:
    scores = example_scores(9)
    far = (scores["arm"] == "tversky_bce") & (scores["metric"] == "hd95")
    worse = scores.assign(value=scores["value"] + 5.0 * far)
    sentence = of_arms(arms_pairwise(worse[worse["metric"] == "hd95"], QUICK))
    assert "Default better than Tversky + BCE in TC HD95" in sentence
    assert "Tversky + BCE better" not in sentence


def test_an_arm_without_one_strategy_is_named_everywhere() -> None:
    scores = scores_of_arms(9, gain=0.05, volumes=False)
    gone = (scores["arm"] == "segresnet") & (scores["strategy"] == "scratch")
    words = "SegResNet is left out wherever strategies are compared, having no scores of a model trained from scratch"
    text = written(scores[~gone])
    assert words in text
    assert "Averaged over Default and Tversky + BCE, " in text
    _, means, *_ = answered(scores[~gone])
    assert words in means
    assert "mean of Default and Tversky + BCE, 9 cases)" in means
    assert "left out" not in written(scores)
    two = scores[(scores["arm"] == "default") | (scores["strategy"] == "finetune")]
    assert "Tversky + BCE and SegResNet are left out wherever strategies are compared" in written(two)
    assert "For Default, fine-tuning was better than training from scratch in 9 of 9" in written(two)


# --- the answer


def test_the_answer_word_by_word() -> None:
    scores = scores_of_arms(9, gain=0.05, volumes=False)
    lesions = example_lesions(scores).assign(region="TC")
    dice = scores[scores["metric"] == "dice"].groupby(["region", "strategy"])["value"].mean()
    et, tc, wt = (" against ".join(f"{dice[region][side]:.2f}" for side in SIDES) for region in ("ET", "TC", "WT"))
    assert answered(scores, lesions, margin=0.03, secondary=[("hd95", "TC"), ("dice", "WT")]) == [
        "By the rule declared before the first training, judged by the overlap in the tumour core, fine-tuning is "
        "better than training from scratch, and by more than the margin that would matter (0.03) (difference +0.049, "
        "95% interval +0.048 to +0.050; above 0 is better when fine-tuned; 9 patients).",
        "Of the further measures, tested in the order declared for as long as each was shown, fine-tuning was better "
        "in the distance of the outlines in the tumour core and overlap in the whole tumour.",
        "On held-out cases the overlap with the reference outlines (Dice, 1 is perfect, mean of Default, Tversky + "
        f"BCE and SegResNet, 9 cases) was, fine-tuned against trained from scratch, {et} for the enhancing tumour, "
        f"{tc} for the tumour core and {wt} for the whole tumour.",
        "Of the lesions of the tumour core, counted once per network, fine-tuned networks found 54 of 54 and those "
        "trained from scratch 27 of 54 (found: a predicted lesion, matched to it alone, overlaps it by at least a "
        "tenth of their joint volume).",
        "A difference that was not shown may still exist, and these numbers are of one training of each network, on "
        "one cohort, so that the luck of a training and other hospitals are not covered.",
    ]


def test_the_answer_has_at_most_five_sentences_and_no_jargon() -> None:
    scores = with_pretrained(scores_of_arms(9, gain=0.05))
    found = answered(scores, example_lesions(scores).assign(region="TC"), secondary=[("hd95", "TC")])
    assert len(found) == 5
    for sentence in found:
        assert re.search(r"[.] [A-Z]", sentence) is None, "one sentence"
        assert not re.search(r"Holm|HD95|p [<=]|confirmatory|exploratory|Wilcoxon|IoU|alpha|arm\b", sentence)


def changed(gains: list[float]) -> pd.DataFrame:
    """One arm's TC Dice: 0.5 from scratch, and ``gains`` more when fine-tuned, case by case."""
    rows = []
    for number, gain in enumerate(gains):
        for strategy, value in (("finetune", 0.5 + gain), ("scratch", 0.5)):
            rows.append(("default", strategy, f"case{number:02d}", "TC", "dice", value, "1"))
    return in_order(pd.DataFrame(rows, columns=COLUMNS))


STEPS = np.arange(-4, 5) * 0.001
"""Nine differences that are centred on 0, none equal to another but for its sign."""


MARGIN = "the margin that would matter (0.05)"
BETTER, WORSE = (f"fine-tuning is {way} than training from scratch, " for way in ("better", "worse"))
OPEN = "it is open whether fine-tuning is better or worse than training from scratch"


@pytest.mark.parametrize(
    ("gains", "says"),
    [
        (0.08 + STEPS, f"{BETTER}and by more than {MARGIN} ("),
        (0.05 + 3 * STEPS, f"{BETTER}but whether by {MARGIN} is open ("),
        (0.02 + STEPS, f"{BETTER}but by less than {MARGIN} ("),
        (
            STEPS,
            f"fine-tuning and training from scratch are equivalent: a difference of {MARGIN} is excluded both ways (",
        ),
        (
            0.025 + 12 * STEPS,
            f"fine-tuning is not worse than training from scratch by {MARGIN}, and was not shown to be better (",
        ),
        (-0.025 + 12 * STEPS, f"{OPEN}, although a gain of {MARGIN} is excluded ("),
        (60 * STEPS, f"{OPEN}: neither a gain nor a loss of {MARGIN} is excluded ("),
        (-0.02 + STEPS, f"{WORSE}but by less than {MARGIN} ("),
        (-0.05 + 3 * STEPS, f"{WORSE}but whether by {MARGIN} is open ("),
        (-0.08 + STEPS, f"{WORSE}and by more than {MARGIN} ("),
    ],
)
def test_each_verdict_has_its_sentence(gains: np.ndarray, says: str) -> None:
    first, *_ = answered(changed(list(gains)))
    opening = "By the rule declared before the first training, judged by the overlap in the tumour core, "
    assert first.startswith(opening + says)
    assert first.endswith("above 0 is better when fine-tuned; 9 patients).")


def test_a_mean_that_contradicts_the_ranks_is_in_the_sentence() -> None:
    first, *_ = answered(changed([0.02] * 15 + [-0.4]))
    assert "better than training from scratch" in first
    assert first.endswith("16 patients; by the mean difference it would be inconclusive).")


def test_the_sentence_says_when_the_rule_was_declared() -> None:
    scores = changed(list(0.08 + STEPS))
    for declared, opening in (
        (Declared("before evaluation"), "By the rule declared before any held-out case was predicted, judged by"),
        (
            Declared("after"),
            "Exploratory only, because the rule was first recorded after results were there: judged by",
        ),
        (
            Declared("after", changed=True),
            "Exploratory only, because the rule was changed after results were there: judged",
        ),
        (UNKNOWN, "Exploratory only, because it is not known when the rule was declared: judged by"),
    ):
        assert answered(scores, declared=declared)[0].startswith(opening)


def test_a_measure_that_is_not_there_is_said_and_not_skipped() -> None:
    scores = changed(list(0.08 + STEPS))
    first, *_ = answered(scores, metric="detection_sensitivity")
    assert first == (
        "By the rule declared before the first training, nothing can be decided, because the share of the lesions "
        "found in the tumour core is not available (no operating point was chosen)."
    )
    second = answered(scores, secondary=[("detection_sensitivity", "TC"), ("hd95", "TC"), ("dice", "WT")])[1]
    assert second == (
        "Of the further measures, tested in the order declared for as long as each was shown, fine-tuning was better "
        "in none; the share of the lesions found in the tumour core is not available (no operating point was chosen), "
        "so that the remaining two were not tested."
    )


def test_further_measures_wait_for_the_first() -> None:
    level = changed(list(STEPS))
    assert answered(level, secondary=[("dice", "ET")])[1] == (
        "The further measures declared (overlap in the enhancing tumour) were not tested, since the first was not "
        "shown to be better."
    )
    assert len(answered(level)) == 3, "none declared: no sentence"


def test_the_interval_has_the_level_of_the_rule_and_not_a_rounded_one() -> None:
    assert ", 97.5% interval " in answered(changed(list(0.08 + STEPS)), alpha=0.0125)[0]


def test_what_is_tested_beside_the_rule_is_not_in_the_answer() -> None:
    """Every measure but the declared one gains: the answer speaks of the declared one alone."""
    scores = example_scores(9, gain=0.05)
    tc = (scores["metric"] == "dice") & (scores["region"] == "TC")
    other = answered(scores.assign(value=scores["value"].mask(tc, 0.5)))
    assert "equivalent" in other[0]
    assert not any("better than" in sentence for sentence in other)


def test_what_pretraining_alone_reaches_is_one_sentence_and_tests_nothing() -> None:
    plain = scores_of_arms(9, gain=0.05)
    scores = with_pretrained(plain)
    found = answered(scores)
    reached = (
        "; pretraining alone, without any training on this cohort, reached 0.30 for the enhancing tumour, 0.30 for "
        "the tumour core and 0.30 for the whole tumour."
    )
    assert found[1].endswith(reached)
    assert [sentence.replace(reached, ".") for sentence in found] == answered(plain)
    assert (
        "the pretraining of Default, Tversky + BCE and SegResNet reaches a mean Dice of ET 0.300 (n = 9)"
        in written(scores)
    )
    alone = scores[scores["strategy"] != "finetune"]
    first, second = answered(alone)
    assert first.startswith("Fine-tuning and training from scratch cannot be compared")
    assert second.endswith("0.30 for the whole tumour (9 cases).")


def test_cases_without_a_region_decide_no_word_of_the_answer() -> None:
    """Notes of a trial: "ET 0.500 against 0.500" from one empty case and one total miss."""
    first, means, *_ = answered(two_cases(invented_ml=0.0), region="ET")
    assert "no result of 1 patient could have been beyond chance" in first
    assert "0.00 against 0.00 for the enhancing tumour" in means
    assert "1 case)" in means
    assert answered(two_cases(invented_ml=0.003)) == answered(two_cases(invented_ml=0.0))
    told = paragraph(written(two_cases(invented_ml=0.003)), "without ET in the reference")
    assert "1 case without ET in the reference is in no mean or test" in told
    assert "0.003 mL fine-tuned and 0 mL from scratch" in told


def test_regions_with_different_numbers_of_cases_have_each_its_own() -> None:
    scores = scores_of_arms(9, gain=0.05)
    lacks = (scores["region"] == "ET") & (scores["case"] == "case03") & scores["metric"].str.contains("volume")
    _, means, *_ = answered(scores.assign(value=scores["value"].mask(lacks, 0.0)))
    assert "for the enhancing tumour (8 cases), " in means
    assert "for the whole tumour (9 cases)." in means


def test_lesions_of_arms_without_both_strategies_are_not_counted() -> None:
    scores = scores_of_arms(9, gain=0.05, volumes=False)
    kept = scores[(scores["arm"] != "segresnet") | (scores["strategy"] != "scratch")]
    found = answered(kept, example_lesions(kept).assign(region="TC"))
    assert "fine-tuned networks found 36 of 36 and those trained from scratch 18 of 36" in found[2]


# --- the conclusion


def test_the_case_that_decides_a_mean_is_named() -> None:
    scores = example_scores(8, gain=0.02)
    assert "Leaving out one case" not in written(scores)
    bad = (scores["case"] == "case05") & (scores["strategy"] == "finetune") & (scores["arm"] == "tversky_bce")
    bad &= (scores["metric"] == "hd95") & (scores["region"] == "WT")
    text = written(scores.assign(value=scores["value"] + 60.0 * bad))
    assert "Leaving out one case reverses the sign of the mean difference in WT HD95 (case case05) and " in text
    assert "Tversky + BCE WT HD95 (case case05)." in text


def test_one_sided_p_and_two_sided_interval_are_told_apart_once() -> None:
    scores = example_scores(9, gain=0.05)
    text = written(scores[scores["metric"].isin(["dice", "sensitivity"])])
    assert text.count("p is one-sided") == 1
    assert "the brackets hold the shift's two-sided 95% interval" in text
    assert "improved" not in text


def test_volume_bias_is_in_the_text() -> None:
    scores = scores_of_arms(6, TWO_ARMS)
    small = (scores["metric"] == "predicted_volume") & (scores["region"] == "WT") & (scores["strategy"] == "finetune")
    text = written(scores.assign(value=scores["value"] - 3.0 * small))
    assert "WT -3.0 mL fine-tuned and +0.0 mL from scratch" in text or "WT -3.0 mL fine-tuned and -0.0 mL" in text
    assert "wholly below 0 for 2" in text
    assert "volume" not in written(example_scores(6))


def test_infinite_distances_are_told_with_whom_they_favour() -> None:
    scores = example_scores(6)
    lost = scores.index[(scores["metric"] == "hd95") & (scores["strategy"] == "finetune")][:2]
    text = written(scores.assign(value=scores["value"].mask(scores.index.isin(lost), np.inf)))
    assert "2 distances fine-tuned and 0 from scratch are infinite" in text
    assert "which favours fine-tuning" in text
    assert "undefined value" not in text


def test_power_is_planned_for_the_margin() -> None:
    text = paragraph(written(example_scores(9, gain=0.05)), "80% power")
    assert text.startswith("Planned for the margin and not for the difference seen here")
    assert "6 cases to show superiority if the true gain is 0.05, 6 cases to show non-inferiority and 6 cases" in text
    few = paragraph(written(example_scores(4)), "80% power")
    assert (
        few.count("a number of cases that cannot be given (4 observed differences with a finite centre: too few") == 3
    )
    assert "power" not in written(example_scores(4).query("strategy == 'scratch'"))


def test_too_few_cases_are_said_to_be_too_few() -> None:
    assert "With 4 pairs no outcome could have reached p < 0.05" in written(example_scores(4, gain=0.05))
    assert "no outcome could have reached" not in written(example_scores(5, gain=0.05))
    scores = example_scores(1)
    assert "1 held-out case scored" in written(scores)
    assert "between arms, no outcome of 3 paired comparisons could have been distinguished from chance" in written(
        scores
    )
    assert answered(scores)[0] == (
        "By the rule declared before the first training, nothing can be decided by the overlap in the tumour core, "
        "because no result of 1 patient could have been beyond chance: it takes 6."
    )


def test_one_strategy_and_one_arm_are_named_as_such() -> None:
    scores = example_scores(6)
    text = written(scores[scores["strategy"] == "finetune"])
    assert "cannot be compared: no arm was scored with both (finetune only)" in text
    assert "There is one arm: arms cannot be compared." in written(scores[scores["arm"] == "default"])
    assert "For Default, fine-tuning was better than training from scratch in 9 of 9" in written(
        example_scores(9, arms=("default",), gain=0.05)
    )


def test_an_arm_that_is_ahead_is_named() -> None:
    scores = example_scores(9)
    ahead = (scores["arm"] == "tversky_bce") & (scores["metric"] == "sensitivity")
    text = written(scores.assign(value=scores["value"] + 0.1 * ahead))
    assert "Tversky + BCE better than Default in" in text


def test_undefined_values_are_counted() -> None:
    scores = example_scores(6)
    scores.loc[scores.index[scores["metric"] == "hd95"][:2], "value"] = np.nan
    assert "2 undefined values left out and named in the tables" in written(scores)
    assert "left out" not in written(example_scores(6))


def test_the_means_stand_in_the_text() -> None:
    scores = example_scores(6)
    dice = scores[(scores["metric"] == "dice") & (scores["region"] == "WT")].groupby("strategy")["value"].mean()
    assert f"WT {dice['finetune']:.3f} against {dice['scratch']:.3f}" in written(scores)


def test_found_lesions_are_counted_by_size() -> None:
    scores = example_scores(6)
    lesions = example_lesions(scores).assign(region="TC")
    text = written(scores, lesions=lesions)
    assert "tiny 12 of 12 fine-tuned and 0 of 12 from scratch" in text
    assert "large 12 of 12 fine-tuned and 12 of 12 from scratch" in text
    found = written(scores, lesions=lesions.assign(detected_iou=True))
    assert "tiny 12 of 12 fine-tuned and 12 of 12 from scratch" in found
    assert "detection by lesion size" in text
    assert "were found" not in written(scores)
    assert "detection by lesion size" not in written(scores)


# --- facts


def test_facts_are_numbers_lists_and_yes_or_no() -> None:
    found = known(example_scores(9, gain=0.05))
    assert (found["alpha"], found["n_cases"], found["arms"]) == (0.05, 9, ["Default", "Tversky + BCE"])
    assert (found["left_out"], found["only"], found["infinite"], found["overturned"]) == ([], [], None, [])
    assert [entry["metric"] for entry in found["means"]] == ["dice", "hd95"]
    assert (found["volumes"], found["lesions"], found["detection"]) == (None, [], False)
    main, single = found["main"], found["single"]
    assert {name: main[name] for name in ("tests", "pairs", "reachable", "correctable", "interval_attainable")} == {
        "tests": 9,
        "pairs": 9,
        "reachable": True,
        "correctable": True,
        "interval_attainable": True,
    }
    assert (single["tests"], single["arms"]) == (24, ["Default", "Tversky + BCE"])
    assert len(main["better"]["before"]) == len(main["better"]["after"]) == 9
    assert main["worse"] == {"before": [], "after": []}
    row = next(row for row in main["better"]["before"] if (row["metric"], row["region"]) == ("dice", "WT"))
    assert (row["p"], row["arm"]) == (1 / 512, "mean over arms")
    assert row["low"] <= row["effect"] <= row["high"]
    assert found["shifts_written"] is False, "nine are named, not written with their numbers"


def test_facts_of_the_means_are_those_of_the_scores() -> None:
    scores = example_scores(6)
    dice = scores[(scores["metric"] == "dice") & (scores["region"] == "WT")].groupby("strategy")["value"].mean()
    row = next(row for row in known(scores)["means"][0]["regions"] if row["region"] == "WT")
    assert row["finetune"] == pytest.approx(dice["finetune"])
    assert row["scratch"] == pytest.approx(dice["scratch"])


def test_facts_of_what_is_missing() -> None:
    scores = example_scores(6)
    one = known(scores[scores["strategy"] == "scratch"])
    assert one["only"] == ["scratch"]
    assert (one["main"], one["single"], one["papers_test"], one["means"]) == (None, None, None, [])
    assert (one["decision"]["primary"]["verdict"], one["decision"]["primary"]["note"]) == (
        "not available",
        NOT_COMPARED,
    )
    assert known(scores[scores["arm"] == "default"])["pairs"] is None
    assert known(scores[scores["arm"] == "default"])["single"] is None, "one arm is the main comparison"
    gone = (scores["arm"] == "tversky_bce") & (scores["strategy"] == "scratch")
    assert known(scores[~gone])["left_out"] == [{"strategy": "scratch", "arms": ["Tversky + BCE"]}]


def test_facts_of_two_pairs_allow_no_small_p() -> None:
    main = known(example_scores(2))["main"]
    assert (main["reachable"], main["correctable"], main["interval_attainable"]) == (False, False, False)
    assert main["better"]["before"] == []


def test_facts_of_power_and_lesions() -> None:
    scores = example_scores(9, gain=0.05)
    found = known(scores, lesions=example_lesions(scores).assign(region="TC"))
    tiny = next(row for row in found["lesions"] if row["size"] == "tiny")
    assert tiny["found"][0] == {"strategy": "finetune", "detected": 18, "n": 18}
    assert found["detection"]
    assert [(row["question"], row["cases_needed"]) for row in found["power"]] == [
        ("superiority", 6), ("non-inferiority", 6), ("equivalence", 6),
    ]  # fmt: skip


def test_facts_of_arms_name_winner_and_loser() -> None:
    scores = example_scores(9)
    ahead = (scores["arm"] == "tversky_bce") & (scores["metric"] == "dice")
    dice = scores[scores["metric"] == "dice"]
    found = between_arms(arms_pairwise(dice.assign(value=dice["value"] + 0.1 * ahead[dice.index]), QUICK), 0.05)
    assert found is not None
    assert {(row["winner"], row["loser"]) for row in found["after"]} == {("Tversky + BCE", "Default")}
    assert (found["tests"], found["cases"]) == (3, 9)


def test_a_fact_that_is_missing_stops_the_text() -> None:
    found = known(example_scores(2))
    del found["volumes"]
    with pytest.raises(UndefinedError, match="volumes"):
        conclusion(found)


def test_no_sentence_has_stray_white_space() -> None:
    for n_cases, gain in ((1, 0.02), (4, 0.05), (9, 0.05), (9, 0.0)):
        text = written(scores_of_arms(n_cases, gain=gain))
        assert not re.search(r" [.,;:)]|\( |  |,,|\.\.|;\.| \n", text), text


def test_lists_and_counts() -> None:
    assert listed(["a"]) == "a"
    assert listed(iter(["a", "b", "c"])) == "a, b and c"
    assert (counted(1, "case"), counted(0, "case")) == ("1 case", "0 cases")


def test_many_results_between_arms_are_counted_by_pair_and_not_listed():
    """Thirteen survive: Default won nine and lost three against SegResNet, SegResNet one against Tversky + BCE."""
    won = [("default", "segresnet", 1)] * 9 + [("default", "segresnet", -1)] * 3 + [("segresnet", "tversky_bce", 1)]
    rows = [
        {
            "kind": "paired", "strategies": BOTH_STRATEGIES, "first": first, "second": second, "metric": "dice",
            "region": "TC", "n": 20, "p_value": 0.001, "p_holm": 0.02, "smallest_p": 1e-6, "effect": 0.1 * sign,
        }
        for first, second, sign in won
    ]  # fmt: skip
    found = between_arms(pd.DataFrame(rows), 0.05)
    words = paragraph(conclusion({**known(example_scores(2)), "pairs": found}), "between arms")
    assert "13 of 13 paired comparisons have p below 0.05 after Holm's correction" in words
    assert "Default better than SegResNet in 9 and worse in 3 and SegResNet better than Tversky + BCE in 1." in words
    assert between_arms(pd.DataFrame(rows[:12]), 0.05)["of_pairs"] == [], "twelve are listed one by one"
