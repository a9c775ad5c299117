"""The exported archive: its documented commands predict the same label maps, with none of our code."""

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from small_study import ARMS, RESENC, training_parameters, with_own_plans

from brainmets import cli
from brainmets.cohorts.cohort import Case, read_manifest
from brainmets.files import read_json, replacing
from brainmets.params import FromScratch
from brainmets.paths import StudyPaths
from brainmets.training import exported_trainer
from brainmets.training.export import export
from brainmets.training.inference import Ensemble, predict_cases
from brainmets.training.session import prepare
from brainmets.training.trainer import CheckpointError, read_checkpoint
from brainmets.vocabulary import SEQUENCES

WITHOUT_OURS = "import sys; sys.modules['brainmets'] = None; "
"""Any import of our package then fails."""


def quiet(line: str) -> None:
    """Say nothing."""


def trained(files: StudyPaths, arm: str, folds: tuple[int, ...]) -> list[Path]:
    for fold in folds:
        parameters = training_parameters(
            FromScratch, files, arm=arm, fold=fold, epochs=3, iterations_per_epoch=15, seed=21 + fold,
            arms={**ARMS, **RESENC},
        )  # fmt: skip
        prepare(files, parameters, "scratch", quiet).run(quiet)
    return [files.checkpoint("scratch", arm, fold) for fold in folds]


