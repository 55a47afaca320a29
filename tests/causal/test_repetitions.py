import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdiff.causal.repetitions import gain_interval, share_interval
from featdiff.causal.statistics import difference_interval, wilson_interval


def test_shares_of_whole_answers_have_wilsons_interval() -> None:
    assert share_interval(torch.tensor([1.0, 0.0, 1.0, 1.0]), confidence=0.95) == wilson_interval(3, 4, confidence=0.95)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10), min_size=2, max_size=30), st.lists(st.integers(0, 10), min_size=2, max_size=30))
def test_intervals_hold_their_value_and_never_collapse(before: list[int], after: list[int]) -> None:
    n = min(len(before), len(after))
    old, new = torch.tensor(before[:n]) / 10, torch.tensor(after[:n]) / 10
    for found in (share_interval(old, confidence=0.9), gain_interval(old, new, confidence=0.9)):
        assert found.low <= found.value + 1e-9 and found.value - 1e-9 <= found.high
        assert found.high - found.low > 0.01
    assert gain_interval(old, new, confidence=0.9).value == pytest.approx(float((new - old).mean()), abs=1e-6)


def test_one_answer_per_item_is_the_paired_interval_of_uncorrelated_models() -> None:
    """A second road: of a table with correlation 0, difference_interval is Newcombe's without correlation."""
    before, after = torch.tensor([0, 0, 1, 1] * 5).bool(), torch.tensor([0, 1, 0, 1] * 5).bool()
    wanted = difference_interval(before, after, confidence=0.95)
    found = gain_interval(before.float(), after.float(), confidence=0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
