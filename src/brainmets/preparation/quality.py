"""The numbers of one prepared patient that a failed step would change: one row of ``quality.csv``.

Each registration is judged twice: by what it says of itself (metric, rotation, translation, spread), and by the
content of what came out (shared information, the directions of edges, the field of view). ``flags`` says what is
unusual.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from brainmets import nifti
from brainmets.cohorts.background import air_level
from brainmets.cohorts.matching import CLEAR, Edges, coarse, edges, edges_within, match
from brainmets.vocabulary import SEQUENCES

Voxels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

REFERENCE = "t1c"
"""The sequence that the others are compared with."""
NATIVE = "t1n"
"""The T1 without contrast agent, as the template is and as the brain's network was trained on: where there is one, the
template is compared with it and the brain is found on it."""
COMPARED = tuple(sequence for sequence in SEQUENCES if sequence != REFERENCE)
PAIRS = tuple(combinations(SEQUENCES, 2))

REGISTRATION_COLUMNS = ("metric", "rotation_deg", "translation_mm", "spread_mm", "mirrored")
CONTENT_COLUMNS = ("agreement", "agreement_share", "clear_sd", "away_mm", "turned", "flipped")
TEMPLATE_COLUMNS = (
    "template_agreement", "template_clear_sd", "template_away_mm", "template_turned", "template_dice",
)  # fmt: skip
BRAIN_COLUMNS = ("brain_mL", "air_pct", "dark_rim_pct")
LABEL_COLUMNS = ("label_outside_voxels", "label_outside_mL", "label_outside_pct", "label_fit", "lesions_restored")
QUALITY_COLUMNS = (
    *(f"{sequence}_{name}" for sequence in SEQUENCES for name in REGISTRATION_COLUMNS),
    *(f"{sequence}_absent_pct" for sequence in SEQUENCES),
    *(f"{sequence}_{name}" for sequence in COMPARED for name in CONTENT_COLUMNS),
    *(f"{one}_{other}_shared_bits" for one, other in PAIRS),
    *TEMPLATE_COLUMNS,
    *BRAIN_COLUMNS,
    *LABEL_COLUMNS,
)
"""Columns of a row, in order; quality.csv has ``case`` before them."""

GREY_LEVELS = 32
"""Bins of equal count that shared information is counted over: no linear or monotone change of intensity matters."""
FEWEST = 1000
"""Voxels of a mask below which nothing inside it is measured."""
MOST = 250_000
"""Voxels of a mask that shared information is counted over; of larger ones every second, third, ... is taken."""
TURN_DEG = 8.0
"""By how much a sequence is turned about each axis, to and fro, to see whether it would fit the t1c better."""
TEMPLATE_TURN_DEG = 20.0
"""The same for the head against the template, which another head fits within some 10 degrees."""
BORDER_MM = 4.0
"""Thickness of the shell around the brain mask where fluid and skull should be dark on T1."""
DARK = 0.5
"""As a share of the brain's median: darker is dark."""
FEWEST_RIM = 100
"""Voxels that show something in that shell, below which nothing is said of it."""
WORST_TURN = 100.0
"""What ``turned`` is at the most: where nothing agrees in place, the share is without bound."""
LABEL_MM = 3.0
"""Resolution at which a label map is moved about."""
LABEL_REACH_MM = 24.0
"""How far a label map is moved along each axis to see whether it would fit better there."""
RIM_MM = 8.0
"""Thickness of the shell around a label that it must stand out from."""


class Template(NamedTuple):
    """What the patients were brought to: a T1 of the brain and its mask (3D), resampled to the patient's grid."""

    image: Voxels
    mask: Voxels


class RegistrationNumbers(Protocol):
    """What a registration says of itself; ``registration.Registration`` does."""

    @property
    def metric(self) -> float:
        """Mutual information after it."""

    @property
    def rotation_deg(self) -> float:
        """The angle about the rotation's axis."""

    @property
    def translation_mm(self) -> float:
        """How far the middle of the head moves."""

    @property
    def spread_mm(self) -> float:
        """How far the results of its starts lie apart."""

    @property
    def mirrored(self) -> float:
        """How well the mirror image fits."""


