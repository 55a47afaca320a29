"""Drift for the report, from the stage `drift`."""

from featdiff.pipeline.plan import Plan
from featdiff.report.drift import DriftPanel, DriftRow
from featdiff.runs import read_json


def drift_panel(plan: Plan) -> DriftPanel | None:
    """All rows of the run; None where the stage has not been made."""
    path = plan.run.path("drift", "drift.json")
    if not path.is_file():
        return None
    record = read_json(path)
    return DriftPanel(record["least"], [DriftRow(**row) for row in record["rows"]])
