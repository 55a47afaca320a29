"""What the report says of tails: how many features are left once latent scaling has asked the other models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.attribution import Attribution, LatentScaling, ScaledTail
from featdiff.attribution.latent_scaling import Ratios

BINS = 30
LARGEST = 1.5
"""Right edge of the histogram; larger values are in its last bin."""


@dataclass(frozen=True)
class PeerTails:
    """The tails of the same model in a BatchTopK crosscoder over the same models, without L1 to shrink features."""

    lineup: str
    features: int
    alive: int
    tails: Mapping[str, int]
    """Alive features above each cut."""


@dataclass(frozen=True)
class TailPanel:
    """The tails of one model in one crosscoder before and after latent scaling, and nu of its features.

    `beyond` and `others` count measured alive features per bin of their largest |nu_eps| over the other models:
    those above the lowest cut, and all the rest. `control` is the middle 95 % of the same number for random directions
    in the place of those above the cut; None where there is none.
    """

    lineup: str
    model: str
    sparsity: str
    tails: Sequence[ScaledTail]
    peer: PeerTails | None
    edges: Sequence[float]
    beyond: Sequence[int]
    others: Sequence[int]
    control: tuple[float, float] | None
    max_error: float
    max_reconstruction: float
    tokens: int
    min_active: int

    @staticmethod
    def of(
        attribution: Attribution,
        scaling: LatentScaling,
        tails: Sequence[ScaledTail],
        *,
        lineup: str,
        sparsity: str,
        peer: PeerTails | None,
        max_error: float,
        max_reconstruction: float,
    ) -> "TailPanel":
        """Count the features of the model that `tails` are of."""
        model = tails[0].model
        alive, scores = attribution.alive.cpu(), attribution[model].cpu()
        beyond = alive & (scores > min(tail.cut for tail in tails))
        reference = scaling.index(model)
        return TailPanel(
            lineup=lineup,
            model=model,
            sparsity=sparsity,
            tails=tails,
            peer=peer,
            edges=torch.linspace(0, LARGEST, BINS + 1, dtype=torch.float64).tolist(),
            beyond=_counts(scaling.feature, reference, beyond),
            others=_counts(scaling.feature, reference, alive & ~beyond),
            control=_middle(scaling.random, reference, beyond),
            max_error=max_error,
            max_reconstruction=max_reconstruction,
            tokens=scaling.tokens,
            min_active=scaling.min_active,
        )

    @property
    def lowest(self) -> ScaledTail:
        """The tail at the lowest cut."""
        return min(self.tails, key=lambda tail: tail.cut)


def _elsewhere(ratios: Ratios, reference: int, of: Bool[Tensor, " features"]) -> Float[Tensor, " measured"]:
    error, reconstruction = ratios.elsewhere(reference)
    return error[of & ~error.isnan() & ~reconstruction.isnan()]


def _counts(ratios: Ratios, reference: int, of: Bool[Tensor, " features"]) -> list[int]:
    error = _elsewhere(ratios, reference, of).clamp(max=LARGEST)
    return torch.histc(error, bins=BINS, min=0, max=LARGEST).long().tolist()


def _middle(ratios: Ratios, reference: int, of: Bool[Tensor, " features"]) -> tuple[float, float] | None:
    error = _elsewhere(ratios, reference, of).double()
    if not len(error):
        return None
    low, high = error.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
