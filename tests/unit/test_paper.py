"""The paper's printed numbers beside made-up scores, and beside both releases of its own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from score_examples import example_scores

from brainmets.statistics.paper import (
    PRINTED,
    SOURCE,
    authors_tests,
    facts,
    find_releases,
    latest,
    printed_vs_recomputed,
    read_releases,
    summary,
    support,
    surviving,
)
from brainmets.statistics.tables import WIDE_COLUMNS, ScoreTableError, undefined


def papers_cases(n_cases: int = 10) -> pd.DataFrame:
    """Made-up scores of all six models with cases named as the paper's; there is no case 728 among them."""
    return example_scores(n_cases).assign(case=lambda scores: "SBT-MET-" + scores["case"])


def write_release(folder: Path, scores: pd.DataFrame, date: str = "") -> None:
    """The scores in the layout of the released files."""
    folder.mkdir(parents=True, exist_ok=True)
    for (arm, strategy), own in scores.groupby(["arm", "strategy"]):
        table = pd.DataFrame({"sample": sorted(own["case"].unique())})
        for column, (region, metric, _) in WIDE_COLUMNS.items():
            chosen = own[(own["region"] == region) & (own["metric"] == metric)]
            table[column] = chosen.set_index("case").loc[table["sample"], "value"].to_numpy()
        table.to_csv(folder / f"scores_{arm.replace('_', '')}_{strategy}{date}.csv", index=False)


def test_the_paper_prints_twenty_numbers() -> None:
    kinds = pd.Series([item.quantity.split(" ")[0] for item in PRINTED]).value_counts()
    assert kinds.to_dict() == {"mean": 12, "p-value": 4, "lowest": 2, "highest": 2}


@pytest.mark.parametrize("together", [True, False])
def test_both_releases_are_found_in_one_folder_or_in_two(tmp_path: Path, together: bool) -> None:
    scores = papers_cases()
    write_release(tmp_path / "scores", scores)
    write_release(tmp_path / ("scores" if together else "again"), scores, "_2026-09-29")
    found = find_releases(tmp_path / "scores" if together else tmp_path)
    assert {name: len(files) for name, files in found.items()} == {"scores": 6, "2026-09-29": 6}
    releases = read_releases(found)
    pd.testing.assert_frame_equal(releases["scores"], releases["2026-09-29"])
    assert "scores" in find_releases(tmp_path / "scores"), "the folder itself is a release"


def test_a_folder_without_score_files_says_where_they_are_public(tmp_path: Path) -> None:
    with pytest.raises(ScoreTableError, match=SOURCE):
        find_releases(tmp_path)
    with pytest.raises(ScoreTableError, match="neither it nor a folder in it holds scores_<arm>_<strategy>"):
        find_releases(tmp_path / "nowhere")


def test_other_cases_and_other_models_than_the_papers_are_refused(tmp_path: Path) -> None:
    write_release(tmp_path / "nine", papers_cases(9))
    with pytest.raises(ScoreTableError, match="nine: these are not the paper's ten held-out cases"):
        read_releases(find_releases(tmp_path / "nine"))
    write_release(tmp_path / "mine", example_scores(10))
    with pytest.raises(ScoreTableError, match="mine: these are not the paper's ten held-out cases"):
        read_releases(find_releases(tmp_path / "mine"))
    scores = papers_cases()
    write_release(tmp_path / "five", scores[(scores["arm"] != "segresnet") | (scores["strategy"] != "scratch")])
    with pytest.raises(ScoreTableError, match="five: the paper has six models, here are default finetune, "):
        read_releases(find_releases(tmp_path / "five"))


def test_printed_numbers_are_supported_by_the_reading_that_fits_most() -> None:
    scores = papers_cases()
    # give the default arm's fine-tuned Dice the printed mean in every case
    finetuned = {(i.metric, i.region): i.printed for i in PRINTED if i.quantity == "mean" and i.model == "finetune"}
    for (metric, region), value in finetuned.items():
        model = (scores["arm"] == "default") & (scores["strategy"] == "finetune")
        scores.loc[model & (scores["metric"] == metric) & (scores["region"] == region), "value"] = value
    checked = support(printed_vs_recomputed({"made up": scores}))
    means = checked[checked["quantity"] == "mean"].set_index(["metric", "region", "model"])["status"]
    assert (means.xs("finetune", level="model") == "supported").all()
    assert (means.xs("scratch", level="model") != "supported").all()
    (found,) = facts(checked)
    assert (found["release"], found["total"]) == ("made up", 16), "there is no case 728"
    assert set(found["kinds"]) == {"mean", "p-value"}
    assert (found["kinds"]["mean"]["supported"], found["kinds"]["mean"]["n"]) == (6, 12)
    assert found["kinds"]["mean"]["reading"] == "the Default arm's"
    text, tests = summary(checked, {"made up": authors_tests(scores)})
    assert tests.startswith("Release made up. Of the authors' own paired tests survive Holm's correction")
    assert text.startswith("Release made up. Of 16 numbers printed in the paper")
    assert "6 of 12 means, read as the Default arm's throughout (as the mean of the three arms: 0)" in text
    assert "TC HD95 scratch 5.50" in text
    assert "the p-values 0.04, 0.03" in text
    assert "  " not in text


