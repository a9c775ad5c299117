"""What a screened scan's page says in words: what was found, and what the model's measured performance means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from brainmets.scoring.lesions import equivalent_mm
from brainmets.statistics.froc import ALL_SIZES, SIZES, SMALL_MM
from brainmets.vocabulary import HIT_RULE_TITLES

REGION_TITLES = {
    "ET": "enhancing tumour",
    "TC": "tumour core (enhancing and non-enhancing)",
    "WT": "whole tumour with its surrounding FLAIR hyperintensity",
}

Row = Mapping[str, Any]


def headline(lesions: int, refused: bool) -> str:
    """The page's answer in a few words."""
    if refused:
        return "Not judged: this scan was refused before any prediction"
    return f"{lesions} lesion{'s' * (lesions != 1)} found" if lesions else "No lesion found at the operating point"


def sizes(table: pd.DataFrame) -> str:
    """How large the accepted lesions are, in one sentence; empty without any. ``table``: ``schemas.SCREENED``."""
    accepted = table[table["accepted"]]
    if accepted.empty:
        return ""
    largest = accepted.iloc[int(accepted["longest_mm"].to_numpy().argmax())]
    measurable = int(accepted["measurable"].sum())
    if len(accepted) == 1:
        size = f"{largest['longest_mm']:.1f} x {largest['perpendicular_mm']:.1f} mm, {volume(largest['volume_mm3'])}"
        kind = "measurable" if measurable else "not measurable"
        return f"The lesion is {size}, {side(largest['side'])}; by the size rules of RANO-BM it is {kind}."
    least = accepted["longest_mm"].min()
    return (
        f"The longest diameters are from {least:.1f} to {largest['longest_mm']:.1f} mm (lesion {largest['lesion']}, "
        f"{side(largest['side'])}); all together {volume(accepted['volume_mm3'].sum())}; {measurable} of "
        f"{len(accepted)} measurable by the size rules of RANO-BM."
    )


def diameters_of(region: str) -> str:
    """What a reader must know of diameters of an operating point's region; empty where they are RANO-BM's."""
    if region != "WT":
        return ""
    return (
        "Diameters and volumes are those of the whole tumour: they include the oedema around a lesion and are not "
        "those of RANO-BM, which measures what takes up contrast agent."
    )


def nothing(performance: Row) -> str:
    """What it means that nothing was found: never that there is nothing."""
    return "This does not mean that there is no metastasis. " + measured(performance)


def folds(numbers: Sequence[int]) -> str:
    """How many models' mean it is.

    >>> folds([0, 1, 2]), folds([3])
    ('3 folds', 'fold 3')
    """
    return f"fold {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} folds"


def interval(performance: Row, low: Any, high: Any, digits: str = "") -> str:
    """An interval with its coverage; "no interval" where an end of it is not known."""
    ends = _ends(low, high, digits)
    return f"{100 * performance['coverage']:.3g}% interval {ends}" if ends else "no interval"


def measured(performance: Row) -> str:
    """What the model found of known lesions, and missed of small ones, in one or two sentences."""
    rows = {str(row["size"]): row for row in performance.get("rows", ())}
    whole = rows.get(ALL_SIZES.name)
    if whole is None or not whole["lesions"]:
        return "How many lesions this model finds was not measured."
    share = f"{percent(whole['sensitivity'])}, {interval(performance, whole['low'], whole['high'])}"
    text = f"On the held-out cases of its study the model found {_count(whole)} lesions ({share})"
    names = [size.name for size in SIZES if size.high <= SMALL_MM]
    few = [rows[name] for name in names if name in rows]
    lesions, found = (sum(int(row[key] or 0) for row in few) for key in ("lesions", "found"))
    if not lesions:
        return f"{text}; no lesion below {SMALL_MM:g} mm was among them, so that nothing is known of those."
    return f"{text}; of {lesions} lesion{'s' * (lesions != 1)} below {SMALL_MM:g} mm it missed {lesions - found}."


def false_positives(performance: Row) -> str:
    """How often what the model marks is none."""
    rate = finite(performance.get("false_positives"))
    if rate is None:
        return "How often it marks what is no lesion was not measured."
    ends = interval(
        performance, performance.get("false_positives_low"), performance.get("false_positives_high"), ".2f"
    )
    return f"It marked {rate:.2f} places a case that are no lesion ({ends})."


def performance_rows(performance: Row, volumes_mm3: Mapping[int, float]) -> list[dict[str, str]]:
    """Found lesions by size: size, found, sensitivity, interval, and which of ``volumes_mm3`` (by lesion) are here."""
    rows = []
    for row in performance.get("rows", ()):
        size = next((size for size in SIZES if size.name == row["size"]), None)
        here = [n for n, volume in volumes_mm3.items() if size and size.low <= equivalent_mm(volume) < size.high]
        rows.append(
            {
                "size": "all sizes" if size == ALL_SIZES else size_title(str(row["size"])),
                "found": _count(row) if row["lesions"] else "none measured",
                "sensitivity": percent(row["sensitivity"]) if row["lesions"] else "unknown",
                "interval": _ends(row["low"], row["high"]) or "no interval" if row["lesions"] else "",
                "here": f"{len(here)} in all" if size == ALL_SIZES else ", ".join(map(str, here)),
            }
        )
    return rows


