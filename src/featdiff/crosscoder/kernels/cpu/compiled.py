"""Loops over rows, compiled by numba: what the sparse step does for a range of tokens or of features.

Every loop over a row is a function of its own, and slices stand where a range would not begin at 0: in one large body
the compiler no longer sees that rows do not overlap, and the code is no longer vectorised. The functions release the
interpreter's lock, so that threads take ranges side by side; no result depends on how the ranges are cut.
"""

# numpy's stubs take an element of an array for an array.
# pyright: reportArgumentType=false, reportReturnType=false

import inspect
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

from numba import njit
from numpy import bool_, float32, float64, int8, int32, int64
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., object])
Floats = NDArray[float32]
Doubles = NDArray[float64]
Ints = NDArray[int32]
Longs = NDArray[int64]
Bytes = NDArray[int8]
Bools = NDArray[bool_]


def compiled(function: Function) -> Function:
    """`function` in machine code, without the wrappers that tests put around it."""
    return cast(Function, njit(nogil=True, fastmath=True, error_model="numpy")(inspect.unwrap(function)))


class EntryArrays(NamedTuple):
    """Active (token, feature) pairs: their values in the order of the tokens, and in the order of the features what
    else is known of each (`Gates`)."""

    token_starts: Longs
    feature: Ints
    value: Floats
    feature_starts: Longs
    token: Ints
    strength: Floats
    """`value` once more."""
    open: Floats
    penalty: Floats
    slope: Floats
    share: Floats


class RowArrays(NamedTuple):
    """Parameters, their gradients or one of Adam's moments, one row per feature."""

    enc: Floats
    dec: Floats
    b_enc: Floats
    log_threshold: Floats
    """JumpReLU's; zeros, and unused, under the others."""


# ------------------------------------------------------------------ one row


@compiled
def dot_four(
    first: Floats, second: Floats, third: Floats, fourth: Floats, right: Floats
) -> tuple[float32, float32, float32, float32]:
    """Four at once: rows from distant places of memory are then waited for together."""
    a, b, c, d = float32(0), float32(0), float32(0), float32(0)
    for index in range(right.shape[0]):
        a += first[index] * right[index]
        b += second[index] * right[index]
        c += third[index] * right[index]
        d += fourth[index] * right[index]
    return a, b, c, d


@compiled
def square(row: Floats) -> float64:
    total = float32(0)
    for index in range(row.shape[0]):
        total += row[index] * row[index]
    return float64(total)


@compiled
def add(row: Floats, factor: float32, other: Floats) -> None:
    for index in range(row.shape[0]):
        row[index] += factor * other[index]


@compiled
def add_four(
    row: Floats,
    one: float32,
    first: Floats,
    two: float32,
    second: Floats,
    three: float32,
    third: Floats,
    four: float32,
    fourth: Floats,
) -> None:
    for index in range(row.shape[0]):
        row[index] += (one * first[index] + two * second[index]) + (three * third[index] + four * fourth[index])


# ------------------------------------------------------------------ decode and backward


@compiled
def decode(entries: EntryArrays, dec: Floats, out: Floats, start: int, stop: int) -> None:
    """out[token] = sum of value x decoder row, for tokens in [start, stop)."""
    for offset in range(stop - start):
        token = start + offset
        row = out[token]
        row[:] = 0
        first, number = entries.token_starts[token], entries.token_starts[token + 1] - entries.token_starts[token]
        whole = number // 4
        for group in range(whole):
            four = slice(first + 4 * group, first + 4 * group + 4)
            v, f = entries.value[four], entries.feature[four]
            add_four(row, v[0], dec[f[0]], v[1], dec[f[1]], v[2], dec[f[2]], v[3], dec[f[3]])
        for rest in range(number - 4 * whole):
            entry = first + 4 * whole + rest
            add(row, entries.value[entry], dec[entries.feature[entry]])


@compiled
def residuals(out: Floats, x: Floats, b_dec: Floats, factor: float32, squares: Doubles, start: int, stop: int) -> None:
    """Turn sums of decoder rows into `factor` x (reconstruction - x), and note each token's squared error."""
    for offset in range(stop - start):
        token = start + offset
        squares[token] = _residual(out[token], x[token], b_dec, factor)


