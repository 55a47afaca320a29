import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from featdiff.stats import (
    DETECTABLE,
    POWER,
    Direction,
    Flips,
    Interval,
    Verdict,
    benjamini_hochberg,
    difference_interval,
    difference_of,
    empirical_p,
    exact_mcnemar,
    holm,
    largest_p,
    mean_of,
    minimum_detectable_effect,
    paired_bootstrap,
    stratified_bootstrap,
    verdict,
    wilson_interval,
)

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


def flips(lost: int, gained: int, same: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes before and after, with so many items lost, gained and unchanged."""
    before = np.array([True] * lost + [False] * gained + [index % 2 == 0 for index in range(same)])
    after = np.array([False] * lost + [True] * gained + [index % 2 == 0 for index in range(same)])
    return before, after


def correlated(rng: np.random.Generator, n: int, accuracies: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of two models that find the same items hard."""
    shared, noise = rng.normal(size=n), rng.normal(size=(2, n))
    limits = [math.sqrt(2) * np.quantile(rng.normal(size=200_000), accuracy) for accuracy in accuracies]
    return shared + noise[0] < limits[0], shared + noise[1] < limits[1]


def test_wilson_by_hand() -> None:
    # 1 of 4, z = 1.96: (1/4 + z^2/8) / (1 + z^2/4) -+ z / (1 + z^2/4) sqrt(3/64 + z^2/64), which is 0.3724 -+ 0.3269
    interval = wilson_interval(1, 4, confidence=0.95)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.25, 0.0456, 0.6994), abs=1e-4)
    z2 = 1.959964**2
    assert wilson_interval(0, 10, confidence=0.95).high == pytest.approx(z2 / (10 + z2), abs=1e-6)
    # Successes may be fractions: 1.5 of 4 gives (3/8 + z^2/8) / (1 + z^2/4) -+ z / (1 + z^2/4) sqrt(15/256 + z^2/64)
    half = wilson_interval(1.5, 4, confidence=0.95)
    centre, width = (3 / 8 + z2 / 8) / (1 + z2 / 4), math.sqrt(z2) / (1 + z2 / 4) * math.sqrt(15 / 256 + z2 / 64)
    assert (half.low, half.high) == pytest.approx((centre - width, centre + width), abs=1e-6)


@given(st.integers(1, 300), st.data())
def test_wilson_is_that_of_scipy_and_mirrors_successes(n: int, data: st.DataObject) -> None:
    successes, confidence = data.draw(st.integers(0, n)), data.draw(st.sampled_from([0.8, 0.95, 0.99]))
    interval = wilson_interval(successes, n, confidence=confidence)
    other = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((other.low, other.high), abs=1e-12)
    mirrored = wilson_interval(n - successes, n, confidence=confidence)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_wilson_of_no_items_says_nothing_and_of_impossible_counts_is_refused() -> None:
    interval = wilson_interval(0, 0, confidence=0.95)
    assert math.isnan(interval.value)
    assert (interval.low, interval.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 successes among 4"):
        wilson_interval(5, 4, confidence=0.95)
    with pytest.raises(ValueError, match="confidence of 95"):
        wilson_interval(1, 4, confidence=95)


@pytest.mark.parametrize("accuracies", [(0.5, 0.5), (0.3, 0.6), (0.9, 0.95)])
def test_the_difference_interval_covers_the_truth_as_often_as_it_says(accuracies: tuple[float, float]) -> None:
    rng, covered, draws = np.random.default_rng(0), 0, 400
    before, after = correlated(rng, 200 * draws, accuracies)
    for part_before, part_after in zip(np.split(before, draws), np.split(after, draws), strict=True):
        interval = difference_interval(part_before, part_after, confidence=0.9)
        covered += interval.low <= accuracies[1] - accuracies[0] <= interval.high
    assert 0.86 <= covered / draws <= 0.95


def test_the_difference_interval_is_nearly_the_bootstrap_and_turns_with_the_models() -> None:
    before, after = correlated(np.random.default_rng(1), 2000, (0.4, 0.6))
    interval = difference_interval(before, after, confidence=0.95)
    resampled = paired_bootstrap(before, after, resamples=20_000, confidence=0.95, seed=0)
    assert (interval.low, interval.high) == pytest.approx((resampled.low, resampled.high), abs=2e-3)
    back = difference_interval(after, before, confidence=0.95)
    assert (-back.high, -back.low, -back.value) == pytest.approx((interval.low, interval.high, interval.value))


def test_the_difference_interval_of_equal_models_has_a_width() -> None:
    right = np.ones(50, dtype=bool)
    interval = difference_interval(right, right, confidence=0.95)
    assert interval.value == 0.0
    assert interval.low < -0.05 and interval.high > 0.05


def test_the_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng, covered, draws = np.random.default_rng(2), 0, 400
    for _ in range(draws):
        change = rng.choice([-1, 0, 1], size=150, p=[0.1, 0.6, 0.3])
        interval = paired_bootstrap(change < 0, change > 0, resamples=500, confidence=0.9, seed=rng)
        covered += interval.low <= 0.2 <= interval.high
    assert 0.86 <= covered / draws <= 0.94


def test_the_bootstrap_is_that_which_draws_items() -> None:
    before, after = flips(lost=7, gained=21, same=72)
    interval = paired_bootstrap(before, after, resamples=20_000, confidence=0.95, seed=0)
    items = np.random.default_rng(1).integers(100, size=(20_000, 100))
    means = (after.astype(int) - before.astype(int))[items].mean(axis=1)
    assert interval.value == pytest.approx(0.14)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.011)


