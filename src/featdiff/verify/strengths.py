"""T2-T4, T15 and drift: what crosscoders make of features that two models have at known strengths and angles."""

import math
from itertools import pairwise

import torch

from featdiff.attribution.latent_scaling import latent_scaling, scaled_tails
from featdiff.attribution.scores import Attribution
from featdiff.config.crosscoder import BatchTopK, ReLU
from featdiff.crosscoder.model import Crosscoder
from featdiff.planted import Group, World, interpolated
from featdiff.verify.check import Check
from featdiff.verify.training import TrainingPlan, alone, found, held_out, scored, trained

PAIR = ("base", "tuned")
RATIOS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
ANGLES = (0.4, 0.8, 1.2, math.pi / 2)
EACH = 4
SHRUNK = 3
"""How many of the ratios beta = 2 makes look specific."""
GAIN_TAIL = 0.9
"""Above the NRN of a feature at ratio 0.2, which is 5/6."""
ALPHAS = (1 / 3, 2 / 3)
DRIFTED = (19.0, 7.0, 4.6, 2.0)
"""Strength in the tuned model over that in the base. NRN passes 0.8 where 1 + alpha (ratio - 1) passes 4: at alpha 1/6,
1/2, 5/6, and never."""


def shrinkage(seed: int) -> list[Check]:
    """T2 and T4, what L1 does to a contribution, and how latent scaling sees through it: features of strength 4 in the
    tuned model and 4 x ratio in the base, under beta = 2 and 4."""
    groups = [Group(PAIR, EACH, (4 * ratio, 4.0), probability=0.008) for ratio in RATIOS]
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
    return float(error.view(len(RATIOS), EACH, 2).mean(dim=1).max())


def _scaled(crosscoder: Crosscoder, world: World, seed: int) -> list[Check]:
    """Of planted features that one learned feature stands for: L1 may split others over several, at no cost to it."""
    scaling = latent_scaling(crosscoder, held_out(world, seed, 100_000))
    learned = crosscoder.W_dec.detach()[:, 1]
    cosine = world.direction[:, 1] @ learned.T / learned.norm(dim=1)
    parallel = (cosine > 0.95) & (scaling.active >= scaling.min_active)
    whole = (parallel.sum(dim=1) == 1) & (torch.arange(len(parallel)) < SHRUNK * EACH)
    planted, features = (parallel & whole[:, None]).nonzero().T
    ratio = world.strength[planted, 0] / world.strength[planted, 1]
    nrn = Attribution.of(crosscoder)["tuned"][features].tolist()
    error = (scaling.nu_error("base", "tuned")[features] - ratio).abs().tolist()
    rebuilt = scaling.nu_reconstruction("base", "tuned")[features].abs().tolist()
    return [
        Check("T4", "ratios of .1, .2, .3 with a feature of its own", SHRUNK, len(set(ratio.tolist()))),
        Check("T4", "NRN of shrunk features, smallest", 0.93, min(nrn, default=math.nan), relation=">="),
        Check("T4", "nu_eps less the ratio, largest", 0, max(error, default=math.nan), 0.02),
        Check("T4", "nu_r, largest", 0.1, max(rebuilt, default=math.nan), relation="<="),
    ]


def ratios(seed: int) -> list[Check]:
    """T3 and T15, BatchTopK keeps ratios of strength, and angles between models: one world with features of known
    ratio, and features of equal strength at known angles."""
    fires = 1 / (EACH * (len(RATIOS) + len(ANGLES)))  # one feature a token, which is BatchTopK's k
    of_ratio = [Group(PAIR, EACH, (4 * ratio, 4.0), probability=fires) for ratio in RATIOS]
    of_angle = [Group(PAIR, EACH, (4.0, 4.0), angle=angle, probability=fires) for angle in ANGLES]
    world = World.build(PAIR, 64, [*of_ratio, *of_angle], seed=seed)
    crosscoder = Crosscoder(PAIR, 64, 80, BatchTopK(k=1), seed=seed)
    made = trained(world, {"topk": crosscoder}, TrainingPlan(800, lr=5e-3), seed + 1)["topk"]

    partner = found(made, world)
    known = partner >= 0
    straight = known & (world.group_of < len(RATIOS))
    turned = known & ~straight
    attribution = Attribution.of(made)
    nrn = (attribution["tuned"][partner] - world.shares[:, 1]).abs()
    nrn_l2 = (attribution.mas_l2[partner, 1] - 0.5).abs()
    cosine = torch.tensor([math.cos(angle) for angle in ANGLES]).repeat_interleave(EACH)
    apart = (attribution.cosine[partner, 0, 1][-len(cosine) :] - cosine).abs()[turned[-len(cosine) :]]
    return [
        Check("T3", "planted features found under BatchTopK", len(world.strength), int(known.sum())),
        Check("T3", "NRN less c_T / (c_O + c_T), largest", 0, float(nrn[straight].max()), 0.02),
        Check("T15", "NRN_L2 of turned features less 1/2, largest", 0, float(nrn_l2[turned].max()), 0.03),
        Check("T15", "cosine of their decoders less cos(angle), largest", 0, float(apart.max()), 0.03),
    ]


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
        tails[name] = scaled_tails(scored(crosscoder, world, seed + 2), scaling, "tuned", (GAIN_TAIL,))[0]
    removed = 1 - tails["L1"].absent / tails["L1"].before if tails["L1"].before else math.nan
    return [
        Check("gains", "tail that L1 reports at beta = 2 where there is none", weak // 2, tails["L1"].before, 0, ">="),
        Check("gains", "share of it that latent scaling removes", 0.95, removed, relation=">="),
        Check("gains", "tail under BatchTopK", 0, tails["BatchTopK"].before),
    ]


def drift(seed: int) -> list[Check]:
    """The further a model has drifted from the base, the longer its tail (method: matched drift): crosscoders of the
    base and models at alpha = 1/3, 2/3 and 1 on the way to the tuned one."""
    each = 6
    fires = 1 / (each * len(DRIFTED))
    groups = [Group(PAIR, each, (6.0 / ratio, 6.0), probability=fires) for ratio in DRIFTED]
    world = interpolated(World.build(PAIR, 48, groups, seed=seed), ALPHAS)
    blank = {name: Crosscoder(("base", name), 48, 64, BatchTopK(k=1), seed=seed) for name in world.models[1:]}
    made = trained(world, blank, TrainingPlan(1000, 256, lr=5e-3), seed + 1)
    tails = [scored(made[name], world, seed + 2).tails(name, (0.8,))["0.8"] for name in world.models[1:]]
    checks = [
        Check("drift", f"tail at alpha = {alpha:.2g}", each * (step + 1), tail, 1)
        for step, (alpha, tail) in enumerate(zip((*ALPHAS, 1.0), tails, strict=True))
    ]
    rises = sum(later > now for now, later in pairwise(tails))
    return [*checks, Check("drift", "steps of alpha that lengthen the tail", len(ALPHAS), rises)]
