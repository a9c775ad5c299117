"""Which sequence each series of a scan is, judged with the whole scan in view: kind, contrast agent, preference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from brainmets.preparation import evidence
from brainmets.preparation.scans import Header, Series
from brainmets.vocabulary import SEQUENCES

CERTAIN = 0.9
"""From this confidence on a guess becomes the role by itself; below it a person decides."""

AGREED, ONE_SOURCE, WEAK, CONFLICT = 0.97, 0.9, 0.6, 0.3
"""Levels of confidence: names and physics say the same; one of them alone says it and nothing contradicts; evidence
that other kinds of series have too; names and physics contradict each other."""
CAPPED = 0.8
"""At most this much for a series that a person should look at first: with problems, or computed from another."""

LEAST_SLICES = 8
LEAST_COVERAGE_MM = 90.0
"""Less than this across the slices does not hold a brain."""

FAMILIES = {"t1": "T1", "t2": "T2", "flair": "FLAIR", "pd": "proton density", "t1 flair": "T1 FLAIR", "stir": "STIR",
            "t2*": "T2*", "epi": "an echo-planar image"}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What one series is.

    ``kind`` is the series' own ("t1", "t2", "flair", another kind, "" unknown); ``guess`` is the sequence that it may
    be ("" none) with its ``confidence`` from 0 to 1; ``reasons`` say why. ``rank`` counts the candidates of a
    sequence from 1, 0 for none. ``agent`` is what the header says of contrast agent: "yes", "no", "unknown";
    ``named`` what the names say: "yes", "no", ""; ``nameless``: no name says what kind it is.
    """

    series: Series
    kind: str
    confidence: float
    reasons: tuple[str, ...]
    named: str = ""
    agent: str = "unknown"
    nameless: bool = False
    guess: str = ""
    rank: int = 0

    @property
    def time(self) -> float:
        """Seconds since midnight, NaN where not recorded."""
        return evidence.seconds(self.series.header.time)


def judge(scan: Sequence[Series]) -> list[Verdict]:
    """A verdict on each series of one scan, in the order given."""
    telling = evidence.telling_protocols(scan)
    lead = evidence.common_lead(scan)
    said = [evidence.named(one, one.header.protocol in telling, lead) for one in scan]
    return _ranked(_rivals(_contrast([_family(one, names) for one, names in zip(scan, said, strict=True)])))


def _family(one: Series, said: evidence.Named) -> Verdict:
    """T1, T2 or FLAIR, by names and physics; contrast is judged with the whole scan in view."""
    header = one.header
    agent = evidence.agent_of(header)

    def verdict(kind: str, confidence: float, *reasons: str) -> Verdict:
        return Verdict(one, kind, confidence, reasons, said.contrast, agent, not said.kinds)

    if header.modality.upper() not in ("", "MR"):
        return verdict("", 0, "not taken: it is no MR image")
    if not one.usable:
        return verdict("", 0, "not taken: it cannot be read as one volume")
    by_type = evidence.other_by_image_type(header.image_type)
    if said.other or by_type:
        kind, source = (said.other, "name") if said.other else (by_type, "ImageType")
        return verdict(kind, 0, f"not taken: {kind}, as its {source} says")
    if header.b_value > 0:
        return verdict("", 0, "not taken: diffusion, as its b value says")
    physics = evidence.physics(header)
    if physics.kind in ("epi", "t2*", "stir") and physics.sure and not said.kinds & {"flair", "t1", "t1 flair"}:
        return verdict("", 0, f"not taken: {FAMILIES[physics.kind]} ({physics.text})")
    if one.kind == "volume" and said.contrast and not said.kinds and not physics.text:
        return _limited(verdict("t1", ONE_SOURCE, "T1: its name speaks of contrast agent alone"))
    kind, confidence, reason = _agreement(said.kinds, physics)
    if kind not in ("t1", "t2", "flair"):
        why = reason if kind or physics.text else "neither its names nor its header say what it is"
        return verdict("", 0, f"not taken: {why}")
    return _limited(verdict(kind, confidence, reason))


