"""The demonstration cohorts: the same by seed, whole or absent, and made as their data card says."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from brainmets.params import Cohort
from brainmets.phantoms import sites
from brainmets.phantoms.lesions import ENHANCING, NECROSIS, NON_ENHANCING, OEDEMA

SPACING = 3.0
TOUCHING = np.ones((3, 3, 3))


def tumour(site, labels):
    """Everything but oedema, in the site's own scheme."""
    return (labels > 0) & (labels != sites.SITES[site].labels[OEDEMA])


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module", params=["source", "target"])
def scans(request):
    """Site name and six phantoms of it."""
    return request.param, [sites.make_patient(request.param, n, SPACING, seed=5) for n in range(1, 7)]


def test_voxels_follow_seed_and_patient():
    first, again = (sites.make_patient("source", 1, 4.0, seed=5) for _ in range(2))
    assert all(np.array_equal(first.images[name], again.images[name]) for name in first.images)
    assert np.array_equal(first.labels, again.labels)
    for other in (sites.make_patient("source", 1, 4.0, seed=6), sites.make_patient("source", 2, 4.0, seed=5)):
        assert not np.array_equal(first.images["t1c"], other.images["t1c"])


def test_a_rescan_shows_the_same_lesions_on_a_grid_shifted_by_less_than_a_voxel():
    first, second, third = (sites.make_patient("target", 3, SPACING, 5, n_lesions=4, rescan=n) for n in (0, 1, 2))
    again = sites.make_patient("target", 3, SPACING, 5, n_lesions=4, rescan=1)
    assert first.lesions == second.lesions == third.lesions and len(first.lesions) == 4
    assert all(np.array_equal(second.images[name], again.images[name]) for name in second.images)
    spacing = np.diag(first.affine)[:3]
    for one, other in ((first, second), (first, third)):
        shift = (other.affine - one.affine)[:3, 3] / spacing
        assert (np.abs(shift) <= 0.5).all() and (np.abs(shift) > 0.001).all()
        assert np.array_equal(one.affine[:, :3], other.affine[:, :3])
        assert not np.array_equal(one.images["t1c"], other.images["t1c"])
        middles = [np.argwhere(scan.brain).mean(0) * spacing + scan.affine[:3, 3] for scan in (one, other)]
        assert np.abs(middles[0] - middles[1]).max() < 0.1  # mm: the head stays where it is
        assert other.brain.sum() == pytest.approx(one.brain.sum(), rel=0.01)


def test_labels_keep_to_the_scheme_and_the_brain(scans):
    site, patients = scans
    seen = set()
    for phantom in patients:
        seen |= set(np.unique(phantom.labels).tolist())
        assert not phantom.labels[~phantom.brain].any()
        for image in phantom.images.values():
            assert image.dtype == np.int16
            assert np.array_equal(image > 0, phantom.brain)
    assert seen == ({0, 1, 2, 3} if site == "source" else {0, 1, 2, 3, 4})


def test_one_to_eight_lesions_that_do_not_touch(scans):
    site, patients = scans
    counts = [len(phantom.lesions) for phantom in patients]
    assert min(counts) >= 1
    assert max(counts) <= 8
    assert len(set(counts)) > 1
    for phantom, count in zip(patients, counts, strict=True):
        assert ndimage.label(tumour(site, phantom.labels), TOUCHING)[1] == count


def test_lesions_sit_at_the_grey_white_junction(scans):
    _, patients = scans
    for phantom in patients:
        for lesion in phantom.lesions:
            place = (np.array(lesion.centre_mm) - phantom.affine[:3, 3]) / np.diag(phantom.affine)[:3]
            voxel = tuple(np.rint(place).astype(int))
            assert phantom.grey[voxel] > 0.3
            assert phantom.white[voxel] > 0.3
            assert phantom.labels[voxel] > 0


