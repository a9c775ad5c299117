"""FROC: the share of lesions found against the false positives a case, and both by the size of the lesions.

A candidate is accepted where its score is at least the threshold; candidates of equal scores enter together. Rules:

- false positives a case: accepted candidates that hit nothing, over *all* cases, those without lesions and without
  candidates included. They are always all of the region's, in every row by size as well: a false candidate has no
  lesion whose size could say where it belongs;
- sensitivity: lesions that an accepted candidate finds, over all lesions. One that no candidate reaches is never
  found, at whatever threshold. Without a lesion there is no sensitivity: it is missing, never 0;
- sensitivity at a rate f: the largest of any threshold whose false positives a case are at most f. It is attained by a
  real threshold; nothing is interpolated. Beyond what the lowest threshold reaches it stays what that one gives, and
  ``note`` says so; where the highest scores break the rate already, nothing is accepted and it is 0;
- FROC score: the mean of the sensitivities at ``RATES``.

Source: Bandos et al., Biometrics 65 (2009) 247-256; the rates, Setio et al., Med. Image Anal. 42 (2017) 1-13.
Intervals resample patients with all of their cases, lesions and false positives: each time the thresholds that keep a
rate are looked for anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.scoring.candidates import Hits
from brainmets.scoring.intervals import patients_of, share_interval_of
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.tests import Floats, generator
from brainmets.vocabulary import Model

RATES: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
"""False positives a case at which the sensitivity is read; the FROC score is the mean over them."""
RATE_TITLES = {1 / 8: "1/8", 1 / 4: "1/4", 1 / 2: "1/2"}
SCORE = "mean"
SLACK = 1e-9
"""What the product of a rate and a number of cases may lack for the rounding of its last digits."""
BLOCK = 4_000_000
"""Numbers of a block of resamples that are worked on together."""


@dataclass(frozen=True)
class Size:
    """Lesions of an equivalent diameter of at least ``low`` and less than ``high`` mm."""

    name: str
    low: float
    high: float


ALL_SIZES = Size("all", 0.0, math.inf)
SMALL_MM = 5.0
"""Lesions of a smaller equivalent diameter are said to be small: where models miss most."""
SIZES: tuple[Size, ...] = (
    ALL_SIZES,
    Size("<3 mm", 0.0, 3.0),
    Size("3-5 mm", 3.0, SMALL_MM),
    Size("5-10 mm", SMALL_MM, 10.0),
    Size(">=10 mm", 10.0, math.inf),
)
"""All lesions, and the bins: the equivalent diameter is that of a ball of the lesion's volume."""

CURVE_COLUMNS = ["size", "threshold", "false_positives", "found", "lesions", "sensitivity"]
COLUMNS = [
    "region", "size", "at", "false_positives", "cases", "patients", "lesions", "found", "sensitivity", "low", "high",
    "threshold", "attained", "note",
]  # fmt: skip


def of_region(hits: Hits, region: str) -> Hits:
    """The lesions and false candidates of ``region``; the cases stay.

    Raises ``ValueError`` for hits of more than one model, a case that is not among ``hits.cases``, a score that is
    not a number, and a lesion without a diameter: each would change a curve in silence.
    """
    if len(models := _models(hits)) > 1:
        raise ValueError(f"hits: of {len(models)} models ({', '.join(map(' '.join, sorted(models)))}); give one's")
    lesions, false = (table[table["region"] == region] for table in (hits.lesions, hits.false))
    if len(set(hits.cases)) != len(hits.cases) or not hits.cases:
        raise ValueError(f"hits: the cases ({len(hits.cases)}) must be at least one, each named once")
    if stray := sorted({*lesions["case"], *false["case"]} - set(hits.cases)):
        raise ValueError(f"hits: rows of {', '.join(map(str, stray))}, not among the {len(hits.cases)} cases")
    for name, table, column in (
        ("lesions", lesions, "score"),
        ("false", false, "score"),
        ("lesions", lesions, "diameter_mm"),
    ):
        if table[column].isna().any():
            row = table[table[column].isna()].iloc[0]
            raise ValueError(f"hits.{name}: a {column} of case {row['case']}, {region}, is missing; score it anew")
    return Hits(hits.cases, lesions, false)


