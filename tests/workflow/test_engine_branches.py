"""Repeats, learning curve and scratch control through Snakemake: what is run, continued, and not run again."""

import json
from pathlib import Path

import pytest
from fake_checkout import FakeCheckout, steps

from brainmets.engine.notebook import job_of
from brainmets.engine.steps import damages, jobs, outdated, result, set_aside_others
from brainmets.params import ParameterError
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.vocabulary import STRATEGIES

BRANCHES = {"repeats": 2, "learning_curve": [3], "strategies": [*STRATEGIES]}
OF_TRAINING_AND_EVALUATION = [
    "03_pretraining_default_fold_0",
    "03_pretraining_default_fold_0_repeat_2",
    "04_fine_tuning_default_fold_0",
    "04_fine_tuning_default_fold_0_repeat_2",
    "04_fine_tuning_default_fold_0_cases_3",
    "05_from_scratch_default_fold_0",
    "05_from_scratch_default_scratch_control_fold_0",
    "05_from_scratch_default_fold_0_repeat_2",
    "05_from_scratch_default_scratch_control_fold_0_repeat_2",
    "05_from_scratch_default_fold_0_cases_3",
    "06_evaluation_default_pretrained",
    "06_evaluation_default_finetune",
    "06_evaluation_default_scratch",
    "06_evaluation_default_scratch_control",
    "06_evaluation_default_pretrained_repeat_2",
    "06_evaluation_default_finetune_repeat_2",
    "06_evaluation_default_scratch_repeat_2",
    "06_evaluation_default_scratch_control_repeat_2",
    "06_evaluation_default_finetune_cases_3",
    "06_evaluation_default_scratch_cases_3",
]
STEPS = ["01_data_audit", "02_plan_alignment", *OF_TRAINING_AND_EVALUATION, "07_statistics", "08_case_review"]
LAST = ["07_statistics", "08_case_review"]


def planned(checkout: FakeCheckout) -> list[str]:
    """The steps that a dry run lists, up to notebook 08."""
    ended = checkout.brainmets("study", "params/tiny.yaml", "-n", "--", "statistics", "case_review")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [line.strip() for line in ended.stdout.splitlines() if line.startswith("  0") and " is " not in line]


@pytest.fixture(scope="module")
def main_alone(tmp_path_factory: pytest.TempPathFactory) -> FakeCheckout:
    """A finished study of one arm without any branch."""
    checkout = FakeCheckout(tmp_path_factory.mktemp("branches"), arms=("default",))
    ended = checkout.study()
    assert ended.returncode == 0, ended.stdout
    return checkout


def test_a_study_lists_every_job_of_every_branch(tmp_path: Path) -> None:
    checkout = FakeCheckout(tmp_path, arms=("default",), **BRANCHES)
    assert planned(checkout) == STEPS


