"""A cohort's prepared cases judged together: flags, what a person accepts, and what the audit is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brainmets.cohorts.rules import FINDING_COLUMNS
from brainmets.files import write_json
from brainmets.params import Cohort, Raw
from brainmets.paths import PreparationPaths
from brainmets.preparation import cohort_quality
from brainmets.preparation.quality import QUALITY_COLUMNS

USUAL = {
    "metric": 1.15, "rotation_deg": 5.0, "translation_mm": 5.0, "spread_mm": 0.2, "mirrored": -0.08, "absent_pct": 0.0,
    "agreement": 0.6, "agreement_share": 1.0, "clear_sd": 60.0, "away_mm": 0.0, "turned": 0.4, "flipped": 0.4,
    "shared_bits": 0.4, "template_agreement": 0.3, "template_clear_sd": 30.0, "template_away_mm": 0.0,
    "template_turned": 0.5, "template_dice": 0.9, "brain_mL": 1500.0, "air_pct": 0.1, "dark_rim_pct": 90.0,
    "label_outside_voxels": 0.0, "label_outside_mL": 0.0, "label_outside_pct": 0.0, "label_fit": 1.0,
    "lesions_restored": 0.0,
}  # fmt: skip


def usual(measure: str) -> float:
    return next(value for name, value in USUAL.items() if measure == name or measure.endswith(f"_{name}"))


@pytest.fixture
def files(tmp_path: Path) -> PreparationPaths:
    files = PreparationPaths(tmp_path / "private")
    for number in (1, 2):
        write_case(files, f"site-0000{number}-000")
    one = {"images": {}, "label": None, "brain_mask": None, "digest": ""}
    write_json(files.plan, {"state": "", "cases": {f"site-0000{number}-000": one for number in (1, 2)}})
    return files


def write_case(
    files: PreparationPaths, case: str, beyond: float = 0.0, brain_from: str = "t1n", **measured: float
) -> None:
    row = {measure: usual(measure) for measure in QUALITY_COLUMNS} | measured
    record: dict[str, Any] = {"row": row, "label_beyond_grid": beyond, "brain_from": brain_from}
    record["provenance"] = {"parameters": {"space": "t1c"}}
    record["raw_sha256"] = dict.fromkeys(("t1n", "t1c", "t2w", "t2f"), "0")
    write_json(files.prepared(case), record)
    for name in ("picture.png", "strip.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(files.case(case) / name)


def declared(**raw: Any) -> Cohort:
    return Cohort(
        folder="cohort", layout="brats", label_map={}, held_out=1, raw=Raw(folder="raw", prefix="site", **raw)
    )


def test_right_cases_have_no_flag_and_all_are_on_the_page(files: PreparationPaths) -> None:
    assert cohort_quality.review(declared(), files).empty
    assert pd.read_csv(files.quality_table).case.tolist() == ["site-00001-000", "site-00002-000"]
    assert pd.read_csv(files.flags).empty
    assert "site-00002-000" in files.quality.read_text()


def test_a_wrong_case_is_an_error_until_a_person_accepts_it(files: PreparationPaths) -> None:
    write_case(files, "site-00002-000", t2w_away_mm=12.0)
    (flag,) = cohort_quality.review(declared(), files).itertuples()
    assert (flag.case, flag.severity, flag.measure) == ("site-00002-000", "error", "t2w_away_mm")
    (flag,) = cohort_quality.review(declared(accepted=["site-00002-000"]), files).itertuples()
    assert flag.severity == "warning"


def test_a_case_that_is_left_out_is_not_judged(files: PreparationPaths) -> None:
    write_case(files, "site-00002-000", t2w_away_mm=12.0)
    assert cohort_quality.review(declared(left_out=["site-00002-000"]), files).empty
    assert pd.read_csv(files.quality_table).case.tolist() == ["site-00001-000"]


def test_any_voxel_of_the_label_without_an_image_is_told(files: PreparationPaths) -> None:
    write_case(files, "site-00001-000", label_outside_voxels=3.0, label_outside_mL=0.003, label_outside_pct=0.01)
    (flag,) = cohort_quality.review(declared(), files).itertuples()
    assert (flag.severity, flag.value) == ("warning", 3)
    assert "3 voxel(s) (0.00 mL) of the label lie outside the brain mask and its margin" in flag.text


def test_a_label_map_that_the_grid_cuts_stops(files: PreparationPaths) -> None:
    write_case(files, "site-00001-000", beyond=0.5)
    (flag,) = cohort_quality.review(declared(), files).itertuples()
    assert (flag.severity, flag.measure) == ("error", "label_beyond_grid")
    assert "50% of the label map" in flag.text


def test_a_brain_from_the_second_choice_is_told(files: PreparationPaths) -> None:
    write_case(files, "site-00001-000", brain_from="t1c")
    (flag,) = cohort_quality.review(declared(), files).itertuples()
    assert (flag.severity, flag.measure) == ("warning", "brain_from")


def test_a_case_whose_raw_scan_is_gone_stops_until_it_is_accepted_or_left_out(files: PreparationPaths) -> None:
    write_case(files, "site-00003-000")
    (flag,) = cohort_quality.review(declared(), files).itertuples()
    assert (flag.case, flag.severity, flag.measure) == ("site-00003-000", "error", "raw_scan")
    assert cohort_quality.review(declared(left_out=["site-00003-000"]), files).empty


def test_findings_are_the_audits_and_say_what_to_do(files: PreparationPaths) -> None:
    write_case(files, "site-00002-000", t2w_away_mm=12.0)
    found = cohort_quality.findings(cohort_quality.review(declared(), files))
    assert tuple(found.columns) == FINDING_COLUMNS
    (finding,) = found.itertuples()
    assert finding.file == ""
    assert "raw.accepted" in finding.finding


def test_without_a_prepared_case_there_is_nothing_to_flag(tmp_path: Path) -> None:
    files = PreparationPaths(tmp_path / "private")
    write_json(files.plan, {"state": "", "cases": {}})
    assert cohort_quality.review(declared(), files).empty
    assert files.quality.is_file()