def _agreement(names: frozenset[str], physics: evidence.Physics) -> tuple[str, float, str]:
    """Kind, confidence and reason of one series from what its names and its physics say."""
    kinds = frozenset("t1" if kind == "t1 flair" else kind for kind in names)
    words = " and ".join(FAMILIES[kind] for kind in sorted(names))
    seen = FAMILIES.get(physics.kind, "")
    if not kinds:
        level = ONE_SOURCE if physics.sure else WEAK
        return (
            physics.kind,
            level if physics.kind else 0,
            f"{seen or 'unknown kind'}: {physics.text}; its name is silent",
        )
    if not physics.kind:
        kind = min(kinds) if len(kinds) == 1 else ""
        if not physics.text:
            level = WEAK if "t1 flair" in names else ONE_SOURCE
            return (kind or min(kinds)), level if kind else CONFLICT, f"{words}: by its name alone"
        # numbers of no known protocol
        return (kind or min(kinds)), CAPPED if kind else CONFLICT, f"{words}: by its name; {physics.text}"
    if physics.kind in kinds:
        level = AGREED if physics.sure else 0.95
        told_apart = kinds == {"pd", "t2"} or (kinds == {"flair", "stir"} and physics.sure)
        if len(kinds) > 1 and not told_apart:
            level = CAPPED
        return physics.kind, level, f"{seen}: {physics.text}; its name says {words}"
    if kinds == {"flair"} and physics.kind == "t2" and not physics.sure:
        return "flair", CAPPED, f"FLAIR: its name says so; {physics.text}, and no inversion time is recorded"
    if "t1 flair" in names and physics.kind == "pd":
        return "t1", CAPPED, f"T1 (FLAIR): its name says so; {physics.text}, and no inversion time is recorded"
    kind = physics.kind if physics.sure and physics.kind in ("t1", "t2", "flair") else min(kinds)
    return kind, CONFLICT, f"contradiction: its name says {words}, but {physics.text} is {seen}"


def _limited(verdict: Verdict) -> Verdict:
    """Less confidence where a person should look at the image first."""
    one, header = verdict.series, verdict.series.header
    limits = []
    if one.problems:
        limits.append((CAPPED, "it has problems"))
    if evidence.is_reformat(one):
        limits.append((WEAK, "its name speaks of a reformat"))
    if _derived(header):
        limits.append((CAPPED, "computed from another series (ImageType)"))
    if evidence.is_noisy_uniform(one):
        limits.append((WEAK, "the uniform image of MP2RAGE, whose background is noise"))
    if 0 < header.slices < LEAST_SLICES:
        limits.append((CONFLICT, f"only {header.slices} slices"))
    elif (coverage := _coverage_mm(header)) < LEAST_COVERAGE_MM:
        limits.append((WEAK, f"covers only {coverage:.0f} mm across its slices"))
    confidence = min([verdict.confidence, *(level for level, _ in limits)])
    return replace(verdict, confidence=confidence, reasons=(*verdict.reasons, *(text for _, text in limits)))


def _contrast(verdicts: list[Verdict]) -> list[Verdict]:
    """Give every T1 its side of the contrast agent, and the others their sequence."""
    spoken = {one.named for one in verdicts if one.series.usable}
    if len(verdicts) > 2 and spoken == {"yes"}:  # a word for the whole examination
        verdicts = [replace(one, named="") for one in verdicts]
    t1s = [one for one in verdicts if one.kind == "t1"]
    # an agent written into every series of the examination tells none from another
    agents_tell = len(t1s) == 1 or any(one.agent != "yes" for one in t1s)
    shows = {id(one) for one in verdicts if one.named == "yes" or (one.agent == "yes" and agents_tell)}
    after = [one for one in t1s if id(one) in shows]
    given = [one.time for one in verdicts if id(one) in shows or one.kind == "perfusion"]
    times = [one.time for one in verdicts if not math.isnan(one.time)]
    in_order = bool(times) and max(times) - min(times) < 12 * 3600  # else past midnight
    first_contrast = min((time for time in given if not math.isnan(time)), default=math.nan) if in_order else math.nan
    judged = []
    for one in verdicts:
        if one.kind == "t1":
            guess, level, reason = _side(one, t1s, after, agents_tell, first_contrast)
            one = replace(one, guess=guess, confidence=min(one.confidence, level), reasons=(*one.reasons, reason))
        elif guess := {"t2": "t2w", "flair": "t2f"}.get(one.kind, ""):
            reasons = (*one.reasons, "after contrast agent") if id(one) in shows else one.reasons
            one = replace(one, guess=guess, reasons=reasons)
        judged.append(one)
    return _one_sided(judged)


