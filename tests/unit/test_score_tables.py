"""Reading score tables: both layouts, any order of rows, and every way in which a table can be wrong."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from score_examples import example_lesions, example_scores, write_study

from brainmets.statistics.tables import (
    WIDE_COLUMNS,
    ScoreTableError,
    arm_name,
    find_score_files,
    models,
    read_lesions,
    read_scores,
    undefined,
    values,
)


def wide(folder: Path, name: str, cases: dict[str, float]) -> Path:
    """A wide table in which every column of a case holds the case's number."""
    table = pd.DataFrame([{"sample": f"{case}.nii.gz", **dict.fromkeys(WIDE_COLUMNS, x)} for case, x in cases.items()])
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / name, index=False)
    return folder / name


def test_long_tables_are_found_below_and_read_whole(tmp_path: Path) -> None:
    scores = example_scores(3)
    found = read_scores(write_study(tmp_path / "evaluation", scores))
    pd.testing.assert_frame_equal(found, scores)
    assert models(found)[0] == ("default", "finetune")


def test_wide_columns_become_regions_metrics_and_units(tmp_path: Path) -> None:
    file = wide(tmp_path, "scores_tverskybce_finetune.csv", {"a": 0.5})
    table = pd.read_csv(file)
    table["Hausdorff_tc"], table["Predicted_volume_wt"] = 3.5, 12.0
    table.to_csv(file, index=False)
    scores = read_scores(tmp_path)
    assert set(scores["case"]) == {"a"}
    assert set(scores["arm"]) == {"tversky_bce"}
    assert len(scores) == len(WIDE_COLUMNS)
    row = scores[(scores["metric"] == "hd95") & (scores["region"] == "TC")].iloc[0]
    assert (row["value"], row["unit"]) == (3.5, "mm")
    row = scores[(scores["metric"] == "predicted_volume") & (scores["region"] == "WT")].iloc[0]
    assert (row["value"], row["unit"]) == (12.0, "mL")


def test_shuffled_rows_change_nothing(tmp_path: Path) -> None:
    scores = example_scores(5)
    ordered = read_scores(write_study(tmp_path / "ordered", scores))
    shuffled = read_scores(write_study(tmp_path / "shuffled", scores.sample(frac=1, random_state=3)))
    pd.testing.assert_frame_equal(ordered, shuffled)


def test_pairing_is_by_case_name(tmp_path: Path) -> None:
    wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2, "c": 0.3})
    wide(tmp_path, "scores_default_scratch.csv", {"c": 0.3, "a": 0.1, "b": 0.2})
    table = values(read_scores(tmp_path), "dice", "ET")
    assert list(table.index) == ["a", "b", "c"]
    assert (table[("default", "finetune")] == table[("default", "scratch")]).all()


@pytest.mark.parametrize("written", ["default", "TverskyBCE", "tversky_bce", "tversky-bce", "SegResNet", "mine"])
def test_arm_names(written: str) -> None:
    known = {"TverskyBCE": "tversky_bce", "tversky-bce": "tversky_bce", "SegResNet": "segresnet"}
    assert arm_name(written) == known.get(written, written)


def test_missing_case_names_the_model_and_the_case(tmp_path: Path) -> None:
    wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    wide(tmp_path, "scores_default_scratch.csv", {"a": 0.1})
    with pytest.raises(ScoreTableError, match=r"default scratch has no case b \(.*scores_default_scratch\.csv\)"):
        read_scores(tmp_path)


def test_missing_value_of_a_case_that_is_there(tmp_path: Path) -> None:
    scores = example_scores(3)
    gone = (scores["case"] == "case01") & (scores["metric"] == "dice") & (scores["strategy"] == "scratch")
    with pytest.raises(ScoreTableError, match=r"default scratch has no dice ET of case case01 \(and 2 more\)"):
        read_scores(write_study(tmp_path, scores[~gone]))


