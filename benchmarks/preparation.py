"""How right, how fast and how watchful the preparation of raw scans is, on phantoms whose truth is known.

    .venv/bin/python benchmarks/preparation.py          # 20 full-size patients, 10 planted failures: half an hour
    .venv/bin/python benchmarks/preparation.py --spacing 3 --patients 4

Whole heads in four sequences on four grids, each moved by up to 15 degrees and 20 mm, written as DICOM and prepared as
``brainmets prepare`` does it. Measured: series taken for what they are; the distance between where a lesion comes
to lie and where it should; the brain mask; lesions lost; time and memory of a patient. Ten more patients have a
failure each, which the flags must find. Writes benchmarks/results/preparation.md at full size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
from training import machine

from brainmets import tables
from brainmets.files import read_json, write_text
from brainmets.params import Cohort
from brainmets.paths import PreparationPaths, project_root
from brainmets.phantoms.scanner import make_scanner_cohort
from brainmets.preparation import copies, flags, grids, pipeline, registration, series, sorting, volumes
from brainmets.preparation.scans import ScanError
from brainmets.vocabulary import SEQUENCES

RESULTS = project_root() / "benchmarks" / "results"
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
OTHERS = tuple(name for name in SEQUENCES if name != pipeline.REFERENCE)


# --- planted failures: each changes what was read, or what a registration gives -----------------------------------


def _another_patients_t2(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    return _with(native, t2w=other.images["t2w"])


def _flipped_flair(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    return _with(native, t2f=registration.mirrored(native.images["t2f"]))


def _half_a_head(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    return replace(native, images={name: _cut(image, 0.5) for name, image in native.images.items()})


def _t2_cut_short(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    image = native.images["t2w"]
    kept = list(image.GetSize())
    kept[2] = round(0.7 * kept[2])
    return _with(native, t2w=sitk.RegionOfInterest(image, kept, [0, 0, 0]))


def _mask_too_small(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    assert native.brain_mask is not None
    away = sitk.SignedMaurerDistanceMap(native.brain_mask, True, False, True)
    return replace(native, brain_mask=sitk.Cast(away > 8, sitk.sitkUInt8))


def _mask_shifted(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    return replace(native, brain_mask=_moved(native.brain_mask, 18.0))


def _label_displaced(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    return replace(native, labels=_moved(native.labels, 15.0))


def _t1_upside_down(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    image = sitk.Flip(native.images["t1n"], [False, False, True])
    image.CopyInformation(native.images["t1n"])
    return _with(native, t1n=image)


def _as_it_is(native: pipeline.Native, other: pipeline.Native) -> pipeline.Native:
    return native


def _shift_12_mm(transform: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    return registration.chain(transform, sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.0, 0.0, 0.0, (0.0, 10.0, 7.0)))


def _turn_10_degrees(transform: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    turn = sitk.Euler3DTransform(transform.GetCenter(), np.radians(10), 0.0, 0.0, (0.0, 0.0, 0.0))
    return registration.chain(turn, transform)


Change = Callable[[pipeline.Native, pipeline.Native], pipeline.Native]
PLANTED: dict[str, tuple[Change, Callable[[Any], Any] | None]] = {
    "registration of FLAIR off by 12 mm": (_as_it_is, _shift_12_mm),
    "registration of T2 off by 10 degrees": (_as_it_is, _turn_10_degrees),
    "T2 of another patient": (_another_patients_t2, None),
    "FLAIR flipped left to right": (_flipped_flair, None),
    "half of the head is missing": (_half_a_head, None),
    "T2 covers 70% of the head": (_t2_cut_short, None),
    "brain mask 8 mm too small": (_mask_too_small, None),
    "brain mask shifted by 18 mm": (_mask_shifted, None),
    "label map displaced by 15 mm": (_label_displaced, None),
    "T1 upside down": (_t1_upside_down, None),
}
BROKEN = {"registration of FLAIR off by 12 mm": "t2f", "registration of T2 off by 10 degrees": "t2w"}


def _with(native: pipeline.Native, **images: sitk.Image) -> pipeline.Native:
    return replace(native, images={**native.images, **images})


def _cut(image: sitk.Image, share: float) -> sitk.Image:
    voxels = sitk.GetArrayFromImage(image)
    axis = 2 - int(np.abs(np.reshape(image.GetDirection(), (3, 3))[0]).argmax())
    there = [slice(None)] * 3
    there[axis] = slice(0, round(share * voxels.shape[axis]))
    voxels[tuple(there)] = 0
    cut = sitk.GetImageFromArray(voxels)
    cut.CopyInformation(image)
    return cut


def _moved(image: sitk.Image | None, mm: float) -> sitk.Image:
    assert image is not None
    shift = sitk.TranslationTransform(3, (0.0, mm * 0.6, mm * 0.8))
    return sitk.Resample(image, image, shift, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


# --- one patient -------------------------------------------------------------------------------------------------


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Prepare one patient in a process of its own; gives the numbers of the table, or why there are none."""
    planned, settings, truth, planted = job["planned"], job["settings"], job["truth"], job["planted"]
    began = time.perf_counter()
    try:
        native = pipeline.read(planned)
        if planted:
            change, broken = PLANTED[planted]
            native = change(native, pipeline.read(job["other"]))
            if broken is not None:
                _break_registration(native.images[BROKEN[planted]], broken)
        else:
            native = replace(native, brain_mask=native.brain_mask if job["own_mask"] else None)
        prepared = pipeline.prepare(native, settings, lambda line: None)
    except ScanError as error:
        return {"case": planned.case, "planted": planted, "refused": str(error)}
    found: dict[str, Any] = {"case": planned.case, "planted": planted, "seconds": time.perf_counter() - began}
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["row"] = {"case": planned.case, **prepared.row}
    found["pattern"] = copies.pattern(prepared.images, prepared.mask, prepared.affine)
    if not planted:
        found |= _against_the_truth(prepared, native, truth, job["true_brain"])
    return found


