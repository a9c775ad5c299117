"""From slices to stacks: which slices of one series make one image, and whether they can be one volume.

Slices are put in order by their positions along the normal of their plane, never by their file names or numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from brainmets.preparation.scans import Header
from brainmets.preparation.slices import SECONDARY_CAPTURE, Slice

SAME_POSITION_MM = 0.02
SAME_DIRECTION = 0.005
"""Largest difference between direction cosines of slices of one stack: 0.3 degrees."""
UNEQUAL = 0.05
"""A slice may lie this share of the spacing off an even grid: some scanners round positions to 0.1 mm."""
LEAN_MM, LEAN_DEG = 0.1, 0.1
"""A stack leans (gantry tilt) where its last slice is off by more than both, seen along the normal."""
FEWEST = 3
"""Slices of a volume."""
MOST_PHASES = 8
"""More images than this in one series are a time series or diffusion directions, and are not taken apart."""
STRAIGHT_MM = 0.01
"""A last slice off by less is rounding, and the stack is taken as upright."""
PLANE_COSINE = 0.77
"""The normal is within 40 degrees of an axis of the patient."""

DECODED = {
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
}  # fmt: skip
"""Transfer syntaxes that a converter reads: uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000."""

LOCALISER = re.compile(r"locali[sz]er|scout|survey|(?<![a-z])loc(?![a-z])|plan[ _-]?scan", re.IGNORECASE)
DERIVED = {
    "MPR": "a reformatted copy (MPR) of another series",
    "REFORMATTED": "a reformatted copy of another series",
    **dict.fromkeys(("MIP", "MAX_IP"), "a projection (MIP)"),
    **dict.fromkeys(("MNIP", "MINIP", "MIN_IP"), "a projection (MinIP)"),
    "PROJECTION IMAGE": "a projection",
    **dict.fromkeys(("ADC", "ADC MAP"), "a map (ADC)"),
    "FA": "a map (FA)",
    "RCBV": "a map (rCBV)",
    "RCBF": "a map (rCBF)",
    "T1 MAP": "a map (T1)",
    "T2 MAP": "a map (T2)",
    **dict.fromkeys(("PHASE MAP", "PHASE", "P"), "a phase image"),
    **dict.fromkeys(("REAL", "R"), "the real part"),
    **dict.fromkeys(("IMAGINARY", "I"), "the imaginary part"),
    **dict.fromkeys(("FAT", "F"), "the fat image (Dixon)"),
    **dict.fromkeys(("OPP_PHASE", "OP"), "an opposed-phase image (Dixon)"),
    **dict.fromkeys(("SUB", "SUBTRACT", "SUBTRACTION"), "a difference of images"),
}
"""Values of ImageType (after the second) and of ComplexImageComponent that no anatomical image bears."""


@dataclass(frozen=True)
class Stack:
    """One image: its slices in order, what is wrong with it, whether it can be read, and the headers of the whole.

    ``geometry`` is None where there is no even grid.
    """

    slices: tuple[Slice, ...]
    header: Header
    problems: tuple[str, ...]
    geometry: Geometry | None

    @property
    def usable(self) -> bool:
        """Whether it can be read as one volume."""
        return self.geometry is not None


@dataclass(frozen=True)
class Geometry:
    """An even grid in mm, LPS: the first voxel's centre, unit vectors to the next column, row and slice, and steps.

    The third vector is not at a right angle to the others where the stack leans.
    """

    size: tuple[int, int, int]
    origin: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    spacing: npt.NDArray[np.float64]


def images_of(slices: Iterable[Slice]) -> list[list[Slice]]:
    """The slices of one series, one list per image, the same whatever their order and files.

    Slices that differ in matrix, spacing, direction or image type are never one image; those that differ in echo time,
    b value, temporal position or acquisition are several only where positions repeat. What is left of one or two
    slices each (a localiser, a turning projection) stays together as the last, which is no volume.
    """
    ordered = sorted(slices, key=_content)
    groups = [group for one in _by(ordered, _kind) for group in _by_direction(one)]
    for key in (_echo, _b_value, _temporal, _acquisition):
        groups = [part for group in groups for part in _parted(group, key)]
    few = [group for group in groups if len(group) < FEWEST]
    if len(few) < 2:
        return groups
    return [group for group in groups if len(group) >= FEWEST] + [[one for group in few for one in group]]


def stack_of(slices: Sequence[Slice], same_pixels: Callable[[Slice, Slice], bool], *, whole: bool = False) -> Stack:
    """Put the slices of one image in order and say what is wrong with it.

    ``same_pixels`` compares the stored pixels of two slices, and is only asked about slices at one position.
    ``whole``: the slices are all that their series holds, so that a number of images promised by the headers counts.
    """
    first = slices[0]
    if first.header.modality != "MR":
        problem = f"is {first.header.modality or 'of no stated modality'}, not MR"
        return Stack(tuple(slices), replace(first.header, slices=len(slices)), (problem,), None)
    fatal = _fatal(slices)
    problems = [*fatal, *_remarks(slices)]
    if whole and len(slices) < first.promised:
        problems.append(f"the header promises {first.promised} images, {len(slices)} are here")
    header = replace(
        first.header, slices=len(slices), time=min((one.header.time for one in slices if one.header.time), default="")
    )
    geometry = None
    if len(_by_direction(slices)) == 1 and all(
        one.position and one.directions and one.pixel_spacing for one in slices
    ):
        kept, repeats, doubt = _without_copies(_ordered(slices), same_pixels)
        geometry, uneven = _geometry(kept)
        problems += repeats + uneven
        header = _measured(header, kept)
        if doubt:
            geometry = None
        else:
            slices = kept
    return Stack(tuple(slices), header, tuple(dict.fromkeys(problems)), None if fatal else geometry)


# --- which slices are one image ----------------------------------------------------------------------------------


def _content(one: Slice) -> tuple[object, ...]:
    """An order that does not depend on files."""
    return (one.instance, one.sop_uid, one.frame, one.position or (), repr(one.header))


def _kind(one: Slice) -> tuple[object, ...]:
    spacing = tuple(round(side, 3) for side in one.pixel_spacing or ())
    head = one.header
    return (
        head.modality, head.rows, head.columns, one.samples, one.bits, one.signed, spacing, head.image_type,
        one.component, one.position is None,
    )  # fmt: skip


def _echo(one: Slice) -> float:
    return _rounded(one.header.echo_ms, 2)


def _b_value(one: Slice) -> float:
    return _rounded(one.header.b_value, 0)


def _temporal(one: Slice) -> float:
    return one.temporal


def _acquisition(one: Slice) -> float:
    return one.acquisition


def _rounded(value: float, digits: int) -> float:
    return round(value, digits) if math.isfinite(value) else -1.0


def _by(slices: Iterable[Slice], key: Callable[[Slice], object]) -> list[list[Slice]]:
    groups: dict[object, list[Slice]] = {}
    for one in slices:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def _by_direction(slices: Sequence[Slice]) -> list[list[Slice]]:
    groups: list[list[Slice]] = []
    for one in slices:
        for group in groups:
            first = group[0].directions
            if first is one.directions or (
                first
                and one.directions
                and all(abs(a - b) <= SAME_DIRECTION for a, b in zip(first, one.directions, strict=True))
            ):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _parted(slices: list[Slice], key: Callable[[Slice], float]) -> list[list[Slice]]:
    """The slices by ``key`` where that makes positions repeat less often; else as they are."""
    if any(one.position is None or one.directions is None for one in slices):
        return [slices]
    before = _positions(slices)
    if len(before) == len(slices):
        return [slices]
    values = sorted({key(one) for one in slices})
    if not 1 < len(values) <= MOST_PHASES:
        return [slices]
    parts = [[one for one in slices if key(one) == value] for value in values]
    most = max(map(len, before))
    after = [_positions(part) for part in parts]
    fewer = all(max(map(len, positions)) < most for positions in after)
    covering = all(2 * len(positions) >= len(before) for positions in after)
    return parts if fewer and covering else [slices]


def _positions(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices at each position, in the order of the stack."""
    groups: list[list[Slice]] = []
    last = -math.inf
    for height, one in _ordered(slices):
        if height - last <= SAME_POSITION_MM:
            groups[-1].append(one)
        else:
            groups.append([one])
            last = height
    return groups


