"""Raw scans of any set of sequences that holds the t1c, and scans that lack what they may lack."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from raw_scans import write_scan

from brainmets import cli
from brainmets.files import read_json
from brainmets.params import Cohort, Raw
from brainmets.paths import PreparationPaths
from brainmets.phantoms.scanner import make_scanner_cohort
from brainmets.phantoms.sites import make_patient
from brainmets.preparation import cohort_quality, quality_figures, series, sorting
from brainmets.preparation.flags import flag
from brainmets.preparation.quality import COMPARED, PAIRS, QUALITY_COLUMNS, measure
from brainmets.preparation.sorting import SortingError
from brainmets.vocabulary import SEQUENCES


def declared(folder: Path, sequences: list[str], may_lack: list[str] | None = None, **raw: object) -> Cohort:
    return Cohort(
        folder=str(folder / "cohort"), layout="brats", label_map={}, held_out=0, sequences=sequences,
        may_lack=may_lack or [], raw=Raw(folder=str(folder / "raw"), prefix="case", **raw),
    )  # fmt: skip


def sort(folder: Path, sequences: list[str], may_lack: list[str] | None = None) -> dict[str, sorting.Planned]:
    return sorting.sort(declared(folder, sequences, may_lack), PreparationPaths(folder / "private"), lambda line: None)


def test_t1c_alone_asks_for_nothing_else(tmp_path: Path) -> None:
    """A folder of planning scans: T1c alone, and one whose other series nobody must decide on."""
    write_scan(tmp_path / "raw" / "p1", ("T1GD",))
    write_scan(tmp_path / "raw" / "p2", seed=1)
    plan = sort(tmp_path, ["t1c"])
    assert [set(one.images) for one in plan.values()] == [{"t1c"}, {"t1c"}]
    table = series.read(PreparationPaths(tmp_path / "private").series)
    assert set(table.role) == {"", "t1c"} and set(table.guess) == {"", "t1c"}
    (why,) = table.reason[table.description.str.contains("FLAIR")]
    assert why.endswith("looks like t2f, which is not declared")


def test_more_sequences_later_are_found_again_and_fewer_leave_none(tmp_path: Path) -> None:
    """What the program gave by itself follows the declaration; what a person wrote stays."""
    write_scan(tmp_path / "raw" / "p1")
    files = PreparationPaths(tmp_path / "private")
    four = sort(tmp_path, list(SEQUENCES))
    fewer = sort(tmp_path, ["t1c", "t2f"])
    assert [set(one.images) for one in fewer.values()] == [{"t1c", "t2f"}]
    assert set(series.read(files.series).role) == {"", "t1c", "t2f"}
    again = sort(tmp_path, list(SEQUENCES))
    assert again == four, "the same digests, so that nothing is prepared anew"


def test_all_four_declared_are_what_they_were_when_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state and the digests of a study from before: nothing is sorted, or prepared, anew."""
    write_scan(tmp_path / "raw" / "p1")
    files = PreparationPaths(tmp_path / "private")
    silent = declared(tmp_path, list(SEQUENCES)).model_copy(update={"sequences": None})
    before = sorting.sort(silent, files, lambda line: None)
    monkeypatch.setattr(sorting, "look", None)
    after = sort(tmp_path, list(SEQUENCES))
    assert {case: one.digest for case, one in after.items()} == {case: one.digest for case, one in before.items()}


def test_a_scan_without_what_it_may_lack_is_planned_and_told(tmp_path: Path) -> None:
    write_scan(tmp_path / "raw" / "p1", ("T1", "T1GD", "FLAIR"))
    write_scan(tmp_path / "raw" / "p2", seed=1)
    plan = sort(tmp_path, list(SEQUENCES), ["t2w"])
    lacking, whole = sorted(plan, key=lambda case: len(plan[case].images))
    assert set(plan[lacking].images) == {"t1n", "t1c", "t2f"} and set(plan[whole].images) == set(SEQUENCES)
    findings = pd.read_csv(PreparationPaths(tmp_path / "private").findings)
    (row,) = findings[findings.text.str.contains("t2w")].to_dict("records")
    assert (row["severity"], row["case"]) == ("warning", lacking)
    assert row["text"] == f"case {lacking}: has no t2w, and is prepared without it, as may_lack allows"


