"""What the engine says of a cluster's queue, on programs that only answer."""

import json
import os
from pathlib import Path

import pytest
import yaml
from fake_checkout import REPOSITORY

from brainmets.engine import slurm, study
from brainmets.engine.progress import Progress
from brainmets.params import ParameterError
from brainmets.paths import StudyPaths


class FakeSlurm:
    """Programs in a folder of the PATH that print what they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "sacct", "scontrol"):
            self.says(name, "")

    def says(self, name: str, text: str, status: int = 0) -> None:
        (self.folder / f"{name}.txt").write_text(text)
        (self.folder / name).write_text(f"#!/bin/sh\ncat {self.folder / name}.txt\nexit {status}\n")
        (self.folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.0)
    return FakeSlurm(tmp_path)


FILES = StudyPaths("work", "own")


def test_what_keeps_jobs_waiting_is_told_once(programs: FakeSlurm) -> None:
    name = f"{slurm.job_prefix(FILES)}_1"
    programs.says("squeue", f"1 PENDING {name} Priority\n2 RUNNING {name} None\n3 PENDING bm_other held\n")
    watch = slurm.QueueWatch(FILES)
    assert [job.number for job in watch.jobs] == ["1", "2"]
    assert watch.news() == [], "places are taken: nothing to say"
    programs.says(
        "squeue",
        f"1 PENDING {name} PartitionTimeLimit\n2 PENDING {name} launch failed requeued held\n"
        f"4 PENDING {name} PartitionTimeLimit\n",
    )
    assert watch.news() == [
        "2 jobs wait in the queue, and not for a free place: PartitionTimeLimit (1, 4).",
        "1 job waits in the queue, and not for a free place: launch failed requeued held (2). "
        "Held; to let go on: scontrol release 2",
    ]
    assert watch.news() == []


def test_a_controller_that_is_away_for_a_while_ends_no_study(programs: FakeSlurm) -> None:
    watch = slurm.QueueWatch(FILES)
    programs.says("squeue", "", status=1)
    assert watch.news() == ["SLURM does not answer (squeue: exit status 1); asking again"]
    assert watch.news() == []
    programs.says("squeue", "")
    assert watch.news() == ["SLURM answers again"]
    programs.says("squeue", "", status=1)
    with pytest.raises(ParameterError, match="SLURM does not answer"):
        slurm.QueueWatch(FILES)


def test_the_queue_is_not_asked_all_the_time(programs: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 30.0)
    watch = slurm.QueueWatch(FILES)
    assert watch.news() == []
    programs.says("squeue", f"1 PENDING {slurm.job_prefix(FILES)}_1 JobHeldUser\n")
    assert watch.news() == []


@pytest.mark.parametrize(("age", "refused"), [(60, True), (300, False)])
def test_a_cluster_that_forgets_jobs_is_refused(programs: FakeSlurm, age: int, refused: bool) -> None:
    programs.says("scontrol", f"MessageTimeout          = 10 sec\nMinJobAge               = {age} sec\n")
    assert "--slurm-status-command" not in slurm.slurm_options(FILES)[0], "sacct answers: its database forgets nothing"
    programs.says("sacct", "", status=1)
    if refused:
        with pytest.raises(ParameterError, match=r"forgets a job 60 s after its end \(MinJobAge\).*200 or more"):
            slurm.slurm_options(FILES)
    else:
        assert slurm.slurm_options(FILES)[0][-2:] == ["--slurm-status-command", "squeue"]


def test_a_step_that_the_cluster_starts_again_and_a_job_that_it_refuses_are_told(
    programs: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    FILES.runs.mkdir(parents=True)
    progress = Progress(FILES, "params/own.yaml", "slurm")
    log, events = FILES.runs / "03_pretraining_default_fold_0.log", FILES.runs / "snakemake.jsonl"
    log.write_text("== started 2026-01-31T09:30:00+00:00: brainmets ...\n")
    progress.update()
    assert "started again" not in capsys.readouterr().out
    log.write_text(2 * log.read_text())
    progress.update()
    assert (
        "03_pretraining_default_fold_0: started again, after its job or its node was lost" in capsys.readouterr().out
    )

    why = "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition\nsbatch: error: Batch'.\n ..."
    job = {"event": "job_info", "jobid": 1, "rule_name": "audit", "wildcards": {}}
    error = {"event": "job_error", "jobid": 1, "rule_msg": why}
    events.write_text(f"{json.dumps(job)}\n{json.dumps(error)}\n")
    progress.update()
    said = capsys.readouterr().out
    assert "FAILED: 01_data_audit was refused by SLURM: fit memory, time, partition and account in the profile" in said
    assert "error      sbatch: error: invalid partition sbatch: error: Batch\n" in said
    assert "out of memory" not in said
    assert progress.close(1, {}) == 1
    assert "brainmets study params/own.yaml --profile slurm\n" in capsys.readouterr().out


def test_the_shipped_profile_lets_slurm_repeat_a_lost_job() -> None:
    folder, executor = study.read_profile(str(REPOSITORY / "workflow" / "profiles" / "slurm"))
    content = yaml.safe_load((folder / "config.yaml").read_text())
    assert executor == "slurm"
    assert content["slurm-requeue"] is True, "else Snakemake submits a step again that SLURM has put back itself"
    timed = {text.partition(":")[0] for text in content["set-resources"] if ":runtime=" in text}
    assert timed >= {"audit", "alignment", "pretraining", "fine_tuning", "from_scratch", "evaluation", "case_review"}
