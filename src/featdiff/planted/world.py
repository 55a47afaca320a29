"""Models that differ in known ways.

a[m] = gain[m] * sum_k s_k strength[k, m] direction[k, m] + noise * standard normal

A feature k fires with its group's probability; s_k is its magnitude. Groups say which models have the feature, how
strongly each, by what angle its direction is turned in the models after the first, and what else decides when it fires.
Directions are orthonormal but for near copies, so that every answer has a closed form:

MAS (L2, or one direction for all models)  gain[m] strength[k, m] / sum_n gain[n] strength[k, n]
contribution learned under L1              max(0, strength[k, m] - beta / 2), for constant magnitudes, gain and scale 1
cosine of two models' decoders             cos(angle)
correlation of the firing of two features  `correlation`, within a group
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from featdiff.activations.stream import Activations

Magnitude = Literal["constant", "uniform", "exponential"]
EVERYWHERE = -1
"""Token type of a feature that fires on tokens of all types."""


@dataclass(frozen=True)
class Group:
    """Features that the same models have. A dense one is a group with a high `probability`."""

    members: tuple[str, ...]
    """Models that have them."""
    features: int
    """How many, without near copies."""
    strengths: tuple[float, ...] = ()
    """Norm of the contribution in each member at magnitude 1; empty: 1 in all."""
    angle: float = 0.0
    """Radians between the direction in the first member and in every other."""
    probability: float = 0.05
    """Chance that a feature fires on a token where it may fire."""
    magnitude: Magnitude = "constant"
    """Law of s_k, of mean 1: constant; uniform on [0.5, 1.5]; or 0.5 plus an exponential of mean 0.5."""
    correlation: float = 0.0
    """Correlation, between two features of the group, of whether they fire."""
    copies: int = 1
    """Each feature comes so many times, its copies after it: they fire by themselves, along almost one direction."""
    copy_angle: float = 0.0
    """Radians between a feature's direction and that of each further copy."""
    token_type: int = EVERYWHERE
    """The one type of tokens on which they fire; -1: all."""

    @property
    def size(self) -> int:
        """How many features, near copies included."""
        return self.features * self.copies

    @property
    def directions(self) -> int:
        """How many orthonormal directions the group takes."""
        copies = 1 + (self.copies - 1 if self.copy_angle else 0)
        return self.features * copies * (2 if self.angle else 1)


@dataclass(frozen=True, eq=False)
class Sample:
    """Tokens of a world: what the models show, which features made it, and the type of each token."""

    activations: Float[Tensor, "tokens models d_model"]
    codes: Float[Tensor, "tokens features"]
    types: Int[Tensor, " tokens"]