def test_a_scan_without_what_it_needs_is_refused_with_what_is_declared(tmp_path: Path) -> None:
    write_scan(tmp_path / "raw" / "p1", ("T1GD", "FLAIR"))
    with pytest.raises(SortingError) as caught:
        sort(tmp_path, ["t1c", "t2w", "t2f"], ["t2f"])
    assert "t2w is undecided" in str(caught.value)
    assert "declared are t1c, t2w, t2f, of which may be lacking (may_lack): t2f; t1c, t2w are needed" in str(
        caught.value
    )


@pytest.mark.parametrize(("sequences", "may_lack"), [(["t2w", "t2f"], []), (["t1c", "t2f"], ["t1c"])])
def test_without_a_t1c_nothing_is_sorted(tmp_path: Path, sequences: list[str], may_lack: list[str]) -> None:
    write_scan(tmp_path / "raw" / "p1")
    with pytest.raises(SortingError, match="every raw scan is laid onto its t1c"):
        sort(tmp_path, sequences, may_lack)


def test_an_uncertain_series_stops_nothing_where_the_sequence_may_be_lacking(tmp_path: Path) -> None:
    rows = [
        {"case": "a", "series": 1, "role": "t1c", "guess": "t1c", "rank": 1},
        {"case": "a", "series": 2, "role": "", "guess": "t2f", "rank": 1},
    ]
    table = pd.DataFrame(rows)
    assert series.choose(table, "a", ["t1c", "t2f"], ["t2f"]) == {"t1c": 1}
    assert series.lacking(table, "a", ["t2f"]) == {"t2f": [2]}
    assert "series 2 may be it: see series.csv, and write t2f into its role" in series.lacking_in_words("t2f", [2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sequences", "t1c,flair"], "--sequences: 'flair' is no sequence; those are t1n, t1c, t2w, t2f"),
        (["--sequences", "t1c", "t1c"], "--sequences: t1c is named twice"),
        (["--sequences", "t2w,t2f"], "every scan is laid onto its t1c"),
        (["--sequences", "t1c,t2f", "--may-lack", "t1c"], "every scan is laid onto its t1c"),
        (["--sequences", "t1c", "--may-lack", "t2f"], "--may-lack: t2f is not among --sequences (t1c)"),
        (["--may-lack", "t2"], "--may-lack: 't2' is no sequence"),
    ],
)
def test_names_that_cannot_be_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (tmp_path / "raw").mkdir()
    assert cli.main(["prepare", str(tmp_path / "raw"), "--out", str(tmp_path / "cohort"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "cohort.private").exists()


# --- numbers, flags and pictures ---


@pytest.fixture(scope="module")
def scan() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    made = make_patient("target", 5, 4.0, 91)
    return dict(made.images), made.images["t1c"] > 0, made.affine


def test_numbers_of_what_is_there_are_those_of_all_four_and_others_are_not(scan: tuple) -> None:
    images, mask, affine = scan
    whole = measure(images, mask, affine, {})
    there = ("t1n", "t1c", "t2f")
    part = measure({name: images[name] for name in there}, mask, affine, {})
    compared = [name for name in COMPARED if name in there]
    same = [f"{one}_{other}_shared_bits" for one, other in PAIRS if {one, other} <= {*there}]
    same += [f"{name}_{kind}" for name in compared for kind in ("agreement", "clear_sd", "turned", "flipped")]
    same += [f"{name}_absent_pct" for name in there] + ["brain_mL"]
    for name in same:
        assert part[name] == whole[name] and np.isfinite(part[name]), name
    assert all(np.isnan(part[name]) for name in QUALITY_COLUMNS if "t2w" in name.split("_"))


def test_t1c_alone_has_numbers_of_its_own_and_no_share(scan: tuple) -> None:
    images, mask, affine = scan
    alone = measure({"t1c": images["t1c"]}, mask, affine, {})
    assert np.isnan(alone["dark_rim_pct"])
    assert np.isfinite([alone["t1c_absent_pct"], alone["brain_mL"], alone["air_pct"]]).all()
    two = measure({name: images[name] for name in ("t1c", "t2f")}, mask, affine, {})
    assert np.isnan(two["t2f_agreement_share"]), "one of one says nothing"
    assert np.isfinite(two["t2f_agreement"])


def test_nothing_is_awaited_of_a_sequence_that_a_case_lacks() -> None:
    """Four of five cases have every number: the fifth lacks its t2w, and one of the four could not be measured."""
    value = {"case": "", **dict.fromkeys(QUALITY_COLUMNS, np.nan), "t2w_agreement": 0.6, "brain_mL": 1400.0}
    rows = [value | {"case": f"case-{number}"} for number in range(5)]
    rows[3] |= {"t2w_agreement": np.nan}
    rows[4] |= {"t2w_agreement": np.nan}
    found = flag(pd.DataFrame(rows), {"case-4": ("t1n", "t1c", "t2f")})
    assert found[["case", "measure"]].to_numpy().tolist() == [["case-3", "t2w_agreement"]]
    assert set(flag(pd.DataFrame(rows)).case) == {"case-3", "case-4"}, "without that knowledge both are wrong"


def test_pictures_have_a_column_for_each_sequence_there_is(scan: tuple, tmp_path: Path) -> None:
    images, mask, affine = scan
    for there in (("t1c",), ("t1c", "t2f"), ("t1n", "t1c", "t2f"), SEQUENCES):
        some = {name: images[name] for name in there}
        for figure, width, axes in (
            (quality_figures.patient_figure("a", {}, some, mask, affine), 8, 4 * len(there)),
            (quality_figures.patient_strip(some, mask, affine), 6, len(there)),
        ):
            assert len(figure.axes) == axes
            left, share = quality_figures.column_of(len(there) - 1, len(there))
            last = figure.axes[len(there) - 1].get_gridspec()
            assert last.get_geometry()[1] == len(there)
            assert figure.get_size_inches()[0] * share == pytest.approx(width * quality_figures.column_of(0)[1])
            assert 0 < left < left + share < 1
    assert quality_figures._margins(4) == (1.0, quality_figures.LEFT, quality_figures.RIGHT)


def test_a_case_that_lacks_one_is_told_on_the_page_and_in_the_audit(tmp_path: Path) -> None:
    write_scan(tmp_path / "raw" / "p1", ("T1", "T1GD", "FLAIR"))
    files = PreparationPaths(tmp_path / "private")
    (case,) = sort(tmp_path, list(SEQUENCES), ["t2w"])
    row = dict.fromkeys(QUALITY_COLUMNS, None)
    record = {
        "row": row,
        "label_beyond_grid": 0.0,
        "brain_from": "t1n",
        "raw_sha256": {"t1n": "", "t1c": "", "t2f": ""},
    }
    (files.case(case)).mkdir(parents=True)
    files.prepared(case).write_text(json.dumps({**record, "provenance": {"parameters": {"space": "t1c"}}}))
    for name in ("picture.png", "strip.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(files.case(case) / name)
    flags = cohort_quality.review(declared(tmp_path, list(SEQUENCES), ["t2w"]), files)
    assert flags[["case", "severity", "measure"]].to_numpy().tolist() == [[case, "warning", "t2w_lacking"]]
    page = files.quality.read_text()
    assert "Has no t2w, and is prepared without it" in page and "T1 and T1 after contrast and FLAIR before" in page
    (finding,) = cohort_quality.findings(flags).to_dict("records")
    assert finding["finding"].startswith("Has no t2w")


@pytest.mark.slow
def test_t1c_alone_and_a_scan_without_flair_from_dicom_to_the_page(tmp_path: Path) -> None:
    """The t1c comes out as with four: nothing else has a say in where it lies, where the brain mask is one's own."""
    make_scanner_cohort(tmp_path / "raw", 1, 4.0, seed=7)
    words = ["--brain-masks", "brain_masks/{patient}.nii.gz", "--spacing", "4", "4", "4", "--workers", "1"]
    outs = {}
    for name, further in (("four", []), ("one", ["--sequences", "t1c"]), ("two", ["--sequences", "t1c", "t2f"])):
        outs[name] = tmp_path / name
        given = ["prepare", str(tmp_path / "raw"), "--out", str(outs[name]), "--labels", "labels/{patient}.nii.gz"]
        assert cli.main([*given, *words, *further]) == 0
    files = {name: sorted(path.name for path in out.rglob("*.nii.gz")) for name, out in outs.items()}
    assert files["one"] == ["case-00001-000-seg.nii.gz", "case-00001-000-t1c.nii.gz"]
    assert files["two"] == [*files["one"], "case-00001-000-t2f.nii.gz"]
    for name in ("one", "two"):
        for image in files[name]:
            made, wanted = (next(outs[one].rglob(image)).read_bytes() for one in (name, "four"))
            assert made == wanted, (name, image)
        record = read_json(PreparationPaths(tmp_path / f"{name}.private").prepared("case-00001-000"))
        assert record["brain_from"] == "own mask"
        assert (tmp_path / f"{name}.private" / "quality.html").is_file()
