"""Which results hang on choices of the dictionary: each choice at equal L0 and at equal variance explained."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.sensitivity.compute import sensitivity

    sensitivity(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


def summary(plan: Plan) -> dict[str, Json]:
    """Every choice at equal L0 and at equal variance explained; single crosscoders are left out."""
    found = plan.run.read("sensitivity", "sensitivity.json")
    return {"sensitivity": {key: value for key, value in found.items() if key != "points"}} if found else {}
