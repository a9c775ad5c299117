"""Lesions over dates: every case small enough to be worked out by hand, on a lattice of 1 mm."""

import random

import numpy as np
import pytest

from brainmets.screening.lesion_tracks import OVERLAP_WORTH, Event, Pair, Place, Scan, assign, compare, follow


def box(x, y=0, z=0, size=4):
    """A cube of voxels with its lowest corner there."""
    return np.argwhere(np.ones((size, size, size), bool)) + np.array([x, y, z])


def scan(accepted, below=None, **reach):
    voxels = {**accepted, **(below or {})}
    return Scan(voxels, frozenset(accepted), **reach)


def kinds(tracks):
    return [(event.date, event.kind, event.track, event.other) for event in tracks.events]


def states(tracks, track):
    return [(place.state, place.lesion) for place in tracks.places[track]]


def test_how_two_cubes_lie_to_each_other():
    pair = compare({1: box(0)}, {2: box(2)}, 1.0)[1, 2]
    assert (pair.dice, pair.of_earlier, pair.of_later, pair.distance_mm, pair.gap_mm) == (0.5, 0.5, 0.5, 2.0, 0.0)
    assert pair.worth == pytest.approx(OVERLAP_WORTH * 0.5 + 10 / 12)


def test_the_lattice_side_counts():
    assert compare({1: box(0)}, {2: box(2)}, 2.5)[1, 2].distance_mm == 5.0


@pytest.mark.parametrize(
    ("size", "away", "matched"),
    [(1, 10, True), (1, 11, False), (20, 24, True), (20, 25, False)],
    ids=["centroid at 10 mm", "centroid beyond", "surface at 5 mm", "surface beyond"],
)
def test_how_far_a_lesion_may_move(size, away, matched):
    """A cube of 20 ends at voxel 19, so that one from voxel 24 on is 5 mm away; their centroids are 24 mm apart."""
    tracks = follow([scan({1: box(0, size=size)}), scan({1: box(away, size=size)})], 1.0)
    assert (len(tracks.places) == 1) is matched


def test_a_stable_lesion_is_one_track_without_events():
    tracks = follow([scan({1: box(0)}), scan({7: box(1)}), scan({3: box(0)})], 1.0)
    assert states(tracks, 1) == [("measured", 1), ("measured", 7), ("measured", 3)]
    assert tracks.events == []


def test_overlap_outweighs_nearness():
    """The nearer centroid belongs to a lesion beside; the one that overlaps is the same."""
    earlier = {1: box(0, size=6)}
    later = {1: box(5, size=12), 2: box(0, y=7, size=2)}
    pairs = compare(earlier, later, 1.0)
    assert pairs[1, 2].distance_mm < pairs[1, 1].distance_mm and pairs[1, 2].dice == 0 < pairs[1, 1].dice
    assert assign(pairs) == {1: 1}


def test_the_assignment_is_optimal_not_greedy():
    """The nearest pair (a lesion moved by 1) would leave the other without a partner within 10 mm."""
    earlier, later = {1: box(0, size=1), 2: box(8, size=1)}, {1: box(7, size=1), 2: box(17, size=1)}
    assert assign(compare(earlier, later, 1.0)) == {1: 1, 2: 2}


def test_birth_and_vanishing():
    tracks = follow([scan({1: box(0), 2: box(30)}), scan({1: box(0), 2: box(60)})], 1.0)
    assert kinds(tracks) == [(1, "vanishing", 2, None), (1, "birth", 3, None)]
    assert states(tracks, 3) == [("absent", None), ("measured", 2)]
    assert tracks.new == [[], [3]]


def test_a_split():
    tracks = follow([scan({1: box(0, size=10)}), scan({1: box(0, size=5), 2: box(6, size=4)})], 1.0)
    assert kinds(tracks) == [(1, "split", 2, 1)]
    assert tracks.joined.split_from == {2: 1} and tracks.new == [[], []]


def test_a_split_into_three():
    later = {1: box(0, size=4), 2: box(6, size=4), 3: box(0, y=6, size=3)}
    tracks = follow([scan({1: box(0, size=10)}), scan(later)], 1.0)
    assert kinds(tracks) == [(1, "split", 2, 1), (1, "split", 3, 1)]


def test_a_merge():
    tracks = follow([scan({1: box(0, size=5), 2: box(6, size=4)}), scan({1: box(0, size=10)})], 1.0)
    assert kinds(tracks) == [(1, "merge", 2, 1)]
    assert states(tracks, 2) == [("measured", 2), ("merged", None)]
    assert tracks.joined.merged_into == {2: 1}


def test_a_part_is_not_taken_for_a_neighbour_that_went():
    """A lesion splits beside one that vanishes: the part lies in the first, though the second is within 10 mm."""
    earlier = {1: box(0, size=10), 2: box(14, size=3)}
    later = {1: box(0, size=5), 2: box(6, size=4)}
    assert kinds(follow([scan(earlier), scan(later)], 1.0)) == [(1, "vanishing", 2, None), (1, "split", 3, 1)]


def test_a_neighbour_that_grows_does_not_swallow_one_that_is_left():
    earlier, later = {1: box(0), 2: box(9)}, {1: box(0, size=8), 2: box(9)}
    assert kinds(follow([scan(earlier), scan(later)], 1.0)) == []


