"""Which series is which: on examinations written by hand, and the table in which a person decides."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import header_sets
import numpy as np
import pandas as pd
import pytest
import SimpleITK
from header_sets import EXAMINATIONS, examination

from brainmets.preparation import series
from brainmets.preparation.judging import CERTAIN, judge
from brainmets.preparation.scans import Header, Series
from brainmets.vocabulary import SEQUENCES

CASE = "P-00001-000"
STANDARD = "siemens 3T, standard"
T1S = {"t1n", "t1c"}
UNCERTAIN = {
    "siemens, post not flagged, names alike": T1S,
    "siemens, one MPRAGE without a flag anywhere": T1S,
    "siemens, agent in every series": T1S,
    "siemens, MP2RAGE": {"t1n"},
    "siemens, no names, no agent": T1S,
    "siemens, no names, MP2RAGE": {"t1n"},
    "siemens, missing slices": {"t1n"},
    "siemens, names that lie": {"t1n", "t2w"},
    "ge, no names, FSPGR": T1S,
    "ge, perfusion before the last T1": T1S,
    "ge, T1 FLAIR without its inversion time": {"t1n"},
    "philips, no names, T2 of long TR": {"t2w"},
    "names alone, T1 FLAIR": T1S,
    "nothing at all": set(SEQUENCES),
    "native after contrast by its name": {"t1n"},
    "volumes, T1 without a sign": T1S,
    "volumes by number": set(SEQUENCES),
    "siemens, pituitary gland": T1S,
    "siemens, a word for before that nobody knows": T1S,
    "ge, WITH": T1S,
    "philips, no names, inflow angiography": {"t1n"},
    "volumes of UCSF": {"t1n"},
    "volumes by date": T1S,
    "volumes, pre alone": T1S,
}
"""Where a person is asked, by examination; everything else is certain."""


def table_of(name: str, case: str = CASE) -> pd.DataFrame:
    return series.guess([one for _, one in EXAMINATIONS[name]]).assign(case=case)


def scan_of(*rows: str) -> list[Series]:
    return [one for _, one in examination(*rows)]


def reason(name: str, number: int) -> str:
    return str(table_of(name).set_index("series").loc[number, "reason"])


# --- guessing ----------------------------------------------------------------------------------------------------


def test_what_is_certain_is_right() -> None:
    """110 examinations, 440 sequences: 396 certain and right, 44 for a person, none certain and wrong."""
    counts: Counter[str] = Counter()
    for name, entries in EXAMINATIONS.items():
        table = table_of(name)
        truth = {one.number: sequence for sequence, one in entries}
        roles = {role: number for role, number in zip(table["role"], table["series"], strict=True) if role}
        assert {role: truth[number] for role, number in roles.items()} == {role: role for role in roles}, name
        assert set(SEQUENCES) - set(roles) == UNCERTAIN.get(name, set()), name
        counts.update("right" if sequence in roles else "uncertain" for sequence in SEQUENCES)
    assert counts == {"right": 396, "uncertain": 44}
    assert len(EXAMINATIONS) == 110


EMPTIED = {
    "names": header_sets.NAMELESS,
    "flags": ("scanning_sequence", "sequence_variant"),
    "times of the physics": ("repetition_ms", "echo_ms", "inversion_ms"),
    "inversion time": ("inversion_ms",),
    "agent": ("contrast_agent",),
    "time of day": ("time",),
    "image type": ("image_type",),
    "flip angle": ("flip_angle_deg",),
    "2D or 3D": ("acquisition",),
    "b value": ("b_value",),
}
DECEIVED = {
    ("siemens, names that lie", "times of the physics"),
    ("native after contrast by its name", "time of day"),
}
"""Names that lie, once that which contradicts them is gone: no header can tell."""


def test_headers_emptied_by_de_identification_give_no_certain_error() -> None:
    """Every examination without any one thing that tells the series apart, and without the names and one more."""
    kept = Header()
    tried = 0
    for emptied in (*((group,) for group in EMPTIED), *(("names", group) for group in EMPTIED)):
        fields = {field: getattr(kept, field) for group in emptied for field in EMPTIED[group]}
        for name, entries in EXAMINATIONS.items():
            if any((name, group) in DECEIVED for group in emptied):
                continue
            scan = [dataclasses.replace(one, header=dataclasses.replace(one.header, **fields)) for _, one in entries]
            for verdict, (truth, _) in zip(judge(scan), entries, strict=True):
                certain = verdict.rank == 1 and verdict.confidence >= CERTAIN
                assert not certain or verdict.guess == truth, (name, emptied, verdict.series.number, verdict.reasons)
                tried += certain
    assert tried > 3000


def test_reasons_are_in_words() -> None:
    assert reason(STANDARD, 6) == (
        "FLAIR: inversion time 2500 ms, repetition time 9000 ms, echo time 94 ms; its name says FLAIR"
    )
    assert reason(STANDARD, 5) == "not taken: diffusion, as its name says"
    assert "its name says T1, but repetition time 5000 ms, echo time 96 ms is T2" in reason(
        "siemens, names that lie", 1
    )
    assert "the later of two alike, so perhaps after it" in reason("siemens, post not flagged, names alike", 4)
    assert "but so does that of every T1 of this scan" in reason("siemens, agent in every series", 1)
    assert "recorded after a series that has one" in reason("ge, perfusion before the last T1", 5)
    assert "MP2RAGE, whose background is noise" in reason("siemens, MP2RAGE", 3)
    assert "after contrast agent" in reason("siemens, FLAIR after contrast", 4)


def test_names_that_put_every_t1_on_one_side_of_contrast_are_not_believed() -> None:
    """ "antes" is before in Spanish, which the program does not know: both seem to be after contrast."""
    table = table_of("siemens, a word for before that nobody knows")
    assert table["guess"].tolist() == ["t1c", "t2w", "t2f", "t1c"]
    assert "a name may mean something else" in table["reason"][0]


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        ("t1c|s mprage|t1_gd", "t1c|s t1se|t1_gd", "3D rather than 2D"),
        ("t1c|s t1se|t1_gd|spacing_mm=", "t1c|s t1se|t1_gd", "thinner slices"),
        ("t1c|s t1se|t1_gd|slices=30", "t1c|s t1se|t1_gd", "larger coverage"),
        ("t1c|s t1se|t1_gd", "t1c|s mprage|t1_gd|problem=a gap", "more certain"),
        ("t1c|s t1se|t1_gd", "t1c|s mprage|t1_gd|image_type=DERIVED\\SECONDARY\\OTHER", "more certain"),
        ("t1c|s mprage|t1_gd", "t1c|s vibe|t1_vibe_dixon_gd_W", "all tissue, not water alone"),
    ],
)
def test_the_better_candidate_comes_first_and_says_why(better: str, worse: str, why: str) -> None:
    """Whichever of the two was recorded first."""
    thin = "spacing_mm=" in better
    for place in (0, 1):
        rows = [worse]
        rows.insert(place, better.replace("|spacing_mm=", ""))
        scan = scan_of(*rows, "t1n|s t1se|t1_native|time=090000")
        if thin:
            spacing = (0.43, 0.43, 4.0)
            header = dataclasses.replace(scan[place].header, spacing_mm=spacing, slices=38)
            scan[place] = dataclasses.replace(scan[place], header=header)
        table = series.guess(scan)
        assert list(table["rank"]) == ([1, 2, 1] if place == 0 else [2, 1, 1])
        assert table["reason"][place].endswith(f"preferred to series {2 - place}: {why}")


def test_of_equals_the_later_is_taken_but_the_earlier_native_one() -> None:
    table = table_of("siemens, T1 repeated for motion").set_index("series")
    assert dict(table["role"]) == {1: "t1n", 2: "", 3: "", 4: "t2w", 5: "t2f", 6: "t1c"}


def test_a_series_that_cannot_be_read_is_no_candidate() -> None:
    scan = scan_of("t2w|s t2|t2_tse")
    assert series.guess([dataclasses.replace(scan[0], usable=False)])["guess"].tolist() == [""]
    assert series.guess(scan)["guess"].tolist() == ["t2w"]


def test_an_empty_scan_gives_an_empty_table() -> None:
    assert len(series.guess([])) == 0
    assert tuple(series.empty().columns) == series.SERIES_COLUMNS
    assert (series.empty().dtypes == table_of(STANDARD).dtypes).all()


def test_neither_the_agents_text_nor_other_free_text_is_repeated_in_reasons() -> None:
    table = series.guess(scan_of("t1c|s mprage|t1 Meier gd|agent=Gadovist 7 ml Dr. Huber", "t2w|s t2|t2 Meier"))
    assert not re.search("Huber|Gadovist", table.to_csv())
    assert not table["reason"].str.contains("Meier").any()


# --- the table ---------------------------------------------------------------------------------------------------


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    table = pd.concat([table_of(name, f"P-{number:05d}-000") for number, name in enumerate(EXAMINATIONS)])
    path = series.write(tmp_path / "series.csv", table)
    pd.testing.assert_frame_equal(series.read(path), table.reset_index(drop=True))
    assert path.stat().st_mode & 0o777 == 0o600


def hostile() -> pd.DataFrame:
    texts = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", " =1", "＝1", "t1;=1+1", 't1",=1', "t1\n=1"]
    scan = scan_of(*("t2w|s t2|x" for _ in texts))
    keys = [
        "=1/a.nii",
        "-p/Müller; Anna/t1.nii",
        "@x,y",
        "+a b",
        "p/é\n.nii",
        "p/%41",
        "'=1",
        "a\udcfcb",
        " a",
        "p/t1.nii.gz",
    ]
    return series.guess(
        [
            dataclasses.replace(one, key=key, header=dataclasses.replace(one.header, description=text))
            for one, key, text in zip(scan, keys, texts, strict=True)
        ]
    ).assign(case=CASE)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_is_a_formula_whichever_separator_a_spreadsheet_takes(tmp_path: Path, separator: str) -> None:
    table = hostile()
    path = series.write(tmp_path / "series.csv", table)
    cells = [cell for line in path.read_text(encoding="utf-8").splitlines() for cell in line.split(separator)]
    assert not [cell for cell in cells if cell.strip(' "')[:1] in "=+-@＝" and cell.strip(' "')]
    assert list(series.read(path)["key"]) == list(table["key"])


def saved_by(spreadsheet: str, text: str) -> bytes:
    """What a spreadsheet makes of a table: semicolons and decimal commas, a mark, CRLF, its own encoding."""
    lines = pd.read_csv(pd.io.common.StringIO(text), dtype=str, keep_default_na=False)
    if spreadsheet == "libreoffice":
        return lines.to_csv(index=False, sep="\t", quoting=1).encode("utf-8")
    for column in series.NUMBERS:
        lines[column] = lines[column].str.replace(".", ",")
    german = lines.to_csv(index=False, sep=";", lineterminator="\r\n") + ";;;\r\n"
    if spreadsheet == "excel, unicode text":
        return german.replace(";", "\t").encode("utf-16")
    if spreadsheet == "excel, csv":
        return german.encode("cp1252")
    return ("sep=;\r\n" + german).encode("utf-8-sig")


@pytest.mark.parametrize("spreadsheet", ["libreoffice", "excel, csv", "excel, unicode text", "excel, csv utf-8"])
def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path, spreadsheet: str) -> None:
    table = table_of("siemens, german, ohne and mit")
    table["reason"] = table["reason"].str.replace(";", ".")
    path = series.write(tmp_path / "series.csv", table)
    path.write_bytes(saved_by(spreadsheet, path.read_text(encoding="utf-8")))
    pd.testing.assert_frame_equal(series.read(path), table)
    assert "T2* Hämo" in set(series.read(path)["description"])


def edited(folder: Path, **changes: tuple[int, str]) -> Path:
    """``series.csv`` of the standard examination with cells changed: column = (row as a spreadsheet counts, text)."""
    path = series.write(folder / "series.csv", table_of(STANDARD))
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column, (row, text) in changes.items():
        cells.loc[row - 2, column] = text
    cells.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"role": (2, "T1")},
            r"series\.csv, row 2: column role: 'T1' is no role; perhaps t1n or t1c is meant: write one",
        ),
        ({"role": (2, "flair")}, "'flair' is no role; perhaps t2f is meant"),
        ({"role": (2, "T1 Gd")}, "perhaps t1c is meant"),
        ({"role": (2, "t1cc")}, "perhaps t1c"),
        ({"role": (2, "t2w")}, f"row 4: case {CASE}: t2w is already given to row 2: leave it to one"),
        ({"key": (3, "1,2E+05")}, r"row 3: column key: '1,2E\+05' has been made a number or a date by a spreadsheet"),
        ({"key": (3, "1.284")}, "has been made a number or a date"),
        ({"key": (3, "01.02.1984")}, "has been made a number or a date"),
        ({"key": (3, "")}, "row 3: column key is empty: rows cannot be added"),
        ({"key": (3, "1.2.3.1")}, "row 3: .* the same series as in row 2: delete one"),
        ({"series": (3, "1")}, f"row 3: case {CASE}: series 1 is already in row 2: take back"),
        ({"series": (3, "1.5")}, "row 3: column series: '1.5' is no number"),
        ({"confidence": (3, "high")}, "row 3: column confidence: 'high' is no number"),
        ({"case": (3, " ")}, "row 3: column case is empty"),
    ],
)
def test_a_mistake_is_named_with_its_row_and_what_to_do(
    tmp_path: Path, changes: dict[str, tuple[int, str]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        series.read(edited(tmp_path, **changes))


@pytest.mark.parametrize("case", ["{", "{}", "{0.__class__}", "P{:d}"])
def test_a_case_is_named_as_it_is_written(tmp_path: Path, case: str) -> None:
    """Its name is text of others, and no pattern that Python fills in."""
    path = edited(tmp_path)
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    pd.concat([cells[:1], cells[:1]]).assign(case=case).to_csv(path, index=False)
    with pytest.raises(ValueError, match=rf"row 3: case {re.escape(case)}: the same series as in row 2: delete"):
        series.read(path)


def test_roles_may_be_written_in_capitals(tmp_path: Path) -> None:
    table = series.read(edited(tmp_path, role=(3, " T1N ")))
    assert table["role"][1] == "t1n"


def test_every_mistake_is_listed_at_once_and_a_lost_column_is_named(tmp_path: Path) -> None:
    path = edited(tmp_path, role=(2, "x"), key=(4, "7"))
    with pytest.raises(ValueError, match=r"(?s)row 2: .*row 4: "):
        series.read(path)
    pd.read_csv(path).drop(columns="key").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"series\.csv: column key is missing"):
        series.read(path)
    path.write_text("")
    with pytest.raises(ValueError, match=r"series\.csv: column case is missing"):
        series.read(path)


# --- merging -----------------------------------------------------------------------------------------------------


def with_roles(table: pd.DataFrame, roles: dict[int, str]) -> pd.DataFrame:
    changed = table.copy()
    changed["role"] = [roles.get(number, role) for number, role in zip(table["series"], table["role"], strict=True)]
    return changed


def roles_of(table: pd.DataFrame) -> dict[int, str]:
    return {number: role for number, role in zip(table["series"], table["role"], strict=True) if role}


def test_what_a_person_wrote_or_erased_stays() -> None:
    new = table_of("siemens, T1 repeated for motion")
    assert roles_of(new) == {1: "t1n", 4: "t2w", 5: "t2f", 6: "t1c"}
    old = with_roles(new, {1: "", 2: "t1n", 5: ""})
    merged, findings = series.merge(old, new)
    assert roles_of(merged) == {2: "t1n", 4: "t2w", 6: "t1c"}
    assert findings == []


def test_a_new_series_takes_no_role_that_is_given() -> None:
    """A better T2 turns up (3D): the table's stays, and the new one is listed."""
    scan = scan_of("t1n|s t1se|t1", "t2w|s t2|t2", "t2f|s flair|flair", "t1c|s t1se|t1 gd")
    old = series.guess(scan).assign(case=CASE)
    more = scan_of("t1n|s t1se|t1", "t2w|s t2|t2", "t2f|s flair|flair", "t1c|s t1se|t1 gd", "t2w|s t2space|t2_space")
    merged, findings = series.merge(old, series.guess(more).assign(case=CASE))
    assert roles_of(merged) == {1: "t1n", 2: "t2w", 3: "t2f", 4: "t1c"}
    assert merged["guess"].tolist()[-1] == "t2w"
    assert findings == []


