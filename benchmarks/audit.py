"""What the audit's rules of plausibility catch, what they say of sound cases, and what they cost.

    BRAINMETS_TEST_DATA=folder OMP_NUM_THREADS=1 python benchmarks/audit.py --write

Sound: 100 phantoms and more, of the seeds and spacings of params/demo.yaml, params/smoke.yaml and params/gpu_demo.yaml
and of two further seeds, and the real cases of CONTRIBUTING.md; every alarm is listed, with the judgement of a person
who looked (``JUDGED``). Faults: each is planted in phantoms of a seed that no limit was set on, and in the real cases.
Seconds are CPU seconds of one process with cached files. ``--write`` keeps the printed tables in
benchmarks/results/audit.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage
from scoring import machine

from brainmets import nifti
from brainmets.cohorts.audit_page import thumbnail
from brainmets.cohorts.plausibility import compare, examine
from brainmets.files import write_text
from brainmets.phantoms.sites import SiteName, case_names, make_patient
from brainmets.vocabulary import LABELS, SEQUENCES

RESULTS = Path(__file__).parent / "results" / "audit.md"
BRATS = {"source": {1: 1, 2: 2, 3: 3}, "target": {1: 2, 2: 1, 3: 3, 4: 1}}
"""The sites' label values in BraTS labels, as params/demo.yaml maps them."""
CLEAN: dict[str, tuple[SiteName, int, float, int]] = {
    "demo source": ("source", 20, 3.0, 1),
    "demo target": ("target", 23, 3.0, 2),
    "smoke source": ("source", 4, 5.0, 1),
    "smoke target": ("target", 5, 5.0, 2),
    "gpu_demo source": ("source", 2, 1.0, 1),
    "gpu_demo target": ("target", 1, 0.63, 2),
    "third seed source": ("source", 16, 3.0, 31),
    "third seed target": ("target", 20, 3.0, 31),
    "fine source": ("source", 4, 2.0, 32),
    "fine target": ("target", 5, 2.0, 32),
}
"""Cohorts of sound phantoms: site, patients, spacing in mm, seed."""
THRESHOLDED = "BraTS-MET-00110-000, label by threshold"
FAULTY = (("source", 12), ("target", 12))
FAULTY_SEED, FAULTY_SPACING = 55, 3.0

JUDGED = {
    ("source, seed 1, patient 15, 3 mm", "label at the border"): "right: the brain reaches the top of this phantom's "
    "field of view, and a lesion is cut off there",
}
"""By case and rule: what a person who looked at the case says of the alarm."""


NOTES = """What these numbers do not say. The two T1 are told apart by enhancing tumour alone: of the real cases one
has a label with it, by a threshold of our own, and two have lesions that do not enhance. A T1 and the FLAIR are alike
where grey and white matter hardly differ, and a swap of the two then passes. An export in 8 bits that uses its 256
levels well passes. Lesions of less than 0.5 mL in all are not sought elsewhere (some of the phantoms), and a label
map of another patient may cover as much by chance. Skull and scalp are a stand-in: a dark shell and a bright one.
Left out because nothing reliable was found in the time: a t1c without contrast where no enhancing tumour is labelled
(vessels differ too much between scanners), other contrast of one cohort than of the other (notebook 02 compares
them after preprocessing), and label maps turned about other axes than those listed.
"""


class Sample(NamedTuple):
    """One case: images by sequence, labels in BraTS labels, their grid."""

    name: str
    images: dict[str, np.ndarray]
    labels: np.ndarray | None
    grid: nifti.Grid

    def but(self, **changed: object) -> Sample:
        return self._replace(**changed)

    def shape(self) -> tuple[int, int, int]:
        return self.grid.shape


Fault = Callable[[Sample, Sample, np.random.Generator], Sample | None]


