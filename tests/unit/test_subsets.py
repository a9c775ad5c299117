"""Scores by the sequences that a case has, and with and without post-processing: tables, sentences and sections."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from brainmets import schemas
from brainmets.cohorts.cohort import Case, write_manifest
from brainmets.files import write_json
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.report import beside
from brainmets.statistics import subset_figures, subsets, with_and_without
from brainmets.statistics.paired_measures import measured
from brainmets.tables import write as write_table

MODEL = ("default", "finetune")
ALL = ("t1n", "t1c", "t2w", "t2f")
WHOSE = {"a1": "a", "a2": "a", "b": "b", "c": "c"}


def scores(values, model=MODEL, region="TC"):
    """``values``: case to Dice, lesions found, missed and false; every reference has the region."""
    rows = []
    for case, (dice, tp, fn, fp) in values.items():
        metrics = {"dice": dice, "lesion_dice": dice / 2, "lesion_f1": dice, "lesion_iou_tp": tp, "lesion_iou_fn": fn}
        metrics |= {"lesion_iou_fp": fp, "reference_volume": 1.0 if tp + fn else 0.0, "predicted_volume": 1.0}
        rows += [(*model, case, region, name, float(value), "1") for name, value in metrics.items()]
    return pd.DataFrame(rows, columns=["arm", "strategy", "case", "region", "metric", "value", "unit"])


BEFORE = scores({"a1": (0.8, 2, 2, 1), "a2": (0.6, 1, 0, 0), "b": (0.5, 0, 1, 2), "c": (0.0, 0, 0, 1)})
AFTER = scores({"a1": (0.9, 1, 3, 0), "a2": (0.6, 1, 0, 0), "b": (0.4, 0, 1, 0), "c": (1.0, 0, 0, 0)})


def values(table, name):
    return {row["measure"]: row[name] for row in table.to_dict("records")}


def lesions(found, volume=60.0, region="WT"):
    """``found``: (case, lesion) to whether it was found; all reference lesions of one volume."""
    rows = [(*MODEL, case, region, "reference", n, volume, hit) for (case, n), hit in found.items()]
    return pd.DataFrame(
        rows, columns=["arm", "strategy", "case", "region", "kind", "lesion", "volume_mm3", "detected_iou"]
    )


def test_measures_are_sums_over_cases_and_a_case_without_the_region_is_in_no_mean():
    found = {one.measure: one.value for one in measured(BEFORE)}
    assert found["dice"] == pytest.approx((0.8 + 0.6 + 0.5) / 3)
    assert found["lesion_dice"] == pytest.approx((0.8 + 0.6 + 0.5) / 6)
    assert found["lesions_found"] == pytest.approx(3 / 6)
    assert found["false_positives"] == pytest.approx(4 / 4), "over every case, those without lesions too"


def test_with_less_without_and_never_the_other_way_round():
    small = lesions({("a1", 1): True, ("a1", 2): True, ("b", 1): False})
    after = lesions({("a1", 1): False, ("a1", 2): True, ("b", 1): True})
    both = (pd.concat([small, lesions({("a1", 3): True}, volume=70.0)]),)
    both = (*both, pd.concat([after, lesions({("a1", 3): False}, volume=70.0)]))
    first, second = (pd.concat([one, one.assign(region="WT")]) for one in (BEFORE, AFTER))
    table = with_and_without.compare(first, second, both, WHOSE, "holes filled")
    assert list(table.columns) == list(schemas.POST_PROCESSED.columns)
    core = table[table["region"] == "TC"]
    assert values(core, "difference")["dice"] == pytest.approx((0.1 + 0.0 - 0.1) / 3)
    assert values(core, "difference")["false_positives"] == pytest.approx(-4 / 4)
    assert values(core, "difference")["lesions_found"] == pytest.approx(-1 / 6)
    assert values(core, "with")["false_positives"] == 0
    assert (values(core, "cases")["dice"], values(core, "patients")["dice"]) == (3, 2)
    low, high = values(core, "difference_low")["dice"], values(core, "difference_high")["dice"]
    assert low < 0 < high
    assert set(core["small"]) == {0}
    whole = table[table["region"] == "WT"]
    assert set(whole["small"]) == {3}, "below 5 mm (65.4 mm^3); the one of 70 mm^3 is larger"
    assert set(whole["small_lost"]) == {1}
    assert with_and_without.sentence(table).startswith("1 of 3 held-out lesions below 5 mm were found without")
    assert with_and_without.told(table)[0].startswith("Default, fine-tuned: holes filled. 1 of 3")


def test_sides_of_other_cases_are_refused():
    none = lesions({})
    with pytest.raises(ValueError, match="not of the same cases"):
        with_and_without.compare(BEFORE, AFTER[AFTER["case"] != "b"], (none, none), WHOSE, "x")
    with pytest.raises(ValueError, match="of one model"):
        with_and_without.compare(BEFORE, AFTER.assign(arm="segresnet"), (none, none), WHOSE, "x")
    with pytest.raises(ValueError, match="same reference lesions"):
        with_and_without.compare(BEFORE, AFTER, (lesions({("b", 1): True}), none), WHOSE, "x")


def test_only_the_same_measure_of_the_same_region_is_subtracted():
    dice, other = next(measured(BEFORE)), next(measured(BEFORE.assign(region="ET")))
    with pytest.raises(ValueError, match="dice of TC beside dice of ET"):
        dice.less(other, WHOSE, 0.95)


def test_sides_pair_by_case_name_and_not_by_the_order_of_rows():
    none = lesions({})
    turned = AFTER.iloc[::-1].reset_index(drop=True)
    first, second = (with_and_without.compare(BEFORE, one, (none, none), WHOSE, "x") for one in (AFTER, turned))
    pd.testing.assert_frame_equal(first, second)
    assert values(first, "difference")["false_positives"] == -1


def test_cases_that_all_have_the_same_give_one_row_for_each_measure():
    table = subsets.occurring(BEFORE, dict.fromkeys(WHOSE, ALL), WHOSE, {"t1n+t1c+t2w+t2f"})
    assert list(table.columns) == list(schemas.SUBSETS.columns)
    assert len(table) == 5
    assert set(table["subset"]) == {"t1n+t1c+t2w+t2f"}
    assert set(table["note"]) == {""}
    assert subsets.sentence(table).startswith("All held-out cases have the same sequences: T1 + T1 after contrast")


def test_cases_are_grouped_by_what_they_have_the_largest_set_first():
    has = {"a1": ALL, "a2": ("t1n", "t1c", "t2f"), "b": ALL, "c": ALL}
    table = subsets.occurring(BEFORE, has, WHOSE, {"t1n+t1c+t2w+t2f"})
    assert list(dict.fromkeys(table["subset"])) == ["t1n+t1c+t2w+t2f", "t1n+t1c+t2f"]
    lacking = table[table["subset"] == "t1n+t1c+t2f"]
    assert values(lacking, "value")["dice"] == 0.6
    assert values(lacking, "cases")["dice"] == 1
    assert set(lacking["note"]) == {subsets.OUTSIDE}
    assert "Default, fine-tuned, which was trained without sequence dropout" in subsets.sentence(table)
    dropped = subsets.occurring(BEFORE, has, WHOSE, None)
    assert set(dropped["note"]) == {""}, "with sequence dropout every set was learnt"
    with pytest.raises(ValueError, match="nothing says which b, c has"):
        subsets.occurring(BEFORE, {"a1": ALL, "a2": ALL}, WHOSE, None)


def test_a_made_set_is_set_beside_the_same_cases_with_all_they_have():
    table = subsets.made({"t1c": AFTER[AFTER["case"].isin(["a1", "b"])]}, BEFORE, WHOSE, None)
    assert values(table, "difference")["dice"] == pytest.approx((0.1 - 0.1) / 2)
    assert values(table, "difference")["lesions_found"] == pytest.approx(-1 / 5)
    assert values(table, "cases")["dice"] == 2
    assert set(table["how"]) == {"made"}


def test_tables_are_read_back_as_they_were_written(tmp_path):
    files = StudyPaths(str(tmp_path), "own")
    table = subsets.occurring(BEFORE, dict.fromkeys(WHOSE, ALL), WHOSE, None)
    write_table(files.subsets(*MODEL), table)
    none = lesions({})
    compared = with_and_without.compare(BEFORE, AFTER, (none, none), WHOSE, "holes filled")
    write_table(files.post_processing(*MODEL) / "with_and_without.csv", compared)
    models = [MODEL, ("default", "scratch")]
    pd.testing.assert_frame_equal(
        schemas.read_each(subsets.tables_of(files, models), schemas.SUBSETS), table, check_dtype=False
    )
    pd.testing.assert_frame_equal(
        schemas.read_each(with_and_without.tables_of(files, models), schemas.POST_PROCESSED),
        compared,
        check_dtype=False,
    )
    none = schemas.read_each([], schemas.SUBSETS)
    assert none.empty and subsets.sentence(none).startswith("Nothing is known")
    assert not list(files.evaluations.rglob("scores.csv")), "no reader of a study's scores finds them"


# --- predictions ---------------------------------------------------------------------------------------------------


@dataclass
class FakeEnsemble:
    """Notes the images of the cases that it is asked for."""

    sequences: tuple[str, ...] = ("t1c", "t2w", "t2f")
    dropout: float = 0.0
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    @property
    def plans(self):
        settings = {"sequence_dropout": self.dropout} if self.dropout else {}
        return SimpleNamespace(plans={"brainmets": {"settings": settings}})

    def probabilities(self, case):
        self.asked.append((case.case, tuple(case.images)))
        return np.zeros((3, 2, 2, 2), np.float32)

    def labels(self, probabilities):
        return np.zeros(probabilities.shape[1:], np.uint8)


def case_of(name, sequences):
    return Case(name, name, {one: Path(f"{name}_{one}.nii.gz") for one in sequences}, None)


def test_every_smaller_set_of_what_a_case_has_is_predicted_once(tmp_path, monkeypatch):
    from brainmets.training import subsets as predicted

    written = []
    monkeypatch.setattr(
        predicted, "write_prediction", lambda labels, case, folder: written.append((case, folder.name))
    )
    ensemble, said = FakeEnsemble(), []
    cases = [case_of("a", ALL), case_of("b", ("t1c", "t2f")), case_of("c", ("t1n", "t1c"))]
    found = predicted.predict_subsets(ensemble, cases, tmp_path / "subsets", said.append)
    assert found == {
        "t1c+t2w": ["a"], "t1c+t2f": ["a"], "t2w+t2f": ["a"], "t1c": ["a", "b"], "t2w": ["a"], "t2f": ["a", "b"],
    }  # fmt: skip
    assert [images for name, images in ensemble.asked if name == "b"] == [("t1c",), ("t2f",)]
    assert not [1 for name, _ in ensemble.asked if name == "c"], "of c's images the model reads one, and that is all"
    assert {case.sequences for case, _ in written} == {ALL, ("t1c", "t2f")}, "written on the grid of the whole case"
    assert said[-1].startswith("subset 8 of 8: b with t2f, ")
    assert said[-1].endswith("0 s left")


def test_what_a_model_learnt_is_told_by_its_training_cases_and_its_dropout():
    from brainmets.training.subsets import learnt

    cases = [case_of("a", ALL), case_of("b", ("t1n", "t1c", "t2f"))]
    assert learnt(FakeEnsemble(), cases[:1]) == {"t1c+t2w+t2f"}
    assert learnt(FakeEnsemble(), cases) == {"t1c+t2w+t2f", "t1c+t2f"}
    assert learnt(FakeEnsemble(), cases[1:]) == {"t1c+t2f"}, "no training case has all three"
    assert learnt(FakeEnsemble(dropout=0.2), cases) is None


def test_the_cases_that_a_model_was_trained_on_are_those_of_its_records(files):
    """The checkpoint itself names no case, and so does not say what single ones lack."""
    from brainmets.training.subsets import trained_cases

    cases = [case_of("a", ALL), case_of("b", ("t1c", "t2f")), case_of("held", ALL)]
    write_manifest(files.manifest("target"), cases, ALL)
    for fold, names in enumerate((["b"], ["b", "a"])):
        write_json(files.training("finetune", "default", fold), {"cases": names})
    assert [case.case for case in trained_cases(files, "finetune", "default", [0])] == ["b"]
    found = trained_cases(files, "finetune", "default", [0, 1])
    assert [(case.case, case.sequences) for case in found] == [("a", ALL), ("b", ("t1c", "t2f"))]


# --- the report ----------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    return StudyPaths(str(tmp_path), "own")


def test_the_report_says_where_no_rule_was_tried_and_nothing_is_known_of_sets(files):
    assert beside.post_processing(files) == beside.Section([beside.NO_RULES], [], [])
    assert beside.sequence_subsets(files).rows == []
    write_table(files.statistics / beside.PROCESSED, schemas.read_each([], schemas.POST_PROCESSED))
    assert beside.post_processing(files).sentences == [beside.NO_RULES]


def test_the_report_shows_both_sides_and_what_was_lost(files):
    none = lesions({})
    first = with_and_without.compare(BEFORE, AFTER, (none, none), WHOSE, "holes filled")
    second = first.assign(arm="lesion_dice")
    write_table(files.statistics / beside.PROCESSED, pd.concat([second, first]))
    section = beside.post_processing(files)
    assert [(row["arm"], row["region"], row["rules"]) for row in section.rows] == [
        ("Default", "TC", "holes filled"), ("Lesion Dice", "TC", "holes filled"),
    ]  # fmt: skip
    cells = dict(zip(section.measures, section.rows[0]["cells"], strict=True))
    assert cells["Dice"]["value"] == "0.633 → 0.633"
    assert cells["False positives a case"]["value"] == "1.00 → 0.00"
    assert cells["False positives a case"]["interval"].startswith("-1.00 (")
    assert section.rows[0]["lost"] == "0 of 0"
    same = with_and_without.compare(BEFORE, BEFORE, (none, none), WHOSE, "holes filled")
    write_table(files.statistics / beside.PROCESSED, same)
    assert {cell["interval"] for cell in beside.post_processing(files).rows[0]["cells"]} == {"no patient's changed"}


def test_the_report_and_its_figure_show_sets_only_where_there_are_several(files):
    has = {"a1": ALL, "a2": ("t1c",), "b": ALL, "c": ALL}
    table = pd.concat([
        subsets.occurring(BEFORE, has, WHOSE, {"t1n+t1c+t2w+t2f"}),
        subsets.made({"t1n+t1c": AFTER[AFTER["case"] == "b"]}, BEFORE, WHOSE, {"t1n+t1c+t2w+t2f"}),
    ])  # fmt: skip
    write_table(files.statistics / beside.BY_SUBSET, table)
    section = beside.sequence_subsets(files)
    assert [row["subset"] for row in section.rows] == [
        "T1 + T1 after contrast + T2 + FLAIR", "T1 after contrast", "T1 + T1 after contrast",
    ]  # fmt: skip
    assert section.rows[2]["cells"][0]["counts"].startswith("-0.100")
    assert [row["note"] for row in section.rows] == ["", subsets.OUTSIDE, subsets.OUTSIDE]
    figure = subset_figures.dice_by_subset(table)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["T1 + T1 after contrast + T2 + FLAIR", "T1 + T1 after contrast", "T1 after contrast"]
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert sorted(float(line.get_xdata()[0]) for line in crosses) == [0.4, 0.6]
    assert subset_figures.dice_by_subset(table.iloc[:0]).axes[0].texts[0].get_text() == "no sets of sequences"
    one = table[table["subset"] == "t1c"]
    write_table(files.statistics / beside.BY_SUBSET, one)
    assert beside.sequence_subsets(files).rows == []


def test_seven_arms_in_three_strategies_are_told_apart(files):
    whole = subsets.occurring(BEFORE, dict.fromkeys(WHOSE, ALL), WHOSE, None)
    arms = ["default", "tversky_bce", "segresnet", "lesion_dice", "lesion_sampling", "lesion_transplant"]
    arms.append("default_resenc")
    both = [whole, whole.assign(subset="t1c", how="made")]
    table = pd.concat([
        one.assign(arm=arm, strategy=strategy)
        for arm in arms for strategy in ("pretrained", "finetune", "scratch") for one in both
    ])  # fmt: skip
    figure = subset_figures.dice_by_subset(table)
    dots = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    looks = {(line.get_color(), line.get_marker(), line.get_fillstyle()) for line in dots}
    assert len(dots) == 2 * 21
    assert len(looks) == 21
    heights = [float(line.get_ydata()[0]) for line in dots]
    assert len({round(height, 6) for height in heights}) == 42, "no dot hides another"


def test_arms_beyond_the_paper_are_marked():
    assert beside.arm_words(["default", "segresnet"]) == ""
    told = beside.arm_words(["default_resenc", "default", "lesion_dice"])
    assert told == "Lesion Dice, Residual encoder: not in the paper, this project's own."


def test_the_report_names_each_cohorts_sequences_and_who_lacks_one(files, monkeypatch):
    study = Study.__new__(Study)
    content = {"sequences": ["t1c", "t2f"], "source": {"sequences": list(ALL)}, "target": {"sequences": None}}
    object.__setattr__(study, "content", content)
    assert beside.sequence_facts(files, study) == [
        "The networks of the source cohort read T1, T1 after contrast, T2 and FLAIR.",
        "The networks of the target cohort read T1 after contrast and FLAIR.",
    ]
    files.manifest("target").parent.mkdir(parents=True)
    files.manifest("target").write_text("{}")
    cases = {"P1": case_of("P1", ("t1c", "t2f")), "P2": case_of("P2", ("t1c",))}
    monkeypatch.setattr(beside, "read_manifest", lambda path: cases)
    assert beside.sequence_facts(files, study)[1] == (
        "The networks of the target cohort read T1 after contrast and FLAIR. FLAIR is missing in 1 of 2 cases (P2)."
    )


def test_an_undefined_measure_is_none_and_not_a_number():
    line = {"measure": "dice", "without": math.nan, "with": 0.1}
    assert beside._change(line)["value"] == "none"
    assert beside._value(None)["value"] == "none"
