"""Phantoms as they leave the scanner: whole heads, four sequences on four grids, the patient moving between them.

Everything that a preparation has to find is known: the rigid move between any two sequences, the brain, the lesions.
The label map is drawn on the grid of the contrast-enhanced T1, with the target site's values. ``docs/data_card.md``
says how the phantoms are made and what they cannot show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainmets.files import write_json
from brainmets.phantoms.anatomy import BRAIN_CENTRE_MM, Floats, smooth_field
from brainmets.phantoms.dicom import Acquisition, Study, write_capture, write_multiframe, write_slices
from brainmets.phantoms.head import MIDDLE_MM, TISSUES, Head, make_head
from brainmets.phantoms.lesions import OEDEMA, Lesion, paint, place_lesions
from brainmets.phantoms.protocols import (
    VENDORS,
    Plane,
    Vendor,
    acquire,
    diffusion,
    has_adc,
    localiser,
    protocol,
    second_contrast,
    thick_slices,
)
from brainmets.phantoms.sites import MANIFEST, SITES, already_made, brain_signal, folder_aside
from brainmets.vocabulary import SEQUENCES

Matrix = npt.NDArray[np.float64]
"""A 4x4 matrix on positions in mm along R, A and S."""
SCANNER_GENERATOR = 1
"""Raised whenever the same arguments would give other bytes."""
LEAST_SPACING_MM, MOST_SPACING_MM = 0.8, 5.0
SITE = SITES["target"]
MULTIFRAME_PATIENT = 3
"""The one patient of a cohort whose sequences are enhanced multi-frame files."""
THICKEST_SLICE_MM = 8.0
"""Slices of a miniature are no thicker, so that it still has some twenty."""
TILT_DEG = 25.0
"""How far 2D stacks are turned about the left-right axis at most."""
BRAIN_RADII_MM = np.array([72.0, 92.0, 76.0])
MARGIN_MM: dict[Plane, float] = {"axial": 12.0, "sagittal": 18.0, "coronal": 12.0}
"""What the operator leaves on either side of the brain."""
FIELD_OF_VIEW_MM: dict[Plane, float] = {"axial": 240.0, "sagittal": 256.0, "coronal": 256.0}

# Directions (R, A, S) in which columns, rows and slices are counted.
_PLANES: dict[Plane, tuple[tuple[float, float, float], ...]] = {
    "axial": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (1, 0, 0)),
    "coronal": ((-1, 0, 0), (0, 0, -1), (0, 1, 0)),
}

# Signal of the tissues around the brain, as TISSUES lists them; fluid (nan) has that of the brain's own.
OUTER_LEVELS = {
    "t1n": (0, np.nan, 0.05, 0.85, 1.25, 0.70, 0.50, 0.35, 0.50, 0.74, 0.15),
    "t1c": (0, np.nan, 0.05, 0.88, 1.25, 0.75, 0.56, 1.25, 1.05, 0.76, 0.16),
    "t2w": (0, np.nan, 0.04, 0.55, 0.85, 0.45, 0.20, 0.08, 0.95, 0.44, 1.20),
    "t2f": (0, np.nan, 0.04, 0.45, 0.75, 0.45, 0.28, 0.10, 0.75, 0.60, 0.12),
}


@dataclass(frozen=True)
class Slab:
    """A native grid: voxels (column, row, slice), their matrix to scanner coordinates, the slices' thickness in mm."""

    shape: tuple[int, int, int]
    affine: Matrix
    thickness_mm: float


@dataclass(frozen=True)
class ScannedSequence:
    """One sequence: voxels (uint16, column, row, slice) on ``slab``; ``pose`` is the head's place while it was taken.

    ``pose`` maps head coordinates to scanner coordinates.
    """

    voxels: npt.NDArray[np.uint16]
    slab: Slab
    pose: Matrix
    acquisition: Acquisition


@dataclass(frozen=True)
class Session:
    """One patient's scan session. ``labels`` and ``brain`` are uint8 on the grid of the t1c.

    ``lesions``: as drawn, with centres in head coordinates, and the volumes of tumour and oedema of each in mm^3.
    """

    study: Study
    sequences: dict[str, ScannedSequence]
    labels: npt.NDArray[np.uint8]
    brain: npt.NDArray[np.uint8]
    lesions: list[tuple[Lesion, float, float]]
    others: list[tuple[Acquisition, list[tuple[npt.NDArray[np.uint16], Matrix]]]]


