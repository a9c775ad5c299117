"""One training of the study: an arm, a fold, and a stage (pretraining, finetune or scratch)."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from brainmets.cohorts import splits
from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, write_json
from brainmets.params import FineTuning, TargetTraining, Training, plan_of
from brainmets.paths import StudyPaths
from brainmets.processes import BusyError, locked
from brainmets.provenance import commit, sha256, versions
from brainmets.training import channels
from brainmets.training.arms import TRAINERS
from brainmets.training.finetuning import TransferredKey
from brainmets.training.patch_shares import Cut, Shares, expected
from brainmets.training.plans import (
    INTENSITIES,
    content_digest,
    read_dataset,
    read_folds,
    read_plan,
    require_whole,
    use_nnunet_folders,
)
from brainmets.training.preprocessed import StudyDataset
from brainmets.training.seeds import TrainingSeeds, seed_everything, training_seeds
from brainmets.training.trainer import (
    FINAL,
    LATEST,
    PREVIOUS,
    RECORD,
    CheckpointError,
    StudyTrainer,
    read_checkpoint,
)
from brainmets.vocabulary import NETWORK_REGIONS, STAGE_COHORTS, PatchRule, Stage

IDENTITY = "identity.json"
"""What decides a training's weights (``identity``); a checkpoint is continued only under the same identity."""
NOT_DECISIVE = frozenset({
    "study", "work_dir", "arms", "arm", "fold", "repeat", "training_cases", "strategy", "validation_iterations",
    "augmentation_workers",
})  # fmt: skip
"""Parameters that are no part of a training's identity by themselves; ``identity`` says why."""
PATCH_SETTINGS = ("sequence_dropout", "lesion_sampling", "lesion_transplant")
"""Settings of any arm, which it has where they are on."""
LOCK = "training.lock"
"""Held by the process that prepares or trains in a folder."""


