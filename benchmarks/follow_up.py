"""Does the follow-up find what was planted, and how far do two scans of an unchanged lesion differ?

    OMP_NUM_THREADS=1 python benchmarks/follow_up.py events --pairs 100 --workers 2
    OMP_NUM_THREADS=1 python benchmarks/follow_up.py repeats --pairs 30 --workers 2
    OMP_NUM_THREADS=1 python benchmarks/follow_up.py repeatability --model model.zip --pairs 40 --workers 2
    OMP_NUM_THREADS=1 python benchmarks/follow_up.py registration --pairs 10 --workers 2

``events``: pairs of scanner phantoms with known histories, the truth's label maps as the screened result, the whole
follow-up with its registration. ``repeats``: pairs of scans between which nothing changed; limits of agreement of the
logarithm of the volume (Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8), by size, of the truth's label maps
on another grid. ``repeatability``: the same of what a bundle's model finds in target-site phantoms that were scanned
twice, each time with another noise on a grid shifted by part of a voxel: accepted candidates of the same planted
lesion. ``DECLARED`` of brainmets/screening/repeatability.py is from there.
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
import torch
from scipy import ndimage

from brainmets import nifti
from brainmets.cohorts.cohort import Case
from brainmets.files import write_text
from brainmets.phantoms.histories import KINDS, make_visits
from brainmets.phantoms.lesions import ENHANCING, NECROSIS, NON_ENHANCING
from brainmets.phantoms.sites import SITES, Phantom, make_patient
from brainmets.preparation.grids import image_of
from brainmets.preparation.registration import register
from brainmets.screening import bundle as bundles
from brainmets.screening import followup, screen
from brainmets.vocabulary import NETWORK_REGIONS

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "helpers"))

from followed import bodies_by_number, components, found_events, planted, screened_visits  # noqa: E402

RESULTS = REPOSITORY / "benchmarks" / "results" / "follow_up.md"
SEED = 5
SIZES = (0.0, 500.0, 2000.0, math.inf)
"""Classes of volume in mm3."""
RESCAN_SEED = 61
"""Of the phantoms scanned twice: in no params file, so that no model was trained on them."""
LESIONS = 4
RESAMPLES = 10_000
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


_READY: list[Any] = []
"""Bundle and ensemble of this process, read once."""


def rescans_of(patient: int, spacing_mm: float, model: Path) -> dict[str, Any]:
    """Volumes (mm3) of every planted lesion on two scans of one target-site phantom, as a bundle's model finds it.

    Keys: patient, pairs, shared. A lesion's volume is that of the accepted candidate which shares most voxels with
    its tumour core, on the prepared case's grid; 0 where none shares any. ``shared``: lesions that are left out, for
    their candidate is another planted lesion's as well.
    """
    if not _READY:
        torch.set_num_threads(1)
        bundle = bundles.read(model)
        _READY.extend((bundle, bundle.ensemble(torch.device("cpu"))))
    bundle, ensemble = _READY
    phantoms = [make_patient("target", patient, spacing_mm, RESCAN_SEED, 0, LESIONS, rescan) for rescan in (1, 2)]
    found = [_accepted(phantom, bundle, ensemble) for phantom in phantoms]
    pairs, shared = [], 0
    for one, other in zip(*found, strict=True):
        if one is None or other is None:
            shared += 1
        else:
            pairs.append((one, other))
    return {"patient": patient, "pairs": pairs, "shared": shared}


def _accepted(phantom: Phantom, bundle: Any, ensemble: Any) -> list[float | None]:
    """By planted lesion: the volume of its accepted candidate, 0 without one, None where it shares one."""
    with tempfile.TemporaryDirectory() as folder:
        images = {
            name: nifti.write(Path(folder) / f"{name}.nii.gz", voxels, phantom.affine)
            for name, voxels in phantom.images.items()
        }
        found = ensemble.probabilities(Case("case", "patient", images, None))
    region = bundle.aim.region
    probability = found[NETWORK_REGIONS.index(region)].transpose(2, 1, 0)  # the phantom's axes run along RAS already
    candidates = screen.find({region: np.ascontiguousarray(probability)}, phantom.affine, bundle)
    numbers = np.where(np.isin(candidates.numbers, candidates.accepted), candidates.numbers, 0)
    voxel = abs(float(np.linalg.det(phantom.affine[:3, :3])))
    volumes = np.bincount(numbers.ravel()) * voxel
    scheme = SITES["target"].labels
    core = np.isin(phantom.labels, [scheme[part] for part in (NON_ENHANCING, ENHANCING, NECROSIS)])
    pieces, _ = ndimage.label(core, np.ones((3, 3, 3)))
    taken = []
    for lesion in phantom.lesions:
        middle = np.rint(np.linalg.inv(phantom.affine) @ (*lesion.centre_mm, 1.0))[:3].astype(int)
        here = np.bincount(numbers[pieces == pieces[tuple(middle)]], minlength=1)
        here[0] = 0
        taken.append(int(here.argmax()) if here.any() else 0)
    often = Counter(taken)
    return [0.0 if not one else None if often[one] > 1 else float(volumes[one]) for one in taken]


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


def repeatability_text(rows: list[dict[str, Any]], spacing_mm: float, name: str) -> str:
    pairs = [pair for row in rows for pair in row["pairs"]]
    both, neither = sum(one * other > 0 for one, other in pairs), sum(one + other == 0 for one, other in pairs)
    once, shared = len(pairs) - both - neither, sum(row["shared"] for row in rows)
    lines = [
        f"{len(pairs) + shared} lesions of {len(rows)} target-site phantoms at {spacing_mm:g} mm "
        f"(seed {RESCAN_SEED}), scanned twice: the grid shifted by up to half a voxel along each axis, never turned; "
        f"noise, shading, gain and tissue levels drawn anew. What one model "
        f"finds ({name}), as accepted candidates of prepared cases.",
        "",
        f"Found on both scans: {both}. Found on one only: {once}, {100 * once / max(1, both + once):.0f}% of those "
        f"found at all. On none: {neither}. Left out, for their candidate is another planted lesion's too: {shared}.",
        "",
        "| volume (mm3) | lesions | patients | mean log ratio | SD | factor (95% interval) | 95% limits of agreement "
        "| within |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for low, high in [*pairwise(SIZES), (SIZES[1], math.inf), (0.0, math.inf)]:
        groups = [
            np.array([math.log(other / one) for one, other in row["pairs"]
                      if one * other and low < math.sqrt(one * other) <= high])
            for row in rows
        ]  # fmt: skip
        groups = [group for group in groups if len(group)]
        size = f"above {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
        if not groups:
            lines.append(f"| {size} | 0 | 0 | | | | | |")
            continue
        every = np.concatenate(groups)
        spread = float(np.sqrt((every**2).mean()))  # the two scans have no order, so that the mean is 0 by design
        factor = math.exp(1.96 * spread)
        interval = [math.exp(1.96 * one) for one in _spread_interval(groups)]
        lines.append(
            f"| {size} | {len(every)} | {len(groups)} | {every.mean():+.3f} | {spread:.3f} | {factor:.3f} "
            f"({interval[0]:.2f} to {interval[1]:.2f}) | {100 * (1 / factor - 1):+.0f}% to {100 * (factor - 1):+.0f}% "
            f"| {(abs(every) <= 1.96 * spread).sum()} |"
        )
    lines += [
        "",
        "Above 500 pools two classes, above 0 all. Size: the geometric mean of both volumes. SD: root mean square of "
        "the log ratio, whose mean is 0 by design. Factor: exp(1.96 SD); interval: percentiles of "
        f"{RESAMPLES:,} resamples of patients. Within: pairs within the limits.",
    ]
    return "\n".join(lines)


def _spread_interval(groups: list[Any]) -> list[float]:
    """95% interval of the root mean square, by resampling patients (their differences)."""
    squares, counts = np.array([(one**2).sum() for one in groups]), np.array([len(one) for one in groups])
    drawn = np.random.default_rng(SEED).integers(len(groups), size=(RESAMPLES, len(groups)))
    spreads = np.sqrt(squares[drawn].sum(1) / counts[drawn].sum(1))
    return [float(one) for one in np.percentile(spreads, [2.5, 97.5])]


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
    "events": "Planted events", "repeats": "Repeatability", "repeatability": "Repeatability of a model",
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
    parser.add_argument("part", choices=("events", "repeats", "repeatability", "registration"))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--spacing", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", type=Path, help="of repeatability: a model in one file (brainmets bundle)")
    args = parser.parse_args()
    if (args.part == "repeatability") != (args.model is not None):
        parser.error("--model belongs to repeatability, which needs it")
    work: Callable[..., Any] = {
        "events": events_of, "repeats": repeats_of, "registration": registration_of,
        "repeatability": partial(rescans_of, model=args.model),
    }[args.part]  # fmt: skip
    rows = list(over(partial(work, spacing_mm=args.spacing), args.pairs, args.workers))
    if args.part == "events":
        text = events_text(rows, args.spacing)
    elif args.part == "repeats":
        pairs = [pair for row in rows for pair in row]
        text = repeats_text(pairs, f"the truth's label maps, on scans of {args.spacing:g} mm")
    elif args.part == "repeatability":
        text = repeatability_text(rows, args.spacing, bundles.read(args.model).card["name"])
    else:
        text = registration_text([one for row in rows for one in row], args.spacing)
    write_part(args.part, text)
    print(text)


if __name__ == "__main__":
    main()
