"""What a GPU does with the study: see ``gpu.sh``, which calls this in the right environment."""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from training import DEVICE, ON_GPU, RESULTS, compare_predictions, drawn, machine, stock_trainer, take_turns

from brainmets.engine.steps import jobs, result
from brainmets.files import read_json, write_text
from brainmets.params import Training
from brainmets.params.study import Study
from brainmets.paths import StudyPaths, project_root
from brainmets.training import plans
from brainmets.training.arms import TRAINERS

WORK = project_root() / "work" / "gpu_benchmark"
SHORTER: dict[str, Any] = {
    "source": {"phantoms": {"patients": 4}},
    "target": {"phantoms": {"patients": 5}, "held_out": 1},
    **{stage: {"epochs": 2, "iterations_per_epoch": 25} for stage in ("pretraining", "fine_tuning", "from_scratch")},
    "statistics": {"n_bootstrap": 1000},
    "case_review": {"n_cases": 1, "viewer": "slices"},
}
"""What the shortened study changes of params/gpu_demo.yaml."""


class OneOutput:
    """A trainer without deep supervision that takes the batches of one with it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.network = trainer, trainer.network

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        stepped: dict[str, Any] = self.trainer.train_step({**batch, "target": batch["target"][0]})
        return stepped


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


def run_study(params: Path) -> tuple[Study, list[str]]:
    """Run the study and give its rows: the whole, and the seconds and memory of each notebook's steps."""
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "brainmets.cli", "study", str(params)], check=False)
    if ended.returncode:
        raise SystemExit(f"brainmets study {params} ended with {ended.returncode}")
    study = Study.read(params)
    rows = [row(f"{study.content['study']}: the whole study", time.perf_counter() - started)]
    records: dict[str, list[dict[str, Any]]] = {}
    for notebook, job in jobs(study):
        path = result(StudyPaths(study.content["work_dir"], study.content["study"]), notebook, job)
        records.setdefault(notebook, []).append(read_json(path))
    for notebook, made in records.items():
        seconds = sum(one["provenance"]["seconds"] for one in made)
        peaks = [one["peak_memory_mb"] for one in made if "peak_memory_mb" in one]
        rows.append(row(f"{notebook}, {len(made)} step(s)", seconds, max(peaks, default=None)))
    return study, rows


def step_rows(study: Study, files: StudyPaths, folder: Path) -> list[str]:
    """A training step of each arm, in each precision, against stock nnU-Net's on the same batches."""
    plans.use_nnunet_folders(files, augmentation_workers=0)
    batches = drawn(trainer_of(study, files, "default", "nnunet", folder))
    os.environ["nnUNet_results"] = str(folder)  # stock nnU-Net makes folders there of its own accord
    peak = memory_of(stock_trainer(files), batches)
    rows = [f"| training step: stock nnUNetTrainer | | {memory(peak)} | | |"]
    for arm in study.arms:
        for precision in ("nnunet", "bfloat16"):
            ours = trainer_of(study, files, arm, precision, folder)
            if not ours.enable_deep_supervision:
                ours = OneOutput(ours)
            peak = memory_of(ours, batches)
            mine, theirs, ratio = take_turns(ours, stock_trainer(files), batches)
            rows.append(row(f"training step: {arm}, {precision}", mine, peak, theirs, ratio))
    return rows


def trainer_of(study: Study, files: StudyPaths, arm: str, precision: str, folder: Path) -> Any:
    parameters = study.notebook("05_from_scratch", arm=arm, fold=study.folds[0])
    assert isinstance(parameters, Training)
    plan, dataset = plans.read_plan(files, "target"), plans.read_dataset(files, "target")
    parameters = parameters.model_copy(update={"precision": precision})
    return TRAINERS[arm].open(folder / arm / precision, plan, dataset, parameters, DEVICE)


def memory_of(trainer: Any, batches: list[Any]) -> float | None:
    """Peak of torch's memory on the card in MB over two steps; None on a CPU."""
    forget_peak()
    for batch in batches[:2]:
        trainer.train_step(batch)
    return peak_memory()


def forget_peak() -> None:
    gc.collect()  # a trainer and its network refer to each other
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**20 if ON_GPU else None


def memory(megabytes: float | None) -> str:
    return "" if megabytes is None else f"{megabytes:,.0f} MB"


def row(
    what: str, seconds: float, peak: float | None = None, stock: float | None = None, ratio: float | None = None
) -> str:
    theirs, share = ("", "") if stock is None else (f"{stock:.3f} s", f"{ratio:.2f}")
    return f"| {what} | {seconds:.3f} s | {memory(peak)} | {theirs} | {share} |"


def prediction_rows(study: Study, files: StudyPaths, folder: Path) -> list[str]:
    checkpoints = [files.checkpoint("scratch", "tversky_bce", fold) for fold in study.folds]
    forget_peak()
    rows = compare_predictions(files, folder, checkpoints, [study.folds])
    peak = peak_memory()
    named = [line.split("|")[1:5] for line in rows]
    table = [f"|{what}|{mine}| |{theirs}|{ratio}|" for what, mine, theirs, ratio in named]
    return [*table, f"| memory of the prediction | | {memory(peak)} | | |"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Run, time and tabulate the study on one GPU.")
    parser.add_argument("--cpu", action="store_true", help="the same way with the smoke study on the CPU; no file")
    on_cpu = parser.parse_args().cpu
    if not ON_GPU and not on_cpu:
        raise SystemExit(
            "torch sees no GPU (torch.cuda.is_available() is false): mend that, or try the way with --cpu"
        )
    shutil.rmtree(WORK, ignore_errors=True)
    header = ["# The study on one GPU", "", machine()]
    print(header[-1], flush=True)
    rows: list[str] = []
    for profile, changes in {"smoke": {}, **({} if on_cpu else {"gpu_demo": SHORTER})}.items():
        study, of_study = run_study(shortened(profile, changes))
        rows += of_study
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    configuration = plans.read_plan(files, "target")["configurations"][plans.CONFIGURATION]
    header.append(f"Patch {' x '.join(map(str, configuration['patch_size']))}, batch {configuration['batch_size']}.")
    with tempfile.TemporaryDirectory() as temporary:
        for part in (step_rows, prediction_rows):
            folder = Path(temporary) / part.__name__
            folder.mkdir()
            rows += part(study, files, folder)
            print("\n".join(rows), flush=True)
    command = ["", "Repeat with:", "", "```", "bash benchmarks/gpu.sh", "```", ""]
    table = ["| what | seconds | peak memory | stock nnU-Net | ours / stock |", "|---|---|---|---|---|", *rows]
    text = "\n".join([*header, *command, *table]) + "\n"
    print(text)
    if ON_GPU:
        write_text(RESULTS / "gpu.md", text)


if __name__ == "__main__":
    main()
