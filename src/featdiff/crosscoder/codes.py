"""The features of one training batch, dense or sparse, with the few products that a training step needs of them.

Cost follows the active features: below a few percent of them a product with the codes is a gather of rows, above it a
matrix product is faster. Both forms give the same numbers up to the order of summation.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

SPARSE_BELOW = 0.08
"""Share of active features below which the sparse form is used; measured break-even with 384 to 768 columns: 8 to 12
%."""


@dataclass(frozen=True)
class DenseCodes:
    """Codes as a full matrix."""

    values: Float[Tensor, "tokens features"]

    def times(self, rows: Float[Tensor, "features width"]) -> Float[Tensor, "tokens width"]:
        """codes @ rows."""
        return self.values @ rows

    def transposed_times(self, rows: Float[Tensor, "tokens width"]) -> Float[Tensor, "features width"]:
        """codes^T @ rows."""
        return self.values.T @ rows

    def sampled(
        self,
        left: Float[Tensor, "tokens width"],
        right: Float[Tensor, "features width"],
        offset: Float[Tensor, " features"],
    ) -> "DenseCodes":
        """left @ right^T + offset where a feature is active, 0 elsewhere."""
        return DenseCodes(torch.addmm(offset, left, right.T).mul_(self.values > 0))

    def sum(self) -> Float[Tensor, " features"]:
        """Sum over tokens."""
        return self.values.sum(dim=0)

    def active(self) -> int:
        """Number of active features, over all tokens."""
        return int(torch.count_nonzero(self.values))


@dataclass(frozen=True)
class SparseCodes:
    """Codes as a list of active (token, feature) pairs in order of the tokens, and again in order of the features."""

    values: Float[Tensor, " active"]
    token: Int[Tensor, " active"]
    feature: Int[Tensor, " active"]
    by_feature: Int[Tensor, " active"]
    token_starts: Int[Tensor, " tokens_plus_one"]
    feature_starts: Int[Tensor, " features_plus_one"]

    def times(self, rows: Float[Tensor, "features width"]) -> Float[Tensor, "tokens width"]:
        """codes @ rows."""
        starts = self.token_starts[:-1]
        return embedding_bag(self.feature, rows, starts, mode="sum", per_sample_weights=self.values)

    def transposed_times(self, rows: Float[Tensor, "tokens width"]) -> Float[Tensor, "features width"]:
        """codes^T @ rows."""
        token, values, starts = self.token[self.by_feature], self.values[self.by_feature], self.feature_starts[:-1]
        return embedding_bag(token, rows, starts, mode="sum", per_sample_weights=values)

    def sampled(
        self,
        left: Float[Tensor, "tokens width"],
        right: Float[Tensor, "features width"],
        offset: Float[Tensor, " features"],
    ) -> "SparseCodes":
        """left @ right^T + offset at the active pairs."""
        shape = (len(left), len(right))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            pattern = torch.sparse_csr_tensor(
                self.token_starts, self.feature, torch.zeros_like(self.values), shape, check_invariants=False
            )
        products = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0).values()
        return SparseCodes(
            products + offset[self.feature],
            self.token,
            self.feature,
            self.by_feature,
            self.token_starts,
            self.feature_starts,
        )

    def sum(self) -> Float[Tensor, " features"]:
        """Sum over tokens."""
        return self.values.new_zeros(len(self.feature_starts) - 1).index_add_(0, self.feature, self.values)

    def active(self) -> int:
        """Number of active features, over all tokens."""
        return self.values.numel()


Codes = DenseCodes | SparseCodes


def relu_codes(pre: Float[Tensor, "tokens features"]) -> Codes:
    """max(0, pre), in the form that is cheaper."""
    positive = pre > 0
    if _sparse_pays(pre, int(torch.count_nonzero(positive))):
        return _sparse(pre, positive.view(-1).nonzero()[:, 0])
    return DenseCodes(torch.relu(pre))


def batch_top_k_codes(
    pre: Float[Tensor, "tokens features"], norms: Float[Tensor, " features"], count: int, guess: float
) -> tuple[Codes, Float[Tensor, ""]]:
    """Codes whose contributions pre * norms are the `count` largest positive ones of the batch, and the smallest kept
    of these.

    `guess` at that cut only saves time: where fewer than `count` contributions reach it, all positive ones are looked
    at. Ties at the cut all stay.
    """
    contributions = (pre * norms).view(-1)
    candidates = (contributions > max(guess, 0.0)).nonzero()[:, 0]
    if len(candidates) < count and guess > 0:
        candidates = (contributions > 0).nonzero()[:, 0]
    found = contributions[candidates]
    if not len(found):
        return DenseCodes(torch.zeros_like(pre)), pre.new_tensor(torch.inf)
    cut = found.topk(min(count, len(found)), sorted=False).values.min()
    kept = candidates[found >= cut]
    if _sparse_pays(pre, len(kept)):
        return _sparse(pre, kept), cut
    values = torch.zeros_like(pre)
    values.view(-1)[kept] = pre.view(-1)[kept]
    return DenseCodes(values), cut


def _sparse_pays(pre: Float[Tensor, "tokens features"], active: int) -> bool:
    # sampled_addmm on the CPU comes with MKL; on a GPU only a kernel of its own would beat the dense form.
    supported = pre.device.type == "cpu" and torch.backends.mkl.is_available()
    return supported and 0 < active <= SPARSE_BELOW * pre.numel()


def _sparse(pre: Float[Tensor, "tokens features"], active: Int[Tensor, " active"]) -> SparseCodes:
    tokens, features = pre.shape
    token, feature = active // features, active % features
    return SparseCodes(
        values=pre.view(-1)[active],
        token=token,
        feature=feature,
        by_feature=torch.argsort(feature, stable=True),
        token_starts=_starts(token, tokens),
        feature_starts=_starts(feature, features),
    )


def _starts(index: Int[Tensor, " active"], size: int) -> Int[Tensor, " size_plus_one"]:
    starts = index.new_zeros(size + 1)
    torch.cumsum(torch.bincount(index, minlength=size), dim=0, out=starts[1:])
    return starts
