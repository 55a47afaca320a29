"""Models interpolated between two models."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from featdiff.planted.world import World


def interpolated(world: World, alphas: Sequence[float]) -> World:
    """The base, models at base + alpha (tuned - base) for each alpha, and the tuned model: drift in known amounts.

    Of a world of two models; the models between are called by their alpha. What a feature adds to one of them is the
    mix of what it adds to the two, so with one direction for both the strengths mix, and its NRN against the base is
    s / (s_base + s) with s = s_base + alpha (s_tuned - s_base).
    """
    if len(world.models) != 2:
        raise ValueError(f"the world has the models {list(world.models)}; models lie between two")
    base, tuned = world.models
    between = [f"{alpha:g}" for alpha in alphas]
    if len({base, tuned, *between}) < 2 + len(between):
        raise ValueError(f"alphas {list(alphas)} would name a model twice; give each once")
    mix = torch.tensor([0.0, *alphas, 1.0])
    weights = torch.stack([1 - mix, mix])
    rows = einsum(world.rows, weights, "k pair d, pair m -> k m d")
    return replace(
        world,
        models=(base, *between, tuned),
        strength=rows.norm(dim=-1),
        direction=_directions(rows, world.direction[:, 0]),
        gain=torch.ones(len(mix)),
    )


def _directions(
    rows: Float[Tensor, "features models d_model"], fallback: Float[Tensor, "features d_model"]
) -> Float[Tensor, "features models d_model"]:
    """Unit vectors along the rows; the fallback where a row is zero."""
    norms = rows.norm(dim=-1, keepdim=True)
    return torch.where(norms > 0, rows / norms.where(norms > 0, 1.0), fallback[:, None])
