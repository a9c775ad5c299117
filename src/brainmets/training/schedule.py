"""The learning rate of a fine-tuning that goes beyond the paper: a warm-up, and a lower rate for what was transferred.

Used only where one of the two is asked for; nnU-Net's own schedule stands otherwise.
"""

from __future__ import annotations

from collections.abc import Collection

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.optim import Optimizer

SHARE = "rate_share"
"""Name, in an optimiser's parameter group, of the share of the learning rate that the group gets."""


class TransferSchedule(PolyLRScheduler):
    """nnU-Net's polynomial decay times a linear warm-up, times each parameter group's own share.

    In epoch ``e`` (from 0) of ``n`` with ``w`` epochs of warm-up a group of share ``s`` learns at

        ``initial_lr (1 - e / n)^0.9 min(1, (e + 1) / (w + 1)) s``.
    """

    def __init__(self, optimiser: Optimizer, initial_lr: float, epochs: int, warmup_epochs: int) -> None:
        self.warmup_epochs = warmup_epochs
        super().__init__(optimiser, initial_lr, epochs)

    def step(self, current_step: int | None = None) -> None:
        """Set the rates of epoch ``current_step``; ``None`` counts up by itself, as nnU-Net's schedule does."""
        epoch = self.ctr if current_step in (None, -1) else current_step
        super().step(current_step)
        warmup = min(1.0, (epoch + 1) / (self.warmup_epochs + 1))
        for group in self.optimizer.param_groups:
            group["lr"] *= warmup * group.get(SHARE, 1.0)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def lower_transferred(optimiser: Optimizer, network: nn.Module, transferred: Collection[str], share: float) -> None:
    """Give the weights of ``network`` named in ``transferred`` a group of their own in ``optimiser``.

    The optimiser must not have made a step. The first group keeps the other weights, so that its rate is the one
    that is logged; where every weight was transferred there is one group, with the lower rate.
    """
    (group,) = optimiser.param_groups
    lowered = [value for name, value in network.named_parameters() if name in transferred]
    others = [value for name, value in network.named_parameters() if name not in transferred]
    if not others:
        group[SHARE] = share
        return
    options = {name: value for name, value in group.items() if name != "params"}
    group["params"] = others
    if lowered:
        optimiser.add_param_group({**options, "params": lowered, SHARE: share})
