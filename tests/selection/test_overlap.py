import pytest
import torch
from torch import Generator

from featdiff.selection.overlap import overlap_null, overlaps, rate_matched, shared_null

FEATURES = 60


def sets(*members: list[int]) -> torch.Tensor:
    selected = torch.zeros(len(members), FEATURES, dtype=torch.bool)
    for row, features in enumerate(members):
        selected[row, features] = True
    return selected


def test_overlaps_by_hand() -> None:
    jaccard, coefficient = overlaps(sets([0, 1, 2, 3], [2, 3], []))
    assert jaccard.tolist() == [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert coefficient.tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_random_sets_have_the_sizes_asked_for_and_hold_live_features_only() -> None:
    alive = torch.arange(FEATURES) % 3 != 0
    drawn = rate_matched(torch.tensor([5, 0, 12]), torch.rand(FEATURES), alive, 4, Generator().manual_seed(0))
    assert drawn.sum(dim=2).tolist() == [[5, 0, 12]] * 4 and not drawn[:, :, ~alive].any()


def test_one_feature_is_drawn_in_proportion_to_its_rate() -> None:
    rate, alive = torch.tensor([0.6, 0.3, 0.1]), torch.ones(3, dtype=torch.bool)
    drawn = rate_matched(torch.ones(1, dtype=torch.long), rate, alive, 6000, Generator().manual_seed(0))
    assert drawn[:, 0].double().mean(dim=0).tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_under_equal_rates_the_null_has_the_mean_of_the_hypergeometric_law() -> None:
    rate, alive = torch.ones(FEATURES), torch.ones(FEATURES, dtype=torch.bool)
    null = overlap_null(sets(list(range(20)), list(range(10, 40))), rate, alive, 400, 0)
    shared = 20 * 30 / FEATURES
    assert null.overlap_coefficient[0][1].null == pytest.approx(shared / 20, abs=0.02)
    assert [one.null for one in null.in_at_least] == pytest.approx([50 - shared, shared], abs=0.4)
    assert null.in_at_least[1].found == 10 and null.in_at_least[1].p > 0.3


def test_features_that_fire_often_are_shared_by_chance_and_rare_ones_are_not() -> None:
    rate = torch.where(torch.arange(FEATURES) < 10, 1.0, 0.001)
    alive = torch.ones(FEATURES, dtype=torch.bool)
    frequent, rare = sets(list(range(8))), sets(list(range(30, 38)))
    assert shared_null(frequent[0], frequent[0], rate, alive, 200, 0).null > 0.7
    assert shared_null(rare[0], rare[0], torch.ones(FEATURES), alive, 200, 0).p == pytest.approx(1 / 201)
