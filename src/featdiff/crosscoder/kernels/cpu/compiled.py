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
from numpy import bool_, float32, float64, int32, int64
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """`function` in machine code, without the wrappers that tests put around it."""
    return cast(Function, njit(nogil=True, fastmath=True, error_model="numpy")(inspect.unwrap(function)))


class EntryArrays(NamedTuple):
    """Active (token, feature) pairs: their values in the order of the tokens, and in the order of the features what
    else is known of each (`Gates`)."""

    token_starts: NDArray[int64]
    feature: NDArray[int32]
    value: NDArray[float32]
    feature_starts: NDArray[int64]
    token: NDArray[int32]
    strength: NDArray[float32]
    """`value` once more."""
    open: NDArray[float32]
    penalty: NDArray[float32]
    slope: NDArray[float32]
    share: NDArray[float32]


class RowArrays(NamedTuple):
    """Parameters, their gradients or one of Adam's moments, one row per feature."""

    enc: NDArray[float32]
    dec: NDArray[float32]
    b_enc: NDArray[float32]
    log_threshold: NDArray[float32]
    """JumpReLU's; zeros, and unused, under the others."""


class Background(NamedTuple):
    """What every feature receives whether it is active or not: JumpReLU's pull on pre-activations.

    `pull` times the sum of the batch joins the gradient of the encoder row, `share` that of the decoder's norms, and
    `slope` that of the threshold.
    """

    present: bool
    pull: NDArray[float32]
    share: NDArray[float32]
    slope: NDArray[float32]
    batch_sum: NDArray[float32]


# ------------------------------------------------------------------ one row


@compiled
def dot_four(
    first: NDArray[float32],
    second: NDArray[float32],
    third: NDArray[float32],
    fourth: NDArray[float32],
    right: NDArray[float32],
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
def square(row: NDArray[float32]) -> float64:
    total = float32(0)
    for index in range(row.shape[0]):
        total += row[index] * row[index]
    return float64(total)


@compiled
def add(row: NDArray[float32], factor: float32, other: NDArray[float32]) -> None:
    for index in range(row.shape[0]):
        row[index] += factor * other[index]


@compiled
def add_four(
    row: NDArray[float32],
    one: float32,
    first: NDArray[float32],
    two: float32,
    second: NDArray[float32],
    three: float32,
    third: NDArray[float32],
    four: float32,
    fourth: NDArray[float32],
) -> None:
    for index in range(row.shape[0]):
        row[index] += (one * first[index] + two * second[index]) + (three * third[index] + four * fourth[index])


# ------------------------------------------------------------------ decode and backward


@compiled
def decode(entries: EntryArrays, dec: NDArray[float32], out: NDArray[float32], start: int, stop: int) -> None:
    """out[token] = sum of value x decoder row, for tokens in [start, stop)."""
    for offset in range(stop - start):
        token = start + offset
        row = out[token]
        row[:] = 0
        first, number = entries.token_starts[token], entries.token_starts[token + 1] - entries.token_starts[token]
        whole = number // 4
        for group in range(whole):
            entry = first + 4 * group
            add_four(
                row,
                entries.value[entry],
                dec[entries.feature[entry]],
                entries.value[entry + 1],
                dec[entries.feature[entry + 1]],
                entries.value[entry + 2],
                dec[entries.feature[entry + 2]],
                entries.value[entry + 3],
                dec[entries.feature[entry + 3]],
            )
        for rest in range(number - 4 * whole):
            entry = first + 4 * whole + rest
            add(row, entries.value[entry], dec[entries.feature[entry]])


@compiled
def residuals(
    out: NDArray[float32],
    x: NDArray[float32],
    b_dec: NDArray[float32],
    factor: float32,
    squares: NDArray[float64],
    start: int,
    stop: int,
) -> None:
    """Turn sums of decoder rows into `factor` x (reconstruction - x), and note each token's squared error."""
    for offset in range(stop - start):
        token = start + offset
        squares[token] = _residual(out[token], x[token], b_dec, factor)


@compiled
def _residual(out: NDArray[float32], x: NDArray[float32], b_dec: NDArray[float32], factor: float32) -> float64:
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
    row_norms: NDArray[float32],
    x: NDArray[float32],
    pull: NDArray[float32],
    background: Background,
    gradients: RowArrays,
    touched: NDArray[bool_],
    squares: NDArray[float64],
    start: int,
    stop: int,
) -> None:
    """Gradient rows of the features in [start, stop), and the square of each feature's part of the gradient.

    A row without an active pair is zero; it is written only if the step before left something in it.
    """
    for offset in range(stop - start):
        feature = start + offset
        first = entries.feature_starts[feature]
        number = entries.feature_starts[feature + 1] - first
        enc, dec = gradients.enc[feature], gradients.dec[feature]
        if touched[feature]:
            enc[:] = 0
            dec[:] = 0
        touched[feature] = number > 0 or background.present
        gradients.b_enc[feature], gradients.log_threshold[feature], squares[feature] = 0, 0, 0
        if not touched[feature]:
            continue
        bias, slope, share = _pairs_of(entries, weights.dec[feature], x, pull, first, number, enc, dec)
        if background.present:
            add(enc, background.pull[feature], background.batch_sum)
            bias += background.pull[feature] * x.shape[0]
            share += background.share[feature]
            slope += background.slope[feature]
        if share != 0:
            _add_share(dec, weights.dec[feature], row_norms[feature], share)
        gradients.b_enc[feature], gradients.log_threshold[feature] = bias, slope
        squares[feature] = square(enc) + square(dec) + float64(bias) ** 2 + float64(slope) ** 2


