"""Sequences that a training step does without: those that a case lacks, and those that are dropped by chance.

Dropping whole sequences at random lets one network serve every set of sequences (Neverova et al., 2016, ModDrop,
doi:10.1109/TPAMI.2015.2461544). A dropped sequence is what a missing one is, 0 after normalisation, and after the
augmentation too, whose noise would otherwise stand in its place. Validation drops nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from brainmets.training.seeds import derived_seed


class SequenceDropout:
    """Sets sequences of a batch's patches to 0.

    A sequence that a patch's case has is dropped with probability ``share``, each patch and sequence by itself; where
    all that the case has would go, one of them, drawn alike, stays. Of ``n`` sequences each is dropped with
    probability ``share - share^n / n`` then.

    Args:
        sequences: the network's, in channel order.
        absent: the cases that lack sequences, and which.
        share: 0 for none, at most 1.

    """

    def __init__(self, sequences: Sequence[str], absent: Mapping[str, Collection[str]], share: float) -> None:
        self.sequences = tuple(sequences)
        self.share = share
        self._lacked = {
            case: np.array([name in lacking for name in self.sequences]) for case, lacking in absent.items()
        }
        self._stream = np.random.default_rng(0)

    def begin(self, seed: int, epoch: int) -> None:
        """Draw from the stream of ``epoch``, which no other draw of the training takes from or adds to."""
        self._stream = np.random.default_rng(derived_seed(seed, "sequence_dropout", epoch))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with its "data" (patch, sequence, ...), of the cases "keys", without what is dropped.

        Where nothing is dropped it is the very batch that was given; with ``share`` 0 nothing is drawn.
        """
        gone = self.dropped(batch["keys"])
        if not gone.any():
            return batch
        data = batch["data"]
        mask = torch.from_numpy(gone).to(data.device).reshape(*gone.shape, *[1] * (data.ndim - 2))
        return {**batch, "data": data.masked_fill(mask, 0)}

    def dropped(self, cases: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each patch, one of each of ``cases``, loses each sequence (patch, sequence), the lacked included."""
        none = np.zeros(len(self.sequences), bool)
        lacked = np.array([self._lacked.get(str(case), none) for case in cases]).reshape(-1, len(self.sequences))
        if not self.share:
            return lacked
        drawn = np.where(lacked, -1.0, self._stream.random(lacked.shape))
        gone: npt.NDArray[np.bool_] = drawn < self.share
        gone[np.arange(len(gone)), drawn.argmax(axis=1)] = False  # where all are below the share, this one stays
        return gone
