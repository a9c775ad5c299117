"""Brain masks: geometry by hand, and the network on a real head."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from brainmets.preparation import brain
from brainmets.preparation.brain import brain_mask, carried, volume, widened
from brainmets.preparation.scans import ScanError

HEAD = (100, 80, 90)
"""Voxels of 2 mm along x, y, z."""


def image(array: npt.NDArray[np.generic], spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> sitk.Image:
    """From an array in ITK's order (z, y, x)."""
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(spacing)
    return made


def a_brain(sides: tuple[int, int, int] = (60, 60, 50)) -> npt.NDArray[np.uint8]:
    """A block of 2 mm voxels in the head: 60 x 60 x 50 are 1,440 mL."""
    inside = np.zeros(HEAD[::-1], np.uint8)
    inside[tuple(slice(10, 10 + side) for side in sides)] = 1
    return inside


def fake_network(monkeypatch: pytest.MonkeyPatch, inside: npt.NDArray[np.uint8]) -> None:
    """Answers at the 1 mm on which the network is asked."""
    finer = inside.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    monkeypatch.setattr(brain, "_network", lambda head: finer)


def test_the_mask_is_one_piece_without_holes_on_the_grid_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = a_brain()
    with_flaws = inside.copy()
    with_flaws[30:33, 30:33, 30:33] = 0
    with_flaws[75:80, 75:79, 90:95] = 1
    fake_network(monkeypatch, with_flaws)
    head = image(np.zeros(HEAD[::-1], np.float32))
    mask = brain_mask(head)
    assert (mask.GetSize(), mask.GetSpacing(), mask.GetPixelID()) == (HEAD, (2, 2, 2), sitk.sitkUInt8)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), inside)
    assert volume(mask) == 1440


@pytest.mark.parametrize(("sides", "says"), [((60, 30, 50), "720 mL"), ((70, 65, 65), "2366 mL")])
def test_a_volume_that_no_brain_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, sides: tuple[int, int, int], says: str
) -> None:
    fake_network(monkeypatch, a_brain(sides))
    with pytest.raises(ScanError, match=f"{says}.*supply a mask"):
        brain_mask(image(np.zeros(HEAD[::-1], np.float32)))


def test_a_margin_is_measured_in_mm_along_every_axis() -> None:
    """One voxel of 1 x 2 x 4 mm, widened by 4 mm: four, two and one voxel to either side."""
    voxel = np.zeros((5, 9, 13), np.uint8)
    voxel[2, 4, 6] = 1
    wide = sitk.GetArrayFromImage(widened(image(voxel, (1.0, 2.0, 4.0)), 4.0))
    assert [int(wide[2, 4].sum()), int(wide[2, :, 6].sum()), int(wide[:, 4, 6].sum())] == [9, 5, 3]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(widened(image(voxel), 0.0)), voxel)
    assert not sitk.GetArrayFromImage(widened(image(np.zeros_like(voxel)), 4.0)).any()


def test_a_margin_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match="margin_mm must be at least 0, not -1"):
        widened(image(np.ones((3, 3, 3), np.uint8)), -1)


def test_a_mask_is_carried_where_half_of_it_lies_inside() -> None:
    mask = np.zeros((4, 4, 8), np.uint8)
    mask[:, :, :4] = 1
    finer = sitk.Image([16, 4, 4], sitk.sitkUInt8)
    finer.SetSpacing((1.0, 2.0, 2.0))
    finer.SetOrigin((-0.5, 0.0, 0.0))
    on = sitk.GetArrayFromImage(carried(image(mask), sitk.Euler3DTransform(), finer))
    assert on[0, 0].tolist() == [1] * 8 + [0] * 8
    shift = sitk.TranslationTransform(3, (2.0, 0.0, 0.0))  # from a point of the grid to the mask
    assert sitk.GetArrayFromImage(carried(image(mask), shift, finer))[0, 0].tolist() == [1] * 6 + [0] * 10


@pytest.mark.real
@pytest.mark.slow
def test_a_real_head_gives_its_brain_and_the_same_one_whatever_the_threads(real_data: Path) -> None:
    """5.5 mm slices."""
    import torch

    folder = real_data / "data" / "raw" / "TCGA-FG-6692"
    heads = [
        sitk.DICOMOrient(sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkFloat32), "LPS")
        for name in ("T1", "T1")
    ]
    threads = torch.get_num_threads()
    masks = []
    for head, number in zip(heads, (1, 2), strict=True):
        torch.set_num_threads(number)
        masks.append(sitk.GetArrayFromImage(brain_mask(head)) > 0)
        assert torch.get_num_threads() == number
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(masks[0], masks[1])
    assert masks[0].sum() * np.prod(heads[0].GetSpacing()) / 1000 == pytest.approx(1590, rel=0.05)


def test_an_image_that_shows_nothing_has_no_brain() -> None:
    with pytest.raises(ScanError, match="no brain was found in the image; supply a mask"):
        brain_mask(image(np.zeros(HEAD[::-1], np.float32)))
