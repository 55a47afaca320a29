"""Trajectories of specific features over the checkpoints of a training (Sec. 5.2, App. B.1).

At every checkpoint c a feature k has a score against the base, the two-model NRN or its like,

    NRN_k^c = |W_k^c| / (|W_k^base| + |W_k^c|) = MAS_k^c / (MAS_k^base + MAS_k^c),

and the top k of each two checkpoints are compared. What makes features of two checkpoints the same feature is the
*alignment*; `alignments` has a function for each:

joint            one crosscoder over the base and all checkpoints: the same index is the same feature
matched          a crosscoder per checkpoint, features paired by decoder direction
swap             one crosscoder of the base and the tuned model, read with each checkpoint in the tuned model's place
same_seed_index  the paper's: a crosscoder per checkpoint, the same index; it says as much about the seed as about the
                 models

What is measured twice does not agree with itself. The *noise floor* of a checkpoint is the overlap that it reaches with
itself under another seed, features paired by decoder direction. Two checkpoints are comparable with that only if they
too are measured with different seeds. With O_cd the overlap of checkpoint c under one seed and d under another, the
mean over all pairs of seeds, the share of the possible agreement that they reach is

    relative_cd = O_cd / sqrt(O_cc O_dd)

which is 1 where nothing has changed, whatever the noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from featdiff.attribution.scores import Attribution, ranking
from featdiff.attribution.stability import aligned_scores, seed_interval

Alignment = Literal["joint", "matched", "swap", "same_seed_index"]
"""What makes features of different checkpoints the same feature."""


@dataclass(frozen=True, eq=False)
class CheckpointScores:
    """Scores of the features at all checkpoints under one seed, of one dictionary or of one per checkpoint."""

    specificity: Float[Tensor, "checkpoints features"]
    alive: Bool[Tensor, "checkpoints features"]


SeedAndCheckpoint = tuple[int, int]
"""Positions of a seed and of a checkpoint."""

SameFeature = Callable[[SeedAndCheckpoint, SeedAndCheckpoint], Int[Tensor, " features"]]
"""For each feature of the first place the same one at the second, -1 where there is none."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One paradigm over its checkpoints.

    `overlap` is the share of the top k that two checkpoints have in common, both measured with the first seed; two
    random sets would share `chance` of it. `between_seeds` compares each checkpoint under one seed with each under
    another, its diagonal is the noise floor of each checkpoint, and `noise_floor` their mean; both are None with one
    seed. `ranked` holds the top k of each checkpoint, best first.

    Rank shifts are those of features whose score is known: of `counted[c]` at checkpoint c, the top k among features
    whose interval over seeds excludes 0.5 (with one seed: all). `rank_shift[c, j]` is by how many places the j-th of
    them has climbed at the next checkpoint (negative: fallen), NaN where it has left the top k (the paper's blanks) and
    beyond the last that is counted.
    """

    checkpoints: tuple[str, ...]
    alignment: Alignment
    specificity: Float[Tensor, "checkpoints features"]
    ranked: Int[Tensor, "checkpoints k"]
    overlap: Float[Tensor, "checkpoints checkpoints"]
    chance: float
    noise_floor: float | None
    rank_shift: Float[Tensor, "checkpoints-1 k"]
    counted: tuple[int, ...]
    between_seeds: Float[Tensor, "checkpoints checkpoints"] | None = None
    seeds: int = 1

    @property
    def floors(self) -> Float[Tensor, " checkpoints"] | None:
        """The noise floor of each checkpoint: its overlap with itself under another seed."""
        return None if self.between_seeds is None else self.between_seeds.diagonal()

    @property
    def relative(self) -> Float[Tensor, "checkpoints checkpoints"] | None:
        """Overlap divided by the noise floor; NaN where that is 0, None where it was not measured.

        Of `same_seed_index` the overlap at equal seeds is divided, since that is all it has: above 1 two checkpoints
        agree more than one does with itself, which is the seed and not the models.
        """
        if self.between_seeds is None:
            return None
        floors = self.between_seeds.diagonal()
        numerator = self.overlap if self.alignment == "same_seed_index" else self.between_seeds
        floor = (floors.unsqueeze(1) * floors).sqrt()
        return torch.where(floor > 0, numerator / floor, torch.nan)


def joint_scores(attribution: Attribution, checkpoints: Sequence[str]) -> CheckpointScores:
    """The NRN of every checkpoint against the base, which is the first model of the crosscoder."""
    check_two_checkpoints(checkpoints)
    base = attribution[attribution.models[0]]
    specificity = torch.stack([attribution[name] / (base + attribution[name]) for name in checkpoints])
    return CheckpointScores(specificity.cpu(), attribution.alive.cpu().expand(len(checkpoints), -1))


def follow(
    readings: Sequence[CheckpointScores],
    checkpoints: Sequence[str],
    same: SameFeature,
    known: Bool[Tensor, "checkpoints features"],
    alignment: Alignment,
    *,
    top: int = 50,
) -> Trajectory:
    """Follow checkpoints that were measured once or, with different seeds, several times.

    Arguments:
        readings: the scores under each seed; overlap, ranks and rank shifts are those of the first.
        checkpoints: their names, two at least, in the order of the scores.
        same: which features of two places are one.
        known: features of the first reading that have rank shifts.
        alignment: noted in the result.
        top: features compared; fewer where fewer are alive.

    Raises ValueError for fewer than two checkpoints, or one without alive features.
    """
    check_two_checkpoints(checkpoints)
    rankings = [[ranking(*scores) for scores in zip(one.specificity, one.alive, strict=True)] for one in readings]
    k = min(top, *(len(features) for of_reading in rankings for features in of_reading))
    if k < 1:
        raise ValueError("no feature of the checkpoint crosscoder is alive; train it longer or lower its sparsity")
    tops = [torch.stack([features[:k] for features in of_reading]) for of_reading in rankings]

    def overlap(s: int, t: int) -> Float[Tensor, "checkpoints checkpoints"]:
        """Of each checkpoint under seed s with each under seed t."""
        rows = [[common(a, b, same((s, c), (t, d))) for d, b in enumerate(tops[t])] for c, a in enumerate(tops[s])]
        return torch.tensor(rows, dtype=torch.float64)

    pairs = [overlap(s, t) for s in range(len(tops)) for t in range(len(tops)) if s != t]
    between = torch.stack(pairs).sum(dim=0).float() / len(pairs) if pairs else None
    counted = [features[mask[features]][:k] for features, mask in zip(rankings[0], known, strict=True)]
    shifts = [places_climbed(same((0, c), (0, c + 1))[now], later) for c, (now, later) in enumerate(pairwise(counted))]
    return Trajectory(
        checkpoints=tuple(checkpoints),
        alignment=alignment,
        specificity=readings[0].specificity,
        ranked=tops[0],
        overlap=overlap(0, 0).float(),
        chance=_chance(rankings[0], same, k),
        noise_floor=None if between is None else float(between.diagonal().mean()),
        rank_shift=torch.stack([pad(row, (0, k - len(row)), value=torch.nan) for row in shifts]),
        counted=tuple(len(features) for features in counted),
        between_seeds=between,
        seeds=len(readings),
    )


def common(now: Int[Tensor, " k"], later: Int[Tensor, " k"], same: Int[Tensor, " features"]) -> float:
    """Share of the features `now` whose same feature is among those of `later`."""
    return float(torch.isin(same[now], later).float().mean())


def places_climbed(now: Int[Tensor, " k"], later: Int[Tensor, " others"]) -> Float[Tensor, " k"]:
    """Old rank minus new rank of each feature in `now`; NaN where `later` does not hold it."""
    if not len(later):
        return torch.full((len(now),), torch.nan)
    stays, new_rank = (now.unsqueeze(1) == later).max(dim=1)
    old_rank = torch.arange(len(now), device=now.device)
    return torch.where(stays, (old_rank - new_rank).float(), torch.nan)


def features_beyond_noise(
    readings: Sequence[CheckpointScores], same: SameFeature
) -> Bool[Tensor, "checkpoints features"]:
    """Features of the first reading whose score differs from 0.5 by more than its noise: the interval over the readings
    in which the feature is found again excludes 0.5. All of them where there is one reading, which has no interval."""
    if len(readings) == 1:
        return torch.ones_like(readings[0].alive)
    rows = []
    for c in range(len(readings[0].alive)):
        partners = [same((0, c), (s, c)) for s in range(len(readings))]
        low, high = seed_interval(aligned_scores([reading.specificity[c] for reading in readings], partners))
        rows.append((low > 0.5) | (high < 0.5))
    return torch.stack(rows)


def _chance(rankings: Sequence[Int[Tensor, " _"]], same: SameFeature, k: int) -> float:
    """Overlap of k random features of one checkpoint and k of another, the mean over pairs: k pairs / (n m), where
    `pairs` of n and m features are the same."""
    expected = [
        k * float(torch.isin(same((0, c), (0, d))[one], other).sum()) / (len(one) * len(other))
        for c, one in enumerate(rankings)
        for d, other in enumerate(rankings)
        if c != d
    ]
    return sum(expected) / len(expected)


def check_two_checkpoints(checkpoints: Sequence[str]) -> None:
    """Refuse a row of fewer than two checkpoints."""
    if len(checkpoints) < 2:
        raise ValueError(f"dynamics needs at least two checkpoints, got {', '.join(checkpoints) or 'none'}")
