"""Cases without lesions, from the list that declares them to the tables and pictures of the evaluation."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import study_on_disk
from cohort_files import OWN_LAYOUT, write_case, write_image
from real_checkout import profile
from review_cases import block, case
from small_study import ingest, source_cohort, target_cohort, training_parameters

from brainmets.cohorts import likeness, splits
from brainmets.cohorts.audit import audit_cohorts
from brainmets.cohorts.cohort import (
    CohortError,
    find_cases,
    read_manifest,
    require_files,
    write_manifest,
    write_mapped_labels,
)
from brainmets.cohorts.figures import montage
from brainmets.cohorts.pseudonyms import cases_of
from brainmets.engine.steps import cohort_listing, outdated, result
from brainmets.files import write_json
from brainmets.params import Cohort, FromScratch, Phantoms
from brainmets.params.models import LESION_FREE_PHANTOMS
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.phantoms import sites
from brainmets.provenance import Provenance
from brainmets.review import drawing, viewers
from brainmets.review.case import read_case
from brainmets.review.experts import write_expert_folder
from brainmets.review.panels import case_panel
from brainmets.review.predictions import best_middle_worst, side_by_side
from brainmets.review.ranking import explain, marks, rank
from brainmets.scoring.detection import detection_by_size, false_positives_per_case
from brainmets.scoring.folders import score_folders
from brainmets.statistics import agreement, comparisons
from brainmets.statistics.descriptive import describe, false_volumes, normality
from brainmets.statistics.tables import with_reference
from brainmets.training import plans
from brainmets.training.plans import read_folds
from brainmets.training.preprocessed import StudyDataset
from brainmets.training.session import prepare
from brainmets.training.watching import batch_figure
from brainmets.vocabulary import SEQUENCES

LESION = np.zeros((6, 5, 4), np.int16)
LESION[1:3, 1:3, 1:3] = 1


@pytest.fixture
def own(tmp_path: Path) -> Cohort:
    """Cases a, b (with a lesion), c (an empty label map), d (none); c and d are listed in a table of Excel's."""
    folder = tmp_path / "own"
    for name in "abcd":
        write_case(folder, OWN_LAYOUT, name, LESION if name in "ab" else None)
    (folder / "d" / "GT.nii.gz").unlink()
    listed = tmp_path / "free.csv"
    listed.write_bytes("\ufeffCase;remark\r\nc;follow-up\r\nd;\r\n".encode())
    return Cohort(
        folder=str(folder), layout=OWN_LAYOUT, label_map={1: "snfh", 3: "et"}, held_out=1, pseudonyms=False,
        lesion_free=str(listed),
    )  # fmt: skip


def test_a_listed_case_may_be_without_a_label_map_and_the_manifest_says_which_it_is(
    own: Cohort, tmp_path: Path
) -> None:
    cases = find_cases(own, SEQUENCES)
    assert [(one.case, one.lesion_free, one.label is None) for one in cases] == [
        ("a", False, False), ("b", False, False), ("c", True, False), ("d", True, True)
    ]  # fmt: skip
    assert [len(one.paths) for one in cases] == [5, 5, 5, 4]
    manifest = write_manifest(tmp_path / "work" / "study" / "audit" / "target" / "manifest.json", cases, SEQUENCES)
    again = read_manifest(manifest)
    assert [again[name].lesion_free for name in "abcd"] == [False, False, True, True]
    assert again["d"].label is None
    require_files(again.values())


def test_a_case_without_a_label_map_gets_an_empty_one_on_the_grid_of_its_t1c(own: Cohort, tmp_path: Path) -> None:
    written = nib.load(write_mapped_labels(find_cases(own, SEQUENCES)[3], own, tmp_path / "labels"))
    t1c = nib.load(Path(own.folder) / "d" / "T1POST.nii.gz")
    assert np.array_equal(written.affine, t1c.affine)
    assert written.shape == t1c.shape
    assert not np.asarray(written.dataobj).any()


def test_a_label_map_that_is_missing_without_a_word_stays_an_error(own: Cohort) -> None:
    for path in ("a/GT.nii.gz", "d/T2.nii.gz"):
        (Path(own.folder) / path).unlink()
    with pytest.raises(CohortError, match=r"2 file\(s\) missing: a/GT.nii.gz, d/T2.nii.gz.*where `lesion_free` lists"):
        find_cases(own, SEQUENCES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case\nc\nd\nz\n", r"free.csv lists 1 case\(s\) that .* does not hold, such as 'z': correct the list"),
        ("case\n", "lists no case; fill it in, or leave it out"),
        ("name\nc\n", "is no table .* with one column case: write that word into its first row"),
        (None, "cannot be read .* give the path of a table"),
    ],
)
def test_a_list_that_says_nothing_or_too_much_is_refused(own: Cohort, content: str | None, message: str) -> None:
    assert own.lesion_free is not None
    listed = Path(own.lesion_free)
    listed.unlink() if content is None else listed.write_text(content)
    with pytest.raises(CohortError, match=message):
        find_cases(own, SEQUENCES)


