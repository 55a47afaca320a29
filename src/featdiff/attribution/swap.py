"""Specificity of a crosscoder's features at checkpoints that it was not trained on.

A crosscoder of the base and the tuned model has one decoder row per model, hence one NRN per feature. To follow its
features back in time each checkpoint c takes the tuned model's place, and the activations are asked how strongly the
feature is there. With

    g   = f(a_base, a_tuned)                          where the feature is active, by the models it was learned from
    f^c = f(a_base, a_c)                              the code with the checkpoint in the tuned model's place
    e^c = a_c - (sum_k f^c_k W_k^tuned + b_tuned)     what the tuned model's decoder leaves of the checkpoint

the strength along the tuned model's direction, as a share of what the decoder has, is the slope of the feature's part
of a_c, that is e^c + f^c_k W_k^tuned, on g_k W_k^tuned:

    beta_k^c = sum_i g_ki <W_k^tuned, e^c_i + f^c_ki W_k^tuned> / (|W_k^tuned|^2 sum_i g_ki^2)

and the same for the base in its own place, along its own direction, with the codes g. The specificity at c is then the
NRN (Eq. 4) of these strengths:

    s_k^c = |W_k^tuned| max(0, beta_k^c)      s_k^base = |W_k^base| max(0, beta_k^base)
    specificity_k^c = s_k^c / (s_k^base + s_k^c)

At c = tuned and where the decoder fits, beta is 1 and this is the NRN of the crosscoder. The slope is taken on g and
not on f^c: tokens on which f^c fires are chosen by a_c itself, and on them even a feature that c does not have would
look present. Adding the error makes the slope free of L1's shrinkage. A feature counts along its tuned direction: one
that c has at an angle counts by the cosine, and one that training has lost before the end is not in this dictionary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.activations.stream import Activations
from featdiff.attribution.scores import decoder
from featdiff.crosscoder.model import Crosscoder

PRESENT = 0.1
"""A feature whose strengths in base and checkpoint sum to less than this share of its decoder norms is absent there."""

TOKENS = 1024
"""Tokens whose features are in memory at a time."""


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over tokens, in float64."""

    squares: Float[Tensor, " features"]
    """of g^2"""
    active: Int[Tensor, " features"]
    """of [g > 0]"""
    base: Float[Tensor, " features"]
    """of g <W_base, e_base + g W_base>"""
    checkpoints: Float[Tensor, "checkpoints features"]
    """of g <W_tuned, e^c + f^c W_tuned>"""

    @staticmethod
    def zeros(crosscoder: Crosscoder, checkpoints: int) -> "_Sums":
        zeros = torch.zeros(checkpoints + 2, crosscoder.features, dtype=torch.float64, device=crosscoder.W_dec.device)
        return _Sums(zeros[0], torch.zeros_like(zeros[0], dtype=torch.int64), zeros[1], zeros[2:])


@torch.no_grad()
def swap_specificity(
    crosscoders: Sequence[Crosscoder],
    batches: Iterable[Activations],
    checkpoints: Sequence[str],
    *,
    p: Literal[1, 2] = 1,
    space: Literal["normalised", "raw"] = "normalised",
    min_active: int = 100,
) -> list[Float[Tensor, "checkpoints features"]]:
    """Specificity of the features of each crosscoder at every checkpoint; one pass over the batches serves all.

    Each crosscoder aligns a base and a tuned model; the batches hold both and the checkpoints. NaN for features that
    fire on fewer than `min_active` tokens, and at checkpoints where a feature is absent (`PRESENT`).
    """
    for one in crosscoders:
        if len(one.models) != 2:
            raise ValueError(f"swapping takes a crosscoder of two models; this one aligns {', '.join(one.models)}")
    sums = [_Sums.zeros(one, len(checkpoints)) for one in crosscoders]
    for batch in batches:
        for one, of_one in zip(crosscoders, sums, strict=True):
            needed = (*one.models, *checkpoints)
            if unknown := [name for name in needed if name not in batch.models]:
                raise ValueError(f"the activations lack {', '.join(unknown)}; they hold {', '.join(batch.models)}")
            values = batch.values[:, [batch.models.index(name) for name in needed]].to(one.W_dec.device)
            for part in values.split(TOKENS):
                _add(of_one, one, part)
    return [_specificity(one, of_one, p, space, min_active) for one, of_one in zip(crosscoders, sums, strict=True)]


def _add(sums: _Sums, crosscoder: Crosscoder, values: Float[Tensor, "tokens models d_model"]) -> None:
    """Add tokens of base, tuned model and checkpoints, in this order."""
    base, tuned = crosscoder.W_dec[:, 0], crosscoder.W_dec[:, 1]
    codes = crosscoder.encode(values[:, :2])
    sums.squares.add_(codes.double().square().sum(dim=0))
    sums.active.add_((codes > 0).sum(dim=0))
    error = crosscoder.normalise(values[:, :2])[:, 0] - codes @ base - crosscoder.b_dec[0]
    sums.base.add_(_explained(codes, codes, base, error))
    for c in range(values.shape[1] - 2):
        swapped = values[:, [0, 2 + c]]
        found = crosscoder.encode(swapped)
        error = crosscoder.normalise(swapped)[:, 1] - found @ tuned - crosscoder.b_dec[1]
        sums.checkpoints[c].add_(_explained(codes, found, tuned, error))


def _explained(
    codes: Float[Tensor, "tokens features"],
    found: Float[Tensor, "tokens features"],
    rows: Float[Tensor, "features d_model"],
    error: Float[Tensor, "tokens d_model"],
) -> Float[Tensor, " features"]:
    """sum_i g_ki <W_k, e_i + f_ki W_k>."""
    along = einsum(error, rows, "t d, f d -> t f") + found * rows.square().sum(dim=-1)
    return (codes.double() * along.double()).sum(dim=0)


def _specificity(
    crosscoder: Crosscoder, sums: _Sums, p: Literal[1, 2], space: Literal["normalised", "raw"], min_active: int
) -> Float[Tensor, "checkpoints features"]:
    norms = decoder(crosscoder, space).norm(p=p, dim=-1).double()
    lengths = crosscoder.W_dec.double().square().sum(dim=-1)
    base = norms[:, 0] * _slope(sums.base, lengths[:, 0], sums.squares)
    checkpoint = norms[:, 1] * _slope(sums.checkpoints, lengths[:, 1], sums.squares)
    total = base + checkpoint
    measured = (sums.active >= min_active) & (total > PRESENT * norms.sum(dim=-1))
    return torch.where(measured, checkpoint / total, torch.nan).float().cpu()


def _slope(
    explained: Float[Tensor, "*rows features"], lengths: Float[Tensor, " features"], squares: Float[Tensor, " features"]
) -> Float[Tensor, "*rows features"]:
    """max(0, beta); 0 for a feature without a decoder in the model."""
    possible = lengths * squares
    return torch.where(possible > 0, explained / possible, 0.0).clamp(min=0)
