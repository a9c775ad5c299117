"""Miniature studies that read fewer than four sequences, and one in which training cases lack one: audit to report."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from real_checkout import RealCheckout, profile

from brainmets.files import read_json
from brainmets.paths import StudyPaths
from brainmets.vocabulary import SEQUENCES

pytestmark = pytest.mark.slow


def run(
    root: Path, study: str, subsets: str = "occurring", n_explained: int = 1, **target: Any
) -> tuple[StudyPaths, dict[str, Any]]:
    """The study of one arm and fold, with what ``target`` changes; its files, and its parameters."""
    checkout = RealCheckout.make(root)
    content = profile("smoke") | {"study": study, "folds": [0]}
    content["arms"] = {"default": content["arms"]["default"] | target.pop("settings", {})}
    content["sequences"], content["strategies"] = target.pop("sequences"), target.pop("strategies", ["finetune"])
    content["source"]["sequences"] = target.pop("of_the_source", None)
    del content["target"]["raw"]
    layout = content["target"]["layout"]
    content["target"]["layout"] = {
        name: pattern for name, pattern in layout.items() if name not in set(SEQUENCES) - set(content["sequences"])
    }
    for name, patients in (("source", 4), ("target", 5)):
        content[name]["folder"] = f"work/{study}/cohorts/{name}"
        content[name]["phantoms"] = {"site": name, "patients": patients, "spacing_mm": 5.0, "seed": 1}
    content["target"]["held_out"] = 2
    content["target"]["phantoms"] |= target.pop("phantoms", {})
    content["target"] |= target
    for section in ("pretraining", "fine_tuning", "from_scratch"):
        content[section] |= {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1}
    content["evaluation"] |= {"sequence_subsets": subsets, "tile_step": 1.0, "lesion_definition": "brats_2026"}
    content["case_review"] |= {"expert_folder": False, "n_explained": n_explained}
    checkout.write_params(content)
    ended = checkout.run("study", f"params/{study}.yaml")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    page = (root / "reports" / study / "notebooks" / "01_data_audit.html").read_text()
    words = html.unescape(re.sub("<[^>]*>", "", page)).replace("'", '"')
    assert f"sequences = {json.dumps(content['sequences'])}" in words
    return StudyPaths(str(root / "work"), study), content


def scored(files: StudyPaths, content: dict[str, Any]) -> set[str]:
    """The held-out cases, which every strategy of the study has scores of."""
    held_out = set(read_json(files.splits)["target"]["held_out"])
    for strategy in content["strategies"]:
        assert set(pd.read_csv(files.scores("default", strategy)).case) == held_out
    return held_out


def channels(files: StudyPaths) -> list[str]:
    """Of the target's networks, as notebook 02 wrote them."""
    return list(read_json(files.alignment)["aligned"]["channel_names"].values())


def test_a_study_of_t1c_alone(tmp_path: Path) -> None:
    files, content = run(tmp_path, "t1c", sequences=["t1c"])
    assert channels(files) == ["t1c"]
    assert len(scored(files, content)) == 2
    findings = pd.read_csv(files.findings("source"))
    assert findings.rule.tolist().count("rules passed over") == 1
    manifest = read_json(files.manifest("target"))
    assert manifest["sequences"] == ["t1c"]
    assert all(list(case["images"]) == ["t1c"] for case in manifest["cases"].values())
    trained = read_json(files.training("finetune", "default", 0))
    assert not trained["weights_adapted"] and not trained["weights_fresh"], "the source reads the t1c alone too"
    assert set(pd.read_csv(files.review / "explanation.csv").withheld) == {"nothing", "t1c"}
    assert set(pd.read_csv(files.subsets("default", "finetune")).subset) == {"t1c"}


def test_a_study_of_two_sequences_pretrained_on_four(tmp_path: Path) -> None:
    files, content = run(
        tmp_path, "two", sequences=["t2f", "t1c"], of_the_source=list(SEQUENCES), strategies=["pretrained", "finetune"]
    )
    assert channels(files) == ["t1c", "t2f"]
    assert read_json(files.manifest("source"))["sequences"] == list(SEQUENCES)
    assert len(scored(files, content)) == 2
    trained = read_json(files.training("finetune", "default", 0))
    assert trained["weights_adapted"], "the first layer's weights of t1c and t2f"
    assert not trained["weights_fresh"]
    assert trained["weights_loaded"] > 0
    assert set(pd.read_csv(files.review / "explanation.csv").withheld) == {"nothing", "t1c", "t2f"}
    assert set(pd.read_csv(files.subsets("default", "finetune")).subset) == {"t1c+t2f"}


def test_a_study_in_which_two_of_six_training_cases_lack_t2(tmp_path: Path) -> None:
    files, content = run(
        tmp_path, "lacking", subsets="all", n_explained=0,
        sequences=list(SEQUENCES), held_out=["P01", "P02"], may_lack=["t2w"],
        settings={"sequence_dropout": 0.25}, phantoms={"patients": 8, "lacking": {"t2w": 2}},
    )  # fmt: skip
    assert channels(files) == list(SEQUENCES)
    assert scored(files, content) == {"P01", "P02"}
    lacking = [
        name for name, case in read_json(files.manifest("target"))["cases"].items() if "t2w" not in case["images"]
    ]
    assert lacking == ["P07", "P08"]
    findings = pd.read_csv(files.findings("target"))
    assert sorted(findings[findings.rule == "lacks a sequence"].case) == lacking
    told = findings[findings.rule == "sets of sequences"].finding.item()
    assert "training: 2 with t1n+t1c+t2f, 4 with t1n+t1c+t2w+t2f; held out: 2 with t1n+t1c+t2w+t2f" in told
    assert "untaught set of sequences" not in set(findings.rule)
    page = files.audit_page("target").read_text()
    assert "has no t2w, as may_lack allows" in page
    assert "cases by the sequences that they have" in page
    trained = read_json(files.training("finetune", "default", 0))
    assert not trained["weights_adapted"] and not trained["weights_fresh"]
    parameters = trained["provenance"]["parameters"]
    assert parameters["arms"]["default"]["sequence_dropout"] == 0.25
    table = pd.read_csv(files.subsets("default", "finetune"))
    assert {"t1n+t1c+t2w+t2f", "t1n+t1c+t2f", "t1c"} <= set(table.subset)
    assert table.subset.nunique() == 15, "every set that can be made of four"
