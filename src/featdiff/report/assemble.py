"""`report`: figures, `summary.json` and `report.html`, from the folders of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from featdiff.analyses.drift.report_drift import drift_panel
from featdiff.analyses.dynamics.report_dynamics import (
    dynamics_panels,
    missing_alignments,
)
from featdiff.analyses.editing_methods.report_ways import ways_panel
from featdiff.analyses.intervention.report_causal import causal_panel, generated_row
from featdiff.files import Json, Record, read_json, write_json
from featdiff.intervention.effects import decides
from featdiff.presentation.section import Section
from featdiff.report.data import (
    ControlDraws,
    EffectRow,
    ReportData,
    SetChange,
)
from featdiff.report.models import models_section, provenance_section
from featdiff.report.page import write_report
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
        drift=drift_panel(plan),
        dynamics=dynamics_panels(plan),
        missing_alignments=missing_alignments(plan),
        effects=_effects(plan),
        causal=causal_panel(plan),
        ways=ways_panel(plan),
        confidence=plan.study.intervention.confidence,
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
