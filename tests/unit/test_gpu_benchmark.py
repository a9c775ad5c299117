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
    assert study.folds == [0]
    fine_tuning = study.notebook("04_fine_tuning", arm="segresnet", fold=0)
    assert (fine_tuning.epochs, fine_tuning.iterations_per_epoch, fine_tuning.precision) == (2, 10, "bfloat16")
    assert fine_tuning.arms.segresnet is not None and fine_tuning.arms.segresnet.filters == 32


def test_a_part_replaces_its_own_section_of_the_results_only(gpu: Any) -> None:
    kept = gpu.with_section(
        "# Title\n\n## A whole study\n\nold\n\n## By hand\n\nkept\n", "steps", "## Training steps\n\n1\n"
    )
    expected = "# Title\n\n## Training steps\n\n{}\n\n## A whole study\n\nold\n\n## By hand\n\nkept\n"
    assert kept == expected.format(1), "in the order of the parts, what is none of them last"
    assert gpu.with_section(kept, "steps", "## Training steps\n\n2\n") == expected.format(2)


def test_a_part_that_fails_costs_the_others_nothing(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(folder: Path) -> list[str]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "patch", lambda: "Patch 1 x 1 x 1.")
    monkeypatch.setitem(gpu.PARTS, "steps", ("Training steps", "| a | b | c | d | e |", fails))
    monkeypatch.setitem(gpu.PARTS, "waiting", ("Waiting", "| a | b | c | d | e |", lambda folder: ["| measured |"]))
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--cpu", "--parts", "steps", "waiting", "--keep", str(tmp_path / "kept")]
    )
    with pytest.raises(SystemExit, match="failed: steps"):
        gpu.main()
    assert "| measured |" in (tmp_path / "kept" / "waiting.md").read_text()
    assert "out of memory" in capsys.readouterr().err


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
