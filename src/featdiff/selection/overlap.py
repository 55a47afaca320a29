"""Overlap of the features that several tasks retain, compared with random sets of the same sizes.

Features that fire often are retained more often, whatever they do. So the null draws sets as large as those found, a
feature with a probability in proportion to its firing rate.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

AT_ONCE = 2**22
"""Features, over tasks and draws, that are drawn at once."""


@dataclass(frozen=True)
class Null:
    """A statistic and its distribution under the null."""

    found: float
    null: float
    """Mean under the null."""
    null_high: float
    """97.5 % quantile of the null."""
    p: float
    """(1 + draws at least as large) / (1 + draws)."""


@dataclass(frozen=True)
class OverlapNull:
    """Overlaps of the tasks' features with their nulls; the tables are [tasks tasks]."""

    jaccard: list[list[Null]]
    overlap_coefficient: list[list[Null]]
    in_at_least: list[Null]
    """Features retained by at least 1, 2, ... tasks."""


def overlaps(
    selected: Bool[Tensor, "*draws tasks features"],
) -> tuple[Float[Tensor, "*draws tasks tasks"], Float[Tensor, "*draws tasks tasks"]]:
    """Jaccard overlap, and shared features over the smaller set; 0 where there is nothing to share."""
    members = selected.float()
    shared, size = members @ members.transpose(-1, -2), members.sum(dim=-1)
    union = size[..., :, None] + size[..., None, :] - shared
    smaller = torch.minimum(size[..., :, None], size[..., None, :])
    return shared / union.clamp_min(1), shared / smaller.clamp_min(1)


def rate_matched(
    sizes: Int[Tensor, " tasks"],
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    draws: int,
    generator: torch.Generator,
) -> Bool[Tensor, "draws tasks features"]:
    """Draw random sets of alive features for each task, without replacement and in proportion to their firing rate."""
    first = drawn_by_rate(int(sizes.max()), rate, alive, (draws, len(sizes)), generator)
    wanted = torch.arange(first.shape[-1]) < sizes[:, None]
    sets = torch.zeros(draws, len(sizes), len(rate), dtype=torch.bool)
    return sets.scatter_(-1, first, wanted.expand_as(first)) & alive


def drawn_by_rate(
    count: int,
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    shape: tuple[int, ...],
    generator: torch.Generator,
) -> Int[Tensor, "*shape count"]:
    """Draw alive features without replacement and in proportion to their firing rate, in the order of the draw."""
    # Largest of log rate plus Gumbel noise: drawing without replacement by weight.
    uniform = torch.rand(*shape, len(rate), generator=generator).clamp(1e-9, 1 - 1e-7)
    keys = rate.clamp_min(1e-12).log() - (-uniform.log()).log()
    return torch.where(alive, keys, -torch.inf).topk(count, dim=-1).indices


def overlap_null(
    selected: Bool[Tensor, "tasks features"],
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    draws: int,
    seed: int,
) -> OverlapNull:
    """Compare overlaps and votes of the features found with those of random sets of the same sizes."""
    generator = torch.Generator().manual_seed(seed)
    sizes, tasks = selected.sum(dim=1), len(selected)
    at_once = max(1, AT_ONCE // selected.numel())
    null, votes_drawn = list[tuple[Tensor, Tensor]](), list[Tensor]()
    for start in range(0, draws, at_once):
        sets = rate_matched(sizes, rate, alive, min(at_once, draws - start), generator)
        null.append(overlaps(sets))
        votes_drawn.append(_votes(sets))
    found, votes, counts = overlaps(selected), _votes(selected), torch.cat(votes_drawn)
    jaccard, coefficient = (torch.cat(parts) for parts in zip(*null, strict=True))
    return OverlapNull(
        jaccard=_table(found[0], jaccard),
        overlap_coefficient=_table(found[1], coefficient),
        in_at_least=[null_of(float(votes[k]), counts[:, k]) for k in range(tasks)],
    )


def shared_null(
    one: Bool[Tensor, " features"],
    other: Bool[Tensor, " features"],
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    draws: int,
    seed: int,
) -> Null:
    """Compare the overlap coefficient of two sets with that of random sets of their sizes."""
    null = overlap_null(torch.stack([one, other]), rate, alive, draws, seed)
    return null.overlap_coefficient[0][1]


def _votes(selected: Bool[Tensor, "*draws tasks features"]) -> Float[Tensor, "*draws tasks"]:
    votes = selected.sum(dim=-2)
    return torch.stack([(votes >= k).sum(dim=-1) for k in range(1, selected.shape[-2] + 1)], dim=-1).float()


def _table(found: Float[Tensor, "tasks tasks"], null: Float[Tensor, "draws tasks tasks"]) -> list[list[Null]]:
    tasks = range(len(found))
    return [[null_of(float(found[one, other]), null[:, one, other]) for other in tasks] for one in tasks]


def null_of(found: float, null: Float[Tensor, " draws"]) -> Null:
    """Compare a statistic with draws from its null."""
    high = float(torch.quantile(null, 0.975))
    return Null(found, float(null.mean()), high, (1 + int((null >= found - 1e-9).sum())) / (1 + len(null)))
