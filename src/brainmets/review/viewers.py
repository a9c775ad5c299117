"""A case in 3D inside JupyterLab, with no network: itkwidgets first, NiiVue next, plain slices where neither works.

A viewer that is asked for and cannot work gives way to the next one and a printed line says so: a cell is never blank.
itkwidgets needs the extension of ``lab_extension``; it and NiiVue need WebGL in the browser; slices need nothing.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainmets.atomic import replacing
from brainmets.regions import LABELS
from brainmets.review import lab_extension
from brainmets.review.images import Model, ReviewCase
from brainmets.review.panels import LABEL_COLOURS, SEQUENCE_TITLES, orthogonal_slices
from brainmets.statistics.figures import save
from brainmets.statistics.wording import STRATEGY_TITLES, arm_title

Viewer = Literal["itkwidgets", "niivue", "slices"]
ORDER: tuple[Viewer, ...] = ("itkwidgets", "niivue", "slices")
MARGIN_MM = 4.0


def show(
    case: ReviewCase, labels: Model | Literal["reference"], folder: Path, viewer: Viewer, sequence: str = "t1c"
) -> Any:
    """A widget (or picture) of ``sequence`` with the reference's or a model's label map, for a cell's last line.

    ``folder`` receives the files that NiiVue and the slices need. Prints one line: what is shown, by which viewer, why
    not by the one asked for, and what an empty frame means. Raises ``ValueError`` for an unknown viewer.
    """
    if viewer not in ORDER:
        raise ValueError(f"viewer: {viewer!r} is none of {', '.join(ORDER)}")
    chosen, reasons = usable(viewer)
    print("; ".join([*reasons, f"{title(case, labels)} on {SEQUENCE_TITLES[sequence]}, shown by {chosen}"]), end=". ")
    print("An empty frame means a browser without WebGL: set viewer to slices." if chosen != "slices" else "")
    small = brain_only(case)
    if chosen == "itkwidgets":
        return _itkwidgets(small, labels, sequence)
    if chosen == "niivue":
        return _niivue(small, labels, sequence, folder)
    from IPython.display import Image

    path = save(orthogonal_slices(small, _labels(small, labels), title(case, labels), sequence),
                folder / "volumes" / f"{_slug(case, labels)}.png")  # fmt: skip
    return Image(filename=str(path), alt=title(case, labels), width=900)


def usable(viewer: Viewer) -> tuple[Viewer, list[str]]:
    """The first viewer from ``viewer`` on that this environment can run, and why those before it cannot."""
    reasons: list[str] = []
    for candidate in ORDER[ORDER.index(viewer) :]:
        reason = _missing(candidate)
        if reason is None:
            return candidate, reasons
        reasons.append(f"{candidate} cannot be used: {reason}")
    raise AssertionError("slices need nothing")


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


def write_volume(array: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], path: Path) -> Path:
    """Write a small volume for a viewer."""
    with replacing(path) as aside:
        nib.save(nib.Nifti1Image(array, affine), aside)
    return path


def _missing(viewer: Viewer) -> str | None:
    if viewer == "itkwidgets":
        if find_spec("itkwidgets") is None:
            return "the package is not installed"
        if not lab_extension.installed():
            return "its JupyterLab extension is not installed (make lab, or python -m brainmets.review.lab_extension)"
    if viewer == "niivue" and find_spec("ipyniivue") is None:
        return "the package ipyniivue is not installed"
    return None


def _labels(case: ReviewCase, labels: Model | Literal["reference"]) -> npt.NDArray[np.uint8]:
    return case.reference if labels == "reference" else case.predictions[labels]


def _itkwidgets(case: ReviewCase, labels: Model | Literal["reference"], sequence: str) -> Any:
    import itk
    from itkwidgets import view

    volumes = []
    for array in (display_volume(case.images[sequence]), _labels(case, labels)):
        image = itk.image_from_array(np.ascontiguousarray(array.T))  # itk's arrays are (z, y, x)
        image.SetSpacing(case.spacing_mm)
        image.SetOrigin([float(value) for value in case.affine[:3, 3]])
        volumes.append(image)
    count = int(_labels(case, labels).max()) + 1
    return view(
        volumes[0],
        label_image=volumes[1],
        label_image_weights=np.ones(count, np.float32),
        label_image_blend=0.8,
        gradient_opacity=0.3,
        size_limit_3d=np.array([256, 256, 256]),
        ui_collapsed=True,
    )


def _niivue(case: ReviewCase, labels: Model | Literal["reference"], sequence: str, folder: Path) -> Any:
    from ipyniivue import NiiVue

    base = folder / "volumes" / _slug(case, labels)
    image = write_volume(display_volume(case.images[sequence]), case.affine, base.with_suffix(f".{sequence}.nii.gz"))
    drawn = write_volume(_labels(case, labels), case.affine, base.with_suffix(".labels.nii.gz"))
    widget = NiiVue(height=480)
    widget.load_volumes([{"path": str(image), "colormap": "gray"}, {"path": str(drawn), "opacity": 0.7}])
    widget.volumes[1].set_colormap_label(colormap())
    return widget


def colormap() -> dict[str, Any]:
    """NiiVue's description of the label colours: R, G, B, A and I (label value) per entry, background clear."""
    rows = [(0, 0, 0, 0, 0), *((*_rgb(colour), 255, LABELS[name]) for name, colour in LABEL_COLOURS.items())]
    columns = {key: [row[place] for row in rows] for place, key in enumerate("RGBAI")}
    return {**columns, "labels": ["background", *LABEL_COLOURS]}


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _slug(case: ReviewCase, labels: Model | Literal["reference"]) -> str:
    name = case.name if labels == "reference" else "_".join((case.name, *labels))
    return "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
