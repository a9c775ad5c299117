"""Does the follow-up find what was planted, and how far do two scans of an unchanged lesion differ?

    OMP_NUM_THREADS=1 python benchmarks/follow_up.py events --pairs 100 --workers 2
    OMP_NUM_THREADS=1 python benchmarks/follow_up.py repeats --pairs 30 --workers 2
    OMP_NUM_THREADS=1 python benchmarks/follow_up.py registration --pairs 10 --workers 2

``events``: pairs of scanner phantoms with known histories, the truth's label maps as the screened result, the whole
follow-up with its registration. ``repeats``: pairs of scans between which nothing changed; limits of agreement of the
logarithm of the volume (Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8), by size; of the truth's label maps
on another grid, or with ``--checkpoints`` of what these models together find in the scans, which are laid onto the
template as the truth says. Their probability is brought onto the t1c's grid and painted above 0.5, as screening does.
``registration``: scans of one patient and of two. Each writes its part of benchmarks/results/follow_up.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from brainmets import nifti
from brainmets.cohorts.cohort import Case
from brainmets.files import write_text
from brainmets.phantoms.histories import KINDS, make_visits
from brainmets.preparation import brain
from brainmets.preparation.grids import image_of, resampled, template_grid
from brainmets.preparation.pipeline import along_ras
from brainmets.preparation.registration import register
from brainmets.screening import followup
from brainmets.vocabulary import NETWORK_REGIONS

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "helpers"))

from followed import bodies_by_number, components, found_events, planted, screened_visits  # noqa: E402

RESULTS = REPOSITORY / "benchmarks" / "results" / "follow_up.md"
SEED = 5
SIZES = (0.0, 500.0, 2000.0, math.inf)
"""Classes of volume in mm3."""
LEAST = 5
"""Lesions of a class for which limits are given."""


def events_of(patient: int, spacing_mm: float) -> dict[str, Any]:
    """One pair: what was planted, and what was found."""
    visits = make_visits(patient, 2, spacing_mm, SEED)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folders = screened_visits(Path(folder), visits)
        found = followup.run(folders, Path(folder) / "out")
        seconds = time.monotonic() - started
    wanted, got = planted(visits), found_events(found, visits)
    laid = found.visits[1].laid
    assert laid is not None
    return {
        "patient": patient, "kinds": [one.kind for one in visits.histories], "planted": sorted(wanted, key=str),
        "missed": sorted(wanted - got, key=str), "invented": sorted(got - wanted, key=str), "seconds": seconds,
        "spread_mm": laid.spread_mm,
    }  # fmt: skip


def repeats_of(patient: int, spacing_mm: float) -> list[tuple[float, float]]:
    """Volumes of every lesion (mm3) on two scans between which nothing changed, by the truth's label maps."""
    visits = make_visits(patient, 2, spacing_mm, SEED, kinds=("stable",) * 5)
    volumes = []
    for place, session in enumerate(visits.sessions):
        numbers = components(session)
        voxel = abs(float(np.linalg.det(session.sequences["t1c"].slab.affine[:3, :3])))
        sizes = np.bincount(numbers.ravel()) * voxel
        held = bodies_by_number(visits, place, numbers)
        volumes.append({body: float(sizes[number]) for number, bodies in held.items() for body in bodies})
    return [(volumes[0][body], volumes[1][body]) for body in sorted(volumes[0])]


_FOLDS: list[Any] = []
"""The ensemble of this process, read once."""


def predicted_repeats_of(patient: int, spacing_mm: float, checkpoints: list[Path]) -> list[tuple[float, float]]:
    """Volumes of every lesion (mm3) on two such scans, as the models find it; 0 where they do not."""
    import torch

    from brainmets.training.inference import Ensemble

    if not _FOLDS:
        torch.set_num_threads(1)
        _FOLDS.append(Ensemble.load(checkpoints, torch.device("cpu"), 0.75, False))
    visits = make_visits(patient, 2, spacing_mm, SEED, kinds=("stable",) * 5)
    volumes = []
    for place, session in enumerate(visits.sessions):
        numbers = _predicted(_FOLDS[0], session, spacing_mm)
        voxel = abs(float(np.linalg.det(session.sequences["t1c"].slab.affine[:3, :3])))
        sizes = np.bincount(numbers.ravel()) * voxel
        t1c = session.sequences["t1c"]
        to_voxel = np.linalg.inv(t1c.slab.affine) @ t1c.pose
        held = {}
        for body, lesion in visits.bodies(place).items():
            middle = np.rint(to_voxel[:3, :3] @ np.array(lesion.centre_mm) + to_voxel[:3, 3]).astype(int)
            near = numbers[tuple(slice(max(0, i - 1), i + 2) for i in middle)]
            number = int(np.bincount(near[near > 0]).argmax()) if near.any() else 0
            held[body] = float(sizes[number]) if number else 0.0
        volumes.append(held)
    return [(volumes[0][body], volumes[1][body]) for body in sorted(volumes[0])]


