"""From the inputs of a run to prepared scans: raw ones are sorted and prepared as the training cohort was."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from brainmets.cohorts.key import Key
from brainmets.files import read_json
from brainmets.params import Cohort, Raw
from brainmets.params.models import Layout
from brainmets.paths import PreparationPaths, ScreeningPaths
from brainmets.preparation import batch, cohort_quality, pipeline, sorting
from brainmets.preparation.pipeline import Settings
from brainmets.preparation.scans import Series
from brainmets.preparation.sorting import Planned
from brainmets.processes import locked
from brainmets.screening import source
from brainmets.screening.guard import Decision, Remark
from brainmets.screening.reads import ALL_FOUR, Reads
from brainmets.screening.source import Inputs
from brainmets.vocabulary import SEQUENCES

Kind = Literal["dicom", "raw", "prepared"]
Say = Callable[[str], None]


class ScreeningError(ValueError):
    """A scan that cannot be screened; the message says why and names no person."""


@dataclass(frozen=True)
class Options:
    """What a run depends on beside model and scans; see ``brainmets screen``."""

    out: Path
    private: Path
    brain_masks: str | None = None
    prefix: str = "scan"
    left_out: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    workers: int = 1


@dataclass(frozen=True)
class Scan:
    """One prepared scan. ``images``: where its prepared sequences lie; ``state``: a hash of what it was made of.

    ``date``: YYYY-MM-DD or None. ``t1c``: its series of raw scans; ``row``, ``raw_sha256`` and ``seconds``: of its
    preparation; ``remarks``: what the preparation found unusual. A prepared case has none of these.
    """

    case: str
    kind: Kind
    images: dict[str, Path]
    state: str
    date: str | None = None
    t1c: Series | None = None
    row: dict[str, float | None] | None = None
    raw_sha256: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    remarks: tuple[Remark, ...] = ()


@dataclass
class Outcome:
    """Of a run, by scan: the guard's decision on each that was looked at, why it refused, and why others failed."""

    screened: dict[str, Decision] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Note how a scan ended, by its record."""
        case, seen = record["case"], record["guard"]
        self.screened[case] = seen["decision"]
        if seen["decision"] == "refuse":
            self.refused[case] = [one["text"] for one in seen["remarks"] if one["severity"] == "refuse"]


def find_scans(
    settings: Settings, inputs: Inputs, options: Options, outcome: Outcome, say: Say, reads: Reads = ALL_FOUR
) -> list[Scan]:
    """Every scan that is prepared or can be, by name; those that cannot are noted in ``outcome``.

    ``reads``: the model's sequences, which alone are prepared of raw scans.
    """
    unknown = sorted({*options.left_out, *options.accepted} - set(inputs.prepared))
    if unknown and not inputs.raw:  # else the sorting knows the names
        raise ScreeningError(f"--left-out, --accepted: {', '.join(unknown)}: there is no such case")
    if idle := sorted(set(options.accepted) & set(inputs.prepared)):
        raise ScreeningError(
            f"--accepted: {', '.join(idle)} was prepared before, so that no preparation of it is judged here; leave "
            "the option out (what the guard refuses is not accepted)"
        )
    if options.brain_masks is not None and not inputs.raw:
        raise ScreeningError("--brain-masks: every INPUT is prepared already, and needs no mask; leave the option out")
    wanted = {name: case for name, case in inputs.prepared.items() if name not in options.left_out}
    scans = [
        Scan(name, "prepared", case.images, _hash(source.state(case.images.values()))) for name, case in wanted.items()
    ]
    from_raw = _from_raw(settings, inputs, options, outcome, say, reads) if inputs.raw else []
    if both := sorted({scan.case for scan in scans} & {scan.case for scan in from_raw}):
        raise source.SourceError(
            f"the prepared case {both[0]!r} has the name that a raw scan gets: give the raw scans another --prefix"
        )
    return sorted([*scans, *from_raw], key=lambda scan: scan.case)


def _from_raw(
    settings: Settings, inputs: Inputs, options: Options, outcome: Outcome, say: Say, reads: Reads
) -> list[Scan]:
    """Sort and prepare raw scans as the training cohort was; the images come to lie in each scan's folder."""
    files = PreparationPaths(options.private)
    links = options.private.with_name(f".{options.private.name}-inputs")
    source.link(inputs.raw, links)
    raw = Raw(
        folder=str(links), prefix=options.prefix, brain_masks=options.brain_masks,
        left_out=[case for case in options.left_out if case not in inputs.prepared],
        accepted=[case for case in options.accepted if case not in inputs.prepared],
    )  # fmt: skip
    layout = Layout(
        **{name: f"{{case}}/prepared/{name}.nii.gz" for name in SEQUENCES},  # those of an earlier model too
        label="{case}/prepared/label.nii.gz",
        patient=r"(.+)-\d{3,}$",
    )
    # sorted as if for a folder elsewhere: the private folder may lie within that of the results
    apart = links.with_name(f"{links.name}-cohort")
    elsewhere = Cohort(folder=str(apart), layout=layout, label_map={}, held_out=0, raw=raw).model_copy(
        update={"sequences": list(reads.sequences), "may_lack": list(reads.may_lack)}
    )
    declaration = elsewhere.model_copy(update={"folder": str(options.out)})
    sorting.own_folder(files.folder)
    with locked(files.folder / ".prepare.lock", "the preparation of these scans"):
        plan, undecided = sorting.sort_each(elsewhere, files, say)
        decide = _decide(files, reads)
        outcome.failed.update({case: f"{text}\n{decide}" for case, text in undecided.items()})
        failed = batch.prepare_planned(plan, declaration, files, settings, options.workers, say)
        outcome.failed.update(failed)
        flagged = cohort_quality.review(declaration, files)
    dates = {case: date for (_, date), case in Key.open(files.key, apart, options.prefix).known().items()}
    return [
        _prepared_scan(planned, _iso(dates.get(case, "")), flagged[flagged["case"] == case], files, options.out)
        for case, planned in plan.items()
        if case not in failed
    ]


