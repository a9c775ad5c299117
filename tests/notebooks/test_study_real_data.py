"""Two real patients as a target cohort in a layout of its own, from their folder to scores."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from real_checkout import RealCheckout, profile

from brainmets.files import read_json
from brainmets.paths import StudyPaths

pytestmark = [pytest.mark.slow, pytest.mark.real]
LAYOUT = {
    "t1n": "{case}/T1.nii.gz",
    "t1c": "{case}/T1POST.nii.gz",
    "t2w": "{case}/T2.nii.gz",
    "t2f": "{case}/FLAIR.nii.gz",
    "label": "{case}/GT.nii.gz",
    "patient": "(.+)",
}


def mirrored(source: Path, folder: Path) -> None:
    """A third patient: the left-right mirror image of a real one, so that two folds are left beside the held-out."""
    folder.mkdir(parents=True)
    for path in source.glob("*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[::-1], image.affine), folder / path.name)


def test_two_real_patients_go_from_their_folder_to_scores(real_data: Path, tmp_path: Path) -> None:
    real = real_data / "data" / "openms"
    checkout = RealCheckout.make(tmp_path / "checkout")
    target = tmp_path / "openms"
    target.mkdir()
    for patient in ("patient07", "patient19"):
        (target / patient).symlink_to(real / patient)
    mirrored(real / "patient07", target / "patient07mirrored")

    content = profile("smoke")
    content |= {"study": "openms", "folds": [0], "arms": {"default": content["arms"]["default"]}}
    content["strategies"] = ["finetune", "scratch"]
    content["target"] = {
        "folder": str(target), "layout": LAYOUT, "label_map": {1: "snfh"}, "held_out": ["patient19"],
        "pseudonyms": False,
    }  # fmt: skip
    content["source"]["folder"] = "work/openms/source"
    content["source"]["phantoms"]["spacing_mm"] = 4.0
    content["alignment"]["gpu_memory_gb"] = 0.04
    content["evaluation"] |= {"tile_step": 1.0, "lesion_definition": "brats_2026"}  # an untrained net predicts a lot
    content["case_review"]["n_explained"] = 0
    for section in ("pretraining", "fine_tuning", "from_scratch"):
        content[section] |= {"epochs": 1, "iterations_per_epoch": 12, "validation_iterations": 1}
    checkout.write_params(content)
    ended = checkout.run("study", "params/openms.yaml")
    assert ended.returncode == 0, ended.stdout + ended.stderr

    files = StudyPaths(str(checkout.root / "work"), "openms")
    cases = pd.read_csv(files.cases("target")).set_index("case")
    assert cases.loc["patient19", "shape"] == "182x218x182"
    assert cases.loc["patient19", "ET_mL"] == 0
    assert cases.loc["patient19", "WT_mL"] > 1
    assert read_json(files.alignment)["aligned"]["spacing"] == pytest.approx([1, 1, 1])
    for strategy in ("finetune", "scratch"):
        image = nib.load(real / "patient19" / "T1POST.nii.gz")
        predicted = nib.load(files.predictions("default", strategy) / "patient19.nii.gz")
        assert predicted.shape == image.shape
        assert np.array_equal(predicted.affine, image.affine)
        scores = pd.read_csv(files.scores("default", strategy)).set_index(["region", "metric"])
        volume = np.count_nonzero(np.asanyarray(nib.load(real / "patient19" / "GT.nii.gz").dataobj)) / 1000
        assert scores.loc[("WT", "reference_volume"), "value"] == pytest.approx(volume, rel=1e-6)
        assert 0 <= scores.loc[("WT", "dice"), "value"] <= 1
