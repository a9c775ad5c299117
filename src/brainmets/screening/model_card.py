"""The page of a bundle that people read: what the model is, what it was trained on, what it was measured to do."""

from __future__ import annotations

import math
from collections.abc import Iterable

from brainmets.screening.contents import Model, PerformanceRow, ScoreRow
from brainmets.statistics.tests import percent
from brainmets.vocabulary import HIT_RULE_TITLES, SEQUENCE_TITLES, model_phrase

TEXT = """# {name}

**Research use only.** Not for diagnosis, treatment or any decision about a patient.

A model that marks brain metastases in MRI: {phrase}, {folds}.
Made with BrainMets Transfer {release} on {created}; `model.json` lists every version.

## What it reads

{count} of one examination: {sequences}.
Registered to each other, brain extracted, on one grid.{lacking}
{preparation}

## What it was trained on

{training}

Licence of the data: {licence}.

## Operating point

A candidate of {region} is accepted where its highest probability is {threshold:.3g} or more and its volume
{smallest:g} mm^3 or more. Chosen on {chosen} cross-validated training case(s) for at most {target:g} false positives a
case ({hit}): {found} of {lesions} lesions found there at {false:.2f} false positives
a case{met}.

## Measured

On {held_out} cases that took no part in training or choice. Intervals are at {interval} and count patients.

| lesions of {region} | found | sensitivity | interval |
|---|---|---|---|
{detected}

{false_positives}

| region | measure | cases | mean | interval | left out |
|---|---|---|---|---|---|
{scores}

## Limits

- Small metastases are missed more often than the row of all sizes shows.
- The numbers are of one cohort and one training: another hospital's scanner, protocol or patients may give others.
- A scan unlike the training cohort's is outside what was measured; `cohort.json` has that cohort in numbers.
- Weights may remember what they were trained on: treat the file as the data's owner asks.
"""


COUNTS = ("One sequence", "Two sequences", "Three sequences", "Four sequences")


def text(model: Model, cohort: int) -> str:
    """``model_card.md``; ``cohort``: cases of the profile."""
    card, point, performance = model.card, model.point, model.performance
    return TEXT.format(
        name=card.name,
        phrase=model_phrase(card.arm, card.strategy),
        folds=f"the mean of {len(card.folds)} folds" if len(card.folds) > 1 else "one fold",
        release=card.versions.get("brainmets", "of unknown release"),
        created=card.created,
        count=COUNTS[len(card.sequences) - 1],
        lacking=_lacking(model),
        sequences=", ".join(f"{SEQUENCE_TITLES[name]} ({name})" for name in card.sequences),
        preparation=_preparation(model),
        training=_training(model, cohort),
        licence=card.licence.rstrip("."),
        region=model.aim.region,
        hit=HIT_RULE_TITLES[model.aim.hit],
        threshold=point.threshold,
        smallest=point.smallest_mm3,
        chosen=point.cases,
        target=model.aim.false_positives,
        found=point.found,
        lesions=point.lesions,
        false=point.false / point.cases if point.cases else math.nan,
        met="" if point.met else "; the aim could not be met, and this is the fewest that there are",
        held_out=card.held_out_cases,
        interval=percent(card.interval),
        detected="\n".join(map(_detected, performance)),
        false_positives=_false_positives(performance[0]),
        scores="\n".join(map(_score, model.scores)),
    )


def _lacking(model: Model) -> str:
    """Which sequences a scan may be without, and by what training; "" where it needs all."""
    card = model.card
    if not (free := card.reads.may_lack):
        return ""
    how = f"each sequence of a training patch was blanked with probability {card.sequence_dropout:g}"
    if not card.sequence_dropout:
        how = "single training cases lacked it"
    titles = ", ".join(f"{SEQUENCE_TITLES[name]} ({name})" for name in free)
    return f"\nA scan may be without {titles}: {how}. What was measured is of the held-out cases as they were."


def _preparation(model: Model) -> str:
    settings, card = model.preparation, model.card
    space = "each case on the grid of its own contrast-enhanced T1"
    if settings.spacing_mm is not None:
        space = f"as the MNI152 template lies, in voxels of {_by(settings.spacing_mm)} mm"
    shading = "corrected" if settings.bias_field else "not corrected"
    how = f"{space}, the mask widened by {settings.mask_margin_mm:g} mm, the scanner's shading {shading}"
    if not card.training_cases:
        return f"A raw scan is prepared like this: {how}. No case of the target cohort was trained on."
    if card.prepared_here == card.training_cases:
        return f"The training cases were prepared like this: {how}."
    return (
        f"A raw scan is prepared like this: {how}.\n{card.prepared_here} of the {card.training_cases} training cases "
        "of the target were; the others came prepared by other means, and may look otherwise."
    )


def _training(model: Model, cohort: int) -> str:
    card, plan = model.card, model.plan
    parts = [
        f"{cases} case(s) of {patients} patient(s) of the {name} cohort"
        + (" (phantoms, not patients)" if name in card.phantoms else "")
        for name, cases, patients in (
            ("source", card.source_cases, card.source_patients),
            ("target", card.training_cases, card.training_patients),
        )
        if cases
    ]
    spacing = _by(plan.original_median_spacing_after_transp)
    size, seen = _by(plan.original_median_shape_after_transp), _by(plan.configurations.fullres.spacing)
    return (
        f"{', then '.join(parts)}.\nThe target's images have voxels of {spacing} mm and heads of {size} voxels "
        f"(medians, in the order of the network's axes);\nthe network sees voxels of {seen} mm. "
        f"The profile in `cohort.json` is of {cohort} case(s)."
    )


def _by(sides: Iterable[float]) -> str:
    return " x ".join(f"{side:.3g}" for side in sides)


def _detected(row: PerformanceRow) -> str:
    if row.sensitivity is None or row.low is None or row.high is None:
        return f"| {row.size} | {row.found} of {row.lesions} | unknown | unknown |"
    return f"| {row.size} | {row.found} of {row.lesions} | {row.sensitivity:.0%} | {row.low:.0%} to {row.high:.0%} |"


def _false_positives(row: PerformanceRow) -> str:
    if row.false_positives is None:
        return "False positives were not measured."
    ends = f"{_number(row.false_positives_low, '.2f')} to {_number(row.false_positives_high, '.2f')}"
    return f"False positives: {row.false_positives:.2f} a case ({ends}; {row.target:g} was aimed at)."


def _score(row: ScoreRow) -> str:
    unit = " mm" if row.metric == "hd95" else ""
    digits = ".1f" if row.metric == "hd95" else ".3f"
    mean, low, high = (_number(value, digits) for value in (row.mean, row.ci_low, row.ci_high))
    name = {"dice": "Dice", "hd95": "HD95"}[row.metric]
    return f"| {row.region} | {name} | {row.n} | {mean}{unit} | {low} to {high} | {row.left_out} |"


def _number(value: float | None, digits: str) -> str:
    return "unknown" if value is None else format(value, digits)
