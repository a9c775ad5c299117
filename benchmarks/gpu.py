"""What a GPU does with the study: see ``gpu.sh``, which calls this in the right environment.

Each part keeps its own section of ``benchmarks/results/gpu.md`` as soon as it is measured: parts can be run one
by one, and one that fails costs the others nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml
from training import (
    DEVICE,
    FEATURES,
    GPU_MEMORY_GB,
    ON_GPU,
    RESULTS,
    SPACING_MM,
    compare_predictions,
    drawn,
    ingest,
    machine,
    overlap,
    source_cohort,
    stock_trainer,
    take_turns,
    target_cohort,
    trainer,
)

from brainmets.cohorts.cohort import read_manifest
from brainmets.engine.devices import cpu_cores
from brainmets.engine.steps import jobs, result
from brainmets.files import read_json, write_text
from brainmets.params.study import Study
from brainmets.paths import StudyPaths, project_root
from brainmets.training import plans
from brainmets.training.inference import Ensemble, predict_cases
from brainmets.training.trainer import keep_channels_last
from brainmets.vocabulary import REGIONS, region_mask

WORK = project_root() / "work" / "gpu_benchmark"
ARMS = ("default", "tversky_bce", "segresnet")
PRECISIONS = ("nnunet", "bfloat16")
SHORTER: dict[str, Any] = {
    "folds": [0],
    "source": {"phantoms": {"patients": 4}},
    "target": {"phantoms": {"patients": 5, "spacing_mm": 1.0}, "held_out": 1},
    "alignment": {"workers": 8},
    **{
        stage: {"epochs": 2, "iterations_per_epoch": 10, "validation_iterations": 2}
        for stage in ("pretraining", "fine_tuning", "from_scratch")
    },
    "statistics": {"n_bootstrap": 1000},
    "case_review": {"n_cases": 1, "viewer": "slices"},
}
"""What the shortened study changes of params/gpu_demo.yaml."""
FOLDS = range(5 if ON_GPU else 2)
STEPS = 200 if ON_GPU else 20
"""Training steps on the drawn batches before the prediction is measured: enough for a model that predicts lesions."""
HEADER = "# The study on one GPU\n\nEach part repeats with `bash benchmarks/gpu.sh --parts` and its name.\n"


# --- what the parts measure on -----------------------------------------------------------------------------------


@functools.cache
def planned() -> StudyPaths:
    """Phantoms of full size (coarse ones without a GPU), planned and preprocessed."""
    files = StudyPaths(str(WORK), "planned")
    with contextlib.redirect_stdout(io.StringIO()):
        source = source_cohort(WORK / "cohorts" / "source", patients=2, spacing_mm=SPACING_MM)
        target = target_cohort(WORK / "cohorts" / "target", patients=4, spacing_mm=SPACING_MM)
        ingest(files, source, target, GPU_MEMORY_GB, FEATURES)
    os.environ["nnUNet_results"] = str(WORK / "stock")  # stock nnU-Net makes folders there of its own accord
    return files


@functools.cache
def batches() -> list[Any]:
    """Four batches; every part that trains takes turns on them."""
    plans.use_nnunet_folders(planned(), augmentation_workers=0)
    return drawn(trainer(planned(), "default", "nnunet"))


class OneOutput:
    """A trainer without deep supervision that takes the batches of one with it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.network = trainer, trainer.network

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        stepped: dict[str, Any] = self.trainer.train_step({**batch, "target": batch["target"][0]})
        return stepped


def opened(arm: str, precision: str, change: Callable[[Any], None] | None = None) -> Any:
    """A fresh trainer of the arm for the batches drawn; ``change`` is done to its bare network."""
    one = trainer(planned(), arm, precision)
    if change:
        change(one.bare_network)
    return one if one.enable_deep_supervision else OneOutput(one)


def patch() -> str:
    configuration = plans.read_plan(planned(), "target")["configurations"][plans.CONFIGURATION]
    size = " x ".join(map(str, configuration["patch_size"]))
    return f"Patch {size}, batch {configuration['batch_size']}, {FEATURES} feature maps at the first level."


