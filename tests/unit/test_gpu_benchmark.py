"""benchmarks/gpu.sh where there is no GPU: it says so, and the studies that it would run are studies."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brainmets.params.study import Study

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "gpu.sh"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("gpu")
    monkeypatch.setattr(module, "WORK", tmp_path)
    return module


def test_the_shortened_studies_are_studies_of_their_own(gpu: Any, tmp_path: Path) -> None:
    for profile, changes in (("smoke", {}), ("gpu_demo", gpu.SHORTER)):
        study = Study.read(gpu.shortened(profile, changes))
        assert study.content["study"] == f"gpu_benchmark_{profile}"
        audit = study.notebook("01_data_audit")
        assert all(Path(cohort.folder).is_relative_to(tmp_path) for cohort in (audit.source, audit.target))
    assert (audit.source.phantoms.patients, audit.source.phantoms.spacing_mm) == (4, 1.0), "the rest is gpu_demo's"
    fine_tuning = study.notebook("04_fine_tuning", arm="segresnet", fold=0)
    assert (fine_tuning.epochs, fine_tuning.iterations_per_epoch, fine_tuning.precision) == (2, 25, "bfloat16")
    assert fine_tuning.arms.segresnet is not None and fine_tuning.arms.segresnet.filters == 32


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *words], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **environment},
    )  # fmt: skip


def test_without_a_gpu_it_stops_before_any_work() -> None:
    ended = run()
    assert ended.returncode != 0
    assert "torch sees no GPU" in ended.stderr


def test_wheels_must_be_a_folder(tmp_path: Path) -> None:
    ended = run(WHEELS=str(tmp_path / "nowhere"))
    assert (ended.returncode, ended.stderr) == (2, f"WHEELS: '{tmp_path}/nowhere' is no folder\n")
