"""The viewers: what they are given, what replaces them, and, in a real browser, that they draw."""

import json

import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import study_on_disk
from browser import bring_into_view, jupyterlab, needs_browser, pixels, run_notebook, tab
from review_cases import block, case

from brainmets.review import lab_extension, viewers

REFERENCE = block(slice(5, 9), slice(5, 9), 2)


def test_the_brain_is_cut_out_with_its_place_in_space():
    whole = case(REFERENCE, [REFERENCE], spacing=(2.0, 2.0, 2.0))
    for image in whole.images.values():
        image[:] = 0
        image[8:12, 6:10, 3] = 7
    small = viewers.brain_only(whole)
    assert small.reference.shape == (11, 9, 6)  # voxels 5..11, 5..9, 2..3 and two voxels of margin, cut at the edges
    assert small.affine[:3, 3].tolist() == [6.0, 6.0, 0.0]
    assert np.array_equal(small.reference, REFERENCE[3:14, 3:12, 0:6])


def test_an_empty_case_stays_whole():
    nothing = case(np.zeros((4, 4, 4), np.uint8), [])
    for image in nothing.images.values():
        image[:] = 0
    assert viewers.brain_only(nothing) is nothing


def test_display_volume_uses_the_whole_range():
    shown = viewers.display_volume(np.array([[[0, 50, 100, 1000]]], np.float32).repeat(400, axis=0))
    assert shown.dtype == np.uint8
    assert shown.min() == 0
    assert shown.max() == 255
    assert viewers.display_volume(np.zeros((2, 2, 2), np.float32)).max() == 0


def test_a_viewer_that_cannot_work_gives_way_and_says_why(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(viewers.lab_extension, "installed", lambda: False)
    assert viewers.usable("itkwidgets")[0] == "niivue"
    monkeypatch.setattr(viewers, "find_spec", lambda name: None)
    shown = viewers.show(case(REFERENCE, [REFERENCE]), "reference", tmp_path, "itkwidgets")
    said = capsys.readouterr().out
    assert "itkwidgets cannot be used: the package itkwidgets is not installed" in said
    assert "niivue cannot be used: the package ipyniivue is not installed" in said
    assert "P1, reference on T1 after contrast, shown by slices" in said
    assert len(shown.data) > 5_000


def test_unknown_viewer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'vtk' is none of itkwidgets, niivue, slices"):
        viewers.show(case(REFERENCE, []), "reference", tmp_path, "vtk")


def test_niivue_is_given_the_volume_and_the_labels(tmp_path, capsys):
    model = ("default", "finetune")
    widget = viewers.show(case(REFERENCE, [REFERENCE]), model, tmp_path, "niivue")
    assert "P1, Default fine-tuned on T1 after contrast, shown by niivue" in capsys.readouterr().out
    assert len(widget.volumes) == 2
    drawn = nib.load(tmp_path / "volumes" / "P1_default_finetune.labels.nii.gz")
    assert np.asarray(drawn.dataobj).sum() == 3 * 16
    assert nib.affines.voxel_sizes(drawn.affine).tolist() == [1.0, 2.0, 3.0]


def test_colormap_clears_the_background():
    colours = viewers.colormap()
    assert colours["A"] == [0, 255, 255, 255, 255]
    assert colours["I"] == [0, 1, 2, 3, 4]
    assert (colours["R"][3], colours["G"][3], colours["B"][3]) == (0xD5, 0x5E, 0x00)


def test_itkwidgets_gets_spacing_and_origin_in_mm():
    pytest.importorskip("itkwidgets")
    whole = case(REFERENCE, [REFERENCE])
    widget = viewers._itkwidgets(whole, whole.reference, "t1c")
    assert list(widget.image.GetSpacing()) == [1.0, 2.0, 3.0]
    assert list(widget.image.GetLargestPossibleRegion().GetSize()) == [20, 20, 6]


def test_the_extension_is_made_once_and_whole(tmp_path):
    made = lab_extension.install(tmp_path)
    assert lab_extension.installed(tmp_path)
    package = json.loads((made / "package.json").read_text())
    assert (made / package["jupyterlab"]["_build"]["load"]).is_file()
    bundle = (made / "static" / "itkwidgets_amd.js").read_text()
    assert bundle.startswith("window.__itkwidgets_amd=function(define){")
    assert "sourceMappingURL" not in bundle[-300:]
    assert any((made / "static" / "nbextensions" / "itkwidgets" / "itk").iterdir())
    before = (made / "package.json").stat().st_mtime_ns
    lab_extension.install(tmp_path)
    assert (made / "package.json").stat().st_mtime_ns == before
    (made / "static" / lab_extension.ENTRY).write_text("of an older version")
    assert not lab_extension.installed(tmp_path)
    lab_extension.install(tmp_path)
    assert lab_extension.installed(tmp_path)


def test_another_itkwidgets_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_extension.metadata, "version", lambda _: "1.0a55")
    with pytest.raises(lab_extension.LabExtensionError, match=r"itkwidgets is 1\.0a55; this extension is made for"):
        lab_extension.install(tmp_path)


