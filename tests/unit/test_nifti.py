"""The one reader: what it refuses, what "the same grid" means, and how a volume is turned."""

import gzip
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from damaged_images import content, flip_a_bit, longer, patch_header, sheared, turned, without_end

from brainmets import nifti
from brainmets.nifti import ImageError

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def written(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    return nifti.write(path / "image.nii.gz", voxels, affine)


def test_a_grid_tells_shape_spacing_orientation_and_voxel_volume(tmp_path: Path) -> None:
    grid = nifti.read_grid(written(tmp_path, np.zeros((4, 5, 6), np.uint8), np.diag([-1.0, -2.0, 3.0, 1.0])))
    assert (grid.shape, grid.spacing, grid.orientation, grid.voxel_mm3) == ((4, 5, 6), (1, 2, 3), "LPS", 6.0)


@pytest.mark.parametrize(("shift_mm", "same"), [(0.009, True), (0.011, False)])
def test_grids_are_the_same_while_no_corner_is_further_off_than_a_hundredth_of_a_millimetre(
    tmp_path: Path, shift_mm: float, same: bool
) -> None:
    moved = AFFINE.copy()
    moved[2, 3] += shift_mm
    first, second = (
        nifti.read_grid(written(tmp_path / str(name), np.zeros((4, 5, 6), np.uint8), affine))
        for name, affine in enumerate((AFFINE, moved))
    )
    assert first.distance_mm(second) == pytest.approx(shift_mm, abs=1e-6)
    assert first.same(second) is same


def test_a_small_turn_counts_by_the_corner_it_moves_most(tmp_path: Path) -> None:
    turned = AFFINE.copy()
    turned[0, 2] = 0.001  # one thousandth a slice, over 100 slices a tenth of a millimetre
    shape = (2, 2, 100)
    first, second = (
        nifti.read_grid(written(tmp_path / str(name), np.zeros(shape, np.uint8), affine))
        for name, affine in enumerate((AFFINE, turned))
    )
    assert first.distance_mm(second) == pytest.approx(0.1, rel=1e-3)
    with pytest.raises(ImageError, match=r"another grid than image\.nii\.gz; resample it(.|\n)*shape \(2, 2, 100\)"):
        second.require_same(first, "resample it")


def test_other_shapes_are_infinitely_far_apart(tmp_path: Path) -> None:
    first, second = (
        nifti.read_grid(written(tmp_path / str(size), np.zeros((size, 5, 6), np.uint8))) for size in (4, 5)
    )
    assert first.distance_mm(second) == float("inf")


def test_what_is_no_volume_is_refused_with_its_path(tmp_path: Path) -> None:
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    with pytest.raises(ImageError, match=r"text\.nii\.gz: cannot be read"):
        nifti.read_grid(text)
    text.write_bytes(b"")
    with pytest.raises(ImageError, match=r"is empty \(0 bytes\)"):
        nifti.read_grid(text)
    four = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), AFFINE), four)
    with pytest.raises(ImageError, match=r"three dimensions, its shape is \(2, 2, 2, 3\)"):
        nifti.read_grid(four)
    other = tmp_path / "volume.mgz"
    nib.save(nib.MGHImage(np.zeros((2, 2, 2), np.float32), AFFINE), other)
    with pytest.raises(ImageError, match="is no NIfTI file"):
        nifti.read_grid(other)
    with pytest.raises(FileNotFoundError):
        nifti.read_grid(tmp_path / "absent.nii.gz")


def test_a_header_that_contradicts_its_affine_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), AFFINE)
    image.header["pixdim"][3] = 4.0
    nib.save(image, tmp_path / "image.nii.gz")
    with pytest.raises(ImageError, match=r"voxel sides of 1, 2, 4 mm, its affine 1, 2, 3 mm"):
        nifti.read_volume(tmp_path / "image.nii.gz")


def test_labels_are_never_rounded(tmp_path: Path) -> None:
    path = written(tmp_path, np.full((2, 2, 2), 0.5, np.float32))
    with pytest.raises(ImageError, match=r"image\.nii\.gz: a label map must hold whole numbers, found 0\.5 in 8"):
        nifti.read_labels(path)
    labels = nifti.read_labels(written(tmp_path, np.full((2, 2, 2), 3.0, np.float32)))
    assert labels.dtype == np.uint8 and (labels == 3).all()


def test_labels_that_the_map_does_not_name_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, np.array([[[0, 7]]], np.int16))
    with pytest.raises(ImageError, match=r"unknown label value\(s\) 7; known are 0, 1: correct the file"):
        nifti.read_labels(path, {1: 2})
    assert nifti.read_labels(path, {7: 3}).tolist() == [[[0, 3]]]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA", "IRP", "ALS"])
