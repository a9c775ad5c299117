"""NIfTI images and label maps: the one reader, the one writer, and the one rule for "the same grid".

Arrays keep the file's axes (i, j, k) and its memory order. An affine (4x4) takes voxel indices to mm in RAS+: x to the
patient's right, y to the front, z to the top. Two grids are the same when their shapes are equal and no corner of one
lies further than ``GRID_TOLERANCE_MM`` from its partner.

A file is read once, to its last byte: nibabel, like most readers, stops where the voxels end, before the checksum that
tells a damaged gzip stream from a whole one. A header is refused where it contradicts itself (``read_grid``), since
every program would then take another of its statements for true.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets.files import replacing
from brainmets.vocabulary import CONVERT, LABELS, NIFTI_SUFFIXES

Affine = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]
"""Voxel sides in mm, in the order of the axes."""

SUFFIXES = NIFTI_SUFFIXES
GRID_TOLERANCE_MM = 0.01
"""Above any writer's rounding, below any shift that matters."""

SIDES_MM = (0.05, 50.0)
"""Voxel sides that a scan of a head can have, generously; a header in metres or micrometres lies outside."""
SHEAR_DEG = 0.1
"""How far the angle between two axes may be from 90 degrees. Rounding of an oblique affine to four digits gives 0.01;
the sides alone, without the angles, would give wrong distances and volumes."""
FLAT = 0.1
"""Least volume that the affine's three axes, each of length 1, must span."""
FORMS_TOLERANCE_MM = 1.0
"""Between a corner by the header's sform and by its qform. A qform keeps a rotation as a rounded quaternion, which
moves the corner of a head by up to 0.2 mm."""
LARGEST_BYTES = 4 * 2**30
"""Voxels that are decoded: no scan of a head is larger (512 x 512 x 512 voxels of 8 bytes are 1 GiB)."""
DENSEST = 1040
"""Bytes that one byte of a gzip file can stand for: deflate writes at best 258 bytes in two bits."""
PIECE = 2**18
"""Bytes that are inflated at a time, whatever a stream would inflate to; a piece stays in the processor's cache."""


class ImageError(ValueError):
    """A file that is no image, or not one that can be used.

    ``problem`` is the message without the file's path; ``rule`` is the name of the rule that the file breaks, as
    ``cohorts.rules`` lists them.
    """

    def __init__(self, path: Path, problem: str, rule: str = "unreadable") -> None:
        super().__init__(f"{path}: {problem}")
        self.problem = problem
        self.rule = rule

    def __reduce__(self) -> tuple[Any, ...]:  # an exception of several arguments does not cross processes by itself
        return _image_error, (str(self), self.problem, self.rule)


def _image_error(message: str, problem: str, rule: str) -> ImageError:
    error = ImageError(Path(), problem, rule)
    error.args = (message,)
    return error


@dataclass(frozen=True)
class Grid:
    """Shape, affine and voxel sides of one 3D file; ``oriented``: whether its header says where the axes point."""

    path: Path
    shape: tuple[int, int, int]
    affine: Affine
    spacing: Spacing
    oriented: bool = True

    @property
    def orientation(self) -> str:
        """Where the three axes point, such as "RAS" or "LPS" (the nearest directions)."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing))

    def to_ras(self) -> Grid:
        """The grid of the volume that ``nifti.to_ras`` gives."""
        turn = nib.io_orientation(self.affine)
        axes = np.argsort(turn[:, 0])
        x, y, z = (int(axis) for axis in axes)
        affine = self.affine @ nib.orientations.inv_ornt_aff(turn, self.shape)
        shape, spacing = self.shape, self.spacing
        turned = (shape[x], shape[y], shape[z])
        return Grid(self.path, turned, affine, (spacing[x], spacing[y], spacing[z]), self.oriented)

    def distance_mm(self, other: Grid) -> float:
        """The largest distance between the same corner of both grids; infinite where the shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        corners = np.array(list(product(*((0, size) for size in self.shape))), dtype=float)
        apart = nib.affines.apply_affine(self.affine, corners) - nib.affines.apply_affine(other.affine, corners)
        return float(np.linalg.norm(apart, axis=1).max())

    def same(self, other: Grid) -> bool:
        """Whether both are one grid by the rule of this module."""
        return self.distance_mm(other) <= GRID_TOLERANCE_MM

    def require_same(self, other: Grid, remedy: str) -> None:
        """Raise ``ImageError`` that shows both grids and says what to do, unless they are one."""
        if not self.same(other):
            raise ImageError(
                self.path,
                f"lies on another grid than {other.path.name}; {remedy}\n"
                f"  {self.path.name}: {self.describe()}\n  {other.path.name}: {other.describe()}",
            )

    def describe(self) -> str:
        """Shape and affine in one line."""
        rows = "; ".join(_numbers(row) for row in self.affine[:3])
        return f"shape {self.shape}, affine [{rows}]"


