from pathlib import Path

import pytest
import yaml

from brainmets.engine.steps import jobs
from brainmets.params import (
    MODELS,
    Arms,
    Audit,
    Cohort,
    FineTuning,
    Layout,
    ParameterError,
    Phantoms,
    PostProcessing,
    Statistics,
    closest,
)
from brainmets.params.study import Study, section
from brainmets.paths import AFTER, NOTEBOOKS

PARAMS = Path(__file__).resolve().parents[2] / "params"
PROFILES = ("demo", "smoke", "gpu_demo", "paper", "learning_curve", "repeats", "small_lesions")


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
    for notebook in (*NOTEBOOKS, *AFTER):
        for job in study.jobs(notebook):
            assert set(study.values(notebook, **job)) == set(MODELS[notebook].model_fields)


def test_screening_is_checked_with_the_study_and_is_no_step_of_it(tmp_path: Path, content: dict) -> None:
    study = read(tmp_path, content)
    assert "09_screening" not in {notebook for notebook, _ in jobs(study)}
    assert study.values("09_screening")["params"] == str(tmp_path / "own.yaml")
    del content["screening"]
    assert "screening: missing" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scans": []}, "scans: List should have at least 1 item"),
        ({"scans": "scans"}, "scans: must be a list (given: 'scans')"),
        ({"viewer": "vtk"}, "viewer: Input should be 'itkwidgets', 'niivue' or 'slices'"),
        ({"params": "params/other.yaml"}, "params: unknown parameter"),
        ({"device": "cpu"}, "device: unknown parameter"),
    ],
)
def test_wrong_parameters_of_screening_are_refused_before_any_work(
    tmp_path: Path, content: dict, change: dict, said: str
) -> None:
    content["screening"] |= change
    message = refused(tmp_path, content)
    assert "section screening" in message and said in message


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
    assert len(study.jobs("06_evaluation")) == 2 * 3
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
        ("pretraining", "epochs", 0, "epochs: 0 must be a whole number from 1 to 100,000 ("),
        ("pretraining", "epochs", "many", "epochs: 'many' must be a whole number"),
        ("evaluation", "tile_step", 1.5, "tile_step: 1.5 must be a number from 0.1 to 1 ("),
        ("statistics", "alpha", 1, "alpha: 1 must be a number from 0.001 to 0.5 ("),
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


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("target.layout.t1c", "T1POST.nii.gz", "target.layout.t1c: 'T1POST.nii.gz' must contain {case}"),
        (
            "target.layout.t2w",
            "{patient}/{case}",
            "target.layout.t2w: '{patient}/{case}' holds {patient}; only {case}",
        ),
        (
            "target.layout.label",
            "{case/{case}",
            "target.layout.label: '{case/{case}' holds a brace without its partner",
        ),
        (
            "target.layout.t1n",
            "/data/{case}",
            "target.layout.t1n: '/data/{case}' must start below the cohort's folder",
        ),
        (
            "target.layout.t2w",
            None,
            "target.layout.t2w: missing; the networks of the target read t1n, t1c, t2w, t2f: give the pattern of its",
        ),
        (
            "target.layout.t2w",
            "{case}/T2.mha",
            "target.layout.t2w: '{case}/T2.mha' must end with .nii.gz or .nii; prepared cases are NIfTI: have raw",
        ),
        (
            "target.layout.t2f",
            "{case}/{case}_T2.nii.gz",
            "target.layout.t2f: '{case}/{case}_T2.nii.gz' is the pattern of t2w too; each needs files of its own",
        ),
        ("target.layout.T2", "{case}", "target.layout.T2: unknown parameter; known are label"),
        ("target.layout", "own", "target.layout: must be brats, or hold one pattern per sequence (given: 'own')"),
        ("target.held_out", 0, "target.held_out: 0 leaves no case to test; hold out one or more"),
        ("target.held_out", [], "target.held_out: [] leaves no case to test"),
        ("target.held_out", True, "target.held_out: must be a number of cases or a list of case names (given: true)"),
        ("target.held_out", [7], "target.held_out: a case's name must be text; write it in quotes (given: 7)"),
        ("target.held_out", ["P1", "P1"], "target.held_out: names case 'P1' twice"),
        ("source.held_out", -1, "source.held_out: -1 must be a whole number from 0 to 100,000 ("),
        ("target", None, "target: must hold names and values (given: nothing)"),
        ("target.label_map", {1: "edema"}, "target.label_map.1: Input should be 'background', 'netc'"),
        ("target.phantoms.spacing_mm", 0, "target.phantoms.spacing_mm: 0 must be a number from 0.4 to 5 ("),
        ("arms.tverskybce", {}, "arms.tverskybce: unknown parameter; did you mean 'tversky_bce'?"),
        ("arms.default.learning_rate", -1, "arms.default.learning_rate: -1 must be a number from 1e-09 to 10 ("),
        ("arms.default", None, "arms.default: holds no settings; give them, or leave the arm out"),
        ("arms", None, "arms: name at least one of default, tversky_bce, segresnet"),
        ("arms", ["default"], "arms: name at least one of default, tversky_bce, segresnet"),
        ("folds", 0, "folds: must list at least one fold, each once, such as [0, 1, 2] (given: 0)"),
        ("folds", None, "folds: must list at least one fold, each once, such as [0, 1, 2] (given: nothing)"),
        ("folds", ["0"], "folds: must list at least one fold, each once, such as [0, 1, 2] (given: ['0'])"),
        ("study", "my study", "study: 'my study' may hold letters, digits, '.', '_' and '-' alone"),
        ("study", 2024, "study: must be text; write it in quotes (given: 2024)"),
    ],
)
def test_a_shared_parameter_is_named_in_full_and_without_a_section(
    tmp_path: Path, content: dict, path: str, value: object, expected: str
) -> None:
    *above, last = path.split(".")
    part = content
    for name in above:
        part = part[name]
    part[last] = value
    message = refused(tmp_path, content)
    assert message.startswith(f"{tmp_path / 'own.yaml'}: {expected}")
    assert "literal[" not in message and "function-after" not in message and "section" not in message
    assert "given: {" not in message
    assert message.count("must contain") <= 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2", "n_folds: '2' is text; write the number without quotes"),
        (True, "n_folds: true must be a whole number from 2 to 100 (each fold is five trainings an arm)"),
    ],
)
def test_a_whole_number_is_no_text_and_no_truth_value(
    tmp_path: Path, content: dict, value: object, expected: str
) -> None:
    content["audit"]["n_folds"] = value
    assert refused(tmp_path, content).endswith(f"own.yaml, section audit: {expected}")


