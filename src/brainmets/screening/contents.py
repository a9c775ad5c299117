"""What a bundle's ``model.json`` may hold: every name, and for every name what it may be.

nnU-Net imports and calls what a plan names, so that a plan from elsewhere may name what the plans of notebook 02 name
and nothing else. Numbers have limits, texts a length, and a name that is not listed here is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from brainmets.params import Arms, ParameterError
from brainmets.params.bounds import (
    FalsePositives,
    Features,
    Floor,
    Fold,
    Limits,
    Margin,
    Seed,
    Side,
    Threshold,
    TileStep,
    shown,
)
from brainmets.preparation.quality import REFERENCE
from brainmets.screening.reads import Reads
from brainmets.statistics.froc import ALL_SIZES
from brainmets.training.plans import CONFIGURATION, DATASETS, PLANNERS, READER, description, identifier
from brainmets.vocabulary import SEQUENCES, Arm, HitRule, PatchRule, SequenceName, Strategy

P = TypeVar("P", bound=BaseModel)
FORMAT = 1
"""Of a bundle; one with another number is not read."""


class ContentError(ValueError):
    """Something in ``model.json`` that it may not hold; the message names it and what is allowed."""


def one_of(*known: str) -> AfterValidator:
    """Refuse every text but these."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"{shown(value)} is not {' or '.join(known)}")
        return value

    return AfterValidator(check)


def _of_one_line(value: str) -> str:
    if odd := re.search(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]", value):
        raise ValueError(f"{shown(value)} holds a character that cannot be seen ({odd[0]!r})")
    return value


