"""T8: checkpoints between which nothing changes, under each alignment."""

from collections.abc import Sequence

import torch

from featdiff.attribution.alignments import joint_trajectory, matched_trajectory, same_seed_index_trajectory
from featdiff.attribution.stability import ScoredCrosscoder
from featdiff.attribution.trajectories import Trajectory
from featdiff.config.crosscoder import BatchTopK
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.provenance import note_origin
from featdiff.planted import Group, World
from featdiff.verify.check import Check
from featdiff.verify.training import TrainingPlan, scored, trained

CHECKPOINTS = ("c1", "c2", "c3")
PLANTED = 40
TOP = 10
LEARNED = 56


def turnover(seed: int) -> list[Check]:
    """All checkpoints have the same features, which the base has at strengths from a tenth to all of theirs.

    The top features are cut out of a steady row of scores, so that noise moves some of them across the cut: two
    measurements of one checkpoint agree in part, and two checkpoints have to agree as much.
    """
    groups = [
        Group(("base", *CHECKPOINTS), 1, (4 * ratio, 4.0, 4.0, 4.0), probability=1 / PLANTED)
        for ratio in torch.linspace(0.1, 1.0, PLANTED).tolist()
    ]
    world = World.build(("base", *CHECKPOINTS), 48, groups, seed=seed, noise=0.2)
    seeds = (2 * seed, 2 * seed + 1)
    blank = {f"{name} {one}": _blank(("base", name), one) for name in CHECKPOINTS for one in seeds}
    blank |= {f"joint {one}": _blank(world.models, one) for one in seeds}
    made = trained(world, blank, TrainingPlan(800, lr=5e-3), seed + 1)

    def measured(name: str) -> ScoredCrosscoder:
        return ScoredCrosscoder(made[name], scored(made[name], world, seed + 2))

    apart = [[measured(f"{name} {one}") for name in CHECKPOINTS] for one in seeds]
    joint = joint_trajectory([measured(f"joint {one}") for one in seeds], CHECKPOINTS, top=TOP)
    matched = matched_trajectory(apart, CHECKPOINTS, top=TOP)
    index = same_seed_index_trajectory(apart, CHECKPOINTS, top=TOP)
    return [
        *_compared(joint),
        *_compared(matched),
        Check("T8", "overlap by index at equal seeds", None, _between(index.overlap)),
        Check("T8", "overlap by index of one checkpoint under two seeds", 0.5, _floor(index), relation="<="),
    ]


def _blank(models: Sequence[str], seed: int) -> Crosscoder:
    crosscoder = Crosscoder(tuple(models), 48, LEARNED, BatchTopK(k=1), seed=seed)
    note_origin(crosscoder, "one stream")
    return crosscoder


def _compared(trajectory: Trajectory) -> list[Check]:
    name = trajectory.alignment
    assert trajectory.relative is not None, "two seeds have a floor"
    return [
        Check("T8", f"{name} overlap divided by the noise floor", 1, _between(trajectory.relative), 0.1),
        Check("T8", f"noise floor of the {name} overlap", 0.5, _floor(trajectory), relation=">="),
    ]


def _between(overlap: torch.Tensor) -> float:
    """Mean over pairs of different checkpoints."""
    return float(overlap[~torch.eye(len(overlap), dtype=torch.bool)].mean())


def _floor(trajectory: Trajectory) -> float:
    return float("nan") if trajectory.noise_floor is None else trajectory.noise_floor
