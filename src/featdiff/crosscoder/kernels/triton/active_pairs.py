"""Which features of which tokens are active, on a GPU: a bfloat16 product, then float32 products of what it lists.

The margin is that of `quantisation_error.py`, and pairs come out as from the screen of a CPU. Encoder rows are not
scaled here: the score of a pair is compared with the margin of its token times the norm of its row.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.crosscoder.kernels.parameter_rows import Rows
from featdiff.crosscoder.kernels.quantisation_error import MOST_ACTIVE, hidden, rounded_up
from featdiff.crosscoder.kernels.sparse_step import Pairs, Screen
from featdiff.crosscoder.kernels.triton.adam import Derived
from featdiff.crosscoder.kernels.triton.kernels import listed, pair_products


class TritonScreen(Screen):
    """The search that rests on the bfloat16 copy of an encoder."""

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
