"""What the chosen post-processing does to the held-out predictions: every measure without it, with it, and the change.

The main numbers of a study stay those of the predictions as they are; these stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from brainmets import schemas
from brainmets.paths import StudyPaths
from brainmets.scoring.lesions import equivalent_mm
from brainmets.statistics.froc import SMALL_MM
from brainmets.statistics.paired_measures import measured
from brainmets.vocabulary import Model, model_title

COLUMNS = list(schemas.POST_PROCESSED.columns)


def compare(
    without: pd.DataFrame,
    processed: pd.DataFrame,
    lesions: tuple[pd.DataFrame, pd.DataFrame],
    patients: Mapping[str, str],
    rules: str,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Both sides of one model in every region and measure, with ``COLUMNS``.

    ``without`` and ``processed`` are its scores before and after, ``lesions`` its two tables of lesions, ``rules``
    what was done, in words. ``cases`` and ``patients``: of the measure. ``difference``: with less without, paired by
    case, with its interval over patients. ``small`` lesions are those below ``SMALL_MM``; ``small_lost`` those of
    them that were found without the rules and are not found with them. Raises ``ValueError`` where the sides are not
    of the same cases and lesions.
    """
    (arm, strategy), *others = without[["arm", "strategy"]].drop_duplicates().itertuples(index=False, name=None)
    if others or {*processed["arm"]} != {arm} or {*processed["strategy"]} != {strategy}:
        raise ValueError("the two sides must be of one model")
    small = _small_lost(*lesions)
    rows = []
    for before, after in zip(measured(without), measured(processed), strict=True):
        difference = after.less(before, patients, confidence)
        whose = {patients.get(case, case) for case in before.part.index}
        sides = [bound for side in (before, after) for bound in (side.value, *side.interval(patients, confidence))]
        rows.append(
            (arm, strategy, rules, before.region, before.measure, len(before.part), len(whose), *sides, *difference,
             *small.get(before.region, (0, 0)))
        )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _small_lost(without: pd.DataFrame, processed: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """By region the reference lesions below ``SMALL_MM``, and those of them that are found no more."""
    key = ["case", "region", "lesion"]
    before, after = (
        table[table["kind"].eq("reference") & (equivalent_mm(table["volume_mm3"]) < SMALL_MM)].set_index(key)
        for table in (without, processed)
    )
    if set(before.index) != set(after.index):
        raise ValueError("the two sides' tables of lesions do not have the same reference lesions")
    lost = before["detected_iou"].astype(bool) & ~after["detected_iou"].reindex(before.index).astype(bool)
    counts = lost.groupby(level="region").agg(["size", "sum"])
    return {str(region): (int(n), int(gone)) for region, n, gone in counts.itertuples()}


def sentence(table: pd.DataFrame) -> str:
    """How many lesions below 5 mm the rules lost, in words, of the whole tumour."""
    whole = table[table["region"] == "WT"].iloc[:1]
    n, lost = (int(whole[name].iloc[0]) for name in ("small", "small_lost")) if len(whole) else (0, 0)
    if not n:
        return f"No held-out lesion is below {SMALL_MM:g} mm: what the rules would cost there cannot be seen."
    return f"{lost} of {n} held-out lesions below {SMALL_MM:g} mm were found without the rules and are lost with them."


def told(table: pd.DataFrame) -> list[str]:
    """A line for each model: its rules, and what they cost in small lesions."""
    models = table.groupby(["arm", "strategy", "rules"], sort=False)
    return [
        f"{model_title(str(arm), str(strategy))}: {rules}. {sentence(own)}" for (arm, strategy, rules), own in models
    ]


def tables_of(files: StudyPaths, models: Iterable[Model]) -> list[Path]:
    """The tables (``schemas.POST_PROCESSED``) that notebook 06 wrote for these models; a model may have none."""
    paths = [files.post_processing(*model) / "with_and_without.csv" for model in models]
    return [path for path in paths if path.is_file()]
