"""Notebook 07 executed: on the paper's released files, and on tables that a small study would leave."""

import json
import math
from pathlib import Path

import pandas as pd
import papermill
import pytest
from decided import rule
from detection_examples import make_detections
from reliability_examples import example_sums, write_sums
from score_examples import example_lesions, example_scores, write_study

from brainmets import tables
from brainmets.cohorts import splits
from brainmets.cohorts.cohort import Case, write_manifest
from brainmets.params import ParameterError, Statistics
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.provenance import Provenance
from brainmets.scoring.candidates import write_detections
from brainmets.statistics.comparisons import TEST_COLUMNS, read_tests
from brainmets.statistics.declared import declare
from brainmets.statistics.fairness import COMPARISONS
from brainmets.vocabulary import SEQUENCES, STRATEGIES

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK, PARAMS = REPOSITORY / "notebooks" / "07_statistics.ipynb", REPOSITORY / "params"
TABLES = (
    *("descriptive.csv", "normality.csv", "undefined.csv", "power.csv", "volume_agreement.csv"),
    *("detection_by_size.csv", "false_positives.csv", "empty_references.csv", "cross_validated_descriptive.csv"),
    "decision.csv",
    *("calibration.csv", "reliability_bins.csv", "uncertainty.csv"),
)


def execute(tmp_path: Path, scores_dir: Path | None, **parameters: object) -> tuple[Path, dict]:
    """The results' folder and statistics.json."""
    out = tmp_path / "results"
    values = {
        "study": "test",
        "work_dir": str(tmp_path / "work"),
        "n_bootstrap": 1000,
        "out_dir": str(out),
        **parameters,
    }
    if scores_dir is not None:
        values["scores_dir"] = str(scores_dir)
    papermill.execute_notebook(NOTEBOOK, tmp_path / "executed.ipynb", values, progress_bar=False)
    out = tmp_path / "work" / "test" / "statistics" if values["out_dir"] is None else out
    for name in TABLES:
        pd.read_csv(out / name)
    for name in ("finetune_vs_scratch.csv", "arms_pairwise.csv"):
        assert list(read_tests(out / name).columns) == TEST_COLUMNS
    results = json.loads((out / "statistics.json").read_text())
    for entry in results["figures"]:
        assert (out / entry["file"]).stat().st_size > 1000
    assert (out / "conclusion.txt").read_text().strip() == results["conclusion"]
    return out, results


@pytest.mark.real
def test_on_the_released_scores(real_data: Path, tmp_path: Path) -> None:
    out, results = execute(tmp_path, real_data / "reference" / "scores")
    assert len(results["cases"]) == 10
    assert len(results["provenance"]["inputs"]) == 6
    assert "printed in the paper" not in results["conclusion"], "that has a notebook of its own"
    assert not (out / "printed_vs_recomputed.csv").exists()
    assert not {"detection_by_size.png", "froc.png", "reliability.png"} & {
        entry["file"] for entry in results["figures"]
    }
    assert pd.read_csv(out / "froc.csv").empty
    assert pd.read_csv(out / "calibration.csv").empty
    assert pd.read_csv(out / "uncertainty.csv").empty
    said = (tmp_path / "executed.ipynb").read_text()
    assert "no probabilities were kept beside these scores" in said
    assert not (out / "operating_point.json").exists(), "tables from elsewhere choose nothing"


def write_candidates(folder: Path, scores: pd.DataFrame) -> None:
    """Two lesions in every case but the last, of 4 mm and 12 mm; scratch misses the small one; one false candidate."""
    cases = sorted({*scores["case"]})
    for arm, strategy in scores[["arm", "strategy"]].drop_duplicates().itertuples(index=False):
        small = 0.6 if strategy == "finetune" else -math.inf
        lesions = [(case, volume, score) for case in cases[:-1] for volume, score in ((34.0, small), (900.0, 0.9))]
        found = make_detections(cases, lesions, [(cases[0], 0.5, 50.0)], model=(arm, strategy))
        write_detections(folder / arm / strategy, found)


def evaluated(work: Path, branch: str, scores: pd.DataFrame) -> None:
    """What notebook 06 leaves of a branch ("" is the study itself)."""
    write_study(work / branch / "evaluation", scores, example_lesions(scores))
    write_candidates(work / branch / "evaluation", scores)
    excess = {strategy: 0.04 * (strategy != "finetune") for strategy in sorted({*scores["strategy"]})}
    sums = example_sums(sorted({*scores["case"]}), sorted({*scores["arm"]}), excess)
    write_sums(work / branch / "evaluation", sums)
    for arm, strategy in scores[["arm", "strategy"]].drop_duplicates().itertuples(index=False):
        folder = work / branch / "evaluation" / arm / strategy
        record = Provenance("06_evaluation", {"study": work.name, "arm": arm, "strategy": strategy}, root=work)
        record.write(folder / "evaluation.json", outputs=[folder])