def measure(
    images: Mapping[str, Voxels],
    mask: Voxels,
    affine: nifti.Affine,
    registrations: Mapping[str, RegistrationNumbers],
    label: Voxels | None = None,
    template: Template | None = None,
    margin_mm: float = 0.0,
    lesions_restored: int = 0,
) -> dict[str, float]:
    """The row of one patient: a value for each of ``QUALITY_COLUMNS``, NaN where there is nothing to measure.

    ``images``: the prepared sequences (3D, any axes; with what lies around the brain, or without), ``mask``: their
    brain mask, ``label``: their label map (0 is background), ``template``: where the patient lies in its space; all on
    the grid of ``affine``. ``registrations``:
    per sequence; a sequence without one was not moved. ``margin_mm``: how far from the mask a label may lie,
    ``lesions_restored``: lesions that resampling would have lost.

    Per sequence: ``metric``, ``rotation_deg``, ``translation_mm``, ``spread_mm``, ``mirrored`` as the registration
    gives them; ``absent_pct``: share of the brain where the sequence is 0, so outside its field of view.

    Per sequence against the t1c, of edges inside the head at 4 mm (``cohorts.matching``): ``agreement`` (in place,
    normalised to -1..1), ``agreement_share`` (of the patient's best agreement: scans of low contrast agree less
    throughout), ``clear_sd`` (how far the best agreement stands out of all shifts, in standard deviations),
    ``away_mm`` (from its place to the best; NaN where none is clear), ``turned`` (best agreement when turned by 8
    degrees, as a share of the one as it is: above 1 it is turned), ``flipped`` (``clear_sd`` of the sequence's mirror
    image, as a share of its own: above 1 the mirror image fits better). Per pair ``shared_bits``: mutual information
    in the brain where both show something.

    ``template_agreement``, ``template_clear_sd``, ``template_away_mm``, ``template_turned`` (by 20 degrees): of the
    t1n with the template; ``template_dice``: overlap of the two brains. ``brain_mL``; ``air_pct``: share of the brain
    that is dark in every sequence; ``dark_rim_pct``: share of what the t1n shows within 4 mm around the mask that is
    darker than half the brain, as fluid and skull are, and brain, scalp and marrow are not (NaN where the brain was
    cut out already). ``label_outside_voxels``, ``label_outside_mL``, ``label_outside_pct`` (of the
    label): further than the margin from the mask; ``label_fit``: see there.

    A sequence that is not there has no numbers. Without a t1n the template is compared with the t1c, and
    ``dark_rim_pct`` is NaN: the dura takes up contrast agent. ``agreement_share`` needs two sequences beside the t1c;
    ``label_fit`` looks at the t1c alone where there is no t2f.

    Raises ``ValueError`` where the t1c is missing, or a volume is of another shape than the mask.
    """
    if REFERENCE not in images:
        raise ValueError(f"images: {REFERENCE} missing; every other sequence is compared with it")
    there = [name for name in SEQUENCES if name in images]
    given = {**{name: images[name] for name in there}, "label": label, **(template._asdict() if template else {})}
    for name, volume in given.items():
        if volume is not None and volume.shape != mask.shape:
            raise ValueError(f"{name}: shape {volume.shape} differs from the mask's {mask.shape}; resample it first")
    upright = {name: nifti.to_ras(np.asarray(images[name], np.float32), affine)[0] for name in there}
    brain, along = nifti.to_ras(np.asarray(mask) > 0, affine)
    row = dict.fromkeys(QUALITY_COLUMNS, float("nan"))
    if NATIVE in upright:
        row["dark_rim_pct"] = _dark_rim(upright[NATIVE], brain, along)
    upright = {name: np.where(brain, image, 0) for name, image in upright.items()}
    for sequence, registration in registrations.items():
        row |= {f"{sequence}_{name}": float(getattr(registration, name)) for name in REGISTRATION_COLUMNS}
    found = {name: edges(image, along) for name, image in upright.items()}
    row |= _contents(found)
    for sequence in there:
        if sequence == REFERENCE:
            continue
        row[f"{sequence}_turned"] = _turned(found[REFERENCE], coarse(upright[sequence], along), TURN_DEG)
    row |= _inside(upright, brain)
    if template is not None:
        onto = edges(np.asarray(template.image), affine)
        head = NATIVE if NATIVE in upright else REFERENCE
        row |= _placed(found[head], onto)
        row["template_turned"] = _turned(onto, coarse(upright[head], along), TEMPLATE_TURN_DEG)
        row["template_dice"] = _dice(brain, nifti.to_ras(np.asarray(template.mask) > 0, affine)[0])
    voxel_ml = abs(float(np.linalg.det(along[:3, :3]))) / 1000
    row["brain_mL"] = np.count_nonzero(brain) * voxel_ml
    row["lesions_restored"] = float(lesions_restored)
    if label is not None:
        lesions = nifti.to_ras(np.asarray(label) > 0, affine)[0]
        outside = int(np.count_nonzero(lesions & ~_grown(brain, along, margin_mm)))
        row["label_outside_voxels"] = float(outside)
        row["label_outside_mL"] = outside * voxel_ml
        row["label_outside_pct"] = 100 * outside / max(1, int(np.count_nonzero(lesions)))
        row["label_fit"] = label_fit(upright, lesions, along)
    return row