def _one_sided(verdicts: list[Verdict]) -> list[Verdict]:
    """Less confidence in names about contrast where every T1 of the scan is on one side of it.

    A scan to prepare has both; a word or abbreviation may mean its opposite ("v. Gd": vor, before).
    """
    t1s = [one for one in verdicts if one.kind == "t1"]
    if len({one.guess for one in t1s}) != 1 or (len(t1s) == 1 and not t1s[0].nameless):
        return verdicts
    why = f"every T1 of this scan seems to be {t1s[0].guess}: a name may mean something else"
    return [
        replace(one, confidence=min(one.confidence, CAPPED), reasons=(*one.reasons, why)) if one.kind == "t1" else one
        for one in verdicts
    ]


def _side(
    one: Verdict, t1s: Sequence[Verdict], after: Sequence[Verdict], agents_tell: bool, first_contrast: float
) -> tuple[str, float, str]:
    """Before or after contrast agent: sequence, confidence and reason of one T1."""
    said, agent = one.named, one.agent
    if said == "yes":
        if agent == "no":
            return "t1c", CONFLICT, "contradiction: its name says contrast, its header says that none was given"
        return (
            "t1c",
            AGREED if agent == "yes" else 0.95,
            "its name says contrast" + (", its header too" if agent == "yes" else ""),
        )
    if said == "no":
        if agent == "yes" and agents_tell:
            return "t1n", CONFLICT, "contradiction: its name says native, its header says contrast agent"
        if one.time > first_contrast:
            return "t1n", CONFLICT, "contradiction: its name says native, but it was recorded after contrast agent"
        return "t1n", 0.95, "its name says native"
    if agent == "yes":
        if agents_tell:
            return "t1c", 0.95, "its header says contrast agent"
        return "t1c", WEAK, "its header says contrast agent, but so does that of every T1 of this scan"
    return _by_company(one, t1s, after, first_contrast)


def _by_company(
    one: Verdict, t1s: Sequence[Verdict], after: Sequence[Verdict], first_contrast: float
) -> tuple[str, float, str]:
    """The same for a T1 that says nothing of contrast itself: by the other series of the scan."""
    silent = [other for other in t1s if not other.named and other.agent != "yes"]
    if one.time > first_contrast:
        return "t1c", WEAK, "no sign of contrast agent, but recorded after a series that has one"
    if one.time < first_contrast and after:
        before = [other for other in silent if other.time <= one.time and other is not one]
        twin = any(_alike(one.series.header, other.series.header) and other.time > one.time for other in after)
        if not before or twin:
            return "t1n", 0.95, f"recorded before contrast agent (series {_listed(after)})"
        return "t1n", CAPPED, f"recorded before series {_listed(after)}, but it may already be after contrast agent"
    if after and one.series.kind == "volume" and len(silent) == 1:
        return "t1n", 0.95, f"its name is silent on contrast, that of series {_listed(after)} is not"
    if len(silent) == 1 and any(_alike(one.series.header, other.series.header) for other in after):
        return "t1n", ONE_SOURCE, f"of the T1 recorded alike only series {_listed(after)} shows contrast"
    if after or one.agent == "no":
        why = (
            "its header says no contrast agent"
            if one.agent == "no"
            else f"only series {_listed(after)} shows contrast"
        )
        return "t1n", ONE_SOURCE if one.agent == "no" and after else CAPPED, why
    twins = [other for other in t1s if other is not one and _alike(one.series.header, other.series.header)]
    if any(other.time > one.time for other in twins):
        return "t1n", WEAK, "no sign of contrast agent in this scan; the earlier of two alike, so perhaps before it"
    if any(other.time < one.time for other in twins):
        return "t1c", WEAK, "no sign of contrast agent in this scan; the later of two alike, so perhaps after it"
    return "t1n", 0.5, "no sign of contrast agent in this scan: before or after it is not known"


