"""The whole way of a scan, on a miniature scanner phantom whose truth is known: what ``brainmets prepare`` leaves."""

import gzip
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from brainmets import cli
from brainmets.files import read_json
from brainmets.params import Cohort, Raw
from brainmets.paths import PreparationPaths
from brainmets.phantoms.scanner import Session, make_scanner_cohort, make_session, secrets
from brainmets.preparation import batch, pipeline, registration, sorting
from brainmets.preparation.scans import ScanError
from brainmets.provenance import sha256
from brainmets.vocabulary import SEQUENCES

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CASE = "case-00001-000"
SPACING = 4.0


def prepare(folder: Path, *further: str) -> int:
    words = ["prepare", str(folder / "raw"), "--out", str(folder / "cohort"), "--labels", "labels/{patient}.nii.gz"]
    words += ["--brain-masks", "brain_masks/{patient}.nii.gz", "--spacing", "4", "4", "4", "--workers", "1"]
    return cli.main([*words, *further])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phantom at 4 mm, moved by up to 15 degrees and 20 mm between sequences, prepared from DICOM."""
    folder = tmp_path_factory.mktemp("prepared")
    make_scanner_cohort(folder / "raw", 1, SPACING, seed=7)
    assert prepare(folder) == 0
    return folder


def files(folder: Path) -> PreparationPaths:
    return PreparationPaths(folder / "cohort.private")


@pytest.mark.slow
def test_a_lesion_comes_to_lie_where_it_should(prepared: Path) -> None:
    """Within half a voxel in each sequence, though the head moved between them."""
    (truth,) = read_json(prepared / "raw" / "truth.json")["patients"].values()
    transforms = registration.read_transforms(files(prepared).case(CASE))
    for name in ("t1n", "t2w", "t2f"):
        right = TO_LPS @ np.array(truth["t1c_to"][name]) @ TO_LPS
        for lesion in truth["lesions"]:
            point = TO_LPS @ [*lesion["centre_mm"], 1]
            away = np.subtract(transforms[name].TransformPoint(point[:3].tolist()), (right @ point)[:3])
            assert np.linalg.norm(away) < SPACING / 2, name


@pytest.mark.slow
def test_images_are_on_one_grid_along_r_a_s_and_0_outside_the_mask(prepared: Path) -> None:
    images = {name: nib.load(prepared / "cohort" / CASE / f"{CASE}-{name}.nii.gz") for name in (*SEQUENCES, "seg")}
    mask = nib.load(files(prepared).case(CASE) / "brain_mask.nii.gz")
    for name, image in images.items():
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert np.array_equal(image.affine, mask.affine)
        assert image.header.get_zooms() == (4.0, 4.0, 4.0)
        if name != "seg":
            assert not image.get_fdata()[mask.get_fdata() == 0].any()
            assert image.get_fdata()[mask.get_fdata() > 0].mean() > 0


@pytest.mark.slow
def test_the_label_map_keeps_its_values_and_its_volume(prepared: Path) -> None:
    (native,) = (nib.load(path) for path in (prepared / "raw" / "labels").glob("*.nii.gz"))
    after = nib.load(prepared / "cohort" / CASE / f"{CASE}-seg.nii.gz")
    before_ml = np.count_nonzero(native.get_fdata()) * np.prod(native.header.get_zooms()) / 1000
    after_ml = np.count_nonzero(after.get_fdata()) * np.prod(after.header.get_zooms()) / 1000
    assert after_ml == pytest.approx(before_ml, rel=0.2)
    assert set(np.unique(after.get_fdata())) == set(np.unique(native.get_fdata()))
    assert read_json(files(prepared).prepared(CASE))["label_beyond_grid"] == 0


@pytest.mark.slow
def test_nothing_of_the_person_is_in_the_cohort_or_in_what_was_said(
    prepared: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The key and series.csv alone may hold words of the headers, and they are the user's own."""
    words = [word.encode() for word in secrets(1)]
    private = files(prepared)
    for path in sorted(p for p in prepared.rglob("*") if p.is_file() and not p.is_relative_to(prepared / "raw")):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if path not in (private.key, private.plan):  # who is who, and the paths of the raw files
            assert not [word for word in words if word in content], path.name
        assert not any(word in path.name.encode() for word in words)
    assert prepare(prepared) == 0
    said = "".join(capfd.readouterr())
    assert not [word for word in secrets(1) if word in said]
    assert stat.S_IMODE(private.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(private.key.stat().st_mode) == 0o600


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_the_same_scan_gives_the_same_bytes(
    prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(prepared, tmp_path / "again", copy_function=shutil.copy2)
    again = tmp_path / "again"
    made = {path.name: sha256(path) for path in (again / "cohort" / CASE).iterdir()}
    assert prepare(prepared) == 0
    assert "1 patients' scans, 0 of them to prepare" in capfd.readouterr().out
    files(again).prepared(CASE).unlink()
    (again / "cohort" / CASE / f"{CASE}-t2w.nii.gz").unlink()
    assert prepare(again) == 0
    assert {path.name: sha256(path) for path in (again / "cohort" / CASE).iterdir()} == made


@pytest.mark.slow
def test_the_record_says_what_made_it(prepared: Path) -> None:
    record = read_json(files(prepared).prepared(CASE))
    assert (record["brain_from"], record["drawn_on"]) == ("own mask", "t1c")
    assert set(record["raw_sha256"]) == {*SEQUENCES, "label", "brain_mask"}
    assert record["provenance"]["parameters"]["spacing_mm"] == [4.0, 4.0, 4.0]
    assert sorted(record["provenance"]["inputs"]) == sorted(
        f"{CASE}/{CASE}-{name}.nii.gz" for name in (*SEQUENCES, "seg")
    )
    row = pd.read_csv(files(prepared).quality_table).iloc[0]
    assert row.case == CASE
    assert row.label_outside_voxels == 0
    json.dumps(record, allow_nan=False)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Native:
    folder = tmp_path_factory.mktemp("native")
    make_scanner_cohort(folder / "raw", 1, 5.0, seed=7)
    return pipeline.read(planned(folder))


def planned(folder: Path) -> sorting.Planned:
    shutil.rmtree(folder / "raw" / "brain_masks")  # no pattern names them: they would be a patient's volumes
    own = Raw(folder=str(folder / "raw"), prefix="case", labels="labels/{patient}.nii.gz")
    declaration = Cohort(folder=str(folder / "cohort"), layout="brats", label_map={}, held_out=0, raw=own)
    (one,) = sorting.sort(declaration, PreparationPaths(folder / "private"), lambda line: None).values()
    return one


def test_the_four_images_and_the_label_map_are_read_as_they_lie(native: pipeline.Native) -> None:
    assert set(native.images) == set(SEQUENCES)
    assert native.drawn_on == "t1c"
    assert native.labels is not None
    assert native.labels.GetSize() == native.images["t1c"].GetSize()
    assert native.brain_mask is None


def test_a_label_map_on_no_sequences_grid_is_refused_with_the_sizes(tmp_path: Path) -> None:
    make_scanner_cohort(tmp_path / "raw", 1, 5.0, seed=7)
    one = planned(tmp_path)
    assert one.label is not None
    stored = nib.load(one.label)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj)[:-1], stored.affine), tmp_path / "other.nii.gz")
    with pytest.raises(ScanError, match=r"case case-00001-000: the label map lies on no sequence's grid \(\d+ x"):
        pipeline.read(replace(one, label=tmp_path / "other.nii.gz"))


