"""DICOM in: sorting, broken inputs in plain words, and voxels that lie where the headers say."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_files as files
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from brainmets.preparation import converters, dicom, raw
from brainmets.preparation.scans import ScanError, Series

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
OBLIQUE = ((0.96, 0.28, 0.0), (-0.224, 0.768, 0.6))
"""Two unit vectors at a right angle."""


def found(folder: Path) -> list[Series]:
    return dicom.find_series(folder)[0]


def only(folder: Path) -> Series:
    (series,) = found(folder)
    return series


def at(image: sitk.Image, place: np.ndarray) -> float:
    """The voxel at a place in mm."""
    index = image.TransformPhysicalPointToContinuousIndex(place.tolist())
    assert np.allclose(index, np.rint(index), atol=0.01), index
    return float(image[[round(part) for part in index]])


# --- broken inputs -----------------------------------------------------------------------------------------------


def every(**tags: Any) -> Callable[[Path], object]:
    """A series with wrong headers in every file."""
    return lambda folder: files.write_series(folder / "scan", **tags)


def edited(edit: Callable[[int, Dataset], None]) -> Callable[[Path], object]:
    return lambda folder: files.write_series(folder / "scan", edit=edit)


def without(*lost: int) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        written = files.write_series(folder / "scan")
        for slice_ in lost:
            written[slice_].unlink()

    return write


def beside(name: str, content: bytes) -> Callable[[Path], object]:
    """A good series and one more file."""

    def write(folder: Path) -> None:
        files.write_series(folder / "scan")
        (folder / name).write_bytes(content)

    return write


def moved(slice_: int, by: tuple[float, float, float]) -> Callable[[int, Dataset], None]:
    def edit(k: int, data: Dataset) -> None:
        if k == slice_:
            data.ImagePositionPatient = [float(a) + b for a, b in zip(data.ImagePositionPatient, by, strict=True)]

    return edit


def in_one(**tags: Any) -> Callable[[Path], object]:
    """A series with wrong headers in slice 4."""
    return lambda folder: files.change(files.write_series(folder / "scan")[3:4], **tags)


def cut(share: float) -> Callable[[Path], object]:
    return lambda folder: files.cut(files.write_series(folder / "scan")[3], share)


def slice_again(change: int) -> Callable[[Path], object]:
    """Slice 4 a second time as another file, its pixels changed."""

    def write(folder: Path) -> None:
        data = pydicom.dcmread(files.write_series(folder / "scan")[3])
        data.SOPInstanceUID = files.uid("again")
        data.PixelData = (data.pixel_array + change).astype("<i2").tobytes()
        files.save(data, folder / "scan" / "again")

    return write


def one_identifier_for_two_slices(folder: Path) -> None:
    written = files.write_series(folder / "scan")
    files.change(written[4:5], SOPInstanceUID=pydicom.dcmread(written[5]).SOPInstanceUID)


def twice(folder: Path) -> None:
    files.write_series(folder / "a")
    files.write_series(folder / "b", series="sent again")


def several_in_one(folder: Path) -> None:
    for repeat in range(2):
        files.write_series(
            folder / str(repeat), voxels=files.pattern(8, 12, 10) + repeat, SeriesInstanceUID="1.2.3",
            edit=lambda k, data, repeat=repeat: setattr(data, "SOPInstanceUID", files.uid("several", repeat, k)),
        )  # fmt: skip


def one_uid(**second: Any) -> Callable[[Path], object]:
    """Two series under one UID."""

    def write(folder: Path) -> None:
        files.write_series(folder / "a", SeriesInstanceUID="1.2.3")
        files.write_series(folder / "b", series="other", SeriesInstanceUID="1.2.3", **second)

    return write


def two_names(folder: Path) -> None:
    files.write_series(folder / "a", "t1n")
    files.write_series(folder / "b", "t2w", name="Roe^Richard")


def localiser(folder: Path) -> None:
    for plane in (files.AXIAL, files.CORONAL, files.SAGITTAL):
        files.write_series(
            folder / "scan", voxels=files.pattern(1, 12, 10), directions=plane, series=str(plane),
            SeriesInstanceUID="1.2.3", SeriesDescription="loc", file_name=f"{plane[1]}{plane[0]}.dcm",
        )  # fmt: skip


def unknown_compression(folder: Path) -> None:
    for path in files.write_series(folder / "scan"):
        data = pydicom.dcmread(path)
        data.PixelData = pydicom.encaps.encapsulate([data.PixelData])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
        files.save(data, path)


def cut_compressed(folder: Path) -> None:
    for path in files.write_series(folder / "scan"):
        data = pydicom.dcmread(path)
        data.compress(RLELossless)
        files.save(data, path)
    files.cut(path, 0.95)


def colour(k: int, data: Dataset) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = bytes(3 * 12 * 10)


def without_pixels(k: int, data: Dataset) -> None:
    del data.PixelData


def float_pixels(k: int, data: Dataset) -> None:
    del data.PixelData
    data.BitsAllocated, data.FloatPixelData = 32, np.zeros((12, 10), "<f4").tobytes()


def report(folder: Path) -> None:
    files.write_series(folder / "scan")
    shutil.copy(SAMPLES / "reportsi.dcm", folder / "report")


def among_mr(sample: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        files.write_series(folder / "scan")
        shutil.copy(SAMPLES / sample, folder / "other")

    return write


def nothing(folder: Path) -> None:
    pass


def frames_without_positions(folder: Path) -> None:
    def edit(data: Dataset) -> None:
        del data.PerFrameFunctionalGroupsSequence, data.SharedFunctionalGroupsSequence

    files.write_enhanced(folder / "old.dcm", edit=edit)


def no_orientation(folder: Path) -> None:
    (folder / "P1").mkdir()
    image = nib.Nifti1Image(files.pattern(8, 12, 10), np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, folder / "P1" / "t1.nii.gz")


BROKEN: dict[str, tuple[Callable[[Path], object], str, bool | None]] = {
    # name: (what is written, what must be said, whether the series it is said of can still be read; None: no series)
    "an empty folder": (nothing, "the folder is empty", None),
    "no DICOM": (lambda f: (f / "notes.txt").write_text("hello"), "holds no DICOM image", None),
    "junk beside": (beside("notes.txt", b"hello"), "1 file: no DICOM: left out", None),
    "an empty file": (beside("IM9999", b""), "1 file: empty (0 bytes): copy them again", None),
    "junk named dcm": (beside("a.dcm", b"\0\1" * 500), "1 file: damaged or no DICOM despite their names", None),
    "an archive": (beside("more.zip", b"PK"), "1 file: archives, which are not opened: unpack them", None),
    "a report": (report, "1 file: no images (1 SR): left out", None),
    "cut in its pixels": (cut(0.95), "1 of 8 files: is cut short (162 of 240 bytes of pixels)", False),
    "cut in its header": (cut(0.3), "1 slice missing: a gap of 4 mm between slices 3 and 4", False),
    "cut while compressed": (cut_compressed, "1 of 8 files: is cut short", False),
    "no pixels": (edited(without_pixels), "8 of 8 files: ends before its pixels", False),
    "float pixels": (edited(float_pixels), "holds no whole-number pixels", False),
    "a missing slice": (
        without(3), "1 slice missing: a gap of 4 mm between slices 3 and 4, the others are 2 mm apart", False,
    ),
    "several missing": (
        without(2, 5, 6), "3 slices missing: a gap of 4 mm between slices 2 and 3, and at 1 more place", False,
    ),
    "unequal spacing": (
        edited(moved(3, (0, 0, 0.7))), "its slices are not evenly spaced: from 1.3 to 2.7 mm apart", False,
    ),
    "a shifted slice": (edited(moved(3, (0, 4.0, 0))), "shifted against each other by up to 4 mm", False),
    "only every second": (every(SpacingBetweenSlices="1"), "its header says 1 mm: only one in 2 may be here", True),
    "fewer than promised": (every(ImagesInAcquisition=20), "the header promises 20 images, 8 are here", True),
    "a slice twice": (slice_again(0), "1 slice stored twice, with identical pixels: one of each is taken", True),
    "a slice in two versions": (
        slice_again(1), "1 of its 8 positions hold several slices with different pixels (the first is slice 4)", False,
    ),
    "several images in one": (
        several_in_one, "each of its 8 positions holds 2 different slices: several images in one", False,
    ),
    "one identifier, two slices": (
        one_identifier_for_two_slices, "1 SOPInstanceUID stands for several images", True,
    ),
    "gantry tilt": (every(tilt_deg=20.0), "its stack leans by 20.0 degrees (gantry tilt)", True),
    "mixed orientations": (one_uid(directions=files.CORONAL), "its series mixes 2 orientations", True),
    "mixed matrix": (one_uid(voxels=files.pattern(8, 12, 14)), "its series mixes 2 matrix sizes", True),
    "one slice": (every(voxels=files.pattern(1, 12, 10)), "holds 1 slice only", False),
    "two slices": (every(voxels=files.pattern(2, 12, 10)), "holds 2 slices only", False),
    "a localiser in three planes": (localiser, "its 3 slices lie in 3 directions: they are no stack", False),
    "a localiser by its name": (every(SeriesDescription="3-pl loc"), "is a localiser", True),
    "a localiser by its type": (every(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "is a localiser", True),
    "a colour capture": (edited(colour), "is in colour (a capture of a screen or an overlay)", False),
    "a palette": (every(PhotometricInterpretation="PALETTE COLOR"), "is in colour", False),
    "mixed types": (in_one(PixelRepresentation=0), "1 slice missing: a gap of 4 mm between slices 3 and 4", False),
    "one slice inverted": (in_one(PhotometricInterpretation="MONOCHROME1"), "its grey values are inverted", False),
    "one slice scaled by nothing": (
        in_one(RescaleSlope="0"), "RescaleSlope 0 with RescaleIntercept 0 in 1 of 8 slices", False,
    ),
    "inverted": (every(PhotometricInterpretation="MONOCHROME1"), "its grey values are inverted", False),
    "a secondary capture": (every(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "is a secondary capture", True),
    "CT among MR": (among_mr("CT_small.dcm"), "is CT, not MR", False),
    "a segmentation among MR": (among_mr("liver_1frame.dcm"), "is SEG, not MR", False),
    "no modality": (every(Modality=None), "is of no stated modality, not MR", False),
    "an ADC map": (every(ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]), "is a map (ADC)", True),
    "reformatted": (every(ImageType=["DERIVED", "SECONDARY", "MPR"]), "is a reformatted copy (MPR)", True),
    "a projection": (every(ImageType=["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"]), "is a projection", True),
    "phase": (every(ImageType=["ORIGINAL", "PRIMARY", "P", "ND"]), "is a phase image", True),
    "a mosaic": (every(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "is a mosaic", False),
    "unknown compression": (unknown_compression, "is compressed in a way that no converter reads (MPEG-4", False),
    "no position": (every(ImagePositionPatient=None), "8 of 8 slices have no position or no orientation", False),
    "no orientation": (every(ImageOrientationPatient=None), "8 of 8 slices have no position or no orien", False),
    "orientation of zeros": (every(ImageOrientationPatient=["0"] * 6), "no position or no orientation", False),
    "skewed orientation": (
        every(ImageOrientationPatient=["1", "0", "0", "0.6", "0.8", "0"]), "no position or no orientation", False,
    ),
    "no voxel sides": (every(PixelSpacing=None), "8 of 8 slices have no PixelSpacing", False),
    "voxel sides of zero": (every(PixelSpacing=["0", "0"]), "8 of 8 slices have no PixelSpacing", False),
    "wrong bits": (every(BitsAllocated=12), "BitsAllocated is 12, which is none of 8, 16, 32", False),
    "slope of zero": (every(RescaleSlope="0"), "RescaleSlope 0 with RescaleIntercept 0 in 8 of 8 slices", False),
    "impossible matrix": (every(Rows=60_000), "has an impossible matrix (60000 rows, 10 columns)", False),
    "two patients under one UID": (
        one_uid(patient="PAT-2", name="Roe^Richard"), "its series UID stands for another patient, too", True,
    ),
    "two dates under one UID": (one_uid(date="20240305"), "its series UID stands for another date, too", True),
    "two persons under one ID": (two_names, "2 different patient names stand under one PatientID", True),
    "a duplicate series": (twice, "is the same image as series 1", True),
    "frames without positions": (frames_without_positions, "8 of 8 slices have no position", False),
    "a NIfTI without orientation": (no_orientation, "says no orientation: left and right cannot be told", False),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_input_is_named_in_plain_words_and_nobody_with_it(name: str, tmp_path: Path) -> None:
    write, said, usable = BROKEN[name]
    write(tmp_path)
    series, findings = raw.find(tmp_path)
    texts = [finding.text for finding in findings] + [text for one in series for text in one.problems]
    about = [one for one in series if any(said in problem for problem in one.problems)]
    assert any(said in text for text in texts), texts
    assert bool(about) == (usable is not None)
    assert all(one.usable == usable for one in about)
    for one in series:
        if one.usable:
            raw.read(one)
        else:
            with pytest.raises(ScanError) as refused:
                raw.read(one)
            texts.append(str(refused.value))
    secrets = ("Doe", "Roe", "PAT-", "20240", "General", "1.2.826", str(tmp_path), tmp_path.name)
    assert not [text for text in texts for secret in secrets if secret.casefold() in text.casefold()]


def test_a_good_series_has_no_problem_and_its_headers_are_read(tmp_path: Path) -> None:
    files.write_series(tmp_path, "t1c", time="101500.123")
    series, findings = dicom.find_series(tmp_path)
    (one,) = series
    assert (findings, one.problems, one.usable) == ([], (), True)
    assert (one.patient, one.date, one.number, one.kind) == ("PAT-1", "20240102", 1, "dicom")
    head = one.header
    assert (head.modality, head.description, head.contrast_agent) == ("MR", "t1_mprage_tra_KM", "Gadobutrol")
    assert (head.repetition_ms, head.echo_ms, head.inversion_ms, head.flip_angle_deg) == (1900, 2.26, 900, 9)
    assert (head.rows, head.columns, head.slices) == (12, 10, 8)
    assert head.spacing_mm == pytest.approx((1.0, 1.5, 2.0))
    assert (head.plane, head.acquisition, head.time, head.thickness_mm) == ("axial", "3D", "101500", 2.0)
    assert head.scanning_sequence == "GR\\IR"
    assert head.image_type == "ORIGINAL\\PRIMARY\\M\\ND"


def test_a_filtered_original_is_no_problem(tmp_path: Path) -> None:
    """Vendors call a filtered or distortion-corrected original DERIVED: it is the image that the clinic reads."""
    files.write_series(tmp_path, ImageType=["DERIVED", "PRIMARY", "M", "NORM", "DIS3D"])
    one = only(tmp_path)
    assert (one.problems, one.usable) == ((), True)
    assert one.header.image_type.startswith("DERIVED")


# --- sorting -----------------------------------------------------------------------------------------------------


def test_a_tree_as_a_pacs_exports_it(tmp_path: Path) -> None:
    """Two patients, two dates and two studies of one date, mixed in one folder, files without endings."""
    together = tmp_path / "DICOM" / "0001"
    for number, (patient, date, study, sequence) in enumerate(
        [("A", "20240102", "1", "t1n"), ("A", "20240102", "2", "t1c"), ("A", "20240301", "3", "t1n"),
         ("B", "20240102", "4", "t2w")]
    ):  # fmt: skip
        files.write_series(
            together, sequence, patient=patient, name=patient, date=date, study=study,
            time=f"10{number}000", file_name=f"I{number}{{:03d}}",
        )  # fmt: skip
    shutil.copy(SAMPLES / "dicomdirtests" / "DICOMDIR", tmp_path / "DICOMDIR")
    (tmp_path / ".hidden").mkdir()
    files.write_series(tmp_path / ".hidden", patient="C")
    (together / "._I0001").write_bytes(b"\0")
    series, findings = dicom.find_series(tmp_path)
    assert findings == []
    assert [(one.patient, one.date, one.number, one.header.description) for one in series] == [
        ("A", "20240102", 1, "t1_mprage_tra"), ("A", "20240102", 2, "t1_mprage_tra_KM"),
        ("A", "20240301", 1, "t1_mprage_tra"), ("B", "20240102", 1, "t2_tse_tra"),
    ]  # fmt: skip
    assert all(one.usable and not one.problems for one in series)


def test_neither_names_nor_order_of_files_matter(tmp_path: Path) -> None:
    first = tmp_path / "first"
    for number, sequence in enumerate(files.SEQUENCES):
        files.write_series(first / str(number), sequence)
    localiser(first / "loc")
    second = tmp_path / "second"
    second.mkdir()
    everything = sorted(path for path in first.rglob("*") if path.is_file())
    random.Random(1).shuffle(everything)
    for number, path in enumerate(everything):
        shutil.copy(path, second / f"{number:x}")
    one, other = found(first), found(second)
    assert len(one) == 5
    for a, b in zip(one, other, strict=True):
        assert (a.key, a.number, a.problems, a.usable, repr(a.header)) == (
            b.key, b.number, b.problems, b.usable, repr(b.header),
        )  # fmt: skip
        assert [path.read_bytes() for path in a.files] == [path.read_bytes() for path in b.files]


def test_a_copy_of_the_export_within_itself_is_passed_over(tmp_path: Path) -> None:
    written = files.write_series(tmp_path / "scan")
    shutil.copytree(tmp_path / "scan", tmp_path / "copy of scan")
    (tmp_path / "more").mkdir()
    data = pydicom.dcmread(written[2])
    data.compress(RLELossless, generate_instance_uid=False)
    files.save(data, tmp_path / "more" / "compressed")
    shutil.copy(written[3], tmp_path / "more" / "cut")
    files.cut(tmp_path / "more" / "cut", 0.95)
    one = only(tmp_path)
    assert (one.problems, one.header.slices, len(one.files)) == ((), 8, 8)
    assert raw.read(one).GetSize() == (10, 12, 8)


@pytest.mark.parametrize(
    ("values", "header"),
    [
        ([{"EchoTime": "10"}, {"EchoTime": "90"}], "echo_ms"),
        ([{"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}], "b_value"),
        ([{"TemporalPositionIdentifier": n} for n in (1, 2, 3)], None),
        ([{"AcquisitionNumber": n} for n in (1, 2)], None),
        ([{"ImageType": ["ORIGINAL", "PRIMARY", kind, "ND"]} for kind in "MP"], "image_type"),
    ],
)
def test_one_uid_with_several_images_is_taken_apart(
    values: list[dict[str, Any]], header: str | None, tmp_path: Path
) -> None:
    for number, tags in enumerate(values):
        files.write_series(
            tmp_path, series=f"image {number}", voxels=files.pattern(8, 12, 10) + number, SeriesInstanceUID="1.2.3",
            file_name=f"{number}-{{}}", **tags,
        )  # fmt: skip
    series = found(tmp_path)
    assert [one.key for one in series] == ["1.2.3", "1.2.3/2", "1.2.3/3"][: len(values)]
    assert [one.header.slices for one in series] == [8] * len(values)
    assert {problem for one in series for problem in one.problems} <= {"is a phase image"}
    if header:
        assert len({getattr(one.header, header) for one in series}) == len(values)
    read = [sitk.GetArrayFromImage(dicom.read(one)).min() for one in series]
    assert sorted(read) == [100 + number for number in range(len(values))]


def test_numbers_that_differ_from_slice_to_slice_part_nothing(tmp_path: Path) -> None:
    """Interleaved packages: each slice its own acquisition, time and a slightly other echo time, as Philips writes."""

    def edit(k: int, data: Dataset) -> None:
        data.AcquisitionNumber, data.TemporalPositionIdentifier = k + 1, 1 + k % 2
        data.SeriesTime = data.AcquisitionTime = f"10{10 + k}00"
        data.EchoTime = f"{98 + 0.01 * k:.2f}"

    files.write_series(tmp_path, "t2w", edit=edit)
    one = only(tmp_path)
    assert (one.problems, one.header.slices, one.header.time) == ((), 8, "101000")
    assert dicom.read(one).GetSize() == (10, 12, 8)


def test_a_long_time_series_stays_one_and_is_no_volume(tmp_path: Path) -> None:
    for time in range(9):
        files.write_series(
            tmp_path, series=str(time), voxels=files.pattern(3, 4, 4) + time, SeriesInstanceUID="1.2.3",
            TemporalPositionIdentifier=time + 1, file_name=f"{time}-{{}}",
        )  # fmt: skip
    one = only(tmp_path)
    assert one.problems == ("each of its 3 positions holds 9 different slices: several images in one",)
    assert not one.usable


def test_without_identifiers_the_folder_says_who_it_is(tmp_path: Path) -> None:
    files.write_series(tmp_path / "first" / "x", PatientID=None, PatientName=None, StudyDate=None)
    files.write_series(tmp_path / "second", patient="", name="Roe^Richard")
    series = found(tmp_path)
    assert [one.patient for one in series] == ["Roe^Richard", "first"]
    assert series[1].date.startswith("1.2.826.")


def test_links_are_followed_once_and_pipes_are_passed_over(tmp_path: Path) -> None:
    files.write_series(tmp_path / "elsewhere")
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "gone")
    os.mkfifo(folder / "pipe")
    assert only(folder).header.slices == 8


def test_files_and_folders_without_permission_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = files.write_series(tmp_path / "scan")
    files.write_series(tmp_path / "locked", "t2w")
    opened, listed = Path.open, os.scandir

    def no_open(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == written[0]:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    def no_list(path: Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "open", no_open)
    monkeypatch.setattr(os, "scandir", no_list)
    series, findings = dicom.find_series(tmp_path)
    assert [one.header.slices for one in series] == [7]
    assert [finding.text for finding in findings] == [
        "1 folder cannot be opened: what lies in there is not looked at", "1 file: not to be opened (no permission)",
    ]  # fmt: skip


def test_progress_counts_and_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "SAY_EVERY_S", -1.0)
    files.write_series(tmp_path)
    said: list[str] = []
    dicom.find_series(tmp_path, said.append)
    assert len(said) == 7
    assert re.fullmatch(r"reading headers: 4 of 8 files, about \d+ s left", said[3])


# --- voxels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", [files.AXIAL, files.CORONAL, files.SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("tilt", [0.0, 15.0])
@pytest.mark.parametrize("converter", ["GDCM", "dcm2niix"])
def test_every_voxel_lies_where_its_header_puts_it(
    directions: Any, tilt: float, converter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters, "CONVERTERS", {converter: converters.CONVERTERS[converter]})
    voxels = files.pattern(8, 12, 10)
    written = files.write_series(tmp_path, directions=directions, tilt_deg=tilt)
    image = dicom.read(only(tmp_path))
    assert image.GetPixelID() == sitk.sitkFloat32
    assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()) == "LPS"
    for k, path in enumerate(written):
        data = pydicom.dcmread(path)
        row, column = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        down, across = map(float, data.PixelSpacing)
        for j, i in ((0, 0), (0, 9), (11, 0), (7, 4)):
            place = np.array(data.ImagePositionPatient, float) + across * i * row + down * j * column
            assert at(image, place) == voxels[k, j, i]


@pytest.mark.parametrize("converter", ["GDCM", "dcm2niix"])
def test_each_slice_has_its_own_slope_and_intercept(
    converter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Philips writes: slice k was stored divided by its own slope."""
    monkeypatch.setattr(converters, "CONVERTERS", {converter: converters.CONVERTERS[converter]})

    def edit(k: int, data: Dataset) -> None:
        data.RescaleSlope, data.RescaleIntercept = str(0.5 * (k + 1)), str(-k)

    files.write_series(tmp_path, edit=edit)
    k = np.arange(8)[:, None, None]
    expected = files.pattern(8, 12, 10) * 0.5 * (k + 1) - k
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read(only(tmp_path))), expected.astype(np.float32))