def stock(code: str, *words: str, results: Path) -> None:
    """Run nnU-Net's own command in a process in which our package cannot be imported."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_OURS + code, *words], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "nnUNet_results": str(results)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def held_out(files: StudyPaths) -> Case:
    (name,) = read_json(files.splits)["target"]["held_out"]
    return read_manifest(files.manifest("target"))[name]


def labels(path: Path) -> Any:
    return np.asarray(nib.load(path).dataobj)


def documented_commands(archive: Path) -> str:
    """The indented lines of the README below the heading "Commands"."""
    (text,) = (data.decode() for name, data in names(archive).items() if name.endswith("README.txt"))
    lines = text.split("Commands\n--------\n")[1].splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    "))


def stored_in_axes(image: nib.Nifti1Image, axes: str) -> nib.Nifti1Image:
    wanted = nib.orientations.axcodes2ornt(tuple(axes))
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "folds"), [("default", (0,)), ("tversky_bce", (0,)), ("segresnet", (0,)), ("tversky_bce", (0, 1)),
     ("default_resenc", (0,))],
)  # fmt: skip
def test_the_documented_commands_predict_the_same_label_map(
    small_study: StudyPaths, tmp_path: Path, arm: str, folds: tuple[int, ...]
) -> None:
    """In a folder of its own, with nothing of the environment, and with our package out of reach."""
    if arm in RESENC:
        small_study = with_own_plans(small_study, [arm], tmp_path / "study")
    checkpoints = trained(small_study, arm, folds)
    folder, ours_fails = tmp_path / "folder", tmp_path / "without" / "brainmets"
    (folder / "images").mkdir(parents=True)
    ours_fails.mkdir(parents=True)
    (ours_fails / "__init__.py").write_text("raise ImportError('the archive needs nothing of BrainMets Transfer')")
    archive = export(small_study, arm, "scratch", folds, folder / "model.zip", tile_step=0.5, mirroring=False)
    case = held_out(small_study)
    for channel, path in enumerate(case.channels(SEQUENCES)):
        nib.save(stored_in_axes(nib.load(path), "PIR"), folder / "images" / f"CASE_{channel:04d}.nii.gz")
    ended = subprocess.run(
        ["bash", "-euc", documented_commands(archive)], cwd=folder, capture_output=True, text=True, check=False,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path),
             "PYTHONPATH": str(ours_fails.parent)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr

    theirs = nib.load(folder / "predictions" / "CASE.nii.gz")
    assert np.array_equal(theirs.affine, nib.load(folder / "images" / "CASE_0000.nii.gz").affine), "the files' axes"
    ensemble = Ensemble.load(checkpoints, torch.device("cpu"), tile_step=0.5, mirroring=False)
    (mine,) = predict_cases(ensemble, [case], tmp_path / "mine", quiet)
    ours = labels(mine)
    stocks = np.asarray(stored_in_axes(theirs, "".join(nib.aff2axcodes(nib.load(mine).affine))).dataobj)
    assert len(np.unique(ours)) > 1, "an empty prediction would prove nothing"
    different = int((ours != stocks).sum())
    print(f"{arm}, {len(folds)} fold(s): {different} of {ours.size} voxels differ")
    # one fold: the same sum; several: nnU-Net averages logits, we average probabilities
    assert different == 0 if len(folds) == 1 else different < 0.01 * ours.size


def names(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("arm", ["default", "segresnet"])
def test_the_archive_has_nnunets_layout_and_nothing_of_this_machine(
    small_study: StudyPaths, tmp_path: Path, arm: str
) -> None:
    trained(small_study, arm, (0,))
    content = names(export(small_study, arm, "scratch", [0], tmp_path / "model.zip", 0.5, False))
    trainer = "SegResNetTrainer" if arm == "segresnet" else "nnUNetTrainer"
    folder = f"Dataset502_Target/{trainer}__nnUNetPlans_{arm}_scratch__3d_fullres"
    wanted = {"plans.json", "dataset.json", "dataset_fingerprint.json", "fold_0/checkpoint_final.pth", "README.txt"}
    wanted |= {"fold_0/progress.png"} | ({"nnUNet_extTrainer/SegResNetTrainer.py"} if arm == "segresnet" else set())
    assert set(content) == {f"{folder}/{name}" for name in wanted}
    plans = json.loads(content[f"{folder}/plans.json"])
    assert plans["plans_name"] == f"nnUNetPlans_{arm}_scratch"
    assert ("brainmets" in plans) == (arm == "segresnet")
    (tmp_path / "checkpoint.pth").write_bytes(content[f"{folder}/fold_0/checkpoint_final.pth"])
    checkpoint = read_checkpoint(tmp_path / "checkpoint.pth", torch.device("cpu"))
    assert checkpoint["trainer_name"] == trainer
    assert checkpoint["init_args"]["plans"] == plans
    places = {str(small_study.work).encode(), str(tmp_path).encode(), str(Path.home()).encode() + b"/"}
    assert not [name for name, data in content.items() if any(place in data for place in places)]
    read_me = content[f"{folder}/README.txt"].decode()
    assert "-step_size 0.5 --disable_tta" in read_me
    channels = [line.split() for line in read_me.splitlines() if line.startswith("    CASE_")]
    assert [(one[0], one[-1]) for one in channels] == [
        (f"CASE_{number:04d}.nii.gz", f"({sequence})") for number, sequence in enumerate(SEQUENCES)
    ]
    assert plans["configurations"]["3d_fullres"]["use_mask_for_norm"] == [True] * 4, "half of a phantom's box is air"
    assert "normalises over what is not 0" in " ".join(read_me.split())
    assert ("torchvision" in read_me) == (arm == "segresnet")
    assert max(len(line) for line in read_me.splitlines() if not line.startswith("    ")) <= 120, "commands aside"


def test_the_exported_trainer_is_a_file_of_ours_that_needs_nothing_of_ours(
    small_study: StudyPaths, tmp_path: Path
) -> None:
    source = Path(exported_trainer.__file__).read_bytes()
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    needed = {name.split(".")[0] for name in imported} - {"__future__", "contextlib", "typing"}
    assert needed == {"torch", "nnunetv2", "monai"}
    trained(small_study, "segresnet", (0,))
    content = names(export(small_study, "segresnet", "scratch", [0], tmp_path / "model.zip", 0.5, False))
    assert [data for name, data in content.items() if name.endswith(".py")] == [source], "byte for byte"


EXTERNAL = """
import numpy as np, torch
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
folder, weights, image, output = sys.argv[1:]
trainer = recursive_find_python_class(folder, "SegResNetTrainer", None, base_folder=folder)
checkpoint = torch.load(weights, weights_only=True)
arguments = checkpoint["init_args"]
plans = PlansManager(arguments["plans"])
network = trainer.build_network_architecture(plans, plans.get_configuration("3d_fullres"), 4, 3, False)
network.load_state_dict(checkpoint["network_weights"])
with torch.no_grad():
    np.save(output, network.eval()(torch.from_numpy(np.load(image))).numpy())
