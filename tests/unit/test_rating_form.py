"""The form writes the sheet that ``brainmets review`` reads, and refuses what it would refuse."""

from pathlib import Path

import pandas as pd
import pytest

from brainmets.review import rating_form
from brainmets.review.experts import SHEET_COLUMNS, RatingError, read_ratings

GOOD = {
    "overall": "4", "boundary": "3", "missed_lesions": "0", "false_lesions": "2", "acceptable": "yes",
    "comment": 'small one left out, "unsure"',
}  # fmt: skip
KEY = pd.DataFrame(
    [("P01", "A", "default", "finetune"), ("P01", "B", "segresnet", "finetune")],
    columns=["case", "model", "arm", "strategy"],
)


@pytest.fixture
def handed_out(tmp_path: Path) -> Path:
    sheet = tmp_path / "expert" / "ratings.csv"
    sheet.parent.mkdir()
    KEY.reindex(columns=SHEET_COLUMNS).to_csv(sheet, index=False)
    return sheet


@pytest.fixture
def form(handed_out: Path, tmp_path: Path) -> rating_form.RatingForm:
    return rating_form.RatingForm(handed_out, tmp_path / "ratings")


def fill(form: rating_form.RatingForm, **answers: str) -> str:
    for name, value in {**GOOD, **answers}.items():
        form.answers[name].value = value
    form.button.click()
    return form.message.value


def test_what_the_form_writes_is_read_back_and_unblinded(form, handed_out, tmp_path):
    untouched = handed_out.read_bytes()
    form.rater.value = "Dr A"
    form.item.value = ("P01", "B")
    assert fill(form) == "Saved in ratings/ratings_Dr_A.csv: 1 of 2 rated."
    form.item.value = ("P01", "A")
    assert form.answers["overall"].value == ""
    assert fill(form, acceptable="no", overall="1").endswith("2 of 2 rated.")
    found = read_ratings(sorted((tmp_path / "ratings").glob("*.csv")), KEY).set_index("arm")
    assert found.loc["segresnet", ["overall", "boundary", "missed_lesions", "false_lesions"]].tolist() == [4, 3, 0, 2]
    assert found.loc["segresnet", "comment"] == GOOD["comment"]
    assert found["acceptable"].to_dict() == {"default": False, "segresnet": True}
    assert set(found["rater"]) == {"Dr A"}
    assert handed_out.read_bytes() == untouched


def test_an_earlier_rating_comes_back_and_can_be_replaced(form, tmp_path):
    form.rater.value = "A"
    fill(form)
    form.item.value = ("P01", "B")
    form.item.value = ("P01", "A")
    assert {name: answer.value for name, answer in form.answers.items()} == GOOD
    fill(form, overall="5")
    sheet = pd.read_csv(tmp_path / "ratings" / "ratings_A.csv", dtype=str)
    assert sheet["overall"].fillna("").tolist() == ["5", ""]


def test_what_was_typed_before_the_name_stays(form):
    form.answers["overall"].value = "2"
    form.rater.value = "A"
    assert form.answers["overall"].value == "2"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"missed_lesions": "two"}, "column missed_lesions: 'two' is not a count"),
        ({"false_lesions": "-1"}, "column false_lesions: '-1' is not a count"),
        ({"overall": ""}, "column overall: '' is not a whole number from 1 to 5"),
        ({"acceptable": ""}, "column acceptable: '' is not yes or no"),
    ],
)
def test_a_bad_value_is_refused_and_nothing_is_written(form, tmp_path, answers, message):
    form.rater.value = "A"
    assert message in fill(form, **answers)
    assert form.message.value.startswith("Not saved: P01, model A")
    assert not (tmp_path / "ratings").exists()


def test_a_rater_is_needed_and_two_do_not_share_a_file(form, handed_out, tmp_path):
    assert "rater: is empty" in fill(form)
    form.rater.value = "A B"
    fill(form)
    form.rater.value = "A_B"
    assert "ratings_A_B.csv holds the ratings of A B" in fill(form)
    with pytest.raises(RatingError, match="'P02' model 'A' was not handed out"):
        rating_form.save_rating("C", "P02", "A", GOOD, handed_out, tmp_path / "ratings")


def test_without_handed_out_cases_it_says_what_to_do(tmp_path, capsys):
    rating_form.show(tmp_path)
    assert "brainmets review PARAMS hands out the cases first" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_showing_it_writes_nothing(handed_out, tmp_path):
    rating_form.show(tmp_path)
    assert not (tmp_path / "ratings").exists()
