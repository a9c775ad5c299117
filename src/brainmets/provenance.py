"""Which parameters, versions, commit, device and inputs made a result file.

A record names no person and no machine: inputs are listed by their path below the study, never by an absolute path.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from brainmets.files import write_json
from brainmets.paths import project_root

PACKAGES = (
    "brainmets",
    "torch",
    "nnunetv2",
    "monai",
    "numpy",
    "scipy",
    "pandas",
    "statsmodels",
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

    def record(self, inputs: Iterable[Path] = ()) -> dict[str, Any]:
        """The record as a JSON-ready dictionary.

        Keys: notebook, parameters, versions, commit, device, started (UTC, ISO 8601), seconds, inputs (name ->
        SHA-256). Raises ``ValueError`` where two inputs would go by one name.
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
        }

    def write(self, path: Path, inputs: Iterable[Path] = (), **results: Any) -> Path:
        """Write ``results`` with the record under the key "provenance" to ``path``, whole or not at all."""
        return write_json(path, {**results, "provenance": self.record(inputs)})

    def _hashes(self, inputs: Iterable[Path]) -> dict[str, str]:
        hashes: dict[str, str] = {}
        for path in sorted(inputs):
            name = self._name(path)
            if name in hashes:
                raise ValueError(f"two inputs would be recorded as {name}: name their folder in Provenance.folders")
            hashes[name] = sha256(path)
        return hashes

    def _name(self, path: Path) -> str:
        for name, folder in {"": self.root, **self.folders}.items():
            if path.is_relative_to(folder):
                return (Path(name) / path.relative_to(folder)).as_posix()
        return "/".join(path.parts[-2:])
