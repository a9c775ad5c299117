"""The experts' folder reads back with the right geometry and gives nothing away; sheets are checked and unblinded."""

import nibabel as nib
import nrrd
import numpy as np
import pandas as pd
import pytest
import study_on_disk
import yaml
from score_examples import scores

from brainmets import cli
from brainmets.review.experts import (
    SHEET_COLUMNS,
    RatingError,
    agreement,
    read_ratings,
    summarise,
    weighted_kappa,
    write_expert_folder,
)

MODELS = [("default", "finetune"), ("segresnet", "finetune")]


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    """The study's files, the folder and the key."""
    files = study_on_disk.make(tmp_path_factory.mktemp("work"), patients=2)
    folder = files.review / "expert"
    key = write_expert_folder(files, ["P01", "P02"], MODELS, folder, seed=3)
    return files, folder, key


def test_a_key_of_an_earlier_draw_is_kept(tmp_path):
    """Experts may hold the earlier folder: under another key their ratings would be given to the wrong models."""
    files = study_on_disk.make(tmp_path, patients=2)
    cases, folder = ["P01", "P02"], files.review / "expert"
    first = write_expert_folder(files, cases, MODELS, folder, seed=3)
    write_expert_folder(files, cases, MODELS, folder, seed=3)
    assert [path.name for path in files.review.glob("expert_key*")] == ["expert_key.csv"], "the same key is kept once"
    second = write_expert_folder(files, cases, MODELS[::-1], folder, seed=3)
    assert pd.read_csv(files.review / "expert_key-1.csv").equals(first)
    assert pd.read_csv(files.review / "expert_key.csv").equals(second)
    assert not second.equals(first)