@pytest.mark.slow
def test_branches_are_added_interrupted_and_continued_and_what_is_done_is_not_run_again(
    main_alone: FakeCheckout, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = main_alone
    monkeypatch.setenv("BRAINMETS_ROOT", str(checkout.root))
    before = checkout.ran()
    done = [name for name in STEPS[:-2] if "repeat" not in name and "cases" not in name and "control" not in name]
    checkout.write(checkout.content() | BRANCHES)
    assert planned(checkout) == [name for name in STEPS if name not in done], "the main trainings stay as they are"

    trap = checkout.trap("04_fine_tuning_default_0_2")  # of repeat 2
    ended = checkout.study()
    assert ended.returncode == 1
    assert "FAILED: 04_fine_tuning_default_fold_0_repeat_2 after" in ended.stdout
    assert "04_fine_tuning params/tiny.yaml arm=default fold=0 repeat=2" in ended.stdout, "how to run it again"
    assert "07_statistics" not in steps(ended.stdout), "the statistics wait for every branch"
    trap.unlink()
    continued = checkout.study()
    assert continued.returncode == 0, continued.stdout
    assert sorted(steps(continued.stdout)) == sorted(
        ["04_fine_tuning_default_fold_0_repeat_2", "06_evaluation_default_finetune_repeat_2", *LAST]
    )
    after = checkout.ran()
    again = {name for name, times in before.items() if after[name] != times}
    assert again == set(LAST), "only what reads the branches"

    study, files = Study.read(checkout.params), StudyPaths("work", "tiny")
    assert all(result(files, *one).is_file() for one in jobs(study) if one[0] != "00_preparation")
    assert (outdated(study, files), damages(study, files)) == ([], {})
    control = files.branch(2).training("scratch_control", "default", 0)
    parameters = json.loads(control.read_text())["provenance"]["parameters"]
    content = checkout.content()
    assert parameters["epochs"] == content["pretraining"]["epochs"] + content["fine_tuning"]["epochs"]
    assert (parameters["repeat"], parameters["strategy"]) == (2, "scratch_control")
    assert not files.branch(training_cases=3).branch_folder.joinpath("training", "pretraining").exists()

    checkout.write(checkout.content() | {"repeats": 3, "learning_curve": [3, 4]})
    new = [name for name in planned(checkout) if name not in LAST]
    assert new
    assert all(name.endswith(("_repeat_3", "_cases_4")) for name in new), "a further repeat or size runs itself alone"

    _a_damaged_checkpoint_of_a_branch_is_found(checkout, study, files)
    _a_branch_that_is_dropped_is_set_aside(checkout, files)


def _a_damaged_checkpoint_of_a_branch_is_found(checkout: FakeCheckout, study: Study, files: StudyPaths) -> None:
    table = files.branch(training_cases=3).training_folder("finetune", "default", 0) / "numbers.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:-1])
    assert list(damages(study, files)) == ["04_fine_tuning_default_fold_0_cases_3"]
    table.write_bytes(whole)


def _a_branch_that_is_dropped_is_set_aside(checkout: FakeCheckout, files: StudyPaths) -> None:
    scored = files.branch(2).evaluation_folder("default", "scratch")
    control = files.evaluation_folder("default", "scratch_control")
    assert scored.is_dir()
    assert control.is_dir()
    checkout.write(
        checkout.content() | {"repeats": 1, "learning_curve": [3], "strategies": ["pretrained", "finetune", "scratch"]}
    )
    ended = checkout.study()
    assert ended.returncode == 0, ended.stdout
    assert "repeat 2 is no branch of this study any more: its scores are now in work/tiny/left_out" in ended.stdout
    assert "scratch_control is no strategy of this study any more" in ended.stdout
    assert sorted(steps(ended.stdout)) == LAST, "notebooks 07 and 08 no longer read them"
    assert not scored.exists()
    assert not control.exists()
    assert (files.work / "left_out/repeat_2/evaluation-1/default/scratch/evaluation.json").is_file()
    assert files.branch(2).training("scratch", "default", 0).is_file(), "who takes it back trains nothing anew"
    checkout.write(checkout.content() | {"repeats": 2})
    assert all(name in LAST or name.startswith("06_") for name in planned(checkout))


def test_only_scores_of_branches_that_are_gone_are_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    study = Study.read(FakeCheckout(tmp_path, arms=("default",), repeats=2, learning_curve=[3]).params)
    files = StudyPaths("work", "tiny")
    kept = [files, files.branch(2), files.branch(training_cases=3)]
    gone = [files.branch(3), files.branch(10), files.branch(training_cases=4)]
    for branch in (*kept, *gone):
        for folder in (branch.evaluations, branch.cross_validations, branch.forgettings):
            (folder / "default" / "finetune").mkdir(parents=True)
    (files.work / "repeat_notes").mkdir()
    assert set_aside_others(study, files) == [
        "cases 4 is no branch of this study any more",
        "repeat 3 is no branch of this study any more",
        "repeat 10 is no branch of this study any more",
    ]
    for branch in kept:
        assert branch.forgetting_folder("default", "finetune").is_dir()
    for branch in gone:
        assert not branch.evaluations.exists()
        assert not branch.cross_validations.exists()
        assert not branch.forgettings.exists()
    assert set_aside_others(study, files) == []


def test_a_step_of_a_branch_is_named_on_the_command_line(tmp_path: Path) -> None:
    study = Study.read(FakeCheckout(tmp_path, arms=("default",), **BRANCHES).params)
    of_fold = {"arm": "default", "fold": 0}
    assert job_of(study, "05_from_scratch", {**of_fold, "repeat": 1, "strategy": "scratch"}) == of_fold
    assert job_of(study, "05_from_scratch", {**of_fold, "training_cases": 3}) == {**of_fold, "training_cases": 3}
    for wrong in ({"repeat": 3}, {"repeat": 2, "training_cases": 3}, {"strategy": "finetune"}):
        with pytest.raises(ParameterError) as refused:
            job_of(study, "05_from_scratch", {**of_fold, **wrong})
        assert "choose arm=default fold=0 [repeat=2] [training_cases=3] [strategy=scratch_control]" in str(
            refused.value
        )
    with pytest.raises(ParameterError, match="03_pretraining takes no training_cases"):
        job_of(study, "03_pretraining", {**of_fold, "training_cases": 3})
    with pytest.raises(ParameterError, match="07_statistics takes no repeat"):
        job_of(study, "07_statistics", {"repeat": 2})


def test_a_step_of_a_branch_is_run_alone(tmp_path: Path) -> None:
    checkout = FakeCheckout(tmp_path, arms=("default",), **BRANCHES)
    ended = checkout.brainmets("notebook", "05", "params/tiny.yaml", "arm=default", "fold=0", "training_cases=3")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (checkout.work / "runs" / "05_from_scratch_default_fold_0_cases_3.ipynb").is_file()
    assert (checkout.work / "cases_3/training/scratch/default/fold_0/training.json").is_file()
