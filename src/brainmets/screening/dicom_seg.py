"""A result as a DICOM segmentation on the frames of its source series, for a PACS and the viewers behind it.

Viewers misplace or refuse a segmentation whose frames are not those of the images under it. So every frame takes
position, orientation and spacing from the header of the source's own slice, to the digit, and names that slice; the
affine of the label map is only compared with them. Neither pixels are read nor anything resampled.

Segmentations are BINARY (Segmentation Storage): a frame of bits per segment and slice. The younger LABELMAP (Label Map
Segmentation Storage, 2024) would be smaller, but OHIF and 3D Slicer, whose issues #4875 and #8387 ask for it, had no
reader for it in their releases when this was written, and an archive that does not know the class refuses the file.

A segment without a voxel is left out: OHIF hung on one (#3991). Frames without a voxel are kept while the file stays
small (``WHOLE_BYTES``): OHIF before version 3 moved a segment whose slices have gaps (#2833), as lesions do.

The file names the patient and the study as the source does, or no archive could file it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from brainmets import nifti
from brainmets.files import replacing
from brainmets.preparation import converters
from brainmets.preparation.slices import NoSliceError, Slice, quiet, slices_of
from brainmets.preparation.stacks import Geometry, images_of, stack_of
from brainmets.vocabulary import LABEL_COLOURS, LABEL_TITLES, LABELS

GRID_MM = 0.01
"""A corner of the label map may lie this far from the source's: rounding of headers, no shift."""
SERIES_DESCRIPTION = "Research use only: BrainMets {content}"
SERIES_NUMBER = 9001
MOST_SEGMENTS = 65_535
WHOLE_BYTES = 32_000_000
"""A file up to this size has a frame for every slice and segment; a larger one only those with a voxel."""
LONGEST = 64
"""Characters of a DICOM long string."""

IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
"""What a source must have: without them a segmentation belongs to nothing, and they are never made up."""
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime",
)  # fmt: skip
"""What the standard wants to be there, with a value or without: empty where de-identification took it away."""
PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientBirthDate",
    "PatientSex", "PatientAge",
)  # fmt: skip
"""What is copied of what the source says of the patient: what an archive files by, and no comment or address."""


class SourceError(ValueError):
    """No segmentation can be made on this source; the message says why, and names no person and no path."""


class Code(NamedTuple):
    """A coded concept of DICOM: value, coding scheme and meaning."""

    value: str
    scheme: str
    meaning: str


ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = Code("52988006", "SCT", "Lesion")
LABEL_CODES: dict[str, Code] = {
    "netc": Code("C81175", "NCIt", "Non-Enhancing Lesion"),
    "snfh": Code("79654002", "SCT", "Edema"),
    "et": Code("C113842", "NCIt", "Enhancing Lesion"),
    "rc": Code("RESECTION_CAVITY", "99BRAINMETS", "Resection cavity"),
}
"""Of CID 7159, "Lesion Segmentation Types"; it has none for a cavity.

NETC is coded as what does not enhance and not as necrosis, which is one of the things that it may be.
"""


class Segment(NamedTuple):
    """What one value of a label map stands for; ``colour`` is "#rrggbb"."""

    number: int
    label: str
    colour: str
    code: Code


@dataclass(frozen=True)
class About:
    """What made a segmentation: for its headers, and so that two results never share an identifier.

    ``model``: its name; ``version``: what tells it from every other, such as the SHA-256 of its bundle; ``created``:
    when the result was made; ``content``: "labels" or "lesions", for the series' description.
    """

    model: str
    version: str
    created: datetime
    content: str


def label_segments() -> list[Segment]:
    """The segments of a label map in BraTS labels."""
    return [Segment(LABELS[name], LABEL_TITLES[name], LABEL_COLOURS[name], code) for name, code in LABEL_CODES.items()]


def lesion_segments(numbers: Iterable[int]) -> list[Segment]:
    """A segment "Lesion <number>" for each number of ``lesions.nii.gz``."""
    return [Segment(number, f"Lesion {number}", LABEL_COLOURS["et"], LESION) for number in numbers]


