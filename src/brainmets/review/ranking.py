"""Which held-out cases the models find hardest, ranked as in the paper, and what makes each one hard in the numbers.

For every model (arm and strategy), metric and region the worst case is marked: the lowest Dice, sensitivity and
specificity, the highest HD95 ("Transfer Learning Approaches for Brain Metastases Screenings", 2024, section 3.2).
Cases are ranked by their marks. The paper does not say what a tie does; here every tied case is marked and the tie is
counted, but where all cases tie nobody is worst and no mark is given. The resection cavity gives no mark: no network
has an output for it, so that its scores tell nothing of how hard a case was for a model. Nor does a Dice, sensitivity
or HD95 of a case whose reference lacks the region (docs/metrics.md): one false voxel would make it the worst.

Give these functions the rows of models that were trained on the target (``tables.of_trained``). A model that is
pretrained only fails where the target is foreign to it, which says nothing of how hard a case is; and nearly every
lesion would be one that "at least one model" missed.
"""

from __future__ import annotations

import pandas as pd

from brainmets.statistics.tables import with_reference
from brainmets.vocabulary import METRIC_TITLES, REGIONS, RESECTION_CAVITY, STRATEGY_TITLES, arm_title

WORST = {"dice": "lowest", "sensitivity": "lowest", "specificity": "lowest", "hd95": "highest"}
"""Metrics that give marks, and which end of each is worst."""
LESION_REGION = "TC"
"""Lesions are counted, shown and called missed in the tumour core, by the one-to-one rule (``detected_iou``)."""
MARK_COLUMNS = ["arm", "strategy", "metric", "region", "case", "value", "n", "tied", "undefined"]


def marks(scores: pd.DataFrame) -> pd.DataFrame:
    """Every mark that the long score table gives.

    Columns: arm, strategy, metric, region, case, value; ``n`` cases compared; ``tied`` cases that share the worst
    value (1 without a tie); ``undefined`` cases left out because their value is NaN. An infinite HD95 (a region that
    was missed) counts as the highest. Groups with fewer than two defined cases, or where all cases tie,
    give no mark. A table without these metrics gives an empty one.
    """
    rows = []
    scores = with_reference(scores)
    chosen = scores[scores["metric"].isin(WORST) & (scores["region"] != RESECTION_CAVITY)]
    for (arm, strategy, metric, region), group in chosen.groupby(["arm", "strategy", "metric", "region"]):
        defined = group[group["value"].notna()].sort_values("case")
        worst = defined["value"].min() if WORST[str(metric)] == "lowest" else defined["value"].max()
        marked = defined.loc[defined["value"] == worst, "case"]
        n, tied, undefined = len(defined), len(marked), len(group) - len(defined)
        if tied < n:
            rows += [(arm, strategy, metric, region, case, worst, n, tied, undefined) for case in marked]
    return pd.DataFrame(rows, columns=MARK_COLUMNS)


