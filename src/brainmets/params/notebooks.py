"""The parameters of every notebook: declared here once, one model per notebook, checked before any work.

A notebook builds its own model from its ``parameters`` cell; the command line builds all of them from a study's YAML
(``brainmets.params.study``). Unknown, missing and wrong parameters are refused with their name, the offending value,
what is allowed and the closest known name.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from brainmets.params.base import Parameters
from brainmets.params.cohorts import Cohort
from brainmets.paths import NOTEBOOKS
from brainmets.vocabulary import ARMS, Arm, Strategy

Fold = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, lt=1)]


# --- arms --------------------------------------------------------------------------------------------------------


class DefaultArm(Parameters):
    """nnU-Net's own network, loss and optimiser."""

    learning_rate: PositiveFloat


class TverskyBCEArm(Parameters):
    """nnU-Net's network; Tversky plus weighted binary cross-entropy."""

    learning_rate: PositiveFloat
    alpha: PositiveFloat  # weight of false positives
    beta: PositiveFloat  # weight of false negatives
    positive_weight: PositiveFloat  # weight of a positive voxel's cross-entropy


class SegResNetArm(Parameters):
    """MONAI's SegResNet with Adam."""

    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]
    filters: Annotated[int, Field(gt=0, multiple_of=8)]  # feature maps of the first level, normalised in 8 groups


class Arms(Parameters):
    """Settings of the arms that a study runs; an arm that is left out is not run."""

    default: DefaultArm | None = None
    tversky_bce: TverskyBCEArm | None = None
    segresnet: SegResNetArm | None = None

    @property
    def names(self) -> list[Arm]:
        """The arms that are run, in a fixed order."""
        return [name for name in ARMS if getattr(self, name) is not None]


# --- notebooks ---------------------------------------------------------------------------------------------------


def _name_of_files(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise ValueError(f"{value!r} may hold letters, digits, '.', '_' and '-' alone, a letter or digit first")
    return value


class NotebookParameters(Parameters):
    """What every notebook is told."""

    study: Annotated[str, AfterValidator(_name_of_files)]
    work_dir: str


class Audit(NotebookParameters):
    """Notebook 01."""

    seed: int
    source: Cohort
    target: Cohort
    n_folds: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _something_to_test(self) -> Self:
        if not self.target.held_out:
            raise ValueError(f"target.held_out: {self.target.held_out!r} leaves no case to test; hold out one or more")
        return self


class Alignment(NotebookParameters):
    """Notebook 02. ``gpu_memory_gb`` and ``base_features`` are nnU-Net's planner's own two levers."""

    gpu_memory_gb: PositiveFloat
    base_features: PositiveInt
    workers: Annotated[int, Field(ge=1)]


class Training(NotebookParameters):
    """What the three training notebooks share.

    ``precision`` "nnunet" trains as nnU-Net and the paper's authors did: on a GPU in mixed float16 for the two U-Net
    arms, else in float32. "bfloat16" runs every network's forward pass in bfloat16, which halves the time on CPUs
    that have it.
    """

    seed: int
    arms: Arms
    arm: Arm
    fold: Fold
    epochs: PositiveInt
    iterations_per_epoch: PositiveInt
    validation_iterations: PositiveInt
    precision: Literal["nnunet", "bfloat16"]
    augmentation_workers: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _arm_has_settings(self) -> Self:
        if self.arm not in self.arms.names:
            raise ValueError(f"arm: {self.arm!r} has no settings under arms (there: {', '.join(self.arms.names)})")
        return self


class Pretraining(Training):
    """Notebook 03."""


class FineTuning(Training):
    """Notebook 04.

    The last three go beyond the paper, which used none of them: a linear warm-up of the learning rate over so many
    epochs, a factor on the learning rate of the layers that were transferred, and the number of first epochs in which
    the encoder's weights stand still.
    """

    transfer_head: bool
    warmup_epochs: Annotated[int, Field(ge=0)]
    transferred_rate: Annotated[float, Field(gt=0, le=1)]
    freeze_encoder_epochs: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _options_end_before_the_training(self) -> Self:
        for name in ("warmup_epochs", "freeze_encoder_epochs"):
            if getattr(self, name) >= self.epochs:
                raise ValueError(f"{name}: {getattr(self, name)} must be below epochs, which is {self.epochs}")
        return self


class FromScratch(Training):
    """Notebook 05."""


class Evaluation(NotebookParameters):
    """Notebook 06."""

    arm: Arm
    strategy: Strategy
    folds: Annotated[list[Fold], Field(min_length=1)]
    tile_step: Annotated[float, Field(gt=0, le=1)]
    mirroring: bool
    lesion_definition: Literal["brats_2023", "brats_2026"]
    workers: Annotated[int, Field(ge=1)]


class Statistics(NotebookParameters):
    """Notebook 07. ``scores_dir`` and ``out_dir``: ``None`` for this study's own folders."""

    scores_dir: str | None
    out_dir: str | None
    alpha: Probability
    n_bootstrap: Annotated[int, Field(ge=1000)]  # BCa reads the tails of the resamples: with fewer they are noise
    seed: int


class CaseReview(NotebookParameters):
    """Notebook 08. ``tile_step`` is for the predictions made anew to explain the best model."""

    seed: int
    arms: Arms
    folds: Annotated[list[Fold], Field(min_length=1)]
    n_cases: PositiveInt
    n_explained: Annotated[int, Field(ge=0)]
    tile_step: Annotated[float, Field(gt=0, le=1)]
    pseudonyms: bool
    expert_folder: bool
    viewer: Literal["itkwidgets", "niivue", "slices"]

    @model_validator(mode="after")
    def _explains_shown_cases(self) -> Self:
        if self.n_explained > self.n_cases:
            raise ValueError(f"n_explained: {self.n_explained} must be at most n_cases, which is {self.n_cases}")
        return self


class PaperReanalysis(Parameters):
    """The notebook ``paper_reanalysis``, which is no step of a study.

    ``scores_dir`` holds the paper's released score files, or a folder of them for each release; a relative one is read
    from the checkout, and so is ``out_dir``.
    """

    scores_dir: str
    out_dir: str


MODELS: dict[str, type[NotebookParameters]] = dict(
    zip(
        NOTEBOOKS,
        (Audit, Alignment, Pretraining, FineTuning, FromScratch, Evaluation, Statistics, CaseReview),
        strict=True,
    )
)
SHARED = ("study", "work_dir", "seed", "arms", "folds", "source", "target")
"""Parameters that stand once, at the top of the YAML, for every notebook that declares them."""
PER_JOB = ("arm", "fold", "strategy")
"""Parameters that the engine fills in, one value per job."""