ready = trainer(arguments["plans"] | {"continue_training": False}, "3d_fullres", 0, arguments["dataset_json"],
                torch.device("cpu"))
ready.initialize()
group = ready.optimizer.param_groups[0]
assert type(ready.optimizer).__name__ == "Adam" and (group["lr"], group["weight_decay"]) == (1e-4, 1e-5)
ready.train_step({"data": torch.from_numpy(np.load(image)), "target": torch.zeros(1, 3, 10, 12, 16)})
"""


@pytest.mark.slow
def test_the_segresnet_trainer_in_the_archive_needs_nothing_of_ours(small_study: StudyPaths, tmp_path: Path) -> None:
    """nnU-Net's own finder loads the class from the archive's folder, and its network computes what ours does."""
    (checkpoint,) = trained(small_study, "segresnet", (0,))
    content = names(export(small_study, "segresnet", "scratch", [0], tmp_path / "model.zip", 0.5, False))
    for name, data in content.items():
        if name.endswith((".py", ".pth")):
            (tmp_path / Path(name).suffix[1:]).mkdir()
            (tmp_path / Path(name).suffix[1:] / Path(name).name).write_bytes(data)
    image = np.random.default_rng(1).normal(size=(1, 4, 10, 12, 16)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    stock(
        EXTERNAL, str(tmp_path / "py"), str(tmp_path / "pth" / "checkpoint_final.pth"), str(tmp_path / "image.npy"),
        str(tmp_path / "output.npy"), results=tmp_path,
    )  # fmt: skip
    ensemble = Ensemble.load([checkpoint], torch.device("cpu"), 0.5, False)
    ensemble.network.load_state_dict(ensemble.weights[0])
    with torch.no_grad():
        ours = ensemble.network.eval()(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "output.npy"), ours, rtol=1e-5, atol=1e-6)


def test_an_untrained_fold_is_named(small_study: StudyPaths, tmp_path: Path) -> None:
    notebooks = {"pretrained": "03_pretraining", "finetune": "04_fine_tuning", "scratch": "05_from_scratch"}
    for strategy, notebook in notebooks.items():
        with pytest.raises(FileNotFoundError, match=rf"fold\(s\) \[7\] of default, {strategy} .*{notebook}"):
            export(small_study, "default", strategy, [7], tmp_path / "model.zip", 0.5, False)
    assert not (tmp_path / "model.zip").exists()


def test_a_damaged_checkpoint_leaves_no_archive(small_study: StudyPaths, tmp_path: Path) -> None:
    path = small_study.checkpoint("scratch", "default", 8)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    with pytest.raises(CheckpointError, match="damaged"):
        export(small_study, "default", "scratch", [8], tmp_path / "model.zip", 0.5, False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (str(tmp_path), f"{tmp_path}/new/"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["export", "params/smoke.yaml", "default", "scratch", "--out", folder])
        assert ended.value.code == 2
        assert f"--out: '{folder}' is a folder; name the archive, such as {Path(folder)}/model.zip" in (
            capsys.readouterr().err
        )


def test_an_archive_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, why = tmp_path / "folder" / "model.zip", "File exists"

    def write(*_: Any) -> Path:
        (tmp_path / "folder").write_text("")
        with replacing(out):
            raise AssertionError("it could be written")

    monkeypatch.setattr("brainmets.training.export.export", write)
    params = Path(__file__).resolve().parents[2] / "params" / "smoke.yaml"
    assert cli.main(["export", str(params), "default", "scratch", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"brainmets export: {tmp_path}/folder: {why}\n"
