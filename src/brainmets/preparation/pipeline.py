"""One patient from raw series to a prepared case: register, find the brain, resample once, write.

The order: every sequence is registered to the contrast-enhanced T1, the brain is found once, on the native T1 where
there is one that shows it, else on the contrast-enhanced T1, and the contrast-enhanced T1's brain is registered to the
template. Each image is then resampled a single time, from its own grid to the case's, through the composed transform;
label maps ride along through the transform of the sequence that they were drawn on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import SimpleITK as sitk

from brainmets import figures, nifti
from brainmets.cohorts.cohort import files_of
from brainmets.figures import Drawing
from brainmets.params import Cohort, Preparation
from brainmets.paths import PreparationPaths
from brainmets.preparation import brain, grids, quality, quality_figures, raw, registration, volumes
from brainmets.preparation.quality import NATIVE, REFERENCE
from brainmets.preparation.registration import Registration
from brainmets.preparation.scans import ScanError
from brainmets.preparation.sorting import Planned
from brainmets.vocabulary import SEQUENCES

TEMPLATE = "template"
"""The name of the transform from the template to the t1c among the others."""
GRID_TOLERANCE_MM = 0.1
"""Between the corners of a label map and of its image: raw files are written by many programs, with rounding."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What the preparation of a case depends on beside its files: see ``params.Preparation``."""

    space: str
    spacing_mm: tuple[float, float, float] | None
    mask_margin_mm: float
    bias_field: bool
    seed: int

    @classmethod
    def of(cls, parameters: Preparation) -> Settings:
        """The settings among the parameters of notebook 00."""
        return cls(
            parameters.space, parameters.spacing_mm, parameters.mask_margin_mm, parameters.bias_field, parameters.seed
        )


@dataclass(frozen=True)
class Native:
    """One scan as it was read, every image on its own grid (SimpleITK, axes along L, P, S).

    ``labels`` and ``brain_mask`` are ``uint8``, on the grid of the sequence ``drawn_on`` and ``masked_on``.
    """

    images: dict[str, sitk.Image]
    labels: sitk.Image | None
    drawn_on: str
    brain_mask: sitk.Image | None
    masked_on: str


@dataclass(frozen=True)
class Prepared:
    """A prepared case, in memory.

    ``images`` (float32), ``brain``, ``mask`` (the brain and its margin: 0 outside it) and ``labels`` (uint8, in the
    file's own values) are (x, y, z) along R, A and S on the grid of ``affine``. ``registrations`` holds each
    sequence's to the t1c, and with space "template" the t1c's to the ``TEMPLATE``. ``row`` is the case's row of
    ``quality.csv``; for the last three see ``record``.
    """

    images: dict[str, npt.NDArray[np.float32]]
    brain: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8] | None
    affine: nifti.Affine
    registrations: dict[str, Registration]
    row: dict[str, float]
    brain_from: str
    drawn_on: str
    label_beyond_grid: float


def read(planned: Planned) -> Native:
    """The raw images of a case, its label map and a brain mask of one's own, each as it lies.

    Raises ``ScanError`` where a file cannot be read, or a label map or mask lies on no sequence's grid.
    """
    images = {name: raw.read(planned.images[name]) for name in SEQUENCES if name in planned.images}
    labels, drawn_on = _on_a_sequence(planned.label, images, f"case {planned.case}: the label map")
    mask, masked_on = _on_a_sequence(planned.brain_mask, images, f"case {planned.case}: the brain mask")
    return Native(images, labels, drawn_on, mask, masked_on)


