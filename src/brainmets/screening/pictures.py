"""A screened scan's pictures for its page: each lesion in three planes, and where all of them lie.

Planes are those of the source t1c's own grid, turned to the nearest of axial, coronal and sagittal: what the scanner
measured is shown, and a tilted series is not cut anew. Lengths are true along both axes of a picture, however thick
the slices are. As radiologists read them: the patient's right on the left, the front of a sagittal picture too.

A picture is a JPEG of the grey values, and what is drawn over it in its pixels as SVG: sharp in print, and hidden by
one switch on the page.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, NamedTuple

import contourpy
import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from brainmets import nifti
from brainmets.paths import ScreeningPaths
from brainmets.preparation import brain, grids, registration
from brainmets.preparation.pipeline import TEMPLATE

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Volume = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]

FIELDS_MM = (64.0, 96.0, 140.0, 220.0)
"""Widths of a lesion's pictures: the first for nearly all, so that sizes can be compared by eye."""
LARGE, SMALL = 256, 128
"""Pixels across a lesion's and a candidate's picture."""
BAR_MM = 10.0
OVERVIEW = 300
"""Pixels across the widest picture of the overview."""
JPEG_QUALITY = 88
UPRIGHT_DEG = 2.0
"""A plane that leans by more says so."""


class Plane(NamedTuple):
    """A plane through the volume: the axis across it, those along the picture, and the letters at its four sides."""

    name: str
    axis: int
    across: int
    up: int
    left: str
    right: str
    top: str
    bottom: str


PLANES = (
    Plane("axial", 2, 0, 1, "R", "L", "A", "P"),
    Plane("coronal", 1, 0, 2, "R", "L", "S", "I"),
    Plane("sagittal", 0, 1, 2, "A", "P", "S", "I"),
)


class Mark(NamedTuple):
    """An SVG path over a picture; ``kind`` is its class: accepted, candidate, other, cross, longest, perpendicular."""

    kind: str
    path: str


class Word(NamedTuple):
    """A short text in a picture, its middle at ``x``, ``y``, and where a line to it starts."""

    kind: str
    text: str
    x: float
    y: float
    start: tuple[float, float] | None = None


@dataclass(frozen=True)
class Picture:
    """One picture: its pixels as a data URI and what is drawn over them; ``bar`` is 10 mm in pixels."""

    plane: Plane
    uri: str
    width: int
    height: int
    bar: float
    marks: tuple[Mark, ...]
    words: tuple[Word, ...] = ()
    field_mm: float = 0.0


@dataclass(frozen=True)
class Scan:
    """The source t1c and the numbered candidates, axes along R, A and S (turned, not resampled).

    ``image`` and ``numbers`` are (x, y, z); ``inside``: the brain as the preparation found it, of the same shape, or
    None where the folder says nothing of it; ``affine``: voxel to mm, RAS+.
    """

    image: Volume
    numbers: npt.NDArray[np.uint16]
    inside: Mask | None
    affine: Floats

    @cached_property
    def spacing(self) -> Floats:
        """Voxel sides in mm."""
        return np.asarray(nib.affines.voxel_sizes(self.affine), dtype=np.float64)

    @cached_property
    def lean_deg(self) -> float:
        """The largest angle between an axis of the grid and the direction that it is named after."""
        along = np.diag(self.affine[:3, :3] / self.spacing)
        return float(np.degrees(np.arccos(np.clip(along.min(), -1, 1))))

    @cached_property
    def grey(self) -> tuple[float, float]:
        """What is drawn black and white: of the brain's voxels where it is known, else of all that is not 0."""
        seen = self.image[self.inside] if self.inside is not None and self.inside.any() else self.image
        seen = seen[np.isfinite(seen) & (seen != 0)]
        if not seen.size:
            return 0.0, 1.0
        low, high = (float(value) for value in np.percentile(seen, (0.5, 99.8)))
        return min(low, 0.0) if low < 0 else 0.0, high if high > low else low + 1.0

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """The box around each number's voxels."""
        found = ndimage.find_objects(self.numbers.astype(np.int32))
        return {n: (box[0], box[1], box[2]) for n, box in enumerate(found, start=1) if box is not None}

    def mask(self, number: int) -> Mask:
        """The voxels of a number within its box."""
        return np.asarray(self.numbers[self.boxes[number]] == number)

    def centre(self, number: int) -> Floats:
        """The mean voxel of a number."""
        low = [part.start for part in self.boxes[number]]
        return np.argwhere(self.mask(number)).mean(axis=0) + low


