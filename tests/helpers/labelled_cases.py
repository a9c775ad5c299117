"""Cases of a few lesions that can be counted by hand, as nnU-Net's dataset gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from brainmets.vocabulary import LABELS

NETC, SNFH, ET = LABELS["netc"], LABELS["snfh"], LABELS["et"]
REGIONS: list[Any] = [(NETC, SNFH, ET), (NETC, ET), (ET,)]


class InMemory:
    """Label maps (1, ...) by case, with nnU-Net's own places of labels."""

    def __init__(self, labels: dict[str, npt.NDArray[np.int16]]) -> None:
        self.identifiers = [*labels]
        self.labels = labels
        self.places = {
            case: DefaultPreprocessor._sample_foreground_locations(one, REGIONS) for case, one in labels.items()
        }

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        labels = self.labels[identifier]
        return labels.astype(np.float32), labels, None, {"class_locations": self.places[identifier]}


def three_lesions() -> npt.NDArray[np.int16]:
    """Of 1, 8 and 1,000 voxels, all enhancing, in a map whose three sides differ."""
    labels = np.zeros((1, 12, 15, 40), np.int16)
    labels[0, 10, 14, 1] = ET
    labels[0, 1:3, 1:3, 1:3] = ET
    labels[0, 1:11, 2:12, 25:35] = ET
    return labels
