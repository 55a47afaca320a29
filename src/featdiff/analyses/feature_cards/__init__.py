"""Evidence for single features: the contexts that excite them, and the tokens that they write."""

from pathlib import Path

from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write the stage of a study into `folder`."""
    from featdiff.analyses.feature_cards.compute import examples

    examples(plan, folder)


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    return None
