"""Fine-tuned minus scratch in lesions found: worked out by hand, swapped by whole patients, and by covariate."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainmets.statistics import paired_detection
from brainmets.statistics.comparisons import EXPLORATORY, MEAN_OVER_ARMS, Settings
from brainmets.statistics.operating_point import Aim, Applied, Point
from brainmets.tables import TableError

SETTINGS = Settings(0.05, 2000, 1)
AIM = Aim("TC", "one_to_one", 1.0)


def at_point(model, cases, lesions, false) -> Applied:
    """``lesions``: (case, diameter in mm, found); ``false``: cases, one for each false candidate."""
    point = Point(*model, 0.5, 0.0, 1, 1, 1, 0, met=True)
    rows = [
        (*model, case, "TC", number, math.pi / 6 * diameter**3, diameter, 0.9 if found else -math.inf, found)
        for number, (case, diameter, found) in enumerate(lesions)
    ]
    names = ["arm", "strategy", "case", "region", "lesion", "volume_mm3", "diameter_mm", "score", "found"]
    accepted = pd.DataFrame({"case": list(false), "score": 0.9})
    return Applied(AIM, point, tuple(cases), pd.DataFrame(rows, columns=names), accepted)


def study(first: dict[str, list[int]], second: dict[str, list[int]], false=("", ""), arm="default"):
    """By case, whether each lesion was found; all of 6 mm, the first of each case of 2 mm."""
    models = {}
    for strategy, found, wrong in (("finetune", first, false[0]), ("scratch", second, false[1])):
        lesions = [
            (case, 6.0 if number else 2.0, bool(hit))
            for case, hits in found.items()
            for number, hit in enumerate(hits)
        ]
        models[arm, strategy] = at_point((arm, strategy), first, lesions, wrong)
    return models


FIRST = {"a": [1, 1, 1], "b": [1, 0], "c": [1], "d": []}
SECOND = {"a": [0, 1, 0], "b": [1, 0], "c": [0], "d": []}


def test_by_hand() -> None:
    """5 of 6 lesions against 2; of small ones 3 of 3 against 1. False: 1 in 4 cases against 3."""
    table = paired_detection.compare(study(FIRST, SECOND, ("a", "bbd")), SETTINGS).set_index(["measure", "size"])
    every = table.loc[("sensitivity", "all")]
    assert every[["patients", "n", "finetune", "scratch"]].tolist() == [3, 6, 5 / 6, 2 / 6]
    assert every["difference"] == pytest.approx(0.5)
    small = table.loc[("sensitivity", "<3 mm")]
    assert small[["patients", "n", "finetune"]].tolist() == [3, 3, 1]
    assert small["difference"] == pytest.approx(2 / 3)
    wrong = table.loc[("false_positives", "all")]
    assert wrong[["patients", "n", "finetune", "scratch", "difference"]].tolist() == [4, 4, 0.25, 0.75, -0.5]
    none = table.loc[("sensitivity", "3-5 mm")]
    assert none[["finetune", "difference", "low", "p_value"]].isna().all()
    assert none["note"] == "no such lesion: nothing to compare"
    assert set(table["family"]) == {EXPLORATORY}


def swapped(first: dict[str, list[int]], second: dict[str, list[int]]) -> float:
    """The two-sided p by brute force: the pooled difference with both models' counts of patients swapped."""
    changes = [sum(first[case]) - sum(second[case]) for case in first if first[case]]
    observed = sum(changes)
    sums = [sum(s * c for s, c in zip(signs, changes, strict=True)) for signs in product((1, -1), repeat=len(changes))]
    upper, lower = np.mean([s >= observed for s in sums]), np.mean([s <= observed for s in sums])
    return min(1.0, 2 * min(upper, lower))


def test_the_swaps_are_of_whole_patients_and_exact() -> None:
    table = paired_detection.compare(study(FIRST, SECOND), SETTINGS).set_index(["measure", "size"])
    assert table.loc[("sensitivity", "all"), "p_value"] == swapped(FIRST, SECOND) == 0.5
    assert table.loc[("sensitivity", "all"), "smallest_p"] == 0.5, "two patients differ"
    random = np.random.default_rng(2)
    many = [
        {f"p{n}": random.integers(0, 2, 1 + n % 4).tolist() for n in range(9)},
        {f"p{n}": random.integers(0, 2, 1 + n % 4).tolist() for n in range(9)},
    ]
    found = paired_detection.compare(study(*many), SETTINGS).set_index(["measure", "size"])
    assert found.loc[("sensitivity", "all"), "p_value"] == pytest.approx(swapped(*many))