def test_a_volume_is_turned_to_ras_from_any_axes(axes: str) -> None:
    ras = np.arange(24).reshape(2, 3, 4)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes))
    stored = nib.apply_orientation(ras, turn)
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, ras.shape)
    turned, back = nifti.to_ras(stored, affine)
    assert np.array_equal(turned, ras)
    assert np.allclose(back, AFFINE)
    assert np.array_equal(nifti.from_ras(turned, affine), stored)


def test_an_error_crosses_processes_with_its_words() -> None:
    error = pickle.loads(pickle.dumps(ImageError(Path("a/b.nii.gz"), "is wrong", "shear")))
    assert (str(error), error.problem, error.rule) == ("a/b.nii.gz: is wrong", "is wrong", "shear")


# --- geometry that contradicts itself --------------------------------------------------------------------------------

VOXELS = np.arange(120, dtype=np.int16).reshape(6, 5, 4)


@pytest.mark.parametrize("read", [nifti.read_grid, nifti.read_volume, nifti.read_scan_grid, nifti.read_scan])
@pytest.mark.parametrize(
    ("fields", "rule", "said"),
    [
        ({"pixdim": (2, 0.0)}, "voxel sides", "voxel sides of 1, 0, 3 mm, not between"),
        ({"pixdim": (2, -2.0)}, "voxel sides", "voxel sides of 1, -2, 3 mm"),
        ({"pixdim": (1, np.nan)}, "voxel sides", "voxel sides of nan, 2, 3 mm"),
        ({"pixdim": (3, np.inf)}, "voxel sides", "voxel sides of 1, 2, inf mm"),
        ({"pixdim": (1, 0.001), "srow_x": (0, 0.001)}, "voxel sides", "0.001, 2, 3 mm"),  # metres
        ({"pixdim": (1, 1000.0), "srow_x": (0, 1000.0)}, "voxel sides", "1000, 2, 3 mm"),  # micrometres
        ({"pixdim": (1, 3.97)}, "voxel sides against affine", "voxel sides of 3.97, 2, 3 mm, its affine 1, 2, 3 mm"),
        ({"srow_x": (0, np.nan)}, "affine", "span no volume"),
        ({"srow_x": (3, np.inf)}, "affine", "span no volume"),
        ({"srow_x": (0, 0.0)}, "affine", "span no volume"),
        ({"srow_x": (1, 2.0), "srow_y": (1, 0.0)}, "affine", "span no volume"),  # two axes along one line
        (
            {"srow_x": (0, -1.0), "qform_code": 1},
            "sform against qform",
            r"sform \(LAS\) and its qform \(RAS\) .*12 mm",
        ),
        ({"srow_y": (3, 1.1), "qform_code": 1}, "sform against qform", "1.1 mm apart"),
        ({"quatern_b": 1.5, "qform_code": 1}, "qform", "its qform is no rotation"),
        ({"quatern_b": np.nan, "qform_code": 1}, "sform against qform", "its qform"),
    ],
)
def test_geometry_that_contradicts_itself_is_refused_by_every_reader(
    tmp_path: Path, read: Callable[[Path], object], fields: dict[str, object], rule: str, said: str
) -> None:
    path = written(tmp_path, VOXELS)
    patch_header(path, **fields)
    with pytest.raises(ImageError, match=said) as error:
        read(path)
    assert error.value.rule == rule


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_y": (3, 0.9), "qform_code": 1},  # within the forms' tolerance
        {"pixdim": (0, 0.0), "qform_code": 1},  # qfac 0 stands for 1
        {"pixdim": (1, 1.0005)},
    ],
)
def test_a_header_within_the_tolerances_is_read(tmp_path: Path, fields: dict[str, object]) -> None:
    path = written(tmp_path, VOXELS)
    patch_header(path, **fields)
    assert np.array_equal(nifti.read_volume(path)[0], VOXELS)


@pytest.mark.parametrize(("degrees", "refused"), [(0.09, False), (0.11, True), (8.0, True)])
def test_sheared_axes_are_refused_but_of_a_scan(tmp_path: Path, degrees: float, refused: bool) -> None:
    path = written(tmp_path, VOXELS, sheared(degrees))
    assert nifti.read_scan_grid(path).shape == VOXELS.shape
    assert np.array_equal(nifti.read_scan(path)[0], VOXELS)
    if refused:
        with pytest.raises(ImageError, match=rf"lean by {degrees:.2f} degrees: it is sheared") as error:
            nifti.read_grid(path)
        assert error.value.rule == "shear"
    else:
        assert nifti.read_grid(path).shape == VOXELS.shape


