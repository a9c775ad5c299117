"""What becomes of candidates: numbers, the operating point, and what the record says of it."""

import math
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from screened import make_screened

from brainmets.cohorts.cohort import Case
from brainmets.params import Raw
from brainmets.paths import ScreeningPaths
from brainmets.preparation.pipeline import Settings
from brainmets.screening import dicom_seg, onto_source, scans, screen
from brainmets.screening.reads import ALL_FOUR
from brainmets.screening.scans import Options, Outcome, ScreeningError, find_scans
from brainmets.screening.screen import find
from brainmets.screening.source import Inputs
from brainmets.statistics.operating_point import Aim, Point

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SETTINGS = Settings("template", (3.0, 3.0, 3.0), 4.0, False, 1)
SHAPE = (24, 24, 24)


def model(threshold: float = 0.5, smallest_mm3: float = 0.0, candidate_threshold: float = 0.1) -> Any:
    point = Point("default", "finetune", threshold, smallest_mm3, 5, 9, 8, 3, True)
    return SimpleNamespace(
        preparation=SETTINGS, reads=ALL_FOUR,
        aim=Aim("TC", "one_to_one", 1.0), point=point, candidate_threshold=candidate_threshold,
        sha256="ab" * 32,
        card={
            "name": "demo", "study": "demo", "arm": "default", "strategy": "finetune", "folds": [0], "created": "x",
            "licence": "CC0", "interval": 0.9,
        },
        performance=pd.DataFrame(
            [
                {"size": "3-5 mm", "lesions": 4, "found": 3, "sensitivity": 0.75, "low": 0.2, "high": np.nan,
                 "false_positives": np.nan, "false_positives_low": np.nan, "false_positives_high": np.nan},
                {"size": "all", "lesions": 9, "found": 8, "sensitivity": 0.9, "low": 0.5, "high": 1.0,
                 "false_positives": 0.6, "false_positives_low": 0.1, "false_positives_high": math.inf},
            ]
        ),
    )  # fmt: skip


def probabilities() -> dict[str, np.ndarray]:
    """Four candidates: 0.9 of one voxel, 0.8 of eight, 0.6 of eight, 0.3 of eight (2 mm^3 a voxel)."""
    tc = np.zeros(SHAPE, np.float32)
    tc[2, 2, 2] = 0.9
    for start, value in ((6, 0.8), (11, 0.6), (16, 0.3)):
        tc[start : start + 2, start : start + 2, start : start + 2] = value
    return {"ET": tc * 0, "TC": tc, "WT": tc}


def test_accepted_ones_come_first_each_group_by_falling_score():
    """The surest candidate is smaller than the operating point takes: it goes behind the accepted ones."""
    found = find(probabilities(), AFFINE, model(threshold=0.5, smallest_mm3=16.0))
    assert found.accepted == (1, 2)
    assert [round(found.scores[number], 1) for number in (1, 2, 3, 4)] == [0.8, 0.6, 0.9, 0.3]
    places = {number: tuple(np.argwhere(found.numbers == number)[0]) for number in (1, 2, 3, 4)}
    assert places == {1: (6, 6, 6), 2: (11, 11, 11), 3: (2, 2, 2), 4: (16, 16, 16)}
    assert np.bincount(found.numbers.ravel())[1:].tolist() == [8, 8, 1, 8]


def test_score_and_volume_of_the_point_itself_are_enough():
    assert find(probabilities(), AFFINE, model(threshold=float(np.float32(0.6)), smallest_mm3=16.0)).accepted == (1, 2)
    assert find(probabilities(), AFFINE, model(threshold=0.61, smallest_mm3=16.0)).accepted == (1,)
    assert find(probabilities(), AFFINE, model(threshold=0.5, smallest_mm3=16.1)).accepted == ()


def test_nothing_found():
    nothing = {region: np.zeros(SHAPE, np.float32) for region in ("ET", "TC", "WT")}
    found = find(nothing, AFFINE, model())
    assert found.scores == {} and found.accepted == () and not found.numbers.any()
    results = onto_source.unmoved(nothing["TC"], AFFINE, nothing, found.numbers, "TC")
    assert screen._measured(results, found, None).empty


def test_more_candidates_than_can_be_numbered(monkeypatch):
    monkeypatch.setattr(screen, "MOST_CANDIDATES", 3)
    with pytest.raises(ScreeningError, match="points at 4 places"):
        find(probabilities(), AFFINE, model())


