"""The loss of a crosscoder, Eq. 3 and 7: the one definition that training, `Crosscoder.loss` and all kernels go by.

f      = act(pre)                                              features [tokens features], by the sparsity
a^[m]  = sum_k f_k W_dec[k, m] + b_dec[m]                      reconstruction of model m; n_k = sum_m |W_dec[k, m]|_2
total  = mean_tokens [ reconstruction + weight * sparsity + pre_weight * pre_activation ]

All in normalised units, *summed* over models and d_model and averaged over tokens: beta = 2 means something else under
any other reduction. The paper's loss is MSE with ReLU. With e_m = a^[m] - a[m] and r_m = |a^[m]| / |a[m]|, of M models:

reconstruction  MSE        sum_m |e_m|^2
                DeltaMSE   sum_m |e_m|^2 + 2 weight / (M - 1) sum_{m < n} <e_m, e_n>,  weight in [-1, 0]
                           At -1 it is the mean over the partners of each model of |e_m - e_n|^2: only differences
                           between models count, and an error that all of them share is free. Never negative.
                Cosine     d_model sum_m [2 (1 - cos(a^[m], a[m])) + (r_m - 1)^2]
                           The relative squared error is 2 r (1 - cos) + (r - 1)^2. Without the factor r the angle
                           counts in full however short the reconstruction; the second term still holds the norm. All
                           tokens weigh the same, and d_model makes a token of mean norm cost about what it costs
                           under MSE.
sparsity        ReLU       sum_k f_k n_k, the decoder-weighted L1; weight is beta
                BatchTopK  AuxK: the reconstruction term once dead features make up for the error (Gao et al. 2024)
                JumpReLU   sum_k tanh(c f_k n_k), about the number of active features (Anthropic, January 2025)
pre_activation  JumpReLU   sum_k max(0, theta_k - pre_k) n_k, which a feature feels where it is off

The reference path differentiates `loss`; the other paths write the same gradients out, and are tested against it.
"""

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.config.crosscoder import MSE, BatchTopK, Cosine, DeltaMSE, JumpReLU, Objective, ReLU, Sparsity
from featdiff.crosscoder.shapes import Codes, Decoder, Marked, PerFeature, Scalar, Values
from featdiff.crosscoder.sparsity import auxiliary_features, training_features

SHORT = 0.1
"""Of the cosine of a reconstruction shorter than this share of its activation, the length counts as that share: a
reconstruction of 0 has no angle, and the gradient of the angle grows with 1 / length."""


@dataclass(frozen=True, eq=False)
class Loss:
    """The terms of the loss; total = reconstruction + sparsity_weight * sparsity + pre_weight * pre_activation.

    Only JumpReLU has a `pre_activation` penalty, else it and its weight are 0.
    """

    reconstruction: Scalar
    sparsity: Scalar
    sparsity_weight: float
    pre_activation: Scalar
    pre_weight: float
    total: Scalar
    features: Codes
    """f, by the rule of training: BatchTopK's choice depends on the batch."""
    error: Values
    """Reconstruction - activations."""


def loss(
    sparsity: Sparsity,
    objective: Objective,
    activations: Values,
    pre: Codes,
    W_dec: Decoder,
    b_dec: Float[Tensor, "models d_model"],
    *,
    threshold: PerFeature | None = None,
    price: PerFeature | float = 1.0,
    sparsity_weight: float | None = None,
    dead: Marked | None = None,
) -> Loss:
    """The loss of one batch of normalised `activations` with pre-activations `pre`; differentiable.

    `threshold` is JumpReLU's theta, `price` what the L1 or tanh of each feature is multiplied by (shared features pay
    less), and `sparsity_weight` stands in for the sparsity's own while that ramps up. `dead` features take part in
    AuxK; without them it is 0.
    """
    norms = W_dec.norm(dim=-1).sum(dim=-1)
    features = training_features(sparsity, pre, norms, threshold)
    error = einsum(features, W_dec, "t f, f m d -> t m d") + b_dec - activations
    pre_activation, pre_weight = error.new_zeros(()), 0.0
    match sparsity:
        case ReLU(weight=weight):
            penalty = weighted_l1(features, price * norms)
        case BatchTopK(aux_weight=weight):
            penalty = _auxiliary(sparsity, objective, activations, pre, W_dec, error.detach(), dead)
        case JumpReLU(weight=weight, c=c, pre_weight=pre_weight):
            assert threshold is not None
            penalty = (price * torch.tanh(c * features * norms)).sum(dim=1).mean()
            pre_activation = weighted_l1(torch.relu(threshold - pre), norms)
    weight = weight if sparsity_weight is None else sparsity_weight
    reconstruction = token_losses(objective, error, activations).mean()
    total = reconstruction + weight * penalty + pre_weight * pre_activation
    return Loss(reconstruction, penalty, weight, pre_activation, pre_weight, total, features, error)


