"""The scans of a raw folder, DICOM or volumes or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk

from brainmets.preparation import dicom, volumes
from brainmets.preparation.scans import Finding, Series


def find(folder: Path, progress: Callable[[str], None] | None = None) -> tuple[list[Series], list[Finding]]:
    """Every series below ``folder``, and what else there is to say of it: ``dicom.find_series`` and ``volumes``'.

    That there is no DICOM is no error where there are volumes, nor the other way round. Volumes of a scan that has
    DICOM too are counted after it.
    """
    as_dicom, of_dicom = dicom.find_series(folder, progress)
    as_volumes, of_volumes = volumes.find_series(folder, progress)
    before = Counter((one.patient, one.date) for one in as_dicom)
    found = [*as_dicom, *(replace(one, number=one.number + before[one.patient, one.date]) for one in as_volumes)]
    findings = [
        *(of_dicom if as_dicom else _warnings(of_dicom)),
        *(of_volumes if as_volumes else _warnings(of_volumes)),
    ]
    if not found:
        loose = [finding for finding in of_volumes if "in no patient's folder" in finding.text]
        errors = [finding for finding in of_dicom if finding.severity == "error"]
        findings = [*_warnings([*of_dicom, *of_volumes]), *(loose or errors)]
    return found, list(dict.fromkeys(findings))


def read(series: Series) -> sitk.Image:
    """One series as float32 with axes LPS; raises ``ScanError`` where it is no volume or cannot be read."""
    return dicom.read(series) if series.kind == "dicom" else volumes.read(series)


def _warnings(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "warning"]
