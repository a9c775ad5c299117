import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from brainmets import files, provenance, tables
from brainmets.paths import StudyPaths, project_root, resolve
from brainmets.provenance import Provenance


def test_importing_the_package_takes_no_time_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, time; t = time.perf_counter(); import brainmets; s = time.perf_counter() - t; "
        "heavy = {'torch', 'monai', 'nnunetv2', 'matplotlib', 'nibabel', 'pandas', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; assert s < 0.3, s"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- paths


def test_project_root_is_found_from_a_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRAINMETS_ROOT", raising=False)
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_root() == tmp_path
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path / "params"))
    assert project_root() == tmp_path / "params"


def test_outside_a_checkout_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRAINMETS_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="change into the checkout, or set BRAINMETS_ROOT"):
        project_root()


def test_relative_paths_are_read_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    assert resolve("work") == tmp_path / "work"
    assert resolve("/data") == Path("/data")
    assert resolve("~/data") == Path.home() / "data"


def test_every_file_of_a_study_lies_below_its_own_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    files = StudyPaths("work", "own")
    assert files.work == tmp_path / "work" / "own"
    assert files.index == tmp_path / "reports" / "own" / "index.html"
    plain = [name for name, value in vars(StudyPaths).items() if isinstance(value, property)]
    for name in plain:
        path = getattr(files, name)
        assert path.is_relative_to(files.work) or path.is_relative_to(files.report), name
    trainings = {files.training(stage, "default", 0) for stage in ("pretraining", "finetune", "scratch")}
    assert len(trainings) == 3
    assert files.training("scratch", "default", 1).parent == files.training_folder("scratch", "default", 1)
    assert files.evaluation("default", "scratch").parent == files.evaluation_folder("default", "scratch")


