"""Run a whole study: check everything first, let Snakemake do the steps, and show what happens.

Snakemake is a process of its own. What it prints goes to ``runs/snakemake.log``; its events come as JSON lines from
the logger plugin in ``src/snakemake_logger_plugin_brainmets`` to ``runs/snakemake.jsonl``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import yaml

from brainmets.engine.devices import DEVICES_VARIABLE, cpu_cores, cuda_devices, in_words, memory_mb
from brainmets.engine.progress import Progress, step_of_job
from brainmets.engine.steps import jobs, outdated, read_study, set_aside_other_arms, shown, step_name
from brainmets.params import Audit, Cohort, ParameterError
from brainmets.params.study import Study
from brainmets.paths import COHORTS, NOTEBOOKS, StudyPaths, project_root, resolve
from brainmets.processes import BusyError, locked

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
    folder, executor = read_profile(profile)
    options, machine = slurm_options(files) if executor == "slurm" else local_options()
    options += ["--workflow-profile", str(folder)]
    heading = f"study {files.study}: {study.origin}, {machine}"
    if dry_run:
        print(heading, flush=True)
        return _plan(study, files, [f"raw={json.dumps(looked_at(study, files))}", *options], further)
    with locked(files.work / ".study.lock", f"study {files.study}") as lock:
        print(heading, flush=True)
        options = [f"raw={json.dumps(sorted_raw(study, files))}", *options]
        for arm in set_aside_other_arms(study, files):
            print(f"  {arm} is no arm of this study any more: its scores are now in {shown(files.work / 'left_out')}")
        return _work(study, files, options, further, lock)


# --- checks before any work --------------------------------------------------------------------------------------


def check(study: Study) -> None:
    """Raise ``ParameterError`` for a notebook that does not fit its parameters and a cohort that cannot be split.

    Of the cohorts only names are read: that takes milliseconds, where notebook 01 opens every image. A cohort that
    notebook 01 makes itself is not looked for.
    """
    from brainmets.engine.notebook import check_declared  # papermill takes half a second

    for name in NOTEBOOKS:
        job = (study.jobs(name) or [{"cohort": "", "case": ""}])[0]
        check_declared(project_root() / "notebooks" / f"{name}.ipynb", set(study.values(name, **job)))
    audit = study.notebook("01_data_audit")
    assert isinstance(audit, Audit)
    for cohort in COHORTS:
        declaration = getattr(audit, cohort)
        if not declaration.phantoms and not declaration.raw:
            _check_cohort(study.origin, cohort, declaration, audit)


def _check_cohort(origin: str, cohort: str, declaration: Cohort, audit: Audit) -> None:
    from brainmets.cohorts.cohort import CohortError  # scikit-learn takes a second
    from brainmets.cohorts.pseudonyms import known_cases

    folder = resolve(declaration.folder)
    where = f"{origin}: {cohort}.folder: {declaration.folder!r}"
    if not folder.is_dir():
        raise ParameterError(f"{where} is no folder; put the path of the {cohort} cohort there")
    if not any(folder.iterdir()):
        raise ParameterError(f"{where} is empty; it must hold the {cohort} cohort's cases")
    try:
        files = StudyPaths(audit.work_dir, audit.study)
        patients = {case.case: case.patient for case in known_cases(cohort, declaration, files)}
    except CohortError as error:
        raise ParameterError(f"{origin}: {cohort}: {error}") from None
    _check_split(origin, cohort, declaration, audit, patients)


def _check_raw_cohort(origin: str, cohort: str, declaration: Cohort, audit: Audit, raw_cases: Iterable[str]) -> None:
    """That a cohort of raw scans can be split, together with what lies in its folder already."""
    from brainmets.cohorts.cohort import CohortError, patient_of
    from brainmets.cohorts.pseudonyms import known_cases

    patients = {case: patient_of(case, declaration) for case in raw_cases}
    with suppress(CohortError):  # nothing is prepared yet
        files = StudyPaths(audit.work_dir, audit.study)
        patients |= {case.case: case.patient for case in known_cases(cohort, declaration, files)}
    _check_split(origin, cohort, declaration, audit, patients)


def _check_split(origin: str, cohort: str, declaration: Cohort, audit: Audit, patients: dict[str, str]) -> None:
    from brainmets.cohorts.splits import SplitError, split_cohort

    try:
        split_cohort(patients, declaration.held_out, audit.n_folds, audit.seed, cohort)
    except SplitError as error:
        raise ParameterError(f"{origin}: {error}") from None


# --- raw scans ---------------------------------------------------------------------------------------------------


def sorted_raw(study: Study, files: StudyPaths) -> dict[str, dict[str, str]]:
    """Per cohort of raw scans the cases to prepare, each with a hash of its files; what is needed for it is written.

    Raises ``ParameterError`` where a person must decide something first, or the cases cannot be split.
    """
    return _of_raw_cohorts(study, files, lambda name, declaration, say: _plan_of(name, declaration, files, say))


def looked_at(study: Study, files: StudyPaths) -> dict[str, dict[str, str]]:
    """The same without writing anything; phantoms that are not made yet are known by name alone."""
    return _of_raw_cohorts(study, files, lambda name, declaration, say: _seen(study, name, declaration, files, say))


def _plan_of(name: str, declaration: Cohort, files: StudyPaths, say: Callable[[str], None]) -> dict[str, str]:
    from brainmets.preparation import sorting  # SimpleITK takes a second

    plan = sorting.sort(declaration, files.preparation(name), say)
    return {case: planned.digest for case, planned in plan.items()}


def _seen(
    study: Study, name: str, declaration: Cohort, files: StudyPaths, say: Callable[[str], None]
) -> dict[str, str]:
    from brainmets.preparation import sorting

    assert declaration.raw is not None
    if declaration.raw.phantoms and not resolve(declaration.raw.folder).is_dir():
        return dict.fromkeys(study.raw_cases(name), "")
    found = sorting.look(declaration, files.preparation(name), say)
    found.require_no_problems(files.preparation(name))
    return {case: planned.digest for case, planned in found.plan.items()}


def _of_raw_cohorts(
    study: Study, files: StudyPaths, digests: Callable[[str, Cohort, Callable[[str], None]], dict[str, str]]
) -> dict[str, dict[str, str]]:
    audit = study.notebook("01_data_audit")
    assert isinstance(audit, Audit)
    found = {}
    for name in COHORTS:
        declaration = getattr(audit, name)
        if declaration.raw is None:
            continue
        try:
            found[name] = digests(name, declaration, lambda line: print(f"  {line}", flush=True))
            if not declaration.phantoms:
                _check_raw_cohort(study.origin, name, declaration, audit, found[name])
        except ParameterError:
            raise
        except OSError as error:  # its own words name the file, and with it perhaps the patient
            why = error.strerror or type(error).__name__
            raise ParameterError(f"{study.origin}: {name}: a raw file or folder cannot be used: {why}") from None
        except ValueError as error:
            raise ParameterError(f"{study.origin}: {name}: {error}") from None
        study.raw[name] = sorted(found[name])
    return found


# --- where the steps run -----------------------------------------------------------------------------------------


def read_profile(profile: str) -> tuple[Path, str]:
    """A Snakemake profile, one of the checkout's by name or any by its folder: the folder, and what runs its steps.

    Steps run on this machine (``local``) where the profile's ``config.yaml`` names no executor.
    """
    shipped = project_root() / "workflow" / "profiles"
    found = [folder for folder in (shipped / profile, Path(profile).resolve()) if (folder / "config.yaml").is_file()]
    if not found:
        names = ", ".join(sorted(path.name for path in shipped.iterdir()))
        raise ParameterError(f"--profile {profile}: there is no such profile; there are {names}, or name a folder")
    file = found[0] / "config.yaml"
    try:
        return found[0], str(yaml.safe_load(file.read_text(encoding="utf-8")).get("executor", "local"))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise ParameterError(f"--profile: {shown(file)} is no Snakemake profile: {error}") from None


def local_options() -> tuple[list[str], str]:
    """Snakemake options for this machine, and the machine in words.

    A training holds one device: a GPU, or without one a core. On a CPU single-threaded trainings side by side get
    more done than one training on all cores.
    """
    cores, devices = cpu_cores(), cuda_devices()
    os.environ[DEVICES_VARIABLE] = ",".join(devices)
    slots = len(devices) or cores
    config = [f"cores={cores}", f"threads={max(1, cores // slots)}"]
    options = ["--cores", str(max(cores, slots)), "--resources", f"device={slots}", f"mem_mb={memory_mb()}"]
    return [*config, *options], f"{cores} CPU cores, {in_words(devices)}, {slots} at a time"


def slurm_options(files: StudyPaths) -> tuple[list[str], str]:
    """Snakemake options for the cluster whose login node this is.

    A killed engine leaves its jobs in the queue, and a new one would submit them again: jobs carry a prefix of the
    study's own, and the study refuses to start while such jobs are there.
    """
    if shutil.which("sbatch") is None:
        raise ParameterError("--profile slurm: there is no sbatch here; run on the cluster's login node, or use local")
    os.environ.pop(DEVICES_VARIABLE, None)  # the scheduler chooses
    prefix = f"bm_{files.study}_{hashlib.sha256(str(files.work).encode()).hexdigest()[:8]}"
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", prefix)[-50:]
    left = [row for row in _queue() if row[-1].startswith(prefix)]
    if left:
        raise BusyError(
            f"{len(left)} jobs of an earlier, killed run of study {files.study} are still in the queue: "
            + ", ".join(f"{job} ({state.lower()})" for job, state, _ in left)
            + f". Wait for them, or: scancel {' '.join(job for job, _, _ in left)}"
        )
    options = ["--slurm-jobname-prefix", prefix]
    # without sacct, or with one that has no database to ask, Snakemake would wait for ever
    if not shutil.which("sacct") or subprocess.run(["sacct", "-n", "-X"], capture_output=True, check=False).returncode:
        options += ["--slurm-status-command", "squeue"]
    return options, f"SLURM jobs {prefix}_*"


def _queue() -> list[list[str]]:
    """The user's jobs: number, state and name of each."""
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
    return [row.split() for row in asked.stdout.splitlines() if row.strip()]


