"""A case in 3D: the volumes that the report's pages show, and a widget inside JupyterLab, both without a network.

In JupyterLab itkwidgets comes first, NiiVue next, plain slices where neither works: a viewer that is asked for and
cannot work gives way to the next one and a printed line says so, so that a cell is never blank. itkwidgets needs the
extension of ``lab_extension``; it and NiiVue need WebGL in the browser; slices need nothing.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.figures import save
from brainmets.review import lab_extension
from brainmets.review.case import ReviewCase, stand_in
from brainmets.review.panels import brightness, middle, orthogonal_slices
from brainmets.vocabulary import LABEL_COLOURS, LABELS, SEQUENCE_TITLES, Model, model_phrase

Viewer = Literal["itkwidgets", "niivue", "slices"]
ORDER: tuple[Viewer, ...] = ("itkwidgets", "niivue", "slices")
MOST_VOXELS = 4_000_000
"""Larger volumes are shown on coarser voxels, to keep a page of the report below 5 MB."""
MARGIN_MM = 4.0

Bytes = npt.NDArray[np.uint8]


# --- in JupyterLab -----------------------------------------------------------------------------------------------


def show(
    case: ReviewCase, source: Model | Literal["reference"], folder: Path, viewer: Viewer, sequence: str = "t1c"
) -> Any:
    """A widget (or picture) of an image with the reference's or a model's label map, for a cell's last line.

    The image is ``sequence``, or its ``stand_in`` where the case lacks it.
    ``folder`` receives the files that NiiVue and the slices need. Prints one line: what is shown, by which viewer, why
    not by the one asked for, and what an empty frame means. Raises ``ValueError`` for an unknown viewer.
    """
    if viewer not in ORDER:
        raise ValueError(f"viewer: {viewer!r} is none of {', '.join(ORDER)}")
    sequence = stand_in(sequence, case.images)
    chosen, reasons = usable(viewer)
    small = brain_only(case)
    labels = small.reference if source == "reference" else small.predictions[source]
    title = f"{case.name}, {'reference' if source == 'reference' else model_phrase(*source)}"
    base = str(folder / "volumes" / "_".join([case.name] if source == "reference" else [case.name, *source]))
    print("; ".join([*reasons, f"{title} on {SEQUENCE_TITLES[sequence]}, shown by {chosen}"]), end=". ")
    print("An empty frame means a browser without WebGL: set viewer to slices." if chosen != "slices" else "")
    if chosen == "itkwidgets":
        return _itkwidgets(small, labels, sequence)
    if chosen == "niivue":
        return _niivue(small, labels, sequence, base)
    from IPython.display import Image

    path = save(orthogonal_slices(small, labels, title, sequence), Path(f"{base}.png"))
    return Image(filename=str(path), alt=title, width=900)


def usable(viewer: Viewer) -> tuple[Viewer, list[str]]:
    """The first viewer from ``viewer`` on that this environment can run, and why those before it cannot."""
    reasons = []
    for candidate in ORDER[ORDER.index(viewer) : -1]:
        package = "ipyniivue" if candidate == "niivue" else candidate
        if find_spec(package) is None:
            reasons.append(f"{candidate} cannot be used: the package {package} is not installed")
        elif candidate == "itkwidgets" and not lab_extension.installed():
            reasons.append(
                "itkwidgets cannot be used: its JupyterLab extension is not installed (make lab, or python -m "
                "brainmets.review.lab_extension)"
            )
        else:
            return candidate, reasons
    return "slices", reasons


def _itkwidgets(case: ReviewCase, labels: Bytes, sequence: str) -> Any:
    import itk
    from itkwidgets import view

    volumes = []
    for array in (display_volume(case.images[sequence]), labels):
        image = itk.image_from_array(np.ascontiguousarray(array.T))  # itk's arrays are (z, y, x)
        image.SetSpacing(case.spacing_mm)
        image.SetOrigin([float(value) for value in case.affine[:3, 3]])
        volumes.append(image)
    return view(
        volumes[0],
        label_image=volumes[1],
        label_image_weights=np.ones(int(labels.max()) + 1, np.float32),
        label_image_blend=0.8,
        gradient_opacity=0.3,
        size_limit_3d=np.array([256, 256, 256]),
        ui_collapsed=True,
    )


def _niivue(case: ReviewCase, labels: Bytes, sequence: str, base: str) -> Any:
    from ipyniivue import NiiVue

    image = nifti.write(Path(f"{base}.{sequence}.nii.gz"), display_volume(case.images[sequence]), case.affine)
    drawn = nifti.write(Path(f"{base}.labels.nii.gz"), labels, case.affine)
    widget = NiiVue(height=480)
    widget.load_volumes([{"path": str(image), "colormap": "gray"}, {"path": str(drawn), "opacity": 0.7}])
    widget.volumes[1].set_colormap_label(colormap())
    return widget


# --- in the report -----------------------------------------------------------------------------------------------


def write_volumes(case: ReviewCase, folder: Path, sequence: str = "t1c") -> dict[str, Any]:
    """Write what a case's page shows to ``folder``/volumes, in files that start with its name.

    Where the case lacks ``sequence`` its ``stand_in`` is shown. Gives the entry of ``review.json``: ``image`` (file),
    ``sequence`` (in words), ``spacing_mm`` (as shown), ``focus`` (the middle of the largest reference lesion as a
    fraction of each axis) and ``labels``, a list of file and title, the reference first; files are named below
    ``folder``.
    """
    sequence = stand_in(sequence, case.images)
    brain = brain_only(case)
    small = coarser(replace(brain, images={sequence: brain.images[sequence]}))
    image = f"volumes/{case.name}_{sequence}.nii.gz"
    nifti.write(folder / image, display_volume(small.images[sequence]), small.affine)
    maps = [("reference", "reference", small.reference)]
    maps += [("_".join(model), model_phrase(*model), labels) for model, labels in small.predictions.items()]
    entries = []
    for source, title, labels in maps:
        file = f"volumes/{case.name}_{source}.nii.gz"
        nifti.write(folder / file, labels, small.affine)
        entries.append({"file": file, "title": title})
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
    An odd count repeats the last voxel.
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


def _pairs(array: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """Even and odd voxels along ``axis``, stacked first."""
    even = np.arange(0, array.shape[axis], 2)
    return np.stack([array.take(even, axis), array.take(even + 1, axis, mode="clip")])


def colormap() -> dict[str, Any]:
    """NiiVue's description of the label colours: R, G, B, A and I (label value) per entry, background clear."""
    rows = [(0, 0, 0, 0, 0)]
    rows += [(*bytes.fromhex(colour[1:]), 255, LABELS[name]) for name, colour in LABEL_COLOURS.items()]
    columns = {key: [row[place] for row in rows] for place, key in enumerate("RGBAI")}
    return {**columns, "labels": ["background", *LABEL_COLOURS]}


