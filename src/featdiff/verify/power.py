"""T14: how much energy a feature of rl alone needs to be found, and what the delta loss finds where room is short."""

from featdiff.config.crosscoder import MSE, BatchTopK, DeltaMSE, Design, Objective
from featdiff.crosscoder.model import Crosscoder
from featdiff.planted import Group, World
from featdiff.verify.check import Check
from featdiff.verify.training import TrainingPlan, found, scored, trained

PAIR = ("base", "rl")
ENERGIES = (0.001, 0.005, 0.02, 0.05)
"""Energy of a feature of rl alone, as a share of what a shared feature has in rl."""
EACH = 12
SHARED = 40
STRENGTH = 6.0
WEIGHT = -0.99
"""lambda of the delta loss: an error that both models share costs a hundredth."""
TAIL = 0.8

LEARNED: dict[str, tuple[int, Objective]] = {
    "mse": (96, MSE()),
    "mse, 40 features": (SHARED, MSE()),
    "mse_delta, 40 features": (SHARED, DeltaMSE(WEIGHT)),
}
"""Room for all planted features, or for as many as are shared: under mse each of those saves forty times more loss, or
2,000 times more, than one of rl alone."""


def power(seed: int) -> list[Check]:
    """Recall against energy: with room for all features, and with too little room under both objectives."""
    fires = 0.05
    shared = Group(PAIR, SHARED, (STRENGTH,) * 2, probability=fires, magnitude="uniform")
    own = [
        Group(("rl",), EACH, (STRENGTH * energy**0.5,), probability=fires, magnitude="uniform") for energy in ENERGIES
    ]
    world = World.build(PAIR, 96, [shared, *own], seed=seed, noise=0.01)
    blank = {
        name: Crosscoder(PAIR, 96, features, BatchTopK(k=4), seed=seed, design=Design(objective=objective))
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
