"""One float32 image on a CPU is convolved as two are: as right, and on the faster path."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from brainmets.training.inference import convolve_single_images_fast

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")

NETWORKS = {
    "plain": nn.Conv3d(4, 8, 3, padding=1),
    "strides, dilation, unequal kernel, no bias": nn.Conv3d(
        4, 8, (1, 3, 5), (1, 2, 2), (0, 2, 4), (1, 2, 2), bias=False
    ),
    "groups": nn.Conv3d(4, 8, 3, groups=2),
    "padding named": nn.Conv3d(4, 8, 3, padding="same"),
    "padding that mirrors": nn.Conv3d(4, 8, 3, padding=1, padding_mode="reflect"),
}


@pytest.fixture
def calls(monkeypatch):
    """The shapes that the fast path was given."""
    given, fast = [], torch.mkldnn_convolution

    def counted(image, *arguments):
        given.append(tuple(image.shape))
        return fast(image, *arguments)

    monkeypatch.setattr(torch, "mkldnn_convolution", counted)
    return given


@pytest.mark.parametrize("name", NETWORKS)
def test_a_single_image_gives_what_two_give(name, calls):
    torch.manual_seed(1)
    network, image = nn.Sequential(deepcopy(NETWORKS[name])), torch.randn(1, 4, 9, 10, 11)
    with torch.no_grad():
        known = network(torch.cat([image, image]))
        convolve_single_images_fast(network)
        found = network(image)
    assert len(calls) == ("padding" not in name)
    torch.testing.assert_close(found, known[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("image", [torch.ones(2, 4, 5, 5, 5), torch.ones(1, 4, 5, 5, 5, dtype=torch.bfloat16)])
def test_all_else_goes_the_usual_way(image, calls):
    network = nn.Sequential(nn.Conv3d(4, 8, 3)).to(image.dtype)
    convolve_single_images_fast(network)
    assert network(image).dtype == image.dtype
    assert not calls


def test_a_gradient_is_the_same(calls):
    """The review's explanations may ask for one."""
    torch.manual_seed(1)
    network, image = nn.Sequential(nn.Conv3d(2, 3, 3)), torch.randn(1, 2, 4, 4, 4)
    network(torch.cat([image, image]))[:1].square().sum().backward()
    known = network[0].weight.grad.clone()
    network.zero_grad()
    convolve_single_images_fast(network)
    network(image).square().sum().backward()
    assert calls
    torch.testing.assert_close(network[0].weight.grad, known, rtol=1e-4, atol=1e-5)
