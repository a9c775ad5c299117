"""Moving pretrained weights into a network, and saying key by key what was moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn


class TransferError(ValueError):
    """Weights that do not fit the network; the message gives both shapes and the likely cause."""


@dataclass(frozen=True)
class TransferredKey:
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
    """
    own = network.state_dict()
    stray = sorted(set(weights) ^ set(own))
    if stray:
        raise TransferError(
            f"{len(stray)} weight(s) stand on one side only, the first is {stray[0]!r}: the checkpoint is of another "
            "arm or of another plan; rerun notebook 02 and the pretraining with the same parameters"
        )
    rows = []
    for key, value in own.items():
        if weights[key].shape != value.shape:
            raise TransferError(
                f"{key}: the checkpoint has shape {tuple(weights[key].shape)}, the network {tuple(value.shape)}: the "
                "source was not trained with the target's plan, or with another number of features; rerun notebook 02 "
                "and the pretraining with the same parameters"
            )
        is_head = any(part in key for part in head_keys)
        skipped = is_head and not transfer_head
        rows.append(
            TransferredKey(
                key, tuple(value.shape), "skipped" if skipped else "loaded",
                "segmentation head, and transfer_head is false" if skipped else "",
            )
        )  # fmt: skip
    network.load_state_dict(
        {key: own[key] if row.status == "skipped" else weights[key] for key, row in zip(own, rows, strict=True)}
    )
    return rows
