"""Accuracy in the report: Table 1, who beats the base, and where no model has learned anything."""

from collections.abc import Iterator, Sequence

from featdiff.analyses.accuracy import TABLE
from featdiff.analyses.accuracy.figures import accuracy_bars
from featdiff.analyses.accuracy.result import AccuracyTable, Table
from featdiff.config.study import BASE
from featdiff.files import as_json, load
from featdiff.presentation.picture import Picture
from featdiff.presentation.section import Section
from featdiff.presentation.words import listing, percent, plural
from featdiff.run.plan import Plan

TRAIN = "train"
"""Role of a task that post-training was done on."""


def table_of(plan: Plan) -> Table:
    """What the stage has found; empty where it has not been made."""
    path = plan.run.path("evaluation", TABLE)
    return load(AccuracyTable, path).tasks if path.is_file() else {}


def section_of(table: Table, models: Sequence[str], confidence: float) -> Section | None:
    """A figure, the table, and whether what was gained is churn; nothing without tasks."""
    if not table:
        return None
    return Section(
        anchor="accuracy",
        title="Accuracy",
        template="accuracy/section.html",
        values={"table": table, "models": models, "confidence": confidence},
        figures=[_picture(table, models, confidence)],
        findings=list(findings(table, models, confidence)),
        caveats=list(caveats(table)),
    )


def findings(table: Table, models: Sequence[str], confidence: float) -> Iterator[str]:
    """On how many tasks that took no part in training each tuned model is above the base, and below it."""
    untrained = [row for row in table.values() if row[BASE].role != TRAIN]
    if not untrained:
        return
    parts = [
        f"{model} beats {BASE} on {sum(row[model].beats_base for row in untrained)} of "
        f"{plural(len(untrained), 'task')} and falls below it on {sum(row[model].below_base for row in untrained)}"
        for model in models
        if model != BASE
    ]
    yield f"On tasks that took no part in training, {listing(parts)} (by {100 * confidence:g} % intervals)."


def caveats(table: Table) -> Iterator[str]:
    """The tasks on which no interval lies above what one constant answer would score."""
    constant = [
        task for task, row in table.items() if all(one.interval[0] <= one.constant_baseline for one in row.values())
    ]
    if constant:
        yield f"No model is clearly better than one constant answer on {listing(constant)}: little to be learned there."


def _picture(table: Table, models: Sequence[str], confidence: float) -> Picture:
    rows = [
        f"{task}: {', '.join(f'{model} {percent(one.value)}' for model, one in row.items())}"
        for task, row in table.items()
    ]
    return Picture(
        name="accuracy",
        section="accuracy",
        figure=accuracy_bars(table, models),
        title="Accuracy by task and model",
        finding=f"Accuracy in % with {100 * confidence:g} % intervals. {'; '.join(rows)}.",
        numbers={task: {model: as_json(one) for model, one in row.items()} for task, row in table.items()},
    )