def _ends_well(value: float) -> float:
    if math.isnan(value) or value < 0:
        raise ValueError(f"{shown(value)} must be a number from 0 on, or inf")
    return value


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_of_one_line)]
Text = Annotated[str, Field(max_length=2_000), AfterValidator(_of_one_line)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Count = Annotated[int, Limits(0, 10_000_000, "more than any cohort has")]
Share = Annotated[float, Limits(0, 1, "a share")]
Axis = Annotated[int, Limits(0, 2, "one of three axes")]
Millimetres = Annotated[float, Limits(0.05, 30, "mm; beyond it no scan lies")]
Length = Annotated[int, Limits(1, 512, "voxels of a patch; a larger one fits no machine")]
Voxels = Annotated[float, Limits(1, 10_000, "voxels of an image")]
Grey = Annotated[float, Limits(-1e30, 1e30, "a grey value")]
Kernel = Annotated[int, Limits(1, 7, "voxels of a kernel")]
Stride = Annotated[int, Limits(1, 4, "voxels of a step")]
Layers = Annotated[int, Limits(1, 8, "convolutions of a stage")]
Stages = Annotated[int, Limits(2, 10, "stages; each halves the patch")]
Setting = Annotated[float, Limits(0, 1_000, "of an arm")]
Score = Annotated[float, Limits(0, 1e6, "a score")]
Volume = Annotated[float, Limits(0, 1e6, "mm^3")]
Rate = Annotated[
    float,
    Field(strict=False, allow_inf_nan=True),
    AfterValidator(_ends_well),
    PlainSerializer(lambda value: "inf" if value == math.inf else value, when_used="json"),
]
"""Of false positives a case; of one patient alone no upper end is known: the text "inf", since JSON has no word."""

Axes = tuple[Axis, Axis, Axis]
Along = tuple[Millimetres, Millimetres, Millimetres]


class Part(BaseModel):
    """Frozen, complete, closed to unknown names; no text is taken for a number, and no number for infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


# --- nnU-Net's plan and dataset ------------------------------------------------------------------------------------

Resampling = Annotated[str, one_of("resample_data_or_seg_to_shape")]
Normalisation = Annotated[str, one_of("ZScoreNormalization")]


class ResamplingOptions(Part):
    """Of ``resample_data_or_seg_to_shape``."""

    is_seg: bool
    order: Annotated[int, Limits(0, 5, "order of a spline")]
    order_z: Annotated[int, Limits(0, 5, "order of a spline")]
    force_separate_z: bool | None


class NormOptions(Part):
    """Of an instance normalisation."""

    eps: Annotated[float, Limits(1e-12, 1, "keeps a division defined")]
    affine: bool


class ActivationOptions(Part):
    """Of a leaky ReLU."""

    inplace: bool


UNETS = "dynamic_network_architectures.architectures.unet"
STAGES_OF = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
"""nnU-Net's networks, each with the name of its numbers of layers."""


class UNet(Part):
    """What nnU-Net's planners give their U-Nets in three dimensions.

    A plain one has ``n_conv_per_stage``, one with a residual encoder ``n_blocks_per_stage``; the other is not there.
    """

    n_stages: Stages
    features_per_stage: list[Features]
    conv_op: Annotated[str, one_of("torch.nn.modules.conv.Conv3d")]
    kernel_sizes: list[tuple[Kernel, Kernel, Kernel]]
    strides: list[tuple[Stride, Stride, Stride]]
    n_conv_per_stage: list[Layers] | None = None
    n_blocks_per_stage: list[Layers] | None = None
    n_conv_per_stage_decoder: list[Layers]
    conv_bias: bool
    norm_op: Annotated[str, one_of("torch.nn.modules.instancenorm.InstanceNorm3d")]
    norm_op_kwargs: NormOptions
    dropout_op: None
    dropout_op_kwargs: None
    nonlin: Annotated[str, one_of("torch.nn.LeakyReLU")]
    nonlin_kwargs: ActivationOptions

    @model_validator(mode="after")
    def _a_value_for_each_stage(self) -> UNet:
        layers = [name for name in STAGES_OF.values() if getattr(self, name) is not None]
        if len(layers) != 1:
            raise ValueError(
                f"must hold one of {', '.join(STAGES_OF.values())} (given: {', '.join(layers) or 'none'})"
            )
        for name in ("features_per_stage", "kernel_sizes", "strides", *layers):
            if len(getattr(self, name)) != self.n_stages:
                raise ValueError(f"{name} must hold {self.n_stages} values, one for each stage")
        if len(self.n_conv_per_stage_decoder) != self.n_stages - 1:
            raise ValueError(f"n_conv_per_stage_decoder must hold {self.n_stages - 1} values")
        return self

    @model_serializer(mode="wrap")
    def _without_the_other(self, plainly: SerializerFunctionWrapHandler) -> dict[str, Any]:
        layers = STAGES_OF.values()
        return {name: value for name, value in plainly(self).items() if value is not None or name not in layers}


class Architecture(Part):
    """The network, and which of its values are imported by their names."""

    network_class_name: Annotated[str, one_of(*(f"{UNETS}.{name}" for name in STAGES_OF))]
    arch_kwargs: UNet
    imported: list[Annotated[str, one_of("conv_op", "norm_op", "dropout_op", "nonlin")]] = Field(
        alias="_kw_requires_import"
    )

    @model_validator(mode="after")
    def _layers_of_its_kind(self) -> Architecture:
        name = self.network_class_name.removeprefix(f"{UNETS}.")
        if getattr(self.arch_kwargs, STAGES_OF[name]) is None:
            raise ValueError(f"arch_kwargs: a {name} has {STAGES_OF[name]}, which is not there")
        return self


class Configuration(Part):
    """How images are brought to the network and its output back."""

    data_identifier: Annotated[str, Field(pattern=r"^\w{1,100}$")]
    preprocessor_name: Annotated[str, one_of("DefaultPreprocessor")]
    batch_size: Annotated[int, Limits(1, 100_000, "patches of a training step")]
    patch_size: tuple[Length, Length, Length]
    median_image_size_in_voxels: tuple[Voxels, Voxels, Voxels]
    spacing: Along
    normalization_schemes: Annotated[tuple[Normalisation, ...], Field(min_length=1, max_length=len(SEQUENCES))]
    use_mask_for_norm: Annotated[tuple[bool, ...], Field(min_length=1, max_length=len(SEQUENCES))]
    resampling_fn_data: Resampling
    resampling_fn_seg: Resampling
    resampling_fn_data_kwargs: ResamplingOptions
    resampling_fn_seg_kwargs: ResamplingOptions
    resampling_fn_probabilities: Resampling
    resampling_fn_probabilities_kwargs: ResamplingOptions
    architecture: Architecture
    batch_dice: bool


class Configurations(Part):
    """The one that the study trains."""

    fullres: Configuration = Field(alias="3d_fullres")


class ArmSettings(Part):
    """What our own trainers read: the arm, with the settings that a study's parameters allow it."""

    arm: Arm
    settings: dict[Name, Setting | int | PatchRule]

    @model_validator(mode="after")
    def _as_in_parameters(self) -> ArmSettings:
        try:
            Arms(**{str(self.arm): self.settings})  # type: ignore[arg-type]
        except ParameterError as error:
            raise ValueError(str(error)) from None
        return self


class Greys(Part):
    """Grey values of a sequence in the training cohort's heads; a z-score does not use them."""

    max: Grey
    mean: Grey
    median: Grey
    min: Grey
    percentile_00_5: Grey
    percentile_99_5: Grey
    std: Grey


class Plan(Part):
    """nnU-Net's plan as notebook 02 writes it, with the one configuration that is trained."""

    dataset_name: Annotated[str, one_of(*DATASETS.values())]
    plans_name: Annotated[str, one_of(*(identifier(cohort, plan) for plan in PLANNERS for cohort in DATASETS))]
    original_median_spacing_after_transp: Along
    original_median_shape_after_transp: tuple[Voxels, Voxels, Voxels]
    image_reader_writer: Annotated[str, one_of(READER)]
    transpose_forward: Axes
    transpose_backward: Axes
    configurations: Configurations
    experiment_planner_used: Annotated[str, one_of(*(planner.__name__ for planner in PLANNERS.values()))]
    label_manager: Annotated[str, one_of("LabelManager")]
    foreground_intensity_properties_per_channel: dict[Literal["0", "1", "2", "3"], Greys]
    brainmets: ArmSettings

    @model_validator(mode="after")
    def _there_and_back(self) -> Plan:
        if [self.transpose_backward[axis] for axis in self.transpose_forward] != [0, 1, 2]:
            raise ValueError(
                f"transpose_backward: {self.transpose_backward} does not undo transpose_forward, "
                f"{self.transpose_forward}"
            )
        return self

    def require_channels(self, count: int) -> None:
        """Raise ``ValueError`` for values of other than ``count`` channels."""
        greys, fullres = self.foreground_intensity_properties_per_channel, self.configurations.fullres
        if {*greys} != {str(number) for number in range(count)}:
            raise ValueError(f"foreground_intensity_properties_per_channel must hold {count} sequence(s)")
        for name in ("normalization_schemes", "use_mask_for_norm"):
            if len(getattr(fullres, name)) != count:
                raise ValueError(f"{name} must hold {count} values, one for each sequence")

    def content(self) -> dict[str, Any]:
        """As nnU-Net reads it."""
        return self.model_dump(mode="json", by_alias=True)


def plan_of(plan: Mapping[str, Any]) -> Plan:
    """A study's own plan, without the configurations that are not trained. Raises ``ContentError``."""
    kept = {name: one for name, one in plan["configurations"].items() if name == CONFIGURATION}
    return _checked(Plan, {**plan, "configurations": kept})


# --- what was measured ---------------------------------------------------------------------------------------------


class AimContent(Part):
    """``operating_point.Aim``."""

    region: Literal["ET", "TC", "WT"]
    hit: HitRule
    false_positives: FalsePositives


class PointContent(Part):
    """``operating_point.Point``; its threshold is finite, since a model that accepts nothing screens nobody."""

    arm: Arm
    strategy: Strategy
    threshold: Share
    smallest_mm3: Volume
    cases: Count
    lesions: Count
    found: Count
    false: Count
    met: bool


class PerformanceRow(Part):
    """A row of ``detection_at_operating_point.csv``."""

    arm: Arm
    strategy: Strategy
    region: Literal["ET", "TC", "WT"]
    hit: HitRule
    threshold: Share
    smallest_mm3: Volume
    size: Name
    cases: Count
    patients: Count
    lesions: Count
    found: Count
    sensitivity: Share | None
    low: Share | None
    high: Share | None
    false: Count | None
    false_positives: Rate | None
    false_positives_low: Rate | None
    false_positives_high: Rate | None
    target: FalsePositives
    sensitivity_in_choice: Share | None
    false_positives_in_choice: Rate | None
    note: Text


class ScoreRow(Part):
    """A row of ``descriptive.csv``; ``left_out``: cases with the region whose value is undefined or infinite."""

    arm: Arm
    strategy: Strategy
    region: Name
    metric: Literal["dice", "hd95"]
    n: Count
    left_out: Count
    mean: Score | None
    sd: Score | None
    ci_low: Score | None
    ci_high: Score | None
    median: Score | None


# --- the whole -----------------------------------------------------------------------------------------------------


class Card(Part):
    """What a reader is told of the model. ``interval``: coverage of every interval, such as 0.95.

    ``sequences``: what it reads, in channel order. ``may_lack``: those of them that single training cases lacked;
    ``sequence_dropout``: the probability with which training blanked each. Where there is none of it neither is
    written, so that an earlier release reads the bundle too.
    """

    name: Name
    study: Name
    arm: Arm
    strategy: Strategy
    folds: list[Fold] = Field(min_length=1, max_length=100)
    created: Day
    versions: dict[Name, Name]
    commit: Name
    licence: Text
    sequences: list[SequenceName]
    may_lack: list[SequenceName] = []
    sequence_dropout: Share = 0.0
    training_cases: Count
    training_patients: Count
    source_cases: Count
    source_patients: Count
    held_out_cases: Count
    phantoms: list[Literal["source", "target"]]
    prepared_here: Count
    interval: Share

    @model_validator(mode="after")
    def _sequences_in_order(self) -> Card:
        for name in ("sequences", "may_lack"):
            given = getattr(self, name)
            if given != [one for one in SEQUENCES if one in given]:
                raise ValueError(f"{name}: {given} must be of {list(SEQUENCES)}, in this order, each once")
        if REFERENCE not in self.sequences:
            raise ValueError(f"sequences: {self.sequences} lack {REFERENCE}, on which every result lies")
        if stray := [one for one in self.may_lack if one not in self.sequences]:
            raise ValueError(f"may_lack: {stray[0]} is not among sequences, {self.sequences}")
        if len(set(self.folds)) != len(self.folds):
            raise ValueError(f"folds: {self.folds} lists one twice")
        return self

    @property
    def reads(self) -> Reads:
        """What a scan must and may have."""
        return Reads.of(self.sequences, self.may_lack, self.sequence_dropout)

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, plainly: SerializerFunctionWrapHandler) -> dict[str, Any]:
        off = {name for name in ("may_lack", "sequence_dropout") if not getattr(self, name)}
        return {name: value for name, value in plainly(self).items() if name not in off}


