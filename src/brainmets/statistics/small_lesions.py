"""Do arms find more small lesions than a baseline? Sensitivity at equal false positives, over repeated trainings.

Declared in the study's YAML (``params.SmallLesions``) and read off the held-out cases' FROC curves (``froc``): the
share of lesions of an equivalent diameter below ``below_mm`` that a model finds at the lowest threshold whose false
positives of *all* sizes are at most ``false_positives`` a patient. The threshold is a real one, nothing is
interpolated. What a training has there may be less than is allowed: candidates of equal scores enter together, and a
training may have no more of them. Fine-tuned models are compared; models from scratch are described.

- A patient counts once: of several scans each weighs alike, in lesions as in false positives, so that the rate is the
  mean over patients of their false positives a scan. With one scan each, cases are patients.
- Each repeat (training with other seeds) has its own curve and threshold. The sensitivity of an arm is the mean over
  repeats; its difference is the mean over repeats of arm less baseline in the same repeat.
- The interval of a difference resamples patients, for all arms and repeats together, and looks for every threshold
  anew in each resample (percentiles, read at ``tests.widened``'s level). It is at 1 - alpha / m for m arms beside the
  baseline, so that all m hold together at 1 - alpha (Bonferroni's inequality; Dunn, J. Am. Stat. Assoc. 56 (1961)
  52-64). It is an interval of these trainings.
- Of arms trained anew a second one holds, at the same level: t with that bootstrap's variance and twice what repeats
  of an arm differ by beyond it, pooled over all arms, over their number (degrees of freedom: Satterthwaite's).

A gain is claimed only where both intervals lie above 0 *and* the difference is above 0 in every one of two or more
repeats; a loss where all lie below. Without the second interval much luck of training passed for an arm's worth.
Everything else is "not shown", and so is any difference among fewer patients with such lesions than a sign test at
alpha / m could ever reject with: percentiles of so few promise nothing; and any where the one that finds more also has
more false positives, by more than one among all patients (mean over repeats): what it found may be bought with them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from brainmets.params import SmallLesions
from brainmets.paths import StudyPaths
from brainmets.scoring.candidates import FILES, Hits, hits, read_detections
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.conclusions import in_words
from brainmets.statistics.declared import Declared
from brainmets.statistics.froc import ALL_SIZES, BLOCK, SIZES, SLACK, Size, Steps
from brainmets.statistics.operating_point import Aim, Applied
from brainmets.statistics.tests import NAN, Floats, generator, percent, smallest_p, widened
from brainmets.vocabulary import ARMS, COMPARED_STRATEGIES, Model, arm_title, ordered

Trainings = Mapping[Model, Mapping[int, Hits]]
"""What every training of each model (arm, strategy) hits, by repeat from 1."""

FINE_TUNED = COMPARED_STRATEGIES[0]
GAIN, LOSS, NOT_SHOWN, BASELINE, DESCRIBED = "gain", "loss", "not shown", "baseline", "described"
AT_RATE, AT_POINT = "false positives a patient", "operating point"
COLUMNS = [
    "arm", "strategy", "region", "size", "at", "allowed", "cases", "patients", "lesions", "repeats", "sensitivity",
    "lowest", "highest", "spread", "false_positives", "difference", "low", "high", "retrained_low",
    "retrained_high", "level", "least_difference", "most_difference", "verdict", "note",
]  # fmt: skip
REPEAT_COLUMNS = [
    "arm", "strategy", "repeat", "region", "size", "cases", "lesions", "found", "sensitivity", "false_positives",
    "threshold", "difference",
]  # fmt: skip
CURVE_COLUMNS = ["arm", "strategy", "region", "size", "false_positives", "repeats", "sensitivity", "lowest", "highest"]
RULE = (
    "A gain is claimed only where both intervals, of these trainings and of trainings anew, each corrected for the "
    "number of arms, lie above 0, the difference is above 0 in each of two or more trainings, and the arm has no more "
    "false positives than the baseline, but for one among all patients; a loss where all of this is the other way "
    "round. Everything else is not shown."
)
CURVE_RATES: tuple[float, ...] = tuple(float(rate) for rate in 2.0 ** np.arange(-3, 3.01, 0.25))
"""False positives a patient at which curves are read: 1/8 to 8, four to the doubling."""


class SmallLesionsError(ValueError):
    """Trainings that cannot be compared: other cases or lesions, a repeat that is not there, no baseline."""


@dataclass(frozen=True)
class Curves:
    """Every training's curve over the same patients (in one order), each patient's scans weighing as one.

    ``steps``: by model and repeat; ``sizes``: lesions below the limit, all, and the bins of ``froc``; ``cases``: all.
    """

    rule: SmallLesions
    region: str
    steps: dict[Model, dict[int, Steps]]
    sizes: tuple[Size, ...]
    cases: int
    lesions: dict[str, int]

    @property
    def small(self) -> Size:
        """The lesions that are asked for."""
        return self.sizes[0]

    @property
    def rate(self) -> float:
        """False positives a patient that are allowed."""
        return self.rule.false_positives

    @property
    def arms(self) -> list[str]:
        """The arms that are compared with the baseline."""
        return [arm for arm, strategy in self.steps if strategy == FINE_TUNED and arm != self.rule.baseline]

    @property
    def repeats(self) -> int:
        """Trainings of every model."""
        return len(next(iter(self.steps.values())))


def small_size(rule: SmallLesions) -> Size:
    """Lesions of an equivalent diameter below ``rule.below_mm``."""
    return Size(f"<{rule.below_mm:g} mm", 0.0, rule.below_mm)


def read_trainings(
    files: StudyPaths, models: Iterable[Model], repeats: int, cases: Sequence[str], aim: Aim
) -> Trainings:
    """What every training of ``models`` hits among the held-out ``cases``, by the rule of ``aim``.

    Models that are pretrained only are left out. Raises ``FileNotFoundError`` for a repeat that was not evaluated, and
    ``tables.TableError`` as ``candidates.read_detections``.
    """
    return {
        model: {
            repeat: hits(read_detections(files.branch(repeat=repeat).evaluation_folder(*model), cases), aim.hit)
            for repeat in range(1, repeats + 1)
        }
        for model in _compared(models)
    }


def tables_of(files: StudyPaths, models: Iterable[Model], repeats: int) -> list[Path]:
    """The files of the repeats beside the first that ``read_trainings`` reads: what a record names as read."""
    return [
        files.branch(repeat=repeat).evaluation_folder(*model) / name
        for model in _compared(models)
        for repeat in range(2, repeats + 1)
        for name in FILES
    ]


def _compared(models: Iterable[Model]) -> list[Model]:
    every = list(models)
    return [(arm, side) for arm in ordered([arm for arm, _ in every], ARMS) for side in COMPARED_STRATEGIES
            if (arm, side) in every]  # fmt: skip


def curves_of(trainings: Trainings, rule: SmallLesions, region: str, patients: Mapping[str, str]) -> Curves:
    """The curves of all trainings, once they are of the same cases, lesions and repeats.

    ``patients`` maps case to patient; empty: each case is a patient of its own. Raises ``SmallLesionsError`` where the
    baseline has no fine-tuned model or nothing stands beside it, a model lacks a repeat, and where the cases or the
    reference lesions of two trainings differ: a mean over fewer would pass for an arm's worth.
    """
    fine_tuned = [arm for arm, strategy in trainings if strategy == FINE_TUNED]
    if rule.baseline not in fine_tuned:
        raise SmallLesionsError(
            f"small_lesions.baseline: {rule.baseline} has no fine-tuned model (there are: "
            f"{', '.join(fine_tuned) or 'none'}); name an arm of the study"
        )
    if len(fine_tuned) == 1:
        raise SmallLesionsError(f"small_lesions: {rule.baseline} is the only arm; add one to compare with it")
    _require_alike(trainings, region)
    below = small_size(rule)
    sizes = (below, *(size for size in SIZES if size.name != below.name))
    steps = {
        model: {
            repeat: _each_patient_once(Steps.of(one, region, sizes, patients))
            for repeat, one in sorted(of_model.items())
        }
        for model, of_model in trainings.items()
    }
    first = next(iter(next(iter(trainings.values())).values()))
    diameters = first.lesions.loc[first.lesions["region"] == region, "diameter_mm"]
    lesions = {size.name: int(((diameters >= size.low) & (diameters < size.high)).sum()) for size in sizes}
    return Curves(rule, region, steps, sizes, len(first.cases), lesions)


def _require_alike(trainings: Trainings, region: str) -> None:
    first_model = next(iter(trainings))
    asked = sorted({repeat for of_model in trainings.values() for repeat in of_model})
    known: tuple[set[Any], set[Any]] | None = None
    for model, of_model in trainings.items():
        if lacking := [repeat for repeat in asked if repeat not in of_model]:
            raise SmallLesionsError(
                f"{' '.join(model)}: lacks repeat {lacking[0]}, which another model has; every model is "
                "trained equally often: run the study again"
            )
        for repeat, one in of_model.items():
            own = one.lesions[one.lesions["region"] == region]
            lesions = {*own[["case", "lesion", "volume_mm3"]].itertuples(index=False, name=None)}
            found: tuple[set[Any], set[Any]] = {*one.cases}, lesions
            known = known or found
            for place, what in enumerate(("cases", "reference lesions")):
                if differing := known[place] ^ found[place]:
                    example = min(map(str, differing))
                    raise SmallLesionsError(
                        f"{' '.join(model)}, repeat {repeat}: other {what} than {' '.join(first_model)} (such as "
                        f"{example}); all are compared on the same: run notebook 06 for it again"
                    )


def _each_patient_once(steps: Steps) -> Steps:
    """Each of a patient's scans weighs one over their number, so that a rate is one a patient."""
    scans = steps.cases
    return Steps(
        steps.thresholds,
        steps.false / scans,
        {size: found / scans for size, found in steps.found.items()},
        {size: lesions / scans for size, lesions in steps.lesions.items()},
        np.ones(len(scans)),
    )


