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

import numpy as np
from numba import njit
from numpy import bool_, float32, float64, int32, int64, uint16, uint32
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable)

BLOCK = 64
"""Features that are looked at together; most blocks hold no active feature and are passed over whole."""


def compiled(function: Function) -> Function:
    """`function` in machine code, without the wrappers that tests put around it."""
    return cast(Function, njit(nogil=True, fastmath=True, error_model="numpy")(inspect.unwrap(function)))


class EntryArrays(NamedTuple):
    """Active (token, feature) pairs in the order of the tokens, what the sparsity says of each, and the order by
    feature."""

    token_starts: NDArray[int64]
    feature: NDArray[int32]
    value: NDArray[float32]
    open: NDArray[float32]
    penalty: NDArray[float32]
    slope: NDArray[float32]
    share: NDArray[float32]
    feature_starts: NDArray[int64]
    by_feature: NDArray[int32]
    token: NDArray[int32]
    """Token of each pair in the order by feature."""


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
def _dot(left: NDArray[float32], right: NDArray[float32]) -> float32:
    total = float32(0)
    for index in range(left.shape[0]):
        total += left[index] * right[index]
    return total


@compiled
def _square(row: NDArray[float32]) -> float64:
    total = float32(0)
    for index in range(row.shape[0]):
        total += row[index] * row[index]
    return float64(total)


@compiled
def _add(row: NDArray[float32], factor: float32, other: NDArray[float32]) -> None:
    for index in range(row.shape[0]):
        row[index] += factor * other[index]


