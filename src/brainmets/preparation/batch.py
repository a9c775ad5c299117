"""All patients of a raw folder, several at a time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from brainmets.cohorts.cohort import files_of
from brainmets.files import read_json, shaped, write_text
from brainmets.params import Cohort
from brainmets.paths import PreparationPaths, resolve
from brainmets.preparation import pipeline, sorting
from brainmets.preparation.pipeline import Settings
from brainmets.preparation.scans import ScanError
from brainmets.preparation.sorting import Planned
from brainmets.processes import end_with_parent, locked
from brainmets.provenance import Provenance

MOST_MB = 4000
"""Memory to count on for one patient."""
Say = Callable[[str], None]


def prepare_cohort(
    declaration: Cohort, files: PreparationPaths, settings: Settings, workers: int, say: Say
) -> dict[str, str]:
    """Prepare every case that is not prepared yet with these settings; gives the cases that failed, each with why.

    ``workers`` patients at a time, each in a process of its own, so that a crash or a kill costs one patient at most.
    ``say`` is told of every patient that ends, with the time left. Raises ``SortingError`` where a person must decide
    something before, ``BusyError`` where another process prepares this cohort.
    """
    sorting.own_folder(files.folder)
    with locked(files.folder / ".prepare.lock", "the preparation of this cohort"):
        return prepare_planned(sorting.sort(declaration, files, say), declaration, files, settings, workers, say)


def prepare_planned(
    plan: Mapping[str, Planned],
    declaration: Cohort,
    files: PreparationPaths,
    settings: Settings,
    workers: int,
    say: Say,
) -> dict[str, str]:
    """Prepare those cases of a plan that are not prepared yet: see ``prepare_cohort``."""
    waiting = [planned for planned in plan.values() if not _is_prepared(planned, declaration, files, settings)]
    say(f"{len(plan)} patients' scans, {len(waiting)} of them to prepare, {workers} at a time")
    failed: dict[str, str] = {}
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(_in_a_process, one, declaration, files, settings): one.case for one in waiting}
        try:
            for number, ended in enumerate(as_completed(running), start=1):
                case, outcome = running[ended], ended.result()
                if outcome:
                    failed[case] = outcome
                left = (time.monotonic() - began) / number * (len(waiting) - number)
                say(f"case {number} of {len(waiting)}: {case} {outcome or 'prepared'}; about {left / 60:.0f} min left")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return failed


def _in_a_process(planned: Planned, declaration: Cohort, files: PreparationPaths, settings: Settings) -> str:
    """Prepare one case in a process of its own, which takes none with it if it crashes; gives why it failed, or ""."""
    context = multiprocessing.get_context("spawn")  # torch and ITK do not survive a fork
    with ProcessPoolExecutor(1, context, _begin) as pool:
        return _outcome(pool.submit(prepare_case, planned, declaration, files, settings))


def _begin() -> None:
    """Of each worker: it ends with its parent, which alone answers Ctrl-C."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def prepare_case(planned: Planned, declaration: Cohort, files: PreparationPaths, settings: Settings) -> None:
    """One case from its raw files to the cohort's folder: the steps of notebook 00.

    What goes wrong is told in full by ``failed.log`` in the case's private folder, since it may name files.
    """
    log = files.case(planned.case) / "failed.log"
    log.unlink(missing_ok=True)
    try:
        _prepare(planned, declaration, files, settings)
    except Exception:
        write_text(log, traceback.format_exc())
        raise


def _prepare(planned: Planned, declaration: Cohort, files: PreparationPaths, settings: Settings) -> None:
    provenance = Provenance("prepare", asdict(settings), root=resolve(declaration.folder))
    native = pipeline.read(planned)
    prepared = pipeline.prepare(native, settings, _silent)
    figure = pipeline.picture(native, prepared, planned.case)
    written = pipeline.write(prepared, planned.case, declaration, files, figure)
    provenance.write(files.prepared(planned.case), written, **pipeline.record(prepared, planned))


def most_at_a_time(cores: int, memory_mb: int) -> int:
    """How many patients fit: one a core, and ``MOST_MB`` each; at least one.

    >>> most_at_a_time(16, 20_000), most_at_a_time(2, 64_000), most_at_a_time(4, 1_000)
    (5, 2, 1)
    """
    return max(1, min(cores, memory_mb // MOST_MB))


def _is_prepared(planned: Planned, declaration: Cohort, files: PreparationPaths, settings: Settings) -> bool:
    path = files.prepared(planned.case)
    if not path.is_file() or not all(one.is_file() for one in _of_case(planned, declaration)):
        return False
    try:
        files_of_it, made_with = _made_of(path, list(asdict(settings)))
    except ValueError:  # damaged: it is made again
        return False
    expected: dict[str, Any] = asdict(settings)
    if expected["spacing_mm"] is not None:
        expected["spacing_mm"] = list(expected["spacing_mm"])
    return bool(files_of_it == planned.digest and made_with == expected)


@shaped
def _made_of(path: Path, names: Iterable[str]) -> tuple[Any, dict[str, Any]]:
    """The digest of the raw files that a case was made of, and the settings by name."""
    record = read_json(path)
    return record["files"], {name: record["provenance"]["parameters"].get(name) for name in names}


def _of_case(planned: Planned, declaration: Cohort) -> Iterable[Path]:
    paths = files_of(declaration, planned.case)
    return [paths[name] for name in (*planned.images, *(["label"] if planned.label else []))]


def _outcome(ended: Future[None]) -> str:
    """Why a case failed, in words that name no person; nothing where it did not."""
    error = ended.exception()
    if error is None:
        return ""
    if isinstance(error, ScanError):
        return f"failed: {error}"
    if isinstance(error, BrokenProcessPool):
        return "not prepared: its process was killed (out of memory?); run again, with fewer workers"
    return f"failed: {type(error).__name__}; its failed.log in the private folder has the details"


def _silent(line: str) -> None:
    """Says nothing: of many patients at a time only the ends are told."""
