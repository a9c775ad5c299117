"""What does counting lesions cost? The arm lesion_dice against the default arm, and its parts by number of lesions.

    OMP_NUM_THREADS=1 python benchmarks/lesion_loss.py --write

Phantoms are made and planned as the demonstration's in a temporary folder. Either arm draws its own batches, with
augmentation in the training process as there, and trains on them in bfloat16; the two take turns, step by step, and
their ratio is the median over the rounds. Then the parts: the zones of one patch with so many lesions in each of its
three regions, beside nnU-Net's augmentation of such a patch (both run where a patch is augmented), and the term of a
batch of two, forwards and backwards. ``--write`` keeps the table in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))
from small_study import ARMS, ingest, source_cohort, target_cohort, training_parameters

from brainmets.files import write_text
from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training import plans
from brainmets.training.arms import DefaultTrainer
from brainmets.training.lesion_loss import lesion_term, zones_of
from brainmets.training.session import prepare

RESULTS = Path(__file__).parent / "results"
SPACING_MM, GPU_MEMORY_GB, FEATURES = 3.0, 0.04, 8
"""As the demonstration's, for a patch of its size."""
ROUNDS = 60
SETTINGS = {**ARMS, "lesion_dice": {"learning_rate": 0.01, "lesion_weight": 1.0}}
REGIONS = [(1, 2, 3), (1, 3), (3,)]


def trainer(files: StudyPaths, arm: str) -> Any:
    parameters = training_parameters(FromScratch, files, arm=arm, arms=SETTINGS, precision="bfloat16")
    return prepare(files, parameters, "scratch").trainer


def epochs(files: StudyPaths, threads: int) -> str:
    """Steps with their batches, of both arms in turn."""
    torch.set_num_threads(threads)
    arms = [trainer(files, arm) for arm in ("lesion_dice", "default")]
    batches = [one.get_dataloaders()[0] for one in arms]
    seconds: list[list[float]] = [[], []]
    lesions = []
    for number in range(ROUNDS + 2):
        for place in (0, 1) if number % 2 else (1, 0):
            arms[place].network.train()
            started = time.perf_counter()
            batch = next(batches[place])
            arms[place].train_step(batch)
            seconds[place].append(time.perf_counter() - started)
            if place == 0:
                lesions.append(batch["target"][-1].amax((2, 3, 4)).float().mean().item())
    mine, theirs = (statistics.median(column[2:]) for column in seconds)
    ratio = statistics.median(a / b for a, b in zip(seconds[0][2:], seconds[1][2:], strict=True))
    return (
        f"| a step and its batch, lesion_dice / default, {threads} thread(s), {statistics.mean(lesions):.1f} lesions "
        f"a region (aim: 1.25 or less) | {mine * 1e3:.0f} ms | {theirs * 1e3:.0f} ms | {ratio:.2f} |"
    )


def parts(size: tuple[int, int, int], lesions: int) -> list[str]:
    torch.set_num_threads(1)
    regions = np.stack([balls(size, lesions)] * 3)
    labels = torch.from_numpy(regions[:1].astype(np.int16) * 3)
    scales = [[0.5**level] * 3 for level in range(4)]
    augment = DefaultTrainer.get_training_transforms(
        size, (-0.5, 0.5), scales, (0, 1, 2), False, [False] * 4, regions=REGIONS
    )
    image = torch.randn(4, *size)
    zones, augmented = (
        timed(lambda: zones_of(regions), 5),
        timed(lambda: augment(image=image, segmentation=labels), 30),
    )
    target = torch.from_numpy(np.stack([regions] * 2))
    zone = torch.from_numpy(np.stack([zones_of(regions)] * 2))
    logits = torch.randn(target.shape, requires_grad=True)
    term = timed(lambda: step(lesion_term(logits, target, zone)), 5)
    name = f"{' x '.join(map(str, size))}, {int(zone.max())} lesion(s) a region"
    return [
        f"| {name}: zones / augmentation of a patch, mean | {zones * 1e3:.1f} ms | {augmented * 1e3:.1f} ms | "
        f"{zones / augmented:.2f} |",
        f"| {name}: the term of a batch of two, forwards and backwards | {term * 1e3:.1f} ms | | |",
    ]


def step(loss: torch.Tensor) -> None:
    if loss.requires_grad:
        loss.backward()


def balls(size: tuple[int, int, int], count: int) -> npt.NDArray[np.bool_]:
    """So many balls of a fortieth to an eighth of the patch in radius, the same at each call; some may touch."""
    draw = np.random.default_rng(1)
    mask = np.zeros(size, bool)
    grid = np.ogrid[tuple(slice(extent) for extent in size)]
    for _ in range(count):
        centre, radius = draw.integers(0, size), draw.uniform(max(size) / 40, max(size) / 16)
        mask |= sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True)) <= radius**2
    return mask


def timed(do: Callable[[], object], rounds: int) -> float:
    """Mean seconds of ``do``, after one call to warm up."""
    do()
    started = time.perf_counter()
    for _ in range(rounds):
        do()
    return (time.perf_counter() - started) / rounds


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark the loss that counts lesions.")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/")
    write = parser.parse_args().write
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "nnunetv2"))
    machine = f"Machine: {os.cpu_count()} cores, Python {platform.python_version()}, {versions}."
    load = f"Load average at the start: {os.getloadavg()[0]:.1f}."
    with tempfile.TemporaryDirectory() as temporary:
        files = StudyPaths(str(Path(temporary) / "work"), "benchmark")
        os.environ["nnUNet_results"] = temporary
        with contextlib.redirect_stdout(io.StringIO()):
            cohorts = (
                make(Path(temporary) / make.__name__, spacing_mm=SPACING_MM) for make in (source_cohort, target_cohort)
            )
            ingest(files, *cohorts, GPU_MEMORY_GB, FEATURES)
        plan = plans.read_plan(files, "target")["configurations"][plans.CONFIGURATION]
        size, full = tuple(plan["patch_size"]), (128, 128, 128)
        network = f"Patch {' x '.join(map(str, size))}, batch {plan['batch_size']}, {FEATURES} feature maps, bfloat16."
        rows = [epochs(files, threads) for threads in (1, 2)]
    for patch in (size, full):
        for lesions in (1, 5, 25):
            rows += parts(patch, lesions)
    text = "\n".join(
        ["# What counting lesions costs", "", f"{machine} {load} {network}", "", "Repeat with:", "", "```",
         "OMP_NUM_THREADS=1 python benchmarks/lesion_loss.py --write", "```", "",
         "| what | first | second | first / second |", "|---|---|---|---|", *rows]
    )  # fmt: skip
    print(text)
    if write:
        write_text(RESULTS / "lesion_loss.md", text + "\n")


if __name__ == "__main__":
    main()
