"""However a case's axes are stored, the network sees one head and its prediction fits the file."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from brainmets import nifti
from brainmets.cohorts.cohort import Case, read_manifest
from brainmets.paths import StudyPaths
from brainmets.scoring import probabilities as kept
from brainmets.scoring.case import score_case
from brainmets.training.inference import Keep, write_prediction, write_probabilities
from brainmets.training.plans import CONFIGURATION, read_dataset, read_plan
from brainmets.vocabulary import NETWORK_REGIONS, REGIONS, SEQUENCES, region_mask

AXES = ("RAS", "LPS", "PIR", "SLA", "IRP", "ALS")


def stored(source: Path, folder: Path, axes: str) -> Path:
    """The same image with its axes in another order and direction."""
    image = nib.load(source)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    turned = image.as_reoriented(turn)
    assert "".join(nib.aff2axcodes(turned.affine)) == axes
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(turned, folder / source.name)
    return folder / source.name


@pytest.fixture(params=AXES)
def turned(request: pytest.FixtureRequest, small_study: StudyPaths, tmp_path: Path) -> tuple[Case, Case, Path]:
    """A case, the same in other axes, and the latter's label map in BraTS labels."""
    name, case = next(iter(read_manifest(small_study.manifest("target")).items()))
    images = {sequence: stored(case.images[sequence], tmp_path, request.param) for sequence in SEQUENCES}
    labels = stored(small_study.labels("target") / f"{name}.nii.gz", tmp_path / "labels", request.param)
    return case, replace(case, images=images), labels


def preprocessed(files: StudyPaths, case: Case, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    plans = PlansManager(read_plan(files, "target"))
    data, seg, _ = DefaultPreprocessor(verbose=False).run_case(
        [str(path) for path in case.channels(SEQUENCES)], str(labels), plans, plans.get_configuration(CONFIGURATION),
        read_dataset(files, "target"),
    )  # fmt: skip
    return data, seg


def test_the_network_sees_the_same_head(small_study: StudyPaths, turned: tuple[Case, Case, Path]) -> None:
    original, case, labels = turned
    expected = preprocessed(small_study, original, small_study.labels("target") / f"{original.case}.nii.gz")
    for given, wanted in zip(preprocessed(small_study, case, labels), expected, strict=True):
        np.testing.assert_allclose(given, wanted, atol=1e-5)


def test_a_prediction_comes_back_in_the_axes_of_the_file(turned: tuple[Case, Case, Path], tmp_path: Path) -> None:
    _, case, labels = turned
    voxels, grid = nifti.read_labels(labels), nifti.read_grid(labels)
    seen = nifti.to_ras(voxels, grid.affine)[0].transpose(2, 1, 0)  # as the network gives it
    written = write_prediction(seen, case, tmp_path / "predictions")
    assert nifti.read_grid(written).same(grid)
    assert np.array_equal(nifti.read_labels(written), voxels)


def test_probabilities_come_back_in_the_axes_of_the_file(turned: tuple[Case, Case, Path], tmp_path: Path) -> None:
    """Each region's own, on the grid of the image: a wrong axis or a wrong region would not give the mask back."""
    _, case, labels = turned
    voxels, grid = nifti.read_labels(labels), nifti.read_grid(labels)
    seen = nifti.to_ras(voxels, grid.affine)[0].transpose(2, 1, 0)  # as the network gives it
    value = {"WT": np.float32(0.9), "TC": np.float32(0.6), "ET": np.float32(0.3)}
    given = np.stack([region_mask(seen, region) * value[region] for region in NETWORK_REGIONS])
    assert region_mask(voxels, "ET").any()
    written = write_probabilities(given, case, Keep(tmp_path / "probabilities", 0.02))
    assert written == tmp_path / "probabilities" / f"{case.case}.nii.gz"
    found, on = kept.read(written)
    assert on.same(grid) and list(found) == list(REGIONS)
    for region in REGIONS:
        np.testing.assert_allclose(found[region], region_mask(voxels, region) * value[region], atol=1 / 65535)
    wrong = given.transpose(0, 3, 2, 1)
    if wrong.shape != given.shape:
        with pytest.raises(ValueError, match=f"of {case.case} has shape"):
            write_probabilities(wrong, case, Keep(tmp_path / "wrong", 0.02))
        assert not (tmp_path / "wrong").exists()


def test_scores_are_those_of_the_original(small_study: StudyPaths, turned: tuple[Case, Case, Path]) -> None:
    def scores(path: Path) -> list[float]:
        reference, grid = nifti.read_labels(path), nifti.read_grid(path)
        ras, _ = nifti.to_ras(reference, grid.affine)
        moved = nifti.from_ras(np.roll(ras, 1, axis=0), grid.affine)  # the same error in the head's own directions
        found = score_case(reference, moved, grid.spacing, grid.affine, "brats_2023")
        return [row["value"] for row in found.scores]

    original, _, labels = turned
    expected = scores(small_study.labels("target") / f"{original.case}.nii.gz")
    np.testing.assert_allclose(scores(labels), expected, rtol=1e-6)
