"""NaN and infinity: no training ends well with them, no checkpoint keeps them, no prediction is made of them; and
models that are not what was written."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from one_layer import ensemble, network_image
from small_study import training_parameters

from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, write_json
from brainmets.params import FineTuning, FromScratch, Pretraining
from brainmets.paths import StudyPaths
from brainmets.provenance import sha256
from brainmets.training.export import export
from brainmets.training.inference import Ensemble, predict_cases
from brainmets.training.session import TrainingSession, prepare
from brainmets.training.trainer import FINAL, LATEST, LEAST_SCALE, PREVIOUS, RECORD, CheckpointError, read_checkpoint

CPU = torch.device("cpu")
EVERY_TRAINING = [
    (arm, precision) for precision in ("nnunet", "bfloat16") for arm in ("default", "tversky_bce", "segresnet")
]


def silent(line: str) -> None:
    """Takes a training's lines."""


@pytest.fixture
def study(small_study: StudyPaths, tmp_path: Path) -> StudyPaths:
    files = StudyPaths(str(tmp_path / "work"), "small")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out"))
    return files


def prepared(files: StudyPaths, **changed: Any) -> TrainingSession:
    return prepare(files, training_parameters(FromScratch, files, **changed), "scratch", silent)


def spoil(trainer: Any, loss: Any) -> None:
    """Let the trainer's loss be ``loss`` of the network's finest output, from now on."""
    trainer.loss = lambda output, target: loss(output[0] if isinstance(output, list) else output)


# --- while training ---


@pytest.mark.parametrize(("arm", "precision"), EVERY_TRAINING[::2])
def test_a_loss_that_is_not_a_number_ends_the_training(study: StudyPaths, arm: str, precision: str) -> None:
    session = prepared(study, arm=arm, precision=precision)
    spoil(session.trainer, lambda output: output.sum() * torch.nan)
    before = {name: value.clone() for name, value in session.trainer.bare_network.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"^epoch 1: .* not finite .*learning_rate"):
        session.run(silent)
    assert not session.finished
    assert not list(session.folder.glob("*.pth"))
    assert all(torch.equal(value, before[name]) for name, value in session.trainer.bare_network.state_dict().items())


@pytest.mark.parametrize(("arm", "precision"), EVERY_TRAINING)
def test_gradients_that_are_not_finite_change_no_weight(study: StudyPaths, arm: str, precision: str) -> None:
    """The loss itself is 0."""
    session = prepared(study, arm=arm, precision=precision)
    spoil(session.trainer, lambda output: torch.sqrt(output.sum() * 0))
    with pytest.raises(FloatingPointError, match=r"the gradients are not finite \(loss -?0\)"):
        session.run(silent)
    assert all(torch.isfinite(value).all() for value in session.trainer.bare_network.state_dict().values())


@pytest.mark.parametrize(("arm", "precision"), [("default", "nnunet"), ("segresnet", "bfloat16")])
def test_a_validation_that_is_not_finite_ends_the_training_with_the_last_whole_epoch(
    study: StudyPaths, arm: str, precision: str
) -> None:
    session = prepared(study, arm=arm, precision=precision)
    whole, validate = session.trainer.loss, session.trainer.validation_step

    def second_epoch_fails(batch: dict[str, Any]) -> Any:
        if session.trainer.current_epoch == 1:
            spoil(session.trainer, lambda output: output.float().sum() * torch.inf)
        return validate(batch)

    session.trainer.validation_step = second_epoch_fails
    with pytest.raises(FloatingPointError, match=r"^epoch 2: the validation loss is (nan|-?inf)"):
        session.run(silent)
    session.trainer.loss = whole
    assert [path.name for path in session.folder.glob("*.pth")] == [LATEST]
    assert prepared(study, arm=arm, precision=precision).resumed_epoch == 1