def read_scan(files: ScreeningPaths) -> Scan:
    """The images of a screened scan. Raises ``nifti.ImageError`` for a file that cannot be read or fits no other."""
    image, grid = nifti.read_volume(files.t1c)
    numbers, other = nifti.read_volume(files.numbers)
    other.require_same(grid, "screen the patient again (brainmets screen)")
    inside = _brain(files, grid)
    values = image.astype(np.float32, copy=False)
    values[~np.isfinite(values)] = 0
    turned, affine = nifti.to_ras(values, grid.affine)
    return Scan(
        turned,
        nifti.to_ras(numbers.astype(np.uint16), grid.affine)[0],
        None if inside is None else nifti.to_ras(inside, grid.affine)[0],
        affine,
    )


def cut(volume: npt.NDArray[Any], axis: int, at: int) -> npt.NDArray[Any]:
    """One slice as a view: ``take`` would copy a volume that was turned as a whole."""
    return volume[(*(slice(None),) * axis, at)]


def span(mask: Mask) -> tuple[Floats, Floats]:
    """First and last-plus-one index of a mask along each axis; all of an empty one."""
    if not mask.any():
        return np.zeros(3), np.array(mask.shape, float)
    ranges = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    return np.array([line[0] for line in ranges], float), np.array([line[-1] + 1 for line in ranges], float)


def _brain(files: ScreeningPaths, grid: nifti.Grid) -> Mask | None:
    """The prepared case's brain mask on the source t1c's grid."""
    path = files.prepared / "brain_mask.nii.gz"
    if not path.is_file():
        return None
    mask, own = nifti.read_volume(path)
    if own.same(grid):
        return np.asarray(mask > 0)
    found = registration.read_transforms(files.prepared)
    way = registration.inverse(found[TEMPLATE]) if TEMPLATE in found else registration.sitk.Euler3DTransform()
    source = grids.image_of(np.zeros(grid.shape, np.uint8), grid.affine)
    carried = brain.carried(grids.image_of((mask > 0).astype(np.uint8), own.affine), way, source)
    return np.asarray(registration.sitk.GetArrayViewFromImage(carried)).T > 0


# --- one lesion ------------------------------------------------------------------------------------------------------


