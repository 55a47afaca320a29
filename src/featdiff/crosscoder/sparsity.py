"""Which features explain a token: activation functions in training and at inference, and what single pairs (token,
feature) say to the gradient of `loss.py`.

All rest on a feature's *contribution* f_k n_k with n_k = sum_m |W_dec[k, m]|_2, which does not change when a feature
is rescaled (f_k -> s f_k, W_dec[k] -> W_dec[k] / s); so neither a penalty nor the cut of BatchTopK depends on the
gauge.

ReLU       f = max(0, pre); a contribution c to one model becomes max(0, c - beta / 2) under L1.
BatchTopK  training: of the whole batch, the k * tokens largest contributions stay (Bussmann et al. 2024).
           inference: a contribution stays if it reaches `threshold`, the running mean of the smallest that stayed
           in training, so that a token's code does not depend on its neighbours.
JumpReLU   f = pre where pre > theta_k, else 0; the threshold theta_k of every feature is learned. The jump has no
           gradient with respect to theta; training takes df/dtheta = -theta / bandwidth where
           |pre - theta| < bandwidth / 2 (Rajamanoharan et al. 2024). Where a feature is off, the tanh penalty is as
           steep as L1 with beta = weight * c, so weak features stay off as under that beta; a contribution well above
           1 / c costs `weight` however strong it is, and so is not shrunk.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU, Sparsity
from featdiff.crosscoder.shapes import Codes, Marked, PerFeature, Scalar

THRESHOLD_MOMENTUM = 0.99
"""Share of BatchTopK's threshold that survives a step: a window of about a hundred batches, short enough for short
runs."""


def training_features(sparsity: Sparsity, pre: Codes, norms: PerFeature, threshold: PerFeature | None = None) -> Codes:
    """Features of one training batch from their pre-activations, summed decoder norms, and JumpReLU's thresholds."""
    match sparsity:
        case ReLU():
            return torch.relu(pre)
        case BatchTopK():
            contributions = torch.relu(pre.detach()) * norms.detach()
            cut = smallest_kept(contributions, sparsity.k * len(pre))
            return torch.relu(pre) * (contributions >= cut)
        case JumpReLU(bandwidth=bandwidth):
            assert threshold is not None
            return jump_relu(pre, threshold, bandwidth)


def inference_features(
    sparsity: Sparsity, pre: Codes, norms: PerFeature, cut: Scalar, threshold: PerFeature | None = None
) -> Codes:
    """Features of each token by itself; BatchTopK has one `cut` on contributions, JumpReLU a `threshold` theta for each
    feature."""
    match sparsity:
        case ReLU():
            return torch.relu(pre)
        case BatchTopK():
            return torch.relu(pre) * (pre * norms >= cut)
        case JumpReLU(bandwidth=bandwidth):
            assert threshold is not None
            return jump_relu(pre, threshold, bandwidth)


def jump_relu(pre: Codes, threshold: PerFeature, bandwidth: float) -> Codes:
    """`pre` where it exceeds theta = `threshold`, else 0; the gradient with respect to theta is the straight-through
    estimate."""
    slope = (-threshold / bandwidth * _near(pre, threshold, bandwidth)).detach()
    # threshold - threshold.detach() is 0 and has gradient 1: it carries the slope and changes no value.
    return torch.where(pre > threshold, pre, 0.0) + slope * (threshold - threshold.detach())


def smallest_kept(contributions: Codes, count: int) -> Scalar:
    """The cut of BatchTopK: the `count`-th largest contribution, or the smallest positive one where fewer are positive.

    Ties at the cut all stay, so that the choice does not depend on the order of the tokens. Without any positive
    contribution: inf.
    """
    positive = contributions[contributions > 0]
    if positive.numel() == 0:
        return contributions.new_tensor(torch.inf)
    return positive.topk(min(count, positive.numel()), sorted=False).values.min()


def updated_threshold(threshold: Scalar, cut: Scalar) -> Scalar:
    """BatchTopK's threshold after a batch whose smallest kept contribution was `cut`; the first batch sets it."""
    mean = torch.where(threshold == 0, cut, THRESHOLD_MOMENTUM * threshold + (1 - THRESHOLD_MOMENTUM) * cut)
    return torch.where(cut.isfinite(), mean, threshold)


