"""Models of other sequences than four, and scans that lack one: bundled, screened, refused, followed."""

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import bundled_study
import numpy as np
import other_sequences
import pandas as pd
import pytest
import torch
from bundled_study import STRATEGY
from screened import Ball, make_screened

from brainmets import cli
from brainmets.cohorts import splits
from brainmets.cohorts.cohort import Case, read_manifest
from brainmets.paths import ScreeningPaths, StudyPaths
from brainmets.phantoms.sites import make_patient
from brainmets.screening import bundle, contents, followup, guard, page, result, source
from brainmets.screening.bundle import BundleError
from brainmets.screening.guard import Profile
from brainmets.screening.reads import ALL_FOUR, Reads
from brainmets.screening.scan_numbers import NUMBERS
from brainmets.screening.source import SourceError
from brainmets.training import channels, plans
from brainmets.vocabulary import RESIDUAL_PLAN, SEQUENCES

ALONE = Reads(("t1c",))
NONE = Profile(0, pd.DataFrame(columns=list(NUMBERS), dtype=float))


def bundled(study: StudyPaths, folder: Path, settings: dict[str, Any] | None = None) -> Path:
    made = bundled_study.make(study, folder / "work", arms=("default",), settings=settings)
    return bundle.write(made, "default", STRATEGY, folder / "model.zip")


@pytest.fixture(scope="module")
def of_t1c(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyPaths, Path]:
    folder = tmp_path_factory.mktemp("t1c")
    files = other_sequences.ingest(folder / "study", ["t1c"], ["t1c"])
    return files, bundled(files, folder)


@pytest.fixture(scope="module")
def of_two(mixed_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on t1c and t2f, of which one training case lacks the t2f."""
    return bundled(mixed_study, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def with_dropout(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled(small_study, tmp_path_factory.mktemp("dropout"), {"sequence_dropout": 0.5})


@pytest.fixture(scope="module")
def with_all(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled(small_study, tmp_path_factory.mktemp("all"))


def held_out(files: StudyPaths, folder: Path, sequences: tuple[str, ...] = SEQUENCES) -> Path:
    """The study's held-out case as files named as in BraTS, of these sequences alone."""
    (name,) = splits.read(files, "target")["held_out"]
    case = read_manifest(files.manifest("target"))[name]
    folder.mkdir(parents=True)
    for sequence in sequences:
        shutil.copyfile(case.images[sequence], folder / f"next-{sequence}.nii.gz")
    return folder


def screened(model: Path, scan: Path, out: Path, *words: str) -> int:
    return cli.main(["screen", str(model), str(scan), "--out", str(out), "--device", "cpu", *words])


# --- what a bundle says ---


def test_the_card_lists_the_models_own_sequences(of_t1c: tuple[StudyPaths, Path], of_two: Path) -> None:
    alone, two = bundle.read(of_t1c[1]), bundle.read(of_two)
    assert (alone.card["sequences"], alone.reads) == (["t1c"], ALONE)
    assert (two.card["sequences"], two.card["may_lack"]) == (["t1c", "t2f"], ["t2f"])
    assert two.reads == Reads(("t1c", "t2f"), ("t2f",))
    assert alone.ensemble(torch.device("cpu")).sequences == ("t1c",)
    with zipfile.ZipFile(of_two) as archive:
        card = archive.read("model_card.md").decode()
        model = archive.read("model.json").decode()
    assert "Two sequences of one examination: T1 after contrast (t1c), FLAIR (t2f)." in card
    assert "A scan may be without FLAIR (t2f): single training cases lacked it." in card
    assert channels.ABSENT not in json.loads(model)["dataset"], "which would name cases"
    assert math.isnan(alone.profile.values["t2w_usable"].iloc[0]) and alone.profile.values["t1c_usable"].iloc[0] == 1


def test_dropout_frees_every_sequence_but_the_t1c(with_dropout: Path, with_all: Path) -> None:
    assert bundle.read(with_dropout).reads == Reads(SEQUENCES, ("t1n", "t2w", "t2f"))
    assert bundle.read(with_all).reads == ALL_FOUR
    with zipfile.ZipFile(with_all) as archive:
        card = json.loads(archive.read("model.json"))["card"]
    assert "may_lack" not in card and "sequence_dropout" not in card, "an earlier release reads it too"


def test_a_model_without_t1c_is_not_bundled(small_study: StudyPaths, tmp_path: Path, monkeypatch: Any) -> None:
    study = bundled_study.make(small_study, tmp_path / "work", arms=("default",))
    monkeypatch.setattr(channels, "names", lambda dataset: ("t2w", "t2f"))
    with pytest.raises(BundleError, match="reads t2w, t2f and no t1c: every result of screening lies on the t1c"):
        bundle.write(study, "default", STRATEGY, tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sequences": ["t2f", "t1c"]}, "in this order, each once"),
        ({"sequences": ["t2f"]}, "on which every result lies"),
        ({"sequences": ["t1c", "t2w"], "may_lack": []}, "dataset is not what notebook 02 writes"),
        ({"may_lack": ["t2w"]}, "may_lack: t2w is not among sequences"),
        ({"sequence_dropout": 0.3}, "sequence_dropout is 0.3 in the card and 0.0 in the plan"),
    ],
)
def test_a_card_that_its_plan_does_not_bear_out_is_refused(of_two: Path, change: dict[str, Any], said: str) -> None:
    with zipfile.ZipFile(of_two) as archive:
        model = json.loads(archive.read("model.json"))
    model["card"] |= change
    with pytest.raises(contents.ContentError, match=said):
        contents.parse(json.dumps(model).encode())


