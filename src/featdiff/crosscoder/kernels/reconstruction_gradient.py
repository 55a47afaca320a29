"""The objective's gradient with respect to a batch's reconstruction: all that encoder and decoder learn from it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.config.crosscoder import MSE, Cosine, DeltaMSE, Objective
from featdiff.crosscoder.kernels.parameter_rows import Batch
from featdiff.crosscoder.loss import SHORT, Angle, partner_share, token_losses


@dataclass(frozen=True)
class Pull:
    """What the reconstruction of a batch says; losses are divided by the tokens of the batch over all processes."""

    rows: Float[Tensor, "tokens width"]
    """Gradient of the loss with respect to each token's reconstruction."""
    error: Float[Tensor, "tokens width"] | None
    """Reconstruction - activations; None under squared error, where the rows are 2 error / total."""
    loss: Float[Tensor, ""]
    squared_error: Float[Tensor, ""]

    @staticmethod
    def of(batch: Batch, error: Float[Tensor, "tokens width"], models: int) -> "Pull":
        """From reconstruction - activations."""
        squared = error.square().sum() / batch.total
        if isinstance(batch.objective, MSE):
            return Pull(error * (2 / batch.total), None, squared, squared)
        parted = error.view(len(error), models, error.shape[1] // models)  # a process may have no token
        losses, gradients = losses_and_gradients(batch.objective, parted, batch.x.view_as(parted))
        return Pull(gradients.view_as(error) / batch.total, error, losses.sum() / batch.total, squared)

    def error_with(self, more: Float[Tensor, "tokens width"], total: int) -> Float[Tensor, "tokens width"]:
        """The error once `more` joins the reconstruction, written over `more`."""
        return more.add_(self.rows, alpha=total / 2) if self.error is None else more.add_(self.error)


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
            share = partner_share(weight, error.shape[1])
            return losses, 2 * ((1 - share) * error + share * error.sum(dim=1, keepdim=True))
        case Cosine():
            return losses, _cosine_gradient(error, activations)


def _cosine_gradient(
    error: Float[Tensor, "tokens models d_model"], activations: Float[Tensor, "tokens models d_model"]
) -> Float[Tensor, "tokens models d_model"]:
    """d cos / d a^ = (a / |a| - cos a^ / |a^|) / |a^|, without the second part where the length is a constant;
    d (r - 1)^2 / d a^ = 2 (r - 1) / |a| a^ / |a^|."""
    angle = Angle.of(error, activations)
    long = angle.ratio > SHORT
    along = torch.where(long, angle.cosine / angle.length.square(), 0.0)
    own = 2 * (angle.ratio - 1) / (angle.norm.square() * angle.ratio)
    own = torch.where(angle.ratio > 0, own, 0.0)
    gradient = (2 * along + own)[:, :, None] * angle.rebuilt
    gradient -= (2 / (angle.length * angle.norm))[:, :, None] * activations
    return torch.where(angle.known[:, :, None], error.shape[-1] * gradient, 0.0)