def read_grid(path: Path) -> Grid:
    """The grid from the file's header alone.

    Raises ``ImageError`` for a file that is no single 3D NIfTI volume, and for a header that contradicts itself or
    gives no geometry: voxel sides that are not finite, not positive or outside ``SIDES_MM``; other sides than the
    affine's; an affine that is not finite, spans no volume, or whose axes are not at right angles (``SHEAR_DEG``;
    oblique ones are right); an sform and a qform that part by more than ``FORMS_TOLERANCE_MM``.
    """
    with _opened(path) as file:
        return _grid(path, file.header, prepared=True)


def read_scan_grid(path: Path) -> Grid:
    """The grid of an image as it comes from a scanner, from the file's header alone.

    Raises ``ImageError`` as ``read_grid`` does, but for axes that are not at right angles (a tilted gantry), and for a
    header that says no orientation (sform and qform code both 0).
    """
    with _opened(path) as file:
        grid = _grid(path, file.header, prepared=False)
    if not grid.oriented:
        raise ImageError(
            path,
            "says no orientation: left and right cannot be told apart; export it again from the DICOM files",
            "no orientation",
        )
    return grid


def read_volume(path: Path) -> tuple[npt.NDArray[Any], Grid]:
    """The voxels (3D, scaled as the header says, of the type that this gives) and their grid.

    The file is read to its end. Raises ``ImageError`` as ``read_grid`` does, and for a file that is truncated, whose
    checksum does not fit, or that holds more than its header says.
    """
    with _opened(path) as file:
        grid = _grid(path, file.header, prepared=True)
        return file.voxels(), grid


def read_scan(path: Path) -> tuple[npt.NDArray[Any], Grid]:
    """As ``read_volume``, of an image as it comes from a scanner, whose axes may not be at right angles."""
    with _opened(path) as file:
        grid = _grid(path, file.header, prepared=False)
        return file.voxels(), grid


class Channels(NamedTuple):
    """The voxels (x, y, z, channel) of a 4D file as they are stored, the header's scaling of them, and their grid."""

    stored: npt.NDArray[Any]
    slope: float
    inter: float
    grid: Grid


def read_channels(path: Path) -> Channels:
    """The volumes of a 4D file, not scaled: of a large file, a caller takes one at a time.

    Raises ``ImageError`` as ``read_volume`` does, the volumes' common geometry being held to the same rule, and for a
    file that is not 4D.
    """
    with _opened(path) as file:
        shape = file.header.get_data_shape()
        if len(shape) != 4 or not all(side > 0 for side in shape):
            raise ImageError(path, f"must be 4D (x, y, z, channel), its shape is {tuple(shape)}", "dimensions")
        of_one = file.header.copy()
        of_one.set_data_shape(shape[:3])
        grid = _grid(path, of_one, prepared=True)
        slope, inter = file.header.get_slope_inter()
        return Channels(file.stored(), 1.0 if slope is None else slope, inter or 0.0, grid)


