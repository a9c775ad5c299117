"""The declared rule, on differences whose verdict can be worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from decided import BEFORE, rule
from score_examples import example_scores

from brainmets.files import write_json
from brainmets.params import Decision, Endpoint, ParameterError
from brainmets.params.study import Study
from brainmets.scoring.case import UNITS
from brainmets.statistics import figures
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.decision import (
    DECISION_COLUMNS,
    NOT_COMPARED,
    TESTED,
    decide,
    differences,
    fewest,
    record,
    shifted_p,
    verdict_of,
)
from brainmets.statistics.tables import COLUMNS, in_order
from brainmets.vocabulary import SCORED_METRICS, better

QUICK = Settings(0.05, 100, 1)
PARAMS = Path(__file__).resolve().parents[2] / "params"


def of(gains, metric="dice", region="TC", arm="default", unit="1", base=0.5, name="case") -> pd.DataFrame:
    """``metric`` of ``base`` from scratch, and ``gains`` more when fine-tuned, case by case."""
    rows = []
    for number, gain in enumerate(gains):
        for strategy, value in (("finetune", base + gain), ("scratch", base)):
            rows.append((arm, strategy, f"{name}{number:02d}", region, metric, value, unit))
    return in_order(pd.DataFrame(rows, columns=COLUMNS))


def primary(gains, settings: Settings = QUICK, **of_rule) -> pd.Series:
    return decide(of(gains), rule(**of_rule), settings).iloc[0]


def p_values(*given: float) -> dict[str, float]:
    return dict(zip(TESTED, given, strict=True))


# --- the rule


@pytest.mark.parametrize(
    ("above", "below", "verdict"),
    [
        ((1, 1, 1), (0, 0, 0), ("superior", "beyond the margin")),
        ((1, 1, 0), (0, 0, 0), ("superior", "")),
        ((1, 1, 0), (1, 0, 0), ("superior", "within the margin")),
        ((1, 0, 0), (1, 0, 0), ("equivalent", "within the margin")),
        ((1, 0, 0), (0, 0, 0), ("non-inferior", "")),
        ((0, 0, 0), (0, 0, 0), ("inconclusive", "")),
        ((0, 0, 0), (1, 0, 0), ("inconclusive", "no gain of the margin")),
        ((1, 0, 0), (1, 1, 0), ("inferior", "within the margin")),
        ((0, 0, 0), (1, 1, 0), ("inferior", "")),
        ((0, 0, 0), (1, 1, 1), ("inferior", "beyond the margin")),
        (
            (0, 1, 1),
            (0, 0, 0),
            ("inconclusive", ""),
        ),  # a later question is not asked before the earlier one is answered
        ((1, 0, 1), (0, 0, 0), ("non-inferior", "")),
    ],
)
def test_the_verdict_follows_from_the_six_answers(above, below, verdict) -> None:
    assert verdict_of(p_values(*(0.025 if yes else 0.026 for yes in (*above, *below))), 0.025) == verdict


def test_six_equal_gains_are_superior_and_five_too_few() -> None:
    """One of 2^6 signs is 0.0156, one of 2^5 is 0.031."""
    row = primary([0.02] * 6)
    assert (row["verdict"], row["size"], row["p_above_zero"]) == ("superior", "within the margin", 1 / 64)
    row = primary([0.02] * 5)
    assert (row["verdict"], row["p_above_zero"]) == ("too few patients", 1 / 32)
    assert row["note"] == "no outcome of 5 patient(s) has p of at most 0.025: it takes 6"
    assert primary([0.02] * 5, alpha=0.05)["verdict"] == "superior"
    assert [fewest(alpha) for alpha in (0.25, 0.05, 0.03125, 0.025, 0.01)] == [2, 5, 5, 6, 7]


def test_a_gain_of_exactly_the_margin_is_not_beyond_it() -> None:
    """The shifted differences are zeros, which carry no sign, in spite of 0.55 - 0.5 being no exact 0.05."""
    row = primary([0.05] * 8)
    assert (row["verdict"], row["size"], row["p_above_gain"], row["p_below_gain"]) == ("superior", "", 1, 1)
    assert primary([0.051] * 8)["size"] == "beyond the margin"
    assert primary([-0.05] * 8)["p_above_loss"] == 1


def test_no_difference_at_all_is_equivalence() -> None:
    row = primary([0.0] * 6)
    assert (row["verdict"], row["p_above_loss"], row["p_below_gain"], row["p_above_zero"]) == (
        "equivalent", 1 / 64, 1 / 64, 1,
    )  # fmt: skip
    assert (row["effect"], row["effect_low"], row["effect_high"]) == (0, 0, 0)


def test_p_of_shifted_differences_by_hand() -> None:
    """Of -1, 2, 3 less 1: -2, 1, 2. Ranks 2.5, 1, 2.5; positive 3.5 or more in 4 of 8 signs: 3.5, 3.5, 5, 6."""
    assert shifted_p(np.array([-1.0, 2.0, 3.0]), "1", 1.0, "greater") == 4 / 8


def test_lower_is_better_is_turned() -> None:
    scores = of([-2.0] * 6, metric="hd95", unit="mm", base=9.0)
    row = decide(scores, rule(metric="hd95", margin=1.0), QUICK).iloc[0]
    assert (row["verdict"], row["size"], row["effect"], row["unit"]) == ("superior", "beyond the margin", 2.0, "mm")
    single_precision = of([-1.0000014] * 6, metric="hd95", unit="mm", base=9.0)
    assert decide(single_precision, rule(metric="hd95", margin=1.0), QUICK).iloc[0]["size"] == "", "noise of headers"


def test_an_infinite_distance_is_the_worst_and_no_mean_holds_it() -> None:
    scores = of([-2.0] * 7, metric="hd95", unit="mm", base=9.0)
    lost = (scores["case"] == "case03") & (scores["strategy"] == "finetune")
    with_lost = scores.assign(value=scores["value"].mask(lost, np.inf))
    row = decide(with_lost, rule(metric="hd95", margin=1.0), QUICK).iloc[0]
    assert row["p_above_zero"] == 23 / 128, "ranks 3.5 six times and 7: 22 sets of signs with the 7, and 1 without it"
    assert "1 infinite difference(s), ranked as the largest" in row["note"]
    assert np.isnan(row["swap_p_above_zero"])
    assert np.isnan(row["mean"])
    json.dumps(record(decide(with_lost, rule(), QUICK), rule(), BEFORE.record()), allow_nan=False)


def test_arms_are_averaged_and_scans_of_a_patient_count_once() -> None:
    two = pd.concat([of([0.04] * 6), of([0.0] * 6, arm="segresnet")])
    found = differences(two, Endpoint(metric="dice", region="TC"), QUICK)
    np.testing.assert_allclose(found.values, 0.02)
    patients = {f"case{number:02d}": f"p{number // 2}" for number in range(6)}
    of_patients = primary([0.0, 0.04] * 3, Settings(0.05, 100, 1, patients))
    assert (of_patients["n"], of_patients["verdict"]) == (3, "too few patients")
    assert of_patients["effect"] == 0.02
    assert "6 cases of 3 patients, each counted once" in of_patients["note"]


def test_the_order_of_rows_changes_nothing() -> None:
    scores = example_scores(8)
    one = rule(secondary=[("hd95", "TC")])
    shuffled = scores.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(decide(scores, one, QUICK), decide(shuffled, one, QUICK))


def test_the_mean_stands_beside_and_may_part_from_the_ranks() -> None:
    """One huge loss among small gains: ranks and mean part."""
    row = primary([0.02] * 15 + [-0.90])
    assert (row["verdict"], row["size"], row["verdict_by_mean"]) == ("superior", "within the margin", "inconclusive")
    assert row["mean"] == pytest.approx(-0.0375)
    assert row["p_above_zero"] == pytest.approx(122 / 2**16)
    assert row["swap_p_above_zero"] > 0.5


# --- what is not there


def test_an_undefined_value_is_named_and_no_pair_is_said() -> None:
    scores = of([0.02] * 7)
    gone = (scores["case"] == "case03") & (scores["strategy"] == "scratch")
    row = decide(scores.assign(value=scores["value"].mask(gone, np.nan)), rule(), QUICK).iloc[0]
    assert (row["n"], row["note"]) == (6, "undefined value in case03")
    nothing = decide(scores.assign(value=np.nan), rule(), QUICK).iloc[0]
    assert nothing["verdict"] == "not available"
    assert "no patient has dice of both strategies; undefined value in case00, case01" in nothing["note"]


def test_one_strategy_and_a_metric_that_was_not_scored_are_said() -> None:
    scores = of([0.02] * 7)
    row = decide(scores[scores["strategy"] == "scratch"], rule(), QUICK).iloc[0]
    assert (row["verdict"], row["note"], row["n"]) == ("not available", NOT_COMPARED, 0)
    row = decide(scores, rule(metric="hd95"), QUICK).iloc[0]
    assert row["note"] == "no value of hd95 in TC is in the tables"


def test_detection_is_taken_from_its_own_table_or_said_to_be_missing() -> None:
    scores, found = of([0.02] * 7), of([0.3] * 7, metric="detection_sensitivity")
    one = rule(metric="detection_sensitivity", margin=0.1)
    assert decide(scores, one, QUICK, found).iloc[0][["verdict", "size"]].to_list() == [
        "superior",
        "beyond the margin",
    ]
    missing = decide(scores, one, QUICK, None, "no operating point was chosen").iloc[0]
    assert (missing["verdict"], missing["note"]) == ("not available", "no operating point was chosen")
    elsewhere = decide(scores, rule(metric="detection_sensitivity", region="ET"), QUICK, found).iloc[0]
    assert elsewhere["note"] == "no value of detection_sensitivity in ET is in the tables"


# --- secondary endpoints


def four(first, second, third) -> pd.DataFrame:
    return pd.concat([of(first), of(second, region="ET"), of(third, region="WT")])


SECONDARY = [("dice", "ET"), ("dice", "WT")]


def test_secondary_endpoints_are_tested_in_order_until_one_is_not_shown() -> None:
    gain, level = [0.02] * 6, [0.01, -0.01] * 3
    one = rule(secondary=SECONDARY)
    assert list(decide(four(gain, gain, gain), one, QUICK)["verdict"]) == ["superior", "shown", "shown"]
    table = decide(four(gain, level, gain), one, QUICK)
    assert list(table["verdict"]) == ["superior", "not shown", "not tested"]
    assert table["note"].iloc[2] == "not tested, since the verdict on dice of ET is not shown"
    assert np.isnan(table["p_above_zero"].iloc[2])
    assert table["effect"].iloc[2] == pytest.approx(0.02), "it is described"
    table = decide(four([0.0] * 6, gain, gain), one, QUICK)
    assert list(table["verdict"]) == ["equivalent", "not tested", "not tested"]
    assert list(decide(four(gain, level, gain), rule(secondary=SECONDARY[::-1]), QUICK)["verdict"]) == [
        "superior", "shown", "not shown",
    ]  # fmt: skip


def test_the_sequence_stops_at_an_endpoint_that_is_not_available() -> None:
    gain = [0.02] * 6
    one = rule(secondary=[("detection_sensitivity", "TC"), *SECONDARY])
    table = decide(four(gain, gain, gain), one, QUICK, None, "no operating point was chosen")
    assert list(table["verdict"]) == ["superior", "not available", "not tested", "not tested"]
    assert table["note"].iloc[1] == "no operating point was chosen"


def test_an_endpoint_added_at_the_end_changes_no_row_before_it() -> None:
    scores = example_scores(8)
    short, longer = (decide(scores, rule(secondary=[("hd95", "TC"), ("dice", "WT")][:n]), QUICK) for n in (1, 2))
    pd.testing.assert_frame_equal(short, longer.iloc[:2])


# --- files


def test_table_and_record(tmp_path) -> None:
    one = rule(secondary=[("hd95", "TC"), ("detection_sensitivity", "TC")])
    table = decide(example_scores(8), one, QUICK)
    assert list(table.columns) == DECISION_COLUMNS
    written = json.loads(write_json(tmp_path / "decision.json", record(table, one, BEFORE.record())).read_text())
    assert Decision(**written["rule"]) == one
    assert written["declared"]["confirms"] is True
    assert (written["verdict"], written["size"]) == (table["verdict"][0], table["size"][0])
    assert written["endpoints"][2]["effect"] is None
    assert written["endpoints"][2]["note"] == "detection_sensitivity was not computed"


def test_figure_shows_each_endpoint_with_its_interval_and_the_margin() -> None:
    one = rule(secondary=[("hd95", "TC"), ("detection_sensitivity", "TC")])
    table = decide(example_scores(8, gain=0.05), one, QUICK)
    drawn = figures.decision(table)
    first, second, third = drawn.axes
    assert {line.get_label() for line in first.lines} >= {"no difference", "margin"}
    margins = [line.get_xdata()[0] for line in first.lines if line.get_label() == "margin"]
    assert margins == [-0.05, 0.05]
    assert not [line for line in second.lines if line.get_label() == "margin"], "the margin is the primary endpoint's"
    assert first.get_title(loc="left").startswith("Dice, TC (primary): superior")
    assert "not available" in third.get_title(loc="left")
    interval = first.collections[0].get_segments()[0][:, 0]
    np.testing.assert_allclose(interval, table.loc[0, ["effect_low", "effect_high"]].to_numpy(float))


# --- what the YAML may declare


def declared_in_yaml(**changes: object) -> dict:
    content = yaml.safe_load((PARAMS / "demo.yaml").read_text(encoding="utf-8"))
    content["statistics"]["decision"] |= changes
    return content


@pytest.mark.parametrize("profile", sorted(path.stem for path in PARAMS.glob("*.yaml")))
def test_every_profile_declares_a_rule(profile: str) -> None:
    content = yaml.safe_load((PARAMS / f"{profile}.yaml").read_text(encoding="utf-8"))
    Study(content, "yours.yaml")
    del content["statistics"]["decision"]
    with pytest.raises(ParameterError, match="section statistics: decision: missing"):
        Study(content, "yours.yaml")


@pytest.mark.parametrize("name", ["endpoint", "margin", "alpha", "secondary"])
def test_nothing_of_a_rule_has_a_default(name: str) -> None:
    content = declared_in_yaml()
    del content["statistics"]["decision"][name]
    with pytest.raises(ParameterError, match=rf"decision\.{name}: missing"):
        Study(content, "yours.yaml")


TC_DICE = {"metric": "dice", "region": "TC"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"endpoint": {"metric": "dise", "region": "TC"}},
            "endpoint.metric: 'dise' is no metric; did you mean 'dice'?",
        ),
        ({"endpoint": {"metric": "dice", "region": "TCC"}}, "'TCC' is no region of every network; did you mean 'TC'?"),
        ({"endpoint": {"metric": "dice", "region": "RC"}}, "'RC' is no region of every network; known are ET, TC, WT"),
        ({"endpoint": {"metric": "predicted_volume", "region": "TC"}}, "'predicted_volume' has no direction"),
        ({"endpoint": {"metric": "lesion_tp", "region": "TC"}}, "'lesion_tp' has no direction"),
        ({"secondary": [{"metric": "hd59", "region": "TC"}]}, "secondary.0.metric: 'hd59' is no metric; did you mean"),
        ({"secondary": [TC_DICE]}, "secondary: dice of TC stands twice"),
        ({"secondary": [{"metric": "hd95", "region": "TC"}] * 2}, "secondary: hd95 of TC stands twice"),
        ({"secondary": None}, "secondary: must be a list"),
        ({"margin": 0}, "margin: 0 must be a number from 1e-06"),
        ({"margin": -0.05}, "margin: -0.05 must be a number from 1e-06"),
        ({"margin": "0.05"}, "margin: '0.05' is text; write the number without quotes"),
        ({"margin": float("nan")}, "margin: nan must be a number"),
        ({"margin": 1}, "margin: 1.0 must be below 1: dice lies between 0 and 1"),
        ({"alpha": 0.5}, "alpha: 0.5 must be a number from 0.001 to 0.25"),
        ({"margn": 1}, "decision.margn: unknown parameter; did you mean 'margin'?"),
    ],
)
def test_a_rule_that_cannot_decide_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(ParameterError) as refused:
        Study(declared_in_yaml(**changes), "yours.yaml")
    assert says in str(refused.value)


def test_margins_of_distances_may_exceed_1_and_detection_is_a_metric() -> None:
    Study(declared_in_yaml(endpoint={"metric": "hd95", "region": "WT"}, margin=2), "yours.yaml")
    Study(declared_in_yaml(endpoint={"metric": "detection_sensitivity", "region": "TC"}, secondary=[]), "yours.yaml")


def test_the_metrics_that_may_be_declared_are_those_that_are_scored() -> None:
    assert set(SCORED_METRICS) == set(UNITS)
    shares = [metric for metric in SCORED_METRICS if better(metric) == "greater"]
    assert {UNITS[metric] for metric in shares} == {"1"}, "what the margin's upper limit takes for granted"


def test_a_verdict_over_arms_beside_the_papers_says_over_which() -> None:
    """The mean is over all arms of the study, and says so where one is not the paper's."""
    paper = pd.concat([of([0.04] * 6), of([0.0] * 6, arm="segresnet")])
    more = pd.concat([paper, of([0.08] * 6, arm="lesion_dice")])
    few, many = (differences(one, Endpoint(metric="dice", region="TC"), QUICK) for one in (paper, more))
    assert few.values.tolist() == pytest.approx([0.02] * 6)
    assert not any("the mean is over" in remark for remark in few.remarks)
    assert many.values.tolist() == pytest.approx([0.04] * 6)
    assert many.remarks[0] == (
        "the mean is over Default, SegResNet, Lesion Dice, of which the paper's are Default, SegResNet"
    )
