"""What each figure of notebook 07 shows, and what it cannot show: one sentence each, for ``statistics.json``."""

from __future__ import annotations

from collections.abc import Iterable

CAPTIONS = {
    "mean_dice.png": (
        "The mean Dice of each model on the held-out cases, with its t interval, cut at 1; higher is better.",
        "It cannot show which case each score belongs to: overlapping bars may hide a gain in every single case.",
    ),
    "mean_hd95.png": (
        "The mean HD95 of each model in mm, with its BCa bootstrap interval; lower is better.",
        "It cannot show whether one bad case makes the mean: a long whisker upwards hints at it.",
    ),
    "paired_dice.png": (
        "Every case's Dice from scratch and fine-tuned, joined by a line.",
        "It cannot show whether a retrained model would fall on the same side.",
    ),
    "paired_hd95.png": (
        "Every case's HD95 from scratch and fine-tuned, joined by a line, logarithmic above 1 mm.",
        "It cannot show where in the image the boundary is off.",
    ),
    "volume_agreement.png": (
        "Predicted minus reference volume of every case, with mean difference (thick) and limits of agreement (thin).",
        "It cannot show overlap: a prediction in the wrong place may have the right volume.",
    ),
    "detection_by_size.png": (
        "The share of reference lesions that each model finds, by lesion size, with exact 95% intervals.",
        "It cannot show that lesions of one patient are alike, which makes the intervals too narrow.",
    ),
}


def entries(files: Iterable[str]) -> list[dict[str, str]]:
    """What ``statistics.json`` says of each figure file, in the order given: file, shows and cannot_show."""
    return [{"file": file, "shows": CAPTIONS[file][0], "cannot_show": CAPTIONS[file][1]} for file in files]
