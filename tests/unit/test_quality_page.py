"""The quality page and its pictures: whole, self-contained, flagged patients first, and a head without its face."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import planted_failures
import pytest
import SimpleITK
from browser import tab
from bs4 import BeautifulSoup
from PIL import Image
from scipy import ndimage

from brainmets.figures import save
from brainmets.preparation.flags import flag
from brainmets.preparation.quality_figures import (
    AROUND_MM,
    STRIP_ORDER,
    checkerboard,
    cohort_strips,
    column_of,
    patient_figure,
    patient_strip,
)
from brainmets.preparation.quality_page import Pictures, write_page
from brainmets.vocabulary import SEQUENCES

CASES = [f"P-{number:05d}-000" for number in range(1, 13)]


def numbers() -> pd.DataFrame:
    """Twelve patients; T2 of the fifth lies away, the brain of the ninth is unusually small."""
    table = pd.DataFrame({"case": CASES, "t2w_agreement": 0.8, "t2w_away_mm": 0.0, "brain_mL": 1500.0})
    table.loc[4, ["t2w_agreement", "t2w_away_mm"]] = (0.05, 16.0)
    table.loc[8, "brain_mL"] = 900.0
    return table


def native(voxels: np.ndarray) -> SimpleITK.Image:
    """An image in LPS from an array along R, A, S of 4 mm."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels[::-1, ::-1].transpose(2, 1, 0)))
    image.SetSpacing((4.0, 4.0, 4.0))
    return image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Of one patient, for all."""
    folder = tmp_path_factory.mktemp("pictures")
    made = planted_failures.patient(2, spacing_mm=4.0)
    before = {name: native(image) for name, image in made.images.items()}
    figure = patient_figure("P-00001-000", before, made.images, made.mask, made.affine, made.label)
    strip = patient_strip(made.images, made.mask, made.affine, made.label)
    return Pictures(save(figure, folder / "picture.png"), save(strip, folder / "strip.png"))


@pytest.fixture(scope="module")
def page(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    table = numbers()
    cohort = save(cohort_strips(table, flag(table)), folder / "cohort.png")
    why = {"P-00013-000": "No T1 after contrast & <none> named."}
    return write_page(folder, table, flag(table), dict.fromkeys(CASES, pictures), cohort, why)


def test_flagged_patients_come_first_with_their_reason(page: Path) -> None:
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    assert soup.h1.text == "Quality of the preparation: 2 of 12 patients to look at"
    sections = soup.select("section.patient")
    assert [section["id"] for section in sections] == ["P-00005-000", "P-00009-000"]
    assert "T2 lies about 16 mm from the contrast T1" in sections[0].select_one(".reason").text
    assert [tag.text for tag in soup.select("section .tag")] == ["wrong", "unusual"]
    assert "brain volume" in sections[1].text
    assert "1500 (1500 to 1500)" in sections[1].text
    assert [name.contents[0].strip() for name in soup.select(".grid .name")] == CASES
    assert "No T1 after contrast & <none> named." in soup.text


def test_the_frame_lies_on_the_suspect_column(page: Path) -> None:
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    left, width = column_of(SEQUENCES.index("t2w"))
    assert [frame["style"] for frame in soup.select("section .frame")] == [
        f"left:{100 * left:.2f}%;width:{100 * width:.2f}%"
    ]
    left, width = column_of(STRIP_ORDER.index("t2w"))
    assert [frame["style"] for frame in soup.select(".grid .frame")] == [
        f"left:{100 * left:.2f}%;width:{100 * width:.2f}%"
    ]


def test_columns_lie_where_the_page_frames_them() -> None:
    made = planted_failures.patient(2, spacing_mm=4.0)
    figures = (
        patient_figure("case", {}, made.images, made.mask, made.affine),
        patient_strip(made.images, made.mask, made.affine),
    )
    for figure in figures:
        for place, axis in enumerate(figure.axes[:4]):
            box = axis.get_position(original=True)
            assert (box.x0, box.width) == pytest.approx(column_of(place))


def test_the_page_is_whole_in_one_file_of_modest_size(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    soup = BeautifulSoup(html, "html.parser")
    assert soup.find_all(["script", "link", "iframe", "form"]) == []
    assert not re.search(r"https?://|url\(", html)
    sources = [image["src"] for image in soup.find_all("img")]
    assert len(sources) == 2 + 12 + 10 + 1
    assert all(image["alt"] for image in soup.find_all("img"))
    for source in sources:
        assert source.startswith("data:image/jpeg;base64,")
    with Image.open(BytesIO(base64.b64decode(sources[0].partition(",")[2]))) as shown:
        assert shown.width == 1000
    assert len(html) / len(CASES) < 15e6 / 40


def test_it_says_that_it_is_patient_data_and_names_no_file(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "stays in the work folder" in " ".join(BeautifulSoup(html, "html.parser").text.split())
    assert str(page.parent) not in html
    assert "picture.png" not in html


def test_a_cohort_without_flags_says_what_that_does_not_mean(tmp_path: Path, pictures: Pictures) -> None:
    table = numbers().iloc[:4]
    html = write_page(tmp_path, table, flag(table), dict.fromkeys(CASES, pictures)).read_text(encoding="utf-8")
    assert "0 of 4 patients to look at" in html
    assert "may still be wrong" in html
    with pytest.raises(ValueError, match="figures: none for case\\(s\\) P-00001-000, P-00002-000"):
        write_page(tmp_path, table.iloc[:2], flag(table), {})


def test_tiles_alternate() -> None:
    board = checkerboard(np.zeros((4, 3)), np.ones((4, 3)), (12.0, 24.0))
    assert board.tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 1], [1, 0, 1]]


def test_right_is_left() -> None:
    """A mark on the patient's right lies in the left half of every axial picture, before and after."""
    made = planted_failures.patient(2, spacing_mm=4.0)
    middle = int(np.median(np.flatnonzero(made.mask.any((1, 2)))))
    marked = {name: np.where(made.mask, 1.0, 0) for name in SEQUENCES}
    for image in marked.values():
        image[middle + 6 : middle + 10, :, :] *= 3
    figure = patient_figure("case", {"t1n": native(marked["t1n"])}, marked, made.mask, made.affine)
    for axis in (figure.axes[0], figure.axes[4]):
        shown = axis.images[0].get_array()
        assert shown[:, : shown.shape[1] // 2].max() == 1
        assert shown[:, shown.shape[1] // 2 + 1 :].max() < 0.5


def test_no_profile_is_shown() -> None:
    """The sagittal pictures lie beside the middle of the head, and end a centimetre from the brain."""
    made = planted_failures.patient(2, spacing_mm=4.0)
    middle = int(np.median(np.flatnonzero(made.mask.any((1, 2)))))
    marked = {name: np.where(made.mask, 1.0, 0.9) for name in SEQUENCES}
    for image in marked.values():
        image[middle - 3 : middle + 4] += 2
    figure = patient_figure("case", {}, marked, made.mask, made.affine)
    for axis in figure.axes[12:16]:
        assert axis.images[0].get_array().max() == 0  # the mark alone is bright
    near = ndimage.distance_transform_edt(~made.mask, sampling=4.0) <= AROUND_MM
    beyond = {name: np.where(near, 0.0, 1.0) + made.mask for name in SEQUENCES}
    shown = patient_figure("case", {}, beyond, made.mask, made.affine)
    for axis in shown.axes[4:16]:
        picture = axis.images[0].get_array()
        assert picture[0, 0] == picture[-1, -1] == 0


def test_pictures_of_what_failed_altogether(tmp_path: Path) -> None:
    """An empty mask and empty images still give pictures, since those are the cases to look at."""
    empty = {name: np.zeros((20, 24, 18)) for name in SEQUENCES}
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    before = {"t1n": native(empty["t1n"].astype(np.float32))}
    assert save(patient_figure("case", before, empty, empty["t1n"], affine), tmp_path / "figure.png").is_file()
    assert save(patient_strip(empty, empty["t1n"], affine), tmp_path / "strip.png").is_file()
    table = pd.DataFrame({"case": ["case"], "brain_mL": [0.0]})
    assert save(cohort_strips(table, flag(table)), tmp_path / "cohort.png").is_file()


@pytest.mark.browser
def test_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    """Nothing is fetched, the pictures are there, a click on a patient opens the whole picture, it prints."""
    with tab(offline=True, webgl=False, scripts=False) as shown:
        shown.page.goto(page.as_uri())
        assert shown.outside == []
        first = shown.page.locator("section.patient .shot").first
        frame = first.locator(".frame").bounding_box()
        picture = first.bounding_box()
        assert frame["x"] > picture["x"] + 0.45 * picture["width"]
        assert frame["width"] < 0.3 * picture["width"]
        shown.page.locator(".grid summary").first.click()
        assert shown.page.locator(".grid details[open] > img").is_visible()
        shown.page.pdf(path=str(tmp_path / "page.pdf"))
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
