"""Trajectories under each alignment, with the noise floor where there is a second seed.

All take crosscoders of several seeds, the first of which supplies `overlap`, ranks and rank shifts; one seed measures
no floor. Across seeds, and across the crosscoders of different checkpoints, features are paired by decoder direction
above the cosine `acceptance`, among features that are alive in both.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float

from featdiff.attribution.matching import Matching
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

Models = Sequence[str | tuple[str, str]]


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
    specificity: Sequence[Float[torch.Tensor, "checkpoints features"]],
    checkpoints: Sequence[str],
    *,
    top: int = 50,
    acceptance: float = 0.7,
) -> Trajectory:
    """One crosscoder of the base and the tuned model; `specificity` of each seed is what `swap.swap_specificity` found
    with every checkpoint in the tuned model's place."""
    measured = zip(seeds, specificity, strict=True)
    readings = [
        CheckpointScores(scores, one.attribution.alive.cpu().expand(len(scores), -1)) for one, scores in measured
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
        _check_one_origin(of_seed, checkpoints)
    readings = [_pair_scores(of_seed, checkpoints) for of_seed in seeds]
    index = torch.arange(readings[0].alive.shape[1])
    known = features_beyond_noise(readings, _across_checkpoints(seeds, checkpoints, acceptance))
    return follow(readings, checkpoints, lambda _, __: index, known, "same_seed_index", top=top)


def _check_one_origin(scored: Sequence[ScoredCrosscoder], checkpoints: Sequence[str]) -> None:
    """Refuse crosscoders whose indices have no common meaning."""
    origins = [origin_of(one.crosscoder) for one in scored]
    if unknown := [name for name, origin in zip(checkpoints, origins, strict=True) if origin is None]:
        raise ValueError(
            f"the crosscoders of {', '.join(unknown)} do not record seed, initial weights and order of the data, "
            "so their indices cannot be compared; train them by featdiff, or use the alignment matched"
        )
    for what in ("seed", "initial_weights", "data_order"):
        values = dict.fromkeys(str(getattr(origin, what)) for origin in origins)
        if len(values) > 1:
            raise ValueError(
                f"the crosscoders of {', '.join(checkpoints)} differ in {what.replace('_', ' ')} "
                f"({', '.join(values)}), so their indices cannot be compared; train them alike, or use the alignment "
                "matched"
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


def _across_seeds(seeds: Sequence[ScoredCrosscoder], models: Models, acceptance: float) -> SameFeature:
    """The same feature at another checkpoint is itself; in another seed, the one that it is matched with."""
    return _matched(seeds, lambda place: place[0], lambda a, b: models, acceptance)


def _across_checkpoints(
    seeds: Sequence[Sequence[ScoredCrosscoder]], names: Sequence[str], acceptance: float
) -> SameFeature:
    """Every place has a dictionary of its own; features are matched in the base and in each one's checkpoint."""
    flat, count = [one for of_seed in seeds for one in of_seed], len(names)
    base = flat[0].crosscoder.models[0]
    return _matched(
        flat,
        lambda place: place[0] * count + place[1],
        lambda a, b: (base, (names[a % count], names[b % count])),
        acceptance,
    )


def _matched(
    scored: Sequence[ScoredCrosscoder],
    dictionary: Callable[[SeedAndCheckpoint], int],
    models: Callable[[int, int], Models],
    acceptance: float,
) -> SameFeature:
    """What is the same at two places: the matched features of the dictionaries there; each two are matched once."""

    @cache
    def matching(a: int, b: int) -> Matching:
        if a > b:
            return matching(b, a).reversed()
        return match_scored(scored[a], scored[b], acceptance, models(a, b))

    def same(one: SeedAndCheckpoint, other: SeedAndCheckpoint) -> torch.Tensor:
        a, b = dictionary(one), dictionary(other)
        return torch.arange(scored[a].crosscoder.features) if a == b else matching(a, b).partner

    return same
