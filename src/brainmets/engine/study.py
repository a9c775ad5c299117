"""Run a whole study: check everything first, let Snakemake do the steps, and show what happens.

Snakemake is a process of its own. What it prints goes to ``runs/snakemake.log``; its events come as JSON lines from
the logger plugin in ``src/snakemake_logger_plugin_brainmets`` to ``runs/snakemake.jsonl``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

import yaml

from brainmets.engine.devices import DEVICES_VARIABLE, cpu_cores, cuda_devices, in_words, memory_mb
from brainmets.engine.progress import Progress, events_in, step_of_job, why_again
from brainmets.engine.running import at_work, follow, named
from brainmets.engine.slurm import QueuedJob, QueueWatch, queued, slurm_options
from brainmets.engine.steps import (
    command,
    damages,
    from_work,
    jobs,
    outdated,
    read_study,
    set_aside_others,
    shown,
    step_name,
)
from brainmets.params import MODELS, Audit, Cohort, ParameterError, Statistics
from brainmets.params.study import Study
from brainmets.paths import COHORTS, NOTEBOOKS, StudyPaths, project_root, resolve
from brainmets.processes import BusyError, Process, holder, holders, is_held, locked, sign, signed

POLL_SECONDS = 0.3


def run(params: Path, profile: str, dry_run: bool, further: list[str]) -> int:
    """Run what is not done yet of the study in ``params``; gives the exit status (0 done, 1 failed, 2 refused).

    ``profile`` is ``local``, ``slurm`` or a folder with a Snakemake profile; ``further`` goes to Snakemake. A study
    that is at work already is watched to its end. Raises ``ParameterError`` before any work where a parameter, a
    notebook or a cohort folder is not right, and ``BusyError`` where it cannot be watched: ``further`` asks for
    something else, or the lock's holder is no study.
    """
    study = read_study(params)
    files = StudyPaths(study.content["work_dir"], study.content["study"])
    check(study)
    check_learning_curve(study, files)
    folder, executor = read_profile(profile)
    if dry_run:
        if is_held(files.lock):
            print(f"study {files.study} is at work now ({holder(files.lock)}); what it has not done yet:", flush=True)
        options, machine = _options(files, executor, folder)
        print(f"study {files.study}: {study.origin}, {machine}", flush=True)
        return _plan(study, files, [f"raw={json.dumps(looked_at(study, files))}", *options], further)
    with ExitStack() as held:
        try:
            lock = held.enter_context(locked(files.lock, f"study {files.study}"))
        except BusyError:
            if further or not _is_at_work(files):
                raise
            return watch(study, files, profile)
        options, machine = _options(files, executor, folder)
        print(f"study {files.study}: {study.origin}, {machine}", flush=True)
        queue = QueueWatch(files) if executor == "slurm" else None
        if (queue and not _wait_for_jobs(study, files, queue)) or not _wait_for_steps(study, files):
            return 130
        options = [f"raw={json.dumps(sorted_raw(study, files))}", *options]
        _declare(study, files)
        for what in set_aside_others(study, files):
            print(f"  {what}: its scores are now in {shown(files.work / 'left_out')}")
        status = _work(study, files, profile, options, further, lock, queue)
        if queue and status:
            _tell_of_jobs(study, files, profile)
        return status


def _declare(study: Study, files: StudyPaths) -> None:
    """Record the rules of the study before anything is trained; say where one comes too late for that."""
    from brainmets.statistics.declared import declare, declare_small_lesions

    statistics = study.notebook("07_statistics")
    assert isinstance(statistics, Statistics)
    declared = {"decision": declare(files, statistics.decision, statistics.detection)}
    if statistics.small_lesions:
        declared["small_lesions"] = declare_small_lesions(files, statistics.small_lesions, statistics.detection)
    for name, when in declared.items():
        if not when.confirms:
            print(f"  statistics.{name}: the rule was {when.in_words}")


def _options(files: StudyPaths, executor: str, profile: Path) -> tuple[list[str], str]:
    options, machine = slurm_options(files) if executor == "slurm" else local_options()
    return [*options, "--workflow-profile", str(profile)], machine


# --- a study that is at work already -----------------------------------------------------------------------------


def watch(study: Study, files: StudyPaths, profile: str) -> int:
    """Show what a study does that another process has started, until it ends; gives its exit status.

    The study does not need who started it: after a dropped connection it goes on, and is watched again from here.
    Ctrl-C ends the watching alone (exit status 130).
    """
    found = at_work(files)
    workers = [*found.engines, *found.fronts]
    who = str(min(workers, key=lambda one: one.start)) if workers else holder(files.lock)
    print(f"study {files.study} is at work already ({who}).", flush=True)
    if workers and not found.fronts:
        print("The process that started it has ended (a connection dropped, a terminal closed?); it goes on without.")
    print(
        f"Watching it. Ctrl-C ends the watching alone; to end the study: {command('stop', study.origin)}", flush=True
    )
    progress = Progress.joined(files, study.origin, profile)
    try:
        if workers:
            follow(lambda: _workers(files), progress.update, POLL_SECONDS)
        else:
            while is_held(files.lock):
                progress.update()
                time.sleep(10 * POLL_SECONDS)
            progress.update()
    except KeyboardInterrupt:
        progress.say(f"no longer watching; the study goes on. To end it: {command('stop', study.origin)}")
        return 130
    return progress.close(0 if progress.complete() else 1, at_work(files).steps)


def _workers(files: StudyPaths) -> list[Process]:
    found = at_work(files)
    return [*found.engines, *found.fronts]


def _is_at_work(files: StudyPaths) -> bool:
    """Whether it is a study that holds the study's lock: here, or by its own word on another machine."""
    return bool(_workers(files)) or (
        not holders([files.lock])[files.lock]
        and signed(files.lock).startswith("process ")
        and not signed(files.lock).endswith(f" on {os.uname().nodename}")
    )