def lesion(
    scan: Scan,
    number: int,
    kind: str,
    pixels: int = LARGE,
    at: int | None = None,
    diameters: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> list[Picture]:
    """A numbered lesion in three planes through its middle: axial, coronal, sagittal.

    ``kind``: "accepted" or "candidate", how its outline is drawn. ``at``: the axial slice (index along S) to show
    instead of the one with most of it. ``diameters``: "longest" and "perpendicular", each its two ends in mm (RAS+),
    drawn on the axial picture.
    """
    box, mask, centre = scan.boxes[number], scan.mask(number), scan.centre(number)
    reach = max(float(part.stop - part.start) * side for part, side in zip(box, scan.spacing, strict=True))
    field = next((width for width in FIELDS_MM if width >= 1.5 * reach + 16), reach * 1.4)
    slices = np.rint(centre).astype(int)
    areas = np.count_nonzero(mask, axis=(0, 1))
    slices[2] = at if at is not None else box[2].start + int(areas.argmax())
    for axis in (0, 1):  # through voxels of the lesion also where it is bent
        others = tuple(other for other in range(3) if other != axis)
        counts = np.count_nonzero(mask, axis=others)
        if not counts[slices[axis] - box[axis].start]:
            slices[axis] = box[axis].start + int(counts.argmax())
    pictures = []
    for plane in PLANES:
        view = _View(scan, plane, centre, field / pixels, pixels, pixels)
        gap = (max(box[axis].stop - box[axis].start for axis in (plane.across, plane.up)) + 1) / 2
        marks = [Mark("cross", view.cross(gap))]
        marks += [Mark("other", path) for path in _neighbours(scan, view, number, int(slices[plane.axis]))]
        own = cut(mask, plane.axis, int(slices[plane.axis]) - box[plane.axis].start)
        marks.append(Mark(kind, view.outline(own, box)))
        if plane.name == "axial" and diameters:
            marks += [Mark(name, view.line(ends)) for name, ends in diameters.items()]
        picture = view.section(int(slices[plane.axis]))
        pictures.append(
            Picture(plane, _jpeg(picture), pixels, pixels, BAR_MM / view.mm, tuple(marks), (), field)
        )  # fmt: skip
    return pictures


def _neighbours(scan: Scan, view: _View, number: int, at: int) -> Iterable[str]:
    """Outlines of the other lesions that the same picture shows."""
    for other, box in scan.boxes.items():
        along = box[view.plane.axis]
        if other != number and along.start <= at < along.stop and view.shows(box):
            yield view.outline(cut(scan.mask(other), view.plane.axis, at - along.start), box)


class _View:
    """A plane of a scan in pixels: ``centre`` (voxels) in the middle, ``mm`` a pixel."""

    def __init__(self, scan: Scan, plane: Plane, centre: Floats, mm: float, width: int, height: int) -> None:
        self.scan, self.plane, self.mm, self.width, self.height = scan, plane, mm, width, height
        self._centre = (float(centre[plane.across]), float(centre[plane.up]))
        self._side = (float(scan.spacing[plane.across]), float(scan.spacing[plane.up]))

    def place(self, across: npt.ArrayLike, up: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Voxel coordinates along the picture's axes in its pixels."""
        x = self.width / 2 + (self._centre[0] - np.asarray(across, float)) * self._side[0] / self.mm
        y = self.height / 2 + (self._centre[1] - np.asarray(up, float)) * self._side[1] / self.mm
        return x, y

    def shows(self, box: Box) -> bool:
        """Whether any of a box lies in the picture."""
        x, y = self.place(*([box[axis].start, box[axis].stop - 1] for axis in (self.plane.across, self.plane.up)))
        return bool(x.max() >= 0 and x.min() <= self.width and y.max() >= 0 and y.min() <= self.height)

    def section(self, at: int) -> npt.NDArray[np.uint8]:
        """Grey values (height, width) of the slice ``at``."""
        inside = min(max(at, 0), self.scan.image.shape[self.plane.axis] - 1)
        return self.grey(cut(self.scan.image, self.plane.axis, inside))

    def grey(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
        """Values (across, up) as grey pixels, black beyond the scan."""
        low, high = self.scan.grey
        x, y = np.arange(self.width) + 0.5, np.arange(self.height) + 0.5
        across = self._centre[0] - (x - self.width / 2) * self.mm / self._side[0]
        up = self._centre[1] - (y - self.height / 2) * self.mm / self._side[1]
        seen = ndimage.map_coordinates(values, np.meshgrid(across, up), order=1, cval=low, output=np.float32)
        return np.asarray(np.clip(np.rint((seen - low) * (255 / (high - low))), 0, 255), dtype=np.uint8)

    def outline(self, mask: Mask, box: Box) -> str:
        """The outline of a mask (across, up) that lies at ``box``, through the middle between two voxels."""
        padded = np.pad(mask, 1).astype(np.float32)
        lines = contourpy.contour_generator(z=padded).lines(0.5)
        parts = []
        for line in lines:
            assert isinstance(line, np.ndarray)
            x, y = self.place(
                line[:, 1] - 1 + box[self.plane.across].start, line[:, 0] - 1 + box[self.plane.up].start
            )  # fmt: skip
            parts.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[:-1], y[:-1], strict=True)) + "Z")
        return "".join(parts)

    def line(self, ends_mm: Sequence[Sequence[float]]) -> str:
        """A line between two places in mm."""
        voxels = nib.affines.apply_affine(np.linalg.inv(self.scan.affine), np.asarray(ends_mm, float))
        x, y = self.place(voxels[:, self.plane.across], voxels[:, self.plane.up])
        return f"M{x[0]:.1f} {y[0]:.1f}L{x[1]:.1f} {y[1]:.1f}"

    def cross(self, gap_voxels: float) -> str:
        """A crosshair that leaves the lesion itself open."""
        x, y = self.width / 2, self.height / 2
        gap = min(gap_voxels * max(self._side) / self.mm + 6, 0.42 * self.width)
        level = f"M0 {y:g}H{x - gap:.1f}M{x + gap:.1f} {y:g}H{self.width}"
        return f"{level}M{x:g} 0V{y - gap:.1f}M{x:g} {y + gap:.1f}V{self.height}"


