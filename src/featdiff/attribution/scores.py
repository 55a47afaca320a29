"""Attribution of features to models: the share of each model in the summed decoder norm.

    NRN_k   = |W_k^T| / (|W_k^O| + |W_k^T|)       two models    (Eq. 4)
    MAS_k^m = |W_k^m| / sum_n |W_k^n|             any number    (Eq. 8-10)

Norms are L1 as printed; L1 depends on the basis (a vector along an axis against an equally long flat one counts as
sqrt(d) times smaller), so L2 is always kept beside it. A feature whose decoder is zero in every model belongs to
nobody: its score is 0/0, and stays NaN. An equal share would hide it among the shared features; the alive filter
removes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.presentation.picture import Axes

BINS = 50
"""Of the histogram of scores."""
SMALLEST_NORM = 0.01
"""A feature whose summed decoder norm is at most this share of the median is not alive."""


def model_attribution_score(
    W_dec: Float[Tensor, "features models d_model"], p: Literal[1, 2] = 1
) -> Float[Tensor, "features models"]:
    """MAS_m = |W_dec[k, m]|_p / sum_n |W_dec[k, n]|_p  (Eq. 8-10; p = 1 as printed).

    Rows sum to 1; a feature whose decoder is zero in every model gives NaN. With two models the tuned model's column is
    the NRN of Eq. 4.
    """
    norms = W_dec.norm(p=p, dim=-1)
    return norms / norms.sum(dim=-1, keepdim=True)


def normalized_relative_norm(
    W_dec_base: Float[Tensor, "features d_model"], W_dec_tuned: Float[Tensor, "features d_model"], p: Literal[1, 2] = 1
) -> Float[Tensor, " features"]:
    """NRN = |W_tuned|_p / (|W_base|_p + |W_tuned|_p)  (Eq. 4; p = 1 as printed): 1 is tuned only, 0 is base only.

    NaN where both decoders are zero.
    """
    return model_attribution_score(torch.stack([W_dec_base, W_dec_tuned], dim=1), p)[:, 1]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Scores of all features of one crosscoder, and which of them are alive.

    `mas` uses the norm that was asked for, `mas_l2` the L2 norm. `cosine` compares the decoder directions of two
    models: equal norms at cosine 0.2 are no shared feature; it is NaN where a decoder is zero. `density` is the share
    of held-out tokens on which the feature fires, NaN where it was not measured. `alive` features fire often enough
    and have a summed norm above 1 % of the median; nothing else enters `top` and `tails`.
    """

    models: tuple[str, ...]
    space: Literal["normalised", "raw"]
    mas: Float[Tensor, "features models"]
    mas_l2: Float[Tensor, "features models"]
    cosine: Float[Tensor, "features models models"]
    density: Float[Tensor, " features"]
    alive: Bool[Tensor, " features"]

    @staticmethod
    def of(
        crosscoder: Crosscoder,
        *,
        p: Literal[1, 2] = 1,
        space: Literal["normalised", "raw"] = "normalised",
        density: Float[Tensor, " features"] | None = None,
        min_density: float = 1e-5,
    ) -> "Attribution":
        """Score every feature of a crosscoder.

        In `raw` space each model's decoder is multiplied by its scale first, so that a model whose activations are
        larger overall owns more of every feature. `density` [features] is the share of held-out tokens on which each
        fires; not given, it is the crosscoder's own, which a folder of a training run brings along. Where neither is
        known only the norm filters, and features that never fire count as alive. After `canonicalise` all summed L2
        norms are 1: then the norm finds only all-zero features.
        """
        density = crosscoder.density if density is None else density
        W_dec = decoder(crosscoder, space)
        total = W_dec.norm(p=p, dim=-1).sum(dim=-1)
        fires = torch.ones_like(total, dtype=torch.bool) if density is None else density.to(total.device) >= min_density
        return Attribution(
            models=crosscoder.models,
            space=space,
            mas=model_attribution_score(W_dec, p),
            mas_l2=model_attribution_score(W_dec, 2),
            cosine=decoder_cosines(W_dec),
            density=torch.full_like(total, torch.nan) if density is None else density.to(total),
            alive=fires & (total > SMALLEST_NORM * total.median()),
        )

    def __getitem__(self, model: str) -> Float[Tensor, " features"]:
        """The scores of one model; with two models and the tuned one's name this is the NRN."""
        if model not in self.models:
            raise ValueError(f"no model {model!r} in this crosscoder; it aligns {', '.join(self.models)}")
        return self.mas[:, self.models.index(model)]

    def top(self, model: str, k: int = 50) -> Int[Tensor, " k"]:
        """The k alive features that belong most to the model, best first, ties by index; fewer if fewer are alive."""
        return ranking(self[model], self.alive)[:k]

    def tails(self, model: str, cuts: Sequence[float] = (0.8, 0.9)) -> dict[str, int]:
        """How many alive features score above each cut, and under "alive" of how many."""
        scores = self[model][self.alive]
        return {f"{cut:g}": int((scores > cut).sum()) for cut in cuts} | {"alive": int(self.alive.sum())}

    def tail(self, model: str, cut: float = 0.8) -> Int[Tensor, " tail"]:
        """The alive features that score above `cut` for the model, best first, ties by index."""
        ranked = ranking(self[model], self.alive)
        return ranked[self[model][ranked] > cut]

    def counts(self, model: str, bins: int = BINS) -> Int[Tensor, " bins"]:
        """How many alive features score in each of equal bins between 0 and 1."""
        return torch.histc(self[model][self.alive].float().cpu(), bins=bins, min=0, max=1).long()

    def hist(self, model: str, cuts: Sequence[float] = (0.8, 0.9)) -> Axes:
        """Draw how many alive features score how much for the model (Figs. 1 and 3), and the tails beyond the cuts.

        Returns matplotlib's axes, of a figure that a notebook shows.
        """
        from featdiff.presentation.score_histogram import score_histogram
        from featdiff.presentation.style import on_screen

        counts, tails = self.counts(model).tolist(), self.tails(model, cuts)
        alive = tails.pop("alive")
        with on_screen():
            return score_histogram(counts, tails, model, self.models, alive).axes[0]


def decoder(crosscoder: Crosscoder, space: Literal["normalised", "raw"]) -> Float[Tensor, "features models d_model"]:
    """The decoder in the units that are asked for: W_dec, or scale[m] * W_dec[k, m] in raw ones."""
    W_dec = crosscoder.W_dec.detach().float()
    match space:
        case "normalised":
            return W_dec
        case "raw":
            return einsum(W_dec, crosscoder.scale.detach().float(), "features models d, models -> features models d")


def decoder_cosines(W_dec: Float[Tensor, "features models d_model"]) -> Float[Tensor, "features models models"]:
    """Cosine between the decoder directions of each two models, per feature; NaN where one of them is zero."""
    directions = W_dec / W_dec.norm(dim=-1, keepdim=True)
    return einsum(directions, directions, "features one d, features other d -> features one other").clamp(-1, 1)


def ranking(scores: Float[Tensor, " features"], alive: Bool[Tensor, " features"]) -> Int[Tensor, " ranked"]:
    """The alive features from the highest score to the lowest, ties by index; undefined scores take no part."""
    eligible = rearrange((alive & ~scores.isnan()).nonzero(), "ranked 1 -> ranked")
    return eligible[scores[eligible].argsort(descending=True, stable=True)]
