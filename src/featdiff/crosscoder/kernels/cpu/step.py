"""The sparse step on a CPU: cost follows the active features, every gradient is exact.

Pairs (token, feature) come from `Screen`; then decode by token, gradients by feature while its rows are in cache, and
Adam by feature. A feature without a pair has no gradient, and none is written. No result depends on the number of
threads, save where torch's own products do.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.config.crosscoder import MSE, BatchTopK, Sparsity
from featdiff.crosscoder.kernels.active_pairs import Pairs, Screen
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.kernels.cpu.adam import adam, norms_of, update
from featdiff.crosscoder.kernels.cpu.compiled import Background, EntryArrays, RowArrays, backward, decode, residuals
from featdiff.crosscoder.kernels.cpu.encode import mark_active, order_by_feature
from featdiff.crosscoder.kernels.cpu.threads import Workers
from featdiff.crosscoder.kernels.dense import add_auxiliary, dense_gradients, feature_squares, penalty
from featdiff.crosscoder.kernels.jumprelu_penalty import background
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Rates, Rows, no_cut
from featdiff.crosscoder.kernels.quantisation_error import AUDIT_EVERY
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.kernels.reconstruction_gradient import Pull
from featdiff.crosscoder.sparsity import Gates, floor, gates

CHUNKS = 8
"""Ranges of features per thread: busy features may lie side by side, and then equal ranges are unequal work."""
TOKENS = 128
"""Tokens that a thread decodes at a time."""


class Cpu:
    """The step of one crosscoder: its rows, and what is kept from step to step."""

    def __init__(self, sparsity: Sparsity, weights: Rows, gradients: Rows, models: int, workers: Workers) -> None:
        features = len(weights.enc)
        self.sparsity, self.weights, self.gradients = sparsity, weights, gradients
        self._workers = workers
        self.screen = Screen(weights, self._workers)
        self._row_norms = torch.empty(features, models)
        self._touched = np.zeros(features, np.bool_)
        self._squares = np.zeros(features)
        self._chunk = max(1, -(-features // (CHUNKS * workers.threads)))
        self.refresh()

    def refresh(self) -> None:
        """Take over weights that something else has changed."""
        dec, norms = self.weights.dec.numpy(), self._row_norms.numpy()

        def chunk(start: int, stop: int) -> None:
            norms_of(dec, norms, start, stop)
            self.screen.refresh(start, stop)

        self._workers.map(chunk, len(norms), self._chunk)

    def take_over_gradients(self) -> None:
        """Take over gradients that something else has changed: no row of them counts as zero."""
        self._touched[:] = True

    def find(self, batch: Batch, path: Path, ranks: Ranks) -> Found:
        """Overwrite the gradients with those of one batch; where `path` finds too many pairs, the step is dense."""
        if path in ("compact", "screened") and (found := self._sparse(batch, path, ranks)):
            return found
        self._touched[:] = True
        with self._workers.given_to_torch():
            return dense_gradients(self.sparsity, self.weights, self.gradients, self._row_norms, batch, ranks)

    def update(self, means: Rows, squares: Rows, rates: Rates) -> None:
        """One step of Adam on all rows, in place; `means` and `squares` are its moments."""
        numbers = np.array(rates.numbers(), np.float32)
        w, g, m, v = (_arrays(rows) for rows in (self.weights, self.gradients, means, squares))
        norms, copies = self._row_norms.numpy(), self.screen.copies

        def chunk(start: int, stop: int) -> None:
            update(w, g, m, v, self._touched, numbers, norms, copies, start, stop)

        self._workers.map(chunk, len(norms), self._chunk)
        for name in ("b_dec", "log_threshold"):
            parts = [getattr(rows, name) for rows in (self.weights, self.gradients, means, squares)]
            if parts[0] is not None:
                weight, gradient, mean, square = (part.numpy() for part in parts)
                adam(weight, gradient, mean, square, numbers)

    def _sparse(self, batch: Batch, path: Path, ranks: Ranks) -> Found | None:
        sparsity, norms, theta = self.sparsity, self._row_norms.sum(dim=-1), self.weights.threshold()
        floors = floor(sparsity, norms, theta, norms.new_tensor(batch.guess))
        pairs = self._pairs(batch, path, floors)
        cut = no_cut(norms)
        if isinstance(sparsity, BatchTopK):
            found = None if pairs is None else torch.from_numpy(pairs.pre) * norms[torch.from_numpy(pairs.feature)]
            cut = ranks.cut(found, sparsity.k * batch.total, batch.guess)
            if pairs is not None and found is not None and cut is not None:
                pairs = pairs.only((found >= cut).numpy())
        if pairs is None or cut is None:
            return None
        feature = torch.from_numpy(pairs.feature)
        nearby = None if theta is None else theta[feature]
        gate = gates(
            sparsity, torch.from_numpy(pairs.pre), norms.index_select(0, feature), nearby, batch.weights(feature), cut
        )
        return self._gradients(pairs, gate, cut, batch, ranks)

    def _pairs(self, batch: Batch, path: Path, floors: Float[Tensor, " features"]) -> Pairs | None:
        if path == "compact":
            return self.screen.pairs_in_full(batch.x, floors)
        pairs = self.screen.pairs(batch.x, floors)
        if pairs is not None and batch.step % AUDIT_EVERY == 0 and self.screen.audit(batch.x, floors, pairs):
            pairs = self.screen.pairs(batch.x, floors)
        return pairs

    def _gradients(self, pairs: Pairs, gate: Gates, cut: Float[Tensor, ""], batch: Batch, ranks: Ranks) -> Found:
        sparsity, norms, gradients = self.sparsity, self._row_norms.sum(dim=-1), self.gradients
        background = _background(sparsity, self.weights, norms, batch, pairs, gate)
        entries = _entries(pairs, gate, background, len(norms), batch.total)
        pull = self._decoded(entries, batch, ranks)
        self._backward(entries, background, batch.x, pull.rows)
        torch.sum(pull.rows, dim=0, out=gradients.b_dec)
        auxiliary = add_auxiliary(sparsity, self.weights, gradients, self._row_norms.shape[1], batch, pull, ranks)
        if auxiliary is not None:
            self._touched |= batch.dead.numpy()
            self._squares[batch.dead.numpy()] = feature_squares(gradients, batch.dead).numpy()
        fired, feature = torch.zeros(len(norms), dtype=torch.bool), torch.from_numpy(pairs.feature)
        active = mark_active(pairs.feature, entries.value, fired.numpy())
        cost = penalty(sparsity, gate.value, norms.index_select(0, feature), batch.prices(feature), batch.total)
        return Found(
            reconstruction=pull.loss,
            squared_error=pull.squared_error,
            sparsity=cost if auxiliary is None else auxiliary,
            cut=cut,
            active=active,
            considered=len(pairs.pre),
            fired=fired,
            square_norm=torch.tensor(self._squares.sum()),
        )

    def _decoded(self, entries: EntryArrays, batch: Batch, ranks: Ranks) -> Pull:
        """The pull of the batch's reconstruction; under squared error in the pass that makes the residuals."""
        x, dec, b_dec = batch.x.numpy(), self.weights.dec.numpy(), self.weights.b_dec.numpy()
        out, squares = np.empty_like(x), np.empty(len(x))
        self._workers.map(lambda start, stop: decode(entries, dec, out, start, stop), len(x), TOKENS)
        pull = ranks.sum_over_features(torch.from_numpy(out))
        squared = isinstance(batch.objective, MSE)
        factor = np.float32(2 / batch.total if squared else 1.0)

        def chunk(start: int, stop: int) -> None:
            residuals(out, x, b_dec, factor, squares, start, stop)

        self._workers.map(chunk, len(x), TOKENS)
        if not squared:
            return Pull.of(batch, pull, self._row_norms.shape[1])
        loss = torch.tensor(squares.sum() / batch.total, dtype=torch.float32)
        return Pull(pull, None, loss, loss)

    def _backward(
        self, entries: EntryArrays, background: Background, x: Float[Tensor, "tokens width"], pull: Tensor
    ) -> None:
        weights, gradients, norms = _arrays(self.weights), _arrays(self.gradients), self._row_norms.numpy()
        inputs, pulls = x.numpy(), pull.numpy()

        def chunk(start: int, stop: int) -> None:
            backward(
                entries,
                weights,
                norms,
                inputs,
                pulls,
                background,
                gradients,
                self._touched,
                self._squares,
                start,
                stop,
            )

        self._workers.map(chunk, len(norms), self._chunk)


