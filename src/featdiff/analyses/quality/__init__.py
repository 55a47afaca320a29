"""How well the crosscoders explain the models, on held-out text and on the evaluation prompts."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.quality.compute import quality

    quality(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None


def summary(plan: Plan) -> dict[str, Json]:
    """Variance explained, recovered cross-entropy, L0 and dead features of every lineup's first seed."""
    measured = [name for name in plan.lineups if plan.run.path("crosscoders", name, "quality.json").is_file()]
    return {"quality": {name: _quality(plan, name) for name in measured}}


def _quality(plan: Plan, name: str) -> Json:
    prompts = plan.run.read("quality", f"{name}.json")
    return plan.run.read("crosscoders", name, "quality.json") | ({"evaluation_prompts": prompts} if prompts else {})
