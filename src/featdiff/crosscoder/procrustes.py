"""Procrustes: every model turned onto the first one before training, and the crosscoder turned back after it.

R_m = argmin over orthogonal R of sum_tokens |(a[m] - mean) R - (a[0] - mean)|^2 = U V^T,
with U S V^T the singular value decomposition of sum_tokens (a[m] - mean)^T (a[0] - mean), all in normalised units.

Training sees a[m] R_m. Afterwards W_enc[m] becomes R_m W_enc[m], W_dec[:, m] becomes W_dec[:, m] R_m^T, and b_dec[m]
likewise: the same crosscoder, in the models' own bases. Its L2 norms are untouched, and so are MAS and NRN by L2; by L1
they depend on the basis anyway. Under squared error the turn changes no loss, only where training starts and Adam's
axes; it tells where models are compared with each other: in shared decoder rows and under the delta objective.
"""

from collections.abc import Iterable
from itertools import islice

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from featdiff.activations.stream import Activations
from featdiff.config.crosscoder import Procrustes
from featdiff.crosscoder.kernels.ranks import Ranks
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.shapes import Values


@torch.no_grad()
def rotations(
    crosscoders: dict[str, Crosscoder], batches: Iterable[Activations], batch_size: int, ranks: Ranks
) -> dict[str, Float[Tensor, "models d_model d_model"]]:
    """R of each crosscoder that wants it, from the first of `batches`; the first model's is the identity.

    Crosscoders have their scale. A batch has `batch_size` tokens over all processes, of which each sees its share; all
    of them get what the first has found.
    """
    aligned = {name: one.design.align for name, one in crosscoders.items()}
    tokens = {name: align.tokens for name, align in aligned.items() if isinstance(align, Procrustes)}
    moments = {name: _Moments(crosscoders[name]) for name in tokens}
    for number, batch in enumerate(islice(batches, -(-max(tokens.values(), default=0) // batch_size))):
        for name, wanted in tokens.items():
            if number * batch_size < wanted:
                moments[name].add(batch)
    return {name: found.rotation(ranks) for name, found in moments.items()}


@torch.no_grad()
def turned(activations: Values, rotation: Float[Tensor, "models d_model d_model"] | None) -> Values:
    """Normalised activations as training sees them; without a rotation, as they are."""
    if rotation is None:
        return activations
    return einsum(activations, rotation, "t m d, m d e -> t m e")


@torch.no_grad()
def turn_back(crosscoder: Crosscoder, rotation: Float[Tensor, "models d_model d_model"]) -> None:
    """Take a crosscoder that was trained on turned activations to the models' own bases, in place."""
    rotation = rotation.to(crosscoder.W_dec)
    crosscoder.W_enc.copy_(einsum(rotation, crosscoder.W_enc, "m d e, m e f -> m d f"))
    crosscoder.W_dec.copy_(einsum(crosscoder.W_dec, rotation, "f m e, m d e -> f m d"))
    crosscoder.b_dec.copy_(einsum(crosscoder.b_dec, rotation, "m e, m d e -> m d"))
    if crosscoder.W_in is not None:
        crosscoder.W_in.copy_(einsum(rotation, crosscoder.W_in, "m d e, m e h -> m d h"))


class _Moments:
    """Sums over tokens, in float64: the cross products of every model with the first, and of each by itself."""

    def __init__(self, crosscoder: Crosscoder) -> None:
        models, width = len(crosscoder.models), crosscoder.d_model
        self._crosscoder = crosscoder
        device = crosscoder.W_dec.device
        self.products = torch.zeros(models, width, width, dtype=torch.float64, device=device)
        self.sums = torch.zeros(models, width, dtype=torch.float64, device=device)
        self.tokens = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, batch: Activations) -> None:
        own = batch.values[:, self._crosscoder.columns(batch.models)].to(self.sums.device)
        values = self._crosscoder.normalise(own).double()
        self.products += einsum(values, values[:, 0], "t m d, t e -> m d e")
        self.sums += values.sum(dim=0)
        self.tokens += len(values)

    def rotation(self, ranks: Ranks) -> Float[Tensor, "models d_model d_model"]:
        """From the tokens of all processes, as the first of them computes it."""
        for part in (self.products, self.sums, self.tokens):
            ranks.sum(part)
        if self.tokens < len(self.sums[0]):
            raise ValueError(
                f"procrustes saw {int(self.tokens)} tokens, fewer than d_model {len(self.sums[0])}; "
                "raise crosscoder.align.tokens or corpus.tokens"
            )
        if not bool(self.products.isfinite().all()):
            raise ValueError("procrustes saw activations that are NaN or infinite; check the models' weights")
        means = self.sums / self.tokens
        centred = self.products - self.tokens * einsum(means, means[0], "m d, e -> m d e")
        left, _, right = torch.linalg.svd(centred)
        found = left @ right
        found[0] = torch.eye(len(found[0]))
        found = found.to(self._crosscoder.W_dec.dtype)
        return ranks.sum(found if ranks.rank == 0 else torch.zeros_like(found))
