"""What a case shows that an export gets wrong: sequences under each other's names, cut or coarse grey values, a head
that is cut off, lesions where none can be.

Every rule is a question to a person who looks at the case, hence a warning; the limits are set so that a sound case
passes, since an audit that cries wolf is switched off. Beside each limit stands what was measured ("phantoms": 50 of
both sites, "real": two patients with multiple sclerosis and one with metastases, public and skull-stripped);
benchmarks/results/audit.md has what every rule catches and misses on others. Images are looked at on a grid of about
``COARSE_MM``, of which every voxel is one of the file's: that costs less than to read the files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import combinations, permutations
from typing import Any, Literal, NamedTuple

import cc3d
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.stats import rankdata

from brainmets import nifti
from brainmets.cohorts.background import air_level, background
from brainmets.cohorts.label_place import Place, place, standardised
from brainmets.cohorts.likeness import SKULL_LITRES
from brainmets.vocabulary import LABELS, REGIONS, SEQUENCES, reference_sequence

Mask = npt.NDArray[np.bool_]
Voxels = npt.NDArray[Any]
Severity = Literal["error", "warning"]

PAIRS = tuple(combinations(SEQUENCES, 2))
NUMBERS = (
    "head_mL", "cut_cm2",
    *(f"{sequence}_{name}" for sequence in SEQUENCES for name in ("cover_pct", "short_mm", "at_top_pct", "levels")),
    *(f"{one}_{other}_rank" for one, other in PAIRS),
    "et_t1n_sd", "et_t1c_sd",
    "load_pct", "pieces", "one_voxel_pieces", "outside_pct", "at_border_voxels",
    "label_here_sd", "label_best_sd", "label_clear",
)  # fmt: skip
"""Columns of the numbers of a case, in order; ``examine`` says what they are."""

COARSE_MM = 3.0
FEWEST = 1000
"""Voxels of the coarse grid (27 mL) below which nothing is said of a head."""
RIM = 2
"""Voxels of the coarse grid that are left out at the head's edge, where sequences may have been cut differently."""
MOST = 30_000
"""Voxels that the relation of two sequences is measured on, of larger heads every second, third, ..."""

TOP_PCT = 0.1
"""Share of a head's voxels that hold its highest value: phantoms 0.005 at the most, real 0.002; an export that cuts at
the 99.5th percentile has 0.5."""
FEWEST_LEVELS = 64
"""Different values in a head: phantoms 162 or more, real 670 or more. Eight bits that are well used pass."""
COVER_PCT = 85.0
"""Share of the head that a sequence shows: phantoms 100, real 91 or more (its sequences were stripped one by one)."""
SHORT_MM = 12.0
"""How much of the head is missing from a sequence at one end: phantoms 0, real 3 at the most."""
SLICE_CM2, SLICE_SHARE = 5.0, 0.1
"""A slice counts as missing where the head takes the first or more, and the sequence shows less than the second."""
HEAD_ML = (700.0, 8000.0)
"""Volume of a head: phantoms 1431 to 1993, real 1100 to 1620; with skull and neck 5000 in a real one. An adult's brain
has 1100 to 1800 mL."""
CUT_CM2 = 40.0
"""Area of a stripped head on a face of its volume: phantoms 16 at the most, real 0. A brain whose uppermost centimetre
is missing has about 47, a brain stem about 15."""
SWAPPED_T2 = 0.3
"""How much better (in rank correlations, see ``_renamed``) the grey values must fit other names of which t2w is one.
The declared names fit better than any such by 0.49 or more in phantoms, by 0.02 in one whose grey and white matter
have nearly one level on the t1c, and by 0.85 or more in real cases."""
SWAPPED_FLAIR = 0.8
"""The same between the t2f and a T1, which are alike but for the contrast of grey to white matter. In that phantom the
wrong names fit better by 0.49, else by 0.17 at the most; the declared ones by 0.36 or more in real cases."""
ET_ML = 0.1
"""Enhancing tumour below which nothing is said of its contrast."""
NO_CONTRAST_SD = 0.1
"""Brightness of enhancing tumour on the t1c less that on the t1n, at or below which it took up no contrast."""
SWAPPED_T1_SD = 1.0
"""Brightness of enhancing tumour on the t1n less that on the t1c, from which the two T1 are swapped: 0.99 or more in
swapped phantoms, and mostly below 1 where the label lies elsewhere."""
FAINT_SD = 0.5
"""Brightness of enhancing tumour that is none: bleeding and melanoma are bright on both, and pass."""
LOAD_PCT = 33.0
"""Whole tumour as a share of the head: phantoms 10 at the most, real 5. Large gliomas with oedema have 20."""
PIECES = 200
"""Connected pieces of a label map."""
DUST = 15
"""Pieces of one voxel."""
OUTSIDE_PCT = 5.0
"""Share of the label's voxels further than a coarse voxel from the head."""
PLACE_SHARE = 0.5
"""Contrast of the lesions where they lie, as a share of the best place's: in place 1.0 in all phantoms and real cases,
0.53 or less when moved by 6 mm."""
PLACE_CLEAR = 6.0
"""How clearly (``label_place.Place.clear``) the other place must be better: 5.0 at the most among those of the sound
draws that ``PLACE_ML`` names with lesions of 0.5 mL or more."""
PLACE_ML = 0.5
"""Lesions below which nothing is said of their place. Small faint ones were painted into the real cases (648 draws
of number, size, contrast and oedema): 18 would have been called elsewhere, with lesions of 0.11 mL or less, outshone
by a vessel."""
FAR = 5.0
"""Robust z-score (median and scaled median absolute deviation) from which a case is unusual among its cohort."""
FEWEST_CASES = 8
"""Cases below which nothing is learnt from a cohort: the deviation of fewer is mostly chance."""


