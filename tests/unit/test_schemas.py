"""Tables that are read again: held to their schema with file, line and column, and to the record of their step."""

from pathlib import Path

import pandas as pd
import pytest
from helpers.score_examples import example_lesions, example_scores, write_study

from brainmets import schemas, tables
from brainmets.paths import StudyPaths
from brainmets.provenance import Provenance
from brainmets.schemas import (
    CANDIDATES,
    DESCRIPTIVE,
    LESIONS,
    OVERLAPS,
    RATING_KEY,
    RELIABILITY,
    SCORES,
    SCREENED,
    TARGETS,
    Schema,
)
from brainmets.statistics.tables import WIDE_COLUMNS, ScoreTableError, read_lesions, read_scores, require_whole
from brainmets.tables import TableError

LESION = {
    "arm": "default", "strategy": "finetune", "case": "P1", "region": "ET", "kind": "reference", "lesion": 1,
    "volume_mm3": 20.0, "x_mm": 1.0, "y_mm": -2.0, "z_mm": 3.0, "matched": "1 2", "dice": 0.5, "detected": True,
    "detected_iou": False,
}  # fmt: skip
ROWS: list[tuple[Schema, dict]] = [
    (LESIONS, LESION),
    (
        SCORES,
        {
            "arm": "default", "strategy": "scratch", "case": "P1", "region": "ET", "metric": "dice", "value": 1,
            "unit": "1",
        },
    ),
    (
        DESCRIPTIVE,
        {
            "arm": "default", "strategy": "scratch", "region": "ET", "metric": "dice", "n": 1, "n_both": 1,
            "n_reference_only": "", "n_prediction_only": 0, "n_neither": 0, "mean": 0.5, "sd": "", "ci_low": "",
            "ci_high": "", "median": 0.5, "q1": 0.5, "q3": 0.5, "note": "",
        },
    ),
    (RATING_KEY, {"case": "P1", "model": "A", "arm": "default", "strategy": "scratch"}),
    (
        CANDIDATES,
        {
            "arm": "default", "strategy": "scratch", "case": "P1", "region": "ET", "candidate": 1, "score": 0.9,
            "mean": 0.5, "volume_mm3": 20.0, "x_mm": 1.0, "y_mm": -2.0, "z_mm": 3.0, "uncertainty": 0.5,
            "hit_one_to_one": False, "hit_overlap": True, "hit_centroid": False,
        },
    ),
    (
        TARGETS,
        {
            "arm": "default", "strategy": "scratch", "case": "P1", "region": "ET", "lesion": 1, "volume_mm3": 20.0,
            "diameter_mm": 3.4, "x_mm": 1.0, "y_mm": -2.0, "z_mm": 3.0,
        },
    ),
    (
        OVERLAPS,
        {
            "arm": "default", "strategy": "scratch", "case": "P1", "region": "ET", "candidate": 1, "lesion": 1,
            "shared_mm3": 2.0, "iou": 0.05, "centroid_inside": False,
        },
    ),
    (
        RELIABILITY,
        {
            "arm": "default", "strategy": "scratch", "case": "P1", "region": "ET", "zone": "near", "bin": 3, "n": 4,
            "sum_p": 1.0, "sum_p2": 0.25, "sum_p_positive": 0.5, "positive": 2,
        },
    ),
    (
        SCREENED,
        {
            "lesion": 1, "accepted": True, "score": 0.9, "uncertainty": 0.25, "volume_mm3": 20.0, "x_mm": 1.0,
            "y_mm": -2.0, "z_mm": 3.0, "side": "right", "longest_mm": 4.5, "perpendicular_mm": 3.4, "slices": 2,
            "slice": 0, "measurable": False, "why": "", "et_mm3": 20.0, "netc_mm3": 0.0, "snfh_mm3": 8.0,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "row"), ROWS)
def test_a_right_row_is_read_and_each_column_is_needed(tmp_path: Path, schema: Schema, row: dict) -> None:
    file = tables.write(tmp_path / "own.csv", pd.DataFrame([row]))
    assert list(schemas.read(file, schema).columns) == list(schema.columns)
    for name in schema.columns:
        tables.write(file, pd.DataFrame([row]).drop(columns=name))
        with pytest.raises(TableError, match=rf"own\.csv lacks the column {name}; .*(again|anew|backup)"):
            schemas.read(file, schema)


@pytest.mark.parametrize(("schema", "row"), ROWS)
def test_no_column_takes_what_is_of_another_kind(tmp_path: Path, schema: Schema, row: dict) -> None:
    for name, column in schema.columns.items():
        wrong = {
            "text": [] if column.empty else ["x" * 256],
            "number": ["x", "-inf"],
            "whole": ["x", "1.5", "-1", "1e400"],
            "truth": ["true", "1"],
        }
        values = wrong[column.kind] + (["unknown word"] if column.known else []) + ([] if column.empty else [""])
        for value in values:
            if column.infinite and value == "-inf":
                continue
            file = tables.write(tmp_path / "own.csv", pd.DataFrame([row | {name: value}]))
            with pytest.raises(TableError, match=rf"own\.csv, line 2: {name} "):
                schemas.read(file, schema)


@pytest.mark.parametrize(("schema", "row"), ROWS)
def test_a_row_occurs_once_and_a_table_has_rows(tmp_path: Path, schema: Schema, row: dict) -> None:
    file = tables.write(tmp_path / "own.csv", pd.DataFrame([row, row]))
    if schema.key:
        with pytest.raises(TableError, match=r"own\.csv, line 3: .* occurs twice \(before in line 2\)"):
            schemas.read(file, schema)
    tables.write(file, pd.DataFrame([row]).iloc[:0])
    if schema.rows:
        assert schemas.read(file, schema).empty
    else:
        with pytest.raises(TableError, match=r"own\.csv holds no rows"):
            schemas.read(file, schema)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"region": "NCR"}, "region 'NCR' is none of ET, TC, WT, RC"),
        ({"kind": "guessed"}, "kind 'guessed' is none of reference, predicted"),
        ({"volume_mm3": -1.0}, "volume_mm3 is -1.0 and must be a number of 0 or more"),
        ({"volume_mm3": float("nan")}, "volume_mm3 is empty"),
        ({"x_mm": float("inf")}, "x_mm is inf and must be a number"),
        ({"lesion": 1.5}, "lesion is 1.5 and must be a whole number"),
        ({"dice": 1.5}, "dice is 1.5 and must be a number from 0 to 1"),
    ],
)
def test_a_wrong_lesion_is_refused_with_file_line_and_what_to_do(tmp_path: Path, change: dict, message: str) -> None:
    tables.write(tmp_path / "lesions.csv", pd.DataFrame([LESION, LESION | {"lesion": 2} | change]))
    with pytest.raises(
        ScoreTableError, match=rf"lesions\.csv, line 3: {message}.*; score the cases anew \(notebook 06"
    ):
        read_lesions(tmp_path)


