"""All notebooks on the smoke profile, run as a newcomer runs them, and the numbers that they wrote."""

import hashlib
import json
import math
import re
from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from real_checkout import RealCheckout, profile
from scipy import ndimage

from brainmets.files import read_json
from brainmets.nifti import read_grid
from brainmets.params.study import Study
from brainmets.paths import AFTER, NOTEBOOKS, ScreeningPaths, StudyPaths
from brainmets.phantoms.scanner import secrets
from brainmets.provenance import sha256
from brainmets.scoring import probabilities as kept
from brainmets.scoring.candidates import hits, read_detections
from brainmets.screening.result import read as read_result
from brainmets.statistics.choice import read_best_models
from brainmets.statistics.operating_point import thaw
from brainmets.statistics.tables import needs_reference
from brainmets.vocabulary import COMPARED_STRATEGIES, HIT_RULES, REGIONS, region_mask

pytestmark = pytest.mark.slow
SMOKE = profile("smoke")
ARMS = list(SMOKE["arms"])
STRATEGIES = ("pretrained", *COMPARED_STRATEGIES)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> RealCheckout:
    checkout = RealCheckout.make(tmp_path_factory.mktemp("smoke") / "checkout")
    checkout.write_params(SMOKE)
    ended = checkout.run("study", "params/smoke.yaml")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return checkout


@pytest.fixture(scope="module")
def files(checkout: RealCheckout) -> StudyPaths:
    return StudyPaths(str(checkout.root / "work"), "smoke")


def test_every_notebook_was_executed_to_its_last_cell(files: StudyPaths) -> None:
    executed = {path.stem: nbformat.read(path, 4) for path in files.runs.glob("*.ipynb") if path.stem not in AFTER}
    study = Study(SMOKE, "smoke")
    assert len(executed) == sum(len(study.jobs(notebook)) for notebook in NOTEBOOKS)
    for name, notebook in executed.items():
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code), f"{name} has cells that were not run"
        outputs = [output for cell in code for output in cell.outputs]
        assert not any(output.output_type == "error" for output in outputs), name


@pytest.mark.parametrize("notebook", ["01_data_audit", "03_pretraining", "06_evaluation", "07_statistics"])
def test_figures_are_pictures_in_the_executed_copies(files: StudyPaths, notebook: str) -> None:
    for path in files.runs.glob(f"{notebook}*.ipynb"):
        cells = nbformat.read(path, 4).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        assert any("image/png" in output.get("data", {}) for output in outputs), path.name


def test_the_raw_patient_became_a_case_like_the_others(checkout: RealCheckout, files: StudyPaths) -> None:
    """From DICOM through notebook 00 into the audit, the split and the trainings."""
    (case,) = Study(SMOKE, "smoke").raw_cases("target")
    cases = pd.read_csv(files.cases("target")).set_index("case")
    phantoms = SMOKE["target"]["phantoms"]
    assert len(cases) == phantoms["patients"] + phantoms["lesion_free"] + 1
    assert cases.loc[case, "orientation"] == "RAS"
    assert cases.loc[case, "WT_mL"] > 0
    split = read_json(files.splits)["target"]
    assert case in {*split["held_out"], *split["folds"][0]["train"], *split["folds"][0]["val"]}
    private = files.preparation("target")
    assert read_json(private.prepared(case))["provenance"]["notebook"] == "00_preparation"
    assert pd.read_csv(private.quality_table).case.tolist() == [case]
    assert not (pd.read_csv(private.flags).severity == "error").any()
    assert case in private.quality.read_text()
    table = pd.read_csv(private.series)
    assert table.role.dropna().tolist() == table.guess[table.role.notna()].tolist(), "every guess was right"
    report = "".join(path.read_text() for path in (checkout.root / "reports" / "smoke").rglob("*.html"))
    for told in (*secrets(1), "PHANTOM-0001"):
        assert told not in report


