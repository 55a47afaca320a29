"""Programs for a GPU, written in Triton, each beneath a function on tensors that launches it.

All arithmetic is float32, no number is added to another by atomic operations, and block sizes depend on shapes alone:
the same call gives the same bits every time. Programs that loop over pairs take a tile [pairs, columns] at a time, so
that many rows are under way at once. With TRITON_INTERPRET=1 in the environment before the first import of triton, the
programs run on a CPU, slowly.
"""

# Loops of a program run over tensors, which its types do not say.
# pyright: reportArgumentType=false

import inspect
from collections.abc import Callable
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from triton.language import constexpr, tensor

from featdiff.crosscoder.shapes import Codes, Marked, PerFeature, RowNorms, Tokens

Function = TypeVar("Function", bound=Callable[..., object])

LISTED = 2048
"""Columns of one token that a program looks through."""
PRODUCT = (16, 128)
"""Pairs, and columns at a time, of a program that multiplies rows: a warp reads 512 bytes of a row at once."""
DECODED = (8, 512)
"""Pairs at a time, and columns, of a program that adds up decoder rows for a token."""
GRADIENT = (4, 1024)
"""Pairs at a time, and columns, of a program that adds up a feature's gradient. Most features have no pair, and their
programs end at once; so the programs are wide, and few."""
SUMMED = (16, 32)
"""Features, and pairs of each at a time, of a program that adds up numbers."""


@runtime_checkable
class Kernel(Protocol):
    """A program that can be launched."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]: ...


def kernel(function: Callable[..., None]) -> Kernel:
    """A program, without the wrappers that tests put around it. It is compiled once for each shape of a crosscoder;
    the number of `pairs` differs from step to step."""
    return triton.jit(do_not_specialize=["pairs"])(inspect.unwrap(function))


def device(function: Function) -> Function:
    """Part of programs."""
    return cast(Function, triton.jit(inspect.unwrap(function)))


def block_of(size: int, most: int) -> int:
    """Columns of a program's tile: a power of two that holds `size`, but no more than `most`."""
    return min(1 << (size - 1).bit_length(), most)


