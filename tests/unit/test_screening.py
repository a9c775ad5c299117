"""Folders of probabilities against folders of references, and the command that prints their FROC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainmets import cli
from brainmets.nifti import ImageError
from brainmets.scoring import probabilities as kept
from brainmets.scoring.candidates import Detections, read_detections
from brainmets.scoring.folders import ScoringError
from brainmets.scoring.screening import detect_folders, order_notes
from brainmets.statistics.comparisons import Settings
from brainmets.statistics.froc_by_rule import by_rule, lines
from brainmets.vocabulary import REGIONS

AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])
SHAPE = (16, 8, 6)
SPOTS = {"found": (2, 2, 1), "missed": (10, 5, 3), "false": (6, 1, 4)}
"""First corners of cubes of 2 voxels a side, none of which touches another."""


def cubes(*names: str, dtype: type = np.uint8) -> np.ndarray:
    array = np.zeros(SHAPE, dtype)
    for name in names:
        array[tuple(slice(start, start + 2) for start in SPOTS[name])] = 1
    return array


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two cases: "a" with a lesion found at 0.9, one missed, and a false candidate of 0.6; "b" with nothing at all."""
    probabilities, references = tmp_path / "probabilities", tmp_path / "references"
    references.mkdir()
    sure = cubes("found", dtype=np.float32) * np.float32(0.9) + cubes("false", dtype=np.float32) * np.float32(0.6)
    for case, values, labels in (
        ("a", sure, cubes("found", "missed") * 3),
        ("b", np.zeros_like(sure), np.zeros(SHAPE, np.uint8)),
    ):
        kept.write(probabilities / f"{case}.nii.gz", dict.fromkeys(REGIONS, values), AFFINE, 0.02)
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), AFFINE), references / f"{case}.nii.gz")
    return probabilities, references


def detect(folders: tuple[Path, Path], **changes: object) -> Detections:
    options = {"arm": "default", "strategy": "scratch", "threshold": 0.1}
    return detect_folders(*folders, **(options | changes))  # type: ignore[arg-type]


def equal(one: Detections, other: Detections) -> bool:
    return one.cases == other.cases and all(
        getattr(one, name).equals(getattr(other, name)) for name in ("candidates", "targets", "overlaps")
    )


def test_every_case_is_there_with_what_it_holds(folders: tuple[Path, Path]) -> None:
    said: list[str] = []
    found = detect(folders, progress=said.append)
    assert found.cases == ("a", "b")
    of_et = found.candidates[found.candidates["region"] == "ET"]
    assert of_et[["case", "score", "hit_one_to_one"]].to_numpy().tolist() == [
        ["a", pytest.approx(0.9, abs=1e-5), True], ["a", pytest.approx(0.6, abs=1e-5), False],
    ]  # fmt: skip
    assert of_et["x_mm"].tolist() == [-2.5, -6.5] and of_et["z_mm"].tolist() == [3.0, 9.0]
    assert len(found.targets) == 6 and set(found.targets["case"]) == {"a"}
    assert [line.partition(",")[0] for line in said] == ["1 of 2: a", "2 of 2: b"]
    assert equal(found, detect(folders, workers=2))


def test_a_file_per_region_gives_the_same(folders: tuple[Path, Path], tmp_path: Path) -> None:
    expected = detect(folders)
    apart = tmp_path / "per_region"
    apart.mkdir()
    for path in folders[0].iterdir():
        for region, values in kept.read(path)[0].items():
            nib.save(nib.Nifti1Image(values, AFFINE), apart / f"{path.name.removesuffix('.nii.gz')}_{region}.nii.gz")
    assert equal(detect((apart, folders[1])), expected)
    for case in "ab":
        (apart / f"{case}_WT.nii.gz").unlink()
    assert set(detect((apart, folders[1])).targets["region"]) == {"ET", "TC"}
    (apart / "b_TC.nii.gz").unlink()
    with pytest.raises(ScoringError, match="holds no probability of TC of b, as it does of others"):
        detect((apart, folders[1]))


