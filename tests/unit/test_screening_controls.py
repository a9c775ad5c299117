"""The controls of notebook 09, pressed without a browser: what each button saves, and what the reader is told."""

import shutil
from io import BytesIO
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
from matplotlib.image import imread
from screened import Ball, make_screened

from brainmets import nifti, schemas
from brainmets.files import read_json, write_json
from brainmets.paths import ScreeningPaths
from brainmets.screening import controls, reading
from brainmets.screening.controls import ReadingControls

LESIONS = [Ball((-25.0, 10.0, 0.0), 20, 0.95)]
BELOW = [Ball((10.0, 40.0, -20.0), 12, 0.4)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_screened(tmp_path_factory.mktemp("made") / "scan-00001-000", LESIONS, BELOW).folder


@pytest.fixture
def files(made: Path, tmp_path: Path) -> ScreeningPaths:
    return ScreeningPaths(shutil.copytree(made, tmp_path / made.name))


def press(form: ReadingControls, title: str) -> str:
    """Press a button; gives what the form says then."""
    found = [
        button
        for row in form.widget.children
        if isinstance(row, ipywidgets.HBox)
        for button in row.children
        if button.description == title
    ]
    assert len(found) == 1, title
    found[0].click()
    return form.message.value


def test_nothing_is_written_before_a_button_is_pressed(files: ScreeningPaths) -> None:
    before = sorted(files.folder.rglob("*"))
    form = ReadingControls(files)
    form.candidate.value = 2
    form.threshold.value = 0.39
    assert sorted(files.folder.rglob("*")) == before
    assert form.state.value.startswith("2 candidates: 0 accepted, 0 rejected, 0 corrected, 2 not decided")
    assert form.candidate.options == (("1, lesion: not decided", 1), ("2, below the operating point: not decided", 2))
    assert imread(BytesIO(form.picture.value)).shape[0] > 100


def test_accept_reject_and_take_back_are_saved_at_once(files: ScreeningPaths) -> None:
    form = ReadingControls(files)
    assert press(form, "Accept") == "Accept: saved beside the result."
    form.candidate.value = 2
    press(form, "Reject")
    assert {n: one.verdict for n, one in reading.read(files).decisions.items()} == {1: "accepted", 2: "rejected"}
    assert form.candidate.value == 2, "the chosen candidate stays chosen"
    assert form.candidate.options[1] == ("2, below the operating point: rejected", 2)
    press(form, "Take back")
    assert reading.read(files).undecided == (2,)
    assert press(form, "Take back").startswith("Not saved: lesion: 2 has no decision")


def test_the_slider_corrects_the_chosen_candidate(files: ScreeningPaths) -> None:
    form = ReadingControls(files)
    form.threshold.value = 0.9
    assert form.message.value.startswith("From 0.90: ")
    press(form, "Correct to this probability")
    assert reading.read(files).decisions[1].threshold == 0.9
    form.threshold.value = 0.99
    assert "no voxel of lesion 1 has 0.99 or more" in form.message.value
    assert press(form, "Correct to this probability").startswith("Not saved: threshold: no voxel")
    assert len(reading.read(files).history) == 1


def test_a_label_map_and_a_missed_lesion_are_typed(files: ScreeningPaths, tmp_path: Path) -> None:
    form = ReadingControls(files)
    assert press(form, "Correct to this label map").startswith("Not saved: label map: is empty")
    path = nifti.write(tmp_path / "mine.nii.gz", nifti.read_labels(files.labels), nifti.read_grid(files.t1c).affine)
    form.drawn.value = str(path)
    press(form, "Correct to this label map")
    assert reading.read(files).decisions[1].mask is not None
    form.drawn.value, form.place.value = "", "here"
    assert press(form, "Add a missed lesion here").startswith("Not saved: missed lesion: 'here' must be three numbers")
    form.place.value = "12.5, -30, 8"
    press(form, "Add a missed lesion here")
    assert reading.read(files).added[3].place_mm == (12.5, -30.0, 8.0)
    assert form.candidate.options[2] == ("3, added: added", 3)
    form.candidate.value = 3
    press(form, "Take back")
    assert not reading.read(files).added and len(form.candidate.options) == 2


def test_a_form_of_an_older_result_saves_nothing(files: ScreeningPaths) -> None:
    form = ReadingControls(files)
    write_json(files.record, read_json(files.record) | {"created": "2024-06-02T10:00:00+00:00"})
    assert "was screened anew since it was opened: nothing was saved" in press(form, "Accept")
    assert not files.reading.exists()


def test_writing_makes_table_map_page_and_worklist(files: ScreeningPaths) -> None:
    form = ReadingControls(files)
    form.candidate.value = 2
    press(form, "Accept")
    assert press(form, "Write label map and table") == "Write label map and table: saved beside the result."
    assert schemas.read(files.reading_table, schemas.READ)["lesion"].tolist() == [1, 2]
    assert files.page.is_file() and (files.folder.parent / "worklist.csv").is_file()


def test_the_picture_shows_the_patients_right_on_the_left(files: ScreeningPaths) -> None:
    form = ReadingControls(files)
    own = form.scan.numbers == 1
    wide = np.zeros_like(own)
    x, y, z = np.rint(np.argwhere(own).mean(axis=0)).astype(int)
    wide[x : x + 8, y, z] = True  # to the patient's right
    drawn = imread(BytesIO(controls.picture(form.scan, own, wide)))[..., :3]
    blue = np.abs(drawn - np.array([0x56, 0xB4, 0xE9]) / 255).max(axis=-1) < 0.1
    axial = blue[:, : drawn.shape[1] // 3]
    assert axial.any() and np.nonzero(axial)[1].mean() < drawn.shape[1] / 6


def test_a_refused_scan_and_one_without_candidates_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = make_screened(tmp_path / "scan-00001-000", refused=True)
    controls.show(refused)
    assert controls.view(refused, tmp_path, "slices") is None
    assert capsys.readouterr().out.splitlines() == [controls.REFUSED] * 2
    form = ReadingControls(make_screened(tmp_path / "scan-00002-000", 0, 0))
    assert form.words.value == controls.NOTHING
    assert press(form, "Accept") == "Not saved: there is no candidate to decide"


def test_the_scan_is_shown_in_3d_without_the_head_around_the_brain(
    files: ScreeningPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = controls.view(files, tmp_path / "view", "slices")
    assert picture.data[:4] == b"\x89PNG"
    assert "scan-00001-000, SegResNet fine-tuned on T1 after contrast, shown by slices" in capsys.readouterr().out
