"""The step by dense autograd of `Crosscoder.loss`: the oracle of all others, in any precision and on any device."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from featdiff.crosscoder.kernels.dense import feature_squares
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Rows, no_cut
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import BatchTopK, smallest_kept, training_features

HIDDEN = ("W_in", "b_hidden", "W_hidden")
"""Parameters of an MLP, which only autograd knows."""


def reference_gradients(crosscoder: Crosscoder, gradients: Rows, batch: Batch) -> Found:
    """Overwrite the parameters' `grad`, of which `gradients` are views, with those of the loss on one batch."""
    sparsity = crosscoder.sparsity
    assert batch.total == len(batch.x), "autograd sees one process's tokens only"
    for parameter in crosscoder.parameters():
        assert parameter.grad is not None
        parameter.grad.zero_()
    normalised = batch.x.view(len(batch.x), len(crosscoder.models), -1)
    raw = normalised * crosscoder.scale[:, None]
    with torch.enable_grad():
        loss = crosscoder.loss(raw, None if isinstance(sparsity, BatchTopK) else batch.weight, batch.dead)
        loss.total.backward()
    features, cut = _codes(crosscoder, raw)
    error = einsum(features, crosscoder.W_dec.detach(), "t f, f m d -> t m d") + crosscoder.b_dec.detach() - normalised
    hidden = [_square(crosscoder.get_parameter(name)) for name in HIDDEN if crosscoder.W_in is not None]
    return Found(
        reconstruction=loss.reconstruction.detach(),
        squared_error=error.square().sum() / batch.total,
        sparsity=loss.sparsity.detach(),
        cut=cut,
        active=int(torch.count_nonzero(features)),
        considered=int(torch.count_nonzero(features)),
        fired=features.any(dim=0),
        square_norm=feature_squares(gradients).sum() + sum(hidden),
    )


def _square(parameter: torch.nn.Parameter) -> Float[Tensor, ""]:
    assert parameter.grad is not None
    return parameter.grad.double().square().sum()


@torch.no_grad()
def _codes(
    crosscoder: Crosscoder, raw: Float[Tensor, "tokens models d_model"]
) -> tuple[Float[Tensor, "tokens features"], Float[Tensor, ""]]:
    pre, norms = crosscoder.pre_activations(raw), crosscoder.decoder_norms()
    features = training_features(crosscoder.sparsity, pre, norms, crosscoder.thresholds())
    if not isinstance(crosscoder.sparsity, BatchTopK):
        return features, no_cut(pre)
    return features, smallest_kept(torch.relu(pre) * norms, crosscoder.sparsity.k * len(pre))