def test_what_lies_beyond_the_t1c_is_a_remark_and_no_row():
    found = find(probabilities(), AFFINE, model())
    seen = onto_source.unmoved(probabilities()["TC"], AFFINE, probabilities(), found.numbers, "TC")
    results = onto_source.Results(**{**vars(seen), "numbers": np.where(seen.numbers == 2, 0, seen.numbers),
                                     "beyond": (2,)})  # fmt: skip
    table = screen._measured(results, found, None)
    assert table["lesion"].tolist() == [1, 3, 4] and table["accepted"].tolist() == [True, True, False]
    scan = screen.Scan("scan-00001-000", "prepared", {}, "")
    (remark,) = screen._beyond(found, results, "prepared", scan)
    assert remark.severity == "warn" and "1 candidate(s) lie beyond" in remark.text and "0.80" in remark.text


def test_a_candidate_that_was_given_a_voxel_beside_its_own_is_no_surer_for_it():
    found = find(probabilities(), AFFINE, model())
    seen = onto_source.unmoved(probabilities()["TC"], AFFINE, probabilities(), found.numbers, "TC")
    moved = seen.numbers.copy()
    moved[6, 6, 6] = 4  # of score 0.3, in a voxel of 0.8
    results = onto_source.Results(**{**vars(seen), "numbers": moved})
    table = screen._measured(results, found, None).set_index("lesion")
    assert table.loc[4, "score"] == pytest.approx(0.3)


def test_the_record_holds_no_number_that_json_cannot():
    record = screen._performance(model())
    assert record["rows"][0]["high"] is None and record["rows"][1]["found"] == 8
    assert record["false_positives"] == 0.6 and record["false_positives_high"] is None and record["target"] == 1.0
    assert record["coverage"] == 0.9 and screen._model(model())["met"] is True
    assert screen._model(model(threshold=math.inf))["threshold"] is None


def exchanged(monkeypatch, tmp_path: Path, write: Any) -> list[Any]:
    """The remarks of a scan of whose three accepted lesions the second lies beyond the t1c."""
    monkeypatch.setattr(screen.dicom_seg, "write", write)
    numbers = np.zeros(SHAPE, np.uint16)
    numbers[0, 0, :3] = 1, 3, 4
    results = onto_source.unmoved(probabilities()["TC"], AFFINE, probabilities(), numbers, "TC")
    scan = screen.Scan("scan-00001-000", "dicom", {}, "", t1c=SimpleNamespace(files=(tmp_path / "a.dcm",)))  # type: ignore[arg-type]
    created = datetime(2026, 1, 5, 8, 9, 10, tzinfo=UTC)
    return screen._for_dicom(ScreeningPaths(tmp_path), scan, results, "t1c", [1, 3], model(), created)


def test_dicom_has_the_records_time_and_the_accepted_lesions_that_are_there(monkeypatch, tmp_path: Path):
    """Of one result the same identifiers, whenever it is written; number 2 has no voxel, 4 is below the point."""
    calls = []
    assert exchanged(monkeypatch, tmp_path, lambda *given: calls.append(given)) == []
    _, (_, voxels, _, _, segments, about) = calls
    assert [segment.number for segment in segments] == [1, 3]
    assert np.unique(voxels).tolist() == [0, 1, 3] and voxels.dtype == np.uint16
    assert about.created.isoformat() == "2026-01-05T08:09:10+00:00"


def test_a_series_that_takes_no_segmentation_is_a_remark(monkeypatch, tmp_path: Path):
    def write(path: Path, *_: Any) -> None:
        path.write_text("begun")
        raise dicom_seg.SourceError("the files name 2 different PatientID")

    (remark,) = exchanged(monkeypatch, tmp_path, write)
    assert remark.severity == "warn" and "2 different PatientID" in remark.text
    assert not ScreeningPaths(tmp_path).dicom_labels.exists()


def test_a_grid_that_slicer_would_misplace_is_a_remark(tmp_path: Path):
    leaning = AFFINE.copy()
    leaning[0, 1] = 0.1
    results = onto_source.unmoved(probabilities()["TC"], leaning, probabilities(), np.zeros(SHAPE, np.uint16), "TC")
    (remark,) = screen._for_slicer(ScreeningPaths(tmp_path), results)
    assert remark.severity == "warn" and "3D Slicer reckons with right angles" in remark.text
    assert not ScreeningPaths(tmp_path).segmentation.exists()


