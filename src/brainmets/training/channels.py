"""Which sequence a network reads in which channel, and what stands in the place of one that a case lacks.

A network's channels are those of its cohort, by name, in the order of ``channel_names`` in nnU-Net's ``dataset.json``.
A sequence that a case lacks is an image of zeros on the case's grid: nnU-Net's z-score leaves it exactly 0, which is
the mean of every normalised image, in training as in prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainmets import nifti
from brainmets.cohorts.cohort import Case
from brainmets.vocabulary import SEQUENCES

ABSENT = "absent"
"""Key of ``dataset.json``, only where there are any: the training cases that lack sequences, and which."""


def names(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """The sequences that a network reads, in channel order, as ``dataset.json`` has them.

    Raises ``ValueError`` unless the channels are counted from 0 and each is another known sequence.

    >>> names({"channel_names": {"0": "t1c", "1": "t2f"}})
    ('t1c', 't2f')
    """
    given = dataset.get("channel_names")
    found = tuple(given.values()) if isinstance(given, Mapping) else ()
    counted = isinstance(given, Mapping) and list(given) == [str(number) for number in range(len(given))]
    unknown = [name for name in found if name not in SEQUENCES]
    if not found or not counted or unknown or len(set(found)) != len(found):
        raise ValueError(
            f'channel_names of dataset.json: {given!r} are no sequences counted from "0", each once, of '
            f"{', '.join(SEQUENCES)}; run notebook 02 again"
        )
    return found


def absent(dataset: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The training cases that lack sequences by their cohort's ``dataset.json``, and which, in channel order.

    Raises ``ValueError`` for anything but lists of some of the cohort's sequences, and not of all.
    """
    given, reads = dataset.get(ABSENT, {}), names(dataset)
    if not isinstance(given, Mapping):
        raise ValueError(f"{ABSENT} of dataset.json is no list of cases; run notebook 02 again")
    for case, lacked in given.items():
        if not isinstance(lacked, list) or not lacked or not set(lacked) < set(reads):
            raise ValueError(
                f"{ABSENT} of dataset.json: {case} lacks {lacked!r}, which is not one or more of {', '.join(reads)} "
                "with another left; run notebook 02 again"
            )
    return {case: tuple(name for name in reads if name in lacked) for case, lacked in given.items()}


def absent_of(dataset: Mapping[str, Any], case: str) -> tuple[str, ...]:
    """The sequences that one training case lacks, in channel order."""
    return absent(dataset).get(case, ())


def lacking(case: Case, sequences: Sequence[str]) -> list[str]:
    """Those of ``sequences`` that a case has no image of, in their order."""
    return [name for name in sequences if name not in case.images]


def files_of(case: Case, sequences: Sequence[str], absent: Path) -> list[str]:
    """The file of each channel of a network that reads ``sequences``; other images of the case are passed over.

    Where the case lacks one its file is ``absent``, which is then written: zeros on the case's grid. Raises
    ``ValueError`` naming the case where it has none of them.
    """
    there = case.channels(sequences)
    if not any(there):
        raise ValueError(
            f"{case.case}: it has {', '.join(case.sequences) or 'no image'}, and the network reads "
            f"{', '.join(sequences)}: nothing is left to look at; leave the case out, or train with its sequences"
        )
    if not all(there):
        nifti.write_zeros(absent, case.reference)
    return [str(path or absent) for path in there]
