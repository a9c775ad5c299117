"""The real notebooks on coarse phantoms with fewer training cases, the scratch control, and held-out source cases."""

from pathlib import Path

import pandas as pd
import pytest
from real_checkout import RealCheckout, profile

from brainmets.files import read_json
from brainmets.paths import StudyPaths
from brainmets.vocabulary import SOURCE_TRAINED, STRATEGIES

pytestmark = pytest.mark.slow
SIZE = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """A study of one arm and fold, up to the statistics."""
    checkout = RealCheckout.make(tmp_path_factory.mktemp("branches"))
    content = profile("smoke") | {
        "study": "branches",
        "folds": [0],
        "learning_curve": [SIZE],
        "strategies": [*STRATEGIES],
    }
    content["arms"] = {"default": content["arms"]["default"]}
    del content["target"]["raw"]
    for name, patients in (("source", 4), ("target", 8)):
        content[name] |= {"folder": f"work/branches/cohorts/{name}", "held_out": 2}
        content[name]["phantoms"] |= {"patients": patients}
    for section, epochs in (("pretraining", 2), ("fine_tuning", 1), ("from_scratch", 1)):
        content[section] |= {"epochs": epochs, "iterations_per_epoch": 2}
    checkout.write_params(content)
    ended = checkout.run("study", "params/branches.yaml", "--", "statistics")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return StudyPaths(str(checkout.root / "work"), "branches")


def test_fewer_cases_are_trained_with_and_the_same_are_predicted(files: StudyPaths) -> None:
    split, fewer = read_json(files.splits)["target"], files.branch(training_cases=SIZE)
    for stage in ("finetune", "scratch"):
        whole, part = (set(read_json(one.training(stage, "default", 0))["cases"]) for one in (files, fewer))
        assert whole == set(split["folds"][0]["train"])
        assert part < whole
        scores = [pd.read_csv(one.scores("default", stage)) for one in (files, fewer)]
        assert all(sorted(set(table["case"])) == split["held_out"] for table in scores)
        assert not scores[0]["value"].equals(scores[1]["value"])
    pretrained = read_json(fewer.training("finetune", "default", 0))["provenance"]["inputs"]
    assert "training/pretraining/default/fold_0/checkpoint_final.pth" in pretrained, "the study's own pretraining"
    assert not fewer.evaluation_folder("default", "pretrained").exists()


def test_the_control_has_the_epochs_of_both_trainings_and_is_described_beside_the_others(files: StudyPaths) -> None:
    epochs = {
        stage: read_json(files.training(stage, "default", 0))["epochs"]
        for stage in ("pretraining", "finetune", "scratch", "scratch_control")
    }
    assert epochs == {"pretraining": 2, "finetune": 1, "scratch": 1, "scratch_control": 3}
    described = pd.read_csv(files.statistics / "descriptive.csv")
    assert set(described["strategy"]) == {"pretrained", "finetune", "scratch", "scratch_control"}
    compared = pd.read_csv(files.statistics / "finetune_vs_scratch.csv", comment="#")
    assert not compared.astype(str).apply(lambda column: column.str.contains("scratch_control")).any(axis=None)
    chosen = {model["strategy"] for model in read_json(files.best_model)["models"] if model["mean_dice"] is not None}
    assert "scratch_control" not in chosen


def test_the_sources_held_out_cases_are_predicted_before_and_after_fine_tuning(files: StudyPaths) -> None:
    split = read_json(files.splits)["source"]
    assert len(split["held_out"]) == 2
    references = sorted(path.name.removesuffix(".nii.gz") for path in files.held_out_labels("source").iterdir())
    assert references == split["held_out"]
    trained = set(read_json(files.training("pretraining", "default", 0))["cases"])
    assert trained == set(split["folds"][0]["train"])
    tables = {}
    for branch, strategy in (
        (files, "pretrained"),
        (files, "finetune"),
        (files.branch(training_cases=SIZE), "finetune"),
    ):
        folder = branch.forgetting_folder("default", strategy)
        tables[branch.beside, strategy] = table = pd.read_csv(folder / "scores.csv")
        assert sorted(set(table["case"])) == split["held_out"]
        assert set(table["strategy"]) == {strategy}
        assert {path.name for path in folder.iterdir()} == {"predictions", "scores.csv", "lesions.csv", "excluded.csv"}
        listed = read_json(branch.evaluation("default", strategy))["provenance"]["outputs"]
        assert str((folder / "scores.csv").relative_to(files.work)) in listed
    assert not tables["", "pretrained"]["value"].equals(tables["", "finetune"]["value"])
    assert {path.name for path in Path(files.forgettings / "default").iterdir()} == set(SOURCE_TRAINED)