@compiled
def _add_four(
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


@compiled
def _least(block: NDArray[uint16]) -> uint16:
    least = uint16(0xFFFF)
    for index in range(block.shape[0]):
        least = min(least, block[index])
    return least


@compiled
def _largest_excess(block: NDArray[float32], floor: NDArray[float32]) -> float32:
    largest = float32(-np.inf)
    for index in range(block.shape[0]):
        largest = max(largest, block[index] - floor[index])
    return largest


# ------------------------------------------------------------------ encode: which features are active


@compiled
def screen(
    bits: NDArray[uint16], limits: NDArray[uint32], found: NDArray[int32], ends: NDArray[int64], capacity: int
) -> int:
    """List the features of each token whose bfloat16 `bits` lie below the token's limit; their number, or -1 beyond
    `capacity`.

    Read as an unsigned number, a positive bfloat16 lies below 0x8000 and a negative one above it by the bits of its
    magnitude: `bits < 0x8000 + bits of a margin` means `value > -margin`.
    """
    count = 0
    for token in range(bits.shape[0]):
        row, limit = bits[token], limits[token]
        for block in range((row.shape[0] + BLOCK - 1) // BLOCK):
            part = row[block * BLOCK : (block + 1) * BLOCK]
            if uint32(_least(part)) >= limit:
                continue
            if count + BLOCK > capacity:
                return -1
            for index in range(part.shape[0]):
                found[count] = block * BLOCK + index
                count += 1 if uint32(part[index]) < limit else 0
        ends[token] = count
    return count


@compiled
def refine(
    x: NDArray[float32],
    enc: NDArray[float32],
    b_enc: NDArray[float32],
    floor: NDArray[float32],
    found: NDArray[int32],
    ends: NDArray[int64],
    pre: NDArray[float32],
) -> int:
    """Pre-activations of the listed pairs in float32; pairs at or below the floor are struck off the list."""
    start, count = 0, 0
    for token in range(x.shape[0]):
        row, end = x[token], ends[token]
        for entry in range(end - start):
            feature = found[start + entry]
            value = _dot(row, enc[feature]) + b_enc[feature]
            if value > floor[feature]:
                found[count], pre[count] = feature, value
                count += 1
        start, ends[token] = end, count
    return count


@compiled
def compact(
    products: NDArray[float32],
    floor: NDArray[float32],
    found: NDArray[int32],
    ends: NDArray[int64],
    pre: NDArray[float32],
    capacity: int,
) -> int:
    """List the features of each token whose float32 pre-activation lies above the floor; their number, or -1 beyond
    `capacity`."""
    count = 0
    for token in range(products.shape[0]):
        row = products[token]
        for block in range((row.shape[0] + BLOCK - 1) // BLOCK):
            part, least = row[block * BLOCK : (block + 1) * BLOCK], floor[block * BLOCK : (block + 1) * BLOCK]
            if _largest_excess(part, least) <= 0:
                continue
            if count + BLOCK > capacity:
                return -1
            for index in range(part.shape[0]):
                found[count], pre[count] = block * BLOCK + index, part[index]
                count += 1 if part[index] > least[index] else 0
        ends[token] = count
    return count


@compiled
def order_by_feature(
    token_starts: NDArray[int64],
    feature: NDArray[int32],
    feature_starts: NDArray[int64],
    by_feature: NDArray[int32],
    token: NDArray[int32],
) -> None:
    """Sort pairs by feature, those of one feature by token (a counting sort)."""
    feature_starts[:] = 0
    for entry in range(feature.shape[0]):
        feature_starts[feature[entry] + 1] += 1
    for index in range(feature_starts.shape[0] - 1):
        feature_starts[index + 1] += feature_starts[index]
    place = feature_starts.copy()
    for row in range(token_starts.shape[0] - 1):
        for entry in range(token_starts[row + 1] - token_starts[row]):
            source = token_starts[row] + entry
            target = place[feature[source]]
            by_feature[target], token[target] = source, row
            place[feature[source]] = target + 1


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
            _add_four(
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
            _add(row, entries.value[entry], dec[entries.feature[entry]])


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
    scratch = np.empty(4, float32)
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
        bias, slope, share = _pairs_of(entries, weights.dec[feature], x, pull, first, number, enc, dec, scratch)
        if background.present:
            _add(enc, background.pull[feature], background.batch_sum)
            bias += background.pull[feature] * x.shape[0]
            share += background.share[feature]
            slope += background.slope[feature]
        if share != 0:
            _add_share(dec, weights.dec[feature], row_norms[feature], share)
        gradients.b_enc[feature], gradients.log_threshold[feature] = bias, slope
        squares[feature] = _square(enc) + _square(dec) + float64(bias) ** 2 + float64(slope) ** 2


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
    arriving: NDArray[float32],
) -> tuple[float32, float32, float32]:
    """Add one feature's pairs to its gradient rows; the gradients of its bias, threshold and summed decoder norm."""
    bias, slope, share = float32(0), float32(0), float32(0)
    whole = number // 4
    for group in range(whole + 1):
        size = 4 if group < whole else number - 4 * whole
        place = first + 4 * group
        for index in range(size):
            entry, token = entries.by_feature[place + index], entries.token[place + index]
            upstream = _dot(pull[token], row) + entries.penalty[entry]
            arriving[index] = upstream * entries.open[entry]
            bias += arriving[index]
            slope += upstream * entries.slope[entry]
            share += entries.share[entry]
        if size == 4:
            one, two, three, four = (
                entries.token[place],
                entries.token[place + 1],
                entries.token[place + 2],
                entries.token[place + 3],
            )
            _add_four(enc, arriving[0], x[one], arriving[1], x[two], arriving[2], x[three], arriving[3], x[four])
            _add_four(
                dec,
                entries.value[entries.by_feature[place]],
                pull[one],
                entries.value[entries.by_feature[place + 1]],
                pull[two],
                entries.value[entries.by_feature[place + 2]],
                pull[three],
                entries.value[entries.by_feature[place + 3]],
                pull[four],
            )
            continue
        for index in range(size):
            token = entries.token[place + index]
            _add(enc, arriving[index], x[token])
            _add(dec, entries.value[entries.by_feature[place + index]], pull[token])
    return bias, slope, share


@compiled
def _add_share(gradient: NDArray[float32], row: NDArray[float32], norms: NDArray[float32], share: float32) -> None:
    """Add share x d(sum of norms) / d(row): the unit vector of each model's part."""
    width = row.shape[0] // norms.shape[0]
    for model in range(norms.shape[0]):
        if norms[model] > 0:
            part = slice(model * width, (model + 1) * width)
            _add(gradient[part], share / norms[model], row[part])


# ------------------------------------------------------------------ Adam


@compiled
def adam(
    row: NDArray[float32],
    gradient: NDArray[float32],
    mean: NDArray[float32],
    square: NDArray[float32],
    rates: NDArray[float32],
) -> None:
    """One step of Adam on a row; `rates` as `update` lists them."""
    coefficient, keep_mean, take_mean, keep_square, take_square, size, correction, epsilon = rates
    for index in range(row.shape[0]):
        slope = coefficient * gradient[index]
        first = keep_mean * mean[index] + take_mean * slope
        second = keep_square * square[index] + take_square * slope * slope
        mean[index], square[index] = first, second
        row[index] -= size * first / (np.sqrt(second) * correction + epsilon)


@compiled
def _adam_without_gradient(
    row: NDArray[float32], mean: NDArray[float32], square: NDArray[float32], rates: NDArray[float32]
) -> None:
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
    touched: NDArray[bool_],
    rates: NDArray[float32],
    row_norms: NDArray[float32],
    start: int,
    stop: int,
) -> None:
    """Adam on the rows of the features in [start, stop), and the norms of the new decoder rows, model by model.

    `rates`: the factor that clips the gradient, beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1^step),
    1 / sqrt(1 - beta2^step), epsilon; each rounded once, from the exact number.
    """
    for offset in range(stop - start):
        k = start + offset
        if touched[k]:
            adam(weights.enc[k], gradients.enc[k], means.enc[k], squares.enc[k], rates)
            adam(weights.dec[k], gradients.dec[k], means.dec[k], squares.dec[k], rates)
        else:
            _adam_without_gradient(weights.enc[k], means.enc[k], squares.enc[k], rates)
            _adam_without_gradient(weights.dec[k], means.dec[k], squares.dec[k], rates)
        one = slice(k, k + 1)
        adam(weights.b_enc[one], gradients.b_enc[one], means.b_enc[one], squares.b_enc[one], rates)
        _norms(weights.dec[k], row_norms[k])


@compiled
def norms_of(dec: NDArray[float32], row_norms: NDArray[float32], start: int, stop: int) -> None:
    """Norms of the decoder rows of the features in [start, stop), bit for bit as `update` leaves them."""
    for offset in range(stop - start):
        _norms(dec[start + offset], row_norms[start + offset])


@compiled
def _norms(row: NDArray[float32], norms: NDArray[float32]) -> None:
    width = row.shape[0] // norms.shape[0]
    for model in range(norms.shape[0]):
        norms[model] = np.sqrt(_square(row[model * width : (model + 1) * width]))


# ------------------------------------------------------------------ the screen's copy of the encoder


@compiled
def mirror(enc: NDArray[float32], scale: NDArray[float32], bits: NDArray[uint16], start: int, stop: int) -> None:
    """bfloat16 copies of scaled encoder rows, with scale[k] = 1 / |row|_4, for features in [start, stop)."""
    scratch = np.empty(enc.shape[1], float32)
    raw = scratch.view(uint32)
    for offset in range(stop - start):
        feature = start + offset
        fourth = _fourth_powers(enc[feature])
        scale[feature] = 1 / np.sqrt(np.sqrt(fourth)) if fourth > 0 else 0
        _scale(enc[feature], scale[feature], scratch)
        _round(raw, bits[feature])


@compiled
def _fourth_powers(row: NDArray[float32]) -> float32:
    total = float32(0)
    for index in range(row.shape[0]):
        square = row[index] * row[index]
        total += square * square
    return total


@compiled
def _scale(row: NDArray[float32], factor: float32, out: NDArray[float32]) -> None:
    for index in range(row.shape[0]):
        out[index] = factor * row[index]


@compiled
def _round(raw: NDArray[uint32], bits: NDArray[uint16]) -> None:
    """To the nearest bfloat16, ties to even."""
    for index in range(raw.shape[0]):
        bits[index] = (raw[index] + uint32(0x7FFF) + ((raw[index] >> uint32(16)) & uint32(1))) >> uint32(16)
