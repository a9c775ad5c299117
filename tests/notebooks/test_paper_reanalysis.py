"""The notebook on the paper's printed numbers, executed on both releases, and `make paper` without them."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import papermill
import pytest

from brainmets.params import PaperReanalysis, ParameterError

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "paper_reanalysis.ipynb"


@pytest.mark.slow
@pytest.mark.real
def test_on_both_releases(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    values = {"scores_dir": str(real_data / "reference"), "out_dir": str(out)}
    papermill.execute_notebook(NOTEBOOK, tmp_path / "executed.ipynb", values, progress_bar=False)
    results = json.loads((out / "paper_reanalysis.json").read_text())
    assert results["releases"] == ["scores", "2026-09-29"]
    assert len(results["provenance"]["inputs"]) == 12
    assert results["statuses"]["2026-09-29"]["supported"] == 14
    assert (out / "summary.txt").read_text().strip().split("\n\n") == results["summary"]
    assert set(pd.read_csv(out / "printed_vs_recomputed.csv")["agrees"]) == {True, False}
    assert len(pd.read_csv(out / "support.csv")) == 2 * 20
    tests = pd.read_csv(out / "authors_tests.csv")
    assert list(tests.columns) == ["comparison", "group", "metric", "mean_a", "mean_b", "p_value", "p_holm"]
    assert len(tests) == 54
    assert results["tested_release"] == "2026-09-29"


def test_parameters_are_complete_and_known() -> None:
    assert PaperReanalysis(scores_dir="scores", out_dir="out").scores_dir == "scores"
    with pytest.raises(ParameterError, match="out_dir: missing"):
        PaperReanalysis(scores_dir="scores")
    with pytest.raises(ParameterError, match="alpha: unknown parameter"):
        PaperReanalysis(scores_dir="scores", out_dir="out", alpha=0.05)


@pytest.mark.parametrize("given", [[], ["SCORES=no/such folder"]])
def test_make_without_the_scores_says_where_they_are_public(given: list[str]) -> None:
    command = ["make", "--no-print-directory", "--old-file=.venv/.installed", "paper", *given]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "make paper SCORES=folder: " in ended.stderr
    assert "https://github.com/luumsk/BrainMetaSeg" in ended.stderr