def write(
    path: Path,
    labels: npt.NDArray[np.unsignedinteger[Any]],
    affine: nifti.Affine,
    source_files: Sequence[Path],
    segments: Sequence[Segment],
    about: About,
) -> Path | None:
    """Write a label map as a DICOM segmentation of the series that it was drawn on; gives ``path``.

    ``labels`` (x, y, z), unsigned, on the grid of ``affine`` (to mm in RAS), with axes in any order and direction;
    ``source_files``: those of the series, in any order, classic or one multi-frame file. Where the files hold
    several images (echoes), the one on this grid is meant, the first if there are more. Voxels of 0 are background.

    Segments are numbered anew from 1 in the order of ``segments``, without those that have no voxel. A label map
    without any voxel gives no file and None, since viewers hang on an empty one: an older file at ``path`` is removed.
    The same result on the same source gives the same bytes and identifiers, another result others.

    Raises ``SourceError`` for a source that is no series, lacks an identifier (``IDENTIFIERS``), has another grid or
    headers that highdicom refuses; ``ValueError`` for a value without a segment.
    """
    described = [segment.number for segment in segments]
    if len(set(described)) < len(described) or not all(0 < number <= MOST_SEGMENTS for number in described):
        raise ValueError(f"segments: {described} must be different numbers from 1 to {MOST_SEGMENTS}")
    present = {int(value) for value in np.unique(labels)} - {0}
    if unknown := sorted(present - set(described)):
        raise ValueError(f"labels: no segment says what {', '.join(map(str, unknown[:10]))} stands for")
    with quiet():
        slices, geometry = _source(source_files, labels.shape, affine)
        sources = _headers(slices)
    frames = _on_frames(labels, affine, geometry)
    if not present:
        path.unlink(missing_ok=True)
        return None
    kept = [segment for segment in segments if segment.number in present]
    anew = np.zeros(max(described) + 1, np.uint8 if len(kept) < 256 else np.uint16)
    anew[[segment.number for segment in kept]] = np.arange(1, len(kept) + 1)
    with quiet():
        try:
            result = _segmentation(sources, slices, anew[frames], kept, about)
            with replacing(path) as aside:
                result.save_as(aside, enforce_file_format=True)
        except OSError:
            raise
        except Exception as error:  # a header that breaks the standard raises almost anything, and quotes its value
            kind = type(error).__name__
            raise SourceError(
                f"the headers of the source break the standard, and highdicom refuses them ({kind})"
            ) from None
    return path


# --- the source --------------------------------------------------------------------------------------------------


def _source(files: Sequence[Path], shape: tuple[int, ...], affine: nifti.Affine) -> tuple[tuple[Slice, ...], Geometry]:
    """The slices of the image on the grid of ``affine``, in the order of its geometry."""
    try:
        slices = [one for path in dict.fromkeys(files) for one in slices_of(path)]
    except (NoSliceError, OSError):
        raise SourceError("a file of the source series can no longer be read: copy the series again") from None
    if not slices:
        raise SourceError("no file of the source series was given")
    if (count := len({one.series_uid for one in slices})) > 1:
        raise SourceError(f"the source files are of {count} series: give those of the t1c alone")
    stacks = [stack_of(image, converters.same_pixels) for image in images_of(slices)]
    grids = [(stack.slices, stack.geometry) for stack in stacks if stack.geometry is not None]
    if not grids:
        raise SourceError(f"the source is no volume: {'; '.join(dict.fromkeys(stacks[0].problems))}")
    away = [_away_mm(shape, affine, geometry) for _, geometry in grids]
    best = int(np.argmin(away))
    if away[best] > GRID_MM:
        size, have = (" x ".join(map(str, sides)) for sides in (shape, grids[best][1].size))
        apart = f"a corner lies {away[best]:.3g} mm off" if np.isfinite(away[best]) else "the axes do not fit"
        raise SourceError(
            f"the label map ({size} voxels) does not lie on the grid of the source series ({have}): {apart}; bring it "
            "onto the grid of the source t1c"
        )
    return grids[best]


