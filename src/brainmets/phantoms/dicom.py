"""Writing phantoms as DICOM, as an archive of a hospital hands scans out: one file a slice, names that say nothing.

Headers are those that Siemens, GE and Philips scanners write, as far as a reader of images looks at them. Every name,
date and number in them is made up, and is there to be left behind. Positions in arguments are in mm along R, A and S;
those of DICOM along L, P and S.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

Voxels = npt.NDArray[np.uint16]
Affine = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """A scan session as its headers tell it. ``secrets`` go into fields and private tags that must not leak."""

    seed: tuple[int, ...]
    patient_name: str
    patient_id: str
    birth_date: str  # YYYYMMDD, as every date
    date: str
    manufacturer: str
    model: str
    institution: str
    field_tesla: float
    secrets: tuple[str, ...]


@dataclass(frozen=True)
class Acquisition:
    """One series of a study: its place in the session and its parameters.

    ``time``: HHMMSS. ``inversion_ms``, ``contrast_agent`` and ``b_value`` are left out of the header where None or "".
    ``slope``: what a stored value is multiplied with.
    """

    number: int
    time: str
    description: str
    sequence_name: str
    scanning_sequence: str
    sequence_variant: str
    image_type: str
    acquisition: str
    repetition_ms: float
    echo_ms: float
    flip_angle_deg: float
    thickness_mm: float
    inversion_ms: float | None = None
    contrast_agent: str = ""
    b_value: float | None = None
    slope: float = 1.0


def write_slices(root: Path, study: Study, series: Acquisition, stacks: list[tuple[Voxels, Affine]]) -> None:
    """One series, one file a slice, below ``root``.

    ``stacks``: voxels (column, row, slice) with their 4x4 matrix to mm; more than one for a localiser.
    """
    dataset = _mr(study, series, MRImageStorage)
    instance = 0
    for voxels, affine in stacks:
        _geometry(dataset, affine, series.thickness_mm, voxels.shape)
        for k in range(voxels.shape[2]):
            instance += 1
            plane = np.ascontiguousarray(voxels[:, :, k].T)
            dataset.SOPInstanceUID = _uid(study, series.number, instance)
            dataset.InstanceNumber = instance
            position = _lps(affine @ (0, 0, k, 1))
            dataset.ImagePositionPatient = _decimals(position)
            dataset.SliceLocation = _decimals([position @ _normal(affine)])[0]
            dataset.AcquisitionTime = f"{series.time}.{instance % 1000:03d}000"
            dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = int(plane.min()), int(plane.max())
            dataset.WindowCenter, dataset.WindowWidth = _window(plane, series.slope)
            dataset.PixelData = plane.astype("<u2").tobytes()
            _save(root, dataset)


_PER_FRAME = (
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "ImageOrientationPatient", "RepetitionTime", "EchoTime",
    "InversionTime", "FlipAngle", "EchoTrainLength", "ScanningSequence", "SequenceVariant", "ScanOptions",
    "RescaleSlope", "RescaleIntercept", "RescaleType",
)  # fmt: skip
"""What an enhanced file says in its functional groups and not at its top."""


def write_multiframe(root: Path, study: Study, series: Acquisition, voxels: Voxels, affine: Affine) -> None:
    """One series as one enhanced MR file below ``root``; voxels (column, row, slice) with their matrix to mm."""
    dataset = _mr(study, series, EnhancedMRImageStorage)
    dataset.SOPInstanceUID = _uid(study, series.number, 1)
    dataset.InstanceNumber = 1
    dataset.AcquisitionDateTime = f"{study.date}{series.time}.000000"
    dataset.AcquisitionDuration = 240.0
    dataset.AcquisitionNumber = series.number
    dataset.ContentQualification, dataset.LossyImageCompression = "RESEARCH", "00"
    dataset.PresentationLUTShape, dataset.BurnedInAnnotation = "IDENTITY", "NO"
    dataset.PixelPresentation, dataset.VolumetricProperties = "MONOCHROME", "VOLUME"
    dataset.VolumeBasedCalculationTechnique, dataset.ComplexImageComponent = "NONE", "MAGNITUDE"
    dataset.AcquisitionContrast = "T1"
    _geometry(dataset, affine, series.thickness_mm, voxels.shape)
    measures, orientation = Dataset(), Dataset()
    for group, names in (
        (measures, ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")),
        (orientation, ("ImageOrientationPatient",)),
    ):
        for name in names:
            setattr(group, name, dataset[name].value)
    for name in _PER_FRAME:
        if name in dataset:
            delattr(dataset, name)
    timing, echo, kind, modifier, scale, window = (Dataset() for _ in range(6))
    timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength = series.repetition_ms, series.flip_angle_deg, 1
    echo.EffectiveEchoTime = series.echo_ms
    kind.FrameType = dataset.ImageType
    kind.PixelPresentation, kind.VolumetricProperties = "MONOCHROME", "VOLUME"
    kind.VolumeBasedCalculationTechnique, kind.ComplexImageComponent = "NONE", "MAGNITUDE"
    kind.AcquisitionContrast = "T1"
    modifier.InversionRecovery = "YES" if series.inversion_ms else "NO"
    if series.inversion_ms:
        modifier.InversionTimes = series.inversion_ms
    scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = series.slope, 0, "US"
    window.WindowCenter, window.WindowWidth = _window(voxels, series.slope)
    shared = Dataset()
    for name, item in {
        "PixelMeasuresSequence": measures,
        "PlaneOrientationSequence": orientation,
        "MRTimingAndRelatedParametersSequence": timing,
        "MREchoSequence": echo,
        "MRImageFrameTypeSequence": kind,
        "MRModifierSequence": modifier,
        "PixelValueTransformationSequence": scale,
        "FrameVOILUTSequence": window,
    }.items():
        setattr(shared, name, Items([item]))
    dataset.SharedFunctionalGroupsSequence = Items([shared])

    stack = Dataset()
    stack.DimensionOrganizationUID = _uid(study, series.number, 0, 7)
    dataset.DimensionOrganizationSequence = Items([stack])
    pointer = Dataset()
    pointer.DimensionOrganizationUID = stack.DimensionOrganizationUID
    pointer.DimensionIndexPointer, pointer.FunctionalGroupPointer = 0x00209057, 0x00209111
    dataset.DimensionIndexSequence = Items([pointer])
    frames = []
    for k in range(voxels.shape[2]):
        frame, content, place = Dataset(), Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", k + 1, [k + 1]
        content.FrameAcquisitionDateTime = dataset.AcquisitionDateTime
        place.ImagePositionPatient = _decimals(_lps(affine @ (0, 0, k, 1)))
        frame.FrameContentSequence, frame.PlanePositionSequence = Items([content]), Items([place])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = np.ascontiguousarray(voxels.transpose(2, 1, 0)).astype("<u2").tobytes()
    _save(root, dataset)


def write_capture(root: Path, study: Study, number: int, time: str, picture: npt.NDArray[np.uint8]) -> None:
    """A colour secondary capture (a screenshot) below ``root``; picture (row, column, RGB)."""
    dataset = _common(study, SecondaryCaptureImageStorage, number, time, "Screenshot for the conference")
    dataset.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    dataset.ConversionType = "WSD"
    dataset.SOPInstanceUID = _uid(study, number, 1)
    dataset.InstanceNumber = 1
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = picture.tobytes()
    _save(root, dataset)


def _common(study: Study, kind: str, number: int, time: str, description: str) -> Dataset:
    """What every object of a study says."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(kind)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = kind
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = study.date
    dataset.StudyTime = "100000.000000"
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = f"{time}.000000"
    dataset.AccessionNumber = f"ACC{study.patient_id}"
    dataset.Modality = "MR"
    dataset.Manufacturer = study.manufacturer
    dataset.InstitutionName = study.institution
    dataset.InstitutionAddress = "1 Phantom Street, Nowhere"
    dataset.ReferringPhysicianName = "Phantom^Referrer"
    dataset.OperatorsName = "Phantom^Operator"
    dataset.StationName = "PHANTOMMR1"
    dataset.StudyDescription = "MRI head with contrast"
    dataset.SeriesDescription = description
    dataset.ManufacturerModelName = study.model
    dataset.PatientName = study.patient_name
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate = study.birth_date
    dataset.PatientSex = "O"
    dataset.PatientAge = "060Y"
    dataset.PatientComments = study.secrets[0]
    dataset.BodyPartExamined = "HEAD"
    dataset.DeviceSerialNumber = "99999"
    dataset.SoftwareVersions = "phantom"
    dataset.StudyInstanceUID = _uid(study)
    dataset.SeriesInstanceUID = _uid(study, number)
    dataset.StudyID = "1"
    dataset.SeriesNumber = number
    private = dataset.private_block(0x0099, "PHANTOM SITE NOTES", create=True)
    for element, text in enumerate(study.secrets[1:], start=1):
        private.add_new(element, "LT", text)
    return dataset