@pytest.mark.parametrize("converter", ["GDCM", "dcm2niix"])
def test_enhanced_multi_frame_in_any_order_with_two_echoes_and_slopes(
    converter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters, "CONVERTERS", {converter: converters.CONVERTERS[converter]})
    slopes = [1.0 + k for k in range(8)]
    path = files.write_enhanced(
        tmp_path / "enhanced", "t1c", order=[5, 0, 7, 2, 1, 3, 6, 4], echoes_ms=[10, 80], slopes=slopes
    )
    series = found(tmp_path)
    assert [(one.header.echo_ms, one.header.slices, one.files) for one in series] == [
        (10, 8, (path,)), (80, 8, (path,)),
    ]  # fmt: skip
    assert series[1].key == f"{series[0].key}/2"
    head = series[0].header
    assert (head.description, head.contrast_agent, head.acquisition) == ("t1_mprage_tra_KM", "Gadobutrol", "3D")
    assert (head.repetition_ms, head.inversion_ms, head.flip_angle_deg) == (1900, 900, 9)
    assert head.spacing_mm == pytest.approx((1.0, 1.5, 2.0))
    scale = np.array(slopes)[:, None, None]
    for echo, one in enumerate(series):
        image = dicom.read(one)
        assert image.GetOrigin() == pytest.approx((-20.0, -30.0, 15.0))
        assert np.array_equal(sitk.GetArrayFromImage(image), (files.pattern(8, 12, 10) + echo) * scale)


