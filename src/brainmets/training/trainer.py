"""What the arms share: nnU-Net's trainer, with whole checkpoints, progress, and no spawned pools."""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import Any, ClassVar, Self
from unittest.mock import patch

import matplotlib
import numpy as np
import torch
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from brainmets.files import read_json, replacing
from brainmets.params import FineTuning, Training
from brainmets.processes import end_with_parent
from brainmets.provenance import sha256
from brainmets.training import channels
from brainmets.training.commands import training_command
from brainmets.training.exported_trainer import optimiser_step
from brainmets.training.finetuning import (
    TRANSFERRED,
    TransferredKey,
    TransferSchedule,
    lower_transferred,
    transfer_weights,
)
from brainmets.training.lesion_sampling import CaseLesions, LesionSampling
from brainmets.training.plans import CONFIGURATION, require_known_network
from brainmets.training.preprocessed import StudyDataset, require_stored
from brainmets.training.seeds import SeededLoader, begin_epoch, derived_seed
from brainmets.training.sequence_dropout import SequenceDropout
from brainmets.training.transplant import Transplants
from brainmets.vocabulary import NETWORK_REGIONS

LATEST, PREVIOUS, FINAL = "checkpoint_latest.pth", "checkpoint_previous.pth", "checkpoint_final.pth"
"""The checkpoint of the last whole epoch, the one before it, and the finished model."""
RECORD = "training.json"
"""Beside a finished model: what notebooks 03 to 05 keep of its training, its hash among it."""
OF_CASES = ("dataset", channels.ABSENT)
"""Of ``dataset.json``, what names cases; a checkpoint goes to others without it."""
LEAST_SCALE = 2.0**-14
"""nnU-Net's float16 steps begin with their loss times 2^16 and halve the factor at each overflow, which skips the
step. Below this one 31 steps have overflowed since the last 2,000 whole ones: no gradient fits any more."""


