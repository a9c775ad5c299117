from pathlib import Path

import pytest
import yaml

from brainmets.params import MODELS, Cohort, FineTuning, Layout, ParameterError, Statistics, closest
from brainmets.paths import NOTEBOOKS
from brainmets.study_params import Study, section

PARAMS = Path(__file__).resolve().parent.parent / "params"
PROFILES = ("demo", "smoke", "gpu_demo", "paper")


@pytest.fixture
def content() -> dict:
    return yaml.safe_load((PARAMS / "smoke.yaml").read_text())


def read(tmp_path: Path, content: dict) -> Study:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return Study.read(path)


def refused(tmp_path: Path, content: dict) -> str:
    with pytest.raises(ParameterError) as error:
        read(tmp_path, content)
    return str(error.value)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_complete_and_valid(profile: str) -> None:
    study = Study.read(PARAMS / f"{profile}.yaml")
    assert study.content["study"] == profile
    for notebook in NOTEBOOKS:
        for job in study.jobs(notebook):
            assert set(study.values(notebook, **job)) == set(MODELS[notebook].model_fields)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_value_of_a_profile_has_a_comment(profile: str) -> None:
    lines = (PARAMS / f"{profile}.yaml").read_text().splitlines()
    bare = [line for line in lines if ": " in line.split("#")[0] and "#" not in line]
    assert bare == []


def test_the_paper_profile_is_the_papers_protocol() -> None:
    content = Study.read(PARAMS / "paper.yaml").content
    assert content["folds"] == [0, 1, 2, 3, 4]
    assert content["audit"]["n_folds"] == 5
    assert content["target"]["held_out"] == 10
    assert content["source"]["held_out"] == 0
    assert [content[name]["epochs"] for name in ("pretraining", "fine_tuning", "from_scratch")] == [200, 100, 100]
    for name in ("pretraining", "fine_tuning", "from_scratch"):
        assert content[name]["iterations_per_epoch"] == 250
        assert content[name]["validation_iterations"] == 50
    assert content["arms"]["default"] == {"learning_rate": 1e-2}
    tversky = {"learning_rate": 1e-2, "alpha": 0.3, "beta": 0.7, "positive_weight": 11}
    assert content["arms"]["tversky_bce"] == tversky
    assert content["arms"]["segresnet"] == {"learning_rate": 1e-4, "weight_decay": 1e-5, "filters": 32}


def test_every_profile_but_the_papers_makes_its_cohorts_from_phantoms() -> None:
    for profile in set(PROFILES) - {"paper"}:
        content = Study.read(PARAMS / f"{profile}.yaml").content
        for cohort in ("source", "target"):
            assert content[cohort]["phantoms"]["site"] == cohort
            assert content[cohort]["folder"] == f"work/{profile}/cohorts/{cohort}"


def test_every_parameter_file_is_a_profile_that_these_tests_know() -> None:
    assert {path.stem for path in PARAMS.glob("*.yaml")} == set(PROFILES)


def test_jobs_of_a_study(tmp_path: Path, content: dict) -> None:
    content["folds"] = [0, 1]
    content["arms"].pop("tversky_bce")
    study = read(tmp_path, content)
    assert study.arms == ["default", "segresnet"]
    assert study.jobs("01_data_audit") == [{}]
    assert study.jobs("03_pretraining") == [
        {"arm": "default", "fold": 0},
        {"arm": "default", "fold": 1},
        {"arm": "segresnet", "fold": 0},
        {"arm": "segresnet", "fold": 1},
    ]
    assert len(study.jobs("06_evaluation")) == 4
    assert study.notebook("04_fine_tuning", arm="segresnet", fold=1).fold == 1


def test_unknown_name_is_refused_with_the_closest(tmp_path: Path, content: dict) -> None:
    content["pretraining"]["epoch"] = 3
    message = refused(tmp_path, content)
    assert "own.yaml, section pretraining" in message
    assert "epoch: unknown parameter; did you mean 'epochs'?" in message


def test_misspelt_name_is_reported_once_as_unknown_and_once_as_missing(tmp_path: Path, content: dict) -> None:
    content["statistics"]["alhpa"] = content["statistics"].pop("alpha")
    message = refused(tmp_path, content)
    assert "alhpa: unknown parameter; did you mean 'alpha'?" in message
    assert "alpha: missing (is 'alhpa' meant for it?)" in message


