"""Run a whole study: check everything first, let Snakemake do the steps, and tell the reader what happens.

Snakemake's own output goes to ``runs/snakemake.log``; the terminal shows the study's own lines, read from the
steps' logs while they grow, wherever the steps run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import yaml

from brainmets.engine import plan
from brainmets.engine.checks import check
from brainmets.engine.devices import DEVICES_VARIABLE, cpu_cores, cuda_devices, in_words
from brainmets.engine.journal import Event, Follower
from brainmets.engine.steps import command, outdated, read_study, set_aside_other_arms, shown
from brainmets.params import ParameterError
from brainmets.params.study import Study
from brainmets.paths import StudyPaths, project_root
from brainmets.processes import BusyError, locked

TOTAL = re.compile(r"^total\s+(\d+)", re.MULTILINE)
TARGET = re.compile(r"^all\s+1\b", re.MULTILINE)  # the rule that only collects; no step of the study
POLL_SECONDS = 0.3


def run(params: Path, profile: str, dry_run: bool, further: list[str]) -> int:
    """Run what is not done yet of the study in ``params``; gives the exit status (0 done, 1 failed, 2 refused).

    ``profile`` is ``local``, ``slurm`` or a folder with a Snakemake profile; ``further`` goes to Snakemake. Raises
    ``ParameterError`` before any work where a parameter, a notebook or a cohort folder is not right, and
    ``BusyError`` where another process works on this study.
    """
    study = read_study(params)
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    check(study)
    setting = profile_folder(profile)
    options, machine = _slurm(files) if _executor(setting) == "slurm" else _local()
    if dry_run:
        print(f"study {files.study}: {study.origin}, {machine}", flush=True)
        with plan.folder_to_plan_in(files) as folder:
            call = _snakemake(study, files, setting, [*options, "--dry-run"], further, folder)
            return plan.tell(study, files, call, _environment())
    with locked(files.work / ".study.lock", f"study {files.study}") as lock:
        print(f"study {files.study}: {study.origin}, {machine}", flush=True)
        for arm in set_aside_other_arms(study, files):
            print(f"  {arm} is no arm of this study any more: its evaluation is now {shown(files.left_out(arm))}")
        call = _snakemake(study, files, setting, options, further, files.work)
        return _Telling(files, study.origin).watch(call, lock)


def profile_folder(profile: str) -> Path:
    """The folder of a Snakemake profile: one of the checkout's by name, or any by its path."""
    shipped = project_root() / "workflow" / "profiles"
    for folder in (shipped / profile, Path(profile).resolve()):
        if (folder / "config.yaml").is_file():
            return folder
    names = ", ".join(sorted(path.name for path in shipped.iterdir()))
    raise ParameterError(f"--profile {profile}: there is no such profile; there are {names}, or name a folder")


def _executor(profile: Path) -> str:
    """What the profile's ``config.yaml`` runs steps with; ``local`` where it does not say."""
    file = profile / "config.yaml"
    try:
        return str(yaml.safe_load(file.read_text(encoding="utf-8")).get("executor", "local"))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise ParameterError(f"--profile: {shown(file)} is no Snakemake profile: {error}") from None


