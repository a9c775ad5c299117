"""The report's section on detection, from tables written by hand as notebook 07 writes them."""

import math
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from brainmets.figures import Drawing, save
from brainmets.files import read_json, write_json
from brainmets.paths import StudyPaths
from brainmets.report import build
from brainmets.report.detection import CHOSEN, FOUND, JUDGED, detection
from brainmets.statistics.froc import SIZES
from brainmets.statistics.operating_point import COLUMNS as POINT_COLUMNS
from brainmets.statistics.operating_point import Aim, Point, freeze
from brainmets.tables import TableError
from brainmets.tables import write as write_table

MODELS = [("default", "finetune"), ("default", "scratch")]


def write_tables(files: StudyPaths) -> None:
    """Ten lesions, of which the fine-tuned model finds eight and the one from scratch none, in three patients."""
    folder = files.statistics
    points = [
        Point(*MODELS[0], 0.3, 5.0, 6, 12, 9, 5, met=True),
        Point(*MODELS[1], math.inf, 0.0, 6, 12, 0, 0, met=True),
    ]
    cases = {model: [f"T{number}" for number in range(6)] for model in MODELS}
    freeze(folder / CHOSEN, Aim("TC", "one_to_one", 1.0), points, cases, [], files.work)
    rows, judged = [], []
    for point, found in zip(points, (8, 0), strict=True):
        for size, lesions in zip((size.name for size in SIZES), (10, 0, 4, 6, 0), strict=True):
            hit = min(found, lesions)
            whole = {"false": 2, "false_positives": 2 / 3, "false_positives_low": 0.125, "false_positives_high": 2.5}
            rows.append(
                {
                    "arm": point.arm, "strategy": point.strategy, "region": "TC", "hit": "one_to_one",
                    "threshold": point.threshold, "smallest_mm3": point.smallest_mm3, "size": size, "cases": 3,
                    "patients": 3, "lesions": lesions, "found": hit, "sensitivity": hit / lesions if lesions else None,
                    "low": 0.25 if lesions else None, "high": 0.9375 if lesions else None, "target": 1.0,
                    "note": point.note if size == "all" else "", **(whole if size == "all" else {}),
                }
            )  # fmt: skip
        common = {"arm": point.arm, "strategy": point.strategy, "region": "TC"}
        alone = "no lesion-free patient among the held-out ones: nothing can be said"
        judged += [
            {
                **common,
                "measure": "all_found",
                "patients": 3,
                "count": 1,
                "value": 1 / 3,
                "low": 0.0084,
                "high": 0.9057,
            },
            {**common, "measure": "any_found", "patients": 3, "count": 3, "value": 1.0, "low": 0.2924, "high": 1.0},
            {**common, "measure": "specificity", "patients": 0, "note": alone},
            {**common, "measure": "auroc", "patients": 3, "note": alone},
        ]
    write_table(folder / FOUND, pd.DataFrame(rows, columns=POINT_COLUMNS))
    columns = ["arm", "strategy", "region", "measure", "patients", "count", "value", "low", "high", "note"]
    write_table(folder / JUDGED, pd.DataFrame(judged, columns=columns))


def test_every_cell_has_value_interval_and_counts(tmp_path: Path) -> None:
    files = StudyPaths(str(tmp_path), "tiny")
    write_tables(files)
    section = detection(files)
    assert section.sizes == [size.name for size in SIZES]
    finetuned, scratch = section.rows
    assert (finetuned["arm"], finetuned["strategy"], finetuned["first"], scratch["first"]) == (
        "Default", "fine-tuned", True, False
    )  # fmt: skip
    assert finetuned["point"] == {"value": "0.300", "interval": "from 5 mm³", "counts": ""}
    assert finetuned["sizes"][0] == {"value": "0.800", "interval": "0.250 to 0.938", "counts": "8 of 10"}
    assert finetuned["sizes"][1] == {"value": "none", "interval": "", "counts": "of 0"}
    assert finetuned["false"] == {"value": "0.67", "interval": "0.12 to 2.50", "counts": "2 in 3"}
    assert finetuned["measures"][0] == {"value": "0.333", "interval": "0.008 to 0.906", "counts": "1 of 3"}
    assert finetuned["measures"][2] == {"value": "none", "interval": "", "counts": "of 0"}
    assert finetuned["area"]["value"] == "none"
    assert scratch["point"] == {"value": "none", "interval": "nothing is accepted", "counts": ""}
    assert section.tables == [FOUND, JUDGED]


