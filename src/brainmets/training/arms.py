"""The three arms of the study, each a small trainer: what makes it differ from nnU-Net's own, and nothing else."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from monai.networks.nets import SegResNet
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch.nn import functional

from brainmets.training.losses import TverskyBCELoss
from brainmets.training.trainer import StudyTrainer


class DefaultTrainer(StudyTrainer):
    """nnU-Net as it is: its network, Dice plus cross-entropy, SGD with Nesterov momentum, polynomial decay."""

    arm = "default"
    head_keys = (".seg_layers.",)
    encoder_keys = ("encoder.",)


class TverskyBCETrainer(StudyTrainer):
    """nnU-Net's network and optimiser with a loss that weighs what is missed above what is false."""

    arm = "tversky_bce"
    head_keys = (".seg_layers.",)
    encoder_keys = ("encoder.",)

    def _build_loss(self) -> nn.Module:
        loss: nn.Module = TverskyBCELoss(
            self.settings["alpha"], self.settings["beta"], self.settings["positive_weight"]
        )
        if self.enable_deep_supervision:
            # nnU-Net's weights: halved at each coarser output, none for the coarsest, summing to one
            weights = np.array([1 / 2**level for level in range(len(self._get_deep_supervision_scales()))])
            weights[-1] = 0
            loss = DeepSupervisionWrapper(loss, weights / weights.sum())
        return loss


class SegResNetTrainer(StudyTrainer):
    """MONAI's SegResNet with Adam in float32, as the paper's authors ran it; nnU-Net's loss on one output."""

    arm = "segresnet"
    head_keys = ("conv_final.2.",)
    encoder_keys = ("convInit.", "down_layers.")

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False
        self.weight_decay = self.settings["weight_decay"]

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """SegResNet with blocks (1, 2, 2, 4) down and (1, 1, 1) up; the first level's filters stand in the plan."""
        return PaddingSegResNet(
            spatial_dims=3,
            init_filters=plans_manager.plans["brainmets"]["settings"]["filters"],
            in_channels=num_input_channels,
            out_channels=num_output_channels,
            blocks_down=(1, 2, 2, 4),
            blocks_up=(1, 1, 1),
        )

    def channels_last(self) -> bool:
        """Not in bfloat16: its group normalisation is slower so than the convolutions gain."""
        return super().channels_last() and self.precision == "nnunet"

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Adam with the authors' epsilon, in one kernel; polynomial decay."""
        optimiser = torch.optim.Adam(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay, eps=1e-5, fused=True
        )
        return optimiser, PolyLRScheduler(optimiser, self.initial_lr, self.num_epochs)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to switch: SegResNet has one output."""

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """In float32, as the authors trained this arm, unless bfloat16 is asked for."""
        if self.precision == "nnunet":
            return self.step(batch, nullcontext())
        return super().train_step(batch)


class PaddingSegResNet(SegResNet):
    """SegResNet on any patch: zero-pads to what its three halvings need and crops the output back.

    nnU-Net halves an anisotropic axis less often, so its patches need not be divisible by eight along it. The
    weights and their names are SegResNet's own.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, regions, z, y, x) of an image (batch, channels, z, y, x)."""
        size = x.shape[2:]
        step = 2 ** (len(self.blocks_down) - 1)
        padding = [amount for extent in reversed(size) for amount in (0, -extent % step)]
        output = super().forward(functional.pad(x, padding))
        return output[:, :, : size[0], : size[1], : size[2]]


TRAINERS: dict[str, type[StudyTrainer]] = {
    trainer.arm: trainer for trainer in (DefaultTrainer, TverskyBCETrainer, SegResNetTrainer)
}
