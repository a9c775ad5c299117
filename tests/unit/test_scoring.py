"""Folders of label maps: matching, checks, tables, parallel runs, and the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainmets import cli
from brainmets.nifti import ImageError
from brainmets.scoring.case import UNITS
from brainmets.scoring.folders import ScoringError, score_folders
from brainmets.statistics.tables import read_lesions, read_scores
from brainmets.vocabulary import LESION_COLUMNS, SCORE_COLUMNS

AFFINE = np.diag([0.5, 0.5, 1.0, 1.0])
WHOLE_REGION = ["dice", "hd95", "hd", "sensitivity", "specificity", "precision", "nsd_1mm"]


def label_map(seed=0, shape=(24, 20, 12)):
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.uint8)
    for value in (2, 1, 3):
        x, y, z = (rng.integers(0, side - 5) for side in shape)
        labels[x : x + 5, y : y + 5, z : z + 5] = value
    return labels


def write(folder, case, labels, affine=AFFINE, suffix=".nii.gz"):
    folder.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), folder / f"{case}{suffix}")


@pytest.fixture
def folders(tmp_path):
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for number, case in enumerate(("b", "a", "c")):
        write(references, case, label_map(number))
        write(predictions, case, np.roll(label_map(number), 1, axis=0))
    return predictions, references


def score(folders, **changes):
    return score_folders(*folders, **{"arm": "default", "strategy": "scratch", **changes})


def test_tables(folders):
    lines = []
    scores = score(folders, progress=lines.append)
    assert tuple(scores.table.columns) == SCORE_COLUMNS
    assert tuple(scores.lesions.columns) == LESION_COLUMNS
    assert scores.cases == ("a", "b", "c") and scores.missing == ()
    assert list(scores.table["case"].drop_duplicates()) == ["a", "b", "c"]
    assert set(scores.table["region"]) == {"ET", "TC", "WT"}
    assert not scores.table.duplicated(["case", "region", "metric"]).any()
    assert np.isfinite(scores.table["value"]).all()
    assert (scores.table["unit"] == scores.table["metric"].map(UNITS)).all()
    metrics = scores.table.groupby(["case", "region"])["metric"].agg(list)
    assert all(names[: len(WHOLE_REGION)] == WHOLE_REGION for names in metrics)
    assert [line.split(":")[0] for line in lines] == ["1 of 3", "2 of 3", "3 of 3"]


def test_values_are_those_of_the_case_by_name(folders):
    write(folders[0], "b", label_map(0))  # a perfect prediction of case b alone
    table = score(folders).table.query("metric == 'dice' and region == 'WT'").set_index("case")["value"]
    assert table["b"] == 1.0
    assert (table[["a", "c"]] < 1.0).all()


def test_parallel_equals_serial(folders):
    one, two = score(folders), score(folders, workers=2)
    pd.testing.assert_frame_equal(one.table, two.table)
    pd.testing.assert_frame_equal(one.lesions, two.lesions)


@pytest.mark.parametrize("definition", ["brats_2023", "brats_2026"])
def test_every_metric_has_a_value_or_a_named_reason(folders, definition):
    write(folders[0], "a", np.zeros((24, 20, 12), dtype=np.uint8))
    scores = score(folders, lesion_definition=definition)
    keys = ["case", "region", "metric"]
    named = pd.concat([scores.table[keys], scores.excluded[keys]])
    assert not named.duplicated().any()
    assert (named.groupby(["case", "region"]).size() == named["metric"].nunique()).all()
    assert scores.excluded["reason"].str.len().gt(0).all()


def test_stray_and_missing_cases_are_named(folders):
    write(folders[0], "only_predicted", label_map(1))
    (folders[0] / "c.nii.gz").unlink()
    with pytest.raises(ScoringError) as caught:
        score(folders)
    assert "only_predicted" in str(caught.value) and "without a prediction" in str(caught.value)
    assert ": c (" in str(caught.value)
    with pytest.raises(ScoringError, match="only_predicted"):
        score(folders, missing="worst")


def test_missing_prediction_scored_as_empty(folders):
    (folders[0] / "c.nii.gz").unlink()
    scores = score(folders, missing="worst")
    assert scores.missing == ("c",)
    values = scores.table.query("case == 'c' and region == 'WT'").set_index("metric")["value"]
    assert values["dice"] == values["sensitivity"] == values["lesion_dice"] == 0
    assert values["hd95"] == pytest.approx(np.sqrt(12**2 + 10**2 + 12**2))
    assert values["predicted_volume"] == 0 < values["reference_volume"]
    lesions = scores.lesions.query("case == 'c'")
    assert len(lesions) and not lesions["detected"].any()


def test_different_grids_are_shown_before_anything_is_scored(folders):
    write(folders[0], "a", label_map(1)[:-1])
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.25
    write(folders[0], "b", label_map(0), shifted)
    lines = []
    with pytest.raises(ScoringError) as caught:
        score(folders, progress=lines.append)
    message = str(caught.value)
    assert "(23, 20, 12)" in message and "(24, 20, 12)" in message
    assert "0.5, 0, 0, 0.25" in message and "0.5, 0, 0, 0;" in message
    assert lines == []


def test_a_flipped_affine_is_another_grid(folders):
    write(folders[0], "a", label_map(1), np.diag([-0.5, 0.5, 1.0, 1.0]))
    with pytest.raises(ScoringError, match="lies on another grid than a"):
        score(folders)


def test_rounding_of_an_affine_is_no_other_grid(folders):
    write(folders[0], "a", label_map(1), AFFINE + 1e-5)
    score(folders)


def test_header_that_contradicts_its_affine(folders):
    image = nib.Nifti1Image(label_map(1), AFFINE)
    image.header["pixdim"][3] = 4.0
    nib.save(image, folders[1] / "a.nii.gz")
    with pytest.raises(ScoringError, match=r"a\.nii\.gz.*0\.5, 0\.5, 4 mm.*0\.5, 0\.5, 1 mm"):
        score(folders)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (7, np.uint8, r"a\.nii\.gz: unknown label value\(s\) 7; known are 0, 1, 2, 3, 4"),
        (-1, np.int16, r"unknown label value\(s\) -1"),
        (300, np.int16, r"unknown label value\(s\) 300"),
        (2.5, np.float32, r"whole numbers, found 2\.5 in 1 voxels"),
        (np.nan, np.float32, "whole numbers, found nan"),
    ],
)
def test_labels_that_are_none(folders, value, dtype, message):
    labels = label_map(1).astype(dtype)
    labels[0, 0, 0] = value
    write(folders[0], "a", labels)
    with pytest.raises(ImageError, match=message):
        score(folders)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16])
def test_types_that_hold_whole_numbers_score_the_same(folders, dtype):
    expected = score(folders).table
    for folder in folders:
        for path in folder.iterdir():
            image = nib.load(path)
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(dtype), image.affine), path)
    pd.testing.assert_frame_equal(score(folders).table, expected)


def test_label_map(folders):
    expected = score(folders).table
    other = {1: 10, 2: 20, 3: 30}
    for folder in folders:
        for path in folder.iterdir():
            image = nib.load(path)
            labels = np.asarray(image.dataobj)
            nib.save(nib.Nifti1Image(sum((labels == a) * np.uint8(b) for a, b in other.items()), image.affine), path)
    back = {b: a for a, b in other.items()}
    pd.testing.assert_frame_equal(score(folders, label_map=back).table, expected)
    with pytest.raises(ImageError, match=r"unknown label value\(s\) 10, 20, 30"):
        score(folders)
    with pytest.raises(ValueError, match="9 is no BraTS label"):
        score(folders, label_map={1: 9})
    with pytest.raises(ValueError, match="0 is background"):
        score(folders, label_map={0: 1})


def test_two_values_may_mean_one_label(folders):
    dice = "case == 'a' and metric == 'dice'"
    expected = score(folders).table.query(dice)["value"].tolist()
    labels = label_map(1)
    write(folders[1], "a", np.where(labels == 3, 5, labels).astype(np.uint8))
    found = score(folders, label_map={1: 1, 2: 2, 3: 3, 5: 3}).table.query(dice)["value"].tolist()
    assert found == expected


@pytest.mark.parametrize("kind", [0, 1])
def test_resection_cavity_is_scored_for_every_case_once_any_has_it(folders, kind):
    labels = label_map(1)
    labels[-3:, -3:, -3:] = 4
    write(folders[kind], "a", labels)
    table = score(folders).table
    dice = table.query("region == 'RC' and metric == 'dice'").set_index("case")["value"]
    assert dice.to_dict() == {"a": 0.0, "b": 1.0, "c": 1.0}
    assert "RC" not in set(score((folders[1 - kind], folders[1 - kind])).table["region"])


def test_folders_that_cannot_be_read(folders, tmp_path):
    with pytest.raises(ScoringError, match="nowhere is not a folder"):
        score((tmp_path / "nowhere", folders[1]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoringError, match="holds no"):
        score((tmp_path / "empty", folders[1]))
    write(folders[0], "a", label_map(1), suffix=".nii")
    with pytest.raises(ScoringError, match="case a twice"):
        score(folders)


def test_broken_file_is_named(folders):
    path = folders[0] / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"a\.nii\.gz"):
        score(folders)


def test_four_dimensions(folders):
    write(folders[0], "a", label_map(1)[..., None])
    with pytest.raises(ScoringError, match=r"three dimensions.*\(24, 20, 12, 1\)"):
        score(folders)


@pytest.mark.parametrize(
    "wrong",
    [{"missing": "skip"}, {"lesion_definition": "brats_2024"}, {"workers": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_arguments(folders, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        score(folders, **wrong)


# --- command line ---------------------------------------------------------------------------------------


def run(*arguments):
    return cli.main(["score", *map(str, arguments)])


def test_command_writes_both_tables(folders, tmp_path, capsys):
    out, lesions = tmp_path / "out" / "scores.csv", tmp_path / "out" / "lesions.csv"
    assert run(*folders, "--out", out, "--lesions", lesions, "--label-map", "1=netc,2=snfh,3=et", "--arm", "x") == 0
    written = pd.read_csv(out, dtype={"unit": str})
    pd.testing.assert_frame_equal(written, score(folders, arm="x", strategy="finetune").table, check_dtype=False)
    assert tuple(pd.read_csv(lesions).columns) == LESION_COLUMNS
    shown = capsys.readouterr()
    assert "3 of 3" in shown.err and "3 cases" in shown.out


def test_command_names_what_it_could_not_score(folders, tmp_path, capsys):
    (folders[0] / "c.nii.gz").unlink()
    out = tmp_path / "scores.csv"
    assert run(*folders, "--out", out, "--missing", "worst", "--lesion-definition", "brats_2026") == 0
    errors = capsys.readouterr().err
    assert "scored as an empty prediction: c" in errors
    assert "lesion_small_f1: the reference has no small lesion" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "references without a prediction"),
        ((), "(missing='worst', on the command line --missing worst, scores them as empty predictions)"),
        (("--label-map", "1=tumour"), "'1=tumour' must be VALUE=NAME"),
        (("--label-map", "1=et,1=netc"), "given twice"),
        (("--missing", "worst", "--workers", "0"), "workers: 0"),
    ],
)
def test_command_that_fails_writes_nothing(folders, tmp_path, capsys, arguments, message):
    (folders[0] / "c.nii.gz").unlink()
    out = tmp_path / "out" / "scores.csv"
    assert run(*folders, "--out", out, "--lesions", tmp_path / "out" / "lesions.csv", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not out.parent.exists()


def test_command_takes_no_strategy_that_the_statistics_would_refuse(folders, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*folders, "--out", tmp_path / "scores.csv", "--strategy", "fine-tuned")
    assert ended.value.code == 2
    assert "--strategy: invalid choice: 'fine-tuned' (choose from" in capsys.readouterr().err


def test_command_names_the_option_for_labels_that_it_does_not_know(folders, tmp_path, capsys):
    write(folders[0], "a", label_map(1) * 20)
    assert run(*folders, "--out", tmp_path / "scores.csv") == 2
    assert "correct the file, or name them in label_map (on the command line --label-map)" in capsys.readouterr().err


# --- labels of another convention -----------------------------------------------------------------------


def old_labels(seed):
    """Before 2023: enhancing tumour is 4, and there is no 3."""
    labels = label_map(seed)
    labels[labels == 3] = 4
    return labels


@pytest.mark.parametrize(("side", "name"), [(0, "predictions"), (1, "references")])
def test_old_brats_labels_are_refused_without_a_label_map(folders, tmp_path, capsys, side, name):
    for number, case in enumerate(("b", "a", "c")):
        write(folders[side], case, old_labels(number))
    out = tmp_path / "scores.csv"
    assert run(*folders, "--out", out) == 2
    message = capsys.readouterr().err
    assert f"{name}: label 4 in 3 of 3 files, label 3 in none (such as a: 1, 2, 4)" in message
    assert "--label-map 1=netc,2=snfh,3=et,4=et" in message and "4=rc" in message
    assert not out.exists()


def test_old_labels_with_their_label_map_are_enhancing_tumour(folders, tmp_path):
    for number, case in enumerate(("b", "a", "c")):
        write(folders[1], case, old_labels(number))
    out = tmp_path / "scores.csv"
    assert run(*folders, "--out", out, "--label-map", "1=netc,2=snfh,3=et,4=et") == 0
    table = pd.read_csv(out)
    assert "RC" not in set(table["region"])
    volume = table[(table["metric"] == "reference_volume") & (table["region"] == "ET")].set_index("case")["value"]
    assert volume["a"] == pytest.approx((old_labels(1) == 4).sum() * 0.25 / 1000)


def test_cavities_beside_enhancing_tumour_are_scored_as_they_are(folders, tmp_path, capsys):
    write(folders[1], "a", old_labels(1))  # one case with a cavity and without enhancing tumour among others with it
    out = tmp_path / "scores.csv"
    assert run(*folders, "--out", out) == 0
    assert "RC" in set(pd.read_csv(out)["region"])
    assert "look at the labels" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (lambda labels: labels > 0, "the references hold label 1 alone, the predictions 3 labels"),
        (lambda labels: labels * (labels < 3), "label 3 (enhancing tumour) is in predictions and in no reference"),
    ],
)
def test_references_that_look_unlike_the_predictions_are_said(folders, tmp_path, capsys, labels, note):
    for number, case in enumerate(("b", "a", "c")):
        write(folders[1], case, labels(label_map(number)).astype(np.uint8))
    assert run(*folders, "--out", tmp_path / "scores.csv") == 0
    assert note in capsys.readouterr().err
    assert run(*folders, "--out", tmp_path / "scores.csv", "--label-map", "1=netc,2=snfh,3=et") == 0
    assert note not in capsys.readouterr().err


# --- where it may write ---------------------------------------------------------------------------------


def before_and_after(folders, *arguments):
    """The exit status, and whether every input file is what it was."""
    files = {path: path.read_bytes() for folder in folders for path in Path(folder).iterdir()}
    status = run(*folders, *arguments)
    return status, {path: path.read_bytes() for path in files} == files


def test_the_output_may_not_be_an_input(folders, tmp_path, capsys):
    (predictions, references), link, second = folders, tmp_path / "link", tmp_path / "second.csv"
    link.symlink_to(predictions)
    (references / "a.csv").write_text("")
    second.hardlink_to(references / "a.csv")
    (tmp_path / "soft.csv").symlink_to(references / "a.csv")
    for out, message in (
        (predictions / "a.nii.gz", "must end with .csv"),
        (predictions / "scores.csv", "lies in PREDICTIONS"),
        (references / "new" / "scores.csv", "lies in REFERENCES"),
        (link / "scores.csv", "lies in PREDICTIONS"),
        (second, "is a second name of a file in REFERENCES"),
        (tmp_path / "soft.csv", "lies in REFERENCES"),
        (tmp_path, "must end with .csv"),
    ):
        for option in ("--out", "--lesions"):
            other = {"--out": "--lesions", "--lesions": "--out"}[option]
            assert before_and_after(folders, option, out, other, tmp_path / "other.csv") == (2, True)
            assert f"brainmets score: {option}: {out} {message}" in capsys.readouterr().err
            assert not (tmp_path / "other.csv").exists()


def test_both_outputs_may_not_be_one(folders, tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path)
    for lesions in (tmp_path / "scores.csv", tmp_path / "link" / "scores.csv"):
        assert run(*folders, "--out", tmp_path / "scores.csv", "--lesions", lesions) == 2
        assert "is given for --out too; give each a file of its own" in capsys.readouterr().err


def test_what_is_no_table_of_ours_is_not_overwritten(folders, tmp_path, capsys):
    own = tmp_path / "scores.csv"
    for content in (b"name,salary\nx,1\n", b"\0binary", "a,b\n".encode("utf-16")):
        own.write_bytes(content)
        assert run(*folders, "--out", own) == 2
        assert "is there and is no table of arm, strategy" in capsys.readouterr().err
        assert own.read_bytes() == content
    own.write_text("arm,strategy,case,region,metric,value,unit\n")  # of an earlier run
    map_of = ("--label-map", "1=netc,2=snfh,3=et")
    assert run(*folders, "--out", own, "--lesions", tmp_path / "lesions.csv", *map_of) == 0
    assert run(*folders, "--out", own, "--lesions", tmp_path / "lesions.csv", *map_of) == 0
    assert run(*folders, "--out", tmp_path / "lesions.csv", *map_of) == 2
    (tmp_path / "file").write_text("")
    assert run(*folders, "--out", tmp_path / "file" / "scores.csv", *map_of) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_a_case_whose_name_begins_with_a_dot_is_not_dropped(folders, capsys, tmp_path):
    (folders[0] / "._a.nii.gz").write_bytes(b"left by macOS")
    (folders[0] / ".123.a.nii.gz").write_bytes(b"left by a writer that was killed")
    assert run(*folders, "--out", tmp_path / "scores.csv", "--label-map", "1=netc,2=snfh,3=et") == 0
    (folders[0] / ".hidden.nii.gz").write_bytes((folders[0] / "a.nii.gz").read_bytes())
    assert run(*folders, "--out", tmp_path / "scores.csv") == 2
    assert ".hidden.nii.gz is hidden, since its name begins with a dot: rename it" in capsys.readouterr().err


def test_names_that_are_formulas_are_none_in_a_spreadsheet(folders, tmp_path):
    """And are the same names again where this project reads the tables."""
    names = ("=cmd()", "+1", "-x", "@a", "\ttab")
    for folder in folders:
        content = (folder / "a.nii.gz").read_bytes()
        for name in names:
            (folder / f"{name}.nii.gz").write_bytes(content)
    out, lesions = tmp_path / "out" / "scores.csv", tmp_path / "out" / "lesions.csv"
    map_of = ("--label-map", "1=netc,2=snfh,3=et")
    assert run(*folders, "--out", out, "--lesions", lesions, "--arm", "=1+1", *map_of) == 0
    for table in (out, lesions):
        cells = {cell for line in csv.reader(table.open()) for cell in line}
        assert "'=cmd()" in cells
        assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "@")) or cell[:1] == "\t"]
    scores = read_scores(tmp_path / "out")
    assert {*names} <= set(scores["case"])
    assert set(scores["arm"]) == {"=1+1"}
    assert {*names} <= set(read_lesions(tmp_path / "out", scores)["case"])