def phantom(site: SiteName, patient: int, spacing: float, seed: int, timepoint: int = 0) -> Sample:
    made = make_patient(site, patient, spacing, seed, timepoint)
    table = np.zeros(256, np.uint8)
    for value, label in BRATS[site].items():
        table[value] = label
    name = f"{site}, seed {seed}, patient {patient}, {spacing:g} mm" + (f", time {timepoint}" if timepoint else "")
    return Sample(name,
                  dict(made.images), table[made.labels], grid_of(made.labels.shape, made.affine))  # fmt: skip


def grid_of(shape: tuple[int, ...], affine: np.ndarray) -> nifti.Grid:
    x, y, z = (float(side) for side in nib.affines.voxel_sizes(affine))
    return nifti.Grid(Path("case.nii.gz"), (shape[0], shape[1], shape[2]), affine, (x, y, z))


def real(folder: Path) -> list[Sample]:
    """The real cases on one grid: two with lesions of multiple sclerosis (as SNFH), one with metastases, as it
    is without a label, and with one of our own."""
    found = []
    names = {"t1n": "T1", "t1c": "T1POST", "t2w": "T2", "t2f": "FLAIR"}
    for patient in ("patient07", "patient19"):
        here = folder / "data" / "openms" / patient
        read = {name: nifti.read_volume(here / f"{file}.nii.gz") for name, file in names.items()}
        label = nifti.read_labels(here / "GT.nii.gz", {1: LABELS["snfh"]})
        found.append(Sample(patient, {name: voxels for name, (voxels, _) in read.items()}, label, read["t1c"][1]))
    case = "BraTS-MET-00110-000"
    read = {
        name: nifti.read_volume(folder / "data" / "metastasis" / case / f"{case}-{name}.nii.gz") for name in SEQUENCES
    }
    images = {name: voxels for name, (voxels, _) in read.items()}
    grid = read["t1c"][1]
    return [*found, Sample(case, images, None, grid), Sample(THRESHOLDED, images, threshold(images), grid)]


def threshold(images: dict[str, np.ndarray]) -> np.ndarray:
    """The largest piece that took up contrast, as ET: a stand-in for the label that the case comes without.

    t1c less t1n, each over its median, more than half above the head's; away from its edge, where vessels lie.
    """
    head = np.all([image != 0 for image in images.values()], axis=0)
    native, contrast = (images[name] / np.median(images[name][head]) for name in ("t1n", "t1c"))
    bright = (ndimage.gaussian_filter(contrast - native, 0.7) > 0.5) & ndimage.binary_erosion(head, iterations=12)
    pieces, _ = ndimage.label(bright)
    return (pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])).astype(np.uint8) * np.uint8(LABELS["et"])


def real_masks(folder: Path) -> list[Sample]:
    """Label maps whose images are not at hand: references and predictions of two cases with metastases."""
    paths = sorted((folder / "data" / "met_masks").glob("*/*.nii.gz"))
    return [
        Sample(f"{path.parent.name} ({path.name.split('.')[0]})", {}, nifti.read_labels(path), nifti.read_grid(path))
        for path in paths
    ]


# --- planted faults: None where a case cannot have the fault --------------------------------------------------------


