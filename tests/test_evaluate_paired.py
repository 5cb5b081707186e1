"""Statistics against published examples and values worked out by hand."""

from math import comb

import numpy as np
import pytest

from medmind.evaluate.compare import PRIMARY
from medmind.evaluate.differences import judge, would_show
from medmind.evaluate.metrics.intervals import mean, ratio, share, wilson
from medmind.evaluate.metrics.paired import binomial, mid_p, newcombe, power, smallest_detectable, unnoticed
from medmind.prompts.tasks.known import TASKS


def test_wilson_as_published() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson(200, 200) == (pytest.approx(0.9812, abs=5e-5), 1.0)


def test_mcnemar_mid_p_as_published() -> None:
    # Bentur et al. 2009 in Fagerland, Lydersen, Laake, BMC Med Res Methodol 13 (2013) 91: 1 against 7, mid-p 0.0391.
    assert mid_p(7, 1) == mid_p(1, 7) == pytest.approx(0.0391, abs=5e-5)
    assert mid_p(0, 0) == 1.0
    assert mid_p(1, 0) == pytest.approx(0.5)  # exact 2 · 1/2, less the table's own 1/2
    assert mid_p(1, 1) == pytest.approx(0.75)  # 1 − ½ · P(1 of 2) = 1 − ½ · ½
    assert mid_p(6, 0) == pytest.approx(1 / 64)
    assert 0 < mid_p(600, 900) < 1e-12  # large counts neither overflow nor vanish


def test_newcombe_as_published() -> None:
    # The same 21 children: 1 both, 1 before only, 7 after only, 12 neither; −0.507 to −0.026 for before minus after.
    assert newcombe(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=6e-4)
    assert newcombe(1, 7, 1, 12) == pytest.approx((0.026, 0.507), abs=6e-4)


def test_newcombe_at_the_edges() -> None:
    low, high = newcombe(0, 50, 0, 0)
    assert 0.8 < low < high == 1.0
    low, high = newcombe(50, 0, 0, 0)
    assert low == -high < 0


def test_sample_sizes_for_eighty_percent_power() -> None:
    # evaluation.md §4: pairs needed for five points at a discordance of .10, .15, .20, .30.
    for discordance, n in ((0.10, 312), (0.15, 469), (0.20, 626), (0.30, 940)):
        assert power(n, discordance, 0.05) == pytest.approx(0.8, abs=0.011)
        assert smallest_detectable(n, discordance) == pytest.approx(0.05, abs=6e-4)
    assert smallest_detectable(100, 0.15) == pytest.approx(0.107, abs=5e-3)
    assert smallest_detectable(100, 0.30) == pytest.approx(0.152, abs=2e-3)


def test_power_of_few_items_is_what_many_trials_find() -> None:
    # Where the normal approximation says 0.35: five or more of fifty must change, all of them gained.
    none_lost = 1 - sum(comb(50, gained) * 0.05**gained * 0.95 ** (50 - gained) for gained in range(5))
    assert power(50, 0.0, 0.05) == pytest.approx(none_lost)
    draw = np.random.default_rng(0)
    trials = draw.multinomial(30, [0.3, 0.1, 0.6], size=4000)
    shown = sum(mid_p(int(gained), int(lost)) < 0.05 for gained, lost, _ in trials) / len(trials)
    assert power(30, 0.4, 0.2) == pytest.approx(shown, abs=0.025)


def test_without_discordance_nothing_can_be_detected() -> None:
    assert smallest_detectable(100, 0.0) is None
    assert smallest_detectable(10, 0.1) is None
    assert 0 < power(100, 0.0, 0.05) < 1
    assert power(100, 1.0, 1.0) == 1.0


def test_what_goes_unnoticed_as_published() -> None:
    # Hanley, Lippman-Hand, JAMA 249 (1983) 1743, the rule of three: none of 300 lets 1 % be lost, at 95 %.
    assert unnoticed(300, 0, 0.01) == pytest.approx(0.05, abs=2e-3)
    # Clopper and Pearson's upper bounds (one-sided 97.5 %): 1 of 10 44.50 %, 2 of 50 13.71 %.
    assert unnoticed(10, 1, 0.4450) == pytest.approx(0.025, abs=1e-4)
    assert unnoticed(50, 2, 0.1371) == pytest.approx(0.025, abs=1e-4)
    assert unnoticed(5, 0, 1.0) == unnoticed(5, 0, 2.0) == 0.0  # a margin in nats may be more than one


@pytest.mark.parametrize("n", [100, 200, 300])
def test_no_worse_is_seldom_said_of_what_is_worse_by_the_margin(n: int) -> None:
    """Every table that so many items can make, at 2 points truly lost: said of 1 in 26 at most (2.5 % is meant)."""
    for changes in (0.02, 0.03, 0.06):
        wrong = 0.0
        for changed, weight in enumerate(binomial(n, changes)[:30]):
            lost_share = (changes + 0.02) / 2 / changes
            for lost, chance in enumerate(binomial(changed, lost_share)):
                gained, same = changed - lost, n - changed
                low, high = newcombe(same // 2, gained, lost, same - same // 2)
                enough = would_show(n, max(lost - gained, 0), 0.02)
                said = judge(low, high, 0.02, shown=False, enough=enough)
                wrong += float(weight * chance) * (said == "no worse")
        assert wrong < 0.039


def test_share_mean_and_ratio_carry_their_n() -> None:
    found = share([True, True, False, False])
    assert (found.value, found.n) == (0.5, 4)
    assert found.low == pytest.approx(1 - found.high)
    assert mean([3.0] * 5, seed=0).model_dump() == {"value": 3.0, "low": 3.0, "high": 3.0, "n": 5}
    found = ratio([10.0, 0.0], [1, 9], seed=0)
    assert (found.value, found.low, found.high) == (1.0, 0.0, 10.0)


def test_the_bootstrap_is_seeded_and_close_to_theory() -> None:
    values = [float(place % 2) for place in range(400)]
    found = mean(values, seed=1)
    assert found == mean(values, seed=1)
    assert found != mean(values, seed=2)
    assert (found.low, found.high) == (pytest.approx(0.451, abs=0.008), pytest.approx(0.549, abs=0.008))


def test_every_task_that_is_asked_has_a_metric_that_decides() -> None:
    assert set(PRIMARY) == set(TASKS)