@compiled
def _residual(out: Floats, x: Floats, b_dec: Floats, factor: float32) -> float64:
    total = float32(0)
    for index in range(out.shape[0]):
        error = out[index] + b_dec[index] - x[index]
        total += error * error
        out[index] = factor * error
    return float64(total)


@compiled
def backward(
    entries: EntryArrays,
    weights: RowArrays,
    row_norms: Floats,
    x: Floats,
    pull: Floats,
    background: tuple[Floats, Floats, Floats, Floats] | None,
    gradients: RowArrays,
    touched: Bools,
    squares: Doubles,
    start: int,
    stop: int,
) -> None:
    """Gradient rows of the features in [start, stop), and the square of each feature's part of the gradient.

    A row without an active pair is zero; it is written only if the step before left something in it. `background`
    holds the fields of a `Background`.
    """
    for offset in range(stop - start):
        feature = start + offset
        first = entries.feature_starts[feature]
        number = entries.feature_starts[feature + 1] - first
        enc, dec = gradients.enc[feature], gradients.dec[feature]
        if touched[feature]:
            enc[:] = 0
            dec[:] = 0
        touched[feature] = number > 0 or background is not None
        gradients.b_enc[feature], gradients.log_threshold[feature], squares[feature] = 0, 0, 0
        if not touched[feature]:
            continue
        bias, slope, share = _pairs_of(entries, weights.dec[feature], x, pull, first, number, enc, dec)
        if background is not None:
            pulls, shares, slopes, batch_sum = background
            add(enc, pulls[feature], batch_sum)
            bias += pulls[feature] * x.shape[0]
            share += shares[feature]
            slope += slopes[feature]
        if share != 0:
            _add_share(dec, weights.dec[feature], row_norms[feature], share)
        gradients.b_enc[feature], gradients.log_threshold[feature] = bias, slope
        squares[feature] = square(enc) + square(dec) + float64(bias) ** 2 + float64(slope) ** 2


@compiled
def _pairs_of(
    entries: EntryArrays, row: Floats, x: Floats, pull: Floats, first: int, number: int, enc: Floats, dec: Floats
) -> tuple[float32, float32, float32]:
    """Add one feature's pairs to its gradient rows; the gradients of its bias, threshold and summed decoder norm.

    Four pairs at a time, so that a gradient row is read and written once for four; the last four are filled up with
    the last pair, times 0.
    """
    bias, slope, share = float32(0), float32(0), float32(0)
    last = first + number - 1
    for group in range((number + 3) // 4):
        place = first + 4 * group
        a, b, c, d = place, min(place + 1, last), min(place + 2, last), min(place + 3, last)
        one, two, three, four = entries.token[a], entries.token[b], entries.token[c], entries.token[d]
        second, third, fourth = float32(place < last), float32(place + 1 < last), float32(place + 2 < last)
        up_a, up_b, up_c, up_d = dot_four(pull[one], pull[two], pull[three], pull[four], row)
        up_a += entries.penalty[a]
        up_b = second * (up_b + entries.penalty[b])
        up_c = third * (up_c + entries.penalty[c])
        up_d = fourth * (up_d + entries.penalty[d])
        in_a, in_b = up_a * entries.open[a], up_b * entries.open[b]
        in_c, in_d = up_c * entries.open[c], up_d * entries.open[d]
        bias += (in_a + in_b) + (in_c + in_d)
        slope += up_a * entries.slope[a] + up_b * entries.slope[b] + up_c * entries.slope[c] + up_d * entries.slope[d]
        share += entries.share[a] + second * entries.share[b] + third * entries.share[c] + fourth * entries.share[d]
        on_a, on_b = entries.strength[a], second * entries.strength[b]
        on_c, on_d = third * entries.strength[c], fourth * entries.strength[d]
        add_four(dec, on_a, pull[one], on_b, pull[two], on_c, pull[three], on_d, pull[four])
        add_four(enc, in_a, x[one], in_b, x[two], in_c, x[three], in_d, x[four])
    return bias, slope, share


@compiled
def _add_share(gradient: Floats, row: Floats, norms: Floats, share: float32) -> None:
    """Add share x d(sum of norms) / d(row): the unit vector of each model's part."""
    width = row.shape[0] // norms.shape[0]
    for model in range(norms.shape[0]):
        if norms[model] > 0:
            part = slice(model * width, (model + 1) * width)
            add(gradient[part], share / norms[model], row[part])
