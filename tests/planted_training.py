"""Crosscoders of any design, trained on planted worlds, and what they find of them; shared by tests."""

import math
from pathlib import Path

import torch
from torch import Generator, Tensor

from featdiff.config.crosscoder import Design, Objective, ReLU
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.trainer import train
from featdiff.planted import Group, PlantedStream, World

PAIR = ("base", "rl")
SAME = 0.8
"""Cosine of concatenated decoders from which a learned feature counts as the planted one."""


def trained(world: World, crosscoder: Crosscoder, folder: Path, *, steps: int, batch_size: int = 512) -> Crosscoder:
    """The crosscoder after training in the units of the world."""
    stream = PlantedStream(world, steps, batch_size, crosscoder.seed + 1, torch.ones(len(world.models)))
    settings = TrainingSettings(batch_size=batch_size, lr=3e-3, log_every=1000)
    train({"planted": crosscoder}, stream, settings, folder=folder)
    return crosscoder


def matched(crosscoder: Crosscoder, world: World) -> tuple[Tensor, Tensor]:
    """The learned feature nearest to every planted one, by cosine of concatenated decoders, and that cosine."""
    planted, learned = world.rows.flatten(1), crosscoder.W_dec.detach().flatten(1)
    norms = planted.norm(dim=1)[:, None] * learned.norm(dim=1).clamp_min(1e-9)
    best = (planted @ learned.T / norms).max(dim=1)
    return best.indices, best.values


def recalled(crosscoder: Crosscoder, world: World, planted: slice) -> int:
    """How many of the given planted features were found."""
    return int((matched(crosscoder, world)[1][planted] > SAME).sum())


def densities(crosscoder: Crosscoder, world: World) -> Tensor:
    """Share of fresh tokens on which each feature fires."""
    tokens = world.sample(4000, Generator().manual_seed(99)).activations
    return (crosscoder.encode(tokens) > 0).float().mean(dim=0)


def weak_world(energy: float, seed: int) -> World:
    """32 features that two models share, and 8 of rl alone that have a share `energy` of the energy of rl."""
    shared = Group(PAIR, 32, (4.0, 4.0), probability=0.1)
    strength = math.sqrt(energy / (1 - energy) * 32 * 0.1 * 16 / (8 * 0.05))
    return World.build(PAIR, 48, (shared, Group(("rl",), 8, (strength,), probability=0.05)), seed=seed)


def power_curve(objective: Objective, energies: tuple[float, ...], seed: int, folder: Path) -> list[float]:
    """Acceptance test T14: the share of the features of rl alone that is found, at each of their energies.

    The dictionary has 24 features, fewer than the models share: under squared error those take all of it.
    """
    found: list[float] = []
    for energy in energies:
        world = weak_world(energy, seed)
        made = Crosscoder(PAIR, 48, 24, ReLU(weight=0.2), seed=seed, design=Design(objective=objective))
        trained(world, made, folder / f"{seed} {energy}", steps=1000, batch_size=256)
        found.append(recalled(made, world, slice(32, 40)) / 8)
    return found