def test_one_lesion_free_patient_is_held_out_and_one_trained_on(files: StudyPaths) -> None:
    """One has an empty label map, the other none: both are drawn, trained on or tested like any other case."""
    manifest = read_json(files.manifest("target"))["cases"]
    free = {case for case, entry in manifest.items() if entry["lesion_free"]}
    assert [manifest[case]["label"] is None for case in sorted(free)] == [False, True]
    split = read_json(files.splits)["target"]
    assert len(free & set(split["held_out"])) == 1
    assert len(free & {*split["folds"][0]["train"], *split["folds"][0]["val"]}) == 1
    audited = pd.read_csv(files.cases("target")).set_index("case")
    assert (audited.lesions == 0).sum() == 2
    assert "no lesion" not in set(pd.read_csv(files.findings("target")).rule)
    empty = pd.read_csv(files.statistics / "empty_references.csv")
    assert len(empty) == len(ARMS) * len(STRATEGIES) * len(REGIONS)
    assert (empty.n_cases >= 1).all()


def test_the_held_out_cases_are_the_ones_scored_and_nobody_else_saw_them(files: StudyPaths) -> None:
    split = read_json(files.splits)["target"]
    assert len(split["held_out"]) == SMOKE["target"]["held_out"]
    seen = {case for fold in split["folds"] for side in ("train", "val") for case in fold[side]}
    assert not seen & set(split["held_out"])
    for arm in ARMS:
        for strategy in STRATEGIES:
            scores = pd.read_csv(files.scores(arm, strategy))
            assert sorted(scores.case.unique()) == split["held_out"]
            assert set(scores.region) == set(REGIONS)
            assert (scores.arm == arm).all()
            assert (scores.strategy == strategy).all()
            assert scores.value.notna().all()


@pytest.mark.parametrize("arm", ARMS)
def test_trainings_have_whole_curves_and_the_checkpoint_that_they_name(files: StudyPaths, arm: str) -> None:
    for stage, section in (("pretraining", "pretraining"), ("finetune", "fine_tuning"), ("scratch", "from_scratch")):
        for fold in SMOKE["folds"]:
            training = read_json(files.training(stage, arm, fold))
            assert training["epochs"] == SMOKE[section]["epochs"] == len(training["curves"]["epoch"])
            assert all(np.isfinite(training["curves"]["training_loss"]))
            assert training["checkpoint_sha256"] == sha256(files.checkpoint(stage, arm, fold))
            assert (training["weights_loaded"] > 0) == (stage == "finetune")
            assert training["weights_skipped"] == []
            parameters = training["provenance"]["parameters"]
            assert (parameters["arm"], parameters["fold"]) == (arm, fold)


