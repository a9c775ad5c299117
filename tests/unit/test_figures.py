"""Figures hold what they should: one bar per model, one line per case, and a file that is whole."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from score_examples import example_lesions, example_scores, two_cases

from brainmets.figures import PRINT_DPI, save
from brainmets.scoring.detection import detection_by_size
from brainmets.statistics import figures
from brainmets.statistics.agreement import bland_altman, volume_pairs
from brainmets.statistics.descriptive import describe
from brainmets.vocabulary import ARMS


def test_bars_are_the_means_in_the_arms_colours() -> None:
    scores = example_scores(6)
    table = describe(scores, 0.05)
    figure = figures.mean_with_interval(table, "dice")
    assert [panel.get_title() for panel in figure.axes] == ["ET (n = 6)", "TC (n = 6)", "WT (n = 6)"]
    heights = sorted(bar.get_height() for bar in figure.axes[0].patches)  # type: ignore[attr-defined]
    expected = table[(table["metric"] == "dice") & (table["region"] == "ET")]["mean"]
    np.testing.assert_allclose(heights, sorted(expected))
    colours = {to_rgb(bar.get_facecolor()) for bar in figure.axes[0].patches}
    assert colours == {to_rgb(figures.arm_colour(arm)) for arm in ("default", "tversky_bce", "segresnet")}
    hatches = {bar.get_hatch() for bar in figure.axes[0].patches}
    assert "///" in hatches
    assert len(hatches) == 2
    assert figure.axes[0].get_ylabel() == "Mean Dice, 95% interval\n(higher is better)"
    assert figure.axes[0].get_ylim() == (0, 1)


def test_whiskers_are_the_tables_intervals_and_stay_above_zero() -> None:
    scores = example_scores(6)
    far = (scores["metric"] == "hd95") & (scores["case"] == "case01") & (scores["arm"] == "default")
    table = describe(scores.assign(value=scores["value"] + 80.0 * far), 0.05)
    rows = table[(table["metric"] == "hd95") & (table["region"] == "WT")]
    assert rows["ci_low"].min() == 0, "the t interval would fall below 0 mm and is cut"
    panel = figures.mean_with_interval(table, "hd95").axes[2]
    ends = [segment[:, 1] for part in panel.collections for segment in part.get_segments()]  # type: ignore[attr-defined]
    np.testing.assert_allclose(sorted(low for low, _ in ends), sorted(rows["ci_low"]))
    assert panel.get_ylim()[0] >= 0
    label = figures.mean_with_interval(table, "hd95").axes[0].get_ylabel()
    assert label == "Mean HD95 (mm), 95% interval\n(lower is better)"
    assert all(part.get_path_effects() for part in panel.collections), "black on white on any bar"


def test_the_number_of_cases_stands_over_every_panel_of_means() -> None:
    table = describe(two_cases(invented_ml=0.0), 0.05)
    assert [panel.get_title() for panel in figures.mean_with_interval(table, "dice").axes] == ["ET (n = 1)"]
    scores = example_scores(5)
    lost = scores.index[(scores["metric"] == "hd95") & (scores["region"] == "ET")][0]
    table = describe(scores.drop(lost), 0.05)
    titles = [panel.get_title() for panel in figures.mean_with_interval(table, "hd95").axes]
    assert titles == ["ET (n = 4 to 5)", "TC (n = 5)", "WT (n = 5)"]


def test_infinite_distances_are_counted_in_the_panel() -> None:
    scores = example_scores(4)
    lost = (scores["metric"] == "hd95") & (scores["case"] == "case01") & (scores["arm"] == "default")
    lost &= (scores["region"] == "ET") & (scores["strategy"] == "finetune")
    panels = figures.paired_slopes(scores.assign(value=scores["value"].mask(lost, np.inf)), "hd95").axes
    assert [text.get_text() for text in panels[0].texts] == ["1 infinite, not drawn"]
    assert not panels[1].texts


def test_a_model_without_a_value_is_named_in_place_of_a_bar() -> None:
    scores = example_scores(3)
    gone = (scores["arm"] == "default") & (scores["strategy"] == "scratch") & (scores["metric"] == "hd95")
    scores.loc[gone, "value"] = np.nan
    panel = figures.mean_with_interval(describe(scores, 0.05), "hd95").axes[0]
    assert len(panel.patches) == 5
    assert [text.get_text() for text in panel.texts] == ["no value"]


def test_every_case_is_a_line_whose_style_says_better_worse_or_level() -> None:
    scores = example_scores(5, gain=0.05)
    panels = figures.paired_slopes(scores, "hd95").axes
    assert [len(panel.lines) for panel in panels] == [5] * 9
    assert {line.get_linestyle() for panel in panels for line in panel.lines} == {"-"}  # lower HD95 is better
    same = scores.assign(value=1.0)
    assert {line.get_linestyle() for line in figures.paired_slopes(same, "hd95").axes[0].lines} == {":"}
    bottom = panels[0].get_ylim()[0]
    assert bottom == 0


@pytest.mark.parametrize("n_cases", [1, 2])
def test_few_cases_and_one_strategy_are_drawn(n_cases: int, tmp_path: Path) -> None:
    scores = example_scores(n_cases)
    scores = scores[scores["strategy"] == "scratch"]
    save(figures.mean_with_interval(describe(scores, 0.05), "dice"), tmp_path / "mean.png")
    save(figures.paired_slopes(scores, "hd95"), tmp_path / "paired.png")
    pairs = volume_pairs(scores)
    save(figures.volume_agreement(pairs, bland_altman(pairs, 0.05)), tmp_path / "volumes.png")
    for file in tmp_path.iterdir():
        with Image.open(file) as picture:
            assert picture.info["dpi"][0] == pytest.approx(PRINT_DPI, abs=1)
            assert np.asarray(picture).std() > 0


def test_a_metric_that_is_not_there_gives_an_empty_figure() -> None:
    scores = example_scores(2)
    assert not figures.mean_with_interval(describe(scores, 0.05), "nsd_1mm").axes[0].patches
    assert not figures.paired_slopes(scores, "nsd_1mm").axes[0].lines


def test_volume_agreement_has_a_point_per_case_and_model() -> None:
    pairs = volume_pairs(example_scores(4))
    figure = figures.volume_agreement(pairs, bland_altman(pairs, 0.05))
    points = sum(len(part.get_offsets()) for panel in figure.axes for part in panel.collections)  # type: ignore[attr-defined]
    assert points == 4 * 6 * 3
    keys = [text.get_text() for text in figure.legends[0].get_texts()]
    assert keys[2:] == ["thick: mean difference", "thin: 95% limits of agreement"]


def test_detection_by_size_shows_the_found_share() -> None:
    lesions = example_lesions(example_scores(4, arms=("default",)))
    figure = figures.detection_by_size(detection_by_size(lesions))
    panel = next(panel for panel in figure.axes if panel.get_title() == "WT")
    labels = [text.get_text() for text in panel.get_xticklabels()]
    assert labels[0].startswith("tiny")
    assert "(n = 4)" in labels[0]
    assert "0 to 65" in labels[0]
    assert "from 4189" in labels[-1]
    assert panel.get_xlabel() == "Lesion volume (mm³)"
    shares = [list(map(float, np.asarray(part.lines[0].get_ydata()))) for part in panel.containers]  # type: ignore[attr-defined]
    assert sorted(shares) == [[0.0, 1.0], [1.0, 1.0]]  # scratch misses the tiny ones, fine-tuned finds all
    empty = figures.detection_by_size(detection_by_size(lesions.iloc[:0]))
    assert [text.get_text() for text in empty.axes[0].texts] == ["no lesion table"]


def test_pretrained_models_have_bars_and_stay_out_of_the_pairs() -> None:
    six = example_scores(4, arms=("default",))
    nine = pd.concat([six, six[six["strategy"] == "scratch"].assign(strategy="pretrained", value=0.25)])
    bars = figures.mean_with_interval(describe(nine, 0.05), "dice")
    assert [text.get_text() for text in bars.legends[0].get_texts()] == [
        "pretrained only",
        "fine-tuned",
        "from scratch",
    ]
    assert {round(bar.get_height(), 2) for bar in bars.axes[0].patches} >= {0.25}
    lines = [list(line.get_ydata()) for line in figures.paired_slopes(nine, "dice").axes[0].lines]
    assert lines == [list(line.get_ydata()) for line in figures.paired_slopes(six, "dice").axes[0].lines]
    pairs = volume_pairs(nine)
    keys = figures.volume_agreement(pairs, bland_altman(pairs, 0.05)).legends[0].get_texts()
    assert [text.get_text() for text in keys][:2] == ["fine-tuned", "from scratch"]


def test_a_figure_shows_itself_in_a_notebook() -> None:
    figure = figures.paired_slopes(example_scores(2), "dice")
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_arms_keep_their_colour_and_unknown_ones_get_another() -> None:
    assert len({figures.arm_colour(arm) for arm in ("default", "tversky_bce", "segresnet", "mine")}) == 4
    assert len({figures.arm_marker(arm) for arm in ("default", "tversky_bce", "segresnet", "mine")}) == 4


def seven_arms() -> pd.DataFrame:
    """The example's three arms, and the first one's scores under the names of the four others."""
    three = example_scores(2)
    first = three[three["arm"] == "default"]
    return pd.concat(
        [three, *(first.assign(arm=arm) for arm in ARMS if arm not in set(three["arm"]))], ignore_index=True
    )


def test_seven_arms_are_told_apart_and_have_room() -> None:
    assert len({figures.arm_colour(arm) for arm in ARMS}) == len({figures.arm_marker(arm) for arm in ARMS}) == 7
    scores = seven_arms()
    bars = figures.mean_with_interval(describe(scores, 0.05), "dice")
    assert len(bars.axes[0].get_xticks()) == 7
    assert bars.get_figwidth() / len(bars.axes) / len(bars.axes[0].patches) >= 0.25, "inches a bar"
    pairs = volume_pairs(scores)
    assert len(figures.volume_agreement(pairs, bland_altman(pairs, 0.05)).axes) == 21


def test_captions_say_what_a_figure_shows_and_what_not() -> None:
    found = figures.captions(["mean_dice.png", "detection_by_size.png"])
    assert [entry["file"] for entry in found] == ["mean_dice.png", "detection_by_size.png"]
    assert all(entry["shows"] and entry["cannot_show"] for entry in found)
    with pytest.raises(KeyError):
        figures.captions(["other.png"])
