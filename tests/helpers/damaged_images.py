"""NIfTI files with one thing wrong, byte by byte: what no writer would write."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np


def content(path: Path) -> bytes:
    """The bytes of a NIfTI file, inflated where it is compressed."""
    return gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()


def put(path: Path, held: bytes) -> None:
    """Write the bytes of a NIfTI file, compressed where its name says so."""
    path.write_bytes(gzip.compress(held, mtime=0) if path.name.lower().endswith(".gz") else held)


def patch_header(path: Path, **fields: object) -> None:
    """Write header fields as they are, whatever they say; a tuple (index, value) sets one number of a field."""
    held = content(path)
    header = nib.Nifti1Header(held[:348], check=False)
    raw = header.structarr
    for name, value in fields.items():
        if isinstance(value, tuple):
            raw[name][value[0]] = value[1]
        else:
            raw[name] = value
    put(path, header.binaryblock + held[348:])


def flip_a_bit(path: Path, back: int = 30) -> None:
    """Change one bit of a file, ``back`` bytes before its end."""
    held = bytearray(path.read_bytes())
    held[-back] ^= 0x10
    path.write_bytes(bytes(held))


def checksum_off(path: Path) -> None:
    """Change gzip's CRC alone: the stream inflates as if nothing were wrong."""
    flip_a_bit(path, 8)


def without_end(path: Path, missing: int = 20) -> None:
    """Cut the last bytes off."""
    path.write_bytes(path.read_bytes()[:-missing])


def longer(path: Path) -> None:
    """Add bytes behind the voxels, as part of the stream."""
    put(path, content(path) + b"more")


def sheared(degrees: float, sides: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> np.ndarray:
    """An affine whose second axis leans towards the first, its sides as given."""
    affine = np.diag([*sides, 1.0])
    lean = np.radians(degrees)
    affine[:3, 1] = sides[1] * np.array([np.sin(lean), np.cos(lean), 0])
    return affine


def turned(degrees: float, sides: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> np.ndarray:
    """An oblique affine: a rotation about two axes, its sides as given."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = (
        np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) * sides
    )
    return affine
