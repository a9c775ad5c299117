"""FROC: a case worked out by hand, MONAI's curve, and rules for ties, empty cases and what is never found."""

import math
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from detection_examples import make_hits, random_hits, three_patients
from monai.metrics.froc import compute_froc_curve_data, compute_froc_score

from brainmets.scoring.candidates import Hits
from brainmets.statistics import detection_figures, froc
from brainmets.statistics.comparisons import Settings
from brainmets.vocabulary import ARMS

QUICK = Settings(0.05, 500, 1)
SHORT = Settings(0.05, 200, 1)


def at(table: pd.DataFrame, size: str = "all") -> list[float]:
    return table.loc[table["size"] == size, "sensitivity"].tolist()


def test_three_patients_by_hand() -> None:
    """Tied scores enter together; the case without anything counts among three."""
    points = froc.curve(three_patients(), "TC", [froc.ALL_SIZES])
    assert points["threshold"].tolist() == [math.inf, 0.9, 0.7, 0.5, 0.3]
    assert points["false_positives"].tolist() == [0, 1 / 3, 2 / 3, 2 / 3, 1]
    assert points["found"].tolist() == [0, 1, 2, 3, 3]
    assert points["sensitivity"].tolist() == [0, 1 / 4, 1 / 2, 3 / 4, 3 / 4], "one lesion is never found"
    table = froc.table(three_patients(), "TC", QUICK)
    assert at(table) == [0, 0, 1 / 4, 3 / 4, 3 / 4, 3 / 4, 3 / 4, 3.25 / 7]
    assert at(table, "<3 mm") == [0, 0, 1, 1, 1, 1, 1, 5 / 7]
    assert at(table, "3-5 mm") == [0] * 8, "nothing reaches the lesion of 4 mm"
    assert at(table, "5-10 mm") == at(table, ">=10 mm") == [0, 0, 0, 1, 1, 1, 1, 4 / 7]
    assert set(table["cases"]) == {3}
    first = table[table["size"] == "all"]
    assert first["threshold"].tolist()[:7] == [math.inf, math.inf, 0.9, 0.3, 0.3, 0.3, 0.3], "the lowest that keeps it"
    assert first["attained"].tolist()[:7] == [0, 0, 1 / 3, 1, 1, 1, 1]


