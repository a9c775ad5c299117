"""The operating point: chosen by the rule, on training cases alone, frozen, and refused in any other order."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from detection_examples import make_detections

from brainmets.paths import StudyPaths
from brainmets.scoring.candidates import Detections, write_detections
from brainmets.statistics.operating_point import (
    Aim,
    OperatingPointError,
    Point,
    apply,
    choose,
    cross_validated_tables,
    detection,
    freeze,
    read_cross_validated,
    thaw,
    words,
)
from brainmets.tables import TableError
from brainmets.tables import write as write_table
from brainmets.vocabulary import SCORE_COLUMNS

MODEL = ("default", "finetune")
AIM = Aim("TC", "one_to_one", 1.0)
NOTHING = -math.inf


def training() -> Detections:
    """Two cases, three lesions; small false candidates that a smallest volume of 10 mm^3 leaves out."""
    lesions = [("t1", 100.0, 0.9), ("t1", 50.0, 0.5), ("t2", 30.0, 0.4)]
    false = [("t1", 0.8, 6.0), ("t1", 0.6, 6.0), ("t2", 0.6, 6.0), ("t2", 0.7, 60.0)]
    return make_detections(["t1", "t2"], lesions, false)


def held_out() -> Detections:
    lesions = [("h1", 100.0, 0.39), ("h1", 4.0, 0.9), ("h2", 300.0, 0.4)]
    return make_detections(["h1", "h2", "h3"], lesions, [("h1", 0.5, 60.0), ("h2", 0.3, 60.0), ("h3", 0.9, 9.0)])


def frozen(folder: Path, aim: Aim = AIM) -> tuple[Path, Point]:
    tables = write_detections(folder / "cross_validation" / "default" / "finetune", training())
    point = choose(training(), MODEL, aim, ["h1", "h2", "h3"])
    path = freeze(folder / "operating_point.json", aim, [point], {MODEL: training().cases}, tables, folder)
    return path, point


def test_most_lesions_at_the_target_rate() -> None:
    """Without a smallest volume 4 false candidates stand above 0.4, two are allowed; at 10 mm^3 one is left."""
    point = choose(training(), MODEL, AIM, [])
    assert (point.threshold, point.smallest_mm3, point.found, point.false) == (0.4, 10.0, 3, 1)
    assert (point.sensitivity, point.false_positives, point.met, point.note) == (1, 0.5, True, "")


def test_ties_fall_to_fewer_false_positives_then_the_higher_threshold_then_the_smaller_volume() -> None:
    one = [("t1", 200.0, 0.5)]
    fewer = choose(make_detections(["t1"], one, [("t1", 0.6, 15.0)]), MODEL, AIM, [])
    assert (fewer.threshold, fewer.smallest_mm3, fewer.false) == (0.5, 20.0, 0), "0 mm^3 would keep the rate as well"
    higher = choose(make_detections(["t1"], one, [("t1", 0.3, 15.0)]), MODEL, AIM, [])
    assert (higher.threshold, higher.smallest_mm3, higher.false) == (0.5, 0.0, 0)


def test_equal_scores_are_accepted_together() -> None:
    """At 0.5 come the lesion and two false candidates: more than one a case; 0.9 keeps the rate."""
    tied = make_detections(["t1"], [("t1", 90.0, 0.5), ("t1", 90.0, 0.9)], [("t1", 0.5, 90.0), ("t1", 0.5, 90.0)])
    point = choose(tied, MODEL, AIM, [])
    assert (point.threshold, point.found, point.false) == (0.9, 1, 0)


def test_a_target_that_cannot_be_met_is_said() -> None:
    bad = make_detections(["t1"], [("t1", 90.0, 0.5)], [("t1", 0.9, 90.0), ("t1", 0.9, 90.0)])
    point = choose(bad, MODEL, AIM, [])
    assert (point.threshold, point.found, point.false, point.met) == (0.5, 1, 2, False), "of equals more found"
    assert point.note == "the target cannot be met: the fewest false positives that there are"


def test_a_model_without_candidates_accepts_nothing_and_says_so(tmp_path: Path) -> None:
    none = make_detections(["t1"], [("t1", 90.0, NOTHING)], [])
    point = choose(none, MODEL, AIM, [])
    assert (point.threshold, point.lesions, point.found) == (math.inf, 1, 0)
    path = freeze(tmp_path / "operating_point.json", AIM, [point], {MODEL: ["t1"]}, [], tmp_path)
    assert thaw(path, tmp_path).points[MODEL] == point
    applied = apply(path, tmp_path, held_out(), MODEL)
    assert not applied.lesions["found"].any()
    assert applied.false.empty
    assert set(detection({MODEL: applied}, 0.05, {})["note"]) >= {
        "no candidate in cross-validation: nothing is accepted"
    }


def test_other_cases_than_those_that_chose_are_not_frozen(tmp_path: Path) -> None:
    point = choose(training(), MODEL, AIM, [])
    with pytest.raises(ValueError, match="1 are named for default finetune, 2 chose its point"):
        freeze(tmp_path / "operating_point.json", AIM, [point], {MODEL: ["t1"]}, [], tmp_path)


def test_frozen_then_applied(tmp_path: Path) -> None:
    """Threshold 0.4, 10 mm^3: of the lesions the one at 0.4 is found, the small one's candidate is too small."""
    path, point = frozen(tmp_path)
    assert thaw(path, tmp_path).points == {MODEL: point}
    applied = apply(path, tmp_path, held_out(), MODEL)
    assert applied.lesions["found"].tolist() == [False, False, True]
    assert applied.false["case"].tolist() == ["h1"], "0.3 is below the threshold, 9 mm^3 below the volume"
    table = detection({MODEL: applied}, 0.05, {}).set_index("size")
    assert table.loc["all", ["cases", "lesions", "found", "false"]].tolist() == [3, 3, 1, 1]
    assert table.loc["all", "false_positives"] == 1 / 3
    assert table.loc["all", "false_positives_in_choice"] == 0.5
    assert table.loc["<3 mm", ["lesions", "found", "sensitivity"]].tolist() == [1, 0, 0]
    assert table["false_positives"].notna().sum() == 1, "false positives have no size"
    assert table.loc["3-5 mm", ["sensitivity", "low", "high"]].isna().all()
    assert table.loc["3-5 mm", "note"] == "no such lesion: no sensitivity"


