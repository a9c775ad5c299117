"""The guard before a prediction: numbers of a scan, the training cohort's range, and what is refused or warned of."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from brainmets import nifti
from brainmets.cohorts.cohort import Case
from brainmets.phantoms.sites import make_patient
from brainmets.preparation import pipeline
from brainmets.screening import guard
from brainmets.screening.guard import Profile, ProfileError, Remark, Rule
from brainmets.screening.scan_numbers import NUMBERS, unusable
from brainmets.vocabulary import SEQUENCES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NONE = Profile(0, pd.DataFrame(columns=list(NUMBERS), dtype=float))
"""No training case: the limits alone that hold in any cohort."""


@pytest.fixture(scope="module")
def kinds():
    """The spoiled scans of the benchmark, by kind."""
    spec = importlib.util.spec_from_file_location("spoiled_scans", BENCHMARKS / "spoiled_scans.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.KINDS


@pytest.fixture(scope="module")
def scan():
    made = make_patient("target", 5, 4.0, 91)
    return dict(made.images), made.affine


@pytest.fixture(scope="module")
def row(scan):
    return guard.measure(*scan)


@pytest.fixture
def cohort(row):
    """Ten training cases around one: each number a hundredth apart."""
    return Profile(10, pd.DataFrame([{name: value * (1 + 0.01 * at) for name, value in row.items()}
                                     for at in range(-5, 5)]))  # fmt: skip


def rules(remarks):
    return {(one.rule, one.severity, one.sequence) for one in remarks}


# --- the range of a training cohort --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "changes", "range_"),
    [
        (range(1, 9), {}, (-2.5, 11.5)),  # 1 to 8, widened by half of 7
        (range(1, 9), {"floor": 10.0}, (-9, 18)),
        (range(1, 9), {"worse": "lower"}, (-2.5, math.inf)),
        (range(1, 9), {"worse": "higher"}, (-math.inf, 11.5)),
        (range(1, 9), {"worse": ""}, (-math.inf, math.inf)),
        ([1, 2, math.nan], {}, (-1, 4)),  # of fewer than eight by twice the width
        ([5], {"floor": 1.0}, (2, 8)),  # and three floors
        ([], {"floor": 1.0}, (-math.inf, math.inf)),
        ([math.nan], {}, (-math.inf, math.inf)),
        ([1, 4] * 4, {"ratio": True}, (0.5, 8)),  # a factor of 4, widened by one of 2
        ([*range(101), 1e6], {}, (1.01 - 49.495, 99.99 + 49.49)),  # one odd case of a hundred opens nothing
    ],
)
def test_the_range_of_the_training_cohort_is_widened_by_a_stated_rule(values, changes, range_):
    rule = Rule("rule", "number", "title", "", "means", **{"worse": "either", **changes})
    found = guard.limits(rule, np.array(list(values), float))
    assert found == pytest.approx(range_, abs=0.03)


def test_every_number_is_judged_by_a_rule_and_every_rule_judges_a_number():
    judged = {number for rule in guard.RULES for number, _ in guard._numbers(rule)}
    assert judged == set(NUMBERS)
    for rule in guard.RULES:
        assert rule.worse or math.isfinite(rule.low) or math.isfinite(rule.high), rule
        assert not rule.worse or rule.floor > 0, f"{rule.number}: a small cohort would give the limits of noise"
        assert [sequence for _, sequence in guard._numbers(rule)], rule
        assert {sequence for _, sequence in guard._numbers(rule)} <= {*SEQUENCES, "all"}


def test_what_is_decided():
    warn, refuse = (Remark("rule", severity, "all", "", 0.0, 1.0, 2.0) for severity in ("warn", "refuse"))
    assert [guard.decision(found) for found in ([], [warn], [warn, refuse])] == ["pass", "warn", "refuse"]


# --- the profile ---------------------------------------------------------------------------------------------------


def test_a_profile_comes_back_from_json(row):
    there = Profile(2, pd.DataFrame([row, {**row, "head_mL": math.nan}]))
    text = json.dumps(there.as_json(), allow_nan=False)
    back = Profile.from_json(json.loads(text))
    assert back.cases == 2
    pd.testing.assert_frame_equal(back.values, there.values, rtol=1e-5)
    assert Profile.from_json(NONE.as_json()).values.shape == (0, len(NUMBERS))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"schema": None}, {"cases": 2}, {"cases": True}, {"cases": -1}, {"values": []}, {"values": {}},
        {"values": {"head_mL": 1.0}}, {"values": {"head_mL": ["1"]}}, {"values": {"head_mL": [math.inf]}},
        {"values": {"head_mL": [True]}}, {"values": {"name": [1.0]}},
    ],
)  # fmt: skip
def test_what_is_no_profile_is_refused(row, change):
    content = Profile(1, pd.DataFrame([row])).as_json()
    if isinstance(values := change.get("values"), dict) and values:
        change = {"values": {**content["values"], **values}}
    with pytest.raises(ProfileError, match="profile"):
        Profile.from_json({**content, **change})


def test_a_profile_reads_the_training_cases_and_keeps_no_names(tmp_path, scan, row):
    images, affine = scan
    paths = {name: nifti.write(tmp_path / f"Secret_{name}.nii.gz", image, affine) for name, image in images.items()}
    made = guard.profile([Case("Secret", "Secret", paths, None)])
    assert made.cases == 1
    assert made.values.iloc[0].to_dict() == pytest.approx(row, nan_ok=True, rel=1e-4)
    assert "Secret" not in json.dumps(made.as_json())
    assert guard.profile([]).as_json() == NONE.as_json()


# --- numbers of a scan ---------------------------------------------------------------------------------------------


def test_numbers_of_what_can_not_be_measured(scan):
    images, affine = scan
    assert tuple(guard.measure({}, affine)) == NUMBERS
    assert unusable({}) == dict.fromkeys(SEQUENCES, "is missing")
    holes = images["t1n"].astype(float)
    holes[0, 0, 0] = math.nan
    bad = {"t1n": holes, "t1c": images["t1c"][:, :, 5], "t2w": np.full_like(images["t2w"], 7), "t2f": images["t2f"]}
    found = guard.measure(bad, affine)
    assert [found[f"{name}_usable"] for name in SEQUENCES] == [0, 0, 0, 1]
    reasons = unusable(bad)
    assert "1 value(s) that are not finite" in reasons["t1n"]
    assert "no volume" in reasons["t1c"]
    assert "one value" in reasons["t2w"]
    assert math.isnan(found["t1n_t2f_rank"])
    assert found["head_mL"] > 1000
    assert "shape" in unusable({**images, "t2f": images["t2f"][1:]})["t2f"]
    assert rules(guard.look(bad, affine, NONE)) == {("sequence missing", "refuse", n) for n in ("t1n", "t1c", "t2w")}
    assert len(guard.look({}, affine, NONE)) == 4
    with pytest.raises(ValueError, match="'flair' is no sequence"):
        guard.measure({"flair": images["t2f"]}, affine)
    with pytest.raises(ValueError, match="affine"):
        guard.measure(images, np.zeros((4, 4)))


def test_numbers_do_not_depend_on_how_the_file_lies(scan, row):
    images, affine = scan
    turn = np.eye(4)[[1, 2, 0, 3]]
    moved = affine @ np.linalg.inv(turn)
    moved[:, 2] *= -1
    size = images["t1c"].transpose(1, 2, 0).shape[2]
    moved[:3, 3] -= moved[:3, 2] * (size - 1)
    other = guard.measure({name: image.transpose(1, 2, 0)[:, :, ::-1] - 300 for name, image in images.items()}, moved)
    for name in ("head_mL", "spacing_R_mm", "spacing_S_mm", "t1n_t1c_rank", "upright", "brainlike", "t2f_agreement",
                 "t1c_contrast", "t2w_sharp_S", "t1n_noise", "uptake"):  # fmt: skip
        assert other[name] == pytest.approx(row[name], rel=0.05, abs=0.01), name
    assert guard.look(*scan, NONE) == []


# --- what is said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "variant", "rule"),
    [
        ("t1c without contrast", 0, "one image twice"), ("FLAIR with bright fluid", 1, "fluid bright on FLAIR"),
        ("sequence missing or empty", 3, "sequence missing"), ("half a head", 0, "half a head"),
        ("half a head", 1, "half a head"), ("half a head", 3, "half a head"), ("wrong way up", 0, "wrong way up"),
        ("wrong way up", 3, "wrong way up"), ("no brain", 0, "no brain"), ("no brain", 1, "no brain"),
        ("no brain", 4, "no brain"), ("sequences displaced", 0, "displaced"), ("sequences displaced", 3, "mirrored"),
    ],
)  # fmt: skip
def test_what_is_absurd_is_refused_whatever_the_training_cohort(kinds, scan, kind, variant, rule):
    images, affine = kinds[kind](*scan, variant, np.random.default_rng(variant))
    found = guard.look(images, affine, NONE)
    assert guard.decision(found) == "refuse"
    assert rule in {one.rule for one in found if one.severity == "refuse"}


def test_a_number_far_from_the_training_cases_is_told_with_their_range(row, cohort):
    assert guard.judge(row, cohort) == []
    (found,) = guard.judge({**row, "t2f_noise": 0.9}, cohort)
    assert (found.rule, found.severity, found.sequence, found.value) == ("noise", "warn", "t2f", 0.9)
    assert found.high < 0.9
    least = f"{cohort.values.t2f_noise.min():.3g}"
    assert "noise of t2f: 0.9" in found.text
    assert f"the 10 training case(s) have {least} to" in found.text
    assert guard.as_json(found)["low"] is None
    assert json.loads(json.dumps(guard.as_json(found), allow_nan=False))["high"] == found.high


def test_a_sequence_that_lies_a_little_aside_is_warned_of_in_any_cohort(scan, row):
    images, affine = scan
    assert max(row[f"{name}_shift_mm"] for name in ("t1n", "t2w", "t2f")) < 0.5
    moved = guard.look({**images, "t2f": np.roll(images["t2f"], 1, axis=1)}, affine, NONE)
    assert rules(moved) == {("fit of sequences", "warn", "t2f")}
    assert moved[0].value == pytest.approx(np.linalg.norm(affine[:3, 1]), abs=1)
    assert "mm, where at most 3 is sound" in moved[0].text


def test_faint_edges_are_not_said_where_voxels_or_sharpness_explain_them(row, cohort):
    faint = {**row, "t2f_agreement": 0.3 * row["t2f_agreement"]}
    assert rules(guard.judge(faint, cohort)) == {("faint edges", "warn", "t2f")}
    for number, value, rule in (("spacing_R_mm", 1.0, "voxel size"), ("t2f_sharp_S", 0.4, "resolution")):
        assert {one.rule for one in guard.judge({**faint, number: value}, cohort)} == {rule}


def test_shading_does_not_change_how_tissues_relate(scan, row):
    """Two coils' shading along one axis, which makes the images as a whole rise and fall together."""
    images, affine = scan
    size = images["t1c"].shape[2]
    shading = np.linspace(0.6, 1.6, size, dtype=np.float32)
    shaded = guard.measure({**images, "t1c": images["t1c"] * shading, "t2f": images["t2f"] * shading}, affine)
    assert shaded["t1c_t2f_rank"] == pytest.approx(row["t1c_t2f_rank"], abs=0.15)
    assert shaded["t1c_t2w_rank"] == pytest.approx(row["t1c_t2w_rank"], abs=0.15)