def patient_id(number: int) -> str:
    """What the headers and the files beside the DICOM call phantom ``number``."""
    return f"PHANTOM-{number:04d}"


def secrets(number: int) -> tuple[str, ...]:
    """Words of phantom ``number``'s headers that must not be found in anything made from them."""
    return (
        f"Phantom^Number{number}",
        patient_id(number),
        f"Phantom{number} lives at Hollow Lane",
        f"Phantom{number} rang on Monday",
        f"Daughter of Phantom{number} waits outside",
        "Phantom Hospital",
        "Phantom^Referrer",
        "Phantom^Operator",
    )


def make_session(
    patient: int, spacing_mm: float, seed: int, max_rotation_deg: float = 15.0, max_shift_mm: float = 20.0
) -> Session:
    """The scan session of phantom ``patient`` (a number from 1).

    ``spacing_mm`` scales all voxels: 1 is full size (3D sequences at about 1 mm, T2 at 0.5 mm in slices of 3 to 5 mm).
    Between the t1c and each other sequence the head turns by up to ``max_rotation_deg`` about an axis of its own
    through the middle of the brain, which moves by up to ``max_shift_mm``. Raises ``ValueError`` for a spacing outside
    0.8 to 5 mm.
    """
    if not LEAST_SPACING_MM <= spacing_mm <= MOST_SPACING_MM:
        raise ValueError(f"spacing_mm: {spacing_mm} must lie between {LEAST_SPACING_MM} and {MOST_SPACING_MM:g} mm")
    rng = np.random.default_rng([seed, 2, patient])
    head = make_head(rng, max(1.0, spacing_mm / 2))
    lesions = place_lesions(rng, head.grid.crop(head.box), head.anatomy, int(rng.integers(1, 9)))
    study = make_study(seed, patient)
    return scan(head, lesions, patient, spacing_mm, (seed, 2, patient), study, max_rotation_deg, max_shift_mm)


def scan(
    head: Head,
    lesions: list[Lesion],
    patient: int,
    spacing_mm: float,
    key: tuple[int, ...],
    study: Study,
    max_rotation_deg: float = 15.0,
    max_shift_mm: float = 20.0,
) -> Session:
    """The session of a head with these lesions, on the scanner and by the protocol of phantom ``patient``.

    ``key`` seeds the head's place, the slices' place and the noise: another key is another visit.
    """
    brain_grid = head.grid.crop(head.box)
    parts, enhancement = paint(brain_grid, head.anatomy, lesions)
    plan = np.random.default_rng([*key, 1])
    poses = _poses(plan, max_rotation_deg, max_shift_mm)
    vendor = vendor_of(patient)
    variants = protocol(patient)
    tilt = np.array([plan.uniform(-TILT_DEG, TILT_DEG), *plan.uniform(-3, 3, 2)])
    sequences: dict[str, ScannedSequence] = {}
    signals: dict[str, Floats] = {}
    for order, name in enumerate(SEQUENCES):
        draws = np.random.default_rng([*key, 2 + order])
        slab = _slab(draws, name, variants[name], thick_slices(patient), poses[name], spacing_mm, tilt)
        signals[name] = _signal(draws, name, head, parts, enhancement)
        voxels = _scan(draws, signals[name], head, poses[name], slab, vendor.slope)
        acquisition = acquire(name, variants[name][0], vendor, patient, slab.thickness_mm)
        sequences[name] = ScannedSequence(voxels, slab, poses[name], acquisition)

    labels, brain = _on_grid(head, parts, lesions, sequences["t1c"])
    unit = brain_grid.mean_spacing_mm**3
    sizes = []
    for lesion in lesions:
        alone, _ = paint(brain_grid, head.anatomy, [lesion])
        sizes.append((lesion, float((alone > OEDEMA).sum() * unit), float((alone == OEDEMA).sum() * unit)))
    others = _others(
        np.random.default_rng([*key, 9]),
        signals,
        head,
        poses,
        vendor,
        sequences["t1c"].acquisition,
        patient,
        spacing_mm,
    )
    return Session(study, sequences, labels, brain, sizes, others)


