"""How fast is scoring? Against segmentationmetrics, and against the time it takes to decode the two files.

    pip install --no-deps --target /tmp/segmentationmetrics segmentationmetrics==1.1.1
    PYTHONPATH=/tmp/segmentationmetrics OMP_NUM_THREADS=1 python benchmarks/scoring.py --write

Every ratio is taken within one run on the same arrays. Seconds are CPU seconds of one process (all of it runs in one
thread and reads cached files), because wall time on a shared machine says little; where processes are compared with
each other it is wall time.
``--write`` keeps the printed tables in benchmarks/results/scoring.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from brainmets.nifti import read_labels
from brainmets.scoring.case import score_case
from brainmets.scoring.folders import score_folders
from brainmets.scoring.metrics import region_metrics
from brainmets.vocabulary import REGIONS, region_mask

SHAPE = (512, 432, 192)
SPACING = (0.5, 0.5, 1.0)
SAME_METRICS = {
    "dice": "dice",
    "hd95": "hausdorff_distance",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "reference_volume": "true_volume",
    "predicted_volume": "predicted_volume",
}
LESIONS_LEGEND = """CPU seconds. `segmentationmetrics`, `brainmets` and `ratio`: Dice, HD95, sensitivity, specificity,
precision and both volumes on ET, TC and WT, from the same boolean masks (brainmets: full Hausdorff and NSD too).
`decode`: `np.asarray(nibabel.load(path).dataobj)` of both files. `all metrics`: every whole-region metric, lesion-wise
scores and the lesion table of the three regions, from decoded label maps; `with checks`: label checks too.
"""
RESULTS = Path(__file__).parent / "results" / "scoring.md"


def make_case(n_lesions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reference and prediction: rough ellipsoids (oedema, core, necrosis) in a brain-sized part of the grid.

    The first lesion is large, the next five are of any size, further ones small, as in patients with many. The
    prediction moves and resizes each lesion a little, misses one in six and invents one in six.
    """
    rng = np.random.default_rng(seed)
    reference, prediction = (np.zeros(SHAPE, dtype=np.uint8, order="F") for _ in range(2))
    for number in range(n_lesions):
        core = 11.0 if number == 0 else rng.uniform(2.5, 11.0) if number < 6 else rng.uniform(1.2, 4.0)
        centre = np.array([rng.uniform(0.25, 0.75) * n * side for n, side in zip(SHAPE, SPACING, strict=True)])
        radii = core * np.array([0.35, 1.0, 1.0 + rng.uniform(0.3, 0.9)])
        paint(reference, centre, radii, rng)
        if number % 6 == 5:
            centre = np.array([rng.uniform(0.25, 0.75) * n * side for n, side in zip(SHAPE, SPACING, strict=True)])
        paint(prediction, centre + rng.normal(0, 0.4, 3), radii * rng.uniform(0.92, 1.08), rng)
    return reference, prediction


def paint(labels: np.ndarray, centre: np.ndarray, radii: np.ndarray, rng: np.random.Generator) -> None:
    """Draw one lesion: label 2 within the largest radius, 3 within the next, 1 within the smallest (mm)."""
    reach = radii.max() * 1.35
    low = [max(0, int((c - reach) / side)) for c, side in zip(centre, SPACING, strict=True)]
    high = [min(n, int((c + reach) / side) + 1) for c, side, n in zip(centre, SPACING, SHAPE, strict=True)]
    grid = np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij")
    distance = np.sqrt(sum(((g + 0.5) * s - c) ** 2 for g, s, c in zip(grid, SPACING, centre, strict=True)))
    distance *= 1 + 1.5 * ndimage.gaussian_filter(rng.normal(size=distance.shape), 4.0)
    window = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    for value, radius in zip((2, 3, 1), radii[::-1], strict=True):
        window[distance <= radius] = value


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median CPU seconds, and the result."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def against_segmentationmetrics(reference: np.ndarray, prediction: np.ndarray, repeats: int) -> dict[str, float]:
    """Seconds of both on the same boolean masks, and the largest difference of a metric."""
    from segmentationmetrics import SegmentationMetrics

    masks = [(region_mask(reference, region), region_mask(prediction, region)) for region in REGIONS]
    theirs, expected = timed(lambda: [SegmentationMetrics(p, r, SPACING) for r, p in masks], 1)
    ours, values = timed(lambda: [region_metrics(r, p, SPACING) for r, p in masks], repeats)
    apart = max(
        abs(own[metric] - getattr(other, name))
        for own, other in zip(values, expected, strict=True)
        for metric, name in SAME_METRICS.items()
    )
    return {"theirs": theirs, "ours": ours, "difference": apart}


def against_decoding(folder: Path, case: str, repeats: int) -> dict[str, float]:
    """Seconds to decode both files, to read them checked, and to compute every metric under both definitions."""
    paths = [folder / kind / f"{case}.nii.gz" for kind in ("references", "predictions")]
    decode, checked, old, new = [], [], [], []
    for _ in range(repeats):
        decode.append(timed(lambda: [np.asarray(nib.load(path).dataobj) for path in paths], 1)[0])
        seconds, maps = timed(lambda: [read_labels(path, None) for path in paths], 1)
        checked.append(seconds)
        for definition, kept in (("brats_2023", old), ("brats_2026", new)):
            kept.append(timed(lambda d=definition, m=maps: score_case(m[0], m[1], SPACING, np.eye(4), d), 1)[0])
    return {
        "decode": statistics.median(decode),
        "checked": statistics.median(checked),
        "brats_2023": statistics.median(old),
        "brats_2026": statistics.median(new),
    }


