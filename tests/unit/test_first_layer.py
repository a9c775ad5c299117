"""The first layer, adapted from one set of sequences to another by their names, in each of the study's networks."""

from collections.abc import Callable, Sequence

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from brainmets.training.exported_trainer import padding_segresnet
from brainmets.training.finetuning import (
    TRANSFERRED,
    TransferError,
    adapted,
    input_layer,
    lower_transferred,
    transfer_weights,
)
from brainmets.training.trainer import keep_channels_last, keep_shallow_convolutions_in_float32

SOURCE = ("t1n", "t1c", "t2w", "t2f")
SHAPE = (2, 16, 16, 16)
COMMON = {
    "n_stages": 3, "features_per_stage": (4, 6, 8), "conv_op": nn.Conv3d, "kernel_sizes": 3, "strides": (1, 2, 2),
    "num_classes": 3, "n_conv_per_stage_decoder": (1, 1), "conv_bias": True, "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU, "deep_supervision": False,
}  # fmt: skip
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "unet": lambda channels: PlainConvUNet(channels, n_conv_per_stage=(2, 2, 2), **COMMON),
    "resenc": lambda channels: ResidualEncoderUNet(channels, n_blocks_per_stage=(1, 1, 1), **COMMON),
    "segresnet": lambda channels: padding_segresnet(channels, 3, 8),
}
FIRST = {
    "unet": "encoder.stages.0.0.convs.0.conv",
    "resenc": "encoder.stem.convs.0.conv",
    "segresnet": "convInit.conv",
}
every_network = pytest.mark.parametrize("kind", NETWORKS)


