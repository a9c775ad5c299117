"""A logger plugin of Snakemake: its events as JSON lines, for ``brainmets.engine`` to follow.

Snakemake finds it by the package's name: ``snakemake --logger brainmets --logger-brainmets-events FILE``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

FIELDS = {
    LogEvent.WORKFLOW_STARTED: (),
    LogEvent.RUN_INFO: ("stats",),
    LogEvent.JOB_INFO: ("jobid", "rule_name", "wildcards", "reason"),
    LogEvent.JOB_FINISHED: ("job_id",),
    LogEvent.JOB_ERROR: ("jobid", "rule_msg"),
}
"""The events that are written, each with what is kept of it, by Snakemake's own names."""


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Snakemake makes a command-line option of each field."""

    # "type": Snakemake would take the annotation, which is text here
    events: Path = field(
        default=Path("events.jsonl"), metadata={"help": "File that events are added to, as JSON lines.", "type": Path}
    )


class LogHandler(LogHandlerBase):
    """Adds a line such as ``{"event": "job_finished", "job_id": 3}`` to the file and flushes it."""

    settings: LogHandlerSettings
    writes_to_stream = False  # Snakemake goes on printing as ever
    writes_to_file = False  # a file to be read by people, whose name Snakemake would print
    has_filter = True  # --quiet silences what Snakemake prints, not the events
    has_formatter = True
    needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        """Write one event; an error is Python's logging's to report, it does not stop the workflow."""
        event = getattr(record, "event", None)
        if event not in FIELDS:
            return
        try:
            content = {"event": event, **{name: getattr(record, name) for name in FIELDS[event]}}
            with self.settings.events.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
        except Exception:
            self.handleError(record)
