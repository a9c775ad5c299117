"""A model in one file: what is in it, that it computes what the study's models compute, and what is not opened."""

import copy
import hashlib
import io
import json
import pickle
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundled_study
import numpy as np
import pytest
import safetensors.torch
import torch
from bundled_study import STRATEGY
from planted_code import Payload, payload_ran

from brainmets import cli
from brainmets.cohorts.cohort import read_manifest
from brainmets.files import read_json, write_json
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.preparation.pipeline import Settings
from brainmets.provenance import sha256, versions
from brainmets.screening import bundle
from brainmets.screening.bundle import BundleError
from brainmets.statistics import operating_point
from brainmets.statistics.operating_point import Aim, OperatingPointError
from brainmets.training.inference import Ensemble
from brainmets.vocabulary import SEQUENCES

ARMS = ("default", "tversky_bce", "segresnet")
WEIGHTS = "fold_0.safetensors"
MEMBERS = ["cohort.json", WEIGHTS, "hashes.json", "model.json", "model_card.md"]
CPU = torch.device("cpu")
Members = dict[str, bytes]


def paths(study: Study) -> StudyPaths:
    return StudyPaths(study.content["work_dir"], study.content["study"])


@pytest.fixture(scope="module")
def finished(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return bundled_study.make(small_study, tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def bundles(finished: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {arm: bundle.write(finished, arm, STRATEGY, folder / f"{arm}.zip") for arm in ARMS}


@pytest.fixture
def own(finished: Study, tmp_path: Path) -> Study:
    """A copy of the finished study, to be spoilt."""
    shutil.copytree(finished.content["work_dir"], tmp_path / "work")
    return Study({**copy.deepcopy(finished.content), "work_dir": str(tmp_path / "work")}, "params/yours.yaml")


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(out: Path, content: Members, honest: bool = True, **options: Any) -> Path:
    """A zip of these members; ``honest``: with hashes that fit them."""
    if honest:
        hashes = {name: hashlib.sha256(one).hexdigest() for name, one in content.items() if name != "hashes.json"}
        content = {**content, "hashes.json": json.dumps(hashes).encode()}
    with zipfile.ZipFile(out, "w", **options) as archive:
        for name, one in content.items():
            archive.writestr(name, one)
    return out


def refused(path: Path) -> str:
    """Why a bundle is not opened."""
    with pytest.raises(BundleError) as caught:
        bundle.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not opened: ")
    assert message.endswith("; get it anew from where it was made")
    return message.removeprefix(f"{path} is not opened: ").rpartition("; ")[0]


def with_model(path: Path, out: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The bundle with another ``model.json``, hashes and all."""
    content = members(path)
    model = json.loads(content["model.json"])
    change(model)
    return packed(out, {**content, "model.json": json.dumps(model).encode()})


def with_weights(path: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    content = members(path)
    weights = safetensors.torch.load(content[WEIGHTS])
    change(weights)
    return packed(out, {**content, WEIGHTS: safetensors.torch.save(weights)})


# --- what a bundle is ---


@pytest.mark.parametrize("arm", ARMS)
def test_it_computes_what_the_checkpoints_compute_to_the_last_bit(
    finished: Study, bundles: dict[str, Path], arm: str
) -> None:
    files = paths(finished)
    case = next(iter(read_manifest(files.manifest("target")).values()))
    evaluation = finished.content["evaluation"]
    loaded = Ensemble.load([files.checkpoint(STRATEGY, arm, 0)], CPU, evaluation["tile_step"], evaluation["mirroring"])
    opened = bundle.read(bundles[arm]).ensemble(CPU)
    wanted, got = loaded.probabilities(case), opened.probabilities(case)
    assert wanted.std() > 0
    assert np.array_equal(wanted, got)
    assert np.array_equal(loaded.labels(wanted), opened.labels(got))
    assert type(opened.network).__name__ == type(loaded.network).__name__
    assert opened.predictor.tile_step_size == loaded.predictor.tile_step_size
    assert opened.predictor.allowed_mirroring_axes == loaded.predictor.allowed_mirroring_axes


@pytest.mark.slow
def test_several_folds_are_averaged_as_the_study_does(small_study: StudyPaths, tmp_path: Path) -> None:
    study = bundled_study.make(small_study, tmp_path / "work", arms=["default"], folds=[1, 0])
    opened = bundle.read(bundle.write(study, "default", STRATEGY, tmp_path / "model.zip"))
    assert opened.card["folds"] == [1, 0]
    files = paths(study)
    case = next(iter(read_manifest(files.manifest("target")).values()))
    options = study.content["evaluation"]
    loaded = Ensemble.load(
        [files.checkpoint(STRATEGY, "default", fold) for fold in (1, 0)], CPU, options["tile_step"],
        options["mirroring"],
    )  # fmt: skip
    assert np.array_equal(loaded.probabilities(case), opened.ensemble(CPU).probabilities(case))
    content = members(tmp_path / "model.zip")
    del content["fold_1.safetensors"]
    assert refused(packed(tmp_path / "less.zip", content)) == "fold_1.safetensors is missing"
    spare = {**members(tmp_path / "model.zip"), "fold_7.safetensors": content[WEIGHTS]}
    assert refused(packed(tmp_path / "more.zip", spare)) == "fold_7.safetensors is no fold of the model"


def test_what_it_says_is_what_the_study_found(finished: Study, bundles: dict[str, Path]) -> None:
    """Chosen: 0.4 finds both lesions of the training case without a false one; held out: 0.9 is found, 0.2 is not."""
    files, opened = paths(finished), bundle.read(bundles["segresnet"])
    assert opened.sha256 == sha256(bundles["segresnet"])
    assert opened.path == bundles["segresnet"]
    card = opened.card
    assert (card["name"], card["arm"], card["strategy"]) == ("small_segresnet_scratch", "segresnet", STRATEGY)
    assert (card["study"], card["folds"], card["sequences"]) == ("small", [0], list(SEQUENCES))
    trained_on = read_json(files.training(STRATEGY, "segresnet", 0))["cases"]
    assert (card["training_cases"], card["source_cases"], card["held_out_cases"]) == (len(trained_on), 0, 1)
    assert (card["phantoms"], card["prepared_here"]) == (["source", "target"], 0)
    assert (card["versions"], card["licence"], card["interval"]) == (versions(), "not declared", 0.95)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", card["created"])
    assert opened.preparation == Settings.of(finished.notebook("00_preparation", cohort="target", case=""))
    options = finished.content["evaluation"]
    for name in ("tile_step", "mirroring", "candidate_threshold", "probability_floor"):
        assert getattr(opened, name) == options[name]
    frozen = operating_point.thaw(files.operating_point, files.work)
    assert opened.aim == frozen.aim == Aim(**finished.content["statistics"]["detection"])
    assert opened.point == frozen.points["segresnet", STRATEGY]
    assert (opened.point.threshold, opened.point.found, opened.point.false) == (0.4, 2, 0)
    whole, *by_size = opened.performance.to_dict("records")
    assert list(opened.performance) == operating_point.COLUMNS
    assert (whole["size"], whole["lesions"], whole["found"], whole["sensitivity"]) == ("all", 2, 1, 0.5)
    assert (whole["false_positives"], whole["false_positives_high"]) == (0, np.inf), "one patient tells no upper end"
    assert [row["size"] for row in by_size] == ["<3 mm", "3-5 mm", "5-10 mm", ">=10 mm"]
    assert [(row["found"], row["lesions"]) for row in by_size] == [(0, 0), (0, 0), (1, 1), (0, 1)]
    assert np.isnan(by_size[0]["sensitivity"])
    assert {*zip(opened.scores["region"], opened.scores["metric"], opened.scores["mean"], strict=True)} == {
        (region, metric, mean) for region in ("ET", "TC", "WT") for metric, mean in (("dice", 0.8), ("hd95", 2.0))
    }
    assert opened.scores["ci_low"].isna().all(), "one case has no interval"
    assert opened.profile.cases == 4, "the cohort without its held-out case"


def test_it_holds_each_weight_once_and_nothing_of_cases_or_machines(
    finished: Study, bundles: dict[str, Path], tmp_path: Path
) -> None:
    files = paths(finished)
    cases = [name for cohort in ("source", "target") for name in read_manifest(files.manifest(cohort))]
    for arm, path in bundles.items():
        content = members(path)
        assert sorted(content) == MEMBERS
        for name, one in content.items():
            for word in (*cases, str(files.work), str(tmp_path.parent), str(Path.home()) + "/"):
                assert word.encode() not in one, f"{word} in {name} of {arm}"
        checkpoint = torch.load(files.checkpoint(STRATEGY, arm, 0), weights_only=True)["network_weights"]
        stored = safetensors.torch.load(content[WEIGHTS])
        assert len({value.data_ptr() for value in checkpoint.values()}) == len(stored)
        assert all(torch.equal(value, checkpoint[name]) for name, value in stored.items())


def test_the_same_study_gives_the_same_bytes(finished: Study, bundles: dict[str, Path], tmp_path: Path) -> None:
    again = bundle.write(finished, "default", STRATEGY, tmp_path / "again.zip")
    assert again.read_bytes() == bundles["default"].read_bytes()
    with zipfile.ZipFile(again) as archive:
        assert archive.namelist() == MEMBERS
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}


def test_the_card_for_people_has_the_figures_and_their_limits(bundles: dict[str, Path]) -> None:
    text = members(bundles["default"])["model_card.md"].decode()
    flat = " ".join(text.split())
    assert "**Research use only.**" in text
    assert "the source cohort" not in flat, "it was trained from scratch"
    assert "2 case(s) of 2 patient(s) of the target cohort (phantoms, not patients)" in flat
    assert "highest probability is 0.4 or more" in flat
    assert "2 of 2 lesions found there at 0.00 false positives" in flat
    assert "| all | 1 of 2 | 50% |" in text
    assert "| <3 mm | 0 of 0 | unknown | unknown |" in text
    assert "False positives: 0.00 a case (0.00 to inf; 1 was aimed at)." in text
    assert "| ET | Dice | 1 | 0.800 | unknown to unknown | 0 |" in text
    assert "Licence of the data: not declared." in text
    assert "0 of the 2 training cases of the target were" in flat
    assert max(len(line) for line in text.splitlines()) <= 160


def test_a_licence_is_kept_in_its_owners_words(finished: Study, tmp_path: Path) -> None:
    path = bundle.write(finished, "default", STRATEGY, tmp_path / "model.zip", licence="CC BY 4.0, ask Anna.")
    assert bundle.read(path).card["licence"] == "CC BY 4.0, ask Anna."
    assert "Licence of the data: CC BY 4.0, ask Anna.\n" in members(path)["model_card.md"].decode()
    with pytest.raises(BundleError, match=r"card\.licence: .* holds a character that cannot be seen"):
        bundle.write(finished, "default", STRATEGY, tmp_path / "odd.zip", licence="two\nlines")


# --- what is not bundled ---


def test_a_model_that_the_study_does_not_have(finished: Study, tmp_path: Path) -> None:
    for arm, strategy in (("unet", "scratch"), ("default", "scratch_control")):
        with pytest.raises(BundleError, match=f"has no model {arm} {strategy} \\(arms: default, tversky_bce, seg"):
            bundle.write(finished, arm, strategy, tmp_path / "model.zip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"training/finetune/default/fold_0/training\.json is missing"):
        bundle.write(finished, "default", "finetune", tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("training/scratch/default/fold_0/training.json", r"training\.json is missing: run the notebook"),
        (
            "training/scratch/default/fold_0/checkpoint_final.pth",
            r"checkpoint_final\.pth is missing: run brainmets note",
        ),
        ("evaluation/default/scratch/evaluation.json", r"evaluation\.json is missing"),
        ("cross_validation/default/scratch/candidates.csv", r"candidates\.csv is missing"),
        ("statistics/statistics.json", r"statistics\.json is missing"),
        ("statistics/operating_point.json", r"operating_point\.json is missing"),
        ("statistics/detection_at_operating_point.csv", r"detection_at_operating_point\.csv is missing"),
    ],
)
def test_an_unfinished_study(own: Study, tmp_path: Path, missing: str, said: str) -> None:
    (paths(own).work / missing).unlink()
    with pytest.raises(ValueError, match=said):
        bundle.write(own, "default", STRATEGY, tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()


def test_results_that_do_not_belong_together(own: Study, tmp_path: Path) -> None:
    files, out = paths(own), tmp_path / "model.zip"

    def changed(section: str, **values: Any) -> Study:
        content = copy.deepcopy(own.content)
        content[section] |= values
        return Study(content, "params/yours.yaml")

    step = own.content["evaluation"]["tile_step"]
    with pytest.raises(BundleError, match=rf"evaluated with tile_step {step}, and params/yours\.yaml says 0\.9"):
        bundle.write(changed("evaluation", tile_step=0.9), "default", STRATEGY, out)
    with pytest.raises(BundleError, match=r"the operating point was chosen for .* declares .*'overlap'"):
        aim = {**own.content["statistics"]["detection"], "hit": "overlap"}
        bundle.write(changed("statistics", detection=aim), "default", STRATEGY, out)
    with pytest.raises(BundleError, match=r"scores_dir and out_dir must be null"):
        bundle.write(changed("statistics", out_dir=str(tmp_path)), "default", STRATEGY, out)
    bundled_study.evaluate(own, files, "default")
    bundle.write(own, "default", STRATEGY, out)
    bundled_study.train(own, files, "default", 0)  # the same again: nothing is trained
    bundle.write(own, "default", STRATEGY, out)
    record = read_json(files.evaluation("default", STRATEGY))
    (model,) = (name for name in record["provenance"]["inputs"] if name.endswith(".pth"))
    record["provenance"]["inputs"][model] = "0" * 64
    write_json(files.evaluation("default", STRATEGY), record)
    with pytest.raises(BundleError, match=r"fold 0 of default scratch was trained again after it was evaluated"):
        bundle.write(own, "default", STRATEGY, out)


def test_scores_that_notebook_07_has_not_read(own: Study, tmp_path: Path) -> None:
    files = paths(own)
    files.scores("default", STRATEGY).write_text(files.scores("default", STRATEGY).read_text().replace("0.8", "0.9"))
    record = read_json(files.evaluation("default", STRATEGY))
    name = "evaluation/default/scratch/scores.csv"
    record["provenance"]["outputs"][name] |= {"sha256": sha256(files.work / name)}
    write_json(files.evaluation("default", STRATEGY), record)
    with pytest.raises(BundleError, match=rf"{name} is not what notebook 07 has read"):
        bundle.write(own, "default", STRATEGY, tmp_path / "model.zip")


def points(study: Study, change: Callable[[list[operating_point.Point]], list[operating_point.Point]]) -> None:
    """Freeze other points, as if notebook 07 had."""
    files = paths(study)
    frozen = operating_point.thaw(files.operating_point, files.work)
    new = change(list(frozen.points.values()))
    inputs = operating_point.cross_validated_tables(files, [(one.arm, one.strategy) for one in new])
    operating_point.freeze(files.operating_point, frozen.aim, new, frozen.cases, inputs, files.work)
    record = read_json(files.statistics / "statistics.json")
    state = record["provenance"]["outputs"]["statistics/operating_point.json"]
    state |= {"bytes": files.operating_point.stat().st_size, "sha256": sha256(files.operating_point)}
    write_json(files.statistics / "statistics.json", record)


def test_a_model_without_an_operating_point_or_that_accepts_nothing(own: Study, tmp_path: Path) -> None:
    out = tmp_path / "model.zip"
    points(own, lambda all_of_them: [one for one in all_of_them if one.arm != "default"])
    with pytest.raises(BundleError, match=r"operating_point\.json holds no point of default scratch"):
        bundle.write(own, "default", STRATEGY, out)
    nothing = {"threshold": np.inf, "found": 0, "false": 0}
    points(own, lambda some: [operating_point.Point(**{**vars(one), **nothing}) for one in some])
    with pytest.raises(BundleError, match=r"nothing is accepted: a model that accepts nothing cannot screen anybody"):
        bundle.write(own, "segresnet", STRATEGY, out)


def test_figures_of_another_operating_point(own: Study, tmp_path: Path) -> None:
    points(own, lambda some: [operating_point.Point(**{**vars(one), "threshold": 0.7}) for one in some])
    with pytest.raises(BundleError, match=r"performance was not measured at this operating point"):
        bundle.write(own, "default", STRATEGY, tmp_path / "model.zip")


def test_a_point_whose_training_cases_changed(own: Study, tmp_path: Path) -> None:
    files = paths(own)
    table = files.cross_validation_folder("tversky_bce", STRATEGY) / "candidates.csv"
    table.write_text(table.read_text().replace("0.8", "0.7"))
    with pytest.raises(OperatingPointError, match=r"candidates\.csv, on which operating_point\.json was chosen, has"):
        bundle.write(own, "default", STRATEGY, tmp_path / "model.zip")


# --- what is not opened: damage ---


def test_what_is_no_bundle(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.zip") == "there is no such file"
    for content in (b"", b"PK\x03\x04", b"text" * 100):
        (tmp_path / "model.zip").write_bytes(content)
        assert "it is damaged, cut, or no bundle of `brainmets bundle`" in refused(tmp_path / "model.zip")
    assert refused(packed(tmp_path / "other.zip", {"readme.txt": b""})) == (
        "it holds 'readme.txt', which is no part of a bundle"
    )


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_a_file_that_is_cut(bundles: dict[str, Path], tmp_path: Path, share: float) -> None:
    whole = bundles["default"].read_bytes()
    (tmp_path / "model.zip").write_bytes(whole[: int(share * len(whole))])
    assert "it is damaged, cut, or no bundle" in refused(tmp_path / "model.zip")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_byte_of_a_member_that_is_another_names_the_member(
    bundles: dict[str, Path], tmp_path: Path, name: str
) -> None:
    content = members(bundles["default"])
    whole = bundles["default"].read_bytes()
    start = whole.index(content[name])
    for place in (0, len(content[name]) // 2, len(content[name]) - 1):
        spoilt = bytearray(whole)
        spoilt[start + place] ^= 1
        (tmp_path / "model.zip").write_bytes(spoilt)
        assert refused(tmp_path / "model.zip").startswith(f"{name} is damaged (Bad CRC-32")
    spoilt = bytearray(content[name])
    spoilt[len(spoilt) // 2] ^= 1
    told = refused(packed(tmp_path / "crc.zip", {**content, name: bytes(spoilt)}, honest=False))
    assert name in told or name == "hashes.json", "with a checksum that fits, the hash tells"
    assert "is damaged: it is not what hashes.json lists" in told or name == "hashes.json"


@pytest.mark.slow
def test_any_byte_that_is_another_is_seen(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Of the zip's own directory as well: opened is only what was written, or what has the same content."""
    whole, path = bundles["default"].read_bytes(), tmp_path / "model.zip"
    directory = whole.index(b"PK\x01\x02")
    places = [*range(directory, len(whole), 7), *range(0, directory, len(whole) // 40)]
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x10
        path.write_bytes(spoilt)
        try:
            opened = bundle.read(path)
        except BundleError:
            continue
        assert members(path) == members(bundles["default"]), f"byte {place}"
        assert opened.sha256 != sha256(bundles["default"])


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_is_missing_or_there_twice(bundles: dict[str, Path], tmp_path: Path, name: str) -> None:
    content = members(bundles["default"])
    less = {other: one for other, one in content.items() if other != name}
    assert name in (told := refused(packed(tmp_path / "less.zip", less, honest=False)))
    assert "is missing" in told
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for other, one in [*content.items(), (name, content[name])]:
            archive.writestr(other, one)
    assert refused(tmp_path / "twice.zip") == f"it holds {name} twice"


@pytest.mark.parametrize(
    "name",
    [
        "../fold_0.safetensors", "/fold_1.safetensors", "folds/fold_1.safetensors", "fold_1.safetensors/",
        "fold_1.pth", "data.pkl", "fold_01.safetensors", "fold_-1.safetensors", "FOLD_1.safetensors", "model.json.exe",
        "fold_1.safetensors\n", "..\\model.json", "C:model.json",
    ],
)  # fmt: skip
def test_a_name_that_no_member_has(bundles: dict[str, Path], tmp_path: Path, name: str) -> None:
    told = refused(packed(tmp_path / "model.zip", {**members(bundles["default"]), name: b"x"}))
    assert told == f"it holds {name!r}, which is no part of a bundle"


def test_a_member_that_is_no_plain_file(bundles: dict[str, Path], tmp_path: Path) -> None:
    content, path = members(bundles["default"]), tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, one in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16 if name == WEIGHTS else 0
            archive.writestr(info, one)
    assert refused(path) == f"{WEIGHTS} is a link, a folder or a device, not a file"
    packed(path, content, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed or encrypted" in refused(path)
    whole = bytearray(bundles["default"].read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1  # the flag of an encrypted member
    path.write_bytes(whole)
    assert refused(path) == "cohort.json is compressed or encrypted"


@pytest.mark.parametrize("promised", [2**20, 2**31])
def test_sizes_that_the_file_does_not_have(bundles: dict[str, Path], tmp_path: Path, promised: int) -> None:
    """The directory's size of the first member, cohort.json."""
    whole = bytearray(bundles["default"].read_bytes())
    entry = whole.index(b"PK\x01\x02")
    whole[entry + 20 : entry + 28] = 2 * promised.to_bytes(4, "little")
    (tmp_path / "model.zip").write_bytes(whole)
    assert refused(tmp_path / "model.zip") in (
        "its parts are larger than the whole",
        "cohort.json promises 2048 MiB, more than a bundle holds there",
    )


# --- what is not opened: what a stranger may have put in ---


def test_a_pickle_is_not_unpickled(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, kept = members(bundles["default"]), io.BytesIO()
    torch.save({"network_weights": Payload()}, kept)
    for planted in (pickle.dumps(Payload()), kept.getvalue()):
        for name in (WEIGHTS, "model.json", "cohort.json"):
            told = refused(packed(tmp_path / "model.zip", {**content, name: planted}))
            assert told.startswith(name), told
            assert not payload_ran()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("something is unpickled")

    for module, function in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, function, never)
    for path in bundles.values():
        bundle.read(path).ensemble(CPU)


FULL = ("plan", "configurations", "3d_fullres")
NETWORK = (*FULL, "architecture", "network_class_name")
KWARGS = (*FULL, "architecture", "arch_kwargs")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (NETWORK, "os.system"),
        (NETWORK, "dynamic_network_architectures.architectures.unet.os"),
        (NETWORK, "planted_code.run"),
        ((*KWARGS, "conv_op"), "os.system"),
        ((*KWARGS, "conv_op"), "torch.nn.Linear"),
        ((*KWARGS, "norm_op"), "planted_code.run"),
        ((*KWARGS, "nonlin"), "subprocess.Popen"),
        ((*KWARGS, "dropout_op"), "builtins.eval"),
        ((*FULL, "architecture", "_kw_requires_import"), ["conv_op", "n_stages"]),
        ((*FULL, "preprocessor_name"), "system"),
        ((*FULL, "normalization_schemes"), ["ZScoreNormalization"] * 3 + ["os"]),
        ((*FULL, "resampling_fn_data"), "np"),
        ((*FULL, "resampling_fn_seg"), "deepcopy"),
        ((*FULL, "resampling_fn_probabilities"), "recursive_find_python_class"),
        ((*FULL, "inherits_from"), "2d"),
        ((*FULL, "data_identifier"), "../../etc"),
        (("plan", "image_reader_writer"), "os"),
        (("plan", "label_manager"), "planted_code"),
        (("plan", "experiment_planner_used"), "planted_code"),
        (("plan", "configurations", "2d"), {}),
        (("plan", "brainmets", "arm"), "planted_code"),
        (("plan", "brainmets", "settings"), {"learning_rate": 0.1, "filters": "os.system"}),
        (("dataset", "overwrite_image_reader_writer"), "planted_code"),
        (("dataset", "labels", "background"), 3),
        (("dataset", "regions_class_order"), [1, 2, 3]),
        (("preparation", "space"), "os.system"),
        (("aim", "hit"), "os.system"),
    ],
)
def test_what_a_plan_may_name(
    bundles: dict[str, Path], tmp_path: Path, place: tuple[str, ...], value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name that nnU-Net would import or call; it is refused before nnU-Net sees the plan."""

    def change(model: dict[str, Any]) -> None:
        for name in place[:-1]:
            model = model[name]
        model[place[-1]] = value

    path = with_model(bundles["default"], tmp_path / "model.zip", change)
    monkeypatch.setattr(bundle, "PlansManager", lambda plan: pytest.fail("nnU-Net sees the plan"))
    told = refused(path)
    assert told.startswith("model.json: ")
    assert place[-1] in told or place[0] in told
    assert not payload_ran()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*KWARGS, "features_per_stage"), [10**9] * 20),
        ((*KWARGS, "n_stages"), 10**9),
        ((*FULL, "patch_size"), [10**6] * 3),
        ((*FULL, "spacing"), [1e-9] * 3),
        (("tile_step",), 1e-9),
        (("tile_step",), True),
        (("mirroring",), "yes"),
        (("point", "threshold"), 2),
        (("point", "threshold"), None),
        (("point", "arm"), "segresnet"),
        (("probability_floor",), 0.5),
        (("card", "folds"), []),
        (("card", "folds"), [0, 0]),
        (("card", "created"), "yesterday"),
        (("card", "licence"), "x" * 10**5),
        (("card", "name"), "a\x1b[2Jb"),
        (("card", "sequences"), ["t1c"]),
        (("card", "surplus"), 1),
        (("plan", "transpose_forward"), [1, 2, 0]),
        (("plan", "transpose_backward"), [0, 0, 0]),
        (("performance",), []),
        (("mirroring_axes",), [7]),
        (("preparation", "spacing_mm"), None),
    ],
)
def test_what_the_rest_may_hold(bundles: dict[str, Path], tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    def change(model: dict[str, Any]) -> None:
        for name in place[:-1]:
            model = model[name]
        model[place[-1]] = value

    told = refused(with_model(bundles["default"], tmp_path / "model.zip", change))
    assert told.startswith("model.json: ")
    assert len(told) < 600


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{}", b'{"format": 1}', b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"\xff\xfe",
     b'{"format": 1, "tile_step": NaN}', b'{"format": true}'],
)  # fmt: skip
@pytest.mark.parametrize("name", ["model.json", "cohort.json", "hashes.json"])
def test_json_that_is_none_or_another(bundles: dict[str, Path], tmp_path: Path, name: str, content: bytes) -> None:
    told = refused(
        packed(tmp_path / "model.zip", {**members(bundles["default"]), name: content}, honest=name != "hashes.json")
    )
    assert name in told, told


def test_a_profile_with_absurd_numbers_is_named(bundles: dict[str, Path], tmp_path: Path) -> None:
    for values in ({"x": [10**400]}, {"x": ["1"]}, [], {"x": {}}):
        profile = json.dumps({"schema": 1, "cases": 1, "values": values}).encode()
        path = packed(tmp_path / "model.zip", {**members(bundles["default"]), "cohort.json": profile})
        assert refused(path).startswith("cohort.json: ")


def test_weights_that_do_not_fit_the_network_are_named(bundles: dict[str, Path], tmp_path: Path) -> None:
    path, source = tmp_path / "model.zip", bundles["default"]
    (first, *_) = safetensors.torch.load(members(source)[WEIGHTS])

    def reshaped(weights: dict[str, torch.Tensor]) -> None:
        weights[first] = weights[first].reshape(-1, 1)

    assert f"{WEIGHTS}: the weight {first} is (" in refused(with_weights(source, path, reshaped))
    told = refused(with_weights(source, path, lambda weights: weights.update({first: weights[first].half()})))
    assert f"the weight {first} is" in told
    assert "of torch.float16" in told
    told = refused(with_weights(source, path, lambda weights: weights.pop(first)))
    assert told == f"{WEIGHTS}: the weight {first!r}, which the network needs, is not there"
    told = refused(with_weights(source, path, lambda weights: weights.update(planted=torch.zeros(1))))
    assert told == f"{WEIGHTS}: the weight 'planted', which the network does not have"
    for value in (float("nan"), float("inf")):
        told = refused(with_weights(source, path, lambda weights, value=value: weights[first].fill_(value)))
        assert told == f"{WEIGHTS}: the weight {first} is not finite"
    content = members(source)
    header = json.dumps({first: {"dtype": "F32", "shape": [2**20] * 3, "data_offsets": [0, 8]}}).encode()
    absurd = len(header).to_bytes(8, "little") + header + bytes(8)
    for planted in (absurd, (2**62).to_bytes(8, "little"), b"", content["model.json"]):
        told = refused(packed(path, {**content, WEIGHTS: planted}))
        assert told.startswith(f"{WEIGHTS} holds no plain weights (")
    other = {**content, WEIGHTS: members(bundles["segresnet"])[WEIGHTS]}
    assert refused(packed(path, other)).startswith(f"{WEIGHTS}: the weight ")


def test_a_plan_that_makes_no_network_or_another_one(bundles: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.zip"

    def wide(model: dict[str, Any]) -> None:
        features = model["plan"]["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"]
        features[-1] = 320

    told = refused(with_model(bundles["default"], path, wide))
    assert told.startswith(f"{WEIGHTS}: the weight "), "no memory is taken for the network that the plan asks for"

    def odd(model: dict[str, Any]) -> None:
        model["plan"]["configurations"]["3d_fullres"]["patch_size"] = [7, 5, 3]

    assert refused(with_model(bundles["default"], path, odd)).startswith("model.json: its plan makes no network (")


def test_the_regions_keep_their_order_whatever_the_files(bundles: dict[str, Path], tmp_path: Path) -> None:
    """nnU-Net's outputs follow the order of the names in dataset.json, which JSON does not promise to keep."""

    def turned(model: dict[str, Any]) -> None:
        model["dataset"]["labels"] = dict(reversed(model["dataset"]["labels"].items()))

    path = with_model(bundles["default"], tmp_path / "model.zip", turned)
    wanted, got = (bundle.read(one).ensemble(CPU).predictor.label_manager for one in (bundles["default"], path))
    assert wanted.foreground_regions == got.foreground_regions == [(1, 2, 3), (1, 3), (3,)]


# --- other releases ---


def test_another_release_is_opened_and_said(bundles: dict[str, Path], tmp_path: Path) -> None:
    assert bundle.read(bundles["default"]).other_release() == []
    mine = versions()

    def change(model: dict[str, Any]) -> None:
        model["card"]["versions"] |= {"brainmets": "99.0.1", "torch": "1.0.0+cu1", "numpy": "1.0"}
        del model["card"]["versions"]["monai"]

    lines = bundle.read(with_model(bundles["default"], tmp_path / "model.zip", change)).other_release()
    assert lines == [
        f"brainmets was 99.0.1 where the model was bundled, and is {mine['brainmets']} here, which is older",
        f"torch was 1.0.0+cu1 where the model was bundled, and is {mine['torch']} here, which is newer",
        f"monai was not recorded where the model was bundled, and is {mine['monai']} here",
    ]


def test_a_format_of_another_release_is_refused_with_its_number(bundles: dict[str, Path], tmp_path: Path) -> None:
    path = with_model(bundles["default"], tmp_path / "model.zip", lambda model: model.update(format=2, new="thing"))
    assert refused(path).startswith("model.json: it has format 2, and this release reads 1: open it with the release")


# --- the command ---


def test_the_command(
    finished: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yours.yaml").write_text(json.dumps(finished.content))
    words = ["bundle", "yours.yaml", "default", STRATEGY, "--out"]
    assert cli.main([*words, "model.zip", "--licence", "CC0"]) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"model: model\.zip, \d+\.\d MB; model_card\.md in it says .*\n", said)
    assert bundle.read(Path("model.zip")).card["licence"] == "CC0"
    assert cli.main(["bundle", "yours.yaml", "default", "finetune", "--out", "none.zip"]) == 2
    assert "brainmets bundle: training/finetune/default/fold_0/training.json is missing" in capsys.readouterr().err
    assert not Path("none.zip").exists()
    assert cli.main([*words, "model.bin"]) == 2
    assert "--out: model.bin must end with .zip" in capsys.readouterr().err
    assert cli.main([*words, str(paths(finished).work / "model.zip")]) == 2
    assert "--out" in capsys.readouterr().err
    Path("mine.zip").write_text("a text of mine")
    assert cli.main([*words, "mine.zip"]) == 2
    assert Path("mine.zip").read_text() == "a text of mine"
    with zipfile.ZipFile("scans.zip", "w") as archive:
        archive.writestr("patient/t1c.nii.gz", "of mine")
    before = Path("scans.zip").read_bytes()
    assert cli.main([*words, "scans.zip"]) == 2
    assert "scans.zip is there and is no model bundle: it is not overwritten" in capsys.readouterr().err
    assert Path("scans.zip").read_bytes() == before
    assert cli.main([*words, "model.zip"]) == 0  # over its own


def test_a_folder_is_no_bundle(tmp_path: Path) -> None:
    assert refused(tmp_path) == "it is a folder" and not bundle.is_one(tmp_path)
    assert refused(tmp_path / "none.zip") == "there is no such file" and not bundle.is_one(tmp_path / "none.zip")