def read_labels(path: Path, label_map: Mapping[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """A label map in BraTS labels (3D, ``uint8``).

    ``label_map`` takes the file's values to BraTS values (0 stays 0); without it the file holds BraTS values. Raises
    ``ImageError`` as ``read_volume`` does, and for values that are not whole numbers or that ``label_map`` does not
    name: nothing is rounded.
    """
    return as_labels(read_volume(path)[0], path, label_map)


def as_labels(
    voxels: npt.NDArray[Any], path: Path, label_map: Mapping[int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """What ``read_labels`` gives, of the voxels that ``read_volume`` has read from ``path``."""
    known = {0: 0, **label_map} if label_map is not None else {value: value for value in LABELS.values()}
    labels = _whole_numbers(voxels, path)
    present = np.flatnonzero(_present(labels)) if labels.dtype == np.uint8 else np.unique(labels)
    if unknown := [int(value) for value in present if int(value) not in known]:
        raise ImageError(
            path,
            f"unknown label value(s) {', '.join(map(str, unknown))}; known are {', '.join(map(str, sorted(known)))}: "
            "correct the file, or name them in label_map (on the command line --label-map), as background where they "
            "are to be ignored",
            "unknown label",
        )
    if labels.dtype == np.uint8 and all(known[int(value)] == value for value in present):
        return labels
    mapped = np.zeros_like(labels, dtype=np.uint8)
    for value in present:
        if known[int(value)]:
            mapped[labels == value] = known[int(value)]
    return mapped


def labelled(labels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], ...]:
    """Where a label map is not 0: an array of indices per axis, in the order of memory.

    Looks only at 8-byte words that are not all zero: most of a label map is.
    """
    order: Literal["F", "C"] = "F" if labels.flags.f_contiguous else "C"
    flat = labels.ravel(order)
    whole = flat.size // 8 * 8
    words = np.flatnonzero(flat[:whole].view(np.uint64) != 0)
    near = np.append(8 * words[:, None] + np.arange(8), np.arange(whole, flat.size))
    return np.unravel_index(near[flat[near] != 0], labels.shape, order)


def around(places: tuple[npt.NDArray[np.intp], ...]) -> tuple[slice, ...]:
    """The box around places (an array of indices per axis), as slices; the first voxel where there are none."""
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) if axis.size else slice(0, 1) for axis in places)


def write(path: Path, voxels: npt.NDArray[Any], affine: Affine) -> Path:
    """Write a volume whole or not at all, with no header field but its type and affine."""
    with replacing(path) as aside:
        nib.save(nib.Nifti1Image(voxels, affine), aside)
    return path


def write_zeros(path: Path, like: Path) -> Path:
    """Write a volume of zeros on the grid of the image ``like``, to the last digit of its header's geometry."""
    reference: Any = nib.load(like)
    header = reference.header.copy()
    for name in ("descrip", "aux_file", "intent_name", "db_name"):  # free text, of whoever wrote the image
        header[name] = b""
    header.extensions.clear()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    with replacing(path) as aside:
        nib.save(nib.Nifti1Image(np.zeros(reference.shape, np.uint8), reference.affine, header), aside)
    return path


def write_channels(
    path: Path, channels: Iterable[npt.NDArray[np.uint16]], number: int, affine: Affine, slope: float
) -> Path:
    """Write ``number`` volumes (x, y, z) of whole numbers as one compressed 4D file, whole or not at all.

    Volume after volume is taken and compressed, at the fastest level; only one is held. A reader multiplies by
    ``slope``. Raises ``ValueError`` unless there are ``number`` volumes of one shape.
    """
    with replacing(path) as aside, aside.open("wb") as handle:
        with gzip.GzipFile("", "wb", 1, handle, mtime=0) as stream:
            written, shape = 0, None
            for volume in channels:
                if shape is None:
                    shape = volume.shape
                    like = np.broadcast_to(np.uint16(0), (*shape, number))
                    header = nib.Nifti1Image(like, affine).header.copy()
                    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, 0, 352
                    stream.write(header.binaryblock + bytes(4))
                if volume.shape != shape or volume.dtype != np.uint16:
                    raise ValueError(f"{path.name}: {volume.dtype} of shape {volume.shape} beside uint16 of {shape}")
                stream.write(np.asfortranarray(volume).T.data)
                written += 1
        if written != number:
            raise ValueError(f"{path.name}: {written} volumes instead of {number}")
    return path


def to_ras(voxels: npt.NDArray[Any], affine: Affine) -> tuple[npt.NDArray[Any], Affine]:
    """The volume with its axes along R, A and S: the nearest permutation and flips, no resampling."""
    turn = nib.io_orientation(affine)
    turned = nib.apply_orientation(voxels, turn)
    return turned, affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)


