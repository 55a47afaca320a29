"""`evaluate`: every model on every task, item by item."""

from pathlib import Path

from featdiff.activations.models import Lineup, load_model, load_tokenizer
from featdiff.causal.evaluation import build_requests
from featdiff.causal.evaluation import evaluate as evaluate_model
from featdiff.causal.outcomes import Outcomes
from featdiff.causal.records import Requests, TaskResult
from featdiff.causal.statistics import difference_interval, wilson_interval
from featdiff.pipeline.plan import Plan
from featdiff.runs import Json, write_json
from featdiff.study import BASE, EvaluationSettings, TaskSettings


def evaluate(plan: Plan, folder: Path) -> None:
    """Write `<model>/<task>.parquet` for each model and task, and `accuracy.json`."""
    settings = located_settings(plan)
    for name in plan.models:
        missing = [task for task in settings.tasks if not _place(folder, name, task.name).is_file()]
        if missing:
            _evaluate_model(plan, folder, name, settings, missing)
    accuracy = {task.name: _accuracies(plan, folder, task) for task in settings.tasks}
    write_json(folder / "accuracy.json", accuracy)


def outcomes_of(plan: Plan, task: str, folder: Path | None = None) -> Outcomes:
    """Who was right on what, from the records of the run."""
    place = folder or plan.run.path("evaluation")
    return Outcomes.of({name: TaskResult.load(_place(place, name, task)) for name in plan.models})


def requests_of(plan: Plan, task: str, lineup: Lineup) -> Requests:
    """A task's items as the models read them, in the order of the records."""
    longest = min(model.config.get_text_config().max_position_embeddings for model in lineup.models)
    settings = located_settings(plan)
    return build_requests(task, settings, lineup.tokenizer, seed=plan.study.seed, max_length=longest)


def choice_tasks(plan: Plan) -> list[TaskSettings]:
    """Tasks whose answers are choices: those that features can be selected and tested on."""
    tasks = plan.study.evaluation.tasks
    place = plan.run.path("evaluation")
    return [task for task in tasks if TaskResult.load(_place(place, BASE, task.name)).kind == "multiple_choice"]


def located_settings(plan: Plan) -> EvaluationSettings:
    """The study's evaluation settings with the place of its task files."""
    settings = plan.study.evaluation
    return settings.model_copy(update={"task_folder": settings.task_folder and plan.located(settings.task_folder)})


def _evaluate_model(
    plan: Plan, folder: Path, name: str, settings: EvaluationSettings, missing: list[TaskSettings]
) -> None:
    lineup = plan.study.lineup
    trust = lineup.trust_remote_code
    model = load_model(plan.paths[name], dtype=lineup.dtype, device=lineup.device, trust_remote_code=trust)
    tokenizer = load_tokenizer(plan.paths[name], trust_remote_code=trust)
    for task in missing:
        one = settings.model_copy(update={"tasks": (task,)})
        try:
            (result,) = evaluate_model(model, tokenizer, one, seed=plan.study.seed)
        except ValueError as error:
            raise ValueError(f"evaluating {name}: {error}") from error
        result.save(_place(folder, name, task.name))


def _accuracies(plan: Plan, folder: Path, task: TaskSettings) -> dict[str, Json]:
    outcomes = outcomes_of(plan, task.name, folder)
    baseline = TaskResult.load(_place(folder, BASE, task.name)).constant_baseline
    return {
        name: _accuracy(plan, outcomes, name) | {"constant_baseline": baseline, "role": task.role}
        for name in plan.models
    }


def _accuracy(plan: Plan, outcomes: Outcomes, name: str) -> dict[str, Json]:
    """Accuracy with Wilson's interval; of a tuned model also the gain over the base on the same items."""
    confidence = plan.study.intervention.confidence
    correct = outcomes[name]
    share = wilson_interval(int(correct.sum()), len(correct), confidence=confidence)
    record: dict[str, Json] = {"value": share.value, "n": len(correct), "interval": [share.low, share.high]}
    if name != BASE:
        gain = difference_interval(outcomes[BASE], correct, confidence=confidence)
        churn = outcomes.mcnemar(BASE, name)
        record["gain"] = {"value": gain.value, "interval": [gain.low, gain.high]}
        record["flips"] = {"gained": churn.gained, "lost": churn.lost, "p": churn.p}
    return record


def _place(folder: Path, model: str, task: str) -> Path:
    return folder / model / f"{task}.parquet"
