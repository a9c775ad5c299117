"""How a study is followed while it runs: the steps' logs, Snakemake's events, and the lines on the terminal.

A log holds everything that a step's notebook prints. Lines of the engine's own start with ``== ``; they say when the
step started, finished or failed. A line such as ``epoch 3 of 20: ...`` or ``training case 2 of 8: ...`` is
progress, which the study shows live.
Logs and events are files that only grow (a rerun adds to its step's log): a reader never loses its place, on a shared
file system either, and needs no connection to the machine that a step runs on.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from brainmets.engine.steps import command, job_of_wildcards, shown, step_name
from brainmets.params.study import section
from brainmets.paths import NOTEBOOKS, StudyPaths

MARK = "== "
LOW_BYTES = 20_000_000
"""With less than this free on the disk, a failure's report mentions it."""
LOG_BYTES = 2_000_000
"""A log beyond this size begins anew at the next start of its step."""
PROGRESS = re.compile(r"([a-z]+ )+\d+ of \d+\b")
REFUSED = re.compile(r"sbatch failed\. The error message was '(.*?)'\.\n", re.DOTALL)
"""What Snakemake says of a job that could not be submitted; the rest is the whole call."""
RULES = {section(notebook): notebook for notebook in NOTEBOOKS}
"""The Snakefile's rules are named as the sections of the parameters are."""


# --- writing a step's log ----------------------------------------------------------------------------------------


