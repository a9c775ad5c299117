"""What the report says, gathered from the study's result files: the tables, the figures, the cases, the steps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from brainmets.engine.steps import SHOWS_HEADS, result, step_name
from brainmets.files import read_json, shaped
from brainmets.params.study import Study
from brainmets.paths import NOTEBOOKS, StudyPaths
from brainmets.statistics.declared import Declared
from brainmets.statistics.descriptive import COUNTS
from brainmets.statistics.tests import percent
from brainmets.vocabulary import ARMS, METRIC_TITLES, REGION_ORDER, STRATEGIES, STRATEGY_TITLES, arm_title, ordered

METRICS = {"dice": ("Dice", 3), "hd95": ("HD95, mm", 1)}
"""Metrics of the result table: heading and decimals."""
CASE_METRICS = {
    "dice": ("Dice", 3),
    "hd95": ("HD95, mm", 1),
    "nsd_1mm": ("Surface Dice at 1 mm", 3),
    "sensitivity": ("Sensitivity", 3),
    "precision": ("Precision", 3),
    "lesion_iou_tp": ("Lesions found", 0),
    "lesion_iou_fn": ("Lesions missed", 0),
    "lesion_iou_fp": ("False lesions", 0),
    "reference_volume": ("Reference, mL", 2),
    "predicted_volume": ("Predicted, mL", 2),
}
"""Metrics of the table of cases: heading and decimals."""
SMALL_TABLES = ("small_lesions.csv", "small_lesions_repeats.csv", "small_lesions_froc.csv")
SMALL_FIGURE = "small_lesions.png"
"""What notebook 07 writes of arms in small lesions, where the study asks."""


class Picture(NamedTuple):
    """A figure of the report: its file, its text for those who do not see it, and what to read from it."""

    file: Path
    alt: str
    shows: str
    cannot_show: str


class Step(NamedTuple):
    """One run of a notebook: its name, its executed copy if there is one, and its provenance record."""

    name: str
    executed: Path | None
    record: dict[str, Any]


def conclusions(files: StudyPaths) -> tuple[list[str], list[str], list[Picture]]:
    """Notebook 07's answer, at most five sentences; the conclusion's paragraphs; and its figures in its order.

    Raises ``ValueError`` where ``statistics.json`` holds no answer or no conclusion.
    """
    return _conclusions(files.statistics / "statistics.json")


@shaped
def _conclusions(path: Path) -> tuple[list[str], list[str], list[Picture]]:
    written = _results(path, "07")
    if not written.get("answer") or not written.get("conclusion"):
        raise ValueError("statistics.json holds no answer or no conclusion: rerun notebook 07")
    figures = [_picture(path.parent, entry) for entry in written.get("figures", [])]
    return [str(sentence) for sentence in written["answer"]], written["conclusion"].split("\n\n"), figures


def small_lesions(files: StudyPaths) -> list[str]:
    """Notebook 07's sentences on arms in small lesions; empty where the study does not ask."""
    return _small_lesions(files.statistics / "statistics.json")


@shaped
def _small_lesions(path: Path) -> list[str]:
    return [str(sentence) for sentence in _results(path, "07").get("small_lesions", [])]


class Verdict(NamedTuple):
    """What the declared rule decides, in few words: the verdict, what it is on, and when the rule was declared."""

    verdict: str
    endpoint: str
    declared: str
    confirms: bool


def verdict(files: StudyPaths) -> Verdict:
    """Notebook 07's verdict. Raises ``ValueError`` where ``statistics.json`` holds none."""
    return _verdict(files.statistics / "statistics.json")


@shaped
def _verdict(path: Path) -> Verdict:
    decision = _results(path, "07").get("decision")
    if not decision:
        raise ValueError("statistics.json holds no decision: rerun notebook 07")
    rule, declared = decision["rule"], decision["declared"]
    metric, region = rule["endpoint"]["metric"], rule["endpoint"]["region"]
    found = f"{decision['verdict']}, {decision['size']}" if decision["size"] else str(decision["verdict"])
    unit = " mm" if decision["endpoints"][0]["unit"] == "mm" else ""
    title = METRIC_TITLES.get(metric, metric.replace("_", " "))
    what = f"{title} of {region}, margin {rule['margin']:g}{unit}, one-sided level {rule['alpha']:g}"
    when = Declared(declared["when"], declared["changed"]).in_words
    return Verdict(found, what, when, bool(declared["confirms"]))


def best_model(files: StudyPaths) -> str:
    """Notebook 07's sentence on the model that is explained and handed to experts, and how it was chosen."""
    return _sentence(files.best_model)


@shaped
def _sentence(path: Path) -> str:
    return str(_results(path, "07")["sentence"])


def level(steps: Sequence[Step]) -> str:
    """The level of the intervals that notebook 07 made, in percent."""
    return percent(1 - next(step.record["parameters"]["alpha"] for step in steps if step.name == "07_statistics"))


