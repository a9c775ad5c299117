"""The template, the grids a case can be brought to, and the one resampling that brings it there.

A grid is a SimpleITK image of which only size, spacing, origin and directions count (mm, LPS). Transforms take a point
of the target grid to the image that is resampled, as ITK's do.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

FIELD_OF_VIEW_MM = (240.0, 240.0, 180.0)
"""Of the template's grid, along L, P and S.

BraTS has 240 x 240 x 155 mm. The template's own brain is 155 mm high, so that a larger or a turned one would lose its
vertex or its cerebellum there; nothing reads a case by its shape.
"""
BLUR_ABOVE = 2.0
"""A target voxel this many times as large as the image's is an average over it, not a point between its neighbours."""


class Labels(NamedTuple):
    """Resampled labels (uint8) and what became of their components.

    ``kept``: how many resampling would have lost, and keep one voxel. ``outside``: how many have no place on the
    target grid, and are lost.
    """

    image: sitk.Image
    kept: int
    outside: int


@lru_cache(maxsize=1)
def template() -> sitk.Image:
    """The MNI ICBM 152 template (non-linear symmetric 2009a, T1, skull-stripped, 1 mm) as nilearn ships it.

    float32 between 0 and 1, axes along L, P and S. Do not change it in place: calls share it.
    """
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=1)
    return sitk.DICOMOrient(image_of(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)), "LPS")


