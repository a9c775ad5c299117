"""A result read back: what is missing or changed is named, and nothing of it is used."""

import json

import pytest
import screened

from brainmets.screening import result
from brainmets.screening.result import ResultError


def test_a_whole_result(tmp_path):
    files = screened.make_screened(tmp_path / "scan-00001-000", lesions=2, candidates=1)
    found = result.read(files.folder)
    assert found.record["lesions"] == 2
    assert found.table["lesion"].tolist() == [1, 2, 3]
    assert found.table["accepted"].tolist() == [True, True, False]
    assert found.files == files


def test_a_refused_scan_has_no_rows(tmp_path):
    files = screened.make_screened(tmp_path / "scan-00001-000", refused=True)
    assert result.read(files.folder).table.empty


def test_missing_and_changed_files_are_all_named(tmp_path):
    files = screened.make_screened(tmp_path / "scan-00001-000")
    files.labels.unlink()
    with files.numbers.open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(ResultError, match=r"(?s)labels.nii.gz is missing.*screen the scan again") as error:
        result.read(files.folder)
    assert "lesions.nii.gz is not what was written" in str(error.value)
    assert "t1c.nii.gz" not in str(error.value)


def test_every_file_that_is_listed_is_looked_at(tmp_path):
    files = screened.make_screened(tmp_path / "scan-00001-000")
    for name in json.loads(files.record.read_text())["files"]:
        path = files.folder / name
        held = path.read_bytes()
        path.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
        with pytest.raises(ResultError, match=f"{name} is not what was written"):
            result.read(files.folder)
        path.write_bytes(held)
    assert result.read(files.folder).record["lesions"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "screening.json is damaged"),
        ('{"schema": 2}', "has schema 2, where this release reads 1"),
        ('{"schema": 1}', "lists no files"),
        ('{"schema": 1, "files": {"labels.nii.gz": ""}}', "lists no files"),
        ('{"schema": 1, "files": {"lesions.csv": "", "../x": ""}}', "../x lies outside the folder"),
    ],
)
def test_a_record_that_is_none(tmp_path, text, message):
    (tmp_path / "x").write_text("x")
    files = screened.make_screened(tmp_path / "scan-00001-000")
    files.record.write_text(text)
    with pytest.raises(ResultError, match=message):
        result.read(files.folder)


def test_a_folder_without_a_record(tmp_path):
    with pytest.raises(ResultError, match="holds no screened scan"):
        result.read(tmp_path)


def test_the_folder_of_all_scans_is_not_that_of_one(tmp_path):
    screened.make_screened(tmp_path / "scan-00001-000")
    with pytest.raises(ResultError, match="holds screened scans: name the folder of one, such as"):
        result.read(tmp_path)
