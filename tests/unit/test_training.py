"""A whole training: files, resuming, changed parameters, transfer, and prediction on the original grid."""

import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np
import pytest
import torch
from small_study import ARMS, training_parameters

from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, write_json
from brainmets.params import FineTuning, FromScratch, Pretraining, Training
from brainmets.paths import StudyPaths
from brainmets.processes import BusyError
from brainmets.training.inference import Ensemble, predict_cases
from brainmets.training.plans import CONTENT, DATASETS, preprocess, read_dataset, read_folds, record
from brainmets.training.session import IDENTITY, LOCK, TrainingSession, prepare
from brainmets.training.trainer import FINAL, LATEST, CheckpointError, read_checkpoint

CPU = torch.device("cpu")


def trained(files: StudyPaths, stage: Any, **changed: Any) -> TrainingSession:
    model = {"pretraining": Pretraining, "finetune": FineTuning, "scratch": FromScratch}[stage]
    session = prepare(files, training_parameters(model, files, **changed), stage)
    session.run(lambda line: None)
    return session


@pytest.mark.parametrize("arm", ["default", "tversky_bce", "segresnet"])
def test_pretraining_feeds_fine_tuning_of_the_same_arm_and_fold(small_study: StudyPaths, arm: str) -> None:
    trained(small_study, "pretraining", arm=arm)
    pretrained = read_checkpoint(small_study.checkpoint("pretraining", arm, 0), CPU)["network_weights"]
    session = prepare(small_study, training_parameters(FineTuning, small_study, arm=arm), "finetune")
    assert {row.status for row in session.transferred} == {"loaded"}
    for key, value in session.trainer.bare_network.state_dict().items():
        assert torch.equal(value, pretrained[key]), key
    headless = training_parameters(FineTuning, small_study, arm=arm, transfer_head=False)
    skipped = [row for row in prepare(small_study, headless, "finetune").transferred if row.status == "skipped"]
    assert skipped
    assert all(row.shape[0] == 3 for row in skipped), "the head has one output per region"


def test_a_training_logs_every_epoch_and_is_not_repeated(small_study: StudyPaths) -> None:
    session = trained(small_study, "scratch")
    curves = session.curves()
    assert curves.epoch.tolist() == [1, 2, 3]
    assert curves.learning_rate.tolist() == pytest.approx([0.01 * (1 - epoch / 3) ** 0.9 for epoch in range(3)])
    assert np.isfinite(curves.training_loss).all()
    assert (session.folder / FINAL).is_file()
    assert not (session.folder / LATEST).exists()
    before = (session.folder / FINAL).read_bytes()
    lines: list[str] = []
    again = prepare(small_study, training_parameters(FromScratch, small_study), "scratch")
    again.run(lines.append)
    assert "not trained again" in lines[0]
    assert again.curves().training_loss.tolist() == curves.training_loss.tolist()
    assert (session.folder / FINAL).read_bytes() == before


def test_a_training_leaves_the_style_of_figures_as_it_was(small_study: StudyPaths) -> None:
    before = dict(matplotlib.rcParams)
    session = trained(small_study, "scratch", seed=78)
    assert (session.folder / "progress.png").is_file()
    assert dict(matplotlib.rcParams) == before


def images_and_regions(batch: dict[str, Any]) -> tuple[Any, Any]:
    target = batch["target"]
    return batch["data"].numpy(), (target[0] if isinstance(target, list) else target).numpy() > 0


