"""`report`: figures, `summary.json` and `report.html`, from the folders of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from featdiff.analyses.editing_methods.report_ways import ways_panel
from featdiff.analyses.intervention.report_causal import causal_panel, generated_row
from featdiff.analyses.sensitivity.report_sensitivity import sensitivity_panel
from featdiff.config.study import BASE
from featdiff.evaluation.outcomes import Outcomes
from featdiff.files import Json, Record, read_json, write_json
from featdiff.intervention.effects import decides
from featdiff.presentation.section import Section
from featdiff.report.data import (
    ChosenStability,
    ControlDraws,
    EffectRow,
    FoundAgain,
    ReportData,
    SelectionPanel,
    SetChange,
)
from featdiff.report.models import models_section, provenance_section
from featdiff.report.page import write_report
from featdiff.run.evaluation import outcomes_of
from featdiff.run.plan import Plan


def report(plan: Plan, folder: Path, sections: Sequence[Section], summary: Mapping[str, Json]) -> None:
    """Write the figures with their numbers into the stage's folder; the page and the summary at the root of the run."""
    write_json(plan.run.path("summary.json"), summary)
    data = report_data(plan, dict(summary))
    page = write_report(data, folder, [models_section(plan), *sections], provenance_section(plan))
    page.replace(plan.run.path("report.html"))
    for file in sorted((folder / "figures").iterdir()):
        file.rename(folder / file.name)
    (folder / "figures").rmdir()


def report_data(plan: Plan, numbers: Record) -> ReportData:
    """Everything that the page says, read from the folders of the run."""
    return ReportData(
        study=plan.study.name,
        models=plan.models,
        chosen_stability=_chosen_stability(numbers["selection"]),
        selection=_selection(plan),
        effects=_effects(plan),
        causal=causal_panel(plan),
        ways=ways_panel(plan),
        sensitivity=sensitivity_panel(plan),
        confidence=plan.study.intervention.confidence,
    )


def _selection(plan: Plan) -> SelectionPanel | None:
    path = plan.run.path("selection", "selection.json")
    if not path.is_file():
        return None
    record = read_json(path)
    outcomes: dict[str, Outcomes] = {task: outcomes_of(plan, task) for task in record["tasks"]}
    return SelectionPanel(
        threshold=plan.study.selection.threshold,
        mirror={task: len(one.mirror(BASE, record["model"])) for task, one in outcomes.items()},
        **{
            key: record[key]
            for key in (
                "model",
                "lineup",
                "score",
                "rule",
                "tasks",
                "per_task",
                "critical",
                "chosen",
                "overlap",
                "in_at_least",
            )
        },
    )


def _chosen_stability(selection: Record) -> ChosenStability | None:
    """The selected features under other seeds, where there are any; `selection` is what `select` wrote."""
    if not selection.get("chosen") or not (found := selection.get("stability")):
        return None
    score: Record = found["score"]
    rows = zip(selection["chosen"], found["matched_in"], score["mean"], score["deviation"], strict=True)
    return ChosenStability(
        model=score["model"],
        other_seeds=found["other_seeds"],
        needed=found["needed"],
        features=[FoundAgain(*row) for row in rows],
    )


def _effects(plan: Plan) -> list[EffectRow]:
    path = plan.run.path("interventions", "effects.json")
    roles = {task.name: task.role for task in plan.study.evaluation.tasks}
    confidence = plan.study.intervention.confidence
    records = read_json(path)["records"] if path.is_file() else []
    return [_effect(record, roles[record["task"]], confidence) for record in records]


def _effect(record: Record, role: str, confidence: float) -> EffectRow:
    held_out = record["sets"]["held_out"]
    return EffectRow(
        task=record["task"],
        role=role,
        model=record["model"],
        edit=record["edit"],
        expected=record["expected"],
        features=record["features"],
        sets={
            name: SetChange(one["before"], one["after"], one["n"], one["interval"])
            for name, one in record["sets"].items()
        },
        control=ControlDraws(measured_on="held_out", **held_out["control"]),
        p=held_out["p"],
        verdict=held_out["verdict"],
        beaten={} if "repeats" in record else _beaten(record["controls"], confidence),
        guessing_again=record.get("guessing_again"),
        generated=generated_row(record),
    )


def _beaten(controls: Record, confidence: float) -> dict[str, bool]:
    """Whether the change lies beyond each deciding kind of control, by the empirical p against that kind alone."""
    largest = (1 - confidence) / 2 + 1e-12
    return {kind: one["p"] <= largest for kind, one in controls.items() if decides(kind, one["draws"], confidence)}
