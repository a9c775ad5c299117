"""Which held-out cases the models find hardest, ranked as in the paper, and what makes each one hard in the numbers.

For every model (arm and strategy), metric and region the worst case is marked: the lowest Dice, sensitivity and
specificity, the highest HD95 ("Transfer Learning Approaches for Brain Metastases Screenings", 2024, section 3.2).
Cases are ranked by their marks. The paper does not say what a tie does; here every tied case is marked and the tie is
counted, but where all cases tie nobody is worst and no mark is given.
"""

from __future__ import annotations

import pandas as pd

from brainmets.vocabulary import METRIC_TITLES, STRATEGY_TITLES, arm_title

WORST = {"dice": "lowest", "sensitivity": "lowest", "specificity": "lowest", "hd95": "highest"}
"""Metrics that give marks, and which end of each is worst."""
MARK_COLUMNS = ["arm", "strategy", "metric", "region", "case", "value", "n", "tied", "undefined"]


def marks(scores: pd.DataFrame) -> pd.DataFrame:
    """Every mark that the long score table gives.

    Columns: arm, strategy, metric, region, case, value; ``n`` cases compared; ``tied`` cases that share the worst
    value (1 without a tie); ``undefined`` cases left out because their value is NaN. An infinite HD95 (a region that
    was missed or invented) counts as the highest. Groups with fewer than two defined cases, or where all cases tie,
    give no mark. A table without these metrics gives an empty one.
    """
    rows = []
    chosen = scores[scores["metric"].isin(WORST)]
    for (arm, strategy, metric, region), group in chosen.groupby(
        ["arm", "strategy", "metric", "region"], sort=True, observed=True
    ):
        defined = group[group["value"].notna()]
        if len(defined) < 2:
            continue
        values = defined["value"]
        worst = values.min() if WORST[str(metric)] == "lowest" else values.max()
        hit = defined[values == worst].sort_values("case")
        if len(hit) == len(defined):
            continue
        undefined = len(group) - len(defined)
        rows += [
            (arm, strategy, metric, region, case, worst, len(defined), len(hit), undefined) for case in hit["case"]
        ]
    return pd.DataFrame(rows, columns=MARK_COLUMNS)


def rank(scores: pd.DataFrame, lesions: pd.DataFrame) -> pd.DataFrame:
    """All cases of the score table, the hardest first.

    Columns: ``rank`` (equal marks share the smallest rank), case, marks, ``tied_marks`` (marks shared with another
    case), one count per metric of ``WORST``, one per strategy (``marks_finetune`` ...), the lowest Dice with its model
    and region, and the reference's ``whole_tumour_ml`` (empty where the scores hold no volume). From the lesion table
    the reference tumour-core lesions: ``lesions``, ``smallest_mm3``, ``median_mm3``, ``total_mm3``, ``missed_by_all``
    and ``missed_by_any`` (lesions no model, or not every model, detected); empty where it has no row of the case.
    Cases with equal marks stand in the order of their names.
    """
    given = marks(scores)
    table = pd.DataFrame({"case": sorted(scores["case"].unique())})
    table["marks"] = table["case"].map(given["case"].value_counts()).fillna(0).astype(int)
    tied = given.loc[given["tied"] > 1, "case"].value_counts()
    table["tied_marks"] = table["case"].map(tied).fillna(0).astype(int)
    for metric in WORST:
        counts = given.loc[given["metric"] == metric, "case"].value_counts()
        table[metric] = table["case"].map(counts).fillna(0).astype(int)
    for strategy in sorted(scores["strategy"].unique()):
        counts = given.loc[given["strategy"] == strategy, "case"].value_counts()
        table[f"marks_{strategy}"] = table["case"].map(counts).fillna(0).astype(int)
    for more in (_lowest_dice(scores), _whole_tumour(scores), lesion_load(lesions)):
        table = table.merge(more, on="case", how="left")
    table = table.sort_values(["marks", "case"], ascending=[False, True], ignore_index=True)
    table.insert(0, "rank", table["marks"].rank(method="min", ascending=False).astype(int))
    return table


def lesion_load(lesions: pd.DataFrame, region: str = "TC") -> pd.DataFrame:
    """Reference lesions of ``region`` per case; columns as in ``rank``. An empty table gives an empty one.

    Every model's rows list the same reference lesions; ``ValueError`` names a case where they do not.
    """
    reference = lesions[(lesions["kind"] == "reference") & (lesions["region"] == region)]
    rows = []
    for case, group in reference.groupby("case"):
        found = group.pivot(index="lesion", columns=["arm", "strategy"], values="detected")
        if found.isna().to_numpy().any():
            raise ValueError(
                f"case {case}: the models' lesion tables list different {region} reference lesions; rerun notebook 06"
            )
        detected = found.astype(bool)
        sizes = group.drop_duplicates("lesion")["volume_mm3"]
        rows.append(
            {
                "case": case,
                "lesions": len(sizes),
                "smallest_mm3": sizes.min(),
                "median_mm3": sizes.median(),
                "total_mm3": sizes.sum(),
                "missed_by_all": int((~detected.any(axis=1)).sum()),
                "missed_by_any": int((~detected.all(axis=1)).sum()),
            }
        )
    names = ["case", "lesions", "smallest_mm3", "median_mm3", "total_mm3", "missed_by_all", "missed_by_any"]
    return pd.DataFrame(rows, columns=names)


