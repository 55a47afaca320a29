"""The sparse step on a GPU. Adam is one pass, and no result depends on the order in which programs run."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, Sparsity
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.kernels.dense import share_factors
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Pull, Rates, Rows
from featdiff.crosscoder.kernels.quantisation_error import MOST_ACTIVE, hidden, rounded_up
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.kernels.sparse_step import Background, Pairs, Screen, SparseStep
from featdiff.crosscoder.kernels.triton.adam import Derived, refresh, update
from featdiff.crosscoder.kernels.triton.kernels import decoded, gradient_rows, listed, pair_products, sums_by_feature
from featdiff.crosscoder.sparsity import Gates


@dataclass(frozen=True, eq=False)
class ByFeature:
    """The order of the pairs by feature, those of one feature by token."""

    order: Int[Tensor, " pairs"]
    starts: Int[Tensor, " borders"]

    @staticmethod
    def of(feature: Int[Tensor, " pairs"], features: int) -> "ByFeature":
        """The order of pairs that come by token."""
        ordered, order = feature.sort(stable=True)
        borders = torch.arange(features + 1, dtype=feature.dtype, device=feature.device)
        return ByFeature(order, torch.searchsorted(ordered, borders))

    def sums(self, values: Float[Tensor, "kinds pairs"]) -> Float[Tensor, "kinds features"]:
        """What each feature's pairs add up to; `values` come by token."""
        return sums_by_feature(values[:, self.order], self.starts)


class TritonScreen(Screen):
    """The search for active pairs: a bfloat16 product, then float32 products of what it lists.

    Pairs come out as from the screen of a CPU. Encoder rows are not scaled here: the score of a pair is compared with
    the margin of its token times the norm of its row.
    """

    def __init__(self, weights: Rows, derived: Derived) -> None:
        super().__init__(weights)
        self._derived = derived

    def pairs(self, x: Float[Tensor, "tokens width"], floors: Float[Tensor, " features"]) -> Pairs | None:
        weights, derived = self._weights, self._derived
        bias = rounded_up(weights.b_enc - floors)
        with whole_sums():
            scores = torch.addmm(bias, x.bfloat16(), derived.mirror.T)
        limits = hidden(x, self.margin).float()
        found = listed(scores, torch.zeros_like(floors), limits, derived.reach, int(MOST_ACTIVE * scores.numel()))
        if found is None:
            return None
        starts, token, feature = found
        # By feature, so that an encoder row is read once for all its tokens.
        order = feature.sort(stable=True).indices
        pre = torch.empty_like(token, dtype=torch.float32)
        pre[order] = pair_products(x, weights.enc, token[order], feature[order])
        pre += weights.b_enc[feature]
        return Pairs(starts, feature, pre).only(pre > floors[feature])

    def pairs_in_full(self, x: Float[Tensor, "tokens width"], floors: Float[Tensor, " features"]) -> Pairs | None:
        scores = torch.addmm(self._weights.b_enc, x, self._weights.enc.T)
        found = listed(scores, floors, x.new_zeros(len(x)), self._derived.reach, int(MOST_ACTIVE * scores.numel()))
        if found is None:
            return None
        starts, token, feature = found
        pre = scores[token, feature]
        return Pairs(starts, feature, pre).only(pre > floors[feature])


@contextmanager
def whole_sums() -> Generator[None]:
    """Within the block a bfloat16 product on a GPU is summed in float32 throughout: no rounding but what
    `quantisation_error.py` knows of."""
    backend = torch.backends.cuda.matmul
    before = backend.allow_bf16_reduced_precision_reduction
    backend.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        backend.allow_bf16_reduced_precision_reduction = before


class Triton(SparseStep):
    """The step on a GPU."""

    def __init__(self, sparsity: Sparsity, weights: Rows, gradients: Rows, models: int) -> None:
        self._derived = Derived.empty(weights, models)
        screen = TritonScreen(weights, self._derived)
        super().__init__(sparsity, weights, gradients, self._derived.row_norms, screen)
        self.refresh()

    def refresh(self) -> None:
        with torch.cuda.device_of(self.weights.enc):
            refresh(self.weights, self._derived)

    def find(self, batch: Batch, path: Path, ranks: Ranks) -> Found:
        """As on a CPU, on the device of the batch."""
        with torch.cuda.device_of(batch.x):
            return super().find(batch, path, ranks)

    def update(self, means: Rows, squares: Rows, rates: Rates) -> None:
        with torch.cuda.device_of(self.weights.enc):
            update(self.weights, self.gradients, means, squares, self.touched, rates, self._derived)

    def _passes(
        self, pairs: Pairs, gate: Gates, norms: Float[Tensor, " features"], batch: Batch, ranks: Ranks
    ) -> tuple[Pull, Float[Tensor, " features"]]:
        by_feature = ByFeature.of(pairs.feature, len(norms))
        everywhere, gate = self._background(pairs, gate, norms, batch, by_feature.sums)
        error = ranks.sum_over_features(decoded(gate.value, pairs.feature, pairs.starts, self.weights.dec))
        pull = Pull.of(batch, error.add_(self.weights.b_dec).sub_(batch.x), self.row_norms.shape[1])
        return pull, self._backward(pairs, gate, by_feature, everywhere, batch, pull.rows)

    def _backward(
        self,
        pairs: Pairs,
        gate: Gates,
        by_feature: ByFeature,
        everywhere: Background | None,
        batch: Batch,
        pull: Float[Tensor, "tokens width"],
    ) -> Float[Tensor, " features"]:
        """Fill the gradients but b_dec's; the square of each feature's part, float64."""
        weights, gradients, row_norms = self.weights, self.gradients, self.row_norms
        order, starts = by_feature.order, by_feature.starts
        token, feature = pairs.token(len(batch.x))[order], pairs.feature[order]
        upstream = pair_products(pull, weights.dec, token, feature) + gate.penalty[order]
        arriving = upstream * gate.open[order]
        kinds = torch.stack([arriving, upstream * gate.slope[order], gate.share[order]])
        bias, slope, share = sums_by_feature(kinds, starts)
        now = starts[1:] > starts[:-1]
        if everywhere is not None:
            bias += everywhere.pull * len(batch.x)
            slope += everywhere.slope
            share += everywhere.share
            now.fill_(True)
        gradients.b_enc.copy_(bias)
        if gradients.log_threshold is not None:
            gradients.log_threshold.copy_(slope)
        parts = gradient_rows(
            starts,
            token,
            arriving,
            gate.value[order],
            batch.x,
            pull,
            None if everywhere is None else (everywhere.pull, everywhere.batch_sum),
            None if isinstance(self.sparsity, BatchTopK) else (share_factors(row_norms, share), weights.dec),
            self.touched,
            now,
            gradients.enc,
            gradients.dec,
        )
        self.touched = now
        return parts.double().sum(dim=1) + bias.double().square() + slope.double().square()
