"""The report: whole, readable without network or script, and with nothing of the machine in it."""

import getpass
import re
import socket
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import study_on_disk
from browser import needs_browser, tab
from bs4 import BeautifulSoup
from score_examples import two_cases

from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.report import build as report
from brainmets.report import content as report_content
from brainmets.report import notebook_pages, tables
from brainmets.report.redaction import Redactor, leaks
from brainmets.statistics.descriptive import describe

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "src" / "brainmets" / "report" / "templates"


class Links(HTMLParser):
    """Every address that a page names."""

    def __init__(self, page: Path):
        super().__init__()
        self.found: list[str] = []
        self.pictures: list[str | None] = []
        self.tags: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.add(tag)
        self.found += [named[name] for name in ("href", "src") if named.get(name)]
        if tag == "img":
            self.pictures.append(named.get("alt"))


def pages(index):
    return sorted(index.parent.rglob("*.html"))


def test_every_step_has_a_page_and_every_link_leads_somewhere(index):
    # index, 01 02, three trainings of two arms, 06 of three strategies, 07 08, three cases in 3D, the table of cases
    assert len(pages(index)) == 1 + 2 + 3 * 2 + 3 * 2 + 2 + 3 + 1
    for page in pages(index):
        links = Links(page)
        for link in links.found:
            if link.startswith(("data:", "#")):
                continue
            assert not re.match(r"[a-z]+:|//", link), f"{page.name} names {link}"
            assert (page.parent / link).is_file(), f"{page.name} names {link}"
        assert ("script" in links.tags) == (page.parent.name == "viewer" or 'class="frame long' in page.read_text())
        assert all(links.pictures), f"{page.name} has a picture without words"
        assert "@import" not in page.read_text()


def test_the_table_prints_what_notebook_07_found(reviewed_checkout, index):
    _, files, _ = reviewed_checkout
    table = pd.read_csv(files.statistics / "descriptive.csv")
    text = index.read_text(encoding="utf-8")
    for line in table[table["metric"] == "dice"].to_dict("records"):
        assert f"{line['mean']:.3f}<span" in text
        assert f"{line['ci_low']:.3f} to {line['ci_high']:.3f}" in text
    assert len(re.findall(r"n 3: \d/\d/0/0</span>", text)) == 6 * 6, "the counts of masks beside every mean"
    places = [text.index(f"<td>{title}</td>") for title in ("pretrained only", "fine-tuned", "from scratch")]
    assert places == sorted(places)
    assert "Mean with 95% confidence interval" in text
    assert "By cross-validation on 0 training cases" in text, "how the best model was chosen"
    assert "Not a medical device" in text
    assert "phantoms" in text
    assert "Nothing was trained. So nothing is better." in text
    assert "Nothing was trained, so nothing can be concluded." in text


def test_the_table_says_the_level_that_notebook_07_was_given():
    steps = [report_content.Step("07_statistics", None, {"parameters": {"alpha": 0.1}})]
    assert report_content.level(steps) == "90%"


def test_the_table_counts_the_masks_beside_every_mean():
    regions, rows, _ = report_content.result_table(describe(two_cases(invented_ml=0.003), alpha=0.05))
    assert regions == ["ET"]
    finetuned, scratch = (row["cells"][0] for row in rows)
    assert finetuned == {"mean": "0.000", "interval": "no interval", "n": "1", "masks": "0/1/1/0"}
    assert scratch["masks"] == "0/1/0/1"
    only_empty = two_cases(invented_ml=0.0).query("case == 'empty'")
    cell = report_content.result_table(describe(only_empty, alpha=0.05))[1][0]["cells"][0]
    assert cell == {"mean": "none", "interval": "", "n": "0", "masks": "0/0/0/1"}
    without_volumes = two_cases(invented_ml=0.0).query("unit != 'mL'")
    assert report_content.result_table(describe(without_volumes, alpha=0.05))[1][0]["cells"][0]["masks"] == ""


