"""Tails that are made by the penalty, and tails that are real."""

import torch

from featdiff.attribution.latent_scaling import latent_scaling, scaled_tails
from featdiff.config.crosscoder import BatchTopK, ReLU
from featdiff.crosscoder.model import Crosscoder
from featdiff.planted import Group, World
from featdiff.verify.check import Check
from featdiff.verify.training import TrainingPlan, found, held_out, scored, trained

PAIR = ("base", "tuned")
TRIO = ("base", "sft", "rl")
TAIL = 0.9
"""Above the NRN of a feature at ratio 0.2, which is 5/6."""


def gains(seed: int) -> list[Check]:
    """Nothing is specific to a model: every feature is in both, a third of them five times weaker in the base."""
    weak, even, fires = 12, 24, 1 / 36
    groups = [Group(PAIR, weak, (0.8, 4.0), probability=fires), Group(PAIR, even, (4.0, 4.0), probability=fires)]
    world = World.build(PAIR, 48, groups, seed=seed)
    sparsities = {"L1": ReLU(weight=2.0), "BatchTopK": BatchTopK(k=1)}
    blank = {name: Crosscoder(PAIR, 48, 96, sparsity, seed=seed) for name, sparsity in sparsities.items()}
    made = trained(world, blank, TrainingPlan(800, 256, lr=1e-2), seed + 1)
    tails = {}
    for name, crosscoder in made.items():
        scaling = latent_scaling(crosscoder, held_out(world, seed + 3, 40_000))
        tails[name] = scaled_tails(scored(crosscoder, world, seed + 2), scaling, "tuned", (TAIL,))[0]
    removed = 1 - tails["L1"].absent / tails["L1"].before if tails["L1"].before else float("nan")
    return [
        Check("gains", "tail that L1 reports at beta = 2 where there is none", weak // 2, tails["L1"].before, 0, ">="),
        Check("gains", "share of it that latent scaling removes", 0.95, removed, relation=">="),
        Check("gains", "tail under BatchTopK", 0, tails["BatchTopK"].before),
    ]


def rl_only(seed: int) -> list[Check]:
    """40 features that only rl has, among 60 others."""
    fires = 2 / 100
    groups = [
        Group(TRIO, 40, (4.0,) * 3, probability=fires, magnitude="uniform"),
        Group(("base",), 10, (4.0,), probability=fires, magnitude="uniform"),
        Group(("sft", "rl"), 10, (4.0, 4.0), probability=fires, magnitude="uniform"),
        Group(("rl",), 40, (4.0,), probability=fires, magnitude="uniform"),
    ]
    world = World.build(TRIO, 112, groups, seed=seed, noise=0.05)
    blank = Crosscoder(TRIO, 112, 256, BatchTopK(k=2), seed=seed)
    crosscoder = trained(world, {"rl": blank}, TrainingPlan(2000, 256, lr=5e-3), seed + 1)["rl"]
    attribution = scored(crosscoder, world, seed + 2)
    tail = attribution.alive & (attribution["rl"] > 0.8)
    planted = found(crosscoder, world)[world.group_of == len(groups) - 1]
    true = torch.zeros_like(tail)
    true[planted[planted >= 0]] = True
    return [
        Check(
            "rl-only", "of 40 planted features of rl alone, found in its tail", 36, int((tail & true).sum()), 0, ">="
        ),
        Check("rl-only", "false features in that tail", 2, int((tail & ~true).sum()), relation="<="),
    ]
