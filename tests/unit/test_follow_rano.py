"""RANO-BM's imaging part at the borders of its rules, with diameters whose sums can be worked out by hand."""

import math
import re
from pathlib import Path

import pytest

from brainmets.screening.rano import Joined, Measured, assess, target_lesions
from brainmets.screening.repeatability import DECLARED, Repeatability


def history(*diameters):
    """A lesion's diameters: 0 is absent, None not evaluable, "merged" is that, a negative one lies below the point."""
    rows = []
    for one in diameters:
        if one is None or isinstance(one, str):
            rows.append(Measured(one or "not evaluable", 0.0))
        else:
            rows.append(Measured("absent" if one == 0 else "below" if one < 0 else "measured", abs(one)))
    return rows


def categories(lesions, targets=(1,), new=(), joined=None, usable=None, **options):
    dates = len(next(iter(lesions.values()))) if lesions else len(usable)
    at = [[] for _ in range(dates)]
    for date, lesion in new:
        at[date].append(lesion)
    found = assess(lesions, targets, joined or Joined(), at, usable or [True] * dates, **options)
    return [one.category for one in found]


def last(*diameters, **options):
    return categories({1: history(*diameters)}, **options)[-1]


@pytest.mark.parametrize(
    ("now", "category"),
    [(59.95, "SD"), (60.0, "PD"), (60.1, "PD")],
    ids=["19.9%", "20%", "20.2%"],
)
def test_up_by_a_fifth(now, category):
    """From 50 mm: 59.95 is up 19.9%, 60 is up 20%, and each by more than 5 mm."""
    assert last(50.0, now) == category


@pytest.mark.parametrize(
    ("now", "category"), [(35.05, "SD"), (35.0, "PR"), (34.9, "PR")], ids=["29.9%", "30%", "30.2%"]
)
def test_down_by_three_tenths(now, category):
    assert last(50.0, now) == category


@pytest.mark.parametrize(("now", "category"), [(24.9, "SD"), (25.0, "PD")], ids=["4.9 mm", "5 mm"])
def test_up_by_five_millimetres(now, category):
    """From 20 mm either is up by more than 20%."""
    assert last(20.0, now) == category


@pytest.mark.parametrize("baseline", [10.1, 11.3, 13.7, 25.3, 33.3, 50.0, 70.7])
def test_borders_that_floats_miss_by_a_hair(baseline):
    """Sums of floats, such as 3 * 10.1 / 3, must not fall off the border."""
    third = baseline * 0.7 / 3
    assert last(baseline, third + third + third) == "PR"
    lesions = {n: history(baseline, 0.1 + baseline * 1.2 - 0.1 if n == 1 else baseline * 1.2) for n in (1, 2, 3)}
    if 0.2 * baseline >= 5:
        assert categories(lesions, (1, 2, 3))[-1] == "PD"
    five = {1: history(20.0, 20.0 + 5.1 - 0.1)}
    assert categories(five)[-1] == "PD"


def test_a_fifth_of_the_sum_needs_one_lesion_up_by_5_mm():
    """Four lesions of 10 mm, each up 2.5 mm: the sum is up 25%, no lesion by 5 mm."""
    lesions = {number: history(10.0, 12.5) for number in range(1, 5)}
    assert categories(lesions, (1, 2, 3, 4))[-1] == "SD"
    lesions[1] = history(10.0, 15.0)
    assert categories(lesions, (1, 2, 3, 4))[-1] == "PD"


def test_5_mm_need_a_fifth_of_the_sum():
    lesions = {1: history(10.0, 15.0), 2: history(60.0, 60.0)}
    assert categories(lesions, (1, 2))[-1] == "SD"


def test_progression_is_from_the_nadir_and_response_from_the_baseline():
    """50, 30 (down 40%), 36 (up 20% from the nadir, by 6 mm, though down 28% from the baseline)."""
    found = assess({1: history(50.0, 30.0, 36.0)}, [1], Joined(), [[], [], []], [True] * 3)
    assert [one.category for one in found] == ["baseline", "PR", "PD"]
    shown = found[2]
    assert (shown.sum_mm, shown.baseline_mm, shown.nadir_mm, shown.nadir_date) == (36.0, 50.0, 30.0, 1)
    assert shown.from_baseline_percent == pytest.approx(-28) and shown.from_nadir_percent == pytest.approx(20)
    assert (shown.largest_increase_mm, shown.largest_increase) == (6.0, 1)
    assert "30.0 mm" in shown.why and "6.0 mm" in shown.why


