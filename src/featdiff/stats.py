"""Intervals, tests and the verdict on an intervention (paired outcomes on the same items).

1. An accuracy has a Wilson interval; a difference of accuracies on the same items has Newcombe's.
2. Two models on the same items are compared by the exact McNemar test, which looks only at items on which they differ.
3. The mean change that an edit makes has a bootstrap interval over items, drawn within each of several tasks.
4. The edit is compared with random feature sets: p = (1 + controls at least as extreme) / (1 + controls).
5. `verdict` puts 2, 3 and 4 together by fixed rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta, binomtest, false_discovery_control
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

Correct = Bool[Tensor, " samples"] | Bool[np.ndarray, " samples"]
Direction = Literal["increase", "decrease"]
Draws = Float[np.ndarray, " _"]
"""One value for each draw of a control; kinds of control need not have been drawn equally often."""
Verdict = Literal["supported", "not distinguishable from random features", "underpowered", "opposite"]

POWER = 0.8
"""Probability of detection that `minimum_detectable_effect` is quoted at in a verdict."""
DETECTABLE = 0.25
"""A null result counts as one only if a change of this share of the items would have been found."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval [low, high]; `value` is nan where there are no items."""

    value: float
    low: float
    high: float
    confidence: float


def wilson_interval(successes: float, n: int, *, confidence: float) -> Interval:
    """Wilson's score interval of a share; [0, 1] when n is 0. Successes may be fractions: means over repetitions.

    Raises ValueError unless 0 <= successes <= n and 0 < confidence < 1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"found {successes} successes among {n} items; they must lie between 0 and n")
    if not 0 < confidence < 1:
        raise ValueError(f"found a confidence of {confidence}; it must lie between 0 and 1, for example 0.95")
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, confidence)
    bounds = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    low, high = np.asarray(bounds, dtype=float).tolist()
    # Rounding may leave the bound of a share of 0 or 1 off by 1e-17.
    return Interval(successes / n, 0.0 if successes == 0 else low, 1.0 if successes == n else high, confidence)


def difference_interval(before: Correct, after: Correct, *, confidence: float) -> Interval:
    """Interval of accuracy(after) - accuracy(before) of two models on the same items (Newcombe 1998, method 10).

    Built from the two Wilson intervals and the correlation of the pairs, so that it keeps a width where the bootstrap
    collapses (all items alike). Items missing altogether: [-1, 1].
    """
    first, second = _pair(before, after)
    n = len(first)
    if n == 0:
        return Interval(float("nan"), -1.0, 1.0, confidence)
    old = wilson_interval(int(first.sum()), n, confidence=confidence)
    new = wilson_interval(int(second.sum()), n, confidence=confidence)
    phi = _correlation(first, second)
    change = new.value - old.value
    fall, rise = new.value - new.low, new.high - new.value
    old_fall, old_rise = old.value - old.low, old.high - old.value
    low = change - np.sqrt(max(fall**2 - 2 * phi * fall * old_rise + old_rise**2, 0.0))
    high = change + np.sqrt(max(rise**2 - 2 * phi * rise * old_fall + old_fall**2, 0.0))
    return Interval(change, float(low), float(high), confidence)


def difference_of(before: Interval, after: Interval) -> Interval:
    """after - before of two independent estimates: their distances to the bounds are squared and added (Newcombe)."""
    change = after.value - before.value
    low = change - np.hypot(after.value - after.low, before.high - before.value)
    high = change + np.hypot(after.high - after.value, before.value - before.low)
    return Interval(change, float(low), float(high), before.confidence)


def mean_of(estimates: Sequence[Interval]) -> Interval:
    """Mean of independent estimates, which count alike; distances to the bounds as in `difference_of`."""
    values, lows, highs = np.array([(one.value, one.low, one.high) for one in estimates]).T
    n, value = len(estimates), values.mean()
    low, high = value - np.linalg.norm(values - lows) / n, value + np.linalg.norm(highs - values) / n
    return Interval(float(value), float(low), float(high), estimates[0].confidence)


def paired_bootstrap(
    before: Correct, after: Correct, *, resamples: int, confidence: float, seed: int | np.random.Generator
) -> Interval:
    """Percentile bootstrap, over items, of the mean change from `before` to `after`.

    An item's change is -1, 0 or 1, so a resample of the items is one draw of three counts. No items: [-1, 1].
    """
    return stratified_bootstrap([Flips.of(before, after)], resamples=resamples, confidence=confidence, seed=seed)


@dataclass(frozen=True)
class Flips:
    """How many of n items an edit changed for the worse, and for the better."""

    n: int
    lost: int
    gained: int

    @staticmethod
    def of(before: Correct, after: Correct) -> "Flips":
        """Count them on the same items."""
        first, second = _pair(before, after)
        return Flips(len(first), int((first & ~second).sum()), int((~first & second).sum()))

    @property
    def p(self) -> float:
        """Two-sided exact McNemar."""
        return exact_mcnemar(self.gained, self.lost)


def stratified_bootstrap(
    tasks: Sequence[Flips], *, resamples: int, confidence: float, seed: int | np.random.Generator
) -> Interval:
    """Percentile bootstrap of the mean over tasks of each task's mean change; items are drawn within their task.

    Tasks count alike, whatever their size; those without items do not count. No items at all: [-1, 1].
    """
    present = [task for task in tasks if task.n]
    if not present:
        return Interval(float("nan"), -1.0, 1.0, confidence)
    rng = np.random.default_rng(seed)
    changes = []
    for task in present:
        shares = np.array([task.lost, task.n - task.lost - task.gained, task.gained]) / task.n
        counts = rng.multinomial(task.n, shares, size=resamples)
        changes.append((counts[:, 2] - counts[:, 0]) / task.n)
    drawn = np.mean(changes, axis=0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    value = float(np.mean([(task.gained - task.lost) / task.n for task in present]))
    return Interval(value, float(low), float(high), confidence)


def exact_mcnemar(n01: int, n10: int) -> float:
    """Two-sided exact p that a change is as likely for the worse as for the better.

    `n01` items went from wrong to right and `n10` from right to wrong; 1 where nothing changed.
    """
    if min(n01, n10) < 0:
        raise ValueError(f"found counts {n01} and {n10}; counts of items cannot be negative")
    return float(binomtest(n01, n01 + n10).pvalue) if n01 + n10 else 1.0


def empirical_p(
    selected: float, controls: Float[np.ndarray, " draws"], alternative: Literal["greater", "less", "two-sided"]
) -> float:
    """(1 + #{control as extreme as `selected` or more}) / (1 + #controls); two-sided: twice the smaller, at most 1.

    Raises ValueError when a control is not a number: it would count as less extreme.
    """
    if not np.isfinite(controls).all() or not np.isfinite(selected):
        raise ValueError("an effect of the selected or of the control features is not a finite number")
    greater = (1 + int((controls >= selected).sum())) / (1 + len(controls))
    less = (1 + int((controls <= selected).sum())) / (1 + len(controls))
    match alternative:
        case "greater":
            return greater
        case "less":
            return less
        case "two-sided":
            return min(1.0, 2 * min(greater, less))


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """p-values adjusted for all tests of one claim (Holm): the chance of a single false finding stays below alpha."""
    return np.asarray(multipletests(_checked(p), method="holm")[1]) if len(p) else p


def benjamini_hochberg(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """p-values adjusted for exploration (Benjamini, Hochberg): among findings below alpha at most alpha are false."""
    return false_discovery_control(_checked(p))


def minimum_detectable_effect(n: int, *, confidence: float, power: float) -> float:
    """Smallest share of items that must change for the exact test to find it with probability `power`.

    For items that all start wrong, or all right, as critical items do: they change one way only, and McNemar's test
    rejects from k changes on. Solves P(Binomial(n, effect) >= k) = power, a quantile of Beta(k, n - k + 1). Infinite
    where even n changes would not do.
    """
    needed = next(k for k in count(1) if not _exceeds(2 * 0.5**k, 1 - confidence))  # changes for McNemar to reject
    if n < needed:
        return float("inf")
    return float(beta.ppf(power, needed, n - needed + 1))


def verdict(change: Interval, flips: Flips, controls: Sequence[Draws], *, expected: Direction) -> Verdict:
    """What one edit shows, on the held-out critical items, by fixed rules with alpha = 1 - confidence, in this order.

    - underpowered: so few items that changing all of them would not be significant (exact McNemar), or so few
      controls of some kind that the smallest possible empirical p, two-sided, exceeds alpha.
    - supported: the change is significant (exact McNemar p at most alpha, its interval excludes 0) in the expected
      direction, and so is its distance from every kind of control (one-sided empirical p at most alpha / 2).
    - opposite: all of it holds in the other direction.
    - underpowered: a change of `DETECTABLE` of the items would have been missed more often than 1 - `POWER`.
    - not distinguishable from random features: all else.

    Together the two findings, supported and opposite, are a two-sided test at alpha: with edits like the controls one
    in 1 / alpha is called either. `change` is the mean change on the items, `controls` that under each random feature
    set on the same items, a row of draws for each kind; all kinds must be beaten, so their number needs no correction.
    """
    alpha = 1 - change.confidence
    detectable = minimum_detectable_effect(flips.n, confidence=change.confidence, power=POWER)
    fewest = min(len(draws) for draws in controls)
    if detectable == float("inf") or _exceeds(2 / (1 + fewest), alpha):
        return "underpowered"
    if not _exceeds(flips.p, alpha):
        if _significant(change, controls, expected, alpha):
            return "supported"
        if _significant(change, controls, "decrease" if expected == "increase" else "increase", alpha):
            return "opposite"
    return "underpowered" if detectable > DETECTABLE else "not distinguishable from random features"


def largest_p(value: float, controls: Sequence[Draws], expected: Direction) -> float:
    """Empirical p in the expected direction against that kind of control which does most."""
    side = "less" if expected == "decrease" else "greater"
    return max(empirical_p(value, draws, side) for draws in controls)


def _significant(change: Interval, controls: Sequence[Draws], direction: Direction, alpha: float) -> bool:
    beaten = not _exceeds(largest_p(change.value, controls, direction), alpha / 2)
    return beaten and (change.low > 0 if direction == "increase" else change.high < 0)


def _exceeds(p: float, alpha: float) -> bool:
    """p > alpha, where 1 - 0.95 is taken for 0.05."""
    return p > alpha + 1e-12


def _pair(before: Correct, after: Correct) -> list[Bool[np.ndarray, " samples"]]:
    assert len(before) == len(after), "both are outcomes on the same items"
    return [one.cpu().numpy() if isinstance(one, Tensor) else one for one in (before, after)]


def _correlation(first: Bool[np.ndarray, " samples"], second: Bool[np.ndarray, " samples"]) -> float:
    """Correlation phi of the pairs with Newcombe's continuity correction; 0 where a model is always right or wrong."""
    n = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    lost, gained = int((first & ~second).sum()), int((~first & second).sum())
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if margins == 0:
        return 0.0
    excess = both * neither - lost * gained
    corrected = max(excess - n / 2, 0.0) if excess > 0 else excess
    return float(corrected / np.sqrt(margins))


def _checked(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("found p-values outside 0 to 1; adjust p-values, not statistics")
    return p
