"""Preprocessed cases: what is refused before it is kept, what is refused before it is opened, and what was changed."""

import gzip
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import nibabel as nib
import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from planted_code import Payload, payload_ran
from small_study import training_parameters

from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, write_json
from brainmets.params import FromScratch, Pretraining
from brainmets.paths import StudyPaths
from brainmets.training import plans
from brainmets.training.inference import Ensemble
from brainmets.training.plans import CONFIGURATION, CONTENT, DATASETS, WRITTEN, preprocess, read_plan
from brainmets.training.preprocessed import DamagedError, StudyDataset, open_array, read_places, require_finite
from brainmets.training.session import prepare
from brainmets.vocabulary import SEQUENCES


@pytest.fixture
def study(small_study: StudyPaths, tmp_path: Path) -> StudyPaths:
    """A copy of the planned study that a test may damage; copied files keep their times."""
    files = StudyPaths(str(tmp_path / "work"), "small")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out"))
    return files


def arrays(files: StudyPaths, cohort: str) -> Path:
    return next((files.nnunet_preprocessed / DATASETS[cohort]).glob("*_3d_fullres"))


def folder(files: StudyPaths, cohort: str = "target") -> Path:
    return files.nnunet_preprocessed / DATASETS[cohort]


# --- before anything is kept ---


def with_one_image(files: StudyPaths, tmp_path: Path, values: Any) -> str:
    """Give the target's only case left an image (channel 1, t1c) of other values; returns the case's name."""
    content = read_json(folder(files) / "dataset.json")
    case, entry = sorted(content["dataset"].items())[0]
    image = nib.load(entry["images"][1])
    entry["images"][1] = str(tmp_path / "t1c.nii.gz")
    nib.save(nib.Nifti1Image(values(np.asarray(image.dataobj, np.float64)), image.affine), entry["images"][1])
    write_json(folder(files) / "dataset.json", {**content, "dataset": {case: entry}})
    return case


def one_voxel(value: float) -> Any:
    def change(image: np.ndarray) -> np.ndarray:
        image[image.shape[0] // 2, image.shape[1] // 2, image.shape[2] // 2] = value
        return image

    return change


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("values", "what"),
    [
        (lambda image: image * 1e300, "values are not finite"),
        (one_voxel(1e39), "values are not finite"),
        (one_voxel(np.nan), "values are not finite"),
        (lambda image: np.full_like(image, 7), "is constant"),
    ],
    ids=["infinite in float32", "one voxel", "NaN", "constant"],
)
def test_an_image_that_cannot_be_trained_on_is_named_and_nothing_is_noted(
    study: StudyPaths, tmp_path: Path, values: Any, what: str
) -> None:
    case = with_one_image(study, tmp_path, values)
    with pytest.raises(ValueError, match=rf"^{case}, t1c: .*{what}"):
        preprocess(study, "target", workers=1)
    assert not (folder(study) / CONTENT).exists(), "of the earlier, good preprocessing"
    with pytest.raises(DamagedError, match=r"written\.json is not in"):
        prepare(study, training_parameters(FromScratch, study), "scratch")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_image_too_large_by_its_header_alone_is_named(study: StudyPaths, tmp_path: Path) -> None:
    """Stored as small whole numbers, times 3e38: finite in float64, infinite in float32."""

    def values(image: np.ndarray) -> np.ndarray:
        return (image / image.max() * 1000).astype(np.float64)

    case = with_one_image(study, tmp_path, values)
    stored = nib.load(tmp_path / "t1c.nii.gz")
    scaled = nib.Nifti1Image(np.asarray(stored.dataobj).astype(np.int16), stored.affine)
    scaled.header.set_slope_inter(3e38, 0)
    nib.save(scaled, tmp_path / "t1c.nii.gz")
    data = bytearray(gzip.decompress((tmp_path / "t1c.nii.gz").read_bytes()))
    data[112:116] = np.float32(3e38).tobytes()
    (tmp_path / "t1c.nii.gz").write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(ValueError, match=rf"^{case}, t1c: .* not finite"):
        preprocess(study, "target", workers=1)


