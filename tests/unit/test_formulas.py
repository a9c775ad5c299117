"""Names of cases, arms and raters are other people's words: in no table are they formulas of a spreadsheet."""

import csv
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from score_examples import example_lesions, example_scores

from brainmets import schemas, tables
from brainmets.report.content import case_table
from brainmets.review import experts, rating_form
from brainmets.scoring import detection
from brainmets.statistics import agreement, comparisons
from brainmets.statistics.descriptive import describe, false_volumes, normality
from brainmets.tables import FORMULA_STARTS
from brainmets.vocabulary import SCORE_COLUMNS

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("=cmd()", "+1", "-x", "@a", "\ttab")
WRITERS = ("src/brainmets/tables.py", "src/brainmets/cohorts/spreadsheet.py")


def formulas(path: Path) -> list[str]:
    """Cells of a file that a spreadsheet would run: not the numbers, whose minus is one."""
    with path.open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    risky = [cell for cell in cells if cell.lstrip()[:1] in FORMULA_STARTS or cell[:1] in FORMULA_STARTS]
    return [cell for cell in risky if cell and not re.fullmatch(r"-?(inf|\d+(\.\d+)?(e-?\d+)?)", cell)]


def named(scores: pd.DataFrame) -> pd.DataFrame:
    """The table with cases and an arm that are formulas."""
    cases = dict(zip(sorted(set(scores["case"])), NAMES, strict=False))
    return scores.replace({"case": cases, "arm": {"segresnet": "=1+1"}})


def test_only_two_modules_write_tables_and_both_guard_their_cells() -> None:
    sources = {path: path.read_text() for path in (REPOSITORY / "src").rglob("*.py")}
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        sources[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    found = {
        path for path, text in sources.items() if re.search(r"\bto_csv\(|csv\.(writer|DictWriter)\(|savetxt\(", text)
    }
    assert {str(path.relative_to(REPOSITORY)) for path in found} == set(WRITERS)


def test_no_table_of_the_statistics_and_the_review_holds_a_formula(tmp_path: Path) -> None:
    scores = named(example_scores(5))
    lesions = named(example_lesions(example_scores(5)))
    assert set(scores["case"]) == set(NAMES)
    settings = comparisons.Settings(0.05, 1000, 1, {})
    cases = sorted(NAMES)
    written = {
        "scores": scores[list(SCORE_COLUMNS)], "lesions": lesions, "descriptive": describe(scores, 0.05),
        "normality": normality(scores, 0.05), "false_volumes": false_volumes(scores), "cases": case_table(scores),
        "sizes": detection.detection_by_size(lesions), "false": detection.false_positives_per_case(lesions, cases),
        "agreement": agreement.bland_altman(agreement.volume_pairs(scores), 0.05),
    }  # fmt: skip
    for name, table in written.items():
        file = tables.write(tmp_path / f"{name}.csv", table)
        assert formulas(file) == [], name
    tests = comparisons.arms_pairwise(scores, settings)
    file = comparisons.write_tests(tmp_path / "tests.csv", tests, comparisons.FAMILY_ARMS)
    assert formulas(file) == []
    assert "'=1+1" in file.read_text()
    assert "=1+1" in set(comparisons.read_tests(file)["second"])
    assert set(schemas.read(tmp_path / "scores.csv", schemas.SCORES)["case"]) == set(NAMES)
    assert set(schemas.read(tmp_path / "lesions.csv", schemas.LESIONS)["case"]) == set(NAMES)
    assert "=1+1" in set(schemas.read(tmp_path / "descriptive.csv", schemas.DESCRIPTIVE)["arm"])


@pytest.mark.parametrize("rater", NAMES)
def test_no_rating_is_a_formula_and_the_rater_comes_back(tmp_path: Path, rater: str) -> None:
    key = pd.DataFrame([(n, "A", "default", "finetune") for n in NAMES], columns=list(schemas.RATING_KEY.columns))
    sheet = pd.DataFrame({"case": key["case"], "model": "A"}).reindex(columns=experts.SHEET_COLUMNS)
    handed_out = tables.write(tmp_path / "expert" / "ratings.csv", sheet)
    answers = {**dict.fromkeys(experts.SCALES, "3"), **dict.fromkeys(experts.COUNTS, "0")}
    answers |= {"acceptable": "yes", "comment": "=cmd()"}
    path, rated = rating_form.save_rating(rater, "=cmd()", "A", answers, handed_out, tmp_path / "ratings")
    assert rated == 1
    assert formulas(path) == formulas(tables.write(tmp_path / "key.csv", key)) == []
    found = experts.read_ratings([path], schemas.read(tmp_path / "key.csv", schemas.RATING_KEY))
    assert found[["rater", "case", "comment"]].to_numpy().tolist() == [[rater.strip(), "=cmd()", "=cmd()"]]