def test_skull_is_refused_only_where_the_training_cohort_has_none(row, cohort):
    head = {**row, "head_mL": 5000.0}
    assert ("skull left on", "refuse", "all") in rules(guard.judge(head, cohort))
    with_skull = Profile(10, cohort.values.assign(head_mL=5000.0, skull=1.0))
    assert guard.judge({**head, "skull": 1.0}, with_skull) == []
    assert ("skull taken off", "refuse", "all") in rules(guard.judge(row, with_skull))
    assert ("skull left on", "refuse", "all") in rules(guard.judge({**row, "skull": 1.0}, cohort))
    assert guard.judge(head, NONE) == []


def test_swapped_sequences_are_named_and_explain_the_rest(row, cohort):
    names = {"t2w": "t2f", "t2f": "t2w"}
    swapped = {}
    for number in NUMBERS:
        one, _, rest = number.partition("_")
        other = rest.partition("_")[0]
        if number.endswith("_rank"):
            pair = sorted((names.get(one, one), names.get(other, other)), key=SEQUENCES.index)
            swapped[number] = row[f"{pair[0]}_{pair[1]}_rank"]
        else:
            swapped[number] = row[f"{names.get(one, one)}_{rest}"] if rest else row[number]
    found = guard.judge(swapped, cohort)
    assert {(one.rule, one.sequence) for one in found} == {("sequences swapped", "t2w"), ("sequences swapped", "t2f")}
    assert "as t2f does" in next(one.text for one in found if one.sequence == "t2w")
    few = Profile(7, cohort.values.iloc[:7])
    assert "sequences swapped" not in {one.rule for one in guard.judge(swapped, few)}, "seven cases tell no relation"


