"""The label scheme and the nested regions that every cohort is mapped to.

Labels (BraTS metastases): 1 NETC (non-enhancing tumour core), 2 SNFH (surrounding non-enhancing FLAIR
hyperintensity), 3 ET (enhancing tumour), 4 RC (resection cavity, from 2024 on).
Regions: ET = 3, TC (tumour core) = 1 or 3, WT (whole tumour) = 1, 2 or 3. RC = 4 is scored where it occurs and is
part of no other region.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LABELS: dict[str, int] = {"background": 0, "netc": 1, "snfh": 2, "et": 3, "rc": 4}
REGIONS: dict[str, tuple[int, ...]] = {"ET": (3,), "TC": (1, 3), "WT": (1, 2, 3)}
RESECTION_CAVITY = "RC"

SEQUENCES: tuple[str, ...] = ("t1n", "t1c", "t2w", "t2f")
"""Channel order of every image: native T1, contrast-enhanced T1, T2-weighted, T2-FLAIR."""


def region_mask(labels: npt.NDArray[np.integer], region: str) -> npt.NDArray[np.bool_]:
    """Boolean mask of ``region`` ("ET", "TC", "WT" or "RC") in a label map of any shape.

    An empty label map gives an empty mask. Raises ``KeyError`` for an unknown region.
    """
    values = (LABELS["rc"],) if region == RESECTION_CAVITY else REGIONS[region]
    return np.isin(labels, values)
