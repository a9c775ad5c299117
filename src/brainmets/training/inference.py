"""Predicting a case with the mean probability of an arm's folds, on the case's own grid.

Held-out cases are predicted by all folds together, a training case by the one fold that has not trained on it.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from brainmets import nifti
from brainmets.cohorts.cohort import Case
from brainmets.cohorts.splits import FoldCases
from brainmets.scoring import probabilities as kept
from brainmets.training import channels
from brainmets.training.arms import TRAINERS
from brainmets.training.plans import CONFIGURATION, READER
from brainmets.training.preprocessed import require_finite
from brainmets.training.trainer import convolve_by, read_checkpoint
from brainmets.vocabulary import NETWORK_REGIONS, REGIONS


@dataclass(frozen=True)
class NetworkImage:
    """A case after nnU-Net's preprocessing: transposed, cropped, resampled and normalised.

    ``data``: (sequence, ...) float32 on the network's grid; ``labels``: on the same grid, -1 outside the head, or
    ``None``; ``properties``: what is needed to undo it.
    """

    data: npt.NDArray[np.float32]
    labels: npt.NDArray[np.integer] | None
    properties: dict[str, Any]


def build_network(plans: PlansManager, dataset: dict[str, Any], arm: str) -> torch.nn.Module:
    """The network of an arm for prediction, with one output alone, on torch's default device; random weights."""
    heads = plans.get_label_manager(dataset).num_segmentation_heads
    return TRAINERS[arm].build_network_architecture(
        plans, plans.get_configuration(CONFIGURATION), len(dataset["channel_names"]), heads, False
    )


def convolve_single_images_fast(network: torch.nn.Module) -> None:
    """Let the 3D convolutions of ``network`` take one float32 image on a CPU through oneDNN, as they take two.

    For a batch of one and few channels torch 2.13 has a path of its own, which takes 14 times as long with 8 channels
    and 8 times as long in the demonstration's network. Logits differ by rounding, 4e-5 there.
    """

    def convolve(convolution: torch.nn.Conv3d, image: torch.Tensor) -> torch.Tensor:
        single = len(image) == 1 and image.device.type == "cpu" and image.dtype == torch.float32
        padding = convolution.padding
        if not single or isinstance(padding, str) or convolution.padding_mode != "zeros":
            return torch.nn.Conv3d.forward(convolution, image)
        weight, bias, stride = convolution.weight, convolution.bias, convolution.stride
        return torch.mkldnn_convolution(image, weight, bias, padding, stride, convolution.dilation, convolution.groups)

    if torch.backends.mkldnn.is_available():
        convolve_by(network, convolve)


