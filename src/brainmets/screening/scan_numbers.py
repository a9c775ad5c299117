"""The numbers of one scan that tell whether it is like the training cohort's: what is there, grey values, sharpness,
noise, how the sequences lie to each other, and which way up the head is.

Most come from the audit (``cohorts.plausibility``) and the preparation (``preparation.quality``); added here is what
only the comparison with a training cohort can judge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import combinations, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

from brainmets import nifti
from brainmets.cohorts import plausibility
from brainmets.cohorts.background import background, head
from brainmets.cohorts.likeness import SKULL_LITRES
from brainmets.cohorts.matching import RESOLUTION_MM, RIM, Edges, coarse, edges_within
from brainmets.preparation import grids, quality
from brainmets.preparation.pipeline import along_ras
from brainmets.vocabulary import SEQUENCES

Voxels = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

PAIRS = tuple(combinations(SEQUENCES, 2))
AXES = ("R", "A", "S")
OF_AUDIT = (
    "head_mL", "cut_cm2",
    *(f"{sequence}_{name}" for sequence in SEQUENCES for name in ("cover_pct", "short_mm", "at_top_pct", "levels")),
)  # fmt: skip
"""From ``plausibility.examine``."""
OF_CONTENT = tuple(
    f"{sequence}_{name}"
    for sequence in quality.COMPARED
    for name in ("agreement", "clear_sd", "away_mm", "turned", "flipped")
)
"""From ``quality.measure``."""
OF_TISSUE = tuple(f"{one}_{other}_rank" for one, other in PAIRS)
OF_GREY = ("contrast", "asymmetry", "tail", "dark", "rim")
OF_TEXTURE = ("noise", *(f"sharp_{axis}" for axis in AXES), "uneven")
NUMBERS = (
    *(f"{sequence}_usable" for sequence in SEQUENCES),
    *(f"spacing_{axis}_mm" for axis in AXES),
    "skull", *OF_AUDIT, *OF_TISSUE, *OF_CONTENT,
    *(f"{sequence}_shift_mm" for sequence in quality.COMPARED),
    *(f"{sequence}_{name}" for sequence in SEQUENCES for name in (*OF_GREY, *OF_TEXTURE)),
    "uptake", "uptake_ratio", "same_pct", "end_cm2", "upright", "brainlike",
)  # fmt: skip
"""In order; ``scan_numbers`` says what they are."""

FEWEST = 1000
"""Voxels below which nothing is measured inside a head."""
RIM_MM = 8.0
"""Outer shell of a head, where the scalp's fat lies if the skull was left on."""
MOST = 400_000
"""Voxels that texture is measured on; of larger heads every second, third, ... line along each axis is taken."""
UPTAKE_ML = 0.5
"""Volume of the brightest uptake: that of a few lesions or of the larger vessels."""
SHADING_MM = 20.0
"""Blur that is taken from an image before tissues are ranked: a coil's shading can outweigh them, and is smoother."""
BOX = 52
"""Side of the cube (in voxels of ``RESOLUTION_MM``) in which a head is turned to all sides."""
SMOOTH_MM = 6.0
"""Blur of what is turned: heads differ in their folds, and lie turned by some degrees."""


def unusable(images: Mapping[str, Voxels], sequences: Collection[str] = SEQUENCES) -> dict[str, str]:
    """Why each of ``sequences``, those that are to be there, that cannot be measured cannot: by sequence, in words."""
    reasons = {}
    shapes = [image.shape for image in images.values() if image.ndim == 3]
    usual = max(shapes, key=shapes.count) if shapes else ()
    for name in (name for name in SEQUENCES if name in sequences):
        if name not in images:
            reasons[name] = "is missing"
        elif (image := images[name]).ndim != 3 or min(image.shape) < 2:
            reasons[name] = f"is no volume (shape {image.shape})"
        elif image.shape != usual:
            reasons[name] = f"has shape {image.shape}, the others {usual}"
        elif not np.isfinite(image).all():
            reasons[name] = f"holds {np.count_nonzero(~np.isfinite(image))} value(s) that are not finite"
        elif image.min() == image.max():
            reasons[name] = "is empty: all its voxels have one value"
    return reasons


