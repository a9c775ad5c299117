"""DICOM segmentations: on the source's own frames to the digit, whatever its geometry, or refused.

Read back twice: by highdicom, and by pydicom alone from positions, directions and bits.
"""

import random
import re
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dicom_files as files
import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from brainmets.phantoms import scanner
from brainmets.preparation import raw, series
from brainmets.preparation.pipeline import along_ras
from brainmets.preparation.scans import Series
from brainmets.screening import dicom_seg
from brainmets.screening.dicom_seg import About, Code, Segment, SourceError

OBLIQUE = ((0.96, 0.28, 0.0), (-0.224, 0.768, 0.6))
BACKWARDS = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
"""Rows counted from the back: slices run downwards."""
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ABOUT = About("demo segresnet", "0123abcd", datetime(2025, 5, 4, 3, 2, 1, tzinfo=UTC), "labels")
PATIENTS = 4


def only(folder: Path) -> Series:
    (found,) = raw.find(folder)[0]
    return found


def grid_of(source: Series) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    """Shape and affine of the image as the preparation reads it."""
    voxels, affine = along_ras(raw.read(source))
    return voxels.shape, affine


def drawn(shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.uint8]:
    """Single voxels of every label, the corners of the grid among them, and a slice without any."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.arange(5, dtype=np.uint8), shape, p=(0.9, 0.025, 0.025, 0.025, 0.025))
    labels[:, :, shape[2] // 2] = 0
    labels[0, 0, 0], labels[-1, -1, -1], labels[-1, 0, 0] = 1, 3, 2
    return labels


def written(
    folder: Path, labels: npt.NDArray[Any], affine: npt.NDArray[np.float64], source: Iterable[Path], **changes: Any
) -> Path:
    """A segmentation of files in shuffled order."""
    shuffled = list(source)
    random.Random(3).shuffle(shuffled)
    given = {"segments": dicom_seg.label_segments(), "about": ABOUT, **changes}
    path = dicom_seg.write(folder / "labels.dcm", labels, affine, shuffled, **given)
    assert path is not None
    return path


def in_mm(labels: npt.NDArray[Any], affine: npt.NDArray[np.float64], value: int) -> npt.NDArray[np.float64]:
    """Where the voxels of a value lie, mm in LPS, sorted."""
    places = np.argwhere(labels == value)
    return by_place((LPS @ affine @ np.c_[places, np.ones(len(places))].T).T[:, :3])


def by_place(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return places[np.lexsort(np.round(places, 2).T)]


def read_by_hand(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """The voxels of each segment by its label, mm in LPS, from the headers of the segmentation alone."""
    data = pydicom.dcmread(path)
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")
    size = data.Rows * data.Columns
    shared = data.SharedFunctionalGroupsSequence[0]
    along = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    names = {segment.SegmentNumber: segment.SegmentLabel for segment in data.SegmentSequence}
    found: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in names.values()}
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        plane = bits[number * size : (number + 1) * size].reshape(data.Rows, data.Columns)
        group = frame if "SegmentIdentificationSequence" in frame else shared
        segment = names[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(plane)
        found[segment].append(
            corner + columns[:, None] * between_columns * along[0] + rows[:, None] * between_rows * along[1]
        )
    return {name: by_place(np.concatenate(places)) for name, places in found.items()}


def frames_of(source: Iterable[Path]) -> dict[tuple[str, int], tuple[list[Any], list[Any]]]:
    """Position and direction of every source frame, by SOPInstanceUID and number (0 in a classic file)."""
    found = {}
    for path in source:
        data = pydicom.dcmread(path, stop_before_pixels=True)
        if "PerFrameFunctionalGroupsSequence" not in data:
            found[data.SOPInstanceUID, 0] = list(data.ImagePositionPatient), list(data.ImageOrientationPatient)
            continue
        shared = data.SharedFunctionalGroupsSequence[0]
        for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence, start=1):
            group = frame if "PlaneOrientationSequence" in frame else shared
            directions = list(group.PlaneOrientationSequence[0].ImageOrientationPatient)
            found[data.SOPInstanceUID, number] = list(frame.PlanePositionSequence[0].ImagePositionPatient), directions
    return found


def assert_on_source(path: Path, source: Iterable[Path]) -> None:
    """Every frame names a frame of the source and has its position and direction to the digit."""
    data = pydicom.dcmread(path)
    known = frames_of(source)
    direction = list(data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient)
    for frame in data.PerFrameFunctionalGroupsSequence:
        (derivation,) = frame.DerivationImageSequence
        (named,) = derivation.SourceImageSequence
        key = named.ReferencedSOPInstanceUID, int(named.get("ReferencedFrameNumber", 0))
        assert (list(frame.PlanePositionSequence[0].ImagePositionPatient), direction) == known[key]


def assert_same(path: Path, labels: npt.NDArray[Any], affine: npt.NDArray[np.float64], source: Iterable[Path]) -> None:
    """Voxel for voxel the label map: by highdicom on the label map's grid, and by hand in mm."""
    source = list(source)
    assert_on_source(path, source)
    by_hand = read_by_hand(path)
    assert sorted(by_hand) == sorted(segment.label for segment in dicom_seg.label_segments())
    for segment in dicom_seg.label_segments():
        expected = in_mm(labels, affine, segment.number)
        assert by_hand[segment.label].shape == expected.shape
        assert np.abs(by_hand[segment.label] - expected).max() < 0.01