def test_below_the_threshold_is_not_gone():
    tracks = follow([scan({1: box(0)}), scan({}, {5: box(1)}), scan({1: box(0)})], 1.0)
    assert states(tracks, 1) == [("measured", 1), ("below", 5), ("measured", 1)]
    assert kinds(tracks) == [(1, "below", 1, None), (2, "return", 1, None)]


def test_below_then_gone_is_said_at_both_dates():
    tracks = follow([scan({1: box(0)}), scan({}, {2: box(0)}), scan({}), scan({})], 1.0)
    assert kinds(tracks) == [(1, "below", 1, None), (2, "vanishing", 1, None)]


def test_what_was_already_pointed_at_is_not_new():
    tracks = follow([scan({1: box(40)}, {2: box(0)}), scan({1: box(40), 2: box(0)})], 1.0)
    assert kinds(tracks) == [(1, "pointed at", 2, None)]
    assert states(tracks, 2) == [("below", 2), ("measured", 2)]
    assert tracks.new == [[], []]


def test_a_lesion_that_was_missed_once_keeps_its_number():
    tracks = follow([scan({1: box(0)}), scan({}), scan({4: box(0)})], 1.0)
    assert states(tracks, 1) == [("measured", 1), ("absent", None), ("measured", 4)]
    assert kinds(tracks) == [(1, "vanishing", 1, None), (2, "return", 1, None)]
    assert tracks.new == [[], [], []]


def test_a_date_without_a_scan_says_nothing():
    tracks = follow([scan({1: box(0)}), None, scan({1: box(0), 2: box(50)})], 1.0)
    assert states(tracks, 1) == [("measured", 1), ("not evaluable", None), ("measured", 1)]
    assert states(tracks, 2)[1] == ("not evaluable", None)
    assert kinds(tracks) == [(2, "birth", 2, None)]


def test_where_a_scan_does_not_reach_nothing_has_vanished():
    reach = np.ones((20, 4, 4), bool)
    tracks = follow([scan({1: box(0), 2: box(30)}), scan({1: box(0)}, reach=reach)], 1.0)
    assert states(tracks, 2) == [("measured", 2), ("not evaluable", None)]
    assert tracks.events == []


def test_what_no_earlier_scan_reaches_is_not_new():
    reach = np.ones((20, 4, 4), bool)
    tracks = follow([scan({1: box(0)}, reach=reach), scan({1: box(0), 2: box(30)})], 1.0)
    assert kinds(tracks) == [(1, "first reached", 2, None)] and tracks.new == [[], []]


def test_half_of_a_lesion_within_reach_is_enough():
    earlier = scan({1: box(0), 2: box(30)})
    for end, state in ((32, "absent"), (31, "not evaluable")):
        tracks = follow([earlier, scan({1: box(0)}, reach=np.ones((end, 4, 4), bool))], 1.0)
        assert states(tracks, 2)[1][0] == state


def test_no_lesion_at_any_date():
    tracks = follow([scan({}), scan({}, {1: box(0)}), None], 1.0)
    assert (tracks.places, tracks.events, tracks.new) == ({}, [], [[], [], []])


def test_the_first_usable_date_has_no_events():
    tracks = follow([None, scan({1: box(0)}), scan({1: box(0)})], 1.0)
    assert tracks.events == [] and states(tracks, 1)[0] == ("not evaluable", None)


def test_the_order_of_rows_does_not_matter():
    first = {number: box(12 * number, size=4) for number in range(1, 7)}
    second = {7 - number: box(12 * number + 1, size=4) for number in range(2, 7)} | {9: box(12, y=40)}
    wanted = follow([scan(first, {8: box(12, y=40)}), scan(second)], 1.0)
    for seed in range(5):
        shuffled = []
        for voxels in ({**first, 8: box(12, y=40)}, second):
            items = list(voxels.items())
            random.Random(seed).shuffle(items)
            shuffled.append({number: np.random.default_rng(seed).permutation(one) for number, one in items})
        got = follow([Scan(shuffled[0], frozenset(first)), Scan(shuffled[1], frozenset(second))], 1.0)
        assert got == wanted


def test_numbers_persist_over_many_dates():
    """Lesion 1 and 2 change their numbers in the scans' own tables; their tracks keep theirs."""
    dates = [scan({1: box(0), 2: box(30)}), scan({1: box(30), 2: box(0)}), scan({5: box(0), 6: box(30)})]
    tracks = follow(dates, 1.0)
    assert [place.lesion for place in tracks.places[1]] == [1, 2, 5]
    assert [place.lesion for place in tracks.places[2]] == [2, 1, 6]


def test_merged_and_split_again():
    apart, whole = {1: box(0, size=5), 2: box(6, size=4)}, {1: box(0, size=10)}
    tracks = follow([scan(apart), scan(whole), scan(apart)], 1.0)
    assert kinds(tracks) == [(1, "merge", 2, 1), (2, "split", 3, 1)]
    assert tracks.places[2][2] == Place("merged")


def test_a_pair_that_may_not_match_is_in_no_assignment():
    assert not Pair(0.0, 0.0, 0.0, 10.1, 5.1).may_match
    assert assign({}) == {}
    assert Event(1, "birth", 2).other is None
