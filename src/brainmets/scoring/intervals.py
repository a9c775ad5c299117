"""Intervals that count patients: not their lesions, scans or ratings, which are alike within a patient.

Every function takes one number per patient, so that a caller first sums what belongs to one (``sums_by``). Sources:
the mean, the linearised variance of a ratio with t quantiles, Cochran, Sampling Techniques, 3rd ed. (1977), chapter 6;
a share, Korn and Graubard, Survey Methodology 24 (1998) 193-201, on Clopper and Pearson, Biometrika 26 (1934) 404-413;
the effective number of clusters, Kish, Survey Sampling (1965); a rate, the same idea on Garwood, Biometrika 28 (1936)
437-442, with the dispersion of McCullagh and Nelder, Generalized Linear Models, 2nd ed. (1989), section 6.2; the
jackknife, Miller, Biometrika 61 (1974) 1-15; the variance of an area under the curve, DeLong et al., Biometrics 44
(1988) 837-845. How often each covers is measured in docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
NO_INTERVAL: Interval = (math.nan, math.nan)


def patients_of(cases: Iterable[str], patients: Mapping[str, str]) -> list[str]:
    """The patient of each of ``cases``. Without any ``patients`` (case to patient) every case is its own.

    Raises ``ValueError`` for a case that a mapping lacks: it would count as one more patient in silence.

    >>> patients_of(["a1", "a2", "b"], {"a1": "a", "a2": "a", "b": "b"})
    ['a', 'a', 'b']
    """
    names = [str(case) for case in cases]
    if patients and (unknown := sorted(set(names) - set(patients))):
        raise ValueError(
            f"patients: nothing says whose scan {', '.join(unknown)} is; name every case's patient, or none"
        )
    return [patients.get(name, name) for name in names]


def sums_by(patients: Sequence[str], values: npt.ArrayLike) -> Floats:
    """The sum of each patient's ``values`` (one value per entry of ``patients``), patients by alphabet."""
    _, place = np.unique(np.asarray(patients, str), return_inverse=True)
    return np.bincount(place, weights=np.asarray(values, float)).astype(np.float64)


def mean_interval(sums: Floats, counts: Floats, confidence: float) -> Interval:
    """Interval of a mean by t, over all values, from each patient's sum and number of values; NaN for one patient.

    With one value per patient it is the textbook interval, mean -+ t sd / sqrt(n).
    """
    if len(sums) < 2:
        return NO_INTERVAL
    mean, error = _ratio(sums, counts)
    half = float(stats.t.ppf((1 + confidence) / 2, len(sums) - 1)) * error
    return mean - half, mean + half


def share_interval(found: Floats, of: Floats, confidence: float) -> Interval:
    """Interval of a share of lesions, from each patient's lesions found and its lesions (some may have none).

    Clopper and Pearson's, for as many independent lesions as would be as informative: the lesions over their design
    effect (never fewer than 1), and less for the few patients that the design effect is estimated from, by the ratio
    of the normal to the t quantile, squared. The t quantile has the effective number of patients, (sum n)^2 / sum n^2,
    less one degrees of freedom. Where all lesions were found, or none, no design effect can be seen and it counts as
    1. The lesions of one patient alone leave everything open, as no lesion does: 0 to 1.

    >>> found, of = np.array([3.0, 0, 2, 1, 4, 2, 0, 3]), np.array([3.0, 3, 2, 2, 4, 2, 1, 3])
    >>> [round(bound, 3) for bound in share_interval(found, of, 0.95)]  # 15 of 20; independent ones: 0.509 to 0.913
    [0.245, 0.988]
    """
    found, of = found[of > 0], of[of > 0]
    if len(of) < 2:
        return 0.0, 1.0
    share, error = _ratio(found, of)
    return share_interval_of(share, error, of, confidence)


def share_interval_of(share: float, error: float, of: Floats, confidence: float) -> Interval:
    """The same from a share's own standard error between patients, whatever it was estimated by (a bootstrap, say)."""
    of = of[of > 0]
    if len(of) < 2:
        return 0.0, 1.0
    lesions = float(of.sum())
    effect = max(1.0, lesions * error**2 / (share * (1 - share))) if 0 < share < 1 else 1.0
    independent = lesions / effect / _price_of_few(lesions**2 / float((of**2).sum()) - 1, confidence)
    return clopper_pearson(share * independent, independent, confidence)