def prepare(native: Native, settings: Settings, say: Say) -> Prepared:
    """Register, find the brain, bring everything to one grid in a single resampling, and measure what came out.

    ``say`` is told of each step. Raises ``ScanError`` where a step cannot be done; the same input gives the same
    voxels on every run.
    """
    if settings.spacing_mm is None:
        _require_upright(native.images[REFERENCE])
    found: dict[str, Registration] = {}
    for sequence in native.images:
        if sequence != REFERENCE:
            say(f"registering {sequence} to {REFERENCE}")
            found[sequence] = registration.register(native.images[REFERENCE], native.images[sequence], settings.seed)
    say("finding the brain")
    mask, masked_on, brain_from = _brain(native)
    ways: dict[str, sitk.Euler3DTransform] = {name: one.transform for name, one in found.items()}
    ways[REFERENCE] = sitk.Euler3DTransform()
    grid, template = native.images[REFERENCE], None
    if settings.spacing_mm is not None:
        say("laying the brain onto the template")
        on_reference = brain.carried(mask, ways[masked_on], grid)
        found[TEMPLATE] = registration.to_template(grid, on_reference, settings.seed, grids.template())
        ways = {name: registration.chain(found[TEMPLATE].transform, way) for name, way in ways.items()}
        grid = grids.template_grid(settings.spacing_mm)
        shown = along_ras(grids.resampled(grids.template(), grid, sitk.Euler3DTransform()))[0]
        template = quality.Template(shown, shown > 0)
    say("resampling")
    narrow = brain.carried(mask, ways[masked_on], grid)
    wide = brain.widened(narrow, settings.mask_margin_mm)
    images = {}
    for sequence, image in native.images.items():
        even = brain.without_bias_field(image) if settings.bias_field else image
        images[sequence] = along_ras(sitk.Mask(grids.resampled(even, grid, ways[sequence]), wide))[0]
    labels = None
    if native.labels is not None:
        labels = grids.resampled_labels(native.labels, grid, ways[native.drawn_on])
    drawn = along_ras(labels.image)[0] if labels else None
    inside, affine = along_ras(narrow)
    row = quality.measure(
        images,
        inside,
        affine,
        {name: one for name, one in found.items() if name != TEMPLATE},
        label=drawn,
        template=template,
        margin_mm=settings.mask_margin_mm,
        lesions_restored=labels.kept if labels else 0,
    )
    beyond = grids.share_outside(native.labels, grid, ways[native.drawn_on]) if native.labels is not None else 0.0
    drawn_on = native.drawn_on if native.labels is not None else ""
    return Prepared(images, inside, along_ras(wide)[0], drawn, affine, found, row, brain_from, drawn_on, beyond)


def registrations_table(prepared: Prepared) -> pd.DataFrame:
    """One row per registration: how far it moved, and the numbers by which to judge it."""
    rows = [
        {
            "image": name,
            "rotation_deg": one.rotation_deg,
            "translation_mm": one.translation_mm,
            "spread_mm": one.spread_mm,
            "metric_before": one.metric_before,
            "metric": one.metric,
            "mirrored": one.mirrored,
        }
        for name, one in prepared.registrations.items()
    ]
    return pd.DataFrame(rows).round(3)


def picture(native: Native, prepared: Prepared, case: str) -> Drawing:
    """The case before and after, in one figure: see ``quality_figures.patient_figure``."""
    return quality_figures.patient_figure(
        case, native.images, prepared.images, prepared.mask, prepared.affine, prepared.labels
    )


def write(prepared: Prepared, case: str, declaration: Cohort, files: PreparationPaths, figure: Drawing) -> list[Path]:
    """Write the case into the cohort's folder, and its transforms, mask and picture beside; gives the cohort's files.

    Each file is whole or not there; the record of an earlier preparation goes first, so that it vouches for no other
    files than its own.
    """
    paths, beside = files_of(declaration, case), files.case(case)
    beside.mkdir(parents=True, exist_ok=True)
    files.prepared(case).unlink(missing_ok=True)
    for old in beside.glob("*.tfm"):
        old.unlink()
    for name in SEQUENCES:  # of an earlier preparation, from more sequences
        if name not in prepared.images and name in paths:
            paths[name].unlink(missing_ok=True)
    written = [nifti.write(paths[name], image, prepared.affine) for name, image in prepared.images.items()]
    if prepared.labels is not None:
        written.append(nifti.write(paths["label"], prepared.labels, prepared.affine))
    nifti.write(beside / "brain_mask.nii.gz", prepared.mask, prepared.affine)
    registration.write_transforms(beside, {name: one.transform for name, one in prepared.registrations.items()})
    strip = quality_figures.patient_strip(prepared.images, prepared.mask, prepared.affine, prepared.labels)
    figures.save(figure, beside / "picture.png")
    figures.save(strip, beside / "strip.png")
    return written


