"""Notebook 08's pictures of the challenging cases, each with its words, and the record that the report reads."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Image, display

from brainmets.figures import save
from brainmets.paths import StudyPaths
from brainmets.review.case import ReviewCase, read_case
from brainmets.review.panels import (
    LesionPicture,
    best_sequence,
    case_panel,
    compared_models,
    lesion_pictures,
    missed_montage,
    worst_slice,
)
from brainmets.review.ranking import explain
from brainmets.scoring.one_to_one import IN_WORDS
from brainmets.vocabulary import SEQUENCE_TITLES

RULE = (
    "For every model that was trained on the target, metric (Dice, sensitivity, specificity, HD95) and region the "
    "worst case is marked, and cases are ranked by their marks, as in the paper. Tied cases are all marked; where "
    "every case ties, none is. The cases marked most often are shown."
)

Entry = dict[str, str]
"""A picture in ``review.json``: file (below the review's folder), alt, shows, cannot_show."""


def show(entries: list[Entry], folder: Path) -> None:
    """Show pictures of ``folder`` in a notebook, each with its text for those who do not see it."""
    for entry in entries:
        display(Image(filename=folder / entry["file"], alt=entry["alt"], width=900))


def draw_case(
    case: ReviewCase, regions: list[str], dice: Mapping[tuple[str, str, str], float], folder: Path
) -> list[Entry]:
    """Draw one panel per region into ``folder``/panels.

    ``dice`` maps (arm, strategy, region) to the case's Dice. Gives an entry per picture.
    """
    entries = []
    for region in regions:
        scores = {(arm, strategy): value for (arm, strategy, name), value in dice.items() if name == region}
        file = f"panels/{case.name}_{region}.png"
        save(case_panel(case, region, scores), folder / file)
        z, area = worst_slice(case, region)
        models = f"{len(case.predictions)} models"
        compared = f"{len(compared_models(case))} models trained on the target"
        drawn = SEQUENCE_TITLES[best_sequence(region, case.images)]
        entries.append(
            {
                "file": file,
                "alt": f"{case.name}, {region}: axial slice {z} with the prediction of {models}",
                "shows": f"{region} of {case.name} on {drawn}, on the axial slice "
                f"where the {compared} together differ most from the reference ({area:.0f} mm²).",
                "cannot_show": "One slice of one case, chosen because it is the worst: nothing about the other "
                "slices, and nothing about how often such errors occur.",
            }
        )
    return entries


def draw_missed(files: StudyPaths, missed: pd.DataFrame) -> list[Entry]:
    """Draw the montage of ``ranking.missed_lesions`` into the review's panels; no entry where none was missed.

    One case is read at a time.
    """
    if missed.empty:
        return []
    pictures: dict[Hashable, LesionPicture] = {}
    for case, rows in missed.groupby("case"):
        shown = read_case(files, str(case), [], ("t1c",))
        pictures |= dict(zip(rows.index, lesion_pictures(shown, rows), strict=True))
    file = "panels/missed_lesions.png"
    save(missed_montage([pictures[place] for place in missed.index]), files.review / file)
    volumes, by_all = missed["volume_mm3"], int((missed["missed_by"] == missed["models"]).sum())
    return [
        {
            "file": file,
            "alt": f"{len(missed)} lesions that at least one model missed, the smallest first",
            "shows": f"All {len(missed)} tumour-core lesions that at least one model missed ({by_all} of them by "
            f"every model), of {volumes.min():.0f} to {volumes.max():.0f} mm³, outlined as the reference has them. "
            f"{IN_WORDS}",
            "cannot_show": "Why a lesion was missed, and the lesions that no reference holds.",
        }
    ]


def record(
    ranking: pd.DataFrame,
    pictures: Mapping[str, list[Entry]],
    volumes: Mapping[str, dict[str, Any]],
    further: list[Entry],
) -> dict[str, Any]:
    """The content of ``review.json``: rule, figures (``further``), and the cases of ``pictures`` in rank order.

    A case has name, rank, marks, explanation, figures (its ``pictures``) and ``volumes``, which
    ``viewers.write_volumes`` has written for its 3D page.
    """
    cases = []
    for line in ranking[ranking["case"].isin(pictures.keys())].to_dict("records"):
        cases.append(
            {
                "name": line["case"],
                "rank": line["rank"],
                "marks": line["marks"],
                "explanation": explain(ranking, line["case"]),
                "figures": pictures[line["case"]],
                "volumes": volumes[line["case"]],
            }
        )
    return {"rule": RULE, "cases": cases, "figures": further}