@pytest.mark.parametrize("degrees", [0.0, 7.3, 45.0, 90.0, 179.9])
def test_an_oblique_affine_is_right(tmp_path: Path, degrees: float) -> None:
    affine = turned(degrees)
    path = tmp_path / "image.nii.gz"
    image = nib.Nifti1Image(VOXELS, affine)
    image.set_qform(affine, 1)
    nib.save(image, path)
    assert np.allclose(nifti.read_grid(path).affine, affine, atol=1e-6)


@pytest.mark.parametrize("oriented", [True, False])
def test_a_header_says_whether_it_gives_an_orientation(tmp_path: Path, oriented: bool) -> None:
    path = written(tmp_path, VOXELS)
    if not oriented:
        patch_header(path, sform_code=0, qform_code=0)
    assert nifti.read_grid(path).oriented is oriented
    assert nifti.read_grid(path).to_ras().oriented is oriented


def test_voxels_that_are_no_single_numbers_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, VOXELS.astype(np.complex64))
    with pytest.raises(ImageError, match="its voxels are no single numbers") as error:
        nifti.read_volume(path)
    assert error.value.rule == "voxel type"


# --- whole files -----------------------------------------------------------------------------------------------------

FORMS = [(suffix, kind, order) for suffix in (".nii.gz", ".nii") for kind in (1, 2) for order in "<>"]


def in_form(path: Path, suffix: str, kind: int, order: str, voxels: np.ndarray = VOXELS) -> Path:
    image = (nib.Nifti1Image, nib.Nifti2Image)[kind - 1]
    header = image.header_class(endianness=order)
    header.set_data_dtype(voxels.dtype.newbyteorder(order))
    file = path / f"image{suffix}"
    nib.save(image(voxels, AFFINE, header), file)
    return file


