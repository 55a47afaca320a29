import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featdiff.evaluation.repeated_sampling import (
    accuracy_change,
    gain_interval,
    item_flips,
    paired_change,
    share_interval,
)
from featdiff.stats import Flips, difference_interval, paired_bootstrap, wilson_interval


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


def rights(*counts: int, repeats: int = 4) -> torch.Tensor:
    """So many right answers to each item."""
    return torch.arange(repeats)[None] < torch.tensor(counts)[:, None]


def test_one_answer_per_item_changes_as_a_paired_bootstrap_says() -> None:
    """A second road: with one repetition an item's change is -1, 0 or 1."""
    before, after = torch.tensor([0, 0, 1, 1, 1, 0] * 20).bool(), torch.tensor([0, 1, 1, 0, 1, 1] * 20).bool()
    options = {"resamples": 40_000, "confidence": 0.95, "seed": 0}
    found, wanted = (
        accuracy_change(before[:, None], after[:, None], **options),
        paired_bootstrap(before, after, **options),
    )
    assert found.value == wanted.value
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.01)
    assert item_flips(before[:, None], after[:, None]) == Flips.of(before, after)


def test_the_interval_is_that_of_items_drawn_with_all_their_repetitions() -> None:
    """A second road: resample rows by index; repetitions of an item are no further items."""
    old, new = rights(0, 1, 4, 2, 3, 0), rights(2, 1, 1, 4, 3, 3)
    found = accuracy_change(old, new, resamples=40_000, confidence=0.9, seed=0)
    change = new.double().mean(dim=1) - old.double().mean(dim=1)
    drawn = change[torch.randint(6, (40_000, 6), generator=torch.Generator().manual_seed(0))].mean(dim=1)
    wanted = drawn.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    assert found.value == pytest.approx(float(change.mean()))
    assert [found.low, found.high] == pytest.approx(wanted, abs=0.02)


def test_where_no_item_changes_the_interval_keeps_a_width_and_lengths_stay_certain() -> None:
    old = rights(0, 0, 0, 1)
    found = accuracy_change(old, old.flip(1), resamples=100, confidence=0.95, seed=0)
    assert found.value == 0 and found.low < -0.1 and found.high > 0.1
    lengths = torch.tensor([[3, 5], [7, 9]])
    moved = paired_change(lengths, lengths + 2, resamples=100, confidence=0.95, seed=0)
    assert (moved.value, moved.low, moved.high) == (2, 2, 2)


def test_an_item_is_lost_where_fewer_of_its_repetitions_are_right() -> None:
    """By hand; the test of six losses against one gain is a sign test."""
    flips = item_flips(rights(4, 3, 2, 1, 2, 4, 0, 2), rights(3, 0, 1, 0, 1, 0, 4, 2))
    assert (flips.n, flips.lost, flips.gained) == (8, 6, 1)
    assert flips.p == pytest.approx(2 * (1 + 7) / 2**7)


def test_no_items_have_no_change() -> None:
    none = torch.zeros(0, 3, dtype=torch.bool)
    found = accuracy_change(none, none, resamples=10, confidence=0.95, seed=0)
    assert (found.low, found.high) == (-1, 1) and found.value != found.value
    assert item_flips(none, none) == Flips(0, 0, 0)