def _mr(study: Study, series: Acquisition, kind: str) -> Dataset:
    """All of an MR series that is the same in each slice."""
    dataset = _common(study, kind, series.number, series.time, series.description)
    dataset.ProtocolName = series.description
    dataset.SequenceName = series.sequence_name
    dataset.ImageType = series.image_type.split("\\")
    dataset.ScanningSequence = series.scanning_sequence.split("\\")
    dataset.SequenceVariant = series.sequence_variant.split("\\")
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = series.acquisition
    dataset.RepetitionTime, dataset.EchoTime = series.repetition_ms, series.echo_ms
    if series.inversion_ms is not None:
        dataset.InversionTime = series.inversion_ms
    dataset.FlipAngle = series.flip_angle_deg
    dataset.EchoTrainLength = 1
    dataset.MagneticFieldStrength = study.field_tesla
    dataset.ImagingFrequency = _decimals([42.577 * study.field_tesla])[0]
    dataset.ImagedNucleus = "1H"
    dataset.NumberOfAverages = 1
    dataset.PixelBandwidth = 200
    dataset.PatientPosition = "HFS"
    if series.contrast_agent:
        dataset.ContrastBolusAgent = series.contrast_agent
        dataset.ContrastBolusRoute = "IV"
    if series.b_value is not None:
        dataset.DiffusionBValue = series.b_value
    dataset.FrameOfReferenceUID = _uid(study, 0, 0, 1)
    dataset.PositionReferenceIndicator = ""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    if series.slope != 1:
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, series.slope, "normalized"
    return dataset


