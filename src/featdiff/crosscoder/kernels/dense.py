"""The dense step: five matrix products written out, gradients in place, no graph.

With f = gates.value, x^ = f W_dec + b_dec, E = d objective / d x^ / tokens (2 (x^ - x) / tokens under squared error),
and U = E W_dec^T + penalty / tokens:

dL/dW_dec = f^T E + share W_dec[k, m] / |W_dec[k, m]|      dL/db_dec = sum_tokens E
G = U * open;   dL/dW_enc = G^T x                          dL/db_enc = sum_tokens G
dL/dlog theta = sum_tokens U * slope
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, JumpReLU, ReLU, Sparsity
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Pull, Rows, no_cut
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.shapes import Marked, PerFeature, RowNorms, Scalar
from featdiff.crosscoder.sparsity import gates


def dense_gradients(
    sparsity: Sparsity, weights: Rows, gradients: Rows, row_norms: RowNorms, batch: Batch, ranks: Ranks
) -> Found:
    """Overwrite `gradients` with those of the loss on one batch."""
    x, norms, theta = batch.x, row_norms.sum(dim=-1), weights.threshold()
    pre = torch.addmm(weights.b_enc, x, weights.enc.T)
    cut = no_cut(pre)
    if isinstance(sparsity, BatchTopK):
        found = ranks.cut((pre * norms).view(-1), sparsity.k * batch.total, 0.0)
        assert found is not None, "without a guess there is always a cut"
        cut = found
    gate = gates(sparsity, pre, norms, theta, batch.weights(), cut)
    error = ranks.sum_over_features(gate.value @ weights.dec).add_(weights.b_dec).sub_(x)
    pull = Pull.of(batch, error, row_norms.shape[1])

    upstream = torch.mm(pull.rows, weights.dec.T)
    if not isinstance(sparsity, BatchTopK):
        upstream.add_(gate.penalty, alpha=1 / batch.total)
    arriving = upstream * gate.open
    shares = gate.share.sum(dim=0) / batch.total
    if isinstance(sparsity, JumpReLU):
        assert theta is not None and gradients.log_threshold is not None
        lack = torch.relu(theta - pre) * (sparsity.pre_weight / batch.total)
        lift = (pre < theta) * norms * (sparsity.pre_weight / batch.total)
        arriving -= lift
        shares += lack.sum(dim=0)
        gradients.log_threshold.copy_((upstream * gate.slope).sum(dim=0) + theta * lift.sum(dim=0))

    torch.mm(gate.value.T, pull.rows, out=gradients.dec)
    torch.mm(arriving.T, x, out=gradients.enc)
    torch.sum(arriving, dim=0, out=gradients.b_enc)
    torch.sum(pull.rows, dim=0, out=gradients.b_dec)
    shape = (*row_norms.shape, -1)
    gradients.dec.view(shape).addcmul_(weights.dec.view(shape), share_factors(row_norms, shares)[:, :, None])
    auxiliary = add_auxiliary(sparsity, weights, gradients, row_norms.shape[1], batch, pull, ranks)
    had_a_say = gate.open + gate.slope.abs() if isinstance(sparsity, JumpReLU) else gate.value
    return Found(
        reconstruction=pull.loss,
        squared_error=pull.squared_error,
        sparsity=penalty(sparsity, gate.value, norms, batch.prices(), batch.total) if auxiliary is None else auxiliary,
        cut=cut,
        active=int(torch.count_nonzero(gate.value)),
        considered=int(torch.count_nonzero(had_a_say)),
        fired=gate.value.any(dim=0),
        square_norm=feature_squares(gradients).sum(),
    )


def penalty(
    sparsity: Sparsity,
    value: Float[Tensor, "*entries"],
    norms: Float[Tensor, "*#entries"],
    price: Float[Tensor, "*#entries"] | float,
    total: int,
) -> Scalar:
    """L1 or JumpReLU's tanh, without its weight; 0 under BatchTopK, which has AuxK instead."""
    match sparsity:
        case ReLU():
            return (value * (price * norms)).sum() / total
        case JumpReLU(c=c):
            return (price * torch.tanh(c * value * norms)).sum() / total
        case BatchTopK():
            return value.new_zeros(())


