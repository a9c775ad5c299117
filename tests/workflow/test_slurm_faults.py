"""Faults of a cluster on a real SLURM of one node: what is said, what is lost, and that the next command goes on."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_checkout import FakeCheckout, steps, wait_for
from one_node_slurm import Cluster, reason_not_to

REASON = reason_not_to()
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

STEP = "01_data_audit"


@pytest.fixture(autouse=True)
def empty_queue(cluster: Cluster) -> Iterator[None]:
    """No test leaves a job to the next."""
    yield
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
    cluster.until_empty()


class Study:
    """A study on SLURM, in the background, whose first step works until the trap is gone."""

    def __init__(self, folder: Path, profile: Path, **settings: object) -> None:
        content = yaml.safe_load((profile / "config.yaml").read_text())
        (profile / "config.yaml").write_text(yaml.safe_dump(content | settings))
        self.checkout = FakeCheckout(folder / "checkout", arms=("default",))
        self.runs = self.checkout.work / "runs"
        self.trap = self.checkout.trap(STEP, "wait")
        self.words = ("study", "params/tiny.yaml", "--profile", str(profile), "--", "audit")
        self.front = self.start()

    def start(self) -> subprocess.Popen[str]:
        """The command in the background; what it says goes into one pipe."""
        return subprocess.Popen(
            self.checkout.command(*self.words), cwd=self.checkout.root, env=self.checkout.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def until_it_works(self) -> None:
        """Until the first step is at work."""
        end = time.monotonic() + 120
        while not (self.checkout.work / f"ran_{STEP}").exists():
            assert self.front.poll() is None, self.front.stdout.read()
            assert time.monotonic() < end, (self.runs / "snakemake.log").read_text()
            time.sleep(0.05)

    def end(self, seconds: float = 240) -> tuple[int, str]:
        """Exit status and text of the command in the background."""
        try:
            text, _ = self.front.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.front.send_signal(signal.SIGINT)  # it cancels its jobs
            text, _ = self.front.communicate(timeout=60)
            pytest.fail(f"the study did not end:\n{text}\n{(self.runs / 'snakemake.log').read_text()}")
        return self.front.returncode, text

    def kill_snakemake(self) -> None:
        """SIGKILL to Snakemake; the process that has started it goes on."""
        (snakemake,) = Path(f"/proc/{self.front.pid}/task/{self.front.pid}/children").read_text().split()
        os.kill(int(snakemake), signal.SIGKILL)

    def again(self) -> subprocess.CompletedProcess[str]:
        """The same command once more."""
        return self.checkout.brainmets(*self.words)

    def kept(self) -> list[Path]:
        """The executed copies of attempts that failed."""
        return list((self.runs / "failed").glob(f"{STEP}.*.ipynb"))


def test_a_job_that_is_cancelled_from_outside(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, profile, retries=0)
    study.until_it_works()
    (job,) = cluster.running()
    subprocess.run(["scancel", job], check=True)
    status, text = study.end()
    assert status == 1, text
    assert f"FAILED: {STEP} after" in text, text
    assert "ended by SIGTERM (a time limit, a cancelled job or Ctrl-C)" in text
    assert len(study.kept()) == 1
    assert re.search(rf"run this to continue: \S*brainmets study params/tiny.yaml --profile {profile}$", text, re.M), (
        text
    )

    study.trap.unlink()
    ended = study.again()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert steps(ended.stdout) == [STEP]


def test_a_step_past_its_time_limit_is_run_again(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    resources = yaml.safe_load((profile / "config.yaml").read_text())["set-resources"]
    study = Study(tmp_path, profile, **{"set-resources": [*resources, "audit:runtime=1"]})
    study.until_it_works()
    wait_for(study.runs / "failed")
    study.trap.unlink()
    status, text = study.end()
    assert status == 0, text
    assert f"FAILED: {STEP} after" in text, text
    assert "ended by SIGTERM (a time limit, a cancelled job or Ctrl-C)" in text
    assert steps(text) == [STEP]
    assert len(study.kept()) == 1
    assert cluster.states(study.checkout.work) == ["TIMEOUT", "COMPLETED"]


def test_a_step_whose_node_is_lost_runs_again_on_the_next(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, profile, retries=0)
    study.until_it_works()
    cluster.lose_node()
    study.trap.unlink()
    cluster.bring_node_back()
    status, text = study.end()
    assert status == 0, text
    assert steps(text) == [STEP]
    assert study.checkout.ran() == {STEP: 2}
    assert f"{STEP}: started again, after its job or its node was lost" in text


def test_a_job_that_is_held_is_told(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    cluster.lose_node()
    try:
        study = Study(tmp_path, profile)
        job = cluster.waiting()
        subprocess.run(["scontrol", "hold", job], check=True)
        line = next(line for line in study.front.stdout if "scontrol release" in line)
        assert line.startswith("1 job waits in the queue, and not for a free place: JobHeld"), line
        assert line.rstrip().endswith(f"Held; to let go on: scontrol release {job}")
    finally:
        cluster.bring_node_back()
    subprocess.run(["scontrol", "release", job], check=True)
    study.trap.unlink()
    status, text = study.end()
    assert status == 0, text


def test_a_partition_that_is_none_is_named(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, profile, retries=0, **{"set-resources": ["audit:slurm_partition=nowhere"]})
    status, text = study.end()
    assert status == 1, text
    assert "nowhere" in text
    assert "invalid partition" in text
    assert "killed, out of memory" not in text


def test_after_a_killed_engine_its_job_is_waited_for(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, profile)
    study.until_it_works()
    (job,) = cluster.running()
    study.kill_snakemake()
    study.front.kill()
    study.front.wait()
    study.front = study.start()
    said = []
    for line in study.front.stdout:
        said.append(line)
        if "Waiting for them" in line:
            break
    assert f"1 job still in the queue: {job} (running), of an earlier run.\n" in said
    study.trap.unlink()
    status, text = study.end()
    assert status == 0, text
    assert "finished already; nothing to do" in text, "what the job has done is not done again"
    assert study.checkout.ran() == {STEP: 1}


def test_after_a_killed_snakemake_its_job_can_be_ended(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, profile)
    study.until_it_works()
    (job,) = cluster.running()
    study.kill_snakemake()
    status, text = study.end()
    assert status == 1, text
    assert f"1 job still in the queue: {job} (running), without an engine.\n" in text
    assert f"brainmets study params/tiny.yaml --profile {profile}\n" in text
    assert "brainmets stop params/tiny.yaml\n" in text

    stopped = study.checkout.brainmets("stop", "params/tiny.yaml")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert f"cancelling 1 job of the cluster: {job}" in stopped.stdout
    cluster.until_empty()
    study.trap.unlink()
    ended = study.again()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert steps(ended.stdout) == [STEP]