def _local() -> tuple[list[str], str]:
    """Snakemake options for this machine, and the machine in words.

    A training holds one device: a GPU, or without one a core. On a CPU single-threaded trainings side by side get
    more done than one training on all cores.
    """
    cores, devices = cpu_cores(), cuda_devices()
    os.environ[DEVICES_VARIABLE] = ",".join(devices)
    slots = len(devices) or cores
    threads = max(1, cores // slots)
    options = [
        f"cores={cores}",
        f"threads={threads}",
        "--cores",
        str(max(cores, slots)),
        "--resources",
        f"device={slots}",
    ]
    return options, f"{cores} CPU cores, {in_words(devices)}, {slots} at a time"


def _slurm(files: StudyPaths) -> tuple[list[str], str]:
    """Snakemake options for the cluster whose login node this is.

    A killed engine leaves its jobs in the queue, and a new one would submit them again: jobs carry a prefix of the
    study's own, and the study refuses to start while such jobs are there.
    """
    if shutil.which("sbatch") is None:
        raise ParameterError("--profile slurm: there is no sbatch here; run on the cluster's login node, or use local")
    os.environ.pop(DEVICES_VARIABLE, None)  # the scheduler chooses
    prefix = f"bm_{files.study}_{hashlib.sha256(str(files.work).encode()).hexdigest()[:8]}"
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", prefix)[-50:]
    left = [row.split() for row in _queue() if row.split()[-1].startswith(prefix)]
    if left:
        raise BusyError(
            f"{len(left)} jobs of an earlier, killed run of study {files.study} are still in the queue: "
            + ", ".join(f"{job} ({state.lower()})" for job, state, _ in left)
            + f". Wait for them, or: scancel {' '.join(job for job, _, _ in left)}"
        )
    options = ["--slurm-jobname-prefix", prefix]
    if not _accounting():
        options += ["--slurm-status-command", "squeue"]
    return options, f"SLURM jobs {prefix}_*"


def _queue() -> list[str]:
    """The user's jobs, one line each: number, state, name."""
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
    return [row for row in asked.stdout.splitlines() if row.strip()]


def _accounting() -> bool:
    """Whether ``sacct`` answers; installed without a database it makes Snakemake wait for ever."""
    if shutil.which("sacct") is None:
        return False
    return subprocess.run(["sacct", "-n", "-X"], capture_output=True, check=False).returncode == 0


def _environment() -> dict[str, str]:
    """Snakemake works in the study's folder, which may lie outside the checkout."""
    return {**os.environ, "BRAINMETS_ROOT": str(project_root())}


def _snakemake(
    study: Study, files: StudyPaths, profile: Path, options: list[str], further: list[str], folder: Path
) -> list[str]:
    """The call of Snakemake; options that take many values come early, so that none takes a target of ``further``.

    ``folder`` is where Snakemake keeps its records.
    """
    remake = outdated(study, files)
    return [
        *(sys.executable, "-m", "snakemake"),
        *(["--forcerun", *map(str, remake)] if remake else []),
        *("--config", f"params={study.origin}", *options),
        *("--snakefile", str(project_root() / "workflow" / "Snakefile"), "--workflow-profile", str(profile)),
        *("--directory", str(folder), "--nolock", *further),
    ]


class _Telling:
    """What the reader is told while Snakemake works."""

    def __init__(self, files: StudyPaths, origin: str) -> None:
        self.files = files
        self.origin = origin
        self.log = files.runs / "snakemake.log"
        self.began = time.monotonic()
        self.total = 0
        self.done = 0
        self.running: dict[str, float] = {}
        self.failed: list[str] = []

    def watch(self, call: list[str], lock: int) -> int:
        """Start Snakemake, tell what its steps do, and give the study's exit status.

        Snakemake keeps the study's lock too, so that a second start is refused while it works on after a killed
        ``brainmets``.
        """
        self.files.runs.mkdir(parents=True, exist_ok=True)
        follower = Follower(self.files.runs)
        engine: subprocess.Popen[bytes] | None = None
        asked = 0

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            asked += 1
            self._say("stopping: ending the running steps ..." if asked == 1 else "stopping at once")
            if engine is not None:
                os.killpg(engine.pid, signal.SIGINT if asked == 1 else signal.SIGKILL)

        # before the start: where this process was told to ignore Ctrl-C (nohup, a shell's &), Snakemake would too
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        with self.log.open("w", encoding="utf-8") as log:
            engine = subprocess.Popen(
                call, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=_environment(),
                pass_fds=[lock], process_group=0,
            )  # fmt: skip
        try:
            ended = False
            while not ended:
                ended = engine.poll() is not None
                for event in follower.events():
                    self._tell(event)
                self._status()
                if not ended:
                    time.sleep(POLL_SECONDS)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._close(engine.returncode)

    def _tell(self, event: Event) -> None:
        if event.step == self.log.stem:
            return
        match event.kind:
            case "started":
                self.running[event.step] = time.monotonic()
            case "finished":
                self.running.pop(event.step, None)
                self.done += 1
                text = f"{event.text}; {_clock(time.monotonic() - self.began)} since the start"
                self._say(f"[{self.done:>2} of {self._steps()}] {event.step} finished {text}")
            case "failed":
                self.running.pop(event.step, None)
                self.failed.append(event.step)
                self._say(f"FAILED: {event.step} {event.text}")
            case "detail":
                self._say(f"  {event.text}")
            case _:
                self._say(f"  {event.step}: {event.text}")

    def _steps(self) -> int:
        """How many steps this run has to do, by Snakemake's own count."""
        if not self.total:
            text = self.log.read_text(encoding="utf-8", errors="replace")
            if found := TOTAL.search(text):
                self.total = int(found[1]) - bool(TARGET.search(text))
        return self.total

    def _close(self, status: int) -> int:
        self._clear()
        report = self.files.index
        where = f" Report: {shown(report)}" if report.is_file() else ""
        if status == 0 and not self.done:
            print(f"study {self.files.study} is finished already; nothing to do.{where}")
        elif status == 0:
            print(f"study {self.files.study} is finished, in {_clock(time.monotonic() - self.began)}.{where}")
        else:
            self._explain()
        return 0 if status == 0 else 1

    def _explain(self) -> None:
        for step in self.running:
            print(f"FAILED: {step} ended without a word: killed, out of memory, or past a time limit?")
            print(f"    log        {shown(self.files.runs / f'{step}.log')}")
        lost = [*dict.fromkeys(self.failed), *self.running]
        if not lost:
            print(f"Snakemake could not do its work; the end of {shown(self.log)}:", file=sys.stderr)
            print("\n".join(self.log.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)
            return
        steps = f"{self.done} of {self._steps()} steps done, {len(lost)} failed: {', '.join(lost)}."
        print(f"study {self.files.study}: {steps}")
        print(f"Mend the cause and run the same again to continue: {command('study', self.origin)}", flush=True)

    def _say(self, text: str) -> None:
        self._clear()
        print(text, flush=True)

    def _status(self) -> None:
        """On a terminal, one line that is written over: what is running, and for how long."""
        if sys.stdout.isatty() and self.running:
            now = time.monotonic()
            parts = [f"{step} {_clock(now - since)}" for step, since in self.running.items()]
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{('... ' + ', '.join(parts))[:width]}", end="", flush=True)

    def _clear(self) -> None:
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