def _wait_for_steps(study: Study, files: StudyPaths) -> bool:
    """Wait for steps that are at work without an engine; whether they have ended (not stopped by Ctrl-C).

    They were left by a Snakemake that was killed, or started one by one. They go on rather than end with it: a step
    writes its result whole or not at all, so that it loses nothing by having no engine, and a day of training is
    worth more than a clean start.
    """
    left = at_work(files).steps
    if not left:
        return True
    print(f"{len(left)} step{'s' * (len(left) != 1)} of an earlier run still at work: {named(left)}.")
    end = command("stop", study.origin)
    print(f"Waiting for them, then the study goes on. Ctrl-C ends the waiting alone; to end them: {end}", flush=True)
    progress = Progress(files, study.origin)
    try:
        follow(lambda: [one for held in at_work(files).steps.values() for one in held], progress.update, POLL_SECONDS)
    except KeyboardInterrupt:
        progress.say(f"no longer waiting; the steps go on. To end them: {end}")
        return False
    print(f"ended: {', '.join(left)}", flush=True)
    return True


def _wait_for_jobs(study: Study, files: StudyPaths, queue: QueueWatch) -> bool:
    """Wait for jobs that an engine has left in a cluster's queue; whether they have ended (not stopped by Ctrl-C).

    Another engine would submit their steps again, beside them.
    """
    if not queue.jobs:
        return True
    end = command("stop", study.origin)
    print(f"{_in_the_queue(queue.jobs)}, of an earlier run.")
    print(f"Waiting for them, then the study goes on. Ctrl-C ends the waiting alone; to end them: {end}", flush=True)
    progress = Progress(files, study.origin)
    try:
        while queue.jobs:
            progress.update()
            for line in queue.news():
                progress.say(line)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        progress.say(f"no longer waiting; the jobs go on. To end them: {end}")
        return False
    progress.update()
    return True


def _tell_of_jobs(study: Study, files: StudyPaths, profile: str) -> None:
    """Say which jobs go on in the queue though the engine has ended, and what to do; nothing where none does."""
    with suppress(ParameterError):  # the cluster does not answer: the next start will say so
        if left := queued(files):
            print(f"{_in_the_queue(left)}, without an engine.")
            print(f"To wait for them and go on: {command('study', study.origin, '--profile', profile)}")
            print(f"To end them: {command('stop', study.origin)}", flush=True)


def _in_the_queue(jobs: list[QueuedJob]) -> str:
    listed = ", ".join(f"{job.number} ({job.state.lower()})" for job in jobs)
    return f"{len(jobs)} job{'s' * (len(jobs) != 1)} still in the queue: {listed}"


# --- checks before any work --------------------------------------------------------------------------------------


