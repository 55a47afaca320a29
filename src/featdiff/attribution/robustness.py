"""Robustness of results to choices of the method, judged at equal sparsity or variance explained.

A choice of the dictionary is trained at several strengths of its sparsity, which makes each of its numbers a curve. It
is compared with the study's own crosscoder where it is as sparse, or explains as much variance: between the two points
of its curve that lie on either side, linearly in the logarithm of L0, or of the variance left over. A point that is as
good as there is taken as it is. Where its curve does not come to either side, the choice is not measured: nothing is
extrapolated.

What a choice may change without mattering is what another seed changes. The rule, for a number r of the study's own
crosscoder, s_1, ..., s_n of its further seeds, and c of the choice:

    robust       |c - r| <= max_i |s_i - r|
    not robust   c lies outside Student's 95 % prediction interval for one more of r, s_1, ..., s_n,
                 mean +- t(n) * deviation * sqrt(1 + 1 / (n + 1)), and its own interval apart from that of r
    undecided    in between: more seeds would tell
    no yardstick there are fewer than two seeds

A similarity to the study's own crosscoder has no r: it is robust if it is no smaller than the smallest of a seed, and
not robust below the prediction interval of s_1, ..., s_n; seeds that agree no better than chance are no yardstick.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.special import stdtrit

Robustness = Literal["robust", "not robust", "undecided", "not measured", "no yardstick"]
COVERAGE = 0.95
NEAR = 0.02
"""A point whose L0, or unexplained variance, is off by no more than this share stands for what is looked for."""


@dataclass(frozen=True)
class Measurement:
    """A value with its interval, and with what chance gives where it has such a null; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan
    chance: float = math.nan
    """Mean under the null."""
    chance_high: float = math.nan
    """97.5 % quantile of the null."""

    @property
    def beyond_chance(self) -> bool:
        """Whether it exceeds the null; true where there is none."""
        return not self.value <= self.chance_high

    def overlaps(self, other: "Measurement") -> bool:
        """Whether the two intervals have a value in common; false where one is missing."""
        return self.low <= other.high and other.low <= self.high


NOT_MEASURED = Measurement(math.nan)
"""Stands for a number that was not measured."""


def interpolate_at(xs: Sequence[float], numbers: Sequence[Measurement], x: float) -> Measurement:
    """Interpolate a curve at `x`: the value of a point within `NEAR` of it, or between the two points on either side.

    `NOT_MEASURED` where the curve does not come to either side.

    `xs` are positive and in the order of the curve. Where it passes `x` several times, the first passage counts. The
    interval is that between the two intervals: their errors are of the same items, so they do not average out.
    """
    away = [abs(math.log(one / x)) for one in xs]
    if away and min(away) <= math.log1p(NEAR):
        return numbers[away.index(min(away))]
    for left, right in pairwise(range(len(xs))):
        if (xs[left] - x) * (xs[right] - x) < 0:
            share = math.log(x / xs[left]) / math.log(xs[right] / xs[left])
            ends = zip(astuple(numbers[left]), astuple(numbers[right]), strict=True)
            return Measurement(*((1 - share) * one + share * other for one, other in ends))
    return NOT_MEASURED


def bracketing_points(xs: Sequence[float], x: float) -> tuple[int, ...]:
    """Positions of the points from which `interpolate_at` would read; none where the curve does not come to `x`."""
    marked = [replace(NOT_MEASURED, value=float(position)) for position in range(len(xs))]
    value = interpolate_at(xs, marked, x).value
    return () if math.isnan(value) else tuple(sorted({math.floor(value), math.ceil(value)}))


def robustness_of_value(choice: Measurement, own: Measurement, seeds: Sequence[Measurement]) -> Robustness:
    """Judge whether a number changes by more than seeds change it."""
    known = _known(seeds)
    if math.isnan(choice.value) or math.isnan(own.value):
        return "not measured"
    if len(known) < 2:
        return "no yardstick"
    if abs(choice.value - own.value) <= max(abs(seed - own.value) for seed in known):
        return "robust"
    low, high = prediction_interval([own.value, *known])
    return "undecided" if low <= choice.value <= high or choice.overlaps(own) else "not robust"


def robustness_of_similarity(choice: Measurement, seeds: Sequence[Measurement]) -> Robustness:
    """Judge whether a choice is less like the study's own crosscoder than another seed is."""
    known = _known(seeds)
    if math.isnan(choice.value):
        return "not measured"
    if len(known) < 2 or not all(seed.beyond_chance for seed in seeds):
        return "no yardstick"
    if choice.value >= min(known):
        return "robust"
    return "undecided" if choice.value >= prediction_interval(known)[0] else "not robust"


def prediction_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where one more value of the same kind lies in 95 of 100 cases (Student; two values at least)."""
    n, found = len(values), np.array(values, dtype=float)
    half = float(stdtrit(n - 1, 0.5 + COVERAGE / 2) * found.std(ddof=1) * math.sqrt(1 + 1 / n))
    return float(found.mean()) - half, float(found.mean()) + half


def _known(numbers: Sequence[Measurement]) -> list[float]:
    return [number.value for number in numbers if not math.isnan(number.value)]