def test_a_guess_that_became_certain_fills_an_empty_role() -> None:
    new = table_of(STANDARD)
    old = new.assign(role="", confidence=0.5)
    assert roles_of(series.merge(old, new)[0]) == roles_of(new)


def test_numbers_may_change_the_key_counts() -> None:
    new = table_of(STANDARD)
    old = with_roles(new, {2: "", 8: "", 7: "t1c"}).assign(series=new["series"] + 10)
    assert roles_of(series.merge(old, new)[0]) == {3: "t2w", 6: "t2f", 7: "t1c"}


def test_a_changed_guess_does_not_override_but_is_told() -> None:
    new = table_of(STANDARD)
    old = new.copy()
    new.loc[new["series"] == 3, ["role", "guess"]] = ["t2f", "t2f"]
    new.loc[new["series"] == 6, ["role", "guess"]] = ["", ""]
    merged, findings = series.merge(old, new)
    assert roles_of(merged) == roles_of(old)
    assert [finding.text.split(",")[0] for finding in findings] == [
        f"case {CASE}: series 3 keeps the role t2w of series.csv",
        f"case {CASE}: series 6 keeps the role t2f of series.csv",
    ]


def test_a_series_that_is_gone_is_dropped_and_told() -> None:
    new = table_of(STANDARD)
    old = with_roles(new, {3: "", 7: "t2w"})
    gone = new[new["series"] != 7]
    merged, findings = series.merge(old, gone)
    # a person had chosen it: nothing steps into its place
    assert roles_of(merged) == {2: "t1n", 6: "t2f", 8: "t1c"}
    assert [finding[:3] for finding in findings] == [("error", CASE, 7)]
    assert "write t2w into column role of another series" in findings[0].text
    merged, findings = series.merge(new, new[new["series"] != 1])
    assert [finding[:3] for finding in findings] == [("warning", CASE, 1)]
    assert roles_of(merged) == roles_of(new)


