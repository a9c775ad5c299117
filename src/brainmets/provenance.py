"""Which parameters, versions, commit, device and inputs made a result file, and what was written with it.

A record names no person and no machine: files are listed by their path below the study, never by an absolute path.
A step is finished as long as every file that its record lists is what was written: ``damaged`` tells.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from brainmets import tables
from brainmets.files import read_json, write_json
from brainmets.paths import project_root

PACKAGES = (
    "brainmets",
    "torch",
    "nnunetv2",
    "monai",
    "numpy",
    "scipy",
    "pandas",
    "SimpleITK",
    "nibabel",
)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def commit() -> str:
    """The checkout's commit, with ``+changes`` where tracked files differ from it; "unknown" outside git."""

    def git(*words: str) -> str:
        call = ["git", *words]
        return subprocess.run(call, cwd=project_root(), capture_output=True, text=True, check=True).stdout.strip()

    try:
        head, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def versions() -> dict[str, str]:
    """Python's and the main packages' versions."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@dataclass
class Provenance:
    """Started at the top of a notebook, written in its last cell.

    ``inputs`` are hashed when the record is written; ``root`` is the folder their names are given from. ``folders``
    are further ones by name: an input below the folder "source" is named ``source/...``. One that lies in none of them
    is named by its last two parts.
    """

    notebook: str
    parameters: Mapping[str, Any]
    root: Path
    device: str = "cpu"
    folders: Mapping[str, Path] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    def record(self, inputs: Iterable[Path] = (), outputs: Iterable[Path] = ()) -> dict[str, Any]:
        """The record as a JSON-ready dictionary.

        Keys: notebook, parameters, versions, commit, device, started (UTC, ISO 8601), seconds, inputs (name ->
        SHA-256), outputs (name -> its ``state``). A folder among the outputs stands for every file in it. Raises
        ``ValueError`` where two files would go by one name, and for an output that lies in none of the folders.
        """
        return {
            "notebook": self.notebook,
            "parameters": dict(self.parameters),
            "versions": versions(),
            "commit": commit(),
            "device": self.device,
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 2),
            "inputs": self._hashes(inputs),
            "outputs": self._states(outputs),
        }

    def write(self, path: Path, inputs: Iterable[Path] = (), outputs: Iterable[Path] = (), **results: Any) -> Path:
        """Write ``results`` with the record under the key "provenance" to ``path``, whole or not at all.

        ``outputs`` are the files, or folders of files, that the step has written before; ``damaged`` checks them.
        """
        others = [output for output in outputs if output != path]
        path.unlink(missing_ok=True)  # or the record of an earlier run would be listed with its folder
        return write_json(path, {**results, "provenance": self.record(inputs, others)})

    def _hashes(self, inputs: Iterable[Path]) -> dict[str, str]:
        hashes: dict[str, str] = {}
        for path in sorted(inputs):
            name = self._name(path)
            if name in hashes:
                raise ValueError(f"two inputs would be recorded as {name}: name their folder in Provenance.folders")
            hashes[name] = sha256(path)
        return hashes

    def _states(self, outputs: Iterable[Path]) -> dict[str, dict[str, Any]]:
        written = sorted({file for output in outputs for file in _files_of(output)})
        names = [self._name(path) for path in written]
        for path, name in zip(written, names, strict=True):
            if not any(path.is_relative_to(folder) for folder in (self.root, *self.folders.values())):
                raise ValueError(f"the output {name} lies in no folder of the record: name it in Provenance.folders")
        return {name: state(path) for path, name in zip(written, names, strict=True)}

    def _name(self, path: Path) -> str:
        for name, folder in {"": self.root, **self.folders}.items():
            if path.is_relative_to(folder):
                return (Path(name) / path.relative_to(folder)).as_posix()
        return "/".join(path.parts[-2:])


def state(path: Path) -> dict[str, Any]:
    """What a file is: "bytes", "sha256", "changed_ns" (its time of change), and of a table its "rows"."""
    stat = path.stat()
    found = {"bytes": stat.st_size, "sha256": sha256(path), "changed_ns": stat.st_mtime_ns}
    if path.suffix == ".csv":
        with suppress(ValueError):  # a CSV of someone else's in the same folder
            found["rows"] = len(tables.lines(path, "# ")) - 1
    return found


def damaged(path: Path, root: Path, folders: Mapping[str, Path] | None = None) -> dict[str, str]:
    """What is wrong with the files that the step whose result is ``path`` has written: their names and what, in words.

    Empty where all are whole, and where the record lists none. ``root`` and ``folders`` are those that the record was
    written with. Cheap: only a file whose time of change is another one than when it was written is read.
    """
    try:
        outputs: dict[str, dict[str, Any]] = read_json(path)["provenance"].get("outputs", {})
        return {
            name: wrong for name, was in outputs.items() if (wrong := _damage(_place(name, root, folders or {}), was))
        }
    except FileNotFoundError:
        return {path.name: "is missing"}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {path.name: "is damaged"}


def require_whole(path: Path, study: str, root: Path, folders: Mapping[str, Path] | None = None) -> None:
    """Refuse what the step whose result is ``path`` has written unless it ran in ``study`` and all of it is whole.

    Raises ``ValueError`` with the file, what is wrong with it, and the command that writes it again: for a result of
    another study, and for the first file that ``damaged`` finds.
    """
    place = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    again = f"{_again(path)}, or brainmets study PARAMS for all that is not whole"
    if wrong := damaged(path, root, folders):
        (name, what), *others = wrong.items()
        more = f" (and {len(others)} more)" if others else ""
        raise ValueError(f"{place if name == path.name else name} {what}{more}: {again}")
    made_in = read_json(path)["provenance"].get("parameters", {}).get("study")
    if made_in != study:
        raise ValueError(f"{place} is of study {made_in!r}, not of {study!r}: {again}")


def _again(path: Path) -> str:
    """The command that runs the step anew whose result is ``path``."""
    try:
        record = read_json(path)["provenance"]
        job = [
            f"{name}={record['parameters'][name]}"
            for name in ("arm", "strategy", "fold")
            if name in record["parameters"]
        ]
        return f"run brainmets notebook {' '.join([record['notebook'], 'PARAMS', *job])} again"
    except (OSError, ValueError, LookupError, TypeError):
        return "run the notebook that writes it again"


def _damage(path: Path, was: Mapping[str, Any]) -> str:
    try:
        stat = path.stat()
    except OSError:
        return "is missing"
    if not path.is_file():
        return "is no file"
    if stat.st_size == was["bytes"] and (stat.st_mtime_ns == was["changed_ns"] or sha256(path) == was["sha256"]):
        return ""
    if "rows" in was:
        try:
            rows = len(tables.lines(path, "# ")) - 1
        except ValueError:
            rows = was["rows"]
        if rows != was["rows"]:
            return f"has {rows} rows, {was['rows']} were written"
    if stat.st_size != was["bytes"]:
        return f"has {stat.st_size} bytes, {was['bytes']} were written"
    return "is not what was written"


def _place(name: str, root: Path, folders: Mapping[str, Path]) -> Path:
    first, _, rest = name.partition("/")
    return folders[first] / rest if first in folders else root / name


def _files_of(output: Path) -> list[Path]:
    """The file itself, or those of a folder and below it, but for hidden ones."""
    if not output.is_dir():
        return [output]
    return [path for path in output.rglob("*") if path.is_file() and path.name[0] != "."]