def test_cavity_need_not_stand_in_every_case(tmp_path: Path) -> None:
    scores = example_scores(3)
    cavity = scores[(scores["case"] == "case01") & (scores["region"] == "WT")].assign(region="RC")
    found = read_scores(write_study(tmp_path, pd.concat([scores, cavity])))
    assert list(values(found, "dice", "RC").index) == ["case01"]


def test_case_twice_in_a_file(tmp_path: Path) -> None:
    file = wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    table = pd.read_csv(file)
    pd.concat([table, table.iloc[:1]]).to_csv(file, index=False)
    with pytest.raises(ScoreTableError, match="case a has 2 values of dice ET"):
        read_scores(tmp_path)


def test_model_in_two_files_names_both(tmp_path: Path) -> None:
    wide(tmp_path / "one", "scores_default_finetune.csv", {"a": 0.1})
    wide(tmp_path / "two", "scores_default_finetune.csv", {"a": 0.1})
    with pytest.raises(ScoreTableError, match=r"(?s)one.*and.*two"):
        read_scores(tmp_path)


@pytest.mark.parametrize("text", ["", "NaN", "nan", "inf"])
def test_undefined_values_are_kept_and_listed(tmp_path: Path, text: str) -> None:
    file = wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    table = pd.read_csv(file, dtype=str)
    table.loc[1, "Hausdorff_wt"] = text
    table.to_csv(file, index=False)
    scores = read_scores(tmp_path)
    left_out = undefined(scores)
    assert left_out[["case", "region", "metric"]].to_numpy().tolist() == [["b", "WT", "hd95"]]
    assert np.isnan(values(scores, "hd95", "WT").loc["b", ("default", "finetune")])


def test_text_in_a_number_column_names_file_line_and_value(tmp_path: Path) -> None:
    file = wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    table = pd.read_csv(file, dtype=str)
    table.loc[1, "DICE_tc"] = "0,93"
    table.to_csv(file, index=False)
    with pytest.raises(
        ScoreTableError, match=r"scores_default_finetune.csv, line 3, b DICE_tc: '0,93' is not a number"
    ):
        read_scores(tmp_path)


def test_an_unquoted_decimal_comma_is_refused_with_its_line(tmp_path: Path) -> None:
    file = wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    lines = file.read_text().splitlines()
    lines[2] = lines[2].replace("0.2", "0,2", 1)
    file.write_text("\n".join(lines))
    with pytest.raises(ScoreTableError, match=r"finetune\.csv, line 3: 20 fields under 19 names; a decimal comma"):
        read_scores(tmp_path)


def test_a_comma_at_the_end_of_every_row_shifts_no_column(tmp_path: Path) -> None:
    file = wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    names, *rows = file.read_text().splitlines()
    file.write_text("\n".join([names, *(row + "," for row in rows)]))
    with pytest.raises(ScoreTableError, match="line 2: 20 fields under 19 names"):
        read_scores(tmp_path)
    file.write_text("\n".join([names + ",", *(row + "," for row in rows)]))
    with pytest.raises(ScoreTableError, match="line 1: column 20 has no name"):
        read_scores(tmp_path)


def test_rows_cut_off_names_twice_semicolons_and_empty_lines(tmp_path: Path) -> None:
    file = wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    text = file.read_text()
    file.write_text(text.replace("\n", "\n\n"))
    assert set(read_scores(tmp_path)["case"]) == {"a", "b"}
    file.write_text(text.rstrip().rpartition(",")[0])
    with pytest.raises(ScoreTableError, match="line 3: 18 fields under 19 names; is the line cut off"):
        read_scores(tmp_path)
    file.write_text(text.replace("DICE_tc", "DICE_et"))
    with pytest.raises(ScoreTableError, match="the column DICE_et occurs twice"):
        read_scores(tmp_path)
    file.write_text(text.replace(",", ";"))
    with pytest.raises(ScoreTableError, match="separated by semicolons"):
        read_scores(tmp_path)
    file.write_text("")
    with pytest.raises(ScoreTableError, match="is empty"):
        read_scores(tmp_path)