def test_every_wrong_parameter_of_one_notebook_is_named_where_it_stands(tmp_path: Path, content: dict) -> None:
    content["audit"]["n_folds"] = 1
    content["target"]["layout"] |= {"t1c": "a.nii.gz", "label": "b.nii.gz"}
    content["target"]["layout"]["t2W"] = content["target"]["layout"].pop("t2w")
    message = refused(tmp_path, content)
    assert "own.yaml: target.layout.t2W: unknown parameter; did you mean 't2w'?" in message
    assert "own.yaml, section audit: n_folds: 1 must be a whole number from 2 to 100 (" in message
    content["target"]["layout"]["t2w"] = content["target"]["layout"].pop("t2W")
    message = refused(tmp_path, content)
    assert "target.layout.t1c: 'a.nii.gz' must contain {case}; target.layout.label: 'b.nii.gz' must" in message


def test_a_parameters_file_is_looked_for_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRAINMETS_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    expected = rf"^params/demo\.yaml: there is no such parameters file in {tmp_path}; change into the checkout"
    with pytest.raises(ParameterError, match=expected):
        Study.read(Path("params/demo.yaml"))
    with pytest.raises(ParameterError, match="is a folder; name the YAML file in it"):
        Study.read(tmp_path)
    monkeypatch.chdir(PARAMS)
    with pytest.raises(ParameterError, match=r"the checkout has params/demo\.yaml, params/gpu_demo\.yaml"):
        Study.read(Path("demos.yaml"))


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("study: a\nseed: 1\nstudy: b\n", 3, r"study is given twice \(before in line 1\); keep one"),
        ("target:\n  folder: a\n  held_out: 1\n  folder: b\n", 4, r"folder is given twice \(before in line 2\)"),
        ("target: {folder: a, folder: b}\n", 1, r"folder is given twice \(before in line 1\)"),
        ("study: a\n  seed: 1\n", 2, "this is not YAML: mapping values are not allowed here"),
    ],
)
def test_a_name_given_twice_is_refused_with_its_line(tmp_path: Path, text: str, line: int, name: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ParameterError, match=rf"own\.yaml, line {line}: {name}"):
        Study.read(tmp_path / "own.yaml")


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes("study: a\nwork_dir: Köln\n".encode("latin-1"))
    with pytest.raises(ParameterError, match=r"own\.yaml, line 2: a letter is not in UTF-8; save the file as UTF-8"):
        Study.read(tmp_path / "own.yaml")


