"""Comparison of the tails of two models, through one crosscoder or each through its own.

A crosscoder favours the model that it was trained on: what only another model has is not in it. So a comparison with a
model that has no crosscoder is made in several, of which each favours another side, and holds only where all agree.

The features are the sample. Whether another run of the training would agree no interval over features can say.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.stats import Flips, Interval, difference_interval, difference_of, wilson_interval

Order = Literal["more", "fewer", "undecided"]


@dataclass(frozen=True)
class Tail:
    """Number of specific features among those measured."""

    specific: int
    measured: int

    @staticmethod
    def of(specificity: Float[Tensor, " features"], alive: Bool[Tensor, " features"], cut: float) -> "Tail":
        """Alive features above a cut; a specificity that is nan was not measured."""
        return Tail(int((alive & (specificity > cut)).sum()), int((alive & ~specificity.isnan()).sum()))


@dataclass(frozen=True)
class TailDifference:
    """The share of specific features of a first model less that of a second."""

    first: Tail
    second: Tail
    difference: Interval
    only_first: int | None
    """Features that are specific in the first model alone; None between two crosscoders."""
    only_second: int | None

    @property
    def order(self) -> Order:
        """By the interval: undecided where it covers 0."""
        return "more" if self.difference.low > 0 else "fewer" if self.difference.high < 0 else "undecided"


def paired_tails(
    first: Float[Tensor, " features"],
    second: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    cut: float,
    *,
    confidence: float,
) -> TailDifference:
    """Two models read through one crosscoder: the same features, those that are measured in either (Newcombe's
    interval of paired shares)."""
    known = alive & ~(first.isnan() & second.isnan())
    here, there = first[known] > cut, second[known] > cut
    flips, n = Flips.of(there, here), int(known.sum())
    return TailDifference(
        Tail(int(here.sum()), n),
        Tail(int(there.sum()), n),
        difference_interval(there, here, confidence=confidence),
        flips.gained,
        flips.lost,
    )


def separate_tails(first: Tail, second: Tail, *, confidence: float) -> TailDifference:
    """Two models read each through its own crosscoder, as if features were independent."""
    here, there = (wilson_interval(one.specific, one.measured, confidence=confidence) for one in (first, second))
    return TailDifference(first, second, difference_of(there, here), None, None)


def turning_point(found: TailDifference) -> int | None:
    """The number of specific features in the first model, nearest to what it is, at which the order would be another;
    of two equally near, the larger. None where there is no such number.

    In one crosscoder, features that only one model has change first.
    """
    first, n = found.first.specific, found.first.measured
    by_distance = (k for step in range(1, n + 1) for k in (first + step, first - step) if 0 <= k <= n)
    return next((k for k in by_distance if _with_first(found, k).order != found.order), None)


def unanimous(orders: Iterable[Order]) -> Order:
    """What all readings say; undecided where they differ."""
    found = set(orders)
    return found.pop() if len(found) == 1 else "undecided"


def _with_first(found: TailDifference, specific: int) -> TailDifference:
    """The same, but for the number of specific features in the first model."""
    first, second, confidence = Tail(specific, found.first.measured), found.second, found.difference.confidence
    if found.only_first is None:
        return separate_tails(first, second, confidence=confidence)
    both = min(found.first.specific - found.only_first, specific)
    only_first = min(specific - both, first.measured - second.specific)
    here, there = np.zeros(first.measured, dtype=bool), np.zeros(first.measured, dtype=bool)
    there[: second.specific] = True
    here[second.specific - (specific - only_first) : second.specific + only_first] = True
    flips = Flips.of(there, here)
    return TailDifference(
        first, second, difference_interval(there, here, confidence=confidence), flips.gained, flips.lost
    )
