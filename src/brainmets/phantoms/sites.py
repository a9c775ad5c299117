"""Demonstration cohorts without patients: two sites' worth of phantom MRI with metastases, deterministic by seed.

The source site follows the naming, grid and labels of BraTS metastases; the target site has names, an anisotropic
grid, a contrast, a noise level and a label scheme of its own, so that a demonstration passes through the same
ingestion as real cohorts. ``docs/data_card.md`` says how the phantoms are made and what they cannot show.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainmets.files import read_json, write_json, write_text
from brainmets.params.models import LESION_FREE_PHANTOMS, Cohort
from brainmets.paths import resolve
from brainmets.phantoms.anatomy import (
    BRAIN_CENTRE_MM,
    HEAD_REACH_MM,
    Anatomy,
    Floats,
    Grid,
    bend_template,
    smooth_field,
)
from brainmets.phantoms.lesions import ENHANCING, NECROSIS, NON_ENHANCING, OEDEMA, Lesion, Sizes, paint, place_lesions
from brainmets.vocabulary import LABELS, SEQUENCES

SiteName = Literal["source", "target"]
MANIFEST = "phantoms.json"
GENERATOR = 2
"""Raised whenever the same arguments would give other voxels."""
PLAIN: dict[str, Any] = {"lesion_free": 0, "sequences": [*SEQUENCES], "lesions": "mixed", "lacking": {}}
"""What a cohort's manifest need not say: an earlier version had none of these arguments."""


@dataclass(frozen=True)
class Site:
    """How one site images: field of view (mm), voxel edges over the nominal spacing, tissue levels, noise, labels.

    ``levels`` holds per sequence the signal of CSF, grey matter, white matter, oedema, non-enhancing tumour,
    enhancing tumour and necrosis; ``labels`` maps the four lesion parts to the site's label values.
    """

    number: int
    field_of_view_mm: tuple[float, float, float]
    edges: tuple[float, float, float]
    levels: dict[str, tuple[float, ...]]
    noise: float
    bias: float
    scale: tuple[float, float]  # range of the factor to integer intensities
    labels: dict[int, int]
    names: dict[str, str]  # per sequence and "label", the file's name in a case's folder


# Voxels twice as thick as wide, with the volume of a cube of the nominal spacing.
_WIDE = 0.5 ** (1 / 3)

SITES: dict[SiteName, Site] = {
    "source": Site(
        number=0,
        field_of_view_mm=(240, 240, 155),
        edges=(1, 1, 1),
        levels={
            "t1n": (0.22, 0.58, 0.82, 0.62, 0.55, 0.60, 0.36),
            "t1c": (0.24, 0.62, 0.84, 0.64, 0.60, 1.30, 0.38),
            "t2w": (1.00, 0.58, 0.40, 0.80, 0.72, 0.62, 0.90),
            "t2f": (0.14, 0.62, 0.48, 0.98, 0.78, 0.80, 0.55),
        },
        noise=0.025,
        bias=0.08,
        scale=(700, 1400),
        labels={
            OEDEMA: LABELS["snfh"],
            NON_ENHANCING: LABELS["netc"],
            ENHANCING: LABELS["et"],
            NECROSIS: LABELS["netc"],
        },
        names={**{sequence: f"{{case}}-{sequence}.nii.gz" for sequence in SEQUENCES}, "label": "{case}-seg.nii.gz"},
    ),
    "target": Site(
        number=1,
        field_of_view_mm=(256, 216, 192),
        edges=(_WIDE, _WIDE, 2 * _WIDE),
        levels={
            "t1n": (0.18, 0.66, 0.78, 0.64, 0.60, 0.64, 0.45),
            "t1c": (0.20, 0.70, 0.80, 0.66, 0.64, 1.12, 0.46),
            "t2w": (1.15, 0.52, 0.42, 0.74, 0.66, 0.60, 0.96),
            "t2f": (0.10, 0.70, 0.58, 0.96, 0.82, 0.84, 0.48),
        },
        noise=0.04,
        bias=0.15,
        scale=(200, 420),
        labels={part: part for part in (OEDEMA, NON_ENHANCING, ENHANCING, NECROSIS)},
        names={
            "t1n": "{case}_T1.nii.gz",
            "t1c": "{case}_T1GD.nii.gz",
            "t2w": "{case}_T2.nii.gz",
            "t2f": "{case}_FLAIR.nii.gz",
            "label": "{case}_LABEL.nii.gz",
        },
    ),
}