def test_compressed_multi_frame(tmp_path: Path) -> None:
    path = files.write_enhanced(tmp_path / "enhanced", order=[5, 0, 7, 2, 1, 3, 6, 4])
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    files.save(data, path)
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read(only(tmp_path))), files.pattern(8, 12, 10))


def test_rounded_directions_make_no_tilt(tmp_path: Path) -> None:
    """Four digits of a 20 degree rotation: the axes are no longer unit vectors at a right angle, yet upright."""
    c, s = round(float(np.cos(np.radians(20))), 4), round(float(np.sin(np.radians(20))), 4)
    files.write_series(tmp_path, directions=((1.0, 0.0, 0.0), (0.0, c, s)), voxels=files.pattern(40, 12, 10))
    one = only(tmp_path)
    assert one.problems == ()
    axes = np.reshape(dicom.read(one).GetDirection(), (3, 3))
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-12)


def test_several_multi_frame_files_under_one_uid(tmp_path: Path) -> None:
    for number in range(2):
        files.write_enhanced(
            tmp_path / str(number), series=str(number), voxels=files.pattern(8, 12, 10) + 10 * number,
            echoes_ms=[10, 80], edit=lambda data: setattr(data, "SeriesInstanceUID", "1.2.3"),
        )  # fmt: skip
    series = found(tmp_path)
    assert sorted(one.key for one in series) == ["1.2.3/1.1", "1.2.3/1.2", "1.2.3/2.1", "1.2.3/2.2"]
    assert {sitk.GetArrayFromImage(dicom.read(one)).min() for one in series} == {100, 101, 110, 111}


