"""Dropped sequences: how often, from which numbers, and that nothing else of a training changes."""

import shutil
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from small_study import ARMS, training_parameters

from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training import channels
from brainmets.training.plans import read_dataset
from brainmets.training.sequence_dropout import SequenceDropout
from brainmets.training.session import TrainingSession, prepare
from brainmets.vocabulary import SEQUENCES

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def quiet(line: str) -> None:
    """Say nothing."""


def begun(share: float, absent: dict[str, list[str]] | None = None, seed: int = 1, epoch: int = 0) -> SequenceDropout:
    dropout = SequenceDropout(SEQUENCES, absent or {}, share)
    dropout.begin(seed, epoch)
    return dropout


@pytest.mark.parametrize(("share", "lacked"), list(product((0.2, 0.5, 0.9), ([], ["t2w"], ["t1n", "t2w", "t2f"]))))
def test_each_sequence_that_a_case_has_is_dropped_as_often_as_stated(share: float, lacked: list[str]) -> None:
    """Of n it has, share - share^n / n: all go with share^n, and then one of the n stays. 5 standard errors wide."""
    patches, n = 20_000, len(SEQUENCES) - len(lacked)
    gone = begun(share, {"P": lacked}).dropped(["P"] * patches)
    has = [name not in lacked for name in SEQUENCES]
    assert gone[:, np.logical_not(has)].all(), "what a case lacks is always gone"
    assert not gone[:, has].all(axis=1).any(), "one that the case has is kept"
    expected = share - share**n / n
    error = np.sqrt(max(expected * (1 - expected), 1e-12) / patches)
    assert gone[:, has].mean(axis=0) == pytest.approx([expected] * n, abs=5 * error + 1e-12)
    if n > 1:  # patches and sequences each by themselves: the number that go is binomial but for the last
        some = np.bincount(gone[:, has].sum(axis=1), minlength=n)[0] / patches
        assert some == pytest.approx((1 - share) ** n, abs=0.02)


def test_share_1_keeps_one_sequence_each_alike_and_share_0_all() -> None:
    gone = begun(1.0).dropped(["P"] * 20_000)
    assert (gone.sum(axis=1) == 3).all()
    assert (~gone).mean(axis=0) == pytest.approx([0.25] * 4, abs=0.02)
    assert not begun(0.0).dropped(["P"] * 10).any()


@pytest.mark.parametrize("device", DEVICES)
def test_the_dropped_are_zero_and_the_others_as_they_were(device: str) -> None:
    data = torch.full((3, 4, 2, 2, 2), torch.nan, device=device)
    data[:, [0, 1, 3]] = torch.rand((3, 3, 2, 2, 2), device=device) + 1
    before = data.clone()
    dropout, again = begun(0.5, {"B": ["t2w"], "A": ["t2w"], "C": ["t2w"]}), begun(0.5)
    again._lacked = dropout._lacked
    batch = {"data": data, "target": object(), "keys": ["A", "B", "C"]}
    given, gone = dropout(batch), again.dropped(batch["keys"])
    assert given["target"] is batch["target"]
    assert given["data"].device.type == device
    for patch, channel in product(range(3), range(4)):
        expected = torch.zeros_like(before[0, 0]) if gone[patch, channel] else before[patch, channel]
        assert torch.equal(given["data"][patch, channel], expected), "NaN times 0 would be NaN"
    torch.testing.assert_close(data, before, equal_nan=True)
    assert gone.sum() > 3


def test_off_the_batch_is_the_very_one_and_no_number_is_drawn() -> None:
    dropout = begun(0.0)
    state = dropout._stream.bit_generator.state
    batch = {"data": torch.ones(2, 4, 1, 1, 1), "keys": ["A", "B"]}
    assert dropout(batch) is batch
    assert dropout._stream.bit_generator.state == state


def test_the_numbers_follow_from_seed_and_epoch_and_no_global_generator() -> None:
    drawn = begun(0.5, seed=3, epoch=4).dropped(["P"] * 50)
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(drawn, begun(0.5, seed=3, epoch=4).dropped(["P"] * 50))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert (drawn != begun(0.5, seed=3, epoch=5).dropped(["P"] * 50)).any()
    assert (drawn != begun(0.5, seed=4, epoch=4).dropped(["P"] * 50)).any()
    lacked = begun(0.5, {"P": ["t1n"]}, seed=3, epoch=4).dropped(["P"] * 50)
    differ = (drawn != lacked)[:, 1:]
    assert differ.mean() < 0.2, "what one case lacks changes no draw; at most which is kept where all would go"


