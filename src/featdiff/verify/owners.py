"""T5, T6 and T7: three models with every kind of ownership."""

import torch
from jaxtyping import Int
from torch import Tensor

from featdiff.attribution.latent_scaling import latent_scaling, scaled_tails
from featdiff.attribution.matching import match_decoders
from featdiff.attribution.scores import Attribution
from featdiff.config.crosscoder import BatchTopK, ReLU
from featdiff.crosscoder.model import Crosscoder
from featdiff.planted import Group, World
from featdiff.selection.scores import swap_score
from featdiff.verify.check import Check
from featdiff.verify.training import NEAR, TrainingPlan, alone, found, held_out, scored, trained

TRIO = ("base", "sft", "rl")
OWNERS = (("base",), ("sft",), ("rl",), ("base", "sft"), ("base", "rl"), ("sft", "rl"), TRIO)
EACH = 6
LEARNED = 96
TAIL = 0.8


def owners(seed: int) -> list[Check]:
    """Six features for each set of owners, under L1 and under BatchTopK."""
    # Two of the 42 features fire per token, BatchTopK's k; a k above that leaves room to split features.
    fires = 2 / (EACH * len(OWNERS))
    groups = [Group(own, EACH, (6.0,) * len(own), probability=fires, magnitude="uniform") for own in OWNERS]
    world = World.build(TRIO, 64, groups, seed=seed, noise=0.05)
    sparsities = {"L1": ReLU(weight=1.0), "BatchTopK": BatchTopK(k=2)}
    blank = {name: Crosscoder(TRIO, 64, LEARNED, sparsity, seed=seed) for name, sparsity in sparsities.items()}
    made = trained(world, blank, TrainingPlan(1000, lr=5e-3), seed + 1)
    checks = [check for name in made for check in _of_one(name, made[name], world, seed + 2)]
    return [*checks, *_junk(made["L1"], world, seed + 3)]


def _of_one(name: str, crosscoder: Crosscoder, world: World, seed: int) -> list[Check]:
    partner = found(crosscoder, world)
    known = partner >= 0
    error = (Attribution.of(crosscoder).mas[partner] - world.shares)[known].abs()
    return [
        Check("T5", f"share of planted features found, {name}", 0.9, float(known.double().mean()), relation=">="),
        Check("T5", f"MAS of 1, 1/2, 1/3, largest error, {name}", 0, float(error.max()), 0.10),
        *_branches(name, crosscoder, world, partner, seed),
    ]


@torch.no_grad()
def _branches(
    name: str, crosscoder: Crosscoder, world: World, partner: Int[Tensor, " features"], seed: int
) -> list[Check]:
    """Each planted feature alone on a token: what branches read of it, and what its swap score is."""
    tokens = alone(world, seed)
    joint = crosscoder.encode(tokens)
    score = swap_score(crosscoder, tokens, "rl", "base")
    planted = torch.arange(len(partner))
    known = partner >= 0
    shared, rl_only = known & (world.group_of == len(OWNERS) - 1), known & (world.group_of == OWNERS.index(("rl",)))

    def of(values: Tensor, which: Tensor) -> Tensor:
        return values[planted[which], partner[which]]

    checks = []
    for column, model in enumerate(TRIO):
        branch = crosscoder.encode_branch(tokens[:, column], model)
        share = float((of(branch, shared) / of(joint, shared)).mean())
        checks.append(Check("T7", f"branch of {model} as a share of the joint code, {name}", 0.29, share, 0.055))
    own, none = of(score, rl_only) / of(joint, rl_only), of(score, shared) / of(joint, shared)
    return [
        *checks,
        Check("T7", f"swap score of rl's features over their code, {name}", 1, _farthest(own, 1.0), 0.07),
        Check("T7", f"swap score of shared features over their code, {name}", 0, _farthest(none, 0.0), 0.05),
    ]


def _junk(crosscoder: Crosscoder, world: World, seed: int) -> list[Check]:
    """Features of high MAS that are no planted one: those that the tail counts, and those that it leaves out."""
    attribution = scored(crosscoder, world, seed)
    scaling = latent_scaling(crosscoder, held_out(world, seed + 1))
    specific = attribution.mas.max(dim=1).values > TAIL
    best = match_decoders(world.rows, crosscoder.W_dec.detach(), NEAR).best_b
    junk = specific & ~(best > NEAR)
    tails = [scaled_tails(attribution, scaling, model, (TAIL,))[0] for model in TRIO]
    return [
        Check("T6", "features of MAS > 0.8 that are dead or match nothing", None, int(junk.sum())),
        Check("T6", "of these, in the reported tail", 0, int((junk & attribution.alive).sum())),
        Check("T6", "features in the reported tails", 3 * EACH, sum(tail.before for tail in tails), 2, ">="),
    ]


def _farthest(values: Tensor, target: float) -> float:
    """The value that lies farthest from the target; NaN where there is none."""
    return float(values[(values - target).abs().argmax()]) if len(values) else float("nan")
