"""A plan carried to another machine, a pretraining carried back, and archives that are not what they should be."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
import yaml
from planted_code import Payload, payload_ran
from small_study import ARMS, training_parameters

from brainmets import cli
from brainmets.files import read_json, write_json
from brainmets.params import FineTuning
from brainmets.params.study import Study
from brainmets.paths import StudyPaths
from brainmets.provenance import Provenance, damaged, sha256
from brainmets.training import plans
from brainmets.training.handover import FORMAT, MANIFEST, HandOverError, pack, unpack
from brainmets.training.session import prepare
from brainmets.training.trainer import FINAL, RECORD

PARAMS = Path(__file__).resolve().parents[2] / "params"
TRAINING = {"epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1, "precision": "nnunet"}
MODEL = f"training/pretraining/default/fold_0/{FINAL}"


def silent(line: str) -> None:
    """Takes what is reported."""


def study_in(work: Path, folds: tuple[int, ...] = (0,), **pretraining: Any) -> Study:
    """A study of one arm whose files lie below ``work``."""
    content = yaml.safe_load((PARAMS / "smoke.yaml").read_text())
    content |= {"study": "small", "work_dir": str(work), "seed": 1, "arms": {"default": ARMS["default"]}}
    content |= {"folds": list(folds)}
    content["pretraining"] = {**content["pretraining"], **TRAINING, **pretraining}
    return Study(content, "params/yours.yaml")


def paths(study: Study) -> StudyPaths:
    return StudyPaths(study.content["work_dir"], study.content["study"])


def pretrain(study: Study, fold: int = 0) -> None:
    """What notebook 03 does."""
    files, p = paths(study), study.notebook("03_pretraining", arm="default", fold=fold)
    provenance = Provenance("03_pretraining", p.model_dump(), root=files.work)
    session = prepare(files, p, "pretraining", silent)
    session.run(silent)
    inputs, model = [files.alignment, files.splits], files.checkpoint("pretraining", "default", fold)
    provenance.write(files.training("pretraining", "default", fold), inputs, [model], **session.results())


@pytest.fixture(scope="module")
def hospital_once(small_study: StudyPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the machine with the patients, after notebook 02."""
    work = tmp_path_factory.mktemp("hospital")
    files = StudyPaths(str(work), "small")
    shutil.copytree(small_study.work, files.work, ignore=shutil.ignore_patterns("training", "left_out", "lives"))
    likeness = {"findings": [["warning", "the case Target-1 is dark"]]}
    provenance = Provenance("02_plan_alignment", {"work_dir": str(work)}, root=files.work)
    provenance.write(files.alignment, [files.splits], [files.nnunet_preprocessed], aligned={}, likeness=likeness)
    return work


