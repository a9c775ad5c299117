"""Hits that can be worked out by hand, and random ones."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from brainmets.schemas import CANDIDATES, OVERLAPS, TARGETS
from brainmets.scoring.candidates import Detections, Hits

LESIONS = ["arm", "strategy", "case", "region", "lesion", "volume_mm3", "diameter_mm", "score"]
FALSE = ["arm", "strategy", "case", "region", "candidate", "score", "volume_mm3"]


def make_hits(cases, lesions, false, region="TC", model=("default", "finetune")) -> Hits:
    """``lesions``: (case, diameter in mm, score), ``false``: (case, score); numbered through, and by themselves."""
    of_lesions = [
        (*model, case, region, number, math.pi / 6 * diameter**3, diameter, score)
        for number, (case, diameter, score) in enumerate(lesions, 1)
    ]
    of_false = [(*model, case, region, 100 + number, score, 20.0) for number, (case, score) in enumerate(false)]
    return Hits(tuple(cases), pd.DataFrame(of_lesions, columns=LESIONS), pd.DataFrame(of_false, columns=FALSE))


def three_patients() -> Hits:
    """Two patients with two lesions each, one of which nothing reaches; scores tied with false ones; a third of none.

    4 lesions, 3 cases. At 0.9: 1 found, 1 false; 0.7: 2, 2; 0.5: 3, 2; 0.3: 3, 3.
    """
    lesions = [("a", 2.0, 0.9), ("a", 6.0, 0.5), ("b", 12.0, 0.7), ("b", 4.0, -math.inf)]
    return make_hits("abc", lesions, [("a", 0.9), ("b", 0.7), ("b", 0.3)])


def random_hits(random: np.random.Generator, n: int, shift: float = 1.0, model=("default", "finetune")) -> Hits:
    """``n`` cases with 0 to 4 lesions and 0 to 5 false candidates each, on few scores so that many are tied."""

    def score(centre: float) -> float:
        return float(np.clip(np.round(random.normal(centre, 1) / 4 + 0.5, 1), 0.1, 1.0))

    cases = [f"p{number:02d}" for number in range(n)]
    lesions = [
        (case, float(random.uniform(1, 15)), score(shift) if random.random() < 0.8 else -math.inf)
        for case in cases
        for _ in range(random.integers(0, 5))
    ]
    false = [(case, score(0.0)) for case in cases for _ in range(random.integers(0, 6))]
    return make_hits(cases, lesions, false, model=model)


def make_detections(cases, lesions, false, region="TC", model=("default", "finetune")) -> Detections:
    """``lesions``: (case, mm^3, score or -inf), each hit by a candidate of its own; ``false``: (case, score, mm^3)."""
    candidates, targets, overlaps = [], [], []
    for number, (case, volume, score) in enumerate(lesions, 1):
        targets.append((*model, case, region, number, volume, (6 * volume / math.pi) ** (1 / 3), 0.0, 0.0, 0.0))
        if math.isfinite(score):
            hit = (score, score, volume, 0.0, 0.0, 0.0, 0.5, True, True, True)
            candidates.append((*model, case, region, number, *hit))
            overlaps.append((*model, case, region, number, number, volume, 1.0, True))
    for number, (case, score, volume) in enumerate(false, 100):
        missed = (score, score, volume, 0.0, 0.0, 0.0, 0.5, False, False, False)
        candidates.append((*model, case, region, number, *missed))
    return Detections(
        tuple(cases),
        pd.DataFrame(candidates, columns=list(CANDIDATES.columns)),
        pd.DataFrame(targets, columns=list(TARGETS.columns)),
        pd.DataFrame(overlaps, columns=list(OVERLAPS.columns)),
    )
