"""The review of cases that have not all four sequences: what is drawn, explained and handed out."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import one_layer
import pandas as pd
import pytest
import study_on_disk

from brainmets.cohorts.cohort import read_manifest, write_manifest
from brainmets.paths import StudyPaths
from brainmets.review import explain, explain_figures, panels, viewers
from brainmets.review.case import ReviewCase, read_case, stand_in
from brainmets.review.experts import write_expert_folder
from brainmets.vocabulary import SEQUENCES

MODEL = ("default", "finetune")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """P01 has t1n and t2w alone, P02 all but t2f."""
    files = study_on_disk.make(tmp_path_factory.mktemp("work"), patients=2)
    cases = read_manifest(files.manifest("target"))
    kept = {"P01": ("t1n", "t2w"), "P02": ("t1n", "t1c", "t2w")}
    lacking = [
        replace(case, images={sequence: case.images[sequence] for sequence in kept[name]})
        for name, case in cases.items()
    ]
    write_manifest(files.manifest("target"), lacking, SEQUENCES)
    return files


def test_what_is_drawn_in_the_place_of_an_absent_sequence() -> None:
    assert [stand_in(sequence, SEQUENCES) for sequence in SEQUENCES] == list(SEQUENCES)
    assert [stand_in("t1c", there) for there in (["t1n", "t2w", "t2f"], ["t1n", "t2w"], ["t1n"])] == [
        "t2f",
        "t2w",
        "t1n",
    ]
    assert stand_in("t2f", ["t1c"]) == "t1c"
    with pytest.raises(ValueError, match="no image is there to draw in the place of t1c"):
        stand_in("t1c", [])


def test_a_case_is_read_with_what_it_has_and_says_what_is_drawn(files: StudyPaths) -> None:
    first, second = read_case(files, "P01", [MODEL]), read_case(files, "P02", [MODEL])
    assert list(first.images) == ["t2w"], "for the t1c and for the t2f alike"
    assert list(second.images) == ["t1c", "t2w"]
    assert panels.best_sequence("ET", second.images) == "t1c"
    assert panels.best_sequence("WT", second.images) == "t2w"
    title = panels.case_panel(first, "TC").get_suptitle().replace("\n", " ")
    assert "TC: T2, axial slice" in title
    missed = pd.DataFrame([{"x_mm": 0.0, "y_mm": 0.0, "z_mm": 0.0, "volume_mm3": 9, "missed_by": 1, "models": 2}])
    assert len(panels.lesion_pictures(first, missed)) == 1
    assert read_case(files, "P01", [], ()).images == {}


def test_the_3d_page_shows_and_names_what_stands_in(files: StudyPaths, tmp_path: Path) -> None:
    entry = viewers.write_volumes(read_case(files, "P01", [MODEL], ("t1c",)), tmp_path)
    assert (entry["sequence"], entry["image"]) == ("T2", "volumes/P01_t2w.nii.gz")
    assert (tmp_path / entry["image"]).is_file()
    assert viewers.show(read_case(files, "P02", [], ("t2f",)), "reference", tmp_path, "slices", "t2f") is not None


def test_the_experts_are_given_what_each_case_has(files: StudyPaths) -> None:
    folder = files.review / "expert"
    write_expert_folder(files, ["P01", "P02"], [MODEL, ("segresnet", "finetune")], folder, seed=3)
    images = {case: sorted(path.name for path in (folder / case).glob("*.nii.gz")) for case in ("P01", "P02")}
    assert images == {"P01": ["t1n.nii.gz", "t2w.nii.gz"], "P02": ["t1c.nii.gz", "t1n.nii.gz", "t2w.nii.gz"]}
    given = read_manifest(files.manifest("target"))["P01"].images["t2w"]
    assert np.array_equal(nib.load(folder / "P01" / "t2w.nii.gz").dataobj, nib.load(given).dataobj)
    readme = (folder / "README.txt").read_text()
    assert "It holds\nthe sequences t1n, t1c, t2w (some cases lack some of them),\nthe reference" in readme
    write_expert_folder(files, ["P02"], [MODEL, ("segresnet", "finetune")], folder, seed=3)
    assert "the sequences t1n, t1c, t2w,\nthe reference" in (folder / "README.txt").read_text()


def test_a_sequence_that_a_case_lacks_is_not_withheld() -> None:
    """A voxel of t2w tells the core from the rest; t1n and t2f, which the case lacks, are 0 throughout."""
    head = np.zeros((6, 6, 6), bool)
    head[1:5, 1:5, 1:5] = True
    data = np.zeros((4, 6, 6, 6))
    data[1][head], data[2][head] = np.linspace(-1, 1, 64), -1.0
    data[2, 2, 2, 2:4] = 31.0
    labels = np.where(head, 0, -1)
    labels[2, 2, 2:4] = 3
    weight, bias = np.zeros((3, 4)), np.full(3, -5.0)
    weight[:, 2] = 1.0
    ensemble = one_layer.ensemble([(weight, bias)])
    image = one_layer.network_image(data, labels)
    review = ReviewCase("P1", {}, np.where(labels > 0, labels, 0).astype(np.uint8).T, {}, np.eye(4))
    one = explain._explain(ensemble, image, ("t1c", "t2w"), review, 2, MODEL, "brats_2023")
    assert (one.case, one.sequences, len(one.scores)) == ("P1", ("t1c", "t2w"), 9)
    drops = explain.table([one]).query("region == 'TC'").set_index("withheld").dice_drop
    assert list(drops.index) == ["nothing", "t1c", "t2w"]
    assert drops.loc["t1c"] == pytest.approx(0)
    assert drops.loc["t2w"] == pytest.approx(1), "without it nothing is found"
    whole = pd.concat([explain.table([one]), explain.table([replace(one, case="P2", scores=one.scores[:6])])])
    figure = explain_figures.withheld_figure(whole.reset_index(drop=True))
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == ["T1 after\ncontrast", "T2\n(1 of 2 cases)"]
    assert len(figure.axes[1].get_xticklabels()) == 3