def test_a_case_whose_name_ends_like_a_region_is_a_case(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        (folder / "a.nii.gz").rename(folder / "a_ET.nii.gz")
    assert detect(folders).cases == ("a_ET", "b")


def test_cases_that_do_not_match_are_named(folders: tuple[Path, Path]) -> None:
    assert detect(folders, cases=["a", "b"]).cases == ("a", "b")
    with pytest.raises(ScoringError, match="holds no reference of c"):
        detect(folders, cases=["a", "b", "c"])
    with pytest.raises(ScoringError, match=r"probabilities without a reference in .*: b"):
        detect(folders, cases=["a"])
    (folders[0] / "a.nii.gz").unlink()
    with pytest.raises(ScoringError, match=r"references without probabilities in .*: a"):
        detect(folders)


@pytest.mark.parametrize("odd", ["b_NETC", "b_tc", "b"])
def test_a_file_that_is_named_unlike_the_others_is_named(folders: tuple[Path, Path], tmp_path: Path, odd: str) -> None:
    apart = tmp_path / "per_region"
    apart.mkdir()
    for name in ("a_ET", "a_TC", "a_WT", "b_ET", "b_WT", odd):
        nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE), apart / f"{name}.nii.gz")
    with pytest.raises(ScoringError) as error:
        detect((apart, folders[1]))
    expected = "references without probabilities" if odd == "b" else f": {odd} should be named like the others"
    assert expected in str(error.value)


def test_regions_in_another_order_are_asked_about(folders: tuple[Path, Path]) -> None:
    """ET, TC and WT as they should be, or nearly equal, are not; those of nnU-Net's order are."""
    assert order_notes(detect(folders)) == []
    nearly = cubes("found", "missed", dtype=np.float32)
    nearly[2, 2, 1] = 0
    kept.write(
        folders[0] / "a.nii.gz",
        dict(zip(REGIONS, [cubes("found", "missed", dtype=np.float32), nearly, nearly], strict=True)),
        AFFINE,
        0.02,
    )
    assert order_notes(detect(folders)) == []
    wide, narrow = cubes("found", "missed", dtype=np.float32), cubes("found", dtype=np.float32)
    for values, asked in (([narrow, wide, wide], 0), ([wide, wide, narrow], 1)):
        kept.write(folders[0] / "a.nii.gz", dict(zip(REGIONS, values, strict=True)), AFFINE, 0.02)
        notes = order_notes(detect(folders))
        assert len(notes) == asked
    assert notes[0].startswith("the candidates of TC, a part of WT, take 32 mm^3, those of WT 16")


def test_another_grid_and_other_axes_are_refused(folders: tuple[Path, Path]) -> None:
    values = dict.fromkeys(REGIONS, np.zeros(SHAPE, np.float32))
    for affine in (np.diag([1.0, 1.0, 2.0, 1.0]), np.diag([-1.0, 1.0, 2.5, 1.0])):
        kept.write(folders[0] / "b.nii.gz", values, affine, 0.02)
        with pytest.raises(ImageError, match="lies on another grid than b"):
            detect(folders)
    kept.write(folders[0] / "b.nii.gz", dict.fromkeys(REGIONS, np.zeros(SHAPE[::-1], np.float32)), AFFINE, 0.02)
    with pytest.raises(ImageError, match="lies on another grid than b"):
        detect(folders)


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(folders: tuple[Path, Path], tmp_path: Path) -> Callable[..., int]:
    """``brainmets score`` of label maps above 0.5, with further options."""
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for path in folders[0].iterdir():
        labels = (kept.read(path)[0]["ET"] > 0.5).astype(np.uint8) * 3
        nib.save(nib.Nifti1Image(labels, AFFINE), predictions / path.name)

    def command(*further: object) -> int:
        words = ["score", predictions, folders[1], "--out", tmp_path / "out" / "scores.csv", *further]
        return cli.main(list(map(str, words)))

    return command