def test_missing_section_is_refused(tmp_path: Path, content: dict) -> None:
    del content["case_review"]
    assert "case_review: missing" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("part", "name", "value", "expected"),
    [
        ("pretraining", "epochs", 0, "epochs: Input should be greater than 0 (given: 0)"),
        ("pretraining", "epochs", "many", "(given: 'many')"),
        ("evaluation", "tile_step", 1.5, "tile_step: Input should be less than or equal to 1 (given: 1.5)"),
        ("statistics", "alpha", 1, "alpha: Input should be less than 1 (given: 1)"),
        ("evaluation", "lesion_definition", "brats", "(given: 'brats')"),
    ],
)
def test_wrong_value_names_parameter_value_and_what_is_allowed(
    tmp_path: Path, content: dict, part: str, name: str, value: object, expected: str
) -> None:
    content[part][name] = value
    message = refused(tmp_path, content)
    assert f"section {part}" in message
    assert expected in message


def test_settings_of_an_unknown_arm_are_refused(tmp_path: Path, content: dict) -> None:
    content["arms"]["segresnett"] = content["arms"].pop("segresnet")
    assert "did you mean 'segresnet'?" in refused(tmp_path, content)


def test_arm_without_settings_is_refused() -> None:
    study = Study.read(PARAMS / "smoke.yaml")
    values = study.values("04_fine_tuning", arm="segresnet", fold=0)
    values["arms"] = {"default": values["arms"]["default"]}
    with pytest.raises(ParameterError, match="'segresnet' has no settings under arms"):
        FineTuning(**values)


def test_folds_must_be_of_the_audits_folds(tmp_path: Path, content: dict) -> None:
    content["folds"] = [0, 7]
    assert "folds: [7] must be below audit.n_folds" in refused(tmp_path, content)


@pytest.mark.parametrize("folds", [[], [0, 0]])
def test_folds_must_be_listed_once_each(tmp_path: Path, content: dict, folds: list[int]) -> None:
    content["folds"] = folds
    assert "must list at least one fold, each once" in refused(tmp_path, content)


def test_fine_tuning_and_scratch_differ_in_the_initialisation_alone(tmp_path: Path, content: dict) -> None:
    content["from_scratch"]["epochs"] += 1
    message = refused(tmp_path, content)
    assert "must differ in the initialisation alone" in message
    assert "epochs is" in message


def test_missing_file_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="there is no such parameters file"):
        Study.read(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ParameterError, match="is not YAML"):
        Study.read(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ParameterError, match="must hold names and values, not a list"):
        Study.read(tmp_path / "list.yaml")


def test_label_map_gives_brats_values() -> None:
    content = Study.read(PARAMS / "smoke.yaml").content["target"]
    assert Cohort(**content).values == {0: 0, 1: 2, 2: 1, 3: 3, 4: 1}


def test_label_map_survives_papermill_which_makes_its_keys_text() -> None:
    content = Study.read(PARAMS / "smoke.yaml").content["target"]
    as_text = {**content, "label_map": {str(value): name for value, name in content["label_map"].items()}}
    assert Cohort(**as_text) == Cohort(**content)


def test_background_stays_background() -> None:
    content = Study.read(PARAMS / "smoke.yaml").content["target"]
    with pytest.raises(ParameterError, match="0 is background"):
        Cohort(**{**content, "label_map": {0: "et"}})


def test_layout_patterns_name_the_case() -> None:
    layout = Study.read(PARAMS / "smoke.yaml").content["target"]["layout"]
    with pytest.raises(ParameterError, match=r"t1c: 'scan.nii.gz' must contain \{case\}"):
        Layout(**{**layout, "t1c": "scan.nii.gz"})
    with pytest.raises(ParameterError, match="needs a group"):
        Layout(**{**layout, "patient": "P[0-9]+"})
    with pytest.raises(ParameterError, match="is not a regular expression"):
        Layout(**{**layout, "patient": "("})


def test_parameters_are_frozen() -> None:
    p = Study.read(PARAMS / "smoke.yaml").notebook("07_statistics")
    assert isinstance(p, Statistics)
    with pytest.raises(ValueError, match="frozen"):
        p.alpha = 0.5


def test_closest_lists_all_names_where_none_is_close() -> None:
    assert closest("zzz", ["beta", "alpha"]) == "; known are alpha, beta"


def test_sections_are_named_after_the_notebooks() -> None:
    assert [section(name) for name in NOTEBOOKS[:4]] == ["audit", "alignment", "pretraining", "fine_tuning"]
