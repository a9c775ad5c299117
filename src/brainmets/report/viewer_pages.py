"""A case in 3D in the report: a page that opens from a file, with no kernel and no network.

NiiVue draws it. Its JavaScript is taken from the installed ipyniivue wheel and written once, beside the pages; each
page carries its own volumes. A page says so where scripts or WebGL are missing, and leads back to the pictures.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets.review.images import ReviewCase
from brainmets.review.panels import SEQUENCE_TITLES, middle
from brainmets.review.viewers import brain_only, display_volume, title, write_volume

MOST_VOXELS = 4_000_000
"""Larger volumes are shown on coarser voxels, to keep a page below 5 MB."""
SCRIPT = "niivue.js"


class ViewerError(RuntimeError):
    """The viewer's script cannot be had; the message says why."""


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
    write_volume(display_volume(small.images[sequence]), small.affine, folder / image)
    entries = []
    for name, words, labels in maps:
        file = f"volumes/{slug}_{name}.nii.gz"
        write_volume(labels, small.affine, folder / file)
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


@lru_cache(maxsize=1)
def script() -> str:
    """NiiVue as a classic script that sets ``window.Niivue``.

    A module cannot be loaded from a file; the bundle's last statement, its export, gives way to an assignment. Raises
    ``ViewerError`` where ipyniivue is absent or its bundle has another shape.
    """
    spec = find_spec("ipyniivue")
    if spec is None or spec.origin is None:
        raise ViewerError("ipyniivue is not installed")
    bundle = (Path(spec.origin).parent / "static" / "widget.js").read_text(encoding="utf-8")
    made = re.search(r'"Creating new Niivue instance"\);let [^;]*?;[\w$]+=new ([\w$]+)\(', bundle)
    body, export, rest = bundle.rstrip().rpartition("export{")
    if made is None or not export or not re.fullmatch(r"[\w$]+ as default\};?", rest):
        raise ViewerError("the bundle of this ipyniivue has another shape than the one this page was made for (2.4.4)")
    return f"(function(){{var define,module,exports;{body}window.Niivue={made.group(1)};}})();"


def encoded(path: Path) -> str:
    """A file's bytes in base64."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _pairs(array: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """Even and odd voxels along ``axis``, stacked first; an odd count repeats the last voxel."""
    if array.shape[axis] % 2:
        array = np.concatenate([array, array.take([-1], axis)], axis)
    count = array.shape[axis]
    return np.stack([array.take(range(0, count, 2), axis), array.take(range(1, count, 2), axis)])
