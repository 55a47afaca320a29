"""The sparse step, as far as a CPU and a GPU have it in common: its cost follows the active features, and its gradients
are exact.

1. Find the pairs (token, feature) above their floor: by a screen in low precision and float32 products of what it
   lists, or by a float32 product over all. From time to time some tokens are encoded in full; a miss doubles the margin
   for good.
2. Decode by token, gradients by feature, Adam by row. A feature without a pair has no gradient, and none is written.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from featdiff.config.crosscoder import BatchTopK, JumpReLU, Sparsity
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.kernels.dense import add_auxiliary, dense_gradients, feature_squares, penalty
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Pull, Rates, Rows, no_cut
from featdiff.crosscoder.kernels.quantisation_error import AUDIT_EVERY, AUDITED, MARGIN, missed
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.shapes import PerFeature, RowNorms, Scalar, Tokens
from featdiff.crosscoder.sparsity import Gates, floor, gates


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs (token, feature) above the floor, in the order of the tokens."""

    starts: Int[Tensor, " borders"]
    """Where the pairs of each token start."""
    feature: Int[Tensor, " pairs"]
    pre: Float[Tensor, " pairs"]

    def only(self, kept: Bool[Tensor, " pairs"]) -> "Pairs":
        """Those that are marked."""
        return Pairs(pad(kept.cumsum(0), (1, 0))[self.starts], self.feature[kept], self.pre[kept])

    def token(self, tokens: int) -> Int[Tensor, " some"]:
        """The token of each pair of the first `tokens`."""
        counts = self.starts[: tokens + 1].diff()
        numbers = torch.arange(tokens, dtype=self.feature.dtype, device=counts.device)
        return numbers.repeat_interleave(counts)


@dataclass(frozen=True, eq=False)
class Background:
    """What every feature receives whether it is active or not: JumpReLU's pull on pre-activations below theta.

    sum over tokens below theta of (theta - pre) = sum over all tokens - sum over pairs that are on,

    and the sum over all tokens is linear in the sum of the batch: a step need not see the pairs below theta.
    """

    pull: PerFeature
    """Times the sum of the batch it joins the gradient of the encoder row, and times its tokens that of the bias."""
    share: PerFeature
    """It joins the gradient of the decoder's norms."""
    slope: PerFeature
    """It joins the gradient of log theta."""
    batch_sum: Float[Tensor, " width"]


class Screen(ABC):
    """The search for active pairs."""

    def __init__(self, weights: Rows) -> None:
        self._weights = weights
        self.margin = torch.tensor(MARGIN)
        """Deviations that a rounded product may be off."""

    @abstractmethod
    def pairs(self, x: Tokens, floors: PerFeature) -> Pairs | None:
        """Pairs whose pre-activation lies above the floor of their feature; None where there are too many."""

    @abstractmethod
    def pairs_in_full(self, x: Tokens, floors: PerFeature) -> Pairs | None:
        """The same by a float32 product over all features: cheaper where many are active, and on CPUs without fast
        int8 products."""

    def audit(self, x: Tokens, floors: PerFeature, found: Pairs) -> int:
        """Pairs of the first tokens that `found` misses; if there are any, the margin doubles."""
        x = x[:AUDITED]
        listed = torch.zeros(len(x), len(floors), dtype=torch.bool, device=x.device)
        token = found.token(len(x)).long()
        listed[token, found.feature[: len(token)].long()] = True
        count = missed(self._weights, x, floors, listed)
        if count:
            self.margin.mul_(2)
        return count

    def search(self, batch: Batch, path: Path, floors: PerFeature) -> Pairs | None:
        """The pairs of a batch as `path` finds them, audited from time to time."""
        if path == "compact":
            return self.pairs_in_full(batch.x, floors)
        pairs = self.pairs(batch.x, floors)
        if pairs is not None and batch.step % AUDIT_EVERY == 0 and self.audit(batch.x, floors, pairs):
            pairs = self.pairs(batch.x, floors)
        return pairs


