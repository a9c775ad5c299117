"""nnU-Net's planning and preprocessing: one plan, made on the target cohort, for both cohorts.

Everything here is nnU-Net's own code on nnU-Net's own files. What is ours: the datasets point at the cohorts' own
images instead of copies, and a small cohort is handled in this process, because nnU-Net's spawned workers each import
torch first (10 to 20 s on two cores).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor as fingerprinting
import nnunetv2.preprocessing.preprocessors.default_preprocessor as preprocessing
import numpy as np
import pandas as pd
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
)
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

from brainmets.cohorts import likeness
from brainmets.cohorts.cohort import Case, read_sequences
from brainmets.cohorts.splits import FoldCases, Split
from brainmets.files import read_json, write_json
from brainmets.paths import StudyPaths
from brainmets.provenance import Provenance, damaged, sha256
from brainmets.training import channels
from brainmets.training.commands import alignment_command
from brainmets.training.preprocessed import (
    PROPERTIES,
    CheckingPreprocessor,
    DamagedError,
    StudyDataset,
)
from brainmets.vocabulary import NETWORK_REGIONS, REGIONS, RESIDUAL_PLAN, UNET_PLAN

CONFIGURATION = "3d_fullres"
DATASETS = {"source": "Dataset501_Source", "target": "Dataset502_Target"}
PLANNERS: Mapping[str, type[ExperimentPlanner]] = {UNET_PLAN: ExperimentPlanner, RESIDUAL_PLAN: ResEncUNetPlanner}
"""nnU-Net's planner of each plan, by nnU-Net's own name of the plan. Every study has the first, which says how images
are preprocessed; a study has another where one of its arms does."""


def identifier(cohort: str, plan_name: str) -> str:
    """nnU-Net's identifier of a cohort's plan: the target's own, or the same plan moved to the source.

    >>> identifier("source", "nnUNetPlans")
    'nnUNetPlans_from_target'
    """
    return plan_name if cohort == "target" else f"{plan_name}_from_target"


PLANS = {cohort: identifier(cohort, UNET_PLAN) for cohort in DATASETS}
"""The identifier of each cohort's plan of the U-Net, which its images are preprocessed by."""

READER = "NibabelIOWithReorient"
"""nnU-Net's reader that turns every image to RAS. With its usual one the network sees the axes of the file: cohorts
stored differently would be heads in different positions."""

CONTENT = "content.json"
"""What the preprocessed cases were made from, written last by ``preprocess``: SHA-256 of each case's images, in
channel order ("absent" for one that it lacks), and of its label map in BraTS labels."""

WRITTEN = "written.json"
"""The record of what preprocessing wrote of a cohort, for the trainings to compare with; names no other cohort."""

NETWORK = re.compile(r"dynamic_network_architectures\.architectures\.\w+\.[A-Z]\w*")
LAYER = re.compile(r"torch\.nn\.(modules\.\w+\.)?[A-Z]\w*")
"""The classes that a plan may name: no name of a module's own imports, through which any function can be reached."""

PREPROCESSING = (
    "data_identifier", "preprocessor_name", "spacing", "normalization_schemes", "use_mask_for_norm",
    "resampling_fn_data", "resampling_fn_data_kwargs", "resampling_fn_seg", "resampling_fn_seg_kwargs",
)  # fmt: skip
"""What all plans of a cohort must agree on, since its images are preprocessed once."""

PER_SEQUENCE = ("normalization_schemes", "use_mask_for_norm")
"""What a plan has one value of for each channel; compared for the sequences that both cohorts have."""
INTENSITIES = "foreground_intensity_properties_per_channel"
"""The plan's statistics of intensities, by nnU-Net's name."""
ALIGNED = ("patch_size", "batch_size", "spacing", *PER_SEQUENCE, "architecture")
"""What both plans must agree on for weights to be transferable, besides channel order, regions and axes."""

LOOKED_AT = 40
"""Cases of a cohort whose preprocessed images are compared with the other cohort's."""

INTENSITY_SAMPLES = 2_000_000
"""Foreground voxels that the fingerprint's intensity statistics are drawn from, with replacement.

nnU-Net draws 1e8 whatever the cohort's size, which takes 20 s on a cohort of a few MB; the statistics go into the plan
but MRI is normalised by each image's own z-score and does not use them (``require_z_score``). A sequence that a case
lacks enters them as zeros.
"""


class AlignmentError(ValueError):
    """The two cohorts' plans differ where weights need them equal; the message shows both sides."""


