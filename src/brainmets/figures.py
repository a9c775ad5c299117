"""What every figure shares: make one with ``panel_grid``, write it with ``save``, show it as a cell's last value."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from brainmets.files import replacing

PRINT_DPI = 200
SCREEN_DPI = 100
MOST_KEYS, KEY_WIDTH = 6, 1.5
"""Keys of a legend in one row, and the inches that one needs where there are more."""


class Drawing(Figure):
    """A figure that a notebook shows by itself: it belongs to no pyplot state, so that nothing is shown twice."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png", dpi=SCREEN_DPI)
        return picture.getvalue()


def panel_grid(rows: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, np.ndarray]:
    """A figure and its panels, an array of shape (rows, columns), one panel at the least.

    ``width`` and ``height`` are a panel's, in inches; ``shared`` goes to ``Figure.subplots``.
    """
    rows, columns = max(rows, 1), max(columns, 1)
    figure = Drawing(figsize=(width * columns + 0.6, height * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **shared)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return figure, panels


def keys_below(figure: Figure, keys: Sequence[Artist], columns: int | None = None, size: int | None = None) -> None:
    """The legend below all panels, in one row of up to ``MOST_KEYS`` unless ``columns`` says otherwise.

    ``size`` in points. More than ``MOST_KEYS`` stand in rows of as many as the figure's width has room for.
    """
    fits = max(1, int(figure.get_figwidth() // KEY_WIDTH))
    ncols = columns or (len(keys) if len(keys) <= MOST_KEYS else min(len(keys), fits)) or 1
    figure.legend(handles=list(keys), loc="outside lower center", ncols=ncols, frameon=False, fontsize=size)


def wrapped(text: str, width_in: float, size: float) -> str:
    """A title in lines that fit ``width_in`` inches in letters of ``size`` points, each some 0.55 of it wide.

    >>> wrapped("Default, from scratch", 1, 9).splitlines()
    ['Default, from', 'scratch']
    """
    return textwrap.fill(text, max(1, int(width_in * 72 / (0.55 * size))))


def save(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all; the format is the path's suffix."""
    with replacing(path) as aside:
        figure.savefig(aside, dpi=PRINT_DPI)
    return path