def _decide(files: PreparationPaths, reads: Reads) -> str:
    needed = [name for name in reads.sequences if name not in reads.may_lack]
    model = f"The model reads {', '.join(reads.sequences)}; a scan must have {', '.join(needed)}. "
    return ("" if reads == ALL_FOUR else model) + (
        "Correct the column `role` of series.csv, mend the files, or leave the case out (--left-out). Every series "
        f"is in {files.series}, every finding in {files.findings}"
    )


def _prepared_scan(
    planned: Planned, date: str | None, flags: pd.DataFrame, files: PreparationPaths, out: Path
) -> Scan:
    """A scan that was prepared here, with its mask and transforms beside its images."""
    case, record = planned.case, read_json(files.prepared(planned.case))
    folder = ScreeningPaths(out / case).prepared
    beside = [files.case(case) / "brain_mask.nii.gz", *sorted(files.case(case).glob("*.tfm"))]
    for old in folder.glob("*.tfm"):
        old.unlink()
    for path in beside:
        shutil.copyfile(path, folder / path.name)
    lacking = {f"{name}_lacking" for name in SEQUENCES}
    remarks = tuple(
        Remark("preparation", "refuse" if flag["severity"] == "error" else "warn", "all", str(flag["text"]),
               float(flag["value"]), -math.inf, math.inf)
        for flag in flags.to_dict("records")
        if not (flag["measure"] in lacking and flag["value"] == 0)  # the guard says so of any scan
    )  # fmt: skip
    refusing = sorted(remark.text for remark in remarks if remark.severity == "refuse")
    t1c = planned.images[pipeline.REFERENCE]
    return Scan(
        case, "dicom" if t1c.kind == "dicom" else "raw",
        {name: folder / f"{name}.nii.gz" for name in planned.images}, _hash([planned.digest, refusing]), date, t1c,
        record["row"], record["raw_sha256"], float(record["provenance"]["seconds"]), remarks,
    )  # fmt: skip


def _iso(date: str) -> str | None:
    """A scan's date as YYYY-MM-DD, where the raw data give one."""
    digits = re.fullmatch(r"(\d{4})-?(\d{2})-?(\d{2})", date)
    try:
        return datetime(*map(int, digits.groups())).date().isoformat() if digits else None  # type: ignore[arg-type]
    except ValueError:
        return None


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode(errors="surrogateescape")).hexdigest()
