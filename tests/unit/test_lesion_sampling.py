"""Patches placed on lesions: which one is drawn, by hand; what stays as it was; the same again in a rerun."""

import itertools
import math
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from labelled_cases import ET, NETC, REGIONS, SNFH, InMemory, three_lesions
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from scipy import stats
from small_study import ARMS, training_parameters

from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training import lesion_sampling
from brainmets.training.lesion_sampling import LesionSampling, find_lesions, lesion_numbers, lesion_shares
from brainmets.training.preprocessed import StudyDataset
from brainmets.training.seeds import RandomStream
from brainmets.training.session import TrainingSession, prepare
from brainmets.training.trainer import StudyTrainer
from brainmets.vocabulary import LABELS

ENDING = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
"""nnU-Net's own thread may still read from a process that is being ended."""


def sizes_drawn(cases: Any, number: int, seed: int = 1) -> npt.NDArray[np.int64]:
    """Sizes of the lesions that nnU-Net's own loader places patches of one voxel on."""
    labels = SimpleNamespace(all_labels=[1, 2, 3], has_ignore_label=False)
    loader = nnUNetDataLoader(cases, 2, (1, 1, 1), (1, 1, 1), labels)
    drawn = []
    with RandomStream(seed).drawn_from():
        for _ in range(number):
            _, tumour, _, properties = cases.load_case(cases.identifiers[0])
            corner, _ = loader.get_bbox(tumour.shape[1:], True, properties["class_locations"])
            numbers = lesion_numbers(tumour[0])
            lesion = numbers[tuple(corner)]
            assert lesion, "the patch lies on no lesion"
            drawn.append(int((numbers == lesion).sum()))
    return np.array(drawn)


def sampled(labels: npt.NDArray[np.int16], rule: Any, voxel_mm3: float = 1.0) -> LesionSampling:
    return LesionSampling(InMemory({"case": labels}), rule, voxel_mm3, {})


# --- which lesion ---


@pytest.mark.parametrize(
    ("rule", "shares"),
    [
        ("voxels", {1: 1 / 1009, 8: 8 / 1009, 1000: 1000 / 1009}),
        ("lesions", {1: 1 / 3, 8: 1 / 3, 1000: 1 / 3}),
        # diameters 1 : 2 : 10, weights 1, 1/2 and 1/10
        ("small_lesions", {1: 10 / 16, 8: 5 / 16, 1000: 1 / 16}),
    ],
)
def test_lesions_are_drawn_as_worked_out_by_hand(rule: Any, shares: dict[int, float]) -> None:
    labels, number = three_lesions(), 2000
    drawn = sizes_drawn(InMemory({"case": labels}) if rule == "voxels" else sampled(labels, rule), number)
    for size, share in shares.items():
        low, high = stats.binom.ppf([1e-5, 1 - 1e-5], number, share)
        assert low <= (drawn == size).sum() <= high, f"{size} voxels, expected in {share:.2%}"
    if rule != "voxels":
        diameters = find_lesions(labels, 0.5).diameters
        expected = [shares[size] for size in find_lesions(labels, 0.5).voxels.tolist()]
        np.testing.assert_allclose(lesion_shares(diameters, rule), expected, rtol=1e-12)


def test_the_diameter_is_that_of_a_ball_of_the_lesions_volume_in_mm() -> None:
    """A voxel of pi/6 mm^3 is a ball of 1 mm; 8 and 1,000 of them are balls of 2 and 10 mm."""
    lesions = find_lesions(three_lesions(), math.pi / 6)
    order = np.argsort(lesions.voxels)
    assert lesions.voxels[order].tolist() == [1, 8, 1000]
    np.testing.assert_allclose(lesions.diameters[order], [1, 2, 10], rtol=1e-12)


