"""A study of a few coarse phantoms, audited and planned, for tests that train."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from brainmets.cohorts import splits
from brainmets.cohorts.cohort import find_cases, write_manifest, write_mapped_labels
from brainmets.params import Cohort, Training, own_plans
from brainmets.paths import StudyPaths
from brainmets.phantoms import sites
from brainmets.training import plans
from brainmets.vocabulary import SEQUENCES

ARMS: dict[str, Any] = {
    "default": {"learning_rate": 0.01},
    "tversky_bce": {"learning_rate": 0.01, "alpha": 0.3, "beta": 0.7, "positive_weight": 11.0},
    "segresnet": {"learning_rate": 0.0001, "weight_decay": 0.00001, "filters": 8},
}
RESENC: dict[str, Any] = {"default": ARMS["default"], "default_resenc": {"learning_rate": 0.01}}
"""Arms of which one has a plan of its own, see ``with_own_plans``."""
TARGET_LAYOUT = {
    "t1n": "{case}/{case}_T1.nii.gz",
    "t1c": "{case}/{case}_T1GD.nii.gz",
    "t2w": "{case}/{case}_T2.nii.gz",
    "t2f": "{case}/{case}_FLAIR.nii.gz",
    "label": "{case}/{case}_LABEL.nii.gz",
}


def source_cohort(folder: Path, patients: int = 3, spacing_mm: float = 5.0) -> Cohort:
    """A phantom source cohort, made in ``folder``."""
    sites.make_cohort(folder, "source", patients, spacing_mm, seed=1)
    label_map = {1: "netc", 2: "snfh", 3: "et"}
    return Cohort(folder=str(folder), layout="brats", label_map=label_map, held_out=0)


def target_cohort(folder: Path, patients: int = 5, spacing_mm: float = 5.0) -> Cohort:
    """A phantom target cohort, made in ``folder``, with one case held out."""
    sites.make_cohort(folder, "target", patients, spacing_mm, seed=2)
    label_map = {1: "snfh", 2: "netc", 3: "et", 4: "netc"}
    return Cohort(folder=str(folder), layout=TARGET_LAYOUT, label_map=label_map, held_out=1)


def ingest(
    files: StudyPaths,
    source: Cohort,
    target: Cohort,
    gpu_memory_gb: float,
    base_features: int = 4,
    sequences: Sequence[str] = SEQUENCES,
) -> None:
    """What notebooks 01 and 02 do to the files of a study, without their tables.

    ``sequences`` are the target's; the source has its own where it declares them.
    """
    split = {}
    for name, declaration in (("source", source), ("target", target)):
        channels = declaration.sequences or sequences
        cases = find_cases(declaration, channels)
        patients = {case.case: case.patient for case in cases}
        split[name] = splits.split_cohort(patients, declaration.held_out, 2, seed=1)
        write_manifest(files.manifest(name), cases, channels)
        for case in cases:
            held_out = case.case in split[name]["held_out"]
            write_mapped_labels(case, declaration, files.held_out_labels(name) if held_out else files.labels(name))
        plans.write_dataset(files, name, {case.case: case for case in cases}, split[name])
        plans.extract_fingerprint(files, name, workers=1)
    splits.write(files, split)
    plans.plan_target(files, gpu_memory_gb, base_features)
    plans.move_plan_to_source(files)
    for name in split:
        plans.preprocess(files, name, workers=1)


def with_own_plans(files: StudyPaths, arms: Iterable[str], folder: Path) -> StudyPaths:
    """A copy in ``folder`` of a study without its trainings, with the plans that ``arms`` need beside the U-Net's."""
    copied = StudyPaths(str(folder), Path(files.work).name)
    shutil.copytree(files.work, copied.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    for name in own_plans(arms):
        plans.plan_target(copied, 0.02, 4, name)
        plans.move_plan_to_source(copied, name)
        plans.require_aligned(plans.compare_plans(copied, name))
        plans.require_shared_images(copied, name)
    for cohort in plans.DATASETS:
        plans.record(copied, cohort)
    return copied


def training_parameters(model: type[Training], files: StudyPaths, **changed: Any) -> Any:
    """Parameters of a training of three epochs of two steps; ``changed`` replaces any of them."""
    values: dict[str, Any] = {
        "study": files.study,
        "work_dir": files.work_dir,
        "seed": 1,
        "arms": ARMS,
        "arm": "default",
        "fold": 0,
        "epochs": 3,
        "iterations_per_epoch": 2,
        "validation_iterations": 1,
        "precision": "nnunet",
        "augmentation_workers": 0,
    }
    if "transfer_head" in model.model_fields:
        values |= {"transfer_head": True, "warmup_epochs": 0, "transferred_rate": 1.0, "freeze_encoder_epochs": 0}
    main = {"repeat": 1, "training_cases": None, "strategy": "scratch"}
    values |= {name: value for name, value in main.items() if name in model.model_fields}
    return model(**{**values, **changed})