@pytest.mark.parametrize(
    ("date", "iso"),
    [
        ("20240131", "2024-01-31"), ("2024-01-31", "2024-01-31"), ("20240231", None), ("", None),
        ("1.2.840.113619.2", None), ("follow-up 2", None),
    ],
)  # fmt: skip
def test_the_date_of_a_scan(date, iso):
    assert scans._iso(date) == iso


def test_only_what_a_screening_wrote_is_deleted(tmp_path: Path):
    files = screen.ScreeningPaths(tmp_path / "case")
    own = [
        files.record,
        files.labels,
        files.page,
        files.folder / ".123.labels.nii.gz",
        files.folder / ".aside-x" / "a",
    ]
    others = [files.reading, files.folder / "letter.txt", files.folder / ".hidden", files.prepared / "t1c.nii.gz"]
    for path in (*own, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    screen._clear(files)
    assert not [path for path in own if path.exists()] and all(path.is_file() for path in others)


def test_a_gpu_that_is_not_there(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ScreeningError, match="finds no GPU"):
        screen.device("cuda")
    assert screen.device("auto").type == screen.device("cpu").type == "cpu"


def test_a_scan_that_fails_now_is_listed_as_failed_whatever_an_earlier_run_left(tmp_path: Path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    for case in ("scan-00001-000", "scan-00002-000"):
        make_screened(out / case).page.write_text("of an earlier run")
    why = (
        f"case scan-00002-000: which series is the t2f? Every series is in {out}/private/series.csv; "
        f"{tmp_path}/Doe_John/a.nii is damaged"
    )

    def none_prepared(settings, inputs, options, outcome, say, reads):
        outcome.failed["scan-00002-000"] = why
        return []

    monkeypatch.setattr(screen, "find_scans", none_prepared)
    options, quiet = Options(out, out / "private"), lambda line: None
    screen.screen(model(), Inputs({}, {}), options, None, quiet)  # type: ignore[arg-type]
    listed = pd.read_csv(out / "worklist.csv").set_index("case")
    assert listed["decision"].to_dict() == {"scan-00001-000": "pass", "scan-00002-000": "failed"}
    note = listed.loc["scan-00002-000", "note"]
    assert "which series is the t2f? Every series is in private/series.csv; (a path) is damaged" in note
    assert "earlier screening" in note and "Doe_John" not in note + (out / "worklist.html").read_text()
    assert pd.isna(listed.loc["scan-00002-000", "suspicion"])


def test_a_case_to_leave_out_that_is_not_there_is_named(tmp_path: Path):
    inputs = Inputs({"a": Case("a", "a", {}, None), "b": Case("b", "b", {}, None)}, {})
    for words in ({"left_out": ("a", "c")}, {"accepted": ("c",)}):
        options = Options(tmp_path, tmp_path / "private", **words)
        with pytest.raises(ScreeningError, match="--left-out, --accepted: c: there is no such case"):
            find_scans(SETTINGS, inputs, options, Outcome(), print)


def test_options_of_the_preparation_are_refused_where_nothing_is_prepared(tmp_path: Path):
    inputs = Inputs({"a": Case("a", "a", {}, None)}, {})
    for words, said in (
        ({"accepted": ("a",)}, "--accepted: a was prepared before"),
        ({"brain_masks": "/masks/{patient}.nii.gz"}, "--brain-masks: every INPUT is prepared already"),
    ):
        with pytest.raises(ScreeningError, match=said):
            find_scans(SETTINGS, inputs, Options(tmp_path, tmp_path / "private", **words), Outcome(), print)


def test_raw_scans_are_not_asked_for_a_prepared_case_that_is_left_out(tmp_path: Path, monkeypatch):
    asked: list[Raw] = []

    def sort_each(declaration, files, say):
        asked.append(declaration.raw)
        raise ScreeningError("enough")

    monkeypatch.setattr(scans.sorting, "sort_each", sort_each)
    inputs = Inputs({"a": Case("a", "a", {}, None)}, {"patient": tmp_path})
    options = Options(tmp_path / "out", tmp_path / "private", left_out=("a", "scan-00001-000"))
    with pytest.raises(ScreeningError, match="enough"):
        scans._from_raw(SETTINGS, inputs, options, Outcome(), print, ALL_FOUR)
    assert asked[0].left_out == ["scan-00001-000"]
