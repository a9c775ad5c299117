"""What of a study is at work, and how it is ended: its engine (Snakemake), its steps, its jobs on a cluster.

Nothing is remembered: who holds the study's lock and its steps' locks is asked of the kernel, so that no number of a
process that has ended is ever taken for one that works. The engine and the steps outlive the process that started
them, by design: a terminal that goes away must not cost a training.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from brainmets.engine import slurm
from brainmets.engine.steps import command
from brainmets.params import ParameterError
from brainmets.paths import StudyPaths
from brainmets.processes import BusyError, Process, below, holder, holders, is_held

PATIENCE_SECONDS = 60.0
"""How long a step may take to keep its notebook and end its kernel before it is killed."""
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class AtWork:
    """The processes of this machine that work on a study: those of ``brainmets study``, Snakemake, and each step's."""

    fronts: list[Process]
    engines: list[Process]
    steps: dict[str, list[Process]]

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return [*self.fronts, *self.engines, *(one for held in self.steps.values() for one in held)]


def at_work(files: StudyPaths) -> AtWork:
    """Who works on the study now.

    Holders of its locks that are no BrainMets process are left out, and links among the locks, which could lead to
    another study's.
    """
    locks = {path.name[1:-5]: path for path in sorted(files.runs.glob(".*.lock")) if not path.is_symlink()}
    found = holders([files.lock, *locks.values()])
    of_study = [one for one in found[files.lock] if _is_ours(one)]
    steps = {step: [one for one in found[path] if _is_ours(one)] for step, path in locks.items()}
    return AtWork(
        fronts=[one for one in of_study if not _is_engine(one)],
        engines=[one for one in of_study if _is_engine(one)],
        steps={step: held for step, held in steps.items() if held},
    )


def named(steps: dict[str, list[Process]]) -> str:
    """``"01_data_audit (process 7, since 2026-01-31 09:30:00), ..."``."""
    return ", ".join(f"{step} ({held[0]})" for step, held in steps.items())


def stop(files: StudyPaths, origin: str, patience: float = PATIENCE_SECONDS) -> int:
    """End what is at work on the study, and say what; gives the exit status, 0 also where nothing is.

    The engine first, which ends its steps; then steps whose engine has gone; then jobs of this study that a cluster
    still has. Each is asked as by Ctrl-C, so that a step keeps its notebook; what is still there after ``patience``
    seconds is killed, with everything that it has started. Raises ``BusyError`` where another machine or another
    user's process works on the study.
    """
    found = at_work(files)
    jobs = _jobs(files)
    if not found.processes and not jobs:
        if is_held(files.lock):
            raise BusyError(
                f"study {files.study} is at work, but by no process that can be ended from here "
                f"({holder(files.lock)}): run this on that machine, as that user"
            )
        print(f"study {files.study}: nothing of it is running.")
        return 0
    for engine in found.engines:
        _say(f"ending the engine ({engine}) ...")
    if found.steps:
        _say(f"ending {len(found.steps)} step{'s' * (len(found.steps) != 1)}: {named(found.steps)} ...")
    everything = [*found.processes, *below([*found.engines, *_of(found.steps)])]
    for engine in found.engines:
        _interrupt_group(engine)
    _wait(found.engines, patience)
    for process in [*_of(at_work(files).steps), *(found.fronts if not found.engines else [])]:
        process.send(signal.SIGINT)
    _wait([*found.engines, *_of(found.steps)], patience)
    killed = [process for process in everything if process not in found.fronts and process.send(signal.SIGKILL)]
    if killed:
        _say(f"killed what did not end: {', '.join(map(str, killed))}")
    _wait(everything, patience)
    queued = [f"job {number} of the cluster" for number in _cancel(files)]
    if left := [*map(str, at_work(files).processes), *queued]:
        print(f"study {files.study}: still at work: {', '.join(left)}", file=sys.stderr)
        return 1
    on_cluster = " with its --profile" if jobs else ""
    print(f"study {files.study} is stopped. To go on from there: {command('study', origin)}{on_cluster}")
    return 0


def follow(processes: Callable[[], Iterable[Process]], show: Callable[[], None], seconds: float) -> None:
    """Call ``show`` every ``seconds`` until none of ``processes`` runs, and once after."""
    left = list(processes())
    while left:
        show()
        time.sleep(seconds)
        left = [process for process in left if process.is_running()] or list(processes())
    show()


def _jobs(files: StudyPaths) -> list[slurm.QueuedJob]:
    if shutil.which("squeue") is None:
        return []
    try:
        return slurm.queued(files)
    except ParameterError as error:
        if (files.work / ".snakemake" / "slurm_logs").is_dir():  # it has run there
            print(f"jobs of this study cannot be looked for: {str(error).partition(': ')[2]}", file=sys.stderr)
        return []


def _cancel(files: StudyPaths) -> list[str]:
    """Cancel this study's jobs, and wait until the queue has none of them; gives the numbers of those still there."""
    jobs = _jobs(files)
    if not jobs:
        return []
    numbers = [job.number for job in jobs]
    _say(f"cancelling {len(jobs)} job{'s' * (len(jobs) != 1)} of the cluster: {', '.join(numbers)} ...")
    subprocess.run(["scancel", *numbers], check=False)  # it fails of a job that has just ended: the queue tells
    end = time.monotonic() + PATIENCE_SECONDS
    while (left := _jobs(files)) and time.monotonic() < end:
        time.sleep(1)
    return [job.number for job in left]


def _interrupt_group(engine: Process) -> None:
    """Ctrl-C for Snakemake and the steps that it has started: it leads a group of its own."""
    with suppress(ProcessLookupError):  # it has just ended by itself
        if engine.is_running() and os.getpgid(engine.pid) == engine.pid:
            os.killpg(engine.pid, signal.SIGINT)
        else:
            engine.send(signal.SIGINT)


def _wait(processes: Iterable[Process], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(process.is_running() for process in processes):
        time.sleep(POLL_SECONDS)


def _of(steps: dict[str, list[Process]]) -> list[Process]:
    return [process for held in steps.values() for process in held]


def _is_ours(process: Process) -> bool:
    """A lock may be held by anything: only a process that was started as one of BrainMets's is ever ended."""
    words = process.command[:6]
    return _is_engine(process) or "brainmets.cli" in words or any(Path(word).name == "brainmets" for word in words)


def _is_engine(process: Process) -> bool:
    return "snakemake" in process.command[:6]


def _say(text: str) -> None:
    print(f"  {text}", flush=True)
