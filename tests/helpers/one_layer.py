"""An ensemble whose folds are one convolution of a single voxel: every probability can be worked out by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from brainmets.training.inference import Ensemble, NetworkImage
from brainmets.vocabulary import SEQUENCES

RESAMPLING = {
    f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")
} | {
    f"resampling_fn_{what}_kwargs": {"is_seg": what == "seg", "order": 1, "order_z": 0, "force_separate_z": None}
    for what in ("data", "seg", "probabilities")
}
DATASET = {
    "channel_names": {str(number): name for number, name in enumerate(SEQUENCES)},
    "labels": {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [1, 3], "enhancing_tumor": [3]},
    "regions_class_order": [2, 1, 3],
    "file_ending": ".nii.gz",
}


def ensemble(folds: list[tuple[np.ndarray, np.ndarray]], patch=(8, 8, 8), spacing=(1.0, 1.0, 1.0)) -> Ensemble:
    """One fold per (weights (3 regions, 4 sequences), biases (3)): WT, TC, ET by t1n, t1c, t2w, t2f."""
    configuration = {"architecture": {}, "spacing": list(spacing), "patch_size": list(patch), **RESAMPLING}
    plans = PlansManager(
        {
            "plans_name": "one_layer",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"3d_fullres": configuration},
        }
    )
    network = torch.nn.Conv3d(4, 3, 1)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            tile_step_size=0.5, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False,
            perform_everything_on_device=False,
        )  # fmt: skip
    predictor.manual_initialization(
        network, plans, plans.get_configuration("3d_fullres"), None, DATASET, "none", (0, 1, 2)
    )
    weights = [
        {
            "weight": torch.tensor(np.asarray(weight, np.float32)[:, :, None, None, None]),
            "bias": torch.tensor(np.asarray(bias, np.float32)),
        }
        for weight, bias in folds
    ]
    return Ensemble(network, weights, plans, DATASET, predictor)


def network_image(data: np.ndarray, labels: np.ndarray, spacing=(1.0, 1.0, 1.0), margin=0) -> NetworkImage:
    """An image (4, z, y, x) that preprocessing neither resampled nor turned, and cropped by ``margin`` all round."""
    shape = labels.shape
    return NetworkImage(
        data.astype(np.float32),
        labels.astype(np.int8),
        {
            "spacing": list(spacing),
            "shape_after_cropping_and_before_resampling": list(shape),
            "shape_before_cropping": [size + 2 * margin for size in shape],
            "bbox_used_for_cropping": [[margin, margin + size] for size in shape],
        },
    )
