"""The imaging part of RANO-BM's categories, by its written rules, from diameters at every date. Knows no image.

Rules: Lin et al., Lancet Oncology 2015, doi:10.1016/S1470-2045(15)70057-4. What they leave open follows RECIST 1.1
(Eisenhauer et al. 2009, doi:10.1016/j.ejca.2008.10.026), or is stated in ``RULES``. A category of RANO-BM needs the
clinical status, the dose of corticosteroids and a confirmation four weeks later too: images hold none of them, so that
what comes out here is the imaging part only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Category = Literal["baseline", "CR", "PR", "SD", "PD", "NE"]
CATEGORY_TITLES: dict[Category, str] = {
    "baseline": "baseline",
    "CR": "complete response",
    "PR": "partial response",
    "SD": "stable disease",
    "PD": "progressive disease",
    "NE": "not evaluable",
}
State = Literal["measured", "below", "absent", "merged", "not evaluable"]
"""Of a lesion at a date: accepted; a candidate below the operating point; nothing there; part of another lesion; off
the scan, or no scan."""

MOST_TARGETS = 5
RESPONSE_PERCENT, PROGRESSION_PERCENT = 30.0, 20.0
PROGRESSION_MM = 5.0
TOLERANCE_MM = 1e-6
"""By which a diameter or a sum of them may miss a border and still count as on it: floats do not hold 0.7 * 10.1."""
IMAGING_ONLY = (
    "Imaging part only. RANO-BM's category also depends on the clinical status, on corticosteroids and, for a "
    "response, on a confirmation at least four weeks later: images hold none of them."
)
RULES = (
    f"Target lesions: up to {MOST_TARGETS}, the largest measurable at the baseline; others are non-target.",
    "The sum is that of the target lesions' longest axial diameters; the nadir is its smallest value at an earlier "
    "date, the baseline included (of equal ones the latest).",
    f"Partial response: the sum is down {RESPONSE_PERCENT:g}% or more from the baseline. Complete response: no target "
    "and no non-target lesion is left.",
    f"Progression: the sum is up {PROGRESSION_PERCENT:g}% or more from the nadir and one target lesion is up "
    f"{PROGRESSION_MM:g} mm or more from its diameter at the nadir's date; or there is a new lesion.",
    "Under immunotherapy a new lesion alone is not progression.",
    "A lesion of which a candidate below the operating point is left counts with the candidate's diameter, and is "
    "not gone. A new lesion at a place where an earlier date had a candidate was already pointed at: it is listed, "
    "and is not counted as new.",
    "A lesion that is above the operating point again after a complete response is progression, however small, and "
    "under immunotherapy is not by itself, as a new one; without a complete response before, it is added to the sum "
    "(RECIST 1.1).",
    "Of a target that split the parts' diameters are added; targets that merged count once, with the diameter of "
    "what they became (RECIST 1.1).",
    "A category is that of its date, and what a later date shows does not change it: a lesion that was new at an "
    "earlier date is not new again, and a candidate counts as a lesion once it was above the operating point.",
    "A date without a usable scan, or whose scan does not reach a target lesion, is not evaluable, unless a new "
    "lesion shows progression; it is no nadir.",
    "Whether a non-target lesion progressed unequivocally is for a reader to say; no number decides it here.",
)
"""Every rule that is applied, for readers."""


class Measured(NamedTuple):
    """One lesion at one date: its ``state``, and its longest axial diameter in mm (0 unless measured or below)."""

    state: State
    longest_mm: float


@dataclass(frozen=True)
class Joined:
    """Which lesion a part split from, and which one a lesion merged into (where its state is "merged")."""

    split_from: Mapping[int, int] = field(default_factory=dict)
    merged_into: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Assessment:
    """One date's category with every number that led to it.

    ``sum_mm`` is None where a target is not evaluable. Percentages are None at the baseline, and where the sum that
    they refer to is 0. ``largest_increase_mm`` is that of ``largest_increase``, a target's number, since the nadir.
    ``why``: the rule that gave the category, in words with its numbers.
    """

    category: Category
    why: str
    sum_mm: float | None
    baseline_mm: float | None = None
    nadir_mm: float | None = None
    nadir_date: int | None = None
    from_baseline_percent: float | None = None
    from_nadir_percent: float | None = None
    largest_increase_mm: float | None = None
    largest_increase: int | None = None
    new: tuple[int, ...] = ()


def target_lesions(baseline: Mapping[int, tuple[float, float, bool]]) -> list[int]:
    """The target lesions' numbers, ascending.

    ``baseline``: every accepted lesion's longest diameter (mm), volume (mm3) and whether it is measurable. Of equal
    diameters the larger volume goes first, then the lower number. Empty where no lesion is measurable.
    """
    measurable = [(-longest, -volume, lesion) for lesion, (longest, volume, fits) in baseline.items() if fits]
    return sorted(lesion for _, _, lesion in sorted(measurable)[:MOST_TARGETS])


def assess(
    lesions: Mapping[int, Sequence[Measured]],
    targets: Sequence[int],
    joined: Joined,
    new: Sequence[Sequence[int]],
    usable: Sequence[bool],
    *,
    immunotherapy: bool = False,
) -> list[Assessment]:
    """The category of each date; the first usable date is the baseline.

    ``lesions``: every lesion's measurements, one per date. ``new``: per date the lesions that are new there and were
    not pointed at before. ``usable``: per date whether there is a scan to read. No usable date gives "NE" throughout.
    """
    found: list[Assessment] = []
    sums: dict[int, float] = {}
    complete: int | None = None
    first = next((date for date, fine in enumerate(usable) if fine), None)
    for date, fine in enumerate(usable):
        if not fine or first is None:
            found.append(Assessment("NE", "there is no usable scan of this date", None))
            continue
        counted = counted_lesions(lesions, targets, joined, date)
        unseen = sorted(lesion for lesion in counted if lesions[lesion][date].state == "not evaluable")
        total = sum(lesions[lesion][date].longest_mm for lesion in sorted(counted)) if targets and not unseen else None
        if date == first:
            why = f"the first usable date, with {_count(len(targets), 'target lesion')}"
            found.append(Assessment("baseline", why, total, total))
        else:
            nadir_date = min(sums, key=lambda earlier: (sums[earlier], -earlier), default=None)
            seen = _Seen(date, total, sums.get(first), None if nadir_date is None else sums[nadir_date], nadir_date)
            largest, increase = _largest_increase(lesions, targets, joined, seen)
            back = () if complete is None else _back(lesions, complete, date)
            category, why = _category(lesions, seen, increase, tuple(new[date]), back, unseen, immunotherapy)
            if category == "CR":
                complete = date
            found.append(
                Assessment(
                    category, why, total, seen.baseline, seen.nadir, nadir_date, _percent(total, seen.baseline),
                    _percent(total, seen.nadir), increase, largest, tuple(new[date]),
                )
            )  # fmt: skip
        if total is not None:
            sums[date] = total
    return found


def counted_lesions(
    lesions: Mapping[int, Sequence[Measured]], targets: Sequence[int], joined: Joined, date: int
) -> set[int]:
    """The lesions whose diameters make up the sum of a date: targets, parts of them, what they merged into there."""
    counted = set(targets)
    while True:
        more = {
            part
            for part, whole in joined.split_from.items()
            if whole in counted and _known(lesions[part][: date + 1])  # not before it split off
        }
        more |= {
            whole
            for lesion, whole in joined.merged_into.items()
            if lesion in counted and lesions[lesion][date].state == "merged"
        }
        if more <= counted:
            return counted
        counted |= more


class _Seen(NamedTuple):
    """One date's sum beside those it is compared with (mm; None where there is none)."""

    date: int
    total: float | None
    baseline: float | None
    nadir: float | None
    nadir_date: int | None


