"""A screened scan's folder, made by hand: every file that ``brainmets screen`` writes, without a model.

The head is a bright shell around an ellipsoid brain; lesions are balls, so that their sizes can be worked out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from brainmets import nifti, provenance
from brainmets.files import write_json
from brainmets.paths import ScreeningPaths
from brainmets.schemas import SCREENED
from brainmets.scoring import probabilities
from brainmets.tables import write as write_table
from brainmets.vocabulary import SEQUENCES

SHAPE, SPACING = (60, 72, 30), (2.5, 2.5, 5.0)
RADII_MM = np.array([62.0, 76.0, 58.0])
"""Half axes of the brain; the shell around it is 8 mm thick."""
THRESHOLD = 0.85
FINDINGS = {
    "warn": {"rule": "spacing", "severity": "warn", "sequence": "t1c", "value": 5.0, "low": 0.9, "high": 1.6,
             "text": "slices are thicker than those of every training case: small lesions may lie between them"},
    "refuse": {"rule": "contrast", "severity": "refuse", "sequence": "t1c", "value": 0.4, "low": 3.1, "high": 9.7,
               "text": "T1 after contrast shows no enhancement: it may be the T1 before contrast"},
}  # fmt: skip
PERFORMANCE = {
    "rows": [
        {"size": "all", "lesions": 90, "found": 81, "sensitivity": 0.9, "low": 0.82, "high": 0.95},
        {"size": "<3 mm", "lesions": 4, "found": 1, "sensitivity": 0.25, "low": 0.01, "high": 0.81},
        {"size": "3-5 mm", "lesions": 16, "found": 11, "sensitivity": 0.6875, "low": 0.41, "high": 0.89},
        {"size": "5-10 mm", "lesions": 40, "found": 39, "sensitivity": 0.975, "low": 0.87, "high": 1.0},
        {"size": ">=10 mm", "lesions": 30, "found": 30, "sensitivity": 1.0, "low": 0.88, "high": 1.0},
    ],
    "false_positives": 0.6, "false_positives_low": 0.2, "false_positives_high": 1.3, "target": 1.0,
    "coverage": 0.95,
}  # fmt: skip


@dataclass(frozen=True)
class Ball:
    """A lesion at a place in mm from the brain's middle (right, front, top), with its score."""

    place: tuple[float, float, float]
    diameter_mm: float
    score: float


def balls(number: int, best: float, worst: float, seed: int = 0) -> list[Ball]:
    """``number`` lesions of 6 to 24 mm within the brain, apart from each other, by falling score."""
    random = np.random.default_rng(seed)
    found: list[Ball] = []
    for diameter, score in zip(
        random.uniform(6, 24 if number < 20 else 14, number), np.linspace(best, worst, number), strict=True
    ):
        while True:
            place = random.uniform(-0.8, 0.8, 3) * RADII_MM
            apart = [math.dist(place, other.place) - (other.diameter_mm + diameter) / 2 for other in found]
            if np.sum((place / RADII_MM) ** 2) < 0.6 and min(apart, default=99) > 8:
                break
        found.append(Ball((float(place[0]), float(place[1]), float(place[2])), float(diameter), float(score)))
    return found


def make_screened(
    folder: Path,
    lesions: int | Sequence[Ball] = 1,
    candidates: int | Sequence[Ball] = 0,
    refused: bool = False,
    oblique: bool = False,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    orientation: str = "RAS",
    **record: Any,
) -> ScreeningPaths:
    """Write a valid ``ScreeningPaths`` folder, its name the case's; ``record`` replaces entries of the record.

    ``lesions`` are accepted, ``candidates`` lie below the point (each a number of them, or the balls). ``refused``: no
    images and no rows. ``oblique`` turns the grid by 18 degrees around R and by 12 around S. ``orientation``: where
    the axes of the files point.
    """
    files = ScreeningPaths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    accepted = balls(lesions, 0.99, 0.87) if isinstance(lesions, int) else list(lesions)
    below = balls(candidates, 0.6, 0.15, seed=1) if isinstance(candidates, int) else list(candidates)
    table = pd.DataFrame(columns=list(SCREENED.columns))
    if not refused:
        table = _write_images(files, accepted, below, oblique, shape, spacing, orientation)
    write_table(files.table, table)
    files.table_json.write_text(json.dumps({"schema": 1, "lesions": table.to_dict("records")}))
    decision = "refuse" if refused else "pass"
    content = {
        "schema": 1, "case": files.case, "date": "2024-05-17", "created": "2024-06-01T09:30:00+00:00",
        "input": {"kind": "prepared", "grid": "prepared", "sequences": {n: f"prepared/{n}.nii.gz" for n in SEQUENCES}},
        "model": {
            "name": "demo segresnet finetune", "sha256": "3f" * 32, "study": "demo", "arm": "segresnet",
            "strategy": "finetune", "folds": [0, 1, 2, 3, 4], "created": "2024-04-30", "licence": "CC BY 4.0",
            "region": "TC", "hit": "one_to_one", "threshold": THRESHOLD, "smallest_mm3": 20.0,
            "false_positives": 1.0, "met": True,
        },
        "guard": {"decision": decision, "cases": 40, "remarks": [FINDINGS["refuse"]] if refused else []},
        "preparation": None, "lesions": 0 if refused else len(accepted), "candidates": 0 if refused else len(below),
        "suspicion": 0.0 if refused else max((ball.score for ball in (*accepted, *below)), default=0.0),
        "performance": PERFORMANCE, "scores": [], "seconds": {"guard": 1.2, "prediction": 30.5},
        "files": {}, "provenance": {"versions": {"brainmets": "1.0.0"}},
    }  # fmt: skip
    content |= record
    content["files"] = {
        str(path.relative_to(folder)): provenance.sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != files.record
    }
    write_json(files.record, content)
    return files


