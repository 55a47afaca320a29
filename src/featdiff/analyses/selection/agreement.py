"""Are the chosen features of the tasks, of generalization, or of the tuned model at large?

- Over tasks: overlap of what each retains, and how many k of n tasks share, beside random sets of equal sizes.
- Without one task: what the others choose.
- Over items: what the same pipeline chooses where both models are right, both wrong, or only the base is right. If that
  is the same, the features are what post-training changed anywhere, and the critical items are no reason to name them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.config.intervention import NAMED, REDRAWN
from featdiff.config.study import BASE
from featdiff.evaluation.outcomes import Outcomes
from featdiff.files import Record
from featdiff.run.plan import Plan
from featdiff.selection.overlap import overlap_null, shared_null
from featdiff.selection.rules import above_share
from featdiff.selection.scores import Selection, combine_tasks, rank_features, task_score

CONTRASTS: dict[str, Callable[[Outcomes, str], Int[Tensor, " items"]]] = {
    "both right": lambda outcomes, tuned: outcomes.both_right(BASE, tuned),
    "both wrong": lambda outcomes, tuned: outcomes.both_wrong(BASE, tuned),
    "mirror": lambda outcomes, tuned: outcomes.mirror(BASE, tuned),
}
"""Items that are not critical, by what they are called."""


@dataclass(frozen=True, eq=False)
class Others:
    """The score of one task on items that are not critical."""

    items: int
    score: Float[Tensor, " features"]
    redrawn: Float[Tensor, "draws features"]
    """The score on as many items as are critical, drawn with replacement."""


def contrast(differences: Float[Tensor, "items features"], critical: int, draws: int, seed: int) -> Others:
    """Score the items of one kind, all together and in `draws` samples of the size of the critical set."""
    items = len(differences)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(max(items, 1), (draws, max(critical, 1)), generator=generator)
    weights = torch.zeros(draws, max(items, 1)).scatter_add_(1, rows, torch.ones_like(rows, dtype=torch.float32))
    redrawn = weights @ differences / max(critical, 1) if items else torch.zeros(draws, differences.shape[1])
    return Others(items, task_score(differences), redrawn)


def agreement_record(
    plan: Plan,
    selection: Selection,
    others: dict[str, dict[str, Others]],
    rate: Float[Tensor, " features"],
    alive: Bool[Tensor, " features"],
) -> tuple[Record, dict[str, Int[Tensor, "draws chosen"]]]:
    """Overlaps with their nulls, choices without each task and on other items; and the features of redrawn choices.

    Choices on other items keep features above the threshold of the largest score, whatever the rule of the study.
    """
    settings, seed = plan.study.selection, plan.study.seed
    null = overlap_null(selection.selected, rate, alive, settings.null_draws, seed)
    chosen = torch.zeros_like(alive)
    chosen[selection.chosen] = True
    record: Record = {"null": null.to_json() | {"draws": settings.null_draws}, "without_task": {}, "elsewhere": {}}
    for index, task in enumerate(selection.tasks):
        rest = [other for other in range(len(selection.tasks)) if other != index]
        if rest:
            record["without_task"][task] = _without(selection, rest, settings.at_least)
    draws: dict[str, Int[Tensor, "draws chosen"]] = {}
    for name in CONTRASTS:
        parts = [others[task][name] for task in selection.tasks]
        kept = _kept(torch.stack([part.score for part in parts]), alive, settings.threshold)
        score = torch.stack([part.score for part in parts])
        elsewhere = combine_tasks(kept, score, selection.tasks, settings.at_least)
        set_there = torch.zeros_like(alive)
        set_there[elsewhere.chosen] = True
        record["elsewhere"][name] = {
            "items": sum(part.items for part in parts),
            "chosen": elsewhere.chosen.tolist(),
            "rule": elsewhere.rule,
            "shared": shared_null(chosen, set_there, rate, alive, settings.null_draws, seed).to_json(),
        }
        if name in REDRAWN:
            draws[name] = _redrawn(parts, alive, settings.threshold)
    return record, draws


def _without(selection: Selection, rest: list[int], at_least: int) -> Record:
    """What the other tasks choose, and how much of it is in the choice by all."""
    found = combine_tasks(selection.selected[rest], selection.score[rest], [selection.tasks[i] for i in rest], at_least)
    shared = len(set(found.chosen.tolist()) & set(selection.chosen.tolist()))
    union = len(set(found.chosen.tolist()) | set(selection.chosen.tolist()))
    return {"chosen": found.chosen.tolist(), "rule": found.rule, "jaccard": shared / max(union, 1)}


def _redrawn(parts: list[Others], alive: Bool[Tensor, " features"], threshold: float) -> Int[Tensor, "draws chosen"]:
    """In each draw, the features that a choice on these items would name, the first first; at most `NAMED` of them."""
    rows = []
    for scores in torch.stack([part.redrawn for part in parts], dim=1):
        usable = torch.where(alive, scores, 0.0)
        rows.append(rank_features(_kept(scores, alive, threshold), usable, min(len(alive), NAMED)))
    return torch.stack(rows)


def _kept(
    score: Float[Tensor, "tasks features"], alive: Bool[Tensor, " features"], threshold: float
) -> Bool[Tensor, "tasks features"]:
    return torch.stack([above_share(row, alive, threshold) for row in score])
