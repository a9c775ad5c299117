"""The verdict of a study, by the rule that its YAML declares: one endpoint, a margin that would matter, a level.

A patient's difference is fine-tuned minus scratch, averaged over the arms that have both and over the patient's scans,
and turned so that above 0 is better when fine-tuned. The arms are all of the study's: one with arms of its own beside
the paper's asks about the mean over these, and its verdict names them. Three questions are asked of these differences
in each direction, from the easiest to the hardest, each only where the one before it was answered with yes:

- is fine-tuning better than a loss of the margin, better than 0, better than a gain of the margin?
- is it worse than a gain of the margin, worse than 0, worse than a loss of the margin?

The declared test is the exact one-sided signed-rank test of the differences less -margin, 0 or margin, at alpha.
Beside it, deciding nothing, stands the test of the mean by swapping labels within patients, with the same shifts. The
verdict:

- ``superior``: better than 0; its size is ``beyond the margin`` where better than the margin too, ``within the
  margin`` where a gain of the margin is excluded, and open otherwise;
- ``inferior``: the same the other way round;
- ``equivalent``: neither, and a difference of the margin is excluded both ways (two one-sided tests);
- ``non-inferior``: a loss of the margin is excluded, and nothing else is shown;
- ``inconclusive``: a loss of the margin is not excluded, nor is a difference shown; a gain of it may be excluded;
- ``too few patients``: no outcome of so few could have answered any question;
- ``not available``: there are no differences, and the note says why.

In each direction at most alpha of studies get a false answer, since the questions are nested and asked in order; the
interval shown is at 1 - 2 alpha. In the same way secondary endpoints wait for each other: the first is tested for
superiority where the primary endpoint is superior, the next where the first was shown, and so on to the first that is
not shown or not available. A false superiority in any of them has level alpha.

Sources: shifted hypotheses and two one-sided tests, Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657-680;
switching between non-inferiority and superiority, CPMP, Br. J. Clin. Pharmacol. 52 (2001) 223-228; tests in a fixed
order, Maurer, Hothorn and Lehmacher, Biometrie in der chemisch-pharmazeutischen Industrie 6 (1995) 3-18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any, Literal

import numpy as np
import pandas as pd

from brainmets.params import Decision, Endpoint
from brainmets.statistics.comparisons import Settings, strategy_sides
from brainmets.statistics.tables import with_reference
from brainmets.statistics.tests import (
    NAN,
    Floats,
    generator,
    hodges_lehmann,
    permutation,
    rounded,
    smallest_p,
    wilcoxon,
)
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    DETECTION_SENSITIVITY,
    PAPER_ARMS,
    Alternative,
    arm_title,
    ordered,
)

Verdict = Literal[
    "superior", "inferior", "equivalent", "non-inferior", "inconclusive", "too few patients", "not available",
    "shown", "not shown", "not tested",
]  # fmt: skip
"""Of the primary endpoint the first seven; of a secondary one ``not available`` and the last three."""
BEYOND, WITHIN = "beyond the margin", "within the margin"
QUESTIONS: tuple[tuple[str, Alternative, int], ...] = (
    ("above_loss", "greater", -1),
    ("above_zero", "greater", 0),
    ("above_gain", "greater", 1),
    ("below_gain", "less", 1),
    ("below_zero", "less", 0),
    ("below_loss", "less", -1),
)
"""Name, direction, and margins that the differences are shifted by; three upwards, three downwards."""
TESTED = tuple(name for name, _, _ in QUESTIONS)
DECISION_COLUMNS = [
    "place", "role", "metric", "region", "unit", "margin", "alpha", "n", "verdict", "size", "verdict_by_mean",
    "effect", "effect_low", "effect_high", "coverage", "mean", "mean_low", "mean_high",
    *(f"p_{name}" for name in TESTED), *(f"swap_p_{name}" for name in TESTED), "note",
]  # fmt: skip
NOT_COMPARED = "no arm was scored both fine-tuned and from scratch"


@dataclass(frozen=True)
class Differences:
    """What one endpoint gives: a difference per patient, above 0 where fine-tuned is better, none NaN.

    ``missing`` says why there is none, and is empty where there are some; ``remarks`` are said of those there are.
    """

    values: Floats
    unit: str
    missing: str = ""
    remarks: tuple[str, ...] = ()


def differences(
    scores: pd.DataFrame,
    endpoint: Endpoint,
    settings: Settings,
    detection: pd.DataFrame | None = None,
    why_no_detection: str = "",
) -> Differences:
    """The patients' differences in ``endpoint``.

    ``scores`` is a score table; cases whose reference lacks the region are left out. ``detection`` holds the values of
    ``detection_sensitivity`` with the same columns; None where there are none, for which ``why_no_detection`` is given
    as the reason. A patient without a pair of defined values has no difference, and a remark names the cases.
    """
    of_detection = endpoint.metric == DETECTION_SENSITIVITY
    table = detection if of_detection else with_reference(scores)
    if table is None:
        return _none(why_no_detection or f"{endpoint.metric} was not computed")
    own = table[(table["metric"] == endpoint.metric) & (table["region"] == endpoint.region)]
    if own.empty:
        why = why_no_detection if of_detection else ""
        return _none(why or f"no value of {endpoint.metric} in {endpoint.region} is in the tables")
    found = list(strategy_sides(own, COMPARED_STRATEGIES, settings.patients))
    if not found:
        return _none(NOT_COMPARED)
    ((pooled, _),) = found
    all_patients = pooled.differences if pooled.better == "greater" else -pooled.differences
    kept = all_patients[~np.isnan(all_patients)] + 0.0  # no -0
    remarks = (*_over(own), *pooled.undefined(), *pooled.few_patients(), *pooled.remarks)
    if not len(kept):
        return _none("; ".join([f"no patient has {endpoint.metric} of both strategies", *remarks]))
    return Differences(kept, pooled.unit, "", remarks)


def _over(scores: pd.DataFrame) -> list[str]:
    """What the mean is over, where that is not the paper's arms alone: the same words then ask another question."""
    held = set(zip(scores["arm"], scores["strategy"], strict=True))
    arms = [arm for arm in ordered(scores["arm"], ARMS) if all((arm, side) in held for side in COMPARED_STRATEGIES)]
    if not set(arms) - set(PAPER_ARMS):
        return []
    papers = [arm for arm in arms if arm in PAPER_ARMS]
    named, of_paper = (", ".join(map(arm_title, some)) for some in (arms, papers))
    return [f"the mean is over {named}, of which the paper's are {of_paper or 'none'}"]


