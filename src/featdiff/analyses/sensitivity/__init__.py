"""Which results hang on choices of the dictionary: each choice at equal L0 and at equal variance explained."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write `crosscoders/`, `attribution/`, `choices/`, `effects/`, and `sensitivity.json` with all comparisons."""
    from featdiff.analyses.sensitivity.compute import sensitivity
    from featdiff.files import save

    save(sensitivity(plan, folder), folder / "sensitivity.json")


def summary(plan: Plan) -> dict[str, Json]:
    """Every choice at equal L0 and at equal variance explained; single crosscoders are left out."""
    from featdiff.analyses.sensitivity.result import Sensitivity
    from featdiff.files import as_json, load

    place = plan.run.path("sensitivity", "sensitivity.json")
    found = as_json(load(Sensitivity, place)) if place.is_file() else {}
    assert isinstance(found, dict)
    return {"sensitivity": {key: value for key, value in found.items() if key != "points"}} if found else {}


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.sensitivity.report import section_of
    from featdiff.analyses.sensitivity.result import Sensitivity
    from featdiff.files import load

    place = plan.run.path("sensitivity", "sensitivity.json")
    return section_of(load(Sensitivity, place)) if place.is_file() else None