def by_highdicom(
    path: Path, labels: npt.NDArray[Any], affine: npt.NDArray[np.float64], source: Iterable[Path]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The segmentation and its source on the label map's grid, as highdicom brings them there."""
    heads = [pydicom.dcmread(one) for one in source]
    grid = hd.Volume(labels, LPS @ affine, "PATIENT", heads[0].FrameOfReferenceUID)
    segmentation = hd.seg.segread(path)
    image = hd.Image.from_dataset(heads[0]).get_volume() if len(heads) == 1 else hd.get_volume_from_series(heads)
    volume = segmentation.get_volume(combine_segments=True)
    return volume.match_geometry(grid, tol=1e-3).array, image.match_geometry(grid, tol=1e-3).array


# --- where it lies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classic", "multi-frame"])
@pytest.mark.parametrize("directions", [files.AXIAL, files.CORONAL, files.SAGITTAL, OBLIQUE, BACKWARDS])
def test_read_back_voxel_for_voxel(tmp_path: Path, kind: str, directions: Any) -> None:
    """Voxels are 1 x 1.5 x 2 mm, so that no exchange of axes goes unseen."""
    if kind == "classic":
        files.write_series(tmp_path / "scan", directions=directions)
    else:
        order = [5, 2, 7, 0, 1, 6, 3, 4]
        files.write_enhanced(tmp_path / "scan" / "one.dcm", directions=directions, order=order)
    source = only(tmp_path / "scan")
    voxels, affine = along_ras(raw.read(source))
    labels = drawn(voxels.shape)
    path = written(tmp_path, labels, affine, source.files)
    assert_same(path, labels, affine, source.files)
    found, image = by_highdicom(path, labels, affine, source.files)
    assert np.array_equal(found, labels)
    assert np.array_equal(image, voxels)


def test_axes_of_the_label_map_may_run_anyhow(tmp_path: Path) -> None:
    source = files.write_series(tmp_path / "scan", directions=OBLIQUE)
    voxels, affine = along_ras(raw.read(only(tmp_path / "scan")))
    labels = drawn(voxels.shape)
    first = written(tmp_path / "one", labels, affine, source).read_bytes()
    turn = np.array([[0, 0, -1, labels.shape[0] - 1], [1, 0, 0, 0], [0, -1, 0, labels.shape[2] - 1], [0, 0, 0, 1]])
    turned = np.flip(labels.transpose(1, 2, 0), (1, 2))
    assert turned[3, 2, 1] == labels[tuple((turn @ (3, 2, 1, 1))[[0, 1, 2]])]
    assert written(tmp_path / "other", turned, affine @ turn, source).read_bytes() == first


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Series]:
    """Every usable series of phantoms of all three vendors, one of them multi-frame."""
    folder = scanner.make_scanner_cohort(tmp_path_factory.mktemp("phantoms") / "raw", PATIENTS, 5.0, seed=7)
    return [one for one in raw.find(folder / "dicom")[0] if one.usable]


