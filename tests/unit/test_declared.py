"""When the rule was declared: recorded before the run, never taken back, and refused where it was tampered with."""

import json
from pathlib import Path

import pytest
from decided import rule

from brainmets.params import Detection, SmallLesions
from brainmets.paths import StudyPaths
from brainmets.statistics.declared import UNKNOWN, DeclaredError, declare, declare_small_lesions, read

AIM = Detection(region="TC", hit="one_to_one", false_positives=1.0)
SMALL = SmallLesions(baseline="default", below_mm=5.0, false_positives=1.0, alpha=0.05)


@pytest.fixture
def files(tmp_path: Path) -> StudyPaths:
    return StudyPaths(str(tmp_path), "study")


def leave(folder: Path) -> None:
    """A result in ``folder``."""
    folder.mkdir(parents=True)
    (folder / "result").write_text("there")


def test_a_rule_declared_before_the_first_training_stays_so(files: StudyPaths) -> None:
    first = declare(files, rule(), AIM)
    assert (first.when, first.changed, first.confirms) == ("before training", False, True)
    was = files.declared.read_bytes()
    leave(files.training_folder("finetune", "default", 0))
    leave(files.predictions("default", "finetune"))
    assert declare(files, rule(), AIM) == first
    assert files.declared.read_bytes() == was, "the same rule is not declared again"


def test_a_rule_declared_between_training_and_evaluation(files: StudyPaths) -> None:
    leave(files.training_folder("finetune", "default", 0))
    assert declare(files, rule(), AIM).when == "before evaluation"


@pytest.mark.parametrize(
    "place", ["evaluation/default/finetune", "repeat_2/evaluation/default/finetune", "left_out/evaluation/default-1"]
)
def test_a_rule_first_recorded_after_results_confirms_nothing(files: StudyPaths, place: str) -> None:
    leave(files.work / place)
    late = declare(files, rule(), AIM)
    assert (late.when, late.changed, late.confirms) == ("after", False, False)


def test_a_change_is_a_further_entry_and_late_where_results_are_there(files: StudyPaths) -> None:
    declare(files, rule(), AIM)
    early = declare(files, rule(margin=0.04), AIM)
    assert (early.when, early.changed, early.confirms) == ("before training", True, True)
    leave(files.predictions("default", "finetune"))
    for changed in (rule(margin=0.03), rule(margin=0.03, secondary=[("dice", "ET")]), rule(margin=0.03, alpha=0.05)):
        late = declare(files, changed, AIM)
        assert (late.when, late.changed, late.confirms) == ("after", True, False)
    back = declare(files, rule(margin=0.04), AIM)
    assert not back.confirms, "who changes a rule with results at hand and back has seen what either gives"
    assert [entry["rule"]["margin"] for entry in read(files.declared)] == [0.05, 0.04, 0.03, 0.03, 0.03, 0.04]


def test_the_operating_point_is_part_of_a_rule_that_rests_on_it(files: StudyPaths) -> None:
    one, two = AIM, AIM.model_copy(update={"false_positives": 2.0})
    declare(files, rule(), one)
    assert not declare(files, rule(), two).changed, "no endpoint is one of detection"
    detection = rule(secondary=[("detection_sensitivity", "TC")])
    declare(files, detection, one)
    leave(files.predictions("default", "finetune"))
    assert declare(files, detection, one).confirms
    assert not declare(files, detection, two).confirms


def test_small_lesions_are_declared_for_themselves(files: StudyPaths) -> None:
    declare(files, rule(), AIM)
    assert declare_small_lesions(files, SMALL, AIM).in_words == "declared before the first training"
    assert declare_small_lesions(files, SMALL, AIM.model_copy(update={"false_positives": 9.0})).changed is False
    leave(files.predictions("default", "finetune"))
    larger = SMALL.model_copy(update={"below_mm": 6.0})
    assert declare_small_lesions(files, larger, AIM).in_words == "changed after results were there: exploratory"
    assert declare(files, rule(), AIM).confirms, "the study's decision is as it was"
    files.declared_small_lesions.unlink()
    late = declare_small_lesions(files, SMALL, AIM.model_copy(update={"hit": "centroid"}))
    assert late.in_words == "first recorded after results were there: exploratory"


def test_a_rule_changed_in_time_is_told(files: StudyPaths) -> None:
    declare(files, rule(), AIM)
    assert declare(files, rule(margin=0.04), AIM).in_words == "declared before the first training, after another one"


def test_tables_from_elsewhere_confirm_nothing() -> None:
    assert not UNKNOWN.confirms


@pytest.mark.parametrize(
    "damage",
    [
        lambda entries: entries[0]["rule"].update(margin=0.01),
        lambda entries: entries[1].update(evaluated=False),
        lambda entries: entries[0].update(declared="2020-01-01T00:00:00+00:00"),
        lambda entries: entries.pop(0),
        lambda entries: entries.clear(),
        lambda entries: entries[1].pop("trained"),
        lambda entries: entries[1].update(further=1),
        lambda entries: entries.reverse(),
        lambda entries: entries.append(entries[0]),
    ],
)
def test_a_file_that_was_changed_by_hand_is_refused(files: StudyPaths, damage) -> None:
    declare(files, rule(), AIM)
    leave(files.predictions("default", "finetune"))
    declare(files, rule(margin=0.01), AIM)
    content = json.loads(files.declared.read_text())
    damage(content["entries"])
    files.declared.write_text(json.dumps(content))
    with pytest.raises(DeclaredError, match=r"declared\.json is damaged or was changed by hand"):
        declare(files, rule(), AIM)
    with pytest.raises(DeclaredError):
        declare(files, rule(margin=0.01), AIM)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"entries": 1}', '{"entries": [1]}', '{"entries": {"a": 1}}'])
def test_a_file_that_is_none_is_refused(files: StudyPaths, text: str) -> None:
    files.work.mkdir(parents=True)
    files.declared.write_text(text)
    with pytest.raises(DeclaredError, match="put back the file that was written, or delete it"):
        declare(files, rule(), AIM)


def test_without_its_first_part_the_last_entry_is_not_believed(files: StudyPaths) -> None:
    """Only the last entries can be lost unseen; then the rule in the YAML is a change, with results there."""
    declare(files, rule(), AIM)
    leave(files.predictions("default", "finetune"))
    declare(files, rule(margin=0.01), AIM)
    content = json.loads(files.declared.read_text())
    files.declared.write_text(json.dumps({"entries": content["entries"][:1]}))
    assert not declare(files, rule(margin=0.01), AIM).confirms


def test_a_further_name_beside_the_entries_is_refused(files: StudyPaths) -> None:
    declare(files, rule(), AIM)
    content = json.loads(files.declared.read_text())
    files.declared.write_text(json.dumps({**content, "note": "all well"}))
    with pytest.raises(DeclaredError):
        declare(files, rule(), AIM)
