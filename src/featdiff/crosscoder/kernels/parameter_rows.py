"""A crosscoder's parameters as training handles them: one contiguous row per feature, all models side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.config.crosscoder import MSE, BatchTopK, JumpReLU, Objective, ReLU, Sparsity
from featdiff.crosscoder.loss import losses_and_gradients


@dataclass(frozen=True, eq=False)
class Rows:
    """Views of the parameters, of their gradients, or of one of Adam's moments; width = models * d_model."""

    enc: Float[Tensor, "features width"]
    dec: Float[Tensor, "features width"]
    b_enc: Float[Tensor, " features"]
    b_dec: Float[Tensor, " width"]
    log_threshold: Float[Tensor, " features"] | None
    """JumpReLU's; the other sparsities have none."""

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> "Rows":
        """Rows of tensors that are named and shaped as a crosscoder's parameters; they share their memory."""
        features = len(tensors["b_enc"])
        return Rows(
            tensors["W_enc"].permute(2, 0, 1).view(features, -1),
            tensors["W_dec"].view(features, -1),
            tensors["b_enc"],
            tensors["b_dec"].view(-1),
            tensors.get("log_threshold"),
        )

    def norms(self, models: int) -> Float[Tensor, "features models"]:
        """|W_dec[k, m]|_2 of every feature and model."""
        return self.dec.view(len(self.dec), models, -1).norm(dim=-1)

    def threshold(self) -> Float[Tensor, " features"] | None:
        """JumpReLU's theta."""
        return None if self.log_threshold is None else self.log_threshold.exp()


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, and what a step needs to know beside it."""

    x: Float[Tensor, "tokens width"]
    """Normalised activations, all models side by side."""
    total: int
    """Tokens of the batch over all processes; the loss is a mean over these."""
    weight: float
    """Weight of L1 or of JumpReLU's tanh at this step; 0 under BatchTopK."""
    dead: Bool[Tensor, " features"]
    """Features that take part in AuxK."""
    guess: float
    """A contribution that BatchTopK's cut will probably exceed; 0 is no guess."""
    step: int
    """Steps before this one."""
    objective: Objective = MSE()  # noqa: RUF009 -- frozen
    """What the reconstruction is trained for."""
    price: Float[Tensor, " features"] | None = None
    """What the penalty of each feature is multiplied by; None: 1 for all."""

    def prices(self, feature: Int[Tensor, " some"] | slice = slice(None)) -> Float[Tensor, " some"] | float:
        """The price of the given features."""
        return 1.0 if self.price is None else self.price[feature]

    def weights(self, feature: Int[Tensor, " some"] | slice = slice(None)) -> Float[Tensor, " some"] | float:
        """The weight of L1 or tanh on the given features."""
        return self.weight * self.prices(feature)


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Found:
    """What a batch said, beside the gradients."""

    reconstruction: Float[Tensor, ""]
    """The objective's value."""
    squared_error: Float[Tensor, ""]
    """|reconstruction - activations|^2, whatever the objective."""
    sparsity: Float[Tensor, ""]
    """L1, AuxK or tanh, as `Loss.sparsity`."""
    cut: Float[Tensor, ""]
    """BatchTopK's smallest kept contribution; inf where nothing was kept, and under the others."""
    active: int
    """Active features, summed over tokens."""
    considered: int
    """Pairs that had a say in value or gradient: those that are active, and under JumpReLU those near the threshold."""
    fired: Bool[Tensor, " features"]
    square_norm: Float[Tensor, ""]
    """Squared norm of the gradient, float64, without b_dec's part."""


@dataclass(frozen=True)
class Rates:
    """Adam's settings at one step, as torch.optim.Adam means them."""

    lr: float
    betas: tuple[float, float]
    step: int
    """Counted from 1."""
    coefficient: float
    """What the gradient is multiplied by, to clip it."""
    epsilon: float = 1e-8

    def numbers(self) -> tuple[float, float, float, float, float, float, float, float]:
        """The coefficient, beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1^step), 1 / sqrt(1 - beta2^step) and
        epsilon, all exact: loops in float32 round each of them once."""
        beta1, beta2 = self.betas
        size, correction = self.lr / (1 - beta1**self.step), 1 / sqrt(1 - beta2**self.step)
        return self.coefficient, beta1, 1 - beta1, beta2, 1 - beta2, size, correction, self.epsilon


def step_weight(sparsity: Sparsity, ramp: float) -> float:
    """Weight of the penalty when a share `ramp` of it has been reached."""
    match sparsity:
        case ReLU(weight=weight) | JumpReLU(weight=weight):
            return ramp * weight
        case BatchTopK():
            return 0.0


def no_cut(like: Tensor) -> Float[Tensor, ""]:
    """The cut where there is none."""
    return like.new_tensor(torch.inf)
