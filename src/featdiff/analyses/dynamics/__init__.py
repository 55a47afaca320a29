"""How specific features form over the checkpoints of a tuned model (Sec. 5.2)."""

from pathlib import Path

from featdiff.files import Json, Record
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.dynamics.compute import dynamics

    dynamics(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


TRAJECTORY = (
    "alignment",
    "checkpoints",
    "overlap",
    "noise_floor",
    "chance",
    "seeds",
    "floors",
    "between_seeds",
    "relative",
    "counted",
)


def summary(plan: Plan) -> dict[str, Json]:
    """Overlaps over checkpoints by tuned model, with their noise floor."""
    found = {name: _dynamics(plan.run.read("dynamics", f"{name}.json")) for name in plan.tuned}
    return {"dynamics": {name: one for name, one in found.items() if one}}


def _dynamics(found: Record) -> Record:
    kept = {key: found[key] for key in (*TRAJECTORY, "missing") if key in found}
    by_alignment: dict[str, Record] = found.get("by_alignment", {})
    short = {alignment: {key: one[key] for key in TRAJECTORY} for alignment, one in by_alignment.items()}
    return kept | ({"by_alignment": short} if short else {})
