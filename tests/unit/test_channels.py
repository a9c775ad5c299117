"""Channels by name: a study whose cohorts have other sequences, and cases that lack one, from plan to prediction."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from other_sequences import ingest
from small_study import training_parameters

from brainmets import nifti
from brainmets.cohorts import likeness
from brainmets.cohorts.cohort import Case, read_manifest, write_manifest
from brainmets.files import read_json, write_json
from brainmets.params import FineTuning, FromScratch, Pretraining
from brainmets.paths import StudyPaths
from brainmets.training import channels, plans
from brainmets.training.export import export
from brainmets.training.inference import Ensemble, write_prediction
from brainmets.training.plans import CONFIGURATION, DATASETS, INTENSITIES
from brainmets.training.preprocessed import StudyDataset, require_varied
from brainmets.training.session import prepare
from brainmets.training.trainer import read_checkpoint
from brainmets.training.watching import batch_figure
from brainmets.vocabulary import SEQUENCES

CPU = torch.device("cpu")


def quiet(line: str) -> None:
    """Say nothing."""


def cases_of(files: StudyPaths, cohort: str) -> dict[str, Case]:
    return read_manifest(files.manifest(cohort))


def lacking_case(files: StudyPaths, cohort: str) -> Case:
    (name,) = plans.read_dataset(files, cohort)[channels.ABSENT]
    return cases_of(files, cohort)[name]


# --- names and files ---


def test_names_are_read_in_channel_order() -> None:
    assert channels.names({"channel_names": {"0": "t1c", "1": "t2f"}}) == ("t1c", "t2f")


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        [],
        {"1": "t1c"},
        {"0": "t1c", "1": "t1c"},
        {"0": "CT"},
        {"1": "t1c", "0": "t2f"},
        {"0": "t1c", "2": "t2f"},
    ],
)
def test_channels_that_are_no_sequences_are_refused_by_name(given: Any) -> None:
    with pytest.raises(ValueError, match=r"channel_names of dataset\.json"):
        channels.names({"channel_names": given})


@pytest.mark.parametrize(
    "given", [["P1"], {"P1": "t2f"}, {"P1": []}, {"P1": ["t1n"]}, {"P1": ["t1c", "t2f"]}, {"P1": None}]
)
def test_what_cases_lack_must_be_some_of_their_cohorts_sequences(given: Any) -> None:
    dataset = {"channel_names": {"0": "t1c", "1": "t2f"}}
    assert channels.absent(dataset) == {}
    assert channels.absent_of({**dataset, "absent": {"P1": ["t2f"]}}, "P1") == ("t2f",)
    with pytest.raises(ValueError, match=r"absent of dataset\.json"):
        channels.absent({**dataset, "absent": given})


@pytest.fixture(params=[np.diag([1.0, 1.0, 3.0, 1.0]), "oblique", "LPS"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """A case with t1c and t2f, stored in one of several ways; spacing in the header that no affine gives back."""
    affine = request.param
    if isinstance(affine, str):
        turn = np.array([[0.98, -0.17, 0.05], [0.171, 0.984, 0.02], [-0.0526, -0.011, 0.9985]])
        turn = np.linalg.qr(turn)[0] if affine == "oblique" else np.diag([-1.0, -1.0, 1.0])
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn * [0.9375, 0.9375, 1.2], [11.3, -70.2, 8.5]
    images = {}
    for number, name in enumerate(("t1c", "t2f")):
        image = nib.Nifti1Image(np.random.default_rng(number).normal(size=(5, 6, 7)).astype(np.float32), affine)
        image.header["descrip"] = b"Kowalczyk"
        images[name] = tmp_path / f"{name}.nii.gz"
        nib.save(image, images[name])
    return Case("P1", "P1", images, None)


def test_a_missing_sequence_is_zeros_that_nnunets_reader_takes_for_the_same_grid(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """nnU-Net wants spacings equal to the last digit, and warns of other affines."""
    absent = tmp_path / "absent.nii.gz"
    files = channels.files_of(case, SEQUENCES, absent)
    assert files == [str(absent), str(case.images["t1c"]), str(absent), str(case.images["t2f"])]
    data, properties = NibabelIOWithReorient().read_images(files)
    assert capsys.readouterr().out == ""
    alone, own = NibabelIOWithReorient().read_images([str(case.images["t1c"])])
    assert properties["spacing"] == own["spacing"]
    assert not data[[0, 2]].any()
    np.testing.assert_array_equal(data[1], alone[0])
    assert nifti.read_grid(absent).same(nifti.read_grid(case.reference))
    assert b"Kowalczyk" not in nib.load(absent).header.binaryblock


def test_nothing_is_written_where_nothing_is_missing_and_other_images_are_passed_over(
    case: Case, tmp_path: Path
) -> None:
    assert channels.files_of(case, ["t2f"], tmp_path / "absent.nii.gz") == [str(case.images["t2f"])]
    assert not (tmp_path / "absent.nii.gz").exists()


def test_a_case_with_none_of_the_networks_sequences_is_named(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"P1: it has t1c, t2f, and the network reads t1n, t2w: nothing is left"):
        channels.files_of(case, ["t1n", "t2w"], tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("masked", [True, False])
def test_a_missing_sequence_is_exactly_0_after_normalisation(
    mixed_study: StudyPaths, tmp_path: Path, masked: bool
) -> None:
    """Over the head alone or over the whole box, resampled to a finer grid; the others are as they are without it."""
    plan, dataset = plans.read_plan(mixed_study, "source"), plans.read_dataset(mixed_study, "source")
    configuration = plan["configurations"][CONFIGURATION]
    configuration["use_mask_for_norm"] = [masked] * 4
    configuration["spacing"] = [side * 0.8 for side in configuration["spacing"]]
    manager = PlansManager(plan)
    own = lacking_case(mixed_study, "source")
    files = channels.files_of(own, SEQUENCES, tmp_path / "absent.nii.gz")
    preprocessor = DefaultPreprocessor(verbose=False)
    data, *_ = preprocessor.run_case(files, None, manager, manager.get_configuration(CONFIGURATION), dataset)
    place = SEQUENCES.index("t2w")
    assert not data[place].any()
    assert all(data[other].std() > 0.1 for other in range(4) if other != place)
    three = [one for number, one in enumerate(files) if number != place]
    for key in plans.PER_SEQUENCE:
        configuration[key] = configuration[key][:3]
    fewer = PlansManager(plan)
    without, *_ = preprocessor.run_case(three, None, fewer, fewer.get_configuration(CONFIGURATION), dataset)
    np.testing.assert_array_equal(np.delete(data, place, axis=0), without)


# --- plan and preprocessing ---


def test_each_cohort_has_its_own_sequences_and_says_which_cases_lack_one(mixed_study: StudyPaths) -> None:
    source, target = (plans.read_dataset(mixed_study, cohort) for cohort in ("source", "target"))
    assert source["channel_names"] == {"0": "t1n", "1": "t1c", "2": "t2w", "3": "t2f"}
    assert target["channel_names"] == {"0": "t1c", "1": "t2f"}
    assert list(source[channels.ABSENT].values()) == [["t2w"]]
    assert list(target[channels.ABSENT].values()) == [["t2f"]]
    (case,) = target[channels.ABSENT]
    content = read_json(mixed_study.nnunet_preprocessed / DATASETS["target"] / plans.CONTENT)
    assert content[case][1] == "absent"
    assert [len(hashes) for hashes in content.values()] == [3] * len(content)
    stored = StudyDataset(str(plans.arrays_folder(mixed_study, "target")), [case]).load_case(case)[0]
    assert not np.asarray(stored)[1].any()
    assert np.asarray(stored)[0].any()


def test_a_study_of_four_sequences_has_the_files_it_had(small_study: StudyPaths) -> None:
    """No key more in dataset.json, plain hashes, and the source's plan byte for byte as nnU-Net moved it."""
    for cohort in ("source", "target"):
        dataset = plans.read_dataset(small_study, cohort)
        cases = dataset.pop("dataset")
        assert json.dumps(dataset) == json.dumps({
            "channel_names": {"0": "t1n", "1": "t1c", "2": "t2w", "3": "t2f"},
            "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]},
            "regions_class_order": [2, 1, 3],
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "NibabelIOWithReorient",
        })  # fmt: skip
        manifest = cases_of(small_study, cohort)
        for case, entry in cases.items():
            assert entry["images"] == [str(manifest[case].images[name]) for name in SEQUENCES]
        content = read_json(small_study.nnunet_preprocessed / DATASETS[cohort] / plans.CONTENT)
        assert all(len(one) == 64 for hashes in content.values() for one in hashes)
        assert not (small_study.nnunet_raw / DATASETS[cohort] / channels.ABSENT).exists()
    target, source = (plans.read_plan(small_study, cohort) for cohort in ("target", "source"))
    source["configurations"][CONFIGURATION]["data_identifier"] = "nnUNetPlans_3d_fullres"
    for name in ("2d", "3d_lowres"):  # nnU-Net plans them too
        if name in source["configurations"]:
            source["configurations"][name]["data_identifier"] = target["configurations"][name]["data_identifier"]
    assert {**source, "dataset_name": DATASETS["target"], "plans_name": "nnUNetPlans"} == target