def as_sample(name: str) -> Callable[[Path], Any]:
    """Four slices out of one real MR file, 2 mm apart."""

    def write(folder: Path) -> Any:
        for k in range(4):
            data = pydicom.dcmread(SAMPLES / name)
            data.SOPInstanceUID, data.InstanceNumber, data.ImageType = files.uid(name, k), k, ["ORIGINAL", "PRIMARY"]
            data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
            x, y, z = data.ImagePositionPatient
            data.ImagePositionPatient = [x, y, z + 2 * k]
            data.save_as(folder / str(k))

    return write


@pytest.mark.parametrize(
    "name",
    ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_padded.dcm",
     "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_expb.dcm"],
)  # fmt: skip
@pytest.mark.parametrize("converter", ["GDCM", "dcm2niix"])
def test_real_files_in_every_transfer_syntax_come_out_alike(
    name: str, converter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters, "CONVERTERS", {converter: converters.CONVERTERS[converter]})
    as_sample(name)(tmp_path)
    one = only(tmp_path)
    assert one.problems == ()
    voxels = sitk.GetArrayFromImage(dicom.read(one))
    expected = pydicom.dcmread(SAMPLES / "MR_small.dcm").pixel_array
    assert voxels.shape == (4, 64, 64)
    assert all(np.array_equal(slice_, expected) for slice_ in voxels)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_rare_ways_of_storing(syntax: Any, tmp_path: Path) -> None:
    for path in files.write_series(tmp_path):
        data = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian:
            data.PixelData = data.pixel_array.astype(">i2").tobytes()
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, data, implicit_vr=False, little_endian=syntax != ExplicitVRBigEndian)
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read(only(tmp_path))), files.pattern(8, 12, 10))


