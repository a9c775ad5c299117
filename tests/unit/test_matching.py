"""Whether two images show the same head in the same place: phantoms, and real scans where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from nibabel.processing import resample_from_to
from scipy import ndimage

from brainmets import nifti
from brainmets.cohorts.background import head
from brainmets.cohorts.matching import CLEAR, Match, edges, match
from brainmets.phantoms import sites

SEQUENCES = ("t1n", "t2w", "t2f")
Volume = tuple[np.ndarray, np.ndarray]


def matched(first: Volume, second: Volume) -> Match:
    found = [edges(*volume) for volume in (first, second)]
    assert found[0] is not None
    assert found[1] is not None
    return match(found[0], found[1])


def phantom(seed: int = 3) -> dict[str, Volume]:
    images = sites.make_patient("source", 1, 3.0, seed=seed).images
    return {sequence: (image, np.diag([3.0, 3.0, 3.0, 1.0])) for sequence, image in images.items()}


def real(folder: Path, names: dict[str, str]) -> dict[str, Volume]:
    volumes = {sequence: nifti.read_volume(folder / name) for sequence, name in names.items()}
    return {sequence: (voxels, grid.affine) for sequence, (voxels, grid) in volumes.items()}


OPENMS = {"t1n": "T1.nii.gz", "t1c": "T1POST.nii.gz", "t2w": "T2.nii.gz", "t2f": "FLAIR.nii.gz"}
RAW = {"t1n": "T1.nii.gz", "t1c": "T1GD.nii.gz", "t2w": "T2.nii.gz", "t2f": "FLAIR.nii.gz"}


def prepared(data: Path, case: str) -> dict[str, Volume]:
    if case == "metastasis":
        name = "BraTS-MET-00110-000"
        files = {sequence: f"{name}-{sequence}.nii.gz" for sequence in ("t1c", *SEQUENCES)}
        return real(data / "data" / "metastasis" / name, files)
    return real(data / "data" / "openms" / case, OPENMS)


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_the_sequences_of_a_phantom_are_in_place(sequence: str) -> None:
    images = phantom()
    found = matched(images["t1c"], images[sequence])
    assert found.away_mm == (0, 0, 0)
    assert found.clear > 3 * CLEAR


def test_a_shift_is_found_with_its_direction_under_one_brain_mask() -> None:
    """12 mm are four voxels of 3 mm: towards the patient's right and to the feet; the mask stays where it was."""
    images = phantom()
    (t1c, affine), flair = images["t1c"], images["t2f"][0]
    shifted = np.roll(flair, (4, 0, -4), (0, 1, 2)) * head(t1c)
    found = matched((t1c, affine), (shifted, affine))
    assert found.away_mm == pytest.approx((12, 0, -12), abs=4)
    assert found.clear > CLEAR


def test_the_order_of_the_axes_does_not_matter() -> None:
    images = phantom()
    image, affine = images["t2f"]
    turned = np.flip(image.transpose(2, 0, 1), 0)
    back = np.zeros((4, 4))
    back[:3, :3] = affine[:3, :3][:, [2, 0, 1]] * [-1, 1, 1]
    back[:, 3] = affine @ [0, 0, image.shape[2] - 1, 1]
    assert matched(images["t1c"], (turned, back)).away_mm == (0, 0, 0)


def test_another_head_matches_nowhere() -> None:
    """Turned by 90 degrees, it has no place in this one."""
    images = phantom()
    image, affine = images["t2f"]
    turned = ndimage.rotate(image, 90, axes=(1, 2), reshape=False, order=1)
    assert matched(images["t1c"], (turned, affine)).clear < CLEAR


def test_what_is_too_small_or_empty_is_not_compared() -> None:
    assert edges(np.arange(120.0).reshape(6, 5, 4), np.eye(4)) is None
    assert edges(np.zeros((60, 60, 60)), np.diag([4.0, 4.0, 4.0, 1.0])) is None
    assert edges(np.ones((60, 60, 60)), np.diag([4.0, 4.0, 4.0, 1.0])) is None


@pytest.mark.real
@pytest.mark.parametrize("case", ["patient07", "patient19", "metastasis"])
def test_real_prepared_scans_are_in_place_and_a_shift_of_12_mm_is_found(real_data: Path, case: str) -> None:
    images = prepared(real_data, case)
    for sequence in SEQUENCES:
        found = matched(images["t1c"], images[sequence])
        assert found.away_mm == (0, 0, 0)
        assert found.clear > 3 * CLEAR
    voxels, affine = images["t2f"]
    found = matched(images["t1c"], (np.roll(voxels, 12, 2) * (images["t1c"][0] != 0), affine))
    assert found.distance_mm == pytest.approx(12, abs=4)


@pytest.mark.real
def test_a_real_clinical_case_resampled_by_its_headers_is_not_in_place(real_data: Path) -> None:
    """T1 was taken just before T1c and fits; T2 and FLAIR lie one to two centimetres apart."""
    images = real(real_data / "data" / "raw" / "TCGA-FG-6692", RAW)
    reference = Nifti1Image(*images["t1c"])
    found = {}
    for sequence in SEQUENCES:
        resampled = resample_from_to(Nifti1Image(*images[sequence]), reference, order=1)
        found[sequence] = matched(images["t1c"], (np.asanyarray(resampled.dataobj), reference.affine))
    assert found["t1n"].away_mm == (0, 0, 0)
    assert all(found[sequence].clear > CLEAR for sequence in SEQUENCES)
    assert all(found[sequence].distance_mm > 8 for sequence in ("t2w", "t2f"))