def test_the_rim_encloses_the_core_and_lights_up_after_contrast(scans):
    site, patients = scans
    scheme = sites.SITES[site].labels
    cores = 0
    for phantom in patients:
        core = np.isin(phantom.labels, [scheme[NECROSIS], scheme[NON_ENHANCING]])
        rim = phantom.labels == scheme[ENHANCING]
        around = ndimage.binary_dilation(core) & ~core
        assert rim[around].all()
        healthy = phantom.brain & (phantom.labels == 0)
        contrast = {
            name: phantom.images[name][rim].mean() / phantom.images[name][healthy].mean() for name in ("t1n", "t1c")
        }
        assert contrast["t1c"] > 1.15 * contrast["t1n"]
        if core.any():
            cores += 1
            assert phantom.images["t1c"][core].mean() < phantom.images["t1c"][rim].mean()
    assert cores >= 3


def test_oedema_is_bright_on_flair_and_in_white_matter(scans):
    site, patients = scans
    oedema_voxels = 0
    for phantom in patients:
        oedema = phantom.labels == sites.SITES[site].labels[OEDEMA]
        if not oedema.any():
            continue
        oedema_voxels += int(oedema.sum())
        assert phantom.white[oedema].min() > 0.5
        near = ndimage.distance_transform_edt(~oedema, sampling=np.linalg.norm(phantom.affine[:3, :3], axis=0)) < 20
        white = near & (phantom.white > 0.8) & (phantom.labels == 0)  # the bias field differs farther away
        assert phantom.images["t2f"][oedema].mean() > 1.3 * phantom.images["t2f"][white].mean()
    assert oedema_voxels > 500


def test_sizes_range_from_tiny_to_large():
    radii = [
        lesion.radius_mm for n in range(1, 13) for lesion in sites.make_patient("source", n, SPACING, seed=5).lesions
    ]
    assert min(radii) < 3.5
    assert max(radii) > 10
    assert 4 < np.median(radii) < 9


@pytest.mark.parametrize(
    ("site", "spacing", "shape", "edges"),
    [
        ("source", 3.0, (80, 80, 52), (3.0, 3.0, 3.0)),
        ("target", 4.0, (81, 68, 30), (3.1748, 3.1748, 6.3496)),
    ],
)
def test_grid(site, spacing, shape, edges):
    phantom = sites.make_patient(site, 1, spacing, seed=5)
    assert phantom.labels.shape == shape
    assert np.diag(phantom.affine)[:3] == pytest.approx(edges)
    assert np.prod(edges) == pytest.approx(spacing**3, rel=1e-3)
    assert all(image.shape == shape for image in phantom.images.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "spacing", "shape"), [("source", 1.0, (240, 240, 155)), ("target", 0.63, (512, 432, 192))]
)
@pytest.mark.slow
def test_full_size(site, spacing, shape):
    phantom = sites.make_patient(site, 1, spacing, seed=5, n_lesions=6)
    assert phantom.labels.shape == shape
    assert len(phantom.lesions) == 6
    assert ndimage.label(tumour(site, phantom.labels), TOUCHING)[1] == 6


def test_time_points_share_the_head_and_the_places_of_the_lesions():
    before, after = (sites.make_patient("source", 2, SPACING, seed=5, timepoint=t) for t in (0, 1))
    assert np.array_equal(before.grey, after.grey)
    assert np.array_equal(before.affine, after.affine)
    assert [lesion.centre_mm for lesion in before.lesions] == [lesion.centre_mm for lesion in after.lesions]
    assert all(a.radius_mm != b.radius_mm for a, b in zip(before.lesions, after.lesions, strict=True))
    assert not np.array_equal(before.images["t1n"], after.images["t1n"])