def _break_registration(image: sitk.Image, broken: Callable[[Any], Any]) -> None:
    """From now on, in this process, the registration of ``image`` ends elsewhere."""
    right = registration.register

    def register(fixed: sitk.Image, moving: sitk.Image, *further: Any) -> registration.Registration:
        result = right(fixed, moving, *further)
        return replace(result, transform=broken(result.transform)) if moving is image else result

    registration.register = register


def _against_the_truth(
    prepared: pipeline.Prepared, native: pipeline.Native, truth: dict[str, Any], true_brain: Path
) -> dict[str, Any]:
    errors = []
    for name in OTHERS:
        right = TO_LPS @ np.array(truth["t1c_to"][name]) @ TO_LPS
        for lesion in truth["lesions"]:
            point = (TO_LPS @ [*lesion["centre_mm"], 1])[:3]
            there = prepared.registrations[name].transform.TransformPoint(point.tolist())
            away = float(np.linalg.norm(there - (right @ [*point, 1])[:3]))
            errors.append({"sequence": name, "error_mm": away, "slice_mm": truth["series"][name]["thickness_mm"]})
    before = sitk.GetArrayViewFromImage(native.labels) > 0
    assert prepared.labels is not None
    voxel_ml = abs(np.linalg.det(prepared.affine[:3, :3])) / 1000
    found = {
        "errors": errors,
        "label_beyond_grid": prepared.label_beyond_grid,
        "label_mL_before": np.count_nonzero(before) * float(np.prod(native.labels.GetSpacing())) / 1000,
        "label_mL_after": np.count_nonzero(prepared.labels) * voxel_ml,
        "label_voxels_outside": int(np.count_nonzero((prepared.labels > 0) & (prepared.mask == 0))),
        "brain_from": prepared.brain_from,
    }
    right_brain = volumes.read_labels(true_brain)
    way = prepared.registrations[pipeline.TEMPLATE].transform
    grid = grids.image_of(prepared.brain, prepared.affine)
    there = sitk.GetArrayFromImage(
        sitk.Resample(sitk.Cast(right_brain, sitk.sitkFloat32), grid, way, sitk.sitkLinear, 0.0) >= 0.5
    ).T
    found["mask_dice"] = 2 * np.count_nonzero(there & (prepared.brain > 0)) / (there.sum() + prepared.brain.sum())
    return found


# --- all of them -------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare scanner phantoms and compare with the truth.")
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--planted", type=int, default=len(PLANTED))
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--own-mask", action="store_true", help="take the phantoms' own brain masks")
    parser.add_argument("--raw", type=Path, help="keep the raw phantoms here, or use those that are there")
    parser.add_argument("--rows", type=Path, help="write every patient's row of quality.csv here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="brainmets_preparation_") as folder:
        text = run(given, Path(folder))
    print(text)
    if (given.patients, given.planted, given.spacing) == (20, len(PLANTED), 1.0):
        write_text(RESULTS / "preparation.md", text)


def run(given: argparse.Namespace, folder: Path) -> str:
    raw = given.raw or folder / "raw"
    make_scanner_cohort(raw, given.patients + given.planted, given.spacing, given.seed, progress=print)
    declaration = Cohort(
        folder=str(folder / "cohort"), layout="brats", label_map={}, held_out=0,
        raw={"folder": str(raw), "prefix": "phantom", "labels": "labels/{patient}.nii.gz",
             "brain_masks": "brain_masks/{patient}.nii.gz"},
    )  # fmt: skip
    files = PreparationPaths(folder / "private")
    began = time.perf_counter()
    plan = sorting.sort(declaration, files, print)
    sorting_seconds = time.perf_counter() - began
    truths = read_json(raw / "truth.json")["patients"]
    who = {row.case: row.patient for row in pd.read_csv(files.key, dtype=str).itertuples()}
    table = series.read(files.series)
    right = sum(_series_right(table, case, truths[who[case]]) for case in plan)
    settings = pipeline.Settings("template", (given.spacing,) * 3, 4.0, False, 1)
    cases = sorted(plan)
    names = dict(zip(cases[given.patients :], PLANTED, strict=False))
    jobs = [
        {"planned": plan[case], "other": plan[cases[0]], "settings": settings, "truth": truths[who[case]],
         "planted": names.get(case, ""), "own_mask": given.own_mask,
         "true_brain": raw / "brain_masks" / f"{who[case]}.nii.gz"}
        for case in cases
    ]  # fmt: skip
    began = time.perf_counter()
    found = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, context, max_tasks_per_child=1) as pool:
        for number, one in enumerate(pool.map(measure, jobs), start=1):
            print(
                f"case {number} of {len(jobs)}: {one['planted'] or 'as it is'}, {one.get('seconds', 0):.0f} s",
                flush=True,
            )
            found.append(one)
    whole = time.perf_counter() - began
    return report(given, found, right, len(plan), sorting_seconds, whole)