def _alike(first: Header, second: Header) -> bool:
    """Whether two series were recorded with the same protocol."""

    def close(one: float, other: float) -> bool:
        return bool(abs(one - other) <= 0.1 * max(abs(one), abs(other)))

    times = ((first.repetition_ms, second.repetition_ms), (first.echo_ms, second.echo_ms))
    return (first.acquisition, first.plane) == (second.acquisition, second.plane) and all(
        close(*pair) for pair in times
    )


def _rivals(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Less confidence in a series without a name where others look like it too.

    By its physics alone a spine, a subtraction, a projection or diffusion as spin echo passes for a brain.
    """
    counts = Counter(one.guess for one in verdicts)
    return [
        replace(
            one,
            confidence=min(one.confidence, CAPPED),
            reasons=(*one.reasons, f"{counts[one.guess]} series look like {one.guess}, and its name does not tell"),
        )
        if one.guess and one.nameless and counts[one.guess] > 1
        else one
        for one in verdicts
    ]


def _ranked(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Rank the candidates of each sequence, and say why the first was preferred to the second."""
    ranked = {id(one): one for one in verdicts}
    for sequence in SEQUENCES:
        order = sorted((one for one in verdicts if one.guess == sequence), key=_preference)
        for rank, one in enumerate(order, start=1):
            ranked[id(one)] = replace(one, rank=rank)
        if len(order) > 1:
            first, second = order[:2]
            pairs = zip(PREFERENCES, _preference(first), _preference(second), strict=True)
            why = next(text for text, mine, other in pairs if mine != other)
            reason = f"preferred to series {second.series.number}: {why}"
            ranked[id(first)] = replace(first, rank=1, reasons=(*first.reasons, reason))
    return [ranked[id(one)] for one in verdicts]


PREFERENCES = (
    "more certain", "without problems", "original, not computed", "all tissue, not water alone", "3D rather than 2D",
    "thinner slices", "larger coverage", "order of recording", "more certain", "first in the list",
)  # fmt: skip
"""What the parts of ``_preference`` say in words."""


def _preference(one: Verdict) -> tuple[float, ...]:
    header = one.series.header
    between = header.spacing_mm[2] if not math.isnan(header.spacing_mm[2]) else header.thickness_mm
    three_d = header.acquisition == "3D" or (not header.acquisition and between <= 1.5)
    coverage = _coverage_mm(header)
    late = 0.0 if math.isnan(one.time) else one.time
    return (
        one.confidence < CERTAIN,
        len(one.series.problems) > 0,
        _derived(header),
        evidence.is_water(one.series),
        not three_d,
        math.inf if math.isnan(between) else round(between, 1),
        0.0 if math.isnan(coverage) else -round(coverage, -1),
        late if one.guess == "t1n" else -late,
        -one.confidence,
        one.series.number,
    )


def _derived(header: Header) -> bool:
    return [value.strip().upper() for value in header.image_type.split("\\")[:2]] == ["DERIVED", "SECONDARY"]


def _coverage_mm(header: Header) -> float:
    return header.slices * header.spacing_mm[2] if header.slices else math.nan


def _listed(verdicts: Iterable[Verdict]) -> str:
    return ", ".join(str(number) for number in sorted(one.series.number for one in verdicts))