def test_bits_above_the_stored_ones_are_no_signal(tmp_path: Path) -> None:
    def edit(k: int, data: Dataset) -> None:
        data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 11, 0
        data.PixelData = (data.pixel_array.view("<u2") | 0x8000).tobytes()

    files.write_series(tmp_path, edit=edit)
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read(only(tmp_path))), files.pattern(8, 12, 10))


# --- the check of what came out ----------------------------------------------------------------------------------


def gdcm(change: Callable[[sitk.Image], sitk.Image]) -> dict[str, Any]:
    convert = converters.CONVERTERS["GDCM"]
    return {"GDCM": lambda paths: change(convert(paths))}


def shifted(image: sitk.Image) -> sitk.Image:
    image.SetOrigin([part + 0.02 for part in image.GetOrigin()])
    return image


def stretched(image: sitk.Image) -> sitk.Image:
    image.SetSpacing([1.0, 1.5, 2.03])
    return image


def turned(image: sitk.Image) -> sitk.Image:
    angle = np.radians(0.2)
    c, s = np.cos(angle), np.sin(angle)
    image.SetDirection([c, -s, 0, s, c, 0, 0, 0, 1])
    return image


def relabelled(image: sitk.Image) -> sitk.Image:
    """Left and right of the voxels exchanged under the same geometry."""
    return sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[:, :, ::-1])