@pytest.mark.slow
def test_every_series_of_the_scanner_phantoms(phantoms: list[Series], tmp_path: Path) -> None:
    seen = set()
    for one in phantoms:
        voxels, affine = along_ras(raw.read(one))
        labels = drawn(voxels.shape, one.number)
        path = written(tmp_path, labels, affine, one.files)
        assert_same(path, labels, affine, one.files)
        found, image = by_highdicom(path, labels, affine, one.files)
        assert np.array_equal(found, labels)
        assert np.allclose(image, voxels, rtol=1e-6)
        straight = bool(
            np.isclose(np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).max(axis=0), 1).all()
        )
        data = pydicom.dcmread(one.files[0], stop_before_pixels=True)
        seen.add((data.Manufacturer, one.header.plane, straight, len(one.files) == 1))
    assert len({manufacturer for manufacturer, *_ in seen}) == 3
    assert {"axial", "sagittal"} <= {plane for _, plane, *_ in seen}
    assert any(not straight for *_, straight, _ in seen), "no oblique series"
    assert {(straight, many) for _, _, straight, many in seen} >= {(True, True), (False, True)}


def through(scan: list[Series], folder: Path) -> None:
    """As a screening goes: take the t1c of a sorted scan, read it, draw on its voxels, write, read back."""
    chosen = series.choose(series.guess(scan).assign(case="scan"), "scan")
    (t1c,) = (one for one in scan if one.number == chosen["t1c"])
    voxels, affine = along_ras(raw.read(t1c))
    labels = np.where(voxels > np.quantile(voxels, 0.97), 3, 0).astype(np.uint8)
    path = dicom_seg.write(folder / "t1c.dcm", labels, affine, t1c.files, dicom_seg.label_segments(), ABOUT)
    assert path is not None
    found, image = by_highdicom(path, labels, affine, t1c.files)
    assert np.array_equal(found > 0, labels > 0)
    assert np.allclose(image, voxels, rtol=1e-6)
    assert np.abs(read_by_hand(path)["Enhancing tumour"] - in_mm(labels, affine, 3)).max() < 0.01


def test_from_a_scan_to_the_segmentation(tmp_path: Path) -> None:
    voxels = files.pattern(24, 30, 28)
    for minute, sequence in enumerate(files.SEQUENCES):
        files.write_series(
            tmp_path / "scan", sequence, voxels=voxels, directions=OBLIQUE, time=f"10{minute:02d}00",
            file_name=f"{sequence}_{{:04d}}.dcm", origin=(minute, 0, 0), spacing=(6, 5, 7),
        )  # fmt: skip
    through(raw.find(tmp_path / "scan")[0], tmp_path)


@pytest.mark.slow
def test_from_phantoms_to_the_segmentation(phantoms: list[Series], tmp_path: Path) -> None:
    for patient in sorted({one.patient for one in phantoms}):
        through([one for one in phantoms if one.patient == patient], tmp_path)


def test_leaning_slices_keep_their_places(tmp_path: Path) -> None:
    source = files.write_series(tmp_path / "scan", tilt_deg=20)
    shape, affine = grid_of(only(tmp_path / "scan"))
    labels = drawn(shape)
    assert_same(written(tmp_path, labels, affine, source), labels, affine, source)


