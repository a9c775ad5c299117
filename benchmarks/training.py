"""How fast are training and prediction? Against stock nnU-Net, within one run, on the same plan, batches and weights.

    OMP_NUM_THREADS=1 python benchmarks/training.py --write

Phantoms are made and planned in a temporary folder: as the demonstration's on a CPU, full-size ones with nnU-Net's own
network on a GPU. Seconds are wall seconds. Steps that are compared take turns on the same batches, and their ratio is
the median over the rounds: what else the machine does then falls on both. ``--write`` keeps the printed table in
benchmarks/results/, as cpu.md or under the card's name.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
import nibabel as nib
import numpy as np
import papermill
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))
from small_study import ARMS, ingest, source_cohort, target_cohort, training_parameters

from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, write_text
from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training import plans
from brainmets.training.export import export
from brainmets.training.inference import Ensemble, predict_cases
from brainmets.training.session import device_name, prepare, training_device
from brainmets.training.trainer import keep_channels_last
from brainmets.vocabulary import REGIONS, region_mask

RESULTS = Path(__file__).parent / "results"
DEVICE = training_device()
ON_GPU = DEVICE.type == "cuda"
SPACING_MM, GPU_MEMORY_GB, FEATURES = (1.0, 8.0, 32) if ON_GPU else (3.0, 0.04, 8)
FOLDS = range(5)
ROUNDS = 16
TRAIN = """
from small_study import training_parameters
from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training.session import prepare
from brainmets.training.watching import LiveCurves
files = StudyPaths({work!r}, {study!r})
session = prepare(files, training_parameters(FromScratch, files, fold=1, epochs=10, iterations_per_epoch=40,
                                             seed={seed}), "scratch")
session.run({report})
print("trained for", session.seconds)
"""
PREDICT = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point; predict_entry_point()"
INSTALL = "from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point as f; f()"

NOTES = """
What missed its aim, and why:

- Waiting for data: with augmentation in the training process the device waits for every batch, by construction. A
  process that augments hides it, but takes a core of its own: the small studies keep augmentation in process, since
  two trainings side by side use both cores.
- Dice between both outputs with five folds: nnU-Net averages the folds' logits; the study, as the paper, averages
  their probabilities, and the two part where folds disagree. With one fold the label maps are the same.
- Prediction: the first column has no imports, since a notebook imports once for all cases; the second has them, since
  every call of nnU-Net's command imports anew. One case in a process of its own takes either about as long.
- A notebook draws its curves live: the first drawing takes about half a second, later ones 1% of the time. That shows
  in a training of half a minute, and in none of hours. Its process pays seconds for the kernel's start.
