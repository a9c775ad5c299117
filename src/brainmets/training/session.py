"""One training of the study: an arm, a fold, and a stage (pretraining, finetune or scratch)."""

from __future__ import annotations

import hashlib
import json
import random
import re
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from brainmets.files import read_json, write_json
from brainmets.params import FineTuning, Training
from brainmets.paths import StudyPaths
from brainmets.processes import BusyError, locked
from brainmets.provenance import sha256
from brainmets.training.arms import TRAINERS
from brainmets.training.plans import content_digest, read_dataset, read_plan, use_nnunet_folders
from brainmets.training.trainer import FINAL, LATEST, PREVIOUS, CheckpointError, StudyTrainer, read_checkpoint
from brainmets.training.transfer import TransferredKey, transfer_weights
from brainmets.vocabulary import NETWORK_REGIONS, STAGE_COHORTS, Stage

IDENTITY = "identity.json"
"""What a training is made of; a checkpoint is continued only under the same identity."""
LOCK = "training.lock"
"""Held by the process that prepares or trains in a folder."""


Standing = tuple[tuple[str, int, int] | None, ...]
"""Name, size and time of change of a training's own files, ``None`` for one that is not there."""


@dataclass
class TrainingSession:
    """A training that is ready to run, or already finished.

    ``transferred`` lists what was taken from the pretrained model, and is empty for the other stages. ``standing`` is
    what its folder held when it was prepared.
    """

    trainer: StudyTrainer
    folder: Path
    stage: Stage
    fold: int
    finished: bool
    resumed_epoch: int
    transferred: list[TransferredKey]
    standing: Standing
    seconds: float = field(default=0.0)

    @property
    def name(self) -> str:
        """Arm, fold and stage in words."""
        return f"{self.trainer.arm}, fold {self.fold}, {self.stage}"

    def description(self) -> pd.DataFrame:
        """What is trained, one row per property: network, weights, loss, optimiser, learning rate, steps, device."""
        trainer = self.trainer
        loss = getattr(trainer.loss, "loss", trainer.loss)  # inside nnU-Net's deep supervision, where there is one
        rows = {
            "network": type(trainer.bare_network).__name__,
            "weights": f"{sum(weight.numel() for weight in trainer.bare_network.parameters()):,}",
            "loss": type(loss).__name__,
            "outputs under supervision": len(getattr(trainer.loss, "weight_factors", [1])),
            "optimiser": type(trainer.optimizer).__name__,
            "initial learning rate": trainer.initial_lr,
            "steps": trainer.num_epochs * trainer.num_iterations_per_epoch,
            "device": device_name(trainer.device),
        }
        return pd.Series(rows, name=trainer.arm).to_frame()

    def transfer_table(self) -> pd.DataFrame:
        """What was taken over, one row per weight: key, shape, status ("loaded" or "skipped"), reason."""
        names = [column.name for column in fields(TransferredKey)]
        return pd.DataFrame([asdict(row) for row in self.transferred], columns=names)

    def run(self, report: Callable[[str], None] = print) -> None:
        """Train to the last epoch with one line per epoch; a finished training is left as it is.

        Raises ``BusyError`` where another process trains in this folder, or has done so since this session was
        prepared.
        """
        if self.finished:
            report(f"{self.name}: finished before with these parameters, not trained again")
            return
        with locked(self.folder / LOCK, f"the training {self.name}"):
            if _standing(self.folder) != self.standing:
                raise BusyError(
                    f"the files of the training {self.name} have changed since this session was prepared: prepare it "
                    "again, and it continues from the last whole checkpoint"
                )
            if self.resumed_epoch:
                report(f"{self.name}: continues after epoch {self.resumed_epoch} of {self.trainer.num_epochs}")
            started = time.monotonic()
            self.trainer.report = report
            self.trainer.run_training()
            self.seconds = time.monotonic() - started
            self.finished = True

    def curves(self) -> pd.DataFrame:
        """One row per epoch: epoch, training_loss, validation_loss, dice_WT, dice_TC, dice_ET, learning_rate, seconds.

        Dice is nnU-Net's pseudo-Dice: pooled over random validation patches, not a Dice of whole cases. It is
        missing where no validation patch held or predicted the region.
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
        """What ``training.json`` keeps beside the provenance: the curves, the transfer, the checkpoint's hash."""
        curves = self.curves()
        return {
            "stage": self.stage,
            "arm": self.trainer.arm,
            "fold": self.fold,
            "epochs": len(curves),
            "curves": curves.astype(object).where(curves.notna(), None).to_dict("list"),
            "weights_loaded": sum(row.status == "loaded" for row in self.transferred),
            "weights_skipped": [row.key for row in self.transferred if row.status == "skipped"],
            "training_seconds": round(float(curves.seconds.sum()), 2),
            "peak_memory_mb": peak_memory_mb(self.trainer.device),
            "checkpoint_sha256": sha256(self.folder / FINAL),
        }


