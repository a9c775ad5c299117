"""Names and numbers as readers see them: the same in figures, in the conclusion and in the answer.

Tables keep the identifiers (``tversky_bce``, ``scratch``, ``hd95``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from brainmets.vocabulary import METRIC_TITLES

Row = dict[str, Any]


def measure(row: Row) -> str:
    """Region and metric of a row, such as "TC Dice"."""
    return f"{row['region']} {METRIC_TITLES.get(row['metric'], row['metric'])}"


def p_words(value: float) -> str:
    """A p-value with two digits."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def count(n: int, thing: str) -> str:
    """A number with its noun, in the plural where it is not one."""
    return f"{n} {thing}" + "s" * (n != 1)


def listed(names: Sequence[str]) -> str:
    """The names with commas and an "and"."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def records(table: pd.DataFrame) -> list[Row]:
    """The table's rows as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
