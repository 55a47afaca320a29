"""`report`: figures, `summary.json` and `report.html`, from the folders of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from featdiff.analyses.drift.report_drift import drift_panel
from featdiff.analyses.dynamics.report_dynamics import (
    chosen_stability,
    dynamics_panels,
    missing_alignments,
)
from featdiff.analyses.sensitivity.report_sensitivity import sensitivity_panel
from featdiff.config.study import BASE
from featdiff.evaluation.outcomes import Outcomes
from featdiff.files import Json, Record, read_json, write_json
from featdiff.presentation.section import Section
from featdiff.report.data import (
    Elsewhere,
    Origin,
    ReportData,
    SelectionPanel,
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
        drift=drift_panel(plan),
        dynamics=dynamics_panels(plan),
        missing_alignments=missing_alignments(plan),
        chosen_stability=chosen_stability(numbers["selection"]),
        selection=_selection(plan),
        origin=_origin(plan),
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


def _origin(plan: Plan) -> Origin | None:
    selection = plan.run.read("selection", "selection.json")
    if "null" not in selection:
        return None
    return Origin(
        model=selection["model"],
        in_at_least=selection["null"]["in_at_least"],
        draws=selection["null"]["draws"],
        elsewhere={name: _elsewhere(one) for name, one in selection["elsewhere"].items()},
        by_rule={rule: len(one["chosen"]) for rule, one in selection["by_rule"].items()},
        without_task={task: one["jaccard"] for task, one in selection["without_task"].items()},
    )


def _elsewhere(record: Record) -> Elsewhere:
    shared = record["shared"]
    return Elsewhere(record["items"], len(record["chosen"]), shared["found"], shared["null"], shared["p"])
