"""Killing a training for real, a full disk, and damaged checkpoints: the last whole checkpoint is continued."""

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_study import training_parameters

from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training.session import TrainingSession, prepare
from brainmets.training.trainer import FINAL, LATEST, PREVIOUS, CheckpointError, read_checkpoint

RUNNER = Path(__file__).resolve().parents[1] / "helpers" / "crash_runner.py"
KILLS = 20

pytestmark = pytest.mark.slow


def polynomial(epochs: int) -> list[float]:
    return [0.01 * (1 - epoch / epochs) ** 0.9 for epoch in range(epochs)]


def test_a_training_killed_twenty_times_ends_as_if_it_had_not_been(small_study: StudyPaths) -> None:
    epochs = 12 * KILLS  # a life lasts three epochs on average: all hit a running training on a changing machine
    command = [sys.executable, str(RUNNER), small_study.work_dir, small_study.study, str(KILLS), str(epochs), "4"]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=420, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr

    lives = [path.read_text() for path in sorted((small_study.work / "lives").glob("[0-9]*.txt"))]
    safe = 0  # epochs whose end a further epoch's line proves
    continued = []
    for lines in lives:
        said = re.findall(r"continues after epoch (\d+) of", lines)
        logged = [int(epoch) for epoch in re.findall(r"^epoch (\d+) of", lines, re.MULTILINE)]
        if logged:
            start = int(said[0]) if said else 0
            assert start >= safe, "an epoch that was over before the kill was lost"
            assert logged == list(range(start + 1, start + 1 + len(logged))), "epochs follow one another within a life"
            safe = logged[-1] - 1
        continued += [int(epoch) for epoch in said]
    assert continued == sorted(continued)
    assert len(set(continued)) > 3, f"the kills were to fall into different epochs: {continued}"
    assert safe == epochs - 1
    assert not any("damaged" in lines or "anew" in lines for lines in lives)

    session = prepare(small_study, training_parameters(FromScratch, small_study, epochs=epochs), "scratch")
    curves = session.curves()
    assert session.finished
    assert curves.epoch.tolist() == list(range(1, epochs + 1))
    assert curves.learning_rate.tolist() == pytest.approx(polynomial(epochs))
    assert curves.training_loss.notna().all()
    assert len(curves.training_loss.unique()) > 0.9 * epochs, "the same patches were not drawn after every restart"
    undisturbed = small_study.checkpoint("scratch", "default", 1)  # the runner's first training
    momenta = [
        read_checkpoint(path, torch.device("cpu"))["optimizer_state"]["state"]
        for path in (session.folder / FINAL, undisturbed)
    ]
    assert momenta[0].keys() == momenta[1].keys()
    names = {path.name for path in session.folder.iterdir()}
    assert not {name for name in names if name.startswith(".")}, "files of killed writers are left"
    assert {LATEST, PREVIOUS} & names == {PREVIOUS}, "one epoch back, should the final checkpoint be damaged later"


AUGMENTING = """
import sys
from small_study import training_parameters
from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training.session import prepare
files = StudyPaths(sys.argv[1], sys.argv[2])
prepare(files, training_parameters(FromScratch, files, fold=1, epochs=500, augmentation_workers=2), "scratch").run()
"""


