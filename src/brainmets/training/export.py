"""Writing a finished (arm, strategy) as a model archive that stock nnU-Net installs and predicts with.

The layout is that of ``nnUNetv2_export_model_to_zip``. All arms but segresnet use a network that nnU-Net's plan names,
so that the archive names nnU-Net's own trainer; segresnet's carries ``exported_trainer.py``, its trainer and the
program that predicts with it.
"""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from brainmets.files import read_json, replacing
from brainmets.paths import StudyPaths
from brainmets.training import channels, exported_trainer
from brainmets.training.arms import SegResNetTrainer
from brainmets.training.plans import CONFIGURATION, DATASETS
from brainmets.training.trainer import FINAL, read_checkpoint
from brainmets.vocabulary import SEQUENCE_TITLES, STAGE_NOTEBOOKS, STRATEGY_STAGES, Strategy

EXTERNAL = "nnUNet_extTrainer"
"""Folder of the archive, and the environment variable, under which nnU-Net finds a trainer that is not its own."""

READ_ME = """BrainMets Transfer: arm {arm}, strategy {strategy}, fold(s) {folds}.

The model predicts brain metastases with stock nnU-Net, without BrainMets Transfer:

    pip install {packages}

Images
------
{count} per patient in the folder images/, named for the patient and the sequence:

{channels}

{grid}- A missing sequence is a file of zeros on the patient's grid: it stays 0, the mean of every normalised image.
{lacking}- Prepared as the study's cohort was: brain extracted or not. After extraction the background must be
  exactly 0: nnU-Net takes 0 for what is outside the image. This model's plan normalises {normalised}.
- Stored in any axes, with a header that says which: the reader turns every image to RAS for the network, and the
  prediction comes back in the axes and on the grid of the patient's first file. Any spacing: nnU-Net resamples.
- Intensities as the scanner gives them; nnU-Net normalises each image.

Commands
--------
In the folder that holds this archive and images/; they put the model into nnUNet_results/ and the label maps into
predictions/ (CASE.nii.gz: 1 NETC, 2 SNFH, 3 ET). With a GPU write "-device cuda"; for many patients raise -npp and
-nps, the numbers of processes that read and that write.

    export nnUNet_results="$PWD/nnUNet_results"
    mkdir -p "$nnUNet_results"
    nnUNetv2_install_pretrained_model_from_zip {archive}
    {predict} \\
        -d {dataset} -p {plans} -tr {trainer} -c {configuration} -f {folds} \\
        -i images -o predictions -step_size {tile_step}{mirroring} -npp 1 -nps 1 -device cpu

nnU-Net's warnings about nnUNet_raw and nnUNet_preprocessed do not matter: only training needs those folders.

With several folds nnU-Net averages logits and BrainMets Transfer probabilities: a few voxels differ. With one fold the
label maps are the same.
{segresnet}
Not for clinical use.
"""

ONE_GRID = """- All on one grid (same size, spacing and position), registered to each other.
"""
UNSEEN = """  No training step dropped a sequence by chance: only what its training cases lacked was trained for.
"""

SEGRESNET = """
The arm's network is not nnU-Net's own: {trainer}.py holds its trainer and, run as above, is
nnUNetv2_predict with the same options. nnUNetv2_predict itself finds the trainer too, with {variable} set to
the folder of that file, but imports every trainer of nnU-Net on the way and stops ("operator torchvision::nms does
not exist") where an installed torchvision does not match torch.
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
    dropped = bool(plans["brainmets"]["settings"].get("sequence_dropout", 0))
    if arm == SegResNetTrainer.arm:
        trainer = exported_trainer.SegResNetTrainer.__name__
    else:
        trainer = "nnUNetTrainer"
        del plans["brainmets"]  # only our own trainers read it
    folder = f"{DATASETS['target']}/{trainer}__{plans['plans_name']}__{CONFIGURATION}"
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
        if arm == SegResNetTrainer.arm:
            archive.write(exported_trainer.__file__, f"{folder}/{EXTERNAL}/{trainer}.py")
        words = {"arm": arm, "strategy": strategy, "folds": " ".join(map(str, folds)), "tile_step": tile_step}
        words |= {
            "sequence_dropout": dropped,
            "mirroring": "" if mirroring else " --disable_tta",
            "archive": shlex.quote(out.name),
        }
        archive.writestr(f"{folder}/README.txt", read_me(folder, plans, dataset, words))
    return out


def read_me(folder: str, plans: Mapping[str, Any], dataset: Mapping[str, Any], words: Mapping[str, Any]) -> str:
    """The archive's README: how images are prepared for the model, and the commands that install it and predict.

    ``folder`` is the model's, as nnU-Net names it: dataset, then trainer, plan and configuration. ``words`` are arm,
    strategy, folds, tile_step, mirroring and archive, as the text takes them, and whether it was trained with
    sequence_dropout.
    """
    trainer = folder.split("/")[1].split("__")[0]
    own = trainer == exported_trainer.SegResNetTrainer.__name__
    program = f'python "$nnUNet_results/{folder}/{EXTERNAL}/{trainer}.py"'
    packages = ("nnunetv2", "monai") if own else ("nnunetv2",)
    dropped = words["sequence_dropout"]
    masked = plans["configurations"][CONFIGURATION]["use_mask_for_norm"][0]
    names = list(enumerate(channels.names(dataset)))
    return READ_ME.format(
        **words, dataset=DATASETS["target"], plans=plans["plans_name"], trainer=trainer, configuration=CONFIGURATION,
        packages=" ".join(f"{name}=={metadata.version(name)}" for name in packages),
        count="One file" if len(names) == 1 else f"{len(names)} files",
        grid=ONE_GRID if len(names) > 1 else "",
        lacking="" if dropped else UNSEEN,
        channels="\n".join(f"    CASE_{n:04d}.nii.gz  {SEQUENCE_TITLES[name]} ({name})" for n, name in names),
        normalised="over what is not 0" if masked else "over the whole image, 0 included",
        predict=program if own else "nnUNetv2_predict",
        segresnet=SEGRESNET.format(trainer=trainer, variable=EXTERNAL) if own else "",
    )  # fmt: skip
