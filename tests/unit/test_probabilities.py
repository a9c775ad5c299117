"""The kept probabilities: what is written is read back to a step, small, whole, and nothing else is taken for it."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brainmets.nifti import ImageError
from brainmets.scoring import probabilities as kept
from brainmets.vocabulary import REGIONS

AFFINE = np.array([[-2.0, 0, 0, 5], [0, 0, 1.5, -7], [0, 3.0, 0, 1], [0, 0, 0, 1]])
SHAPE = (5, 4, 3)


def drawn(seed: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {region: generator.random(SHAPE, np.float32) for region in REGIONS}


def test_what_is_written_is_read_to_a_step_and_as_other_programs_read_it(tmp_path: Path) -> None:
    given = drawn()
    path = kept.write(tmp_path / "new" / "P1.nii.gz", given, AFFINE, 0.02)
    found, grid = kept.read(path)
    assert list(found) == ["ET", "TC", "WT"] and grid.shape == SHAPE
    np.testing.assert_allclose(grid.affine, AFFINE)
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint16 and image.shape == (*SHAPE, 3)
    np.testing.assert_allclose(image.affine, AFFINE)
    np.testing.assert_allclose(image.dataobj.slope, 1 / 65535)
    for place, region in enumerate(REGIONS):
        expected = np.where(given[region] < 0.02, 0, given[region])
        assert found[region].dtype == np.float32
        np.testing.assert_allclose(found[region], expected, atol=0.51 / 65535)
        np.testing.assert_allclose(image.get_fdata()[..., place], expected, atol=0.52 / 65535)


def test_the_floor_itself_is_kept_and_one_is_one(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[0, 0] = 0.02, 0.0199, 1
    values[1, 0, 0] = 1 + 3e-7  # a mean of float32 of folds that are all sure
    found, _ = kept.read(kept.write(tmp_path / "P1.nii.gz", dict.fromkeys(REGIONS, values), AFFINE, 0.02))
    assert found["TC"][0, 0].tolist() == [pytest.approx(0.02, abs=1e-5), 0, 1]
    assert found["TC"].max() == 1


def test_what_was_painted_as_a_label_is_what_lies_above_a_half(tmp_path: Path) -> None:
    """0.5 itself is no label, and lies between two steps; the candidates' 0.1 does so too, and stays in."""
    half, tenth = np.float32(0.5), np.float32(0.1)
    near = [half, np.nextafter(half, np.float32(1)), np.nextafter(half, np.float32(0)), tenth]
    values = np.zeros(SHAPE, np.float32)
    values[:4, 0, 0] = near
    found, _ = kept.read(kept.write(tmp_path / "P1.nii.gz", dict.fromkeys(REGIONS, values), AFFINE, 0.02))
    assert (found["ET"] > 0.5).tolist() == (values > 0.5).tolist()
    assert (found["ET"] >= tenth).tolist() == (values >= tenth).tolist()


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_a_mask_of_whole_numbers_is_no_probability(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "P1_TC.nii.gz"
    nib.save(nib.Nifti1Image(np.ones(SHAPE, kind), AFFINE), path)
    if kind is np.float32:
        assert kept.read_region(path, "TC")[0].min() == 1
        return
    with pytest.raises(ImageError, match=r"P1_TC.nii.gz: holds whole numbers .* without scaling: a mask"):
        kept.read_region(path, "TC")


def test_whole_numbers_with_a_scaling_are_probabilities(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.full(SHAPE, 0.25), AFFINE)
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "P1_TC.nii.gz")  # nibabel writes a slope
    assert kept.read_region(tmp_path / "P1_TC.nii.gz", "TC")[0] == pytest.approx(0.25, abs=1e-4)