def _largest_increase(
    lesions: Mapping[int, Sequence[Measured]], targets: Sequence[int], joined: Joined, seen: _Seen
) -> tuple[int | None, float | None]:
    """The target that grew most since the nadir, and by how much (mm), taken together with its parts and its whole."""
    if seen.total is None or seen.nadir_date is None:
        return None, None
    increases: dict[int, float] = {}
    for target in targets:
        together = counted_lesions(lesions, [target], joined, seen.date)
        together |= {  # what else merged into the same whole
            lesion
            for lesion, whole in joined.merged_into.items()
            if whole in together and lesions[lesion][seen.date].state == "merged"
        }
        increases[target] = sum(
            lesions[one][seen.date].longest_mm - lesions[one][seen.nadir_date].longest_mm for one in sorted(together)
        )
    largest = max(increases, key=lambda lesion: (increases[lesion], -lesion))
    return largest, increases[largest]


def _category(
    lesions: Mapping[int, Sequence[Measured]],
    seen: _Seen,
    increase: float | None,
    new: tuple[int, ...],
    back: tuple[int, ...],
    unseen: Sequence[int],
    immunotherapy: bool,
) -> tuple[Category, str]:
    shown = [
        f"{words}: lesion {', '.join(map(str, these))}"
        for words, these in (("new", new), ("back after a complete response", back))
        if these
    ]
    if shown and not immunotherapy:
        return "PD", "; ".join(shown)
    but = "".join(
        f"; {words} under immunotherapy, which alone is not progression: {rest}"
        for words, rest in (one.split(": ") for one in shown)
    )
    known = [lesion for lesion, values in lesions.items() if _known(values[: seen.date + 1])]
    if not known:
        return "NE", f"no lesion at this or an earlier date: nothing to assess{but}"
    if unseen:
        return "NE", f"the scan does not reach target lesion {', '.join(map(str, unseen))}{but}"
    if all(lesions[lesion][seen.date].state in ("absent", "merged") for lesion in known):
        return "CR", f"no lesion of an earlier date is left{but}"
    if seen.total is None or seen.baseline is None or seen.nadir is None or increase is None:
        return "SD", f"there is no target lesion: not all is gone, and no new lesion shows progression{but}"
    from_nadir = f"{_change(seen.total, seen.nadir)} from the nadir of {seen.nadir:.1f} mm"
    from_baseline = f"{_change(seen.total, seen.baseline)} from the baseline's {seen.baseline:.1f} mm"
    if (
        seen.total >= seen.nadir * (1 + PROGRESSION_PERCENT / 100) - TOLERANCE_MM
        and increase >= PROGRESSION_MM - TOLERANCE_MM
    ):
        return "PD", f"the sum of {seen.total:.1f} mm is {from_nadir}, and one target is up {increase:.1f} mm{but}"
    if seen.total <= seen.baseline * (1 - RESPONSE_PERCENT / 100) + TOLERANCE_MM:
        return "PR", f"the sum of {seen.total:.1f} mm is {from_baseline}{but}"
    return "SD", (
        f"the sum of {seen.total:.1f} mm is {from_baseline} and {from_nadir}; the target that grew most since the "
        f"nadir is up {increase:.1f} mm{but}"
    )


def _known(values: Sequence[Measured]) -> bool:
    """Whether a lesion was above the operating point at one of these dates."""
    return any(value.state == "measured" for value in values)


def _back(lesions: Mapping[int, Sequence[Measured]], complete: int, date: int) -> tuple[int, ...]:
    """Those known before the complete response, gone at it, that are above the operating point for the first time."""
    return tuple(
        lesion
        for lesion, values in sorted(lesions.items())
        if values[date].state == "measured" and _known(values[:complete]) and not _known(values[complete:date])
    )


def _percent(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else 100 * (value - reference) / reference


def _change(value: float, reference: float) -> str:
    percent = _percent(value, reference)
    if percent is None:
        return "up from nothing" if value else "unchanged"
    return f"{'up' if percent > 0 else 'down'} {abs(percent):.1f}%"


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