def test_rows_of_a_case_that_does_not_exist_are_told() -> None:
    new = table_of(STANDARD)
    merged, findings = series.merge(pd.concat([new, new.assign(case="P-00009-000")]), new)
    assert set(merged["case"]) == {CASE}
    assert {finding.case for finding in findings} == {"P-00009-000"}
    assert "there is no such case" in findings[0].text


# --- choosing ----------------------------------------------------------------------------------------------------


def test_the_four_are_chosen() -> None:
    assert series.choose(table_of(STANDARD), CASE) == {"t1n": 2, "t1c": 8, "t2w": 3, "t2f": 6}


def test_an_undecided_case_stops_with_advice() -> None:
    table = table_of("siemens, post not flagged, names alike")
    with pytest.raises(series.UncertainError) as caught:
        series.choose(table, CASE)
    text = str(caught.value)
    assert text.startswith(f"case {CASE}: t1n and t1c are undecided\n")
    assert "t1c: perhaps series 4 (confidence 0.60: T1: gradient echo" in text
    assert "write t1c into column role of series.csv in the row of series 4, after a look at the image" in text
    assert "all four of t1n, t1c, t2w, t2f are needed" in text
    assert series.choose(with_roles(table, {1: "t1n", 4: "t1c"}), CASE) == {"t1n": 1, "t1c": 4, "t2w": 2, "t2f": 3}


