"""A follow-up of screened scans made by hand: its page, its table and its record. The registration is known."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from screened import Ball, make_screened

from brainmets import schemas
from brainmets.paths import FollowUpPaths
from brainmets.preparation.registration import Registration
from brainmets.report.redaction import leaks
from brainmets.screening import follow_page, followup
from brainmets.screening.followup import FollowUpError
from brainmets.screening.repeatability import Repeatability

STABLE = Ball((-30.0, 10.0, 10.0), 15.0, 0.99)
GROWING = (Ball((30.0, 10.0, 10.0), 12.0, 0.95), Ball((30.0, 10.0, 10.0), 24.0, 0.95))
GOING = Ball((0.0, -40.0, 20.0), 10.0, 0.9)
COMING = Ball((5.0, 45.0, 20.0), 10.0, 0.9)
DATES = ("2026-01-05", "2026-03-07", "2026-05-02")


@pytest.fixture(autouse=True)
def in_place(monkeypatch):
    """Heads made by hand all lie alike; the registration has tests of its own."""

    def register(fixed, moving, seed, mask):
        return Registration(sitk.Euler3DTransform(), 1.3, 1.3, 0.0, 0.0, 0.1, -0.1)

    monkeypatch.setattr(followup, "register", register)


def scan(folder, place, lesions, candidates=(), **record):
    record.setdefault("date", DATES[place])
    return make_screened(folder / f"scan-00001-{place:03d}", lesions, candidates, **record).folder


@pytest.fixture
def two(tmp_path):
    return [scan(tmp_path, 0, [STABLE, GROWING[0], GOING]), scan(tmp_path, 1, [STABLE, GROWING[1], COMING])]


def run(folders, out, **options):
    found = followup.run(folders, out, **options)
    files = FollowUpPaths(out)
    return (
        found,
        json.loads(files.record.read_text()),
        files.page.read_text(),
        schemas.read(files.table, schemas.FOLLOWED),
    )


def test_what_the_page_says(two, tmp_path):
    _, record, html, table = run(two, tmp_path / "out")
    assert "Research use only" in html and "Imaging part only" in html
    assert "corticosteroids" in html and "clinical status" in html and "include the oedema" not in html
    assert "Progressive disease on 2026-03-07" in html
    for number in range(1, 5):
        assert f'id="lesion-{number}"' in html
    assert html.count("<img") == 2 + 4 * 2, "the two figures, and each lesion at each date"
    assert "<script" not in html and "http://" not in html and "https://" not in html
    assert not leaks(html) and str(tmp_path) not in html
    assert {(event["kind"], event["lesion"]) for event in record["events"]} == {("vanishing", 3), ("birth", 4)}
    assert len(table) == 4 * 2


def test_the_record_has_its_provenance(two, tmp_path):
    _, record, _, _ = run(two, tmp_path / "out")
    provenance = record["provenance"]
    assert set(provenance["outputs"]) == {"follow.csv", "index.html"}
    assert {name.split("/")[0] for name in provenance["inputs"]} == set(DATES[:2])
    assert str(tmp_path) not in json.dumps(record)
    assert "benchmarks/results/follow_up.md" in record["repeatability"]["source"] and record["rules"]


def test_the_numbers_are_those_of_each_dates_own_table(two, tmp_path):
    found, _, _, table = run(two, tmp_path / "out")
    for visit in found.visits:
        own = visit.result.table.set_index("lesion")
        rows = table[(table["date"] == visit.day.isoformat()) & (table["state"] == "measured")]
        for row in rows.to_dict("records"):
            assert row["volume_mm3"] == own["volume_mm3"][int(row["number"])]
            assert row["longest_mm"] == own["longest_mm"][int(row["number"])]


def test_changes_from_baseline_and_nadir(two, tmp_path):
    _, _, _, table = run(two, tmp_path / "out")
    second = table[table["date"] == DATES[1]].set_index("lesion")
    first = table[table["date"] == DATES[0]].set_index("lesion")
    grown = second.loc[2]
    assert grown["from_baseline_mm"] == 12.0
    assert grown["from_baseline_mm3"] == pytest.approx(grown["volume_mm3"] - first.loc[2, "volume_mm3"])
    assert grown["from_baseline_percent"] == pytest.approx(
        100 * (grown["volume_mm3"] / first.loc[2, "volume_mm3"] - 1)
    )
    assert list(second["against_baseline"]) == ["within the measurement error", "larger", "smaller", ""]
    assert second.loc[3, "volume_mm3"] == 0 and second.loc[3, "from_baseline_percent"] == -100
    assert second.loc[3, "nadir"] and not second.loc[2, "nadir"]


def test_three_dates_have_a_nadir_between(tmp_path):
    balls = [Ball((30.0, 10.0, 10.0), size, 0.95) for size in (20.0, 12.0, 18.0)]
    folders = [scan(tmp_path, place, [ball]) for place, ball in enumerate(balls)]
    found, record, _, table = run(folders, tmp_path / "out")
    assert [one.category for one in found.assessments] == ["baseline", "PR", "PD"]
    assert record["assessments"][2]["nadir_date"] == DATES[1]
    assert list(table["nadir"]) == [False, True, False]
    assert table["from_nadir_mm"].iloc[2] == pytest.approx(6.0)


def test_the_order_of_the_folders_does_not_matter(two, tmp_path):
    one = run(two, tmp_path / "one")[3]
    other = run(two[::-1], tmp_path / "other")[3]
    assert one.equals(other)


def test_dates_of_ones_own_rule(two, tmp_path):
    found = followup.run(two, tmp_path / "out", ["2026-03-07", "2026-01-05"])
    assert [visit.result.files.folder for visit in found.visits] == two[::-1]


def test_repeatability_of_ones_own(two, tmp_path):
    _, record, html, table = run(two, tmp_path / "out", repeatability=Repeatability.of_percent(5000))
    second = table[table["date"] == DATES[1]].set_index("lesion")
    assert second.loc[2, "against_baseline"] == "within the measurement error"
    assert record["repeatability"]["source"] == "given: 5000%" and "given: 5000%" in html


def test_immunotherapy_is_said(two, tmp_path):
    found, record, html, _ = run(two, tmp_path / "out", immunotherapy=True)
    assert record["immunotherapy"] and "immunotherapy: a new lesion alone is not progression" in html
    assert "lesion 4" in found.assessments[1].why


def test_candidates_below_the_point_are_shown(tmp_path):
    faint = Ball(GOING.place, GOING.diameter_mm, 0.4)
    early = Ball(COMING.place, COMING.diameter_mm, 0.3)
    folders = [scan(tmp_path, 0, [STABLE, GOING], [early]), scan(tmp_path, 1, [STABLE, COMING], [faint])]
    found, _, html, table = run(folders, tmp_path / "out")
    assert [event.kind for event in found.tracks.events] == ["below", "pointed at"]
    assert "a candidate below the operating point is left" in html and "already pointed at" in html
    assert list(table[table["state"] == "below"]["lesion"]) == [2, 3]
    assert found.assessments[1].new == () and found.assessments[1].category == "SD"


def test_no_lesion_at_any_date(tmp_path):
    folders = [scan(tmp_path, place, []) for place in range(2)]
    found, _, html, table = run(folders, tmp_path / "out")
    assert "No lesion at any of 2 dates" in html and "misses lesions" in html
    assert len(table) == 0 and [one.category for one in found.assessments] == ["baseline", "NE"]


def test_a_refused_scan_is_not_evaluable(tmp_path):
    folders = [scan(tmp_path, 0, [STABLE]), scan(tmp_path, 1, [], refused=True), scan(tmp_path, 2, [STABLE])]
    found, _, html, table = run(folders, tmp_path / "out")
    assert [one.category for one in found.assessments] == ["baseline", "NE", "SD"]
    assert "no usable scan" in html and "the guard refused this scan" in html
    assert list(table["state"]) == ["measured", "not evaluable", "measured"]
    assert np.isnan(table["volume_mm3"].iloc[1])


def test_all_dates_refused(tmp_path):
    folders = [scan(tmp_path, place, [], refused=True) for place in range(2)]
    with pytest.raises(FollowUpError, match="nothing to follow"):
        followup.run(folders, tmp_path / "out")


def test_different_models_are_warned_of(tmp_path, two):
    model = json.loads((two[0] / "screening.json").read_text())["model"]
    other = scan(tmp_path, 2, [STABLE], model={**model, "name": "another", "sha256": "ab" * 32})
    found, _, html, _ = run([two[0], other], tmp_path / "out")
    assert any("not comparable" in warning for warning in found.warnings)
    assert "not comparable" in html and "another (abababababab)" in html
    assert not any("not comparable" in warning for warning in followup.run(two, tmp_path / "same").warnings)


def test_diameters_of_the_whole_tumour_are_not_rano_bms(two, tmp_path):
    for folder in two:
        record = json.loads((folder / "screening.json").read_text())
        record["model"]["region"] = "WT"
        (folder / "screening.json").write_text(json.dumps(record))
    found, _, html, _ = run(two, tmp_path / "out")
    assert sum("include the oedema" in text and "not those of RANO-BM" in text for text in found.warnings) == 1
    assert "include the oedema" in html


def test_much_thicker_slices_are_warned_of(tmp_path):
    folders = [scan(tmp_path, 0, [STABLE]), scan(tmp_path, 1, [STABLE], shape=(60, 72, 60), spacing=(2.5, 2.5, 2.5))]
    assert any("Slices differ" in warning for warning in followup.run(folders, tmp_path / "out").warnings)


def test_one_folder_alone(two, tmp_path):
    with pytest.raises(FollowUpError, match="two dates or more"):
        followup.run(two[:1], tmp_path / "out")


def test_a_folder_twice(two, tmp_path):
    with pytest.raises(FollowUpError, match="same result"):
        followup.run([two[0], two[0]], tmp_path / "out")


def test_a_date_twice(tmp_path):
    folders = [scan(tmp_path, 0, [STABLE]), scan(tmp_path, 1, [STABLE], date=DATES[0])]
    with pytest.raises(FollowUpError, match="both of 2026-01-05"):
        followup.run(folders, tmp_path / "out")


def test_two_patients_of_one_key(tmp_path):
    other = make_screened(tmp_path / "scan-00002-000", [STABLE], date=DATES[1]).folder
    with pytest.raises(FollowUpError, match="two patients"):
        followup.run([scan(tmp_path, 0, [STABLE]), other], tmp_path / "out")


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        (["2026-01-05"], "1 for 2 folders"),
        (["2026-01-05", "7.3.2026"], "'7.3.2026' is no date"),
        (["2026-01-05", "2026-02-30"], "'2026-02-30' is no date"),
    ],
)
def test_dates_that_are_none(two, tmp_path, dates, words):
    with pytest.raises(FollowUpError, match=words):
        followup.run(two, tmp_path / "out", dates)


def test_a_scan_without_a_date_asks_for_one(tmp_path):
    folders = [scan(tmp_path, 0, [STABLE]), scan(tmp_path, 1, [STABLE], date=None)]
    with pytest.raises(FollowUpError, match="--dates"):
        followup.run(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_into_a_screened_folder(two):
    with pytest.raises(ValueError, match="lies in"):
        followup.run(two, two[0] / "out")


@pytest.mark.parametrize(
    ("spread", "flip", "words"),
    [(2.1, -0.1, "differ by 2.1 mm"), (0.1, -0.005, "one mirrored"), (0.1, 0.1, "mirrored")],
)
def test_a_registration_that_is_not_to_be_trusted(two, tmp_path, monkeypatch, spread, flip, words):
    def register(fixed, moving, seed, mask):
        return Registration(sitk.Euler3DTransform(), 1.3, 1.3, 0.0, 0.0, spread, flip)

    monkeypatch.setattr(followup, "register", register)
    with pytest.raises(FollowUpError, match=words) as caught:
        followup.run(two, tmp_path / "out")
    assert "one patient" in str(caught.value) and not (tmp_path / "out").exists()


def test_brains_that_do_not_lie_upon_each_other(two, tmp_path, monkeypatch):
    def register(fixed, moving, seed, mask):
        shift = sitk.Euler3DTransform()
        shift.SetTranslation((40.0, 0.0, 0.0))
        return Registration(shift, 1.3, 1.3, 0.0, 40.0, 0.1, -0.1)

    monkeypatch.setattr(followup, "register", register)
    with pytest.raises(FollowUpError, match="Dice"):
        followup.run(two, tmp_path / "out")


def test_an_oblique_scan_is_followed_in_its_own_place(tmp_path):
    """The second date's grid is turned, its head is not: the lesions keep their places in mm."""
    folders = [scan(tmp_path, 0, [STABLE, GOING]), scan(tmp_path, 1, [STABLE, GOING], oblique=True)]
    found, _, _, table = run(folders, tmp_path / "out")
    assert found.tracks.events == [] and len(table) == 4


def test_the_picture_is_taken_at_the_lesions_place(two, tmp_path):
    found = followup.run(two, tmp_path / "out")
    place = follow_page._centre(found.visits[0], 1)
    assert np.allclose(place * (-1, -1, 1), STABLE.place, atol=2.5)