def from_ras(voxels: npt.NDArray[Any], affine: Affine) -> npt.NDArray[Any]:
    """The opposite of ``to_ras``: a volume along R, A and S in the axes of the file with this affine."""
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(affine))
    return nib.apply_orientation(voxels, turn)


# --- from bytes to voxels ----------------------------------------------------------------------------------------


class _Inflated(io.RawIOBase):
    """What a gzip file holds, its members one after the other; each one's checksum and length are verified.

    Raises ``EOFError`` where the file ends within a member, ``zlib.error`` where a member is damaged.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._fed = handle.read(PIECE)
        self._member = zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill some of ``buffer``; 0 at the end of the last member."""
        wanted = min(len(buffer), PIECE)
        while True:
            if self._member.eof and not self._next_member():
                return 0
            piece = self._member.decompress(self._fed, wanted)
            self._fed = self._member.unconsumed_tail
            if not self._fed and not self._member.eof:
                self._fed = self._handle.read(PIECE)
                if not self._fed and len(piece) < wanted:
                    raise EOFError
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)

    def _next_member(self) -> bool:
        """Zeros may follow a member; anything else is another one."""
        self._fed = self._member.unused_data.lstrip(b"\0")
        while not self._fed:
            piece = self._handle.read(PIECE)
            if not piece:
                return False
            self._fed = piece.lstrip(b"\0")
        self._member = zlib.decompressobj(wbits=31)
        return True


class _File(NamedTuple):
    """An open file whose header was read: ``seen`` bytes of ``stream``."""

    path: Path
    stream: io.RawIOBase | BinaryIO
    header: nib.Nifti1Header
    seen: int

    def voxels(self) -> npt.NDArray[Any]:
        """The voxels, scaled; the stream is read to its end."""
        values = self.stored()
        slope, inter = self.header.get_slope_inter()
        if slope is None:
            return values
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is the audit's to say
            return np.asarray(nib.volumeutils.apply_read_scaling(values, np.float64(slope), np.float64(inter)))

    def stored(self) -> npt.NDArray[Any]:
        """The voxels as they are stored; the stream is read to its end."""
        kind, shape = self.header.get_data_dtype(), self.header.get_data_shape()
        start = max(int(self.header["vox_offset"]), self.seen)
        size = start - self.seen + int(np.prod([int(side) for side in shape], dtype=object)) * kind.itemsize
        if size > LARGEST_BYTES:
            raise ImageError(
                self.path,
                f"its header, of shape {tuple(shape)}, promises {size / 2**30:.3g} GiB, and no more than "
                f"{LARGEST_BYTES / 2**30:.0f} are read: its header is damaged; copy it again",
                "too large",
            )
        if size > DENSEST * (stored := self.path.stat().st_size):
            raise ImageError(
                self.path,
                f"is truncated: its {stored} bytes cannot hold the {size} that its header promises; copy it again",
                "truncated",
            )
        held = np.empty(size, np.uint8)
        if (filled := _fill(self.stream, held.data)) < size:
            raise ImageError(
                self.path,
                f"is truncated: {filled} of the {size} bytes behind its header are there; copy it again",
                "truncated",
            )
        if _fill(self.stream, memoryview(bytearray(1))):
            raise ImageError(
                self.path, "holds more than the voxels that its header describes; write it again", "more than voxels"
            )
        values = np.ndarray(shape, kind, held.data, start - self.seen, order="F")
        return values.astype(kind.newbyteorder("="), copy=False)