class Rule(NamedTuple):
    """One rule: what it catches, what to do about it, and the damage that a test does to a case to break it."""

    rule: str
    severity: Severity
    catches: str
    remedy: str
    example: str


RULES = (
    Rule("sequences swapped", "warning",
         "The grey values of two sequences (bright or dark fluid, contrast) fit each other's names.",
         "Look at the case; correct the files' names or `layout`.",
         "t2w and t2f exchanged"),
    Rule("no contrast", "warning",
         "Enhancing tumour is no brighter on the t1c than on the t1n.",
         "Look at the case: is the t1c a second t1n, or the label of another case?",
         "a second t1n in place of the t1c"),
    Rule("coverage", "warning",
         "A sequence shows far less of the head than the others: cut field of view, or another skull-stripping.",
         "Export the whole volume, or strip all sequences of the case with one mask.",
         "a t2w without the upper 30 mm"),
    Rule("head volume", "warning",
         "The head is smaller than a brain or larger than a head with its neck.",
         "Check the voxel sizes in the header, the field of view and the brain mask.",
         "voxels of half their sides"),
    Rule("head cut off", "warning",
         "A stripped head ends at a face of its volume.",
         "Export the whole volume, or crop less.",
         "a case cropped through the head"),
    Rule("clipped", "warning",
         "Many voxels share the highest value: the export cut the range of grey values.",
         "Export the original grey values, without window or 8 bits.",
         "a t2w cut at its 99th percentile"),
    Rule("few grey levels", "warning",
         "An image has few different values: it was exported as a picture, or with a wide window.",
         "Export the original grey values, without window or 8 bits.",
         "a t2f of 30 grey levels"),
    Rule("tumour load", "warning",
         "The labelled tumour takes a share of the head that no tumour does.",
         "Look at the label map: is it a brain mask, inverted, or of another case?",
         "a label map of the whole head"),
    Rule("many pieces", "warning",
         "The label map holds more pieces than lesions, or many of a single voxel.",
         "Look at the label map: was it resampled, thresholded or not cleaned? Lesion-wise scores count every piece.",
         "single voxels strewn over a label map"),
    Rule("label outside the head", "warning",
         "Part of the label map lies where no image shows anything.",
         "Look at the case: is the label shifted, or of another case, or does the brain mask cut lesions off?",
         "a lesion in the corner of the volume"),
    Rule("label at the border", "warning",
         "The label map touches a face of its volume: a lesion is cut off, or the label is shifted.",
         "Look at the case; export the whole volume.",
         "a lesion in the first slice"),
    Rule("label elsewhere", "warning",
         "The lesions would stand out far better elsewhere: shifted, mirrored, or turned.",
         "Look at the case; bring the label map onto the grid with its image again.",
         "a label map with left and right exchanged"),
    Rule("skull in one case", "warning",
         "A case keeps its skull and most of its cohort does not, or the other way round.",
         "Strip all cases or none.",
         "one head of 5 L among brains"),
    Rule("skull in one cohort", "warning",
         "One cohort keeps the skull and the other does not.",
         "Strip both cohorts or neither.",
         "a cohort of heads of 5 L and one of brains"),
    Rule("unlike its cohort", "warning",
         "A number of the case lies far from those of its cohort's other cases.",
         "Look at the case beside another.",
         "a case whose two T1 have nothing in common, among eight that do"),
)  # fmt: skip
"""Every rule of this module."""