def rate_interval(events: Floats, scans: Floats, confidence: float) -> Interval:
    """Interval of the number of events per scan, from each patient's events and scans.

    Garwood's, for the events over their dispersion (variance between patients over what Poisson's law would give,
    never fewer than 1), and less for the few patients that the dispersion is estimated from, as in ``share_interval``.
    Without an event no dispersion can be seen and it counts as 1. One patient alone leaves everything above open.
    """
    if len(events) < 2:
        return 0.0, math.inf
    rate, error = _ratio(events, scans)
    n = float(scans.sum())
    scale = max(1.0, n * error**2 / rate) if rate > 0 else 1.0
    scale *= _price_of_few(len(events) - 1, confidence)
    low, high = garwood(float(events.sum()) / scale, confidence)
    return low * scale / n, high * scale / n


def auroc_of_patients(with_it: Floats, without: Floats, confidence: float) -> tuple[float, Interval]:
    """Area under the ROC curve of scores of patients with and without a finding, and its interval.

    The area is the share of pairs in which the patient with it scores higher, ties counting one half; scores may be
    infinite. Clopper and Pearson's interval for as many patients as DeLong's variance is that of, no more than there
    are; where it is 0 (no pair is out of order, say), the smaller group's number. DeLong's own normal interval falls
    far short of its level with few patients (docs/statistics.md). Each score is a patient's own; several values a
    patient are ``statistics.tests.clustered_auroc_interval``'s. NaN without a patient on either side; 0 to 1 for one
    of either.

    >>> area, interval = auroc_of_patients(np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.4]), 0.95)
    >>> round(area, 3), [round(bound, 2) for bound in interval]  # 5.5 of 6 pairs
    (0.917, [0.39, 1.0])
    """
    if not len(with_it) or not len(without):
        return math.nan, NO_INTERVAL
    pairs = (with_it[:, None] > without).astype(float) + (with_it[:, None] == without) / 2
    area = float(pairs.mean())
    if min(pairs.shape) < 2:
        return area, (0.0, 1.0)
    variance = sum(float(pairs.mean(axis=1 - side).var(ddof=1)) / n for side, n in enumerate(pairs.shape))
    n = min(area * (1 - area) / variance, float(sum(pairs.shape))) if variance > 0 else float(min(pairs.shape))
    return area, clopper_pearson(area * n, n, confidence)


def jackknife_error(left_out: Floats) -> float:
    """Standard error of a statistic, from its values with each patient left out in turn."""
    n = len(left_out)
    return math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))


def clopper_pearson(successes: float, n: float, confidence: float) -> Interval:
    """Exact interval of a share; 0 to 1 for n = 0. Neither number need be whole.

    >>> [round(bound, 3) for bound in clopper_pearson(8, 10, 0.95)]
    [0.444, 0.975]
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes: {successes} must lie between 0 and n = {n}")
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def garwood(count: float, confidence: float) -> Interval:
    """Exact interval of a Poisson mean, given one count, which need not be whole."""
    tail = (1 - confidence) / 2
    low = float(stats.chi2.ppf(tail, 2 * count)) / 2 if count > 0 else 0.0
    return low, float(stats.chi2.ppf(1 - tail, 2 * count + 2)) / 2


def _ratio(sums: Floats, counts: Floats) -> tuple[float, float]:
    """Sum of sums over sum of counts, and its standard error between (at least two) patients."""
    n, total = len(sums), float(counts.sum())
    ratio = float(sums.sum()) / total
    squares = float(((sums - ratio * counts) ** 2).sum())
    return ratio, math.sqrt(n / (n - 1) * squares) / total


def _price_of_few(freedom: float, confidence: float) -> float:
    """(t / z)^2: how many times more independent values t's interval asks for than the normal one."""
    level = (1 + confidence) / 2
    return float(stats.t.ppf(level, freedom) / stats.norm.ppf(level)) ** 2 if freedom > 0 else math.inf
