"""``brainmets screen`` from a scanner's DICOM to the page: files, exit status, what is kept, what is done again.

The model is a network of one training step: what it finds is nothing to look at, where the files come to lie is.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import bundled_study
import nibabel as nib
import numpy as np
import other_sequences
import pytest

from brainmets import cli, nifti
from brainmets.paths import ScreeningPaths, StudyPaths
from brainmets.phantoms.scanner import make_scanner_cohort, patient_id, secrets
from brainmets.preparation import dicom, series
from brainmets.screening import bundle, guard, result
from brainmets.screening.guard import Remark
from brainmets.vocabulary import SEQUENCES

pytestmark = pytest.mark.slow
IMAGES = ("labels.nii.gz", "lesions.nii.gz", "probabilities.nii.gz", "uncertainty.nii.gz", "t1c.nii.gz")
REFUSAL = Remark("contrast", "refuse", "t1c", "T1 after contrast shows no enhancement", 0.4, 3.1, 9.7)


class Scans:
    """Two patients' DICOM, a model, and the folder of results; the second patient's FLAIR is not there."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.model, self.raw, self.out = model, folder / "raw", folder / "out"
        make_scanner_cohort(self.raw, 2, 5.0, 1)
        found, _ = dicom.find_series(self.raw / "dicom")
        second = [one for one in found if one.patient == patient_id(2)]
        table = series.guess(second)
        number = int(table.loc[table["role"] == "t2f", "series"].iloc[0])
        self.taken = next(one for one in second if one.number == number).files[0].parent
        self.aside = folder / "aside"
        shutil.move(self.taken, self.aside)

    def run(self, *words: str) -> int:
        masks = str(self.raw / "brain_masks" / "{patient}.nii.gz")
        given = [str(self.model), str(self.raw / "dicom"), "--out", str(self.out), "--brain-masks", masks]
        return cli.main(["screen", *given, "--device", "cpu", "--workers", "1", *words])

    def files(self, number: int) -> ScreeningPaths:
        return ScreeningPaths(self.out / self.case(number))

    def case(self, number: int) -> str:
        """Which name the key gives phantom ``number``."""
        rows = (self.out / "private" / "key.csv").read_text().splitlines()
        return next(row.rpartition(",")[2].strip('"') for row in rows if patient_id(number) in row)


