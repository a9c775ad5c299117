"""The key file: who may read it, which names it gives, and that nothing is said of a patient."""

import os
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmets.cohorts.key import Key
from brainmets.processes import BusyError, locked

SECRET = "MeierAnna4711"
SCANS = [(SECRET, "20230105"), ("Zander", "20220101"), ("Abel", "20240301"), (SECRET, "20210707")]


def opened(folder: Path, prefix: str = "P") -> Key:
    return Key.open(folder / "private" / "key.csv", folder / "cohort", prefix)


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "private" / "key.csv"
    path.parent.mkdir(exist_ok=True)
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text, encoding="utf-8")
    return path


def test_time_points_are_by_date_and_patients_by_neither_alphabet_nor_date(tmp_path: Path) -> None:
    names = opened(tmp_path).names(SCANS)
    assert set(names) == set(SCANS)
    assert {case.rsplit("-", 1)[0] for case in names.values()} == {"P-00001", "P-00002", "P-00003"}
    assert names[SECRET, "20210707"].endswith("-000")
    assert names[SECRET, "20230105"] == names[SECRET, "20210707"].removesuffix("000") + "001"
    many = [(f"patient{number:03d}", "2020") for number in range(40)]
    order = [case for _, case in sorted(opened(tmp_path / "many").names(many).items())]
    assert order != sorted(order)
    assert len(set(order)) == 40


def test_the_same_scans_without_a_key_get_the_same_names(tmp_path: Path) -> None:
    first = opened(tmp_path / "a").names(SCANS)
    assert opened(tmp_path / "b").names(reversed(SCANS)) == first


def test_known_scans_keep_their_names(tmp_path: Path) -> None:
    before = opened(tmp_path).names(SCANS)
    after = opened(tmp_path).names([*SCANS, ("Aaron", "20200101"), (SECRET, "19990101")])
    assert {scan: after[scan] for scan in SCANS} == before
    assert after["Aaron", "20200101"] == "P-00004-000"
    # an earlier date that turns up later renames nothing
    assert after[SECRET, "19990101"] == before[SECRET, "20210707"].removesuffix("000") + "002"
    assert opened(tmp_path).names(SCANS[:1]) == {SCANS[0]: before[SCANS[0]]}
    assert opened(tmp_path).names([("Aaron", "20200101")]) == {("Aaron", "20200101"): "P-00004-000"}


def test_folders_of_visits_count_by_their_numbers(tmp_path: Path) -> None:
    names = opened(tmp_path).names([("a", "visit 10"), ("a", "visit 2")])
    assert names == {("a", "visit 2"): "P-00001-000", ("a", "visit 10"): "P-00001-001"}


def test_no_scans_write_no_key(tmp_path: Path) -> None:
    assert opened(tmp_path).names([]) == {}
    assert not (tmp_path / "private" / "key.csv").exists()