# --- all lesions -----------------------------------------------------------------------------------------------------


def overview(scan: Scan, accepted: Iterable[int]) -> list[Picture]:
    """The brightest voxel along each axis, within the brain where it is known, and every lesion with its number.

    All three pictures are to one scale.
    """
    chosen = set(accepted)
    seen = scan.inside if scan.inside is not None and scan.inside.any() else scan.image != 0
    shown = np.where(seen, scan.image, np.float32(scan.grey[0])) if scan.inside is not None else scan.image
    low, high = span(seen)
    for box in scan.boxes.values():  # a candidate may lie beyond the brain mask
        low = np.minimum(low, [part.start for part in box])
        high = np.maximum(high, [part.stop for part in box])
    extent = (high - low) * scan.spacing + 8
    mm = float(extent.max()) / OVERVIEW
    pictures = []
    for plane in PLANES:
        width, height = (math.ceil(extent[axis] / mm) for axis in (plane.across, plane.up))
        view = _View(scan, plane, (low + high - 1) / 2, mm, width, height)
        marks, anchors = [], []
        for number, box in sorted(scan.boxes.items(), key=lambda entry: entry[0] in chosen):
            path = view.outline(np.asarray(scan.mask(number).any(axis=plane.axis)), box)
            marks.append(Mark("accepted" if number in chosen else "candidate", path))
            middle = scan.centre(number)
            x, y = view.place(middle[plane.across], middle[plane.up])
            radius = max((box[axis].stop - box[axis].start) * scan.spacing[axis] for axis in (plane.across, plane.up))
            anchors.append((number, float(x), float(y), float(radius) / 2 / mm))
        words = _placed(anchors[::-1], chosen, width, height)
        brightest = view.grey(shown.max(axis=plane.axis))
        pictures.append(Picture(plane, _jpeg(brightest), width, height, BAR_MM / mm, tuple(marks), tuple(words)))
    return pictures


def _placed(
    anchors: Sequence[tuple[int, float, float, float]], accepted: set[int], width: int, height: int
) -> list[Word]:
    """Each number beside its lesion, where no earlier one and no letter stands; further off where it is crowded."""
    taken: list[tuple[float, float, float, float]] = [
        (0, height / 2 - 9, 16, height / 2 + 9), (width - 16, height / 2 - 9, width, height / 2 + 9),
        (width / 2 - 9, 0, width / 2 + 9, 17), (width / 2 - 9, height - 19, width / 2 + 9, height),
        (0, height - 32, 64, height),
    ]  # fmt: skip
    words = []
    for number, x, y, radius in anchors:
        half = (3.4 * len(str(number)) + 2, 6.5)
        best = (math.inf, x, y)
        for step, turn in ((step, turn) for step in range(7) for turn in range(16)):
            away = radius + 7 + 9 * step
            angle = -math.pi / 4 + turn * math.pi / 8
            px = min(max(x + away * math.cos(angle), half[0] + 1), width - half[0] - 1)
            py = min(max(y + away * math.sin(angle), half[1] + 1), height - half[1] - 1)
            covered = sum(
                max(0.0, min(px + half[0], b[2]) - max(px - half[0], b[0]))
                * max(0.0, min(py + half[1], b[3]) - max(py - half[1], b[1]))
                for b in taken
            )
            if covered < best[0]:
                best = (covered, px, py)
            if covered == 0:
                break
        _, px, py = best
        taken.append((px - half[0], py - half[1], px + half[0], py + half[1]))
        kind = "accepted" if number in accepted else "candidate"
        words.append(Word(kind, str(number), px, py, (x, y)))
    return words


def _jpeg(grey: npt.NDArray[Any]) -> str:
    written = BytesIO()
    Image.fromarray(grey).save(written, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
