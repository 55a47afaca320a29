"""Which features of which tokens are active, without a float32 product over all of them.

1. Screen.  An int8 product of x with a copy of W_enc finds every pair that may lie above its floor
            (`quantisation_error.py` says how much rounding may hide). Every dimension is first divided by its root mean
            square, and W_enc multiplied by it, so that no few dimensions take the whole range; a tile whose tokens int8
            cannot tell apart all the same gets a float32 product.
2. Refine.  float32 dot products of the pairs found; later work sees only these, and nothing of how they were found.
"""

from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from featdiff.crosscoder.kernels.cpu.adam import CopyArrays
from featdiff.crosscoder.kernels.cpu.encode import WORD, compact, mirror, quantise_tokens, refine, screen
from featdiff.crosscoder.kernels.cpu.threads import Workers
from featdiff.crosscoder.kernels.parameter_rows import Rows
from featdiff.crosscoder.kernels.quantisation_error import COARSEST, MOST_ACTIVE, hidden_by_int8
from featdiff.crosscoder.kernels.sparse_step import Pairs, Screen

TILE = 256
"""Tokens of one product with the encoder: few enough for the cache, enough to read W_enc seldom."""
SMALLEST = 1e-6
"""Size of a dimension beside the largest, below which it counts as so large."""


@dataclass(eq=False)
class _Desk:
    """Where one thread works on a tile; kept, because fresh memory costs more than the work."""

    products: Tensor
    feature: NDArray[np.int32]
    pre: NDArray[np.float32]


class Int8Screen(Screen):
    """The int8 copy of an encoder, and the search that rests on it."""

    def __init__(self, weights: Rows, workers: Workers) -> None:
        features, width = weights.enc.shape
        super().__init__(weights)
        self._workers = workers
        self.copies = CopyArrays(
            columns=np.ones(width, np.float32),
            scale=np.empty(features, np.float32),
            length=np.empty(features, np.float32),
            copy=np.empty((features, width), np.int8),
        )
        self._measured = False
        self._desks: dict[torch.dtype, SimpleQueue[_Desk]] = {torch.int32: SimpleQueue(), torch.float32: SimpleQueue()}

    def refresh(self, start: int, stop: int) -> None:
        """Copy the rows of the features in [start, stop), which have changed."""
        mirror(self._weights.enc.numpy(), *self.copies, start, stop)

    def pairs(self, x: Float[Tensor, "tokens width"], floors: Float[Tensor, " features"]) -> Pairs | None:
        if not self._measured:
            self._measure(x)
        columns, scale, length, _ = self.copies
        inverse, longest = np.reciprocal(columns), float(length.max())
        lower = ((floors - self._weights.b_enc) / torch.from_numpy(scale)).numpy()
        copy = torch.from_numpy(self.copies.copy).T
        b_enc, least, enc = self._weights.b_enc.numpy(), floors.numpy(), self._weights.enc.numpy()
        margin = float(self.margin)

        def tile(start: int, stop: int) -> Pairs | None:
            part, number = x[start:stop].numpy(), stop - start
            rounded, steps, lengths = np.empty(part.shape, np.int8), *np.empty((2, number), np.float32)
            if quantise_tokens(part, inverse, steps, lengths, rounded) > COARSEST:
                return self._tile_in_full(x[start:stop], least)
            desk, ends = self._desk(torch.int32), np.empty(number, np.int64)
            # Nothing public multiplies int8 into int32.
            scores = torch._int_mm(  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
                torch.from_numpy(rounded), copy, out=desk.products[:number]
            ).numpy()
            margins = hidden_by_int8(lengths, longest, margin)
            count = screen(scores, lower, np.reciprocal(steps), margins, desk.feature, ends)
            if count >= 0:
                count = refine(part, enc, b_enc, least, desk.feature, ends, desk.pre)
            return self._cleared(torch.int32, desk, ends, count)

        return _joined(self._workers.map(tile, len(x), TILE))

    def pairs_in_full(self, x: Float[Tensor, "tokens width"], floors: Float[Tensor, " features"]) -> Pairs | None:
        least = floors.numpy()
        return _joined(self._workers.map(lambda start, stop: self._tile_in_full(x[start:stop], least), len(x), TILE))

    def _tile_in_full(self, x: Float[Tensor, "tokens width"], least: NDArray[np.float32]) -> Pairs | None:
        desk, ends = self._desk(torch.float32), np.empty(len(x), np.int64)
        products = torch.addmm(self._weights.b_enc, x, self._weights.enc.T, out=desk.products[: len(x)]).numpy()
        count = compact(products, least, desk.feature, ends, desk.pre)
        return self._cleared(torch.float32, desk, ends, count)

    def _measure(self, x: Float[Tensor, "tokens width"]) -> None:
        """Take the size of each dimension from the first tokens seen, and copy all rows anew. What is found does not
        depend on it, so it is no part of a checkpoint."""
        sizes = x.square().mean(dim=0).sqrt_()
        sizes.clamp_min_(float(sizes.max()) * SMALLEST + torch.finfo(sizes.dtype).tiny)
        self.copies.columns[:] = sizes.numpy()
        self._measured = True
        self._workers.map(self.refresh, len(self.copies.scale), TILE)

    def _desk(self, dtype: torch.dtype) -> _Desk:
        try:
            return self._desks[dtype].get_nowait()
        except Empty:
            features = len(self.copies.scale)
            room = int(MOST_ACTIVE * TILE * features) + WORD
            products = torch.empty(TILE, features, dtype=dtype)
            return _Desk(products, np.empty(room, np.int32), np.empty(room, np.float32))

    def _cleared(self, dtype: torch.dtype, desk: _Desk, ends: NDArray[np.int64], count: int) -> Pairs | None:
        """The `count` pairs on the desk, which is free from then on; None where the count says that they were too
        many."""
        pairs = None
        if count >= 0:
            feature, pre = desk.feature[:count].copy(), desk.pre[:count].copy()
            pairs = Pairs(*map(torch.from_numpy, (np.concatenate(([0], ends)), feature, pre)))
        self._desks[dtype].put(desk)
        return pairs


def _joined(tiles: list[Pairs | None]) -> Pairs | None:
    whole = [tile for tile in tiles if tile is not None]
    if len(whole) < len(tiles):
        return None
    if not whole:  # this process has no token of the batch
        return Pairs(torch.zeros(1, dtype=torch.int64), torch.empty(0, dtype=torch.int32), torch.empty(0))
    if len(whole) == 1:
        return whole[0]
    counts = [tile.starts.diff() for tile in whole]
    return Pairs(
        pad(torch.cat(counts).cumsum(0), (1, 0)),
        torch.cat([tile.feature for tile in whole]),
        torch.cat([tile.pre for tile in whole]),
    )