# --- whole files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "new" / "note.txt", "old")
    with pytest.raises(RuntimeError), files.replacing(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_nobody_can_put_a_link_where_a_file_is_written_aside(tmp_path: Path) -> None:
    """In a folder that others may write to: the number of a process can be guessed."""
    with files.replacing(tmp_path / "table.csv") as one, files.replacing(tmp_path / "table.csv") as other:
        one.touch()
        other.touch()
        assert one != other
        assert str(os.getpid()) not in (one.name.split(".")[1], other.name.split(".")[1])


def test_the_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    with files.replacing(path) as aside:
        aside.write_bytes(b"1")
        assert not path.exists()
        assert aside.name.endswith(".nii.gz")
        assert aside.parent == path.parent
    assert path.read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == [path]


def test_json_goes_through_unchanged_and_nan_is_refused(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "a.json", {"dice": 0.1, "cases": ["a"]})
    assert files.read_json(path) == {"dice": 0.1, "cases": ["a"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"dice": float("nan")})
    assert files.read_json(path)["dice"] == 0.1


def test_reading_what_is_no_json_object_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"dice": ')
    with pytest.raises(ValueError, match=r"a\.json is not JSON.*delete it and rerun"):
        files.read_json(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"a\.json holds a list"):
        files.read_json(path)


def test_csv_keeps_every_digit_and_missing_values(tmp_path: Path) -> None:
    table = pd.DataFrame({"case": ["a", "b"], "value": [1 / 3, None]})
    path = tables.write(tmp_path / "a.csv", table)
    back = pd.read_csv(path)
    assert back["value"][0] == 1 / 3
    assert back["value"].isna().tolist() == [False, True]


# --- provenance


def test_a_record_says_what_made_the_file(tmp_path: Path) -> None:
    scores = tmp_path / "evaluation" / "scores.csv"
    scores.parent.mkdir()
    scores.write_bytes(b"abc")
    path = Provenance("07_statistics", {"alpha": 0.05}, root=tmp_path).write(tmp_path / "s.json", [scores], n=3)
    content = json.loads(path.read_text())
    record = content["provenance"]
    assert content["n"] == 3
    assert record["notebook"] == "07_statistics"
    assert record["parameters"] == {"alpha": 0.05}
    # SHA-256 of "abc": FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert record["inputs"] == {"evaluation/scores.csv": expected}
    assert record["seconds"] >= 0
    assert set(record["versions"]) == {"python", *provenance.PACKAGES}


def test_a_record_holds_no_absolute_path(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "case" / "scan.nii.gz"
    outside.parent.mkdir(parents=True)
    outside.write_bytes(b"")
    record = Provenance("01_data_audit", {}, root=tmp_path / "work").record([outside])
    assert list(record["inputs"]) == ["case/scan.nii.gz"]
    assert str(tmp_path) not in json.dumps(record)


def test_inputs_of_several_folders_keep_their_names_apart(tmp_path: Path) -> None:
    cases = [tmp_path / "cohort" / case / "anat" / "t1.nii.gz" for case in ("P1", "P2")]
    for number, path in enumerate(cases):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([number]))
    with pytest.raises(ValueError, match=r"two inputs would be recorded as anat/t1\.nii\.gz"):
        Provenance("01_data_audit", {}, root=tmp_path / "work").record(cases)
    named = Provenance("01_data_audit", {}, root=tmp_path / "work", folders={"target": tmp_path / "cohort"})
    assert list(named.record(cases)["inputs"]) == ["target/P1/anat/t1.nii.gz", "target/P2/anat/t1.nii.gz"]


def test_the_commit_is_unknown_outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() == "unknown"


# --- tables and what a step has written


@pytest.mark.parametrize("name", ["=cmd()", "+1+1", "-x", "@a", "\t=1", "\uff1d1", "'=1", "a, b", 'say "x"', "Größe"])
def test_no_cell_or_column_of_a_table_is_a_formula_and_each_text_comes_back(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"case": [name, "P2"], name: [-1.5, 2.0]})
    path = tables.write(tmp_path / "a.csv", table)
    cells = [cell for _, row in tables.lines(path) for cell in row]
    assert not [cell for cell in cells if cell.lstrip()[:1] in ("=", "+", "@", "\uff1d") or cell.startswith("-x")]
    back = tables.read(path)
    assert back["case"].tolist() == [name, "P2"]
    assert back.columns.tolist() == ["case", name]
    assert back[name].tolist() == [-1.5, 2.0], "a number keeps its sign"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_is_read_as_a_spreadsheet_saved_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("case,note\r\nP1,Größe\r\n".encode(encoding))
    assert tables.read(path).to_dict("list") == {"case": ["P1"], "note": ["Größe"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty; run the step"),
        ("case,dice\nP1,0.5\nP2\n", "line 3: 1 fields under 2 names; is the line cut off"),
        ("case,dice\nP1,0,5\n", "line 2: 3 fields under 2 names; a decimal comma"),
        ("case;dice\nP1;0.5\n", "separated by semicolons"),
        ("case,case\nP1,P2\n", "the column case occurs twice"),
        ("case,\nP1,\n", "column 2 has no name"),
    ],
)
def test_a_damaged_table_is_refused_by_its_name(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(tables.TableError, match=rf"a\.csv.*{said}"):
        tables.read(path)


def finished_step(root: Path) -> Path:
    """A step that wrote a table of two rows, a picture and a folder of volumes."""
    tables.write(root / "scores.csv", pd.DataFrame({"case": ["P1", "P2"], "dice": [0.5, 0.25]}))
    (root / "volumes").mkdir()
    (root / "volumes" / "P1.nii.gz").write_bytes(b"1234")
    record = Provenance("06_evaluation", {}, root=root)
    return record.write(root / "evaluation.json", outputs=[root])


def test_a_record_lists_what_was_written(tmp_path: Path) -> None:
    result = finished_step(tmp_path)
    outputs = files.read_json(result)["provenance"]["outputs"]
    assert {name: one["bytes"] for name, one in outputs.items()} == {"scores.csv": 25, "volumes/P1.nii.gz": 4}
    assert outputs["scores.csv"]["rows"] == 2
    assert provenance.damaged(result, tmp_path) == {}
    with pytest.raises(ValueError, match=r"scores\.csv lies in no folder"):
        Provenance("x", {}, root=tmp_path / "other").record(outputs=[tmp_path / "scores.csv"])


def test_what_is_not_as_it_was_written_is_named(tmp_path: Path) -> None:
    result = finished_step(tmp_path)
    table, volume = tmp_path / "scores.csv", tmp_path / "volumes" / "P1.nii.gz"
    table.write_text(table.read_text().splitlines()[0] + "\nP1,0.5\n")  # cut at the end of a line
    volume.write_bytes(b"1235")
    assert provenance.damaged(result, tmp_path) == {
        "scores.csv": "has 1 rows, 2 were written",
        "volumes/P1.nii.gz": "is not what was written",
    }
    volume.write_bytes(b"123")
    table.unlink()
    assert provenance.damaged(result, tmp_path) == {
        "scores.csv": "is missing",
        "volumes/P1.nii.gz": "has 3 bytes, 4 were written",
    }


def test_a_device_in_place_of_an_output_is_not_read(tmp_path: Path) -> None:
    """A pipe or /dev/zero has no bytes by its size, and no end."""
    os.mkfifo(tmp_path / "pipe")
    was = {"bytes": 0, "sha256": "", "changed_ns": 0}
    files.write_json(tmp_path / "result.json", {"provenance": {"outputs": {"pipe": was, "/dev/zero": was}}})
    wrong = provenance.damaged(tmp_path / "result.json", tmp_path)
    assert wrong == {"pipe": "is no file", "/dev/zero": "is no file"}


def test_a_copy_of_a_finished_study_is_whole(tmp_path: Path) -> None:
    """Its files have another time of change: they are read instead."""
    (tmp_path / "study").mkdir()
    finished_step(tmp_path / "study")
    shutil.copytree(tmp_path / "study", tmp_path / "copy", copy_function=shutil.copyfile)
    assert provenance.damaged(tmp_path / "copy" / "evaluation.json", tmp_path / "copy") == {}


@pytest.mark.parametrize("content", [None, "", '{"provenance"', "[]", '{"provenance": []}', "{}"])
def test_a_result_that_is_no_record_is_damaged(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content)
    assert set(provenance.damaged(path, tmp_path)) == {"evaluation.json"}


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device.*a\.txt"), files.replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_result_or_a_table_of_another_study_is_refused(tmp_path: Path) -> None:
    for study in ("one", "another"):
        folder = tmp_path / study / "evaluation"
        tables.write(folder / "scores.csv", pd.DataFrame({"value": [len(study)]}))
        record = provenance.Provenance("06_evaluation", {"study": study}, root=tmp_path / study)
        record.write(folder / "evaluation.json", outputs=[folder])
    root = tmp_path / "one"
    result, table = root / "evaluation" / "evaluation.json", root / "evaluation" / "scores.csv"
    provenance.require_whole(result, "one", root)
    own = table.read_bytes()
    table.write_bytes((tmp_path / "another" / "evaluation" / "scores.csv").read_bytes())
    with pytest.raises(ValueError, match=r"scores\.csv is not what was written: run brainmets notebook 06"):
        provenance.require_whole(result, "one", root)
    result.write_bytes((tmp_path / "another" / "evaluation" / "evaluation.json").read_bytes())
    with pytest.raises(ValueError, match=r"evaluation/evaluation\.json is of study 'another', not of 'one'"):
        provenance.require_whole(result, "one", root)
    result.unlink()
    table.write_bytes(own)
    with pytest.raises(ValueError, match=r"evaluation/evaluation\.json is missing: run the notebook"):
        provenance.require_whole(result, "one", root)
    result.write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        provenance.require_whole(result, "one", root)