def small_study(work: Path, n_cases: int, beside: bool = False) -> None:
    """What notebooks 01 and 06 leave: held-out scores, those of four training cases, and whose scan each case is.

    ``beside``: also a second repeat, models of two training cases, a scratch control, and the source's held-out cases.
    """
    scores = example_scores(n_cases)
    source = ["source_1", "source_2", "source_3"]
    held_out_source = source[:2] if beside else []
    if beside:
        evaluated(work, "repeat_2", example_scores(n_cases, gain=0.03, seed=2))
        evaluated(work, "cases_2", example_scores(n_cases, gain=0.01, seed=3))
        of_source = example_scores(2, seed=4).replace({"case00": "source_1", "case01": "source_2"})
        write_study(work / "forgetting", of_source.replace({"strategy": {"scratch": "pretrained"}}))
        scores = pd.concat([scores, scores[scores["strategy"] == "scratch"].assign(strategy="scratch_control")])
    evaluated(work, "", scores)
    training = example_scores(4, seed=1)
    training["case"] = "training_" + training["case"]
    if beside:
        training = pd.concat(
            [training, training[training["strategy"] == "scratch"].assign(strategy="scratch_control")]
        )
    write_study(work / "cross_validation", training)
    write_candidates(work / "cross_validation", training)
    held_out, others = sorted({*scores["case"]}), sorted({*training["case"]})
    cases = sorted([*held_out, *others])
    audited = pd.DataFrame({"case": cases, "patient": cases, "held_out": [case in held_out for case in cases]})
    audited = audited.assign(shape="9x9x9", spacing_mm="1x1x1", orientation="RAS", lesions=2)
    tables.write(work / "audit" / "target" / "cases.csv", audited.assign(ET_mL=0, TC_mL=0, WT_mL=5, RC_mL=0))
    label = work / "label.nii.gz"
    label.write_bytes(b"of every case")
    files = StudyPaths(str(work.parent), work.name)
    of_cases = [Case(case, case, dict.fromkeys(SEQUENCES, label), label) for case in cases]
    write_manifest(files.manifest("target"), of_cases, SEQUENCES)
    folds = [splits.FoldCases(train=others[:2], val=others[2:]), splits.FoldCases(train=others[2:], val=others[:2])]
    of_source = [Case(case, case, dict.fromkeys(SEQUENCES, label), label) for case in source]
    write_manifest(files.manifest("source"), of_source, SEQUENCES)
    rest = [case for case in source if case not in held_out_source]
    source_split = splits.Split(held_out=held_out_source, folds=[splits.FoldCases(train=rest, val=[])])
    splits.write(files, {"source": source_split, "target": splits.Split(held_out=held_out, folds=folds)})
    study = {"study": work.name}
    Provenance("01_data_audit", study, work).write(work / "audit" / "audit.json", outputs=[work / "audit"])


@pytest.mark.parametrize("n_cases", [2, 6])
def test_on_a_small_study(tmp_path: Path, n_cases: int) -> None:
    files = StudyPaths(str(tmp_path / "work"), "test")
    if n_cases == 6:  # declared as the study starts
        declared = Study.read(PARAMS / "demo.yaml").notebook("07_statistics")
        declare(files, declared.decision, declared.detection)  # type: ignore[attr-defined]
    small_study(files.work, n_cases)
    out, results = execute(tmp_path, None, out_dir=None)
    decision = json.loads((out / "decision.json").read_text())
    assert results["decision"] == decision
    if n_cases == 2:
        assert (decision["declared"]["when"], decision["verdict"]) == ("after", "too few patients")
        opening = "Exploratory only, because the rule was first recorded after results were there: "
    else:
        assert (decision["declared"]["when"], decision["verdict"]) == ("before training", "superior")
        opening = "By the rule declared before the first training, judged by the overlap in the tumour core, "
    assert results["answer"][0].startswith(opening)
    assert "declared.json" in results["provenance"]["inputs"]
    training = pd.read_csv(out / "cross_validated_descriptive.csv")
    assert set(training["n"]) == {4}
    assert not {"ci_low", "p_value"} & set(training.columns), "folds share cases"
    assert read_tests(out / "against_pretrained.csv").empty
    assert len(results["answer"]) <= 5
    detection = pd.read_csv(out / "detection_by_size.csv").set_index(["arm", "strategy", "region", "bin"])
    assert detection.loc[("default", "scratch", "WT", "tiny"), "sensitivity"] == 0
    assert detection.loc[("default", "finetune", "WT", "tiny"), "detected"] == n_cases
    assert len(results["figures"]) == 9
    screening(out, n_cases)
    assert results["figures"][0]["file"] == "decision.png"
    probabilities(out, n_cases)
    assert len(results["detection"]) == 6
    assert ("no outcome could have reached" in results["conclusion"]) is (n_cases == 2)
    assert all(not name.startswith("/") for name in results["provenance"]["inputs"])
    assert results["luck"].startswith("Every model was trained once")
    assert results["worth"].startswith("No learning curve was made")
    assert "has no scratch control" in results["fairness"]
    assert results["forgetting"].startswith("No held-out case of the source was scored")