def share_factors(row_norms: RowNorms, shares: PerFeature) -> RowNorms:
    """What W_dec[k, m] is multiplied by in d loss / d n_k times d n_k / d W_dec[k, m]; 0 for a row that is 0."""
    return torch.where(row_norms > 0, shares[:, None] / row_norms, 0.0)


def add_auxiliary(
    sparsity: Sparsity, weights: Rows, gradients: Rows, models: int, batch: Batch, pull: Pull, ranks: Ranks
) -> Scalar | None:
    """Add AuxK's gradients, which reach the dead features only, and return its value; None without dead features."""
    if not isinstance(sparsity, BatchTopK) or not ranks.sum_over_features(batch.dead.sum()):
        return None
    dead: Int[Tensor, " dead"] = batch.dead.nonzero()[:, 0]
    rows, x = weights.dec[dead], batch.x
    codes = torch.relu(torch.addmm(weights.b_enc[dead], x, weights.enc[dead].T))
    codes *= codes >= ranks.least_of_largest(codes, sparsity.aux_k or max(1, rows.shape[1] // models // 2))[:, None]
    left = Pull.of(batch, pull.error_with(ranks.sum_over_features(codes @ rows), batch.total), models)
    upstream = left.rows * sparsity.aux_weight
    arriving = (upstream @ rows.T) * (codes > 0)
    gradients.dec.index_add_(0, dead, codes.T @ upstream)
    gradients.enc.index_add_(0, dead, arriving.T @ x)
    gradients.b_enc.index_add_(0, dead, arriving.sum(dim=0))
    return left.loss


def feature_squares(gradients: Rows, chosen: Marked | slice = slice(None)) -> Float[Tensor, " some"]:
    """Squared norm of each chosen feature's part of the gradient, float64."""
    parts = [torch.linalg.vector_norm(rows[chosen], dim=1) for rows in (gradients.enc, gradients.dec)]
    parts.append(gradients.b_enc[chosen])
    if gradients.log_threshold is not None:
        parts.append(gradients.log_threshold[chosen])
    return torch.stack(parts).double().square().sum(dim=0)


def reference_gradients(crosscoder: Crosscoder, gradients: Rows, batch: Batch) -> Found:
    """Overwrite the parameters' `grad`, of which `gradients` are views, with those of the loss on one batch.

    Dense autograd of `loss.py`, by way of `Crosscoder.loss`: what all other steps are tested against, in any precision
    and on any device.
    """
    assert batch.total == len(batch.x), "autograd sees one process's tokens only"
    for parameter in crosscoder.parameters():
        grad_of(parameter).zero_()
    raw = batch.x.view(len(batch.x), len(crosscoder.models), -1) * crosscoder.scale[:, None]
    kept = isinstance(crosscoder.sparsity, BatchTopK)
    with torch.enable_grad():
        loss = crosscoder.loss(raw, None if kept else batch.weight, batch.dead)
        loss.total.backward()
    features = loss.features.detach()
    contributions = (features * crosscoder.decoder_norms().detach())[features > 0]
    # Of the parameters of an MLP only autograd knows.
    mlp = [] if crosscoder.W_in is None else [crosscoder.W_in, crosscoder.b_hidden, crosscoder.W_hidden]
    hidden = [grad_of(parameter).double().square().sum() for parameter in mlp if parameter is not None]
    return Found(
        reconstruction=loss.reconstruction.detach(),
        squared_error=loss.error.detach().square().sum() / batch.total,
        sparsity=loss.sparsity.detach(),
        cut=contributions.min() if kept and len(contributions) else no_cut(features),
        active=int(torch.count_nonzero(features)),
        considered=int(torch.count_nonzero(features)),
        fired=features.any(dim=0),
        square_norm=feature_squares(gradients).sum() + sum(hidden),
    )


def grad_of(parameter: torch.nn.Parameter) -> Tensor:
    """Its gradient, which training always has."""
    assert parameter.grad is not None
    return parameter.grad
