"""Rank-biased overlap against hand-made numbers, its laws, and the infinite sum that it extrapolates."""

import math
import random

import pytest

from featdiff.attribution.rank_overlap import depth_of, rank_biased_overlap


def to_the_end(one: list[int], other: list[int], p: float, depth: int = 3000) -> float:
    """The sum itself, both rankings going on as the extrapolated form assumes."""
    shorter, longer = sorted((one, other), key=len)
    s, length = len(shorter), len(longer)
    rate = len(set(shorter) & set(longer[:s])) / s
    total, last = 0.0, 0.0
    for d in range(1, depth + 1):
        if d <= length:
            last = (len(set(shorter[:d]) & set(longer[:d])) + (rate * (d - s) if d > s else 0.0)) / d
        total += (1 - p) * p ** (d - 1) * last
    return total


def test_a_hand_made_pair_has_the_overlap_that_the_formula_gives() -> None:
    # A_1 = 1, A_2 = 1/2, at p = 1/2: 1 (1/2 + 1/2 1/4) + 1/2 1/4
    assert rank_biased_overlap([1, 2], [1, 3], p=0.5) == pytest.approx(0.75)
    assert rank_biased_overlap([1, 2], [2, 1], p=0.5) == pytest.approx(0.5)  # A_1 = 0, A_2 = 1


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_equal_rankings_have_one_and_disjoint_ones_nothing(p: float) -> None:
    ranking = list(range(7))
    assert rank_biased_overlap(ranking, ranking, p) == pytest.approx(1)
    assert rank_biased_overlap(ranking, ranking[:3], p) == pytest.approx(1)  # as far as it goes, the same
    assert rank_biased_overlap(ranking, [10, 11, 12], p) == 0
    assert rank_biased_overlap(ranking, [], p) == 0 and math.isnan(rank_biased_overlap([], [], p))


def test_it_is_the_sum_over_all_depths_of_rankings_that_go_on_as_they_ended() -> None:
    draw = random.Random(0)
    for _ in range(20):
        one, other = draw.sample(range(30), draw.randint(1, 20)), draw.sample(range(30), draw.randint(1, 20))
        for p in (0.3, 0.9):
            found = rank_biased_overlap(one, other, p)
            assert found == pytest.approx(to_the_end(one, other, p)) == rank_biased_overlap(other, one, p)


def test_a_swap_at_the_top_costs_more_than_one_at_the_bottom() -> None:
    ranking = list(range(10))
    top, bottom = [1, 0, *ranking[2:]], [*ranking[:8], 9, 8]
    assert rank_biased_overlap(ranking, top) < rank_biased_overlap(ranking, bottom) < 1


def test_beyond_the_depth_that_is_read_there_is_next_to_no_weight() -> None:
    assert depth_of(0.9) == 88 and 0.9 ** depth_of(0.9) <= 1e-4 < 0.9 ** (depth_of(0.9) - 1)


@pytest.mark.parametrize(("one", "p", "message"), [([1, 1], 0.9, "twice"), ([1], 1.0, "between 0 and 1")])
def test_what_is_no_ranking_is_refused(one: list[int], p: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_biased_overlap(one, [1], p)