def result_table(descriptive: pd.DataFrame) -> tuple[list[str], list[dict[str, Any]], list[str]]:
    """Regions; one row per model with ``arm, strategy, first, cells``; and the remarks below the table.

    ``descriptive`` is notebook 07's table. Strategies stand in their order within each arm; every cell has the mean,
    its interval, n, and ``masks``: the cases with the region in both masks / only in the reference / only in the
    prediction / in none, empty where that is not known. A mean without a defined value reads "none".
    """
    table = descriptive[descriptive["metric"].isin(METRICS)].assign(note=descriptive["note"].fillna("").astype(str))
    lines = {
        (line["arm"], line["strategy"], line["metric"], line["region"]): line for line in table.to_dict("records")
    }
    regions = ordered(table["region"], REGION_ORDER)
    rows = []
    for arm in ordered(table["arm"], ARMS):
        for place, strategy in enumerate(ordered(table.loc[table["arm"] == arm, "strategy"], STRATEGIES)):
            cells = [
                _cell(lines.get((arm, strategy, metric, region)), digits)
                for metric, (_, digits) in METRICS.items()
                for region in regions
            ]
            rows.append(
                {"arm": arm_title(arm), "strategy": STRATEGY_TITLES[strategy], "first": place == 0, "cells": cells}
            )
    notes = [
        f"{arm_title(arm)}, {STRATEGY_TITLES[strategy]}, {region} {METRICS[metric][0]}: {line['note']}"
        for (arm, strategy, metric, region), line in lines.items()
        if line["note"]
    ]
    return regions, rows, notes


def case_table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per case, model and region with the metrics of ``CASE_METRICS`` that ``scores`` (long) has.

    >>> row = {"arm": "default", "strategy": "scratch", "case": "P1", "region": "ET", "unit": "1"}
    >>> case_table(pd.DataFrame([row | {"metric": "dice", "value": 0.5}])).to_dict("records")
    [{'case': 'P1', 'arm': 'default', 'strategy': 'scratch', 'region': 'ET', 'dice': 0.5}]
    """
    key = ["case", "arm", "strategy", "region"]
    place = {name: number for number, name in enumerate((*ARMS, *STRATEGIES, *REGION_ORDER))}
    table = scores.pivot(index=key, columns="metric", values="value").rename_axis(columns=None).reset_index()
    table = table.sort_values(key, key=lambda column: column if column.name == "case" else column.map(place))
    return table[[*key, *(name for name in CASE_METRICS if name in table)]]


def cases(files: StudyPaths) -> tuple[list[dict[str, Any]], list[Picture], str]:
    """Notebook 08's cases, its other pictures, and its remark on how the cases were chosen.

    A case has ``name, explanation, volumes`` and ``pictures``. Raises ``ValueError`` where an earlier version
    of the notebook wrote ``review.json``.
    """
    return _cases(files.review / "review.json")


@shaped
def _cases(path: Path) -> tuple[list[dict[str, Any]], list[Picture], str]:
    content = _results(path, "08")
    if not all("volumes" in case and "focus" in case["volumes"] for case in content["cases"]):
        raise ValueError("review.json is from an earlier version of notebook 08: run brainmets notebook 08 again")
    reviewed = [
        case | {"pictures": [_picture(path.parent, entry) for entry in case["figures"]]} for case in content["cases"]
    ]
    return reviewed, [_picture(path.parent, entry) for entry in content["figures"]], content["rule"]


def steps(files: StudyPaths, study: Study) -> list[Step]:
    """Every step of the study in order. Raises ``FileNotFoundError`` naming the first that is not done."""
    found = []
    for notebook in NOTEBOOKS:
        for job in study.jobs(notebook):
            name = step_name(notebook, job)
            executed = files.runs / f"{name}.ipynb"
            record = _record(result(files, notebook, job), name)
            shown = executed.is_file() and notebook not in SHOWS_HEADS
            found.append(Step(name, executed if shown else None, record))
    return found


@shaped
def _record(path: Path, step: str) -> dict[str, Any]:
    """The record of a step, with what the report says of it: seconds, device, commit and versions."""
    record: dict[str, Any] = _results(path, step)["provenance"]
    kinds = {"seconds": int | float, "device": str, "commit": str, "versions": dict}
    if wrong := [name for name, kind in kinds.items() if not isinstance(record[name], kind)]:
        raise TypeError(f"{wrong[0]} is {record[wrong[0]]!r}")
    return record


def versions(found: list[Step]) -> dict[str, str]:
    """Package to version; where steps ran with different versions, all of them."""
    packages = {package: None for step in found for package in step.record["versions"]}
    return {
        package: " and ".join(
            dict.fromkeys(s.record["versions"][package] for s in found if package in s.record["versions"])
        )
        for package in packages
    }


def duration(seconds: float) -> str:
    """The time as a reader says it.

    >>> [duration(value) for value in (0.44, 42.4, 185, 7800)]
    ['0.4 s', '42 s', '3 min 05 s', '2 h 10 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _cell(line: Mapping[Hashable, Any] | None, digits: int) -> dict[str, str]:
    if line is None:
        return {"mean": "none", "interval": "", "n": "0", "masks": ""}
    counts = [line[name] for name in COUNTS]
    masks = "" if pd.isna(counts).any() else "/".join(str(int(count)) for count in counts)
    found = {"mean": "none", "interval": "", "n": str(int(line["n"])), "masks": masks}
    if pd.isna(line["mean"]):
        return found
    low, high = line["ci_low"], line["ci_high"]
    interval = "no interval" if pd.isna(low) else f"{low:.{digits}f} to {high:.{digits}f}"
    return found | {"mean": f"{line['mean']:.{digits}f}", "interval": interval}


def _picture(folder: Path, entry: dict[str, Any]) -> Picture:
    file = folder / entry["file"]
    if not file.is_file():
        raise FileNotFoundError(f"{entry['file']} is not in {folder.name}: rerun the notebook that draws it")
    return Picture(file, entry.get("alt", entry["shows"]), entry["shows"], entry["cannot_show"])


def _results(path: Path, step: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} of step {step} is not there: run that notebook first")
    return read_json(path)
