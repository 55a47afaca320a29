"""Accuracy where each item was answered several times (Sec. 4, A.4), with intervals over items.

An item's share of right answers lies in [0, 1], so its variance is at most that of one answer with the same mean. The
intervals are those of one answer per item: too wide rather than too narrow, and never of width 0.
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from featdiff.causal.statistics import Interval, difference_of, wilson_interval


def share_interval(shares: Float[Tensor, " samples"], *, confidence: float) -> Interval:
    """Mean share of right answers, with Wilson's interval over items."""
    return wilson_interval(float(shares.double().sum()), len(shares), confidence=confidence)


def gain_interval(
    before: Float[Tensor, " samples"], after: Float[Tensor, " samples"], *, confidence: float
) -> Interval:
    """Interval of mean(after) - mean(before) on the same items: Newcombe's, without credit for their correlation."""
    assert len(before) == len(after), "the same items"
    change = difference_of(*(share_interval(shares, confidence=confidence) for shares in (before, after)))
    return replace(change, low=max(change.low, -1.0), high=min(change.high, 1.0))
