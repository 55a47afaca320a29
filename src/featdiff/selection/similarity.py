"""Similarity of two feature selections from different crosscoders, compared with a random baseline.

Features of two crosscoders are one and the same where they are matched; an unmatched feature is one that the other
crosscoder lacks. Then final sets have a Jaccard overlap, and rankings a rank-biased overlap. Chance is a choice of as
many features from the second crosscoder, drawn one after another in proportion to how often they fire.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.attribution.matching import Matching, matched_jaccard
from featdiff.attribution.rank_overlap import rank_biased_overlap
from featdiff.selection.overlap import Null, drawn_by_rate, null_of


@dataclass(frozen=True, eq=False)
class RankedSelection:
    """A selection in one crosscoder: its final set, the ranking of all scored features, and their firing rates."""

    final: Int[Tensor, " n"]
    ranked: Int[Tensor, " ranked"]
    rate: Float[Tensor, " features"]
    alive: Bool[Tensor, " features"]


@dataclass(frozen=True)
class SelectionSimilarity:
    """Jaccard of the final sets, and rank-biased overlap of the rankings; None where both are empty."""

    jaccard: Null | None
    rbo: Null | None


def selection_similarity(
    own: RankedSelection, other: RankedSelection, matching: Matching, p: float, draws: int, seed: int
) -> SelectionSimilarity:
    """Compare two selections; `matching` is from the crosscoder of `own` to that of `other`."""
    count = max(len(other.final), len(other.ranked))
    generator = torch.Generator().manual_seed(seed)
    drawn = drawn_by_rate(count, other.rate, other.alive, (draws,), generator)
    named = _named(matching)
    ranked = own.ranked.tolist()

    def jaccard(features: Int[Tensor, " n"]) -> float:
        return matched_jaccard(matching, own.final, features)

    def rbo(features: Int[Tensor, " n"]) -> float:
        return rank_biased_overlap(ranked, named[features].tolist(), p)

    sets = [jaccard(row) for row in drawn[:, : len(other.final)]]
    lists = [rbo(row) for row in drawn[:, : len(other.ranked)]]
    return SelectionSimilarity(_beside(jaccard(other.final), sets), _beside(rbo(other.ranked), lists))


def _named(matching: Matching) -> Int[Tensor, " others"]:
    """Features of b by the feature of a that they match; the others by numbers that no feature of a has."""
    partner = matching.reversed().partner
    return torch.where(partner >= 0, partner, len(matching.best_a) + torch.arange(len(partner)))


def _beside(found: float, drawn: Sequence[float]) -> Null | None:
    return None if found != found else null_of(found, torch.tensor(drawn, dtype=torch.float64))