class SparseStep(ABC):
    """The step of one crosscoder on one kind of device: its rows, and what is kept from step to step."""

    def __init__(self, sparsity: Sparsity, weights: Rows, gradients: Rows, row_norms: RowNorms, screen: Screen) -> None:
        self.sparsity, self.weights, self.gradients, self.screen = sparsity, weights, gradients, screen
        self.row_norms = row_norms
        """|W_dec[k, m]|_2, which `refresh` and `update` keep."""
        self.touched = torch.zeros(len(row_norms), dtype=torch.bool, device=row_norms.device)
        """Features whose gradient rows are not known to be 0."""

    @abstractmethod
    def refresh(self) -> None:
        """Take over weights that something else has changed."""

    @abstractmethod
    def update(self, means: Rows, squares: Rows, rates: Rates) -> None:
        """One step of Adam on all rows, in place; `means` and `squares` are its moments."""

    def take_over_gradients(self) -> None:
        """Take over gradients that something else has changed: no row of them counts as zero."""
        self.touched.fill_(True)

    def find(self, batch: Batch, path: Path, ranks: Ranks) -> Found:
        """Overwrite the gradients with those of one batch; where `path` finds too many pairs, the step is dense."""
        if path in ("compact", "screened") and (found := self._sparse(batch, path, ranks)):
            return found
        self.take_over_gradients()
        return self._dense(batch, ranks)

    def _dense(self, batch: Batch, ranks: Ranks) -> Found:
        return dense_gradients(self.sparsity, self.weights, self.gradients, self.row_norms, batch, ranks)

    def _sparse(self, batch: Batch, path: Path, ranks: Ranks) -> Found | None:
        sparsity, norms, theta = self.sparsity, self.row_norms.sum(dim=-1), self.weights.threshold()
        floors = floor(sparsity, norms, theta, norms.new_tensor(batch.guess))
        pairs = self.screen.search(batch, path, floors)
        cut = no_cut(norms)
        if isinstance(sparsity, BatchTopK):
            found = None if pairs is None else pairs.pre * norms[pairs.feature]
            cut = ranks.cut(found, sparsity.k * batch.total, batch.guess)
            if pairs is not None and found is not None and cut is not None:
                pairs = pairs.only(found >= cut)
        if pairs is None or cut is None:
            return None
        feature = pairs.feature
        nearby, own_norms = None if theta is None else theta[feature], norms.index_select(0, feature)
        gate = gates(sparsity, pairs.pre, own_norms, nearby, batch.weights(feature), cut)
        pull, squares = self._passes(pairs, gate, norms, batch, ranks)
        torch.sum(pull.rows, dim=0, out=self.gradients.b_dec)
        models = self.row_norms.shape[1]
        auxiliary = add_auxiliary(sparsity, self.weights, self.gradients, models, batch, pull, ranks)
        if auxiliary is not None:
            self.touched |= batch.dead
            squares[batch.dead] = feature_squares(self.gradients, batch.dead)
        on = gate.value != 0
        cost = penalty(sparsity, gate.value, own_norms, batch.prices(feature), batch.total)
        return Found(
            reconstruction=pull.loss,
            squared_error=pull.squared_error,
            sparsity=cost if auxiliary is None else auxiliary,
            cut=cut,
            active=int(on.sum()),
            considered=len(feature),
            fired=torch.zeros_like(self.touched).index_fill_(0, feature[on].long(), True),
            square_norm=self._sum(squares),
        )

    @abstractmethod
    def _passes(
        self, pairs: Pairs, gate: Gates, norms: PerFeature, batch: Batch, ranks: Ranks
    ) -> tuple[Pull, PerFeature]:
        """Decode, and fill the gradients but that of b_dec; the pull of the reconstruction, and the square of each
        feature's part of the gradient, float64."""

    def _background(
        self,
        pairs: Pairs,
        gate: Gates,
        norms: PerFeature,
        batch: Batch,
        sums: Callable[[Float[Tensor, "3 pairs"]], Float[Tensor, "3 features"]],
    ) -> tuple[Background | None, Gates]:
        """The background, None unless JumpReLU, and the gate with penalties and shares per token of the batch; `sums`
        adds up each feature's pairs.

        Pairs that are on do not feel the background, but their encoder rows are pulled like all others: their penalty
        makes up for it.
        """
        gate = replace(gate, penalty=gate.penalty / batch.total, share=gate.share / batch.total)
        if not isinstance(self.sparsity, JumpReLU):
            return None, gate
        theta, feature, pre_weight = self.weights.threshold(), pairs.feature, self.sparsity.pre_weight / batch.total
        assert theta is not None
        on, above, slopes = sums(torch.stack([gate.open, (theta[feature] - pairs.pre) * gate.open, gate.slope]))
        batch_sum, tokens = batch.x.sum(dim=0), len(batch.x)
        lift = norms * pre_weight
        lack = tokens * (theta - self.weights.b_enc) - self.weights.enc @ batch_sum - above
        found = Background(-lift, lack * pre_weight, lift * (theta * (tokens - on) - slopes), batch_sum)
        return found, replace(gate, penalty=gate.penalty - found.pull[feature])

    def _sum(self, squares: PerFeature) -> Scalar:
        return squares.sum()