def explain(ranking: pd.DataFrame, case: str) -> str:
    """What makes ``case`` hard, in words made from ``rank``'s numbers alone.

    Compares the case with the other held-out cases; says so where nothing in the numbers sets it apart. Raises
    ``KeyError`` for a case that the ranking does not hold.
    """
    found = ranking[ranking["case"] == case]
    if found.empty:
        raise KeyError(f"case {case!r} is not in the ranking")
    row, others = found.iloc[0], ranking[ranking["case"] != case]
    total = int(ranking["marks"].sum())
    parts = [f"Marked {_times(row['marks'])} of {total}" + (_shared(row["tied_marks"]) if row["tied_marks"] else "")]
    by_metric = [f"{METRIC_TITLES.get(name, name)} {row[name]}" for name in WORST if row[name]]
    if by_metric:
        parts[0] += f" ({', '.join(by_metric)})"
    if pd.notna(row["lowest_dice"]):
        parts.append(f"lowest Dice {row['lowest_dice']:.2f} ({_model_title(row['lowest_dice_in'])})")
    if pd.notna(row["whole_tumour_ml"]):
        parts.append(f"whole tumour {row['whole_tumour_ml']:.1f} mL" + _extreme(row, others, "whole_tumour_ml"))
    if pd.notna(row["lesions"]):
        parts += _about_lesions(row, others)
    return "; ".join(parts) + "."


def _about_lesions(row: pd.Series, others: pd.DataFrame) -> list[str]:
    count = int(row["lesions"])
    parts = [
        f"{count} tumour-core lesion{'s' if count != 1 else ''} of {row['smallest_mm3']:.0f} mm³ at least, "
        f"{row['total_mm3'] / 1000:.2f} mL together"
    ]
    if row["missed_by_any"]:
        parts.append(
            f"{int(row['missed_by_any'])} missed by at least one model, {int(row['missed_by_all'])} by every model"
        )
    known = others[others["lesions"].notna()]
    apart = []
    if len(known):
        apart += ["the most lesions"] * bool(count > known["lesions"].max())
        apart += ["the smallest lesion"] * bool(row["smallest_mm3"] < known["smallest_mm3"].min())
        apart += ["the smallest volume"] * bool(row["total_mm3"] < known["total_mm3"].min())
        apart += ["the largest volume"] * bool(row["total_mm3"] > known["total_mm3"].max())
        apart += ["the most missed lesions"] * bool(row["missed_by_any"] > known["missed_by_any"].max())
        parts.append(
            "has " + ", ".join(apart) + " of all cases"
            if apart
            else "nothing in its lesions' sizes or number sets it apart"
        )
    return parts


def _lowest_dice(scores: pd.DataFrame) -> pd.DataFrame:
    dice = scores[(scores["metric"] == "dice") & scores["value"].notna()]
    dice = dice.sort_values(["value", "arm", "strategy", "region"]).drop_duplicates("case")
    where = dice["arm"] + " " + dice["strategy"] + ", " + dice["region"]
    return pd.DataFrame({"case": dice["case"], "lowest_dice": dice["value"], "lowest_dice_in": where})


def _whole_tumour(scores: pd.DataFrame) -> pd.DataFrame:
    """The reference's WT volume per case; every model was scored against the same reference."""
    volumes = scores[(scores["metric"] == "reference_volume") & (scores["region"] == "WT")]
    volumes = volumes.drop_duplicates("case")
    return pd.DataFrame({"case": volumes["case"], "whole_tumour_ml": volumes["value"]})


def _extreme(row: pd.Series, others: pd.DataFrame, column: str) -> str:
    known = others[column].dropna()
    if len(known) and row[column] > known.max():
        return ", the largest of all cases"
    if len(known) and row[column] < known.min():
        return ", the smallest of all cases"
    return ""


def _model_title(where: str) -> str:
    """``"default scratch, WT"``, as the table has it, in words."""
    model, region = where.split(", ")
    arm, strategy = model.split(" ")
    return f"{arm_title(arm)} {STRATEGY_TITLES[strategy]}, {region}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _shared(count: int) -> str:
    return f", {count} of them shared with another case"
