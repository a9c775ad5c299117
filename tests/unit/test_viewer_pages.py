"""The report's 3D pages: small enough, whole, and drawn by a real browser from a file with the network off."""

import base64

import nibabel as nib
import numpy as np
import pytest
from browser import needs_browser, pixels, tab
from review_cases import block, case

from brainmets.report import build as report
from brainmets.report import scripts
from brainmets.review import viewers

LABELS = block(slice(4, 8), slice(5, 9), 2)


def test_coarser_joins_the_finest_axis_and_loses_no_lesion():
    labels = np.zeros((5, 4, 3), np.uint8)
    labels[4, 1, 1] = 3
    whole = case(labels, [labels], spacing=(1.0, 2.0, 2.0))
    whole.images["t1c"][:] = np.arange(5, dtype=np.float32)[:, None, None]
    small = viewers.coarser(whole, most=36)
    assert small.reference.shape == (3, 4, 3)
    assert small.spacing_mm == (2.0, 2.0, 2.0)
    assert small.reference[2, 1, 1] == 3
    assert small.images["t1c"][:, 0, 0].tolist() == [0.5, 2.5, 4.0]
    assert small.affine[:3, 3].tolist() == [0.5, 0.0, 0.0]  # the middle of the first pair
    assert viewers.coarser(whole, most=60) is whole


def test_volumes_are_described_and_written(tmp_path):
    entry = viewers.write_volumes(case(LABELS, [LABELS], spacing=(2.0, 2.0, 2.0)), tmp_path)
    assert [part["title"] for part in entry["labels"]] == ["reference", "Default fine-tuned"]
    assert entry["spacing_mm"] == [2.0, 2.0, 2.0]
    assert entry["focus"] == [0.3, 0.35, 0.4167]  # voxel (5.5, 6.5, 2) of 20 x 20 x 6, at its middle
    image = nib.load(tmp_path / entry["image"])
    labels = nib.load(tmp_path / entry["labels"][0]["file"])
    assert image.shape == labels.shape
    assert np.array_equal(image.affine, labels.affine)
    assert np.asarray(labels.dataobj).sum() == 3 * 16


def test_a_full_size_case_stays_below_five_megabytes(tmp_path):
    random = np.random.default_rng(0)
    shape = (300, 360, 150)
    labels = np.zeros(shape, np.uint8)
    labels[100:120, 100:120, 50:60] = 3
    whole = case(labels, [labels], spacing=(0.5, 0.5, 1.0))
    noisy = (random.random(shape, dtype=np.float32) * 0.2 + 0.5).astype(np.float32)
    entry = viewers.write_volumes(
        type(whole)(whole.name, {"t1c": noisy}, labels, whole.predictions, whole.affine), tmp_path
    )
    files = [entry["image"], *(part["file"] for part in entry["labels"])]
    assert sum(len(base64.b64encode((tmp_path / file).read_bytes())) for file in files) < 5_000_000


@pytest.mark.parametrize("name", ["Niivue", "DataTable"])
def test_a_script_is_classic_and_self_contained(name):
    script = scripts.script(name)
    assert script.startswith("(function(){" if name == "Niivue" else "/*! Bundled license information")
    assert "export{" not in script[-200:]
    assert f"window.{name}=" in script[-60:]


def test_the_licences_of_a_bundle_are_kept():
    assert "SpryMedia Ltd" in scripts.script("DataTable")[:10_000]


@pytest.mark.parametrize(("name", "file"), [("Niivue", "static/widget.js"), ("DataTable", "html/dt_bundle.js")])
def test_a_bundle_of_another_shape_is_refused(tmp_path, monkeypatch, name, file):
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text("export default 1;")
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    scripts.script.cache_clear()
    monkeypatch.setattr(scripts, "find_spec", lambda _: spec)
    with pytest.raises(scripts.ScriptError, match="another shape"):
        scripts.script(name)
    scripts.script.cache_clear()


def test_without_the_script_the_report_says_so(reviewed_checkout, monkeypatch):
    _, files, study = reviewed_checkout

    def absent(name):
        raise scripts.ScriptError(f"{scripts.BUNDLES[name][0]} is not installed")

    monkeypatch.setattr(report, "script", absent)
    text = report.build(files, study).read_text()
    assert "No 3D pages: ipyniivue is not installed." in text
    assert "See it in 3D" not in text
    assert "Tables cannot be searched and sorted: itables is not installed." in text
    cases = (files.report / "tables" / "cases.html").read_text()
    assert "<script" not in cases
    assert cases.count("<tr>") == 3 * 6 * 3  # the heading's row has a style


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_draws_from_a_file_with_the_network_off(reviewed_checkout, tmp_path):
    needs_browser()
    _, files, study = reviewed_checkout
    page = report.build(files, study).parent / "viewer" / "P02.html"
    assert page.stat().st_size < 5_000_000
    with tab(offline=True) as opened:
        opened.page.goto(page.as_uri())
        opened.page.wait_for_function("() => document.body.dataset.ready", timeout=120_000)
        assert opened.page.evaluate("() => document.body.dataset.ready") == "yes"
        opened.page.wait_for_timeout(1500)
        reference = pixels(opened.page.locator("#canvas").screenshot(timeout=60_000))
        opened.page.select_option("#labels", label="SegResNet from scratch")
        opened.page.wait_for_timeout(2500)
        other = pixels(opened.page.locator("#canvas").screenshot(timeout=60_000))
    assert (reference.max(axis=-1) > 60).mean() > 0.1, "the canvas shows no volume"
    coloured = np.ptp(reference.astype(int), axis=-1) > 60
    assert coloured.sum() > 100, "the canvas shows no labels"
    assert (reference != other).any(), "another segmentation looks the same"
    assert opened.outside == []
    assert opened.errors == []


@pytest.mark.slow
@pytest.mark.browser
def test_without_webgl_the_page_says_where_to_look(reviewed_checkout):
    needs_browser()
    _, files, study = reviewed_checkout
    page = report.build(files, study).parent / "viewer" / "P02.html"
    with tab(offline=True, webgl=False) as opened:
        opened.page.goto(page.as_uri())
        opened.page.wait_for_timeout(1500)
        assert opened.page.locator("#missing").is_visible()
        assert not opened.page.locator("#controls").is_visible()
        assert opened.errors == []


@pytest.mark.slow
@pytest.mark.browser
def test_the_index_opens_quickly_with_the_network_off(reviewed_checkout):
    needs_browser()
    _, files, study = reviewed_checkout
    page = report.build(files, study)
    with tab(offline=True) as opened:
        opened.page.goto(page.as_uri())
        loaded = opened.page.evaluate("() => performance.getEntriesByType('navigation')[0].loadEventEnd")
        broken = opened.page.evaluate("() => [...document.images].filter((image) => !image.naturalWidth).length")
        wide = opened.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        opened.page.emulate_media(media="print")
        opened.page.set_viewport_size({"width": 680, "height": 1000})  # A4 within its margins, in CSS pixels
        printed = opened.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert printed <= 0, "a line or table is wider than the printed page"
    assert loaded < 10_000
    assert broken == 0
    assert wide <= 0
    assert opened.outside == []
