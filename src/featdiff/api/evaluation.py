"""Models on benchmarks, and the items on which two of them differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from featdiff.api.settings import settings_of
from featdiff.config.evaluation import EvaluationSettings, TaskSettings
from featdiff.evaluation.harness import build_requests
from featdiff.evaluation.harness import evaluate as evaluate_model
from featdiff.evaluation.outcomes import Outcomes
from featdiff.evaluation.repeated_sampling import share_interval
from featdiff.evaluation.results import Requests, TaskResult
from featdiff.models.loading import Lineup, LineupModel
from featdiff.run.evaluation import longest_read
from featdiff.stats import Interval


@dataclass(frozen=True, eq=False)
class TaskItems:
    """Some items of one task."""

    requests: Requests
    """All items of the task, as the models read them."""
    outcomes: Outcomes
    """Who is right on what, of all items."""
    indices: Int[Tensor, " items"]
    """The items that are meant, ascending."""


@dataclass(frozen=True, eq=False)
class Items:
    """Items of several tasks of choices on which a base and a tuned model differ."""

    base: str
    tuned: str
    metric: Literal["acc", "acc_norm"]
    tasks: Mapping[str, TaskItems]

    def __len__(self) -> int:
        """Number of items, over all tasks."""
        return sum(len(one.indices) for one in self.tasks.values())

    def __getitem__(self, task: str) -> TaskItems:
        """The items of one task."""
        if task not in self.tasks:
            raise ValueError(f"there are items of {', '.join(self.tasks)}, none of {task}; evaluate it too")
        return self.tasks[task]

    def __iter__(self) -> Iterator[str]:
        """The names of the tasks."""
        return iter(self.tasks)

    def of(self, *tasks: str) -> "Items":
        """The items of these tasks alone: features can be selected on some tasks, and tested on others."""
        return Items(self.base, self.tuned, self.metric, {task: self[task] for task in tasks})


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Answers of all models of a lineup to the items of some tasks."""

    lineup: Lineup
    settings: EvaluationSettings
    seed: int
    results: Mapping[str, Mapping[str, TaskResult]]
    """By task and model: what was asked, and what was answered."""

    @cached_property
    def outcomes(self) -> dict[str, Outcomes]:
        """Who is right on what, by task."""
        return {task: Outcomes.of(dict(results)) for task, results in self.results.items()}

    @property
    def accuracy(self) -> dict[str, dict[str, Interval]]:
        """By task and model, the share of right answers with Wilson's 95 % interval."""
        return {
            task: {model: share_interval(result.shares, confidence=0.95) for model, result in results.items()}
            for task, results in self.results.items()
        }

    def critical(self, base: str = "base", tuned: str = "rl") -> Items:
        """Items that `base` gets wrong and `tuned` right (Sec. 3.2), of the tasks of choices.

        Raises ValueError for a model that was not evaluated, and where no task is one of choices.
        """
        return self._items(base, tuned, {task: one.critical(base, tuned) for task, one in self.outcomes.items()})

    def mirror(self, base: str = "base", tuned: str = "rl") -> Items:
        """Items that `base` gets right and `tuned` wrong; errors as `critical`."""
        return self._items(base, tuned, {task: one.mirror(base, tuned) for task, one in self.outcomes.items()})

    @cached_property
    def requests(self) -> dict[str, Requests]:
        """The items of every task of choices as token ids."""
        longest, tokenizer = longest_read(self.lineup), self.lineup.tokenizer
        return {
            task: build_requests(task, self.settings, tokenizer, seed=self.seed, max_length=longest)
            for task, results in self.results.items()
            if next(iter(results.values())).kind == "multiple_choice"
        }

    def _items(self, base: str, tuned: str, indices: dict[str, Int[Tensor, " items"]]) -> Items:
        if not self.requests:
            raise ValueError(f"{', '.join(self.results)} ask for generated answers; evaluate a task of choices")
        tasks = {
            task: TaskItems(requests, self.outcomes[task], indices[task]) for task, requests in self.requests.items()
        }
        return Items(base, tuned, self.settings.metric, tasks)


def evaluate(
    models: Lineup | LineupModel,
    tasks: Sequence[str | TaskSettings],
    *,
    limit: int | None = None,
    task_folder: str | None = None,
    data_folder: str | None = None,
    fewshot: int = 0,
    metric: Literal["acc", "acc_norm"] = "acc",
    batch_size: int = 32,
    seed: int = 0,
) -> Evaluation:
    """Evaluate every model of a lineup, or one of them, on tasks of lm-eval; needs `pip install 'featdiff[eval]'`.

    Arguments:
        models: by `load_models`; whole models are loaded one after another. `models["rl"]` is one alone.
        tasks: names of lm-eval, or of task files in `task_folder`; or `TaskSettings`, for example with repeats.
        limit: evaluate only the first items of every task.
        task_folder: folder of lm-eval task files of your own.
        data_folder: folder of JSONL files with the paper's benchmarks; nothing is fetched then.
        fewshot: worked examples before each question.
        metric: what the predicted choice has the highest of: log-likelihood, or log-likelihood per character.
        batch_size: sequences per forward pass.
        seed: draws worked examples and samples generated answers.

    Raises ValueError for no task or the same one twice, and for a task that is unknown, lacks its data, or is scored
    neither by choices nor by exact match.

    >>> outcomes = evaluate(models, ["arc_challenge", "openbookqa"], limit=200)
    >>> outcomes.accuracy["arc_challenge"]["rl"].value
    >>> critical = outcomes.critical("base", "rl")
    """
    wanted = tuple(TaskSettings(name=task) if isinstance(task, str) else task for task in tasks)
    names = [task.name for task in wanted]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the tasks are {names}; name at least one, and each of them once")
    settings = settings_of(
        EvaluationSettings,
        tasks=wanted,
        limit=limit,
        task_folder=task_folder,
        data_folder=data_folder,
        fewshot=fewshot,
        metric=metric,
        batch_size=batch_size,
    )
    handles = [models] if isinstance(models, LineupModel) else [models[name] for name in models.names]
    lineup = handles[0].lineup
    found = {one.name: evaluate_model(one.whole(), lineup.tokenizer, settings, seed=seed) for one in handles}
    by_task = {task: {name: results[i] for name, results in found.items()} for i, task in enumerate(names)}
    return Evaluation(lineup, settings, seed, by_task)
