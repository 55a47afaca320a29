"""Accuracy over repeated answers to each item (Sec. 4, A.4), with intervals over items.

An item's share of right answers lies in [0, 1], so its variance is at most that of one answer with the same mean. The
intervals of shares are those of one answer per item: too wide rather than too narrow, and never of width 0. What an
edit changes has a bootstrap interval over items, each with all its repetitions.
"""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.evaluation.results import TaskResult
from featdiff.stats import Flips, Interval, difference_interval, difference_of, wilson_interval

Rights = Bool[Tensor, "items repeats"]
Counted = Int[Tensor, "items repeats"]


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


def gain_over(before: TaskResult, after: TaskResult, *, confidence: float) -> Interval:
    """What one model is better than another on the same items."""
    if all(len(one.samples[0].rights) <= 1 for one in (before, after)):
        return difference_interval(before.correct, after.correct, confidence=confidence)
    return gain_interval(before.shares, after.shares, confidence=confidence)


def paired_change(
    before: Counted, after: Counted, *, resamples: int, confidence: float, seed: int | np.random.Generator
) -> Interval:
    """Percentile bootstrap, over items, of the change of the mean over items and repetitions. No items: all nan.

    Items of equal change are alike, so a resample is one draw of how often each change occurs.
    """
    n, repeats = before.shape
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, confidence)
    differences = (after.sum(dim=1) - before.sum(dim=1)).cpu().numpy()
    values, counts = np.unique(differences, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples) @ values / (n * repeats)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(differences.sum() / (n * repeats)), float(low), float(high), confidence)


def accuracy_change(
    before: Rights, after: Rights, *, resamples: int, confidence: float, seed: int | np.random.Generator
) -> Interval:
    """Change of a share of right answers, with its bootstrap interval over items. No items: [-1, 1].

    Where no item changes, a bootstrap would be certain; then the interval is that of `gain_interval`.
    """
    if not len(before):
        return Interval(math.nan, -1.0, 1.0, confidence)
    old, new = before.long(), after.long()
    if (old.sum(dim=1) == new.sum(dim=1)).all():
        return gain_interval(before.double().mean(dim=1), after.double().mean(dim=1), confidence=confidence)
    return paired_change(old, new, resamples=resamples, confidence=confidence, seed=seed)


def item_flips(before: Rights, after: Rights) -> Flips:
    """Numbers of items of which fewer, and of which more, repetitions are right.

    The exact test of these counts is a sign test, and with one repetition McNemar's.
    """
    old, new = before.sum(dim=1), after.sum(dim=1)
    return Flips(len(old), int((new < old).sum()), int((new > old).sum()))
