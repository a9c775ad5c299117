"""The parameters of every notebook: declared here once, one model per notebook, checked before any work.

A notebook builds its own model from its ``parameters`` cell; the command line builds all of them from a study's YAML
(``brainmets.study_params``). Unknown, missing and wrong parameters are refused with their name, the offending value,
what is allowed and the closest known name.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from brainmets.paths import NOTEBOOKS
from brainmets.regions import LABELS, SEQUENCES

Arm = Literal["default", "tversky_bce", "segresnet"]
Strategy = Literal["finetune", "scratch"]
Label = Literal["background", "netc", "snfh", "et", "rc"]
Fold = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, lt=1)]


class ParameterError(ValueError):
    """A parameter that is unknown, missing or wrong; the message names each one."""


class Parameters(BaseModel):
    """Frozen, complete, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            refuse(type(self), error)


# --- cohorts -----------------------------------------------------------------------------------------------------


class Layout(Parameters):
    """Where a cohort's files lie below its folder: one pattern per sequence and one for the label map.

    Each pattern holds ``{case}``; ``patient`` is a regular expression that is matched from the start of a case's
    name and whose first group is the patient (several cases of one patient never part in a split).
    """

    t1n: str
    t1c: str
    t2w: str
    t2f: str
    label: str
    patient: str = "(.+)"

    @model_validator(mode="after")
    def _patterns_name_the_case(self) -> Self:
        for name in (*SEQUENCES, "label"):
            if "{case}" not in getattr(self, name):
                raise ValueError(f"{name}: {getattr(self, name)!r} must contain {{case}}")
        try:
            groups = re.compile(self.patient).groups
        except re.error as error:
            raise ValueError(f"patient: {self.patient!r} is not a regular expression ({error})") from error
        if groups < 1:
            raise ValueError(f"patient: {self.patient!r} needs a group, such as '(P[0-9]+)'")
        return self


BRATS_LAYOUT = {
    **{sequence: f"{{case}}/{{case}}-{sequence}.nii.gz" for sequence in SEQUENCES},
    "label": "{case}/{case}-seg.nii.gz",
    "patient": r"(.+)-\d{3}$",
}
"""BraTS naming: ``BraTS-MET-00001-000`` is patient ``BraTS-MET-00001``, time point ``000``."""


class Phantoms(Parameters):
    """Ask notebook 01 to make the cohort's folder from phantoms; a cohort of one's own leaves this out."""

    site: Literal["source", "target"]
    patients: PositiveInt
    spacing_mm: PositiveFloat
    seed: int


class Cohort(Parameters):
    """One cohort: its folder, its layout, how its labels map to BraTS labels, and which cases are held out."""

    folder: str
    layout: Literal["brats"] | Layout
    label_map: dict[int, Label]
    held_out: int | list[str]
    phantoms: Phantoms | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.held_out, int) and self.held_out < 0:
            raise ValueError(f"held_out: {self.held_out} must be 0 or more, or a list of case names")
        if 0 in self.label_map and self.label_map[0] != "background":
            raise ValueError(f"label_map: 0 is background, not {self.label_map[0]!r}")
        return self

    @property
    def files(self) -> Layout:
        """The layout spelled out."""
        return Layout(**BRATS_LAYOUT) if self.layout == "brats" else self.layout

    @property
    def values(self) -> dict[int, int]:
        """The cohort's label values to BraTS label values; background (0 to 0) included."""
        return {0: 0, **{value: LABELS[name] for value, name in self.label_map.items()}}


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
        every: tuple[Arm, ...] = ("default", "tversky_bce", "segresnet")
        return [name for name in every if getattr(self, name) is not None]


# --- notebooks ---------------------------------------------------------------------------------------------------


class NotebookParameters(Parameters):
    """What every notebook is told."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    work_dir: str


class Audit(NotebookParameters):
    """Notebook 01."""

    seed: int
    source: Cohort
    target: Cohort
    n_folds: Annotated[int, Field(ge=2)]


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


def refuse(model: type[BaseModel], error: ValidationError) -> NoReturn:
    """Turn pydantic's report into one line per parameter, with the closest known name for an unknown one."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown parameter{closest(str(problem['loc'][-1]), list(model.model_fields))}")
        elif problem["type"] == "missing":
            lines.append(f"{name}: missing; {model.__name__} needs it")
        else:
            value = f" (given: {problem['input']!r})" if name else ""
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}{value}" if name else message)
    raise ParameterError("; ".join(lines)) from None


def closest(name: str, known: list[str]) -> str:
    """``"; did you mean 'epochs'?"`` for the closest known name, or the list of names where none is close."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; known are {', '.join(sorted(known))}"
