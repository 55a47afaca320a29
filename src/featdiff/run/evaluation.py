"""What `evaluate` has recorded in a run, and the items of its tasks as the models read them."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from featdiff.config.evaluation import EvaluationSettings, TaskSettings
from featdiff.config.study import BASE
from featdiff.evaluation.batches import final_prompt_activations
from featdiff.evaluation.harness import build_requests, evaluate
from featdiff.evaluation.outcomes import Outcomes
from featdiff.evaluation.results import Kind, Requests, TaskResult
from featdiff.models.loading import Lineup, load_tokenizer
from featdiff.run.models import load_whole
from featdiff.run.plan import Plan
from featdiff.selection.scores import HeldOutSplit, split_held_out

Residuals = Float[Tensor, "items models d_model"]


def outcomes_of(plan: Plan, task: str, folder: Path | None = None) -> Outcomes:
    """Who was right on what, from the records of the run."""
    place = folder or plan.run.path("evaluation")
    return Outcomes.of({name: TaskResult.load(record_file(place, name, task)) for name in plan.models})


def requests_of(plan: Plan, task: str, lineup: Lineup) -> Requests:
    """A task's items as the models read them, in the order of the records."""
    settings, longest = located_settings(plan), longest_read(lineup)
    return build_requests(task, settings, lineup.tokenizer, seed=plan.study.seed, max_length=longest)


def longest_read(lineup: Lineup) -> int:
    """Tokens that every model of the lineup can read."""
    return min(model.config.get_text_config().max_position_embeddings for model in lineup.models)


def results_in(folder: Path, name: str, settings: EvaluationSettings) -> dict[str, TaskResult]:
    """One model's records, task by task."""
    return {task.name: TaskResult.load(record_file(folder, name, task.name)) for task in settings.tasks}


def evaluate_missing(plan: Plan, folder: Path, name: str, path: str, settings: EvaluationSettings) -> None:
    """Write `<name>/<task>.parquet` for the model at `path`, of those tasks whose file is not there yet."""
    missing = [task for task in settings.tasks if not record_file(folder, name, task.name).is_file()]
    if not missing:
        return
    model = load_whole(plan, path)
    tokenizer = load_tokenizer(path, trust_remote_code=plan.study.lineup.trust_remote_code)
    for task in missing:
        one = settings.model_copy(update={"tasks": (task,)})
        try:
            (result,) = evaluate(model, tokenizer, one, seed=plan.study.seed)
        except ValueError as error:
            raise ValueError(f"evaluating {name}: {error}") from error
        result.save(record_file(folder, name, task.name))


def choice_tasks(plan: Plan) -> list[TaskSettings]:
    """Tasks whose answers are choices: those that features can be selected and tested on."""
    return _tasks_of(plan, "multiple_choice")


def generated_tasks(plan: Plan) -> list[TaskSettings]:
    """Tasks whose answers are generated; no features are selected on them."""
    return _tasks_of(plan, "generate_until")


def _tasks_of(plan: Plan, kind: Kind) -> list[TaskSettings]:
    place = plan.run.path("evaluation")
    tasks = plan.study.evaluation.tasks
    return [task for task in tasks if TaskResult.load(record_file(place, BASE, task.name)).kind == kind]


def located_settings(plan: Plan) -> EvaluationSettings:
    """The study's evaluation settings with the place of its task files."""
    settings = plan.study.evaluation
    places = {"task_folder": settings.task_folder, "data_folder": settings.data_folder}
    return settings.model_copy(update={name: place and plan.located(place) for name, place in places.items()})


def record_file(folder: Path, model: str, task: str) -> Path:
    """Of one model's answers to one task."""
    return folder / model / f"{task}.parquet"


def selecting_tasks(plan: Plan) -> list[str]:
    """The tasks that take part in the selection: multiple choice, and not unseen."""
    return [task.name for task in choice_tasks(plan) if task.role != "unseen"]


def held_out_parts(plan: Plan, task: str) -> HeldOutSplit:
    """The critical items of a task, parted into those that features are chosen on and those that are held out."""
    critical = outcomes_of(plan, task).critical(BASE, plan.study.selection.model)
    return split_held_out(critical, plan.study.selection.held_out, plan.study.seed)


def prompt_ends(plan: Plan, lineup: Lineup, task: str) -> Residuals:
    """What every model of a lineup holds at the end of each prompt of a task."""
    requests = requests_of(plan, task, lineup)
    return final_prompt_activations(requests, lineup, batch_size=plan.study.intervention.batch_size)