def test_the_preparation_has_its_say(row, cohort):
    sound = {"template_turned": 1.0, "brain_mL": 1400.0, "t2f_rotation_deg": 10.0, "t1n_metric": 1.1}
    assert guard.judge(row, cohort, sound) == []
    found = guard.judge(row, cohort, {**sound, "template_turned": 2.5, "t2f_rotation_deg": 60.0, "lesions": 9.0})
    assert [(one.severity, one.sequence, one.value, one.high) for one in found] == [
        ("refuse", "all", 2.5, 1.8), ("warn", "t2f", 60.0, 40.0),
    ]  # fmt: skip
    assert guard.judge(row, cohort, {"brain_mL": math.nan}) == []


@pytest.mark.slow
def test_clean_phantoms_pass_and_every_kind_of_spoiled_one_is_seen(kinds):
    def target(patient, seed):
        made = make_patient("target", patient, 3.0, seed)
        return dict(made.images), made.affine

    # the demonstration's: where a training case hardly takes up contrast agent, a lack of it is not seen
    trained = [patient for patient in range(1, 24) if patient not in (2, 3, 4, 8, 14, 15)]
    rows = [guard.measure(*target(patient, 2)) for patient in trained]
    profile = Profile(len(rows), pd.DataFrame(rows))
    clean = [guard.decision(guard.look(*target(patient, 77), profile)) for patient in range(1, 16)]
    assert clean.count("pass") >= len(clean) - 1
    assert "refuse" not in clean
    for number, spoil in enumerate(kinds.values()):
        images, affine = target(1 + number, 55)
        for variant in (number % 5, (number + 2) % 5):
            spoiled = spoil(images, affine, variant, np.random.default_rng([number, variant]))
            assert guard.look(*spoiled, profile), (spoil.__name__, variant)


