"""nnU-Net trainer of BrainMets Transfer's segresnet arm: MONAI's SegResNet with Adam in float32.

Needs nnunetv2 and monai, and nothing of BrainMets Transfer: ``brainmets export`` copies this file, as it is, into the
archive of a segresnet model. Run as a program, it is ``nnUNetv2_predict`` with the same options, for that model.

nnU-Net's own command would look the trainer up by its name, and for that import every trainer that nnU-Net ships;
some need torchvision, and stop the command where its version does not match torch's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch.nn import functional


class SegResNetTrainer(nnUNetTrainer):
    """MONAI's SegResNet with Adam in float32, as the paper's authors ran it; nnU-Net's loss on one output.

    The plan holds the arm's settings, under the key "brainmets".
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        settings = plans["brainmets"]["settings"]
        self.initial_lr = settings["learning_rate"]
        self.weight_decay = settings["weight_decay"]
        self.enable_deep_supervision = False

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """SegResNet with blocks (1, 2, 2, 4) down and (1, 1, 1) up; the plan gives the first level's filters."""
        filters = plans_manager.plans["brainmets"]["settings"]["filters"]
        return padding_segresnet(num_input_channels, num_output_channels, filters)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Adam with the authors' epsilon, in one kernel; polynomial decay."""
        optimiser = torch.optim.Adam(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay, eps=1e-5, fused=True
        )
        return optimiser, PolyLRScheduler(optimiser, self.initial_lr, self.num_epochs)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to switch: SegResNet has one output."""

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """In float32, as the authors trained."""
        return optimiser_step(self, batch, nullcontext())


def padding_segresnet(channels: int, regions: int, filters: int) -> nn.Module:
    """SegResNet that takes any patch: zero-pads to what its three halvings need and crops the output back.

    nnU-Net halves an anisotropic axis less often, so its patches need not be divisible by eight along it. The
    weights and their names are SegResNet's own.
    """
    from monai.networks.nets import SegResNet  # takes seconds; the arms that share ``optimiser_step`` do without

    class PaddingSegResNet(SegResNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Logits (batch, regions, z, y, x) of an image (batch, channels, z, y, x)."""
            size = x.shape[2:]
            step = 2 ** (len(self.blocks_down) - 1)
            padding = [amount for extent in reversed(size) for amount in (0, -extent % step)]
            output = super().forward(functional.pad(x, padding))
            return output[:, :, : size[0], : size[1], : size[2]]

    return PaddingSegResNet(
        spatial_dims=3,
        init_filters=filters,
        in_channels=channels,
        out_channels=regions,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )


def optimiser_step(
    trainer: nnUNetTrainer, batch: dict[str, Any], forward: AbstractContextManager[Any]
) -> dict[str, Any]:
    """One step: the network under ``forward``, the loss in float32, gradients clipped at 12. Returns the loss.

    The batch's "target" is a tensor, or under deep supervision the list that the loss takes. Raises
    ``FloatingPointError`` where the gradients are not finite: clipped, they would spoil every weight.
    """
    data = batch["data"].to(trainer.device, non_blocking=True)
    target = batch["target"]
    several = isinstance(target, list)
    targets = [one.to(trainer.device, non_blocking=True) for one in (target if several else [target])]
    trainer.optimizer.zero_grad(set_to_none=True)
    with forward:
        output = trainer.network(data)
    outputs = [one.float() for one in (output if several else [output])]
    loss = trainer.loss(outputs, targets) if several else trainer.loss(outputs[0], targets[0])
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), 12)
    if not torch.isfinite(norm):
        raise FloatingPointError(
            f"epoch {trainer.current_epoch + 1}: the gradients are not finite (loss {loss.item():g}); lower the "
            "arm's learning_rate; if that changes nothing, look at the images"
        )
    trainer.optimizer.step()
    return {"loss": loss.detach().cpu().numpy()}


def main() -> None:
    """``nnUNetv2_predict``, which is told where the trainer is instead of looking for it."""
    from nnunetv2.inference import predict_from_raw_data

    predict_from_raw_data.recursive_find_trainer_class_by_name = {SegResNetTrainer.__name__: SegResNetTrainer}.get
    predict_from_raw_data.predict_entry_point()


if __name__ == "__main__":
    main()