def test_scans_of_a_patient_are_swapped_together() -> None:
    first, second = {"a1": [1], "a2": [1], "b": [1]}, {"a1": [0], "a2": [0], "b": [0]}
    alone = paired_detection.compare(study(first, second), SETTINGS).iloc[0]
    together = Settings(0.05, 2000, 1, {"a1": "a", "a2": "a", "b": "b"})
    assert (alone["patients"], alone["p_value"]) == (3, 0.25)
    row = paired_detection.compare(study(first, second), together).iloc[0]
    assert (row["patients"], row["p_value"]) == (2, 0.5)


def test_the_mean_over_arms_counts_a_patient_once() -> None:
    models = study(FIRST, SECOND) | study(FIRST, FIRST, arm="segresnet")
    table = paired_detection.compare(models, SETTINGS)
    assert list(dict.fromkeys(table["first"])) == ["default", "segresnet", MEAN_OVER_ARMS]
    rows = table[table["size"] == "all"].set_index(["first", "measure"])
    assert rows.loc[(MEAN_OVER_ARMS, "sensitivity"), "difference"] == pytest.approx(0.25)
    assert rows.loc[(MEAN_OVER_ARMS, "sensitivity"), ["patients", "n"]].tolist() == [3, 6]
    per_arm = table[(table["first"] != MEAN_OVER_ARMS) & (table["measure"] == "sensitivity")]["p_value"].dropna()
    assert table["p_holm"].max() == 1
    assert len(per_arm) == 6


def test_equal_models_are_no_certainty() -> None:
    """No patient differs: for shares an interval around 0 that is not of width 0; for amounts none, in words."""
    table = paired_detection.compare(study(FIRST, FIRST), SETTINGS).set_index(["measure", "size"])
    row = table.loc[("sensitivity", "all")]
    assert (row["difference"], row["p_value"]) == (0, 1)
    assert row["low"] < -0.1 < 0.1 < row["high"]
    wrong = table.loc[("false_positives", "all")]
    assert math.isnan(wrong["low"])
    assert wrong["note"] == "no patient differs: no interval"


def test_intervals_stay_within_what_a_difference_can_be_and_repeat() -> None:
    one = paired_detection.compare(study(FIRST, SECOND, ("a", "bbd")), SETTINGS)
    pd.testing.assert_frame_equal(one, paired_detection.compare(study(FIRST, SECOND, ("a", "bbd")), SETTINGS))
    shares = one[one["measure"] == "sensitivity"].dropna(subset=["low"])
    assert (shares["low"] <= shares["difference"]).all()
    assert (shares["difference"] <= shares["high"]).all()
    assert shares["low"].min() >= -1
    assert shares["high"].max() <= 1


def test_an_arm_without_both_strategies_has_no_rows_and_models_must_fit() -> None:
    models = study(FIRST, SECOND)
    assert paired_detection.compare({("default", "finetune"): models["default", "finetune"]}, SETTINGS).empty
    other = study({"a": [1]}, {"a": [1]})["default", "scratch"]
    with pytest.raises(ValueError, match="default finetune and default scratch: of other cases"):
        paired_detection.compare({**models, ("default", "scratch"): other}, SETTINGS)
    fewer = study(FIRST, {**SECOND, "a": [1, 1]})
    with pytest.raises(ValueError, match="of other reference lesions"):
        paired_detection.compare(fewer, SETTINGS)


def test_each_patients_share_in_the_layout_of_scores() -> None:
    shares = paired_detection.per_patient(study(FIRST, SECOND))
    assert list(shares.columns) == ["arm", "strategy", "case", "region", "metric", "value", "unit"]
    assert set(shares["metric"]) == {"detection_sensitivity"}
    wide = shares.pivot(index="case", columns="strategy", values="value")
    assert wide.loc["a"].tolist() == [1, 1 / 3]
    assert "d" not in wide.index, "a case without a lesion has no share"