def check(study: Study) -> None:
    """Raise ``ParameterError`` for a notebook that does not fit its parameters and a cohort that cannot be split.

    Of the cohorts only names are read: that takes milliseconds, where notebook 01 opens every image. A cohort that
    notebook 01 makes itself is not looked for.
    """
    from brainmets.engine.notebook import check_declared  # papermill takes half a second

    for name in NOTEBOOKS:
        check_declared(project_root() / "notebooks" / f"{name}.ipynb", set(MODELS[name].model_fields))
    statistics, audit = study.notebook("07_statistics"), study.notebook("01_data_audit")
    assert isinstance(statistics, Statistics) and isinstance(audit, Audit)
    if statistics.covariates is not None and not resolve(statistics.covariates).is_file():
        raise ParameterError(
            f"{study.origin}, section statistics: covariates: {statistics.covariates!r} is no file; put the path of "
            "the table there, or null"
        )
    for cohort in COHORTS:
        declaration = getattr(audit, cohort)
        if not declaration.phantoms and not declaration.raw:
            _check_cohort(study.origin, cohort, declaration, audit)


def check_learning_curve(study: Study, files: StudyPaths) -> None:
    """Raise ``ParameterError`` for a number of training cases that the study's split, where there is one, cannot give.

    Where there is none yet, or the audit is to run again, notebook 01 looks.
    """
    if not study.learning_curve or not files.audit.is_file() or files.audit in outdated(study, files):
        return
    from brainmets.cohorts.cohort import CohortError, read_manifest  # scikit-learn takes a second
    from brainmets.cohorts.splits import SplitError, read, subset

    try:
        split = read(files, "target")
        patients = {name: case.patient for name, case in read_manifest(files.manifest("target")).items()}
    except (OSError, SplitError, CohortError):
        return  # not whole: the audit runs again
    try:
        for number in study.learning_curve:
            subset(split, patients, number, study.content["seed"])
    except SplitError as error:
        raise ParameterError(f"{study.origin}: {error}") from None


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
        patients = {
            case.case: case.patient for case in known_cases(cohort, declaration, audit.sequences_of(cohort), files)
        }
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
        patients |= {
            case.case: case.patient for case in known_cases(cohort, declaration, audit.sequences_of(cohort), files)
        }
    _check_split(origin, cohort, declaration, audit, patients)


def _check_split(origin: str, cohort: str, declaration: Cohort, audit: Audit, patients: dict[str, str]) -> None:
    from brainmets.cohorts.splits import SplitError, require_fewer, split_cohort, subset

    try:
        split = split_cohort(patients, declaration.held_out, audit.n_folds, audit.seed, cohort)
        for number in audit.learning_curve if cohort == "target" else []:
            if declaration.draw == "random":  # this is the very split that notebook 01 draws
                subset(split, patients, number, audit.seed)
            else:
                require_fewer(split, number)
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
        declaration = audit.declared(name)
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


# --- Snakemake ---------------------------------------------------------------------------------------------------


def _snakemake(
    study: Study, files: StudyPaths, options: list[str], further: list[str], folder: Path, events: Path
) -> list[str]:
    """The call of Snakemake, which keeps its records in ``folder`` and adds its events to ``events``.

    Options that take many values come early, so that none takes a target of ``further``.
    """
    remake = _to_remake(study, files)
    further = [_as_target(files, word) for word in further]
    if "--logger" in further:  # the last one would win
        at = further.index("--logger") + 1
        further = [*further[:at], "brainmets", *further[at:]]
    return [
        *(sys.executable, "-m", "snakemake"),
        *(["--forcerun", *remake] if remake else []),
        "--ignore-incomplete",  # a result is written whole or not at all, also by a step whose engine was killed
        *("--logger", "brainmets", "--logger-brainmets-events", str(events)),
        *("--config", f"params={study.origin}", *options),
        *("--snakefile", str(project_root() / "workflow" / "Snakefile"), "--directory", str(folder), "--nolock"),
        *further,
    ]


def _to_remake(study: Study, files: StudyPaths) -> list[str]:
    """The results that are to be made again though they are there; says what is not whole any more."""
    broken = damages(study, files)
    for step, (_, wrong) in broken.items():
        (name, what), *others = wrong.items()
        more = f", and so for {len(others)} more" if others else ""
        print(f"  {step} is to be run again: its file {name} {what}{more}", flush=True)
    paths = [*outdated(study, files), *(path for path, _ in broken.values())]
    return [from_work(files, path) for path in dict.fromkeys(paths)]