def prepare(
    files: StudyPaths, parameters: Training, stage: Stage, report: Callable[[str], None] = print
) -> TrainingSession:
    """Make a training ready: the network built or continued, pretrained weights moved in for "finetune".

    Continues from the last whole checkpoint where one stands under the same identity (parameters, plan, split, images
    and label maps, pretrained weights); a checkpoint of another identity is deleted after the difference was
    reported. A damaged checkpoint is reported and set aside, and the one before it is continued, or the training
    starts anew. Raises ``BusyError`` where another process trains in the same folder.
    """
    use_nnunet_folders(files, parameters.augmentation_workers)
    arm, fold = parameters.arm, parameters.fold
    folder = files.training_folder(stage, arm, fold)
    pretrained = files.checkpoint("pretraining", arm, fold) if stage == "finetune" else None
    with locked(folder / LOCK, f"the training {arm}, fold {fold}, {stage}"):
        _claim(folder, _identity(files, parameters, stage, pretrained), report)
        trainer = _new_trainer(files, parameters, stage, folder)
        transferred = [] if pretrained is None else _transfer(trainer, parameters, pretrained)
        last, checkpoint = _last_whole_checkpoint(folder, trainer.device, report)
        if checkpoint is not None:
            trainer.load_checkpoint(checkpoint)
            seed_everything(parameters.seed + trainer.current_epoch)  # not the first epoch's patches over again
        return TrainingSession(
            trainer, folder, stage, fold, last == FINAL, trainer.current_epoch, transferred, _standing(folder)
        )


def _new_trainer(files: StudyPaths, parameters: Training, stage: Stage, folder: Path) -> StudyTrainer:
    """The arm's trainer with seeded random weights."""
    cohort = STAGE_COHORTS[stage]
    settings = getattr(parameters.arms, parameters.arm)
    seed_everything(parameters.seed)
    trainer = TRAINERS[parameters.arm].open(
        folder, read_plan(files, cohort), read_dataset(files, cohort), settings, parameters.fold, training_device()
    )
    trainer.num_epochs = parameters.epochs
    trainer.num_iterations_per_epoch = parameters.iterations_per_epoch
    trainer.num_val_iterations_per_epoch = parameters.validation_iterations
    trainer.precision = parameters.precision
    trainer.initialize()
    return trainer


def _transfer(trainer: StudyTrainer, parameters: Training, pretrained: Path) -> list[TransferredKey]:
    """Move the pretrained weights in and set the fine-tuning options."""
    assert isinstance(parameters, FineTuning)
    weights = read_checkpoint(pretrained, trainer.device)["network_weights"]
    transferred = transfer_weights(trainer.bare_network, weights, trainer.head_keys, parameters.transfer_head)
    loaded = {row.key for row in transferred if row.status == "loaded"}
    trainer.fine_tune(loaded, parameters.warmup_epochs, parameters.transferred_rate, parameters.freeze_encoder_epochs)
    return transferred


def _standing(folder: Path) -> Standing:
    found = []
    for name in (IDENTITY, FINAL, LATEST, PREVIOUS):
        path = folder / name
        state = path.stat() if path.is_file() else None
        found.append(None if state is None else (name, state.st_size, state.st_mtime_ns))
    return tuple(found)


def _last_whole_checkpoint(
    folder: Path, device: torch.device, report: Callable[[str], None]
) -> tuple[str | None, dict[str, Any] | None]:
    """Name and content of the furthest checkpoint that can be read; ``(None, None)`` where there is none.

    One that cannot be read is renamed to ``<name>.damaged``: left in place, the next epoch would keep it as the
    previous checkpoint and overwrite the whole one there.
    """
    damaged = []
    for name in (FINAL, LATEST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            checkpoint = read_checkpoint(path, device)
        except CheckpointError as error:
            damaged.append(name)
            path.replace(path.with_name(f"{name}.damaged"))
            report(f"{name} is damaged and kept as {name}.damaged: {error.__cause__ or error}")
        else:
            if damaged:
                report(f"{name} is whole: the training continues from it")
            return name, checkpoint
    if damaged:
        report("no whole checkpoint is left: the training starts anew")
    return None, None


def _identity(files: StudyPaths, parameters: Training, stage: Stage, pretrained: Path | None) -> dict[str, Any]:
    cohort = STAGE_COHORTS[stage]
    plan = json.dumps(read_plan(files, cohort), sort_keys=True)
    values = parameters.model_dump(exclude={"study", "work_dir", "arms", "augmentation_workers"})
    return {
        **values,
        "settings": getattr(parameters.arms, parameters.arm).model_dump(),
        "plan": hashlib.sha256(plan.encode()).hexdigest(),
        "splits": sha256(files.splits),
        "content": content_digest(files, cohort),
        "pretrained": sha256(pretrained) if pretrained is not None else None,
    }


def _claim(folder: Path, identity: dict[str, Any], report: Callable[[str], None]) -> None:
    """Delete checkpoints of another identity, saying what differs, and note whose folder it is now.

    Files that a killed process was still writing (``.<process>.<name>``, see ``brainmets.files``) are deleted too.
    """
    for unfinished in folder.glob(".*"):
        if re.match(r"\.\d+\.", unfinished.name):
            unfinished.unlink()
    path = folder / IDENTITY
    before = read_json(path) if path.is_file() else None
    if before == identity:
        return
    for stale in (folder / FINAL, folder / LATEST, folder / PREVIOUS):
        if stale.is_file():
            for name in sorted(set(identity) | set(before or {})):
                old, new = (before or {}).get(name), identity.get(name)
                if old != new:
                    report(f"{stale.name} is not continued: {name} was {old!r} and is {new!r}")
            stale.unlink()
    write_json(path, identity)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch.

    This fixes the initial weights and, without augmentation processes, the order of patches and augmentations. It
    does not fix the arithmetic of a GPU, nor the order in which several augmentation processes deliver.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nnU-Net and batchgenerators draw from the global state
    torch.manual_seed(seed)


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
