"""One case under the audit: each of its files is opened once, and everything is measured while it is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cc3d
import numpy as np
import numpy.typing as npt

from brainmets import nifti
from brainmets.cohorts import plausibility
from brainmets.cohorts.audit_page import thumbnail
from brainmets.cohorts.background import background
from brainmets.cohorts.cohort import Case
from brainmets.cohorts.fingerprint import Fingerprint, fingerprint
from brainmets.cohorts.matching import CLEAR, Edges, edges, match_each
from brainmets.cohorts.rules import finding, noted
from brainmets.params import Cohort
from brainmets.paths import resolve
from brainmets.vocabulary import REGION_ORDER, SEQUENCES, reference_sequence, region_mask

REGISTER = (
    "register the scans of this patient to each other, onto one grid (resampling by the header alone leaves them "
    "apart where the patient moved)"
)
FOLLOW = (
    "bring it onto the {first}'s grid together with the image that it was drawn on, by the same transform and with "
    "the nearest neighbour"
)
LEAST_SPREAD = 1e-8
"""nnU-Net divides by the standard deviation or by this, whichever is larger."""


class Scan(NamedTuple):
    """One image, by the name of its file below the cohort's folder, and the fingerprint of its content."""

    case: str
    patient: str
    file: str
    content: Fingerprint


@dataclass
class Examination:
    """What was seen of one case: its row of ``audit.CASE_COLUMNS``, ``plausibility.NUMBERS``, findings, images.

    ``picture`` is ``audit_page.thumbnail`` of what lies on the reference sequence's grid; ``scans`` are the images
    that were read; ``on_level`` are those with another value than 0 around the head, and that value.
    """

    row: dict[str, Any]
    folder: Path
    numbers: dict[str, float] = field(default_factory=dict)
    picture: bytes | None = None
    scans: list[Scan] = field(default_factory=list)
    on_level: dict[Path, float] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)

    def named(self, path: Path) -> str:
        """The file's path below the cohort's folder."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else path.name

    def find(self, rule: str, path: Path, **values: Any) -> None:
        """Add a finding about ``path`` in the rule's words."""
        self.findings.append(finding(rule, self.row["case"], self.named(path), **values))

    def note(self, rule: str, path: Path, text: str) -> None:
        """Add a finding about ``path`` whose text was made elsewhere."""
        self.findings.append(noted(rule, self.row["case"], self.named(path), text))

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """A file that cannot be used is a finding about ``path``."""
        try:
            yield
        except nifti.ImageError as error:
            self.note(error.rule, path, error.problem)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            # any other is a disk that fails, which is no fault of a case
            self.find("unreadable", path, why=error.strerror)


def examine(case: Case, declaration: Cohort, sequences: Sequence[str]) -> Examination:
    """Read a case's files, each once, and look at them together. Never raises for what a file holds.

    The other files are compared with the reference sequence, the t1c where there is one. What the case lacks of the
    cohort's ``sequences`` is a finding. A lesion-free case without a label map counts as one whose label map is empty.
    """
    row = {"case": case.case, "patient": case.patient, "sequences": " ".join(case.sequences)}
    one = Examination(row, resolve(declaration.folder))
    _note_absent(one, case, sequences)
    first: nifti.Grid | None = None
    reference = reference_sequence(case.images)
    images: dict[str, npt.NDArray[Any]] = {}
    structure: dict[str, Edges | None] = {}
    scans: dict[str, Scan] = {}
    for sequence in (reference, *(name for name in case.sequences if name != reference)):
        path = case.images[sequence]
        with one.reading(path):
            values, grid = nifti.read_volume(path)
            if sequence == reference:
                first = grid
                _describe_grid(one, grid)
            on_grid = _check_grid(one, grid, first, reference, REGISTER)
            if _check_intensities(one, path, values):
                scans[sequence] = Scan(case.case, case.patient, one.named(path), fingerprint(values, grid.affine))
                if on_grid:
                    images[sequence] = values
                    structure[sequence] = edges(values, grid.affine)
    one.scans = [scans[sequence] for sequence in SEQUENCES if sequence in scans]
    _check_match(one, case, structure)
    labels = None
    if case.label is not None:
        with one.reading(case.label):
            stored, grid = nifti.read_volume(case.label)
            on_grid = _check_grid(one, grid, first, reference, FOLLOW.format(first=reference))
            drawn = nifti.as_labels(stored, case.label, declaration.values)
            _describe_lesions(one, case.label, drawn, grid, case.lesion_free)
            labels = drawn if on_grid else None
    elif first is not None:
        labels = np.zeros(first.shape, np.uint8)
        _describe_lesions(one, case.reference, labels, first, case.lesion_free)
    if first is not None:
        one.numbers, remarks = plausibility.examine(images, labels, first)
        for remark in remarks:
            one.note(remark.rule, case.images.get(remark.file, case.label or case.reference), remark.text)
        one.picture = thumbnail(images, labels, first, sequences) if images else None
    return one


