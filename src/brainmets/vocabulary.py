"""The words of a study, spelt once: arms, strategies, sequences, labels, regions, metrics, tables and their colours.

Identifiers (``tversky_bce``, ``scratch``, ``hd95``) stand in parameters, paths and tables; readers see titles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

# --- models ------------------------------------------------------------------------------------------------------

Arm = Literal[
    "default", "tversky_bce", "segresnet", "lesion_dice", "lesion_sampling", "lesion_transplant", "default_resenc"
]
ARMS: tuple[Arm, ...] = get_args(Arm)
PAPER_ARMS: tuple[Arm, ...] = ("default", "tversky_bce", "segresnet")
"""The arms that the paper compares; the others are this project's own."""
ARM_TITLES = {
    "default": "Default",
    "tversky_bce": "Tversky + BCE",
    "segresnet": "SegResNet",
    "lesion_dice": "Lesion Dice",
    "lesion_sampling": "Lesion sampling",
    "lesion_transplant": "Lesion transplant",
    "default_resenc": "Residual encoder",
}

UNET_PLAN, RESIDUAL_PLAN = "nnUNetPlans", "nnUNetResEncUNetPlans"
"""What nnU-Net calls the plans of its U-Net and of its residual encoder, which share the preprocessed images."""

Strategy = Literal["pretrained", "finetune", "scratch", "scratch_control"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
COMPARED_STRATEGIES = ("finetune", "scratch")
"""The two of the study's question, trained on the target: the first is asked to be the better one."""
CONTROL: Strategy = "scratch_control"
"""Only where a study asks for it: from scratch, in as many epochs as both trainings of the fine-tuned model have."""
STRATEGY_TITLES = {
    "pretrained": "pretrained only",
    "finetune": "fine-tuned",
    "scratch": "from scratch",
    "scratch_control": "from scratch, as many epochs as both trainings of the fine-tuned",
}
LineStyle = Literal["-", "--", "-.", ":"]
STRATEGY_LINES: dict[str, LineStyle] = {"pretrained": ":", "finetune": "-", "scratch": "--", "scratch_control": "-."}
STRATEGY_HATCHES = {"pretrained": "...", "finetune": "", "scratch": "///", "scratch_control": "xxx"}
STRATEGY_COLOURS = {"finetune": "#0173b2", "scratch": "#de8f05"}
"""Where the compared strategies have colours of their own: of seaborn's colour-blind palette."""
STRATEGY_MARKERS = {"finetune": "o", "scratch": "s"}
"""Filled where fine-tuned, open from scratch."""

Stage = Literal["pretraining", "finetune", "scratch", "scratch_control"]
"""What a training is: on the source, or on the target from the source's weights or from random ones."""
STRATEGY_STAGES: dict[str, Stage] = {
    "pretrained": "pretraining",
    "finetune": "finetune",
    "scratch": "scratch",
    "scratch_control": "scratch_control",
}
"""The stage whose models a strategy predicts the target with; ``pretrained`` takes them as they are (zero-shot)."""
STAGE_NOTEBOOKS: dict[str, str] = {
    "pretraining": "03_pretraining",
    "finetune": "04_fine_tuning",
    "scratch": "05_from_scratch",
    "scratch_control": "05_from_scratch",
}
STAGE_COHORTS: dict[str, str] = {
    "pretraining": "source",
    "finetune": "target",
    "scratch": "target",
    "scratch_control": "target",
}

SOURCE_TRAINED = ("pretrained", "finetune")
"""The strategies whose models have learnt from the source, so that they may forget it."""

Model = tuple[str, str]
"""An (arm, strategy) pair."""

# --- images and labels -------------------------------------------------------------------------------------------

SequenceName = Literal["t1n", "t1c", "t2w", "t2f"]
SEQUENCES: tuple[str, ...] = get_args(SequenceName)
"""All that are known: native T1, contrast-enhanced T1, T2-weighted, T2-FLAIR. A study's channels are some of them, in
this order."""
SEQUENCE_TITLES = {"t1n": "T1", "t1c": "T1 after contrast", "t2w": "T2", "t2f": "FLAIR"}

NIFTI_SUFFIXES = (".nii.gz", ".nii")
"""How the names of the files end that are read: NIfTI is the one format."""
OTHER_FORMATS = {
    ".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD", ".nhdr": "NRRD", ".dcm": "DICOM", ".ima": "DICOM",
    ".dicom": "DICOM", ".hdr": "Analyze", ".mgz": "FreeSurfer", ".mgh": "FreeSurfer", ".mnc": "MINC",
}  # fmt: skip
"""Other formats of images by the ends of their names, for messages."""
CONVERT = "prepared cases are NIfTI: have raw scans (DICOM, MetaImage, NRRD) prepared (`raw`), or convert the files"

Label = Literal["background", "netc", "snfh", "et", "rc"]
LABELS: dict[str, int] = {name: value for value, name in enumerate(get_args(Label))}
"""BraTS metastases: 1 NETC (non-enhancing tumour core), 2 SNFH (surrounding non-enhancing FLAIR hyperintensity),
3 ET (enhancing tumour), 4 RC (resection cavity, from 2024 on)."""
LABEL_TITLES = {
    "netc": "Non-enhancing tumour core",
    "snfh": "Surrounding FLAIR hyperintensity",
    "et": "Enhancing tumour",
    "rc": "Resection cavity",
}
LABEL_COLOURS = {"netc": "#0072B2", "snfh": "#E69F00", "et": "#D55E00", "rc": "#CC79A7"}
"""One colour per label, of Okabe and Ito's colour-blind safe set."""

REGIONS: dict[str, tuple[int, ...]] = {"ET": (3,), "TC": (1, 3), "WT": (1, 2, 3)}
"""The nested regions: ET, TC (tumour core), WT (whole tumour). RC is scored where it occurs, and is part of none."""
RESECTION_CAVITY = "RC"
REGION_ORDER = (*REGIONS, RESECTION_CAVITY)
"""The order of regions in tables and figures."""
NETWORK_REGIONS = ("WT", "TC", "ET")
"""Output channels of every network, as ``dataset.json`` lists the regions: a later one is painted over an earlier."""
REGION_COLOURS = {"WT": "#029e73", "TC": "#d55e00", "ET": "#cc78bc"}
"""One colour per region's outline, of seaborn's colour-blind palette."""
REGION_LINES: dict[str, Literal["-", "--", "-."]] = {"WT": "--", "TC": "-.", "ET": "-"}
"""One line style per region's outline, so that they differ in print."""

LesionDefinition = Literal["brats_2023", "brats_2026"]
"""Whose rules the lesion-wise metrics follow."""

HitRule = Literal["one_to_one", "overlap", "centroid"]
"""When a candidate hits a lesion, see ``brainmets.scoring.candidates``."""
HIT_RULES: tuple[HitRule, ...] = get_args(HitRule)
HIT_RULE_TITLES = {
    "one_to_one": "one to one, IoU of 0.1 or more",
    "overlap": "any overlap",
    "centroid": "centroid inside the lesion",
}

PatchRule = Literal["voxels", "lesions", "small_lesions"]
"""What a patch that must hold foreground is placed on: a voxel of a region (nnU-Net's own), a lesion, each alike, or a
lesion, drawn in proportion to one over its equivalent diameter; then one of its voxels."""

PostRule = Literal["smallest_volume", "tc_without_et", "wt_without_tc", "holes"]
"""Rules of post-processing, see ``brainmets.scoring.post_processing``."""

Zone = Literal["head", "near"]
"""Where calibration is asked for: in the whole head, or near lesions; see ``brainmets.scoring.calibration``."""
ZONES: tuple[Zone, ...] = get_args(Zone)

# --- metrics and tables ------------------------------------------------------------------------------------------

PAPER_METRICS = ("dice", "hd95", "sensitivity", "specificity")
"""The metrics that the paper tests; its two figures show the first two."""
SCORED_METRICS = (
    *("dice", "hd95", "hd", "sensitivity", "specificity", "precision", "nsd_1mm"),
    *("reference_volume", "predicted_volume", "lesion_dice", "lesion_hd95", "lesion_nsd"),
    *("lesion_tp", "lesion_fp", "lesion_fn", "lesion_f1", "lesion_iou_tp", "lesion_iou_fp", "lesion_iou_fn"),
    *("lesion_large_tp", "lesion_large_fp", "lesion_large_fn", "lesion_large_f1"),
    *("lesion_small_tp", "lesion_small_fp", "lesion_small_fn", "lesion_small_f1"),
)
"""Every metric that a case is scored with."""
DETECTION_SENSITIVITY = "detection_sensitivity"
"""The share of a case's lesions that are found at the operating point; it is in no table of scores."""
METRIC_TITLES = {"dice": "Dice", "hd95": "HD95"}
METRIC_AXES = {"dice": "Dice", "hd95": "HD95 (mm)", "sensitivity": "Sensitivity", "specificity": "Specificity"}

SCORE_COLUMNS = ("arm", "strategy", "case", "region", "metric", "value", "unit")
LESION_COLUMNS = (
    "arm", "strategy", "case", "region", "kind", "lesion", "volume_mm3", "x_mm", "y_mm", "z_mm", "matched", "dice",
    "detected", "detected_iou",
)  # fmt: skip


def reference_sequence(sequences: Iterable[str]) -> str:
    """The sequence whose grid stands for the case's: the t1c, or the first of ``SEQUENCES`` where there is no t1c.

    Raises ``ValueError`` where there is no sequence at all.

    >>> reference_sequence(["t1n", "t1c"]), reference_sequence(["t2f"])
    ('t1c', 't2f')
    """
    given = set(sequences)
    for sequence in ("t1c", *SEQUENCES):
        if sequence in given:
            return sequence
    raise ValueError(f"sequences: none of {', '.join(SEQUENCES)} is given")


def region_mask(labels: npt.NDArray[np.integer], region: str) -> npt.NDArray[np.bool_]:
    """Boolean mask of ``region`` ("ET", "TC", "WT" or "RC") in a label map of any shape.

    An empty label map gives an empty mask. Raises ``KeyError`` for an unknown region.
    """
    values = (LABELS["rc"],) if region == RESECTION_CAVITY else REGIONS[region]
    return np.isin(labels, values)


def ordered(found: Iterable[str], known: Sequence[str]) -> list[str]:
    """The distinct names of ``found``: those of ``known`` first, in its order, then the others by alphabet.

    >>> ordered(["WT", "vessel", "ET", "WT"], REGION_ORDER)
    ['ET', 'WT', 'vessel']
    """
    names = set(found)
    return [name for name in known if name in names] + sorted(names - set(known))


def arm_title(arm: str) -> str:
    """The arm's name as a reader sees it; an arm of other people's tables keeps its own."""
    return ARM_TITLES.get(arm, arm)


def model_title(arm: str, strategy: str) -> str:
    """Such as "Tversky + BCE, from scratch"."""
    return f"{arm_title(arm)}, {STRATEGY_TITLES[strategy]}"


def model_phrase(arm: str, strategy: str) -> str:
    """``model_title`` as part of a longer list or sentence: "Tversky + BCE from scratch"."""
    return f"{arm_title(arm)} {STRATEGY_TITLES[strategy]}"


# --- the direction of metrics ------------------------------------------------------------------------------------

Alternative = Literal["greater", "less", "two-sided"]
HIGHER_IS_BETTER = ("dice", "sensitivity", "specificity", "precision", "nsd", "nsd_1mm", "f1", DETECTION_SENSITIVITY)
LOWER_IS_BETTER = ("hd95", "hd", "fp", "fn")


def better(metric: str) -> Alternative | None:
    """The alternative under which the first model is the better one; None for a metric that is described, not tested.

    A lesion-wise metric has its whole-region namesake's. Volumes have no direction, and found lesions (``lesion_tp``)
    are left out because they are the reference lesions less the missed ones (``lesion_fn``): one question, not two.

    >>> better("dice"), better("lesion_hd95"), better("predicted_volume")
    ('greater', 'less', None)
    """
    plain = plain_metric(metric)
    if plain in HIGHER_IS_BETTER:
        return "greater"
    return "less" if plain in LOWER_IS_BETTER else None


def plain_metric(metric: str) -> str:
    """The whole-region namesake of a lesion-wise metric; any other metric itself.

    >>> plain_metric("lesion_small_f1"), plain_metric("dice")
    ('f1', 'dice')
    """
    return metric.removeprefix("lesion_").removeprefix("small_").removeprefix("large_").removeprefix("iou_")


def without_direction(metrics: Iterable[str]) -> list[str]:
    """The metrics, each once and by alphabet, that are described and not tested."""
    return sorted(metric for metric in set(metrics) if better(metric) is None)
