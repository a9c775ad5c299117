"""NIfTI, MetaImage and NRRD in: one head whatever the axes, and broken files in plain words."""

import gzip
import random
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import dicom_files
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from brainmets.preparation import raw, volumes
from brainmets.preparation.scans import ScanError, Series

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (6, 5, 4)


def head() -> tuple[np.ndarray, np.ndarray]:
    """Voxels (x, y, z) that differ everywhere, along L, P and S, and their affine to mm in LPS."""
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    affine[:3, 3] = -30, -40, 25
    return voxels, affine


def stored(order: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The head with its axes in another order, some of them backwards; the affine (LPS) says so."""
    voxels, affine = head()
    voxels = np.transpose(voxels, order)
    turn = np.eye(4)[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip:
            voxels = np.flip(voxels, axis)
            back = np.eye(4)
            back[axis, axis], back[axis, 3] = -1, voxels.shape[axis] - 1
            turn = turn @ back
    return np.ascontiguousarray(voxels), affine @ turn


def write_nifti(path: Path, voxels: np.ndarray, lps: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, LPS_TO_RAS @ lps), path)


def write_itk(path: Path, voxels: np.ndarray, lps: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.transpose(voxels, (2, 1, 0)))
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(sides.tolist())
    image.SetDirection((lps[:3, :3] / sides).ravel().tolist())
    sitk.WriteImage(image, str(path))


def only(folder: Path) -> Series:
    (series,) = volumes.find_series(folder)[0]
    return series


@pytest.mark.parametrize("order", [*permutations(range(3))])
@pytest.mark.parametrize("ending", ["nii", "mha", "nrrd"])
def test_one_head_in_all_48_ways_of_storing_it(ending: str, order: tuple[int, ...], tmp_path: Path) -> None:
    voxels, affine = head()
    write = write_nifti if ending == "nii" else write_itk
    for number, flips in enumerate(product((False, True), repeat=3)):
        path = tmp_path / f"P{number}" / f"t1.{ending}"
        write(path, *stored(order, flips))
    series, findings = volumes.find_series(tmp_path)
    assert (len(series), findings) == (8, [])
    for one in series:
        assert (one.problems, one.usable, one.header.plane) == ((), True, "axial")
        assert one.header.spacing_mm[2] == pytest.approx(2.0)
        assert sorted(one.header.spacing_mm) == pytest.approx([1.0, 1.5, 2.0])
        image = volumes.read(one)
        assert image.GetPixelID() == sitk.sitkFloat32
        assert np.array_equal(sitk.GetArrayFromImage(image), np.transpose(voxels, (2, 1, 0)))
        assert image.GetOrigin() == pytest.approx(tuple(affine[:3, 3]))
        assert image.GetSpacing() == pytest.approx((1.0, 1.5, 2.0))
        assert image.GetDirection() == pytest.approx(tuple(np.eye(3).ravel()))


def test_an_oblique_volume_keeps_its_place(tmp_path: Path) -> None:
    """25 degrees about x: the physical place of each voxel is the affine's, in both formats."""
    voxels, affine = head()
    angle = np.radians(25)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    write_nifti(tmp_path / "P1" / "a.nii.gz", voxels, turn @ affine)
    write_itk(tmp_path / "P1" / "b.mha", voxels, turn @ affine)
    for one in volumes.find_series(tmp_path)[0]:
        assert one.problems == ()
        image = volumes.read(one)
        for voxel in ((0, 0, 0), (5, 4, 3), (2, 1, 3)):
            place = (turn @ affine @ [*voxel, 1])[:3]
            assert image[image.TransformPhysicalPointToIndex(place.tolist())] == voxels[voxel]
            assert image.TransformPhysicalPointToContinuousIndex(place.tolist()) == pytest.approx(
                np.rint(image.TransformPhysicalPointToContinuousIndex(place.tolist())), abs=1e-3
            )


def test_the_folder_says_whose_and_when_and_the_file_what(tmp_path: Path) -> None:
    for place in ("A/T1_post.nii.gz", "A/T1_pre.nii", "B/2024/first/FLAIR.mha", "B/2025/T2.nrrd"):
        (write_nifti if ".nii" in place else write_itk)(tmp_path / place, *head())
    series, findings = volumes.find_series(tmp_path)
    assert findings == []
    assert [(one.patient, one.date, one.number, one.key, one.header.description) for one in series] == [
        ("A", "", 1, "A/T1_post.nii.gz", "T1_post"), ("A", "", 2, "A/T1_pre.nii", "T1_pre"),
        ("B", "2024/first", 1, "B/2024/first/FLAIR.mha", "FLAIR"), ("B", "2025", 1, "B/2025/T2.nrrd", "T2"),
    ]  # fmt: skip
    assert {one.kind for one in series} == {"volume"}
    head_ = series[0].header
    assert (head_.rows, head_.columns, head_.slices) == (5, 6, 4)


@pytest.mark.parametrize(
    ("name", "series"),
    [("t1-seg", 0), ("seg", 0), ("GT", 0), ("x_label", 0), ("brain_mask", 0), ("brainmask", 0), ("T1_brain", 0),
     ("lesion_roi", 0), ("tumor_segmentation", 0), ("x-labelmap", 0), ("T1GD", 1), ("segre_t1", 1), ("Brain_AX_T1", 1),
     ("t1_masked", 1), ("gtx", 1)],
)  # fmt: skip
def test_label_maps_and_masks_are_no_series(name: str, series: int, tmp_path: Path) -> None:
    write_nifti(tmp_path / "P1" / f"{name}.nii.gz", *head())
    found, findings = volumes.find_series(tmp_path)
    assert len(found) == series
    said = "1 file with names of label maps, masks or stripped brains: left out as series"
    assert (said in [finding.text for finding in findings]) == (not series)


# --- broken inputs -----------------------------------------------------------------------------------------------


def nifti(change: Callable[[nib.Nifti1Image], Any]) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        voxels, lps = head()
        image = nib.Nifti1Image(voxels, LPS_TO_RAS @ lps)
        nib.save(change(image) or image, folder / "t1.nii.gz")

    return write


def no_codes(image: nib.Nifti1Image) -> None:
    image.set_sform(None, 0)
    image.set_qform(None, 0)


def other_sides(image: nib.Nifti1Image) -> None:
    image.header["pixdim"][1:4] = 3


def of(voxels: np.ndarray) -> Callable[[Path], Any]:
    return nifti(lambda image: nib.Nifti1Image(voxels, image.affine))


def not_a_number(folder: Path) -> None:
    voxels = head()[0].astype(np.float32)
    voxels[1, 2, 3] = np.nan
    of(voxels)(folder)


def itk(name: str, change: Callable[[bytes], bytes] = bytes) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        write_itk(folder / name, *head())
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return write


def without_voxels(folder: Path) -> None:
    write_itk(folder / "t1.mhd", *head())
    for path in folder.glob("*raw"):
        path.unlink()


def leaning(image: nib.Nifti1Image) -> nib.Nifti1Image:
    affine = image.affine.copy()
    affine[1, 2] = 2 * np.tan(np.radians(10))
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


def cut(folder: Path) -> None:
    of(np.random.default_rng(1).integers(0, 999, (9, 9, 9)).astype(np.int16))(folder)
    path = folder / "t1.nii.gz"
    path.write_bytes(path.read_bytes()[:-300])


RGB = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    # name: (what is written, what must be said, when: "found" and refused, "read", or "usable" with a problem)
    "no orientation": (nifti(no_codes), "says no orientation: left and right cannot be told apart", "found"),
    "contradictory sides": (nifti(other_sides), "the header gives voxel sides of 3, 3, 3 mm", "found"),
    "4D": (of(np.zeros((4, 4, 4, 2), np.int16)), "must be one 3D volume of three dimensions", "found"),
    "2D": (of(np.zeros((4, 4), np.int16)), "must be one 3D volume of three dimensions", "found"),
    "colour": (of(RGB), "its voxels are no single numbers (colour or complex)", "found"),
    "complex": (of(np.zeros(SHAPE, np.complex64)), "its voxels are no single numbers", "found"),
    "one slice": (of(np.zeros((8, 8, 1), np.int16)), "holds 1 slice only", "found"),
    "leaning": (nifti(leaning), "its axes lean by 10.0 degrees (gantry tilt)", "usable"),
    "flat axes": (
        itk("t1.nrrd", lambda b: b.replace(b"(0,0,2)", b"(1,0,0)")), "its axes do not span a volume", "found",
    ),
    "not a number": (not_a_number, "1 voxel of it are no numbers", "read"),
    "empty": (lambda folder: (folder / "t1.nii").write_bytes(b""), "is empty (0 bytes)", "found"),
    "empty MetaImage": (lambda folder: (folder / "t1.mha").write_bytes(b""), "is empty (0 bytes)", "found"),
    "no NIfTI inside": (
        lambda folder: (folder / "t1.nii.gz").write_bytes(gzip.compress(b"text" * 200)), "cannot be read", "found",
    ),
    "cut": (cut, "is truncated", "read"),
    "MetaImage without orientation": (
        itk("t1.mha", lambda b: b.replace(b"TransformMatrix", b"Comment")), "says no orientation", "found",
    ),
    "NRRD without orientation": (
        itk("t1.nrrd", lambda b: b.replace(b"space: left-posterior-superior", b"space dimension: 3")),
        "says no orientation", "found",
    ),
    "MetaImage without its voxels": (without_voxels, "its voxels cannot be read; copy it again", "read"),
    "MetaImage of junk": (lambda folder: (folder / "t1.mha").write_bytes(b"junk" * 99), "cannot be read", "found"),
    "NRRD in colour": (
        lambda folder: sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), str(folder / "t1.nrrd")),
        "holds 3 values a voxel (colour or vectors), not one", "found",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_in_plain_words_and_no_path_with_it(name: str, tmp_path: Path) -> None:
    write, said, when = BROKEN[name]
    (tmp_path / "Doe").mkdir()
    write(tmp_path / "Doe")
    one = only(tmp_path)
    if when == "usable":
        assert one.usable
        assert said in "; ".join(one.problems)
        volumes.read(one)
        return
    assert one.usable == (when == "read")
    with pytest.raises(ScanError) as refused:
        volumes.read(one)
    assert str(refused.value).startswith("series 1: ")
    for text in [str(refused.value), *one.problems]:
        assert said in text
        assert "Doe" not in text
        assert str(tmp_path) not in text


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("content", [b"", b"Roe" * 400, b"NRRD0004\n# Roe\n", b"ObjectType = Image\nNDims = 3\n"])
def test_the_name_of_a_broken_file_is_not_told(content: bytes, ending: str, tmp_path: Path) -> None:
    """Names of files hold names of people."""
    (tmp_path / "Doe").mkdir()
    (tmp_path / "Doe" / f"Roe.{ending}").write_bytes(content)
    one = only(tmp_path)
    with pytest.raises(ScanError) as refused:
        volumes.read(one)
    assert not one.usable
    for text in [str(refused.value), *one.problems]:
        assert "Roe" not in text
        assert "Doe" not in text


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_gives_findings_and_nothing_else(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    places = [tmp_path / "P1" / f"t1.{ending}" for ending in ("nii", "nii.gz", "mha", "nrrd")]
    for path in places:
        (write_nifti if ".nii" in path.name else write_itk)(path, *head())
    whole = {path: path.read_bytes() for path in places}
    for _ in range(15):
        for path, good in whole.items():
            bad = bytearray(good)
            for _ in range(draw.choice([1, 3, 30])):
                bad[draw.randrange(min(600, len(bad)))] = draw.randrange(256)
            path.write_bytes(bad[: draw.choice([len(bad), draw.randrange(len(bad))])])
        series, _ = volumes.find_series(tmp_path)
        assert len(series) == 4
        for one in series:
            try:
                assert volumes.read(one).GetDimension() == 3
            except ScanError as error:
                assert str(error).startswith(f"series {one.number}: ")


def test_a_leaning_volume_keeps_the_place_of_each_voxel(tmp_path: Path) -> None:
    (tmp_path / "P1").mkdir()
    nifti(leaning)(tmp_path / "P1")
    voxels, _ = head()
    affine = LPS_TO_RAS @ nib.load(tmp_path / "P1" / "t1.nii.gz").affine
    image = volumes.read(only(tmp_path))
    for voxel in product((0, 5), (0, 4), (0, 3)):
        place = (affine @ [*voxel, 1])[:3]
        assert image[image.TransformPhysicalPointToIndex(place.tolist())] == voxels[voxel]


def test_an_empty_folder_and_loose_files_are_errors(tmp_path: Path) -> None:
    assert [(f.severity, f.text) for f in raw.find(tmp_path)[1]] == [
        ("error", "the folder is empty: put the export of the scans there"),
    ]
    write_nifti(tmp_path / "t1.nii.gz", *head())
    series, findings = raw.find(tmp_path)
    assert series == []
    said = "1 volume in no patient's folder: put each patient's files into one of its own"
    assert ("error", said) in [(finding.severity, finding.text) for finding in findings]


def test_dicom_and_volumes_in_one_folder(tmp_path: Path) -> None:
    write_nifti(tmp_path / "P1" / "t1.nii.gz", *head())
    assert [finding.severity for finding in raw.find(tmp_path)[1]] == []
    dicom_files.write_series(tmp_path / "P2")
    series, findings = raw.find(tmp_path)
    assert findings == []
    assert [(one.kind, one.patient) for one in series] == [("dicom", "PAT-1"), ("volume", "P1")]
    assert [raw.read(one).GetSize() for one in series] == [(10, 12, 8), (6, 5, 4)]
    write_nifti(tmp_path / "PAT-1" / "20240102" / "t2.nii.gz", *head())
    assert [(one.patient, one.number) for one in raw.find(tmp_path)[0]] == [("PAT-1", 1), ("P1", 1), ("PAT-1", 2)]


# --- label maps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["nii.gz", "mha", "nrrd"])
def test_a_label_map_lies_on_the_grid_of_its_image(ending: str, tmp_path: Path) -> None:
    """In float or in whole numbers, stored in another order than the image."""
    voxels, affine = head()
    labels, turned = stored((2, 0, 1), (True, False, True))
    write = write_nifti if ending == "nii.gz" else write_itk
    path = tmp_path / "P1" / f"seg.{ending}"
    write(path, (labels % 4).astype(np.float32), turned)
    drawn = volumes.read_labels(path)
    assert drawn.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(drawn), np.transpose(voxels % 4, (2, 1, 0)))
    assert drawn.GetOrigin() == pytest.approx(tuple(affine[:3, 3]))


@pytest.mark.parametrize("value", [0.5, -1, 256, np.nan])
def test_labels_that_are_no_whole_numbers_are_refused(value: float, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[1, 1, 1] = value
    write_nifti(tmp_path / "seg.nii.gz", labels, head()[1])
    with pytest.raises(ScanError, match=f"whole numbers from 0 to 255, found {value:g} in 1 voxels"):
        volumes.read_labels(tmp_path / "seg.nii.gz")


@pytest.mark.real
def test_real_scans_with_a_tilt_are_read_where_they_lie(real_data: Path) -> None:
    series, findings = volumes.find_series(real_data / "data" / "raw")
    assert findings == []
    assert [one.header.description for one in series] == ["FLAIR", "T1", "T1GD", "T2"]
    for one in series:
        assert one.usable
        image = volumes.read(one)
        assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()) == "LPS"
        loaded = nib.load(one.files[0])
        voxel = [size // 3 for size in loaded.shape]
        place = (LPS_TO_RAS @ loaded.affine @ [*voxel, 1])[:3]
        value = float(np.asarray(loaded.dataobj)[tuple(voxel)])
        assert image[image.TransformPhysicalPointToIndex(place.tolist())] == pytest.approx(value, rel=1e-5)