# --- tables --------------------------------------------------------------------------------------------------------


def by_repeat(compared: Curves) -> pd.DataFrame:
    """Every training at the rate that is allowed, for small lesions and for all; columns ``REPEAT_COLUMNS``.

    ``sensitivity`` is missing without such a lesion; ``found`` is the (weighted) number of ``lesions`` found,
    ``false_positives`` a patient those at ``threshold``, ``difference`` the sensitivity less the baseline's in the
    same repeat (fine-tuned, small lesions).
    """
    rows = []
    for (arm, strategy), of_model in compared.steps.items():
        for repeat, steps in of_model.items():
            everyone = np.ones((1, len(steps.cases)))
            (level,) = steps.levels(everyone, [compared.rate])[0]
            for size in (compared.small, ALL_SIZES):
                share = float(steps.at([compared.rate])[size.name][0])
                row: dict[str, object] = {"arm": arm, "strategy": strategy, "repeat": repeat}
                row |= {
                    "region": compared.region,
                    "size": size.name,
                    "cases": compared.cases,
                    "lesions": compared.lesions[size.name],
                }
                row |= {"found": float(steps.found[size.name][level].sum()), "sensitivity": share}
                row |= {"false_positives": float(steps.false[level].mean())}
                row |= {"threshold": float(steps.thresholds[level])}
                if strategy == FINE_TUNED and size == compared.small:
                    base = compared.steps[compared.rule.baseline, FINE_TUNED][repeat]
                    row["difference"] = share - float(base.at([compared.rate])[size.name][0])
                rows.append(row)
    return pd.DataFrame(rows, columns=REPEAT_COLUMNS)