def _write_images(
    files: ScreeningPaths, accepted: Sequence[Ball], below: Sequence[Ball], oblique: bool,
    shape: tuple[int, int, int], spacing: tuple[float, float, float], orientation: str,
) -> pd.DataFrame:  # fmt: skip
    turn = np.eye(3)
    if oblique:
        one, other = np.deg2rad(18), np.deg2rad(12)
        around_r = [[1, 0, 0], [0, np.cos(one), -np.sin(one)], [0, np.sin(one), np.cos(one)]]
        around_s = [[np.cos(other), -np.sin(other), 0], [np.sin(other), np.cos(other), 0], [0, 0, 1]]
        turn = np.array(around_r) @ np.array(around_s)
    affine = nib.affines.from_matvec(turn @ np.diag(spacing), np.zeros(3))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    mm = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    reach = np.sqrt(np.sum((mm / RADII_MM) ** 2, axis=-1))
    outer = np.sqrt(np.sum((mm / (RADII_MM + 8)) ** 2, axis=-1))
    brain, shell = reach < 1, (reach >= 1) & (outer < 1)
    image = np.where(brain, 300 + 60 * np.sin(mm[..., 0] / 9) * np.cos(mm[..., 1] / 11), 0.0) + 900 * shell
    image += np.random.default_rng(0).normal(0, 12, shape) * (brain | shell)
    numbers, labels = np.zeros(shape, np.uint16), np.zeros(shape, np.uint8)
    score = np.zeros(shape, np.float32)
    voxel = float(np.prod(spacing))
    rows = []
    for number, ball in enumerate((*accepted, *below), start=1):
        away = np.linalg.norm(mm - np.array(ball.place), axis=-1)
        mask = (away <= ball.diameter_mm / 2) & (numbers == 0)
        if not mask.any():
            mask = away == away.min()
        image[mask] = 420 + 330 * ball.score
        numbers[mask] = number
        score[mask] = ball.score * np.clip(1.02 - away[mask] / (4 * ball.diameter_mm), 0.8, 1)
        score[away == away.min()] = ball.score
        labels[mask & (ball.score > 0.5)] = 3
        x, y, z = mm[mask].mean(axis=0)
        slices = np.flatnonzero(mask.any(axis=(0, 1)))
        size = int(mask.sum()) * voxel
        measurable = ball.diameter_mm >= 10 and len(slices) > 1
        rows.append({
            "lesion": number, "accepted": number <= len(accepted), "score": ball.score,
            "uncertainty": 1 - ball.score, "volume_mm3": size, "x_mm": x, "y_mm": y, "z_mm": z,
            "side": "middle" if abs(x) < 3 else "right" if x > 0 else "left",
            "longest_mm": ball.diameter_mm, "perpendicular_mm": 0.8 * ball.diameter_mm, "slices": len(slices),
            "slice": int(slices[len(slices) // 2]), "measurable": measurable,
            "why": "" if measurable else "longest diameter below 10 mm" if ball.diameter_mm < 10 else "on one slice",
            "et_mm3": float((labels[mask] == 3).sum() * voxel), "netc_mm3": 0.0, "snfh_mm3": 0.0,
        })  # fmt: skip
    wanted = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )

    def turned(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(nib.apply_orientation(array, wanted))

    place = affine @ nib.orientations.inv_ornt_aff(wanted, shape)
    nifti.write(files.t1c, turned(image.astype(np.float32)), place)
    nifti.write(files.numbers, turned(numbers), place)
    nifti.write(files.labels, turned(labels), place)
    regions = dict.fromkeys(("ET", "TC", "WT"), turned(score))
    probabilities.write(files.probabilities, regions, place, floor=0.01)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.nan_to_num(-(score * np.log2(score) + (1 - score) * np.log2(1 - score)))
    nifti.write(files.uncertainty, turned(entropy.astype(np.float32)), place)
    for name in SEQUENCES:
        nifti.write(files.prepared / f"{name}.nii.gz", turned((image * brain).astype(np.float32)), place)
    nifti.write(files.prepared / "brain_mask.nii.gz", turned(brain.astype(np.uint8)), place)
    return pd.DataFrame(rows, columns=list(SCREENED.columns))
