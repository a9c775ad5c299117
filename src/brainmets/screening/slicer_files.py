"""Label maps that a reader saved in 3D Slicer, read safely and put onto the scan's grid.

A ``.seg.nrrd`` is one file whose header says where its voxels lie. The NRRD format lets a header point at any other
file of the machine, and a few bytes inflate to any size: both are refused, and nothing is taken that is no whole
number. Slicer may cut a segmentation to what is drawn; its box is put back to where it belongs.
"""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.nifti import GRID_TOLERANCE_MM, LARGEST_BYTES, Affine, Grid, ImageError
from brainmets.vocabulary import LABEL_TITLES, LABELS

SUFFIXES = (".seg.nrrd", *nifti.SUFFIXES)
LONGEST_HEADER = 2**20
"""Bytes; a segmentation of Slicer's has a few thousand."""
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
WHOLE = {
    "uint8": np.uint8, "unsigned char": np.uint8, "uchar": np.uint8, "uint8_t": np.uint8,
    "int8": np.int8, "signed char": np.int8, "int8_t": np.int8,
    "uint16": np.uint16, "unsigned short": np.uint16, "ushort": np.uint16, "uint16_t": np.uint16,
    "int16": np.int16, "short": np.int16, "signed short": np.int16, "int16_t": np.int16,
    "uint32": np.uint32, "unsigned int": np.uint32, "uint": np.uint32, "uint32_t": np.uint32,
    "int32": np.int32, "int": np.int32, "signed int": np.int32, "int32_t": np.int32,
}  # fmt: skip
"""NRRD's names of the whole-number types."""

Labels = npt.NDArray[np.uint8]


def read(path: Path, source: Grid) -> Labels:
    """The label map in BraTS labels on the grid ``source`` (x, y, z; uint8).

    A NIfTI file holds BraTS labels by value; a ``.seg.nrrd`` by its segments' ids or names (``et``, "Enhancing
    tumour", ...). Raises ``ImageError`` for another format, another grid, a damaged file, and a segment or a value
    that is no label.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise ImageError(path, f"is none of {', '.join(SUFFIXES)}: save the segmentation in 3D Slicer as one of them")
    if not path.is_file():
        raise ImageError(path, "is no file; name the label map that was saved")
    if name.endswith(nifti.SUFFIXES):
        voxels, grid = nifti.read_scan(path)
        grid.require_same(source, f"a reader's label map lies on the grid of {source.path.name}")
        return nifti.as_labels(voxels, path)
    return _read_nrrd(path, source)


def _read_nrrd(path: Path, source: Grid) -> Labels:
    raw, header = _opened(path)
    sizes = _sizes(path, header)
    corner = _corner(path, header, sizes, source)
    voxels = _voxels(path, header, raw, sizes)
    drawn = nifti.as_labels(voxels, path, _segments(path, header, voxels))
    whole = np.zeros(source.shape, np.uint8)
    whole[tuple(slice(low, low + size) for low, size in zip(corner, sizes, strict=True))] = drawn
    return whole


def _opened(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes behind the header, and the header."""
    if path.stat().st_size > LARGEST_BYTES:
        raise ImageError(
            path, f"has more than {LARGEST_BYTES / 2**30:.0f} GiB; no label map of a head has", "too large"
        )
    content = path.read_bytes()
    head, _, raw = (
        content.partition(b"\n\n") if b"\r\n\r\n" not in content[:LONGEST_HEADER] else content.partition(b"\r\n\r\n")
    )
    if len(head) > LONGEST_HEADER or not head.startswith(b"NRRD000"):
        raise ImageError(path, "cannot be read (it has no NRRD header); save it again in 3D Slicer")
    if re.search(rb"^data ?file\s*:", head, re.IGNORECASE | re.MULTILINE):
        raise ImageError(
            path, "points at another file for its voxels: save it as one file (.seg.nrrd) in 3D Slicer", "detached"
        )
    try:
        header = nrrd.read_header(io.BytesIO(head + b"\n\n"))
    except Exception as error:  # a damaged header raises almost anything
        raise ImageError(path, f"cannot be read ({str(error) or type(error).__name__}); save it again") from error
    return raw, dict(header)


def _sizes(path: Path, header: dict[str, Any]) -> tuple[int, int, int]:
    sizes = [int(size) for size in np.atleast_1d(header.get("sizes", []))]
    if len(sizes) == 4:
        raise ImageError(
            path,
            "holds segments that overlap, in several layers: let none overlap (Segment Editor, Masking, Modify other "
            "segments: Overwrite all), then save it again",
            "dimensions",
        )
    if len(sizes) != 3 or min(sizes) < 1:
        raise ImageError(path, f"must be one 3D label map, its sizes are {sizes}; save it again", "dimensions")
    return sizes[0], sizes[1], sizes[2]