@dataclass(frozen=True, eq=False)
class World:
    """Models that differ in known ways; base first. `build` draws the directions."""

    models: tuple[str, ...]
    groups: tuple[Group, ...]
    strength: Float[Tensor, "features models"]
    direction: Float[Tensor, "features models d_model"]
    probability: Float[Tensor, " features"]
    gain: Float[Tensor, " models"]
    noise: float
    type_shares: tuple[float, ...] = (1.0,)
    """Share of the tokens that are of each type."""

    @staticmethod
    def build(
        models: tuple[str, ...],
        d_model: int,
        groups: Sequence[Group],
        *,
        seed: int,
        gain: tuple[float, ...] = (),
        noise: float = 0.0,
        type_shares: tuple[float, ...] = (1.0,),
    ) -> "World":
        """A world with random orthonormal directions; a turned group needs two of them per feature.

        ValueError where groups, gains or types do not fit the models, or need more directions than `d_model`.
        """
        _check(models, d_model, groups, gain, type_shares)
        square = torch.randn(d_model, d_model, generator=Generator().manual_seed(seed), dtype=torch.float64)
        basis = iter(torch.linalg.qr(square).Q.T.float())
        features = [row for group in groups for _ in range(group.features) for row in _rows(models, group, basis)]
        return World(
            models=models,
            groups=tuple(groups),
            strength=torch.stack([strength for strength, _ in features]),
            direction=torch.stack([direction for _, direction in features]),
            probability=torch.tensor([group.probability for group in groups for _ in range(group.size)]),
            gain=torch.tensor(gain or (1.0,) * len(models)),
            noise=noise,
            type_shares=type_shares,
        )

    @property
    def rows(self) -> Float[Tensor, "features models d_model"]:
        """What one unit of each feature adds to each model: the decoder that a perfect crosscoder has."""
        return einsum(self.gain, self.strength, self.direction, "m, k m, k m d -> k m d")

    @property
    def shares(self) -> Float[Tensor, "features models"]:
        """MAS by construction: each model's share in what a feature adds, NaN for one that no model has."""
        amplitude = self.gain * self.strength
        return amplitude / amplitude.sum(dim=1, keepdim=True)

    @property
    def group_of(self) -> Int[Tensor, " features"]:
        """The group of every feature, by its position."""
        return torch.tensor([index for index, group in enumerate(self.groups) for _ in range(group.size)])

    def only(self, models: tuple[str, ...]) -> "World":
        """The same world with these models alone; the same seed gives the same codes."""
        if unknown := [model for model in models if model not in self.models]:
            raise ValueError(f"the world has no model {', '.join(unknown)}; it has {list(self.models)}")
        columns = [self.models.index(model) for model in models]
        strength, direction = self.strength[:, columns], self.direction[:, columns]
        return replace(self, models=models, strength=strength, direction=direction, gain=self.gain[columns])

    def sample(self, tokens: int, generator: Generator) -> Sample:
        """Independent tokens."""
        fires = self._fires(tokens, generator)
        types = self._types(tokens, generator)
        where = torch.tensor([group.token_type for group in self.groups])[self.group_of]
        fires &= (where == EVERYWHERE) | (types[:, None] == where)
        codes = fires * torch.cat([_magnitude(group, tokens, generator) for group in self.groups], dim=1)
        return replace(self.render(codes, generator), types=types)

    def render(self, codes: Float[Tensor, "tokens features"], generator: Generator) -> Sample:
        """Tokens of type 0 on which exactly `codes` are active."""
        activations = einsum(codes, self.rows, "t k, k m d -> t m d")
        if self.noise:
            activations = activations + self.noise * torch.randn(activations.shape, generator=generator)
        return Sample(activations, codes, torch.zeros(len(codes), dtype=torch.int64))

    def scale(self, sample: Sample) -> Float[Tensor, " models"]:
        """Per-model factor of raw over normalised activations, whose mean norm is sqrt(d_model)."""
        return sample.activations.norm(dim=-1).mean(dim=0) / math.sqrt(sample.activations.shape[-1])

    def _fires(self, tokens: int, generator: Generator) -> Bool[Tensor, "tokens features"]:
        """Each feature by itself; in a correlated group it copies, with probability sqrt(correlation), one draw that
        all of them share."""
        fires = torch.rand(tokens, len(self.probability), generator=generator) < self.probability
        for group, part in zip(self.groups, fires.split([group.size for group in self.groups], dim=1), strict=True):
            if group.correlation:
                shared = torch.rand(tokens, 1, generator=generator) < group.probability
                follows = torch.rand(part.shape, generator=generator) < math.sqrt(group.correlation)
                part.copy_(torch.where(follows, shared, part))
        return fires

    def _types(self, tokens: int, generator: Generator) -> Int[Tensor, " tokens"]:
        if len(self.type_shares) == 1:
            return torch.zeros(tokens, dtype=torch.int64)
        shares = torch.tensor(self.type_shares)
        return torch.multinomial(shares, tokens, replacement=True, generator=generator)


def _check(
    models: tuple[str, ...],
    d_model: int,
    groups: Sequence[Group],
    gain: tuple[float, ...],
    type_shares: tuple[float, ...],
) -> None:
    for one in groups:
        if not one.members or set(one.members) - set(models):
            raise ValueError(f"a group has members {list(one.members)}; choose from {list(models)}")
        if one.strengths and len(one.strengths) != len(one.members):
            raise ValueError(
                f"a group has {len(one.members)} members and {len(one.strengths)} strengths; give one each"
            )
        if not 0 <= one.probability <= 1 or not 0 <= one.correlation <= 1:
            raise ValueError(
                f"a group has probability {one.probability:g} and correlation {one.correlation:g}; "
                "both lie between 0 and 1"
            )
        if one.features < 0 or one.copies < 1:
            raise ValueError(f"a group has {one.features} features in {one.copies} copies; give at least 0 and 1")
        if not EVERYWHERE <= one.token_type < len(type_shares):
            raise ValueError(
                f"a group fires on tokens of type {one.token_type}; the world has types 0 to {len(type_shares) - 1}"
            )
    if gain and len(gain) != len(models):
        raise ValueError(f"{len(gain)} gains for {len(models)} models; give one each")
    if not type_shares or min(type_shares) < 0 or abs(sum(type_shares) - 1) > 1e-6:
        raise ValueError(f"the shares of token types are {list(type_shares)}; give shares that sum to 1")
    wanted = sum(group.directions for group in groups)
    if not 0 < wanted <= d_model:
        raise ValueError(f"these groups need {wanted} orthogonal directions; d_model is {d_model}")