def test_advice_names_every_candidate_or_says_that_there_is_none() -> None:
    with pytest.raises(series.UncertainError, match="in the row of series 4, or in that of series 1, after"):
        series.choose(table_of("siemens, agent in every series"), CASE)
    with pytest.raises(series.UncertainError, match="t2f: no series looks like it"):
        series.choose(table_of("nothing at all"), CASE)


def test_a_role_given_twice_and_an_unknown_case_are_refused() -> None:
    table = with_roles(table_of(STANDARD), {4: "t1c"})
    with pytest.raises(ValueError, match="series 4 and 8 both have the role t1c"):
        series.choose(table, CASE)
    with pytest.raises(ValueError, match=f"no case P-00001-001; the nearest name is {CASE}"):
        series.choose(table, "P-00001-001")


# --- the picture -------------------------------------------------------------------------------------------------


def head(spot: tuple[int, int, int] | None = None) -> SimpleITK.Image:
    """A ball of 160 mm in voxels of 2 mm, axes LPS, with a bright spot at (x, y, z)."""
    z, y, x = np.indices((100, 100, 100))
    voxels = (((x - 50) ** 2 + (y - 50) ** 2 + (z - 50) ** 2) < 40**2).astype(np.float32)
    if spot:
        voxels[spot[2] - 3 : spot[2] + 4, spot[1] - 3 : spot[1] + 4, spot[0] - 3 : spot[0] + 4] = 3
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 2.0, 2.0))
    return image