def parts_of(size: int, part: int) -> int:
    """How many parts `size` is cut into."""
    return -(-size // part)


# ------------------------------------------------------------------ encode: which features are active


def listed(
    scores: Codes, floors: PerFeature, limits: Float[Tensor, " tokens"], reach: PerFeature, most: int
) -> tuple[Int[Tensor, " borders"], Int[Tensor, " pairs"], Int[Tensor, " pairs"]] | None:
    """Where the pairs of each token start, and tokens and features of all pairs that may lie above their floor, in
    order: score > floor - limit x reach, and scores that are no number. None where there are more than `most`."""
    tokens, features = scores.shape
    block = block_of(features, LISTED)
    grid = (tokens, parts_of(features, block))
    counts = torch.empty(grid, dtype=torch.int32, device=scores.device)
    tests = (scores, floors, limits, reach)
    _count[grid](*tests, counts, features, BLOCK=block)
    found = int(counts.sum())
    if found > most:
        return None
    ends = counts.view(-1).cumsum(0, dtype=torch.int64)
    token, feature = (torch.empty(found, dtype=torch.int32, device=scores.device) for _ in range(2))
    _list[grid](*tests, ends, token, feature, features, BLOCK=block)
    starts = torch.zeros(tokens + 1, dtype=torch.int64, device=scores.device)
    starts[1:] = ends.view(grid)[:, -1]
    return starts, token, feature


@device
def _may_be_above(
    scores: tensor, floors: tensor, limits: tensor, reach: tensor, token: tensor, column: tensor, features: tensor
) -> tensor:
    inside = column < features
    score = tl.load(scores + token.to(tl.int64) * features + column, mask=inside, other=0.0).to(tl.float32)
    floor = tl.load(floors + column, mask=inside, other=0.0)
    bound = floor - tl.load(limits + token) * tl.load(reach + column, mask=inside, other=0.0)
    # What is not a number is not below: it is listed, and later work finds out.
    return ((score <= bound) == 0) & inside


@kernel
def _count(
    scores: tensor, floors: tensor, limits: tensor, reach: tensor, counts: tensor, features: tensor, BLOCK: constexpr
) -> None:
    token, block = tl.program_id(0), tl.program_id(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    above = _may_be_above(scores, floors, limits, reach, token, column, features)
    tl.store(counts + token * tl.num_programs(1) + block, tl.sum(above.to(tl.int32), 0))


@kernel
def _list(
    scores: tensor,
    floors: tensor,
    limits: tensor,
    reach: tensor,
    ends: tensor,
    tokens: tensor,
    found: tensor,
    features: tensor,
    BLOCK: constexpr,
) -> None:
    token, block = tl.program_id(0), tl.program_id(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    above = _may_be_above(scores, floors, limits, reach, token, column, features)
    end = tl.load(ends + token * tl.num_programs(1) + block)
    ones = above.to(tl.int32)
    place = end - tl.sum(ones, 0) + tl.cumsum(ones, 0) - 1
    tl.store(found + place, column, mask=above)
    tl.store(tokens + place, tl.full([BLOCK], 0, tl.int32) + token, mask=above)


# ------------------------------------------------------------------ pairs of rows


def pair_products(
    left: Tokens, right: Float[Tensor, "features width"], token: Int[Tensor, " pairs"], feature: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """left[token] . right[feature] of every pair; pairs of one feature side by side read its row once."""
    width = left.shape[1]
    block = block_of(width, PRODUCT[1])
    out = torch.empty(len(token), device=left.device)
    grid = (parts_of(len(token), PRODUCT[0]),)
    _products[grid](left, right, token, feature, out, len(token), width, PAIRS=PRODUCT[0], BLOCK=block)
    return out


@kernel
def _products(
    left: tensor,
    right: tensor,
    tokens: tensor,
    features: tensor,
    out: tensor,
    pairs: tensor,
    width: tensor,
    PAIRS: constexpr,
    BLOCK: constexpr,
) -> None:
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    there = pair < pairs
    token = tl.load(tokens + pair, mask=there, other=0).to(tl.int64) * width
    feature = tl.load(features + pair, mask=there, other=0).to(tl.int64) * width
    total = tl.full([PAIRS, BLOCK], 0.0, tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        mask = there[:, None] & (column < width)[None, :]
        one = tl.load(left + token[:, None] + column[None, :], mask=mask, other=0.0)
        other = tl.load(right + feature[:, None] + column[None, :], mask=mask, other=0.0)
        total += one * other
    tl.store(out + pair, tl.sum(total, 1), mask=there)


def decoded(
    value: Float[Tensor, " pairs"],
    feature: Int[Tensor, " pairs"],
    starts: Int[Tensor, " borders"],
    dec: Float[Tensor, "features width"],
) -> Tokens:
    """Sum of value x decoder row over the pairs of each token."""
    tokens, width = len(starts) - 1, dec.shape[1]
    block = block_of(width, DECODED[1])
    out = torch.empty(tokens, width, device=dec.device)
    _decode[(tokens, parts_of(width, block))](value, feature, starts, dec, out, width, PAIRS=DECODED[0], BLOCK=block)
    return out


@kernel
def _decode(
    values: tensor,
    features: tensor,
    starts: tensor,
    dec: tensor,
    out: tensor,
    width: tensor,
    PAIRS: constexpr,
    BLOCK: constexpr,
) -> None:
    token = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    total = tl.full([BLOCK], 0.0, tl.float32)
    last = tl.load(starts + token + 1)
    for first in range(tl.load(starts + token), last, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        there = pair < last
        value = tl.load(values + pair, mask=there, other=0.0)
        row = tl.load(features + pair, mask=there, other=0).to(tl.int64) * width
        mask = there[:, None] & inside[None, :]
        total += tl.sum(value[:, None] * tl.load(dec + row[:, None] + column[None, :], mask=mask, other=0.0), 0)
    tl.store(out + token.to(tl.int64) * width + column, total, mask=inside)


# ------------------------------------------------------------------ backward, by feature


def sums_by_feature(
    values: Float[Tensor, "kinds pairs"], starts: Int[Tensor, " borders"]
) -> Float[Tensor, "kinds features"]:
    """Sums over the pairs of each feature, which lie side by side."""
    kinds, pairs = values.shape
    features = len(starts) - 1
    out = torch.empty(kinds, features, device=values.device)
    grid = (kinds, parts_of(features, SUMMED[0]))
    _sums[grid](values, starts, out, pairs, features, FEATURES=SUMMED[0], PAIRS=SUMMED[1])
    return out


@kernel
def _sums(
    values: tensor, starts: tensor, out: tensor, pairs: tensor, features: tensor, FEATURES: constexpr, PAIRS: constexpr
) -> None:
    kind = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    inside = feature < features
    start = tl.load(starts + feature, mask=inside, other=0)
    stop = tl.load(starts + feature + 1, mask=inside, other=0)
    total = tl.full([FEATURES, PAIRS], 0.0, tl.float32)
    for first in range(0, tl.max(stop - start, 0), PAIRS):
        pair = start[:, None] + first + tl.arange(0, PAIRS)[None, :]
        total += tl.load(values + kind * pairs + pair, mask=pair < stop[:, None], other=0.0)
    tl.store(out + kind * features + feature, tl.sum(total, 1), mask=inside)


def gradient_rows(
    starts: Int[Tensor, " borders"],
    token: Int[Tensor, " pairs"],
    arriving: Float[Tensor, " pairs"],
    value: Float[Tensor, " pairs"],
    x: Tokens,
    pull: Tokens,
    everywhere: tuple[PerFeature, Float[Tensor, " width"]] | None,
    shares: tuple[RowNorms, Float[Tensor, "features width"]] | None,
    before: Marked,
    now: Marked,
    enc: Float[Tensor, "features width"],
    dec: Float[Tensor, "features width"],
) -> Float[Tensor, "features blocks"]:
    """Write the gradient rows of features that have one `now`, zeros where only the step `before` had one, and nothing
    elsewhere; the squared norms of their parts.

    enc = sum over pairs of arriving x[token] + everywhere[0] everywhere[1]
    dec = sum over pairs of value pull[token] + shares[0] shares[1], the first for each model
    """
    features, width = enc.shape
    block = block_of(width, GRADIENT[1])
    grid = (features, parts_of(width, block))
    squares = torch.empty(grid, device=enc.device)
    factor, batch_sum = everywhere or (x, x)
    unit, rows = shares or (x, x)
    arrays = (starts, token, arriving, value, x, pull, factor, batch_sum, unit, rows, before, now, enc, dec, squares)
    given = {"EVERYWHERE": everywhere is not None, "SHARES": shares is not None}
    _gradient[grid](*arrays, width, unit.shape[1], **given, PAIRS=GRADIENT[0], BLOCK=block)
    return squares


@kernel
def _gradient(
    starts: tensor,
    tokens: tensor,
    arriving: tensor,
    values: tensor,
    x: tensor,
    pull: tensor,
    factor: tensor,
    batch_sum: tensor,
    unit: tensor,
    rows: tensor,
    before: tensor,
    now: tensor,
    enc: tensor,
    dec: tensor,
    squares: tensor,
    width: tensor,
    models: tensor,
    EVERYWHERE: constexpr,
    SHARES: constexpr,
    PAIRS: constexpr,
    BLOCK: constexpr,
) -> None:
    feature = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    place = feature * width + column
    to_enc = tl.full([BLOCK], 0.0, tl.float32)
    to_dec = tl.full([BLOCK], 0.0, tl.float32)
    here = tl.load(now + feature)
    if here:
        last = tl.load(starts + feature + 1)
        for first in range(tl.load(starts + feature), last, PAIRS):
            pair = first + tl.arange(0, PAIRS)
            there = pair < last
            row = tl.load(tokens + pair, mask=there, other=0).to(tl.int64) * width
            mask = there[:, None] & inside[None, :]
            weight = tl.load(arriving + pair, mask=there, other=0.0)
            to_enc += tl.sum(weight[:, None] * tl.load(x + row[:, None] + column[None, :], mask=mask, other=0.0), 0)
            weight = tl.load(values + pair, mask=there, other=0.0)
            to_dec += tl.sum(weight[:, None] * tl.load(pull + row[:, None] + column[None, :], mask=mask, other=0.0), 0)
        if EVERYWHERE:
            to_enc += tl.load(factor + feature) * tl.load(batch_sum + column, mask=inside, other=0.0)
        if SHARES:
            model = column // (width // models)
            share = tl.load(unit + feature * models + model, mask=inside, other=0.0)
            to_dec += share * tl.load(rows + place, mask=inside, other=0.0)
    if here | tl.load(before + feature):
        tl.store(enc + place, to_enc, mask=inside)
        tl.store(dec + place, to_dec, mask=inside)
    square = tl.sum(to_enc * to_enc, 0) + tl.sum(to_dec * to_dec, 0)
    tl.store(squares + feature * tl.num_programs(1) + tl.program_id(1), square)
