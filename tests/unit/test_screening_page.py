"""A screened scan's page and the worklist: what they say, that they say it of nothing else, and that they print."""

import base64
import gzip
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from browser import needs_browser, pixels, tab
from bs4 import BeautifulSoup
from screened import FINDINGS, PERFORMANCE, Ball, make_screened

from brainmets import nifti, schemas
from brainmets.paths import ScreeningPaths
from brainmets.provenance import sha256
from brainmets.screening import page, pictures, reading, result, words, worklist

RESEARCH = "Research use only."


def soup(path):
    return BeautifulSoup(path.read_text(), "html.parser")


def text_of(path):
    return re.sub(r"\s+", " ", soup(path).body.get_text(" "))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of scans with none, one, eight and forty lesions, of a refused one, and of oblique and turned grids."""
    out = tmp_path_factory.mktemp("screened")
    warned = {"decision": "warn", "cases": 40, "remarks": [FINDINGS["warn"]]}
    made = {
        "none": make_screened(out / "scan-00001-000", 0, 2),
        "one": make_screened(out / "scan-00002-000", 1, guard=warned),
        "eight": make_screened(out / "scan-00003-000", 8, 4, oblique=True, guard=warned),
        "forty": make_screened(out / "scan-00004-000", 40, 15),
        "refused": make_screened(out / "scan-00005-000", refused=True),
    }
    return {name: page.write(files) for name, files in made.items()}


# --- what it says ----------------------------------------------------------------------------------------------------


def test_research_use_only_stands_first_and_last(pages):
    for path in pages.values():
        said = text_of(path)
        assert said.strip().startswith(RESEARCH)
        assert said.strip().endswith("Research use only. Not a medical device.")


def test_no_lesion_is_never_no_metastasis(pages):
    said = text_of(pages["none"])
    assert "No lesion found at the operating point" in said
    assert "This does not mean that there is no metastasis." in said
    # 4 + 16 lesions below 5 mm, 1 + 11 of them found
    assert "found 81 of 90 lesions (90%, 95% interval 82% to 95%); of 20 lesions below 5 mm it missed 8." in said
    assert "2 uncertain candidates lie below the operating point" in said
    assert soup(pages["none"]).select_one("table.lesions") is None


def test_intervals_tell_their_coverage_and_folds_are_counted(pages):
    said = text_of(pages["none"])
    assert "places a case that are no lesion (95% interval 0.20 to 1.30)" in said
    assert "95% interval" in soup(pages["none"]).select_one(".model thead").get_text()
    assert "segresnet, finetune, 5 folds of study demo" in said


def test_an_aim_that_could_not_be_met_is_not_claimed():
    """The point is then the one with the fewest false positives, more than the aim allows."""
    model = {"region": "TC", "hit": "one_to_one", "threshold": 0.9, "smallest_mm3": 0.0, "false_positives": 1.0}
    assert "as can be found with at most 1 false positive a case" in words.operating_point({**model, "met": True})
    said = words.operating_point({**model, "met": False})
    assert "since it cannot keep to at most 1 false positive a case" in said
    assert "as many lesions" not in said


def test_one_lesion_has_its_size_in_the_first_sentence(pages):
    said = text_of(pages["one"])
    row = schemas.read(pages["one"].with_name("lesions.csv"), schemas.SCREENED).iloc[0]
    assert "1 lesion found" in said
    assert f"The lesion is {row['longest_mm']:.1f} x {row['perpendicular_mm']:.1f} mm" in said


def test_many_lesions_have_a_row_and_three_pictures_each(pages):
    found = soup(pages["eight"])
    assert found.h1.get_text() == "8 lesions found"
    assert [row.th.get_text() for row in found.select("table.lesions tbody tr")] == [str(n) for n in range(1, 9)]
    cards = found.select("article.card.accepted")
    assert [len(card.select("svg")) for card in cards] == [3] * 8
    assert [caption.get_text() for caption in cards[0].select("figcaption")] == ["axial", "coronal", "sagittal"]
    axial, coronal, _ = cards[0].select("svg")
    assert len(axial.select("path.longest, path.perpendicular")) == 2
    assert not coronal.select("path.longest")
    assert len(found.select("article.card.candidate")) == 4
    assert [len(card.select("path.candidate")) for card in found.select("article.card.candidate")] == [3] * 4


def test_candidates_beyond_the_pictures_are_listed_not_dropped(pages):
    found = soup(pages["forty"])
    assert len(found.select("article.card.candidate")) == page.CANDIDATES_SHOWN
    rest = [int(item.strong.get_text()) for item in found.select("ul.rest li")]
    assert rest == [40 + page.CANDIDATES_SHOWN + n for n in (1, 2, 3)]
    assert "3 more without pictures" in text_of(pages["forty"])
    numbers = {text.get_text() for text in found.select(".overview text.accepted, .overview text.candidate")}
    assert numbers == {str(n) for n in range(1, 56)}


def test_the_guards_number_stands_on_the_training_range(pages):
    found = soup(pages["one"])
    strip = found.select_one("table.guard svg.strip")
    box = strip.select_one(".range")
    low, width = float(box["x"]), float(box["width"])
    value = float(re.match(r"M([\d.]+)", strip.select_one(".value")["d"]).group(1))
    assert value > low + width  # 5 mm beyond 0.9 to 1.6
    assert strip["aria-label"] == "this scan 5, training cases 0.9 to 1.6"


@pytest.mark.parametrize(("low", "high", "said"), [(None, 9.7, "up to 9.7"), (3.1, None, "from 3.1")])
def test_an_open_range_is_drawn_to_the_edge(tmp_path, low, high, said):
    remark = {**FINDINGS["warn"], "low": low, "high": high}
    files = make_screened(tmp_path / "a", 0, guard={"decision": "warn", "cases": 40, "remarks": [remark]})
    assert said in soup(page.write(files)).select_one("svg.strip")["aria-label"]


def test_a_remark_without_a_range_shows_its_number_alone(tmp_path):
    remark = {**FINDINGS["warn"], "low": None, "high": None}
    files = make_screened(tmp_path / "a", 0, guard={"decision": "warn", "cases": 40, "remarks": [remark]})
    assert soup(page.write(files)).select_one("table.guard tbody tr").select("td")[-1].get_text(strip=True) == "5"


def test_a_refused_scan_has_reasons_and_what_to_do_and_no_prediction(pages):
    found, said = soup(pages["refused"]), text_of(pages["refused"])
    assert "Not judged" in found.h1.get_text()
    assert FINDINGS["refuse"]["text"] in said
    assert "What to do" in said
    assert not found.select("article, .overview, canvas")
    assert "No lesion found" not in said


def test_lesions_stand_beside_the_measured_size_that_they_have(tmp_path):
    """Balls of 7 and 20 mm, and volumes that say so."""
    files = make_screened(tmp_path / "a", [Ball((0, 0, 0), 20, 0.99), Ball((40, 0, 0), 7, 0.9)], spacing=(1, 1, 1),
                          shape=(120, 60, 60))  # fmt: skip
    rows = [[cell.get_text() for cell in row(["th", "td"])] for row in soup(page.write(files)).select(".model tr")]
    here = {row[0]: row[-1] for row in rows[1:]}
    assert here == {"all sizes": "2 in all", "< 3 mm": "", "3 to 5 mm": "", "5 to 10 mm": "2", "≥ 10 mm": "1"}


@pytest.mark.parametrize(
    ("performance", "said"),
    [
        ({**PERFORMANCE, "rows": []}, "How many lesions this model finds was not measured."),
        ({**PERFORMANCE, "rows": PERFORMANCE["rows"][:1]}, "no lesion below 5 mm was among them"),
        ({**PERFORMANCE, "false_positives": None}, "How often it marks what is no lesion was not measured."),
    ],
)
def test_what_was_not_measured_is_said(tmp_path, performance, said):
    assert said in text_of(page.write(make_screened(tmp_path / "a", 0, performance=performance)))


def test_a_reading_is_shown_with_each_lesion(tmp_path):
    files = make_screened(tmp_path / "scan-00001-000", 2, 1)
    before = sha256(files.record)
    reading.decide(files, 2, "rejected")
    found = soup(page.write(files))
    assert "reader: rejected" in found.select_one("#lesion-2").get_text()
    assert "reader: not decided" in found.select_one("#lesion-1").get_text()
    assert sha256(files.record) == before
    files.reading.write_text("{")
    assert "no decision is shown" in text_of(page.write(files))


# --- geometry --------------------------------------------------------------------------------------------------------


def extent(path):
    places = np.array([[float(x) for x in pair.split()] for pair in re.findall(r"[\d.-]+ [\d.-]+", path)])
    return np.ptp(places, axis=0)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PSL"])
def test_a_ball_is_as_wide_as_it_is_high_on_thick_slices(tmp_path, orientation):
    """64 mm are 256 pixels: a ball of 24 mm is 96 pixels across in every plane, within a voxel of 4 mm."""
    files = make_screened(
        tmp_path / "a", [Ball((0, 0, 0), 24, 0.99)], spacing=(1, 1, 4), shape=(81, 81, 21), orientation=orientation
    )
    shown = pictures.lesion(pictures.read_scan(files), 1, "accepted")
    for picture in shown:
        path = next(mark.path for mark in picture.marks if mark.kind == "accepted")
        assert extent(path) == pytest.approx((96, 96), abs=16), picture.plane.name
        assert picture.bar == pytest.approx(40)  # 10 mm


def test_right_is_left_and_the_front_of_a_sagittal_picture_too(tmp_path):
    places = {"right": (40, 0, 0), "front": (0, 50, 0), "top": (0, 0, 36)}
    files = make_screened(tmp_path / "a", [Ball(place, 10, 0.9) for place in places.values()], orientation="ASL")
    axial, coronal, sagittal = pictures.overview(pictures.read_scan(files), [1, 2, 3])

    def at(picture, number):
        x, y = next(word.start for word in picture.words if word.text == str(number))
        return x / picture.width, y / picture.height

    assert at(axial, 1)[0] < 0.35  # right
    assert at(axial, 2)[1] < 0.35  # front above
    assert at(coronal, 3)[1] < 0.35  # top above
    assert at(sagittal, 2)[0] < 0.35  # front on the left
    assert (axial.plane.left, axial.plane.top, sagittal.plane.left) == ("R", "A", "A")


def test_a_tilted_series_says_so(pages):
    assert "the series is tilted by 22°, and its own planes are shown" in text_of(pages["eight"])
    assert "tilted" not in text_of(pages["one"])


def test_the_3d_view_holds_the_brain_and_no_skull(pages, tmp_path):
    scan = pictures.read_scan(ScreeningPaths(pages["one"].parent))
    shell = (scan.image > 700) & ~scan.inside & (scan.numbers == 0)
    assert shell.any()
    packed = soup(pages["one"]).select_one("script#image").string
    path = tmp_path / "image.nii"
    path.write_bytes(gzip.decompress(base64.b64decode(packed)))
    shown, grid = nifti.read_volume(path)
    assert grid.spacing == pytest.approx((2.5, 2.5, 5.0))
    # a voxel of the margin may be skull, no more
    assert (shown > 0).sum() * grid.voxel_mm3 < 1.25 * scan.inside.sum() * grid.voxel_mm3


# --- privacy and safety ----------------------------------------------------------------------------------------------


def test_texts_of_others_stay_texts(tmp_path):
    case = "<script>alert(1)<"
    remark = {**FINDINGS["warn"], "text": "<img src=x onerror=alert(2)>", "sequence": "<b>", "rule": "<i>"}
    files = make_screened(tmp_path / case, 1, guard={"decision": "warn", "cases": 40, "remarks": [remark]})
    record = json.loads(files.record.read_text())
    record["model"] |= {"name": "</title><script>alert(3)</script>", "licence": "<script>alert(4)</script>"}
    files.record.write_text(json.dumps(record))
    for path in (page.write(files), worklist.write(tmp_path, [files])):
        found = soup(path)
        assert not found.select("img, [onerror], b, i:not([style])")
        assert not [one for one in found("script") if "alert(" in (one.string or "")[:2000]]
        assert "<img src=x" in found.body.get_text()


def test_no_path_and_no_name_of_the_machine(pages, tmp_path, monkeypatch):
    for path in pages.values():
        assert page.leaks(path.read_text()) == []
    remark = {**FINDINGS["warn"], "text": "no file /data/patients/Miller/t1c.nii.gz"}
    files = make_screened(tmp_path / "a", 0, guard={"decision": "warn", "cases": 40, "remarks": [remark]})
    assert "Miller" not in page.write(files).read_text()
    monkeypatch.setattr(page, "leaks", lambda html: ["/home/somebody/scan"])
    with pytest.raises(page.PageError, match="would reveal /home/somebody/scan"):
        page.write(files)


def test_a_folder_that_is_not_what_was_written_has_no_page(tmp_path):
    files = make_screened(tmp_path / "a", 1)
    files.table.write_text(files.table.read_text().replace("0.99", "0.98"))
    with pytest.raises(result.ResultError, match=r"lesions\.csv is not what was written"):
        page.write(files)


def test_a_record_that_lacks_what_is_shown_is_named(tmp_path):
    files = make_screened(tmp_path / "a", 1)
    record = json.loads(files.record.read_text())
    del record["model"]["hit"]
    files.record.write_text(json.dumps(record))
    with pytest.raises(page.PageError, match=r"screening\.json does not hold what a page shows \(KeyError: 'hit'\)"):
        page.write(files)


def test_a_page_made_again_is_the_same(pages):
    before = pages["one"].read_bytes()
    assert page.write(ScreeningPaths(pages["one"].parent)).read_bytes() == before


def test_every_picture_has_words_and_every_part_a_heading(pages):
    for path in pages.values():
        found = soup(path)
        assert found.html["lang"] == "en"
        assert all(svg["aria-label"].strip() for svg in found.select("svg"))
        levels = [int(tag.name[1]) for tag in found(re.compile(r"^h[1-6]$"))]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert all(found.find(id=section["aria-labelledby"]) for section in found("section"))


def test_numbers_of_a_crowd_do_not_cover_each_other():
    anchors = [(n, 100.0 + n % 3, 100.0 + n % 2, 4.0) for n in range(1, 25)]
    placed = pictures._placed(anchors, set(range(1, 25)), 300, 300)
    pairs = [(a, b) for place, a in enumerate(placed) for b in placed[:place]]
    assert all(abs(a.x - b.x) >= 10 or abs(a.y - b.y) >= 12.9 for a, b in pairs)


def test_diameters_of_the_whole_tumour_are_not_rano_bms(tmp_path):
    files = make_screened(tmp_path / "scan-00001-000")
    assert "include the oedema" not in page.write(files).read_text()
    record = json.loads(files.record.read_text())
    record["model"]["region"] = "WT"
    files.record.write_text(json.dumps(record))
    assert "include the oedema around a lesion and are not those of RANO-BM" in page.write(files).read_text()


def test_probabilities_never_round_to_one():
    assert words.probability(0.9999999) == ">0.9999"


# --- the worklist ----------------------------------------------------------------------------------------------------


def test_the_worklist_is_ordered_by_suspicion_with_what_was_not_judged_first(pages, tmp_path):
    out = pages["one"].parents[1]
    folders = [ScreeningPaths(path.parent) for path in pages.values()]
    path = worklist.write(out, folders, failed={"scan-00009-000": "no T1 after contrast in /data/in/Miller"})
    table = schemas.read(path.with_name("worklist.csv"), schemas.WORKLIST)
    assert list(table["case"]) == [
        "scan-00009-000", "scan-00005-000", "scan-00004-000", "scan-00003-000", "scan-00002-000", "scan-00001-000",
    ]  # fmt: skip
    assert list(table["decision"])[:2] == ["failed", "refuse"]
    judged = table["suspicion"].dropna()
    assert judged.is_monotonic_decreasing
    assert table.set_index("case").loc["scan-00003-000", ["lesions", "candidates"]].tolist() == [8, 4]
    assert table.set_index("case").loc["scan-00005-000", ["lesions", "suspicion"]].isna().all()
    found = soup(path)
    assert [row.th.get_text() for row in found.select("section")[0].select("tbody tr")] == list(table["case"])[:2]
    links = [link["href"] for link in found.select("table a")]
    assert all((out / link).is_file() for link in links)
    assert len(links) == 5
    assert "Miller" not in path.read_text()


def test_a_damaged_result_is_listed_as_not_judged(tmp_path):
    files = make_screened(tmp_path / "a", 1)
    files.table.write_text("lesion\n")
    path = worklist.write(tmp_path, [files, ScreeningPaths(tmp_path / "b")])
    table = schemas.read(path.with_name("worklist.csv"), schemas.WORKLIST).set_index("case")
    assert table["decision"].tolist() == ["failed", "failed"]
    assert "lacks the column" in table.loc["a", "note"]
    assert "screening.json is not there" in table.loc["b", "note"]
    assert str(tmp_path) not in path.read_text()


def test_the_worklist_shows_how_far_a_reader_has_come(tmp_path):
    files = make_screened(tmp_path / "a", 2, 1)
    reading.decide(files, 1, "rejected")
    worklist.write(tmp_path, [files])
    table = schemas.read(tmp_path / "worklist.csv", schemas.WORKLIST)
    assert table["reading"].tolist() == ["1 of 3 decided, 1 lesion left"]


def test_a_list_written_anew_forgets_no_failed_scan(tmp_path):
    make_screened(tmp_path / "scan-00001-000")
    worklist.renew(tmp_path, {"scan-00002-000": "no T2", "scan-00003-000": "no T1"})
    worklist.renew(tmp_path)  # as after a reading
    make_screened(tmp_path / "scan-00002-000")
    worklist.renew(tmp_path, {"scan-00004-000": "no FLAIR"}, {"scan-00002-000"})
    listed = schemas.read(tmp_path / "worklist.csv", schemas.WORKLIST).set_index("case")
    assert listed["decision"].to_dict() == {
        "scan-00001-000": "pass", "scan-00002-000": "pass", "scan-00003-000": "failed", "scan-00004-000": "failed"
    }  # fmt: skip
    assert listed.loc["scan-00003-000", "note"] == "no T1"


def test_an_empty_worklist_says_so(tmp_path):
    path = worklist.write(tmp_path, [])
    assert "No scan was judged." in text_of(path)
    with pytest.raises(ValueError, match="a twice in one worklist"):
        worklist.write(tmp_path, [ScreeningPaths(tmp_path / "a"), ScreeningPaths(tmp_path / "b" / "a")])


# --- in a browser ----------------------------------------------------------------------------------------------------


def sheets(pdf):
    return len(re.findall(rb"/Type\s*/Page[^s]", pdf))


def test_the_date_of_the_scan_or_that_it_is_not_known(tmp_path):
    for case, date, said in (
        ("scan-00001-000", "2024-05-17", "Case scan-00001-000, scanned 2024-05-17"),
        ("scan-00002-000", None, "Case scan-00002-000, date of the scan not known"),
    ):
        html = page.write(make_screened(tmp_path / case, refused=True, date=date)).read_text()
        soup = BeautifulSoup(html, "html.parser")
        assert soup.select_one(".kicker").get_text() == said
        assert "demo segresnet finetune: segresnet, finetune, 5 folds of study demo" in soup.get_text()


@pytest.mark.slow
@pytest.mark.browser
def test_an_average_case_prints_to_two_sheets(pages):
    needs_browser()
    with tab(offline=True) as opened:
        counted = {}
        for name, path in pages.items():
            opened.page.goto(path.as_uri())
            opened.page.emulate_media(media="print")
            opened.page.set_viewport_size({"width": 710, "height": 1000})  # A4 within its margins, in CSS pixels
            wide = opened.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0, f"{name}: something is wider than the sheet"
            counted[name] = sheets(opened.page.pdf(prefer_css_page_size=True))
    assert all(counted[name] <= 2 for name in ("none", "one", "eight", "refused")), counted
    assert counted["forty"] > 2
    assert opened.outside == []


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_opens_with_the_network_off_and_shows_3d_on_a_click(pages):
    needs_browser()
    with tab(offline=True) as opened:
        opened.page.goto(pages["eight"].as_uri())
        assert opened.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
        assert opened.page.evaluate("() => window.Niivue === undefined")
        opened.page.click("#open-3d", timeout=120_000)
        opened.page.wait_for_function("() => document.body.dataset.ready", timeout=120_000)
        assert opened.page.evaluate("() => document.body.dataset.ready") == "yes"
        opened.page.wait_for_timeout(1500)
        shown = pixels(opened.page.locator("#canvas").screenshot(timeout=60_000))
    assert (shown.max(axis=-1) > 60).mean() > 0.05, "the canvas shows no volume"
    assert (np.ptp(shown.astype(int), axis=-1) > 60).sum() > 100, "the canvas shows no lesion"
    assert opened.outside == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in opened.requests)
    assert opened.errors == []


@pytest.mark.slow
@pytest.mark.browser
def test_without_webgl_and_without_scripts_the_pictures_are_there(pages):
    needs_browser()
    with tab(offline=True, webgl=False) as opened:
        opened.page.goto(pages["one"].as_uri())
        opened.page.click("#open-3d", timeout=120_000)
        opened.page.wait_for_function("() => document.body.dataset.ready", timeout=60_000)
        assert "cannot be shown here" in opened.page.inner_text("#three-d-note")
        assert opened.errors == []
    with tab(offline=True, scripts=False) as opened:
        opened.page.goto(pages["one"].as_uri())
        assert opened.page.locator("article.card svg").count() == 3
        assert opened.page.locator("noscript").count() == 1


@pytest.mark.slow
@pytest.mark.browser
def test_a_worklist_of_two_hundred_loads_quickly_and_sorts(tmp_path):
    needs_browser()
    for number in range(200):
        make_screened(tmp_path / f"scan-{number:05d}-000", refused=True)
        files = ScreeningPaths(tmp_path / f"scan-{number:05d}-000")
        record = json.loads(files.record.read_text())
        record["guard"] = {"decision": "pass", "cases": 40, "remarks": []}
        record["suspicion"] = (number * 37 % 200) / 200
        files.record.write_text(json.dumps(record))
    path = worklist.write(tmp_path, [ScreeningPaths(one) for one in sorted(tmp_path.glob("scan-*"))])
    with tab(offline=True) as opened:
        opened.page.goto(path.as_uri())
        assert opened.page.evaluate("() => document.body.dataset.sortable") == "yes"
        assert opened.page.evaluate("() => performance.getEntriesByType('navigation')[0].loadEventEnd") < 10_000
        first = "() => document.querySelector('.long tbody td').innerText"
        score = "() => Number(document.querySelector('.long tbody td[data-order]').dataset.order)"
        assert opened.page.evaluate(score) == 0.995
        opened.page.click("th:has-text('Suspicion')")
        opened.page.wait_for_function(f"() => ({score})() === 0")  # it sorts a moment after the click
        assert opened.page.evaluate(first) == "scan-00000-000"
        assert opened.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert opened.outside == []
    assert opened.errors == []