def monai(hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """MONAI marks a lesion that nothing reaches with the score 0."""
    found = hits.lesions["score"].to_numpy(float)
    false = hits.false["score"].to_numpy(float)
    return compute_froc_curve_data(false, np.where(np.isfinite(found), found, 0.0), len(found), len(hits.cases))


@pytest.mark.parametrize("seed", range(5))
def test_the_points_are_monais(seed: int) -> None:
    hits = random_hits(np.random.default_rng(seed), 12)
    assert np.isinf(hits.lesions["score"]).any(), "else MONAI leaves out the lowest threshold"
    points = froc.curve(hits, "TC", [froc.ALL_SIZES])
    false, found = monai(hits)
    np.testing.assert_array_equal(points["false_positives"][::-1], false)
    np.testing.assert_array_equal(points["sensitivity"][::-1], found)


def test_the_score_is_monais_where_every_rate_is_attained() -> None:
    """Eight cases; each score is that of one lesion and of so many false candidates as make the next rate."""
    cases = [f"c{number}" for number in range(8)]
    lesions, false = [("c0", 6.0, -math.inf)], []
    before = 0
    for place, rate in enumerate(froc.RATES):
        score = 0.9 - place / 10
        lesions.append((cases[place % 3], 6.0, score))
        false += [(cases[number % 8], score) for number in range(before, round(8 * rate))]
        before = round(8 * rate)
    hits = make_hits(cases, lesions, false)
    table = froc.table(hits, "TC", QUICK)
    assert at(table)[:-1] == [place / 8 for place in range(1, 8)]
    assert at(table)[-1] == pytest.approx(compute_froc_score(*monai(hits), froc.RATES), abs=1e-15)


def test_a_rate_that_is_between_two_points_is_not_interpolated_as_monai_does() -> None:
    hits = make_hits("ab", [("a", 6.0, 0.8), ("a", 6.0, -math.inf)], [("a", 0.8), ("b", 0.8)])
    assert at(froc.table(hits, "TC", QUICK))[2] == 0, "at half a false positive a case nothing is attained"
    assert compute_froc_score(*monai(hits), (0.5,)) == 0.25


def test_what_is_missing_is_never_zero_and_never_silent() -> None:
    hits = make_hits("ab", [("a", 6.0, 0.8), ("b", 7.0, 0.6)], [("b", 0.7)])
    table = froc.table(hits, "TC", QUICK).set_index(["size", "at"])
    none = table.loc["<3 mm"]
    assert none[["sensitivity", "low", "high"]].isna().all(axis=None)
    assert set(none["lesions"]) == {0}
    assert all("no such lesion" in note for note in none["note"])
    assert table.loc[("all", "8"), "note"].startswith("all candidates accepted: 0.5 false positives a case")
    assert table.loc[("all", "8"), "sensitivity"] == 1
    assert table.loc[("all", "8"), "low"] < 1, "all found is no certainty"
    other = froc.table(hits, "WT", QUICK)
    assert other["sensitivity"].isna().all()
    assert set(other["cases"]) == {2}, "a region without lesions still has its cases"


def test_the_lesions_of_one_patient_say_nothing_of_others() -> None:
    hits = make_hits("ab", [("a", 6.0, 0.8), ("a", 7.0, 0.6)], [("b", 0.7)])
    row = froc.table(hits, "TC", QUICK).set_index(["size", "at"]).loc[("all", "mean")]
    assert (row["low"], row["high"]) == (0, 1)
    assert "one patient" in row["note"]


def test_the_highest_score_may_break_every_rate() -> None:
    hits = make_hits("a", [("a", 6.0, 0.8)], [("a", 0.9)] * 9)
    table = froc.table(hits, "TC", QUICK).set_index(["size", "at"])
    assert table.loc[("all", "8"), "sensitivity"] == 0
    assert table.loc[("all", "8"), "note"].endswith("nothing is accepted")


def test_a_resample_is_the_patients_drawn_with_all_that_is_theirs() -> None:
    """Weights against a study in which the patients stand as often as they were drawn."""
    random = np.random.default_rng(3)
    hits = random_hits(random, 6)
    patients = {case: f"q{number // 2}" for number, case in enumerate(hits.cases)}
    steps = froc.Steps.of(hits, "TC", froc.SIZES, patients)
    weights = np.array([[2.0, 0.0, 1.0]])
    copies = [("q0", 0), ("q0", 1), ("q2", 0)]
    cases, lesions, false = [], [], []
    for patient, copy in copies:
        for case in [case for case in hits.cases if patients[case] == patient]:
            name = f"{case}_{copy}"
            cases.append(name)
            own = hits.lesions[hits.lesions["case"] == case]
            lesions += [(name, row.diameter_mm, row.score) for row in own.itertuples()]
            false += [(name, row.score) for row in hits.false[hits.false["case"] == case].itertuples()]
    table = froc.table(make_hits(cases, lesions, false), "TC", QUICK)
    for size in (size.name for size in froc.SIZES):
        np.testing.assert_allclose(steps.shares(weights, froc.RATES)[size][0], at(table, size)[:-1])


def test_intervals_repeat_and_count_patients() -> None:
    hits = random_hits(np.random.default_rng(4), 12)
    one = froc.table(hits, "TC", QUICK)
    pd.testing.assert_frame_equal(one, froc.table(hits, "TC", QUICK))
    in_pairs = {case: f"q{number // 2}" for number, case in enumerate(hits.cases)}
    paired = froc.table(hits, "TC", replace(QUICK, patients=in_pairs))
    assert at(one)[-1] == at(paired)[-1]
    everything = one[one["size"] == "all"]
    assert (everything["low"] <= everything["sensitivity"]).all()
    assert (everything["sensitivity"] <= everything["high"]).all()
    assert not np.allclose(one["low"], paired["low"], equal_nan=True)
    with pytest.raises(ValueError, match="nothing says whose scan"):
        froc.table(hits, "TC", replace(QUICK, patients={"p00": "q"}))


def test_ten_thousand_resamples_take_seconds() -> None:
    hits = random_hits(np.random.default_rng(5), 40)
    many = pd.concat([hits.false.assign(score=hits.false["score"] - step / 1000) for step in range(20)])
    start = time.perf_counter()
    froc.table(Hits(hits.cases, hits.lesions, many), "TC", Settings(0.05, 10_000, 1))
    assert time.perf_counter() - start < 10


def test_hits_that_no_curve_could_trust_are_refused() -> None:
    hits = three_patients()
    two = Hits(hits.cases, hits.lesions, hits.false.assign(strategy="scratch"))
    with pytest.raises(ValueError, match="of 2 models"):
        froc.curve(two, "TC")
    with pytest.raises(ValueError, match="rows of b, not among the 1 cases"):
        froc.curve(Hits(("a",), hits.lesions, hits.false), "TC")
    with pytest.raises(ValueError, match="each named once"):
        froc.curve(Hits(("a", "b", "c", "c"), hits.lesions, hits.false), "TC")
    with pytest.raises(ValueError, match="at least one"):
        froc.curve(Hits((), hits.lesions[:0], hits.false[:0]), "TC")
    for column in ("score", "diameter_mm"):
        with pytest.raises(ValueError, match=f"a {column} of case a, TC, is missing"):
            froc.curve(Hits(hits.cases, hits.lesions.assign(**{column: np.nan}), hits.false), "TC")


def test_the_figure_has_both_strategies_of_each_arm_and_reads_in_print() -> None:
    random = np.random.default_rng(6)
    parts = []
    for arm in ("default", "segresnet"):
        for strategy in ("finetune", "scratch", "pretrained"):
            curve = froc.band(random_hits(random, 8, model=(arm, strategy)), "TC", SHORT)
            parts.append(curve.assign(arm=arm, strategy=strategy, region="TC"))
    figure = detection_figures.froc(pd.concat(parts))
    assert [panel.get_title() for panel in figure.axes] == ["Default, TC", "SegResNet, TC"]
    for panel in figure.axes:
        assert [line.get_linestyle() for line in panel.get_lines()] == ["-", "--"]
        assert len({line.get_color() for line in panel.get_lines()}) == 2
        assert len(panel.collections) == 2
        assert panel.get_xscale() == "log"
    empty = detection_figures.froc(pd.concat(parts)[:0])
    assert [text.get_text() for text in empty.axes[0].texts] == ["no candidates"]
    with pytest.raises(ValueError, match="draw one"):
        detection_figures.froc(pd.concat([parts[0], parts[1].assign(region="WT")]))


def test_the_staircase_stands_at_what_the_rule_attains() -> None:
    points = froc.band(three_patients(), "TC", SHORT).assign(arm="default", strategy="finetune", region="TC")
    line = detection_figures.froc(points).axes[0].get_lines()[0]
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    assert line.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(x, [1 / 16, 1 / 3, 2 / 3, 1, 8])
    np.testing.assert_allclose(y, [0, 1 / 4, 3 / 4, 3 / 4, 3 / 4])


def test_all_models_in_two_tables_and_none_in_empty_ones() -> None:
    random = np.random.default_rng(7)
    models = {("default", name): random_hits(random, 5, model=("default", name)) for name in ("finetune", "scratch")}
    table, curves = froc.of_models(models, "TC", SHORT)
    assert table[["arm", "strategy"]].drop_duplicates().to_numpy().tolist() == [list(model) for model in models]
    assert set(curves["region"]) == {"TC"}
    empty = froc.of_models({}, "TC", SHORT)
    assert [list(one.columns) for one in empty] == [list(table.columns), list(curves.columns)]
    assert all(one.empty for one in empty)
    with pytest.raises(ValueError, match="rows of default finetune among those of default scratch"):
        froc.of_models({("default", "scratch"): models["default", "finetune"]}, "TC", SHORT)


def test_the_bands_limits_rise_with_the_rate() -> None:
    points = froc.band(random_hits(np.random.default_rng(3), 8), "TC", SHORT).sort_values("false_positives")
    within = points[points["false_positives"] <= froc.RATES[-1]].groupby("false_positives").max()  # what is attained
    assert within["low"].is_monotonic_increasing
    assert within["high"].is_monotonic_increasing
    assert within["sensitivity"].between(within["low"], within["high"]).all()


def test_more_than_four_arms_stand_in_rows() -> None:
    points = froc.band(three_patients(), "TC", SHORT).assign(strategy="finetune", region="TC")
    drawn = detection_figures.froc(pd.concat([points.assign(arm=arm) for arm in ARMS]))
    assert len(drawn.axes) == 7
    assert len({axes.get_subplotspec().rowspan.start for axes in drawn.axes}) == 2
    assert [axes.get_title() for axes in drawn.axes][-1] == "Residual encoder, TC"