def test_spacing_out_of_range_is_refused():
    with pytest.raises(ValueError, match="spacing_mm: 9 must lie"):
        sites.make_patient("source", 1, 9, seed=5)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Both sites, written twice."""
    base = tmp_path_factory.mktemp("phantoms")
    for copy in ("a", "b"):
        for site in ("source", "target"):
            sites.make_cohort(base / copy / site, site, 2, 4.0, seed=5)
    return base


def test_cohorts_are_the_same_byte_for_byte(cohorts):
    assert digests(cohorts / "a") == digests(cohorts / "b")


def test_names_and_time_points(cohorts):
    cases = sorted(path.name for path in (cohorts / "a" / "source").iterdir() if path.is_dir())
    assert cases == ["BraTS-MET-00001-000", "BraTS-MET-00002-000", "BraTS-MET-00002-001"]
    files = sorted(path.name for path in (cohorts / "a" / "source" / cases[0]).iterdir())
    assert files == [f"{cases[0]}-{name}.nii.gz" for name in ("seg", "t1c", "t1n", "t2f", "t2w")]
    files = sorted(path.name for path in (cohorts / "a" / "target" / "P02").iterdir())
    assert files == [f"P02_{name}.nii.gz" for name in ("FLAIR", "LABEL", "T1", "T1GD", "T2")]


def test_files_of_a_case_share_one_grid(cohorts):
    for folder in (cohorts / "a").glob("*/*/"):
        images = [nib.load(path) for path in folder.glob("*.nii.gz")]
        assert len(images) == 5
        assert all(np.array_equal(image.affine, images[0].affine) for image in images)
        assert nib.aff2axcodes(images[0].affine) == ("R", "A", "S")


def test_made_again_with_the_same_arguments_nothing_is_written(cohorts, monkeypatch):
    monkeypatch.setattr(sites, "make_patient", lambda *_: pytest.fail("made again"))
    folder = cohorts / "a" / "source"
    assert sites.make_cohort(folder, "source", 2, 4.0, seed=5) == folder


def test_other_arguments_never_overwrite(cohorts):
    before = digests(cohorts / "a" / "source")
    with pytest.raises(FileExistsError, match="seed 5 there, 6 asked for"):
        sites.make_cohort(cohorts / "a" / "source", "source", 2, 4.0, seed=6)
    assert digests(cohorts / "a" / "source") == before


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("a hospital's own")
    with pytest.raises(FileExistsError, match=r"mine exists and was not made by the phantom generator"):
        sites.make_cohort(tmp_path / "mine", "source", 1, 4.0, seed=5)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_interrupted_run_leaves_nothing_half_written(tmp_path):
    def stop(line):
        if "2 of 3" in line:
            raise KeyboardInterrupt

    folder = tmp_path / "source"
    with pytest.raises(KeyboardInterrupt):
        sites.make_cohort(folder, "source", 2, 5.0, seed=5, progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".source.partial" / "half").mkdir(parents=True)  # as a killed process leaves it
    sites.make_cohort(folder, "source", 2, 5.0, seed=5)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert len(json.loads((folder / "phantoms.json").read_text())["cases"]) == 3


def test_progress_names_every_case(tmp_path):
    lines: list[str] = []
    sites.make_cohort(tmp_path / "t", "target", 2, 5.0, seed=5, progress=lines.append)
    assert lines == ["phantom 1 of 2: P01", "phantom 2 of 2: P02"]


def test_with_nothing_declared_the_bytes_are_those_of_before(tmp_path):
    folder = sites.make_cohort(tmp_path / "t", "target", 1, 5.0, seed=5)
    images = {path.name: nib.load(path).get_fdata() for path in sorted((folder / "P01").iterdir())}
    assert {name: int(image.sum()) for name, image in images.items()} == {
        "P01_FLAIR.nii.gz": 2341768, "P01_LABEL.nii.gz": 2143, "P01_T1.nii.gz": 2142825,
        "P01_T1GD.nii.gz": 2180686, "P01_T2.nii.gz": 2694641,
    }  # fmt: skip
    assert set(json.loads((folder / "phantoms.json").read_text())) == {
        "generator", "site", "patients", "spacing_mm", "seed", "lesion_free", "cases",
    }  # fmt: skip


def test_the_last_patients_with_lesions_lack_a_sequence(tmp_path):
    lacking = {"t2w": 2, "t1n": 1}
    folder = sites.make_cohort(tmp_path / "lacking", "target", 3, 5.0, seed=5, lesion_free=1, lacking=lacking)
    whole = sites.make_cohort(tmp_path / "whole", "target", 3, 5.0, seed=5, lesion_free=1)
    absent = {"P02/P02_T2.nii.gz", "P03/P03_T2.nii.gz", "P03/P03_T1.nii.gz"}
    images = {name: digest for name, digest in digests(whole).items() if name.endswith(".nii.gz")}
    assert absent < set(images)
    assert {name: digest for name, digest in digests(folder).items() if name.endswith(".nii.gz")} == {
        name: digest for name, digest in images.items() if name not in absent
    }
    with pytest.raises(FileExistsError, match=r"lacking \{'t2w': 2, 't1n': 1\} there, \{\} asked for"):
        sites.make_cohort(folder, "target", 3, 5.0, seed=5, lesion_free=1)
    with pytest.raises(FileExistsError, match=r"lacking \{\} there, \{'t2w': 2, 't1n': 1\} asked for"):
        sites.make_cohort(whole, "target", 3, 5.0, seed=5, lesion_free=1, lacking=lacking)
    assert sites.make_cohort(folder, "target", 3, 5.0, seed=5, lesion_free=1, lacking=lacking) == folder


def test_both_scans_of_a_patient_lack_a_sequence(tmp_path):
    folder = sites.make_cohort(tmp_path / "source", "source", 2, 5.0, seed=5, lacking={"t2f": 1})
    assert [path.parent.name for path in sorted(folder.glob("*/*-t2f.nii.gz"))] == ["BraTS-MET-00001-000"]


def test_phantoms_have_the_sequences_of_their_layout_alone(tmp_path):
    layout = {"t1c": "{case}/{case}_T1GD.nii.gz", "label": "{case}/{case}_LABEL.nii.gz"}
    asked = {"site": "target", "patients": 2, "spacing_mm": 5.0, "seed": 5}
    declared = Cohort(folder=str(tmp_path / "t1c"), layout=layout, label_map={}, held_out=1, phantoms=asked)
    sites.make_declared(declared)
    written = sorted(path.name for path in tmp_path.glob("t1c/*/*.nii.gz"))
    assert written == ["P01_LABEL.nii.gz", "P01_T1GD.nii.gz", "P02_LABEL.nii.gz", "P02_T1GD.nii.gz"]
    with pytest.raises(FileExistsError, match=r"sequences \['t1c'\] there, \['t1n', 't1c', 't2w', 't2f'\] asked for"):
        sites.make_cohort(tmp_path / "t1c", "target", 2, 5.0, seed=5)
    with pytest.raises(ValueError, match=r"lacking: \{'t1c': 1\} leaves a patient without any of t1c"):
        sites.make_cohort(tmp_path / "none", "target", 2, 5.0, seed=5, sequences=["t1c"], lacking={"t1c": 1})
    sites.make_declared(declared.model_copy(update={"phantoms": None, "folder": str(tmp_path / "own")}))
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("spacing", [2.0, 3.0])
def test_small_lesions_are_below_5_mm(spacing):
    """One to eight voxels of 2 mm, one or two of 3 mm, several a patient, and some as large as in any phantom."""
    diameters, counts = [], []
    for number in range(1, 6):
        phantom = sites.make_patient("source", number, spacing, seed=2, sizes="small")
        pieces, count = ndimage.label(np.isin(phantom.labels, (1, 3)), np.ones((3, 3, 3)))
        counts.append(count)
        diameters += [*np.cbrt(6 / np.pi * np.bincount(pieces.ravel())[1:] * spacing**3)]
    assert min(counts) >= 4
    assert max(counts) <= 10
    assert 0.6 < np.mean(np.array(diameters) < 5) < 0.95
    assert max(diameters) > 8


def test_a_folder_of_mixed_phantoms_is_no_folder_of_small_ones(tmp_path):
    folder = sites.make_cohort(tmp_path / "small", "target", 1, 5.0, seed=5, lesions="small")
    with pytest.raises(FileExistsError, match="lesions 'small' there, 'mixed' asked for"):
        sites.make_cohort(folder, "target", 1, 5.0, seed=5)