def _fill(stream: io.RawIOBase | BinaryIO, view: memoryview) -> int:
    """Read until ``view`` is full or nothing is left; gives the bytes read."""
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[union-attr]
        if not count:
            break
        filled += count
    return filled


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    """The file behind its header; what goes wrong until the block ends is an ``ImageError``, or an ``OSError``.

    Want of memory is neither: it says nothing of the file.
    """
    name = path.name.lower()
    if not name.endswith(NIFTI_SUFFIXES):
        raise ImageError(path, f"is no NIfTI file ({' or '.join(NIFTI_SUFFIXES)}); {CONVERT}")
    try:
        with path.open("rb", buffering=0) as handle:
            stream = _Inflated(handle) if name.endswith(".gz") else handle
            yield _File(path, stream, *_header(path, stream))
    except (ImageError, OSError, MemoryError):
        raise
    except EOFError:
        if not path.stat().st_size:
            raise ImageError(path, "is empty (0 bytes); copy it again", "empty file") from None
        raise ImageError(
            path, "is truncated: its compressed stream ends too early; copy it again", "truncated"
        ) from None
    except zlib.error as error:
        if "header check" in str(error):
            raise ImageError(path, "cannot be read (it holds what gzip did not write); copy it again") from None
        raise ImageError(
            path, "is damaged: its voxels do not fit gzip's checksum or cannot be inflated; copy it again", "checksum"
        ) from None
    except Exception as error:  # a damaged header raises almost anything
        why = str(error).replace(str(path), path.name) or type(error).__name__
        raise ImageError(path, f"cannot be read ({why}); copy it again") from error


def _header(path: Path, stream: io.RawIOBase | BinaryIO) -> tuple[nib.Nifti1Header, int]:
    """The header as it stands in the file, nothing mended, and the bytes read."""
    start = bytearray(348)
    if not (filled := _fill(stream, memoryview(start))):
        raise ImageError(path, "is empty (0 bytes); copy it again", "empty file")
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
    if kind is nib.Nifti2Header:
        start += bytearray(540 - 348)
        filled += _fill(stream, memoryview(start)[348:])
    if start[:2] == b"\x1f\x8b":
        raise ImageError(path, "cannot be read (it is compressed: its name must end with .nii.gz); rename it")
    if not sizes & {348, 540}:
        raise ImageError(path, "cannot be read (it has no NIfTI header); copy it again")
    if filled < len(start):
        raise ImageError(path, "is truncated: it ends within its header; copy it again", "truncated")
    header = kind(bytes(start), check=False)
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise ImageError(path, f"cannot be read (it has no NIfTI header that stands in one file); {CONVERT}")
    return header, filled