@compiled
def _pairs_of(
    entries: EntryArrays,
    row: NDArray[float32],
    x: NDArray[float32],
    pull: NDArray[float32],
    first: int,
    number: int,
    enc: NDArray[float32],
    dec: NDArray[float32],
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
        first_token, second_token, third_token, fourth_token = (
            entries.token[a],
            entries.token[b],
            entries.token[c],
            entries.token[d],
        )
        second, third, fourth = float32(place < last), float32(place + 1 < last), float32(place + 2 < last)
        up_a, up_b, up_c, up_d = dot_four(
            pull[first_token], pull[second_token], pull[third_token], pull[fourth_token], row
        )
        up_a += entries.penalty[a]
        up_b = second * (up_b + entries.penalty[b])
        up_c = third * (up_c + entries.penalty[c])
        up_d = fourth * (up_d + entries.penalty[d])
        in_a, in_b, in_c, in_d = (
            up_a * entries.open[a],
            up_b * entries.open[b],
            up_c * entries.open[c],
            up_d * entries.open[d],
        )
        bias += (in_a + in_b) + (in_c + in_d)
        slope += up_a * entries.slope[a] + up_b * entries.slope[b] + up_c * entries.slope[c] + up_d * entries.slope[d]
        share += entries.share[a] + second * entries.share[b] + third * entries.share[c] + fourth * entries.share[d]
        add_four(
            dec,
            entries.strength[a],
            pull[first_token],
            second * entries.strength[b],
            pull[second_token],
            third * entries.strength[c],
            pull[third_token],
            fourth * entries.strength[d],
            pull[fourth_token],
        )
        add_four(enc, in_a, x[first_token], in_b, x[second_token], in_c, x[third_token], in_d, x[fourth_token])
    return bias, slope, share


@compiled
def _add_share(gradient: NDArray[float32], row: NDArray[float32], norms: NDArray[float32], share: float32) -> None:
    """Add share x d(sum of norms) / d(row): the unit vector of each model's part."""
    width = row.shape[0] // norms.shape[0]
    for model in range(norms.shape[0]):
        if norms[model] > 0:
            part = slice(model * width, (model + 1) * width)
            add(gradient[part], share / norms[model], row[part])
