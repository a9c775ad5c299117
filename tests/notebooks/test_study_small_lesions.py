"""The real notebooks on coarse phantoms with small lesions: arms against a baseline, from pretraining to the report.

The study itself has seven arms and three repeats; here three arms carry all four new things, and are trained twice.
As there, nothing is trained from scratch.
"""

from pathlib import Path

import pandas as pd
import pytest
from real_checkout import RealCheckout, profile

from brainmets.files import read_json
from brainmets.paths import StudyPaths

pytestmark = pytest.mark.slow
ARMS = ["default", "lesion_dice", "default_resenc"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """A study of three arms and two repeats, up to the report."""
    checkout = RealCheckout.make(tmp_path_factory.mktemp("small_lesions"))
    content, arms = profile("smoke"), profile("small_lesions")["arms"]
    content |= {
        "study": "tiny_lesions",
        "folds": [0],
        "strategies": ["finetune"],
        "repeats": 2,
        "arms": {arm: arms[arm] for arm in ARMS},
    }
    content["arms"]["lesion_dice"] |= {"lesion_sampling": "small_lesions", "lesion_transplant": 0.5}
    del content["target"]["raw"]
    for name, patients in (("source", 4), ("target", 7)):
        content[name] |= {"folder": f"work/tiny_lesions/cohorts/{name}", "held_out": 0 if name == "source" else 3}
        content[name]["phantoms"] |= {"patients": patients, "lesion_free": 0, "lesions": "small"}
    for section in ("pretraining", "fine_tuning", "from_scratch"):
        content[section] |= {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1}
    content["evaluation"] |= {"tile_step": 1.0, "post_processing": None}
    content["statistics"] |= {
        "small_lesions": {"baseline": "default", "below_mm": 10.0, "false_positives": 1.0, "alpha": 0.05}
    }
    content["case_review"] |= {"n_explained": 0, "expert_folder": False}
    checkout.write_params(content)
    ended = checkout.run("study", "params/tiny_lesions.yaml")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return StudyPaths(str(checkout.root / "work"), "tiny_lesions")


def test_the_table_has_every_arm_and_claims_nothing_of_three_patients(files: StudyPaths) -> None:
    found = pd.read_csv(files.statistics / "small_lesions.csv")
    small = found[(found["size"] == "<10 mm") & (found["at"] == "false positives a patient")]
    assert set(small["strategy"]) == {"finetune"}
    fine_tuned = small.set_index("arm")
    assert list(fine_tuned.index) == ARMS
    assert fine_tuned["verdict"].tolist() == ["baseline", "not shown", "not shown"]
    assert set(fine_tuned["repeats"]) == {2}
    assert set(fine_tuned["cases"]) == {3}
    assert (fine_tuned["lesions"] > 0).all()
    assert fine_tuned["note"].dropna().str.contains("too few").all()


def test_every_training_is_read_and_named_as_read(files: StudyPaths) -> None:
    trained = pd.read_csv(files.statistics / "small_lesions_repeats.csv")
    assert trained.groupby(["arm", "strategy"])["repeat"].agg(set).map(sorted).tolist() == [[1, 2]] * 3
    record = read_json(files.statistics / "statistics.json")
    for arm in ARMS:
        assert f"repeat_2/evaluation/{arm}/finetune/candidates.csv" in record["provenance"]["inputs"]
    assert len(record["small_lesions"]) == 3
    assert record["small_lesions"][0] in record["conclusion"]


def test_the_report_shows_the_section(files: StudyPaths) -> None:
    page = (Path(files.work).parents[1] / "reports" / "tiny_lesions" / "index.html").read_text(encoding="utf-8")
    assert "Small lesions, arm by arm" in page
    assert "tables/small_lesions_repeats.csv" in page
    assert "figures/small_lesions.png" in page