# --- in both -----------------------------------------------------------------------------------------------------


def brain_only(case: ReviewCase) -> ReviewCase:
    """The case cut to the brain and a small margin: less to send to the browser. An empty image stays whole."""
    marked = case.reference > 0
    for image in case.images.values():
        marked |= image != 0
    if not marked.any():
        return case
    occupied = [np.flatnonzero(marked.any(axis)) for axis in ((1, 2), (0, 2), (0, 1))]
    margin = np.ceil(MARGIN_MM / np.array(case.spacing_mm)).astype(int)
    low = np.maximum([line[0] for line in occupied] - margin, 0)
    high = np.minimum([line[-1] + 1 for line in occupied] + margin, marked.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    affine = case.affine.copy()
    affine[:3, 3] = nib.affines.apply_affine(case.affine, low)
    return replace(
        case,
        images={name: image[box] for name, image in case.images.items()},
        reference=case.reference[box],
        predictions={model: labels[box] for model, labels in case.predictions.items()},
        affine=affine,
    )


def display_volume(image: npt.NDArray[np.float32]) -> Bytes:
    """Intensities as 0..255, white at the 99.7th percentile of what is not background: a quarter of the bytes."""
    black, white = brightness(image)
    return np.clip(np.rint((image - black) * (255 / (white - black))), 0, 255).astype(np.uint8)