def _none(why: str) -> Differences:
    return Differences(np.empty(0), "", why)


def decide(
    scores: pd.DataFrame,
    rule: Decision,
    settings: Settings,
    detection: pd.DataFrame | None = None,
    why_no_detection: str = "",
) -> pd.DataFrame:
    """The verdict: one row per endpoint, the primary first, with the columns ``DECISION_COLUMNS``.

    Arguments as in ``differences``. ``effect`` is the Hodges-Lehmann shift of the turned differences, ``mean`` their
    mean, both with an interval at 1 - 2 alpha; ``p_...`` are those of the declared test, ``swap_p_...`` of the mean,
    which would give ``verdict_by_mean`` (empty where a difference is infinite).
    Of a secondary endpoint ``p_above_zero`` alone is given, and none where it is not tested: its row then describes.
    """
    rows: list[dict[str, object]] = []
    goes_on, stopped = True, ""
    for place, endpoint in enumerate((rule.endpoint, *rule.secondary)):
        found = differences(scores, endpoint, settings, detection, why_no_detection)
        random = [generator(settings.seed, "decision", endpoint.metric, endpoint.region) for _ in range(2)]
        row = _described(found, rule, random[0])
        name = f"{endpoint.metric} of {endpoint.region}"
        if place == 0:
            row |= _primary(found, rule, settings.seed)
        else:
            row |= _secondary(found, rule, goes_on, stopped)
        notes = [*([found.missing] if found.missing else []), *found.remarks, *_infinite(found), str(row["note"])]
        row["note"] = "; ".join(note for note in notes if note)
        role = "secondary" if place else "primary"
        rows.append({"place": place, "role": role, "metric": endpoint.metric, "region": endpoint.region, **row})
        if goes_on and row["verdict"] not in ("superior", "shown"):
            goes_on, stopped = False, f"not tested, since the verdict on {name} is {row['verdict']}"
    return pd.DataFrame(rows, columns=DECISION_COLUMNS)


def verdict_of(p_values: Mapping[str, float], alpha: float) -> tuple[Verdict, str]:
    """Verdict and size from the p-values of ``QUESTIONS``, each direction's taken in order.

    >>> names = ("above_loss", "above_zero", "above_gain", "below_gain", "below_zero", "below_loss")
    >>> verdict_of(dict(zip(names, (0.01, 0.01, 0.9, 0.01, 0.9, 0.9))), 0.025)
    ('superior', 'within the margin')
    """
    above, below = (_in_order([p_values[name] for name in side], alpha) for side in (TESTED[:3], TESTED[3:]))
    if above >= 2:
        return "superior", BEYOND if above == 3 else WITHIN if below else ""
    if below >= 2:
        return "inferior", BEYOND if below == 3 else WITHIN if above else ""
    if above and below:
        return "equivalent", WITHIN
    if above:
        return "non-inferior", ""
    return "inconclusive", "no gain of the margin" if below else ""


def _in_order(p_values: Sequence[float], alpha: float) -> int:
    """How many are at most ``alpha`` before the first that is not."""
    return next((place for place, p_value in enumerate(p_values) if not p_value <= alpha), len(p_values))