def passed_over(sequences: Collection[str]) -> list[str]:
    """The rules that say nothing, or less, of a case that has these ``sequences`` alone.

    The two T1 are compared in enhancing tumour where both are there, other sequences by how all four rise and fall
    together; a label's place is looked for on t1n, t1c and t2f; and one sequence alone has no other to agree with.
    """
    have = set(sequences)
    rules = []
    if not set(SEQUENCES) <= have:
        rules.append("sequences swapped" + (" (but for the two T1)" if {"t1n", "t1c"} <= have else ""))
    if not {"t1n", "t1c"} <= have:
        rules.append("no contrast")
    if not {"t1n", "t1c", "t2f"} <= have:
        rules.append("label elsewhere")
    return rules if len(have) > 1 else [*rules, "coverage", "not registered", "no common anatomy"]


class Remark(NamedTuple):
    """A rule that a case broke; ``file`` is a sequence's name or "label"."""

    rule: str
    file: str
    text: str


class CohortRemark(NamedTuple):
    """A rule that only a cohort's cases together can break; ``case`` is "all" where it is about no one case."""

    cohort: str
    case: str
    rule: str
    text: str


class _Head(NamedTuple):
    """A case on the coarse grid, in the file's axes: images, the constant around each, what each shows, and the head.

    The constant (absent where there is none) is already subtracted from the image.
    """

    images: dict[str, npt.NDArray[np.float32]]
    levels: dict[str, np.float32]
    shown: dict[str, Mask]
    mask: Mask
    step: tuple[int, int, int]

    @property
    def stripped(self) -> bool:
        """Whether a constant surrounds the head on every image; the air of a scan that keeps its skull is noise."""
        return len(self.levels) == len(self.images)


def examine(
    images: Mapping[str, Voxels], labels: npt.NDArray[np.uint8] | None, grid: nifti.Grid
) -> tuple[dict[str, float], list[Remark]]:
    """The numbers of one case, and what is implausible in them.

    ``images``: by sequence (any of ``SEQUENCES``; 3D), ``labels``: in BraTS labels, all on ``grid``. A constant around
    the head counts as background, whatever it is; an image with values that are not finite in 32 bits is passed over.

    The numbers are ``NUMBERS``, NaN where there is nothing to measure. ``head_mL``: the head in any sequence, holes
    filled; ``cut_cm2``: its largest area on a face of the volume (NaN with its skull: necks are cut). Per sequence
    ``cover_pct`` of the head that it shows, ``short_mm`` of it that are missing at an end, ``at_top_pct`` of these
    voxels that hold the highest value, ``levels``: different values among them. Per pair ``rank``: rank correlation
    inside the head. ``et_t1n_sd``, ``et_t1c_sd``: median of enhancing tumour, in standard deviations from the head's
    median. ``load_pct``: WT in the head; ``pieces``, ``one_voxel_pieces``: connected pieces (26 neighbours) of any
    label; ``outside_pct`` of the label's voxels outside the head; ``at_border_voxels`` on a face of the volume;
    ``label_here_sd``, ``label_best_sd``, ``label_clear``: see ``label_place.Place``.
    """
    row = dict.fromkeys(NUMBERS, float("nan"))
    remarks: list[Remark] = []
    head = _head(images, grid)
    large = head is not None and np.count_nonzero(head.mask) >= FEWEST
    if head is not None:
        row["head_mL"] = np.count_nonzero(head.mask) * grid.voxel_mm3 * float(np.prod(head.step)) / 1000
        remarks += _volume(row["head_mL"], reference_sequence(head.images))
    if head is not None and large:
        if head.stripped and row["head_mL"] <= 1000 * SKULL_LITRES:
            row["cut_cm2"], face = _cut(images, head, grid)
            remarks += _cut_off(row["cut_cm2"], face, reference_sequence(head.images))
        for name in head.images:
            row |= _grey_values(head, name, grid)
            remarks += _of_one_image(row, name)
        row |= _relations(head)
        remarks += _renamed(row)
    if labels is not None and labels.any():
        remarks += _examine_label(row, images, labels, grid, head if large else None)
    return row, remarks