def _geometry(dataset: Dataset, affine: Affine, thickness_mm: float, shape: tuple[int, ...]) -> None:
    """Size, spacing and orientation of a stack's planes; DICOM's first spacing is that between rows."""
    columns, rows, _ = shape
    column_step, row_step, slice_step = np.linalg.norm(affine[:3, :3], axis=0)
    dataset.Columns, dataset.Rows = columns, rows
    dataset.PixelSpacing = _decimals([row_step, column_step])
    dataset.SliceThickness, dataset.SpacingBetweenSlices = _decimals([thickness_mm, slice_step])
    along = (affine[:3, 0] / column_step, affine[:3, 1] / row_step)
    dataset.ImageOrientationPatient = [value for axis in along for value in _decimals(_lps(axis))]


def _lps(ras: Affine) -> Affine:
    return ras[:3] * (-1, -1, 1)


def _normal(affine: Affine) -> Affine:
    """The direction of DICOM's slice locations: row direction times column direction."""
    normal: Affine = np.cross(_lps(affine[:3, 0]), _lps(affine[:3, 1]))
    return normal / np.linalg.norm(normal)


def _decimals(values: npt.ArrayLike) -> list[float]:
    """Numbers as a decimal string of at most 16 characters holds them."""
    return [float(np.round(value, 9)) for value in np.asarray(values, np.float64)]


def _window(voxels: Voxels, slope: float) -> tuple[float, float]:
    top = max(1.0, float(np.round(voxels.max() * slope)))
    return np.round(top / 2), top


def _uid(study: Study, *numbers: int) -> str:
    """The same identifier for the same study and numbers."""
    return str(generate_uid(entropy_srcs=[f"brainmets phantom {study.seed} {numbers}"]))


def _save(root: Path, dataset: Dataset) -> None:
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    names = [_name(uid) for uid in (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)]
    path = root / "DICOM" / f"0000{names[0][:4]}" / names[1] / names[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise FileExistsError(f"two phantom images share the name {path.name}")
    dataset.save_as(path, enforce_file_format=True)


def _name(uid: str) -> str:
    """Eight characters in no order, as an archive's export names files."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8].upper()