# --- memory and rows ---------------------------------------------------------------------------------------------


def in_use() -> float:
    """MB of torch's tensors on the card, after what nothing refers to any more is dropped; the peak starts anew."""
    gc.collect()  # a trainer and its network refer to each other
    if not ON_GPU:
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 2**20


def peak_since(before: float) -> float | None:
    return torch.cuda.max_memory_allocated() / 2**20 - before if ON_GPU else None


def memory(megabytes: float | None) -> str:
    return "" if megabytes is None else f"{megabytes:,.0f} MB"


def warm_up(one: Any, before: float) -> tuple[float, float | None]:
    """Seconds of the first step, which compiles the network and tries convolutions, and the peak of two later ones."""
    one.network.train()
    started = time.perf_counter()
    one.train_step(batches()[0])
    first = time.perf_counter() - started
    for batch in batches()[1:3]:
        one.train_step(batch)
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for batch in batches()[:2]:
        one.train_step(batch)
    return first, peak_since(before)


def row(
    what: str, seconds: float, peak: float | None = None, other: float | None = None, ratio: float | None = None
) -> str:
    theirs, share = ("", "") if other is None else (f"{other:.3f} s", f"{ratio:.2f}")
    return f"| {what} | {seconds:.3f} s | {memory(peak)} | {theirs} | {share} |"


# --- the parts ---------------------------------------------------------------------------------------------------


def steps(folder: Path) -> list[str]:
    """A training step of each arm, in each precision, against stock nnU-Net's on the same batches."""
    before = in_use()
    stock = stock_trainer(planned())
    first, peak = warm_up(stock, before)
    rows = [row("stock nnUNetTrainer: its first step, and the memory of later ones", first, peak)]
    starts = []
    for arm in ARMS:
        for precision in PRECISIONS:
            before = in_use()
            ours = opened(arm, precision)
            first, peak = warm_up(ours, before)
            mine, theirs, ratio = take_turns(ours, stock, batches())
            rows.append(row(f"{arm}, {precision}", mine, peak, theirs, ratio))
            starts.append(row(f"the first step: {arm}, {precision}", first))
            print(rows[-1], flush=True)
            del ours
    return [*rows, *starts]


def choices(folder: Path) -> list[str]:
    """What the trainers choose, against the other choice; "other" is the trainer as it is."""
    rows = []
    for arm in ("default", "segresnet"):
        for precision in PRECISIONS:
            as_it_is = opened(arm, precision)
            last = opened(arm, precision, keep_channels_last)
            mine, theirs, ratio = take_turns(last, as_it_is, batches())
            rows.append(row(f"channels last: {arm}, {precision}", mine, None, theirs, ratio))
            print(rows[-1], flush=True)
            del last
            os.environ["nnUNet_compile"] = "false"
            eager = opened(arm, precision)
            del os.environ["nnUNet_compile"]
            mine, theirs, ratio = take_turns(eager, as_it_is, batches())
            rows.append(row(f"without torch.compile: {arm}, {precision}", mine, None, theirs, ratio))
            print(rows[-1], flush=True)
            del eager, as_it_is
    return rows