def image_of(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> sitk.Image:
    """Voxels (i, j, k) with an affine to mm in RAS as an image in LPS; 16-bit whole numbers and float32 stay so."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    small = voxels.dtype == np.float32 or (voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2)
    kind = voxels.dtype if small else np.float64
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.transpose(voxels, (2, 1, 0)), dtype=kind))
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(sides.tolist())
    image.SetDirection((lps[:3, :3] / sides).ravel().tolist())
    return image


def template_grid(spacing_mm: tuple[float, float, float]) -> sitk.Image:
    """The template's orientation at ``spacing_mm`` (along L, P, S) over ``FIELD_OF_VIEW_MM`` around its brain.

    (1, 1, 1) is the spacing of BraTS, (0.5, 0.5, 1) the paper's ("1 x 0.5 x 0.5", slices first). Axes along L, P, S
    as in BraTS' files.
    """
    if any(not 0.2 <= side <= 5 for side in spacing_mm):
        raise ValueError(f"spacing_mm must be three sides between 0.2 and 5 mm, not {spacing_mm}")
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(template() > 0)
    first, size = np.array(shape.GetBoundingBox(1)).reshape(2, 3)
    centre = template().TransformContinuousIndexToPhysicalPoint((first + (size - 1) / 2).tolist())
    return _grid(centre, FIELD_OF_VIEW_MM, spacing_mm, (1, 0, 0, 0, 1, 0, 0, 0, 1))


def isotropic_grid(image: sitk.Image, side_mm: float) -> sitk.Image:
    """The box of the image with its axes, in voxels of ``side_mm``."""
    middle = (np.asarray(image.GetSize()) - 1) / 2
    centre = image.TransformContinuousIndexToPhysicalPoint(middle.tolist())
    extent = np.asarray(image.GetSize()) * image.GetSpacing()
    return _grid(centre, extent, (side_mm, side_mm, side_mm), image.GetDirection())


def resampled(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """The image (float32) on the grid by linear interpolation, 0 where the grid reaches beyond it.

    Linear, because it keeps to the range of its neighbours: windowed sinc rings beside skull and enhancing rims and
    gives negative intensities. Along axes where the target voxel is more than ``BLUR_ABOVE`` times the image's, the
    image is blurred first, or single voxels would stand for many.
    """
    spacing = np.asarray(image.GetSpacing())
    steps = _steps_along(image, grid, transform)
    blurred = blur(image, np.where(steps > BLUR_ABOVE * spacing, steps, spacing))
    return sitk.Resample(blurred, grid, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)


def blur(image: sitk.Image, side_mm: npt.ArrayLike) -> sitk.Image:
    """The image (float32) as voxels of ``side_mm`` along its three axes would see it; no change along larger voxels.

    A Gaussian whose full width at half maximum makes up the difference (Cardoso et al., MICCAI 2015, "Scale factor
    point spread function matching").
    """
    floats = sitk.Cast(image, sitk.sitkFloat32)
    variance = np.maximum(np.square(side_mm) - np.square(image.GetSpacing()), 0) / (8 * np.log(2))
    return sitk.DiscreteGaussian(floats, variance.tolist(), 64, 0.01, True) if variance.any() else floats


def resampled_labels(labels: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> Labels:
    """A label map (whole numbers, 0 background) on the grid; no connected component may vanish.

    Each component of each value is interpolated linearly. A voxel of which all of them together take half or more
    takes the one with the largest share: to weigh the background against each alone would eat thin rims away. One that
    gets no voxel takes the one where its voxel nearest its centroid comes to lie (a neighbour, if that is some other
    component's only voxel).
    """
    components, values = _components(labels)
    reach = sitk.Image(grid.GetSize(), sitk.sitkFloat32)
    reach.CopyInformation(grid)
    best, total = np.zeros(grid.GetSize()[::-1], np.float32), np.zeros(grid.GetSize()[::-1], np.float32)
    owner = np.zeros(best.shape, np.int32)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(components)
    boxes = {number: np.array(shape.GetBoundingBox(number)).reshape(2, 3) for number in values}
    for number, (first, size) in boxes.items():
        low, high = np.maximum(first - 1, 0), np.minimum(first + size + 1, labels.GetSize())
        part = sitk.RegionOfInterest(components, (high - low).tolist(), low.tolist()) == number
        window = _window(part, grid, transform)
        if window is None:
            continue
        there = sitk.RegionOfInterest(reach, window[1].tolist(), window[0].tolist())
        share = sitk.Resample(sitk.Cast(part, sitk.sitkFloat32), there, transform, sitk.sitkLinear, 0.0)
        place = tuple(slice(a, a + n) for a, n in zip(window[0][::-1], window[1][::-1], strict=True))
        found = sitk.GetArrayViewFromImage(share)
        total[place] += found
        wins = found > best[place]
        owner[place][wins] = number
        best[place][wins] = found[wins]
    owner[total < 0.5] = 0
    kept, outside = _keep(owner, components, values, grid, transform)
    lookup = np.zeros(max(values, default=0) + 1, np.uint8)
    lookup[list(values)] = list(values.values())
    result = sitk.GetImageFromArray(lookup[owner])
    result.CopyInformation(grid)
    return Labels(result, kept, outside)


def share_outside(mask: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> float:
    """Part of a mask (above 0 inside) that lies beyond the grid; 0 for an empty mask."""
    voxels = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)[:, ::-1]
    if not len(voxels):
        return 0.0
    there = _indices(voxels.astype(np.float64), mask, grid, transform)
    return float(1 - _inside(there, grid).mean())


def _grid(
    centre: npt.ArrayLike,
    extent_mm: npt.ArrayLike,
    spacing_mm: tuple[float, float, float],
    direction: tuple[float, ...],
) -> sitk.Image:
    sides = np.array(spacing_mm)
    size = np.maximum(np.rint(np.asarray(extent_mm) / sides), 1).astype(int)
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(sides.tolist())
    grid.SetDirection(direction)
    grid.SetOrigin((centre - np.reshape(direction, (3, 3)) @ ((size - 1) / 2 * sides)).tolist())
    return grid


def _steps_along(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> npt.NDArray[np.float64]:
    """How far a target voxel reaches along each axis of the image, mm."""
    inverse = transform.GetInverse()
    start = np.asarray(inverse.TransformPoint((0.0, 0.0, 0.0)))
    axes = np.reshape(image.GetDirection(), (3, 3)).T
    turned = np.array([np.asarray(inverse.TransformPoint(axis.tolist())) - start for axis in axes])
    along = turned @ np.reshape(grid.GetDirection(), (3, 3)) * grid.GetSpacing()
    return np.linalg.norm(along, axis=1)


def _components(labels: sitk.Image) -> tuple[sitk.Image, dict[int, int]]:
    """26-connected components of each value, numbered through from 1; and the value of each number."""
    present = [int(value) for value in np.unique(sitk.GetArrayViewFromImage(labels)) if value]
    numbers = sitk.Image(labels.GetSize(), sitk.sitkUInt32)
    numbers.CopyInformation(labels)
    values: dict[int, int] = {}
    for value in present:
        found = sitk.ConnectedComponent(labels == value, True)
        count = int(sitk.GetArrayViewFromImage(found).max())
        numbers += sitk.Cast(sitk.Cast(found > 0, sitk.sitkUInt32) * len(values), sitk.sitkUInt32) + sitk.Cast(
            found, sitk.sitkUInt32
        )
        values |= {len(values) + number: value for number in range(1, count + 1)}
    return numbers, values


def _window(
    part: sitk.Image, grid: sitk.Image, transform: sitk.Transform
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]] | None:
    """First index and size of the target box that holds a part of the labels; nothing where it lies outside."""
    corners = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in part.GetSize()))).reshape(3, -1).T
    there = _indices(corners, part, grid, transform)
    low = np.maximum(np.floor(there.min(0)), 0).astype(int)
    high = np.minimum(np.ceil(there.max(0)) + 1, grid.GetSize()).astype(int)
    return (low, high - low) if (high > low).all() else None


def _indices(
    voxels: npt.NDArray[np.float64], image: sitk.Image, grid: sitk.Image, transform: sitk.Transform
) -> npt.NDArray[np.float64]:
    """Continuous indices on the grid of voxels (n x 3, in x, y, z order) of the image; ``transform`` is rigid."""
    inverse = transform.GetInverse()
    ends = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    placed = [
        grid.TransformPhysicalPointToContinuousIndex(
            inverse.TransformPoint(image.TransformContinuousIndexToPhysicalPoint(end))
        )
        for end in ends
    ]
    origin, *axes = np.array(placed)
    return origin + voxels @ (np.array(axes) - origin)


def _inside(indices: npt.NDArray[np.float64], grid: sitk.Image) -> npt.NDArray[np.bool_]:
    return np.all((indices >= -0.5) & (indices < np.array(grid.GetSize()) - 0.5), axis=1)


def _keep(
    owner: npt.NDArray[np.int32],
    components: sitk.Image,
    values: dict[int, int],
    grid: sitk.Image,
    transform: sitk.Transform,
) -> tuple[int, int]:
    """Give each component without a voxel one, in place; how many got one, and how many have no place on the grid."""
    sizes = np.bincount(owner.ravel(), minlength=max(values, default=0) + 1)
    lost = [number for number in values if not sizes[number]]
    native = sitk.GetArrayViewFromImage(components)
    neighbours = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T
    kept = 0
    for number in lost:
        voxels = np.argwhere(native == number)[:, ::-1]
        nearest = np.argsort(np.linalg.norm(voxels - voxels.mean(0), axis=1), kind="stable")
        there = _indices(voxels[nearest].astype(np.float64), components, grid, transform)
        there = there[_inside(there, grid)]
        if not len(there):
            continue
        around = np.rint(there[0]) + neighbours
        around = around[_inside(around, grid)]
        by_distance = np.argsort(np.linalg.norm(around - there[0], axis=1), kind="stable")
        places = [tuple(place[::-1]) for place in around[by_distance].astype(int)]
        free = next((place for place in places if owner[place] == 0 or sizes[owner[place]] > 1), None)
        if free is None:
            continue
        sizes[owner[free]] -= 1
        sizes[number] = 1
        owner[free] = number
        kept += 1
    return kept, len(lost) - kept