def write_case(folder: Path, case: str, maps: tuple[np.ndarray, np.ndarray]) -> None:
    for kind, labels in zip(("references", "predictions"), maps, strict=True):
        (folder / kind).mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(labels, np.diag([*SPACING, 1.0])), folder / kind / f"{case}.nii.gz")


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "scipy", "nibabel"))
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, Python {platform.python_version()}, {versions}"


def by_lesions(numbers: list[int], repeats: int, say: Callable[[str], None]) -> None:
    say("## One case, by number of lesions\n")
    say(LESIONS_LEGEND)
    say(
        "| lesions | segmentationmetrics (s) | brainmets (s) | ratio | largest difference | decode (s) | all metrics, "
        "brats_2023 (s) | / decode | brats_2026 (s) | / decode | with checks, brats_2023 / decode |"
    )
    say("|---|---|---|---|---|---|---|---|---|---|---|")
    for n in numbers:
        maps = make_case(n, seed=n)
        same = against_segmentationmetrics(*maps, repeats)
        with tempfile.TemporaryDirectory() as folder:
            write_case(Path(folder), "case", maps)
            full = against_decoding(Path(folder), "case", repeats)
        decode = full["decode"]
        checks = max(0.0, full["checked"] - decode)
        old, new = full["brats_2023"], full["brats_2026"]
        say(
            f"| {n} | {same['theirs']:.2f} | {same['ours']:.3f} | {same['theirs'] / same['ours']:.0f} | "
            f"{same['difference']:.1e} | {decode:.3f} | {old:.3f} | {old / decode:.2f} | {new:.3f} | "
            f"{new / decode:.2f} | {(old + checks) / decode:.2f} |"
        )


def by_cases(numbers: list[int], workers: int, say: Callable[[str], None]) -> None:
    say("\n## A folder, by number of cases (six lesions each)\n")
    say(
        "segmentationmetrics decodes the same files, takes the same three regions and runs in one process, as it is "
        "used; brainmets runs whole (`score_folders`: checks, all metrics, lesion table). CPU seconds; the last two "
        "columns are wall seconds, since they compare processes. A process takes a second or two to start.\n"
    )
    say(
        f"| cases | segmentationmetrics (s) | brainmets (s) | ratio | brainmets / decode | 1 process, wall (s) | "
        f"{workers} processes, wall (s) |"
    )
    say("|---|---|---|---|---|---|---|")
    from segmentationmetrics import SegmentationMetrics

    theirs = decode = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in range(1, max(numbers) + 1):
            case = f"case_{n}"
            write_case(folder, case, make_case(6, seed=100 + n))
            paths = [folder / kind / f"{case}.nii.gz" for kind in ("references", "predictions")]
            start = time.process_time()
            reference, prediction = (np.asarray(nib.load(path).dataobj) for path in paths)
            decode += time.process_time() - start
            for region in REGIONS:
                SegmentationMetrics(region_mask(prediction, region), region_mask(reference, region), SPACING)
            theirs += time.process_time() - start
            if n in numbers:
                start = time.perf_counter()
                ours, _ = timed(lambda: score(folder, 1), 1)
                middle = time.perf_counter()
                score(folder, workers)
                end = time.perf_counter()
                say(
                    f"| {n} | {theirs:.1f} | {ours:.2f} | {theirs / ours:.0f} | {ours / decode:.2f} | "
                    f"{middle - start:.2f} | {end - middle:.2f} |"
                )
        say("")
        for n in sorted({1, max(numbers)}):
            say(f"Peak memory of one process that scores {n} cases: {peak_memory(folder, n):.0f} MiB.")


def peak_memory(folder: Path, n_cases: int) -> float:
    """MiB that a fresh process needs at most (Linux: VmHWM) for the first ``n_cases`` cases of ``folder``."""
    with tempfile.TemporaryDirectory() as name:
        for kind in ("references", "predictions"):
            (Path(name) / kind).mkdir()
            for path in sorted((folder / kind).iterdir())[:n_cases]:
                (Path(name) / kind / path.name).symlink_to(path)
        code = (
            "import sys; from pathlib import Path; from brainmets.scoring.folders import score_folders\n"
            "f = Path(sys.argv[1])\n"
            "score_folders(f / 'predictions', f / 'references', arm='a', strategy='s')\n"
            "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
        )
        ended = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    return int(ended.stdout) / 1024


def score(folder: Path, workers: int) -> None:
    scores = score_folders(folder / "predictions", folder / "references", arm="a", strategy="s", workers=workers)
    assert len(scores.table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesions", type=int, nargs="+", default=[1, 6, 10, 20, 40])
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--write", action="store_true", help=f"keep the tables in {RESULTS.parent.name}/{RESULTS.name}"
    )
    args = parser.parse_args()
    try:
        metadata.version("segmentationmetrics")
    except metadata.PackageNotFoundError:
        print(
            "segmentationmetrics 1.1.1 is not importable: see the two commands at the top of this file",
            file=sys.stderr,
        )
        return 2
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # segmentationmetrics uses scipy's old names
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    say("# Scoring speed\n")
    say(f"Grid {' x '.join(map(str, SHAPE))} at {' x '.join(map(str, SPACING))} mm. Machine: {machine()}.\n")
    say("Repeat with:\n\n```")
    say("pip install --no-deps --target /tmp/segmentationmetrics segmentationmetrics==1.1.1")
    say("PYTHONPATH=/tmp/segmentationmetrics OMP_NUM_THREADS=1 python benchmarks/scoring.py --write\n```\n")
    by_lesions(args.lesions, args.repeats, say)
    by_cases(args.cases, args.workers, say)
    if args.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
