"""Made-up score tables for the statistics' tests: every number follows from the arguments."""

from pathlib import Path

import numpy as np
import pandas as pd

from brainmets.statistics.tables import COLUMNS, in_order
from brainmets.vocabulary import LESION_COLUMNS

UNITS = {"dice": "1", "sensitivity": "1", "specificity": "1", "hd95": "mm", "hd": "mm"}
ARMS = ("default", "tversky_bce", "segresnet")


def example_scores(
    n_cases: int = 8, arms: tuple[str, ...] = ARMS, gain: float = 0.02, seed: int = 0, volumes: bool = True
) -> pd.DataFrame:
    """A long table whose fine-tuned Dice is ``gain`` better in every case, and HD95 20 ``gain`` mm lower.

    All cases lie on distinct levels, so that no two differences are tied but by ``gain``'s small noise.
    """
    random = np.random.default_rng(seed)
    rows = []
    for case in range(n_cases):
        level = 0.6 + 0.3 * case / max(n_cases - 1, 1)
        for arm in arms:
            for strategy in ("finetune", "scratch"):
                better = gain * (strategy == "finetune")
                noise = random.normal(0, 0.002)
                for region, shift in (("ET", -0.02), ("TC", 0.0), ("WT", 0.02)):
                    score = level + shift + better + noise
                    found = {
                        "dice": score,
                        "hd95": 20 * (1.2 - score),
                        "sensitivity": score + 0.01,
                        "specificity": 0.999 + 0.0005 * score,
                    }
                    key = (arm, strategy, f"case{case:02d}", region)
                    rows += [(*key, name, value, UNITS[name]) for name, value in found.items()]
                    if volumes:
                        rows.append((*key, "reference_volume", 10.0 + case, "mL"))
                        rows.append((*key, "predicted_volume", 10.0 + case + noise, "mL"))
    return in_order(pd.DataFrame(rows, columns=COLUMNS))


def two_cases(invented_ml: float) -> pd.DataFrame:
    """Case "empty" without ET and case "missed" with ET of 1 mL that no model finds; scored as docs/metrics.md says.

    In "empty" the fine-tuned model predicts ``invented_ml`` mL of ET, the one from scratch nothing.
    """
    rows = []
    for strategy, invented in (("finetune", invented_ml), ("scratch", 0.0)):
        best = float(invented == 0)
        of_empty = {
            "dice": best,
            "hd95": 200.0 * (1 - best),
            "sensitivity": best,
            "specificity": 1 - 1e-6 * (1 - best),
        }
        of_empty |= {"reference_volume": 0.0, "predicted_volume": invented}
        of_missed = {"dice": 0.0, "hd95": 200.0, "sensitivity": 0.0, "specificity": 1.0}
        of_missed |= {"reference_volume": 1.0, "predicted_volume": 0.0}
        for case, found in (("empty", of_empty), ("missed", of_missed)):
            for metric, value in found.items():
                rows.append(("default", strategy, case, "ET", metric, value, UNITS.get(metric, "mL")))
    return in_order(pd.DataFrame(rows, columns=COLUMNS))


def write_study(folder: Path, scores: pd.DataFrame, lesions: pd.DataFrame | None = None) -> Path:
    """The tables as a study lays them: ``<arm>/<strategy>/scores.csv`` and ``lesions.csv``."""
    for (arm, strategy), table in scores.groupby(["arm", "strategy"]):
        place = folder / str(arm) / str(strategy)
        place.mkdir(parents=True, exist_ok=True)
        table.to_csv(place / "scores.csv", index=False)
        if lesions is not None:
            own = lesions[(lesions["arm"] == arm) & (lesions["strategy"] == strategy)]
            own.to_csv(place / "lesions.csv", index=False)
    return folder


def example_lesions(scores: pd.DataFrame) -> pd.DataFrame:
    """Two reference lesions a case: one of 20 mm^3 that only fine-tuned models find, one of 5000 mm^3 that all do."""
    rows = []
    for arm, strategy, case in scores[["arm", "strategy", "case"]].drop_duplicates().itertuples(index=False):
        for lesion, (volume, found) in enumerate(((20.0, strategy == "finetune"), (5000.0, True)), 1):
            matched = lesion if found else ""
            dice = 0.7 if found else ""
            key = (arm, strategy, case, "WT", "reference")
            rows.append((*key, lesion, volume, 1.0, 2.0, 3.0, matched, dice, found, found))
    return pd.DataFrame(rows, columns=list(LESION_COLUMNS))


def scores(values, metric="dice", arm="default", strategy="finetune", region="ET"):
    """One value per case a, b, c, ..."""
    return pd.DataFrame(
        {
            "arm": arm,
            "strategy": strategy,
            "case": list("abcdef"[: len(values)]),
            "region": region,
            "metric": metric,
            "value": values,
            "unit": "1",
        }
    )


def lesion(case, number, volume, *, detected=True, arm="default", kind="reference", region="TC"):
    """A row whose ``detected_iou`` is given; by the challenge's rule everything is found, which no reader is told."""
    row = (arm, "finetune", case, region, kind, number, volume, 0.0, 0.0, 0.0, "", np.nan, True, detected)
    return dict(zip(LESION_COLUMNS, row, strict=True))