# --- real cases ----------------------------------------------------------------------------------------------------


def real_scan(folder, case):
    if case.startswith("patient"):
        names = {"t1n": "T1", "t1c": "T1POST", "t2w": "T2", "t2f": "FLAIR"}
        paths = {name: folder / "data" / "openms" / case / f"{file}.nii.gz" for name, file in names.items()}
    else:
        paths = {name: folder / "data" / "metastasis" / case / f"{case}-{name}.nii.gz" for name in SEQUENCES}
    read = {name: nifti.read_volume(path) for name, path in paths.items()}
    return {name: voxels for name, (voxels, _) in read.items()}, read["t1c"][1].affine


@pytest.mark.real
def test_real_prepared_cases_pass_and_are_refused_when_spoiled(real_data, kinds):
    scans = {case: real_scan(real_data, case) for case in ("patient07", "patient19", "BraTS-MET-00110-000")}
    rows = [guard.measure(*scan) for scan in scans.values()]
    profile = Profile(3, pd.DataFrame(rows))
    for row in rows:
        assert guard.judge(row, profile) == []
        assert guard.judge(row, NONE) == []
    images, affine = scans["BraTS-MET-00110-000"]
    upside_down = {name: image[:, :, ::-1] for name, image in images.items()}
    assert {one.rule for one in guard.look(upside_down, affine, profile)} == {"wrong way up"}
    no_contrast = {**images, "t1c": images["t1n"]}
    assert ("one image twice", "refuse", "all") in rules(guard.look(no_contrast, affine, profile))
    no_flair = {**images, "t2f": images["t2w"] * np.float32(0.5) + np.float32(3) * (images["t2w"] != 0)}
    assert ("fluid bright on FLAIR", "refuse", "t2f") in rules(guard.look(no_flair, affine, profile))
    for variant in (0, 1, 2):
        half = guard.look(*kinds["half a head"](images, affine, variant, np.random.default_rng(0)), profile)
        assert guard.decision(half) == "refuse"
    moved = {**images, "t2f": np.roll(images["t2f"], 16, axis=1)}
    assert ("displaced", "refuse", "t2f") in rules(guard.look(moved, affine, profile))


@pytest.mark.real
def test_a_real_case_of_another_cohort_is_warned_of_but_not_refused(real_data):
    phantoms = [make_patient("target", patient, 3.0, 2) for patient in range(1, 9)]
    profile = Profile(8, pd.DataFrame([guard.measure(dict(one.images), one.affine) for one in phantoms]))
    found = guard.look(*real_scan(real_data, "BraTS-MET-00110-000"), profile)
    assert guard.decision(found) == "warn"
    said = {one.rule for one in found}
    assert {"voxel size", "other contrast", "resolution"} <= said
    assert not {"fit of sequences", "faint edges", "relation of sequences"} & said, "its sequences lie in place"


@pytest.mark.real
@pytest.mark.slow
def test_a_real_clinical_scan_that_was_prepared_here_is_not_refused(real_data):
    """A glioma with slices of 5.5 mm, on the grid of the phantoms: what is said is about its rim and its sharpness."""
    folder = real_data / "data" / "raw" / "TCGA-FG-6692"
    files = {"t1n": "T1", "t1c": "T1GD", "t2w": "T2", "t2f": "FLAIR"}
    images = {
        name: sitk.DICOMOrient(sitk.ReadImage(folder / f"{file}.nii.gz", sitk.sitkFloat32))
        for name, file in files.items()
    }
    settings = pipeline.Settings("template", (3.0, 3.0, 3.0), 4.0, False, 1)
    made = pipeline.prepare(pipeline.Native(images, None, "t1c", None, "t1c"), settings, lambda _: None)
    phantoms = [make_patient("target", patient, 3.0, 2) for patient in range(1, 9)]
    profile = Profile(8, pd.DataFrame([guard.measure(dict(one.images), one.affine) for one in phantoms]))
    found = guard.look(made.images, made.affine, profile, made.row)
    assert guard.decision(found) == "warn"
    assert {one.rule for one in found} <= {"rim", "resolution"}
    assert guard.look(made.images, made.affine, NONE, made.row) == []