def make_scanner_cohort(
    folder: Path,
    patients: int,
    spacing_mm: float,
    seed: int,
    max_rotation_deg: float = 15.0,
    max_shift_mm: float = 20.0,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write scan sessions of phantoms to ``folder``, whole or not at all, and return ``folder``.

    ``dicom/DICOM/<study>/<series>/<image>``: every patient's four sequences, localiser, diffusion and screenshot.
    ``labels/<PatientID>.nii.gz`` and ``brain_masks/<PatientID>.nii.gz``: uint8 on the voxels of the patient's t1c, in
    the order nearest to R, A and S; label values are those of the target site. ``truth.json``: see ``truth``.
    ``phantoms.json``: the arguments. The same arguments give the same bytes. A folder that already holds this cohort
    is left as it is; anything else in its place raises ``FileExistsError``. ``progress`` is called with one line per
    patient.
    """
    if patients < 1:
        raise ValueError(f"patients: {patients} must be 1 or more")
    arguments: dict[str, Any] = {
        "generator": SCANNER_GENERATOR, "site": "scanner", "patients": patients, "spacing_mm": spacing_mm,
        "seed": seed, "max_rotation_deg": max_rotation_deg, "max_shift_mm": max_shift_mm,
    }  # fmt: skip
    if already_made(folder, arguments):
        return folder
    truths = {}
    with folder_aside(folder) as aside:
        for number in range(1, patients + 1):
            session = make_session(number, spacing_mm, seed, max_rotation_deg, max_shift_mm)
            write_session(aside / "dicom", session, multiframe=number == MULTIFRAME_PATIENT)
            write_drawn(aside, session, patient_id(number))
            truths[patient_id(number)] = {
                "thick_slices": thick_slices(number), "multiframe": number == MULTIFRAME_PATIENT, **truth(session)
            }  # fmt: skip
            if progress is not None:
                progress(f"scanner phantom {number} of {patients}")
        write_json(aside / "truth.json", {"coordinates": COORDINATES, "patients": truths})
        write_json(aside / MANIFEST, {**arguments, "cases": sorted(truths)})
    return folder


COORDINATES = (
    "Matrices are 4x4, act on columns (x, y, z, 1) in mm along R, A and S (negate x and y for DICOM's and ITK's L, P, "
    "S), and map a point of the head from one of its places to another: t1c_to[s] from that during the t1c to that "
    "during s, both in scanner coordinates (those of the headers); head_to_t1c from the head's own coordinates, which "
    "are near those of the MNI152 template, to its place during the t1c. Lesion centres are places during the t1c."
)


def truth(session: Session) -> dict[str, Any]:
    """What a preparation should find, for JSON.

    ``manufacturer``; ``head_to_t1c``; ``brain_centre_mm``, during the t1c; ``t1c_to``, a matrix per sequence;
    ``moves``, per sequence ``rotation_deg`` and the ``shift_mm`` of the middle of the brain; ``series``, per sequence
    ``number``, ``description``, ``acquisition``, ``shape`` as column, row, slice, ``spacing_mm``, ``thickness_mm`` and
    ``affine`` from voxel to scanner; ``lesions``, each ``centre_mm``, ``tumour_mm3``, ``oedema_mm3``.
    """
    base = session.sequences["t1c"].pose
    centre = _place(base, BRAIN_CENTRE_MM)
    moves, matrices, series = {}, {}, {}
    for name, scanned in session.sequences.items():
        matrix = scanned.pose @ np.linalg.inv(base) if name != "t1c" else np.eye(4)
        matrices[name] = matrix.tolist()
        moves[name] = {
            "rotation_deg": float(np.rad2deg(Rotation.from_matrix(matrix[:3, :3]).magnitude())),
            "shift_mm": float(np.linalg.norm(_place(matrix, centre) - centre)),
        }
        series[name] = {
            "number": scanned.acquisition.number,
            "description": scanned.acquisition.description,
            "acquisition": scanned.acquisition.acquisition,
            "shape": list(scanned.slab.shape),
            "spacing_mm": np.linalg.norm(scanned.slab.affine[:3, :3], axis=0).round(6).tolist(),
            "thickness_mm": scanned.slab.thickness_mm,
            "affine": scanned.slab.affine.tolist(),
        }
    return {
        "manufacturer": session.study.manufacturer,
        "head_to_t1c": base.tolist(),
        "brain_centre_mm": centre.tolist(),
        "t1c_to": matrices,
        "moves": moves,
        "series": series,
        "lesions": [
            {
                "centre_mm": _place(base, np.array(lesion.centre_mm)).tolist(),
                "tumour_mm3": tumour,
                "oedema_mm3": oedema,
            }
            for lesion, tumour, oedema in session.lesions
        ],
    }


def write_session(root: Path, session: Session, *, multiframe: bool) -> None:
    """Write a session's DICOM files below ``root``; its four sequences as enhanced multi-frame files if asked for."""
    for scanned in session.sequences.values():
        if multiframe:
            write_multiframe(root, session.study, scanned.acquisition, scanned.voxels, scanned.slab.affine)
        else:
            write_slices(root, session.study, scanned.acquisition, [(scanned.voxels, scanned.slab.affine)])
    for acquisition, stacks in session.others:
        write_slices(root, session.study, acquisition, stacks)
    middle = session.sequences["t1c"].voxels
    plane = middle[:, :, middle.shape[2] // 2].T.astype(np.float64)
    grey = (255 * plane / max(plane.max(), 1)).astype(np.uint8)
    picture = np.stack([grey, grey, np.maximum(grey, 60)], axis=-1)[: grey.shape[0] // 2 * 2, : grey.shape[1] // 2 * 2]
    write_capture(root, session.study, 999, "104500", np.ascontiguousarray(picture))


def write_drawn(root: Path, session: Session, name: str) -> None:
    """Write ``labels/<name>.nii.gz`` and ``brain_masks/<name>.nii.gz`` below ``root``."""
    affine = session.sequences["t1c"].slab.affine
    for subfolder, voxels in (("labels", session.labels), ("brain_masks", session.brain)):
        (root / subfolder).mkdir(exist_ok=True)
        image = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
        image.header.set_xyzt_units("mm")
        nib.save(image, root / subfolder / f"{name}.nii.gz")


# --- the plan of a session -----------------------------------------------------------------------------------------


def vendor_of(patient: int) -> Vendor:
    """Whose scanner takes phantom ``patient``."""
    return VENDORS[(patient - 1) % len(VENDORS)]


def make_study(seed: int, patient: int) -> Study:
    """What the headers of phantom ``patient`` say."""
    vendor = vendor_of(patient)
    name, identifier, *texts = secrets(patient)
    return Study(
        seed=(seed, patient),
        patient_name=name,
        patient_id=identifier,
        birth_date=f"2039{1 + patient % 12:02d}{1 + patient % 28:02d}",
        date=f"2099{1 + patient * 7 % 12:02d}{1 + patient * 5 % 28:02d}",
        manufacturer=vendor.manufacturer,
        model=vendor.model,
        institution="Phantom Hospital",
        field_tesla=3.0 if patient % 2 else 1.5,
        secrets=tuple(texts[:3]),
    )


def _poses(rng: np.random.Generator, max_rotation_deg: float, max_shift_mm: float) -> dict[str, Matrix]:
    """Per sequence the head's place: during the t1c near the scanner's middle, during the others moved from there."""
    base = _rigid(Rotation.from_euler("xyz", np.clip(rng.normal(0, 4, 3), -8, 8), degrees=True), BRAIN_CENTRE_MM)
    base[:3, 3] += np.clip(rng.normal(0, 5, 3), -10, 10) - BRAIN_CENTRE_MM
    centre = _place(base, BRAIN_CENTRE_MM)
    poses = {}
    for name in SEQUENCES:
        axis, direction = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
        turn = Rotation.from_rotvec(axis * rng.uniform(0, max_rotation_deg), degrees=True)
        move = _rigid(turn, centre)
        move[:3, 3] += direction * rng.uniform(0, max_shift_mm)
        poses[name] = base if name == "t1c" else move @ base
    return poses


def _rigid(turn: Rotation, centre: Matrix) -> Matrix:
    """The turn about ``centre``."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn.as_matrix()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre
    return matrix


def _place(matrix: Matrix, point: Matrix) -> Matrix:
    moved: Matrix = matrix[:3, :3] @ point + matrix[:3, 3]
    return moved


def _slab(
    rng: np.random.Generator,
    sequence: str,
    variant: tuple[str, Plane],
    thick: bool,
    pose: Matrix,
    spacing_mm: float,
    tilt_deg: Matrix,
) -> Slab:
    """The grid that the operator plans on the head where it lies: 2D stacks tilted, 3D ones straight."""
    kind, plane = variant
    if kind == "3D":
        edge = float(np.round(rng.uniform(0.94, 1.0) * spacing_mm, 3))
        step = float(np.round(spacing_mm, 3))
        return _stack(rng, plane, pose, edge, step, step, np.eye(3))
    edge = float(np.round({"t1n": 0.9, "t2w": 0.5, "t2f": 0.75}[sequence] * spacing_mm, 4))
    thickness = 5.0 if thick else float(np.round(rng.uniform(3, 4.5), 1))
    thickness = min(thickness * spacing_mm, THICKEST_SLICE_MM)
    step = float(np.round(thickness * rng.choice([1.1, 1.2, 1.3]), 3))
    return _stack(
        rng, plane, pose, edge, thickness, step, Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix()
    )


def _stack(
    rng: np.random.Generator,
    plane: Plane,
    pose: Matrix,
    edge: float,
    thickness: float,
    step: float,
    turn: Matrix,
    slices: int | None = None,
) -> Slab:
    """Planes of square voxels of ``edge`` mm, ``step`` mm apart, turned by ``turn``: ``slices``, or over the brain."""
    column, row, normal = (turn @ np.array(axis) for axis in _PLANES[plane])
    if rng.random() < 0.5:
        normal = -normal  # vendors count slices either way
    reach = float(np.linalg.norm((pose[:3, :3].T @ normal) * BRAIN_RADII_MM)) + MARGIN_MM[plane]
    slices = slices or int(np.ceil(2 * reach / step))
    width = 2 * round(FIELD_OF_VIEW_MM[plane] / edge / 2)
    middle = _place(pose, BRAIN_CENTRE_MM if plane == "axial" else np.array(MIDDLE_MM)) + rng.uniform(-3, 3, 3)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([column * edge, row * edge, normal * step], axis=1)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array((width, width, slices)) - 1) / 2)
    return Slab((width, width, slices), affine, thickness)


# --- from the head to the voxels -----------------------------------------------------------------------------------


def _signal(
    rng: np.random.Generator, sequence: str, head: Head, parts: npt.NDArray[np.uint8], enhancement: Floats
) -> Floats:
    """The whole head's signal in one sequence on its grid."""
    brain = brain_signal(rng, SITE, sequence, head.anatomy, parts, enhancement)
    levels = np.array(OUTER_LEVELS[sequence]) * rng.normal(1, 0.03, len(TISSUES))
    levels[TISSUES.index("fluid")] = SITE.levels[sequence][0]
    signal = levels.astype(np.float32)[head.tissues] * head.texture
    fraction = head.anatomy.csf + head.anatomy.grey + head.anatomy.white
    signal[head.box] = signal[head.box] * (1 - fraction) + brain
    return signal


def _scan(
    rng: np.random.Generator, signal: Floats, head: Head, pose: Matrix, slab: Slab, slope: float
) -> npt.NDArray[np.uint16]:
    """Voxels of one sequence: point spread, the slices' profile, bias field, Rician noise, integer scale."""
    edge = head.grid.spacing_mm[0]
    in_plane = float(np.linalg.norm(slab.affine[:3, 0]))
    image = _sample(ndimage.gaussian_filter(signal, max(0.4, 0.42 * in_plane / edge)), head, pose, slab)
    centre = (np.array(slab.shape) - 1) / 2
    axes = [
        ((np.arange(n) - middle) * np.linalg.norm(slab.affine[:3, i])).astype(np.float32)
        for i, (n, middle) in enumerate(zip(slab.shape, centre, strict=True))
    ]
    image *= np.exp(np.float32(SITE.bias) * smooth_field(rng, axes, FIELD_OF_VIEW_MM["axial"] / 2, 90))
    noise = rng.standard_normal((2, *slab.shape), dtype=np.float32) * np.float32(SITE.noise)
    image = np.hypot(image + noise[0], noise[1]) * np.float32(rng.uniform(*SITE.scale) / slope)
    return np.clip(np.rint(image), 0, 4095).astype(np.uint16)


def _sample(signal: Floats, head: Head, pose: Matrix, slab: Slab) -> Floats:
    """``signal`` on the slab's voxels, averaged over the thickness of a slice."""
    to_grid = np.linalg.inv(head.grid.affine) @ np.linalg.inv(pose) @ slab.affine
    samples = max(1, round(slab.thickness_mm / head.grid.spacing_mm[0]))
    step = float(np.linalg.norm(slab.affine[:3, 2]))
    image = np.zeros(slab.shape, np.float32)
    for sample in range(samples):
        offset = ((sample + 0.5) / samples - 0.5) * slab.thickness_mm / step
        start = to_grid[:3, 3] + to_grid[:3, 2] * offset
        image += ndimage.affine_transform(signal, to_grid[:3, :3], start, slab.shape, order=1, output=np.float32)
    return image / np.float32(samples)


def _on_grid(
    head: Head, parts: npt.NDArray[np.uint8], lesions: list[Lesion], t1c: ScannedSequence
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Label map and brain mask on the t1c's voxels: in each voxel the part that takes most of it."""
    brain_grid = head.grid.crop(head.box)
    to_grid = np.linalg.inv(brain_grid.affine) @ np.linalg.inv(t1c.pose) @ t1c.slab.affine
    matrix, start, shape = to_grid[:3, :3], to_grid[:3, 3], t1c.slab.shape

    inside = ndimage.affine_transform(head.anatomy.brain.astype(np.float32), matrix, start, shape, order=1)
    brain = (inside > 0.5).astype(np.uint8)
    near = ndimage.binary_dilation(parts > 0, iterations=2).astype(np.uint8)
    voxels = np.argwhere(ndimage.affine_transform(near, matrix, start, shape, order=0))
    labels = np.zeros(shape, np.uint8)
    places = (voxels @ matrix.T + start).T
    shares = np.stack(
        [ndimage.map_coordinates((parts == part).astype(np.float32), places, order=1) for part in range(5)]
    )
    values = np.array([0, *(SITE.labels[part] for part in sorted(SITE.labels))], np.uint8)
    labels[tuple(voxels.T)] = values[shares.argmax(0)]
    to_voxel = np.linalg.inv(t1c.slab.affine) @ t1c.pose
    for lesion in lesions:  # one smaller than a voxel has the voxel of its centre
        voxel = tuple(np.rint(_place(to_voxel, np.array(lesion.centre_mm))).astype(int))
        if labels[voxel] in (0, SITE.labels[OEDEMA]):
            labels[voxel] = SITE.labels[int(parts[_nearest(head, lesion)])]
    labels[brain == 0] = 0
    return labels, brain


def _nearest(head: Head, lesion: Lesion) -> tuple[int, ...]:
    """The voxel of the brain's grid that holds the lesion's centre."""
    grid = head.grid.crop(head.box)
    place = (np.array(lesion.centre_mm) - grid.origin_mm) / grid.spacing_mm
    return tuple(np.rint(place).astype(int))


def _others(
    rng: np.random.Generator,
    signals: dict[str, Floats],
    head: Head,
    poses: dict[str, Matrix],
    vendor: Vendor,
    t1c: Acquisition,
    patient: int,
    spacing_mm: float,
) -> list[tuple[Acquisition, list[tuple[npt.NDArray[np.uint16], Matrix]]]]:
    """What else a session holds: a localiser, diffusion or its ADC map, and a lesser T1 after contrast."""

    def scan(
        plane: Plane, edge: float, thickness: float, sequence: str, slices: int | None = None
    ) -> tuple[npt.NDArray[np.uint16], Matrix]:
        pose = poses["t1c" if sequence == "t1c" else "t1n"]
        slab = _stack(rng, plane, pose, edge * spacing_mm, thickness, thickness * 1.2, np.eye(3), slices)
        return _scan(rng, signals[sequence], head, pose, slab, 1.0), slab.affine

    return [
        (localiser(vendor), [scan(plane, 2.0, 8.0, "t1n", slices=1) for plane in get_args(Plane)]),
        (diffusion(vendor, patient), [scan("axial", 2.0, 5.0, "t2w" if has_adc(patient) else "t2f")]),
        (second_contrast(vendor, patient, t1c), [scan("axial", 0.9, 5.0, "t1c")]),
    ]