@pytest.fixture(scope="module")
def carried(hospital_once: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both archives, and the folder of the machine with the GPU, which has unpacked the one and packed the other."""
    folder = tmp_path_factory.mktemp("carried")
    gpu = folder / "gpu"
    pack(study_in(hospital_once), "plan", folder / "plan.zip", silent)
    unpack(folder / "plan.zip", study_in(gpu), silent)
    pretrain(study_in(gpu))
    pack(study_in(gpu), "pretraining", folder / "pretraining.zip", silent)
    return {"plan": folder / "plan.zip", "pretraining": folder / "pretraining.zip", "gpu": gpu}


@pytest.fixture
def hospital(hospital_once: Path, tmp_path: Path) -> Study:
    shutil.copytree(hospital_once, tmp_path / "hospital")
    return study_in(tmp_path / "hospital")


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder but for locks, with its hash."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): sha256(path) for path in found}


def members(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


# --- there and back ---


def test_the_hospital_takes_the_pretraining_as_done_and_fine_tunes_it(
    carried: dict[str, Path], hospital: Study
) -> None:
    files, lines = paths(hospital), []
    new = unpack(carried["pretraining"], hospital, lines.append)
    assert {path.name for path in new} == {FINAL, RECORD, "identity.json"}
    assert lines == ["default, fold 0: unpacked"]
    p = hospital.notebook("03_pretraining", arm="default", fold=0)
    session = prepare(files, p, "pretraining", lines.append)
    assert session.finished
    assert len(lines) == 1, "nothing is set aside"
    record = files.training("pretraining", "default", 0)
    assert read_json(record)["provenance"]["parameters"] == p.model_dump(mode="json")
    assert damaged(record, files.work) == {}
    assert record.stat().st_mtime_ns > files.alignment.stat().st_mtime_ns, "Snakemake takes it for up to date"
    fine = prepare(files, training_parameters(FineTuning, files, arms={"default": ARMS["default"]}), "finetune")
    assert {row.status for row in fine.transferred} == {"loaded"}
    trained = torch.load(carried["gpu"] / "small" / MODEL, weights_only=True)["network_weights"]
    assert all(torch.equal(value, trained[name]) for name, value in fine.trainer.bare_network.state_dict().items())


def test_a_pretraining_on_more_sequences_than_the_target_has_is_carried_there_and_back(
    mixed_study: StudyPaths, tmp_path: Path
) -> None:
    """With a source case that lacks a sequence, of which the other machine has no image to look at."""

    def study_of(work: Path, **changed: Any) -> Study:
        content = study_in(work).content | {"study": "mixed", "sequences": ["t1c", "t2f"]}
        source = {**content["source"], "sequences": ["t1n", "t1c", "t2w", "t2f"], "may_lack": ["t2w"], **changed}
        return Study({**content, "source": source}, "params/yours.yaml")

    here = StudyPaths(str(tmp_path / "hospital"), "mixed")
    shutil.copytree(mixed_study.work, here.work, ignore=shutil.ignore_patterns("training", "left_out"))
    Provenance("02_plan_alignment", {}, root=here.work).write(
        here.alignment, [here.splits], [here.nnunet_preprocessed], aligned={}
    )
    hospital, gpu = study_of(tmp_path / "hospital"), study_of(tmp_path / "gpu")
    pack(hospital, "plan", tmp_path / "plan.zip", silent)
    fewer = study_of(tmp_path / "gpu", sequences=["t1c", "t2f"], may_lack=[])
    with pytest.raises(HandOverError, match=r"its source cohort has t1n, t1c, t2w, t2f, and .* declares t1c, t2f for"):
        unpack(tmp_path / "plan.zip", fewer, silent)
    unpack(tmp_path / "plan.zip", gpu, silent)
    there = plans.read_dataset(paths(gpu), "source")
    assert [*there["absent"].values()] == [["t2w"]]
    pretrain(gpu)
    pack(gpu, "pretraining", tmp_path / "pretraining.zip", silent)
    assert len(unpack(tmp_path / "pretraining.zip", hospital, silent)) == 3
    fine = prepare(here, training_parameters(FineTuning, here, arms={"default": ARMS["default"]}), "finetune")
    assert {row.status for row in fine.transferred} == {"loaded", "adapted"}


def test_unpacking_again_changes_nothing(carried: dict[str, Path], hospital: Study) -> None:
    unpack(carried["pretraining"], hospital, silent)
    before, lines = tree(paths(hospital).work), []
    assert unpack(carried["pretraining"], hospital, lines.append) == []
    assert lines == ["default, fold 0: there already, and whole"]
    assert unpack(carried["plan"], study_in(carried["gpu"]), lines.append) == []
    assert "there already" in lines[-1]
    assert tree(paths(hospital).work) == before


def test_what_leaves_the_hospital_holds_nothing_of_its_cases(carried: dict[str, Path], hospital_once: Path) -> None:
    files = StudyPaths(str(hospital_once), "small")
    target = read_json(files.nnunet_preprocessed / plans.DATASETS["target"] / "dataset.json")["dataset"]
    held_out = read_json(files.splits)["target"]["held_out"]
    packed = members(carried["plan"])
    for name, content in packed.items():
        for word in (*target, *held_out, str(hospital_once), "/tmp", "Target-1", "small"):
            assert word not in name
            assert name.endswith((".b2nd", ".npz")) or word.encode() not in content, f"{word} in {name}"
    source = read_json(files.nnunet_preprocessed / plans.DATASETS["source"] / "dataset.json")["dataset"]
    assert {Path(name).name.removesuffix(".npz") for name in packed if name.endswith(".npz")} == {*source}
    for kind in ("plan", "pretraining"):
        assert not any(name.endswith((".pkl", ".nii.gz", ".png", ".txt")) for name in members(carried[kind]))
    record = json.loads(members(carried["pretraining"])[f"training/pretraining/default/fold_0/{RECORD}"])
    assert not {"study", "work_dir"} & set(record["provenance"]["parameters"])
    assert b"/tmp" not in b"".join(members(carried["pretraining"]).values())


def test_both_commands(
    carried: dict[str, Path], hospital: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    content = {**hospital.content}
    (tmp_path / "yours.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pack", "plan", "yours.yaml", "--out", "plan.zip"]) == 0
    said = capsys.readouterr().out
    assert "of the target cohort: the plan" in said
    assert re.search(r"plan\.zip: \d+ files, \d+\.\d MB", said)
    assert cli.main(["pack", "plan", "yours.yaml", "--out", "plan.zip"]) == 2
    assert "plan.zip is there already; delete it" in capsys.readouterr().err
    assert cli.main(["pack", "pretraining", "yours.yaml", "--out", "p.zip"]) == 2
    assert "no pretraining of yours.yaml is finished" in capsys.readouterr().err
    assert cli.main(["unpack", str(carried["pretraining"]), "yours.yaml"]) == 0
    assert cli.main(["unpack", "yours.yaml", "yours.yaml"]) == 2
    assert "yours.yaml is not unpacked: it is damaged, cut, or no archive" in capsys.readouterr().err
    assert cli.main(["unpack", "none.zip", "yours.yaml"]) == 2
    assert "none.zip is not unpacked: there is no such file" in capsys.readouterr().err


def test_what_is_not_finished_is_said_and_the_rest_is_packed(carried: dict[str, Path], tmp_path: Path) -> None:
    lines: list[str] = []
    pack(study_in(carried["gpu"], folds=(0, 1)), "pretraining", tmp_path / "p.zip", lines.append)
    assert lines[:2] == ["default, fold 0: packed", "default, fold 1 is not finished, and not packed"]


# --- not packed ---


def test_a_damaged_model_or_plan_is_not_packed(carried: dict[str, Path], hospital: Study, tmp_path: Path) -> None:
    shutil.copytree(carried["gpu"], tmp_path / "gpu")
    gpu = study_in(tmp_path / "gpu")
    with pytest.raises(HandOverError, match=r"was trained otherwise than .*: epochs is 1 there and 2 here"):
        pack(study_in(tmp_path / "gpu", epochs=2), "pretraining", tmp_path / "p.zip", silent)
    os.truncate(paths(gpu).work / MODEL, 1000)
    with pytest.raises(ValueError, match=r"checkpoint_final\.pth is damaged"):
        pack(gpu, "pretraining", tmp_path / "p.zip", silent)
    array = sorted(paths(hospital).nnunet_preprocessed.glob("Dataset501*/*/*.b2nd"))[0]
    os.truncate(array, 1000)
    with pytest.raises(ValueError, match=rf"{array.name} has 1000 bytes"):
        pack(hospital, "plan", tmp_path / "p.zip", silent)
    assert list(tmp_path.glob("*p.zip")) == []


# --- not unpacked: archives that are not what they should be ---


def remade(archive: Path, out: Path, **changed: Any) -> Path:
    """A copy of an archive whose manifest fits what ``changed`` makes of its members."""
    held = members(archive)
    manifest = json.loads(held.pop(MANIFEST))
    change: Callable[[dict[str, bytes]], None] = changed.get("members", lambda held: None)
    change(held)
    manifest["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in held.items()
    }
    changed.get("manifest", lambda manifest: None)(manifest)
    with zipfile.ZipFile(out, "w") as written:
        for name, data in held.items():
            written.writestr(name, data)
        written.writestr(MANIFEST, json.dumps(manifest))
    return out


def flipped(archive: Path, out: Path) -> Path:
    """The archive with one bit of the model changed, and nothing else."""
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo(MODEL)
    data[info.header_offset + 30 + len(MODEL) + info.file_size // 2] ^= 1
    out.write_bytes(data)
    return out


def cut(archive: Path, out: Path) -> Path:
    out.write_bytes(archive.read_bytes()[:-100])
    return out


def with_member(name: str, data: bytes = b"x", listed: bool = True, **attributes: Any) -> Callable[[Path, Path], Path]:
    """The archive with one more member, in its manifest or not."""

    def make(archive: Path, out: Path) -> Path:
        shutil.copy(archive, out)
        held = members(archive)
        manifest = json.loads(held.pop(MANIFEST))
        if listed:
            manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        with zipfile.ZipFile(out, "w") as written:
            for other, content in held.items():
                written.writestr(other, content)
            info = zipfile.ZipInfo(name)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            written.writestr(info, data, compress_type=attributes.get("compress_type"))
            written.writestr(MANIFEST, json.dumps(manifest))
        return out

    return make


def without(name: str) -> Callable[[Path, Path], Path]:
    return lambda archive, out: remade(archive, out, members=lambda held: held.pop(name))


def manifest_with(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], Path]:
    return lambda archive, out: remade(archive, out, manifest=change)


def model_of(make: Callable[[], bytes]) -> Callable[[Path, Path], Path]:
    """The archive with another model, and a record that says so."""

    def change(held: dict[str, bytes]) -> None:
        held[MODEL] = make()
        name = MODEL.replace(FINAL, RECORD)
        record = json.loads(held[name])
        record["checkpoint_sha256"] = hashlib.sha256(held[MODEL]).hexdigest()
        record["provenance"]["outputs"][MODEL]["sha256"] = record["checkpoint_sha256"]
        held[name] = json.dumps(record).encode()

    return lambda archive, out: remade(archive, out, members=change)


def twice(archive: Path, out: Path) -> Path:
    shutil.copy(archive, out)
    with zipfile.ZipFile(out, "a") as written, pytest.warns(UserWarning, match="Duplicate"):
        written.writestr(MODEL, b"another")
    return out


def deep_manifest(out: Path) -> Path:
    with zipfile.ZipFile(out, "w") as written:
        written.writestr(MANIFEST, "[" * 100_000)
    return out


def compressed_model() -> bytes:
    """A checkpoint of a megabyte of zeros in a few kilobytes; torch would read it."""
    stored, packed = io.BytesIO(), io.BytesIO()
    torch.save({"network_weights": {"a": torch.zeros(2**18)}, "init_args": {"plans": {}}}, stored)
    with zipfile.ZipFile(stored) as taken, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as written:
        for name in taken.namelist():
            written.writestr(name, taken.read(name))
    return packed.getvalue()


LINK = {"external_attr": (stat.S_IFLNK | 0o777) << 16}
ALLOWED_NAME = f"training/pretraining/default/fold_1/{FINAL}"
BAD: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "a bit": (flipped, r"damaged|not what was packed|Bad CRC"),
    "cut": (cut, r"it is cut, or of another program"),
    "upwards": (with_member("../../evil"), r"'\.\./\.\./evil' is no file of a pretraining"),
    "absolute": (with_member("/tmp/evil"), r"'/tmp/evil' is no file of a pretraining"),
    "inside": (with_member("training/pretraining/default/fold_0/../../../x/training.json"), r"is no file of a pretr"),
    "other": (with_member("training/pretraining/default/fold_0/run.pkl"), r"run\.pkl' is no file of a pretraining"),
    "backslash": (with_member("training\\x"), r"is no file of a pretraining"),
    "link": (with_member(ALLOWED_NAME, b"/etc/passwd", **LINK), r"is a link, a folder or a device"),
    "unlisted": (with_member("x", listed=False), r"'x' is in the archive and not in its manifest"),
    "twice": (twice, r"twice"),
    "bomb": (with_member(ALLOWED_NAME, bytes(10**6), compress_type=zipfile.ZIP_DEFLATED), r"compressed or encrypted"),
    "lacks the record": (without(MODEL.replace(FINAL, RECORD)), r"lacks training\.json"),
    "lacks the model": (without(MODEL), r"lacks checkpoint_final\.pth"),
    "larger than listed": (
        manifest_with(lambda one: one["files"][MODEL].update(bytes=5)), r"has \d+ bytes and should have 5",
    ),
    "another hash": (
        manifest_with(lambda one: one["files"][MODEL].update(sha256="0" * 64)), r"is not what was packed",
    ),
    "another format": (manifest_with(lambda one: one.update(format="2")), rf"this version unpacks '{FORMAT}'"),
    "another kind": (manifest_with(lambda one: one.update(holds="everything")), r"this version unpacks"),
    "no manifest": (manifest_with(lambda one: one.clear()), r"cannot be read"),
    "another fold": (
        with_member(ALLOWED_NAME), r"it holds default fold 1, which params/yours\.yaml does not train",
    ),
    "a manifest without end": (
        lambda archive, out: deep_manifest(out), r"its manifest\.json cannot be read \(maximum recursion",
    ),
    "a compressed model": (model_of(lambda: compressed_model()), r"cannot be read as plain weights"),
    "a pickle as model": (model_of(lambda: pickle.dumps(Payload())), r"cannot be read as plain weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_an_archive_that_is_not_as_packed_changes_nothing(
    carried: dict[str, Path], hospital: Study, tmp_path: Path, name: str
) -> None:
    make, message = BAD[name]
    archive = make(carried["pretraining"], tmp_path / "bad.zip")
    before = tree(tmp_path)
    with pytest.raises(HandOverError, match=rf"bad\.zip is not unpacked: .*({message})"):
        unpack(archive, hospital, silent)
    assert tree(tmp_path) == before
    assert not payload_ran()


def plan_with(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], Path]:
    def edit(held: dict[str, bytes]) -> None:
        (name,) = (name for name in held if name.endswith("nnUNetPlans_from_target.json"))
        plan = json.loads(held[name])
        change(plan["configurations"]["3d_fullres"])
        held[name] = json.dumps(plan).encode()

    return lambda archive, out: remade(archive, out, members=edit)


def array_with(data: bytes) -> Callable[[Path, Path], Path]:
    def edit(held: dict[str, bytes]) -> None:
        held[next(name for name in held if name.endswith(".b2nd"))] = data

    return lambda archive, out: remade(archive, out, members=edit)


SOURCE = f"nnunet/preprocessed/{plans.DATASETS['source']}"


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], Path]:
    """The archive with one JSON file of it changed."""

    def edit(held: dict[str, bytes]) -> None:
        content = json.loads(held[name])
        change(content)
        held[name] = json.dumps(content).encode()

    return lambda archive, out: remade(archive, out, members=edit)


def zeros(archive: Path, out: Path) -> Path:
    """The archive with an array of 4 TB in some hundred bytes."""
    blosc2.zeros((10**5, 10**5, 100), dtype=np.float32, urlpath=str(out.with_suffix(".b2nd")))
    made = array_with(out.with_suffix(".b2nd").read_bytes())(archive, out)
    out.with_suffix(".b2nd").unlink()
    return made


def not_finite(archive: Path, out: Path) -> Path:
    def edit(held: dict[str, bytes]) -> None:
        name = next(name for name in held if name.endswith(".b2nd") and not name.endswith("_seg.b2nd"))
        values = np.asarray(blosc2.ndarray_from_cframe(held[name])[:])
        values[0, 0, 0, 0] = np.nan
        held[name] = bytes(blosc2.asarray(values).to_cframe())

    return remade(archive, out, members=edit)


def compressed_places(archive: Path, out: Path) -> Path:
    def edit(held: dict[str, bytes]) -> None:
        name, file = next(name for name in held if name.endswith(".npz")), io.BytesIO()
        np.savez_compressed(file, **dict(np.load(io.BytesIO(held[name]))))
        held[name] = file.getvalue()

    return remade(archive, out, members=edit)


BAD_PLANS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "code as network": (
        plan_with(lambda one: one["architecture"].update(network_class_name="planted_code.Payload")),
        r"names 'planted_code\.Payload' to be imported",
    ),
    "code as layer": (
        plan_with(lambda one: one["architecture"]["arch_kwargs"].update(conv_op="planted_code.run")),
        r"names 'planted_code\.run' to be imported",
    ),
    "code through a network's module": (  # it would run the hubconf.py of any folder that its arguments name
        plan_with(
            lambda one: one["architecture"].update(
                network_class_name="dynamic_network_architectures.architectures.unet.torch.hub.load"
            )
        ),
        r"unet\.torch\.hub\.load' to be imported",
    ),
    "code through a layer's module": (
        plan_with(lambda one: one["architecture"]["arch_kwargs"].update(conv_op="torch.nn.functional.torch.hub.load")),
        r"torch\.nn\.functional\.torch\.hub\.load' to be imported",
    ),
    "arrays elsewhere": (plan_with(lambda one: one.update(data_identifier="../../x")), r"is no folder's name"),
    "another plan": (plan_with(lambda one: one.update(batch_size=7)), r"would not be the one .*: plan is"),
    "an array without end": (zeros, r"promises 3\.7\de\+03 GiB"),
    "an array that is not finite": (not_finite, r"values are not finite"),
    "an array of no case": (
        with_member(f"{SOURCE}/nnUNetPlans_3d_fullres/stray.b2nd"),
        r"stray\.b2nd' is of no case",
    ),
    "places compressed": (compressed_places, r"it is compressed"),
    "files to look for": (
        edited("alignment/alignment.json", lambda one: one["provenance"].update(outputs={"/dev/zero": {}})),
        r"alignment\.json is not as `brainmets pack` writes it",
    ),
    "folds of another cohort": (
        edited("audit/splits.json", lambda one: one.update(target={})),
        r"holds more than the source cohort's folds",
    ),
    "no array": (array_with(b"x"), r"is no array of Blosc2"),
    "lacks alignment.json": (without("alignment/alignment.json"), r"lacks splits\.json or alignment\.json"),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_a_plan_that_is_not_as_packed_changes_nothing(carried: dict[str, Path], tmp_path: Path, name: str) -> None:
    make, message = BAD_PLANS[name]
    archive = make(carried["plan"], tmp_path / "bad.zip")
    before = tree(tmp_path)
    with pytest.raises(HandOverError, match=rf"bad\.zip is not unpacked: .*{message}"):
        unpack(archive, study_in(tmp_path / "gpu"), silent)
    assert tree(tmp_path) == before


# --- not unpacked: archives of something else ---


def test_another_parameter_or_plan_is_named(carried: dict[str, Path], hospital: Study, tmp_path: Path) -> None:
    work = tmp_path / "hospital"
    for changed, message in (
        ({"epochs": 2}, r"default, fold 0 was trained otherwise .*: epochs is 1 there and 2 here"),
        ({"validation_iterations": 2}, r"default, fold 0: validation_iterations is 1 there and 2 here"),
    ):
        with pytest.raises(HandOverError, match=message):
            unpack(carried["pretraining"], study_in(work, **changed), silent)
    assert unpack(carried["pretraining"], study_in(work, augmentation_workers=3), silent)
    with pytest.raises(HandOverError, match=r"epochs is 1 there and 2 here; use the same parameters on both"):
        unpack(carried["plan"], study_in(tmp_path / "gpu", epochs=2), silent)
    with pytest.raises(HandOverError, match=r"packed for default fold 0, and .* trains .*, default fold 1"):
        unpack(carried["plan"], study_in(tmp_path / "gpu", folds=(0, 1)), silent)
    files = paths(hospital)
    content = files.nnunet_preprocessed / plans.DATASETS["source"] / plans.CONTENT
    hashes = read_json(content)
    hashes[read_json(files.splits)["source"]["folds"][0]["train"][0]][0] = "0" * 64
    write_json(content, hashes)
    plans.record(files, "source")
    with pytest.raises(HandOverError, match=r"trained otherwise .*: content is"):
        unpack(carried["pretraining"], hospital, silent)


def test_other_versions_are_named_and_no_obstacle(carried: dict[str, Path], hospital: Study, tmp_path: Path) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["versions"]["torch"] = "1.0"

    lines: list[str] = []
    assert unpack(remade(carried["pretraining"], tmp_path / "p.zip", manifest=older), hospital, lines.append)
    assert lines[0].startswith("torch was 1.0 where it was packed, and is ")


def test_nothing_else_is_ever_overwritten(carried: dict[str, Path], hospital: Study, tmp_path: Path) -> None:
    pretrain(hospital)  # its own, on its own machine: the same parameters
    model = paths(hospital).work / MODEL
    torch.save({**torch.load(model, weights_only=True), "trained_with": {}}, model)
    before = tree(tmp_path)
    with pytest.raises(HandOverError, match=r"checkpoint_final\.pth is of another pretraining of default, fold 0"):
        unpack(carried["pretraining"], hospital, silent)
    with pytest.raises(HandOverError, match=r"is there, of another plan or a part of one"):
        unpack(carried["plan"], hospital, silent)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: os.truncate(path, 100)])
def test_a_lost_model_comes_back_from_the_archive(carried: dict[str, Path], hospital: Study, lose: Any) -> None:
    unpack(carried["pretraining"], hospital, silent)
    lose(paths(hospital).work / MODEL)
    assert unpack(carried["pretraining"], hospital, silent)
    assert damaged(paths(hospital).training("pretraining", "default", 0), paths(hospital).work) == {}


def test_where_moving_fails_nothing_is_left(
    carried: dict[str, Path], hospital: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, replace = tree(tmp_path), Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == RECORD and ".unpacking" not in str(target):
            raise OSError(28, "No space left on device", str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(carried["pretraining"], hospital, silent)
    assert tree(tmp_path) == before
