"""How far a reconstruction is from the activations: squared error as in Eq. 3 and 7, or what may stand in its place.

With e_m = a^[m] - a[m] in normalised units, r_m = |a^[m]| / |a[m]|, and M models, the loss of a token is

MSE        sum_m |e_m|^2
DeltaMSE   sum_m |e_m|^2 + 2 weight / (M - 1) sum_{m < n} <e_m, e_n>,  weight in [-1, 0]
           At -1 it is the mean over the partners of each model of |e_m - e_n|^2: only differences between models
           count, and an error that all of them share is free. Never negative.
Cosine     d_model sum_m [2 (1 - cos(a^[m], a[m])) + (r_m - 1)^2]
           The relative squared error is 2 r (1 - cos) + (r - 1)^2. Without the factor r the angle counts in full
           however short the reconstruction; the second term still holds the norm. All tokens weigh the same, and
           d_model makes a token of mean norm cost about what it costs under MSE.

Everything else of a training step sees only the gradient of this loss with respect to the reconstruction, its `pull`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SHORT = 0.1
"""Of the cosine of a reconstruction shorter than this share of its activation, the length counts as that share: a
reconstruction of 0 has no angle, and the gradient of the angle grows with 1 / length."""


@dataclass(frozen=True)
class MSE:
    """Squared error, summed over models and d_model."""


@dataclass(frozen=True)
class DeltaMSE:
    """Squared error with a say for differences between models."""

    weight: float = -0.5
    """0 is MSE; at -1 only differences between models count."""

    def __post_init__(self) -> None:
        if not -1 <= self.weight <= 0:
            raise ValueError(f"{self}: weight must lie between -1 and 0")


@dataclass(frozen=True)
class Cosine:
    """Angle and ratio of norms, model by model."""


Objective = MSE | DeltaMSE | Cosine


def objective_from(record: Mapping[str, object]) -> Objective:
    """The objective that `objective_record`, or the `objective` section of a study, describes by its `kind`."""
    match dict(record):
        case {"kind": "mse"}:
            return MSE()
        case {"kind": "mse_delta", "weight": float(weight) | int(weight)}:
            return DeltaMSE(float(weight))
        case {"kind": "cosine"}:
            return Cosine()
        case _:
            raise ValueError(f"objective {dict(record)} is unknown; its kind is 'mse', 'mse_delta' or 'cosine'")


def objective_record(objective: Objective) -> dict[str, str | float]:
    """What `objective_from` reads; it goes into config.json."""
    match objective:
        case MSE():
            return {"kind": "mse"}
        case DeltaMSE(weight=weight):
            return {"kind": "mse_delta", "weight": weight}
        case Cosine():
            return {"kind": "cosine"}


def token_losses(
    objective: Objective,
    error: Float[Tensor, "tokens models d_model"],
    activations: Float[Tensor, "tokens models d_model"],
) -> Float[Tensor, " tokens"]:
    """The loss of each token from its `error`, reconstruction - activations, in normalised units; differentiable."""
    match objective:
        case MSE():
            return error.square().sum(dim=(1, 2))
        case DeltaMSE(weight=weight):
            share = _partner_share(weight, error.shape[1])
            return (1 - share) * error.square().sum(dim=(1, 2)) + share * error.sum(dim=1).square().sum(dim=-1)
        case Cosine():
            angle = _Angle.of(error, activations)
            terms = 2 * (1 - angle.cosine) + (angle.ratio - 1).square()
            return error.shape[-1] * torch.where(angle.known, terms, 0.0).sum(dim=-1)


def losses_and_gradients(
    objective: Objective,
    error: Float[Tensor, "tokens models d_model"],
    activations: Float[Tensor, "tokens models d_model"],
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens models d_model"]]:
    """`token_losses`, and the gradient of each with respect to the token's reconstruction."""
    losses = token_losses(objective, error, activations)
    match objective:
        case MSE():
            return losses, 2 * error
        case DeltaMSE(weight=weight):
            share = _partner_share(weight, error.shape[1])
            return losses, 2 * ((1 - share) * error + share * error.sum(dim=1, keepdim=True))
        case Cosine():
            return losses, _cosine_gradient(error, activations)


def _partner_share(weight: float, models: int) -> float:
    """weight / (M - 1): twice the product of the errors of each pair is counted so often."""
    return weight / (models - 1)


@dataclass(frozen=True)
class _Angle:
    """Reconstruction against activation, for each token and model."""

    rebuilt: Float[Tensor, "tokens models d_model"]
    norm: Float[Tensor, "tokens models"]
    """|a|, and 1 where it is 0."""
    length: Float[Tensor, "tokens models"]
    """|a^| as the cosine counts it: at least SHORT times |a|."""
    ratio: Float[Tensor, "tokens models"]
    """|a^| / |a|."""
    cosine: Float[Tensor, "tokens models"]
    known: Tensor
    """Bool [tokens models]: whether the activation is not 0, so that it has a direction."""

    @staticmethod
    def of(
        error: Float[Tensor, "tokens models d_model"], activations: Float[Tensor, "tokens models d_model"]
    ) -> "_Angle":
        rebuilt, norm = error + activations, activations.norm(dim=-1)
        known = norm > 0
        norm = torch.where(known, norm, 1.0)
        length = rebuilt.norm(dim=-1)
        counted = torch.maximum(length, SHORT * norm)
        return _Angle(
            rebuilt, norm, counted, length / norm, (rebuilt * activations).sum(dim=-1) / (counted * norm), known
        )


def _cosine_gradient(
    error: Float[Tensor, "tokens models d_model"], activations: Float[Tensor, "tokens models d_model"]
) -> Float[Tensor, "tokens models d_model"]:
    """d cos / d a^ = (a / |a| - cos a^ / |a^|) / |a^|, without the second part where the length is a constant;
    d (r - 1)^2 / d a^ = 2 (r - 1) / |a| a^ / |a^|."""
    angle = _Angle.of(error, activations)
    long = angle.ratio > SHORT
    along = torch.where(long, angle.cosine / angle.length.square(), 0.0)
    own = 2 * (angle.ratio - 1) / (angle.norm.square() * angle.ratio)
    own = torch.where(angle.ratio > 0, own, 0.0)
    gradient = (2 * along + own)[:, :, None] * angle.rebuilt
    gradient -= (2 / (angle.length * angle.norm))[:, :, None] * activations
    return torch.where(angle.known[:, :, None], error.shape[-1] * gradient, 0.0)