# --- in a training ---


class StoppedError(Exception):
    """Stands for the end of the process."""


def training(files: StudyPaths, share: float, fold: int = 0, arm: str = "default", **changed: Any) -> TrainingSession:
    arms = {**ARMS, arm: {**ARMS[arm], "sequence_dropout": share}}
    return prepare(files, training_parameters(FromScratch, files, arms=arms, arm=arm, fold=fold, **changed), "scratch")


def run(
    files: StudyPaths, share: float, seed: int, stop: bool = False
) -> tuple[TrainingSession, list[Any], list[Any]]:
    """The finished training with the images that its steps and its validation were given."""
    shutil.rmtree(files.training_folder("scratch", "default", 0), ignore_errors=True)
    steps: list[Any] = []
    looks: list[Any] = []

    def stopping(line: str) -> None:
        if line.startswith("epoch 2 of 3"):
            raise StoppedError

    def go(report: Any) -> TrainingSession:
        session = training(files, share, seed=seed)
        network, validating = session.trainer.bare_network, session.trainer.validation_step

        def watched(batch: dict[str, Any]) -> Any:
            looks.append(batch["data"].clone())
            return validating(batch)

        session.trainer.validation_step = watched
        hook = network.register_forward_pre_hook(
            lambda module, given: steps.append(given[0].clone()) if torch.is_grad_enabled() else None
        )
        try:
            session.run(report)
        finally:
            hook.remove()
        return session

    if stop:
        with pytest.raises(StoppedError):
            go(stopping)
        del steps[2:], looks[1:]  # of the epoch after the last whole checkpoint
    return go(quiet), steps, looks


def test_a_training_drops_in_its_steps_alone_and_goes_on_as_if_it_had_not_stopped(small_study: StudyPaths) -> None:
    plain, seen, validated = run(small_study, 0.0, 71)
    dropping, steps, looks = run(small_study, 0.5, 71)
    assert len(steps) == len(seen) == 6
    gone = [(~step.flatten(2).any(dim=2)) for step in steps]
    assert sum(int(one.sum()) for one in gone) > 3, "by chance with probability below 1e-3"
    for step, whole, without in zip(steps, seen, gone, strict=True):
        assert torch.equal(step, whole.masked_fill(without[..., None, None, None], 0)), "the same patches otherwise"
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(looks, validated, strict=True))
    assert not torch.equal(
        next(iter(plain.trainer.bare_network.parameters())), next(iter(dropping.trainer.bare_network.parameters()))
    )
    resumed, again, _ = run(small_study, 0.5, 71, stop=True)
    assert resumed.trainer.trained_with["resumed_after_epochs"] == [1]
    assert all(torch.equal(one, other) for one, other in zip(steps, again, strict=True))
    weights = dropping.trainer.bare_network.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in resumed.trainer.bare_network.state_dict().items())


def test_another_share_is_another_training(small_study: StudyPaths) -> None:
    reported: list[str] = []
    training(small_study, 0.0, fold=1, seed=72, epochs=1).run(quiet)
    arms = {**ARMS, "default": {**ARMS["default"], "sequence_dropout": 0.25}}
    changed = training_parameters(FromScratch, small_study, arms=arms, fold=1, seed=72, epochs=1)
    assert not prepare(small_study, changed, "scratch", reported.append).finished
    assert any(line.startswith("the training there was is not continued: settings") for line in reported)


def test_what_a_training_case_lacks_is_zero_again_after_the_augmentation(mixed_study: StudyPaths) -> None:
    """nnU-Net's noise is added to the zeros too: here stand ones for it."""
    (case,) = read_dataset(mixed_study, "target")[channels.ABSENT]
    session = training(mixed_study, 0.0, epochs=1, seed=73)
    assert session.sequences == ("t1c", "t2f")
    other = next(name for name in read_dataset(mixed_study, "target")["dataset"] if name != case)
    given = session.trainer.dropout({"data": torch.ones(2, 2, 1, 1, 1), "keys": [case, other]})["data"]
    assert given.flatten().tolist() == [1, 0, 1, 1]
