"""Find the candidates of a folder of probabilities against a folder of references, for notebook 06 and the command."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from brainmets import nifti
from brainmets.parallel import results
from brainmets.scoring import probabilities as kept
from brainmets.scoring.candidates import CaseDetections, Detections, collect, find
from brainmets.scoring.folders import ScoringError, case_files
from brainmets.vocabulary import REGIONS

CLEARLY_MORE = 1.5
"""How much more a part must take than the whole: ET and TC of metastases are often nearly equal."""


class _Job(NamedTuple):
    case: str
    files: Mapping[str, Path]
    """The 3D file of each region, or the 4D file of all of them under the empty name."""
    reference: Path
    label_map: Mapping[int, int] | None
    threshold: float


def detect_folders(
    probabilities: Path,
    references: Path,
    *,
    arm: str,
    strategy: str,
    threshold: float,
    cases: Collection[str] | None = None,
    label_map: Mapping[int, int] | None = None,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Detections:
    """The candidates of every case, in ``workers`` processes that hold one case each.

    ``probabilities`` holds a 4D file per case, ``<case>.nii.gz`` (``probabilities.read``), or a 3D file per case and
    region, ``<case>_ET.nii.gz``, of any of the regions, the same for every case. Both folders must name the same
    cases, or with ``cases`` these, where ``references`` may hold others too. ``label_map`` takes the references'
    values to BraTS values; ``threshold`` and ``progress`` as in ``candidates.find`` and ``folders.score_folders``.

    Raises ``ScoringError`` for folders that do not match, ``ImageError`` for files that are no probabilities or lie on
    another grid than the reference.
    """
    wanted = case_files(references)
    given = _by_case(probabilities)
    problems = []
    if cases is not None:
        if unknown := sorted(set(cases) - wanted.keys()):
            problems.append(f"{references} holds no reference of {', '.join(unknown)}")
        wanted = {case: path for case, path in wanted.items() if case in cases}
    if odd := _oddly_named(given.keys() - wanted.keys(), wanted):
        raise ScoringError(
            f"{probabilities}: {', '.join(odd)} should be named like the others, as CASE_REGION with a region of "
            f"{', '.join(REGIONS)}"
        )
    if stray := sorted(given.keys() - wanted.keys()):
        problems.append(f"probabilities without a reference in {references}: {', '.join(stray)}")
    if absent := sorted(wanted.keys() - given.keys()):
        problems.append(f"references without probabilities in {probabilities}: {', '.join(absent)}")
    if problems:
        raise ScoringError("; ".join(problems))
    jobs = [_Job(case, given[case], wanted[case], label_map, threshold) for case in sorted(wanted)]
    found: dict[str, CaseDetections] = {}
    started = time.monotonic()
    for job, detections in results(_detect, jobs, min(workers, len(jobs))):
        found[job.case] = detections
        if progress is not None:
            progress(f"{len(found)} of {len(jobs)}: {job.case}, {time.monotonic() - started:.1f} s elapsed")
    return collect({job.case: found[job.case] for job in jobs}, arm, strategy)


def order_notes(detections: Detections) -> list[str]:
    """A sentence where a region's candidates are clearly larger than those of the region that it is a part of.

    ET is a part of TC, TC of WT. It is no proof, but what a 4D file with another order of regions looks like, such as
    that of nnU-Net's BraTS plans (WT, TC, ET).
    """
    volumes = detections.candidates.groupby("region")["volume_mm3"].sum()
    there = [region for region in REGIONS if region in volumes.index]
    return [
        f"the candidates of {part}, a part of {whole}, take {volumes[part]:.0f} mm^3, those of {whole} "
        f"{volumes[whole]:.0f}: are the regions in the order {', '.join(REGIONS)}?"
        for part, whole in pairwise(there)
        if volumes[part] > CLEARLY_MORE * volumes[whole]
    ]


def _oddly_named(stray: Collection[str], wanted: Collection[str]) -> list[str]:
    """Of files that are no case's own, those that name no region, where others name a case and a region."""
    of_region = {name for name in stray if (parts := name.rpartition("_"))[0] in wanted and parts[2] in REGIONS}
    return sorted(set(stray) - of_region) if len(of_region) > len(stray) / 2 else []


def _by_case(folder: Path) -> dict[str, dict[str, Path]]:
    files = case_files(folder)
    parts = {name: name.rpartition("_") for name in files}
    if not all(case and region in REGIONS for case, _, region in parts.values()):
        return {name: {"": path} for name, path in files.items()}
    by_case: dict[str, dict[str, Path]] = {}
    for name, (case, _, region) in parts.items():
        by_case.setdefault(case, {})[region] = files[name]
    every = {region for own in by_case.values() for region in own}
    for case, own in by_case.items():
        if lost := sorted(every - own.keys()):
            raise ScoringError(f"{folder} holds no probability of {', '.join(lost)} of {case}, as it does of others")
    return {case: {region: own[region] for region in REGIONS if region in own} for case, own in by_case.items()}


def _detect(job: _Job) -> CaseDetections:
    grid = nifti.read_grid(job.reference)
    reference = nifti.read_labels(job.reference, job.label_map)
    if "" in job.files:
        volumes, own = kept.read(job.files[""])
        own.require_same(grid, "resample the probabilities to the reference first")
    else:
        volumes = {}
        for region, path in job.files.items():
            volumes[region], own = kept.read_region(path, region)
            own.require_same(grid, "resample the probabilities to the reference first")
    return find(volumes, reference, grid.spacing, grid.affine, job.threshold)
