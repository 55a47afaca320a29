"""The step by dense autograd of `loss.py`, by way of `Crosscoder.loss`: what all others are tested against, in any
precision and on any device."""

import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK
from featdiff.crosscoder.kernels.dense import feature_squares
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Rows, no_cut
from featdiff.crosscoder.model import Crosscoder

HIDDEN = ("W_in", "b_hidden", "W_hidden")
"""Parameters of an MLP, which only autograd knows."""


def reference_gradients(crosscoder: Crosscoder, gradients: Rows, batch: Batch) -> Found:
    """Overwrite the parameters' `grad`, of which `gradients` are views, with those of the loss on one batch."""
    assert batch.total == len(batch.x), "autograd sees one process's tokens only"
    for parameter in crosscoder.parameters():
        assert parameter.grad is not None
        parameter.grad.zero_()
    raw = batch.x.view(len(batch.x), len(crosscoder.models), -1) * crosscoder.scale[:, None]
    kept = isinstance(crosscoder.sparsity, BatchTopK)
    with torch.enable_grad():
        loss = crosscoder.loss(raw, None if kept else batch.weight, batch.dead)
        loss.total.backward()
    features = loss.features.detach()
    contributions = (features * crosscoder.decoder_norms().detach())[features > 0]
    hidden = [_square(crosscoder.get_parameter(name)) for name in HIDDEN if crosscoder.W_in is not None]
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


def _square(parameter: torch.nn.Parameter) -> Float[Tensor, ""]:
    assert parameter.grad is not None
    return parameter.grad.double().square().sum()
