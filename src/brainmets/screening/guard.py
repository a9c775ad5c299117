"""Before anything is predicted: is this scan like those that the model was trained on?

A case is put into numbers (``measure``), and so is every training case (``profile``). ``look`` compares the two: a
number beyond what any brain has, or beyond the training cohort's widened range, is a remark with that range. A remark
refuses only where a prediction would be worthless or dangerous to show: a sequence that is missing or another, a scan
that is no whole upright brain, a skull that the training had not, sequences that do not lie on each other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainmets import nifti
from brainmets.cohorts.cohort import Case
from brainmets.cohorts.likeness import SKULL_LITRES
from brainmets.cohorts.plausibility import COVER_PCT, CUT_CM2, FEWEST_LEVELS, HEAD_ML, SHORT_MM, TOP_PCT
from brainmets.files import plain
from brainmets.preparation import flags
from brainmets.screening.reads import ALL_FOUR, Reads
from brainmets.screening.scan_numbers import AXES, NUMBERS, PAIRS, scan_numbers, unusable
from brainmets.vocabulary import SEQUENCE_TITLES, SEQUENCES, reference_sequence

Severity = Literal["refuse", "warn"]
Decision = Literal["pass", "warn", "refuse"]
SCHEMA = 1
"""Of a profile's JSON."""
LEARNT = 8
"""Training cases with a number from which on their range is widened by half of itself; of fewer by twice."""
FEW_WIDER = 3
"""How many times its floor the range of fewer cases is widened at least."""
TRIMMED = 100
"""Training cases from which on a number's range is that from the 1st to the 99th percentile, for one odd case in a
large cohort must not open it."""

FURTHEST_MM = 3.0
"""How far from its place a sequence may fit the t1c best. In place 0.0 to 1.8 in four real cases (the most in thick
slices), 0.7 at the most in phantoms; moved by 4 mm 3.9 and more."""


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


LACKING = "sequence lacking"
"""The rule of a sequence that is missing and may be."""


class ProfileError(ValueError):
    """A profile that cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True)
class Profile:
    """What the training cohort looked like: ``values`` has a row per case, numbered from 0, and a column per number.

    The numbers are ``scan_numbers.NUMBERS``, NaN where a case had nothing to measure. No names.
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
        if set(values) != set(NUMBERS):
            odd = sorted(set(values) ^ set(NUMBERS))[0]
            raise ProfileError(f"profile: `values` must hold the numbers of this release, {odd!r} among them or not")
        for name, column in values.items():
            if not isinstance(column, list) or len(column) != cases:
                raise ProfileError(f"profile: {name!r} must be a list with a value for each of the {cases} case(s)")
            if not all(value is None or (type(value) in (int, float) and math.isfinite(value)) for value in column):
                raise ProfileError(f"profile: {name!r} holds something that is neither a finite number nor null")
        return cls(cases, _table([{name: values[name][place] for name in NUMBERS} for place in range(cases)]))


