"""Made-up scores of a study's branches: every number is given."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from brainmets.statistics.tables import COLUMNS


def branch_scores(
    by: str, values: Mapping[int, Mapping[str, list[float]]], arm: str = "default", metric: str = "dice",
    region: str = "TC", unit: str = "1",
) -> pd.DataFrame:  # fmt: skip
    """A table with the column ``by``: ``values[branch][strategy]`` holds one value per case a, b, c, ..."""
    rows = [
        (arm, strategy, chr(ord("a") + place), region, metric, value, unit, branch)
        for branch, of_branch in values.items()
        for strategy, of_strategy in of_branch.items()
        for place, value in enumerate(of_strategy)
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, by])


def drawn_trainings(
    random: np.random.Generator, n: int, repeats: int, case: float, case_strategy: float, training: float,
    residual: float,
) -> np.ndarray:  # fmt: skip
    """Scores (patients, 2 strategies, trainings) with these standard deviations and mean 0."""
    return (
        random.normal(0, case, (n, 1, 1))
        + random.normal(0, case_strategy, (n, 2, 1))
        + random.normal(0, training, (1, 2, repeats))
        + random.normal(0, residual, (n, 2, repeats))
    )