def test_the_same_probabilities_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (kept.write(tmp_path / name, drawn(), AFFINE, 0.02).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert one == other


@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, np.inf, -np.inf])
def test_no_other_numbers_are_written_or_read(tmp_path: Path, value: float) -> None:
    given = drawn()
    given["WT"][2, 1, 0] = value
    with pytest.raises(ValueError, match=r"P1\.nii\.gz: values of WT from .* are no probabilities"):
        kept.write(tmp_path / "P1.nii.gz", given, AFFINE, 0.02)
    assert not any(tmp_path.iterdir())
    volume = np.stack(list(given.values()), axis=-1)
    nib.save(nib.Nifti1Image(volume, AFFINE), tmp_path / "P1.nii.gz")
    with pytest.raises(ImageError, match=r"values of WT from .* are no probabilities"):
        kept.read(tmp_path / "P1.nii.gz")
    nib.save(nib.Nifti1Image(given["WT"], AFFINE), tmp_path / "P1_WT.nii.gz")
    with pytest.raises(ImageError, match=r"values of WT from .* are no probabilities"):
        kept.read_region(tmp_path / "P1_WT.nii.gz", "WT")


def test_other_regions_floors_and_shapes_are_not_written(tmp_path: Path) -> None:
    given = drawn()
    with pytest.raises(ValueError, match=r"probabilities of ET, TC, not of ET, TC, WT"):
        kept.write(tmp_path / "P1.nii.gz", {"ET": given["ET"], "TC": given["TC"]}, AFFINE, 0.02)
    for floor in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"floor: .* must be from 0 to 1"):
            kept.write(tmp_path / "P1.nii.gz", given, AFFINE, floor)
    given["WT"] = given["WT"].transpose(1, 0, 2)
    with pytest.raises(ValueError, match=r"uint16 of shape \(4, 5, 3\) beside uint16 of \(5, 4, 3\)"):
        kept.write(tmp_path / "P1.nii.gz", given, AFFINE, 0.02)
    assert not any(tmp_path.iterdir())


def test_floats_of_other_people_are_read(tmp_path: Path) -> None:
    given = drawn()
    nib.save(nib.Nifti1Image(np.stack(list(given.values()), axis=-1), AFFINE), tmp_path / "P1.nii.gz")
    found, _ = kept.read(tmp_path / "P1.nii.gz")
    nib.save(nib.Nifti1Image(given["TC"], AFFINE), tmp_path / "P1_TC.nii.gz")
    region, grid = kept.read_region(tmp_path / "P1_TC.nii.gz", "TC")
    assert grid.shape == SHAPE
    assert np.array_equal(found["TC"], given["TC"]) and np.array_equal(region, given["TC"])


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    volume = np.stack(list(drawn().values()), axis=-1)
    path = tmp_path / "P1.nii.gz"

    def refused(voxels: np.ndarray, why: str, slope: float | None = None) -> None:
        image = nib.Nifti1Image(voxels, AFFINE)
        if slope is not None:
            image.header.set_slope_inter(slope, 0)
        nib.save(image, path)
        with pytest.raises(ImageError, match=why):
            kept.read(path)

    refused(volume[..., 0], r"must be 4D \(x, y, z, channel\), its shape is \(5, 4, 3\)")
    refused(volume[..., :2], "must hold 3 regions .* not 2")
    refused(volume[..., None], "must be 4D")
    refused((volume * 255).astype(np.uint8), "holds uint8 with a slope of 1 .*not probabilities")
    refused((volume * 65535).astype(np.uint16), "holds uint16 with a slope of 1 ")
    refused((volume * 100).astype(np.uint16), "with a slope of 0.0001", slope=1e-4)
    refused(volume * 100, "from .* to 9.* are no probabilities")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept.write(tmp_path / "P1.nii.gz", drawn(), AFFINE, 0.02)
    before = path.read_bytes()
    written = []
    write = gzip.GzipFile.write

    def full(stream: gzip.GzipFile, data: bytes) -> int:
        written.append(len(data))
        if len(written) == 3:  # the header and one region are on the disk
            raise OSError(28, "No space left on device")
        return write(stream, data)

    monkeypatch.setattr(gzip.GzipFile, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: .*P1\.nii\.gz"):
        kept.write(path, drawn(2), AFFINE, 0.02)
    assert [file.name for file in tmp_path.iterdir()] == ["P1.nii.gz"] and path.read_bytes() == before


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = kept.write(tmp_path / "P1.nii.gz", drawn(), AFFINE, 0.02)
    content = path.read_bytes()
    for damaged in (content[:-20], content[: len(content) // 2], content[:-6] + b"\0" * 6):
        path.write_bytes(damaged)
        with pytest.raises(ImageError):
            kept.read(path)
