"""Before anything is predicted: is this scan like those that the model was trained on?

A case is put into numbers (``measure``), and so is every training case (``profile``). ``look`` compares the two: a
number beyond what any brain has, or far from the training cohort's, is a remark with its range. A remark refuses only
where a prediction would be worthless or dangerous to show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
import pandas as pd

from brainmets import nifti
from brainmets.cohorts.cohort import Case

Severity = Literal["refuse", "warn"]
Decision = Literal["pass", "warn", "refuse"]
SCHEMA = 1
"""Of a profile's JSON."""


class Remark(NamedTuple):
    """One finding: its rule, what it is about, and the number beside the range that it should lie in.

    ``sequence``: t1n, t1c, t2w, t2f, or "all". ``value``: NaN where there is nothing to measure. ``low``, ``high``:
    the limits, -inf or inf for a side without one.
    """

    rule: str
    severity: Severity
    sequence: str
    text: str
    value: float
    low: float
    high: float


class ProfileError(ValueError):
    """A profile that cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True)
class Profile:
    """What the training cohort looked like: ``values`` has a row per case, numbered from 0, and a column per number.

    NaN where a case had nothing to measure. No names.
    """

    cases: int
    values: pd.DataFrame

    def as_json(self) -> dict[str, Any]:
        """``schema``, ``cases`` (their number), ``values``: by number, a list with a value per case or null."""
        values = {
            str(name): [float(f"{value:.6g}") if math.isfinite(value) else None for value in column]
            for name, column in self.values.items()
        }
        return {"schema": SCHEMA, "cases": self.cases, "values": values}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Profile:
        """The profile that ``as_json`` gave; ``ProfileError`` for what is none."""
        if content.get("schema") != SCHEMA:
            raise ProfileError(f"profile: schema {content.get('schema')!r}, where this release reads {SCHEMA}")
        cases, values = content.get("cases"), content.get("values")
        if not isinstance(cases, int) or isinstance(cases, bool) or cases < 0 or not isinstance(values, Mapping):
            raise ProfileError("profile: `cases` must be a number of cases and `values` lists by number")
        for name, column in values.items():
            if not isinstance(column, list) or len(column) != cases:
                raise ProfileError(f"profile: {name!r} must be a list with a value for each of the {cases} case(s)")
            if not all(value is None or (type(value) in (int, float) and math.isfinite(value)) for value in column):
                raise ProfileError(f"profile: {name!r} holds something that is neither a finite number nor null")
        return cls(cases, pd.DataFrame({str(name): pd.Series(column, dtype=float) for name, column in values.items()}))


def measure(images: Mapping[str, npt.NDArray[Any]], affine: nifti.Affine) -> dict[str, float]:
    """The numbers of one case; see ``NUMBERS``. ``images``: by sequence, (x, y, z), on one grid of ``affine``."""
    return {}


def profile(cases: Iterable[Case]) -> Profile:
    """The numbers of every training case; its images are read one case at a time."""
    rows = []
    for case in cases:
        volumes = {name: nifti.read_volume(path) for name, path in case.images.items()}
        rows.append(measure({name: voxels for name, (voxels, _) in volumes.items()}, volumes["t1c"][1].affine))
    return Profile(len(rows), pd.DataFrame(rows))


def look(
    images: Mapping[str, npt.NDArray[Any]],
    affine: nifti.Affine,
    profile: Profile,
    preparation: Mapping[str, float] | None = None,
) -> list[Remark]:
    """Everything unusual about a case, what refuses it first.

    ``preparation``: the row of quality.csv of a case that was prepared here.
    """
    return []


def decision(remarks: Iterable[Remark]) -> Decision:
    """What to do with a case: "refuse" where any remark refuses, "warn" where there is any, else "pass"."""
    severities = {remark.severity for remark in remarks}
    return "refuse" if "refuse" in severities else "warn" if severities else "pass"