def test_the_sentence_says_on_what_and_for_what_the_points_were_chosen(tmp_path: Path) -> None:
    files = StudyPaths(str(tmp_path), "tiny")
    write_tables(files)
    section = detection(files)
    digest = read_json(files.statistics / CHOSEN)["sha256"]
    assert section.sentence == (
        "Each model's threshold and smallest candidate were chosen on 6 cross-validated training cases alone, to find "
        "as many TC lesions as can be found with at most 1 false positive a patient (a hit: one to one, IoU of 0.1 or "
        f"more), were frozen in operating_point.json (SHA-256 {digest[:12]}...), and only then applied to the 3 "
        "held-out cases."
    )
    assert section.remarks == [
        "Default, fine-tuned: no lesion-free patient among the held-out ones: nothing can be said",
        "Default, from scratch: no candidate in cross-validation: nothing is accepted",
        "Default, from scratch: no lesion-free patient among the held-out ones: nothing can be said",
    ]


@pytest.mark.parametrize("gone", [(CHOSEN,), (FOUND, JUDGED)])
def test_without_its_files_the_section_says_so(tmp_path: Path, gone: tuple[str, ...]) -> None:
    files = StudyPaths(str(tmp_path), "tiny")
    write_tables(files)
    for name in gone:
        (files.statistics / name).unlink()
    section = detection(files)
    assert section.absent.startswith(f"Nothing is said of detection at an operating point: {', '.join(gone)} ")
    assert section.rows == []


def test_a_table_that_notebook_07_cannot_have_written_is_refused(tmp_path: Path) -> None:
    files = StudyPaths(str(tmp_path), "tiny")
    write_tables(files)
    table = files.statistics / FOUND
    table.write_text(table.read_text().replace(",0.8,", ",1.8,"))
    with pytest.raises(
        TableError, match=r"sensitivity is 1.8 and must be a number from 0 to 1; run notebook 07 again"
    ):
        detection(files)
    write_tables(files)
    write_json(files.statistics / CHOSEN, {"points": []})
    with pytest.raises(ValueError, match=CHOSEN):
        detection(files)


def test_the_page_shows_the_section_and_a_page_without_it_says_why(reviewed_checkout, index: Path) -> None:
    _, files, study = reviewed_checkout
    assert "Nothing is said of detection at an operating point: operating_point.json" in index.read_text("utf-8")
    record = files.statistics / "statistics.json"
    before = record.read_text()
    figure = Drawing(figsize=(2, 2))
    figure.subplots().plot([0, 1], [0, 1])
    save(figure, files.statistics / "froc.png")
    write_tables(files)
    content = read_json(record)
    entry = {"file": "froc.png", "alt": "FROC of two models", "shows": "The curves.", "cannot_show": "Single cases."}
    write_json(record, {**content, "figures": [*content["figures"], entry]})
    try:
        page = BeautifulSoup(build.build(files, study).read_text("utf-8"), "html.parser")
        section = page.find(id="detection").parent
        tables = section("table")
        assert [len(table.tbody("tr")) for table in tables] == [2, 2]
        assert all(table.caption and table.select("tbody th[scope=row]") for table in tables)
        assert "0.250 to 0.938" in tables[0].get_text()
        assert [image["alt"] for image in section("img")] == ["FROC of two models"]
        assert len(page("img", alt="FROC of two models")) == 1, "once, in its own section"
        links = [link["href"] for link in section("a")]
        assert links == [f"tables/{FOUND}", f"tables/{JUDGED}"]
        assert all((files.index.parent / link).is_file() for link in links)
        assert page.select_one('nav a[href="#detection"]')
    finally:
        for name in (CHOSEN, FOUND, JUDGED, "froc.png"):
            (files.statistics / name).unlink()
        record.write_text(before)
        files.index.unlink()
