"""The FROC of one model by every rule of a hit, as one table and as lines of text."""

from __future__ import annotations

import pandas as pd

from brainmets.scoring.candidates import Detections, hits
from brainmets.statistics import froc
from brainmets.statistics.comparisons import Settings
from brainmets.vocabulary import HIT_RULE_TITLES, HIT_RULES, REGIONS

COLUMNS = ["arm", "strategy", "hit", *froc.COLUMNS]


def by_rule(detections: Detections, settings: Settings) -> pd.DataFrame:
    """``froc.table`` of each region that has candidates or lesions, by each of ``HIT_RULES``; columns ``COLUMNS``.

    Detections without any row give a table without rows. Raises ``ValueError`` for those of several models.
    """
    rows = pd.concat([detections.candidates, detections.targets])
    parts = []
    for region in (region for region in REGIONS if region in set(rows["region"])):
        for rule in HIT_RULES:
            own = froc.table(hits(detections, rule), region, settings)
            parts.append(own.assign(arm=rows["arm"].iloc[0], strategy=rows["strategy"].iloc[0], hit=rule))
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def lines(table: pd.DataFrame) -> list[str]:
    """The sensitivities for all lesions of ``by_rule``'s table, a block per region and a line per rule, with the mean.

    A region without lesions has no sensitivity: a dash. A table without rows gives one line that says so.
    """
    if table.empty:
        return ["FROC: no candidate and no lesion in any case"]
    whole = table[table["size"] == froc.ALL_SIZES.name]
    names = list(dict.fromkeys(whole["at"]))
    width = max(len(title) for title in HIT_RULE_TITLES.values())
    text = []
    for region, own in whole.groupby("region", sort=False):
        first = own.iloc[0]
        text.append(f"{region}: share of {first['lesions']} lesions found, {first['cases']} cases")
        text.append(f"  {'false positives a case':{width}}" + "".join(f"{name:>7}" for name in names))
        for rule in HIT_RULES:
            shares = own[own["hit"] == rule].set_index("at")["sensitivity"].reindex(names)
            text.append(f"  {HIT_RULE_TITLES[rule]:{width}}" + "".join(map(_share, shares)))
    return text


def _share(share: float) -> str:
    return f"{'-':>7}" if pd.isna(share) else f"{share:7.3f}"
