"""The sparse step on a GPU: cost follows the active features, every gradient is exact, and Adam is one pass.

As on a CPU: pairs (token, feature) from a screen, decode by token, gradients by feature, Adam by row. A feature without
a pair has no gradient, and none is written or read. No result depends on the order in which programs run.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.config.crosscoder import BatchTopK, Sparsity
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.kernels.dense import add_auxiliary, dense_gradients, feature_squares, penalty, share_factors
from featdiff.crosscoder.kernels.jumprelu_penalty import Background, background
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Rates, Rows, no_cut
from featdiff.crosscoder.kernels.quantisation_error import AUDIT_EVERY
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.kernels.reconstruction_gradient import Pull
from featdiff.crosscoder.kernels.triton.active_pairs import Pairs, TritonScreen
from featdiff.crosscoder.kernels.triton.adam import Derived, refresh, update
from featdiff.crosscoder.kernels.triton.kernels import decoded, gradient_rows, pair_products, sums_by_feature
from featdiff.crosscoder.sparsity import Gates, floor, gates


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


class Triton:
    """The step of one crosscoder: its rows, and what is kept from step to step."""

    def __init__(self, sparsity: Sparsity, weights: Rows, gradients: Rows, models: int) -> None:
        self.sparsity, self.weights, self.gradients = sparsity, weights, gradients
        self._derived = Derived.empty(weights, models)
        self._touched = torch.zeros(len(weights.enc), dtype=torch.bool, device=weights.enc.device)
        self.screen = TritonScreen(weights, self._derived)
        self.refresh()

    def refresh(self) -> None:
        """Take over weights that something else has changed."""
        with torch.cuda.device_of(self.weights.enc):
            refresh(self.weights, self._derived)

    def take_over_gradients(self) -> None:
        """Take over gradients that something else has changed: no row of them counts as zero."""
        self._touched.fill_(True)

    def find(self, batch: Batch, path: Path, ranks: Ranks) -> Found:
        """Overwrite the gradients with those of one batch; where `path` finds too many pairs, the step is dense."""
        with torch.cuda.device_of(batch.x):
            if path in ("compact", "screened") and (found := self._sparse(batch, path, ranks)):
                return found
            self._touched.fill_(True)
            norms = self._derived.row_norms
            return dense_gradients(self.sparsity, self.weights, self.gradients, norms, batch, ranks)

    def update(self, means: Rows, squares: Rows, rates: Rates) -> None:
        """One step of Adam on all rows, in place; `means` and `squares` are its moments."""
        with torch.cuda.device_of(self.weights.enc):
            update(self.weights, self.gradients, means, squares, self._touched, rates, self._derived)

    def _sparse(self, batch: Batch, path: Path, ranks: Ranks) -> Found | None:
        sparsity, norms, theta = self.sparsity, self._derived.row_norms.sum(dim=-1), self.weights.threshold()
        floors = floor(sparsity, norms, theta, norms.new_tensor(batch.guess))
        pairs = self._pairs(batch, path, floors)
        cut = no_cut(norms)
        if isinstance(sparsity, BatchTopK):
            found = None if pairs is None else pairs.pre * norms[pairs.feature]
            cut = ranks.cut(found, sparsity.k * batch.total, batch.guess)
            if pairs is not None and found is not None and cut is not None:
                pairs = pairs.only(found >= cut)
        if pairs is None or cut is None:
            return None
        nearby = None if theta is None else theta[pairs.feature]
        gate = gates(sparsity, pairs.pre, norms[pairs.feature], nearby, batch.weights(pairs.feature), cut)
        return self._gradients(pairs, gate, cut, batch, ranks)

    def _pairs(self, batch: Batch, path: Path, floors: Float[Tensor, " features"]) -> Pairs | None:
        if path == "compact":
            return self.screen.pairs_in_full(batch.x, floors)
        pairs = self.screen.pairs(batch.x, floors)
        if pairs is not None and batch.step % AUDIT_EVERY == 0 and self.screen.audit(batch.x, floors, pairs):
            pairs = self.screen.pairs(batch.x, floors)
        return pairs

    def _gradients(self, pairs: Pairs, gate: Gates, cut: Float[Tensor, ""], batch: Batch, ranks: Ranks) -> Found:
        sparsity, gradients, row_norms = self.sparsity, self.gradients, self._derived.row_norms
        norms, feature = row_norms.sum(dim=-1), pairs.feature
        by_feature = ByFeature.of(feature, len(norms))
        everywhere = background(sparsity, self.weights, norms, batch, feature, pairs.pre, gate, by_feature.sums)
        error = ranks.sum_over_features(decoded(gate.value, feature, pairs.starts, self.weights.dec))
        error = error.add_(self.weights.b_dec).sub_(batch.x)
        pull = Pull.of(batch, error, row_norms.shape[1])
        squares = self._backward(pairs, gate, by_feature, everywhere, batch, pull.rows)
        torch.sum(pull.rows, dim=0, out=gradients.b_dec)
        auxiliary = add_auxiliary(sparsity, self.weights, gradients, row_norms.shape[1], batch, pull, ranks)
        if auxiliary is not None:
            self._touched |= batch.dead
            squares[batch.dead] = feature_squares(gradients, batch.dead)
        on = gate.value != 0
        cost = penalty(sparsity, gate.value, norms[feature], batch.prices(feature), batch.total)
        return Found(
            reconstruction=pull.loss,
            squared_error=pull.squared_error,
            sparsity=cost if auxiliary is None else auxiliary,
            cut=cut,
            active=int(on.sum()),
            considered=len(feature),
            fired=torch.zeros_like(self._touched).index_fill_(0, feature[on].long(), True),
            square_norm=squares.sum(),
        )

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
        weights, gradients, row_norms = self.weights, self.gradients, self._derived.row_norms
        order, starts = by_feature.order, by_feature.starts
        token, feature = pairs.token[order], pairs.feature[order]
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
            self._touched,
            now,
            gradients.enc,
            gradients.dec,
        )
        self._touched = now
        return parts.double().sum(dim=1) + bias.double().square() + slope.double().square()