def test_segmentations_keep_grid_labels_names_and_colours(handed_out):
    import slicerio

    files, folder, _ = handed_out
    reference = nib.load(files.references / "P01.nii.gz")
    voxels, header = nrrd.read(str(folder / "P01" / "reference.seg.nrrd"))
    assert np.array_equal(voxels, np.asarray(reference.dataobj))
    assert header["space"] == "left-posterior-superior"
    ras = np.diag([-1, -1, 1]) @ np.asarray(header["space directions"]).T
    assert np.allclose(ras, reference.affine[:3, :3])
    assert np.allclose(np.diag([-1, -1, 1]) @ header["space origin"], reference.affine[:3, 3])
    found = slicerio.read_segmentation(str(folder / "P01" / "reference.seg.nrrd"))
    segments = {segment["name"]: segment for segment in found["segments"]}
    assert segments["Enhancing tumour"]["labelValue"] == 3
    assert segments["Enhancing tumour"]["color"] == pytest.approx([0xD5 / 255, 0x5E / 255, 0], abs=1e-5)
    assert {segment["labelValue"] for segment in found["segments"]} == set(np.unique(voxels)) - {0}
    assert np.allclose(found["ijkToLPS"][:2], -reference.affine[:2])
    assert header["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"
    assert header["Segment0_Extent"] == " ".join(f"0 {size - 1}" for size in voxels.shape)
    assert header["encoding"] == "gzip"


def test_the_folder_names_no_model_and_only_the_sheet_a_case(handed_out):
    _, folder, _ = handed_out
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    expected = [f"{part}.nii.gz" for part in ("t1c", "t1n", "t2f", "t2w")]
    expected += ["A.seg.nrrd", "B.seg.nrrd", "reference.seg.nrrd"]
    assert names == sorted(["README.txt", "ratings.csv", *(f"P{n}/{file}" for n in ("01", "02") for file in expected)])
    texts = [(folder / "README.txt").read_bytes(), (folder / "ratings.csv").read_bytes().replace(b"P0", b"")]
    texts += [path.read_bytes().split(b"\n\n")[0] for path in folder.rglob("*.nrrd")]  # the header
    texts += [nib.load(path).header.binaryblock for path in folder.rglob("*.nii.gz")]
    for text in texts:
        for word in (b"default", b"segresnet", b"finetune", b"p01", b"p02"):
            assert word not in text.lower()


def test_letters_stand_for_the_models_that_the_key_names(handed_out):
    files, folder, key = handed_out
    assert pd.read_csv(files.review / "expert_key.csv").equals(key)
    for line in key.to_dict("records"):
        voxels, _ = nrrd.read(str(folder / line["case"] / f"{line['model']}.seg.nrrd"))
        predicted = nib.load(files.predictions(line["arm"], line["strategy"]) / f"{line['case']}.nii.gz")
        assert np.array_equal(voxels, np.asarray(predicted.dataobj))
    assert len(key) == 4


def test_blinding_differs_between_cases_and_follows_the_seed(handed_out, tmp_path):
    files, _, _ = handed_out
    first = [write_expert_folder(files, ["P01"], MODELS, tmp_path / "x", seed)["arm"][0] for seed in range(12)]
    again = [write_expert_folder(files, ["P01"], MODELS, tmp_path / "x", seed)["arm"][0] for seed in range(12)]
    assert first == again
    assert set(first) == {"default", "segresnet"}


def test_a_folder_of_something_else_is_refused(handed_out, tmp_path):
    files, _, _ = handed_out
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files than an expert review"):
        write_expert_folder(files, ["P01"], MODELS, tmp_path, seed=1)


def test_what_an_expert_left_in_the_folder_is_never_overwritten(handed_out, tmp_path):
    files, _, _ = handed_out
    folder = tmp_path / "expert"
    names = ["P01"]
    write_expert_folder(files, names, MODELS, folder, seed=3)
    write_expert_folder(files, names, MODELS, folder, seed=3)  # nothing of anybody's is there: written anew
    (folder / "P01" / "scene.mrb").write_bytes(b"saved by Slicer")
    with pytest.raises(FileExistsError, match=r"scene\.mrb.*move them away"):
        write_expert_folder(files, names, MODELS, folder, seed=3)
    (folder / "P01" / "scene.mrb").unlink()
    sheet = pd.read_csv(folder / "ratings.csv", dtype=str)
    sheet.assign(rater="Dr A").to_csv(folder / "ratings.csv", index=False)
    with pytest.raises(FileExistsError, match=r"ratings\.csv, filled in"):
        write_expert_folder(files, names, MODELS, folder, seed=3)


KEY = pd.DataFrame(
    [("P01", "A", "default", "finetune"), ("P01", "B", "segresnet", "finetune")],
    columns=["case", "model", "arm", "strategy"],
)


def sheet(tmp_path, *rows, name="one.csv"):
    path = tmp_path / name
    pd.DataFrame(rows, columns=SHEET_COLUMNS).to_csv(path, index=False)
    return path


def test_ratings_are_unblinded(tmp_path):
    path = sheet(tmp_path, ("R1", "P01", "B", 4, 3, 1, 0, "Yes", "edge"), ("R1", "P01", "A", "", "", "", "", "", ""))
    ratings = read_ratings([path], KEY)
    assert ratings.to_dict("records") == [
        {
            "rater": "R1", "case": "P01", "arm": "segresnet", "strategy": "finetune", "overall": 4, "boundary": 3,
            "missed_lesions": 1, "false_lesions": 0, "acceptable": True, "comment": "edge",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("R1", "P01", "A", 6, 3, 1, 0, "yes", ""),
            r"one\.csv, row 2, column overall: '6' is not a whole number from 1",
        ),
        (("R1", "P01", "A", 4, 3, -1, 0, "yes", ""), r"row 2, column missed_lesions: '-1' is not a count"),
        (("R1", "P01", "A", 4, "", 1, 0, "yes", ""), r"row 2, column boundary: '' is not a whole number"),
        (("R1", "P01", "A", 4, 3, 1, 0, "maybe", ""), r"row 2, column acceptable: 'maybe' is not yes or no"),
        (("R1", "c9", "A", 4, 3, 1, 0, "yes", ""), r"row 2: 'c9' model 'A' was not handed out"),
        (("", "P01", "A", 4, 3, 1, 0, "yes", ""), r"row 2, column rater: is empty"),
        (("R1", "P01", "A", "", "", "", "", "", ""), r"no rating was filled in"),
    ],
)
def test_a_bad_value_is_named_with_row_and_column(tmp_path, row, message):
    with pytest.raises(RatingError, match=message):
        read_ratings([sheet(tmp_path, row)], KEY)


def test_an_item_rated_twice_and_an_absent_column_are_refused(tmp_path):
    row = ("R1", "P01", "A", 4, 3, 1, 0, "yes", "")
    with pytest.raises(RatingError, match="R1 rated case P01 twice with the same model"):
        read_ratings([sheet(tmp_path, row), sheet(tmp_path, row, name="two.csv")], KEY)
    (tmp_path / "bare.csv").write_text("rater,case\nR1,P01\n")
    with pytest.raises(RatingError, match=r"bare\.csv has no column model, overall"):
        read_ratings([tmp_path / "bare.csv"], KEY)


