"""How few features may explain a token: ReLU with the decoder-weighted L1 of Eq. 3 and 7, or BatchTopK.

Both rest on a feature's *contribution* f_k sum_m |W_dec[k, m]|_2, which does not change when a feature is rescaled
(f_k -> c f_k, W_dec[k] -> W_dec[k] / c); so neither the penalty nor the cut of BatchTopK depends on the gauge.

ReLU       f = max(0, pre);  penalty = weight * sum_k f_k sum_m |W_dec[k, m]|_2
BatchTopK  training: of the whole batch, the k * tokens largest contributions stay (Bussmann et al. 2024).
           inference: a contribution stays if it reaches `threshold`, the running mean of the smallest that stayed
           in training, so that a token's code does not depend on its neighbours.
           penalty = aux_weight * |residual - reconstruction from aux_k dead features|^2 (AuxK, Gao et al. 2024)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

THRESHOLD_MOMENTUM = 0.99
"""Share of BatchTopK's threshold that survives a step: a window of about a hundred batches, short enough for short
runs."""


@dataclass(frozen=True)
class ReLU:
    """ReLU under an L1 penalty; under it a contribution c to one model becomes max(0, c - weight / 2)."""

    weight: float = 2.0
    """beta of Eq. 3, for a loss summed over models and d_model and averaged over tokens."""
    warmup: float = 0.05
    """Share of the steps over which the weight rises linearly from 0."""

    def __post_init__(self) -> None:
        if self.weight < 0 or not 0 <= self.warmup <= 1:
            raise ValueError(f"{self}: weight must be 0 or more, and warmup a share between 0 and 1")


@dataclass(frozen=True)
class BatchTopK:
    """Keep the k largest contributions per token, on average over the batch."""

    k: int = 64
    """Active features per token, on average."""
    aux_weight: float = 1 / 32
    """Weight of AuxK, in the units of the reconstruction loss."""
    aux_k: int | None = None
    """Dead features per token that reconstruct the residual; None: half of d_model."""
    dead_after_tokens: int = 10_000_000
    """A feature that was silent for so many tokens is dead."""

    def __post_init__(self) -> None:
        if (
            self.k < 1
            or self.aux_weight < 0
            or self.dead_after_tokens < 1
            or (self.aux_k is not None and self.aux_k < 1)
        ):
            raise ValueError(f"{self}: k, aux_k and dead_after_tokens must be at least 1, and aux_weight 0 or more")


Sparsity = ReLU | BatchTopK


def sparsity_from(record: Mapping[str, object]) -> Sparsity:
    """The sparsity that `sparsity_record`, or the `sparsity` section of a study, describes; its `kind` says which."""
    settings = {name: value for name, value in record.items() if name != "kind"}
    match record.get("kind"):
        case "relu":
            return ReLU(**settings)  # pyright: ignore[reportArgumentType] -- the fields come from JSON
        case "batchtopk":
            return BatchTopK(**settings)  # pyright: ignore[reportArgumentType] -- the fields come from JSON
        case kind:
            raise ValueError(f"sparsity kind {kind!r} is unknown; use 'relu' or 'batchtopk'")


def sparsity_record(sparsity: Sparsity) -> dict[str, str | float | int | None]:
    """What `sparsity_from` reads; it goes into config.json."""
    match sparsity:
        case ReLU():
            return {"kind": "relu", "weight": sparsity.weight, "warmup": sparsity.warmup}
        case BatchTopK():
            return {
                "kind": "batchtopk",
                "k": sparsity.k,
                "aux_weight": sparsity.aux_weight,
                "aux_k": sparsity.aux_k,
                "dead_after_tokens": sparsity.dead_after_tokens,
            }


def training_features(
    sparsity: Sparsity, pre: Float[Tensor, "tokens features"], norms: Float[Tensor, " features"]
) -> Float[Tensor, "tokens features"]:
    """Features of one training batch from their pre-activations and summed decoder norms."""
    match sparsity:
        case ReLU():
            return torch.relu(pre)
        case BatchTopK():
            contributions = torch.relu(pre.detach()) * norms.detach()
            cut = smallest_kept(contributions, sparsity.k * len(pre))
            return torch.relu(pre) * (contributions >= cut)


def inference_features(
    sparsity: Sparsity,
    pre: Float[Tensor, "tokens features"],
    norms: Float[Tensor, " features"],
    threshold: Float[Tensor, ""],
) -> Float[Tensor, "tokens features"]:
    """Features of each token by itself; `threshold` is BatchTopK's, and ReLU has none."""
    match sparsity:
        case ReLU():
            return torch.relu(pre)
        case BatchTopK():
            return torch.relu(pre) * (pre * norms >= threshold)


def smallest_kept(contributions: Float[Tensor, "tokens features"], count: int) -> Float[Tensor, ""]:
    """The cut of BatchTopK: the `count`-th largest contribution, or the smallest positive one where fewer are positive.

    Ties at the cut all stay, so that the choice does not depend on the order of the tokens. Without any positive
    contribution: inf.
    """
    positive = contributions[contributions > 0]
    if positive.numel() == 0:
        return contributions.new_tensor(torch.inf)
    return positive.topk(min(count, positive.numel()), sorted=False).values.min()


def updated_threshold(threshold: Float[Tensor, ""], cut: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """BatchTopK's threshold after a batch whose smallest kept contribution was `cut`; the first batch sets it."""
    mean = torch.where(threshold == 0, cut, THRESHOLD_MOMENTUM * threshold + (1 - THRESHOLD_MOMENTUM) * cut)
    return torch.where(cut.isfinite(), mean, threshold)


def weighted_l1(features: Float[Tensor, "tokens features"], norms: Float[Tensor, " features"]) -> Float[Tensor, ""]:
    """sum_k f_k sum_m |W_dec[k, m]|_2, averaged over tokens (second term of Eq. 3 and 7, without beta)."""
    return einsum(features, norms, "tokens features, features -> tokens").mean()


def auxiliary_features(
    pre: Float[Tensor, "tokens features"], dead: Bool[Tensor, " features"], count: int
) -> Float[Tensor, "tokens features"]:
    """The `count` strongest dead features of every token, all others 0 (AuxK)."""
    candidates = torch.relu(pre) * dead
    kept = min(count, candidates.shape[1])
    chosen = candidates.topk(kept, dim=1, sorted=False).indices
    return candidates * torch.zeros_like(candidates).scatter_(1, chosen, 1.0)
