"""What models at equal drift can do: the tasks of `evaluate`, for models that are not of the lineup too."""

from dataclasses import replace
from pathlib import Path

from featdiff.evaluation.results import TaskResult
from featdiff.run.evaluation import evaluate_missing, located_settings, results_in
from featdiff.run.plan import Plan


class Answers:
    """Records by model folder. Models of the lineup have them already; others are evaluated into `folder`."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        settings, items = located_settings(plan), plan.study.drift.accuracy_items
        limits = [limit for limit in (settings.limit, items) if limit is not None]
        self._settings = settings.model_copy(update={"limit": min(limits, default=None)})
        self._known = {plan.paths[name]: name for name in reversed(plan.models)}

    def of(self, name: str, path: str) -> list[TaskResult]:
        """Task by task, the first items of each; `name` is that of the records, should the model be evaluated."""
        if path in self._known:
            found = results_in(self._plan.run.path("evaluation"), self._known[path], self._settings)
        else:
            evaluate_missing(self._plan, self._folder, name, path, self._settings)
            found = results_in(self._folder, name, self._settings)
        return [replace(result, samples=result.samples[: self._settings.limit]) for result in found.values()]
