"""Interpolated models: the further a model has drifted from the base, the longer its tail (method: matched drift)."""

from itertools import pairwise

from featdiff.config.crosscoder import BatchTopK
from featdiff.crosscoder.model import Crosscoder
from featdiff.planted import Group, World, interpolated
from featdiff.verify.check import Check
from featdiff.verify.training import TrainingPlan, scored, trained

PAIR = ("base", "tuned")
ALPHAS = (1 / 3, 2 / 3)
RATIOS = (19.0, 7.0, 4.6, 2.0)
"""Strength in the tuned model over that in the base. NRN passes 0.8 where 1 + alpha (ratio - 1) passes 4: at alpha 1/6,
1/2, 5/6, and never."""
EACH = 6
TAIL = 0.8


def drift(seed: int) -> list[Check]:
    """Crosscoders of the base and models at alpha = 1/3, 2/3 and 1 on the way to the tuned one."""
    fires = 1 / (EACH * len(RATIOS))
    groups = [Group(PAIR, EACH, (6.0 / ratio, 6.0), probability=fires) for ratio in RATIOS]
    world = interpolated(World.build(PAIR, 48, groups, seed=seed), ALPHAS)
    blank = {name: Crosscoder(("base", name), 48, 64, BatchTopK(k=1), seed=seed) for name in world.models[1:]}
    made = trained(world, blank, TrainingPlan(1000, 256, lr=5e-3), seed + 1)
    tails = [scored(made[name], world, seed + 2).tails(name, (TAIL,))[f"{TAIL:g}"] for name in world.models[1:]]
    checks = [
        Check("drift", f"tail at alpha = {alpha:.2g}", EACH * (step + 1), tail, 1)
        for step, (alpha, tail) in enumerate(zip((*ALPHAS, 1.0), tails, strict=True))
    ]
    rises = sum(later > now for now, later in pairwise(tails))
    return [*checks, Check("drift", "steps of alpha that lengthen the tail", len(ALPHAS), rises)]
