"""Compiled loops over rows: which pairs (token, feature) are active, and the bfloat16 copy that the screen reads."""

# numpy's stubs take an element of an array for an array.
# pyright: reportArgumentType=false, reportReturnType=false

import numpy as np
from numpy import bool_, float32, int32, int64, uint8, uint16, uint32, uint64
from numpy.typing import NDArray

from featdiff.crosscoder.kernels.compiled import compiled, dot, dot_four

WORD = 8
"""Features whose flags are looked at together: most words are zero, and passed over whole."""


@compiled
def _mark_below(row: NDArray[uint16], limit: uint16, flags: NDArray[uint8]) -> None:
    for index in range(row.shape[0]):
        flags[index] = row[index] < limit


@compiled
def _mark_above(row: NDArray[float32], floor: NDArray[float32], flags: NDArray[uint8]) -> None:
    for index in range(row.shape[0]):
        flags[index] = row[index] > floor[index]


@compiled
def _list_marked(flags: NDArray[uint8], words: NDArray[uint64], found: NDArray[int32], count: int) -> int:
    """Append what is marked to `found` after `count` entries; the new count, or -1 where there is no room."""
    for word in range(words.shape[0]):
        if words[word] == 0:
            continue
        if count + WORD > found.shape[0]:
            return -1
        for index in range(WORD):
            found[count] = WORD * word + index
            count += flags[WORD * word + index]
    return count


@compiled
def screen(bits: NDArray[uint16], limits: NDArray[uint16], found: NDArray[int32], ends: NDArray[int64]) -> int:
    """List the features of each token whose bfloat16 `bits` lie below the token's limit; their number, or -1 where
    `found` has no room for them.

    Read as an unsigned number, a positive bfloat16 lies below 0x8000 and a negative one above it by the bits of its
    magnitude: `bits < 0x8000 + bits of a margin` means `value > -margin`.
    """
    flags = np.zeros((bits.shape[1] + WORD - 1) // WORD * WORD, uint8)
    words, count = flags.view(uint64), 0
    for token in range(bits.shape[0]):
        _mark_below(bits[token], limits[token], flags)
        count = _list_marked(flags, words, found, count)
        if count < 0:
            return -1
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
        whole = (end - start) // 4
        for group in range(whole):
            entry = start + 4 * group
            one, two, three, four = found[entry], found[entry + 1], found[entry + 2], found[entry + 3]
            first, second, third, fourth = dot_four(enc[one], enc[two], enc[three], enc[four], row)
            count = _list_if_above(one, first + b_enc[one], floor, found, pre, count)
            count = _list_if_above(two, second + b_enc[two], floor, found, pre, count)
            count = _list_if_above(three, third + b_enc[three], floor, found, pre, count)
            count = _list_if_above(four, fourth + b_enc[four], floor, found, pre, count)
        for rest in range(end - start - 4 * whole):
            feature = found[start + 4 * whole + rest]
            value = dot(row, enc[feature]) + b_enc[feature]
            count = _list_if_above(feature, value, floor, found, pre, count)
        start, ends[token] = end, count
    return count


@compiled
def _list_if_above(
    feature: int, value: float32, floor: NDArray[float32], found: NDArray[int32], pre: NDArray[float32], count: int
) -> int:
    if value > floor[feature]:
        found[count], pre[count] = feature, value
        return count + 1
    return count


@compiled
def compact(
    products: NDArray[float32],
    floor: NDArray[float32],
    found: NDArray[int32],
    ends: NDArray[int64],
    pre: NDArray[float32],
) -> int:
    """List the features of each token whose float32 pre-activation lies above the floor; their number, or -1 where
    `found` has no room for them."""
    flags = np.zeros((products.shape[1] + WORD - 1) // WORD * WORD, uint8)
    words, count = flags.view(uint64), 0
    for token in range(products.shape[0]):
        row, start = products[token], count
        _mark_above(row, floor, flags)
        count = _list_marked(flags, words, found, count)
        if count < 0:
            return -1
        for entry in range(count - start):
            pre[start + entry] = row[found[start + entry]]
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


@compiled
def mark_active(feature: NDArray[int32], value: NDArray[float32], fired: NDArray[bool_]) -> int:
    """Mark the features of pairs whose value is not 0; the number of these pairs."""
    count = 0
    for entry in range(feature.shape[0]):
        on = value[entry] != 0
        fired[feature[entry]] |= on
        count += on
    return count


@compiled
def mirror(enc: NDArray[float32], scale: NDArray[float32], bits: NDArray[uint16], start: int, stop: int) -> None:
    """bfloat16 copies of scaled encoder rows, with scale[k] = 1 / |row|_4, for features in [start, stop)."""
    scratch = np.empty(enc.shape[1], float32)
    for offset in range(stop - start):
        feature = start + offset
        scale[feature] = mirror_row(enc[feature], scratch, bits[feature])


@compiled
def mirror_row(row: NDArray[float32], scratch: NDArray[float32], bits: NDArray[uint16]) -> float32:
    """`mirror` for one row; `scratch` has room for it."""
    fourth = _fourth_powers(row)
    scale = float32(1 / np.sqrt(np.sqrt(fourth)) if fourth > 0 else 0)
    _scale(row, scale, scratch)
    _round(scratch.view(uint32), bits)
    return scale


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
