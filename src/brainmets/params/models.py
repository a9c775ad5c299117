"""The models of all parameters: cohorts, arms and notebooks, declared here once and checked before any work.

A notebook builds its own model from its ``parameters`` cell; the command line builds all of them from a study's YAML
(``brainmets.params.study``). Unknown, missing and wrong parameters are refused with their name, the offending value,
what is allowed and the closest known name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from brainmets.files import keep_private
from brainmets.params.bounds import (
    CASES,
    Cases,
    DecisionMargin,
    Diameter,
    Epochs,
    ExplainedCases,
    FalsePositives,
    Features,
    Filters,
    FirstEpochs,
    Floor,
    Fold,
    Folds,
    FurtherProcesses,
    GPUMemory,
    Iterations,
    LabelValue,
    LackingPatients,
    LearningRate,
    LesionFreePatients,
    Level,
    LossWeight,
    Margin,
    OneSidedLevel,
    Patients,
    PhantomSide,
    Processes,
    Rate,
    RawPhantomSide,
    Repeats,
    Resamples,
    Seed,
    Share,
    ShownCases,
    Side,
    SomeShare,
    Threshold,
    TileStep,
    TrainingCases,
    Volume,
    WeightDecay,
    shown,
)
from brainmets.paths import AFTER, COHORTS, NOTEBOOKS
from brainmets.vocabulary import (
    ARMS,
    COMPARED_STRATEGIES,
    CONTROL,
    CONVERT,
    DETECTION_SENSITIVITY,
    LABELS,
    NIFTI_SUFFIXES,
    REGIONS,
    RESIDUAL_PLAN,
    SCORED_METRICS,
    SEQUENCES,
    STRATEGIES,
    UNET_PLAN,
    Arm,
    HitRule,
    Label,
    LesionDefinition,
    PatchRule,
    PostRule,
    SequenceName,
    Strategy,
    better,
)

PHRASES = {
    "model_type": "must hold names and values",
    "dict_type": "must hold names and values",
    "list_type": "must be a list",
    "string_type": "must be text; write it in quotes",
}
"""Our words where pydantic's name Python's types."""


class ParameterError(ValueError):
    """A parameter that is unknown, missing or wrong; the message names each one.

    ``problems`` are the message's parts where it has several: one line each, which starts with a parameter's name.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class Parameters(BaseModel):
    """Frozen, complete, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        if stray := [name for name in values if not isinstance(name, str)]:  # of a model within a model, by pydantic
            raise ParameterError(f"{stray[0]!r}: unknown parameter; a parameter's name is text")
        try:
            super().__init__(**values)
        except ValidationError as error:
            refuse(type(self), error)

    @classmethod
    def from_cell(cls, names: Mapping[str, Any]) -> Self:
        """The parameters among a notebook's names: ``p = Audit.from_cell(globals())`` below the parameters cell.

        Raises ``ParameterError`` as the constructor does, a name that is not there included.
        """
        return cls(**{name: names[name] for name in cls.model_fields if name in names})

    @field_validator("*", mode="before")
    @classmethod
    def _text_is_of_one_line(cls, value: Any) -> Any:
        """A NUL or a line's end in a name or a path would reach the operating system, a log or a table."""
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (odd := re.search(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]", text)):
                raise ValueError(f"{shown(text)} holds a character that cannot be seen ({odd[0]!r}); take it out")
        return value


def refuse(model: type[BaseModel], error: ValidationError) -> NoReturn:
    """Turn pydantic's report into one line per parameter, with the closest known name for an unknown one."""
    problems = error.errors()
    stray = [str(problem["loc"][-1]) for problem in problems if problem["type"] == "extra_forbidden"]
    lines: list[str] = []
    for problem in problems:
        name = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        inner = problem.get("ctx", {}).get("error")
        if isinstance(inner, ParameterError):  # of a model within the model
            lines += [f"{name}.{line}" if name else line for line in inner.problems]
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown parameter{closest(str(problem['loc'][-1]), list(model.model_fields))}")
        elif problem["type"] == "missing":
            lines.append(f"{name}: missing{meant_for(name, stray)}")
        elif problem["type"] == "value_error":  # our own, which names the value
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        else:
            lines.append(f"{name}: {PHRASES.get(problem['type'], problem['msg'])}{given(problem['input'])}")
    raise ParameterError("; ".join(lines), lines) from None


def given(value: Any) -> str:
    """``" (given: 3)"``; nothing for a value that holds others and would fill the message."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict | list) for one in value)):
        return ""
    return f" (given: {shown(value)})"


def closest(name: str, known: list[str]) -> str:
    """What a message adds of the known names: the closest one, or all where none is close.

    >>> closest("epoch", ["epochs", "seed"])
    "; did you mean 'epochs'?"
    """
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; known are {', '.join(sorted(known))}"


def meant_for(name: str, stray: Iterable[Any]) -> str:
    """``" (is 'epoch' meant for it?)"`` for the unknown name that is closest to the missing ``name``."""
    found = difflib.get_close_matches(name, sorted(map(str, stray)), n=1)
    return f" (is {found[0]!r} meant for it?)" if found else ""


Number = TypeVar("Number", int, float)


def _in_channel_order(value: list[str]) -> list[str]:
    """The sequences as a study counts its channels, whatever their order in the parameters; each may stand once."""
    if twice := [name for name in SEQUENCES if value.count(name) > 1]:
        raise ValueError(f"{shown(value)} names {twice[0]} twice")
    return [name for name in SEQUENCES if name in value]


Sequences = Annotated[list[SequenceName], Field(min_length=1), AfterValidator(_in_channel_order)]

# --- cohorts ---------------------------------------------------------------------------------------------------------


class Layout(Parameters):
    """Where a cohort's files lie below its folder: one pattern for each sequence that it has, one for the label map.

    Each pattern holds ``{case}``; ``patient`` is a regular expression that is matched from the start of a case's
    name and whose first group is the patient (several cases of one patient never part in a split).
    """

    t1n: str | None = None
    t1c: str | None = None
    t2w: str | None = None
    t2f: str | None = None
    label: str
    patient: str = "(.+)"

    @property
    def patterns(self) -> dict[str, str]:
        """The patterns that are given, by sequence, in channel order, and "label" last."""
        given = {name: getattr(self, name) for name in (*SEQUENCES, "label")}
        return {name: pattern for name, pattern in given.items() if pattern is not None}

    @model_validator(mode="after")
    def _patterns_name_the_case(self) -> Self:
        patterns = self.patterns
        problems = [f"{name}: {pattern!r} {wrong}" for name, pattern in patterns.items() if (wrong := _wrong(pattern))]
        if len(patterns) == 1:
            problems.append(f"no sequence has a pattern; give that of one or more of {', '.join(SEQUENCES)}")
        for number, (name, pattern) in enumerate(patterns.items()):
            if twin := next((other for other in [*patterns][:number] if patterns[other] == pattern), None):
                problems.append(f"{name}: {pattern!r} is the pattern of {twin} too; each needs files of its own")
        try:
            if re.compile(self.patient).groups < 1:
                problems.append(f"patient: {self.patient!r} needs a group, such as '(P[0-9]+)'")
        except re.error as error:
            problems.append(f"patient: {self.patient!r} is not a regular expression ({error})")
        if problems:
            raise ParameterError("; ".join(problems), problems)
        return self


def _wrong(pattern: str) -> str:
    """What is wrong with a layout's pattern, or nothing."""
    if "{case}" not in pattern:
        return "must contain {case}"
    rest = pattern.replace("{case}", "")
    if "{" in rest or "}" in rest:
        found = re.findall(r"\{[^{}]*\}", rest) or ["a brace without its partner"]
        return f"holds {found[0]}; only {{case}} is allowed in braces"
    if pattern[0] in "/~":
        return "must start below the cohort's folder, not at / or ~"
    return "" if pattern.endswith(NIFTI_SUFFIXES) else f"must end with {' or '.join(NIFTI_SUFFIXES)}; {CONVERT}"


BRATS_LAYOUT = {
    **{sequence: f"{{case}}/{{case}}-{sequence}.nii.gz" for sequence in SEQUENCES},
    "label": "{case}/{case}-seg.nii.gz",
    "patient": r"(.+)-\d{3}$",
}
"""BraTS naming: ``BraTS-MET-00001-000`` is patient ``BraTS-MET-00001``, time point ``000``."""


LESION_FREE_PHANTOMS = "lesion_free.csv"
"""The table of lesion-free cases in a folder of phantoms."""


class Phantoms(Parameters):
    """Ask notebook 01 to make the cohort's folder from phantoms; a cohort of one's own leaves this out.

    ``lesion_free`` further patients have no lesion; ``lesion_free.csv`` in the folder then lists their cases.
    ``lesions`` "small": most are below 5 mm. ``lacking``: how many patients, the last of those with lesions, lack a
    sequence.
    """

    site: Literal["source", "target"]
    patients: Patients
    spacing_mm: PhantomSide
    seed: Seed
    lesion_free: LesionFreePatients = 0
    lesions: Literal["mixed", "small"] = "mixed"
    lacking: dict[SequenceName, LackingPatients] = {}

    @field_validator("lacking")
    @classmethod
    def _one_patient_has_each(cls, value: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        for name, patients in value.items():
            if patients >= info.data.get("patients", patients + 1):
                raise ValueError(f"{name}: {patients} patients lack it; one at least must have it")
        return value


class RawPhantoms(Parameters):
    """Ask notebook 00 to make the raw folder from phantoms of whole heads, as a scanner would export them."""

    patients: Patients
    spacing_mm: RawPhantomSide
    seed: Seed


class Raw(Parameters):
    """Scans as they come from the scanner, which notebook 00 prepares into the cohort's folder.

    ``folder`` holds DICOM trees, or one folder per patient with NIfTI, MetaImage or NRRD files. ``labels`` (none for
    scans that are only to be looked at) and ``brain_masks`` are patterns of NIfTI files below it (or absolute), drawn
    on the grid of one of the sequences: ``{patient}`` stands for the patient's identifier (PatientID, or the name of
    the patient's folder), ``{date}`` for the scan's (StudyDate, or the folders between the patient's and the files).
    Without ``brain_masks`` the brain is found by a network. ``prefix`` begins the new case names; ``key_file`` keeps
    who is who (none: beside the other results of notebook 00) and lies outside the cohort. ``left_out`` names cases
    that are not prepared, ``accepted`` those whose flags a person has looked at and found to be no error.
    """

    folder: str
    labels: str | None = None
    brain_masks: str | None = None
    prefix: Annotated[str, AfterValidator(lambda value: _name_of_files(value))]
    key_file: str | None = None
    left_out: list[str] = []
    accepted: list[str] = []
    phantoms: RawPhantoms | None = None

    @model_validator(mode="after")
    def _patterns_name_the_patient(self) -> Self:
        problems = []
        for name, pattern in (("labels", self.labels), ("brain_masks", self.brain_masks)):
            if pattern is None:
                continue
            if "{patient}" not in pattern:
                problems.append(f"{name}: {pattern!r} must contain {{patient}}")
            elif stray := re.findall(r"[{}]", pattern.replace("{patient}", "").replace("{date}", "")):
                problems.append(f"{name}: {pattern!r} holds a stray {stray[0]}; {{patient}} and {{date}} are allowed")
            elif not pattern.endswith(NIFTI_SUFFIXES):
                problems.append(f"{name}: {pattern!r} must end with {' or '.join(NIFTI_SUFFIXES)}; {CONVERT}")
        if problems:
            raise ParameterError("; ".join(problems), problems)
        return self


class Cohort(Parameters):
    """One cohort: its folder, its layout, how its labels map to BraTS labels, and which cases are held out.

    ``draw`` says how a number of held-out cases, and the folds, are drawn: "random", or "by_load", from strata of the
    whole tumour's volume. With ``raw``, notebook 00 prepares raw scans into ``folder``, beside what lies there.
    ``lesion_free`` is the path of a table (CSV) whose column ``case`` lists the cases without any lesion: their label
    maps are empty by intent, or absent.
    ``sequences``: what its networks read, where that is not the study's; for the source alone, whose pretraining may
    read others than the target has. ``may_lack``: those of them that single cases may be without.
    ``pseudonyms`` gives cases and patients other names where notebook 01 finds them, so that no later file holds
    theirs; cases that notebook 00 prepared have new names already and keep them.
    """

    folder: str
    layout: Literal["brats"] | Layout
    label_map: dict[LabelValue, Label]
    held_out: Cases | list[str]
    draw: Literal["random", "by_load"] = "random"
    lesion_free: str | None = None
    sequences: Sequences | None = None
    may_lack: Annotated[list[SequenceName], AfterValidator(_in_channel_order)] = []
    pseudonyms: bool = True
    phantoms: Phantoms | None = None
    raw: Raw | None = None

    @field_validator("layout", mode="before")
    @classmethod
    def _brats_or_patterns(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return Layout(**value)
        if not isinstance(value, Layout) and value != "brats":
            raise ValueError(f"must be brats, or hold one pattern per sequence{given(value)}")
        return value

    @field_validator("held_out", mode="before")
    @classmethod
    def _a_count_or_names(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | list):
            raise ValueError(f"must be a number of cases or a list of case names{given(value)}")
        if isinstance(value, int):
            CASES.check(value)
        else:
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"a case's name must be text; write it in quotes{given(name)}")
                if value.count(name) > 1:
                    raise ValueError(f"names case {name!r} twice")
        return value

    @field_validator("label_map")
    @classmethod
    def _zero_is_background(cls, value: dict[int, Label]) -> dict[int, Label]:
        if value.get(0, "background") != "background":
            raise ValueError(f"0 is background, not {value[0]!r}")
        return value

    @model_validator(mode="after")
    def _names_no_patient(self) -> Self:
        """With pseudonyms: a name among the parameters would stand in every record and in the report."""
        if not self.pseudonyms:
            return self
        if self.raw and self.raw.prefix in COHORTS:
            raise ValueError(f"raw.prefix: {self.raw.prefix!r} is what pseudonyms begin with; choose another")
        prefixes = [*COHORTS, *([self.raw.prefix] if self.raw else [])]
        form = rf"({'|'.join(map(re.escape, prefixes))})-\d{{5,}}-\d{{3,}}"
        if isinstance(self.held_out, list) and not all(re.fullmatch(form, name) for name in self.held_out):
            raise ValueError(
                "held_out: lists other names than pseudonyms, which every record and the report would show. Give a "
                "number; or with a number run `brainmets study PARAMS -- audit`, look the cases up in "
                "private/<cohort>/key.csv in the study's folder, and list their pseudonyms; or, where the names tell "
                "nobody anything, set pseudonyms: false"
            )
        return self

    @property
    def lesion_free_list(self) -> str | None:
        """The table of lesion-free cases: ``lesion_free``, or that which phantoms come with."""
        if self.lesion_free is None and self.phantoms and self.phantoms.lesion_free:
            return f"{self.folder}/{LESION_FREE_PHANTOMS}"
        return self.lesion_free

    @property
    def files(self) -> Layout:
        """The layout spelled out."""
        return Layout(**BRATS_LAYOUT) if self.layout == "brats" else self.layout

    @property
    def values(self) -> dict[int, int]:
        """The cohort's label values to BraTS label values; background (0 to 0) included."""
        return {0: 0, **{value: LABELS[name] for value, name in self.label_map.items()}}


# --- arms --------------------------------------------------------------------------------------------------------


class ArmSettings(Parameters):
    """What any arm may set. The paper's arms leave the last three off.

    ``sequence_dropout``: probability with which each sequence of a training patch is blanked, one at least being kept,
    so that one network serves every subset. ``lesion_sampling``: see ``PatchRule``. ``lesion_transplant``: share of
    the training patches into which a lesion of another training case is blended.
    """

    plan: ClassVar[str] = UNET_PLAN  # of ``plans.PLANNERS``: whose network the arm trains

    learning_rate: LearningRate
    sequence_dropout: Share = 0.0
    lesion_sampling: PatchRule = "voxels"
    lesion_transplant: Share = 0.0


class DefaultArm(ArmSettings):
    """nnU-Net's own network, loss and optimiser."""


class TverskyBCEArm(ArmSettings):
    """nnU-Net's network; Tversky plus weighted binary cross-entropy."""

    alpha: LossWeight  # weight of false positives
    beta: LossWeight  # weight of false negatives
    positive_weight: LossWeight  # weight of a positive voxel's cross-entropy


class SegResNetArm(ArmSettings):
    """MONAI's SegResNet with Adam."""

    weight_decay: WeightDecay
    filters: Filters  # feature maps of the first level, normalised in 8 groups


class LesionDiceArm(ArmSettings):
    """nnU-Net's network; its loss plus Dice and cross-entropy of each lesion in the lesion's own zone."""

    lesion_weight: LossWeight  # weight of that term beside nnU-Net's loss


class LesionSamplingArm(ArmSettings):
    """nnU-Net as it is, on patches that are placed on lesions and not on voxels."""

    lesion_sampling: Literal["lesions", "small_lesions"]


class LesionTransplantArm(ArmSettings):
    """nnU-Net as it is, on patches into which lesions of other training cases are blended."""

    lesion_transplant: SomeShare


class DefaultResEncArm(ArmSettings):
    """nnU-Net's residual-encoder plan with its own loss and optimiser."""

    plan: ClassVar[str] = RESIDUAL_PLAN


class Arms(Parameters):
    """Settings of the arms that a study runs; an arm that is left out is not run."""

    default: DefaultArm | None = None
    tversky_bce: TverskyBCEArm | None = None
    segresnet: SegResNetArm | None = None
    lesion_dice: LesionDiceArm | None = None
    lesion_sampling: LesionSamplingArm | None = None
    lesion_transplant: LesionTransplantArm | None = None
    default_resenc: DefaultResEncArm | None = None

    def settings(self, arm: str) -> dict[str, Any]:
        """The plain settings of an arm, without what is left at its default: a new setting changes no older arm."""
        settings: dict[str, Any] = getattr(self, arm).model_dump(exclude_defaults=True)
        return settings

    @property
    def names(self) -> list[Arm]:
        """The arms that are run, in a fixed order."""
        return [name for name in ARMS if getattr(self, name) is not None]


def plan_of(arm: str) -> str:
    """The plan that an arm trains by, as its settings' model says."""
    model: type[ArmSettings] = get_args(Arms.model_fields[arm].annotation)[0]
    return model.plan


def own_plans(arms: Iterable[str]) -> list[str]:
    """The plans beside the U-Net's that some of the ``arms`` train by; most studies need none.

    >>> own_plans(["default", "segresnet"]), own_plans(["default", "default_resenc"])
    ([], ['nnUNetResEncUNetPlans'])
    """
    return sorted({plan_of(arm) for arm in arms} - {UNET_PLAN})


# --- notebooks ---------------------------------------------------------------------------------------------------


def _name_of_files(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value):
        what = "may hold letters, digits, '.', '_' and '-' alone, a letter or digit first, at most 100 of them"
        raise ValueError(f"{shown(value)} {what}")
    return value


class NotebookParameters(Parameters):
    """What every notebook has."""

    study: Annotated[str, AfterValidator(_name_of_files)]
    work_dir: str

    @classmethod
    def from_cell(cls, names: Mapping[str, Any]) -> Self:
        """As of all parameters; and what the notebook writes from here on is private (``files.keep_private``)."""
        keep_private()  # in JupyterLab no command did
        return super().from_cell(names)


class OfCohorts(NotebookParameters):
    """What the notebooks have that read the cohorts as they are declared.

    ``sequences``: what the study's networks read of the target, in channel order; the source may declare others.
    """

    sequences: Sequences
    source: Cohort
    target: Cohort

    def declared(self, cohort: str) -> Cohort:
        """The declaration of "source" or "target", with the sequences of its networks."""
        declared = self.source if cohort == "source" else self.target
        return declared.model_copy(update={"sequences": list(declared.sequences or self.sequences)})

    def sequences_of(self, cohort: str) -> tuple[str, ...]:
        """The channels of the networks that are trained on a cohort."""
        return tuple(self.declared(cohort).sequences or ())

    @model_validator(mode="after")
    def _cohorts_have_the_sequences(self) -> Self:
        problems = []
        if self.target.sequences not in (None, self.sequences):
            problems.append(
                f"target.sequences: {shown(self.target.sequences)} is not what the study reads "
                f"({shown(self.sequences)}); leave it out: `sequences` at the top is the target's"
            )
        for name in COHORTS:
            declared, wanted = self.declared(name), self.sequences_of(name)
            problems += [
                f"{name}.layout.{sequence}: missing; the networks of the {name} read {', '.join(wanted)}: give the "
                "pattern of its files, or leave it out of `sequences`"
                for sequence in wanted
                if sequence not in declared.files.patterns
            ]
            if stray := [one for one in declared.may_lack if one not in wanted]:
                problems.append(f"{name}.may_lack: {stray[0]} is not among its sequences ({', '.join(wanted)})")
            if set(wanted) <= set(declared.may_lack):
                problems.append(f"{name}.may_lack: names every sequence; leave out one that all cases have")
            if declared.raw and "t1c" not in {*wanted} - {*declared.may_lack}:
                problems.append(
                    f"{name}.raw: every raw scan is laid onto its t1c: {name} needs t1c in its sequences, and not in "
                    "may_lack"
                )
        if problems:
            raise ParameterError("; ".join(problems), problems)
        return self


class Preparation(OfCohorts):
    """Notebook 00, for one raw case.

    ``space`` "template": every case lies as the MNI152 template does, in voxels of ``spacing_mm`` along R, A and S;
    "t1c": on the grid of its own contrast-enhanced T1, and ``spacing_mm`` is null.
    """

    seed: Seed
    cohort: Literal["source", "target"]
    case: str
    space: Literal["template", "t1c"]
    spacing_mm: tuple[Side, Side, Side] | None
    mask_margin_mm: Margin
    bias_field: bool

    @field_validator("spacing_mm", mode="before")
    @classmethod
    def _three_sides(cls, value: Any) -> Any:
        if value is not None and (not isinstance(value, list | tuple) or len(value) != 3):
            raise ValueError(f"must be three sides in mm (R, A, S), such as [1.0, 1.0, 1.0], or null{given(value)}")
        return value

    @model_validator(mode="after")
    def _spacing_fits_the_space(self) -> Self:
        if (self.space == "t1c") != (self.spacing_mm is None):
            raise ValueError(
                f"spacing_mm: {self.spacing_mm!r} does not fit space {self.space!r}: give three sides in mm with "
                "space template, null with space t1c"
            )
        return self

    @property
    def declaration(self) -> Cohort:
        """The cohort that the case is of."""
        return self.declared(self.cohort)


def _rising(sizes: list[Number]) -> list[Number]:
    if any(later <= size for size, later in pairwise(sizes)):
        raise ValueError(f"{shown(sizes)} must rise, each size given once, such as [5, 10, 15]")
    return sizes


LearningCurve = Annotated[list[TrainingCases], AfterValidator(_rising)]


def _in_fixed_order(value: list[Strategy]) -> list[Strategy]:
    """The strategies in the order of every table, whatever theirs in the parameters."""
    if twice := [name for name in STRATEGIES if value.count(name) > 1]:
        raise ValueError(f"{shown(value)} names {twice[0]} twice")
    if "finetune" not in value:
        raise ValueError(f"{shown(value)} lacks finetune, the models that this laboratory is about: add it")
    if CONTROL in value and "scratch" not in value:
        raise ValueError(f"{shown(value)}: {CONTROL} is what scratch is compared with: add scratch, or leave it out")
    return [name for name in STRATEGIES if name in value]


Strategies = Annotated[list[Strategy], AfterValidator(_in_fixed_order)]


class Branches(Parameters):
    """Which models of each arm a study trains, and how often.

    ``strategies``: how the target's models are made, each evaluated. ``repeats``: how often every model is trained,
    each time with other seeds. ``learning_curve``: numbers of the target's training cases with which both compared
    strategies are trained too.
    """

    strategies: Strategies
    repeats: Repeats
    learning_curve: LearningCurve

    @model_validator(mode="after")
    def _compared_are_there(self) -> Self:
        lacking = [name for name in COMPARED_STRATEGIES if name not in self.strategies]
        if self.learning_curve and lacking:
            raise ValueError(
                f"learning_curve: {shown(self.learning_curve)} trains fine-tuned models and those from scratch: add "
                f"{lacking[0]} to strategies, or give []"
            )
        return self


class Audit(OfCohorts):
    """Notebook 01.

    ``on_error``: what becomes of a case with a finding of severity error: "stop" ends the study, "quarantine" leaves
    the case out before the split is drawn. ``workers`` cases are read at a time, each in a process of its own. Of
    ``learning_curve`` (see ``Branches``) it looks whether the split has as many training cases.
    """

    seed: Seed
    learning_curve: LearningCurve
    n_folds: Folds
    on_error: Literal["stop", "quarantine"]
    workers: Processes

    @model_validator(mode="after")
    def _something_to_test(self) -> Self:
        if not self.target.held_out:
            raise ValueError(f"target.held_out: {self.target.held_out!r} leaves no case to test; hold out one or more")
        return self

    @model_validator(mode="after")
    def _each_network_reads_each_case(self) -> Self:
        """The pretrained network predicts every case of the target, the fine-tuned one the source's held-out cases."""
        reads = {name: self.sequences_of(name) for name in COHORTS}
        both = [name for name in reads["target"] if name in reads["source"]]
        for name, other in (("target", "source"), ("source", "target")):
            declared = self.declared(name)
            if {*both} <= {*declared.may_lack} and (name == "target" or declared.held_out):
                free = f", of which may_lack lets a case be without {' and '.join(both)}" if both else ""
                raise ValueError(
                    f"{name}.sequences: {', '.join(reads[name])}{free}; the networks of the {other} read "
                    f"{', '.join(reads[other])}, and must predict cases of the {name}: give both cohorts one sequence "
                    f"that every case of the {name} has"
                )
        return self

    @model_validator(mode="after")
    def _labels_to_learn(self) -> Self:
        for name, cohort in (("source", self.source), ("target", self.target)):
            if cohort.raw and cohort.raw.labels is None:
                raise ValueError(f"{name}.raw.labels: missing; every case of a study needs a label map")
        return self


class Alignment(NotebookParameters):
    """Notebook 02. ``gpu_memory_gb`` and ``base_features`` are nnU-Net's planner's own two levers.

    Of ``arms`` it looks whether one needs a plan of its own.
    """

    arms: Arms
    gpu_memory_gb: GPUMemory
    base_features: Features
    workers: Processes


class Training(NotebookParameters):
    """What the three training notebooks share. ``repeat`` counts from 1 and sets the seeds.

    ``precision`` "nnunet" trains as nnU-Net and the paper's authors did: on a GPU in mixed float16 for the two U-Net
    arms, else in float32. "bfloat16" runs every network's forward pass in bfloat16, which halves the time on CPUs
    that have it.
    """

    seed: Seed
    arms: Arms
    arm: Arm
    fold: Fold
    repeat: Repeats
    epochs: Epochs
    iterations_per_epoch: Iterations
    validation_iterations: Iterations
    precision: Literal["nnunet", "bfloat16"]
    augmentation_workers: FurtherProcesses

    @model_validator(mode="after")
    def _arm_has_settings(self) -> Self:
        if self.arm not in self.arms.names:
            raise ValueError(f"arm: {self.arm!r} has no settings under arms (there: {', '.join(self.arms.names)})")
        return self


class Pretraining(Training):
    """Notebook 03."""


class TargetTraining(Training):
    """What notebooks 04 and 05 share: ``training_cases``, how many of the target's cases; ``None`` for all of them."""

    training_cases: TrainingCases | None

    @model_validator(mode="after")
    def _of_one_branch(self) -> Self:
        _refuse_both(self.repeat, self.training_cases)
        return self


def _refuse_both(repeat: int, training_cases: int | None) -> None:
    if repeat != 1 and training_cases is not None:
        raise ValueError(
            f"training_cases: {training_cases} with repeat {repeat}: fewer cases are trained with in repeat 1 alone; "
            "write null (None in a notebook) for all cases, or repeat 1"
        )


class FineTuning(TargetTraining):
    """Notebook 04.

    The last three go beyond the paper, which used none of them: a linear warm-up of the learning rate over so many
    epochs, a factor on the learning rate of the layers that were transferred, and the number of first epochs in which
    the encoder's weights are frozen.
    """

    transfer_head: bool
    warmup_epochs: FirstEpochs
    transferred_rate: Rate
    freeze_encoder_epochs: FirstEpochs

    @model_validator(mode="after")
    def _options_end_before_the_training(self) -> Self:
        for name in ("warmup_epochs", "freeze_encoder_epochs"):
            if getattr(self, name) >= self.epochs:
                raise ValueError(f"{name}: {getattr(self, name)} must be below epochs, which is {self.epochs}")
        return self


class FromScratch(TargetTraining):
    """Notebook 05. ``strategy``: "scratch", or "scratch_control" with as many epochs as both other trainings have."""

    strategy: Literal["scratch", "scratch_control"]


class PostProcessing(Parameters):
    """What may be chosen on cross-validated predictions: ``rules``, and the volumes (mm^3) that are tried.

    ``smallest_mm3`` belongs to the rule "smallest_volume": what is smaller is dropped.
    """

    rules: Annotated[list[PostRule], Field(min_length=1)]
    smallest_mm3: list[Volume]

    @model_validator(mode="after")
    def _volumes_belong_to_their_rule(self) -> Self:
        if twice := [rule for rule in self.rules if self.rules.count(rule) > 1]:
            raise ValueError(f"rules: {twice[0]} stands twice")
        if bool(self.smallest_mm3) != ("smallest_volume" in self.rules):
            raise ValueError(
                f"smallest_mm3: {shown(self.smallest_mm3)} with rules {shown(self.rules)}: list volumes to try with "
                "the rule smallest_volume, and [] without it"
            )
        _rising(self.smallest_mm3)
        return self


class Evaluation(NotebookParameters):
    """Notebook 06.

    ``candidate_threshold``: the probability from which a voxel belongs to a candidate; ``probability_floor``: the one
    from which it is kept, which is no higher. ``sequence_subsets``: which sets of sequences the held-out cases are
    scored with: "occurring", those that they have, or "all", every one that can be made of what a case has.
    ``post_processing``: None for none.
    """

    arm: Arm
    strategy: Strategy
    repeat: Repeats
    training_cases: TrainingCases | None
    folds: Annotated[list[Fold], Field(min_length=1)]
    tile_step: TileStep
    mirroring: bool
    lesion_definition: LesionDefinition
    candidate_threshold: Threshold
    probability_floor: Floor
    sequence_subsets: Literal["occurring", "all"]
    post_processing: PostProcessing | None
    workers: Processes

    @model_validator(mode="after")
    def _candidates_are_kept(self) -> Self:
        if self.candidate_threshold < self.probability_floor:
            raise ValueError(
                f"candidate_threshold: {shown(self.candidate_threshold)} lies below probability_floor "
                f"({shown(self.probability_floor)}), and what does is not kept: raise it, or lower the floor"
            )
        return self

    @model_validator(mode="after")
    def _of_one_branch(self) -> Self:
        _refuse_both(self.repeat, self.training_cases)
        return self


class Detection(Parameters):
    """How detection is measured: lesions of ``region``, hits by the rule ``hit`` (``brainmets.scoring.candidates``).

    ``false_positives``: what the operating point is chosen for, a case, on the training cases.
    """

    region: Literal["ET", "TC", "WT"]
    hit: HitRule
    false_positives: FalsePositives


class Endpoint(Parameters):
    """What a decision looks at: one metric, which has a direction, in one region that the networks predict."""

    metric: str
    region: str

    @field_validator("metric", mode="after")
    @classmethod
    def _metric_has_a_direction(cls, value: str) -> str:
        known = (*SCORED_METRICS, DETECTION_SENSITIVITY)
        if value not in known:
            raise ValueError(f"{shown(value)} is no metric{closest(value, list(known))}")
        if better(value) is None:
            raise ValueError(
                f"{shown(value)} has no direction: more of it is neither better nor worse; choose another"
            )
        return value

    @field_validator("region", mode="after")
    @classmethod
    def _region_is_known(cls, value: str) -> str:
        if value not in REGIONS:
            raise ValueError(f"{shown(value)} is no region of every network{closest(value, list(REGIONS))}")
        return value


class Decision(Parameters):
    """The rule that decides the study, declared before it runs: see ``brainmets.statistics.decision``.

    ``margin`` is the smallest difference in ``endpoint`` that would matter to patients, in the metric's unit;
    ``alpha`` the one-sided level of each test. ``secondary`` endpoints are tested in the order given.
    """

    endpoint: Endpoint
    margin: DecisionMargin
    alpha: OneSidedLevel
    secondary: list[Endpoint]

    @model_validator(mode="after")
    def _margin_is_attainable(self) -> Self:
        if better(self.endpoint.metric) == "greater" and self.margin >= 1:
            what = f"{self.endpoint.metric} lies between 0 and 1, and no two differ by so much"
            raise ValueError(f"margin: {shown(self.margin)} must be below 1: {what}")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        every = [(one.metric, one.region) for one in (self.endpoint, *self.secondary)]
        if twice := [one for place, one in enumerate(every) if one in every[:place]]:
            raise ValueError(f"secondary: {' of '.join(twice[0])} stands twice; an endpoint is declared once")
        return self


class SmallLesions(Parameters):
    """How arms are compared with ``baseline`` in what the project is for: small lesions, fine-tuned models.

    Lesions of ``detection``'s region, found by its rule, of an equivalent diameter below ``below_mm``, at
    ``false_positives`` a patient; ``alpha``: the two-sided level of all arms' intervals together.
    """

    baseline: Arm
    below_mm: Diameter
    false_positives: FalsePositives
    alpha: Level


class Statistics(NotebookParameters):
    """Notebook 07. ``scores_dir`` and ``out_dir``: ``None`` for this study's own folders; see ``Branches``.

    ``covariates``: a table of what is known of each case or patient (``paired_detection.read_covariates``), or None;
    a relative path is read from the checkout.
    """

    scores_dir: str | None
    out_dir: str | None
    decision: Decision
    alpha: Level
    n_bootstrap: Resamples
    detection: Detection
    small_lesions: SmallLesions | None
    covariates: str | None
    seed: Seed
    repeats: Repeats
    learning_curve: LearningCurve
    strategies: Strategies

    @model_validator(mode="after")
    def _detection_is_measured_where_it_decides(self) -> Self:
        for one in (self.decision.endpoint, *self.decision.secondary):
            if one.metric == DETECTION_SENSITIVITY and one.region != self.detection.region:
                raise ValueError(
                    f"decision: {one.metric} of {shown(one.region)} would never be available, since detection.region "
                    f"is {shown(self.detection.region)}: name the same region in both"
                )
        return self


class CaseReview(NotebookParameters):
    """Notebook 08. ``tile_step`` is for the predictions made anew to explain the best model."""

    seed: Seed
    arms: Arms
    folds: Annotated[list[Fold], Field(min_length=1)]
    n_cases: ShownCases
    n_explained: ExplainedCases
    tile_step: TileStep
    expert_folder: bool
    viewer: Literal["itkwidgets", "niivue", "slices"]

    @model_validator(mode="after")
    def _explains_shown_cases(self) -> Self:
        if self.n_explained > self.n_cases:
            raise ValueError(f"n_explained: {self.n_explained} must be at most n_cases, which is {self.n_cases}")
        return self


class Screening(NotebookParameters):
    """Notebook 09, which screens the next patient with a study's model and is no step of the study.

    ``params``: the study's own YAML, which the engine fills in. ``model``: a bundle's file; null: the study's best
    model is bundled. ``scans``: folders of scans; null: a scanner phantom is made. ``out``: folder for the results;
    null: the study's own. ``show_case``: the scan that is read in the notebook; null: the most suspicious.
    """

    params: str
    model: str | None
    scans: Annotated[list[str], Field(min_length=1)] | None
    out: str | None
    show_case: str | None
    viewer: Literal["itkwidgets", "niivue", "slices"]


class PaperReanalysis(Parameters):
    """The notebook ``paper_reanalysis``, which is no step of a study.

    ``scores_dir`` holds the paper's released score files, or a folder of them for each release; a relative one is read
    from the checkout, and so is ``out_dir``.
    """

    scores_dir: str
    out_dir: str


MODELS: dict[str, type[NotebookParameters]] = dict(
    zip(
        (*NOTEBOOKS, *AFTER),
        (
            *(Preparation, Audit, Alignment, Pretraining, FineTuning, FromScratch, Evaluation, Statistics, CaseReview),
            Screening,
        ),
        strict=True,
    )
)
SHARED = (
    "study", "work_dir", "seed", "sequences", "arms", "folds", "strategies", "repeats", "learning_curve",
    "source", "target",
)  # fmt: skip
"""Parameters that are given once, at the top of the YAML, for every notebook that declares them."""
PER_JOB = ("cohort", "case", "arm", "fold", "strategy", "repeat", "training_cases")
"""Parameters that the engine fills in, one value per job."""
ORIGIN = "params"
"""The parameter that the engine fills in with the study's own file."""
MAIN: dict[str, dict[str, Any]] = {
    "03_pretraining": {"repeat": 1},
    "04_fine_tuning": {"repeat": 1, "training_cases": None},
    "05_from_scratch": {"repeat": 1, "training_cases": None, "strategy": "scratch"},
    "06_evaluation": {"repeat": 1, "training_cases": None},
}
"""What a job of a notebook is unless it says otherwise: one of the study's main trainings, on all cases."""
