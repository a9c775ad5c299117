"""What is unusual in a cohort's quality numbers: flags with a reason in words.

A value is flagged where it is wrong in any cohort (``low`` and ``high`` of its ``Rule``), and where it lies far from
the cohort's other patients: a robust z-score (Iglewicz and Hoaglin, How to detect and handle outliers, 1993: median
and scaled median absolute deviation), with a least scale per measure, so that in a cohort of near-equal values no
small difference counts. Where the limits come from is said beside each.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.cohorts.matching import CLEAR
from brainmets.preparation.quality import NATIVE, PAIRS, QUALITY_COLUMNS, REFERENCE
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES

FLAG_COLUMNS = ("case", "severity", "measure", "value", "usual", "text")

FAR = 5.0
"""Robust z-score from which a value is unusual. Of 40 patients and 55 measures, normal values would give 0.001 false
alarms; real ones have heavier tails, hence not the 3.5 that suits a single measure."""
FEWEST = 8
"""Patients with a value below which nothing is learnt from the cohort: the median absolute deviation of fewer is
mostly chance, and only absolute limits hold."""

Worse = Literal["higher", "lower", "either"]


@dataclass(frozen=True)
class Rule:
    """How one measure is judged.

    ``worse``: the side that means a failure. ``ratio``: whether patients are compared by ratio (logarithms) rather
    than by difference. ``least``: the smallest scale, in the unit, or as a natural logarithm for a ratio. ``low``,
    ``high``: a value beyond is wrong in any cohort, a flag of ``severity``. ``optional``: no value is no finding.
    ``means``: what is likely where it is flagged; ``{sequence}`` stands for the sequence's title. ``wrong``: the same
    where an absolute limit is broken, with ``{value}``.
    """

    title: str
    unit: str
    worse: Worse
    ratio: bool
    least: float
    means: str
    wrong: str = ""
    low: float = -math.inf
    high: float = math.inf
    optional: bool = False
    severity: Literal["error", "warning"] = "error"


LOOK = "compare it with the contrast T1 in the checkerboard"

RULES: dict[str, Rule] = {
    "air_pct": Rule(
        # 0.1% in two real cases, 2.6% where sequences were stripped one by one; a mask shifted by 15 mm 17 to 21%.
        "air within the brain mask", "%", "higher", False, 0.6,
        "the brain mask holds more air than in other patients: is it shifted or too large?",
        "{value:.0f}% of the brain mask is dark in every sequence: it is shifted, too large, or the images are cut",
        high=6,
    ),
    "away_mm": Rule(
        "distance to the best match with the contrast T1", "mm", "higher", False, 1.0,
        "{sequence} lies away from the contrast T1: " + LOOK,
        "{sequence} lies about {value:.0f} mm from the contrast T1: its registration failed", high=0, optional=True,
    ),
    "flipped": Rule(
        # Left and right swapped: 2.0 to 4.6 in six real and one phantom sequence. Right: 0.45 at the most, turned by 8
        # degrees 1.2, another patient's 0.8.
        "match of the mirror image, as a share", "", "higher", False, 0.12,
        "the mirror image of {sequence} matches the contrast T1 nearly as well as itself: is left on its left?",
        "the mirror image of {sequence} matches the contrast T1 better than itself: left and right are swapped",
        high=1.5,
    ),
    "mirrored": Rule(
        "fit of the mirror image, less the fit", "", "higher", False, 0.012,
        # Right: -0.028 to -0.207 in 40 real registrations, -0.06 to -0.20 in phantoms. Flipped: 0.032 to 0.244.
        # Another patient's, turned by 90 degrees or noise: 0.000 to 0.005.
        "the mirror image of {sequence} fits nearly as well as {sequence} itself: is left on its left?",
        "the mirror image of {sequence} fits as well as {sequence} itself, or better: its left and right are swapped, "
        "or it is another patient's",
        high=-0.01, optional=True,
    ),
    "clear_sd": Rule(
        # The limit is matching.CLEAR, argued there.
        "clearness of the match with the contrast T1", "SD", "lower", True, 0.2,
        "{sequence} matches the contrast T1 less clearly than in other patients: " + LOOK,
        "{sequence} matches the contrast T1 in no place: it is turned or another patient's", low=CLEAR,
    ),
    "agreement": Rule(
        # In place: 0.24 to 0.86 in nine pairs of three real cases, 0.50 to 0.92 in phantoms. Displaced by 10 mm: 0.05
        # at the most, upside down 0.06.
        "agreement of edges with the contrast T1", "", "lower", True, 0.08,
        "the edges of {sequence} fit the contrast T1's less than in other patients: it is likely displaced, turned, "
        "or another patient's; " + LOOK,
        "the edges of {sequence} do not fit the contrast T1's: it is displaced, turned, or another patient's", low=0.1,
    ),
    "turned": Rule(
        # In place 0.34 to 0.46 in eight real and phantom pairs; turned by 4 degrees 0.8 to 1.0, by 8 degrees 2.0 to
        # 2.4.
        "agreement when turned by 8 degrees, as a share", "", "higher", False, 0.06,
        "{sequence} would fit the contrast T1 nearly as well when turned by 8 degrees: is it turned?",
        "{sequence} fits the contrast T1 better when turned by 8 degrees: its registration failed", high=1.2,
    ),
    "absent_pct": Rule(
        # A case prepared by others has 8% (its sequences were stripped one by one), two more 0.01%; a sequence that
        # lost the upper 36 mm of the brain has 16%, one that hangs upside down 15 to 29%.
        "brain outside the field of view", "%", "higher", False, 1.0,
        "{sequence} covers less of the brain than in other patients: is it cut off, or displaced?",
        "{sequence} is missing in {value:.0f}% of the brain: it is cut off, displaced or empty", high=12,
    ),
    "agreement_share": Rule(
        "agreement of edges with the contrast T1, as a share of the patient's best", "", "lower", True, 0.08,
        "{sequence} fits the contrast T1 less than the patient's other sequences do, and than in other patients: it "
        "is likely displaced or turned; " + LOOK,
    ),
    "shared_bits": Rule(
        # In place 0.22 or more in real pairs and in phantoms, displaced by 10 mm 0.01 to 0.06.
        "shared information", "bits", "lower", True, 0.2,
        "{sequence} and {other} share less information than in other patients: one of them is likely displaced, "
        "turned or another patient's",
        "{sequence} and {other} share next to no information: one of them is displaced, or not what its name says",
        low=0.03,
    ),
    "label_outside_pct": Rule(
        "label outside the brain mask", "%", "higher", False, 1.0,
        "more of the label lies outside the brain mask than in other patients: is the label displaced, the mask cut?",
        "{value:.0f}% of the label lies outside the brain mask: the label is displaced, or the mask cuts lesions off",
        high=10,
    ),
    "label_fit": Rule(
        # In place 1.0 in two real cases (sclerosis), 0.82 or more in 70 phantoms, 0.53 or more in 20 that were
        # registered, 0.49 in one of 4 mm voxels. Moved by 10 mm 0.16 in the real cases, 0.07 to 0.57 in phantoms.
        # A warning: no real metastases with labels were at hand, and cavities are dark.
        "fit of the label", "", "lower", False, 0.12,
        "the label would fit the images better elsewhere: is it displaced?",
        "the label would fit the images far better elsewhere: it is displaced", low=0.35, optional=True,
        severity="warning",
    ),
    "template_away_mm": Rule(
        "distance to the best match with the template", "mm", "higher", False, 1.0,
        "the head lies away from the template: is it upright?",
        "the head lies about {value:.0f} mm from the template: its registration to the template failed", high=0,
        optional=True,
    ),
    "template_turned": Rule(
        # Upright 0.6 to 1.4 in two real cases and six phantoms, turned by 20 to 25 degrees up to 2.5.
        "agreement with the template when turned by 20 degrees, as a share", "", "higher", False, 0.15,
        "the head would fit the template as well when turned by 20 degrees: is it upright?",
        "the head fits the template far better when turned by 20 degrees: it is not upright", high=1.8,
    ),
    "template_clear_sd": Rule(
        # In place 19 to 39 in two real cases and four phantoms; turned by 20 degrees 11, upside down 6.
        "clearness of the match with the template", "SD", "lower", True, 0.15,
        "the head matches the template less clearly than in other patients: is it upright?",
        "the head matches the template in no place: is it upright, and is this a brain?", low=9,
    ),
    "template_agreement": Rule(
        "agreement of edges with the template", "", "lower", True, 0.15,
        "the head fits the template less than in other patients: is it upright?",
    ),
    "brain_mL": Rule(
        # Intracranial volumes of adults are 1.1 to 1.8 L; masks without outer CSF of two real patients 1.1 L.
        "brain volume", "mL", "either", True, 0.06,
        "the brain mask is smaller or larger than in other patients: does its outline follow the brain?",
        "the brain mask holds {value:.0f} mL, which no adult's brain does: it is cut, or holds more than brain",
        low=800, high=2200,
    ),
    "template_dice": Rule(
        # 0.74 in two real cases whose masks hold no outer CSF, 0.90 to 0.94 in phantoms; upside down 0.63.
        "overlap with the template's brain", "Dice", "lower", False, 0.02,
        "the brain mask covers the template's brain less than in other patients: is it cut, shifted or too small?",
        "the brain mask hardly covers the template's brain: it is cut, shifted, or of the wrong size", low=0.6,
    ),
    "dark_rim_pct": Rule(
        # A right mask: 25% of one real head (5.5 mm slices), of phantoms with skull 55 to 64% with slices of 5 mm and
        # 92 to 96% with thin ones. 4 mm too small,
        # 4 mm too large or shifted by 12 mm: 10 to 14% and 7 to 26%; 8 mm too small 4% and 0%.
        "dark rim around the brain mask", "%", "lower", True, 0.15,
        "less of what surrounds the brain mask is dark than in other patients: does its outline follow the brain, or "
        "does it cut brain off or hold skull?",
        "nothing dark surrounds the brain mask: it cuts brain off, or holds skull", low=3, optional=True,
    ),
    "spread_mm": Rule(
        # Right: 0.6 or less in real scans and phantoms. Another patient's 0.6 to 5.6, turned by 90 degrees 52, noise
        # 89.
        "spread of the registration's starts", "mm", "higher", False, 0.5,
        "several starts of {sequence}'s registration ended in different places: " + LOOK,
        "several starts of {sequence}'s registration ended {value:.1f} mm apart: it found no clear place; " + LOOK,
        high=2,
    ),
    "metric": Rule(
        # Normalised mutual information, 1.10 to 1.25 where a fit is right and 1.03 to 1.06 before; it differs between
        # scanners by some hundredths.
        "registration metric", "", "lower", False, 0.015,
        "the registration of {sequence} ended with a poor fit: " + LOOK,
    ),
    "rotation_deg": Rule(
        # A head holder leaves a head some 20 degrees; between scans of one session people turn by 15 at the most.
        "rotation", "degrees", "higher", False, 3.0,
        "{sequence} was turned more than in other patients: " + LOOK,
        "{sequence} was turned by {value:.0f} degrees, more than a head turns in a scanner: " + LOOK, high=40,
    ),
    "translation_mm": Rule(
        "translation", "mm", "higher", False, 6.0,
        "{sequence} was moved further than in other patients: " + LOOK,
    ),
    "lesions_restored": Rule(
        "lesions kept through resampling", "", "higher", False, 1.0,
        "resampling would have lost more lesions than in other patients, and keeps each as one voxel: is the label "
        "map made of specks?",
    ),
}  # fmt: skip
"""Per kind of measure, the most telling first: of several errors its words come first. Columns without a rule
(``label_outside_voxels``, ``label_outside_mL``) are not judged here, but by ``cohort_quality``."""


def rule_of(measure: str) -> tuple[Rule, tuple[str, ...]] | None:
    """The rule of a column of quality.csv, and the sequences that it is about; ``None`` for one that is not judged.

    >>> rule_of("t1n_t2w_shared_bits")[1], rule_of("brain_mL")[1], rule_of("label_outside_mL")
    (('t1n', 't2w'), (), None)
    """
    for one, other in PAIRS:
        if measure == f"{one}_{other}_shared_bits":
            return RULES["shared_bits"], (one, other)
    head, _, rest = measure.partition("_")
    if head in SEQUENCES and rest in RULES:
        return RULES[rest], (head,)
    return (RULES[measure], ()) if measure in RULES else None


def flag(table: pd.DataFrame, there: Mapping[str, Collection[str]] | None = None) -> pd.DataFrame:
    """Everything unusual, as ``FLAG_COLUMNS``: cases in the table's order, errors before warnings, errors by the order
    of ``RULES`` and warnings by how far they lie.

    ``table``: one row per patient, ``case`` and ``QUALITY_COLUMNS``; absent columns are not judged, an empty table
    has no flags. ``severity`` "error": beyond an absolute limit (of most measures), or no value where most others
    have one; "warning": far from the cohort (of ``FEWEST`` values or more). ``usual``: median and range of the other
    patients' values that are not flagged themselves. ``there``: the sequences of each case that is not of all four:
    nothing is awaited of the others.
    """
    given = there or {}
    lacking = [set(SEQUENCES).difference(given.get(case, SEQUENCES)) for case in table["case"]]
    rows = [row for measure in QUALITY_COLUMNS if measure in table for row in _column(table, measure, lacking)]
    order = {case: place for place, case in enumerate(table["case"])}
    rows.sort(key=lambda row: (order[row["case"]], row["severity"] != "error", row["rank"], -row["far"]))
    return pd.DataFrame(rows, columns=list(FLAG_COLUMNS))


def in_short(value: float) -> str:
    """Three digits, whole from 100 on.

    >>> in_short(1512.3), in_short(0.04567), in_short(12.0)
    ('1512', '0.0457', '12')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def suspects(flags: pd.DataFrame, case: str) -> list[str]:
    """The sequences that the flags of a case are about, in the order of ``SEQUENCES``; none where all are.

    A pair points at a sequence only where no other flag of the case does, and at the one that the reference is not.
    What befell all sequences is not a sequence's fault.
    """
    about = [rule_of(measure) for measure in flags.measure[flags.case == case]]
    named = {found[1][0] for found in about if found is not None and len(found[1]) == 1}
    if not named:
        named = {name for found in about if found is not None for name in found[1]} - {REFERENCE}
    return [sequence for sequence in SEQUENCES if sequence in named] if len(named) < len(SEQUENCES) else []