@pytest.mark.browser
@pytest.mark.slow
def test_jupyterlab_draws_the_volume_offline(tmp_path, monkeypatch):
    """Notebook 08 run from top to bottom in JupyterLab 4: a drawn volume, and not one request to elsewhere."""
    needs_browser()
    lab_extension.install()
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").mkdir()
    study_on_disk.make(tmp_path / "work", study="demo", patients=2, spacing_mm=5.0)
    notebook = nbformat.read(study_on_disk.REPOSITORY / "notebooks" / "08_case_review.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    lines = [line for line in cell.source.splitlines() if "tversky_bce" not in line]  # an arm that this study has not
    no_model = ["n_explained = 0" if line.startswith("n_explained") else line for line in lines]
    cell.source = "\n".join(no_model)
    nbformat.write(notebook, tmp_path / "notebooks" / "08_case_review.ipynb")
    with jupyterlab(tmp_path) as address, tab(width=1000, height=800) as opened:
        drawn = "() => document.querySelectorAll('.jp-OutputArea canvas').length > 0"
        run_notebook(opened.page, address, "notebooks/08_case_review.ipynb", drawn, seconds=300)
        bring_into_view(opened.page, ".jp-OutputArea canvas")
        opened.page.wait_for_timeout(8000)
        box = bring_into_view(opened.page, ".jp-OutputArea canvas")
        picture = opened.page.screenshot(path=tmp_path / "jupyterlab.png", timeout=120_000)
        said = rate(opened.page)
    area = pixels(picture)[int(box["y"]) : int(box["y"] + box["height"]), int(box["x"]) : int(box["x"] + box["width"])]
    background = area[area.shape[0] // 2, 5].astype(int)
    differing = np.abs(area.astype(int) - background).max(axis=-1) > 20
    assert differing.mean() > 0.05, "the canvas shows no volume"
    assert len(np.unique(area.reshape(-1, 3), axis=0)) > 100, "the canvas is one flat colour"
    assert said == "Saved in ratings/ratings_Dr_A.csv: 1 of 4 rated."
    kept = pd.read_csv(tmp_path / "work" / "demo" / "review" / "ratings" / "ratings_Dr_A.csv", dtype=str)
    rated = kept[kept["rater"].notna()].to_dict("records")
    assert [(row["case"], row["model"], row["overall"], row["acceptable"]) for row in rated] == [
        ("P01", "A", "4", "yes")
    ]
    assert opened.outside == []
    assert opened.errors == []


def rate(page) -> str:
    """Fill in the form as a rater does, for the first case and model; gives what the form says then."""
    bring_into_view(page, "button:has-text('Save this rating')")
    text = {"rater": "Dr A", "missed lesions": "0", "false lesions": "2", "comment": "typed in a browser"}
    chosen = {"overall": "4", "boundary": "3", "acceptable": "yes"}
    for label, value in text.items():
        page.fill(f".widget-text:has-text('{label}') input", value)
    for label, value in chosen.items():
        page.select_option(f".widget-dropdown:has-text('{label}') select", label=value)
    page.click("button:has-text('Save this rating')")
    return page.wait_for_selector("text=/^(Saved in|Not saved)/").inner_text()
