"""Where a command may write."""

import re
from pathlib import Path

import pytest

from brainmets import cli
from brainmets.places import PlaceError, require_apart, require_replaceable

SMOKE = Path(__file__).resolve().parents[2] / "params" / "smoke.yaml"


def test_outputs_are_apart_from_inputs_and_each_other(tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    (inputs / "a").write_text("a")
    (tmp_path / "hard").hardlink_to(inputs / "a")
    (tmp_path / "soft").symlink_to(inputs / "a")
    (tmp_path / "out").symlink_to(inputs)
    require_apart({"--a": tmp_path / "x", "--b": tmp_path / "y"}, {"IN": inputs, "NONE": tmp_path / "none"})
    require_apart({"--a": tmp_path / "input"}, {"IN": inputs})  # a name that begins alike
    for path, message in (
        (inputs, "is IN, which is read"),
        (inputs / "new" / "file", "lies in IN"),
        (tmp_path / "out" / "file", "lies in IN"),
        (tmp_path / "soft", "lies in IN"),
        (tmp_path / "hard", "is a second name of a file in IN"),
        (inputs / ".." / "in" / "file", "lies in IN"),
    ):
        with pytest.raises(PlaceError, match=f"^--a: .* {message}"):
            require_apart({"--a": path}, {"IN": inputs})
    for twin in (tmp_path / "x", tmp_path / "in" / ".." / "x"):
        with pytest.raises(PlaceError, match=r"^--b: .* is given for --a too"):
            require_apart({"--a": tmp_path / "x", "--b": twin}, {})


def test_what_is_there_and_not_ours_stays(tmp_path: Path) -> None:
    own, link = tmp_path / "own.csv", tmp_path / "link.csv"
    require_replaceable("--out", own, ".csv", lambda _: False, "table")
    own.write_text("")
    require_replaceable("--out", own, ".csv", lambda _: False, "table")
    own.write_text("x")
    require_replaceable("--out", own, ".csv", lambda _: True, "table")
    link.symlink_to(tmp_path / "none")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    for path, message in (
        (own, "is there and is no table: it is not overwritten"),
        (link, "is a link to nothing"),
        (folder, "is a folder"),
        (tmp_path / "own.txt", r"must end with \.csv"),
        (own / "below.csv", "is a file, not a folder"),
    ):
        with pytest.raises(PlaceError, match=f"^--out: .*{message}"):
            require_replaceable("--out", path, ".csv", lambda _: False, "table")


def test_an_archive_does_not_take_the_place_of_a_studys_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    (tmp_path / "work" / "smoke" / "training").mkdir(parents=True)
    mine = tmp_path / "thesis.zip"
    mine.write_text("not an archive")
    for out, message in (
        (tmp_path / "work" / "smoke" / "training" / "model.zip", "lies in the study's folder"),
        (tmp_path / "model.pth", "must end with .zip"),
        (mine, "is there and is no archive"),
    ):
        assert cli.main(["export", str(SMOKE), "default", "scratch", "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    assert mine.read_text() == "not an archive"


def test_a_preparation_writes_no_key_among_the_raw_scans_and_over_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, private = tmp_path / "raw", tmp_path / "private"
    raw.mkdir()
    words = ["prepare", str(raw), "--out", str(tmp_path / "cohort"), "--private", str(private), "--key-file"]
    for key, message in (
        (raw / "key.csv", "--key-file: .*lies in INPUT"),
        (private / "series.csv", "--key-file: .*is given for series.csv of --private too"),
    ):
        assert cli.main([*words, str(key)]) == 2
        assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == [raw]
