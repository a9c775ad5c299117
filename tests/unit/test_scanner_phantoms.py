"""Phantoms of a raw scan session: the DICOM says what was made, and the recorded truth is true of the images."""

import hashlib
import json
import subprocess
import warnings

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from brainmets.phantoms import scanner
from brainmets.vocabulary import SEQUENCES

SPACING = 5.0
PATIENTS = 3
"""The third is written as enhanced multi-frame files."""
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return scanner.make_scanner_cohort(tmp_path_factory.mktemp("scanner") / "raw", PATIENTS, SPACING, seed=3)


@pytest.fixture(scope="module")
def truth(cohort):
    return json.loads((cohort / "truth.json").read_text())["patients"]


@pytest.fixture(scope="module")
def series(cohort):
    """Files and headers by patient and series number; a warning of pydicom's is an error."""
    found: dict[tuple[str, int], list] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted((cohort / "dicom").rglob("*")):
            if path.is_file():
                dataset = pydicom.dcmread(path)
                dataset.walk(lambda _, element: element.value)
                found.setdefault((dataset.PatientID, int(dataset.SeriesNumber)), []).append((path, dataset))
    return found


def read(files):
    """One series as SimpleITK's GDCM reader gives it."""
    if len(files) == 1:
        return SimpleITK.ReadImage(str(files[0][0]))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0][0].parent)))
    return reader.Execute()


def corners(shape, place):
    """Where a grid's corner voxels lie, in no order."""
    ends = [(0, n - 1) for n in shape]
    return np.array(sorted(tuple(np.round(place((i, j, k)), 2)) for i in ends[0] for j in ends[1] for k in ends[2]))


def expected_corners(record):
    affine = TO_LPS @ np.array(record["affine"])
    return corners(record["shape"], lambda voxel: (affine @ (*voxel, 1))[:3])


def every_sequence(truth):
    return [(patient, name, truth[patient]["series"][name]) for patient in truth for name in SEQUENCES]


def transform(matrix):
    """ITK's transform, on L, P, S, of a matrix on R, A, S."""
    turned = TO_LPS @ np.array(matrix) @ TO_LPS
    affine = SimpleITK.AffineTransform(3)
    affine.SetMatrix(turned[:3, :3].ravel().tolist())
    affine.SetTranslation(turned[:3, 3].tolist())
    return affine


def test_gdcm_reads_the_recorded_geometry(truth, series):
    for patient, _, record in every_sequence(truth):
        files = series[patient, record["number"]]
        assert len(files) == (1 if truth[patient]["multiframe"] else record["shape"][2])
        image = read(files)
        assert list(image.GetSize()) == record["shape"]
        assert image.GetSpacing() == pytest.approx(record["spacing_mm"], abs=1e-5)
        found = corners(image.GetSize(), lambda voxel, image=image: image.TransformIndexToPhysicalPoint(voxel))
        assert np.allclose(found, expected_corners(record), atol=0.02)


def test_dcm2niix_reads_the_same_places_and_values(truth, series, tmp_path):
    for patient in ("PHANTOM-0002", "PHANTOM-0003"):
        for name in ("t1c", "t2w"):
            record = truth[patient]["series"][name]
            files = series[patient, record["number"]]
            out = tmp_path / f"{patient}-{name}"
            out.mkdir()
            command = [dcm2niix.bin, "-z", "n", "-b", "n", "-o", out, files[0][0].parent]
            subprocess.run(command, check=True, capture_output=True)
            (path,) = out.glob("*.nii")
            image = nib.load(path)
            matrix = TO_LPS @ image.affine
            found = corners(image.shape, lambda voxel, matrix=matrix: (matrix @ (*voxel, 1))[:3])
            assert np.allclose(found, expected_corners(record), atol=0.02)
            values = SimpleITK.GetArrayFromImage(read(files))
            assert np.asarray(image.dataobj).sum() == pytest.approx(values.sum(), rel=1e-4)


def test_voxels_come_back_as_they_were_made(truth, series):
    for number in (1, 3):
        session = scanner.make_session(number, SPACING, seed=3)
        patient = scanner.patient_id(number)
        for name, scanned in session.sequences.items():
            image = read(series[patient, truth[patient]["series"][name]["number"]])
            stored = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
            if scanned.slab.affine[:3, 2] @ image_normal(image) < 0:  # GDCM counts slices along the planes' normal
                stored = stored[:, :, ::-1]
            assert np.allclose(stored, scanned.voxels * scanned.acquisition.slope)


def image_normal(image):
    """Direction of the slices, R, A, S."""
    return TO_LPS[:3, :3] @ np.array(image.GetDirection()).reshape(3, 3)[:, 2]


