"""What repeats and a learning curve give: retrained models, and what pretraining is worth in cases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.coverage.rows import ALPHA, NAMES, PATIENTS, SEED, Part, Random, Row, holds
from brainmets.statistics import learning_curve, repeats
from brainmets.statistics.branches import Block
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.tests import Floats, generator

REPEATS = 3


def trainings(random: Random, luck: float, alike: float = 1.0) -> list[Floats]:
    """Scores (patients, repeats) of both strategies, mean 0.

    Standard deviations: ``alike`` of patients, 0.3 of patient by strategy, ``luck`` of trainings, 0.3 of the rest.
    """
    of_case = random.normal(0, alike, (PATIENTS, 1))
    return [
        of_case
        + random.normal(0, 0.3, (PATIENTS, 1))
        + random.normal(0, luck, (1, REPEATS))
        + random.normal(0, 0.3, (PATIENTS, REPEATS))
        for _ in "ab"
    ]


def of_retrained(random: Random, luck: float, strategies: int) -> bool | None:
    found = repeats.retrained(trainings(random, luck)[:strategies])
    return holds(repeats.interval(found, ALPHA, ""), 0.0)


def of_one_more_training(random: Random, luck: float) -> bool | None:
    found = repeats.retrained(trainings(random, luck)[:1])
    following = repeats.Estimate(found.mean, found.next_variance, found.next_freedom)
    return holds(repeats.interval(following, ALPHA, ""), float(random.normal(0, luck)))


def of_this_model(random: Random, luck: float) -> bool | None:
    """The difference's interval of the first trainings, taken for one of the strategies."""
    first, second = trainings(random, luck)
    found = repeats.mean_over_patients(first[:, 0] - second[:, 0])
    return holds(repeats.interval(found, ALPHA, ""), 0.0)


def of_both_resampled(random: Random, luck: float) -> bool | None:
    scores = trainings(random, luck)[0]
    patients = random.multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), 1000) / PATIENTS
    again = random.multinomial(REPEATS, np.full(REPEATS, 1 / REPEATS), 1000) / REPEATS
    low, high = np.quantile(np.einsum("bp,pr,br->b", patients, scores, again), [ALPHA / 2, 1 - ALPHA / 2])
    return holds((float(low), float(high)), 0.0)


SIZES = (5, 10, 15, 20, 40)
AT = 1
"""The place of 10 among ``SIZES``, at which k is simulated."""
WORTH_SETTINGS = Settings(ALPHA, 1000, SEED)


def learning_curves(shift: float, gain: float) -> Floats:
    """Means of both strategies at ``SIZES``: scratch bends; fine-tuned is it ``shift`` cases on, ``gain`` higher."""
    cases = np.array(SIZES, float)
    return np.stack([0.8 - 0.9 * (cases + shift) ** -0.7 + gain, 0.8 - 0.9 * cases**-0.7])


def of_curves(random: Random, shift: float, gain: float = 0.0, luck: float = 0.0) -> Block:
    """Patients (sd 0.15) who gain unequally (0.03), with a rest (0.04); ``luck`` is what all share in a training."""
    of_patients = random.normal(0, 0.15, (PATIENTS, 1, 1))
    gains = random.normal(0, 0.03, (PATIENTS, 2, 1))
    rest = random.normal(0, 0.04, (PATIENTS, 2, len(SIZES))) + random.normal(0, luck, (2, len(SIZES)))
    values = learning_curves(shift, gain) + of_patients + gains + rest
    return Block("default", "TC", "dice", "1", tuple(NAMES), SIZES, values)


def worth_in_cases(random: Random, shift: float, gain: float = 0.0, luck: float = 0.0) -> bool | None:
    means = learning_curves(shift, gain)
    _, low, high = learning_curve.worth(of_curves(random, shift, gain, luck), WORTH_SETTINGS)
    truth = learning_curve.more_cases(means[None], np.array(SIZES, float))[0, AT]
    return bool(low[AT] <= truth <= high[AT])


def rows() -> Iterator[Row]:
    """Intervals of retrained models, and of "pretraining is worth k cases"."""
    for luck in (0.0, 0.3, 1.0):
        how = f"{REPEATS} repeats, training luck {luck:g} of the patients' spread"
        yield Row("mean of a retrained model", how, False, lambda r, luck=luck: of_retrained(r, luck, 1))  # type: ignore[misc]
        yield Row("retrained difference", how, False, lambda r, luck=luck: of_retrained(r, luck, 2))  # type: ignore[misc]
        yield Row("mean of one more training", how, False, lambda r, luck=luck: of_one_more_training(r, luck))  # type: ignore[misc]
    how = f"{REPEATS} repeats, training luck 0.3 of the patients' spread"
    yield Row(
        "difference of these models, taken for that of retrained ones", how, False,
        lambda r: of_this_model(r, 0.3), former=True,
    )  # fmt: skip
    yield Row(
        "former: bootstrap of patients and repeats", how, False, lambda r: of_both_resampled(r, 0.3), former=True
    )  # fmt: skip
    what, at = "pretraining is worth k cases", f"sizes {', '.join(map(str, SIZES))}; at {SIZES[AT]}"
    yield Row(what, f"{at}, 6 cases", False, lambda r: worth_in_cases(r, 6))
    yield Row(what, f"{at}, none: equal curves", False, lambda r: worth_in_cases(r, 0))
    yield Row(what, f"{at}, more than all", False, lambda r: worth_in_cases(r, 6, gain=0.1))
    yield Row(
        "the same, taken for retrained models", f"{at}, 6 cases, training luck 0.02", False,
        lambda r: worth_in_cases(r, 6, luck=0.02), former=True,
    )  # fmt: skip


def training_luck(studies: int) -> str:
    """What the split of variance finds of a known training luck, for ten patients and three repeats."""
    random = generator(SEED, "training luck")
    truth = {"case": 1.0, "case_strategy": 0.09, "training": 0.09, "residual": 0.09}
    found = [repeats.split(np.stack(trainings(random, 0.3), axis=1))[0] for _ in range(studies)]
    table = {name: np.array([one[name] for one in found]) for name in truth}
    words = [
        f"{name.replace('_', ' by ')} {value:g} (mean {table[name].mean():.3f}, quartiles "
        f"{np.quantile(table[name], 0.25):.3f} to {np.quantile(table[name], 0.75):.3f})"
        for name, value in truth.items()
    ]
    unsaid = [learning_curve.doubts(block, *worth_interval(block)) for block in (of_curves(random, 6) for _ in found)]
    return (
        f"Components of variance from {PATIENTS} patients and {REPEATS} repeats, over {studies} studies: "
        f"{', '.join(words)}; the training's is cut at 0 in {np.mean(table['training'] == 0):.0%}. Of as many "
        f"learning curves on which pretraining is worth 6 cases, {np.mean([bool(one) for one in unsaid]):.0%} end in "
        "the sentence that the data cannot say."
    )


def worth_interval(block: Block) -> tuple[float, float]:
    """The limits of k at ``SIZES[AT]``."""
    _, low, high = learning_curve.worth(block, WORTH_SETTINGS)
    return float(low[AT]), float(high[AT])


PART = Part("Repeats and the learning curve", rows, training_luck)
