"""Which direction of each metric is better, and which differences of it are real rather than rounding.

A metric that is not listed here has no direction: it is described, never tested.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

Alternative = Literal["greater", "less", "two-sided"]

HIGHER_IS_BETTER = ("dice", "sensitivity", "specificity", "precision", "nsd", "nsd_1mm", "f1")
LOWER_IS_BETTER = ("hd95", "hd", "fp", "fn")

DECIMALS_MM = 4
DECIMALS = 12


def better(metric: str) -> Alternative | None:
    """The alternative under which the first model is the better one; None for a metric without a direction.

    A lesion-wise metric has its whole-region namesake's. Volumes have none, and found lesions (``lesion_tp``) are
    left out because they are the reference lesions less the missed ones (``lesion_fn``): one question, not two.
    """
    plain = metric.removeprefix("lesion_").removeprefix("small_").removeprefix("large_")
    if plain in HIGHER_IS_BETTER:
        return "greater"
    return "less" if plain in LOWER_IS_BETTER else None


def without_direction(metrics: Iterable[str]) -> list[str]:
    """The metrics, each once and by alphabet, that are described and not tested."""
    return sorted(metric for metric in set(metrics) if better(metric) is None)


def rounded(differences: npt.NDArray[np.float64], unit: str) -> npt.NDArray[np.float64]:
    """Differences (any shape) without the noise of how numbers are stored, so that ties are seen as ties.

    Distances are rounded to 0.0001 mm: image headers hold spacing in single precision, so that two equal boundaries
    may differ by 0.0000014 mm, and a rank test would count that as an improvement. Other units are rounded to 1e-12.
    """
    return np.round(differences, DECIMALS_MM if unit == "mm" else DECIMALS)
