"""Rules by which a task retains features: share of the largest score, rank, or a test over items (Sec. 3.2)."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import t as student
from torch import Tensor

from featdiff.stats import benjamini_hochberg


def above_share(
    score: Float[Tensor, " features"], alive: Bool[Tensor, " features"], threshold: float
) -> Bool[Tensor, " features"]:
    """Alive features above `threshold` times the largest score of an alive one; none where no score is positive."""
    largest = torch.where(alive, score, 0.0).amax()
    return alive & (score > threshold * largest) & (score > 0)


def top(score: Float[Tensor, " features"], alive: Bool[Tensor, " features"], count: int) -> Bool[Tensor, " features"]:
    """The `count` alive features of largest score, as far as scores are positive; of equals the first."""
    usable = torch.where(alive, score, 0.0)
    order = usable.argsort(descending=True, stable=True)[:count]
    kept = torch.zeros_like(alive)
    kept[order] = usable[order] > 0
    return kept


def by_paired_t(
    differences: Float[Tensor, "items features"], alive: Bool[Tensor, " features"], fdr: float
) -> Bool[Tensor, " features"]:
    """Alive features whose difference between the models is positive over items, at a false discovery rate.

    One-sided t of the paired differences, items as replicates, adjusted over the alive features by Benjamini and
    Hochberg. None with fewer than two items. A difference that is the same on all items counts as certain.
    """
    kept = torch.zeros_like(alive)
    if len(differences) < 2 or not alive.any():
        return kept
    values = differences[:, alive].double()
    mean, spread = values.mean(dim=0), values.std(dim=0) / len(values) ** 0.5
    t = torch.where(spread > 0, mean / spread, torch.where(mean > 0, torch.inf, -torch.inf))
    p = student.sf(t.cpu().numpy(), df=len(values) - 1)
    kept[alive] = torch.from_numpy(np.asarray(benjamini_hochberg(p)) <= fdr).to(alive.device)
    return kept
