"""Cases for the review, voxel by voxel."""

import numpy as np

from brainmets.review.case import ReviewCase


def case(reference, predictions, spacing=(1.0, 2.0, 3.0)):
    affine = np.diag([*spacing, 1.0])
    image = np.linspace(1, 100, reference.size, dtype=np.float32).reshape(reference.shape)
    models = {("default", name): labels for name, labels in zip(("finetune", "scratch"), predictions, strict=False)}
    return ReviewCase("P1", dict.fromkeys(("t1n", "t1c", "t2w", "t2f"), image), reference, models, affine)


def block(x, y, z, label=3, shape=(20, 20, 6)):
    labels = np.zeros(shape, np.uint8)
    labels[x, y, z] = label
    return labels
