"""The paper's printed numbers beside made-up scores, and beside both releases of its own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from score_examples import example_scores

from brainmets.statistics.paper import (
    PRINTED,
    SOURCE,
    facts,
    find_releases,
    printed_vs_recomputed,
    read_releases,
    summary,
    support,
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
    (text,) = summary(checked)
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
    first, second = summary(checked)
    assert "Of 20 numbers printed in the paper the released scores support 8: 7 of 12 means" in first
    assert "TC HD95 scratch 5.50" in first
    assert "the p-values 0.04, 0.03, 0.02 and 0.01" in first
    assert "support 14: 12 of 12 means, read as the Default arm's throughout" in second
    assert second.endswith("Not supported are the p-values 0.03, 0.02 and 0.01.")
