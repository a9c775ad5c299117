"""The tversky_bce loss on numbers worked out by hand, and the transfer of weights key by key."""

import math

import pytest
import torch
from torch import nn

from brainmets.training.arms import TverskyBCELoss
from brainmets.training.finetuning import TransferError, transfer_weights


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def volume(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, 1, -1)


def test_tversky_weighs_false_positives_with_alpha_and_false_negatives_with_beta() -> None:
    loss = TverskyBCELoss(alpha=0.3, beta=0.7, positive_weight=11)
    probability, target = volume([0.8, 0.4, 0.1]), volume([1, 0, 1])
    # TP = 0.8 + 0.1, FP = 0.4, FN = 0.2 + 0.9
    expected = 1 - 0.9 / (0.9 + 0.3 * 0.4 + 0.7 * 1.1)
    assert loss.tversky(probability, target).item() == pytest.approx(expected, abs=1e-5)


def test_a_positive_voxel_counts_positive_weight_times() -> None:
    loss = TverskyBCELoss(alpha=0.3, beta=0.7, positive_weight=11)
    output, target = volume([logit(0.8), logit(0.4)]), volume([1, 0])
    expected = (-11 * math.log(0.8) - math.log(0.6)) / 2
    assert loss.cross_entropy(output, target).item() == pytest.approx(expected, rel=1e-9)


def test_the_two_terms_are_added_one_to_one() -> None:
    loss = TverskyBCELoss(alpha=0.3, beta=0.7, positive_weight=11)
    output, target = volume([logit(0.8), logit(0.4)]), volume([1, 0])
    parts = loss.tversky(torch.sigmoid(output), target) + loss.cross_entropy(output, target)
    assert loss(output, target).item() == pytest.approx(parts.item(), rel=1e-9)


def test_an_empty_region_predicted_empty_costs_nothing() -> None:
    loss = TverskyBCELoss(alpha=0.3, beta=0.7, positive_weight=11)
    assert loss(volume([-50.0, -50.0]), volume([0, 0])).item() == pytest.approx(0, abs=1e-9)


class Tiny(nn.Module):
    """A body and a head."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.body = nn.Linear(2, width)
        self.head = nn.Linear(width, 1)


def test_every_key_is_reported_and_loaded() -> None:
    old, new = Tiny(), Tiny()
    rows = transfer_weights(new, old.state_dict(), ("head.",), transfer_head=True)
    assert {row.key: row.status for row in rows} == dict.fromkeys(old.state_dict(), "loaded")
    assert all(torch.equal(new.state_dict()[key], value) for key, value in old.state_dict().items())


def test_without_its_head_the_body_alone_moves() -> None:
    old, new = Tiny(), Tiny()
    before = new.head.weight.clone()
    rows = transfer_weights(new, old.state_dict(), ("head.",), transfer_head=False)
    assert {row.key for row in rows if row.status == "skipped"} == {"head.weight", "head.bias"}
    assert all(row.reason for row in rows if row.status == "skipped")
    assert torch.equal(new.head.weight, before)
    assert torch.equal(new.body.weight, old.body.weight)


def test_a_shape_that_does_not_fit_names_both_shapes_and_the_plan() -> None:
    with pytest.raises(TransferError, match=r"\(4, 2\), the network \(3, 2\).*target's plan"):
        transfer_weights(Tiny(3), Tiny(4).state_dict(), ("head.",), transfer_head=True)


def test_a_name_on_one_side_only_is_refused() -> None:
    weights = {**Tiny().state_dict(), "extra": torch.zeros(1)}
    with pytest.raises(TransferError, match="the first is 'extra'"):
        transfer_weights(Tiny(), weights, ("head.",), transfer_head=True)
