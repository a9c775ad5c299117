"""Do the probabilities mean what they say, and does a model's own doubt tell where it is wrong?

Calibration is read off the sums by bin of the probability (``brainmets.scoring.calibration``), over all voxels of all
cases: the Brier score is the mean of (p - y)^2, y being 1 where the reference labels the voxel (Brier, Mon. Weather
Rev. 78 (1950) 1-3); the expected calibration error (ECE) is the mean distance, over bins of equal width and weighted
by their voxels, between the mean probability and the share that the reference labels (Naeini et al., AAAI 2015,
2901-2907; Guo et al., ICML 2017). Voxels of one patient are alike: intervals come from resampling whole patients.

Doubt is a candidate's mean binary entropy (``brainmets.scoring.candidates``); how well it tells false candidates from
hits, and missed lesions from found ones, is the area under the ROC curve (AUROC; Hanley and McNeil, Radiology 143
(1982) 29-36).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.schemas import RELIABILITY
from brainmets.schemas import read as read_by
from brainmets.scoring.calibration import BINS, COLUMNS, SUMS
from brainmets.scoring.candidates import Detections, hits
from brainmets.scoring.intervals import patients_of
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.tables import in_order
from brainmets.statistics.tests import FEW_CASES, NAN, auroc, clustered_auroc_interval, generator, widened
from brainmets.tables import TableError
from brainmets.vocabulary import HIT_RULES, REGIONS, ZONES, HitRule, Model

CALIBRATION_COLUMNS = [
    "arm", "strategy", "region", "zone", "cases", "patients", "n", "positive", "observed_share", "mean_p", "brier",
    "brier_low", "brier_high", "ece", "ece_low", "ece_high", "ece_by_chance", "note",
]  # fmt: skip
BIN_COLUMNS = ["arm", "strategy", "region", "zone", "bin", "n", "positive", "mean_p", "observed_share", "low", "high"]
UNCERTAINTY_COLUMNS = [
    "arm", "strategy", "region", "question", "hit", "predictor", "n", "events", "patients", "median_event",
    "median_other", "auroc", "low", "high", "without_candidate", "note",
]  # fmt: skip
LABEL_THRESHOLD = 0.5
"""A voxel is painted into the label map where its probability exceeds this."""
NOTHING_KEPT = "no probabilities were kept beside these scores, and nothing is said of calibration"

Floats = npt.NDArray[np.float64]

_OF_CASE = ["arm", "strategy", "case"]
_MODEL = ["arm", "strategy", "region", "zone"]
_SLACK = 1e-6


# --- calibration -------------------------------------------------------------------------------------------------


def read_reliability(folder: Path) -> pd.DataFrame:
    """Every ``reliability.csv`` in ``folder`` or below it, joined; columns ``scoring.calibration.COLUMNS``.

    A table without rows where there is none. Raises ``TableError`` for what ``schemas.RELIABILITY`` does not allow,
    a case that stands in two files or lacks a region, zone or bin, sums that no probabilities of their bin can have,
    a folder with scores and no such table while another has one, models with different cases, and a region of which
    two models count different reference voxels.
    """
    files = sorted(folder.rglob("reliability.csv"))
    if not files:
        return pd.DataFrame(columns=list(COLUMNS))
    if bare := sorted({file.parent for file in folder.rglob("scores.csv")} - {file.parent for file in files}):
        raise TableError(
            f"{', '.join(map(str, bare))} has scores and no reliability.csv, which {files[0]} is: "
            f"calibration would be shown of some models only; {RELIABILITY.again}"
        )
    sums = pd.concat([read_by(file, RELIABILITY).assign(file=str(file)) for file in files], ignore_index=True)
    _refuse_incomplete(sums)
    _refuse_impossible(sums)
    _refuse_other_cases(sums)
    return in_order(sums[list(COLUMNS)])


def calibration(sums: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Brier score and ECE of each model, region and zone; ``sums`` as ``read_reliability`` gives them.

    Columns ``CALIBRATION_COLUMNS``: n voxels of the zone, positive of them in the reference (their share is
    observed_share, beside the mean probability mean_p). Brier score and ECE stand with their intervals at 1 - alpha,
    from resampling patients at Hesterberg's wider level (``tests.widened``).

    An ECE adds up distances without their sign, so that it is above 0 by chance alone. ``ece_by_chance`` is the mean
    ECE of a calibrated model whose patients differ as these do (each patient's difference in each bin, less what all
    patients have in common, resampled); where the ECE does not exceed what such a model reaches in all but alpha / 2
    of the resamples, ``ece_low`` is 0. A zone without a voxel has no numbers, one patient no interval; ``note`` says
    so. No sums give no rows.
    """
    rows = []
    for key, cases, patients, table in _of_models(sums, settings):
        total = table.sum(axis=0)
        n, positive = total[:, 0].sum(), total[:, 4].sum()
        row: dict[str, object] = {**dict(zip(_MODEL, key, strict=True)), "cases": cases, "patients": patients}
        row |= {"n": int(n), "positive": int(positive), "note": "no voxel lies in this zone"}
        if n:
            random = generator(settings.seed, "calibration", *key)
            row |= {"observed_share": positive / n, "mean_p": total[:, 1].sum() / n}
            row |= scores_with_intervals(table, settings.alpha, settings.n_bootstrap, random)
        rows.append(row)
    return in_order(pd.DataFrame(rows, columns=CALIBRATION_COLUMNS))


