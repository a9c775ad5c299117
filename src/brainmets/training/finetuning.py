"""Fine-tuning: which pretrained weights a network takes over, and how fast those are trained on."""

from __future__ import annotations

import contextlib
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
    """One weight of the network.

    ``status`` is "loaded", "adapted" (the first layer's, by the names of its channels), "fresh" (the first layer's,
    where no sequence is shared) or "skipped" (the head's, where it is not wanted); ``reason`` says why it was not
    loaded as it is.
    """

    key: str
    shape: tuple[int, ...]
    status: str
    reason: str


TRANSFERRED = frozenset({"loaded", "adapted"})
"""A tensor has one learning rate: an adapted one, part of which starts at zero, learns as the transferred ones do."""


def transfer_weights(
    network: nn.Module,
    weights: Mapping[str, torch.Tensor],
    head_keys: Sequence[str],
    transfer_head: bool,
    given: Sequence[str] = (),
    wanted: Sequence[str] = (),
) -> list[TransferredKey]:
    """Load ``weights`` into ``network`` in place and return one row per key.

    ``head_keys`` are parts of names that mark the segmentation head; with ``transfer_head`` false those keep their
    random initialisation. ``given`` and ``wanted`` are the sequences that the weights and the network read, in channel
    order. Where they differ, the first layer is adapted: the weights of a sequence that both have move to its channel,
    those of one that the network does not read are dropped, and those of a new one start at zero: the network begins
    exactly as if that sequence were missing, and gradients reach it from the first step. Where the two share none the
    layer keeps its random initialisation. Raises ``TransferError`` where other names or shapes differ.

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
    first = input_layer(network, len(wanted)) if tuple(given) != tuple(wanted) else FirstLayer((), ())
    shared = [name for name in wanted if name in given]
    rows, taken = [], dict(own)
    for key, value in own.items():
        offered, status, reason = weights[key], "loaded", ""
        if not transfer_head and any(part in key for part in head_keys):
            status, reason = "skipped", "segmentation head, and transfer_head is false"
        elif key in (*first.weights, *first.biases) and not shared:
            status = "fresh"
            reason = f"first layer: the checkpoint reads {', '.join(given)}, the network {', '.join(wanted)}"
        elif key in first.weights:
            status, reason = "adapted", _adaptation(given, wanted)
            offered = adapted(offered, given, wanted)
        if status != "fresh" and offered.shape != value.shape:
            raise TransferError(
                f"{key}: the checkpoint has shape {tuple(weights[key].shape)}, the network {tuple(value.shape)}: the "
                "source was not trained with the target's plan, or with another number of features; rerun notebook 02 "
                "and the pretraining with the same parameters"
            )
        if status in TRANSFERRED:
            taken[key] = offered
        rows.append(TransferredKey(key, tuple(value.shape), status, reason))
    network.load_state_dict(taken)
    return rows


# --- the first layer ---


class FirstLayer(NamedTuple):
    """The names, in the network's ``state_dict``, of the weights and of the biases of the layer that sees the image.

    nnU-Net's networks know the same tensor by several names.
    """

    weights: tuple[str, ...]
    biases: tuple[str, ...]


class _FoundError(Exception):
    """Ends the forward pass that looks for the first layer."""


def input_layer(network: nn.Module, channels: int) -> FirstLayer:
    """The convolution that an image of ``channels`` sequences enters, whatever the network calls it.

    An image is sent through the network as far as its first convolution; the weights stay as they are. Raises
    ``TransferError`` where that takes another number of channels, or none takes the image.
    """
    found: list[nn.Module] = []

    def stop(module: nn.Module, _: tuple[torch.Tensor, ...]) -> None:
        found.append(module)
        raise _FoundError

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    hooks = [one.register_forward_pre_hook(stop) for one in network.modules() if isinstance(one, kinds)]
    value = next(network.parameters())
    try:
        with torch.no_grad(), contextlib.suppress(_FoundError):
            network(torch.zeros(1, channels, 32, 32, 32, device=value.device, dtype=value.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    if not found or found[0].in_channels != channels:
        raise TransferError(
            f"{type(network).__name__}: its first convolution does not take the image's {channels} channel(s): its "
            "weights cannot be adapted to other sequences; use the same sequences for pretraining and target"
        )
    known = network.state_dict(keep_vars=True)
    weights, biases = (
        tuple(name for name, one in known.items() if tensor is not None and one is tensor)
        for tensor in (found[0].weight, found[0].bias)
    )
    return FirstLayer(weights, biases)


def adapted(weight: torch.Tensor, given: Sequence[str], wanted: Sequence[str]) -> torch.Tensor:
    """A first layer's weight (output, given sequence, ...) for the sequences ``wanted``; zero for a new one.

    >>> adapted(torch.tensor([[[1.0], [2.0]]]), ["t1n", "t1c"], ["t1c", "t2f"])
    tensor([[[2.],
             [0.]]])
    """
    if weight.shape[1] != len(given):
        raise TransferError(
            f"the checkpoint's first layer has {weight.shape[1]} channel(s) for the sequences {', '.join(given)}: its "
            "dataset.json is not the one that it was trained with; pretrain again"
        )
    result = weight.new_zeros((len(weight), len(wanted), *weight.shape[2:]))
    for place, name in enumerate(wanted):
        if name in given:
            result[:, place] = weight[:, given.index(name)]
    return result


def _adaptation(given: Sequence[str], wanted: Sequence[str]) -> str:
    parts = {
        "by name": [name for name in wanted if name in given],
        "new, from zero": [name for name in wanted if name not in given],
        "dropped": [name for name in given if name not in wanted],
    }
    return "first layer: " + "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names)


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

    An adapted first layer counts as transferred as a whole (``TRANSFERRED``), a fresh one does not.

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