def test_a_label_map_may_be_drawn_on_another_sequence(native: pipeline.Native, tmp_path: Path) -> None:
    image = native.images["t2f"]
    drawn = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    drawn.CopyInformation(image)
    sitk.WriteImage(drawn, str(tmp_path / "drawn.nii.gz"))
    found, sequence = pipeline._on_a_sequence(tmp_path / "drawn.nii.gz", native.images, "the label map")
    assert sequence == "t2f"
    assert found is not None
    assert found.GetSize() == image.GetSize()


@pytest.mark.parametrize("stored", ["RAS", "LPS", "PIR", "ASL", "SAR", "IPL"])
def test_arrays_run_along_r_a_and_s_whatever_the_file_does(stored: str) -> None:
    """A single bright voxel at R 30, A -20, S 10 mm."""
    grid = sitk.Image([20, 24, 28], sitk.sitkFloat32)
    grid.SetSpacing([2.0, 3.0, 4.0])
    grid.SetOrigin([-30.0, 20.0, 10.0])  # L, P, S of voxel 0: R 30, A -20, S 10
    grid[0, 0, 0] = 7.0
    array, affine = pipeline.along_ras(sitk.DICOMOrient(grid, stored))
    (at,) = np.argwhere(array == 7)
    assert (affine @ [*at, 1])[:3] == pytest.approx([30, -20, 10])
    assert nib.aff2axcodes(affine) == ("R", "A", "S")


