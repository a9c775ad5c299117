"""All prepared cases of a cohort beside each other: their numbers, what is unusual among them, the page to look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from brainmets import nifti, tables
from brainmets.cohorts.cohort import files_of, patient_of
from brainmets.cohorts.rules import FINDING_COLUMNS
from brainmets.figures import save
from brainmets.files import read_json, shaped
from brainmets.params import Cohort
from brainmets.paths import PreparationPaths
from brainmets.preparation import copies, flags, quality_figures, quality_page, series, sorting
from brainmets.preparation.quality import NATIVE, QUALITY_COLUMNS, REFERENCE
from brainmets.vocabulary import SEQUENCES


def review(declaration: Cohort, files: PreparationPaths) -> pd.DataFrame:
    """Judge a cohort's prepared cases together; write ``quality.csv``, ``flags.csv`` and the page ``quality.html``.

    Gives the flags (``flags.FLAG_COLUMNS``): an error of a case that ``raw.accepted`` names is a warning. A cohort
    without a prepared case has none.
    """
    raw = sorting.raw_of(declaration)
    written = [path for path in sorted(files.cases.glob("*/prepared.json")) if path.parent.name not in raw.left_out]
    records = {path.parent.name: _record(path) for path in written}
    rows = [{"case": case, **record["row"]} for case, record in records.items()]
    table = pd.DataFrame(rows, columns=["case", *QUALITY_COLUMNS])
    table[list(QUALITY_COLUMNS)] = table[list(QUALITY_COLUMNS)].astype(float)
    plan = sorting.read_plan(files)
    there = {case: _sequences(record) for case, record in records.items()}
    lacking = _lacking(there, declaration, files)
    found = [flags.flag(table, there), _told_always(records, plan), lacking]
    if records and all(record["provenance"]["parameters"]["space"] == "template" for record in records.values()):
        patterns = {case: copies.pattern(*_images(case, declaration, files, there[case])) for case in records}
        found.append(copies.copies(patterns, {case: patient_of(case, declaration) for case in records}))
    flagged = pd.concat(found, ignore_index=True)
    flagged.loc[flagged.case.isin(raw.accepted), "severity"] = "warning"
    tables.write(files.quality_table, table)
    tables.write(files.flags, flagged)
    pictures = {
        case: quality_page.Pictures(files.case(case) / "picture.png", files.case(case) / "strip.png")
        for case in records
    }
    absent = {case: "not prepared: see its log" for case in plan if case not in records}
    strips = save(quality_figures.cohort_strips(table, flagged), files.folder / "quality.png")
    quality_page.write_page(files.folder, table, flagged, pictures, strips, absent, there)
    return flagged


@shaped
def _record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record["row"], dict) or not isinstance(record["provenance"]["parameters"]["space"], str):
        raise TypeError("row or space is of another kind")
    record["raw_sha256"].items()
    return record


def _told_always(records: Mapping[str, dict[str, Any]], plan: Collection[str]) -> pd.DataFrame:
    """Flags that need no limit: label without an image, a mask from the second choice, a raw scan that is gone."""
    rows = []
    for case, record in records.items():
        voxels, volume = (record["row"].get(name) or 0 for name in ("label_outside_voxels", "label_outside_mL"))
        if voxels:
            text = (
                f"{voxels:.0f} voxel(s) ({volume:.2f} mL) of the label lie outside the brain mask and its margin, "
                "where the images are 0: widen mask_margin_mm, or give a mask of your own"
            )
            rows.append((case, "warning", "label_outside_voxels", voxels, "", text))
        if share := record["label_beyond_grid"]:
            text = (
                f"{100 * share:.3g}% of the label map lies beyond the case's grid and is lost: is it this patient's?"
            )
            rows.append((case, "error", "label_beyond_grid", share, "", text))
        if record["brain_from"] == REFERENCE and NATIVE in _sequences(record):
            text = (
                "The T1 gave no brain, so the mask is from the T1 after contrast, where it may hold vessels and dura"
            )
            rows.append((case, "warning", "brain_from", float("nan"), "", text))
        if case not in plan:
            text = "Its raw scan is gone: delete the case from the cohort's folder, or accept it (raw.accepted)"
            rows.append((case, "error", "raw_scan", float("nan"), "", text))
    return pd.DataFrame(rows, columns=list(flags.FLAG_COLUMNS))


def _sequences(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that a case was prepared from: the record has the hash of each."""
    return tuple(name for name in SEQUENCES if name in record["raw_sha256"])


def _lacking(there: Mapping[str, Collection[str]], declaration: Cohort, files: PreparationPaths) -> pd.DataFrame:
    """A flag for each sequence that a case was prepared without though others of its cohort have it."""
    rows = []
    if declaration.may_lack and there:
        table = series.read(files.series)
        for case, sequences in there.items():
            for name, candidates in series.lacking(table, case, declaration.may_lack).items():
                if name in sequences:  # its raw scan is gone
                    continue
                text = series.lacking_in_words(name, candidates)
                if name == NATIVE:
                    text += "; its brain mask is from the T1 after contrast, where it may hold vessels and dura"
                rows.append(
                    (case, "warning", f"{name}_lacking", float(len(candidates)), "", text[0].upper() + text[1:])
                )
    return pd.DataFrame(rows, columns=list(flags.FLAG_COLUMNS))


def findings(flagged: pd.DataFrame) -> pd.DataFrame:
    """The flags as findings of the audit (``FINDING_COLUMNS``), one per case and text."""
    advice = " (see quality.html; a case that is right all the same is named in raw.accepted)"
    wrong = flagged.severity == "error"
    rule = wrong.map({True: "preparation error", False: "preparation"})
    table = flagged.assign(rule=rule, file="", finding=flagged.text.where(~wrong, flagged.text + advice))
    return table[list(FINDING_COLUMNS)].drop_duplicates(ignore_index=True)


def _images(
    case: str, declaration: Cohort, files: PreparationPaths, sequences: Collection[str]
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[Any], nifti.Affine]:
    paths = files_of(declaration, case)
    mask, grid = nifti.read_volume(files.case(case) / "brain_mask.nii.gz")
    return {sequence: nifti.read_volume(paths[sequence])[0] for sequence in sequences}, mask, grid.affine
