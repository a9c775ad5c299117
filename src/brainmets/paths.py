"""Where a study keeps its files. No other module spells a path below ``work/`` or ``reports/``."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from brainmets.files import numbered

NOTEBOOKS: tuple[str, ...] = (
    "00_preparation",
    "01_data_audit",
    "02_plan_alignment",
    "03_pretraining",
    "04_fine_tuning",
    "05_from_scratch",
    "06_evaluation",
    "07_statistics",
    "08_case_review",
)
AFTER: tuple[str, ...] = ("09_screening",)
"""Notebooks that need a finished study and are no step of it: a study ends before the next patient comes."""
COHORTS: tuple[str, ...] = ("source", "target")


def project_root() -> Path:
    """The checkout around the current folder: the nearest folder upwards that holds ``notebooks/`` and ``params/``.

    ``BRAINMETS_ROOT`` overrides the search. Raises ``FileNotFoundError`` where there is none, saying what to do.
    """
    chosen = os.environ.get("BRAINMETS_ROOT")
    if chosen:
        return Path(chosen).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    raise FileNotFoundError(
        f"{here} lies in no BrainMets checkout (a folder with notebooks/ and params/): "
        "change into the checkout, or set BRAINMETS_ROOT to it"
    )


def resolve(path: str | Path) -> Path:
    """An absolute path as it is; a relative one (and ``~``) read from the checkout, wherever the notebook runs."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else project_root() / path


@dataclass(frozen=True)
class PreparationPaths:
    """What the preparation of one cohort's raw scans keeps beside the cohort, private to the user."""

    folder: Path

    @property
    def key(self) -> Path:
        """``key.csv``: who is who: patient, date, case. Delete it, and nobody can tell."""
        return self.folder / "key.csv"

    @property
    def series(self) -> Path:
        """``series.csv``: every series of every scan, what it was taken for and why; a person's ``role`` rules."""
        return self.folder / "series.csv"

    @property
    def plan(self) -> Path:
        """``plan.json``: where each case's raw files lie; written last by the sorting."""
        return self.folder / "plan.json"

    @property
    def findings(self) -> Path:
        """``findings.csv``: what is wrong with the raw data or unusual: severity, case, series, text."""
        return self.folder / "findings.csv"

    @property
    def quality(self) -> Path:
        """``quality.html``: the page on which a failed registration is seen."""
        return self.folder / "quality.html"

    @property
    def quality_table(self) -> Path:
        """``quality.csv``: the numbers behind it, one row per case."""
        return self.folder / "quality.csv"

    @property
    def flags(self) -> Path:
        """``flags.csv``: what is unusual or wrong among the prepared cases, in words."""
        return self.folder / "flags.csv"

    def case(self, case: str) -> Path:
        """Transforms, brain mask and pictures of one case."""
        return self.cases / case

    @property
    def cases(self) -> Path:
        """The folder that holds every case's."""
        return self.folder / "cases"

    def prepared(self, case: str) -> Path:
        """``prepared.json``: numbers and provenance of one case; written last."""
        return self.case(case) / "prepared.json"


