"""One model for all arms at once: value ~ strategy + arm, random intercept per case; a permutation test in its stead.

The same serves two arms (value ~ arm + strategy). Sources: Laird and Ware, Biometrics 38 (1982) 963-974 (the model,
fitted by REML in statsmodels); Fisher, The Design of Experiments (1935), chapter 3 (the permutation test of paired
differences).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from brainmets.statistics.tests import NAN, bootstrap_mean, p_of_tails
from brainmets.vocabulary import Alternative

EXACT_CASES = 16
MONTE_CARLO = 20_000


@dataclass(frozen=True)
class Contrast:
    """First minus second group: which test, how many values or cases, and the estimate with its interval."""

    test: str
    n: int
    statistic: float
    p_value: float
    estimate: float
    low: float
    high: float
    note: str


class NotFittedError(RuntimeError):
    """The mixed model has no trustworthy fit; the message says why."""


def contrast(
    table: pd.DataFrame, alternative: Alternative, alpha: float, n_bootstrap: int, random: np.random.Generator
) -> Contrast:
    """First minus second group, by the mixed model where it fits and by permutation within cases where it does not.

    ``table`` has the columns case, first (bool), other (the factor that is held constant) and value (finite). The
    result's ``test`` says which test it was; after a permutation ``note`` says why the model was not used.
    """
    try:
        return mixed_model(table, alternative, alpha)
    except NotFittedError as reason:
        return permutation(table, alternative, alpha, n_bootstrap, random, f"mixed model not used: {reason}")


def mixed_model(table: pd.DataFrame, alternative: Alternative, alpha: float) -> Contrast:
    """REML fit of value ~ first + other with a random intercept per case; the coefficient of ``first``.

    The coefficient over its standard error is referred to t with N - cases - (fixed effects without intercept)
    degrees of freedom, which is exact for a complete, balanced table. Raises ``NotFittedError`` where the optimiser
    does not converge, the variance between cases is estimated as zero, or there are no degrees of freedom.
    """
    value, first = (table[name].to_numpy(float) for name in ("value", "first"))
    others = pd.get_dummies(table["other"], drop_first=True).to_numpy(float)
    design = np.column_stack([np.ones_like(first), first, others])
    n_cases = table["case"].nunique()
    freedom = len(value) - n_cases - (design.shape[1] - 1)
    if n_cases < 2 or freedom < 1:
        raise NotFittedError(f"{len(value)} values of {n_cases} case(s) leave no degrees of freedom")
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise NotFittedError("one of the two groups has no value")
    scale = float(value.std())
    if scale == 0:
        raise NotFittedError("all values are equal")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = MixedLM((value - value.mean()) / scale, design, groups=table["case"].to_numpy()).fit(reml=True)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise NotFittedError(str(error)) from error
    estimate, error_of = float(fit.params[1]) * scale, float(fit.bse[1]) * scale
    if not fit.converged or not np.isfinite(error_of) or error_of == 0:
        raise NotFittedError("the fit did not converge")
    if float(fit.cov_re[0, 0]) < 1e-8 or any("boundary" in str(warning.message) for warning in caught):
        raise NotFittedError("the variance between cases is estimated as zero")
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        raise NotFittedError("the optimiser warns that it may not have converged")
    statistic = estimate / error_of
    half = float(stats.t.ppf(1 - alpha / 2, freedom)) * error_of
    note = f"t with {freedom} degrees of freedom"
    if np.ptp(fit.resid) > 0 and (shape := stats.shapiro(fit.resid).pvalue) < alpha:
        note += f"; residuals are not normal (Shapiro-Wilk p = {shape:.2g}): read with the paired rows"
    p_value = p_of_tails(stats.t.cdf(statistic, freedom), stats.t.sf(statistic, freedom), alternative)
    test = "mixed model with random intercept per case"
    return Contrast(test, len(value), statistic, p_value, estimate, estimate - half, estimate + half, note)


def permutation(
    table: pd.DataFrame,
    alternative: Alternative,
    alpha: float,
    n_bootstrap: int,
    random: np.random.Generator,
    reason: str,
) -> Contrast:
    """Mean over cases of the first minus second difference, tested by swapping the two groups within whole cases.

    A case's difference is the mean over the levels of ``other`` that have both values. All 2^n swaps are compared up
    to 16 cases, 20,000 random ones beyond (p = (b + 1) / (B + 1)). The interval is the BCa bootstrap's over cases.
    """
    test = "permutation within cases"
    pairs = table.pivot(index=["case", "other"], columns="first", values="value").reindex(columns=[False, True])
    per_case = (pairs[True] - pairs[False]).dropna().groupby("case").mean().to_numpy(float)
    n = len(per_case)
    if n == 0:
        return Contrast(test, 0, NAN, NAN, NAN, NAN, NAN, f"{reason}; no case has both values")
    observed = float(per_case.mean())
    if n <= EXACT_CASES:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        added, swaps = 0, f"all {2**n} swaps"
    else:
        signs = random.choice([-1, 1], (MONTE_CARLO, n))
        added, swaps = 1, f"{MONTE_CARLO} random swaps"
    means = signs @ per_case / n
    slack = 1e-12 * max(float(np.abs(per_case).max()), 1e-300)
    upper = (int((means >= observed - slack).sum()) + added) / (len(means) + added)
    lower = (int((means <= observed + slack).sum()) + added) / (len(means) + added)
    low, high, remarks = NAN, NAN, ["no spread between cases: no interval"]
    if n > 1 and np.ptp(per_case) > 0:
        low, high, remarks = bootstrap_mean(per_case, alpha, n_bootstrap, random)
    note = "; ".join([reason, swaps, *remarks])
    return Contrast(test, n, observed, p_of_tails(lower, upper, alternative), observed, low, high, note)