@pytest.mark.parametrize("name", ["scores_segresnet-scratch.csv", "scores (1).csv", "Scores_default.CSV"])
def test_a_table_under_another_name_is_not_passed_over(tmp_path: Path, name: str) -> None:
    wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1})
    wide(tmp_path, name, {"a": 0.1})
    with pytest.raises(ScoreTableError, match=r"a score table is named scores\.csv \(long\) or scores_<arm>"):
        read_scores(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("DICE_et", 1.2, r"scratch\.csv: case b, DICE_et: dice ET is 1\.2 and must lie between 0 and 1"),
        ("Sensitivity_wt", -0.1, "Sensitivity_wt: sensitivity WT is -0.1 and must lie between 0 and 1"),
        ("Specificity_tc", 99.9, "between 0 and 1"),
        ("Hausdorff_wt", -1.0, "hd95 WT is -1 and must lie at 0 or above"),
        ("True_volume_et", -3.0, "reference_volume ET is -3 and must lie at 0 or above"),
        ("DICE_tc", np.inf, "dice TC is inf"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, column: str, value: float, message: str) -> None:
    wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    file = wide(tmp_path, "scores_default_scratch.csv", {"a": 0.1, "b": 0.2})
    table = pd.read_csv(file)
    table.loc[1, column] = value
    table.to_csv(file, index=False)
    with pytest.raises(ScoreTableError, match=message):
        read_scores(tmp_path)


def test_another_ground_truth_is_refused_with_both_files(tmp_path: Path) -> None:
    wide(tmp_path, "scores_default_finetune.csv", {"a": 0.1, "b": 0.2})
    file = wide(tmp_path, "scores_default_scratch.csv", {"a": 0.1, "b": 0.2})
    table = pd.read_csv(file)
    table.loc[1, "True_volume_tc"] = 0.2 * (1 + 1e-7)
    table.to_csv(file, index=False)
    assert len(read_scores(tmp_path)) == 2 * 2 * len(WIDE_COLUMNS)
    table.loc[1, "True_volume_tc"] = 0.3
    table.to_csv(file, index=False)
    with pytest.raises(ScoreTableError, match=r"case b, TC: .*0\.2 mL in .*finetune\.csv and 0\.3 in .*scratch\.csv"):
        read_scores(tmp_path)


def test_text_in_a_long_table(tmp_path: Path) -> None:
    scores = example_scores(2).astype({"value": object})
    scores.loc[4, "value"] = "good"
    with pytest.raises(ScoreTableError, match="'good' is not a number; write it with a decimal point"):
        read_scores(write_study(tmp_path, scores))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("strategy", "tuned", "strategy 'tuned' is none of pretrained, finetune, scratch"),
        ("region", "NCR", "region 'NCR' is none of ET, TC, WT, RC"),
        ("case", "", "case is empty"),
    ],
)
def test_unknown_words_are_refused(tmp_path: Path, column: str, value: str, message: str) -> None:
    scores = example_scores(2)
    scores[column] = value
    scores.to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(ScoreTableError, match=message):
        read_scores(tmp_path)


def test_absent_and_unknown_columns(tmp_path: Path) -> None:
    example_scores(2).drop(columns="unit").to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(ScoreTableError, match="lacks the column unit"):
        read_scores(tmp_path)
    file = wide(tmp_path / "wide", "scores_default_finetune.csv", {"a": 0.1})
    pd.read_csv(file).rename(columns={"DICE_et": "Dice_ET"}).to_csv(file, index=False)
    with pytest.raises(ScoreTableError, match="unknown column Dice_ET, no column DICE_et"):
        read_scores(tmp_path / "wide")


