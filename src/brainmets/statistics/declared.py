"""When the rule was declared that decides a study: ``declared.json``, written before its first step.

Every declaration is an entry: the rule, the time, and whether any training or any prediction of a held-out case was
there already. A rule that changes is a further entry; none is ever taken away. Each entry holds the SHA-256 of its own
content, in which the one before it stands: a file that was edited by hand, or lost a part, is refused. It keeps an
honest person from a mistake. Who wants to deceive can write the whole file anew, or delete it together with the
results; against that a rule is registered with others, elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from brainmets.files import read_json, write_json
from brainmets.params import Decision, Detection, ParameterError
from brainmets.paths import StudyPaths
from brainmets.vocabulary import DETECTION_SENSITIVITY

When = Literal["before training", "before evaluation", "after", "unknown"]
FIELDS = ("rule", "declared", "trained", "evaluated", "previous")
"""What an entry holds beside its own hash."""


class DeclaredError(ParameterError):
    """``declared.json`` is damaged or was changed by hand."""


@dataclass(frozen=True)
class Declared:
    """When the rule in force was declared.

    ``when``: before any training, before any held-out prediction, after one ("after"), or "unknown" for score tables
    from elsewhere; ``changed``: whether another rule had been declared before; ``time``: UTC, empty where unknown;
    ``entry``: the hash of the entry.
    """

    when: When
    changed: bool = False
    time: str = ""
    entry: str = ""

    @property
    def confirms(self) -> bool:
        """Whether the verdict may be more than exploratory."""
        return self.when in ("before training", "before evaluation")

    def record(self) -> dict[str, object]:
        """As JSON: when, changed, time, entry, and ``confirms``."""
        return {**vars(self), "confirms": self.confirms}


UNKNOWN = Declared("unknown")
"""Of score tables that come without a study."""


def declare(files: StudyPaths, rule: Decision, operating: Detection) -> Declared:
    """Record ``rule`` unless it is the one declared last, and say when it was declared.

    ``operating`` are the parameters of the operating point: part of the rule where one of its endpoints
    is ``detection_sensitivity``, which they define, and of no account otherwise.
    Raises ``DeclaredError`` where ``declared.json`` is not what was written.
    """
    entries = read(files.declared) if files.declared.is_file() else []
    content = rule.model_dump(mode="json")
    if DETECTION_SENSITIVITY in [one.metric for one in (rule.endpoint, *rule.secondary)]:
        content["operating"] = operating.model_dump(mode="json")
    if not entries or entries[-1]["rule"] != content:
        entry: dict[str, Any] = {
            "rule": content,
            "declared": datetime.now(UTC).isoformat(timespec="seconds"),
            "trained": _holds_files(files.work, "training"),
            "evaluated": _holds_files(files.work, "evaluation"),
            "previous": entries[-1]["sha256"] if entries else "",
        }
        entries.append({**entry, "sha256": _hash(entry)})
        write_json(files.declared, {"entries": entries})
    last = entries[-1]
    when: When = "after" if last["evaluated"] else "before evaluation" if last["trained"] else "before training"
    return Declared(when, len(entries) > 1, last["declared"], last["sha256"])


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of ``declared.json``, the first declared first; never empty.

    Raises ``DeclaredError`` for anything that ``declare`` did not write.
    """
    try:
        entries = read_json(path)["entries"]
        previous = ""
        for entry in entries:
            content = {name: entry[name] for name in FIELDS}
            whole = set(entry) == {*FIELDS, "sha256"} and entry["sha256"] == _hash(content)
            if not whole or entry["previous"] != previous:
                raise ValueError("its entries do not follow from each other")
            previous = entry["sha256"]
        if not entries or set(read_json(path)) != {"entries"}:
            raise ValueError("it holds no entry, or more than entries")
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise DeclaredError(
            f"{path.name} is damaged or was changed by hand ({error}): put back the file that was written, or delete "
            "it; the rule then counts as declared now, which is exploratory once held-out cases were predicted"
        ) from error
    return list(entries)


def _hash(entry: Mapping[str, Any]) -> str:
    written = json.dumps({name: entry[name] for name in FIELDS}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(written.encode()).hexdigest()


def _holds_files(work: Path, name: str) -> bool:
    """Whether the folder ``name`` of the study, of one of its branches, or of what was set aside, holds any file."""
    folders = [work / name, *work.glob(f"*/{name}")]
    return any(path.is_file() for folder in folders if folder.is_dir() for path in folder.rglob("*"))