- The SegResNet arm's aim is one for a GPU; gpu.md has what one does.
"""


def trainer(files: StudyPaths, arm: str, precision: str) -> Any:
    """A fresh trainer; SegResNet has as many feature maps at the first level as the U-Net."""
    arms = {**ARMS, "segresnet": {**ARMS["segresnet"], "filters": FEATURES}}
    parameters = training_parameters(FromScratch, files, arm=arm, arms=arms, precision=precision)
    return prepare(files, parameters, "scratch").trainer


def stock_trainer(files: StudyPaths) -> Any:
    plan = deepcopy(plans.read_plan(files, "target")) | {"continue_training": False}
    with contextlib.redirect_stdout(io.StringIO()):
        stock = nnUNetTrainer(plan, plans.CONFIGURATION, 0, plans.read_dataset(files, "target"), DEVICE)
        stock.initialize()
    return stock


def take_turns(first: Any, second: Any, batches: list[Any]) -> tuple[float, float, float]:
    """Median seconds of a step of both, and the median of first / second."""
    seconds: list[tuple[float, float]] = []
    for number in range(ROUNDS + 2):
        pair = []
        for one in (first, second) if number % 2 else (second, first):
            one.network.train()
            started = time.perf_counter()
            one.train_step(batches[number % len(batches)])
            pair.append((one is second, time.perf_counter() - started))
        seconds.append((dict(pair)[False], dict(pair)[True]))
    seconds = seconds[2:]  # the first two warm up
    mine, theirs = (statistics.median(column) for column in zip(*seconds, strict=True))
    return mine, theirs, statistics.median(a / b for a, b in seconds)


def steps(files: StudyPaths, folder: Path) -> list[str]:
    rows = []
    ours, stock = trainer(files, "default", "nnunet"), stock_trainer(files)
    batches = drawn(ours)
    for name, first, second in (
        ("default / stock nnUNetTrainer, both float32 (aim: 1.0 or less)", ours, stock),
        ("default in bfloat16 / stock nnUNetTrainer", trainer(files, "default", "bfloat16"), stock),
    ):
        rows.append(step_row(name, *take_turns(first, second, batches)))
    fastest = trainer(files, "segresnet", "bfloat16" if ON_GPU else "nnunet")
    authors = in_nnunets_layout(trainer(files, "segresnet", "nnunet"))
    batches = drawn(authors)
    name = f"segresnet as it is fastest here ({fastest.precision}) / the authors' float32 (aim on a GPU: 0.5 or less)"
    rows.append(step_row(name, *take_turns(fastest, authors, batches)))
    rows.append(
        step_row(
            "segresnet in bfloat16 / the same", *take_turns(trainer(files, "segresnet", "bfloat16"), authors, batches)
        )
    )
    return rows


def choices(files: StudyPaths, folder: Path) -> list[str]:
    """What the trainers choose, against the other choice."""
    rows = []
    for arm, precision in (("default", "nnunet"), ("default", "bfloat16"), ("segresnet", "nnunet")):
        mine, other = (trainer(files, arm, precision) for _ in range(2))
        keep_channels_last(mine.network)
        name = f"channels last / nnU-Net's layout: {arm}, {precision}"
        rows.append(step_row(name, *take_turns(mine, in_nnunets_layout(other), drawn(mine))))
    mine, other = (trainer(files, "segresnet", "bfloat16") for _ in range(2))
    keep_channels_last(mine.network)
    rows.append(step_row("the same: segresnet, bfloat16", *take_turns(mine, other, drawn(mine))))
    mine, other = (trainer(files, "segresnet", "nnunet") for _ in range(2))
    for group in other.optimizer.param_groups:
        group["fused"] = False
    rows.append(step_row("Adam in one kernel / in several: segresnet", *take_turns(mine, other, drawn(mine))))
    return rows


def in_nnunets_layout(one: Any) -> Any:
    one.network.to(memory_format=torch.contiguous_format)
    one.network._forward_pre_hooks.clear()
    return one


def drawn(one: Any) -> list[Any]:
    loader, _ = one.get_dataloaders()
    return [next(loader) for _ in range(4)]


def step_row(name: str, first: float, second: float, ratio: float) -> str:
    return f"| {name} | {first:.3f} s | {second:.3f} s | {ratio:.2f} |"


def waiting(files: StudyPaths, folder: Path) -> list[str]:
    return [wait(files, workers) for workers in (0, 1)]


def wait(files: StudyPaths, workers: int) -> str:
    """Share of a few steps' time that passes until a batch is there."""
    one = trainer(files, "default", "bfloat16")
    os.environ["nnUNet_n_proc_DA"] = str(workers)
    loader, validation = one.get_dataloaders()
    one.network.train()
    one.train_step(next(loader))
    started, waited = time.perf_counter(), 0.0
    for _ in range(ROUNDS):
        asked = time.perf_counter()
        batch = next(loader)
        waited += time.perf_counter() - asked
        one.train_step(batch)
    whole = time.perf_counter() - started
    for each in (loader, validation):
        if hasattr(each, "_finish"):
            each._finish()
    who = f"{workers} augmentation process(es)" if workers else "augmentation in the training process"
    return f"| waiting for data, {who} (aim: under 5%) | {waited:.2f} s | {whole:.2f} s | {waited / whole:.2f} |"


def five_folds(files: StudyPaths) -> list[Path]:
    """Five models that differ by a few steps each; the arm that weighs what is missed predicts lesions soonest."""
    one = trainer(files, "tversky_bce", "bfloat16")
    loader, _ = one.get_dataloaders()
    one.network.train()
    for _ in range(300):
        one.train_step(next(loader))
    checkpoints = []
    for fold in FOLDS:
        for _ in range(3):
            one.train_step(next(loader))
        one.fold = fold
        checkpoints.append(files.checkpoint("scratch", "tversky_bce", fold))
        one.save_checkpoint(str(checkpoints[-1]))
    return checkpoints


def prediction(files: StudyPaths, folder: Path) -> list[str]:
    rows = compare_predictions(files, folder, five_folds(files), [list(FOLDS), [0]])
    started = time.perf_counter()
    child("import brainmets.training.inference")
    imports = time.perf_counter() - started
    return [*rows, f"| imports of either, not in the first column | {imports:.1f} s | | |"]


def compare_predictions(
    files: StudyPaths, folder: Path, checkpoints: list[Path], chosen: list[list[int]]
) -> list[str]:
    """Predict a held-out case with each choice of the folds that tversky_bce, scratch has, and with stock nnU-Net."""
    archive = export(files, "tversky_bce", "scratch", chosen[0], folder / "model.zip", 0.5, False)
    name = read_json(files.splits)["target"]["held_out"][0]
    case = read_manifest(files.manifest("target"))[name]
    (folder / "images").mkdir()
    for channel, path in enumerate(case.channels(case.sequences)):
        (folder / "images" / f"{name}_{channel:04d}.nii.gz").symlink_to(path)
    os.environ["nnUNet_results"] = str(folder / "results")
    (folder / "results").mkdir()
    child(INSTALL, str(archive))
    rows = []
    for folds in chosen:
        theirs, ours = stock_prediction(folder, folds), prediction_in_process(checkpoints[: len(folds)], case, folder)
        maps = [np.asarray(nib.load(folder / side / f"{name}.nii.gz").dataobj) for side in ("mine", "theirs")]
        dice = ", ".join(f"{region} {overlap(*(region_mask(one, region) for one in maps))}" for region in REGIONS)
        aim = " (aim for 5: 0.5 or less)" if len(folds) > 1 else ""
        rows += [
            f"| {len(folds)}-fold prediction of one case / nnUNetv2_predict{aim} | {ours:.1f} s | {theirs:.1f} s "
            f"| {ours / theirs:.2f} |",
            f"| Dice between both outputs (aim: 0.999 or more) | | | {dice} |",
        ]
    return rows


