"""Scores and selection of generalization-controlling features (Sec. 3.2, Eq. 11).

1. Per item that the base gets wrong and the tuned model right: how much stronger is feature k in the tuned model, at
   the final prompt token?
2. Per task: the mean over those items; kept are features above a share of the task's largest (the paper: 20 %).
3. Over tasks: the intersection. Where that is empty, the features kept by the largest number of tasks; the rule tells.

An empty selection is a result, not an error.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.crosscoder.model import Crosscoder
from featdiff.selection.overlap import overlaps
from featdiff.selection.rules import above_share

INTERSECTION = "intersection"
NOTHING = "nothing: no feature passes the threshold in any task"


@torch.no_grad()
def branch_score(
    crosscoder: Crosscoder,
    residual_tuned: Float[Tensor, "items d_model"],
    residual_base: Float[Tensor, "items d_model"],
    tuned: str,
    base: str,
) -> Float[Tensor, "items features"]:
    """f_k(tuned) - f_k(base), each read from its own branch alone: the paper's score (Eq. 11), per item.

    A branch reads about 1/M of what M models read together of a shared feature, and the whole bias.
    """
    return crosscoder.encode_branch(residual_tuned, tuned) - crosscoder.encode_branch(residual_base, base)


@torch.no_grad()
def swap_score(
    crosscoder: Crosscoder, residuals: Float[Tensor, "items models d_model"], tuned: str, base: str
) -> Float[Tensor, "items features"]:
    """The joint code less the joint code in which the base's activation stands in the tuned model's place, per item.

    The base's activation comes in normalised units, a_base scale_tuned / scale_base: a model that merely scales the
    whole residual stream then scores 0 everywhere. The models axis is the crosscoder's.
    """
    into, source = crosscoder.index(tuned), crosscoder.index(base)
    swapped = residuals.clone()
    swapped[:, into] = residuals[:, source] * (crosscoder.scale[into] / crosscoder.scale[source])
    return crosscoder.encode(residuals) - crosscoder.encode(swapped)


def task_score(differences: Float[Tensor, "items features"]) -> Float[Tensor, " features"]:
    """Mean over a task's critical items (Eq. 11); zero for a task that has none."""
    return differences.sum(dim=0) / max(len(differences), 1)


@dataclass(frozen=True, eq=False)
class Selection:
    """Features that tasks retain and share. The axis `tasks` is in the order of `tasks`."""

    tasks: tuple[str, ...]
    score: Float[Tensor, "tasks features"]
    selected: Bool[Tensor, "tasks features"]
    chosen: Int[Tensor, " n"]
    """Features of the final set, ascending; may be empty."""
    overlap: Float[Tensor, "tasks tasks"]
    """Jaccard overlap between the tasks' features (Fig. 4); 0 where both sets are empty."""
    overlap_coefficient: Float[Tensor, "tasks tasks"]
    """Shared features over the smaller set; 0 where that is empty."""
    rule: str
    """"intersection", "k of n", or that nothing was found."""
    without_held_out: Int[Tensor, " _"] | None = None
    """Features chosen in the same way without the held-out items, on which their effect is tested."""
    held_out: Mapping[str, Int[Tensor, " _"]] = field(default_factory=dict)
    """By task, the critical items that had no part in `without_held_out`, by index."""

    def __len__(self) -> int:
        """Number of chosen features."""
        return len(self.chosen)

    def __getitem__(self, index: int) -> int:
        """A chosen feature: `chosen[0]`."""
        return int(self.chosen[index])

    def __iter__(self) -> Iterator[int]:
        """The chosen features, ascending."""
        return iter(self.chosen.tolist())

    @property
    def per_task(self) -> dict[str, int]:
        """Number of features kept in each task."""
        return dict(zip(self.tasks, self.selected.sum(dim=1).tolist(), strict=True))

    @property
    def in_at_least(self) -> tuple[int, ...]:
        """Number of features kept by at least 1, 2, ... of the tasks."""
        votes = self.selected.sum(dim=0)
        return tuple(int((votes >= k).sum()) for k in range(1, len(self.tasks) + 1))


def select_above_share(
    score: Float[Tensor, "tasks features"],
    tasks: Sequence[str],
    threshold: float = 0.2,
    alive: Bool[Tensor, " features"] | None = None,
    at_least: int = 1,
) -> Selection:
    """Features above `threshold` times the task's largest score, in all tasks, or else in k of them.

    k is the largest number of tasks that keep `at_least` features in common; fewer are chosen only where even a single
    task keeps fewer.

    Only features that are `alive` count, also for the maximum; a task without a positive score keeps none. Raises
    ValueError where names and scores do not fit, or scores are not finite.
    """
    if len(score) != len(tasks) or not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(
            f"scores hold {len(score)} tasks, the names are {list(tasks)}; give one distinct name per task"
        )
    if not score.isfinite().all():
        raise ValueError("scores must be finite; a task without critical items scores 0 (task_score)")
    usable = torch.ones_like(score[0], dtype=torch.bool) if alive is None else alive
    return combine_tasks(torch.stack([above_share(row, usable, threshold) for row in score]), score, tasks, at_least)


def combine_tasks(
    selected: Bool[Tensor, "tasks features"],
    score: Float[Tensor, "tasks features"],
    tasks: Sequence[str],
    at_least: int = 1,
) -> Selection:
    """Combine what each task retains, by any rule, into the features that all tasks share, or else k of them."""
    votes = selected.sum(dim=0)
    kept = [k for k in range(1, len(tasks) + 1) if int((votes >= k).sum()) >= at_least]
    most = max(kept, default=min(1, int(votes.max())))
    chosen = (votes >= max(most, 1)).nonzero().flatten()
    jaccard, coefficient = overlaps(selected)
    return Selection(tuple(tasks), score, selected, chosen, jaccard, coefficient, _rule(most, len(tasks)))


@dataclass(frozen=True, eq=False)
class HeldOutSplit:
    """Split of one task's critical items: features are chosen on `choosing` and tested on `held_out`."""

    choosing: Int[Tensor, " choosing"]
    held_out: Int[Tensor, " held_out"]


def split_held_out(critical: Int[Tensor, " items"], share: float, seed: int) -> HeldOutSplit:
    """Split a task's critical items at random: `share` of them is held out, and of two items at least one each."""
    order = critical[torch.randperm(len(critical), generator=torch.Generator().manual_seed(seed))]
    held_out = min(max(round(share * len(order)), 1), max(len(order) - 1, 0))
    return HeldOutSplit(choosing=order[held_out:].sort().values, held_out=order[:held_out].sort().values)


def rank_features(
    selected: Bool[Tensor, "tasks features"], score: Float[Tensor, "tasks features"], count: int
) -> Int[Tensor, " count"]:
    """Rank features by the number of tasks that retain them, then by their mean share of the tasks' largest scores."""
    relative = (score / score.amax(dim=1, keepdim=True).clamp_min(1e-12)).clamp_min(0).mean(dim=0)
    votes = selected.sum(dim=0)
    return (votes + relative / (1 + relative.max())).argsort(descending=True, stable=True)[:count]


def _rule(most: int, tasks: int) -> str:
    if most == 0:
        return NOTHING
    return INTERSECTION if most == tasks else f"{most} of {tasks}"