def _note_absent(one: Examination, case: Case, sequences: Sequence[str]) -> None:
    """Note what the case lacks of the cohort's sequences, and which rules say less of it than of the others."""
    if absent := [name for name in sequences if name not in case.images]:
        usual = plausibility.passed_over(sequences)
        rules = [rule for rule in plausibility.passed_over(case.sequences) if rule not in usual]
        text = finding(
            "lacks a sequence", case.case, "", absent=" and no ".join(absent), rules=", ".join(rules) or "none"
        )
        one.findings.append(text)


def _describe_grid(one: Examination, grid: nifti.Grid) -> None:
    one.row["shape"] = "x".join(map(str, grid.shape))
    one.row["spacing_mm"] = "x".join(f"{size:g}" for size in grid.spacing)
    one.row["orientation"] = grid.orientation


def _check_grid(one: Examination, grid: nifti.Grid, first: nifti.Grid | None, name: str, remedy: str) -> bool:
    """Note another grid than that of ``name``, the reference sequence, if that could be read.

    Gives whether the two are known to be one.
    """
    if not grid.oriented:
        one.find("no orientation", grid.path)
    if first is None or grid.same(first):
        return first is not None
    if grid.shape != first.shape:
        one.find("other shape", grid.path, shape=grid.shape, first=name, reference=first.shape, remedy=remedy)
    elif grid.to_ras().same(first.to_ras()):
        one.find("other axes", grid.path, axes=grid.orientation, first=name, reference=first.orientation)
    else:
        one.find(
            "other place", grid.path, affine=np.round(grid.affine, 3).tolist(), first=name,
            reference=np.round(first.affine, 3).tolist(), apart=f"{grid.distance_mm(first):.3g}", remedy=remedy,
        )  # fmt: skip
    return False


def _check_match(one: Examination, case: Case, structure: Mapping[str, Edges | None]) -> None:
    """Note what shows the head in another place than the reference sequence does, on the same grid."""
    shown = {sequence: one for sequence, one in structure.items() if one is not None}
    first = reference_sequence(case.images)
    reference = shown.pop(first, None)
    if reference is None:
        return
    for sequence, found in zip(shown, match_each(reference, list(shown.values())), strict=True):
        path = case.images[sequence]
        if found.clear < CLEAR:
            one.find("no common anatomy", path, first=first)
        elif found.distance_mm:
            one.find("not registered", path, first=first, away=f"{found.distance_mm:.0f}")


def _check_intensities(one: Examination, path: Path, values: npt.NDArray[Any]) -> bool:
    """Note what is wrong with the values; gives whether they show anything."""
    whole = values.dtype.kind in "iu"
    low, high = values.min(), values.max()
    if not whole and not np.isfinite([low, high]).all():  # NaN is the least where there is one
        one.find("not finite", path, count=np.count_nonzero(~np.isfinite(values)))
        return False
    if low == high:
        one.find("constant image", path, value=low)
        return False
    if not _fits_by_far(low, high, values.size):
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            single = values.astype(np.float32)
            same = np.isfinite(single).all() and single.min() == single.max()
            spread = 0.0 if same else single.std()  # as nnU-Net takes it, its overflow included
        if not np.isfinite(spread):
            one.find("beyond float32", path, value=f"{max(low, high, key=abs):.3g}")
            return False
        if spread < LEAST_SPREAD:
            one.find("no contrast in float32", path, low=f"{low:.6g}", high=f"{high:.6g}", spread=f"{spread:.2g}")
            return False
    if level := background(values):
        one.on_level[path] = level
        one.find("background", path, level=f"{level:g}")
    return True


def _fits_by_far(low: Any, high: Any, count: int) -> bool:
    """Whether values in this range surely have a deviation in float32: one is at least range / sqrt(2 count)."""
    largest, reach = max(abs(float(low)), abs(float(high))), float(high) - float(low)
    return largest < 1e12 and reach > 1e-3 * largest and reach / (2 * count) ** 0.5 > 10 * LEAST_SPREAD


def _describe_lesions(
    one: Examination, path: Path, labels: npt.NDArray[np.uint8], grid: nifti.Grid, lesion_free: bool
) -> None:
    """What the label map holds, and whether that is what the cohort declares; ``path`` is the findings' file."""
    drawn = labels[nifti.around(nifti.labelled(labels))]
    for region in REGION_ORDER:
        one.row[f"{region}_mL"] = np.count_nonzero(region_mask(drawn, region)) * grid.voxel_mm3 / 1000
    components = cc3d.connected_components(region_mask(drawn, "WT"), connectivity=26)
    sizes = np.bincount(components.ravel("K"))[1:] * grid.voxel_mm3
    one.row["lesions"] = len(sizes)
    one.row["smallest_lesion_mm3"] = float(sizes.min()) if len(sizes) else float("nan")
    if lesion_free and len(sizes):
        one.find("lesion in a lesion-free case", path, count=len(sizes), volume=f"{sizes.sum() / 1000:.3g}")
    elif not lesion_free and not len(sizes):
        one.find("no lesion", path)
