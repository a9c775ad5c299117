"""Tables of the report's pages: framed, so that a wide one scrolls, and searched and sorted where they are long."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
from bs4 import BeautifulSoup, Tag

LONG = 15
"""A table with more rows than this can be searched and sorted."""
WIDE = 14
"""A table with more columns than this is set smaller, and prints on a turned page."""
_NUMBER = re.compile(r"[<>]?\s*[-+]?(\d[\d,]*(\.\d*)?|\.\d+)(e[-+]?\d+)?\s*%?|[-+]?inf", re.IGNORECASE)
_MISSING = ("", "nan", "none", "<na>", "nat")


def as_html(table: pd.DataFrame, **options: Any) -> str:
    """``table`` without its index, no row and no text shortened; ``options`` are those of ``DataFrame.to_html``."""
    with pd.option_context("display.max_colwidth", None):
        return table.to_html(index=False, **options)


def lay_out(page: BeautifulSoup) -> None:
    """Put every table of ``page`` into a frame with class "long" or "wide" where it is, and align its numbers.

    Row numbers of a data frame are left out. A table that shows only its first and last rows is not "long": a search
    in it would not find what it leaves out; nor is one with joined cells, whose rows cannot be sorted.

    >>> page = BeautifulSoup(as_html(pd.DataFrame({"mm": range(16)})), "html.parser")
    >>> lay_out(page)
    >>> page.div["class"], page.td
    (['frame', 'long'], <td class="num">0</td>)
    """
    for table in page("table"):
        del table["border"]
        if table.thead and not table.thead.get_text(strip=True):
            table.thead.decompose()
        joined = bool(table.select("tbody [rowspan], tbody [colspan]"))
        if not joined:
            _drop_row_numbers(table)
        lines = [row(["th", "td"]) for row in table.select("tr")]
        for column in zip(*lines, strict=False):
            texts = [cell.get_text(strip=True) for cell in column if cell.find_parent("tbody")]
            present = [text for text in texts if text.lower() not in _MISSING]
            if present and all(map(_NUMBER.fullmatch, present)):
                for cell in column:
                    cell["class"] = "num"
        rows = table.select("tbody tr")
        width = max(map(len, lines), default=0)
        if table.thead and not rows:
            note = f'<tbody><tr><td colspan="{width}">no rows</td></tr></tbody>'
            table.append(BeautifulSoup(note, "html.parser"))
        shortened = any(set(row.get_text(strip=True)) == {"."} for row in rows)
        searchable = len(rows) > LONG and not joined and not shortened
        kinds = ["frame", *["long"] * searchable, *["wide"] * (bool(rows) and width > WIDE)]
        table.wrap(page.new_tag("div", attrs={"class": " ".join(kinds)}))


def _drop_row_numbers(table: Tag) -> None:
    """Take out a first column without a name that only counts rows."""
    head = [row("th") for row in table.select("thead tr")]
    numbers = table.select("tbody tr > th:first-child")
    unnamed = len(head) == 1 and not head[0][0].get_text(strip=True)
    if unnamed and all(cell.get_text(strip=True).isdigit() for cell in numbers):
        for cell in [head[0][0], *numbers]:
            cell.decompose()