def _rows(
    models: tuple[str, ...], group: Group, basis: Iterator[Float[Tensor, " d_model"]]
) -> list[tuple[Float[Tensor, " models"], Float[Tensor, "models d_model"]]]:
    """Strength and direction of the next feature of `group` and its copies in every model; models without it get
    strength 0."""
    strengths = dict(zip(group.members, group.strengths or (1.0,) * len(group.members), strict=True))
    strength = torch.tensor([strengths.get(model, 0.0) for model in models])
    first = _turned(models, group, basis)
    rows = [(strength, first)]
    for _ in range(group.copies - 1):
        direction = first
        if group.copy_angle:
            direction = math.cos(group.copy_angle) * first + math.sin(group.copy_angle) * _turned(models, group, basis)
        rows.append((strength, direction))
    return rows


def _turned(
    models: tuple[str, ...], group: Group, basis: Iterator[Float[Tensor, " d_model"]]
) -> Float[Tensor, "models d_model"]:
    """One direction in every model: turned by the group's angle in the members after the first."""
    straight = next(basis)
    turned = math.cos(group.angle) * straight + math.sin(group.angle) * next(basis) if group.angle else straight
    return torch.stack([turned if model in group.members[1:] else straight for model in models])


def _magnitude(group: Group, tokens: int, generator: Generator) -> Float[Tensor, "tokens features"]:
    uniform = torch.rand(tokens, group.size, generator=generator)
    match group.magnitude:
        case "constant":
            return torch.ones_like(uniform)
        case "uniform":
            return 0.5 + uniform
        case "exponential":
            return 0.5 - 0.5 * torch.log1p(-uniform)


def interpolated(world: World, alphas: Sequence[float]) -> World:
    """The base, models at base + alpha (tuned - base) for each alpha, and the tuned model: drift in known amounts.

    Of a world of two models; the models between are called by their alpha. What a feature adds to one of them is the
    mix of what it adds to the two, so with one direction for both the strengths mix, and its NRN against the base is
    s / (s_base + s) with s = s_base + alpha (s_tuned - s_base).
    """
    if len(world.models) != 2:
        raise ValueError(f"the world has the models {list(world.models)}; models lie between two")
    base, tuned = world.models
    between = [f"{alpha:g}" for alpha in alphas]
    if len({base, tuned, *between}) < 2 + len(between):
        raise ValueError(f"alphas {list(alphas)} would name a model twice; give each once")
    mix = torch.tensor([0.0, *alphas, 1.0])
    weights = torch.stack([1 - mix, mix])
    rows = einsum(world.rows, weights, "k pair d, pair m -> k m d")
    norms = rows.norm(dim=-1, keepdim=True)
    direction = torch.where(norms > 0, rows / norms.where(norms > 0, 1.0), world.direction[:, :1])
    models, gain = (base, *between, tuned), torch.ones(len(mix))
    return replace(world, models=models, strength=norms.squeeze(-1), direction=direction, gain=gain)


@dataclass(frozen=True, eq=False)
class PlantedState:
    """Where a planted stream stands."""

    step: int
    generator: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, for a checkpoint."""
        return {"step": torch.tensor(self.step), "generator": self.generator}


@dataclass(frozen=True, eq=False)
class PlantedStream:
    """A world as a stream for training. With `scale` 1 the world's units are those of the loss; token ids are the
    types of the tokens."""

    world: World
    steps: int
    batch_size: int
    seed: int
    scale: Float[Tensor, " models"]

    @property
    def models(self) -> tuple[str, ...]:
        """Names along the models axis."""
        return self.world.models

    def state_from(self, tensors: dict[str, Tensor]) -> PlantedState:
        """The state whose `tensors` a checkpoint holds."""
        return PlantedState(int(tensors["step"]), tensors["generator"])

    def batches(self, state: PlantedState | None = None) -> Iterator[tuple[Activations, PlantedState]]:
        """The batches after `state`, each with the state after it."""
        generator, begin = Generator().manual_seed(self.seed), 0
        if state is not None:
            generator.set_state(state.generator)
            begin = state.step
        for step in range(begin, self.steps):
            sample = self.world.sample(self.batch_size, generator)
            batch = Activations(self.models, sample.activations, sample.types)
            yield batch, PlantedState(step + 1, generator.get_state())