def test_the_command_prints_the_froc_and_writes_the_tables(
    run: Callable[..., int], folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two lesions is found before any false candidate; the false one comes at 0.5 a case."""
    out = tmp_path / "detection"
    assert run("--probabilities", folders[0], "--detection", out, "--strategy", "scratch") == 0
    text = capsys.readouterr().out
    assert "ET: share of 2 lesions found, 2 cases" in text
    (row,) = {line for line in text.splitlines() if line.startswith("  one to one")}
    assert row.split()[-8:] == ["0.500"] * 8
    assert equal(read_detections(out, ["a", "b"]), detect(folders))
    froc = pd.read_csv(out / "froc.csv")
    assert set(froc["hit"]) == {"one_to_one", "overlap", "centroid"} and set(froc["region"]) == set(REGIONS)
    assert run("--probabilities", folders[0], "--detection", out) == 0  # over its own tables
    (out / "froc.csv").write_text("name,salary\n")
    assert run("--probabilities", folders[0], "--detection", out) == 2
    assert "--detection (froc.csv): " in capsys.readouterr().err


def test_the_command_asks_about_the_order(
    run: Callable[..., int], folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--probabilities", folders[0]) == 0
    assert "look at the probabilities" not in capsys.readouterr().err
    values = [cubes(*names, dtype=np.float32) for names in (("found", "false"), ("found",), ("found",))]
    kept.write(folders[0] / "a.nii.gz", dict(zip(REGIONS, values, strict=True)), AFFINE, 0.02)
    assert run("--probabilities", folders[0]) == 0
    assert "look at the probabilities: the candidates of ET, a part of TC, take" in capsys.readouterr().err


def test_a_higher_threshold_leaves_candidates_out(
    run: Callable[..., int], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert run("--probabilities", folders[0], "--detection", tmp_path, "--candidate-threshold", "0.5") == 0
    assert len(read_detections(tmp_path, ["a", "b"]).candidates) == 6
    for path in folders[0].iterdir():
        values = {region: np.minimum(p, np.float32(0.4)) for region, p in kept.read(path)[0].items()}
        kept.write(path, values, AFFINE, 0.02)
    assert run("--probabilities", folders[0], "--detection", tmp_path, "--candidate-threshold", "0.5") == 0
    assert read_detections(tmp_path, ["a", "b"]).candidates.empty


def test_options_that_cannot_be_carried_out_write_nothing(
    run: Callable[..., int], folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--probabilities", folders[0])
    for further, message in (
        (("--detection", tmp_path / "new"), "--detection: needs --probabilities FOLDER"),
        (("--candidate-threshold", "0.2"), "--candidate-threshold: needs --probabilities FOLDER"),
        ((*given, "--candidate-threshold", "0"), "--candidate-threshold: 0.0 must be a number from 0.001 to 0.5"),
        ((*given, "--candidate-threshold", "nan"), "--candidate-threshold: nan must be"),
        ((*given, "--detection", folders[0]), "lies in --probabilities"),
        ((*given, "--detection", folders[1]), "lies in REFERENCES"),
        (("--probabilities", tmp_path / "no"), "no is not a folder"),
    ):
        assert run(*further) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()
    (folders[0] / "b.nii.gz").write_bytes(b"no image")
    assert run(*given) == 2
    assert "b.nii.gz" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_nothing_to_find_and_nothing_found_is_said(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        (folder / "a.nii.gz").unlink()
    assert lines(by_rule(detect(folders), Settings(0.05, 1000, 1))) == ["FROC: no candidate and no lesion in any case"]


def test_a_region_without_lesions_has_a_dash(folders: tuple[Path, Path]) -> None:
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), folders[1] / "a.nii.gz")
    text = lines(by_rule(detect(folders), Settings(0.05, 1000, 1)))
    assert text[0] == "ET: share of 0 lesions found, 2 cases"
    assert text[2].split()[-8:] == ["-"] * 8
