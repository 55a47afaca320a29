"""Crosscoders trained on planted worlds by the project's own training, and what they found of the world."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from featdiff.activations.stream import Activations
from featdiff.attribution.matching import match_decoders
from featdiff.attribution.scores import Attribution
from featdiff.config.study import TrainingSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.trainer import train
from featdiff.planted import PlantedStream, World

NEAR = 0.8
"""Cosine from which a learned feature counts as the planted one."""
HELD_OUT = 20_000
"""Tokens on which a trained crosscoder is measured."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long to train, on batches of how many tokens, and how fast."""

    steps: int
    batch_size: int = 512
    lr: float = 3e-3


def trained(
    world: World, crosscoders: Mapping[str, Crosscoder], plan: TrainingPlan, seed: int
) -> dict[str, Crosscoder]:
    """Train all of them in place on one stream, in the world's own units; a crosscoder may read some of the models."""
    stream = PlantedStream(world, plan.steps, plan.batch_size, seed, torch.ones(len(world.models)))
    settings = TrainingSettings(batch_size=plan.batch_size, lr=plan.lr, log_every=max(plan.steps, 2))
    made = dict(crosscoders)
    train(made, stream, settings)
    return made


def held_out(world: World, seed: int, tokens: int = HELD_OUT) -> Iterator[Activations]:
    """Fresh tokens of the world, in batches of a thousand."""
    stream = PlantedStream(world, tokens // 1000, 1000, seed, torch.ones(len(world.models)))
    return (batch for batch, _ in stream.batches())


@torch.no_grad()
def scored(crosscoder: Crosscoder, world: World, seed: int) -> Attribution:
    """Its attribution, with the density of every feature on held-out tokens."""
    fired, tokens = torch.zeros(crosscoder.features), 0
    for batch in held_out(world, seed):
        codes = crosscoder.encode(batch.values[:, crosscoder.columns(batch.models)])
        fired += (codes > 0).sum(dim=0)
        tokens += len(codes)
    return Attribution.of(crosscoder, density=fired / tokens)


def found(crosscoder: Crosscoder, world: World, near: float = NEAR) -> Int[Tensor, " features"]:
    """The learned feature that is each planted one, pairs chosen one-to-one by decoder direction; -1 where none is."""
    return match_decoders(world.rows, crosscoder.W_dec.detach(), near).partner


@torch.no_grad()
def alone(world: World, seed: int) -> Float[Tensor, "features models d_model"]:
    """One token for each planted feature, on which it fires alone with magnitude 1."""
    generator = Generator().manual_seed(seed)
    return world.render(torch.eye(len(world.strength)), generator).activations


@torch.no_grad()
def perfect(world: World) -> Crosscoder:
    """The crosscoder that has learned a world of orthogonal features without fault: codes and reconstruction are those
    that were planted, where there is no noise."""
    rows = world.rows
    made = Crosscoder(world.models, rows.shape[2], len(rows))
    made.W_dec.copy_(rows)
    made.W_enc.copy_((rows / rows.square().sum(dim=(1, 2), keepdim=True)).permute(1, 2, 0))
    return made
