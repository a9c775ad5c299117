"""Which model predicts which training case, and that it is this model and no other that does."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from small_study import training_parameters

from brainmets.cohorts.cohort import read_manifest
from brainmets.cohorts.splits import FoldCases
from brainmets.files import read_json
from brainmets.nifti import read_grid
from brainmets.params import FromScratch, Pretraining
from brainmets.paths import StudyPaths
from brainmets.scoring import probabilities as kept
from brainmets.scoring.folders import ScoringError, score_folders
from brainmets.training import inference
from brainmets.training.inference import Ensemble, Keep, predict_cases, predict_unseen, unseen_cases
from brainmets.training.session import prepare
from brainmets.vocabulary import LABELS

FOLDS: list[FoldCases] = [
    {"train": ["P3", "P4", "P5"], "val": ["P2", "P1"]},
    {"train": ["P1", "P2", "P5"], "val": ["P3", "P4"]},
    {"train": ["P1", "P2", "P3", "P4"], "val": ["P5"]},
]


@pytest.mark.parametrize("strategy", ["finetune", "scratch"])
def test_every_case_is_predicted_by_the_fold_that_did_not_train_on_it(strategy: str) -> None:
    rows = unseen_cases(FOLDS, [0, 1, 2], strategy).to_records(index=False).tolist()
    assert rows == [("P1", 0, 0), ("P2", 0, 0), ("P3", 1, 1), ("P4", 1, 1), ("P5", 2, 2)]
    assert all(case not in FOLDS[model]["train"] for case, _, model in rows)


def test_cases_of_folds_that_are_not_trained_do_not_occur() -> None:
    assert unseen_cases(FOLDS, [2, 0], "scratch").to_records(index=False).tolist() == [
        ("P5", 2, 2), ("P1", 0, 0), ("P2", 0, 0),
    ]  # fmt: skip


def test_pretrained_models_predict_each_case_together() -> None:
    rows = unseen_cases(FOLDS, [0, 2], "pretrained").to_records(index=False).tolist()
    assert rows == [("P1", 0, 0), ("P1", 0, 2), ("P2", 0, 0), ("P2", 0, 2), ("P5", 2, 0), ("P5", 2, 2)]


def test_a_split_that_would_score_a_case_on_its_own_model_is_refused() -> None:
    leaking: list[FoldCases] = [{"train": ["P1", "P2"], "val": ["P2"]}]
    with pytest.raises(ValueError, match="fold 0 trains on P2, which it is validated with"):
        unseen_cases(leaking, [0], "scratch")
    twice: list[FoldCases] = [{"train": ["P1"], "val": ["P2"]}, {"train": ["P3"], "val": ["P2"]}]
    for strategy in ("scratch", "pretrained"):
        with pytest.raises(ValueError, match="more than one fold is validated with P2"):
            unseen_cases(twice, [0, 1], strategy)


def trained(files: StudyPaths, stage: Any, model: Any) -> list[Path]:
    for fold in (0, 1):
        parameters = training_parameters(model, files, fold=fold, seed=31 + fold)
        prepare(files, parameters, stage).run(lambda line: None)
    return [files.checkpoint(stage, "default", fold) for fold in (0, 1)]


def labels(path: Path) -> Any:
    return np.asarray(nib.load(path).dataobj)


def test_each_case_is_predicted_with_the_weights_of_its_own_fold(
    small_study: StudyPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against an ensemble that holds this fold alone; folds are given in another order than their numbers."""
    checkpoints = trained(small_study, "scratch", FromScratch)
    split, cases = read_json(small_study.splits)["target"], read_manifest(small_study.manifest("target"))
    device = torch.device("cpu")
    alone = {fold: Ensemble.load([path], device, 0.5, False) for fold, path in enumerate(checkpoints)}
    both = Ensemble.load(checkpoints[::-1], device, 0.5, False)
    monkeypatch.setattr(inference, "read_checkpoint", None)  # nothing is read a second time
    lines: list[str] = []
    unseen = unseen_cases(split["folds"], [1, 0], "scratch")
    written = predict_unseen(both, [1, 0], unseen, cases, tmp_path / "cv", lines.append)
    assert [path.name for path in written] == [f"{case}.nii.gz" for case in unseen["case"]]
    assert lines[0].startswith(f"training case 1 of 4: {unseen['case'][0]}, ")
    others_differ = False
    for path, fold in zip(written, unseen["fold"], strict=True):
        case = cases[path.name.removesuffix(".nii.gz")]
        assert case.case in split["folds"][fold]["val"]
        (mine,) = predict_cases(alone[fold], [case], tmp_path / "mine", lambda line: None)
        (other,) = predict_cases(alone[1 - fold], [case], tmp_path / "other", lambda line: None)
        assert np.array_equal(labels(path), labels(mine))
        others_differ |= not np.array_equal(labels(path), labels(other))
    assert others_differ, "models that predict alike would prove nothing"