def fewest(alpha: float) -> int:
    """The fewest patients of whom any outcome could have a one-sided p of at most ``alpha``.

    >>> fewest(0.025), fewest(0.05)
    (6, 5)
    """
    return ceil(-log2(alpha))


def shifted_p(values: Floats, unit: str, shift: float, alternative: Alternative) -> float:
    """The declared test: exact signed-rank p of the ``values`` less ``shift``, rounded so that ties are seen."""
    return wilcoxon(rounded(values - shift, unit), alternative).p_value


def _described(found: Differences, rule: Decision, random: np.random.Generator) -> dict[str, object]:
    row: dict[str, object] = {"unit": found.unit, "alpha": rule.alpha, "n": len(found.values), "note": ""}
    shift, low, high, coverage = hodges_lehmann(found.values, 2 * rule.alpha)
    row |= {"effect": shift, "effect_low": low, "effect_high": high, "coverage": coverage}
    if len(found.values) and np.isfinite(found.values).all():
        swaps = permutation(found.values, "greater", 2 * rule.alpha, random)
        row |= {"mean": swaps.mean, "mean_low": swaps.low, "mean_high": swaps.high}
    return row


def _primary(found: Differences, rule: Decision, seed: int) -> dict[str, object]:
    row: dict[str, object] = {"margin": rule.margin, "note": "", "size": "", "verdict_by_mean": ""}
    if found.missing:
        return {**row, "verdict": "not available"}
    n, finite = len(found.values), bool(np.isfinite(found.values).all())
    p_values = {}
    for name, alternative, margins in QUESTIONS:
        shift = margins * rule.margin
        p_values[name] = row[f"p_{name}"] = shifted_p(found.values, found.unit, shift, alternative)
        random = generator(seed, "decision, shifted", rule.endpoint.metric, rule.endpoint.region)
        shifted = rounded(found.values - shift, found.unit)
        row[f"swap_p_{name}"] = permutation(shifted, alternative, rule.alpha, random).p_value if finite else NAN
    if smallest_p(n, "greater") > rule.alpha:
        few = f"no outcome of {n} patient(s) has p of at most {rule.alpha:g}: it takes {fewest(rule.alpha)}"
        return {**row, "verdict": "too few patients", "note": few}
    verdict, size = verdict_of(p_values, rule.alpha)
    by_mean, _ = verdict_of({name: float(row[f"swap_p_{name}"]) for name in TESTED}, rule.alpha)  # type: ignore[arg-type]
    return {**row, "verdict": verdict, "size": size, "verdict_by_mean": by_mean if finite else ""}


def _secondary(found: Differences, rule: Decision, goes_on: bool, stopped: str) -> dict[str, object]:
    row: dict[str, object] = {"margin": NAN, "size": "", "verdict_by_mean": "", "note": ""}
    if found.missing:
        return {**row, "verdict": "not available"}
    if not goes_on:
        return {**row, "verdict": "not tested", "note": stopped}
    p_value = shifted_p(found.values, found.unit, 0.0, "greater")
    return {**row, "p_above_zero": p_value, "verdict": "shown" if p_value <= rule.alpha else "not shown"}


def _infinite(found: Differences) -> list[str]:
    number = int(np.isinf(found.values).sum())
    return [f"{number} infinite difference(s), ranked as the largest; no mean holds them"] if number else []


def facts(table: pd.DataFrame, rule: Decision) -> dict[str, Any]:
    """What the sentences say of ``decide``'s table: the primary row as a dictionary, and the secondary ones.

    ``primary`` and each of ``secondary`` hold the table's columns; ``fewest``: the patients it takes; ``level``: the
    interval's; ``shown`` and ``stopped``: the secondary rows that were shown, and the first that was not, or None.
    """
    primary, *secondary = table.to_dict("records")
    shown = [row for row in secondary if row["verdict"] == "shown"]
    stopped = next((row for row in secondary if row["verdict"] != "shown"), None)
    return {
        "primary": primary, "secondary": secondary, "shown": shown, "stopped": stopped, "fewest": fewest(rule.alpha),
        "level": 1 - 2 * rule.alpha, "margin": rule.margin,
    }  # fmt: skip


def record(table: pd.DataFrame, rule: Decision, declared: Mapping[str, object]) -> dict[str, object]:
    """``decision.json``: the rule, when it was declared, the verdict, and every row; what has no value is null."""
    rows = [{str(name): _plain(value) for name, value in row.items()} for row in table.to_dict("records")]
    first = rows[0]
    return {
        "rule": rule.model_dump(mode="json"), "declared": dict(declared), "verdict": first["verdict"],
        "size": first["size"], "endpoints": rows,
    }  # fmt: skip


def _plain(value: Any) -> object:
    """A number that JSON has a word for, or text; None for one without a value, "inf" for an infinite one."""
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value