def shared_bits(one: Voxels, other: Voxels) -> float:
    """Mutual information of two equally long vectors in bits, over ``GREY_LEVELS`` bins of equal count each.

    A constant shares nothing (0); a vector shares with itself log2 of the bins at the most (5 bits).
    """
    joint = np.zeros((GREY_LEVELS, GREY_LEVELS))
    np.add.at(joint, (_levels(one), _levels(other)), 1)
    joint /= max(1.0, joint.sum())
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float(np.sum(joint[there] * np.log2(joint[there] / apart[there])))


def label_fit(images: Mapping[str, Voxels], lesions: Mask, affine: nifti.Affine) -> float:
    """How the lesions stand out where they lie, as a share of the best within ``LABEL_REACH_MM``: 0 to 1.

    ``images``: arrays along R, A, S, ``lesions``: on the same grid. To stand out is to be brighter than the shell of
    ``RIM_MM`` around, on the t1c or the t2f, whichever does more, in standard deviations of the shell's voxels.
    NaN without lesions, and where there is no shell.
    """
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = [max(1, round(LABEL_MM / side)) for side in sides]
    lesions = _mean(lesions, smooth) >= 0.5
    coarse = sides * smooth
    shell = _grown(lesions, np.diag([*coarse, 1.0]), RIM_MM) & ~lesions
    if not lesions.any() or not shell.any():
        return float("nan")
    reach = [min(int(LABEL_REACH_MM / side), size - 1) for side, size in zip(coarse, lesions.shape, strict=True)]
    best = np.full([2 * far + 1 for far in reach], -np.inf)
    for sequence in (name for name in ("t1c", "t2f") if name in images):
        best = np.maximum(best, _standing_out(_mean(images[sequence], smooth), lesions, shell, reach))
    here = float(best[tuple(reach)])
    return max(0.0, here / float(best.max())) if best.max() > 0 else 0.0


def _standing_out(image: Voxels, lesions: Mask, shell: Mask, reach: list[int]) -> Voxels:
    """Contrast of the lesions to the shell when both are moved by every shift up to ``reach`` along each axis."""
    shape = [fft.next_fast_len(size + far, real=True) for size, far in zip(image.shape, reach, strict=True)]
    parts = {"lesions": lesions, "shell": shell}
    spectra = {name: fft.rfftn(part.astype(np.float32), shape) for name, part in parts.items()}
    shifts = np.ix_(*(np.arange(-far, far + 1) for far in reach))

    def mean(values: Voxels, part: str) -> Voxels:
        whole = fft.irfftn(np.conj(spectra[part]) * fft.rfftn(values, shape), shape)
        return np.asarray(whole[shifts] / np.count_nonzero(parts[part]))

    scaled = (image / (float(np.abs(image).max()) or 1.0)).astype(np.float32)
    inside, around = mean(scaled, "lesions"), mean(scaled, "shell")
    spread = mean(scaled**2, "shell") - around**2
    return (inside - around) / np.sqrt(np.maximum(spread, 1e-4))


def _contents(found: Mapping[str, Edges | None]) -> dict[str, float]:
    """Each sequence against the t1c."""
    row: dict[str, float] = {}
    others = [name for name in COMPARED if name in found]
    if (reference := found[REFERENCE]) is None:
        return row
    for sequence in COMPARED:
        if (other := found.get(sequence)) is None:
            continue
        place, turned = match(reference, other), match(reference, _mirror(other))
        row[f"{sequence}_agreement"] = _agreement(reference, other)
        row[f"{sequence}_clear_sd"] = place.clear
        row[f"{sequence}_away_mm"] = place.distance_mm if place.clear >= CLEAR else float("nan")
        row[f"{sequence}_flipped"] = turned.clear / place.clear if place.clear > 0 else float("nan")
    best = max((value for name, value in row.items() if name.endswith("_agreement")), default=0.0)
    shares = {name: row[f"{name}_agreement"] / best for name in COMPARED if best > 0 and f"{name}_agreement" in row}
    return row | ({f"{name}_agreement_share": share for name, share in shares.items()} if len(others) > 1 else {})


