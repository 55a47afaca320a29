"""How much a bfloat16 product may hide, and what every screen makes of it.

A product of two rounded factors is off by a standard deviation of at most SIGMA times itself, so x . row by at most
SIGMA |x o row|_2 <= SIGMA |x|_4 |row|_4 (Cauchy-Schwarz). MARGIN such deviations are allowed for. From time to time
some tokens are encoded in full; a miss doubles the margin for good.
"""

import torch
from jaxtyping import BFloat16, Bool, Float
from torch import Tensor

from featdiff.crosscoder.kernels.rows import Rows

SIGMA = 0.58 * 2**-8
"""Standard deviation of a product of two bfloat16 roundings, as a share of that product: 0.41 of a unit for each."""
MARGIN = 9.0
"""Deviations allowed for; the largest that was seen is 8, outlier dimensions and tokens included."""
AUDITED = 64
"""Tokens that an audit encodes in full."""
AUDIT_EVERY = 256
"""Steps between audits."""
TOLERANCE = 1e-5
"""How far a float32 product may be off, as a share of |x| |row|; an audit lets pairs so close to the floor pass."""
MOST_ACTIVE = 0.25
"""Share of pairs beyond which a search gives up."""


def hidden(x: Float[Tensor, "tokens width"], margin: Float[Tensor, ""]) -> BFloat16[Tensor, " tokens"]:
    """How far below its floor a bfloat16 score of each token may lie although the pair is active, per unit of |row|_4;
    `margin` in deviations."""
    exact = margin * SIGMA * x.square().square_().sum(dim=1).sqrt().sqrt()
    # Two units more: this and the score have been rounded.
    return (exact.bfloat16().view(torch.int16) + 2).view(torch.bfloat16)


def rounded_up(exact: Float[Tensor, " features"]) -> BFloat16[Tensor, " features"]:
    """The next bfloat16 that is not smaller."""
    bits = exact.view(torch.int32)
    # The upper half of the bits, one more where a positive number has something in the lower half.
    return (torch.where(bits > 0, bits + 0xFFFF, bits) >> 16).short().view(torch.bfloat16)


def missed(
    weights: Rows,
    x: Float[Tensor, "tokens width"],
    floors: Float[Tensor, " features"],
    listed: Bool[Tensor, "tokens features"],
) -> int:
    """Pairs above the floor that a screen has not listed."""
    slack = TOLERANCE * x.norm(dim=1)[:, None] * weights.enc.norm(dim=1)
    return int(((torch.addmm(weights.b_enc, x, weights.enc.T) > floors + slack) & ~listed).sum())
