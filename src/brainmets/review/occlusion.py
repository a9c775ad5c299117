"""How far a lesion's probability falls when a small cube of the image is hidden: an occlusion map on one slice.

The map is MONAI's ``OcclusionSensitivity`` (after Zeiler and Fergus, "Visualizing and Understanding Convolutional
Networks", ECCV 2014, arXiv:1311.2901). A cube is hidden in all four sequences at once by the value 0, which after
nnU-Net's normalisation is each sequence's mean within the head.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.visualize import OcclusionSensitivity
from scipy import ndimage

from brainmets.training.inference import Ensemble, NetworkImage
from brainmets.vocabulary import NETWORK_REGIONS, REGIONS

CUBE_MM = 9.0
"""Edge of the hidden cube; the nearest odd number of voxels is taken along each axis."""
MARGIN_MM = 20.0
"""The map covers the lesion's bounding box on its slice and this much around it."""
BATCH = 4
SEEN = 0.5
"""Mean probability from which a lesion counts as seen by the model."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Occlusion:
    """An occlusion map on the network's grid.

    ``drop``: probability lost where a cube is hidden, the mean over the cubes that cover a voxel, the same on every
    slice along ``axis``, NaN where none was tried; ``lesion``: the lesion; ``slice_number``: the slice along ``axis``
    through the cubes' centres; ``probability``: the lesion's mean probability with nothing hidden; ``cube_mm``: edges.
    """

    drop: Floats
    lesion: Mask
    axis: int
    slice_number: int
    probability: float
    cube_mm: tuple[float, ...]


class MeanProbability(torch.nn.Module):
    """A network's mean probability of one output channel over a mask: (batch, channel, ...) to (batch, 1)."""

    def __init__(self, network: torch.nn.Module, channel: int, mask: torch.Tensor) -> None:
        super().__init__()
        self.network, self.channel, self.mask = network, channel, mask

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The mean of the sigmoid of ``channel`` where ``mask`` holds."""
        logits: torch.Tensor = self.network(images)[:, self.channel]
        return logits[:, self.mask].sigmoid().mean(1, keepdim=True)


@dataclass(frozen=True)
class Patch:
    """One patch of the network's grid with a lesion in its middle.

    ``slices``: where it lies; ``inside``: the lesion in it, cut where the image ends; ``image`` (1, channel, ...) and
    ``mask`` have the patch's full size, zeros beyond the image.
    """

    slices: tuple[slice, ...]
    inside: Mask
    image: torch.Tensor
    mask: torch.Tensor


def occlude_lesion(ensemble: Ensemble, image: NetworkImage, affine: npt.NDArray[np.float64], region: str) -> Occlusion:
    """The occlusion map of one reference lesion of ``region`` (``seen_lesion``) on its largest axial slice.

    ``image`` holds the reference; ``affine`` is that of the case's files and tells which axis is axial. The network
    sees one patch with the lesion in its middle, every fold in turn; the folds' maps are averaged. Raises
    ``ValueError`` where the reference has no such lesion on the network's grid.
    """
    if image.labels is None:
        raise ValueError("the image was prepared without its reference; an occlusion map needs the lesion")
    channel = NETWORK_REGIONS.index(region)
    lesion = seen_lesion(
        pieces_by_size(np.isin(image.labels, REGIONS[region])),
        lambda piece: _mean_probability(ensemble, _patch(ensemble, image, piece), channel),
    )
    spacing = np.asarray(ensemble.predictor.configuration_manager.spacing)
    axis = _axial(affine, ensemble.plans.transpose_forward)
    others = tuple(other for other in range(3) if other != axis)
    slice_number = int(lesion.sum(others).argmax())
    edges = odd_edges(spacing)
    patch = _patch(ensemble, image, lesion)
    box = _box(patch.inside, spacing, axis, slice_number - patch.slices[axis].start)
    probability, drops = 0.0, np.zeros([end - start for start, end in box], np.float32)
    for score in _scores_of_folds(ensemble, patch, channel):
        whole, drop = occlusion_drop(score, patch.image, box, edges)
        probability += whole / len(ensemble.weights)
        drops += drop / np.float32(len(ensemble.weights))
    everywhere = np.full(lesion.shape, np.nan, np.float32)
    target = [
        slice(part.start + start, part.start + end) for part, (start, end) in zip(patch.slices, box, strict=True)
    ]
    target[axis] = slice(None)
    everywhere[tuple(target)] = drops
    sides = tuple(float(edge * step) for edge, step in zip(edges, spacing, strict=True))
    return Occlusion(everywhere, lesion, axis, slice_number, probability, sides)


def seen_lesion(pieces: Sequence[Mask], probability: Callable[[Mask], float]) -> Mask:
    """The first of ``pieces`` with a mean probability of ``SEEN`` or more; where none has, that with the highest.

    A lesion that the model misses has no probability to lose, and its map would say nothing.
    """
    best, highest = pieces[0], -1.0
    for piece in pieces:
        value = probability(piece)
        if value >= SEEN:
            return piece
        if value > highest:
            best, highest = piece, value
    return best


def _patch(ensemble: Ensemble, image: NetworkImage, lesion: Mask) -> Patch:
    size = ensemble.predictor.configuration_manager.patch_size
    slices = patch_slices(lesion, size)
    inside = lesion[slices]
    data, mask = _padded(image.data[(slice(None), *slices)], inside, size)
    device = ensemble.predictor.device
    return Patch(slices, inside, torch.from_numpy(data)[None].to(device), torch.from_numpy(mask).to(device))


def _scores_of_folds(ensemble: Ensemble, patch: Patch, channel: int) -> Iterator[MeanProbability]:
    """Each fold's network as a score of the lesion; the network is one and the same, its weights change."""
    network = ensemble.network.to(ensemble.predictor.device).eval()
    for weights in ensemble.weights:
        network.load_state_dict(weights)
        yield MeanProbability(network, channel, patch.mask)