def test_missing_file_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="there is no such parameters file"):
        Study.read(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ParameterError, match=r"broken\.yaml, line 1: this is not YAML: .*expected ',' or ']'"):
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
    t1c_alone = Layout(t1c=layout["t1c"], label=layout["label"])
    assert list(t1c_alone.patterns) == ["t1c", "label"], "a cohort need not have all four sequences"
    with pytest.raises(ParameterError, match="no sequence has a pattern; give that of one or more of t1n, t1c, t2w"):
        Layout(label=layout["label"])
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
    assert [section(name) for name in NOTEBOOKS[:4]] == ["preparation", "audit", "alignment", "pretraining"]


def test_detection_that_decides_is_measured_in_its_region(tmp_path: Path, content: dict) -> None:
    """Else the verdict would be "not available" after all the trainings."""
    decision, detection = content["statistics"]["decision"], content["statistics"]["detection"]
    detection["region"] = "ET"
    decision["endpoint"] = {"metric": "detection_sensitivity", "region": "ET"}
    decision["secondary"] = [{"metric": "detection_sensitivity", "region": "WT"}]
    message = refused(tmp_path, content)
    assert "section statistics: decision: detection_sensitivity of 'WT' would never be available" in message
    assert "detection.region is 'ET': name the same region in both" in message
    decision["secondary"] = []
    read(tmp_path, content)


def test_a_file_of_an_earlier_version_is_told_all_that_it_lacks_at_once(tmp_path: Path, content: dict) -> None:
    for name in ("repeats", "learning_curve", "strategies"):
        del content[name]
    for of, name in (("evaluation", "candidate_threshold"), ("statistics", "decision")):
        del content[of][name]
    message = refused(tmp_path, content)
    for name in ("repeats", "learning_curve", "strategies", "candidate_threshold", "decision"):
        assert f"{name}: missing" in message
    assert message.count("(params/demo.yaml has each with its meaning)") == 3


# --- sequences -------------------------------------------------------------------------------------------------------


def test_sequences_are_kept_in_channel_order_and_the_source_may_have_others(tmp_path: Path, content: dict) -> None:
    content["sequences"] = ["t2f", "t1c"]
    content["source"]["sequences"] = ["t2w", "t1n", "t1c"]
    audit = read(tmp_path, content).notebook("01_data_audit")
    assert isinstance(audit, Audit)
    assert (audit.sequences_of("target"), audit.sequences_of("source")) == (("t1c", "t2f"), ("t1n", "t1c", "t2w"))
    del content["source"]["sequences"]
    study = read(tmp_path, content)
    assert study.sequences_of("source") == study.sequences_of("target") == ["t2f", "t1c"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sequences": []}, "sequences: List should have at least 1 item"),
        ({"sequences": ["t1c", "t1c"]}, "sequences: ['t1c', 't1c'] names t1c twice"),
        ({"sequences": ["flair"]}, "'t1n', 't1c', 't2w' or 't2f'"),
        ({"target.sequences": ["t1c"]}, "target.sequences: ['t1c'] is not what the study reads (['t1n', 't1c', 't2w'"),
        ({"target.may_lack": ["t2w", "t2w"]}, "target.may_lack: ['t2w', 't2w'] names t2w twice"),
        ({"sequences": ["t1c"], "target.may_lack": ["t2w"]}, "target.may_lack: t2w is not among its sequences (t1c)"),
        ({"sequences": ["t1c"], "target.may_lack": ["t1c"]}, "target.may_lack: names every sequence; leave out one"),
        ({"target.may_lack": ["t1c"]}, "target.raw: every raw scan is laid onto its t1c: target needs t1c in its"),
        ({"sequences": ["t2f"]}, "target.raw: every raw scan is laid onto its t1c"),
        (
            {"source.sequences": ["t1c", "t2f"], "target.layout.t1n": None},
            "target.layout.t1n: missing; the networks of",
        ),
        (
            {"source.sequences": ["t1n", "t2w"], "sequences": ["t1c", "t2f"]},
            "target.sequences: t1c, t2f; the networks of the source read t1n, t2w, and must predict cases of the",
        ),
        (
            {"source.sequences": ["t2f"], "sequences": ["t1c", "t2f"], "target.may_lack": ["t2f"]},
            "target.sequences: t1c, t2f, of which may_lack lets a case be without t2f; the networks of the source",
        ),
        (
            {
                "source.may_lack": ["t1c"],
                "sequences": ["t1c"],
                "source.held_out": 2,
                "source.sequences": ["t1c", "t2w"],
            },
            "source.sequences: t1c, t2w, of which may_lack lets a case be without t1c; the networks of the target",
        ),
        ({"target.phantoms.lacking": {"t2w": 5}}, "target.phantoms.lacking: t2w: 5 patients lack it; one at least"),
        ({"target.phantoms.lacking": {"t2w": -1}}, "target.phantoms.lacking.t2w: -1 must be a whole number from 0 to"),
        ({"target.phantoms.lesions": "tiny"}, "target.phantoms.lesions: Input should be 'mixed' or 'small'"),
    ],
)
def test_sequences_that_do_not_fit_together_are_refused(
    tmp_path: Path, content: dict, change: dict, expected: str
) -> None:
    for path, value in change.items():
        *above, last = path.split(".")
        part = content
        for name in above:
            part = part[name]
        part[last] = value
    assert expected in refused(tmp_path, content)


