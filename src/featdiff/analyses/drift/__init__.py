"""How far every tuned model and checkpoint has moved from the base, and its tail at less of the same change."""

from pathlib import Path

from featdiff.files import Json, Record
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.drift.compute import drift

    drift(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


def summary(plan: Plan) -> dict[str, Json]:
    """By tuned model, its checkpoints and interpolations by name; and the models at equal drift."""
    record = plan.run.read("drift", "drift.json")
    found: dict[str, Record] = {}
    for row in record.get("rows", []):
        kept = {key: row[key] for key in ("kind", "alpha", "kl_task", "kl_neutral", "tails")}
        kept |= {"weights": row["weights"]["all"], "activations": max(row["activations"])}
        kept |= {"crossed": row["crossed"]} if row["crossed"] else {}
        found.setdefault(row["tuned"], {})[row["name"]] = kept
    drift: dict[str, Json] = {"drift": found}
    return drift | ({"equal_drift": record["equal"]} if record.get("equal") else {})
