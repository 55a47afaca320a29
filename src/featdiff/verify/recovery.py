"""T5-T8, T14 and rl-only: which planted features are found, whose they are, and whether checkpoints agree on them."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from featdiff.attribution.alignments import joint_trajectory, matched_trajectory, same_seed_index_trajectory
from featdiff.attribution.latent_scaling import latent_scaling, scaled_tails
from featdiff.attribution.matching import match_decoders
from featdiff.attribution.scores import Attribution
from featdiff.attribution.stability import ScoredCrosscoder
from featdiff.attribution.trajectories import Trajectory
from featdiff.config.crosscoder import MSE, BatchTopK, DeltaMSE, Design, Objective, ReLU
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.provenance import note_origin
from featdiff.planted import Group, World
from featdiff.selection.scores import swap_score
from featdiff.verify.check import Check
from featdiff.verify.training import NEAR, TrainingPlan, alone, found, held_out, scored, trained

TRIO = ("base", "sft", "rl")
OWNERS = (("base",), ("sft",), ("rl",), ("base", "sft"), ("base", "rl"), ("sft", "rl"), TRIO)
EACH = 6
"""Features for each set of owners."""
TAIL = 0.8

ENERGIES = (0.001, 0.005, 0.02, 0.05)
"""Energy of a feature of rl alone, as a share of what a shared feature has in rl."""
SHARED = 40
LEARNED: dict[str, tuple[int, Objective]] = {
    "mse": (96, MSE()),
    "mse, 40 features": (SHARED, MSE()),
    "mse_delta, 40 features": (SHARED, DeltaMSE(-0.99)),
}
"""Room for all planted features, or for as many as are shared: under mse each of those saves forty times more loss, or
2,000 times more, than one of rl alone. Under the delta loss an error that both models share costs a hundredth."""

CHECKPOINTS = ("c1", "c2", "c3")
PLANTED = 40
TOP = 10


def owners(seed: int) -> list[Check]:
    """T5-T7, three models with every kind of ownership: six features for each set of owners, under L1 and under
    BatchTopK."""
    # Two of the 42 features fire per token, BatchTopK's k; a k above that leaves room to split features.
    fires = 2 / (EACH * len(OWNERS))
    groups = [Group(own, EACH, (6.0,) * len(own), probability=fires, magnitude="uniform") for own in OWNERS]
    world = World.build(TRIO, 64, groups, seed=seed, noise=0.05)
    sparsities = {"L1": ReLU(weight=1.0), "BatchTopK": BatchTopK(k=2)}
    blank = {name: Crosscoder(TRIO, 64, 96, sparsity, seed=seed) for name, sparsity in sparsities.items()}
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


def _farthest(values: Tensor, target: float) -> float:
    """The value that lies farthest from the target; NaN where there is none."""
    return float(values[(values - target).abs().argmax()]) if len(values) else float("nan")


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


def rl_only(seed: int) -> list[Check]:
    """40 features that only rl has, among 60 others."""
    counts = {TRIO: 40, ("base",): 10, ("sft", "rl"): 10, ("rl",): 40}
    groups = [
        Group(own, count, (4.0,) * len(own), probability=2 / 100, magnitude="uniform") for own, count in counts.items()
    ]
    world = World.build(TRIO, 112, groups, seed=seed, noise=0.05)
    blank = Crosscoder(TRIO, 112, 256, BatchTopK(k=2), seed=seed)
    crosscoder = trained(world, {"rl": blank}, TrainingPlan(2000, 256, lr=5e-3), seed + 1)["rl"]
    attribution = scored(crosscoder, world, seed + 2)
    tail = attribution.alive & (attribution["rl"] > TAIL)
    planted = found(crosscoder, world)[world.group_of == len(groups) - 1]
    true = torch.zeros_like(tail)
    true[planted[planted >= 0]] = True
    hits, false = int((tail & true).sum()), int((tail & ~true).sum())
    return [
        Check("rl-only", "of 40 planted features of rl alone, found in its tail", 36, hits, 0, ">="),
        Check("rl-only", "false features in that tail", 2, false, relation="<="),
    ]


def power(seed: int) -> list[Check]:
    """T14, how much energy a feature of rl alone needs to be found, and what the delta loss finds where room is short:
    recall against energy, with room for all features, and with too little room under both objectives."""
    pair, strength, fires = ("base", "rl"), 6.0, 0.05
    shared = Group(pair, SHARED, (strength,) * 2, probability=fires, magnitude="uniform")
    own = [Group(("rl",), 12, (strength * part**0.5,), probability=fires, magnitude="uniform") for part in ENERGIES]
    world = World.build(pair, 96, [shared, *own], seed=seed, noise=0.01)
    blank = {
        name: Crosscoder(pair, 96, features, BatchTopK(k=4), seed=seed, design=Design(objective=objective))
        for name, (features, objective) in LEARNED.items()
    }
    made = trained(world, blank, TrainingPlan(800, 256, lr=1e-2), seed + 1)
    recall = {name: _recall(crosscoder, world, seed + 2) for name, crosscoder in made.items()}
    curve = [
        Check("T14", f"recall of rl's features of {energy:.1%} energy, {name}", None, values[level])
        for name, values in recall.items()
        for level, energy in enumerate(ENERGIES)
    ]
    roomy, plain, delta = recall.values()
    return [
        *curve,
        Check("T14", "recall at the highest energy less that at the lowest, mse", 0.5, roomy[-1] - roomy[0], 0, ">="),
        Check("T14", "summed recall under mse_delta against mse, 40 features", sum(plain), sum(delta), 0, ">="),
    ]


def _recall(crosscoder: Crosscoder, world: World, seed: int) -> list[float]:
    """Share of rl's own features, by energy, that are learned as such: near enough, alive, and above the tail's cut."""
    attribution, partner = scored(crosscoder, world, seed), found(crosscoder, world)
    seen = (partner >= 0) & attribution.alive[partner] & (attribution["rl"][partner] > TAIL)
    return [float(seen[world.group_of == 1 + level].double().mean()) for level in range(len(ENERGIES))]


def turnover(seed: int) -> list[Check]:
    """T8, checkpoints between which nothing changes, under each alignment: all have the same features, which the base
    has at strengths from a tenth to all of theirs.

    The top features are cut out of a steady row of scores, so that noise moves some of them across the cut: two
    measurements of one checkpoint agree in part, and two checkpoints have to agree as much.
    """
    models = ("base", *CHECKPOINTS)
    strengths = torch.linspace(0.1, 1.0, PLANTED).tolist()
    groups = [Group(models, 1, (4 * ratio, 4.0, 4.0, 4.0), probability=1 / PLANTED) for ratio in strengths]
    world = World.build(models, 48, groups, seed=seed, noise=0.2)
    seeds = (2 * seed, 2 * seed + 1)
    blank = {f"{name} {one}": _blank(("base", name), one) for name in CHECKPOINTS for one in seeds}
    blank |= {f"joint {one}": _blank(models, one) for one in seeds}
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
    crosscoder = Crosscoder(tuple(models), 48, 56, BatchTopK(k=1), seed=seed)
    note_origin(crosscoder, "one stream")
    return crosscoder


def _compared(trajectory: Trajectory) -> list[Check]:
    name = trajectory.alignment
    assert trajectory.relative is not None, "two seeds have a floor"
    return [
        Check("T8", f"{name} overlap divided by the noise floor", 1, _between(trajectory.relative), 0.1),
        Check("T8", f"noise floor of the {name} overlap", 0.5, _floor(trajectory), relation=">="),
    ]


def _between(overlap: Tensor) -> float:
    """Mean over pairs of different checkpoints."""
    return float(overlap[~torch.eye(len(overlap), dtype=torch.bool)].mean())


def _floor(trajectory: Trajectory) -> float:
    return float("nan") if trajectory.noise_floor is None else trajectory.noise_floor