def test_a_prepared_cohort_may_be_without_any_t1c(tmp_path: Path, content: dict) -> None:
    del content["target"]["raw"]
    content["sequences"] = ["t2f"]
    assert read(tmp_path, content).sequences_of("target") == ["t2f"]


def test_phantoms_have_mixed_lesions_and_all_sequences_unless_told() -> None:
    plain = Phantoms(site="target", patients=3, spacing_mm=5.0, seed=1)
    assert (plain.lesions, plain.lacking) == ("mixed", {})
    assert Phantoms(site="target", patients=3, spacing_mm=5.0, seed=1, lacking={"t2w": 2}).lacking == {"t2w": 2}


# --- arms beyond the paper's -----------------------------------------------------------------------------------------


def test_settings_left_at_their_defaults_are_not_part_of_an_arm() -> None:
    """What an older arm's training is identified by does not change where a new setting is off."""
    plain = Arms(default={"learning_rate": 0.01})
    off = Arms(default={"learning_rate": 0.01, "sequence_dropout": 0.0, "lesion_sampling": "voxels"})
    assert plain.settings("default") == off.settings("default") == {"learning_rate": 0.01}
    on = Arms(default={"learning_rate": 0.01, "sequence_dropout": 0.25, "lesion_transplant": 0.5})
    assert on.settings("default") == {"learning_rate": 0.01, "sequence_dropout": 0.25, "lesion_transplant": 0.5}


@pytest.mark.parametrize(
    ("arm", "settings", "expected"),
    [
        ("default", {"sequence_dropout": 1.5}, "sequence_dropout: 1.5 must be a number from 0 to 1 ("),
        (
            "default",
            {"lesion_sampling": "all"},
            "lesion_sampling: Input should be 'voxels', 'lesions' or 'small_lesions",
        ),
        ("default", {"lesion_weight": 1.0}, "lesion_weight: unknown parameter"),
        ("lesion_dice", {}, "lesion_weight: missing"),
        ("lesion_sampling", {"lesion_sampling": "voxels"}, "lesion_sampling: Input should be 'lesions' or 'small_les"),
        ("lesion_sampling", {}, "lesion_sampling: missing"),
        ("lesion_transplant", {"lesion_transplant": 0.0}, "lesion_transplant: 0.0 must be a number from 0.01 to 1 ("),
    ],
)
def test_settings_of_an_arm_are_checked(arm: str, settings: dict, expected: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        Arms(**{arm: {"learning_rate": 0.01, **settings}})
    assert expected in str(refusal.value)


# --- post-processing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "volumes", "expected"),
    [
        ([], [], "rules: List should have at least 1 item"),
        (["holes", "holes"], [], "rules: holes stands twice"),
        (
            ["smallest_volume"],
            [],
            "smallest_mm3: [] with rules ['smallest_volume']: list volumes to try with the rule",
        ),
        (["holes"], [30], "smallest_mm3: [30.0] with rules ['holes']"),
        (["smallest_volume"], [60, 30], "[60.0, 30.0] must rise, each size given once"),
        (["smallest_volume"], [-1], "-1 must be a number from 0 to 10,000 ("),
        (["dilate"], [], "'smallest_volume', 'tc_without_et', 'wt_without_tc' or 'holes'"),
    ],
)
def test_rules_of_post_processing_are_checked(rules: list, volumes: list, expected: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        PostProcessing(rules=rules, smallest_mm3=volumes)
    assert expected in str(refusal.value)
    assert PostProcessing(rules=["smallest_volume", "holes"], smallest_mm3=[30, 60]).smallest_mm3 == [30, 60]
