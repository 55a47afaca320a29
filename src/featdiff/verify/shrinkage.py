"""T2 and T4: what L1 does to a contribution, and how latent scaling sees through it."""

import torch
from torch import Tensor

from featdiff.attribution.latent_scaling import latent_scaling
from featdiff.attribution.scores import Attribution
from featdiff.config.crosscoder import ReLU
from featdiff.crosscoder.model import Crosscoder
from featdiff.planted import Group, World
from featdiff.verify.check import Check
from featdiff.verify.training import TrainingPlan, alone, held_out, trained

PAIR = ("base", "tuned")
RATIOS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
PER_RATIO = 4
SHRUNK = 3
"""How many of the ratios beta = 2 makes look specific."""


def shrinkage(seed: int) -> list[Check]:
    """Features of strength 4 in the tuned model and 4 x ratio in the base, under beta = 2 and 4."""
    groups = [Group(PAIR, PER_RATIO, (4 * ratio, 4.0), probability=0.008) for ratio in RATIOS]
    world = World.build(PAIR, 64, groups, seed=seed)
    betas = {"2": 2.0, "4": 4.0}
    blank = {name: Crosscoder(PAIR, 64, 96, ReLU(weight=beta), seed=seed) for name, beta in betas.items()}
    made = trained(world, blank, TrainingPlan(1000, lr=1e-2), seed + 1)
    shrunk = [
        Check("T2", f"contribution under beta = {beta:g}, largest mean error", 0, _error(made[name], world, beta), 0.05)
        for name, beta in betas.items()
    ]
    return [*shrunk, *_scaled(made["2"], world, seed + 2)]


def _error(crosscoder: Crosscoder, world: World, beta: float) -> float:
    """The largest, over ratios and models, of the mean distance from max(0, c - beta / 2)."""
    tokens = alone(world, 0)
    rebuilt = crosscoder.decode(crosscoder.encode(tokens)).detach()
    contribution = (rebuilt * world.direction).sum(dim=-1)
    error = (contribution - (world.strength - beta / 2).clamp_min(0)).abs()
    return float(error.view(len(RATIOS), PER_RATIO, 2).mean(dim=1).max())


def _scaled(crosscoder: Crosscoder, world: World, seed: int) -> list[Check]:
    """Of planted features that one learned feature stands for: L1 may split others over several, at no cost to it."""
    scaling = latent_scaling(crosscoder, held_out(world, seed, 100_000))
    learned = crosscoder.W_dec.detach()[:, 1]
    cosine = world.direction[:, 1] @ learned.T / learned.norm(dim=1)
    parallel = (cosine > 0.95) & (scaling.active >= scaling.min_active)
    whole = (parallel.sum(dim=1) == 1) & (torch.arange(len(parallel)) < SHRUNK * PER_RATIO)
    planted, features = (parallel & whole[:, None]).nonzero().T
    ratio = world.strength[planted, 0] / world.strength[planted, 1]
    nrn = Attribution.of(crosscoder)["tuned"][features]
    error = scaling.nu_error("base", "tuned")[features] - ratio
    rebuilt = scaling.nu_reconstruction("base", "tuned")[features].abs()
    ratios = len(set(ratio.tolist()))
    return [
        Check("T4", "ratios of .1, .2, .3 with a feature of its own", SHRUNK, ratios),
        Check("T4", "NRN of shrunk features, smallest", 0.93, _extreme(nrn, "min"), relation=">="),
        Check("T4", "nu_eps less the ratio, largest", 0, _extreme(error.abs(), "max"), 0.02),
        Check("T4", "nu_r, largest", 0.1, _extreme(rebuilt, "max"), relation="<="),
    ]


def _extreme(values: Tensor, which: str) -> float:
    """NaN where there is nothing."""
    if not len(values):
        return float("nan")
    return float(values.min() if which == "min" else values.max())
