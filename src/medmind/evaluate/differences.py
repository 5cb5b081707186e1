"""One figure of two models on the same items: the paired difference, what it could show, and a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from medmind.core.errors import DataError
from medmind.core.types import Comparison, Verdict
from medmind.evaluate.metrics.intervals import Numbers, Z, percentiles, resampled_ratios
from medmind.evaluate.metrics.loss import ItemLoss
from medmind.evaluate.metrics.paired import (
    Z_POWER,
    bootstrap_p,
    bootstrap_shares,
    mid_p,
    newcombe,
    power,
    smallest_detectable,
    unnoticed,
)

REFERENCE_DIFFERENCE = 0.05
"""The power is told for this: five points, or 0.05 of another figure's unit."""
LEVEL = 0.05
FEWEST = 6
"""Items that differ which "better" and "worse" need of a mean: five, all of one sign, are chance once in sixteen."""
MANY = 30
"""Items that differ from which on the interval of a mean is taken at its word."""
SAME = 1e-4
"""So far apart an item's figures do not differ: as much may hang on the batch they were computed in."""


@dataclass(frozen=True)
class Ratio:
    """Sums over items whose quotient is the figure: nats over tokens, unsupported sentences over all."""

    above: Sequence[float]
    below: Sequence[float]

    @property
    def value(self) -> float:
        return sum(self.above) / sum(self.below)


def compare_shares(
    suite: str, metric: str, base: Sequence[bool], tuned: Sequence[bool], margin: float, seed: int = 0
) -> Comparison:
    """Right or wrong, item by item. Better and worse need McNemar and the interval to agree."""
    pairs = list(zip(base, tuned, strict=True))
    both, gained = pairs.count((True, True)), pairs.count((False, True))
    lost, neither = pairs.count((True, False)), pairs.count((False, False))
    n = len(pairs)
    low, high = newcombe(both, gained, lost, neither)
    p_value, discordance = mid_p(gained, lost), (gained + lost) / n
    bootstrap_low, bootstrap_high = bootstrap_shares(gained, lost, n, seed)
    return Comparison(
        suite=suite,
        metric=metric,
        n=n,
        base=sum(base) / n,
        tuned=sum(tuned) / n,
        difference=(gained - lost) / n,
        low=low,
        high=high,
        lower_is_better=False,
        gained=gained,
        lost=lost,
        discordance=discordance,
        p_value=p_value,
        power=power(n, discordance, REFERENCE_DIFFERENCE),
        power_for=REFERENCE_DIFFERENCE,
        smallest_detectable=smallest_detectable(n, discordance),
        verdict=judge(low, high, margin, shown=p_value < LEVEL, enough=would_show(n, max(lost - gained, 0), margin)),
        margin=margin,
        bootstrap_low=bootstrap_low,
        bootstrap_high=bootstrap_high,
    )


def compare_losses(
    suite: str, base: Sequence[ItemLoss], tuned: Sequence[ItemLoss], margin: float, seed: int
) -> Comparison:
    """Nats per gold token; both models' losses of an item are drawn together."""
    if not base or [(row.id, row.tokens) for row in base] != [(row.id, row.tokens) for row in tuned]:
        raise DataError(f"base and tuned have no losses of the same items in suite {suite}", todo="evaluate both again")
    tokens = [row.tokens for row in base]
    old, new = Ratio([row.nats for row in base], tokens), Ratio([row.nats for row in tuned], tokens)
    return compare_ratios(suite, "heldout_loss", old, new, margin, seed, lower_is_better=True)


def compare_ratios(
    suite: str, metric: str, base: Ratio, tuned: Ratio, margin: float, seed: int, *, lower_is_better: bool
) -> Comparison:
    """Any figure that is a sum over a sum (a mean over ones); the interval resamples items, both models' together.

    The p-value is never below the sign test's least for so many items that differ.
    """
    n = len(base.above)
    changed = count_changed(base, tuned)
    old, new = (resampled_ratios(side.above, side.below, seed) for side in (base, tuned))
    draws: Numbers = new - old
    low, high = percentiles(draws)
    error = float(np.std(draws))
    better = (-high, -low) if lower_is_better else (low, high)
    return Comparison(
        suite=suite,
        metric=metric,
        n=n,
        base=base.value,
        tuned=tuned.value,
        difference=tuned.value - base.value,
        low=low,
        high=high,
        lower_is_better=lower_is_better,
        gained=None,
        lost=None,
        discordance=None,
        p_value=max(bootstrap_p(draws), min(1.0, 0.5 ** (changed - 1))),
        power=NormalDist().cdf(REFERENCE_DIFFERENCE / error - Z) if error else power(n, 0.0, REFERENCE_DIFFERENCE),
        power_for=REFERENCE_DIFFERENCE,
        smallest_detectable=(Z + Z_POWER) * error if error else None,
        verdict=judge(*better, margin, shown=changed >= FEWEST, enough=changed >= MANY or would_show(n, 0, margin)),
        margin=margin,
        bootstrap_low=low,
        bootstrap_high=high,
    )


def count_changed(base: Ratio, tuned: Ratio) -> int:
    """Items whose own figure is another one."""
    old, new = (np.divide(side.above, side.below) for side in (base, tuned))
    return int((np.abs(new - old) > SAME).sum())


def judge(low: float, high: float, margin: float, *, shown: bool = True, enough: bool = True) -> Verdict:
    """From the interval of an improvement; not `shown`: a test beside it found no difference, not `enough`: too few
    items speak for "no worse".
    """
    if shown and low > 0:
        return "better"
    if shown and high < 0:
        return "worse"
    return "no worse" if low > -margin and enough else "cannot tell"


def would_show(n: int, lost: int, margin: float) -> bool:
    """Whether so many items would have shown a loss of one whole unit in a margin's share of all; `lost`, net, did.

    An interval speaks of what it has seen: of items that are all equal it has no width.
    """
    return unnoticed(n, lost, margin) <= LEVEL / 2
