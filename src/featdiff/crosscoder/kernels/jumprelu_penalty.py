"""JumpReLU's penalty on pre-activations below theta, for a step that sees only the pairs near theta and above.

sum over tokens below theta of (theta - pre) = sum over all tokens - sum over pairs that are on,

and the sum over all tokens is linear in the sum of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.config.crosscoder import JumpReLU, Sparsity
from featdiff.crosscoder.kernels.parameter_rows import Batch, Rows
from featdiff.crosscoder.sparsity import Gates


@dataclass(frozen=True)
class Background:
    """What every feature receives whether it is active or not."""

    pull: Float[Tensor, " features"]
    """Times the sum of the batch it joins the gradient of the encoder row, and times its tokens that of the bias."""
    share: Float[Tensor, " features"]
    """It joins the gradient of the decoder's norms."""
    slope: Float[Tensor, " features"]
    """It joins the gradient of log theta."""
    batch_sum: Float[Tensor, " width"]


def background(
    sparsity: Sparsity,
    weights: Rows,
    norms: Float[Tensor, " features"],
    batch: Batch,
    feature: Int[Tensor, " pairs"],
    pre: Float[Tensor, " pairs"],
    gate: Gates,
    sums: Callable[[Float[Tensor, "3 pairs"]], Float[Tensor, "3 features"]],
) -> Background | None:
    """The background of a batch whose pairs are given; `sums` adds up each feature's pairs. None unless JumpReLU.

    Pairs that are on do not feel it, but their encoder rows are pulled like all others: -`pull` makes up for it where
    it joins the penalty of the pairs.
    """
    if not isinstance(sparsity, JumpReLU):
        return None
    theta = weights.threshold()
    assert theta is not None
    on, above, slopes = sums(torch.stack([gate.open, (theta[feature] - pre) * gate.open, gate.slope]))
    batch_sum, tokens = batch.x.sum(dim=0), len(batch.x)
    lift = norms * (sparsity.pre_weight / batch.total)
    lack = tokens * (theta - weights.b_enc) - weights.enc @ batch_sum - above
    return Background(
        pull=-lift,
        share=lack * (sparsity.pre_weight / batch.total),
        slope=lift * (theta * (tokens - on) - slopes),
        batch_sum=batch_sum,
    )
