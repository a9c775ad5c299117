"""How much memory does notebook 08 take for one case of the paper's arms? Peak beyond what was held before, by step.

    OMP_NUM_THREADS=1 python benchmarks/review_memory.py 512 432 192 --write

The network is one convolution of a single voxel, so that what is measured are the arrays of the case and not the
network's insides, which do not grow with the case. The case is made in memory; reading its files takes less. Linux
only: the peak is VmHWM of /proc, reset before each step. ``--write`` keeps the table in
benchmarks/results/review_memory.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# freed arrays go back at once, so that the peak is that of the arrays that live together
if os.environ.get("MALLOC_MMAP_THRESHOLD_") is None:
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))
import one_layer

from brainmets.figures import Drawing
from brainmets.review import drawing, explain, viewers
from brainmets.review.case import DRAWN, ReviewCase
from brainmets.training.inference import Ensemble
from brainmets.vocabulary import COMPARED_STRATEGIES, PAPER_ARMS, SEQUENCES

MODEL = ("default", "finetune")
RESULTS = Path(__file__).parent / "results" / "review_memory.md"
FOLDS = [(np.full((3, 4), 0.3 + 0.1 * fold), [-1.0, -1.5, -2.0]) for fold in range(2)]


def held() -> dict[str, int]:
    """Bytes held now (VmRSS) and at most since the last reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}


def peak(step: Callable[[], object], before: int) -> int:
    """The peak of ``step`` in bytes, beyond ``before``."""
    Path("/proc/self/clear_refs").write_text("5")
    step()
    return held()["VmHWM"] - before


def reference(shape: tuple[int, ...]) -> np.ndarray:
    """Three cubes: oedema with a necrotic and enhancing core, and two small enhancing lesions."""
    labels = np.zeros(shape, np.uint8)
    x, y, z = (size // 4 for size in shape)
    labels[x : 2 * x, y : 2 * y, z : 2 * z] = 2
    labels[x + 4 : x + 16, y + 4 : y + 16, z + 4 : z + 12] = 3
    labels[x + 8 : x + 12, y + 8 : y + 12, z + 6 : z + 10] = 1
    labels[3 * x : 3 * x + 4, y : y + 4, z : z + 4] = 3
    labels[3 * x : 3 * x + 3, 3 * y : 3 * y + 3, z : z + 3] = 3
    return labels


def pictures(shape: tuple[int, ...]) -> None:
    """The case's panels and the volumes of its 3D page."""
    labels = reference(shape)
    image = np.linspace(0, 1000, shape[0], dtype=np.float32)[:, None, None]
    images = {sequence: np.broadcast_to(image, shape).copy() for sequence in DRAWN}
    predictions = {
        (arm, strategy): np.roll(labels, 2, axis=0)
        for arm in PAPER_ARMS
        for strategy in ("pretrained", *COMPARED_STRATEGIES)
    }
    case = ReviewCase("P1", images, labels, predictions, np.diag([0.5, 0.5, 1.0, 1.0]))
    with tempfile.TemporaryDirectory() as folder:
        drawing.draw_case(case, ["TC", "WT"], {}, Path(folder))
        viewers.write_volumes(case, Path(folder))


def network_case(shape: tuple[int, ...]) -> tuple[one_layer.NetworkImage, ReviewCase]:
    """The case as the network sees it, nothing cropped, and its reference as the review reads it."""
    labels = reference(shape)
    data = np.zeros((4, *shape[::-1]), np.float32)
    data[:, 2:-2, 8:-8, 8:-8] = 1
    data += 0.5 * labels.T
    spacing = (1.0, 0.5, 0.5)
    image = one_layer.network_image(data, labels.T, spacing)
    return image, ReviewCase("P1", {}, labels, {}, np.diag([0.5, 0.5, 1.0, 1.0]))


def main() -> None:
    """Measure the three steps and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", type=int, nargs=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    shape = tuple(arguments.shape)
    voxels = int(np.prod(shape))
    Drawing(figsize=(1, 1)).subplots()
    small = (96, 96, 64)
    steps: dict[str, int] = {}
    for size in (small, shape):  # the small one first: libraries, fonts and thread pools are then loaded
        patch = [side // 4 for side in size[::-1]]
        ensemble = one_layer.ensemble(FOLDS, patch, spacing=(1.0, 0.5, 0.5))
        ensemble.predictor.tile_step_size = 1.0  # few tiles: the step is not what takes memory
        before = held()["VmRSS"]
        steps["pictures and 3D page"] = peak(lambda size=size: pictures(size), before)
        before = held()["VmRSS"]

        def explained(size: tuple[int, ...] = size, ensemble: Ensemble = ensemble) -> None:
            image, review = network_case(size)
            explain._explain(ensemble, image, SEQUENCES, review, size[2] // 3, MODEL, "brats_2023")

        def occluded(size: tuple[int, ...] = size, ensemble: Ensemble = ensemble) -> None:
            explain.occlude_lesion(ensemble, network_case(size)[0])

        steps["uncertainty and withheld sequences"] = peak(explained, before)
        before = held()["VmRSS"]
        steps["occlusion"] = peak(occluded, before)
    table = ["| step | peak (MiB) | bytes a voxel |", "|---|---|---|"]
    table += [f"| {name} | {size / 2**20:.0f} | {size / voxels:.1f} |" for name, size in steps.items()]
    print("\n".join(table))
    if arguments.write:
        shown = " x ".join(map(str, shape))
        head = f"# Memory of the case review\n\nOne case of {shown} voxels; see benchmarks/review_memory.py.\n\n"
        RESULTS.write_text(head + "\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