class Journal:
    """The log of one step, open for more; what is written is echoed to ``echo``. Serves papermill as a file.

    One that has grown beyond ``LOG_BYTES`` is set aside as ``<step>.log.1``, in place of an earlier one there.
    """

    def __init__(self, path: Path, echo: IO[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        self.path = path
        self.echo = echo
        self._handle = path.open("a", encoding="utf-8")
        self._at_line_start = True

    def write(self, text: str) -> int:
        """Add what the step prints."""
        if text:
            self._handle.write(text)
            self._at_line_start = text.endswith("\n")
            self.echo.write(text)
        return len(text)

    def flush(self) -> None:
        """Bring everything to the file and to the terminal."""
        self._handle.flush()
        self.echo.flush()

    def mark(self, *lines: str) -> None:
        """Add lines of the engine's own."""
        self.write(("" if self._at_line_start else "\n") + "".join(f"{MARK}{line}\n" for line in lines))
        self.flush()

    def failed(self, seconds: float, details: dict[str, str]) -> None:
        """The step failed; ``details`` says where and what to do, each by name; further lines of one are indented."""
        width = max(map(len, details))
        lines = []
        for name, text in details.items():
            first, *further = [line.rstrip() for line in text.splitlines() if line.strip()] or [""]
            lines += [f"  {name:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in further)]
        self.mark(f"failed after {seconds:.1f} s", *lines)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def disk_note(folder: Path, error: str = "") -> dict[str, str]:
    """What to do where ``error`` speaks of a full disk, or next to nothing is free where ``folder`` lies.

    One line under the key "disk", or nothing. A library's own message often names no file.
    """
    full = any(os.strerror(number) in error for number in (errno.ENOSPC, errno.EDQUOT))
    free = shutil.disk_usage(folder).free
    if not full and free > LOW_BYTES:
        return {}
    return {"disk": f"{free / 1e6:.1f} MB are free where {shown(folder)} lies: make room there, then run again"}


class StepError(RuntimeError):
    """A step that did not run to its end; the reason is in its log and on the terminal already."""


@contextmanager
def logged(path: Path, again: str) -> Iterator[Journal]:
    """The log of a step: says when it started and how it ended; what is written to it shows on the terminal too.

    ``again`` is the command that repeats the step. Any error but ``StepError`` is logged and raised.
    """
    journal = Journal(path, sys.stdout)
    journal.mark(f"started {datetime.now().astimezone().isoformat(timespec='seconds')}: {again}")
    began = time.monotonic()
    try:
        yield journal
        journal.mark(f"finished in {time.monotonic() - began:.1f} s")
    except StepError:
        raise
    except Exception as error:
        details = {"error": f"{type(error).__name__}: {error}"} | disk_note(path.parent, str(error))
        details |= {"log": shown(path), "run again": again}
        journal.failed(time.monotonic() - began, details)
        raise
    finally:
        journal.close()


# --- reading logs and events -------------------------------------------------------------------------------------


class Tail:
    """Reads what is added from now on, or what there is, to the files of ``folder`` that match ``pattern``."""

    def __init__(self, folder: Path, pattern: str, from_start: bool = False) -> None:
        self._files = lambda: sorted(folder.glob(pattern))
        self._read = {} if from_start else {path: path.stat().st_size for path in self._files()}

    def lines(self) -> Iterator[tuple[str, str]]:
        """The whole lines that were added since the last call, each with its file's name without the suffix."""
        for path in self._files():
            with path.open("rb") as handle:
                read = self._read.get(path, 0)
                read = read if read <= handle.seek(0, os.SEEK_END) else 0  # it began anew
                handle.seek(read)
                added = handle.read()
            whole = added[: added.rfind(b"\n") + 1]
            self._read[path] = read + len(whole)
            for line in whole.decode("utf-8", errors="replace").splitlines():
                yield path.stem, line.rstrip()


FIELDS: Mapping[str, tuple[tuple[str, type], ...]] = {
    "workflow_started": (),  # all that is said where nothing is to be done
    "run_info": (("stats", dict),),
    "job_info": (("jobid", int), ("rule_name", str), ("wildcards", dict)),
    "job_finished": (("job_id", int),),
    "job_error": (("jobid", int),),
}
"""What is read of each of Snakemake's events."""


def events_in(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Snakemake's events, one a line; a line that is none, as a full disk or a power cut leaves it, is passed over."""
    found = []
    for line in lines:
        try:
            event = json.loads(line)
            if all(isinstance(event[name], kind) for name, kind in FIELDS[event["event"]]):
                found.append(event)
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return found


def step_of_job(event: dict[str, Any]) -> str | None:
    """The step that Snakemake's ``job_info`` is about; ``None`` for the rule that only collects."""
    rule = event["rule_name"]
    if rule in RULES:
        return step_name(RULES[rule], job_of_wildcards(RULES[rule], event["wildcards"]))
    return "report" if rule == "report" else None


def why_again(event: dict[str, Any]) -> str | None:
    """Why a step that is done is run again, where Snakemake's ``job_info`` says that its own doing has changed.

    ``None`` where it was never done, or where only a step before it is run again.
    """
    reason = event.get("reason", "").lower()
    if "params have changed" in reason:
        return "a parameter, its notebook or a file of a cohort is not as it was when the step ran"
    if "set of input files has changed" in reason:
        return "the steps that it reads from are not those that it ran with"
    if "updated input files: " in reason:
        return "a result that it reads is newer, and not as it was when the step ran"
    return None


# --- what the terminal shows -------------------------------------------------------------------------------------


class Progress:
    """Tells the reader what the steps of a study do, from their logs and from Snakemake's events.

    That a step has ended, and how many there are, is Snakemake's word; where and why a notebook failed is in its log.
    """

    def __init__(self, files: StudyPaths, origin: str, profile: str = "local") -> None:
        self.files = files
        self.origin = origin
        self.again = command("study", origin, *(("--profile", profile) if profile != "local" else ()))
        self.began = time.monotonic()
        self.total = 0
        self.done = 0
        self.running: dict[str, float] = {}
        self.failed: dict[str, None] = {}  # in the order of the failures; a retry that succeeds leaves it
        self._steps: dict[int, str | None] = {}
        self._seconds: dict[str, str] = {}  # "in 15.2 s", by the step's own log
        self._explained: set[str] = set()  # steps whose log has explained the failure
        self._logs = Tail(files.runs, "*.log")
        self._events = Tail(files.runs, "snakemake.jsonl")

    @classmethod
    def joined(cls, files: StudyPaths, origin: str, profile: str) -> Progress:
        """That of a study at work: what it has done so far is counted, what runs now is shown."""
        progress = cls(files, origin, profile)
        progress._events = Tail(files.runs, "snakemake.jsonl", from_start=True)
        for event in events_in(line for _, line in progress._events.lines()):
            progress._count(event)
        for step, since in progress._begun().items():
            progress.running[step] = time.monotonic() - since
        parts = [f"{step} for {clock(time.monotonic() - since)}" for step, since in progress.running.items()]
        progress.say(f"{progress.done} of {progress.total} steps done; now: {', '.join(parts) or 'nothing yet'}.")
        if progress.failed:
            progress.say(f"failed so far: {', '.join(progress.failed)}")
        return progress

    def update(self) -> None:
        """Show what is new."""
        # before the logs: a step's log is complete when Snakemake says it ended
        events = events_in(line for _, line in self._events.lines())
        for step, line in self._logs.lines():
            if step != "snakemake":
                self._log_line(step, line)
        for event in events:
            self._event(event)
        if sys.stdout.isatty() and self.running:  # one line that is written over: what is running, and for how long
            parts = [f"{step} {clock(time.monotonic() - since)}" for step, since in self.running.items()]
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{('... ' + ', '.join(parts))[:width]}", end="", flush=True)

    def say(self, text: str, file: IO[str] | None = None) -> None:
        """Print a line in place of the one that is written over."""
        print(f"\r\x1b[K{text}" if sys.stdout.isatty() else text, file=file, flush=True)

    def _clock(self) -> str:
        return clock(time.monotonic() - self.began)

    def _log_line(self, step: str, line: str) -> None:
        if not line.startswith(MARK):
            if PROGRESS.match(line):
                self.say(f"  {step}: {line}")
            return
        word, _, text = line.removeprefix(MARK).partition(" ")
        match word:
            case "started":
                if step in self.running:  # a cluster has put its job back into the queue
                    self.say(f"  {step}: started again, after its job or its node was lost")
                self.running[step] = time.monotonic()
            case "finished":
                self.running.pop(step, None)
                self._seconds[step] = f" {text}"
            case "failed":
                self._fail(step, text)
                self._explained.add(step)
            case "note:":
                self.say(f"  {step}: {text}")
            case _:  # a detail of a failure
                self.say(f"  {line.removeprefix(MARK)}")

    def _event(self, event: dict[str, Any]) -> None:
        step = self._count(event)
        if event["event"] == "job_info" and (why := why_again(event)):
            self.say(f"  {self._steps[event['jobid']]} is run again: {why}")
        if step is None:
            return
        if event["event"] == "job_finished":
            text = f"finished{self._seconds.pop(step, '')}; {self._clock()} since the start"
            self.say(f"[{self.done:>2} of {self.total}] {step} {text}")
        elif event["event"] == "job_error":
            if step not in self._explained:
                self._fail_silently(step, event["rule_msg"])
            self._explained.discard(step)  # a retry may fail otherwise

    def _count(self, event: dict[str, Any]) -> str | None:
        """Take an event into the counts; gives the step that has ended by it, if one has."""
        match event["event"]:
            case "run_info":
                self.total = event["stats"]["total"] - event["stats"].get("all", 0)
            case "job_info":
                self._steps[event["jobid"]] = step_of_job(event)
            case "job_finished":
                if step := self._steps.pop(event["job_id"], None):
                    self.done += 1
                    self.running.pop(step, None)
                    self.failed.pop(step, None)
                    return step
            case "job_error":
                if step := self._steps.get(event["jobid"]):
                    self.running.pop(step, None)
                    self.failed[step] = None
                    return step
        return None

    def _begun(self) -> dict[str, float]:
        """Steps that Snakemake has started and that are not done, by their logs: seconds since each one's start."""
        begun = {}
        for step in {step for step in self._steps.values() if step is not None} - set(self.failed):
            log = self.files.runs / f"{step}.log"
            text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
            marks = [line for line in text.splitlines() if line.startswith((f"{MARK}started ", f"{MARK}finished "))]
            if marks and marks[-1].startswith(f"{MARK}started "):
                began = datetime.fromisoformat(marks[-1].split()[2].rstrip(":"))
                begun[step] = max(0.0, time.time() - began.timestamp())  # 0: the clock was set back
        return begun

    def complete(self) -> bool:
        """Whether every step was done that Snakemake had to do, by its own events."""
        if self.total:
            return self.done >= self.total
        log = self.files.runs / "snakemake.log"
        return log.is_file() and "Nothing to be done" in log.read_text(errors="replace")

    def _fail(self, step: str, text: str) -> None:
        self.running.pop(step, None)
        self.failed[step] = None
        self.say(f"FAILED: {step} {text}")

    def _fail_silently(self, step: str, why: str | None = None) -> None:
        if why and (refused := REFUSED.search(why)):
            self._fail(
                step, "was refused by SLURM: fit memory, time, partition and account in the profile to the cluster"
            )
            self.say(f"    error      {' '.join(refused[1].split())}")
            return
        self._fail(step, "stopped without an error message: killed, out of memory, or past a time limit?")
        if why:
            self.say(f"    error      {why}")
        self.say(f"    log        {shown(self.files.runs / f'{step}.log')}")

    def close(self, status: int, at_work: Mapping[str, Sequence[object]]) -> int:
        """Say how the study ended, given Snakemake's exit status; gives the study's.

        ``at_work`` are steps that work on though Snakemake has ended, each with its processes.
        """
        report = f" Report: {shown(self.files.index)}" if self.files.index.is_file() else ""
        study = f"study {self.files.study}"
        for step in list(self.running):
            if step not in at_work:
                self._fail_silently(step)
        if at_work and status != 0:
            names = ", ".join(f"{step} ({held[0]})" for step, held in at_work.items())
            self.say(
                f"{study}: Snakemake has ended{_by_signal(status)}, but {len(at_work)} of its steps work on: {names}."
            )
            self.say(f"To wait for them and go on: {self.again}")
            self.say(f"To end them: {command('stop', self.origin)}")
            return 1
        if status == 0 and not self.done:
            self.say(f"{study} is finished already; nothing to do.{report}")
        elif status == 0:
            self.say(f"{study} is finished, in {self._clock()}.{report}")
        elif self.failed:
            names = ", ".join(self.failed)
            self.say(f"{study}: {self.done} of {self.total} steps done, {len(self.failed)} failed: {names}.")
            self.say(f"Fix the cause, then run this to continue: {self.again}")
        else:
            log = self.files.runs / "snakemake.log"
            self.say(f"Snakemake could not do its work{_by_signal(status)}; the end of {shown(log)}:", sys.stderr)
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)
            for text in disk_note(self.files.runs).values():
                self.say(text, sys.stderr)
        return 0 if status == 0 else 1


def _by_signal(status: int) -> str:
    return f" (killed by {signal.Signals(-status).name})" if status < 0 else ""


def clock(seconds: float) -> str:
    """``"1:39"`` for 99 seconds; with hours from an hour on.

    >>> clock(99), clock(3_605)
    ('1:39', '1:00:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