def waiting(folder: Path) -> list[str]:
    """Share of the steps' time that passes until a batch is there, with few and with many augmentation processes."""
    rows = []
    cores = cpu_cores()
    for workers in sorted({max(1, cores // 2), max(1, cores - 2)}):
        one = trainer(planned(), "default", "bfloat16")
        os.environ["nnUNet_n_proc_DA"] = str(workers)
        loader, validation = one.get_dataloaders()
        one.network.train()
        for _ in range(2 * workers):  # the first ones lie ready
            one.train_step(next(loader))
        started, waited = time.perf_counter(), 0.0
        for _ in range(4 * workers):
            asked = time.perf_counter()
            batch = next(loader)
            waited += time.perf_counter() - asked
            one.train_step(batch)
        whole = time.perf_counter() - started
        for each in (loader, validation):
            each._finish()
        os.environ["nnUNet_n_proc_DA"] = "0"
        what = f"default, bfloat16: {4 * workers} steps with {workers} augmentation processes; waiting for data"
        rows.append(row(what, whole, None, waited, waited / whole))
        print(rows[-1], flush=True)
    return rows


def prediction(folder: Path) -> list[str]:
    """One case by nnU-Net's command, by the study, and by the study on the CPU."""
    files = planned()
    one = trainer(files, "tversky_bce", "bfloat16")
    one.network.train()
    for number in range(STEPS):
        one.train_step(batches()[number % len(batches())])
    checkpoints = []
    for fold in FOLDS:
        for number in range(3):
            one.train_step(batches()[number])
        one.fold = fold
        checkpoints.append(files.checkpoint("scratch", "tversky_bce", fold))
        one.save_checkpoint(str(checkpoints[-1]))
    del one
    before = in_use()
    compared = compare_predictions(files, folder, checkpoints, [list(FOLDS), [0]])
    peak = peak_since(before)
    table = [
        f"|{what}|{mine}| |{theirs}|{ratio}|" for what, mine, theirs, ratio in (r.split("|")[1:5] for r in compared)
    ]
    print("\n".join(table), flush=True)
    return [
        *table,
        f"| the study's prediction: memory | | {memory(peak)} | | |",
        *on_the_cpu(files, checkpoints, folder),
    ]


def on_the_cpu(files: StudyPaths, checkpoints: list[Path], folder: Path) -> list[str]:
    """The same case by the same model on the device and on the CPU, with every core."""
    name = read_json(files.splits)["target"]["held_out"][0]
    case = read_manifest(files.manifest("target"))[name]
    threads = torch.get_num_threads()
    seconds, maps, means = [], [], []
    for device in (DEVICE, torch.device("cpu")):
        torch.set_num_threads(cpu_cores() if device.type == "cpu" else threads)
        started = time.perf_counter()
        ensemble = Ensemble.load(checkpoints[:1], device, tile_step=0.5, mirroring=False)
        predict_cases(ensemble, [case], folder / f"on_{len(maps)}", lambda line: None)
        seconds.append(time.perf_counter() - started)
        maps.append(np.asarray(nib.load(folder / f"on_{len(maps)}" / f"{name}.nii.gz").dataobj))
        means.append(ensemble.probabilities(case))
    torch.set_num_threads(threads)
    dice = ", ".join(f"{region} {overlap(*(region_mask(one, region) for one in maps))}" for region in REGIONS)
    apart = np.abs(means[0] - means[1])
    return [
        row(
            f"1-fold prediction of one case / on {cpu_cores()} CPU cores",
            seconds[0],
            None,
            seconds[1],
            seconds[0] / seconds[1],
        ),
        f"| Dice between both outputs | | | | {dice} |",
        f"| probabilities apart: mean {apart.mean():.1e}, most {apart.max():.3f} | | | | |",
    ]


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    nested = {name: changed(values[name], other) for name, other in changes.items() if isinstance(other, dict)}
    return {**values, **changes, **nested}


def shortened(profile: str, changes: dict[str, Any]) -> Path:
    """``params/<profile>.yaml`` with some values changed and every file of the study below ``WORK``."""
    values = changed(yaml.safe_load((project_root() / "params" / f"{profile}.yaml").read_text()), changes)
    values |= {"study": f"gpu_benchmark_{profile}", "work_dir": str(WORK)}
    for cohort in ("source", "target"):
        values[cohort]["folder"] = str(WORK / profile / cohort)
    return write_text(WORK / f"{profile}.yaml", yaml.safe_dump(values, sort_keys=False))


def study(folder: Path) -> list[str]:
    """The study from nothing to its report: its seconds, and those of each notebook's steps with their memory.

    Networks are not compiled: each training would pay a minute for it, and these take few steps.
    """
    params = shortened("gpu_demo", SHORTER) if ON_GPU else shortened("smoke", {"folds": [0]})
    started = time.perf_counter()
    uncompiled = {**os.environ, "nnUNet_compile": "false"}
    ended = subprocess.run([sys.executable, "-m", "brainmets.cli", "study", str(params)], check=False, env=uncompiled)
    seconds = time.perf_counter() - started
    content = Study.read(params)
    files = StudyPaths(content.content["work_dir"], content.content["study"])
    rows = [row("the whole study", seconds)] if not ended.returncode else []
    records: dict[str, list[dict[str, Any]]] = {}
    for notebook, job in jobs(content):
        path = result(files, notebook, job)
        if path.is_file():
            records.setdefault(notebook, []).append(read_json(path))
    for notebook, made in records.items():
        peaks = [one["peak_memory_mb"] for one in made if "peak_memory_mb" in one]
        took = sum(one["provenance"]["seconds"] for one in made)
        rows.append(row(f"{notebook}, {len(made)} step(s)", took, max(peaks, default=None)))
    if ended.returncode:
        print("\n".join(rows), flush=True)
        raise RuntimeError(f"brainmets study {params} ended with {ended.returncode}")
    return rows


PARTS: dict[str, tuple[str, str, Callable[[Path], list[str]]]] = {
    "steps": ("Training steps", "| what | seconds | peak memory | stock nnU-Net | ours / stock |", steps),
    "prediction": ("Prediction", "| what | seconds | peak memory | other | first / second |", prediction),
    "study": ("A whole study", "| what | seconds | peak memory | | |", study),
    "waiting": ("Waiting for data", "| what | seconds | | of which waiting | share |", waiting),
    "choices": ("Choices", "| what | seconds | | as it is | first / second |", choices),
}


# --- what is kept ------------------------------------------------------------------------------------------------


def with_section(text: str, part: str, section: str) -> str:
    """The results with this part's section new, in the order of the parts; other sections stay as they are."""
    head, *sections = re.split(r"(?m)^(?=## )", text)
    titles = [title for title, _, _ in PARTS.values()]
    kept = {one.splitlines()[0].removeprefix("## "): one.strip() + "\n" for one in sections}
    kept[PARTS[part][0]] = section.strip() + "\n"
    order = sorted(kept, key=lambda title: titles.index(title) if title in titles else len(titles))
    return "\n".join([head.strip() + "\n", *(kept[title] for title in order)])


def keep(part: str, section: str, folder: Path | None) -> None:
    if ON_GPU:
        path = RESULTS / "gpu.md"
        write_text(path, with_section(path.read_text() if path.is_file() else HEADER, part, section))
    if folder:
        write_text(folder / f"{part}.md", section)


def keep_logs(folder: Path) -> None:
    """What the studies logged, and the notebooks that failed, as one archive."""
    with tarfile.open(folder / "logs.tar.gz", "w:gz") as archive:
        for path in sorted(WORK.rglob("runs/**/*")):
            if path.is_file() and (path.suffix in (".log", ".jsonl") or "failed" in path.parts):
                archive.add(path, path.relative_to(WORK))


def main() -> None:
    parser = argparse.ArgumentParser(description="Run, time and tabulate the study on one GPU.")
    parser.add_argument("--cpu", action="store_true", help="the same way with coarse phantoms on the CPU; no results")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--keep", type=Path, help="a folder for each part's section and the logs")
    chosen = parser.parse_args()
    if not ON_GPU and not chosen.cpu:
        raise SystemExit(
            "torch sees no GPU (torch.cuda.is_available() is false): mend that, or try the way with --cpu"
        )
    shutil.rmtree(WORK, ignore_errors=True)
    if chosen.keep:
        chosen.keep.mkdir(parents=True, exist_ok=True)
    about = machine()
    print(about, flush=True)
    failed = []
    for part in chosen.parts:
        title, columns, measure = PARTS[part]
        started = time.perf_counter()
        print(f"\n--- {part}", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            try:
                rows = measure(Path(temporary))
            except Exception:
                traceback.print_exc()
                failed.append(part)
                continue
            finally:
                print(f"--- {part}: {time.perf_counter() - started:.0f} s", flush=True)
        above = [] if part == "study" else [patch()]
        section = "\n".join([f"## {title}", "", about, *above, "", columns, "|---|---|---|---|---|", *rows, ""])
        print(section, flush=True)
        keep(part, section, chosen.keep)
    if chosen.keep:
        keep_logs(chosen.keep)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; what else was measured is kept")


if __name__ == "__main__":
    main()