def _grid(path: Path, header: nib.Nifti1Header, prepared: bool) -> Grid:
    """The one rule for geometry; of scans that are not ``prepared``, the axes may lean."""
    shape = header.get_data_shape()
    if len(shape) != 3 or not all(side > 0 for side in shape):
        raise ImageError(
            path,
            f"must be one 3D volume of three dimensions, its shape is {tuple(shape)}; give one volume of it",
            "dimensions",
        )
    if header.get_data_dtype().kind not in "iuf":
        raise ImageError(
            path,
            "its voxels are no single numbers (colour or complex); export its grey values",
            "voxel type",
        )
    x, y, z = (float(side) for side in header["pixdim"][1:4])
    if not all(SIDES_MM[0] <= side <= SIDES_MM[1] for side in (x, y, z)):
        raise ImageError(
            path,
            f"its header gives voxel sides of {_numbers((x, y, z))} mm, not between {SIDES_MM[0]:g} and "
            f"{SIDES_MM[1]:g}: no scan of a head has them; write the file again with the right sides",
            "voxel sides",
        )
    forms = _forms(path, header)
    affine = next(iter(forms.values())) if forms else np.asarray(header.get_base_affine(), dtype=np.float64)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        spanned = abs(np.linalg.det(affine[:3, :3] / sides)) if np.isfinite(affine).all() and sides.all() else 0.0
    if not spanned >= FLAT:
        raise ImageError(
            path,
            f"the axes of its affine {np.round(affine, 3).tolist()} span no volume: its header is damaged; "
            "write the file again",
            "affine",
        )
    if not np.allclose(sides, (x, y, z), rtol=1e-3):
        raise ImageError(
            path,
            f"the header gives voxel sides of {_numbers((x, y, z))} mm, its affine {_numbers(sides)} mm: distances "
            "would be wrong under one of them; write the file again with a consistent header",
            "voxel sides against affine",
        )
    grid = Grid(path, (shape[0], shape[1], shape[2]), affine, (x, y, z), bool(forms))
    lean = _lean(affine[:3, :3] / sides)
    if lean > SHEAR_DEG:
        if not prepared:
            return grid  # and a qform cannot say how the axes lean
        raise ImageError(
            path,
            f"the axes of its affine lean by {lean:.2f} degrees: it is sheared, and distances by the voxel sides "
            "would be wrong; resample it onto a grid of right angles",
            "shear",
        )
    for form in forms.values():
        other = Grid(path, grid.shape, form, grid.spacing)
        if not other.distance_mm(grid) <= FORMS_TOLERANCE_MM:
            raise ImageError(
                path,
                f"its sform ({grid.orientation}) and its qform ({_axes(form)}) put a corner "
                f"{other.distance_mm(grid):.3g} mm apart: one program follows the one, another the other; write the "
                "file again with one of them",
                "sform against qform",
            )
    return grid


def _forms(path: Path, header: nib.Nifti1Header) -> dict[str, Affine]:
    """The affines of the header whose code is not 0: sform first, which most readers prefer."""
    forms = {}
    if int(header["sform_code"]):
        forms["sform"] = np.asarray(header.get_sform(), dtype=np.float64)
    if int(header["qform_code"]):
        mended = header.copy()
        if mended["pixdim"][0] not in (-1, 1):  # 0 stands for 1
            mended["pixdim"][0] = 1
        try:
            forms["qform"] = np.asarray(mended.get_qform(), dtype=np.float64)
        except ValueError:
            raise ImageError(
                path, "its qform is no rotation: its header is damaged; write the file again", "qform"
            ) from None
    return forms


def _lean(axes: npt.NDArray[np.float64]) -> float:
    """The largest difference from a right angle between two of three unit axes (the columns), in degrees."""
    return max(
        float(np.degrees(np.arcsin(min(1.0, abs(float(axes[:, one] @ axes[:, other]))))))
        for one, other in combinations(range(3), 2)
    )


def _axes(affine: Affine) -> str:
    return "".join(str(axis) for axis in nib.aff2axcodes(affine)) if np.isfinite(affine).all() else "not finite"


def _whole_numbers(stored: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """``uint8`` wherever the values fit."""
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype.kind not in "iuf":
        raise ImageError(path, f"voxels of type {stored.dtype} are no labels", "voxel type")
    if stored.dtype.kind == "f":
        broken = stored[~np.isfinite(stored) | (stored != np.rint(stored))]
        if broken.size:
            shown = ", ".join(f"{value:g}" for value in np.unique(broken)[:5])
            problem = f"a label map must hold whole numbers, found {shown} in {broken.size} voxels"
            raise ImageError(path, f"{problem}; take the map as it was drawn, not resampled", "fractional label")
    low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
    return stored.astype(np.uint8 if low >= 0 and high <= 255 else np.int64, order="K")


def _present(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of the 256 values occur; looks only at 8-byte words that are not all zero."""
    flat = labels.ravel(order="K")
    whole = flat.size // 8 * 8
    words = flat[:whole].view(np.uint64)
    bytes_of_words = words[words != 0].view(np.uint8)
    found = np.bincount(np.concatenate([bytes_of_words, flat[whole:]]), minlength=256) > 0
    found[0] |= bool(flat.size)
    return found


def _numbers(values: npt.ArrayLike) -> str:
    return ", ".join(f"{value:.6g}" for value in np.asarray(values, dtype=float))
