"""A study's jobs on a SLURM cluster: how they are named, and which are in the queue."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections import defaultdict
from typing import NamedTuple

from brainmets.engine.devices import DEVICES_VARIABLE
from brainmets.params import ParameterError
from brainmets.paths import StudyPaths

ORDINARY = ("", "None", "Priority", "Resources", "BeginTime", "Cleaning", "Prolog")
"""Reasons for which a job waits that pass by themselves and say nothing new."""
QUEUE_SECONDS = 30.0
"""How often the queue is looked at, at most: it is the cluster's, and everyone's."""
MIN_JOB_AGE = 200
"""Seconds for which SLURM must remember a job that has ended: Snakemake asks every 3 minutes at the longest."""


class QueuedJob(NamedTuple):
    """A job in the queue: its number, its state in SLURM's word, its name, and why it waits, in SLURM's words."""

    number: str
    state: str
    name: str
    reason: str = ""


def job_prefix(files: StudyPaths) -> str:
    """How the names of this study's jobs begin, and no other study's."""
    prefix = f"bm_{files.study}_{hashlib.sha256(str(files.work).encode()).hexdigest()[:8]}"
    return re.sub(r"[^A-Za-z0-9_-]", "-", prefix)[-50:]


def queued(files: StudyPaths) -> list[QueuedJob]:
    """The user's jobs in the queue that belong to this study; ``ParameterError`` where SLURM does not answer."""
    try:
        call = ["squeue", "--me", "--noheader", "--format=%i %T %j %r"]
        asked = subprocess.run(call, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise ParameterError("--profile slurm: there is no squeue here; run on the cluster's login node") from None
    except subprocess.CalledProcessError as error:
        why = " ".join(error.stderr.split()) or f"exit status {error.returncode}"
        raise ParameterError(
            f"--profile slurm: SLURM does not answer (squeue: {why}); run when its controller does, or use "
            "--profile local"
        ) from None
    rows = (row.split(maxsplit=3) for row in asked.stdout.splitlines() if row.strip())
    jobs = (QueuedJob(*row) for row in rows if len(row) >= 3)
    return [job for job in jobs if job.name.startswith(job_prefix(files))]


class QueueWatch:
    """Tells what keeps a study's jobs waiting, each reason once: a job that is held would wait for ever unseen.

    ``jobs`` are those that were in the queue when it was looked at last. Raises ``ParameterError`` where SLURM does
    not answer at the start.
    """

    def __init__(self, files: StudyPaths) -> None:
        self.files = files
        self.jobs = queued(files)
        self._looked = float("-inf")
        self._said: set[tuple[str, str]] = set()
        self._answers = True

    def news(self) -> list[str]:
        """Sentences on what is new since the last call; the queue is looked at every ``QUEUE_SECONDS`` at most.

        A controller that does not answer for a while is told, and asked again.
        """
        if time.monotonic() - self._looked < QUEUE_SECONDS:
            return []
        try:
            self.jobs = queued(self.files)
        except ParameterError as error:
            was, self._answers = self._answers, False
            return [f"{str(error).partition(': ')[2].partition('; ')[0]}; asking again"] if was else []
        finally:
            self._looked = time.monotonic()
        back = [] if self._answers else ["SLURM answers again"]
        self._answers = True
        return back + self._waiting()

    def _waiting(self) -> list[str]:
        new = defaultdict(list)
        for job in self.jobs:
            if job.state == "PENDING" and job.reason not in ORDINARY and (job.number, job.reason) not in self._said:
                self._said.add((job.number, job.reason))
                new[job.reason].append(job.number)
        lines = []
        for reason, numbers in new.items():
            text = f"{_jobs(len(numbers))} in the queue, and not for a free place: {reason} ({', '.join(numbers)})."
            held = f" Held; to let go on: scontrol release {' '.join(numbers)}" if "held" in reason.lower() else ""
            lines.append(text + held)
        return lines


def _jobs(count: int) -> str:
    return f"{count} jobs wait" if count > 1 else "1 job waits"


def slurm_options(files: StudyPaths) -> tuple[list[str], str]:
    """Snakemake options for the cluster whose login node this is, and the cluster in words.

    Jobs carry a prefix of the study's own, so that those of a killed engine are found again.
    """
    if shutil.which("sbatch") is None:
        raise ParameterError("--profile slurm: there is no sbatch here; run on the cluster's login node, or use local")
    os.environ.pop(DEVICES_VARIABLE, None)  # the scheduler chooses
    options = ["--slurm-jobname-prefix", job_prefix(files)]
    # without sacct, or with one that has no database to ask, Snakemake would wait for ever
    if not shutil.which("sacct") or subprocess.run(["sacct", "-n", "-X"], capture_output=True, check=False).returncode:
        _require_memory_of_jobs()
        options += ["--slurm-status-command", "squeue"]
    return options, f"SLURM jobs {job_prefix(files)}_*"


def _require_memory_of_jobs() -> None:
    """Refuse a cluster that forgets a job before Snakemake asks how it ended: the study would wait for it for ever."""
    asked = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", asked.stdout, re.MULTILINE)
    if found and int(found[1]) < MIN_JOB_AGE:
        raise ParameterError(
            f"--profile slurm: this cluster has no accounting (sacct) and forgets a job {found[1]} s after its end "
            f"(MinJobAge), before Snakemake has asked how it ended; its administrator must set MinJobAge to "
            f"{MIN_JOB_AGE} or more, or set up accounting"
        )
