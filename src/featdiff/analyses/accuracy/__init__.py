"""How often every model is right on every task (Table 1), item by item."""

from pathlib import Path

from featdiff.config.study import BASE
from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan

TABLE = "accuracy.json"


def run(plan: Plan, folder: Path) -> None:
    """Write `<model>/<task>.parquet` for each model and task, `outcomes/<task>.parquet`, and `accuracy.json`."""
    from featdiff.analyses.accuracy.compute import accuracies
    from featdiff.analyses.accuracy.result import AccuracyTable
    from featdiff.evaluation.outcomes import save_outcomes
    from featdiff.evaluation.results import TaskResult
    from featdiff.files import save
    from featdiff.run.evaluation import evaluate_missing, located_settings, record_file

    settings = located_settings(plan)
    for name in plan.models:
        evaluate_missing(plan, folder, name, plan.paths[name], settings)
    tasks = {}
    for task in settings.tasks:
        results = {name: TaskResult.load(record_file(folder, name, task.name)) for name in plan.models}
        save_outcomes(folder / "outcomes" / f"{task.name}.parquet", results, BASE)
        tasks[task.name] = accuracies(results, task, plan.study.intervention.confidence)
    save(AccuracyTable(tasks), folder / TABLE)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.accuracy.text import section_of, table_of

    return section_of(table_of(plan), plan.models, plan.study.intervention.confidence)


def summary(plan: Plan) -> dict[str, Json]:
    """Accuracy by task and model."""
    from featdiff.analyses.accuracy.text import table_of

    table = table_of(plan)
    return {"accuracy": {task: {name: one.summary() for name, one in row.items()} for task, row in table.items()}}
