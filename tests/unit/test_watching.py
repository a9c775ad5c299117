"""The live view of a training: its lines, how often it draws, and what is left of it at the end."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainmets.figures import Drawing
from brainmets.training import watching
from brainmets.vocabulary import SEQUENCES


class Handle:
    def __init__(self, shown: Any) -> None:
        self.shown = [shown]

    def update(self, shown: Any) -> None:
        self.shown.append(shown)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    handles: list[Handle] = []

    def display(shown: Any, display_id: bool) -> Handle:
        assert display_id
        handles.append(Handle(shown))
        return handles[-1]

    monkeypatch.setattr(watching, "display", display)
    return handles


def session(epochs: int) -> Any:
    names = ("training_loss", "validation_loss", "dice_WT", "dice_TC", "dice_ET", "learning_rate", "seconds")
    curves = pd.DataFrame({"epoch": [1, 2], **{name: [0.5, 0.4] for name in names}})
    return SimpleNamespace(
        name="default, fold 0, scratch", curves=lambda: curves, trainer=SimpleNamespace(num_epochs=epochs)
    )


def test_the_curves_are_drawn_while_it_trains_and_taken_away_at_the_end(
    screen: list[Handle], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "DRAWING_SHARE", 1e9)  # always time to draw
    live = watching.LiveCurves(session(3))
    lines = [
        "default, fold 0, scratch: continues after epoch 0 of 3",
        *(f"epoch {epoch} of 3: loss" for epoch in (1, 2, 3)),
    ]
    for line in lines:
        live(line)
    assert capsys.readouterr().out.splitlines() == lines
    (handle,) = screen
    assert [type(shown) for shown in handle.shown] == [Drawing, Drawing, Drawing, watching.HTML]
    assert handle.shown[-1].data == ""


def test_drawing_takes_its_share_of_the_time_and_no_more(
    screen: list[Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: clock.now))
    live = watching.LiveCurves(session(1000))
    drawing = live._draw

    def slow_drawing() -> None:
        drawing()
        clock.now += 0.2

    live._draw = slow_drawing  # type: ignore[method-assign]
    for epoch in range(1, 101):
        live(f"epoch {epoch} of 1000: loss")
        clock.now += 1  # an epoch
    (handle,) = screen
    # 0.2 s of drawing allow the next one after 20 s: epochs 1, 21, 41, 61 and 81
    assert len(handle.shown) == 5


def test_the_batch_is_shown_where_the_tumour_is_largest_with_an_outline_per_region() -> None:
    images = np.random.default_rng(1).normal(size=(3, 4, 5, 8, 8)).astype(np.float32)
    regions = np.zeros((3, 3, 5, 8, 8), bool)
    regions[0, 0, 1, 2:6, 2:6] = regions[0, 1, 1, 3:5, 3:5] = True  # WT and TC in the second slice, no ET
    regions[0, 0, 3, 3, 3] = True
    panels = watching.batch_figure(images, regions, SEQUENCES, "a batch").axes
    assert len(panels) == 8, "two of the three patches, four sequences each"
    assert [panel.get_title() for panel in panels[:4]] == ["T1", "T1 after contrast", "T2", "FLAIR"]
    assert panels[0].get_ylabel() == "patch 1, slice 2 of 5"
    assert panels[4].get_ylabel() == "patch 2, slice 3 of 5"
    assert [len(panel.collections) for panel in panels] == [2] * 4 + [0] * 4
    np.testing.assert_array_equal(panels[1].images[0].get_array(), images[0, 1, 1])
    assert len(set(watching.REGION_LINES.values())) == 3, "told apart without colours"


def test_a_finished_training_draws_nothing(screen: list[Handle]) -> None:
    watching.LiveCurves(session(3))(
        "default, fold 0, scratch: finished before with these parameters, not trained again"
    )
    assert screen == []
