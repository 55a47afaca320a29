"""The objective's gradient with respect to a batch's reconstruction: all that encoder and decoder learn from it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from featdiff.crosscoder.kernels.parameter_rows import Batch
from featdiff.crosscoder.objectives import MSE, losses_and_gradients


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