def _ordered(slices: Sequence[Slice]) -> list[tuple[float, Slice]]:
    """With the height of each along the normal of the first, lowest first."""
    normal = _axes(slices[0])[:, 2]
    heights = [float(normal @ np.asarray(one.position)) for one in slices]
    return sorted(zip(heights, slices, strict=True), key=lambda pair: (pair[0], _content(pair[1])))


def _axes(one: Slice) -> npt.NDArray[np.float64]:
    """Columns: unit vectors to the next column, the next row, and along the normal."""
    directions = np.asarray(one.directions, dtype=float)
    row, column = directions[:3], directions[3:]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return np.stack([row, np.cross(normal, row), normal], axis=1)  # at right angles, whatever the header's rounding


# --- what is wrong -----------------------------------------------------------------------------------------------


def _fatal(slices: Sequence[Slice]) -> list[str]:
    """Why it can be no volume, as far as single slices tell."""
    first = slices[0]
    found = []
    if faulty := [one for one in slices if one.fault]:
        where = "the file" if len(slices) == 1 or first.frames > 1 else f"{len(faulty)} of {len(slices)} files"
        found.append(f"{where}: {faulty[0].fault}; copy the series again")
    meanings = {one.photometric for one in slices}
    if first.samples > 1 or any("COLOR" in meaning or meaning[:3] in ("RGB", "YBR") for meaning in meanings):
        found.append("is in colour (a capture of a screen or an overlay), not an image of the scanner")
    elif "MONOCHROME1" in meanings:
        found.append("its grey values are inverted (MONOCHROME1)")
    if bits := {one.bits for one in slices} - {8, 16, 32}:
        found.append(f"BitsAllocated is {', '.join(map(str, sorted(bits)))}, which is none of 8, 16, 32")
    if odd := [one for one in slices if not (one.slope > 0 and math.isfinite(one.intercept))]:
        found.append(
            f"RescaleSlope {odd[0].slope:g} with RescaleIntercept {odd[0].intercept:g} in {len(odd)} of "
            f"{len(slices)} slices: its grey values are lost"
        )
    if unknown := {one.syntax for one in slices} - DECODED:
        names = ", ".join(sorted(UID(syntax).name for syntax in unknown))
        found.append(f"is compressed in a way that no converter reads ({names}): export it uncompressed")
    if "MOSAIC" in first.header.image_type:
        found.append("is a mosaic (functional or diffusion imaging)")
    if missing := sum(one.position is None or one.directions is None for one in slices):
        found.append(
            f"{missing} of {len(slices)} slices have no position or no orientation (ImagePositionPatient, "
            "ImageOrientationPatient)"
        )
    if missing := sum(one.pixel_spacing is None for one in slices):
        found.append(f"{missing} of {len(slices)} slices have no PixelSpacing")
    if (kinds := len(_by(slices, _kind))) > 1:
        found.append(f"its {len(slices)} slices are of {kinds} kinds: they are no stack")
    elif (directions := len(_by_direction(slices))) > 1:
        found.append(f"its {len(slices)} slices lie in {directions} directions: they are no stack")
    elif len(slices) < FEWEST:
        found.append(f"holds {_slices(len(slices))} only")
    return found