@pytest.fixture(scope="module")
def model(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    study = bundled_study.make(small_study, folder / "work", arms=("default",))
    return bundle.write(study, "default", bundled_study.STRATEGY, folder / "model.zip")


@pytest.fixture(scope="module")
def scans(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return Scans(tmp_path_factory.mktemp("scans"), model)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that knows phantoms: the small study's training cohort is another one."""
    monkeypatch.setattr(guard, "look", lambda *arguments: [])


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "look", lambda *arguments: [REFUSAL])


def test_one_broken_scan_stops_no_other(scans: Scans, passing, capsys) -> None:
    assert scans.run() == 1
    said = capsys.readouterr()
    whole = result.read(scans.files(1).folder)
    assert f"brainmets screen: {scans.case(2)}: " in said.err
    assert "t2f" in said.err and "series.csv" in said.err and "Research use only" in said.out
    assert not scans.files(2).record.exists()
    names = (scans.out / "worklist.csv").read_text()
    assert scans.case(1) in names and scans.case(2) in names  # none is left out of the list
    assert scans.out.stat().st_mode & 0o777 == 0o700
    assert (scans.out / ".gitignore").read_text() == "*\n", "git passes over patients' results"
    assert whole.record["input"]["kind"] == "dicom" and whole.record["input"]["grid"] == "t1c"
    assert whole.record["date"] is not None
    assert {"preparation", "guard", "prediction", "source grid", "lesion table", "files"} <= set(
        whole.record["seconds"]
    )
    assert len(whole.table) == whole.record["lesions"] + whole.record["candidates"]


def test_every_file_lies_on_the_grid_of_the_source(scans: Scans) -> None:
    files = scans.files(1)
    grids = [nifti.read_grid(files.folder / name) for name in IMAGES if name != "probabilities.nii.gz"]
    assert all(grid.same(grids[0]) for grid in grids)
    assert nib.load(files.probabilities).shape == (*grids[0].shape, 3)
    brain = nifti.read_grid(scans.raw / "brain_masks" / f"{patient_id(1)}.nii.gz")  # on the t1c's voxels
    assert grids[0].to_ras().same(brain)
    table = result.read(files.folder).table
    numbers = nifti.read_volume(files.numbers)[0]
    assert set(np.unique(numbers)) - {0} == set(table["lesion"])
    assert files.segmentation.is_file()
    painted = bool(nifti.read_volume(files.labels)[0].any())
    assert files.dicom_labels.is_file() == painted


def test_no_page_or_record_names_the_patient(scans: Scans) -> None:
    files = scans.files(1)
    texts = [files.page, files.record, files.table, files.table_json, scans.out / "worklist.html"]
    for path in texts:
        text = path.read_text()
        assert not [word for word in secrets(1) if word in text], path.name
        assert str(scans.raw) not in text


def test_what_is_done_is_kept_and_the_mended_scan_is_screened(scans: Scans, passing, capsys) -> None:
    before = scans.files(1).record.stat().st_mtime_ns
    shutil.move(scans.aside, scans.taken)
    assert scans.run() == 0
    assert "2 scan(s), 1 of them to screen" in capsys.readouterr().out
    assert scans.files(1).record.stat().st_mtime_ns == before
    assert result.read(scans.files(2).folder).record["case"] == scans.case(2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda files: files.record.unlink(),
        lambda files: files.record.write_text("{"),
        lambda files: files.labels.write_bytes(files.labels.read_bytes()[:-9]),
        lambda files: files.numbers.unlink(),
    ],
)
def test_what_is_not_whole_is_screened_anew(
    scans: Scans, passing, capsys, spoil: Callable[[ScreeningPaths], object]
) -> None:
    files = scans.files(1)
    (files.folder / ".123.labels.nii.gz").write_text("broken off")
    files.reading.write_text("{}")
    spoil(files)
    assert scans.run() == 0
    assert "2 scan(s), 1 of them to screen" in capsys.readouterr().out
    assert result.read(files.folder).record["case"] == files.case
    assert files.reading.read_text() == "{}"  # a reader's own
    files.reading.unlink()
    assert not list(files.folder.glob(".*"))


def test_a_page_that_is_gone_is_made_again(scans: Scans, passing, capsys) -> None:
    scans.files(1).page.unlink()
    assert scans.run() == 0
    assert "2 scan(s), 0 of them to screen" in capsys.readouterr().out
    assert scans.files(1).page.is_file()


@pytest.fixture
def prepared(scans: Scans, tmp_path: Path) -> Path:
    """The first patient's prepared images in BraTS naming."""
    folder = tmp_path / "cases" / "next-00001-000"
    folder.mkdir(parents=True)
    for name in SEQUENCES:
        shutil.copy(scans.files(1).prepared / f"{name}.nii.gz", folder / f"next-00001-000-{name}.nii.gz")
    return folder.parent


def test_a_prepared_case_is_taken_as_it_is(scans: Scans, prepared: Path, passing, tmp_path) -> None:
    out = tmp_path / "out"
    assert cli.main(["screen", str(scans.model), str(prepared), "--out", str(out)]) == 0
    found = result.read(out / "next-00001-000")
    assert found.record["input"]["kind"] == found.record["input"]["grid"] == "prepared"
    assert found.record["date"] is None and found.record["preparation"] is None
    given = nifti.read_grid(prepared / "next-00001-000" / "next-00001-000-t1c.nii.gz")
    assert nifti.read_grid(found.files.labels).same(given)
    assert not found.files.dicom_labels.exists()
    assert found.record["suspicion"] == json.loads(scans.files(1).record.read_text())["suspicion"]


