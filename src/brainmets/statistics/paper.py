"""The paper's printed numbers beside what its released score files give, and the authors' own paired tests.

The paper ("Transfer Learning Approaches for Brain Metastases Screenings", 2024, doi 10.20944/preprints202410.1738.v1)
does not say over which arms its means run, nor which strategies its p-values compare. Every printed number is
therefore set beside every reasonable reading of it. It is supported where the one reading that fits most numbers of
its kind rounds to it; where only another reading does, that is said and does not count, since numbers printed side by
side mean the same thing. A number printed for several regions is supported by a reading that rounds to it in each.

With the second release the authors published paired tests; ``authors_tests`` repeats them from the score files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from brainmets.statistics.conclusions import Facts, render
from brainmets.statistics.tables import WIDE_METRICS, WIDE_NAME, ScoreTableError, models, read_score_files, values
from brainmets.statistics.tests import NAN, Floats, holm, mann_whitney
from brainmets.vocabulary import COMPARED_STRATEGIES, PAPER_ARMS, REGIONS, Alternative, arm_title, better

SOURCE = "https://github.com/luumsk/BrainMetaSeg"
"""Where the authors publish their score files, as the paper says."""
PAPER_CASES = "SBT-MET-"
"""The names of the paper's held-out cases begin so."""
N_PAPER_CASES = 10
CASE_728 = "000728"
THREE_REGIONS = "ET+TC+WT"
THREE_ARMS = "mean of the three arms"


class Printed(NamedTuple):
    """One printed number: where it is printed, what it is of, and with how many decimals."""

    section: str
    quantity: str
    metric: str
    region: str
    model: str
    printed: float
    decimals: int


def _means(paragraph: int, metric: str, strategy: str, decimals: int, numbers: tuple[float, ...]) -> list[Printed]:
    section = f"3.1.1, paragraph {paragraph}"
    return [
        Printed(section, "mean", metric, region, strategy, value, decimals)
        for region, value in zip(REGIONS, numbers, strict=True)
    ]


PRINTED = [
    *_means(2, "dice", "finetune", 3, (0.905, 0.936, 0.914)),
    *_means(2, "dice", "scratch", 3, (0.902, 0.934, 0.907)),
    *_means(3, "hd95", "finetune", 2, (2.76, 1.87, 3.36)),
    *_means(3, "hd95", "scratch", 2, (2.78, 5.50, 3.23)),
    Printed("3.1.2, paragraph 2", "p-value", "dice", "WT", "tversky_bce > segresnet", 0.04, 2),
    Printed("3.1.2, paragraph 2", "p-value", "dice", "WT", "tversky_bce > default", 0.03, 2),
    Printed("3.1.2, paragraph 2", "p-value", "sensitivity", THREE_REGIONS, "tversky_bce > segresnet", 0.02, 2),
    Printed("3.1.2, paragraph 2", "p-value", "sensitivity", THREE_REGIONS, "tversky_bce > default", 0.01, 2),
    Printed("3.3, paragraph 2", "lowest of case 728", "dice", THREE_REGIONS, "both reviewed models", 0.90, 2),
    Printed("3.3, paragraph 2", "highest of case 728", "dice", THREE_REGIONS, "both reviewed models", 0.92, 2),
    Printed("3.3, paragraph 2", "lowest of case 728", "hd95", THREE_REGIONS, "both reviewed models", 0.8, 1),
    Printed("3.3, paragraph 2", "highest of case 728", "hd95", THREE_REGIONS, "both reviewed models", 2.0, 1),
]
"""Twenty numbers. The p-value of sensitivity is one number "across all sub-regions": a reading holds it against each
region, another against the regions' pooled values.

The paper names no metric for "whole tumor segmentation"; Dice is taken. The reviewed models are the fine-tuned
TverskyBCE and SegResNet.
"""
KINDS = {"mean": "mean", "p-value": "p-value", "lowest of case 728": "case 728", "highest of case 728": "case 728"}
"""Of each quantity: numbers of one kind have one reading."""
QUANTITY = list(Printed._fields)
COLUMNS = ["release", *QUANTITY, "reading", "recomputed_region", "recomputed", "difference", "agrees", "note"]
SUPPORT_COLUMNS = ["release", *QUANTITY, "agreeing", "usual", "closest", "status"]

