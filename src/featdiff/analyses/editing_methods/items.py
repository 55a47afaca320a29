"""The items that ways to change the base are chosen and measured on: halves of the selecting tasks, and unseen tasks.

Critical items are parted as the selection of features parted them, all other items in the same proportion; so whatever
is chosen on one half, of features or of strengths, has seen nothing of the other.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from featdiff.config.study import BASE, TaskSettings
from featdiff.evaluation.outcomes import Outcomes
from featdiff.evaluation.results import Requests
from featdiff.models.loading import Lineup
from featdiff.run.evaluation import choice_tasks, held_out_parts, outcomes_of, requests_of
from featdiff.run.intervention_context import sampled
from featdiff.run.plan import Plan
from featdiff.selection.scores import split_held_out

Which = Literal["choosing", "held out", "unseen"]


@dataclass(frozen=True, eq=False)
class TaskItems:
    """Items of several tasks as one list, and who was right on them."""

    requests: Requests
    tasks: tuple[str, ...]
    task_of: Int[Tensor, " items"]
    correct: dict[str, Bool[Tensor, " items"]]
    """By model, from the records of the evaluation."""
    prediction: dict[str, Int[Tensor, " items"]]
    tuned: str

    @property
    def critical(self) -> Bool[Tensor, " items"]:
        """Base wrong, tuned model right."""
        return ~self.correct[BASE] & self.correct[self.tuned]

    @property
    def mirror(self) -> Bool[Tensor, " items"]:
        """Base right, tuned model wrong."""
        return self.correct[BASE] & ~self.correct[self.tuned]

    def of_task(self, task: int) -> Bool[Tensor, " items"]:
        """The items of one task, by its place in `tasks`."""
        return self.task_of == task

    def only(self, wanted: Bool[Tensor, " items"]) -> Requests:
        """The requests of some of the items."""
        return self.requests.select(wanted.nonzero().flatten())


def items_of(plan: Plan, lineup: Lineup, which: Which) -> TaskItems | None:
    """One half of every task that took part in the selection, or every unseen task; None where there is none.

    Of each half at most `ways.items` are taken, at random; of an unseen task, which is not halved, twice as many.
    """
    unseen = which == "unseen"
    tasks = [task for task in choice_tasks(plan) if (task.role == "unseen") == unseen]
    if not tasks:
        return None
    outcomes = [outcomes_of(plan, task.name) for task in tasks]
    chosen = [_chosen(plan, task, one, which) for task, one in zip(tasks, outcomes, strict=True)]
    parts = [requests_of(plan, task.name, lineup).select(rows) for task, rows in zip(tasks, chosen, strict=True)]

    def lined_up(table: str, model: str) -> Tensor:
        index = outcomes[0].models.index(model)
        return torch.cat([getattr(one, table)[index, rows] for one, rows in zip(outcomes, chosen, strict=True)])

    return TaskItems(
        requests=Requests.together(parts),
        tasks=tuple(task.name for task in tasks),
        task_of=torch.arange(len(tasks)).repeat_interleave(torch.tensor([len(rows) for rows in chosen])),
        correct={model: lined_up("correct", model) for model in plan.models},
        prediction={model: lined_up("prediction", model) for model in plan.models},
        tuned=plan.study.selection.model,
    )


def _chosen(plan: Plan, task: TaskSettings, outcomes: Outcomes, which: Which) -> Int[Tensor, " chosen"]:
    every, most = torch.arange(len(outcomes.sample_ids)), 2 * plan.study.ways.items
    if which != "unseen":
        most = plan.study.ways.items
        tuned, seed = plan.study.selection.model, plan.study.seed
        critical = held_out_parts(plan, task.name)
        rest = every[~torch.isin(every, outcomes.critical(BASE, tuned))]
        others = split_held_out(rest, plan.study.selection.held_out, seed)
        pair = (critical.choosing, others.choosing) if which == "choosing" else (critical.held_out, others.held_out)
        every = torch.cat(pair).sort().values
    return every[sampled(len(every), most, plan.study.seed)]