def test_a_listed_case_is_found_under_its_pseudonym(
    own: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINMETS_ROOT", str(tmp_path))
    for name in "abcd":
        (Path(own.folder) / name).rename(Path(own.folder) / f"Kowalczyk_{name}")
    listed = tmp_path / "free.csv"
    listed.write_text("case\nKowalczyk_c\nKowalczyk_d\n")
    files = StudyPaths(str(tmp_path / "work"), "tiny")
    cases = cases_of("target", own.model_copy(update={"pseudonyms": True}), SEQUENCES, files)
    free = {one.own_name: one.lesion_free for one in cases}
    assert free == {"Kowalczyk_a": False, "Kowalczyk_b": False, "Kowalczyk_c": True, "Kowalczyk_d": True}
    manifest = write_manifest(files.manifest("target"), cases, SEQUENCES)
    assert "Kowalczyk" not in manifest.read_text()
    assert sum(one.label is None for one in read_manifest(manifest).values()) == 1
    listed.write_text("case\nKowalczyk_x\n")
    with pytest.raises(CohortError) as refused:
        cases_of("target", own.model_copy(update={"pseudonyms": True}), SEQUENCES, files)
    assert "Kowalczyk" not in str(refused.value)
    assert "Kowalczyk_x" in files.unusable("target").read_text()


def test_the_audit_takes_the_list_at_its_word_and_no_further(own: Cohort) -> None:
    """Of four cases without a lesion in the label map it asks about the one that nobody listed."""
    write_image(Path(own.folder) / "b" / "GT.nii.gz", np.zeros((6, 5, 4), np.int16))
    audit = audit_cohorts({"target": find_cases(own, SEQUENCES)}, {"target": own})["target"]
    asked = audit.findings[audit.findings.rule == "no lesion"]
    assert asked.case.tolist() == ["b"]
    audit.require_no_errors()
    table = audit.cases.set_index("case")
    assert table.loc[["c", "d"], ["WT_mL", "lesions"]].to_numpy().tolist() == [[0, 0], [0, 0]]
    assert audit.loads["d"] == 0
    write_image(Path(own.folder) / "c" / "GT.nii.gz", LESION)
    with pytest.raises(CohortError, match=r"c: c/GT.nii.gz: holds 1 lesion\(s\), 0.016 mL, and `lesion_free` lists"):
        audit_cohorts({"target": find_cases(own, SEQUENCES)}, {"target": own})["target"].require_no_errors()


def test_the_audits_pictures_show_a_case_without_a_label_map(own: Cohort) -> None:
    assert len(montage(find_cases(own, SEQUENCES), own, "all").axes) == 16


# --- what calls for a step to run again ----------------------------------------------------------------------------


def test_a_changed_list_calls_for_a_new_audit(own: Cohort, tmp_path: Path) -> None:
    content = profile("smoke") | {"work_dir": str(tmp_path / "work"), "target": own.model_dump()}
    study = Study(content, "own.yaml")
    before = cohort_listing(study)["target"]
    assert len(before) == 5 + 5 + 5 + 4 + 1
    Path(str(own.lesion_free)).write_text("case\nc\nd\n\n")
    assert cohort_listing(study)["target"] != before


@pytest.mark.parametrize("label", [None, "raw/labels/x.nii.gz"])
def test_a_prepared_case_without_a_label_map_is_done_only_where_the_sorting_has_none(
    tmp_path: Path, label: str | None
) -> None:
    content = profile("smoke") | {"work_dir": str(tmp_path / "work")}
    content["target"] = {**content["target"], "folder": str(tmp_path / "cohort")}
    study, files = Study(content, "own.yaml"), StudyPaths(str(tmp_path / "work"), "smoke")
    (job,) = study.jobs("00_preparation")
    write_case(tmp_path / "cohort", Cohort(**content["target"]).files.model_dump(), job["case"])
    (tmp_path / "cohort" / job["case"] / f"{job['case']}_LABEL.nii.gz").unlink()
    plan = {"images": {}, "label": label, "brain_mask": None, "digest": "d"}
    write_json(files.preparation("target").plan, {"cases": {job["case"]: plan}})
    values = study.notebook("00_preparation", **job).model_dump(mode="json")
    made = result(files, "00_preparation", job)
    Provenance("00_preparation", values, root=files.work).write(made, files="d")
    assert outdated(study, files) == ([] if label is None else [made])


@pytest.mark.parametrize(("may_lack", "planned"), [([], ["t1c"]), (["t2f"], ["t1c"]), (["t2f"], ["t1c", "t2f"])])
def test_a_prepared_case_is_done_with_the_sequences_that_are_read_of_it(
    tmp_path: Path, may_lack: list[str], planned: list[str]
) -> None:
    """The layout names all four; the study reads two or one, and this case lacks what may be lacking, or has it."""
    content = profile("smoke") | {"work_dir": str(tmp_path / "work"), "sequences": ["t1c", *may_lack]}
    content["target"] = {**content["target"], "folder": str(tmp_path / "cohort"), "may_lack": may_lack}
    study, files = Study(content, "own.yaml"), StudyPaths(str(tmp_path / "work"), "smoke")
    (job,) = study.jobs("00_preparation")
    layout = Cohort(**content["target"]).files.patterns
    assert len(layout) == 5
    write_case(tmp_path / "cohort", {name: layout[name] for name in (*planned, "label")}, job["case"])
    plan = {"images": {name: {} for name in planned}, "label": "x.nii.gz", "brain_mask": None, "digest": "d"}
    write_json(files.preparation("target").plan, {"cases": {job["case"]: plan}})
    made = result(files, "00_preparation", job)
    values = study.notebook("00_preparation", **job).model_dump(mode="json")
    Provenance("00_preparation", values, root=files.work).write(made, files="d")
    assert outdated(study, files) == []
    (tmp_path / "cohort" / layout[planned[-1]].format(case=job["case"])).unlink()
    assert outdated(study, files) == [made]


# --- the split -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_by_load_lesion_free_patients_are_spread_by_their_share(seed: int) -> None:
    """Four of twelve patients: of three held out one, and of the other three each of three folds validates one."""
    patients = {f"P{number:02}": f"P{number:02}" for number in range(12)}
    loads = {name: max(0.0, number - 3.0) for number, name in enumerate(patients)}
    split = splits.split_cohort(patients, 3, 3, seed, loads=loads)
    assert sum(loads[name] == 0 for name in split["held_out"]) == 1
    assert [sum(loads[name] == 0 for name in fold["val"]) for fold in split["folds"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("free", "held_out", "expected"),
    [
        (2, 2, {1}),  # a sixth of the patients, yet one is tested
        (1, 4, {0, 1}),  # a single one stays wherever the draw puts it
        (2, 1, {0}),  # a test of one case has a lesion
        (11, 3, {2}),  # and so has one of three, however few have
        (12, 3, {3}),
    ],
)
def test_both_kinds_are_tested_and_trained_on_where_they_can_be(free: int, held_out: int, expected: set[int]) -> None:
    patients = {f"P{number:02}": f"P{number:02}" for number in range(12)}
    loads = {name: 0.0 if number < free else 1.0 + number for number, name in enumerate(patients)}
    drawn = Counter(
        sum(loads[name] == 0 for name in splits.hold_out(patients, held_out, seed, loads=loads)) for seed in range(30)
    )
    assert set(drawn) <= expected


# --- phantoms ------------------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.nii.gz")
    }


def test_lesion_free_phantoms_come_after_the_others_which_stay_as_they_are(tmp_path: Path) -> None:
    sites.make_cohort(tmp_path / "without", "target", 2, 5.0, seed=2)
    folder = sites.make_cohort(tmp_path / "with", "target", 2, 5.0, seed=2, lesion_free=2)
    before, after = content(tmp_path / "without"), content(folder)
    assert {name: after[name] for name in before} == before
    added = sorted(set(after) - set(before))
    assert len(added) == 9, "two patients of four images, one of them with an empty label map"
    assert not np.asarray(nib.load(folder / "P03" / "P03_LABEL.nii.gz").dataobj).any()
    assert not (folder / "P04" / "P04_LABEL.nii.gz").exists()
    assert (folder / LESION_FREE_PHANTOMS).read_text() == "case\nP03\nP04\n"
    assert not (tmp_path / "without" / LESION_FREE_PHANTOMS).exists()
    phantoms = Phantoms(site="target", patients=2, spacing_mm=5.0, seed=2, lesion_free=2)
    declared = target_cohort(tmp_path / "without", patients=2).model_copy(
        update={"folder": str(folder), "phantoms": phantoms}
    )
    assert [one.lesion_free for one in find_cases(declared, SEQUENCES)] == [False, False, True, True]
    with pytest.raises(FileExistsError, match="lesion_free 2 there, 0 asked for"):
        sites.make_cohort(folder, "target", 2, 5.0, seed=2)


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["default", "tversky_bce", "segresnet"])
def test_a_fold_with_a_lesion_free_case_is_trained(lesion_free_study: StudyPaths, arm: str) -> None:
    """The fold trains on that case alone, so that nnU-Net must look for tumour in it, in vain, in every step."""
    files = lesion_free_study
    case, fold = "P05", [one["train"] for one in read_folds(files, "target")].index(["P05"])
    folder = next(path for path in files.nnunet_preprocessed.rglob("*3d_fullres") if list(path.glob(f"{case}*")))
    _, segmentation, _, properties = StudyDataset(str(folder), [case]).load_case(case)
    assert not (np.asarray(segmentation) > 0).any()
    assert [len(places) for places in properties["class_locations"].values()] == [0, 0, 0]
    session = prepare(files, training_parameters(FromScratch, files, arm=arm, fold=fold, epochs=2), "scratch")
    images, regions = session.first_batch()
    assert not regions.any()
    assert batch_figure(images, regions, session.sequences, "two patches").axes
    session.run(lambda line: None)
    assert np.isfinite(session.curves().training_loss).all()


