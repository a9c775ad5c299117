"""The cluster path, on a real SLURM of one node."""

import json
from pathlib import Path

import nbformat
import pytest
from fake_checkout import FakeCheckout, steps
from one_node_slurm import Cluster, reason_not_to

REASON = reason_not_to()
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


def test_a_study_goes_through_slurm(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    checkout = FakeCheckout(tmp_path / "checkout", arms=("default",))
    # a training that fails the first time: SLURM runs it again, and the study goes on
    source = checkout.source("05_from_scratch")
    notebook = nbformat.read(source, as_version=4)
    program = (
        "first = not Path('tried').exists()\n_ = Path('tried').write_text('')\nassert not first, 'the first time'"
    )
    notebook.cells.insert(3, nbformat.v4.new_code_cell(program))
    nbformat.write(notebook, source)

    command = ("study", "params/tiny.yaml", "--profile", str(profile), "--", "statistics")
    ended = checkout.brainmets(*command)
    assert ended.returncode == 0, ended.stdout + (checkout.work / "runs/snakemake.log").read_text()
    assert len(steps(ended.stdout)) == 9
    assert "[ 9 of 9] 07_statistics finished" in ended.stdout
    assert "FAILED: 05_from_scratch_default_fold_0" in ended.stdout
    assert "AssertionError: the first time" in ended.stdout
    assert len(list((checkout.work / "runs/failed").glob("05_from_scratch_default_fold_0.*.ipynb"))) == 1

    results = [json.loads(path.read_text()) for path in checkout.work.glob("training/*/default/fold_0/training.json")]
    assert len(results) == 3
    assert all(result["slurm"] for result in results), "a training ran outside SLURM"
    jobs = cluster.jobs()
    assert all(job["Name"].startswith("bm_tiny_") for job in jobs)
    states = [job["JobState"] for job in jobs]
    assert states.count("COMPLETED") == 9
    assert states.count("FAILED") == 1

    again = checkout.brainmets(*command)
    assert again.returncode == 0
    assert "finished already; nothing to do" in again.stdout
    assert len(cluster.jobs()) == len(jobs)
