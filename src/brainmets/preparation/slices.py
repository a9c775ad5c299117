"""What the headers of one DICOM file say about each slice in it: geometry, what it shows, and how it is stored.

Classic files hold one slice; multi-frame ones (enhanced MR) hold many, each described by its own functional groups
over the shared ones over the file's. Pixels are not read.
"""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from brainmets.preparation.scans import Header

Vector = tuple[float, ...]

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMAGES = (
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3",
    "1.2.840.10008.5.1.4.1.1.4.4", "1.2.840.10008.5.1.4.1.1.2", SECONDARY_CAPTURE,
)  # fmt: skip
"""SOP classes that are images: classic, enhanced colour and legacy converted MR, CT, secondary capture."""
INDEX = "1.2.840.10008.1.3.10"
"""The SOP class of a DICOMDIR."""
LARGEST_MATRIX = 4096
"""Rows or columns beyond it come from a damaged header; memory would be asked for them."""
END_OF_ITEMS = b"\xfe\xff\xdd\xe0"
SIEMENS_B, GE_B, PHILIPS_B = 0x0019100C, 0x00431039, 0x20011003

KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PatientName", "StudyDate",
    "Modality", "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "ScanningSequence",
    "SequenceVariant", "ImageType", "ContrastBolusAgent", "ContrastBolusAgentSequence", "MRAcquisitionType",
    "AcquisitionDateTime", "AcquisitionTime", "SeriesTime", "ContentTime", "RepetitionTime", "EchoTime",
    "InversionTime", "FlipAngle", "DiffusionBValue", "TemporalPositionIdentifier", "AcquisitionNumber",
    "InstanceNumber", "ImagesInAcquisition", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "RescaleSlope",
    "RescaleIntercept", "ComplexImageComponent", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
TAGS = [*map(pydicom.tag.Tag, KEYWORDS), *map(pydicom.tag.Tag, (SIEMENS_B, GE_B, PHILIPS_B))]


class NoSliceError(ValueError):
    """A file without slices; the message is a reason from a short list, with no name and no path."""


@dataclass(frozen=True)
class Slice:
    """One slice. Lengths in mm, LPS; ``directions``: along a row (x, y, z), along a column (x, y, z).

    ``frame`` counts the slices of the file from 0. ``fault`` says what is wrong with the file's pixels, or is "".
    ``name`` is PatientName in one spelling. What a header does not say is "", NaN, 0 or None.
    """

    path: Path
    frame: int
    frames: int
    patient: str
    name: str
    date: str
    series_uid: str
    sop_uid: str
    sop_class: str
    syntax: str
    samples: int
    photometric: str
    bits: int
    signed: bool
    slope: float
    intercept: float
    position: Vector | None
    directions: Vector | None
    pixel_spacing: Vector | None
    between_mm: float
    component: str
    instance: int
    temporal: int
    acquisition: int
    promised: int
    header: Header
    fault: str

    @property
    def content(self) -> str:
        """What two copies of one slice have in common, however they are stored."""
        return repr(replace(self, path=Path(), syntax="", fault="", photometric=""))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings to itself: they quote the values of headers."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def slices_of(path: Path) -> list[Slice]:
    """The slices of a file, in the order in which they are stored.

    Raises ``NoSliceError`` for what is no DICOM image.
    """
    try:
        with path.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            if not size:
                raise NoSliceError("empty")
            data = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=TAGS)
            get = _getter(data)
            meta = _getter(data.file_meta)
            if INDEX in (_text(meta("MediaStorageSOPClassUID")), _text(get("SOPClassUID"))):
                raise NoSliceError("index")
            syntax = _text(meta("TransferSyntaxUID")) or ImplicitVRLittleEndian
            if not _text(get("SeriesInstanceUID")) or not _text(get("SOPClassUID")):
                raise NoSliceError("unreadable")
            if not _whole(get("Rows")) and _text(get("SOPClassUID")) not in IMAGES:
                raise NoSliceError(f"no image:{_text(get('Modality')) or 'unknown kind'}")
            frames = _frames(get)
            fault = _fault(get, syntax, len(frames), handle, size)
    except NoSliceError:
        raise
    except PermissionError as error:
        raise NoSliceError("denied") from error
    except InvalidDicomError as error:
        raise NoSliceError("unreadable" if path.suffix.lower() in (".dcm", ".ima") else "no DICOM") from error
    except Exception as error:  # a damaged header raises almost anything
        raise NoSliceError("unreadable") from error
    return [_slice(path, number, len(frames), frame, syntax, fault) for number, frame in enumerate(frames)]


