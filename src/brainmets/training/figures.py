"""Pictures of a training: its losses, its pseudo-Dice and its learning rate."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DICE_STYLE = {"WT": ("#029e73", "--", "s"), "TC": ("#d55e00", "-.", "^"), "ET": ("#cc78bc", "-", "o")}


def learning_curves(curves: pd.DataFrame, title: str) -> Figure:
    """Loss, pseudo-Dice per region, and learning rate against the epoch.

    ``curves`` is what ``TrainingSession.curves`` gives. An epoch whose validation patches neither held nor predicted
    a region leaves a gap in that region's line.
    """
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    loss, dice, rate = figure.subplots(1, 3)
    loss.plot(curves.epoch, curves.training_loss, color="black", label="training")
    loss.plot(curves.epoch, curves.validation_loss, color="#0173b2", linestyle="--", label="validation")
    loss.set(xlabel="epoch", ylabel="loss")
    loss.legend(frameon=False)
    every = max(1, len(curves) // 10)
    for region, (colour, line, marker) in DICE_STYLE.items():
        dice.plot(
            curves.epoch, curves[f"dice_{region}"], color=colour, linestyle=line, marker=marker, markevery=every,
            label=region,
        )  # fmt: skip
    dice.set(xlabel="epoch", ylabel="pseudo-Dice", ylim=(0, 1))
    dice.legend(frameon=False)
    rate.plot(curves.epoch, curves.learning_rate, color="black")
    rate.set(xlabel="epoch", ylabel="learning rate")
    for panel in (loss, dice, rate):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    sns.despine(figure)
    return figure
