"""Fine-tuning: which pretrained weights a network takes over, and how fast those are trained on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.optim import Optimizer

SHARE = "rate_share"
"""Name, in an optimiser's parameter group, of the share of the learning rate that the group gets."""


class TransferError(ValueError):
    """Weights that do not fit the network; the message gives both shapes and the likely cause."""


class TransferredKey(NamedTuple):
    """One weight of the network: ``status`` is "loaded" or "skipped", ``reason`` says why it was skipped."""

    key: str
    shape: tuple[int, ...]
    status: str
    reason: str


def transfer_weights(
    network: nn.Module, weights: Mapping[str, torch.Tensor], head_keys: Sequence[str], transfer_head: bool
) -> list[TransferredKey]:
    """Load ``weights`` into ``network`` in place and return one row per key.

    ``head_keys`` are parts of names that mark the segmentation head; with ``transfer_head`` false those keep their
    random initialisation. Raises ``TransferError`` where names or shapes differ.

    >>> rows = transfer_weights(nn.Linear(2, 1), nn.Linear(2, 1).state_dict(), ["bias"], transfer_head=False)
    >>> [(row.key, row.shape, row.status) for row in rows]
    [('weight', (1, 2), 'loaded'), ('bias', (1,), 'skipped')]
    """
    own = network.state_dict()
    if stray := sorted(set(weights) ^ set(own)):
        raise TransferError(
            f"{len(stray)} weight(s) are in only one of network and checkpoint, the first is {stray[0]!r}: the "
            "checkpoint is of another arm or of another plan; rerun notebook 02 and the pretraining with the same "
            "parameters"
        )
    rows = []
    for key, value in own.items():
        if weights[key].shape != value.shape:
            raise TransferError(
                f"{key}: the checkpoint has shape {tuple(weights[key].shape)}, the network {tuple(value.shape)}: the "
                "source was not trained with the target's plan, or with another number of features; rerun notebook 02 "
                "and the pretraining with the same parameters"
            )
        skipped = not transfer_head and any(part in key for part in head_keys)
        status, reason = ("skipped", "segmentation head, and transfer_head is false") if skipped else ("loaded", "")
        rows.append(TransferredKey(key, tuple(value.shape), status, reason))
    network.load_state_dict({**own, **{row.key: weights[row.key] for row in rows if row.status == "loaded"}})
    return rows


# --- beyond the paper: a warm-up, and a lower rate for what was transferred ---


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