def test_a_number_printed_for_all_regions_must_fit_in_each() -> None:
    table = printed_vs_recomputed({"made up": papers_cases()})
    key = (table["metric"] == "sensitivity") & (table["printed"] == 0.02) & (table["reading"] == "finetune")
    assert table.loc[key, "recomputed_region"].to_list() == ["ET", "TC", "WT"]
    one = table.assign(agrees=np.where(key & (table["recomputed_region"] == "ET"), "True", "False"))
    assert (support(one)["status"] == "unsupported").all()
    every = support(table.assign(agrees=np.where(key, "True", "False")))
    assert every.loc[every["status"] == "supported", "printed"].to_list() == [0.02]


def test_a_reading_over_an_undefined_value_is_not_judged() -> None:
    scores = papers_cases()
    lost = (scores["metric"] == "dice") & (scores["region"] == "ET") & (scores["arm"] == "default")
    table = printed_vs_recomputed({"made up": scores.assign(value=scores["value"].mask(lost, np.nan))})
    rows = table[(table["metric"] == "dice") & (table["region"] == "ET") & (table["reading"] == "default arm")]
    assert (rows["note"] == "a value that this reading needs is undefined").all()
    assert rows["recomputed"].isna().all()


# --- the authors' own tests


def test_the_authors_tests_by_hand() -> None:
    scores = papers_cases()
    tests = authors_tests(scores).set_index(["comparison", "group", "metric"])
    groups = [group for _, group in dict.fromkeys((row[0], row[1]) for row in tests.index)]
    assert groups == [
        *("default", "tverskybce", "segresnet", "mean_of_models"),
        *("tverskybce_vs_default", "tverskybce_vs_segresnet"),
    ]
    assert len(tests) == 54
    assert tests.index.get_level_values("metric")[:9].to_list() == [
        *("DICE_et", "DICE_tc", "DICE_wt", "Hausdorff_et", "Hausdorff_tc", "Hausdorff_wt"),
        *("Sensitivity_et", "Sensitivity_tc", "Sensitivity_wt"),
    ]
    mean = tests.xs("mean_of_models", level="group").loc["finetune_vs_scratch"]
    # all ten cases are better fine-tuned, HD95 being lower: one of 2^10 signs, times the nine tests of the block
    assert mean["p_value"].to_list() == [1 / 1024] * 9
    assert mean["p_holm"].to_list() == pytest.approx([9 / 1024] * 9)
    assert (mean.loc["DICE_et", "mean_a"] > mean.loc["DICE_et", "mean_b"]).all()
    assert (mean.loc["Hausdorff_et", "mean_a"] < mean.loc["Hausdorff_et", "mean_b"]).all()


def test_between_arms_the_test_is_two_sided_and_the_block_is_eighteen() -> None:
    scores = papers_cases()
    ours = (scores["arm"] == "tversky_bce") & (scores["strategy"] == "finetune") & (scores["metric"] == "dice")
    scores.loc[ours, "value"] = 0.1 + 0.001 * np.arange(ours.sum())  # below every other arm in every case
    arms = authors_tests(scores).set_index(["comparison", "group", "metric"]).loc["architecture_finetuned"]
    dice = arms.loc[[("tverskybce_vs_default", "DICE_et"), ("tverskybce_vs_segresnet", "DICE_wt")]]
    assert dice["p_value"].to_list() == [2 / 1024] * 2
    assert dice["p_holm"].to_list() == pytest.approx([18 * 2 / 1024] * 2)
    assert (dice["mean_a"] < dice["mean_b"]).all()


def test_a_group_without_any_difference_has_no_p_and_leaves_holm_to_the_others() -> None:
    scores = papers_cases()
    same = (scores["metric"] == "dice") & (scores["region"] == "ET")
    tests = authors_tests(scores.assign(value=scores["value"].mask(same, 0.5)))
    lost = tests["metric"] == "DICE_et"
    assert tests.loc[lost, ["p_value", "p_holm"]].isna().all(axis=None)
    (mean,) = [found for found in surviving(tests) if found["family"] == "mean_of_models"]
    assert (mean["tests"], len(mean["survivors"])) == (8, 8)
    assert mean["survivors"][0]["p_holm"] == pytest.approx(8 / 1024)


def test_the_dated_release_is_the_latest_however_the_folders_are_called() -> None:
    table = papers_cases()
    assert latest({"2026-09-29": table, "scores": table}) == "2026-09-29"
    assert latest({"2026-09-29": table, "2027-01-02": table, "zz": table}) == "2027-01-02"
    assert latest({"scores": table}) == "scores"


# --- the released files


@pytest.fixture(scope="module")
def releases(real_data: Path) -> dict[str, pd.DataFrame]:
    """The first release goes by its folder's name, the second by its date."""
    return read_releases(find_releases(real_data / "reference"))