def test_on_a_study_with_repeats_a_curve_a_control_and_held_out_source_cases(tmp_path: Path) -> None:
    work = tmp_path / "work" / "test"
    small_study(work, 6, beside=True)
    out, results = execute(tmp_path, None, out_dir=None, repeats=2, learning_curve=[2], strategies=[*STRATEGIES])
    assert results["luck"].startswith("Over 2 trainings of every model")
    assert "cases" in results["worth"]
    assert "stands a scratch control" in results["fairness"]
    assert results["forgetting"].startswith("On the source's held-out cases")
    said = " ".join(results[name] for name in ("fairness", "luck", "worth", "forgetting"))
    assert results["conclusion"].endswith(f"\n\n{said}")
    assert [entry["file"] for entry in results["figures"]][-2:] == ["repeats.png", "learning_curve.png"]
    assert json.loads((out / "worth.json").read_text())["sentence"] == results["worth"]
    assert set(pd.read_csv(out / "fairness.csv")["comparison"]) == set(COMPARISONS.values())
    assert pd.read_csv(out / "forgetting.csv")["n_patients"].eq(2).all()
    assert "repeat_2/evaluation/default/scratch/scores.csv" in results["provenance"]["inputs"]


def test_arms_are_compared_in_small_lesions_over_the_repeats(tmp_path: Path) -> None:
    """Every fine-tuned model finds the five small lesions, none from scratch does: arms are alike."""
    small_study(tmp_path / "work" / "test", 6, beside=True)
    asked = {"baseline": "default", "below_mm": 5.0, "false_positives": 1.0, "alpha": 0.05}
    out, results = execute(tmp_path, None, out_dir=None, repeats=2, small_lesions=asked)
    table = pd.read_csv(out / "small_lesions.csv")
    small = table[(table["size"] == "<5 mm") & (table["at"] == "false positives a patient")].set_index("strategy")
    assert small.loc["finetune", "sensitivity"].tolist() == [1, 1, 1]
    assert small.loc["scratch", "sensitivity"].tolist() == [0, 0, 0]
    assert small.loc["finetune", "verdict"].tolist() == ["baseline", "not shown", "not shown"]
    assert set(table["lesions"]) == {5, 10}
    assert len(pd.read_csv(out / "small_lesions_repeats.csv")) == 3 * 2 * 2 * 2
    assert len(results["small_lesions"]) == 3
    assert " ".join(results["small_lesions"]) in results["conclusion"]
    assert "small_lesions.png" in [entry["file"] for entry in results["figures"]]
    assert "repeat_2/evaluation/default/finetune/candidates.csv" in results["provenance"]["inputs"]


def probabilities(out: Path, n_cases: int) -> None:
    """Scratch is too sure by 0.04 in bins that hold half of the voxels near lesions; both doubt by 0.5 alike."""
    calibrated = pd.read_csv(out / "calibration.csv").set_index(["arm", "strategy", "region", "zone"])
    assert calibrated.loc[("default", "scratch", "TC", "near"), "ece"] == pytest.approx(0.02)
    assert calibrated.loc[("default", "finetune", "TC", "near"), "ece"] == pytest.approx(0, abs=1e-9)
    assert set(calibrated["patients"]) == {n_cases}
    assert (out / "reliability.png").exists()
    doubt = pd.read_csv(out / "uncertainty.csv").set_index(
        ["arm", "strategy", "region", "hit", "question", "predictor"]
    )
    false = doubt.loc[("default", "finetune", "TC", "one_to_one", "false", "uncertainty")]
    assert (false["events"], false["auroc"]) == (1, 0.5)
    missed = doubt.loc[("default", "scratch", "TC", "one_to_one", "missed", "uncertainty")]
    assert missed["without_candidate"] == n_cases - 1
    assert missed["note"] == "no lesion that a candidate reaches is missed: no AUROC"