def _corner(path: Path, header: dict[str, Any], sizes: tuple[int, int, int], source: Grid) -> tuple[int, int, int]:
    """The voxel of ``source`` at which the file's box begins."""
    affine = _affine(path, header)
    corner = np.rint(np.linalg.solve(source.affine, affine @ [0.0, 0.0, 0.0, 1.0])[:3]).astype(int)
    begun = source.affine.copy()
    begun[:3, 3] = (source.affine @ [*corner, 1])[:3]
    box = Grid(path, sizes, affine, source.spacing)
    apart = box.distance_mm(Grid(source.path, sizes, begun, source.spacing))
    if apart > GRID_TOLERANCE_MM or (corner < 0).any() or (corner + sizes > source.shape).any():
        raise ImageError(
            path,
            f"lies on another grid than {source.path.name}: in 3D Slicer choose {source.path.name} as the source "
            f"geometry of the segmentation, then save it again\n  {path.name}: {box.describe()}\n"
            f"  {source.path.name}: {source.describe()}",
        )
    return int(corner[0]), int(corner[1]), int(corner[2])


def _affine(path: Path, header: dict[str, Any]) -> Affine:
    space = str(header.get("space", "")).lower()
    turn = {"left-posterior-superior": LPS, "lps": LPS, "right-anterior-superior": np.eye(4), "ras": np.eye(4)}.get(
        space
    )
    directions, origin = np.asarray(header.get("space directions")), np.asarray(header.get("space origin"))
    if turn is None or directions.shape != (3, 3) or origin.shape != (3,):
        raise ImageError(path, "does not say where it lies (space, directions, origin); save it again in 3D Slicer")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions.astype(float).T, origin.astype(float)
    if not np.isfinite(affine).all():
        raise ImageError(path, "says of its place what is not finite; save it again in 3D Slicer", "affine")
    return np.asarray(turn @ affine)


def _voxels(path: Path, header: dict[str, Any], raw: bytes, sizes: tuple[int, int, int]) -> npt.NDArray[Any]:
    kind = WHOLE.get(str(header.get("type")))
    if kind is None:
        raise ImageError(path, f"voxels of type {header.get('type')} are no labels", "voxel type")
    stored = np.dtype(kind).newbyteorder(">" if header.get("endian") == "big" else "<")
    size = int(np.prod(sizes)) * stored.itemsize  # no more than the source's grid has
    encoding = str(header.get("encoding"))
    if encoding in ("gzip", "gz"):
        try:
            inflater = zlib.decompressobj(wbits=31)
            raw = inflater.decompress(raw, size + 1)
            if not inflater.eof and len(raw) == size:
                raw += inflater.decompress(inflater.unconsumed_tail, 1)
        except zlib.error:
            raise ImageError(path, "is damaged: its voxels cannot be inflated; save it again", "checksum") from None
        if len(raw) == size and not inflater.eof:
            raise ImageError(path, "is truncated; save it again", "truncated")
    elif encoding != "raw":
        raise ImageError(path, f"its encoding {encoding!r} is neither gzip nor raw; save it again in 3D Slicer")
    if len(raw) != size:
        what = "is truncated" if len(raw) < size else "holds more than the voxels that its header describes"
        raise ImageError(path, f"{what}; save it again", "truncated")
    voxels = np.frombuffer(raw, stored).reshape(sizes, order="F")
    return voxels.astype(stored.newbyteorder("="))


def _segments(path: Path, header: dict[str, Any], voxels: npt.NDArray[Any]) -> dict[int, int]:
    """The file's label values to BraTS labels, by the segments' ids or names; an unused segment's may be any."""
    known = {name.lower(): value for name, value in LABELS.items() if value}
    known |= {title.lower(): LABELS[name] for name, title in LABEL_TITLES.items()}
    found: dict[int, int] = {}
    numbers = {match[1] for key in header if (match := re.fullmatch(r"Segment(\d+)_LabelValue", str(key)))}
    for number in sorted(numbers, key=int):
        value = str(header[f"Segment{number}_LabelValue"])
        if not value.isdecimal() or not (voxels == int(value)).any():
            continue
        names = [str(header.get(f"Segment{number}_{what}", "")) for what in ("ID", "Name")]
        label = next((known[name.strip().lower()] for name in names if name.strip().lower() in known), None)
        if label is None:
            raise ImageError(
                path,
                f"its segment {names[1] or names[0]!r} is none of {', '.join(LABEL_TITLES.values())}: give it one of "
                "these names in 3D Slicer, or draw in the segment that has it, then save it again",
                "unknown label",
            )
        found[int(value)] = label
    return found