def test_directions_that_differ_in_the_last_digit(tmp_path: Path) -> None:
    def jitter(k: int, data: Dataset) -> None:
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 1e-6 * (k % 3)]

    source = files.write_series(tmp_path / "scan", edit=jitter)
    shape, affine = grid_of(only(tmp_path / "scan"))
    labels = drawn(shape)
    path = written(tmp_path, labels, affine, source)
    assert np.abs(read_by_hand(path)["Enhancing tumour"] - in_mm(labels, affine, 3)).max() < 0.01


def test_a_multi_frame_file_that_says_all_per_frame(tmp_path: Path) -> None:
    def per_frame(data: Dataset) -> None:
        shared = data.SharedFunctionalGroupsSequence[0]
        for frame in data.PerFrameFunctionalGroupsSequence:
            for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
                setattr(frame, name, shared[name].value)
        del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence

    source = [files.write_enhanced(tmp_path / "scan" / "one.dcm", directions=OBLIQUE, edit=per_frame)]
    shape, affine = grid_of(only(tmp_path / "scan"))
    labels = drawn(shape)
    assert_same(written(tmp_path, labels, affine, source), labels, affine, source)


def test_two_echoes_in_one_multi_frame_file(tmp_path: Path) -> None:
    """Every position is there twice: the frames of one echo are named."""
    path = files.write_enhanced(tmp_path / "scan" / "one.dcm", echoes_ms=(10, 80))
    shape, affine = grid_of(raw.find(tmp_path / "scan")[0][0])
    labels = drawn(shape)
    result = written(tmp_path, labels, affine, [path])
    assert_same(result, labels, affine, [path])
    frames = pydicom.dcmread(result).PerFrameFunctionalGroupsSequence
    named = {int(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber) for frame in frames}
    assert named <= set(range(1, 9))


def test_a_slice_that_is_stored_twice(tmp_path: Path) -> None:
    source = files.write_series(tmp_path / "scan")
    twin = tmp_path / "scan" / "twin.dcm"
    shutil.copy(source[3], twin)
    files.change([twin], SOPInstanceUID=files.uid("twin"))
    shape, affine = grid_of(only(tmp_path / "scan"))
    labels = drawn(shape)
    assert_same(written(tmp_path, labels, affine, [*source, twin]), labels, affine, [*source, twin])


def test_pixels_are_not_needed(tmp_path: Path) -> None:
    source = files.write_series(tmp_path / "scan")
    shape, affine = grid_of(only(tmp_path / "scan"))
    for path in source:
        data = pydicom.dcmread(path)
        data.compress(RLELossless, generate_instance_uid=False)
        fragment = data.PixelData
        data.PixelData = fragment[:-12] + b"\xff" * 4 + fragment[-8:]  # no decoder would give its pixels
        data.save_as(path)
    labels = drawn(shape)
    assert_same(written(tmp_path, labels, affine, source), labels, affine, source)


# --- what it says ------------------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path: Path) -> tuple[list[Path], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Files, a label map on their grid, its affine."""
    source = files.write_series(tmp_path / "scan", "t1c", OperatorsName="Operator^Olga")
    shape, affine = grid_of(only(tmp_path / "scan"))
    return source, drawn(shape), affine