@pytest.mark.parametrize(("suffix", "kind", "order"), FORMS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_every_form_of_nifti_is_read_as_nibabel_reads_it(
    tmp_path: Path, suffix: str, kind: int, order: str, dtype: type
) -> None:
    path = in_form(tmp_path, suffix, kind, order, VOXELS.astype(dtype))
    voxels, grid = nifti.read_volume(path)
    theirs = np.asanyarray(nib.load(path).dataobj)
    assert np.array_equal(voxels, theirs) and voxels.dtype == theirs.dtype.newbyteorder("=")
    assert np.array_equal(grid.affine, AFFINE)


@pytest.mark.parametrize("slope", [2.5, 1.0, 0.0, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_scaling_is_nibabels(tmp_path: Path, slope: float, dtype: type) -> None:
    path = written(tmp_path, VOXELS.astype(dtype))
    patch_header(path, scl_slope=slope, scl_inter=-3.0)
    voxels, theirs = nifti.read_volume(path)[0], np.asanyarray(nib.load(path).dataobj)
    assert np.array_equal(voxels, theirs) and voxels.dtype == theirs.dtype


@pytest.mark.parametrize(("suffix", "kind", "order"), FORMS)
@pytest.mark.parametrize(
    ("damage", "rule"),
    [(without_end, "truncated"), (lambda path: without_end(path, 1), "truncated"), (longer, "more than voxels")],
)
def test_a_file_that_is_too_short_or_too_long_is_refused_in_every_form(
    tmp_path: Path, suffix: str, kind: int, order: str, damage: Callable[[Path], None], rule: str
) -> None:
    path = in_form(tmp_path, suffix, kind, order)
    damage(path)
    with pytest.raises(ImageError) as error:
        nifti.read_volume(path)
    assert error.value.rule == rule
    assert str(tmp_path) not in error.value.problem


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Whatever length is left, of the plain and of the compressed file."""
    for suffix in (".nii", ".nii.gz"):
        whole = in_form(tmp_path, suffix, 1, "<").read_bytes()
        for length in range(len(whole)):
            path = tmp_path / f"cut{suffix}"
            path.write_bytes(whole[:length])
            with pytest.raises(ImageError):
                nifti.read_volume(path)


def test_gzips_checksum_and_length_are_verified(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 9, (60, 60, 60)).astype(np.uint8)
    for back in (8, 4):  # the CRC; the length
        path = written(tmp_path, voxels)
        flip_a_bit(path, back)
        assert np.array_equal(np.asanyarray(nib.load(path).dataobj), voxels)  # nibabel has no word for it
        with pytest.raises(ImageError, match=r"is damaged: .*gzip's checksum") as error:
            nifti.read_labels(path, dict.fromkeys(range(1, 9), 1))
        assert error.value.rule == "checksum"


def test_a_flipped_bit_anywhere_in_a_stored_stream_is_refused(tmp_path: Path) -> None:
    """Stored blocks inflate whatever their bytes: only the checksum tells."""
    path = tmp_path / "image.nii.gz"
    held = content(written(tmp_path, VOXELS))
    whole = gzip.compress(held, compresslevel=0, mtime=0)
    for place in range(10 + 5 + 352, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(ImageError, match="is damaged"):
            nifti.read_volume(path)


def test_members_of_a_gzip_file_are_one_stream_and_other_bytes_behind_them_are_none(tmp_path: Path) -> None:
    path = written(tmp_path, VOXELS)
    held = content(path)
    members = [gzip.compress(held[start : start + 100]) for start in range(0, len(held), 100)]
    path.write_bytes(b"".join(members) + b"\0" * 700)  # zeros may fill the last block of a tape
    assert np.array_equal(nifti.read_volume(path)[0], VOXELS)
    path.write_bytes(b"".join(members) + b"more")
    with pytest.raises(ImageError, match="what gzip did not write"):
        nifti.read_volume(path)
    damaged = bytearray(members[2])
    damaged[-8] ^= 1
    path.write_bytes(b"".join([*members[:2], bytes(damaged), *members[3:]]))
    with pytest.raises(ImageError, match="is damaged"):
        nifti.read_volume(path)


def test_a_stream_that_inflates_without_end_takes_no_memory(tmp_path: Path) -> None:
    """200 MB of zeros behind the voxels of a file of 200 kB; and a header that promises 30,000 voxels a side."""
    path = written(tmp_path, VOXELS)
    path.write_bytes(gzip.compress(content(path)) + gzip.compress(bytes(200_000_000), 1))
    tracemalloc.start()
    with pytest.raises(ImageError, match="holds more than the voxels") as error:
        nifti.read_volume(path)
    assert error.value.rule == "more than voxels"
    path = written(tmp_path, VOXELS)
    patch_header(path, dim=[3, 1500, 1500, 900, 1, 1, 1, 1])
    with pytest.raises(ImageError, match="is truncated") as error:
        nifti.read_volume(path)
    patch_header(path, dim=[3, 30_000, 30_000, 30_000, 1, 1, 1, 1])
    with pytest.raises(ImageError, match=r"promises 5\.03e\+04 GiB") as error:
        nifti.read_volume(path)
    assert error.value.rule == "too large"
    tracemalloc.stop()


def test_want_of_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or ``quarantine`` would leave sound cases out of a study on a small machine."""

    def full(*_: object) -> None:
        raise MemoryError

    path = written(tmp_path, VOXELS)
    monkeypatch.setattr(nifti, "_fill", full)
    with pytest.raises(MemoryError):
        nifti.read_volume(path)


def test_a_file_under_the_wrong_name_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, VOXELS)
    wrong = tmp_path / "image.nii"
    wrong.write_bytes(path.read_bytes())
    with pytest.raises(ImageError, match=r"its name must end with \.nii\.gz"):
        nifti.read_volume(wrong)
    path.write_bytes(content(path))
    with pytest.raises(ImageError, match="what gzip did not write"):
        nifti.read_volume(path)
    capital = tmp_path / "IMAGE.NII"
    capital.write_bytes(path.read_bytes())
    assert np.array_equal(nifti.read_volume(capital)[0], VOXELS)


@pytest.mark.real
def test_real_files_are_read_as_nibabel_reads_them(real_data: Path) -> None:
    for path in sorted((real_data / "data").rglob("*.nii.gz")):
        assert np.array_equal(nifti.read_volume(path)[0], np.asanyarray(nib.load(path).dataobj))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 4, 4), (1, 2, 3)])
def test_where_a_label_map_is_not_zero(order: str, shape: tuple[int, int, int]) -> None:
    labels = np.zeros(shape, np.uint8, order=order)
    assert nifti.around(nifti.labelled(labels)) == (slice(0, 1),) * 3
    last = tuple(size - 1 for size in shape)  # behind the last whole word of eight bytes
    labels[0, 1, 0], labels[last] = 1, 255
    assert set(zip(*nifti.labelled(labels), strict=True)) == set(zip(*np.nonzero(labels), strict=True))
    labels[last] = 0
    assert nifti.around(nifti.labelled(labels)) == (slice(0, 1), slice(1, 2), slice(0, 1))