def with_counts() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores with the lesions' counts, of which each case has two references: one found, one or none missed."""
    scores = example_scores(2)
    counts = []
    for arm, strategy, case in scores[["arm", "strategy", "case"]].drop_duplicates().itertuples(index=False):
        found = 2 if strategy == "finetune" else 1
        for metric, value in (("lesion_iou_tp", found), ("lesion_iou_fn", 2 - found), ("lesion_iou_fp", 0)):
            counts.append((arm, strategy, case, "WT", metric, value, "lesions"))
    return pd.concat([scores, pd.DataFrame(counts, columns=scores.columns)]), example_lesions(scores)


def test_a_lesion_table_that_is_cut_at_a_line_end_is_refused(tmp_path: Path) -> None:
    scores, lesions = with_counts()
    folder = write_study(tmp_path, scores, lesions)
    read = read_scores(folder)
    assert len(read_lesions(folder, read)) == len(lesions)
    file = folder / "segresnet" / "scratch" / "lesions.csv"
    lines = file.read_text().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        file.write_text("".join(lines[:kept]))
        with pytest.raises(ScoreTableError, match=r"lesions\.csv.*lesion_iou_..? is [12]: rows are lost.*score the"):
            read_lesions(folder, read)
    file.write_text("".join(lines[:1] + lines[2:]))  # without scores a gap shows by itself
    with pytest.raises(ScoreTableError, match=r"lesions\.csv: .* has a lesion 2, yet 1 row\(s\): some are lost"):
        read_lesions(folder)


