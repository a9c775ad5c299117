"""What every figure shares: make one with ``Drawing``, write it with ``save``, show it as a cell's last value."""

from __future__ import annotations

import textwrap
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from brainmets.files import replacing

PRINT_DPI = 200
SCREEN_DPI = 100


class Drawing(Figure):
    """A figure that a notebook shows by itself: it belongs to no pyplot state, so that nothing is shown twice."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png", dpi=SCREEN_DPI)
        return picture.getvalue()


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
