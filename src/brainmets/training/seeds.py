"""Every random number of a training follows from the study's seed; here is how.

Two seeds belong to each training: one for its initial weights and one for its batches (which patches are cut, in which
order, how they are augmented). Weights are drawn anew for every stage, arm, fold and repeat. Batches are drawn anew
for every cohort, arm, fold and repeat: fine-tuning and training from scratch of one arm and fold ask for the same
patches with the same augmentations in the same order. They are compared with each other, case by case, and share
everything but the initial weights; a lucky draw of patches then falls on both and not on the difference (common random
numbers). Neither gains by it, and each alone is drawn as if the other were not there.

Every loader draws from a stream of its own, in each process that augments, and takes nothing from the global
generators. So the number of validation batches, a figure drawn between two epochs or a look at the first batch change
no training.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from brainmets.vocabulary import STAGE_COHORTS, Stage

State = tuple[Any, Any, torch.Tensor]
"""Where Python's, NumPy's and torch's global generators stand."""


class TrainingSeeds(NamedTuple):
    """The two seeds of one training."""

    weights: int
    batches: int


def derived_seed(seed: int, *words: str | int) -> int:
    """A seed of 64 bits that follows from ``seed`` and ``words``.

    It is the first eight bytes, the highest first, of the SHA-256 of the JSON list ``[seed, *words]`` without spaces.
    Other words, or the same in another order, give an unrelated number, on every machine the same.

    >>> derived_seed(1, "weights", 1)
    8452309337101502677
    """
    text = json.dumps([seed, *words], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def training_seeds(seed: int, stage: Stage, arm: str, fold: int, repeat: int = 0) -> TrainingSeeds:
    """The seeds of one training of a study whose seed is ``seed``. ``repeat`` is 0 for the first training here."""
    return TrainingSeeds(
        weights=derived_seed(seed, "weights", stage, arm, fold, repeat),
        batches=derived_seed(seed, "batches", STAGE_COHORTS[stage], arm, fold, repeat),
    )


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (also on the GPU) with up to 64 bits."""
    random.seed(seed)
    np.random.seed(_numpy_seed(seed))  # noqa: NPY002 - nnU-Net and batchgenerators draw from the global state
    torch.manual_seed(seed)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Give back, at the block's end, the random numbers that it took from Python, NumPy and torch (on the CPU)."""
    before = _state()
    try:
        yield
    finally:
        _set_state(before)


class RandomStream:
    """Random numbers of one seed, on the CPU, which go on where the last block ended, whatever was drawn in between.

    >>> stream = RandomStream(1)
    >>> with stream.drawn_from():
    ...     first = random.random()
    >>> random.seed(7)
    >>> with stream.drawn_from():
    ...     second = random.random()
    >>> random.seed(1)
    >>> [first, second] == [random.random(), random.random()]
    True
    """

    def __init__(self, seed: int) -> None:
        numpy = np.random.RandomState(_numpy_seed(seed)).get_state()
        self._now: State = (random.Random(seed).getstate(), numpy, torch.Generator().manual_seed(seed).get_state())

    @contextmanager
    def drawn_from(self) -> Iterator[None]:
        """Let the global generators give this stream's numbers within the block, and their own again after it."""
        with kept_random_state():
            _set_state(self._now)
            yield
            self._now = _state()


class SeededLoader(nnUNetDataLoader):
    """nnU-Net's loader with a stream of its own for every epoch, or for every process that augments.

    nnU-Net seeds none of its processes: NumPy's numbers then come from the system, and torch's and Python's are those
    of the training process, alike in all. With several processes each one's batches are fixed, yet not which of them
    delivers next. ``epoch`` is the one that the batches begin with, from 0.
    """

    def __init__(self, *arguments: Any, seed: int, epoch: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.seed = seed
        self.begin(epoch)

    def begin(self, epoch: int) -> None:
        """Go on with the first batch of ``epoch``."""
        self.epoch = epoch
        self.stream = RandomStream(derived_seed(self.seed, "epoch", epoch))

    def set_thread_id(self, thread_id: int) -> None:
        """Take the stream of augmentation process ``thread_id`` (from 0), which calls this before its first batch."""
        super().set_thread_id(thread_id)
        self.stream = RandomStream(derived_seed(self.seed, "epoch", self.epoch, "process", thread_id))

    def get_bbox(self, *arguments: Any, **named: Any) -> tuple[list[int], list[int]]:
        """nnU-Net's choice of a patch, which a dataset that changes patches (``Transplants``) is told of."""
        lower, upper = super().get_bbox(*arguments, **named)
        if hasattr(self._data, "begin_patch"):
            self._data.begin_patch(lower, upper)
        return lower, upper

    def generate_train_batch(self) -> dict[str, Any]:
        """nnU-Net's batch, from this loader's numbers."""
        with self.stream.drawn_from():
            batch: dict[str, Any] = super().generate_train_batch()
            return batch


def begin_epoch(batches: Any, epoch: int) -> None:
    """Let one of nnU-Net's sources of batches go on with the first of ``epoch``, where it augments in this process.

    A training that was stopped and continued then equals one that was not. Processes of their own are ahead of the
    training by batches that nobody counts, and go on with their streams.
    """
    if isinstance(batches, SingleThreadedAugmenter):
        batches.data_loader.begin(epoch)


def _numpy_seed(seed: int) -> npt.NDArray[np.unsignedinteger]:
    return np.random.SeedSequence(seed).generate_state(4)  # the global generator takes 32 bits at a time


def _state() -> State:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def _set_state(state: State) -> None:
    python, numpy, on_cpu = state
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(on_cpu)
