"""Features, a steering vector, neurons and tuned weights as ways to one behaviour (Han et al., EMNLP 2025)."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.editing_methods.compute import ways

    ways(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


def summary(plan: Plan) -> dict[str, Json]:
    """The editing methods by name, and the overlaps of the neurons that they move."""
    found = plan.run.read("ways", "ways.json")
    if not found:
        return {}
    kept = ("title", "reliability", "generalization", "side_effects", "answer_format")
    overlap = [{key: one[key] for key in ("where", "ways", "size", "jaccard", "chance")} for one in found["overlap"]]
    by_name = {one["name"]: {key: one[key] for key in kept} for one in found["ways"]}
    note = {"note": found["note"]} if "note" in found else {}
    return {"ways": {"ways": by_name, "overlap": overlap} | note}
