"""The review's slices, areas, windows and tables, on masks that can be counted by hand."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import study_on_disk
from review_cases import block, case
from score_examples import lesion

from brainmets.figures import Drawing
from brainmets.paths import StudyPaths
from brainmets.review import drawing, panels, ranking
from brainmets.review.case import read_case

MODEL = ("default", "finetune")


def test_disagreement_is_an_area_summed_over_models():
    reference = np.zeros((4, 4, 3), bool)
    one, two = reference.copy(), reference.copy()
    one[0, 0, 1] = True
    two[0, :2, 1] = True
    two[0, 0, 2] = True
    areas = panels.disagreement_mm2(reference, [one, two], (0.5, 2.0, 9.0))
    assert areas.tolist() == [0.0, 3.0, 1.0]
    assert panels.disagreement_mm2(reference, [], (1, 1, 1)).tolist() == [0, 0, 0]


def test_worst_slice_is_where_models_differ_most():
    reference = block(slice(5, 9), slice(5, 9), slice(1, 3))
    shifted = block(slice(6, 9), slice(5, 9), slice(2, 3))
    assert panels.worst_slice(case(reference, [shifted]), "ET") == (1, 16 * 2.0)


def test_models_that_are_pretrained_only_are_shown_and_do_not_choose_the_slice():
    reference = block(slice(5, 9), slice(5, 9), slice(1, 4))
    shifted = block(slice(6, 9), slice(5, 9), slice(1, 4))
    shown = case(reference, [shifted])
    nothing = block(slice(6, 9), slice(5, 9), 1)
    shown.predictions["default", "pretrained"] = nothing  # differs most on slices 2 and 3
    assert panels.worst_slice(shown, "ET") == (1, 4 * 2.0)
    figure = panels.case_panel(shown, "ET", {MODEL: 0.75})
    assert any("Default, pretrained only" in axes.get_title() for axes in figure.axes)
    assert "8 mm² of disagreement over 1 models" in " ".join(figure.get_suptitle().split())


def test_worst_slice_where_all_agree_and_where_nothing_is():
    reference = block(slice(5, 9), slice(5, 9), 4)
    assert panels.worst_slice(case(reference, [reference]), "WT") == (4, 0.0)
    empty = np.zeros_like(reference)
    assert panels.worst_slice(case(empty, [empty]), "WT") == (3, 0.0)


def test_regions_nest():
    oedema = block(slice(5, 9), slice(5, 9), 4, label=2)
    empty = np.zeros_like(oedema)
    assert panels.worst_slice(case(oedema, [empty]), "WT")[1] == 32
    assert panels.worst_slice(case(oedema, [empty]), "ET")[1] == 0


def areas_drawn(panel):
    """Pixels per colour of the overlay."""
    overlay = panel.images[-1].get_array()
    found = {}
    for colour, alpha in ((panels.AGREED, 0.35), (panels.MISSED, 0.75), (panels.INVENTED, 0.65)):
        wanted = panels.to_rgba(colour, alpha)
        found[colour] = int(np.isclose(overlay, wanted).all(axis=-1).sum())
    return found


def test_panel_paints_found_missed_and_invented_in_their_colours():
    reference = block(slice(5, 9), slice(5, 9), 2)  # 16 voxels
    prediction = block(slice(6, 10), slice(5, 9), 2)  # 12 shared, 4 missed, 4 too much
    figure = panels.case_panel(case(reference, [prediction]), "ET", {MODEL: 0.75})
    panel = next(axes for axes in figure.axes if "Default, fine-tuned" in axes.get_title())
    assert areas_drawn(panel) == {panels.AGREED: 12, panels.MISSED: 4, panels.INVENTED: 4}
    assert "Dice 0.75" in panel.get_title()
    assert "16 mm² of disagreement over 1 models" in " ".join(figure.get_suptitle().split())
    words = {text.get_text() for text in panel.texts}
    assert {"R", "L", "A", "P", "20 mm"} <= words
    assert panel.get_xlim()[0] > panel.get_xlim()[1]  # the patient's right is on the left


def test_scale_bar_has_its_length_in_mm():
    figure = panels.case_panel(case(block(5, 5, 2), [block(5, 6, 2)]), "ET")
    for panel in (axes for axes in figure.axes if axes.texts):
        start, end = panel.lines[0].get_xdata()
        assert start - end == pytest.approx(20)


def test_outline_of_one_voxel_is_one_square():
    figure = Drawing()
    axes = figure.subplots()
    panels.outline(axes, np.array([[False, True]]), (2.0, 3.0), "w")
    x, y = axes.lines[0].get_data()
    points = {(a, b) for a, b in zip(x, y, strict=True) if not np.isnan(a)}
    assert points == {(0.0, 3.0), (2.0, 3.0), (0.0, 6.0), (2.0, 6.0)}


def test_missed_lesions_are_listed_once_the_smallest_first():
    rows = [lesion("a", 1, 30.0, arm=arm, detected=arm == "default") for arm in ("default", "segresnet")]
    rows += [lesion("b", 1, 20.0, arm=arm, detected=False) for arm in ("default", "segresnet")]
    rows += [lesion("b", 2, 10.0, arm=arm) for arm in ("default", "segresnet")]
    missed = ranking.missed_lesions(pd.DataFrame(rows))
    assert missed["case"].tolist() == ["b", "a"]
    assert missed["missed_by"].tolist() == [2, 1]
    assert missed["models"].tolist() == [2, 2]
    assert missed.loc[1, "missed_by_names"] == "segresnet finetune"


def test_without_a_missed_lesion_there_is_no_montage(tmp_path):
    missed = ranking.missed_lesions(pd.DataFrame([lesion("a", 1, 30.0)]))
    assert missed.empty
    assert drawing.draw_missed(StudyPaths(str(tmp_path), "tiny"), missed) == []
    with pytest.raises(ValueError, match="no lesion was missed"):
        panels.missed_montage([])


def test_regions_to_show():
    marks = pd.DataFrame({"case": ["a", "a", "a", "b"], "region": ["TC", "TC", "ET", "WT"]})
    assert ranking.regions_to_show(marks, "a") == ["TC", "WT"]
    assert ranking.regions_to_show(marks, "b") == ["WT"]
    assert ranking.regions_to_show(marks, "c") == ["ET", "WT"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return study_on_disk.make(tmp_path_factory.mktemp("work"), patients=1)


def test_missed_lesions_are_drawn_in_the_tables_order(files):
    shown = read_case(files, "P01", [], ("t1c",))
    rows = []
    for number, volume in ((1, 30.0), (2, 20.0)):
        x, y, z = np.argwhere(shown.reference == 3)[number]
        place = shown.affine @ [x, y, z, 1]
        rows.append(
            lesion("P01", number, volume, detected=False) | dict(zip(("x_mm", "y_mm", "z_mm"), place[:3], strict=True))
        )
    missed = ranking.missed_lesions(pd.DataFrame(rows))
    pictures = panels.lesion_pictures(shown, missed)
    assert [one.title.split(",")[1].split("\n")[0] for one in pictures] == [" 20 mm³", " 30 mm³"]
    assert all(one.mask.any() and one.image.shape == one.mask.shape for one in pictures)
    (entry,) = drawing.draw_missed(files, missed)
    assert (files.review / entry["file"]).is_file()
    assert "intersection over union of 0.1 or more" in entry["shows"]


def test_a_piece_that_hangs_by_a_corner_is_one_piece():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[0:2, 0, 0] = labels[2:4, 1, 1] = 1  # two and two voxels that meet at a corner
    labels[6:9, 8, 8] = 1
    assert panels.middle(labels).tolist() == [1.5, 0.5, 0.5]


def test_a_case_is_read_with_every_model_on_one_grid(files):
    found = read_case(files, "P01", study_on_disk.MODELS)
    assert found.name == "P01"
    assert list(found.predictions) == study_on_disk.MODELS
    assert {image.shape for image in found.images.values()} == {found.reference.shape}
    assert found.spacing_mm == pytest.approx((3.1748, 3.1748, 6.3496))
    assert found.voxel(found.affine[:3, 3]) == (0, 0, 0)


def test_other_orientations_are_turned_to_ras(files, tmp_path):
    path = files.references / "P01.nii.gz"
    image = nib.load(path)
    flipped = image.as_reoriented([[0, -1], [1, -1], [2, 1]])
    straight = read_case(files, "P01", [])
    kept = path.read_bytes()
    try:
        nib.save(flipped, path)
        assert nib.aff2axcodes(nib.load(path).affine) == ("L", "P", "S")
        assert np.array_equal(read_case(files, "P01", []).reference, straight.reference)
    finally:
        path.write_bytes(kept)


def test_unknown_case_absent_prediction_and_other_grid_are_named(files):
    with pytest.raises(ValueError, match="'P09' is not a case of the target cohort; known are P01"):
        read_case(files, "P09", [])
    with pytest.raises(FileNotFoundError, match=r"P01\.nii\.gz is not in predictions: run notebook 06"):
        read_case(files, "P01", [("tversky_bce", "finetune")])
    study_on_disk.save(np.zeros((3, 3, 3)), np.eye(4), files.predictions("tversky_bce", "scratch") / "P01.nii.gz")
    with pytest.raises(ValueError, match=r"P01\.nii\.gz: lies on another grid.*\n  P01\.nii\.gz: shape \(3, 3, 3\)"):
        read_case(files, "P01", [("tversky_bce", "scratch")])
