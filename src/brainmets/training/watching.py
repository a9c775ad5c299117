"""Watching a training in a notebook: a line per epoch, and its curves drawn while it runs."""

from __future__ import annotations

import time

from IPython.display import HTML, DisplayHandle, display

from brainmets.training.figures import learning_curves
from brainmets.training.session import TrainingSession

DRAWING_SHARE = 0.01
"""Share of the training's time that may go into drawing."""


class LiveCurves:
    """Prints each line of a training and keeps one figure of the curves so far above the lines.

    Hand it to ``TrainingSession.run``. The figure is drawn after the first epoch and then as often as
    ``DRAWING_SHARE`` of the time allows; after the last epoch it is taken away, since the notebook shows the whole
    curves then. A training that stops earlier leaves it where it stood.
    """

    def __init__(self, session: TrainingSession) -> None:
        self.session = session
        self._handle: DisplayHandle | None = None
        self._due = 0.0

    def __call__(self, line: str) -> None:
        """Print ``line``, and draw where it is time to."""
        started = time.monotonic()
        if line.startswith("epoch ") and started >= self._due:
            self._draw()
            drawn = time.monotonic()
            self._due = drawn + (drawn - started) / DRAWING_SHARE
        print(line)
        if self._handle is not None and line.startswith(f"epoch {self.session.trainer.num_epochs} of "):
            self._handle.update(HTML(""))

    def _draw(self) -> None:
        figure = learning_curves(self.session.curves(), f"{self.session.name}, so far")
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
