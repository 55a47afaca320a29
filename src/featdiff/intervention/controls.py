"""Random feature sets and directions that an effect is compared with.

Any perturbation lowers a model on items that were chosen because it is right on them. So a set of features matters only
if it does more than other sets of the same size that are as active: that fire as often and push the residual stream as
far, at the positions that are edited.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Controls:
    """Random feature sets, one a row; `note` says where they fall short of what was asked, and is empty otherwise."""

    kind: str
    features: Int[Tensor, "draws n"]
    pool: int
    """Features that could be drawn."""
    note: str = ""


def activity_matched(
    chosen: Int[Tensor, " n"],
    density: Float[Tensor, " features"],
    contribution: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    draws: int,
    seed: int,
    *,
    neighbours: int = 20,
) -> Controls:
    """In each draw, each chosen feature is replaced by one of those most like it in activity.

    Alike are features near to each other in log `density` and log `contribution` at the edited positions, both
    standardised over the features that can be drawn: alive, and not chosen. A draw holds no feature twice; where the
    `neighbours` nearest are used up, the next nearest serve. With fewer features to draw from than were chosen, sets
    are smaller, and `note` says so.
    """
    pool = _pool(chosen, alive)
    size = min(len(chosen), len(pool))
    activity = torch.stack([_logarithm(density), _logarithm(contribution)], dim=1)
    if len(pool) > 1:
        activity = activity / activity[pool].std(dim=0).clamp_min(1e-9)
    nearest = torch.cdist(activity[chosen], activity[pool]).argsort(dim=1, stable=True).tolist()
    generator = torch.Generator().manual_seed(seed)
    sets = [_matched_set(nearest, size, neighbours, generator) for _ in range(draws)]
    features = pool[torch.tensor(sets, dtype=torch.long).reshape(draws, size)]
    return Controls("activity-matched", features, len(pool), _note(len(chosen), len(pool)))


def uniform_alive(chosen: Int[Tensor, " n"], alive: Bool[Tensor, " features"], draws: int, seed: int) -> Controls:
    """In each draw, as many features as were chosen, uniformly from those alive and not chosen."""
    pool = _pool(chosen, alive)
    size = min(len(chosen), len(pool))
    generator = torch.Generator().manual_seed(seed)
    sets = [torch.randperm(len(pool), generator=generator)[:size].tolist() for _ in range(draws)]
    features = pool[torch.tensor(sets, dtype=torch.long).reshape(draws, size)]
    return Controls("uniform alive", features, len(pool), _note(len(chosen), len(pool)))


def random_directions(d_model: int, draws: int, seed: int) -> Float[Tensor, "draws d_model"]:
    """Unit vectors, uniform on the sphere: `Edit.along` moves a token in one of them as far as the features would."""
    drawn = torch.randn(draws, d_model, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def mean_differences(
    tuned: Float[Tensor, "items d_model"], base: Float[Tensor, "items d_model"], draws: int, seed: int
) -> Float[Tensor, "draws d_model"]:
    """mu_tuned - mu_base at the layer: first over all items, in further draws over items drawn with replacement."""
    difference, items = tuned - base, len(tuned)
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.arange(items), *(torch.randint(items, (items,), generator=generator) for _ in range(draws - 1))]
    return torch.stack([difference[row].mean(dim=0) for row in rows[:draws]]).reshape(draws, -1)


def _pool(chosen: Int[Tensor, " n"], alive: Bool[Tensor, " features"]) -> Int[Tensor, " pool"]:
    free = alive.clone()
    free[chosen] = False
    return free.nonzero().flatten()


def _logarithm(values: Float[Tensor, " features"]) -> Float[Tensor, " features"]:
    """Logarithm in which zero counts as half of the smallest positive value."""
    positive = values[values > 0].double()
    floor = positive.min() / 2 if len(positive) else torch.tensor(1.0, dtype=torch.float64)
    return values.double().clamp_min(floor).log()


def _matched_set(nearest: list[list[int]], size: int, neighbours: int, generator: torch.Generator) -> list[int]:
    """One draw: a place in the pool for each of `size` chosen features, which take their turns in random order."""
    used: set[int] = set()
    for row in torch.randperm(len(nearest), generator=generator)[:size].tolist():
        near, window = [], neighbours
        while not near:
            near = [place for place in nearest[row][:window] if place not in used]
            window *= 2
        used.add(near[int(torch.randint(len(near), (1,), generator=generator))])
    return sorted(used)


def _note(chosen: int, pool: int) -> str:
    if pool < chosen:
        return f"only {pool} features can be drawn for {chosen} chosen ones: the control sets are smaller"
    if chosen > 0 and pool < 2 * chosen:
        return f"only {pool} features can be drawn for {chosen} chosen ones: the control sets overlap strongly"
    return ""