@pytest.mark.parametrize("name", ["normalization_schemes", "use_mask_for_norm"])
def test_a_plan_of_another_number_of_channels_is_refused(of_two: Path, name: str) -> None:
    with zipfile.ZipFile(of_two) as archive:
        model = json.loads(archive.read("model.json"))
    model["plan"]["configurations"]["3d_fullres"][name] *= 2
    with pytest.raises(contents.ContentError, match=f"{name} must hold 2 values"):
        contents.parse(json.dumps(model).encode())


def test_a_plan_of_the_residual_encoder_is_one_that_a_bundle_may_hold(small_study: StudyPaths, tmp_path: Path) -> None:
    work = StudyPaths(str(tmp_path), small_study.study)
    shutil.copytree(small_study.work, work.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    plan = plans.plan_target(work, 0.005, 4, RESIDUAL_PLAN)
    plan["brainmets"] = {"arm": "default_resenc", "settings": {"learning_rate": 0.01}}
    kept = contents.plan_of(json.loads(json.dumps(plan))).content()
    assert kept["configurations"].keys() == {"3d_fullres"}
    assert kept["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["n_blocks_per_stage"]


def test_a_residual_encoder_has_blocks_and_no_other_class_has(with_all: Path) -> None:
    with zipfile.ZipFile(with_all) as archive:
        architecture = json.loads(archive.read("model.json"))["plan"]["configurations"]["3d_fullres"]["architecture"]
    blocks = architecture["arch_kwargs"].pop("n_conv_per_stage")
    architecture["arch_kwargs"]["n_blocks_per_stage"] = blocks
    with pytest.raises(ValueError, match="a PlainConvUNet has n_conv_per_stage, which is not there"):
        contents.Architecture.model_validate_json(json.dumps(architecture))
    architecture["network_class_name"] = f"{contents.UNETS}.ResidualEncoderUNet"
    read = contents.Architecture.model_validate_json(json.dumps(architecture))
    assert read.model_dump(mode="json", by_alias=True) == architecture
    architecture["arch_kwargs"]["n_conv_per_stage"] = blocks
    with pytest.raises(ValueError, match="must hold one of"):
        contents.Architecture.model_validate_json(json.dumps(architecture))


# --- screening ---


def test_t1c_alone_is_screened_end_to_end_and_more_is_passed_over(
    of_t1c: tuple[StudyPaths, Path], small_study: StudyPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The held-out phantom from its t1c alone and with all four images: the same results."""
    _, model = of_t1c
    alone = held_out(small_study, tmp_path / "alone", ("t1c",))
    four = held_out(small_study, tmp_path / "four")
    screened(model, alone, tmp_path / "one", "--prepared")
    screened(model, four, tmp_path / "other", "--prepared")
    first, second = (result.read(tmp_path / name / "next") for name in ("one", "other"))
    assert first.record["guard"]["decision"] != "refuse", first.record["guard"]["remarks"]
    assert first.record["input"]["sequences"] == {"t1c": "prepared/t1c.nii.gz"} == second.record["input"]["sequences"]
    assert first.record["files"]["probabilities.nii.gz"] == second.record["files"]["probabilities.nii.gz"]
    passed = first.record["guard"]["passed_over"]
    assert {"sequences swapped", "displaced", "no contrast agent", "one image twice"} <= {*passed}
    assert not {"half a head", "no brain", "noise"} & {*passed}
    text = first.files.page.read_text()
    assert "Not asked, since they need a sequence that is not there" in text
    assert [path.name for path in first.files.prepared.glob("*.nii.gz")] == ["t1c.nii.gz"]


def test_a_model_with_dropout_screens_a_scan_without_t2w_and_warns(
    with_dropout: Path, small_study: StudyPaths, tmp_path: Path
) -> None:
    scan = held_out(small_study, tmp_path / "scan", ("t1n", "t1c", "t2f"))
    screened(with_dropout, scan, tmp_path / "out", "--prepared")
    found = result.read(tmp_path / "out" / "next")
    assert found.record["guard"]["decision"] == "warn", found.record["guard"]["remarks"]
    (remark,) = [one for one in found.record["guard"]["remarks"] if one["rule"] == guard.LACKING]
    assert (remark["severity"], remark["sequence"]) == ("warn", "t2w")
    assert remark["text"].startswith("T2 is missing: the model was trained to do without it")
    assert found.files.probabilities.is_file()
    whole = held_out(small_study, tmp_path / "whole")
    screened(with_dropout, whole, tmp_path / "all", "--prepared")
    again = result.read(tmp_path / "all" / "next")
    assert guard.LACKING not in {one["rule"] for one in again.record["guard"]["remarks"]}
    assert "passed_over" not in again.record["guard"]
    assert again.record["files"]["probabilities.nii.gz"] != found.record["files"]["probabilities.nii.gz"]


def test_a_scan_that_lacks_what_the_model_never_missed_is_refused_with_the_reason(
    with_all: Path, with_dropout: Path, of_two: Path, small_study: StudyPaths, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    scan = held_out(small_study, tmp_path / "scan", ("t1n", "t1c", "t2f"))
    assert screened(with_all, scan, tmp_path / "out", "--prepared") == 2
    assert "case next lacks t2w; --prepared takes cases with all four images" in capsys.readouterr().err
    bare = held_out(small_study, tmp_path / "bare", ("t1n", "t2w", "t2f"))
    for model in (with_dropout, of_two):
        assert screened(model, bare, tmp_path / "out", "--prepared") == 2
        said = capsys.readouterr().err
        assert "lacks t1c (every result lies on the T1 after contrast (t1c), which cannot be lacking" in said
    assert not (tmp_path / "out").exists()


# --- the guard ---


@pytest.fixture(scope="module")
def images() -> tuple[dict[str, np.ndarray], np.ndarray]:
    made = make_patient("target", 5, 4.0, 91)
    return dict(made.images), made.affine


def test_numbers_of_what_is_not_there_are_nan_and_the_others_are_as_with_four(images: tuple) -> None:
    given, affine = images
    whole = guard.measure(given, affine)
    there = ("t1n", "t1c", "t2f")
    part = guard.measure({name: given[name] for name in there}, affine, there)
    assert all(math.isnan(part[name]) for name in NUMBERS if "t2w" in name.split("_"))
    for name in NUMBERS:
        if any(name.startswith(f"{one}_") for one in there) and "t2w" not in name:
            assert part[name] == pytest.approx(whole[name], rel=1e-6, nan_ok=True), name
    assert math.isnan(guard.measure({"t1c": given["t1c"]}, affine, ("t1c",))["same_pct"]), "no pair, no pass"


@pytest.mark.parametrize("there", [("t1c",), ("t1c", "t2f"), ("t1n", "t1c"), ("t1n", "t1c", "t2f"), SEQUENCES])
def test_no_rule_goes_silent_without_being_listed(images: tuple, there: tuple[str, ...]) -> None:
    """A rule is listed if and only if none of its numbers could be measured on a sound scan."""
    given, affine = images
    row = guard.measure({name: given[name] for name in there}, affine, there)
    asked: dict[str, bool] = {}
    for rule in guard.RULES:
        had = any(math.isfinite(row[number]) for number, _ in guard._numbers(rule))
        asked[rule.rule] = asked.get(rule.rule, False) or had
    silent = {name for name, had in asked.items() if not had}
    assert silent == {*guard.passed_over(there)} - {"sequences swapped"}


def test_names_are_told_apart_from_three_sequences_on_or_from_both_t1() -> None:
    assert guard.passed_over(SEQUENCES) == []
    assert "sequences swapped" in guard.passed_over(("t1c", "t2f")), "one relation reads alike both ways round"
    assert "sequences swapped" not in guard.passed_over(("t1n", "t1c"))
    assert "sequences swapped" not in guard.passed_over(("t1c", "t2w", "t2f"))


def test_a_missing_sequence_is_a_warning_a_refusal_or_nothing_by_the_models_training(images: tuple) -> None:
    given, affine = images
    without = {name: image for name, image in given.items() if name != "t2w"}
    free, bound, other = Reads(SEQUENCES, ("t2w",)), Reads(SEQUENCES, ("t1n",)), Reads(("t1n", "t1c", "t2f"))
    (warned,) = guard.look(without, affine, NONE, None, free)
    assert (warned.rule, warned.severity, warned.sequence) == (guard.LACKING, "warn", "t2w")
    (refused,) = guard.look(without, affine, NONE, None, bound)
    assert (refused.rule, refused.severity, refused.sequence) == ("sequence missing", "refuse", "t2w")
    assert "never trained without T2 (t2w)" in refused.text
    assert guard.look(without, affine, NONE, None, other) == guard.look(given, affine, NONE, None, other) == []


def test_swapped_names_are_found_among_the_sequences_that_are_there(images: tuple) -> None:
    given, affine = images
    there = ("t1n", "t1c", "t2f")
    row = guard.measure({name: given[name] for name in there}, affine, there)
    profile = Profile(10, pd.DataFrame([{name: value * (1 + 0.01 * at) for name, value in row.items()}
                                        for at in range(-5, 5)]))  # fmt: skip
    swapped = {"t1n": given["t2f"], "t1c": given["t1c"], "t2f": given["t1n"]}
    found = guard.look(swapped, affine, profile, None, Reads(there))
    assert {one.sequence for one in found if one.rule == "sequences swapped"} == {"t1n", "t2f"}
    assert guard.look({name: given[name] for name in there}, affine, profile, None, Reads(there)) == []


def test_the_profile_is_of_the_models_sequences(images: tuple, tmp_path: Path) -> None:
    from brainmets import nifti

    given, affine = images
    paths = {name: nifti.write(tmp_path / f"{name}.nii.gz", given[name], affine) for name in ("t1c", "t2w", "t2f")}
    made = guard.profile([Case("a", "a", paths, None)], ("t1n", "t1c", "t2f")).values.iloc[0]
    assert made["t1c_usable"] == made["t2f_usable"] == 1 and np.isnan(made[["t1n_usable", "t2w_usable"]]).all()
    assert Profile.from_json(guard.profile([Case("a", "a", paths, None)], ("t1c",)).as_json()).cases == 1


# --- inputs ---


def test_prepared_cases_are_of_the_models_sequences(small_study: StudyPaths, tmp_path: Path) -> None:
    two = held_out(small_study, tmp_path / "two", ("t1c", "t2f"))
    assert set(source.find([two], None, ALONE).prepared["next"].images) == {"t1c"}
    free = source.find([two], None, Reads(SEQUENCES, ("t1n", "t2w")))
    assert set(free.prepared["next"].images) == {"t1c", "t2f"}
    assert not source.find([two]).prepared, "for a model of all four it is none, so that it is sorted as raw"
    with pytest.raises(SourceError, match=r"never trained without T2 \(t2w\).*the model's images \(t1c, t2w\)"):
        source.find([two], "prepared", Reads(("t1c", "t2w")))


# --- pages and follow-up ---


def test_a_scan_from_t1c_alone_can_be_read_and_followed(tmp_path: Path) -> None:
    given = {"kind": "prepared", "grid": "prepared", "sequences": {"t1c": "prepared/t1c.nii.gz"}}
    seen = {"decision": "pass", "cases": 40, "remarks": [], "passed_over": ["displaced", "no contrast agent"]}
    folders = [
        make_screened(
            tmp_path / f"scan-00001-{place:03d}", [Ball((-30.0, 10.0, 10.0), size, 0.99)],
            date=f"2026-0{1 + 2 * place}-05", input=given, guard=seen,
        )
        for place, size in enumerate((15.0, 21.0))
    ]  # fmt: skip
    text = page.write(folders[0]).read_text()
    assert "need a sequence that is not there: displaced, no contrast agent." in text
    visits = followup.read_visits([files.folder for files in folders], None)
    assert [visit.usable for visit in visits] == [True, True]
    categories = [one.category for one in followup.follow(visits).assessments]
    assert categories == ["baseline", "PD"], "the diameter rose from 15 to 21 mm"


def test_a_refused_scan_of_one_sequence_is_told_of_one(tmp_path: Path) -> None:
    given = {"kind": "prepared", "grid": "prepared", "sequences": {"t1c": "prepared/t1c.nii.gz"}}
    files = make_screened(tmp_path / "scan-00001-000", refused=True, input=given)
    assert "Look at the one sequence (T1 after contrast) of the scan." in page.write(files).read_text()
    four = make_screened(tmp_path / "scan-00002-000", refused=True)
    assert "Look at the four sequences of the scan." in page.write(ScreeningPaths(four.folder)).read_text()