AGAINST_SCRATCH, BETWEEN_ARMS = "finetune_vs_scratch", "architecture_finetuned"
"""What the authors call their two comparisons."""
MEAN_OF_MODELS = "mean_of_models"
TESTED_COLUMNS = [name for name, (metric, _) in WIDE_METRICS.items() if metric in ("dice", "hd95", "sensitivity")]
TEST_COLUMNS = ["comparison", "group", "metric", "mean_a", "mean_b", "p_value", "p_holm"]


# --- the released files ------------------------------------------------------------------------------------------


def find_releases(folder: Path) -> dict[str, list[Path]]:
    """The score files of each release in ``folder`` or a folder in it, by the date in their names, else the folder's.

    Raises ``ScoreTableError`` where there is none.
    """
    releases: dict[str, list[Path]] = {}
    for file in sorted([*folder.glob("scores_*.csv"), *folder.glob("*/scores_*.csv")]):
        if named := WIDE_NAME.fullmatch(file.name):
            releases.setdefault(named["date"] or file.parent.name, []).append(file)
    if not releases:
        raise ScoreTableError(
            f"{folder}: neither it nor a folder in it holds scores_<arm>_<strategy>.csv; give scores_dir the folder "
            f"of the paper's score files, which its authors publish at {SOURCE}"
        )
    return releases


def read_releases(files: Mapping[str, list[Path]]) -> dict[str, pd.DataFrame]:
    """The scores of each release of ``find_releases``.

    Raises ``ScoreTableError`` where they are not the paper's: its ten held-out cases under its six models.
    """
    releases = {name: read_score_files(paths) for name, paths in files.items()}
    for name, scores in releases.items():
        cases = sorted(scores["case"].unique())
        if len(cases) != N_PAPER_CASES or not all(case.startswith(PAPER_CASES) for case in cases):
            raise ScoreTableError(f"{name}: these are not the paper's ten held-out cases ({', '.join(cases)})")
        if set(models(scores)) != set(product(PAPER_ARMS, COMPARED_STRATEGIES)):
            there = ", ".join(" ".join(model) for model in models(scores))
            raise ScoreTableError(f"{name}: the paper has six models, here are {there}; give the folder all six files")
    return releases


# --- printed and recomputed --------------------------------------------------------------------------------------