def operating_point(model: Row) -> str:
    """Which candidates are called lesions, and how that was chosen."""
    threshold = finite(model.get("threshold"))
    region = REGION_TITLES.get(str(model["region"]), str(model["region"]))
    if threshold is None:
        return f"At this model's operating point no candidate of {region} is accepted: every one is listed below it."
    smallest = float(model["smallest_mm3"])
    least = f" and its volume {smallest:g} mm³ or more" if smallest else ""
    rate = float(model["false_positives"])
    aim = f"at most {rate:g} false positive{'s' * (rate != 1)} a case"
    met = f"find as many lesions as can be found with {aim}"
    if not model["met"]:
        met = f"mark as few false positives as this model can, since it cannot keep to {aim}"
    return (
        f"A candidate is a connected piece of {region}. It is called a lesion where its highest probability is "
        f"{threshold:.3f} or more{least}: chosen on the training cases, before any held-out case was looked at, to "
        f"{met} (hit: {HIT_RULE_TITLES.get(str(model['hit']), str(model['hit']))})."
    )


def reasons(why: Sequence[str]) -> tuple[list[str], str]:
    """Each lesion's own reasons, and, of several lesions, what all of them share, which is said once.

    >>> reasons(["on 1 slice; coarse", "10 mm or more; coarse"])
    (['on 1 slice', '10 mm or more'], 'coarse')
    """
    parts = [text.split("; ") if text else [] for text in why]
    shared = [part for part in parts[0] if all(part in other for other in parts)] if len(parts) > 1 else []
    own = ["; ".join(part for part in each if part not in shared) for each in parts]
    return own, "; ".join(shared)


# --- numbers ---------------------------------------------------------------------------------------------------------


def volume(mm3: float) -> str:
    """Below a millilitre in mm³.

    >>> volume(412.4), volume(1234.5)
    ('412 mm³', '1.23 mL')
    """
    return f"{mm3:.0f} mm³" if mm3 < 1000 else f"{mm3 / 1000:.2f} mL"


def place(x_mm: float, y_mm: float, z_mm: float) -> str:
    """A place in the scanner's mm, each with the side that it lies to.

    >>> place(-12.4, 30, -0.2)
    'L 12, A 30, I 0'
    """
    letters = ("RL", "AP", "SI")
    return ", ".join(
        f"{pair[value < 0]} {abs(value):.0f}" for pair, value in zip(letters, (x_mm, y_mm, z_mm), strict=True)
    )


def side(name: str) -> str:
    """A side within a sentence."""
    return {"middle": "in the midline", "unknown": "side unknown"}.get(name, f"on the {name}")


def probability(score: float) -> str:
    """Two digits, and more where they would say 1.

    >>> probability(0.872), probability(0.9991), probability(0.99999)
    ('0.87', '0.9991', '>0.9999')
    """
    if score >= 0.99995:
        return "1" if score == 1 else ">0.9999"
    return f"{score:.2f}" if score < 0.995 else f"{score:.4f}"


def span(low: str, high: str) -> str:
    """A range in words, which may be open at one end.

    >>> span("1", "2"), span("", "2"), span("1", ""), span("", "")
    ('1 to 2', 'up to 2', 'from 1', '')
    """
    if low and high:
        return f"{low} to {high}"
    return f"up to {high}" if high else f"from {low}" if low else ""


def percent(share: Any) -> str:
    """A share in whole percent; never 0 or 100 where it is not.

    >>> percent(0.975), percent(0.999), percent(None)
    ('98%', '>99%', 'unknown')
    """
    value = finite(share)
    if value is None:
        return "unknown"
    if 0 < value < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= value < 1 else f"{100 * value:.0f}%"


def short(value: float) -> str:
    """Three digits.

    >>> short(0.000123), short(12345.0), short(2.0)
    ('0.000123', '12,345', '2')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size_title(name: str) -> str:
    """A size of ``froc.SIZES`` as a reader sees it."""
    return name.replace("-", " to ").replace(">=", "≥ ").replace("<", "< ")


def moment(written: str) -> str:
    """An ISO 8601 time to the minute, in its own zone; a date alone, and what is no time, stays as it is."""
    if len(written) <= len("2024-05-17"):
        return written
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        return written
    zone = at.strftime("%Z") if at.tzinfo else ""
    return f"{at:%Y-%m-%d %H:%M} {zone}".strip()


def _count(row: Row) -> str:
    return f"{int(row['found'])} of {int(row['lesions'])}"


def _ends(low: Any, high: Any, digits: str = "") -> str:
    """Both ends of an interval, in percent where no ``digits`` are given; empty where one is not known."""
    ends = [finite(low), finite(high)]
    if None in ends:
        return ""
    return " to ".join(format(end, digits) if digits else percent(end) for end in ends)


def finite(value: Any) -> float | None:
    """A finite number; JSON has no other and says null."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return float(value)
