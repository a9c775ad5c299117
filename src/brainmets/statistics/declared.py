"""When a rule was declared: that which decides a study, and that of its arms in small lesions.

``declared.json`` and ``declared_small_lesions.json`` are written before the first step, each for itself: a question
that is added later takes nothing from the study's decision.

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
from brainmets.params import Decision, Detection, ParameterError, SmallLesions
from brainmets.paths import StudyPaths
from brainmets.vocabulary import DETECTION_SENSITIVITY

When = Literal["before training", "before evaluation", "after", "unknown"]
FIELDS = ("rule", "declared", "trained", "evaluated", "previous")
"""What an entry holds beside its own hash."""
WHEN: dict[When, str] = {
    "before training": "declared before the first training",
    "before evaluation": "declared before any held-out case was predicted",
    "after": "first recorded after results were there: exploratory",
    "unknown": "declared at an unknown time: exploratory",
}


class DeclaredError(ParameterError):
    """A file of declared rules is damaged or was changed by hand."""


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

    @property
    def in_words(self) -> str:
        """When, after "the rule was"; where that makes the verdict exploratory, this is the last word."""
        if self.changed and self.when == "after":
            return "changed after results were there: exploratory"
        return f"{WHEN[self.when]}, after another one" if self.changed else WHEN[self.when]

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
    content = rule.model_dump(mode="json")
    if DETECTION_SENSITIVITY in [one.metric for one in (rule.endpoint, *rule.secondary)]:
        content["operating"] = operating.model_dump(mode="json")
    return _declare(files, files.declared, content)


def declare_small_lesions(files: StudyPaths, asked: SmallLesions, operating: Detection) -> Declared:
    """The same of the comparison of arms in small lesions, with the region and the hit rule of ``operating``."""
    content = {**asked.model_dump(mode="json"), "region": operating.region, "hit": operating.hit}
    return _declare(files, files.declared_small_lesions, content)


def _declare(files: StudyPaths, path: Path, content: dict[str, Any]) -> Declared:
    entries = read(path) if path.is_file() else []
    if not entries or entries[-1]["rule"] != content:
        entry: dict[str, Any] = {
            "rule": content,
            "declared": datetime.now(UTC).isoformat(timespec="seconds"),
            "trained": _holds_files(files.work, "training"),
            "evaluated": _holds_files(files.work, "evaluation"),
            "previous": entries[-1]["sha256"] if entries else "",
        }
        entries.append({**entry, "sha256": _hash(entry)})
        write_json(path, {"entries": entries})
    last = entries[-1]
    when: When = "after" if last["evaluated"] else "before evaluation" if last["trained"] else "before training"
    return Declared(when, len(entries) > 1, last["declared"], last["sha256"])


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of such a file, the first declared first; never empty.

    Raises ``DeclaredError`` for anything that was not written here.
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