@dataclass(frozen=True)
class ScreeningPaths:
    """Every file of one screened scan, below ``folder``, which is the user's own. Images lie on the source t1c's grid.

    The page, the record and the tables are there where the guard refused; the images are not.
    """

    folder: Path

    @property
    def case(self) -> str:
        """The scan's name: that of its folder."""
        return self.folder.name

    @property
    def record(self) -> Path:
        """``screening.json``: what was found, by which model, what the guard said, provenance; written last."""
        return self.folder / "screening.json"

    @property
    def page(self) -> Path:
        """``index.html``: the page for a reader, in one file."""
        return self.folder / "index.html"

    @property
    def labels(self) -> Path:
        """``labels.nii.gz``: the label map (uint8, BraTS labels)."""
        return self.folder / "labels.nii.gz"

    @property
    def numbers(self) -> Path:
        """``lesions.nii.gz``: uint16, each voxel the number of its row in ``lesions.csv``, 0 elsewhere."""
        return self.folder / "lesions.nii.gz"

    @property
    def probabilities(self) -> Path:
        """``probabilities.nii.gz``: the regions' probabilities, as ``scoring.probabilities`` writes them."""
        return self.folder / "probabilities.nii.gz"

    @property
    def uncertainty(self) -> Path:
        """``uncertainty.nii.gz``: binary entropy of the operating point's region in bits (float32)."""
        return self.folder / "uncertainty.nii.gz"

    @property
    def t1c(self) -> Path:
        """``t1c.nii.gz``: the source t1c, for what is laid over it."""
        return self.folder / "t1c.nii.gz"

    @property
    def segmentation(self) -> Path:
        """``labels.seg.nrrd``: the label map for 3D Slicer."""
        return self.folder / "labels.seg.nrrd"

    @property
    def dicom_labels(self) -> Path:
        """``labels.dcm``: the label map as a DICOM segmentation of the source series; only of DICOM."""
        return self.folder / "labels.dcm"

    @property
    def dicom_lesions(self) -> Path:
        """``lesions.dcm``: a segment for each numbered lesion that was accepted; only of DICOM."""
        return self.folder / "lesions.dcm"

    @property
    def table(self) -> Path:
        """``lesions.csv``: one row per lesion and candidate, see ``schemas.SCREENED``."""
        return self.folder / "lesions.csv"

    @property
    def table_json(self) -> Path:
        """``lesions.json``: the same with the columns' meanings and units."""
        return self.folder / "lesions.json"

    @property
    def prepared(self) -> Path:
        """Folder of the prepared case that the model saw: ``<sequence>.nii.gz``, ``brain_mask.nii.gz``, ``*.tfm``."""
        return self.folder / "prepared"

    @property
    def reading(self) -> Path:
        """``reading.json``: what a reader decided of each candidate; beside the result, never over it."""
        return self.folder / "reading.json"

    @property
    def reading_lock(self) -> Path:
        """Held by whoever adds to the reading."""
        return self.folder / ".reading.lock"

    @property
    def reading_masks(self) -> Path:
        """Folder of the outlines that a reader drew, one file each, as they were taken over."""
        return self.folder / "reading_masks"

    @property
    def reading_labels(self) -> Path:
        """``reading_labels.nii.gz``: the label map of what the reader left."""
        return self.folder / "reading_labels.nii.gz"

    @property
    def reading_numbers(self) -> Path:
        """``reading_lesions.nii.gz``: the lesions' numbers of what the reader left."""
        return self.folder / "reading_lesions.nii.gz"

    @property
    def reading_table(self) -> Path:
        """``reading_lesions.csv``: one row per lesion that the reader left, see ``schemas.READ``."""
        return self.folder / "reading_lesions.csv"


@dataclass(frozen=True)
class FollowUpPaths:
    """Every file of one patient's follow-up, below ``folder``, which is the user's own."""

    folder: Path

    @property
    def record(self) -> Path:
        """``follow.json``: dates, registrations, lesions, events, categories, provenance; written last."""
        return self.folder / "follow.json"

    @property
    def table(self) -> Path:
        """``follow.csv``: one row per lesion and date, see ``schemas.FOLLOWED``."""
        return self.folder / "follow.csv"

    @property
    def page(self) -> Path:
        """``index.html``: the page for a reader, in one file."""
        return self.folder / "index.html"


