"""Two models on the same items: the paired statistics, each small enough to check by hand."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import comb, log, log1p, sqrt
from statistics import NormalDist

import numpy as np

from medmind.evaluate.metrics.intervals import RESAMPLES, Numbers, percentiles, wilson

Z_POWER = NormalDist().inv_cdf(0.8)
NEGLIGIBLE = 1e-12


def mid_p(gained: int, lost: int) -> float:
    """McNemar's two-sided mid-p value (Fagerland, Lydersen, Laake 2013): exact, less half the seen table's weight."""
    changed, fewer = gained + lost, min(gained, lost)
    if changed == 0:
        return 1.0
    below = sum(comb(changed, count) for count in range(fewer))
    tail = comb(changed, fewer) if gained != lost else Fraction(comb(changed, fewer), 2)
    return float(Fraction(2 * below + tail) / 2**changed)


def newcombe(both: int, gained: int, lost: int, neither: int) -> tuple[float, float]:
    """Newcombe's interval of a paired difference of shares (method 10, 1998), gained minus lost over n."""
    n = both + gained + lost + neither
    new, old = both + gained, both + lost
    (low_new, high_new), (low_old, high_old) = wilson(new, n), wilson(old, n)
    new_share, old_share = new / n, old / n
    margins = new * (n - new) * old * (n - old)
    excess = both * neither - gained * lost
    corrected = max(excess - n / 2, 0.0) if excess > 0 else float(excess)
    phi = corrected / sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))

    difference = new_share - old_share
    low = difference - reach(new_share - low_new, high_old - old_share)
    high = difference + reach(high_new - new_share, old_share - low_old)
    return low, high


def power(n: int, discordance: float, difference: float) -> float:
    """The chance that n items show a true difference by a mid-p below 5 %: exact, since few items defy the normal
    approximation. It sums over how many items change and how many of these are lost.
    """
    discordance = max(discordance, difference)
    losing = (discordance - difference) / (2 * discordance)
    found = 0.0
    for changed, weight in enumerate(binomial(n, discordance)):
        if weight > NEGLIGIBLE:
            extreme = slice(most_lost(changed) + 1)
            lost, gained = binomial(changed, losing)[extreme], binomial(changed, 1 - losing)[extreme]
            found += float(weight * (lost.sum() + gained.sum()))
    return found


@cache
def most_lost(changed: int) -> int:
    """The largest smaller count for which mid_p is below 5 %; -1 if there is none."""
    below, fewer = 0, 0
    while fewer <= changed // 2 and 20 * (2 * below + comb(changed, fewer)) < 2**changed:
        below += comb(changed, fewer)
        fewer += 1
    return fewer - 1


def binomial(n: int, share: float) -> Numbers:
    """The chances of 0, 1, … n."""
    counts = np.arange(n + 1)
    if share in (0.0, 1.0):
        sure: Numbers = (counts == n * share).astype(np.float64)
        return sure
    factorials = np.concatenate(([0.0], np.cumsum(np.log(counts[1:]))))
    ways = factorials[n] - factorials - factorials[::-1]
    chances: Numbers = np.exp(ways + counts * log(share) + (n - counts) * log1p(-share))
    return chances


def smallest_detectable(n: int, discordance: float) -> float | None:
    """The true difference that n items with this discordance show with 80 % power; None if none can be."""
    if discordance == 0 or power(n, discordance, discordance) < 0.8:
        return None
    low, high = 0.0, discordance
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if power(n, discordance, middle) < 0.8 else (low, middle)
    return high


def unnoticed(n: int, lost: int, share: float) -> float:
    """The chance that at most `lost` of n items are lost where this share of all is, and none gained.

    Of none lost it is (1 - share)^n: the rule of three (Hanley, Lippman-Hand 1983), read the other way round.
    """
    return float(binomial(n, min(share, 1.0))[: lost + 1].sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the order given: the chance of any false finding stays below the level."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def bootstrap_p(draws: Numbers) -> float:
    """Two-sided, of a difference resampled: below 5 % just where the percentile interval leaves nought out.

    Never below 2 / (draws + 1), which is all so many draws can show.
    """
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(draws) + 1))


def bootstrap_shares(gained: int, lost: int, n: int, seed: int) -> tuple[float, float]:
    """The percentile interval of a paired difference of shares, items resampled."""
    same = n - gained - lost
    drawn = np.random.default_rng(seed).multinomial(n, [gained / n, lost / n, same / n], size=RESAMPLES)
    return percentiles((drawn[:, 0] - drawn[:, 1]) / n)