@pytest.mark.parametrize("losses", [[1.0, np.nan], [np.inf, 1.0]])
def test_one_step_of_an_epoch_is_enough(study: StudyPaths, losses: list[float]) -> None:
    """As on a GPU under nnU-Net's precision, where the loss of a skipped step reaches the epoch's mean."""
    trainer = prepared(study).trainer
    with pytest.raises(FloatingPointError, match=r"epoch 1: the training loss is (nan|inf)"):
        trainer.on_train_epoch_end([{"loss": np.array(loss)} for loss in losses])
    trainer.on_train_epoch_end([{"loss": np.array(1.0)}])


def test_float16_may_skip_steps_but_not_all_of_them(study: StudyPaths) -> None:
    trainer = prepared(study).trainer
    for scale, message in ((LEAST_SCALE, None), (LEAST_SCALE / 2, r"no gradient fits float16")):
        trainer.grad_scaler = SimpleNamespace(get_scale=lambda scale=scale: scale)
        if message is None:
            trainer.on_train_epoch_end([{"loss": np.array(1.0)}])
        else:
            with pytest.raises(FloatingPointError, match=message):
                trainer.on_train_epoch_end([{"loss": np.array(1.0)}])


# --- what is kept ---


@pytest.mark.parametrize("what", ["weight", "optimiser"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_checkpoint_that_is_not_finite_is_never_written_over_a_whole_one(
    study: StudyPaths, what: str, value: float
) -> None:
    session = prepared(study, epochs=1)
    session.run(silent)
    trainer, latest = session.trainer, session.folder / LATEST
    trainer.save_checkpoint(str(latest))
    trainer.save_checkpoint(str(latest))
    before = {path.name: sha256(path) for path in session.folder.glob("*.pth")}
    assert set(before) == {FINAL, LATEST, PREVIOUS}
    one = next(trainer.bare_network.parameters())
    spoilt = one.data if what == "weight" else trainer.optimizer.state[one]["momentum_buffer"]
    spoilt[(0,) * spoilt.ndim] = value
    for name in (LATEST, FINAL):
        with pytest.raises(CheckpointError, match=rf"is not finite; {name} is not written"):
            trainer.save_checkpoint(str(session.folder / name))
    assert {path.name: sha256(path) for path in session.folder.glob("*.pth")} == before


def spoilt_checkpoint(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    weight = next(iter(checkpoint["network_weights"].values()))
    weight[(0,) * weight.ndim] = torch.nan
    torch.save(checkpoint, path)


def test_weights_that_are_not_finite_are_not_fine_tuned_predicted_with_or_exported(
    study: StudyPaths, tmp_path: Path
) -> None:
    prepare(study, training_parameters(Pretraining, study, epochs=1), "pretraining", silent).run(silent)
    path = study.checkpoint("pretraining", "default", 0)
    spoilt_checkpoint(path)
    message = r"the weight .* is not finite; `brainmets notebook 03 PARAMS\.yaml arm=default fold=0` trains it again"
    with pytest.raises(CheckpointError, match=message):
        prepare(study, training_parameters(FineTuning, study), "finetune", silent)
    with pytest.raises(CheckpointError, match=message):
        Ensemble.load([path], CPU, 0.5, False)
    with pytest.raises(CheckpointError, match=message):
        export(study, "default", "pretrained", [0], tmp_path / "model.zip", 0.5, False)
    assert not (tmp_path / "model.zip").exists()
    lines: list[str] = []
    again = prepare(study, training_parameters(Pretraining, study, epochs=1), "pretraining", lines.append)
    assert not again.finished
    assert any("checkpoint_final.pth is damaged" in line and "not finite" in line for line in lines)


def test_a_model_whose_plan_names_code_is_not_built(study: StudyPaths, tmp_path: Path) -> None:
    """nnU-Net imports and calls what a plan names as its network and its layers."""
    session = prepared(study, epochs=1)
    session.run(silent)
    whole = torch.load(session.folder / FINAL, weights_only=True)
    architecture = whole["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]
    for change in ({"network_class_name": "planted_code.run"}, {"arch_kwargs": {"conv_op": "planted_code.run"}}):
        before = {name: architecture[name] for name in change}
        architecture.update(change)
        torch.save(whole, tmp_path / "model.pth")
        architecture.update(before)
        with pytest.raises(CheckpointError, match=r"model\.pth holds no plan of notebook 02 .*'planted_code\.run'"):
            Ensemble.load([tmp_path / "model.pth"], CPU, 0.5, False)
    torch.save(whole, tmp_path / "model.pth")
    Ensemble.load([tmp_path / "model.pth"], CPU, 0.5, False)


def endless() -> list[object]:
    values: list[object] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"network_weights": {"a": torch.zeros(1).as_strided((10**12,), (0,))}}, "larger than what is stored"),
        ({"network_weights": {"a": torch.sparse_coo_tensor([[0]], [1.0], (10**12,))}}, "larger than what is stored"),
        ({"optimizer_state": {"state": [torch.zeros(3, device="meta")]}}, "larger than what is stored"),
        ({"optimizer_state": endless()}, "nested without end"),
    ],
    ids=["repeated", "sparse", "without values", "nested"],
)
def test_a_small_model_that_would_fill_the_memory_is_refused(
    tmp_path: Path, changed: dict[str, object], what: str
) -> None:
    torch.save({"network_weights": {}, "init_args": {"plans": {}}, **changed}, tmp_path / "model.pth")
    assert (tmp_path / "model.pth").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=rf"model\.pth .*{what}"):
        read_checkpoint(tmp_path / "model.pth", CPU)