@dataclass
class Ensemble:
    """The folds of one (arm, strategy), ready to predict.

    Made by ``Ensemble.load`` or ``Ensemble.build``. The network is held once; each fold's weights are put into it in
    turn.
    """

    network: torch.nn.Module
    weights: list[dict[str, torch.Tensor]]
    plans: PlansManager
    dataset: dict[str, Any]
    predictor: nnUNetPredictor

    @classmethod
    def load(cls, checkpoints: Sequence[Path], device: torch.device, tile_step: float, mirroring: bool) -> Ensemble:
        """Read one checkpoint per fold; all must be of one arm and one plan, and read the same sequences.

        ``tile_step`` is the sliding window's step as a share of the patch; ``mirroring`` averages over mirrored
        copies of the input. Raises ``ValueError`` where the checkpoints do not belong together.
        """
        read = [read_checkpoint(path, torch.device("cpu")) for path in checkpoints]
        first = read[0]["init_args"]
        for path, checkpoint in zip(checkpoints, read, strict=True):
            if checkpoint["init_args"]["plans"] != first["plans"]:
                raise ValueError(f"{path} was trained with another plan or another arm than {checkpoints[0]}")
            reads, others = (channels.names(one["dataset_json"]) for one in (checkpoint["init_args"], first))
            if reads != others:
                raise ValueError(f"{path} reads {', '.join(reads)}, and {checkpoints[0]} {', '.join(others)}")
        if first["plans"]["image_reader_writer"] != READER:
            raise ValueError(
                f"{checkpoints[0]} was trained on images in the axes of their files, not turned to one orientation "
                f"(its plan reads with {first['plans']['image_reader_writer']}, not {READER}): run the study again "
                "from notebook 02"
            )
        return cls.build(
            first["plans"], first["dataset_json"], first["plans"]["brainmets"]["arm"],
            [one["network_weights"] for one in read], read[0]["inference_allowed_mirroring_axes"],
            device, tile_step, mirroring,
        )  # fmt: skip

    @classmethod
    def build(
        cls,
        plans: dict[str, Any],
        dataset: dict[str, Any],
        arm: str,
        weights: Sequence[dict[str, torch.Tensor]],
        mirroring_axes: Sequence[int] | None,
        device: torch.device,
        tile_step: float,
        mirroring: bool,
    ) -> Ensemble:
        """The folds whose ``weights`` are given, one ``state_dict`` of the arm's network each.

        ``plans`` and ``dataset`` are the content of nnU-Net's files of these names, ``mirroring_axes`` those that
        ``mirroring`` turns round (none: it changes nothing). Nothing is checked here: nnU-Net imports what the plan
        names, and a plan from elsewhere must have been held to what may be imported.
        """
        manager = PlansManager(plans)
        network = build_network(manager, dataset, arm)
        convolve_single_images_fast(network)
        with contextlib.redirect_stdout(io.StringIO()):  # it says on a CPU that it will use the CPU
            predictor = nnUNetPredictor(
                tile_step_size=tile_step, use_mirroring=mirroring, device=device, allow_tqdm=False,
                perform_everything_on_device=device.type == "cuda",
            )  # fmt: skip
        predictor.manual_initialization(
            network, manager, manager.get_configuration(CONFIGURATION), None, dataset, TRAINERS[arm].__name__,
            mirroring_axes,
        )  # fmt: skip
        return cls(network, list(weights), manager, dataset, predictor)

    def only(self, places: Sequence[int]) -> Ensemble:
        """The folds at these places of the list that was loaded, on the same network: nothing is read again."""
        return replace(self, weights=[self.weights[place] for place in places])

    @property
    def sequences(self) -> tuple[str, ...]:
        """Those that the networks read, in channel order."""
        return channels.names(self.dataset)

    def preprocess(self, case: Case, reference: Path | None = None) -> NetworkImage:
        """The case as the network sees it; with ``reference``, a label map on the case's grid, on that grid too.

        The case may have any of the network's sequences: the others are 0, and its further images are passed over.
        Raises ``ValueError`` naming the case where it has none of them, and case and sequence where an image is not
        finite in float32.
        """
        with tempfile.TemporaryDirectory() as folder:
            data, labels, properties = DefaultPreprocessor(verbose=False).run_case(
                channels.files_of(case, self.sequences, Path(folder) / "absent.nii.gz"),
                None if reference is None else str(reference), self.plans, self.predictor.configuration_manager,
                self.dataset,
            )  # fmt: skip
        require_finite(data, case.case, self.sequences)
        return NetworkImage(data, None if reference is None else labels[0], properties)

    def fold_probabilities(self, image: NetworkImage) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Each fold's probability of each region, fold by fold and, to hold little at a time, region by region.

        Gives (region, probability): the region's place in the network's order (WT, TC, ET), and a volume (z, y, x) on
        the case's grid turned to RAS, as all that follows: z along S, y along A, x along R. Logits are resampled to
        the original grid before the sigmoid, as nnU-Net does for one model. Raises ``FloatingPointError`` where a
        fold's values are not finite.
        """
        for number, weights in enumerate(self.weights, 1):
            self.network.load_state_dict(weights)
            try:
                logits = self.predictor.predict_sliding_window_return_logits(torch.from_numpy(image.data)).cpu()
                finite = bool(torch.isfinite(logits).all())
            except RuntimeError as error:
                if "Encountered inf" not in str(error):  # nnU-Net's own look, which takes NaN for a number
                    raise
                finite = False
            if not finite:
                raise FloatingPointError(
                    f"model {number} of {len(self.weights)} gives values that are not finite: look at the images"
                )
            for region in range(len(logits)):
                yield region, self._on_original_grid(logits[region : region + 1], image)
            del logits  # not held while the next fold predicts

    def _on_original_grid(self, logits: torch.Tensor, image: NetworkImage) -> npt.NDArray[np.float32]:
        """The probability of one region's logits (1, ...), as nnU-Net's export makes it of all regions at once."""
        configuration, manager = self.predictor.configuration_manager, self.predictor.label_manager
        spacing = [image.properties["spacing"][axis] for axis in self.plans.transpose_forward]
        cropped = image.properties["shape_after_cropping_and_before_resampling"]
        logits = configuration.resampling_fn_probabilities(logits, cropped, configuration.spacing, spacing)
        box, shape = image.properties["bbox_used_for_cropping"], image.properties["shape_before_cropping"]
        whole = manager.revert_cropping_on_probabilities(manager.apply_inference_nonlin(logits), box, shape)
        return np.asarray(whole[0], np.float32).transpose(self.plans.transpose_backward)

    def probabilities(self, case: Case) -> npt.NDArray[np.float32]:
        """The folds' mean probability of each region, (region, z, y, x) on the case's grid turned to RAS.

        Regions are in the network's order (WT, TC, ET). Probabilities, not logits, are averaged.
        """
        return self.mean_probabilities(self.fold_probabilities(self.preprocess(case)))

    def mean_probabilities(self, folds: Iterable[tuple[int, npt.NDArray[np.float32]]]) -> npt.NDArray[np.float32]:
        """The mean over folds (region, z, y, x) of what ``fold_probabilities`` gives."""
        mean = np.zeros(0, np.float32)
        for region, probability in folds:
            if not mean.size:
                mean = np.zeros((self.predictor.label_manager.num_segmentation_heads, *probability.shape), np.float32)
            for total, plane in zip(mean[region], probability, strict=True):  # a whole quotient would be held too
                total += plane / np.float32(len(self.weights))
        return mean

    def on_case_grid(self, volume: npt.NDArray[np.floating], image: NetworkImage) -> npt.NDArray[np.float32]:
        """A volume on the network's grid, (z, y, x) on the case's, turned to RAS: nearest voxel; NaN where cropped.

        Undoes nnU-Net's resampling, cropping and transposition of ``image``.
        """
        cropped = image.properties["shape_after_cropping_and_before_resampling"]
        nearest = [
            ((np.arange(size) + 0.5) * given / size).astype(int)
            for size, given in zip(cropped, volume.shape, strict=True)
        ]
        whole = np.full(image.properties["shape_before_cropping"], np.nan, np.float32)
        whole[tuple(slice(*ends) for ends in image.properties["bbox_used_for_cropping"])] = volume[np.ix_(*nearest)]
        return whole.transpose(self.plans.transpose_backward)

    def labels(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """BraTS labels of region probabilities (region, z, y, x): each region is painted where it exceeds 0.5."""
        painted = self.predictor.label_manager.convert_probabilities_to_segmentation(probabilities)
        return np.asarray(painted, np.uint8)


def write_prediction(labels: npt.NDArray[np.uint8], case: Case, folder: Path) -> Path:
    """Write ``<case>.nii.gz`` in the axes and with the affine of the case; ``labels`` are (z, y, x), in RAS."""
    reference = nifti.read_grid(case.reference)
    array = nifti.from_ras(labels.transpose(2, 1, 0), reference.affine)
    if array.shape != reference.shape:
        raise ValueError(f"the prediction of {case.case} has shape {array.shape}, its image {reference.shape}")
    return nifti.write(folder / f"{case.case}.nii.gz", array, reference.affine)


@dataclass(frozen=True)
class Keep:
    """Keep the probabilities behind the labels: in ``folder``, 0 where they are below ``floor``."""

    folder: Path
    floor: float


def write_probabilities(probabilities: npt.NDArray[np.float32], case: Case, keep: Keep) -> Path:
    """Write what ``Ensemble.probabilities`` gives as ``<case>.nii.gz``, on the case's grid.

    ``probabilities``: (region, z, y, x), in RAS, the regions in the network's order.
    """
    reference = nifti.read_grid(case.reference)
    volumes = {
        region: nifti.from_ras(probabilities[NETWORK_REGIONS.index(region)].transpose(2, 1, 0), reference.affine)
        for region in REGIONS
    }
    for region, volume in volumes.items():
        if volume.shape != reference.shape:
            raise ValueError(
                f"the probability of {region} of {case.case} has shape {volume.shape}, its image {reference.shape}"
            )
    return kept.write(keep.folder / f"{case.case}.nii.gz", volumes, reference.affine, keep.floor)


def predict_cases(
    ensemble: Ensemble,
    cases: Sequence[Case],
    folder: Path,
    report: Callable[[str], None],
    keep: Keep | None = None,
) -> list[Path]:
    """Predict every case with all folds into ``folder``, which is emptied first, with one line per finished case.

    With ``keep`` the probabilities are written too, into its folder, which is emptied first. Returns the label maps,
    in the order of ``cases``. No case gives empty folders.
    """
    return _predict([(ensemble, case) for case in cases], "case", folder, report, keep)


def unseen_cases(folds: Sequence[FoldCases], trained: Sequence[int], strategy: str) -> pd.DataFrame:
    """Which model predicts which training case of the target in cross-validation.

    ``folds``: the target's, as ``splits.json`` lists them; ``trained``: those that the study trains. One row per case
    and model, in the order of ``trained`` and of the names: ``case``; ``fold``, whose training leaves it out; and
    ``predicted_by``, a fold whose model predicts it. That is the same fold, but for ``pretrained``: no model of it has
    seen a target case, so all of them predict each one together, as they do the held-out cases. Cases of a fold that
    is not trained do not occur. Raises ``ValueError`` for a case that its fold trains on, or that two folds leave out.
    """
    rows = []
    for fold in trained:
        both = sorted(set(folds[fold]["train"]) & set(folds[fold]["val"]))
        if both:
            raise ValueError(f"splits.json: fold {fold} trains on {', '.join(both)}, which it is validated with")
        models = trained if strategy == "pretrained" else [fold]
        rows += [(case, fold, model) for case in sorted(folds[fold]["val"]) for model in models]
    table = pd.DataFrame(rows, columns=["case", "fold", "predicted_by"])
    left_out_by = table.groupby("case")["fold"].nunique()
    if len(twice := left_out_by[left_out_by > 1]):
        raise ValueError(f"splits.json: more than one fold is validated with {', '.join(map(str, twice.index))}")
    return table


def predict_unseen(
    ensemble: Ensemble,
    trained: Sequence[int],
    unseen: pd.DataFrame,
    cases: Mapping[str, Case],
    folder: Path,
    report: Callable[[str], None],
    keep: Keep | None = None,
) -> list[Path]:
    """Predict the cases of ``unseen_cases``'s table, each with the models that it names, as ``predict_cases`` does.

    ``trained`` are the folds that ``ensemble`` was loaded with, in their order; ``cases`` are all cases by name.
    """
    pairs = [
        (ensemble.only([trained.index(model) for model in rows["predicted_by"]]), cases[str(case)])
        for case, rows in unseen.groupby("case", sort=False)
    ]
    return _predict(pairs, "training case", folder, report, keep)


def _predict(
    pairs: Sequence[tuple[Ensemble, Case]], noun: str, folder: Path, report: Callable[[str], None], keep: Keep | None
) -> list[Path]:
    for emptied in (folder, keep.folder) if keep is not None else (folder,):
        shutil.rmtree(emptied, ignore_errors=True)
        emptied.mkdir(parents=True)
    written = []
    started = time.monotonic()
    for number, (ensemble, case) in enumerate(pairs, 1):
        try:
            probabilities = ensemble.probabilities(case)
        except FloatingPointError as error:
            raise FloatingPointError(f"{case.case}: {error}") from error
        written.append(write_prediction(ensemble.labels(probabilities), case, folder))
        if keep is not None:
            write_probabilities(probabilities, case, keep)
        del probabilities  # not held while the next case is predicted
        elapsed = time.monotonic() - started
        left = elapsed / number * (len(pairs) - number)
        report(f"{noun} {number} of {len(pairs)}: {case.case}, {elapsed:.0f} s, {left:.0f} s left")
    return written