def _series_right(table: pd.DataFrame, case: str, truth: dict[str, Any]) -> bool:
    """By the description: the series' own number in the scanner is not the number in series.csv."""
    rows = table[(table.case == case) & (table.role != "")].set_index("role").description
    return all(rows[name].strip() == truth["series"][name]["description"].strip() for name in SEQUENCES)


def report(
    given: argparse.Namespace,
    found: list[dict[str, Any]],
    right: int,
    cases: int,
    sorting_seconds: float,
    whole: float,
) -> str:
    done = [one for one in found if "row" in one]
    good = [one for one in done if not one["planted"]]
    errors = pd.DataFrame([error for one in good for error in one["errors"]])
    flagged = pd.concat(
        [
            flags.flag(pd.DataFrame([one["row"] for one in done])),
            copies.copies({one["case"]: one["pattern"] for one in done}),
        ]
    )
    if given.rows:
        table = pd.DataFrame([{**one["row"], "planted": one["planted"]} for one in done])
        tables.write(given.rows, table)
    alarmed = set(flagged.case)
    planted = [one for one in found if one["planted"]]
    caught = [one for one in planted if "refused" in one or one["case"] in alarmed]
    false = [one["case"] for one in good if one["case"] in alarmed]
    dice = np.array([one["mask_dice"] for one in good])
    seconds = np.array([one["seconds"] for one in done])
    lines = ["# Preparation of scanner phantoms", "", machine(), ""]
    lines.append(f"{len(good)} patients as they are, {len(planted)} with a planted failure; {given.spacing} mm:")
    lines.append("")
    lines += ["```", "python benchmarks/preparation.py", "```", "", "| | |", "|---|---|"]
    lines.append(f"| scans whose four series were taken for what they are | {right} of {cases} |")
    for name, part in (
        ("below 2.5 mm", errors[errors.slice_mm < 2.5]),
        ("2.5 mm and more", errors[errors.slice_mm >= 2.5]),
    ):
        if len(part):
            lines.append(
                f"| distance at the lesions, slices {name} | median {part.error_mm.median():.2f} mm, "
                f"worst {part.error_mm.max():.2f} mm, n {len(part)} |"
            )
    for name in OTHERS:
        part = errors[errors.sequence == name]
        lines.append(
            f"| of these {name} | median {part.error_mm.median():.2f} mm, worst {part.error_mm.max():.2f} mm |"
        )
    kind = " and ".join(sorted({one["brain_from"] for one in good}))
    lines.append(f"| Dice of the brain mask ({kind}) | median {np.median(dice):.3f}, lowest {dice.min():.3f} |")
    lost = max(one["label_beyond_grid"] for one in good)
    lines.append(f"| label beyond the case's grid, at most | {100 * lost:.2g}% |")
    lines.append(f"| lesions that keep one voxel | {sum(int(one['row']['lesions_restored']) for one in good)} |")
    lines.append(
        f"| label voxels outside the mask and its margin | {sum(one['label_voxels_outside'] for one in good)} |"
    )
    ratios = [one["label_mL_after"] / one["label_mL_before"] for one in good]
    lines.append(f"| volume of the label map after, as a share | {min(ratios):.3f} to {max(ratios):.3f} |")
    lines.append(f"| planted failures that were flagged | {len(caught)} of {len(planted)} |")
    lines.append(f"| other patients that were flagged | {len(false)} of {len(good)} |")
    at_a_time = f"{given.workers} at a time"
    lines.append(f"| seconds a patient, {at_a_time} | median {np.median(seconds):.0f}, longest {seconds.max():.0f} |")
    lines.append(f"| all {len(found)} patients | {whole / 60:.1f} min, {whole / len(found):.0f} s each |")
    lines.append(f"| sorting of their headers | {sorting_seconds:.0f} s |")
    lines.append(f"| memory of one patient's process | {max(one['peak_mb'] for one in done):,.0f} MB |")
    lines += ["", "| planted | flag |", "|---|---|"]
    for one in planted:
        first = flagged[flagged.case == one["case"]].head(1)
        said = one.get("refused") or (f"{first.severity.iloc[0]}: {first.text.iloc[0]}" if len(first) else "none")
        lines.append(f"| {one['planted']} | {said} |")
    if false:
        lines += ["", "Flags of patients without a failure:", ""]
        lines += [
            f"- {row.case}: {row.severity}, {row.measure} {row.value:.3g} ({row.usual})"
            for row in flagged.itertuples()
            if row.case in false
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