@dataclass
class TrainingSession:
    """A training that is ready to run, or already finished.

    ``transferred`` lists what was taken from the pretrained model, and is empty for the other stages. ``prepared`` is
    what its folder held when it was prepared (name of a file: its size and time of change). ``cases`` are those that
    it trains on.
    """

    trainer: StudyTrainer
    folder: Path
    stage: Stage
    fold: int
    finished: bool
    resumed_epoch: int
    transferred: list[TransferredKey]
    prepared: dict[str, tuple[int, int]]
    cases: list[str]
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Arm, fold and stage in words, and the branch where it is not the main one."""
        given = self.trainer.trained_with["parameters"]
        repeat, cases = given.get("repeat", 1), given.get("training_cases")
        branch = [f"repeat {repeat}"] if repeat != 1 else [f"{cases} training cases"] if cases is not None else []
        return ", ".join([self.trainer.arm, f"fold {self.fold}", self.stage, *branch])

    @property
    def sequences(self) -> tuple[str, ...]:
        """Those that the network reads, in channel order."""
        return self.trainer.dropout.sequences

    @property
    def seeds(self) -> dict[str, int]:
        """The training's two seeds by name: weights, batches."""
        return dict(self.trainer.trained_with["seeds"])

    def description(self) -> pd.DataFrame:
        """What is trained, one row per property: its value, and what sets it (nnU-Net, the arm, parameters, ...)."""
        trainer = self.trainer
        loss = getattr(trainer.loss, "loss", trainer.loss)  # inside nnU-Net's deep supervision, where there is one
        outputs = len(getattr(trainer.loss, "weight_factors", [1]))
        weights = sum(weight.numel() for weight in trainer.bare_network.parameters())
        steps = trainer.num_epochs * trainer.num_iterations_per_epoch
        patches = {name: trainer.settings[name] for name in PATCH_SETTINGS if name in trainer.settings}
        rows = {
            "network": (type(trainer.bare_network).__name__, self._set_by("build_network_architecture")),
            "weights": (f"{weights:,}", "the plan and the network"),
            "loss": (type(loss).__name__, self._set_by("_build_loss")),
            "outputs under supervision": (outputs, self._set_by("set_deep_supervision_enabled")),
            "optimiser": (type(trainer.optimizer).__name__, self._set_by("configure_optimizers")),
            "initial learning rate": (trainer.initial_lr, "parameters"),
            "sequences": (", ".join(self.sequences), "parameters"),
            **{name.replace("_", " "): (value, "parameters") for name, value in patches.items()},
            "training cases": (len(self.cases), "splits.json and parameters"),
            "steps": (steps, "parameters"),
            **{f"seed of the {name}": (seed, "seed, stage, arm, fold, repeat") for name, seed in self.seeds.items()},
            "device": (device_name(trainer.device), "this machine"),
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=[trainer.arm, "set by"])

    def _set_by(self, method: str) -> str:
        own = getattr(type(self.trainer), method) is not getattr(nnUNetTrainer, method)
        return "the arm" if own else "nnU-Net"

    def arm_source(self) -> str:
        """Python source of the arm's class and of what it inherits that is not shared by every arm."""
        own = [part for part in type(self.trainer).__mro__ if part not in StudyTrainer.__mro__]
        return "\n\n".join(inspect.getsource(part) for part in own)

    def first_batch(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Images (patch, sequence, ...) and regions (patch, WT TC ET, ...) of the first batch, augmented.

        The sequences are ``sequences``; one that the patch's case lacks, or that sequence dropout takes, is 0.

        The patches' axes are the image's (z, y, x). It is the very batch that a training whose augmentation runs in
        its own process starts with; processes of their own draw others like it. The training draws from the start
        again, so that looking at it changes nothing.
        """
        with patch.dict(os.environ, nnUNet_n_proc_DA="0"):
            batches, _ = self.trainer.get_dataloaders()
            self.trainer.dropout.begin(self.trainer.batches_seed, self.trainer.current_epoch)
            batch = self.trainer.dropout(next(batches))
        target = batch["target"]
        regions = target[0] if isinstance(target, list) else target  # the finest output's, under deep supervision
        axes = (0, 1, *(2 + axis for axis in self.trainer.plans_manager.transpose_backward))
        return batch["data"].numpy().transpose(axes), regions.numpy().astype(bool).transpose(axes)

    def patch_shares(self) -> Shares:
        """Which lesions its patches are placed on, under nnU-Net's rule and under the arm's where that is another."""
        trainer, plan = self.trainer, self.trainer.configuration_manager
        rules: tuple[PatchRule, ...] = tuple(
            dict.fromkeys(("voxels", trainer.settings.get("lesion_sampling", "voxels")))
        )
        _, _, outer, _ = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        # nnU-Net rounds: of each batch, so many patches at its end must hold foreground
        anywhere = round(trainer.batch_size * (1 - trainer.oversample_foreground_percent)) / trainer.batch_size
        cut = Cut(tuple(map(int, outer)), tuple(map(int, plan.patch_size)), 1 - anywhere)
        return expected(
            StudyDataset(trainer.preprocessed_dataset_folder, [*self.cases]), rules, trainer.voxel_mm3, cut
        )

    def transfer_table(self) -> pd.DataFrame:
        """What was taken over, one row per weight: key, shape, status, reason, as ``TransferredKey`` has them."""
        return pd.DataFrame(self.transferred, columns=TransferredKey._fields)

    def _of_status(self, status: str) -> list[str]:
        return [row.key for row in self.transferred if row.status == status]

    def run(self, report: Callable[[str], None] = print) -> None:
        """Train to the last epoch with one line per epoch; a finished training is left as it is.

        Raises ``BusyError`` where another process trains in this folder, or has done so since this session was
        prepared.
        """
        if self.finished:
            report(f"{self.name}: finished before with these parameters, not trained again")
            return
        with locked(self.folder / LOCK, f"the training {self.name}"):
            if _checkpoints(self.folder) != self.prepared:
                raise BusyError(
                    f"the files of the training {self.name} have changed since this session was prepared: prepare it "
                    "again, and it continues from the last whole checkpoint"
                )
            if self.resumed_epoch:
                report(f"{self.name}: continues after epoch {self.resumed_epoch} of {self.trainer.num_epochs}")
            (self.folder / RECORD).unlink(missing_ok=True)  # of a model that was lost: this training makes another
            started = time.monotonic()
            self.trainer.report = report
            self.trainer.run_training()
            self.seconds = time.monotonic() - started
            self.finished = True

    def curves(self) -> pd.DataFrame:
        """One row per epoch: epoch, training_loss, validation_loss, dice_WT, dice_TC, dice_ET, learning_rate, seconds.

        Dice is nnU-Net's pseudo-Dice: pooled over random validation patches, not a Dice of whole cases. It is NaN
        where no validation patch held or predicted the region.
        """
        log = self.trainer.logger.local_logger.my_fantastic_logging
        dice = np.array(log["dice_per_class_or_region"], float).reshape(-1, len(NETWORK_REGIONS))
        return pd.DataFrame(
            {
                "epoch": range(1, len(log["train_losses"]) + 1),
                "training_loss": np.array(log["train_losses"], float),
                "validation_loss": np.array(log["val_losses"], float),
                **{f"dice_{region}": dice[:, channel] for channel, region in enumerate(NETWORK_REGIONS)},
                "learning_rate": np.array(log["lrs"], float),
                "seconds": np.subtract(log["epoch_end_timestamps"], log["epoch_start_timestamps"]),
            }
        )

    def results(self) -> dict[str, Any]:
        """What ``training.json`` keeps beside the provenance: cases, curves, the transfer, the checkpoint's hash.

        The provenance is of the notebook that was run last, and may have found a training finished long before.
        "trained_with" is of the process that trained: seeds, parameters, device, versions, commit, and the epochs
        after which the training was resumed (which changes its batches where processes augment).
        """
        curves = self.curves()
        return {
            "stage": self.stage,
            "arm": self.trainer.arm,
            "fold": self.fold,
            "seeds": self.seeds,
            "cases": self.cases,
            "trained_with": self.trainer.trained_with,
            "epochs": len(curves),
            "curves": curves.astype(object).where(curves.notna(), None).to_dict("list"),
            "weights_loaded": sum(row.status == "loaded" for row in self.transferred),
            **{f"weights_{status}": self._of_status(status) for status in ("adapted", "fresh", "skipped")},
            "training_seconds": round(float(curves.seconds.sum()), 2),
            "peak_memory_mb": peak_memory_mb(self.trainer.device),
            "checkpoint_sha256": sha256(self.folder / FINAL),
        }


def prepare(
    files: StudyPaths, parameters: Training, stage: Stage, report: Callable[[str], None] = print
) -> TrainingSession:
    """Make a training ready: the network built or continued, pretrained weights moved in for "finetune".

    Continues from the last whole checkpoint where there is one under the same ``identity``; a training of another
    identity is set aside, whole, and the place and the difference are reported. A damaged checkpoint is reported and
    set aside, and the one before it is continued, or the training starts anew. Raises ``BusyError`` where another
    process trains in the same folder, ``DamagedError`` where a preprocessed file is missing or not as it was written,
    and ``CheckpointError`` where the pretrained model is. Either names the file and the command that makes it anew.
    """
    use_nnunet_folders(files, parameters.augmentation_workers)
    arm, fold = parameters.arm, parameters.fold
    folder = files.training_folder(stage, arm, fold)
    cohort, seeds = STAGE_COHORTS[stage], _seeds(parameters, stage)
    require_whole(files, cohort)
    cases, dataset = training_cases(files, parameters, stage), read_dataset(files, cohort)
    _require_every_sequence(dataset, cases)
    with locked(folder / LOCK, f"the training {arm}, fold {fold}, {stage}"):
        weights = _pretrained_weights(files, parameters, stage)
        _claim(files, stage, arm, fold, identity(files, parameters, stage), report)
        seed_everything(seeds.weights)
        plan = read_plan(files, cohort, plan_of(arm))
        trainer = TRAINERS[arm].open(folder, plan, dataset, parameters, training_device())
        trainer.batches_seed = seeds.batches
        trainer.cases = frozenset(cases)
        trainer.trained_with = _trained_with(parameters, seeds, trainer.device)
        transferred = []
        if weights is not None:
            assert isinstance(parameters, FineTuning)
            transferred = trainer.fine_tune(*weights, parameters)
        last, checkpoint = _last_whole_checkpoint(folder, trainer.device, report)
        if checkpoint is not None:
            trainer.load_checkpoint(checkpoint)
            before = checkpoint["trained_with"]
            if last == FINAL:
                trainer.trained_with = before
            else:
                trainer.trained_with["resumed_after_epochs"] = [*before["resumed_after_epochs"], trainer.current_epoch]
                trainer.trained_with |= {name: before[name] for name in ("transplants",) if name in before}
        return TrainingSession(
            trainer,
            folder,
            stage,
            fold,
            last == FINAL,
            trainer.current_epoch,
            transferred,
            _checkpoints(folder),
            cases,
        )


def training_cases(files: StudyPaths, parameters: Training, stage: Stage) -> list[str]:
    """The cases that a training sees: its fold's, of fewer of the target's cases where the parameters say how many.

    In the order of ``splits.json``. Raises ``SplitError`` where the target cannot give that number.
    """
    cohort = STAGE_COHORTS[stage]
    fold: list[str] = read_folds(files, cohort)[parameters.fold]["train"]
    if not isinstance(parameters, TargetTraining) or parameters.training_cases is None:
        return fold
    patients = {name: case.patient for name, case in read_manifest(files.manifest(cohort)).items()}
    chosen = set(splits.subset(splits.read(files, cohort), patients, parameters.training_cases, parameters.seed))
    return [case for case in fold if case in chosen]


def _require_every_sequence(dataset: dict[str, Any], cases: list[str]) -> None:
    """Raise ``ValueError`` where no training case has one of the network's sequences: it would learn nothing of it."""
    absent = channels.absent(dataset)
    for sequence in channels.names(dataset):
        if cases and all(sequence in absent.get(case, ()) for case in cases):
            raise ValueError(
                f"none of the {len(cases)} training case(s) has {sequence}: the network would read it with random "
                "weights; train with other cases (folds, training_cases), or leave it out of `sequences`"
            )


def _seeds(parameters: Training, stage: Stage) -> TrainingSeeds:
    return training_seeds(parameters.seed, stage, parameters.arm, parameters.fold, parameters.repeat - 1)


def _pretrained_weights(
    files: StudyPaths, parameters: Training, stage: Stage
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]] | None:
    """The pretrained network's weights and the sequences that it reads; ``None`` for other stages."""
    if stage != "finetune":
        return None
    path = files.checkpoint("pretraining", parameters.arm, parameters.fold)
    checkpoint = read_checkpoint(path, training_device())
    return checkpoint["network_weights"], channels.names(checkpoint["init_args"]["dataset_json"])


