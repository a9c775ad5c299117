"""Marks, ranking and words, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from score_examples import lesion, scores, two_cases

from brainmets.review.ranking import explain, lesion_load, marks, missed_lesions, rank
from brainmets.statistics.tables import of_trained, read_scores
from brainmets.vocabulary import LESION_COLUMNS

NO_LESIONS = pd.DataFrame(columns=LESION_COLUMNS)


@pytest.mark.parametrize(
    ("metric", "worst"), [("dice", "b"), ("sensitivity", "b"), ("specificity", "b"), ("hd95", "c")]
)
def test_the_worst_end_depends_on_the_metric(metric, worst):
    given = marks(scores([0.5, 0.1, 0.9], metric))
    assert given["case"].tolist() == [worst]
    assert given.loc[0, ["n", "tied", "undefined"]].tolist() == [3, 1, 0]


def test_other_metrics_give_no_marks():
    assert marks(scores([0.5, 0.1], "precision")).empty


def test_a_resection_cavity_gives_no_mark_and_no_lowest_dice():
    """Case b alone has a cavity, which no model can output: it would be marked by every model."""
    cavity = scores([0.0, 0.0], region="RC").assign(case=["b", "c"], value=[0.0, 1.0])
    together = pd.concat([scores([0.1, 0.2, 0.3]), cavity])
    assert marks(together)["case"].tolist() == ["a"]
    ranking = rank(together, NO_LESIONS).set_index("case")
    assert ranking.loc["b", ["marks", "lowest_dice", "lowest_dice_in"]].tolist() == [0, 0.2, "default finetune, ET"]


def test_a_false_voxel_in_a_case_without_the_region_gives_no_mark_of_overlap():
    table = two_cases(invented_ml=0.003)
    third = table[table["case"] == "missed"].assign(case="found")
    better = {"dice": 0.8, "hd95": 1.0, "sensitivity": 0.8, "predicted_volume": 1.0}
    third["value"] = third["metric"].map(better).fillna(third["value"])
    given = marks(pd.concat([table, third], ignore_index=True))
    overlap = given[given["metric"] != "specificity"]
    assert set(overlap["case"]) == {"missed"}
    assert overlap["n"].tolist() == [2] * 6
    assert given.loc[given["metric"] == "specificity", "case"].tolist() == ["empty"], "the invented volume is judged"
    ranking = rank(pd.concat([table, third], ignore_index=True), NO_LESIONS).set_index("case")
    assert np.isnan(ranking.loc["empty", "lowest_dice"])


def test_every_tied_case_is_marked_and_counted():
    given = marks(scores([0.1, 0.1, 0.9]))
    assert given["case"].tolist() == ["a", "b"]
    assert given["tied"].tolist() == [2, 2]
    ranking = rank(scores([0.1, 0.1, 0.9]), NO_LESIONS)
    assert ranking["rank"].tolist() == [1, 1, 3]
    assert ranking["tied_marks"].tolist() == [1, 1, 0]


def test_where_all_tie_nobody_is_worst():
    assert marks(scores([0.0, 0.0, 0.0])).empty
    assert marks(scores([0.3])).empty


def test_undefined_is_left_out_and_infinite_is_worst():
    given = marks(scores([3.0, np.nan, np.inf, 5.0], "hd95"))
    assert given["case"].tolist() == ["c"]
    assert given.loc[0, ["n", "undefined"]].tolist() == [3, 1]


def test_marks_add_up_over_models_metrics_and_regions():
    table = pd.concat(
        [
            scores([0.1, 0.2, 0.3]),
            scores([0.1, 0.2, 0.3], region="WT"),
            scores([9.0, 2.0, 3.0], "hd95"),
            scores([0.9, 0.2, 0.3], strategy="scratch"),
        ]
    )
    ranking = rank(table, NO_LESIONS).set_index("case")
    assert ranking["marks"].to_dict() == {"a": 3, "b": 1, "c": 0}
    assert ranking.loc["a", ["dice", "hd95", "marks_finetune", "marks_scratch"]].tolist() == [2, 1, 3, 0]
    assert ranking.loc["b", "lowest_dice"] == 0.2
    assert ranking.loc["b", "lowest_dice_in"] == "default finetune, ET"


def test_a_model_that_is_pretrained_only_gives_no_mark_and_misses_no_lesion():
    """It is worst in b and misses both lesions; the case that is hard for those trained on the target is a."""
    table = pd.concat([scores([0.1, 0.8, 0.9]), scores([0.7, 0.1, 0.9], strategy="pretrained")])
    lesions = pd.DataFrame([lesion("a", 1, 30.0), lesion("a", 2, 50.0, detected=False)])
    both = pd.concat([lesions, lesions.assign(strategy="pretrained", detected=False)])
    ranking = rank(of_trained(table), of_trained(both)).set_index("case")
    assert ranking["marks"].to_dict() == {"a": 1, "b": 0, "c": 0}
    assert ranking.loc["a", "missed_by_any"] == 1
    missed = missed_lesions(of_trained(both))
    assert (missed["lesion"].tolist(), missed["models"].tolist()) == ([2], [1])
    alone = table[table["strategy"] == "pretrained"]
    assert rank(of_trained(alone), NO_LESIONS).loc[0, "case"] == "b", "where there is no other model, it ranks"


def test_ranking_does_not_depend_on_row_order():
    table = pd.concat([scores([0.1, 0.2, 0.3]), scores([5.0, 2.0, 3.0], "hd95")], ignore_index=True)
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(rank(table, NO_LESIONS), rank(shuffled, NO_LESIONS))


def test_lesion_load_counts_each_reference_lesion_once():
    rows = [lesion("a", 1, 30.0, arm=arm, detected=arm == "default") for arm in ("default", "segresnet")]
    rows += [lesion("a", 2, 50.0, arm=arm, detected=False) for arm in ("default", "segresnet")]
    rows += [lesion("a", 1, 999.0, kind="predicted"), lesion("a", 1, 999.0, region="WT")]
    load = lesion_load(pd.DataFrame(rows)).iloc[0]
    assert load.to_dict() == {
        "case": "a", "lesions": 2, "smallest_mm3": 30.0, "median_mm3": 40.0, "total_mm3": 80.0, "missed_by_all": 1,
        "missed_by_any": 2,
    }  # fmt: skip


def test_models_with_different_reference_lesions_are_refused():
    rows = [lesion("a", 1, 30.0), lesion("a", 1, 30.0, arm="segresnet"), lesion("a", 2, 50.0)]
    with pytest.raises(ValueError, match="case a: the models' lesion tables list different TC reference lesions"):
        lesion_load(pd.DataFrame(rows))


def test_words_follow_the_numbers():
    lesions = pd.DataFrame([lesion("a", 1, 30.0, detected=False), lesion("b", 1, 60.0), lesion("b", 2, 60.0)])
    ranking = rank(scores([0.125, 0.9]), lesions)
    assert explain(ranking, "a") == (
        "Marked once of 1 (Dice 1); lowest Dice 0.12 (Default fine-tuned, ET); 1 tumour-core lesion of 30 mm³ at "
        "least, 0.03 mL together; 1 missed by at least one model, 1 by every model; has the smallest lesion, the "
        "smallest volume, the most missed lesions of all cases."
    )
    assert "has the most lesions, the largest volume of all cases" in explain(ranking, "b")
    with pytest.raises(KeyError, match="'z' is not in the ranking"):
        explain(ranking, "z")


def test_the_whole_tumours_volume_is_compared():
    table = pd.concat([scores([0.1, 0.9, 0.8]), scores([300.0, 20.0, 30.0], "reference_volume", region="WT")])
    ranking = rank(table, NO_LESIONS)
    assert ranking.set_index("case").loc["a", "whole_tumour_ml"] == 300.0
    assert explain(ranking, "a").endswith("; whole tumour 300.0 mL, the largest of all cases.")
    assert explain(ranking, "b").endswith("; whole tumour 20.0 mL, the smallest of all cases.")
    assert explain(ranking, "c").endswith("; whole tumour 30.0 mL.")


def test_words_without_lesion_tables_speak_of_scores_alone():
    assert explain(rank(scores([0.1, 0.9]), NO_LESIONS), "a") == (
        "Marked once of 1 (Dice 1); lowest Dice 0.10 (Default fine-tuned, ET)."
    )


@pytest.mark.real
def test_released_scores_confirm_the_hardest_case_but_not_every_count(real_data):
    """The paper prints 28, 11 and 11 marks for cases 733, 731 and 739; its released files give 24, 11 and 6."""
    ranking = rank(read_scores(real_data / "reference" / "scores"), NO_LESIONS)
    found = {case.split("-")[2]: count for case, count in zip(ranking["case"], ranking["marks"], strict=True)}
    assert ranking["marks"].sum() == 6 * 4 * 3
    assert (found["B000733"], found["B000731"], found["D000739"]) == (24, 11, 6)
    assert ranking.loc[0, "case"].startswith("SBT-MET-B000733")
    assert found["A000726"] == 10