def compare(compared: Curves, settings: Settings, applied: Mapping[Model, Applied] | None = None) -> pd.DataFrame:
    """What each arm finds, and what of its difference to the baseline is shown; columns ``COLUMNS``.

    One row per model for small lesions and one for all at ``allowed`` false positives a patient, and, of models in
    ``applied`` (the first repeat at its frozen operating point), one each for both sizes at that point.
    ``sensitivity`` and ``false_positives`` (a patient, as attained) are means over ``repeats``, ``lowest``,
    ``highest`` and ``spread`` (standard deviation) what repeats differ by. Of small lesions at the rate fine-tuned
    arms beside the baseline have ``difference`` with ``low`` and ``high`` (these trainings) and ``retrained_low`` and
    ``retrained_high`` (both simultaneous, each at ``level``), its least and most over repeats, and ``verdict``:
    "gain", "loss" or "not shown"; other rows "baseline" or "described".
    """
    trained, rows = by_repeat(compared), []
    intervals = _intervals(compared, settings)
    of_baseline = next(iter(compared.steps[compared.rule.baseline, FINE_TUNED].values()))
    patients = int((of_baseline.lesions[compared.small.name] > 0).sum())
    whose = (trained["arm"] == compared.rule.baseline) & (trained["strategy"] == FINE_TUNED)
    false_of_baseline = float(trained.loc[whose & (trained["size"] == compared.small.name), "false_positives"].mean())
    for key, own in trained.groupby(["arm", "strategy", "size"], sort=False):
        arm, strategy, size = map(str, key)
        shares = own["sensitivity"].to_numpy(float)
        row: dict[str, object] = {"arm": arm, "strategy": strategy, "region": compared.region, "size": size}
        row |= {"at": AT_RATE, "allowed": compared.rate, "cases": compared.cases, "lesions": compared.lesions[size]}
        row |= {"patients": len(next(iter(compared.steps[arm, strategy].values())).cases), "repeats": len(own)}
        row |= {"sensitivity": shares.mean(), "lowest": shares.min(), "highest": shares.max()}
        row |= {"spread": shares.std(ddof=1) if len(own) > 1 else NAN, "note": ""}
        row |= {"false_positives": own["false_positives"].mean(), "verdict": DESCRIBED}
        if strategy == FINE_TUNED and arm == compared.rule.baseline:
            row["verdict"] = BASELINE
        elif strategy == FINE_TUNED and size == compared.small.name:
            low, high, again_low, again_high, level = intervals[arm]
            differences = own["difference"].to_numpy(float)
            row |= {"difference": differences.mean(), "low": low, "high": high, "level": level}
            row |= {"retrained_low": again_low, "retrained_high": again_high}
            row |= {"least_difference": differences.min(), "most_difference": differences.max()}
            said = verdict(differences, min(low, again_low), max(high, again_high), patients, arm_alpha(compared))
            row["verdict"], row["note"] = at_equal_false_positives(
                said, float(own["false_positives"].mean()), false_of_baseline, 1 / len(of_baseline.cases)
            )
        rows.append(row)
    rows += [row for one in (applied or {}).values() for row in _at_point(one, compared)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = {name: place for place, name in enumerate((AT_RATE, AT_POINT, compared.small.name, ALL_SIZES.name))}
    return table.sort_values(["at", "size"], key=lambda column: column.map(order), kind="stable", ignore_index=True)


def arm_alpha(compared: Curves) -> float:
    """The level of one arm's interval, so that all hold together at the rule's."""
    return compared.rule.alpha / len(compared.arms)


def verdict(differences: Floats, low: float, high: float, patients: int, alpha: float) -> tuple[str, str]:
    """The declared rule: "gain", "loss" or "not shown", and why the rule could not decide, where it could not.

    ``differences``: by repeat; ``low`` and ``high``: the outer ends of both intervals of their mean, at 1 - ``alpha``;
    ``patients``: with such lesions.

    >>> verdict(np.array([0.1, 0.2, 0.1]), 0.02, 0.3, 16, 0.01)
    ('gain', '')
    >>> verdict(np.array([0.3, 0.3, -0.1]), 0.02, 0.3, 16, 0.01)
    ('not shown', '')
    """
    if len(differences) < 2:
        return NOT_SHOWN, "every model was trained once: nothing is known of training luck, and nothing is claimed"
    if not patients:
        return NOT_SHOWN, "no such lesion: no interval"
    if smallest_p(patients, "two-sided") > alpha:
        have = "patient has" if patients == 1 else "patients have"
        return NOT_SHOWN, f"{patients} {have} such lesions: too few to show anything at {percent(alpha)}"
    if low > 0 and (differences > 0).all():
        return GAIN, ""
    if high < 0 and (differences < 0).all():
        return LOSS, ""
    return NOT_SHOWN, ""


def at_equal_false_positives(said: tuple[str, str], own: float, of_baseline: float, one: float) -> tuple[str, str]:
    """What ``verdict`` said, unless the side that finds more has more false positives, by more than ``one``.

    ``own`` and ``of_baseline``: false positives a patient as attained, mean over repeats; ``one``: a single one.

    >>> at_equal_false_positives(("gain", ""), 1.0, 0.25, 0.1)
    ('not shown', '1.00 false positives a patient beside 0.25 of the baseline: what was found may be bought with them')
    >>> at_equal_false_positives(("gain", ""), 0.25, 1.0, 0.1)
    ('gain', '')
    """
    more = {GAIN: own - of_baseline, LOSS: of_baseline - own}.get(said[0], 0.0)
    if more <= one + SLACK:
        return said
    return NOT_SHOWN, (
        f"{own:.2f} false positives a patient beside {of_baseline:.2f} of the baseline: what was found may be bought "
        "with them"
    )


def _intervals(compared: Curves, settings: Settings) -> dict[str, tuple[float, float, float, float, float]]:
    """Both intervals and their level (such as 0.99) of every arm's mean difference, on the same resamples."""
    baseline = compared.steps[compared.rule.baseline, FINE_TUNED]
    n = len(next(iter(baseline.values())).cases)
    held = int((next(iter(baseline.values())).lesions[compared.small.name] > 0).sum())
    alpha = arm_alpha(compared)
    if held < 2:
        return dict.fromkeys(compared.arms, (NAN, NAN, NAN, NAN, 1 - alpha))
    random = generator(settings.seed, "small lesions", compared.region)
    weights = random.multinomial(n, np.full(n, 1 / n), settings.n_bootstrap).astype(float)

    def shares_of(steps: Steps) -> Floats:
        parts = math.ceil(len(weights) * max(len(steps.thresholds), n) / BLOCK)  # what is held in memory at once
        blocks = [steps.shares(part, [compared.rate])[compared.small.name][:, 0]
                  for part in np.array_split(weights, parts)]  # fmt: skip
        return np.concatenate(blocks)

    def resampled(arm: str) -> Floats:
        return np.stack([shares_of(steps) for steps in compared.steps[arm, FINE_TUNED].values()], axis=1)

    drawn = {arm: resampled(arm) for arm in (compared.rule.baseline, *compared.arms)}
    whole = ~np.isnan(drawn[compared.rule.baseline]).any(axis=1)  # resamples with such a lesion
    drawn = {arm: shares[whole] for arm, shares in drawn.items()}
    luck, freedom = _luck(compared, drawn, held)
    level, found = widened(alpha, held), {}
    for arm in compared.arms:
        means = (drawn[arm] - drawn[compared.rule.baseline]).mean(axis=1)
        low, high = np.quantile(means, [level / 2, 1 - level / 2])
        estimate = float((_shares_of(compared, arm) - _shares_of(compared, compared.rule.baseline)).mean())
        again = _retrained(estimate, held / (held - 1) * float(means.var()), held - 1, 2 * luck, freedom, alpha)
        found[arm] = float(low), float(high), *again, 1 - alpha
    return found


def _shares_of(compared: Curves, arm: str) -> Floats:
    """Sensitivity of small lesions by repeat."""
    steps = compared.steps[arm, FINE_TUNED].values()
    return np.array([one.at([compared.rate])[compared.small.name][0] for one in steps])


def _luck(compared: Curves, drawn: Mapping[str, Floats], patients: int) -> tuple[float, int]:
    """The variance that training luck adds to an arm's mean over repeats, pooled over arms; degrees of freedom.

    What repeats differ by, less what resampled patients let the same repeats differ by; never below 0.
    """
    r = compared.repeats
    if r < 2:
        return NAN, 0
    between = np.mean([_shares_of(compared, arm).var(ddof=1) for arm in drawn])
    own = [(shares - shares.mean(axis=1, keepdims=True)).var(axis=0).mean() for shares in drawn.values()]
    within = patients / (patients - 1) * r / (r - 1) * np.mean(own)
    return max(0.0, float(between - within)) / r, len(drawn) * (r - 1)


def _retrained(
    estimate: float, of_patients: float, patients: int, luck: float, trainings: int, alpha: float
) -> tuple[float, float]:
    """The t interval of two variances with so many degrees of freedom each (Satterthwaite); NaN without a luck."""
    variance = of_patients + luck
    if math.isnan(variance) or variance == 0:
        return (NAN, NAN) if math.isnan(variance) else (estimate, estimate)
    freedom = variance**2 / (of_patients**2 / patients + luck**2 / trainings)
    half = float(stats.t.isf(alpha / 2, freedom)) * math.sqrt(variance)
    return estimate - half, estimate + half


def _at_point(one: Applied, compared: Curves) -> list[dict[str, object]]:
    """The first repeat at the operating point that its training cases chose; every scan counts here."""
    if one.point.strategy not in COMPARED_STRATEGIES:
        return []
    rows = []
    for size in (compared.small, ALL_SIZES):
        diameter = one.lesions["diameter_mm"]
        own = one.lesions[(diameter >= size.low) & (diameter < size.high)]
        share = float(own["found"].mean()) if len(own) else NAN
        row: dict[str, object] = {"arm": one.point.arm, "strategy": one.point.strategy, "region": compared.region}
        row |= {"size": size.name, "at": AT_POINT, "allowed": one.aim.false_positives, "cases": len(one.cases)}
        row |= {"lesions": len(own), "repeats": 1, "sensitivity": share}
        row |= {"false_positives": len(one.false) / len(one.cases), "verdict": DESCRIBED, "note": one.point.note}
        rows.append(row)
    return rows


def curves(compared: Curves) -> pd.DataFrame:
    """Sensitivity by size at each of ``CURVE_RATES`` and the rule's rate, mean over repeats; ``CURVE_COLUMNS``.

    ``false_positives`` are those allowed a patient. A size without lesions has missing sensitivities.
    """
    rates = sorted({*CURVE_RATES, compared.rate})
    parts = []
    for (arm, strategy), of_model in compared.steps.items():
        found = [steps.at(rates) for steps in of_model.values()]
        for size in compared.sizes:
            shares = np.array([one[size.name] for one in found])
            part: dict[str, object] = {"arm": arm, "strategy": strategy, "region": compared.region, "size": size.name}
            part |= {"repeats": len(shares), "false_positives": rates, "sensitivity": shares.mean(axis=0)}
            parts.append(pd.DataFrame({**part, "lowest": shares.min(axis=0), "highest": shares.max(axis=0)}))
    return pd.concat(parts, ignore_index=True)[CURVE_COLUMNS]


# --- words ---------------------------------------------------------------------------------------------------------


def sentences(table: pd.DataFrame, rule: SmallLesions, declared: Declared) -> list[str]:
    """What is compared, the baseline and the rule; then a sentence per fine-tuned arm. Of ``compare``'s table.

    The first ends with when the rule was declared.
    """
    rows = table[(table["at"] == AT_RATE) & (table["size"] == small_size(rule).name)]
    rows = rows[rows["strategy"] == FINE_TUNED]
    below = f"{rule.below_mm:g} mm"
    shown = {GAIN: "a gain is shown", LOSS: "a loss is shown", NOT_SHOWN: "a difference is not shown"}
    (first,) = rows[rows["verdict"] == BASELINE].to_dict("records")
    arms = rows[rows["verdict"] != BASELINE]
    plural = "" if rule.false_positives == 1 else "s"
    if first["lesions"] == 0:
        return [f"No lesion of {first['region']} below {below} was held out: no arm can be compared."]
    repeats, pairs = int(first["repeats"]), len(arms)
    said = [
        f"Lesions of {first['region']} below {below} ({first['lesions']:.0f} in {first['patients']:.0f} held-out "
        f"patients) at {rule.false_positives:g} false positive{plural} a patient or less, fine-tuned models, mean "
        f"over {in_words(repeats)} training{'s' * (repeats != 1)}; the intervals of {in_words(pairs)} "
        f"difference{'s' * (pairs != 1)} to {arm_title(rule.baseline)} hold together at {percent(1 - rule.alpha)}. "
        f"{arm_title(rule.baseline)} finds {_shares(first)}. {RULE} The rule was {declared.in_words}."
    ]
    for row in arms.to_dict("records"):
        interval = "no interval"
        if not math.isnan(row["low"]):
            interval = f"{percent(row['level'])} interval {row['low']:+.3f} to {row['high']:+.3f}"
        if not math.isnan(row["retrained_low"]):
            interval += f", of trainings anew {row['retrained_low']:+.3f} to {row['retrained_high']:+.3f}"
        if row["repeats"] > 1:
            interval += f", in single trainings {row['least_difference']:+.3f} to {row['most_difference']:+.3f}"
        why = f" ({row['note']})" if row["note"] else ""
        said.append(
            f"{arm_title(row['arm'])} finds {_shares(row)}: {row['difference']:+.3f} ({interval}): "
            f"{shown[row['verdict']]}{why}."
        )
    return said


def _shares(row: Mapping[Hashable, Any]) -> str:
    spread = f" ({row['lowest']:.3f} to {row['highest']:.3f})" if row["repeats"] > 1 else ""
    return f"{row['sensitivity']:.3f}{spread} at {row['false_positives']:.2f}"
