"""A loss that counts lesions: Dice and cross-entropy of each lesion in its own zone, beside nnU-Net's loss of voxels.

nnU-Net's Dice pools a patch's voxels, so that a lesion of ten voxels beside one of ten thousand can be missed for
nothing. Here each connected component of the target weighs the same, after CC-DiceCE (Bouteille et al., 2025,
arXiv:2511.17146) and CC-Metrics (Jaus et al., 2024, arXiv:2410.18684), region by region as in Kundu et al. (2026,
arXiv:2604.24276).

The zones depend on the target alone. ``AppendZones`` finds them where a patch is augmented (on a GPU machine in the
processes that augment, which the training does not wait for) and hands them on as the last of the targets;
``LesionDiceLoss`` reads them there, and there is no other way to get them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from scipy import ndimage
from torch import nn
from torch.nn import functional

from brainmets.scoring.lesions import components

SMOOTH = 1e-5
"""nnU-Net's: keeps the Dice of a zone defined."""
GRID = 100_000
"""Voxels of the grid on which the nearest component is looked for: all of the demonstration's patch, and every third
along each axis of one of 128 x 128 x 128, where looking at each would take longer than augmenting the patch."""


def zones_of(regions: npt.NDArray[np.bool_], grid: int = GRID) -> npt.NDArray[np.int32]:
    """Number (from 1) of the component in whose zone each voxel lies, per region; ``regions`` is (region, z, y, x).

    Components are those of the region in the patch, connected over faces, edges and corners (26); what a lesion has
    outside the patch is not known here, and a lesion that the patch's edge cuts in two counts twice. A voxel belongs
    to the component with the nearest voxel, by Euclidean distance in voxels: augmentation has scaled the patch, and
    mm with it. One that is as near to two belongs to one of them, the same at each call. A region without a component
    is 0 throughout.

    A patch of more than ``grid`` voxels is looked at in cubes of n x n x n voxels, with n the least for which there
    are no more than ``grid`` of them: a cube that holds components belongs to the one with the highest number, and
    any other to the nearest such cube. A component's own voxels always lie in its zone.

    >>> row = np.array([1, 0, 0, 0, 1, 1], bool).reshape(1, 1, 1, -1)
    >>> zones_of(row).ravel().tolist()
    [1, 1, 1, 2, 2, 2]
    """
    zones = np.zeros(regions.shape, np.int32)
    for region, zone in zip(regions, zones, strict=True):
        if region.any():
            numbers = components(region)
            zone[...] = 1 if numbers.max() == 1 else _nearest(numbers.astype(np.int32), grid)
    return zones


def _nearest(numbers: npt.NDArray[np.int32], grid: int) -> npt.NDArray[np.int32]:
    step = 1
    while np.prod([-(-extent // step) for extent in numbers.shape]) > grid:
        step += 1
    cubes = np.pad(numbers, [(0, -extent % step) for extent in numbers.shape])
    for axis in range(3):
        slices = np.moveaxis(cubes, axis, 0)
        highest = np.maximum.reduce([slices[start::step] for start in range(step)])
        cubes = np.moveaxis(highest, 0, axis)
    place = ndimage.distance_transform_edt(cubes == 0, return_distances=False, return_indices=True)
    found = cubes[tuple(place)]
    for axis in range(3):
        found = found.repeat(step, axis)
    whole = found[tuple(slice(extent) for extent in numbers.shape)]
    return np.where(numbers > 0, numbers, whole)


class AppendZones(SegOnlyTransform):
    """The last of nnU-Net's transforms: appends the finest target's zones to the targets of deep supervision."""

    def _apply_to_segmentation(self, segmentation: list[torch.Tensor], **_: object) -> list[torch.Tensor]:
        return [*segmentation, torch.from_numpy(zones_of(segmentation[0].numpy().astype(bool)))]


class LesionDiceLoss(nn.Module):
    """nnU-Net's loss under deep supervision plus ``lesion_weight`` times ``lesion_term`` of the finest output.

    The coarser outputs have nnU-Net's loss alone: a lesion of a few voxels is in none of their targets.

    Args:
        voxel_loss: nnU-Net's loss, with one weight per output.
        lesion_weight: weight of the term that counts lesions.

    """

    def __init__(self, voxel_loss: DeepSupervisionWrapper, lesion_weight: float) -> None:
        super().__init__()
        self.voxel_loss = voxel_loss
        self.weight_factors: tuple[float, ...] = voxel_loss.weight_factors
        self.lesion_weight = lesion_weight

    def forward(self, outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scalar loss of logits and targets, finest first, each (batch, regions, z, y, x), and last the zones.

        Raises ``ValueError`` where there is not one target for each output and the zones behind them.
        """
        if len(targets) != len(outputs) + 1:
            raise ValueError(f"{len(outputs)} outputs have {len(targets)} targets: one each is wanted, and the zones")
        *regions, zones = targets
        loss: torch.Tensor = self.voxel_loss(outputs, regions)
        return loss + self.lesion_weight * lesion_term(outputs[0], regions[0], zones)


def lesion_term(output: torch.Tensor, target: torch.Tensor, zones: torch.Tensor) -> torch.Tensor:
    """Mean over lesions of Dice loss and cross-entropy in the lesion's zone, in float32 at least.

    With probabilities ``p`` (sigmoid of ``output``) and the target ``y``, summed over the voxels of a component's
    zone, its loss is ``1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)`` plus the zone's mean binary cross-entropy. It
    is averaged over the components of a sample's region, then over the samples and regions that have a component.
    What has none adds nothing, and where nothing has the term is 0: that no lesion should be seen there is the other
    loss's to say.

    ``output`` are logits, ``target`` is boolean or 0/1, ``zones`` as from ``zones_of``, each (batch, regions, z, y,
    x). Raises ``ValueError`` where their shapes differ.
    """
    if not output.shape == target.shape == zones.shape:
        shapes = ", ".join(str(tuple(one.shape)) for one in (output, target, zones))
        raise ValueError(f"output, target and zones have shapes {shapes}: they must be the same")
    with torch.autocast(output.device.type, enabled=False):
        logits = output.to(torch.promote_types(output.dtype, torch.float32))
        counts = zones.flatten(2).amax(2).flatten()
        held = counts.nonzero().flatten()
        if not len(held):
            return logits.new_zeros(())
        # one line of voxels is added up at a time: exact in float32, and a GPU's threads wait for few others
        logits, wanted, place = (
            one.flatten(0, 1)[held].flatten(1, -2) for one in (logits, target.to(logits.dtype), zones.long() - 1)
        )
        counts = counts[held]
        most = int(counts.max())

        def per_zone(values: torch.Tensor) -> torch.Tensor:
            empty = values.new_zeros((*values.shape[:2], most))
            return empty.scatter_add(2, place, values).sum(1)

        probability = torch.sigmoid(logits)
        cross_entropy = per_zone(functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none"))
        voxels = per_zone(torch.ones_like(wanted)).clamp_min(1)
        both, sizes = per_zone(probability * wanted), per_zone(probability) + per_zone(wanted)
        # where a region has fewer components than another the rest of its row is empty, and 0
        losses = 1 - (2 * both + SMOOTH) / (sizes + SMOOTH) + cross_entropy / voxels
        return (losses.sum(1) / counts).mean()