def with_geometry(change: Callable[[sitk.Image], sitk.Image]) -> Callable[[sitk.Image], sitk.Image]:
    def apply(image: sitk.Image) -> sitk.Image:
        changed = change(image)
        changed.CopyInformation(image)
        return changed

    return apply


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image[:, :, :7], "10 x 12 x 7 voxels in place of 10 x 12 x 8"),
        (stretched, "spacing of 1 x 1.5 x 2.03 mm in place of 1 x 1.5 x 2 mm"),
        (shifted, "voxel (0, 0, 0) lies 0.0346 mm from where its header puts it"),
        (turned, "voxel (9, 0, 0) lies"),
        (with_geometry(relabelled), "slice 1 holds other grey values than its file"),
        (with_geometry(lambda image: image * 2), "slice 1 holds other grey values than its file"),
    ],
)
def test_a_converter_that_differs_from_the_headers_is_refused(
    change: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_series(tmp_path)
    one = only(tmp_path)
    monkeypatch.setattr(converters, "CONVERTERS", gdcm(change))
    with pytest.raises(ScanError) as refused:
        dicom.read(one)
    assert f"series 1: no converter gives what its headers promise (GDCM: {said}" in str(refused.value)


def test_the_second_converter_is_asked_where_the_first_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_series(tmp_path)
    one = only(tmp_path)
    second = converters.CONVERTERS["dcm2niix"]
    monkeypatch.setattr(converters, "CONVERTERS", {**gdcm(shifted), "dcm2niix": second})
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read(one)), files.pattern(8, 12, 10))