def test_cases_and_panels_are_shown(reviewed_checkout, index):
    _, files, _ = reviewed_checkout
    text = index.read_text(encoding="utf-8")
    cases, overviews, _ = report_content.cases(files)
    assert len(cases) == 3
    assert len(overviews) == 1
    for case in cases:
        assert f"<h3>{case['name']}</h3>" in text
        for picture in case["pictures"]:
            assert (index.parent / "figures" / picture.file.name).stat().st_size > 10_000


def test_nothing_of_the_machine_is_revealed(reviewed_checkout, index):
    root, _, _ = reviewed_checkout
    for page in [*pages(index), *(index.parent / "tables").iterdir()]:
        text = page.read_text(encoding="utf-8")
        assert leaks(text) == []
        for private in (str(root), str(ROOT), "/secret/", "/srv/data", f"/home/{getpass.getuser()}"):
            assert private not in text, page.name
    page = (index.parent / "notebooks" / "03_pretraining_default_fold_0.html").read_text()
    assert "read .../scan.nii.gz" in page
    assert ".../x.py:3" in page
    assert "epoch 2\nepoch 3" in page
    assert "epoch 1" not in page
    assert "fetch(" not in page
    assert "interactive view: open this notebook in JupyterLab" in page


def test_a_page_that_reveals_a_path_stops_the_report(reviewed_checkout, monkeypatch):
    _, files, study = reviewed_checkout
    report.build(files, study)
    before = files.index.read_text()
    monkeypatch.setattr(report, "Redactor", lambda *_: str)
    with pytest.raises(
        report.ReportError, match=r"03_pretraining_default_fold_0\.html reveals .*/scan\.nii\.gz|reveals"
    ):
        report.build(files, study)
    assert files.index.read_text() == before
    assert not list(files.report.parent.glob(".*"))


def test_made_again_the_report_replaces_itself_and_leaves_other_files(reviewed_checkout, index):
    _, files, study = reviewed_checkout
    (files.report / "note.txt").write_text("a reader's own")
    (files.report / "figures" / "old.png").write_text("of an earlier report")
    report.build(files, study)
    assert (files.report / "note.txt").is_file()
    assert not (files.report / "figures" / "old.png").exists()


def test_a_step_that_is_not_done_is_named(reviewed_checkout):
    _, files, study = reviewed_checkout
    other = type(files)(files.work_dir, "absent")
    with pytest.raises(FileNotFoundError, match=r"prepared\.json of step 00_preparation_target"):
        report.build(other, study)


def test_a_picture_that_has_changed_since_its_step_stops_the_report(reviewed_checkout):
    _, files, study = reviewed_checkout
    panel = next((files.review / "panels").glob("*.png"))
    whole = panel.read_bytes()
    panel.write_bytes(whole[:-100])
    try:
        with pytest.raises(ValueError, match=rf"{panel.name} has .* written: run brainmets notebook 08"):
            report.build(files, study)
    finally:
        panel.write_bytes(whole)


def test_a_notebook_run_by_hand_is_listed_without_a_page(reviewed_checkout):
    _, files, study = reviewed_checkout
    copy = files.runs / "02_plan_alignment.ipynb"
    kept = copy.rename(copy.with_suffix(".kept"))
    try:
        text = report.build(files, study).read_text()
    finally:
        kept.rename(copy)
    assert "this notebook was run by hand" in text


