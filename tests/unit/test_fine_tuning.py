"""Fine-tuning beyond the paper: warm-up, a lower rate for what was transferred, a frozen encoder."""

from itertools import product

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from small_study import ARMS, training_parameters

from brainmets.params import FineTuning, ParameterError, Pretraining
from brainmets.paths import StudyPaths
from brainmets.training.finetuning import TransferSchedule, lower_transferred
from brainmets.training.session import TrainingSession, prepare

every_arm = pytest.mark.parametrize("arm", sorted(ARMS))


def quiet(line: str) -> None:
    """Say nothing."""


def fine_tuning(files: StudyPaths, arm: str, **changed: object) -> TrainingSession:
    if not files.checkpoint("pretraining", arm, 0).is_file():
        prepare(files, training_parameters(Pretraining, files, arm=arm, epochs=1), "pretraining", quiet).run(quiet)
    return prepare(files, training_parameters(FineTuning, files, arm=arm, **changed), "finetune", quiet)


def weights(session: TrainingSession) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in session.trainer.bare_network.named_parameters()}


def test_rates_by_hand() -> None:
    """Initial rate 1, four epochs, one of warm-up: half of the polynomial first; the second group at a tenth."""
    network = torch.nn.ModuleDict({"old": torch.nn.Linear(1, 1), "new": torch.nn.Linear(1, 1)})
    optimiser = torch.optim.SGD(network.parameters(), 1.0, momentum=0.99, nesterov=True, weight_decay=3e-5)
    lower_transferred(optimiser, network, {"old.weight", "old.bias"}, 0.1)
    schedule = TransferSchedule(optimiser, 1.0, 4, warmup_epochs=1)
    new, old = optimiser.param_groups
    assert [id(value) for value in new["params"]] == [id(value) for value in network["new"].parameters()]
    assert [id(value) for value in old["params"]] == [id(value) for value in network["old"].parameters()]
    assert (old["momentum"], old["nesterov"], old["weight_decay"]) == (0.99, True, 3e-5)
    # (1 - e/4)^0.9: 1, 0.771890, 0.535887, 0.287175
    for epoch, rate in enumerate((0.5, 0.771890, 0.535887, 0.287175)):
        schedule.step(epoch)
        assert new["lr"] == pytest.approx(rate, abs=1e-6)
        assert old["lr"] == pytest.approx(0.1 * rate, abs=1e-6)
        assert schedule.get_last_lr() == [new["lr"], old["lr"]]


def test_where_everything_was_transferred_everything_is_slowed_down() -> None:
    network = torch.nn.Linear(1, 1)
    optimiser = torch.optim.SGD(network.parameters(), 1.0)
    lower_transferred(optimiser, network, {"weight", "bias"}, 0.5)
    schedule = TransferSchedule(optimiser, 1.0, 2, warmup_epochs=0)
    schedule.step(1)
    assert [group["lr"] for group in optimiser.param_groups] == [pytest.approx(0.5 * 0.5**0.9)]


@every_arm
def test_the_papers_values_leave_optimiser_and_schedule_as_they_were(small_study: StudyPaths, arm: str) -> None:
    trainer = fine_tuning(small_study, arm).trainer
    fresh, schedule = trainer.configure_optimizers()
    assert type(trainer.optimizer) is type(fresh)
    assert trainer.optimizer.state_dict() == fresh.state_dict()
    assert trainer.optimizer.defaults == fresh.defaults
    for ours, theirs in zip(trainer.optimizer.param_groups, fresh.param_groups, strict=True):
        assert [id(value) for value in ours["params"]] == [id(value) for value in theirs["params"]]
    assert type(trainer.lr_scheduler) is PolyLRScheduler
    assert (trainer.lr_scheduler.initial_lr, trainer.lr_scheduler.max_steps) == (schedule.initial_lr, 3)


@every_arm
def test_a_new_head_learns_at_the_full_rate_and_the_rest_at_the_lower(small_study: StudyPaths, arm: str) -> None:
    session = fine_tuning(small_study, arm, transfer_head=False, transferred_rate=0.25, warmup_epochs=2)
    trainer = session.trainer
    names = {id(value): name for name, value in trainer.bare_network.named_parameters()}
    head, rest = ({names[id(value)] for value in group["params"]} for group in trainer.optimizer.param_groups)
    assert head
    assert all(any(key in name for key in trainer.head_keys) for name in head)
    assert head | rest == set(names.values())
    assert not head & rest
    session.run(quiet)
    full = [trainer.initial_lr * (1 - e / 3) ** 0.9 * min(1, (e + 1) / 3) for e in range(3)]
    assert session.curves().learning_rate.tolist() == pytest.approx(full)
    assert trainer.optimizer.param_groups[1]["lr"] == pytest.approx(0.25 * full[-1])


@every_arm
def test_a_frozen_encoder_stands_still_and_then_learns(small_study: StudyPaths, arm: str) -> None:
    session = fine_tuning(small_study, arm, freeze_encoder_epochs=2)
    before = weights(session)
    encoder = {name for name in before if name.startswith(session.trainer.encoder_keys)}
    assert 0.3 < sum(before[name].numel() for name in encoder) / sum(value.numel() for value in before.values()) < 0.95

    kept: dict[int, dict[str, torch.Tensor]] = {}

    def keep(line: str) -> None:
        if line.startswith("epoch "):
            kept[int(line.split()[1])] = weights(session)

    session.run(keep)
    for epoch, name in product((1, 2), encoder):
        assert torch.equal(kept[epoch][name], before[name]), f"{name} moved in epoch {epoch}"
    assert any(not torch.equal(kept[1][name], before[name]) for name in set(before) - encoder)
    assert sum(not torch.equal(kept[3][name], before[name]) for name in encoder) > len(encoder) / 2


def test_a_resumed_fine_tuning_keeps_its_two_rates(small_study: StudyPaths) -> None:
    class StoppedError(Exception):
        """Stands for the end of the process."""

    def stop(line: str) -> None:
        if line.startswith("epoch 2 "):
            raise StoppedError

    options = {"transfer_head": False, "transferred_rate": 0.5, "warmup_epochs": 1, "seed": 7}
    with pytest.raises(StoppedError):
        fine_tuning(small_study, "default", **options).run(stop)
    session = fine_tuning(small_study, "default", **options)
    assert session.resumed_epoch == 1
    session.run(quiet)
    assert session.curves().learning_rate.tolist() == pytest.approx(
        [0.01 * (1 - e / 3) ** 0.9 * min(1, (e + 1) / 2) for e in range(3)]
    )
    new, old = session.trainer.optimizer.param_groups
    assert old["lr"] == pytest.approx(0.5 * new["lr"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("warmup_epochs", 3), ("freeze_encoder_epochs", 3), ("transferred_rate", 0.0), ("transferred_rate", 1.5)],
)
def test_options_that_make_no_sense_are_refused_by_name(small_study: StudyPaths, name: str, value: float) -> None:
    with pytest.raises(ParameterError, match=name):
        training_parameters(FineTuning, small_study, **{name: value})
