"""Two tails compared: by hand, by the intervals they stand on, and where readings disagree."""

import pytest
import torch

from featdiff.attribution.tail_comparison import (
    Tail,
    TailDifference,
    paired_tails,
    separate_tails,
    turning_point,
    unanimous,
)
from featdiff.stats import difference_interval

NAN = float("nan")


def test_a_tail_is_counted_among_alive_features_that_were_measured() -> None:
    specificity = torch.tensor([0.9, 0.85, 0.2, NAN, 0.95])
    alive = torch.tensor([True, True, True, True, False])
    assert Tail.of(specificity, alive, 0.8) == Tail(specific=2, measured=3)


def test_one_crosscoder_compares_feature_by_feature() -> None:
    first = torch.tensor([0.9, 0.9, 0.1, NAN, NAN, 0.9])
    second = torch.tensor([0.9, 0.1, 0.1, 0.9, NAN, 0.1])
    alive = torch.tensor([True, True, True, True, True, False])
    found = paired_tails(first, second, alive, 0.8, confidence=0.95)
    assert (found.first, found.second) == (Tail(2, 4), Tail(2, 4))
    assert (found.only_first, found.only_second) == (1, 1) and found.order == "undecided"
    assert found.difference == difference_interval(
        torch.tensor([True, False, False, True]), torch.tensor([True, True, False, False]), confidence=0.95
    )


@pytest.mark.parametrize(("changed", "order"), [(40, "more"), (-40, "fewer"), (2, "undecided")])
def test_the_order_is_said_where_the_interval_leaves_out_0(changed: int, order: str) -> None:
    first, second = torch.full((500,), 0.1), torch.full((500,), 0.1)
    (first if changed > 0 else second)[: abs(changed)] = 0.95
    paired = paired_tails(first, second, torch.ones(500, dtype=torch.bool), 0.8, confidence=0.95)
    apart = separate_tails(paired.first, paired.second, confidence=0.95)
    assert paired.order == apart.order == order
    assert paired.difference.value == apart.difference.value == pytest.approx(changed / 500)


def test_two_crosscoders_are_compared_as_independent_samples() -> None:
    """Newcombe's own example of independent shares (method 10): 56/70 against 48/80."""
    found = separate_tails(Tail(56, 70), Tail(48, 80), confidence=0.95)
    assert found.difference.value == pytest.approx(0.2)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert found.only_first is None and found.only_second is None


def test_readings_that_disagree_decide_nothing() -> None:
    assert unanimous(["fewer", "fewer"]) == "fewer" and unanimous(["more"]) == "more"
    assert unanimous(["fewer", "undecided"]) == unanimous(["fewer", "more"]) == "undecided"
    assert unanimous([]) == "undecided"


def test_the_same_model_twice_is_never_told_apart() -> None:
    scores = torch.rand(200, generator=torch.Generator().manual_seed(0))
    found = paired_tails(scores, scores, torch.ones(200, dtype=torch.bool), 0.8, confidence=0.95)
    assert found.difference.value == 0 and found.order == "undecided"


def paired(both: int, only_first: int, only_second: int, neither: int) -> TailDifference:
    first = torch.tensor([0.9] * (both + only_first) + [0.1] * (only_second + neither))
    second = torch.tensor([0.9] * both + [0.1] * only_first + [0.9] * only_second + [0.1] * neither)
    return paired_tails(first, second, torch.ones(len(first), dtype=torch.bool), 0.8, confidence=0.95)


@pytest.mark.parametrize("counts", [(5, 30, 2, 400), (5, 2, 30, 400), (20, 3, 2, 300), (0, 0, 1, 989)])
def test_the_turning_point_is_the_nearest_count_at_which_the_order_is_another(counts: tuple[int, ...]) -> None:
    both, only_first, only_second, neither = counts
    found = paired(*counts)
    point = turning_point(found)
    assert point is not None

    def order(specific: int) -> str:
        """A feature that the first gains, it gains alone; one that it loses, it had alone as long as there are such."""
        if specific >= both:
            return paired(both, specific - both, only_second, neither + only_first - (specific - both)).order
        return paired(specific, 0, only_second + both - specific, neither + only_first).order

    assert order(found.first.specific) == found.order != order(point)
    distance = abs(point - found.first.specific)
    between = range(max(0, found.first.specific - distance + 1), found.first.specific + distance)
    assert {order(specific) for specific in between} == {found.order}


def test_the_turning_point_between_two_crosscoders_is_where_their_interval_reaches_0() -> None:
    found = separate_tails(Tail(1, 990), Tail(0, 999), confidence=0.95)
    point = turning_point(found)
    assert found.order == "undecided" and point is not None
    assert separate_tails(Tail(point, 990), Tail(0, 999), confidence=0.95).order == "more"
    assert separate_tails(Tail(point - 1, 990), Tail(0, 999), confidence=0.95).order == "undecided"
    assert turning_point(separate_tails(Tail(0, 1), Tail(0, 1), confidence=0.95)) is None