def _mean_probability(ensemble: Ensemble, patch: Patch, channel: int) -> float:
    with torch.no_grad():
        return float(np.mean([float(score(patch.image)) for score in _scores_of_folds(ensemble, patch, channel)]))


def occlusion_drop(
    score: torch.nn.Module, image: torch.Tensor, box: list[tuple[int, int]], edges: tuple[int, ...]
) -> tuple[float, Floats]:
    """The score of ``image`` (1, channel, x, y, z), and how far it falls where a cube of ``edges`` voxels is zero.

    ``score`` maps images to (batch, 1). ``box``: first and past-the-last voxel per axis; the drop has its shape. Cubes
    overlap by about a quarter and stay inside the image; a voxel is given the mean over the cubes that cover it.
    """
    occlude = OcclusionSensitivity(
        score, edges, n_batch=BATCH, mode=0.0, overlap=0.25, activate=False, verbose=False
    )  # fmt: skip
    with torch.no_grad(), warnings.catch_warnings():
        # MONAI 1.6 indexes with a list of slices, which later releases of torch may refuse
        warnings.filterwarnings("ignore", message="Using a non-tuple sequence")
        whole = float(score(image))
        hidden, _ = occlude(image, b_box=[end for ends in box for end in ends])
    return whole, whole - np.asarray(hidden.cpu(), np.float32)[0, 0]


def pieces_by_size(mask: Mask) -> list[Mask]:
    """The 26-connected pieces of a mask, the largest first. Raises ``ValueError`` for an empty mask."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if not count:
        raise ValueError("the reference has no lesion of this region on the network's grid")
    order = np.argsort(-np.bincount(pieces.ravel())[1:], kind="stable") + 1
    return [np.asarray(pieces == number) for number in order]


def odd_edges(spacing: npt.NDArray[np.floating]) -> tuple[int, ...]:
    """The odd number of voxels nearest to ``CUBE_MM`` along each axis, 1 at least."""
    return tuple(max(1, 2 * round((CUBE_MM / float(step) - 1) / 2) + 1) for step in spacing)


def patch_slices(lesion: Mask, patch_size: list[int]) -> tuple[slice, ...]:
    """Where a patch with the lesion in its middle lies, moved (or cut, where the image is smaller) to stay inside."""
    middle = np.argwhere(lesion).mean(0)
    starts = [
        int(np.clip(round(float(at) - edge / 2), 0, max(size - edge, 0)))
        for at, edge, size in zip(middle, patch_size, lesion.shape, strict=True)
    ]
    return tuple(
        slice(start, min(start + edge, size))
        for start, edge, size in zip(starts, patch_size, lesion.shape, strict=True)
    )


def _axial(affine: npt.NDArray[np.float64], transpose_forward: list[int]) -> int:
    """The axis of the network's grid along which the head's inferior-superior direction runs."""
    stored = [int(axis) for axis, _ in nib.orientations.io_orientation(affine)].index(2)
    return list(transpose_forward).index(2 - stored)


def _box(lesion: Mask, spacing: npt.NDArray[np.floating], axis: int, slice_number: int) -> list[tuple[int, int]]:
    places = np.argwhere(lesion.take([slice_number], axis))
    margin = np.ceil(MARGIN_MM / spacing).astype(int)
    first = np.clip(places.min(0) - margin, 0, None)
    last = np.minimum(places.max(0) + 1 + margin, lesion.shape)
    box = [(int(start), int(end)) for start, end in zip(first, last, strict=True)]
    box[axis] = (slice_number, slice_number + 1)
    return box


def _padded(data: Floats, mask: Mask, patch_size: list[int]) -> tuple[Floats, Mask]:
    """Zeros behind the far ends, where the image is smaller than the patch; the mask likewise."""
    missing = [(0, edge - size) for edge, size in zip(patch_size, mask.shape, strict=True)]
    return np.pad(data, [(0, 0), *missing]), np.pad(mask, missing)