def network(kind: str, channels: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[kind](channels).eval()


def images(sequences: Sequence[str], shown: Sequence[str]) -> torch.Tensor:
    """The same images of ``shown`` whatever else is read; zeros for the others."""
    drawn = {name: torch.randn(SHAPE, generator=torch.Generator().manual_seed(SOURCE.index(name))) for name in shown}
    return torch.stack([drawn.get(name, torch.zeros(SHAPE)) for name in sequences], dim=1)


def moved(kind: str, given: Sequence[str], wanted: Sequence[str]) -> tuple[nn.Module, nn.Module, dict[str, str]]:
    old, new = network(kind, len(given), 1), network(kind, len(wanted), 2)
    rows = transfer_weights(new, old.state_dict(), (".seg_layers.",), True, given, wanted)
    assert [row.key for row in rows] == list(new.state_dict())
    return old, new, {row.key: row.status for row in rows}


@every_network
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (SOURCE, ("t1c",)),
        (SOURCE, ("t1c", "t2f")),
        (("t1n", "t1c"), ("t1c", "t2f")),
        (("t1c", "t2f"), SOURCE),
        (("t2w", "t2f"), ("t1c", "t2f")),
    ],
)
def test_the_adapted_network_starts_as_the_source_without_the_other_sequences(
    kind: str, given: Sequence[str], wanted: Sequence[str]
) -> None:
    """Even where the new sequences' images are there: their weights are zero."""
    old, new, status = moved(kind, given, wanted)
    shared = [name for name in wanted if name in given]
    with torch.no_grad():
        expected = old(images(given, shared))
        torch.testing.assert_close(new(images(wanted, shared)), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(new(images(wanted, wanted)), expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(expected, old(images(given, [])), atol=1e-3), "the images matter"
    assert {key for key, value in status.items() if value == "adapted"} >= {f"{FIRST[kind]}.weight"}
    assert set(status.values()) == {"adapted", "loaded"}


@every_network
def test_channels_in_the_wrong_order_give_another_network(kind: str) -> None:
    """What the test above would see, were the order of the channels swapped."""
    old, new = network(kind, 2, 1), network(kind, 2, 2)
    transfer_weights(new, old.state_dict(), (), True, ("t1n", "t1c"), ("t1c", "t1n"))
    with torch.no_grad():
        shown = images(("t1n", "t1c"), ("t1n", "t1c"))
        assert not torch.allclose(new(shown), old(shown), atol=1e-3)
        torch.testing.assert_close(new(shown[:, [1, 0]]), old(shown), rtol=1e-5, atol=1e-5)


@every_network
def test_gradients_reach_a_new_sequence_from_the_first_step(kind: str) -> None:
    _, new, _ = moved(kind, ("t1c",), ("t1c", "t2f"))
    new(images(("t1c", "t2f"), ("t1c", "t2f"))).square().mean().backward()
    weight = new.get_parameter(f"{FIRST[kind]}.weight")
    assert weight.grad is not None
    assert not weight[:, 1].any()
    assert weight.grad[:, 1].abs().max() > 1e-6


@every_network
def test_without_a_shared_sequence_the_layer_stays_as_it_was_drawn(kind: str) -> None:
    fresh = network(kind, 2, 2).state_dict()
    old, new, status = moved(kind, ("t1n", "t1c"), ("t2w", "t2f"))
    (weight,) = (new.state_dict()[f"{FIRST[kind]}.weight"],)
    assert torch.equal(weight, fresh[f"{FIRST[kind]}.weight"])
    named = {key for key, value in status.items() if value == "fresh"}
    layer = input_layer(new, 2)
    assert named == {*layer.weights, *layer.biases}
    for key, value in old.state_dict().items():
        if key not in named:
            assert status[key] == "loaded"
            assert torch.equal(new.state_dict()[key], value)


@every_network
def test_the_layer_is_found_under_all_its_names_as_a_training_has_it(kind: str) -> None:
    """With the hooks and replaced forward passes that a training on a CPU puts on a network, in bfloat16 or not."""
    model = network(kind, 3, 1)
    keep_shallow_convolutions_in_float32(model)
    keep_channels_last(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layer = input_layer(model, 3)
    first = model.get_parameter(f"{FIRST[kind]}.weight")
    same = [key for key, value in model.state_dict(keep_vars=True).items() if value is first]
    assert list(layer.weights) == same
    assert len(same) == (1 if kind == "segresnet" else 4), "nnU-Net's encoder is the decoder's too"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules() if isinstance(module, nn.Conv3d))


def test_the_same_sequences_are_loaded_as_they_are() -> None:
    old, new, status = moved("unet", SOURCE, SOURCE)
    assert set(status.values()) == {"loaded"}
    assert all(torch.equal(value, old.state_dict()[key]) for key, value in new.state_dict().items())


def test_as_many_channels_under_other_names_are_adapted_and_not_loaded() -> None:
    old, new, status = moved("unet", ("t1n", "t1c"), ("t1c", "t2w"))
    key = f"{FIRST['unet']}.weight"
    assert status[key] == "adapted"
    assert torch.equal(new.state_dict()[key][:, 0], old.state_dict()[key][:, 1])
    assert not new.state_dict()[key][:, 1].any()


def test_what_happens_to_each_sequence_is_said() -> None:
    old, new = network("unet", 2, 1), network("unet", 2, 2)
    rows = transfer_weights(new, old.state_dict(), (), True, ("t1n", "t1c"), ("t1c", "t2w"))
    (reason,) = {row.reason for row in rows if row.status == "adapted"}
    assert reason == "first layer: by name t1c; new, from zero t2w; dropped t1n"
    rows = transfer_weights(new, old.state_dict(), (), True, ("t1n", "t2f"), ("t1c", "t2w"))
    (reason,) = {row.reason for row in rows if row.status == "fresh"}
    assert reason == "first layer: the checkpoint reads t1n, t2f, the network t1c, t2w"


def test_a_layer_of_another_size_is_still_refused() -> None:
    """Adapting the channels does not let another number of features through."""
    other = PlainConvUNet(4, n_conv_per_stage=(2, 2, 2), **{**COMMON, "features_per_stage": (5, 6, 8)})
    with pytest.raises(
        TransferError, match=r"the checkpoint has shape \(5, 4, 3, 3, 3\), the network \(4, 2, 3, 3, 3\)"
    ):
        transfer_weights(network("unet", 2, 1), other.state_dict(), (), True, SOURCE, ("t1c", "t2f"))


def test_a_checkpoint_with_another_number_of_channels_than_names_is_refused() -> None:
    with pytest.raises(TransferError, match=r"first layer has 3 channel\(s\) for the sequences t1n, t1c"):
        adapted(torch.zeros(2, 3, 1), ("t1n", "t1c"), ("t1c",))


def test_a_network_whose_first_convolution_is_not_the_images_is_refused() -> None:
    with pytest.raises(TransferError, match=r"Sequential: its first convolution does not take the image's 2 channel"):
        input_layer(nn.Sequential(nn.Conv3d(3, 1, 1)), 2)
    with pytest.raises(TransferError, match="cannot be adapted to other sequences"):
        input_layer(nn.Sequential(nn.Identity(), nn.Linear(32, 1)), 2)


def test_an_adapted_layer_learns_at_the_transferred_rate_and_a_fresh_one_at_the_full() -> None:
    for wanted, lowered in ((("t1c", "t2f"), True), (("t2w",), False)):
        old, new = network("unet", 2, 1), network("unet", len(wanted), 2)
        rows = transfer_weights(new, old.state_dict(), (), True, ("t1n", "t1c"), wanted)
        optimiser = torch.optim.SGD(new.parameters(), 1.0)
        lower_transferred(optimiser, new, {row.key for row in rows if row.status in TRANSFERRED}, 0.1)
        group = [id(value) for value in optimiser.param_groups[-1]["params"]]
        assert (id(new.get_parameter(f"{FIRST['unet']}.weight")) in group) == lowered
