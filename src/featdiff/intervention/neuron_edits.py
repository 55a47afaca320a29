"""MLP neurons that an edit of a model moves, their overlap between edits, and edits of neurons.

shift      (mean of the changed model - mean of the base) / standard deviation of the base, neuron by neuron, over items
moved      the n neurons of largest |shift|
overlap    Jaccard of two such sets, n neurons each out of N; by chance they share a hypergeometric number

Every way of changing the model is measured in the same unit, the base's own spread.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import hypergeom
from torch import Tensor

from featdiff.intervention.controls import activity_matched

FLOOR = 1e-6
"""Of the largest standard deviation: what counts as the spread of a neuron that never changes."""


@dataclass(frozen=True, eq=False)
class NeuronStatistics:
    """Mean and standard deviation of the base's neurons over items."""

    mean: Float[Tensor, " neurons"]
    std: Float[Tensor, " neurons"]

    @staticmethod
    def of(values: Float[Tensor, "items neurons"]) -> "NeuronStatistics":
        """Over these items. Raises ValueError for fewer than two, which have no spread."""
        if len(values) < 2:
            raise ValueError(f"neurons were read on {len(values)} items; their spread takes at least two")
        std = values.double().std(dim=0).float()
        return NeuronStatistics(values.double().mean(dim=0).float(), std.clamp_min(FLOOR * float(std.max())))

    def shift(self, moved: Float[Tensor, "items neurons"]) -> Float[Tensor, " neurons"]:
        """Shift of each neuron's mean from the base's, in the base's standard deviations; 0 where it never moves."""
        change = moved.double().mean(dim=0).float() - self.mean
        return torch.where(change == 0, 0.0, change / self.std)


def most_moved(shift: Float[Tensor, " neurons"], count: int, among: Bool[Tensor, " neurons"]) -> Int[Tensor, " n"]:
    """The `count` neurons of largest |shift| among those allowed, ascending; the first of equals."""
    ranked = torch.where(among, shift.abs(), -1.0).sort(descending=True, stable=True).indices
    return ranked[: min(count, int(among.sum()))].sort().values


def jaccard(one: Int[Tensor, " n"], other: Int[Tensor, " m"]) -> float:
    """Shared neurons over all of both; 0 where both are empty."""
    shared = int(torch.isin(one, other).sum())
    return shared / max(1, len(one) + len(other) - shared)


@dataclass(frozen=True)
class JaccardNull:
    """Jaccard overlap of two random sets of `size` neurons out of `neurons`: exactly, not by drawing."""

    neurons: int
    size: int

    @property
    def mean(self) -> float:
        """Its expectation."""
        shared, weights = self._law()
        return float((weights * self._jaccard(shared)).sum())

    def high(self, confidence: float) -> float:
        """The upper end of the interval that holds it with this probability."""
        return float(self._jaccard(hypergeom.ppf((1 + confidence) / 2, self.neurons, self.size, self.size)))

    def p(self, overlap: float) -> float:
        """Probability of an overlap at least as large."""
        shared, weights = self._law()
        return float(weights[self._jaccard(shared) >= overlap - 1e-9].sum())

    def _law(self) -> tuple[np.ndarray, np.ndarray]:
        shared = np.arange(max(0, 2 * self.size - self.neurons), self.size + 1)
        return shared, hypergeom.pmf(shared, self.neurons, self.size, self.size)

    def _jaccard(self, shared: np.ndarray | float) -> np.ndarray | float:
        return shared / np.maximum(1, 2 * self.size - shared)


@dataclass(frozen=True, eq=False)
class NeuronEdit:
    """MLP neurons and the values that they are set to."""

    neurons: Int[Tensor, " n"]
    values: Float[Tensor, " n"]


def set_to_means(neurons: Int[Tensor, " n"], tuned: Float[Tensor, "items neurons"]) -> NeuronEdit:
    """Set each neuron to the tuned model's mean."""
    return NeuronEdit(neurons, tuned[:, neurons].double().mean(dim=0).float())


def random_neuron_edits(
    chosen: NeuronEdit, base: NeuronStatistics, width: int, draws: int, seed: int
) -> list[NeuronEdit]:
    """Other neurons of the same blocks, as active in the base, moved as far: what a random choice would have set.

    In each draw every neuron is replaced by one of those in its block that are nearest in log |mean| and log standard
    deviation. The distances, in the base's standard deviations, that the chosen neurons of a block were moved by are
    dealt out among the replacements.
    """
    generator = torch.Generator().manual_seed(seed)
    distance = (chosen.values - base.mean[chosen.neurons]) / base.std[chosen.neurons]
    parts: list[list[NeuronEdit]] = [[] for _ in range(draws)]
    for block in (chosen.neurons // width).unique().tolist():
        here, span = chosen.neurons // width == block, slice(block * width, (block + 1) * width)
        mean, std = base.mean[span], base.std[span]
        seed_here = int(torch.randint(2**31, (1,), generator=generator))
        everyone = torch.ones(width, dtype=torch.bool)
        rows = activity_matched(chosen.neurons[here] % width, std, mean.abs(), everyone, draws, seed_here).features
        for part, row in zip(parts, rows, strict=True):
            dealt = distance[here][torch.randperm(int(here.sum()), generator=generator)[: len(row)]]
            part.append(NeuronEdit(row + block * width, mean[row] + dealt * std[row]))
    return [
        NeuronEdit(torch.cat([one.neurons for one in part]), torch.cat([one.values for one in part])) for part in parts
    ]