def rank(scores: pd.DataFrame, lesions: pd.DataFrame) -> pd.DataFrame:
    """All cases of the score table, the hardest first.

    Columns: ``rank`` (equal marks share the smallest rank), case, marks, ``tied_marks`` (marks shared with another
    case), one count per metric of ``WORST``, one per strategy (``marks_finetune`` ...), the lowest Dice with its model
    and region (the resection cavity and regions that the reference lacks aside), and the reference's
    ``whole_tumour_ml`` (empty where the scores hold no volume). From the lesion table the reference tumour-core
    lesions: ``lesions``, ``smallest_mm3``, ``median_mm3``, ``total_mm3``, ``missed_by_all`` and ``missed_by_any``
    (lesions that no model, or not every model, found by the one-to-one rule). Of a case without a row there they are
    empty, but where the scores say that its reference holds no tumour core: then it has 0 lesions. Cases with equal
    marks are sorted by name.
    """
    given = marks(scores)
    table = pd.DataFrame({"case": sorted(scores["case"].unique())})

    def count(rows: pd.DataFrame) -> pd.Series:
        return table["case"].map(rows["case"].value_counts()).fillna(0).astype(int)

    table["marks"] = count(given)
    table["tied_marks"] = count(given[given["tied"] > 1])
    for metric in WORST:
        table[metric] = count(given[given["metric"] == metric])
    for strategy in sorted(scores["strategy"].unique()):
        table[f"marks_{strategy}"] = count(given[given["strategy"] == strategy])
    judged = with_reference(scores)
    dice = judged[(judged["metric"] == "dice") & judged["value"].notna() & (judged["region"] != RESECTION_CAVITY)]
    lowest = dice.sort_values(["value", "arm", "strategy", "region"]).drop_duplicates("case").set_index("case")
    table["lowest_dice"] = table["case"].map(lowest["value"])
    table["lowest_dice_in"] = table["case"].map(lowest["arm"] + " " + lowest["strategy"] + ", " + lowest["region"])
    volumes = scores[(scores["metric"] == "reference_volume") & (scores["region"] == "WT")].drop_duplicates("case")
    table["whole_tumour_ml"] = table["case"].map(
        volumes.set_index("case")["value"]
    )  # every model's rows give the same
    table = table.merge(lesion_load(lesions), on="case", how="left")
    core = scores[(scores["metric"] == "reference_volume") & (scores["region"] == LESION_REGION)]
    empty = table["lesions"].isna() & table["case"].isin(core.loc[core["value"] == 0, "case"])
    table.loc[empty, ["lesions", "total_mm3", "missed_by_all", "missed_by_any"]] = 0
    table = table.sort_values(["marks", "case"], ascending=[False, True], ignore_index=True)
    table.insert(0, "rank", table["marks"].rank(method="min", ascending=False).astype(int))
    return table


def lesion_load(lesions: pd.DataFrame) -> pd.DataFrame:
    """Reference lesions of ``LESION_REGION`` per case; columns as in ``rank``. An empty table gives an empty one.

    Every model's rows list the same reference lesions; ``ValueError`` names a case where they do not.
    """
    rows = []
    for case, group in _reference_lesions(lesions).groupby("case"):
        detected = group.pivot(index="lesion", columns=["arm", "strategy"], values="detected_iou")
        if detected.isna().to_numpy().any():
            raise ValueError(
                f"case {case}: the models' lesion tables list different {LESION_REGION} reference lesions; "
                "rerun notebook 06"
            )
        found_by = detected.astype(bool).sum(axis=1)
        sizes = group.drop_duplicates("lesion")["volume_mm3"]
        missed = int((found_by == 0).sum()), int((found_by < detected.shape[1]).sum())
        rows.append((case, len(sizes), sizes.min(), sizes.median(), sizes.sum(), *missed))
    names = ["case", "lesions", "smallest_mm3", "median_mm3", "total_mm3", "missed_by_all", "missed_by_any"]
    return pd.DataFrame(rows, columns=names)


def missed_lesions(lesions: pd.DataFrame) -> pd.DataFrame:
    """Reference lesions of ``LESION_REGION`` that at least one model missed (one-to-one rule), the smallest first.

    Columns: case, lesion, volume_mm3, x_mm, y_mm, z_mm, ``missed_by`` (number of models), ``models`` (number of
    models scored) and ``missed_by_names``. Without a missed lesion the table is empty.
    """
    rows = []
    for (case, lesion), group in _reference_lesions(lesions).groupby(["case", "lesion"]):
        missed = group[~group["detected_iou"].astype(bool)]
        if len(missed):
            size_and_place = group.iloc[0][["volume_mm3", "x_mm", "y_mm", "z_mm"]]
            names = ", ".join(sorted(missed["arm"] + " " + missed["strategy"]))
            rows.append((case, lesion, *size_and_place, len(missed), len(group), names))
    columns = ["case", "lesion", "volume_mm3", "x_mm", "y_mm", "z_mm", "missed_by", "models", "missed_by_names"]
    return pd.DataFrame(rows, columns=columns).sort_values(["volume_mm3", "case", "lesion"], ignore_index=True)