def _placed(found: Edges | None, template: Edges | None) -> dict[str, float]:
    """The patient against the template."""
    if found is None or template is None:
        return {}
    place = match(template, found)
    return {
        "template_agreement": _agreement(template, found),
        "template_clear_sd": place.clear,
        "template_away_mm": place.distance_mm if place.clear >= CLEAR else float("nan"),
    }


def _inside(images: Mapping[str, Voxels], brain: Mask) -> dict[str, float]:
    """What is measured within the brain mask."""
    if (count := np.count_nonzero(brain)) < FEWEST:
        return {}
    values = {name: image[brain] for name, image in images.items()}
    row = {f"{name}_absent_pct": 100 * float(np.mean(inside == 0)) for name, inside in values.items()}
    dark = np.all([values[name] <= air_level(image) for name, image in images.items() if image.any()], axis=0)
    row["air_pct"] = 100 * float(np.mean(dark))
    some = slice(None, None, -(-count // MOST))
    for one, other in ((one, other) for one, other in PAIRS if one in values and other in values):
        first, second = values[one][some], values[other][some]
        both = (first != 0) & (second != 0)
        if np.count_nonzero(both) * some.step >= FEWEST:
            row[f"{one}_{other}_shared_bits"] = shared_bits(first[both], second[both])
    return row


def _turned(reference: Edges | None, image: Voxels, degrees: float) -> float:
    """The image's best agreement when turned about one axis of its middle, as a share of the one as it is."""
    if reference is None or not image.any():
        return float("nan")
    inside = np.any(reference, axis=0)
    middle = np.array(ndimage.center_of_mass(image > air_level(image)))
    agreements = []
    for turn in np.vstack([np.zeros(3), np.eye(3), -np.eye(3)]):
        matrix = Rotation.from_rotvec(turn * degrees, degrees=True).as_matrix()
        moved = ndimage.affine_transform(image, matrix, middle - matrix @ middle, order=1)
        found = edges_within(moved, inside)
        agreements.append(0.0 if found is None else _agreement(reference, found))
    return min(WORST_TURN, max(agreements[1:]) / max(agreements[0], 1e-6))


def _dark_rim(image: Voxels, brain: Mask, affine: nifti.Affine) -> float:
    rim = image[_grown(brain, affine, BORDER_MM) & ~brain]
    rim = rim[rim != 0]
    return 100 * float(np.mean(rim < DARK * np.median(image[brain]))) if len(rim) >= FEWEST_RIM else float("nan")


def _agreement(one: Edges, other: Edges) -> float:
    return float(np.sum(one * other) / np.sqrt(np.sum(one**2) * np.sum(other**2)))


def _mirror(found: Edges) -> Edges:
    """The edges of the image flipped left to right: the products of x with y and with z change their signs."""
    turned = found[:, ::-1].copy()
    turned[3:5] *= -1
    return turned


def _levels(values: Voxels) -> npt.NDArray[np.intp]:
    cuts = np.quantile(values, np.arange(1, GREY_LEVELS) / GREY_LEVELS)
    return np.searchsorted(cuts, values, side="right")


def _grown(mask: Mask, affine: nifti.Affine, by_mm: float) -> Mask:
    """The mask and all voxels whose centres lie within ``by_mm`` of one of its voxels' centres."""
    if by_mm <= 0 or not mask.any():
        return mask
    distance = ndimage.distance_transform_edt(~mask, sampling=np.linalg.norm(affine[:3, :3], axis=0))
    return np.asarray(distance <= by_mm)


def _dice(one: Mask, other: Mask) -> float:
    total = int(np.count_nonzero(one) + np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / total if total else float("nan")


def _mean(voxels: Voxels, sides: list[int]) -> Voxels:
    """The means of blocks of ``sides`` voxels; the last voxels of an axis that fill no block are left out."""
    counts = [size // side for size, side in zip(voxels.shape, sides, strict=True)]
    whole = voxels[tuple(slice(count * side) for count, side in zip(counts, sides, strict=True))]
    blocks = whole.reshape([part for pair in zip(counts, sides, strict=True) for part in pair])
    return np.asarray(blocks.mean(axis=(1, 3, 5)))
