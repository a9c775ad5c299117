"""Notebook 08's pictures of the challenging cases, each with its words, and the record that the report reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from brainmets.figures import save
from brainmets.files import slug, write_csv
from brainmets.review.case import ReviewCase
from brainmets.review.panels import BEST_SEQUENCE, case_panel, missed_montage, worst_slice
from brainmets.review.viewers import write_volumes
from brainmets.vocabulary import REGIONS, SEQUENCE_TITLES, Model

RULE = (
    "For every model, metric (Dice, sensitivity, specificity, HD95) and region the worst case is marked, and cases "
    "are ranked by their marks, as in the paper. Tied cases are all marked; where every case ties, none is. The cases "
    "marked most often are shown."
)
MISSED_REGION = "TC"
"""Lesions are counted, shown and called missed in this region."""

Entry = dict[str, str]


def regions_to_show(marks: pd.DataFrame, case: str) -> list[str]:
    """The region in which ``case`` was marked most often (of equals the first of ET, TC, WT), and the whole tumour."""
    counts = marks.loc[marks["case"] == case, "region"].value_counts()
    most = max(REGIONS, key=lambda region: int(counts.get(region, 0)))
    return list(dict.fromkeys([most, "WT"]))


def draw_case(
    case: ReviewCase, regions: list[str], dice: Mapping[tuple[str, str, str], float], folder: Path
) -> list[Entry]:
    """Draw one panel per region into ``folder``/panels.

    ``dice`` maps (arm, strategy, region) to the case's Dice. Returns an entry per picture: file (below ``folder``),
    alt, shows, cannot_show.
    """
    entries = []
    for region in regions:
        scores: dict[Model, float] = {
            (arm, strategy): value for (arm, strategy, name), value in dice.items() if name == region
        }
        file = f"panels/{slug(case.name)}_{region}.png"
        save(case_panel(case, region, scores), folder / file)
        z, area = worst_slice(case, region)
        entries.append(
            {
                "file": file,
                "alt": f"{case.name}, {region}: axial slice {z} with the prediction of {len(case.predictions)} models",
                "shows": f"{region} of {case.name} on {SEQUENCE_TITLES[BEST_SEQUENCE[region]]}, on the axial slice "
                f"where the {len(case.predictions)} models together differ most from the reference ({area:.0f} mm²).",
                "cannot_show": "One slice of one case, chosen because it is the worst: nothing about the other "
                "slices, and nothing about how often such errors occur.",
            }
        )
    return entries


def draw_missed(cases: dict[str, ReviewCase], missed: pd.DataFrame, folder: Path) -> list[Entry]:
    """Draw the montage of missed lesions into ``folder``/panels; no entry where none was missed."""
    if missed.empty:
        return []
    save(missed_montage(cases, missed, MISSED_REGION), folder / "panels" / "missed_lesions.png")
    largest, by_all = missed["volume_mm3"].max(), int((missed["missed_by"] == missed["models"]).sum())
    return [
        {
            "file": "panels/missed_lesions.png",
            "alt": f"{len(missed)} lesions that at least one model missed, the smallest first",
            "shows": f"All {len(missed)} tumour-core lesions that at least one model missed ({by_all} of them by "
            f"every model), of {missed['volume_mm3'].min():.0f} to {largest:.0f} mm³.",
            "cannot_show": "Why a lesion was missed, and the lesions that no reference holds.",
        }
    ]


def keep_volumes(case: ReviewCase, folder: Path) -> dict[str, Any]:
    """Write what the report's 3D page of the case shows to ``folder``/volumes and describe it."""
    return write_volumes(case, slug(case.name), folder)


def record(
    ranking: pd.DataFrame,
    entries: Mapping[str, list[Entry]],
    figures: list[Entry],
    words: Mapping[str, str],
    names: Mapping[str, str],
    volumes: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """The content of ``review.json``: rule, figures, and in rank order the cases.

    A case has name, slug, rank, marks, explanation, figures and volumes. ``entries``, ``words`` and ``volumes`` map
    a case to its pictures, explanation and volumes (``keep_volumes``); ``names`` to what is printed for it.
    """
    by_case = ranking.set_index("case")
    return {
        "rule": RULE,
        "cases": [
            {
                "name": names[case],
                "slug": slug(names[case]),
                "rank": int(by_case.loc[case, "rank"]),  # type: ignore[arg-type]
                "marks": int(by_case.loc[case, "marks"]),  # type: ignore[arg-type]
                "explanation": words[case],
                "figures": own,
                "volumes": volumes[case],
            }
            for case, own in entries.items()
        ],
        "figures": figures,
    }


def write_pseudonyms(folder: Path, names: Mapping[str, str]) -> None:
    """Keep the key from case names to pseudonyms beside the results; the report reads it and never shows it.

    Without names an older key is deleted, so that the report shows names again.
    """
    key = folder / "pseudonyms.csv"
    if names:
        write_csv(key, pd.DataFrame({"case": list(names), "pseudonym": list(names.values())}))
    else:
        key.unlink(missing_ok=True)
