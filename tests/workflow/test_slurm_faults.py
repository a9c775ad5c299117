"""Faults of a cluster on a real SLURM of one node: what is said, what is lost, and that the next command goes on."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from fake_checkout import FakeCheckout, steps, wait_for
from one_node_slurm import Cluster, reason_not_to

REASON = reason_not_to()
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

STEP = "01_data_audit"


class Study:
    """A study whose first step hangs when it is run for the first time, on SLURM, in the background."""

    def __init__(self, folder: Path, profile: Path, **settings: object) -> None:
        content = yaml.safe_load((profile / "config.yaml").read_text())
        content |= settings
        (profile / "config.yaml").write_text(yaml.safe_dump(content))
        self.checkout = FakeCheckout(folder / "checkout", arms=("default",))
        self.trap = self.checkout.trap(STEP, "hang once")
        self.words = ("study", "params/tiny.yaml", "--profile", str(profile), "--", "audit")
        self.front = subprocess.Popen(
            self.checkout.command(*self.words), cwd=self.checkout.root, env=self.checkout.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        wait_for(self.checkout.work / f"ran_{STEP}")
        end = time.monotonic() + 20
        while self.trap.exists():
            assert time.monotonic() < end, "the step does not hang"
            time.sleep(0.05)

    def end(self, seconds: float = 300) -> tuple[int, str]:
        """Exit status and text of the command in the background."""
        text, _ = self.front.communicate(timeout=seconds)
        return self.front.returncode, text

    def again(self) -> subprocess.CompletedProcess[str]:
        """The same command once more."""
        return self.checkout.brainmets(*self.words)

    def copies(self) -> list[Path]:
        """The executed copies that were kept of attempts that failed."""
        return list((self.checkout.work / "runs/failed").glob(f"{STEP}.*.ipynb"))


def test_a_job_that_is_cancelled_from_outside(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, profile, retries=0)
    (job,) = cluster.running()
    subprocess.run(["scancel", job], check=True)
    status, text = study.end()
    assert status == 1, text
    assert f"FAILED: {STEP} failed after" in text
    assert "ended by SIGTERM (a time limit, a cancelled job or Ctrl-C)" in text
    assert len(study.copies()) == 1
    assert f"run this to continue: {study.words}" in text

    ended = study.again()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert steps(ended.stdout) == [STEP]


def test_a_step_past_its_time_limit_is_run_again(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    resources = yaml.safe_load((profile / "config.yaml").read_text())["set-resources"]
    study = Study(tmp_path, profile, **{"set-resources": [*resources, "audit:runtime=1"]})
    status, text = study.end()
    assert status == 0, text
    assert f"FAILED: {STEP} failed after" in text
    assert "a time limit" in text
    assert "TIMEOUT" in text
    assert steps(text) == [STEP]
    assert len(study.copies()) == 1


def test_a_node_that_is_lost_and_comes_back(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, profile)
    (job,) = cluster.running()
    cluster.lose_node()
    time.sleep(5)
    cluster.bring_node_back()
    status, text = study.end()
    assert status == 0, text
    assert steps(text) == [STEP]
    print(text)
    print((study.checkout.work / "runs/snakemake.log").read_text())
    assert 0


def test_jobs_of_a_killed_engine_that_end_by_themselves(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, profile)
    (job,) = cluster.running()
    (snakemake,) = Path(f"/proc/{study.front.pid}/task/{study.front.pid}/children").read_text().split()
    os.kill(int(snakemake), signal.SIGKILL)
    study.front.kill()
    study.front.wait()
