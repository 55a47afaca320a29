"""Features that differ where the tuned model is right and the base wrong (Sec. 3.2, Eq. 11)."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.selection.compute import select

    select(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


CHOICE = (
    "tasks",
    "per_task",
    "chosen",
    "rule",
    "score",
    "stability",
    "by_rule",
    "without_task",
    "elsewhere",
)


def summary(plan: Plan) -> dict[str, Json]:
    """The selected features, by which rule, and what other rules and items would select."""
    selection = plan.run.read("selection", "selection.json")
    return {"selection": {key: selection[key] for key in CHOICE if key in selection}}