class PreparationContent(Part):
    """``preparation.pipeline.Settings``."""

    space: Literal["template", "t1c"]
    spacing_mm: tuple[Side, Side, Side] | None
    mask_margin_mm: Margin
    bias_field: bool
    seed: Seed

    @model_validator(mode="after")
    def _spacing_fits_the_space(self) -> PreparationContent:
        if (self.space == "t1c") != (self.spacing_mm is None):
            raise ValueError(f"spacing_mm: {self.spacing_mm} does not fit space {self.space}")
        return self


class Model(Part):
    """``model.json``. ``dataset``: nnU-Net's ``dataset.json`` without the cases."""

    format: Literal[1]
    card: Card
    plan: Plan
    dataset: dict[str, Any]
    mirroring_axes: list[Axis] | None
    preparation: PreparationContent
    tile_step: TileStep
    mirroring: bool
    candidate_threshold: Threshold
    probability_floor: Floor
    aim: AimContent
    point: PointContent
    performance: list[PerformanceRow] = Field(min_length=1, max_length=100)
    scores: list[ScoreRow] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _of_one_model(self) -> Model:
        training = self.dataset.get("numTraining")
        expected = description(training, self.card.sequences) if type(training) is int else None
        if self.dataset != expected or not 0 <= expected["numTraining"] < 10_000_000:
            raise ValueError("dataset is not what notebook 02 writes: other sequences, regions or readers")
        self.plan.require_channels(len(self.card.sequences))
        dropout = self.plan.brainmets.settings.get("sequence_dropout", 0.0)
        if self.card.sequence_dropout != dropout:
            raise ValueError(f"sequence_dropout is {self.card.sequence_dropout} in the card and {dropout} in the plan")
        if self.plan.brainmets.arm != self.card.arm:
            raise ValueError(f"the plan is of arm {self.plan.brainmets.arm}, the card of {self.card.arm}")
        if self.candidate_threshold < self.probability_floor:
            raise ValueError(f"candidate_threshold: {self.candidate_threshold} lies below probability_floor")
        model, point = (self.card.arm, self.card.strategy), self.point
        rows: tuple[PointContent | PerformanceRow | ScoreRow, ...] = (point, *self.performance, *self.scores)
        if any((one.arm, one.strategy) != model for one in rows):
            raise ValueError(f"point, performance and scores are not all of {' '.join(model)}")
        if self.performance[0].size != ALL_SIZES.name or self.performance[0].false_positives is None:
            raise ValueError("performance must begin with the row of all sizes and its false positives")
        frozen = (self.aim.region, self.aim.hit, self.aim.false_positives, point.threshold, point.smallest_mm3)
        if any(
            (one.region, one.hit, one.target, one.threshold, one.smallest_mm3) != frozen for one in self.performance
        ):
            raise ValueError("performance was not measured at this operating point")
        return self


