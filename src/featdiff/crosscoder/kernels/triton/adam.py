"""Adam on a GPU, in one pass over weights, moments and gradients.

The same pass leaves what the next step wants of the new rows: a bfloat16 copy of the encoder's with their fourth-power
norm, and the norms of the decoder's. A gradient is read only where there is one. `refresh` runs the same program
without Adam, so that a resumed run starts from what an undisturbed one has.
"""

# Loops of a program run over tensors, which its types do not say.
# pyright: reportArgumentType=false

from dataclasses import dataclass

import torch
import triton.language as tl
from jaxtyping import BFloat16
from torch import Tensor
from triton.language import constexpr, tensor

from featdiff.crosscoder.kernels.parameter_rows import Rates, Rows
from featdiff.crosscoder.kernels.triton.kernels import block_of, kernel, parts_of
from featdiff.crosscoder.shapes import Marked, PerFeature, RowNorms

BLOCK = 1024
"""Columns of a row at a time: of four arrays that are read, with four warps, two loads of 16 bytes per thread each."""


@dataclass(frozen=True, eq=False)
class Derived:
    """What is known of the weights beside themselves."""

    mirror: BFloat16[Tensor, "features width"]
    """Encoder rows, rounded."""
    reach: PerFeature
    """|row|_4 of the encoder."""
    row_norms: RowNorms
    """|W_dec[k, m]|_2."""

    @staticmethod
    def empty(weights: Rows, models: int) -> "Derived":
        """Memory for it, not yet filled."""
        features = len(weights.enc)
        mirror = torch.empty_like(weights.enc, dtype=torch.bfloat16)
        return Derived(mirror, weights.enc.new_empty(features), weights.enc.new_empty(features, models))


def refresh(weights: Rows, derived: Derived) -> None:
    """Fill `derived` from the weights."""
    # Without Adam only the weights are read; something has to stand in the other places.
    _pass_over(weights, weights, weights, weights, weights.b_enc, (0.0,) * 8, derived, moving=False)


def update(
    weights: Rows, gradients: Rows, means: Rows, squares: Rows, touched: Marked, rates: Rates, derived: Derived
) -> None:
    """One step of Adam in place, and `derived` of the new weights; rows that are not touched have gradient 0."""
    numbers = rates.numbers()
    _pass_over(weights, gradients, means, squares, touched, numbers, derived, moving=True)
    always = torch.ones_like(touched[:1])
    for name in ("b_enc", "b_dec", "log_threshold"):
        vectors = [getattr(rows, name) for rows in (weights, gradients, means, squares)]
        if vectors[0] is not None:
            size = len(vectors[0])
            # A vector is one row of many parts; the last may be short.
            grid = (1, parts_of(size, BLOCK))
            _adam[grid](*vectors, always, numbers, always, always, BLOCK, size, MOVING=True, POWER=0, BLOCK=BLOCK)


def _pass_over(
    weights: Rows,
    gradients: Rows,
    means: Rows,
    squares: Rows,
    touched: Tensor,
    numbers: tuple[float, ...],
    derived: Derived,
    moving: bool,
) -> None:
    features, models = derived.row_norms.shape
    bits = derived.mirror.view(torch.int16)
    for name, parts, power, norms in (("enc", 1, 4, derived.reach), ("dec", models, 2, derived.row_norms)):
        rows = [getattr(each, name) for each in (weights, gradients, means, squares)]
        size = rows[0].numel()
        length = size // (features * parts)
        arrays = (*rows, touched, numbers, norms, bits)
        _adam[(features, parts)](*arrays, length, size, MOVING=moving, POWER=power, BLOCK=block_of(length, BLOCK))


@kernel
def _adam(
    weights: tensor,
    gradients: tensor,
    means: tensor,
    squares: tensor,
    touched: tensor,
    numbers: tl.tuple,
    norms: tensor,
    mirror: tensor,
    length: tensor,
    size: tensor,
    MOVING: constexpr,
    POWER: constexpr,
    BLOCK: constexpr,
) -> None:
    """One part of one row; POWER 2 and 4: its norm of that power, 4: its copy as well."""
    part = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    total = tl.full([BLOCK], 0.0, tl.float32)
    for start in range(0, length, BLOCK):
        place = part * length + start + tl.arange(0, BLOCK)
        inside = start + tl.arange(0, BLOCK) < length
        if POWER == 0:
            inside = place < size
        row = tl.load(weights + place, mask=inside, other=0.0)
        if MOVING:
            coefficient, keep_mean, take_mean, keep_square, take_square, rate, correction, epsilon = numbers
            has_gradient = tl.load(touched + tl.program_id(0))
            slope = coefficient * tl.load(gradients + place, mask=inside & has_gradient, other=0.0)
            mean = keep_mean * tl.load(means + place, mask=inside, other=0.0) + take_mean * slope
            square = keep_square * tl.load(squares + place, mask=inside, other=0.0) + take_square * slope * slope
            row -= rate * mean / (tl.sqrt_rn(square) * correction + epsilon)
            tl.store(means + place, mean, mask=inside)
            tl.store(squares + place, square, mask=inside)
            tl.store(weights + place, row, mask=inside)
        if POWER == 2:
            total += row * row
        if POWER == 4:
            total += row * row * (row * row)
            # To the nearest bfloat16, ties to even, by hand: Triton's interpreter would truncate.
            bits = row.to(tl.uint32, bitcast=True)
            bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            tl.store(mirror + place, bits.to(tl.int16), mask=inside)
    if POWER == 2:
        tl.store(norms + part, tl.sqrt_rn(tl.sum(total, 0)))
    if POWER == 4:
        tl.store(norms + part, tl.sqrt_rn(tl.sqrt_rn(tl.sum(total, 0))))
