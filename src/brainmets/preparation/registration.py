"""Rigid registration of one head's images to each other, and of a brain to the template, by mutual information.

Images are SimpleITK images with axes along L, P and S (mm), of any spacing. Transforms are ITK's: they take a point of
the fixed image to the moving image, so that resampling the moving image through one puts it onto the fixed grid.

How it searches: both images are brought to grids of 4 and 2 mm; at 4 mm a descent starts from every pair of two
centres (as the headers place the heads; heads' centres laid upon each other) and seven rotations (none, 30 degrees to
either side about each axis); the best by normalised mutual information goes on at 2 mm. Lengths are handed to the
optimiser in units of ``UNIT_MM``, so that a radian of rotation moves a head's rim as far as one unit of translation
does: with ITK's physical-shift scales instead, the regular step shrank before the rotation had converged, and descents
from 20 degrees away stopped at 15.

The same input gives the same bytes: sampling is seeded and ITK works with one thread (its mutual information adds up
in the order in which threads end).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from brainmets.files import replacing
from brainmets.preparation.grids import blur, isotropic_grid
from brainmets.preparation.scans import ScanError

Points = npt.NDArray[np.float64]
Motion = TypeVar("Motion", sitk.Euler3DTransform, sitk.Similarity3DTransform)

COARSE_MM, FINE_MM = 4.0, 2.0
UNIT_MM = 80.0
"""About a head's radius."""
ROTATION_DEG = 30.0
"""Between the starts of the search; a descent at 4 mm comes back from there."""
MARGIN_MM = 8.0
"""Around the head, so that its outline counts."""
LEAST_OVERLAP = 0.25
"""Part of the fixed head that the moving image must cover for a position to count."""
BINS = 32
"""Per image, of the histogram behind ``Registration.metric``."""
MATTES_BINS = 32
"""Of the metric that the descents follow. With 50, one to three descents in fourteen ended elsewhere at 4 mm."""


@dataclass(frozen=True)
class Registration:
    """A rigid registration and the numbers by which to judge it.

    ``transform`` takes points of the fixed image (mm, LPS) to the moving image. ``metric`` and ``metric_before`` (as
    the headers place the images): normalised mutual information (H(A) + H(B)) / H(A, B), between 1 (none) and 2, over
    the fixed head on a 2 mm grid (Studholme et al. 1999, doi:10.1016/S0031-3203(98)00091-0). ``rotation_deg``: angle
    of the rotation; ``translation_mm``: how far it moves the centre of the fixed head. ``spread_mm``: the largest
    distance, over seven points of the fixed head (its centre and 70 mm from it along each axis), between this result
    and that of a second registration with the images' roles swapped, other starts and another seed: large where the
    result is not to be trusted. ``mirrored``: metric of the best registration of the left-right mirrored moving image,
    less ``metric``; above 0, the moving image is flipped. NaN where that cannot tell.

    On real scans in place (two MS patients at 1 mm, a clinical case with 5.5 mm slices; three sequences each)
    ``mirrored`` was -0.03 to -0.21 and ``spread_mm`` up to 0.6; on their flipped copies 0.03 to 0.24 and up to 1.
    Images of two patients gave a ``mirrored`` of 0.000 to 0.002 (their ``spread_mm`` may be small, 0.6 to 6), a head
    upside down and noise 0.000 to 0.005 with 50 mm and more. Hence: flipped above 0.01, no match from -0.01 to 0.01,
    and nothing to trust beyond 2 mm.
    """

    transform: sitk.Euler3DTransform
    metric: float
    metric_before: float
    rotation_deg: float
    translation_mm: float
    spread_mm: float
    mirrored: float


@dataclass(frozen=True)
class _Head:
    """One image on a coarse and a fine grid (float32, 0 to 1), with the region that counts on each."""

    coarse: sitk.Image
    fine: sitk.Image
    coarse_region: sitk.Image
    fine_region: sitk.Image
    centre: Points


def register(fixed: sitk.Image, moving: sitk.Image, seed: int, fixed_mask: sitk.Image | None = None) -> Registration:
    """Register two images of one head rigidly.

    ``fixed_mask`` (on the fixed image's grid, above 0 inside) says where to compare; without one, it is the head.
    Raises ``ScanError`` where an image shows nothing (one value) or the heads cannot be brought to overlap.
    """
    with one_thread():
        first, second = _head(fixed, fixed_mask), _head(moving, None)
        found = _search(first, second, _starts(first, second, 0.0), seed)
        metric = _similarity(first.fine, first.fine_region, second.fine, found)
        back = _search(second, first, _starts(second, first, ROTATION_DEG / 2), seed + 1)
        flipped = replace(second, coarse=mirrored(second.coarse), fine=mirrored(second.fine))
        reflected = _search(first, flipped, _reflected_starts(found, first, second.fine), seed + 2)
        return _registration(
            found,
            first,
            metric,
            _similarity(first.fine, first.fine_region, second.fine, sitk.Euler3DTransform()),
            _apart(found, inverse(back), first.centre),
            _similarity(first.fine, first.fine_region, flipped.fine, reflected) - metric,
        )


