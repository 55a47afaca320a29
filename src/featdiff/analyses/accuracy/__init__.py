"""How often every model is right on every task (Table 1), item by item."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.accuracy.compute import evaluate

    evaluate(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


def summary(plan: Plan) -> dict[str, Json]:
    """Accuracy by task and model."""
    return {"accuracy": plan.run.read("evaluation", "accuracy.json")}