def _awaited(measure: str, sequences: Collection[str], lacking: Collection[str]) -> bool:
    """Whether a case that lacks these sequences must have a value: not of one of them, nor a share of several."""
    if measure == "dark_rim_pct":
        return NATIVE not in lacking
    return not (set(sequences) & set(lacking)) and not (lacking and measure.endswith("_agreement_share"))


def _column(table: pd.DataFrame, measure: str, lacking: Sequence[Collection[str]]) -> Iterator[dict[str, Any]]:
    """The flags of one measure, each with ``rank`` (of its rule among errors) and ``far`` (its z-score)."""
    if (found := rule_of(measure)) is None:
        return
    rule, sequences = found
    values = table[measure].to_numpy(float)
    known = np.isfinite(values)
    wrong = known & ((values < rule.low) | (values > rule.high))
    far = _far(values, known, rule)
    unusual = wrong | (far >= FAR)
    awaited = np.array([_awaited(measure, sequences, lacks) for lacks in lacking], bool)
    absent = ~known & awaited & (not rule.optional) & (2 * np.count_nonzero(known) > np.count_nonzero(awaited))
    titles = [SEQUENCE_TITLES[name] for name in sequences]
    words = {"sequence": titles[0] if titles else "", "other": titles[-1] if titles else ""}
    for place in np.flatnonzero(unusual | absent):
        ordinary = values[known & ~unusual & (np.arange(len(values)) != place)]
        if absent[place]:
            text = f"{rule.title} {'of ' + ' and '.join(titles) + ' ' if titles else ''}could not be measured: "
            text += "is there anything in the image?"
        else:
            text = (rule.wrong if wrong[place] else rule.means).format(**words, value=values[place])
        yield {
            "case": table["case"].iloc[place],
            "severity": "error" if absent[place] else rule.severity if wrong[place] else "warning",
            "measure": measure,
            "value": float(values[place]),
            "usual": _usual(ordinary),
            "text": text[0].upper() + text[1:],
            "rank": list(RULES.values()).index(rule) if wrong[place] else len(RULES),
            "far": float(far[place]),
        }


def _far(values: npt.NDArray[np.float64], known: npt.NDArray[np.bool_], rule: Rule) -> npt.NDArray[np.float64]:
    """How far each value lies on the worse side, in robust standard deviations; 0 where nothing is learnt."""
    far = np.zeros(len(values))
    if np.count_nonzero(known) < FEWEST:
        return far
    scaled = np.log(np.maximum(values[known], 1e-3)) if rule.ratio else values[known]
    away = scaled - np.median(scaled)
    away /= max(1.4826 * float(np.median(np.abs(away))), rule.least)
    far[known] = {"higher": away, "lower": -away, "either": np.abs(away)}[rule.worse]
    return far


def _usual(values: npt.NDArray[np.float64]) -> str:
    if not len(values):
        return ""
    return f"{in_short(np.median(values))} ({in_short(values.min())} to {in_short(values.max())})"
