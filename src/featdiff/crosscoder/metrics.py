"""How well a crosscoder fits held-out activations, model by model.

variance explained  1 - sum |a - a^|^2 / sum |a - mean a|^2   a ratio of sums over all tokens, around one global mean
l0                  active features per token
density             share of tokens on which a feature is active; dead: on none
CE recovered        (CE_ablated - CE_spliced) / (CE_ablated - CE_original)
KL recovered        (KL_ablated - KL_spliced) / KL_ablated,  KL from the original model's next-token distribution

Two other conventions for variance explained are in use and give other numbers: the mean over tokens of each token's own
ratio, which weighs tokens of small norm up, and 1 - Var(a - a^) / Var(a), which centres the residual and so hides a
wrong bias.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from featdiff.activations.stream import Activations
from featdiff.crosscoder.model import Crosscoder

NO_LABEL = -100
"""Label of a position that is not scored."""


@dataclass(frozen=True, eq=False)
class Quality:
    """Fit on held-out tokens."""

    models: tuple[str, ...]
    variance_explained: Float[Tensor, " models"]
    """Ratio of sums, around the global mean."""
    l0: float
    """Active features per token."""
    dead_share: float
    """Share of features that fired on no token."""
    density: Float[Tensor, " features"]
    """Share of tokens on which each feature fired."""
    mean: Float[Tensor, "models d_model"]
    """Mean raw activation, by which `spliced_losses` ablates."""
    tokens: int

    def of(self, model: str) -> float:
        """Variance explained in `model`."""
        return float(self.variance_explained[self.models.index(model)])


@dataclass(frozen=True)
class SplicedLosses:
    """Sums over scored positions, in nats: of the model as it is, with the reconstruction spliced in, and with the mean
    instead."""

    positions: int = 0
    ce_original: float = 0.0
    ce_spliced: float = 0.0
    ce_ablated: float = 0.0
    kl_spliced: float = 0.0
    kl_ablated: float = 0.0

    def __add__(self, other: "SplicedLosses") -> "SplicedLosses":
        """Losses over the positions of both."""
        return SplicedLosses(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))

    @property
    def ce_recovered(self) -> float:
        """(CE_ablated - CE_spliced) / (CE_ablated - CE_original); nan where the ablation costs nothing."""
        return _ratio(self.ce_ablated - self.ce_spliced, self.ce_ablated - self.ce_original)

    @property
    def kl_recovered(self) -> float:
        """(KL_ablated - KL_spliced) / KL_ablated; nan where the ablation changes nothing."""
        return _ratio(self.kl_ablated - self.kl_spliced, self.kl_ablated)


def measure(crosscoder: Crosscoder, batches: Iterable[Activations]) -> Quality:
    """Quality over all of `batches`, in one pass, with float64 sums; they may hold more models than the crosscoder
    reads."""
    (found,) = measure_all([crosscoder], batches)
    return found


@torch.no_grad()
def measure_all(crosscoders: Sequence[Crosscoder], batches: Iterable[Activations]) -> list[Quality]:
    """`measure` for several crosscoders, whose batches are read once."""
    sums = [_Sums.of(crosscoder) for crosscoder in crosscoders]
    tokens = 0
    for batch in batches:
        for crosscoder, of_one in zip(crosscoders, sums, strict=True):
            of_one.add(crosscoder, batch.values[:, crosscoder.columns(batch.models)])
        tokens += len(batch.values)
    if not tokens:
        raise ValueError("there are no held-out tokens to measure on; raise corpus.held_out_tokens")
    return [of_one.quality(crosscoder, tokens) for crosscoder, of_one in zip(crosscoders, sums, strict=True)]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over tokens, in float64."""

    total: Float[Tensor, "models d_model"]
    squares: Float[Tensor, " models"]
    errors: Float[Tensor, " models"]
    fired: Int[Tensor, " features"]

    @staticmethod
    def of(crosscoder: Crosscoder) -> "_Sums":
        models, device = len(crosscoder.models), crosscoder.W_dec.device
        total = torch.zeros(models, crosscoder.d_model, dtype=torch.float64, device=device)
        fired = torch.zeros(crosscoder.features, dtype=torch.int64, device=device)
        return _Sums(total, total.new_zeros(models), total.new_zeros(models), fired)

    def add(self, crosscoder: Crosscoder, values: Float[Tensor, "tokens models d_model"]) -> None:
        values = values.to(self.total.device)
        features = crosscoder.encode(values)
        residual = (values - crosscoder.decode(features)).double()
        self.total.add_(values.double().sum(dim=0))
        self.squares.add_(values.double().square().sum(dim=(0, 2)))
        self.errors.add_(residual.square().sum(dim=(0, 2)))
        self.fired.add_((features > 0).sum(dim=0))

    def quality(self, crosscoder: Crosscoder, tokens: int) -> Quality:
        variation = self.squares - tokens * (self.total / tokens).square().sum(dim=-1)
        return Quality(
            models=crosscoder.models,
            variance_explained=(1 - self.errors / variation).float().cpu(),
            l0=float(self.fired.sum() / tokens),
            dead_share=float((self.fired == 0).double().mean()),
            density=(self.fired.double() / tokens).float().cpu(),
            mean=(self.total / tokens).float().cpu(),
            tokens=tokens,
        )


@torch.no_grad()
def spliced_losses(
    logits_from_residual: Callable[[Tensor], Tensor],
    residual: Float[Tensor, "batch positions d_model"],
    reconstruction: Float[Tensor, "batch positions d_model"],
    mean: Float[Tensor, " d_model"],
    labels: Int[Tensor, "batch positions"],
    keep: Bool[Tensor, "batch positions"],
) -> SplicedLosses:
    """Next-token losses of one model when its raw `residual` is replaced at the tap; add up the results of many
    batches.

    `logits_from_residual` runs the blocks above the tap: [batch positions d_model] -> [batch positions vocabulary].
    Only positions in `keep` are replaced; those that training dropped (document starts, sinks) keep their own
    activation, and count all the same. Ablation puts `mean` in their place: the mean over held-out tokens
    (`Quality.mean`), or zeros for a zero ablation. `labels` are the tokens that follow, -100 where nothing is to be
    predicted.
    """
    scored = labels != NO_LABEL
    targets = labels[scored].long()

    def log_probabilities(replacement: Tensor) -> Float[Tensor, "scored vocabulary"]:
        values = torch.where(keep[:, :, None], replacement, residual)
        return logits_from_residual(values)[scored].float().log_softmax(dim=-1)

    def ce(found: Float[Tensor, "scored vocabulary"]) -> float:
        return float(cross_entropy(found, targets, reduction="none").double().sum())

    def kl(found: Float[Tensor, "scored vocabulary"]) -> float:
        """KL(original || found), summed over positions."""
        return float(kl_div(found, original, reduction="none", log_target=True).double().sum())

    original, spliced, ablated = (log_probabilities(values) for values in (residual, reconstruction, mean))
    return SplicedLosses(int(scored.sum()), ce(original), ce(spliced), ce(ablated), kl(spliced), kl(ablated))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
