"""A step's log, and how the study reads all of them while they grow.

A log holds everything that a step's notebook prints. Lines of the engine's own start with ``== ``; they say when the
step started, finished or failed. A line of the form ``epoch 3 of 20: ...`` is progress, which the study shows live.
Logs only grow, a rerun adds to its step's log: a reader never loses its place, on a shared file system either.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

from brainmets.engine.steps import shown

MARK = "== "
PROGRESS = re.compile(r"\w+ \d+ of \d+\b")
KINDS = {"started": "started", "finished": "finished", "failed": "failed", "note:": "note"}
Kind = Literal["started", "finished", "failed", "note", "detail", "progress"]


class Journal:
    """The log of one step, open for more; what is written is echoed to ``echo``. Serves papermill as a file."""

    def __init__(self, path: Path, echo: IO[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
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

    def started(self, command: str) -> None:
        """The step starts; ``command`` repeats it."""
        self._mark(f"started {datetime.now().astimezone().isoformat(timespec='seconds')}: {command}")

    def finished(self, seconds: float) -> None:
        """The step is done."""
        self._mark(f"finished in {seconds:.1f} s")

    def failed(self, seconds: float, details: dict[str, str]) -> None:
        """The step failed; ``details`` says where and what to do, each by name; further lines of one are indented."""
        width = max(map(len, details))
        told = []
        for name, text in details.items():
            lines = [line.rstrip() for line in text.splitlines() if line.strip()] or [""]
            told += [
                f"  {word:<{width}}  {line}" for word, line in zip([name, *[""] * len(lines)], lines, strict=False)
            ]
        self._mark(f"failed after {seconds:.1f} s", *told)

    def note(self, text: str) -> None:
        """Something that the reader should know while the step runs."""
        self._mark(f"note: {text}")

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def _mark(self, *lines: str) -> None:
        start = "" if self._at_line_start else "\n"
        self.write(start + "".join(f"{MARK}{line}\n" for line in lines))
        self.flush()


class StepError(RuntimeError):
    """A step that did not run to its end; its log and the terminal have been told why."""


@contextmanager
def logged(path: Path, again: str) -> Iterator[Journal]:
    """The log of a step: says when it started and how it ended; what is written to it shows on the terminal too.

    ``again`` is the command that repeats the step. An error but ``StepError``, which says that its cause has been
    logged, is logged and raised.
    """
    journal = Journal(path, sys.stdout)
    journal.started(again)
    began = time.monotonic()
    try:
        yield journal
        journal.finished(time.monotonic() - began)
    except StepError:
        raise
    except Exception as error:
        details = {"error": f"{type(error).__name__}: {error}", "log": shown(path), "run again": again}
        journal.failed(time.monotonic() - began, details)
        raise
    finally:
        journal.close()


@dataclass(frozen=True)
class Event:
    """One line worth showing of one step's log."""

    step: str
    kind: Kind
    text: str


class Follower:
    """Reads what is added to the logs of ``folder`` from now on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read = {path: path.stat().st_size for path in self._logs()}
        self._rest: dict[Path, bytes] = {}

    def events(self) -> Iterator[Event]:
        """The events of every whole line that was added since the last call."""
        for path in self._logs():
            with path.open("rb") as handle:
                handle.seek(self._read.get(path, 0))
                added = handle.read()
            self._read[path] = self._read.get(path, 0) + len(added)
            *lines, self._rest[path] = (self._rest.get(path, b"") + added).split(b"\n")
            for line in lines:
                event = _event(path.stem, line.decode("utf-8", errors="replace").rstrip())
                if event is not None:
                    yield event

    def _logs(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))


def _event(step: str, line: str) -> Event | None:
    if line.startswith(MARK):
        text = line.removeprefix(MARK)
        word, _, rest = text.partition(" ")
        kind = KINDS.get(word)
        return Event(step, kind, rest) if kind else Event(step, "detail", text)  # type: ignore[arg-type]
    return Event(step, "progress", line) if PROGRESS.match(line) else None