def test_it_is_private_from_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under a mask that would let everybody read, and already before it is renamed."""
    modes = []
    rename = Path.replace

    def watched(self: Path, target: Path) -> Path:
        modes.append(self.stat().st_mode & 0o777)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    before = os.umask(0)
    try:
        opened(tmp_path).names(SCANS)
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert (tmp_path / "private" / "key.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "place", ["cohort/key.csv", "cohort/images/key.csv", "elsewhere/../cohort/key.csv", "way/key.csv"]
)
def test_a_place_in_the_cohort_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "cohort" / "images").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "way").symlink_to(tmp_path / "cohort")
    with pytest.raises(ValueError, match=r"key\.csv lies in the cohort's folder"):
        Key.open(tmp_path / place, tmp_path / "cohort", "P")


def test_a_link_and_a_folder_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "patient,date,case\n")
    moved = path.rename(tmp_path / "real.csv")
    path.symlink_to(moved)
    with pytest.raises(ValueError, match="is a link"):
        opened(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="is no file"):
        opened(tmp_path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    written(tmp_path, "patient,date,case\n", mode)
    with pytest.raises(ValueError, match=r"run `chmod 600 key\.csv`"):
        opened(tmp_path)


def test_a_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "patient,date,case\n")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(ValueError, match="belongs to another user"):
        opened(tmp_path)


DAMAGED = {
    "a case twice": (
        f"patient,date,case\n{SECRET},1,P-00001-000\nOther,1,P-00001-000\n",
        "row 3: the case's name stands",
    ),
    "a scan twice": (f"patient,date,case\n{SECRET},1,P-00001-000\n{SECRET},1,P-00001-001\n", "row 3: its scan"),
    "a number for two": (
        f"patient,date,case\n{SECRET},1,P-00001-000\nOther,1,P-00001-001\n",
        "row 3: its patient's number",
    ),
    "two numbers": (f"patient,date,case\n{SECRET},1,P-00001-000\n{SECRET},2,P-00002-000\n", "row 3: its patient has"),
    "another form": (f"patient,date,case\n{SECRET},1,{SECRET}\n", "row 2: the case's name does not have"),
    "no patient": (f"patient,date,case\n,{SECRET},P-00001-000\n", "row 2: the patient's identifier is missing"),
    "no column": (f"patient,case\n{SECRET},P-00001-000\n", "lacks one of the columns"),
    "nothing": ("", "lacks one of the columns"),
    "no table": (f"patient,date,case\n{SECRET},1,P-00001-000\n{'x' * 140_000},1,P-00002-000\n", "is no table"),
    "a spreadsheet's": (f"patient;date;case\n{SECRET};1;P-00001-000\n", "saved by a spreadsheet"),
    "a spreadsheet's mark": (f"\ufeffpatient,date,case\n{SECRET},1,P-00001-000\n", "saved by a spreadsheet"),
    "Windows' ends of lines": (f"patient,date,case\r\n{SECRET},1,P-00001-000\r\n", "saved by a spreadsheet"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_key_is_refused_without_a_word_of_the_patient(tmp_path: Path, fault: str) -> None:
    text, said = DAMAGED[fault]
    path = tmp_path / "private" / "key.csv"
    written(tmp_path, "")
    path.write_bytes(text.encode())
    with pytest.raises(ValueError, match=said) as caught:
        opened(tmp_path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert str(tmp_path) not in str(caught.value)
    assert "restore it" in str(caught.value)


def test_lost_leading_zeros_give_no_second_name(tmp_path: Path) -> None:
    written(tmp_path, "patient,date,case\n4711,20200101,P-00001-000\n")
    with pytest.raises(ValueError, match="leading zeros") as caught:
        opened(tmp_path).names([("004711", "20200101")])
    assert "4711" not in str(caught.value)
    assert opened(tmp_path / "new").names([("7", ""), ("07", "")])["7", ""].startswith("P-0000")


def test_scans_without_identifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 scan\(s\) have no patient identifier"):
        opened(tmp_path).names([("", "20200101"), (" ", "20200102"), *SCANS])


def test_a_prefix_is_part_of_a_name(tmp_path: Path) -> None:
    for prefix in ("", "../x", "a b", "1"):
        with pytest.raises(ValueError, match="prefix"):
            opened(tmp_path, prefix)


def test_two_processes_do_not_share_it(tmp_path: Path) -> None:
    key = opened(tmp_path)
    with (
        locked(tmp_path / "private" / ".key.csv.lock", "test"),
        pytest.raises(BusyError, match=r"key\.csv is in use") as caught,
    ):
        key.names(SCANS)
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "private" / "key.csv").exists()


def test_a_failed_write_leaves_the_former_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path).names(SCANS)
    path = tmp_path / "private" / "key.csv"
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        opened(tmp_path).names([*SCANS, ("New", "1")])
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == [".key.csv.lock", "key.csv"]


def test_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = opened(tmp_path)
    key.names(SCANS)
    assert SECRET not in repr(key) + str(vars(key))
    assert capsys.readouterr() == ("", "")


identifiers = st.text(min_size=1, max_size=12).filter(
    lambda text: text.strip() and "\0" not in text and text[0] != "0"
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(identifiers, st.text(max_size=8).filter(lambda text: "\0" not in text)), max_size=8),
    st.integers(0, 8),
)
def test_any_identifiers_come_back_and_no_two_share_a_name(
    tmp_path_factory: pytest.TempPathFactory, scans: list[tuple[str, str]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("key")
    earlier = opened(folder).names(scans[:cut])
    names = opened(folder).names(scans)
    assert {scan: names[scan] for scan in earlier} == earlier
    assert len(set(names.values())) == len(set(scans))
    numbers = {(patient, names[patient, date].rsplit("-", 1)[0]) for patient, date in scans}
    assert len(numbers) == len({patient for patient, _ in scans}) == len({number for _, number in numbers})


def test_an_identifier_with_bytes_that_are_no_text_comes_back(tmp_path: Path) -> None:
    """As the name of a folder in an old encoding."""
    scan = (os.fsdecode(b"M\xfcller"), "")
    names = opened(tmp_path).names([scan])
    assert opened(tmp_path).names([scan, ("Neu", "")])[scan] == names[scan]


def test_another_prefix_is_told_from_damage(tmp_path: Path) -> None:
    opened(tmp_path).names([(SECRET, "1")])
    with pytest.raises(ValueError, match=r"was made with the prefix 'P', not 'Q': keep the prefix") as refused:
        opened(tmp_path, "Q")
    assert SECRET not in str(refused.value)
