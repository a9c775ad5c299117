"""The figure of candidates: every candidate and every lesion that was not found has its mark."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from brainmets.figures import save
from brainmets.scoring.candidates import Detections, collect, counts, find
from brainmets.statistics.candidate_figures import candidates_by_size, froc_by_rule


def detections(with_lesions: bool = True) -> Detections:
    """ET: one hit, one false candidate and one missed lesion; TC and WT: nothing."""
    probability, labels = np.zeros((20, 4, 4), np.float32), np.zeros((20, 4, 4), np.uint8)
    if with_lesions:
        probability[2:5, 1, 1], probability[9, 1, 1] = 0.8, 0.3
        labels[2:6, 1, 1], labels[15:17, 1, 1] = 3, 3
    zeros = np.zeros_like(probability)
    found = find({"ET": probability, "TC": zeros, "WT": zeros}, labels, (1.0, 1.0, 2.0), np.eye(4), 0.1)
    return collect({"P1": found}, "default", "finetune")


def test_every_mark_is_there(tmp_path: Path) -> None:
    figure = candidates_by_size(detections(), "one_to_one", 0.1)
    marks = {line.get_marker(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert np.allclose(marks["o"], [[6.0, 0.8]]) and np.allclose(marks["x"], [[2.0, 0.3]])
    assert marks["v"] == [[4.0, 0.0]]
    assert [panel.get_title() for panel in figure.axes] == [
        "ET: 1 of 2 found, 1 false", "TC: 0 of 2 found, 0 false", "WT: 0 of 2 found, 0 false",
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit warns
        save(figure, tmp_path / "candidates.png")


def test_nothing_at_all_is_drawn_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(candidates_by_size(detections(with_lesions=False), "overlap", 0.1), tmp_path / "candidates.png")


def test_the_froc_of_one_case_by_hand(tmp_path: Path) -> None:
    """One of two lesions is found at 0.8, before the false candidate of 0.3: half from the left edge on."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = froc_by_rule(detections())
        save(figure, tmp_path / "froc_by_rule.png")
        save(froc_by_rule(detections(with_lesions=False)), tmp_path / "none.png")
    et = figure.axes[0]
    assert {line.get_linestyle() for line in et.lines} == {"-", "--", ":"}
    for line in et.lines:
        assert line.get_xydata().tolist() == [[1 / 16, 0.0], [1 / 16, 0.5], [1.0, 0.5], [8.0, 0.5]]
    assert all(set(line.get_ydata()) == {0.0} for line in figure.axes[1].lines)


def test_the_froc_runs_on_where_there_are_more_false_candidates_than_it_shows() -> None:
    probability, labels = np.zeros((40, 4, 4), np.float32), np.zeros((40, 4, 4), np.uint8)
    probability[np.arange(0, 24, 2), 1, 1] = 0.8 - 0.01 * np.arange(12)  # the lowest, behind eleven, is the lesion
    labels[22, 1, 1] = 3
    case = find(dict.fromkeys(("ET", "TC", "WT"), probability), labels, (1.0, 1.0, 1.0), np.eye(4), 0.1)
    for line in froc_by_rule(collect({"P1": case}, "default", "finetune")).axes[0].lines:
        rates, shares = line.get_xydata().T
        assert (np.diff(rates) >= 0).all() and set(shares[rates <= 8]) == {0.0} and shares[-1] == 1


def test_counts_by_hand() -> None:
    table = counts(detections()).set_index(["region", "rule"])
    assert len(table) == 9
    assert table.loc[("ET", "one_to_one"), ["cases", "lesions", "found", "candidates", "false"]].tolist() == [
        1,
        2,
        1,
        2,
        1,
    ]
    assert table.loc[("ET", "centroid"), ["sensitivity", "false_per_case"]].tolist() == [0.5, 1.0]
    assert table.loc[("TC", "overlap"), ["lesions", "found", "candidates"]].tolist() == [2, 0, 0]
    assert counts(detections(with_lesions=False)).empty