def to_template(brain: sitk.Image, mask: sitk.Image, seed: int, template: sitk.Image) -> Registration:
    """Register a brain to a skull-stripped template: points of the template to points of ``brain``.

    ``brain``: a T1-weighted image, with or without skull; ``mask``: its brain mask on the same grid. The last stage
    lets the size vary and then drops it (the brain's centre stays where it came to lie): a template larger than the
    brain otherwise pulls it to one side. ``mirrored`` is NaN: the template is symmetric and cannot tell.
    """
    with one_thread():
        stripped = sitk.Mask(sitk.Cast(brain, sitk.sitkFloat32), sitk.Cast(mask > 0, sitk.sitkUInt8))
        first, second = _head(template, template > 0), _head(stripped, mask)
        found = _sized(first, second, _search(first, second, _starts(first, second, 0.0), seed), seed)
        other = _search(first, second, _starts(first, second, ROTATION_DEG / 2), seed + 1)
        return _registration(
            found,
            first,
            _similarity(first.fine, first.fine_region, second.fine, found),
            _similarity(first.fine, first.fine_region, second.fine, sitk.Euler3DTransform()),
            _apart(found, _sized(first, second, other, seed + 1), first.centre),
            float("nan"),
        )


def residual(fixed: sitk.Image, moving: sitk.Image, seed: int = 0) -> tuple[float, float]:
    """What is left to move between two images that should lie upon each other: rotation (degrees) and shift (mm).

    Judged by other content than ``register`` uses, the mutual information of both images' edges (gradient magnitude at
    2 mm), starting from where they lie. The shift is that of the fixed head's centre.
    """
    with one_thread():
        first, second = _head(fixed, None), _head(moving, None)
        edges = [
            _between_0_and_1(sitk.GradientMagnitudeRecursiveGaussian(head.fine, FINE_MM)) for head in (first, second)
        ]
        start = _euler(first.centre)
        found = _descend(edges[0], first.fine_region, edges[1], start, seed, 0.2, 0.5)
        return _angle(found), float(np.linalg.norm(_moved(found, first.centre) - first.centre))


def mirrored(image: sitk.Image) -> sitk.Image:
    """The image with its content reflected left to right (about the middle of its grid), on the same grid."""
    if image.GetDimension() != 3:
        raise ValueError(f"image must be 3D, not {image.GetDimension()}D")
    directions = np.abs(np.reshape(image.GetDirection(), (3, 3)))
    across = int(directions[0].argmax())
    flipped = sitk.Flip(image, [axis == across for axis in range(3)])
    flipped.CopyInformation(image)
    return flipped


