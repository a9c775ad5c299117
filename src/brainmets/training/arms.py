"""The arms, each a small trainer: what makes it differ from nnU-Net's own, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn
from torch.nn import functional

from brainmets.training import exported_trainer
from brainmets.training.lesion_loss import AppendZones, LesionDiceLoss
from brainmets.training.plans import RESIDUAL_PLAN, UNET_PLAN
from brainmets.training.trainer import StudyTrainer


class DefaultTrainer(StudyTrainer):
    """nnU-Net as it is: its network, Dice plus cross-entropy, SGD with Nesterov momentum, polynomial decay."""

    arm = "default"


class TverskyBCETrainer(StudyTrainer):
    """nnU-Net's network and optimiser with a loss that weighs what is missed above what is false."""

    arm = "tversky_bce"

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


class SegResNetTrainer(StudyTrainer, exported_trainer.SegResNetTrainer):
    """MONAI's SegResNet with Adam in float32, as the paper's authors ran it; nnU-Net's loss on one output."""

    arm = "segresnet"
    head_keys = ("conv_final.2.",)
    encoder_keys = ("convInit.", "down_layers.")

    def channels_last(self) -> bool:
        """Not in bfloat16: there the group normalisation loses more time than the convolutions gain."""
        return super().channels_last() and self.precision == "nnunet"


class LesionDiceTrainer(StudyTrainer):
    """nnU-Net with a second term beside its loss that counts lesions and not voxels."""

    arm = "lesion_dice"

    def _build_loss(self) -> nn.Module:
        if self.label_manager.has_ignore_label or not self.enable_deep_supervision:
            raise ValueError("lesion_dice: needs regions without an ignore label, and outputs under deep supervision")
        return LesionDiceLoss(super()._build_loss(), self.settings["lesion_weight"])

    @staticmethod
    def get_training_transforms(*arguments: Any, **named: Any) -> BasicTransform:
        """nnU-Net's, and the zones of the patch's lesions as the last of the targets."""
        own = StudyTrainer.get_training_transforms(*arguments, **named)
        return ComposeTransforms([*own.transforms, AppendZones()])

    @staticmethod
    def get_validation_transforms(*arguments: Any, **named: Any) -> BasicTransform:
        """nnU-Net's, and the zones of the patch's lesions as the last of the targets."""
        own = StudyTrainer.get_validation_transforms(*arguments, **named)
        return ComposeTransforms([*own.transforms, AppendZones()])


class LesionSamplingTrainer(StudyTrainer):
    """nnU-Net as it is, on patches that are placed on lesions: the setting ``lesion_sampling`` of any arm."""

    arm = "lesion_sampling"


class LesionTransplantTrainer(StudyTrainer):
    """nnU-Net as it is, on patches with blended lesions: the setting ``lesion_transplant`` of any arm."""

    arm = "lesion_transplant"


class DefaultResEncTrainer(StudyTrainer):
    """nnU-Net's residual-encoder plan, with its loss and its optimiser."""

    arm = "default_resenc"
    plan_name = RESIDUAL_PLAN


TRAINERS: dict[str, type[StudyTrainer]] = {
    trainer.arm: trainer
    for trainer in (
        DefaultTrainer,
        TverskyBCETrainer,
        SegResNetTrainer,
        LesionDiceTrainer,
        LesionSamplingTrainer,
        LesionTransplantTrainer,
        DefaultResEncTrainer,
    )
}


def own_plans(arms: Iterable[str]) -> list[str]:
    """The plans that these arms need beside the U-Net's, which every study has.

    >>> own_plans(["default", "segresnet"]), own_plans(["default", "default_resenc"])
    ([], ['nnUNetResEncUNetPlans'])
    """
    return sorted({TRAINERS[arm].plan_name for arm in arms} - {UNET_PLAN})


SMOOTH = 1e-5
"""Keeps the Tversky index of an empty region defined: it is 1 where nothing is there and nothing is predicted."""


class TverskyBCELoss(nn.Module):
    """Tversky loss plus weighted binary cross-entropy, one to one.

    For probabilities ``p`` (sigmoid of the network's output) and a binary target ``y``, per sample and region:

    - Tversky index ``T = (TP + s) / (TP + alpha FP + beta FN + s)`` with soft counts ``TP = sum(p y)``,
      ``FP = sum(p (1 - y))``, ``FN = sum((1 - p) y)`` (Salehi et al., 2017, doi:10.1007/978-3-319-67389-9_44);
      the loss is the mean of ``1 - T`` over samples and regions.
    - Binary cross-entropy per voxel, a positive voxel's multiplied by ``positive_weight``; the mean over all voxels
      and regions. The paper's text gives 10; its authors' code multiplies by ``1 + 10 y``, which is 11.

    The first term is 1 where a region is missed and 0 where it is found:

    >>> loss = TverskyBCELoss(alpha=0.3, beta=0.7, positive_weight=11)
    >>> missed, found = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    >>> round(loss.tversky(missed, found).item(), 4), round(loss.tversky(found, found).item(), 4)
    (1.0, 0.0)

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        positive_weight: weight of a positive voxel's cross-entropy.

    """

    def __init__(self, alpha: float, beta: float, positive_weight: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.positive_weight = positive_weight

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss of logits ``output`` and a boolean or 0/1 ``target``, both (batch, regions, z, y, x)."""
        target = target.to(output.dtype)
        return self.tversky(torch.sigmoid(output), target) + self.cross_entropy(output, target)

    def tversky(self, probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean of ``1 - T`` over samples and regions."""
        axes = tuple(range(2, target.ndim))
        true_positive = (probability * target).sum(axes)
        false_positive = (probability * (1 - target)).sum(axes)
        false_negative = ((1 - probability) * target).sum(axes)
        weighted = true_positive + self.alpha * false_positive + self.beta * false_negative
        return (1 - (true_positive + SMOOTH) / (weighted + SMOOTH)).mean()

    def cross_entropy(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Weighted binary cross-entropy of logits, averaged over every voxel."""
        per_voxel = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        return (per_voxel * (1 + (self.positive_weight - 1) * target)).mean()
