"""The report's section on detection: what each model finds at its operating point, and how that was chosen."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from brainmets.files import read_json, shaped
from brainmets.paths import StudyPaths
from brainmets.schemas import DETECTION, PATIENT_LEVEL, Schema, read
from brainmets.vocabulary import ARMS, HIT_RULE_TITLES, STRATEGIES, STRATEGY_TITLES, arm_title, ordered

ALL = "all"
"""The size that holds all lesions in notebook 07's tables."""
MEASURES = {"all_found": "all lesions found", "any_found": "any lesion found", "specificity": "specificity"}
"""Measures of the patient level that are counts of patients, and their headings; the area under the curve is none."""
AREA = "auroc"
FOUND, JUDGED = "detection_at_operating_point.csv", "patient_level.csv"
"""Tables of notebook 07 that the section needs, and the file of the operating points."""
CHOSEN = "operating_point.json"
FIGURE = "froc.png"
"""The figure of notebook 07 that is shown in this section."""
FURTHER = ("froc.csv", "froc_curves.csv", "paired_detection.csv", "detection_by_covariate.csv")
"""Further tables of notebook 07 on detection, shown by their links where they are."""
ABSENT = (
    "Nothing is said of detection at an operating point: {absent} not there. Scores from elsewhere and studies of an "
    "earlier version have none; `brainmets study` with this version makes them."
)

Row = Mapping[Hashable, Any]


class Detection(NamedTuple):
    """The section: one sentence on the choice, the headings of the sizes, a row per model, remarks; or why not.

    A row has ``arm, strategy, first, point, sizes, false, measures, area``; each cell ``value, interval, counts``.
    """

    sentence: str
    sizes: list[str]
    rows: list[dict[str, Any]]
    remarks: list[str]
    tables: list[str]
    absent: str = ""


def detection(files: StudyPaths) -> Detection:
    """What notebook 07 wrote of detection; without its files nothing but ``absent``, the sentence that says so.

    Raises ``tables.TableError`` and ``ValueError`` for files that are not as notebook 07 writes them.
    """
    folder = files.statistics
    if absent := [name for name in (CHOSEN, FOUND, JUDGED) if not (folder / name).is_file()]:
        listed = f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'}"
        return Detection("", [], [], [], [], ABSENT.format(absent=listed))
    found, judged = _lines(folder / FOUND, DETECTION), _lines(folder / JUDGED, PATIENT_LEVEL)
    sizes = list(dict.fromkeys(str(line["size"]) for line in found))
    by_size = {(line["arm"], line["strategy"], line["size"]): line for line in found}
    by_measure = {(line["arm"], line["strategy"], line["measure"]): line for line in judged}
    rows, remarks = [], []
    for arm in ordered((str(line["arm"]) for line in found), ARMS):
        own = [str(line["strategy"]) for line in found if line["arm"] == arm]
        for place, strategy in enumerate(ordered(own, STRATEGIES)):
            whole = by_size[arm, strategy, ALL]
            rows.append(
                {
                    "arm": arm_title(arm),
                    "strategy": STRATEGY_TITLES[strategy],
                    "first": place == 0,
                    "point": _point(whole),
                    "sizes": [_share(by_size.get((arm, strategy, size)), "sensitivity", "found", "lesions")
                              for size in sizes],
                    "false": _rate(whole),
                    "measures": [_share(by_measure.get((arm, strategy, name)), "value", "count", "patients")
                                 for name in MEASURES],
                    "area": _share(by_measure.get((arm, strategy, AREA)), "value", "", "patients"),
                }
            )  # fmt: skip
            lines = [whole, *(by_measure.get((arm, strategy, name), {}) for name in (*MEASURES, AREA))]
            remarks += [
                f"{arm_title(arm)}, {STRATEGY_TITLES[strategy]}: {note}"
                for note in dict.fromkeys(str(line.get("note", "")) for line in lines)
                if note
            ]
    linked = [name for name in (FOUND, JUDGED, *FURTHER) if (folder / name).is_file()]
    return Detection(_how(folder / CHOSEN, found), sizes, rows, remarks, linked)


@shaped
def _how(path: Path, found: list[Row]) -> str:
    """The sentence on how the points were chosen."""
    content = read_json(path)
    aim, chose = content["aim"], {case for point in content["points"] for case in point["chosen_on"]}
    rate, cases = float(aim["false_positives"]), int(max(line["cases"] for line in found))
    return (
        f"Each model's threshold and smallest candidate were chosen on {len(chose)} cross-validated training cases "
        f"alone, to find as many {aim['region']} lesions as can be found with at most {rate:g} false positive"
        f"{'' if rate == 1 else 's'} a patient (a hit: {HIT_RULE_TITLES[aim['hit']]}), were frozen in {path.name} "
        f"(SHA-256 {str(content['sha256'])[:12]}...), and only then applied to the {cases} held-out cases."
    )


def _lines(path: Path, schema: Schema) -> list[Row]:
    return list(read(path, schema).to_dict("records"))


def _point(line: Row) -> dict[str, str]:
    """Threshold and smallest volume of a model's operating point."""
    if math.isinf(line["threshold"]):
        return {"value": "none", "interval": "nothing is accepted", "counts": ""}
    smallest = f"from {line['smallest_mm3']:g} mm³" if line["smallest_mm3"] else "any volume"
    return {"value": f"{line['threshold']:.3f}", "interval": smallest, "counts": ""}


def _share(line: Row | None, value: str, count: str, of: str) -> dict[str, str]:
    """A share with its interval and its counts; "none" where it does not exist."""
    if line is None or math.isnan(line[value]):
        total = "" if line is None or math.isnan(line[of]) else f"of {line[of]:.0f}"
        return {"value": "none", "interval": "", "counts": total}
    counts = f"{line[count]:.0f} of {line[of]:.0f}" if count else f"{line[of]:.0f} patients"
    return {"value": f"{line[value]:.3f}", "interval": _interval(line["low"], line["high"], 3), "counts": counts}


def _rate(line: Row) -> dict[str, str]:
    """False positives a patient with their interval and number."""
    interval = _interval(line["false_positives_low"], line["false_positives_high"], 2)
    counts = f"{line['false']:.0f} in {line['cases']:.0f}"
    return {"value": f"{line['false_positives']:.2f}", "interval": interval, "counts": counts}


def _interval(low: float, high: float, digits: int) -> str:
    return "no interval" if math.isnan(low) or math.isnan(high) else f"{low:.{digits}f} to {high:.{digits}f}"
