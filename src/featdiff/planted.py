"""Worlds with known answers, to test the method and to try it out.

a[m] = gain[m] * sum_k s_k strength[k, m] direction[k, m] + noise * standard normal

A feature k fires with its group's probability; s_k is its magnitude. Groups say which models have the feature, how
strongly each, and by what angle its direction is turned in the models after the first. Directions are orthonormal, so
that every answer has a closed form:

MAS (L1, one direction for all models)     strength[k, m] / sum_n strength[k, n]
contribution learned under L1              max(0, strength[k, m] - beta / 2), for constant magnitudes and scale 1
a readout U with evidence and decoys       the larger of the two strengths wins (see `Quiz`)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from featdiff.activations.stream import Activations

Magnitude = Literal["constant", "uniform", "exponential"]


@dataclass(frozen=True)
class Group:
    """Features that the same models have."""

    members: tuple[str, ...]
    """Models that have them."""
    features: int
    """How many."""
    strengths: tuple[float, ...] = ()
    """Norm of the contribution in each member at magnitude 1; empty: 1 in all."""
    angle: float = 0.0
    """Radians between the direction in the first member and in every other."""
    probability: float = 0.05
    """Chance that a feature fires on a token."""
    magnitude: Magnitude = "constant"
    """Law of s_k, of mean 1: constant; uniform on [0.5, 1.5]; or 0.5 plus an exponential of mean 0.5."""


@dataclass(frozen=True)
class Sample:
    """Tokens of a world: what the models show, and which features made it."""

    activations: Float[Tensor, "tokens models d_model"]
    codes: Float[Tensor, "tokens features"]


@dataclass(frozen=True)
class World:
    """Models that differ in known ways; base first. `build` draws the directions."""

    models: tuple[str, ...]
    groups: tuple[Group, ...]
    strength: Float[Tensor, "features models"]
    direction: Float[Tensor, "features models d_model"]
    probability: Float[Tensor, " features"]
    gain: Float[Tensor, " models"]
    noise: float

    @staticmethod
    def build(
        models: tuple[str, ...],
        d_model: int,
        groups: tuple[Group, ...],
        *,
        seed: int,
        gain: tuple[float, ...] = (),
        noise: float = 0.0,
    ) -> "World":
        """A world with random orthonormal directions; a turned group needs two of them per feature."""
        _check(models, d_model, groups, gain)
        square = torch.randn(d_model, d_model, generator=Generator().manual_seed(seed), dtype=torch.float64)
        basis = iter(torch.linalg.qr(square).Q.T.float())
        features = [_rows(models, group, basis) for group in groups for _ in range(group.features)]
        return World(
            models=models,
            groups=groups,
            strength=torch.stack([strength for strength, _ in features]),
            direction=torch.stack([direction for _, direction in features]),
            probability=torch.tensor([group.probability for group in groups for _ in range(group.features)]),
            gain=torch.tensor(gain or (1.0,) * len(models)),
            noise=noise,
        )

    @property
    def rows(self) -> Float[Tensor, "features models d_model"]:
        """What one unit of each feature adds to each model: the decoder that a perfect crosscoder has."""
        return einsum(self.gain, self.strength, self.direction, "m, k m, k m d -> k m d")

    def sample(self, tokens: int, generator: Generator) -> Sample:
        """Independent tokens."""
        fires = torch.rand(tokens, len(self.probability), generator=generator) < self.probability
        return self.render(fires * self._magnitudes(tokens, generator), generator)

    def render(self, codes: Float[Tensor, "tokens features"], generator: Generator) -> Sample:
        """Tokens on which exactly `codes` are active."""
        activations = einsum(codes, self.rows, "t k, k m d -> t m d")
        if self.noise:
            activations = activations + self.noise * torch.randn(activations.shape, generator=generator)
        return Sample(activations, codes)

    def scale(self, sample: Sample) -> Float[Tensor, " models"]:
        """Per-model factor of raw over normalised activations, whose mean norm is sqrt(d_model)."""
        return sample.activations.norm(dim=-1).mean(dim=0) / math.sqrt(sample.activations.shape[-1])

    def _magnitudes(self, tokens: int, generator: Generator) -> Float[Tensor, "tokens features"]:
        return torch.cat([_magnitude(group, tokens, generator) for group in self.groups], dim=1)


@dataclass(frozen=True)
class PlantedState:
    """Where a planted stream stands."""

    step: int
    generator: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, for a checkpoint."""
        return {"step": torch.tensor(self.step), "generator": self.generator}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "PlantedState":
        """The state that `tensors` gave."""
        return PlantedState(int(tensors["step"]), tensors["generator"])


