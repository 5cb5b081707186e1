"""Two models on the same items: the paired statistics, each small enough to check by hand."""

from fractions import Fraction
from math import comb, sqrt
from statistics import NormalDist

from medmind.evaluate.metrics.intervals import Z, wilson

Z_POWER = NormalDist().inv_cdf(0.8)


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
    """The chance that n items show a true difference at 5 % (Connor 1987, the normal approximation)."""
    discordance = max(discordance, difference)
    spread = sqrt(discordance - difference**2)
    return NormalDist().cdf((difference * sqrt(n) - Z * sqrt(discordance)) / spread) if spread else 1.0


def smallest_detectable(n: int, discordance: float) -> float | None:
    """The true difference that n items with this discordance show with 80 % power; None if none can be."""
    if discordance == 0 or power(n, discordance, discordance) < 0.8:
        return None
    low, high = 0.0, discordance
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power(n, discordance, middle) < 0.8 else (low, middle)
    return high
