"""Patients: all found, any found, lesion-free ones left alone; what cannot be said is refused in words."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from detection_examples import make_detections
from sklearn.metrics import roc_auc_score

from brainmets.scoring.candidates import Detections
from brainmets.scoring.intervals import auroc_of_patients, clopper_pearson
from brainmets.statistics import patient_level
from brainmets.statistics.operating_point import Aim, Applied, Point, apply, freeze

MODEL = ("default", "finetune")
AIM = Aim("TC", "one_to_one", 1.0)


def applied(folder: Path, detections: Detections, patients: dict[str, str]) -> Applied:
    """At the threshold 0.5 and 10 mm^3."""
    point = Point(*MODEL, 0.5, 10.0, cases=1, lesions=1, found=1, false=0, met=True)
    path = freeze(folder / "operating_point.json", AIM, [point], {MODEL: ["t1"]}, [], folder)
    return apply(path, folder, detections, MODEL, patients)


def table_of(at_point: Applied, detections: Detections, patients: dict[str, str]) -> pd.DataFrame:
    return patient_level.table({MODEL: at_point}, {MODEL: detections}, 0.05, patients)


def test_patients_by_hand(tmp_path: Path) -> None:
    """a: both found, in two scans; b: one of two; c: none; free d with a false one, e with one below, f with nothing.

    Highest scores: a 0.9, b 0.7, c 0.2; d 0.6, e 0.4, f none. Of 9 pairs 7 are in order: c loses to d and e.
    """
    cases = ["a1", "a2", "b", "c", "d", "e", "f"]
    patients = {**{case: case for case in cases}, "a1": "a", "a2": "a"}
    lesions = [
        ("a1", 90.0, 0.9), ("a2", 90.0, 0.5), ("b", 90.0, 0.7), ("b", 90.0, 0.3), ("c", 90.0, 0.2),
        ("c", 90.0, -math.inf),
    ]  # fmt: skip
    false = [("a1", 0.8, 90.0), ("d", 0.6, 90.0), ("e", 0.4, 90.0), ("f", 0.99, 9.0)]
    detections = make_detections(cases, lesions, false)
    table = table_of(applied(tmp_path, detections, patients), detections, patients)
    rows = table.set_index("measure")
    assert list(rows.index) == list(patient_level.MEASURES)
    assert rows.loc["all_found", ["patients", "count"]].tolist() == [3, 1]
    assert rows.loc["any_found", ["patients", "count"]].tolist() == [3, 2]
    assert rows.loc["specificity", ["patients", "count"]].tolist() == [3, 2], "f's candidate is too small"
    assert rows.loc["auroc", ["patients", "value"]].tolist() == [6, 7 / 9]
    assert tuple(rows.loc["any_found", ["low", "high"]]) == clopper_pearson(2, 3, 0.95)
    assert (rows["note"] == "").all()


def test_without_lesion_free_patients_refused_in_words(tmp_path: Path) -> None:
    detections = make_detections("ab", [("a", 90.0, 0.9), ("b", 90.0, 0.4)], [])
    rows = table_of(applied(tmp_path, detections, {}), detections, {}).set_index("measure")
    for measure in ("specificity", "auroc"):
        assert math.isnan(rows.loc[measure, "value"])
        assert rows.loc[measure, "note"].startswith("no lesion-free patient among the held-out ones")
    assert rows.loc["all_found", "value"] == 0.5


def test_without_any_lesion_the_other_measures_are_refused(tmp_path: Path) -> None:
    detections = make_detections("ab", [], [("a", 0.9, 90.0)])
    rows = table_of(applied(tmp_path, detections, {}), detections, {}).set_index("measure")
    assert rows.loc["specificity", "value"] == 0.5
    for measure in ("all_found", "any_found", "auroc"):
        assert math.isnan(rows.loc[measure, "value"])
        assert rows.loc[measure, "note"] == "no lesion of TC in any held-out patient"
    assert (rows["value"].notna() | (rows["note"] != "")).all()


def test_other_cases_are_refused(tmp_path: Path) -> None:
    detections = make_detections("ab", [("a", 90.0, 0.9)], [])
    at_point = applied(tmp_path, detections, {})
    with pytest.raises(ValueError, match="of other cases"):
        table_of(at_point, make_detections("abc", [("a", 90.0, 0.9)], []), {})


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_scikit_learns_ties_included(seed: int) -> None:
    random = np.random.default_rng(seed)
    ill, well = np.round(random.normal(1, 1, 9), 0), np.round(random.normal(0, 1, 6), 0)
    area, (low, high) = auroc_of_patients(ill, well, 0.95)
    assert area == pytest.approx(roc_auc_score([1] * 9 + [0] * 6, np.concatenate([ill, well])))
    assert low <= area <= high


def test_a_perfect_area_is_no_certainty_and_one_patient_none_at_all() -> None:
    area, (low, high) = auroc_of_patients(np.array([3.0, 4, 5]), np.array([1.0, 2, -np.inf]), 0.95)
    assert (area, high) == (1, 1)
    assert low == pytest.approx(0.025 ** (1 / 3))
    assert auroc_of_patients(np.array([3.0, 4, 5]), np.array([1.0]), 0.95) == (1, (0, 1))
    assert math.isnan(auroc_of_patients(np.array([3.0]), np.array([]), 0.95)[0])
