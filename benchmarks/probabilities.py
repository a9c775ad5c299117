"""What do the kept probabilities of a full-size case weigh, and what do they and its candidates cost in time?

    OMP_NUM_THREADS=1 python benchmarks/probabilities.py --write

Cases are made: balls of 1.2 to 14 mm in radius with soft, rough edges, low false blobs, and a faint uncertainty all
over the brain. Seconds are CPU seconds of one process; memory is the most that is held at once beyond what is given.
``--write`` keeps the table in benchmarks/results/probabilities.md.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from brainmets.scoring import probabilities as kept
from brainmets.scoring.candidates import find
from brainmets.scoring.folders import score_folders
from brainmets.vocabulary import REGIONS

SHAPE = (240, 240, 155)
CENTRE, RADIUS_MM = np.array([120.0, 120.0, 78.0]), 68.0
FLOOR, THRESHOLD = 0.02, 0.1
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
RADII_MM = (14, 10, 8, 6, 5, 4, 3, 3, 2.5, 2, 2, 1.5, 1.5, 1.2, 1.2)
CASES = {
    "one lesion": (1, 10, 0.002),
    "15 lesions": (15, 60, 0.004),
    "45 lesions": (45, 120, 0.004),
    "15 lesions, an unsure network": (15, 300, 0.02),
}
"""Name to lesions, false blobs, and the brain's median probability of WT (half of it for ET and TC)."""
RESULTS = Path(__file__).parent / "results" / "probabilities.md"


def make_case(lesions: int, blobs: int, faint: float, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Region to probability (x, y, z), and the reference's labels, in the memory order of a NIfTI file."""
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.normal(size=SHAPE).astype(np.float32), 1.2)
    rough /= rough.std()
    x, y, z = np.ogrid[tuple(slice(side) for side in SHAPE)]

    def distance(centre: np.ndarray) -> np.ndarray:
        squares = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        return np.sqrt(squares).astype(np.float32)

    def place(reach: float) -> np.ndarray:
        direction = rng.normal(size=3)
        return CENTRE + direction / np.linalg.norm(direction) * rng.uniform(10, reach)

    background = np.where(distance(CENTRE) < RADIUS_MM, faint * np.exp(0.9 * rough), 0)
    regions = {region: background * (1 if region == "WT" else 0.5) for region in REGIONS}
    labels = np.zeros(SHAPE, np.uint8)
    spots = [(place(50), RADII_MM[number % len(RADII_MM)], 1.0) for number in range(lesions)]
    spots += [(place(60), rng.uniform(1, 3), rng.uniform(0.05, 0.6)) for _ in range(blobs)]
    for centre, radius, highest in spots:
        away = distance(centre) - radius
        halo = 4.0 if radius > 3 and highest == 1 else 0.0
        for region in REGIONS:
            edge = (away - (halo if region == "WT" else 0) + 0.35 * rough) / (1.2 if region == "WT" else 0.6)
            np.maximum(regions[region], highest / (1 + np.exp(np.clip(edge, -30, 30))), out=regions[region])
        if highest == 1:
            labels[(away < halo) & (labels == 0)] = 2
            labels[away < 0] = 3
            labels[away < -0.6 * radius if radius > 5 else np.zeros(SHAPE, bool)] = 1
    asked = {region: np.asfortranarray(np.clip(values, 0, 1), np.float32) for region, values in regions.items()}
    return asked, np.asfortranarray(labels)


def cost(call: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds, the median of five, and MB held at most (NumPy's arrays)."""
    seconds = []
    for _ in range(5):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return float(np.median(seconds)), peak / 1e6


def row(name: str, folder: Path) -> str:
    """One line of the table."""
    probabilities, labels = make_case(*CASES[name], seed=3)
    above = [probabilities[region] > 0.5 for region in ("ET", "TC", "WT")]
    painted = np.asfortranarray(np.select(above, [3, 1, 2]).astype(np.uint8))
    for side, voxels in (("predictions", painted), ("references", labels)):
        (folder / side).mkdir(parents=True)
        nib.save(nib.Nifti1Image(voxels, AFFINE), folder / side / "P1.nii.gz")
    path = folder / "probabilities" / "P1.nii.gz"
    write, write_mb = cost(lambda: kept.write(path, probabilities, AFFINE, FLOOR))
    share = np.mean([(values >= FLOOR).mean() for values in probabilities.values()])
    detect, detect_mb = cost(lambda: find(kept.read(path)[0], labels, (1.0, 1.0, 1.0), AFFINE, THRESHOLD))
    found = find(kept.read(path)[0], labels, (1.0, 1.0, 1.0), AFFINE, THRESHOLD)
    options = {"arm": "default", "strategy": "finetune"}
    score, _ = cost(lambda: score_folders(folder / "predictions", folder / "references", **options))
    return (
        f"| {name} | {share:.1%} | {len(found.candidates)} | {path.stat().st_size / 1e6:.2f} | {write:.2f} | "
        f"{write_mb:.0f} | {detect:.2f} | {detect_mb:.0f} | {score:.2f} |"
    )


def main() -> None:
    """Measure, print, and with ``--write`` keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULTS.name}")
    write = parser.parse_args().write
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "scipy", "nibabel"))
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, Path(folder) / str(number)) for number, name in enumerate(CASES)]
    text = "\n".join(
        [
            "# Kept probabilities and candidates: size, time, memory",
            "",
            f"Grid {SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]} at 1 mm, three regions, floor {FLOOR:g}, candidates from "
            f"{THRESHOLD:g} on. Python {platform.python_version()}, {versions}. CPU seconds of one process; MB held "
            "at most beyond the arrays that are given (the three probabilities as float32 take 107 MB).",
            "",
            "Repeat with:",
            "",
            "```",
            "OMP_NUM_THREADS=1 python benchmarks/probabilities.py --write",
            "```",
            "",
            "| case | voxels kept, mean of regions | candidates, all regions | file (MB) | write (s) | "
            "write (MB held) | read and find candidates (s) | (MB held) | score the same case (s) |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "The last column is `score_folders` of the same case: what notebook 06 did before, but for the "
            "prediction, which takes many times all of it.",
            "",
        ]
    )
    print(text)
    if write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