@pytest.fixture(scope="module")
def checked(releases: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return support(printed_vs_recomputed(releases))


@pytest.mark.real
def test_differences_stand_beside_every_printed_number(releases: dict[str, pd.DataFrame]) -> None:
    assert list(releases) == ["scores", "2026-09-29"]
    assert all(undefined(scores).empty for scores in releases.values())
    table = printed_vs_recomputed(releases)
    assert table["recomputed"].notna().all()
    np.testing.assert_allclose(table["difference"], table["recomputed"] - table["printed"])
    tc = (table["metric"] == "hd95") & (table["region"] == "TC") & (table["model"] == "scratch")
    rows = table[tc & (table["reading"] == "default arm")].set_index("release")["recomputed"]
    assert rows["scores"] == pytest.approx(5.9234, abs=1e-4)
    assert round(rows["2026-09-29"], 2) == 5.50


@pytest.mark.real
def test_what_the_first_release_supports(checked: pd.DataFrame) -> None:
    own = checked[checked["release"] == "scores"]
    assert own["status"].value_counts().to_dict() == {"supported": 8, "unsupported": 10, "other reading": 2}
    means = own[own["quantity"] == "mean"].set_index(["metric", "region", "model"])
    assert (means.xs("finetune", level="model")["status"] == "supported").all()
    assert means.xs("finetune", level="model")["agreeing"].str.contains("default arm").all()
    status = means.xs("scratch", level="model")["status"].to_dict()
    assert status == {
        ("dice", "ET"): "other reading",
        ("dice", "TC"): "unsupported",
        ("dice", "WT"): "other reading",
        ("hd95", "ET"): "supported",
        ("hd95", "TC"): "unsupported",
        ("hd95", "WT"): "unsupported",
    }


@pytest.mark.real
def test_the_second_release_gives_all_twelve_means_as_the_default_arms(checked: pd.DataFrame) -> None:
    means = checked[(checked["release"] == "2026-09-29") & (checked["quantity"] == "mean")]
    assert len(means) == 12
    assert (means["status"] == "supported").all()
    assert (means["usual"] == "default arm").all()


@pytest.mark.real
def test_the_summary_names_what_each_release_does_not_support(checked: pd.DataFrame) -> None:
    first, second, *_ = summary(checked, {})
    assert "Of 20 numbers printed in the paper the released scores support 8: 7 of 12 means" in first
    assert "TC HD95 scratch 5.50" in first
    assert "the p-values 0.04, 0.03, 0.02 and 0.01" in first
    assert "support 14: 12 of 12 means, read as the Default arm's throughout" in second
    assert second.endswith("Not supported are the p-values 0.03, 0.02 and 0.01.")


PUBLISHED = {  # by the authors, with their second release: p before Holm's correction and after it, on the arms' mean
    "Hausdorff_tc": (0.00195, 0.018),
    "Sensitivity_tc": (0.0049, 0.039),
    "Sensitivity_et": (0.0068, 0.048),
    "DICE_tc": (0.0098, 0.059),
}


@pytest.mark.real
def test_the_authors_tests_on_the_second_release(releases: dict[str, pd.DataFrame]) -> None:
    tests = authors_tests(releases["2026-09-29"]).set_index(["comparison", "group", "metric"])
    mean = tests.xs("mean_of_models", level="group").loc["finetune_vs_scratch"]
    for metric, (p_value, p_holm) in PUBLISHED.items():
        assert mean.loc[metric, "p_value"] == pytest.approx(p_value, abs=5e-5)
        assert mean.loc[metric, "p_holm"] == pytest.approx(p_holm, abs=5e-4)
    assert sorted(mean.index[mean["p_holm"] < 0.05]) == ["Hausdorff_tc", "Sensitivity_et", "Sensitivity_tc"]


@pytest.mark.real
@pytest.mark.parametrize("release", ["scores", "scores_2026-09-29"])
def test_the_authors_tests_are_scipys_on_the_files_themselves(
    real_data: Path, releases: dict[str, pd.DataFrame], release: str
) -> None:
    """Without this project's reader: the files as pandas reads them, cases paired by name."""
    files = {file.stem.split("_2026")[0]: file for file in (real_data / "reference" / release).glob("*.csv")}
    raw = {name: pd.read_csv(file).set_index("sample").sort_index() for name, file in files.items()}
    finetuned, scratch = (
        {arm: raw[f"scores_{arm}_{strategy}"] for arm in ("default", "tverskybce", "segresnet")}
        for strategy in ("finetune", "scratch")
    )
    sides = {arm: (finetuned[arm], scratch[arm]) for arm in finetuned}
    sides["mean_of_models"] = tuple(sum(own.values()) / 3 for own in (finetuned, scratch))
    for other in ("default", "segresnet"):
        sides[f"tverskybce_vs_{other}"] = finetuned["tverskybce"], finetuned[other]
    for row in authors_tests(releases[release.removeprefix("scores_")]).itertuples():
        a, b = (side[row.metric] for side in sides[row.group])
        direction = "less" if row.metric.startswith("Hausdorff") else "greater"
        direction = "two-sided" if "_vs_" in row.group else direction
        assert row.p_value == pytest.approx(stats.wilcoxon(a, b, alternative=direction).pvalue), row
        assert (row.mean_a, row.mean_b) == pytest.approx((a.mean(), b.mean()))
