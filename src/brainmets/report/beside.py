"""The report's sections beside the main numbers: post-processing by rule, and what is lost without a sequence."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from brainmets.cohorts.cohort import read_manifest
from brainmets.params.study import Study
from brainmets.paths import COHORTS, StudyPaths
from brainmets.schemas import POST_PROCESSED, SUBSETS, Schema, read_each
from brainmets.statistics import subsets
from brainmets.statistics.conclusions import listed
from brainmets.statistics.froc import SMALL_MM
from brainmets.statistics.paired_measures import FALSE, MEASURES
from brainmets.statistics.tables import models
from brainmets.vocabulary import (
    ARMS,
    PAPER_ARMS,
    REGION_ORDER,
    SEQUENCE_TITLES,
    STRATEGY_TITLES,
    arm_title,
    ordered,
)

PROCESSED, BY_SUBSET = "post_processing.csv", "sequence_subsets.csv"
"""Tables of notebook 07 that the sections are made of."""
FIGURE = "sequence_subsets.png"
"""The figure of notebook 07 that is shown in the second."""
NO_RULES = (
    "No rule of post-processing was tried: the study asks for none (`post_processing: null`), or its scores are from "
    "elsewhere or of an earlier version."
)

Row = Mapping[Hashable, Any]


class Section(NamedTuple):
    """Sentences, the headings of the measures, and a row per model and region (or model and set of sequences)."""

    sentences: list[str]
    measures: list[str]
    rows: list[dict[str, Any]]
    table: str = ""


def arm_words(arms: Sequence[str]) -> str:
    """Which of the study's arms the paper does not have, in a sentence; nothing where it has all."""
    own = [arm_title(arm) for arm in ordered(arms, ARMS) if arm in ARMS and arm not in PAPER_ARMS]
    if not own:
        return ""
    return f"{', '.join(own)}: not in the paper, this project's own."


def sequence_facts(files: StudyPaths, study: Study) -> list[str]:
    """A sentence for each cohort: the sequences that its networks read, and which cases lack one, by the manifests.

    Without a manifest (scores from elsewhere) the sentence says what is declared.
    """
    facts = []
    for cohort in COHORTS:
        reads = study.sequences_of(cohort)
        told = f"The networks of the {cohort} cohort read {listed(SEQUENCE_TITLES[name] for name in reads)}."
        if files.manifest(cohort).is_file():
            cases = read_manifest(files.manifest(cohort))
            lacks = {name: [case for case, one in cases.items() if name not in one.images] for name in reads}
            lacking = [
                f"{SEQUENCE_TITLES[name]} is missing in {len(without)} of {len(cases)} cases ({', '.join(without)})"
                for name, without in lacks.items()
                if without
            ]
            told += f" {'; '.join(lacking)}." if lacking else f" All {len(cases)} cases have them."
        facts.append(told)
    return facts


def post_processing(files: StudyPaths) -> Section:
    """Every measure without the chosen rules and with them, model by model; or the sentence that there is nothing."""
    table = _table(files, PROCESSED, POST_PROCESSED)
    if table.empty:
        return Section([NO_RULES], [], [])
    lines = _lines(table)
    by = {(line["arm"], line["strategy"], line["region"], line["measure"]): line for line in lines}
    measures = [name for name in MEASURES if any(line["measure"] == name for line in lines)]
    rows = []
    for arm, strategy in models(table):
        own = [line for line in lines if (line["arm"], line["strategy"]) == (arm, strategy)]
        for place, region in enumerate(ordered({line["region"] for line in own}, REGION_ORDER)):
            small = next(line for line in own if line["region"] == region)
            rows.append({
                "arm": arm_title(arm), "strategy": STRATEGY_TITLES[strategy], "first": place == 0,
                "rules": small["rules"] if place == 0 else "", "region": region,
                "cells": [_change(by.get((arm, strategy, region, name))) for name in measures],
                "lost": f"{small['small_lost']} of {small['small']}",
            })  # fmt: skip
    sentences = [
        "Rules laid over the label maps, chosen for each model on its cross-validated predictions alone. All other "
        f"numbers of this report are those of the predictions as they are. Last column: lesions below "
        f"{SMALL_MM:g} mm that were found and are lost, of all of them.",
    ]
    return Section(sentences, [MEASURES[name] for name in measures], rows, PROCESSED)


def sequence_subsets(files: StudyPaths) -> Section:
    """What each model loses without a sequence; rows only where the held-out cases were read with several sets."""
    table = _table(files, BY_SUBSET, SUBSETS)
    told = [subsets.sentence(table)]
    if table.empty:
        return Section(told, [], [])
    if table["subset"].nunique() < 2:
        return Section(told, [], [], BY_SUBSET)
    table = table[table["measure"] == "dice"]
    dice = _lines(table)
    regions = ordered({line["region"] for line in dice}, REGION_ORDER)
    rows = []
    for arm, strategy in models(table):
        own = [line for line in dice if (line["arm"], line["strategy"]) == (arm, strategy)]
        for place, (subset, how) in enumerate(dict.fromkeys((line["subset"], line["how"]) for line in own)):
            by = {line["region"]: line for line in own if (line["subset"], line["how"]) == (subset, how)}
            rows.append({
                "arm": arm_title(arm), "strategy": STRATEGY_TITLES[strategy], "first": place == 0,
                "subset": subsets.title_of(subset), "how": "as they are" if how == "occurring" else "others left out",
                "cases": max(line["cases"] for line in by.values()),
                "cells": [_value(by.get(region)) for region in regions],
                "note": next(iter(by.values()))["note"],
            })  # fmt: skip
    return Section(told, [f"Dice, {region}" for region in regions], rows, BY_SUBSET)


def _table(files: StudyPaths, name: str, schema: Schema) -> pd.DataFrame:
    path = files.statistics / name
    return read_each([path] if path.is_file() else [], schema)


def _lines(table: pd.DataFrame) -> list[Row]:
    return list(table.to_dict("records"))


def _change(line: Row | None) -> dict[str, str]:
    """Without, with, and the difference with its interval."""
    if line is None or math.isnan(line["without"]):
        return {"value": "none", "interval": "", "counts": ""}
    digits = 2 if line["measure"] == FALSE else 3
    change = f"{line['difference']:+.{digits}f}" + _between(line["difference_low"], line["difference_high"], digits)
    if line["difference_low"] == line["difference_high"] == 0:
        change = "no patient's changed"  # an interval of width 0 would promise that of others
    return {
        "value": f"{line['without']:.{digits}f} → {line['with']:.{digits}f}",
        "interval": change,
        "counts": f"{line['cases']} cases",
    }


def _value(line: Row | None) -> dict[str, str]:
    """A value with its interval, and its difference to all sequences where it has one."""
    if line is None or math.isnan(line["value"]):
        return {"value": "none", "interval": "", "counts": ""}
    change = ""
    if not math.isnan(line["difference"]):
        change = f"{line['difference']:+.3f}" + _between(line["difference_low"], line["difference_high"], 3)
    low, high = line["value_low"], line["value_high"]
    interval = "no interval" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
    return {"value": f"{line['value']:.3f}", "interval": interval, "counts": change}


def _between(low: float, high: float, digits: int) -> str:
    return " (no interval)" if math.isnan(low) or math.isnan(high) else f" ({low:+.{digits}f} to {high:+.{digits}f})"