def _headers(slices: Sequence[Slice]) -> list[Dataset]:
    """The headers of the source's files, without pixels, ready for highdicom; one file where it is multi-frame.

    What must be equal in all is the first's: the directions of scanners differ in the last digits.
    """
    sources: list[Dataset] = [
        pydicom.dcmread(path, stop_before_pixels=True) for path in dict.fromkeys(one.path for one in slices)
    ]
    for keyword in IDENTIFIERS:
        if missing := sum(not source.get(keyword) for source in sources):
            raise SourceError(
                f"{missing} of the {len(sources)} files of the source have no {keyword}, as after de-identification: "
                "a segmentation would belong to no image, and none is made up; use labels.nii.gz or labels.seg.nrrd"
            )
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        if (count := len({str(source.get(keyword)) for source in sources})) > 1:
            raise SourceError(f"the files of the source name {count} different {keyword}: no series has")
    if slices[0].frames > 1:
        frames = sources[0].PerFrameFunctionalGroupsSequence
        chosen = [frames[one.frame] for one in slices]
        sources[0].PerFrameFunctionalGroupsSequence = Items(chosen)
        sources[0].NumberOfFrames = len(chosen)
        shared = sources[0].SharedFunctionalGroupsSequence[0]
        for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            if name not in shared:
                setattr(shared, name, chosen[0][name].value)
        return sources
    if len(sources) < len(slices):
        raise SourceError("the source mixes files of one and of many slices: export the series again")
    for source in sources:
        for keyword in ("ImageOrientationPatient", "PixelSpacing"):
            setattr(source, keyword, sources[0][keyword].value)
    return sources


def _matrix(geometry: Geometry) -> npt.NDArray[np.float64]:
    """From (column, row, slice) to mm in LPS."""
    matrix = np.eye(4)
    matrix[:3, :3] = geometry.axes * geometry.spacing
    matrix[:3, 3] = geometry.origin
    return matrix


def _turn(affine: nifti.Affine, geometry: Geometry) -> npt.NDArray[np.float64]:
    """How axes (x, y, z) run along (column, row, slice): 3 x 3 of -1, 0, 1, or of anything else where they do not."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]
    return np.rint(np.linalg.solve(geometry.axes * geometry.spacing, lps))


def _away_mm(shape: tuple[int, ...], affine: nifti.Affine, geometry: Geometry) -> float:
    """The largest distance between corners of the label map and of the source; infinite where they do not pair up."""
    if len(shape) != 3 or affine.shape != (4, 4) or not np.isfinite(affine).all():
        return np.inf
    turn = _turn(affine, geometry)
    if not np.array_equal(np.abs(turn) @ np.abs(turn).T, np.eye(3)) or not np.isin(turn, (-1, 0, 1)).all():
        return np.inf
    if tuple(np.abs(turn) @ shape) != geometry.size:
        return np.inf
    last = np.array(shape) - 1
    corners = np.array(np.meshgrid(*((0, side) for side in last))).reshape(3, -1)
    there = turn @ corners + np.where(turn.sum(axis=1) < 0, np.array(geometry.size) - 1, 0)[:, None]
    ours = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine) @ np.vstack([corners, np.ones(8)])
    theirs = _matrix(geometry) @ np.vstack([there, np.ones(8)])
    return float(np.linalg.norm((ours - theirs)[:3], axis=0).max())


def _on_frames(
    labels: npt.NDArray[np.unsignedinteger[Any]], affine: nifti.Affine, geometry: Geometry
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The label map as (slice, row, column) of the source."""
    turn = _turn(affine, geometry)[::-1]
    placed = labels.transpose(np.abs(turn).argmax(axis=1))
    return np.ascontiguousarray(np.flip(placed, tuple(np.flatnonzero(turn.sum(axis=1) < 0).tolist())))


# --- the segmentation --------------------------------------------------------------------------------------------