def test_the_targets_plan_moves_by_the_names_of_the_sequences(mixed_study: StudyPaths) -> None:
    sides = plans.compare_plans(mixed_study)
    plans.require_aligned(sides)
    assert sides["channel_names"] == {
        "source": {"0": "t1n", "1": "t1c", "2": "t2w", "3": "t2f"},
        "target": {"0": "t1c", "1": "t2f"},
    }
    assert sides["architecture"]["source"] == sides["architecture"]["target"]
    assert sides["normalization_schemes"] == {cohort: ["ZScoreNormalization"] * 2 for cohort in DATASETS}
    target, source = (plans.read_plan(mixed_study, cohort) for cohort in ("target", "source"))
    configuration = source["configurations"][CONFIGURATION]
    assert configuration["normalization_schemes"] == ["ZScoreNormalization"] * 4
    assert configuration["use_mask_for_norm"] == [target["configurations"][CONFIGURATION]["use_mask_for_norm"][0]] * 4
    own = read_json(mixed_study.nnunet_preprocessed / DATASETS["source"] / "dataset_fingerprint.json")[INTENSITIES]
    assert source[INTENSITIES] == {
        "0": own["0"], "1": target[INTENSITIES]["0"], "2": own["2"], "3": target[INTENSITIES]["1"],
    }  # fmt: skip


