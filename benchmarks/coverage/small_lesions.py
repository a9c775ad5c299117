"""Arms against a baseline in small lesions: how often anything is claimed of arms that are alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.coverage.rows import Part, Random, Row
from brainmets.params import SmallLesions
from brainmets.scoring.candidates import Hits
from brainmets.statistics import small_lesions
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.small_lesions import GAIN, LOSS, Trainings
from brainmets.vocabulary import ARMS

ARMS_DRAWN = ("default", "lesion_dice", "lesion_sampling")
RULE = SmallLesions(baseline="default", below_mm=5.0, false_positives=1.0, alpha=0.05)
REPEATS, RESAMPLES = 3, 500
FIRST = ["arm", "strategy", "case", "region"]


def drawn(random: Random, patients: int, shifts: dict[str, float], luck: float) -> Trainings:
    """Trainings of arms that see the same lesions: scores are what patient and lesion are, an arm's shift, and luck.

    ``shifts``: by arm, added to the scores of lesions, whose spread is 1.2; ``luck``: the spread of what each training
    adds to all of its lesions. Every training's own noise of single lesions has spread 0.7. Six lesions a patient on
    average, two of three below the limit, and 3 false candidates.
    """
    cases = [f"p{number:02d}" for number in range(patients)]
    whose = np.repeat(np.arange(patients), 1 + random.poisson(5, patients))
    diameter = np.where(random.random(len(whose)) < 2 / 3, 4.0, 8.0)
    hard = random.normal(0, 0.7, patients)[whose] + random.normal(0, 0.7, len(whose)) + 0.2 * (diameter > 5)
    lesion = pd.DataFrame({"case": np.array(cases)[whose], "region": "TC", "lesion": np.arange(len(whose))})
    lesion = lesion.assign(volume_mm3=np.pi / 6 * diameter**3, diameter_mm=diameter)

    def training(arm: str) -> Hits:
        scores = hard + shifts[arm] + random.normal(0, luck) + random.normal(0, 0.7, len(whose))
        of = np.repeat(np.arange(patients), random.negative_binomial(2, 2 / 5, patients))
        false = pd.DataFrame({"case": np.array(cases)[of], "region": "TC", "candidate": np.arange(len(of))})
        false = false.assign(score=random.normal(-0.5, 1, len(of)), volume_mm3=20.0)
        reached = np.where(random.random(len(whose)) < 0.95, scores, -np.inf)
        return Hits(
            tuple(cases),
            lesion.assign(arm=arm, strategy="finetune", score=reached),
            false.assign(arm=arm, strategy="finetune"),
        )

    return {
        (arm, "finetune"): {repeat: training(arm) for repeat in range(1, REPEATS + 1)} for arm in ARMS if arm in shifts
    }


def claims(trainings: Trainings, seed: int) -> list[str]:
    """The verdicts of the arms beside the baseline."""
    compared = small_lesions.curves_of(trainings, RULE, "TC", {})
    table = small_lesions.compare(compared, Settings(0.05, RESAMPLES, seed))
    return [one for one in table["verdict"] if one in (GAIN, LOSS, small_lesions.NOT_SHOWN)]


def any_claim(random: Random, patients: int, luck: float) -> bool | None:
    trainings = drawn(random, patients, dict.fromkeys(ARMS_DRAWN, 0.0), luck)
    return any(one != small_lesions.NOT_SHOWN for one in claims(trainings, int(random.integers(2**31))))


def rows() -> Iterator[Row]:
    """Arms that are alike but for their trainings' luck; whether any is claimed to differ."""
    studies = ((8, 0.2, "some luck"), (16, 0.0, "no luck"), (16, 0.2, "some luck"), (16, 0.6, "much luck"))
    for patients, luck, how in studies:
        yield Row(
            "any claim among two arms that are the baseline's equal",
            f"{patients} patients, {REPEATS} trainings, {how} of training ({luck:g})",
            True,
            lambda random, patients=patients, luck=luck: any_claim(random, patients, luck),
        )


PART = Part("Small lesions", rows)
