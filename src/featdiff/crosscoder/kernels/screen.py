"""Which features of which tokens are active, without a float32 product over all of them.

1. Screen.  A bfloat16 product of x with a copy of W_enc, its rows scaled to |row|_4 = 1, finds every pair that may lie
            above its floor: what rounding may hide depends on the token alone then (`bounds`).
2. Refine.  float32 dot products of the pairs found; later work sees only these.
3. Audit.   From time to time some tokens are encoded in full; a miss doubles the margin for good.
"""

from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from featdiff.crosscoder.kernels.bounds import AUDITED, MARGIN, MOST_ACTIVE, hidden, missed, rounded_up
from featdiff.crosscoder.kernels.compiled_encode import WORD, compact, mirror, refine, screen
from featdiff.crosscoder.kernels.rows import Rows
from featdiff.crosscoder.kernels.workers import Workers

TILE = 256
"""Tokens of one product with the encoder: few enough for the cache, enough to read W_enc seldom."""


@dataclass(frozen=True)
class Pairs:
    """Pairs (token, feature) above the floor, in the order of the tokens."""

    token_starts: NDArray[np.int64]
    feature: NDArray[np.int32]
    pre: NDArray[np.float32]

    def only(self, kept: NDArray[np.bool_]) -> "Pairs":
        """Those that are marked."""
        before = np.concatenate(([0], np.cumsum(kept)))
        return Pairs(before[self.token_starts], self.feature[kept], self.pre[kept])


@dataclass
class _Desk:
    """Where one thread works on a tile; kept, because fresh memory costs more than the work."""

    products: Tensor
    feature: NDArray[np.int32]
    pre: NDArray[np.float32]


class Screen:
    """The bfloat16 copy of an encoder, and the search that rests on it."""

    def __init__(self, weights: Rows, workers: Workers) -> None:
        features, width = weights.enc.shape
        self.margin = torch.tensor(MARGIN)
        self._weights, self._workers = weights, workers
        self.bits = np.empty((features, width), np.uint16)
        self.scale = np.empty(features, np.float32)
        self._desks: dict[torch.dtype, SimpleQueue[_Desk]] = {
            torch.bfloat16: SimpleQueue(),
            torch.float32: SimpleQueue(),
        }

    def refresh(self, start: int, stop: int) -> None:
        """Copy the rows of the features in [start, stop), which have changed."""
        mirror(self._weights.enc.numpy(), self.scale, self.bits, start, stop)

    def pairs(self, x: Float[Tensor, "tokens width"], floors: Float[Tensor, " features"]) -> Pairs | None:
        """Pairs whose pre-activation lies above the floor of their feature; None where there are too many."""
        copy = torch.from_numpy(self.bits).view(torch.bfloat16).T
        bias = rounded_up(torch.from_numpy(self.scale) * (self._weights.b_enc - floors))
        b_enc, least = self._weights.b_enc.numpy(), floors.numpy()
        enc = self._weights.enc.numpy()

        def tile(start: int, stop: int) -> Pairs | None:
            desk, ends = self._desk(torch.bfloat16), np.empty(stop - start, np.int64)
            part = x[start:stop]
            products = torch.addmm(bias, part.bfloat16(), copy, out=desk.products[: stop - start])
            bits = products.view(torch.uint16).numpy()
            count = screen(bits, self._limits(part), desk.feature, ends)
            if count >= 0:
                count = refine(part.numpy(), enc, b_enc, least, desk.feature, ends, desk.pre)
            return self._cleared(torch.bfloat16, desk, ends, count)

        return _joined(self._workers.map(tile, len(x), TILE))

    def pairs_in_full(self, x: Float[Tensor, "tokens width"], floors: Float[Tensor, " features"]) -> Pairs | None:
        """The same by a float32 product over all features: cheaper where many are active, and on CPUs without fast
        bfloat16."""
        least = floors.numpy()

        def tile(start: int, stop: int) -> Pairs | None:
            desk, ends = self._desk(torch.float32), np.empty(stop - start, np.int64)
            out = desk.products[: stop - start]
            products = torch.addmm(self._weights.b_enc, x[start:stop], self._weights.enc.T, out=out).numpy()
            count = compact(products, least, desk.feature, ends, desk.pre)
            return self._cleared(torch.float32, desk, ends, count)

        return _joined(self._workers.map(tile, len(x), TILE))

    def audit(self, x: Float[Tensor, "tokens width"], floors: Float[Tensor, " features"], found: Pairs) -> int:
        """Pairs of the first tokens that `found` misses; if there are any, the margin doubles."""
        x = x[:AUDITED]
        listed = torch.zeros(len(x), len(floors), dtype=torch.bool)
        token = np.repeat(np.arange(len(x)), np.diff(found.token_starts[: len(x) + 1]))
        listed[token, found.feature[: len(token)]] = True
        count = missed(self._weights, x, floors, listed)
        if count:
            self.margin.mul_(2)
        return count

    def _limits(self, x: Float[Tensor, "tokens width"]) -> NDArray[np.uint16]:
        """For each token the number below which the bits of every pair lie that may be active."""
        bits = hidden(x, self.margin).view(torch.int16).int()
        return (bits + 0x8000).clamp_max(0xFFFF).numpy().astype(np.uint16)

    def _desk(self, dtype: torch.dtype) -> _Desk:
        try:
            return self._desks[dtype].get_nowait()
        except Empty:
            features = len(self.scale)
            room = int(MOST_ACTIVE * TILE * features) + WORD
            products = torch.empty(TILE, features, dtype=dtype)
            return _Desk(products, np.empty(room, np.int32), np.empty(room, np.float32))

    def _cleared(self, dtype: torch.dtype, desk: _Desk, ends: NDArray[np.int64], count: int) -> Pairs | None:
        """The `count` pairs on the desk, which is free from then on; None where the count says that they were too
        many."""
        pairs = None
        if count >= 0:
            pairs = Pairs(np.concatenate(([0], ends)), desk.feature[:count].copy(), desk.pre[:count].copy())
        self._desks[dtype].put(desk)
        return pairs


def _joined(tiles: list[Pairs | None]) -> Pairs | None:
    whole = [tile for tile in tiles if tile is not None]
    if len(whole) < len(tiles):
        return None
    if not whole:  # this process has no token of the batch
        return Pairs(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    if len(whole) == 1:
        return whole[0]
    offsets = np.cumsum([0] + [len(tile.feature) for tile in whole])
    starts = [tile.token_starts[:-1] + offset for tile, offset in zip(whole, offsets, strict=False)]
    return Pairs(
        np.concatenate([*starts, offsets[-1:]]),
        np.concatenate([tile.feature for tile in whole]),
        np.concatenate([tile.pre for tile in whole]),
    )