def test_pixels_that_nobody_can_decode(tmp_path: Path) -> None:
    as_sample("MR_small_jp2klossless.dcm")(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        data = pydicom.dcmread(path)
        (pixels,) = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1)
        data.PixelData = pydicom.encaps.encapsulate([bytes(len(pixels))])
        files.save(data, path)
    one = only(tmp_path)
    assert one.usable
    with pytest.raises(ScanError) as refused:
        dicom.read(one)
    assert "(GDCM: its pixels cannot be decoded; dcm2niix: " in str(refused.value)


def test_a_converter_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_series(tmp_path)
    one = only(tmp_path)
    monkeypatch.setattr(converters, "CONVERTERS", {"dcm2niix": converters.CONVERTERS["dcm2niix"]})
    monkeypatch.setattr(converters, "LONGEST_S", 0)
    with pytest.raises(ScanError, match=re.escape("(dcm2niix: did not end within 0 s)")):
        dicom.read(one)


def test_no_name_reaches_a_converter_and_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_series(tmp_path)
    seen: list[Path] = []

    def look(paths: list[Path]) -> sitk.Image:
        seen.extend(paths)
        for path in paths:
            content = path.read_bytes()
            assert not [word for word in (b"Doe", b"PAT-1", b"20240102", b"General", b"mprage") if word in content]
        assert paths[0].parent.stat().st_mode & 0o077 == 0
        return gdcm_alone(paths)

    gdcm_alone = converters.CONVERTERS["GDCM"]
    monkeypatch.setattr(converters, "CONVERTERS", {"GDCM": look})
    dicom.read(only(tmp_path))
    assert len(seen) == 8
    assert not seen[0].parent.exists()