def reliability_bins(sums: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The reliability diagram's points: one row per model, region, zone and bin; columns ``BIN_COLUMNS``.

    ``observed_share`` (of the bin's voxels, those that the reference labels) against their mean probability
    ``mean_p``; low and high at 1 - alpha by resampling patients. A bin without a voxel has n = 0 and no numbers; one
    whose voxels are of one patient has no interval.
    """
    rows = []
    for key, _, patients, table in _of_models(sums, settings):
        weights = _weights(patients, settings.n_bootstrap, generator(settings.seed, "reliability", *key))
        drawn_n, drawn_positive = weights @ table[:, :, 0], weights @ table[:, :, 4]
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = drawn_positive / drawn_n
        total = table.sum(axis=0)
        for place, (n, sum_p, _, _, positive) in enumerate(total):
            row: dict[str, object] = {**dict(zip(_MODEL, key, strict=True)), "bin": place}
            row |= {"n": int(n), "positive": int(positive)}
            if n:
                row |= {"mean_p": sum_p / n, "observed_share": positive / n}
            holding = int(np.count_nonzero(table[:, place, 0]))
            if holding > 1:
                level = widened(settings.alpha, holding)
                low, high = np.nanquantile(drawn[:, place], [level / 2, 1 - level / 2])
                row |= {"low": float(low), "high": float(high)}
            rows.append(row)
    return in_order(pd.DataFrame(rows, columns=BIN_COLUMNS))


def scores_with_intervals(
    table: Floats, alpha: float, n_bootstrap: int, random: np.random.Generator
) -> dict[str, object]:
    """Brier score and ECE as ``calibration`` gives them, of sums (patients, bins, ``SUMS``) that hold a voxel."""
    total, n = table.sum(axis=0), len(table)
    found: dict[str, object] = {"brier": float(brier(total)), "ece": float(ece(total)), "note": ""}
    if n < 2:
        return found | {"note": f"{n} patient(s): no interval"}
    weights = _weights(n, n_bootstrap, random)
    drawn = np.tensordot(weights, table, 1)
    drawn, kept = drawn[drawn[:, :, 0].sum(axis=1) > 0], weights[(weights @ table[:, :, 0].sum(axis=1)) > 0]
    level = widened(alpha, n)
    for name, values in (("brier", brier(drawn)), ("ece", ece(drawn))):
        low, high = np.quantile(values, [level / 2, 1 - level / 2])
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    chance = _ece_by_chance(table, kept)
    found["ece_by_chance"] = float(chance.mean())
    if ece(total) <= np.quantile(chance, 1 - alpha / 2):
        found["ece_low"] = 0.0
    if n < FEW_CASES:
        found["note"] = f"{n} patients: the bootstrap interval rests on few distinct resamples"
    return found


def brier(sums: Floats) -> Floats:
    """Brier score, the mean of (p - y)^2, of sums (..., bins, ``SUMS``): exact, whatever the bins."""
    _, _, squares, of_positive, positive = np.moveaxis(sums.sum(axis=-2), -1, 0)
    return np.asarray((squares - 2 * of_positive + positive) / sums[..., 0].sum(axis=-1))


def ece(sums: Floats) -> Floats:
    """Expected calibration error of sums (..., bins, ``SUMS``): of each bin |sum of p - positive|, over all voxels.

    >>> one = [10.0, 2.0, 0.4, 0.0, 4.0]  # ten voxels of 0.2, four of them positive
    >>> float(ece(np.array([one, [10.0, 9.0, 8.1, 8.1, 9.0]])))  # |2 - 4| and |9 - 9|, over 20
    0.1
    """
    return np.asarray(np.abs(sums[..., 1] - sums[..., 4]).sum(axis=-1) / sums[..., 0].sum(axis=-1))


def _ece_by_chance(table: Floats, weights: Floats) -> Floats:
    """ECEs of resampled patients whose differences have lost what they have in common in each bin."""
    n = len(table)
    voxels, gap = table[:, :, 0], table[:, :, 1] - table[:, :, 4]
    total = voxels.sum(axis=0)
    common = np.divide(gap.sum(axis=0), total, out=np.zeros(len(total)), where=total > 0)
    # deviations from the patients' own mean are too small by n / (n - 1)
    own = (gap - voxels * common) * np.sqrt(n / (n - 1))
    return np.asarray(np.abs(weights @ own).sum(axis=1) / (weights @ voxels.sum(axis=1)))


def _of_models(sums: pd.DataFrame, settings: Settings) -> Iterator[tuple[tuple[str, ...], int, int, Floats]]:
    """(arm, strategy, region, zone), cases, patients, and the patients' sums (patients, bins, ``SUMS``)."""
    for key, group in sums.groupby(_MODEL):
        cases = sorted(set(group["case"]))
        whose = dict(zip(cases, patients_of(cases, settings.patients), strict=True))
        names = sorted(set(whose.values()))
        table = np.zeros((len(names), BINS + 1, len(SUMS)))
        place = group["case"].map(whose).map({name: number for number, name in enumerate(names)})
        np.add.at(table, (place.to_numpy(int), group["bin"].to_numpy(int)), group[list(SUMS)].to_numpy(float))
        yield tuple(map(str, key)), len(cases), len(names), table


def _weights(n: int, n_bootstrap: int, random: np.random.Generator) -> Floats:
    return random.multinomial(n, np.full(n, 1 / n), n_bootstrap).astype(float)


def _refuse_incomplete(sums: pd.DataFrame) -> None:
    place = ["region", "zone", "bin"]
    again = sums[sums.duplicated([*_OF_CASE, *place])]
    if len(again):
        row = again.iloc[0]
        both = sorted(set(sums.loc[(sums[_OF_CASE] == row[_OF_CASE]).all(axis=1), "file"]))
        raise TableError(f"{' and '.join(both)}: {_named(row)} occurs twice; keep one")
    wanted = len(REGIONS) * len(ZONES) * (BINS + 1)
    of_case = sums.groupby(_OF_CASE)["bin"]
    sizes, last = of_case.transform("size"), of_case.transform("max")
    wrong = sums[(sizes != wanted) | (last != BINS)]
    if len(wrong):
        row = wrong.iloc[0]
        raise TableError(
            f"{row['file']}: {_named(row)} has {sizes[wrong.index[0]]} rows up to bin "
            f"{last[wrong.index[0]]}, not {wanted} (each region, zone and bin of 0 to {BINS}); {RELIABILITY.again}"
        )


def _refuse_impossible(sums: pd.DataFrame) -> None:
    """Sums lie within what their bin's limits allow; ``near`` is part of ``head``."""
    low, high = sums["n"] * (sums["bin"] - 1).clip(lower=0) / BINS, sums["n"] * sums["bin"] / BINS
    slack = _SLACK * (1 + sums["n"])
    wrong = (sums["positive"] > sums["n"]) | (sums["sum_p_positive"] > sums[["sum_p", "positive"]].min(axis=1) + slack)
    wrong |= (sums["sum_p"] < low - slack) | (sums["sum_p"] > high + slack) | (sums["sum_p2"] > sums["sum_p"] + slack)
    place = [*_OF_CASE, "region", "bin"]
    head = sums[sums["zone"] == "head"].set_index(place)["n"]
    wrong |= sums["n"].to_numpy() > head.reindex(pd.MultiIndex.from_frame(sums[place])).to_numpy()
    if wrong.any():
        row = sums[wrong].iloc[0]
        numbers = ", ".join(f"{name} {row[name]:g}" for name in SUMS)
        raise TableError(
            f"{row['file']}: {_named(row)}, {row['region']} {row['zone']} bin {row['bin']}: no voxels have {numbers}; "
            f"{RELIABILITY.again}"
        )


def _refuse_other_cases(sums: pd.DataFrame) -> None:
    head = sums[sums["zone"] == "head"]
    counts = head.groupby([*_OF_CASE, "region"])["positive"].sum().unstack(["arm", "strategy"])
    lacking, other = counts.isna().any(axis=1), counts.nunique(axis=1) > 1
    if lacking.any():
        case, region = counts.index[lacking][0]
        models = " and ".join(" ".join(model) for model in counts.columns[counts.loc[(case, region)].isna()])
        raise TableError(f"reliability.csv of {models} lacks case {case}; {RELIABILITY.again}")
    if other.any():
        case, region = counts.index[other][0]
        numbers = counts.loc[(case, region)].to_numpy(float)
        shown = ", ".join(f"{n:.0f} of {' '.join(model)}" for model, n in zip(counts.columns, numbers, strict=True))
        raise TableError(
            f"reliability.csv: case {case}, {region}: models count other reference voxels ({shown}); score both "
            "against the same reference"
        )


def _named(row: pd.Series) -> str:
    return " ".join(str(row[name]) for name in _OF_CASE)


# --- doubt -------------------------------------------------------------------------------------------------------


def uncertainty(detections: Mapping[Model, Detections], settings: Settings) -> pd.DataFrame:
    """How well a model's own doubt tells where it is wrong, by region and rule; columns ``UNCERTAINTY_COLUMNS``.

    Two questions. ``false``: does a candidate hit nothing? Asked of every candidate; predictors ``uncertainty`` (its
    mean entropy) and ``low_score`` (1 less its highest probability), so that both say "false" where they are high.
    ``missed``: is a reference lesion missed at the label map's threshold, that is, does no candidate find it by the
    rule whose score exceeds 0.5? Asked of every lesion with a candidate that shares a voxel with it; predictor: the
    uncertainty of the one that shares most (then of the higher score, then of the lower number). The score is no
    predictor here: the answer is made of it. Lesions that no candidate reaches are missed without any sign of it and
    stand in ``without_candidate``.

    n things asked of, ``events`` of them false or missed, of so many ``patients``; AUROC is the probability that an
    event has the higher value than another, over all pairs of the region, within and between patients; 0.5 says
    nothing. Its interval at 1 - alpha resamples patients. Where there are no events, or nothing else, there is no
    AUROC and ``note`` says why. Raises ``ValueError`` for a case that ``settings.patients`` lacks.
    """
    rows = []
    for (arm, strategy), own in detections.items():
        for region in REGIONS:
            for rule in HIT_RULES:
                for asked in (*_false(own, region, rule), _missed(own, region, rule)):
                    names = (arm, strategy, region, rule, asked.question, asked.predictor)
                    told = _told(asked, settings, generator(settings.seed, "uncertainty", *names))
                    rows.append({"arm": arm, "strategy": strategy, "region": region, "hit": rule, **told})
    return in_order(pd.DataFrame(rows, columns=UNCERTAINTY_COLUMNS))


@dataclass(frozen=True)
class _Asked:
    """One question of many things: their ``cases``, the predictor's ``values``, and which are ``events``."""

    question: str
    predictor: str
    cases: list[str]
    values: Floats
    events: npt.NDArray[np.bool_]
    without_candidate: int = 0

    def why_not(self) -> str:
        """Why there is no AUROC; empty where there is one."""
        one, event = {"false": ("candidate", "false"), "missed": ("lesion that a candidate reaches", "missed")}[
            self.question
        ]
        if not len(self.events):
            return f"there is no {one}"
        if not self.events.any():
            return f"no {one} is {event}"
        return f"every {one} is {event}" if self.events.all() else ""


def _false(detections: Detections, region: str, rule: HitRule) -> tuple[_Asked, _Asked]:
    own = detections.candidates[detections.candidates["region"] == region]
    cases, events = list(own["case"]), ~own[f"hit_{rule}"].to_numpy(bool)
    doubt, low = own["uncertainty"].to_numpy(float), 1 - own["score"].to_numpy(float)
    return _Asked("false", "uncertainty", cases, doubt, events), _Asked("false", "low_score", cases, low, events)


def _missed(detections: Detections, region: str, rule: HitRule) -> _Asked:
    lesion, candidate = ["case", "region", "lesion"], ["case", "region", "candidate"]
    pairs = detections.overlaps[(detections.overlaps["region"] == region) & (detections.overlaps["shared_mm3"] > 0)]
    pairs = pairs.merge(detections.candidates[[*candidate, "score", "uncertainty"]], on=candidate, validate="m:1")
    pairs = pairs.sort_values(["shared_mm3", "score", "candidate"], ascending=[False, False, True], kind="stable")
    best = pairs.drop_duplicates(lesion)
    lesions = hits(detections, rule).lesions
    lesions = lesions.loc[lesions["region"] == region, [*lesion, "score"]]
    reached = lesions.merge(best[[*lesion, "uncertainty"]], on=lesion, validate="1:1")
    missed = reached["score"].to_numpy(float) <= LABEL_THRESHOLD
    values = reached["uncertainty"].to_numpy(float)
    return _Asked("missed", "uncertainty", list(reached["case"]), values, missed, len(lesions) - len(reached))


def _told(asked: _Asked, settings: Settings, random: np.random.Generator) -> dict[str, object]:
    whose = np.array(patients_of(asked.cases, settings.patients), str)
    events, others = asked.values[asked.events], asked.values[~asked.events]
    row: dict[str, object] = {
        "question": asked.question, "predictor": asked.predictor, "n": len(asked.values), "events": len(events),
        "patients": len(set(whose)), "without_candidate": asked.without_candidate,
        "median_event": np.median(events) if len(events) else NAN,
        "median_other": np.median(others) if len(others) else NAN,
    }  # fmt: skip
    if why := asked.why_not():
        return row | {"note": f"{why}: no AUROC"}
    of_patient = [whose == name for name in sorted(set(whose))]
    sides = [[asked.values[own & side] for own in of_patient] for side in (asked.events, ~asked.events)]
    low, high, remarks = clustered_auroc_interval(sides[0], sides[1], settings.alpha, settings.n_bootstrap, random)
    return row | {"auroc": auroc(events, others), "low": low, "high": high, "note": "; ".join(remarks)}
