"""Which model is the best, by cross-validated scores alone.

The best model is explained and handed to experts on the held-out cases. Chosen by its scores there, it would be shown
where it had most luck. Notebook 06 has every training case of the target predicted by the model of the one fold that
did not train on it; these scores choose. A case without a region says nothing about it: with both masks empty Dice is
1 by rule, and a single false voxel makes it 0. Such cases do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from brainmets.files import read_json, shaped
from brainmets.statistics.tables import models, read_scores, values
from brainmets.vocabulary import COMPARED_STRATEGIES, REGIONS, Model, model_phrase

RULE = (
    "The best model has the highest mean Dice in cross-validation: the mean of its mean Dice of ET, TC and WT, each "
    "over the target's training cases whose reference holds the region, predicted by a model that did not train on "
    "them. Of equals the first in the study's order is taken. Models that are pretrained only are listed and not "
    "chosen: of them all folds predict a case together, of the others one does."
)
OF_REGION = [f"{name}_{region}" for region in REGIONS for name in ("dice", "n")]
COLUMNS = ["place", "arm", "strategy", "mean_dice", *OF_REGION]
SAME = 9
"""Decimals of the mean Dice up to which two models are equals: what the order of additions leaves."""


@dataclass(frozen=True)
class Choice:
    """The models in their order, and why none was chosen, if so.

    ``table``, with ``COLUMNS``: one row per model, the best first, those that are listed only last: ``place`` (from 1;
    empty for the latter), arm, strategy, ``mean_dice``, and of each region ``dice_<region>`` and ``n_<region>``, the
    cases that it is the mean of. A region that no reference holds is empty and enters no mean. ``cases``: the training
    cases that all models to choose from have in common. ``reason``: why no model was chosen, else an empty text.
    """

    table: pd.DataFrame
    cases: tuple[str, ...]
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Which model is the best, which comes next, and on how many cases that rests."""
        if self.reason:
            return f"No model was chosen as the best: {self.reason}."
        best, *others = [
            f"{model_phrase(row['arm'], row['strategy'])} (mean Dice {row['mean_dice']:.3f})"
            for row in self._placed.to_dict("records")
        ]
        n = len(self.cases)
        return (
            f"By cross-validation on {n} training case{'s' * (n != 1)} of the target, {best} is the best model"
            + (f", before {others[0]}" if others else ", there being no other to choose from")
            + "; the held-out cases had no part in this choice."
        )

    def record(self) -> dict[str, Any]:
        """What ``best_model.json`` says: rule, sentence, models (arm, strategy, mean_dice; the best first), cases."""
        chosen = self._placed[["arm", "strategy", "mean_dice"]].to_dict("records")
        return {"rule": RULE, "sentence": self.sentence, "models": chosen, "cases": list(self.cases)}

    @property
    def _placed(self) -> pd.DataFrame:
        return self.table[self.table["place"].notna()]


def choose_model(scores: pd.DataFrame) -> Choice:
    """Order the models by ``RULE``. ``scores``: the long score table of the target's training cases.

    Only cases that every model to choose from has are compared; of a model that is listed only, those of them that it
    has. Nothing is chosen where no model was trained on the target, no case is common, or no reference holds a tumour.
    """
    found = models(scores)
    candidates = [model for model in found if model[1] in COMPARED_STRATEGIES]
    if not candidates:
        return not_chosen("no model that was trained on the target is cross-validated (run notebook 06)")
    dice = {region: values(scores, "dice", region) for region in REGIONS}
    common = sorted(set.intersection(*(set(table[candidates].dropna().index) for table in dice.values())))
    table = pd.DataFrame([{"arm": arm, "strategy": strategy} for arm, strategy in found])
    for region in REGIONS:
        volume = values(scores, "reference_volume", region).max(axis=1)
        holding = dice[region].loc[[case for case in common if volume[case] > 0], found]
        table[f"dice_{region}"] = holding.mean().to_numpy()
        table[f"n_{region}"] = holding.count().to_numpy()
    table["mean_dice"] = table[[f"dice_{region}" for region in REGIONS]].mean(axis=1)
    listed_only = ~table["strategy"].isin(COMPARED_STRATEGIES)
    if table.loc[~listed_only, "mean_dice"].isna().any():
        return not_chosen("no training case that all models have in common holds a tumour")
    order = pd.DataFrame({"listed": listed_only, "dice": -table["mean_dice"].round(SAME)})
    table = table.loc[order.sort_values(["listed", "dice"], kind="stable").index]
    table["place"] = pd.array([*range(1, len(candidates) + 1), *[None] * int(listed_only.sum())], dtype="Int64")
    return Choice(table[COLUMNS].reset_index(drop=True), tuple(common))


def not_chosen(reason: str) -> Choice:
    """No choice, for this reason (part of a sentence): an empty table."""
    return Choice(pd.DataFrame(columns=COLUMNS), (), reason)


def read_cross_validated(folder: Path) -> pd.DataFrame:
    """The score tables of the target's training cases; ``FileNotFoundError`` where notebook 06 wrote none."""
    if not any(folder.rglob("scores.csv")):
        raise FileNotFoundError(f"{folder} holds no scores.csv: run notebook 06 again, which cross-validates too")
    return read_scores(folder)


@shaped
def read_best_models(path: Path) -> list[Model]:
    """The models of ``best_model.json``, the best first; empty where none was chosen.

    Raises ``FileNotFoundError`` where notebook 07 has not run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent.name}: run notebook 07, which chooses, first")
    return [(row["arm"], row["strategy"]) for row in read_json(path)["models"]]