def use_nnunet_folders(files: StudyPaths, augmentation_workers: int = 1) -> None:
    """Point nnU-Net at the study's folders, for this process and its children.

    nnU-Net reads its folders and its number of augmentation processes from the environment.
    """
    os.environ["nnUNet_raw"] = str(files.nnunet_raw)
    os.environ["nnUNet_preprocessed"] = str(files.nnunet_preprocessed)
    os.environ["nnUNet_n_proc_DA"] = str(augmentation_workers)


def write_dataset(files: StudyPaths, cohort: str, cases: Mapping[str, Case], split: Split) -> dict[str, Any]:
    """Write ``dataset.json`` and ``splits_final.json`` of a cohort's training cases; return the former's content.

    Held-out cases are not listed, so that neither the fingerprint nor any training sees them. Regions are trained
    as overlapping targets; nnU-Net paints them in the order WT, TC, ET as labels 2, 1, 3 (SNFH, NETC, ET).

    Channels are the sequences of the cohort's manifest. Under "absent" stands what single cases lack; their file is
    one of zeros. Raises ``ValueError`` naming a sequence that no training case has.
    """
    sequences = read_sequences(files.manifest(cohort))
    training = sorted(set(cases) - set(split["held_out"]))
    lacking = {case: channels.lacking(cases[case], sequences) for case in training}
    if unseen := [name for name in sequences if all(name in lacking[case] for case in training)]:
        raise ValueError(
            f"no training case of the {cohort} cohort has {', '.join(unseen)}: a network learns nothing of it; leave "
            "it out of `sequences`"
        )
    absent = {case: without for case, without in lacking.items() if without}
    zeros = files.nnunet_raw / DATASETS[cohort] / channels.ABSENT
    content = {
        **description(len(training), sequences),
        **({channels.ABSENT: absent} if absent else {}),
        "dataset": {
            case: {
                "images": channels.files_of(cases[case], sequences, zeros / f"{case}.nii.gz"),
                "label": str(files.labels(cohort) / f"{case}.nii.gz"),
            }
            for case in training
        },
    }
    write_json(files.nnunet_raw / DATASETS[cohort] / "dataset.json", content)
    folder = files.nnunet_preprocessed / DATASETS[cohort]
    write_json(folder / "dataset.json", content)
    write_json(folder / "splits_final.json", split["folds"])
    return content


def description(training: int, sequences: Iterable[str]) -> dict[str, Any]:
    """What ``dataset.json`` says of any cohort beside its cases, of which it has so many for ``training``."""
    return {
        "channel_names": {str(index): sequence for index, sequence in enumerate(sequences)},
        "labels": {"background": 0, **{region: list(REGIONS[region]) for region in NETWORK_REGIONS}},
        "regions_class_order": [2, 1, 3],
        "numTraining": training,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": READER,
    }


def extract_fingerprint(files: StudyPaths, cohort: str, workers: int) -> dict[str, Any]:
    """nnU-Net's fingerprint of a cohort's training cases: spacings, shapes, intensity statistics."""
    use_nnunet_folders(files)
    with _workers(fingerprinting, workers):
        extractor = fingerprinting.DatasetFingerprintExtractor(DATASETS[cohort], workers)
        extractor.num_foreground_voxels_for_intensitystats = INTENSITY_SAMPLES
        return extractor.run(overwrite_existing=True)


def plan_target(
    files: StudyPaths, gpu_memory_gb: float, base_features: int, plan_name: str = UNET_PLAN
) -> dict[str, Any]:
    """Let nnU-Net plan on the target's fingerprint and write the plan ``plan_name`` (of ``PLANNERS``).

    ``gpu_memory_gb`` and ``base_features`` (feature maps of the first level) are the planner's levers: patch,
    batch and depth of the network follow from them. Returns the plan.
    """
    use_nnunet_folders(files)
    planner = PLANNERS[plan_name](DATASETS["target"], gpu_memory_gb, plans_name=identifier("target", plan_name))
    planner.UNet_base_num_features = base_features
    with contextlib.redirect_stdout(io.StringIO()):  # pages of intermediate plans; the notebook shows the result
        return planner.plan_experiment()


