"""The sparse step on a GPU. Adam is one pass, and no result depends on the order in which programs run."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, Sparsity
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.kernels.dense import share_factors
from featdiff.crosscoder.kernels.jumprelu_penalty import Background, background
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Rates, Rows
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.kernels.reconstruction_gradient import Pull
from featdiff.crosscoder.kernels.sparse_step import Pairs, SparseStep
from featdiff.crosscoder.kernels.triton.active_pairs import TritonScreen
from featdiff.crosscoder.kernels.triton.adam import Derived, refresh, update
from featdiff.crosscoder.kernels.triton.kernels import decoded, gradient_rows, pair_products, sums_by_feature
from featdiff.crosscoder.sparsity import Gates


@dataclass(frozen=True)
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
        everywhere = background(
            self.sparsity, self.weights, norms, batch, pairs.feature, pairs.pre, gate, by_feature.sums
        )
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
        penalties = gate.penalty[order] / batch.total
        if everywhere is not None:
            # Pairs that are on do not feel the pull that goes to every token.
            penalties -= everywhere.pull[feature]
        upstream = pair_products(pull, weights.dec, token, feature) + penalties
        arriving = upstream * gate.open[order]
        kinds = torch.stack([arriving, upstream * gate.slope[order], gate.share[order] / batch.total])
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