def regions_to_show(marks: pd.DataFrame, case: str) -> list[str]:
    """The region in which ``case`` was marked most often (of equals the first of ET, TC, WT), and the whole tumour."""
    counts = marks.loc[marks["case"] == case, "region"].value_counts()
    most = max(REGIONS, key=lambda region: int(counts.get(region, 0)))
    return list(dict.fromkeys([most, "WT"]))


def explain(ranking: pd.DataFrame, case: str) -> str:
    """What makes ``case`` hard, in words made from ``rank``'s numbers alone.

    Compares the case with the other held-out cases; says so where nothing in the numbers sets it apart. Raises
    ``KeyError`` for a case that the ranking does not hold.
    """
    found = ranking[ranking["case"] == case]
    if found.empty:
        raise KeyError(f"case {case!r} is not in the ranking")
    row, others = found.iloc[0], ranking[ranking["case"] != case]
    times = "once" if row["marks"] == 1 else f"{row['marks']} times"
    parts = [f"Marked {times} of {ranking['marks'].sum()}"]
    if row["tied_marks"]:
        parts[0] += f", {row['tied_marks']} of them shared with another case"
    by_metric = [f"{METRIC_TITLES.get(name, name)} {row[name]}" for name in WORST if row[name]]
    if by_metric:
        parts[0] += f" ({', '.join(by_metric)})"
    if pd.notna(row["lowest_dice"]):
        model, region = row["lowest_dice_in"].split(", ")
        arm, strategy = model.split(" ")
        where = f"{arm_title(arm)} {STRATEGY_TITLES[strategy]}, {region}"
        parts.append(f"lowest Dice {row['lowest_dice']:.2f} ({where})")
    if row["whole_tumour_ml"] == 0:
        return "; ".join([*parts, "no lesion in the reference: all that a model marks there is invented"]) + "."
    if pd.notna(volume := row["whole_tumour_ml"]):
        known = others["whole_tumour_ml"].dropna()
        extreme = ""
        if len(known) and not known.min() <= volume <= known.max():
            extreme = f", the {'largest' if volume > known.max() else 'smallest'} of all cases"
        parts.append(f"whole tumour {volume:.1f} mL{extreme}")
    if pd.notna(row["lesions"]):
        parts += _about_lesions(row, others)
    return "; ".join(parts) + "."


def _about_lesions(row: pd.Series, others: pd.DataFrame) -> list[str]:
    count = int(row["lesions"])
    if not count:
        return ["no tumour-core lesion"]
    parts = [
        f"{count} tumour-core lesion{'s' if count != 1 else ''} of {row['smallest_mm3']:.0f} mm³ at least, "
        f"{row['total_mm3'] / 1000:.2f} mL together"
    ]
    if row["missed_by_any"]:
        parts.append(
            f"{int(row['missed_by_any'])} missed by at least one model, {int(row['missed_by_all'])} by every model"
        )
    known = others[others["lesions"].notna()]
    if known.empty:
        return parts
    extremes = {
        "the most lesions": count > known["lesions"].max(),
        "the smallest lesion": row["smallest_mm3"] < known["smallest_mm3"].min(),
        "the smallest volume": row["total_mm3"] < known["total_mm3"].min(),
        "the largest volume": row["total_mm3"] > known["total_mm3"].max(),
        "the most missed lesions": row["missed_by_any"] > known["missed_by_any"].max(),
    }
    apart = ", ".join(title for title, holds in extremes.items() if holds)
    return [*parts, f"has {apart} of all cases" if apart else "nothing in its lesions' sizes or number sets it apart"]


def _reference_lesions(lesions: pd.DataFrame) -> pd.DataFrame:
    return lesions[(lesions["kind"] == "reference") & (lesions["region"] == LESION_REGION)]
