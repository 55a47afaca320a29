"""Comparison of a selection with selections on fewer tasks, and on items that are not critical.

If the pipeline selects the same features where both models are right, both wrong, or only the base is right, these are
features that post-training changed everywhere, and not specific to generalization.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.config.intervention import NAMED, SelectionSettings
from featdiff.selection.overlap import Null, shared_null
from featdiff.selection.rules import above_share
from featdiff.selection.scores import Selection, combine_tasks, rank_features, task_score


@dataclass(frozen=True, eq=False)
class ContrastScores:
    """Scores of one task on items of one kind that are not critical."""

    items: int
    score: Float[Tensor, " features"]
    redrawn: Float[Tensor, "draws features"]
    """The score on as many items as are critical, drawn with replacement."""


@dataclass(frozen=True)
class WithoutTask:
    """Selection by all tasks but one."""

    chosen: list[int]
    rule: str
    jaccard: float
    """Overlap with the selection by all tasks."""


@dataclass(frozen=True)
class SelectedElsewhere:
    """Selection on items that are not critical."""

    items: int
    chosen: list[int]
    rule: str
    shared: Null
    """Overlap coefficient with the selection on critical items."""


def contrast_scores(
    differences: Float[Tensor, "items features"], critical: int, draws: int, seed: int
) -> ContrastScores:
    """Score the items of one kind, all together and in `draws` samples of the size of the critical set."""
    items = len(differences)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(max(items, 1), (draws, max(critical, 1)), generator=generator)
    weights = torch.zeros(draws, max(items, 1)).scatter_add_(1, rows, torch.ones_like(rows, dtype=torch.float32))
    redrawn = weights @ differences / max(critical, 1) if items else torch.zeros(draws, differences.shape[1])
    return ContrastScores(items, task_score(differences), redrawn)


def without_each_task(selection: Selection, at_least: int) -> dict[str, WithoutTask]:
    """Select by the other tasks, for each task; empty for a selection by a single task."""
    found = dict[str, WithoutTask]()
    for index, task in enumerate(selection.tasks):
        rest = [other for other in range(len(selection.tasks)) if other != index]
        if rest:
            names = [selection.tasks[other] for other in rest]
            fewer = combine_tasks(selection.selected[rest], selection.score[rest], names, at_least)
            here, whole = set(fewer.chosen.tolist()), set(selection.chosen.tolist())
            jaccard = len(here & whole) / max(len(here | whole), 1)
            found[task] = WithoutTask(fewer.chosen.tolist(), fewer.rule, jaccard)
    return found


def selected_elsewhere(
    selection: Selection,
    contrasts: Mapping[str, ContrastScores],
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
    settings: SelectionSettings,
    seed: int,
) -> SelectedElsewhere:
    """Select on items of one kind that are not critical, by task, and compare with the selection on critical items.

    Features are kept above the threshold of the largest score, whatever the rule of the settings.
    """
    score = torch.stack([contrasts[task].score for task in selection.tasks])
    kept = _kept(score, alive, settings.threshold)
    elsewhere = combine_tasks(kept, score, selection.tasks, settings.at_least)
    here, there = (_members(one.chosen, alive) for one in (selection, elsewhere))
    shared = shared_null(here, there, rate, alive, settings.null_draws, seed)
    items = sum(contrasts[task].items for task in selection.tasks)
    return SelectedElsewhere(items, elsewhere.chosen.tolist(), elsewhere.rule, shared)


def redrawn_features(
    parts: Sequence[ContrastScores], alive: Bool[Tensor, " features"], threshold: float
) -> Int[Tensor, "draws chosen"]:
    """Features that each draw of the items would select, best first; at most `NAMED` of them."""
    rows = list[Tensor]()
    for scores in torch.stack([part.redrawn for part in parts], dim=1):
        usable = torch.where(alive, scores, 0.0)
        rows.append(rank_features(_kept(scores, alive, threshold), usable, min(len(alive), NAMED)))
    return torch.stack(rows)


def _members(features: Int[Tensor, " n"], alive: Bool[Tensor, " features"]) -> Bool[Tensor, " features"]:
    members = torch.zeros_like(alive)
    members[features] = True
    return members


def _kept(
    score: Float[Tensor, "tasks features"], alive: Bool[Tensor, " features"], threshold: float
) -> Bool[Tensor, "tasks features"]:
    return torch.stack([above_share(row, alive, threshold) for row in score])
