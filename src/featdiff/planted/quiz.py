"""A linear readout with planted causal features, and questions whose outcome is known for every model."""

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from featdiff.planted.world import World


@dataclass(frozen=True, eq=False)
class Items:
    """Questions of a quiz, as seen at their last token."""

    activations: Float[Tensor, "items models d_model"]
    codes: Float[Tensor, "items features"]
    target: Int[Tensor, " items"]


@dataclass(frozen=True, eq=False)
class Quiz:
    """A linear readout with planted causal features, and questions whose outcome is known for every model.

    The logit of choice j is <U[j], a>, with U[j] the directions of `evidence[j]` and `decoys[j]` in the first model. On
    an item with target t evidence[t] fires, and the decoy of the next choice: a model is right where its strength of
    the evidence exceeds that of the decoy. Features that are neither have no effect at all, as long as their directions
    are orthogonal to those: near copies of a cause are causes too.
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