def test_a_case_that_fails_is_told_without_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The details, which may name files, stay in the private folder."""
    make_scanner_cohort(tmp_path / "raw", 1, 5.0, seed=7)
    one = planned(tmp_path)
    declaration = Cohort(folder=str(tmp_path / "cohort"), layout="brats", label_map={}, held_out=0)
    files = PreparationPaths(tmp_path / "private")

    def broken(given: sorting.Planned) -> pipeline.Native:
        raise RuntimeError(f"cannot read {given.label}")

    monkeypatch.setattr(pipeline, "read", broken)
    settings = pipeline.Settings("template", (4.0, 4.0, 4.0), 2.0, False, 1)
    with pytest.raises(RuntimeError):
        batch.prepare_case(one, declaration, files, settings)
    log = files.case(one.case) / "failed.log"
    assert str(one.label) in log.read_text()
    assert not files.prepared(one.case).exists()


@pytest.mark.slow
def test_the_t1cs_own_grid_and_a_corrected_bias_field(tmp_path: Path) -> None:
    """The t1c is not resampled at all, but for the bias field: its voxels stay, and so does its label map."""
    make_scanner_cohort(tmp_path / "raw", 1, 5.0, seed=7)
    one = planned_with_mask(tmp_path)
    native = pipeline.read(one)
    for bias_field in (False, True):
        made = pipeline.prepare(native, pipeline.Settings("t1c", None, 4.0, bias_field, 1), lambda line: None)
        before, affine = pipeline.along_ras(native.images["t1c"])
        assert np.array_equal(made.affine, affine)
        inside = made.mask > 0
        assert np.allclose(made.images["t1c"][inside], before[inside], atol=1e-3) is not bias_field
        assert made.images["t1c"][inside].std() > 0
        assert np.isfinite(made.images["t1c"]).all()
        assert native.labels is not None
        assert np.array_equal(made.labels, pipeline.along_ras(native.labels)[0])
        assert pipeline.TEMPLATE not in made.registrations


def planned_with_mask(folder: Path) -> sorting.Planned:
    own = Raw(
        folder=str(folder / "raw"), prefix="case", labels="labels/{patient}.nii.gz",
        brain_masks="brain_masks/{patient}.nii.gz",
    )  # fmt: skip
    declaration = Cohort(folder=str(folder / "cohort"), layout="brats", label_map={}, held_out=0, raw=own)
    (one,) = sorting.sort(declaration, PreparationPaths(folder / "private"), lambda line: None).values()
    return one


def test_slices_that_lean_are_no_grid_of_a_case(native: pipeline.Native) -> None:
    leaning = sitk.Image(native.images["t1c"])
    shear = np.eye(3)
    shear[1, 2] = np.tan(np.radians(15))
    leaning.SetDirection((shear / np.linalg.norm(shear, axis=0)).ravel().tolist())
    tilted = replace(native, images={**native.images, "t1c": leaning})
    with pytest.raises(ScanError, match="the slices of the t1c lean"):
        pipeline.prepare(tilted, pipeline.Settings("t1c", None, 4.0, False, 1), lambda line: None)


def test_a_crash_takes_no_other_case_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case has a process of its own; the first one here is killed in it."""
    cases = [sorting.Planned(f"case-{number}", {}, None, None, "") for number in range(3)]
    monkeypatch.setattr(batch, "prepare_case", dies_first)
    declaration = Cohort(folder=str(tmp_path / "cohort"), layout="brats", label_map={}, held_out=0)
    settings = pipeline.Settings("template", (4.0, 4.0, 4.0), 2.0, False, 1)
    files = PreparationPaths(tmp_path / "private")
    failed = batch.prepare_planned(
        {one.case: one for one in cases}, declaration, files, settings, 1, lambda line: None
    )
    assert list(failed) == ["case-0"]
    assert "its process was killed" in failed["case-0"]


