"""The parameters of cohorts, arms and notebooks: declared once, checked before any work."""

from brainmets.params.base import ParameterError, Parameters, closest
from brainmets.params.cohorts import BRATS_LAYOUT, Cohort, Layout, Phantoms
from brainmets.params.notebooks import (
    MODELS,
    PER_JOB,
    SHARED,
    Alignment,
    Arms,
    Audit,
    CaseReview,
    Evaluation,
    FineTuning,
    FromScratch,
    NotebookParameters,
    PaperReanalysis,
    Pretraining,
    Statistics,
    Training,
)

__all__ = [
    "BRATS_LAYOUT",
    "MODELS",
    "PER_JOB",
    "SHARED",
    "Alignment",
    "Arms",
    "Audit",
    "CaseReview",
    "Cohort",
    "Evaluation",
    "FineTuning",
    "FromScratch",
    "Layout",
    "NotebookParameters",
    "PaperReanalysis",
    "ParameterError",
    "Parameters",
    "Phantoms",
    "Pretraining",
    "Statistics",
    "Training",
    "closest",
]
