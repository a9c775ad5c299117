"""The audit's page: its pictures, its order, and that only its owner may read it."""

import re
import stat
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browser import tab
from PIL import Image

from brainmets import nifti
from brainmets.cohorts.audit_page import HEIGHT, OUTLINE, WIDTH, Finding, Row, in_words, thumbnail, write_page
from brainmets.vocabulary import SEQUENCES

SHAPE = (60, 70, 40)
AFFINE = np.diag([2.5, 2.5, 4.0, 1.0])
BROKEN = Finding("error", "a/t1c.nii.gz", "3 voxels are NaN or infinite")
ODD = Finding("warning", "label", "holds 400 separate pieces")


def grid_of(affine=AFFINE, shape=SHAPE):
    sides = tuple(float(side) for side in np.linalg.norm(affine[:3, :3], axis=0))
    return nifti.Grid(Path("case.nii.gz"), shape, affine, sides)


@pytest.fixture
def case():
    """A grey box with a bright corner at the patient's right and front; lesions of 8 voxels low, of 200 high up."""
    image = np.zeros(SHAPE, np.int16)
    image[10:50, 10:60, 2:38] = 100
    image[40:50, 50:60, 2:38] = 200
    labels = np.zeros(SHAPE, np.uint8)
    labels[20:22, 20:22, 5:7] = 3
    labels[20:30, 20:30, 30:32] = 1
    return dict.fromkeys(SEQUENCES, image), labels


def drawn(picture):
    with Image.open(BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def yellow(pixels):
    """Where the outline was drawn; a JPEG blurs colours."""
    return (pixels[..., 0] - pixels[..., 2] > 80) & (pixels[..., 1] > 100)


def test_a_picture_has_four_sequences_with_the_label_of_the_largest_lesion(case):
    """10 by 10 voxels of 2.5 mm on slices 30 and 31; the lesion of 8 voxels lies on slices 5 and 6."""
    pixels = drawn(thumbnail(*case, grid_of()))
    assert pixels.shape == (HEIGHT, 4 * WIDTH, 3)
    assert OUTLINE[2] == 0
    for number in range(4):
        rows, columns = np.nonzero(yellow(pixels[:, number * WIDTH : (number + 1) * WIDTH]))
        assert 20 < np.ptp(rows) < 32
        assert 20 < np.ptp(columns) < 32


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SLA"])
def test_the_patients_right_is_on_the_left_and_the_front_above(case, orientation):
    """However the file stores it."""
    images, labels = case
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(orientation))
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    stored = {name: nib.apply_orientation(image, turn) for name, image in images.items()}
    turned = nib.apply_orientation(labels, turn)
    tile = drawn(thumbnail(stored, turned, grid_of(affine, turned.shape)))[:, :WIDTH, 1]
    bright = np.argwhere(tile > 200)
    assert bright[:, 0].mean() < HEIGHT / 2
    assert bright[:, 1].mean() < WIDTH / 2
    assert np.array_equal(tile, drawn(thumbnail(images, labels, grid_of()))[:, :WIDTH, 1])


def test_a_case_without_a_label_or_a_sequence_still_has_a_picture(case):
    images, labels = case
    plain = drawn(thumbnail(images, None, grid_of()))
    assert not yellow(plain).any()
    part = drawn(thumbnail({"t1c": images["t1c"]}, labels, grid_of()))
    assert np.mean(part[:, : WIDTH - 8] > 30) < 0.05, "nothing but its name"
    assert part[:, WIDTH : 2 * WIDTH].max() > 200
    assert thumbnail({}, labels, grid_of())
    assert thumbnail({"t1c": np.zeros(SHAPE)}, None, grid_of())


@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_what_is_not_finite_is_shown_as_nothing(case, value):
    images, labels = case
    broken = images["t1c"].astype(np.float64)
    broken[0, 0, 31] = broken[30, 30, 31] = value
    pixels = drawn(thumbnail({**images, "t1c": broken}, labels, grid_of()))
    assert pixels[:, WIDTH : 2 * WIDTH].max() > 200


def test_a_picture_of_a_full_size_scan_is_small():
    rng = np.random.default_rng(2)
    shape = (240, 240, 155)
    image = np.zeros(shape, np.float32)
    image[50:190, 30:210, 10:140] = rng.normal(100, 20, (140, 180, 130))
    picture = thumbnail(dict.fromkeys(SEQUENCES, image), None, grid_of(np.eye(4), shape))
    assert len(picture) < 60_000, "noise is the worst that a JPEG can be given"


def test_numbers_in_words():
    """In the page's order; what could not be measured is left out."""
    numbers = {
        "head_mL": 1499.6,
        "lesions": 3,
        "WT_mL": 3.2184,
        "ET_mL": float("nan"),
        "shape": "60x70x40",
        "other": 1,
    }
    assert in_words(numbers) == {"voxels": "60x70x40", "tumour": "3.22 mL", "lesions": "3", "head": "1500 mL"}
    assert in_words({}) == {}


def test_errors_come_first_and_nothing_of_a_file_is_taken_for_markup(tmp_path):
    rows = [
        Row("source", "fine", None, {"tumour": "3.2 mL"}, []),
        Row("source", "odd", None, {}, [ODD]),
        Row("target", "<b>both</b>", None, {}, [ODD, BROKEN]),
    ]
    page = write_page(tmp_path / "audit.html", rows, [("target", Finding("warning", "", "no case holds ET"))])
    html = page.read_text()
    heads = re.findall(r"<h2>(.*?) ", html)
    assert heads == ["&lt;b&gt;both&lt;/b&gt;", "odd", "fine"]
    assert html.index(BROKEN.text) < html.index(ODD.text)
    assert "2 of 3 case(s) to look at" in html
    assert "no case holds ET" in html
    assert "3.2 mL" in html
    assert "<script" not in html
    assert "http" not in html


def test_only_its_owner_may_read_it(tmp_path):
    page = write_page(tmp_path / "new" / "audit.html", [])
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "no case" in page.read_text()
    page.chmod(0o644)
    assert stat.S_IMODE(write_page(page, []).stat().st_mode) == 0o600


@pytest.mark.browser
def test_the_page_in_a_browser(case, tmp_path):
    """Every picture loads, nothing is asked of the network, and no row is wider than the page, on paper neither."""
    picture = thumbnail(*case, grid_of())
    rows = [
        Row("source", f"case-{number}", picture, {"tumour": "3.2 mL"}, [ODD] * (number % 2)) for number in range(4)
    ]
    page = write_page(tmp_path / "audit.html", rows)
    with tab(offline=True, webgl=False, scripts=True) as opened:
        opened.page.goto(page.as_uri())
        widths = opened.page.evaluate("() => [...document.images].map(image => image.naturalWidth)")
        assert widths == [4 * WIDTH] * 4
        for media, width in (("screen", 1300), ("screen", 500), ("print", 700)):
            opened.page.emulate_media(media=media)
            opened.page.set_viewport_size({"width": width, "height": 900})
            assert opened.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        assert opened.outside == opened.errors == []
