"""How much the features of several tasks overlap, beside what chance gives sets of the same sizes.

Features that fire often are retained more often, whatever they do. So the null draws sets as large as those found, a
feature with a probability in proportion to its firing rate.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Null:
    """A number that was found, and its distribution under the null."""

    found: float
    mean: float
    high: float
    """Its 97.5 % quantile."""
    p: float
    """(1 + draws at least as large) / (1 + draws)."""

    def to_json(self) -> dict[str, float]:
        """As plain values."""
        return {"found": self.found, "null": self.mean, "null_high": self.high, "p": self.p}


@dataclass(frozen=True, eq=False)
class OverlapNull:
    """Every number on the overlap of tasks, beside its null."""

    jaccard: list[list[Null]]
    coefficient: list[list[Null]]
    in_at_least: list[Null]
    """Features retained by at least 1, 2, ... tasks."""

    def to_json(self) -> dict[str, object]:
        """As plain values; the tables are [tasks tasks]."""
        return {
            "jaccard": [[one.to_json() for one in row] for row in self.jaccard],
            "overlap_coefficient": [[one.to_json() for one in row] for row in self.coefficient],
            "in_at_least": [one.to_json() for one in self.in_at_least],
        }


def overlaps(
    selected: Bool[Tensor, "tasks features"],
) -> tuple[Float[Tensor, "tasks tasks"], Float[Tensor, "tasks tasks"]]:
    """Jaccard overlap, and shared features over the smaller set; 0 where there is nothing to share."""
    members = selected.double()
    shared, size = members @ members.T, members.sum(dim=1)
    union = size[:, None] + size[None, :] - shared
    smaller = torch.minimum(size[:, None], size[None, :])
    return (shared / union.clamp_min(1)).float(), (shared / smaller.clamp_min(1)).float()


def rate_matched(
    sizes: Int[Tensor, " tasks"],
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    generator: torch.Generator,
) -> Bool[Tensor, "tasks features"]:
    """For each task a random set of so many alive features, drawn one after another in proportion to their rate."""
    # Largest of log rate plus Gumbel noise: drawing without replacement by weight.
    uniform = torch.rand(len(sizes), len(rate), generator=generator).clamp(1e-9, 1 - 1e-7)
    keys = rate.clamp_min(1e-12).log() - (-uniform.log()).log()
    order = torch.where(alive, keys, -torch.inf).argsort(dim=1, descending=True)
    place = torch.empty_like(order).scatter_(1, order, torch.arange(len(rate)).expand_as(order))
    return (place < sizes[:, None]) & alive


def overlap_null(
    selected: Bool[Tensor, "tasks features"],
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    draws: int,
    seed: int,
) -> OverlapNull:
    """Overlaps and votes of the features found, beside those of random sets of the same sizes."""
    generator = torch.Generator().manual_seed(seed)
    sizes, tasks = selected.sum(dim=1), len(selected)
    random = [rate_matched(sizes, rate, alive, generator) for _ in range(draws)]
    found, null = overlaps(selected), [overlaps(sets) for sets in random]
    jaccard, coefficient = (torch.stack([pair[kind] for pair in null]) for kind in (0, 1))
    votes, counts = _votes(selected), torch.stack([_votes(sets) for sets in random])
    return OverlapNull(
        jaccard=_table(found[0], jaccard),
        coefficient=_table(found[1], coefficient),
        in_at_least=[_null(float(votes[k]), counts[:, k]) for k in range(tasks)],
    )


def shared_null(
    one: Bool[Tensor, " features"],
    other: Bool[Tensor, " features"],
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    draws: int,
    seed: int,
) -> Null:
    """Overlap coefficient of two sets, beside that of random sets of their sizes."""
    null = overlap_null(torch.stack([one, other]), rate, alive, draws, seed)
    return null.coefficient[0][1]


def _votes(selected: Bool[Tensor, "tasks features"]) -> Float[Tensor, " tasks"]:
    votes = selected.sum(dim=0)
    return torch.stack([(votes >= k).sum() for k in range(1, len(selected) + 1)]).float()


def _table(found: Float[Tensor, "tasks tasks"], null: Float[Tensor, "draws tasks tasks"]) -> list[list[Null]]:
    tasks = range(len(found))
    return [[_null(float(found[one, other]), null[:, one, other]) for other in tasks] for one in tasks]


def _null(found: float, null: Float[Tensor, " draws"]) -> Null:
    high = float(torch.quantile(null, 0.975))
    return Null(found, float(null.mean()), high, (1 + int((null >= found - 1e-9).sum())) / (1 + len(null)))
