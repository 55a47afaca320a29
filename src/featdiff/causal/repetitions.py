"""Accuracy where each item was answered several times (Sec. 4, A.4), with intervals over items.

An item's share of right answers lies in [0, 1], so its variance is at most that of one answer with the same mean. The
intervals are those of one answer per item: too wide rather than too narrow, and never of width 0.
"""

import math

from jaxtyping import Float
from torch import Tensor

from featdiff.causal.statistics import Interval, wilson_interval


def share_interval(shares: Float[Tensor, " samples"], *, confidence: float) -> Interval:
    """Mean share of right answers, with Wilson's interval over items."""
    return wilson_interval(float(shares.double().sum()), len(shares), confidence=confidence)


def gain_interval(
    before: Float[Tensor, " samples"], after: Float[Tensor, " samples"], *, confidence: float
) -> Interval:
    """Interval of mean(after) - mean(before) on the same items: Newcombe's, without credit for their correlation."""
    assert len(before) == len(after), "the same items"
    old, new = share_interval(before, confidence=confidence), share_interval(after, confidence=confidence)
    change = new.value - old.value
    low = change - math.hypot(new.value - new.low, old.high - old.value)
    high = change + math.hypot(new.high - new.value, old.value - old.low)
    return Interval(change, max(low, -1.0), min(high, 1.0), confidence)