def test_the_bootstrap_follows_its_seed_and_takes_tensors() -> None:
    before, after = flips(lost=7, gained=21, same=72)
    drawn = [paired_bootstrap(before, after, resamples=999, confidence=0.9, seed=seed) for seed in (3, 3, 4)]
    tensors = torch.from_numpy(before), torch.from_numpy(after)
    assert drawn[0] == drawn[1] == paired_bootstrap(*tensors, resamples=999, confidence=0.9, seed=3)
    assert drawn[0] != drawn[2]


def test_ten_thousand_resamples_of_four_hundred_items_take_milliseconds() -> None:
    before, after = flips(lost=40, gained=120, same=240)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        paired_bootstrap(before, after, resamples=10_000, confidence=0.95, seed=0)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_a_change_of_no_items_or_of_all_is_reported_as_such() -> None:
    nothing = np.zeros(0, dtype=bool)
    empty = paired_bootstrap(nothing, nothing, resamples=10, confidence=0.95, seed=0)
    assert math.isnan(empty.value)
    assert (empty.low, empty.high) == (-1.0, 1.0)
    wrong, right = np.zeros(9, dtype=bool), np.ones(9, dtype=bool)
    whole = paired_bootstrap(wrong, right, resamples=10, confidence=0.95, seed=0)
    assert (whole.value, whole.low, whole.high) == (1.0, 1.0, 1.0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_of_scipy_and_symmetric(n01: int, n10: int) -> None:
    expected = binomtest(n01, n01 + n10).pvalue if n01 + n10 else 1.0
    assert exact_mcnemar(n01, n10) == pytest.approx(expected) == exact_mcnemar(n10, n01)


def test_mcnemar_by_hand() -> None:
    assert exact_mcnemar(5, 0) == pytest.approx(2 / 32)
    assert exact_mcnemar(6, 0) == pytest.approx(2 / 64)
    assert exact_mcnemar(1, 3) == pytest.approx(2 * (1 + 4) / 16)
    assert exact_mcnemar(4, 4) == exact_mcnemar(0, 0) == 1.0
    with pytest.raises(ValueError, match="cannot be negative"):
        exact_mcnemar(-1, 2)


def test_the_empirical_p_by_hand() -> None:
    controls = np.array([0.0, 0.1, 0.2, 0.3])
    assert empirical_p(0.2, controls, "greater") == pytest.approx(3 / 5)  # 0.2 itself counts as extreme
    assert empirical_p(0.2, controls, "less") == pytest.approx(4 / 5)
    assert empirical_p(0.9, controls, "greater") == pytest.approx(1 / 5)
    assert empirical_p(0.9, controls, "two-sided") == pytest.approx(2 / 5)
    assert empirical_p(0.15, controls, "two-sided") == 1.0
    assert empirical_p(0.9, np.zeros(0), "greater") == 1.0
    with pytest.raises(ValueError, match="not a finite number"):
        empirical_p(0.9, np.array([0.1, float("nan")]), "greater")


def test_the_empirical_p_is_uniform_when_the_selected_features_are_random_too() -> None:
    effects = np.random.default_rng(3).normal(size=(4000, 20))
    p = np.array([empirical_p(float(row[0]), row[1:], "greater") for row in effects])
    for alpha in (0.05, 0.25, 0.5):
        assert (p <= alpha + 1e-12).mean() == pytest.approx(alpha, abs=0.03)


def test_holm_and_benjamini_hochberg_by_hand() -> None:
    p = np.array([0.04, 0.01, 0.03, 0.02])
    assert holm(p) == pytest.approx(np.array([0.06, 0.04, 0.06, 0.06]))  # 4 x .01, 3 x .02, 2 x .03, then no less
    assert benjamini_hochberg(p) == pytest.approx(np.full(4, 0.04))  # .01 x 4/1, .02 x 4/2, .03 x 4/3, .04 x 4/4
    assert len(holm(np.zeros(0))) == len(benjamini_hochberg(np.zeros(0))) == 0
    with pytest.raises(ValueError, match="outside 0 to 1"):
        holm(np.array([float("nan")]))


@settings(max_examples=40)  # statsmodels takes 10 to 30 ms a call
@given(P_VALUES)
def test_adjusted_p_values_keep_their_order_and_lie_between_the_raw_and_bonferronis(p: np.ndarray) -> None:
    bonferroni, order = np.minimum(p * len(p), 1), np.argsort(p, kind="stable")
    by_holm, by_rate = holm(p), benjamini_hochberg(p)
    for adjusted in (by_holm, by_rate):
        assert (np.diff(adjusted[order]) >= -1e-12).all()
        assert (adjusted >= p - 1e-12).all() and (adjusted <= bonferroni + 1e-12).all()
    assert (by_rate <= by_holm + 1e-12).all()


def test_the_detectable_effect_by_hand_and_by_the_binomial() -> None:
    assert minimum_detectable_effect(5, confidence=0.95, power=0.8) == math.inf  # 2 / 2^5 > 0.05
    assert minimum_detectable_effect(6, confidence=0.95, power=0.8) == pytest.approx(
        0.8 ** (1 / 6)
    )  # all six must flip
    for n in (10, 40, 400):
        effect = minimum_detectable_effect(n, confidence=0.95, power=0.8)
        assert binom.sf(5, n, effect) == pytest.approx(0.8)
    sizes = [minimum_detectable_effect(n, confidence=0.95, power=0.8) for n in range(6, 60)]
    assert sizes == sorted(sizes, reverse=True)
    assert minimum_detectable_effect(6, confidence=0.99, power=0.8) == math.inf


def test_flips_are_counted_by_item() -> None:
    assert Flips.of(*flips(lost=3, gained=9, same=8)) == Flips(20, 3, 9)
    assert Flips(20, 3, 9).p == exact_mcnemar(9, 3)


def test_tasks_count_alike_and_items_are_drawn_within_them() -> None:
    """One task loses every item and a hundred times larger one none: the mean is certain, whatever items are drawn."""
    whole = stratified_bootstrap([Flips(4, 4, 0), Flips(400, 0, 0)], resamples=500, confidence=0.95, seed=0)
    assert (whole.value, whole.low, whole.high) == (-0.5, -0.5, -0.5)


def test_the_stratified_bootstrap_is_that_which_draws_items_of_every_task() -> None:
    parts = [flips(lost=5, gained=20, same=35), flips(lost=2, gained=2, same=8)]
    interval = stratified_bootstrap([Flips.of(*part) for part in parts], resamples=20_000, confidence=0.95, seed=0)
    rng, means = np.random.default_rng(1), []
    for before, after in parts:
        change = after.astype(int) - before.astype(int)
        means.append(change[rng.integers(len(change), size=(20_000, len(change)))].mean(axis=1))
    wanted = np.quantile(np.mean(means, axis=0), [0.025, 0.975])
    assert interval.value == pytest.approx((15 / 60 + 0 / 12) / 2)
    assert (interval.low, interval.high) == pytest.approx(tuple(wanted), abs=0.012)


def test_tasks_without_items_do_not_count() -> None:
    with_empty = stratified_bootstrap([Flips(0, 0, 0), Flips(9, 3, 0)], resamples=99, confidence=0.9, seed=0)
    assert with_empty == stratified_bootstrap([Flips(9, 3, 0)], resamples=99, confidence=0.9, seed=0)
    assert math.isnan(stratified_bootstrap([], resamples=9, confidence=0.9, seed=0).value)


CONTROLS = np.linspace(-0.1, 0.1, 99)
UNCLEAR = "not distinguishable from random features"


def judged(change: float, n: int, expected: Direction, *controls: np.ndarray) -> Verdict:
    """The verdict on a change of so many of n items, all one way."""
    moved = Flips(n, round(max(-change, 0) * n), round(max(change, 0) * n))
    return verdict(
        Interval(change, change - 0.1, change + 0.1, 0.95), moved, controls or (CONTROLS,), expected=expected
    )


def test_the_verdict_follows_its_rules() -> None:
    assert judged(0.4, 60, "increase") == "supported"
    assert judged(-0.4, 60, "decrease") == "supported"
    assert judged(-0.4, 60, "increase") == "opposite"
    assert judged(0.4, 60, "decrease") == "opposite"
    assert judged(0.02, 60, "increase") == UNCLEAR
    assert judged(0.4, 60, "increase", CONTROLS + 0.4) == UNCLEAR  # random features do as well
    assert judged(0.02, 60, "increase", CONTROLS - 1) == UNCLEAR  # controls alone do not make an effect


def test_every_kind_of_control_has_to_be_beaten() -> None:
    assert judged(0.4, 60, "increase", CONTROLS, CONTROLS + 0.1) == "supported"
    assert judged(0.4, 60, "increase", CONTROLS, CONTROLS + 0.4) == UNCLEAR
    assert largest_p(0.05, [np.zeros(9), np.full(9, 0.1)], "increase") == 1.0
    assert largest_p(0.05, [np.zeros(9), np.full(9, 0.1)], "decrease") == 1.0
    assert largest_p(0.2, [np.zeros(9), np.full(9, 0.1)], "increase") == pytest.approx(0.1)


def test_an_effect_needs_a_significant_change_and_is_tested_on_both_sides() -> None:
    few = Interval(0.1, 0.02, 0.18, 0.95)
    assert verdict(few, Flips(40, 1, 5), [CONTROLS - 1], expected="increase") == UNCLEAR  # McNemar: p = 0.22
    assert verdict(few, Flips(60, 0, 6), [CONTROLS - 1], expected="increase") == "supported"
    third = np.concatenate([np.full(3, 0.5), np.zeros(96)])  # p = 4 / 100, above 2.5 %
    assert judged(0.4, 60, "increase", third) == UNCLEAR
    assert judged(0.4, 60, "increase", third[2:]) == "supported"  # 2 / 98


def test_too_few_items_or_controls_are_underpowered_whatever_the_effect() -> None:
    assert judged(1.0, 5, "increase") == "underpowered"
    assert judged(0.4, 60, "increase", CONTROLS[:38]) == "underpowered"  # the smallest p is 1/39, twice that 0.051
    assert judged(0.4, 60, "increase", CONTROLS[:39]) == "supported"
    assert judged(0.4, 60, "increase", CONTROLS, CONTROLS[:9]) == "underpowered"


def test_a_null_result_on_few_items_is_underpowered_but_a_clear_one_is_not() -> None:
    few = next(n for n in range(6, 99) if minimum_detectable_effect(n, confidence=0.95, power=POWER) <= DETECTABLE)
    assert judged(0.02, few - 1, "increase") == "underpowered"
    assert judged(0.02, few, "increase") == UNCLEAR
    assert judged(0.4, few - 1, "increase") == "supported"


def test_random_features_are_rarely_supported() -> None:
    rng, supported, draws = np.random.default_rng(4), 0, 300
    for _ in range(draws):
        effects = (
            rng.binomial(80, 0.3, size=100) / 80
        )  # every feature set, the selected one too, lifts 30 % of the items
        before, after = flips(0, round(effects[0] * 80), 80 - round(effects[0] * 80))
        change = paired_bootstrap(before, after, resamples=200, confidence=0.95, seed=rng)
        found = verdict(change, Flips.of(before, after), [effects[1:]], expected="increase")
        supported += found == "supported"
    assert supported / draws <= 0.04


def test_the_mean_of_one_estimate_is_that_estimate_and_of_many_narrower() -> None:
    one = wilson_interval(30, 100, confidence=0.95)
    alone, four = mean_of([one]), mean_of([one] * 4)
    assert (alone.value, alone.low, alone.high) == pytest.approx((one.value, one.low, one.high))
    assert four.high - four.low == pytest.approx((one.high - one.low) / 2) and four.value == pytest.approx(one.value)


def test_the_interval_of_a_mean_over_tasks_covers_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(0), np.array([0.2, 0.5, 0.9])
    draws = rng.binomial(60, truth, size=(2000, 3))
    means = [mean_of([wilson_interval(int(right), 60, confidence=0.95) for right in draw]) for draw in draws]
    covered = np.mean([one.low <= truth.mean() <= one.high for one in means])
    assert 0.935 <= covered <= 0.965


def test_a_difference_turned_round_is_its_negative() -> None:
    one, other = wilson_interval(30, 100, confidence=0.95), wilson_interval(11, 40, confidence=0.95)
    there, back = difference_of(one, other), difference_of(other, one)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