Get = Callable[[str | int], Any]


def _getter(data: Any) -> Get:
    def get(tag: str | int) -> Any:
        try:
            value = data.get(tag)
            return value.value if isinstance(tag, int) and value is not None else value
        except Exception:  # a value that its type does not allow
            return None

    return get


def _frames(get: Get) -> list[Get]:
    """How to ask for a header of each slice of a file."""
    count = _whole(get("NumberOfFrames"))
    own = get("PerFrameFunctionalGroupsSequence")
    if not own:
        return [get] * max(1, min(count, 100_000))
    shared = _functional_groups(next(iter(get("SharedFunctionalGroupsSequence") or []), []))
    return [_layered({**shared, **_functional_groups(frame)}, get) for frame in own]


def _functional_groups(item: Any) -> dict[str, Any]:
    """The headers one level below a frame's item, by keyword."""
    found: dict[str, Any] = {}
    for element in item:
        if element.VR != "SQ" or element.tag.is_private or not element.value:
            continue
        for inner in element.value[0]:
            if inner.keyword:
                found[inner.keyword] = inner.value
    return found


def _layered(groups: Mapping[str, Any], get: Get) -> Get:
    return lambda tag: groups[str(tag)] if tag in groups else get(tag)


def _slice(path: Path, number: int, frames: int, get: Get, syntax: str, fault: str) -> Slice:
    slope, intercept = get("RescaleSlope"), get("RescaleIntercept")
    image_type = _text(get("FrameType")) or _text(get("ImageType"))
    return Slice(
        path=path,
        frame=number,
        frames=frames,
        patient=_text(get("PatientID")) or _text(get("PatientName")),
        name=" ".join(sorted(re.findall(r"\w+", _text(get("PatientName")).casefold()))),
        date=_text(get("StudyDate")).replace("-", "").replace(".", "") or _text(get("StudyInstanceUID")),
        series_uid=_text(get("SeriesInstanceUID")),
        sop_uid=_text(get("SOPInstanceUID")),
        sop_class=_text(get("SOPClassUID")),
        syntax=syntax,
        samples=_whole(get("SamplesPerPixel")) or 1,
        photometric=_text(get("PhotometricInterpretation")),
        bits=_whole(get("BitsAllocated")),
        signed=_whole(get("PixelRepresentation")) == 1,
        slope=1.0 if slope in (None, "") else _number(slope),
        intercept=0.0 if intercept in (None, "") else _number(intercept),
        position=_numbers(get("ImagePositionPatient"), 3),
        directions=_directions(get("ImageOrientationPatient")),
        pixel_spacing=_spacing(get("PixelSpacing")),
        between_mm=_number(get("SpacingBetweenSlices")),
        component=_text(get("ComplexImageComponent")).upper(),
        instance=_whole(get("InstanceNumber")),
        temporal=_whole(get("TemporalPositionIndex")) or _whole(get("TemporalPositionIdentifier")),
        acquisition=_whole(get("AcquisitionNumber")),
        promised=_whole(get("ImagesInAcquisition")),
        header=_header(get, image_type),
        fault=fault,
    )


def _header(get: Get, image_type: str) -> Header:
    inversions = get("InversionTimes")
    return Header(
        modality=_text(get("Modality")),
        description=_text(get("SeriesDescription")),
        protocol=_text(get("ProtocolName")),
        sequence_name=_text(get("SequenceName")) or _text(get("PulseSequenceName")),
        scanning_sequence=_text(get("ScanningSequence")),
        sequence_variant=_text(get("SequenceVariant")),
        image_type=image_type.upper(),
        contrast_agent=_text(get("ContrastBolusAgent")) or _agent(get("ContrastBolusAgentSequence")),
        acquisition=_text(get("MRAcquisitionType")).upper(),
        time=_time(get),
        repetition_ms=_number(get("RepetitionTime")),
        echo_ms=_number(get("EffectiveEchoTime") if get("EffectiveEchoTime") is not None else get("EchoTime")),
        inversion_ms=_number(_first(inversions) if inversions is not None else get("InversionTime")),
        flip_angle_deg=_number(get("FlipAngle")),
        b_value=_b_value(get),
        rows=_whole(get("Rows")),
        columns=_whole(get("Columns")),
        thickness_mm=_number(get("SliceThickness")),
    )


