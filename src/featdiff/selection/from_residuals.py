"""Selection of features from residual streams at the ends of prompts (Sec. 3.2), without a study or files.

    differences = item_differences(crosscoder, residuals[critical], "rl", score="swap")
    chosen = select(crosscoder, {"arc": residuals}, {"arc": critical}, alive, SelectionSettings(), tuned="rl").chosen

`TaskDifferences` holds one task by both scores, `choose` combines several tasks by one rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from featdiff.config.intervention import SelectionSettings
from featdiff.crosscoder.model import Crosscoder
from featdiff.selection.rules import above_share, by_paired_t, top
from featdiff.selection.scores import (
    HeldOutSplit,
    Selection,
    branch_score,
    combine_tasks,
    split_held_out,
    swap_score,
    task_score,
)

ItemScore = Float[Tensor, "items features"]
Residuals = Float[Tensor, "items models d_model"]
"""Of the crosscoder's models, in its order, at the final prompt token of each item."""
Score = Literal["branch", "swap"]
Rule = Literal["rel_max", "top_n", "t_bh"]
CHUNK = 1024
"""Items that are encoded at once."""


@dataclass(frozen=True, eq=False)
class TaskDifferences:
    """Differences between the tuned model and the base on one task's critical items, by both scores."""

    task: str
    parts: HeldOutSplit
    """Positions among the critical items."""
    branch: ItemScore
    swap: ItemScore
    rate: Float[Tensor, " features"]
    """Share of the task's prompts at whose end each feature fires."""

    @property
    def critical(self) -> int:
        """Number of critical items."""
        return len(self.swap)

    def by(self, score: Score, *, without_held_out: bool = False) -> ItemScore:
        """The differences by one score, on all critical items or on those that are not held out."""
        items = self.swap if score == "swap" else self.branch
        return items[self.parts.choosing] if without_held_out else items


@torch.no_grad()
def item_differences(
    crosscoder: Crosscoder, residuals: Residuals, tuned: str, base: str = "base", *, score: Score = "swap"
) -> ItemScore:
    """How much stronger each feature is in the tuned model than in the base, per item, by one score; on the CPU."""
    residuals = residuals.to(crosscoder.W_dec.device)
    if score == "swap":
        return swap_score(crosscoder, residuals, tuned, base).cpu()
    into, source = residuals[:, crosscoder.index(tuned)], residuals[:, crosscoder.index(base)]
    return branch_score(crosscoder, into, source, tuned, base).cpu()


@torch.no_grad()
def firing_rate(crosscoder: Crosscoder, residuals: Residuals) -> Float[Tensor, " features"]:
    """Share of the items on which each feature fires; 0 without items."""
    fired = torch.zeros(crosscoder.features)
    for chunk in residuals.to(crosscoder.W_dec.device).split(CHUNK):
        fired += (crosscoder.encode(chunk) > 0).sum(dim=0).cpu()
    return fired / max(len(residuals), 1)


def task_differences(
    crosscoder: Crosscoder,
    residuals: Residuals,
    critical: Int[Tensor, " critical"],
    task: str,
    *,
    tuned: str,
    base: str = "base",
    held_out: float = 0.5,
    seed: int = 0,
) -> TaskDifferences:
    """Score the critical items of one task.

    Arguments:
        crosscoder: supplies the features; aligns `base` and `tuned`.
        residuals: of all the task's items, critical or not.
        critical: indices of the items that the base gets wrong and the tuned model right, ascending.
        task: name of the task.
        tuned, base: names of the two models in the crosscoder.
        held_out: share of the critical items on which features chosen from the others are tested.
        seed: of the split into chosen-on and held-out items.
    """
    parts = split_held_out(critical, held_out, seed)
    at = [torch.searchsorted(critical, items) for items in (parts.choosing, parts.held_out)]
    branch, swap = (
        item_differences(crosscoder, residuals[critical], tuned, base, score=score) for score in ("branch", "swap")
    )
    return TaskDifferences(task, HeldOutSplit(*at), branch, swap, firing_rate(crosscoder, residuals))


def retained(
    differences: ItemScore, alive: Bool[Tensor, " features"], settings: SelectionSettings, rule: Rule | None = None
) -> Bool[Tensor, " features"]:
    """Features that one task retains by a rule (that of the settings unless another is given)."""
    match rule or settings.rule:
        case "top_n":
            return top(task_score(differences), alive, settings.top)
        case "t_bh":
            return by_paired_t(differences, alive, settings.fdr)
        case "rel_max":
            return above_share(task_score(differences), alive, settings.threshold)


def choose(
    tasks: Sequence[TaskDifferences],
    alive: Bool[Tensor, " features"],
    settings: SelectionSettings,
    *,
    score: Score | None = None,
    rule: Rule | None = None,
    without_held_out: bool = False,
) -> Selection:
    """Features that the tasks share, by the score and rule of the settings unless others are given."""
    items = [one.by(score or settings.score, without_held_out=without_held_out) for one in tasks]
    kept = torch.stack([retained(one, alive, settings, rule) for one in items])
    mean = torch.stack([task_score(one) for one in items])
    return combine_tasks(kept, mean, [one.task for one in tasks], settings.at_least)


def select(
    crosscoder: Crosscoder,
    residuals: Mapping[str, Float[Tensor, "_ models d_model"]],
    critical: Mapping[str, Int[Tensor, " _"]],
    alive: Bool[Tensor, " features"],
    settings: SelectionSettings | None = None,
    *,
    tuned: str | None = None,
    base: str = "base",
    seed: int = 0,
) -> Selection:
    """Select the features that may control generalization, from all critical items of every task (Eq. 11).

    They are selected a second time without the held-out items: `Selection.without_held_out`.

    Arguments:
        crosscoder: supplies the features.
        residuals: by task, of the crosscoder's models at the final prompt token of every item.
        critical: by task, indices of the critical items (`Outcomes.critical`).
        alive: features that may be selected (`Attribution.alive`).
        settings: score, rule and thresholds; unset: the paper's rule on the swap score.
        tuned, base: names of the two models; the tuned one is that of the settings unless given.
        seed: draws the items that are held out.

    Raises ValueError where the two mappings name different tasks, or none.
    """
    settings = settings or SelectionSettings()
    if not residuals or set(residuals) != set(critical):
        raise ValueError(f"residuals are of {list(residuals)}, critical items of {list(critical)}; give the same tasks")
    tasks = [
        task_differences(
            crosscoder,
            residuals[task],
            critical[task],
            task,
            tuned=tuned or settings.model,
            base=base,
            held_out=settings.held_out,
            seed=seed,
        )
        for task in residuals
    ]
    part = choose(tasks, alive, settings, without_held_out=True).chosen
    held_out = {one.task: critical[one.task][one.parts.held_out] for one in tasks}
    return replace(choose(tasks, alive, settings), without_held_out=part, held_out=held_out)


def mean_rate(tasks: Sequence[TaskDifferences]) -> Float[Tensor, " features"]:
    """Share of prompt ends at which each feature fires, the mean over tasks."""
    return torch.stack([one.rate for one in tasks]).mean(dim=0)