def swapped(one: str, other: str) -> Fault:
    def plant(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
        return case.but(images={**case.images, one: case.images[other], other: case.images[one]})

    return plant


def no_contrast(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
    """A second t1n in place of the t1c: the t1n, brighter by a factor, with noise of its own."""
    native = case.images["t1n"].astype(np.float32)
    inside = native != 0
    noise = rng.normal(0, 0.03 * native[inside].std(), int(inside.sum()))
    again = np.zeros_like(native)
    again[inside] = 1.1 * native[inside] + noise
    return case.but(images={**case.images, "t1c": again})


def clipped(percentile: float) -> Fault:
    def plant(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
        flair = case.images["t2f"]
        top = np.percentile(flair[flair != 0], percentile)
        return case.but(images={**case.images, "t2f": np.minimum(flair, top.astype(flair.dtype))})

    return plant


def quantised(levels: int) -> Fault:
    def plant(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
        image = case.images["t2w"].astype(np.float32)
        low, high = min(0.0, float(image.min())), float(image.max())
        coarse = np.rint((image - low) / (high - low) * (levels - 1)) * (high - low) / (levels - 1) + low
        return case.but(images={**case.images, "t2w": np.where(image == 0, 0, coarse).astype(np.float32)})

    return plant


def one_sequence_cut(millimetres: float) -> Fault:
    """The upper part of the head is missing in the t2w, as after a short field of view and resampling."""

    def plant(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
        image = case.images["t2w"].copy()
        heights = np.flatnonzero(image.any(axis=(0, 1)))
        image[:, :, heights[-1] + 1 - round(millimetres / case.grid.spacing[2]) :] = 0
        return case.but(images={**case.images, "t2w": image})

    return plant


def cropped(millimetres: float) -> Fault:
    """The whole case ends below the top of the head."""

    def plant(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
        heights = np.flatnonzero(case.images["t1c"].any(axis=(0, 1)))
        top = heights[-1] + 1 - round(millimetres / case.grid.spacing[2])
        shape = (*case.grid.shape[:2], int(top))
        labels = None if case.labels is None else case.labels[:, :, :top]
        images = {name: image[:, :, :top] for name, image in case.images.items()}
        return Sample(case.name, images, labels, grid_of(shape, case.grid.affine))

    return plant


def voxels_of(factor: float) -> Fault:
    def plant(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
        return case.but(grid=grid_of(case.grid.shape, case.grid.affine @ np.diag([factor] * 3 + [1.0])))

    return plant


def one_with_skull(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
    """Skull and scalp around one sequence alone."""
    whole = with_skull(case, another, rng)
    stripped = {name: np.zeros_like(image) for name, image in whole.images.items()}
    far = [round(40 / side) for side in case.grid.spacing]
    middle = tuple(slice(by, by + size) for by, size in zip(far, case.grid.shape, strict=True))
    for name, image in case.images.items():
        stripped[name][middle] = image
    return whole.but(images={**stripped, "t2f": whole.images["t2f"]})


def with_skull(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
    """A stand-in for skull and scalp: 8 mm of dark bone and 10 mm of bright scalp around the brain, noise beyond."""
    brain = np.any([image != 0 for image in case.images.values()], axis=0)
    reach = [round(40 / side) for side in case.grid.spacing]
    pad = [(far, far) for far in reach]
    brain = np.pad(brain, pad)
    away = ndimage.distance_transform_edt(~brain, sampling=case.grid.spacing)
    images = {}
    for name, image in case.images.items():
        level = float(np.percentile(image[image != 0], 90))
        air = np.abs(rng.normal(0, 0.02 * level, brain.shape)).astype(np.float32)
        padded = np.pad(image.astype(np.float32), pad)
        scalp = (away > 8) & (away <= 18)
        images[name] = np.where(brain, padded, np.where(scalp, 1.1 * level + 3 * air, air)).astype(np.float32)
    labels = None if case.labels is None else np.pad(case.labels, pad)
    return Sample(case.name, images, labels, grid_of(brain.shape, case.grid.affine))


def label_is_brain(case: Sample, another: Sample, rng: np.random.Generator) -> Sample:
    return case.but(labels=(case.images["t1c"] != 0).astype(np.uint8) * np.uint8(LABELS["snfh"]))


def dust(case: Sample, another: Sample, rng: np.random.Generator) -> Sample | None:
    """Forty voxels here and there."""
    if case.labels is None:
        return None
    inside = np.argwhere(case.images["t1c"] != 0)
    labels = case.labels.copy()
    labels[tuple(inside[rng.choice(len(inside), 40, replace=False)].T)] = LABELS["et"]
    return case.but(labels=labels)


def moved(millimetres: float) -> Fault:
    """The label map is shifted along an axis, chosen by chance."""

    def plant(case: Sample, another: Sample, rng: np.random.Generator) -> Sample | None:
        if case.labels is None:
            return None
        axis = int(rng.integers(3))
        by = int(rng.choice([-1, 1])) * max(1, round(millimetres / case.grid.spacing[axis]))
        return case.but(labels=ndimage.shift(case.labels, [by * (one == axis) for one in range(3)], order=0))

    return plant


def turned(*axes: int) -> Fault:
    def plant(case: Sample, another: Sample, rng: np.random.Generator) -> Sample | None:
        return None if case.labels is None else case.but(labels=np.flip(case.labels, axes))

    return plant


def of_another(case: Sample, another: Sample, rng: np.random.Generator) -> Sample | None:
    if case.labels is None or another is case or another.labels.shape != case.labels.shape:
        return None
    return case.but(labels=another.labels)


def at_the_border(case: Sample, another: Sample, rng: np.random.Generator) -> Sample | None:
    """The case is cropped through its highest lesion."""
    if case.labels is None or not case.labels.any():
        return None
    top = int(np.flatnonzero(case.labels.any(axis=(0, 1)))[-1])
    images = {name: image[:, :, : top + 1] for name, image in case.images.items()}
    return Sample(case.name, images, case.labels[:, :, : top + 1],
                  grid_of((*case.grid.shape[:2], top + 1), case.grid.affine))  # fmt: skip


FAULTS: dict[str, tuple[str, Fault]] = {
    "t2w and t2f swapped": ("sequences swapped", swapped("t2w", "t2f")),
    "t1n and t2w swapped": ("sequences swapped", swapped("t1n", "t2w")),
    "t1c and t2w swapped": ("sequences swapped", swapped("t1c", "t2w")),
    "t1n and t2f swapped": ("sequences swapped", swapped("t1n", "t2f")),
    "t1c and t2f swapped": ("sequences swapped", swapped("t1c", "t2f")),
    "t1n and t1c swapped": ("sequences swapped", swapped("t1n", "t1c")),
    "t1c is a second t1n": ("no contrast", no_contrast),
    "t2f cut at its 99th percentile": ("clipped", clipped(99)),
    "t2f cut at its 99.5th percentile": ("clipped", clipped(99.5)),
    "t2w of 32 levels": ("few grey levels", quantised(32)),
    "t2w of 256 levels": ("few grey levels", quantised(256)),
    "t2w lacks the upper 40 mm": ("coverage", one_sequence_cut(40)),
    "t2w lacks the upper 20 mm": ("coverage", one_sequence_cut(20)),
    "t2f alone keeps the skull": ("coverage", one_with_skull),
    "case ends 15 mm below the top": ("head cut off", cropped(15)),
    "case ends 40 mm below the top": ("head cut off", cropped(40)),
    "voxel sides of half their size": ("head volume", voxels_of(0.5)),
    "voxel sides of twice their size": ("head volume", voxels_of(2.0)),
    "label is the brain": ("tumour load", label_is_brain),
    "forty voxels of dust": ("many pieces", dust),
    "cropped through a lesion": ("label at the border", at_the_border),
    "label moved by 80 mm": ("label outside the head", moved(80)),
    "label moved by 20 mm": ("label elsewhere", moved(20)),
    "label moved by 10 mm": ("label elsewhere", moved(10)),
    "label moved by 6 mm": ("label elsewhere", moved(6)),
    "label: left and right exchanged": ("label elsewhere", turned(0)),
    "label: front and back exchanged": ("label elsewhere", turned(1)),
    "label: turned by half a circle": ("label elsewhere", turned(0, 1)),
    "label of another patient": ("label elsewhere", of_another),
}
"""By fault: the rule that should catch it, and what plants it."""


# --- measurements ----------------------------------------------------------------------------------------------------


def sound(folder: Path, say: Callable[[str], None]) -> None:
    """Every alarm on sound cases."""
    say("## Sound cases\n")
    alarms: list[tuple[str, str, str, str]] = []
    tables: dict[str, pd.DataFrame] = {}
    counts: dict[str, int] = {}

    def look(cohort: str, cases: Iterator[Sample]) -> None:
        rows = []
        for case in cases:
            row, remarks = examine(case.images, case.labels, case.grid)
            rows.append({"case": case.name, **row})
            alarms.extend((case.name, one.file, one.rule, one.text) for one in remarks)
        tables[cohort], counts[cohort] = pd.DataFrame(rows), len(rows)

    for cohort, (site, patients, spacing, seed) in CLEAN.items():
        cases = ((patient, time) for _, patient, time in case_names(site, patients))
        look(cohort, (phantom(site, patient, spacing, seed, time) for patient, time in cases))
    phantoms = sum(counts.values())
    look("real", iter(real(folder)))
    look("label maps", iter(real_masks(folder)))
    for name in tables:
        if name not in ("real", "label maps"):
            alarms += [(one.case, "", one.rule, one.text) for one in compare({name: tables[name]})]
    demo = compare({"a": tables["demo source"], "b": tables["demo target"]})
    alarms += [("demo cohorts", "", one.rule, one.text) for one in demo if one.case == "all"]
    say(f"{phantoms} phantoms ({', '.join(f'{name} {counts[name]}' for name in CLEAN)}), {counts['real']} real cases "
        f"and {counts['label maps']} real label maps without images: {len(alarms)} alarm(s).\n")  # fmt: skip
    if alarms:
        say("| case | file | rule | alarm | judged |\n|---|---|---|---|---|")
        for case, file, rule, text in alarms:
            say(f"| {case} | {file} | {rule} | {text} | {JUDGED.get((case, rule), 'not judged')} |")
        say("")


def faults(folder: Path, say: Callable[[str], None]) -> None:
    """What is caught of each planted fault."""
    phantoms = [phantom(site, patient, FAULTY_SPACING, FAULTY_SEED) for site, patients in FAULTY
                for patient in range(1, patients + 1)]  # fmt: skip
    others = [*phantoms[1:], phantoms[0]]
    others[FAULTY[0][1] - 1], others[-1] = phantoms[0], phantoms[FAULTY[0][1]]  # another patient of the same site
    cases = real(folder)
    say("## Planted faults\n")
    say(
        f"Phantoms of seed {FAULTY_SEED} at {FAULTY_SPACING:g} mm, {len(phantoms)} of them, and the real cases; fewer "
        "where a case has no label or cannot have the fault. `caught`: by the rule named; `only otherwise`: by "
        "another rule alone; `unseen`: by none. `besides`: other rules that spoke, with the number of cases.\n"
    )
    say(
        "| fault | rule | phantoms: caught | only otherwise | unseen "
        "| real: caught | only otherwise | unseen | besides |"
    )
    say("|---|---|---|---|---|---|---|---|---|")
    for name, (rule, plant) in FAULTS.items():
        rng = np.random.default_rng(5)
        groups = []
        besides: Counter[str] = Counter()
        for group, partners in ((phantoms, others), (cases, [cases[1], cases[0], *cases[2:]])):
            total, caught, otherwise = 0, 0, 0
            for case, another in zip(group, partners, strict=True):
                if (faulty := plant(case, another, rng)) is None:
                    continue
                total += 1
                rules = {one.rule for one in examine(faulty.images, faulty.labels, faulty.grid)[1]}
                caught += rule in rules
                otherwise += bool(rules) and rule not in rules
                besides.update(rules - {rule})
            groups.append(f"{caught} of {total} | {otherwise} | {total - caught - otherwise}")
        also = ", ".join(f"{other} {count}" for other, count in besides.most_common())
        say(f"| {name} | {rule} | {groups[0]} | {groups[1]} | {also} |")
    say("")
    of_cohorts(phantoms, say)


def of_cohorts(phantoms: list[Sample], say: Callable[[str], None]) -> None:
    """What only the cohort tells."""
    rng = np.random.default_rng(6)
    first, second = phantoms[: FAULTY[0][1]], phantoms[FAULTY[0][1] :]
    skull = [with_skull(case, case, rng) for case in second]
    rows = {name: table(cases) for name, cases in {"first": first, "second": second, "skull": skull}.items()}
    say(NOTES)
    say("| fault of a cohort | rule | said |\n|---|---|---|")
    found = compare({"first": rows["first"], "second": rows["skull"]})
    right = sum(one.rule == "skull in one cohort" for one in found)
    said = f"{right} of 1; {len(found) - right} other alarm(s)"
    say(f"| one cohort of two keeps the skull | skull in one cohort | {said} |")
    caught = 0
    for place in range(len(second)):
        mixed = pd.concat([rows["second"].drop(index=place), rows["skull"].iloc[[place]]])
        caught += any(
            one.rule == "skull in one case" and one.case == second[place].name for one in compare({"a": mixed})
        )
    say(f"| one case of {len(second)} keeps the skull | skull in one case | {caught} of {len(second)} |")
    say("")


def table(cases: list[Sample]) -> pd.DataFrame:
    return pd.DataFrame([{"case": case.name, **examine(case.images, case.labels, case.grid)[0]} for case in cases])


def cost(folder: Path, say: Callable[[str], None], repeats: int) -> None:
    """Seconds of a case against decoding its five files."""
    say("## Cost of a case\n")
    say(
        "CPU seconds, the median of several runs. `decode`: `np.asanyarray(nibabel.load(path).dataobj)` of the five "
        "files (.nii.gz).\n"
    )
    say("| case | voxels | decode (s) | examine (s) | / decode | thumbnail (s) | / decode | thumbnail (kB) |")
    say("|---|---|---|---|---|---|---|---|")
    cases = [phantom("source", 1, 1.0, 1), phantom("target", 1, 0.63, 2), *real(folder)]
    for case in cases:
        decode = statistics.median(decoding(case) for _ in range(repeats))
        looked = statistics.median(timed(lambda c=case: examine(c.images, c.labels, c.grid)) for _ in range(repeats))
        drawn = statistics.median(timed(lambda c=case: thumbnail(c.images, c.labels, c.grid)) for _ in range(repeats))
        size = len(thumbnail(case.images, case.labels, case.grid)) / 1000
        shape = "x".join(map(str, case.grid.shape))
        say(f"| {case.name} | {shape} | {decode:.2f} | {looked:.3f} | {looked / decode:.2f} "
            f"| {drawn:.3f} | {drawn / decode:.2f} | {size:.0f} |")  # fmt: skip
    say("")


def decoding(case: Sample) -> float:
    """Seconds to decode the case's files, written as they would be."""
    with tempfile.TemporaryDirectory() as folder:
        labels = np.zeros(case.grid.shape, np.uint8) if case.labels is None else case.labels
        paths = [nifti.write(Path(folder) / f"{name}.nii.gz", voxels, case.grid.affine)
                 for name, voxels in {**case.images, "label": labels}.items()]  # fmt: skip
        return timed(lambda: [np.asanyarray(nib.load(path).dataobj) for path in paths])


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results/audit.md")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("sound", "faults", "cost"), help="one part alone")
    asked = parser.parse_args()
    if not (data := os.environ.get("BRAINMETS_TEST_DATA")):
        parser.error("BRAINMETS_TEST_DATA names no folder of real data (see CONTRIBUTING.md)")
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    say("# Plausibility: what the audit catches\n")
    say(
        f"Machine: {machine()}. Limits were set on phantoms of seed 11 and the real cases; those of swapped "
        "sequences were widened after a false alarm on one of the sound phantoms below (seed 2).\n"
    )
    say("Repeat with:\n\n```\nBRAINMETS_TEST_DATA=folder OMP_NUM_THREADS=1 python benchmarks/audit.py --write\n```\n")
    folder = Path(data)
    for name, part in (("sound", sound), ("faults", faults)):
        if asked.only in (None, name):
            part(folder, say)
    if asked.only in (None, "cost"):
        cost(folder, say, asked.repeats)
    if asked.write:
        write_text(RESULTS, "\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