def pointed_at(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Voxels above 0.5, and pieces from ``threshold`` on that hold none of them."""
    pieces, count = ndimage.label(probability >= threshold, np.ones((3, 3, 3)))
    highest = np.append(np.inf, ndimage.maximum(probability, pieces, range(1, count + 1)))
    return (highest <= 0.5)[pieces] | (probability > 0.5)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_labels_and_the_candidates_are_those_of_the_kept_probabilities(
    files: StudyPaths, arm: str, strategy: str
) -> None:
    threshold = SMOKE["evaluation"]["candidate_threshold"]
    held_out, unseen = files.evaluation_folder(arm, strategy), files.cross_validation_folder(arm, strategy)
    for folder, references in ((held_out, files.references), (unseen, files.labels("target"))):
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "predictions").iterdir())
        detections = read_detections(folder, cases)
        assert [f"{case}.nii.gz" for case in cases] == sorted(
            path.name for path in (folder / "probabilities").iterdir()
        )
        for case in cases:
            probabilities, grid = kept.read(folder / "probabilities" / f"{case}.nii.gz")
            assert grid.same(read_grid(references / f"{case}.nii.gz"))
            painted = np.asanyarray(nib.load(folder / "predictions" / f"{case}.nii.gz").dataobj)
            truth = np.asanyarray(nib.load(references / f"{case}.nii.gz").dataobj)
            certain = np.all([abs(values - 0.5) > 1e-4 for values in probabilities.values()], axis=0)
            above = np.any([values > 0.5 for values in probabilities.values()], axis=0)
            assert np.array_equal((painted > 0)[certain], above[certain])
            for region, values in probabilities.items():
                for table, voxels in (
                    (detections.candidates, pointed_at(values, threshold)),
                    (detections.targets, region_mask(truth, region)),
                ):
                    own = table[(table.case == case) & (table.region == region)]
                    assert own.volume_mm3.sum() == pytest.approx(voxels.sum() * grid.voxel_mm3)
                    assert len(own) == ndimage.label(voxels, np.ones((3, 3, 3)))[1]


@pytest.mark.parametrize("arm", ARMS)
def test_the_scores_are_those_of_the_predictions_on_disk(files: StudyPaths, arm: str) -> None:
    for strategy in STRATEGIES:
        table = pd.read_csv(files.scores(arm, strategy)).set_index(["case", "region", "metric"]).value
        for case in read_json(files.splits)["target"]["held_out"]:
            reference = nib.load(files.references / f"{case}.nii.gz")
            predicted = nib.load(files.predictions(arm, strategy) / f"{case}.nii.gz")
            assert np.array_equal(reference.affine, predicted.affine)
            truth, guess = (np.asanyarray(image.dataobj) for image in (reference, predicted))
            voxel_ml = np.prod(reference.header.get_zooms()) / 1000
            for region in REGIONS:
                a, b = region_mask(truth, region), region_mask(guess, region)
                dice = 2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else 1.0
                assert table[case, region, "dice"] == pytest.approx(dice, abs=1e-9)
                assert table[case, region, "reference_volume"] == pytest.approx(a.sum() * voxel_ml, rel=1e-5)
                assert table[case, region, "predicted_volume"] == pytest.approx(b.sum() * voxel_ml, rel=1e-5, abs=1e-9)


def test_the_pretrained_models_are_scored_without_a_training_of_their_own(files: StudyPaths) -> None:
    assert {path.name for path in (files.work / "training").iterdir()} == {"pretraining", "finetune", "scratch"}
    inputs = read_json(files.evaluation("default", "pretrained"))["provenance"]["inputs"]
    used = [str(entry) for entry in inputs if "checkpoint_final" in str(entry)]
    assert len(used) == len(SMOKE["folds"])
    assert all("training/pretraining/default" in entry for entry in used)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_training_cases_are_scored_by_models_that_did_not_see_them(files: StudyPaths, arm: str, strategy: str) -> None:
    folder, split = files.cross_validation_folder(arm, strategy), read_json(files.splits)["target"]
    by = pd.read_csv(folder / "folds.csv")
    table = pd.read_csv(folder / "scores.csv").set_index(["case", "region", "metric"]).value
    cases = {case for fold in SMOKE["folds"] for case in split["folds"][fold]["val"]}
    assert set(table.index.get_level_values("case")) == set(by.case) == cases
    assert not cases & set(split["held_out"])
    assert set(pd.read_csv(folder / "lesions.csv").case) <= cases
    for row in by.itertuples():
        assert row.case in split["folds"][row.fold]["val"]
        assert strategy == "pretrained" or row.case not in split["folds"][row.predicted_by]["train"]
    assert len(by) == len(cases) * (len(SMOKE["folds"]) if strategy == "pretrained" else 1)
    for case in cases:
        truth, guess = (
            np.asanyarray(nib.load(place / f"{case}.nii.gz").dataobj)
            for place in (files.labels("target"), folder / "predictions")
        )
        for region in REGIONS:
            a, b = region_mask(truth, region), region_mask(guess, region)
            dice = 2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else 1.0
            assert table[case, region, "dice"] == pytest.approx(dice, abs=1e-9)


def test_the_best_model_is_that_of_the_cross_validation_and_the_one_explained(
    checkout: RealCheckout, files: StudyPaths
) -> None:
    means = {}
    for arm in ARMS:
        for strategy in COMPARED_STRATEGIES:
            table = pd.read_csv(files.cross_validation_folder(arm, strategy) / "scores.csv")
            wide = table.pivot(index=["case", "region"], columns="metric", values="value")
            holding = wide[wide.reference_volume > 0]
            means[arm, strategy] = holding.dice.groupby("region").mean().mean()
    chosen = read_json(files.best_model)
    order = [(model["arm"], model["strategy"]) for model in chosen["models"]]
    assert set(order) == set(means)
    assert [means[model] for model in order] == pytest.approx(sorted(means.values(), reverse=True))
    explained = pd.read_csv(files.review / "explanation.csv")
    assert {*zip(explained.arm, explained.strategy, strict=True)} == {order[0]}
    key = pd.read_csv(files.review / "expert_key.csv")
    assert {*zip(key.arm, key.strategy, strict=True)} == set(order[:2])
    assert chosen["sentence"] in (checkout.root / "reports" / "smoke" / "index.html").read_text()


def test_the_statistics_describe_exactly_the_scores(files: StudyPaths) -> None:
    scores = pd.concat(pd.read_csv(files.scores(arm, strategy)) for arm in ARMS for strategy in STRATEGIES)
    described = pd.read_csv(files.statistics / "descriptive.csv").set_index(["arm", "strategy", "region", "metric"])
    volumes = scores[scores.metric == "reference_volume"].set_index(["arm", "strategy", "case", "region"]).value
    there = pd.MultiIndex.from_frame(scores[["arm", "strategy", "case", "region"]]).map(volumes) > 0
    scores = scores[there | ~scores.metric.map(needs_reference)]
    for key, group in scores.groupby(["arm", "strategy", "region", "metric"]):
        assert described.loc[key, "n"] == len(group)
        assert described.loc[key, "mean"] == pytest.approx(group.value.mean())


def test_the_explanation_starts_from_the_evaluated_prediction(files: StudyPaths) -> None:
    table = pd.read_csv(files.review / "explanation.csv")
    unaltered = table[table["withheld"] == "nothing"]
    assert len(unaltered) == SMOKE["case_review"]["n_explained"] * len(REGIONS)
    for row in unaltered.to_dict("records"):
        scores = pd.read_csv(files.scores(row["arm"], row["strategy"])).set_index(["case", "region", "metric"])[
            "value"
        ]
        if scores[row["case"], row["region"], "reference_volume"]:
            assert row["dice"] == pytest.approx(scores[row["case"], row["region"], "dice"])
        else:
            assert np.isnan(row["dice"])
        assert row["detected"] == scores[row["case"], row["region"], "lesion_iou_tp"]


def test_the_report_shows_every_mean_and_links_every_notebook(checkout: RealCheckout, files: StudyPaths) -> None:
    folder = checkout.root / "reports" / "smoke"
    page = (folder / "index.html").read_text()
    described = pd.read_csv(files.statistics / "descriptive.csv")
    shown = described[described.metric == "dice"]
    assert len(shown) == len(ARMS) * len(STRATEGIES) * len(REGIONS)
    for mean in shown["mean"]:
        assert f"{mean:.3f}" in page
    linked = {link for link in re.findall(r'href="([^"#]+)"', page) if link.startswith("notebooks/")}
    shown = {path.stem for path in files.runs.glob("*.ipynb") if not path.stem.startswith("00")}
    assert linked == {f"notebooks/{name}.html" for name in shown}, "whole heads are not handed on"
    assert all((folder / link).is_file() for link in linked)


def test_no_page_asks_the_network_or_names_a_folder_of_this_machine(checkout: RealCheckout) -> None:
    pages = list((checkout.root / "reports" / "smoke").rglob("*.html"))
    assert len(pages) > len(NOTEBOOKS)
    for page in pages:
        text = page.read_text()
        assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css)', text), page.name
        assert str(checkout.root) not in text, page.name
        assert str(Path.home()) not in text.replace(str(Path.home()) + "-", ""), page.name


def test_running_it_again_does_nothing_and_says_so(checkout: RealCheckout, files: StudyPaths) -> None:
    before = {path: path.stat().st_mtime_ns for path in files.work.rglob("*.json")}
    ended = checkout.run("study", "params/smoke.yaml")
    assert ended.returncode == 0
    assert "nothing to do" in ended.stdout.lower()
    assert "reports/smoke/index.html" in ended.stdout
    assert {path: path.stat().st_mtime_ns for path in files.work.rglob("*.json")} == before


def test_one_sequence_missing_stops_the_audit_by_name_and_leaves_nothing_that_looks_done(
    checkout: RealCheckout, files: StudyPaths
) -> None:
    content = {**SMOKE, "study": "damaged"}
    for name in ("source", "target"):
        content[name] = {key: value for key, value in SMOKE[name].items() if key not in ("phantoms", "raw")}
    content["target"] |= {"folder": "damaged_target", "lesion_free": "work/smoke/cohorts/target/lesion_free.csv"}
    target = checkout.root / "damaged_target"
    cases = sorted((files.work / "cohorts" / "target").glob("P*"))
    for case in cases:
        (target / case.name).mkdir(parents=True)
        for image in case.iterdir():
            (target / case.name / image.name).symlink_to(image)
    (target / cases[0].name / f"{cases[0].name}_T2.nii.gz").unlink()
    checkout.write_params(content)
    ended = checkout.run("study", "params/damaged.yaml")
    assert ended.returncode != 0
    assert f"{cases[0].name}/{cases[0].name}_T2.nii.gz" in ended.stdout + ended.stderr
    damaged = StudyPaths(str(checkout.root / "work"), "damaged")
    assert not damaged.audit.exists()
    assert not damaged.splits.exists()


# --- detection ---------------------------------------------------------------------------------------------------


MODELS = [(arm, strategy) for arm in ARMS for strategy in STRATEGIES]


def sides(files: StudyPaths, model: tuple[str, str]) -> list[tuple[Path, list[str]]]:
    """The folders of the held-out and the cross-validated cases, and these cases."""
    apart = files.cross_validation_folder(*model)
    validated = sorted(set(pd.read_csv(apart / "folds.csv").case))
    return [(files.evaluation_folder(*model), read_json(files.splits)["target"]["held_out"]), (apart, validated)]


@pytest.mark.parametrize("model", MODELS)
def test_candidates_are_the_pieces_of_the_kept_probabilities(files: StudyPaths, model: tuple[str, str]) -> None:
    for folder, cases in sides(files, model):
        table = pd.read_csv(folder / "candidates.csv")
        for case in cases:
            probability = nib.load(folder / "probabilities" / f"{case}.nii.gz").get_fdata()
            for place, region in enumerate(REGIONS):
                pointed = pointed_at(probability[..., place], SMOKE["evaluation"]["candidate_threshold"])
                pieces, count = ndimage.label(pointed, np.ones((3, 3, 3)))
                own = table[(table.case == case) & (table.region == region)]
                assert len(own) == count
                highest = ndimage.maximum(probability[..., place], pieces, range(1, count + 1)) if count else []
                assert np.sort(own.score) == pytest.approx(np.sort(highest), abs=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_no_more_lesions_are_hit_than_there_are_and_no_more_than_candidates(
    files: StudyPaths, model: tuple[str, str]
) -> None:
    """One to one hits no more than there are lesions, and never without an overlap (a centroid may, in a ring)."""
    for folder, cases in sides(files, model):
        candidates, targets = pd.read_csv(folder / "candidates.csv"), pd.read_csv(folder / "targets.csv")
        detections = read_detections(folder, cases)
        assert not (candidates.hit_one_to_one & ~candidates.hit_overlap).any()
        for (_, region), own in candidates.groupby(["case", "region"]):
            there = targets[(targets.case == own.case.iloc[0]) & (targets.region == region)]
            assert own.hit_one_to_one.sum() <= min(len(own), len(there))
        for rule in HIT_RULES:
            found = hits(detections, rule)
            assert len(found.lesions) == len(targets)
            if rule == "one_to_one":
                assert np.isfinite(found.lesions.score).sum() + len(found.false) == len(candidates)
            assert len(found.false) == (~candidates[f"hit_{rule}"]).sum()


def test_sensitivity_rises_with_the_false_positives_that_are_allowed(files: StudyPaths) -> None:
    table = pd.read_csv(files.statistics / "froc.csv", keep_default_na=False, na_values=["", "nan"])
    rates = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "1": 1, "2": 2, "4": 4, "8": 8}
    assert set(zip(table.arm, table.strategy, strict=True)) == set(MODELS)
    assert table.sensitivity.notna().any()
    for key, own in table.groupby(["arm", "strategy", "region", "size"]):
        own = own.set_index("at").sensitivity
        assert set(own.index) == {*rates, "mean"}, key
        rising = own[sorted(rates, key=rates.__getitem__)].to_numpy()
        if np.isfinite(rising).all():
            assert (np.diff(rising) >= 0).all(), key
            assert own["mean"] == pytest.approx(rising.mean()), key
            assert ((rising >= 0) & (rising <= 1)).all(), key


def test_the_operating_point_was_frozen_on_cross_validated_cases_and_then_applied(files: StudyPaths) -> None:
    frozen = read_json(files.statistics / "operating_point.json")
    content = {name: value for name, value in frozen.items() if name != "sha256"}
    written = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert frozen["sha256"] == hashlib.sha256(written).hexdigest()
    held_out = set(read_json(files.splits)["target"]["held_out"])
    table = pd.read_csv(files.statistics / "detection_at_operating_point.csv").set_index(["arm", "strategy", "size"])
    for name, digest in frozen["inputs"].items():
        assert sha256(files.work / name) == digest
        assert name.startswith("cross_validation/")
    assert len(frozen["points"])
    for point in frozen["points"]:
        model = (point["arm"], point["strategy"])
        assert not held_out & set(point["chosen_on"])
        threshold = np.inf if point["threshold"] is None else point["threshold"]
        folder = files.evaluation_folder(*model)
        aim = frozen["aim"]
        found = hits(read_detections(folder, sorted(held_out)), aim["hit"], point["smallest_mm3"])
        lesions = found.lesions[found.lesions.region == aim["region"]]
        false = found.false[found.false.region == aim["region"]]
        whole = table.loc[(*model, "all")]
        accepted = np.isfinite(lesions.score) & (lesions.score >= threshold)
        assert (whole.lesions, whole.found) == (len(lesions), accepted.sum())
        assert whole.false == (false.score >= threshold).sum()
        assert whole.false_positives == pytest.approx(whole.false / len(held_out))
        parts = table.loc[model].drop("all")
        assert (parts.lesions.sum(), parts.found.sum()) == (whole.lesions, whole.found), "each lesion in one size"


def test_the_patients_are_judged_with_and_without_lesions(files: StudyPaths) -> None:
    """One of three held-out patients is lesion-free: specificity and the area under the curve exist."""
    table = pd.read_csv(files.statistics / "patient_level.csv").set_index(["arm", "strategy", "measure"])
    held_out = SMOKE["target"]["held_out"]
    for model in {key[:2] for key in table.index}:
        own = table.loc[model]
        assert own.patients[["all_found", "any_found", "specificity", "auroc"]].tolist() == [
            held_out - 1, held_out - 1, 1, held_out
        ]  # fmt: skip
        assert own["value"].notna().all()
        assert own["value"].between(0, 1).all()


@pytest.mark.parametrize("model", MODELS)
def test_the_sums_of_the_calibration_count_every_labelled_voxel_once(
    files: StudyPaths, model: tuple[str, str]
) -> None:
    held_out = read_json(files.splits)["target"]["held_out"]
    table = pd.read_csv(files.evaluation_folder(*model) / "reliability.csv")
    assert set(table.case) == set(held_out)
    assert (table.positive <= table.n).all()
    assert (table.sum_p2 <= table.sum_p + 1e-6).all()
    assert (table.sum_p <= table.n + 1e-6).all()
    sums = table.groupby(["case", "region", "zone"])[["n", "positive", "sum_p"]].sum()
    for case in held_out:
        reference = np.asanyarray(nib.load(files.references / f"{case}.nii.gz").dataobj)
        for region in REGIONS:
            labelled = region_mask(reference, region).sum()
            head, near = sums.loc[(case, region, "head")], sums.loc[(case, region, "near")]
            assert head.positive == near.positive == labelled
            assert near.n <= head.n
            assert near.sum_p <= head.sum_p + 1e-6
        assert sums.loc[(case, slice(None), "head"), "n"].nunique() == 1, "every region counts the same head"


def test_the_report_says_what_is_found_at_the_operating_point(checkout: RealCheckout, files: StudyPaths) -> None:
    folder = checkout.root / "reports" / "smoke"
    page = BeautifulSoup((folder / "index.html").read_text(), "html.parser")
    section = page.find(id="detection").parent
    assert "were frozen in operating_point.json" in section.get_text()
    table = pd.read_csv(files.statistics / "detection_at_operating_point.csv")
    rows = section.table.tbody("tr")
    assert len(rows) == len(table[table["size"] == "all"])
    shown = section.table.get_text()
    for line in table[table["size"] == "all"].itertuples():
        assert f"{line.sensitivity:.3f}" in shown
        assert f"{line.found:.0f} of {line.lesions:.0f}" in shown
        assert f"{line.false:.0f} in {line.cases}" in shown
    assert section.find("img", src="figures/froc.png")["alt"]
    links = {link["href"] for link in section("a")}
    assert {"tables/froc.csv", "tables/patient_level.csv", "tables/paired_detection.csv"} <= links
    assert all((folder / link).is_file() for link in links)


def test_notebook_09_screens_the_next_patient_after_the_study(checkout: RealCheckout, files: StudyPaths) -> None:
    """With the best model whose operating point accepts anything; where none does it says so and screens nobody."""
    points = thaw(files.operating_point, files.work).points
    usable = [model for model in read_best_models(files.best_model) if math.isfinite(points[model].threshold)]
    ended = checkout.run("notebook", "09", "params/smoke.yaml")
    if not usable:
        assert ended.returncode == 1 and "no model whose operating point accepts anything" in ended.stderr
        return
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (folder,) = (path.parent for path in files.screened.glob("*/screening.json"))
    found = read_result(folder)
    assert (found.record["model"]["arm"], found.record["model"]["strategy"]) == usable[0]
    assert found.record["model"]["sha256"] == sha256(files.bundle)
    assert found.record["input"]["kind"] == "dicom"
    assert len(found.table) == found.record["lesions"] + found.record["candidates"]
    written = read_json(files.screening / "screening.json")
    assert written["read"] == folder.name and written["not_decided"] == found.table["lesion"].tolist()
    assert not ScreeningPaths(folder).reading.exists()
    cells = nbformat.read(files.runs / "09_screening.ipynb", 4).cells
    said = "".join(output.get("text", "") for output in cells[-1].outputs)
    assert said == f"{len(found.table)} candidate{'s' * (len(found.table) != 1)} not decided\n"
    secret = [word for word in secrets(1) for path in folder.rglob("*.json") if word in path.read_text()]
    assert secret == []