def test_held_out_cases_do_not_choose() -> None:
    with pytest.raises(OperatingPointError, match="t2: held out, and must not choose"):
        choose(training(), MODEL, AIM, ["t2", "h1"])


def test_nothing_is_applied_before_it_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(OperatingPointError, match="is not there: choose the operating point on the cross-validated"):
        apply(tmp_path / "operating_point.json", tmp_path, held_out(), MODEL)


@pytest.mark.parametrize("change", ["threshold", "chosen_on", "aim", "inputs"])
def test_an_edited_file_is_refused(tmp_path: Path, change: str) -> None:
    path, _ = frozen(tmp_path)
    content = json.loads(path.read_text())
    if change in ("threshold", "chosen_on"):
        content["points"][0][change] = {"threshold": 0.39, "chosen_on": ["t1"]}[change]
    else:
        content[change] = {"aim": {**content["aim"], "false_positives": 2.0}, "inputs": {}}[change]
    path.write_text(json.dumps(content))
    with pytest.raises(OperatingPointError, match="is not what was frozen"):
        apply(path, tmp_path, held_out(), MODEL)


@pytest.mark.parametrize("content", ["{}", '{"sha256": "0", "points": [1]}', "[]", '{"sha256": "0", "points": [{}]}'])
def test_a_file_of_another_shape_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "operating_point.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"operating_point\.json"):
        apply(path, tmp_path, held_out(), MODEL)