def compare(tables: Mapping[str, pd.DataFrame]) -> list[CohortRemark]:
    """What only the cases together tell. ``tables``: by cohort, ``case`` and ``NUMBERS``, one row a case."""
    found: list[CohortRemark] = []
    skull = {}
    for cohort, table in tables.items():
        volumes = table.set_index("case")["head_mL"].dropna() if len(table) else pd.Series(dtype=float)
        found += _unlike(cohort, table)
        if volumes.empty:
            continue
        keeps = volumes > 1000 * SKULL_LITRES
        skull[cohort] = bool(volumes.median() > 1000 * SKULL_LITRES)
        for case in volumes.index[keeps != skull[cohort]]:
            found.append(CohortRemark(
                cohort, str(case), "skull in one case",
                f"its head holds {volumes[case]:.0f} mL, the cohort's others {volumes.median():.0f}: it seems to "
                f"{'lack' if skull[cohort] else 'keep'} the skull, unlike they; strip all or none",
            ))  # fmt: skip
    if len(set(skull.values())) > 1:
        volumes_of = ", ".join(f"{name} {tables[name].head_mL.median() / 1000:.1f} L" for name in skull)
        found += [
            CohortRemark(
                cohort, "all", "skull in one cohort",
                f"seems to keep the skull, and another cohort does not (median volume of the head: {volumes_of}): "
                "strip both or neither",
            )
            for cohort, kept in skull.items() if kept
        ]  # fmt: skip
    return found


# --- images ------------------------------------------------------------------------------------------------------