def scan_numbers(
    images: Mapping[str, Voxels], affine: nifti.Affine, sequences: Collection[str] = SEQUENCES
) -> dict[str, float]:
    """A value for each of ``NUMBERS``, NaN where there is nothing to measure.

    ``images``: by sequence, (x, y, z) on one grid of ``affine`` (voxel to mm, RAS+), stripped or not; a constant
    around the head counts as background, whatever it is. ``sequences``: those that are to be there, the t1c among
    them; of the others nothing is measured, nor what compares with them. One of them that is missing, no volume, of
    another shape, not finite or constant has ``usable`` 0 and no other number; without any all is NaN but these and
    the voxel's sides.

    ``spacing``: voxel's side along R, A, S. ``skull``: share of the sequences whose surroundings are no constant.
    ``OF_AUDIT``: see ``plausibility.examine``; ``OF_TISSUE``: Spearman's rank correlation of two sequences in the
    head's inside, less their blur by ``SHADING_MM``; ``OF_CONTENT``: see ``quality.measure`` (only where all of
    ``sequences`` are usable); ``shift_mm``: how far from its place a sequence fits the t1c best, to a fraction of a
    voxel (a parabola through the agreement of edges in place and one voxel of 4 mm to either side, at most 4 mm along
    each axis).
    Per sequence, within the head: ``contrast``: interquartile range over the distance of median and
    background; ``asymmetry``: (p95 + p5 - 2 p50) / (p95 - p5); ``tail``: (p99.5 - p50) / (p75 - p25);
    ``dark``: p2 / p50, from the background; ``rim``: median of the outer 8 mm over the inside's; ``noise``: robust
    standard deviation of a second difference along both of two axes (Immerkaer, CVIU 1996, 64: 300), over the
    interquartile range; ``sharp``: mean difference of neighbours over that of voxels two apart, along each axis (0.5
    for a ramp, 1 for noise); ``uneven``: mean second difference along the axis that has most, over the least's.

    ``uptake``: mean of the brightest half millilitre of t1c less t1n at 4 mm, each less its blur, in robust standard
    deviations from its median; ``uptake_ratio``: that over the same of t1n less t1c. ``same_pct``: share of the
    head's voxels in which the two most similar sequences are one up to scale. ``end_cm2``: largest area of a
    stripped head's outermost
    slices at 4 mm. ``brainlike``: correlation with the template's brain as it lies (outline and T1 of the t1n, centres
    of gravity laid on each other); ``upright``: that less the best of the 46 other ways to turn and mirror it
    (mirrored left to right counts as upright: the two are not told apart).

    Raises ``ValueError`` for a name that is no sequence, or an affine that is none.
    """
    if unknown := [name for name in images if name not in SEQUENCES]:
        raise ValueError(f"images: {unknown[0]!r} is no sequence; those are {', '.join(SEQUENCES)}")
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"affine: {affine.tolist()} is no invertible 4x4 matrix")
    row = dict.fromkeys(NUMBERS, float("nan"))
    _, along = nifti.to_ras(np.empty((2, 2, 2), np.uint8), affine)
    row |= dict(zip((f"spacing_{axis}_mm" for axis in AXES), np.linalg.norm(along[:3, :3], axis=0), strict=True))
    wanted = [name for name in SEQUENCES if name in sequences]
    bad = unusable(images, wanted)
    row |= {f"{name}_usable": float(name not in bad) for name in wanted}
    good = {name: np.asarray(images[name]) for name in wanted if name not in bad}
    if not good:
        return {name: float(value) for name, value in row.items()}
    shape = next(iter(good.values())).shape
    x, y, z = (float(side) for side in np.linalg.norm(affine[:3, :3], axis=0))
    grid = nifti.Grid(Path("scan.nii.gz"), (shape[0], shape[1], shape[2]), affine, (x, y, z))
    audited, _ = plausibility.examine(good, None, grid)
    row |= {name: audited[name] for name in OF_AUDIT}
    levels = {name: background(image) for name, image in good.items()}
    row["skull"] = sum(level is None for level in levels.values()) / len(levels)
    upright = {name: nifti.to_ras(_on_zero(image, levels[name]), affine)[0] for name, image in good.items()}
    small = {name: coarse(image, along) for name, image in upright.items()}
    inside = _head(small, levels)
    if np.count_nonzero(inside) * RESOLUTION_MM**3 < FEWEST * 27:
        return {name: float(value) for name, value in row.items()}
    fine = _finer(inside, next(iter(upright.values())).shape)
    if not bad:
        measured = quality.measure(upright, fine, along, {})
        row |= {name: measured[name] for name in OF_CONTENT}
        row |= _shifts(small)
    flat = {name: _unshaded(image, inside) for name, image in small.items()}
    row |= _relations(flat, small, inside)
    for name, image in upright.items():
        row |= {f"{name}_{key}": value for key, value in _grey(small[name], inside, levels[name]).items()}
        row |= {f"{name}_{key}": value for key, value in _texture(image, fine).items()}
    if {"t1n", "t1c"} <= set(small):
        row |= _uptake(flat["t1n"], flat["t1c"], inside)
    if len(upright) > 1:
        row["same_pct"] = _same(upright, fine)
    if not row["skull"] and row["head_mL"] <= 1000 * SKULL_LITRES:
        row["end_cm2"] = _end(inside)
    shown = next((small[name] for name in ("t1n", "t1c") if name in small), None)
    row |= _placed(shown, inside)
    return {name: float(value) for name, value in row.items()}


