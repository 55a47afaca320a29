"""Which model owns each feature (Eq. 4, 8-10), and whether it is absent from the others or only shrunk there."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.ownership.compute import attribute

    attribute(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


def summary(plan: Plan) -> dict[str, Json]:
    """Alive features above each cut, by crosscoder and model."""
    found = {name: plan.run.read("attribution", f"{name}.json").get("tails") for name in plan.crosscoders}
    return {"tails": {name: tails for name, tails in found.items() if tails}}