def chain(first: sitk.Euler3DTransform, then: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """One transform that does both, so that images are resampled once."""
    matrices = [np.reshape(transform.GetMatrix(), (3, 3)) for transform in (first, then)]
    centre = np.asarray(first.GetCenter())
    moved = _moved(then, _moved(first, centre))
    return _from_matrix(matrices[1] @ matrices[0], centre, moved - centre)


def inverse(transform: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """The way back."""
    centre = np.asarray(transform.GetCenter())
    moved = _moved(transform, centre)
    return _from_matrix(np.reshape(transform.GetMatrix(), (3, 3)).T, moved, centre - moved)


def write_transforms(folder: Path, transforms: Mapping[str, sitk.Euler3DTransform]) -> None:
    """Write each as ``<name>.tfm`` and its inverse as ``<name>_back.tfm``: ITK's text format, whole files."""
    for name, transform in transforms.items():
        for end, written in (("", transform), ("_back", inverse(transform))):
            with replacing(folder / f"{name}{end}.tfm") as aside:
                sitk.WriteTransform(written, str(aside))


def read_transforms(folder: Path) -> dict[str, sitk.Euler3DTransform]:
    """The forward transforms of a folder by name. Raises ``ScanError`` for a file that is no rigid transform."""
    found = {}
    for path in sorted(folder.glob("*.tfm")):
        if path.stem.endswith("_back"):
            continue
        try:
            found[path.stem] = sitk.Euler3DTransform(sitk.ReadTransform(str(path)))
        except RuntimeError as error:
            raise ScanError(
                f"{path.name} holds no rigid transform (Euler3DTransform); prepare the case again"
            ) from error
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """ITK's filters with one thread inside the block."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _registration(
    transform: sitk.Euler3DTransform, head: _Head, metric: float, before: float, spread_mm: float, flip: float
) -> Registration:
    translation_mm = float(np.linalg.norm(_moved(transform, head.centre) - head.centre))
    return Registration(transform, metric, before, _angle(transform), translation_mm, spread_mm, flip)


def _head(image: sitk.Image, mask: sitk.Image | None) -> _Head:
    fine = _isotropic(_between_0_and_1(image), FINE_MM)
    coarse = _isotropic(fine, COARSE_MM)
    if mask is None:
        inside = sitk.OtsuThreshold(coarse, 0, 1, 64)
        inside = sitk.RelabelComponent(sitk.ConnectedComponent(inside), sortByObjectSize=True) == 1
    else:
        inside = _on(sitk.Cast(mask > 0, sitk.sitkUInt8), coarse)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(inside)
    if not shape.HasLabel(1):
        raise ScanError("the image or its mask shows nothing at 4 mm; look at it, and leave the series out")
    region = sitk.BinaryDilate(inside, [round(MARGIN_MM / COARSE_MM)] * 3)
    return _Head(coarse, fine, region, _on(region, fine), np.asarray(shape.GetCentroid(1)))


def _between_0_and_1(image: sitk.Image) -> sitk.Image:
    """Between the percentiles 0.5 and 99.5, so that no bright vessel takes the histogram's bins."""
    scaled = sitk.Cast(image, sitk.sitkFloat32)
    low, high = (float(value) for value in np.percentile(sitk.GetArrayViewFromImage(scaled), [0.5, 99.5]))
    if not high > low:
        raise ScanError(f"the image holds one value ({low:g}) nearly everywhere; look at it, and leave the series out")
    return (sitk.Clamp(scaled, sitk.sitkFloat32, low, high) - low) / (high - low)


def _isotropic(image: sitk.Image, side_mm: float) -> sitk.Image:
    blurred = blur(image, (side_mm,) * 3)
    grid = isotropic_grid(image, side_mm)
    return sitk.Resample(blurred, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)


def _on(mask: sitk.Image, grid: sitk.Image) -> sitk.Image:
    return sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


def _starts(fixed: _Head, moving: _Head, turn_deg: float) -> list[sitk.Euler3DTransform]:
    """``turn_deg`` turns all of them about the left-right axis: other starts for a second opinion."""
    rotations = [np.zeros(3), *(side * ROTATION_DEG * axis for axis in np.eye(3) for side in (1, -1))]
    shifts = (np.zeros(3), moving.centre - fixed.centre)
    turned = [rotation + np.array([turn_deg, 0.0, 0.0]) for rotation in rotations]
    return [_euler(fixed.centre, rotation, shift) for shift, rotation in product(shifts, turned)]


def _reflected_starts(found: sitk.Euler3DTransform, fixed: _Head, moving: sitk.Image) -> list[sitk.Euler3DTransform]:
    """Where the mirrored moving image comes to lie on a fixed head that is symmetric, and rotations about it.

    Reflection of the fixed head about its middle, then ``found``, then reflection of the moving image: that is rigid.
    The plane of symmetry is known roughly, hence rotations about the two axes that tilt it.
    """
    middle = (np.asarray(moving.GetSize()) - 1) / 2
    moving_centre = np.asarray(moving.TransformContinuousIndexToPhysicalPoint(middle.tolist()))
    directions = np.reshape(moving.GetDirection(), (3, 3))
    across = directions[:, np.abs(directions[0]).argmax()]
    moving_reflection = np.eye(3) - 2 * np.outer(across, across)
    fixed_reflection = np.diag([-1.0, 1.0, 1.0])
    rotation = moving_reflection @ np.reshape(found.GetMatrix(), (3, 3)) @ fixed_reflection
    there = moving_centre + moving_reflection @ (_moved(found, fixed.centre) - moving_centre)
    start = _from_matrix(rotation, fixed.centre, there - fixed.centre)
    tilts = [(0.0, y, z) for y, z in ((0, 0), (20, 0), (-20, 0), (0, 20), (0, -20))]
    return [chain(_euler(fixed.centre, np.asarray(tilt)), start) for tilt in tilts]


def _search(fixed: _Head, moving: _Head, starts: Iterable[sitk.Euler3DTransform], seed: int) -> sitk.Euler3DTransform:
    best, best_metric = None, 0.0
    for start in starts:
        try:
            found = _descend(fixed.coarse, fixed.coarse_region, moving.coarse, start, seed, 0.25, COARSE_MM)
        except ScanError:
            continue
        metric = _similarity(fixed.coarse, fixed.coarse_region, moving.coarse, found)
        if metric > best_metric:
            best, best_metric = found, metric
    if best is None:
        raise ScanError("the two images cannot be brought to overlap; look at both, and correct series.csv")
    return _descend(fixed.fine, fixed.fine_region, moving.fine, best, seed, 0.2, FINE_MM / 2)


def _sized(fixed: _Head, moving: _Head, start: sitk.Euler3DTransform, seed: int) -> sitk.Euler3DTransform:
    """The rigid part of a registration that may also change the size."""
    similar = sitk.Similarity3DTransform()
    similar.SetMatrix(start.GetMatrix())
    similar.SetCenter(start.GetCenter())
    similar.SetTranslation(start.GetTranslation())
    found = _descend(fixed.fine, fixed.fine_region, moving.fine, similar, seed, 0.2, FINE_MM / 2)
    matrix = np.reshape(found.GetMatrix(), (3, 3)) / found.GetScale()
    return _from_matrix(matrix, np.asarray(found.GetCenter()), np.asarray(found.GetTranslation()))


def _descend(
    fixed: sitk.Image,
    region: sitk.Image,
    moving: sitk.Image,
    start: Motion,
    seed: int,
    sampling: float,
    step_mm: float,
) -> Motion:
    """A descent over the region whose first step is ``step_mm`` and whose last is a hundredth of it."""
    step = step_mm / UNIT_MM
    found = _scaled(start, 1 / UNIT_MM)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(MATTES_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(sampling, 1 + seed % (2**32 - 1))  # 0 would be ITK's word for the clock
    method.SetMetricFixedMask(_in_units(region))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step, step / 100, 100, 0.6, 1e-8)
    method.SetInitialTransform(found, inPlace=True)
    try:
        method.Execute(_in_units(fixed), _in_units(moving))
    except RuntimeError as error:  # ITK's word for a start from which the images do not overlap
        raise ScanError("the two images do not overlap; look at both, and correct series.csv") from error
    return _scaled(found, UNIT_MM)


def _in_units(image: sitk.Image) -> sitk.Image:
    scaled = sitk.Image(image)
    scaled.SetSpacing([side / UNIT_MM for side in image.GetSpacing()])
    scaled.SetOrigin([place / UNIT_MM for place in image.GetOrigin()])
    return scaled


def _scaled(transform: Motion, factor: float) -> Motion:
    """The same motion where lengths are ``factor`` times as large."""
    scaled = type(transform)(transform)
    scaled.SetCenter([factor * place for place in transform.GetCenter()])
    scaled.SetTranslation([factor * way for way in transform.GetTranslation()])
    return scaled


def _similarity(fixed: sitk.Image, region: sitk.Image, moving: sitk.Image, transform: sitk.Euler3DTransform) -> float:
    """Normalised mutual information over the region; 0 where the moving image covers too little of it."""
    moved = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, -1.0, sitk.sitkFloat32)
    first, second = sitk.GetArrayViewFromImage(fixed), sitk.GetArrayViewFromImage(moved)
    inside = sitk.GetArrayViewFromImage(region) > 0
    seen = inside & (second >= 0)
    if np.count_nonzero(seen) < LEAST_OVERLAP * np.count_nonzero(inside):
        return 0.0
    pair = [np.clip((values[seen] * BINS).astype(np.intp), 0, BINS - 1) for values in (first, second)]
    joint = np.bincount(pair[0] * BINS + pair[1], minlength=BINS**2).reshape(BINS, BINS) / np.count_nonzero(seen)
    together = _entropy(joint)
    return float((_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / together) if together else 1.0


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())


def _apart(one: sitk.Euler3DTransform, other: sitk.Euler3DTransform, centre: Points) -> float:
    reach = 70.0 * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    return max(float(np.linalg.norm(_moved(one, point) - _moved(other, point))) for point in centre + reach)


def _angle(transform: sitk.Euler3DTransform) -> float:
    """Angle of the rotation in degrees, by both its sine and its cosine (the cosine alone is blunt near 0)."""
    matrix = np.reshape(transform.GetMatrix(), (3, 3))
    skew = matrix - matrix.T
    sine = np.linalg.norm([skew[2, 1], skew[0, 2], skew[1, 0]]) / 2
    return float(np.degrees(np.arctan2(sine, (np.trace(matrix) - 1) / 2)))


def _moved(transform: sitk.Transform, point: Points) -> Points:
    return np.asarray(transform.TransformPoint([float(place) for place in point]))


def _euler(
    centre: Points, rotation_deg: Points | None = None, shift_mm: Points | None = None
) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter([float(place) for place in centre])
    if rotation_deg is not None:
        transform.SetRotation(*(float(angle) for angle in np.radians(rotation_deg)))
    if shift_mm is not None:
        transform.SetTranslation([float(way) for way in shift_mm])
    return transform


def _from_matrix(matrix: npt.NDArray[np.float64], centre: Points, shift_mm: Points) -> sitk.Euler3DTransform:
    transform = _euler(centre, shift_mm=shift_mm)
    left, _, right = np.linalg.svd(matrix)  # the nearest rotation: products of rotations drift in the last digits
    transform.SetMatrix((left @ right).ravel().tolist())
    return transform