def _on_zero(image: Voxels, level: float | None) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(image, np.float32) - np.float32(level or 0.0)


def _head(small: Mapping[str, Floats], levels: Mapping[str, float | None]) -> Mask:
    """The head on the coarse grid: what any stripped sequence shows, else what the t1c or the first does."""
    shown = [image != 0 for name, image in small.items() if levels[name] is not None]
    if len(shown) < len(small):
        shown = [head(image) for name, image in small.items() if levels[name] is None]
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(np.any(shown, axis=0)))
    pieces, count = ndimage.label(mask)
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])) if count else np.asarray(mask)


def _finer(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The coarse mask on the full grid, each voxel as the coarse one that it lies in."""
    places = [np.minimum(np.arange(size) * few // size, few - 1) for size, few in zip(shape, mask.shape, strict=True)]
    return mask[np.ix_(*places)]


def _relations(flat: Mapping[str, Floats], small: Mapping[str, Floats], inside: Mask) -> dict[str, float]:
    deep = ndimage.binary_erosion(inside, iterations=round(RIM_MM / RESOLUTION_MM))
    row = {}
    for one, other in PAIRS:
        if one in flat and other in flat:
            both = deep & (small[one] != 0) & (small[other] != 0)
            if np.count_nonzero(both) >= FEWEST:
                row[f"{one}_{other}_rank"] = float(stats.spearmanr(flat[one][both], flat[other][both]).statistic)
    return row


def _unshaded(image: Floats, inside: Mask) -> Floats:
    """Less its blur by ``SHADING_MM``, over what it shows of the head."""
    shown = (inside & (image != 0)).astype(np.float32)
    blurred, weight = (ndimage.gaussian_filter(part, SHADING_MM / RESOLUTION_MM) for part in (image * shown, shown))
    return np.asarray(image - blurred / np.maximum(weight, 1e-3), np.float32)


def _grey(image: Floats, inside: Mask, level: float | None) -> dict[str, float]:
    depth = round(RIM_MM / RESOLUTION_MM)
    deep = ndimage.binary_erosion(inside, iterations=depth)
    if np.count_nonzero(deep) * RESOLUTION_MM**3 < FEWEST * 27:
        return {}
    air = 0.0 if level is not None else float(np.median(image[~inside])) if (~inside).any() else 0.0
    dark, low, lower, middle, upper, high, top = np.percentile(image[deep], (2, 5, 25, 50, 75, 95, 99.5)) - air
    shell = image[inside & ~deep]
    return {
        "contrast": _share(upper - lower, abs(middle)),
        "asymmetry": _share(high + low - 2 * middle, high - low),
        "tail": _share(top - middle, upper - lower),
        "dark": _share(dark, middle),
        "rim": _share(float(np.median(shell[shell != 0])) - air, middle) if (shell != 0).any() else float("nan"),
    }


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _texture(image: Floats, inside: Mask) -> dict[str, float]:
    box = tuple(_middle(np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3))
    part, there = image[box], inside[box]
    if np.count_nonzero(there) < FEWEST or min(part.shape) < 6:
        return {}
    spread = float(np.subtract(*np.percentile(part[there][:: max(1, part.size // MOST)], (75, 25))))
    row: dict[str, float] = {}
    seconds = []
    for axis, name in enumerate(AXES):
        lines, kept = (np.moveaxis(_thinned(array, axis), axis, 0) for array in (part, there))
        one, two = np.abs(lines[1:-1] - lines[:-2]), np.abs(lines[2:] - lines[:-2])
        use = kept[:-2] & kept[1:-1] & kept[2:]
        if np.count_nonzero(use) < FEWEST:
            return row
        row[f"sharp_{name}"] = _share(float(one[use].mean()), float(two[use].mean()))
        seconds.append(float(np.abs(lines[2:] + lines[:-2] - 2 * lines[1:-1])[use].mean()))
    row["uneven"] = _share(max(seconds), min(seconds))
    plane, kept = (array[:, :, :: max(1, part.size // MOST)] for array in (part, there))
    across = plane[2:] + plane[:-2] - 2 * plane[1:-1]
    both = across[:, 2:] + across[:, :-2] - 2 * across[:, 1:-1]
    use = ndimage.binary_erosion(kept, np.ones((3, 3, 1), bool))[1:-1, 1:-1]
    if np.count_nonzero(use) >= FEWEST / 4:
        row["noise"] = _share(1.4826 * float(np.median(np.abs(both[use]))) / 6, spread)
    return row


def _middle(places: npt.NDArray[np.intp]) -> slice:
    """The middle 70% of where a head lies along an axis."""
    first, size = int(places[0]), int(places[-1]) - int(places[0]) + 1
    return slice(first + round(0.15 * size), first + round(0.85 * size) + 1)


def _thinned(array: Voxels, axis: int) -> Voxels:
    """Every n-th line along the axis, so that no more than about ``MOST`` voxels are left."""
    step = max(1, round((array.size / MOST) ** 0.5))
    return array[tuple(slice(None) if other == axis else slice(None, None, step) for other in range(3))]


def _uptake(native: Floats, contrast: Floats, inside: Mask) -> dict[str, float]:
    deep = ndimage.binary_erosion(inside)
    apart = []
    for image in (contrast, native):
        low, middle, high = np.percentile(image[deep], (25, 50, 75))
        if high <= low:
            return {}
        apart.append((image[deep] - middle) / (high - low) * 1.349)
    count = max(1, round(UPTAKE_ML * 1000 / RESOLUTION_MM**3))
    ordered = np.sort(apart[0] - apart[1])
    most, least = float(ordered[-count:].mean()), float(-ordered[:count].mean())
    return {"uptake": most, "uptake_ratio": _share(most, least)}


def _same(images: Mapping[str, Floats], inside: Mask) -> float:
    """Of the pair of sequences of which most is one up to a factor, the share of the head in percent where it is."""
    found = 0.0
    thin = {name: image[inside][:: max(1, image.size // MOST)] for name, image in images.items()}
    for one, other in combinations(thin.values(), 2):
        both = (one != 0) & (other != 0)
        if np.count_nonzero(both) < FEWEST / 4:
            continue
        ratio = one[both] / other[both]
        middle = float(np.median(ratio))
        found = max(found, 100 * float(np.mean(np.abs(ratio - middle) <= 0.005 * abs(middle))))
    return found


def _shifts(small: Mapping[str, Floats]) -> dict[str, float]:
    """By how many mm each sequence lies beside the t1c; none where there is too little to compare."""
    found = {
        name: edges_within(image, ndimage.binary_erosion(head(image), iterations=RIM)) for name, image in small.items()
    }
    row = {}
    for name in quality.COMPARED:
        one, other = found[quality.REFERENCE], found.get(name)
        if one is not None and other is not None:
            row[f"{name}_shift_mm"] = RESOLUTION_MM * float(np.linalg.norm([_peak(one, other, a) for a in (1, 2, 3)]))
    return row


def _peak(one: Edges, other: Edges, axis: int) -> float:
    """Where the agreement peaks along an axis, in voxels from -1 to 1."""
    size = one.shape[axis]
    first, second = np.moveaxis(one, axis, 0), np.moveaxis(other, axis, 0)
    below, here, above = (
        float(np.vdot(first[max(0, -by) : size - max(0, by)], second[max(0, by) : size - max(0, -by)]))
        for by in (-1, 0, 1)
    )
    bend = below - 2 * here + above
    return float(np.clip(0.5 * (below - above) / bend, -1, 1)) if bend < 0 else float(np.sign(above - below))


def _end(inside: Mask) -> float:
    """The largest area of a head's outermost slices in cm2: a brain ends round, a cut one flat."""
    areas = []
    for axis in range(3):
        slices = np.count_nonzero(inside, axis=tuple({0, 1, 2} - {axis}))
        there = np.flatnonzero(slices)
        areas += [slices[there[0]], slices[there[-1]]]
    return float(max(areas)) * RESOLUTION_MM**2 / 100


# --- which way up --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _template() -> Floats:
    """The template's outline and T1, centred, smooth and of unit length: (2, BOX, BOX, BOX)."""
    image = grids.template()
    voxels, affine = along_ras(image)
    small = coarse(voxels, affine)
    return _centred(small, small > 0.1)


def _placed(image: Floats | None, inside: Mask) -> dict[str, float]:
    reference = _template()
    turned = _centred(inside.astype(np.float32) if image is None else image, inside)
    if image is None:
        reference, turned = reference[:1], turned[:1]
    fits = {way: float(np.mean(np.sum(reference * _turn(turned, way), axis=(1, 2, 3)))) for way in _ways()}
    upright = [((0, 1, 2), (side, 1, 1)) for side in (1, -1)]
    here = max(fits[way] for way in upright)
    return {"brainlike": here, "upright": here - max(fit for way, fit in fits.items() if way not in upright)}


Way = tuple[tuple[int, int, int], tuple[int, int, int]]


def _ways() -> Iterator[Way]:
    for a, b, c in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            yield (a, b, c), (signs[0], signs[1], signs[2])


def _turn(volumes: Floats, way: Way) -> Floats:
    order, signs = way
    turned = volumes.transpose(0, *(axis + 1 for axis in order))
    return turned[:, *(slice(None, None, sign) for sign in signs)]


def _centred(image: Floats, inside: Mask) -> Floats:
    """Outline and standardised image, the mask's centre of gravity in the middle of a cube: (2, BOX, BOX, BOX)."""
    low, middle, high = np.percentile(image[inside], (25, 50, 75))
    level = np.where(inside, np.clip((image - middle) / ((high - low) or 1.0), -2, 2), 0)
    shift = (BOX - 1) / 2 - np.array(ndimage.center_of_mass(inside))
    parts = []
    for volume in (inside.astype(np.float32), level.astype(np.float32)):
        placed = ndimage.affine_transform(volume, np.ones(3), -shift, (BOX,) * 3, order=1)
        smooth = ndimage.gaussian_filter(placed, SMOOTH_MM / RESOLUTION_MM)
        smooth -= smooth.mean()
        parts.append(smooth / (float(np.linalg.norm(smooth)) or 1.0))
    return np.array(parts, np.float32)
