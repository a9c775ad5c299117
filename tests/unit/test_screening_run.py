"""What becomes of candidates: numbers, the operating point, and what the record says of it."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainmets.screening import onto_source, screen
from brainmets.screening.screen import ScreeningError, find
from brainmets.statistics.operating_point import Aim, Point

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SHAPE = (24, 24, 24)


def model(threshold: float = 0.5, smallest_mm3: float = 0.0, candidate_threshold: float = 0.1) -> Any:
    point = Point("default", "finetune", threshold, smallest_mm3, 5, 9, 8, 3, True)
    return SimpleNamespace(
        aim=Aim("TC", "one_to_one", 1.0), point=point, candidate_threshold=candidate_threshold, sha256="ab" * 32,
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
    assert screen._measured(results, found, "TC", None).empty


def test_more_candidates_than_can_be_numbered(monkeypatch):
    monkeypatch.setattr(screen, "MOST_CANDIDATES", 3)
    with pytest.raises(ScreeningError, match="points at 4 places"):
        find(probabilities(), AFFINE, model())


def test_what_lies_beyond_the_t1c_is_a_remark_and_no_row():
    found = find(probabilities(), AFFINE, model())
    seen = onto_source.unmoved(probabilities()["TC"], AFFINE, probabilities(), found.numbers, "TC")
    results = onto_source.Results(**{**vars(seen), "numbers": np.where(seen.numbers == 2, 0, seen.numbers),
                                     "beyond": (2,)})  # fmt: skip
    table = screen._measured(results, found, "TC", None)
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
    table = screen._measured(results, found, "TC", None).set_index("lesion")
    assert table.loc[4, "score"] == pytest.approx(0.3)


def test_the_record_holds_no_number_that_json_cannot():
    record = screen._performance(model())
    assert record["rows"][0]["high"] is None and record["rows"][1]["found"] == 8
    assert record["false_positives"] == 0.6 and record["false_positives_high"] is None and record["target"] == 1.0
    assert record["coverage"] == 0.9 and screen._model(model())["met"] is True
    assert screen._model(model(threshold=math.inf))["threshold"] is None


@pytest.mark.parametrize(
    ("date", "iso"),
    [
        ("20240131", "2024-01-31"), ("2024-01-31", "2024-01-31"), ("20240231", None), ("", None),
        ("1.2.840.113619.2", None), ("follow-up 2", None),
    ],
)  # fmt: skip
def test_the_date_of_a_scan(date, iso):
    assert screen._iso(date) == iso


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