RATED = "R1;P01;A;4;3;1;0;yes"
HEADER = ";".join(SHEET_COLUMNS)


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{RATED};soft, or not\n",
        f"\ufeff{HEADER}\r\n{RATED};soft, or not\r\n",
        HEADER.replace(";", "\t") + "\n" + RATED.replace(";", "\t") + "\tsoft, or not\n",
        HEADER.replace(";", ",") + "\n" + RATED.replace(";", ",") + ',"soft, or not"\n',
        f"{HEADER};\n;;;;;;;;;\n{RATED};soft, or not;\n",
    ],
    ids=["semicolons", "mark and returns", "tabs", "commas", "blank line and column"],
)
def test_a_sheet_reads_as_spreadsheets_of_other_countries_write_it(tmp_path, text):
    (tmp_path / "one.csv").write_bytes(text.encode())
    (row,) = read_ratings([tmp_path / "one.csv"], KEY).to_dict("records")
    assert (row["rater"], row["overall"], row["acceptable"], row["comment"]) == ("R1", 4, True, "soft, or not")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEADER}\n{RATED};weiß\n".encode("latin-1"), r"one\.csv is not in UTF-8; save it as 'CSV UTF-8'"),
        (f"{HEADER}\n\n{RATED};a;b\n".encode(), r"one\.csv, row 3: 10 cells under 9 columns; put a comment .* ';'"),
        (b"", r"one\.csv has no column rater, case"),
    ],
)
def test_a_sheet_that_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "one.csv").write_bytes(content)
    with pytest.raises(RatingError, match=message):
        read_ratings([tmp_path / "one.csv"], KEY)


def test_kappa_by_hand():
    # squared differences: 0, 0, 1, mean 1/3; of every pair: 0 1 1, 1 0 0, 4 1 1, mean 1
    assert weighted_kappa(np.array([1, 2, 3]), np.array([1, 2, 2])) == pytest.approx(1 - (1 / 3) / 1)
    assert weighted_kappa(np.array([1, 5]), np.array([1, 5])) == 1
    assert weighted_kappa(np.array([1, 5]), np.array([5, 1])) == -1
    assert np.isnan(weighted_kappa(np.array([3, 3]), np.array([3, 3])))
    assert np.isnan(weighted_kappa(np.array([], int), np.array([], int)))


def test_kappa_equals_scikit_learns():
    from sklearn.metrics import cohen_kappa_score

    random = np.random.default_rng(0)
    for _ in range(20):
        first, second = random.integers(1, 6, (2, 30))
        expected = cohen_kappa_score(first, second, weights="quadratic", labels=[1, 2, 3, 4, 5])
        assert weighted_kappa(first, second) == pytest.approx(expected)


def test_kappa_of_many_resamples_equals_that_of_each():
    first, second = np.random.default_rng(1).integers(1, 6, (2, 50, 12))
    together = weighted_kappa(first, second)
    assert together.shape == (50,)
    assert together.tolist() == [float(weighted_kappa(a, b)) for a, b in zip(first, second, strict=True)]


def ratings(rater, values):
    return pd.DataFrame(
        {
            "rater": rater, "case": [f"P{n}" for n in range(len(values))], "arm": "default", "strategy": "finetune",
            "overall": values, "boundary": 3, "missed_lesions": 1, "false_lesions": 0, "acceptable": True,
            "comment": "",
        }
    )  # fmt: skip


def test_agreement_names_what_has_no_meaning():
    both = pd.concat([ratings("R1", [1, 2, 3, 4]), ratings("R2", [1, 2, 3, 5])])
    table = agreement(both, {}).set_index("item")
    assert table.loc["overall", ["n", "patients"]].tolist() == [4, 4]
    assert -1 < table.loc["overall", "low"] < table.loc["overall", "kappa"] < table.loc["overall", "high"] < 1
    assert table.loc["boundary", ["kappa", "low", "high"]].isna().all()
    assert table.loc["boundary", "note"] == "no variation: kappa has no meaning"


def test_agreement_of_raters_without_a_common_item_is_undefined():
    one, two = ratings("R1", [1, 2]), ratings("R2", [1, 2])
    two["case"] = ["P7", "P8"]
    table = agreement(pd.concat([one, two]), {})
    assert table["n"].tolist() == [0, 0, 0]
    assert table[["kappa", "low", "high"]].isna().all(axis=None)
    assert (table["note"] != "").all()


def test_raters_who_never_differ_or_one_varying_patient_give_no_interval():
    line = agreement(pd.concat([ratings("R1", [1, 2, 4]), ratings("R2", [1, 2, 4])]), {}).iloc[0]
    assert line["kappa"] == 1
    assert np.isnan([line["low"], line["high"]]).all()
    assert "never differ" in line["note"]
    line = agreement(pd.concat([ratings("R1", [3, 3, 4]), ratings("R2", [3, 3, 5])]), {}).iloc[0]
    assert np.isnan([line["low"], line["high"]]).all()
    assert line["note"] == "no interval: without one patient nothing varies"


