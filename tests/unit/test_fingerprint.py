"""The fingerprint of an image's content: what it recognises, and what it does not confuse."""

from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brainmets import nifti
from brainmets.cohorts.fingerprint import SAME, SIZE, Fingerprint, fingerprint, pairs_of_one_scan, similarity, sketch
from brainmets.phantoms import sites

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def other_axes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("PIR"))
    return nib.apply_orientation(image, turn), AFFINE @ nib.orientations.inv_ornt_aff(turn, image.shape)


def one_voxel(image: np.ndarray) -> np.ndarray:
    changed = image.copy()
    changed[tuple(size // 2 for size in image.shape)] += 1000
    return changed


DISGUISES = {
    "as float32": lambda image: (image.astype(np.float32), AFFINE),
    "other axes": other_axes,
    "cropped": lambda image: (image[2:-3, 4:-2, 1:-4], AFFINE),
    "rescaled": lambda image: (image * 0.37 - 12, AFFINE),
    "one voxel changed": lambda image: (one_voxel(image), AFFINE),
}


@pytest.fixture(scope="module")
def scans() -> list[np.ndarray]:
    return [sites.make_patient("source", number, 4.0, seed=11).images["t1c"] for number in range(1, 61)]


def test_ten_disguised_duplicates_among_sixty_scans_are_found_and_no_other(scans: list[np.ndarray]) -> None:
    sketches = {f"scan {number}": sketch(image, AFFINE) for number, image in enumerate(scans)}
    wanted = set()
    for number, (name, disguise) in enumerate([*DISGUISES.items()] * 2):
        sketches[f"{name} {number}"] = sketch(*disguise(scans[5 * number]))
        wanted.add((f"scan {5 * number}", f"{name} {number}"))
    names = list(sketches)
    found = pairs_of_one_scan([Fingerprint(name, patterns) for name, patterns in sketches.items()])
    assert {(names[first], names[second]) for first, second in found} == wanted


def test_a_sketch_is_small_and_sorted(scans: list[np.ndarray]) -> None:
    given = sketch(scans[0], AFFINE)
    assert 20 < len(given) <= SIZE
    assert (np.diff(given.astype(object)) > 0).all()
    assert similarity(given, given) == 1.0


def test_an_image_without_structure_is_like_none(scans: list[np.ndarray]) -> None:
    for image in (np.zeros((20, 20, 20)), np.ones((5, 20, 20))):
        assert len(sketch(image, AFFINE)) == 0
    assert similarity(sketch(np.zeros((20, 20, 20)), AFFINE), sketch(scans[0], AFFINE)) == 0.0


def test_equal_values_are_one_scan_even_where_there_are_no_patterns() -> None:
    small = np.arange(24).reshape(2, 3, 4)
    prints = [fingerprint(image, AFFINE) for image in (small, small + 1, small.copy())]
    assert pairs_of_one_scan(prints) == [(0, 2)]


@pytest.mark.real
def test_real_scans_are_like_themselves_alone(real_data: Path) -> None:
    files = sorted(
        [
            *(real_data / "data" / "openms").glob("*/[FT]*.nii.gz"),
            *(real_data / "data" / "metastasis").glob("*/*.nii.gz"),
        ]
    )
    volumes = {file: nifti.read_volume(file) for file in files}
    sketches = {file: sketch(voxels, grid.affine) for file, (voxels, grid) in volumes.items()}
    assert max(similarity(one, other) for one, other in combinations(sketches.values(), 2)) < SAME / 2
    voxels, grid = volumes[files[0]]
    assert similarity(sketches[files[0]], sketch(voxels[:, :, voxels.shape[2] // 5 :] * 0.5, grid.affine)) > 0.5