def test_every_voxel_of_a_lesion_is_drawn_alike_and_a_large_one_keeps_some_all_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lesion_sampling, "KEPT_VOXELS", 500)
    labels = three_lesions()
    first, again = find_lesions(labels, 1.0), find_lesions(labels.copy(), 1.0)
    kept = sorted(len(places) for places in first.places)
    assert kept == [1, 8, 500]
    for mine, theirs in zip(first.places, again.places, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert len(np.unique(mine, axis=0)) == len(mine), "a voxel is kept twice"
    large = max(first.places, key=len)
    np.testing.assert_array_equal(large.min(axis=0), [0, 1, 2, 25])
    np.testing.assert_array_equal(large.max(axis=0), [0, 10, 11, 34])


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_places_follow_the_axes_of_the_label_map(axes: tuple[int, ...]) -> None:
    labels = three_lesions()
    turned = find_lesions(np.ascontiguousarray(labels.transpose(0, *axes)), 0.7)
    found = {
        frozenset(map(tuple, places[:, np.argsort((0, *axes))].tolist()))
        for places in turned.places
    }  # fmt: skip
    numbers = lesion_numbers(labels[0])
    expected = {frozenset((0, *place) for place in np.argwhere(numbers == one).tolist()) for one in (1, 2, 3)}
    assert found == expected


def test_cores_that_share_an_oedema_are_two_lesions_and_an_oedema_alone_is_one() -> None:
    labels = np.zeros((6, 7, 30), np.int16)
    labels[1:5, 1:6, 1:20] = SNFH
    labels[2:4, 2:4, 3:5] = ET
    labels[2, 2, 3] = NETC
    labels[3, 3, 15] = NETC  # a core without enhancement
    labels[2, 2, 25] = SNFH
    labels[0, 0, 29] = -1  # outside the head
    labels[5, 0, 22] = LABELS["rc"]
    numbers = lesion_numbers(labels)
    assert numbers.max() == 3
    assert [int((numbers == one).sum()) for one in (1, 2, 3)] == [8, 1, 1]
    assert numbers[2, 2, 25] == 3
    assert not numbers[labels == -1].any() and not numbers[labels == LABELS["rc"]].any()
    assert (numbers[(labels == SNFH)] > 0).sum() == 1, "oedema beside a core belongs to no lesion"


def test_lesions_that_meet_at_a_corner_are_one() -> None:
    labels = np.zeros((1, 4, 4, 4), np.int16)
    labels[0, 1, 1, 1] = labels[0, 2, 2, 2] = ET
    assert find_lesions(labels, 1.0).voxels.tolist() == [2]


def test_each_region_holds_the_lesions_own_voxels_of_its_labels() -> None:
    labels = np.zeros((1, 5, 6, 30), np.int16)
    labels[0, 1:4, 1:5, 1:9] = SNFH
    labels[0, 2, 2, 3:6] = ET, NETC, ET
    labels[0, 2, 2, 20] = NETC
    ring, dot = find_lesions(labels, 1.0), sampled(labels, "lesions")
    of_ring = ring.locations(int(np.argmax(ring.voxels)), REGIONS)
    assert {region: places[:, 3].tolist() for region, places in of_ring.items()} == {
        REGIONS[0]: [3, 4, 5], REGIONS[1]: [3, 4, 5], REGIONS[2]: [3, 5],
    }  # fmt: skip
    of_dot = ring.locations(int(np.argmin(ring.voxels)), REGIONS)
    assert [len(places) for places in of_dot.values()] == [1, 1, 0]
    assert all(places.dtype == np.int32 and places.shape[1] == 4 for places in (*of_ring.values(), *of_dot.values()))
    seen = {tuple(map(len, dot.load_case("case")[3]["class_locations"].values())) for _ in range(60)}
    assert seen == {(3, 3, 2), (1, 1, 0)}, "a draw holds one lesion and no other"


def test_a_case_without_lesions_and_one_whose_lesion_resampling_took_stay_nnunets() -> None:
    """Both have an empty label map after preprocessing: the patch is cut anywhere, and no number is drawn for it."""
    labels = np.zeros((1, 5, 6, 7), np.int16)
    labels[0, 0] = -1
    plain, cases = InMemory({"case": labels}), sampled(labels, "small_lesions")
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    _, tumour, _, properties = cases.load_case("case")
    assert properties == plain.load_case("case")[3]
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    loader = nnUNetDataLoader(
        cases, 2, (2, 2, 2), (2, 2, 2), SimpleNamespace(all_labels=[1, 2, 3], has_ignore_label=False)
    )
    corners = {tuple(loader.get_bbox(tumour.shape[1:], True, properties["class_locations"])[0]) for _ in range(200)}
    assert len(corners) > 50
    assert len(find_lesions(labels, 1.0).diameters) == 0


def test_a_case_is_looked_through_once_and_its_own_places_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    find = lesion_sampling.find_lesions
    monkeypatch.setattr(lesion_sampling, "find_lesions", lambda *given: calls.append(1) or find(*given))
    inner, known = InMemory({"case": three_lesions()}), {}
    before = {region: places.copy() for region, places in inner.places["case"].items()}
    for _ in range(2):  # two loaders of one training
        cases = LesionSampling(inner, "lesions", 1.0, known)
        for _ in range(3):
            cases.load_case("case")
    assert calls == [1]
    for region, places in before.items():
        np.testing.assert_array_equal(inner.places["case"][region], places)


def test_drawing_voxels_is_not_a_rule_of_lesions() -> None:
    with pytest.raises(ValueError, match='lesion_sampling: "voxels" draws voxels of a region'):
        lesion_shares(np.ones(2), "voxels")


# --- in a training ---


@pytest.fixture
def own_study(small_study: StudyPaths, tmp_path: Any) -> StudyPaths:
    """The small study with no training in it."""
    files = StudyPaths(str(tmp_path), "own")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    return files


def prepared(files: StudyPaths, rule: str | None, arm: str = "default", **changed: Any) -> TrainingSession:
    setting = {} if rule is None else {"lesion_sampling": rule}
    arms = {**ARMS, arm: {"learning_rate": 0.01, **setting}}
    parameters = training_parameters(FromScratch, files, arms=arms, arm=arm, **changed)
    return prepare(files, parameters, "scratch", lambda line: None)


def batches(session: TrainingSession, number: int, workers: int = 0, which: int = 0) -> list[npt.NDArray[np.float32]]:
    sources = session.trainer.get_dataloaders()
    drawn = [next(sources[which])["data"].numpy() for _ in range(number)]
    for one in sources if workers else ():
        one._finish()
    return drawn


def test_without_the_setting_no_draw_changes(own_study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    off, said = (batches(prepared(own_study, rule), 6) for rule in (None, "voxels"))
    on = batches(prepared(own_study, "lesions"), 6)
    monkeypatch.delattr(StudyTrainer, "get_tr_and_val_datasets")
    before = batches(prepared(own_study, None), 6)
    np.testing.assert_array_equal(off, before)
    np.testing.assert_array_equal(said, before)
    assert not np.array_equal(on, before)


@pytest.mark.parametrize("rule", ["lesions", "small_lesions"])
def test_validation_stays_untouched(own_study: StudyPaths, rule: str) -> None:
    session = prepared(own_study, rule, "lesion_sampling")
    train, validation = session.trainer.get_tr_and_val_datasets()
    assert type(train) is LesionSampling and type(validation) is StudyDataset
    assert train.identifiers == sorted(session.cases)
    plain = prepared(own_study, None)
    plain.trainer.batches_seed = session.trainer.batches_seed
    np.testing.assert_array_equal(batches(session, 4, which=1), batches(plain, 4, which=1))


def test_a_patch_that_must_hold_foreground_holds_the_drawn_lesion(own_study: StudyPaths) -> None:
    """On cases as preprocessing left them: the voxels a patch may be placed on carry the labels of their region."""
    session = prepared(own_study, "small_lesions")
    assert session.trainer.voxel_mm3 == pytest.approx(math.prod(session.trainer.configuration_manager.spacing))
    train, _ = session.trainer.get_tr_and_val_datasets()
    for case in train.identifiers:
        _, labels, _, properties = train.load_case(case)
        values = np.asarray(labels[:])
        (numbers,) = {
            frozenset(np.unique(lesion_numbers(values[0])[tuple(places[:, 1:].T)]).tolist())
            for places in properties["class_locations"].values()
            if len(places)
        }
        assert len(numbers) == 1 and 0 not in numbers, "one lesion, the same for every region"
        for region, places in properties["class_locations"].items():
            assert set(values[tuple(places.T)].tolist()) <= set(region)


def test_a_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(own_study: StudyPaths) -> None:
    def trained(stop: Any = lambda line: None) -> tuple[int, dict[str, torch.Tensor]]:
        session = prepared(own_study, "small_lesions", "lesion_sampling")
        session.run(stop)
        weights = session.trainer.bare_network.state_dict()
        return session.resumed_epoch, {name: value.clone() for name, value in weights.items()}

    class StoppedError(Exception):
        """Stands for the end of the process."""

    def stop(line: str) -> None:
        if line.startswith("epoch 2 "):
            raise StoppedError

    _, undisturbed = trained()
    shutil.rmtree(own_study.work / "training")
    with pytest.raises(StoppedError):
        trained(stop)
    resumed_epoch, continued = trained()
    assert resumed_epoch == 1
    assert all(torch.equal(value, continued[name]) for name, value in undisturbed.items())


@ENDING
def test_processes_that_augment_draw_lesions_of_their_own_and_again_the_same(
    own_study: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_places(loader: nnUNetDataLoader) -> dict[str, Any]:
        """The process, how many batches it has made before, and the first voxel of the lesion that it draws next."""
        with loader.stream.drawn_from():  # type: ignore[attr-defined]
            _, _, _, properties = loader._data.load_case(loader.get_indices()[0])
        places = next(iter(properties["class_locations"].values()))
        loader.made = getattr(loader, "made", -1) + 1
        return {"data": torch.tensor([loader.thread_id, loader.made, len(places), *places[0].tolist()])}

    monkeypatch.setattr("brainmets.training.seeds.SeededLoader.generate_train_batch", first_places)
    runs = []
    for _ in range(2):  # nnU-Net throws the very first batch away, whichever process it comes from
        drawn = batches(prepared(own_study, "lesions", augmentation_workers=2), 40, workers=2)
        runs.append({(int(one[0]), int(one[1])): one[2:].tolist() for one in drawn})
    common = sorted(set(runs[0]) & set(runs[1]))
    assert min(sum(worker == one for worker, _ in common) for one in (0, 1)) > 3, "both processes were to deliver"
    assert {key: runs[0][key] for key in common} == {key: runs[1][key] for key in common}
    both = [number for worker, number in common if worker == 0 and (1, number) in common]
    first, second = ([runs[0][worker, number] for number in both] for worker in (0, 1))
    assert first != second, "two processes drew the same lesions"