def test_a_lesion_table_that_one_model_lacks_is_refused(tmp_path: Path) -> None:
    scores, lesions = with_counts()
    folder = write_study(tmp_path, scores, lesions)
    (folder / "segresnet" / "scratch" / "lesions.csv").unlink()
    with pytest.raises(ScoreTableError, match=r"segresnet/scratch has score tables and no lesions\.csv"):
        read_lesions(folder, read_scores(folder))
    for file in folder.rglob("lesions.csv"):
        file.unlink()
    assert read_lesions(folder, read_scores(folder)).empty  # as the paper's released scores are


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
def test_tables_that_a_spreadsheet_saved_are_read(tmp_path: Path, encoding: str) -> None:
    scores = example_scores(2).replace({"case": {"case00": "Fall-Ä"}})
    (tmp_path / "scores.csv").write_bytes(scores.to_csv(index=False).encode(encoding))
    assert set(read_scores(tmp_path)["case"]) == {"Fall-Ä", "case01"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"\x1f\x8b\x08\x00" * 100,
        b"\xff\xfe",
        b"arm,\0case\n1,2\n",
        b'"',
        b"," * 300_000,
        b"x" * 10**6,
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    for name, read in (("scores.csv", read_scores), ("lesions.csv", read_lesions)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(ScoreTableError, match=rf"{name}") as error:
            read(folder)
        assert len(str(error.value)) < 2000


def test_a_name_that_no_message_could_show_is_refused(tmp_path: Path) -> None:
    """A field that runs to the end of a damaged file, as mixed encodings make it; 255 characters are a name."""
    scores = example_scores(2)
    for unit, message in (("mm" * 2000, "unit has 4000 characters"), ("x" * 256, "unit has 256 characters")):
        scores.loc[3, "unit"] = unit
        file = tables.write(tmp_path / "scores.csv", scores)
        with pytest.raises(ScoreTableError, match=rf"scores\.csv, line 5: {message}, 255 are the most") as error:
            read_scores(tmp_path)
        assert len(str(error.value)) < 500
    (tmp_path / "scores.csv").unlink()
    file = tmp_path / "scores_default_finetune.csv"
    names = ["sample", *WIDE_COLUMNS]
    file.write_text(f"{','.join(names)}\n{'c' * 300}{',0.5' * len(WIDE_COLUMNS)}\n")
    with pytest.raises(ScoreTableError, match=r"line 2: sample has 300 characters"):
        read_scores(tmp_path)
    file.write_text(f"{','.join(names)},{'n' * 300}\n")
    with pytest.raises(ScoreTableError, match=r"line 1: a column's name has 300 characters"):
        read_scores(tmp_path)


def own_study(work: Path) -> StudyPaths:
    """Tables as notebooks 01 and 06 leave them, with their records."""
    files = StudyPaths(str(work), "own")
    scores = example_scores(2)
    write_study(files.evaluations, scores, example_lesions(scores))
    tables.write(files.cases("target"), pd.DataFrame({"case": ["case00", "case01"]}))
    Provenance("01_data_audit", {"study": "own"}, files.work).write(files.audit, outputs=[files.audit.parent])
    for arm, strategy in set(zip(scores["arm"], scores["strategy"], strict=True)):
        written = [files.evaluation_folder(arm, strategy)]
        record = Provenance("06_evaluation", {"study": "own", "arm": arm, "strategy": strategy}, files.work)
        record.write(files.evaluation(arm, strategy), outputs=written)
    return files


AGAIN = r": run brainmets notebook 06_evaluation PARAMS arm=default strategy=scratch again, or brainmets study PARAMS"


def test_a_studys_own_tables_are_those_that_their_step_wrote(tmp_path: Path) -> None:
    files = own_study(tmp_path)
    require_whole(files)
    table = files.scores("default", "scratch")
    whole = table.read_text()
    for damage, what in (
        ("".join(whole.splitlines(keepends=True)[:-1]), r"has \d+ rows, \d+ were written"),
        (whole[:-3], "has .* written"),
        (whole.replace("case00", "case99"), "is not what was written"),
    ):
        table.write_text(damage)
        with pytest.raises(ValueError, match=rf"^evaluation/default/scratch/scores\.csv {what}{AGAIN}"):
            require_whole(files)
    table.write_text(whole)
    require_whole(files)  # written anew, byte by byte
    files.lesions("default", "scratch").unlink()
    with pytest.raises(ValueError, match=rf"^evaluation/default/scratch/lesions\.csv is missing{AGAIN}"):
        require_whole(files)


def test_a_table_without_its_steps_record_is_refused(tmp_path: Path) -> None:
    files = own_study(tmp_path)
    record = files.evaluation("segresnet", "finetune")
    for content in (None, "{", '{"provenance": 3}'):
        record.unlink() if content is None else record.write_text(content)
        with pytest.raises(
            ValueError, match=r"^evaluation/segresnet/finetune/evaluation\.json is (missing|damaged): run"
        ):
            require_whole(files)
