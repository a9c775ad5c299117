"""A study's jobs on a SLURM cluster: how they are named, and which are in the queue."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from typing import NamedTuple

from brainmets.engine.devices import DEVICES_VARIABLE
from brainmets.params import ParameterError
from brainmets.paths import StudyPaths


class QueuedJob(NamedTuple):
    """A job in the queue: its number, its state in SLURM's word and its name."""

    number: str
    state: str
    name: str


def job_prefix(files: StudyPaths) -> str:
    """How the names of this study's jobs begin, and no other study's."""
    prefix = f"bm_{files.study}_{hashlib.sha256(str(files.work).encode()).hexdigest()[:8]}"
    return re.sub(r"[^A-Za-z0-9_-]", "-", prefix)[-50:]


def queued(files: StudyPaths) -> list[QueuedJob]:
    """The user's jobs in the queue that belong to this study; ``ParameterError`` where SLURM does not answer."""
    try:
        call = ["squeue", "--me", "--noheader", "--format=%i %T %j"]
        asked = subprocess.run(call, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise ParameterError("--profile slurm: there is no squeue here; run on the cluster's login node") from None
    except subprocess.CalledProcessError as error:
        why = " ".join(error.stderr.split()) or f"exit status {error.returncode}"
        raise ParameterError(
            f"--profile slurm: SLURM does not answer (squeue: {why}); run when its controller does, or use "
            "--profile local"
        ) from None
    rows = (row.split(maxsplit=2) for row in asked.stdout.splitlines() if row.strip())
    jobs = (QueuedJob(*row) for row in rows if len(row) == 3)
    return [job for job in jobs if job.name.startswith(job_prefix(files))]


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
        options += ["--slurm-status-command", "squeue"]
    return options, f"SLURM jobs {job_prefix(files)}_*"