def test_a_date_in_the_name_is_no_part_of_the_model(tmp_path: Path) -> None:
    wide(tmp_path / "dated", "scores_tverskybce_finetune_2026-09-29.csv", {"a": 0.1})
    wide(tmp_path / "dated", "scores_tversky_bce_scratch_2026-09-29.csv", {"a": 0.1})
    assert models(read_scores(tmp_path / "dated")) == [("tversky_bce", "finetune"), ("tversky_bce", "scratch")]
    wide(tmp_path / "dated", "scores_tverskybce_finetune.csv", {"a": 0.1})
    with pytest.raises(
        ScoreTableError, match=r"2 values of dice ET in .*finetune\.csv and .*finetune_2026-09-29\.csv"
    ):
        read_scores(tmp_path / "dated")


def test_wide_name_without_strategy(tmp_path: Path) -> None:
    wide(tmp_path, "scores_default_best.csv", {"a": 0.1})
    with pytest.raises(ScoreTableError, match=r"scores_<arm>_<strategy>\.csv"):
        read_scores(tmp_path)


def test_two_units_for_one_metric(tmp_path: Path) -> None:
    scores = example_scores(2)
    scores.loc[scores["strategy"] == "scratch", "unit"] = scores["unit"].replace("mm", "cm")
    with pytest.raises(ScoreTableError, match="hd95 comes in cm and in mm"):
        read_scores(write_study(tmp_path, scores))


def test_no_folder_no_table_no_row(tmp_path: Path) -> None:
    with pytest.raises(ScoreTableError, match="no such folder"):
        find_score_files(tmp_path / "nowhere")
    with pytest.raises(ScoreTableError, match="run notebook 06"):
        find_score_files(tmp_path)
    example_scores(2).iloc[:0].to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(ScoreTableError, match="holds no rows"):
        read_scores(tmp_path)


def test_one_strategy_alone_is_read(tmp_path: Path) -> None:
    scores = example_scores(3)
    found = read_scores(write_study(tmp_path, scores[scores["strategy"] == "scratch"]))
    assert models(found) == [("default", "scratch"), ("tversky_bce", "scratch"), ("segresnet", "scratch")]


def test_lesions(tmp_path: Path) -> None:
    scores = example_scores(2)
    lesions = example_lesions(scores)
    found = read_lesions(write_study(tmp_path, scores, lesions))
    assert len(found) == len(lesions)
    assert found["detected"].dtype == found["detected_iou"].dtype == bool
    assert found.loc[~found["detected"], "dice"].isna().all()
    assert read_lesions(tmp_path / "nowhere").empty


def test_lesion_twice_and_detected_that_is_no_truth_value(tmp_path: Path) -> None:
    lesions = example_lesions(example_scores(2))
    pd.concat([lesions, lesions.iloc[:1]]).to_csv(tmp_path / "lesions.csv", index=False)
    with pytest.raises(ScoreTableError, match="lesion 1 occurs twice"):
        read_lesions(tmp_path)
    lesions.assign(detected="yes").to_csv(tmp_path / "lesions.csv", index=False)
    with pytest.raises(ScoreTableError, match="detected 'yes' is none of True, False"):
        read_lesions(tmp_path)


def test_a_lesion_table_without_the_one_to_one_rule_is_to_be_scored_anew(tmp_path: Path) -> None:
    example_lesions(example_scores(2)).drop(columns="detected_iou").to_csv(tmp_path / "lesions.csv", index=False)
    with pytest.raises(ScoreTableError, match=r"lesions\.csv lacks the column detected_iou; score the cases anew"):
        read_lesions(tmp_path)


def test_lesions_of_an_unscored_case_name_file_and_case(tmp_path: Path) -> None:
    scores = example_scores(2)
    write_study(tmp_path, scores, example_lesions(scores))
    assert len(read_lesions(tmp_path, scores)) == 24
    with pytest.raises(
        ScoreTableError, match=r"lesions\.csv.* holds lesions of case01, which no score table has; score"
    ):
        read_lesions(tmp_path, scores[scores["case"] == "case00"])


def test_a_model_without_lesions_has_a_table_without_rows(tmp_path: Path) -> None:
    example_lesions(example_scores(2)).iloc[:0].to_csv(tmp_path / "lesions.csv", index=False)
    assert read_lesions(tmp_path).empty