def test_augmentation_processes_end_with_a_killed_training(small_study: StudyPaths) -> None:
    call = [sys.executable, "-c", AUGMENTING, small_study.work_dir, small_study.study]
    environment = {**os.environ, "PYTHONPATH": f"{RUNNER.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=environment) as training:
        assert training.stdout is not None
        assert any(line.startswith("epoch 1 of") for line in training.stdout)
        children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
        assert len(children) >= 2, "nnU-Net was to augment in processes of its own"
        training.kill()
    until = time.monotonic() + 20
    while left := [child for child in children if is_running(child)]:
        assert time.monotonic() < until, f"processes {left} outlived their training"
        time.sleep(0.1)


def is_running(process: str) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class StoppedError(Exception):
    """Stands for the end of the process."""


def stop_in(epoch: int) -> "Reporter":
    return Reporter(f"epoch {epoch} of ")


class Reporter:
    """Keeps a training's lines and stops it at a line that starts with ``start``."""

    def __init__(self, start: str) -> None:
        self.start = start
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith(self.start):
            raise StoppedError


def stopped_training(files: StudyPaths, seed: int) -> Path:
    """Train anew until epoch 4 of 5 ends; the checkpoints of epochs 2 and 3 are left. Gives the folder."""
    shutil.rmtree(files.training_folder("scratch", "default", 1), ignore_errors=True)
    session = prepare(files, training_parameters(FromScratch, files, fold=1, epochs=5, seed=seed), "scratch")
    with pytest.raises(StoppedError):
        session.run(stop_in(4))
    return session.folder


def continued(files: StudyPaths, seed: int) -> tuple[TrainingSession, list[str]]:
    lines: list[str] = []
    parameters = training_parameters(FromScratch, files, fold=1, epochs=5, seed=seed)
    session = prepare(files, parameters, "scratch", lines.append)
    session.run(lines.append)
    assert session.curves().epoch.tolist() == [1, 2, 3, 4, 5]
    assert session.curves().learning_rate.tolist() == pytest.approx(polynomial(5))
    assert {path.name for path in session.folder.glob("checkpoint_*.pth")} == {FINAL, PREVIOUS}
    return session, lines


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("share", [0.0, 0.999])
def test_a_truncated_checkpoint_gives_way_to_the_one_before(small_study: StudyPaths, share: float) -> None:
    folder = stopped_training(small_study, 11)
    cut(folder / LATEST, share)
    session, lines = continued(small_study, 11)
    assert session.resumed_epoch == 2
    assert lines[0].startswith(f"{LATEST} is damaged and kept as {LATEST}.damaged")
    assert lines[1] == f"{PREVIOUS} is whole: the training continues from it"
    assert lines[2].endswith("continues after epoch 2 of 5")


def test_a_kill_between_the_two_renames_leaves_the_previous_checkpoint(small_study: StudyPaths) -> None:
    folder = stopped_training(small_study, 12)
    (folder / LATEST).unlink()
    assert continued(small_study, 12)[0].resumed_epoch == 2


def test_no_whole_checkpoint_starts_anew_and_says_so(small_study: StudyPaths) -> None:
    folder = stopped_training(small_study, 13)
    cut(folder / LATEST, 0.5)
    cut(folder / PREVIOUS, 0.5)
    session, lines = continued(small_study, 13)
    assert session.resumed_epoch == 0
    assert lines[2] == "no whole checkpoint is left: the training starts anew"
    assert lines[3].startswith("epoch 1 of 5")


@pytest.mark.parametrize("harm", [lambda path: cut(path, 0.5), Path.unlink], ids=["cut", "deleted"])
def test_a_final_checkpoint_that_is_damaged_later_costs_one_epoch(
    small_study: StudyPaths, harm: Callable[[Path], None]
) -> None:
    stopped_training(small_study, 14)
    session, _ = continued(small_study, 14)
    harm(session.folder / FINAL)
    again, lines = continued(small_study, 14)
    assert again.resumed_epoch == 4
    assert next(line for line in lines if line.startswith("epoch")).startswith("epoch 5 of 5")
    assert again.finished


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let the system refuse to write beyond ``size`` bytes of any file, as a full disk does half way through one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_training_and_leaves_the_checkpoints_before(small_study: StudyPaths) -> None:
    folder = stopped_training(small_study, 15)
    before = {name: (folder / name).read_bytes() for name in (LATEST, PREVIOUS)}
    half = len(before[LATEST]) // 2
    session = prepare(small_study, training_parameters(FromScratch, small_study, fold=1, epochs=5, seed=15), "scratch")
    with files_no_larger_than(half), pytest.raises(CheckpointError, match=r"could not be written .* disk is full"):
        session.run(lambda line: None)
    assert {name: (folder / name).read_bytes() for name in (LATEST, PREVIOUS)} == before
    assert not list(folder.glob(".*")), "the half-written file is gone"
    assert continued(small_study, 15)[0].resumed_epoch == 3


def test_files_of_killed_writers_are_removed(small_study: StudyPaths) -> None:
    folder = stopped_training(small_study, 16)
    (folder / f".4711.{LATEST}").write_bytes(b"half a checkpoint")
    continued(small_study, 16)
    assert not list(folder.glob(".*"))