@pytest.mark.parametrize("name", ["candidates.csv", "targets.csv", "overlaps.csv"])
def test_tables_that_changed_since_are_refused(tmp_path: Path, name: str) -> None:
    path, _ = frozen(tmp_path)
    table = tmp_path / "cross_validation" / "default" / "finetune" / name
    table.write_text(table.read_text() + " ")
    with pytest.raises(OperatingPointError, match=rf"finetune/{name}, on which .* has changed since"):
        apply(path, tmp_path, held_out(), MODEL)
    table.unlink()
    with pytest.raises(OperatingPointError, match="is missing"):
        apply(path, tmp_path, held_out(), MODEL)


def test_a_case_or_patient_that_chose_is_not_judged(tmp_path: Path) -> None:
    path, _ = frozen(tmp_path)
    again = make_detections(["t1", "h1"], [("t1", 90.0, 0.5)], [])
    with pytest.raises(OperatingPointError, match=r"^t1: held-out, and it or another scan of its patient"):
        apply(path, tmp_path, again, MODEL)
    same_patient = {"t1": "p1", "t2": "p2", "h1": "p3", "h2": "p1", "h3": "p4"}
    with pytest.raises(OperatingPointError, match=r"^h2: held-out"):
        apply(path, tmp_path, held_out(), MODEL, same_patient)


def test_another_models_rows_and_a_model_without_a_point_are_refused(tmp_path: Path) -> None:
    path, _ = frozen(tmp_path)
    with pytest.raises(OperatingPointError, match="holds no point of default scratch"):
        apply(path, tmp_path, held_out(), ("default", "scratch"))
    others = make_detections(["h1"], [("h1", 90.0, 0.5)], [], model=("default", "scratch"))
    with pytest.raises(OperatingPointError, match="rows of default scratch among those of default finetune"):
        apply(path, tmp_path, others, MODEL)
    with pytest.raises(OperatingPointError, match="rows of default finetune among those of default scratch"):
        choose(training(), ("default", "scratch"), AIM, [])


def test_the_cases_that_choose_are_all_that_were_cross_validated(tmp_path: Path) -> None:
    """Of the score table, since a case without lesions and candidates is in no table of candidates."""
    files = StudyPaths(str(tmp_path), "tiny")
    folder = files.cross_validation_folder(*MODEL)
    write_detections(folder, training())
    rows = [(*MODEL, case, "TC", "dice", 0.5, "1") for case in ("t1", "t2", "t3")]
    write_table(folder / "scores.csv", pd.DataFrame(rows, columns=list(SCORE_COLUMNS)))
    read = read_cross_validated(files, [MODEL])
    assert read[MODEL].cases == ("t1", "t2", "t3")
    assert choose(read[MODEL], MODEL, AIM, []).false_positives == 1 / 3
    assert all(path.is_file() for path in cross_validated_tables(files, [MODEL]))
    assert read_cross_validated(files, []) == {}
    write_table(folder / "scores.csv", pd.DataFrame(rows[:1], columns=list(SCORE_COLUMNS)))
    with pytest.raises(TableError, match="t2 is not among the cases"):
        read_cross_validated(files, [MODEL])


def test_in_words(tmp_path: Path) -> None:
    path, _ = frozen(tmp_path)
    table = detection({MODEL: apply(path, tmp_path, held_out(), MODEL)}, 0.05, {})
    (sentence,) = words(table, 0.05)
    assert sentence.startswith("Default fine-tuned: 1 of 3 lesions of TC found (33%, 95% interval ")
    assert "at 0.33 false positives a case (" in sentence
    assert "; 1 was aimed at); threshold 0.40, 10 mm^3 at least; both chosen on training cases." in sentence
    assert words(table[:0], 0.05) == []
    nothing = words(table.assign(lesions=0, threshold=math.inf), 0.05)[0]
    assert "no lesion of TC was there to be found" in nothing
    assert "nothing is accepted" in nothing