def test_the_patients_right_is_on_the_left_and_the_front_and_the_top_are_above() -> None:
    """In LPS the first voxels of x are the patient's right, those of y the front, those of z the feet."""
    top = 89  # the highest voxel of the ball
    axial = round(top - series.BELOW_THE_TOP_MM / 2)
    figure = series.picture({"t1n": head((30, 30, axial)), "t1c": head((30, 50, 70))}, table_of(STANDARD), CASE)
    for column, axis in enumerate((figure.axes[0], figure.axes[5])):
        shown = np.asarray(axis.images[0].get_array())
        row, side = np.argwhere(shown == 3).mean(axis=0)
        assert row < 50, column
        assert side < 50, column
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 0, 0, 1, 1, 0, 0]


def test_titles_say_who_chose() -> None:
    table = with_roles(table_of(STANDARD), {3: "", 7: "t2w", 6: ""})
    titles = [axis.get_title() for axis in series.picture({}, table, CASE).axes[:4]]
    assert titles == [
        "T1 (t1n)\nseries 2, confidence 0.95",
        "T1 after contrast (t1c)\nseries 8, confidence 0.97",
        "T2 (t2w)\nseries 7, chosen by a person (guess: none)",
        "FLAIR (t2f)\nundecided",
    ]


@pytest.mark.real
def test_a_real_scan_in_volumes(real_data: Path) -> None:
    folder = real_data / "data" / "raw" / "TCGA-FG-6692"
    names = sorted(path.name for path in folder.glob("*.nii.gz"))
    images = {
        name: SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(folder / name), SimpleITK.sitkFloat32), "LPS")
        for name in names
    }
    scan = [
        Series(
            "", "", f"x/{name}", number, (), "volume",
            Header(slices=image.GetSize()[2], spacing_mm=image.GetSpacing()),
        )
        for number, (name, image) in enumerate(images.items(), start=1)
    ]  # fmt: skip
    table = series.guess(scan).assign(case=CASE)
    chosen = {sequence: names[number - 1] for sequence, number in series.choose(table, CASE).items()}
    assert chosen == {"t1n": "T1.nii.gz", "t1c": "T1GD.nii.gz", "t2w": "T2.nii.gz", "t2f": "FLAIR.nii.gz"}
    figure = series.picture({sequence: images[name] for sequence, name in chosen.items()}, table, CASE)
    assert all(len(axis.images) == 1 for axis in figure.axes)