def _segmentation(
    sources: Sequence[Dataset],
    slices: Sequence[Slice],
    frames: npt.NDArray[np.unsignedinteger[Any]],
    segments: Sequence[Segment],
    about: About,
) -> Dataset:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    model = about.model.encode("ascii", "replace").decode()[:LONGEST]  # whatever the source's character set
    algorithm = hd.AlgorithmIdentificationSequence(model, codes.DCM.ArtificialIntelligence, about.version[:LONGEST])
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.label[:LONGEST],
            segmented_property_category=hd.sr.CodedConcept(*ABNORMAL),
            segmented_property_type=hd.sr.CodedConcept(*segment.code),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            anatomic_regions=[codes.SCT.Brain],
            display_color=hd.color.CIELabColor.from_string(segment.colour),
        )
        for number, segment in enumerate(segments, start=1)
    ]
    stated = [deepcopy(sources[0][keyword]) for keyword in MAY_BE_EMPTY if keyword in sources[0]]
    for source in sources:  # highdicom reads these and fails on what breaks the standard: they are copied as they are
        for keyword in MAY_BE_EMPTY:
            setattr(source, keyword, None)
    uids = _identifiers(sources, slices, frames, segments, about)
    created = about.created.astimezone(UTC)
    result = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=next(uids),
        series_number=SERIES_NUMBER,
        sop_instance_uid=next(uids),
        instance_number=1,
        manufacturer="BrainMets Transfer",
        manufacturer_model_name=model,
        software_versions=metadata.version("brainmets"),
        device_serial_number=about.version[:LONGEST],
        content_label="BRAINMETS",
        content_description="Research use only, not for diagnosis or treatment",
        specific_character_set="ISO_IR 192",
        omit_empty_frames=len(segments) * frames.size // 8 > WHOLE_BYTES,
        series_description=SERIES_DESCRIPTION.format(content=about.content)[:LONGEST],
        content_date=created.date(),
        content_time=created.time(),
    )
    result.InstanceCreationDate, result.InstanceCreationTime = result.ContentDate, result.ContentTime
    result.SeriesDate, result.SeriesTime = result.ContentDate, result.ContentTime
    result.TimezoneOffsetFromUTC = "+0000"
    for element in stated:
        result[element.tag] = element
    del result.SpecificCharacterSet  # highdicom knows few: names stay as they are written in the source
    if "SpecificCharacterSet" in sources[0]:
        result.SpecificCharacterSet = sources[0].SpecificCharacterSet
    for equipment in result.ContributingEquipmentSequence:
        equipment.pop("ContributionDateTime", None)
    for element in [one for one in result if one.tag.group == 0x0010 and one.keyword not in PATIENT]:
        del result[element.tag]
    organisation = next(uids)
    result.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    for index in result.DimensionIndexSequence:
        index.DimensionOrganizationUID = organisation
    if slices[0].frames > 1:  # highdicom counted the frames that it was given, and segments share its items
        named = {
            id(source): source
            for frame in result.PerFrameFunctionalGroupsSequence
            for derivation in frame.get("DerivationImageSequence", [])
            for source in derivation.SourceImageSequence
        }
        for source in named.values():
            source.ReferencedFrameNumber = slices[int(source.ReferencedFrameNumber) - 1].frame + 1
    return result


def _identifiers(
    sources: Sequence[Dataset],
    slices: Sequence[Slice],
    frames: npt.NDArray[np.unsignedinteger[Any]],
    segments: Sequence[Segment],
    about: About,
) -> Iterator[str]:
    """UIDs of everything that goes into the file, one after the other: 2.25 and a UUID (PS3.5, B.2)."""
    said = {
        "sources": [source.SOPInstanceUID for source in sources],
        "frames": [one.frame for one in slices],
        "segments": segments,
        "about": {**asdict(about), "created": about.created.isoformat()},
        "software": [metadata.version(name) for name in ("brainmets", "highdicom")],
        "voxels": [frames.shape, hashlib.sha256(frames.tobytes()).hexdigest()],
    }
    text = json.dumps(said, sort_keys=True, default=str)
    count = 0
    while True:
        digest = hashlib.sha256(f"{count} {text}".encode()).digest()
        yield f"2.25.{UUID(bytes=digest[:16], version=5).int}"
        count += 1