# --- Snakemake ---------------------------------------------------------------------------------------------------


def _snakemake(
    study: Study, files: StudyPaths, options: list[str], further: list[str], folder: Path, events: Path
) -> list[str]:
    """The call of Snakemake, which keeps its records in ``folder`` and adds its events to ``events``.

    Options that take many values come early, so that none takes a target of ``further``.
    """
    remake = outdated(study, files)
    if "--logger" in further:  # the last one would win
        at = further.index("--logger") + 1
        further = [*further[:at], "brainmets", *further[at:]]
    return [
        *(sys.executable, "-m", "snakemake"),
        *(["--forcerun", *map(str, remake)] if remake else []),
        *("--logger", "brainmets", "--logger-brainmets-events", str(events)),
        *("--config", f"params={study.origin}", *options),
        *("--snakefile", str(project_root() / "workflow" / "Snakefile"), "--directory", str(folder), "--nolock"),
        *further,
    ]


def _environment() -> dict[str, str]:
    """Snakemake works in the study's folder, which may lie outside the checkout."""
    return {**os.environ, "BRAINMETS_ROOT": str(project_root())}


def _plan(study: Study, files: StudyPaths, options: list[str], further: list[str]) -> int:
    """Print one line per step that Snakemake would run; gives the exit status.

    Nothing is written below ``work/`` where the study has nothing there yet.
    """
    with tempfile.TemporaryDirectory(prefix="brainmets_") as aside:
        events = Path(aside, "events.jsonl")
        folder = files.work if (files.work / ".snakemake").is_dir() else Path(aside)
        call = _snakemake(study, files, [*options, "--dry-run"], further, folder, events)
        planned = subprocess.run(
            call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment(), text=True, check=False
        )
        said = [json.loads(line) for line in events.read_text().splitlines()] if events.is_file() else []
    if planned.returncode or not said:
        print("Snakemake could not plan the study; it said:", file=sys.stderr)
        print("\n".join(planned.stdout.splitlines()[-40:]), file=sys.stderr)
        return 1
    planned_steps = {step_of_job(event) for event in said if event["event"] == "job_info"}
    in_order = [*(step_name(notebook, job) for notebook, job in jobs(study)), "report"]
    steps = [step for step in in_order if step in planned_steps]
    print(f"{len(steps)} step{'s' * (len(steps) != 1)} to run:" if steps else f"study {files.study}: nothing to do")
    for step in steps:
        print(f"  {step}")
    return 0


def _work(study: Study, files: StudyPaths, options: list[str], further: list[str], lock: int) -> int:
    """Run Snakemake, show what its steps do, and give the study's exit status.

    Snakemake inherits ``lock``, the descriptor of the study's lock: a second start is refused as long as it works on,
    even after this process was killed.
    """
    files.runs.mkdir(parents=True, exist_ok=True)
    events = files.runs / "snakemake.jsonl"
    events.unlink(missing_ok=True)
    progress = Progress(files, study.origin)
    engine: subprocess.Popen[bytes] | None = None
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        progress.say("stopping: ending the running steps ..." if asked == 1 else "stopping at once")
        if engine is not None:
            os.killpg(engine.pid, signal.SIGINT if asked == 1 else signal.SIGKILL)

    # before the start: where this process was told to ignore Ctrl-C (nohup, a shell's &), Snakemake would too
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    with (files.runs / "snakemake.log").open("w", encoding="utf-8") as log:
        engine = subprocess.Popen(
            _snakemake(study, files, options, further, files.work, events),
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=_environment(),
            pass_fds=[lock], process_group=0,
        )  # fmt: skip
    try:
        ended = False
        while not ended:
            ended = engine.poll() is not None
            progress.update()
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return progress.close(engine.returncode)