def test_a_refused_scan_has_a_page_and_no_images(scans: Scans, prepared: Path, refusing, capsys, tmp_path) -> None:
    out = tmp_path / "out"
    assert cli.main(["screen", str(scans.model), str(prepared), "--out", str(out)]) == 1
    assert "next-00001-000 was refused: T1 after contrast shows no enhancement" in capsys.readouterr().err
    found = result.read(out / "next-00001-000")
    assert found.record["guard"]["decision"] == "refuse" and found.table.empty
    assert found.files.page.is_file() and not [name for name in IMAGES if (found.files.folder / name).exists()]
    assert (out / "worklist.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (lambda scans, out: [scans.raw / "dicom", "--out", scans.raw / "dicom" / "out"], "which is read"),
        (lambda scans, out: [scans.raw / "nowhere", "--out", out], "is not there"),
        (lambda scans, out: [scans.raw / "dicom", "--out", out, "--prepared"], "holds no file named as in BraTS"),
        (lambda scans, out: [scans.raw / "dicom", "--out", out, "--prefix", "1"], "prefix"),
    ],
)
def test_what_cannot_be_carried_out_is_said_in_words(scans: Scans, capsys, tmp_path, words, message) -> None:
    given = map(str, words(scans, tmp_path / "out"))
    assert cli.main(["screen", str(scans.model), *given]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("brainmets screen: ")
    assert not list(tmp_path.glob("out/*/screening.json"))


def test_a_folder_that_others_may_enter_is_refused(scans: Scans, prepared: Path, capsys, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o755)
    assert cli.main(["screen", str(scans.model), str(prepared), "--out", str(out)]) == 2
    assert "can be entered by others" in capsys.readouterr().err


def test_a_damaged_model_is_named(scans: Scans, prepared: Path, capsys, tmp_path) -> None:
    held = bytearray(scans.model.read_bytes())
    held[len(held) // 2] ^= 1
    (tmp_path / "model.zip").write_bytes(bytes(held))
    assert cli.main(["screen", str(tmp_path / "model.zip"), str(prepared), "--out", str(tmp_path / "out")]) == 2
    assert "model.zip" in capsys.readouterr().err


def test_of_raw_scans_only_the_models_sequences_are_asked_for_and_what_it_may_miss_is_told(
    small_study: StudyPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second patient has no FLAIR: a model that was trained with dropout does without, one of t1c never asks."""
    look = guard.look
    monkeypatch.setattr(guard, "look", lambda *given: [one for one in look(*given) if one.rule == guard.LACKING])
    study = bundled_study.make(small_study, tmp_path / "one", ("default",), settings={"sequence_dropout": 0.5})
    scans = Scans(tmp_path, bundle.write(study, "default", bundled_study.STRATEGY, tmp_path / "one.zip"))
    assert scans.run() == 0
    whole, lacking = (result.read(scans.files(number).folder).record for number in (1, 2))
    assert (whole["guard"]["decision"], lacking["guard"]["decision"]) == ("pass", "warn")
    (remark,) = lacking["guard"]["remarks"]
    assert (remark["rule"], remark["sequence"]) == (guard.LACKING, "t2f")
    assert set(lacking["input"]["sequences"]) == set(SEQUENCES) - {"t2f"}
    assert set(lacking["input"]["raw_sha256"]) == {*SEQUENCES, "brain_mask"} - {"t2f"}
    files = other_sequences.ingest(tmp_path / "study", ["t1c"], ["t1c"])
    study = bundled_study.make(files, tmp_path / "two", ("default",))
    scans.model = bundle.write(study, "default", bundled_study.STRATEGY, tmp_path / "two.zip")
    assert scans.run() == 0, "into the same folder, by a model that reads less"
    for number in (1, 2):
        folder = scans.files(number)
        record = result.read(folder.folder).record
        assert set(record["input"]["sequences"]) == {"t1c"} == set(record["input"]["raw_sha256"]) - {"brain_mask"}
        assert [path.name for path in folder.prepared.glob("t*.nii.gz")] == ["t1c.nii.gz"]
        assert record["guard"]["decision"] == "pass" and "displaced" in record["guard"]["passed_over"]