def dies_first(planned: sorting.Planned, *further: object) -> None:
    if planned.case == "case-0":
        os.kill(os.getpid(), signal.SIGKILL)


# --- whole cohorts


def as_volumes(folder: Path, session: Session, stored: str, flipped: bool = False) -> None:
    """A session as NIfTI files whose axes run as ``stored``, its content mirrored left to right where ``flipped``."""
    folder.mkdir(parents=True)
    names = {"t1n": "T1", "t1c": "T1_GD", "t2w": "T2", "t2f": "FLAIR"}
    for sequence, scanned in session.sequences.items():
        image = nib.as_closest_canonical(nib.Nifti1Image(scanned.voxels.astype(np.int16), scanned.slab.affine))
        voxels = np.asarray(image.dataobj)[::-1] if flipped else np.asarray(image.dataobj)
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(stored)
        )
        image = nib.Nifti1Image(voxels, image.affine).as_reoriented(turn)
        nib.save(image, folder / f"{names[sequence]}.nii.gz")


@pytest.mark.slow
def test_axis_orders_come_out_equal_and_copies_are_found_by_their_content(tmp_path: Path) -> None:
    """One scan stored twice in other axes, under two patients, and once mirrored: no header tells of it."""
    session = make_session(4, 3.0, seed=7)
    for patient, stored, flipped in (("A", "RAS", False), ("B", "PIL", False), ("C", "LSA", True)):
        as_volumes(tmp_path / "raw" / patient, session, stored, flipped)
    status = cli.main(
        ["prepare", str(tmp_path / "raw"), "--out", str(tmp_path / "cohort"), "--spacing", "3", "3", "3"]
    )
    assert status == 1, "flags of severity error"
    key = pd.read_csv(files(tmp_path).key, dtype=str).set_index("patient").case
    for sequence in SEQUENCES:
        first, second, mirrored = (
            nib.load(tmp_path / "cohort" / key[name] / f"{key[name]}-{sequence}.nii.gz") for name in "ABC"
        )
        assert np.array_equal(first.affine, second.affine)
        assert np.allclose(first.get_fdata(), second.get_fdata(), rtol=1e-4, atol=1e-2)
        assert not np.allclose(first.get_fdata(), mirrored.get_fdata(), rtol=1e-4, atol=1e-2)
    flagged = pd.read_csv(files(tmp_path).flags)
    copies = {(row.case, row.measure) for row in flagged.itertuples() if "copy" in row.measure}
    assert copies == {
        (key["A"], "copy"), (key["B"], "copy"),
        (key["A"], "mirrored_copy"), (key["B"], "mirrored_copy"), (key["C"], "mirrored_copy"),
    }  # fmt: skip


@pytest.mark.slow
def test_a_kill_costs_one_patient_at_most(tmp_path: Path) -> None:
    make_scanner_cohort(tmp_path / "raw", 2, 5.0, seed=7)
    call = [sys.executable, "-m", "brainmets.cli", "prepare", str(tmp_path / "raw"), "--out", str(tmp_path / "cohort")]
    call += ["--labels", "labels/{patient}.nii.gz", "--brain-masks", "brain_masks/{patient}.nii.gz"]
    call += ["--spacing", "5", "5", "5", "--workers", "1"]
    started = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    for line in started.stdout:
        if line.startswith("case 1 of 2"):
            break
    started.kill()
    started.wait()
    again = subprocess.run(call, capture_output=True, text=True, check=False, timeout=900)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 patients' scans, 1 of them to prepare" in again.stdout
    assert len(list((tmp_path / "cohort").glob("*/*-seg.nii.gz"))) == 2
    assert not list((tmp_path / "cohort").rglob(".*")), "nothing half-written is left"
