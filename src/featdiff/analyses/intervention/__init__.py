"""What the selected features do: zeroed in the tuned model and amplified in the base, with controls (Sec. 7)."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.intervention.compute import intervene

    intervene(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


def summary(plan: Plan) -> dict[str, Json]:
    """Effects by task, claims over tasks, and side effects on text."""
    found = plan.run.read("interventions", "effects.json")
    effects: dict[str, Json] = {"effects": found.get("effects", [])}
    return effects | {key: found[key] for key in ("claims", "side_effects") if key in found}
