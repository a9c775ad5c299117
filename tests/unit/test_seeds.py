"""Where random numbers come from: other weights in every fold, other patches in every process, the same in a rerun."""

import itertools
import random
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from small_study import training_parameters

from brainmets.files import read_json
from brainmets.params import FineTuning, FromScratch, Pretraining
from brainmets.paths import StudyPaths
from brainmets.training.seeds import RandomStream, derived_seed, seed_everything, training_seeds
from brainmets.training.session import TrainingSession, prepare

ENDING = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
"""nnU-Net's own thread may still read from a process that is being ended."""
MODELS = {"pretraining": Pretraining, "finetune": FineTuning, "scratch": FromScratch}


@pytest.fixture
def own_study(small_study: StudyPaths, tmp_path: Any) -> StudyPaths:
    """The small study with no training in it."""
    files = StudyPaths(str(tmp_path), "own")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    return files


def draw() -> tuple[float, float, float]:
    """The next number of Python's, NumPy's and torch's global generator."""
    return random.random(), np.random.random_sample(), torch.rand(1).item()  # noqa: NPY002


def prepared(files: StudyPaths, stage: Any = "scratch", **changed: Any) -> TrainingSession:
    return prepare(files, training_parameters(MODELS[stage], files, **changed), stage, lambda line: None)


def trained(files: StudyPaths, stage: Any = "scratch", **changed: Any) -> TrainingSession:
    session = prepared(files, stage, **changed)
    session.run(lambda line: None)
    return session


def weights(session: TrainingSession) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in session.trainer.bare_network.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def batches(session: TrainingSession, number: int, workers: int) -> list[np.ndarray]:
    source, validation = session.trainer.get_dataloaders()
    drawn = [next(source)["data"].numpy() for _ in range(number)]
    for one in (source, validation) if workers else ():
        one._finish()
    return drawn


# --- seeds ---


def test_a_seed_follows_from_words_alone() -> None:
    """By hand: ``printf '[1,"weights","scratch","default",0,0]' | sha256sum | cut -c -16``."""
    assert training_seeds(1, "scratch", "default", 0).weights == 0x85B9893352AEEBC6
    assert derived_seed(1, "a", "b") != derived_seed(1, "ab") != derived_seed(1, "b", "a")
    assert derived_seed(-3, "a") != derived_seed(3, "a"), "a study's seed may be any whole number"


def test_no_two_trainings_share_a_seed_but_the_batches_of_a_pair() -> None:
    jobs = list(itertools.product(MODELS, ("default", "tversky_bce", "segresnet"), range(5), range(3)))
    seeds = {job: training_seeds(7, *job) for job in jobs}
    assert len({one.weights for one in seeds.values()}) == len(jobs)
    assert len({one.batches for one in seeds.values()}) == len(jobs) * 2 // 3
    for (stage, *job), one in seeds.items():
        partner = {"finetune": "scratch", "scratch": "finetune"}.get(stage)
        if partner:
            assert one.batches == seeds[partner, *job].batches
    assert not {one.weights for one in seeds.values()} & {one.batches for one in seeds.values()}
    assert training_seeds(8, "scratch", "default", 0) != training_seeds(7, "scratch", "default", 0)


def test_a_stream_is_a_generator_seeded_alone_and_takes_nothing_from_others() -> None:
    seed = 2**64 - 1
    seed_everything(seed)
    expected = [draw() for _ in range(4)]
    seed_everything(5)
    undisturbed = [draw() for _ in range(4)]
    seed_everything(5)
    stream, found, outside = RandomStream(seed), [], []
    for _ in range(4):
        with stream.drawn_from():
            found.append(draw())
        outside.append(draw())
    assert found == expected
    assert outside == undisturbed


# --- weights ---


def test_initial_weights_differ_between_folds_and_arms_and_are_the_same_in_a_rerun(own_study: StudyPaths) -> None:
    found = {
        (stage, arm, fold): weights(prepared(own_study, stage, arm=arm, fold=fold))
        for stage in ("pretraining", "scratch")
        for arm in ("default", "tversky_bce", "segresnet")
        for fold in (0, 1)
    }
    for (job, mine), (other, theirs) in itertools.combinations(found.items(), 2):
        if mine.keys() == theirs.keys():
            assert not equal(mine, theirs), f"{job} starts as {other} does"
    for (stage, arm, fold), before in found.items():
        draw()  # what the notebook did before does not count
        assert equal(before, weights(prepared(own_study, stage, arm=arm, fold=fold)))


# --- batches ---