def record(prepared: Prepared, planned: Planned) -> dict[str, Any]:
    """What ``prepared.json`` says of a case beside its provenance: raw files by their content alone, and the numbers.

    Keys: case, files (the hash of the raw files' state), raw_sha256 (per sequence, and of label map and mask),
    brain_from ("t1n", "t1c" or "own mask"), drawn_on (the sequence on whose grid the label map lies),
    label_beyond_grid (share of the label map that lies off the case's grid), row.
    """
    raw_sha256 = {name: _content(one.files) for name, one in planned.images.items()}
    for name, path in (("label", planned.label), ("brain_mask", planned.brain_mask)):
        if path is not None:
            raw_sha256[name] = _content([path])
    return {
        "case": planned.case,
        "files": planned.digest,
        "raw_sha256": raw_sha256,
        "brain_from": prepared.brain_from,
        "drawn_on": prepared.drawn_on,
        "label_beyond_grid": prepared.label_beyond_grid,
        "row": {name: value if np.isfinite(value) else None for name, value in prepared.row.items()},
    }


def _brain(native: Native) -> tuple[sitk.Image, str, str]:
    """The brain, the sequence on whose grid it lies, and its source: one's own mask, the native T1, else the t1c."""
    if native.brain_mask is not None:
        return native.brain_mask, native.masked_on, "own mask"
    try:
        if NATIVE in native.images:
            return brain.brain_mask(native.images[NATIVE]), NATIVE, NATIVE
    except ScanError:
        pass
    return brain.brain_mask(native.images[REFERENCE]), REFERENCE, REFERENCE


def _require_upright(image: sitk.Image) -> None:
    """Raise ``ScanError`` for slices that lean (gantry tilt): a file of such a grid is misread by many programs."""
    directions = np.reshape(image.GetDirection(), (3, 3))
    if not np.allclose(directions @ directions.T, np.eye(3), atol=1e-4):
        raise ScanError("the slices of the t1c lean (gantry tilt), which no grid of a case may: use space template")


def _on_a_sequence(path: Path | None, images: dict[str, sitk.Image], what: str) -> tuple[sitk.Image | None, str]:
    """A label map or mask, and the sequence on whose grid it lies: the t1c first."""
    if path is None:
        return None, REFERENCE
    drawn = volumes.read_labels(path)
    for sequence in (REFERENCE, *(name for name in images if name != REFERENCE)):
        if _one_grid(drawn, images[sequence]):
            drawn.CopyInformation(images[sequence])  # ITK refuses what differs in the last digits
            return drawn, sequence
    raise ScanError(
        f"{what} lies on no sequence's grid ({_size(drawn)}; the sequences have "
        + ", ".join(f"{name} {_size(image)}" for name, image in images.items())
        + "): save it on the grid of the image that it was drawn on"
    )


def _one_grid(one: sitk.Image, other: sitk.Image) -> bool:
    if one.GetSize() != other.GetSize():
        return False
    last = [size - 1 for size in one.GetSize()]
    corners = [[x, y, z] for x in (0, last[0]) for y in (0, last[1]) for z in (0, last[2])]
    away = [
        np.subtract(one.TransformIndexToPhysicalPoint(corner), other.TransformIndexToPhysicalPoint(corner))
        for corner in corners
    ]
    return float(np.linalg.norm(away, axis=1).max()) <= GRID_TOLERANCE_MM


def _size(image: sitk.Image) -> str:
    return " x ".join(map(str, image.GetSize()))


def along_ras(image: sitk.Image) -> tuple[npt.NDArray[Any], nifti.Affine]:
    """Voxels (x, y, z) along R, A and S and the affine to mm in RAS+, of an image with axes along L, P and S."""
    turned = sitk.DICOMOrient(image, "RAS")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(turned.GetDirection(), (3, 3)) * turned.GetSpacing()
    affine[:3, 3] = turned.GetOrigin()
    return sitk.GetArrayFromImage(turned).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _content(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