def _predicted(ensemble: Any, session: Any, spacing_mm: float) -> np.ndarray:
    """The tumour core's components as the models find it, on the t1c's grid."""
    grid = template_grid((spacing_mm,) * 3)
    t1c = session.sequences["t1c"]
    drawn, way = image_of(session.brain, t1c.slab.affine), _from_head(t1c.pose)
    mask = brain.widened(sitk.Resample(drawn, grid, way, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8), 4.0)
    with tempfile.TemporaryDirectory() as folder:
        images = {}
        for name, one in session.sequences.items():
            image = image_of(one.voxels.astype(np.float32), one.slab.affine)
            voxels, affine = along_ras(sitk.Mask(resampled(image, grid, _from_head(one.pose)), mask))
            images[name] = nifti.write(Path(folder) / f"{name}.nii.gz", voxels, affine)
        found = ensemble.probabilities(Case("case", "patient", images, None))
    core = image_of(np.ascontiguousarray(found[NETWORK_REGIONS.index("TC")].transpose(2, 1, 0)), affine)
    there = sitk.Resample(core, drawn, way.GetInverse(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    numbers, _ = ndimage.label(sitk.GetArrayFromImage(there).T > 0.5, np.ones((3, 3, 3)))
    return np.asarray(numbers)


def _from_head(pose: np.ndarray) -> Any:
    """Points of the head's own coordinates, which are near the template's, to the scanner's (ITK's LPS mm)."""
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix = turn @ pose @ turn
    move = sitk.AffineTransform(3)
    move.SetMatrix(matrix[:3, :3].ravel().tolist())
    move.SetTranslation(matrix[:3, 3].tolist())
    return move


def registration_of(patient: int, spacing_mm: float) -> list[tuple[str, float, float, float, float]]:
    """Of the same patient's second scan and of another's: name, spread (mm), mirrored, detail, overlap."""
    visits = make_visits(patient, 2, spacing_mm, SEED)
    other = make_visits(patient + 500, 2, spacing_mm, SEED)
    fixed, mask = _brain(visits.sessions[0])
    rows = []
    for name, session in (("one patient", visits.sessions[1]), ("two patients", other.sessions[1])):
        moving, its_mask = _brain(session)
        found = register(fixed, moving, followup.SEED, mask)
        detail, overlap = followup.likeness(fixed, mask, moving, its_mask, found.transform)
        rows.append((name, found.spread_mm, found.mirrored, detail, overlap))
    return rows


def _brain(session: Any) -> tuple[Any, Any]:
    t1c = session.sequences["t1c"]
    brain = (t1c.voxels * (session.brain > 0)).astype(np.float32)
    return image_of(brain, t1c.slab.affine), image_of(session.brain, t1c.slab.affine)


def limits(pairs: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """By class of size: lesions, standard deviation of the differences of the logarithms, and the factor it allows."""
    rows = []
    for low, high in pairwise(SIZES):
        here = [(one, other) for one, other in pairs if one * other and low < math.sqrt(one * other) <= high]
        differences = np.array([math.log(other / one) for one, other in here])
        spread = float(np.sqrt((differences**2).mean())) if len(here) > 1 else math.nan  # the mean is 0 by design
        rows.append({"low": low, "high": high, "n": len(here), "sd": spread, "factor": math.exp(1.96 * spread)})
    return rows


# --- texts -----------------------------------------------------------------------------------------------------------


def events_text(rows: list[dict[str, Any]], spacing_mm: float) -> str:
    kinds = Counter(event[0] for row in rows for event in row["planted"])
    histories = Counter(kind for row in rows for kind in row["kinds"])
    missed = Counter(event[0] for row in rows for event in row["missed"])
    wrong = [row for row in rows if row["missed"] or row["invented"]]
    lines = [
        f"{len(rows)} pairs of scanner phantoms at {spacing_mm:g} mm, the truth's label maps as the screened result: "
        f"in {len(rows) - len(wrong)} every planted event was found and none was invented.",
        "",
        "| history | planted | missed |",
        "|---|---|---|",
    ]
    for kind in KINDS:
        planted_here = kinds[kind] or histories[kind]
        lines.append(f"| {kind} | {planted_here} | {missed[kind]} |")
    seconds, spread = np.median([row["seconds"] for row in rows]), max(row["spread_mm"] for row in rows)
    lines += ["", f"Median {seconds:.0f} s a pair; registrations either way differ by {spread:.2f} mm at most."]
    lines += [f"Patient {row['patient']}: missed {row['missed']}, invented {row['invented']}." for row in wrong]
    return "\n".join(lines)


def repeats_text(pairs: list[tuple[float, float]], what: str) -> str:
    lost = sum(not one * other for one, other in pairs)
    lines = [
        f"{len(pairs)} lesions scanned twice, nothing changed between; {what}. Not found on one date or both: {lost}; "
        f"they are in no row. Classes of fewer than {LEAST} lesions are left out.",
        "",
        "| volume (mm3) | lesions | SD of the log ratio | 95% limits of agreement |",
        "|---|---|---|---|",
    ]
    for row in limits(pairs):
        if row["n"] < LEAST:
            continue
        size = f"above {row['low']:g}" if math.isinf(row["high"]) else f"{row['low']:g} to {row['high']:g}"
        lines.append(
            f"| {size} | {row['n']} | {row['sd']:.3f} | {100 * (1 / row['factor'] - 1):+.0f}% to "
            f"{100 * (row['factor'] - 1):+.0f}% |"
        )
    return "\n".join(lines)


def registration_text(rows: list[tuple[str, float, float, float, float]], spacing_mm: float) -> str:
    lines = [
        f"Scans of one phantom and of two, at {spacing_mm:g} mm, as range over {len(rows) // 2} pairs each:",
        "",
        "| scans of | laid either way (mm) | fit mirrored, less fit | correlation of detail | Dice of the brains |",
        "|---|---|---|---|---|",
    ]
    for name in ("one patient", "two patients"):
        values = np.array([row[1:] for row in rows if row[0] == name])
        shown = [f"{low:.2f} to {high:.2f}" for low, high in zip(values.min(0), values.max(0), strict=True)]
        shown[1] = f"{values[:, 1].min():.3f} to {values[:, 1].max():.3f}"
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


PARTS = {
    "events": "Planted events", "repeats": "Repeatability", "predicted": "Repeatability of a model",
    "registration": "Registration",
}  # fmt: skip


def write_part(name: str, text: str) -> None:
    """Put a part into the results, the others as they are."""
    held = dict.fromkeys(PARTS, "")
    if RESULTS.is_file():
        for part, title in PARTS.items():
            _, _, rest = RESULTS.read_text(encoding="utf-8").partition(f"## {title}\n\n")
            held[part] = rest.partition("\n## ")[0].strip()
    held[name] = text
    parts = [f"## {title}\n\n{held[part]}" for part, title in PARTS.items() if held[part]]
    write_text(RESULTS, "\n\n".join(["# Follow-up", "Written by benchmarks/follow_up.py.", *parts]) + "\n")


def over(work: Callable[[int], Any], pairs: int, workers: int) -> Iterator[Any]:
    with ProcessPoolExecutor(workers) as pool:
        for number, one in enumerate(pool.map(work, range(1, pairs + 1)), 1):
            print(f"{number} of {pairs}: {one}", flush=True)
            yield one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("events", "repeats", "registration"))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--spacing", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, nargs="+", help="of repeats: the folds' checkpoint_final.pth")
    args = parser.parse_args()
    work = {"events": events_of, "repeats": repeats_of, "registration": registration_of}[args.part]
    if args.checkpoints:
        work = partial(predicted_repeats_of, checkpoints=args.checkpoints)
    rows = list(over(partial(work, spacing_mm=args.spacing), args.pairs, args.workers))
    if args.part == "events":
        text = events_text(rows, args.spacing)
    elif args.part == "repeats":
        pairs = [pair for row in rows for pair in row]
        whose = f"what {len(args.checkpoints)} models find" if args.checkpoints else "the truth's label maps"
        text = repeats_text(pairs, f"{whose}, on scans of {args.spacing:g} mm")
    else:
        text = registration_text([one for row in rows for one in row], args.spacing)
    write_part("predicted" if args.checkpoints else args.part, text)
    print(text)


if __name__ == "__main__":
    main()