class _Numbered(BaseModel):
    """The little that every format has in common."""

    model_config = ConfigDict(extra="ignore", strict=True)

    format: int


def parse(content: bytes) -> Model:
    """``model.json``; ``ContentError`` names what it may not hold, and a format that this release does not know."""
    try:
        number = _Numbered.model_validate_json(content).format
        if number != FORMAT:
            raise ContentError(
                f"it has format {number}, and this release reads {FORMAT}: open it with the release that wrote it, "
                "or have it written anew with this one"
            )
        return Model.model_validate_json(content)
    except ValidationError as error:
        raise ContentError(_words(error)) from None


def build(**values: Any) -> Model:
    """A model from a study's own values, held to the same rules as one that is read. Raises ``ContentError``."""
    return _checked(Model, {"format": FORMAT, **values})


def _checked(kind: type[P], values: Mapping[str, Any]) -> P:
    try:
        return kind.model_validate_json(json.dumps(values, allow_nan=False))
    except ValidationError as error:
        raise ContentError(_words(error)) from None


def _words(error: ValidationError) -> str:
    """The first of what is wrong, with its place and the value."""
    problem = error.errors()[0]
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] in ("value_error", "missing") else f" (given: {shown(problem['input'])})"
    more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{name}: {message}{given}{more}" if name else f"{message}{more}"
