"""Trajectories under each alignment, with the noise floor where there is a second seed.

All take crosscoders of several seeds, the first of which supplies `overlap`, ranks and rank shifts; one seed measures
no floor. Across seeds, and across the crosscoders of different checkpoints, features are paired by decoder direction
above the cosine `acceptance`, among features that are alive in both.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.attribution.stability import ScoredCrosscoder, match_scored
from featdiff.attribution.trajectories import (
    CheckpointScores,
    SameFeature,
    SeedAndCheckpoint,
    Trajectory,
    check_two_checkpoints,
    features_beyond_noise,
    follow,
    joint_scores,
)
from featdiff.crosscoder.provenance import origin_of


def joint_trajectory(
    seeds: Sequence[ScoredCrosscoder], checkpoints: Sequence[str], *, top: int = 50, acceptance: float = 0.7
) -> Trajectory:
    """One crosscoder over the base and all checkpoints, or several of different seeds.

    Across seeds features are paired by their decoders in the base and all the checkpoints.
    """
    readings = [joint_scores(one.attribution, checkpoints) for one in seeds]
    same = _across_seeds(seeds, (seeds[0].crosscoder.models[0], *checkpoints), acceptance)
    return follow(readings, checkpoints, same, features_beyond_noise(readings, same), "joint", top=top)


def matched_trajectory(
    seeds: Sequence[Sequence[ScoredCrosscoder]], checkpoints: Sequence[str], *, top: int = 50, acceptance: float = 0.7
) -> Trajectory:
    """A crosscoder of the base and each checkpoint, in the order of `checkpoints`, for one seed or several.

    Features are paired by their decoders in the base and the checkpoint.
    """
    readings = [_pair_scores(of_seed, checkpoints) for of_seed in seeds]
    same = _across_checkpoints(seeds, checkpoints, acceptance)
    return follow(readings, checkpoints, same, features_beyond_noise(readings, same), "matched", top=top)


def swap_trajectory(
    seeds: Sequence[ScoredCrosscoder],
    specificity: Sequence[Float[Tensor, "checkpoints features"]],
    checkpoints: Sequence[str],
    *,
    top: int = 50,
    acceptance: float = 0.7,
) -> Trajectory:
    """One crosscoder of the base and the tuned model; `specificity` of each seed is what `swap.swap_specificity` found
    with every checkpoint in the tuned model's place."""
    readings = [
        CheckpointScores(scores, one.attribution.alive.cpu().expand(len(checkpoints), -1))
        for one, scores in zip(seeds, specificity, strict=True)
    ]
    same = _across_seeds(seeds, seeds[0].crosscoder.models, acceptance)
    return follow(readings, checkpoints, same, features_beyond_noise(readings, same), "swap", top=top)


def same_seed_index_trajectory(
    seeds: Sequence[Sequence[ScoredCrosscoder]], checkpoints: Sequence[str], *, top: int = 50, acceptance: float = 0.7
) -> Trajectory:
    """The paper's comparison: a crosscoder of the base and each checkpoint, features with the same index called the
    same.

    ValueError in one line unless seed, initial weights and order of the data are recorded, and equal for all
    checkpoints of a seed. The noise floor is the paper's as well: the overlap, by index, of one checkpoint under two
    seeds.
    """
    for of_seed in seeds:
        check_one_origin(of_seed, checkpoints)
    readings = [_pair_scores(of_seed, checkpoints) for of_seed in seeds]
    index = torch.arange(readings[0].alive.shape[1])
    known = features_beyond_noise(readings, _across_checkpoints(seeds, checkpoints, acceptance))
    return follow(readings, checkpoints, lambda _, __: index, known, "same_seed_index", top=top)


def check_one_origin(scored: Sequence[ScoredCrosscoder], checkpoints: Sequence[str]) -> None:
    """Refuse crosscoders whose indices have no common meaning."""
    origins = [origin_of(one.crosscoder) for one in scored]
    if unknown := [name for name, origin in zip(checkpoints, origins, strict=True) if origin is None]:
        raise ValueError(
            f"the crosscoders of {', '.join(unknown)} do not record seed, initial weights and order of the data, "
            "so their indices cannot be compared; train them by featdiff, or use the alignment matched"
        )
    for what in ("seed", "initial_weights", "data_order"):
        values = [str(getattr(origin, what)) for origin in origins]
        if len(set(values)) > 1:
            raise ValueError(
                f"the crosscoders of {', '.join(checkpoints)} differ in {what.replace('_', ' ')} "
                f"({', '.join(dict.fromkeys(values))}), so their indices cannot be compared; train them alike, or use "
                "the alignment matched"
            )


def _pair_scores(scored: Sequence[ScoredCrosscoder], checkpoints: Sequence[str]) -> CheckpointScores:
    check_two_checkpoints(checkpoints)
    for one, name in zip(scored, checkpoints, strict=True):
        if len(one.crosscoder.models) != 2 or one.crosscoder.models[1] != name:
            raise ValueError(
                f"a crosscoder of the base and {name} is wanted; this one aligns {', '.join(one.crosscoder.models)}"
            )
    if len(sizes := {one.crosscoder.features for one in scored}) > 1:
        raise ValueError(
            f"the crosscoders of the checkpoints have {', '.join(map(str, sorted(sizes)))} features; give them one size"
        )
    specificity = torch.stack([one.attribution[name].cpu() for one, name in zip(scored, checkpoints, strict=True)])
    return CheckpointScores(specificity, torch.stack([one.attribution.alive.cpu() for one in scored]))


def _across_seeds(seeds: Sequence[ScoredCrosscoder], models: tuple[str, ...], acceptance: float) -> SameFeature:
    """The same feature at another checkpoint is itself; in another seed, the one that it is matched with."""
    return _by_dictionary(
        lambda place: place[0], lambda a, b: match_scored(seeds[a], seeds[b], acceptance, models).partner, _sizes(seeds)
    )


def _across_checkpoints(
    seeds: Sequence[Sequence[ScoredCrosscoder]], checkpoints: Sequence[str], acceptance: float
) -> SameFeature:
    """Every place has a dictionary of its own; features are matched in the base and in each one's checkpoint."""
    flat = [one for of_seed in seeds for one in of_seed]
    base, count = flat[0].crosscoder.models[0], len(checkpoints)

    def partner(a: int, b: int) -> Int[Tensor, " features"]:
        models = (base, (checkpoints[a % count], checkpoints[b % count]))
        return match_scored(flat[a], flat[b], acceptance, models).partner

    return _by_dictionary(lambda place: place[0] * count + place[1], partner, _sizes(flat))


def _sizes(scored: Sequence[ScoredCrosscoder]) -> list[int]:
    return [one.crosscoder.features for one in scored]


def _by_dictionary(
    dictionary: Callable[[SeedAndCheckpoint], int],
    partner: Callable[[int, int], Int[Tensor, " features"]],
    sizes: list[int],
) -> SameFeature:
    """What is the same at two places, from what is the same in two dictionaries; each two are matched once."""

    @cache
    def between(a: int, b: int) -> Int[Tensor, " features"]:
        if a == b:
            return torch.arange(sizes[a])
        if a < b:
            return partner(a, b)
        return _turned(between(b, a), sizes[a])

    return lambda one, other: between(dictionary(one), dictionary(other))


def _turned(partner: Int[Tensor, " others"], size: int) -> Int[Tensor, " features"]:
    """The same pairs, looked up from the other side."""
    turned = torch.full((size,), -1)
    paired = (partner >= 0).nonzero().flatten()
    turned[partner[paired]] = paired
    return turned
