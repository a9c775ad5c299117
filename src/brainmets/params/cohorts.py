"""The parameters of a cohort: its folder, how its files are named, what its labels mean, and what is held out."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import PositiveFloat, PositiveInt, field_validator, model_validator

from brainmets.params.base import ParameterError, Parameters, given
from brainmets.vocabulary import LABELS, SEQUENCES, Label


class Layout(Parameters):
    """Where a cohort's files lie below its folder: one pattern per sequence and one for the label map.

    Each pattern holds ``{case}``; ``patient`` is a regular expression that is matched from the start of a case's
    name and whose first group is the patient (several cases of one patient never part in a split).
    """

    t1n: str
    t1c: str
    t2w: str
    t2f: str
    label: str
    patient: str = "(.+)"

    @model_validator(mode="after")
    def _patterns_name_the_case(self) -> Self:
        problems = [
            f"{name}: {getattr(self, name)!r} {wrong}"
            for name in (*SEQUENCES, "label")
            if (wrong := _wrong_pattern(getattr(self, name)))
        ]
        try:
            if re.compile(self.patient).groups < 1:
                problems.append(f"patient: {self.patient!r} needs a group, such as '(P[0-9]+)'")
        except re.error as error:
            problems.append(f"patient: {self.patient!r} is not a regular expression ({error})")
        if problems:
            raise ParameterError("; ".join(problems), problems)
        return self


def _wrong_pattern(pattern: str) -> str:
    if "{case}" not in pattern:
        return "must contain {case}"
    rest = pattern.replace("{case}", "")
    if "{" in rest or "}" in rest:
        found = re.findall(r"\{[^{}]*\}", rest) or ["a brace without its partner"]
        return f"holds {found[0]}; {{case}} alone may stand in braces"
    return "must start below the cohort's folder, not at / or ~" if pattern[0] in "/~" else ""


BRATS_LAYOUT = {
    **{sequence: f"{{case}}/{{case}}-{sequence}.nii.gz" for sequence in SEQUENCES},
    "label": "{case}/{case}-seg.nii.gz",
    "patient": r"(.+)-\d{3}$",
}
"""BraTS naming: ``BraTS-MET-00001-000`` is patient ``BraTS-MET-00001``, time point ``000``."""


class Phantoms(Parameters):
    """Ask notebook 01 to make the cohort's folder from phantoms; a cohort of one's own leaves this out."""

    site: Literal["source", "target"]
    patients: PositiveInt
    spacing_mm: PositiveFloat
    seed: int


class Cohort(Parameters):
    """One cohort: its folder, its layout, how its labels map to BraTS labels, and which cases are held out."""

    folder: str
    layout: Literal["brats"] | Layout
    label_map: dict[int, Label]
    held_out: int | list[str]
    phantoms: Phantoms | None = None

    @field_validator("layout", mode="before")
    @classmethod
    def _brats_or_patterns(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return Layout(**value)
        if not isinstance(value, Layout) and value != "brats":
            raise ValueError(f"must be brats, or hold one pattern per sequence{given(value)}")
        return value

    @field_validator("held_out", mode="before")
    @classmethod
    def _a_count_or_names(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | list):
            raise ValueError(f"must be a number of cases or a list of case names{given(value)}")
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{value} must be 0 or more, or a list of case names")
        if isinstance(value, list):
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"a case's name must be text; write it in quotes{given(name)}")
                if value.count(name) > 1:
                    raise ValueError(f"names case {name!r} twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if 0 in self.label_map and self.label_map[0] != "background":
            raise ValueError(f"label_map: 0 is background, not {self.label_map[0]!r}")
        return self

    @property
    def files(self) -> Layout:
        """The layout spelled out."""
        return Layout(**BRATS_LAYOUT) if self.layout == "brats" else self.layout

    @property
    def values(self) -> dict[int, int]:
        """The cohort's label values to BraTS label values; background (0 to 0) included."""
        return {0: 0, **{value: LABELS[name] for value, name in self.label_map.items()}}