def _head(images: Mapping[str, Voxels], grid: nifti.Grid) -> _Head | None:
    x, y, z = (max(1, min(round(COARSE_MM / side), size)) for side, size in zip(grid.spacing, grid.shape, strict=True))
    every = tuple(slice(step // 2, None, step) for step in (x, y, z))
    coarse: dict[str, npt.NDArray[np.float32]] = {}
    levels: dict[str, np.float32] = {}
    shown: dict[str, Mask] = {}
    for name, image in images.items():
        with np.errstate(over="ignore"):
            sampled = image[every].astype(np.float32)
        if not np.isfinite(sampled).all():
            continue
        level = background(sampled)
        if level is None:
            shown[name] = sampled > air_level(sampled)
        else:
            levels[name] = np.float32(level)
            sampled -= levels[name]
            shown[name] = sampled != 0
        coarse[name] = sampled
    if not shown:
        return None
    mask = ndimage.binary_fill_holes(np.any(list(shown.values()), axis=0))
    return _Head(coarse, levels, shown, mask, (x, y, z))


def _volume(millilitres: float, name: str) -> Iterator[Remark]:
    low, high = HEAD_ML
    if not low <= millilitres <= high:
        yield Remark(
            "head volume", name,
            f"the head holds {millilitres:.0f} mL, where {low:.0f} to {high:.0f} are plausible: are the voxel sizes "
            "right, and is all of the head there?",
        )  # fmt: skip


def _cut(images: Mapping[str, Voxels], head: _Head, grid: nifti.Grid) -> tuple[float, str]:
    """The head's largest area on a face of the volume in cm2, and that face in words."""
    largest, where = 0.0, ""
    for axis, towards in enumerate(grid.orientation):
        area = grid.voxel_mm3 / grid.spacing[axis] / 100
        for at in (0, -1):
            here = area * max(
                np.count_nonzero(images[name][(slice(None),) * axis + (at,)].astype(np.float32) != level)
                for name, level in head.levels.items()
            )
            if here > largest:
                largest, where = here, _END[towards if at else _OPPOSITE[towards]]
    return largest, where


_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
_END = {"L": "left", "R": "right", "A": "front", "P": "back", "S": "top", "I": "bottom"}


def _cut_off(area: float, face: str, name: str) -> Iterator[Remark]:
    if area > CUT_CM2:
        yield Remark(
            "head cut off", name,
            f"the head ends at the {face} of the volume, with {area:.0f} cm2 there: it is cut off"
        )  # fmt: skip


def _grey_values(head: _Head, name: str, grid: nifti.Grid) -> dict[str, float]:
    shown = head.shown[name]
    values = head.images[name][shown]
    row: dict[str, float] = {
        f"{name}_cover_pct": 100 * np.count_nonzero(shown & head.mask) / np.count_nonzero(head.mask)
    }
    row[f"{name}_short_mm"] = _short(shown & head.mask, head, grid)
    if len(values):
        row[f"{name}_at_top_pct"] = 100 * float(np.mean(values == values.max()))
        row[f"{name}_levels"] = float(len(np.unique(values)))
    return row


def _short(shown: Mask, head: _Head, grid: nifti.Grid) -> float:
    """How many millimetres of the head are missing at the worst of its six ends."""
    worst = 0.0
    sides = np.multiply(grid.spacing, head.step)
    for axis, side in enumerate(sides):
        others = tuple(other for other in range(3) if other != axis)
        whole, part = (np.count_nonzero(mask, axis=others) for mask in (head.mask, shown))
        counted = np.flatnonzero(whole * float(np.prod(sides)) / side / 100 >= SLICE_CM2)
        there = part[counted] >= SLICE_SHARE * whole[counted]
        ends = (int(there.argmax()), int(there[::-1].argmax())) if there.any() else (len(there),)
        worst = max(worst, max(ends) * float(side))
    return worst


def _of_one_image(row: Mapping[str, float], name: str) -> Iterator[Remark]:
    if row[f"{name}_short_mm"] > SHORT_MM:
        yield Remark(
            "coverage", name,
            f"shows nothing of {row[f'{name}_short_mm']:.0f} mm at one end of the head, which another sequence shows: "
            "is its field of view cut off, or does another sequence alone keep the skull?",
        )  # fmt: skip
    elif row[f"{name}_cover_pct"] < COVER_PCT:
        yield Remark(
            "coverage", name,
            f"shows {row[f'{name}_cover_pct']:.0f}% of the head that the sequences show together: is it cut off, or "
            "was its skull removed and another's kept?",
        )  # fmt: skip
    few = row[f"{name}_levels"] < FEWEST_LEVELS
    if few:
        yield Remark(
            "few grey levels", name,
            f"holds {row[f'{name}_levels']:.0f} different values in the head: export the original grey values",
        )  # fmt: skip
    elif row[f"{name}_at_top_pct"] > TOP_PCT:
        yield Remark(
            "clipped", name,
            f"{row[f'{name}_at_top_pct']:.2g}% of the head's voxels hold the highest value: the range of grey values "
            "was cut; export the original ones",
        )  # fmt: skip


def _relations(head: _Head) -> dict[str, float]:
    inside = ndimage.binary_erosion(head.mask, iterations=RIM)
    inside &= np.all(list(head.shown.values()), axis=0)
    count = int(np.count_nonzero(inside))
    if count < FEWEST:
        return {}
    some = slice(None, None, -(-count // MOST))
    ranks = {name: rankdata(image[inside][some]) for name, image in head.images.items()}
    return {
        f"{one}_{other}_rank": float(np.corrcoef(ranks[one], ranks[other])[0, 1])
        for one, other in PAIRS
        if one in ranks and other in ranks and np.ptp(ranks[one]) and np.ptp(ranks[other])
    }


def _renamed(row: Mapping[str, float]) -> Iterator[Remark]:
    """Names that the grey values fit clearly better than those declared.

    The two T1 rise and fall together; T2 does the opposite of both, in fluid and in white matter; FLAIR, on which
    fluid is dark and white matter too, does neither. So names fit by r(t1n, t1c) - r(t1n, t2w) - r(t1c, t2w), r being
    the rank correlation of the images under them. The two T1 are not told apart here.
    """
    ranks = {pair: row[f"{pair[0]}_{pair[1]}_rank"] for pair in PAIRS}
    if not np.isfinite(list(ranks.values())).all():
        return

    def fit(t1n: str, t1c: str, t2w: str) -> float:
        def between(*pair: str) -> float:
            one, other = sorted(pair, key=SEQUENCES.index)
            return ranks[one, other]

        return between(t1n, t1c) - between(t1n, t2w) - between(t1c, t2w)

    declared = fit("t1n", "t1c", "t2w")
    better = {}
    for names in permutations(SEQUENCES):
        by = fit(*names[:3]) - declared
        if by > (SWAPPED_FLAIR if names[2] == "t2w" else SWAPPED_T2):
            better[names] = (by, sum(map(str.__eq__, names, SEQUENCES)))
    if better:
        named = max(better, key=lambda names: better[names])
        wrong = {name: other for name, other in zip(SEQUENCES, named, strict=True) if name != other}
        for name, other in wrong.items():
            yield Remark(
                "sequences swapped", other,
                f"its grey values look like {name}'s (by how the sequences rise and fall together): correct its name "
                "or `layout`",
            )  # fmt: skip


# --- label maps --------------------------------------------------------------------------------------------------


def _examine_label(
    row: dict[str, float],
    images: Mapping[str, Voxels],
    labels: npt.NDArray[np.uint8],
    grid: nifti.Grid,
    head: _Head | None,
) -> Iterator[Remark]:
    """Fill ``row`` with the label's numbers, and give the remarks; ``labels`` holds a lesion."""
    at = nifti.labelled(labels)
    values = labels[at]
    drawn = labels[nifti.around(at)] != 0
    sizes = np.bincount(cc3d.connected_components(drawn, connectivity=26).ravel("K"))[1:]
    row["pieces"], row["one_voxel_pieces"] = float(len(sizes)), float(np.count_nonzero(sizes == 1))
    edge = [(axis == 0) | (axis == size - 1) for axis, size in zip(at, labels.shape, strict=True)]
    row["at_border_voxels"] = float(np.count_nonzero(np.any(edge, axis=0)))
    yield from _of_pieces(row)
    if head is None:
        return
    cells = tuple(
        np.minimum(axis // step, size - 1) for axis, step, size in zip(at, head.step, head.mask.shape, strict=True)
    )
    whole, enhancing = np.isin(values, REGIONS["WT"]), values == LABELS["et"]
    whole_ml, et_ml = (int(np.count_nonzero(part)) * grid.voxel_mm3 / 1000 for part in (whole, enhancing))
    row["load_pct"] = 100 * whole_ml / row["head_mL"]
    near = ndimage.binary_dilation(head.mask, np.ones((3, 3, 3), bool))
    row["outside_pct"] = 100 * float(np.mean(~near[cells]))
    yield from _of_places(row)
    if et_ml >= ET_ML:
        for name in ("t1n", "t1c"):
            if name in head.images:
                row[f"et_{name}_sd"] = _brightness(images[name][tuple(axis[enhancing] for axis in at)], head, name)
    found = None
    if whole_ml >= PLACE_ML:
        found = _place(head, {"WT": _shares(cells, whole, head), "ET": _shares(cells, enhancing, head)}, grid)
    if found is not None:
        row["label_here_sd"], row["label_best_sd"], row["label_clear"] = found.here, found.best, found.clear
    # The first of three that explains the others: T1 that are swapped show no uptake where the label is, and neither
    # does a label that lies elsewhere.
    yield from list(_of_swapped_t1(row)) or list(_of_place(found)) or _of_contrast(row)


def _brightness(values: Voxels, head: _Head, name: str) -> float:
    low, middle, high = np.percentile(head.images[name][head.shown[name]], (25, 50, 75))
    return float((np.median(values) - middle) / ((high - low) / 1.349 or 1.0))


def _shares(cells: tuple[npt.NDArray[np.intp], ...], part: Mask, head: _Head) -> npt.NDArray[np.float32]:
    """How much of every coarse voxel a part of the lesions takes, in voxels of the file."""
    flat = np.ravel_multi_index(tuple(axis[part] for axis in cells), head.mask.shape)
    counts = np.bincount(flat, minlength=head.mask.size)
    return counts.reshape(head.mask.shape).astype(np.float32)


def _place(head: _Head, parts: Mapping[str, npt.NDArray[np.float32]], grid: nifti.Grid) -> Place | None:
    if not {"t1n", "t1c", "t2f"} <= set(head.images):
        return None
    uptake = standardised(head.images["t1c"], head.mask) - standardised(head.images["t1n"], head.mask)
    shown = {"WT": standardised(head.images["t2f"], head.mask), "ET": standardised(uptake, head.mask)}
    affine = grid.affine @ np.diag([*head.step, 1.0])

    def upright(volume: Voxels) -> Voxels:
        return nifti.to_ras(volume, affine)[0]

    x, y, z = (float(side) for side in np.linalg.norm(nifti.to_ras(head.mask, affine)[1][:3, :3], axis=0))
    return place(
        {name: upright(image) for name, image in shown.items()},
        {name: upright(part) for name, part in parts.items()},
        upright(head.mask),
        (x, y, z),
    )


def _of_pieces(row: Mapping[str, float]) -> Iterator[Remark]:
    if row["pieces"] > PIECES or row["one_voxel_pieces"] > DUST:
        yield Remark(
            "many pieces", "label",
            f"holds {row['pieces']:.0f} separate pieces, {row['one_voxel_pieces']:.0f} of them of one voxel: are they "
            "lesions? Lesion-wise scores count every piece",
        )  # fmt: skip
    if row["at_border_voxels"]:
        yield Remark(
            "label at the border", "label",
            f"{row['at_border_voxels']:.0f} voxel(s) lie on a face of the volume: a lesion is cut off, or the label "
            "map is shifted",
        )  # fmt: skip


def _of_places(row: Mapping[str, float]) -> Iterator[Remark]:
    if row["load_pct"] > LOAD_PCT:
        yield Remark(
            "tumour load", "label",
            f"tumour takes {row['load_pct']:.0f}% of the head: is it the label map of a tumour?",
        )  # fmt: skip
    if row["outside_pct"] > OUTSIDE_PCT:
        yield Remark(
            "label outside the head", "label",
            f"{row['outside_pct']:.0f}% of it lies where no image shows anything: is it shifted, or another case's?",
        )  # fmt: skip


def _of_swapped_t1(row: Mapping[str, float]) -> Iterator[Remark]:
    native, contrast = row["et_t1n_sd"], row["et_t1c_sd"]
    if native - contrast >= SWAPPED_T1_SD and native >= FAINT_SD:
        yield Remark(
            "sequences swapped", "t1c",
            f"enhancing tumour is brighter on the t1n ({native:.1f} SD above the head's median) than on the t1c "
            f"({contrast:.1f}): the two T1 seem swapped; correct their names or `layout`",
        )  # fmt: skip


def _of_place(found: Place | None) -> Iterator[Remark]:
    if found is not None and found.here < PLACE_SHARE * found.best and found.clear > PLACE_CLEAR:
        how = f"{found.turn}, and " if found.turn != "moved" else ""
        yield Remark(
            "label elsewhere", "label",
            f"its lesions would stand out far better {how}moved by {found.away_mm:.0f} mm ({found.best:.1f} SD above "
            f"what surrounds them, {found.here:.1f} where they are): was it shifted, mirrored or taken from another "
            "case?",
        )  # fmt: skip


def _of_contrast(row: Mapping[str, float]) -> Iterator[Remark]:
    native, contrast = row["et_t1n_sd"], row["et_t1c_sd"]
    if contrast - native <= NO_CONTRAST_SD and contrast < FAINT_SD:
        yield Remark(
            "no contrast", "t1c",
            f"enhancing tumour is no brighter on it ({contrast:.1f} SD from the head's median) than on the t1n "
            f"({native:.1f}): was contrast given, and is the label map this case's?",
        )  # fmt: skip


# --- cohorts -----------------------------------------------------------------------------------------------------

_COMPARED = {
    "head_mL": ("volume of the head (mL)", True, 0.06),
    **{f"{one}_{other}_rank": (f"rank correlation of {one} and {other}", False, 0.08) for one, other in PAIRS},
}
"""Per number: its name, whether cases are compared by ratio, and the least scale (as a logarithm for a ratio)."""


def _unlike(cohort: str, table: pd.DataFrame) -> Iterator[CohortRemark]:
    for column, (title, ratio, least) in _COMPARED.items():
        values = table.set_index("case")[column].dropna()
        if len(values) < FEWEST_CASES:
            continue
        scaled = np.log(values.clip(lower=1e-3)) if ratio else values
        away = (scaled - scaled.median()).abs()
        away /= max(1.4826 * float(away.median()), least)
        for case in values.index[away >= FAR]:
            yield CohortRemark(
                cohort, str(case), "unlike its cohort",
                f"{title}: {values[case]:.3g}, where the cohort's median is {values.median():.3g}: look at the case "
                "beside another",
            )  # fmt: skip