def move_plan_to_source(files: StudyPaths, plan_name: str = UNET_PLAN) -> dict[str, Any]:
    """Give the source cohort the target's plan, by nnU-Net's own command. Returns the moved plan.

    Where the cohorts have other sequences, the plan's values of single channels follow their names (``by_name``).
    Another plan than the U-Net's reads the arrays that the U-Net's names: nnU-Net's command would name others.
    """
    use_nnunet_folders(files)
    identifiers = [identifier(cohort, plan_name) for cohort in ("target", "source")]
    move_plans_between_datasets(DATASETS["target"], DATASETS["source"], *identifiers)
    written = read_plan(files, "source", plan_name)
    moved = deepcopy(written)
    source, target = (channels.names(read_dataset(files, cohort)) for cohort in ("source", "target"))
    if source != target:
        own = _read(files, "source", "dataset_fingerprint.json")[INTENSITIES]
        moved = by_name(moved, target, dict(zip(source, own.values(), strict=True)))
    shared = read_plan(files, "source") if plan_name != UNET_PLAN else moved
    moved["configurations"][CONFIGURATION]["data_identifier"] = _data_identifier(shared)
    if moved != written:
        write_json(plan_path(files, "source", plan_name), moved)
    return moved


def _data_identifier(plan: Mapping[str, Any]) -> str:
    return str(plan["configurations"][CONFIGURATION]["data_identifier"])