def test_headers(scan: Any, tmp_path: Path) -> None:
    source, labels, affine = scan
    files.change(
        source, PatientComments="lives at Hollow Lane", SpecificCharacterSet="ISO_IR 192", PatientName="Дое^Ян"
    )
    data = pydicom.dcmread(written(tmp_path, labels, affine, source))
    first = pydicom.dcmread(source[0])
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        assert data[keyword].value == first[keyword].value
    assert data.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert data.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID
    assert (data.SOPClassUID.name, data.SegmentationType, data.Modality) == ("Segmentation Storage", "BINARY", "SEG")
    assert data.SeriesDescription == "Research use only: BrainMets labels"
    assert (data.ContentDate, data.ContentTime) == ("20250504", "030201")
    assert data.ContentCreatorName == "" if "ContentCreatorName" in data else True
    text = str(data)
    assert "Olga" not in text
    assert "Hollow Lane" not in text
    codes = {}
    for segment in data.SegmentSequence:
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("demo segresnet", "0123abcd")
        code = segment.SegmentedPropertyTypeCodeSequence[0]
        codes[segment.SegmentNumber] = (segment.SegmentLabel, code.CodeValue, code.CodingSchemeDesignator)
    assert codes == {
        1: ("Non-enhancing tumour core", "C81175", "NCIt"),
        2: ("Surrounding FLAIR hyperintensity", "79654002", "SCT"),
        3: ("Enhancing tumour", "C113842", "NCIt"),
        4: ("Resection cavity", "RESECTION_CAVITY", "99BRAINMETS"),
    }
    shown = [hd.color.CIELabColor.from_dicom_value(s.RecommendedDisplayCIELabValue) for s in data.SegmentSequence]
    for segment, colour in zip(dicom_seg.label_segments(), shown, strict=True):
        wanted = tuple(bytes.fromhex(segment.colour[1:]))
        assert np.abs(np.subtract(colour.to_rgb(clip=True), wanted)).max() <= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("characters", "name"),
    [
        (None, b"M\xfcller^Jo"),
        ("ISO_IR 100", b"M\xfcller^Jo"),
        ("ISO_IR 192", b"M\xc3\xbcller^J"),
        (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        ("GB18030", "王^小东".encode("gb18030")),
        ("NONSENSE", b"M\xfcller^Jo"),
    ],
)
def test_a_name_in_any_characters_is_copied_byte_by_byte(
    scan: Any, tmp_path: Path, characters: Any, name: bytes
) -> None:
    source, labels, affine = scan
    name = name + b" " * (len(name) % 2)
    files.change(source, SpecificCharacterSet=characters, PatientName="Q" * len(name))
    for path in source:
        path.write_bytes(path.read_bytes().replace(b"Q" * len(name), name))
    about = About("modèle", *list(vars(ABOUT).values())[1:])
    path = written(tmp_path, labels, affine, source, about=about)
    assert name in path.read_bytes()
    assert pydicom.dcmread(path).PatientName == pydicom.dcmread(source[0]).PatientName
    assert pydicom.dcmread(path).ManufacturerModelName == "mod?le"


@pytest.mark.parametrize("name", ["netc", "snfh", "et"])
def test_codes_are_those_of_the_standard(name: str) -> None:
    from pydicom.sr.codedict import codes

    code = dicom_seg.LABEL_CODES[name]
    known = {(entry.value, entry.scheme_designator, entry.meaning) for entry in codes.cid7159.concepts.values()}
    assert tuple(code) in known


def test_segments_without_a_voxel_are_left_out(scan: Any, tmp_path: Path) -> None:
    source, labels, affine = scan
    labels[labels == 2] = 0
    data = pydicom.dcmread(written(tmp_path, labels, affine, source))
    assert [(s.SegmentNumber, s.SegmentLabel) for s in data.SegmentSequence] == [
        (1, "Non-enhancing tumour core"), (2, "Enhancing tumour"), (3, "Resection cavity"),
    ]  # fmt: skip


