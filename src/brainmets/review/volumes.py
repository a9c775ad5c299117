"""What a 3D viewer is given of a case: small volumes on its brain, the label colours, and the words beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.review.case import ReviewCase
from brainmets.review.panels import middle
from brainmets.vocabulary import LABEL_COLOURS, LABELS, SEQUENCE_TITLES, STRATEGY_TITLES, Model, arm_title

MOST_VOXELS = 4_000_000
"""Larger volumes are shown on coarser voxels, to keep a page of the report below 5 MB."""
MARGIN_MM = 4.0


def write_volumes(case: ReviewCase, slug: str, folder: Path, sequence: str = "t1c") -> dict[str, Any]:
    """Write what a case's page shows to ``folder``/volumes.

    Gives the entry of ``review.json``: ``image`` (file), ``sequence`` (in words), ``spacing_mm`` (as shown), ``focus``
    (the middle of the largest reference lesion as a fraction of each axis) and ``labels``, a list of file and title,
    the reference first; files are named below ``folder``.
    """
    small = coarser(brain_only(case))
    maps = [("reference", "reference", small.reference)]
    maps += [("_".join(model), title(small, model), labels) for model, labels in small.predictions.items()]
    image = f"volumes/{slug}_{sequence}.nii.gz"
    nifti.write(folder / image, display_volume(small.images[sequence]), small.affine)
    entries = []
    for name, words, labels in maps:
        file = f"volumes/{slug}_{name}.nii.gz"
        nifti.write(folder / file, labels, small.affine)
        entries.append({"file": file, "title": words.removeprefix(f"{case.name}, ")})
    return {
        "image": image,
        "sequence": SEQUENCE_TITLES[sequence],
        "spacing_mm": [round(edge, 2) for edge in small.spacing_mm],
        "focus": [round(float(part), 4) for part in (middle(small.reference) + 0.5) / small.reference.shape],
        "labels": entries,
    }


def coarser(case: ReviewCase, most: int = MOST_VOXELS) -> ReviewCase:
    """The case on at most ``most`` voxels: pairs of voxels are joined along the finest axis until it fits.

    An image voxel is the mean of its pair; a label voxel the larger of the two labels, so that no lesion disappears.
    """
    while case.reference.size > most:
        axis = int(np.argmin(case.spacing_mm))
        affine = case.affine.copy()
        affine[:3, axis] *= 2
        affine[:3, 3] = nib.affines.apply_affine(case.affine, 0.5 * np.eye(3)[axis])
        case = replace(
            case,
            images={name: np.mean(_pairs(image, axis), axis=0) for name, image in case.images.items()},
            reference=np.max(_pairs(case.reference, axis), axis=0),
            predictions={model: np.max(_pairs(labels, axis), axis=0) for model, labels in case.predictions.items()},
            affine=affine,
        )
    return case


def title(case: ReviewCase, labels: Model | Literal["reference"]) -> str:
    """What is shown, in words."""
    if labels == "reference":
        return f"{case.name}, reference"
    arm, strategy = labels
    return f"{case.name}, {arm_title(arm)} {STRATEGY_TITLES[strategy]}"


def brain_only(case: ReviewCase) -> ReviewCase:
    """The case cut to the brain and a small margin: less to send to the browser. An empty image stays whole."""
    marked = np.any([image > 0 for image in case.images.values()], axis=0) | (case.reference > 0)
    if not marked.any():
        return case
    places = np.argwhere(marked)
    margin = np.ceil(MARGIN_MM / np.array(case.spacing_mm)).astype(int)
    low = np.maximum(places.min(0) - margin, 0)
    high = np.minimum(places.max(0) + 1 + margin, marked.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    affine = case.affine.copy()
    affine[:3, 3] = nib.affines.apply_affine(case.affine, low)
    return ReviewCase(
        name=case.name,
        images={name: image[box] for name, image in case.images.items()},
        reference=case.reference[box],
        predictions={model: prediction[box] for model, prediction in case.predictions.items()},
        affine=affine,
    )


def display_volume(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Intensities as 0..255, white at the 99.7th percentile of what is not background: a quarter of the bytes."""
    inside = image[image > 0]
    white = float(np.percentile(inside, 99.7)) if inside.size else 1.0
    return np.clip(np.rint(image * (255 / white)), 0, 255).astype(np.uint8)


def colormap() -> dict[str, Any]:
    """NiiVue's description of the label colours: R, G, B, A and I (label value) per entry, background clear."""
    rows = [(0, 0, 0, 0, 0), *((*_rgb(colour), 255, LABELS[name]) for name, colour in LABEL_COLOURS.items())]
    columns = {key: [row[place] for row in rows] for place, key in enumerate("RGBAI")}
    return {**columns, "labels": ["background", *LABEL_COLOURS]}


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _pairs(array: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """Even and odd voxels along ``axis``, stacked first; an odd count repeats the last voxel."""
    if array.shape[axis] % 2:
        array = np.concatenate([array, array.take([-1], axis)], axis)
    count = array.shape[axis]
    return np.stack([array.take(range(0, count, 2), axis), array.take(range(1, count, 2), axis)])