def _models(hits: Hits) -> set[Model]:
    """The models that the rows name."""
    tables = (hits.lesions, hits.false)
    return {model for table in tables for model in zip(table["arm"], table["strategy"], strict=True)}


def curve(hits: Hits, region: str, sizes: Sequence[Size] = SIZES) -> pd.DataFrame:
    """The points of the curve of one model, one row per size and threshold, thresholds falling.

    Columns: size, threshold, false_positives (a case), found, lesions, sensitivity (missing where there is no lesion
    of the size). Thresholds are the distinct scores of the region's candidates, those of false ones and of lesions
    found; the first one of each size is infinite: nothing is accepted. The points are those of MONAI's
    ``compute_froc_curve_data``, which leaves out the lowest threshold where every lesion is reached.
    """
    steps = Steps.of(hits, region, sizes)
    everyone = np.ones(len(steps.cases))
    false = steps.false @ everyone / steps.cases.sum()
    rows = []
    for size in sizes:
        found, lesions = steps.found[size.name] @ everyone, float(steps.lesions[size.name].sum())
        shares = found / lesions if lesions else np.full(len(found), math.nan)
        points = {"size": size.name, "threshold": steps.thresholds, "false_positives": false}
        counts = {"found": found.astype(int), "lesions": int(lesions), "sensitivity": shares}
        rows.append(pd.DataFrame({**points, **counts}))
    return pd.concat(rows, ignore_index=True)[CURVE_COLUMNS] if rows else pd.DataFrame(columns=CURVE_COLUMNS)


def table(
    hits: Hits,
    region: str,
    settings: Settings,
    sizes: Sequence[Size] = SIZES,
) -> pd.DataFrame:
    """Sensitivity of one model at each of ``RATES`` and their mean, by size, with intervals at 1 - ``settings.alpha``.

    One row per size and rate, those without a lesion included; columns ``COLUMNS``: ``at`` ("1/8" to "8",
    or "mean": the FROC score), ``false_positives`` (the rate that is allowed; missing for the mean), ``cases``,
    ``patients`` (that have such a lesion), ``lesions``, ``found``, ``sensitivity``, ``low`` and ``high``,
    ``threshold`` (infinite: nothing is accepted), ``attained`` (false positives a case at that threshold), ``note``.

    The interval is Clopper and Pearson's for as many independent lesions as the bootstrap's spread between patients
    leaves (``intervals.share_interval_of``), which is not of width 0 where every lesion was found; percentiles fall
    short there (docs/statistics.md). Lesions of one patient leave everything open: 0 to 1. Resamples without such a
    lesion have no sensitivity and are left out. Without a lesion there is no interval either.
    """
    rows = _rows(Steps.of(hits, region, sizes, settings.patients), region, sizes, settings)
    return pd.DataFrame(rows, columns=COLUMNS)


def band(
    hits: Hits,
    region: str,
    settings: Settings,
    most: float = RATES[-1],
) -> pd.DataFrame:
    """``curve`` of all lesions with the columns ``low`` and ``high``: the interval at the rate of each point.

    Points beyond ``most`` false positives a case have none; pointwise, not of the curve as a whole. Sensitivity cannot
    fall as the rate rises: a lower limit holds at every higher rate too, an upper one at every lower rate, and the
    closest of these is given.
    """
    points, steps = curve(hits, region, [ALL_SIZES]), Steps.of(hits, region, [ALL_SIZES], settings.patients)
    rates = sorted({rate for rate in points["false_positives"] if rate <= most})
    found = steps.replicates(rates, settings.n_bootstrap, generator(settings.seed, "froc", region))[ALL_SIZES.name]
    own = steps.lesions[ALL_SIZES.name]
    limits = np.array(
        [
            _interval(share, found[:, place], own, settings.alpha)
            for place, share in enumerate(steps.at(rates)[ALL_SIZES.name])
        ]
    ).reshape(-1, 2)
    low = dict(zip(rates, np.maximum.accumulate(limits[:, 0]), strict=True))
    high = dict(zip(rates, np.minimum.accumulate(limits[::-1, 1])[::-1], strict=True))
    return points.assign(
        **{name: points["false_positives"].map(ends) for name, ends in (("low", low), ("high", high))}
    )