def by_name(plan: Mapping[str, Any], of: Sequence[str], intensities: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of networks that read the sequences ``of``, for networks that read those of ``intensities``.

    A sequence that both have keeps its values. One that only the latter have gets the normalisation that nnU-Net gives
    a sequence of its name, over the mask or not as all sequences of the plan, and its own cohort's ``intensities``.
    Everything else is the plan's, the network's topology above all. Raises ``AlignmentError`` where the plan
    normalises its sequences over different masks, so that there is no rule for another one.
    """
    moved = deepcopy(dict(plan))
    for name, configuration in moved["configurations"].items():
        if "use_mask_for_norm" not in configuration:  # one that inherits from another
            continue
        schemes, masked = (dict(zip(of, configuration[key], strict=True)) for key in PER_SEQUENCE)
        if len(set(masked.values())) != 1:
            raise AlignmentError(f"{name}: use_mask_for_norm is {masked}, and the source has other sequences")
        everywhere = next(iter(masked.values()))
        configuration["normalization_schemes"] = [
            schemes.get(sequence) or get_normalization_scheme(sequence).__name__ for sequence in intensities
        ]
        configuration["use_mask_for_norm"] = [everywhere for _ in intensities]
    known = dict(zip(of, plan[INTENSITIES].values(), strict=True))
    moved[INTENSITIES] = {
        str(number): known.get(sequence, own) for number, (sequence, own) in enumerate(intensities.items())
    }
    return moved


def require_z_score(plan: Mapping[str, Any]) -> None:
    """Raise ``AlignmentError`` where a plan normalises by anything but each image's own mean and deviation.

    Others read the cohort's intensities, in which the sequences that cases lack are zeros, and turn a sequence that a
    case lacks into something else than 0.
    """
    for name, configuration in plan["configurations"].items():
        for scheme in configuration.get("normalization_schemes", ()):
            if scheme != ZScoreNormalization.__name__:
                raise AlignmentError(
                    f"{name}: {scheme} in the plan, where cases lack sequences: only {ZScoreNormalization.__name__} "
                    "leaves an image that is not there at 0"
                )


def preprocess(files: StudyPaths, cohort: str, workers: int) -> list[str]:
    """Crop, normalise and resample every training case as the plan says. Returns the cases' names.

    Raises ``RuntimeError`` where a case did not come out, and ``ValueError`` naming case and sequence where one came
    out unfit for training: values that are not finite, a constant image, an unknown label. ``content.json`` and the
    record of what was written are then not there, and no training starts.
    """
    use_nnunet_folders(files)
    folder, dataset = files.nnunet_preprocessed / DATASETS[cohort], read_dataset(files, cohort)
    if channels.ABSENT in dataset:
        require_z_score(read_plan(files, cohort))
    for name in (CONTENT, WRITTEN):
        (folder / name).unlink(missing_ok=True)
    with _workers(preprocessing, workers):
        preprocessor = CheckingPreprocessor(verbose=False)
        preprocessor.show_progress_bar = False
        preprocessor.run(DATASETS[cohort], CONFIGURATION, PLANS[cohort], workers)
    arrays = arrays_folder(files, cohort)
    written = sorted(path.stem for path in arrays.glob("*.b2nd") if not path.stem.endswith("_seg"))
    wanted = dataset["dataset"]
    if written != sorted(wanted):
        raise RuntimeError(f"preprocessing of the {cohort} gave {written} where {sorted(wanted)} were wanted")
    write_json(folder / CONTENT, _hashes(dataset))
    record(files, cohort)
    return written


def _hashes(dataset: Mapping[str, Any]) -> dict[str, list[str]]:
    """By case, of each channel's image and of the label map; a sequence that the case lacks is called so."""
    sequences, absent = channels.names(dataset), channels.absent(dataset)
    hashes = {}
    for case, entry in dataset["dataset"].items():
        lacked = absent.get(case, ())
        images = [
            channels.ABSENT if sequence in lacked else sha256(Path(path))
            for sequence, path in zip(sequences, entry["images"], strict=True)
        ]
        hashes[case] = [*images, sha256(Path(entry["label"]))]
    return hashes


def record(files: StudyPaths, cohort: str) -> None:
    """Note size, hash and time of change of all that the trainings of a cohort read (``outputs``)."""
    folder = files.nnunet_preprocessed / DATASETS[cohort]
    Provenance("02_plan_alignment", {}, root=folder).write(folder / WRITTEN, outputs=outputs(files, cohort))


def outputs(files: StudyPaths, cohort: str) -> list[Path]:
    """Every file of notebook 02 that the trainings of a cohort read: plan, split, arrays, places of labels."""
    folder, arrays = files.nnunet_preprocessed / DATASETS[cohort], arrays_folder(files, cohort)
    names = ("dataset.json", "dataset_fingerprint.json", "splits_final.json", CONTENT)
    found = [*sorted(arrays.glob("*.b2nd")), *sorted(arrays.glob(f"{PROPERTIES}/*.npz"))]
    return [*plan_paths(files, cohort), *(folder / name for name in names), *found]


def plan_path(files: StudyPaths, cohort: str, plan_name: str) -> Path:
    """Where a cohort's plan ``plan_name`` lies."""
    return files.nnunet_preprocessed / DATASETS[cohort] / f"{identifier(cohort, plan_name)}.json"


def plan_paths(files: StudyPaths, cohort: str) -> list[Path]:
    """The U-Net's plan of a cohort, and those of other networks that are there."""
    paths = {name: plan_path(files, cohort, name) for name in PLANNERS}
    return [path for name, path in paths.items() if name == UNET_PLAN or path.is_file()]


def require_whole(files: StudyPaths, cohort: str) -> None:
    """Raise ``DamagedError`` unless all that preprocessing wrote of a cohort is still there, as it was written.

    The message names the first files that are not, and the command that makes them anew.
    """
    folder = files.nnunet_preprocessed / DATASETS[cohort]
    repair = f"`{alignment_command(files)}` makes it anew; a training is repeated only where its data have changed"
    if not (folder / WRITTEN).is_file():
        raise DamagedError(
            f"{(folder / WRITTEN).relative_to(files.work)} is not in {files.work}: the {cohort} cohort is not "
            f"preprocessed, or by an earlier version, which left files that can carry code: {repair}"
        )
    if wrong := damaged(folder / WRITTEN, folder):
        listed = "; ".join(f"{name} {what}" for name, what in list(wrong.items())[:5])
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DamagedError(f"{folder.relative_to(files.work)} in {files.work}: {listed}{more}: {repair}")
    _put_times_back(folder)


def _put_times_back(folder: Path) -> None:
    """Give whole files the time of change that they were written with, so that a copied study is not hashed again."""
    for name, was in read_json(folder / WRITTEN)["provenance"]["outputs"].items():
        if (folder / name).stat().st_mtime_ns != was["changed_ns"]:
            with contextlib.suppress(OSError):  # a folder that cannot be written is hashed at each start
                os.utime(folder / name, ns=(was["changed_ns"], was["changed_ns"]))


def arrays_folder(files: StudyPaths, cohort: str) -> Path:
    """The folder, named in the plan, of a cohort's preprocessed arrays. Raises ``ValueError`` where it is no name."""
    folder = _data_identifier(read_plan(files, cohort))
    if not re.fullmatch(r"\w+", folder):
        raise ValueError(f"{PLANS[cohort]}.json: data_identifier is {folder!r}, which is no folder's name")
    return files.nnunet_preprocessed / DATASETS[cohort] / folder


def own_choice(files: StudyPaths, cohort: str) -> dict[str, Any]:
    """What nnU-Net finds in a cohort, and what it would choose for this cohort alone.

    Keys: ``spacing_mm`` and ``shape`` (medians, z, y, x, the latter after cropping), ``share_after_cropping`` (median
    share of a volume that its crop to non-zero keeps) and ``use_mask_for_norm`` (one value per sequence).
    """
    use_nnunet_folders(files)
    found = read_json(files.nnunet_preprocessed / DATASETS[cohort] / "dataset_fingerprint.json")
    planner = ExperimentPlanner(DATASETS[cohort])
    return {
        "spacing_mm": np.median(found["spacings"], axis=0).round(3).tolist(),
        "shape": np.median(found["shapes_after_crop"], axis=0).astype(int).tolist(),
        "share_after_cropping": round(float(found["median_relative_size_after_cropping"]), 3),
        "use_mask_for_norm": planner.determine_normalization_scheme_and_whether_mask_is_used_for_norm()[1],
    }


def appearance(files: StudyPaths, cohort: str) -> pd.DataFrame:
    """``likeness.appearance`` of a cohort's preprocessed training cases: of ``LOOKED_AT``, spread evenly by name."""
    configuration, dataset = read_plan(files, cohort)["configurations"][CONFIGURATION], read_dataset(files, cohort)
    names, sequences = sorted(dataset["dataset"]), channels.names(dataset)
    chosen = [names[round(place)] for place in np.linspace(0, len(names) - 1, min(LOOKED_AT, len(names)))]
    stored = StudyDataset(str(arrays_folder(files, cohort)), chosen)
    rows = []
    for case in chosen:
        images, labels, *_ = stored.load_case(case)
        there = [name for name in sequences if name not in channels.absent_of(dataset, case)]
        own = np.asarray(images)[[sequences.index(name) for name in there]]
        rows += likeness.appearance(case, own, np.asarray(labels)[0], configuration["spacing"], there)
    return pd.DataFrame(rows)


def content_digest(files: StudyPaths, cohort: str, cases: Iterable[str]) -> str:
    """One SHA-256 over all that these preprocessed training cases of a cohort were made from.

    Raises ``FileNotFoundError`` where the cohort, or one of the cases, was not preprocessed.
    """
    path = files.nnunet_preprocessed / DATASETS[cohort] / CONTENT
    content = read_json(path) if path.is_file() else {}
    if missing := sorted(set(cases) - set(content)):
        raise FileNotFoundError(f"{path.name} of the {cohort} cohort lacks {missing}: run notebook 02 again")
    chosen = {case: content[case] for case in cases}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def read_plan(files: StudyPaths, cohort: str, plan_name: str = UNET_PLAN) -> dict[str, Any]:
    """A cohort's plan ``plan_name`` as nnU-Net wrote it; ``FileNotFoundError`` naming notebook 02 where there is none.

    Raises ``ValueError`` where it names a network that is not nnU-Net's (``require_known_network``).
    """
    name = f"{identifier(cohort, plan_name)}.json"
    plan = _read(files, cohort, name)
    require_known_network(plan, name)
    return plan


def require_known_network(plan: Mapping[str, Any], origin: str) -> None:
    """Raise ``ValueError`` naming ``origin`` where a plan names Python objects other than networks and torch's layers.

    nnU-Net imports and calls whatever its plan names as the network, and as the layers that it is built of.
    """
    for name, configuration in plan.get("configurations", {}).items():
        architecture = configuration.get("architecture") or {}
        given = architecture.get("arch_kwargs") or {}
        layers = [given.get(key) for key in architecture.get("_kw_requires_import") or ()]
        foreign = [one for one in layers if one is not None and not (isinstance(one, str) and LAYER.fullmatch(one))]
        if architecture and not NETWORK.fullmatch(str(network := architecture.get("network_class_name"))):
            foreign = [network, *foreign]
        if foreign:
            raise ValueError(
                f"{origin}, configuration {name}, names {foreign[0]!r} to be imported, which is no network of "
                "nnU-Net's and no layer of torch: the plan does not come from notebook 02"
            )


def read_dataset(files: StudyPaths, cohort: str) -> dict[str, Any]:
    """A cohort's ``dataset.json``. Raises ``FileNotFoundError`` naming notebook 02 where there is none."""
    return _read(files, cohort, "dataset.json")


def read_folds(files: StudyPaths, cohort: str) -> list[FoldCases]:
    """A cohort's folds as nnU-Net reads them; ``AlignmentError`` where ``splits.json`` has others."""
    path = files.nnunet_preprocessed / DATASETS[cohort] / "splits_final.json"
    try:
        folds: list[FoldCases] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} of the {cohort} cohort is not JSON ({error}); run notebook 02 again") from error
    if files.splits.is_file() and read_json(files.splits).get(cohort, {}).get("folds") != folds:
        raise AlignmentError(
            f"{path.name} of the {cohort} cohort has other folds than splits.json: one of them is another study's, or "
            "from before notebook 01 ran again; run notebook 02 again"
        )
    return folds