def test_a_label_that_no_one_knows_is_named(study: StudyPaths, tmp_path: Path) -> None:
    content = read_json(folder(study) / "dataset.json")
    case, entry = sorted(content["dataset"].items())[0]
    image = nib.load(entry["label"])
    labels = np.asarray(image.dataobj).copy()
    labels[tuple(slice(size // 2 - 2, size // 2 + 2) for size in labels.shape)] = 9
    entry["label"] = str(tmp_path / f"{case}.nii.gz")
    nib.save(nib.Nifti1Image(labels, image.affine), entry["label"])
    write_json(folder(study) / "dataset.json", {**content, "dataset": {case: entry}})
    with pytest.raises(ValueError, match=rf"^{case}: the preprocessed label map holds \[9\]"):
        preprocess(study, "target", workers=1)


def test_as_many_images_pass_as_there_are_sequences_and_fewer_do_not() -> None:
    images = np.arange(4 * 8, dtype=np.float32).reshape(4, 2, 2, 2)
    require_finite(images, "case", SEQUENCES)
    require_finite(images[:2], "case", ("t1c", "t2f"))
    with pytest.raises(ValueError, match=r"case: 3 preprocessed image\(s\), 4 sequences"):
        require_finite(images[:3], "case", SEQUENCES)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_image_that_is_not_finite_is_not_predicted(small_study: StudyPaths, tmp_path: Path) -> None:
    """Before any network sees it."""
    case = next(iter(read_manifest(small_study.manifest("target")).values()))
    image = nib.load(case.images["t2f"])
    changed = tmp_path / "t2f.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj, np.float64) * 1e300, image.affine), changed)
    plan, dataset = read_plan(small_study, "target"), plans.read_dataset(small_study, "target")
    plan_manager = PlansManager(plan)
    predictor = SimpleNamespace(configuration_manager=plan_manager.get_configuration(CONFIGURATION))
    models = Ensemble(torch.nn.Identity(), [], plan_manager, dataset, predictor)
    assert models.preprocess(case).data.shape[0] == 4
    with pytest.raises(ValueError, match=rf"^{case.case}, t2f: .* not finite"):
        models.preprocess(replace(case, images={**case.images, "t2f": changed}))


# --- no pickles ---


def test_preprocessing_leaves_no_pickle_and_the_places_are_nnunets_own(small_study: StudyPaths) -> None:
    assert list(small_study.nnunet_preprocessed.rglob("*.pkl")) == []
    plan = PlansManager(read_plan(small_study, "target"))
    dataset = plans.read_dataset(small_study, "target")
    case, entry = sorted(dataset["dataset"].items())[0]
    *_, properties = DefaultPreprocessor(verbose=False).run_case(
        entry["images"], entry["label"], plan, plan.get_configuration(CONFIGURATION), dataset
    )
    read = StudyDataset(str(arrays(small_study, "target")), [case]).load_case(case)[3]["class_locations"]
    assert list(read) == list(properties["class_locations"]), "the loader draws from them by their order"
    for key, places in properties["class_locations"].items():
        np.testing.assert_array_equal(read[key], np.asarray(places).reshape(-1, 4))


def test_stock_nnunet_still_knows_the_folder(small_study: StudyPaths) -> None:
    """The benchmark trains its trainer beside ours."""
    assert infer_dataset_class(str(arrays(small_study, "target"))) is nnUNetDatasetBlosc2


def test_a_pickle_that_lies_there_is_never_opened(study: StudyPaths) -> None:
    for array in arrays(study, "source").glob("*.b2nd"):
        array.with_suffix(".pkl").write_bytes(pickle.dumps(Payload()))
    session = prepare(study, training_parameters(Pretraining, study, epochs=1), "pretraining")
    session.run(lambda line: None)
    assert session.finished
    plans.appearance(study, "source")
    assert not payload_ran()


def test_an_array_of_objects_among_the_places_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "case.npz", **{"[1]": np.array([Payload()], object)})
    with pytest.raises(DamagedError, match=r"case\.npz holds no places of labels"):
        read_places(tmp_path / "case.npz")
    assert not payload_ran()


# --- only plain arrays are opened ---


def plain(path: Path) -> blosc2.NDArray:
    return blosc2.asarray(np.ones((1, 4, 4, 4), np.float32), urlpath=str(path))


def a_function(path: Path) -> None:
    from planted_code import as_blosc2_function

    blosc2.lazyudf(as_blosc2_function, (plain(path.with_name("x.b2nd")),), np.float32).save(str(path))


def an_expression(path: Path) -> None:
    (plain(path.with_name("x.b2nd")) + 1).save(str(path))


def named_metadata(path: Path) -> None:
    array = plain(path)
    array.schunk.vlmeta["_ftype"] = "rebuilt"


def a_store(path: Path) -> None:
    store = blosc2.EmbedStore(str(path.with_suffix(".b2e")), mode="w")
    store["/x"] = np.arange(3)
    del store
    path.with_suffix(".b2e").replace(path)


def cut(path: Path) -> None:
    plain(path)
    os.truncate(path, path.stat().st_size - 1)


def of_objects(path: Path) -> None:
    blosc2.asarray(np.array(["a", "b"]), urlpath=str(path))


@pytest.mark.parametrize(
    "make",
    [a_function, an_expression, named_metadata, a_store, cut, of_objects,
     lambda path: path.write_text("no array"), lambda path: path.write_bytes(b""), lambda path: path.mkdir(),
     lambda path: None],
)  # fmt: skip
def test_only_a_whole_plain_array_is_opened(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "case.b2nd"
    make(path)
    monkeypatch.setattr(blosc2, "open", lambda *a, **k: pytest.fail("it was opened"))
    with pytest.raises(DamagedError, match=r"case\.b2nd .*notebook 02 makes it anew"):
        open_array(path)
    assert not payload_ran()


def test_a_plain_array_is_opened(tmp_path: Path) -> None:
    plain(tmp_path / "case.b2nd")
    np.testing.assert_array_equal(open_array(tmp_path / "case.b2nd")[:], np.ones((1, 4, 4, 4)))


# --- what was written is still there ---


def changed_file(path: Path, change: Any) -> None:
    path.write_bytes(change(path.read_bytes()))


def case_array(files: StudyPaths) -> Path:
    return sorted(path for path in arrays(files, "target").glob("*.b2nd"))[0]


DAMAGE: dict[str, Any] = {
    "array cut": (case_array, lambda data: data[:-100], r"\.b2nd has \d+ bytes, \d+ were written"),
    "array changed": (case_array, lambda data: data[:-1] + bytes([data[-1] ^ 1]), r"\.b2nd is not what was written"),
    "plan cut": (lambda files: folder(files) / "nnUNetPlans.json", lambda data: data[:999], r"nnUNetPlans"),
    "dataset changed": (
        lambda files: folder(files) / "dataset.json", lambda data: data.replace(b"t1n", b"t1c"), r"dataset\.json is ",
    ),
    "folds changed": (
        lambda files: folder(files) / "splits_final.json", lambda data: data + b" ", r"splits_final\.json has",
    ),
    "content cut": (lambda files: folder(files) / CONTENT, lambda data: data[:10], r"content\.json has 10 bytes"),
    "record cut": (lambda files: folder(files) / WRITTEN, lambda data: data[:10], r"written\.json is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_training_names_what_is_damaged_and_the_command_that_repairs_it(study: StudyPaths, name: str) -> None:
    where, change, message = DAMAGE[name]
    changed_file(where(study), change)
    with pytest.raises(DamagedError, match=rf"{message}.*`brainmets notebook 02 PARAMS\.yaml` makes it anew"):
        prepare(study, training_parameters(FromScratch, study), "scratch")
    prepare(study, training_parameters(Pretraining, study), "pretraining")  # the other cohort's files are whole


def test_what_is_missing_is_named(study: StudyPaths) -> None:
    gone = sorted(arrays(study, "target").glob("properties/*.npz"))[0]
    gone.unlink()
    with pytest.raises(DamagedError, match=rf"properties/{gone.name} is missing"):
        prepare(study, training_parameters(FromScratch, study), "scratch")
    (folder(study) / WRITTEN).unlink()
    with pytest.raises(DamagedError, match=r"written\.json is not in .*not preprocessed, or by an earlier version"):
        prepare(study, training_parameters(FromScratch, study), "scratch")


def test_a_copy_with_other_times_is_whole_and_hashed_once(study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder(study).rglob("*"):
        os.utime(path, (1, 1))
    plans.require_whole(study, "target")
    monkeypatch.setattr("brainmets.provenance.sha256", lambda path: pytest.fail("it was hashed again"))
    plans.require_whole(study, "target")


def test_a_moved_study_trains_from_where_it_is(study: StudyPaths, tmp_path: Path) -> None:
    study.work.parent.rename(tmp_path / "moved")
    files = StudyPaths(str(tmp_path / "moved"), "small")
    session = prepare(files, training_parameters(FromScratch, files, epochs=1), "scratch")
    session.run(lambda line: None)
    assert session.finished
