"""Where a command may write: never over, into or beside what it reads, and over nothing that it would not write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path


class PlaceError(ValueError):
    """A place that must not be written to; the message names the option and the path, and what to do."""


def require_apart(outputs: Mapping[str, Path], inputs: Mapping[str, Path]) -> None:
    """Refuse outputs (option to path) that are each other, an input, or lie in an input that is a folder.

    Links are followed, and a second name of an input file (a hard link) is the input. Raises ``PlaceError`` before
    anything is written; an input that does not exist is nobody's concern here.
    """
    known: dict[Path, str] = {}
    for option, path in outputs.items():
        place = path.resolve()
        if other := known.get(place) or next((o for p, o in known.items() if _same(p, place)), None):
            raise PlaceError(f"{option}: {path} is given for {other} too; give each a file of its own")
        known[place] = option
        for name, given in inputs.items():
            folder = given.resolve()
            if place == folder or _same(place, folder):
                raise PlaceError(f"{option}: {path} is {name}, which is read; give another file")
            if place.is_relative_to(folder):
                raise PlaceError(f"{option}: {path} lies in {name} ({given}), which is read; give a place outside it")
            if _is_a_name_of_one(place, folder):
                raise PlaceError(f"{option}: {path} is a second name of a file in {name} ({given}); give another")


def require_replaceable(option: str, path: Path, ending: str, ours: Callable[[Path], bool], what: str) -> None:
    """Refuse a path at which no file can be written, and one at which stands something else than ``ours``.

    ``ending`` is how the file's name must end; ``ours`` is asked about a file that is there and not empty; ``what``
    it would be.
    """
    if not path.name.endswith(ending):
        raise PlaceError(f"{option}: {path} must end with {ending}")
    if path.is_dir():
        raise PlaceError(f"{option}: {path} is a folder; name the file in it")
    if path.exists() and not path.is_file():
        raise PlaceError(f"{option}: {path} is no ordinary file; give another name")
    if path.is_symlink() and not path.exists():
        raise PlaceError(f"{option}: {path} is a link to nothing; give another name, or delete it")
    if path.is_file() and path.stat().st_size and not ours(path):
        raise PlaceError(f"{option}: {path} is there and is no {what}: it is not overwritten; give another name")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise PlaceError(f"{option}: {path}: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PlaceError(f"{option}: {path}: nothing can be written in {folder}; give a folder of your own")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _is_a_name_of_one(place: Path, folder: Path) -> bool:
    """Whether the file is one of those in the folder, by a hard link."""
    try:
        state = place.stat()
    except OSError:
        return False
    return state.st_nlink > 1 and folder.is_dir() and any(_same(place, path) for path in _files(folder))


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