def test_the_nadir_is_of_earlier_dates():
    """A sum that is the lowest so far is compared with the one before."""
    found = assess({1: history(50.0, 40.0)}, [1], Joined(), [[], []], [True] * 2)
    assert found[1].nadir_mm == 50.0 and found[1].from_nadir_percent == pytest.approx(-20)


def test_complete_response_needs_all_lesions_gone():
    gone, left = history(20.0, 0), history(8.0, 6.0)
    assert categories({1: gone})[-1] == "CR"
    assert categories({1: gone, 2: left})[-1] == "PR", "a non-target lesion is left"
    assert categories({1: history(20.0, -4.0)})[-1] == "PR", "a candidate below the point is left"
    assert categories({1: gone, 2: history(8.0, None)})[-1] == "PR", "a non-target lesion was not in view"


def test_a_lesion_that_is_back_after_a_complete_response_is_progression_however_small():
    """As RECIST 1.1 answers of lesions that reappear; at the next date it is an old one, and counts by its size."""
    assert last(20.0, 0, 3.0) == "PD"
    found = assess({1: history(20.0, 0, 3.0, 4.0)}, [1], Joined(), [[]] * 4, [True] * 4)
    assert [one.category for one in found] == ["baseline", "CR", "PD", "PR"]
    assert found[2].why == "back after a complete response: lesion 1"
    assert categories({1: history(20.0, 0, 0), 2: history(8.0, 0, 3.0)})[-1] == "PD", "a non-target lesion"
    assert last(20.0, 0, -3.0) == "PR", "a candidate below the point is not back"
    assert last(20.0, 0, -3.0, 3.0) == "PD"
    assert last(20.0, 0, 3.0, immunotherapy=True) == "PR", "as a new lesion"


def test_a_lesion_that_is_back_without_a_complete_response_is_added():
    """8 mm are left of 30: the one that is back counts from 5 mm on."""
    other = history(10.0, 8.0, 8.0)
    assert categories({1: history(20.0, 0, 4.9), 2: other}, (1, 2))[-1] == "PR"
    assert categories({1: history(20.0, 0, 5.0), 2: other}, (1, 2))[-1] == "PD"


def test_a_later_date_changes_no_earlier_category():
    """A candidate that is above the point at a later date only is no lesion yet; a part is none before it splits."""
    candidate = {1: history(20.0, 0, 0), 2: history(0, -4.0, 5.0)}
    assert categories(candidate)[1] == "CR"
    assert categories({1: history(0, -4.0, 5.0)}, ())[1] == "NE"
    part = {1: history(20.0, 21.0, 14.0), 2: history(None, 0, 6.0)}
    found = assess(part, [1], Joined({2: 1}), [[]] * 3, [True] * 3)
    assert [one.sum_mm for one in found] == [20.0, 21.0, 20.0]


def test_a_new_lesion_is_progression_but_for_immunotherapy():
    lesions = {1: history(50.0, 30.0), 2: history(0, 6.0)}
    assert categories(lesions, new=[(1, 2)])[-1] == "PD"
    found = assess(lesions, [1], Joined(), [[], [2]], [True] * 2, immunotherapy=True)
    assert found[-1].category == "PR" and "lesion 2" in found[-1].why


def test_under_immunotherapy_no_complete_response_beside_a_new_lesion():
    lesions = {1: history(50.0, 0), 2: history(0, 6.0)}
    assert categories(lesions, new=[(1, 2)], immunotherapy=True)[-1] == "PR"


def test_a_date_without_a_scan_is_not_evaluable_and_no_nadir():
    lesions = {1: history(50.0, None, 50.0)}
    found = assess(lesions, [1], Joined(), [[], [], []], [True, False, True])
    assert [one.category for one in found] == ["baseline", "NE", "SD"]
    assert found[1].sum_mm is None and found[2].nadir_mm == 50.0


def test_a_target_out_of_view_is_not_evaluable_unless_a_new_lesion_shows_progression():
    lesions = {1: history(50.0, None), 2: history(30.0, 30.0), 3: history(0, 6.0)}
    assert categories(lesions, (1, 2))[-1] == "NE"
    assert categories(lesions, (1, 2), new=[(1, 3)])[-1] == "PD"


def test_the_baseline_is_the_first_usable_date():
    assert categories({1: history(None, 50.0, 35.0)}, usable=[False, True, True]) == ["NE", "baseline", "PR"]


def test_without_a_target_lesion():
    small = {1: history(6.0, 6.0)}
    assert categories(small, ())[-1] == "SD"
    assert categories({1: history(6.0, 0)}, ())[-1] == "CR"
    assert categories({1: history(0, 6.0)}, (), new=[(1, 1)])[-1] == "PD"