def _remarks(slices: Sequence[Slice]) -> list[str]:
    """What makes it doubtful as an anatomical image, though it may be a volume."""
    found = []
    heads = {one.header for one in slices}
    if any(
        "LOCALIZER" in head.image_type or LOCALISER.search(f"{head.description} {head.protocol}") for head in heads
    ):
        found.append("is a localiser")
    if any(one.sop_class.startswith(SECONDARY_CAPTURE) for one in slices):
        found.append("is a secondary capture")
    values = {value for one in slices for value in [*one.header.image_type.split("\\")[2:], one.component]}
    return found + [f"is {what}" for value, what in DERIVED.items() if value in values]


def _without_copies(
    ordered: Sequence[tuple[float, Slice]], same_pixels: Callable[[Slice, Slice], bool]
) -> tuple[list[Slice], list[str], bool]:
    """One slice per position, what was found, and whether a position holds different slices."""
    positions = _positions([one for _, one in ordered])
    repeated = [group for group in positions if len(group) > 1]
    if not repeated:
        return [one for _, one in ordered], [], False
    counts = {len(group) for group in positions}
    different = next((g for g in repeated if not all(same_pixels(g[0], other) for other in g[1:])), None)
    if different is None:
        copies = len(ordered) - len(positions)
        text = f"{_slices(copies)} stored twice, with identical pixels: one of each is taken"
        return [group[0] for group in positions], [text], False
    if len(counts) == 1:
        text = f"each of its {len(positions)} positions holds {counts.pop()} different slices: several images in one"
    else:
        text = (
            f"{len(repeated)} of its {len(positions)} positions hold several slices with "
            f"different pixels (the first is slice {positions.index(different) + 1})"
        )
    return [group[0] for group in positions], [text], True


