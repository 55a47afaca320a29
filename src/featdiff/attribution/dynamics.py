"""How specific features form while a model trains (Sec. 5.2, App. B.1).

One crosscoder over the base and the checkpoints c1..cn of one paradigm gives every checkpoint a score for the same
features: the two-model NRN of the checkpoint against the base,

    NRN_k^c = |W_k^c| / (|W_k^base| + |W_k^c|) = MAS_k^c / (MAS_k^base + MAS_k^c).

Each checkpoint's features are ranked by it, and the top k of two checkpoints are compared. The paper trains one
crosscoder per checkpoint and compares indices, which says as much about the seed as about the models; hence `alignment`
and `noise_floor` have no defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.attribution.scores import Attribution, ranking

Alignment = Literal["joint"]
"""What makes features of different checkpoints the same feature: one crosscoder over all of them."""


@dataclass(frozen=True)
class Trajectory:
    """One paradigm over its checkpoints.

    `overlap` is the share of the top k that two checkpoints have in common; two random sets would share
    `chance` = k / alive of it, the same checkpoint measured twice `noise_floor` (None: not measured). `ranked` holds
    the top k of each checkpoint, best first. `rank_shift[c, j]` is by how many places the feature ranked j-th at
    checkpoint c has climbed at the next one (negative: fallen), NaN where it has left the top k (the paper's blanks).
    """

    checkpoints: tuple[str, ...]
    alignment: Alignment
    specificity: Float[Tensor, "checkpoints features"]
    ranked: Int[Tensor, "checkpoints k"]
    overlap: Float[Tensor, "checkpoints checkpoints"]
    chance: float
    noise_floor: float | None
    rank_shift: Float[Tensor, "checkpoints-1 k"]


def trajectory(
    attribution: Attribution,
    checkpoints: Sequence[str],
    *,
    top: int = 50,
    alignment: Alignment,
    noise_floor: float | None,
) -> Trajectory:
    """Follow the features of a joint crosscoder through the named checkpoints, in the order given.

    `attribution` is that of a crosscoder over the base, which comes first, and all the checkpoints; norm, units and the
    alive filter are its own. Where fewer than `top` features are alive, all of them are ranked;
    a feature that neither the base nor a checkpoint decodes takes no part at that checkpoint.
    """
    if len(checkpoints) < 2:
        raise ValueError(f"dynamics needs at least two checkpoints, got {', '.join(checkpoints) or 'none'}")
    base = attribution[attribution.models[0]]
    specificity = torch.stack([attribution[name] / (base + attribution[name]) for name in checkpoints])
    rankings = [ranking(scores, attribution.alive) for scores in specificity]
    k = min(top, *(len(features) for features in rankings))
    if k < 1:
        raise ValueError("no feature of the checkpoint crosscoder is alive; train it longer or lower its sparsity")
    ranked = torch.stack([features[:k] for features in rankings])
    return Trajectory(
        checkpoints=tuple(checkpoints),
        alignment=alignment,
        specificity=specificity,
        ranked=ranked,
        overlap=overlap(ranked),
        chance=k / int(attribution.alive.sum()),
        noise_floor=noise_floor,
        rank_shift=rank_shift(ranked),
    )


def overlap(ranked: Int[Tensor, "checkpoints k"]) -> Float[Tensor, "checkpoints checkpoints"]:
    """|A and B| / k of the top-k sets A, B of each two checkpoints (Fig. 2)."""
    shared = [[torch.isin(one, other).float().mean() for other in ranked] for one in ranked]
    return torch.stack([torch.stack(row) for row in shared])


def rank_shift(ranked: Int[Tensor, "checkpoints k"]) -> Float[Tensor, "checkpoints-1 k"]:
    """Places climbed from each checkpoint to the next, NaN for a feature that leaves the top k (Fig. 8-11)."""
    return torch.stack([places_climbed(now, later) for now, later in pairwise(ranked)])


def places_climbed(now: Int[Tensor, " k"], later: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Old rank minus new rank of each feature in `now`; NaN where `later` does not hold it."""
    stays, new_rank = (now.unsqueeze(1) == later).max(dim=1)
    old_rank = torch.arange(len(now), device=now.device)
    return torch.where(stays, (old_rank - new_rank).float(), torch.nan)
