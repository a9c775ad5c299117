"""Writing a finished (arm, strategy) as a model archive that stock nnU-Net installs and predicts with.

The layout is that of ``nnUNetv2_export_model_to_zip``. Two arms use nnU-Net's own network, so that the archive names
nnU-Net's own trainer; the third carries ``exported_trainer.py``, for nnU-Net's look-up of external trainers.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from brainmets.files import read_json, replacing
from brainmets.paths import StudyPaths
from brainmets.training import exported_trainer
from brainmets.training.arms import SegResNetTrainer
from brainmets.training.plans import CONFIGURATION, DATASETS
from brainmets.training.trainer import FINAL, read_checkpoint
from brainmets.vocabulary import STAGE_NOTEBOOKS, STRATEGY_STAGES, Strategy

EXTERNAL = "nnUNet_extTrainer"
"""Folder of the archive, and the environment variable, under which nnU-Net finds a trainer that is not its own."""

READ_ME = """BrainMets Transfer: arm {arm}, strategy {strategy}, fold(s) {folds}.

Install and predict with stock nnU-Net; channels 0000 to 0003 are {channels}:

    nnUNetv2_install_pretrained_model_from_zip MODEL.zip
{external}    nnUNetv2_predict -d {dataset} -p {plans} -tr {trainer} -c {configuration} \\
        -f {folds} -i IMAGES -o PREDICTIONS -step_size {tile_step}{mirroring}

Labels: 1 NETC, 2 SNFH, 3 ET. With several folds nnU-Net averages logits and BrainMets Transfer probabilities: a few
voxels differ. With one fold the label maps are the same.
"""


def export(
    files: StudyPaths, arm: str, strategy: Strategy, folds: Sequence[int], out: Path, tile_step: float, mirroring: bool
) -> Path:
    """Write the finished folds of (arm, strategy) as a model archive and return its path.

    The plan is renamed after arm and strategy, so that several archives can be installed side by side.
    ``tile_step`` and ``mirroring`` only enter the command that the archive's README gives. Raises
    ``FileNotFoundError`` where a fold is not trained.
    """
    stage = STRATEGY_STAGES[strategy]
    paths = {fold: files.checkpoint(stage, arm, fold) for fold in folds}
    if missing := [fold for fold, path in paths.items() if not path.is_file()]:
        notebook = STAGE_NOTEBOOKS[stage]
        raise FileNotFoundError(
            f"fold(s) {missing} of {arm}, {strategy} are not trained; run notebook {notebook} for them"
        )
    checkpoints = {fold: read_checkpoint(path, torch.device("cpu")) for fold, path in paths.items()}
    plans, dataset = (checkpoints[folds[0]]["init_args"][name] for name in ("plans", "dataset_json"))
    plans["plans_name"] += f"_{arm}_{strategy}"
    if arm == SegResNetTrainer.arm:
        trainer = exported_trainer.SegResNetTrainer.__name__
    else:
        trainer = "nnUNetTrainer"
        del plans["brainmets"]  # only our own trainers read it
    folder = f"{DATASETS['target']}/{trainer}__{plans['plans_name']}__{CONFIGURATION}"
    external = f"{folder}/{EXTERNAL}" if arm == SegResNetTrainer.arm else None
    fingerprint = read_json(files.nnunet_preprocessed / DATASETS["target"] / "dataset_fingerprint.json")

    with replacing(out) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("plans", plans), ("dataset", dataset), ("dataset_fingerprint", fingerprint)):
            archive.writestr(f"{folder}/{name}.json", json.dumps(content, indent=4))
        for fold, checkpoint in checkpoints.items():
            checkpoint["trainer_name"] = trainer
            checkpoint["init_args"]["plans"] = plans
            written = io.BytesIO()
            torch.save(checkpoint, written)
            archive.writestr(f"{folder}/fold_{fold}/{FINAL}", written.getvalue(), zipfile.ZIP_STORED)
            progress = paths[fold].with_name("progress.png")
            if progress.is_file():
                archive.write(progress, f"{folder}/fold_{fold}/progress.png")
        if external:
            archive.write(exported_trainer.__file__, f"{external}/{trainer}.py")
        archive.writestr(
            f"{folder}/README.txt",
            READ_ME.format(
                arm=arm, strategy=strategy, folds=" ".join(map(str, folds)), dataset=DATASETS["target"],
                channels=", ".join(dataset["channel_names"].values()), plans=plans["plans_name"], trainer=trainer,
                configuration=CONFIGURATION, tile_step=tile_step, mirroring="" if mirroring else " --disable_tta",
                external=f'    export {EXTERNAL}="$nnUNet_results/{external}"\n' if external else "",
            ),
        )  # fmt: skip
    return out