def covariates(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "covariates.csv"
    path.write_text(text)
    return path


PATIENTS = {"a": "p1", "b": "p2", "c": "p3", "d": "p4"}


def test_by_covariate_and_marked_exploratory(tmp_path: Path) -> None:
    """Lung: a and c, 4 of 4 lesions against 1; b has an empty field, d is not in the table."""
    path = covariates(tmp_path, "patient,primary\np1,lung\np3,lung\np2,\n")
    read = paired_detection.read_covariates(path, PATIENTS)
    assert read["level"].tolist() == ["lung", "(not given)", "lung", "(not given)"]
    settings = Settings(0.05, 2000, 1, PATIENTS)
    table = paired_detection.by_covariate(study(FIRST, SECOND), read, settings)
    rows = table[table["measure"] == "sensitivity"].set_index("level")
    assert rows.loc["lung", ["cases", "patients", "n", "finetune", "scratch"]].tolist() == [2, 2, 4, 1, 0.25]
    assert rows.loc["(not given)", ["cases", "patients", "n"]].tolist() == [2, 1, 2]
    assert rows.loc["(not given)", "note"] == "one patient: no interval"
    assert set(table["family"]) == {EXPLORATORY}
    assert "p_value" not in table.columns
    by_case = covariates(tmp_path, "case,scanner\na,X\nb,Y\n")
    assert paired_detection.read_covariates(by_case, PATIENTS)["level"].tolist() == ["X", "Y", *["(not given)"] * 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,primary\nx,lung\n", r"line 2: the case is none of the study's 4 \(1 such row"),
        ("patient,primary\na,lung\n", r"line 2: the patient is none of the study's 4"),
        ("name,primary\na,lung\n", "has one named case or patient"),
        ("case,patient,primary\na,p1,lung\n", "has one named case or patient"),
        ("case\na\n", "at least one more"),
        ("case,primary\na,lung\na,lung\n", "line 3: a occurs twice"),
        ("case,primary\n", "holds no rows"),
        ("case,primary\na,lung,5\n", "line 2: 3 fields under 2 names"),
        ("case,primary\n,lung\n", "line 2: case is empty"),
        ("case,primary\na,P1\n", "primary: a value is the name of a case or patient"),
        ("case,born\na,1950-01-02\n", "born: a value holds a date"),
        ("case,born\na,born 2.1.1950\n", "born: a value holds a date"),
        ("case,born\na,19500102\n", "born: a value holds a date"),
        (f"case,remark\na,{'x' * 41}\n", "remark: a value is longer than 40 characters"),
        ("case,remark\na,x\u202ey\n", "remark: a value .* cannot be seen"),
        ("case,primary\na,lung\nb,Lung\n", "primary: two values differ in upper and lower case alone"),
    ],
)
def test_a_table_of_covariates_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        paired_detection.read_covariates(covariates(tmp_path, text), PATIENTS)


def test_a_name_that_the_study_did_not_give_is_not_repeated(tmp_path: Path) -> None:
    path = covariates(tmp_path, "case,primary\nSmith,lung\nSmith,lung\n")
    with pytest.raises(TableError) as error:
        paired_detection.read_covariates(path, PATIENTS)
    assert "Smith" not in str(error.value)


def test_a_value_that_tells_who_somebody_is_is_not_repeated(tmp_path: Path) -> None:
    for value in ("P1", "1950-01-02"):
        with pytest.raises(TableError) as error:
            paired_detection.read_covariates(covariates(tmp_path, f"case,what\na,{value}\n"), PATIENTS)
        assert value not in str(error.value)


def test_excels_marks_and_formulas_are_read_as_text(tmp_path: Path) -> None:
    path = covariates(tmp_path, "\ufeffcase,primary\na,=1+1\nb,1.5-2 cm\n")
    assert paired_detection.read_covariates(path, PATIENTS)["level"].tolist()[:2] == ["=1+1", "1.5-2 cm"]
    with pytest.raises(TableError, match="semicolons; save the table with commas"):
        paired_detection.read_covariates(covariates(tmp_path, "case;primary\na;lung\n"), PATIENTS)


def test_a_covariate_of_many_values_is_no_group(tmp_path: Path) -> None:
    cases = {f"c{n:02d}": f"c{n:02d}" for n in range(13)}
    path = covariates(tmp_path, "case,age\n" + "".join(f"{case},{n}\n" for n, case in enumerate(cases)))
    with pytest.raises(TableError, match="age has 13 different values, 12 are allowed: write groups"):
        paired_detection.read_covariates(path, cases)
