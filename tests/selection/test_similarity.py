"""Likeness of two choices of features: laws, a hand-made overlap, and chance that knows firing rates."""

from dataclasses import replace

import pytest
import torch

from featdiff.attribution.matching import match_decoders
from featdiff.selection.similarity import RankedSelection, SelectionSimilarity, selection_similarity

FEATURES = 60


def choice(final: list[int], ranked: list[int], rate: torch.Tensor | None = None) -> RankedSelection:
    rate = torch.full((FEATURES,), 0.1) if rate is None else rate
    alive = torch.ones(FEATURES, dtype=torch.bool)
    return RankedSelection(torch.tensor(final).long(), torch.tensor(ranked).long(), rate, alive)


def decoders() -> torch.Tensor:
    return torch.randn(FEATURES, 2, 80, generator=torch.Generator().manual_seed(0))


SAME = match_decoders(decoders(), decoders())


def test_a_choice_is_like_itself_also_under_other_indices() -> None:
    order = torch.randperm(FEATURES, generator=torch.Generator().manual_seed(1))
    place = order.argsort()
    one = choice([3, 7, 20, 41], [7, 3, 41, 20, 5])
    there = replace(one, final=place[one.final].sort().values, ranked=place[one.ranked])
    found = selection_similarity(one, there, match_decoders(decoders(), decoders()[order]), 0.9, draws=200, seed=0)
    for null in (found.jaccard, found.rbo):
        assert (
            null is not None and null.found == pytest.approx(1) and null.p == pytest.approx(1 / 201) and null.null < 0.2
        )


def test_overlaps_of_hand_made_choices() -> None:
    found = selection_similarity(choice([1, 2, 3], [1, 2]), choice([2, 3, 4, 5], [1, 9]), SAME, 0.5, draws=50, seed=0)
    assert found.jaccard is not None and found.jaccard.found == pytest.approx(2 / 5)
    assert found.rbo is not None and found.rbo.found == pytest.approx(0.75)


def test_draws_that_find_as_much_are_counted_whatever_the_fraction() -> None:
    alive = torch.arange(FEATURES) < 4
    three = RankedSelection(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]), torch.full((FEATURES,), 0.1), alive)
    found = selection_similarity(
        three, replace(three, final=torch.tensor([1, 2, 3])), SAME, 0.9, draws=100, seed=0
    ).jaccard
    assert found is not None and found.found == 0.5 and found.p == 1  # three of four share two or three
    thirds = selection_similarity(three, replace(three, final=torch.tensor([0])), SAME, 0.9, draws=100, seed=0).jaccard
    assert thirds is not None and thirds.null_high == thirds.found == 1 / 3 and thirds.p > 0.5


def test_features_without_a_match_are_like_nothing() -> None:
    stranger = torch.randn(FEATURES, 2, 80, generator=torch.Generator().manual_seed(9))
    one = choice([1, 2, 3], [1, 2, 3])
    found = selection_similarity(one, one, match_decoders(decoders(), stranger), 0.9, draws=20, seed=0)
    assert found.jaccard is not None and found.jaccard.found == 0
    assert found.rbo is not None and found.rbo.found == 0


def test_features_that_always_fire_are_chosen_by_chance_as_well() -> None:
    rate = torch.full((FEATURES,), 1e-4)
    rate[:3] = 1.0
    often = choice([0, 1, 2], [0, 1, 2], rate)
    found = selection_similarity(often, often, SAME, 0.9, draws=200, seed=0)
    assert found.jaccard is not None and found.jaccard.null > 0.9 and found.jaccard.p > 0.5


def test_empty_choices_have_no_likeness() -> None:
    nothing = choice([], [])
    assert selection_similarity(nothing, nothing, SAME, 0.9, draws=5, seed=0) == SelectionSimilarity(None, None)
    half = selection_similarity(choice([1], [1]), nothing, SAME, 0.9, draws=5, seed=0)
    assert half.jaccard is not None and half.jaccard.found == 0 and half.jaccard.p == 1