@dataclass(frozen=True)
class Phantom:
    """One scan. Arrays are (x, y, z) along R, A and S, all on the grid of ``affine``.

    ``images``: int16 per sequence, 0 outside the brain. ``labels``: uint8 in the site's own scheme. ``brain``,
    ``grey`` and ``white``: mask and tissue fractions of the head without lesions. ``lesions``: what was painted.
    """

    images: dict[str, npt.NDArray[np.int16]]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    brain: npt.NDArray[np.bool_]
    grey: Floats
    white: Floats
    lesions: list[Lesion]


def make_patient(
    site: SiteName,
    patient: int,
    spacing_mm: float,
    seed: int,
    timepoint: int = 0,
    n_lesions: int | None = None,
    rescan: int = 0,
    sizes: Sizes = "mixed",
) -> Phantom:
    """One scan of phantom ``patient`` (a number from 1).

    ``spacing_mm`` is the cube root of the voxel volume: at 1 mm the source site gives 240 x 240 x 155 voxels; the
    target site's voxels are twice as thick as wide, and 0.63 mm gives 512 x 432 x 192 of 0.5 x 0.5 x 1 mm. Time
    points of a patient share the head and the lesions' places; each lesion has grown or shrunk. ``n_lesions``
    overrides the draw of 1 to 8, or of 4 to 10 where ``sizes`` is "small" (see ``place_lesions``). Each ``rescan``
    from 1 shows the same time point once more: the grid shifted by up to half a voxel along each axis (never turned),
    with noise, shading, gain and tissue levels drawn anew. Raises ``ValueError`` for a spacing outside 0.4 to 5 mm.
    """
    if not 0.4 <= spacing_mm <= 5:
        raise ValueError(f"spacing_mm: {spacing_mm} must lie between 0.4 and 5 mm")
    imaging = SITES[site]
    head = np.random.default_rng([seed, imaging.number, patient])
    scan = np.random.default_rng([seed, imaging.number, patient, 1 + timepoint])  # lesions' growth, then the image
    whole = _grid(imaging, spacing_mm, head)
    box = whole.box(BRAIN_CENTRE_MM, HEAD_REACH_MM)
    grid = whole.crop(box)
    shape = deepcopy(head)
    anatomy = bend_template(head, grid, BRAIN_CENTRE_MM)
    fewest, most = (1, 8) if sizes == "mixed" else (4, 10)
    count = int(head.integers(fewest, most + 1)) if n_lesions is None else n_lesions
    lesions = place_lesions(head, grid, anatomy, count, growth=1.3, sizes=sizes)
    if timepoint:
        lesions = [lesion.grown(float(scan.uniform(0.55, 1.3))) for lesion in lesions]
    if rescan:
        scan = np.random.default_rng([seed, imaging.number, patient, 1 + timepoint, rescan])
        whole = _shifted(whole, scan)
        box = whole.box(BRAIN_CENTRE_MM, HEAD_REACH_MM)
        grid = whole.crop(box)
        anatomy = bend_template(shape, grid, BRAIN_CENTRE_MM)
    parts, enhancement = paint(grid, anatomy, lesions)
    images = {name: _image(scan, imaging, name, grid, anatomy, parts, enhancement) for name in SEQUENCES}
    scheme = np.array([0, *(imaging.labels[part] for part in sorted(imaging.labels))], np.uint8)

    def within(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array = np.zeros(whole.shape, part.dtype)
        array[box] = part
        return array

    return Phantom(
        images={name: within(image) for name, image in images.items()},
        labels=within(scheme[parts]),
        affine=whole.affine,
        brain=within(anatomy.brain),
        grey=within(anatomy.grey),
        white=within(anatomy.white),
        lesions=lesions,
    )


def case_names(site: SiteName, patients: int) -> list[tuple[str, int, int]]:
    """Every case as (name, patient, time point); on the source site patients 2, 6, 10, ... are scanned twice."""
    if site == "target":
        return [(f"P{patient:02d}", patient, 0) for patient in range(1, patients + 1)]
    return [
        (f"BraTS-MET-{patient:05d}-{timepoint:03d}", patient, timepoint)
        for patient in range(1, patients + 1)
        for timepoint in range(2 if patient % 4 == 2 else 1)
    ]


def make_declared(declaration: Cohort, progress: Callable[[str], None] | None = None) -> None:
    """Make the phantoms that a declared cohort asks for, with the sequences that its layout names; else nothing."""
    if declaration.phantoms is None:
        return
    sequences = [name for name in SEQUENCES if name in declaration.files.patterns]
    asked = declaration.phantoms.model_dump()
    make_cohort(resolve(declaration.folder), **asked, sequences=sequences, progress=progress)


def make_cohort(
    folder: Path,
    site: SiteName,
    patients: int,
    spacing_mm: float,
    seed: int,
    lesion_free: int = 0,
    lesions: Sizes = "mixed",
    lacking: Mapping[str, int] | None = None,
    sequences: Sequence[str] = SEQUENCES,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a cohort of phantoms to ``folder``, whole or not at all, and return ``folder``.

    One subfolder per case with its ``sequences`` (int16) and the label map (uint8) as .nii.gz, and a manifest
    ``phantoms.json``. ``lesions``: see ``place_lesions``. ``lacking`` gives, per sequence, how many patients have no
    such image: the last of those with lesions. ``lesion_free`` further patients, with the numbers that follow, have no
    lesion: a table, ``lesion_free.csv``, lists their cases, of which every second has no label map and the others an
    empty one.
    The same arguments give the same bytes, and the same voxels whatever ``lesion_free``, ``lacking`` and
    ``sequences``. Raises ``ValueError`` where ``lacking`` leaves a case without an image. A folder that already
    holds this cohort is left as it is; anything else in its place raises ``FileExistsError``. ``progress`` is called
    with one line per case.
    """
    if patients < 1:
        raise ValueError(f"patients: {patients} must be 1 or more")
    lacking = dict(lacking or {})
    if all(lacking.get(name) for name in sequences):
        raise ValueError(f"lacking: {lacking} leaves a patient without any of {', '.join(sequences)}")
    plain = {"lesion_free": lesion_free, "sequences": [*sequences], "lesions": lesions, "lacking": lacking}
    arguments: dict[str, Any] = {
        "generator": GENERATOR, "site": site, "patients": patients, "spacing_mm": spacing_mm, "seed": seed,
        **{name: value for name, value in plain.items() if name == "lesion_free" or value != PLAIN[name]},
    }  # fmt: skip
    if already_made(folder, arguments):
        return folder
    cases = case_names(site, patients + lesion_free)
    healthy = [case for case, patient, _ in cases if patient > patients]
    with folder_aside(folder) as aside:
        for number, (case, patient, timepoint) in enumerate(cases, start=1):
            count = 0 if case in healthy else None
            phantom = make_patient(site, patient, spacing_mm, seed, timepoint, count, sizes=lesions)
            images = {
                name: phantom.images[name]
                for name in sequences
                if not patients - lacking.get(name, 0) < patient <= patients
            }
            (aside / case).mkdir(parents=True)
            for name, voxels in {**images, "label": phantom.labels}.items():
                if name == "label" and case in healthy[1::2]:
                    continue
                image = nib.Nifti1Image(voxels, phantom.affine)
                image.header.set_xyzt_units("mm")
                nib.save(image, aside / case / SITES[site].names[name].format(case=case))
            if progress is not None:
                progress(f"phantom {number} of {len(cases)}: {case}")
        if healthy:
            write_text(aside / LESION_FREE_PHANTOMS, "\n".join(["case", *healthy]) + "\n")
        write_json(aside / MANIFEST, {**arguments, "cases": [case for case, _, _ in cases]})
    return folder


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Give a path beside ``folder``; rename it to ``folder`` when the block ends without an error, else delete it."""
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # what an interrupted run left
    try:
        yield aside
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def already_made(folder: Path, arguments: dict[str, Any]) -> bool:
    """Whether ``folder`` is this cohort. Raises ``FileExistsError`` where it is anything else but empty or absent."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise FileExistsError(
            f"{folder} exists and was not made by the phantom generator (no {MANIFEST} in it): "
            "name another folder for the phantoms, or remove the phantoms entry of this cohort to read it as it is"
        )
    made, asked = {**PLAIN, **read_json(manifest)}, {**PLAIN, **arguments}
    differing = [f"{name} {made.get(name)!r} there, {value!r} asked for"
                 for name, value in asked.items() if made.get(name) != value]  # fmt: skip
    if differing:
        raise FileExistsError(
            f"{folder} holds other phantoms ({'; '.join(differing)}): delete it or name another folder"
        )
    return True


def _grid(site: Site, spacing_mm: float, rng: np.random.Generator) -> Grid:
    """The site's field of view around the brain; a patient never lies exactly in the middle."""
    x, y, z = (round(float(spacing_mm * edge), 4) for edge in site.edges)
    shape = tuple(round(view / step) for view, step in zip(site.field_of_view_mm, (x, y, z), strict=True))
    span = (np.array(shape) - 1) * (x, y, z)
    a, b, c = np.round(BRAIN_CENTRE_MM - span / 2 + rng.uniform(-2, 2, 3), 2)
    return Grid((shape[0], shape[1], shape[2]), (x, y, z), (float(a), float(b), float(c)))


def _shifted(grid: Grid, rng: np.random.Generator) -> Grid:
    """The grid, moved by up to half a voxel along each axis."""
    x, y, z = np.asarray(grid.origin_mm) + rng.uniform(-0.5, 0.5, 3) * grid.spacing_mm
    return replace(grid, origin_mm=(float(x), float(y), float(z)))


def _image(
    rng: np.random.Generator,
    site: Site,
    sequence: str,
    grid: Grid,
    anatomy: Anatomy,
    parts: npt.NDArray[np.uint8],
    enhancement: Floats,
) -> npt.NDArray[np.int16]:
    """One sequence: tissue signal, lesions, point spread, bias field, Rician noise, integer scale."""
    signal = ndimage.gaussian_filter(brain_signal(rng, site, sequence, anatomy, parts, enhancement), 0.4)
    axes = [grid.axis(i) - np.float32(BRAIN_CENTRE_MM[i]) for i in range(3)]
    signal *= np.exp(np.float32(site.bias) * smooth_field(rng, axes, HEAD_REACH_MM, 90))
    inside = signal[anatomy.brain]
    real, imaginary = rng.standard_normal((2, inside.size), dtype=np.float32) * np.float32(site.noise)
    image = np.zeros(grid.shape, np.int16)
    scaled = np.hypot(inside + real, imaginary) * np.float32(rng.uniform(*site.scale))
    image[anatomy.brain] = np.maximum(np.rint(scaled), 1)  # 0 is outside the brain, and only there
    return image


def brain_signal(
    rng: np.random.Generator,
    site: Site,
    sequence: str,
    anatomy: Anatomy,
    parts: npt.NDArray[np.uint8],
    enhancement: Floats,
) -> Floats:
    """The signal of brain and lesions on the anatomy's grid, 1 being near white matter in T1; 0 outside the brain."""
    csf, grey, white, *lesion_levels = np.array(site.levels[sequence]) * rng.normal(1, 0.03, 7)
    signal = (csf * anatomy.csf + grey * anatomy.grey + white * anatomy.white).astype(np.float32)
    signal += anatomy.detail * np.float32((white - grey) / 0.24)  # detail is in T1 units: grey and white part by 0.24
    for part, level in zip((OEDEMA, NON_ENHANCING, ENHANCING, NECROSIS), lesion_levels, strict=True):
        where = parts == part
        rim = enhancement[where] if sequence == "t1c" and part == ENHANCING else np.float32(1)
        signal[where] = 0.85 * np.float32(level) * rim + 0.15 * signal[where]  # some tissue shines through
    return signal
