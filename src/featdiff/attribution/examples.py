"""Top-activating contexts of features, by the joint code and by each model.

Two readings of feature k at a token:

joint      f_k, its code, from all models together
model m    how far m's own activation drives it: pre_k(a) - pre_k(a with the mean of model m in the place of a[m]).
           With a linear encoder this is <W_enc[m, :, k], a[m] - mean[m]> / scale[m]

The second needs no other model to agree, is not cut by a threshold that only the joint sum passes, and is negative
where m speaks against the feature. Of every document only its strongest place is kept, so that contexts differ.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder

JOINT = "joint"
BLOCK = 64
"""Features that are ranked at a time."""


@dataclass(frozen=True, eq=False)
class Passages:
    """Tokens of a text with their residual streams and positions."""

    models: tuple[str, ...]
    values: Float[Tensor, "tokens models d_model"]
    """Raw."""
    place: Int[Tensor, " tokens"]
    """Position in the whole text; no two tokens share one."""
    document: Int[Tensor, " tokens"]
    """Number of the document, in rising order."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The strongest places of some features, best first, under each reading: `joint`, then every model."""

    features: Int[Tensor, " features"]
    readings: tuple[str, ...]
    value: Float[Tensor, "readings features top"]
    """0 where fewer places excite the feature."""
    place: Int[Tensor, "readings features top"]
    """-1 where there is none."""
    tokens: int
    """Tokens that were read."""


@torch.no_grad()
def top_examples(
    crosscoder: Crosscoder,
    passages: Iterable[Passages],
    features: Int[Tensor, " features"],
    mean: Float[Tensor, "models d_model"],
    *,
    top: int = 8,
) -> Examples:
    """The `top` places that excite each of `features` most, from different documents, in one pass.

    `mean` is the raw mean activation of each model. Memory beyond one batch's codes is readings x features x top.
    A document that a batch cuts counts as two. Ties go to the earlier place. ValueError where nothing was read.
    """
    readings = (JOINT, *crosscoder.models)
    shape = (len(readings), len(features), top)
    device = crosscoder.W_dec.device
    best = torch.zeros(shape, device=device), torch.full(shape, -1, device=device)
    tokens = 0
    for passage in passages:
        tokens += len(passage.place)
        values = passage.values[:, crosscoder.columns(passage.models)].to(device)
        if not len(values):
            continue
        excited = _readings(crosscoder, values, features.to(device), mean.to(device))
        place, document = passage.place.to(device), passage.document.to(device)
        for start in range(0, len(features), BLOCK):
            block = slice(start, start + BLOCK)
            found = _strongest_of_documents(excited[:, block], place, document)
            for kept, new in zip(best, _merged([kept[:, block] for kept in best], found, top), strict=True):
                kept[:, block] = new
    if not tokens:
        raise ValueError("there are no tokens to look for examples in; give at least one passage")
    value, place = (kept.cpu() for kept in best)
    return Examples(features.cpu(), readings, value, place, tokens)


def _readings(
    crosscoder: Crosscoder,
    values: Float[Tensor, "tokens models d_model"],
    features: Int[Tensor, " features"],
    mean: Float[Tensor, "models d_model"],
) -> Float[Tensor, "readings features tokens"]:
    whole = crosscoder.pre_activations(values)[:, features]
    found = [crosscoder.encode(values)[:, features]]
    for index in range(len(crosscoder.models)):
        without = values.clone()
        without[:, index] = mean[index]
        found.append(whole - crosscoder.pre_activations(without)[:, features])
    return rearrange(torch.stack(found), "readings tokens features -> readings features tokens").contiguous()


def _strongest_of_documents(
    excited: Float[Tensor, "readings features tokens"], place: Int[Tensor, " tokens"], document: Int[Tensor, " tokens"]
) -> tuple[Float[Tensor, "readings features documents"], Int[Tensor, "readings features documents"]]:
    """Of every document the strongest value and the first place that has it."""
    number = torch.unique_consecutive(document, return_inverse=True)[1].expand_as(excited)
    shape = (*excited.shape[:2], int(number.max()) + 1)
    strongest = excited.new_full(shape, -torch.inf).scatter_reduce(2, number, excited, "amax")
    index = torch.arange(len(place), device=place.device).expand_as(excited)
    candidates = torch.where(excited == strongest.gather(2, number), index, len(place))
    first = torch.full(shape, len(place), device=place.device).scatter_reduce(2, number, candidates, "amin")
    return strongest, place[first]


def _merged(
    kept: list[Tensor], found: tuple[Tensor, Tensor], top: int
) -> tuple[Float[Tensor, "readings features top"], Int[Tensor, "readings features top"]]:
    """The best of two lists; what is not above 0 excites nothing."""
    value, place = (torch.cat(pair, dim=2) for pair in zip(kept, found, strict=True))
    order = value.argsort(dim=2, descending=True, stable=True)[:, :, :top]
    value, place = value.gather(2, order), place.gather(2, order)
    return value.clamp(min=0), torch.where(value > 0, place, -1)