def a_plan(masked: list[bool], schemes: list[str] | None = None) -> dict[str, Any]:
    schemes = schemes or ["ZScoreNormalization"] * len(masked)
    return {
        "configurations": {
            "3d_fullres": {"use_mask_for_norm": masked, "normalization_schemes": schemes, "patch_size": [8, 8, 8]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres"},
        },
        INTENSITIES: {str(number): {"mean": number} for number in range(len(masked))},
    }


def test_a_plan_without_shared_sequences_keeps_its_topology_and_its_choice_of_mask() -> None:
    given = a_plan([True])
    moved = plans.by_name(given, ["t1c"], {"t1n": {"mean": 7}, "t2f": {"mean": 8}})
    assert moved["configurations"]["3d_fullres"] == {
        "use_mask_for_norm": [True, True], "normalization_schemes": ["ZScoreNormalization"] * 2,
        "patch_size": [8, 8, 8],
    }  # fmt: skip
    assert moved[INTENSITIES] == {"0": {"mean": 7}, "1": {"mean": 8}}
    assert given == a_plan([True]), "the given plan is left as it is"


def test_a_plan_with_two_masks_has_no_rule_for_a_further_sequence() -> None:
    with pytest.raises(plans.AlignmentError, match=r"use_mask_for_norm is \{'t1c': True, 't2f': False\}"):
        plans.by_name(a_plan([True, False]), ["t1c", "t2f"], {"t1n": {}})


def test_shared_sequences_in_another_order_or_otherwise_normalised_are_refused(mixed_study: StudyPaths) -> None:
    sides = plans.compare_plans(mixed_study)
    swapped = {**sides, "channel_names": {**sides["channel_names"], "target": {"0": "t2f", "1": "t1c"}}}
    with pytest.raises(plans.AlignmentError, match=r"channel_names: source \{'0': 't1n'.*target \{'0': 't2f'"):
        plans.require_aligned(swapped)
    with pytest.raises(plans.AlignmentError, match="use_mask_for_norm"):
        plans.require_aligned({**sides, "use_mask_for_norm": {"source": [True, True], "target": [True, False]}})
    with pytest.raises(plans.AlignmentError, match="architecture"):
        plans.require_aligned({**sides, "architecture": {"source": {"n_stages": 3}, "target": {"n_stages": 4}}})


def test_only_the_z_score_leaves_a_missing_sequence_at_0() -> None:
    plans.require_z_score(a_plan([True, True]))
    with pytest.raises(plans.AlignmentError, match="3d_fullres: CTNormalization in the plan"):
        plans.require_z_score(a_plan([True, True], ["ZScoreNormalization", "CTNormalization"]))


def test_a_constant_image_is_an_error_unless_it_is_declared_absent_and_0() -> None:
    images = np.stack([np.arange(8.0), np.zeros(8)]).reshape(2, 2, 2, 2)
    require_varied(images, "P1", ("t1c", "t2f"), ["t2f"])
    with pytest.raises(ValueError, match="P1, t2f: the preprocessed image is constant"):
        require_varied(images, "P1", ("t1c", "t2f"))
    with pytest.raises(ValueError, match="P1, t1c: declared to be absent, and not 0"):
        require_varied(images, "P1", ("t1c", "t2f"), ["t1c", "t2f"])


def test_a_sequence_that_no_training_case_has_is_refused(mixed_study: StudyPaths, tmp_path: Path) -> None:
    files = StudyPaths(str(tmp_path), "other")
    write_manifest(files.manifest("target"), list(cases_of(mixed_study, "target").values()), ["t1c", "t2f"])
    cases = {
        name: replace(case, images={"t1c": case.images["t1c"]})
        for name, case in cases_of(mixed_study, "target").items()
    }
    split = read_json(mixed_study.splits)["target"]
    with pytest.raises(ValueError, match="no training case of the target cohort has t2f"):
        plans.write_dataset(files, "target", cases, split)


def test_the_cohorts_are_compared_by_what_both_have(mixed_study: StudyPaths) -> None:
    looks = {cohort: plans.appearance(mixed_study, cohort) for cohort in ("source", "target")}
    for cohort, table in looks.items():
        dataset = plans.read_dataset(mixed_study, cohort)
        for case, rows in table.groupby("case"):
            lacking = dataset[channels.ABSENT].get(case, [])
            assert rows.sequence.tolist() == [name for name in channels.names(dataset) if name not in lacking]
    assert likeness.summary(looks).index.tolist() == ["t1c", "t2f"]
    assert likeness.summary(looks).notna().to_numpy().all()


# --- training and prediction ---


@pytest.fixture(scope="module")
def trained(mixed_study: StudyPaths) -> StudyPaths:
    """Pretrained on four sequences, fine-tuned on two, of fold 0."""
    prepare(mixed_study, training_parameters(Pretraining, mixed_study, epochs=1), "pretraining", quiet).run(quiet)
    prepare(mixed_study, training_parameters(FineTuning, mixed_study, epochs=1), "finetune", quiet).run(quiet)
    return mixed_study


@pytest.fixture(scope="module")
def models(trained: StudyPaths) -> dict[str, Ensemble]:
    return {
        stage: Ensemble.load([trained.checkpoint(stage, "default", 0)], CPU, tile_step=1, mirroring=False)
        for stage in ("pretraining", "finetune")
    }


def test_fine_tuning_lists_every_weight_and_starts_from_the_source(trained: StudyPaths) -> None:
    session = prepare(trained, training_parameters(FineTuning, trained, epochs=1), "finetune", quiet)
    table = session.transfer_table()
    assert table.key.is_unique
    assert table.groupby("status").size().to_dict() == {"adapted": 4, "loaded": len(table) - 4}
    results = session.results()
    assert results["weights_loaded"] == len(table) - 4
    assert results["weights_adapted"] == table.key[table.status == "adapted"].tolist()
    assert (results["weights_fresh"], results["weights_skipped"]) == ([], [])
    assert session.sequences == ("t1c", "t2f")


def test_a_frozen_encoder_still_learns_to_read_a_new_sequence(trained: StudyPaths) -> None:
    parameters = training_parameters(FineTuning, trained, fold=0, epochs=2, freeze_encoder_epochs=1, seed=5)
    session = prepare(trained, parameters, "finetune", quiet)
    session.trainer.on_train_start()
    session.trainer.on_train_epoch_start()
    learns = {name: one.requires_grad for name, one in session.trainer.bare_network.named_parameters()}
    encoder = {name for name in learns if name.startswith("encoder.")}
    assert {name for name in encoder if learns[name]} == {"encoder.stages.0.0.convs.0.conv.weight"}
    prepare(trained, training_parameters(FineTuning, trained, epochs=1), "finetune", quiet).run(quiet)


def test_a_checkpoint_names_no_case(trained: StudyPaths) -> None:
    content = read_checkpoint(trained.checkpoint("finetune", "default", 0), CPU)["init_args"]["dataset_json"]
    assert channels.names(content) == ("t1c", "t2f")
    assert {"dataset", channels.ABSENT}.isdisjoint(content)


def test_either_network_predicts_either_cohort(
    trained: StudyPaths, models: dict[str, Ensemble], tmp_path: Path
) -> None:
    """The pretrained one on a target case (``pretrained``), the fine-tuned one on a source case (forgetting)."""
    assert models["pretraining"].sequences == SEQUENCES
    assert models["finetune"].sequences == ("t1c", "t2f")
    for stage, cohort in (("pretraining", "target"), ("finetune", "source"), ("finetune", "target")):
        for case in (lacking_case(trained, cohort), next(reversed(cases_of(trained, cohort).values()))):
            image = models[stage].preprocess(case)
            absent = [not channel.any() for channel in image.data]
            assert absent == [name not in case.images for name in models[stage].sequences]
            probabilities = models[stage].probabilities(case)
            assert np.isfinite(probabilities).all()
            labels = models[stage].labels(probabilities)
            written = write_prediction(labels, case, tmp_path)
            assert nifti.read_grid(written).same(nifti.read_grid(case.reference))


def test_a_subset_is_what_the_same_case_is_with_zeros_in_place_of_the_others(
    trained: StudyPaths, models: dict[str, Ensemble], tmp_path: Path
) -> None:
    case = next(reversed(cases_of(trained, "source").values()))
    subset = replace(case, images={"t2f": case.images["t2f"]})
    zeros = nifti.write_zeros(tmp_path / "zeros.nii.gz", case.images["t1c"])
    blank = replace(case, images={**dict.fromkeys(SEQUENCES, zeros), "t2f": case.images["t2f"]})
    given = models["pretraining"].preprocess(subset).data
    np.testing.assert_array_equal(given, models["pretraining"].preprocess(blank).data)
    whole = models["finetune"].preprocess(case).data
    np.testing.assert_array_equal(
        whole, models["finetune"].preprocess(replace(case, images={n: case.images[n] for n in ("t1c", "t2f")})).data
    )
    with pytest.raises(ValueError, match="nothing is left to look at"):
        models["finetune"].preprocess(replace(case, images={"t1n": case.images["t1n"]}))


def test_folds_that_read_other_sequences_are_no_ensemble(trained: StudyPaths, tmp_path: Path) -> None:
    path = trained.checkpoint("finetune", "default", 0)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["init_args"]["dataset_json"]["channel_names"] = {"0": "t1c", "1": "t2w"}
    torch.save(checkpoint, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth reads t1c, t2w, and .* t1c, t2f"):
        Ensemble.load([path, tmp_path / "other.pth"], CPU, tile_step=1, mirroring=False)


def test_a_training_none_of_whose_cases_has_a_sequence_is_refused(
    mixed_study: StudyPaths, restored_dataset: dict[str, Any]
) -> None:
    path = mixed_study.nnunet_preprocessed / DATASETS["target"] / "dataset.json"
    train = plans.read_folds(mixed_study, "target")[1]["train"]
    write_json(path, {**restored_dataset, channels.ABSENT: {case: ["t2f"] for case in train}})
    plans.record(mixed_study, "target")
    parameters = training_parameters(FromScratch, mixed_study, fold=1, epochs=1)
    with pytest.raises(ValueError, match=rf"none of the {len(train)} training case\(s\) has t2f"):
        prepare(mixed_study, parameters, "scratch", quiet)


@pytest.fixture
def restored_dataset(mixed_study: StudyPaths) -> Iterator[dict[str, Any]]:
    path = mixed_study.nnunet_preprocessed / DATASETS["target"] / "dataset.json"
    before = path.read_bytes()
    yield read_json(path)
    path.write_bytes(before)
    plans.record(mixed_study, "target")


def test_the_batch_has_a_column_for_each_sequence_and_marks_the_absent(trained: StudyPaths) -> None:
    session = prepare(trained, training_parameters(FineTuning, trained, epochs=1), "finetune", quiet)
    images, regions = session.first_batch()
    assert images.shape[1] == 2
    images[0, 1] = 0
    panels = batch_figure(images, regions, session.sequences, "a batch").axes
    assert [panel.get_title() for panel in panels[:2]] == ["T1 after contrast", "FLAIR"]
    assert [[text.get_text() for text in panel.texts] for panel in panels[:2]] == [[], ["absent: 0"]]


def test_the_archives_read_me_names_the_channels_and_what_a_missing_one_is(
    trained: StudyPaths, tmp_path: Path
) -> None:
    archive = export(trained, "default", "finetune", [0], tmp_path / "model.zip", 0.5, True)
    with zipfile.ZipFile(archive) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith("README.txt"))
        text = opened.read(name).decode()
        dataset = json.loads(opened.read(name.replace("README.txt", "dataset.json")))
    assert "2 files per patient" in text
    assert "    CASE_0000.nii.gz  T1 after contrast (t1c)\n    CASE_0001.nii.gz  FLAIR (t2f)\n" in text
    assert "A missing sequence is a file of zeros" in text
    assert "No training step dropped a sequence by chance" in text
    assert not any(case in json.dumps(dataset) for case in cases_of(trained, "target"))


@pytest.mark.slow
def test_a_study_with_t1c_alone_trains_and_predicts(tmp_path: Path) -> None:
    files = ingest(tmp_path, ["t1c"], ["t1c"])
    prepare(files, training_parameters(Pretraining, files, epochs=1), "pretraining", quiet).run(quiet)
    session = prepare(files, training_parameters(FineTuning, files, epochs=1), "finetune", quiet)
    assert set(session.transfer_table().status) == {"loaded"}
    session.run(quiet)
    assert len(batch_figure(*session.first_batch(), session.sequences, "a batch").axes) == 2
    model = Ensemble.load([files.checkpoint("finetune", "default", 0)], CPU, tile_step=1, mirroring=False)
    case = next(iter(cases_of(files, "target").values()))
    assert list(case.images) == ["t1c"]
    assert np.isfinite(model.probabilities(case)).all()
    looks = {cohort: plans.appearance(files, cohort) for cohort in ("source", "target")}
    assert likeness.summary(looks).index.tolist() == ["t1c"]
