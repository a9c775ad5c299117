"""Small DICOM series with the headers that scanners write, and edits that break them one fault at a time.

Axes of ``voxels``: slice, row, column. Geometry in mm, LPS: ``directions`` are ImageOrientationPatient's two vectors
(along a row, along a column), ``spacing`` is (column step, row step, slice step), slice k lies at
``origin + k * step``, the step along the normal unless ``tilt_deg`` leans it towards the columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))

SEQUENCES: dict[str, dict[str, Any]] = {
    "t1n": {
        "SeriesDescription": "t1_mprage_tra",
        "ProtocolName": "t1_mprage_tra",
        "SequenceName": "*tfl3d1",
        "ScanningSequence": ["GR", "IR"],
        "SequenceVariant": ["SP", "MP"],
        "MRAcquisitionType": "3D",
        "RepetitionTime": "1900",
        "EchoTime": "2.26",
        "InversionTime": "900",
        "FlipAngle": "9",
    },
    "t1c": {
        "SeriesDescription": "t1_mprage_tra_KM",
        "ProtocolName": "t1_mprage_tra_KM",
        "SequenceName": "*tfl3d1",
        "ScanningSequence": ["GR", "IR"],
        "SequenceVariant": ["SP", "MP"],
        "MRAcquisitionType": "3D",
        "RepetitionTime": "1900",
        "EchoTime": "2.26",
        "InversionTime": "900",
        "FlipAngle": "9",
        "ContrastBolusAgent": "Gadobutrol",
    },
    "t2w": {
        "SeriesDescription": "t2_tse_tra",
        "ProtocolName": "t2_tse_tra",
        "SequenceName": "*tse2d1_15",
        "ScanningSequence": "SE",
        "SequenceVariant": ["SK", "SP"],
        "MRAcquisitionType": "2D",
        "RepetitionTime": "5000",
        "EchoTime": "98",
        "FlipAngle": "150",
    },
    "t2f": {
        "SeriesDescription": "t2_flair_tra",
        "ProtocolName": "t2_flair_tra",
        "SequenceName": "*tir2d1_16",
        "ScanningSequence": ["SE", "IR"],
        "SequenceVariant": ["SK", "SP", "MP"],
        "MRAcquisitionType": "2D",
        "RepetitionTime": "9000",
        "EchoTime": "93",
        "InversionTime": "2500",
        "FlipAngle": "150",
    },
}
"""The headers of the four sequences, as a Siemens scanner writes them."""


def pattern(slices: int, rows: int, columns: int) -> npt.NDArray[np.int16]:
    """Voxels (slice, row, column) that all differ between neighbours and are symmetric in no axis."""
    k, j, i = np.meshgrid(np.arange(slices), np.arange(rows), np.arange(columns), indexing="ij")
    return (100 + 31 * k + 7 * j + 2 * i + (i > columns // 2) * 50).astype(np.int16)


def normal(directions: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """The unit vector from slice to slice."""
    return np.cross(np.asarray(directions[0], float), np.asarray(directions[1], float))


def uid(*names: object) -> str:
    """A UID that is the same for the same names."""
    return str(generate_uid(entropy_srcs=[str(name) for name in names]))


def write_series(
    folder: Path,
    sequence: str = "t1n",
    *,
    voxels: npt.NDArray[np.int16] | None = None,
    patient: str = "PAT-1",
    name: str = "Doe^Jane",
    date: str = "20240102",
    time: str = "101500",
    study: str = "study",
    series: str | None = None,
    directions: Sequence[Sequence[float]] = AXIAL,
    origin: Sequence[float] = (-20.0, -30.0, 15.0),
    spacing: Sequence[float] = (1.0, 1.5, 2.0),
    tilt_deg: float = 0.0,
    edit: Callable[[int, Dataset], None] | None = None,
    file_name: str = "IM{:04d}.dcm",
    **tags: Any,
) -> list[Path]:
    """Write one classic MR series, a file per slice; returns the files in the order of the slices.

    ``voxels``: int16 (slice, row, column), ``pattern(8, 12, 10)`` by default. ``series`` and ``study`` name the UIDs
    (``series`` by default the sequence). ``tags`` go into every file (None removes one); ``edit`` gets the slice's
    number and data set last, just before it is written, to make one fault.
    """
    voxels = pattern(8, 12, 10) if voxels is None else voxels
    folder.mkdir(parents=True, exist_ok=True)
    along = np.asarray(directions[0], float)
    step = spacing[2] * (normal(directions) + np.tan(np.radians(tilt_deg)) * np.asarray(directions[1], float))
    files = []
    for k, slice_voxels in enumerate(voxels):
        data = _common(
            patient, name, date, time, uid(patient, date, study), uid(patient, date, study, series or sequence)
        )
        data.SOPClassUID = MR
        data.SOPInstanceUID = uid(patient, date, study, series or sequence, k)
        data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        data.InstanceNumber = k + 1
        data.AcquisitionNumber = 1
        data.ImagePositionPatient = _decimals(np.asarray(origin, float) + k * step)
        data.ImageOrientationPatient = _decimals([*along, *directions[1]])
        data.SliceLocation = _decimals([float(normal(directions) @ (np.asarray(origin, float) + k * step))])[0]
        data.PixelSpacing = _decimals([spacing[1], spacing[0]])
        data.SliceThickness = _decimals([spacing[2]])[0]
        data.SpacingBetweenSlices = _decimals([spacing[2]])[0]
        _put(data, SEQUENCES[sequence])
        _pixels(data, slice_voxels)
        _put(data, tags)
        if edit is not None:
            edit(k, data)
        files.append(save(data, folder / file_name.format(k + 1)))
    return files


def write_enhanced(
    path: Path,
    sequence: str = "t1n",
    *,
    voxels: npt.NDArray[np.int16] | None = None,
    patient: str = "PAT-1",
    name: str = "Doe^Jane",
    date: str = "20240102",
    time: str = "101500",
    study: str = "study",
    series: str | None = None,
    directions: Sequence[Sequence[float]] = AXIAL,
    origin: Sequence[float] = (-20.0, -30.0, 15.0),
    spacing: Sequence[float] = (1.0, 1.5, 2.0),
    order: Sequence[int] | None = None,
    echoes_ms: Sequence[float] | None = None,
    slopes: Sequence[float] | None = None,
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write one enhanced multi-frame MR object; ``order`` is the order in which the slices are stored as frames.

    Two ``echoes_ms`` store every slice twice, the second time with voxels one higher. ``slopes``: a RescaleSlope per
    slice.
    """
    voxels = pattern(8, 12, 10) if voxels is None else voxels
    headers = SEQUENCES[sequence]
    data = _common(patient, name, date, time, uid(patient, date, study), uid(patient, date, study, series or sequence))
    data.SOPClassUID = ENHANCED_MR
    data.SOPInstanceUID = uid(patient, date, study, series or sequence, "enhanced")
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.InstanceNumber = 1
    data.AcquisitionDateTime = f"{date}{time}"
    data.MRAcquisitionType = headers["MRAcquisitionType"]
    data.ProtocolName = headers["ProtocolName"]
    data.SeriesDescription = headers["SeriesDescription"]
    data.PulseSequenceName = headers["SequenceName"]
    if "ContrastBolusAgent" in headers:
        agent = Dataset()
        agent.CodeValue, agent.CodingSchemeDesignator, agent.CodeMeaning = "C-B03CB", "SRT", "Gadobutrol"
        data.ContrastBolusAgentSequence = [agent]

    shared = Dataset()
    shared.PixelMeasuresSequence = [
        _item(
            PixelSpacing=_decimals([spacing[1], spacing[0]]),
            SliceThickness=_decimals([spacing[2]])[0],
            SpacingBetweenSlices=_decimals([spacing[2]])[0],
        )
    ]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=_decimals([*directions[0], *directions[1]]))]
    shared.MRTimingAndRelatedParametersSequence = [
        _item(RepetitionTime=headers["RepetitionTime"], FlipAngle=headers["FlipAngle"])
    ]
    if "InversionTime" in headers:
        shared.MRModifierSequence = [_item(InversionRecovery="YES", InversionTimes=[float(headers["InversionTime"])])]
    data.SharedFunctionalGroupsSequence = [shared]

    frames, stored = [], []
    for e, echo in enumerate(echoes_ms or [float(headers["EchoTime"])]):
        for k in order or range(len(voxels)):
            frame = Dataset()
            frame.FrameContentSequence = [
                _item(
                    StackID="1",
                    InStackPositionNumber=k + 1,
                    DimensionIndexValues=[1, k + 1],
                    FrameAcquisitionDateTime=f"{date}{time}",
                    TemporalPositionIndex=1,
                )
            ]
            position = np.asarray(origin, float) + k * spacing[2] * normal(directions)
            frame.PlanePositionSequence = [_item(ImagePositionPatient=_decimals(position))]
            frame.MREchoSequence = [_item(EffectiveEchoTime=echo)]
            frame.PixelValueTransformationSequence = [
                _item(RescaleIntercept="0", RescaleSlope=_decimals([slopes[k] if slopes else 1])[0], RescaleType="US")
            ]
            frame.MRImageFrameTypeSequence = [
                _item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], ComplexImageComponent="MAGNITUDE")
            ]
            frames.append(frame)
            stored.append(voxels[k] + e)
    data.PerFrameFunctionalGroupsSequence = frames
    data.NumberOfFrames = len(frames)
    _pixels(data, np.stack(stored))
    if edit is not None:
        edit(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(data, path)


def change(files: Sequence[Path], **tags: Any) -> None:
    """Overwrite tags of written files (None removes one)."""
    for path in files:
        data = pydicom.dcmread(path)
        _put(data, tags)
        save(data, path)


def cut(path: Path, share: float) -> None:
    """Keep the first ``share`` (0 to 1) of the file's bytes."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def save(data: Dataset, path: Path) -> Path:
    """Write with a file header, even where the fault is one that pydicom would refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(path, enforce_file_format=True, overwrite=True)
    return path


def _common(patient: str, name: str, date: str, time: str, study: str, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.PatientID, data.PatientName = patient, name
    data.PatientBirthDate, data.PatientSex = "19600101", "F"
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = date
    data.StudyTime = "100000"
    data.SeriesTime = data.AcquisitionTime = time
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.FrameOfReferenceUID = uid(study, "frame")
    data.SeriesNumber = 1
    data.Modality = "MR"
    data.Manufacturer, data.ManufacturerModelName = "SIEMENS", "Skyra"
    data.MagneticFieldStrength = "3"
    data.InstitutionName = "General Hospital"
    data.AccessionNumber = "ACC1"
    data.PatientPosition = "HFS"
    return data


def _pixels(data: Dataset, voxels: npt.NDArray[np.int16]) -> None:
    data.Rows, data.Columns = voxels.shape[-2:]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelData = voxels.astype("<i2").tobytes()
    data["PixelData"].VR = "OW"


def _put(data: Dataset, tags: dict[str, Any]) -> None:
    for keyword, value in tags.items():
        if value is None:
            if keyword in data:
                delattr(data, keyword)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                setattr(data, keyword, value)


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    _put(item, tags)
    return item


def _decimals(values: Sequence[float] | npt.NDArray[np.float64]) -> list[str]:
    """Decimal strings of at most 16 characters, as DICOM's DS wants them."""
    return [f"{value:.10g}"[:16] for value in np.asarray(values, dtype=float)]
