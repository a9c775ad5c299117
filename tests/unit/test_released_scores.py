"""The paper's released score files, where they lie beside the checkout: means, tests, printed numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from brainmets.scoring.detection import detection_by_size
from brainmets.statistics.comparisons import Settings, arms_pairwise, finetune_vs_scratch
from brainmets.statistics.conclusions import conclude
from brainmets.statistics.descriptive import describe
from brainmets.statistics.power import cases_needed
from brainmets.statistics.printed import printed_vs_recomputed, support
from brainmets.statistics.tables import WIDE_COLUMNS, models, read_scores
from brainmets.vocabulary import LESION_COLUMNS

pytestmark = pytest.mark.real

SETTINGS = Settings(0.05, 500, 1)


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    return real_data / "reference" / "scores"


@pytest.fixture(scope="module")
def scores(folder: Path) -> pd.DataFrame:
    return read_scores(folder)


@pytest.fixture(scope="module")
def strategies(scores: pd.DataFrame) -> pd.DataFrame:
    return finetune_vs_scratch(scores, SETTINGS).set_index(["comparison", "metric", "region"])


@pytest.fixture(scope="module")
def checked(scores: pd.DataFrame) -> pd.DataFrame:
    return support(printed_vs_recomputed(scores))


def test_six_models_of_the_same_ten_cases(scores: pd.DataFrame) -> None:
    assert len(models(scores)) == 6
    assert scores["case"].nunique() == 10
    assert len(scores) == 6 * 10 * 18
    assert not scores["case"].str.endswith(".nii.gz").any()


def test_means_are_those_of_the_files(folder: Path, scores: pd.DataFrame) -> None:
    table = describe(scores, 0.05, 100, 1).set_index(["arm", "strategy", "region", "metric"])["mean"]
    for file in folder.glob("*.csv"):
        arm, _, strategy = file.stem.removeprefix("scores_").rpartition("_")
        arm = {"tverskybce": "tversky_bce"}.get(arm, arm)
        raw = pd.read_csv(file)
        for column, (region, metric, _) in WIDE_COLUMNS.items():
            assert table[(arm, strategy, region, metric)] == pytest.approx(raw[column].mean(), rel=1e-12)


def test_files_list_the_cases_in_different_orders(folder: Path) -> None:
    orders = {tuple(pd.read_csv(file)["sample"]) for file in folder.glob("*.csv")}
    assert len(orders) > 1, "pairing by row would have gone unnoticed"


def test_the_papers_test_is_scipys_on_pooled_values(folder: Path, strategies: pd.DataFrame) -> None:
    pooled = {
        side: pd.concat([pd.read_csv(file) for file in sorted(folder.glob(f"*_{side}.csv"))])
        for side in ("finetune", "scratch")
    }
    for metric, column in (("dice", "DICE_wt"), ("hd95", "Hausdorff_wt"), ("specificity", "Specificity_wt")):
        expected = stats.mannwhitneyu(pooled["finetune"][column], pooled["scratch"][column], alternative="greater")
        row = strategies.loc[("paper", metric, "WT")]
        assert (row["statistic"], row["n"]) == (expected.statistic, 30)
        assert row["p_value"] == pytest.approx(expected.pvalue)


def test_the_paper_found_nothing_and_neither_does_its_test(strategies: pd.DataFrame) -> None:
    paper = strategies.loc["paper"]
    assert len(paper) == 12
    assert paper["p_value"].min() > 0.05


def test_paired_and_directed_tests_find_tumour_core(strategies: pd.DataFrame) -> None:
    dice = strategies.loc[("paired: mean over arms", "dice", "TC")]
    hd95 = strategies.loc[("paired: mean over arms", "hd95", "TC")]
    assert dice["p_value"] == pytest.approx(5 / 1024)
    assert hd95["p_value"] == pytest.approx(19 / 1024)
    assert dice["effect_low"] > 0
    assert hd95["effect_high"] < 0
    assert dice["p_holm"] > 0.05, "12 tests of the family take it back"
    assert strategies.loc[("directed", "hd95", "TC"), "p_value"] < 0.01
    assert strategies.loc[("directed", "dice", "TC"), "p_value"] > 0.05


def test_single_precision_noise_counts_as_ties(strategies: pd.DataFrame) -> None:
    assert "4 zero" in strategies.loc[("paired: default", "hd95", "WT"), "note"]


def test_which_printed_numbers_are_supported(checked: pd.DataFrame) -> None:
    assert checked["status"].value_counts().to_dict() == {"supported": 8, "unsupported": 10, "other reading": 2}
    means = checked[checked["quantity"] == "mean"].set_index(["metric", "region", "model"])
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


def test_differences_stand_beside_every_printed_number(scores: pd.DataFrame) -> None:
    table = printed_vs_recomputed(scores)
    assert table["recomputed"].notna().all()
    np.testing.assert_allclose(table["difference"], table["recomputed"] - table["printed"])
    tc = (table["metric"] == "hd95") & (table["region"] == "TC") & (table["model"] == "scratch")
    row = table[tc & (table["reading"] == "default arm")].iloc[0]
    assert row["recomputed"] == pytest.approx(5.9234, abs=1e-4)


def test_conclusion_names_gain_harm_and_unsupported_means(scores: pd.DataFrame) -> None:
    strategies, arms = finetune_vs_scratch(scores, SETTINGS), arms_pairwise(scores, SETTINGS)
    needed, printed = cases_needed(scores, SETTINGS), printed_vs_recomputed(scores)
    by_size = detection_by_size(pd.DataFrame(columns=LESION_COLUMNS))
    text = conclude(scores, strategies, arms, needed, printed, by_size, SETTINGS)
    assert "TC Dice (+0.0064" in text
    assert (
        "better than training from scratch in 4 of 12 paired tests and worse in 2; none of these survives it" in text
    )
    assert "Better after correction: Tversky + BCE WT sensitivity" in text
    assert "harm" not in text, "no worsening survives the correction that the gains must survive"
    assert "Tversky + BCE WT HD95 (case SBT-MET-A000729-20181109)" in text
    assert "no outcome of 10 cases could have survived Holm's correction" in text
    assert "Of 20 numbers printed in the paper the released scores support 8: 7 of 12 means" in text
    assert "TC HD95 scratch 5.50" in text
    assert "the p-values 0.04, 0.03, 0.02 and 0.01" in text


def test_without_a_case_no_printed_number_is_judged(scores: pd.DataFrame) -> None:
    table = printed_vs_recomputed(scores[scores["case"] != scores["case"].iloc[0]])
    assert table["recomputed"].isna().all()
    assert table["note"].str.startswith("not compared").all()
