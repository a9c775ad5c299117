"""What a study trains beside its main trainings: parameters, paths, seeds and subsets of cases."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_study import training_parameters

from brainmets.cohorts import splits
from brainmets.cohorts.cohort import read_manifest
from brainmets.cohorts.splits import Split, SplitError, split_cohort, subset, training_cases
from brainmets.engine.notebook import job_of
from brainmets.engine.steps import decisive, job_of_wildcards, result, step_name
from brainmets.engine.study import check
from brainmets.files import read_json
from brainmets.params import Evaluation, FineTuning, FromScratch, ParameterError, Pretraining
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.training.commands import training_command
from brainmets.training.seeds import training_seeds
from brainmets.training.session import IDENTITY, identity, prepare
from brainmets.vocabulary import STRATEGIES

PARAMS = Path(__file__).resolve().parents[2] / "params"
BRANCHES = {"repeats": 3, "learning_curve": [2, 3], "strategies": [*STRATEGIES]}


@pytest.fixture
def content() -> dict:
    content = yaml.safe_load((PARAMS / "smoke.yaml").read_text())
    return content | {"arms": {"default": content["arms"]["default"]}, "folds": [0]}


# --- parameters ----------------------------------------------------------------------------------------------------


def test_a_study_without_branches_has_the_main_one_alone(content: dict) -> None:
    study = Study(content, "own")
    assert study.branches() == [(1, None)]
    assert study.strategies == ["pretrained", "finetune", "scratch"]
    assert study.jobs("05_from_scratch") == [{"arm": "default", "fold": 0}]


def test_branches_are_repeats_of_everything_and_fewer_cases_of_what_is_compared(content: dict) -> None:
    study = Study(content | BRANCHES, "own")
    assert study.branches() == [(1, None), (2, None), (3, None), (1, 2), (1, 3)]
    assert study.strategies == ["pretrained", "finetune", "scratch", "scratch_control"]
    of_fold = {"arm": "default", "fold": 0}
    assert study.jobs("03_pretraining") == [of_fold, of_fold | {"repeat": 2}, of_fold | {"repeat": 3}]
    assert study.jobs("04_fine_tuning")[3:] == [of_fold | {"training_cases": 2}, of_fold | {"training_cases": 3}]
    controls = [job for job in study.jobs("05_from_scratch") if job.get("strategy") == "scratch_control"]
    assert [job.get("repeat") for job in controls] == [None, 2, 3]
    evaluated = {
        (job.get("repeat"), job.get("training_cases"), job["strategy"]) for job in study.jobs("06_evaluation")
    }
    assert len(evaluated) == len(study.jobs("06_evaluation")) == 3 * 4 + 2 * 2
    assert {strategy for _, cases, strategy in evaluated if cases} == {"finetune", "scratch"}
    for notebook in ("01_data_audit", "02_plan_alignment", "07_statistics", "08_case_review"):
        assert study.jobs(notebook) == [{}]


def test_the_control_trains_as_many_epochs_as_both_trainings_of_the_fine_tuned(content: dict) -> None:
    for name, epochs in (("pretraining", 7), ("fine_tuning", 3), ("from_scratch", 3)):
        content[name]["epochs"] = epochs
    study = Study(content | BRANCHES, "own")
    of_fold = {"arm": "default", "fold": 0}
    assert study.notebook("05_from_scratch", **of_fold, strategy="scratch_control").epochs == 10
    assert study.notebook("05_from_scratch", **of_fold).epochs == 3
    assert study.notebook("05_from_scratch", **of_fold, training_cases=2).epochs == 3
    content["pretraining"]["iterations_per_epoch"] += 1
    with pytest.raises(
        ParameterError, match=r"scratch_control: as many epochs .* pretraining has \d+ and fine_tuning"
    ):
        Study(content | BRANCHES, "own")
    Study(content | BRANCHES | {"strategies": ["finetune", "scratch"]}, "own")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("repeats", 0, "repeats: 0 must be a whole number from 1 to 10"),
        ("repeats", 11, "repeats: 11 must be a whole number from 1 to 10"),
        ("repeats", True, "repeats: true must be a whole number from 1 to 10"),
        ("repeats", None, "repeats: nothing must be a whole number"),
        ("learning_curve", [5, 5], r"learning_curve: \[5, 5\] must rise, each size given once"),
        ("learning_curve", [10, 5], r"learning_curve: \[10, 5\] must rise"),
        ("learning_curve", [0], "learning_curve.0: 0 must be a whole number from 1"),
        ("learning_curve", [2.5], "learning_curve.0: 2.5 must be a whole number"),
        ("learning_curve", 5, r"learning_curve: must be a list \(given: 5\)"),
        ("strategies", [], r"strategies: \[\] lacks finetune"),
        ("strategies", ["pretrained", "scratch"], r"strategies: \['pretrained', 'scratch'\] lacks finetune"),
        ("strategies", ["finetune", "finetune"], "strategies: .* names finetune twice"),
        (
            "strategies",
            ["finetune", "scratch_control"],
            "strategies: .* scratch_control is what scratch is compared with",
        ),
        (
            "strategies",
            ["finetune", "tuned"],
            "strategies.1: Input should be 'pretrained', 'finetune', 'scratch' or 'scratch_control'",
        ),
        ("strategies", "finetune", "strategies: must be a list"),
    ],
)
def test_a_wrong_number_of_branches_is_refused_by_name(content: dict, name: str, value: object, said: str) -> None:
    with pytest.raises(ParameterError, match=f"^own: {said}"):
        Study(content | {name: value}, "own")


def test_a_study_trains_and_evaluates_only_its_strategies(content: dict) -> None:
    study = Study(content | {"strategies": ["finetune"]}, "own")
    assert study.jobs("03_pretraining") == study.jobs("04_fine_tuning") == [{"arm": "default", "fold": 0}]
    assert study.jobs("05_from_scratch") == []
    assert study.jobs("06_evaluation") == [{"arm": "default", "strategy": "finetune"}]
    with pytest.raises(ParameterError, match=r"05_from_scratch trains nothing .* whose strategies are finetune"):
        job_of(study, "05_from_scratch", {"arm": "default", "fold": 0})


def test_strategies_stand_in_the_order_of_every_table(content: dict) -> None:
    assert Study(content | {"strategies": ["scratch", "finetune"]}, "own").strategies == ["finetune", "scratch"]


def test_what_needs_a_strategy_is_refused_without_it(content: dict) -> None:
    with pytest.raises(ParameterError, match=r"own: learning_curve: \[2\] trains .* add scratch to strategies"):
        Study(content | {"strategies": ["finetune"], "learning_curve": [2]}, "own")
    content["source"]["held_out"] = 1
    with pytest.raises(ParameterError, match=r"own: source.held_out: 1: .* add pretrained to strategies"):
        Study(content | {"strategies": ["finetune", "scratch"]}, "own")


@pytest.mark.parametrize("name", BRANCHES)
def test_a_file_from_before_there_were_branches_is_refused_by_the_missing_name(content: dict, name: str) -> None:
    del content[name]
    with pytest.raises(ParameterError, match=f"{name}: missing"):
        Study(content, "own")


def test_another_repeat_with_fewer_cases_is_refused(content: dict) -> None:
    job = {"arm": "default", "strategy": "scratch", "repeat": 2, "training_cases": 5}
    with pytest.raises(
        ParameterError, match="training_cases: 5 with repeat 2: fewer cases are trained with in repeat 1"
    ):
        Evaluation(**Study(content, "own").values("06_evaluation", **job))
    with pytest.raises(ValueError, match="repeat 2 with 5 training cases"):
        StudyPaths("/data", "own").branch(2, 5)


def test_the_audit_is_not_outdated_by_another_learning_curve_and_the_statistics_are(content: dict) -> None:
    few, many = (Study(content | {"learning_curve": sizes}, "own") for sizes in ([2], [2, 3]))
    for notebook in ("01_data_audit", "02_plan_alignment"):
        assert decisive(few.values(notebook)) == decisive(many.values(notebook))
    assert decisive(few.values("07_statistics")) != decisive(many.values("07_statistics"))


# --- paths and names -----------------------------------------------------------------------------------------------


def test_a_branch_has_its_own_trainings_and_scores_and_shares_the_rest() -> None:
    files = StudyPaths("/data", "own")
    repeat, fewer = files.branch(repeat=2), files.branch(training_cases=5)
    assert files.branch() == files == repeat.branch()
    assert repeat.checkpoint("finetune", "default", 1).parent == Path(
        "/data/own/repeat_2/training/finetune/default/fold_1"
    )
    assert repeat.checkpoint("pretraining", "default", 0).is_relative_to("/data/own/repeat_2/training/pretraining")
    assert fewer.checkpoint("scratch", "default", 0).is_relative_to("/data/own/cases_5/training/scratch")
    assert fewer.checkpoint("pretraining", "default", 0) == files.checkpoint("pretraining", "default", 0)
    for branch, name in ((repeat, "repeat_2"), (fewer, "cases_5")):
        for folder, kind in (
            (branch.evaluation_folder("default", "scratch"), "evaluation"),
            (branch.cross_validation_folder("default", "scratch"), "cross_validation"),
            (branch.forgetting_folder("default", "scratch"), "forgetting"),
        ):
            assert folder == Path("/data/own") / name / kind / "default" / "scratch"
        assert branch.left_out_training("scratch", "default", 0) == Path(
            f"/data/own/left_out/{name}/training/scratch/default/fold_0-1"
        )
        for own in ("splits", "alignment", "statistics", "review", "runs", "lock", "references", "best_model"):
            assert getattr(branch, own) == getattr(files, own)


def test_steps_of_branches_are_named_and_found(content: dict) -> None:
    study, files = Study(content | BRANCHES, "own"), StudyPaths("/data", "own")
    every = [(notebook, job) for notebook in ("03_pretraining", "04_fine_tuning", "05_from_scratch", "06_evaluation")
             for job in study.jobs(notebook)]  # fmt: skip
    assert len({step_name(*one) for one in every}) == len({result(files, *one) for one in every}) == len(every)
    assert (
        step_name("03_pretraining", {"arm": "default", "fold": 0, "repeat": 2})
        == "03_pretraining_default_fold_0_repeat_2"
    )
    control = {"arm": "default", "fold": 0, "strategy": "scratch_control"}
    assert result(files, "05_from_scratch", control).is_relative_to("/data/own/training/scratch_control/default")
    wildcards = {"branch": "", "arm": "default", "fold": "0", "strategy": "scratch"}
    assert job_of_wildcards("05_from_scratch", wildcards) == {"arm": "default", "fold": 0}


def test_the_command_that_trains_a_branchs_checkpoint_again() -> None:
    files = StudyPaths("/data", "demo")
    said = {
        files: "notebook 04 params/demo.yaml arm=default fold=0",
        files.branch(2): "notebook 04 params/demo.yaml arm=default fold=0 repeat=2",
        files.branch(training_cases=5): "notebook 04 params/demo.yaml arm=default fold=0 training_cases=5",
    }
    for branch, command in said.items():
        assert training_command(branch.checkpoint("finetune", "default", 0)) == f"brainmets {command}"
    control = training_command(files.branch(2).checkpoint("scratch_control", "default", 0))
    assert control == "brainmets notebook 05 params/demo.yaml arm=default fold=0 strategy=scratch_control repeat=2"


# --- seeds ---------------------------------------------------------------------------------------------------------


def test_the_first_repeat_has_the_seeds_that_trainings_had_before_there_were_repeats(small_study: StudyPaths) -> None:
    expected = {  # by hand: printf '[1,"weights","scratch","default",0,0]' | sha256sum | cut -c -16, and so on
        "weights": 0x85B9893352AEEBC6,
        "batches": 18068354993924299392,
    }
    assert training_seeds(1, "scratch", "default", 0)._asdict() == expected
    assert identity(small_study, training_parameters(FromScratch, small_study), "scratch")["seeds"] == expected


def test_every_repeat_has_seeds_of_its_own_and_pairs_share_their_batches(small_study: StudyPaths) -> None:
    seeds = {
        (stage, repeat): identity(small_study, training_parameters(model, small_study, repeat=repeat), stage)["seeds"]
        for model, stage in ((Pretraining, "pretraining"), (FromScratch, "scratch"), (FromScratch, "scratch_control"))
        for repeat in (1, 2, 3)
    }
    assert len({one["weights"] for one in seeds.values()}) == 9
    for repeat in (1, 2, 3):
        assert seeds["scratch", repeat]["batches"] == seeds["scratch_control", repeat]["batches"]
    assert len({one["batches"] for one in seeds.values()}) == 6
    assert seeds["scratch", 3] == training_seeds(1, "scratch", "default", 0, 2)._asdict()


def test_a_main_trainings_identity_is_what_it_was_so_that_nothing_is_trained_anew(small_study: StudyPaths) -> None:
    parameters = training_parameters(FromScratch, small_study)
    assert not {"repeat", "training_cases", "strategy"} & set(identity(small_study, parameters, "scratch"))


# --- subsets of cases ----------------------------------------------------------------------------------------------


def split_of(patients: dict[str, str], n_folds: int = 2) -> Split:
    return split_cohort(patients, 0, n_folds, seed=1)


def test_subsets_are_nested_and_hold_whole_patients() -> None:
    patients = {f"P{number:02d}": f"P{number:02d}" for number in range(12)} | {"P03_b": "P03", "P07_b": "P07"}
    split = split_of(patients, n_folds=3)
    found = {}
    for n in range(3, len(patients)):
        try:
            found[n] = set(subset(split, patients, n, seed=4))
        except SplitError as error:
            assert f"{n} training cases would separate a patient's scans; {n - 1} and {n + 1} do not" in str(error)
    assert len(found) == len(range(3, len(patients))) - 2, "one number is out of reach for each of the two patients"
    assert all(len(cases) == n for n, cases in found.items())
    assert all(smaller < larger for smaller, larger in pairwise(found.values()))
    for cases in found.values():
        assert ("P03" in cases) == ("P03_b" in cases)
        assert ("P07" in cases) == ("P07_b" in cases)


def test_a_subset_follows_from_the_seed_and_no_held_out_case_is_in_it() -> None:
    patients = {f"P{number:02d}": f"P{number:02d}" for number in range(20)}
    split = split_cohort(patients, 5, 3, seed=1)
    assert len(training_cases(split)) == 15
    drawn = {seed: tuple(subset(split, patients, 6, seed)) for seed in range(5)}
    assert len(set(drawn.values())) == 5
    assert subset(split, patients, 6, 0) == list(drawn[0])
    assert not set(sum(drawn.values(), ())) & set(split["held_out"])


def test_the_order_of_a_subset_is_the_seeds_worked_out_by_hand() -> None:
    patients = {name: name for name in "ABCDE"}
    order = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(1,))).permutation(5)
    assert subset(split_of(patients), patients, 3, seed=7) == sorted("ABCDE"[place] for place in order[:3])


@pytest.mark.parametrize("n", [5, 6, 100])
def test_as_many_cases_as_there_are_is_no_subset(n: int) -> None:
    patients = {name: name for name in "ABCDE"}
    with pytest.raises(SplitError, match=f"learning_curve: {n} training cases of 5 that the target has beside"):
        subset(split_of(patients), patients, n, seed=7)


def test_a_fold_that_would_be_left_without_a_case_is_refused() -> None:
    patients = {name: name for name in "ABCDE"}
    with pytest.raises(SplitError, match=r"1 training cases leave none to fold \d, which is validated with them"):
        subset(split_of(patients), patients, 1, seed=7)


def test_a_study_is_refused_before_it_starts_where_its_cohort_has_too_few_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict
) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(PARAMS.parent))
    for number in range(6):
        for file in ("T1", "T1GD", "T2", "FLAIR", "LABEL"):
            (tmp_path / f"P{number}").mkdir(exist_ok=True)
            (tmp_path / f"P{number}" / f"P{number}_{file}.nii.gz").touch()
    content["target"] = {**content["target"], "folder": str(tmp_path), "held_out": 2}
    for name in ("phantoms", "raw"):
        del content["target"][name]
    content |= {"work_dir": str(tmp_path / "work")}
    check(Study(content | {"learning_curve": [3]}, "own"))
    with pytest.raises(ParameterError, match="own: learning_curve: 4 training cases of 4"):
        check(Study(content | {"learning_curve": [3, 4]}, "own"))
    content["target"]["draw"] = "random"
    with pytest.raises(ParameterError, match="own: learning_curve: 1 training cases leave none to fold"):
        check(Study(content | {"learning_curve": [1]}, "own"))


# --- trainings -----------------------------------------------------------------------------------------------------


def test_a_training_with_fewer_cases_sees_those_alone_and_says_so(small_study: StudyPaths) -> None:
    split = splits.read(small_study, "target")
    n = len(training_cases(split)) - 1
    patients = {name: case.patient for name, case in read_manifest(small_study.manifest("target")).items()}
    chosen = set(subset(split, patients, n, 1))
    left_out = set(training_cases(split)) - chosen
    fold = next(number for number, one in enumerate(split["folds"]) if left_out <= set(one["train"]))
    branch = small_study.branch(training_cases=n)
    parameters = training_parameters(FromScratch, small_study, fold=fold, training_cases=n, epochs=1)
    session = prepare(branch, parameters, "scratch")
    expected = [case for case in split["folds"][fold]["train"] if case in chosen]
    assert len(expected) == len(split["folds"][fold]["train"]) - 1
    training, validation = session.trainer.do_split()
    assert (sorted(training), sorted(validation)) == (sorted(expected), sorted(split["folds"][fold]["val"]))
    assert session.trainer.get_tr_and_val_datasets()[0].identifiers == sorted(expected)
    session.run(lambda line: None)
    results = session.results()
    assert results["cases"] == expected
    assert results["trained_with"]["parameters"]["training_cases"] == n
    assert session.folder == small_study.work / f"cases_{n}/training/scratch/default/fold_{fold}"
    assert session.name.endswith(f"{n} training cases")
    assert session.description().loc["training cases", "default"] == len(expected)
    assert read_json(session.folder / IDENTITY)["cases"] == expected


def test_fine_tuning_with_fewer_cases_starts_from_the_studys_own_pretraining_and_a_repeat_from_its_own(
    small_study: StudyPaths,
) -> None:
    for repeat in (1, 2):
        parameters = training_parameters(Pretraining, small_study, arm="default", repeat=repeat, epochs=1, fold=1)
        prepare(small_study.branch(repeat), parameters, "pretraining").run(lambda line: None)
    weights = {}
    for branch, changed in (
        (small_study, {}),
        (small_study.branch(training_cases=3), {"training_cases": 3}),
        (small_study.branch(2), {"repeat": 2}),
    ):
        parameters = training_parameters(FineTuning, small_study, fold=1, **changed)
        session = prepare(branch, parameters, "finetune")
        weights[branch.beside] = {
            key: value.clone() for key, value in session.trainer.bare_network.state_dict().items()
        }
    assert all(torch.equal(weights[""][key], weights["cases_3"][key]) for key in weights[""])
    assert not all(torch.equal(weights[""][key], weights["repeat_2"][key]) for key in weights[""])


def test_covariates_that_are_not_there_are_refused_before_any_work(tmp_path: Path) -> None:
    """Notebook 07 reads them after all the trainings."""
    content = yaml.safe_load((PARAMS / "demo.yaml").read_text())
    content["work_dir"] = str(tmp_path / "work")
    content["statistics"]["covariates"] = str(tmp_path / "known.csv")
    with pytest.raises(ParameterError, match=r"own, section statistics: covariates: '.*known.csv' is no file; put"):
        check(Study(content, "own"))
    (tmp_path / "known.csv").write_text("case\n")
    check(Study(content, "own"))