def test_the_true_matrices_lay_the_sequences_over_each_other(cohort, truth, series):
    for patient, record in truth.items():
        t1c = SimpleITK.Cast(read(series[patient, record["series"]["t1c"]["number"]]), SimpleITK.sitkFloat32)
        mask = SimpleITK.ReadImage(str(cohort / "brain_masks" / f"{patient}.nii.gz"))
        brain = (
            SimpleITK.GetArrayFromImage(
                SimpleITK.Resample(mask, t1c, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
            )
            > 0
        )
        assert 1100 < brain.sum() * np.prod(t1c.GetSpacing()) / 1000 < 2100  # mL

        def likeness(name, matrix, patient=patient, record=record, t1c=t1c, brain=brain):
            other = SimpleITK.Cast(read(series[patient, record["series"][name]["number"]]), SimpleITK.sitkFloat32)
            moved = SimpleITK.GetArrayFromImage(SimpleITK.Resample(other, t1c, transform(matrix)))
            return abs(np.corrcoef(moved[brain], SimpleITK.GetArrayFromImage(t1c)[brain])[0, 1])

        for name in ("t1n", "t2w", "t2f"):
            right = np.array(record["t1c_to"][name])
            assert record["moves"][name]["rotation_deg"] > 1 or record["moves"][name]["shift_mm"] > 3
            off = np.eye(4)
            off[:3, 3] = (8, 8, 8)
            assert (
                likeness(name, right) > max(likeness(name, off @ right), likeness(name, np.linalg.inv(right))) + 0.05
            )
        assert likeness("t1n", record["t1c_to"]["t1n"]) > 0.75


def test_labels_lie_where_the_t1c_enhances_and_the_truth_says(cohort, truth, series):
    recorded, drawn = 0.0, 0.0
    bright: list[float] = []
    for patient, record in truth.items():
        labels = nib.load(cohort / "labels" / f"{patient}.nii.gz")
        brain = nib.load(cohort / "brain_masks" / f"{patient}.nii.gz")
        assert nib.aff2axcodes(labels.affine) == ("R", "A", "S")
        assert np.array_equal(labels.affine, brain.affine)
        values = np.asarray(labels.dataobj)
        assert values.dtype == np.uint8
        assert sorted(labels.shape) == sorted(record["series"]["t1c"]["shape"])
        assert not values[np.asarray(brain.dataobj) == 0].any()
        assert record["lesions"]
        for lesion in record["lesions"]:
            voxel = np.linalg.inv(labels.affine) @ (*lesion["centre_mm"], 1)
            assert values[tuple(np.rint(voxel[:3]).astype(int))] >= 2
        recorded += sum(lesion["tumour_mm3"] for lesion in record["lesions"])
        drawn += (values >= 2).sum() * np.prod(labels.header.get_zooms())

        t1c = read(series[patient, record["series"]["t1c"]["number"]])
        drawing = SimpleITK.ReadImage(str(cohort / "labels" / f"{patient}.nii.gz"))
        on_t1c = SimpleITK.GetArrayFromImage(
            SimpleITK.Resample(drawing, t1c, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        )
        mask = SimpleITK.ReadImage(str(cohort / "brain_masks" / f"{patient}.nii.gz"))
        healthy = (
            SimpleITK.GetArrayFromImage(
                SimpleITK.Resample(mask, t1c, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
            )
            > 0
        )
        assert (on_t1c > 0).sum() == (values > 0).sum()  # one grid, in another order
        image = SimpleITK.GetArrayFromImage(t1c)
        bright.extend(image[on_t1c == 3] / image[healthy & (on_t1c == 0)].mean())
    assert np.mean(bright) > 1.15
    assert drawn == pytest.approx(recorded, rel=0.25)


def test_moves_keep_to_their_limits():
    for limits in ((15.0, 20.0), (4.0, 1.0)):
        session = scanner.make_session(1, SPACING, 8, *limits)
        moves = scanner.truth(session)["moves"]
        assert moves["t1c"] == {"rotation_deg": 0.0, "shift_mm": 0.0}
        for name in ("t1n", "t2w", "t2f"):
            assert 0 < moves[name]["rotation_deg"] <= limits[0]
            assert 0 < moves[name]["shift_mm"] <= limits[1]
    still = scanner.truth(scanner.make_session(1, SPACING, 8, 0.0, 0.0))["t1c_to"]
    assert all(np.allclose(matrix, np.eye(4)) for matrix in still.values())


def test_head_coordinates_lead_to_the_brain(cohort, truth):
    for patient, record in truth.items():
        brain = nib.load(cohort / "brain_masks" / f"{patient}.nii.gz")
        middle = np.argwhere(np.asarray(brain.dataobj) > 0).mean(0)
        place = (brain.affine @ (*middle, 1))[:3]
        assert np.linalg.norm(place - record["brain_centre_mm"]) < 15
        head = np.array(record["head_to_t1c"])
        assert np.allclose((head @ (0, -17, 5, 1))[:3], record["brain_centre_mm"])
        assert np.linalg.det(head[:3, :3]) == pytest.approx(1)


def test_sequences_differ_in_grid_and_protocol(truth, series):
    for patient, name, record in every_sequence(truth):
        _, header = series[patient, record["number"]][0]
        assert header.SeriesDescription == record["description"]
        assert header.MRAcquisitionType == record["acquisition"]
        gap = record["spacing_mm"][2] / record["thickness_mm"]
        assert gap == pytest.approx(1) if record["acquisition"] == "3D" else 1.05 < gap < 1.35
        if name != "t1c":
            assert record["affine"] != truth[patient]["series"]["t1c"]["affine"]
    kinds = {patient: {name: truth[patient]["series"][name]["acquisition"] for name in SEQUENCES} for patient in truth}
    assert kinds["PHANTOM-0001"] == {"t1n": "3D", "t1c": "3D", "t2w": "2D", "t2f": "3D"}
    assert truth["PHANTOM-0002"]["thick_slices"]
    assert kinds["PHANTOM-0002"] == {"t1n": "2D", "t1c": "3D", "t2w": "2D", "t2f": "2D"}


def test_a_session_holds_more_than_its_four_sequences(truth, series):
    for patient in truth:
        headers = {
            number: [header for _, header in files] for (who, number), files in series.items() if who == patient
        }
        assert len(headers) == 8
        planes = {tuple(np.round(h["ImageOrientationPatient"].value)) for h in headers[min(headers)]}
        assert len(planes) == 3  # the localiser
        (capture,) = headers[999]
        assert capture.pixel_array.shape[2] == 3
        diffusion = [h for h in (files[0] for files in headers.values()) if "DIFFUSION" in h.ImageType]
        assert len(diffusion) == 1
        assert len({files[0].StudyInstanceUID for files in headers.values()}) == 1


def test_contrast_is_told_by_the_agent_or_the_description(truth, series):
    for patient, name, record in every_sequence(truth):
        _, header = series[patient, record["number"]][0]
        told = "ContrastBolusAgent" in header or any(word in header.SeriesDescription for word in ("+C", "KM", "GD"))
        assert told == (name == "t1c")


def test_what_must_not_leak_is_there_to_leak(cohort, truth):
    for number, patient in enumerate(truth, start=1):
        texts = [path.read_bytes() for path in (cohort / "dicom").rglob("*") if path.is_file()]
        own = [text for text in texts if patient.encode() in text]
        assert own
        for secret in scanner.secrets(number):
            assert all(secret.encode() in text for text in own), secret


def test_names_of_files_tell_nothing(cohort):
    for path in (cohort / "dicom").rglob("*"):
        assert path.suffix == ""
        assert path.name == "DICOM" or set(path.name) <= set("0123456789ABCDEF")


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_arguments_give_the_same_bytes(cohort, tmp_path, monkeypatch):
    again = scanner.make_scanner_cohort(tmp_path / "again", PATIENTS, SPACING, seed=3)
    assert digests(again) == digests(cohort)
    monkeypatch.setattr(scanner, "make_session", lambda *_: pytest.fail("made again"))
    assert scanner.make_scanner_cohort(again, PATIENTS, SPACING, seed=3) == again
    with pytest.raises(FileExistsError, match=r"max_shift_mm 20.0 there, 5.0 asked for"):
        scanner.make_scanner_cohort(again, PATIENTS, SPACING, seed=3, max_shift_mm=5.0)


def test_seed_and_patient_make_another_head():
    first, seed, patient = (scanner.make_session(number, SPACING, seed) for number, seed in ((1, 3), (1, 4), (4, 3)))
    for other in (seed, patient):
        assert not np.array_equal(first.brain, other.brain)
        assert first.lesions[0][0].centre_mm != other.lesions[0][0].centre_mm


def test_foreign_folders_and_wrong_numbers_are_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan").write_text("a hospital's own")
    with pytest.raises(FileExistsError, match=r"mine exists and was not made by the phantom generator"):
        scanner.make_scanner_cohort(tmp_path / "mine", 1, SPACING, seed=3)
    with pytest.raises(ValueError, match="patients: 0 must be 1 or more"):
        scanner.make_scanner_cohort(tmp_path / "none", 0, SPACING, seed=3)
    with pytest.raises(ValueError, match=r"spacing_mm: 0\.5 must lie"):
        scanner.make_scanner_cohort(tmp_path / "fine", 1, 0.5, seed=3)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_a_network_for_people_finds_the_brain(tmp_path):
    """At full size; deepbet is trained on the T1 of adults."""
    from deepbet import run_bet

    session = scanner.make_session(1, 1.0, seed=3)
    affine = session.sequences["t1c"].slab.affine
    image = nib.as_closest_canonical(nib.Nifti1Image(session.sequences["t1c"].voxels, affine))
    nib.save(image, tmp_path / "t1c.nii.gz")
    run_bet([str(tmp_path / "t1c.nii.gz")], mask_paths=[str(tmp_path / "mask.nii.gz")], no_gpu=True)
    found = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj) > 0
    brain = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(session.brain, affine)).dataobj) > 0
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.95
