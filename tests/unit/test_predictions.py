"""The pictures of notebook 06: which cases, which slice, and what stands on them."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from review_cases import block, case

from brainmets.figures import save
from brainmets.review.panels import MISSED, case_panel
from brainmets.review.predictions import best_middle_worst, largest_slice, side_by_side

MODEL = ("default", "finetune")


def scores(values: list[float]) -> pd.DataFrame:
    names = [f"P{number}" for number in range(len(values))]
    tumour_core = pd.DataFrame({"case": names, "region": "TC", "metric": "dice", "value": values})
    others = [tumour_core.assign(region="WT", value=0.1), tumour_core.assign(metric="hd95", value=99.0)]
    return pd.concat([*others, tumour_core], ignore_index=True)


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([0.5], ["P0"]),
        ([0.2, 0.7], ["P1", "P0"]),
        ([0.2, 0.7, 0.5], ["P1", "P2", "P0"]),
        ([0.1, 0.9, 0.6, 0.3], ["P1", "P2", "P0"]),
        ([0.0, 0.0, 0.0, 0.0, 0.0], ["P0", "P2", "P4"]),
    ],
)
def test_best_middle_and_worst_case_of_the_region(values, chosen):
    found = best_middle_worst(scores(values), "TC")
    assert list(found) == chosen
    assert list(found.values()) == [values[int(name[1:])] for name in chosen]


def test_the_slice_with_most_of_the_reference():
    nothing = np.zeros((20, 20, 6), bool)
    reference = (block(slice(5, 9), slice(5, 9), 2) | block(slice(5, 8), slice(5, 8), 3)) > 0
    predicted = block(slice(0, 9), slice(0, 9), 4) > 0
    assert largest_slice(reference, predicted) == 2
    assert largest_slice(nothing, predicted) == 4
    assert largest_slice(nothing, nothing) == 3


def test_reference_and_prediction_stand_side_by_side(tmp_path):
    shown = case(block(slice(5, 9), slice(5, 9), 2), [block(slice(7, 11), slice(5, 9), 2)])
    missed = case(block(slice(5, 9), slice(5, 9), 3), [np.zeros((20, 20, 6), np.uint8)])
    missed = type(missed)("P2", missed.images, missed.reference, missed.predictions, missed.affine)
    figure = side_by_side([shown, missed], MODEL, "TC", {"P1": 0.5, "P2": 0.0})
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == [
        "P1: reference\naxial slice 2", "P1: prediction\nDice 0.50",
        "P2: reference\naxial slice 3", "P2: prediction\nDice 0.00",
    ]  # fmt: skip
    assert figure.get_suptitle() == "Default, fine-tuned: TC on T1 after contrast, the best Dice first"
    colours = [np.unique(panel.images[-1].get_array().reshape(-1, 4), axis=0) for panel in figure.axes[1::2]]
    assert len(colours[0]) == 4, "nothing, found, missed and too much"
    assert len(colours[1]) == 2, "nothing and missed"
    assert to_hex(colours[1][1]).upper() == MISSED
    assert save(figure, tmp_path / "predictions.png").stat().st_size > 10_000


def test_the_longest_title_of_a_model_fits_its_figures():
    model = ("tversky_bce", "scratch_control")
    only = case(block(slice(5, 9), slice(5, 9), 2), [block(slice(7, 11), slice(5, 9), 2)])
    shown = type(only)("P1", only.images, only.reference, {model: only.predictions[MODEL]}, only.affine)
    for figure in (side_by_side([shown], model, "TC", {"P1": 0.5}), case_panel(shown, "TC", {model: 0.5})):
        figure.draw_without_rendering()
        titles = [figure._suptitle, *(panel.title for panel in figure.axes), *figure.legends]
        for title in titles:
            box = title.get_window_extent()
            assert box.x0 >= 0, title
            assert box.x1 <= figure.bbox.width, title
