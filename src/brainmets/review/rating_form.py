"""The rating sheet as a small form in JupyterLab, for those who prefer it to a spreadsheet.

It fills in the sheet that ``brainmets review`` handed out, one row at a time, with the same checks as reading it back,
and saves it as ``ratings/ratings_<rater>.csv``; ``brainmets review PARAMS --ratings FOLDER`` reads that folder. The
form knows the letters A and B alone, never the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
from IPython.display import display

from brainmets import tables
from brainmets.review.experts import SCALES, SHEET_COLUMNS, RatingError, check_ratings

TITLES = {
    "overall": "overall (1 useless, 5 as the reference)",
    "boundary": "boundary (1 wrong, 5 exact)",
    "missed_lesions": "missed lesions (0, 1, 2, ...)",
    "false_lesions": "false lesions (0, 1, 2, ...)",
    "acceptable": "acceptable after small corrections",
    "comment": "comment",
}
"""The columns that a rater fills in, and what the form calls them."""


def show(review: Path) -> None:
    """Show the form for ``review``/expert, or say what is missing. Nothing is written before its button is pressed."""
    sheet = review / "expert" / "ratings.csv"
    if sheet.is_file():
        display(RatingForm(sheet, review / "ratings").widget)
    else:
        print("Nothing to rate yet: brainmets review PARAMS hands out the cases first.")


def sheet_of(rater: str, handed_out: Path, folder: Path) -> tuple[Path, pd.DataFrame]:
    """The rater's sheet in ``folder`` and what it holds; the sheet that was handed out, where there is none yet.

    All cells are text. Raises ``RatingError`` for an empty name and for one whose file holds another rater's ratings.
    """
    if not rater.strip():
        raise RatingError("rater: is empty; type your name or initials")
    name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in rater.strip())
    path = folder / f"ratings_{name}.csv"
    given = path if path.is_file() else handed_out
    table = tables.read(given, dtype=str, keep_default_na=False)
    if absent := [name for name in SHEET_COLUMNS if name not in table.columns]:
        raise RatingError(f"{given.name} has no column {', '.join(absent)}; use a copy of ratings.csv")
    table = table[SHEET_COLUMNS]
    others = sorted(set(table["rater"]) - {"", rater.strip()})
    if others:
        raise RatingError(f"rater: {path.name} holds the ratings of {', '.join(others)}; write your name differently")
    return path, table


def save_rating(
    rater: str, case: str, model: str, answers: Mapping[str, str], handed_out: Path, folder: Path
) -> tuple[Path, int]:
    """Check one row (``TITLES`` to what was typed) and write it into the rater's sheet; gives file and rated rows.

    A row that was rated before is replaced. Raises ``RatingError`` naming the column of a bad or empty value, and
    for a case and model that were not handed out; the sheet then stays as it was.
    """
    path, table = sheet_of(rater, handed_out, folder)
    row = (table["case"] == case) & (table["model"] == model)
    if not row.any():
        raise RatingError(f"{case!r} model {model!r} was not handed out")
    cells = {name: answers[name].strip() for name in TITLES}
    check_ratings(cells, f"{case}, model {model}")
    table.loc[row, ["rater", *TITLES]] = [rater.strip(), *cells.values()]
    tables.write(path, table)
    return path, int((table["rater"] != "").sum())


class RatingForm:
    """The form; ``widget`` is what a notebook displays.

    ``handed_out`` is the empty ``ratings.csv``; sheets are saved in ``folder``.
    """

    def __init__(self, handed_out: Path, folder: Path) -> None:
        self.handed_out, self.folder = handed_out, folder
        table = tables.read(handed_out, dtype=str, keep_default_na=False)
        wide = {"style": {"description_width": "18em"}, "layout": {"width": "36em"}}
        items = [(f"{case}, model {model}", (case, model)) for case, model in table[["case", "model"]].to_numpy()]
        self.rater = ipywidgets.Text(description="rater (name or initials)", continuous_update=False, **wide)
        self.item = ipywidgets.Dropdown(options=items, description="case and model", **wide)
        choices = {name: ["", *map(str, range(low, high + 1))] for name, (low, high) in SCALES.items()}
        choices["acceptable"] = ["", "yes", "no"]
        self.answers: dict[str, ipywidgets.ValueWidget] = {
            name: ipywidgets.Dropdown(options=choices[name], description=title, **wide)
            if name in choices
            else ipywidgets.Text(description=title, **wide)
            for name, title in TITLES.items()
        }
        self.button = ipywidgets.Button(description="Save this rating", button_style="primary")
        self.message = ipywidgets.Label()
        self.button.on_click(self._save)
        self.item.observe(self._show_earlier, "value")
        self.rater.observe(self._show_earlier, "value")
        self.widget = ipywidgets.VBox([self.rater, self.item, *self.answers.values(), self.button, self.message])

    def _save(self, _: ipywidgets.Button) -> None:
        typed = {name: str(answer.value) for name, answer in self.answers.items()}
        case, model = self.item.value
        try:
            path, rated = save_rating(self.rater.value, case, model, typed, self.handed_out, self.folder)
        except RatingError as error:
            self.message.value = f"Not saved: {error}"
        else:
            self.message.value = f"Saved in {path.parent.name}/{path.name}: {rated} of {len(self.item.options)} rated."

    def _show_earlier(self, change: Mapping[str, Any]) -> None:
        """Show what the rater gave this item before; another item without ratings shows empty fields."""
        self.message.value = ""
        case, model = self.item.value
        try:
            _, table = sheet_of(self.rater.value, self.handed_out, self.folder)
        except RatingError:
            table = tables.read(self.handed_out, dtype=str, keep_default_na=False)
        row = table[(table["case"] == case) & (table["model"] == model)].iloc[0]
        if not row["rater"] and change["owner"] is self.rater:
            return  # what was typed before the name stays
        for name, answer in self.answers.items():
            options = getattr(answer, "options", None)
            answer.value = row[name] if options is None or row[name] in options else ""