def _agent(sequence: Any) -> str:
    """The agent's coded name, where there is no free text (enhanced MR)."""
    try:
        return _text(sequence[0].get("CodeMeaning")) or "coded" if sequence else ""
    except Exception:  # no sequence after all
        return ""


def _time(get: Get) -> str:
    """HHMMSS of the acquisition, else of what comes nearest."""
    for tag, start in (
        ("FrameAcquisitionDateTime", 8), ("AcquisitionDateTime", 8), ("AcquisitionTime", 0), ("SeriesTime", 0),
        ("ContentTime", 0),
    ):  # fmt: skip
        digits = _text(get(tag)).replace(":", "")[start : start + 6]
        if len(digits) == 6 and digits.isdigit():
            return digits
    return ""


def _b_value(get: Get) -> float:
    """In s/mm2; GE stores it first of several numbers, 10^9 added to some."""
    for tag in ("DiffusionBValue", SIEMENS_B, PHILIPS_B, GE_B):
        value = _number(_first(get(tag)))
        if math.isfinite(value):
            return value % 1e9 if tag == GE_B else value
    return math.nan


def _fault(get: Get, syntax: str, frames: int, handle: BinaryIO, size: int) -> str:
    """What is wrong with the pixels that follow the headers: absent, cut short, compressed beyond reading."""
    if syntax == DeflatedExplicitVRLittleEndian:  # the file's position says nothing of what is packed
        return ""
    rows, columns = _whole(get("Rows")), _whole(get("Columns"))
    start = handle.tell()
    big = syntax == ExplicitVRBigEndian
    tag = handle.read(4)
    if tag not in ((b"\x7f\xe0\x00\x10",) if big else (b"\xe0\x7f\x10\x00",)):
        if tag[:2] in (b"\x7f\xe0", b"\xe0\x7f"):
            return "holds no whole-number pixels"
        return "ends before its pixels"
    if not 0 < rows <= LARGEST_MATRIX or not 0 < columns <= LARGEST_MATRIX:
        return f"has an impossible matrix ({rows} rows, {columns} columns)"
    if UID(syntax).is_private or not UID(syntax).is_transfer_syntax:
        return ""
    if UID(syntax).is_compressed:
        handle.seek(max(start, size - 65_536))
        return "" if END_OF_ITEMS in handle.read() else "is cut short"
    need = rows * columns * (_whole(get("SamplesPerPixel")) or 1) * frames * _whole(get("BitsAllocated")) // 8
    here = size - start - (8 if syntax == ImplicitVRLittleEndian else 12)
    return f"is cut short ({max(0, here):,} of {need:,} bytes of pixels)" if here < need else ""


def _directions(value: Any) -> Vector | None:
    """Two unit vectors at a right angle, else None."""
    found = _numbers(value, 6)
    if found is None:
        return None
    row, column = found[:3], found[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    if not all(0.99 < length < 1.01 for length in lengths):
        return None
    if abs(sum(a * b for a, b in zip(row, column, strict=True))) > 0.01:
        return None
    return tuple(part / lengths[0] for part in row) + tuple(part / lengths[1] for part in column)


def _spacing(value: Any) -> Vector | None:
    found = _numbers(value, 2)
    return found if found and all(0.001 < side < 1000 for side in found) else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple, pydicom.multival.MultiValue)):
        return "\\".join(_text(part) for part in value)
    return "".join(character for character in str(value) if character.isprintable()).strip()


def _first(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore").split("\\")
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return value
    return value[0] if len(value) else None


def _number(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def _whole(value: Any) -> int:
    number = _number(value)
    return int(number) if math.isfinite(number) else 0


def _numbers(value: Any, count: int) -> Vector | None:
    try:
        found = tuple(_number(part) for part in value)
    except TypeError:
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None