def screening(out: Path, n_cases: int) -> None:
    """At the points chosen on the training cases scratch finds one lesion of two; the last case is free of lesions."""
    froc = pd.read_csv(out / "froc.csv").set_index(["arm", "strategy", "size", "at"])
    assert froc.loc[("default", "finetune", "all", "mean"), "sensitivity"] == 1
    assert froc.loc[("default", "scratch", "3-5 mm", "8"), "sensitivity"] == 0
    assert set(froc["cases"]) == {n_cases}
    assert not pd.read_csv(out / "froc_curves.csv").empty
    points = json.loads((out / "operating_point.json").read_text())["points"]
    assert len(points) == 6
    assert {point["threshold"] for point in points} == {0.6, 0.9}
    at_point = pd.read_csv(out / "detection_at_operating_point.csv").set_index(["arm", "strategy", "size"])
    assert at_point.loc[("default", "scratch", "all"), "sensitivity"] == 0.5
    patients = pd.read_csv(out / "patient_level.csv").set_index(["arm", "strategy", "measure"])
    assert patients.loc[("default", "finetune", "specificity"), "value"] == 1
    assert patients.loc[("default", "scratch", "all_found"), "value"] == 0
    differences = pd.read_csv(out / "paired_detection.csv").set_index(["first", "measure", "size"])
    assert differences.loc[("mean over arms", "sensitivity", "all"), "difference"] == 0.5
    assert pd.read_csv(out / "detection_by_covariate.csv").empty


def test_what_is_known_of_the_patients(tmp_path: Path) -> None:
    """A table of covariates has its rows, of the held-out cases alone; one with an unknown case is refused."""
    small_study(tmp_path / "work" / "test", 6)
    known = tmp_path / "known.csv"
    known.write_text("case,scanner\ncase00,A\ncase01,A\ncase02,B\ntraining_case00,B\n")
    out, results = execute(tmp_path, None, out_dir=None, covariates=str(known))
    table = pd.read_csv(out / "detection_by_covariate.csv")
    assert set(table["level"]) == {"A", "B", "(not given)"}
    assert set(table["family"]) == {"exploratory"}
    assert any(name.endswith("known.csv") for name in results["provenance"]["inputs"])
    known.write_text("case,scanner\nsomebody,A\n")
    with pytest.raises(papermill.PapermillExecutionError, match="none of the study's 10"):
        execute(tmp_path, None, out_dir=None, covariates=str(known))


def test_a_table_that_is_not_what_its_step_wrote_stops_the_statistics(tmp_path: Path) -> None:
    small_study(tmp_path / "work" / "test", 2)
    cut = tmp_path / "work" / "test" / "evaluation" / "default" / "scratch" / "lesions.csv"
    cut.write_text("".join(cut.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(papermill.PapermillExecutionError) as error:
        execute(tmp_path, None, out_dir=None)
    assert error.value.evalue.startswith(
        "evaluation/default/scratch/lesions.csv has 3 rows, 4 were written: run brainmets notebook 06_evaluation "
        "PARAMS arm=default strategy=scratch again"
    )
    assert not (tmp_path / "work" / "test" / "statistics").exists()


def test_a_bootstrap_of_few_resamples_is_refused() -> None:
    values = {"study": "s", "work_dir": "w", "scores_dir": None, "out_dir": None, "alpha": 0.05, "seed": 1}
    values |= {"detection": {"region": "TC", "hit": "overlap", "false_positives": 1.0}, "covariates": None}
    values["decision"] = rule()
    values |= {"repeats": 1, "learning_curve": [], "strategies": ["finetune"], "small_lesions": None}
    assert Statistics(**values, n_bootstrap=1000).n_bootstrap == 1000
    with pytest.raises(ParameterError, match="n_bootstrap"):
        Statistics(**values, n_bootstrap=999)


def test_on_one_strategy(tmp_path: Path) -> None:
    scores = example_scores(3)
    write_study(tmp_path / "tables", scores[scores["strategy"] == "scratch"])
    out, results = execute(tmp_path, tmp_path / "tables")
    assert read_tests(out / "finetune_vs_scratch.csv").empty
    assert "cannot be compared" in results["conclusion"]
    assert len(results["answer"]) == 1
    shown = {entry["file"] for entry in results["figures"]}
    assert (
        shown
        == {path.name for path in out.glob("*.png")}
        == {"mean_dice.png", "mean_hd95.png", "volume_agreement.png"}
    )


def test_on_a_study_that_lacks_one_model(tmp_path: Path) -> None:
    scores = example_scores(8)
    gone = (scores["arm"] == "segresnet") & (scores["strategy"] == "scratch")
    write_study(tmp_path / "tables", scores[~gone])
    _, results = execute(tmp_path, tmp_path / "tables")
    words = "SegResNet is left out wherever strategies are compared, having no scores of a model trained from scratch"
    assert words in results["conclusion"]
    assert results["answer"][0].startswith(
        "Exploratory only, because it is not known when the rule was declared: judged"
    )
    assert words in results["answer"][2]
    assert "mean of Default and Tversky + BCE, 8 cases" in results["answer"][2]
    assert len(results["answer"]) == 4
    assert len(results["provenance"]["inputs"]) == 5