def auxiliary_features(pre: Codes, dead: Marked, count: int) -> Codes:
    """The `count` strongest dead features of every token, all others 0 (AuxK)."""
    candidates = torch.relu(pre) * dead
    kept = min(count, candidates.shape[1])
    chosen = candidates.topk(kept, dim=1, sorted=False).indices
    return candidates * torch.zeros_like(candidates).scatter_(1, chosen, 1.0)


@dataclass(frozen=True, eq=False)
class Gates:
    """What single entries (token, feature) of a batch say to the gradient of the loss, apart from reconstruction.

    With g = d reconstruction / d f, all per entry and before the division by tokens:

    d loss / d pre_k = (g + penalty) * open        d loss / d log theta_k = sum_tokens (g + penalty) * slope
    d loss / d n_k   = sum_tokens share

    AuxK and JumpReLU's pre-activation penalty come on top. A field that is 0 throughout is one 0 in memory: read it, do
    not write to it.
    """

    value: Float[Tensor, "*entries"]
    """f."""
    open: Float[Tensor, "*entries"]
    """d f / d pre, 0 or 1."""
    penalty: Float[Tensor, "*entries"]
    """d penalty / d f, times the weight: w n under ReLU, w c n sech^2(c f n) under JumpReLU, 0 under BatchTopK."""
    slope: Float[Tensor, "*entries"]
    """d f / d log theta: -theta^2 / bandwidth near the threshold of JumpReLU, else 0."""
    share: Float[Tensor, "*entries"]
    """d penalty / d n, times the weight: w f under ReLU, w c f sech^2(c f n) under JumpReLU, 0 under BatchTopK."""


def gates(
    sparsity: Sparsity,
    pre: Float[Tensor, "*entries"],
    norms: Float[Tensor, "*#entries"],
    threshold: Float[Tensor, "*#entries"] | None,
    weight: Float[Tensor, "*#entries"] | float,
    cut: Scalar,
) -> Gates:
    """`Gates` of pre-activations, be they a whole batch [tokens, features] or a list of entries.

    `norms` and `threshold` (theta under JumpReLU, else None) broadcast to `pre`: of all features for a batch, gathered
    for a list. `weight` is that of L1 or tanh as ramped, of all features or of each, and `cut` BatchTopK's on
    contributions; inf keeps nothing.
    """
    nothing = pre.new_zeros(()).expand_as(pre)
    match sparsity:
        case ReLU():
            value, cost = torch.relu(pre), (weight * norms).expand_as(pre)
            return Gates(value, (pre > 0).to(pre.dtype), cost, nothing, weight * value)
        case BatchTopK():
            kept = (pre > 0) & (pre * norms >= cut)
            return Gates(torch.where(kept, pre, 0.0), kept.to(pre.dtype), nothing, nothing, nothing)
        case JumpReLU(c=c, bandwidth=bandwidth):
            assert threshold is not None
            above = pre > threshold
            value = torch.where(above, pre, 0.0)
            steepness = weight * c * (1 - torch.tanh(c * value * norms).square())
            slope = -threshold.square() / bandwidth * _near(pre, threshold, bandwidth)
            return Gates(value, above.to(pre.dtype), steepness * norms, slope, steepness * value)


def floor(sparsity: Sparsity, norms: PerFeature, threshold: PerFeature | None, cut: Scalar) -> PerFeature:
    """The pre-activation of every feature below which `gates` has value, open, slope and share 0.

    ReLU: 0. BatchTopK: cut / norms, lowered by what rounding may hide, and inf for a feature without a decoder.
    JumpReLU: theta - bandwidth / 2. The pre-activation penalty reaches further down.
    """
    match sparsity:
        case ReLU():
            return torch.zeros_like(norms)
        case BatchTopK():
            lowered = cut * (1 - 2 * torch.finfo(norms.dtype).eps)
            return torch.where(norms > 0, lowered / norms, torch.inf)
        case JumpReLU(bandwidth=bandwidth):
            assert threshold is not None
            return threshold - bandwidth / 2


def _near(
    pre: Float[Tensor, "*entries"], threshold: Float[Tensor, "*#entries"], bandwidth: float
) -> Bool[Tensor, "*entries"]:
    return (pre - threshold).abs() < bandwidth / 2