def test_slices_without_a_voxel_are_there_while_the_file_is_small(
    scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, labels, affine = scan
    path = written(tmp_path, labels, affine, source)
    assert pydicom.dcmread(path).NumberOfFrames == 4 * 8
    monkeypatch.setattr(dicom_seg, "WHOLE_BYTES", 4 * labels.size // 8 - 1)
    path = written(tmp_path, labels, affine, source)
    marked = sum((labels == value).any(axis=(0, 1)).sum() for value in range(1, 5))
    assert pydicom.dcmread(path).NumberOfFrames == marked == 4 * 7
    assert_same(path, labels, affine, source)


def test_an_empty_label_map_gives_no_file(scan: Any, tmp_path: Path) -> None:
    source, labels, affine = scan
    path = written(tmp_path, labels, affine, source)
    empty = np.zeros_like(labels)
    assert dicom_seg.write(path, empty, affine, source, dicom_seg.label_segments(), ABOUT) is None
    assert not path.exists(), "the file of an earlier result"


def test_many_lesions(scan: Any, tmp_path: Path) -> None:
    """More than a byte counts, one voxel each, of 16-bit numbers."""
    source, labels, affine = scan
    numbers = np.zeros(labels.shape, np.uint16)
    numbers.flat[np.arange(300) * 3] = np.arange(1, 301)
    path = written(tmp_path, numbers, affine, source, segments=dicom_seg.lesion_segments(range(1, 301)))
    found = read_by_hand(path)
    assert len(found) == 300
    for number in (1, 255, 256, 257, 300):
        assert np.allclose(found[f"Lesion {number}"], in_mm(numbers, affine, number), atol=0.01)


def test_the_same_result_has_the_same_identifiers_and_another_others(scan: Any, tmp_path: Path) -> None:
    source, labels, affine = scan
    first = written(tmp_path, labels, affine, source).read_bytes()
    assert written(tmp_path, labels, affine, reversed(source)).read_bytes() == first
    seen = []
    other = labels.copy()
    other[0, 0, 0] = 3
    cases: list[tuple[npt.NDArray[np.uint8], About]] = [
        (labels, ABOUT),
        (other, ABOUT),
        (labels, About("demo default", *list(vars(ABOUT).values())[1:])),
        (labels, About(ABOUT.model, "another", ABOUT.created, ABOUT.content)),
        (labels, About(ABOUT.model, ABOUT.version, datetime(2025, 5, 4, 3, 2, 2, tzinfo=UTC), ABOUT.content)),
        (labels, About(ABOUT.model, ABOUT.version, ABOUT.created, "lesions")),
    ]
    for drawing, about in cases:
        data = pydicom.dcmread(written(tmp_path, drawing, affine, source, about=about))
        uids = {data.SOPInstanceUID, data.SeriesInstanceUID, data.DimensionIndexSequence[0].DimensionOrganizationUID}
        assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)
        seen += uids
    assert len(set(seen)) == 3 * len(cases)


def test_long_names_and_versions_are_cut(scan: Any, tmp_path: Path) -> None:
    source, labels, affine = scan
    about = About("a model " * 20, "0" * 100, ABOUT.created, "labels" * 20)
    data = pydicom.dcmread(written(tmp_path, labels, affine, source, about=about))
    assert max(len(data.SeriesDescription), len(data.ManufacturerModelName), len(data.DeviceSerialNumber)) == 64


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_without_an_identifier_none_is_made_up(scan: Any, tmp_path: Path, keyword: str, value: str | None) -> None:
    source, labels, affine = scan
    files.change(source[2:3], **{keyword: value})
    with pytest.raises(SourceError, match=f"1 of the 8 files of the source have no {keyword}.*none is made up"):
        written(tmp_path, labels, affine, source)
    assert not (tmp_path / "labels.dcm").exists()


def test_a_patient_without_a_name_stays_without(scan: Any, tmp_path: Path) -> None:
    source, labels, affine = scan
    files.change(source, **dict.fromkeys(dicom_seg.MAY_BE_EMPTY))
    data = pydicom.dcmread(written(tmp_path, labels, affine, source))
    assert [str(data[keyword].value or "") for keyword in dicom_seg.MAY_BE_EMPTY] == [""] * 8


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "PatientID"])
def test_files_that_contradict_each_other(scan: Any, tmp_path: Path, keyword: str) -> None:
    source, labels, affine = scan
    files.change(source[2:3], **{keyword: "1.2.3"})
    with pytest.raises(SourceError, match=f"2 different {keyword}"):
        written(tmp_path, labels, affine, source)


