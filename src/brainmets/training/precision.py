"""bfloat16 on a CPU: what torch gets wrong there, and the way round.

The weight gradient of a 3D convolution in bfloat16 holds whatever lay in memory before where the image has more than
one slice along the first axis but fewer than the kernel (two, for the usual kernel of three). Seen with torch 2.13's
oneDNN on processors with AVX512-BF16; output and the gradient of the image are right, and so is everything in float32.
SegResNet, which halves every axis three times, meets it with patches of up to 16 slices.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn


def keep_shallow_convolutions_in_float32(network: nn.Module) -> None:
    """Let the convolutions of ``network`` run in float32 on the images for which bfloat16 fails, and only there."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.forward = partial(_convolve, module)  # type: ignore[method-assign]


def _convolve(convolution: nn.Conv3d, image: torch.Tensor) -> torch.Tensor:
    if not 1 < image.shape[2] < convolution.kernel_size[0]:
        return nn.Conv3d.forward(convolution, image)
    with torch.autocast(image.device.type, enabled=False):
        return nn.Conv3d.forward(convolution, image.float())