def test_pretrained_models_need_no_training_on_the_target(small_study: StudyPaths, tmp_path: Path) -> None:
    ensemble = Ensemble.load(trained(small_study, "pretraining", Pretraining), torch.device("cpu"), 0.5, False)
    split, cases = read_json(small_study.splits)["target"], read_manifest(small_study.manifest("target"))
    unseen = unseen_cases(split["folds"], [0, 1], "pretrained")
    keep = Keep(tmp_path / "probabilities", 0.02)
    keep.folder.mkdir()
    (keep.folder / "of_an_earlier_study.nii.gz").touch()
    written = predict_unseen(ensemble, [0, 1], unseen, cases, tmp_path / "cv", lambda line: None, keep)
    assert len(written) == 4
    assert sorted(path.name for path in keep.folder.iterdir()) == sorted(path.name for path in written)
    for path in written:
        probabilities, grid = kept.read(keep.folder / path.name)
        assert grid.same(read_grid(path))
        painted = labels(path)
        above = {region: probability > 0.5 for region, probability in probabilities.items()}
        expected = np.select([above["ET"], above["TC"], above["WT"]], [LABELS["et"], LABELS["netc"], LABELS["snfh"]])
        certain = np.all([abs(probability - 0.5) > 1 / 65535 for probability in probabilities.values()], axis=0)
        assert certain.mean() > 0.99
        assert np.array_equal(painted[certain], expected[certain])
    (together,) = predict_cases(ensemble, [cases[unseen["case"][0]]], tmp_path / "mine", lambda line: None)
    assert np.array_equal(labels(written[0]), labels(together))
    name = unseen["case"][0]
    scores = score_folders(
        tmp_path / "cv", small_study.labels("target"), arm="default", strategy="pretrained", cases={*unseen["case"]}
    )
    assert list(scores.cases) == sorted({*unseen["case"]})
    one = score_folders(tmp_path / "mine", small_study.labels("target"), arm="a", strategy="pretrained", cases=[name])
    assert one.cases == (name,)


def test_scores_of_some_cases_leave_other_references_alone_but_no_prediction(tmp_path: Path) -> None:
    for folder, names in (("predictions", "ab"), ("references", "abc")):
        (tmp_path / folder).mkdir()
        for name in names:
            volume = np.zeros((3, 3, 3), np.uint8)
            volume[1, 1, 1] = 3
            nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / folder / f"{name}.nii.gz")
    folders = tmp_path / "predictions", tmp_path / "references"
    found = score_folders(*folders, arm="default", strategy="scratch", cases=["b", "a"])
    assert found.cases == ("a", "b")
    with pytest.raises(ScoringError, match=r"predictions without a reference in .*references: b"):
        score_folders(*folders, arm="default", strategy="scratch", cases=["a"])
    with pytest.raises(ScoringError, match="holds no reference of d"):
        score_folders(*folders, arm="default", strategy="scratch", cases=["a", "b", "d"])
    with pytest.raises(ScoringError, match=r"references without a prediction in .*: c"):
        score_folders(*folders, arm="default", strategy="scratch", cases=["a", "b", "c"])