@dataclass(frozen=True)
class PlantedStream:
    """A world as a stream for training. With `scale` 1 the world's units are those of the loss."""

    world: World
    steps: int
    batch_size: int
    seed: int
    scale: Float[Tensor, " models"]

    @property
    def models(self) -> tuple[str, ...]:
        """Names along the models axis."""
        return self.world.models

    def batches(self, state: PlantedState | None = None) -> Iterator[tuple[Activations, PlantedState]]:
        """The batches after `state`, each with the state after it."""
        generator, begin = Generator().manual_seed(self.seed), 0
        if state is not None:
            generator.set_state(state.generator)
            begin = state.step
        tokens = torch.zeros(self.batch_size, dtype=torch.int64)
        for step in range(begin, self.steps):
            values = self.world.sample(self.batch_size, generator).activations
            yield Activations(self.models, values, tokens), PlantedState(step + 1, generator.get_state())


@dataclass(frozen=True)
class Items:
    """Questions of a quiz, as seen at their last token."""

    activations: Float[Tensor, "items models d_model"]
    codes: Float[Tensor, "items features"]
    target: Int[Tensor, " items"]


@dataclass(frozen=True)
class Quiz:
    """A linear readout with planted causal features, and questions whose outcome is known for every model.

    The logit of choice j is <U[j], a>, with U[j] the directions of `evidence[j]` and `decoys[j]` in the first model. On
    an item with target t evidence[t] fires, and the decoy of the next choice: a model is right where its strength of
    the evidence exceeds that of the decoy. Features that are neither have no effect at all.
    """

    world: World
    evidence: tuple[int, ...]
    decoys: tuple[int, ...]

    @property
    def readout(self) -> Float[Tensor, "choices d_model"]:
        """U; directions without turn are the same in every model."""
        direction = self.world.direction[:, 0]
        return direction[list(self.evidence)] + direction[list(self.decoys)]

    def items(self, count: int, generator: Generator) -> Items:
        """Random targets, on a background of all features that are no cause."""
        choices = len(self.evidence)
        target = torch.randint(choices, (count,), generator=generator)
        codes = self.world.sample(count, generator).codes
        evidence, decoys = torch.tensor(self.evidence), torch.tensor(self.decoys)
        codes[:, torch.cat([evidence, decoys])] = 0.0
        item = torch.arange(count)
        codes[item, evidence[target]] = 1.0
        codes[item, decoys[(target + 1) % choices]] = 1.0
        return Items(self.world.render(codes, generator).activations, codes, target)

    def answers(self, activations: Float[Tensor, "items models d_model"]) -> Int[Tensor, "items models"]:
        """The choice with the highest logit, for every model."""
        return einsum(activations, self.readout, "i m d, c d -> i m c").argmax(dim=-1)

    def right(self, items: Items) -> Bool[Tensor, "items models"]:
        """Who is right by construction, without noise: strength of the evidence against that of the decoy."""
        amplitude = self.world.gain * self.world.strength
        evidence = amplitude[torch.tensor(self.evidence)[items.target]]
        return evidence > amplitude[torch.tensor(self.decoys)[(items.target + 1) % len(self.decoys)]]


def _check(models: tuple[str, ...], d_model: int, groups: tuple[Group, ...], gain: tuple[float, ...]) -> None:
    for group in groups:
        if not group.members or set(group.members) - set(models):
            raise ValueError(f"a group has members {list(group.members)}; choose from {list(models)}")
        if group.strengths and len(group.strengths) != len(group.members):
            raise ValueError(
                f"a group has {len(group.members)} members and {len(group.strengths)} strengths; give one each"
            )
    if gain and len(gain) != len(models):
        raise ValueError(f"{len(gain)} gains for {len(models)} models; give one each")
    wanted = sum(group.features * (2 if group.angle else 1) for group in groups)
    if not 0 < wanted <= d_model:
        raise ValueError(f"these groups need {wanted} orthogonal directions; d_model is {d_model}")


def _rows(
    models: tuple[str, ...], group: Group, basis: Iterator[Float[Tensor, " d_model"]]
) -> tuple[Float[Tensor, " models"], Float[Tensor, "models d_model"]]:
    """Strength and direction of the next feature of `group` in every model; models without it get strength 0."""
    strengths = dict(zip(group.members, group.strengths or (1.0,) * len(group.members), strict=True))
    straight = next(basis)
    turned = math.cos(group.angle) * straight + math.sin(group.angle) * next(basis) if group.angle else straight
    directions = [turned if model in group.members[1:] else straight for model in models]
    return torch.tensor([strengths.get(model, 0.0) for model in models]), torch.stack(directions)


def _magnitude(group: Group, tokens: int, generator: Generator) -> Float[Tensor, "tokens features"]:
    uniform = torch.rand(tokens, group.features, generator=generator)
    match group.magnitude:
        case "constant":
            return torch.ones_like(uniform)
        case "uniform":
            return 0.5 + uniform
        case "exponential":
            return 0.5 - 0.5 * torch.log1p(-uniform)
