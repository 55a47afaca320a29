"""The sparse step on a CPU: gradients by feature while its rows are in cache. No result depends on the number of
threads, save where torch's own products do."""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.config.crosscoder import MSE, Sparsity
from featdiff.crosscoder.kernels.cpu.active_pairs import Int8Screen
from featdiff.crosscoder.kernels.cpu.adam import adam, norms_of, update
from featdiff.crosscoder.kernels.cpu.compiled import EntryArrays, RowArrays, backward, decode, residuals
from featdiff.crosscoder.kernels.cpu.encode import order_by_feature
from featdiff.crosscoder.kernels.cpu.threads import Workers
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Pull, Rates, Rows
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.kernels.sparse_step import Pairs, SparseStep
from featdiff.crosscoder.sparsity import Gates

CHUNKS = 8
"""Ranges of features per thread: busy features may lie side by side, and then equal ranges are unequal work."""
TOKENS = 128
"""Tokens that a thread decodes at a time."""


class Cpu(SparseStep):
    """The step on a CPU."""

    screen: Int8Screen

    def __init__(self, sparsity: Sparsity, weights: Rows, gradients: Rows, models: int, workers: Workers) -> None:
        features = len(weights.enc)
        super().__init__(sparsity, weights, gradients, torch.empty(features, models), Int8Screen(weights, workers))
        self._workers = workers
        self._squares = np.zeros(features)
        self._chunk = max(1, -(-features // (CHUNKS * workers.threads)))
        self.refresh()

    def refresh(self) -> None:
        dec, norms = self.weights.dec.numpy(), self.row_norms.numpy()

        def chunk(start: int, stop: int) -> None:
            norms_of(dec, norms, start, stop)
            self.screen.refresh(start, stop)

        self._workers.map(chunk, len(norms), self._chunk)

    def update(self, means: Rows, squares: Rows, rates: Rates) -> None:
        numbers, all_rows = np.array(rates.numbers(), np.float32), (self.weights, self.gradients, means, squares)
        kept = self.touched.numpy(), numbers, self.row_norms.numpy(), self.screen.copies
        self._workers.map(partial(update, *map(_arrays, all_rows), *kept), len(self.touched), self._chunk)
        for name in ("b_dec", "log_threshold"):
            parts = [getattr(rows, name) for rows in all_rows]
            if parts[0] is not None:
                weight, gradient, mean, square = (part.numpy() for part in parts)
                adam(weight, gradient, mean, square, numbers)

    def _dense(self, batch: Batch, ranks: Ranks) -> Found:
        with self._workers.given_to_torch():
            return super()._dense(batch, ranks)

    def _passes(
        self, pairs: Pairs, gate: Gates, norms: Float[Tensor, " features"], batch: Batch, ranks: Ranks
    ) -> tuple[Pull, Float[Tensor, " features"]]:
        def sums(values: Float[Tensor, "kinds pairs"]) -> Float[Tensor, "kinds features"]:
            return norms.new_zeros(len(values), len(norms)).index_add_(1, pairs.feature, values)

        found, gate = self._background(pairs, gate, norms, batch, sums)
        background = found and tuple(part.numpy() for part in (found.pull, found.share, found.slope, found.batch_sum))
        entries = _entries(pairs, gate, len(norms))
        pull = self._decoded(entries, batch, ranks)
        rows = _arrays(self.weights), self.row_norms.numpy(), batch.x.numpy(), pull.rows.numpy()
        written = _arrays(self.gradients), self.touched.numpy(), self._squares
        self._workers.map(partial(backward, entries, *rows, background, *written), len(norms), self._chunk)
        return pull, torch.from_numpy(self._squares)

    def _sum(self, squares: Float[Tensor, " features"]) -> Float[Tensor, ""]:
        return torch.tensor(squares.numpy().sum())

    def _decoded(self, entries: EntryArrays, batch: Batch, ranks: Ranks) -> Pull:
        """The pull of the batch's reconstruction; under squared error in the pass that makes the residuals."""
        x, dec, b_dec = batch.x.numpy(), self.weights.dec.numpy(), self.weights.b_dec.numpy()
        out, squares = np.empty_like(x), np.empty(len(x))
        self._workers.map(partial(decode, entries, dec, out), len(x), TOKENS)
        pull = ranks.sum_over_features(torch.from_numpy(out))
        squared = isinstance(batch.objective, MSE)
        factor = np.float32(2 / batch.total if squared else 1.0)
        self._workers.map(partial(residuals, out, x, b_dec, factor, squares), len(x), TOKENS)
        if not squared:
            return Pull.of(batch, pull, self.row_norms.shape[1])
        loss = torch.tensor(squares.sum() / batch.total, dtype=torch.float32)
        return Pull(pull, None, loss, loss)


def _arrays(rows: Rows) -> RowArrays:
    features = len(rows.b_enc)
    threshold = np.zeros(features, np.float32) if rows.log_threshold is None else rows.log_threshold.numpy()
    return RowArrays(rows.enc.numpy(), rows.dec.numpy(), rows.b_enc.numpy(), threshold)


def _entries(pairs: Pairs, gate: Gates, features: int) -> EntryArrays:
    """Pairs as the compiled loops read them."""
    token_starts, feature = pairs.starts.numpy(), pairs.feature.numpy()
    starts = np.empty(features + 1, np.int64)
    order, token = np.empty_like(feature), np.empty_like(feature)
    order_by_feature(token_starts, feature, starts, order, token)
    value = gate.value.contiguous().numpy()
    others = (part.numpy()[order] for part in (gate.open, gate.penalty, gate.slope, gate.share))
    return EntryArrays(token_starts, feature, value, starts, token, value[order], *others)
