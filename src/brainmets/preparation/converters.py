"""From the slices of a stack to voxels: two converters, and a check of what they give against the headers.

Converters guess which slices belong together, how they are scaled and where they lie, each in its own way: dcm2niix
parts series by the time of their slices, GDCM takes the frames of enhanced MR in the order of storage, and both scale
all frames by one slope. So they are given nothing to guess. Each slice is written again into a private folder as
a classic file with its geometry, its untouched pixels and no other header (no name reaches a converter or its output),
and slope and intercept of each slice are applied here. GDCM (in SimpleITK, in this process) comes first: it keeps the
order that it is given. dcm2niix, with decoders of its own, comes second.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

from brainmets.preparation.scans import ScanError
from brainmets.preparation.slices import IMAGES, Slice, quiet
from brainmets.preparation.stacks import Geometry

MR = IMAGES[0]
POSITION_MM = 0.01
SPACING_SHARE = 0.01
LONGEST_S = 300
"""dcm2niix takes seconds; a minute is a hang."""
STORED_AS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation")


class DifferentError(ValueError):
    """What a converter gave is not what the headers promise; the message says what differs."""


def volume(slices: Sequence[Slice], geometry: Geometry, number: int) -> sitk.Image:
    """The voxels of a stack: float32, in the units that slope and intercept give, axes as stored.

    Raises ``ScanError`` naming series ``number`` where no converter gives what the headers promise.
    """
    with tempfile.TemporaryDirectory(prefix="brainmets-") as folder:
        try:
            with quiet():
                files, stored = _written_again(slices, geometry, Path(folder))
        except Exception:  # a damaged file raises almost anything
            raise ScanError(f"series {number}: its pixels cannot be read; copy it again") from None
        differences = []
        for name, convert in CONVERTERS.items():
            try:
                return _scaled(_checked(convert(files), geometry, stored), slices, geometry)
            except DifferentError as error:
                differences.append(f"{name}: {error}")
    raise ScanError(
        f"series {number}: no converter gives what its headers promise ({'; '.join(differences)}); export it again, "
        "uncompressed, or choose another series"
    )


def same_pixels(one: Slice, other: Slice) -> bool:
    """Whether the stored pixels of two slices are the same, byte by byte (false where they cannot be read)."""
    try:
        with quiet():
            return one.syntax == other.syntax and _pixels(one) == _pixels(other)
    except Exception:  # a damaged file raises almost anything
        return False


# --- what a converter gets ---------------------------------------------------------------------------------------


def _written_again(
    slices: Sequence[Slice], geometry: Geometry, folder: Path
) -> tuple[list[Path], dict[int, npt.NDArray[Any]]]:
    """The files, in the order of the slices; the pixels by slice where they are not compressed."""
    upright = np.cross(geometry.axes[:, 0], geometry.axes[:, 1])
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    files, stored = [], {}
    for index, one in enumerate(slices):
        source = _dataset(one.path)
        pixels = _pixels(one)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = UID(one.syntax) if UID(one.syntax).is_encapsulated else ExplicitVRLittleEndian
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MR, generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Modality, data.PatientPosition, data.PatientID = "MR", "HFS", "scan"
        data.StudyDate = data.SeriesDate = data.AcquisitionDate = "20000101"
        data.StudyTime = data.SeriesTime = data.AcquisitionTime = "120000"
        data.SeriesNumber, data.AcquisitionNumber, data.InstanceNumber = 1, 1, index + 1
        data.ImageType = ["ORIGINAL", "PRIMARY"]
        data.ImagePositionPatient = _decimals(geometry.origin + index * geometry.spacing[2] * upright)
        data.ImageOrientationPatient = _decimals(geometry.axes[:, :2].T.ravel())
        data.PixelSpacing = _decimals(geometry.spacing[1::-1])
        data.SliceThickness = data.SpacingBetweenSlices = _decimals(geometry.spacing[2:])[0]
        data.Rows, data.Columns, data.SamplesPerPixel = one.header.rows, one.header.columns, 1
        for keyword in STORED_AS:
            setattr(data, keyword, source[keyword].value)
        if meta.TransferSyntaxUID.is_encapsulated:
            data.PixelData = encapsulate([pixels])
            data["PixelData"].VR = "OB"
            data["PixelData"].is_undefined_length = True
        else:
            voxels = _voxels(pixels, one, data)
            data.PixelData = voxels.tobytes() + b"\0" * (voxels.nbytes % 2)
            data["PixelData"].VR = "OW" if one.bits > 8 else "OB"
            stored[index] = voxels
        path = folder / f"{index:05d}.dcm"
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    _dataset.cache_clear()
    _frames.cache_clear()
    return files, stored


@lru_cache(maxsize=2)
def _dataset(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path)


@lru_cache(maxsize=2)
def _frames(path: Path) -> list[bytes]:
    """The pixels of each frame of a file, as stored."""
    data = _dataset(path)
    count = max(1, int(data.get("NumberOfFrames") or 1))
    pixels: bytes = data.PixelData
    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        return list(generate_frames(pixels, number_of_frames=count))
    size = data.Rows * data.Columns * data.BitsAllocated // 8
    if len(pixels) < count * size:
        raise ValueError("pixels are cut short")
    return [pixels[frame * size : (frame + 1) * size] for frame in range(count)]


def _pixels(one: Slice) -> bytes:
    return _frames(one.path)[one.frame]


def _voxels(pixels: bytes, one: Slice, data: pydicom.Dataset) -> npt.NDArray[Any]:
    """Rows by columns, little-endian; bits above BitsStored (overlays of old scanners) become the sign or nothing."""
    order = ">" if one.syntax == ExplicitVRBigEndian else "<"
    size = one.bits // 8
    found = np.frombuffer(pixels, f"{order}u{size}").reshape(data.Rows, data.Columns).astype(f"<u{size}")
    spare = one.bits - int(data.BitsStored)
    if not 0 <= spare < one.bits or data.HighBit != data.BitsStored - 1:
        raise ValueError("BitsStored and HighBit contradict BitsAllocated")
    shifted = found << spare
    return shifted.view(f"<i{size}") >> spare if one.signed else shifted >> spare


def _decimals(values: npt.ArrayLike) -> list[str]:
    """Of at most 16 characters, which is what the standard allows."""
    return [pydicom.valuerep.format_number_as_ds(float(value)) for value in np.asarray(values, dtype=float)]


# --- the converters ----------------------------------------------------------------------------------------------


def _by_gdcm(files: Sequence[Path]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(path) for path in files])
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings name files
    try:
        return reader.Execute()
    except RuntimeError:
        raise DifferentError("its pixels cannot be decoded") from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _by_dcm2niix(files: Sequence[Path]) -> sitk.Image:
    from dcm2niix import bin as program  # only where GDCM fails

    out = files[0].parent / "out"
    out.mkdir()
    command = [
        program,
        "-b",
        "n",
        "-z",
        "n",
        "-m",
        "y",
        "-x",
        "i",
        "-f",
        "image",
        "-o",
        str(out),
        str(files[0].parent),
    ]
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LONGEST_S,
            check=False, cwd=out,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DifferentError(f"did not end within {LONGEST_S} s") from None
    made = sorted(out.glob("*.nii"))
    if len(made) != 1:
        raise DifferentError(f"made {len(made)} images" if made else "its pixels cannot be decoded")
    try:
        return sitk.ReadImage(str(made[0]), imageIO="NiftiImageIO")
    except RuntimeError:
        raise DifferentError("its image cannot be read") from None


CONVERTERS: dict[str, Callable[[Sequence[Path]], sitk.Image]] = {"GDCM": _by_gdcm, "dcm2niix": _by_dcm2niix}


# --- what came out -----------------------------------------------------------------------------------------------


def _checked(image: sitk.Image, geometry: Geometry, stored: dict[int, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The voxels (slice, row, column). Raises ``DifferentError`` where they lie elsewhere than the headers say.

    A leaning stack is handed to the converters as an upright one, which is what they can write, and is held to that.
    """
    upright = geometry.axes.copy()
    upright[:, 2] = np.cross(upright[:, 0], upright[:, 1])
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise DifferentError(f"an image of {image.GetDimension()} dimensions in place of 3")
    came = np.reshape(image.GetDirection(), (3, 3))
    if (flips := np.sum(came * upright, axis=0) < 0).any():  # dcm2niix stores rows from the bottom
        image = sitk.Flip(image, [bool(flip) for flip in flips])
    if image.GetSize() != geometry.size:
        raise DifferentError(f"{_times(image.GetSize())} voxels in place of {_times(geometry.size)}")
    spacing = np.array(image.GetSpacing())
    if (np.abs(spacing - geometry.spacing) > SPACING_SHARE * geometry.spacing).any():
        raise DifferentError(f"spacing of {_times(spacing)} mm in place of {_times(geometry.spacing)} mm")
    for voxel in _ends(geometry.size):
        found = np.array(image.TransformIndexToPhysicalPoint(voxel))
        there = geometry.origin + upright @ (geometry.spacing * np.array(voxel))
        if (away := float(np.linalg.norm(found - there))) > POSITION_MM:
            raise DifferentError(f"voxel {voxel} lies {away:.3g} mm from where its header puts it")
    voxels = sitk.GetArrayFromImage(image)
    for index, pixels in stored.items():
        if not np.array_equal(voxels[index], pixels):
            raise DifferentError(f"slice {index + 1} holds other grey values than its file")
    return voxels


def _ends(size: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """The first voxel of the first and last slice, and those at the ends of its first row and column."""
    columns, rows, slices = size[0] - 1, size[1] - 1, size[2] - 1
    return [(0, 0, 0), (columns, 0, 0), (0, rows, 0), (0, 0, slices), (columns, rows, slices)]


def _times(values: Sequence[float] | npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.5g}" for value in values)


def _scaled(voxels: npt.NDArray[Any], slices: Sequence[Slice], geometry: Geometry) -> sitk.Image:
    """Slope and intercept of each slice applied; lies where the headers say to the last digit."""
    slope = np.array([one.slope for one in slices], dtype=np.float64)[:, None, None]
    intercept = np.array([one.intercept for one in slices], dtype=np.float64)[:, None, None]
    image = sitk.GetImageFromArray((voxels * slope + intercept).astype(np.float32))
    image.SetOrigin(geometry.origin.tolist())
    image.SetDirection(geometry.axes.ravel().tolist())
    image.SetSpacing(geometry.spacing.tolist())
    return image
