"""Writing a finished (arm, strategy) as a model archive that stock nnU-Net installs and predicts with.

The layout is that of ``nnUNetv2_export_model_to_zip``. Two arms use nnU-Net's own network, so that the archive names
nnU-Net's own trainer; the third carries the source of its trainer, for nnU-Net's look-up of external trainers.
"""

from __future__ import annotations

import inspect
import io
import json
import textwrap
import zipfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from brainmets.files import read_json, replacing
from brainmets.paths import StudyPaths
from brainmets.training.arms import PaddingSegResNet, SegResNetTrainer
from brainmets.training.plans import CONFIGURATION, DATASETS
from brainmets.training.trainer import FINAL, StudyTrainer, read_checkpoint
from brainmets.vocabulary import STAGE_NOTEBOOKS, Strategy

STOCK = "nnUNetTrainer"
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
TRAINER_HEAD = '''"""Trainer of BrainMets Transfer's segresnet arm, for nnU-Net's look-up of external trainers.

Written by ``brainmets export``. Needs nnunetv2 and monai, and nothing of BrainMets Transfer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.networks.nets import SegResNet
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch.nn import functional


'''
TRAINER_CLASS = '''

class SegResNetTrainer(nnUNetTrainer):
    """MONAI's SegResNet with Adam in float32; nnU-Net's loss on one output."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        settings = plans["brainmets"]["settings"]
        self.initial_lr = settings["learning_rate"]
        self.weight_decay = settings["weight_decay"]
        self.enable_deep_supervision = False

    def train_step(self, batch):
        """In float32, as the paper's authors trained this arm."""
        return self.step(batch, nullcontext())

'''


def external_trainer() -> str:
    """Source of the segresnet arm's trainer that needs nothing of this package."""
    methods = (
        SegResNetTrainer.build_network_architecture,
        SegResNetTrainer.configure_optimizers,
        SegResNetTrainer.set_deep_supervision_enabled,
        StudyTrainer.step,
    )
    body = "\n".join(inspect.getsource(method) for method in methods)
    return TRAINER_HEAD + inspect.getsource(PaddingSegResNet) + TRAINER_CLASS + body


def export(
    files: StudyPaths, arm: str, strategy: Strategy, folds: Sequence[int], out: Path, tile_step: float, mirroring: bool
) -> Path:
    """Write the finished folds of (arm, strategy) as a model archive and return its path.

    The plan is renamed after arm and strategy, so that several archives can be installed side by side.
    ``tile_step`` and ``mirroring`` only enter the command that the archive's README gives. Raises
    ``FileNotFoundError`` where a fold is not trained.
    """
    checkpoints = {fold: files.checkpoint(strategy, arm, fold) for fold in folds}
    if missing := [fold for fold, path in checkpoints.items() if not path.is_file()]:
        step = STAGE_NOTEBOOKS[strategy]
        raise FileNotFoundError(
            f"fold(s) {missing} of {arm}, {strategy} are not trained; run notebook {step} for them"
        )
    read = {fold: read_checkpoint(path, torch.device("cpu")) for fold, path in checkpoints.items()}
    external = arm == SegResNetTrainer.arm
    trainer = SegResNetTrainer.__name__ if external else STOCK
    plans = _portable_plans(read[folds[0]]["init_args"]["plans"], f"{arm}_{strategy}", keep_settings=external)
    dataset = read[folds[0]]["init_args"]["dataset_json"]
    folder = f"{DATASETS['target']}/{trainer}__{plans['plans_name']}__{CONFIGURATION}"
    fingerprint = read_json(files.nnunet_preprocessed / DATASETS["target"] / "dataset_fingerprint.json")

    with replacing(out) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("plans", plans), ("dataset", dataset), ("dataset_fingerprint", fingerprint)):
            archive.writestr(f"{folder}/{name}.json", json.dumps(content, indent=4))
        for fold, checkpoint in read.items():
            checkpoint["trainer_name"] = trainer
            checkpoint["init_args"]["plans"] = plans
            written = io.BytesIO()
            torch.save(checkpoint, written)
            archive.writestr(f"{folder}/fold_{fold}/{FINAL}", written.getvalue(), zipfile.ZIP_STORED)
            progress = checkpoints[fold].with_name("progress.png")
            if progress.is_file():
                archive.write(progress, f"{folder}/fold_{fold}/progress.png")
        if external:
            archive.writestr(f"{folder}/{EXTERNAL}/{trainer}.py", external_trainer())
        archive.writestr(
            f"{folder}/README.txt",
            READ_ME.format(
                arm=arm, strategy=strategy, folds=" ".join(map(str, folds)), dataset=DATASETS["target"],
                channels=", ".join(dataset["channel_names"].values()), plans=plans["plans_name"], trainer=trainer,
                configuration=CONFIGURATION, tile_step=tile_step, mirroring="" if mirroring else " --disable_tta",
                external=textwrap.indent(
                    f'export {EXTERNAL}="$nnUNet_results/{folder}/{EXTERNAL}"\n' if external else "", "    "
                ),
            ),
        )  # fmt: skip
    return out


def _portable_plans(plans: dict[str, Any], name: str, keep_settings: bool) -> dict[str, Any]:
    """The plan under a name of its own; what only our trainers read stays where the archive needs it."""
    plans = deepcopy(plans)
    plans["plans_name"] = f"{plans['plans_name']}_{name}"
    if not keep_settings:
        del plans["brainmets"]
    return plans