@dataclass(frozen=True)
class StudyPaths:
    """Every file of one study, below ``<work_dir>/<study>/`` and ``reports/<study>/``.

    ``work_dir`` is read from the checkout when relative. ``stage`` is "pretraining", "finetune", "scratch" or
    "scratch_control"; ``strategy`` is "pretrained", "finetune", "scratch" or "scratch_control"; ``cohort`` is "source"
    or "target". ``beside`` is a branch's name ("repeat_2", "cases_5"), empty for the study itself: use ``branch``.
    """

    work_dir: str
    study: str
    beside: str = ""

    def branch(self, repeat: int = 1, training_cases: int | None = None) -> StudyPaths:
        """The same study's paths for trainings beside the main ones: another repeat, or fewer training cases.

        Trainings, evaluations, cross-validations and what is forgotten lie in a folder of the branch, everything else
        is the study's. ``repeat=1`` with all cases is the study itself, whatever branch these paths are of. Raises
        ``ValueError`` for both at once, which no study trains.

        >>> StudyPaths("/data", "demo").branch(repeat=2).scores("default", "scratch")
        PosixPath('/data/demo/repeat_2/evaluation/default/scratch/scores.csv')
        """
        if repeat != 1 and training_cases is not None:
            raise ValueError(
                f"repeat {repeat} with {training_cases} training cases: a branch of a study is another repeat of all "
                "cases, or fewer cases of repeat 1"
            )
        if training_cases is not None:
            return replace(self, beside=f"cases_{training_cases}")
        return replace(self, beside="" if repeat == 1 else f"repeat_{repeat}")

    @property
    def branch_folder(self) -> Path:
        """What is trained and evaluated lies below this: the study's folder, or the branch's in it."""
        return self.work / self.beside

    @property
    def work(self) -> Path:
        """Everything generated that is not the report."""
        return resolve(self.work_dir) / self.study

    @property
    def report(self) -> Path:
        """The folder to hand on: ``index.html`` and all it shows."""
        return project_root() / "reports" / self.study

    # 00 preparation
    def preparation(self, cohort: str) -> PreparationPaths:
        """What notebook 00 keeps of a cohort of raw scans."""
        return PreparationPaths(self.work / "preparation" / cohort)

    # 01 data audit
    def cases(self, cohort: str) -> Path:
        """``cases.csv``: one row per case: case, patient, shape, spacing, volumes, held_out."""
        return self.work / "audit" / cohort / "cases.csv"

    def findings(self, cohort: str) -> Path:
        """``findings.csv``: one row per remark of the audit: severity, rule, case, file, finding."""
        return self.work / "audit" / cohort / "findings.csv"

    def quarantined(self, cohort: str) -> Path:
        """``quarantined.csv``: the cases that the audit left out: case, rule, finding."""
        return self.work / "audit" / cohort / "quarantined.csv"

    def audit_page(self, cohort: str) -> Path:
        """``cases.html``: a picture of every case and what was found; it shows heads, and is never in a report."""
        return self.work / "audit" / cohort / "cases.html"

    def plausibility(self, cohort: str) -> Path:
        """``plausibility.csv``: the numbers that the audit judges each case by."""
        return self.work / "audit" / cohort / "plausibility.csv"

    def manifest(self, cohort: str) -> Path:
        """``manifest.json``: where each case's files lie; never in a report."""
        return self.work / "audit" / cohort / "manifest.json"

    def private(self, cohort: str) -> Path:
        """Folder of what holds names of a cohort with pseudonyms: the user's alone to enter."""
        return self.work / "private" / cohort

    def key(self, cohort: str) -> Path:
        """``key.csv``: whose case a pseudonym stands for."""
        return self.private(cohort) / "key.csv"

    def unusable(self, cohort: str) -> Path:
        """``unusable.txt``: why the cohort cannot be read as declared, with names; absent where it can."""
        return self.private(cohort) / "unusable.txt"

    def links(self, cohort: str) -> Path:
        """Folder of links to the cases' files, ``<pseudonym>_<sequence>.nii.gz``: the paths that later steps use."""
        return self.private(cohort) / "links"

    def labels(self, cohort: str) -> Path:
        """Folder of the training cases' label maps in BraTS labels, ``<case>.nii.gz``."""
        return self.work / "audit" / cohort / "labels"

    def images(self, cohort: str) -> Path:
        """Folder of the copies of images whose background was not 0; absent where there are none."""
        return self.work / "audit" / cohort / "images"

    @property
    def splits(self) -> Path:
        """``splits.json``: held-out cases and folds of both cohorts."""
        return self.work / "audit" / "splits.json"

    @property
    def audit(self) -> Path:
        """``audit.json``: provenance record of notebook 01; written last."""
        return self.work / "audit" / "audit.json"

    # 02 plan alignment
    @property
    def nnunet_raw(self) -> Path:
        """nnU-Net's raw folder (``dataset.json`` points at the cohorts' own images; labels are mapped copies)."""
        return self.work / "nnunet" / "raw"

    @property
    def nnunet_preprocessed(self) -> Path:
        """nnU-Net's preprocessed folder."""
        return self.work / "nnunet" / "preprocessed"

    @property
    def alignment(self) -> Path:
        """``alignment.json``: what both plans agree on; provenance of notebook 02; written last."""
        return self.work / "alignment" / "alignment.json"

    # 03-05 training
    def training_folder(self, stage: str, arm: str, fold: int) -> Path:
        """Checkpoints, nnU-Net's log and the parameters' fingerprint of one training.

        Where fewer of the target's cases are trained with, the pretraining is the study's own.
        """
        shared = stage == "pretraining" and self.beside.startswith("cases_")
        return (self.work if shared else self.branch_folder) / "training" / stage / arm / f"fold_{fold}"

    def checkpoint(self, stage: str, arm: str, fold: int) -> Path:
        """The finished model."""
        return self.training_folder(stage, arm, fold) / "checkpoint_final.pth"

    def training(self, stage: str, arm: str, fold: int) -> Path:
        """``training.json``: curves, device, seconds, checkpoint hash, provenance; written last."""
        return self.training_folder(stage, arm, fold) / "training.json"

    def left_out_training(self, stage: str, arm: str, fold: int) -> Path:
        """A new folder for a training that other parameters made: ``fold_<k>-1``, or the first number not taken."""
        return self.left_out(self.training_folder(stage, arm, fold))

    # 06 evaluation
    @property
    def evaluations(self) -> Path:
        """The folder that holds every (arm, strategy)'s evaluation."""
        return self.branch_folder / "evaluation"

    def evaluation_folder(self, arm: str, strategy: str) -> Path:
        """Predictions and tables of one (arm, strategy)."""
        return self.evaluations / arm / strategy

    def left_out(self, folder: Path) -> Path:
        """A new folder, numbered, for one of the study's or a branch's that it no longer has."""
        return numbered(self.work / "left_out" / folder.relative_to(self.work))

    def predictions(self, arm: str, strategy: str) -> Path:
        """Folder of predicted label maps, ``<case>.nii.gz`` on the case's original grid."""
        return self.evaluation_folder(arm, strategy) / "predictions"

    def probabilities(self, arm: str, strategy: str) -> Path:
        """Folder of the regions' probabilities behind the predictions, ``<case>.nii.gz`` on the same grid."""
        return self.evaluation_folder(arm, strategy) / "probabilities"

    def held_out_labels(self, cohort: str) -> Path:
        """Folder of the held-out cases' reference label maps in BraTS labels; absent where none is held out."""
        return self.work / "audit" / cohort / "references"

    @property
    def references(self) -> Path:
        """Those of the target's held-out cases, ``<case>.nii.gz``."""
        return self.held_out_labels("target")

    def scores(self, arm: str, strategy: str) -> Path:
        """``scores.csv``, long: arm, strategy, case, region, metric, value, unit."""
        return self.evaluation_folder(arm, strategy) / "scores.csv"

    def lesions(self, arm: str, strategy: str) -> Path:
        """``lesions.csv``: one row per reference or predicted lesion."""
        return self.evaluation_folder(arm, strategy) / "lesions.csv"

    def evaluation(self, arm: str, strategy: str) -> Path:
        """``evaluation.json``: provenance of notebook 06; written last."""
        return self.evaluation_folder(arm, strategy) / "evaluation.json"

    def subsets(self, arm: str, strategy: str) -> Path:
        """``subsets.csv``: the held-out scores by the set of sequences that was read, see ``schemas.SUBSETS``."""
        return self.evaluation_folder(arm, strategy) / "subsets.csv"

    def subset_predictions(self, arm: str, strategy: str) -> Path:
        """Folder of the predictions with fewer sequences, ``<set>/<case>.nii.gz``; absent where none were made."""
        return self.evaluation_folder(arm, strategy) / "subsets"

    def post_processing(self, arm: str, strategy: str) -> Path:
        """Folder of the held-out predictions after the chosen rules; absent where no rule may be chosen.

        ``choice.csv``, ``post_processing.json``, ``with_and_without.csv``, ``predictions/``; the scores of these are
        ``processed_scores.csv`` and ``processed_lesions.csv``, names that no reader of a study's own scores finds.
        """
        return self.evaluation_folder(arm, strategy) / "post_processing"

    # 06 evaluation, of the training cases: beside the held-out ones, where no reader of those finds them
    @property
    def cross_validations(self) -> Path:
        """The folder that holds every (arm, strategy)'s scores of the target's training cases."""
        return self.branch_folder / "cross_validation"

    def cross_validation_folder(self, arm: str, strategy: str) -> Path:
        """``predictions/``, ``probabilities/``, the tables of an evaluation; ``folds.csv``: who predicted what."""
        return self.cross_validations / arm / strategy

    # 06 evaluation, of the source's held-out cases: before and after fine-tuning
    @property
    def forgettings(self) -> Path:
        """The folder that holds every (arm, strategy)'s scores of the source's held-out cases."""
        return self.branch_folder / "forgetting"

    def forgetting_folder(self, arm: str, strategy: str) -> Path:
        """``predictions/``, ``scores.csv``, ``lesions.csv``, ``excluded.csv`` of the source's held-out cases."""
        return self.forgettings / arm / strategy

    # 07 statistics and 08 case review
    @property
    def declared(self) -> Path:
        """``declared.json``: the rule that decides the study, and when it was declared; written before any step."""
        return self.work / "declared.json"

    @property
    def declared_small_lesions(self) -> Path:
        """``declared_small_lesions.json``: the same of the comparison of arms in small lesions, if asked for."""
        return self.work / "declared_small_lesions.json"

    @property
    def statistics(self) -> Path:
        """Folder of notebook 07's tables, figures and ``statistics.json`` (written last)."""
        return self.work / "statistics"

    @property
    def best_model(self) -> Path:
        """``best_model.json``: the model that notebook 07 chose, by cross-validated scores alone."""
        return self.statistics / "best_model.json"

    @property
    def operating_point(self) -> Path:
        """``operating_point.json``: each model's, frozen by notebook 07, chosen on cross-validated cases alone."""
        return self.statistics / "operating_point.json"

    @property
    def review(self) -> Path:
        """Folder of notebook 08's figures, tables and ``review.json`` (written last)."""
        return self.work / "review"

    # 09 screening, which is no step of the study
    @property
    def screening(self) -> Path:
        """Folder of notebook 09: the study's model in one file, phantoms to screen, results; ``screening.json``."""
        return self.work / "screening"

    @property
    def bundle(self) -> Path:
        """``model.zip``: the study's best model in one file."""
        return self.screening / "model.zip"

    @property
    def next_patient(self) -> Path:
        """Folder of a scanner phantom, where no patient is given."""
        return self.screening / "next_patient"

    @property
    def screened(self) -> Path:
        """Folder of the screened scans, where no other is given."""
        return self.screening / "results"

    # the engine
    @property
    def lock(self) -> Path:
        """Held by whoever runs the study, and by Snakemake as long as it works."""
        return self.work / ".study.lock"

    def step_lock(self, step: str) -> Path:
        """Held by the process that runs the step."""
        return self.runs / f".{step}.lock"

    @property
    def runs(self) -> Path:
        """Executed notebooks (``.ipynb``) and their logs (``.log``), one pair per step."""
        return self.work / "runs"

    @property
    def index(self) -> Path:
        """The report's first page."""
        return self.report / "index.html"