def _table(rows: list[dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(NUMBERS), dtype=float)


measure = scan_numbers


def profile(cases: Iterable[Case], sequences: Sequence[str] = SEQUENCES) -> Profile:
    """The numbers of every training case, in their order; its images are read one case at a time.

    Of ``sequences``, the model's, those that the case has; a number of one that it lacks is NaN.

    A full-size case takes a second or two beside its reading. Without cases the profile is empty, and ``look`` has
    the limits alone that hold in any cohort. Raises ``nifti.ImageError`` for a file that cannot be read.
    """
    rows = []
    for case in cases:
        there = [name for name in sequences if name in case.images]
        volumes = {name: nifti.read_volume(case.images[name]) for name in there}
        images = {name: voxels for name, (voxels, _) in volumes.items()}
        rows.append(measure(images, volumes[reference_sequence(there)][1].affine, there))
    return Profile(len(rows), _table(rows))


# --- rules -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """How one kind of number is judged.

    ``number``: its name, with {sequence}, {other} or {axis} where there are several. ``low``, ``high``: limits in any
    cohort, with their severity in ``absurd`` (None: no such limit counts). ``worse``: the side on which the training
    cohort's range counts ("" where it does not), with the severity in ``unlike``. ``ratio``: compared by logarithm.
    ``floor``: what that range is widened by at least, in the unit, or as a logarithm.
    """

    rule: str
    number: str
    title: str
    unit: str
    means: str
    worse: Literal["lower", "higher", "either", ""] = ""
    unlike: Severity = "warn"
    ratio: bool = False
    floor: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    absurd: Severity = "refuse"


def _of_flags(kind: str, severity: Severity, compared: bool = True) -> dict[str, Any]:
    """Limits, side and floor of a measure of the preparation: five of its least standard deviations, as there."""
    rule = flags.RULES[kind]
    return {
        "low": rule.low, "high": rule.high, "absurd": severity, "ratio": rule.ratio,
        "worse": rule.worse if compared else "", "floor": flags.FAR * rule.least,
    }  # fmt: skip


RULES: tuple[Rule, ...] = (
    Rule("sequence missing", "{sequence}_usable", "a volume with values", "", "nothing can be predicted without it",
         low=1.0),
    Rule("one image twice", "same_pct", "voxels in which two sequences are one up to scale", "%",
         "one of them was saved under two names", high=50.0),
    # The audit's limits are those of a head with its neck; a brain is judged beside the training cohort's.
    Rule("head volume", "head_mL", "volume of the head", "mL",
         "are the voxel sizes right, and is all of the brain and nothing else there?",
         worse="either", ratio=True, floor=0.25, low=HEAD_ML[0], high=HEAD_ML[1]),
    Rule("skull left on", "skull", "sequences that are not surrounded by a constant", "share",
         "the model was trained on brains without their skull: take it off first", worse="higher", unlike="refuse",
         floor=0.6),
    Rule("half a head", "cut_cm2", "area of the head on a face of the volume", "cm2",
         "the head is cut off", high=100.0),
    Rule("half a head", "end_cm2", "area of the head's outermost slice", "cm2",
         "the head ends flat: part of it is missing", worse="higher", floor=25.0, high=100.0),
    Rule("head cut off", "cut_cm2", "area of the head on a face of the volume", "cm2",
         "the head is cut off", high=CUT_CM2, absurd="warn"),
    Rule("half a head", "{sequence}_cover_pct", "share of the head that {sequence} shows", "%",
         "the rest of it is missing", low=60.0),
    Rule("coverage", "{sequence}_cover_pct", "share of the head that {sequence} shows", "%",
         "is its field of view cut off, or does it not lie on the others?", low=COVER_PCT, absurd="warn"),
    Rule("coverage", "{sequence}_short_mm", "length of the head that {sequence} lacks at one end", "mm",
         "is its field of view cut off, or does it not lie on the others?", high=SHORT_MM, absurd="warn"),
    # Noise and a ball of fluid have 0.01, real and phantom brains 0.08 and more.
    Rule("no brain", "{sequence}_contrast", "spread of the brain's grey values of {sequence}", "of the median",
         "nothing in it differs from the rest", low=0.03),
    # A brain whose masks hold no outer fluid has 0.61, phantoms 0.74 and more; noise 0.2, a trunk 0.3.
    Rule("no brain", "brainlike", "likeness of outline and T1 to a brain that lies upright", "correlation",
         "is this a whole brain, and does it lie as its header says?", low=0.45),
    Rule("shape of the brain", "brainlike", "likeness of outline and T1 to a brain that lies upright", "correlation",
         "is it whole, and does its mask hold as much of the fluid around it?", worse="lower", floor=0.08),
    # Upright 0.04 to 0.21 in phantoms, 0.08 to 0.10 in three real cases; turned -0.17 to -0.30.
    Rule("wrong way up", "upright", "likeness to a brain as it lies, less that of the best other way to turn it",
         "correlation", "the head lies otherwise than its header says: upside down, back to front or on its side",
         low=-0.02),
    Rule("displaced", "{sequence}_away_mm", "distance of {sequence} from its place on the t1c", "mm",
         "it was not registered, or that failed", **_of_flags("away_mm", "refuse", compared=False)),
    Rule("fit of sequences", "{sequence}_turned",
         "agreement of {sequence} with the t1c when turned by 8 degrees, a share", "",
         "does it lie on the t1c?", **_of_flags("turned", "refuse")),
    Rule("fit of sequences", "{sequence}_shift_mm", "distance at which {sequence} fits the t1c best", "mm",
         "does it lie on the t1c? A small lesion would lie beside itself", high=FURTHEST_MM, absurd="warn"),
    Rule("mirrored", "{sequence}_flipped", "match of the mirror image of {sequence} with the t1c, as a share", "",
         "are left and right of it exchanged?", **_of_flags("flipped", "refuse")),
    # Refused is what does not lie on the t1c at all. Beside the training cohort's range they tell of the images, not
    # of their place: sound scans of thick slices agree at 0.24, phantoms at 0.5 and more.
    Rule("fit of sequences", "{sequence}_agreement", "agreement of the edges of {sequence} with those of the t1c", "",
         "does it lie on the t1c?", **_of_flags("agreement", "refuse", compared=False)),
    Rule("fit of sequences", "{sequence}_clear_sd", "clearness of the match of {sequence} with the t1c", "SD",
         "does it lie on the t1c?", **_of_flags("clear_sd", "refuse", compared=False)),
    *(Rule("faint edges", f"{{sequence}}_{number}", title, unit, "did the head move, or is either image poor?",
           worse="lower", ratio=True, floor=0.3)
      for number, title, unit in (
          ("agreement", "agreement of the edges of {sequence} with those of the t1c", ""),
          ("clear_sd", "clearness of the match of {sequence} with the t1c", "SD"))),
    # Edges of two acquisitions of one contrast: 0.88 and more in phantoms, where t1n and t1c have 0.84 at the most.
    Rule("no contrast agent", "t1n_agreement", "agreement of the edges of t1n and t1c", "",
         "the two are more alike than in any training case: is the t1c a second T1 without contrast agent?",
         worse="higher", floor=0.03),
    Rule("no contrast agent", "uptake", "brightest half millilitre of the t1c less the t1n", "SD",
         "nothing took up contrast agent as in the training cases: was it given, is the t1c one?",
         worse="lower", ratio=True, floor=0.3),
    # Below 1 more is bright on the t1n alone. Real 4 to 6, phantoms 0.7 and more; t1n and t1c exchanged 0.4.
    Rule("no contrast agent", "uptake_ratio", "that over the brightest half millilitre of the t1n less the t1c", "",
         "are t1n and t1c exchanged, was no contrast agent given, or does blood lie there?",
         worse="lower", ratio=True, floor=0.1),
    # Four real brains -0.33 to 0.31, phantoms -0.52 to 0.01; two T2 0.9 and more.
    Rule("fluid bright on FLAIR", "t2w_t2f_rank", "rank correlation of t2w and t2f", "",
         "the FLAIR looks like a T2: its fluid is bright", high=0.65),
    *(Rule("relation of sequences", f"{one}_{other}_rank", f"rank correlation of {one} and {other}", "",
           "one of them shows another contrast than its name says, or the tissue differs", worse="either", floor=0.3)
      for one, other in PAIRS),
    Rule("other contrast", "{sequence}_contrast", "spread of the brain's grey values of {sequence}", "of the median",
         "a protocol or a processing that the training cohort has not", worse="either", ratio=True, floor=0.5),
    Rule("other contrast", "{sequence}_asymmetry", "asymmetry of the brain's grey values of {sequence}", "",
         "a protocol or a processing that the training cohort has not", worse="either", floor=0.3),
    Rule("other contrast", "{sequence}_tail", "bright end of the brain's grey values of {sequence}", "of their spread",
         "a protocol or a processing that the training cohort has not", worse="either", ratio=True, floor=0.6),
    Rule("other contrast", "{sequence}_dark", "dark end of the brain's grey values of {sequence}", "of the median",
         "a protocol or a processing that the training cohort has not", worse="either", floor=0.15),
    Rule("rim", "{sequence}_rim", "brightness of the outer 8 mm of {sequence}", "of the inside",
         "does the mask leave more or less around the brain, or is it not a brain?", worse="either", ratio=True,
         floor=0.35),
    Rule("noise", "{sequence}_noise", "noise of {sequence}", "of the brain's spread",
         "is it noisy, or did the head move?",
         worse="higher", floor=0.1),
    *(Rule("resolution", f"{{sequence}}_sharp_{axis}", f"difference of neighbours along {axis} in {{sequence}}",
           "of those two apart", "is it blurred, or of thicker slices?", worse="lower", floor=0.03) for axis in AXES),
    Rule("resolution", "{sequence}_uneven", "roughness of {sequence} across its roughest axis", "of the smoothest",
         "are its slices thicker than in training, or did the head move between them?", worse="higher", ratio=True,
         floor=0.6),
    *(Rule("voxel size", f"spacing_{axis}_mm", f"voxel's side along {axis}", "mm",
           "the model was trained on other voxels", worse="either", ratio=True, floor=0.69) for axis in AXES),
    Rule("few grey levels", "{sequence}_levels", "different values of {sequence} in the head", "",
         "it was exported as a picture", low=FEWEST_LEVELS, absurd="warn"),
    Rule("clipped", "{sequence}_at_top_pct", "voxels of {sequence} that hold its highest value", "%",
         "the range of grey values was cut", high=TOP_PCT, absurd="warn"),
)  # fmt: skip
"""In the order of how telling they are: of one number that breaks several the first is said."""

BY_FLAGS: dict[str, Severity] = {
    "template_turned": "refuse", "template_clear_sd": "refuse", "template_away_mm": "refuse",
    "brain_mL": "refuse", "template_dice": "refuse",
    "mirrored": "refuse", "air_pct": "warn", "dark_rim_pct": "warn", "spread_mm": "warn", "rotation_deg": "warn",
    "absent_pct": "warn", "shared_bits": "warn",
}  # fmt: skip
"""What only the preparation measures, with the severity of its limit in any cohort (``flags.RULES``)."""

SWAP_FROM = 1.5
"""Distance of a case's relations to the training cohort's (see ``_distance``) from which other names are tried: up to
2.2 in sound phantoms, of which none fits other names with less than 0.67 of it; swapped 2.9 and more, then 0.33."""
SWAP_SHARE = 0.5
"""The distance under other names, as a share, below which they fit."""
RANK_SCALE, UPTAKE_SCALE = 0.1, 0.4
"""The least scale of a rank correlation, and of the logarithm of ``uptake_ratio``."""
MOST_AWAY = 5.0
"""What one relation adds to the distance at the most, in scales."""
OF_ALL: tuple[str, ...] = ("skull left on", "skull taken off", "no brain", "wrong way up", "half a head")
"""Rules that, where they refuse a scan as a whole, explain all warnings."""
OF_NAME_OR_PLACE: tuple[str, ...] = ("sequences swapped", "displaced", "fit of sequences", "mirrored")
"""Rules that, where they refuse, explain the warnings of ``FOLLOWS``."""
FOLLOWS: tuple[str, ...] = (
    "other contrast", "rim", "resolution", "noise", "fit of sequences", "faint edges", "relation of sequences",
    "coverage", "fluid bright on FLAIR", "no contrast agent", "shape of the brain",
)  # fmt: skip

EDGES_FOLLOW: tuple[str, ...] = ("resolution", "noise", "voxel size", "fit of sequences")
"""Rules that explain faint edges of any sequence where they speak: those say less of where a sequence lies."""


def look(
    images: Mapping[str, npt.NDArray[Any]],
    affine: nifti.Affine,
    profile: Profile,
    preparation: Mapping[str, float] | None = None,
    reads: Reads = ALL_FOUR,
) -> list[Remark]:
    """Everything unusual about a case, what refuses it first.

    ``images``, ``affine``: as for ``measure``. ``preparation``: the row of quality.csv of a case that was prepared
    here. ``reads``: what the model reads: another image is passed over, one that the model was trained to miss is a
    warning where it is missing, and one that it never missed refuses the case. Of several numbers of one rule and
    sequence the first that is beyond a limit is said.
    """
    seen = {name: image for name, image in images.items() if name in reads.sequences or name not in SEQUENCES}
    lacking = reads.lacking(seen)
    wanted = [name for name in reads.sequences if name not in lacking]
    reasons = unusable(seen, wanted)
    reasons |= {name: f"is missing: {reads.why_needed([name])}" for name in reads.needed(seen) if reads != ALL_FOUR}
    return [*map(_lacking, lacking), *judge(measure(seen, affine, wanted), profile, preparation, reasons)]


def passed_over(there: Collection[str]) -> list[str]:
    """The rules that say nothing of a case, since every number of theirs needs a sequence that is not ``there``."""
    rules: dict[str, bool] = {}
    for rule in RULES:
        for number, _ in _numbers(rule):
            rules[rule.rule] = rules.get(rule.rule, False) or _measured(number, there)
    rules["sequences swapped"] = len([*there]) > 2 or {"t1n", "t1c"} <= {*there}
    return [name for name, judged in rules.items() if not judged]


def _measured(number: str, there: Collection[str]) -> bool:
    """Whether a number of a case can be had from these sequences."""
    if number == "same_pct":
        return len([*there]) > 1
    if number in ("uptake", "uptake_ratio"):
        return {"t1n", "t1c"} <= {*there}
    return {name for name in SEQUENCES if name in number.split("_")} <= {*there}


def _lacking(sequence: str) -> Remark:
    text = (
        f"{SEQUENCE_TITLES[sequence]} is missing: the model was trained to do without it, but what it was measured to "
        "find is of the held-out cases as they were"
    )
    return Remark(LACKING, "warn", sequence, text, math.nan, -math.inf, math.inf)


def judge(
    row: Mapping[str, float],
    profile: Profile,
    preparation: Mapping[str, float] | None = None,
    reasons: Mapping[str, str] | None = None,
) -> list[Remark]:
    """As ``look``, of the numbers of a case; ``reasons``: why a sequence is not usable, in words."""
    found = [*_skull(row, profile), *_swapped(row, profile)]
    for rule in RULES:
        for number, sequence in _numbers(rule):
            if rule.rule == "sequence missing" and row[number] < 1:
                text = f"{SEQUENCE_TITLES[sequence]} {(reasons or {}).get(sequence, 'is missing')}: {rule.means}"
                found.append(Remark(rule.rule, "refuse", sequence, text, row[number], 1.0, math.inf))
            elif (remark := _beyond(rule, number, sequence, row[number], profile)) is not None:
                found.append(remark)
    found += _of_preparation(preparation or {})
    first: dict[tuple[str, str], Remark] = {}
    for remark in sorted(found, key=lambda one: one.severity != "refuse"):
        first.setdefault((remark.rule, remark.sequence), remark)
    refusing = [one for one in first.values() if one.severity == "refuse"]
    if any(one.rule in OF_ALL and one.sequence == "all" for one in refusing):
        return refusing
    if any(one.rule in EDGES_FOLLOW for one in first.values()):
        first = {key: one for key, one in first.items() if one.rule != "faint edges"}
    moved = any(one.rule in OF_NAME_OR_PLACE for one in refusing)
    return [one for one in first.values() if one.severity == "refuse" or not (moved and one.rule in FOLLOWS)]


def as_json(remark: Remark) -> dict[str, Any]:
    """The fields of a remark for JSON, which has no infinity: null for a limit or a value that is not finite."""
    return {name: plain(value) for name, value in remark._asdict().items()}


def decision(remarks: Iterable[Remark]) -> Decision:
    """What to do with a case: "refuse" where any remark refuses, "warn" where there is any, else "pass"."""
    severities = {remark.severity for remark in remarks}
    return "refuse" if "refuse" in severities else "warn" if severities else "pass"


def limits(rule: Rule, values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The range that a number should lie in beside the training cohort's ``values``; infinite without any.

    The training cases' own range (of ``TRIMMED`` or more its 1st to 99th percentile), widened on either side by half
    its width and by the rule's floor at least; of fewer than ``LEARNT`` cases by twice its width and three floors.
    """
    known = values[np.isfinite(values)]
    if not len(known) or not rule.worse:
        return -math.inf, math.inf
    scaled = np.log(np.maximum(known, 1e-6)) if rule.ratio else known
    low, high = (float(end) for end in (np.percentile(scaled, (1, 99)) if len(known) >= TRIMMED
                                        else (scaled.min(), scaled.max())))  # fmt: skip
    few = len(known) < LEARNT
    by = max((2.0 if few else 0.5) * (high - low), (FEW_WIDER if few else 1) * rule.floor)
    low, high = low - by, high + by
    if rule.ratio:
        low, high = math.exp(low), math.exp(high)
    return (-math.inf if rule.worse == "higher" else low), (math.inf if rule.worse == "lower" else high)


def _numbers(rule: Rule) -> Iterator[tuple[str, str]]:
    """Every number of a rule with the sequence that it is about, or "all"."""
    if "{sequence}" not in rule.number:
        named = [sequence for sequence in SEQUENCES if rule.number.startswith(f"{sequence}_")]
        of_pair = rule.number.split("_")[1] if named else "all"
        yield rule.number, "t1c" if rule.rule == "no contrast agent" else of_pair
        return
    for sequence in SEQUENCES:
        if (number := rule.number.format(sequence=sequence)) in NUMBERS:
            yield number, sequence


def _beyond(rule: Rule, number: str, sequence: str, value: float, profile: Profile) -> Remark | None:
    if not math.isfinite(value):
        return None
    title = rule.title.format(sequence=sequence)
    unit = f" {rule.unit}" if rule.unit else ""
    if not rule.low <= value <= rule.high:
        sound = _range(rule.low, rule.high)
        text = f"{title}: {flags.in_short(value)}{unit}, where {sound} is sound: {rule.means}"
        return Remark(rule.rule, rule.absurd, sequence, text, value, rule.low, rule.high)
    low, high = limits(rule, profile.values[number].to_numpy(float))
    if low <= value <= high:
        return None
    known = profile.values[number].dropna()
    text = (
        f"{title}: {flags.in_short(value)}{unit}, where the {len(known)} training case(s) have "
        f"{flags.in_short(known.min())} to {flags.in_short(known.max())}: {rule.means}"
    )
    return Remark(rule.rule, rule.unlike, sequence, text, value, low, high)


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {flags.in_short(high)}"
    return (
        f"at least {flags.in_short(low)}" if math.isinf(high) else f"{flags.in_short(low)} to {flags.in_short(high)}"
    )


def _skull(row: Mapping[str, float], profile: Profile) -> Iterator[Remark]:
    """A head where the training cohort has brains, or the other way round."""
    usual, here = float(profile.values["head_mL"].median()), row["head_mL"]
    border = 1000 * SKULL_LITRES
    if not math.isfinite(usual) or not math.isfinite(here) or (usual > border) == (here > border):
        return
    low, high = (border, math.inf) if usual > border else (-math.inf, border)
    told = f"volume of the head: {here:.0f} mL, of the training cases {usual:.0f} (median)"
    means = "the model was trained with the skull and this scan lacks it" if usual > border else (
        "the skull seems to be there, and the model was trained without: take it off first")  # fmt: skip
    yield Remark("skull left on" if usual < border else "skull taken off", "refuse", "all", f"{told}: {means}",
                 here, low, high)  # fmt: skip


def _swapped(row: Mapping[str, float], profile: Profile) -> Iterator[Remark]:
    """Sequences that, by how they rise and fall together, are others in the training cohort."""
    there = tuple(name for name in SEQUENCES if row[f"{name}_usable"] > 0)
    if profile.cases < LEARNT or "sequences swapped" in passed_over(there):
        return
    distances = {names: _distance(row, there, names, profile.values) for names in permutations(there)}
    declared, best = distances[there], min(distances, key=lambda names: distances[names])
    if not math.isfinite(declared) or declared < SWAP_FROM or distances[best] > SWAP_SHARE * declared:
        return
    for name, other in zip(there, best, strict=True):
        if name != other:
            text = (
                f"{SEQUENCE_TITLES[other]} relates to the others as {name} does in the training cases: the distance "
                f"to them is {distances[best]:.2f} under that name, {declared:.2f} as declared; correct the names"
            )
            yield Remark("sequences swapped", "refuse", other, text, declared, 0.0, SWAP_FROM)


def _distance(row: Mapping[str, float], there: tuple[str, ...], names: tuple[str, ...], values: pd.DataFrame) -> float:
    """Root mean square distance of a case's relations to the training cohort's medians, in robust scales.

    ``names``: the declared names of what is taken for the sequences that are ``there``. Relations are the rank
    correlations of the pairs and, where the two T1 stay T1, ``uptake_ratio``. Infinite where one is not known.
    """
    renamed = dict(zip(there, names, strict=True))
    away = []
    for one, other in combinations(there, 2):
        first, second = sorted((renamed[one], renamed[other]), key=SEQUENCES.index)
        usual = values[f"{one}_{other}_rank"].to_numpy(float)
        away.append(_scaled(row[f"{first}_{second}_rank"], usual, RANK_SCALE))
    if {"t1n", "t1c"} == {renamed.get("t1n"), renamed.get("t1c")}:
        ratio = math.log(max(row["uptake_ratio"], 0.01))
        ratios = np.log(np.maximum(values["uptake_ratio"].to_numpy(float), 0.01))
        away.append(_scaled(ratio if renamed["t1n"] == "t1n" else -ratio, ratios, UPTAKE_SCALE))
    return float(np.sqrt(np.mean(np.square(away)))) if np.isfinite(away).all() else math.inf


def _scaled(value: float, values: npt.NDArray[np.float64], least: float) -> float:
    known = values[np.isfinite(values)]
    if not math.isfinite(value) or not len(known):
        return math.inf
    middle = float(np.median(known))
    return min(MOST_AWAY, abs(value - middle) / max(1.4826 * float(np.median(np.abs(known - middle))), least))


def _of_preparation(row: Mapping[str, float]) -> Iterator[Remark]:
    """What only the preparation knows: registrations, the template, the brain mask; limits in any cohort alone."""
    for measured, value in row.items():
        found = flags.rule_of(measured)
        if found is None or not math.isfinite(value):
            continue
        rule, sequences = found
        kind = next(name for name, one in flags.RULES.items() if one is rule)
        if kind not in BY_FLAGS or rule.low <= value <= rule.high:
            continue
        titles = [SEQUENCE_TITLES[name] for name in sequences] or ["", ""]
        text = rule.wrong.format(sequence=titles[0], other=titles[-1], value=value)
        yield Remark(f"preparation: {rule.title}", BY_FLAGS[kind], sequences[0] if sequences else "all",
                     text[0].upper() + text[1:], value, rule.low, rule.high)  # fmt: skip
