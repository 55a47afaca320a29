"""How much a rounded product may hide.

bfloat16    A product of two rounded factors is off by a standard deviation of at most SIGMA times itself, so x . row by
            at most SIGMA |x o row|_2 <= SIGMA |x|_4 |row|_4 (Cauchy-Schwarz).
int8        A number is off by a uniform error of variance scale^2 / 12, so x . row by one of variance
            (scale_x^2 |row|^2 + scale_row^2 |x|^2) / 12. That holds while a step is small beside the numbers: where all
            round to 0, the error is the signal.

MARGIN such deviations are allowed for. From time to time some tokens are encoded in full; a miss doubles the margin for
good.
"""

import numpy as np
import torch
from jaxtyping import BFloat16, Bool
from numpy.typing import NDArray
from torch import Tensor

from featdiff.crosscoder.kernels.parameter_rows import Rows
from featdiff.crosscoder.shapes import PerFeature, Scalar, Tokens

SIGMA = 0.58 * 2**-8
"""Standard deviation of a product of two bfloat16 roundings, as a share of that product: 0.41 of a unit for each."""
MARGIN = 9.0
"""Deviations allowed for; the largest that was seen is 8 in bfloat16, outlier dimensions and tokens included, and 5.3
in int8."""
COARSEST = 0.4
"""Largest step of int8, as a share of the mean magnitude. Of normal numbers it is 0.04; up to 1 their errors are still
uniform."""
AUDITED = 64
"""Tokens that an audit encodes in full."""
AUDIT_EVERY = 256
"""Steps between audits."""
TOLERANCE = 1e-5
"""How far a float32 product may be off, as a share of |x| |row|; an audit lets pairs so close to the floor pass."""
MOST_ACTIVE = 0.25
"""Share of pairs beyond which a search gives up."""


def hidden(x: Tokens, margin: Scalar) -> BFloat16[Tensor, " tokens"]:
    """How far below its floor a bfloat16 score of each token may lie although the pair is active, per unit of |row|_4;
    `margin` in deviations."""
    exact = margin * SIGMA * x.square().square_().sum(dim=1).sqrt().sqrt()
    # Two units more: this and the score have been rounded.
    return (exact.bfloat16().view(torch.int16) + 2).view(torch.bfloat16)


def hidden_by_int8(lengths: NDArray[np.float32], longest: float, margin: float) -> NDArray[np.float32]:
    """How far below its floor the int8 score of each token may lie although the pair is active, in units of both
    steps; `lengths` [tokens] and `longest` (of all encoder rows) are norms in steps of their own."""
    return (margin * np.sqrt((lengths.astype(np.float64) ** 2 + longest**2) / 12)).astype(np.float32)


def rounded_up(exact: PerFeature) -> BFloat16[Tensor, " features"]:
    """The next bfloat16 that is not smaller."""
    bits = exact.view(torch.int32)
    # The upper half of the bits, one more where a positive number has something in the lower half.
    return (torch.where(bits > 0, bits + 0xFFFF, bits) >> 16).short().view(torch.bfloat16)


def missed(weights: Rows, x: Tokens, floors: PerFeature, listed: Bool[Tensor, "tokens features"]) -> int:
    """Pairs above the floor that a screen has not listed."""
    slack = TOLERANCE * x.norm(dim=1)[:, None] * weights.enc.norm(dim=1)
    return int(((torch.addmm(weights.b_enc, x, weights.enc.T) > floors + slack) & ~listed).sum())