def _trained_with(parameters: Training, seeds: TrainingSeeds, device: torch.device) -> dict[str, Any]:
    """What a checkpoint says of the process that trained it; nothing that names the study or a folder."""
    return {
        "seeds": seeds._asdict(),
        "parameters": parameters.model_dump(exclude={"study", "work_dir", "arms"}),
        "device": device_name(device),
        "versions": versions(),
        "commit": commit(),
        "resumed_after_epochs": [],
    }


def _checkpoints(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of those of a training's own files that are there."""
    found = {name: folder / name for name in (IDENTITY, FINAL, LATEST, PREVIOUS)}
    return {name: (path.stat().st_size, path.stat().st_mtime_ns) for name, path in found.items() if path.is_file()}


def _last_whole_checkpoint(
    folder: Path, device: torch.device, report: Callable[[str], None]
) -> tuple[str | None, dict[str, Any] | None]:
    """Name and content of the furthest checkpoint that can be read; ``(None, None)`` where there is none.

    One that cannot be read is renamed to ``<name>.damaged``: left in place, the next epoch would keep it as the
    previous checkpoint and overwrite the whole one there.
    """
    damaged = False
    for path in (folder / FINAL, folder / LATEST, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            checkpoint = read_checkpoint(path, device)
        except CheckpointError as error:
            damaged = True
            path.replace(path.with_name(f"{path.name}.damaged"))
            report(f"{path.name} is damaged and kept as {path.name}.damaged: {error.__cause__ or error}")
        else:
            if damaged:
                report(f"{path.name} is whole: the training continues from it")
            return path.name, checkpoint
    if damaged:
        report("no whole checkpoint is left: the training starts anew")
    return None, None


def identity(files: StudyPaths, parameters: Training, stage: Stage) -> dict[str, Any]:
    """What decides a training's weights, and nothing else: a training is continued, or kept, only where it is equal.

    In it are

    - every parameter but those below, the arm's settings, and both seeds, which follow from seed, stage, arm, fold
      and repeat;
    - the plan, without the intensities' statistics, which the z-score of MRI does not use;
    - the fold's training cases, and the content of their images and label maps;
    - the pretrained weights, where there are any.

    Not in it are

    - ``study`` and ``work_dir``: where the files lie;
    - ``arm``, ``fold`` and ``strategy``: each has a folder of its own;
    - ``repeat`` and ``training_cases``: the seeds and the cases themselves are in it;
    - ``arms``: the settings of the other arms train nothing here;
    - ``validation_iterations``, validation cases and held-out cases: they are looked at, and nothing is learnt or
      chosen from them (nnU-Net's best checkpoint is not kept), nor do they take random numbers from the training;
    - ``augmentation_workers``, the device, the versions of libraries: a matter of the machine. They change which
      patches are drawn, or the last digits, as another run would; a training moved to another machine goes on.
      ``training.json`` records them.
    """
    cohort = STAGE_COHORTS[stage]
    whole = read_plan(files, cohort, plan_of(parameters.arm))
    plan = {name: value for name, value in whole.items() if name != INTENSITIES}
    cases = training_cases(files, parameters, stage)
    seeds = _seeds(parameters, stage)
    pretrained = files.checkpoint("pretraining", parameters.arm, parameters.fold) if stage == "finetune" else None
    return {
        **parameters.model_dump(exclude=set(NOT_DECISIVE)),
        "settings": parameters.arms.settings(parameters.arm),
        "seeds": seeds._asdict(),
        "plan": hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest(),
        "cases": cases,
        "content": content_digest(files, cohort, cases),
        "pretrained": sha256(pretrained) if pretrained is not None else None,
    }


def _claim(
    files: StudyPaths, stage: Stage, arm: str, fold: int, wanted: dict[str, Any], report: Callable[[str], None]
) -> None:
    """Move what another identity trained out of the folder, saying what differs, and note whose folder it is now.

    Files that a killed process was still writing (``.<process>.<name>``, see ``brainmets.files``) are deleted.
    """
    folder = files.training_folder(stage, arm, fold)
    for unfinished in folder.glob(".*.*"):
        if unfinished.name.split(".")[1].isdigit():
            unfinished.unlink()
    path = folder / IDENTITY
    before = read_json(path) if path.is_file() else {}
    if before == wanted:
        return
    if any((folder / name).is_file() for name in (FINAL, LATEST, PREVIOUS)):
        aside = files.left_out_training(stage, arm, fold)
        aside.mkdir(parents=True)
        for file in folder.iterdir():
            if file.name != LOCK:
                file.replace(aside / file.name)
        for name in sorted(set(wanted) | set(before)):
            old, new = before.get(name), wanted.get(name)
            if old != new:
                report(f"the training there was is not continued: {name} was {old!r} and is {new!r}")
        report(f"it is kept in {aside.relative_to(files.work)} below the study's folder; nothing reads it any more")
    write_json(path, wanted)


def training_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """The card's product name, or "cpu" with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread(s)"


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB: of torch on the GPU, else of this process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
