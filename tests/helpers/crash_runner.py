"""Trains in forked workers and kills them with SIGKILL: ``crash_runner.py WORK_DIR STUDY KILLS EPOCHS SEED``.

A process of its own, because torch must be imported once (seconds) but must not have computed before a fork. Each
life's lines go to ``<work>/lives/<number>.txt``, written through at once, so that they survive the kill.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from small_study import training_parameters

from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training.session import prepare


def train(files: StudyPaths, lines: Path, fold: int, epochs: int) -> None:
    """One life: prepare and run to the end, as the notebook does."""
    torch.set_num_threads(1)
    with lines.open("a", buffering=1, encoding="utf-8") as log:

        def report(line: str) -> None:
            log.write(f"{line}\n")

        parameters = training_parameters(FromScratch, files, fold=fold, epochs=epochs)
        prepare(files, parameters, "scratch", report).run(report)


def live(files: StudyPaths, lines: Path, fold: int, epochs: int, seconds: float | None) -> int:
    """Fork a worker and kill it after ``seconds``, or let it end; gives its wait status."""
    worker = os.fork()
    if worker == 0:
        status = 1
        try:
            train(files, lines, fold, epochs)
            status = 0
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(worker, signal.SIGKILL)
    return os.waitpid(worker, 0)[1]


def main() -> None:
    files = StudyPaths(sys.argv[1], sys.argv[2])
    kills, epochs, seed = (int(word) for word in sys.argv[3:6])
    folder = files.work / "lives"
    folder.mkdir(parents=True)
    draw = random.Random(seed)

    started = time.monotonic()
    assert live(files, folder / "undisturbed.txt", 1, 6, None) == 0
    whole = time.monotonic() - started  # preparing and six epochs
    for life in range(kills):
        status = live(files, folder / f"{life:02d}.txt", 0, epochs, draw.uniform(0, whole))
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"life {life} ended by itself"
    assert live(files, folder / f"{kills:02d}.txt", 0, epochs, None) == 0


if __name__ == "__main__":
    main()
