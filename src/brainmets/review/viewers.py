"""A case in 3D inside JupyterLab, with no network: itkwidgets first, NiiVue next, plain slices where neither works.

A viewer that is asked for and cannot work gives way to the next one and a printed line says so: a cell is never blank.
itkwidgets needs the extension of ``lab_extension``; it and NiiVue need WebGL in the browser; slices need nothing.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.figures import save
from brainmets.review import lab_extension
from brainmets.review.case import ReviewCase
from brainmets.review.panels import orthogonal_slices
from brainmets.review.volumes import brain_only, colormap, display_volume, title
from brainmets.vocabulary import SEQUENCE_TITLES, Model

Viewer = Literal["itkwidgets", "niivue", "slices"]
ORDER: tuple[Viewer, ...] = ("itkwidgets", "niivue", "slices")


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
    image = nifti.write(base.with_suffix(f".{sequence}.nii.gz"), display_volume(case.images[sequence]), case.affine)
    drawn = nifti.write(base.with_suffix(".labels.nii.gz"), _labels(case, labels), case.affine)
    widget = NiiVue(height=480)
    widget.load_volumes([{"path": str(image), "colormap": "gray"}, {"path": str(drawn), "opacity": 0.7}])
    widget.volumes[1].set_colormap_label(colormap())
    return widget


def _slug(case: ReviewCase, labels: Model | Literal["reference"]) -> str:
    name = case.name if labels == "reference" else "_".join((case.name, *labels))
    return "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
