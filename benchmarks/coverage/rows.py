"""A row of the tables: a method, the kind of study that is drawn, and how often it holds there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from brainmets.scoring.intervals import Interval
from brainmets.statistics.tests import generator

ALPHA, PATIENTS, SEED = 0.05, 10, 9
NAMES = [f"p{number:02d}" for number in range(PATIENTS)]
Random = np.random.Generator
Study = Callable[[Random], bool | None]
"""Draws one study; whether its test rejected or its interval held the truth; None where the method gives none."""


@dataclass(frozen=True)
class Row:
    """A method under one kind of study: ``level`` says whether a rate of rejections or a coverage is simulated.

    ``nominal`` is the level, or what the coverage lacks of 1.
    """

    what: str
    how: str
    level: bool
    study: Study
    former: bool = False
    nominal: float = ALPHA


@dataclass(frozen=True)
class Part:
    """A section of the kept file: a table of ``rows``, and below it ``words``, from at most ``most`` studies."""

    title: str
    rows: Callable[[], Iterator[Row]] | None = None
    words: Callable[[int], str] | None = None
    most: int = 1_000_000


def holds(interval: Interval, truth: float) -> bool | None:
    """Whether the interval holds the truth; None where there is no interval."""
    return None if np.isnan(interval[0]) else bool(interval[0] <= truth <= interval[1])


def simulate(row: Row, draws: int) -> str:
    """The row's line: rate with its Monte Carlo error, and whether the nominal level or coverage is kept."""
    random = generator(SEED, row.what, row.how)
    found = [row.study(random) for _ in range(draws)]
    given = [bool(result) for result in found if result is not None]
    rate = float(np.mean(given))
    error = float(np.sqrt(max(rate * (1 - rate), 1 / len(given)) / len(given)))
    nominal = row.nominal if row.level else 1 - row.nominal
    off = rate - nominal if row.level else nominal - rate
    verdict = "not in use" if row.former else "missed" if off > 2 * error else "kept"
    if len(given) < len(found):
        verdict += f"; none given in {1 - len(given) / len(found):.1%}"
    wanted = f"level {nominal:g}" if row.level else f"coverage {nominal:g}"
    return f"| {row.what} | {row.how} | {wanted} | {rate:.3f} ± {error:.3f} | {verdict} |"