# --- a finished model that is no longer what was written ---


def finished(files: StudyPaths) -> Path:
    """A pretraining with the record that notebook 03 writes last; gives its model."""
    session = prepare(files, training_parameters(Pretraining, files, epochs=1), "pretraining", silent)
    session.run(silent)
    write_json(session.folder / RECORD, session.results())
    return session.folder / FINAL


DAMAGES: dict[str, tuple[Any, str]] = {
    "deleted": (Path.unlink, r"checkpoint_final\.pth is not there; "),
    "cut": (
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        r"checkpoint_final\.pth is damaged or of another",
    ),
    "another": (
        lambda path: torch.save(torch.load(path, weights_only=True) | {"trained_with": {}}, path),
        "of another",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_model_that_is_not_what_was_written_leads_to_the_step_that_makes_it(study: StudyPaths, name: str) -> None:
    path = finished(study)
    damage, message = DAMAGES[name]
    read_checkpoint(path, CPU)
    damage(path)
    command = r".*`brainmets notebook 03 PARAMS\.yaml arm=default fold=0`"
    with pytest.raises(CheckpointError, match=message + command):
        prepare(study, training_parameters(FineTuning, study), "finetune", silent)
    with pytest.raises(CheckpointError, match=message + command):
        Ensemble.load([path], CPU, 0.5, False)
    session = prepare(study, training_parameters(Pretraining, study, epochs=1), "pretraining", silent)
    session.run(silent)
    assert session.finished
    assert not path.with_name(RECORD).exists(), "the record of the lost model would call the new one another's"
    read_checkpoint(path, CPU)


# --- predictions ---


def test_a_model_that_gives_no_numbers_is_not_averaged() -> None:
    image = network_image(np.ones((4, 8, 8, 8)), np.zeros((8, 8, 8)))
    whole, broken = ((np.full((3, 4), value), np.zeros(3)) for value in (0.1, np.nan))
    assert len(list(ensemble([whole]).fold_probabilities(image))) == 3
    for wrong in (broken, (np.full((3, 4), 3e38), np.zeros(3))):
        with pytest.raises(FloatingPointError, match=r"model 2 of 2 gives values that are not finite"):
            list(ensemble([whole, wrong]).fold_probabilities(image))


def test_a_prediction_that_is_not_finite_names_its_case_and_is_not_written(study: StudyPaths, tmp_path: Path) -> None:
    session = prepared(study, epochs=1)
    session.run(silent)
    models = Ensemble.load([session.folder / FINAL], CPU, 0.5, False)
    case = read_manifest(study.manifest("target"))[read_json(study.splits)["target"]["held_out"][0]]
    for value in models.weights[0].values():
        value.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=rf"^{case.case}: model 1 of 1 gives values that are not finite"):
        predict_cases(models, [case], tmp_path / "predictions", silent)
    assert list((tmp_path / "predictions").iterdir()) == []
