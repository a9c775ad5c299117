import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from brainmets import files, provenance
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
    path = files.write_csv(tmp_path / "a.csv", table)
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
