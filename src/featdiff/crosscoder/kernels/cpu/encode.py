"""Compiled loops over rows: which pairs (token, feature) are active, and the int8 copies that the screen reads."""

# numpy's stubs take an element of an array for an array.
# pyright: reportArgumentType=false, reportReturnType=false

import numpy as np
from numpy import float32, int8, int32, uint8, uint64
from numpy.typing import NDArray

from featdiff.crosscoder.kernels.cpu.compiled import Bytes, Floats, Ints, Longs, compiled, dot_four

Flags = NDArray[uint8]

WORD = 8
"""Features whose flags are looked at together: most words are zero, and passed over whole."""
LARGEST = 127
"""Of int8, on both sides of 0."""


@compiled
def _mark_scores(row: Ints, lower: Floats, factor: float32, margin: float32, flags: Flags) -> None:
    for index in range(row.shape[0]):
        flags[index] = float32(row[index]) > lower[index] * factor - margin


@compiled
def _mark_above(row: Floats, floor: Floats, flags: Flags) -> None:
    for index in range(row.shape[0]):
        flags[index] = row[index] > floor[index]


@compiled
def _list_marked(flags: Flags, words: NDArray[uint64], found: Ints, count: int) -> int:
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
def screen(scores: Ints, lower: Floats, factors: Floats, margins: Floats, found: Ints, ends: Longs) -> int:
    """List the features of each token whose score lies above lower[feature] x factors[token] - margins[token]; their
    number, or -1 where `found` has no room for them."""
    flags = np.zeros((scores.shape[1] + WORD - 1) // WORD * WORD, uint8)
    words, count = flags.view(uint64), 0
    for token in range(scores.shape[0]):
        _mark_scores(scores[token], lower, factors[token], margins[token], flags)
        count = _list_marked(flags, words, found, count)
        if count < 0:
            return -1
        ends[token] = count
    return count


@compiled
def refine(x: Floats, enc: Floats, b_enc: Floats, floor: Floats, found: Ints, ends: Longs, pre: Floats) -> int:
    """Pre-activations of the listed pairs in float32; pairs at or below the floor are struck off the list."""
    start, count = 0, 0
    for token in range(x.shape[0]):
        row, end = x[token], ends[token]
        for group in range((end - start + 3) // 4):
            # Always four, the last pair again where fewer are left: a value must not depend on what else is listed.
            entry, last = start + 4 * group, end - 1
            one, two = found[entry], found[min(entry + 1, last)]
            three, four = found[min(entry + 2, last)], found[min(entry + 3, last)]
            first, second, third, fourth = dot_four(enc[one], enc[two], enc[three], enc[four], row)
            count = _list_if_above(one, first + b_enc[one], floor, found, pre, count)
            if entry + 1 < end:
                count = _list_if_above(two, second + b_enc[two], floor, found, pre, count)
            if entry + 2 < end:
                count = _list_if_above(three, third + b_enc[three], floor, found, pre, count)
            if entry + 3 < end:
                count = _list_if_above(four, fourth + b_enc[four], floor, found, pre, count)
        start, ends[token] = end, count
    return count


@compiled
def _list_if_above(feature: int, value: float32, floor: Floats, found: Ints, pre: Floats, count: int) -> int:
    if value > floor[feature]:
        found[count], pre[count] = feature, value
        return count + 1
    return count


@compiled
def compact(products: Floats, floor: Floats, found: Ints, ends: Longs, pre: Floats) -> int:
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
def order_by_feature(token_starts: Longs, feature: Ints, feature_starts: Longs, by_feature: Ints, token: Ints) -> None:
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
def mirror(enc: Floats, columns: Floats, scale: Floats, length: Floats, copy: Bytes, start: int, stop: int) -> None:
    """`quantise` the encoder rows of the features in [start, stop), times `columns`."""
    scratch = np.empty(enc.shape[1], float32)
    for offset in range(stop - start):
        k = start + offset
        scale[k], length[k], _ = quantise(enc[k], columns, scratch, copy[k])


@compiled
def quantise_tokens(x: Floats, columns: Floats, scale: Floats, length: Floats, copy: Bytes) -> float32:
    """`quantise` every token of x, times `columns`; the mean coarseness."""
    scratch, total = np.empty(x.shape[1], float32), float32(0)
    for token in range(x.shape[0]):
        scale[token], length[token], coarseness = quantise(x[token], columns, scratch, copy[token])
        total += coarseness
    return total / max(1, x.shape[0])


@compiled
def quantise(row: Floats, columns: Floats, scratch: Floats, copy: Bytes) -> tuple[float32, float32, float32]:
    """copy = round(row x columns / scale), in [-127, 127].

    Gives scale, |row x columns| / scale, and the coarseness: scale as a share of the mean magnitude. Of a row of zeros
    these are 1, 0 and 0.
    """
    sizes, squares = _multiply(row, columns, scratch)
    largest = _largest_bits(scratch.view(int32))
    if largest == 0:
        copy[:] = 0
        return float32(1), float32(0), float32(0)
    scale = _number(largest) / float32(LARGEST)
    _shift(scratch, float32(1) / scale)
    _last_bytes(scratch.view(int32), copy)
    return scale, np.sqrt(squares) / scale, scale * row.shape[0] / sizes


@compiled
def _multiply(row: Floats, columns: Floats, out: Floats) -> tuple[float32, float32]:
    """row x columns, and of it the sum of magnitudes and the sum of squares."""
    sizes, squares = float32(0), float32(0)
    for index in range(row.shape[0]):
        value = row[index] * columns[index]
        out[index] = value
        sizes += abs(value)
        squares += value * value
    return sizes, squares


@compiled
def _largest_bits(raw: Ints) -> int32:
    """The bits of the largest magnitude: unlike that of floats, the compiler vectorises the maximum of integers."""
    largest = int32(0)
    for index in range(raw.shape[0]):
        size = raw[index] & int32(0x7FFFFFFF)
        largest = size if size > largest else largest
    return largest


@compiled
def _number(bits: int32) -> float32:
    one = np.empty(1, int32)
    one[0] = bits
    return one.view(float32)[0]


@compiled
def _shift(row: Floats, factor: float32) -> None:
    """Bring row x factor where neighbouring float32 are 1 apart: the last byte is then the nearest whole number."""
    for index in range(row.shape[0]):
        row[index] = row[index] * factor + float32(1.5 * 2**23)


@compiled
def _last_bytes(raw: Ints, copy: Bytes) -> None:
    for index in range(raw.shape[0]):
        copy[index] = int8(raw[index])