def weighted_l1(values: Codes, norms: PerFeature) -> Scalar:
    """sum_k values_k sum_m |W_dec[k, m]|_2, averaged over tokens: the second term of Eq. 3 and 7, without beta."""
    return einsum(values, norms, "tokens features, features -> tokens").mean()


def _auxiliary(
    sparsity: BatchTopK,
    objective: Objective,
    activations: Values,
    pre: Codes,
    W_dec: Decoder,
    error: Values,
    dead: Marked | None,
) -> Scalar:
    """The reconstruction term once dead features have made up for the error as well as they can."""
    if dead is None or not dead.any():
        return error.new_zeros(())
    features = auxiliary_features(pre, dead, sparsity.aux_k or max(1, W_dec.shape[-1] // 2))
    left = error + einsum(features, W_dec, "t f, f m d -> t m d")
    return token_losses(objective, left, activations).mean()


def token_losses(objective: Objective, error: Values, activations: Values) -> Float[Tensor, " tokens"]:
    """The reconstruction term of each token from its `error`, reconstruction - activations; differentiable."""
    match objective:
        case MSE():
            return error.square().sum(dim=(1, 2))
        case DeltaMSE(weight=weight):
            share = partner_share(weight, error.shape[1])
            return (1 - share) * error.square().sum(dim=(1, 2)) + share * error.sum(dim=1).square().sum(dim=-1)
        case Cosine():
            angle = Angle.of(error, activations)
            terms = 2 * (1 - angle.cosine) + (angle.ratio - 1).square()
            return error.shape[-1] * torch.where(angle.known, terms, 0.0).sum(dim=-1)


def partner_share(weight: float, models: int) -> float:
    """weight / (M - 1): twice the product of the errors of each pair is counted so often."""
    return weight / (models - 1)


@dataclass(frozen=True, eq=False)
class Angle:
    """Reconstruction against activation, for each token and model."""

    rebuilt: Values
    norm: Float[Tensor, "tokens models"]
    """|a|, and 1 where it is 0."""
    length: Float[Tensor, "tokens models"]
    """|a^| as the cosine counts it: at least SHORT times |a|."""
    ratio: Float[Tensor, "tokens models"]
    """|a^| / |a|."""
    cosine: Float[Tensor, "tokens models"]
    known: Bool[Tensor, "tokens models"]
    """Whether the activation is not 0, so that it has a direction."""

    @staticmethod
    def of(error: Values, activations: Values) -> "Angle":
        """From the error of a reconstruction."""
        rebuilt, norm = error + activations, activations.norm(dim=-1)
        known = norm > 0
        norm = torch.where(known, norm, 1.0)
        length = rebuilt.norm(dim=-1)
        counted = torch.maximum(length, SHORT * norm)
        cosine = (rebuilt * activations).sum(dim=-1) / (counted * norm)
        return Angle(rebuilt, norm, counted, length / norm, cosine, known)


def losses_and_gradients(
    objective: Objective, error: Values, activations: Values
) -> tuple[Float[Tensor, " tokens"], Values]:
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


def _cosine_gradient(error: Values, activations: Values) -> Values:
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
