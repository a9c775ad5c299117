"""Files that are either whole or not there: written aside, flushed to disk, then renamed."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends without an error.

    The temporary name keeps the suffixes of ``path`` (so that ``.nii.gz`` writers recognise it) and starts with a
    dot. On an error it is deleted and whatever stood at ``path`` before is untouched. An ``OSError`` that names no
    file, such as that of a full disk, is raised with ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # drawn by chance: no other process or machine has it, and nobody can have put a link there
    aside = path.with_name(f".{secrets.randbelow(10**9)}.{path.name}")
    try:
        yield aside
        with aside.open("rb+") as handle:
            os.fsync(handle.fileno())
        aside.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        aside.unlink(missing_ok=True)


def keep_private() -> None:
    """From here on this process and its children make files that the user and the group alone can read.

    What comes of patients is nobody else's. Files and folders that are there already stay as they are.
    """
    os.umask(os.umask(0) | 0o027)


def keep_out_of_git(folder: Path) -> None:
    """Have git pass over a folder of patients' results, in whatever repository it lies."""
    if not (folder / ".gitignore").exists():
        write_text(folder / ".gitignore", "*\n")


def numbered(path: Path) -> Path:
    """``path`` with -1 before its suffix, or the first number for which nothing is there: where to set it aside."""
    numbers = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in count(1))
    return next(free for free in numbers if not free.exists())


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> Path:
    """Write indented JSON; NaN and infinity are refused (``ValueError``), since JSON has no word for them."""
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """A cell as JSON holds it: a number of NumPy as Python's own, None for one that is not finite.

    >>> plain(float("nan")), plain(float("inf")), plain(2.5), plain("ET")
    (None, None, 2.5, 'ET')
    """
    cell = value.item() if hasattr(value, "item") else value
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not one is refused with its name (``ValueError``)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # text that is no JSON, no UTF-8, or nested without end
        why = "nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is not JSON ({why}); delete it and rerun the step that writes it") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not an object; delete it and rerun the step that writes it"
        )
    return content


def shaped(read: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """A reader of a JSON file, its first argument, which refuses content of another shape with the file's name.

    What the reader's look-ups raise on a missing name, or on a list in place of an object, becomes a ``ValueError``.
    """

    @wraps(read)
    def reading(path: Path, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(path, *args, **kwargs)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} does not hold what the step writes that makes it ({type(error).__name__}: {error}); delete "
                "it and rerun that step"
            ) from error

    return reading
