"""Compiled loops over rows: Adam in place, and the norms of the new decoder rows."""

# numpy's stubs take an element of an array for an array.
# pyright: reportArgumentType=false, reportReturnType=false

from typing import NamedTuple

import numpy as np
from numpy import float32

from featdiff.crosscoder.kernels.cpu.compiled import Bools, Bytes, Floats, RowArrays, compiled, square
from featdiff.crosscoder.kernels.cpu.encode import quantise


class CopyArrays(NamedTuple):
    """The int8 copy of the encoder, as `mirror` writes it."""

    columns: Floats
    scale: Floats
    length: Floats
    copy: Bytes


@compiled
def adam(row: Floats, gradient: Floats, mean: Floats, square: Floats, rates: Floats) -> None:
    """One step of Adam on a row; `rates` as `update` lists them."""
    coefficient, keep_mean, take_mean, keep_square, take_square, size, correction, epsilon = rates
    for index in range(row.shape[0]):
        slope = coefficient * gradient[index]
        first = keep_mean * mean[index] + take_mean * slope
        second = keep_square * square[index] + take_square * slope * slope
        mean[index], square[index] = first, second
        row[index] -= size * first / (np.sqrt(second) * correction + epsilon)


@compiled
def _adam_without_gradient(row: Floats, mean: Floats, square: Floats, rates: Floats) -> None:
    keep_mean, keep_square, size, correction, epsilon = rates[1], rates[3], rates[5], rates[6], rates[7]
    for index in range(row.shape[0]):
        first = keep_mean * mean[index]
        second = keep_square * square[index]
        mean[index], square[index] = first, second
        row[index] -= size * first / (np.sqrt(second) * correction + epsilon)


@compiled
def update(
    weights: RowArrays,
    gradients: RowArrays,
    means: RowArrays,
    squares: RowArrays,
    touched: Bools,
    rates: Floats,
    row_norms: Floats,
    copies: CopyArrays,
    start: int,
    stop: int,
) -> None:
    """Adam on the rows of the features in [start, stop); while a row is in the cache, the norms of its decoder, model
    by model, and the copy of its encoder (`mirror`).

    `rates`: the factor that clips the gradient, beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1^step),
    1 / sqrt(1 - beta2^step), epsilon; each rounded once, from the exact number.
    """
    scratch = np.empty(weights.enc.shape[1], float32)
    for offset in range(stop - start):
        k = start + offset
        if touched[k]:
            adam(weights.enc[k], gradients.enc[k], means.enc[k], squares.enc[k], rates)
            copies.scale[k], copies.length[k], _ = quantise(weights.enc[k], copies.columns, scratch, copies.copy[k])
            adam(weights.dec[k], gradients.dec[k], means.dec[k], squares.dec[k], rates)
        else:
            _adam_without_gradient(weights.enc[k], means.enc[k], squares.enc[k], rates)
            copies.scale[k], copies.length[k], _ = quantise(weights.enc[k], copies.columns, scratch, copies.copy[k])
            _adam_without_gradient(weights.dec[k], means.dec[k], squares.dec[k], rates)
        _norms(weights.dec[k], row_norms[k])
    part = slice(start, stop)
    adam(weights.b_enc[part], gradients.b_enc[part], means.b_enc[part], squares.b_enc[part], rates)


@compiled
def norms_of(dec: Floats, row_norms: Floats, start: int, stop: int) -> None:
    """Norms of the decoder rows of the features in [start, stop), bit for bit as `update` leaves them."""
    for offset in range(stop - start):
        _norms(dec[start + offset], row_norms[start + offset])


@compiled
def _norms(row: Floats, norms: Floats) -> None:
    width = row.shape[0] // norms.shape[0]
    for model in range(norms.shape[0]):
        norms[model] = np.sqrt(square(row[model * width : (model + 1) * width]))
