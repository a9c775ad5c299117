"""What the paper prints, and what its released score files give for the same quantity.

The paper ("Transfer Learning Approaches for Brain Metastases Screenings", 2024, doi 10.20944/preprints202410.1738.v1)
does not say over which arms its means run, nor which strategies its p-values compare. Every printed number is
therefore set beside every reasonable reading of it. It is supported where the one reading that fits most numbers of
its kind rounds to it; where only another reading does, that is said and does not count, since numbers printed side by
side mean the same thing. A number printed for several regions is supported by a reading that rounds to it in each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets.statistics.tables import models
from brainmets.statistics.unpaired import mann_whitney
from brainmets.vocabulary import ARMS, REGION_ORDER, STRATEGIES

COLUMNS = [
    "section", "quantity", "metric", "region", "model", "printed", "decimals", "reading", "recomputed_region",
    "recomputed", "difference", "agrees", "note",
]  # fmt: skip
QUANTITY = ["section", "quantity", "metric", "region", "model", "printed", "decimals"]
PAPER_CASES = "SBT-MET-"
"""The names of the paper's held-out cases begin so."""
N_PAPER_CASES = 10
CASE_728 = "000728"
THREE_REGIONS = "ET+TC+WT"
THREE_ARMS = "mean of the three arms"


@dataclass(frozen=True)
class Printed:
    """One printed number: where it stands, what it is of, and with how many decimals."""

    section: str
    quantity: str
    metric: str
    region: str
    model: str
    value: float
    decimals: int


def _means(paragraph: int, metric: str, strategy: str, decimals: int, numbers: tuple[float, ...]) -> list[Printed]:
    section = f"3.1.1, paragraph {paragraph}"
    return [
        Printed(section, "mean", metric, region, strategy, value, decimals)
        for region, value in zip(("ET", "TC", "WT"), numbers, strict=True)
    ]


PRINTED = [
    *_means(2, "dice", "finetune", 3, (0.905, 0.936, 0.914)),
    *_means(2, "dice", "scratch", 3, (0.902, 0.934, 0.907)),
    *_means(3, "hd95", "finetune", 2, (2.76, 1.87, 3.36)),
    *_means(3, "hd95", "scratch", 2, (2.78, 5.50, 3.23)),
    Printed("3.1.2, paragraph 2", "p-value", "dice", "WT", "tversky_bce > segresnet", 0.04, 2),
    Printed("3.1.2, paragraph 2", "p-value", "dice", "WT", "tversky_bce > default", 0.03, 2),
    Printed("3.1.2, paragraph 2", "p-value", "sensitivity", THREE_REGIONS, "tversky_bce > segresnet", 0.02, 2),
    Printed("3.1.2, paragraph 2", "p-value", "sensitivity", THREE_REGIONS, "tversky_bce > default", 0.01, 2),
    Printed("3.3, paragraph 2", "lowest of case 728", "dice", THREE_REGIONS, "both reviewed models", 0.90, 2),
    Printed("3.3, paragraph 2", "highest of case 728", "dice", THREE_REGIONS, "both reviewed models", 0.92, 2),
    Printed("3.3, paragraph 2", "lowest of case 728", "hd95", THREE_REGIONS, "both reviewed models", 0.8, 1),
    Printed("3.3, paragraph 2", "highest of case 728", "hd95", THREE_REGIONS, "both reviewed models", 2.0, 1),
]
"""Twenty numbers. The p-value of sensitivity is one number "across all sub-regions": a reading holds it against each
region, another against the regions' pooled values.

The paper names no metric for "whole tumor segmentation"; Dice is taken. The reviewed models are the fine-tuned
TverskyBCE and SegResNet.
"""