def _read(files: StudyPaths, cohort: str, name: str) -> dict[str, Any]:
    path = files.nnunet_preprocessed / DATASETS[cohort] / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.relative_to(files.work)} is not in {files.work}: the {cohort} cohort is not planned; "
            "run notebook 02_plan_alignment first"
        )
    return read_json(path)


def compare_plans(files: StudyPaths, plan_name: str = UNET_PLAN) -> dict[str, dict[str, Any]]:
    """What weights need equal in both cohorts' plan, side by side: name -> {"source": value, "target": value}.

    Names are those of ``ALIGNED`` plus "channel_names", "regions" and "transpose". Of what a plan says for each
    channel (``PER_SEQUENCE``) only the sequences that both cohorts have are listed, in each cohort's order.
    """
    datasets = {cohort: read_dataset(files, cohort) for cohort in DATASETS}
    reads = {cohort: channels.names(dataset) for cohort, dataset in datasets.items()}
    sides: dict[str, dict[str, Any]] = {}
    for cohort, dataset in datasets.items():
        plan = read_plan(files, cohort, plan_name)
        configuration = plan["configurations"][CONFIGURATION]
        values = {name: configuration[name] for name in ALIGNED}
        for name in PER_SEQUENCE:
            given = zip(reads[cohort], configuration[name], strict=True)
            values[name] = [value for sequence, value in given if all(sequence in names for names in reads.values())]
        values |= {"channel_names": dataset["channel_names"], "regions": dataset["labels"]}
        values |= {"transpose": plan["transpose_forward"]}
        for name, value in values.items():
            sides.setdefault(name, {})[cohort] = value
    return sides