def test_files_that_are_gone_or_other_when_read(tmp_path: Path) -> None:
    written = files.write_series(tmp_path)
    one = only(tmp_path)
    files.cut(written[2], 0.95)
    with pytest.raises(ScanError, match="series 1: 1 of 8 files: is cut short"):
        dicom.read(one)
    written[2].unlink()
    with pytest.raises(ScanError, match="series 1: a file of it can no longer be read"):
        dicom.read(one)


# --- damage at random --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_gives_findings_and_nothing_else(seed: int, tmp_path: Path) -> None:
    """Bytes flipped and files cut at random, classic, enhanced and compressed: read, or refused in words."""
    draw = random.Random(seed)
    written = [*files.write_series(tmp_path / "a"), files.write_enhanced(tmp_path / "b", series="e", echoes_ms=[1, 2])]
    as_sample("MR_small_RLE.dcm")(tmp_path)
    written += [tmp_path / str(k) for k in range(4)]
    whole = {path: path.read_bytes() for path in written}
    for _ in range(6):
        for path, good in whole.items():
            path.write_bytes(good)
            if draw.random() < 0.5:
                continue
            bad = bytearray(good)
            for _ in range(draw.choice([1, 3, 30])):
                bad[draw.randrange(len(bad))] = draw.randrange(256)
            path.write_bytes(bad[: draw.choice([len(bad), draw.randrange(len(bad))])])
        series, findings = dicom.find_series(tmp_path)
        assert series or [finding for finding in findings if finding.severity == "error"]
        for one in series:
            try:
                dicom.read(one)
            except ScanError:
                assert True
