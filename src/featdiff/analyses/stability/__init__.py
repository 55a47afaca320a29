"""Which features are found again under other seeds, and how far counts vary over seeds."""

from pathlib import Path

from featdiff.files import Json
from featdiff.presentation.section import Section
from featdiff.run.plan import Plan


def run(plan: Plan, folder: Path) -> None:
    """Write `<lineup>.json` (tails under every seed, shares of stable features) and `<lineup>.safetensors` (every
    feature's matches and scores) for every lineup with several seeds."""
    from featdiff.analyses.stability.compute import write_stability
    from featdiff.run.scored import scored_seeds

    settings = plan.study.attribution, plan.study.stability
    for lineup, names in plan.seeds.items():
        if len(names) > 1:
            write_stability(scored_seeds(plan, lineup), names, *settings, place=folder / lineup)


def summary(plan: Plan) -> dict[str, Json]:
    """Seeds, tails under each, and how many features are found again, of every lineup with several seeds."""
    from featdiff.analyses.stability.text import headline_numbers

    found = headline_numbers(plan)
    return {"stability": found} if found else {}


def section(plan: Plan) -> Section | None:
    """The part of the report."""
    from featdiff.analyses.stability.text import section_of

    return section_of(plan)
