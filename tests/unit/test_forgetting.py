"""The source's held-out cases before and after fine-tuning."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from score_examples import scores, write_study

from brainmets.statistics.forgetting import (
    COLUMNS,
    NONE_HELD_OUT,
    forgetting,
    read_forgetting,
    sentence,
)
from brainmets.statistics.tables import ScoreTableError

BEFORE, AFTER = [0.8, 0.9, 0.7], [0.7, 0.7, 0.4]


def both(before=BEFORE, after=AFTER) -> pd.DataFrame:
    sides = (("pretrained", before), ("finetune", after))
    return pd.concat([scores(own, strategy=side, region="TC") for side, own in sides], ignore_index=True)


def test_the_difference_is_after_minus_before_of_the_same_patients() -> None:
    row = forgetting(both().sample(frac=1, random_state=0), {}, 0.05).iloc[0]
    assert list(row.index) == COLUMNS
    assert row[["n_patients", "before", "after", "difference"]].tolist() == pytest.approx([3, 0.8, 0.6, -0.2])
    half = stats.t.isf(0.025, 2) * 0.1 / np.sqrt(3)  # differences -0.1, -0.2, -0.3
    assert row[["difference_low", "difference_high"]].tolist() == pytest.approx([-0.2 - half, -0.2 + half])


def test_scans_of_a_patient_count_once() -> None:
    row = forgetting(both(), {"a": "p", "b": "p", "c": "q"}, 0.05).iloc[0]
    assert (row["n_patients"], row["note"]) == (2, "3 cases of 2 patients, each counted once")
    assert row["difference"] == pytest.approx((-0.15 - 0.3) / 2)


def test_undefined_values_are_named_and_one_patient_has_no_interval() -> None:
    row = forgetting(both(after=[0.7, np.nan, np.inf]), {}, 0.05).iloc[0]
    assert row["note"] == "undefined or infinite on a side: without b, c; one patient: no interval"
    assert np.isnan(row["difference_low"])
    none = forgetting(both(after=[np.nan] * 3), {}, 0.05)
    assert none["n_patients"].tolist() == [0]
    assert none["note"].iloc[0].startswith("no case with two finite values")
    assert sentence(none, "dice", "TC", 0.05).startswith("No held-out case of the source has Dice of TC")


def test_sentence_names_arms_means_and_patients() -> None:
    assert sentence(forgetting(both(), {}, 0.05), "dice", "TC", 0.05) == (
        "On the source's held-out cases the mean Dice of TC before and after fine-tuning is, with the 95% interval of "
        "the change: Default 0.8 and 0.6 (-0.2, -0.448 to +0.0484; 3 patients)."
    )
    one = forgetting(both([0.8], [0.6]), {}, 0.05)
    assert "Default 0.8 and 0.6 (-0.2, no interval; 1 patient)." in sentence(one, "dice", "TC", 0.05)


def test_a_source_without_held_out_cases_is_said(tmp_path) -> None:
    table = forgetting(read_forgetting(tmp_path / "nowhere", []), {}, 0.05)
    assert table.empty
    assert list(table.columns) == COLUMNS
    assert sentence(table, "dice", "TC", 0.05) == NONE_HELD_OUT


def test_what_is_missing_is_refused(tmp_path) -> None:
    with pytest.raises(ScoreTableError, match="there is no such folder"):
        read_forgetting(tmp_path / "nowhere", ["a"])
    write_study(tmp_path, both())
    assert len(read_forgetting(tmp_path, ["a", "b", "c"])) == 6
    with pytest.raises(ScoreTableError, match="lacks d; run notebook 06"):
        read_forgetting(tmp_path, ["a", "b", "c", "d"])
    with pytest.raises(ScoreTableError, match="scores c, which the source does not hold out"):
        read_forgetting(tmp_path, ["a", "b"])
    write_study(tmp_path / "other", scores(BEFORE, strategy="finetune", region="TC"))
    with pytest.raises(ScoreTableError, match="no scores of default pretrained"):
        read_forgetting(tmp_path / "other", ["a", "b", "c"])
