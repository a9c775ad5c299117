"""How far two scans of an unchanged lesion differ in volume: the limits within which a change means nothing.

The limits of agreement of Bland and Altman (Lancet 1986, doi:10.1016/S0140-6736(86)90837-8) of the logarithm of the
volume, mean difference 0 by design (the two scans of a pair have no order): 1.96 times the standard deviation of the
differences. ``benchmarks/follow_up.py repeatability`` takes them on phantoms that were scanned twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Repeatability:
    """``limits``: by size, the largest volume (mm3) of a class and the factor by which volumes may differ there.

    The last class has no end. ``source``: where the limits are from, in words.
    """

    limits: tuple[tuple[float, float], ...]
    source: str

    @classmethod
    def of_percent(cls, percent: float) -> Repeatability:
        """One limit for all sizes: ``percent`` of 30 calls a factor up to 1.3, either way, no change.

        Raises ``ValueError`` for a percentage that is not above 0 and finite.
        """
        if not 0 < percent < math.inf:
            raise ValueError(f"--repeatability: {percent:g} must be a percentage above 0")
        return cls(((math.inf, 1 + percent / 100),), f"given: {percent:g}%")

    def factor(self, volume_mm3: float) -> float:
        """By which factor two volumes may differ where the geometric mean of both is ``volume_mm3``."""
        return next((factor for most, factor in self.limits if volume_mm3 <= most), self.limits[-1][1])

    def within(self, one_mm3: float, other_mm3: float) -> bool:
        """Whether two volumes differ by no more than their measurement error; never where one of them is 0.

        A factor of exactly the limit is within it, but for a millionth.
        """
        if one_mm3 == 0 or other_mm3 == 0:
            return one_mm3 == other_mm3
        factor = self.factor(math.sqrt(one_mm3 * other_mm3))
        return abs(math.log(other_mm3 / one_mm3)) <= math.log(factor) * (1 + 1e-6)


DECLARED = Repeatability(
    ((500.0, 2.95), (math.inf, 1.55)),
    "measured on phantoms at 3 mm that were scanned twice, with the demonstration's model (150 lesions of 40 "
    "phantoms, benchmarks/results/follow_up.md), rounded outwards; it holds for no other model, scanner or patient: "
    "measure your own and give it",
)
"""Of ``brainmets follow``, where nothing else is given; the classes above 500 mm3 gave the same and are one."""