def printed_vs_recomputed(releases: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Each printed number beside each reading of it in each release, with the columns ``COLUMNS``.

    ``difference`` is recomputed minus printed; ``agrees`` is whether the recomputed value rounds to the printed one.
    Where a reading runs over an undefined value both are empty and ``note`` says so.
    """
    rows = []
    for (release, scores), item in product(releases.items(), PRINTED):
        for reading, region, value in _readings(item, scores):
            row: dict[str, object] = {"release": release, **item._asdict(), "reading": reading, "note": ""}
            row |= {"recomputed_region": region, "agrees": ""}
            if np.isnan(value):
                row["note"] = "a value that this reading needs is undefined"
            else:
                agrees = abs(round(value, item.decimals) - item.printed) < 1e-9
                row |= {"recomputed": value, "difference": value - item.printed, "agrees": str(agrees)}
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _readings(item: Printed, scores: pd.DataFrame) -> Iterator[tuple[str, str, float]]:
    """Reading, region and value."""
    regions = list(REGIONS) if item.region == THREE_REGIONS else [item.region]
    if item.quantity == "mean":
        for arm in PAPER_ARMS:
            yield f"{arm} arm", item.region, float(_values(scores, item, regions, (arm,), (item.model,)).mean())
        yield THREE_ARMS, item.region, float(_values(scores, item, regions, PAPER_ARMS, (item.model,)).mean())
    elif item.quantity == "p-value":
        for strategies in ((COMPARED_STRATEGIES[0],), (COMPARED_STRATEGIES[1],), COMPARED_STRATEGIES):
            name = " and ".join(strategies)
            for region in regions:
                yield name, region, _p_value(scores, item, [region], strategies)
            if item.region == THREE_REGIONS:
                yield f"{name}, regions pooled", item.region, _p_value(scores, item, regions, strategies)
    else:
        for arm in ("tversky_bce", "segresnet"):
            of_case = _values(scores[scores["case"].str.contains(CASE_728)], item, regions, (arm,), ("finetune",))
            extreme = np.min if item.quantity.startswith("lowest") else np.max
            yield f"{arm} finetune", item.region, float(extreme(of_case)) if len(of_case) else NAN


def _p_value(scores: pd.DataFrame, item: Printed, regions: list[str], strategies: tuple[str, ...]) -> float:
    """The paper's test of the two arms in ``item.model``; NaN where a value is undefined."""
    ours, theirs = (_values(scores, item, regions, (arm,), strategies) for arm in item.model.split(" > "))
    defined = bool(np.isfinite(ours).all() and np.isfinite(theirs).all())
    return mann_whitney(ours, theirs, "greater")[1] if defined else NAN


def _values(
    scores: pd.DataFrame, item: Printed, regions: list[str], arms: tuple[str, ...], strategies: tuple[str, ...]
) -> Floats:
    keep = (scores["metric"] == item.metric) & scores["region"].isin(regions)
    keep &= scores["arm"].isin(arms) & scores["strategy"].isin(strategies)
    return scores.loc[keep, "value"].to_numpy(float)


def support(table: pd.DataFrame) -> pd.DataFrame:
    """One row per release and printed number of ``printed_vs_recomputed``, with the columns ``SUPPORT_COLUMNS``.

    ``agreeing`` are the readings that round to it in every region they run over, ``usual`` is the one that fits most
    printed numbers of its kind (empty where none fits any), ``closest`` the nearest value. ``status`` is "supported"
    (by the usual reading), "other reading" (only another one fits) or "unsupported" (none does). The kinds are means,
    p-values and case 728. A number of which no reading could be recomputed has no row.
    """
    groups = table[table["agrees"] != ""].groupby(["release", *QUANTITY], sort=False)
    agreeing: dict[Any, list[str]] = {}
    hits: dict[tuple[str, str], Counter[str]] = {}
    for key, group in groups:
        every = (group["agrees"] == "True").groupby(group["reading"], sort=False).all()
        agreeing[key] = [str(reading) for reading in every.index[every]]
        hits.setdefault(_kind(group), Counter()).update(agreeing[key])
    rows = []
    for key, group in groups:
        most = hits[_kind(group)].most_common(1)
        usual = most[0][0] if most else ""
        closest = group["recomputed"].iloc[group["difference"].abs().to_numpy().argmin()]
        status = "supported" if usual in agreeing[key] else "other reading" if agreeing[key] else "unsupported"
        rows.append((*key, "; ".join(agreeing[key]), usual, closest, status))
    return pd.DataFrame(rows, columns=SUPPORT_COLUMNS)


def _kind(group: pd.DataFrame) -> tuple[str, str]:
    """Release and kind of a printed number."""
    first = group.iloc[0]
    return str(first["release"]), KINDS[first["quantity"]]


# --- the authors' own tests --------------------------------------------------------------------------------------


class Group(NamedTuple):
    """One group of the authors' tests: side a against side b, each the arms it averages and their strategy."""

    comparison: str
    name: str
    a: tuple[tuple[str, ...], str]
    b: tuple[tuple[str, ...], str]


def latest(releases: Mapping[str, pd.DataFrame]) -> str:
    """The name of the release with the latest date, else of the last one: the authors tested the dated one."""
    return max(releases, key=lambda name: (bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}", name)), name))


def authors_tests(scores: pd.DataFrame) -> pd.DataFrame:
    """The 54 paired tests that the authors published with their second release, from one release's scores.

    Columns ``TEST_COLUMNS``; groups and metrics are named as in the released files. ``finetune_vs_scratch`` tests each
    arm, and the mean of the arms per case (``mean_of_models``), one-sided: side a, fine-tuned, is better than b, from
    scratch (Dice and sensitivity greater, HD95 less). ``architecture_finetuned`` tests the fine-tuned TverskyBCE (a)
    against each other fine-tuned arm (b), two-sided. ``mean_a`` and ``mean_b`` are means over the cases. p is scipy's
    Wilcoxon signed-rank test with its defaults (zero differences dropped, no continuity correction, exact for so few
    cases) of the values as they stand. ``p_holm`` is Holm's correction within each group of nine, and between arms
    over all eighteen. Where a value is undefined, or every difference is zero, p is NaN and does not count in Holm.
    """
    rows = []
    for group, column, region in product(_groups(), TESTED_COLUMNS, REGIONS):
        metric = WIDE_METRICS[column][0]
        table = values(scores, metric, region)
        a, b = (
            table[[(arm, strategy) for arm in arms]].mean(axis=1, skipna=False).to_numpy(float)
            for arms, strategy in (group.a, group.b)
        )
        direction: Alternative = better(metric) or "two-sided" if group.comparison == AGAINST_SCRATCH else "two-sided"
        p_value = float(stats.wilcoxon(a, b, alternative=direction).pvalue) if np.any(a != b) else NAN
        named = f"{column}_{region.lower()}"
        rows.append((group.comparison, group.name, named, a.mean(), b.mean(), p_value))
    tests = pd.DataFrame(rows, columns=TEST_COLUMNS[:-1])
    family = tests["group"].where(tests["comparison"] == AGAINST_SCRATCH, BETWEEN_ARMS)
    corrected = tests.groupby(family)["p_value"].transform(lambda p_values: holm(p_values.to_list()))
    return tests.assign(p_holm=corrected)[TEST_COLUMNS]


def _groups() -> Iterator[Group]:
    finetune, scratch = COMPARED_STRATEGIES
    for arm in PAPER_ARMS:
        yield Group(AGAINST_SCRATCH, _file_name(arm), ((arm,), finetune), ((arm,), scratch))
    yield Group(AGAINST_SCRATCH, MEAN_OF_MODELS, (PAPER_ARMS, finetune), (PAPER_ARMS, scratch))
    for other in ("default", "segresnet"):
        name = f"{_file_name('tversky_bce')}_vs_{other}"
        yield Group(BETWEEN_ARMS, name, (("tversky_bce",), finetune), ((other,), finetune))


def _file_name(arm: str) -> str:
    """The arm as the released files' names spell it."""
    return arm.replace("_", "")


# --- text --------------------------------------------------------------------------------------------------------


def facts(checked: pd.DataFrame) -> list[Facts]:
    """What ``support`` says of each release: release, total, supported, and of each kind what is held and what is not.

    ``kinds`` has "mean", "p-value" and "case 728", each with n, supported, unsupported (metric, region, model and the
    number as printed), reading (the usual one, an arm by its title), and over_arms, how many of these numbers the mean
    of the three arms rounds to. A kind of which nothing could be recomputed is absent.
    """
    found = []
    for release, own in checked.groupby("release", sort=False):
        kinds = {}
        for kind, rows in own.groupby(own["quantity"].map(KINDS), sort=False):
            lost = rows[rows["status"] != "supported"].to_dict("records")
            usual = str(rows["usual"].iloc[0])
            readings = {f"{arm} arm": f"the {arm_title(arm)} arm's" for arm in PAPER_ARMS} | {"": "no single reading"}
            kinds[kind] = {
                "n": len(rows),
                "supported": len(rows) - len(lost),
                "unsupported": [{**row, "printed": f"{row['printed']:.{row['decimals']}f}"} for row in lost],
                "reading": readings.get(usual, usual),
                "over_arms": sum(THREE_ARMS in names.split("; ") for names in rows["agreeing"]),
            }
        supported = int((own["status"] == "supported").sum())
        found.append({"release": release, "total": len(own), "supported": supported, "kinds": kinds})
    return found


def surviving(tests: pd.DataFrame, alpha: float = 0.05) -> list[Facts]:
    """Of each family of ``authors_tests``: family, tests, and the tests that survive Holm's correction at ``alpha``.

    ``survivors`` are metric, mean_a, mean_b, p_value, p_holm and group; a family is a group of nine, or the eighteen
    between arms.
    """
    family = tests["group"].where(tests["comparison"] == AGAINST_SCRATCH, BETWEEN_ARMS)
    return [
        {
            "family": name,
            "tests": int(own["p_value"].notna().sum()),
            "survivors": own[own["p_holm"] < alpha].drop(columns="comparison").to_dict("records"),
        }
        for name, own in tests.groupby(family, sort=False)
    ]


def summary(checked: pd.DataFrame, tests: Mapping[str, pd.DataFrame]) -> list[str]:
    """A paragraph per release on the printed numbers, and one on the authors' tests.

    ``checked`` is ``support``'s table, ``tests`` has ``authors_tests``'s of each release.
    """
    tested = {name: surviving(table) for name, table in tests.items()}
    return render("paper.txt.j2", {"releases": facts(checked), "three_arms": THREE_ARMS, "tested": tested})
