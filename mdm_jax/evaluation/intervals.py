"""Confidence intervals of shares and means."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Z_95 = 1.959963984540054


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """The Wilson score interval of a share, 95%; (0, 1) without trials.

    A trial may also count as a part, from 0 to 1. The interval is then wider than it need be.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if trials == 0:
        return 0.0, 1.0
    share, z = successes / trials, Z_95
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half


def mean_interval(values: Sequence[float] | NDArray[np.floating]) -> tuple[float, float]:
    """Student's 95% interval of a mean of independent values. For one value, both ends are the value."""
    array = np.asarray(values, np.float64)
    error = 0.0
    if len(array) > 1:
        error = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return float(array.mean() - error), float(array.mean() + error)


def grouped_interval(values: NDArray[np.floating], groups: Sequence[Hashable]) -> tuple[float, float]:
    """The 95% interval of a mean of scores from 0 to 1, of which only those of different groups are independent.

    Without two of one group: Wilson's for scores of 0 and 1, and Student's for others. Else that of `ratio_interval`.
    """
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    if len(number) == len(values):
        is_share = bool(np.isin(values, (0.0, 1.0)).all())
        return wilson(int(values.sum()), len(values)) if is_share else mean_interval(values)
    of = [number[group] for group in groups]
    _, low, high = ratio_interval(np.bincount(of, values), np.bincount(of))
    return max(low, 0.0), min(high, 1.0)


def paired_interval(differences: Sequence[float] | NDArray[np.floating]) -> tuple[float, float]:
    """The 95% interval of a mean difference of two scores, each from 0 to 1, of the same records.

    The normal interval with two records more, of which each score has one alone. So it has a width where the scores
    never differ. Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data".
    """
    array = np.append(np.asarray(differences, np.float64), [1, -1])
    error = Z_95 * array.std() / math.sqrt(len(array))
    return max(float(array.mean() - error), -1.0), min(float(array.mean() + error), 1.0)


def ratio_interval(
    values: Sequence[float] | NDArray[np.number], weights: Sequence[float] | NDArray[np.number]
) -> tuple[float, float, float]:
    """Σ values / Σ weights of independent pairs, and the ends of its 95% interval (Student's), by linearisation."""
    array, sizes = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    ratio = float(array.sum() / sizes.sum())
    low, high = mean_interval((array - ratio * sizes) / sizes.mean())
    return ratio, ratio + low, ratio + high