class StudyTrainer(nnUNetTrainer):
    """nnU-Net's trainer for one arm.

    The arm's name and settings travel in the plan, under the key "brainmets", so that a checkpoint and an exported
    model say by themselves how to build the network. nnU-Net reads the constructor's signature: it must stay as is.
    """

    arm: ClassVar[str]
    head_keys: ClassVar[tuple[str, ...]] = (".seg_layers.",)
    """Parts of the names of the weights that form the segmentation head."""
    encoder_keys: ClassVar[tuple[str, ...]] = ("encoder.",)
    """Beginnings of the names of the weights that form the encoder."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.settings: dict[str, Any] = plans["brainmets"]["settings"]
        self.initial_lr = self.settings["learning_rate"]
        self.precision = "nnunet"
        self.freeze_encoder_epochs = 0
        self.never_frozen: frozenset[str] = frozenset()
        self.batches_seed = 0
        self.cases: frozenset[str] | None = None
        self.lesions: dict[str, CaseLesions] = {}
        self.trained_with: dict[str, Any] = {}
        self.report: Callable[[str], None] = print
        self.dropout = SequenceDropout(
            channels.names(dataset_json),
            channels.absent(dataset_json),
            self.settings.get("sequence_dropout", 0.0),
        )
        self.transplants: Transplants | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        plan: Mapping[str, Any],
        dataset: Mapping[str, Any],
        parameters: Training,
        device: torch.device,
    ) -> Self:
        """An initialised trainer with random weights that keeps its files in ``folder`` (created)."""
        plans = deepcopy(dict(plan))
        plans["brainmets"] = {"arm": cls.arm, "settings": parameters.arms.settings(cls.arm)}
        plans["continue_training"] = False
        with tempfile.TemporaryDirectory() as stray, contextlib.redirect_stdout(io.StringIO()):
            # nnU-Net's constructor insists on a results folder of its own naming, and announces the device
            os.environ["nnUNet_results"] = stray
            trainer = cls(plans, CONFIGURATION, parameters.fold, dict(dataset), device)
        folder.mkdir(parents=True, exist_ok=True)
        trainer.output_folder_base = str(folder.parent)
        trainer.output_folder = str(folder)
        trainer.log_file = str(folder / "training_log.txt")
        trainer.logger = MetaLogger(str(folder), False)
        trainer.num_epochs = parameters.epochs
        trainer.num_iterations_per_epoch = parameters.iterations_per_epoch
        trainer.num_val_iterations_per_epoch = parameters.validation_iterations
        trainer.precision = parameters.precision
        trainer.initialize()
        return trainer

    @property
    def bare_network(self) -> nn.Module:
        """The network without torch.compile's wrapper."""
        network: Any = getattr(self.network, "_orig_mod", self.network)
        return network

    def initialize(self) -> None:
        """nnU-Net's own, with cases that are read without unpickling, then what the device asks for."""
        module = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class"
        with patch(module, lambda folder: StudyDataset):
            super().initialize()
        choose_convolutions(self.device)
        if self.device.type == "cpu" and self.precision == "bfloat16":
            keep_shallow_convolutions_in_float32(self.network)
        if self.channels_last():
            keep_channels_last(self.network)

    def channels_last(self) -> bool:
        """Whether a step is faster with the channels last: on a CPU (``benchmarks/results/cpu.md``).

        On GPUs this was not measured, and nnU-Net's layout stays.
        """
        return self.device.type == "cpu"

    # --- quieter and local ---

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Keep nnU-Net's own log in its file; the notebook shows one line per epoch instead."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)

    def plot_network_architecture(self) -> None:
        """Draw nothing: nnU-Net's drawing needs a package outside the environment."""

    def _save_debug_information(self) -> None:
        """Write nothing: nnU-Net's file names the machine; ``training.json`` says what matters."""

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders, each drawing from streams of its own that follow from ``batches_seed``.

        Asked again in the same epoch, they give the same batches again. Their augmentation processes end with this
        one, even where it is killed; nnU-Net's own would stay behind for ever, each with its share of memory.
        """
        register_after_fork(self, lambda trainer: end_with_parent())
        uses = iter(("training", "validation"))  # in the order in which nnU-Net makes its loaders

        def loader(*arguments: Any, **named: Any) -> SeededLoader:
            seed = derived_seed(self.batches_seed, next(uses))
            return SeededLoader(*arguments, **named, seed=seed, epoch=self.current_epoch)

        with patch("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetDataLoader", loader):
            batches, validation = super().get_dataloaders()
        for source in (batches, validation):  # nnU-Net takes the first batch to see whether it comes
            begin_epoch(source, self.current_epoch)
        if self.transplants is not None:
            self.transplants.count_from(self.trained_with.get("transplants", {}))
        return batches, validation

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's cases of training and validation: the settings of the arm's patches change the first alone."""
        train, validation = super().get_tr_and_val_datasets()
        if (rule := self.settings.get("lesion_sampling", "voxels")) != "voxels":
            train = LesionSampling(train, rule, self.voxel_mm3, self.lesions)
        if share := self.settings.get("lesion_transplant", 0.0):
            train = self._with_transplants(train, share)  # outermost: the loader tells it where each patch lies
        return train, validation

    def _with_transplants(self, train: Any, share: float) -> Transplants:
        """``train`` with lesions in a share of its patches. Donors and places are searched for once a training."""
        if self.transplants is None:
            self.transplants = Transplants(
                train,
                Path(self.preprocessed_dataset_folder),
                share,
                self.dropout.sequences,
                self.configuration_manager.spacing,
                self.configuration_manager.patch_size,
            )
        self.transplants.dataset = train
        return self.transplants

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel that the network sees."""
        return math.prod(self.configuration_manager.spacing)

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's fold, with the training cases among ``cases`` alone where these are set."""
        train, validation = super().do_split()
        return [case for case in train if self.cases is None or case in self.cases], validation

    # --- fine-tuning ---

    def fine_tune(
        self, weights: Mapping[str, torch.Tensor], sequences: Sequence[str], options: FineTuning
    ) -> list[TransferredKey]:
        """Take over pretrained ``weights``, of a network that reads ``sequences``, before the first step.

        Returns one row per weight. A first layer that was adapted to other sequences, or is fresh, learns while the
        encoder is frozen: a new sequence's weights start at zero, so that the network would not see it.

        With the paper's values (``warmup_epochs`` 0, ``transferred_rate`` 1, ``freeze_encoder_epochs`` 0) optimiser
        and schedule stay nnU-Net's own. Raises ``TransferError`` where names or shapes differ.
        """
        rows = transfer_weights(
            self.bare_network, weights, self.head_keys, options.transfer_head, sequences, self.dropout.sequences
        )
        self.freeze_encoder_epochs = options.freeze_encoder_epochs
        self.never_frozen = frozenset(row.key for row in rows if row.status in ("adapted", "fresh"))
        rate, warmup = options.transferred_rate, options.warmup_epochs
        if rate != 1:
            transferred = {row.key for row in rows if row.status in TRANSFERRED}
            lower_transferred(self.optimizer, self.bare_network, transferred, rate)
        if rate != 1 or warmup:
            self.lr_scheduler = TransferSchedule(self.optimizer, self.initial_lr, self.num_epochs, warmup)
        return rows

    def on_train_epoch_start(self) -> None:
        """Freeze or unfreeze the encoder; either optimiser leaves a weight without a gradient alone."""
        super().on_train_epoch_start()
        for source in (self.dataloader_train, self.dataloader_val):
            begin_epoch(source, self.current_epoch)
        self.dropout.begin(self.batches_seed, self.current_epoch)
        if self.freeze_encoder_epochs:
            learns = self.current_epoch >= self.freeze_encoder_epochs
            for name, value in self.bare_network.named_parameters():
                if name.startswith(self.encoder_keys) and name not in self.never_frozen:
                    value.requires_grad_(learns)

    # --- steps ---

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The arm's own step, or one whose forward pass runs in bfloat16; neither takes gradients that are not finite.

        The sequences that a case lacks are 0 in its patch, and so are those that ``sequence_dropout`` takes.

        nnU-Net's float16 skips such a step by itself (its GradScaler, on a GPU alone). Its float32 step would take
        it: ``optimiser_step`` is the same step, and raises ``FloatingPointError``.
        """
        batch = self.dropout(batch)
        if self.precision != "nnunet":
            return optimiser_step(self, batch, torch.autocast(self.device.type, torch.bfloat16))
        if self.grad_scaler is None:
            return optimiser_step(self, batch, contextlib.nullcontext())
        return super().train_step(batch)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's own step in the training's precision."""
        if self.precision == "nnunet":
            return super().validation_step(batch)
        with torch.autocast(self.device.type, torch.bfloat16):
            return super().validation_step(batch)

    # --- epochs and checkpoints ---

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the epoch's mean loss; ``FloatingPointError`` where it is not finite, or no step fits float16."""
        super().on_train_epoch_end(train_outputs)
        self._require_finite_loss("training", "train_losses")
        if self.grad_scaler is not None and self.precision == "nnunet" and self.grad_scaler.get_scale() < LEAST_SCALE:
            raise FloatingPointError(
                f"epoch {self.current_epoch + 1}: no gradient fits float16, whatever it is multiplied with: no step "
                "changes a weight any more; lower the arm's learning_rate, or train with precision bfloat16"
            )

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log the epoch's validation; ``FloatingPointError`` where its mean loss is not finite."""
        super().on_validation_epoch_end(val_outputs)
        self._require_finite_loss("validation", "val_losses")

    def _require_finite_loss(self, what: str, name: str) -> None:
        loss = float(self.logger.local_logger.my_fantastic_logging[name][-1])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"epoch {self.current_epoch + 1}: the {what} loss is {loss:g}; nothing of this epoch is kept. Lower "
                "the arm's learning_rate; if that changes nothing, look at the images"
            )

    def on_epoch_end(self) -> None:
        """Log the epoch, report its progress, and keep a checkpoint of it."""
        self.logger.log("epoch_end_timestamps", time.time(), self.current_epoch)
        log = self.logger.local_logger.my_fantastic_logging
        seconds = np.subtract(log["epoch_end_timestamps"], log["epoch_start_timestamps"])
        left = (self.num_epochs - self.current_epoch - 1) * seconds[-5:].mean()
        dice = zip(NETWORK_REGIONS, log["dice_per_class_or_region"][-1], strict=True)
        line = (
            f"epoch {self.current_epoch + 1} of {self.num_epochs}: loss {log['train_losses'][-1]:.3f}, "
            f"Dice {' '.join(f'{region} {value:.2f}' for region, value in dice)}, "
            f"{seconds[-1]:.1f} s, {int(left // 60)} min {int(left % 60):02d} s left"
        )
        self.print_to_log_file(line)
        self.report(line)
        if self.transplants is not None:
            self.trained_with["transplants"] = self.transplants.report()
        if self.current_epoch + 1 < self.num_epochs:
            self.save_checkpoint(str(Path(self.output_folder) / LATEST))
        self.current_epoch += 1

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint of plain values only, whole or not at all; beside its keys is "trained_with".

        Plain values let it be read with ``weights_only=True``; the layout is nnU-Net's own, so that its predictor
        reads the file too. An earlier latest checkpoint becomes the previous one, so that one whole checkpoint is
        left where a disk damages the other. Raises ``CheckpointError`` where the file cannot be written, or where a
        weight or what the optimiser remembers is not finite; the earlier ones are then untouched.
        """
        path = Path(filename)
        checkpoint = {
            "network_weights": self.bare_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": plain(self.logger.get_checkpoint()),
            "_best_ema": plain(self._best_ema),
            "current_epoch": self.current_epoch + 1,
            "init_args": {
                "plans": plain(self.plans_manager.plans),
                "configuration": self.configuration_name,
                "fold": self.fold,
                "dataset_json": {key: value for key, value in self.dataset_json.items() if key not in OF_CASES},
            },
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": plain(self.inference_allowed_mirroring_axes),
            "trained_with": self.trained_with,
        }
        if wrong := not_finite(checkpoint):
            raise CheckpointError(
                f"epoch {self.current_epoch + 1}: {wrong} is not finite; {path.name} is not written and the earlier "
                "checkpoints are kept. Lower the arm's learning_rate; if that changes nothing, look at the images"
            )
        try:
            with replacing(path) as aside:
                torch.save(checkpoint, aside)
                if path.name == LATEST and path.is_file():
                    path.replace(path.with_name(PREVIOUS))
        except (OSError, RuntimeError) as error:  # torch turns some of the system's write errors into RuntimeError
            raise CheckpointError(
                f"{path} could not be written ({error}); see whether the disk is full, then run again: the training "
                "continues from the last whole checkpoint"
            ) from error

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Continue from a checkpoint: weights, optimiser, epoch and log. A file is read with ``weights_only=True``.

        The learning rate needs no state of its own: nnU-Net's schedule is a function of the epoch.
        """
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = read_checkpoint(Path(checkpoint), self.device)
        self.bare_network.load_state_dict(checkpoint["network_weights"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        self.logger.load_checkpoint(checkpoint["logging"])
        self.current_epoch = checkpoint["current_epoch"]
        self._best_ema = checkpoint["_best_ema"]
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]

    def on_train_end(self) -> None:
        """Keep the final checkpoint, nnU-Net's picture of the curves, and the checkpoint of one epoch before.

        Where the final one is found damaged or gone later, that one epoch is trained again, and not all of them.
        """
        with matplotlib.rc_context():  # it sets seaborn's style and huge letters for every figure that follows
            self.logger.plot_progress_png(self.output_folder)
        folder = Path(self.output_folder)
        if (folder / LATEST).is_file():  # of one epoch before: the last epoch writes the final one alone
            (folder / LATEST).replace(folder / PREVIOUS)
        super().on_train_end()  # which would delete the latest


def choose_convolutions(device: torch.device) -> None:
    """On a GPU let cuDNN try its convolutions on the first batches and keep the fastest, as nnU-Net's command does.

    The choice depends on the card and on what else it does, and so do the last digits of the results.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = True


def keep_shallow_convolutions_in_float32(network: nn.Module) -> None:
    """Let the 3D convolutions of ``network`` run in float32 on the images for which bfloat16 fails on a CPU.

    There the weight gradient holds whatever lay in memory before where the image has more than one slice along the
    first axis but fewer than the kernel (two, for the usual kernel of three). Seen with torch 2.13's oneDNN on
    processors with AVX512-BF16; output and the gradient of the image are right, and so is everything in float32.
    SegResNet, which halves every axis three times, meets it with patches of up to 16 slices.
    """

    def convolve(convolution: nn.Conv3d, image: torch.Tensor) -> torch.Tensor:
        if not 1 < image.shape[2] < convolution.kernel_size[0]:
            return nn.Conv3d.forward(convolution, image)
        with torch.autocast(image.device.type, enabled=False):
            return nn.Conv3d.forward(convolution, image.float())

    convolve_by(network, convolve)


def convolve_by(network: nn.Module, convolve: Callable[[nn.Conv3d, torch.Tensor], torch.Tensor]) -> None:
    """Let ``convolve`` do what the 3D convolutions of ``network`` do; it is given the convolution and the image."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.forward = partial(convolve, module)  # type: ignore[method-assign]


def keep_channels_last(network: nn.Module) -> None:
    """Lay out the weights of ``network``, and each image that it is given, with the channels last."""

    def turned(_: nn.Module, images: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(image.contiguous(memory_format=torch.channels_last_3d) for image in images)

    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    network.register_forward_pre_hook(turned)


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, carries code, or cannot be written; the message says what to do."""


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint without running anything that it may carry.

    Raises ``CheckpointError`` where it is missing or damaged, its plan names foreign code, it holds weights that are
    not finite, or it is a finished model but not the one that ``training.json`` beside it was written for. The
    message names the command that trains it.
    """
    command = training_command(path)
    repair = f"`{command}` trains it again" if command else "delete it and train again"
    if not path.is_file():
        raise CheckpointError(f"{path} is not there; {f'`{command}`' if command else 'the training'} makes it")
    if (recorded := _recorded_hash(path)) not in (None, sha256(path)):
        raise CheckpointError(
            f"{path} is damaged or of another training: {RECORD} beside it was written for a model with SHA-256 "
            f"{recorded}; {repair}"
        )
    try:
        require_stored(path)
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors alike
        raise CheckpointError(
            f"{path} cannot be read as plain weights: it is damaged or carries code ({type(error).__name__}); "
            f"{repair}, or get it from a source that writes plain weights"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("network_weights"), dict):
        raise CheckpointError(f"{path} is not a checkpoint of nnU-Net: it has no network_weights")
    try:
        require_known_network(checkpoint["init_args"]["plans"], str(path))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} holds no plan of notebook 02 ({error}); {repair}") from error
    try:
        if any(map(_is_unreal, _tensors([checkpoint["network_weights"], checkpoint.get("optimizer_state")]))):
            raise CheckpointError(f"{path} holds tensors that are larger than what is stored of them; {repair}")
        wrong = not_finite(checkpoint)
    except RecursionError:
        raise CheckpointError(f"{path} is no checkpoint of nnU-Net: it is nested without end; {repair}") from None
    if wrong:
        raise CheckpointError(f"{path} is of no use: {wrong} is not finite; {repair}")
    return checkpoint


def _recorded_hash(path: Path) -> str | None:
    """The finished model's SHA-256 as ``training.json`` beside it has it; ``None`` where there is no record."""
    beside = path.with_name(RECORD)
    if path.name != FINAL or not beside.is_file():
        return None
    try:
        recorded = read_json(beside).get("checkpoint_sha256")
    except (ValueError, OSError):
        return None  # the record's own reader names it
    return recorded if isinstance(recorded, str) else None


def not_finite(checkpoint: Mapping[str, Any]) -> str | None:
    """The first weight, or memory of the optimiser, in a checkpoint that holds a NaN or infinity; ``None`` if none.

    >>> not_finite({"network_weights": {"head": torch.tensor([1.0, torch.inf])}})
    'the weight head'
    """
    for name, value in checkpoint["network_weights"].items():
        if _spoilt(value):
            return f"the weight {name}"
    for value in _tensors(checkpoint.get("optimizer_state")):
        if _spoilt(value):
            return "a value that the optimiser remembers"
    return None


def _is_unreal(value: torch.Tensor) -> bool:
    """Whether a tensor is none of plain numbers, or repeats few of them: one stored number can stand for 10^12."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        return True
    return value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _spoilt(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not bool(torch.isfinite(value).all())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def plain(value: Any) -> Any:
    """Turn NumPy scalars and arrays inside dictionaries, lists and tuples into plain Python values."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
