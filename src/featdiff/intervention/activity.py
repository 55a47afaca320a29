"""Activity of the features on edited tokens, by which controls are matched and doses measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.evaluation.batches import Positions, request_batches
from featdiff.evaluation.results import Requests
from featdiff.intervention.edits import CHUNK, CodeReading, codes
from featdiff.models.loading import Lineup


@dataclass(frozen=True, eq=False)
class Activity:
    """Activity of each feature on the tokens that an edit of one model would touch."""

    density: Float[Tensor, " features"]
    """Share of the edited tokens on which the feature fires."""
    contribution: Float[Tensor, " features"]
    """Mean over those tokens of f_k ||W_dec[k, m]||_2, in normalised units of the edited model."""
    tokens: int
    mean: Float[Tensor, " features"]
    """Mean code over all those tokens."""
    mean_active: Float[Tensor, " features"]
    """Mean code over those on which the feature fires; 0 where it never does, as in the next two."""
    maximum: Float[Tensor, " features"]
    quantiles: Mapping[float, Float[Tensor, " features"]] = field(default_factory=dict)
    """Quantiles of the active codes, by share."""


def activity(
    requests: Requests,
    lineup: Lineup,
    crosscoder: Crosscoder,
    model: str,
    positions: Positions = "all",
    *,
    batch_size: int = 64,
    reading: CodeReading = "joint",
    source: str | None = None,
    quantiles: Sequence[float] = (),
) -> Activity:
    """Measure firing rate and size of every feature at the positions that an edit of `model` would touch.

    With a `source`, of the values that a patch from it would set. Quantiles hold every active code in memory once.
    """
    order = order_of(lineup, crosscoder)
    batches = request_batches(requests, batch_size, crosscoder.W_dec.device)
    edited = (
        lineup.residuals(batch.input_ids, batch.attention_mask)[:, :, order][batch.edited(positions)]
        for batch in batches
    )
    return activity_on(edited, crosscoder, model, reading=reading, source=source, quantiles=quantiles)


@torch.no_grad()
def activity_on(
    tokens: Iterable[Float[Tensor, "_ models d_model"]],
    crosscoder: Crosscoder,
    model: str,
    *,
    reading: CodeReading = "joint",
    source: str | None = None,
    quantiles: Sequence[float] = (),
) -> Activity:
    """Measure activity on given activations, in the order of the crosscoder's models."""
    norms = crosscoder.W_dec[:, crosscoder.index(model)].norm(dim=-1).double().cpu()
    fired, total, largest, count = torch.zeros_like(norms), torch.zeros_like(norms), torch.zeros(len(norms)), 0
    active: list[tuple[Tensor, Tensor]] = []
    for chunk in (chunk for part in tokens for chunk in part.split(CHUNK)):
        features = codes(crosscoder, chunk, model, reading, source)
        fired += (features > 0).sum(dim=0).cpu()
        total += features.double().sum(dim=0).cpu()
        largest = torch.maximum(largest, features.amax(dim=0).float().cpu()) if len(chunk) else largest
        count += len(chunk)
        if quantiles:
            where = features.nonzero(as_tuple=True)
            active.append((where[1].cpu(), features[where].float().cpu()))
    seen = max(count, 1)
    return Activity(
        density=(fired / seen).float(),
        contribution=(norms * total / seen).float(),
        tokens=count,
        mean=(total / seen).float(),
        mean_active=(total / fired.clamp_min(1)).float(),
        maximum=largest,
        quantiles=_quantiles(active, quantiles, len(norms)),
    )


def order_of(lineup: Lineup, crosscoder: Crosscoder) -> list[int]:
    """Where the crosscoder's models stand in the lineup. ValueError when one is missing."""
    if missing := [name for name in crosscoder.models if name not in lineup.names]:
        raise ValueError(
            f"the crosscoder reads {missing}, the lineup holds {list(lineup.names)}; load those models too"
        )
    return [lineup.names.index(name) for name in crosscoder.models]


def _quantiles(
    active: list[tuple[Tensor, Tensor]], shares: Sequence[float], features: int
) -> dict[float, Float[Tensor, " features"]]:
    """Quantiles of the active codes of each feature, linear between two codes; 0 for a feature that is silent."""
    if not shares or not active:
        return {share: torch.zeros(features) for share in shares}
    feature, value = (torch.cat(parts) for parts in zip(*active, strict=True))
    order = value.argsort(stable=True)
    order = order[feature[order].argsort(stable=True)]
    value, counts = value[order], torch.bincount(feature, minlength=features)
    start = counts.cumsum(0) - counts
    return {share: _quantile(value, start, counts, share) for share in shares}


def _quantile(
    value: Float[Tensor, " active"], start: Int[Tensor, " features"], counts: Int[Tensor, " features"], share: float
) -> Float[Tensor, " features"]:
    place = share * (counts - 1).clamp_min(0).double()
    below = place.floor().long()
    above = torch.minimum(below + 1, (counts - 1).clamp_min(0))
    inside = counts > 0
    low, high = (value[torch.where(inside, start + part, 0)] for part in (below, above))
    return torch.where(inside, low + (place - below).float() * (high - low), 0.0)
