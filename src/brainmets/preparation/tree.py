"""The files of a raw folder, whatever its shape."""

from __future__ import annotations

import os
from pathlib import Path

from brainmets.preparation.scans import Finding


def files(folder: Path) -> tuple[list[Path], list[Finding]]:
    """Every plain file below ``folder`` but hidden ones, sorted; links are followed, each folder is entered once.

    What cannot be opened is counted in a warning.
    """
    denied = 0
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            place = here.stat()
            if (place.st_dev, place.st_ino) in seen:
                continue
            seen.add((place.st_dev, place.st_ino))
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            denied += 1
            continue
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            try:
                if entry.is_dir():
                    waiting.append(Path(entry.path))
                elif entry.is_file():  # no pipe, which would never end
                    found.append(Path(entry.path))
            except OSError:
                denied += 1
    text = f"{count(denied, 'folder')} cannot be opened: what lies in there is not looked at"
    return sorted(found), [Finding("warning", "", 0, text)] if denied else []


def count(number: int, what: str) -> str:
    """Such as "1 file", "1,200 files"."""
    return f"{number:,} {what}{'s' if number != 1 else ''}"
