"""The best model by cross-validated scores, on tables whose means can be worked out by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from brainmets.files import write_json
from brainmets.statistics.choice import choose_model, not_chosen, read_best_models, read_cross_validated
from brainmets.statistics.tables import COLUMNS
from brainmets.vocabulary import REGIONS, Model

DEFAULT, SEGRESNET = ("default", "finetune"), ("segresnet", "finetune")


def validated(
    dice: Mapping[Model, Sequence[float]],
    volumes: Sequence[float] = (1, 1, 1),
    regions: Sequence[str] = tuple(REGIONS),
) -> pd.DataFrame:
    """Each model's Dice of cases a, b, c, ..., the same in all regions, with the reference's volume of ``regions``."""
    rows = []
    for (arm, strategy), of_cases in dice.items():
        for case, value, volume in zip("abcdef", of_cases, volumes, strict=False):
            for region in REGIONS:
                key = (arm, strategy, case, region)
                rows.append((*key, "dice", value, "1"))
                rows.append((*key, "reference_volume", volume if region in regions else 0.0, "mL"))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_highest_mean_dice_is_the_best() -> None:
    choice = choose_model(validated({DEFAULT: [0.5, 0.6, 0.7], SEGRESNET: [0.9, 0.8, 0.7]}))
    assert choice.table["place"].tolist() == [1, 2]
    assert choice.table["arm"].tolist() == ["segresnet", "default"]
    assert choice.table["mean_dice"].tolist() == pytest.approx([0.8, 0.6])
    assert choice.table["n_ET"].tolist() == [3, 3]
    assert choice.sentence == (
        "By cross-validation on 3 training cases of the target, SegResNet fine-tuned (mean Dice 0.800) is the best "
        "model, before Default fine-tuned (mean Dice 0.600); the held-out cases had no part in this choice."
    )


def test_both_masks_empty_and_a_single_false_voxel_do_not_decide() -> None:
    """Over all cases 0.7 against 0.6; over the two cases with a tumour 0.55 against 0.9."""
    scores = validated({DEFAULT: [0.5, 0.6, 1.0], SEGRESNET: [0.9, 0.9, 0.0]}, volumes=[1, 1, 0])
    choice = choose_model(scores)
    assert (choice.table.loc[0, "arm"], choice.table.loc[0, "n_WT"]) == ("segresnet", 2)
    assert choice.table["mean_dice"].tolist() == pytest.approx([0.9, 0.55])


def test_every_region_counts_the_same_however_many_cases_hold_it() -> None:
    scores = validated({DEFAULT: [0.4, 0.8, 0.8]})
    scores.loc[
        (scores["region"] == "ET") & (scores["metric"] == "reference_volume") & (scores["case"] != "a"), "value"
    ] = 0
    (row,) = choose_model(scores).table.to_dict("records")
    assert (row["n_ET"], row["n_TC"]) == (1, 3)
    assert row["mean_dice"] == pytest.approx((0.4 + 2 / 3 + 2 / 3) / 3)


def test_a_region_that_no_reference_holds_is_empty_and_enters_no_mean() -> None:
    (row,) = choose_model(validated({DEFAULT: [0.4, 0.8, 0.6]}, regions=["TC", "WT"])).table.to_dict("records")
    assert row["n_ET"] == 0
    assert pd.isna(row["dice_ET"])
    assert row["mean_dice"] == pytest.approx(0.6)


def test_of_equals_the_first_in_the_studys_order_is_taken() -> None:
    scores = validated({("segresnet", "finetune"): [0.1, 0.2, 0.6], ("default", "scratch"): [0.6, 0.2, 0.1]})
    assert read(scores) == [("default", "scratch"), ("segresnet", "finetune")]
    both = validated({("default", "scratch"): [0.5] * 3, ("default", "finetune"): [0.5] * 3})
    assert read(both) == [("default", "finetune"), ("default", "scratch")]


def read(scores: pd.DataFrame) -> list[Model]:
    return [(row["arm"], row["strategy"]) for row in choose_model(scores).record()["models"]]


def test_a_model_that_is_pretrained_only_is_listed_and_not_chosen() -> None:
    """Its number is of all folds together, the others' of one."""
    scores = validated({("default", "pretrained"): [0.9, 0.9, 0.9], DEFAULT: [0.5, 0.5, 0.5]})
    table = choose_model(scores).table
    assert table["strategy"].tolist() == ["finetune", "pretrained"]
    assert table["mean_dice"].tolist() == pytest.approx([0.5, 0.9])
    assert table["place"].isna().tolist() == [False, True]
    assert read(scores) == [DEFAULT]


def test_models_are_compared_on_the_cases_that_all_of_them_have() -> None:
    """Fold 1 of the default arm was not evaluated: its good case c alone would make it the best."""
    choice = choose_model(validated({DEFAULT: [0.9, 0.1], SEGRESNET: [0.6, 0.6, 0.0]}))
    assert choice.cases == ("a", "b")
    assert choice.table["arm"].tolist() == ["segresnet", "default"]
    assert choice.table["n_TC"].tolist() == [2, 2]


def test_rows_in_another_order_choose_the_same() -> None:
    scores = validated({DEFAULT: [0.5, 0.6, 0.7], SEGRESNET: [0.9, 0.8, 0.7], ("default", "scratch"): [0.7, 0.6, 0.5]})
    pd.testing.assert_frame_equal(
        choose_model(scores).table, choose_model(scores.sample(frac=1, random_state=1)).table
    )


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (validated({DEFAULT: [0.5]}, volumes=[0]), "no training case that all models have in common holds a tumour"),
        (validated({("default", "pretrained"): [0.5]}), "no model that was trained on the target is cross-validated"),
    ],
)
def test_where_nothing_can_be_chosen_that_is_said(scores: pd.DataFrame, reason: str) -> None:
    choice = choose_model(scores)
    assert choice.table.empty
    assert choice.sentence.startswith(f"No model was chosen as the best: {reason}")
    assert choice.record()["models"] == []


def test_the_record_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "statistics" / "best_model.json"
    with pytest.raises(FileNotFoundError, match=r"best_model\.json is not in statistics: run notebook 07"):
        read_best_models(path)
    write_json(path, choose_model(validated({DEFAULT: [0.5], SEGRESNET: [0.9]})).record())
    assert read_best_models(path) == [SEGRESNET, DEFAULT]
    assert json.loads(path.read_text())["cases"] == ["a"]
    write_json(path, not_chosen("the tables are of other people").record())
    assert read_best_models(path) == []


def test_a_study_that_is_not_cross_validated_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run notebook 06 again"):
        read_cross_validated(tmp_path / "cross_validation")