def test_fine_tuning_and_scratch_see_the_same_patches_and_other_folds_and_arms_others(own_study: StudyPaths) -> None:
    trained(own_study, "pretraining", epochs=1)
    first = batches(prepared(own_study, "finetune"), 2, workers=0)
    np.testing.assert_array_equal(first, batches(prepared(own_study), 2, workers=0))
    for changed in ({"fold": 1}, {"arm": "tversky_bce"}, {"seed": 2}):
        assert not np.array_equal(first, batches(prepared(own_study, **changed), 2, workers=0)), changed


def test_the_same_training_twice_gives_the_same_weights(own_study: StudyPaths) -> None:
    found = []
    for _ in range(2):
        shutil.rmtree(own_study.work / "training", ignore_errors=True)
        found.append(weights(trained(own_study)))
    assert equal(*found)


def test_a_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(own_study: StudyPaths) -> None:
    undisturbed = weights(trained(own_study))
    shutil.rmtree(own_study.work / "training")

    class StoppedError(Exception):
        """Stands for the end of the process."""

    def stop(line: str) -> None:
        if line.startswith("epoch 2 "):
            raise StoppedError

    with pytest.raises(StoppedError):
        prepared(own_study).run(stop)
    session = trained(own_study)
    assert session.resumed_epoch == 1
    assert session.results()["trained_with"]["resumed_after_epochs"] == [1]
    assert equal(undisturbed, weights(session))


def test_validation_takes_no_numbers_from_the_training(own_study: StudyPaths) -> None:
    found = []
    for number in (1, 3):
        shutil.rmtree(own_study.work / "training", ignore_errors=True)
        found.append(weights(trained(own_study, validation_iterations=number)))
    assert equal(*found)


@ENDING
def test_each_process_augments_with_numbers_of_its_own_and_again_with_the_same(
    own_study: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that shows the three generators' next numbers, from processes as nnU-Net starts them."""

    def numbers(loader: nnUNetDataLoader) -> dict[str, Any]:
        loader.made = getattr(loader, "made", -1) + 1
        return {"data": torch.tensor([loader.thread_id, loader.made, *draw()], dtype=torch.float64)}

    monkeypatch.setattr(nnUNetDataLoader, "generate_train_batch", numbers)
    runs = []
    for _ in range(2):
        drawn = batches(prepared(own_study, augmentation_workers=2), 40, workers=2)
        runs.append({(int(one[0]), int(one[1])): one[2:].tolist() for one in drawn})
    for run in runs:
        assert {worker for worker, _ in run} == {0, 1}, "both processes were to deliver"
        for generator in range(3):
            drawn = [values[generator] for values in run.values()]
            assert len(set(drawn)) == len(drawn), "a number was drawn twice"
    # how many of 40 come from which process is not fixed, nor whose first one nnU-Net throws away
    common = set(runs[0]) & set(runs[1])
    assert {worker for worker, _ in common} == {0, 1}
    assert {key: runs[0][key] for key in common} == {key: runs[1][key] for key in common}


@ENDING
def test_one_augmenting_process_gives_the_same_batches_again(own_study: StudyPaths) -> None:
    session = prepared(own_study, augmentation_workers=1)
    first, second = (batches(session, 3, workers=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_the_loaders_batches_are_stock_nnunets(own_study: StudyPaths) -> None:
    """The stream aside, nnU-Net's loader draws what it would from generators of the same seed."""
    source, _ = prepared(own_study).trainer.get_dataloaders()
    loader = source.data_loader
    mine = next(source)["data"].numpy()
    seed_everything(derived_seed(loader.seed, "epoch", 0))
    np.testing.assert_array_equal(mine, nnUNetDataLoader.generate_train_batch(loader)["data"].numpy())


# --- the record ---


def test_the_record_says_with_which_seeds_a_training_was_made(own_study: StudyPaths) -> None:
    trained(own_study, fold=1)
    again = prepared(own_study, fold=1, augmentation_workers=2, validation_iterations=4)
    assert again.finished
    record = again.results()
    seeds = training_seeds(1, "scratch", "default", 1)._asdict()
    assert record["seeds"] == record["trained_with"]["seeds"] == seeds
    assert (record["trained_with"]["parameters"]["augmentation_workers"], again.trainer.num_epochs) == (0, 3)
    assert record["trained_with"]["parameters"]["validation_iterations"] == 1, "of the training, not of this look"
    assert not {"study", "work_dir"} & set(record["trained_with"]["parameters"])
    table = again.description()
    assert table.loc["seed of the weights", "default"] == seeds["weights"]
    assert read_json(again.folder / "identity.json")["seeds"] == seeds