@pytest.mark.parametrize("arm", ["default", "segresnet"])
def test_the_batch_shown_is_the_first_trained_on_and_changes_nothing(small_study: StudyPaths, arm: str) -> None:
    parameters = training_parameters(FromScratch, small_study, arm=arm, seed=80)
    weights, losses, seen = [], [], []
    for look in (False, True):
        shutil.rmtree(small_study.training_folder("scratch", arm, 0), ignore_errors=True)
        session = prepare(small_study, parameters, "scratch")
        shown = session.first_batch() if look else None
        step = session.trainer.train_step
        session.trainer.train_step = lambda batch, step=step: (seen.append(batch), step(batch))[1]
        session.run(lambda line: None)
        weights.append(session.trainer.bare_network.state_dict())
        losses.append(session.curves().training_loss.tolist())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert losses[0] == losses[1]
    assert session.trainer.plans_manager.transpose_forward == [0, 1, 2]
    for ours, trained_on in zip(shown, images_and_regions(seen[len(seen) // 2]), strict=True):
        np.testing.assert_array_equal(ours, trained_on)
    images, regions = prepare(small_study, parameters, "scratch").first_batch()
    assert (images.shape[1], regions.shape[1]) == (4, 3), "a finished training shows a batch too"


def test_the_batch_is_shown_without_augmentation_processes(small_study: StudyPaths) -> None:
    parameters = training_parameters(FromScratch, small_study, seed=79, augmentation_workers=2)
    session = prepare(small_study, parameters, "scratch")
    images, regions = session.first_batch()
    assert images.shape[2:] == regions.shape[2:] == tuple(session.trainer.configuration_manager.patch_size)
    assert multiprocessing.active_children() == []
    assert os.environ["nnUNet_n_proc_DA"] == "2"


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_after(epoch: int) -> Any:
    def report(line: str) -> None:
        if line.startswith(f"epoch {epoch} of "):
            raise KilledError

    return report


def test_an_interrupted_training_continues_after_its_last_whole_epoch(small_study: StudyPaths) -> None:
    parameters = training_parameters(FromScratch, small_study, arm="tversky_bce")
    with pytest.raises(KilledError):  # during epoch 2's end: epoch 1 is the last with a checkpoint
        prepare(small_study, parameters, "scratch").run(kill_after(2))
    lines: list[str] = []
    session = prepare(small_study, parameters, "scratch")
    session.run(lines.append)
    assert lines[0].endswith("continues after epoch 1 of 3")
    curves = session.curves()
    assert curves.epoch.tolist() == [1, 2, 3]
    assert curves.learning_rate.tolist() == pytest.approx([0.01 * (1 - epoch / 3) ** 0.9 for epoch in range(3)])


def test_a_second_process_may_not_train_in_the_same_folder(small_study: StudyPaths) -> None:
    parameters = training_parameters(FromScratch, small_study, seed=76)
    session = prepare(small_study, parameters, "scratch")
    hold = "import sys; from pathlib import Path; from brainmets.processes import locked\n"
    hold += "with locked(Path(sys.argv[1]), 'it'): print('held', flush=True); sys.stdin.read()"
    call = [sys.executable, "-c", hold, str(session.folder / LOCK)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        who = rf"training default, fold 0, scratch is in use by another process \(process {other.pid} on "
        with pytest.raises(BusyError, match=who):
            prepare(small_study, parameters, "scratch")
        with pytest.raises(BusyError, match=who):
            session.run(lambda line: None)
        other.communicate()
    prepare(small_study, parameters, "scratch")


def test_a_session_does_not_train_over_what_another_has_written_since(small_study: StudyPaths) -> None:
    parameters = training_parameters(FromScratch, small_study, seed=77)
    first, second = (prepare(small_study, parameters, "scratch") for _ in range(2))
    second.run(lambda line: None)
    with pytest.raises(BusyError, match="have changed since this session was prepared"):
        first.run(lambda line: None)
    assert prepare(small_study, parameters, "scratch").finished


def test_changed_parameters_start_anew_and_say_what_changed(small_study: StudyPaths) -> None:
    parameters = training_parameters(FromScratch, small_study, arm="segresnet")
    with pytest.raises(KilledError):
        prepare(small_study, parameters, "scratch").run(kill_after(2))
    lines: list[str] = []
    changed = training_parameters(FromScratch, small_study, arm="segresnet", epochs=2, seed=9)
    session = prepare(small_study, changed, "scratch", lines.append)
    assert session.resumed_epoch == 0
    assert any("epochs was 3 and is 2" in line for line in lines)
    assert any("seed was 1 and is 9" in line for line in lines)
    kept = small_study.work / re.search(r"kept in (left_out/training/scratch/segresnet/fold_0-\d+) ", lines[-1])[1]
    assert read_checkpoint(kept / LATEST, CPU)["current_epoch"] == 1
    assert read_json(kept / IDENTITY)["seed"] == 1
    assert not (session.folder / LATEST).exists()


OTHER_VALUES: dict[str, tuple[Any, bool]] = {
    "study": ("renamed", True),
    "work_dir": ("elsewhere", True),
    "seed": (2, False),
    "arms": ({**ARMS, "segresnet": {**ARMS["segresnet"], "filters": 16}}, True),  # of an arm that is not trained here
    "arm": ("segresnet", True),  # in a folder of its own
    "fold": (1, True),
    "repeat": (2, False),
    "training_cases": (2, False),
    "epochs": (3, False),
    "iterations_per_epoch": (3, False),
    "validation_iterations": (2, True),
    "precision": ("bfloat16", False),
    "augmentation_workers": (1, True),
    "transfer_head": (False, False),
    "warmup_epochs": (1, False),
    "transferred_rate": (0.5, False),
    "freeze_encoder_epochs": (1, False),
}
"""Every parameter of a training: another value, and whether a finished training is kept under it."""


@pytest.fixture(scope="module")
def finished_trainings(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """A study with one finished pretraining, fine-tuning and training from scratch of two epochs."""
    files = StudyPaths(str(tmp_path_factory.mktemp("finished")), "small")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    for stage in ("pretraining", "finetune", "scratch"):
        trained(files, stage, epochs=2)
    return files


def test_every_parameter_of_a_training_is_known_to_matter_or_not() -> None:
    """A new parameter belongs into ``OTHER_VALUES``, and into the words of ``session.identity``."""
    assert set(OTHER_VALUES) == set(FineTuning.model_fields)


@pytest.mark.parametrize(("name", "value", "keeps"), [(name, *other) for name, other in OTHER_VALUES.items()])
def test_a_finished_training_is_kept_or_set_aside_as_declared(
    finished_trainings: StudyPaths, tmp_path: Path, name: str, value: Any, keeps: bool
) -> None:
    files = StudyPaths(str(tmp_path), "small")
    shutil.copytree(finished_trainings.work, files.work)
    stage, model = ("scratch", FromScratch) if name in Training.model_fields else ("finetune", FineTuning)
    final = files.checkpoint(stage, "default", 0)
    before, held = final.read_bytes(), {path.name for path in final.parent.iterdir()} - {LOCK}
    lines: list[str] = []
    parameters = training_parameters(model, files, **{"epochs": 2, name: value})
    session = prepare(files, parameters, stage, lines.append)
    kept = final if keeps else files.work / "left_out" / "training" / stage / "default" / "fold_0-1" / FINAL
    assert kept.read_bytes() == before
    if keeps:
        assert lines == []
        assert not (files.work / "left_out").exists()
        assert session.finished == (name not in ("arm", "fold"))
    else:
        assert not final.exists()
        assert not session.finished
        assert {path.name for path in kept.parent.iterdir()} == held
        assert f"{ {'repeat': 'seeds', 'training_cases': 'cases'}.get(name, name) } was " in lines[0]
        assert f"left_out/training/{stage}/default/fold_0-1 below the study's folder" in lines[-1]


def test_settings_of_the_arm_itself_matter_and_nothing_is_ever_overwritten(
    finished_trainings: StudyPaths, tmp_path: Path
) -> None:
    files = StudyPaths(str(tmp_path), "small")
    shutil.copytree(finished_trainings.work, files.work)
    final = files.checkpoint("scratch", "default", 0)
    kept = [final.read_bytes()]
    for rate in (0.02, 0.01):
        session = trained(files, "scratch", epochs=2, arms={**ARMS, "default": {"learning_rate": rate}})
        assert session.resumed_epoch == 0
        kept.append(final.read_bytes())
    folder = files.work / "left_out" / "training" / "scratch" / "default"
    assert [(folder / f"fold_0-{number}" / FINAL).read_bytes() for number in (1, 2)] == kept[:2]


def test_a_missing_pretraining_leaves_the_fine_tuning_where_it_is(
    finished_trainings: StudyPaths, tmp_path: Path
) -> None:
    files = StudyPaths(str(tmp_path), "small")
    shutil.copytree(finished_trainings.work, files.work)
    files.checkpoint("pretraining", "default", 0).unlink()
    with pytest.raises(CheckpointError, match=r"pretraining.*is not there"):
        prepare(files, training_parameters(FineTuning, files, epochs=2), "finetune")
    assert files.checkpoint("finetune", "default", 0).is_file()


@pytest.mark.parametrize("used", ["val", "train"])
def test_only_cases_that_a_fold_trains_on_matter_to_it(
    finished_trainings: StudyPaths, tmp_path: Path, used: str
) -> None:
    """One case's images were changed and the cohort preprocessed again, with the same plan."""
    files = StudyPaths(str(tmp_path), "small")
    shutil.copytree(finished_trainings.work, files.work)
    path = files.nnunet_preprocessed / DATASETS["target"] / CONTENT
    content = read_json(path)
    content[read_json(files.splits)["target"]["folds"][0][used][0]][0] = "0" * 64
    write_json(path, content)
    record(files, "target")
    session = prepare(files, training_parameters(FromScratch, files, epochs=2), "scratch", lambda line: None)
    assert session.finished == (used == "val")


def test_corrected_labels_train_anew(small_study: StudyPaths, tmp_path: Path) -> None:
    """The same plan, split and parameters; one label map of the target is another."""
    files = StudyPaths(str(tmp_path), "corrected")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training"))
    trained(files, "scratch")
    assert prepare(files, training_parameters(FromScratch, files), "scratch").finished
    label = small_study.labels("target") / f"{read_folds(files, 'target')[0]['train'][0]}.nii.gz"
    dataset = read_dataset(files, "target")
    corrected = tmp_path / label.name
    image = nib.load(label)
    values = np.asarray(image.dataobj)
    nib.save(
        nib.Nifti1Image(np.where(values, 4 - values, 0).astype(np.uint8), image.affine), corrected
    )  # 1 and 3 swapped
    dataset["dataset"][label.name.split(".")[0]]["label"] = str(corrected)
    write_json(files.nnunet_preprocessed / DATASETS["target"] / "dataset.json", dataset)
    preprocess(files, "target", workers=1)
    lines: list[str] = []
    session = prepare(files, training_parameters(FromScratch, files), "scratch", lines.append)
    assert not session.finished
    assert any("is not continued: content was" in line for line in lines)
    assert (files.work / "left_out/training/scratch/default/fold_0-1" / FINAL).is_file()


def test_predictions_come_back_on_the_original_grid_with_the_original_affine(
    small_study: StudyPaths, tmp_path: Path
) -> None:
    checkpoints = [trained(small_study, "scratch", fold=fold).folder / FINAL for fold in (0, 1)]
    case = read_manifest(small_study.manifest("target"))[read_json(small_study.splits)["target"]["held_out"][0]]
    both = Ensemble.load(checkpoints, CPU, tile_step=0.5, mirroring=False)
    (path,) = predict_cases(both, [case], tmp_path / "predictions", lambda line: None)
    predicted, image = nib.load(path), nib.load(case.images["t1c"])
    assert predicted.shape == image.shape
    assert np.array_equal(predicted.affine, image.affine)
    assert set(np.unique(predicted.dataobj)) <= {0, 1, 2, 3}
    alone = [Ensemble.load([one], CPU, 0.5, False).probabilities(case) for one in checkpoints]
    np.testing.assert_allclose(both.probabilities(case), (alone[0] + alone[1]) / 2, atol=1e-6)
    assert not np.allclose(alone[0], alone[1])


def test_regions_are_painted_where_they_exceed_one_half(small_study: StudyPaths) -> None:
    checkpoint = trained(small_study, "scratch").folder / FINAL
    ensemble = Ensemble.load([checkpoint], CPU, 0.5, False)
    probabilities = np.array([[0.4, 0.9, 0.9, 0.9, 0.1], [0.4, 0.1, 0.9, 0.9, 0.1], [0.4, 0.1, 0.1, 0.9, 0.9]])
    labels = ensemble.labels(probabilities.reshape(3, 1, 1, 5).astype(np.float32))
    assert labels.ravel().tolist() == [0, 2, 1, 3, 3]


def test_folds_of_different_arms_do_not_mix(small_study: StudyPaths) -> None:
    checkpoints = [trained(small_study, "scratch", arm=arm).folder / FINAL for arm in ("default", "tversky_bce")]
    with pytest.raises(ValueError, match="another plan or another arm"):
        Ensemble.load(checkpoints, CPU, 0.5, False)


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('the checkpoint ran code')",))


def test_a_checkpoint_that_carries_code_is_refused_unrun(tmp_path: Path) -> None:
    torch.save({"network_weights": {}, "extra": Payload()}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match=r"code\.pth cannot be read as plain weights"):
        read_checkpoint(tmp_path / "code.pth", CPU)
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match=r"pickle\.pth"):
        read_checkpoint(tmp_path / "pickle.pth", CPU)


def test_a_missing_and_a_truncated_checkpoint_are_named(small_study: StudyPaths, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth is not there"):
        read_checkpoint(tmp_path / "nowhere.pth", CPU)
    whole = (trained(small_study, "scratch").folder / FINAL).read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"half\.pth cannot be read"):
        read_checkpoint(tmp_path / "half.pth", CPU)