def require_aligned(sides: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ``AlignmentError`` with both values of everything that differs.

    Cohorts may have other sequences: of their "channel_names" those that both have must come in the same order.
    """
    differing = {name: pair for name, pair in sides.items() if _shared(name, pair, 0) != _shared(name, pair, 1)}
    if differing:
        lines = "\n".join(
            f"  {name}: source {pair['source']}, target {pair['target']}" for name, pair in differing.items()
        )
        raise AlignmentError(f"the plans are not aligned; run the whole of notebook 02 again:\n{lines}")


def require_shared_images(files: StudyPaths, plan_name: str) -> None:
    """Raise ``AlignmentError`` unless a plan asks of a cohort's images what the U-Net's plan, made first, asks."""
    for cohort in DATASETS:
        plans = [read_plan(files, cohort, name) for name in (UNET_PLAN, plan_name)]
        asked = [
            {name: plan["configurations"][CONFIGURATION].get(name) for name in PREPROCESSING}
            | {name: plan[name] for name in ("transpose_forward", "image_reader_writer")}
            for plan in plans
        ]
        if differing := [name for name, value in asked[0].items() if value != asked[1][name]]:
            lines = "\n".join(
                f"  {name}: {UNET_PLAN} {asked[0][name]}, {plan_name} {asked[1][name]}" for name in differing
            )
            raise AlignmentError(
                f"the {cohort} cohort's plans ask for images that are preprocessed differently; run the whole of "
                f"notebook 02 again:\n{lines}"
            )


def _shared(name: str, pair: Mapping[str, Any], side: int) -> Any:
    """A side's value as it is compared: of the channels, those that the other side has too."""
    sides = (pair["source"], pair["target"])
    if name != "channel_names":
        return sides[side]
    return [sequence for sequence in sides[side].values() if sequence in sides[1 - side].values()]


def forget(files: StudyPaths) -> None:
    """Delete an earlier alignment's files, so that nothing of an older plan is left beside the new one."""
    shutil.rmtree(files.nnunet_raw, ignore_errors=True)
    shutil.rmtree(files.nnunet_preprocessed, ignore_errors=True)


@contextlib.contextmanager
def _workers(module: Any, workers: int) -> Iterator[None]:
    """Run ``module``'s process pools as threads of this process where one worker is asked for."""
    if workers > 1:
        yield
        return
    threads = SimpleNamespace(get_context=lambda method: SimpleNamespace(Pool=ThreadPool))
    with patch.object(module, "multiprocessing", threads), contextlib.redirect_stderr(io.StringIO()):
        yield
