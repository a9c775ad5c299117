"""A small finished study that can be bundled: models of one step each, with scores and candidates made by hand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from detection_examples import make_detections
from small_study import ARMS

from brainmets.cohorts import splits
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.provenance import Provenance
from brainmets.scoring.candidates import FILES, write_detections
from brainmets.statistics import operating_point
from brainmets.statistics.descriptive import describe
from brainmets.tables import write as write_table
from brainmets.training.session import prepare
from brainmets.vocabulary import SCORE_COLUMNS

PARAMS = Path(__file__).resolve().parents[2] / "params"
STEP = {"epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1, "precision": "nnunet"}
STRATEGY = "scratch"


def parameters(
    work: Path,
    arms: Sequence[str] = tuple(ARMS),
    folds: Sequence[int] = (0,),
    name: str = "small",
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Those of a study ``name`` below ``work``; ``settings``: further ones of every arm."""
    content: dict[str, Any] = yaml.safe_load((PARAMS / "smoke.yaml").read_text())
    content |= {"study": name, "work_dir": str(work), "arms": {arm: {**ARMS[arm], **(settings or {})} for arm in arms}}
    content |= {"folds": list(folds)}
    for section in ("pretraining", "fine_tuning", "from_scratch"):
        content[section] = {**content[section], **STEP}
    return content


def make(
    small: StudyPaths,
    work: Path,
    arms: Sequence[str] = tuple(ARMS),
    folds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """A copy of ``small`` below ``work``, finished in the strategy "scratch"; ``settings``: of every arm."""
    study = Study(parameters(work, arms, folds, small.study, settings), "params/yours.yaml")
    files = StudyPaths(str(work), small.study)
    shutil.copytree(small.work, files.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    for arm in arms:
        for fold in folds:
            train(study, files, arm, fold)
        evaluate(study, files, arm)
    finish(study, files)
    return study


def train(study: Study, files: StudyPaths, arm: str, fold: int) -> None:
    """What notebook 05 does."""
    p: Any = study.notebook("05_from_scratch", arm=arm, fold=fold, strategy=STRATEGY)
    provenance = Provenance("05_from_scratch", p.model_dump(mode="json"), root=files.work)
    session = prepare(files, p, STRATEGY, lambda line: None)
    session.run(lambda line: None)
    model = files.checkpoint(STRATEGY, arm, fold)
    provenance.write(files.training(STRATEGY, arm, fold), [files.splits], [model], **session.results())


def evaluate(study: Study, files: StudyPaths, arm: str) -> None:
    """What notebook 06 leaves, with made-up scores and candidates of the real cases."""
    model, split = (arm, STRATEGY), splits.read(files, "target")
    folder, apart = files.evaluation_folder(*model), files.cross_validation_folder(*model)
    (case,) = split["held_out"]
    write_table(files.scores(*model), scores(model, [case]))
    write_detections(folder, make_detections([case], [(case, 80.0, 0.9), (case, 900.0, 0.2)], [], model=model))
    (first, *_) = trained_on = split["folds"][0]["val"]
    lesions, false = [(first, 100.0, 0.8), (first, 40.0, 0.4)], [(first, 0.3, 60.0)]
    write_table(apart / "scores.csv", scores(model, trained_on))
    write_detections(apart, make_detections(trained_on, lesions, false, model=model))
    p = study.notebook("06_evaluation", arm=arm, strategy=STRATEGY).model_dump(mode="json")
    inputs = [files.checkpoint(STRATEGY, arm, fold) for fold in study.folds]
    Provenance("06_evaluation", p, root=files.work).write(files.evaluation(*model), inputs, [folder, apart])


def scores(model: tuple[str, str], cases: Sequence[str]) -> pd.DataFrame:
    """Dice 0.8 and HD95 2 mm of every region of every case."""
    values = {"dice": 0.8, "hd95": 2.0, "reference_volume": 1.0, "predicted_volume": 1.0}
    units = {"dice": "1", "hd95": "mm", "reference_volume": "mL", "predicted_volume": "mL"}
    rows = [
        (*model, case, region, metric, value, units[metric])
        for case in cases
        for region in ("ET", "TC", "WT")
        for metric, value in values.items()
    ]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def finish(study: Study, files: StudyPaths) -> None:
    """What notebook 07 leaves."""
    models = [(arm, STRATEGY) for arm in study.arms]
    held_out, out = splits.read(files, "target")["held_out"], files.statistics
    p: Any = study.notebook("07_statistics")
    aim = operating_point.Aim(**p.detection.model_dump())
    chosen = operating_point.read_cross_validated(files, models)
    points = [operating_point.choose(one, model, aim, held_out) for model, one in chosen.items()]
    chose = {model: one.cases for model, one in chosen.items()}
    frozen = operating_point.freeze(
        files.operating_point, aim, points, chose, operating_point.cross_validated_tables(files, models), files.work
    )
    applied = {
        model: operating_point.apply(frozen, files.work, operating_point.read_detections(
            files.evaluation_folder(*model), held_out), model)
        for model in models
    }  # fmt: skip
    write_table(out / "detection_at_operating_point.csv", operating_point.detection(applied, p.alpha, {}))
    every = pd.concat([scores(model, held_out) for model in models])
    write_table(out / "descriptive.csv", describe(every, p.alpha))
    inputs = [files.scores(*model) for model in models]
    inputs += [files.evaluation_folder(*model) / name for model in models for name in FILES]
    Provenance("07_statistics", p.model_dump(mode="json"), root=files.work).write(
        out / "statistics.json", inputs, [out]
    )
