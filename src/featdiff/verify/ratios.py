"""T3 and T15: BatchTopK keeps ratios of strength, and angles between models."""

import math

import torch

from featdiff.attribution.scores import Attribution
from featdiff.config.crosscoder import BatchTopK
from featdiff.crosscoder.model import Crosscoder
from featdiff.planted import Group, World
from featdiff.verify.check import Check
from featdiff.verify.training import TrainingPlan, found, trained

PAIR = ("base", "tuned")
RATIOS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
ANGLES = (0.4, 0.8, 1.2, math.pi / 2)
EACH = 4


def ratios(seed: int) -> list[Check]:
    """One world: features of known ratio, and features of equal strength at known angles."""
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