def test_the_cohorts_are_compared_with_a_lesion_free_case_among_them(lesion_free_study: StudyPaths) -> None:
    looks = {cohort: plans.appearance(lesion_free_study, cohort) for cohort in ("source", "target")}
    of_case = looks["target"].set_index("case").loc["P05"]
    assert of_case[["et", "snfh"]].isna().to_numpy().all()
    assert likeness.summary(looks).notna().to_numpy().all()
    likeness.require_no_errors(likeness.findings(looks, {"source": [True], "target": [True]}))


@pytest.fixture(scope="module")
def lesion_free_study(tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """A planned study of which one of two folds trains on P05 alone, without a lesion and without a label map."""
    folder = tmp_path_factory.mktemp("lesion_free")
    sites.make_cohort(folder / "target", "target", 3, 5.0, seed=2, lesion_free=2)
    changed: dict[str, Any] = {
        "lesion_free": str(folder / "target" / LESION_FREE_PHANTOMS),
        "held_out": ["P01", "P02", "P04"],
    }
    target = target_cohort(folder / "other", patients=1).model_copy(
        update={"folder": str(folder / "target"), **changed}
    )
    files = StudyPaths(str(folder / "work"), "free")
    ingest(files, source_cohort(folder / "source"), target, gpu_memory_gb=0.01)
    return files


# --- evaluation ----------------------------------------------------------------------------------------------------


MODEL = ("default", "finetune")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Scores, lesions and cases: "lesion" is found but for a row of voxels, "free" is left alone, "false" is not.

    Two models with the same predictions; voxels of 1 mm^3.
    """
    folder = tmp_path_factory.mktemp("scored")
    drawn = block(slice(5, 9), slice(5, 9), slice(2, 4))
    nothing = np.zeros_like(drawn)
    found = {"lesion": (drawn, drawn * (np.arange(20) < 8)[:, None, None]), "free": (nothing, nothing)}
    found["false"] = (nothing, block(slice(1, 4), slice(1, 3), 1))
    for name, (reference, predicted) in found.items():
        for side, labels in (("references", reference), ("predictions", predicted)):
            write_image(folder / side / f"{name}.nii.gz", labels, np.eye(4))
    parts = [
        score_folders(folder / "predictions", folder / "references", arm="default", strategy=strategy)
        for strategy in ("finetune", "scratch")
    ]
    tables = [pd.concat([getattr(part, name) for part in parts], ignore_index=True) for name in ("table", "lesions")]
    return tables[0], tables[1], sorted(found)


def test_means_leave_lesion_free_cases_out_and_count_them(
    scored: tuple[pd.DataFrame, pd.DataFrame, list[str]],
) -> None:
    """Dice of "lesion": 2 * 24 / (24 + 32)."""
    scores, _, _ = scored
    table = describe(scores, 0.05).set_index(["strategy", "region", "metric"]).loc[("finetune", "TC", "dice")]
    assert table["mean"] == pytest.approx(48 / 56)
    counted = table[["n", "n_both", "n_reference_only", "n_prediction_only", "n_neither"]]
    assert counted.tolist() == [1, 1, 0, 1, 1]
    invented = false_volumes(scores).set_index(["strategy", "region"]).loc[("scratch", "TC")]
    assert invented[["n_cases", "n_predicted", "largest_in"]].tolist() == [2, 1, "false"]
    assert scores.value.notna().all()
    compared = with_reference(scores)
    assert set(compared[compared.metric == "dice"].case) == {"lesion"}
    assert set(compared[compared.metric == "specificity"].case) == {"lesion", "free", "false"}
    assert len(normality(compared, 0.05))
    settings = comparisons.Settings(0.05, 100, 1, {})
    tested = comparisons.finetune_vs_scratch(compared, settings)
    assert not tested.p_value.lt(0).any()
    limits = agreement.bland_altman(agreement.volume_pairs(scores), 0.05)
    assert set(limits.n) == {3}


def test_a_lesion_free_case_counts_among_the_false_positives_and_not_among_the_lesions(
    scored: tuple[pd.DataFrame, pd.DataFrame, list[str]],
) -> None:
    _, lesions, cases = scored
    by_size = detection_by_size(lesions).groupby(["strategy", "region"])[["n", "detected"]].sum()
    assert by_size.to_numpy().tolist() == [[1, 1]] * 6
    false = false_positives_per_case(lesions, cases)
    assert false[["n_cases", "false_positives", "cases_with_false_positives"]].to_numpy().tolist() == [[3, 1, 1]] * 6
    assert false.per_case.tolist() == pytest.approx([1 / 3] * 6)


def test_the_ranking_says_that_there_is_nothing_to_find(
    scored: tuple[pd.DataFrame, pd.DataFrame, list[str]],
) -> None:
    scores, lesions, _ = scored
    ranked = rank(scores, lesions)
    table = ranked.set_index("case")
    assert table.loc["lesion", ["lesions", "missed_by_all"]].tolist() == [1, 0]
    assert table.loc["false", ["lesions", "total_mm3", "missed_by_any"]].tolist() == [0, 0, 0]
    assert table.smallest_mm3.isna().tolist() == [name != "lesion" for name in table.index]
    assert set(marks(scores).query("case != 'lesion'").metric) == {"specificity"}
    assert explain(ranked, "false").endswith("no lesion in the reference: all that a model marks there is invented.")
    assert "nan" not in " ".join(explain(ranked, name) for name in table.index)


def test_the_best_middle_and_worst_case_hold_the_region(
    scored: tuple[pd.DataFrame, pd.DataFrame, list[str]],
) -> None:
    """By rule the Dice of "free" is 1 and that of "false" 0: they would be the best and the worst."""
    scores = scored[0].query("strategy == 'finetune'")
    assert best_middle_worst(scores, "TC") == {"lesion": pytest.approx(48 / 56)}
    without = scores[scores.case != "lesion"]
    assert list(best_middle_worst(without, "TC").values()) == [1, 0], "where no case has it, all are shown"


def test_pictures_of_a_lesion_free_case_print_what_was_invented_and_no_dice() -> None:
    nothing = np.zeros((20, 20, 6), np.uint8)
    shown = case(nothing, [block(slice(1, 4), slice(1, 3), 1), nothing])
    titles = [axes.get_title() for axes in case_panel(shown, "TC", {MODEL: 0.0}).axes]
    assert any(title.endswith("0.04 mL where there is none") for title in titles), "6 voxels of 6 mm^3"
    assert any(title.endswith("0.00 mL where there is none") for title in titles)
    assert not any("Dice" in title for title in titles)
    titles = [axes.get_title() for axes in side_by_side([shown], MODEL, "TC", {"P1": 0.0}).axes]
    assert titles[1] == "P1: prediction\nno TC there"


def test_experts_and_viewers_are_given_a_lesion_free_case(tmp_path: Path) -> None:
    files = study_on_disk.make(tmp_path / "work", patients=2)
    reference = nib.load(files.references / "P01.nii.gz")
    study_on_disk.save(np.zeros(reference.shape), reference.affine, files.references / "P01.nii.gz")
    shown = read_case(files, "P01", study_on_disk.MODELS)
    entries = drawing.draw_case(shown, ["TC", "WT"], {(*MODEL, "TC"): 0.0}, files.review)
    assert all((files.review / entry["file"]).is_file() for entry in entries)
    volumes = viewers.write_volumes(shown, files.review)
    assert np.isfinite(volumes["focus"]).all()
    key = write_expert_folder(files, ["P01", "P02"], study_on_disk.MODELS[:2], files.review / "expert", seed=1)
    assert sorted(key.case.unique()) == ["P01", "P02"]