def _as_target(files: StudyPaths, word: str) -> str:
    """A file of the study as the Snakefile names it; any other word as it is."""
    path = Path(word)
    return (
        from_work(files, path)
        if path.is_absolute() and (path.is_relative_to(files.work) or path == files.index)
        else word
    )


def _mirror(files: StudyPaths, aside: Path) -> Path:
    """A folder below ``aside`` that holds the study's files and the report as links: to plan in, and write nothing.

    Snakemake writes where it works even when it only plans; the study's folder may be another's to read.
    """
    below = Path(from_work(files, files.index)).parts
    depth = below.count("..")
    folder = aside.joinpath(*[".mirror"] * depth)
    (folder / ".snakemake").mkdir(parents=True)
    beside = files.work.resolve().joinpath(*below[: depth + 1])
    (aside / below[depth]).symlink_to(os.path.normpath(beside))
    for path in files.work.iterdir() if files.work.is_dir() else []:
        if path.name != ".snakemake":
            (folder / path.name).symlink_to(path.resolve())
    if (records := files.work / ".snakemake" / "metadata").is_dir():
        (folder / ".snakemake" / "metadata").symlink_to(records.resolve())
    return folder


def _environment() -> dict[str, str]:
    """Snakemake works in the study's folder, which may lie outside the checkout."""
    return {**os.environ, "BRAINMETS_ROOT": str(project_root())}


def _plan(study: Study, files: StudyPaths, options: list[str], further: list[str]) -> int:
    """Print one line per step that Snakemake would run; gives the exit status.

    Nothing is written into the study's folder.
    """
    with tempfile.TemporaryDirectory(prefix="brainmets_") as aside:
        events = Path(aside, "events.jsonl")
        folder = _mirror(files, Path(aside))
        call = _snakemake(study, files, [*options, "--dry-run"], further, folder, events)
        planned = subprocess.run(
            call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment(), text=True, check=False
        )
        said = events_in(events.read_text().splitlines()) if events.is_file() else []
    if planned.returncode or not said:
        print("Snakemake could not plan the study; it said:", file=sys.stderr)
        print("\n".join(planned.stdout.splitlines()[-40:]), file=sys.stderr)
        return 1
    events_of = {step_of_job(event): event for event in said if event["event"] == "job_info"}
    for step, event in events_of.items():
        if why := why_again(event):
            print(f"  {step} is to be run again: {why}")
    in_order = [*(step_name(notebook, job) for notebook, job in jobs(study)), "report"]
    steps = [step for step in in_order if step in events_of]
    print(f"{len(steps)} step{'s' * (len(steps) != 1)} to run:" if steps else f"study {files.study}: nothing to do")
    for step in steps:
        print(f"  {step}")
    return 0


def _work(
    study: Study, files: StudyPaths, profile: str, options: list[str], further: list[str], lock: int,
    queue: QueueWatch | None,
) -> int:  # fmt: skip
    """Run Snakemake, show what its steps do and what keeps its jobs in a cluster's ``queue``; gives the exit status.

    Snakemake inherits ``lock``, the descriptor of the study's lock: a second start watches it as long as it works on,
    even after this process was killed or its terminal has gone.
    """
    files.runs.mkdir(parents=True, exist_ok=True)
    events = files.runs / "snakemake.jsonl"
    events.unlink(missing_ok=True)
    progress = Progress(files, study.origin, profile)
    engine: subprocess.Popen[bytes] | None = None
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        progress.say("stopping: ending the running steps ..." if asked == 1 else "stopping at once")
        if engine is not None:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(engine.pid, signal.SIGINT if asked == 1 else signal.SIGKILL)

    # before the start: where this process was told to ignore Ctrl-C (nohup, a shell's &), Snakemake would too
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    with (files.runs / "snakemake.log").open("w", encoding="utf-8") as log:
        engine = subprocess.Popen(
            _snakemake(study, files, options, further, files.work, events),
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=_environment(),
            pass_fds=[lock], start_new_session=True,  # a terminal that goes away does not take it along
        )  # fmt: skip
    if asked:  # while it was being started
        os.killpg(engine.pid, signal.SIGINT)
    sign(lock, engine.pid)  # whoever reads the lock file finds the one that holds it longest
    try:
        ended = False
        while not ended:
            ended = engine.poll() is not None
            progress.update()
            for line in queue.news() if queue else ():
                progress.say(line)
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return progress.close(engine.returncode, at_work(files).steps)
