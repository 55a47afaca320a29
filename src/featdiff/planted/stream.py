"""A planted world as a stream for training."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from featdiff.activations.stream import Activations
from featdiff.planted.world import World


@dataclass(frozen=True)
class PlantedState:
    """Where a planted stream stands."""

    step: int
    generator: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, for a checkpoint."""
        return {"step": torch.tensor(self.step), "generator": self.generator}


@dataclass(frozen=True)
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