def stock_prediction(folder: Path, folds: list[int]) -> float:
    started = time.perf_counter()
    child(
        PREDICT, "-d", "Dataset502_Target", "-p", "nnUNetPlans_tversky_bce_scratch", "-c", "3d_fullres", "-i",
        str(folder / "images"), "-o", str(folder / "theirs"), "-f", *map(str, folds), "-device", DEVICE.type,
        "-npp", "1", "-nps", "1", "--disable_tta",
    )  # fmt: skip
    return time.perf_counter() - started


def prediction_in_process(checkpoints: list[Path], case: Any, folder: Path) -> float:
    started = time.perf_counter()
    ensemble = Ensemble.load(checkpoints, DEVICE, tile_step=0.5, mirroring=False)
    predict_cases(ensemble, [case], folder / "mine", lambda line: None)
    return time.perf_counter() - started


def overlap(first: np.ndarray, second: np.ndarray) -> str:
    both = int(first.sum()) + int(second.sum())
    return f"{2 * int((first & second).sum()) / both:.4f}" if both else "empty in both"


def child(code: str, *words: str) -> str:
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stdout + ended.stderr)
    return ended.stdout


def notebook_overhead(files: StudyPaths, folder: Path) -> list[str]:
    """The same training by a script and by a notebook that draws it live: the training itself, and the process."""
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])
    told = {"work": files.work_dir, "study": files.study}
    started = time.perf_counter()
    script = float(child(TRAIN.format(**told, seed=5, report="print")).split()[-1])
    script_whole = time.perf_counter() - started
    cell = "%matplotlib inline\n" + TRAIN.format(**told, seed=6, report="LiveCurves(session)")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(notebook, folder / "train.ipynb")
    started = time.perf_counter()
    papermill.execute_notebook(
        folder / "train.ipynb", folder / "out.ipynb", kernel_name="python3", progress_bar=False
    )  # fmt: skip
    whole = time.perf_counter() - started
    outputs = nbformat.read(folder / "out.ipynb", 4).cells[0].outputs
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    inside = float(text.split()[-1])
    return [
        f"| training in a notebook with live curves / in a script (aim: under 1.02) | {inside:.2f} s | {script:.2f} s "
        f"| {inside / script:.2f} |",
        f"| whole process, with imports and the kernel's start | {whole:.1f} s | {script_whole:.1f} s "
        f"| {whole - script_whole:+.1f} s |",
    ]


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "nnunetv2", "monai"))
    return (
        f"Machine: {os.cpu_count()} cores, {memory:.0f} GiB of memory, {device_name(DEVICE)}, "
        f"Python {platform.python_version()}, {versions}. Load average at the start: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark training and prediction.")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/")
    write = parser.parse_args().write
    header = [f"# Training and prediction speed on a {DEVICE.type.upper().replace('CUDA', 'GPU')}", "", machine()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = StudyPaths(str(folder / "work"), "benchmark")
        os.environ["nnUNet_results"] = str(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            cohorts = (make(folder / make.__name__, spacing_mm=SPACING_MM) for make in (source_cohort, target_cohort))
            ingest(files, *cohorts, GPU_MEMORY_GB, FEATURES)
        configuration = plans.read_plan(files, "target")["configurations"][plans.CONFIGURATION]
        header.append(
            f"Patch {' x '.join(map(str, configuration['patch_size']))}, batch {configuration['batch_size']}, "
            f"{FEATURES} feature maps at the first level."
        )
        rows = []
        for part in (steps, choices, waiting, prediction, notebook_overhead):
            rows += part(files, folder)
            print("\n".join(rows), file=sys.stderr)
    command = ["", "Repeat with:", "", "```", "OMP_NUM_THREADS=1 python benchmarks/training.py --write", "```", ""]
    table = ["| what | first | second | first / second |", "|---|---|---|---|", *rows]
    text = "\n".join([*header, *command, *table]) + "\n" + NOTES
    print(text)
    if write:
        name = re.sub(r"[^a-z0-9]+", "_", device_name(DEVICE).lower()) if ON_GPU else "cpu"
        write_text(RESULTS / f"{name}.md", text)


if __name__ == "__main__":
    main()