def of_models(models: Mapping[Model, Hits], region: str, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``table`` and ``band`` of every model, arm and strategy (and region) as first columns; empty without one.

    Raises ``ValueError`` where a row is of another model than the one that the hits are given for.
    """
    tables = [pd.DataFrame(columns=["arm", "strategy", *COLUMNS])]
    curves = [pd.DataFrame(columns=["arm", "strategy", "region", *CURVE_COLUMNS, "low", "high"])]
    for (arm, strategy), hits in models.items():
        if others := _models(hits) - {(arm, strategy)}:
            raise ValueError(f"hits: rows of {' '.join(min(others))} among those of {arm} {strategy}; score it anew")
        tables.append(table(hits, region, settings).assign(arm=arm, strategy=strategy))
        curves.append(band(hits, region, settings).assign(arm=arm, strategy=strategy, region=region))
    whole = [parts[0] if len(parts) == 1 else pd.concat(parts[1:], ignore_index=True) for parts in (tables, curves)]
    return whole[0][tables[0].columns], whole[1][curves[0].columns]


@dataclass(frozen=True)
class Steps:
    """What each patient adds at each threshold; k thresholds and p patients, by alphabet.

    ``thresholds``: shape (k,), falling from infinity. ``false``: shape (k, p), the patient's false candidates that are
    accepted. ``found`` and ``lesions`` by size: shapes (k, p) and (p,). ``cases``: shape (p,).
    """

    thresholds: Floats
    false: Floats
    found: dict[str, Floats]
    lesions: dict[str, Floats]
    cases: Floats

    @classmethod
    def of(cls, hits: Hits, region: str, sizes: Sequence[Size], patients: Mapping[str, str] | None = None) -> Steps:
        """Of one model's hits in a region, as ``of_region`` checks them."""
        own = of_region(hits, region)
        whose = dict(zip(hits.cases, patients_of(hits.cases, patients or {}), strict=True))
        names = sorted(set(whose.values()))
        place = {case: names.index(patient) for case, patient in whose.items()}
        scores = np.concatenate([own.lesions["score"].to_numpy(float), own.false["score"].to_numpy(float)])
        thresholds = np.concatenate([[math.inf], np.unique(scores[np.isfinite(scores)])[::-1]])

        def accepted(rows: pd.DataFrame) -> Floats:
            reached = rows[np.isfinite(rows["score"].to_numpy(float))]
            steps = np.searchsorted(-thresholds, -reached["score"].to_numpy(float))
            counts = np.zeros((len(thresholds), len(names)))
            np.add.at(counts, (steps, [place[case] for case in reached["case"]]), 1)
            return counts.cumsum(axis=0)

        found, lesions = {}, {}
        for size in sizes:
            diameter = own.lesions["diameter_mm"]
            within = own.lesions[(diameter >= size.low) & (diameter < size.high)]
            found[size.name] = accepted(within)
            lesions[size.name] = np.bincount([place[case] for case in within["case"]], minlength=len(names)).astype(
                float
            )
        cases = np.bincount(list(place.values()), minlength=len(names)).astype(float)
        return cls(thresholds, accepted(own.false), found, lesions, cases)

    def levels(self, weights: Floats, rates: Sequence[float]) -> npt.NDArray[np.intp]:
        """For each row of ``weights`` (shape (b, p)) and rate the place of the lowest threshold that keeps it."""
        false = weights @ self.false.T
        allowed = np.asarray(rates) * (weights @ self.cases)[:, None] + SLACK
        return np.array([np.searchsorted(*row, side="right") - 1 for row in zip(false, allowed, strict=True)], np.intp)

    def shares(self, weights: Floats, rates: Sequence[float]) -> dict[str, Floats]:
        """Sensitivity by size, shape (b, rates), of patients that count ``weights`` times; NaN without a lesion."""
        levels = self.levels(weights, rates)
        shares = {}
        for size, found in self.found.items():
            hit = np.stack([(found[level] * weights).sum(axis=1) for level in levels.T], axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                shares[size] = hit / (weights @ self.lesions[size])[:, None]
        return shares

    def at(self, rates: Sequence[float]) -> dict[str, Floats]:
        """Sensitivity by size, shape (rates,), of the patients as they are."""
        return {size: found[0] for size, found in self.shares(np.ones((1, len(self.cases))), rates).items()}

    def replicates(self, rates: Sequence[float], n_bootstrap: int, random: np.random.Generator) -> dict[str, Floats]:
        """The same, shape (n_bootstrap, rates), of resampled patients."""
        n = len(self.cases)
        parts: dict[str, list[Floats]] = {size: [] for size in self.found}
        for block in _blocks(n_bootstrap, max(len(self.thresholds), n)):
            drawn = random.multinomial(n, np.full(n, 1 / n), block).astype(float)
            for size, found in self.shares(drawn, rates).items():
                parts[size].append(found)
        return {size: np.concatenate(found) for size, found in parts.items()}


def _blocks(total: int, width: int) -> Iterator[int]:
    size = max(1, BLOCK // width)
    for start in range(0, total, size):
        yield min(size, total - start)


def _rows(steps: Steps, region: str, sizes: Sequence[Size], settings: Settings) -> list[list[object]]:
    everyone = np.ones((1, len(steps.cases)))
    levels = steps.levels(everyone, RATES)[0]
    attained = steps.false.sum(axis=1) / steps.cases.sum()
    random = generator(settings.seed, "froc", region)
    found, replicates = steps.at(RATES), steps.replicates(RATES, settings.n_bootstrap, random)
    rows: list[list[object]] = []
    for size in sizes:
        own = steps.lesions[size.name]
        counts = [region, size.name], [int(steps.cases.sum()), int((own > 0).sum()), int(own.sum())]
        for place, (rate, level) in enumerate(zip(RATES, levels, strict=True)):
            share = float(found[size.name][place])
            interval = _interval(share, replicates[size.name][:, place], own, settings.alpha)
            at = [RATE_TITLES.get(rate, f"{rate:g}"), rate]
            hit = int(steps.found[size.name][level].sum())
            point = [float(steps.thresholds[level]), float(attained[level])]
            rows.append(
                [*counts[0], *at, *counts[1], hit, share, *interval, *point, _note(own, rate, attained, level)]
            )
        score = float(found[size.name].mean())
        interval = _interval(score, replicates[size.name].mean(axis=1), own, settings.alpha)
        row: list[object] = [
            *counts[0],
            SCORE,
            math.nan,
            *counts[1],
            None,
            score,
            *interval,
            math.nan,
            math.nan,
            _note(own),
        ]
        rows.append(row)
    return rows


def _interval(share: float, replicates: Floats, lesions: Floats, alpha: float) -> tuple[float, float]:
    if math.isnan(share):
        return math.nan, math.nan
    n = int((lesions > 0).sum())
    drawn = replicates[~np.isnan(replicates)]
    error = float(drawn.std()) * math.sqrt(n / (n - 1)) if n > 1 and len(drawn) else 0.0
    return share_interval_of(share, error, lesions, 1 - alpha)


def _note(lesions: Floats, rate: float = 0.0, attained: Floats | None = None, level: int = 0) -> str:
    """What a reader of the row must know."""
    n, remarks = int((lesions > 0).sum()), []
    if n == 0:
        remarks.append("no such lesion: no sensitivity")
    elif n == 1:
        remarks.append("lesions of one patient: nothing is known of others")
    if attained is not None:
        if level == len(attained) - 1 and attained[-1] < rate - SLACK:
            remarks.append(
                f"all candidates accepted: {attained[-1]:.3g} false positives a case are the most there are"
            )
        elif level == 0:
            remarks.append("the highest scores break the rate: nothing is accepted")
    return "; ".join(remarks)