def _arrays(rows: Rows) -> RowArrays:
    features = len(rows.b_enc)
    threshold = np.zeros(features, np.float32) if rows.log_threshold is None else rows.log_threshold.numpy()
    return RowArrays(rows.enc.numpy(), rows.dec.numpy(), rows.b_enc.numpy(), threshold)


def _entries(pairs: Pairs, gate: Gates, background: Background, features: int, total: int) -> EntryArrays:
    """Pairs as the compiled loops read them, their penalties divided by the tokens of the batch."""
    starts = np.empty(features + 1, np.int64)
    order, token = np.empty_like(pairs.feature), np.empty_like(pairs.feature)
    order_by_feature(pairs.token_starts, pairs.feature, starts, order, token)
    penalty = (gate.penalty / total).numpy()[order]
    if background.present:
        # Pairs that are on do not feel the pull that goes to every token.
        penalty -= background.pull[pairs.feature][order]
    value = gate.value.contiguous().numpy()
    return EntryArrays(
        token_starts=pairs.token_starts,
        feature=pairs.feature,
        value=value,
        feature_starts=starts,
        token=token,
        strength=value[order],
        open=gate.open.numpy()[order],
        penalty=penalty,
        slope=gate.slope.numpy()[order],
        share=(gate.share / total).numpy()[order],
    )


def _background(
    sparsity: Sparsity, weights: Rows, norms: Float[Tensor, " features"], batch: Batch, pairs: Pairs, gate: Gates
) -> Background:
    feature, pre = torch.from_numpy(pairs.feature), torch.from_numpy(pairs.pre)

    def sums(values: Float[Tensor, "kinds pairs"]) -> Float[Tensor, "kinds features"]:
        return norms.new_zeros(len(values), len(norms)).index_add_(1, feature, values)

    found = background(sparsity, weights, norms, batch, feature, pre, gate, sums)
    if found is None:
        nothing = np.empty(0, np.float32)
        return Background(False, nothing, nothing, nothing, nothing)
    arrays = (part.numpy() for part in (found.pull, found.share, found.slope, found.batch_sum))
    return Background(True, *arrays)
