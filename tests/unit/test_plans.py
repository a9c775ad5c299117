"""Plan alignment: one plan for both cohorts, held-out cases unseen, a difference refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from brainmets.files import read_json, write_json
from brainmets.paths import StudyPaths
from brainmets.training import plans


def test_both_cohorts_have_the_targets_plan(small_study: StudyPaths) -> None:
    sides = plans.compare_plans(small_study)
    plans.require_aligned(sides)
    assert {"patch_size", "spacing", "architecture", "normalization_schemes", "channel_names"} <= set(sides)
    assert sides["channel_names"]["source"] == {"0": "t1n", "1": "t1c", "2": "t2w", "3": "t2f"}
    network = sides["architecture"]["target"]["arch_kwargs"]
    assert network["features_per_stage"][0] == 4
    assert plans.read_plan(small_study, "source")["dataset_name"] == plans.DATASETS["source"]


def test_held_out_cases_are_seen_by_neither_fingerprint_nor_training(small_study: StudyPaths) -> None:
    split = read_json(small_study.splits)["target"]
    dataset = plans.read_dataset(small_study, "target")
    assert len(split["held_out"]) == 1
    assert not set(split["held_out"]) & set(dataset["dataset"])
    assert dataset["numTraining"] == len(dataset["dataset"]) == 4
    folder = small_study.nnunet_preprocessed / plans.DATASETS["target"]
    assert len(read_json(folder / "dataset_fingerprint.json")["spacings"]) == 4


def test_regions_and_their_labels_are_nnunets_words(small_study: StudyPaths) -> None:
    dataset = plans.read_dataset(small_study, "source")
    assert dataset["labels"] == {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
    assert dataset["regions_class_order"] == [2, 1, 3]


def test_a_plan_that_was_changed_afterwards_is_refused_with_both_values(small_study: StudyPaths) -> None:
    path = small_study.nnunet_preprocessed / plans.DATASETS["source"] / f"{plans.PLANS['source']}.json"
    original, changed = path.read_bytes(), read_json(path)
    changed["configurations"][plans.CONFIGURATION]["patch_size"] = [8, 8, 8]
    write_json(path, changed)
    try:
        with pytest.raises(plans.AlignmentError, match=r"patch_size: source \[8, 8, 8\], target \["):
            plans.require_aligned(plans.compare_plans(small_study))
    finally:
        path.write_bytes(original)


def test_folds_of_another_split_are_refused(small_study: StudyPaths) -> None:
    assert plans.read_folds(small_study, "target") == read_json(small_study.splits)["target"]["folds"]
    path = small_study.nnunet_preprocessed / plans.DATASETS["target"] / "splits_final.json"
    own = path.read_text()
    write_json(path, read_json(small_study.splits)["source"]["folds"])
    try:
        with pytest.raises(plans.AlignmentError, match=r"splits_final\.json of the target cohort has other folds"):
            plans.read_folds(small_study, "target")
    finally:
        path.write_text(own)


@pytest.mark.parametrize("read", [plans.read_plan, plans.read_dataset])
def test_a_cohort_that_is_not_planned_is_told_with_the_notebook(tmp_path: Path, read: Callable) -> None:
    expected = r"nnunet/preprocessed/Dataset501_Source/\w+\.json is not in .*; run notebook 02_plan_alignment first"
    with pytest.raises(FileNotFoundError, match=expected):
        read(StudyPaths(str(tmp_path), "own"), "source")