def printed_vs_recomputed(scores: pd.DataFrame) -> pd.DataFrame:
    """Each printed number beside each reading of it, with the columns ``COLUMNS``.

    ``difference`` is recomputed minus printed; ``agrees`` is whether the recomputed value rounds to the printed one.
    Only all ten of the paper's cases under all six models can support or contradict it: with others nothing is
    recomputed and ``note`` says so, as it does where a reading runs over an undefined value.
    """
    reason = _not_the_papers(scores)
    rows = []
    for item in PRINTED:
        row: dict[str, object] = {
            "section": item.section,
            "quantity": item.quantity,
            "metric": item.metric,
            "region": item.region,
            "model": item.model,
            "printed": item.value,
            "decimals": item.decimals,
            "reading": "",
            "agrees": "",
            "note": "",
        }
        if reason:
            rows.append({**row, "note": reason})
            continue
        for reading, region, value in _readings(item, scores):
            row |= {"reading": reading, "recomputed_region": region}
            if np.isnan(value):
                rows.append({**row, "note": "a value that this reading needs is undefined"})
                continue
            agrees = abs(round(value, item.decimals) - item.value) < 1e-9
            rows.append(
                {
                    **row,
                    "recomputed": value,
                    "difference": value - item.value,
                    "agrees": str(agrees),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def support(table: pd.DataFrame) -> pd.DataFrame:
    """One row per printed number that was recomputed: its key, ``agreeing``, ``usual``, ``closest``, ``status``.

    ``agreeing`` are the readings that round to it in every region they run over, ``usual`` is the one that fits most
    printed numbers of its kind (empty where none fits any), ``closest`` the nearest value. ``status`` is "supported"
    (by the usual reading), "other reading" (only another one fits) or "unsupported" (none does). The kinds are means,
    p-values and single cases. A table without rows where nothing was recomputed.
    """
    compared = table[table["agrees"] != ""]
    numbers = [(key, group, _agreeing(group)) for key, group in compared.groupby(QUANTITY, sort=False)]
    hits: dict[str, Counter[str]] = {}
    for _, group, agreeing in numbers:
        hits.setdefault(_kind(group), Counter()).update(agreeing)
    rows = []
    for key, group, agreeing in numbers:
        most = hits[_kind(group)].most_common(1)
        usual = most[0][0] if most else ""
        closest = group["recomputed"].iloc[group["difference"].abs().to_numpy().argmin()]
        status = "supported" if usual in agreeing else "other reading" if agreeing else "unsupported"
        row = dict(zip(QUANTITY, key, strict=True))
        rows.append({**row, "agreeing": "; ".join(agreeing), "usual": usual, "closest": closest, "status": status})
    return pd.DataFrame(rows, columns=[*QUANTITY, "agreeing", "usual", "closest", "status"])


def _agreeing(group: pd.DataFrame) -> list[str]:
    """The readings of one printed number that round to it in every region they run over."""
    readings = group.groupby("reading", sort=False)
    return [str(reading) for reading, rows in readings if (rows["agrees"] == "True").all()]


def _kind(group: pd.DataFrame) -> str:
    """Means, p-values, or single cases: numbers of one kind have one reading."""
    return str(group["quantity"].iloc[0]).removeprefix("lowest ").removeprefix("highest ")


def as_printed(row: Mapping[str, Any]) -> str:
    """The number of a row of ``support`` with the decimals that the paper prints."""
    return f"{row['printed']:.{row['decimals']}f}"


def _not_the_papers(scores: pd.DataFrame) -> str:
    cases = sorted(scores["case"].unique())
    if len(cases) != N_PAPER_CASES or not all(case.startswith(PAPER_CASES) for case in cases):
        return "not compared: these are not the paper's ten held-out cases"
    if set(models(scores)) != set(product(ARMS, STRATEGIES)):
        return "not compared: the paper's six models are not all there, or there are others"
    return ""


def _readings(item: Printed, scores: pd.DataFrame) -> Iterator[tuple[str, str, float]]:
    """Reading, region and value."""
    if item.quantity == "mean":
        for arms in (*((arm,) for arm in ARMS), ARMS):
            name = f"{arms[0]} arm" if len(arms) == 1 else THREE_ARMS
            yield name, item.region, float(_values(scores, item, arms, (item.model,)).mean())
    elif item.quantity == "p-value":
        several = item.region == THREE_REGIONS
        for strategies in ((STRATEGIES[0],), (STRATEGIES[1],), STRATEGIES):
            name = " and ".join(strategies)
            for region in REGION_ORDER[:3] if several else (item.region,):
                yield name, region, _p_value(scores, replace(item, region=region), strategies)
            if several:
                yield f"{name}, regions pooled", item.region, _p_value(scores, item, strategies)
    else:
        for arm in ("tversky_bce", "segresnet"):
            of_case = _values(scores[scores["case"].str.contains(CASE_728)], item, (arm,), ("finetune",))
            extreme = np.min if item.quantity.startswith("lowest") else np.max
            yield f"{arm} finetune", item.region, float(extreme(of_case)) if len(of_case) else float("nan")


def _p_value(scores: pd.DataFrame, item: Printed, strategies: tuple[str, ...]) -> float:
    """The paper's test of the two arms in ``item.model``; NaN where a value is undefined."""
    ours, theirs = (_values(scores, item, (arm,), strategies) for arm in item.model.split(" > "))
    defined = bool(np.isfinite(ours).all() and np.isfinite(theirs).all())
    return mann_whitney(ours, theirs, "greater")[1] if defined else float("nan")


def _values(
    scores: pd.DataFrame, item: Printed, arms: tuple[str, ...], strategies: tuple[str, ...]
) -> npt.NDArray[np.float64]:
    regions = REGION_ORDER[:3] if item.region == THREE_REGIONS else (item.region,)
    keep = (scores["metric"] == item.metric) & scores["region"].isin(regions)
    keep &= scores["arm"].isin(arms) & scores["strategy"].isin(strategies)
    return scores.loc[keep, "value"].to_numpy(float)