def test_without_any_lesion_there_is_nothing_to_assess():
    assert categories({}, (), usable=[True, True]) == ["baseline", "NE"]


def test_the_parts_of_a_target_are_added():
    """30 mm split into 14 and 13: down 10%, not down 53%."""
    lesions = {1: history(30.0, 14.0), 2: history(0, 13.0)}
    found = assess(lesions, [1], Joined({2: 1}), [[], []], [True] * 2)
    assert found[1].sum_mm == 27.0 and found[1].category == "SD"
    assert found[1].largest_increase_mm == pytest.approx(-3.0)


def test_merged_targets_count_once_and_as_a_whole():
    """12 and 13 mm became one of 27 mm: up 8%, and no lesion is up by the 15 mm that 12 to 27 would be."""
    lesions = {1: history(13.0, 27.0), 2: history(12.0, "merged")}
    found = assess(lesions, [1, 2], Joined({}, {2: 1}), [[], []], [True] * 2)
    assert found[1].sum_mm == 27.0 and found[1].largest_increase_mm == pytest.approx(2.0)
    assert found[1].category == "SD"


def test_a_target_that_merged_into_a_non_target_counts_as_the_whole_from_then_on():
    lesions = {1: history(12.0, "merged"), 2: history(8.0, 21.0)}
    found = assess(lesions, [1], Joined({}, {1: 2}), [[], []], [True] * 2)
    assert [one.sum_mm for one in found] == [12.0, 21.0]
    assert found[1].largest_increase_mm == pytest.approx(1.0) and found[1].category == "SD"


def test_the_order_of_lesions_does_not_matter():
    lesions = {n: history(10.0 + n / 3, 11.0 + n / 7) for n in range(1, 6)}
    turned = dict(reversed(lesions.items()))
    one, other = (assess(given, list(given), Joined(), [[], []], [True] * 2) for given in (lesions, turned))
    assert [(a.category, a.sum_mm, a.largest_increase) for a in one] == [
        (a.category, a.sum_mm, a.largest_increase) for a in other
    ]


def test_up_to_five_targets_the_largest_measurable():
    baseline = {number: (10.0 + number, 100.0, True) for number in range(1, 8)}
    baseline[9] = (40.0, 900.0, False)
    assert target_lesions(baseline) == [3, 4, 5, 6, 7]


def test_of_equal_diameters_the_larger_volume_then_the_lower_number():
    baseline = dict.fromkeys(range(1, 8), (12.0, 100.0, True)) | {8: (12.0, 101.0, True)}
    assert target_lesions(baseline) == [1, 2, 3, 4, 8]
    assert target_lesions({}) == []


def test_within_the_measurement_error():
    known = Repeatability.of_percent(30)
    assert known.within(100.0, 130.0) and known.within(130.0, 100.0)
    assert not known.within(100.0, 130.1)
    assert known.within(0.0, 0.0) and not known.within(0.0, 1.0) and not known.within(1.0, 0.0)


def test_the_limits_go_by_size():
    known = Repeatability(((100.0, 2.0), (float("inf"), 1.2)), "here")
    assert known.factor(100.0) == 2.0 and known.factor(100.1) == 1.2
    assert known.within(60.0, 115.0) and not known.within(150.0, 200.0)


@pytest.mark.parametrize("percent", [0.0, -5.0, float("inf"), float("nan")])
def test_a_repeatability_that_is_none(percent):
    with pytest.raises(ValueError, match="--repeatability"):
        Repeatability.of_percent(percent)


def test_the_declared_limits_narrow_with_size():
    factors = [factor for _, factor in DECLARED.limits]
    assert factors == sorted(factors, reverse=True) and all(factor > 1 for factor in factors)


def test_the_declared_limits_are_those_that_were_measured_rounded_outwards():
    results = (Path(__file__).parents[2] / "benchmarks/results/follow_up.md").read_text(encoding="utf-8")
    table = results.partition("## Repeatability of a model\n")[2].partition("\n## ")[0]
    row = re.compile(r"^\| (?:above )?(\d+)(?: to (\d+))? \| \d.*? \| (\d\.\d+) \(", re.M)
    measured = {(float(low), float(high or math.inf)): float(factor) for low, high, factor in row.findall(table)}
    low = 0.0
    for most, factor in DECLARED.limits:
        assert factor == pytest.approx(math.ceil(20 * measured[low, most]) / 20)
        low = most
    assert low == math.inf
