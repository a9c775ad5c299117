"""What a model reads of a scan, and which of it the model was trained to do without."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from brainmets.preparation.quality import REFERENCE
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES


@dataclass(frozen=True)
class Reads:
    """``sequences``: the model's, in channel order, t1c among them. ``may_lack``: those that a scan may be without.

    A model may do without a sequence where it was trained so: with sequence dropout (then without any but the t1c, on
    which every result lies), or on cases that lacked it.
    """

    sequences: tuple[str, ...] = SEQUENCES
    may_lack: tuple[str, ...] = ()

    @classmethod
    def of(cls, sequences: Collection[str], lacked: Collection[str], dropout: float) -> Reads:
        """By a model card: ``lacked`` by single training cases, ``dropout`` the probability in training."""
        free = {*sequences} if dropout > 0 else {*lacked}
        ordered = tuple(name for name in SEQUENCES if name in sequences)
        return cls(ordered, tuple(name for name in ordered if name in free and name != REFERENCE))

    def lacking(self, there: Collection[str]) -> list[str]:
        """The model's sequences that are not ``there`` though they may be lacking."""
        return [name for name in self.may_lack if name not in there]

    def needed(self, there: Collection[str]) -> list[str]:
        """The model's sequences that are not ``there`` and may not be lacking."""
        return [name for name in self.sequences if name not in there and name not in self.may_lack]

    def why_needed(self, missing: Collection[str]) -> str:
        """Why a scan without these is refused, in words."""
        titles = {name: f"{SEQUENCE_TITLES[name]} ({name})" for name in SEQUENCES if name in missing}
        why = []
        if REFERENCE in titles:  # also where training dropped or lacked it
            why.append(f"every result lies on the {titles.pop(REFERENCE)}, which cannot be lacking")
        if titles:
            listed = ", ".join(titles.values())
            why.append(f"the model was never trained without {listed}, and cannot be trusted on a scan that lacks it")
        return "; ".join(why)


ALL_FOUR = Reads()
"""What a model reads that does without none."""
LEAST = Reads((REFERENCE,))
"""What every model reads."""