@pytest.mark.slow
def test_with_pseudonyms_no_byte_of_a_study_names_a_patient(tmp_path, monkeypatch):
    """From the cohort's folder to the report; pictures are those of a study whose figures never had the names."""
    names = ["Kowalczyk_1975", "Kowalczyk_1975 b", "Øre {x}"]
    for folder in ("notebooks", "params"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    files = study_on_disk.make(tmp_path / "work", names=names)
    study = Study(study_on_disk.parameters(tmp_path / "work", pseudonymous=True), "tiny.yaml")
    study_on_disk.finish(files, study)
    study_on_disk.executed(files.runs / "02_plan_alignment.ipynb", f"02 {tmp_path}/work/cohort/{names[1]}/T1.nii.gz")
    study_on_disk.review(files, study)
    index = report.build(files, study)
    searched = [path for folder in (files.report, files.work) for path in folder.rglob("*") if path.is_file()]
    searched = [path for path in searched if files.private("target") not in path.parents]
    assert len([path for path in searched if path.suffix in (".png", ".html", ".csv", ".ipynb", ".json")]) > 50
    by_hand = files.runs / "02_plan_alignment.ipynb"  # its path was written there by this test
    for path in searched:
        for word in ("kowalczyk", "_1975", "øre"):
            assert word not in str(path.relative_to(tmp_path)).lower()
            assert path == by_hand or word.encode() not in path.read_bytes().lower(), (path, word)
    assert "(target cohort)" in (index.parent / "notebooks" / "02_plan_alignment.html").read_text()
    assert len(list((files.review / "volumes").glob("target-0000?-000_t1c.nii.gz"))) == 3
    expert = files.review / "expert"
    assert sorted(path.name for path in expert.iterdir() if path.is_dir()) == [
        f"target-0000{number}-000" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("/data/site/a/b.nii.gz", ".../b.nii.gz"),
        ("open('/data/site/b.txt')", "open('.../b.txt')"),
        ("/checkout/work/x.csv", "work/x.csv"),
        ("cd /checkout", "cd ."),
        ("/checkout-old/x/y", ".../y"),
        ("T1/T2/FLAIR at 0.5/1 mm", "T1/T2/FLAIR at 0.5/1 mm"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("work/demo/audit", "work/demo/audit"),
        ("/hospital/cohort/Anna K/T1.nii.gz is", "(target cohort)"),
        ("'/hospital/cohort/Anna K/T1.nii.gz' is", "'(target cohort)' is"),
        ("/hospital/cohort", "(target cohort)"),
        ("/hospital/cohort-2/Anna/x", ".../x"),
        ("learning_rate: 0.001", "learning_rate: 0.001"),
    ],
)
def test_redaction(text, redacted):
    cohort = Path("/hospital/cohort")
    redact = Redactor({Path("/checkout"): "", cohort: "(target cohort)"}, [cohort])
    assert redact(text) == redacted
    assert leaks(redacted) == []


@pytest.mark.parametrize(
    "text", ["<td>/data/site/b</td>", "&quot;/data/site/b&quot;", "=/data/site/b", "file:///data/b"]
)
def test_leaks_are_found(text):
    assert leaks(text)


def test_styles_and_pictures_are_no_leaks():
    assert leaks("<style>a{} /x/y/z {}</style><img src='data:image/png;base64,AA/tmp/abc/def/A'></td></tr>") == []


def test_machine_names_are_withheld(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "scanner-7.hospital.example")
    redact = Redactor({})
    assert redact("on scanner-7 by") == "on (withheld) by"
    assert leaks("on scanner-7") == ["scanner-7"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (42.4, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_duration(seconds, text):
    assert report_content.duration(seconds) == text


def laid_out(table: str):
    page = BeautifulSoup(table, "html.parser")
    tables.lay_out(page)
    return page


def test_a_long_table_can_be_searched_and_its_numbers_stand_to_the_right():
    page = laid_out(study_on_disk.lesion_volumes().to_html())
    assert page.div["class"] == ["frame", "long"]
    heads = page.select("thead th")
    assert [head.text for head in heads] == ["lesion", "volume"], "row numbers of a data frame mean nothing"
    assert [head.get("class") for head in heads] == [None, "num"]
    assert len(page.select("td.num")) == 20
    assert page.select("td.num")[-1].text == "NaN"
    assert page.table.get("border") is None


@pytest.mark.parametrize(
    ("table", "kinds"),
    [
        (pd.DataFrame({"a": range(15)}), ["frame"]),
        (pd.DataFrame({"a": range(16)}), ["frame", "long"]),
        (pd.DataFrame([range(15)]), ["frame", "wide"]),
        (pd.DataFrame(columns=range(15)), ["frame"]),
        (pd.DataFrame({"a": range(16)}, index=pd.MultiIndex.from_product([range(2), range(8)])), ["frame"]),
    ],
)
def test_frames_of_tables(table, kinds):
    assert laid_out(table.to_html()).div["class"] == kinds


def test_a_shortened_table_is_not_searched():
    assert laid_out(pd.DataFrame({"a": range(100)}).to_html(max_rows=20)).div["class"] == ["frame"]


def test_an_empty_table_says_so_and_names_of_rows_are_kept():
    assert laid_out(pd.DataFrame(columns=["a", "b"]).to_html()).td.text == "no rows"
    assert laid_out(pd.DataFrame({"a": [1]}, index=["mean"]).to_html()).select("tbody th")[0].text == "mean"


def test_parameters_are_shown_as_a_table(tmp_path):
    nbf = nbformat.v4
    defaults = nbf.new_code_cell('arm = "default"  # the arm to train\nepochs = 2  # passes: 5 < n', metadata={})
    defaults.metadata["tags"] = ["parameters"]
    given = nbf.new_code_cell("# Parameters\nepochs = 100\n", metadata={"tags": ["injected-parameters"]})
    nbformat.write(nbf.new_notebook(cells=[defaults, given]), tmp_path / "03.ipynb")
    page = notebook_pages.render(tmp_path / "03.ipynb", lambda text: text.replace("epochs", "(withheld)"))
    rows = BeautifulSoup(page.body, "html.parser").select(".parameters tbody tr")
    assert [[cell.text for cell in row("td")] for row in rows] == [
        ["arm", "'default'", "the arm to train"],
        ["(withheld)", "100", "passes: 5 < n"],
    ]
    assert page.title == "03"
    assert not page.sortable


def test_the_table_of_cases_holds_every_score(reviewed_checkout, index):
    _, files, _ = reviewed_checkout
    table = pd.read_csv(index.parent / "tables" / "cases.csv").set_index(["case", "arm", "strategy", "region"])
    assert len(table) == 3 * 6 * 3
    scores = pd.read_csv(files.scores("segresnet", "scratch"))
    for row in scores[scores["metric"].isin(report_content.CASE_METRICS)].itertuples():
        assert table.loc[(row.case, row.arm, row.strategy, row.region), row.metric] == row.value
    text = (index.parent / "tables" / "cases.html").read_text(encoding="utf-8")
    assert text.count("<td>from scratch</td>") == 3 * 2 * 3
    assert text.index("<td>ET</td>") < text.index("<td>TC</td>") < text.index("<td>WT</td>")


def column(page, number: int):
    return page.locator(f".frame.long tbody tr td:nth-child({number})")


@pytest.mark.slow
@pytest.mark.browser
def test_a_notebook_page_sorts_searches_and_shows_its_code_with_the_network_off(index):
    expect = needs_browser().expect
    lesions = [f"L{number:02d}" for number in range(20)]
    volumes = [f"{2.0**power}" for power in range(19)]
    with tab(offline=True, width=1280) as opened:
        page = opened.page
        page.goto((index.parent / "notebooks" / "07_statistics.html").as_uri())
        page.wait_for_function("() => document.body.dataset.sortable")
        expect(column(page, 1)).to_have_text(lesions)
        page.get_by_text("volume", exact=True).click()
        expect(column(page, 2)).to_have_text([*volumes, "NaN"])  # as numbers, not as text
        page.get_by_text("volume", exact=True).click()
        expect(column(page, 2)).to_have_text([*volumes[::-1], "NaN"])  # a missing value comes last in both orders
        page.get_by_label("Search").fill("L07")
        expect(column(page, 1)).to_have_text(["L07"])
        page.get_by_label("Search").fill("")
        expect(column(page, 1)).to_have_count(20)
        code = page.get_by_text("look()")
        expect(code).to_be_hidden()
        page.get_by_label("Show all code").check()
        expect(code).to_be_visible()
        page.get_by_label("Show all code").uncheck()
        expect(code).to_be_hidden()
        assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert opened.outside == []
    assert opened.errors == []


@pytest.mark.slow
@pytest.mark.browser
def test_without_script_a_page_is_whole_and_its_code_can_be_shown(index):
    needs_browser()
    with tab(offline=True, scripts=False) as opened:
        opened.page.goto((index.parent / "notebooks" / "07_statistics.html").as_uri())
        assert column(opened.page, 1).all_inner_texts() == [f"L{number:02d}" for number in range(20)]
        opened.page.get_by_label("Show all code").check()
        assert opened.page.get_by_text("look()").is_visible()


@pytest.mark.slow
@pytest.mark.browser
def test_the_table_of_cases_fits_a_laptop_and_a_turned_sheet(index):
    expect = needs_browser().expect
    with tab(offline=True, width=1280) as opened:
        page = opened.page
        page.goto((index.parent / "tables" / "cases.html").as_uri())
        page.wait_for_function("() => document.body.dataset.sortable")
        too_wide = "() => document.documentElement.scrollWidth - window.innerWidth"
        assert page.evaluate(too_wide) <= 0
        assert page.evaluate("() => document.querySelectorAll('.dt-container').length") == 1
        page.get_by_label("Search").fill("SegResNet scratch")
        expect(column(page, 2)).to_have_text(["SegResNet"] * 9)
        expect(column(page, 3)).to_have_text(["from scratch"] * 9)
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 1010, "height": 680})  # A4 turned, within its margins, in CSS pixels
        assert page.evaluate(too_wide) <= 0
    assert opened.outside == []
    assert opened.errors == []


@pytest.mark.parametrize(
    ("declared", "first", "second"),
    [
        (
            {"when": "before training"},
            "Verdict: fine-tuned against scratch: superior, within the margin.",
            "first training",
        ),
        (
            {"when": "before training", "changed": True},
            "Verdict: fine-tuned",
            "before the first training, after another",
        ),
        ({"when": "after", "changed": True}, "Exploratory verdict: fine-tuned", "changed after results were there"),
        ({"when": "after"}, "Exploratory verdict: fine-tuned", "first recorded after results were there"),
        ({"when": "unknown"}, "Exploratory verdict: fine-tuned", "declared at an unknown time"),
    ],
)
def test_the_first_page_shows_the_verdict_and_when_the_rule_was_declared(tmp_path, declared, first, second):
    files = StudyPaths(str(tmp_path), "study")
    confirms = declared["when"].startswith("before")
    rule = {"endpoint": {"metric": "hd95", "region": "TC"}, "margin": 2.0, "alpha": 0.025, "secondary": []}
    decision = {
        "rule": rule, "declared": {"changed": False, **declared, "confirms": confirms}, "verdict": "superior",
        "size": "within the margin", "endpoints": [{"unit": "mm"}],
    }  # fmt: skip
    study_on_disk.write_json(files.statistics / "statistics.json", {"decision": decision})
    page = report.PAGES.from_string(
        "{% set answer = [] %}"
        + (TEMPLATES / "index.html.j2").read_text().partition('id="answer">')[2].partition("</section>")[0]
    )
    text = " ".join(
        BeautifulSoup(page.render(verdict=report_content.verdict(files)), "html.parser").get_text().split()
    )
    assert first in text
    assert second in text
    assert "HD95 of TC, margin 2 mm, one-sided level 0.025" in text


def test_statistics_without_a_decision_are_refused(tmp_path):
    files = StudyPaths(str(tmp_path), "study")
    study_on_disk.write_json(files.statistics / "statistics.json", {"answer": ["Yes."]})
    with pytest.raises(ValueError, match="holds no decision: rerun notebook 07"):
        report_content.verdict(files)


def test_every_table_of_the_report_is_named_once() -> None:
    assert len(set(report.TABLES)) == len(report.TABLES)