def moved(affine: npt.NDArray[np.float64], *shift: float) -> npt.NDArray[np.float64]:
    found = affine.copy()
    found[:3, 3] += shift
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels, affine: (labels, moved(affine, 0.02, 0, 0)), "a corner lies 0.02 mm off"),
        (lambda labels, affine: (labels, affine @ np.diag([1.01, 1, 1, 1])), "a corner lies"),
        (lambda labels, affine: (labels[1:], affine), r"\(9 x 12 x 8 voxels\).*\(10 x 12 x 8\)"),
        (lambda labels, affine: (labels.transpose(1, 0, 2), affine), "the axes do not fit"),
        (lambda labels, affine: (labels, affine @ np.diag([-1, 1, 1, 1])), "a corner lies"),
        (lambda labels, affine: (labels, affine * np.nan), "the axes do not fit"),
        (lambda labels, affine: (labels[0], affine), "the axes do not fit"),
    ],
)
def test_another_grid_is_refused(scan: Any, tmp_path: Path, change: Any, message: str) -> None:
    source, labels, affine = scan
    with pytest.raises(SourceError, match=message):
        written(tmp_path, *change(labels, affine), source)


def test_a_sixth_of_a_turn_is_no_axis(tmp_path: Path) -> None:
    source = files.write_series(tmp_path / "scan", voxels=files.pattern(8, 8, 8), spacing=(1, 1, 1))
    _, affine = grid_of(only(tmp_path / "scan"))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.8), -np.sin(0.8)], [np.sin(0.8), np.cos(0.8)]]
    with pytest.raises(SourceError, match="the axes do not fit"):
        written(tmp_path, np.ones((8, 8, 8), np.uint8), affine @ turn, source)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda source: source[0].write_bytes(b""), "can no longer be read"),
        (lambda source: source[0].unlink(), "can no longer be read"),
        (lambda source: source[3].unlink() or source.pop(3), "1 slice missing"),
        (lambda source: source.clear(), "no file"),
        (lambda source: files.change(source[:1], SeriesInstanceUID="1.2.3"), "of 2 series"),
        (lambda source: files.change(source, Modality="CT"), "is CT, not MR"),
        (lambda source: files.cut(source[0], 0.95), "cut short"),
    ],
)
def test_a_source_that_is_no_series(scan: Any, tmp_path: Path, spoil: Any, message: str) -> None:
    source, labels, affine = scan
    spoil(source)
    with pytest.raises(SourceError, match=message) as raised:
        written(tmp_path, labels, affine, source)
    assert not re.search(r"Doe|PAT-1|IM0|tmp", str(raised.value))


def test_values_without_a_segment(scan: Any, tmp_path: Path) -> None:
    source, labels, affine = scan
    labels[1, 1, 1] = 9
    with pytest.raises(ValueError, match="no segment says what 9 stands for"):
        written(tmp_path, labels, affine, source)


@pytest.mark.parametrize("numbers", [(1, 1), (0, 1), (70_000,)])
def test_segments_need_numbers(scan: Any, tmp_path: Path, numbers: tuple[int, ...]) -> None:
    source, labels, affine = scan
    code = Code("52988006", "SCT", "Lesion")
    with pytest.raises(ValueError, match="must be different numbers from 1 to 65535"):
        written(tmp_path, labels, affine, source, segments=[Segment(n, "Lesion", "#ff0000", code) for n in numbers])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "1960-01-01"),
        ("PatientSex", "female"),
        ("PatientAge", "64 years"),
        ("StudyTime", "10:00"),
        ("StudyDate", "2024.01.02"),
        ("AccessionNumber", "A" * 40),
        ("PatientID", "P" * 80),
        ("StudyDescription", "d" * 90),
        ("PositionReferenceIndicator", "n" * 90),
        ("SliceThickness", ""),
    ],
)
def test_headers_that_break_the_standard_are_copied_as_they_are(
    scan: Any, tmp_path: Path, keyword: str, value: str
) -> None:
    source, labels, affine = scan
    files.change(source, **{keyword: value})
    data = pydicom.dcmread(written(tmp_path, labels, affine, source))
    if keyword in data:
        assert str(data[keyword].value) == value