def test_the_interval_of_kappa_leaves_out_patients_and_not_ratings():
    """Four cases of two patients: two values of kappa, each without one patient."""
    one, two = [1, 2, 3, 4, 2, 5], [1, 3, 3, 5, 2, 4]
    whose = {"P0": "x", "P1": "x", "P2": "y", "P3": "y", "P4": "z", "P5": "z"}
    line = agreement(pd.concat([ratings("R1", one), ratings("R2", two)]), whose).iloc[0]
    left_out = np.array(
        [weighted_kappa(np.delete(one, part), np.delete(two, part)) for part in ([0, 1], [2, 3], [4, 5])]
    )
    error = np.sqrt(2 / 3 * ((left_out - left_out.mean()) ** 2).sum())
    half = 4.302653 * error / (1 - line["kappa"] ** 2)
    assert (line["n"], line["patients"]) == (6, 3)
    assert np.arctanh([line["low"], line["high"]]) == pytest.approx(
        np.arctanh(line["kappa"]) + np.array([-half, half])
    )


def test_summary_stands_beside_the_metrics():
    table = scores([0.5, 0.7, 0.9], region="WT")
    given = ratings("R1", [2, 4])
    given["case"] = ["a", "b"]
    line = summarise(given, table).iloc[0]
    assert (line["n"], line["median_overall"], line["missed_lesions_per_rating"]) == (2, 3, 1)
    assert line["mean_dice_wt"] == pytest.approx(0.6)
    assert line["acceptable"] == 1


def test_command_hands_out_and_reads_back(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").mkdir()
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    files = study_on_disk.make(tmp_path / "work", patients=2)
    params = tmp_path / "tiny.yaml"
    params.write_text(yaml.safe_dump(study_on_disk.parameters(tmp_path / "work")))
    study_on_disk.choose(files, [("segresnet", "scratch")])
    assert cli.main(["review", str(params)]) == 2
    assert "has 1 model(s) to choose from by cross-validation" in capsys.readouterr().err
    files.best_model.unlink()
    assert cli.main(["review", str(params)]) == 2
    assert "best_model.json is not in statistics: run notebook 07" in capsys.readouterr().err
    chosen = [("segresnet", "scratch"), ("default", "scratch")]  # the worst two on the held-out cases
    study_on_disk.choose(files, [*chosen, ("default", "finetune")])
    assert cli.main(["review", str(params)]) == 0
    key = pd.read_csv(files.review / "expert_key.csv")
    assert set(zip(key["arm"], key["strategy"], strict=True)) == set(chosen)
    table = pd.read_csv(files.review / "expert" / "ratings.csv", dtype=str)
    assert len(table) == 4
    filled = tmp_path / "filled"
    filled.mkdir()
    for rater, overall in (("R1", "4"), ("R2", "3")):
        table.assign(
            rater=rater, overall=overall, boundary="3", missed_lesions="0", false_lesions="1", acceptable="no"
        ).to_csv(filled / f"{rater}.csv", index=False)
    capsys.readouterr()
    assert cli.main(["review", str(params), "--ratings", str(filled)]) == 0
    assert "8 ratings by 2 raters from 2 sheets" in capsys.readouterr().out
    table.assign(rater="R3", overall="9").to_csv(filled / "R3.csv", index=False)
    assert cli.main(["review", str(params), "--ratings", str(filled)]) == 2
    assert "R3.csv, row 2, column overall: '9'" in capsys.readouterr().err
    (filled / "R3.csv").unlink()
    assert cli.main(["review", str(params), "--ratings", str(filled / "R1.csv")]) == 0
    assert "4 ratings by 1 raters from 1 sheets" in capsys.readouterr().out
    assert cli.main(["review", str(params), "--ratings", str(tmp_path / "nowhere")]) == 2
    assert "nowhere; name the folder of the filled-in sheets, or one sheet" in capsys.readouterr().err
    assert cli.main(["review", str(params), "--ratings", str(filled)]) == 0
    summary = pd.read_csv(files.review / "expert_summary.csv")
    assert summary["median_overall"].tolist() == [3.5, 3.5]


def test_a_study_without_scores_is_refused_with_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    params = tmp_path / "tiny.yaml"
    params.write_text(yaml.safe_dump(study_on_disk.parameters(tmp_path / "work")))
    assert cli.main(["review", str(params)]) == 2
    assert "has no scores yet: run notebook 06_evaluation first" in capsys.readouterr().err