def _geometry(slices: Sequence[Slice]) -> tuple[Geometry | None, list[str]]:
    """The even grid of slices in order, and what is remarkable; no grid where it is not even."""
    if len(slices) < FEWEST:
        return None, []
    first = slices[0]
    places = np.array([one.position for one in slices])
    axes = _axes(first)
    heights = places @ axes[:, 2]
    steps = np.diff(heights)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    if uneven := _gaps(steps, usual):
        return None, [uneven]
    step = (places[-1] - places[0]) / (len(places) - 1)
    even = places[0] + np.arange(len(places))[:, None] * step
    if (apart := float(np.linalg.norm(places - even, axis=1).max())) > max(UNEQUAL * usual, SAME_POSITION_MM):
        return None, [f"its slices are shifted against each other by up to {apart:.2g} mm: they are no straight stack"]
    length = float(np.linalg.norm(step))
    along = float(step @ axes[:, 2])
    aside = math.sqrt(max(0.0, length**2 - along**2))
    lean = math.degrees(math.atan2(aside, along))
    if aside * (len(places) - 1) > STRAIGHT_MM:
        axes[:, 2] = step / length
    column, row = first.pixel_spacing[1], first.pixel_spacing[0]  # type: ignore[index]
    size = (first.header.columns, first.header.rows, len(slices))
    geometry = Geometry(size, places[0], axes, np.array([column, row, length]))
    found = []
    if lean > LEAN_DEG and aside * (len(places) - 1) > LEAN_MM:
        found.append(f"its stack leans by {lean:.1f} degrees (gantry tilt)")
    every = usual / first.between_mm if first.between_mm > 0 else math.nan
    gap_only = abs(first.header.thickness_mm + first.between_mm - usual) < 0.01 * usual
    if every > 1.5 and abs(every - round(every)) < 0.01 and not gap_only:
        found.append(
            f"its slices are {usual:.4g} mm apart, its header says {first.between_mm:.4g} mm: only one in "
            f"{round(every)} may be here"
        )
    return geometry, found


def _gaps(steps: npt.NDArray[np.float64], usual: float) -> str:
    """What is uneven about the distances between slices, or ""."""
    off = np.abs(steps - usual) > max(2 * UNEQUAL * usual, SAME_POSITION_MM)
    if not off.any():
        return ""
    multiples = np.rint(steps / usual)
    if np.allclose(steps, multiples * usual, rtol=0.02, atol=2 * UNEQUAL * usual) and (multiples[off] > 1).all():
        lost = int((multiples - 1).sum())
        at = int(np.flatnonzero(off)[0])
        more = f", and at {off.sum() - 1} more places" if off.sum() > 1 else ""
        return (
            f"{_slices(lost)} missing: a gap of {steps[at]:.4g} mm between slices {at + 1} and {at + 2}{more}, the "
            f"others are {usual:.4g} mm apart"
        )
    return f"its slices are not evenly spaced: from {steps.min():.4g} to {steps.max():.4g} mm apart"


def _slices(count: int) -> str:
    return f"{count} slice{'s' if count != 1 else ''}"


def _measured(header: Header, slices: Sequence[Slice]) -> Header:
    first = slices[0]
    axes = _axes(first)
    heights = np.array([one.position for one in slices]) @ axes[:, 2]
    step = float(np.median(np.diff(heights))) if len(heights) > 1 else math.nan
    leading = int(np.abs(axes[:, 2]).argmax())
    plane = ("sagittal", "coronal", "axial")[leading] if abs(axes[leading, 2]) >= PLANE_COSINE else "oblique"
    row, column = first.pixel_spacing or (math.nan, math.nan)
    return replace(header, slices=len(slices), plane=plane, spacing_mm=(column, row, step))
